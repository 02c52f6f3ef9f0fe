//! Which letters can still matter. Those that cannot are dropped: they would only make states differ that are the same.
//!
//! All of it rests on what only grows: a node's *durable* term (also over a crash), and on one link what was heard on it.

use crate::consensus::harness::node;
use crate::consensus::replica::State;
use crate::consensus::{Message, VoteRequest};
use crate::types::{NodeId, Term};

use super::model::{Bounds, Content, Host, Letter, World, records_to};

impl Host {
    /// True while the vote of `voter` in `term` would count here. A term is stood for once, so never again after that.
    fn wants_vote(&self, term: Term, voter: NodeId) -> bool {
        let wants = |granted: &[NodeId]| !granted.contains(&voter);
        matches!(&self.replica.state, State::Candidate(votes) if self.replica.term() == term && wants(&votes.granted))
    }
}

impl World {
    pub(super) fn matters(&self, letter: &Letter, bounds: &Bounds) -> bool {
        let to = &self.hosts[letter.to];
        match &letter.content {
            Content::Vote(request) => self.request_matters(letter, request, bounds),
            // A refusal does nothing but to bring a newer term.
            Content::Answer { asked, response } => {
                response.term > to.durable.0 || (response.granted && to.wants_vote(*asked, response.voter))
            }
            Content::Message(message) => self.message_matters(letter, message),
        }
    }

    fn request_matters(&self, letter: &Letter, request: &VoteRequest, bounds: &Bounds) -> bool {
        let (candidate, voter) = (&self.hosts[letter.from], &self.hosts[letter.to]);
        let is_news = request.term > voter.durable.0;
        let (term, vote) = voter.durable;
        let is_free =
            term <= request.term && (term < request.term || vote.is_none_or(|vote| vote == request.candidate));
        let may_win = is_free && candidate.wants_vote(request.term, node(letter.to));
        // A late refusal brings the candidate a newer term, but not one beyond the bounds.
        let may_depose = candidate.durable.0.0 < bounds.terms;
        is_news || may_win || may_depose
    }

    fn message_matters(&self, letter: &Letter, message: &Message) -> bool {
        let to = &self.hosts[letter.to];
        match message {
            // On a link that its sender has closed: the end of the link comes right behind it, and the two leave the leader
            // with a follower that has acknowledged nothing.
            Message::Subscribe { term, .. } => {
                *term > to.durable.0 || self.hosts[letter.from].open == Some((letter.to, letter.link))
            }
            // Each subscription is begun once: one that has been replaced does not come back.
            Message::Acknowledge { term, subscription, position } => {
                let mut followers = to.replica.followers();
                let tracked =
                    followers.find(|(follower, _)| *follower == node(letter.from)).map(|(_, tracked)| tracked);
                let is_more =
                    tracked.is_some_and(|known| known.subscription == *subscription && *position > known.acknowledged);
                *term > to.durable.0 || (*term == to.replica.term() && is_more)
            }
            // Rounds of heartbeats are left out.
            Message::HeartbeatAnswer { term, .. } => *term > to.durable.0,
            Message::Heartbeat { term, commit_position, .. } => {
                let State::Following(following) = &to.replica.state else { return false };
                let is_known = to.replica.leader_heard.is_some()
                    && (*term, *term) == (to.replica.term(), to.durable.0)
                    && records_to(*commit_position) <= records_to(following.leader_commit);
                !is_known
            }
            Message::Subscribed { .. } | Message::Refused { .. } => true,
        }
    }
}
