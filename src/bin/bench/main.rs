//! `ringstore-bench`: the load generator. It shares no network code with the server, and runs on another runtime, so
//! that a fault in one cannot hide in both.
//!
//! `options` and `setup` say what to do, `load` what each connection does, `connection` and `worker` do it, `run`
//! collects, `prepare` and `verify` come before and after, `report` shows what was found.

mod blocking;
mod book;
mod connection;
mod directory;
mod load;
mod options;
mod outcome;
mod pace;
mod prepare;
mod record;
mod report;
mod run;
mod setup;
mod signal;
mod size;
mod slots;
mod verify;
mod wire;
mod worker;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::connection::Role;
use crate::directory::Directory;
use crate::options::{Common, Options};
use crate::outcome::Outcome;
use crate::report::stats::{Snapshot, difference, snapshot};
use crate::run::{Found, Moments};
use crate::setup::{Wanted, connected_nodes};
use crate::verify::{Verified, verify};
use crate::worker::{Control, Done, Plan};

/// A node to connect to is found within this, or the run ends with an error.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(10);
/// Descriptors that are no connections.
const DESCRIPTORS_BESIDE: u64 = 64;
/// After the last of the idle connections, before the server's memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let wanted = Wanted::new(Options::parse().workload);
    match bench(wanted) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringstore-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn bench(mut wanted: Wanted) -> anyhow::Result<ExitCode> {
    wanted.check()?;
    let common = wanted.common().clone();
    raise_descriptor_limit(wanted.connections() + DESCRIPTORS_BESIDE)?;
    let directory = Directory::discover(common.target.clone(), common.seed.clone(), DISCOVERY_LIMIT)?;
    let control = Control::default();
    for signal in [SIGINT, SIGTERM] {
        // The first ends the run early, the second the process.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&control.stop))?;
        signal_hook::flag::register(signal, Arc::clone(&control.stop))?;
    }
    let plan = Arc::new(wanted.plan(directory, control)?);
    let mut nodes = Nodes::new(&plan, wanted.idle());
    let Found { mut outcome, done } = run::run(&plan, &mut nodes)?;
    outcome.settings = std::mem::take(&mut wanted.settings);
    nodes.show(&mut outcome);
    if done.unanswered != 0 {
        eprintln!("{} requests were without an answer when the run ended", done.unanswered);
    }
    let verified = match common.verify {
        true => Some(check(&plan, done)?),
        false => None,
    };
    if let Some(verified) = &verified {
        outcome.settings.push(("verified", verified.to_string()));
    }
    show(&outcome, &common)?;
    let good = outcome.series.iter().any(|series| series.operations != 0)
        && verified.is_none_or(|verified| verified.is_good());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(plan: &Plan, done: Done) -> anyhow::Result<Verified> {
    let Done { acknowledged, delivered, reconnects, fresh_left_out, .. } = done;
    let due: u64 = acknowledged.iter().map(|one| one.events * receivers(plan, &one.stream)).sum();
    let verified = verify(plan, acknowledged)?.sampled(fresh_left_out != 0);
    let subscribed = plan.roles.iter().any(|role| matches!(role, Role::Subscriber(_)));
    if subscribed && reconnects != 0 {
        // While a subscriber is not connected, events pass it by, in the warm-up and the drain as well.
        eprintln!("{reconnects} connections were made again: whether all events were delivered is not judged");
    }
    Ok(if subscribed && reconnects == 0 { verified.with_deliveries(due, delivered) } else { verified })
}

/// How many subscribers get this stream's events.
fn receivers(plan: &Plan, stream: &[u8]) -> u64 {
    let gets = |streams: &Vec<Vec<u8>>| streams.iter().any(|name| name.is_empty() || name == stream);
    plan.roles.iter().filter(|role| matches!(role, Role::Subscriber(streams) if gets(streams))).count() as u64
}

fn show(outcome: &Outcome, common: &Common) -> anyhow::Result<()> {
    print!("{}", report::table(outcome));
    let write = |file: &Path, text: String| {
        std::fs::write(file, text).with_context(|| format!("the result cannot be written to {}", file.display()))
    };
    if let Some(file) = &common.json {
        write(file, report::json(outcome))?;
    }
    if let Some(file) = &common.hgrm {
        report::write_hgrm(outcome, file)?;
    }
    if let Some(file) = &common.plot {
        write(file, report::plot(outcome))?;
    }
    Ok(())
}

/// What the nodes say of themselves, at the moments of a run.
struct Nodes {
    members: Vec<SocketAddr>,
    pairs: Vec<(Option<Snapshot>, Option<Snapshot>)>,
    /// Those that the load connects to, with their resident bytes before and with the idle connections.
    connected: Vec<(SocketAddr, u64, u64)>,
    idle: u32,
    expected: usize,
    user: (String, String),
}

impl Nodes {
    fn new(plan: &Plan, idle: u32) -> Self {
        let (directory, user) = (&plan.directory, plan.user.clone());
        let expected = directory.shown();
        let members: Vec<_> = directory.members().into_iter().map(|member| member.http).collect();
        let connected = if idle == 0 { Vec::new() } else { connected_nodes(directory) };
        let connected = connected.into_iter().map(|http| (http, resident_bytes(http, &user), 0)).collect();
        Self { pairs: members.iter().map(|_| (None, None)).collect(), members, connected, idle, expected, user }
    }

    fn show(self, outcome: &mut Outcome) {
        let both = |(before, after)| Some(difference(&before?, &after?));
        outcome.nodes_expected = self.expected;
        outcome.nodes = self.pairs.into_iter().filter_map(both).collect();
        let share = self.connected.len().max(1) as u64;
        for (http, before, with) in self.connected {
            let each = with.saturating_sub(before) * share / u64::from(self.idle);
            let text = format!("{http}: {before} bytes resident before, {with} with them, {each} for each");
            outcome.settings.push(("memory of idle connections", text));
        }
    }
}

impl Moments for Nodes {
    fn connected(&mut self) {
        if self.connected.is_empty() {
            return;
        }
        std::thread::sleep(SETTLE);
        for (http, _, with) in &mut self.connected {
            *with = resident_bytes(*http, &self.user);
        }
    }

    fn measured_span_begins(&mut self) {
        for (http, pair) in self.members.iter().zip(&mut self.pairs) {
            pair.0 = ask(*http, &self.user);
        }
    }

    fn measured_span_ends(&mut self) {
        for (http, pair) in self.members.iter().zip(&mut self.pairs) {
            // One that did not answer at the start has nothing to compare with.
            pair.1 = pair.0.as_ref().and_then(|_| ask(*http, &self.user));
        }
    }
}

fn ask(http: SocketAddr, user: &(String, String)) -> Option<Snapshot> {
    snapshot(http, user).inspect_err(|error| eprintln!("no statistics of {http}: {error:#}")).ok()
}

fn resident_bytes(http: SocketAddr, user: &(String, String)) -> u64 {
    ask(http, user).map_or(0, |snapshot| difference(&snapshot, &snapshot).resident_bytes)
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
