//! How accepted connections begin: the other side says who it is, and proves it where the plane is closed. How it is
//! proven stands in [`security`](crate::security); outgoing connections are in [`opening`](super::opening).
//!
//! **Invariant:** before the proof nothing is done for the other side: its hello is looked at, and this node shows that it has
//! the secret itself. Followers, edges and the engine hear of it when it was good.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::codec::link::{HELLO_BYTES, Hello, LinkError, Purpose, REFUSAL, TLS_HANDSHAKE, Welcome, put_frame, shorten};
use crate::codec::record::MembershipBody;
use crate::engine::Forwarded;
use crate::limits::FOLLOWERS_MAX;
use crate::ring::{Failure, abort_on_close, peer_address, prepare_link, put_first};
use crate::security::{LinkAnswerer, NONCE_BYTES, PROOF_BYTES, Place};
use crate::types::Guid;

use super::connections::{Connection, ControlLink, Greeting, Stage};
use super::data_link::DataOut;

use super::tag::{ConnectionId, Tag};
use super::thread::{FollowerLinks, LogThread};

/// How long a connection may take to say who it is and prove it, or to be made.
pub(super) const GREETING_PATIENCE: Duration = Duration::from_secs(5);

/// How long the last bytes of a connection may take.
pub(super) const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

/// Pause before the listener accepts again after a failure; mostly there were too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// `BadRequest` of the client protocol: what a client, or an edge that forwards, understands.
const BAD_REQUEST: u8 = 0xF0;

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
        let place = Place::of(address.ip(), self.is_known(address.ip()));
        let taken = self.connections.iter().filter_map(|(_, connection)| connection.place);
        if let Err(limit) = self.places.check(self.now, place, taken) {
            let done = if self.options.plane.is_open() { "said" } else { "proven" };
            return self.note_refused(address, &format!("{limit} connections have not {done} who they are"));
        }
        let prepared = self.options.way.patience.map_or(Ok(()), |patience| prepare_link(&socket, patience));
        if let Err(error) = prepared {
            tracing::warn!(%address, %error, "an accepted connection cannot be used");
            return;
        }
        let tls = match self.options.plane.accepted(address.ip()) {
            Ok(tls) => tls,
            Err(error) => return tracing::warn!(%address, %error, "an accepted connection cannot be used"),
        };
        let (file, deadline) = (self.driver.attach(socket), self.now.after(GREETING_PATIENCE));
        let stage = Stage::Greeting(Greeting::Hello);
        let connection = Connection { place: Some(place), ..Connection::new(file, address, stage, deadline, tls) };
        let id = self.connections.insert(connection);
        self.start_tls(id);
        self.receive_exactly(id, HELLO_BYTES);
    }

    /// True when a node of the cluster lives at this address, as far as this node knows.
    fn is_known(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_member =
            |list: &MembershipBody| list.members.iter().any(|member| member.int_ip.to_canonical() == address);
        self.cluster.as_ref().is_some_and(is_member)
            || self.proven.has(address)
            || self.links.directory.nodes().iter().any(|node| node.addresses.int_tcp.ip().to_canonical() == address)
    }

    /// The next part of the greeting of an accepted connection is there in full.
    pub(super) fn handle_greeting(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Stage::Greeting(greeting) = &mut connection.stage else { return };
        match std::mem::replace(greeting, Greeting::Hello) {
            Greeting::Hello => self.handle_hello(id, bytes),
            Greeting::Nonce(hello) => self.challenge(id, *hello, bytes),
            Greeting::Proof(proof) => self.handle_proof(id, *proof, bytes),
            Greeting::Forward => unreachable!("nothing is asked for"),
        }
    }

    fn handle_hello(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(address) = self.connections.get(id).map(|connection| connection.address) else { return };
        let bytes: &[u8; HELLO_BYTES] = bytes.try_into().expect("received in full");
        let hello = match Hello::decode(bytes) {
            Ok(hello) => hello,
            Err(error) => {
                // Most likely a client on the wrong port: it gets its own protocol's words. A node that speaks TLS knows
                // those of a plain one.
                let as_client = matches!(error, LinkError::NotOurs { found } if found[0] != TLS_HANDSHAKE);
                return self.refuse(id, as_client, &error.to_string());
            }
        };
        let checked = self.check_lock(&hello, address).and_then(|()| self.check_hello(&hello));
        match checked {
            Ok(()) if hello.secret => {
                self.set_greeting(id, Greeting::Nonce(Box::new((hello, *bytes))));
                self.receive_exactly(id, NONCE_BYTES);
            }
            Ok(()) => self.welcome(id, &hello),
            Err(reason) => {
                tracing::debug!(node = %hello.node, "its greeting: {hello:?}");
                // One that has sent a nonce waits for a challenge, or a refusal as of a node.
                self.refuse(id, hello.purpose == Purpose::Forward && !hello.secret, &reason);
            }
        }
    }

    fn set_greeting(&mut self, id: ConnectionId, greeting: Greeting) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.stage = Stage::Greeting(greeting);
        }
    }

    /// Both sides have the cluster's secret, or neither.
    fn check_lock(&self, hello: &Hello, address: SocketAddr) -> Result<(), String> {
        let (node, other) = (self.engine.node(), hello.node);
        match (self.options.plane.secret().is_some(), hello.secret) {
            (true, false) => Err(format!(
                "this node demands a proof of the cluster's secret (ClusterSecretFile), the greeting of node {other} from \
                 {address} has none: node {node} has the secret, node {other} has not; give all nodes the same file"
            )),
            (false, true) => Err(format!(
                "this node has no secret of the cluster (ClusterSecretFile), the greeting of node {other} from {address} \
                 expects a proof of it: node {other} has one, node {node} has none; give all nodes the same file, or none"
            )),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// The nonce behind a hello is there: this side proves itself first.
    fn challenge(&mut self, id: ConnectionId, (hello, said): (Hello, [u8; HELLO_BYTES]), nonce: &[u8]) {
        let nonce: &[u8; NONCE_BYTES] = nonce.try_into().expect("received in full");
        let (secret, cluster) = (self.options.plane.secret().cloned(), self.cluster.as_ref().map(|list| list.cluster));
        let (Some(secret), Some(cluster)) = (secret, cluster) else { return self.close(id) };
        let answerer = loop {
            match LinkAnswerer::new(secret.clone(), cluster, &said, nonce) {
                // The other side tells a challenge from a refusal by how it begins.
                Ok(answerer) if answerer.challenge().starts_with(&REFUSAL) => {}
                Ok(answerer) => break answerer,
                Err(error) => return self.refuse(id, false, &error.to_string()),
            }
        };
        let challenge = answerer.challenge().to_vec();
        self.set_greeting(id, Greeting::Proof(Box::new((hello, answerer))));
        self.receive_exactly(id, PROOF_BYTES);
        self.send_owned(id, challenge);
    }

    fn handle_proof(&mut self, id: ConnectionId, (hello, answerer): (Hello, LinkAnswerer), proof: &[u8]) {
        match answerer.accept(proof.try_into().expect("received in full")) {
            Ok(()) => self.welcome(id, &hello),
            Err(error) => {
                let reason = format!("node {}: {error}", hello.node);
                self.refuse(id, hello.purpose == Purpose::Forward, &reason);
            }
        }
    }

    /// The other side is who it says: from here on something is done for it.
    fn welcome(&mut self, id: ConnectionId, hello: &Hello) {
        let Some(address) = self.connections.get(id).map(|connection| connection.address) else { return };
        let welcome = match hello.purpose {
            Purpose::Control => self.welcome_control(id, hello),
            Purpose::Data => self.welcome_data(id, hello),
            Purpose::Forward => {
                self.hand_to_edge(id);
                Ok(())
            }
        };
        match welcome {
            Ok(()) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.place = None;
                }
                if !self.options.plane.is_open() {
                    self.proven.note(address.ip());
                }
                tracing::info!(node = %hello.node, %address, purpose = hello.purpose.name(), "link accepted");
            }
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
        self.send_owned(id, Welcome::accept().to_vec());
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
        let is_tls = self.is_tls(id);
        if !is_tls && let Some(connection) = self.connections.get(id) {
            // A link that is dropped because it holds up the log buffer must let go of it.
            let _ = self.driver.descriptor(connection.file).map(abort_on_close);
        }
        let zero_copy = self.options.zero_copy && self.driver.capabilities().zero_copy_send && !is_tls;
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        connection.stage = Stage::DataOut(Box::new(DataOut::new(hello.node, hello.subscription, start, zero_copy)));
        connection.deadline = None;
        let file = connection.file;
        self.send_owned(id, Welcome::accept().to_vec());
        if !is_tls {
            self.driver.receive(file, vec![0; NOTICE_BYTES], Tag::Receive(id).pack());
        }
        Ok(())
    }

    /// From here on the connection belongs to an edge, which serves it like a client's.
    pub(super) fn hand_to_edge(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.is_sending() {
            connection.stage = Stage::Greeting(Greeting::Forward);
            return;
        }
        let Some(connection) = self.connections.remove(id) else { return };
        let socket = self.driver.detach(connection.file);
        self.outboxes.forward(Forwarded { socket, tls: connection.tls.map(|tls| tls.into_parts()) });
    }

    pub(super) fn refuse(&mut self, id: ConnectionId, as_client: bool, reason: &str) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let address = connection.address;
        let bytes = if as_client {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, BAD_REQUEST, Guid::ZERO, |out| out.extend_from_slice(shorten(reason).as_bytes()));
            bytes
        } else {
            Welcome::refuse(reason)
        };
        connection.stage = Stage::Closing { rest: Vec::new() };
        connection.deadline = Some(self.now.after(CLOSING_PATIENCE));
        self.note_refused(address, reason);
        self.send_owned(id, bytes);
    }

    /// Counts and says that somebody was refused. Where the plane is closed strangers may come often, and get a few lines only.
    pub(super) fn note_refused(&mut self, address: SocketAddr, reason: &str) {
        const WORDS: &str = "connection on the internal port refused";
        self.published.counters.refused_links.fetch_add(1, Ordering::Relaxed);
        if self.options.plane.is_open() {
            return tracing::warn!(%address, reason, "{WORDS}");
        }
        match self.strangers.may_say(Instant::now()) {
            Some(0) => tracing::warn!(%address, reason, "{WORDS}"),
            Some(unsaid) => tracing::warn!(%address, reason, unsaid, "{WORDS}; others before it were not logged"),
            None => tracing::debug!(%address, reason, "{WORDS}"),
        }
    }

    /// An accepted connection ended before a byte came: somebody only looked whether the port is there.
    pub(super) fn left_in_silence(&mut self, id: ConnectionId) {
        let Some(address) = self.connections.get(id).map(|connection| connection.address) else { return };
        tracing::debug!(%address, "connection on the internal port left without a word");
        self.close(id);
    }

    /// An accepted connection ended before its greeting was good.
    pub(super) fn greeting_broken(&mut self, id: ConnectionId, reason: &str) {
        let Some(connection) = self.connections.get(id) else { return };
        let Stage::Greeting(greeting) = &connection.stage else { return };
        let address = connection.address;
        let handshakes = connection.tls.as_ref().is_some_and(|tls| !tls.channel.is_established());
        let words = match greeting {
            Greeting::Hello if handshakes => format!("expected a TLS handshake, found half of one: {reason}"),
            Greeting::Hello => format!("expected a greeting, found half of one: {reason}"),
            Greeting::Nonce(hello) => {
                format!("expected a nonce behind the greeting of node {}: {reason}", hello.0.node)
            }
            Greeting::Proof(proof) => {
                let hello = &proof.0;
                format!(
                    "node {} does not prove that it is of this cluster: expected a proof with the secret of cluster {}, \
                     found none: {reason}. It may have taken this node's own proof for wrong: is ClusterSecretFile the \
                     same on both nodes?",
                    hello.node, hello.cluster
                )
            }
            Greeting::Forward => format!("it ended before it could be served: {reason}"),
        };
        if self.options.plane.is_open() {
            tracing::debug!(%address, reason, "connection closed");
        } else {
            self.note_refused(address, &words);
        }
        self.close(id);
    }
}
