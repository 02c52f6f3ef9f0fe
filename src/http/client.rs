//! Calls to other nodes: one request, one answer, within a given time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::Instant;

use super::body::BodyReader;
use super::error::HttpError;
use super::head::{self, BodyLength, Method, ResponseHead};
use super::proof::{self, CHALLENGE_BYTES_MAX, PROOF_KEY};
use super::request::{read_body, read_more};
use super::response::Response;
use super::secure::SecureStream;
use crate::ring::Way;
use crate::security::{HttpCaller, HttpOpening, Plane, TlsError};

/// Unused connections kept for one peer.
const IDLE_PER_PEER_MAX: usize = 2;
/// Peers that connections are kept for.
const PEERS_MAX: usize = 64;
/// An unused connection is not used again after this time: well before the server gives it up.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why a call failed. Whether the peer has acted on it is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No answer in time.
    #[error("no answer from {address} within {limit:?}")]
    TimedOut {
        /// The peer.
        address: SocketAddr,
        /// The time it had.
        limit: Duration,
    },
    /// No connection.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// The peer.
        address: SocketAddr,
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// The connection failed, or the answer could not be read.
    #[error("no valid answer from {address}: {source}")]
    Answer {
        /// The peer.
        address: SocketAddr,
        /// What went wrong.
        #[source]
        source: HttpError,
    },
}

impl CallError {
    /// True when one side does not take the other for one of its own: only an operator can change that.
    #[must_use]
    pub fn is_about_trust(&self) -> bool {
        let CallError::Answer { source, .. } = self else { return false };
        match source {
            HttpError::Tls(error) => !matches!(error, TlsError::Truncated { .. }),
            HttpError::SpeaksTls | HttpError::Unproven(_) | HttpError::Refused { .. } => true,
            _ => false,
        }
    }
}

/// Calls other nodes and keeps connections to them for the next call. Lives on one thread.
///
/// A call may be sent twice when a kept connection turns out to be dead, so it is for requests that may be repeated.
#[derive(Debug)]
pub struct Client {
    idle: RefCell<BTreeMap<SocketAddr, Vec<Idle>>>,
    body_bytes_max: usize,
    way: Way,
    plane: Plane,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection, ready for requests.
#[derive(Debug)]
struct Connection {
    stream: SecureStream,
    /// What proves requests, where they must be proven.
    caller: Option<HttpCaller>,
}

/// A request to be written.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    address: SocketAddr,
    method: Method,
    path: &'a str,
    body: &'a [u8],
}

impl Client {
    /// A client that takes answers with bodies of at most `body_bytes_max` bytes.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Client {
        Client { idle: RefCell::new(BTreeMap::new()), body_bytes_max, way: Way::default(), plane: Plane::Open }
    }

    /// Makes its connections this way, and proves itself where the plane is closed.
    #[must_use]
    pub fn by(mut self, way: Way, plane: Plane) -> Client {
        self.way = way;
        self.plane = plane;
        self
    }

    /// Sends a request with a JSON body (none for an empty one) and waits for the answer, for at most `limit` in all.
    ///
    /// # Errors
    /// See [`CallError`]. An answer with any status is no error.
    pub async fn call(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Response, CallError> {
        let asked = Asked { address, method, path, body: &body };
        // When the time is up the future is dropped with the connection that it owns: a read may have taken bytes.
        match monoio::time::timeout(limit, self.exchange(asked)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::TimedOut { address, limit }),
        }
    }

    async fn exchange(&self, asked: Asked<'_>) -> Result<Response, CallError> {
        let address = asked.address;
        while let Some(connection) = self.take_idle(address) {
            // The peer may have closed it meanwhile; that shows only now, and another connection may do.
            if let Ok(response) = self.exchange_on(connection, asked).await {
                return Ok(response);
            }
        }
        let connected = connect(&self.way, address).await;
        let stream = connected.map_err(|source| CallError::Connect { address, source })?;
        let failed = |source| CallError::Answer { address, source };
        let connection = self.open(stream, address).await.map_err(failed)?;
        self.exchange_on(connection, asked).await.map_err(failed)
    }

    /// Goes through all that the plane has in front of the first request.
    async fn open(&self, stream: TcpStream, address: SocketAddr) -> Result<Connection, HttpError> {
        let mut stream = SecureStream::establish(stream, self.plane.dialled(address.ip())?).await?;
        let caller = match self.plane.secret() {
            Some(secret) => Some(introduce(&mut stream, address, HttpOpening::new(Arc::clone(secret))?).await?),
            None => None,
        };
        Ok(Connection { stream, caller })
    }

    async fn exchange_on(&self, mut connection: Connection, asked: Asked<'_>) -> Result<Response, HttpError> {
        let Connection { stream, caller } = &mut connection;
        send(stream, encode_request(asked, caller.as_mut())).await?;
        let mut buffer = Vec::new();
        let (head, body, keep_alive) = read_answer(stream, &mut buffer, asked.method, self.body_bytes_max).await?;
        proof::check(caller.as_ref(), head.status, head.headers.get(PROOF_KEY), &body)?;
        // Bytes behind the answer are none that we asked for: such a connection is not used again.
        if keep_alive && buffer.is_empty() {
            self.keep(asked.address, connection);
        }
        Ok(Response::received(head.status, &head.headers, body))
    }

    fn take_idle(&self, address: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(&address)?;
        kept.retain(|idle| idle.since.elapsed() < IDLE_TIME_MAX);
        kept.pop().map(|idle| idle.connection)
    }

    fn keep(&self, address: SocketAddr, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|_, kept| {
            kept.retain(|idle| idle.since.elapsed() < IDLE_TIME_MAX);
            !kept.is_empty()
        });
        let has_room = idle.len() < PEERS_MAX || idle.contains_key(&address);
        let kept = if has_room { idle.entry(address).or_default() } else { return };
        if kept.len() < IDLE_PER_PEER_MAX {
            kept.push(Idle { connection, since: Instant::now() });
        }
    }
}

/// Connects to `address` on the way that is given. The caller bounds the time; a dropped future leaves nothing behind.
///
/// # Errors
/// Those of the sockets, in words for the device.
pub async fn connect(way: &Way, address: SocketAddr) -> io::Result<TcpStream> {
    let (stream, begun) = way.begin(address)?;
    let stream = TcpStream::from_std(stream)?;
    stream.writable(false).await?;
    begun.finish()?;
    Ok(stream)
}

/// Sends all of it. A peer that closes while it is sent to has mostly said why.
async fn send(stream: &mut SecureStream, bytes: Bytes) -> Result<(), HttpError> {
    let Err(error) = stream.write_all(bytes).await.0 else { return Ok(()) };
    if stream.is_tls()
        && let Err(said) = read_more(stream, &mut Vec::new()).await
        && let HttpError::Tls(refusal) = HttpError::from(said)
    {
        return Err(HttpError::Tls(refusal));
    }
    Err(error.into())
}

/// Asks for the challenge on a new connection.
async fn introduce(
    stream: &mut SecureStream,
    address: SocketAddr,
    opening: HttpOpening,
) -> Result<HttpCaller, HttpError> {
    let asked = Asked { address, method: Method::Get, path: &opening.target(), body: b"" };
    send(stream, encode_request(asked, None)).await?;
    let mut buffer = Vec::new();
    let (head, body, keep_alive) = read_answer(stream, &mut buffer, Method::Get, CHALLENGE_BYTES_MAX).await?;
    if !buffer.is_empty() || (head.status == 200 && !keep_alive) {
        return Err(HttpError::Malformed {
            reason: "the connection does not go on behind the answer to the challenge",
        });
    }
    proof::finish(opening, head.status, &body)
}

fn encode_request(asked: Asked<'_>, caller: Option<&mut HttpCaller>) -> Bytes {
    let Asked { address, method, path, body } = asked;
    let content_type = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let name = method.name();
    let length = body.len();
    let proof = proof::proof_line(caller, name, path, body);
    let mut out =
        format!("{name} {path} HTTP/1.1\r\nHost: {address}\r\n{content_type}{proof}Content-Length: {length}\r\n\r\n")
            .into_bytes();
    out.extend_from_slice(body);
    out.into()
}

/// Reads the answer to a request of this method, and says whether the connection may be used again. `buffer` holds what
/// arrived behind the answer.
///
/// # Errors
/// See [`HttpError`]; the connection is to be closed after any of them.
pub async fn read_response<S: AsyncReadRent>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    method: Method,
    body_bytes_max: usize,
) -> Result<(Response, bool), HttpError> {
    let (head, body, keep_alive) = read_answer(stream, buffer, method, body_bytes_max).await?;
    Ok((Response::received(head.status, &head.headers, body), keep_alive))
}

async fn read_answer<S: AsyncReadRent>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    method: Method,
    body_bytes_max: usize,
) -> Result<(ResponseHead, Vec<u8>, bool), HttpError> {
    let head = read_head(stream, buffer).await?;
    let length = match head::body_length(&head.headers)? {
        _ if method == Method::Head || matches!(head.status, 204 | 304) => BodyLength::Known(0),
        Some(length) => length,
        None => BodyLength::UntilClose,
    };
    let reader = BodyReader::new(length, body_bytes_max)?;
    let body = read_body(stream, buffer, reader).await?;
    let keep_alive = head.keep_alive && length != BodyLength::UntilClose;
    Ok((head, body, keep_alive))
}

/// Reads an answer's head, skipping interim answers.
async fn read_head<S: AsyncReadRent>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<ResponseHead, HttpError> {
    loop {
        if let Some((head, length)) = head::parse_response(buffer, HEAD_BYTES_MAX)? {
            buffer.drain(..length);
            if head.status >= 200 {
                return Ok(head);
            }
        } else if read_more(stream, buffer).await? == 0 {
            return Err(HttpError::Truncated);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use monoio::net::TcpListener;

    use super::*;
    use crate::http::write_response;
    use crate::security::{ClusterSecret, HttpAnswerer};

    const LIMIT: Duration = Duration::from_millis(300);

    fn run<F: Future>(future: F) -> F::Output {
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap().block_on(future)
    }

    /// A server that answers each connection with `answers`, one for each request, and then closes it.
    fn serve(answers: &'static [&'static str]) -> (SocketAddr, Rc<Cell<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Rc::new(Cell::new(0));
        let counter = Rc::clone(&connections);
        monoio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counter.set(counter.get() + 1);
                for answer in answers {
                    let mut buffer = Vec::new();
                    if read_more(&mut stream, &mut buffer).await.unwrap_or(0) == 0 {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).await.0.unwrap();
                }
            }
        });
        (address, connections)
    }

    #[test]
    fn a_connection_is_used_again_and_replaced_when_it_is_gone() {
        run(async {
            const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
            let (address, connections) = serve(&[ANSWER, ANSWER]);
            let client = Client::new(100);
            for expected in [1, 1, 2, 2, 3] {
                let response = client.call(address, Method::Get, "/", Bytes::new(), LIMIT).await.unwrap();
                assert_eq!((response.status, &response.body[..]), (200, b"hi".as_slice()));
                assert_eq!(connections.get(), expected);
            }
        });
    }

    #[test]
    fn connections_take_the_way_that_is_given() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let way = Way { from: Some("127.0.0.9".parse().unwrap()), ..Way::default() };
            let stream = connect(&way, address).await.unwrap();
            let (mut accepted, peer) = listener.accept().await.unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
            assert_eq!(peer.ip(), way.from.unwrap());
            // The socket waits again: what comes late is read, not answered by an error.
            let reading = monoio::spawn(async move {
                let mut stream = stream;
                let mut buffer = Vec::new();
                read_more(&mut stream, &mut buffer).await.map(|_| buffer)
            });
            monoio::time::sleep(Duration::from_millis(20)).await;
            accepted.write_all(b"late").await.0.unwrap();
            assert_eq!(reading.await.unwrap(), b"late");
            let missing = Client::new(4).by(Way { device: Some("no-such-dev0".into()), ..Way::default() }, Plane::Open);
            let error = missing.call(address, Method::Get, "/", Bytes::new(), LIMIT).await.unwrap_err().to_string();
            assert!(error.contains("there is no network device no-such-dev0"), "{error}");
        });
    }

    /// Goal: a session that the peer has forgotten costs a connection, not an error. Method: a peer that answers a challenge
    /// and one request on each connection, and refuses the next.
    #[test]
    fn a_connection_whose_session_is_forgotten_is_replaced() {
        run(async {
            let secret = Arc::new(ClusterSecret::from_bytes(&[b'a'; 32]).unwrap());
            let plane = Plane::Secret(Arc::clone(&secret));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let connections = Rc::new(Cell::new(0));
            let counter = Rc::clone(&connections);
            monoio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    counter.set(counter.get() + 1);
                    let mut request = Vec::new();
                    read_more(&mut stream, &mut request).await.unwrap();
                    let request = String::from_utf8(request).unwrap();
                    let query = request.split([' ', '?']).nth(2).unwrap();
                    let (mut answerer, body) = HttpAnswerer::open(Arc::clone(&secret), query).unwrap();
                    let challenge = Response::with_body(200, "application/json", body);
                    write_response(&mut stream, &challenge, Method::Get, true).await.unwrap();
                    let mut request = Vec::new();
                    read_more(&mut stream, &mut request).await.unwrap();
                    let request = String::from_utf8(request).unwrap();
                    let proof = request.split("Ring-Proof: ").nth(1).unwrap().split('\r').next();
                    answerer.check("GET", "/a?b=1", b"", proof).unwrap();
                    let answer = Response::new(200).header("Ring-Proof", answerer.sign(200, b""));
                    write_response(&mut stream, &answer, Method::Get, true).await.unwrap();
                    if read_more(&mut stream, &mut Vec::new()).await.unwrap_or(0) > 0 {
                        let refusal = Response::words(401, "who are you?");
                        write_response(&mut stream, &refusal, Method::Get, false).await.unwrap();
                    }
                }
            });
            let client = Client::new(100).by(Way::default(), plane);
            for expected in [1, 2, 3] {
                let response = client.call(address, Method::Get, "/a?b=1", Bytes::new(), LIMIT).await.unwrap();
                assert_eq!((response.status, connections.get()), (200, expected));
            }
        });
    }

    #[test]
    fn silence_ends_after_the_limit() {
        run(async {
            let (address, _) = serve(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", ""]);
            let client = Client::new(100);
            let start = Instant::now();
            let result = client.call(address, Method::Post, "/", Bytes::from_static(b"{}"), LIMIT).await;
            assert!(matches!(result, Err(CallError::TimedOut { .. })), "{result:?}");
            assert!(start.elapsed() < LIMIT * 3);
        });
    }

    #[test]
    fn answers_of_other_kinds_are_read_or_refused() {
        run(async {
            let client = Client::new(4);
            let (address, _) = serve(&["HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi"]);
            let response = client.call(address, Method::Get, "/", Bytes::new(), LIMIT).await.unwrap();
            assert_eq!(&response.body[..], b"hi", "ends with the connection");
            let (address, _) = serve(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]);
            let result = client.call(address, Method::Get, "/", Bytes::new(), LIMIT).await;
            assert!(
                matches!(result, Err(CallError::Answer { source: HttpError::BodyTooLarge { .. }, .. })),
                "{result:?}"
            );
            let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let result = client.call(closed, Method::Get, "/", Bytes::new(), LIMIT).await;
            assert!(matches!(result, Err(CallError::Connect { .. })), "{result:?}");
        });
    }
}
