//! Who is in the cluster, for the threads that do not gossip: a snapshot that the control thread replaces.

use std::sync::Arc;

use parking_lot::RwLock;

use super::addresses::Addresses;
use crate::types::NodeId;

/// One known node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// Its permanent identifier.
    pub node: NodeId,
    /// Where it is.
    pub addresses: Addresses,
    /// True when gossip thinks that it is alive.
    pub is_alive: bool,
}

/// A snapshot for readers on any thread. Written by the control thread.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    inner: Arc<RwLock<Snapshot>>,
}

#[derive(Debug, Default)]
struct Snapshot {
    nodes: Vec<KnownNode>,
    gossip_json: Arc<str>,
}

impl Directory {
    /// The node with this identifier, if known.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<KnownNode> {
        self.inner.read().nodes.iter().find(|known| known.node == node).copied()
    }

    /// All known nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<KnownNode> {
        self.inner.read().nodes.clone()
    }

    /// The document that `GET /gossip` answers with.
    #[must_use]
    pub fn gossip_json(&self) -> Arc<str> {
        Arc::clone(&self.inner.read().gossip_json)
    }

    /// Replaces the snapshot. For the control thread.
    pub fn replace(&self, nodes: Vec<KnownNode>, gossip_json: Arc<str>) {
        *self.inner.write() = Snapshot { nodes, gossip_json };
    }
}
