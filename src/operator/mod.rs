//! Commands of an operator: the program when its first argument is a bare word. They are not the server: they ask a
//! running node over its internal HTTP, or work on the files of a stopped one.
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | done; for `verify`: no damage |
//! | 1 | the command line is not one |
//! | 2 | refused or failed, with words on stderr; for `verify`: damage was found |
//!
//! They promise to change nothing that they do not name before, and to leave what they were making in a state from which
//! the same command goes on. They leave every decision about members to the leader.
#![forbid(unsafe_code)]

mod error;
mod files;
mod log_check;
mod manifest;
mod progress;
mod stream_numbers;
#[cfg(test)]
mod testing;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use error::OperatorError;

/// The command line is not one.
const EXIT_USAGE: u8 = 1;
/// Refused, failed, or damage found.
const EXIT_REFUSED: u8 = 2;

const EXIT_HELP: &str = "Exit status: 0 done; 1 wrong arguments; 2 refused or failed, and stderr says why.";

/// What the server's own help says about the commands.
pub const COMMANDS_HELP: &str = "\
Commands, each with its own --help:
  ringstore verify DIR             checks a backup, or the data directory of a stopped node
";

#[derive(Debug, Parser)]
#[command(name = "ringstore", about = "Commands for operators; without one of them ringstore is the server.")]
#[command(disable_help_subcommand = true, max_term_width = 100, after_help = EXIT_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks every record of a backup, or of the data directory of a stopped node; changes nothing.
    ///
    /// Looks at place, checksum, kind and body of each record, the order of terms and epochs, the event numbers of each
    /// stream, header and footer pages, the state file and the manifest of a backup. Takes about 50 bytes of memory for
    /// each stream.
    #[command(after_help = "Exit status: 0 no damage; 1 wrong arguments; 2 damage, or it could not be looked at.")]
    Verify {
        /// The backup, or the data directory (Db) of a stopped node
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

/// True when the program is asked to be a command: its first argument is one's name.
#[must_use]
pub fn is_command(first: Option<&OsString>) -> bool {
    let names = ["admin", "backup", "restore", "verify"];
    first.and_then(|word| word.to_str()).is_some_and(|word| names.contains(&word))
}

/// Runs the command in `arguments` (without the program's name) and gives the exit status.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let with_name = std::iter::once(OsString::from("ringstore")).chain(arguments);
    let parsed = match Arguments::try_parse_from(with_name) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help goes to stdout and is no failure; whether it could be printed does not matter.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { 0 };
        }
    };
    match carry_out(parsed.command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("ringstore: {error}");
            error.exit_status()
        }
    }
}

fn carry_out(command: Command) -> Result<u8, OperatorError> {
    match command {
        Command::Verify { directory } => {
            let outcome = verify::verify(&directory, &mut |words| println!("{words}"))?;
            outcome.summary.iter().for_each(|line| println!("{line}"));
            Ok(if outcome.findings == 0 { 0 } else { EXIT_REFUSED })
        }
    }
}
