//! What of the files that the log thread writes has rotted, on its way from who finds it to the log thread.

use crate::types::LogPosition;

/// Bytes that only the log thread may write while the node runs, and that do not hold what they must. It knows what belongs
/// there and what it is writing just now; nobody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A durable mark in the header page of this chunk, which is not sealed.
    Marks(u32),
    /// The whole header page of this chunk, which is not sealed: it cannot be read, and so not be written in part either.
    Header(u32),
    /// Zeros behind the end of the log, within one chunk.
    Zeros {
        /// The first byte.
        from: LogPosition,
        /// The end.
        to: LogPosition,
    },
    /// This slot of the state file.
    State(usize),
}
