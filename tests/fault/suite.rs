//! The suite: nodes in a lab, clients that never rest, and one fault after the other for as long as was asked for.
//!
//! Never more is broken at one time than the cluster's promise covers, but for the faults that strike all: then writes
//! may stop, and still nothing may be lost. After each fault, when it is healed, the time is taken until a write that is
//! sent after that is acknowledged; then the cluster must become whole again, and the logs of all nodes are compared as
//! far as they are committed. At the end [`verify`](crate::verify) judges the history of the run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::faults::{Draw, Kind, Schedule, Stage, Struck};
use crate::history::History;
use crate::lab::{Lab, remove_stale};
use crate::support::cluster::{Cluster, Figures, Node, small_chunks};
use crate::support::wait_until;
use crate::workload::Workload;
use crate::{Arguments, check, verify};

/// How long until the cluster takes writes again is aimed at.
const WRITABLE_LIMIT: Duration = Duration::from_millis(1_500);

/// How long the cluster may take to be whole again before the run fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Room on each node's disk, and what is added for each minute of load, MiB.
const DISK_MIB: u64 = 384;
const DISK_MIB_A_MINUTE: u64 = 24;

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

/// SIGINT or SIGTERM came.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Set by SIGINT and SIGTERM: the run ends and takes everything down.
pub(crate) fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// Runs the suite.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    verify::self_test().context("the checker itself")?;
    remove_stale(folder.parent().context("a folder below another")?)?;
    if let Some(missing) = Lab::missing() {
        println!("fault: SKIPPED the suite: {missing}");
        return Ok(());
    }
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
    let homes = lab.homes(kinds.contains(&Kind::Clock))?;
    let cluster = Cluster::start_at(homes, &small_chunks(arguments.chunk_size))?;
    let load = Workload::start(&cluster, arguments.seed, arguments.writers);
    let schedule = Schedule::new(arguments.seed, kinds, arguments.nodes);
    let mut run = Run {
        arguments,
        folder,
        history: History::default(),
        stage: Stage { lab, cluster },
        load,
        schedule,
        interrupted,
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
    outcomes: Vec<Outcome>,
    /// The logs are equal up to here.
    compared: u64,
    start: Instant,
}

impl Run<'_> {
    fn faults(&mut self) -> anyhow::Result<()> {
        let span = Duration::from_secs_f64(self.arguments.minutes * 60.0);
        self.rest(Duration::from_secs(1))?;
        while self.start.elapsed() < span && self.outcomes.len() < self.arguments.faults {
            let draw = self.schedule.draw();
            let number = self.outcomes.len() + 1;
            let outcome = self.fault(draw, number);
            let outcome = outcome.with_context(|| format!("fault {number}, {draw:?}"))?;
            self.outcomes.push(outcome);
        }
        Ok(())
    }

    /// Lets time pass, with an eye on what the clients are told.
    fn rest(&self, span: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.load.check()?;
            ensure!(!self.interrupted.load(Ordering::Relaxed), Interrupted);
            let left = span.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
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
        let pause = self.load.longest_pause(begin, heal);
        let writable = self.writable(heal).with_context(|| what.clone())?;
        let whole = self.whole().with_context(|| what.clone())?;
        Stage::settled(&self.load);
        self.compare().with_context(|| what.clone())?;
        self.rest(draw.calm)?;
        let pause_after = self.load.longest_pause(heal, Instant::now());
        let above = if writable > WRITABLE_LIMIT { "  ABOVE 1.5 s" } else { "" };
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
    fn last(&self, struck: &Struck, span: Duration) -> anyhow::Result<()> {
        let (start, mut flaps) = (Instant::now(), Stage::flaps(struck));
        while start.elapsed() < span {
            let step = self.stage.step(struck, &mut flaps)?;
            self.rest(step.min(span.saturating_sub(start.elapsed())))?;
        }
        Ok(())
    }

    fn writable(&self, heal: Instant) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(time) = self.load.writable_after(heal) {
                return Ok(time);
            }
            self.rest(Duration::from_millis(5))?;
        }
        bail!("no write was acknowledged within {PATIENCE:?} of the heal\n{}", self.stage.cluster.tails())
    }

    /// Waits until one node leads and all others follow and are close to its end.
    fn whole(&mut self) -> anyhow::Result<Duration> {
        let cluster = &mut self.stage.cluster;
        let (load, interrupted) = (&self.load, &self.interrupted);
        let mut ended = None;
        let whole = wait_until("one leader, and all others follow", PATIENCE, || {
            ended = cluster.nodes.iter_mut().position(|node| !node.is_running());
            let roles: Vec<Figures> = cluster.nodes.iter().filter_map(Node::figures).collect();
            let all = roles.len() == cluster.nodes.len();
            let one = roles.iter().filter(|figures| figures.leads()).count() == 1;
            let follow = roles.iter().all(|figures| figures.follows() || figures.leads());
            let term = roles.iter().all(|figures| figures.term == roles[0].term);
            let stop = ended.is_some() || load.check().is_err() || interrupted.load(Ordering::Relaxed);
            stop || (all && one && follow && term)
        });
        let time = whole.with_context(|| self.stage.cluster.tails())?;
        self.load.check()?;
        if let Some(index) = ended {
            let node = &mut self.stage.cluster.nodes[index];
            let status = node.wait()?;
            bail!("node {} ended by itself, {status}\n{}", index + 1, node.tail());
        }
        Ok(time)
    }

    /// Compares the logs of all nodes from where it was left to where all have committed.
    fn compare(&mut self) -> anyhow::Result<()> {
        let commits = self.stage.cluster.nodes.iter().map(|node| node.figures().map(|figures| figures.commit_position));
        let Some(end) = commits.collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().min()) else {
            return Ok(());
        };
        check::logs_between(&self.stage.cluster, self.arguments.chunk_size, self.compared, end)?;
        self.compared = self.compared.max(end);
        Ok(())
    }

    /// The summary and, when nothing went wrong so far, the judgement.
    fn finish(mut self, struck: anyhow::Result<()>) -> anyhow::Result<()> {
        let result = struck.and_then(|()| self.judge());
        for (text, count) in self.load.refusals() {
            println!("refused {count} times for want of room: \"{text}\"");
        }
        summary(&self.outcomes);
        if let Err(error) = &result
            && !error.is::<Interrupted>()
        {
            println!("fault: --seed {} --kinds {} draws this again", self.arguments.seed, self.arguments.kinds);
            self.history.append(self.load.stop(false));
            let file = self.folder.join("history.txt");
            self.history.save(&file).with_context(|| file.display().to_string())?;
            println!("fault: the whole history is in {}", file.display());
        }
        result?;
        let above = self.outcomes.iter().filter(|outcome| outcome.writable > WRITABLE_LIMIT).count();
        ensure!(!self.arguments.strict || above == 0, "{above} times not writable within {WRITABLE_LIMIT:?}");
        Ok(())
    }

    fn judge(&mut self) -> anyhow::Result<()> {
        let elapsed = self.start.elapsed();
        self.history = self.load.stop(true);
        self.load.check()?;
        let cluster = &mut self.stage.cluster;
        let end = cluster.wait_until_even()?;
        let log = verify::log_at_all(cluster, self.load.known())?;
        let counts = verify::judge(&self.history, self.load.known(), &log, self.load.run())?;
        check::stop(cluster)?;
        check::logs(cluster, self.arguments.chunk_size, end)?;
        println!("checked: {counts}, {end} bytes of log identical at {} nodes", cluster.nodes.len());
        println!(
            "result mode=suite seed={} seconds={:.0} faults={} acknowledged={} above_limit={}",
            self.arguments.seed,
            elapsed.as_secs_f64(),
            self.outcomes.len(),
            counts.acknowledged,
            self.outcomes.iter().filter(|outcome| outcome.writable > WRITABLE_LIMIT).count()
        );
        Ok(())
    }
}

fn summary(outcomes: &[Outcome]) {
    let mut kinds: BTreeMap<Kind, Vec<Outcome>> = BTreeMap::new();
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
        format!("{} / {} ms", times[times.len() / 2], times[times.len() - 1])
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
    if !outcomes.is_empty() {
        line("all", outcomes);
        println!("(median / largest)");
    }
}
