//! One client's session: frames in, requests handed on, answers out.
//!
//! A session is a reader (this module's [`serve`]) and a writer ([`Connection::write_all`]). The reader takes whole
//! frames off the receive buffer and hands each to [`dispatch`]; it pauses while the client does
//! not take its answers, so a client can only ask as fast as it listens.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, TcpStream as StdTcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Buf;
use monoio::net::TcpStream;

use crate::api::connection::{Connection, SendBudget, give_way};
use crate::api::counters::{add, subtract};
use crate::api::dispatch;
use crate::api::edge::EdgeState;
use crate::api::heartbeat::{Beat, Heartbeat};
use crate::api::identity::DefaultCredentials;
use crate::api::receive::{ReceiveBuffer, Received};
use crate::api::room;
use crate::api::subscribing::PATIENCE_STEPS_TOTAL;
use crate::codec::client::frame::{LENGTH_BYTES, frame_bytes};
use crate::codec::client::{Package, ProtocolLevel, response};
use crate::engine::Forwarded;
use crate::http::{SecureReadHalf, SecureStream};
use crate::limits::{SEND_QUEUE_BYTES, SEND_QUEUE_PAUSE_BYTES};
use crate::security::TlsError;
use crate::types::Guid;

/// A reader that has worked this long lets others have a turn.
const SLICE: Duration = Duration::from_millis(1);

/// How many small writes are handled between two looks at the clock; anything else may take long.
const LOOK_AFTER: usize = 32;

/// A write counts once more for each of this many bytes.
const LARGE_BYTES: usize = 4 << 10;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client, on the external port.
    Client,
    /// Another node's edge that forwards its clients' requests, on the internal port.
    Node,
}

/// What the edge knows of one connection.
pub(super) struct Session {
    /// Its key in the edge's table; zero until it is there.
    pub(super) key: Cell<u64>,
    pub(super) origin: Origin,
    /// Where the client is; `None` for a node, whose clients are elsewhere.
    pub(super) client: Option<IpAddr>,
    pub(super) connection: Rc<Connection>,
    pub(super) level: Cell<ProtocolLevel>,
    pub(super) credentials: RefCell<Option<DefaultCredentials>>,
    /// Its requests that wait for someone.
    pub(super) pending: Cell<usize>,
    /// Keys of its confirmed reads whose turn comes when it has taken earlier answers; a task works while there are any.
    pub(super) delayed: RefCell<VecDeque<u64>>,
    /// Steps that others still wait for it when it is behind with what is pushed to it.
    pub(super) patience: Cell<u32>,
    heartbeat: RefCell<Heartbeat>,
    sending: SendBudget,
}

impl Session {
    fn new(edge: &EdgeState, origin: Origin, client: Option<IpAddr>) -> Rc<Session> {
        let options = match origin {
            Origin::Client => edge.options.client_heartbeat,
            Origin::Node => edge.options.internal_heartbeat,
        };
        Rc::new(Session {
            key: Cell::new(0),
            origin,
            client,
            connection: Connection::new(Rc::clone(&edge.tally), edge.sending.clone()),
            level: Cell::default(),
            credentials: RefCell::default(),
            pending: Cell::new(0),
            delayed: RefCell::default(),
            patience: Cell::new(PATIENCE_STEPS_TOTAL),
            heartbeat: RefCell::new(Heartbeat::new(options, Instant::now())),
            sending: edge.sending.clone(),
        })
    }

    /// Sends an answer or a pushed message. A client that lets too much wait is told so and disconnected.
    pub(super) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let waiting = self.connection.unexcused_bytes();
        // When the edge has no room left, those who have the most waiting go first.
        let limit = if self.sending.is_used_up() { SEND_QUEUE_PAUSE_BYTES } else { SEND_QUEUE_BYTES };
        if waiting > limit && !self.connection.is_closing() {
            self.connection.count_cut();
            self.end_with(Guid::ZERO, &format!("Connection pending send bytes is too large: {waiting}."));
        } else {
            self.connection.send(write);
        }
    }

    /// Sends the answer to a read. It may be large, and the client that asked for it has had no time to take it: it is
    /// not held against it. The reader's pause bounds these.
    pub(super) fn send_page(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.connection.send_excused(write);
    }

    /// Says why, and closes.
    pub(super) fn end_with(&self, correlation: Guid, text: &str) {
        if !self.connection.is_closing() {
            tracing::info!(session = self.key.get(), text, "a connection is closed");
            self.connection.send(|out| response::bad_request(out, correlation, text));
            self.connection.close();
        }
    }

    /// For the sweep.
    pub(super) fn check_heartbeat(&self, now: Instant) {
        if self.connection.is_closing() {
            return;
        }
        let (heard, spoke) = (self.connection.life_signs(), self.connection.sent());
        match self.heartbeat.borrow_mut().check(now, heard, spoke) {
            Beat::Rest => {}
            Beat::Send => self.connection.send(|out| response::heartbeat_request(out, Guid::random())),
            Beat::Close => {
                tracing::info!(session = self.key.get(), "a connection is cut: no byte came in time");
                self.connection.cut();
            }
        }
    }
}

/// Serves a connection that was accepted elsewhere.
pub(super) fn adopt(edge: &Rc<EdgeState>, forwarded: Forwarded, origin: Origin) {
    let stream = StdTcpStream::from(forwarded.socket);
    // The ring waits for us; a socket that never waits would end every receive at once.
    match stream.set_nonblocking(false).and_then(|()| TcpStream::from_std(stream)) {
        Ok(stream) => {
            let stream = match forwarded.tls {
                Some((channel, opened)) => SecureStream::resume(stream, channel, opened),
                None => stream.into(),
            };
            monoio::spawn(serve(Rc::clone(edge), stream, origin));
        }
        Err(error) => tracing::warn!(%error, "a connection from another node cannot be served"),
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(edge: Rc<EdgeState>, stream: SecureStream, origin: Origin) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let client = if origin == Origin::Client { stream.peer_addr().ok().map(|peer| peer.ip()) } else { None };
    let session = Session::new(&edge, origin, client);
    let Ok(key) = edge.sessions.borrow_mut().insert(Rc::clone(&session)) else {
        return;
    };
    session.key.set(key);
    let counters = &edge.links.counters;
    let open = if origin == Origin::Client { &counters.tcp_connections_now } else { &counters.forward_connections_now };
    add(open, 1);
    let (mut reader, writer) = stream.into_split();
    let connection = Rc::clone(&session.connection);
    let writing = monoio::spawn(async move { connection.write_all(writer).await });
    let mut buffer = ReceiveBuffer::new(edge.budget.clone());
    read_requests(&edge, &session, &mut reader, &mut buffer).await;
    edge.forget_session(&session);
    session.connection.close();
    // Its memory is needed elsewhere, whatever the last words still take.
    buffer.release(&session.connection);
    drain(&session.connection, &mut reader, &mut buffer).await;
    writing.await;
    edge.sessions.borrow_mut().remove(key);
    subtract(open, 1);
}

async fn read_requests(
    edge: &Rc<EdgeState>,
    session: &Rc<Session>,
    reader: &mut SecureReadHalf,
    buffer: &mut ReceiveBuffer,
) {
    loop {
        let Some(needed) = handle_frames(edge, session, buffer).await else {
            return;
        };
        match buffer.receive(reader, &session.connection, needed).await {
            Received::More => {}
            Received::End => return say_tls_error(edge, session, buffer),
            Received::NoRoom if room::make_room(edge, session).await => {}
            Received::NoRoom => return,
        }
        if session.connection.is_closing() {
            return;
        }
    }
}

/// One that only left without a goodbye is nothing new.
fn say_tls_error(edge: &EdgeState, session: &Session, buffer: &mut ReceiveBuffer) {
    let error = buffer.take_tls_error().filter(|error| !matches!(error, TlsError::Truncated { .. }));
    if let Some(error) = error
        && let Some(unsaid) = edge.refusals.may_say(Instant::now())
    {
        tracing::warn!(session = session.key.get(), unsaid, "a connection with TLS is given up: {error}");
    }
}

/// Handles the whole frames in the buffer. Gives the size of the frame that has begun, as far as known, or `None` when
/// the connection ends.
async fn handle_frames(edge: &Rc<EdgeState>, session: &Rc<Session>, buffer: &mut ReceiveBuffer) -> Option<usize> {
    edge.begin_turn();
    let mut work = 0;
    loop {
        let size = match frame_bytes(buffer.bytes()) {
            Ok(Some(size)) if size <= buffer.bytes().len() => size,
            Ok(size) => return Some(size.unwrap_or(0)),
            Err(error) => {
                session.end_with(Guid::ZERO, &error.to_string());
                return None;
            }
        };
        work += handle_frame(edge, session, buffer, size);
        if session.connection.waiting_bytes() > SEND_QUEUE_PAUSE_BYTES {
            session.connection.until_below(SEND_QUEUE_PAUSE_BYTES / 2).await;
            edge.begin_turn();
        }
        if session.connection.is_closing() {
            return None;
        }
        if work >= LOOK_AFTER {
            work = 0;
            if edge.now().elapsed() >= SLICE {
                give_way().await;
                edge.begin_turn();
            }
        }
    }
}

/// Handles the first frame in the buffer, of `size` bytes, and takes it out. Gives how much work that was.
fn handle_frame(edge: &Rc<EdgeState>, session: &Rc<Session>, buffer: &mut ReceiveBuffer, size: usize) -> usize {
    if dispatch::handle_write(edge, session, &buffer.bytes()[LENGTH_BYTES..size]) {
        buffer.skip(size);
        return 1 + size / LARGE_BYTES;
    }
    let mut frame = buffer.take(size);
    frame.advance(LENGTH_BYTES);
    match Package::read(frame) {
        Ok(package) => dispatch::handle(edge, session, &package),
        Err(error) => session.end_with(Guid::ZERO, &error.to_string()),
    }
    LOOK_AFTER
}

/// Reads and forgets what the other side still sends until it closes too or the sweep cuts the connection: closing a
/// socket with unread bytes resets it, and a reset may overtake our last words.
async fn drain(connection: &Connection, reader: &mut SecureReadHalf, buffer: &mut ReceiveBuffer) {
    loop {
        buffer.clear();
        if buffer.receive(reader, connection, 0).await != Received::More {
            return;
        }
    }
}
