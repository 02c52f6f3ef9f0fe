//! A follower's part: find the leader, subscribe, cut what differs, acknowledge, learn what is committed.

use std::time::Duration;

use crate::types::{Epoch, Guid, LogPosition, NodeId, Term, Ticks};

use super::effects::Effect;
use super::message::Message;
use super::replica::{Replica, State};

/// Pause before a broken link is tried again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// The least wait between the loss of the leader's link and an election: its own goodbye may still be on the way.
const LINK_LOSS_PAUSE: Duration = Duration::from_millis(5);

/// How far a follower got with its leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// No connection.
    #[default]
    Down,
    /// Asked for one.
    Connecting,
    /// Connected; waits for the leader's word where to begin.
    Subscribing(Guid),
    /// Cuts its log.
    Truncating(Guid),
    /// Its log is a prefix of the leader's, and grows.
    Streaming(Guid),
}

/// The state of a replica that does not stand for election.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Following {
    pub(super) leader: Option<NodeId>,
    pub(super) link: Link,
    /// When to try again what has not worked yet.
    pub(super) retry_at: Option<Ticks>,
    /// The leader's commit position; ours follows as far as our flushed log reaches.
    pub(super) leader_commit: LogPosition,
    pub(super) answered_round: u64,
    /// What the leader had committed when this subscription began, or a little later.
    pub(super) first_commit: Option<LogPosition>,
}

impl Replica {
    /// Gossip says that `leader` leads `term`. A hint only: it is believed when the leader itself answers.
    pub fn handle_leader_seen(&mut self, now: Ticks, leader: NodeId, term: Term, effects: &mut Vec<Effect>) {
        let refused = self.refused.is_some_and(|(by, in_term, until)| (by, in_term) == (leader, term) && now < until);
        let welcome = match &self.state {
            State::Leading(_) => false,
            State::Candidate(_) => term >= self.term,
            // Gossip shows a leader that is gone for a while yet; an attempt to replace it must not end by that.
            State::PreCandidate(_) => term > self.term,
            // A hint of an older term is stale, more often than not, and would keep a node with a leader that is
            // gone; where it is right, the answers to a pre-vote say so.
            State::Following(following) => {
                let in_touch = following.leader.is_some() && self.leader_heard.is_some();
                following.leader != Some(leader) && term >= self.term && (!in_touch || term > self.term)
            }
        };
        if welcome && !refused && leader != self.options.node {
            self.follow(now, leader, effects);
        }
    }

    /// A voter that refuses us hears this leader itself: better than gossip.
    pub(super) fn handle_leader_named(&mut self, now: Ticks, leader: NodeId, effects: &mut Vec<Effect>) {
        if leader != self.options.node && !self.is_leader() {
            self.follow(now, leader, effects);
        }
    }

    /// The control link to the leader is up.
    pub fn handle_link_up(&mut self, now: Ticks, leader: NodeId, effects: &mut Vec<Effect>) {
        let retry_at = now.after(self.options.election_timeout);
        let subscription = self.chance.name();
        let State::Following(following) = &mut self.state else {
            return;
        };
        if following.leader != Some(leader) || following.link != Link::Connecting {
            return;
        }
        following.link = Link::Subscribing(subscription);
        following.retry_at = Some(retry_at);
        let message = Message::Subscribe {
            term: self.term,
            subscription,
            epochs: self.epochs.newest(),
            log_end: self.log_end,
            commit_position: self.commit_position,
            priority: self.options.priority,
        };
        self.push_gated(Effect::Send { to: leader, message }, effects);
    }

    /// A link with `peer` broke, or could not be made.
    pub fn handle_link_down(&mut self, now: Ticks, peer: NodeId, effects: &mut Vec<Effect>) {
        match &mut self.state {
            State::Following(following) if following.leader == Some(peer) => {
                let was_up = !matches!(following.link, Link::Down | Link::Connecting);
                following.link = Link::Down;
                following.retry_at = Some(now.after(RECONNECT_PAUSE));
                self.leader_heard = None;
                if was_up {
                    // The leader's process is gone, most likely. If it is not, the pre-vote finds out.
                    // All who lost it notice at the same moment: they stand one after the other, not against
                    // each other.
                    let pause =
                        LINK_LOSS_PAUSE + self.options.election_timeout / 40 * self.rank(peer) + self.jitter() / 16;
                    self.election_deadline = self.election_deadline.min(now.after(pause));
                    effects.push(Effect::Unfollow);
                }
                effects.push(Effect::Changed);
            }
            State::Leading(leading) => leading.link_down(peer),
            _ => {}
        }
    }

    /// The leader's data arrived: a sign of life like any other.
    pub fn handle_data(&mut self, now: Ticks) {
        if matches!(&self.state, State::Following(Following { link: Link::Streaming(_), .. })) {
            self.leader_alive(now);
        }
    }

    /// The log was cut (or needed no cut), durably, as [`Effect::Truncate`] asked.
    pub fn handle_truncated(&mut self, effects: &mut Vec<Effect>) {
        let start = self.log_end;
        let State::Following(following) = &mut self.state else {
            return;
        };
        let (Link::Truncating(subscription), Some(leader)) = (&following.link, following.leader) else {
            return;
        };
        let subscription = *subscription;
        following.link = Link::Streaming(subscription);
        following.retry_at = None;
        self.push_gated(Effect::OpenData { leader, subscription, start }, effects);
        self.acknowledge(effects);
        effects.push(Effect::Changed);
    }

    /// True when what arrives on the data link of `subscription` belongs to this log.
    #[must_use]
    pub fn accepts_data(&self, subscription: Guid) -> bool {
        matches!(&self.state, State::Following(Following { link: Link::Streaming(current), .. }) if *current == subscription)
    }

    /// True when the log grows with the leader's.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        matches!(&self.state, State::Following(Following { link: Link::Streaming(_), .. }))
    }

    /// The leader's commit position, as far as this follower has heard.
    #[must_use]
    pub fn leader_commit(&self) -> LogPosition {
        match &self.state {
            State::Following(following) => following.leader_commit,
            _ => self.commit_position,
        }
    }

    pub(super) fn tick_following(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        let member = self.may_stand();
        let State::Following(following) = &mut self.state else { return };
        let Some(leader) = following.leader else { return };
        // A member looks for another leader when this one is silent; a clone has only this to try.
        let silent = !member && self.leader_heard.is_some() && now >= self.election_deadline;
        if !silent && following.retry_at.is_none_or(|retry_at| now < retry_at) {
            return;
        }
        if following.link != Link::Down {
            effects.push(Effect::Unfollow);
        }
        self.leader_heard = None;
        self.connect(now, leader, effects);
    }

    /// Messages of a leader; others are not for a follower.
    pub(super) fn handle_leader_message(
        &mut self,
        now: Ticks,
        from: NodeId,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        match &self.state {
            State::Following(following) if following.leader == Some(from) => {}
            _ => return,
        }
        match message {
            Message::Subscribed { term, subscription, start } => {
                if self.agree_on_term(now, from, term, effects) {
                    self.subscribed(now, subscription, start, effects);
                }
            }
            Message::Heartbeat { term, round, commit_position } => {
                if self.agree_on_term(now, from, term, effects) {
                    self.heartbeat_heard(from, round, commit_position, effects);
                } else {
                    self.push_gated(self.heartbeat_answer(from, round), effects);
                }
            }
            Message::Refused { term, .. } => {
                if term > self.term {
                    self.adopt_leader_term(term, effects);
                }
                // Whoever goes on naming it is not believed for a while, or the two would meet without end.
                self.refused = Some((from, term, now.after(self.options.election_timeout)));
                self.forget_leader(now, effects);
            }
            Message::Subscribe { .. } | Message::Acknowledge { .. } | Message::HeartbeatAnswer { .. } => {}
        }
    }

    pub(super) fn acknowledge(&mut self, effects: &mut Vec<Effect>) {
        let State::Following(following) = &self.state else {
            return;
        };
        let (Link::Streaming(subscription), Some(leader)) = (&following.link, following.leader) else {
            return;
        };
        let message =
            Message::Acknowledge { term: self.term, subscription: *subscription, position: self.durable_position() };
        self.push_gated(Effect::Send { to: leader, message }, effects);
    }

    pub(super) fn follow_commit(&mut self, effects: &mut Vec<Effect>) {
        let State::Following(following) = &self.state else {
            return;
        };
        if !matches!(following.link, Link::Streaming(_)) {
            return;
        }
        let position = following.leader_commit.min(self.flushed);
        if position > self.commit_position {
            self.commit_position = position;
            effects.push(Effect::Commit { position });
        }
        self.poll_suspicion(effects);
    }

    /// Suspect no more: see [`election`](super::election).
    fn poll_suspicion(&mut self, effects: &mut Vec<Effect>) {
        let State::Following(following) = &self.state else {
            return;
        };
        let in_own_term = |epoch: Epoch| epoch.term == self.term && self.commit_position > epoch.position;
        let leader_knew = self.epochs.last().is_some_and(in_own_term) || self.trusts_any_commit();
        if leader_knew && following.first_commit.is_some_and(|first| self.commit_position >= first) {
            self.clear_suspicion(effects);
        }
    }

    fn trusts_any_commit(&self) -> bool {
        #[cfg(test)]
        return self.options.planted == Some(super::PlantedBug::SuspectClearedEarly);
        #[cfg(not(test))]
        false
    }

    /// The operator takes this node's log for what it is: what it may have acknowledged and lost is given up.
    ///
    /// # Errors
    /// Says why not, for people.
    pub fn trust_log(&mut self, effects: &mut Vec<Effect>) -> Result<(), String> {
        if !self.is_suspect {
            return Err("this node is not suspect: there is nothing to trust".to_owned());
        }
        self.clear_suspicion(effects);
        Ok(())
    }

    pub(super) fn clear_suspicion(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.is_suspect) {
            effects.push(Effect::Cleared);
        }
    }

    fn durable_position(&self) -> LogPosition {
        #[cfg(test)]
        if self.options.planted == Some(super::PlantedBug::AcknowledgeBeforeFlush) {
            return self.log_end;
        }
        self.flushed
    }

    fn follow(&mut self, now: Ticks, leader: NodeId, effects: &mut Vec<Effect>) {
        let deadline = self.election_deadline;
        self.follow_nobody(now, effects);
        // A hint is no sign of life: the election comes when it would have come. Only an attempt that a hint ended
        // must leave time for the leader to answer.
        let patience = now.after(self.options.election_timeout / 2 + self.jitter());
        self.election_deadline = deadline.max(patience);
        self.connect(now, leader, effects);
    }

    fn connect(&mut self, now: Ticks, leader: NodeId, effects: &mut Vec<Effect>) {
        let retry_at = Some(now.after(self.options.election_timeout));
        self.state = State::Following(Following {
            leader: Some(leader),
            link: Link::Connecting,
            retry_at,
            ..Following::default()
        });
        effects.push(Effect::Follow { leader });
        effects.push(Effect::Changed);
    }

    /// What was to be said to the leader is lost: only a new subscription makes up for that. It is tried when the next
    /// election is due.
    pub(super) fn drop_leader_link(&mut self, effects: &mut Vec<Effect>) {
        let deadline = self.election_deadline;
        if let State::Following(following) = &mut self.state
            && !matches!(following.link, Link::Down | Link::Connecting)
        {
            following.link = Link::Down;
            following.retry_at = Some(deadline);
            self.leader_heard = None;
            effects.push(Effect::Unfollow);
            effects.push(Effect::Changed);
        }
    }

    /// The leader would not have us, or is none: look for another.
    fn forget_leader(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        let deadline = self.election_deadline;
        self.follow_nobody(now, effects);
        self.election_deadline = deadline;
    }

    /// True when `term` is ours, or was higher and is now. A leader of an old term gets no obedience.
    fn agree_on_term(&mut self, now: Ticks, from: NodeId, term: Term, effects: &mut Vec<Effect>) -> bool {
        debug_assert_eq!(self.following_leader(), Some(from));
        if term < self.term {
            return false;
        }
        if term > self.term {
            self.adopt_leader_term(term, effects);
            if !matches!(&self.state, State::Following(Following { link: Link::Subscribing(_), .. })) {
                // What the subscription of the old term delivered does not count in the new one: subscribe again.
                effects.push(Effect::Unfollow);
                self.connect(now, from, effects);
                return false;
            }
        }
        let new = self.leader_heard.is_none();
        self.leader_alive(now);
        if new {
            effects.push(Effect::Changed);
        }
        true
    }

    /// A leader of a higher term spoke on the link that we hold to it: stay with it.
    fn adopt_leader_term(&mut self, term: Term, effects: &mut Vec<Effect>) {
        self.term = term;
        self.voted_for = None;
        self.save(effects);
        effects.push(Effect::Changed);
    }

    /// This node's place among the members without `lost`; behind all of them for those that stand last.
    fn rank(&self, lost: NodeId) -> u32 {
        if self.stands_last() {
            return u32::try_from(self.members().len()).expect("few members");
        }
        let before = |member: &&NodeId| **member != lost && **member < self.options.node;
        u32::try_from(self.members().iter().filter(before).count()).expect("few members")
    }

    fn following_leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Following(following) => following.leader,
            _ => None,
        }
    }

    fn leader_alive(&mut self, now: Ticks) {
        self.leader_heard = Some(now);
        self.election_deadline = now.after(self.options.election_timeout + self.jitter());
    }

    fn subscribed(&mut self, now: Ticks, subscription: Guid, start: LogPosition, effects: &mut Vec<Effect>) {
        let State::Following(following) = &mut self.state else {
            return;
        };
        if following.link != Link::Subscribing(subscription) {
            return;
        }
        #[cfg(test)]
        let is_careless = self.options.planted == Some(super::PlantedBug::TruncateBelowCommit);
        #[cfg(not(test))]
        let is_careless = false;
        if start < self.commit_position && !is_careless {
            let reason = format!(
                "the leader wants the log cut at {start}, but it is committed up to {}: this node or the cluster has lost \
                 data that was acknowledged; keep this data directory and compare the nodes' logs before anything else",
                self.commit_position
            );
            effects.push(Effect::Fatal { reason });
            return;
        }
        if start > self.log_end {
            // The leader misread our log. Begin anew rather than leave a gap.
            self.forget_leader(now, effects);
            return;
        }
        following.link = Link::Truncating(subscription);
        following.retry_at = None;
        self.epochs.truncate(start);
        self.cut_lists(start);
        self.log_end = start;
        self.flushed = self.flushed.min(start);
        effects.push(Effect::Truncate { to: start });
    }

    fn heartbeat_heard(&mut self, from: NodeId, round: u64, commit: LogPosition, effects: &mut Vec<Effect>) {
        let State::Following(following) = &mut self.state else {
            return;
        };
        following.leader_commit = following.leader_commit.max(commit);
        following.first_commit.get_or_insert(commit);
        let news = round > following.answered_round;
        following.answered_round = following.answered_round.max(round);
        self.follow_commit(effects);
        if news {
            self.push_gated(self.heartbeat_answer(from, round), effects);
        }
    }

    /// While this node can make no new chunk: how far it can write the log. The leader hears it with each answer to a
    /// heartbeat, and at once when that begins or ends.
    pub fn note_room(&mut self, full_from: Option<LogPosition>, effects: &mut Vec<Effect>) {
        let is_news = full_from.is_some() != self.full_from.is_some();
        self.full_from = full_from;
        if is_news {
            self.tell_leader(effects);
        }
    }

    /// Whether this node could take writes if it led, which it cannot while its index is being made again. Told to
    /// the leader like [`Replica::note_room`].
    pub fn note_ready(&mut self, is_ready: bool, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.is_ready, is_ready) != is_ready {
            self.tell_leader(effects);
        }
    }

    /// Repeats the last answer to a heartbeat, with the news that it carries.
    fn tell_leader(&mut self, effects: &mut Vec<Effect>) {
        if let State::Following(Following { link: Link::Streaming(_), leader: Some(leader), answered_round, .. }) =
            self.state
        {
            self.push_gated(self.heartbeat_answer(leader, answered_round), effects);
        }
    }

    fn heartbeat_answer(&self, to: NodeId, round: u64) -> Effect {
        let (term, flush_micros, full_from, is_ready) = (self.term, self.flush_micros, self.full_from, self.is_ready);
        Effect::Send { to, message: Message::HeartbeatAnswer { term, round, flush_micros, full_from, is_ready } }
    }

    fn cut_lists(&mut self, start: LogPosition) {
        #[cfg(test)]
        if self.options.planted == Some(super::PlantedBug::CutListKept) {
            return;
        }
        self.lists.truncate(start);
    }
}
