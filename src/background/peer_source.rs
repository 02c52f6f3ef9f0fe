//! Another node as a source of the committed log: `GET /log/info` and `GET /log/bytes` on its internal HTTP port, waiting
//! for the answers on the calling thread.
//!
//! Promises: no call takes longer than [`CALL_TIMEOUT`] or more memory than the largest record; what it gives has the
//! checksum that the peer computed, and the peer had committed it (or flushed it, when asked for that). Leaves to others: which peers to ask, and the check of
//! the records themselves.

use std::cell::Cell;
use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::http::{Dialled, HttpError, Method, Patience, speaks_tls};
use crate::limits::FRAME_MAX_BYTES;
use crate::ring::Way;
use crate::security::{PROOF_HEADER, Plane};
use crate::storage::{FetchError, LogPeer, PeerFacts, RangeSource};
use crate::types::{ClusterId, Epoch, Guid, LogPosition, Term};

/// For one request, from the connection to the last byte of the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// For the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer: one record may be larger than what is given otherwise.
const ANSWER_BYTES_MAX: usize = FRAME_MAX_BYTES;

const HEAD_BYTES_MAX: usize = 16 << 10;

/// One other node of the cluster.
#[derive(Debug)]
pub struct PeerSource {
    cluster: ClusterId,
    address: SocketAddr,
    /// Up to where it has committed (or flushed, when that will do), as it said last.
    given: Cell<LogPosition>,
    /// What it has flushed will do; otherwise only what it has committed.
    takes_flushed: bool,
    /// True when nobody wants the answer any more.
    interrupt: Option<Arc<AtomicBool>>,
    way: Way,
    plane: Plane,
}

/// What a node says of its log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogInfo {
    /// Its cluster; `None` before it is founded.
    pub cluster: Option<String>,
    /// Committed and durable there.
    pub commit_position: u64,
    /// Durable there, committed or not.
    #[serde(default)]
    pub durable_position: u64,
    /// Its term.
    #[serde(default)]
    pub term: u32,
    /// Its epochs, oldest first.
    #[serde(default)]
    pub epochs: Vec<EpochInfo>,
    /// How its log is cut.
    pub chunk_size: u64,
}

/// One epoch of [`LogInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct EpochInfo {
    /// Its term.
    pub term: u32,
    /// Where it begins.
    pub position: u64,
}

impl PeerSource {
    /// The node of `cluster` whose internal HTTP address this is.
    #[must_use]
    pub fn new(cluster: ClusterId, address: SocketAddr) -> PeerSource {
        PeerSource {
            cluster,
            address,
            given: Cell::new(LogPosition::ZERO),
            takes_flushed: false,
            interrupt: None,
            way: Way::default(),
            plane: Plane::Open,
        }
    }

    /// Gives what the node has flushed, too. Only for those who prove otherwise that it belongs there
    /// ([`mend_range`](crate::storage::mend_range)).
    #[must_use]
    pub fn with_flushed(mut self) -> PeerSource {
        self.takes_flushed = true;
        self
    }

    /// Makes its connections this way, and proves itself where the plane is closed.
    #[must_use]
    pub fn by(mut self, way: Way, plane: Plane) -> PeerSource {
        self.way = way;
        self.plane = plane;
        self
    }

    /// Gives up waiting soon after this has become true.
    #[must_use]
    pub fn until(mut self, interrupt: Arc<AtomicBool>) -> PeerSource {
        self.interrupt = Some(interrupt);
        self
    }

    /// Asks what the node says of its log.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn info(&self) -> Result<LogInfo, FetchError> {
        let answer = self.call("/log/info")?;
        serde_json::from_slice(&answer.body).map_err(|error| self.unreachable(format!("its /log/info: {error}")))
    }

    fn check_given(&self, needed: LogPosition) -> Result<(), FetchError> {
        if self.given.get() >= needed {
            return Ok(());
        }
        let facts = self.facts()?;
        if self.given.get() < needed {
            return Err(FetchError::Behind { peer: self.describe(), committed: facts.committed, needed });
        }
        Ok(())
    }

    fn unreachable(&self, reason: impl ToString) -> FetchError {
        FetchError::Unreachable { peer: self.describe(), reason: reason.to_string() }
    }

    /// One request on a connection of its own; only an answer with status 200.
    fn call(&self, target: &str) -> Result<PeerAnswer, FetchError> {
        let answer = self.exchange(target).map_err(|error| self.unreachable(error))?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let words: String = String::from_utf8_lossy(&answer.body).trim().chars().take(300).collect();
        Err(FetchError::Refused { peer: self.describe(), status: answer.status, words })
    }

    /// An answer that is proven, where it must be; or why there is none.
    fn exchange(&self, target: &str) -> Result<PeerAnswer, String> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::TimedOut => format!("no whole answer within {CALL_TIMEOUT:?}"),
            _ => error.to_string(),
        };
        let patience = Patience {
            connect: CONNECT_TIMEOUT,
            deadline: Instant::now() + CALL_TIMEOUT,
            write: Some(CONNECT_TIMEOUT),
            interrupt: self.interrupt.clone(),
        };
        let (address, cluster) = (self.address, self.cluster);
        let dialled = Dialled::new(address, &self.plane, &self.way, patience);
        let mut dialled = dialled.map_err(|error| error.to_string())?;
        let proof = dialled.proof_line(Method::Get, target, b"");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {address}\r\nRing-Cluster: {cluster}\r\n{proof}Connection: close\r\n\r\n"
        );
        dialled.send(request.as_bytes()).map_err(failed)?;
        let mut bytes = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = dialled.read(&mut piece).map_err(failed)?;
            bytes.extend_from_slice(&piece[..count]);
            if let Some(answer) = PeerAnswer::parse(&bytes).map_err(failed)? {
                let checked = dialled.check(answer.status, answer.proof.as_deref(), &answer.body);
                return checked.map(|()| answer).map_err(|error| error.to_string());
            }
            if count == 0 {
                return Err("the connection ended within the answer".to_owned());
            }
        }
    }
}

impl RangeSource for PeerSource {
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
        self.check_given(to)?;
        let durable = if self.takes_flushed { "&durable=true" } else { "" };
        let answer = self.call(&format!("/log/bytes?from={from}&to={to}{durable}"))?;
        let crc = format!("{:08x}", crc32c::crc32c(&answer.body));
        if answer.crc.as_deref() != Some(&*crc) {
            let said = answer.crc.unwrap_or_else(|| "none".to_owned());
            return Err(self.unreachable(format!("the checksum of its bytes is {crc}, it says {said}")));
        }
        Ok(answer.body)
    }

    fn describe(&self) -> String {
        self.address.to_string()
    }
}

impl LogPeer for PeerSource {
    fn facts(&self) -> Result<PeerFacts, FetchError> {
        let info = self.info()?;
        let cluster = self.cluster.to_string();
        if info.cluster.as_deref() != Some(&*cluster) {
            let words = format!("it belongs to cluster {:?}, this node to {cluster}", info.cluster.unwrap_or_default());
            return Err(FetchError::Refused { peer: self.describe(), status: 200, words });
        }
        let committed = LogPosition(info.commit_position);
        let flushed = if self.takes_flushed { committed.max(LogPosition(info.durable_position)) } else { committed };
        self.given.set(flushed);
        let epoch =
            |epoch: &EpochInfo| Epoch { term: Term(epoch.term), position: LogPosition(epoch.position), id: Guid::ZERO };
        Ok(PeerFacts { committed, flushed, term: Term(info.term), epochs: info.epochs.iter().map(epoch).collect() })
    }
}

/// What another node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAnswer {
    /// The status.
    pub status: u16,
    /// The checksum of the body as the node says it.
    pub crc: Option<String>,
    /// The proof of the answer as the node says it.
    pub proof: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl PeerAnswer {
    /// Of the bytes that came so far; `None` when more are needed.
    ///
    /// # Errors
    /// When they are not the beginning of an answer of a node.
    pub fn parse(bytes: &[u8]) -> Result<Option<PeerAnswer>, std::io::Error> {
        if speaks_tls(bytes) {
            return Err(other(HttpError::SpeaksTls));
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(start) = head.parse(bytes).map_err(other)? else {
            return if bytes.len() > HEAD_BYTES_MAX { Err(other("its head is too long")) } else { Ok(None) };
        };
        let header = |name: &str| {
            let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok())
        };
        // Our own server always says how long a body is.
        let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|&length| length <= ANSWER_BYTES_MAX);
        let length = length.ok_or_else(|| other(format!("its answer has no length of at most {ANSWER_BYTES_MAX}")))?;
        let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
        let own = |name: &str| header(name).map(str::to_owned);
        let (crc, proof) = (own("ring-crc32c"), own(PROOF_HEADER));
        Ok(Some(PeerAnswer { status: head.code.unwrap_or(0), crc, proof, body: body.to_vec() }))
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> std::io::Error {
    std::io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::security::{ClusterSecret, HttpAnswerer};

    const CLUSTER: ClusterId = ClusterId(crate::types::Guid([7; 16]));

    /// A peer that gives these answers, one for each connection.
    fn peer(answers: Vec<String>) -> PeerSource {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..count]).into_owned();
                assert!(request.contains(&format!("Ring-Cluster: {CLUSTER}\r\n")), "{request}");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        PeerSource::new(CLUSTER, address)
    }

    fn answer(status: u16, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
    }

    fn info(cluster: ClusterId, committed: u64) -> String {
        let body = format!("{{\"cluster\":\"{cluster}\",\"commitPosition\":{committed},\"chunkSize\":1048576}}");
        answer(200, "", &body)
    }

    #[test]
    fn bytes_come_from_a_node_that_has_committed_them() {
        let crc = format!("Ring-Crc32c: {:08x}\r\n", crc32c::crc32c(b"records"));
        let peer = peer(vec![info(CLUSTER, 700), answer(200, &crc, "records"), answer(200, &crc, "records")]);
        let fetch = || peer.fetch(LogPosition(0), LogPosition(700));
        assert_eq!(fetch().unwrap(), b"records");
        assert_eq!(fetch().unwrap(), b"records", "what it has committed is asked once");
    }

    /// A peer with a secret, whose answers say `said` and are proven as if they said `proven`.
    fn peer_with_secret(said: String, proven: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = received(&mut stream);
                let query = request.split([' ', '?']).nth(2).unwrap();
                let (mut answerer, body) = HttpAnswerer::open(secret(b'a'), query).unwrap();
                stream.write_all(answer(200, "", &body).as_bytes()).unwrap();
                let request = received(&mut stream);
                let Some(proof) = request.split("Ring-Proof: ").nth(1) else { continue };
                answerer.check("GET", "/log/info", b"", proof.split('\r').next()).unwrap();
                assert!(request.contains(&format!("Ring-Cluster: {CLUSTER}\r\n")), "{request}");
                let proof = format!("Ring-Proof: {}\r\n", answerer.sign(200, proven.as_bytes()));
                stream.write_all(answer(200, &proof, &said).as_bytes()).unwrap();
            }
        });
        address
    }

    fn received(stream: &mut TcpStream) -> String {
        let mut request = vec![0; 4096];
        let count = stream.read(&mut request).unwrap();
        String::from_utf8_lossy(&request[..count]).into_owned()
    }

    fn secret(byte: u8) -> Arc<ClusterSecret> {
        Arc::new(ClusterSecret::from_bytes(&[byte; 32]).unwrap())
    }

    #[test]
    fn what_a_peer_says_is_believed_when_it_is_proven() {
        let body = |committed: u64| format!("{{\"commitPosition\":{committed},\"chunkSize\":1048576}}");
        let ask = |address: SocketAddr, plane: Plane| {
            PeerSource::new(CLUSTER, address).by(Way::default(), plane).info().map_err(|error| error.to_string())
        };
        let honest = peer_with_secret(body(700), body(700));
        assert_eq!(ask(honest, Plane::Secret(secret(b'a'))).unwrap().commit_position, 700);
        let error = ask(honest, Plane::Secret(secret(b'b'))).unwrap_err();
        assert!(error.contains("the challenge is not proven") && error.contains("ClusterSecretFile"), "{error}");
        let changed = peer_with_secret(body(900), body(700));
        let error = ask(changed, Plane::Secret(secret(b'a'))).unwrap_err();
        assert!(error.contains("the answer is not proven") && error.contains(&changed.to_string()), "{error}");
        // One that knows no secret, and one that speaks TLS.
        let refusing = peer(vec![answer(401, "", "who are you?")]);
        let error = refusing.info().unwrap_err().to_string();
        assert!(error.contains("status 401") && error.contains("who are you?"), "{error}");
        let closed = peer(vec![String::from_utf8(vec![0x15, 3, 3, 0, 2, 2, 0x28]).unwrap()]);
        let error = closed.info().unwrap_err().to_string();
        assert!(error.contains("it speaks TLS") && error.contains("UseInternalSsl"), "{error}");
    }

    #[test]
    fn others_are_passed_over_with_words() {
        let check = |answers: Vec<String>, words: &str| {
            let error = peer(answers).fetch(LogPosition(0), LogPosition(700)).unwrap_err();
            assert!(error.to_string().contains(words), "{words}: {error}");
        };
        check(vec![info(CLUSTER, 699)], "has committed up to 699 only, the range ends at 700");
        check(vec![info(ClusterId::default(), 900)], "it belongs to cluster");
        check(vec![info(CLUSTER, 900), answer(503, "", "2 others read")], "refused (status 503): 2 others read");
        check(vec![info(CLUSTER, 900), answer(200, "Ring-Crc32c: 00000000\r\n", "x")], "it says 00000000");
        check(vec![info(CLUSTER, 900), answer(200, "", "x")], "it says none");
        check(vec!["HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nshort".to_owned()], "ended within the answer");
        check(vec!["HTTP/1.1 200 x\r\nContent-Length: 999999999\r\n\r\n".to_owned()], "no length of at most");
        check(vec!["nothing\r\n\r\n".to_owned()], "no usable answer");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = PeerSource::new(CLUSTER, closed).info().unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    }
}
