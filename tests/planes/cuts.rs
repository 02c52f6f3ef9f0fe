//! Cables of the leader are pulled, on one side and on the other, both ways and one way.
//!
//! Promised: without its external side the leader goes on leading, and clients of the others write through it. Without its
//! internal side it steps down and refuses writes, another leads, and clients of the others write; when it has its side
//! again it comes back without a restart. Whatever happens, what was acknowledged is there, and the logs are equal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::Arguments;
use crate::house::{CHUNK_SIZE, CLIENTS, House, NODES};
use crate::probe::{Attempt, Probe};
use crate::support::cluster::{Figures, Node};
use crate::support::history::History;
use crate::support::keys::Lock;
use crate::support::machine::Machine;
use crate::support::pace::Limit;
use crate::support::steady::Steady;
use crate::support::verify;
use crate::support::wires::{Plane, Wires};
use crate::support::workload::Workload;

/// How long clients of the other nodes may be without an acknowledged write, and how long a leader without the others
/// may go on believing that it leads.
const PROMISE: Duration = Duration::from_millis(1_500);

/// Clients that do a bit of everything, beside the probes.
const CLIENT_COUNT: u32 = 4;

const LIMIT: Limit = Limit { burst: 1 << 20, a_second: 1 << 20 };

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The external cable is pulled.
    External,
    /// What it sends to clients is lost.
    ExternalMute,
    /// What clients send to it is lost.
    ExternalDeaf,
    /// The internal cable is pulled.
    Internal,
    /// What it sends to the others is lost.
    InternalMute,
    /// What the others send to it is lost.
    InternalDeaf,
}

impl Cut {
    const ALL: [Cut; 6] =
        [Cut::External, Cut::Internal, Cut::ExternalMute, Cut::ExternalDeaf, Cut::InternalMute, Cut::InternalDeaf];

    fn name(self) -> &'static str {
        match self {
            Cut::External => "external",
            Cut::ExternalMute => "external-to-clients",
            Cut::ExternalDeaf => "external-from-clients",
            Cut::Internal => "internal",
            Cut::InternalMute => "internal-to-nodes",
            Cut::InternalDeaf => "internal-from-nodes",
        }
    }

    fn is_internal(self) -> bool {
        matches!(self, Cut::Internal | Cut::InternalMute | Cut::InternalDeaf)
    }

    /// Does it, or undoes it.
    fn set(self, wires: &Wires, leader: usize, cut: bool) -> anyhow::Result<()> {
        let others = || (0..NODES).filter(|other| *other != leader);
        match self {
            Cut::External => wires.set_cable(Plane::External, leader, !cut),
            Cut::ExternalMute => wires.set_lost(Plane::External, leader, CLIENTS, cut),
            Cut::ExternalDeaf => wires.set_lost(Plane::External, CLIENTS, leader, cut),
            Cut::Internal => wires.set_cable(Plane::Internal, leader, !cut),
            Cut::InternalMute => others().try_for_each(|other| wires.set_lost(Plane::Internal, leader, other, cut)),
            Cut::InternalDeaf => others().try_for_each(|other| wires.set_lost(Plane::Internal, other, leader, cut)),
        }
    }
}

/// Runs all cuts, one after the other.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    verify::self_test().context("the checker itself")?;
    let house = House::start(folder, arguments.lock(), &[])?;
    let load = Workload::start(&house.cluster, arguments.seed, CLIENT_COUNT, LIMIT);
    let probes = (0..NODES).map(|node| Probe::start(load.shared(), node)).collect();
    let machine = Machine::watch(folder)?;
    let mut scene = Scene { house, load, probes, machine, compared: 0, broken: Vec::new() };
    let span = Duration::from_secs(arguments.seconds);
    let cuts = scene.steady().rest(Duration::from_secs(1));
    let cuts = cuts.and_then(|()| {
        Cut::ALL
            .into_iter()
            .try_for_each(|cut| scene.cut(arguments.lock(), cut, span).with_context(|| cut.name().to_owned()))
    });
    scene.finish(arguments, folder, cuts)
}

struct Scene {
    // Dropped in this order.
    load: Workload,
    probes: Vec<Probe>,
    house: House,
    machine: Machine,
    /// The logs are equal up to here.
    compared: u64,
    /// Promises that did not hold.
    broken: Vec<String>,
}

impl Scene {
    fn steady(&mut self) -> Steady<'_> {
        // Signals end this program (`main`), so nothing sets it.
        static INTERRUPTED: AtomicBool = AtomicBool::new(false);
        let cluster = &mut self.house.cluster;
        Steady { cluster, load: &self.load, interrupted: &INTERRUPTED, chunk_size: CHUNK_SIZE }
    }

    fn cut(&mut self, lock: Lock, cut: Cut, span: Duration) -> anyhow::Result<()> {
        self.steady().whole()?;
        self.steady().rest(Duration::from_secs(1))?;
        let leader = self.house.cluster.leader()?;
        let term = self.figures_term(leader)?;
        let moment = Instant::now();
        let quiet = self.pause_at_others(leader, moment - Duration::from_millis(900), moment);
        cut.set(&self.house.wires, leader, true)?;
        // What was acknowledged before this says nothing.
        let is_cut = Instant::now();
        self.steady().rest(span)?;
        let figures = self.house.cluster.nodes.iter().map(Node::figures).collect();
        let heal = Instant::now();
        cut.set(&self.house.wires, leader, false)?;
        let pause = self.pause_at_others(leader, moment, heal);
        let served = self.served_by_others(leader, is_cut, heal);
        self.steady().writable(heal)?;
        self.steady().whole().with_context(|| format!("after {} was healed", cut.name()))?;
        let whole = heal.elapsed();
        let from = self.compared;
        self.compared = self.steady().compare(from)?;
        let now = self.house.cluster.leader()?;
        let after = self.figures_term(now)?;
        let at_leader = self.probes[leader].between(moment, heal);
        let last =
            at_leader.iter().filter(|attempt| attempt.refusal.is_none()).map(|attempt| attempt.end - moment).max();
        let found = Found {
            cut,
            leader,
            term,
            now,
            after,
            figures,
            moment,
            heal,
            quiet,
            pause,
            served,
            last,
            whole,
            at_leader,
        };
        found.print(lock);
        for other in (0..NODES).filter(|other| *other != leader) {
            println!("  answers at node {}: {}", other + 1, tally(&self.probes[other].between(moment, heal)));
        }
        for what in found.broken(&self.machine) {
            println!("  BROKEN: {what}");
            self.broken.push(format!("{}: {what}", cut.name()));
        }
        Ok(())
    }

    fn figures_term(&self, node: usize) -> anyhow::Result<u64> {
        let figures =
            crate::support::cluster::figures(self.house.cluster.nodes[node].ext_http(), Duration::from_secs(5));
        Ok(figures?.term)
    }

    fn others(&self, leader: usize) -> impl Iterator<Item = &Probe> {
        self.probes.iter().enumerate().filter(move |(node, _)| *node != leader).map(|(_, probe)| probe)
    }

    /// The longest time without an acknowledged write at any of the other nodes, each by itself.
    fn pause_at_others(&self, leader: usize, from: Instant, to: Instant) -> Duration {
        self.others(leader).map(|probe| longest_pause(&probe.between(from, to), from, to)).max().unwrap_or_default()
    }

    /// How long after `from` the last of the other nodes acknowledged a write that was sent after it.
    fn served_by_others(&self, leader: usize, from: Instant, to: Instant) -> Option<Duration> {
        let first = |probe: &Probe| {
            let all = probe.between(from, to);
            let good = all.iter().filter(|attempt| attempt.refusal.is_none() && attempt.begin >= from);
            good.map(|attempt| attempt.end - from).min()
        };
        self.others(leader).map(first).try_fold(Duration::ZERO, |latest, one| one.map(|one| one.max(latest)))
    }

    fn finish(mut self, arguments: &Arguments, folder: &Path, cuts: anyhow::Result<()>) -> anyhow::Result<()> {
        let mut history = History::default();
        self.probes.drain(..).for_each(|probe| history.append(probe.stop()));
        history.append(self.load.stop(cuts.is_ok()));
        let judged = cuts.and_then(|()| self.steady().judge(&history));
        if judged.is_err() {
            Steady::keep(&history, folder)?;
        }
        let counts = judged?;
        println!(
            "result mode=cuts lock={} acknowledged={} unanswered={} events={} reads={} broken={}",
            arguments.lock().name(),
            counts.acknowledged,
            counts.unanswered,
            counts.events,
            counts.reads,
            self.broken.len()
        );
        ensure!(counts.acknowledged > 0, "no write was acknowledged at all");
        if !self.broken.is_empty() {
            bail!("promises that did not hold:\n{}", self.broken.join("\n"));
        }
        Ok(())
    }
}

/// What a cut did.
struct Found {
    cut: Cut,
    /// The leader that was cut off, and its term.
    leader: usize,
    term: u64,
    /// The leader when all was well again.
    now: usize,
    after: u64,
    /// What the nodes said just before it was healed.
    figures: Vec<Option<Figures>>,
    moment: Instant,
    heal: Instant,
    /// The longest pauses at the other nodes, before and while it lasted.
    quiet: Duration,
    pause: Duration,
    /// When all others had served a client.
    served: Option<Duration>,
    /// When the node that was cut off acknowledged a write for the last time.
    last: Option<Duration>,
    /// From the heal until all followed one leader.
    whole: Duration,
    at_leader: Vec<Attempt>,
}

impl Found {
    fn print(&self, lock: Lock) {
        let millis = |time: Option<Duration>, none: &str| {
            time.map_or_else(|| none.to_owned(), |time| time.as_millis().to_string())
        };
        println!(
            "result mode=cuts lock={} cut={} leader_before={} leader_after={} terms={} others_served_after_ms={} \
             others_longest_pause_ms={} quiet_pause_ms={} last_acknowledged_at_cut_leader_ms={} refused_at_cut_leader={} \
             whole_after_heal_ms={} role_while_cut={}",
            lock.name(),
            self.cut.name(),
            self.leader + 1,
            self.now + 1,
            i128::from(self.after) - i128::from(self.term),
            millis(self.served, "never"),
            self.pause.as_millis(),
            self.quiet.as_millis(),
            millis(self.last, "none"),
            self.at_leader.iter().filter(|attempt| attempt.refusal.is_some()).count(),
            self.whole.as_millis(),
            self.figures[self.leader].as_ref().map_or("unseen", |figures| figures.role.as_str()),
        );
        println!("  answers at the cut node: {}", tally(&self.at_leader));
    }

    /// The promises that did not hold.
    fn broken(&self, machine: &Machine) -> Vec<String> {
        let mut broken = Vec::new();
        if self.pause > PROMISE {
            let (flush, late) = machine.worst(self.moment, self.heal);
            broken.push(format!(
                "{} ms without a write at one of the other nodes (the machine's own disk took {flush:.0?} for a flush, a \
                 thread woke {late:.0?} late)",
                self.pause.as_millis()
            ));
        }
        if self.served.is_none() {
            broken.push("a node that was not cut off acknowledged nothing".to_owned());
        }
        if self.after < self.term {
            broken.push(format!("the term went back from {} to {}", self.term, self.after));
        }
        broken.extend(if self.cut.is_internal() { self.broken_inside() } else { self.broken_outside() });
        broken
    }

    fn broken_inside(&self) -> Vec<String> {
        let own = self.figures[self.leader].as_ref();
        let leads = |figures: &Figures| figures.leads() && figures.term > self.term;
        let is_replaced = self
            .figures
            .iter()
            .enumerate()
            .any(|(node, figures)| node != self.leader && figures.as_ref().is_some_and(leads));
        let promises = [
            (own.is_some_and(|own| !own.leads()), format!("the old leader is {:?}", own.map(|own| &own.role))),
            (is_replaced, "no other node led".to_owned()),
            (
                self.last.is_none_or(|last| last < PROMISE),
                format!("the old leader acknowledged a write {:?} after it lost the others", self.last),
            ),
            (!self.at_leader.is_empty(), "nobody asked the old leader".to_owned()),
        ];
        promises.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }

    fn broken_outside(&self) -> Vec<String> {
        let is_same = self.now == self.leader && self.after == self.term;
        let promises = [
            (is_same, format!("the leader changed: term {} to {}", self.term, self.after)),
            (self.last.is_none_or(|last| last < PROMISE), "clients reached the node: nothing was cut".to_owned()),
        ];
        promises.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }
}

fn longest_pause(attempts: &[Attempt], from: Instant, to: Instant) -> Duration {
    let ends = attempts.iter().filter(|attempt| attempt.refusal.is_none()).map(|attempt| attempt.end);
    let (mut previous, mut longest) = (from, Duration::ZERO);
    for end in ends.chain([to]) {
        longest = longest.max(end.saturating_duration_since(previous));
        previous = end;
    }
    longest
}

/// How often which answer came.
fn tally(attempts: &[Attempt]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for attempt in attempts {
        *counts.entry(attempt.refusal.as_deref().unwrap_or("acknowledged")).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}
