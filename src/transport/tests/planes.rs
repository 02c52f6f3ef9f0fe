//! Port 1112 of a closed plane: who gets in, who does not, and what both sides say about it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::links::{CLUSTER, NODE, hello, single_on};
use super::node::{Directories, Node, PATIENCE, listener, until};
use crate::codec::link::{Hello, Purpose, Welcome};
use crate::codec::record::{MemberRecord, MembershipBody};
use crate::consensus::Message;
use crate::engine::{Answer, ControlInput};
use crate::ring::Way;
use crate::security::testing::{Peer, TestCluster, past, today};
use crate::security::{CHALLENGE_BYTES, ClusterSecret, LinkDialler, Plane, Trust};
use crate::transport::messages::encode;
use crate::types::{ClusterId, Guid, LogPosition, NodeId, Term};

const DIALLER: NodeId = NodeId(Guid([2; 16]));
const OTHER_CLUSTER: ClusterId = ClusterId(Guid([8; 16]));

pub(super) fn secret(byte: u8) -> Plane {
    Plane::Secret(Arc::new(ClusterSecret::from_bytes(&[byte; 32]).unwrap()))
}

pub(super) fn both(byte: u8, certificates: &TestCluster) -> Plane {
    let secret = secret(byte).secret().cloned();
    Plane::new(secret, Some(certificates.trust(&["127.0.0.1"])))
}

fn certified(certificates: &TestCluster) -> Plane {
    Plane::Tls(certificates.trust(&["127.0.0.1"]))
}

/// Says hello, and proves what the plane demands: whatever follows is not there yet.
pub(super) fn begin(node: &Node, plane: &Plane, hello: Hello) -> Result<Peer, String> {
    let mut peer = Peer::dial(node.address, plane)?;
    let hello = Hello { secret: plane.secret().is_some(), ..hello };
    let bytes = hello.encode();
    let Some(secret) = plane.secret() else {
        peer.write(&bytes)?;
        return Ok(peer);
    };
    let dialler = LinkDialler::new(Arc::clone(secret), hello.cluster, &bytes).unwrap();
    peer.write(&[&bytes[..], &dialler.nonce()].concat())?;
    let mut challenge = peer.read(8)?;
    if let Ok(Welcome::Refused { reason_bytes }) = Welcome::decode(challenge[..].try_into().unwrap()) {
        return Err(String::from_utf8(peer.read(reason_bytes)?).unwrap());
    }
    challenge.extend(peer.read(CHALLENGE_BYTES - 8)?);
    let proof = dialler.answer(&challenge.try_into().unwrap()).map_err(|error| error.to_string())?;
    peer.write(&proof)?;
    Ok(peer)
}

/// Likewise, up to the welcome. An error has the words of the refusal.
pub(super) fn greet(node: &Node, plane: &Plane, hello: Hello) -> Result<Peer, String> {
    let mut peer = begin(node, plane, hello)?;
    match Welcome::decode(peer.read(8)?[..].try_into().unwrap()) {
        Ok(Welcome::Accepted) => Ok(peer),
        Ok(Welcome::Refused { reason_bytes }) => Err(String::from_utf8(peer.read(reason_bytes)?).unwrap()),
        Err(error) => Err(error.to_string()),
    }
}

fn subscribe(term: Term, subscription: Guid) -> Vec<u8> {
    let (epochs, start) = (Vec::new(), LogPosition::ZERO);
    let message =
        Message::Subscribe { term, subscription, epochs, log_end: start, commit_position: start, priority: 0 };
    let mut bytes = Vec::new();
    encode(&message, &mut bytes);
    bytes
}

/// Two log threads, of which one takes the other for its leader.
struct Two {
    dialler: Node,
    answerer: Node,
    _directories: Directories,
}

impl Two {
    fn of(dialler: &Plane, answerer: &Plane, clusters: [ClusterId; 2]) -> Two {
        let directories = Directories::new();
        let listeners = [listener(), listener()];
        let member = |node: NodeId, listener: &TcpListener| {
            let address = listener.local_addr().unwrap();
            MemberRecord { node, int_ip: address.ip(), int_tcp_port: address.port(), int_http_port: 1 }
        };
        let members = vec![member(DIALLER, &listeners[0]), member(NODE, &listeners[1])];
        let list = |cluster| MembershipBody { cluster, members: members.clone() };
        let [first, second] = listeners;
        let start = |name: &str, id, listener, cluster, plane: &Plane| {
            Node::start(&directories.of(name), id, listener, &list(cluster), plane.clone())
        };
        let answerer = start("answerer", NODE, second, clusters[1], answerer);
        let dialler = start("dialler", DIALLER, first, clusters[0], dialler);
        dialler.control_input.send(ControlInput::LeaderSeen { leader: NODE, term: Term(1) }).unwrap();
        Two { dialler, answerer, _directories: directories }
    }
}

/// The lines of a log that have all these words.
fn lines_with(log: &str, words: &[&str]) -> usize {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

fn wait_for(node: &Node, words: &[&str]) {
    let start = std::time::Instant::now();
    while lines_with(&node.log(), words) == 0 {
        assert!(start.elapsed() < PATIENCE / 3, "no line with {words:?} in:\n{}", node.log());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Who dials is refused, and both sides say so in these words, with the other's address.
fn check_refused(dialler: &Plane, answerer: &Plane, at_dialler: &[&str], at_answerer: &[&str]) {
    check_refused_of([CLUSTER; 2], dialler, answerer, at_dialler, at_answerer);
}

fn check_refused_of(
    clusters: [ClusterId; 2],
    dialler: &Plane,
    answerer: &Plane,
    at_dialler: &[&str],
    at_answerer: &[&str],
) {
    let two = Two::of(dialler, answerer, clusters);
    let leader = (NODE.to_string(), two.answerer.address.to_string());
    let at_dialler = [&["the link to the leader cannot be made", &leader.0, &leader.1], at_dialler].concat();
    let at_answerer = [&["connection on the internal port refused", "127.0.0.1:"], at_answerer].concat();
    wait_for(&two.dialler, &at_dialler);
    wait_for(&two.answerer, &at_answerer);
    assert_eq!(lines_with(&two.answerer.log(), &["link accepted"]), 0, "{}", two.answerer.log());
    assert_eq!(lines_with(&two.dialler.log(), &["link to the leader is up"]), 0, "{}", two.dialler.log());
    assert!(two.answerer.published.view().followers.is_empty());
}

#[test]
fn who_belongs_gets_in() {
    let certificates = TestCluster::new();
    for plane in [Plane::Open, secret(b'a'), certified(&certificates), both(b'a', &certificates)] {
        let two = Two::of(&plane, &plane, [CLUSTER; 2]);
        wait_for(&two.answerer, &["link accepted", &DIALLER.to_string(), "control"]);
        wait_for(&two.dialler, &["link to the leader is up", &NODE.to_string(), "control"]);
    }
}

#[test]
fn another_secret_is_refused_on_both_sides() {
    let certificates = TestCluster::new();
    let dialled = ["the answering node does not prove", "expected a proof", "found another", "ClusterSecretFile"];
    let answered = [&DIALLER.to_string(), "does not prove", "expected a proof", "found none", "ClusterSecretFile"];
    check_refused(&secret(b'a'), &secret(b'b'), &dialled, &answered);
    check_refused(&both(b'a', &certificates), &both(b'b', &certificates), &dialled, &answered);
}

#[test]
fn a_secret_on_one_side_only_is_refused_on_both_sides() {
    let certificates = TestCluster::new();
    let (with, without) = (DIALLER.to_string(), NODE.to_string());
    let demanded = "this node demands a proof of the cluster's secret (ClusterSecretFile), the greeting of";
    check_refused(&Plane::Open, &secret(b'a'), &["refused: ", demanded, &with], &[demanded, &with, "has none"]);
    check_refused(&certified(&certificates), &both(b'a', &certificates), &["refused: ", demanded], &[demanded]);
    let missing = "this node has no secret of the cluster (ClusterSecretFile), the greeting of";
    check_refused(&secret(b'a'), &Plane::Open, &["refused: ", missing, &without], &[missing, &with, "has none"]);
}

#[test]
fn another_cluster_is_refused_before_any_proof() {
    let certificates = TestCluster::new();
    let words = ["belongs to cluster", &CLUSTER.to_string(), &OTHER_CLUSTER.to_string()];
    for plane in [secret(b'a'), both(b'a', &certificates)] {
        check_refused_of([OTHER_CLUSTER, CLUSTER], &plane, &plane, &words, &words);
    }
}

#[test]
fn another_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (TestCluster::new(), TestCluster::new());
    let untrusted = ["is not signed by an authority that this node trusts", "expected", "found"];
    check_refused(
        &certified(&theirs),
        &certified(&ours),
        &untrusted,
        &["refuses this side", "another authority of the same name"],
    );
}

#[test]
fn a_certificate_of_another_address_is_refused_on_both_sides() {
    let certificates = TestCluster::new();
    let elsewhere = Plane::Tls(certificates.trust(&["10.9.9.9"]));
    let wrong = ["is not for it: expected one for 127.0.0.1, found", "10.9.9.9"];
    let told = ["refuses this side", "BadCertificate", "this side showed", "10.9.9.9"];
    check_refused(&elsewhere, &certified(&certificates), &told, &wrong);
    check_refused(&certified(&certificates), &elsewhere, &wrong, &told);
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let certificates = TestCluster::new();
    let expired = Plane::Tls(certificates.trust_unchecked(&certificates.issue(&["127.0.0.1"], past())));
    let wrong = ["is not valid now", "expected", "found"];
    let told = ["refuses this side", "CertificateExpired"];
    check_refused(&expired, &certified(&certificates), &told, &wrong);
    check_refused(&certified(&certificates), &expired, &wrong, &told);
}

#[test]
fn a_plain_node_and_one_with_tls_refuse_each_other() {
    let certificates = TestCluster::new();
    let tls = certified(&certificates);
    let demands = "this node demands TLS on its internal port (UseInternalSsl)";
    check_refused(&Plane::Open, &tls, &["refused: ", demands], &[demands, "does not speak TLS"]);
    check_refused(&secret(b'a'), &tls, &["refused: ", demands], &[demands, "does not speak TLS"]);
    let plain = ["does not speak TLS: expected a TLS record, found", "UseInternalSsl"];
    check_refused(&tls, &Plane::Open, &plain, &["does not speak the protocol of this port", "looks like TLS"]);
    check_refused(&tls, &secret(b'a'), &plain, &["does not speak the protocol of this port", "looks like TLS"]);
}

#[test]
fn clients_on_a_port_with_tls_get_words_that_they_read() {
    let (directories, certificates) = (Directories::new(), TestCluster::new());
    let node = single_on(&directories, certified(&certificates));
    for first in [&[0x12; 96][..], b"GET /ping HTTP/1.1\r\n\r\n", &hello(Purpose::Forward).encode()] {
        let mut client = TcpStream::connect(node.address).unwrap();
        client.write_all(first).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert_eq!(answer[4], 0xF0, "a client gets a BadRequest: {answer:02x?}");
        let words = String::from_utf8_lossy(&answer[22..]);
        assert!(words.contains("this node demands TLS") && words.contains("expected a TLS record"), "{words}");
    }
    node.stop().unwrap();
}

/// What is recorded of a good handshake is worth nothing, to either side.
#[test]
fn a_recorded_handshake_is_refused() {
    let directories = Directories::new();
    let node = single_on(&directories, secret(b'a'));
    let bytes = Hello { secret: true, ..hello(Purpose::Control) }.encode();
    let dialler = LinkDialler::new(Arc::clone(secret(b'a').secret().unwrap()), CLUSTER, &bytes).unwrap();
    let opening = [&bytes[..], &dialler.nonce()].concat();
    let mut peer = Peer::dial(node.address, &Plane::Open).unwrap();
    peer.write(&opening).unwrap();
    let challenge = peer.read(CHALLENGE_BYTES).unwrap();
    let proof = dialler.answer(&challenge.clone().try_into().unwrap()).unwrap();
    peer.write(&proof).unwrap();
    assert_eq!(peer.read(8).unwrap(), Welcome::accept());
    drop(peer);
    // The dialler's side, step by step and all at once.
    for waits in [true, false] {
        let mut again = Peer::dial(node.address, &Plane::Open).unwrap();
        again.write(&opening).unwrap();
        let fresh = if waits { Some(again.read(CHALLENGE_BYTES).unwrap()) } else { None };
        again.write(&proof).unwrap();
        let fresh = fresh.unwrap_or_else(|| again.read(CHALLENGE_BYTES).unwrap());
        assert_ne!(fresh, challenge);
        let (answer, _) = again.read_to_end();
        let words = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(b"RSNO") && words.contains("the connecting node does not prove"), "{words}");
    }
    assert_eq!(lines_with(&node.log(), &["link accepted"]), 1, "{}", node.log());
    assert_eq!(lines_with(&node.log(), &["refused", "the connecting node does not prove", "found another"]), 2);
    node.stop().unwrap();
    // The answerer's side: a node that dials somebody who has recorded it.
    let fake = TcpListener::bind("127.0.0.1:0").unwrap();
    let (real, listener) = (fake.local_addr().unwrap(), listener());
    let member = |node, address: std::net::SocketAddr| MemberRecord {
        node,
        int_ip: address.ip(),
        int_tcp_port: address.port(),
        int_http_port: 1,
    };
    let members = vec![member(DIALLER, listener.local_addr().unwrap()), member(NODE, real)];
    let list = MembershipBody { cluster: CLUSTER, members };
    let victim = Node::start(&directories.of("victim"), DIALLER, listener, &list, secret(b'a'));
    victim.control_input.send(ControlInput::LeaderSeen { leader: NODE, term: Term(1) }).unwrap();
    let (stream, _) = fake.accept().unwrap();
    let mut answerer = Peer::answer(stream, &Plane::Open).unwrap();
    answerer.read(opening.len()).unwrap();
    answerer.write(&challenge).unwrap();
    wait_for(&victim, &["cannot be made", "the answering node does not prove", &real.to_string()]);
    let (proven, _) = answerer.read_to_end();
    assert!(proven.is_empty(), "it proves nothing to one that did not: {proven:02x?}");
    // One that welcomes whoever comes is not believed either.
    let (stream, _) = fake.accept().unwrap();
    let mut answerer = Peer::answer(stream, &Plane::Open).unwrap();
    answerer.read(opening.len()).unwrap();
    answerer.write(&Welcome::accept()).unwrap();
    let (proven, _) = answerer.read_to_end();
    assert!(proven.is_empty(), "{proven:02x?}");
    victim.stop().unwrap();
}

/// A stranger that says it is a node that has links must not end them.
#[test]
fn a_refused_stranger_changes_nothing_for_the_node_that_it_claims_to_be() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), both(b'a', &certificates)] {
        let directories = Directories::new();
        let node = single_on(&directories, plane.clone());
        let (term, subscription) = (node.published.view().term, Guid([7; 16]));
        let mut control = greet(&node, &plane, hello(Purpose::Control)).unwrap();
        control.write(&subscribe(term, subscription)).unwrap();
        control.read(34).unwrap();
        until("it is served", || node.published.view().followers.len() == 1);
        let liar = match &plane {
            Plane::Secret(_) => secret(b'b'),
            _ => both(b'b', &certificates),
        };
        for purpose in [Purpose::Control, Purpose::Data, Purpose::Forward] {
            let claim = Hello { subscription, ..hello(purpose) };
            // One that stops at this node's proof, one that proves with another secret, one without any.
            let error = greet(&node, &liar, claim).unwrap_err();
            assert!(error.contains("the answering node does not prove"), "{error}");
            let error = lie(&node, &plane, claim);
            assert!(error.contains("the connecting node does not prove"), "{error}");
            let unflagged = Plane::new(None, plane.trust().cloned());
            let (answer, _) = begin(&node, &unflagged, claim).unwrap().read_to_end();
            let words = String::from_utf8_lossy(&answer);
            assert!(words.contains("demands a proof"), "{words}");
        }
        assert!(node.forwarded.lock().is_empty());
        assert_eq!(lines_with(&node.log(), &["link accepted"]), 1, "{}", node.log());
        assert_eq!(lines_with(&node.log(), &["links with a follower are closed"]), 0, "{}", node.log());
        // Its links work as before.
        let mut data = greet(&node, &plane, Hello { subscription, ..hello(Purpose::Data) }).unwrap();
        let answer = node.append("still", 10);
        assert!(matches!(answer.recv_timeout(PATIENCE).unwrap(), Answer::Appended { .. }));
        assert!(!data.read(100).unwrap().is_empty());
        node.stop().unwrap();
    }
}

/// Sends a proof that is none, whatever the node proves; gives the node's words.
fn lie(node: &Node, plane: &Plane, claim: Hello) -> String {
    let mut peer = Peer::dial(node.address, plane).unwrap();
    peer.write(&[&Hello { secret: true, ..claim }.encode()[..], &[1; 32]].concat()).unwrap();
    peer.read(CHALLENGE_BYTES).unwrap();
    peer.write(&[2; 32]).unwrap();
    String::from_utf8_lossy(&peer.read_to_end().0).into_owned()
}

#[test]
fn half_a_handshake_and_silence_end_in_time() {
    let certificates = TestCluster::new();
    let tls = certified(&certificates);
    let mut first = Vec::new();
    tls.dialled("127.0.0.1".parse().unwrap()).unwrap().unwrap().take_handshake(&mut first);
    let bytes = Hello { secret: true, ..hello(Purpose::Control) }.encode();
    let with_nonce = [&bytes[..], &[1; 32]].concat();
    let handshakes = [&[], &first[..100], &first[..]].map(|sent| (sent, "a TLS handshake"));
    let greetings: [(&[u8], _); 4] = [
        (&[], "a greeting"),
        (&bytes[..40], "a greeting"),
        (&bytes, "a nonce behind the greeting"),
        (&with_nonce, "a proof with the secret"),
    ];
    let sets = [(tls, &handshakes[..]), (secret(b'a'), &greetings[..])];
    for (index, (plane, silences)) in sets.into_iter().enumerate() {
        let directories = Directories::new();
        let node = single_on(&directories, plane);
        let open: Vec<_> = silences
            .iter()
            .map(|(sent, words)| {
                let mut stream = TcpStream::connect(node.address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.write_all(sent).unwrap();
                (stream, *words)
            })
            .collect();
        for (mut stream, words) in open {
            let address = stream.local_addr().unwrap().to_string();
            let ended = stream.read_to_end(&mut Vec::new());
            assert!(!matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock), "set {index}");
            wait_for(&node, &["refused", &address, "expected", words, "it takes too long"]);
        }
        node.stop().unwrap();
    }
}

/// A host that holds all the places it gets keeps neither the cluster's nodes nor other strangers out.
#[test]
fn one_host_does_not_keep_the_others_out() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), certified(&certificates), Plane::Open] {
        let directories = Directories::new();
        let node = single_on(&directories, plane.clone());
        let from = |address: &str| {
            let way = Way { from: Some(address.parse().unwrap()), ..Way::default() };
            way.connect(node.address, PATIENCE).unwrap()
        };
        let held: Vec<TcpStream> = (0..64).map(|_| from("127.0.0.9")).collect();
        // It connects from an address that is a member's.
        let _link = greet(&node, &plane, hello(Purpose::Control)).unwrap();
        // Somebody else is heard, though not let in.
        let mut other = from("127.0.0.8");
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        other.write_all(b"GET / HTTP/1.1\r\n".repeat(6).as_slice()).unwrap();
        let mut answer = Vec::new();
        let _ = other.read_to_end(&mut answer);
        assert!(!answer.is_empty(), "it gets its words");
        wait_for(&node, &["127.0.0.9", "connections", "have not"]);
        until("the refused are counted", || node.published.counters.refused_links.load(Ordering::Relaxed) >= 48);
        drop(held);
        node.stop().unwrap();
    }
}

/// More at once than one turn has time for.
#[test]
fn handshakes_of_many_at_once_are_all_completed() {
    let (directories, certificates) = (Directories::new(), TestCluster::new());
    let plane = certified(&certificates);
    let node = single_on(&directories, plane.clone());
    std::thread::scope(|scope| {
        let peers: Vec<_> = (0..40).map(|_| scope.spawn(|| begin(&node, &plane, hello(Purpose::Forward)))).collect();
        peers.into_iter().for_each(|peer| assert!(peer.join().unwrap().is_ok()));
    });
    until("the edge has them", || node.forwarded.lock().len() == 40);
    node.stop().unwrap();
}

#[test]
fn connections_that_forward_go_to_an_edge_with_their_channel() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), certified(&certificates), both(b'a', &certificates)] {
        let directories = Directories::new();
        let node = single_on(&directories, plane.clone());
        for round in 0..20 {
            let mut peer = begin(&node, &plane, hello(Purpose::Forward)).unwrap();
            peer.write(b"frames").unwrap();
            until("the edge has it", || !node.forwarded.lock().is_empty());
            let handed = node.forwarded.lock().pop().unwrap();
            assert_eq!(handed.tls.is_some(), plane.trust().is_some());
            let mut edge = Peer::resume(handed.socket.into(), handed.tls);
            assert_eq!(edge.read(6).unwrap(), b"frames", "round {round}");
            edge.write(b"answer").unwrap();
            assert_eq!(peer.read(6).unwrap(), b"answer", "no welcome stands before the client protocol");
        }
        node.stop().unwrap();
    }
}

#[test]
fn who_only_looks_whether_the_port_is_there_is_no_stranger() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), certified(&certificates)] {
        let directories = Directories::new();
        let node = single_on(&directories, plane.clone());
        drop(TcpStream::connect(node.address).unwrap());
        // One that began to speak is.
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.write_all(if plane.trust().is_some() { &[0x16, 3] } else { b"RS" }).unwrap();
        let address = stream.local_addr().unwrap().to_string();
        drop(stream);
        wait_for(&node, &["connection on the internal port refused", "found half of one", &address]);
        assert_eq!(lines_with(&node.log(), &["connection on the internal port refused"]), 1, "{}", node.log());
        node.stop().unwrap();
    }
}

#[test]
fn garbage_in_tls_closes_the_link_only() {
    let (directories, certificates) = (Directories::new(), TestCluster::new());
    let plane = certified(&certificates);
    let node = single_on(&directories, plane.clone());
    // Good records, bad frames.
    let mut control = greet(&node, &plane, hello(Purpose::Control)).unwrap();
    control.write(&[0xFF; 64]).unwrap();
    assert_eq!(control.read_to_end(), (Vec::new(), None), "it says goodbye");
    // No records at all.
    let mut control = greet(&node, &plane, hello(Purpose::Control)).unwrap();
    control.stream.write_all(&[0x17, 3, 3, 0, 40].into_iter().chain([7; 40]).collect::<Vec<u8>>()).unwrap();
    let (answer, error) = control.read_to_end();
    let error = error.unwrap_or_default();
    assert!(answer.is_empty() && error.contains("BadRecordMac"), "{answer:02x?} {error}");
    wait_for(&node, &["the links with a follower are closed", "is broken"]);
    let answer = node.append("still", 10).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
    node.stop().unwrap();
}

#[test]
fn new_certificates_are_for_new_connections() {
    let (directories, certificates) = (Directories::new(), TestCluster::new());
    let files = certificates.files("node", &certificates.issue(&["127.0.0.1"], today()));
    let trust = Arc::new(Trust::load(files, None).unwrap());
    let plane = Plane::Tls(Arc::clone(&trust));
    let node = single_on(&directories, plane.clone());
    let term = node.published.view().term;
    let mut standing = greet(&node, &plane, hello(Purpose::Control)).unwrap();
    // From now on it shows one that is for somebody else.
    certificates.files("node", &certificates.issue(&["10.9.9.9"], today()));
    trust.reload().unwrap();
    let good = certified(&certificates);
    let error = greet(&node, &good, hello(Purpose::Data)).unwrap_err();
    assert!(error.contains("is not for it") && error.contains("10.9.9.9"), "{error}");
    standing.write(&subscribe(term, Guid([7; 16]))).unwrap();
    assert_eq!(standing.read(34).unwrap()[4], 0x22, "it is subscribed over the connection that stands");
    certificates.files("node", &certificates.issue(&["127.0.0.1"], today()));
    trust.reload().unwrap();
    let subscription = Guid([7; 16]);
    greet(&node, &good, Hello { subscription, ..hello(Purpose::Data) }).unwrap();
    node.stop().unwrap();
}
