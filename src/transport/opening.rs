//! How outgoing connections begin: this node says who it is, and both sides prove it where the plane is closed.

use std::net::SocketAddr;

use crate::codec::link::{Hello, Purpose, WELCOME_BYTES, Welcome};
use crate::ring::{Failure, put_first};
use crate::security::{CHALLENGE_BYTES, LinkDialler};
use crate::types::{Guid, LogPosition, NodeId};

use super::connections::{Awaited, Connection, ControlLink, DataIn, Opening, Stage};
use super::greeting::GREETING_PATIENCE;
use super::tag::{ConnectionId, Tag};
use super::thread::{LeaderLinks, LogThread};

/// While links cannot be made, one failure in so many is logged.
const FAILURES_A_LINE: u64 = 100;

impl LogThread {
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
        let plane = &self.options.plane;
        let secret = plane.secret().is_some();
        let hello = Hello { purpose, cluster, node, term, subscription, start, chunk_size, secret };
        let awaited = match plane.secret() {
            None => Awaited::Welcome,
            Some(secret) => {
                let dialler = LinkDialler::new(secret.clone(), cluster, &hello.encode());
                Awaited::Challenge(Box::new(dialler.map_err(|error| error.to_string())?))
            }
        };
        let tls = plane.dialled(address.ip()).map_err(|error| error.to_string())?;
        let file = self.driver.attach(socket);
        let stage = Stage::Opening(Box::new(Opening { leader, hello, awaited }));
        let deadline = self.now.after(GREETING_PATIENCE);
        let id = self.connections.insert(Connection::new(file, address, stage, deadline, tls));
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
        if !matches!(connection.stage, Stage::Opening(_)) {
            return;
        }
        match result {
            Err(failure) => self.broken(id, &failure.to_string()),
            // The hello follows when the handshake is done.
            Ok(()) if connection.tls.is_some() => self.start_tls(id),
            Ok(()) => self.say_hello(id),
        }
    }

    pub(super) fn say_hello(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(id) else { return };
        let Stage::Opening(opening) = &connection.stage else { return };
        let mut bytes = opening.hello.encode().to_vec();
        if let Awaited::Challenge(dialler) = &opening.awaited {
            bytes.extend_from_slice(&dialler.nonce());
        }
        self.send_owned(id, bytes);
        self.receive_exactly(id, WELCOME_BYTES);
    }

    /// The leader's answer to our greeting is there: the next part of its challenge, the welcome, or the reason behind a
    /// refusal.
    pub(super) fn handle_welcome(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Stage::Opening(opening) = &mut connection.stage else { return };
        let awaited = std::mem::replace(&mut opening.awaited, Awaited::Welcome);
        if let Awaited::Reason = awaited {
            return self.broken(id, &format!("refused: {}", String::from_utf8_lossy(bytes)));
        }
        if let Awaited::ChallengeRest(dialler, beginning) = awaited {
            return self.prove(id, *dialler, &[&beginning, bytes].concat());
        }
        let beginning: &[u8; WELCOME_BYTES] = bytes.try_into().expect("received in full");
        match (Welcome::decode(beginning), awaited) {
            (Ok(Welcome::Refused { reason_bytes }), _) => {
                opening.awaited = Awaited::Reason;
                self.receive_exactly(id, reason_bytes);
            }
            (Ok(Welcome::Accepted), Awaited::Challenge(_)) => {
                self.broken(
                    id,
                    "expected a proof that it has the secret of the cluster (ClusterSecretFile), found a welcome without one: \
                     it is an older release, or not of this cluster; it is not believed",
                );
            }
            (Err(_), Awaited::Challenge(dialler)) => {
                opening.awaited = Awaited::ChallengeRest(dialler, *beginning);
                self.receive_exactly(id, CHALLENGE_BYTES - WELCOME_BYTES);
            }
            (Ok(Welcome::Accepted), _) => self.link_up(id),
            (Err(error), _) => self.broken(id, &error.to_string()),
        }
    }

    /// The leader has the secret, or not; if it has, it hears that this node has it too.
    fn prove(&mut self, id: ConnectionId, dialler: LinkDialler, challenge: &[u8]) {
        match dialler.answer(challenge.try_into().expect("both parts")) {
            Ok(proof) => {
                self.receive_exactly(id, WELCOME_BYTES);
                self.send_owned(id, proof.to_vec());
            }
            Err(error) => self.broken(id, &error.to_string()),
        }
    }

    fn link_up(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Stage::Opening(opening) = &connection.stage else { return };
        let (leader, hello, is_sending) = (opening.leader, opening.hello, connection.sends > 0);
        tracing::info!(%leader, address = %connection.address, purpose = hello.purpose.name(), "link to the leader is up");
        connection.deadline = None;
        self.failed_openings = 0;
        if hello.purpose == Purpose::Data {
            connection.stage = Stage::DataIn(DataIn { leader, subscription: hello.subscription });
            self.driver.stream(connection.file, self.data_buffers, Tag::Receive(id).pack());
        } else {
            connection.stage = Stage::Control(Box::new(ControlLink::new(leader, true, is_sending)));
            self.receive_control(id, Vec::new());
            self.engine.handle_leader_link(leader, true);
        }
    }
}
