//! What an edge thread finds in its inbox.

use std::os::fd::OwnedFd;

use crate::security::TlsChannel;

use super::{Progress, Reply};

/// A connection of another node's edge, accepted on the internal port, its first frame read and found good.
#[derive(Debug)]
pub struct Forwarded {
    /// Nothing is under way on it.
    pub socket: OwnedFd,
    /// The channel of TLS, established, and what was opened of it behind the first frame; `None` for a plain connection.
    pub tls: Option<(TlsChannel, Vec<u8>)>,
}

impl From<OwnedFd> for Forwarded {
    fn from(socket: OwnedFd) -> Forwarded {
        Forwarded { socket, tls: None }
    }
}

/// A message to one edge thread, over its own bounded queue.
#[derive(Debug)]
pub enum EdgeMessage {
    /// The log thread's answer to a request of this edge.
    Reply(Reply),
    /// More of the log may be read. The newest one counts: a sender whose queue is full may leave it out and say it
    /// with the next.
    Progress(Progress),
    /// Another node forwards: serve it like a client.
    ForwardConnection(Box<Forwarded>),
    /// Stop accepting, say goodbye to subscribers, flush, close.
    ShutDown,
}
