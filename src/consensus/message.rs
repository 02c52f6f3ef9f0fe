//! What replicas say to each other: votes (carried over HTTP) and the control link's messages (over TCP).

use serde::{Deserialize, Serialize};

use crate::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term};

/// Version of the JSON that elections travel in. Version 2: suspect nodes, whose votes an older node would count like any
/// other's.
const ELECTIONS_VERSION: u32 = 2;

/// A request or answer of an election with the version of its format, as it is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Versioned<T> {
    /// Nothing: 1, which did not say so.
    #[serde(default)]
    ringstore_elections: Option<u32>,
    #[serde(flatten)]
    body: T,
}

impl<T> Versioned<T> {
    /// In the format of this release.
    #[must_use]
    pub fn new(body: T) -> Versioned<T> {
        Versioned { ringstore_elections: Some(ELECTIONS_VERSION), body }
    }

    /// What was posted.
    ///
    /// # Errors
    /// In words, when another release has posted it.
    pub fn check(self) -> Result<T, String> {
        let found = self.ringstore_elections.unwrap_or(1);
        if found == ELECTIONS_VERSION {
            return Ok(self.body);
        }
        Err(format!(
            "version {found} of the elections' protocol is not understood here, only version {ELECTIONS_VERSION}: upgrade the \
             node with the older release first, one release at a time"
        ))
    }
}

/// Asks for a vote, or with the same fields for a pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoteRequest {
    /// The cluster that the candidate belongs to.
    pub cluster: ClusterId,
    /// Who asks.
    pub candidate: NodeId,
    /// The term that it wants to lead (for a pre-vote: would want).
    pub term: Term,
    /// Term of its last record.
    pub last_term: Term,
    /// End of its log.
    pub log_end: u64,
    /// The leader asked it to take over: nobody need wait until the leader is silent.
    pub transfer: bool,
    /// What it had acknowledged may be missing from its log.
    #[serde(default)]
    pub is_suspect: bool,
}

/// The answer to a vote or pre-vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoteResponse {
    /// Who answers.
    pub voter: NodeId,
    /// The voter's term; a higher one than asked for ends the candidate's attempt.
    pub term: Term,
    /// The vote.
    pub granted: bool,
    /// The leader that the voter hears, if it does: where the candidate should turn instead.
    pub leader: Option<NodeId>,
    /// What the voter had acknowledged may be missing from its log: the vote counts only if all members give theirs.
    #[serde(default)]
    pub is_suspect: bool,
}

/// Asks a follower to start an election at once, because the leader wants to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferRequest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The leader that hands over.
    pub leader: NodeId,
    /// Its term.
    pub term: Term,
}

/// A message on the control link between a follower and its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Follower: send me the log; this is what mine looks like.
    Subscribe {
        /// The term that the follower believes the leader leads.
        term: Term,
        /// Chosen by the follower, new for each attempt.
        subscription: Guid,
        /// The follower's newest epochs, oldest first.
        epochs: Vec<Epoch>,
        /// End of its log.
        log_end: LogPosition,
        /// The lowest position that the follower may cut at: its commit position.
        commit_position: LogPosition,
        /// Its `NodePriority`.
        priority: i32,
    },
    /// Leader: the log will come from `start` on; cut yours there.
    Subscribed {
        /// The leader's term.
        term: Term,
        /// From the request.
        subscription: Guid,
        /// Where the data link will begin.
        start: LogPosition,
    },
    /// Leader: not so, for this reason. The link is closed after it.
    Refused {
        /// The sender's term.
        term: Term,
        /// For people.
        reason: String,
    },
    /// Follower: durable up to here.
    Acknowledge {
        /// The follower's term.
        term: Term,
        /// The subscription that the position belongs to.
        subscription: Guid,
        /// Its writer checkpoint, at the end of a record.
        position: LogPosition,
    },
    /// Leader: I am here; this much is committed.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// Counts up; the answer repeats it, which confirms leadership to waiting reads.
        round: u64,
        /// The leader's commit position.
        commit_position: LogPosition,
    },
    /// Follower: so am I.
    HeartbeatAnswer {
        /// The follower's term; a higher one deposes the leader.
        term: Term,
        /// From the heartbeat.
        round: u64,
        /// How long its flushes take, microseconds; zero when it has flushed nothing yet.
        flush_micros: u64,
        /// Set while it can make no new chunk: it can write the log up to here and no further.
        full_from: Option<LogPosition>,
        /// It could take writes if it led: its index is complete.
        is_ready: bool,
    },
}

impl Message {
    /// The term that the sender speaks in.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Message::Subscribe { term, .. }
            | Message::Subscribed { term, .. }
            | Message::Refused { term, .. }
            | Message::Acknowledge { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::HeartbeatAnswer { term, .. } => *term,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_say_their_version() {
        let response =
            VoteResponse { voter: NodeId::default(), term: Term(7), granted: true, leader: None, is_suspect: true };
        let json = serde_json::to_string(&Versioned::new(response)).unwrap();
        let back: Versioned<VoteResponse> = serde_json::from_str(&json).unwrap();
        assert_eq!(back.check(), Ok(response));
        let old = serde_json::to_string(&response).unwrap();
        let words = serde_json::from_str::<Versioned<VoteResponse>>(&old).unwrap().check().unwrap_err();
        assert!(words.starts_with("version 1 of the elections' protocol"), "{words}");
        let newer = json.replace(":2,", ":3,");
        let words = serde_json::from_str::<Versioned<VoteResponse>>(&newer).unwrap().check().unwrap_err();
        assert!(words.starts_with("version 3 of"), "{words}");
    }
}
