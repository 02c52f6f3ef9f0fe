//! The member lists of one log: each counts from the moment that its record is in the log (Raft thesis 4.1).

use crate::types::LogPosition;

/// The lists that a log may still need: the last one, and the one that is in force again when the record of the last is
/// cut. `T` is what a list is to its user.
///
/// Two are enough. A leader begins a change only when the list before is committed, so of the lists in any log only the last
/// can be uncommitted; and what is committed is never cut. After a restart the one before comes from the record of the
/// last, which names both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberLists<T> {
    last: T,
    /// Where the record of the last lies; `None` where that does not matter any more, because it is never cut: the
    /// founding's list, and what a cut has brought back.
    position: Option<LogPosition>,
    before: Option<T>,
}

impl<T> MemberLists<T> {
    /// The lists of a log that has no record of one: `founding` is in force.
    #[must_use]
    pub fn new(founding: T) -> MemberLists<T> {
        MemberLists { last: founding, position: None, before: None }
    }

    /// The list in force: the last in the log.
    #[must_use]
    pub fn last(&self) -> &T {
        &self.last
    }

    /// The list that was in force before, as long as it may come back.
    #[must_use]
    pub fn before(&self) -> Option<&T> {
        self.before.as_ref()
    }

    /// A record of a list is in the log at `position`.
    pub fn push(&mut self, position: LogPosition, list: T) {
        debug_assert!(
            self.position.is_none_or(|last| position > last),
            "a list at {position} after {:?}",
            self.position
        );
        self.before = Some(std::mem::replace(&mut self.last, list));
        self.position = Some(position);
    }

    /// The log ends at `end` now. True: the list in force is another one.
    pub fn truncate(&mut self, end: LogPosition) -> bool {
        if self.position.is_none_or(|position| position < end) {
            return false;
        }
        let Some(before) = self.before.take() else {
            return false;
        };
        self.last = before;
        self.position = None;
        true
    }

    /// True while the list in force may still be cut, given what is known to be committed.
    #[must_use]
    pub fn is_pending(&self, commit_position: LogPosition) -> bool {
        self.position.is_some_and(|position| position >= commit_position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_brings_the_list_before_back() {
        let at = LogPosition;
        let mut lists = MemberLists::new("founded");
        assert!(!lists.truncate(at(0)) && !lists.is_pending(at(0)), "the founding's list is in no record");
        lists.push(at(64), "founded");
        lists.push(at(512), "grown");
        assert!(!lists.truncate(at(576)));
        assert!(lists.is_pending(at(512)) && !lists.is_pending(at(576)));
        assert_eq!((lists.last(), lists.before()), (&"grown", Some(&"founded")));
        assert!(lists.truncate(at(512)), "its record lies there");
        assert_eq!((lists.last(), lists.before(), lists.is_pending(at(0))), (&"founded", None, false));
        lists.push(at(512), "other");
        assert_eq!(lists.last(), &"other");
    }
}
