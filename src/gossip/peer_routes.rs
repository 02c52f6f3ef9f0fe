//! By which network device this node reaches each of the others, for those that show it: a snapshot that the background
//! thread replaces.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;

/// The way to one other node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRoute {
    /// Its internal address.
    pub peer: SocketAddr,
    /// The device that the kernel would take; `None` when there is no route now.
    pub device: Option<String>,
    /// It is not the device of the internal plane, and connections take it all the same: they are not bound to one.
    pub is_wrong: bool,
}

/// A snapshot for readers on any thread. Written by the background thread.
#[derive(Clone, Debug, Default)]
pub struct PeerRoutes {
    inner: Arc<RwLock<Snapshot>>,
}

#[derive(Debug, Default)]
struct Snapshot {
    expected: Option<String>,
    peers: Vec<PeerRoute>,
}

impl PeerRoutes {
    /// The device of the internal plane, when it is known, and the way to each peer.
    #[must_use]
    pub fn read(&self) -> (Option<String>, Vec<PeerRoute>) {
        let snapshot = self.inner.read();
        (snapshot.expected.clone(), snapshot.peers.clone())
    }

    /// Replaces the snapshot. For the background thread.
    pub fn replace(&self, expected: Option<String>, peers: Vec<PeerRoute>) {
        *self.inner.write() = Snapshot { expected, peers };
    }
}
