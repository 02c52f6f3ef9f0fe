//! Why the log thread stops.

use crate::ring::{Failure, RingError};

/// The log thread cannot go on; the process must leave with [`LogThreadError::exit_status`]. Nothing here is retried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogThreadError {
    /// The ring cannot be had or used.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Bytes of the log did not reach their file.
    #[error(
        "writing {length} bytes of the log failed ({failure}); this node stops, because the log on its \
         disk is unknown from there on. Look at the disk, then start the node again: it recovers and fetches what is missing"
    )]
    Write {
        /// How many bytes.
        length: usize,
        /// Why.
        failure: Failure,
    },
    /// A flush failed. What the system had not written by then may be lost although it answers later flushes with success.
    #[error(
        "flushing {what} failed ({failure}); this node stops and acknowledges nothing more. A failed flush is never \
         repeated: look at the disk, then start the node again"
    )]
    Flush {
        /// What was flushed.
        what: String,
        /// Why.
        failure: Failure,
    },
    /// The durable small state could not be written.
    #[error(
        "writing the node's state file failed ({failure}); this node stops, because its vote must not be forgotten"
    )]
    State {
        /// Why.
        failure: Failure,
    },
    /// A file of the log cannot be opened.
    #[error("{name} cannot be opened: {source}")]
    Open {
        /// The file.
        name: String,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The cluster's logs contradict each other, or the like.
    #[error("{reason}")]
    Consensus {
        /// For people.
        reason: String,
    },
}

impl LogThreadError {
    /// The exit status of a process that stops for this reason: 3 for the disk, 4 for a log that must not be touched
    /// before somebody has looked at it, 6 for the ring. The node has the whole table.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            LogThreadError::Write { .. }
            | LogThreadError::Flush { .. }
            | LogThreadError::State { .. }
            | LogThreadError::Open { .. } => 3,
            LogThreadError::Consensus { .. } => 4,
            LogThreadError::Ring(_) => 6,
        }
    }
}
