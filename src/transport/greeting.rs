//! How connections begin: accepted ones are asked who they are, outgoing ones say it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::codec::link::{HELLO_BYTES, Hello, LinkError, Purpose, WELCOME_BYTES, Welcome, put_frame, shorten};
use crate::limits::{FOLLOWERS_MAX, GREETINGS_MAX};
use crate::ring::{Failure, Source, abort_on_close, peer_address, prepare_link, put_first};
use crate::types::{Guid, LogPosition, NodeId};

use super::connections::{Connection, ControlLink, DataIn, Opening, Stage};
use super::data_link::DataOut;
use super::tag::{ConnectionId, Tag};
use super::thread::{FollowerLinks, LeaderLinks, LogThread};

/// How long a connection may take to say who it is, or to be made.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last bytes of a connection may take.
pub(super) const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

/// Pause before the listener accepts again after a failure; mostly there were too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// `BadRequest` of the client protocol: what a client, or an edge that forwards, understands.
const BAD_REQUEST: u8 = 0xF0;

/// While links cannot be made, one failure in so many is logged.
const FAILURES_A_LINE: u64 = 100;

/// What a received buffer on a data link's sending side is for: only to notice that the other end is gone.
const NOTICE_BYTES: usize = 64;

impl LogThread {
    // --- incoming ---

    pub(super) fn handle_accepted(&mut self, accepted: Result<OwnedFd, Failure>) {
        let socket = match accepted {
            Ok(socket) => socket,
            Err(failure) => {
                tracing::warn!(%failure, "accepting on the internal port failed; trying again");
                self.accept_at = Some(self.now.after(ACCEPT_PAUSE));
                return;
            }
        };
        let Ok(address) = peer_address(&socket) else { return };
        let greeting = |(_, connection): &(ConnectionId, &Connection)| matches!(connection.stage, Stage::Greeting);
        if self.connections.iter().filter(greeting).count() >= GREETINGS_MAX {
            tracing::warn!(%address, limit = GREETINGS_MAX, "too many connections that have not said who they are");
            return;
        }
        let prepared = self.options.way.patience.map_or(Ok(()), |patience| prepare_link(&socket, patience));
        if let Err(error) = prepared {
            tracing::warn!(%address, %error, "an accepted connection cannot be used");
            return;
        }
        let file = self.driver.attach(socket);
        let deadline = Some(self.now.after(GREETING_PATIENCE));
        let id = self.connections.insert(Connection { file, address, stage: Stage::Greeting, deadline });
        self.driver.receive_exact(file, vec![0; HELLO_BYTES], Tag::Receive(id).pack());
    }

    /// The greeting of an accepted connection is there.
    pub(super) fn handle_greeting(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get(id) else { return };
        let address = connection.address;
        let hello = match Hello::decode(bytes.try_into().expect("received in full")) {
            Ok(hello) => hello,
            Err(error) => {
                // Most likely a client on the wrong port: it gets its own protocol's words.
                let as_client = matches!(error, LinkError::NotOurs { .. });
                return self.refuse(id, as_client, &error.to_string());
            }
        };
        let welcome = self.check_hello(&hello).and_then(|()| match hello.purpose {
            Purpose::Control => self.welcome_control(id, &hello),
            Purpose::Data => self.welcome_data(id, &hello),
            Purpose::Forward => {
                self.hand_to_edge(id);
                Ok(())
            }
        });
        match welcome {
            Ok(()) => tracing::info!(node = %hello.node, %address, purpose = hello.purpose.name(), "link accepted"),
            Err(reason) => {
                tracing::debug!(node = %hello.node, "its greeting: {hello:?}");
                self.refuse(id, hello.purpose == Purpose::Forward, &reason);
            }
        }
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), String> {
        let node = self.engine.node();
        let Some(cluster) = &self.cluster else {
            return Err(format!("node {node} belongs to no cluster yet"));
        };
        if hello.cluster != cluster.cluster {
            let (ours, theirs) = (cluster.cluster, hello.cluster);
            return Err(format!(
                "node {node} belongs to cluster {ours}, not to {theirs}; check the seeds and addresses"
            ));
        }
        if hello.node == node {
            return Err(format!("both ends are node {node}: a data directory was copied, or the node reached itself"));
        }
        let chunk_size = self.files.layout.chunk_size;
        if hello.chunk_size != chunk_size {
            let theirs = hello.chunk_size;
            return Err(format!(
                "the log's chunks have {chunk_size} bytes here and {theirs} there; they must be the same"
            ));
        }
        Ok(())
    }

    fn welcome_control(&mut self, id: ConnectionId, hello: &Hello) -> Result<(), String> {
        if self.followers.len() >= FOLLOWERS_MAX && !self.followers.contains_key(&hello.node) {
            return Err(format!("{FOLLOWERS_MAX} nodes have links to this one already"));
        }
        if self.followers.contains_key(&hello.node) {
            self.drop_follower(hello.node, "it has connected anew");
            self.engine.handle_follower_link_down(hello.node);
        }
        self.followers.insert(hello.node, FollowerLinks { control: id, data: None });
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        connection.stage = Stage::Control(Box::new(ControlLink::new(hello.node, false, true)));
        connection.deadline = None;
        let file = connection.file;
        // Liveness must not wait behind bulk data in the device's queue either. Without it, it waits there a little.
        let _ = self.driver.descriptor(file).map(put_first);
        self.driver.send(file, Source::Owned(Welcome::accept().to_vec()), Tag::Send(id).pack());
        self.receive_control(id, Vec::new());
        Ok(())
    }

    fn welcome_data(&mut self, id: ConnectionId, hello: &Hello) -> Result<(), String> {
        let start = self.engine.handle_data_link(hello.node, hello.subscription)?;
        if start != hello.start {
            return Err(format!("the subscription begins at {start}, not at {}", hello.start));
        }
        let links = self.followers.get_mut(&hello.node).filter(|links| links.data.is_none());
        let links = links.ok_or("it has no control link, or a data link already")?;
        links.data = Some(id);
        if let Some(socket) = self.connections.get(id).and_then(|connection| self.driver.descriptor(connection.file)) {
            // A link that is dropped because it holds up the log buffer must let go of it.
            let _ = abort_on_close(socket);
        }
        let zero_copy = self.options.zero_copy && self.driver.capabilities().zero_copy_send;
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        connection.stage = Stage::DataOut(Box::new(DataOut::new(hello.node, hello.subscription, start, zero_copy)));
        connection.deadline = None;
        let file = connection.file;
        self.driver.send(file, Source::Owned(Welcome::accept().to_vec()), Tag::Send(id).pack());
        self.driver.receive(file, vec![0; NOTICE_BYTES], Tag::Receive(id).pack());
        Ok(())
    }

    /// From here on the connection belongs to an edge, which serves it like a client's.
    fn hand_to_edge(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(id) {
            let socket = self.driver.detach(connection.file);
            self.outboxes.forward(socket);
        }
    }

    fn refuse(&mut self, id: ConnectionId, as_client: bool, reason: &str) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        tracing::warn!(address = %connection.address, reason, "connection on the internal port refused");
        let bytes = if as_client {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, BAD_REQUEST, Guid::ZERO, |out| out.extend_from_slice(shorten(reason).as_bytes()));
            bytes
        } else {
            Welcome::refuse(reason)
        };
        connection.stage = Stage::Closing { rest: Vec::new() };
        connection.deadline = Some(self.now.after(CLOSING_PATIENCE));
        self.driver.send(connection.file, Source::Owned(bytes), Tag::Send(id).pack());
    }

    // --- outgoing ---

    /// Begins to make a link to the leader. A failure is reported to the engine like a broken link, after this turn.
    pub(super) fn open(&mut self, leader: NodeId, purpose: Purpose, subscription: Guid, start: LogPosition) {
        match self.try_open(leader, purpose, subscription, start) {
            Ok(id) => {
                let links = self.leader.get_or_insert(LeaderLinks { node: leader, control: None, data: None });
                if let Some(replaced) = links.place(purpose).replace(id) {
                    self.close(replaced);
                }
            }
            Err(reason) => {
                self.note_failed_opening(leader, purpose, &reason);
                self.failed_leaders.push(leader);
            }
        }
    }

    /// Says that a link cannot be made; only now and then while it is tried again and again.
    pub(super) fn note_failed_opening(&mut self, leader: NodeId, purpose: Purpose, reason: &str) {
        let address = self.address_of(leader).map(|address| address.to_string());
        let (address, purpose) = (address.unwrap_or_default(), purpose.name());
        if self.failed_openings.is_multiple_of(FAILURES_A_LINE) {
            tracing::warn!(%leader, address, purpose, reason, "the link to the leader cannot be made; trying again");
        } else {
            tracing::debug!(%leader, address, purpose, reason, "the link to the leader cannot be made");
        }
        self.failed_openings += 1;
    }

    fn try_open(
        &mut self,
        leader: NodeId,
        purpose: Purpose,
        subscription: Guid,
        start: LogPosition,
    ) -> Result<ConnectionId, String> {
        let cluster = self.cluster.as_ref().ok_or("this node belongs to no cluster yet")?.cluster;
        let address = self.address_of(leader).ok_or("its address is not known")?;
        let socket = self.options.way.socket(address).map_err(|error| error.to_string())?;
        if purpose == Purpose::Control {
            // Liveness must not wait behind bulk data in the device's queue either. Without it, it waits there a little.
            let _ = put_first(&socket);
        }
        let term = self.engine.replica().map_or_else(Default::default, |replica| replica.term());
        let (node, chunk_size) = (self.engine.node(), self.files.layout.chunk_size);
        let hello = Hello { purpose, cluster, node, term, subscription, start, chunk_size };
        let file = self.driver.attach(socket);
        let stage = Stage::Opening(Box::new(Opening { leader, hello, hello_sent: false, refused: false }));
        let deadline = Some(self.now.after(GREETING_PATIENCE));
        let id = self.connections.insert(Connection { file, address, stage, deadline });
        self.driver.connect(file, address, Tag::Connect(id).pack());
        Ok(id)
    }

    /// Where gossip says that a node is, or else where the member list says that it was.
    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        if let Some(known) = self.links.directory.node(node) {
            return Some(known.addresses.int_tcp);
        }
        let member = self.cluster.as_ref()?.members.iter().find(|member| member.node == node)?;
        Some(SocketAddr::new(member.int_ip, member.int_tcp_port))
    }

    pub(super) fn handle_connected(&mut self, id: ConnectionId, result: Result<(), Failure>) {
        let Some(connection) = self.connections.get(id) else { return };
        let Stage::Opening(opening) = &connection.stage else { return };
        if let Err(failure) = result {
            return self.broken(id, &failure.to_string());
        }
        let (file, hello) = (connection.file, opening.hello.encode().to_vec());
        self.driver.send(file, Source::Owned(hello), Tag::Send(id).pack());
        self.driver.receive_exact(file, vec![0; WELCOME_BYTES], Tag::Receive(id).pack());
    }

    /// The leader's answer to our greeting, or the reason behind a refusal.
    pub(super) fn handle_welcome(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Stage::Opening(opening) = &mut connection.stage else { return };
        if opening.refused {
            return self.broken(id, &format!("refused: {}", String::from_utf8_lossy(bytes)));
        }
        match Welcome::decode(bytes.try_into().expect("received in full")) {
            Ok(Welcome::Accepted) => self.link_up(id),
            Ok(Welcome::Refused { reason_bytes }) => {
                opening.refused = true;
                self.driver.receive_exact(connection.file, vec![0; reason_bytes], Tag::Receive(id).pack());
            }
            Err(error) => self.broken(id, &error.to_string()),
        }
    }

    fn link_up(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Stage::Opening(opening) = &connection.stage else { return };
        let (leader, hello, hello_sent) = (opening.leader, opening.hello, opening.hello_sent);
        tracing::info!(%leader, address = %connection.address, purpose = hello.purpose.name(), "link to the leader is up");
        connection.deadline = None;
        self.failed_openings = 0;
        if hello.purpose == Purpose::Data {
            connection.stage = Stage::DataIn(DataIn { leader, subscription: hello.subscription });
            self.driver.stream(connection.file, self.data_buffers, Tag::Receive(id).pack());
        } else {
            connection.stage = Stage::Control(Box::new(ControlLink::new(leader, true, !hello_sent)));
            self.receive_control(id, Vec::new());
            self.engine.handle_leader_link(leader, true);
        }
    }
}
