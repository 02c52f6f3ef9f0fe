//! The table of connections on port 1112, both ways, and what each is at the moment.

use std::net::SocketAddr;

use crate::codec::link::{HELLO_BYTES, Hello, WELCOME_BYTES};
use crate::ring::FileId;
use crate::security::{LinkAnswerer, LinkDialler, Place, TlsChannel};
use crate::types::{Guid, LogPosition, NodeId, Ticks};

use super::data_link::DataOut;

use super::tag::ConnectionId;
use super::wire::Tls;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) file: FileId,
    /// The other end.
    pub(super) address: SocketAddr,
    pub(super) stage: Stage,
    /// When it is given up if its stage has not changed; `None` for links that are up.
    pub(super) deadline: Option<Ticks>,
    /// Sends whose outcome is not there yet, except those of the log buffer. More than one only while it begins, when the
    /// other side has answered before the outcome was seen.
    pub(super) sends: u8,
    /// `None` where connections are plain.
    pub(super) tls: Option<Box<Tls>>,
    /// Of an accepted one whose greeting was not good (yet).
    pub(super) place: Option<Place>,
}

impl Connection {
    pub(super) fn new(
        file: FileId,
        address: SocketAddr,
        stage: Stage,
        deadline: Ticks,
        tls: Option<TlsChannel>,
    ) -> Connection {
        let tls = tls.map(|channel| Box::new(Tls::new(channel)));
        Connection { file, address, stage, deadline: Some(deadline), sends: 0, tls, place: None }
    }

    /// True while a part of what was to be sent may still wait.
    pub(super) fn is_sending(&self) -> bool {
        self.sends > 0 || self.tls.as_ref().is_some_and(|tls| tls.is_sending || !tls.sealed.is_empty())
    }
}

/// What a connection is at the moment. Incoming ones begin with `Greeting`, outgoing ones with `Opening`.
#[derive(Debug)]
pub(super) enum Stage {
    /// Accepted; nothing has been done for the other side yet.
    Greeting(Greeting),
    /// The last bytes are on their way; then it is closed. `rest` follows what is being sent.
    Closing { rest: Vec<u8> },
    /// On the way to the leader: connecting, greeting, waiting for the welcome.
    Opening(Box<Opening>),
    /// A control link that is up.
    Control(Box<ControlLink>),
    /// The leader's log comes in here.
    DataIn(DataIn),
    /// Our log goes out here.
    DataOut(Box<DataOut>),
}

/// How far the greeting of an accepted connection is.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The hello is awaited, and the handshake of TLS before it.
    Hello,
    /// The nonce behind a hello is awaited. The bytes are as they came: they are in what is proven.
    Nonce(Box<(Hello, [u8; HELLO_BYTES])>),
    /// Challenged; the proof is awaited.
    Proof(Box<(Hello, LinkAnswerer)>),
    /// Good. It goes to an edge as soon as what was sent is out.
    Forward,
}

/// An outgoing link that is being made.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) leader: NodeId,
    pub(super) hello: Hello,
    pub(super) awaited: Awaited,
}

/// What an outgoing link waits for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// The beginning of the challenge, or a refusal in its place.
    Challenge(Box<LinkDialler>),
    /// The rest of the challenge; this is its beginning.
    ChallengeRest(Box<LinkDialler>, [u8; WELCOME_BYTES]),
    /// The welcome.
    Welcome,
    /// The reason of a refusal.
    Reason,
}

/// A control link that is up.
#[derive(Debug)]
pub(super) struct ControlLink {
    /// The node at the other end.
    pub(super) node: NodeId,
    /// True on the follower's side.
    pub(super) to_leader: bool,
    /// Received, not taken apart yet.
    pub(super) inbox: Vec<u8>,
    /// To be sent with the next send.
    pub(super) outbox: Vec<u8>,
    /// A send is under way: one at a time, or bytes could change places.
    pub(super) sending: bool,
    /// The buffer of the last send, to be used again.
    pub(super) spare: Vec<u8>,
}

impl ControlLink {
    pub(super) fn new(node: NodeId, to_leader: bool, sending: bool) -> ControlLink {
        ControlLink { node, to_leader, inbox: Vec::new(), outbox: Vec::new(), sending, spare: Vec::new() }
    }
}

/// A data link from the leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataIn {
    pub(super) leader: NodeId,
    pub(super) subscription: Guid,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// The connections, by slot and generation.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.connection = Some(connection);
        ConnectionId { slot, generation: entry.generation }
    }

    /// `None` when it is closed.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let entry = self.slots.get(id.slot as usize).filter(|entry| entry.generation == id.generation)?;
        entry.connection.as_ref()
    }

    /// `None` when it is closed.
    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let entry = self.slots.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)?;
        entry.connection.as_mut()
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let entry = self.slots.get_mut(id.slot as usize).filter(|entry| entry.generation == id.generation)?;
        let connection = entry.connection.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(connection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let id = ConnectionId { slot: slot as u32, generation: entry.generation };
            Some((id, entry.connection.as_ref()?))
        })
    }

    /// The control link at `id`, if it is one and up.
    pub(super) fn control(&mut self, id: ConnectionId) -> Option<&mut ControlLink> {
        match &mut self.get_mut(id)?.stage {
            Stage::Control(link) => Some(link),
            _ => None,
        }
    }

    /// The outgoing data link at `id`, if it is one and up.
    pub(super) fn data_out(&mut self, id: ConnectionId) -> Option<&mut DataOut> {
        match &mut self.get_mut(id)?.stage {
            Stage::DataOut(link) => Some(link),
            _ => None,
        }
    }
}

/// Ranges of the log buffer that the kernel may still read, by the connection that they are sent on. They outlive it.
#[derive(Debug, Default)]
pub(super) struct Holds {
    holds: Vec<(ConnectionId, LogPosition)>,
}

impl Holds {
    pub(super) fn add(&mut self, id: ConnectionId, position: LogPosition) {
        self.holds.push((id, position));
    }

    pub(super) fn remove(&mut self, id: ConnectionId, position: LogPosition) {
        let at = self.holds.iter().position(|hold| *hold == (id, position));
        self.holds.swap_remove(at.expect("a range that was held"));
    }

    /// The lowest position held for `id`.
    pub(super) fn lowest(&self, id: ConnectionId) -> Option<LogPosition> {
        self.holds.iter().filter(|(of, _)| *of == id).map(|(_, position)| *position).min()
    }

    /// The lowest position held for connections that `is_gone` is true for.
    pub(super) fn lowest_orphan(&self, mut is_gone: impl FnMut(ConnectionId) -> bool) -> Option<LogPosition> {
        self.holds.iter().filter(|(of, _)| is_gone(*of)).map(|(_, position)| *position).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_outlive_their_connection() {
        let (first, second) = (ConnectionId { slot: 0, generation: 0 }, ConnectionId { slot: 0, generation: 1 });
        let mut holds = Holds::default();
        holds.add(first, LogPosition(100));
        holds.add(first, LogPosition(50));
        holds.add(second, LogPosition(10));
        assert_eq!(holds.lowest(first), Some(LogPosition(50)));
        assert_eq!(holds.lowest_orphan(|id| id == first), Some(LogPosition(50)));
        holds.remove(first, LogPosition(50));
        assert_eq!(holds.lowest_orphan(|id| id == first), Some(LogPosition(100)));
        holds.remove(first, LogPosition(100));
        assert_eq!(holds.lowest_orphan(|id| id == first), None);
        assert_eq!(holds.lowest(second), Some(LogPosition(10)));
    }
}
