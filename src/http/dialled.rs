//! A connection to a node, for threads that may wait: with TLS where the plane has it, and the proofs of its secret.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::body::BodyReader;
use super::error::HttpError;
use super::head::{self, BodyLength, Method, ResponseHead};
use super::proof::{self, CHALLENGE_BYTES_MAX};
use crate::ring::Way;
use crate::security::{HttpCaller, HttpOpening, Plane, TlsChannel, TlsError, sealed_bytes_max};

pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes taken from the socket at a time.
const READ_BYTES: usize = 256 << 10;

/// While something is waited for: how often it is looked whether it still should be.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long is waited, and for what.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For the connection.
    pub connect: Duration,
    /// For everything that is read.
    pub deadline: Instant,
    /// For each write; `None`: until the deadline.
    pub write: Option<Duration>,
    /// True when nobody wants the answer any more.
    pub interrupt: Option<Arc<AtomicBool>>,
}

impl Patience {
    /// So much for everything.
    #[must_use]
    pub fn of(limit: Duration) -> Patience {
        Patience { connect: limit, deadline: Instant::now() + limit, write: None, interrupt: None }
    }

    /// The time that is left; a socket does not take none at all.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// How long one read waits.
    fn look(&self) -> io::Result<Duration> {
        let is_unwanted = self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Acquire));
        if is_unwanted {
            return Err(io::Error::other("this node stops"));
        }
        let left = self.left()?;
        Ok(if self.interrupt.is_some() { left.min(LOOK_INTERVAL) } else { left })
    }
}

/// One connection, ready for requests: the peer is who it must be, as far as the plane says.
///
/// Reads and writes carry what is said; errors of TLS come as a [`TlsError`] in them.
#[derive(Debug)]
pub struct Dialled {
    stream: TcpStream,
    patience: Patience,
    /// Boxed: it is large, and mostly not there.
    tls: Option<Box<TlsChannel>>,
    /// Opened, not read yet; what was read before `plain_start` is gone.
    plain: Vec<u8>,
    plain_start: usize,
    caller: Option<HttpCaller>,
}

impl Dialled {
    /// Connects this way, and through all that the plane has.
    ///
    /// # Errors
    /// Those of the sockets as [`HttpError::Io`]; else why the peer is not believed, or does not believe this side.
    pub fn new(address: SocketAddr, plane: &Plane, way: &Way, patience: Patience) -> Result<Dialled, DialError> {
        let connected = way.connect(address, patience.connect);
        let stream = connected.map_err(|source| DialError::Connect { source })?;
        let tls = plane.dialled(address.ip()).map_err(HttpError::from)?.map(Box::new);
        let mut dialled = Dialled { stream, patience, tls, plain: Vec::new(), plain_start: 0, caller: None };
        dialled.prepare().map_err(HttpError::from)?;
        if let Some(secret) = plane.secret() {
            let opening = HttpOpening::new(Arc::clone(secret)).map_err(HttpError::from)?;
            dialled.caller = Some(dialled.introduce(address, opening)?);
        }
        Ok(dialled)
    }

    /// The line that proves the next request, with its end; empty where nothing is proven.
    #[must_use]
    pub fn proof_line(&mut self, method: Method, target: &str, body: &[u8]) -> String {
        proof::proof_line(self.caller.as_mut(), method.name(), target, body)
    }

    /// Checks the proof of the answer to the last request, if there must be one.
    ///
    /// # Errors
    /// When it is not proven: nothing of it may be believed.
    pub fn check(&self, status: u16, proof: Option<&str>, body: &[u8]) -> Result<(), HttpError> {
        proof::check(self.caller.as_ref(), status, proof, body)
    }

    /// Reads an answer to its end. `buffer` holds what arrived behind it.
    pub(super) fn read_answer(
        &mut self,
        buffer: &mut Vec<u8>,
        method: Method,
        body_bytes_max: usize,
    ) -> Result<(ResponseHead, Vec<u8>), HttpError> {
        let head = self.read_head(buffer)?;
        let length = match head::body_length(&head.headers)? {
            _ if method == Method::Head || matches!(head.status, 204 | 304) => BodyLength::Known(0),
            Some(length) => length,
            None => BodyLength::UntilClose,
        };
        let mut reader = BodyReader::new(length, body_bytes_max)?;
        loop {
            let (used, done) = reader.take(buffer)?;
            buffer.drain(..used);
            if done {
                break;
            }
            if self.read_more(buffer)? == 0 {
                if reader.ends_with_close() {
                    break;
                }
                return Err(HttpError::Truncated);
            }
        }
        Ok((head, reader.into_body()))
    }

    fn prepare(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let limit = self.patience.write.map_or_else(|| self.patience.left(), Ok)?;
        self.stream.set_write_timeout(Some(limit))?;
        while self.tls.as_ref().is_some_and(|tls| !tls.is_established()) {
            self.send_waiting()?;
            // Its end is an error here: the channel knows that something is missing.
            self.receive()?;
        }
        self.send_waiting()
    }

    /// The challenge, and its answer.
    fn introduce(&mut self, address: SocketAddr, opening: HttpOpening) -> Result<HttpCaller, HttpError> {
        let target = opening.target();
        let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
        self.send(request.as_bytes())?;
        let mut buffer = Vec::new();
        let (head, body) = self.read_answer(&mut buffer, Method::Get, CHALLENGE_BYTES_MAX)?;
        if !buffer.is_empty() {
            return Err(HttpError::Malformed { reason: "bytes behind the answer to the challenge" });
        }
        proof::finish(opening, head.status, &body)
    }

    /// Reads an answer's head, skipping interim answers.
    fn read_head(&mut self, buffer: &mut Vec<u8>) -> Result<ResponseHead, HttpError> {
        loop {
            if let Some((head, length)) = head::parse_response(buffer, HEAD_BYTES_MAX)? {
                buffer.drain(..length);
                if head.status >= 200 {
                    return Ok(head);
                }
            } else if self.read_more(buffer)? == 0 {
                return Err(HttpError::Truncated);
            }
        }
    }

    fn read_more(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let start = buffer.len();
        buffer.resize(start + READ_BYTES, 0);
        let count = self.read(&mut buffer[start..]);
        buffer.truncate(start + count.as_ref().map_or(0, |count| *count));
        count
    }

    /// Sends all of it. A peer that closes while it is sent to has mostly said why.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).map_err(|error| self.said_why().unwrap_or(error))
    }

    /// The peer's alert, if that is what is there.
    fn said_why(&mut self) -> Option<io::Error> {
        self.tls.as_ref()?;
        let error = self.receive().err()?;
        error.get_ref().is_some_and(|inner| inner.is::<TlsError>()).then_some(error)
    }

    /// Sends what the channel wants to say by itself.
    fn send_waiting(&mut self) -> io::Result<()> {
        let mut sealed = Vec::new();
        if let Some(tls) = &mut self.tls {
            tls.take_handshake(&mut sealed);
        }
        self.stream.write_all(&sealed)
    }

    /// Takes what comes next through the channel; the number of bytes of the wire.
    fn receive(&mut self) -> io::Result<usize> {
        let mut piece = vec![0; READ_BYTES.min(32 << 10)];
        let count = self.read_plain(&mut piece)?;
        let tls = self.tls.as_mut().expect("asked for on a connection with TLS only");
        if count == 0 {
            return tls.ended().map(|()| 0).map_err(io::Error::other);
        }
        let received = tls.receive(&piece[..count], &mut self.plain);
        // An alert says why; whether it can be sent does not matter then.
        let sent = self.send_waiting();
        received.map_err(io::Error::other)?;
        sent.map(|()| count)
    }

    /// Reads from the socket, as long as somebody waits.
    fn read_plain(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.patience.look()?))?;
            match self.stream.read(into) {
                Err(error) if is_early(&error) => {}
                outcome => return outcome,
            }
        }
    }
}

impl Read for Dialled {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.read_plain(into);
        }
        while self.plain_start == self.plain.len() {
            self.plain.clear();
            self.plain_start = 0;
            if self.tls.as_ref().is_some_and(|tls| tls.is_closed_by_peer()) || self.receive()? == 0 {
                return Ok(0);
            }
        }
        let count = into.len().min(self.plain.len() - self.plain_start);
        into[..count].copy_from_slice(&self.plain[self.plain_start..][..count]);
        self.plain_start += count;
        Ok(count)
    }
}

impl Write for Dialled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.write(bytes) };
        let mut sealed = Vec::with_capacity(sealed_bytes_max(bytes.len()));
        tls.seal(bytes, &mut sealed).map_err(io::Error::other)?;
        self.stream.write_all(&sealed)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Why there is no connection to speak on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// None at all.
    #[error("{source}")]
    Connect {
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// The peer is not believed, or does not believe this side.
    #[error(transparent)]
    Peer(#[from] HttpError),
}

/// Nothing has come yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
