//! Control links that are up: messages in, messages out; and the end of links of every kind.

use crate::codec::link::{CONTROL_PACKAGE_MAX_BYTES, take_frame};
use crate::consensus::Message;
use crate::limits::CONTROL_OUTBOX_BYTES;
use crate::ring::Failure;
use crate::types::NodeId;

use super::connections::{Connection, Greeting, Stage};
use super::error::LogThreadError;
use super::greeting::CLOSING_PATIENCE;
use super::messages;
use super::tag::{ConnectionId, Tag};
use super::thread::LogThread;

/// Bytes asked for at once: a good many small messages, or a part of the largest one.
const RECEIVE_BYTES: usize = 16 << 10;

/// A control link says only what belongs to its direction.
fn is_from_leader(message: &Message) -> bool {
    match message {
        Message::Subscribed { .. } | Message::Refused { .. } | Message::Heartbeat { .. } => true,
        Message::Subscribe { .. } | Message::Acknowledge { .. } | Message::HeartbeatAnswer { .. } => false,
    }
}

impl LogThread {
    /// Submits the next receive of a control link, into `buffer` used again.
    pub(super) fn receive_control(&mut self, id: ConnectionId, mut buffer: Vec<u8>) {
        // With TLS the connection receives by itself.
        let Some(connection) = self.connections.get(id).filter(|connection| connection.tls.is_none()) else { return };
        buffer.resize(RECEIVE_BYTES, 0);
        self.driver.receive(connection.file, buffer, Tag::Receive(id).pack());
    }

    /// Bytes arrived on a control link.
    ///
    /// # Errors
    /// When what the messages cause cannot be carried out.
    pub(super) fn handle_control_bytes(
        &mut self,
        id: ConnectionId,
        buffer: Vec<u8>,
        result: Result<u32, Failure>,
    ) -> Result<(), LogThreadError> {
        let Some(link) = self.connections.control(id) else { return Ok(()) };
        match result {
            Ok(0) => self.broken(id, "the peer closed it"),
            Err(failure) => self.broken(id, &failure.to_string()),
            Ok(count) => {
                link.inbox.extend_from_slice(&buffer[..count as usize]);
                self.take_messages(id)?;
                self.receive_control(id, buffer);
            }
        }
        Ok(())
    }

    /// Hands the complete messages in the inbox to the engine, one by one: what one of them causes may close the link,
    /// and then the rest must not be heard.
    pub(super) fn take_messages(&mut self, id: ConnectionId) -> Result<(), LogThreadError> {
        let mut taken = 0;
        loop {
            let Some(link) = self.connections.control(id) else { return Ok(()) };
            let (node, to_leader) = (link.node, link.to_leader);
            let message = match take_frame(&link.inbox[taken..]) {
                Ok(None) => {
                    link.inbox.drain(..taken);
                    debug_assert!(link.inbox.len() <= CONTROL_PACKAGE_MAX_BYTES + RECEIVE_BYTES);
                    return Ok(());
                }
                Ok(Some((frame, length))) => {
                    taken += length;
                    messages::decode(&frame)
                }
                Err(error) => Err(error),
            };
            match message {
                Ok(message) if is_from_leader(&message) == to_leader => {
                    if let Message::Refused { reason, .. } = &message {
                        tracing::info!(leader = %node, reason, "the leader does not serve this node");
                    }
                    self.engine.handle_message(node, message);
                }
                Ok(message) => self.broken(id, &format!("it sent what only the other side may send: {message:?}")),
                Err(error) => self.broken(id, &error.to_string()),
            }
            self.carry_out()?;
        }
    }

    /// Puts a message into the outbox of the link that it belongs to; without one it is lost.
    pub(super) fn say(&mut self, peer: NodeId, message: &Message) {
        let id = if is_from_leader(message) {
            self.followers.get(&peer).map(|links| links.control)
        } else {
            self.leader.as_ref().filter(|links| links.node == peer).and_then(|links| links.control)
        };
        let Some((id, link)) = id.and_then(|id| Some((id, self.connections.control(id)?))) else { return };
        messages::encode(message, &mut link.outbox);
        if link.outbox.len() > CONTROL_OUTBOX_BYTES {
            self.broken(id, "it does not read what it is sent");
        }
    }

    /// Sends what is in the outboxes: all that a turn has said to a node goes as one.
    pub(super) fn send_outboxes(&mut self) {
        let mut ids = std::mem::take(&mut self.ids);
        ids.extend(self.followers.values().map(|links| links.control));
        ids.extend(self.leader.as_ref().and_then(|links| links.control));
        for id in ids.drain(..) {
            self.send_outbox(id);
        }
        self.ids = ids;
    }

    fn send_outbox(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Stage::Control(link) = &mut connection.stage else { return };
        if link.sending || link.outbox.is_empty() {
            return;
        }
        link.sending = true;
        let bytes = std::mem::replace(&mut link.outbox, std::mem::take(&mut link.spare));
        self.send_owned(id, bytes);
    }

    /// A send of owned bytes is done: a part of a greeting, a welcome, control messages, last words.
    pub(super) fn handle_owned_sent(&mut self, id: ConnectionId, mut bytes: Vec<u8>, result: Result<(), Failure>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.sends = connection.sends.saturating_sub(1);
        if let Err(failure) = result {
            return self.broken(id, &failure.to_string());
        }
        if connection.sends > 0 {
            return;
        }
        bytes.clear();
        let is_sending = connection.is_sending();
        match &mut connection.stage {
            Stage::Control(link) => {
                link.sending = false;
                link.spare = bytes;
                self.send_outbox(id);
            }
            // The last of it goes with the goodbye of TLS.
            Stage::Closing { rest } if rest.is_empty() && is_sending => {}
            Stage::Closing { rest } if rest.is_empty() => self.close(id),
            Stage::Closing { rest } => {
                let rest = std::mem::take(rest);
                self.send_owned(id, rest);
            }
            Stage::DataOut(_) => self.handle_data_sent(id, bytes),
            Stage::Greeting(Greeting::Forward) => self.hand_to_edge(id),
            Stage::Greeting(_) | Stage::Opening(_) | Stage::DataIn(_) => {}
        }
    }

    // --- ends ---

    /// A connection does not work (any more): closes what belongs to it and tells the engine.
    pub(super) fn broken(&mut self, id: ConnectionId, reason: &str) {
        let Some(connection) = self.connections.get(id) else { return };
        let address = connection.address;
        match &connection.stage {
            Stage::Greeting(_) => self.greeting_broken(id, reason),
            Stage::Closing { .. } => {
                tracing::debug!(%address, reason, "connection closed");
                self.finish(id);
            }
            Stage::Opening(opening) => {
                let (leader, purpose) = (opening.leader, opening.hello.purpose);
                self.note_failed_opening(leader, purpose, reason);
                self.leader_lost(id, leader);
            }
            Stage::DataIn(link) => {
                let leader = link.leader;
                tracing::warn!(%leader, %address, reason, "the data link to the leader is down");
                self.leader_lost(id, leader);
            }
            Stage::Control(link) if link.to_leader => {
                let leader = link.node;
                tracing::warn!(%leader, %address, reason, "the control link to the leader is down");
                self.leader_lost(id, leader);
            }
            Stage::Control(link) => {
                let node = link.node;
                self.drop_follower(node, reason);
                self.engine.handle_follower_link_down(node);
            }
            Stage::DataOut(link) => {
                let node = link.follower;
                self.drop_follower(node, reason);
                self.engine.handle_follower_link_down(node);
            }
        }
    }

    /// A link to a leader is of no use. One that belongs to an earlier attempt just goes; else both go.
    fn leader_lost(&mut self, id: ConnectionId, leader: NodeId) {
        self.close(id);
        if self.leader.as_ref().is_some_and(|links| links.control == Some(id) || links.data == Some(id)) {
            self.close_leader();
            self.engine.handle_leader_link(leader, false);
        }
    }

    /// Closes the links to the leader, and drops what they delivered but was not handed on.
    pub(super) fn close_leader(&mut self) {
        if let Some(links) = self.leader.take() {
            for id in [links.control, links.data].into_iter().flatten() {
                self.close(id);
            }
        }
    }

    /// Closes the links with a follower; what was said to it last still goes out.
    pub(super) fn drop_follower(&mut self, node: NodeId, reason: &str) {
        let Some(links) = self.followers.remove(&node) else { return };
        tracing::info!(%node, reason, "the links with a follower are closed");
        if let Some(data) = links.data {
            self.close(data);
        }
        let Some(connection) = self.connections.get_mut(links.control) else { return };
        match &mut connection.stage {
            Stage::Control(link) if link.sending || !link.outbox.is_empty() => {
                self.send_outbox(links.control);
                let Some(connection) = self.connections.get_mut(links.control) else { return };
                let Stage::Control(link) = &mut connection.stage else { return };
                let rest = std::mem::take(&mut link.outbox);
                connection.stage = Stage::Closing { rest };
                connection.deadline = Some(self.now.after(CLOSING_PATIENCE));
            }
            _ => self.close(links.control),
        }
    }

    /// Closes one connection, with TLS when its last words are out. What the kernel still reads from the log buffer for it
    /// stays held.
    pub(super) fn close(&mut self, id: ConnectionId) {
        let is_last = |connection: &Connection| {
            matches!(connection.stage, Stage::Closing { .. }) && connection.tls.is_some() && connection.is_sending()
        };
        if self.say_goodbye(id) || self.connections.get(id).is_some_and(is_last) {
            return;
        }
        self.finish(id);
    }

    /// Closes one connection now.
    pub(super) fn finish(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(id) {
            if let Some(place) = connection.place.filter(|_| !self.options.plane.is_open()) {
                self.places.leave(self.now, place);
            }
            self.let_go(id, &connection.stage);
            self.driver.close(connection.file);
            self.update_orphans();
        }
    }

    /// What was held of the log buffer for a link, but is not being sent, is held no more.
    pub(super) fn let_go(&mut self, id: ConnectionId, stage: &Stage) {
        if let Stage::DataOut(link) = stage
            && let Some(window) = link.unsent()
        {
            self.holds.remove(id, window.position());
        }
    }

    /// Gives up connections that take too long to say who they are, to be made or to be closed.
    pub(super) fn check_deadlines(&mut self) {
        let late = |deadline: crate::types::Ticks| deadline <= self.now;
        let ids: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline.is_some_and(late))
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.broken(id, "it takes too long");
        }
    }
}
