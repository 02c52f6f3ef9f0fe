//! A run from the main thread's side: starts the workers, lets them go when all connections are there, collects what
//! they count, and says once a second how it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;

use crate::outcome::{Outcome, Second, Series};
use crate::record::{Kind, Recorder, Tally};
use crate::worker;
use crate::worker::{Cut, Done, Part, Plan, Report};

/// All connections are there within this, or the run ends with an error; more connections have a little longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Between the last connection and the first request, so that all threads begin together.
const START_AFTER: Duration = Duration::from_millis(60);

/// The main thread looks at the time at least, and at most, this often.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(100);
/// A cut that is shorter is no second of the timeline.
const SECOND_MIN: Duration = Duration::from_millis(900);

/// What the workers found, all together.
pub(crate) struct Found {
    pub outcome: Outcome,
    pub done: Done,
}

/// What else happens at which moment of a run: when all connections are there, and at the measured span's two ends.
pub(crate) trait Moments {
    fn connected(&mut self);
    fn measured_span_begins(&mut self);
    fn measured_span_ends(&mut self);
}

/// Runs the plan to its end.
///
/// # Errors
/// When not all connections can be made, or a worker cannot run.
pub(crate) fn run(plan: &Arc<Plan>, moments: &mut impl Moments) -> anyhow::Result<Found> {
    let (sender, reports) = channel();
    for index in 0..plan.threads {
        let (plan, sender) = (Arc::clone(plan), sender.clone());
        std::thread::Builder::new().name(format!("load-{index}")).spawn(move || worker::run(&plan, index, &sender))?;
    }
    await_connections(plan, &reports)?;
    moments.connected();
    let go = Instant::now() + START_AFTER;
    plan.control.go.get_or_init(|| go);
    let mut collector = Collector::new(plan, go);
    collector.collect(&reports, moments)?;
    Ok(collector.found())
}

fn await_connections(plan: &Plan, reports: &Receiver<Report>) -> anyhow::Result<()> {
    let wanted = plan.roles.len();
    let start = Instant::now();
    let limit = CONNECT_LIMIT + Duration::from_millis(wanted as u64);
    while plan.control.ready() < wanted {
        if let Ok(Report::Done(Done { error: Some(error), .. })) = reports.recv_timeout(Duration::from_millis(5)) {
            bail!("{error}");
        }
        ensure!(!plan.control.stop.load(Ordering::Relaxed), "ended before the run began");
        if start.elapsed() > limit {
            let note = plan.control.take_note().unwrap_or_else(|| "no reason is known".into());
            bail!("{} of {wanted} connections are ready after {} s: {note}", plan.control.ready(), limit.as_secs());
        }
    }
    Ok(())
}

/// Puts the workers' cuts together.
struct Collector<'a> {
    plan: &'a Plan,
    measured_from: Instant,
    started_unix_seconds: u64,
    /// Cuts that not all workers have made yet, with the number of those that have.
    open: BTreeMap<u32, (usize, Cut)>,
    total: Recorder,
    timeline: Vec<Second>,
    measured: Duration,
    done: Done,
    finished: usize,
}

impl<'a> Collector<'a> {
    fn new(plan: &'a Plan, go: Instant) -> Self {
        let started = SystemTime::now() + START_AFTER + plan.warm_up;
        Self {
            plan,
            measured_from: go + plan.warm_up,
            started_unix_seconds: started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            open: BTreeMap::new(),
            total: Recorder::default(),
            timeline: Vec::new(),
            measured: Duration::ZERO,
            done: Done::default(),
            finished: 0,
        }
    }

    fn collect(&mut self, reports: &Receiver<Report>, moments: &mut impl Moments) -> anyhow::Result<()> {
        let (mut begun, mut ended) = (false, false);
        let end = self.measured_from + self.plan.measured;
        while self.finished < self.plan.threads {
            let now = Instant::now();
            if now >= self.measured_from && !begun {
                begun = true;
                moments.measured_span_begins();
            }
            if begun && !ended && (now >= end || self.plan.control.stop.load(Ordering::Relaxed)) {
                ended = true;
                moments.measured_span_ends();
            }
            let next = if begun { end } else { self.measured_from };
            let wait = next.saturating_duration_since(now).clamp(WAIT_MIN, WAIT_MAX);
            match reports.recv_timeout(wait) {
                Ok(Report::Cut(cut)) => self.take(*cut),
                Ok(Report::Done(done)) => self.finish(done)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("a thread of the load ended by itself"),
            }
        }
        for (_, cut) in std::mem::take(&mut self.open).into_values() {
            self.close(&cut);
        }
        Ok(())
    }

    fn take(&mut self, cut: Cut) {
        let number = cut.number;
        let (count, all) = match self.open.remove(&number) {
            Some((count, mut all)) => {
                all.recorder.merge(&cut.recorder);
                all.at = all.at.max(cut.at);
                (count + 1, all)
            }
            None => (1, cut),
        };
        if count == self.plan.threads {
            self.close(&all);
        } else {
            self.open.insert(number, (count, all));
        }
    }

    fn finish(&mut self, done: Done) -> anyhow::Result<()> {
        if let Some(error) = done.error {
            bail!("{error}");
        }
        self.finished += 1;
        self.done.acknowledged.extend(done.acknowledged);
        self.done.delivered += done.delivered;
        self.done.reconnects += done.reconnects;
        self.done.fresh_left_out += done.fresh_left_out;
        self.done.unanswered += done.unanswered;
        Ok(())
    }

    fn close(&mut self, cut: &Cut) {
        if cut.part == Part::Drain {
            self.total.merge(&cut.recorder);
            return;
        }
        let is_measured = cut.part == Part::Measured;
        let before = if is_measured { self.measured } else { Duration::ZERO };
        let second = second(cut);
        let note = self.plan.control.take_note().filter(|_| second.errors != 0);
        eprintln!("{}", progress(cut, &second, note.as_deref()));
        if is_measured {
            // An end in the midst of a second is no second of its own.
            if cut.at.saturating_sub(before) >= SECOND_MIN {
                self.timeline.push(second);
            }
            self.measured = cut.at;
            self.total.merge(&cut.recorder);
        }
    }

    fn found(self) -> Found {
        let series = Kind::ALL.into_iter().zip(self.total.tallies).filter(|(_, tally)| !tally.latency.is_empty());
        let outcome = Outcome {
            settings: Vec::new(),
            started_unix_seconds: self.started_unix_seconds,
            measured: self.measured,
            series: series.map(|(kind, tally)| into_series(kind, tally)).collect(),
            timeline: self.timeline,
            troubles: self.total.troubles,
            nodes: Vec::new(),
            nodes_expected: 0,
        };
        Found { outcome, done: self.done }
    }
}

fn into_series(kind: Kind, tally: Tally) -> Series {
    let Tally { operations, events, payload_bytes, latency } = tally;
    Series { name: kind.name(), operations, events, payload_bytes, latency }
}

/// All requests of a cut together; deliveries are no requests.
fn second(cut: &Cut) -> Second {
    let mut all = Tally::default();
    for kind in [Kind::Write, Kind::Read] {
        all.merge(&cut.recorder.tallies[kind as usize]);
    }
    Second {
        at: cut.at,
        operations: all.operations,
        events: all.events,
        errors: cut.recorder.errors,
        p50: quantile(&all.latency, 0.5),
        p99: quantile(&all.latency, 0.99),
        max: Duration::from_nanos(all.latency.max()),
    }
}

fn quantile(latency: &Histogram<u64>, quantile: f64) -> Duration {
    Duration::from_nanos(latency.value_at_quantile(quantile))
}

fn progress(cut: &Cut, second: &Second, note: Option<&str>) -> String {
    let name =
        if cut.part == Part::Measured { format!("{:>5.1} s", cut.at.as_secs_f64()) } else { "warm-up".to_owned() };
    let mut line = format!(
        "{name}  {:>9} requests  {:>9} events  p50 {:.3} ms  p99 {:.3} ms",
        second.operations,
        second.events,
        second.p50.as_secs_f64() * 1e3,
        second.p99.as_secs_f64() * 1e3,
    );
    let deliveries = &cut.recorder.tallies[Kind::Delivery as usize];
    if deliveries.operations != 0 {
        let (p50, p99) = (quantile(&deliveries.latency, 0.5), quantile(&deliveries.latency, 0.99));
        let (p50, p99) = (p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3);
        line += &format!("  {:>9} deliveries  p50 {p50:.3} ms  p99 {p99:.3} ms", deliveries.operations);
    }
    if second.errors != 0 {
        line += &format!("  errors {}", second.errors);
    }
    note.map_or(line.clone(), |note| format!("{line}  ({note})"))
}
