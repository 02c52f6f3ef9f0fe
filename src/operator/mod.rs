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

mod admin;
mod backup;
mod certificates;
mod error;
mod files;
mod log_check;
mod manifest;
mod node;
mod progress;
mod restore;
mod status;
mod stream_numbers;
#[cfg(test)]
mod testing;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, Subcommand};

use self::admin::AdminCommand;
use self::certificates::CertificatesCommand;
pub use self::error::OperatorError;
pub use self::manifest::Manifest as BackupManifest;
pub use self::node::Status as ClusterStatus;
use self::restore::Purpose;

/// The command line is not one.
const EXIT_USAGE: u8 = 1;
/// Refused, failed, or damage found.
const EXIT_REFUSED: u8 = 2;

const EXIT_HELP: &str = "Exit status: 0 done; 1 wrong arguments; 2 refused or failed, and stderr says why.";

/// What the server's own help says about the commands.
pub const COMMANDS_HELP: &str = "\
Commands, each with its own --help:
  ringstore admin                  shows the cluster; changes its members and who leads
  ringstore backup DIR             copies the log of a running node, only what is new the next time
  ringstore restore BACKUP         makes a data directory from a backup
  ringstore verify DIR             checks a backup, or the data directory of a stopped node
  ringstore certificates           makes an authority and certificates of nodes, for a test cluster
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
    /// Shows the cluster; adds, removes and replaces members; hands leadership over.
    ///
    /// Asks a running node over its internal HTTP, and through it the leader. Every change says first what it does to the
    /// quorum and asks for confirmation.
    Admin {
        /// Any node of the cluster: its IntIp and IntHttpPort
        #[arg(long = "node", value_name = "HOST:PORT", default_value = "127.0.0.1:2112", global = true)]
        asked: String,
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// Copies the committed log of a running node into a folder; the next time only what is new.
    ///
    /// The backup is the log up to the position that was committed when it began, record by record as the nodes have it;
    /// every record is checked when it arrives, and what is there already is checked again. One that is interrupted goes on
    /// where it stopped.
    Backup {
        /// The folder; empty, or with an earlier backup of the same cluster
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The node: its IntIp and IntHttpPort. A follower does as well as the leader
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:2112")]
        from: String,
    },
    /// Makes a data directory from a backup, for a node that joins its cluster or founds a new one.
    ///
    /// The node gets a new id either way. Checks the whole backup before it begins. The directory cannot be started before
    /// all of it is there.
    #[command(group = clap::ArgGroup::new("purpose").required(true).args(["join", "new_cluster"]))]
    Restore {
        /// The backup
        #[arg(value_name = "BACKUP")]
        backup: PathBuf,
        /// The data directory to be made; must be empty or not exist
        #[arg(long, value_name = "DIR")]
        db: PathBuf,
        /// The node joins the cluster of the backup, as a clone: it copies what it misses
        #[arg(long)]
        join: bool,
        /// The node founds a new cluster, with a new id, and is its only member. Nodes of the old one will not talk to it
        #[arg(long)]
        new_cluster: bool,
    },
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
    /// Makes an authority and certificates of nodes, for a test cluster; prints what goes into the options.
    ///
    /// Writes NAME.pem and NAME.key for each node, ca.pem for all of them, and ca.key, which signs further nodes (--add).
    /// Overwrites nothing. A cluster that matters has an authority of its own.
    Certificates(CertificatesCommand),
}

/// True when the program is asked to be a command: its first argument is one's name.
#[must_use]
pub fn is_command(first: Option<&OsString>) -> bool {
    let names = ["admin", "backup", "restore", "verify", "certificates"];
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
        Command::Admin { asked, command } => admin::run(&asked, &command).map(|()| 0),
        Command::Backup { directory, from } => {
            let began = Instant::now();
            let done = backup::backup(&directory, &from)?;
            backup::summary(&directory, &done, began.elapsed()).iter().for_each(|line| println!("{line}"));
            Ok(0)
        }
        Command::Restore { backup, db, join, .. } => {
            let purpose = if join { Purpose::Join } else { Purpose::NewCluster };
            let restored = restore::restore(&backup, &db, purpose)?;
            restore::summary(&db, purpose, &restored).iter().for_each(|line| println!("{line}"));
            Ok(0)
        }
        Command::Verify { directory } => {
            let outcome = verify::verify(&directory, &mut |words| println!("{words}"))?;
            outcome.summary.iter().for_each(|line| println!("{line}"));
            Ok(if outcome.findings == 0 { 0 } else { EXIT_REFUSED })
        }
        Command::Certificates(command) => {
            certificates::make(&command)?.iter().for_each(|line| println!("{line}"));
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_by_their_first_word() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
        let check = |word: &str, expected| assert_eq!(is_command(Some(&OsString::from(word))), expected, "{word}");
        for command in Arguments::command().get_subcommands() {
            check(command.get_name(), true);
            assert!(COMMANDS_HELP.contains(&format!("ringstore {}", command.get_name())), "{}", command.get_name());
        }
        check("--help", false);
        check("data", false);
        assert!(!is_command(None));
    }

    #[test]
    fn wrong_arguments_are_status_1_and_help_is_none() {
        let check = |line: &str, expected: u8| {
            assert_eq!(run(line.split_whitespace().map(OsString::from)), expected, "{line}");
        };
        check("verify --help", 0);
        check("verify", 1);
        check("restore b --db d", 1);
        check("restore b --db d --join --new-cluster", 1);
        check("admin", 1);
        check("admin add", 1);
        check("admin --node nonsense:x status", 1);
        check("verify /proc/self/nothing", 2);
        check("certificates --out x", 1);
        check("certificates --out x --node a=1.2.3.4 --days 0", 1);
        check("certificates --out /proc/self/nothing --node a", 1);
    }
}
