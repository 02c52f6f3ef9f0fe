//! The log thread: its turn, what wakes it, how it ends.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use crate::codec::link::Purpose;
use crate::codec::record::MembershipBody;
use crate::engine::{Action, ControlInput, ControlOutput, EdgeMessage, Engine, NodeView, Published, Request, Role};
use crate::gossip::Directory;
use crate::limits::{LINK_BUFFER_BYTES, LINK_BUFFER_COUNT};
use crate::queue::Queue;
use crate::ring::{Completion, Driver, FileId, GroupId, Wait, Way, monotonic_now, pin_thread};
use crate::security::{Plane, ProvenHosts, Seldom};
use crate::storage::{ChunkLayout, DamageReports, DurableMark, FileDisk, Renewal};
use crate::types::{LogPosition, NodeId, Term, Ticks, WallTime};

use super::connections::{Connections, Holds};
use super::edges::Outboxes;
use super::error::LogThreadError;
use super::files::{AtRest, LogFiles};
use super::places::Places;
use super::tag::{ConnectionId, Tag, Waker};
use super::wire::PutAside;

/// Requests taken in one turn, so that no turn is long.
const REQUESTS_PER_TURN: usize = 1024;

/// Requests taken between two looks at the clock.
const REQUESTS_PER_LOOK: usize = 64;

/// How soon a turn is repeated while something waits that nobody will wake the thread for.
const RETRY_PAUSE: Duration = Duration::from_millis(1);

/// The longest sleep: figures are published at least so often.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How often a leader's view of its followers is published though nothing else changed.
const VIEW_INTERVAL: Duration = Duration::from_millis(500);

/// How long a stopping thread waits for its last writes, and for somebody to take leadership over.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Worker threads that the kernel may use for this ring: one flush of chunks and one of the state file run side by side.
const KERNEL_WORKERS: u32 = 4;

/// What the rest of the process tells the log thread.
#[derive(Debug)]
pub enum ShellInput {
    /// A chunk file was prepared: filled with zeros, durable, open for reading and writing.
    ChunkReady {
        /// The chunk.
        chunk: u32,
        /// Its file.
        file: OwnedFd,
    },
    /// The disk has no room for another chunk, or has room again.
    DiskFull(bool),
    /// A chunk cannot be made for another reason, or can be made again.
    ChunkFailed(bool),
    /// Something that this thread writes has rotted.
    Renew(Renewal),
    /// Stop: hand leadership over, finish what is written, and return.
    Stop,
}

/// What the log thread is told once.
#[derive(Clone, Debug)]
pub struct LogThreadOptions {
    /// How the log is cut; the engine's own.
    pub layout: ChunkLayout,
    /// The newest durable mark that recovery found.
    pub mark: Option<DurableMark>,
    /// False with `UnsafeDisableFlushToDisk`.
    pub flush: bool,
    /// How links to a leader are made, so that they take the internal network. Its patience is that of all links: how long
    /// unacknowledged bytes wait before one counts as broken.
    pub way: Way,
    /// How the internal plane is closed.
    pub plane: Plane,
    /// `IntBusyPollUs`; 0 is off.
    pub busy_poll_us: u32,
    /// Try to send to followers without copying; falls back where the kernel copies anyway.
    pub zero_copy: bool,
    /// CPUs for the thread and the kernel's workers; empty: all.
    pub cpus: Vec<usize>,
}

/// The log thread's ways to the rest of the process.
pub struct LogThreadLinks {
    /// From the edges; made for a ring.
    pub requests: Arc<Queue<Request>>,
    /// From the control thread; made for a ring.
    pub control_input: Arc<Queue<ControlInput>>,
    /// From everyone else; made for a ring.
    pub shell_input: Arc<Queue<ShellInput>>,
    /// To the control thread.
    pub control_output: Arc<Queue<ControlOutput>>,
    /// To the edges, in the order of [`Ticket::edge`](crate::engine::Ticket).
    pub edges: Vec<Arc<Queue<EdgeMessage>>>,
    /// What everyone may see.
    pub published: Arc<Published>,
    /// Where the other nodes are.
    pub directory: Directory,
    /// The data directory.
    pub disk: Arc<FileDisk>,
    /// Where damage is reported that is met on the way to a follower.
    pub damage: DamageReports,
    /// Says that a chunk is needed soon; answered by [`ShellInput::ChunkReady`]. Must not wait.
    pub prepare_chunk: Box<dyn FnMut(u32) + Send>,
}

impl std::fmt::Debug for LogThreadLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogThreadLinks").field("edges", &self.edges.len()).finish_non_exhaustive()
    }
}

/// The links to the leader that this node follows.
#[derive(Debug)]
pub(super) struct LeaderLinks {
    pub(super) node: NodeId,
    pub(super) control: Option<ConnectionId>,
    pub(super) data: Option<ConnectionId>,
}

impl LeaderLinks {
    pub(super) fn place(&mut self, purpose: Purpose) -> &mut Option<ConnectionId> {
        if purpose == Purpose::Data { &mut self.data } else { &mut self.control }
    }
}

/// The links that a follower has opened.
#[derive(Debug)]
pub(super) struct FollowerLinks {
    pub(super) control: ConnectionId,
    pub(super) data: Option<ConnectionId>,
}

/// The eventfd of a queue in the ring.
#[derive(Debug)]
struct Watch {
    file: FileId,
    /// It is being read.
    armed: bool,
}

/// The log thread: drives the [`Engine`] over one io_uring. Made and run on its own thread.
#[derive(Debug)]
pub struct LogThread {
    pub(super) engine: Engine,
    pub(super) driver: Driver,
    pub(super) files: LogFiles,
    pub(super) options: LogThreadOptions,
    pub(super) links: LogThreadLinks,
    pub(super) published: Arc<Published>,
    pub(super) outboxes: Outboxes,
    pub(super) connections: Connections,
    pub(super) holds: Holds,
    /// What data links from a leader receive into.
    pub(super) data_buffers: GroupId,
    pub(super) cluster: Option<MembershipBody>,
    pub(super) leader: Option<LeaderLinks>,
    pub(super) followers: BTreeMap<NodeId, FollowerLinks>,
    /// Leaders that a link could not even be tried to; reported at the next turn.
    pub(super) failed_leaders: Vec<NodeId>,
    /// A follower that holds up the log buffer: which, from where, since when.
    pub(super) stalling: Option<(NodeId, LogPosition, Ticks)>,
    /// Links to a leader that could not be made since the last one that could.
    pub(super) failed_openings: u64,
    /// Accepted connections whose greeting was not good, of late.
    pub(super) places: Places,
    /// What came for handshakes that this turn had no time for: one for each connection.
    pub(super) put_aside: VecDeque<PutAside>,
    /// Steps of handshakes of this turn.
    pub(super) handshakes: usize,
    /// Who was refused, for the log.
    pub(super) strangers: Seldom,
    /// From where greetings were proven.
    pub(super) proven: ProvenHosts,
    /// The log buffer is registered with the kernel, or that was tried.
    pub(super) buffer_registered: bool,
    pub(super) now: Ticks,
    /// When the listener is to accept again after a failure.
    pub(super) accept_at: Option<Ticks>,
    /// Used again each turn.
    pub(super) ids: Vec<ConnectionId>,
    pub(super) actions: Vec<Action>,
    pub(super) elections_term: Term,
    /// `None` on a node that is alone: nobody connects to it.
    listener: Option<FileId>,
    watches: [Watch; 3],
    /// A request that the engine could not take yet.
    pub(super) deferred: Option<Request>,
    completions: Vec<Completion>,
    /// Writes acknowledged, for the published counter.
    pub(super) appends: u64,
    view_at: Ticks,
    /// Set when the thread is asked to stop: when it does at the latest.
    stop_at: Option<Ticks>,
}

/// Says what came of `IntBusyPollUs`: it depends on the kernel, and whether it helps on the card.
fn poll_busily(driver: &mut Driver, microseconds: u32) {
    if microseconds == 0 {
        return;
    }
    match driver.poll_busily(microseconds) {
        Ok(()) => tracing::info!(
            "io_uring: before it sleeps this thread polls the cards of its links for {microseconds} us (NAPI busy \
             polling), where their drivers have NAPI"
        ),
        Err(failure) => tracing::warn!(
            %failure,
            "IntBusyPollUs is {microseconds}, but the kernel refuses NAPI busy polling for this ring: links are served by \
             interrupts. It needs Linux 6.9 with CONFIG_NET_RX_BUSY_POLL; set IntBusyPollUs to 0 otherwise"
        ),
    }
}

impl LogThread {
    /// Sets the ring up on the calling thread, which must be the one that runs it. `listener` listens on the internal
    /// port (a node that is alone has none); see [`listen`](crate::ring::listen).
    ///
    /// # Errors
    /// When io_uring is refused or lacks something vital.
    pub fn new(
        options: LogThreadOptions,
        links: LogThreadLinks,
        engine: Engine,
        listener: Option<OwnedFd>,
    ) -> Result<LogThread, LogThreadError> {
        if !options.cpus.is_empty()
            && let Err(error) = pin_thread(&options.cpus)
        {
            tracing::warn!(cpus = ?options.cpus, %error, "the log thread cannot be pinned; it runs anywhere");
        }
        let mut driver = Driver::new()?;
        for finding in &driver.capabilities().findings {
            tracing::info!("io_uring: {finding}");
        }
        let sealed =
            options.plane.trust().map_or("", |_| "; links are TLS, so nothing is sent without copying (zero-copy)");
        tracing::info!("replication path: one io_uring on this thread, no send/recv system calls{sealed}");
        if let Err(failure) = driver.limit_workers(KERNEL_WORKERS, &options.cpus) {
            tracing::warn!(%failure, "io_uring: the kernel's worker threads cannot be limited");
        }
        poll_busily(&mut driver, options.busy_poll_us);
        let data_buffers = driver.add_group(LINK_BUFFER_COUNT, LINK_BUFFER_BYTES)?;
        let listener = listener.map(|listener| driver.attach(listener));
        let watches = [links.requests.eventfd(), links.control_input.eventfd(), links.shell_input.eventfd()]
            .map(|fd| fd.try_clone_to_owned().map(|fd| Watch { file: driver.attach(fd), armed: false }));
        let [requests, control, shell] = watches;
        let open = |name: &str| {
            let name = format!("the eventfd of the {name} queue");
            move |source| LogThreadError::Open { name, source }
        };
        let watches =
            [requests.map_err(open("request"))?, control.map_err(open("control"))?, shell.map_err(open("shell"))?];
        Ok(LogThread {
            files: LogFiles::new(Arc::clone(&links.disk), options.layout, options.flush, options.mark),
            published: Arc::clone(&links.published),
            outboxes: Outboxes::new(links.edges.clone(), Arc::clone(&links.control_output)),
            engine,
            driver,
            options,
            links,
            connections: Connections::default(),
            holds: Holds::default(),
            data_buffers,
            cluster: None,
            leader: None,
            followers: BTreeMap::new(),
            failed_leaders: Vec::new(),
            failed_openings: 0,
            places: Places::default(),
            put_aside: VecDeque::new(),
            handshakes: 0,
            strangers: Seldom::default(),
            proven: ProvenHosts::default(),
            stalling: None,
            buffer_registered: false,
            now: monotonic_now(),
            accept_at: None,
            ids: Vec::new(),
            actions: Vec::new(),
            elections_term: Term::ZERO,
            listener,
            watches,
            deferred: None,
            completions: Vec::new(),
            appends: 0,
            view_at: Ticks(0),
            stop_at: None,
        })
    }

    /// Runs until the thread is asked to stop.
    ///
    /// # Errors
    /// When there is no way on; the process must leave with [`LogThreadError::exit_status`].
    pub fn run(mut self) -> Result<(), LogThreadError> {
        let result = self.run_turns();
        if result.is_err() {
            // Letting go of the ring may take a while; nobody should take this node for a leader meanwhile.
            self.published.set_view(NodeView { role: Role::ShuttingDown, ..NodeView::default() });
        }
        result
    }

    fn run_turns(&mut self) -> Result<(), LogThreadError> {
        self.accept();
        while !self.has_stopped() {
            self.turn()?;
            let wait = self.wait();
            self.driver.enter(wait, &mut self.completions)?;
            self.published.counters.enters.store(self.driver.enters(), Ordering::Relaxed);
            self.stay_awake();
        }
        Ok(())
    }

    fn has_stopped(&self) -> bool {
        self.stop_at.is_some_and(|at| self.engine.is_quiet() || monotonic_now() >= at)
    }

    /// One turn: everything that arrived goes to the engine, everything that it decides becomes submissions.
    ///
    /// Whatever may close a link comes before the requests: bytes of the log buffer that the kernel still reads for a
    /// closed link are held by then, and no append overwrites them.
    fn turn(&mut self) -> Result<(), LogThreadError> {
        self.now = monotonic_now();
        self.engine.begin_turn(self.now, WallTime::from_system(SystemTime::now()).0);
        self.carry_out()?;
        for leader in std::mem::take(&mut self.failed_leaders) {
            self.engine.handle_leader_link(leader, false);
            self.carry_out()?;
        }
        self.go_on_with_handshakes()?;
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.handle_completion(completion)?;
            self.carry_out()?;
        }
        self.completions = completions;
        self.check_deadlines();
        self.take_inputs()?;
        self.feed_followers();
        self.take_requests();
        // The followers before the own disk: the way to them is the longer one.
        self.feed_followers();
        self.engine.handle_clock(monotonic_now());
        self.engine.end_turn();
        self.carry_out()?;
        self.feed_followers();
        // What goes out with the data: the commit position.
        self.carry_out()?;
        self.send_outboxes();
        self.publish();
        self.outboxes.flush();
        self.engine.report_stages(&self.published.stages);
        Ok(())
    }

    fn accept(&mut self) {
        if let Some(listener) = self.listener {
            self.driver.accept(listener, Tag::Accept.pack());
        }
    }

    fn take_inputs(&mut self) -> Result<(), LogThreadError> {
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.accept_at = None;
            self.accept();
        }
        let mut is_renewed = false;
        while !is_renewed && let Some(input) = self.links.shell_input.pop() {
            match input {
                ShellInput::ChunkReady { chunk, file } => {
                    self.files.add_chunk(&mut self.driver, chunk, file);
                    self.engine.handle_chunk_ready(chunk);
                }
                ShellInput::DiskFull(full) => self.engine.handle_disk_full(full),
                ShellInput::ChunkFailed(failed) => self.engine.handle_chunk_failed(failed),
                // It waits for the disk: one in a turn, for a chunk may have rotted all over.
                ShellInput::Renew(renewal) => {
                    self.files.renew(AtRest::of(&self.engine), renewal);
                    is_renewed = true;
                }
                ShellInput::Stop => {
                    self.stop_at.get_or_insert(self.now.after(STOP_PATIENCE));
                    self.engine.handle_stop();
                }
            }
        }
        while let Some(input) = self.links.control_input.pop() {
            self.engine.handle_control(input);
            self.carry_out()?;
        }
        self.carry_out()
    }

    fn take_requests(&mut self) {
        for taken in 0..REQUESTS_PER_TURN {
            let Some(request) = self.deferred.take().or_else(|| self.links.requests.pop()) else { return };
            if taken % REQUESTS_PER_LOOK == 0 {
                self.engine.handle_clock(monotonic_now());
            }
            if let Err(request) = self.engine.handle_request(request) {
                // There is no room for it: it comes first when something was written.
                self.deferred = Some(request);
                return;
            }
        }
    }

    fn publish(&mut self) {
        let (log_end, flushed, committed, readable) = self.engine.positions();
        self.published.set_positions(log_end, flushed, committed, readable);
        self.published.set_high_water(self.engine.high_water());
        self.published.counters.appends.store(self.appends, Ordering::Relaxed);
        if !self.followers.is_empty() && self.now.since(self.view_at) >= VIEW_INTERVAL {
            self.publish_view();
        }
    }

    pub(super) fn publish_view(&mut self) {
        self.view_at = self.now;
        self.published.set_view(self.engine.view());
    }

    /// How long the ring may wait; announces the sleep to the queues if it will.
    fn wait(&mut self) -> Wait {
        if !self.failed_leaders.is_empty() || !self.put_aside.is_empty() {
            return Wait::No;
        }
        // A deferred request waits for the disk or a follower, not for more requests.
        let may_sleep = (self.deferred.is_some() || self.links.requests.may_sleep())
            && self.links.control_input.may_sleep()
            && self.links.shell_input.may_sleep();
        if !may_sleep {
            return Wait::No;
        }
        for (watch, waker) in self.watches.iter_mut().zip([Waker::Requests, Waker::Control, Waker::Shell]) {
            if !std::mem::replace(&mut watch.armed, true) {
                self.driver.watch(watch.file, Tag::Wake(waker).pack());
            }
        }
        let mut span = SLEEP_MAX.min(self.engine.next_deadline().since(self.now));
        let deadlines = self.connections.iter().filter_map(|(_, connection)| connection.deadline);
        for deadline in deadlines.chain(self.accept_at).chain(self.stop_at) {
            span = span.min(deadline.since(self.now));
        }
        if self.deferred.is_some() || self.stalling.is_some() || self.outboxes.has_backlog() {
            span = span.min(RETRY_PAUSE);
        }
        if span.is_zero() { Wait::No } else { Wait::For(span) }
    }

    /// Nobody need wake this thread while it works.
    fn stay_awake(&self) {
        self.links.requests.stay_awake();
        self.links.control_input.stay_awake();
        self.links.shell_input.stay_awake();
    }

    pub(super) fn woken(&mut self, waker: Waker) {
        self.watches[waker as usize].armed = false;
    }

    /// Tells the background thread to have a chunk ready.
    pub(super) fn prepare_chunk(&mut self, chunk: u32) {
        (self.links.prepare_chunk)(chunk);
    }
}
