//! Log lines about strangers: whoever can connect must not be able to fill the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// So many lines are said in each period.
const LINES: u32 = 10;

/// It begins with a line.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets some lines through, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    begun: Cell<Option<Instant>>,
    said: Cell<u32>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// `None` when there were enough lines of late. Else how many there were since the last one that were not said.
    pub fn may_say(&self, now: Instant) -> Option<u64> {
        if self.begun.get().is_none_or(|begun| now >= begun + PERIOD) {
            self.begun.set(Some(now));
            self.said.set(0);
        }
        if self.said.get() == LINES {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.said.set(self.said.get() + 1);
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_in_a_while_say_how_many_were_left_out() {
        let (start, seldom) = (Instant::now(), Seldom::default());
        let say = |at: u64| seldom.may_say(start + Duration::from_millis(at));
        assert!((0..u64::from(LINES)).all(|at| say(at) == Some(0)));
        assert_eq!([say(100), say(9_000), say(9_999)], [None; 3]);
        assert_eq!([say(10_000), say(10_001)], [Some(3), Some(0)]);
        assert!((2..u64::from(LINES)).all(|at| say(10_000 + at) == Some(0)));
        assert_eq!([say(19_999), say(20_000)], [None, Some(1)]);
    }
}
