//! The proofs on 2112: a challenge for each connection, then each request and each answer proven with a counter.
//!
//! The bytes are in the words of [`super`]. No clock is in them. A request is answered before the next one: both sides count,
//! and a request that is repeated, left out or moved has another count. What is not proven ends the connection.

use std::sync::Arc;

use ring::digest;

use super::secret::{Bytes32, ClusterSecret, ProofError, nonce};
use super::words::shown;

/// What is asked first on each connection, with `?nonce=<64 hex>`.
pub const CHALLENGE_PATH: &str = "/challenge";

/// The header of requests and answers that carries the proof, in 64 hexadecimal digits.
pub const PROOF_HEADER: &str = "Ring-Proof";

const LABEL: &[u8; 16] = b"ringstore http 1";

#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Challenge = 1,
    Request = 2,
    Answer = 3,
}

/// What both sides of one connection know.
#[derive(Debug)]
struct Session {
    secret: Arc<ClusterSecret>,
    caller: Bytes32,
    answerer: Bytes32,
    /// Requests so far, also the one that is being answered.
    count: u64,
}

impl Session {
    fn message(&self, kind: Kind) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(LABEL);
        out.extend_from_slice(&[kind as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.caller);
        out.extend_from_slice(&self.answerer);
        let count = if matches!(kind, Kind::Challenge) { 0 } else { self.count };
        out.extend_from_slice(&count.to_le_bytes());
        out
    }

    fn request(&self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        let mut out = self.message(Kind::Request);
        put_body(&mut out, body);
        out.extend_from_slice(&(method.len() as u64).to_le_bytes());
        out.extend_from_slice(&(target.len() as u64).to_le_bytes());
        out.extend_from_slice(method.as_bytes());
        out.extend_from_slice(target.as_bytes());
        out
    }

    fn answer(&self, status: u16, body: &[u8]) -> Vec<u8> {
        let mut out = self.message(Kind::Answer);
        put_body(&mut out, body);
        out.extend_from_slice(&u64::from(status).to_le_bytes());
        out
    }

    fn check(&self, what: &'static str, message: &[u8], proof: Option<&str>) -> Result<(), ProofError> {
        let proof = from_hex(what, proof.ok_or(ProofError::Missing { what })?)?;
        if self.secret.is_proof(message, &proof) { Ok(()) } else { Err(ProofError::Http { what }) }
    }
}

/// A hash instead of the body: proofs are then made of a few bytes however long bodies are.
fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(digest::digest(&digest::SHA256, body).as_ref());
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
}

/// A caller that has not been answered yet.
#[derive(Debug)]
pub struct HttpOpening {
    secret: Arc<ClusterSecret>,
    nonce: Bytes32,
}

impl HttpOpening {
    /// For a new connection, with a fresh nonce.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(secret: Arc<ClusterSecret>) -> Result<HttpOpening, ProofError> {
        Ok(HttpOpening { secret, nonce: nonce()? })
    }

    /// What is asked first, with GET: path and query.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{CHALLENGE_PATH}?nonce={}", to_hex(&self.nonce))
    }

    /// Checks the answer's body; requests can then be signed.
    ///
    /// # Errors
    /// When the node that answered has another secret, or the body is something else.
    pub fn finish(self, body: &[u8]) -> Result<HttpCaller, ProofError> {
        let malformed = || ProofError::Malformed {
            what: "answer to the challenge",
            expected: "{\"nonce\": \"<64 hex>\", \"proof\": \"<64 hex>\"}",
            found: shown(&String::from_utf8_lossy(body)),
        };
        let answer: ChallengeBody = serde_json::from_slice(body).map_err(|_| malformed())?;
        let answerer = from_hex("nonce of the challenge", &answer.nonce)?;
        let session = Session { secret: self.secret, caller: self.nonce, answerer, count: 0 };
        session.check("challenge", &session.message(Kind::Challenge), Some(&answer.proof))?;
        Ok(HttpCaller(session))
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct ChallengeBody {
    nonce: String,
    proof: String,
}

/// The side of one connection that asks.
#[derive(Debug)]
pub struct HttpCaller(Session);

impl HttpCaller {
    /// The proof of the next request; `target` is path and query, as they are sent.
    #[must_use]
    pub fn sign(&mut self, method: &str, target: &str, body: &[u8]) -> String {
        self.0.count += 1;
        to_hex(&self.0.secret.prove(&self.0.request(method, target, body)))
    }

    /// Checks the answer to the request that was signed last.
    ///
    /// # Errors
    /// When it is not proven: nothing of it may be believed. A refusal (401) is not proven; its words are shown as such.
    pub fn check(&self, status: u16, body: &[u8], proof: Option<&str>) -> Result<(), ProofError> {
        self.0.check("answer", &self.0.answer(status, body), proof)
    }
}

/// The side of one connection that answers.
#[derive(Debug)]
pub struct HttpAnswerer(Session);

impl HttpAnswerer {
    /// Answers `GET` of [`CHALLENGE_PATH`]: `query` is what follows the question mark. Gives the state for the connection's
    /// further requests, and the body to send.
    ///
    /// # Errors
    /// When the query has no nonce, or the system no randomness.
    pub fn open(secret: Arc<ClusterSecret>, query: &str) -> Result<(HttpAnswerer, String), ProofError> {
        let caller = from_hex("nonce of the caller", query.strip_prefix("nonce=").unwrap_or(query))?;
        let session = Session { secret, caller, answerer: nonce()?, count: 0 };
        let proof = to_hex(&session.secret.prove(&session.message(Kind::Challenge)));
        let body = ChallengeBody { nonce: to_hex(&session.answerer), proof };
        let body = serde_json::to_string(&body).expect("two texts are JSON");
        Ok((HttpAnswerer(session), body))
    }

    /// Checks a request before anything else is done with it; `target` is path and query, as they came.
    ///
    /// # Errors
    /// When it is not proven, or not the next one: 401 with the words, then the end of the connection.
    pub fn check(&mut self, method: &str, target: &str, body: &[u8], proof: Option<&str>) -> Result<(), ProofError> {
        self.0.count += 1;
        self.0.check("request", &self.0.request(method, target, body), proof)
    }

    /// The proof of the answer to the request that was checked last.
    #[must_use]
    pub fn sign(&self, status: u16, body: &[u8]) -> String {
        to_hex(&self.0.secret.prove(&self.0.answer(status, body)))
    }
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes everything");
        out
    })
}

fn from_hex(what: &'static str, text: &str) -> Result<Bytes32, ProofError> {
    let malformed = || ProofError::Malformed { what, expected: "64 hexadecimal digits", found: shown(text) };
    let mut out = [0; 32];
    if text.len() != 2 * out.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(malformed());
    }
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| malformed())?;
    }
    Ok(out)
}

#[cfg(test)]
#[path = "http_proof_tests.rs"]
mod tests;
