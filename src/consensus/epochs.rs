//! The table of epochs: what two logs are compared by.

use std::sync::Arc;

use crate::types::{Epoch, LogPosition, Term};

/// Newest epochs that a follower sends along; a table is longer only after that many elections.
pub const EPOCHS_SENT_MAX: usize = 1024;

/// Where each term begins in one log. **Invariant:** terms and positions ascend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EpochTable {
    /// Shared with those who show it; copied when it changes, which is rare.
    epochs: Arc<Vec<Epoch>>,
}

/// Two tables that cannot both be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Divergence {
    /// One term begins at two places: one of the logs is damaged or from elsewhere.
    #[error(
        "epoch {term} begins at {local} here and at {remote} there: one of the logs is damaged; do not repair by hand"
    )]
    Contradiction {
        /// The term.
        term: Term,
        /// Position here.
        local: LogPosition,
        /// Position there.
        remote: LogPosition,
    },
    /// The follower sent only its newest epochs and none of them is known here.
    #[error(
        "none of the {count} newest epochs of the follower is known here: remove its data directory and let it copy"
    )]
    TooFar {
        /// How many it sent.
        count: usize,
    },
}

impl EpochTable {
    /// A table from what recovery found.
    ///
    /// # Panics
    /// When terms or positions do not ascend; recovery has checked that.
    #[must_use]
    pub fn new(epochs: Vec<Epoch>) -> EpochTable {
        let mut table = EpochTable::default();
        epochs.into_iter().for_each(|epoch| table.push(epoch));
        table
    }

    /// All epochs, oldest first.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Epoch>> {
        Arc::clone(&self.epochs)
    }

    /// The newest epoch.
    #[must_use]
    pub fn last(&self) -> Option<Epoch> {
        self.epochs.last().copied()
    }

    /// Term of the last record: the newest epoch's.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.last().map_or(Term::ZERO, |epoch| epoch.term)
    }

    /// Adds the epoch that a record just began. Padding may begin one without naming it: the epoch record behind it
    /// then gives the identifier only.
    ///
    /// # Panics
    /// When it is not newer than the last.
    pub fn push(&mut self, epoch: Epoch) {
        if self.last().is_some_and(|last| last.term == epoch.term && last.id.is_zero()) {
            Arc::make_mut(&mut self.epochs).last_mut().expect("just seen").id = epoch.id;
            return;
        }
        if let Some(last) = self.last() {
            assert!(epoch.term > last.term, "epoch {} after {}", epoch.term, last.term);
            assert!(epoch.position > last.position, "epoch at {} after {}", epoch.position, last.position);
        }
        Arc::make_mut(&mut self.epochs).push(epoch);
    }

    /// Forgets the epochs that began at `end` or behind it.
    pub fn truncate(&mut self, end: LogPosition) {
        Arc::make_mut(&mut self.epochs).retain(|epoch| epoch.position < end);
    }

    /// Where the epoch begins that `position` is the end of, or lies in.
    #[cfg(test)]
    pub(super) fn start_before(&self, position: LogPosition) -> LogPosition {
        let before = self.epochs.iter().rev().find(|epoch| epoch.position < position);
        before.map_or(LogPosition::ZERO, |epoch| epoch.position)
    }

    /// The newest epochs, oldest first, as a follower sends them.
    #[must_use]
    pub fn newest(&self) -> Vec<Epoch> {
        self.epochs[self.epochs.len().saturating_sub(EPOCHS_SENT_MAX)..].to_vec()
    }

    /// Where the log of a follower and this one part: everything before is the same in both. `end` and `remote_end`
    /// are the ends of the two logs.
    ///
    /// # Errors
    /// See [`Divergence`].
    pub fn common_end(
        &self,
        end: LogPosition,
        remote: &[Epoch],
        remote_end: LogPosition,
    ) -> Result<LogPosition, Divergence> {
        for (index, theirs) in remote.iter().enumerate().rev() {
            let Ok(at) = self.epochs.binary_search_by_key(&theirs.term, |epoch| epoch.term) else {
                continue;
            };
            let ours = self.epochs[at];
            if ours.position != theirs.position {
                let (local, remote) = (ours.position, theirs.position);
                return Err(Divergence::Contradiction { term: ours.term, local, remote });
            }
            let our_end = self.epochs.get(at + 1).map_or(end, |next| next.position);
            let their_end = remote.get(index + 1).map_or(remote_end, |next| next.position);
            return Ok(our_end.min(their_end));
        }
        if remote.len() >= EPOCHS_SENT_MAX {
            return Err(Divergence::TooFar { count: remote.len() });
        }
        Ok(LogPosition::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Guid;

    fn table(epochs: &[(u32, u64)]) -> EpochTable {
        let epoch = |&(term, position)| Epoch { term: Term(term), position: LogPosition(position), id: Guid::ZERO };
        EpochTable::new(epochs.iter().map(epoch).collect())
    }

    fn check(ours: &[(u32, u64)], end: u64, theirs: &[(u32, u64)], their_end: u64, expected: u64) {
        let found = table(ours).common_end(LogPosition(end), &table(theirs).epochs, LogPosition(their_end));
        assert_eq!(found, Ok(LogPosition(expected)), "{ours:?} {end} / {theirs:?} {their_end}");
    }

    #[test]
    fn the_common_end_is_the_shorter_part_of_the_last_common_epoch() {
        check(&[], 0, &[], 0, 0);
        check(&[(1, 0)], 100, &[], 0, 0);
        check(&[(1, 0)], 100, &[(1, 0)], 80, 80);
        check(&[(1, 0)], 100, &[(1, 0)], 120, 100);
        check(&[(1, 0), (3, 100)], 200, &[(1, 0), (2, 90)], 150, 90);
        check(&[(1, 0), (3, 80)], 200, &[(1, 0), (2, 90)], 150, 80);
        check(&[(1, 0), (2, 50), (5, 70)], 200, &[(1, 0), (2, 50), (4, 60)], 150, 60);
        check(&[(2, 0)], 50, &[(1, 0)], 60, 0);
    }

    #[test]
    fn one_term_at_two_places_is_an_error() {
        let found =
            table(&[(1, 0), (2, 50)]).common_end(LogPosition(90), &table(&[(1, 0), (2, 60)]).epochs, LogPosition(70));
        assert!(matches!(found, Err(Divergence::Contradiction { term: Term(2), .. })), "{found:?}");
    }

    #[test]
    fn an_epoch_begins_with_the_padding_before_its_record() {
        let mut epochs = table(&[(1, 0), (2, 50)]);
        epochs.push(Epoch { term: Term(2), position: LogPosition(64), id: Guid([7; 16]) });
        assert_eq!(epochs.last(), Some(Epoch { term: Term(2), position: LogPosition(50), id: Guid([7; 16]) }));
        // Two leaders pad the same chunk; what they wrote parts where the padding begins.
        check(&[(1, 0), (2, 50)], 64, &[(1, 0), (3, 50)], 136, 50);
    }

    #[test]
    fn truncation_forgets_what_began_behind_it() {
        let mut epochs = table(&[(1, 0), (2, 50), (4, 90)]);
        epochs.truncate(LogPosition(90));
        assert_eq!(epochs.last_term(), Term(2));
    }
}
