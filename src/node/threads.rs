//! The threads of a node, the queues between them, and the order in which they start and stop.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::admin::{
    ControlOptions, ControlQueues, ControlThread, IndexFigures, Locks, NodeStatus, SeedSource, StopSignal, routes,
};
use crate::api::users::Users;
use crate::api::{Checks, Edge, EdgeLinks, EdgeOptions, EdgeSockets, HeartbeatOptions};
use crate::background::{
    Background, Chore, ExpiryWatch, ExpiryWatchLinks, IndexKeeper, Repairer, RepairerLinks, RouteWatch,
    RouteWatchLinks, Scrubber, Sealer, UnsealedLinks, UnsealedScrubber,
};
use crate::codec::link::{Hello, Purpose};
use crate::config::{Config, Heartbeat, OnExt};
use crate::engine::{ClientCounters, EdgeMessage, Engine, EngineOptions, Published, Request};
use crate::gossip::{Directory, PeerRoutes, Standing};
use crate::index::{Index, Upkeep, UpkeepBounds, UpkeepLinks};
use crate::limits::{
    CONTROL_QUEUE_MESSAGES, EDGE_QUEUE_MESSAGES, LOG_BUFFER_BYTES, LOG_QUEUE_REQUESTS, REPLICATION_WINDOW_BYTES,
};
use crate::queue::Queue;
use crate::ring::{self, Way};
use crate::storage::{DamageReports, Preparer, PreparerReport, StorageFigures};
use crate::transport::{LogThread, LogThreadError, LogThreadLinks, LogThreadOptions, ShellInput, monotonic_now};
use crate::types::{Guid, LogPosition, WallTime};

use super::keys::Keys;
use super::numa::take_memory_near;
use super::sockets::Sockets;
use super::store::Store;
use super::{Event, NodeError, random_seed};

/// A leader's heartbeats in one election timeout: several may be lost or late before anyone stands for election.
const HEARTBEATS_PER_TIMEOUT: u32 = 7;

/// Unacknowledged bytes on a link for this many election timeouts: the link is dead.
const LINK_PATIENCE_TIMEOUTS: u32 = 4;

/// How long a stopping node waits for a thread.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What all threads share.
struct Shared {
    requests: Arc<Queue<Request>>,
    shell: Arc<Queue<ShellInput>>,
    control: ControlQueues,
    inboxes: Vec<Arc<Queue<EdgeMessage>>>,
    published: Arc<Published>,
    clients: Arc<ClientCounters>,
    directory: Directory,
    index: Arc<Index>,
    /// Damage to the committed log that somebody found.
    damage: DamageReports,
    storage: Arc<StorageFigures>,
    status: NodeStatus,
}

/// The running threads.
pub(super) struct Threads {
    shell: Arc<Queue<ShellInput>>,
    inboxes: Vec<Arc<Queue<EdgeMessage>>>,
    stop_control: StopSignal,
    preparer: Arc<Preparer>,
    background: Vec<Background>,
    log: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts all threads. What fails on a thread's own start comes as an [`Event::Ended`].
    pub(super) fn start(
        config: &Config,
        keys: &Keys,
        store: Store,
        sockets: Sockets,
        events: &Sender<Event>,
    ) -> Result<Threads, NodeError> {
        let shared = Shared::new(keys, &store, sockets.edges.len())?;
        watch_flushes(&store, events);
        let preparer = start_preparer(&store, Arc::clone(&shared.shell), config.background_cpus())?;
        let background = start_background(config, keys, &store, &shared)?;
        let stop_control = StopSignal::new();
        let control = spawn_control(config, keys, &store, &shared, sockets.int_http, &stop_control, events)?;
        let mut others = vec![control];
        for (index, edge_sockets) in sockets.edges.into_iter().enumerate() {
            others.push(spawn_edge(config, keys, &store, &shared, index, edge_sockets, events)?);
        }
        let log = spawn_log(config, keys, store, &shared, sockets.int_tcp, Arc::clone(&preparer), events)?;
        let (shell, inboxes) = (shared.shell, shared.inboxes);
        Ok(Threads { shell, inboxes, stop_control, preparer, background, log: Some(log), others })
    }

    /// How many say [`Event::Serving`].
    pub(super) fn count(&self) -> usize {
        self.others.len() + usize::from(self.log.is_some())
    }

    /// Stops in the order that loses nothing: leadership is handed over while clients are still served, then clients
    /// are told, then gossip ends.
    ///
    /// # Errors
    /// [`NodeError::Stuck`] for the first thread that does not end. What a thread ends with comes as an
    /// [`Event::Ended`], also now.
    pub(super) fn stop(&mut self) -> Result<(), NodeError> {
        tell(&self.shell, || ShellInput::Stop);
        let mut outcome = self.log.take().map_or(Ok(()), join);
        self.inboxes.iter().for_each(|inbox| tell(inbox, || EdgeMessage::ShutDown));
        self.stop_control.give();
        for thread in self.others.drain(..) {
            outcome = outcome.and(join(thread));
        }
        // The current step of each is waited for.
        self.background.clear();
        // The last handle on the preparer: dropping it stops its thread.
        tracing::debug!(handles = Arc::strong_count(&self.preparer), "the thread that prepares chunks stops");
        outcome
    }
}

/// Puts a message in although the queue may be full for a moment.
fn tell<T>(queue: &Queue<T>, message: impl Fn() -> T) {
    let deadline = Instant::now() + STOP_PATIENCE;
    while queue.send(message()).is_err() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a thread, but not for ever.
fn join(thread: JoinHandle<()>) -> Result<(), NodeError> {
    let deadline = Instant::now() + STOP_PATIENCE;
    let name = thread.thread().name().unwrap_or("?").to_owned();
    while !thread.is_finished() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    if !thread.is_finished() {
        tracing::warn!("the {name} thread does not end; leaving without it");
        return Err(NodeError::Stuck { thread: name, seconds: STOP_PATIENCE.as_secs() });
    }
    // A panic has printed itself, and sends no event.
    thread.join().map_err(|_| NodeError::Panicked { thread: name })
}

impl Shared {
    fn new(keys: &Keys, store: &Store, edges: usize) -> Result<Shared, NodeError> {
        let failed = |error: std::io::Error| NodeError::Thread { thread: "log", message: error.to_string() };
        let published: Arc<Published> = Arc::default();
        let clients: Arc<ClientCounters> = Arc::default();
        let directory = Directory::default();
        let index = Arc::clone(&store.index);
        let storage: Arc<StorageFigures> = Arc::default();
        let status = NodeStatus {
            node: store.state.node,
            published: Arc::clone(&published),
            clients: Arc::clone(&clients),
            index: Arc::new(Figures(Arc::clone(&index))),
            storage: Arc::clone(&storage),
            directory: directory.clone(),
            routes: PeerRoutes::default(),
            locks: Locks { plane: keys.plane.clone(), external: keys.external.clone(), ..Locks::default() },
            started: WallTime::from_system(SystemTime::now()),
            started_at: Instant::now(),
        };
        Ok(Shared {
            requests: Arc::new(Queue::for_ring(LOG_QUEUE_REQUESTS).map_err(failed)?),
            shell: Arc::new(Queue::for_ring(CONTROL_QUEUE_MESSAGES).map_err(failed)?),
            control: ControlQueues {
                to_log: Arc::new(Queue::for_ring(CONTROL_QUEUE_MESSAGES).map_err(failed)?),
                from_log: Arc::new(Queue::for_task(CONTROL_QUEUE_MESSAGES)),
            },
            inboxes: (0..edges).map(|_| Arc::new(Queue::for_task(EDGE_QUEUE_MESSAGES))).collect(),
            published,
            clients,
            directory,
            index,
            damage: DamageReports::default(),
            storage,
            status,
        })
    }
}

/// The index as `/stats` and gossip see it.
struct Figures(Arc<Index>);

impl IndexFigures for Figures {
    fn applied(&self) -> LogPosition {
        self.0.applied()
    }

    fn last_event_position(&self) -> Option<LogPosition> {
        self.0.last_event_position()
    }

    fn figures(&self) -> crate::index::IndexFigures {
        self.0.figures()
    }

    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }
}

/// Runs a thread. What it runs is given how to say that it serves, once.
fn spawn(
    name: String,
    thread: &'static str,
    events: &Sender<Event>,
    run: impl FnOnce(&dyn Fn()) -> Result<(), NodeError> + Send + 'static,
) -> Result<JoinHandle<()>, NodeError> {
    let events = events.clone();
    let body = move || {
        let serving = || drop(events.send(Event::Serving));
        let _ = events.send(Event::Ended(run(&serving)));
    };
    let failed = |error: std::io::Error| NodeError::Thread { thread, message: error.to_string() };
    thread::Builder::new().name(name).spawn(body).map_err(failed)
}

/// Pins the calling thread where the options say so.
fn pin(thread: &str, cpus: &[usize]) {
    if !cpus.is_empty()
        && let Err(error) = ring::pin_thread(cpus)
    {
        tracing::warn!(%error, ?cpus, "the {thread} thread cannot be pinned; it runs anywhere");
    }
}

/// Tells the log thread what it must not miss: a lost "room again" would leave the node read-only for ever. The queue is
/// short and emptied at each turn, so a full one is a matter of a moment.
fn insist(shell: &Queue<ShellInput>, mut input: ShellInput) {
    while let Err(back) = shell.send(input) {
        input = back;
        thread::sleep(Duration::from_millis(5));
    }
}

fn start_preparer(store: &Store, shell: Arc<Queue<ShellInput>>, cpus: Vec<usize>) -> Result<Arc<Preparer>, NodeError> {
    let report = move |report: PreparerReport| match report {
        PreparerReport::Ready { chunk, file } => {
            insist(&shell, ShellInput::ChunkReady { chunk, file });
        }
        PreparerReport::DiskFull { available, required, chunk } => {
            let what = chunk.map_or("the reserve".to_owned(), |chunk| format!("chunk {chunk}"));
            tracing::error!(
                available,
                required,
                "no disk space for {what}: writes are refused until there is room, reads go on"
            );
            insist(&shell, ShellInput::DiskFull(true));
        }
        PreparerReport::RoomAgain { available } => {
            tracing::info!(available, "there is disk space again: writes go on");
            insist(&shell, ShellInput::DiskFull(false));
        }
        PreparerReport::Failed { chunk, error } => {
            tracing::error!(?chunk, %error, "a chunk file cannot be prepared: writes are refused when the chunks that are \
                there are full, reads go on. It is tried again each second; check the disk and the directory");
            insist(&shell, ShellInput::ChunkFailed(true));
        }
        PreparerReport::WorksAgain => {
            tracing::info!("chunk files can be prepared again: writes go on");
            insist(&shell, ShellInput::ChunkFailed(false));
        }
    };
    let preparer = Preparer::start(Arc::clone(&store.disk), store.layout, cpus, report);
    preparer.map(Arc::new).map_err(|error| NodeError::Thread { thread: "chunk-preparer", message: error.to_string() })
}

/// A flush of the background thread that fails ends the node, as one of the log thread does.
fn watch_flushes(store: &Store, events: &Sender<Event>) {
    let events = Mutex::new(events.clone());
    store.disk.watch_flushes(move |name, error| {
        let source = std::io::Error::new(error.kind(), format!("{name}: {error}"));
        let _ = events.lock().send(Event::Ended(Err(NodeError::Disk { attempt: "flushed", source })));
    });
}

/// The work that nobody waits for: one chore after the other, and beside them the one that waits for other nodes.
fn start_background(
    config: &Config,
    keys: &Keys,
    store: &Store,
    shared: &Shared,
) -> Result<Vec<Background>, NodeError> {
    let sealer = Sealer::new(
        Arc::clone(&store.disk),
        store.layout,
        Arc::clone(&shared.published),
        shared.damage.clone(),
        Arc::clone(&shared.storage),
    );
    let repairer = Repairer::new(RepairerLinks {
        disk: Arc::clone(&store.disk),
        log: store.reader.clone(),
        node: store.state.node,
        published: Arc::clone(&shared.published),
        directory: shared.directory.clone(),
        damage: shared.damage.clone(),
        figures: Arc::clone(&shared.storage),
        has_peers: config.is_cluster(),
        way: internal_way(config),
        plane: keys.plane.clone(),
    });
    let scrubber = Scrubber::new(
        Arc::clone(&store.disk),
        store.layout,
        shared.damage.clone(),
        Arc::clone(&shared.storage),
        config.scrub_bytes_per_second,
    );
    let shell = Arc::clone(&shared.shell);
    let unsealed = UnsealedScrubber::new(UnsealedLinks {
        disk: Arc::clone(&store.disk),
        layout: store.layout,
        published: Arc::clone(&shared.published),
        damage: shared.damage.clone(),
        figures: Arc::clone(&shared.storage),
        bytes_per_second: config.scrub_bytes_per_second,
        // When the queue is full it is found again.
        ask: Box::new(move |renewal| drop(shell.send(ShellInput::Renew(renewal)))),
    });
    let index_keeper = index_keeper(store, shared);
    let cpus = config.background_cpus();
    let start = |thread: &'static str, chores| {
        Background::start(thread, &cpus, chores)
            .map_err(|error| NodeError::Thread { thread, message: error.to_string() })
    };
    let mut chores: Vec<Box<dyn Chore>> =
        vec![Box::new(sealer), Box::new(scrubber), Box::new(unsealed), Box::new(index_keeper)];
    chores.extend(route_watch(config, store, shared));
    chores.extend(expiry_watch(config, keys));
    Ok(vec![start("background", chores)?, start("repairer", vec![Box::new(repairer)])?])
}

/// Looks after the ends of certificates, and a plane that is open by intent; none where there is neither.
fn expiry_watch(config: &Config, keys: &Keys) -> Option<Box<dyn Chore>> {
    let is_open = keys.plane.is_open() && !keys.plane.may_listen_on(config.int_ip);
    let links = ExpiryWatchLinks {
        internal: keys.plane.trust().cloned(),
        external: keys.external.clone(),
        open_at: is_open.then_some(config.int_ip),
    };
    let is_needed = links.internal.is_some() || links.external.is_some() || is_open;
    is_needed.then(|| Box::new(ExpiryWatch::new(links)) as Box<dyn Chore>)
}

/// Looks after the routes to the other nodes; none where there are no others, or the kernel cannot be asked.
fn route_watch(config: &Config, store: &Store, shared: &Shared) -> Option<Box<dyn Chore>> {
    if !config.is_cluster() {
        return None;
    }
    let refused = |error: std::io::Error| {
        tracing::warn!(%error, "the kernel cannot be asked for routes: whether the traffic between the nodes takes the internal \
            device is not checked; allow netlink sockets (AF_NETLINK in RestrictAddressFamilies of a systemd unit)");
    };
    let source = ring::Routes::open().map_err(refused).ok()?;
    Some(Box::new(RouteWatch::new(RouteWatchLinks {
        source,
        node: store.state.node,
        int_ip: config.int_ip,
        device: config.int_device.clone(),
        seeds: config.gossip_seeds.clone(),
        directory: shared.directory.clone(),
        routes: shared.status.routes.clone(),
    })))
}

/// The upkeep of the index's tables.
fn index_keeper(store: &Store, shared: &Shared) -> IndexKeeper {
    let published = Arc::clone(&shared.published);
    let links = UpkeepLinks {
        index: Arc::clone(&shared.index),
        log: Box::new(store.reader.clone()),
        layout: store.layout,
        durable: Box::new(move || published.flushed()),
        damage: shared.damage.clone(),
    };
    IndexKeeper::new(Upkeep::new(links, UpkeepBounds::of(store.layout)))
}

fn spawn_control(
    config: &Config,
    keys: &Keys,
    store: &Store,
    shared: &Shared,
    listener: Option<std::net::TcpListener>,
    stop: &StopSignal,
    events: &Sender<Event>,
) -> Result<JoinHandle<()>, NodeError> {
    let state = &store.state;
    let standing = match (&state.founding, state.founded) {
        (Some(list), true) => Standing::Settled(list.clone()),
        (Some(list), false) => Standing::Accepted(list.clone()),
        (None, _) => Standing::Empty,
    };
    let options = ControlOptions {
        node: state.node,
        instance: Guid::random(),
        cluster_size: config.cluster_size,
        chunk_size: config.chunk_size_bytes,
        addresses: config.advertised(),
        ext_advertise: config.ext_advertise.clone(),
        way: internal_way(config),
        plane: keys.plane.clone(),
        priority: config.node_priority,
        read_only: config.read_only_replica,
        standing,
        seeds: seeds(config),
        gossip_interval: config.gossip_interval,
        gossip_timeout: config.gossip_timeout,
        gossip_allowed_difference: config.gossip_allowed_difference,
        settings: config.shared_settings(),
        log: store.reader.clone(),
        damage: shared.damage.clone(),
    };
    let (queues, status, stop) = (shared.control.clone(), shared.status.clone(), stop.clone());
    let cpus = config.control_cpus();
    spawn("control".to_owned(), "control", events, move |serving| {
        pin("control", &cpus);
        ControlThread::run(options, listener, queues, status, &stop, serving)
            .map_err(|error| NodeError::Thread { thread: "control", message: error.to_string() })
    })
}

/// Where gossip begins. A node that is alone gossips with nobody: its one seed, which v5 allows, may be itself.
fn seeds(config: &Config) -> SeedSource {
    if !config.is_cluster() {
        return SeedSource::default();
    }
    SeedSource {
        fixed: config.gossip_seeds.iter().map(ToString::to_string).collect(),
        dns: config.dns.as_ref().map(|dns| (dns.name.clone(), dns.gossip_port)),
    }
}

fn spawn_edge(
    config: &Config,
    keys: &Keys,
    store: &Store,
    shared: &Shared,
    index: usize,
    sockets: EdgeSockets,
    events: &Sender<Event>,
) -> Result<JoinHandle<()>, NodeError> {
    let heartbeat =
        |heartbeat: Heartbeat| HeartbeatOptions { interval: heartbeat.interval, timeout: heartbeat.timeout };
    let number = u16::try_from(index).expect("at most 256 edges");
    let options = EdgeOptions {
        client_heartbeat: heartbeat(config.ext_tcp_heartbeat),
        internal_heartbeat: heartbeat(config.int_tcp_heartbeat),
        way: internal_way(config),
        plane: keys.plane.clone(),
        external: keys.external.clone(),
        ..EdgeOptions::new(number, config.append_size_max_bytes)
    };
    let (status, on_ext) = (shared.status.clone(), on_ext(config));
    let links = EdgeLinks {
        log_queue: Arc::clone(&shared.requests),
        inbox: Arc::clone(&shared.inboxes[index]),
        published: Arc::clone(&shared.published),
        directory: shared.directory.clone(),
        index: Arc::clone(&shared.index),
        log: Arc::new(store.reader.clone()),
        layout: store.layout,
        checks: Checks::new(shared.damage.clone(), config.is_cluster()),
        users: Arc::new(Users::default()),
        counters: Arc::clone(&shared.clients),
        routes: Arc::new(move |request, client| routes::external(&status, on_ext, request, client)),
        forward_hello: forward_hello(store, shared, keys.plane.secret().is_some()),
    };
    let cpus = config.edge_cpus(index);
    spawn(format!("edge-{index}"), "edge", events, move |serving| {
        pin("edge", &cpus);
        Edge::run(options, links, sockets, serving)
            .map_err(|error| NodeError::Thread { thread: "edge", message: error.to_string() })
    })
}

/// The greeting of forward links. The cluster may become known only while the node runs.
fn forward_hello(store: &Store, shared: &Shared, secret: bool) -> Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync> {
    let (node, chunk_size) = (store.state.node, store.layout.chunk_size);
    let published = Arc::clone(&shared.published);
    Arc::new(move || {
        let view = published.view();
        let hello = Hello {
            purpose: Purpose::Forward,
            cluster: view.cluster?,
            node,
            term: view.term,
            subscription: Guid::ZERO,
            start: LogPosition::ZERO,
            chunk_size,
            secret,
        };
        Some(hello.encode().to_vec())
    })
}

fn spawn_log(
    config: &Config,
    keys: &Keys,
    store: Store,
    shared: &Shared,
    listener: Option<std::os::fd::OwnedFd>,
    preparer: Arc<Preparer>,
    events: &Sender<Event>,
) -> Result<JoinHandle<()>, NodeError> {
    let election_timeout = config.int_tcp_heartbeat.timeout;
    let Store { disk, layout, state, recovered, index, .. } = store;
    let engine_options = EngineOptions {
        layout,
        log_buffer_bytes: LOG_BUFFER_BYTES,
        election_timeout,
        heartbeat_interval: election_timeout / HEARTBEATS_PER_TIMEOUT,
        priority: config.node_priority,
        seed: random_seed(),
        chunks_ready: recovered.chunk_count,
        window_bytes: REPLICATION_WINDOW_BYTES,
        #[cfg(test)]
        planted: None,
    };
    let options = LogThreadOptions {
        layout,
        mark: recovered.mark,
        flush: !config.unsafe_disable_flush_to_disk,
        way: internal_way(config),
        plane: keys.plane.clone(),
        busy_poll_us: config.int_busy_poll_us,
        zero_copy: true,
        cpus: config.log_cpus(),
    };
    let links = LogThreadLinks {
        requests: Arc::clone(&shared.requests),
        control_input: Arc::clone(&shared.control.to_log),
        shell_input: Arc::clone(&shared.shell),
        control_output: Arc::clone(&shared.control.from_log),
        edges: shared.inboxes.clone(),
        published: Arc::clone(&shared.published),
        directory: shared.directory.clone(),
        disk,
        damage: shared.damage.clone(),
        prepare_chunk: Box::new(move |chunk| preparer.need(chunk)),
    };
    let device = config.int_device.clone();
    spawn("ring-log".to_owned(), "log", events, move |serving| {
        // Before the log buffer and the receive buffers are made.
        if let Some(device) = &device {
            take_memory_near(device);
        }
        let failed = |error: LogThreadError| NodeError::Log(error);
        let engine = Engine::new(engine_options, state, recovered, index, monotonic_now())
            .map_err(|error| NodeError::Thread { thread: "log", message: format!("no log buffer: {error}") })?;
        let thread = LogThread::new(options, links, engine, listener).map_err(failed)?;
        serving();
        thread.run().map_err(failed)
    })
}

/// What the clients' HTTP port serves.
fn on_ext(config: &Config) -> routes::OnExt {
    let OnExt { admin, stats, gossip } = config.on_ext;
    routes::OnExt { admin, stats, gossip }
}

/// Connections to other nodes leave from the internal address, so that they take the internal network (from any address
/// where the node listens on all), and by its device where there is one.
pub(super) fn internal_way(config: &Config) -> Way {
    Way {
        from: Some(config.int_ip).filter(|ip| !ip.is_unspecified()),
        device: config.int_device.as_deref().map(Arc::from),
        patience: Some(config.int_tcp_heartbeat.timeout * LINK_PATIENCE_TIMEOUTS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_internal_way_is_that_of_the_options() {
        let config = Config {
            int_ip: "10.0.0.1".parse().unwrap(),
            int_device: Some("eth1".to_owned()),
            int_tcp_heartbeat: Heartbeat { interval: Duration::from_millis(700), timeout: Duration::from_millis(700) },
            ..Config::default()
        };
        let way = internal_way(&config);
        assert_eq!((way.from, way.device.as_deref()), (Some(config.int_ip), Some("eth1")));
        assert_eq!(way.patience, Some(Duration::from_millis(2800)), "tied to the election timeout");
        assert_eq!(internal_way(&Config { int_ip: "::".parse().unwrap(), ..config }).from, None);
    }
}
