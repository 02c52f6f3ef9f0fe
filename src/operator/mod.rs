//! Commands of an operator: the program when its first argument is a bare word. They are not the server: they ask a
//! running node over its internal HTTP, or work on the files of a stopped one.
//!
//! | exit status | meaning |
//! | --- | --- |
//! | 0 | done; for `verify`: no damage |
//! | 1 | the command line is not one; for `doctor`: a problem was found, which includes options that cannot be used |
//! | 2 | refused or failed, with words on stderr; for `verify`: damage was found |
//!
//! They promise to change nothing that they do not name before, and to leave what they were making in a state from which
//! the same command goes on. They leave every decision about members to the leader.
#![forbid(unsafe_code)]

mod access;
mod admin;
mod backup;
mod certificates;
mod doctor;
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
mod tune;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::access::AccessOptions;
use self::admin::AdminCommand;
use self::certificates::CertificatesCommand;
pub use self::error::OperatorError;
pub use self::manifest::Manifest as BackupManifest;
pub use self::node::Status as ClusterStatus;
use self::restore::Purpose;
use self::tune::{Action, Order};
use crate::config::{self, ConfigError, Loaded, Outcome};

/// The command line is not one.
const EXIT_USAGE: u8 = 1;
/// Refused, failed, or damage found.
const EXIT_REFUSED: u8 = 2;
/// The doctor has found something that does not work.
const EXIT_PROBLEM: u8 = 1;

const EXIT_HELP: &str = "Exit status: 0 done; 1 wrong arguments; 2 refused or failed, and stderr says why.";

/// What the server's own help says about the commands.
pub const COMMANDS_HELP: &str = "\
Commands, each with its own --help:
  ringstore admin                  shows the cluster; changes its members and who leads
  ringstore backup DIR             copies the log of a running node, only what is new the next time
  ringstore restore BACKUP         makes a data directory from a backup
  ringstore verify DIR             checks a backup, or the data directory of a stopped node
  ringstore certificates           makes an authority and certificates of nodes
  ringstore doctor                 looks at host, cards and other nodes as the node with these options needs them
  ringstore tune                   shows, makes or takes back settings of this host for both planes
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
    /// Shows the cluster and a node's figures; adds, removes and replaces members; hands leadership over.
    ///
    /// Asks a running node over its internal HTTP, and through it the leader. Every change says first what it does to the
    /// quorum and asks for confirmation.
    Admin {
        /// Any node of the cluster: its IntIp and IntHttpPort [default: 127.0.0.1:2112, or the node of --config]
        #[arg(long = "node", value_name = "HOST:PORT", global = true)]
        asked: Option<String>,
        #[command(flatten)]
        access: AccessOptions,
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
        /// The node: its IntIp and IntHttpPort [default: 127.0.0.1:2112, or the node of --config]. A follower does as well
        /// as the leader
        #[arg(long, value_name = "HOST:PORT")]
        from: Option<String>,
        #[command(flatten)]
        access: AccessOptions,
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
    /// Makes an authority and certificates of nodes; prints what goes into the options.
    ///
    /// Writes NAME.pem and NAME.key for each node, ca.pem for all of them, and ca.key, which signs further nodes (--add).
    /// Overwrites nothing. The authority is of no other use than this cluster; whoever has ca.key gets into it.
    Certificates(CertificatesCommand),
    /// Looks at what a node with these options needs of its host, its cards and the other nodes; changes nothing.
    ///
    /// Takes the options of the server: flags, environment, and the file of --config. Prints one line a finding: fine, advice
    /// or problem, the group, what was found, and the next step. The groups: options, kernel (io_uring, and who denies it),
    /// limits, clock, keys (certificates and the secret: files, names, expiry), data (file system, room, measured flushes), internal and external (device, queues, interrupts, MTU,
    /// coalescing), host, and peers (reachability, round trip, settings).
    #[command(after_help = DOCTOR_EXIT_HELP)]
    Doctor {
        /// Print one JSON document: the worst grade, and all findings
        #[arg(long)]
        json: bool,
        /// Options of the server, for example --config /etc/eventstore/eventstore.conf
        #[arg(value_name = "NODE_OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Shows, makes or takes back settings of this host for the two planes: interrupts, queues, XPS, RPS, coalescing, sysctls.
    ///
    /// Takes the options of the server: IntIp, ExtIp, IntDevice, ExtDevice say which cards, IntCpus and ExtCpus which CPUs.
    /// Interrupts and queues are placed only on CPUs that are named. The server never does any of this by itself. What is set
    /// holds until the next boot.
    #[command(group = clap::ArgGroup::new("action").required(true).args(["dry_run", "apply", "revert"]))]
    #[command(after_help = TUNE_EXIT_HELP)]
    Tune {
        /// Print the plan, with the reason for each change
        #[arg(long)]
        dry_run: bool,
        /// Make the changes, and keep what was there before in the state file
        #[arg(long)]
        apply: bool,
        /// Put back what the state file has, as far as it is still there; takes none of the server's options
        #[arg(long)]
        revert: bool,
        /// Where the former settings are kept: root's, and like them gone after the next boot
        #[arg(long, value_name = "FILE", default_value = "/run/ringstore-tune.json")]
        state_file: PathBuf,
        /// Read and change /proc and /sys below this folder: what was captured on another host
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Options of the server, for example --config /etc/eventstore/eventstore.conf
        #[arg(value_name = "NODE_OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
}

const DOCTOR_EXIT_HELP: &str = "\
Exit status: 0 all is fine, or there is advice only; 1 at least one problem, options that cannot be used included;
2 this host cannot be looked at, and stderr says why.";

const TUNE_EXIT_HELP: &str = "\
Exit status: 0 done; 1 wrong arguments or options; 2 something was refused, and what that is was said.";

/// True when the program is asked to be a command: its first argument is one's name.
#[must_use]
pub fn is_command(first: Option<&OsString>) -> bool {
    let names = ["admin", "backup", "restore", "verify", "certificates", "doctor", "tune"];
    first.and_then(|word| word.to_str()).is_some_and(|word| names.contains(&word))
}

/// Runs the command in `arguments` (without the program's name) and gives the exit status.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let with_name = std::iter::once(OsString::from("ringstore")).chain(own_first(arguments.into_iter().collect()));
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

/// Moves the options of `doctor` and `tune` themselves in front of those of the server, which may stand in any order.
fn own_first(arguments: Vec<OsString>) -> Vec<OsString> {
    let command = Arguments::command();
    let name = arguments.first().and_then(|first| first.to_str()).filter(|name| ["doctor", "tune"].contains(name));
    let Some(command) = name.and_then(|name| command.find_subcommand(name)) else { return arguments };
    // The flag as clap knows it, and whether a value follows.
    let flags: Vec<(String, bool)> = command
        .get_arguments()
        .filter_map(|argument| Some((format!("--{}", argument.get_long()?), argument.get_action().takes_values())))
        .collect();
    let mut rest = arguments.into_iter();
    let (mut own, mut others): (Vec<OsString>, Vec<OsString>) = (rest.next().into_iter().collect(), Vec::new());
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy().into_owned();
        let flag = text.split('=').next().unwrap_or_default();
        if ["--help", "-h"].contains(&flag) {
            own.push(argument);
        } else if let Some((_, takes_value)) = flags.iter().find(|(known, _)| known == flag) {
            own.push(argument);
            own.extend(if *takes_value && !text.contains('=') { rest.next() } else { None });
        } else {
            others.push(argument);
        }
    }
    own.append(&mut others);
    own
}

/// The options of the node that a command is about.
fn node_options(options: Vec<OsString>) -> Result<Box<Loaded>, ConfigError> {
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    match config::load(options, std::env::vars_os(), read)? {
        Outcome::Run(loaded) => Ok(loaded),
        // Asked for in the environment or the file, where it has nothing to do with a command.
        Outcome::Help(_) | Outcome::Version(_) => {
            Err(ConfigError::StrayArgument { argument: "Help or Version".to_owned() })
        }
    }
}

fn carry_out_tune(order: &Order, options: Vec<OsString>) -> Result<u8, OperatorError> {
    let usage = |error: ConfigError| OperatorError::Usage { words: error::chain(&error) };
    let mut tell = |line: &str| println!("{line}");
    let is_done = match order.action {
        // What is put back stands in the state file alone: options that cannot be used must not keep it there.
        Action::Revert => tune::take_back(order, &mut tell)?,
        Action::DryRun | Action::Apply => tune::run(order, &node_options(options).map_err(usage)?.config, &mut tell)?,
    };
    Ok(if is_done { 0 } else { EXIT_REFUSED })
}

fn carry_out(command: Command) -> Result<u8, OperatorError> {
    match command {
        Command::Doctor { json, options } => {
            let is_fit = doctor::run(&node_options(options), json, &mut |line| println!("{line}"))?;
            Ok(if is_fit { 0 } else { EXIT_PROBLEM })
        }
        Command::Tune { dry_run, apply, state_file, root, options, .. } => {
            let action = match (dry_run, apply) {
                (true, _) => Action::DryRun,
                (_, true) => Action::Apply,
                _ => Action::Revert,
            };
            carry_out_tune(&Order { action, state_file, root }, options)
        }
        Command::Admin { asked, access, command } => admin::run(asked.as_deref(), access.open()?, &command).map(|()| 0),
        Command::Backup { directory, from, access } => {
            let began = Instant::now();
            let done = backup::backup(&directory, from.as_deref(), access.open()?)?;
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
    fn options_of_the_server_may_stand_anywhere() {
        let check = |line: &str, expected: &str| {
            let arguments = line.split_whitespace().map(OsString::from).collect();
            let moved: Vec<String> =
                own_first(arguments).iter().map(|word| word.to_string_lossy().into_owned()).collect();
            assert_eq!(moved.join(" "), expected, "{line}");
        };
        check("doctor --config c --json", "doctor --json --config c");
        check("doctor -IntIp 10.0.0.1", "doctor -IntIp 10.0.0.1");
        check("tune --db d --state-file s --apply --log l", "tune --state-file s --apply --db d --log l");
        check("tune --db=d --root=/x --dry-run", "tune --root=/x --dry-run --db=d");
        check("verify --json x", "verify --json x");
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
        check("admin --certificate-file c status", 1);
        check("admin status --ssl-target-host a", 1);
        check("backup d --config c --cluster-secret-file s", 1);
        check("admin --config /proc/self/nothing status", 1);
        check("admin --cluster-secret-file /proc/self/nothing status", 2);
        check("backup d --cluster-secret-file /dev/null", 2);
        check("certificates --out x", 1);
        check("certificates --out x --node a=1.2.3.4 --days 0", 1);
        check("certificates --out /proc/self/nothing --node a", 1);
        check("doctor --help", 0);
        check("doctor --cluster-size 99 --json", 1);
        check("tune", 1);
        check("tune --dry-run --apply", 1);
        check("tune --dry-run --no-such-option 1", 1);
        check("tune --dry-run --root /proc/self/nothing", 2);
        check("tune --revert --state-file /proc/self/nothing.json", 2);
        check("tune --revert --state-file /proc/self/nothing.json --cluster-size 99", 2);
    }
}
