//! The leader's duties: serve followers, count what is durable where, keep or lose the quorum.

use std::collections::BTreeMap;

use crate::types::{Epoch, Guid, LogPosition, NodeId, Term, Ticks};

use super::effects::Effect;
use super::handing_over::{Transfer, Wish};
use super::message::Message;
use super::replica::{Replica, State};

/// What the leader knows of one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tracked {
    /// The subscription that counts.
    pub subscription: Guid,
    /// Durable there, in this subscription.
    pub acknowledged: LogPosition,
    /// The last message from it.
    pub heard: Ticks,
    /// The last heartbeat round that it answered.
    pub answered_round: u64,
    /// False since its link broke.
    pub linked: bool,
    /// Its `NodePriority`, as it last said.
    pub priority: i32,
    /// How long its flushes take, as it last said, microseconds.
    pub flush_micros: u64,
    /// Set while it can make no new chunk, as it last said: how far it can write the log.
    pub full_from: Option<LogPosition>,
    /// It could take writes if it led, as it last said; false until it has said so.
    pub is_ready: bool,
    /// It would not take over when it was asked; until then others are asked before it, unless by name.
    pub(super) declined_until: Option<Ticks>,
}

/// The state of a leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leading {
    since: Ticks,
    pub(super) next_heartbeat: Ticks,
    round: u64,
    confirmed_round: u64,
    followers: BTreeMap<NodeId, Tracked>,
    pub(super) transfer: Option<Transfer>,
    /// What it would do by itself, and when it may at the earliest.
    pub(super) wish: Option<Wish>,
    pub(super) no_wish_before: Ticks,
    /// The same when it cannot take writes.
    pub(super) no_urgent_wish_before: Ticks,
    /// The list without this leader is committed, and it has asked a successor.
    pub(super) is_leaving: bool,
}

impl Leading {
    pub(super) fn new(now: Ticks) -> Leading {
        Leading {
            since: now,
            next_heartbeat: now,
            round: 0,
            confirmed_round: 0,
            followers: BTreeMap::new(),
            transfer: None,
            wish: None,
            no_wish_before: now,
            no_urgent_wish_before: now,
            is_leaving: false,
        }
    }

    pub(super) fn tracked(&self, node: NodeId) -> Option<&Tracked> {
        self.followers.get(&node)
    }

    pub(super) fn tracked_mut(&mut self, node: NodeId) -> Option<&mut Tracked> {
        self.followers.get_mut(&node)
    }

    pub(super) fn link_down(&mut self, peer: NodeId) {
        if let Some(tracked) = self.followers.get_mut(&peer) {
            tracked.linked = false;
        }
    }
}

impl Replica {
    /// A message that arrived on the control link with `from`.
    pub fn handle_message(&mut self, now: Ticks, from: NodeId, message: Message, effects: &mut Vec<Effect>) {
        if !self.is_plausible(message.term()) {
            return;
        }
        match message {
            // A follower that would have to cut what is committed says so itself, and stops: its operator must know.
            Message::Subscribe { term, subscription, epochs, log_end, priority, .. } => {
                self.subscribe(now, from, term, subscription, (&epochs, log_end), effects);
                self.note_priority(from, priority);
            }
            Message::Acknowledge { term, subscription, position } => {
                if self.hear_follower(now, from, term, effects) {
                    self.acknowledged(from, subscription, position, effects);
                }
            }
            Message::HeartbeatAnswer { term, round, flush_micros, full_from, is_ready } => {
                if self.hear_follower(now, from, term, effects) {
                    self.note_state(from, (flush_micros, full_from, is_ready), effects);
                    self.round_answered(from, round, effects);
                }
            }
            other => self.handle_leader_message(now, from, other, effects),
        }
    }

    /// Starts a heartbeat round that proves leadership; [`Effect::Confirmed`] brings its number back. `None` when this
    /// replica does not lead.
    pub fn confirm(&mut self, effects: &mut Vec<Effect>) -> Option<u64> {
        let State::Leading(_) = &self.state else {
            return None;
        };
        self.send_heartbeats(true, effects);
        let State::Leading(leading) = &self.state else {
            return None;
        };
        let round = leading.round;
        self.count_rounds(effects);
        Some(round)
    }

    /// How far a majority of the members can write the log if this one can: the highest position as long as no follower is
    /// known to be full. Once one is, members that are silent count as full too, as nothing gets committed with them.
    #[must_use]
    pub fn quorum_room(&self, now: Ticks) -> LogPosition {
        let unlimited = LogPosition(u64::MAX);
        let State::Leading(leading) = &self.state else {
            return unlimited;
        };
        // Asked for each append, and nearly always so.
        if leading.followers.values().all(|tracked| tracked.full_from.is_none()) {
            return unlimited;
        }
        let room = |member: &NodeId| match leading.followers.get(member) {
            _ if *member == self.options.node => unlimited,
            Some(tracked) if now.since(tracked.heard) < self.options.election_timeout => {
                tracked.full_from.unwrap_or(unlimited)
            }
            _ => LogPosition::ZERO,
        };
        self.reached_by_majority(room).unwrap_or(unlimited)
    }

    /// What a leader knows of its followers.
    pub fn followers(&self) -> impl Iterator<Item = (NodeId, Tracked)> + '_ {
        let followers = match &self.state {
            State::Leading(leading) => Some(&leading.followers),
            _ => None,
        };
        followers.into_iter().flatten().map(|(&node, &tracked)| (node, tracked))
    }

    /// The leader's own epoch, once its record is in the log.
    #[must_use]
    pub fn own_epoch(&self) -> Option<Epoch> {
        self.epochs.last().filter(|epoch| self.is_leader() && epoch.term == self.term)
    }

    pub(super) fn tick_leading(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        if now < leading.next_heartbeat {
            return;
        }
        leading.next_heartbeat = now.after(self.options.heartbeat_interval);
        if self.tick_transfer(now, effects) {
            return;
        }
        if self.has_quorum(now) {
            self.poll_wish(now, effects);
            self.send_heartbeats(true, effects);
            self.count_rounds(effects);
        } else {
            self.follow_nobody(now, effects);
        }
    }

    /// Commits what a majority has flushed, if it is of the own term (5.4.2); tells the followers at once.
    pub(super) fn advance_commit(&mut self, effects: &mut Vec<Effect>) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let durable = |member: &NodeId| match leading.followers.get(member) {
            _ if *member == self.options.node => self.flushed,
            Some(tracked) => tracked.acknowledged,
            None => LogPosition::ZERO,
        };
        let majority = self.reached_by_majority(durable).unwrap_or(LogPosition::ZERO).min(self.log_end);
        #[cfg(test)]
        let majority = match self.options.planted {
            Some(super::PlantedBug::CountClones) => majority.max(self.reached_with_clones()),
            _ => majority,
        };
        if majority <= self.commit_position || !self.is_of_own_term(majority) {
            return;
        }
        self.commit_position = majority;
        effects.push(Effect::Commit { position: majority });
        self.send_heartbeats(false, effects);
    }

    /// What so many nodes have as make a majority of the members, whoever they are.
    #[cfg(test)]
    fn reached_with_clones(&self) -> LogPosition {
        let mut reached: Vec<LogPosition> = self.followers().map(|(_, tracked)| tracked.acknowledged).collect();
        reached.push(self.flushed);
        reached.sort_unstable();
        let nth = reached.len().checked_sub(self.majority());
        nth.map_or(LogPosition::ZERO, |nth| reached[nth].min(self.log_end))
    }

    fn is_of_own_term(&self, position: LogPosition) -> bool {
        #[cfg(test)]
        if self.options.planted == Some(super::PlantedBug::CommitOldTerm) {
            return true;
        }
        self.own_epoch().is_some_and(|epoch| position > epoch.position)
    }

    fn subscribe(
        &mut self,
        now: Ticks,
        from: NodeId,
        term: Term,
        subscription: Guid,
        (epochs, log_end): (&[Epoch], LogPosition),
        effects: &mut Vec<Effect>,
    ) {
        if term > self.term && self.has_member(from) {
            self.adopt_term(now, term, effects);
        }
        let start = if term > self.term {
            // Who is no member deposes nobody.
            Err(format!(
                "term {term} is ahead of the leader's {}: a clone follows again once a leader is in that term",
                self.term
            ))
        } else if self.is_leader() {
            self.epochs.common_end(self.log_end, epochs, log_end).map_err(|error| error.to_string())
        } else {
            Err(format!("{} does not lead term {}", self.options.node, self.term))
        };
        #[cfg(test)]
        let start = match self.options.planted {
            Some(super::PlantedBug::TruncateBelowCommit) => start.map(|start| self.epochs.start_before(start)),
            _ => start,
        };
        let answer = match &start {
            Ok(start) => Message::Subscribed { term: self.term, subscription, start: *start },
            Err(reason) => Message::Refused { term: self.term, reason: reason.clone() },
        };
        match &answer {
            Message::Refused { .. } => effects.push(Effect::Send { to: from, message: answer }),
            _ => self.push_gated(Effect::Send { to: from, message: answer }, effects),
        }
        match start {
            Ok(start) => self.track(now, from, subscription, start, effects),
            Err(_) => {
                // Not held back: after a slow save it could hit a newer link.
                effects.push(Effect::DropFollower { follower: from });
                self.outgrow(now, term, effects);
            }
        }
    }

    /// Who is no member deposes nobody. But one that stood for election before it heard that it had been removed is in a
    /// higher term, and could not copy the log for as long as this leader leads. So the leader stands itself, in a
    /// term above that: it has the whole log, and its followers vote for it as for a successor. That happens once, as
    /// nobody's term grows who is no member.
    fn outgrow(&mut self, now: Ticks, term: Term, effects: &mut Vec<Effect>) {
        let is_settled = self.has_committed_in_term() && !self.is_change_pending() && !self.is_resigning();
        let is_sound = self.is_member() && self.full_from.is_none() && self.has_quorum(now);
        if self.is_leader() && term > self.term && is_settled && is_sound {
            self.term = term;
            self.stand(now, true, effects);
        }
    }

    fn track(&mut self, now: Ticks, from: NodeId, subscription: Guid, start: LogPosition, effects: &mut Vec<Effect>) {
        let (term, commit_position) = (self.term, self.commit_position);
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let acknowledged = LogPosition::ZERO;
        let answered_round = 0;
        // A new link does not make room. But a new process says for itself whether its index is complete.
        let known = leading.tracked(from);
        let full_from = known.and_then(|tracked| tracked.full_from);
        let declined_until = known.and_then(|tracked| tracked.declined_until);
        leading.followers.insert(
            from,
            Tracked {
                subscription,
                acknowledged,
                heard: now,
                answered_round,
                linked: true,
                priority: 0,
                flush_micros: 0,
                full_from,
                is_ready: false,
                declined_until,
            },
        );
        effects.push(Effect::Serve { follower: from, subscription, start });
        let message = Message::Heartbeat { term, round: leading.round, commit_position };
        effects.push(Effect::Send { to: from, message });
        effects.push(Effect::Changed);
    }

    fn note_priority(&mut self, from: NodeId, priority: i32) {
        if let State::Leading(leading) = &mut self.state
            && let Some(tracked) = leading.followers.get_mut(&from)
        {
            tracked.priority = priority;
        }
    }

    /// True when a follower of our own term speaks; a member of a higher term deposes us.
    fn hear_follower(&mut self, now: Ticks, from: NodeId, term: Term, effects: &mut Vec<Effect>) -> bool {
        if term > self.term && self.has_member(from) && self.is_leader() {
            self.adopt_term(now, term, effects);
            return false;
        }
        let State::Leading(leading) = &mut self.state else {
            return false;
        };
        let Some(tracked) = leading.followers.get_mut(&from) else {
            return false;
        };
        if term == self.term {
            tracked.heard = now;
        }
        term == self.term
    }

    fn acknowledged(&mut self, from: NodeId, subscription: Guid, position: LogPosition, effects: &mut Vec<Effect>) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let Some(tracked) = leading.followers.get_mut(&from) else {
            return;
        };
        if tracked.subscription != subscription || position <= tracked.acknowledged {
            return;
        }
        if position > self.log_end {
            let reason = format!("{from} acknowledges {position} of a log that ends at {}", self.log_end);
            effects.push(Effect::Send { to: from, message: Message::Refused { term: self.term, reason } });
            effects.push(Effect::DropFollower { follower: from });
            return;
        }
        tracked.acknowledged = position;
        self.advance_commit(effects);
        self.drive_transfer(effects);
    }

    /// What a follower says of its disk, and whether its index is complete.
    fn note_state(
        &mut self,
        from: NodeId,
        (flush_micros, full_from, is_ready): (u64, Option<LogPosition>, bool),
        effects: &mut Vec<Effect>,
    ) {
        if let State::Leading(leading) = &mut self.state
            && let Some(tracked) = leading.followers.get_mut(&from)
        {
            if (tracked.full_from.is_some(), tracked.is_ready) != (full_from.is_some(), is_ready) {
                effects.push(Effect::Changed);
            }
            (tracked.flush_micros, tracked.full_from, tracked.is_ready) = (flush_micros, full_from, is_ready);
        }
    }

    fn round_answered(&mut self, from: NodeId, round: u64, effects: &mut Vec<Effect>) {
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let Some(tracked) = leading.followers.get_mut(&from) else {
            return;
        };
        tracked.answered_round = tracked.answered_round.max(round.min(leading.round));
        self.count_rounds(effects);
    }

    fn count_rounds(&mut self, effects: &mut Vec<Effect>) {
        let State::Leading(leading) = &self.state else {
            return;
        };
        let answered = |member: &NodeId| match leading.followers.get(member) {
            _ if *member == self.options.node => leading.round,
            Some(tracked) => tracked.answered_round,
            None => 0,
        };
        let Some(round) = self.reached_by_majority(answered) else {
            return;
        };
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        if round > leading.confirmed_round {
            leading.confirmed_round = round;
            effects.push(Effect::Confirmed { round });
        }
    }

    /// The most that a majority of the members has reached. Members are few and this is asked at each acknowledgement: no
    /// memory is taken for it.
    fn reached_by_majority<T: Copy + Ord>(&self, reached: impl Fn(&NodeId) -> T) -> Option<T> {
        let members = self.members();
        let is_common =
            |least: &T| members.iter().filter(|member| reached(member) >= *least).count() >= self.majority();
        members.iter().map(&reached).filter(is_common).max()
    }

    /// Check-quorum: a leader that hears no majority within the election timeout leads no more.
    fn has_quorum(&self, now: Ticks) -> bool {
        let State::Leading(leading) = &self.state else {
            return false;
        };
        let timeout = self.options.election_timeout;
        let alive = |member: &&NodeId| {
            **member == self.options.node
                || now.since(leading.followers.get(*member).map_or(leading.since, |tracked| tracked.heard)) < timeout
        };
        self.members().iter().filter(alive).count() >= self.majority()
    }

    fn send_heartbeats(&mut self, new_round: bool, effects: &mut Vec<Effect>) {
        let (term, commit_position) = (self.term, self.commit_position);
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        leading.round += u64::from(new_round);
        let message = Message::Heartbeat { term, round: leading.round, commit_position };
        for (&to, _) in leading.followers.iter().filter(|(_, tracked)| tracked.linked) {
            effects.push(Effect::Send { to, message: message.clone() });
        }
    }
}
