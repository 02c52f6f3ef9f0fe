//! How often strangers are worth a line in the log.

use std::time::Duration;

use crate::types::Ticks;

/// So many lines are written in each [`SPAN`].
const LINES: u32 = 10;

const SPAN: Duration = Duration::from_secs(10);

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    since: Ticks,
    lines: u32,
    /// What was not said since the last line.
    unsaid: u64,
}

impl Strangers {
    /// Somebody was refused: `None` when it is not said, else how many were not said before.
    pub(super) fn note(&mut self, now: Ticks) -> Option<u64> {
        if now.since(self.since) >= SPAN {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines == LINES {
            self.unsaid += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_a_few_lines_and_its_number() {
        let (mut strangers, start) = (Strangers::default(), Ticks(1).after(10 * SPAN));
        let said = (0..1000).filter(|_| strangers.note(start) == Some(0)).count();
        assert_eq!(said, LINES as usize);
        assert_eq!(strangers.note(start.after(SPAN)), Some(1000 - u64::from(LINES)));
        assert_eq!(strangers.note(start.after(SPAN)), Some(0));
    }
}
