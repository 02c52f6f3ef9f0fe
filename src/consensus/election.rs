//! Standing for election and voting (Raft 3.4, 3.6; pre-vote 9.6; transfer 3.10).
//!
//! # Suspect nodes
//!
//! A node is *suspect* when recovery found that its disk has lost what had been flushed: it may have acknowledged records
//! that it does not have. Raft's argument for elections (whoever has the votes of a majority has all that is committed,
//! because one of them has) does not hold over such a node. So a candidate wins with
//!
//! - a majority of the members by votes of nodes that are not suspect: these have lost nothing, and the argument holds as if
//!   the suspect ones had not voted; or
//! - the votes of *all* members, suspect or not: then its log is at least as new as every other one. What is committed and
//!   still on any disk of the cluster, it has; and what is on none, nobody can save.
//!
//! While the last list of its log is not known to be committed, "all" are those of the list before, too. Else the one whom
//! the last list leaves out might be the only one that still has what a later leader committed by the list before, without
//! ever hearing of the last one. (Such nodes are asked when the first suspect vote is there: a sound majority of the last
//! list does not need them. A list that none of the candidate's voters has a record of any more, nobody can count by.)
//!
//! A suspect node's own vote for itself is one of a suspect node. Its votes are durable like any other's, so there is one
//! leader in a term.
//!
//! It is cleared when it can have acknowledged nothing that it lacks: as a follower, once it has all that its leader
//! had committed when it subscribed, and a record of the leader's own term among that (before it has one committed a
//! leader does not know what is); or when it is elected. What it acknowledges as a follower counts at once: that
//! is on its disk now.
//!
//! So the cluster goes on without asking anyone while a majority is sound. After a power cut that all disks lie about, all
//! are suspect, and the first election needs all of them; if one of these never comes back, nobody can know whether
//! it alone had something, and the operator must decide ([`Replica::trust_log`], `ringstore admin trust`).

use std::time::Duration;

use crate::limits::{HAND_OVER_PAUSE, URGENT_HAND_OVER_PAUSE};
use crate::types::{NodeId, Ticks};

use super::effects::Effect;
use super::leading::Leading;
use super::message::{TransferRequest, VoteRequest, VoteResponse};
use super::replica::{Replica, State, Votes};

impl Replica {
    pub(super) fn tick_election(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        if now >= self.election_deadline && self.may_stand() {
            self.start_pre_vote(now, effects);
        }
    }

    /// A peer asks for a vote or pre-vote; the answer comes as [`Effect::AnswerVote`], after the vote is durable.
    pub fn handle_vote_request(
        &mut self,
        now: Ticks,
        token: u64,
        pre: bool,
        request: VoteRequest,
        effects: &mut Vec<Effect>,
    ) {
        let granted = if !self.is_plausible(request.term) {
            false
        } else if pre {
            self.would_vote(now, &request)
        } else {
            self.vote(now, &request, effects)
        };
        let leader = self.leader().filter(|_| self.hears_leader(now));
        let is_suspect = self.is_suspect;
        let response = VoteResponse { voter: self.options.node, term: self.term, granted, leader, is_suspect };
        self.push_gated(Effect::AnswerVote { token, response }, effects);
    }

    /// A member answered our request for a vote in `term`.
    pub fn handle_vote_answer(
        &mut self,
        now: Ticks,
        pre: bool,
        term: crate::types::Term,
        response: VoteResponse,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_plausible(response.term) {
            return;
        }
        if response.term > self.term && !(pre && response.granted) {
            self.adopt_term(now, response.term, effects);
            if let Some(leader) = response.leader {
                self.handle_leader_named(now, leader, effects);
            }
            return;
        }
        if let (State::PreCandidate(_), Some(leader)) = (&self.state, response.leader) {
            self.handle_leader_named(now, leader, effects);
        }
        if !response.granted || !(self.has_member(response.voter) || self.left_out().contains(&response.voter)) {
            return;
        }
        let is_first_suspect = match &mut self.state {
            State::PreCandidate(votes) if pre && term == self.term.next() => votes.add(&response),
            State::Candidate(votes) if !pre && term == self.term => votes.add(&response),
            _ => return,
        };
        if is_first_suspect {
            self.ask_left_out(effects);
        }
        self.count_votes(now, effects);
    }

    /// The leader asks this replica to take over.
    ///
    /// # Errors
    /// Says why not, for people.
    pub fn handle_transfer(
        &mut self,
        now: Ticks,
        request: TransferRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        if request.cluster != self.options.cluster {
            return Err(format!("this node belongs to cluster {}", self.options.cluster));
        }
        if request.term != self.term || self.leader() != Some(request.leader) {
            return Err(format!("{} is not the leader of term {} here", request.leader, self.term));
        }
        if !self.is_member() {
            return Err("this node is not a voting member".to_owned());
        }
        if self.is_suspect {
            return Err("this node may have lost acknowledged writes and is not sure yet to have them again".to_owned());
        }
        self.stand(now, true, effects);
        Ok(())
    }

    /// Asks the others whether they would vote: without a majority nobody's term grows.
    fn start_pre_vote(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        self.follow_nobody(now, effects);
        self.state = State::PreCandidate(self.own_vote());
        self.election_deadline = now.after(self.retry_pause());
        let request = self.vote_request(self.term.next(), false);
        for to in self.others() {
            self.push_gated(Effect::RequestVote { to, pre: true, request }, effects);
        }
        if self.is_suspect {
            self.ask_left_out(effects);
        }
        self.count_votes(now, effects);
    }

    /// Stands in a new term of its own.
    pub(super) fn stand(&mut self, now: Ticks, transfer: bool, effects: &mut Vec<Effect>) {
        self.follow_nobody(now, effects);
        self.term = self.term.next();
        self.is_handed_over = transfer;
        self.voted_for = Some(self.options.node);
        self.save(effects);
        self.state = State::Candidate(self.own_vote());
        self.election_deadline = now.after(self.retry_pause());
        let request = self.vote_request(self.term, transfer);
        for to in self.others() {
            self.push_gated(Effect::RequestVote { to, pre: false, request }, effects);
        }
        if self.is_suspect {
            self.ask_left_out(effects);
        }
        effects.push(Effect::Changed);
        self.count_votes(now, effects);
    }

    pub(super) fn count_votes(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        match &self.state {
            State::PreCandidate(votes) if self.is_won(votes) => self.stand(now, false, effects),
            // Its own vote counts only once it is durable.
            State::Candidate(votes) if self.is_won(votes) && self.save_done == self.save_asked => {
                self.become_leader(now, effects);
            }
            _ => {}
        }
    }

    /// Whom the list in force leaves out, which may never be committed: their votes count for unanimity only.
    fn left_out(&self) -> Vec<NodeId> {
        let before = self.lists.before().filter(|_| self.is_change_pending() && !self.forgets_left_out());
        let is_left_out = |node: &NodeId| *node != self.options.node && !self.has_member(*node);
        before.map_or_else(Vec::new, |before| before.iter().copied().filter(is_left_out).collect())
    }

    fn ask_left_out(&mut self, effects: &mut Vec<Effect>) {
        let (pre, request) = match &self.state {
            State::PreCandidate(_) => (true, self.vote_request(self.term.next(), false)),
            State::Candidate(_) => (false, self.vote_request(self.term, self.is_handed_over)),
            State::Following(_) | State::Leading(_) => return,
        };
        for to in self.left_out() {
            self.push_gated(Effect::RequestVote { to, pre, request }, effects);
        }
    }

    fn forgets_left_out(&self) -> bool {
        #[cfg(test)]
        return self.options.planted == Some(super::PlantedBug::LeftOutForgotten);
        #[cfg(not(test))]
        false
    }

    /// Only members count: not a node that stands although the list leaves it out.
    fn is_won(&self, votes: &Votes) -> bool {
        let members = self.members();
        let has_granted = |member: &&NodeId| votes.granted.contains(*member);
        let is_sound = |member: &&NodeId| !votes.suspects.contains(*member) || self.trusts_suspects();
        let sound = members.iter().filter(has_granted).filter(is_sound).count();
        let left_out = self.left_out();
        let mut all = members.iter().chain(&left_out);
        sound >= self.majority() || (!members.is_empty() && all.all(|member| has_granted(&member)))
    }

    fn trusts_suspects(&self) -> bool {
        #[cfg(test)]
        return self.options.planted == Some(super::PlantedBug::SuspectCounted);
        #[cfg(not(test))]
        false
    }

    fn own_vote(&self) -> Votes {
        let granted = vec![self.options.node];
        let suspects = if self.is_suspect { granted.clone() } else { Vec::new() };
        Votes { granted, suspects }
    }

    fn become_leader(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        self.clear_suspicion(effects);
        let mut leading = Leading::new(now);
        if self.is_handed_over {
            // Whoever gave it away had a reason; to hand it back at once would be a dance.
            leading.no_wish_before = now.after(HAND_OVER_PAUSE);
            leading.no_urgent_wish_before = now.after(URGENT_HAND_OVER_PAUSE);
        }
        self.state = State::Leading(Box::new(leading));
        effects.push(Effect::Lead { term: self.term });
        effects.push(Effect::Changed);
    }

    /// A pre-vote: no state changes.
    fn would_vote(&self, now: Ticks, request: &VoteRequest) -> bool {
        self.may_vote_for(request) && request.term > self.term && !self.hears_leader(now)
    }

    fn vote(&mut self, now: Ticks, request: &VoteRequest, effects: &mut Vec<Effect>) -> bool {
        if request.cluster != self.options.cluster || (self.hears_leader(now) && !request.transfer) {
            return false;
        }
        if request.term > self.term {
            self.adopt_term(now, request.term, effects);
        }
        let free = self.voted_for.is_none_or(|voted_for| voted_for == request.candidate);
        #[cfg(test)]
        let free = free || self.options.planted == Some(super::PlantedBug::VoteTwice);
        if request.term < self.term || !free || !self.may_vote_for(request) {
            return false;
        }
        if self.voted_for.is_none() {
            self.voted_for = Some(request.candidate);
            self.save(effects);
        }
        self.election_deadline = now.after(self.options.election_timeout + self.jitter());
        true
    }

    /// The candidate is of our cluster and its log is at least as new as ours (5.4.1). Whether it is a member is for its own
    /// log to say, which may know a newer list than ours (thesis 4.1); likewise whether our vote counts.
    fn may_vote_for(&self, request: &VoteRequest) -> bool {
        #[cfg(test)]
        if self.options.planted == Some(super::PlantedBug::VoteForShorterLog) {
            return true;
        }
        request.cluster == self.options.cluster
            && (request.last_term, request.log_end) >= (self.epochs.last_term(), self.log_end.0)
    }

    /// Leader stickiness: who hears a leader helps nobody to depose it.
    fn hears_leader(&self, now: Ticks) -> bool {
        self.is_leader() || self.leader_heard.is_some_and(|heard| now.since(heard) < self.options.election_timeout)
    }

    fn vote_request(&self, term: crate::types::Term, transfer: bool) -> VoteRequest {
        VoteRequest {
            cluster: self.options.cluster,
            candidate: self.options.node,
            term,
            last_term: self.epochs.last_term(),
            log_end: self.log_end.0,
            transfer,
            is_suspect: self.is_suspect,
        }
    }

    /// How long an attempt may take before the next: long enough for an answer, and different for each node.
    fn retry_pause(&mut self) -> Duration {
        self.options.election_timeout / 4 + self.jitter() / 2
    }
}

impl Votes {
    /// True when this is the first vote of a suspect node.
    fn add(&mut self, response: &VoteResponse) -> bool {
        if self.granted.contains(&response.voter) {
            return false;
        }
        self.granted.push(response.voter);
        if response.is_suspect {
            self.suspects.push(response.voter);
        }
        response.is_suspect && self.suspects.len() == 1
    }
}
