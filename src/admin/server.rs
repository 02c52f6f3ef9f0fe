//! Connections to the internal HTTP port. Whatever a peer does with its own, the others go on; who it is is asked first
//! where the plane is closed ([`gate`](super::gate)).

use std::cell::RefCell;
use std::collections::BTreeMap;
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
use crate::security::{Plane, TlsChannel, TlsError};

/// Connections open at once. The cluster itself needs a few for each node.
const CONNECTIONS_MAX: usize = 256;
/// Connections from one address: no single host can take all.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
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

/// Open connections by peer.
#[derive(Debug, Default)]
struct Open {
    by_address: BTreeMap<IpAddr, usize>,
    count: usize,
}

/// A place among the open connections, given back when dropped.
struct Place {
    open: Rc<RefCell<Open>>,
    address: IpAddr,
}

impl Place {
    fn take(open: &Rc<RefCell<Open>>, address: IpAddr) -> Option<Place> {
        let mut inner = open.borrow_mut();
        let of_address = inner.by_address.get(&address).copied().unwrap_or(0);
        if inner.count >= CONNECTIONS_MAX || of_address >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        inner.count += 1;
        inner.by_address.insert(address, of_address + 1);
        Some(Place { open: Rc::clone(open), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.borrow_mut();
        open.count -= 1;
        let of_address = open.by_address.get_mut(&self.address).expect("an open connection is counted");
        *of_address -= 1;
        if *of_address == 0 {
            open.by_address.remove(&self.address);
        }
    }
}

/// Of a peer that got this side's proof and went.
const LEFT: &str = "expected a request that is proven with the secret of the cluster behind the challenge; found none: the peer \
                    went away. Is its ClusterSecretFile (--cluster-secret-file) another one?";

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
                if let Some(place) = Place::take(&open, peer.ip()) {
                    monoio::spawn(serve(Rc::clone(&server), stream, peer, place));
                }
            }
            Err(error) => {
                tracing::warn!("no connection could be accepted on the internal HTTP port: {error}; going on");
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(server: Rc<Server>, stream: TcpStream, peer: SocketAddr, _place: Place) {
    let _ = stream.set_nodelay(true);
    match server.plane.accepted(peer.ip()) {
        Ok(None) => server.converse(stream, peer).await,
        Ok(Some(channel)) => server.greet(stream, channel, peer).await,
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
    /// A connection that begins with TLS.
    async fn greet(&self, mut stream: TcpStream, mut channel: TlsChannel, peer: SocketAddr) {
        // When the time is up the connection goes with the handshake.
        let shaken = monoio::time::timeout(READ_TIMEOUT, shake_hands(&mut stream, &mut channel)).await;
        let error = match shaken {
            Ok(Ok(plain)) => return self.converse(SecureStream::resume(stream, channel, plain), peer).await,
            Ok(Err(error)) => error,
            Err(_) => return,
        };
        // Somebody may only look whether the port is there.
        if is_end(&error) {
            return tracing::debug!(%peer, "no TLS connection on the internal HTTP port: {error}");
        }
        self.note_stranger(peer, &error.to_string());
        if let HttpError::Tls(TlsError::NotTls { first, .. }) = &error
            && first.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'))
        {
            let words = format!("this port is for the nodes of the cluster: {error}");
            return close_with(stream, &routes::finish(Response::words(400, words), &[])).await;
        }
        let _ = monoio::time::timeout(LINGER, linger(&mut stream)).await;
    }

    /// One request after the other, until one side has enough.
    async fn converse<S: AsyncReadRent + AsyncWriteRent>(&self, mut stream: S, peer: SocketAddr) {
        let mut gate = Gate::new(self.plane.secret());
        let mut buffer = Vec::new();
        loop {
            // When the time is up the connection goes with the read that may have taken bytes.
            let read = monoio::time::timeout(READ_TIMEOUT, read_request(&mut stream, &mut buffer, &LIMITS)).await;
            let request = match read {
                Ok(Ok(Some(request))) => request,
                Ok(Err(error)) if !is_end(&error) => return self.refuse(stream, peer, &error, &buffer).await,
                Ok(Ok(None) | Err(_)) | Err(_) if gate.was_left() => return self.note_stranger(peer, LEFT),
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            };
            let response = match gate.check(&request) {
                Entry::Admitted => internal::answer(&self.control, &request).await,
                Entry::Answered(response) => response,
                Entry::Refused(error) => {
                    self.note_stranger(
                        peer,
                        &format!("{} {}: {error}", request.method.name(), shortened(&request.path)),
                    );
                    return close_with(stream, &gate::refusal(&error)).await;
                }
            };
            let response = gate.sign(response, request.method);
            if !write(&mut stream, &request, &response).await {
                return;
            }
        }
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
