//! A node: an engine, its disk and index, and the shell that the log thread is in the real server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use crate::consensus::Message;
use crate::engine::{Action, BufferToken, ControlInput, Engine, Request, SendPlan};
use crate::index::Index;
use crate::storage::ChunkLayout;
use crate::types::{Guid, LogPosition, NodeId, Term, Ticks};

use super::Checker;
use super::agenda::{MILLISECOND, Moment};
use super::calls::{AskedTransfer, AskedVote};
use super::checks::Watched;
use super::disk::VirtualDisk;
use super::edge::Waiting;
use super::io::{Io, Token};
use super::links::{Kind, Packet};
use super::sealing::Sealing;
use super::tables::{Keeper, VirtualFolder};
use super::world::{Event, World};

/// 100 ns ticks since year 1 at the start of a run.
const WALL_CLOCK_START: i64 = 639_000_000_000_000_000;

/// What waits for a node's next turn.
#[derive(Debug)]
pub(super) enum Input {
    Control(ControlInput),
    Packet { link: u64, packet: Packet },
    Written { id: u64 },
    Flushed { id: u64 },
    Saved { sequence: u64 },
    ChunkReady { chunk: u32 },
    DiskFull { full: bool },
    Request(Request),
    Sent { send: u64 },
    Stop,
}

/// A monotonic clock that runs a little too fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    base: i64,
    parts_per_million: i64,
}

impl Clock {
    pub(super) fn ticks(&self, now: Moment) -> Ticks {
        let now = now as i64;
        Ticks((self.base + now + now / 1_000 * self.parts_per_million / 1_000) as u64)
    }

    /// The first moment at which the clock has reached `ticks`, or a little later.
    fn moment(&self, ticks: Ticks) -> Option<Moment> {
        let span = i64::try_from(ticks.0).ok()?.checked_sub(self.base)?.max(0);
        Some((span - span / 1_000 * self.parts_per_million / 1_001).max(0) as Moment + 2_000)
    }
}

/// The links with a follower, as its leader has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct FollowerLinks {
    pub(super) control: u64,
    pub(super) data: Option<(u64, Guid)>,
}

/// A send on a data link under way.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) follower: NodeId,
    pub(super) subscription: Guid,
    pub(super) link: u64,
    pub(super) plan: SendPlan,
    pub(super) bytes: Vec<u8>,
    /// The link is closed: only the memory matters.
    pub(super) orphaned: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) index: usize,
    /// Another one with each new disk: see [`identity`].
    pub(super) id: NodeId,
    pub(super) clock: Clock,
    /// What the wall clock is off by, 100 ns ticks.
    pub(super) wall_clock_off: i64,
    pub(super) disk: Arc<VirtualDisk>,
    /// Where the tables of its index are.
    pub(super) folder: Arc<VirtualFolder>,
    /// Some file in there has rotted since all were seen to be sound, when its upkeep had checked them so often.
    pub(super) index_rotten: Option<u64>,
    pub(super) keeper: Option<Keeper>,
    /// Records that have rotted and are not repaired, for those who must not look at them.
    pub(super) rotten: Vec<(LogPosition, LogPosition)>,
    /// A header or footer page has rotted since the scrubber passed.
    pub(super) pages_rotten: bool,
    /// Its newest durable mark has rotted: an older one may tell of a log that was cut since.
    pub(super) marks_rotten: bool,
    /// Since when it waits for others to mend its log before it starts.
    pub(super) mending_since: Option<Moment>,
    pub(super) sealing: Sealing,
    /// The members that its log had last, also while it is down.
    pub(super) voters: Vec<NodeId>,
    /// Changes of the members that were asked for here.
    pub(super) changes: Vec<u64>,
    pub(super) life: u32,
    pub(super) engine: Option<Engine>,
    pub(super) applied: Arc<Index>,
    /// False after a power cut, until the next start: nothing answers for the node.
    pub(super) host_up: bool,
    pub(super) paused_until: Moment,
    /// How many times slower than usual the disk is.
    pub(super) disk_slowness: u64,
    pub(super) full_disk: bool,
    pub(super) told_full: bool,
    /// The next flush fails.
    pub(super) flush_fails: bool,
    inbox: VecDeque<Input>,
    deferred: VecDeque<Request>,
    turn_at: Option<Moment>,
    pub(super) leader: Option<NodeId>,
    pub(super) leader_control: Option<u64>,
    pub(super) leader_data: Option<(u64, Guid)>,
    pub(super) followers: BTreeMap<NodeId, FollowerLinks>,
    pub(super) sends: BTreeMap<u64, Send>,
    pub(super) tokens: BTreeMap<u64, Token>,
    pub(super) io: BTreeMap<u64, Io>,
    pub(super) mark_sequence: u64,
    pub(super) marked_at: Moment,
    pub(super) wanted_chunk: Option<u32>,
    pub(super) readable: LogPosition,
    pub(super) applying: bool,
    pub(super) waiting: Vec<Waiting>,
    pub(super) asked_votes: BTreeMap<u64, AskedVote>,
    pub(super) asked_transfers: BTreeMap<u64, AskedTransfer>,
    /// The hand-over that this node asked for last, if it has not been answered.
    pub(super) transfer_number: Option<u64>,
    pub(super) founding: Option<u64>,
    pub(super) accepted: bool,
    pub(super) last_hint: Option<(NodeId, Term)>,
    pub(super) stale_hint: Option<(NodeId, Term)>,
    pub(super) stopping: bool,
    pub(super) watched: Watched,
}

impl Node {
    pub(super) fn new(index: usize, layout: ChunkLayout, random: &mut Rng) -> Node {
        let id = identity(index, 0);
        let clock = Clock { base: random.i64(0..1 << 50), parts_per_million: random.i64(-300..=300) };
        Node {
            index,
            id,
            clock,
            wall_clock_off: 0,
            disk: Arc::new(VirtualDisk::new(layout)),
            folder: Arc::default(),
            index_rotten: None,
            keeper: None,
            rotten: Vec::new(),
            pages_rotten: false,
            marks_rotten: false,
            mending_since: None,
            sealing: Sealing::default(),
            voters: Vec::new(),
            changes: Vec::new(),
            life: 0,
            engine: None,
            applied: Arc::new(Index::new()),
            host_up: true,
            paused_until: 0,
            disk_slowness: 1,
            full_disk: false,
            told_full: false,
            flush_fails: false,
            inbox: VecDeque::new(),
            deferred: VecDeque::new(),
            turn_at: None,
            leader: None,
            leader_control: None,
            leader_data: None,
            followers: BTreeMap::new(),
            sends: BTreeMap::new(),
            tokens: BTreeMap::new(),
            io: BTreeMap::new(),
            mark_sequence: 0,
            marked_at: 0,
            wanted_chunk: None,
            readable: LogPosition::ZERO,
            applying: false,
            waiting: Vec::new(),
            asked_votes: BTreeMap::new(),
            asked_transfers: BTreeMap::new(),
            transfer_number: None,
            founding: None,
            accepted: false,
            last_hint: None,
            stale_hint: None,
            stopping: false,
            watched: Watched::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    /// A new disk: nothing is known of the old one, and the node is another one.
    pub(super) fn replace_disk(&mut self, layout: ChunkLayout) -> (NodeId, Arc<VirtualDisk>) {
        let Guid(bytes) = self.id.0;
        let id = std::mem::replace(&mut self.id, identity(self.index, bytes[1] + 1));
        let disk = std::mem::replace(&mut self.disk, Arc::new(VirtualDisk::new(layout)));
        (self.folder, self.index_rotten) = (Arc::default(), None);
        self.rotten.clear();
        (self.pages_rotten, self.marks_rotten, self.mending_since) = (false, false, None);
        self.voters.clear();
        self.accepted = false;
        self.flush_fails = false;
        self.watched = Watched::default();
        (id, disk)
    }

    /// True when the record with this byte has rotted.
    pub(super) fn is_rotten(&self, position: LogPosition) -> bool {
        self.rotten.iter().any(|&(from, to)| (from..to).contains(&position))
    }

    /// Forgets what lives in the process.
    pub(super) fn forget(&mut self) {
        self.engine = None;
        self.keeper = None;
        self.life += 1;
        self.inbox.clear();
        self.deferred.clear();
        self.turn_at = None;
        self.leader_control = None;
        self.leader_data = None;
        self.followers.clear();
        self.sends.clear();
        self.tokens.clear();
        self.io.clear();
        self.wanted_chunk = None;
        self.applying = false;
        self.waiting.clear();
        self.asked_votes.clear();
        self.asked_transfers.clear();
        self.transfer_number = None;
        self.founding = None;
        self.changes.clear();
        self.last_hint = None;
        self.stopping = false;
        self.told_full = false;
        self.sealing = Sealing::default();
    }

    /// Tells the engine of the memory that closed links still read.
    pub(super) fn count_orphans(&mut self) {
        let oldest = self.sends.values().filter(|send| send.orphaned && !send.plan.from_file);
        let oldest = oldest.map(|send| send.plan.position).min();
        if let Some(engine) = &mut self.engine {
            engine.hold_orphaned(oldest);
        }
    }
}

/// The node in this place, with its first disk or a later one.
fn identity(index: usize, disk: u8) -> NodeId {
    let mut bytes = [index as u8 + 1; 16];
    bytes[1] = disk;
    NodeId(Guid(bytes))
}

impl World {
    /// Gives a node something for its next turn.
    pub(super) fn input(&mut self, index: usize, input: Input) {
        self.nodes[index].inbox.push_back(input);
        let delay = super::profile::within(&mut self.random.schedule, self.profile.turn);
        self.plan_turn(index, self.now + delay);
    }

    pub(super) fn plan_turn(&mut self, index: usize, at: Moment) {
        let node = &mut self.nodes[index];
        if node.is_up() && node.turn_at.is_none_or(|planned| at < planned) {
            node.turn_at = Some(at);
            self.agenda.plan(at, Event::Turn { node: index, life: node.life });
        }
    }

    /// One turn of the log thread.
    pub(super) fn turn(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.turn_at != Some(self.now) {
            return;
        }
        node.turn_at = None;
        if node.paused_until > self.now {
            let until = node.paused_until;
            return self.plan_turn(index, until);
        }
        self.coverage.note("turns", 1);
        let wall_clock = WALL_CLOCK_START + (self.now / 100) as i64 + node.wall_clock_off;
        let now = node.clock.ticks(self.now);
        if let Some(engine) = &mut node.engine {
            engine.begin_turn(now, wall_clock);
        }
        self.offer_deferred(index);
        for input in std::mem::take(&mut self.nodes[index].inbox) {
            self.take_input(index, input);
        }
        let mut actions = Vec::new();
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.end_turn();
            engine.take_actions(&mut actions);
        }
        for action in actions.drain(..) {
            self.act(index, action);
        }
        self.feed_followers(index);
        // What goes out with the data.
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.take_actions(&mut actions);
        }
        for action in actions {
            self.act(index, action);
        }
        self.check_node(index);
        self.plan_deadline(index);
    }

    fn plan_deadline(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(engine) = &node.engine else { return };
        if node.stopping && engine.is_quiet() {
            return self.crash(index, false);
        }
        if let Some(at) = node.clock.moment(engine.next_deadline()) {
            self.plan_turn(index, at.max(self.now + 1_000));
        }
        if !self.nodes[index].deferred.is_empty() {
            self.plan_turn(index, self.now + MILLISECOND);
        }
    }

    fn offer_deferred(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(engine) = &mut node.engine else { return };
        while let Some(request) = node.deferred.pop_front() {
            if let Err(request) = engine.handle_request(request) {
                node.deferred.push_front(request);
                break;
            }
        }
    }

    fn take_input(&mut self, index: usize, input: Input) {
        let node = &mut self.nodes[index];
        let Some(engine) = &mut node.engine else { return };
        match input {
            Input::Control(input) => engine.handle_control(input),
            Input::Written { id } => engine.handle_written(id),
            Input::Flushed { id } => {
                engine.handle_flushed(id);
                self.note_flushed(index);
            }
            Input::Saved { sequence } => engine.handle_state_saved(sequence),
            Input::ChunkReady { chunk } => engine.handle_chunk_ready(chunk),
            Input::DiskFull { full } => engine.handle_disk_full(full),
            Input::Stop => {
                engine.handle_stop();
                node.stopping = true;
            }
            Input::Request(request) if node.deferred.is_empty() => {
                if let Err(request) = engine.handle_request(request) {
                    node.deferred.push_back(request);
                }
            }
            Input::Request(request) => node.deferred.push_back(request),
            Input::Sent { send } => self.send_done(index, send),
            Input::Packet { link, packet } => self.take_packet(index, link, packet),
        }
    }

    fn take_packet(&mut self, index: usize, link: u64, packet: Packet) {
        let node = &self.nodes[index];
        if node.leader_control == Some(link) {
            self.take_from_leader(index, packet);
        } else if node.leader_data.is_some_and(|(data, _)| data == link) {
            self.take_data(index, packet);
        } else if let Packet::Hello = packet {
            self.take_hello(index, link);
        } else if let Some((&follower, links)) = node.followers.iter().find(|(_, links)| links.uses(link)) {
            let is_control = links.control == link;
            match packet {
                Packet::Fin => self.drop_follower(index, follower, true),
                Packet::Message(message) if is_control => self.take_from_follower(index, follower, message),
                _ => {}
            }
        }
    }

    fn take_from_leader(&mut self, index: usize, packet: Packet) {
        let node = &mut self.nodes[index];
        let (Some(engine), Some(leader)) = (&mut node.engine, node.leader) else { return };
        match packet {
            Packet::Welcome => engine.handle_leader_link(leader, true),
            Packet::Message(message) => engine.handle_message(leader, message),
            Packet::Fin => self.leader_lost(index),
            Packet::Hello | Packet::Bytes(_) => {}
        }
    }

    fn take_from_follower(&mut self, index: usize, follower: NodeId, message: Message) {
        if let Some(engine) = &mut self.nodes[index].engine {
            engine.handle_message(follower, message);
        }
    }

    fn take_data(&mut self, index: usize, packet: Packet) {
        let token = self.id();
        let node = &mut self.nodes[index];
        let (Some(engine), Some((_, subscription))) = (&mut node.engine, node.leader_data) else { return };
        match packet {
            Packet::Bytes(bytes) => {
                let wanted = engine.handle_data(subscription, BufferToken(token), &bytes);
                node.tokens.insert(token, Token { bytes: Arc::new(bytes), writes: 0 });
                if !wanted && let Some((link, _)) = self.nodes[index].leader_data.take() {
                    self.close_link(link, 0);
                }
            }
            Packet::Fin => self.leader_lost(index),
            _ => {}
        }
    }

    /// One of the links to the leader is gone: the other goes too.
    fn leader_lost(&mut self, index: usize) {
        self.close_leader(index);
        let node = &mut self.nodes[index];
        if let (Some(engine), Some(leader)) = (&mut node.engine, node.leader) {
            engine.handle_leader_link(leader, false);
        }
    }

    fn take_hello(&mut self, index: usize, id: u64) {
        let Some(link) = self.network.links.get(&id) else { return };
        let (kind, follower, wanted) = (link.kind, link.opener, link.wanted);
        if wanted != self.nodes[index].id {
            return self.close_link(id, 1); // The greeting names whom it is for.
        }
        match kind {
            Kind::Control => {
                // A follower that comes anew has given its old links up.
                self.drop_follower(index, follower, true);
                self.nodes[index].followers.insert(follower, FollowerLinks { control: id, data: None });
                self.send_packet(id, 1, Packet::Welcome);
            }
            Kind::Data(subscription) => {
                let node = &mut self.nodes[index];
                let (Some(engine), Some(links)) = (&mut node.engine, node.followers.get_mut(&follower)) else {
                    return self.close_link(id, 1);
                };
                match engine.handle_data_link(follower, subscription) {
                    Ok(_) if links.data.is_none() => links.data = Some((id, subscription)),
                    _ => self.close_link(id, 1),
                }
            }
        }
    }

    /// Carries out one of the engine's actions.
    fn act(&mut self, index: usize, action: Action) {
        match action {
            Action::Write { id, position, length, source } => self.write(index, id, position, length, source),
            Action::Flush { id, first_chunk, last_chunk, durable_before, must_mark } => {
                self.flush(index, id, (first_chunk, last_chunk), durable_before, must_mark);
            }
            Action::Release(token) => self.release(index, token),
            Action::SaveState(state) => self.save(index, &state),
            Action::PrepareChunk(chunk) => self.want_chunk(index, chunk),
            Action::Send { peer, message } => self.send_message(index, peer, message),
            Action::ConnectControl { leader } => {
                self.close_leader(index);
                let link = self.open_link(Kind::Control, index, leader);
                self.nodes[index].leader = Some(leader);
                self.nodes[index].leader_control = Some(link);
            }
            Action::ConnectData { leader, subscription, .. } => {
                if let Some((link, _)) = self.nodes[index].leader_data.take() {
                    self.close_link(link, 0);
                }
                let link = self.open_link(Kind::Data(subscription), index, leader);
                self.nodes[index].leader_data = Some((link, subscription));
            }
            Action::CloseLeader => self.close_leader(index),
            Action::CloseFollower { follower } => self.drop_follower(index, follower, false),
            Action::Reply(reply) => self.reply(index, reply),
            Action::Progress(progress) => {
                self.nodes[index].readable = progress.readable;
                self.plan_apply(index);
            }
            Action::Control(output) => self.control(index, output),
            Action::ViewChanged | Action::ClusterKnown(_) => {}
            Action::Fatal(reason) => self.object(Checker::NoFatal, format!("n{index}: {reason}")),
        }
    }

    fn send_message(&mut self, index: usize, peer: NodeId, message: Message) {
        match message {
            Message::Subscribed { .. } => self.count("subscriptions"),
            Message::Refused { .. } => self.count("subscriptions refused"),
            _ => {}
        }
        let node = &self.nodes[index];
        let to_leader = node.leader_control.filter(|_| node.leader == Some(peer)).map(|link| (link, 0));
        let to_follower = node.followers.get(&peer).map(|links| (links.control, 1));
        let from_follower = matches!(
            message,
            Message::Subscribe { .. } | Message::Acknowledge { .. } | Message::HeartbeatAnswer { .. }
        );
        if let Some((link, end)) = if from_follower { to_leader } else { to_follower } {
            self.send_packet(link, end, Packet::Message(message));
        }
    }

    fn close_leader(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let (control, data) = (node.leader_control.take(), node.leader_data.take());
        for link in control.into_iter().chain(data.map(|(link, _)| link)) {
            self.close_link(link, 0);
        }
    }

    /// Closes the links with a follower, if there are any; `report` when it was not the engine that asked.
    pub(super) fn drop_follower(&mut self, index: usize, follower: NodeId, report: bool) {
        let node = &mut self.nodes[index];
        let Some(links) = node.followers.remove(&follower) else { return };
        for send in node.sends.values_mut().filter(|send| links.uses(send.link)) {
            send.orphaned = true;
        }
        node.count_orphans();
        if let Some(engine) = node.engine.as_mut().filter(|_| report) {
            engine.handle_follower_link_down(follower);
        }
        for link in links.data.map(|(link, _)| link).into_iter().chain([links.control]) {
            self.close_link(link, 1);
        }
    }
}

impl FollowerLinks {
    fn uses(&self, link: u64) -> bool {
        self.control == link || self.data.is_some_and(|(data, _)| data == link)
    }
}
