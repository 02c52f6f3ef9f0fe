//! What the control thread is started with.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{ControlInput, ControlOutput};
use crate::gossip::{AddressRule, Addresses, Standing};
use crate::queue::Queue;
use crate::ring::{RingError, Way};
use crate::security::Plane;
use crate::storage::{DamageReports, LogReader};
use crate::types::{Guid, NodeId};

/// Where the other nodes are looked for: all that is given counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeedSource {
    /// `GossipSeed`: each `host:port`, an address or a name.
    pub fixed: Vec<String>,
    /// `ClusterDns` and `ClusterGossipPort`: all addresses of the name, and the port of internal HTTP on all of them.
    pub dns: Option<(String, u16)>,
}

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// This node.
    pub node: NodeId,
    /// This run of it: random.
    pub instance: Guid,
    /// `ClusterSize`.
    pub cluster_size: usize,
    /// `ChunkSize`.
    pub chunk_size: u64,
    /// As advertised.
    pub addresses: Addresses,
    /// `ExtAdvertise`.
    pub ext_advertise: Vec<AddressRule>,
    /// How the other nodes are called.
    pub way: Way,
    /// How the internal plane is closed.
    pub plane: Plane,
    /// `NodePriority`.
    pub priority: i32,
    /// `ReadOnlyReplica`.
    pub read_only: bool,
    /// What the durable state says about the cluster.
    pub standing: Standing,
    /// Where the other nodes are looked for.
    pub seeds: SeedSource,
    /// `GossipIntervalMs`.
    pub gossip_interval: Duration,
    /// `GossipTimeoutMs`.
    pub gossip_timeout: Duration,
    /// `GossipAllowedDifferenceMs`.
    pub gossip_allowed_difference: Duration,
    /// What all nodes should have alike, to be shown in `/admin/status`.
    pub settings: Vec<(&'static str, u64)>,
    /// The log's chunk files, for other nodes that read them.
    pub log: LogReader,
    /// Where damage is reported that is found by the way.
    pub damage: DamageReports,
}

/// The ways to and from the log thread.
#[derive(Clone, Debug)]
pub struct ControlQueues {
    /// To it.
    pub to_log: Arc<Queue<ControlInput>>,
    /// From it; made with [`Queue::for_task`].
    pub from_log: Arc<Queue<ControlOutput>>,
}

/// Tells the control thread to stop. Clones are the same signal.
#[derive(Clone, Debug)]
pub struct StopSignal(Arc<Queue<()>>);

impl StopSignal {
    /// A signal that is not given yet.
    #[must_use]
    pub fn new() -> StopSignal {
        StopSignal(Arc::new(Queue::for_task(1)))
    }

    /// Gives it; once or more often.
    pub fn give(&self) {
        // Full means that it has been given already.
        let _ = self.0.send(());
    }

    /// Waits for it. Only one thread may.
    pub(super) async fn given(&self) {
        self.0.ready().await;
    }
}

impl Default for StopSignal {
    fn default() -> StopSignal {
        StopSignal::new()
    }
}

/// Why the control thread could not start. Nothing to retry: the node gives up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No io_uring.
    #[error("the control thread cannot set up io_uring: {}", RingError::refused(source))]
    Runtime {
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// The listener cannot be used.
    #[error("the internal HTTP listener could not be taken over: {source}")]
    Listener {
        /// From the system.
        #[source]
        source: io::Error,
    },
}

/// What [`ControlThread::run`](super::ControlThread::run) takes over: the internal HTTP listener. A node that is alone
/// may have none.
pub(super) fn listener(listener: Option<TcpListener>) -> Result<Option<monoio::net::TcpListener>, ControlError> {
    let adopt = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        monoio::net::TcpListener::from_std(listener)
    };
    listener.map(adopt).transpose().map_err(|source| ControlError::Listener { source })
}
