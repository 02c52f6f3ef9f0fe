//! Real nodes, clients that never rest, and one fault after the other.
//!
//! `--mode suite` is the large one: namespaces, file systems of their own, every kind of fault, a history of all that
//! clients did and were told (`suite`, `lab`, `faults`; `support::workload`, `support::verify`). The other modes kill and stop nodes on
//! loopback and need nothing of the machine.
//!
//! What an acknowledgement promises, and what is checked here after every run:
//! - an acknowledged event is there, once, under the number that was acknowledged, at every node;
//! - nothing is there that nobody wrote, and nothing twice;
//! - every node holds the same bytes at the same log position.
//!
//! Times are printed, not judged: `scripts/failover.sh` compares them with what we aim at.

mod catchup;
mod disk;
mod faults;
mod full;
mod lab;
mod random_kill;
mod rejudge;
mod rounds;
mod suite;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use clap::Parser;

use crate::support::keys::Lock;

/// Kills and stops nodes of a cluster under load.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// sigkill (the leader), sigstop (the leader, for 3 s), follower (one is killed), all (one after the other),
    /// catchup, random-kill, suite, disk-full, disk-fails, judge (what a suite or random-kill has kept, once more)
    #[arg(long, default_value = "sigkill")]
    mode: String,
    /// Rounds for each mode.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Where the random choices begin; printed, so that a run can be repeated. 0: choose one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that write.
    #[arg(long, default_value_t = 8)]
    writers: u32,
    /// What catchup writes while the follower is away, MiB.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// How long the suite goes on.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// How many faults the suite lets happen at most.
    #[arg(long, default_value_t = usize::MAX)]
    faults: usize,
    /// Kinds of faults of the suite, with commas between them.
    #[arg(long, default_value = "all")]
    kinds: String,
    /// Nodes of the suite: 3 or 5.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// The suite fails also when a heal took longer than it should until writes went on.
    #[arg(long)]
    strict: bool,
    /// Bytes of log in a chunk file.
    #[arg(long, default_value_t = 4 << 20)]
    chunk_size: u64,
    /// The nodes of loopback modes and of the suite know each other by certificates.
    #[arg(long)]
    tls: bool,
    /// They know each other by a secret.
    #[arg(long)]
    secret: bool,
    /// The folder that a run has kept, for the mode judge.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
    /// Keep the data directories.
    #[arg(long)]
    keep: bool,
    // What `cargo test` hands to every test program.
    /// Run only if "fault" contains one of these.
    #[arg(hide = true)]
    filters: Vec<String>,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

impl Arguments {
    /// How the internal plane of the nodes is closed.
    pub(crate) fn lock(&self) -> Lock {
        Lock { secret: self.secret, tls: self.tls }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.list {
        println!("fault: test");
        return ExitCode::SUCCESS;
    }
    if !arguments.filters.is_empty() && !arguments.filters.iter().any(|filter| "fault".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if arguments.seed == 0 {
        arguments.seed = fastrand::u64(1..1 << 32);
    }
    println!("fault: mode {}, --seed {}", arguments.mode, arguments.seed);
    let folder = support::cluster::scratch("fault");
    let result = match arguments.mode.as_str() {
        "catchup" => catchup::run(&arguments, &folder),
        "suite" => suite::run(&arguments, &folder),
        "random-kill" => random_kill::run(&arguments, &folder),
        "judge" => rejudge::run(&arguments, &folder),
        "disk-full" => full::run(&arguments, &folder),
        "disk-fails" => full::run_failing(&arguments, &folder),
        _ => rounds::run(&arguments, &folder),
    };
    match result {
        Ok(()) => {
            if !arguments.keep {
                let _ = std::fs::remove_dir_all(&folder);
            }
            println!("fault: ok");
            ExitCode::SUCCESS
        }
        Err(error) if error.is::<support::steady::Interrupted>() => {
            println!("fault: interrupted; taking everything down");
            let _ = std::fs::remove_dir_all(&folder);
            ExitCode::FAILURE
        }
        Err(error) => {
            disk::keep(&folder, &format!("{error:#}"));
            println!("fault: FAILED (data kept in {})\n{error:#}", folder.display());
            ExitCode::FAILURE
        }
    }
}
