//! How bytes get onto a connection and off it: as they are, or through TLS. All stages above see plain bytes.
//!
//! What a stage sends is sealed into memory of the connection and goes out one send at a time; when it is out the stage gets
//! its own buffer back, as without TLS. What comes is opened first; what TLS itself wants to send goes between. The log is
//! sealed out of the log buffer, which is let go of at once; only the next piece holds it, while a send is under way.
//!
//! **Invariant:** of one connection at most one sealed send is under way and one waits, each of what a stage sends at once.

use std::rc::Rc;

use crate::codec::link::{HELLO_BYTES, Purpose};
use crate::limits::{HANDSHAKES_PER_TURN, REPLICATION_WINDOW_BYTES, SEND_MAX_BYTES};
use crate::ring::{Failure, Slice, Source};
use crate::security::{TlsChannel, TlsError, sealed_bytes_max};
use crate::types::LogPosition;

use super::connections::{DataIn, Greeting, Stage};
use super::error::LogThreadError;
use super::greeting::CLOSING_PATIENCE;
use super::tag::{ConnectionId, Tag};
use super::thread::LogThread;

/// Bytes asked for at once on links that carry no log.
const RECEIVE_BYTES: usize = 16 << 10;

/// A buffer for sealed bytes that has become larger is not kept.
const SPARE_MAX_BYTES: usize = 2 * sealed_bytes_max(SEND_MAX_BYTES as usize);

/// Bytes of a leader's log that were opened and are not written yet, at most: a leader keeps to the window, and this is
/// for one that does not.
const OPENED_MAX_BYTES: usize = 2 * REPLICATION_WINDOW_BYTES as usize;

/// What a plain node's greeting begins with.
const PLAIN_HELLO: &[u8] = b"RSLINK";

/// Where a greeting has its purpose.
const PURPOSE_AT: usize = 10;

/// What came on a connection, for a later turn.
pub(super) type PutAside = (ConnectionId, Vec<u8>, Result<u32, Failure>);

/// TLS on one connection.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) channel: TlsChannel,
    /// There is a connection under it.
    is_started: bool,
    /// Something came over it.
    has_heard: bool,
    /// Sealed, not being sent yet.
    pub(super) sealed: Vec<u8>,
    /// The stage's buffers that are in `sealed`.
    waiting: Vec<Vec<u8>>,
    /// A sealed send is under way.
    pub(super) is_sending: bool,
    /// The stage's buffers that are in it.
    in_flight: Vec<Vec<u8>>,
    spare: Vec<u8>,
    /// Opened, not handled yet.
    plain: Vec<u8>,
    /// How many bytes the greeting waits for.
    needed: Option<usize>,
    /// The goodbye was said, or is not worth it.
    is_over: bool,
}

impl Tls {
    pub(super) fn new(channel: TlsChannel) -> Tls {
        Tls {
            channel,
            is_started: false,
            has_heard: false,
            sealed: Vec::new(),
            waiting: Vec::new(),
            is_sending: false,
            in_flight: Vec::new(),
            spare: Vec::new(),
            plain: Vec::new(),
            needed: None,
            is_over: false,
        }
    }

    /// The channel and what was opened, for whoever goes on with it.
    pub(super) fn into_parts(self) -> (TlsChannel, Vec<u8>) {
        (self.channel, self.plain)
    }

    /// The next bytes that the greeting waits for, when they are there.
    fn take_needed(&mut self) -> Option<Vec<u8>> {
        let needed = self.needed.filter(|needed| self.plain.len() >= *needed)?;
        self.needed = None;
        Some(self.plain.drain(..needed).collect())
    }
}

impl LogThread {
    pub(super) fn is_tls(&self, id: ConnectionId) -> bool {
        self.connections.get(id).is_some_and(|connection| connection.tls.is_some())
    }

    // --- out ---

    /// Sends bytes on a connection; they come back through [`LogThread::handle_owned_sent`].
    pub(super) fn send_owned(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.sends += 1;
        let Some(tls) = &mut connection.tls else {
            return self.driver.send(connection.file, Source::Owned(bytes), Tag::Send(id).pack());
        };
        if let Err(error) = tls.channel.seal(&bytes, &mut tls.sealed) {
            return self.broken(id, &error.to_string());
        }
        tls.waiting.push(bytes);
        self.send_sealed(id);
    }

    /// Seals bytes of the log, wherever they are, and sends that. True when it did; else the link is broken.
    pub(super) fn send_log_sealed(&mut self, id: ConnectionId, position: LogPosition, length: usize) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(tls) = &mut connection.tls else { return false };
        let bytes = self.engine.buffer().slice(position, length);
        connection.sends += 1;
        if let Err(error) = tls.channel.seal(bytes, &mut tls.sealed) {
            self.broken(id, &error.to_string());
            return false;
        }
        // Nothing of the stage's own: only its turn.
        tls.waiting.push(Vec::new());
        self.send_sealed(id);
        true
    }

    /// Sends what is sealed, and what TLS itself has to say, unless a send is under way.
    fn send_sealed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(tls) = connection.tls.as_mut().filter(|tls| !tls.is_sending && tls.is_started) else { return };
        tls.channel.take_handshake(&mut tls.sealed);
        if tls.sealed.is_empty() {
            return;
        }
        tls.is_sending = true;
        debug_assert!(tls.in_flight.is_empty(), "one send at a time");
        std::mem::swap(&mut tls.in_flight, &mut tls.waiting);
        let bytes = std::mem::replace(&mut tls.sealed, std::mem::take(&mut tls.spare));
        self.driver.send(connection.file, Source::Owned(bytes), Tag::Send(id).pack());
    }

    /// A send of sealed bytes is done.
    pub(super) fn handle_sealed_sent(&mut self, id: ConnectionId, mut bytes: Vec<u8>, result: Result<(), Failure>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(tls) = &mut connection.tls else { return };
        tls.is_sending = false;
        bytes.clear();
        if bytes.capacity() <= SPARE_MAX_BYTES {
            tls.spare = bytes;
        }
        if let Err(failure) = result {
            tls.is_over = true;
            return self.broken(id, &failure.to_string());
        }
        for buffer in std::mem::take(&mut tls.in_flight) {
            self.handle_owned_sent(id, buffer, Ok(()));
        }
        self.send_sealed(id);
        let Some(connection) = self.connections.get(id).filter(|connection| !connection.is_sending()) else { return };
        match &connection.stage {
            Stage::Closing { .. } if connection.tls.as_ref().is_some_and(|tls| tls.is_over) => self.finish(id),
            Stage::Greeting(Greeting::Forward) => self.hand_to_edge(id),
            _ => {}
        }
    }

    // --- in ---

    /// There is a connection: what TLS says first goes out, and what comes is received.
    pub(super) fn start_tls(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(tls) = &mut connection.tls else { return };
        tls.is_started = true;
        self.driver.receive(connection.file, vec![0; RECEIVE_BYTES], Tag::Receive(id).pack());
        self.send_sealed(id);
    }

    /// Waits for exactly so many bytes of the greeting.
    pub(super) fn receive_exactly(&mut self, id: ConnectionId, count: usize) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match &mut connection.tls {
            Some(tls) => tls.needed = Some(count),
            None => self.driver.receive_exact(connection.file, vec![0; count], Tag::Receive(id).pack()),
        }
    }

    /// Bytes arrived on a connection with TLS.
    ///
    /// # Errors
    /// When what they cause cannot be carried out.
    pub(super) fn handle_sealed(
        &mut self,
        id: ConnectionId,
        buffer: Vec<u8>,
        result: Result<u32, Failure>,
    ) -> Result<(), LogThreadError> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let Some(tls) = &mut connection.tls else { return Ok(()) };
        if matches!(connection.stage, Stage::Closing { .. }) {
            return Ok(());
        }
        if connection.place.is_some() {
            if self.handshakes == HANDSHAKES_PER_TURN {
                self.put_aside.push_back((id, buffer, result));
                return Ok(());
            }
            self.handshakes += 1;
        }
        let count = match result {
            Ok(0) | Err(_) if !tls.has_heard && matches!(connection.stage, Stage::Greeting(_)) => {
                self.left_in_silence(id);
                return Ok(());
            }
            Ok(0) => {
                let reason = tls.channel.ended().map_or_else(|error| error.to_string(), |()| CLOSED.to_owned());
                self.broken(id, &reason);
                return Ok(());
            }
            Ok(count) => count as usize,
            Err(failure) => {
                self.broken(id, &failure.to_string());
                return Ok(());
            }
        };
        tls.has_heard = true;
        let was_established = tls.channel.is_established();
        let opened = tls.channel.receive(&buffer[..count], &mut tls.plain);
        let is_new = tls.channel.is_established() && !was_established;
        self.send_sealed(id);
        if is_new && matches!(self.connections.get(id).map(|connection| &connection.stage), Some(Stage::Opening(_))) {
            self.say_hello(id);
        }
        // What came before an error is good.
        self.take_opened(id)?;
        match opened {
            Ok(()) => self.receive_sealed(id, buffer),
            Err(error) => self.fail_tls(id, &error, &buffer[..count]),
        }
        Ok(())
    }

    /// A new turn: first what the last one had no time for.
    ///
    /// # Errors
    /// As [`LogThread::handle_sealed`].
    pub(super) fn go_on_with_handshakes(&mut self) -> Result<(), LogThreadError> {
        self.handshakes = 0;
        while self.handshakes < HANDSHAKES_PER_TURN
            && let Some((id, buffer, result)) = self.put_aside.pop_front()
        {
            self.handle_sealed(id, buffer, result)?;
            self.carry_out()?;
        }
        Ok(())
    }

    /// Hands what was opened to the stage.
    fn take_opened(&mut self, id: ConnectionId) -> Result<(), LogThreadError> {
        loop {
            let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
            let Some(tls) = connection.tls.as_mut().filter(|tls| !tls.plain.is_empty()) else { return Ok(()) };
            match &mut connection.stage {
                Stage::Greeting(_) => match tls.take_needed() {
                    Some(bytes) => self.handle_greeting(id, &bytes),
                    None => return Ok(()),
                },
                Stage::Opening(_) => match tls.take_needed() {
                    Some(bytes) => self.handle_welcome(id, &bytes),
                    None => return Ok(()),
                },
                Stage::Control(link) => {
                    link.inbox.append(&mut tls.plain);
                    return self.take_messages(id);
                }
                Stage::DataIn(_) => {
                    let bytes = std::mem::take(&mut tls.plain);
                    self.handle_opened(id, bytes);
                    return Ok(());
                }
                Stage::DataOut(_) => {
                    self.broken(id, "it sent what it must not send");
                    return Ok(());
                }
                Stage::Closing { .. } => return Ok(()),
            }
        }
    }

    /// Submits the next receive, unless the connection has ended or is received from in another way by now.
    fn receive_sealed(&mut self, id: ConnectionId, buffer: Vec<u8>) {
        let Some(connection) = self.connections.get(id) else { return };
        let has_ended = connection.tls.as_ref().is_some_and(|tls| tls.channel.is_closed_by_peer());
        match &connection.stage {
            Stage::Closing { .. } => {}
            Stage::Greeting(Greeting::Forward) if !has_ended => {}
            _ if has_ended => self.broken(id, CLOSED),
            Stage::DataIn(_) => {}
            _ => self.driver.receive(connection.file, buffer, Tag::Receive(id).pack()),
        }
    }

    /// Bytes of the leader's log, sealed.
    pub(super) fn handle_sealed_log(&mut self, id: ConnectionId, slice: &Slice) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(tls) = connection.tls.as_mut().filter(|_| matches!(connection.stage, Stage::DataIn(_))) else {
            return;
        };
        let mut bytes = self.files.tokens.spare();
        let opened = tls.channel.receive(slice, &mut bytes);
        let has_ended = tls.channel.is_closed_by_peer();
        self.send_sealed(id);
        self.handle_opened(id, bytes);
        match opened {
            Err(error) => self.fail_tls(id, &error, slice),
            Ok(()) if has_ended => self.broken(id, CLOSED),
            Ok(()) => {}
        }
    }

    /// Bytes of the leader's log, opened.
    fn handle_opened(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        let Some(Stage::DataIn(DataIn { subscription, .. })) = self.connections.get(id).map(|link| &link.stage) else {
            return;
        };
        let subscription = *subscription;
        if bytes.is_empty() {
            // A record that is not there in full yet.
            return;
        }
        if self.files.tokens.opened_bytes() + bytes.len() > OPENED_MAX_BYTES {
            let words = format!(
                "it sends more of its log than this node has written: {} bytes wait, at most {OPENED_MAX_BYTES} may",
                self.files.tokens.opened_bytes() + bytes.len()
            );
            return self.broken(id, &words);
        }
        let bytes = Rc::new(bytes);
        // A second owner, because the engine may give the token back before it returns.
        let token = self.files.tokens.insert_opened(Rc::clone(&bytes));
        self.hand_on(id, subscription, token, &bytes);
    }

    /// Why a stream of sealed bytes has ended.
    pub(super) fn end_of_stream(&self, id: ConnectionId) -> String {
        let tls = self.connections.get(id).and_then(|connection| connection.tls.as_ref());
        let ended = tls.map_or(Ok(()), |tls| tls.channel.ended());
        ended.map_or_else(|error| error.to_string(), |()| CLOSED.to_owned())
    }

    // --- ends ---

    /// The other side is not who it must be, or does not speak TLS. It was told why, as far as TLS has words for it.
    fn fail_tls(&mut self, id: ConnectionId, error: &TlsError, received: &[u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !matches!(connection.stage, Stage::Greeting(_)) {
            return self.broken(id, &error.to_string());
        }
        if matches!(error, TlsError::NotTls { .. }) {
            // It gets words that it understands: a node its own, everybody else those of a client.
            let is_node = received.starts_with(PLAIN_HELLO);
            let forwards = received.get(PURPOSE_AT) == Some(&(Purpose::Forward as u8));
            connection.tls = None;
            let words = format!("this node demands TLS on its internal port (UseInternalSsl): {error}");
            return self.refuse(id, !is_node || forwards, &words);
        }
        let address = connection.address;
        self.note_refused(address, &error.to_string());
        self.close(id);
    }

    /// Says goodbye on a connection with TLS before it is closed. False when there is nothing (more) to say.
    pub(super) fn say_goodbye(&mut self, id: ConnectionId) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Some(tls) = connection.tls.as_mut().filter(|tls| tls.is_started && !tls.is_over) else { return false };
        tls.is_over = true;
        tls.channel.close(&mut tls.sealed);
        if tls.sealed.is_empty() && !tls.is_sending {
            return false;
        }
        let stage = std::mem::replace(&mut connection.stage, Stage::Closing { rest: Vec::new() });
        connection.deadline = Some(now.after(CLOSING_PATIENCE));
        self.let_go(id, &stage);
        self.send_sealed(id);
        true
    }
}

/// A connection that ended as it should.
pub(super) const CLOSED: &str = "the peer closed it";

// The greeting is asked for in parts that are all smaller than one receive.
const _: () = assert!(HELLO_BYTES <= RECEIVE_BYTES);
