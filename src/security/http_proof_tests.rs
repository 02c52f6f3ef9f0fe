//! Proven requests and answers, and all that must not pass for one.

use super::*;

fn secret(byte: u8) -> Arc<ClusterSecret> {
    Arc::new(ClusterSecret::from_bytes(&[byte; 32]).unwrap())
}

fn query(opening: &HttpOpening) -> String {
    opening.target().split_once('?').unwrap().1.to_owned()
}

fn pair() -> (HttpCaller, HttpAnswerer) {
    let opening = HttpOpening::new(secret(b'a')).unwrap();
    let (answerer, body) = HttpAnswerer::open(secret(b'a'), &query(&opening)).unwrap();
    (opening.finish(body.as_bytes()).unwrap(), answerer)
}

#[test]
fn requests_and_answers_are_proven_one_after_the_other() {
    let (mut caller, mut answerer) = pair();
    for turn in 0..3_u16 {
        let body = vec![1; usize::from(turn) * 1000];
        let proof = caller.sign("POST", "/gossip?x=1", &body);
        answerer.check("POST", "/gossip?x=1", &body, Some(&proof)).unwrap();
        let proof = answerer.sign(200 + turn, b"done");
        caller.check(200 + turn, b"done", Some(&proof)).unwrap();
    }
}

#[test]
fn the_bytes_are_as_they_were() {
    let session = Session { secret: secret(b'a'), caller: [1; 32], answerer: [2; 32], count: 3 };
    let check = |message: &[u8], length: usize, expected: &str| {
        assert_eq!(message.len(), length);
        assert_eq!(to_hex(&session.secret.prove(message)), expected);
    };
    check(&session.message(Kind::Challenge), 96, "c778e33c767e54378315137ebb964fb124dc78364ef994ea39a36cdccb02af61");
    check(
        &session.request("POST", "/gossip?a=b", b"body"),
        152 + 4 + 11,
        "e4c7c84f5b397e4d4d8794be440119a43896e67c8bdb346913ed3eb5e71f6dc0",
    );
    check(&session.answer(200, b"body"), 144, "26a6e06f67fd4db748748b5ecfe9abc9c3b405162447188f15c567e26d048fac");
    let request = session.request("POST", "/gossip?a=b", b"body");
    assert_eq!(&request[..24], b"ringstore http 1\x02\0\0\0\0\0\0\0");
    assert_eq!((&request[24..56], &request[56..88]), ([1; 32].as_slice(), [2; 32].as_slice()));
    assert_eq!((request[88], request[128], request[136], request[144]), (3, 4, 4, 11));
    assert_eq!(&request[152..], b"POST/gossip?a=b");
}

#[test]
fn another_secret_is_refused_by_both_sides() {
    let opening = HttpOpening::new(secret(b'b')).unwrap();
    let (mut answerer, body) = HttpAnswerer::open(secret(b'a'), &query(&opening)).unwrap();
    // A stranger that does not care for the node's proof and goes on.
    let nonce: ChallengeBody = serde_json::from_str(&body).unwrap();
    let answerer_nonce = from_hex("nonce", &nonce.nonce).unwrap();
    let session = Session { secret: secret(b'b'), caller: opening.nonce, answerer: answerer_nonce, count: 0 };
    assert_eq!(opening.finish(body.as_bytes()).unwrap_err(), ProofError::Http { what: "challenge" });
    let proof = HttpCaller(session).sign("POST", "/gossip", b"x");
    let error = answerer.check("POST", "/gossip", b"x", Some(&proof)).unwrap_err();
    assert_eq!(error, ProofError::Http { what: "request" });
    assert!(error.to_string().contains("--cluster-secret-file"), "{error}");
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let check = |method: &str, target: &str, body: &[u8]| {
        let (mut caller, mut answerer) = pair();
        let proof = caller.sign("POST", "/elections/vote", b"body");
        answerer.check(method, target, body, Some(&proof)).is_ok()
    };
    assert!(check("POST", "/elections/vote", b"body"));
    assert!(!check("GET", "/elections/vote", b"body"));
    assert!(!check("POST", "/elections/vote?", b"body"));
    assert!(!check("POST", "/elections/votf", b"body"));
    assert!(!check("POST", "/elections/vote", b"bodz"));
    assert!(!check("POST", "/elections/vote", b""));
    assert!(!check("POST/", "elections/vote", b"body"));
    let answer = |status: u16, body: &[u8]| {
        let (mut caller, mut answerer) = pair();
        let proof = caller.sign("GET", "/", b"");
        answerer.check("GET", "/", b"", Some(&proof)).unwrap();
        let proof = answerer.sign(200, b"yes");
        caller.check(status, body, Some(&proof)).is_ok()
    };
    assert!(answer(200, b"yes"));
    assert!(!answer(201, b"yes"));
    assert!(!answer(200, b"no"));
}

#[test]
fn a_repeated_left_out_or_moved_request_is_refused() {
    let (mut caller, mut answerer) = pair();
    let first = caller.sign("POST", "/a", b"");
    let second = caller.sign("POST", "/a", b"");
    assert_ne!(first, second, "the same request again has another proof");
    answerer.check("POST", "/a", b"", Some(&first)).unwrap();
    assert!(answerer.check("POST", "/a", b"", Some(&first)).is_err(), "repeated");

    let (mut caller, mut answerer) = pair();
    let _left_out = caller.sign("POST", "/a", b"");
    let second = caller.sign("POST", "/a", b"");
    assert!(answerer.check("POST", "/a", b"", Some(&second)).is_err(), "the first one is missing");

    // Recorded on one connection, sent on another.
    let (mut caller, _) = pair();
    let (_, mut other) = pair();
    let proof = caller.sign("POST", "/a", b"");
    assert!(other.check("POST", "/a", b"", Some(&proof)).is_err(), "of another connection");

    // The caller's nonce and request again: the node's nonce is another one.
    let opening = HttpOpening::new(secret(b'a')).unwrap();
    let recorded = query(&opening);
    let (_, body) = HttpAnswerer::open(secret(b'a'), &recorded).unwrap();
    let proof = opening.finish(body.as_bytes()).unwrap().sign("POST", "/a", b"");
    let (mut again, body_again) = HttpAnswerer::open(secret(b'a'), &recorded).unwrap();
    assert_ne!(body, body_again);
    assert!(again.check("POST", "/a", b"", Some(&proof)).is_err(), "a recorded exchange");
    // And the node's side of it, to a caller.
    let error = HttpOpening::new(secret(b'a')).unwrap().finish(body.as_bytes()).unwrap_err();
    assert_eq!(error, ProofError::Http { what: "challenge" });
}

#[test]
fn a_proof_of_one_kind_is_none_of_another() {
    let (mut caller, mut answerer) = pair();
    let proof = caller.sign("POST", "/a", b"x");
    assert!(caller.check(200, b"x", Some(&proof)).is_err(), "the request's proof, sent back");
    answerer.check("POST", "/a", b"x", Some(&proof)).unwrap();
    let answered = answerer.sign(200, b"x");
    assert!(answerer.check("POST", "/a", b"x", Some(&answered)).is_err(), "the answer's proof as a request's");
    let opening = HttpOpening::new(secret(b'a')).unwrap();
    let (mut answerer, body) = HttpAnswerer::open(secret(b'a'), &query(&opening)).unwrap();
    let challenge: ChallengeBody = serde_json::from_str(&body).unwrap();
    assert!(answerer.check("GET", "/", b"", Some(&challenge.proof)).is_err(), "the challenge's proof as a request's");
}

#[test]
fn without_a_proof_or_with_nonsense_the_words_say_so() {
    let (mut caller, mut answerer) = pair();
    let error = answerer.check("POST", "/gossip", b"", None).unwrap_err();
    assert_eq!(error, ProofError::Missing { what: "request" });
    assert!(error.to_string().contains("Ring-Proof") && error.to_string().contains("/challenge"), "{error}");
    let _ = caller.sign("GET", "/", b"");
    assert_eq!(caller.check(401, b"words", None), Err(ProofError::Missing { what: "answer" }));
    for nonsense in
        ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"ä".repeat(32), "+".repeat(64).as_str()]
    {
        let error = answerer.check("POST", "/gossip", b"", Some(nonsense)).unwrap_err();
        assert!(matches!(error, ProofError::Malformed { .. }), "{nonsense}: {error}");
        assert!(HttpAnswerer::open(secret(b'a'), nonsense).is_err(), "{nonsense}");
        assert!(HttpAnswerer::open(secret(b'a'), &format!("nonce={nonsense}")).is_err(), "{nonsense}");
    }
    let finish = |body: &[u8]| HttpOpening::new(secret(b'a')).unwrap().finish(body).unwrap_err();
    for body in [b"".as_slice(), b"<html>\n", b"{}", b"{\"nonce\": \"00\", \"proof\": \"00\"}", &[0xFF; 200]] {
        let words = finish(body).to_string();
        assert!(matches!(finish(body), ProofError::Malformed { .. }) && !words.contains('\n'), "{words}");
        assert!(words.chars().count() < 2000, "what a stranger sends does not fill a log");
    }
}
