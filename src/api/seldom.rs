//! Log lines about strangers: whoever can connect must not be able to fill the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets one line through in a while, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// `None` when there was a line just now. Else how many there were since that were not said.
    pub(super) fn may_say(&self, now: Instant) -> Option<u64> {
        if self.last.get().is_some_and(|last| now < last + PAUSE) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_how_many_were_left_out() {
        let (start, seldom) = (Instant::now(), Seldom::default());
        let said: Vec<_> = [0, 1, 500, 999, 1000, 1001, 2500]
            .map(|at| seldom.may_say(start + Duration::from_millis(at)))
            .into_iter()
            .collect();
        assert_eq!(said, [Some(0), None, None, None, Some(3), None, Some(1)]);
    }
}
