//! What an edge thread finds in its inbox.

use std::os::fd::OwnedFd;

use super::{Progress, Reply};

/// A message to one edge thread, over its own bounded queue.
#[derive(Debug)]
pub enum EdgeMessage {
    /// The log thread's answer to a request of this edge.
    Reply(Reply),
    /// More of the log may be read. The newest one counts: a sender whose queue is full may leave it out and say it
    /// with the next.
    Progress(Progress),
    /// A connection of another node's edge, accepted on the internal port, its first frame read and found good: serve
    /// it like a client's.
    ForwardConnection(OwnedFd),
    /// Stop accepting, say goodbye to subscribers, flush, close.
    ShutDown,
}
