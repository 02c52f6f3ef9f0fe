//! A blocking client of the v5 TCP wire, one request at a time.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use prost::Message;

use super::messages::{
    EventRecord, NewEvent, NotHandled, ReadAllEvents, ReadAllEventsCompleted, ReadStreamEvents,
    ReadStreamEventsCompleted, ResolvedEvent, StreamEventAppeared, SubscribeToStream, SubscriptionConfirmation,
    WriteEvents, WriteEventsCompleted,
};

pub(crate) const HEARTBEAT_REQUEST: u8 = 0x01;
pub(crate) const HEARTBEAT_RESPONSE: u8 = 0x02;
pub(crate) const PING: u8 = 0x03;
pub(crate) const PONG: u8 = 0x04;
pub(crate) const WRITE_EVENTS: u8 = 0x82;
pub(crate) const WRITE_EVENTS_COMPLETED: u8 = 0x83;
pub(crate) const READ_STREAM_FORWARD: u8 = 0xB2;
pub(crate) const READ_STREAM_FORWARD_COMPLETED: u8 = 0xB3;
pub(crate) const READ_ALL_FORWARD: u8 = 0xB6;
pub(crate) const READ_ALL_FORWARD_COMPLETED: u8 = 0xB7;
pub(crate) const SUBSCRIBE: u8 = 0xC0;
pub(crate) const SUBSCRIPTION_CONFIRMED: u8 = 0xC1;
pub(crate) const EVENT_APPEARED: u8 = 0xC2;
pub(crate) const BAD_REQUEST: u8 = 0xF0;
pub(crate) const NOT_HANDLED: u8 = 0xF1;
pub(crate) const AUTHENTICATE: u8 = 0xF2;
pub(crate) const AUTHENTICATED: u8 = 0xF3;
pub(crate) const NOT_AUTHENTICATED: u8 = 0xF4;

/// Expected versions with a meaning of their own.
pub(crate) const ANY: i64 = -2;
pub(crate) const NO_STREAM: i64 = -1;

/// Command, flags and correlation identifier.
const PACKAGE_HEAD_BYTES: usize = 18;
const PACKAGE_MAX_BYTES: usize = 64 << 20;

/// How long a read of the socket waits before the caller is asked whether it still cares.
const SLICE: Duration = Duration::from_millis(20);

/// What a frame carries. Flags are left out: the tests send none, and the server never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) command: u8,
    pub(crate) correlation: [u8; 16],
    pub(crate) payload: Vec<u8>,
}

impl Package {
    /// The frame on the wire.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = PACKAGE_HEAD_BYTES + self.payload.len();
        let mut frame = Vec::with_capacity(4 + length);
        frame.extend_from_slice(&(length as u32).to_le_bytes());
        frame.extend_from_slice(&[self.command, 0]);
        frame.extend_from_slice(&self.correlation);
        frame.extend_from_slice(&self.payload);
        frame
    }

    /// Takes the first whole frame out of `buffer`.
    pub(crate) fn take(buffer: &mut Vec<u8>) -> io::Result<Option<Package>> {
        let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if !(PACKAGE_HEAD_BYTES..=PACKAGE_MAX_BYTES).contains(&length) {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("the server sent a package of {length} bytes")));
        }
        if buffer.len() < 4 + length {
            return Ok(None);
        }
        let frame: Vec<u8> = buffer.drain(..4 + length).skip(4).collect();
        let correlation = frame[2..PACKAGE_HEAD_BYTES].try_into().expect("16 bytes");
        Ok(Some(Package { command: frame[0], correlation, payload: frame[PACKAGE_HEAD_BYTES..].to_vec() }))
    }
}

/// Why a request was not carried out, as the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 0 not ready, 1 too busy, 2 not the leader.
    NotHandled(i32),
    /// An `OperationResult` (writes) or read result other than success.
    Result { result: i32, message: String, current_version: i64 },
    /// The text of a BadRequest or NotAuthenticated.
    Refused(String),
}

impl Refusal {
    pub(crate) const PREPARE_TIMEOUT: i32 = 1;
    pub(crate) const COMMIT_TIMEOUT: i32 = 2;
    pub(crate) const FORWARD_TIMEOUT: i32 = 3;
    pub(crate) const WRONG_EXPECTED_VERSION: i32 = 4;

    /// True when repeating the request with the same identifiers is what a client does.
    pub(crate) fn may_be_repeated(&self) -> bool {
        match self {
            Refusal::NotHandled(_) => true,
            Refusal::Result { result, .. } => {
                [Refusal::PREPARE_TIMEOUT, Refusal::COMMIT_TIMEOUT, Refusal::FORWARD_TIMEOUT].contains(result)
            }
            Refusal::Refused(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotHandled(reason) => write!(f, "not handled, reason {reason}"),
            Refusal::Result { result, message, current_version } => {
                write!(f, "result {result}, \"{message}\", current version {current_version}")
            }
            Refusal::Refused(text) => write!(f, "refused: {text}"),
        }
    }
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) first_event_number: i64,
    pub(crate) last_event_number: i64,
    /// -1 when the server recognised a repeat.
    pub(crate) commit_position: i64,
}

/// A page of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page {
    pub(crate) events: Vec<EventRecord>,
    pub(crate) next_event_number: i64,
    pub(crate) is_end_of_stream: bool,
}

/// An event with JSON-free data, ready to be written.
pub(crate) fn event(id: [u8; 16], data: Vec<u8>) -> NewEvent {
    NewEvent {
        event_id: id.to_vec(),
        event_type: "test-event".to_owned(),
        data_content_type: 0,
        metadata_content_type: 0,
        data,
        metadata: None,
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: TcpStream,
    received: Vec<u8>,
    next_correlation: u128,
}

impl Client {
    /// Connects within `limit`.
    pub(crate) fn connect(address: SocketAddr, limit: Duration) -> io::Result<Client> {
        let socket = TcpStream::connect_timeout(&address, limit)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SLICE))?;
        socket.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(Client { socket, received: Vec::new(), next_correlation: 1 })
    }

    /// The same as the administrator that every new database has, who may read all streams at once.
    pub(crate) fn connect_as_admin(address: SocketAddr, limit: Duration) -> io::Result<Client> {
        let mut client = Client::connect(address, limit)?;
        let payload = b"\x05admin\x08changeit".to_vec();
        let mut frame = Package { command: AUTHENTICATE, correlation: [9; 16], payload }.encode();
        // The flag that says that credentials follow.
        frame[5] = 1;
        client.socket.write_all(&frame)?;
        let answer = client.receive(Instant::now() + limit, &|| false)?;
        if answer.command != AUTHENTICATED {
            let text = String::from_utf8_lossy(&answer.payload).into_owned();
            return Err(io::Error::new(ErrorKind::PermissionDenied, text));
        }
        Ok(client)
    }

    /// Writes `events`; the outer error is the connection's, the inner one the server's answer.
    pub(crate) fn write(
        &mut self,
        request: &WriteEvents,
        limit: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> io::Result<Result<Written, Refusal>> {
        let answer = self.call(WRITE_EVENTS, request.encode_to_vec(), limit, give_up)?;
        if let Some(refusal) = refusal(&answer, WRITE_EVENTS_COMPLETED)? {
            return Ok(Err(refusal));
        }
        let completed = WriteEventsCompleted::decode(answer.payload.as_slice())?;
        Ok(match completed.result {
            0 => Ok(Written {
                first_event_number: completed.first_event_number,
                last_event_number: completed.last_event_number,
                commit_position: completed.commit_position.unwrap_or_default(),
            }),
            result => Err(Refusal::Result {
                result,
                message: completed.message.unwrap_or_default(),
                current_version: completed.current_version.unwrap_or(-1),
            }),
        })
    }

    /// Reads a page forward, at this node, whatever its role. A stream without events is an empty last page.
    pub(crate) fn read(&mut self, stream: &str, from: i64, count: i32) -> io::Result<Result<Page, Refusal>> {
        self.read_page(stream, from, count, false, Duration::from_secs(10))
    }

    /// The same, within `limit`; with `require_master` only a leader answers.
    pub(crate) fn read_page(
        &mut self,
        stream: &str,
        from: i64,
        count: i32,
        require_master: bool,
        limit: Duration,
    ) -> io::Result<Result<Page, Refusal>> {
        let request = ReadStreamEvents {
            stream: stream.to_owned(),
            from_event_number: from,
            max_count: count,
            resolve_link_tos: false,
            require_master,
        };
        let answer = self.call(READ_STREAM_FORWARD, request.encode_to_vec(), limit, &|| false)?;
        if let Some(refusal) = refusal(&answer, READ_STREAM_FORWARD_COMPLETED)? {
            return Ok(Err(refusal));
        }
        let completed = ReadStreamEventsCompleted::decode(answer.payload.as_slice())?;
        if completed.result > 1 {
            let message = completed.error.unwrap_or_default();
            return Ok(Err(Refusal::Result { result: completed.result, message, current_version: -1 }));
        }
        Ok(Ok(Page {
            events: completed.events.into_iter().filter_map(|entry| entry.event).collect(),
            next_event_number: completed.next_event_number,
            is_end_of_stream: completed.is_end_of_stream,
        }))
    }

    /// The whole stream, in order.
    pub(crate) fn read_to_end(&mut self, stream: &str) -> anyhow::Result<Vec<EventRecord>> {
        let mut events = Vec::new();
        let mut from = 0;
        loop {
            let page = match self.read(stream, from, 500)? {
                Ok(page) => page,
                Err(refusal) => anyhow::bail!("reading {stream} from {from}: {refusal}"),
            };
            anyhow::ensure!(page.is_end_of_stream || page.next_event_number > from, "{stream}: no progress at {from}");
            events.extend(page.events);
            if page.is_end_of_stream {
                return Ok(events);
            }
            from = page.next_event_number;
        }
    }

    /// A page of the whole log from `from`, and where the next one begins.
    pub(crate) fn read_all(
        &mut self,
        from: (i64, i64),
        count: i32,
    ) -> anyhow::Result<(Vec<ResolvedEvent>, (i64, i64))> {
        let request = ReadAllEvents {
            commit_position: from.0,
            prepare_position: from.1,
            max_count: count,
            resolve_link_tos: false,
            require_master: false,
        };
        let answer = self.call(READ_ALL_FORWARD, request.encode_to_vec(), Duration::from_secs(30), &|| false)?;
        if let Some(refusal) = refusal(&answer, READ_ALL_FORWARD_COMPLETED)? {
            anyhow::bail!("reading all from {from:?}: {refusal}");
        }
        let page = ReadAllEventsCompleted::decode(answer.payload.as_slice())?;
        let result = page.result.unwrap_or_default();
        anyhow::ensure!(result == 0, "reading all from {from:?}: result {result}, {:?}", page.error);
        Ok((page.events, (page.next_commit_position, page.next_prepare_position)))
    }

    /// Subscribes to the whole log; the commit position up to which the past reaches.
    pub(crate) fn subscribe_to_all(&mut self, limit: Duration) -> io::Result<Result<i64, Refusal>> {
        let request = SubscribeToStream { stream: String::new(), resolve_link_tos: false };
        let answer = self.call(SUBSCRIBE, request.encode_to_vec(), limit, &|| false)?;
        if let Some(refusal) = refusal(&answer, SUBSCRIPTION_CONFIRMED)? {
            return Ok(Err(refusal));
        }
        Ok(Ok(SubscriptionConfirmation::decode(answer.payload.as_slice())?.last_commit_position))
    }

    /// The next event of the subscription; `None` when the server ended it.
    pub(crate) fn next_event(
        &mut self,
        deadline: Instant,
        give_up: &dyn Fn() -> bool,
    ) -> io::Result<Option<ResolvedEvent>> {
        let package = self.receive(deadline, give_up)?;
        if package.command != EVENT_APPEARED {
            return Ok(None);
        }
        Ok(StreamEventAppeared::decode(package.payload.as_slice())?.event)
    }

    /// Sends a request and waits for the package with its correlation identifier.
    pub(crate) fn call(
        &mut self,
        command: u8,
        payload: Vec<u8>,
        limit: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> io::Result<Package> {
        let correlation = self.next_correlation.to_le_bytes();
        self.next_correlation += 1;
        self.socket.write_all(&Package { command, correlation, payload }.encode())?;
        let deadline = Instant::now() + limit;
        loop {
            let package = self.receive(deadline, give_up)?;
            // A package without a correlation identifier is the server's last word on this connection.
            if package.correlation == correlation || package.correlation == [0; 16] {
                return Ok(package);
            }
        }
    }

    /// The next package; heartbeats are answered on the way.
    pub(crate) fn receive(&mut self, deadline: Instant, give_up: &dyn Fn() -> bool) -> io::Result<Package> {
        let mut piece = [0; 64 << 10];
        loop {
            while let Some(package) = Package::take(&mut self.received)? {
                if package.command != HEARTBEAT_REQUEST {
                    return Ok(package);
                }
                let answer = Package { command: HEARTBEAT_RESPONSE, payload: Vec::new(), ..package };
                self.socket.write_all(&answer.encode())?;
            }
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if Instant::now() > deadline || give_up() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }
}

/// What a package other than the wanted answer says.
fn refusal(answer: &Package, wanted: u8) -> io::Result<Option<Refusal>> {
    let text = || String::from_utf8_lossy(&answer.payload).into_owned();
    Ok(match answer.command {
        command if command == wanted => None,
        NOT_HANDLED => Some(Refusal::NotHandled(NotHandled::decode(answer.payload.as_slice())?.reason)),
        BAD_REQUEST | NOT_AUTHENTICATED => Some(Refusal::Refused(text())),
        command => {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("answered by command {command:#04x}")));
        }
    })
}
