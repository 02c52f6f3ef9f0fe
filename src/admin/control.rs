//! The control thread itself: its state, its rounds, and what the log thread asks of it.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::gate::LineLimit;
use super::log_bytes::LogBytes;
use super::options::{self, ControlError, ControlOptions, ControlQueues, StopSignal};
use super::pending::{Answered, Pending};
use super::routes::shortened;
use super::status::{NodeStatus, wall_now};
use super::{seeds, server};
use crate::codec::record::MembershipBody;
use crate::consensus::{TransferRequest, Versioned, VoteRequest, VoteResponse};
use crate::engine::{ControlInput, ControlOutput};
use crate::gossip::{EXCHANGE_MAX_BYTES, Exchange, Gossip, GossipOptions, Standing, Step};
use crate::http::{CallError, Client, Method};
use crate::types::{ClusterId, NodeId, Ticks};

/// A vote that takes longer is none: the candidate will try again before that.
pub(super) const VOTE_TIMEOUT: Duration = Duration::from_millis(500);
/// Making an acceptance durable takes a flush; after this time it is asked for again.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the founding looks at the world until there is a cluster.
const FOUNDING_PAUSE: Duration = Duration::from_millis(50);
/// How soon something that the log thread must be told, and had no room for, is told again.
const SEND_PAUSE: Duration = Duration::from_millis(10);
/// Where the thread's clock starts. Gossip compares with times before the node's start; they must not be below zero.
const CLOCK_START: Duration = Duration::from_secs(3600);
/// Submission entries of the ring: a few for each connection.
const RING_ENTRIES: u32 = 256;

/// The control thread.
#[derive(Clone, Copy, Debug)]
pub struct ControlThread;

impl ControlThread {
    /// Runs the control thread on the calling thread until `stop` is given. `listener` is the internal HTTP listener;
    /// a cluster of one may have none. `status.directory` is filled before the first connection is taken, and `serving` is
    /// called when connections are.
    ///
    /// # Errors
    /// See [`ControlError`]; only at the start.
    pub fn run(
        options: ControlOptions,
        listener: Option<TcpListener>,
        queues: ControlQueues,
        status: NodeStatus,
        stop: &StopSignal,
        serving: &dyn Fn(),
    ) -> Result<(), ControlError> {
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build()
            .map_err(|source| ControlError::Runtime { source })?;
        runtime.block_on(async {
            let listener = options::listener(listener)?;
            let (seeds, plane) = (options.seeds.clone(), options.plane.clone());
            let control = Rc::new(Control::new(options, queues, status));
            control.pump();
            monoio::spawn(Rc::clone(&control).hear_log_thread());
            monoio::spawn(Rc::clone(&control).keep_rounds());
            monoio::spawn(seeds::keep_looking(Rc::clone(&control), seeds));
            if let Some(listener) = listener {
                monoio::spawn(server::accept(Rc::clone(&control), listener, plane));
            }
            serving();
            stop.given().await;
            Ok(())
        })
    }
}

/// What the tasks of the control thread share.
pub(super) struct Control {
    pub(super) status: NodeStatus,
    pub(super) pending: Pending,
    pub(super) log_bytes: LogBytes,
    pub(super) gossip: RefCell<Gossip>,
    /// `ClusterSize` is 1: no other node has a say here, nor a place.
    pub(super) is_alone: bool,
    /// What all nodes should have alike.
    pub(super) settings: Vec<(&'static str, u64)>,
    client: Client,
    /// Lines about nodes that refuse this one, or are refused.
    refusals: RefCell<LineLimit>,
    queues: ControlQueues,
    gossip_timeout: Duration,
    started_at: Instant,
}

impl Control {
    fn new(options: ControlOptions, queues: ControlQueues, status: NodeStatus) -> Control {
        let gossip_options = GossipOptions {
            node: options.node,
            instance: options.instance,
            cluster_size: options.cluster_size,
            chunk_size: options.chunk_size,
            addresses: options.addresses,
            ext_advertise: options.ext_advertise,
            priority: options.priority,
            read_only: options.read_only,
            interval: options.gossip_interval,
            allowed_difference: options.gossip_allowed_difference,
            standing: options.standing,
            random_seed: u64::from_le_bytes(options.instance.0[..8].try_into().expect("eight bytes")),
        };
        let is_alone = options.cluster_size == 1;
        let now = Ticks::default().after(CLOCK_START);
        let published = Arc::clone(&status.published);
        Control {
            log_bytes: LogBytes::new(options.log, options.damage, published),
            status,
            pending: Pending::default(),
            gossip: RefCell::new(Gossip::new(gossip_options, now, wall_now())),
            is_alone,
            client: Client::new(EXCHANGE_MAX_BYTES).by(options.way, options.plane.clone()),
            refusals: RefCell::default(),
            settings: options.settings,
            queues,
            gossip_timeout: options.gossip_timeout,
            started_at: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Ticks {
        Ticks::default().after(CLOCK_START + self.started_at.elapsed())
    }

    /// Hands something to the log thread; false when there is no room.
    pub(super) fn tell_log_thread(&self, input: ControlInput) -> bool {
        self.queues.to_log.send(input).is_ok()
    }

    pub(super) fn set_seeds(self: &Rc<Control>, addresses: &[SocketAddr]) {
        self.gossip.borrow_mut().set_seeds(addresses);
        self.pump();
    }

    /// Another node's post: the answer, or why not.
    pub(super) fn handle_gossip(self: &Rc<Control>, exchange: &Exchange) -> Result<Exchange, String> {
        let now = self.now();
        self.gossip.borrow_mut().handle_request(now, wall_now(), exchange)?;
        self.pump();
        Ok(self.gossip.borrow().exchange(now))
    }

    /// Carries out what gossip wants now, and shows what it knows. Called after everything that changes it.
    pub(super) fn pump(self: &Rc<Control>) {
        let now = self.now();
        let report = self.status.report();
        let (steps, calls, notices) = {
            let mut gossip = self.gossip.borrow_mut();
            gossip.refresh(wall_now(), report);
            let steps = match gossip.standing() {
                Standing::Settled(_) => Vec::new(),
                Standing::Empty | Standing::Accepted(_) => gossip.poll_founding(now, ClusterId::random()),
            };
            (steps, gossip.poll_calls(now), gossip.poll_notices())
        };
        notices.iter().for_each(|words| tracing::warn!("gossip: {words}"));
        steps.into_iter().for_each(|step| self.found(step));
        for address in calls {
            monoio::spawn(Rc::clone(self).exchange_with(address));
        }
        self.hint_at_leader(now);
        self.show();
    }

    /// Tells the log thread of a leader that it does not follow yet. What finds no room is said at the next round.
    fn hint_at_leader(&self, now: Ticks) {
        let Some((leader, term)) = self.gossip.borrow().leader_hint(now) else { return };
        if self.status.published.view().leader != Some(leader) {
            self.tell_log_thread(ControlInput::LeaderSeen { leader, term });
        }
    }

    /// Freshens the document and the directory.
    pub(super) fn show(&self) {
        let (now, gossip) = (self.now(), self.gossip.borrow());
        self.status.directory.replace(gossip.nodes(now), gossip.document(now));
    }

    /// The rounds, for ever.
    async fn keep_rounds(self: Rc<Control>) {
        loop {
            self.pump();
            let pause = {
                let gossip = self.gossip.borrow();
                let next_round = gossip.next_round().since(self.now());
                match gossip.standing() {
                    Standing::Settled(_) => next_round,
                    Standing::Empty | Standing::Accepted(_) => next_round.min(FOUNDING_PAUSE),
                }
            };
            monoio::time::sleep(pause.max(Duration::from_millis(1))).await;
        }
    }

    async fn exchange_with(self: Rc<Control>, address: SocketAddr) {
        let body = Bytes::from(self.gossip.borrow().exchange(self.now()).encode());
        let result = self.client.call(address, Method::Post, "/gossip", body, self.gossip_timeout).await;
        let now = self.now();
        match result {
            Ok(response) if response.status == 200 => match Exchange::parse(&response.body) {
                Ok(exchange) => self.gossip.borrow_mut().handle_answer(now, wall_now(), address, &exchange),
                Err(error) => {
                    self.gossip.borrow_mut().handle_failure(now, address, Some(&shortened(&error.to_string())));
                }
            },
            Ok(response) => {
                let words = shortened(String::from_utf8_lossy(&response.body).trim());
                let words = format!("status {}: {words}", response.status);
                self.gossip.borrow_mut().handle_failure(now, address, Some(&words));
            }
            Err(error) => {
                self.note_failure(address, &error);
                self.gossip.borrow_mut().handle_failure(now, address, None);
            }
        }
        self.pump();
    }

    /// A node that is gone is gossip's own to tell; one that does not let this one in, or is not let in, is the operator's.
    fn note_failure(&self, address: SocketAddr, error: &CallError) {
        let is_due = || self.refusals.borrow_mut().note(std::time::Instant::now(), address.ip()).is_some();
        if error.is_about_trust() && is_due() {
            tracing::warn!("gossip with {address} failed: {error}");
        } else {
            tracing::debug!("gossip with {address} failed: {error}");
        }
    }

    fn found(self: &Rc<Control>, step: Step) {
        match step {
            Step::Accept(list) => {
                tracing::info!("founding: accepting the member list of cluster {}", list.cluster);
                monoio::spawn(Rc::clone(self).accept(list));
            }
            Step::Found(list) => {
                tracing::info!("founding: all members have accepted, cluster {} is founded", list.cluster);
                monoio::spawn(Rc::clone(self).insist(ControlInput::Founded { list }));
            }
            Step::Join(list) => {
                tracing::info!("this node is not a member of cluster {}: it joins as a clone", list.cluster);
                monoio::spawn(Rc::clone(self).insist(ControlInput::JoinAsClone { list }));
            }
            Step::Warn(words) => tracing::warn!("founding: {words}"),
        }
    }

    async fn accept(self: Rc<Control>, list: MembershipBody) {
        let wait = self.pending.open();
        let told = self.tell_log_thread(ControlInput::AcceptFounding { token: wait.token, list });
        let answer = if told { wait.answer(ACCEPT_TIMEOUT).await } else { None };
        let done = match answer {
            Some(Answered::Done(Ok(()))) => true,
            Some(Answered::Done(Err(words))) => {
                tracing::warn!("founding: the acceptance could not be made durable: {words}; trying again");
                false
            }
            _ => {
                tracing::warn!("founding: the log thread has not made the acceptance durable yet; asking again");
                false
            }
        };
        self.gossip.borrow_mut().handle_accepted(self.now(), done);
        self.pump();
    }

    /// Tells the log thread what it must know, as soon as there is room.
    async fn insist(self: Rc<Control>, input: ControlInput) {
        while !self.tell_log_thread(input.clone()) {
            monoio::time::sleep(SEND_PAUSE).await;
        }
    }

    /// Carries out what the log thread asks, for ever.
    async fn hear_log_thread(self: Rc<Control>) {
        loop {
            while let Some(output) = self.queues.from_log.pop() {
                self.handle_output(output);
            }
            self.queues.from_log.ready().await;
        }
    }

    fn handle_output(self: &Rc<Control>, output: ControlOutput) {
        match output {
            ControlOutput::VoteAnswer { token, response } => self.pending.answer(token, Answered::Vote(response)),
            ControlOutput::Answer { token, result } => self.pending.answer(token, Answered::Done(result)),
            ControlOutput::SendVote { to, pre, request } => {
                monoio::spawn(Rc::clone(self).ask_for_vote(to, pre, request));
            }
            ControlOutput::SendTransfer { to, request } => {
                monoio::spawn(Rc::clone(self).ask_to_take_over(to, request));
            }
            ControlOutput::ViewChanged => {
                self.gossip.borrow_mut().spread();
                self.pump();
            }
            ControlOutput::MembersChanged(list) => {
                self.gossip.borrow_mut().handle_members_changed(list);
                self.pump();
            }
        }
    }

    async fn ask_for_vote(self: Rc<Control>, to: NodeId, pre: bool, request: VoteRequest) {
        let path = if pre { "/elections/pre-vote" } else { "/elections/vote" };
        let body = serde_json::to_vec(&Versioned::new(request)).expect("a vote request has a JSON form");
        let response = self.post_to(to, path, body).await.map_err(|no_answer| no_answer.words).and_then(|body| {
            let response: Versioned<VoteResponse> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let response = response.check()?;
            // An address may have gone to another node meanwhile; its vote would be counted as that of `to`.
            if response.voter == to { Ok(response) } else { Err(format!("node {} answered instead", response.voter)) }
        });
        if let Err(words) = &response {
            tracing::debug!("no vote from {to}: {words}");
        }
        let answered = ControlInput::VoteAnswered { from: to, pre, term: request.term, response: response.ok() };
        if !self.tell_log_thread(answered) {
            tracing::warn!("an answer from {to} was lost: the log thread is too busy; the election will be repeated");
        }
    }

    async fn ask_to_take_over(self: Rc<Control>, to: NodeId, request: TransferRequest) {
        let term = request.term;
        let body = serde_json::to_vec(&Versioned::new(request)).expect("a transfer request has a JSON form");
        match self.post_to(to, "/elections/transfer", body).await {
            Ok(_) => tracing::info!("node {to} was asked to take over and agreed"),
            Err(NoAnswer { is_refusal, words: reason }) => {
                tracing::warn!("node {to} was asked to take over and did not, as far as is known: {reason}");
                // If this gets lost the hand-over ends by its own deadline.
                self.tell_log_thread(ControlInput::TransferDeclined { from: to, term, is_refusal, reason });
            }
        }
    }

    /// Posts to a node.
    async fn post_to(&self, to: NodeId, path: &str, body: Vec<u8>) -> Result<Bytes, NoAnswer> {
        let address = self.gossip.borrow().address_of(to);
        let unsaid = |words| NoAnswer { is_refusal: false, words };
        let address = address.ok_or_else(|| unsaid("its address is not known".to_owned()))?;
        let response = self.client.call(address, Method::Post, path, body.into(), VOTE_TIMEOUT).await;
        match response {
            Ok(response) if response.status == 200 => Ok(response.body),
            Ok(response) => {
                let words = shortened(String::from_utf8_lossy(&response.body).trim());
                // Server errors leave open what becomes of the request.
                let is_refusal = (400..500).contains(&response.status);
                Err(NoAnswer { is_refusal, words: format!("{address} answered {}: {words}", response.status) })
            }
            Err(error) => Err(unsaid(error.to_string())),
        }
    }
}

/// Why a node did not do what it was asked.
struct NoAnswer {
    /// It said that it does not; else nobody knows.
    is_refusal: bool,
    /// For people.
    words: String,
}
