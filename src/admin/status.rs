//! The node as its HTTP routes show it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use crate::engine::{ClientCounters, Published, Role};
use crate::gossip::{Directory, EpochReport, MemberState, PeerRoutes, Report};
use crate::security::{ExternalTrust, Plane};
use crate::storage::StorageFigures;
use crate::types::{LogPosition, NodeId, WallTime};

/// What the routes and gossip want to know of the index.
pub trait IndexFigures: Send + Sync {
    /// How far it has applied the log.
    fn applied(&self) -> LogPosition;
    /// Record position of the last event in it.
    fn last_event_position(&self) -> Option<LogPosition>;
    /// What it holds and where.
    fn figures(&self) -> crate::index::IndexFigures;
    /// False while a part of it is being rebuilt.
    fn is_complete(&self) -> bool;
}

/// What the planes are closed with, and whom that kept out.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    /// How the internal plane is closed.
    pub plane: Plane,
    /// What clients are shown at the ports with TLS.
    pub external: Option<Arc<ExternalTrust>>,
    /// Connections and requests to the internal HTTP port that were refused.
    pub refused: Arc<AtomicU64>,
}

/// Everything that the shared routes show. Cheap to clone, for any thread.
#[derive(Clone)]
pub struct NodeStatus {
    /// This node.
    pub node: NodeId,
    /// The log thread's figures.
    pub published: Arc<Published>,
    /// The edges' figures.
    pub clients: Arc<ClientCounters>,
    /// The index.
    pub index: Arc<dyn IndexFigures>,
    /// What the storage's background work has done.
    pub storage: Arc<StorageFigures>,
    /// Nodes and gossip document.
    pub directory: Directory,
    /// By which device the other nodes are reached.
    pub routes: PeerRoutes,
    /// What the planes are closed with.
    pub locks: Locks,
    /// When the process started, to be shown.
    pub started: WallTime,
    /// The same on the monotonic clock.
    pub started_at: Instant,
}

impl NodeStatus {
    /// What the node says of itself in gossip.
    #[must_use]
    pub fn report(&self) -> Report {
        let view = self.published.view();
        Report {
            state: member_state(view.role),
            term: view.term,
            last_commit_position: self.index.last_event_position().map(|position| position.0),
            writer_checkpoint: self.published.flushed().0,
            chaser_checkpoint: self.index.applied().0,
            epoch: view.epoch.map(|epoch| EpochReport {
                number: epoch.term.0,
                position: epoch.position.0,
                id: epoch.id,
            }),
            is_suspect: view.is_suspect,
            flush_micros: view.flush_micros,
        }
    }
}

/// The state that gossip shows for a role. v5 has no resigning master; "PreMaster" is its word for one that takes no
/// writes.
pub(super) fn member_state(role: Role) -> MemberState {
    match role {
        Role::Initializing => MemberState::Initializing,
        Role::Unknown => MemberState::Unknown,
        Role::PreReplica => MemberState::PreReplica,
        Role::CatchingUp => MemberState::CatchingUp,
        Role::Clone => MemberState::Clone,
        Role::Follower => MemberState::Follower,
        Role::PreLeader | Role::ResigningLeader => MemberState::PreLeader,
        Role::Leader => MemberState::Leader,
        Role::ShuttingDown => MemberState::ShuttingDown,
    }
}

/// The time now, to be shown.
pub(super) fn wall_now() -> WallTime {
    WallTime::from_system(SystemTime::now())
}
