//! Why records could not be applied. None goes away by trying again, but for a chunk that is not there yet.

use crate::codec::record::RecordError;
use crate::storage::ReadError;
use crate::types::LogPosition;

/// Applying the log to the index failed; what came before stays applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The log could not be read.
    #[error("the index cannot go on at log position {position}: {source}")]
    Read {
        /// Where the index stands.
        position: LogPosition,
        /// Why not.
        #[source]
        source: ReadError,
    },
    /// A committed record does not check out.
    #[error(
        "the index cannot go on at log position {position}: the log is damaged there ({source}). Another node's copy \
         repairs it; where there is none, restore the chunk from a backup"
    )]
    Record {
        /// Where the record begins.
        position: LogPosition,
        /// What does not check out.
        #[source]
        source: RecordError,
    },
    /// A committed record has a body that cannot be read.
    #[error("the index cannot go on at log position {position}: the body of the record ({kind}) cannot be read")]
    Body {
        /// Where the record begins.
        position: LogPosition,
        /// Its kind.
        kind: &'static str,
    },
    /// Event numbers of a stream have a gap or repeat.
    #[error(
        "the index cannot go on at log position {position}: event {found} of stream {stream:?} where {expected} is due"
    )]
    EventNumber {
        /// Where the record begins.
        position: LogPosition,
        /// The stream.
        stream: Box<str>,
        /// The number due.
        expected: i64,
        /// The number found.
        found: i64,
    },
}
