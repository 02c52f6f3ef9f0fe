//! One thread of the load: a ring, its share of the connections, their clock. It hands what it counted to the main
//! thread at each cut, once a second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::book::Book;
use crate::connection::{Connection, Role};
use crate::directory::Directory;
use crate::load::{Acknowledged, Load, Place};
use crate::pace::Pace;
use crate::record::Recorder;
use crate::signal::{Ticks, Timer};

/// Everything that does not have to be at once happens at a tick.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// Looking for what nobody answered.
const THOROUGH_EVERY: u64 = 25;
/// After the end, requests on their way may still be answered for so long.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Events on their way to subscribers, after the last write was answered.
const DELIVERY_GRACE: Duration = Duration::from_millis(500);
/// An open loop does not wake more often than this: at high rates some requests leave together, a little late, and
/// that counts into their latency.
const PACE_GRAIN: Duration = Duration::from_micros(50);
/// The number of the cut after the last: threads may have made one more or less before a run that was ended early.
const DRAIN_CUT: u32 = u32::MAX;
/// Of the ring. Submissions beyond it are handed to the kernel earlier; completions have room for all connections.
const RING_ENTRIES: u32 = 1024;
const COMPLETION_ENTRIES: u32 = 32_768;

/// The settings of a run, shared by all threads.
pub(crate) struct Plan {
    pub load: Load,
    pub roles: Vec<Role>,
    pub threads: usize,
    /// For each active connection.
    pub in_flight: u32,
    /// Requests a second of all threads together; none is a closed loop.
    pub rate: Option<f64>,
    pub warm_up: Duration,
    pub measured: Duration,
    /// A request without an answer is sent again after this.
    pub timeout: Duration,
    /// Login and password.
    pub user: (String, String),
    pub directory: Arc<Directory>,
    pub control: Control,
}

/// What the threads tell each other while they run.
#[derive(Default)]
pub(crate) struct Control {
    ready: AtomicUsize,
    /// When the load begins; set once all connections are ready.
    pub go: OnceLock<Instant>,
    /// Ctrl-C.
    pub stop: Arc<AtomicBool>,
    last_note: Mutex<Option<String>>,
}

impl Control {
    pub(crate) fn one_more_is_ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    /// Remembers what went wrong last, for whoever has to explain why nothing happens.
    pub(crate) fn note(&self, text: &str) {
        *self.last_note.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    pub(crate) fn take_note(&self) -> Option<String> {
        self.last_note.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    Running,
    /// No new requests; those on their way are awaited.
    Draining,
    Over,
}

/// From a worker to the main thread.
pub(crate) enum Report {
    Cut(Box<Cut>),
    Done(Done),
}

/// What a cut is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    WarmUp,
    Measured,
    /// Of an open loop: what belongs to the measured span, and was answered or given up after it.
    Drain,
}

/// What was counted since the cut before.
pub(crate) struct Cut {
    pub number: u32,
    pub part: Part,
    /// Since the measured span's start; zero in the warm-up.
    pub at: Duration,
    pub recorder: Recorder,
}

/// A worker's last words.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub acknowledged: Vec<Acknowledged>,
    /// Events that came to subscribers, in the whole run.
    pub delivered: u64,
    /// Connections made again, in the whole run.
    pub reconnects: u64,
    /// Streams that were new with each write, and are not among those acknowledged: only a part of them is kept.
    pub fresh_left_out: u64,
    /// Requests that were still without an answer when the run ended.
    pub unanswered: usize,
    pub error: Option<String>,
}

/// One thread's state, for all its tasks.
pub(crate) struct Worker {
    pub plan: Arc<Plan>,
    pub book: RefCell<Book>,
    pub pace: RefCell<Pace>,
    pub phase: Cell<Phase>,
    pub ticks: Ticks,
    pub delivered: Cell<u64>,
    /// In the whole run.
    pub reconnects: Cell<u64>,
}

impl Worker {
    pub(crate) fn lost(&self, reason: &str, address: std::net::SocketAddr) {
        self.reconnects.set(self.reconnects.get() + 1);
        let mut book = self.book.borrow_mut();
        let recorder = book.now();
        recorder.errors += 1;
        recorder.troubles.reconnects += 1;
        self.plan.control.note(&format!("connection to {address} lost: {reason}"));
        self.plan.directory.suspect();
    }

    pub(crate) fn retried(&self, requests: u64) {
        if requests != 0 {
            self.book.borrow_mut().now().troubles.retries += requests;
        }
    }
}

/// The whole life of a worker's thread.
pub(crate) fn run(plan: &Arc<Plan>, index: usize, reports: &Sender<Report>) {
    let done = ring().and_then(|ring| ring.block_on(serve(Arc::clone(plan), index, reports)));
    let done = done.unwrap_or_else(|error| Done { error: Some(format!("{error:#}")), ..Done::default() });
    // The main thread is gone only when the process ends.
    let _ = reports.send(Report::Done(done));
}

fn ring() -> anyhow::Result<tokio_uring::Runtime> {
    let mut setup = tokio_uring::uring_builder();
    setup.setup_cqsize(COMPLETION_ENTRIES);
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES);
    // Completions wait for the next system call instead of interrupting; kernels before 5.19 and 6.0 cannot.
    let mut better = setup.clone();
    better.setup_coop_taskrun().setup_single_issuer();
    let ring = tokio_uring::Runtime::new(builder.uring_builder(&better));
    ring.or_else(|_| tokio_uring::Runtime::new(builder.uring_builder(&setup)))
        .context("io_uring is not available: it needs Linux 5.11 or later and must not be forbidden by a sandbox")
}

async fn serve(plan: Arc<Plan>, index: usize, reports: &Sender<Report>) -> anyhow::Result<Done> {
    let worker = Rc::new(Worker {
        book: RefCell::default(),
        pace: RefCell::new(Pace::Closed),
        phase: Cell::new(Phase::Connecting),
        ticks: Ticks::default(),
        delivered: Cell::new(0),
        reconnects: Cell::new(0),
        plan,
    });
    let connections = connections(&worker, index);
    let tasks: Vec<_> = connections.iter().map(|connection| tokio_uring::spawn(Rc::clone(connection).run())).collect();
    let mut clock = Clock { worker: &worker, connections: &connections, reports, cut: 0, next_cut: None, ended: None };
    clock.run(index).await?;
    clock.settle(Instant::now());
    worker.phase.set(Phase::Over);
    let unanswered = connections.iter().filter(|connection| connection.is_waiting()).count();
    connections.iter().for_each(|connection| connection.end());
    worker.ticks.tick();
    for task in tasks {
        // A task that panicked has said so already.
        let _ = task.await;
    }
    let load = &worker.plan.load;
    let places: Vec<_> = connections.iter().map(|connection| connection.take_place()).collect();
    let fresh_left_out = places.iter().map(Place::fresh_left_out).sum();
    let acknowledged = places.into_iter().flat_map(|place| place.into_acknowledged(load)).collect();
    let (delivered, reconnects) = (worker.delivered.get(), worker.reconnects.get());
    Ok(Done { acknowledged, delivered, reconnects, fresh_left_out, unanswered, error: None })
}

/// The connections of worker `index`: every `threads`th of each role.
fn connections(worker: &Rc<Worker>, index: usize) -> Rc<[Rc<Connection>]> {
    let plan = &worker.plan;
    let active = plan.roles.iter().filter(|role| **role == Role::Active).count();
    let own = plan.roles.iter().enumerate().skip(index).step_by(plan.threads).enumerate();
    own.map(|(local, (number, role))| {
        // The active ones are the first, so their numbers are their places.
        let place = if *role == Role::Active { Place::new(&plan.load, number, active) } else { Place::outside() };
        Rc::new(Connection::new(Rc::clone(worker), number, local, role.clone(), place))
    })
    .collect()
}

/// The task that sees to the time.
struct Clock<'a> {
    worker: &'a Rc<Worker>,
    connections: &'a Rc<[Rc<Connection>]>,
    reports: &'a Sender<Report>,
    cut: u32,
    next_cut: Option<Instant>,
    ended: Option<Instant>,
}

impl Clock<'_> {
    async fn run(&mut self, index: usize) -> anyhow::Result<()> {
        let mut timer = Timer::new()?;
        timer.set(TICK, TICK)?;
        let mut ticks = 0_u64;
        loop {
            timer.expired().await?;
            ticks += 1;
            let now = Instant::now();
            match self.worker.phase.get() {
                Phase::Connecting => self.connecting(now, index, &timer)?,
                Phase::Running => self.running(now),
                Phase::Draining if self.is_drained(now) => return Ok(()),
                Phase::Draining => {}
                Phase::Over => return Ok(()),
            }
            let thorough = ticks.is_multiple_of(THOROUGH_EVERY);
            self.connections.iter().for_each(|connection| connection.tick(now, thorough));
            self.worker.ticks.tick();
        }
    }

    fn connecting(&mut self, now: Instant, index: usize, timer: &Timer) -> anyhow::Result<()> {
        let plan = &self.worker.plan;
        if plan.control.stop.load(Ordering::Relaxed) {
            self.worker.phase.set(Phase::Over);
            return Ok(());
        }
        let Some(go) = plan.control.go.get() else { return Ok(()) };
        if now < *go {
            // The ticks from now on fall on whole seconds since the start.
            timer.set(*go - now, TICK)?;
            return Ok(());
        }
        let start = *go + plan.warm_up;
        let mut book = Book::new(plan.rate.is_some(), start..start + plan.measured);
        book.measure(plan.warm_up.is_zero());
        *self.worker.book.borrow_mut() = book;
        *self.worker.pace.borrow_mut() = Pace::new(plan.rate, *go, index, plan.threads);
        self.worker.phase.set(Phase::Running);
        self.next_cut = Some(*go + next_length(plan.warm_up));
        self.connections.iter().for_each(|connection| connection.start_due(now));
        if plan.rate.is_some() {
            tokio_uring::spawn(keep_pace(Rc::clone(self.worker), Rc::clone(self.connections)));
        }
        Ok(())
    }

    fn running(&mut self, now: Instant) {
        let plan = &self.worker.plan;
        let start = *plan.control.go.get().expect("the load has begun") + plan.warm_up;
        let stop = plan.control.stop.load(Ordering::Relaxed);
        let end = now >= start + plan.measured || stop;
        if self.next_cut.is_some_and(|at| now >= at) || end {
            let measured = self.next_cut.is_some_and(|next| next > start);
            self.send(self.cut, if measured { Part::Measured } else { Part::WarmUp }, now);
            self.cut += 1;
            let before = self.next_cut.unwrap_or(now);
            let left = if before < start { start - before } else { start + plan.measured - before };
            let next = before + next_length(left);
            self.worker.book.borrow_mut().measure(next > start);
            self.next_cut = Some(next);
        }
        if end {
            let mut book = self.worker.book.borrow_mut();
            book.end_at(now);
            // What goes wrong in the drain goes wrong for requests of the span.
            book.measure(plan.rate.is_some());
            self.worker.phase.set(Phase::Draining);
            self.ended = Some(now);
        }
    }

    fn send(&self, number: u32, part: Part, now: Instant) {
        let plan = &self.worker.plan;
        let start = *plan.control.go.get().expect("the load has begun") + plan.warm_up;
        let at = now.saturating_duration_since(start);
        // An open loop's span ends on time: requests of a little later are not in it.
        let at = if plan.rate.is_some() { at.min(plan.measured) } else { at };
        let recorder = self.worker.book.borrow_mut().take(part != Part::WarmUp);
        // The main thread is gone only when the process ends.
        let _ = self.reports.send(Report::Cut(Box::new(Cut { number, part, at, recorder })));
    }

    /// The run is over: books what an open loop has not brought home.
    fn settle(&self, now: Instant) {
        let plan = &self.worker.plan;
        let Some(ended) = self.ended.filter(|_| plan.rate.is_some()) else { return };
        {
            let mut book = self.worker.book.borrow_mut();
            self.connections.iter().for_each(|connection| connection.book_unanswered(&mut book, now));
            let mut place = Place::outside();
            book.never_sent(&mut self.worker.pace.borrow_mut(), now, || place.next_kind(&plan.load));
        }
        self.send(DRAIN_CUT, Part::Drain, ended);
    }

    fn is_drained(&mut self, now: Instant) -> bool {
        let ended = self.ended.unwrap_or(now);
        let over = now.saturating_duration_since(ended);
        let waiting = self.connections.iter().any(|connection| connection.is_waiting());
        let subscribers = self.worker.plan.roles.iter().any(|role| matches!(role, Role::Subscriber(_)));
        over > DRAIN_LIMIT || (!waiting && (!subscribers || over > DELIVERY_GRACE))
    }
}

/// The next cut: after a second, or where the span ends.
fn next_length(left: Duration) -> Duration {
    let second = Duration::from_secs(1);
    if left.is_zero() { second } else { left.min(second) }
}

/// Starts what is due in an open loop; connections with room take turns.
async fn keep_pace(worker: Rc<Worker>, connections: Rc<[Rc<Connection>]>) {
    let Ok(mut timer) = Timer::new() else { return };
    let mut turn = 0;
    while worker.phase.get() == Phase::Running {
        let now = Instant::now();
        let Some(next) = worker.pace.borrow().next() else { return };
        let wait = next.saturating_duration_since(now).max(PACE_GRAIN);
        if timer.set(wait, Duration::ZERO).is_err() || timer.expired().await.is_err() {
            return;
        }
        let now = Instant::now();
        for _ in 0..connections.len() {
            if worker.pace.borrow().peek(now).is_none() {
                break;
            }
            connections[turn].start_due(now);
            turn = (turn + 1) % connections.len();
        }
    }
}
