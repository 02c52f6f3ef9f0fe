//! What can go wrong with a data directory, in words for its operator.

use std::io;
use std::path::PathBuf;

use crate::types::{LogPosition, Term};

use super::disk::FileName;

/// Opening a data directory and its state file. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process has the directory open.
    #[error(
        "data directory {} is in use by another process ({holder}); stop that process, or give this node its own \
         directory with --db",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Who holds it, as far as its lock file says.
        holder: String,
    },
    /// The directory or its lock file cannot be made or opened.
    #[error(
        "data directory {} cannot be {attempt}: {source}; check its path, owner and permissions, and ReadWritePaths= where a \
         unit of systemd starts the node",
        directory.display()
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What was tried: "created", "opened", "locked".
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Reading or writing a file failed.
    #[error("{name} cannot be {attempt}: {source}")]
    Io {
        /// The file.
        name: FileName,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The state file was written by another version of this program.
    #[error(
        "{} has format version {found}, this program reads version {reads}: {}",
        FileName::State,
        version_advice(*found, *reads)
    )]
    StateVersion {
        /// Its version.
        found: u32,
        /// The version that this program reads and writes.
        reads: u32,
    },
    /// The state file has the wrong length or neither of its slots checks out.
    #[error(
        "{} is damaged ({reason}): the node's term and vote are unknown, so it must not vote again. {COME_BACK}",
        FileName::State
    )]
    StateCorrupt {
        /// What does not check out.
        reason: String,
    },
}

/// Recovery of the log at start. Only [`RecoveryError::Io`] may go away by trying again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// Reading, writing or flushing a chunk failed.
    #[error("{name} cannot be {attempt}: {source}; check the disk and the file's permissions")]
    Io {
        /// The file.
        name: FileName,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Chunk numbers have a gap.
    #[error(
        "chunk {missing} ({}) is missing although chunk {last} is there: the log has a hole. Put the file back. If \
         it is lost: {COME_BACK}",
        FileName::Chunk(*missing)
    )]
    MissingChunk {
        /// The first number without a file.
        missing: u32,
        /// The highest number with one.
        last: u32,
    },
    /// There is no chunk at all, in the directory of a node that has already taken part in a cluster.
    #[error(
        "{} is missing, and so is every other chunk, although the node's state file says that it has had a log (term \
         {term}, committed up to {committed}). Put the files back. If they are lost: {COME_BACK}",
        FileName::Chunk(0)
    )]
    NoChunks {
        /// The node's term.
        term: Term,
        /// Up to where its log is known to have been committed.
        committed: LogPosition,
    },
    /// A chunk file has another length than the chunk size asks for.
    #[error(
        "{} has {found} bytes, {expected} were expected: the chunk size of a data directory cannot be changed; start with \
         the ChunkSize it was made with, or restore the file",
        FileName::Chunk(*chunk)
    )]
    ChunkLength {
        /// The chunk.
        chunk: u32,
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The chunk was written by another version of this program.
    #[error(
        "{} has chunk format version {found}, this program reads version {reads}: {}",
        FileName::Chunk(*chunk),
        version_advice(*found, *reads)
    )]
    ChunkVersion {
        /// The chunk.
        chunk: u32,
        /// Its version.
        found: u32,
        /// The version that this program reads and writes.
        reads: u32,
    },
    /// The header page of a chunk does not fit.
    #[error(
        "{} does not begin with a good chunk header ({reason}): it is not a chunk of this log, or its first page is \
         damaged and nothing else in it shows which chunk it is. Put the right file back. If it is lost: {COME_BACK}",
        FileName::Chunk(*chunk)
    )]
    ChunkHeader {
        /// The chunk.
        chunk: u32,
        /// What does not fit.
        reason: String,
    },
    /// A record that was durable does not check out.
    #[error(
        "the log is damaged: chunk {chunk} ({}), log position {position}, file offset {offset}: {reason}; the log was \
         durable up to {durable}. This is not a torn tail, so nothing was cut. Move the data directory away and start the \
         node empty so that it copies the log from the others, or restore the chunk from a backup",
        FileName::Chunk(*chunk)
    )]
    Corrupt {
        /// The chunk.
        chunk: u32,
        /// Where the record should begin.
        position: LogPosition,
        /// The same place as an offset in the file.
        offset: u64,
        /// Up to where the log is known to have been durable.
        durable: LogPosition,
        /// What does not check out.
        reason: String,
    },
}

/// Reading the log from its chunk files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The chunk's file is not there (yet).
    #[error("log position {position} lies in chunk {chunk}, which this node does not have")]
    NoChunk {
        /// What was asked for.
        position: LogPosition,
        /// The chunk that it lies in.
        chunk: u32,
    },
    /// The chunk's file cannot be opened or mapped.
    #[error("{name} cannot be mapped for reading: {source}")]
    Map {
        /// The file.
        name: FileName,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The disk could not read a page of the chunk's file while it was looked at.
    #[error("a part of {name} could not be read while log position {position} was looked at; check the disk")]
    Unreadable {
        /// The file.
        name: FileName,
        /// What was asked for.
        position: LogPosition,
    },
}

/// What to do about a data directory that nothing can make good. Its node must not go on under its name: others have counted
/// what it acknowledged.
const COME_BACK: &str = "move the data directory away and start the node empty. In a cluster it comes back as a new node, \
    which copies the log; `ringstore admin replace OLD NEW` gives it the place of the old one (`ringstore admin status` \
    shows both). A node on its own needs a backup (`ringstore restore`)";

/// What to do about a file of another format version.
fn version_advice(found: u32, reads: u32) -> &'static str {
    if found > reads {
        "it was written by a newer ringstore; start that one again, or move the data directory away and start the node \
         empty so that it copies the log from the others"
    } else {
        "it was written by an older ringstore, whose files are not converted; start that one again, or move the data \
         directory away and start the node empty so that it copies the log from others that have this version"
    }
}
