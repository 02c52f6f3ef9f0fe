//! Who is let in at the internal HTTP port: the proofs of one connection, and what is said of those who are refused.
//!
//! Sans-I/O. It promises that a request of a closed plane is known to come from the cluster before anything else looks at
//! it; that every answer to such a request is proven, too; and that strangers do not fill the log. What is open to all is
//! [`OPEN_PATHS`]: they say that the process lives, and nothing else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::routes;
use crate::http::{Method, Request, Response};
use crate::security::{CHALLENGE_PATH, ClusterSecret, HttpAnswerer, PROOF_HEADER, ProofError};

/// Answered without a proof: for whoever looks after processes.
const OPEN_PATHS: [&str; 2] = ["/ping", "/health/live"];

const GET: &[Method] = &[Method::Get];

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Entry {
    /// It goes in.
    Admitted,
    /// It was about the proofs themselves: this is the answer.
    Answered(Response),
    /// It is nobody's that is known, and the connection ends.
    Refused(ProofError),
}

/// One connection's proofs.
#[derive(Debug)]
pub(super) struct Gate {
    stage: Stage,
    /// The request that was let in last is proven, so its answer must be.
    is_proven: bool,
    /// Any was.
    was_proven: bool,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is proven here.
    Open,
    /// The challenge comes first.
    New(Arc<ClusterSecret>),
    /// Requests carry proofs.
    Challenged(HttpAnswerer),
}

impl Gate {
    /// For a new connection; without a secret all are let in.
    pub(super) fn new(secret: Option<&Arc<ClusterSecret>>) -> Gate {
        let stage = secret.map_or(Stage::Open, |secret| Stage::New(Arc::clone(secret)));
        Gate { stage, is_proven: false, was_proven: false }
    }

    /// Looks at a request before anybody else does.
    pub(super) fn check(&mut self, request: &Request) -> Entry {
        self.is_proven = false;
        let proof = request.headers.get(&PROOF_HEADER.to_ascii_lowercase());
        let is_question = matches!(request.method, Method::Get | Method::Head);
        let is_open = proof.is_none() && is_question && OPEN_PATHS.contains(&request.path.as_str());
        match &mut self.stage {
            Stage::Open => Entry::Admitted,
            _ if is_open => Entry::Admitted,
            Stage::New(secret) if request.path == CHALLENGE_PATH && request.method == Method::Get => {
                match HttpAnswerer::open(Arc::clone(secret), request.query.as_deref().unwrap_or_default()) {
                    Ok((answerer, body)) => {
                        self.stage = Stage::Challenged(answerer);
                        let response = Response::with_body(200, "application/json; charset=utf-8", body);
                        Entry::Answered(routes::finish(response, GET))
                    }
                    Err(error) => Entry::Refused(error),
                }
            }
            // A proof in front of the challenge fits no connection.
            Stage::New(_) if proof.is_some() => Entry::Refused(ProofError::Http { what: "request" }),
            Stage::New(_) => Entry::Refused(ProofError::Missing { what: "request" }),
            Stage::Challenged(answerer) => {
                match answerer.check(request.method.name(), &target(request), &request.body, proof) {
                    Ok(()) => {
                        (self.is_proven, self.was_proven) = (true, true);
                        Entry::Admitted
                    }
                    Err(error) => Entry::Refused(error),
                }
            }
        }
    }

    /// True while a peer has not asked for the challenge: what it sends is refused, or asks whether the process lives.
    pub(super) fn awaits_challenge(&self) -> bool {
        matches!(self.stage, Stage::New(_))
    }

    /// True when the request that was let in last was proven.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// True when the peer was given the proof of this side, and has not given one. Whoever has another secret goes then.
    pub(super) fn was_left(&self) -> bool {
        matches!(self.stage, Stage::Challenged(_)) && !self.was_proven
    }

    /// Adds the proof to the answer to a request that was let in.
    pub(super) fn sign(&self, response: Response, method: Method) -> Response {
        let Stage::Challenged(answerer) = &self.stage else { return response };
        if !self.is_proven {
            return response;
        }
        let has_body = method != Method::Head && !matches!(response.status, 204 | 304);
        let proof = answerer.sign(response.status, if has_body { &response.body } else { b"" });
        response.header(PROOF_HEADER, proof)
    }
}

/// Path and query as they came.
fn target(request: &Request) -> String {
    request.query.as_ref().map_or_else(|| request.path.clone(), |query| format!("{}?{query}", request.path))
}

/// The answer to a request that is refused.
pub(super) fn refusal(error: &ProofError) -> Response {
    let words = format!("this port is for the nodes of the cluster: {error}");
    routes::finish(Response::words(401, words).header("WWW-Authenticate", PROOF_HEADER), &[])
}

/// Lines about those who are refused: one for each address in this time…
const WINDOW: Duration = Duration::from_secs(60);
/// …and so many in all.
const LINES_MAX: usize = 20;

/// What was said lately of those who are refused, or refuse.
#[derive(Debug, Default)]
pub(super) struct LineLimit {
    since: Option<Instant>,
    said: Vec<IpAddr>,
    unsaid: u64,
}

impl LineLimit {
    /// There is something to be said of an address. How many were not said since the last line, when this one is to be said.
    pub(super) fn note(&mut self, now: Instant, address: IpAddr) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.said.clear();
        }
        if self.said.len() >= LINES_MAX || self.said.contains(&address) {
            self.unsaid += 1;
            return None;
        }
        self.said.push(address);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Headers;
    use crate::security::{HttpCaller, HttpOpening};

    fn secret(byte: u8) -> Arc<ClusterSecret> {
        Arc::new(ClusterSecret::from_bytes(&[byte; 40]).unwrap())
    }

    fn request(method: Method, target: &str, body: &'static [u8], proof: Option<String>) -> Request {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let headers = proof.map_or_else(Headers::default, |proof| Headers::of("ring-proof", &proof));
        Request {
            method,
            path: path.to_owned(),
            query: query.map(str::to_owned),
            headers,
            body: body.into(),
            keep_alive: true,
        }
    }

    /// A connection whose challenge is done.
    fn challenged() -> (Gate, HttpCaller) {
        let mut gate = Gate::new(Some(&secret(b'a')));
        let opening = HttpOpening::new(secret(b'a')).unwrap();
        let Entry::Answered(response) = gate.check(&request(Method::Get, &opening.target(), b"", None)) else {
            panic!("the challenge is not answered");
        };
        assert_eq!(response.status, 200);
        let caller = opening.finish(&response.body).unwrap();
        (gate, caller)
    }

    fn refused(entry: &Entry) -> bool {
        matches!(entry, Entry::Refused(_))
    }

    #[test]
    fn an_open_plane_asks_nobody_and_signs_nothing() {
        let mut gate = Gate::new(None);
        for path in ["/gossip", "/challenge?nonce=1", "/elections/vote"] {
            assert!(matches!(gate.check(&request(Method::Post, path, b"x", None)), Entry::Admitted));
            assert!(gate.sign(Response::new(200), Method::Post).headers.is_empty());
        }
    }

    #[test]
    fn nothing_but_life_is_told_before_the_proof() {
        let mut gate = Gate::new(Some(&secret(b'a')));
        let mut check = |method, path: &str, is_let_in: bool| {
            let entry = gate.check(&request(method, path, b"", None));
            assert_eq!(matches!(entry, Entry::Admitted), is_let_in, "{method:?} {path}: {entry:?}");
            assert_eq!(refused(&entry), !is_let_in, "{method:?} {path}: {entry:?}");
        };
        for path in OPEN_PATHS {
            check(Method::Get, path, true);
            check(Method::Head, path, true);
            check(Method::Post, path, false);
        }
        for path in ["/ping/", "/ping/../gossip", "//ping", "/gossip", "/stats", "/info", "/admin/status", "/log/info"]
        {
            check(Method::Get, path, false);
        }
        for path in ["/gossip", "/elections/vote", "/elections/pre-vote", "/admin/resign", "/nowhere"] {
            check(Method::Post, path, false);
            check(Method::Options, path, false);
        }
        check(Method::Post, &format!("/challenge?nonce={}", "0".repeat(64)), false);
        check(Method::Get, "/challenge", false);
        check(Method::Get, "/challenge?nonce=12", false);
        let of_another = request(Method::Post, "/gossip", b"x", Some("0".repeat(64)));
        let entry = gate.check(&of_another);
        assert!(matches!(entry, Entry::Refused(ProofError::Http { what: "request" })), "{entry:?}");
    }

    #[test]
    fn proven_requests_go_in_and_their_answers_are_proven() {
        let (mut gate, mut caller) = challenged();
        for (method, target, body) in
            [(Method::Post, "/gossip", b"x".as_slice()), (Method::Get, "/stats?a=b", b""), (Method::Head, "/ping", b"")]
        {
            let proof = caller.sign(method.name(), target, body);
            assert!(matches!(gate.check(&request(method, target, body, Some(proof))), Entry::Admitted), "{target}");
            let response = gate.sign(Response::with_body(200, "text/plain", "words"), method);
            let proof = response.headers.iter().find(|(name, _)| name == PROOF_HEADER).map(|(_, value)| value.as_ref());
            let seen: &[u8] = if method == Method::Head { b"" } else { b"words" };
            caller.check(200, seen, proof).unwrap();
            // In between, somebody asks whether the process lives: that is not counted.
            assert!(matches!(gate.check(&request(Method::Get, "/ping", b"", None)), Entry::Admitted));
            assert!(gate.sign(Response::new(200), Method::Get).headers.is_empty());
        }
    }

    #[test]
    fn what_is_repeated_moved_changed_or_not_proven_is_refused() {
        let (mut gate, mut caller) = challenged();
        let first = caller.sign("POST", "/gossip", b"x");
        let post = |proof: &str| request(Method::Post, "/gossip", b"x", Some(proof.to_owned()));
        assert!(matches!(gate.check(&post(&first)), Entry::Admitted));
        assert!(refused(&gate.check(&post(&first))), "repeated");

        let (mut gate, mut caller) = challenged();
        let (first, second) = (caller.sign("POST", "/gossip", b"x"), caller.sign("POST", "/gossip", b"x"));
        assert!(refused(&gate.check(&post(&second))), "the second one first");
        assert!(refused(&gate.check(&post(&first))), "after a refusal the count has gone on");

        for changed in [
            |proof| request(Method::Post, "/gossip", b"y", Some(proof)),
            |proof| request(Method::Post, "/gossip?", b"x", Some(proof)),
            |proof| request(Method::Get, "/gossip", b"x", Some(proof)),
            |proof| request(Method::Get, "/ping", b"", Some(proof)),
            |_| request(Method::Post, "/gossip", b"x", None),
        ] {
            let (mut gate, mut caller) = challenged();
            let proof = caller.sign("POST", "/gossip", b"x");
            assert!(refused(&gate.check(&changed(proof))));
        }
        // A second challenge on one connection is no way to begin again.
        let (mut gate, _) = challenged();
        let again = HttpOpening::new(secret(b'a')).unwrap();
        assert!(refused(&gate.check(&request(Method::Get, &again.target(), b"", None))));
    }

    #[test]
    fn strangers_do_not_fill_the_log() {
        let mut strangers = LineLimit::default();
        let start = Instant::now();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        assert_eq!(strangers.note(start, address(0)), Some(0));
        assert_eq!(strangers.note(start, address(0)), None);
        assert_eq!(strangers.note(start, address(1)), Some(1));
        let lines = (0..=255).filter(|n| strangers.note(start, address(*n)).is_some()).count();
        assert_eq!(lines, LINES_MAX - 2);
        assert_eq!(strangers.note(start + WINDOW, address(0)), Some(256 - LINES_MAX as u64));
        assert_eq!(strangers.note(start + WINDOW, address(0)), None);
    }
}
