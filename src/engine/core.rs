//! The engine itself: its state, its inputs, its turn. Appends are decided in `appends`, the replica's effects carried
//! out in `effects`, followers fed in `feeds`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::record::MembershipBody;
#[cfg(test)]
use crate::consensus::PlantedBug;
use crate::consensus::{MemberLists, Message, Replica};
use crate::index::Index;
use crate::ring::MirroredBuffer;
use crate::storage::{ChunkLayout, DurableState, Recovered};
use crate::types::{Guid, LogPosition, NodeId, Ticks};

use super::action::{Action, BufferToken};
use super::client_counters::ReleasedBytes;
use super::feeds::Feed;
use super::heads::Heads;
use super::log_writer::LogWriter;
use super::members::PendingChange;
use super::scanner::Scanner;
use super::small_state::Saving;
use super::stopwatch::Stopwatch;
use super::{Answer, Append, ControlOutput, FollowerView, NodeView, Progress, Reply, Request, Role, Stages, Ticket};

/// While the index catches up with a new leader's log nobody tells the engine: it looks this often.
const APPLIED_POLL: Duration = Duration::from_millis(1);

/// What an engine is told once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// How the log is cut into chunks.
    pub layout: ChunkLayout,
    /// Size of the log buffer, bytes; a power of two, larger than the largest record.
    pub log_buffer_bytes: usize,
    /// Silence of a leader after which a follower looks for another.
    pub election_timeout: Duration,
    /// Between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// `NodePriority`.
    pub priority: i32,
    /// Seed of the elections' jitter.
    pub seed: u64,
    /// Chunk files below this number are ready to be written.
    pub chunks_ready: u32,
    /// Unacknowledged bytes on the way to one follower.
    pub window_bytes: u64,
    /// For the simulator's tests: what the replica does wrong.
    #[cfg(test)]
    pub planted: Option<crate::consensus::PlantedBug>,
}

/// An answer that waits until the log is committed up to `end`.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) end: LogPosition,
    pub(super) reply: Reply,
}

/// Reads that wait for proof of leadership.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    /// Arrived since the last round was sent.
    pub(super) waiting: Vec<Unproven>,
    /// The round that is under way.
    pub(super) round: Option<u64>,
    /// Who waits for it.
    pub(super) asked: Vec<Unproven>,
}

/// What this leader says only when it knows that it still led when it looked.
#[derive(Debug)]
pub(super) enum Unproven {
    /// A read that must see everything.
    Barrier(Ticket),
    /// A write that the stream's state refuses. Another leader may have changed that state already, which one that is
    /// cut off cannot see: a refusal is a read, and must not be answered from the past either.
    Refusal { append: Deferred, answer: Answer, end: LogPosition },
}

/// The log thread's brain: consensus, the log's tail and stream heads in one deterministic machine.
///
/// Inputs are the `handle_*` methods; each turn is framed by [`Engine::begin_turn`] and [`Engine::end_turn`], and
/// [`Engine::take_actions`] gives what the shell must do, in order. Nothing here waits, and nothing here does IO; the
/// only memory that it shares with the shell is the log buffer. Lives on the log thread.
#[derive(Debug)]
pub struct Engine {
    pub(super) options: EngineOptions,
    pub(super) now: Ticks,
    /// Wall clock of this turn, 100 ns ticks since year 1: for timestamps only.
    pub(super) wall_clock: i64,
    pub(super) state: DurableState,
    pub(super) saving: Saving,
    pub(super) commit_hint_saved: LogPosition,
    pub(super) commit_hint_saved_at: Ticks,
    /// `None` until the cluster is founded or joined.
    pub(super) replica: Option<Replica>,
    /// The member lists as the replica has them, with addresses.
    pub(super) lists: Option<MemberLists<MembershipBody>>,
    /// The list in force is not in the state file, or gossip does not know it.
    pub(super) list_unsaved: bool,
    /// Control request to answer when the new member list is committed.
    pub(super) change: Option<PendingChange>,
    pub(super) recovered: Option<Recovered>,
    pub(super) log: LogWriter,
    pub(super) buffer: MirroredBuffer,
    /// The log buffer holds the log from here on (a leader's own appends).
    pub(super) buffer_from: LogPosition,
    pub(super) heads: Heads,
    pub(super) pending: VecDeque<Pending>,
    /// Shares of the common limit that this turn's appends have given back.
    pub(super) released: ReleasedBytes,
    pub(super) barriers: Barriers,
    pub(super) feeds: BTreeMap<NodeId, Feed>,
    /// The kernel may still read the log buffer from here on for links that are closed already.
    pub(super) orphaned_hold: Option<LogPosition>,
    pub(super) scanner: Option<(Guid, Scanner)>,
    /// The replica waits until the log is cut.
    pub(super) truncating: bool,
    /// Elected, but the record that begins the term is not in the log yet.
    pub(super) epoch_due: bool,
    /// The log has a member list of this node's cluster. A leader that finds none writes the founding's.
    pub(super) is_list_in_log: bool,
    /// A leader takes writes once this much is committed and applied.
    pub(super) accept_from: Option<LogPosition>,
    pub(super) accepting: bool,
    /// Control request to answer when leadership was handed over, or was not.
    pub(super) resign_token: Option<u64>,
    pub(super) disk_full: bool,
    pub(super) chunk_failed: bool,
    pub(super) chunk_asked: u32,
    pub(super) stopping: bool,
    pub(super) readable: LogPosition,
    pub(super) view_dirty: bool,
    pub(super) stopwatch: Stopwatch,
    published_role: Role,
    pub(super) random: fastrand::Rng,
    pub(super) actions: Vec<Action>,
    pub(super) effects: Vec<crate::consensus::Effect>,
}

impl Engine {
    /// An engine over a recovered log.
    ///
    /// # Errors
    /// When the log buffer cannot be mapped.
    pub fn new(
        options: EngineOptions,
        state: DurableState,
        recovered: Recovered,
        index: Arc<Index>,
        now: Ticks,
    ) -> io::Result<Engine> {
        let end = recovered.end;
        let mut engine = Engine {
            log: LogWriter::new(options.layout, end, options.chunks_ready),
            buffer: MirroredBuffer::new(options.log_buffer_bytes)?,
            random: fastrand::Rng::with_seed(options.seed ^ 0x5EED),
            now,
            wall_clock: 0,
            commit_hint_saved: state.commit_hint,
            commit_hint_saved_at: now,
            state,
            saving: Saving::default(),
            replica: None,
            lists: None,
            list_unsaved: false,
            change: None,
            recovered: Some(recovered),
            buffer_from: end,
            heads: Heads::new(index, options.seed),
            pending: VecDeque::new(),
            released: ReleasedBytes::default(),
            barriers: Barriers::default(),
            feeds: BTreeMap::new(),
            orphaned_hold: None,
            scanner: None,
            truncating: false,
            epoch_due: false,
            is_list_in_log: false,
            accept_from: None,
            accepting: false,
            resign_token: None,
            disk_full: false,
            chunk_failed: false,
            chunk_asked: options.chunks_ready.saturating_sub(1),
            stopping: false,
            readable: LogPosition::ZERO,
            view_dirty: true,
            stopwatch: Stopwatch::new(now),
            published_role: Role::Initializing,
            actions: Vec::new(),
            effects: Vec::new(),
            options,
        };
        if engine.state.founded {
            engine.start_replica();
        }
        Ok(engine)
    }

    // --- getters ---

    /// The log buffer, for writes and sends.
    #[must_use]
    pub fn buffer(&self) -> &MirroredBuffer {
        &self.buffer
    }

    /// The cluster that this node belongs to, once known.
    #[must_use]
    pub fn cluster(&self) -> Option<&MembershipBody> {
        self.state.founding.as_ref().filter(|_| self.state.founded)
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.state.node
    }

    /// The replica, once the cluster is known.
    #[must_use]
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// End of the log, writer checkpoint, commit position, and what the index may apply.
    #[must_use]
    pub fn positions(&self) -> (LogPosition, LogPosition, LogPosition, LogPosition) {
        match &self.replica {
            Some(replica) => (replica.log_end(), replica.flushed(), replica.commit_position(), self.readable),
            None => (self.log.written_records(), self.log.written_records(), LogPosition::ZERO, self.readable),
        }
    }

    /// Nothing was ever submitted for writing to the log's files from here on, but zeros.
    #[must_use]
    pub fn high_water(&self) -> LogPosition {
        self.log.high_water()
    }

    /// The small state as both slots of its file hold it; `None` while it is being saved, or has changed since.
    #[must_use]
    pub fn saved_state(&self) -> Option<&DurableState> {
        (self.saving.in_flight.is_none() && !self.saving.dirty).then_some(&self.state)
    }

    /// What the node is now.
    #[must_use]
    pub fn role(&self) -> Role {
        let Some(replica) = &self.replica else {
            return Role::Initializing;
        };
        match replica.leader() {
            _ if self.stopping => Role::ShuttingDown,
            _ if replica.is_leader() && !self.accepting => Role::PreLeader,
            _ if replica.is_leader() && replica.is_resigning() => Role::ResigningLeader,
            _ if replica.is_leader() => Role::Leader,
            None => Role::Unknown,
            Some(_) if !replica.is_streaming() => Role::PreReplica,
            Some(_) if replica.commit_position() < replica.leader_commit() && self.is_far_behind() => Role::CatchingUp,
            Some(_) if replica.is_member() => Role::Follower,
            Some(_) => Role::Clone,
        }
    }

    /// The view to publish.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let Some(replica) = &self.replica else {
            let (disk_full, chunk_failed) = (self.disk_full, self.chunk_failed);
            return NodeView { disk_full, chunk_failed, ..NodeView::default() };
        };
        let follower = |(node, tracked): (NodeId, crate::consensus::Tracked)| {
            let feed = self.feeds.get(&node);
            FollowerView {
                node,
                is_member: replica.has_member(node),
                sent: feed.map_or(tracked.acknowledged, Feed::next),
                acknowledged: tracked.acknowledged,
                from_files: feed.is_some_and(|feed| feed.next() < self.buffer_floor()),
                is_linked: tracked.linked,
                lag_bytes: replica.log_end().0.saturating_sub(tracked.acknowledged.0),
                flush_micros: tracked.flush_micros,
                priority: tracked.priority,
                is_full: tracked.full_from.is_some(),
                is_ready: tracked.is_ready,
            }
        };
        NodeView {
            role: self.role(),
            cluster: Some(replica.options().cluster),
            term: replica.term(),
            leader: replica.leader(),
            epoch: replica.epochs().last(),
            members: self.members().to_vec(),
            is_change_pending: replica.is_change_pending(),
            is_suspect: replica.is_suspect(),
            flush_micros: self.flush_micros(),
            epochs: replica.epochs().all(),
            disk_full: self.disk_full,
            chunk_failed: self.chunk_failed,
            followers: replica.followers().map(follower).collect(),
        }
    }

    /// When [`Engine::begin_turn`] should be called next though nothing happened.
    #[must_use]
    pub fn next_deadline(&self) -> Ticks {
        let replica = self.replica.as_ref().map_or(Ticks(u64::MAX), Replica::next_deadline);
        if self.accept_from.is_some() && !self.accepting { replica.min(self.now.after(APPLIED_POLL)) } else { replica }
    }

    // --- the turn ---

    /// Starts a turn: time first, so that a node that was stopped learns of its lost leadership before anything else.
    pub fn begin_turn(&mut self, now: Ticks, wall_clock: i64) {
        self.now = now;
        self.stopwatch.set_now(now);
        self.wall_clock = wall_clock;
        let (flush_micros, full_from, is_ready) = (self.flush_micros(), self.full_from(), self.heads.is_ready());
        self.with_replica(|replica, effects| {
            replica.note_flush_time(flush_micros);
            replica.note_room(full_from, effects);
            replica.note_ready(is_ready, effects);
            if now >= replica.next_deadline() {
                replica.handle_tick(now, effects);
            }
        });
    }

    /// It is later now than at the turn's begin. Only the stages look at that: decisions of one turn are made at one
    /// time.
    pub fn handle_clock(&mut self, now: Ticks) {
        self.stopwatch.set_now(now);
    }

    /// Ends a turn: submits writes and flushes for all that came together, asks for one round of proof for all reads
    /// that wait, publishes.
    pub fn end_turn(&mut self) {
        self.poll_epoch();
        self.poll_log();
        self.poll_accepting();
        self.poll_barriers();
        self.poll_commit_news();
        self.poll_commit_hint();
        self.poll_lists();
        self.poll_saving();
        self.heads.evict();
        self.released.give_back();
        self.publish();
    }

    /// What the shell must do, in order.
    pub fn take_actions(&mut self, into: &mut Vec<Action>) {
        into.append(&mut self.actions);
    }

    /// Hands over how long writes were in each stage, as far as it was measured since the last time.
    pub fn report_stages(&mut self, stages: &Stages) {
        self.stopwatch.report(stages);
    }

    // --- requests ---

    /// An edge asks for something.
    ///
    /// # Errors
    /// Hands an append back when there is no room in the log buffer, or its chunk is being prepared: offer it again
    /// before any other, when something was written.
    pub fn handle_request(&mut self, request: Request) -> Result<(), Request> {
        match request {
            Request::Append(append) => self.handle_append(append).map_err(Request::Append),
            Request::Barrier { ticket } => {
                if self.accepting {
                    self.barriers.waiting.push(Unproven::Barrier(ticket));
                } else {
                    self.reply(ticket, Answer::NotLeader);
                }
                Ok(())
            }
        }
    }

    // --- links ---

    /// The control link to `leader` is up, or is down (or could not be made).
    pub fn handle_leader_link(&mut self, leader: NodeId, up: bool) {
        let now = self.now;
        self.with_replica(|replica, effects| {
            if up {
                replica.handle_link_up(now, leader, effects)
            } else {
                replica.handle_link_down(now, leader, effects)
            }
        });
    }

    /// A link that `follower` had opened broke.
    pub fn handle_follower_link_down(&mut self, follower: NodeId) {
        let now = self.now;
        self.feeds.remove(&follower);
        self.view_dirty = true;
        self.with_replica(|replica, effects| {
            // A node that we follow by now may still have an old link to us: its end says nothing about ours to it.
            if replica.is_leader() {
                replica.handle_link_down(now, follower, effects);
            }
        });
    }

    /// A message arrived on the control link with `from`.
    pub fn handle_message(&mut self, from: NodeId, message: Message) {
        let now = self.now;
        let acknowledges = matches!(message, Message::Acknowledge { .. });
        self.with_replica(|replica, effects| replica.handle_message(now, from, message, effects));
        if acknowledges {
            self.note_acknowledged(from);
        }
    }

    /// Bytes arrived on the data link of `subscription`. False: they are not wanted, the token is free again and the
    /// link should be closed.
    pub fn handle_data(&mut self, subscription: Guid, token: BufferToken, bytes: &[u8]) -> bool {
        let wanted =
            !self.truncating && self.replica.as_ref().is_some_and(|replica| replica.accepts_data(subscription));
        if !wanted || bytes.is_empty() {
            self.actions.push(Action::Release(token));
            return wanted;
        }
        self.take_data(subscription, token, bytes)
    }

    // --- disk ---

    /// A write completed in full.
    pub fn handle_written(&mut self, id: u64) {
        self.stopwatch.completed(id);
        self.log.handle_written(id, &mut self.actions);
    }

    /// A flush completed.
    pub fn handle_flushed(&mut self, id: u64) {
        self.stopwatch.completed(id);
        if let Some(position) = self.log.handle_flushed(id) {
            self.with_replica(|replica, effects| replica.handle_flushed(position.min(replica.log_end()), effects));
        }
    }

    /// A chunk file is ready to be written.
    pub fn handle_chunk_ready(&mut self, chunk: u32) {
        self.log.handle_chunk_ready(chunk);
    }

    /// The disk has no room for another chunk, or has room again.
    pub fn handle_disk_full(&mut self, full: bool) {
        self.view_dirty |= self.disk_full != full;
        self.disk_full = full;
    }

    /// A chunk cannot be made for another reason than room, or can be made again.
    pub fn handle_chunk_failed(&mut self, failed: bool) {
        self.view_dirty |= self.chunk_failed != failed;
        self.chunk_failed = failed;
    }

    /// The process is asked to stop: no more writes are taken, leadership is handed over where there is somebody to
    /// take it, and the commit hint is saved.
    pub fn handle_stop(&mut self) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        self.view_dirty = true;
        let now = self.now;
        let _ = self.with_replica(|replica, effects| replica.resign(now, None, effects));
        self.mark_state_dirty();
    }

    /// Hands over before the end, also when this node has just been elected: whoever leads and does not say so leaves the
    /// others to find out. Each is asked once in a while, so that this comes to an end.
    pub(super) fn resign_to_anyone(&mut self) {
        let now = self.now;
        let _ = self.with_replica(|replica, effects| replica.resign_to_another(now, effects));
    }

    /// True when a stopping engine has nothing left to do: nothing unflushed, no save in flight, no hand-over.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let quiet_log = self.replica.as_ref().is_none_or(|replica| {
            !(replica.is_leader() && (replica.is_resigning() || replica.flushed() < replica.log_end()))
        });
        quiet_log && self.saving.in_flight.is_none() && !self.saving.dirty
    }

    // --- helpers ---

    /// Runs the replica and carries out its effects. `None` without a replica.
    pub(super) fn with_replica<T>(
        &mut self,
        run: impl FnOnce(&mut Replica, &mut Vec<crate::consensus::Effect>) -> T,
    ) -> Option<T> {
        let replica = self.replica.as_mut()?;
        let mut effects = std::mem::take(&mut self.effects);
        let result = run(replica, &mut effects);
        self.carry_out(&mut effects);
        self.keep_memory_of(effects);
        Some(result)
    }

    fn keep_memory_of(&mut self, effects: Vec<crate::consensus::Effect>) {
        if self.effects.capacity() < effects.capacity() {
            self.effects = effects;
        }
    }

    #[cfg(test)]
    pub(super) fn has(&self, planted: PlantedBug) -> bool {
        self.options.planted == Some(planted)
    }

    /// Answers what is no append.
    pub(super) fn reply(&mut self, ticket: Ticket, answer: Answer) {
        self.actions.push(Action::Reply(Reply { ticket, answer, spare: None }));
    }

    /// Answers an append, and gives its memory back.
    pub(super) fn answer_append(&mut self, mut append: Deferred, answer: Answer) {
        self.released.take_from(&mut append.queued);
        self.actions.push(Action::Reply(Reply { ticket: append.ticket, answer, spare: Some(append) }));
    }

    pub(super) fn control(&mut self, output: ControlOutput) {
        self.actions.push(Action::Control(output));
    }

    pub(super) fn answer_control(&mut self, token: u64, result: Result<(), String>) {
        self.control(ControlOutput::Answer { token, result });
    }

    /// How long flushes take here, microseconds.
    fn flush_micros(&self) -> u64 {
        u64::try_from(self.stopwatch.flush_time().as_micros()).unwrap_or(u64::MAX)
    }

    fn poll_log(&mut self) {
        let decided = self.actions.len();
        self.log.poll(&mut self.actions);
        self.stopwatch.submitted(&self.actions[decided..]);
        if self.truncating && !self.log.is_cutting() {
            self.truncating = false;
            self.with_replica(|replica, effects| replica.handle_truncated(effects));
        }
        self.prepare_chunk();
    }

    /// Keeps one chunk prepared beyond the one that is being written.
    fn prepare_chunk(&mut self) {
        let end = self.replica.as_ref().map_or(self.log.written_records(), Replica::log_end);
        let wanted = self.options.layout.chunk_of(end) + 1;
        if self.chunk_asked < wanted {
            self.chunk_asked = wanted;
            self.actions.push(Action::PrepareChunk(wanted));
        }
    }

    fn poll_accepting(&mut self) {
        let Some(from) = self.accept_from else { return };
        let committed = self.replica.as_ref().is_some_and(|replica| replica.commit_position() >= from);
        #[cfg(test)]
        let from = if self.has(PlantedBug::WriteTooSoon) { LogPosition::ZERO } else { from };
        if !self.accepting && committed && self.heads.applied() >= from {
            self.accepting = true;
        }
    }

    fn poll_barriers(&mut self) {
        if self.barriers.waiting.is_empty() || self.barriers.round.is_some() {
            return;
        }
        // Refusals are as frequent as writes may be: the two lists change places, and their memory stays.
        let Barriers { waiting, asked, .. } = &mut self.barriers;
        std::mem::swap(waiting, asked);
        #[cfg(test)]
        if self.has(PlantedBug::StaleLeaderRead) {
            return self.answer_proven();
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.barriers.round = self.replica.as_mut().and_then(|replica| replica.confirm(&mut effects));
        if self.barriers.round.is_none() {
            self.refuse_unproven();
        }
        self.carry_out(&mut effects);
        self.keep_memory_of(effects);
    }

    /// Nothing that waits for a proof gets one.
    pub(super) fn refuse_unproven(&mut self) {
        let Barriers { waiting, asked, .. } = std::mem::take(&mut self.barriers);
        for question in asked.into_iter().chain(waiting) {
            match question {
                Unproven::Barrier(ticket) => self.reply(ticket, Answer::NotLeader),
                Unproven::Refusal { append, .. } => self.answer_append(append, Answer::NotLeader),
            }
        }
    }

    fn publish(&mut self) {
        let Some(replica) = &self.replica else {
            self.publish_view();
            return;
        };
        let readable = replica.commit_position().min(self.log.written_records());
        #[cfg(test)]
        let readable = if self.has(PlantedBug::IndexAheadOfCommit) { self.log.written_records() } else { readable };
        if readable > self.readable {
            self.readable = readable;
            self.actions.push(Action::Progress(Progress { readable }));
        }
        self.publish_view();
    }

    fn publish_view(&mut self) {
        // A follower's role depends on how far behind it is, so it changes without an event of its own.
        let role = self.role();
        if role != self.published_role {
            self.published_role = role;
            self.view_dirty = true;
            self.control(ControlOutput::ViewChanged);
        }
        if std::mem::take(&mut self.view_dirty) {
            self.actions.push(Action::ViewChanged);
        }
    }

    /// Catching up is a state for people: more than a window behind what is committed.
    pub(super) fn is_far_behind(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| {
            replica.leader_commit().0.saturating_sub(replica.log_end().0) > self.options.window_bytes / 4
        })
    }

    pub(super) fn accepts_writes(&self) -> bool {
        self.accepting && !self.stopping && self.replica.as_ref().is_some_and(|replica| !replica.is_resigning())
    }
}

/// A request that could not be taken now, as [`Engine::handle_request`] hands it back.
pub(super) type Deferred = Box<Append>;
