//! A leader hands over: because it is asked to, because a member of higher priority has caught up, because its own disk has
//! become slow or full, because its index must be made again, or because the member list leaves it out (Raft thesis 3.10,
//! 4.2.2).
//!
//! It takes no new writes until its successor has the whole log, then asks that to stand for election at once. What the
//! leader itself has flushed does not matter for this: a leader whose disk is stuck can hand over, and its followers commit
//! without it meanwhile, as its disk is one vote like any other.
//!
//! By itself a leader hands over only after it has wanted to for a while, once in a longer while (also counted from when it
//! was handed leadership itself, for whatever reason), never while the
//! member list is being changed, and never to a node that would hand back: priority must be strictly higher, and the
//! successor's disk must not be the slow one, nor full, and its index must be complete, for it could take few writes while that
//! is made again (a full leader, which takes none at all, does without that when nobody else has room). A leader that takes no writes itself, as its disk is full or its index not complete, does not wait, and tries
//! again sooner; a full one only when a majority has room without it, or nothing would be gained.
//!
//! A follower that declines, or is not reached, is not asked again for a few seconds, unless by name or for want of another,
//! and the leader takes writes at once.

use std::fmt::Write as _;
use std::time::Duration;

use crate::limits::{
    CLUSTER_SIZE_MAX, HAND_OVER_PATIENCE, HAND_OVER_PAUSE, SLOW_FLUSH_FACTOR, SLOW_FLUSH_LEAST_MICROS,
    URGENT_HAND_OVER_PAUSE,
};
use crate::types::{NodeId, Term, Ticks};

use super::effects::Effect;
use super::leading::Tracked;
use super::message::TransferRequest;
use super::replica::{Replica, State};

/// A hand-over under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    target: NodeId,
    deadline: Ticks,
    asked: bool,
}

/// Why a leader would rather not lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    /// Another has a higher priority.
    Priority { theirs: i32 },
    /// Its own flushes take far longer than the others'.
    SlowDisk { median_micros: u64, theirs_micros: u64 },
    /// It can make no new chunk.
    FullDisk,
    /// Its index is not complete.
    NotReady,
}

impl Cause {
    /// Clients are refused until another leads.
    fn is_urgent(self) -> bool {
        matches!(self, Cause::FullDisk | Cause::NotReady)
    }
}

/// What a leader wants to do by itself, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    is_for_disk: bool,
    since: Ticks,
}

/// True when flushes that take `micros` are far slower than those that take `others`.
fn is_far_slower(micros: u64, others: u64) -> bool {
    micros > others.saturating_mul(SLOW_FLUSH_FACTOR) && micros > others.saturating_add(SLOW_FLUSH_LEAST_MICROS)
}

impl Replica {
    /// Hands leadership over to `to`, or to the follower that has most; new writes must stop until it is done or given
    /// up.
    ///
    /// # Errors
    /// Says why it cannot, for people.
    pub fn resign(&mut self, now: Ticks, to: Option<NodeId>, effects: &mut Vec<Effect>) -> Result<NodeId, String> {
        let target = self.choose_successor(now, to)?;
        self.begin_transfer(now, target, effects)
    }

    /// Like [`Replica::resign`] to the follower that has most, but to none that has declined lately: for who goes on until
    /// somebody takes over.
    ///
    /// # Errors
    /// As [`Replica::resign`].
    pub fn resign_to_another(&mut self, now: Ticks, effects: &mut Vec<Effect>) -> Result<NodeId, String> {
        let target = self.choose_successor(now, None)?;
        if self.followers().any(|(node, tracked)| node == target && tracked.declines(now)) {
            return Err("all followers that could take over have declined lately".to_owned());
        }
        self.begin_transfer(now, target, effects)
    }

    fn begin_transfer(&mut self, now: Ticks, target: NodeId, effects: &mut Vec<Effect>) -> Result<NodeId, String> {
        let deadline = now.after(self.options.election_timeout);
        let State::Leading(leading) = &mut self.state else {
            return Err("this node does not lead".to_owned());
        };
        leading.transfer = Some(Transfer { target, deadline, asked: false });
        effects.push(Effect::Changed);
        self.drive_transfer(effects);
        Ok(target)
    }

    /// True while leadership is being handed over.
    #[must_use]
    pub fn is_resigning(&self) -> bool {
        matches!(&self.state, State::Leading(leading) if leading.transfer.is_some())
    }

    /// How long flushes take here at the moment, microseconds; told to the leader with each heartbeat's answer.
    pub fn note_flush_time(&mut self, micros: u64) {
        self.flush_micros = micros;
    }

    fn choose_successor(&self, now: Ticks, to: Option<NodeId>) -> Result<NodeId, String> {
        if !self.is_leader() {
            return Err("this node does not lead".to_owned());
        }
        let timeout = self.options.election_timeout;
        let may_lead = |node: &NodeId| self.has_member(*node) && *node != self.options.node;
        let mut fresh = self
            .followers()
            .filter(|(node, tracked)| may_lead(node) && tracked.linked && now.since(tracked.heard) < timeout);
        match to {
            None => {
                let has_room = |tracked: &Tracked| tracked.full_from.is_none() && self.is_caught_up(now, tracked);
                let may_write = |tracked: &Tracked| has_room(tracked) && tracked.is_ready;
                // One that has declined may have thought better of it, or was only not reached: it is the last resort.
                let best = fresh.max_by_key(|(_, tracked)| {
                    (!tracked.declines(now), may_write(tracked), has_room(tracked), tracked.acknowledged)
                });
                best.map(|(node, _)| node).ok_or_else(|| "no follower is connected that could take over".to_owned())
            }
            Some(to) if to == self.options.node => Err(format!("{to} leads already")),
            Some(to) if !self.has_member(to) => Err(format!("{to} is not a voting member and cannot lead")),
            Some(to) if fresh.any(|(node, _)| node == to) => Ok(to),
            Some(to) => Err(format!("{to} is not connected to this leader")),
        }
    }

    /// The follower `from`, asked to take over in `term`, will not, or could not be asked. Whoever hands over leads on, and may
    /// ask another. True: that was so.
    pub fn handle_transfer_declined(
        &mut self,
        now: Ticks,
        from: NodeId,
        term: Term,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let is_own_term = term == self.term;
        let State::Leading(leading) = &mut self.state else {
            return false;
        };
        if !is_own_term || leading.transfer.take_if(|transfer| transfer.asked && transfer.target == from).is_none() {
            return false;
        }
        if let Some(tracked) = leading.tracked_mut(from) {
            tracked.declined_until = Some(now.after(URGENT_HAND_OVER_PAUSE));
        }
        leading.no_urgent_wish_before = now;
        effects.push(Effect::Changed);
        true
    }

    /// Asks the chosen follower to stand for election once it has the whole log: the leader's own epoch, too, or whoever
    /// got that would not vote for it. (A full leader may never get to write it.)
    pub(super) fn drive_transfer(&mut self, effects: &mut Vec<Effect>) {
        if self.own_epoch().is_none() && self.full_from.is_none() {
            return;
        }
        let (cluster, term, leader) = (self.options.cluster, self.term, self.options.node);
        let log_end = self.log_end;
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let Some(mut transfer) = leading.transfer.filter(|transfer| !transfer.asked) else {
            return;
        };
        if leading.tracked(transfer.target).is_some_and(|tracked| tracked.acknowledged == log_end) {
            transfer.asked = true;
            leading.transfer = Some(transfer);
            let request = TransferRequest { cluster, leader, term };
            effects.push(Effect::RequestTransfer { to: transfer.target, request });
        }
    }

    /// Gives a hand-over up whose time is over. True: this replica leads no more.
    pub(super) fn tick_transfer(&mut self, now: Ticks, effects: &mut Vec<Effect>) -> bool {
        let has_left = !self.is_member() && !self.is_change_pending() && self.has_committed_in_term();
        let State::Leading(leading) = &mut self.state else {
            return false;
        };
        if leading.transfer.is_some_and(|transfer| now >= transfer.deadline) {
            leading.transfer = None;
            leading.no_wish_before = now.after(HAND_OVER_PAUSE);
            effects.push(Effect::Changed);
        }
        if !has_left || leading.transfer.is_some_and(|transfer| !transfer.asked) {
            return false;
        }
        // The list without this node is committed: its work is done. It asks a successor once; that does not ask it for its
        // vote, so it does not wait for news either.
        let is_first = !std::mem::replace(&mut leading.is_leaving, true);
        if is_first && leading.transfer.is_none() && self.resign(now, None, effects).is_ok() {
            return false;
        }
        self.follow_nobody(now, effects);
        true
    }

    /// Looks whether another should lead, and after a while hands over to it.
    pub(super) fn poll_wish(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        let is_settled = self.has_committed_in_term() && !self.is_change_pending() && !self.is_resigning();
        let better = if is_settled { self.better_leader(now) } else { None };
        let is_urgent = better.is_some_and(|(_, cause)| cause.is_urgent());
        let patience = if is_urgent || self.is_disk_stuck() { Duration::ZERO } else { HAND_OVER_PATIENCE };
        let State::Leading(leading) = &mut self.state else {
            return;
        };
        let Some((to, cause)) = better else {
            leading.wish = None;
            return;
        };
        let is_for_disk = matches!(cause, Cause::SlowDisk { .. });
        let known = leading.wish.filter(|wish| wish.is_for_disk == is_for_disk);
        let wish = known.unwrap_or(Wish { is_for_disk, since: now });
        leading.wish = Some(wish);
        let not_before = if is_urgent { leading.no_urgent_wish_before } else { leading.no_wish_before };
        if now.since(wish.since) < patience || now < not_before {
            return;
        }
        leading.no_urgent_wish_before = now.after(URGENT_HAND_OVER_PAUSE);
        leading.no_wish_before = now.after(HAND_OVER_PAUSE);
        leading.wish = None;
        if self.resign(now, Some(to), effects).is_ok() {
            effects.push(Effect::HandOver { to, reason: self.words(cause) });
        }
    }

    /// A flush that has been under way for longer than an election takes: no need to wait and see.
    fn is_disk_stuck(&self) -> bool {
        u128::from(self.flush_micros) > self.options.election_timeout.as_micros()
    }

    fn better_leader(&self, now: Ticks) -> Option<(NodeId, Cause)> {
        let ours = self.flush_micros;
        let with_room = || {
            let is_near = |(node, tracked): &(NodeId, Tracked)| {
                let is_other = *node != self.options.node && self.has_member(*node);
                is_other && tracked.full_from.is_none() && self.is_caught_up(now, tracked)
            };
            self.followers().filter(is_near)
        };
        let willing = || with_room().filter(|(_, tracked)| !tracked.declines(now));
        let candidates = || willing().filter(|(_, tracked)| tracked.is_ready);
        let rank = |(_, tracked): &(NodeId, Tracked)| (tracked.priority, tracked.acknowledged);
        let foremost = || candidates().max_by_key(rank);
        if self.full_from.is_some() {
            // Until its first answer nothing is known of a follower's disk.
            let known = with_room().filter(|(_, tracked)| tracked.answered_round > 0);
            if known.count() >= self.majority() {
                // Who has room and no complete index takes some writes, and hands over only to one who has both.
                let best = foremost().or_else(|| willing().max_by_key(rank));
                return best.map(|(node, _)| (node, Cause::FullDisk));
            }
        }
        if !self.is_ready {
            return foremost().map(|(node, _)| (node, Cause::NotReady));
        }
        // Zero: it has not flushed anything since its start.
        let is_measured = |(_, tracked): &(NodeId, Tracked)| tracked.flush_micros > 0;
        let median = median(with_room().filter(is_measured).map(|(_, tracked)| tracked.flush_micros));
        if let Some(median_micros) = median.filter(|median| is_far_slower(ours, *median)) {
            let is_fast = |(_, tracked): &(NodeId, Tracked)| is_far_slower(ours, tracked.flush_micros);
            let measured = candidates().filter(is_measured).filter(is_fast);
            let (node, tracked) = measured.min_by_key(|(_, tracked)| tracked.flush_micros)?;
            return Some((node, Cause::SlowDisk { median_micros, theirs_micros: tracked.flush_micros }));
        }
        let (node, tracked) = candidates()
            .filter(|(_, tracked)| tracked.priority > self.options.priority)
            .filter(|(_, tracked)| !is_far_slower(tracked.flush_micros, ours))
            .max_by_key(|(_, tracked)| tracked.priority)?;
        Some((node, Cause::Priority { theirs: tracked.priority }))
    }

    fn words(&self, cause: Cause) -> String {
        let mut words = String::new();
        let _ = match cause {
            Cause::Priority { theirs } => {
                write!(words, "its NodePriority is {theirs}, this node's {}", self.options.priority)
            }
            Cause::SlowDisk { median_micros, theirs_micros } => write!(
                words,
                "this node's disk is slow: a flush takes {} us, against {median_micros} us at the median of the followers \
                 and {theirs_micros} us there",
                self.flush_micros
            ),
            Cause::FullDisk => write!(
                words,
                "this node's disk is full, or cannot give the log its next file for another reason; a majority has room \
                 without it"
            ),
            Cause::NotReady => write!(
                words,
                "this node's index is not complete and is being made again from the log: writes to streams that it does not \
                 know yet are refused until then"
            ),
        };
        words
    }
}

impl Tracked {
    fn declines(&self, now: Ticks) -> bool {
        self.declined_until.is_some_and(|until| now < until)
    }
}

/// The middle one of a few values, the lower of two. No memory is taken for it.
fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut sorted = [0; CLUSTER_SIZE_MAX];
    let count = values.take(CLUSTER_SIZE_MAX).zip(&mut sorted).map(|(value, place)| *place = value).count();
    let sorted = &mut sorted[..count];
    sorted.sort_unstable();
    sorted.get(count.checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_a_few() {
        let check = |values: &[u64], expected| assert_eq!(median(values.iter().copied()), expected, "{values:?}");
        check(&[], None);
        check(&[7], Some(7));
        check(&[9, 7], Some(7));
        check(&[9, 1, 7], Some(7));
    }

    #[test]
    fn far_slower_is_both_by_factor_and_by_time() {
        let check = |micros, others, expected| assert_eq!(is_far_slower(micros, others), expected, "{micros} {others}");
        check(40_000, 300, false);
        check(60_000, 300, true);
        check(200_000, 100_000, false);
        check(1_000_000, 100_000, true);
    }
}
