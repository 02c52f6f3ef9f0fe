//! Closed planes: those of the cluster get in, strangers do not, and both sides are told why.
//!
//! A stranger has no way to the log thread, to gossip or to the figures: what it sends is what a node would take if it were
//! proven, and the stand-in for the log thread counts all that reaches it.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::*;
use crate::http::{Call, CallError, Client, Dialled, Method, Patience, Received, call_blocking};
use crate::ring::Way;
use crate::security::testing::{DAY, TestCluster, today};
use crate::security::{Authority, ClusterSecret, HttpCaller, HttpOpening, Issued};

const LIMIT: Duration = Duration::from_secs(10);

fn secret(byte: u8) -> Plane {
    Plane::Secret(Arc::new(ClusterSecret::from_bytes(&[byte; 32]).unwrap()))
}

fn tls(cluster: &TestCluster) -> Plane {
    Plane::Tls(cluster.trust(&["127.0.0.1"]))
}

fn both(cluster: &TestCluster) -> Plane {
    Plane::new(secret(b'a').secret().cloned(), Some(cluster.trust(&["127.0.0.1"])))
}

/// A node of three that knows nobody: whatever it gets to know it was told.
fn lonely(plane: &Plane) -> TestNode {
    TestNode::start_in(plane.clone(), 1, TcpListener::bind("127.0.0.1:0").unwrap(), 3, Vec::new())
}

fn call(plane: &Plane, address: SocketAddr, method: Method, path: &str, body: &str) -> Result<Received, CallError> {
    let call = Call { method, path, headers: &[], body: body.as_bytes(), body_bytes_max: 1 << 20, limit: LIMIT };
    call_blocking(plane, &Way::default(), address, &call)
}

fn get(plane: &Plane, address: SocketAddr, path: &str) -> Value {
    let answer = call(plane, address, Method::Get, path, "").unwrap();
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// How many nodes it has heard of, and how much reached its log thread.
fn reached(plane: &Plane, node: &TestNode) -> (usize, usize) {
    let known = get(plane, node.address, "/admin/status")["nodes"].as_array().unwrap().len();
    (known, node.seen.lock().inputs)
}

fn refused(plane: &Plane, node: &TestNode) -> u64 {
    get(plane, node.address, "/stats")["planes"]["refused"].as_u64().unwrap()
}

fn has(error: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(error.contains(word), "\"{word}\" is not in: {error}"));
}

fn run<F: Future>(future: F) -> F::Output {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap().block_on(future)
}

/// Gossip of a node that another one would take.
fn gossip_of_a_node() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let _node = TestNode::start(2, own, 3, vec![listener.local_addr().unwrap().to_string()]);
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// What only nodes may post, with what they would take.
fn posts() -> Vec<(&'static str, String)> {
    let vote = serde_json::to_string(&Versioned::new(vote_request())).unwrap();
    let transfer = TransferRequest { cluster: ClusterId(Guid([5; 16])), leader: NodeId(Guid([1; 16])), term: Term(2) };
    vec![
        ("/gossip", gossip_of_a_node()),
        ("/elections/pre-vote", vote.clone()),
        ("/elections/vote", vote),
        ("/elections/transfer", serde_json::to_string(&Versioned::new(transfer)).unwrap()),
        ("/admin/resign", "{}".to_owned()),
        ("/admin/trust", "{}".to_owned()),
        ("/admin/members/remove", json!({ "node": NodeId(Guid([2; 16])) }).to_string()),
    ]
}

/// Stands between a caller and a node, counts connections and keeps what the caller sent on each.
struct Between {
    address: SocketAddr,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Between {
    /// `change` is applied to what the node answers, piece by piece.
    fn start(to: SocketAddr, change: fn(&mut [u8])) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (kept, open) = (Arc::clone(&sent), Arc::clone(&streams));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut caller, mut node) = (stream.unwrap(), TcpStream::connect(to).unwrap());
                let (mut caller_too, mut node_too) = (caller.try_clone().unwrap(), node.try_clone().unwrap());
                open.lock().push(caller.try_clone().unwrap());
                let number = kept.lock().len();
                kept.lock().push(Vec::new());
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    pass(&mut caller, &mut node, |piece| kept.lock()[number].extend_from_slice(piece));
                });
                thread::spawn(move || pass(&mut node_too, &mut caller_too, change));
            }
        });
        Between { address, sent, streams }
    }

    /// Ends all connections.
    fn cut(&self) {
        self.streams.lock().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn connections(&self) -> usize {
        self.sent.lock().len()
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, mut see: impl FnMut(&mut [u8])) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        see(&mut piece[..count]);
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn nodes_of_a_closed_plane_found_a_cluster_and_vote() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), tls(&certificates), both(&certificates)] {
        let nodes = cluster_in(&plane, 2);
        wait_until("all founded", || nodes.iter().all(|node| node.seen.lock().founded.is_some()));
        let request = vote_request();
        nodes[0].queues.from_log.send(ControlOutput::SendVote { to: nodes[1].node, pre: true, request }).unwrap();
        wait_until("an answer", || !nodes[0].seen.lock().votes.is_empty());
        assert!(nodes[0].seen.lock().votes.pop().unwrap().2.unwrap().granted);
        let stats = get(&plane, nodes[0].address, "/stats");
        assert_eq!(stats["planes"]["internal"], plane.words());
        assert_eq!(stats["planes"]["refused"], 0, "nobody was refused");
        let certificate = &stats["planes"]["certificates"]["internal"];
        assert_eq!(certificate["names"].is_array(), plane.trust().is_some());
        assert!(plane.trust().is_none() || certificate["daysLeft"].as_i64().unwrap() > 360, "{certificate}");
        assert!(stats["planes"]["certificates"]["external"].is_null());
    }
}

#[test]
fn a_connection_is_kept_and_replaced_when_its_session_is_gone() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), tls(&certificates), both(&certificates)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = TestNode::start_in(plane.clone(), 1, listener, 3, Vec::new());
        let between = Between::start(node.address, |_| ());
        run(async {
            let client = Client::new(1 << 20).by(Way::default(), plane.clone());
            for expected in [1, 1, 1] {
                let path = "/admin/status";
                let answer = client.call(between.address, Method::Get, path, bytes::Bytes::new(), LIMIT).await.unwrap();
                assert_eq!((answer.status, between.connections()), (200, expected), "{plane:?}");
            }
            between.cut();
            let answer = client.call(between.address, Method::Get, "/stats", bytes::Bytes::new(), LIMIT).await.unwrap();
            assert_eq!((answer.status, between.connections()), (200, 2), "{plane:?}");
        });
    }
}

#[test]
fn nothing_of_a_stranger_gets_behind_the_gate() {
    let plane = secret(b'a');
    let node = lonely(&plane);
    let before = reached(&plane, &node);
    assert_eq!(before.0, 1);
    let posts = posts();
    for (path, body) in &posts {
        let (status, answer) = node.post(path, body);
        assert_eq!(status, 401, "{path}: {answer}");
        has(&answer, &["for the nodes of the cluster", "Ring-Proof", "ClusterSecretFile", "--cluster-secret-file"]);
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    for path in ["/gossip", "/stats", "/info", "/admin/status", "/log/info", "/log/bytes?from=0&to=1", "/nowhere"] {
        assert_eq!(node.get(path).0, 401, "{path}");
    }
    assert_eq!((node.get("/ping").0, node.get("/health/live").0), (200, 204), "whether it lives may be asked");
    assert_eq!(reached(&plane, &node), before, "nothing has changed");
    assert!(refused(&plane, &node) >= posts.len() as u64 + 7);
    // The same is taken when it is proven.
    for (path, body) in &posts {
        assert_ne!(call(&plane, node.address, Method::Post, path, body).unwrap().status, 401, "{path}");
    }
    let after = reached(&plane, &node);
    assert!(after.0 == 2 && after.1 >= before.1 + 5, "{after:?}");
}

#[test]
fn another_secret_is_refused_with_words_on_both_sides() {
    let plane = secret(b'a');
    let node = lonely(&plane);
    let before = reached(&plane, &node);
    for stranger in [secret(b'b'), Plane::Open] {
        let words = match call(&stranger, node.address, Method::Post, "/admin/resign", "{}") {
            Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(error) => {
                assert!(error.is_about_trust(), "{error}");
                error.to_string()
            }
        };
        has(&words, &["ClusterSecretFile", "expected", "found"]);
        let client = Client::new(1 << 20).by(Way::default(), stranger.clone());
        let answer = run(client.call(node.address, Method::Post, "/admin/resign", bytes::Bytes::new(), LIMIT));
        assert!(answer.is_err() || answer.unwrap().status == 401);
    }
    wait_until("the node has counted them", || refused(&plane, &node) >= 4);
    assert_eq!(reached(&plane, &node), before);
    // And where the node has none.
    let open = lonely(&Plane::Open);
    let error = call(&plane, open.address, Method::Get, "/admin/status", "").unwrap_err();
    assert!(error.is_about_trust());
    has(&error.to_string(), &[&open.address.to_string(), "ClusterSecretFile", "status 404"]);
}

/// A caller that does what it wants.
struct Raw {
    stream: TcpStream,
    caller: Option<HttpCaller>,
}

impl Raw {
    /// A connection whose challenge is done properly.
    fn challenged(node: &TestNode, plane: &Plane) -> Raw {
        let stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let opening = HttpOpening::new(Arc::clone(plane.secret().unwrap())).unwrap();
        let mut raw = Raw { stream, caller: None };
        let (status, body) = raw.ask("GET", &opening.target(), "", None);
        assert_eq!(status, 200);
        raw.caller = Some(opening.finish(body.as_bytes()).unwrap());
        raw
    }

    fn sign(&mut self, path: &str, body: &str) -> String {
        self.caller.as_mut().unwrap().sign("POST", path, body.as_bytes())
    }

    fn ask(&mut self, method: &str, path: &str, body: &str, proof: Option<&str>) -> (u16, String) {
        let proof = proof.map_or_else(String::new, |proof| format!("Ring-Proof: {proof}\r\n"));
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{proof}Content-Length: {length}\r\n\r\n");
        self.stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut reader = BufReader::new(self.stream.try_clone().unwrap());
        let (mut status, mut length) = (String::new(), 0);
        reader.read_line(&mut status).unwrap();
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "{status}");
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (status.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap())
    }

    /// True when the node has closed the connection.
    fn is_over(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

#[test]
fn what_is_repeated_moved_or_changed_is_refused_and_ends_the_connection() {
    let plane = secret(b'a');
    let node = lonely(&plane);
    let vote = serde_json::to_string(&Versioned::new(vote_request())).unwrap();
    let path = "/elections/vote";
    // A whole good connection, recorded, and sent again byte by byte.
    let between = Between::start(node.address, |_| ());
    assert_eq!(call(&plane, between.address, Method::Post, path, &vote).unwrap().status, 200);
    let recorded = between.sent.lock()[0].clone();
    let before = reached(&plane, &node);
    let mut again = TcpStream::connect(node.address).unwrap();
    again.set_read_timeout(Some(PATIENCE)).unwrap();
    again.write_all(&recorded).unwrap();
    let mut answers = String::new();
    again.read_to_string(&mut answers).unwrap();
    let statuses: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "401"], "the challenge is answered with another nonce: {answers}");
    assert_eq!(reached(&plane, &node), before);

    type Wrong = fn(&mut Raw, &str) -> (u16, String);
    let wrongs: [(&str, Wrong); 6] = [
        ("repeated", |raw, vote| {
            let proof = raw.sign("/admin/trust", "{}");
            assert_eq!(raw.ask("POST", "/admin/trust", "{}", Some(&proof)).0, 409, "it is not suspect");
            let _ = vote;
            raw.ask("POST", "/admin/trust", "{}", Some(&proof))
        }),
        ("the second one first", |raw, vote| {
            let _first = raw.sign("/elections/vote", vote);
            let second = raw.sign("/elections/vote", vote);
            raw.ask("POST", "/elections/vote", vote, Some(&second))
        }),
        ("another body", |raw, vote| {
            let proof = raw.sign("/elections/vote", "{}");
            raw.ask("POST", "/elections/vote", vote, Some(&proof))
        }),
        ("another path", |raw, vote| {
            let proof = raw.sign("/elections/pre-vote", vote);
            raw.ask("POST", "/elections/vote", vote, Some(&proof))
        }),
        ("another method", |raw, _| {
            let proof = raw.sign("/admin/status", "");
            raw.ask("GET", "/admin/status", "", Some(&proof))
        }),
        ("none behind a good challenge", |raw, vote| raw.ask("POST", "/elections/vote", vote, None)),
    ];
    for (what, wrong) in wrongs {
        let before = reached(&plane, &node);
        let mut raw = Raw::challenged(&node, &plane);
        let (status, words) = wrong(&mut raw, &vote);
        assert_eq!(status, 401, "{what}: {words}");
        has(&words, &["expected", "found", "--cluster-secret-file"]);
        assert!(raw.is_over(), "{what}");
        let allowed = usize::from(what == "repeated");
        assert_eq!(reached(&plane, &node), (before.0, before.1 + allowed), "{what}");
    }
}

#[test]
fn an_answer_that_was_changed_is_not_believed() {
    let plane = secret(b'a');
    let node = lonely(&plane);
    /// Another role, as long as the true one, in what is not the challenge.
    fn lie(piece: &mut [u8]) {
        let found = piece.windows(10).position(|window| window == b"\"isSuspect");
        if let Some(at) = found {
            let after = piece[at..].windows(5).position(|window| window == b"false").expect("it is not suspect");
            piece[at + after..][..5].copy_from_slice(b"true ");
        }
    }
    let between = Between::start(node.address, lie);
    let error = call(&plane, between.address, Method::Get, "/admin/status", "").unwrap_err();
    has(&error.to_string(), &[&between.address.to_string(), "the answer is not proven"]);
    let client = Client::new(1 << 20).by(Way::default(), plane.clone());
    let answer = run(client.call(between.address, Method::Get, "/admin/status", bytes::Bytes::new(), LIMIT));
    assert!(answer.as_ref().is_err_and(CallError::is_about_trust), "{answer:?}");
    // An open plane has no way to know.
    let open = lonely(&Plane::Open);
    let between = Between::start(open.address, lie);
    let answer = call(&Plane::Open, between.address, Method::Get, "/admin/status", "").unwrap();
    assert!(String::from_utf8_lossy(&answer.body).contains("\"isSuspect\": true"));
}

/// Certificates that are not of the cluster, or not for this address, with the words of the node about them.
fn strangers(cluster: &TestCluster) -> Vec<(Issued, &'static str)> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let params = rcgen::CertificateParams::new(names(&["127.0.0.1"])).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let alone = Issued { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() };
    let other = Authority::new("another authority", today()).unwrap();
    let now = std::time::SystemTime::now();
    let over = crate::security::Validity { from: now - 10 * DAY, until: now - DAY };
    vec![
        (alone, "UnknownCA"),
        (other.issue("node", &names(&["127.0.0.1"]), today()).unwrap(), "UnknownCA"),
        (cluster.issue(&["10.9.9.9"], today()), "not for the address"),
        (cluster.issue(&["127.0.0.1"], over), "Expired"),
    ]
}

#[test]
fn certificates_of_strangers_are_refused_with_words_on_both_sides() {
    let cluster = TestCluster::new();
    let plane = tls(&cluster);
    let node = lonely(&plane);
    let before = reached(&plane, &node);
    let mut count = 0;
    for (issued, words) in strangers(&cluster) {
        let stranger = Plane::Tls(cluster.trust_unchecked(&issued));
        let error = call(&stranger, node.address, Method::Post, "/admin/resign", "{}").unwrap_err();
        assert!(error.is_about_trust(), "{error}");
        has(&error.to_string(), &[&node.address.to_string(), "refuses this side", words, "this side showed"]);
        let client = Client::new(1 << 20).by(Way::default(), stranger.clone());
        let error =
            run(client.call(node.address, Method::Post, "/admin/resign", bytes::Bytes::new(), LIMIT)).unwrap_err();
        has(&error.to_string(), &["refuses this side", words]);
        count += 2;
        assert_eq!(refused(&plane, &node), count);
        // The other way round: a node of the cluster calls it.
        let impostor = lonely(&stranger);
        let error = call(&plane, impostor.address, Method::Get, "/admin/status", "").unwrap_err();
        assert!(error.is_about_trust(), "{error}");
        has(&error.to_string(), &["the certificate of 127.0.0.1", "expected", "found"]);
    }
    assert_eq!(reached(&plane, &node), before);
}

#[test]
fn without_a_certificate_nothing_is_said() {
    let cluster = TestCluster::new();
    let plane = tls(&cluster);
    let node = lonely(&plane);
    let before = reached(&plane, &node);
    let mut roots = rustls::RootCertStore::empty();
    let pem = &cluster.authority.own().certificate;
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into());
    let connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(node.address).unwrap());
    let written = stream.write_all(b"POST /admin/resign HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    let error = written.and_then(|()| stream.read_to_end(&mut Vec::new())).unwrap_err();
    has(&error.to_string(), &["CertificateRequired"]);
    wait_until("the node has counted it", || refused(&plane, &node) == 1);
    // Plain HTTP gets its words plainly, whatever it asks for.
    for path in ["/ping", "/gossip"] {
        let (status, answer) = node.get(path);
        assert_eq!(status, 400);
        has(&answer, &["does not speak TLS", "https, with a certificate"]);
    }
    for (path, body) in posts() {
        let error = call(&secret(b'a'), node.address, Method::Post, path, &body).unwrap_err();
        assert!(error.is_about_trust());
        has(&error.to_string(), &["here it is https"]);
    }
    assert_eq!(reached(&plane, &node), before);
    // And TLS where there is none.
    for other in [secret(b'a'), Plane::Open] {
        let node = lonely(&other);
        let error = call(&plane, node.address, Method::Get, "/admin/status", "").unwrap_err();
        has(&error.to_string(), &["does not speak TLS", "the other side has no TLS"]);
        assert_eq!(refused(&other, &node), 1);
    }
    // Both: a certificate is not enough, nor is a secret.
    let node = lonely(&both(&cluster));
    let words = call(&plane, node.address, Method::Get, "/admin/status", "").unwrap();
    assert_eq!(words.status, 401);
    assert!(call(&secret(b'a'), node.address, Method::Get, "/admin/status", "").is_err());
    // With one alone somebody stays a stranger, who has one answer.
    let is_closed_after_ping = |node: &TestNode| {
        let mut dialled = Dialled::new(node.address, &plane, &Way::default(), Patience::of(LIMIT)).unwrap();
        dialled.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = [0; 1024];
        let count = dialled.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.contains("Connection: close")
    };
    assert!(is_closed_after_ping(&node) && !is_closed_after_ping(&lonely(&plane)));
}

#[test]
fn silence_and_nonsense_hold_nothing() {
    let cluster = TestCluster::new();
    let plane = tls(&cluster);
    let node = lonely(&plane);
    // A connection that only looks is nobody's refusal: what comes behind it is the first.
    drop(TcpStream::connect(node.address).unwrap());
    let mut nonsense = TcpStream::connect(node.address).unwrap();
    nonsense.write_all(&[0x16, 3, 1, 0x40, 0]).unwrap();
    nonsense.write_all(&[7; 0x4000]).unwrap();
    wait_until("the node has counted it", || refused(&plane, &node) == 1);
    let _ = nonsense.read_to_end(&mut Vec::new());
    assert_eq!(refused(&plane, &node), 1);
}

/// Hosts that nobody knows, as many as like: what they hold is not what nodes need, and the operator hears of it.
#[test]
fn strangers_do_not_take_the_places_of_nodes() {
    let cluster = TestCluster::new();
    for plane in [secret(b'a'), tls(&cluster)] {
        // It knows no node yet, but where one may be.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = TestNode::start_in(plane.clone(), 1, listener, 3, vec!["127.0.0.70:1".to_owned()]);
        let from = |host: u8| {
            let way = Way { from: Some(IpAddr::from([127, 0, 0, host])), ..Way::default() };
            way.connect(node.address, LIMIT).unwrap()
        };
        let one: Vec<TcpStream> = (0..64).map(|_| from(50)).collect();
        // Another stranger gets its words: plain HTTP without TLS, or without a proof.
        let words = |host: u8| {
            let mut other = from(host);
            other.set_read_timeout(Some(LIMIT)).unwrap();
            // Where there is no place the connection is closed before.
            let _ = other.write_all(b"GET /admin/status HTTP/1.1\r\nHost: a\r\n\r\n");
            let mut answer = String::new();
            let _ = other.read_to_string(&mut answer);
            answer
        };
        let heard = "this port is for the nodes of the cluster";
        has(&words(51), &[heard]);
        wait_until("it is counted", || refused(&plane, &node) >= 48);
        let many: Vec<TcpStream> = (60..65).flat_map(|host| (0..64).map(move |_| host)).map(from).collect();
        // (That of 51 is free again after a moment.)
        wait_until("strangers have no more places", || words(80).is_empty());
        // It answers those of the cluster, and who comes from where one may be.
        wait_until("the seed is known", || words(70).contains(heard));
        assert_eq!(reached(&plane, &node).0, 1);
        drop((one, many));
    }
}

#[test]
fn who_proves_nothing_has_one_answer_and_sends_no_bodies() {
    let plane = secret(b'a');
    let node = lonely(&plane);
    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(LIMIT / 2)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the node ends the connection at once");
        answer
    };
    has(&ask(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"), &["HTTP/1.1 200", "Connection: close"]);
    // None of the body is there, and none is waited for.
    let answer = ask(b"POST /gossip HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    has(&answer, &["HTTP/1.1 401", "this port is for the nodes of the cluster"]);
}
