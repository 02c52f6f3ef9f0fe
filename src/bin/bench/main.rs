//! `ringstore-bench`: the load generator. It shares no network code with the server, and runs on another runtime, so
//! that a fault in one cannot hide in both.
//!
//! `options` says what to do, `load` what the connections do, `connection` and `worker` do it, `run` collects.

mod connection;
mod directory;
mod load;
mod options;
mod outcome;
mod pace;
mod plain;
mod record;
mod run;
mod signal;
mod size;
mod slots;
mod wire;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::connection::Role;
use crate::directory::{Directory, Target};
use crate::load::{Clock, Load, Writes};
use crate::options::{Common, Options, Workload, WriteShape};
use crate::wire::EventTemplate;
use crate::worker::{Control, Plan};

/// A node to connect to is found within this, or the run ends with an error.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(10);
/// Descriptors that are no connections.
const DESCRIPTORS_BESIDE: u64 = 64;

fn main() -> ExitCode {
    let options = Options::parse();
    match bench(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringstore-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn bench(options: Options) -> anyhow::Result<ExitCode> {
    let Workload::Writes { common, shape } = options.workload;
    let directory = Directory::discover(common.target.clone(), common.seed.clone(), DISCOVERY_LIMIT)?;
    let control = Control::default();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&control.stop))?;
        signal_hook::flag::register(signal, Arc::clone(&control.stop))?;
    }
    let roles = vec![Role::Active; common.connections as usize];
    raise_descriptor_limit(roles.len() as u64 + DESCRIPTORS_BESIDE)?;
    let load = Load { writes: Some(writes(&common, &shape)), reads: None, writes_percent: 100 };
    let plan = Arc::new(Plan {
        load,
        roles,
        threads: (common.threads as usize).min(common.connections as usize),
        in_flight: common.in_flight,
        rate: common.rate,
        warm_up: common.warm_up,
        measured: common.seconds,
        timeout: common.timeout,
        user: common.user.clone(),
        directory,
        control,
    });
    let found = run::run(&plan, || {}, || {})?;
    print!("{}", plain::table(&found.outcome));
    Ok(if found.outcome.series.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn writes(common: &Common, shape: &WriteShape) -> Writes {
    Writes {
        prefix: format!("bench-{:08x}-", fastrand::u32(..)),
        streams: shape.streams,
        events: shape.events,
        sizes: shape.size.clone(),
        metadata: shape.metadata,
        expected: shape.expected,
        require_leader: common.target == Target::Leader,
        template: EventTemplate::new("bench", shape.size.largest(), shape.metadata),
        clock: Clock::start(),
    }
}

/// So many files may be open, as far as the hard limit lets us.
fn raise_descriptor_limit(wanted: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).with_context(|| {
        format!("{wanted} open files are needed and the hard limit is {:?}; raise it with `ulimit -Hn`", limit.maximum)
    })
}
