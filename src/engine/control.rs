//! What the control thread (HTTP on the internal plane) and the log thread say to each other.

use crate::codec::record::{MemberRecord, MembershipBody};
use crate::consensus::{TransferRequest, VoteRequest, VoteResponse};
use crate::types::{NodeId, Term};

use super::core::Engine;

/// One step from a member list to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A clone becomes a voting member.
    Add(MemberRecord),
    /// A member becomes a clone, or goes.
    Remove(NodeId),
}

/// From the control thread to the log thread. A `token` names a waiting HTTP request and comes back with the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlInput {
    /// A peer asks for a vote (`pre`: a pre-vote).
    Vote {
        /// Whom to answer.
        token: u64,
        /// True for a pre-vote.
        pre: bool,
        /// What it asks.
        request: VoteRequest,
    },
    /// A peer answered a vote of ours; `response` is `None` when it could not be reached.
    VoteAnswered {
        /// Whom we had asked.
        from: NodeId,
        /// True for a pre-vote.
        pre: bool,
        /// The term that we had asked for.
        term: Term,
        /// What it said.
        response: Option<VoteResponse>,
    },
    /// A follower that this leader had asked to take over will not, or could not be asked.
    TransferDeclined {
        /// Whom we had asked.
        from: NodeId,
        /// The term that we led.
        term: Term,
        /// It said so itself; else it was not reached, or its answer was lost.
        is_refusal: bool,
        /// For people.
        reason: String,
    },
    /// The leader asks this node to take over.
    Transfer {
        /// Whom to answer.
        token: u64,
        /// What it asks.
        request: TransferRequest,
    },
    /// The operator asks this node to hand leadership over.
    Resign {
        /// Whom to answer.
        token: u64,
        /// Who is to lead; `None`: the follower that has most.
        to: Option<NodeId>,
    },
    /// The operator asks this node, which must lead, to change the member list. Answered once the new list is committed;
    /// or with why it was not begun, or that its outcome is not known.
    ChangeMembers {
        /// Whom to answer.
        token: u64,
        /// What to change.
        change: MemberChange,
    },
    /// The operator takes the log of this suspect node for what it is. Answered once that is durable.
    TrustLog {
        /// Whom to answer.
        token: u64,
    },
    /// Somebody says that `leader` leads `term`: a hint, from gossip.
    LeaderSeen {
        /// The leader.
        leader: NodeId,
        /// The term.
        term: Term,
    },
    /// Make it durable that this empty node accepts `list` and no other.
    AcceptFounding {
        /// Whom to answer.
        token: u64,
        /// The cluster to be founded.
        list: MembershipBody,
    },
    /// Every member was seen to have accepted `list`: the cluster exists.
    Founded {
        /// The founded cluster.
        list: MembershipBody,
    },
    /// This empty node found a cluster that exists already and does not list it: copy its log as a clone.
    JoinAsClone {
        /// The cluster.
        list: MembershipBody,
    },
}

/// From the log thread to the control thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlOutput {
    /// The answer to [`ControlInput::Vote`].
    VoteAnswer {
        /// From the request.
        token: u64,
        /// The vote.
        response: VoteResponse,
    },
    /// The answer to the other requests: done (and durable), or why not.
    Answer {
        /// From the request.
        token: u64,
        /// For people, when it failed.
        result: Result<(), String>,
    },
    /// Ask `to` for a vote.
    SendVote {
        /// The member to ask.
        to: NodeId,
        /// True for a pre-vote.
        pre: bool,
        /// What to ask.
        request: VoteRequest,
    },
    /// Ask `to` to take over.
    SendTransfer {
        /// The chosen follower.
        to: NodeId,
        /// What to ask.
        request: TransferRequest,
    },
    /// Role, term or leader changed: refresh the own gossip entry and tell the others soon.
    ViewChanged,
    /// This is the committed member list now.
    MembersChanged(MembershipBody),
}

impl Engine {
    /// The control thread has something.
    pub fn handle_control(&mut self, input: ControlInput) {
        let now = self.now;
        match input {
            ControlInput::Vote { token, pre, request } => {
                let term = self.state.term;
                let Some(_) = &self.replica else {
                    let (voter, is_suspect) = (self.state.node, self.state.suspect);
                    let response = VoteResponse { voter, term, granted: false, leader: None, is_suspect };
                    self.control(ControlOutput::VoteAnswer { token, response });
                    return;
                };
                self.with_replica(|replica, effects| replica.handle_vote_request(now, token, pre, request, effects));
            }
            ControlInput::VoteAnswered { pre, term, response, .. } => {
                if let Some(response) = response {
                    self.with_replica(|replica, effects| replica.handle_vote_answer(now, pre, term, response, effects));
                }
            }
            ControlInput::Transfer { token, request } => {
                let result = self.with_replica(|replica, effects| replica.handle_transfer(now, request, effects));
                self.answer_control(token, result.unwrap_or_else(|| Err("this node is in no cluster yet".to_owned())));
            }
            ControlInput::TransferDeclined { from, term, is_refusal, reason } => {
                let words = if is_refusal {
                    format!("{from} does not take over: {reason}; this node leads on")
                } else {
                    format!(
                        "{from} could not be asked to take over, or its answer was lost: {reason}; look at the status"
                    )
                };
                self.handle_declined(from, term, words);
            }
            ControlInput::Resign { token, to } => self.handle_resign(token, to),
            ControlInput::ChangeMembers { token, change } => self.handle_change_members(token, change),
            ControlInput::TrustLog { token } => self.handle_trust_log(token),
            ControlInput::LeaderSeen { leader, term } => {
                self.with_replica(|replica, effects| replica.handle_leader_seen(now, leader, term, effects));
            }
            ControlInput::AcceptFounding { token, list } => self.handle_accept_founding(token, list),
            ControlInput::Founded { list } | ControlInput::JoinAsClone { list } => self.handle_founded(list),
        }
    }

    fn handle_trust_log(&mut self, token: u64) {
        match self.with_replica(|replica, effects| replica.trust_log(effects)) {
            Some(Ok(())) => {
                tracing::warn!(
                    "the operator trusts this node's log: what it may have acknowledged and lost is given up"
                );
                self.saving.tokens.push(token);
                self.mark_state_dirty();
                self.poll_saving();
            }
            Some(Err(reason)) => self.answer_control(token, Err(reason)),
            None => self.answer_control(token, Err("this node is in no cluster yet".to_owned())),
        }
    }

    fn handle_resign(&mut self, token: u64, to: Option<NodeId>) {
        let now = self.now;
        if self.resign_token.is_some() {
            self.answer_control(token, Err("leadership is being handed over already".to_owned()));
            return;
        }
        match self.with_replica(|replica, effects| replica.resign(now, to, effects)) {
            Some(Ok(_)) => self.resign_token = Some(token),
            Some(Err(reason)) => self.answer_control(token, Err(reason)),
            None => self.answer_control(token, Err("this node is in no cluster yet".to_owned())),
        }
    }

    /// Whoever waits for the hand-over hears at once why it came to nothing. One who stops asks the next.
    fn handle_declined(&mut self, from: NodeId, term: Term, words: String) {
        let now = self.now;
        let token = self.resign_token.take();
        let declined = self.with_replica(|replica, effects| replica.handle_transfer_declined(now, from, term, effects));
        if declined != Some(true) {
            self.resign_token = token;
            return;
        }
        if let Some(token) = token {
            self.answer_control(token, Err(words));
        }
        if self.stopping {
            self.resign_to_anyone();
        }
    }
}
