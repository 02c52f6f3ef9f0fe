//! The suite: nodes in a lab, clients that never rest, and one fault after the other for as long as was asked for.
//!
//! Never more is broken at one time than the cluster's promise covers, but for the faults that strike all: then writes
//! may stop, and still nothing may be lost. After each fault, when it is healed, the time is taken until a write that is
//! sent after that is acknowledged; then the cluster must become whole again, and the logs of all nodes are compared as
//! far as they are committed. At the end [`verify`](crate::support::verify) judges the history of the run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Arguments;
use crate::faults::{Draw, Kind, Schedule, Stage, Struck};
use crate::lab::{Lab, remove_stale};
use crate::support::cluster::{Cluster, small_chunks};
use crate::support::history::History;
use crate::support::keys::Keys;
use crate::support::machine::Machine;
use crate::support::pace::Limit;
use crate::support::steady::{Interrupted, Steady, interrupted};
use crate::support::verify;
use crate::support::workload::Workload;

/// How long until the cluster takes writes again is aimed at.
const WRITABLE_LIMIT: Duration = Duration::from_millis(1_500);

/// Room on each node's disk, and what is added for each minute of load, MiB: what [`LIMIT`] lets grow, as much again as
/// the small events make of it, and the index.
const DISK_MIB: u64 = 512;
const DISK_MIB_A_MINUTE: u64 = 96;

/// A burst fills several chunks while a disk is full; on the long run the log grows by 60 MiB a minute, so that an hour
/// of it on three nodes takes less than 20 GiB.
const LIMIT: Limit = Limit { burst: 48 << 20, a_second: 1 << 20 };

/// Fewer faults in an hour than this are too few: a strict run fails then.
const FAULTS_AN_HOUR: f64 = 300.0;

/// One fault that is over.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    kind: Kind,
    /// After the heal until a write was acknowledged.
    writable: Duration,
    /// The longest time without an acknowledgement while the fault lasted.
    pause: Duration,
    /// The same from the heal to the next fault.
    pause_after: Duration,
    /// Until one leads and all follow.
    whole: Duration,
}

/// Runs the suite.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    verify::self_test().context("the checker itself")?;
    if let Some(missing) = Lab::missing(folder) {
        println!("fault: SKIPPED the suite: {missing}");
        return Ok(());
    }
    remove_stale(folder.parent().context("a folder below another")?)?;
    let mut kinds = Kind::named(&arguments.kinds)?;
    kinds.retain(|kind| {
        let missing = kind.missing();
        missing.inspect(|why| println!("fault: no faults of the kind {}: {why}", kind.name()));
        missing.is_none()
    });
    ensure!(!kinds.is_empty(), "no kind of fault is left");
    ensure!([3, 5].contains(&arguments.nodes), "--nodes {} is not 3 or 5", arguments.nodes);
    let interrupted = interrupted()?;
    let disk_mib = DISK_MIB + DISK_MIB_A_MINUTE * arguments.minutes.ceil() as u64;
    let lab = Lab::build(folder, arguments.nodes, disk_mib)?;
    let keys = Keys::make(folder, "keys", arguments.lock(), &lab.addresses())?;
    let homes = lab.homes(&keys, kinds.contains(&Kind::Clock))?;
    let cluster = Cluster::start_at(homes, &small_chunks(arguments.chunk_size))?;
    let load = Workload::start(&cluster, arguments.seed, arguments.writers, LIMIT);
    let schedule = Schedule::new(arguments.seed, kinds, arguments.nodes);
    let mut run = Run {
        arguments,
        folder,
        history: History::default(),
        stage: Stage { lab, cluster, keys },
        load,
        schedule,
        interrupted,
        machine: Machine::watch(folder)?,
        outcomes: Vec::new(),
        compared: 0,
        start: Instant::now(),
    };
    let struck = run.faults();
    run.finish(struck)
}

struct Run<'a> {
    arguments: &'a Arguments,
    folder: &'a Path,
    history: History,
    stage: Stage,
    load: Workload,
    schedule: Schedule,
    interrupted: Arc<AtomicBool>,
    machine: Machine,
    outcomes: Vec<Outcome>,
    /// The logs are equal up to here.
    compared: u64,
    start: Instant,
}

impl Run<'_> {
    fn faults(&mut self) -> anyhow::Result<()> {
        let span = Duration::from_secs_f64(self.arguments.minutes * 60.0);
        self.steady().rest(Duration::from_secs(1))?;
        while self.start.elapsed() < span && self.outcomes.len() < self.arguments.faults {
            let draw = self.schedule.draw();
            let number = self.outcomes.len() + 1;
            let outcome = self.fault(draw, number);
            let outcome = outcome.with_context(|| format!("fault {number}, {draw:?}"))?;
            self.outcomes.push(outcome);
        }
        Ok(())
    }

    fn steady(&mut self) -> Steady<'_> {
        let (cluster, load, interrupted) = (&mut self.stage.cluster, &self.load, &self.interrupted);
        Steady { cluster, load, interrupted, chunk_size: self.arguments.chunk_size }
    }

    fn fault(&mut self, draw: Draw, number: usize) -> anyhow::Result<Outcome> {
        let at = self.start.elapsed();
        let begin = Instant::now();
        let struck = self.stage.strike(draw, &self.load)?;
        let what = format!("fault {number} at {:.1} s: {} {}", at.as_secs_f64(), draw.kind.name(), struck.what);
        self.last(&struck, draw.span).with_context(|| what.clone())?;
        self.stage.heal(&struck, &self.load)?;
        // A fault without a remedy is healed when it strikes.
        let heal = if draw.kind == Kind::Resign { begin } else { Instant::now() };
        let pause = self.load.watcher().longest_pause(begin, heal);
        let writable = self.steady().writable(heal).with_context(|| what.clone())?;
        self.steady().whole().with_context(|| what.clone())?;
        let whole = heal.elapsed();
        Stage::settled(&self.load);
        let from = self.compared;
        self.compared = self.steady().compare(from).with_context(|| what.clone())?;
        self.steady().rest(draw.calm)?;
        let pause_after = self.load.watcher().longest_pause(heal, Instant::now());
        let above = if writable > WRITABLE_LIMIT {
            let (flush, late) = self.machine.worst(heal, heal + writable);
            format!(
                "  ABOVE 1.5 s (the machine's own disk took {flush:.0?} for a flush then, a thread woke {late:.0?} late)"
            )
        } else {
            String::new()
        };
        println!(
            "{what}, for {:.1} s, longest pause {pause:.0?}; healed: writable after {writable:.0?}, \
             longest pause {pause_after:.0?}, whole after {whole:.0?}{above}",
            draw.span.as_secs_f64()
        );
        if !struck.stops_writes && pause >= draw.span && draw.span > Duration::from_secs(2) {
            println!("  no write was acknowledged while it lasted, though a majority was well");
        }
        Ok(Outcome { kind: draw.kind, writable, pause, pause_after, whole })
    }

    /// Lets the fault last.
    fn last(&mut self, struck: &Struck, span: Duration) -> anyhow::Result<()> {
        let (start, mut flaps) = (Instant::now(), Stage::flaps(struck));
        while start.elapsed() < span {
            let step = self.stage.step(struck, &mut flaps)?;
            self.steady().rest(step.min(span.saturating_sub(start.elapsed())))?;
        }
        Ok(())
    }

    /// The summary and, when nothing went wrong so far, the judgement.
    fn finish(mut self, struck: anyhow::Result<()>) -> anyhow::Result<()> {
        let result = struck.and_then(|()| self.judge());
        for (text, count) in self.load.refusals() {
            println!("refused {count} times for want of room: \"{text}\"");
        }
        summary(self.schedule.kinds(), &self.outcomes);
        if let Err(error) = &result
            && !error.is::<Interrupted>()
        {
            println!("fault: --seed {} --kinds {} draws this again", self.arguments.seed, self.arguments.kinds);
            self.history.append(self.load.stop(false));
            Steady::keep(&self.history, self.folder)?;
        }
        result?;
        let above = self.outcomes.iter().filter(|outcome| outcome.writable > WRITABLE_LIMIT).count();
        ensure!(!self.arguments.strict || above == 0, "{above} times not writable within {WRITABLE_LIMIT:?}");
        let (wanted, count) = (self.wanted_faults(), self.outcomes.len());
        ensure!(!self.arguments.strict || count >= wanted, "{count} faults, and in this time {wanted} are wanted");
        Ok(())
    }

    /// How many faults a run of this length has at least.
    fn wanted_faults(&self) -> usize {
        let wanted = FAULTS_AN_HOUR * self.arguments.minutes / 60.0;
        self.arguments.faults.min(wanted as usize)
    }

    fn judge(&mut self) -> anyhow::Result<()> {
        let elapsed = self.start.elapsed();
        self.history = self.load.stop(true);
        let history = std::mem::take(&mut self.history);
        let judged = self.steady().judge(&history);
        self.history = history;
        let counts = judged?;
        println!(
            "result mode=suite seed={} seconds={:.0} faults={} acknowledged={} above_limit={} log_mib={} memory_mib={}",
            self.arguments.seed,
            elapsed.as_secs_f64(),
            self.outcomes.len(),
            counts.acknowledged,
            self.outcomes.iter().filter(|outcome| outcome.writable > WRITABLE_LIMIT).count(),
            self.compared >> 20,
            memory_mib()
        );
        Ok(())
    }
}

/// The most memory that this program has had so far: the history and the judgement lie in it.
fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() >> 10
}

/// A line for each kind that might have been drawn.
fn summary(kinds: &[Kind], outcomes: &[Outcome]) {
    let mut kinds: BTreeMap<Kind, Vec<Outcome>> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for outcome in outcomes {
        kinds.entry(outcome.kind).or_default().push(*outcome);
    }
    println!(
        "{:<12}{:>7}{:>24}{:>24}{:>24}{:>18}",
        "kind", "count", "writable after heal", "pause while it lasts", "pause after heal", "whole again"
    );
    let cells = |all: &[Outcome], of: fn(&Outcome) -> Duration| {
        let mut times: Vec<u128> = all.iter().map(|outcome| of(outcome).as_millis()).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2);
        median.zip(times.last()).map_or_else(|| "-".to_owned(), |(median, last)| format!("{median} / {last} ms"))
    };
    let line = |name: &str, all: &[Outcome]| {
        println!(
            "{name:<12}{:>7}{:>24}{:>24}{:>24}{:>18}",
            all.len(),
            cells(all, |outcome| outcome.writable),
            cells(all, |outcome| outcome.pause),
            cells(all, |outcome| outcome.pause_after),
            cells(all, |outcome| outcome.whole)
        );
    };
    kinds.iter().for_each(|(kind, all)| line(kind.name(), all));
    line("all", outcomes);
    println!("(median / largest)");
}
