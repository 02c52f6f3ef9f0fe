//! Damage to the committed log, on its way from those who find it to the one who repairs it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::LogPosition;

/// Damage that waits at most; more is forgotten, and found again by the next who reads there.
const WAITING_MAX: usize = 1024;

/// A damaged range of the committed log, cut at records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The chunk that the whole range lies in.
    pub chunk: u32,
    /// Where the first bad record begins.
    pub from: LogPosition,
    /// Where the next record that checks out begins; the chunk's end when there is none.
    pub to: LogPosition,
    /// What does not check out, for people.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {}, log positions {} to {}: {}", self.chunk, self.from, self.to, self.reason)
    }
}

/// Damage found and not yet looked at. A clone is another handle on the same list: readers, the log's file reader, the
/// sealer and the scrubber put in, the repairer takes out. Bounded, and a range waits once however often it is reported.
#[derive(Clone, Debug, Default)]
pub struct DamageReports {
    waiting: Arc<Mutex<VecDeque<Damage>>>,
}

impl DamageReports {
    /// Puts damage in. False when it waits already, or too much does.
    pub fn report(&self, damage: Damage) -> bool {
        let mut waiting = self.waiting.lock();
        let is_within = |inner: &Damage, outer: &Damage| {
            inner.chunk == outer.chunk && inner.from >= outer.from && inner.to <= outer.to
        };
        if waiting.iter().any(|known| is_within(&damage, known)) {
            return false;
        }
        waiting.retain(|known| !is_within(known, &damage));
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.push_back(damage);
        true
    }

    /// Takes the oldest out.
    #[must_use]
    pub fn take(&self) -> Option<Damage> {
        self.waiting.lock().pop_front()
    }

    /// How many ranges wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waiting.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(from: u64, to: u64) -> Damage {
        Damage { chunk: 3, from: LogPosition(from), to: LogPosition(to), reason: "rot".to_owned() }
    }

    #[test]
    fn a_range_waits_once_and_a_wider_one_takes_its_place() {
        let reports = DamageReports::default();
        assert!(reports.report(damage(64, 128)));
        assert!(!reports.clone().report(damage(64, 128)));
        assert!(!reports.report(damage(96, 128)), "it is part of what waits");
        assert!(reports.report(damage(256, 512)));
        assert!(reports.report(damage(64, 160)));
        assert!(reports.report(Damage { chunk: 4, ..damage(64, 128) }));
        assert_eq!(reports.count(), 3);
        assert_eq!(reports.take(), Some(damage(256, 512)));
        assert_eq!(reports.take(), Some(damage(64, 160)));
        assert_eq!(reports.take().unwrap().chunk, 4);
        assert_eq!(reports.take(), None);
        assert!(reports.report(damage(64, 160)), "taken out, it may come again");
    }

    #[test]
    fn the_list_is_bounded() {
        let reports = DamageReports::default();
        for index in 0..WAITING_MAX as u64 {
            assert!(reports.report(damage(index * 64, index * 64 + 32)));
        }
        assert!(!reports.report(damage(1 << 30, 1 << 31)));
        assert_eq!(reports.count(), WAITING_MAX);
    }
}
