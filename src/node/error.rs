//! Why a node does not start or does not go on, with the process's exit status for each.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | told to stop (SIGTERM, SIGINT), also while it was starting |
//! | 1 | options that cannot be used, or files of certificates and secrets that they name |
//! | 2 | options that do not go with this data directory: chunk size, cluster size, or it is in use |
//! | 3 | the disk: a file or directory cannot be read, written or flushed |
//! | 4 | a damaged data directory, or logs that contradict each other: somebody must look before anything is written |
//! | 5 | a socket cannot be listened on |
//! | 6 | a thread or its io_uring cannot be set up or used, or does not end |
//!
//! The README has the same table, for service managers: 3 and 5 may go away by trying again, 1, 2 and 4 never do.

use std::io;
use std::path::PathBuf;

use crate::index::IndexError;
use crate::security::SecurityError;
use crate::storage::{RecoveryError, StorageError};
use crate::transport::LogThreadError;
use crate::types::NodeId;

/// See the module. All of these end the process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log cannot be used.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The damaged log could not be repaired.
    #[error("the damaged log could not be repaired before the start: {message}")]
    Mend {
        /// Why not.
        message: String,
    },
    /// The index cannot be filled.
    #[error("the index cannot be filled from the log: {0}")]
    Index(#[from] IndexError),
    /// The data directory does not take files.
    #[error("the data directory cannot be {attempt}: {source}; check its free space and permissions")]
    Disk {
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The chunk size is fixed when the data directory is made.
    #[error(
        "ChunkSize is {configured} bytes, but data directory {} was made with {found}; set ChunkSize to {found}, or give \
         the node an empty directory",
        db.display()
    )]
    ChunkSize {
        /// From the options.
        configured: u64,
        /// In the directory.
        found: u64,
        /// The directory.
        db: PathBuf,
    },
    /// A member of a cluster was started as a node on its own.
    #[error(
        "ClusterSize is {configured}, a node on its own, but the cluster in data directory {} has {founded} members; set \
         ClusterSize to {founded} and GossipSeed to the others, or give the node an empty directory",
        db.display()
    )]
    ClusterSize {
        /// From the options.
        configured: usize,
        /// In the directory.
        founded: usize,
        /// The directory.
        db: PathBuf,
    },
    /// A read-only replica must not count.
    #[error(
        "ReadOnlyReplica is true, but node {node} of data directory {} is a voting member of its cluster; take it out with \
         `ringstore admin remove {node}` first, or start it without ReadOnlyReplica",
        db.display()
    )]
    ReadOnlyMember {
        /// The node.
        node: NodeId,
        /// The directory.
        db: PathBuf,
    },
    /// A certificate, key or secret cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// A socket cannot be listened on.
    #[error("{option}: {message}")]
    Listen {
        /// The options it comes from.
        option: &'static str,
        /// What failed, with the address and the next step.
        message: String,
    },
    /// The log thread cannot go on.
    #[error(transparent)]
    Log(#[from] LogThreadError),
    /// A thread did not end when it was told to.
    #[error(
        "the {thread} thread did not end within {seconds} s, so the node left without it; nothing acknowledged is lost, \
         but look at the log for what it was waiting for (a disk that hangs?)"
    )]
    Stuck {
        /// Which.
        thread: String,
        /// How long it had.
        seconds: u64,
    },
    /// A thread ended by a panic.
    #[error("the {thread} thread panicked; please report it with the lines before this one")]
    Panicked {
        /// Which.
        thread: String,
    },
    /// A thread or its ring cannot be set up.
    #[error("the {thread} thread cannot be started: {message}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// Why not, and what to do.
        message: String,
    },
}

impl NodeError {
    /// The exit status of the process; the table is in this module's words.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            NodeError::Security(_) => 1,
            NodeError::ChunkSize { .. }
            | NodeError::ClusterSize { .. }
            | NodeError::ReadOnlyMember { .. }
            | NodeError::Storage(StorageError::InUse { .. }) => 2,
            NodeError::Storage(StorageError::StateCorrupt { .. }) => 4,
            NodeError::Storage(_) | NodeError::Disk { .. } | NodeError::Recovery(RecoveryError::Io { .. }) => 3,
            NodeError::Index(IndexError::Read { .. }) => 3,
            NodeError::Recovery(_) | NodeError::Index(_) => 4,
            NodeError::Mend { .. } => 3,
            NodeError::Listen { .. } => 5,
            NodeError::Log(error) => error.exit_status(),
            NodeError::Thread { .. } | NodeError::Stuck { .. } | NodeError::Panicked { .. } => 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogPosition, Term};

    #[test]
    fn each_status_has_one_meaning() {
        let disk = || io::Error::other("no disk");
        let check = |status: u8, error: NodeError| assert_eq!(error.exit_status(), status, "{error:?}");
        let db = PathBuf::from("/data");
        check(2, NodeError::ClusterSize { configured: 3, founded: 1, db: db.clone() });
        check(2, StorageError::InUse { directory: db.clone(), holder: "1".to_owned() }.into());
        check(3, StorageError::Directory { directory: db, attempt: "opened", source: disk() }.into());
        check(3, LogThreadError::Open { name: "state".to_owned(), source: disk() }.into());
        check(4, StorageError::StateCorrupt { reason: String::new() }.into());
        check(4, RecoveryError::NoChunks { term: Term(1), committed: LogPosition(8) }.into());
        check(4, LogThreadError::Consensus { reason: String::new() }.into());
        check(
            6,
            LogThreadError::Ring(crate::ring::RingError::Missing { capability: "x", advice: String::new() }).into(),
        );
        check(6, NodeError::Stuck { thread: "log".to_owned(), seconds: 5 });
    }
}
