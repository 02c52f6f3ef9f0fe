//! Why a command did not do what it was asked for, with the exit status for each reason.

use std::io;
use std::path::{Path, PathBuf};

use crate::http::CallError;
use crate::machine::MachineError;
use crate::storage::StorageError;

/// Sorted by what the operator does: [`Usage`](OperatorError::Usage) is written differently, the rest is looked into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The command line is not one.
    #[error("{words}")]
    Usage {
        /// What is wrong with it.
        words: String,
    },
    /// It was refused, by a node or by the command itself; nothing was changed that is not said.
    #[error("{words}")]
    Refused {
        /// Why, and the next step.
        words: String,
    },
    /// A node cannot be asked.
    #[error(
        "{0}; is the node running, and is that its internal HTTP address (IntIp:IntHttpPort)? --config FILE of a node says it"
    )]
    Call(#[from] CallError),
    /// A directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The machine cannot be read or changed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A file cannot be read or written.
    #[error("{} cannot be {attempt}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl OperatorError {
    /// The exit status; the table is in the module's words.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            OperatorError::Usage { .. } => super::EXIT_USAGE,
            _ => super::EXIT_REFUSED,
        }
    }
}

/// A refusal in these words.
pub(super) fn refused(words: impl Into<String>) -> OperatorError {
    OperatorError::Refused { words: words.into() }
}

/// Makes an error of a failed file operation.
pub(super) fn file_failed(path: &Path, attempt: &'static str) -> impl FnOnce(io::Error) -> OperatorError {
    let path = path.to_owned();
    move |source| OperatorError::File { path, attempt, source }
}

/// An error with all its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}"))
}
