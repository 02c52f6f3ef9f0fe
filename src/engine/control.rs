//! What the control thread (HTTP on the internal plane) and the log thread say to each other.

use crate::codec::record::{MemberRecord, MembershipBody};
use crate::consensus::{TransferRequest, VoteRequest, VoteResponse};
use crate::types::{NodeId, Term};

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
