//! Why a machine cannot be read or changed.

use std::io;
use std::path::PathBuf;

/// [`Write`](MachineError::Write) is an answer of the kernel and may concern one setting only; the others end the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// No `/sys/class/net`.
    #[error(
        "{} cannot be listed: {source}; the root must be a folder with the host's sys and proc, and /sys must be mounted",
        path.display()
    )]
    NoDevices {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A setting was refused.
    #[error("{target} cannot be set to \"{value}\": {source}")]
    Write {
        /// Which setting.
        target: String,
        /// To what.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The state file cannot be used.
    #[error("the state file {} cannot be {attempt}: {source}; name another one with --state-file", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is nothing to put back.
    #[error("there is no state file {}: nothing was applied from here, or it was put back already", path.display())]
    NothingKept {
        /// The file.
        path: PathBuf,
    },
    /// What the state file keeps was undone by a boot.
    #[error(
        "the state file {} is of an earlier boot, and the settings that were made then went with it: there is nothing to put \
         back; remove it, or let `ringstore tune --apply` begin it anew",
        path.display()
    )]
    OtherBoot {
        /// The file.
        path: PathBuf,
    },
    /// The state file is of another root.
    #[error(
        "the state file {} keeps settings of the root {}, not of {}; name the state file of this root with --state-file",
        path.display(), kept.display(), root.display()
    )]
    OtherRoot {
        /// The file.
        path: PathBuf,
        /// The root in it.
        kept: PathBuf,
        /// The root asked for.
        root: PathBuf,
    },
}
