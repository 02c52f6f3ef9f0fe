//! One node's part in the cluster: its term, its role, its view of the log. Elections are in `election`, the leader's
//! duties in `leading` and `handing_over`, the follower's in `following`, the member list in `changing`.

use std::time::Duration;

use crate::types::{ClusterId, Epoch, LogPosition, NodeId, Term, Ticks};

use super::chance::Chance;
use super::changing::RestoredList;
use super::effects::Effect;
use super::epochs::EpochTable;
use super::following::Following;
use super::leading::Leading;
use super::lists::MemberLists;
use super::message::VoteResponse;

/// Elections that a node may have missed.
const TERM_LEAP_MAX: u64 = 1 << 20;

/// Messages that wait for one save of the small state. While it takes its usual time there are a handful.
const HELD_BACK_MAX: usize = 1024;

/// What a replica is told once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaOptions {
    /// This node.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The voting members as long as the log has no list.
    pub members: Vec<NodeId>,
    /// Silence of the leader after which a follower looks for another; also the leader's patience with its quorum.
    pub election_timeout: Duration,
    /// Between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Higher: stands for election sooner, and is handed leadership.
    pub priority: i32,
    /// Seed of jitter and names; another one in each life of the node.
    pub seed: u64,
    /// False: no jitter. For checking all states, of which it would make many.
    pub is_jittered: bool,
    /// For the simulator's tests: what this replica does wrong.
    #[cfg(test)]
    pub planted: Option<PlantedBug>,
}

/// Deliberate faults that the checkers must catch.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlantedBug {
    /// Votes are answered without being durable.
    VoteNotDurable,
    /// A majority for a record of an old term is taken as committed.
    CommitOldTerm,
    /// A follower acknowledges what it has not flushed.
    AcknowledgeBeforeFlush,
    /// A node votes for everyone who asks.
    VoteTwice,
    /// A node votes for candidates that lack what it has.
    VoteForShorterLog,
    /// A leader has its followers cut more than they need to, below what is committed.
    TruncateBelowCommit,
    /// Acknowledgements of nodes that are not members count.
    CountClones,
    /// A follower does not take note of epochs that it receives.
    LostEpoch,
    /// A leader answers reads without asking whether it still leads.
    StaleLeaderRead,
    /// A leader takes writes before it knows all that it inherited.
    WriteTooSoon,
    /// The index takes what is written, committed or not.
    IndexAheadOfCommit,
    /// A leader does not look for identifiers of events that earlier leaders wrote.
    IdempotenceLost,
    /// What is in the system's cache at start is taken for durable.
    RecoverWithoutFlush,
    /// A damaged range is taken from any node that has something there, committed or not.
    RepairFromStalePeer,
    /// A chunk is sealed when it is flushed, committed or not.
    SealBeforeCommit,
    /// A chunk is sealed when it is committed, flushed here or not.
    SealBeforeFlush,
    /// A table of the index gets its name, and its place in the manifest, without being flushed.
    TableNotFlushed,
    /// A flush that failed is tried again, and the node goes on.
    FlushAgain,
    /// A leader begins a change of the member list before the one before it is committed.
    ChangeBeforeCommitted,
    /// A leader begins a change of the member list before it has committed anything in its term.
    ChangeBeforeOwnTerm,
    /// A member list counts only once it is committed.
    ListCountedOnceCommitted,
    /// A member list stays in force though its record is cut.
    CutListKept,
    /// The vote of a node that may have lost acknowledged writes counts like any other.
    SuspectCounted,
    /// A candidate of suspect voters does not ask whom a list leaves out that may never be committed.
    LeftOutForgotten,
    /// A node that may have lost acknowledged writes trusts the first commit position that it hears.
    SuspectClearedEarly,
}

/// What a replica begins with: the durable state and what recovery found in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Restored {
    /// The durable term.
    pub term: Term,
    /// The durable vote in it.
    pub voted_for: Option<NodeId>,
    /// The log's epochs.
    pub epochs: EpochTable,
    /// The end of the log, all of it durable.
    pub log_end: LogPosition,
    /// Known to be committed; a hint that may lag.
    pub commit_position: LogPosition,
    /// The last member list in the log.
    pub list: Option<RestoredList>,
    /// Acknowledged writes may be missing from the log.
    pub is_suspect: bool,
}

/// The states of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Knows of a leader or waits for one.
    Following(Following),
    /// Asks whether it could win before it disturbs anyone.
    PreCandidate(Votes),
    /// Asks for votes in its own term.
    Candidate(Votes),
    /// Leads.
    Leading(Box<Leading>),
}

/// The votes of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Votes {
    pub(super) granted: Vec<NodeId>,
    /// Those among them that may have lost what they had acknowledged.
    pub(super) suspects: Vec<NodeId>,
}

/// A replica: inputs by the `handle_*` methods, what to do in the effects they append, getters for the rest.
///
/// Lives on the log thread; deterministic: the same inputs in the same order give the same effects, and equal replicas
/// answer the same inputs equally.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(super) options: ReplicaOptions,
    pub(super) term: Term,
    pub(super) voted_for: Option<NodeId>,
    pub(super) state: State,
    pub(super) epochs: EpochTable,
    pub(super) lists: MemberLists<Vec<NodeId>>,
    /// What this node acknowledged before its start may be missing here.
    pub(super) is_suspect: bool,
    /// How long flushes take here, microseconds.
    pub(super) flush_micros: u64,
    /// This node can make no new chunk: it can write the log up to here and no further.
    pub(super) full_from: Option<LogPosition>,
    /// The index here is complete: as leader this node could take writes.
    pub(super) is_ready: bool,
    pub(super) log_end: LogPosition,
    /// Durable here, at the end of a record. Invariant: `flushed <= log_end`.
    pub(super) flushed: LogPosition,
    /// Invariant: only grows, and `commit_position <= log_end` but for the restored hint.
    pub(super) commit_position: LogPosition,
    /// When the replica stands for election, or tries again.
    pub(super) election_deadline: Ticks,
    /// The last sign of life of a leader; `None` when its link broke.
    pub(super) leader_heard: Option<Ticks>,
    /// A leader that would not have this replica, its term, and until when hints at it are ignored.
    pub(super) refused: Option<(NodeId, Term, Ticks)>,
    pub(super) chance: Chance,
    /// The last election that this replica stood for was asked for by the leader before.
    pub(super) is_handed_over: bool,
    /// Sequence of the last save asked for, and of the last one known to be durable.
    pub(super) save_asked: u64,
    pub(super) save_done: u64,
    /// Effects that tell others of a term or vote that is not durable yet, with the save they wait for.
    pub(super) held_back: Vec<(u64, Effect)>,
}

impl Replica {
    /// A replica that follows nobody yet.
    #[must_use]
    pub fn new(options: ReplicaOptions, restored: Restored, now: Ticks) -> Replica {
        let founding = || MemberLists::new(options.members.clone());
        let mut replica = Replica {
            chance: Chance::new(options.seed, options.is_jittered),
            lists: restored.list.map_or_else(founding, RestoredList::over),
            is_suspect: restored.is_suspect,
            flush_micros: 0,
            full_from: None,
            is_ready: true,
            options,
            term: restored.term.max(restored.epochs.last_term()),
            voted_for: restored.voted_for,
            state: State::Following(Following::default()),
            epochs: restored.epochs,
            log_end: restored.log_end,
            flushed: restored.log_end,
            commit_position: restored.commit_position.min(restored.log_end),
            election_deadline: now,
            leader_heard: None,
            refused: None,
            is_handed_over: false,
            save_asked: 0,
            save_done: 0,
            held_back: Vec::new(),
        };
        if replica.members().len() > 1 {
            // Somebody may lead already: listen first.
            replica.election_deadline = now.after(replica.jitter());
        }
        replica
    }

    // --- getters ---

    /// The term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The leader that this replica knows, itself included.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Following(following) => following.leader.filter(|_| self.leader_heard.is_some()),
            State::PreCandidate(_) | State::Candidate(_) => None,
            State::Leading(_) => Some(self.options.node),
        }
    }

    /// True while this replica leads (its epoch may not be committed yet).
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leading(_))
    }

    /// True when this node's vote and acknowledgements count.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.has_member(self.options.node)
    }

    /// True when `node` is a voting member.
    #[must_use]
    pub fn has_member(&self, node: NodeId) -> bool {
        self.members().contains(&node)
    }

    /// True while what this node had acknowledged may be missing from its log.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &ReplicaOptions {
        &self.options
    }

    /// The epochs of the log.
    #[must_use]
    pub fn epochs(&self) -> &EpochTable {
        &self.epochs
    }

    /// The end of the log, flushed or not.
    #[must_use]
    pub fn log_end(&self) -> LogPosition {
        self.log_end
    }

    /// Durable here up to this record end.
    #[must_use]
    pub fn flushed(&self) -> LogPosition {
        self.flushed
    }

    /// Known to be on a majority of disks up to here.
    #[must_use]
    pub fn commit_position(&self) -> LogPosition {
        self.commit_position
    }

    /// When [`Replica::handle_tick`] has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Ticks {
        match &self.state {
            State::Leading(leading) => leading.next_heartbeat,
            State::Following(following) => match following.retry_at {
                Some(retry) if self.may_stand() => retry.min(self.election_deadline),
                Some(retry) => retry,
                None if self.may_stand() || self.leader_heard.is_some() => self.election_deadline,
                None => Ticks(u64::MAX),
            },
            State::PreCandidate(_) | State::Candidate(_) => self.election_deadline,
        }
    }

    // --- inputs that every role shares ---

    /// Time passed.
    pub fn handle_tick(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        match &self.state {
            State::Leading(_) => self.tick_leading(now, effects),
            State::Following(_) => {
                self.tick_following(now, effects);
                self.tick_election(now, effects);
            }
            State::PreCandidate(_) | State::Candidate(_) => self.tick_election(now, effects),
        }
    }

    /// Records were appended (by the leader itself) or received (by a follower); `epoch` if one of them began a term.
    ///
    /// # Panics
    /// When the log would shrink.
    pub fn handle_appended(&mut self, end: LogPosition, epoch: Option<Epoch>) {
        assert!(end >= self.log_end, "the log grew from {} to {end}", self.log_end);
        self.log_end = end;
        if let Some(epoch) = epoch {
            self.epochs.push(epoch);
        }
    }

    /// The log is durable here up to the record end `position`.
    ///
    /// # Panics
    /// When the position moves back or passes the log's end.
    pub fn handle_flushed(&mut self, position: LogPosition, effects: &mut Vec<Effect>) {
        assert!(position >= self.flushed, "flushed moved from {} to {position}", self.flushed);
        assert!(position <= self.log_end, "flushed {position} of a log that ends at {}", self.log_end);
        self.flushed = position;
        match &self.state {
            State::Leading(_) => self.advance_commit(effects),
            State::Following(_) => {
                self.acknowledge(effects);
                self.follow_commit(effects);
            }
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
    }

    /// The save with this sequence, and all before it, is durable.
    pub fn handle_saved(&mut self, now: Ticks, sequence: u64, effects: &mut Vec<Effect>) {
        self.save_done = self.save_done.max(sequence);
        let done = self.save_done;
        let ready = self.held_back.iter().take_while(|(needs, _)| *needs <= done).count();
        effects.extend(self.held_back.drain(..ready).map(|(_, effect)| effect));
        if let State::Candidate(_) = self.state {
            self.count_votes(now, effects);
        }
    }

    // --- helpers for the roles ---

    /// Terms grow by one an election. One that is millions ahead is no election but damage or malice, and to take it
    /// over would bring the end of all numbers near.
    pub(super) fn is_plausible(&self, term: Term) -> bool {
        u64::from(term.0) <= u64::from(self.term.0) + TERM_LEAP_MAX
    }

    pub(super) fn majority(&self) -> usize {
        self.members().len() / 2 + 1
    }

    pub(super) fn others(&self) -> Vec<NodeId> {
        self.members().iter().copied().filter(|&member| member != self.options.node).collect()
    }

    /// A random part of half the election timeout; smaller for nodes of higher priority, and behind a half for those that
    /// others should go before.
    pub(super) fn jitter(&mut self) -> Duration {
        let doubt = if self.stands_last() { self.options.election_timeout / 2 } else { Duration::ZERO };
        let shares = u32::try_from(self.options.priority.clamp(0, 9)).expect("clamped") + 1;
        doubt + self.chance.jitter(self.options.election_timeout / 2 / shares)
    }

    /// Those whose log is in doubt, and those that could take no writes.
    pub(super) fn stands_last(&self) -> bool {
        self.is_suspect || self.full_from.is_some() || !self.is_ready
    }

    /// Pushes an effect that tells others of our term or vote: not before these are durable.
    pub(super) fn push_gated(&mut self, effect: Effect, effects: &mut Vec<Effect>) {
        if self.save_done == self.save_asked {
            effects.push(effect);
            return;
        }
        if self.held_back.len() >= HELD_BACK_MAX {
            self.give_up_held_back(effects);
        }
        self.held_back.push((self.save_asked, effect));
    }

    /// A disk that hangs must not fill the memory. Raft bears the loss of any message; those who wait for a vote are told
    /// that they get none, without the term, which is not durable.
    fn give_up_held_back(&mut self, effects: &mut Vec<Effect>) {
        let voter = self.options.node;
        let refusal =
            VoteResponse { voter, term: Term::ZERO, granted: false, leader: None, is_suspect: self.is_suspect };
        effects.push(Effect::GiveUp { count: self.held_back.len() });
        for (_, effect) in self.held_back.drain(..) {
            if let Effect::AnswerVote { token, .. } = effect {
                effects.push(Effect::AnswerVote { token, response: refusal });
            }
        }
        self.drop_leader_link(effects);
    }

    /// Asks for term and vote to be made durable.
    pub(super) fn save(&mut self, effects: &mut Vec<Effect>) {
        #[cfg(test)]
        if self.options.planted == Some(PlantedBug::VoteNotDurable) {
            return;
        }
        self.save_asked += 1;
        effects.push(Effect::SaveState { sequence: self.save_asked, term: self.term, voted_for: self.voted_for });
    }

    /// Takes over a higher term, following nobody yet.
    ///
    /// # Panics
    /// When the term is not higher.
    pub(super) fn adopt_term(&mut self, now: Ticks, term: Term, effects: &mut Vec<Effect>) {
        assert!(term > self.term, "term {} after {}", term, self.term);
        self.term = term;
        self.voted_for = None;
        self.save(effects);
        self.follow_nobody(now, effects);
    }

    /// Back to waiting, in the same term.
    pub(super) fn follow_nobody(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.state, State::Following(Following::default())) {
            State::Leading(_) => effects.push(Effect::StepDown),
            State::Following(following) if following.leader.is_some() => effects.push(Effect::Unfollow),
            _ => {}
        }
        self.leader_heard = None;
        self.election_deadline = now.after(self.options.election_timeout + self.jitter());
        effects.push(Effect::Changed);
    }
}
