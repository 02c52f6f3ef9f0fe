//! A node as gossip sees it.

use serde::{Deserialize, Serialize};

use super::addresses::{AddressRule, Addresses};
use crate::codec::record::{MemberRecord, MembershipBody};
use crate::types::{Guid, NodeId, Term, WallTime};

/// What a node says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MemberState {
    /// Not started, or not in a founded cluster yet.
    #[default]
    Initializing,
    /// No leader known.
    Unknown,
    /// A leader is known, no link to it yet.
    PreReplica,
    /// Receives the leader's log from an old position.
    CatchingUp,
    /// Follows, but does not count.
    Clone,
    /// Follows and counts.
    Follower,
    /// Elected, not ready yet; or about to hand over.
    PreLeader,
    /// Takes writes.
    Leader,
    /// Is stopping.
    ShuttingDown,
    /// Has stopped.
    Shutdown,
}

impl MemberState {
    /// The name that v5's clients know: one of eleven, the eleventh being the "Manager" of an unanswered seed.
    #[must_use]
    pub fn wire_name(self) -> &'static str {
        match self {
            MemberState::Initializing => "Initializing",
            MemberState::Unknown => "Unknown",
            MemberState::PreReplica => "PreReplica",
            MemberState::CatchingUp => "CatchingUp",
            MemberState::Clone => "Clone",
            MemberState::Follower => "Slave",
            MemberState::PreLeader => "PreMaster",
            MemberState::Leader => "Master",
            MemberState::ShuttingDown => "ShuttingDown",
            MemberState::Shutdown => "Shutdown",
        }
    }
}

/// The last epoch in a node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochReport {
    /// Its number.
    pub number: u32,
    /// Where it begins.
    pub position: u64,
    /// Its identifier.
    pub id: Guid,
}

/// What changes from moment to moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// State.
    pub state: MemberState,
    /// Term.
    pub term: Term,
    /// Position of the last committed event; `None` when there is none.
    pub last_commit_position: Option<u64>,
    /// End of the durable log.
    pub writer_checkpoint: u64,
    /// How far the log has been processed.
    pub chaser_checkpoint: u64,
    /// Last epoch.
    pub epoch: Option<EpochReport>,
    /// True when acknowledged writes may be missing from its log.
    #[serde(default)]
    pub is_suspect: bool,
    /// How long its flushes take, microseconds.
    #[serde(default)]
    pub flush_micros: u64,
}

/// A node's entry. Only the node itself makes it; others pass it on unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// This run of it.
    pub instance: Guid,
    /// When this run began, by its own clock.
    pub started: WallTime,
    /// Counts up with each change of the entry within the instance: that it has grown proves that the node lived.
    pub version: u64,
    /// `ClusterSize` of the node.
    pub cluster_size: u32,
    /// `ChunkSize` of the node: logs are compared by position, so all nodes must agree.
    pub chunk_size: u64,
    /// The list that the node has durably accepted for a founding.
    pub accepted_founding: Option<MembershipBody>,
    /// The founded cluster that the node belongs to.
    pub membership: Option<MembershipBody>,
    /// Where it is reached.
    pub addresses: Addresses,
    /// `ExtAdvertise`: what clients of some networks are told instead. All nodes answer by it; those that do not know the
    /// word are older and tell everybody the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ext_advertise: Vec<AddressRule>,
    /// `NodePriority`.
    pub priority: i32,
    /// `ReadOnlyReplica`: it copies the log, and is neither founded with nor promoted. Nodes that do not know the word
    /// are older than it.
    #[serde(default)]
    pub read_only: bool,
    /// When the entry was made, by the node's own clock.
    pub time_stamp: WallTime,
    /// The rest.
    pub report: Report,
}

impl Member {
    /// The node as an entry of a membership list.
    #[must_use]
    pub fn record(&self) -> MemberRecord {
        MemberRecord {
            node: self.node,
            int_ip: self.addresses.int_http.ip(),
            int_tcp_port: self.addresses.int_tcp.port(),
            int_http_port: self.addresses.int_http.port(),
        }
    }
}
