//! One edge thread: what it is given, what it keeps, and its life from the first accept to the last flush.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use monoio::io::{CancelHandle, Canceller};

use crate::api::accept;
use crate::api::connection::{CLOSE_TIMEOUT, SendBudget};
use crate::api::forward::Forwarder;
use crate::api::heartbeat::HeartbeatOptions;
use crate::api::http::HttpRoutes;
use crate::api::inbox;
use crate::api::log_events::Checks;
use crate::api::pending::Pending;
use crate::api::receive::ReceiveBudget;
use crate::api::session::Session;
use crate::api::slab::Slab;
use crate::api::spares::Spares;
use crate::api::subscribing;
use crate::api::subscription::Subscriptions;
use crate::api::sweep;
use crate::api::turn::{self, Handed, Tally, Turn};
use crate::api::users::Users;
use crate::api::work::{Outcome, Work};
use crate::engine::{AnswerTimes, ClientCounters, EdgeMessage, Published, Request};
use crate::gossip::Directory;
use crate::index::Index;
use crate::limits::{
    EDGE_CONNECTIONS_MAX, EDGE_HANDSHAKE_TIMEOUT, EDGE_PENDING_BYTES, EDGE_PENDING_REQUESTS, EDGE_RECEIVE_BYTES,
};
use crate::queue::Queue;
use crate::ring::{RingError, Way};
use crate::security::{ExternalTrust, Plane, Seldom};
use crate::storage::{ChunkLayout, LogRead};
use crate::types::LogPosition;

/// Settings of an edge.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Its number: the `edge` of its tickets.
    pub index: u16,
    /// Heartbeats with clients.
    pub client_heartbeat: HeartbeatOptions,
    /// Heartbeats with the edges of other nodes.
    pub internal_heartbeat: HeartbeatOptions,
    /// Bytes of names, types, data and metadata that one write may have.
    pub append_size_max: u64,
    /// Time for a write to be committed, then the client is told that it is not known.
    pub commit_timeout: Duration,
    /// Time for the leader to answer a forwarded request.
    pub forward_timeout: Duration,
    /// Bytes of all large receive buffers together.
    pub receive_bytes: usize,
    /// How connections to the leader are made.
    pub way: Way,
    /// How the internal plane is closed.
    pub plane: Plane,
    /// What clients are shown at the ports with TLS.
    pub external: Option<Arc<ExternalTrust>>,
    /// Time for the handshake with a client at such a port.
    pub handshake_timeout: Duration,
}

impl EdgeOptions {
    /// v5's times for edge number `index`.
    #[must_use]
    pub fn new(index: u16, append_size_max: u64) -> EdgeOptions {
        let heartbeat = |interval, timeout| HeartbeatOptions {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
        };
        EdgeOptions {
            index,
            client_heartbeat: heartbeat(2000, 1000),
            internal_heartbeat: heartbeat(700, 700),
            append_size_max,
            commit_timeout: Duration::from_secs(2),
            forward_timeout: Duration::from_millis(4300),
            receive_bytes: EDGE_RECEIVE_BYTES,
            way: Way::default(),
            plane: Plane::Open,
            external: None,
            handshake_timeout: EDGE_HANDSHAKE_TIMEOUT,
        }
    }
}

/// What an edge shares with the rest of the node.
#[derive(Clone)]
pub struct EdgeLinks {
    /// To the log thread.
    pub log_queue: Arc<Queue<Request>>,
    /// From everyone to this edge; its receiver is a task.
    pub inbox: Arc<Queue<EdgeMessage>>,
    /// The log thread's view.
    pub published: Arc<Published>,
    /// Addresses of the other nodes.
    pub directory: Directory,
    /// Where events are.
    pub index: Arc<Index>,
    /// The log's bytes.
    pub log: Arc<dyn LogRead + Send + Sync>,
    /// How the log is cut.
    pub layout: ChunkLayout,
    /// What reads find out about the log's records.
    pub checks: Checks,
    /// Who may log in.
    pub users: Arc<Users>,
    /// For `/stats`.
    pub counters: Arc<ClientCounters>,
    /// Answers HTTP requests.
    pub routes: HttpRoutes,
    /// The first bytes on a connection to the leader's internal port, to be made when it is opened; `None` while this
    /// node is in no cluster.
    pub forward_hello: Arc<dyn Fn() -> Option<Vec<u8>> + Send + Sync>,
}

/// The sockets of one edge, from [`listeners`](crate::api::listeners).
#[derive(Debug, Default)]
pub struct EdgeSockets {
    /// External TCP; none with `DisableInsecureTCP`.
    pub tcp: Vec<TcpListener>,
    /// External HTTP.
    pub http: Vec<TcpListener>,
    /// External TCP inside TLS. These and the next need [`EdgeOptions::external`].
    pub secure_tcp: Vec<TcpListener>,
    /// External HTTPS.
    pub secure_http: Vec<TcpListener>,
}

/// An edge cannot work. Nothing to retry: the node must stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// No runtime.
    #[error("edge {edge} cannot set up io_uring: {}", RingError::refused(source))]
    Runtime {
        /// Its number.
        edge: u16,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A listener cannot be used.
    #[error("edge {edge} cannot use its listening socket: {source}")]
    Listener {
        /// Its number.
        edge: u16,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// An edge thread.
#[derive(Debug)]
pub struct Edge;

impl Edge {
    /// Serves clients on the calling thread until [`EdgeMessage::ShutDown`] comes, and then takes at most a few seconds
    /// to say goodbye. `serving` is called when connections are taken.
    ///
    /// # Errors
    /// Only at the start; see [`EdgeError`].
    pub fn run(
        options: EdgeOptions,
        links: EdgeLinks,
        sockets: EdgeSockets,
        serving: &dyn Fn(),
    ) -> Result<(), EdgeError> {
        let edge = options.index;
        // What completes waits until this thread enters the kernel anyway, instead of interrupting it.
        let mut rings = io_uring_of_monoio::IoUring::builder();
        rings.setup_coop_taskrun().setup_single_issuer();
        let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
        let builder = builder.uring_builder(rings).with_entries(1024).enable_timer();
        let mut runtime = builder.build().map_err(|source| EdgeError::Runtime { edge, source })?;
        runtime.block_on(EdgeState::new(options, links).live(sockets, serving))
    }
}

/// Everything that the tasks of one edge share.
pub(super) struct EdgeState {
    pub(super) options: EdgeOptions,
    pub(super) links: EdgeLinks,
    pub(super) turn: Cell<Turn>,
    pub(super) tally: Rc<Tally>,
    pub(super) handed: Handed,
    pub(super) spares: RefCell<Spares>,
    pub(super) pending: RefCell<Pending<Work, Outcome>>,
    pub(super) sessions: RefCell<Slab<Rc<Session>>>,
    pub(super) forwarder: Forwarder,
    pub(super) subscriptions: RefCell<Subscriptions>,
    /// How many of them the common counter has.
    pub(super) subscriptions_counted: Cell<usize>,
    /// False when the index may have applied more than the subscriptions have seen.
    pub(super) is_fed: Cell<bool>,
    pub(super) feed_waker: Cell<Option<Waker>>,
    /// Where the index stood when its last error was logged.
    pub(super) index_stuck_at: Cell<Option<LogPosition>>,
    pub(super) budget: ReceiveBudget,
    pub(super) sending: SendBudget,
    pub(super) http_connections: Cell<usize>,
    /// Connections on the TCP port with TLS whose handshake is under way.
    pub(super) greeting: Cell<usize>,
    /// About strangers at the ports with TLS.
    pub(super) refusals: Seldom,
    pub(super) stopping: Cell<bool>,
    /// Writes answered since the stages were told.
    pub(super) answered: RefCell<AnswerTimes>,
    accepting: RefCell<Option<Canceller>>,
}

impl EdgeState {
    pub(super) fn new(options: EdgeOptions, links: EdgeLinks) -> Rc<EdgeState> {
        let budget = ReceiveBudget::new(options.receive_bytes);
        Rc::new(EdgeState {
            turn: Cell::new(Turn::new(&links.published)),
            tally: Rc::new(Tally::new(Arc::clone(&links.counters))),
            handed: Handed::default(),
            spares: RefCell::default(),
            options,
            links,
            pending: RefCell::new(Pending::new(EDGE_PENDING_REQUESTS, EDGE_PENDING_BYTES)),
            sessions: RefCell::new(Slab::new(EDGE_CONNECTIONS_MAX)),
            forwarder: Forwarder::default(),
            subscriptions: RefCell::default(),
            subscriptions_counted: Cell::new(0),
            is_fed: Cell::new(true),
            feed_waker: Cell::new(None),
            index_stuck_at: Cell::new(None),
            budget,
            sending: SendBudget::default(),
            http_connections: Cell::new(0),
            greeting: Cell::new(0),
            refusals: Seldom::default(),
            stopping: Cell::new(false),
            answered: RefCell::default(),
            accepting: RefCell::new(Some(Canceller::new())),
        })
    }

    /// The handle that an accept is cancelled by; `None` when there is nothing more to accept.
    pub(super) fn accept_handle(&self) -> Option<CancelHandle> {
        self.accepting.borrow().as_ref().map(Canceller::handle)
    }

    pub(super) fn session(&self, key: u64) -> Option<Rc<Session>> {
        self.sessions.borrow().get(key).cloned()
    }

    async fn live(self: Rc<EdgeState>, sockets: EdgeSockets, serving: &dyn Fn()) -> Result<(), EdgeError> {
        let edge = self.options.index;
        let open = |listener| {
            monoio::net::TcpListener::from_std(listener).map_err(|source| EdgeError::Listener { edge, source })
        };
        let mut accepting = Vec::new();
        for listener in sockets.tcp {
            accepting.push(monoio::spawn(accept::accept_clients(Rc::clone(&self), open(listener)?)));
        }
        for listener in sockets.http {
            accepting.push(monoio::spawn(accept::accept_http(Rc::clone(&self), open(listener)?)));
        }
        for listener in sockets.secure_tcp {
            accepting.push(monoio::spawn(accept::accept_secure_clients(Rc::clone(&self), open(listener)?)));
        }
        for listener in sockets.secure_http {
            accepting.push(monoio::spawn(accept::accept_https(Rc::clone(&self), open(listener)?)));
        }
        monoio::spawn(turn::hand_over(Rc::clone(&self)));
        monoio::spawn(sweep::run(Rc::clone(&self)));
        monoio::spawn(subscribing::feed(Rc::clone(&self)));
        serving();
        inbox::run(Rc::clone(&self)).await;
        self.stop().await;
        for task in accepting {
            task.await;
        }
        Ok(())
    }

    /// Says goodbye: subscribers are told, what waits is flushed, and whoever does not take it in time is cut.
    async fn stop(&self) {
        self.stopping.set(true);
        if let Some(canceller) = self.accepting.borrow_mut().take() {
            drop(canceller.cancel());
        }
        self.drop_subscriptions();
        self.forwarder.stop();
        let sessions: Vec<_> = self.sessions.borrow().iter().map(|(_, session)| Rc::clone(session)).collect();
        for session in &sessions {
            session.connection.close();
        }
        // The sweep cuts those that do not take their last bytes; a little later nobody is left.
        let until = Instant::now() + CLOSE_TIMEOUT + Duration::from_millis(500);
        while !self.sessions.borrow().is_empty() && Instant::now() < until {
            monoio::time::sleep(Duration::from_millis(10)).await;
        }
        self.tell_figures();
    }
}
