//! Who is in the cluster, for the threads that do not gossip: a snapshot that the control thread replaces.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;

use super::addresses::Addresses;
use super::document::Document;
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
    document: Document,
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

    /// Where a client at this address is told that the node is; an unknown client is told what all others are.
    #[must_use]
    pub fn addresses_for(&self, node: NodeId, client: Option<IpAddr>) -> Option<Addresses> {
        let snapshot = self.inner.read();
        let known = snapshot.nodes.iter().find(|known| known.node == node)?;
        let told = |client| known.addresses.for_client(snapshot.document.rules_of(node), client);
        Some(client.map_or(known.addresses, told))
    }

    /// The document that `GET /gossip` answers with.
    #[must_use]
    pub fn document(&self) -> Document {
        self.inner.read().document.clone()
    }

    /// Replaces the snapshot. For the control thread.
    pub fn replace(&self, nodes: Vec<KnownNode>, document: Document) {
        *self.inner.write() = Snapshot { nodes, document };
    }
}
