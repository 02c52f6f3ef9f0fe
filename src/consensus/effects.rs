//! What the replica asks of the world.

use crate::types::{Guid, LogPosition, NodeId, Term};

use super::message::{Message, TransferRequest, VoteRequest, VoteResponse};

/// One thing to carry out. Effects are carried out in the order given. What must wait until the term and vote are
/// durable is held back by the replica itself: it appears only after [`Replica::handle_saved`](super::Replica).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make term and vote durable, then report the sequence.
    SaveState {
        /// Comes back with the report; a later save covers an earlier one.
        sequence: u64,
        /// The term.
        term: Term,
        /// The vote in it.
        voted_for: Option<NodeId>,
    },
    /// Send on the control link with `to`; without a link the message is lost.
    Send {
        /// The other end.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// Ask `to` for a vote.
    RequestVote {
        /// The member to ask.
        to: NodeId,
        /// True for a pre-vote.
        pre: bool,
        /// What to ask.
        request: VoteRequest,
    },
    /// Answer a vote or pre-vote.
    AnswerVote {
        /// From the request.
        token: u64,
        /// The vote.
        response: VoteResponse,
    },
    /// Ask `to` to take leadership over.
    RequestTransfer {
        /// The chosen follower.
        to: NodeId,
        /// What to ask.
        request: TransferRequest,
    },
    /// Open a control link to this leader, and report when it is up. Replaces any other.
    Follow {
        /// The leader.
        leader: NodeId,
    },
    /// Close the links to the leader, and forget what they delivered but was not handed on yet.
    Unfollow,
    /// Cut the log at `to` if it is longer, wait until that is durable, then report `handle_truncated`.
    Truncate {
        /// The new end.
        to: LogPosition,
    },
    /// Open the data link: the leader's log comes from `start` on.
    OpenData {
        /// The leader.
        leader: NodeId,
        /// The subscription it belongs to.
        subscription: Guid,
        /// Where it begins; the end of the own log.
        start: LogPosition,
    },
    /// A follower subscribed: serve its data link from `start` on.
    Serve {
        /// The follower.
        follower: NodeId,
        /// The subscription.
        subscription: Guid,
        /// Where to begin.
        start: LogPosition,
    },
    /// Close the links with this follower.
    DropFollower {
        /// The follower.
        follower: NodeId,
    },
    /// This replica was elected: append the epoch record of its term now.
    Lead {
        /// The term.
        term: Term,
    },
    /// Leadership is over: what is pending is unknown to its writers.
    StepDown,
    /// The commit position moved.
    Commit {
        /// To here.
        position: LogPosition,
    },
    /// A majority answered this heartbeat round: this replica led after the round was sent.
    Confirmed {
        /// The round.
        round: u64,
    },
    /// Leadership is being handed over to `to`, by this replica's own decision. (When it is done, or given up,
    /// `StepDown` or `Changed` says so.)
    HandOver {
        /// The successor.
        to: NodeId,
        /// For people.
        reason: String,
    },
    /// The small state was not saved for so long that what waits for it would be too much: so many messages were given up.
    GiveUp {
        /// How many.
        count: usize,
    },
    /// This node has all that it can have acknowledged: it is suspect no more. To be made durable, at leisure.
    Cleared,
    /// Role, term or leader changed.
    Changed,
    /// The log cannot be made right without losing what was committed: stop, loudly.
    Fatal {
        /// For people.
        reason: String,
    },
}
