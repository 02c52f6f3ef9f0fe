//! Connections to the internal HTTP port. Whatever a peer does with its own, the others go on; who it is is asked first
//! where the plane is closed ([`gate`]).

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

use super::control::Control;
use super::gate::{self, Entry, Gate, LineLimit};
use super::internal;
use super::routes::{self, shortened};
use crate::gossip::EXCHANGE_MAX_BYTES;
use crate::http::{
    HttpError, Limits, Method, Request, Response, SecureStream, read_request, speaks_tls, write_response,
};
use crate::security::{FAILED_PLACE_PAUSE, Place, PlaceLimits, Plane, ProofError, ProvenHosts, TlsChannel, TlsError};

/// Connections open at once whose peer is known to be of the cluster: it needs a few for each node.
const CONNECTIONS_MAX: usize = 256;
/// Those of one host.
const PROVEN_PER_HOST_MAX: usize = 64;

/// On an open plane nobody proves anything: no single host can take all.
const OPEN_LIMITS: PlaceLimits =
    PlaceLimits { known: CONNECTIONS_MAX, known_of_host: 64, strangers: CONNECTIONS_MAX, strangers_of_host: 64 };

/// Of those who have not proven who they are.
const CLOSED_LIMITS: PlaceLimits = PlaceLimits { known: 256, known_of_host: 64, strangers: 64, strangers_of_host: 16 };

/// A request must have arrived after this time, counted from the answer before it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer must have been taken after this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a refused peer's bytes are still read: closing at once would reset the connection, and the peer would
/// not see why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 256 << 10;
/// Pause after a failed accept: without one a process out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a handshake taken at a time: a certificate with its chain has some thousand.
const HANDSHAKE_READ_BYTES: usize = 4 << 10;

const LIMITS: Limits = Limits { head_bytes_max: 16 << 10, headers_max: 64, body_bytes_max: EXCHANGE_MAX_BYTES };

/// Open connections.
#[derive(Debug, Default)]
struct Open {
    /// Of those who have not proven who they are.
    places: Vec<Place>,
    /// Where the others come from.
    proven: Vec<IpAddr>,
    /// Where others came from.
    hosts: ProvenHosts,
}

/// A connection's seat among the open ones, given back when dropped.
struct Seat {
    open: Rc<RefCell<Open>>,
    host: IpAddr,
    /// `None` once the peer has proven who it is.
    place: Option<Place>,
}

impl Seat {
    /// An error is the limit that is reached.
    fn take(open: &Rc<RefCell<Open>>, limits: &PlaceLimits, host: IpAddr, is_known: bool) -> Result<Seat, usize> {
        let mut inner = open.borrow_mut();
        let place = Place::of(host, is_known || inner.hosts.has(host));
        limits.check(place, inner.places.iter().copied())?;
        inner.places.push(place);
        Ok(Seat { open: Rc::clone(open), host, place: Some(place) })
    }

    /// The peer is of the cluster: strangers do not count it any more. False when there are too many.
    fn prove(&mut self) -> bool {
        let Some(place) = self.place else { return true };
        let mut open = self.open.borrow_mut();
        let of_host = open.proven.iter().filter(|host| **host == self.host).count();
        if open.proven.len() >= CONNECTIONS_MAX || of_host >= PROVEN_PER_HOST_MAX {
            return false;
        }
        take_one(&mut open.places, place);
        open.proven.push(self.host);
        open.hosts.note(self.host);
        self.place = None;
        true
    }

    fn is_proven(&self) -> bool {
        self.place.is_none()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.open.borrow_mut();
        match self.place {
            Some(place) => take_one(&mut open.places, place),
            None => take_one(&mut open.proven, self.host),
        }
    }
}

fn take_one<T: PartialEq>(all: &mut Vec<T>, one: T) {
    let at = all.iter().position(|taken| *taken == one);
    all.swap_remove(at.expect("a seat that was taken"));
}

/// Of a peer that got this side's proof and went.
const LEFT: &str = "expected a request that is proven with the secret of the cluster behind the challenge; found none: the peer \
                    went away. Is its ClusterSecretFile (--cluster-secret-file) another one?";

/// For requests that are refused whatever they carry.
const STRANGER_LIMITS: Limits = Limits { body_bytes_max: 0, ..LIMITS };

/// What the connections share.
struct Server {
    control: Rc<Control>,
    plane: Plane,
    strangers: RefCell<LineLimit>,
}

/// Takes connections, for ever: of those whom the plane lets in.
pub(super) async fn accept(control: Rc<Control>, listener: TcpListener, plane: Plane) {
    let open = Rc::new(RefCell::new(Open::default()));
    let server = Rc::new(Server { control, plane, strangers: RefCell::default() });
    loop {
        match listener.accept().await {
            // Above the limit the connection is closed at once: the peer may come back, and holds nothing meanwhile.
            Ok((stream, peer)) => {
                let is_known = server.control.gossip.borrow().knows(peer.ip());
                let limits = if server.plane.is_open() { &OPEN_LIMITS } else { &CLOSED_LIMITS };
                match Seat::take(&open, limits, peer.ip().to_canonical(), is_known) {
                    Ok(seat) => drop(monoio::spawn(serve(Rc::clone(&server), stream, peer, seat))),
                    Err(_) if server.plane.is_open() => {}
                    Err(limit) => server.note_stranger(
                        peer,
                        &format!("{limit} connections have not proven who they are; this one is closed"),
                    ),
                }
            }
            Err(error) => {
                tracing::warn!("no connection could be accepted on the internal HTTP port: {error}; going on");
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(server: Rc<Server>, stream: TcpStream, peer: SocketAddr, mut seat: Seat) {
    let _ = stream.set_nodelay(true);
    match server.plane.accepted(peer.ip()) {
        Ok(None) => server.converse(stream, peer, &mut seat).await,
        Ok(Some(channel)) => {
            if !server.greet(stream, channel, peer, &mut seat).await {
                monoio::time::sleep(FAILED_PLACE_PAUSE).await;
            }
        }
        Err(error) => tracing::warn!(%peer, "TLS on the internal HTTP port: {error}"),
    }
}

/// The handshake of an accepted connection; what was opened behind it. Nothing is kept from the stream on a failure, so
/// that the peer can be told why.
async fn shake_hands(stream: &mut TcpStream, channel: &mut TlsChannel) -> Result<Vec<u8>, HttpError> {
    let mut plain = Vec::new();
    loop {
        let mut cipher = Vec::new();
        channel.take_handshake(&mut cipher);
        stream.write_all(cipher).await.0?;
        if channel.is_established() {
            return Ok(plain);
        }
        let (result, cipher) = stream.read(Vec::with_capacity(HANDSHAKE_READ_BYTES)).await;
        if result? == 0 {
            channel.ended()?;
        }
        if let Err(error) = channel.receive(&cipher, &mut plain) {
            let mut alert = Vec::new();
            channel.take_handshake(&mut alert);
            // If it does not arrive, nothing else is lost.
            let _ = stream.write_all(alert).await;
            return Err(error.into());
        }
    }
}

impl Server {
    /// A connection that begins with TLS. False when it went no further.
    async fn greet(&self, mut stream: TcpStream, mut channel: TlsChannel, peer: SocketAddr, seat: &mut Seat) -> bool {
        // When the time is up the connection goes with the handshake.
        let shaken = monoio::time::timeout(READ_TIMEOUT, shake_hands(&mut stream, &mut channel)).await;
        let error = match shaken {
            Ok(Ok(plain)) => {
                // With a secret, too, a certificate is half of the proof.
                if self.plane.secret().is_none() && !seat.prove() {
                    self.note_crowd(peer);
                } else {
                    self.converse(SecureStream::resume(stream, channel, plain), peer, seat).await;
                }
                return true;
            }
            Ok(Err(error)) => error,
            Err(_) => return false,
        };
        // Somebody may only look whether the port is there.
        if is_end(&error) {
            tracing::debug!(%peer, "no TLS connection on the internal HTTP port: {error}");
            return false;
        }
        self.note_stranger(peer, &error.to_string());
        if let HttpError::Tls(TlsError::NotTls { first, .. }) = &error
            && first.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'))
        {
            let words = format!("this port is for the nodes of the cluster: {error}");
            close_with(stream, &routes::finish(Response::words(400, words), &[])).await;
        } else {
            let _ = monoio::time::timeout(LINGER, linger(&mut stream)).await;
        }
        false
    }

    /// One request after the other, until one side has enough.
    async fn converse<S: AsyncReadRent + AsyncWriteRent>(&self, mut stream: S, peer: SocketAddr, seat: &mut Seat) {
        let mut gate = Gate::new(self.plane.secret());
        let mut buffer = Vec::new();
        let begun = Instant::now();
        loop {
            // When the time is up the connection goes with the read that may have taken bytes. Until a peer has proven who it
            // is it has no more than that in all.
            let is_stranger = !self.plane.is_open() && !seat.is_proven();
            let patience = if is_stranger { READ_TIMEOUT.saturating_sub(begun.elapsed()) } else { READ_TIMEOUT };
            let limits = if gate.awaits_challenge() { &STRANGER_LIMITS } else { &LIMITS };
            let read = monoio::time::timeout(patience, read_request(&mut stream, &mut buffer, limits)).await;
            let request = match read {
                Ok(Ok(Some(request))) => request,
                Ok(Err(HttpError::BodyTooLarge { .. })) if gate.awaits_challenge() => {
                    return self.refuse_unproven(stream, peer, &ProofError::Missing { what: "request" }, "").await;
                }
                Ok(Err(error)) if !is_end(&error) => return self.refuse(stream, peer, &error, &buffer).await,
                Ok(Ok(None) | Err(_)) | Err(_) if gate.was_left() => return self.note_stranger(peer, LEFT),
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            };
            let response = match gate.check(&request) {
                // What is asked is done for those only who get an answer.
                Entry::Admitted if gate.is_proven() && !seat.prove() => return self.note_crowd(peer),
                Entry::Admitted => internal::answer(&self.control, &request).await,
                Entry::Answered(response) => response,
                Entry::Refused(error) => {
                    let asked = format!("{} {}: ", request.method.name(), shortened(&request.path));
                    return self.refuse_unproven(stream, peer, &error, &asked).await;
                }
            };
            // Whoever only asks whether the process lives has its answer then.
            let is_last = is_stranger && !gate.is_proven() && !gate.was_left();
            let response = gate.sign(response, request.method);
            let request = Request { keep_alive: request.keep_alive && !is_last, ..request };
            if !write(&mut stream, &request, &response).await {
                return;
            }
        }
    }

    async fn refuse_unproven<S: AsyncReadRent + AsyncWriteRent>(
        &self,
        stream: S,
        peer: SocketAddr,
        error: &ProofError,
        asked: &str,
    ) {
        self.note_stranger(peer, &format!("{asked}{error}"));
        close_with(stream, &gate::refusal(error)).await;
    }

    /// Says what was wrong with a message, and closes.
    async fn refuse<S: AsyncReadRent + AsyncWriteRent>(
        &self,
        stream: S,
        peer: SocketAddr,
        error: &HttpError,
        seen: &[u8],
    ) {
        if speaks_tls(seen) {
            self.note_stranger(peer, "expected plain HTTP, found TLS: UseInternalSsl is set there and not here");
        } else if !self.plane.is_open() {
            self.note_stranger(peer, &error.to_string());
        }
        let Some(status) = error.status() else { return };
        close_with(stream, &routes::finish(Response::words(status, error.to_string()), &[])).await;
    }

    /// Of a peer that has proven who it is.
    fn note_crowd(&self, peer: SocketAddr) {
        let words = format!(
            "at most {CONNECTIONS_MAX} connections of nodes and commands are open at once, {PROVEN_PER_HOST_MAX} of a host; \
             this one is closed"
        );
        self.note_stranger(peer, &words);
    }

    /// Tells the operator of somebody who was refused, unless there was much of that lately.
    fn note_stranger(&self, peer: SocketAddr, words: &str) {
        self.control.status.locks.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(unsaid) = self.strangers.borrow_mut().note(Instant::now(), peer.ip()) {
            tracing::warn!(%peer, plane = self.plane.words(), unsaid, "refused on the internal HTTP port: {words}");
        }
    }
}

/// True when the peer has only gone: callers drop connections that they do not need any more.
fn is_end(error: &HttpError) -> bool {
    matches!(error, HttpError::Io { .. } | HttpError::Truncated | HttpError::Tls(TlsError::Truncated { .. }))
}

/// True when the connection stays.
async fn write<S: AsyncWriteRent>(stream: &mut S, request: &Request, response: &Response) -> bool {
    let written = write_response(stream, response, request.method, request.keep_alive);
    let written = monoio::time::timeout(WRITE_TIMEOUT, written).await;
    matches!(written, Ok(Ok(()))) && request.keep_alive
}

/// Gives a last answer, and closes so that the peer can read it.
async fn close_with<S: AsyncReadRent + AsyncWriteRent>(mut stream: S, response: &Response) {
    let closing = async {
        write_response(&mut stream, response, Method::Get, false).await?;
        linger(&mut stream).await
    };
    // Whether the peer took the answer or not: the connection is closed now.
    let _ = monoio::time::timeout(LINGER, closing).await;
}

/// Ends this side, and reads over what the peer still sends. The caller bounds the time.
async fn linger<S: AsyncReadRent + AsyncWriteRent>(stream: &mut S) -> std::io::Result<()> {
    stream.shutdown().await?;
    let (mut buffer, mut seen) = (vec![0; 4096], 0);
    while seen < LINGER_BYTES_MAX {
        let (result, back) = stream.read(buffer).await;
        match result? {
            0 => break,
            count => seen += count,
        }
        buffer = back;
    }
    Ok(())
}
