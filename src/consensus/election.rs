//! Standing for election and voting (Raft 3.4, 3.6; pre-vote 9.6; transfer 3.10).

use std::time::Duration;

use crate::types::{NodeId, Ticks};

use super::effects::Effect;
use super::leading::Leading;
use super::message::{TransferRequest, VoteRequest, VoteResponse};
use super::replica::{Replica, State, Votes};

impl Replica {
    pub(super) fn tick_election(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        if now >= self.election_deadline && self.is_member() {
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
        let response = VoteResponse { voter: self.options.node, term: self.term, granted, leader };
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
        if !response.granted || !self.has_member(response.voter) {
            return;
        }
        match &mut self.state {
            State::PreCandidate(votes) if pre && term == self.term.next() => add(votes, response.voter),
            State::Candidate(votes) if !pre && term == self.term => add(votes, response.voter),
            _ => return,
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
        self.stand(now, true, effects);
        Ok(())
    }

    /// Asks the others whether they would vote: without a majority nobody's term grows.
    fn start_pre_vote(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        self.follow_nobody(now, effects);
        self.state = State::PreCandidate(Votes { granted: vec![self.options.node] });
        self.election_deadline = now.after(self.retry_pause());
        let request = self.vote_request(self.term.next(), false);
        for to in self.others() {
            self.push_gated(Effect::RequestVote { to, pre: true, request }, effects);
        }
        self.count_votes(now, effects);
    }

    /// Stands in a new term of its own.
    fn stand(&mut self, now: Ticks, transfer: bool, effects: &mut Vec<Effect>) {
        self.follow_nobody(now, effects);
        self.term = self.term.next();
        self.voted_for = Some(self.options.node);
        self.save(effects);
        self.state = State::Candidate(Votes { granted: vec![self.options.node] });
        self.election_deadline = now.after(self.retry_pause());
        let request = self.vote_request(self.term, transfer);
        for to in self.others() {
            self.push_gated(Effect::RequestVote { to, pre: false, request }, effects);
        }
        effects.push(Effect::Changed);
        self.count_votes(now, effects);
    }

    pub(super) fn count_votes(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        let majority = self.majority();
        match &self.state {
            State::PreCandidate(votes) if votes.granted.len() >= majority => self.stand(now, false, effects),
            // Its own vote counts only once it is durable.
            State::Candidate(votes) if votes.granted.len() >= majority && self.save_done == self.save_asked => {
                self.become_leader(now, effects);
            }
            _ => {}
        }
    }

    fn become_leader(&mut self, now: Ticks, effects: &mut Vec<Effect>) {
        self.state = State::Leading(Box::new(Leading::new(now)));
        effects.push(Effect::Lead { term: self.term });
        effects.push(Effect::Changed);
    }

    /// A pre-vote: no state changes.
    fn would_vote(&self, now: Ticks, request: &VoteRequest) -> bool {
        self.may_vote_for(request) && request.term > self.term && !self.hears_leader(now)
    }

    fn vote(&mut self, now: Ticks, request: &VoteRequest, effects: &mut Vec<Effect>) -> bool {
        let belongs = request.cluster == self.options.cluster && self.has_member(request.candidate);
        if !belongs || (self.hears_leader(now) && !request.transfer) {
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

    /// The candidate is one of us and its log is at least as new as ours (5.4.1).
    fn may_vote_for(&self, request: &VoteRequest) -> bool {
        #[cfg(test)]
        if self.options.planted == Some(super::PlantedBug::VoteForShorterLog) {
            return true;
        }
        request.cluster == self.options.cluster
            && self.has_member(request.candidate)
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
        }
    }

    /// How long an attempt may take before the next: long enough for an answer, and different for each node.
    fn retry_pause(&mut self) -> Duration {
        self.options.election_timeout / 4 + self.jitter() / 2
    }
}

fn add(votes: &mut Votes, voter: NodeId) {
    if !votes.granted.contains(&voter) {
        votes.granted.push(voter);
    }
}
