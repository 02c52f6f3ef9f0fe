//! Three hosts with two network cards each, and what the two planes promise: neither carries the other's traffic, either
//! may be cut, a flood of one does not slow down the other, and nobody gets into the internal one who is not of the cluster.
//!
//! Hosts are network namespaces (`house`), each with an internal and an external interface on two bridges; clients live in
//! one that is on the external bridge only. `--mode` chooses what is looked at:
//!
//! - `traffic`: counters of the interfaces and a capture on both bridges while clients write through a follower;
//! - `cuts`: bridges cut at the leader, both ways and one way;
//! - `flood`: the replication round trip while strangers flood the external side, clients' writes while a follower
//!   catches up;
//! - `strangers`: nodes and others that are not of the cluster;
//! - `throughput`: writes a second with the plane open, and closed.
//!
//! Each prints lines that begin with `result mode=…`, and fails when a promise is broken; figures that depend on the
//! machine fail it with `--strict` only. Where namespaces cannot be made it says so and does nothing.

mod capture;
mod counters;
mod cuts;
mod flood;
mod flooder;
mod house;
mod load;
mod probe;
mod replay;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod throughput;
mod tls;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::support::keys::Lock;
use crate::support::wires::{self, Wires, is_gone};

/// Looks at the two planes of a cluster in network namespaces.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// traffic, cuts, flood, strangers, throughput; several with commas between them, or all
    #[arg(long, default_value = "traffic")]
    mode: String,
    /// The internal plane is closed by certificates, not by a secret.
    #[arg(long)]
    tls: bool,
    /// It is open.
    #[arg(long, conflicts_with = "tls")]
    open: bool,
    /// What is written through a follower, or while one is away, MiB.
    #[arg(long, default_value_t = 16)]
    mib: u64,
    /// How long a measurement or a cut lasts, seconds.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Measurements of each kind, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the random choices begin; printed. 0: choose one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Figures above their target fail the run, too.
    #[arg(long)]
    strict: bool,
    /// Where the nodes' data lie [default: below the build]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Keep the data directories.
    #[arg(long)]
    keep: bool,
    // What `cargo test` hands to every test program.
    /// Run only if "planes" contains one of these.
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
    /// How the internal plane is closed.
    pub(crate) fn lock(&self) -> Lock {
        match (self.open, self.tls) {
            (true, _) => Lock::default(),
            (false, true) => Lock::TLS,
            (false, false) => Lock::SECRET,
        }
    }
}

const MODES: [&str; 5] = ["traffic", "cuts", "flood", "strangers", "throughput"];

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.list {
        println!("planes: test");
        return ExitCode::SUCCESS;
    }
    if !arguments.filters.is_empty() && !arguments.filters.iter().any(|filter| "planes".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = Wires::missing(house::SHAPE) {
        println!("planes: SKIPPED {}: {missing}", arguments.mode);
        return ExitCode::SUCCESS;
    }
    if arguments.seed == 0 {
        arguments.seed = fastrand::u64(1..1 << 32);
    }
    println!("planes: mode {}, internal plane {}, --seed {}", arguments.mode, arguments.lock().name(), arguments.seed);
    let folder = folder(&arguments);
    if let Err(error) = take_down_on_signals(folder.as_deref().ok().map(Path::to_path_buf)) {
        println!("planes: signals end this program without taking anything down: {error}");
    }
    match folder.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")).and_then(|folder| run(&arguments, folder)) {
        Ok(()) => {
            if let Ok(folder) = folder
                && !arguments.keep
            {
                let _ = std::fs::remove_dir_all(folder);
            }
            println!("planes: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let place = folder.map_or_else(|_| "nowhere".to_owned(), |folder| folder.display().to_string());
            println!("planes: FAILED (data kept in {place})\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A new folder for this run; what runs left behind that were killed is removed.
fn folder(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    wires::remove_stale(house::SHAPE.mark);
    let Some(parent) = &arguments.folder else { return Ok(support::cluster::scratch("planes")) };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("planes-").and_then(|rest| rest.parse().ok()).is_some_and(is_gone) {
            std::fs::remove_dir_all(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    let folder = parent.join(format!("planes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// SIGINT and SIGTERM: the nodes end with this process, their networks and data go before it.
fn take_down_on_signals(folder: Option<PathBuf>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            println!("planes: interrupted; taking everything down");
            wires::remove_own(house::SHAPE.mark);
            folder.map(std::fs::remove_dir_all);
            std::process::exit(1);
        }
    });
    Ok(())
}

fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let modes: Vec<&str> = if arguments.mode == "all" { MODES.to_vec() } else { arguments.mode.split(',').collect() };
    for mode in modes {
        let place = folder.join(mode);
        std::fs::create_dir_all(&place)?;
        match mode {
            "traffic" => traffic::run(arguments, &place),
            "cuts" => cuts::run(arguments, &place),
            "flood" => flood::run(arguments, &place),
            "strangers" => strangers::run(arguments, &place),
            "throughput" => throughput::run(arguments, &place),
            _ => bail!("--mode {mode} is not known: {}, or all", MODES.join(", ")),
        }
        .with_context(|| format!("mode {mode}"))?;
        if !arguments.keep {
            let _ = std::fs::remove_dir_all(&place);
        }
    }
    Ok(())
}
