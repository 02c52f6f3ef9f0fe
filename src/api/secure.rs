//! Ports with TLS: the handshake of a connection, and what those are told who do not get through it.
//!
//! Promises: a connection is made with the certificate that is in use when it comes; one whose handshake goes wrong costs a
//! bounded time and memory, and a bounded number of log lines. What the other side is told is an alert of TLS, or, when it
//! does not speak TLS, words in the protocol of the port. What follows on a good connection is left to `session` and `http`.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::timeout;

use crate::api::counters::add;
use crate::api::edge::EdgeState;
use crate::codec::client::response;
use crate::http::{Method, Response, SecureStream};
use crate::security::{TlsChannel, TlsError};
use crate::types::Guid;

/// Room for one receive of a handshake: a client's part has a few hundred bytes.
const RECEIVE_BYTES: usize = 4 << 10;

/// How long a refused peer's bytes are still read, and how many: closing at once would reset the connection, and the peer
/// would not see why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: usize = 64 << 10;

/// What those are told who do not speak TLS.
const PLAIN_WORDS: &str =
    "This port is for connections with TLS: use TLS here, or the port without it if the node has one.";

/// A port with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// `ExtSecureTcpPort`.
    Tcp,
    /// `ExtSecureHttpPort`.
    Http,
}

impl Port {
    pub(super) fn option(self) -> &'static str {
        match self {
            Port::Tcp => "ExtSecureTcpPort",
            Port::Http => "ExtSecureHttpPort",
        }
    }

    /// [`PLAIN_WORDS`] as the protocol has them.
    fn plain_words(self) -> Vec<u8> {
        let mut words = Vec::new();
        match self {
            Port::Tcp => response::bad_request(&mut words, Guid::ZERO, PLAIN_WORDS),
            Port::Http => words = Response::words(400, PLAIN_WORDS).encode(Method::Get, false),
        }
        words
    }
}

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Somebody only looked whether the port is open.
    #[error("it was closed before it said anything")]
    Silent,
    #[error("the handshake is not complete after {} ms", .0.as_millis())]
    Slow(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Does the handshake with a client that has connected; `None` when it failed, and the client was told.
pub(super) async fn greet(
    edge: &EdgeState,
    mut stream: TcpStream,
    peer: SocketAddr,
    port: Port,
) -> Option<SecureStream> {
    let trust = edge.options.external.as_ref()?;
    // The handshake is a few small messages in turn.
    stream.set_nodelay(true).ok()?;
    let mut channel = match TlsChannel::external(trust, peer.ip().to_canonical()) {
        Ok(channel) => channel,
        Err(error) => {
            refuse(edge, peer, port, &error.into());
            return None;
        }
    };
    let (mut plain, patience) = (Vec::new(), edge.options.handshake_timeout);
    let failure = match timeout(patience, shake_hands(&mut stream, &mut channel, &mut plain)).await {
        Ok(Ok(())) => return Some(SecureStream::resume(stream, channel, plain)),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Slow(patience),
    };
    refuse(edge, peer, port, &failure);
    if let Failure::Tls(error) = failure {
        let mut words = Vec::new();
        channel.take_handshake(&mut words);
        if matches!(error, TlsError::NotTls { .. }) {
            words = port.plain_words();
        }
        // Whether it hears them or not: the connection is closed now.
        let _ = timeout(LINGER, part(&mut stream, words)).await;
    }
    None
}

/// Counts it, and says it unless enough was said of late.
fn refuse(edge: &EdgeState, peer: SocketAddr, port: Port, failure: &Failure) {
    if matches!(failure, Failure::Silent) {
        tracing::debug!(%peer, port = port.option(), "a connection for TLS: {failure}");
        return;
    }
    add(&edge.links.counters.tls_failures, 1);
    if let Some(unsaid) = edge.refusals.may_say(Instant::now()) {
        let port = port.option();
        tracing::warn!(%peer, port, unsaid, "a connection with TLS does not come up: {failure}");
    }
}

/// `plain` is what the client has sent behind its part.
async fn shake_hands(stream: &mut TcpStream, channel: &mut TlsChannel, plain: &mut Vec<u8>) -> Result<(), Failure> {
    let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
    let mut is_first = true;
    while !channel.is_established() {
        buffer.clear();
        let (result, received) = stream.read(buffer).await;
        buffer = received;
        match result? {
            0 if is_first => return Err(Failure::Silent),
            0 => channel.ended()?,
            _ => channel.receive(&buffer, plain)?,
        }
        is_first = false;
        buffer.clear();
        channel.take_handshake(&mut buffer);
        let (result, sent) = stream.write_all(buffer).await;
        buffer = sent;
        result?;
    }
    Ok(())
}

/// The last words.
async fn part(stream: &mut TcpStream, words: Vec<u8>) -> io::Result<()> {
    stream.write_all(words).await.0?;
    stream.shutdown().await?;
    let (mut buffer, mut seen) = (Vec::with_capacity(RECEIVE_BYTES), 0);
    while seen < LINGER_BYTES_MAX {
        buffer.clear();
        let (result, received) = stream.read(buffer).await;
        buffer = received;
        match result? {
            0 => break,
            count => seen += count,
        }
    }
    Ok(())
}
