//! Places in the log, and the number of an election round.

use std::fmt;

/// A byte offset in the log. The end of a record is the position of the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// The start of every log.
    pub const ZERO: LogPosition = LogPosition(0);

    /// The position `bytes` further on.
    ///
    /// # Panics
    /// When the sum does not fit 64 bits: no disk is that large, so it is our bug.
    #[must_use]
    pub fn plus(self, bytes: u64) -> LogPosition {
        LogPosition(self.0.checked_add(bytes).expect("a log position fits 64 bits"))
    }

    /// The distance in bytes from `earlier` to this position.
    ///
    /// # Panics
    /// When `earlier` lies behind this position.
    #[must_use]
    pub fn since(self, earlier: LogPosition) -> u64 {
        self.0.checked_sub(earlier.0).expect("distance between log positions is not negative")
    }

    /// The position as the signed number that clients know.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("a log position fits 63 bits")
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an election round; at most one leader has each. The epoch that a leader writes carries the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Term(pub u32);

impl Term {
    /// Before the first election.
    pub const ZERO: Term = Term(0);

    /// The round after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("fewer than 2^32 elections"))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a leader's term begins in the log: its epoch record, or the padding that had to come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The term; the epoch's number.
    pub term: Term,
    /// Where its first record lies.
    pub position: LogPosition,
    /// Its random identifier; zero as long as only the padding before the epoch record is there.
    pub id: super::Guid,
}
