//! Forwarding over an internal plane that is closed: the leader's log thread is played, its edge is real.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use crate::api::forward_greeting::{GREETING_TIMEOUT, GreetingError, greet};
use crate::api::testing::{Node, Setup, directory, real_hello, until};
use crate::codec::client::Command;
use crate::codec::client::messages::*;
use crate::codec::link::{HELLO_BYTES, Hello, Welcome};
use crate::engine::{EdgeMessage, Forwarded, Role};
use crate::http::SecureStream;
use crate::security::testing::{Peer, TestCluster};
use crate::security::{ClusterSecret, LinkAnswerer, NONCE_BYTES, PROOF_BYTES, Plane};
use crate::types::NodeId;

fn secret(byte: u8) -> Plane {
    Plane::Secret(Arc::new(ClusterSecret::from_bytes(&[byte; 32]).unwrap()))
}

fn closed(byte: u8, certificates: &TestCluster) -> [Plane; 3] {
    let secret = secret(byte);
    let trust = certificates.trust(&["127.0.0.1"]);
    let both = Plane::new(secret.secret().cloned(), Some(trust.clone()));
    [secret, Plane::Tls(trust), both]
}

/// The log thread's part with one connection; what it says to who does not prove himself is an error here.
fn admit(mut peer: Peer, plane: &Plane) -> Result<Peer, String> {
    let bytes = peer.read(HELLO_BYTES)?;
    let hello = Hello::decode(bytes[..].try_into().unwrap()).map_err(|error| error.to_string())?;
    if hello.secret != plane.secret().is_some() {
        peer.write(&Welcome::refuse("with or without?"))?;
        return Err("with or without?".into());
    }
    let Some(secret) = plane.secret() else { return Ok(peer) };
    let nonce = peer.read(NONCE_BYTES)?[..].try_into().unwrap();
    let answerer = LinkAnswerer::new(Arc::clone(secret), hello.cluster, &bytes, &nonce).unwrap();
    peer.write(&answerer.challenge())?;
    let proof = peer.read(PROOF_BYTES)?[..].try_into().unwrap();
    answerer.accept(&proof).map_err(|error| error.to_string())?;
    Ok(peer)
}

/// Listens like the internal port of `leader`.
fn internal_port(leader: &Node, plane: &Plane) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, inbox, plane) = (listener.local_addr().unwrap(), leader.links.inbox.clone(), plane.clone());
    std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let Ok(peer) = Peer::answer(socket, &plane).and_then(|peer| admit(peer, &plane)) else { continue };
            let (stream, tls) = peer.into_parts();
            let forwarded = Forwarded { socket: stream.into(), tls };
            if inbox.send(EdgeMessage::ForwardConnection(Box::new(forwarded))).is_err() {
                return;
            }
        }
    });
    address
}

fn follower_of(leader: &Node, address: SocketAddr, plane: &Plane) -> Node {
    let mut setup = Setup { role: Role::Follower, leader: Some(leader.id), ..Setup::leader() };
    setup.directory = directory(leader, address);
    setup.options.plane = plane.clone();
    Node::start(setup)
}

/// Follows the first of two leaders, and knows the internal ports of both.
fn follower_of_either(leaders: [&Node; 2], ports: [SocketAddr; 2], plane: &Plane) -> Node {
    let mut setup = Setup { role: Role::Follower, leader: Some(leaders[0].id), ..Setup::leader() };
    setup.options.plane = plane.clone();
    let known = leaders.into_iter().zip(ports).flat_map(|(leader, port)| directory(leader, port).nodes());
    setup.directory.replace(known.collect(), "{}".into());
    Node::start(setup)
}

fn write(stream: &str, data: Vec<u8>) -> WriteEvents {
    let event = NewEvent {
        event_id: Bytes::copy_from_slice(&NodeId::random().0.0),
        event_type: "tested".into(),
        data_content_type: 0,
        metadata_content_type: 0,
        data: data.into(),
        metadata: None,
    };
    WriteEvents { event_stream_id: stream.into(), expected_version: -2, events: vec![event], require_master: false }
}

#[test]
fn writes_reach_the_leader_over_closed_planes() {
    let certificates = TestCluster::new();
    for plane in closed(b'a', &certificates) {
        let leader = Node::leader();
        let follower = follower_of(&leader, internal_port(&leader, &plane), &plane);
        let mut client = follower.client();
        // Many small ones at once, and large ones that need many records of TLS.
        let sizes = (0..200).map(|size| size * 3).chain([500_000, 900_000, 100]);
        let asked: Vec<_> =
            sizes.map(|size| client.send(Command::WriteEvents, &write("forwarded", vec![7; size]))).collect();
        for (number, id) in asked.into_iter().enumerate() {
            let written: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
            assert_eq!((written.result(), written.last_event_number), (OperationResult::Success, number as i64));
        }
        assert_eq!(leader.links.counters.forward_connections_now.load(Ordering::SeqCst), 1, "one connection for all");
    }
}

#[test]
fn a_follower_that_does_not_belong_forwards_nothing() {
    let (certificates, others) = (TestCluster::new(), TestCluster::new());
    for (ours, theirs) in closed(b'a', &certificates).into_iter().zip(closed(b'b', &others)) {
        let leader = Node::leader();
        let follower = follower_of(&leader, internal_port(&leader, &ours), &theirs);
        let mut client = follower.client();
        let id = client.send(Command::WriteEvents, &write("forwarded", vec![7]));
        let answer: NotHandled = client.expect(Command::NotHandled, id);
        assert_eq!(answer.reason(), NotHandledReason::NotReady);
        assert_eq!(leader.links.counters.forward_connections_now.load(Ordering::SeqCst), 0);
    }
}

/// The kernel of a leader that hangs still takes connections.
#[test]
fn a_leader_that_is_silent_is_left_when_there_is_another() {
    let plane = secret(b'a');
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (old, new) = (Node::leader(), Node::leader());
    let ports = [silent.local_addr().unwrap(), internal_port(&new, &plane)];
    let follower = follower_of_either([&old, &new], ports, &plane);
    let mut client = follower.client();
    let id = client.send(Command::WriteEvents, &write("forwarded", vec![7]));
    let (mut greeted, _) = silent.accept().unwrap();
    std::io::Read::read_exact(&mut greeted, &mut [0; HELLO_BYTES + NONCE_BYTES]).unwrap();
    let since = Instant::now();
    follower.set_role(Role::Follower, Some(new.id));
    let answer: NotHandled = client.expect(Command::NotHandled, id);
    assert_eq!(answer.reason(), NotHandledReason::NotReady, "it never left");
    assert!(since.elapsed() < GREETING_TIMEOUT, "{:?}", since.elapsed());
    // Its end is seen, and the pause after it is not for the new leader.
    assert!(matches!(std::io::Read::read(&mut greeted, &mut [0]), Ok(0) | Err(_)));
    let id = client.send(Command::WriteEvents, &write("forwarded", vec![7]));
    let written: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
    assert_eq!(written.result(), OperationResult::Success);
}

#[test]
fn a_write_right_after_a_change_of_leader_goes_to_the_new_one() {
    let certificates = TestCluster::new();
    for plane in closed(b'a', &certificates) {
        let (old, new) = (Node::leader(), Node::leader());
        let ports = [&old, &new].map(|leader| internal_port(leader, &plane));
        let follower = follower_of_either([&old, &new], ports, &plane);
        let mut client = follower.client();
        let repeated = write("forwarded", vec![7]);
        for leader in [&old, &new, &old, &new, &old, &new] {
            follower.set_role(Role::Follower, Some(leader.id));
            let id = client.send(Command::WriteEvents, &repeated);
            let written: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
            assert_eq!(written.result(), OperationResult::Success);
        }
        // The connections to the earlier leader end.
        until(|| [&old, &new].map(forward_connections) == [0, 1]);
    }
}

fn forward_connections(node: &Node) -> u64 {
    node.links.counters.forward_connections_now.load(Ordering::SeqCst)
}

#[test]
fn what_an_earlier_leader_answers_in_time_comes_back() {
    let plane = secret(b'a');
    let (old, new) = (Node::leader(), Node::leader());
    let ports = [&old, &new].map(|leader| internal_port(leader, &plane));
    let follower = follower_of_either([&old, &new], ports, &plane);
    let mut client = follower.client();
    // On a busy machine the answer may come too late; then it is tried again.
    let answers_in_time = |number: u64| {
        follower.set_role(Role::Follower, Some(old.id));
        old.behaviour.is_mute.store(true, Ordering::SeqCst);
        let before = old.behaviour.taken.load(Ordering::SeqCst);
        let first = client.send(Command::WriteEvents, &write("first", vec![7]));
        until(|| old.behaviour.taken.load(Ordering::SeqCst) == before + 1);
        follower.set_role(Role::Follower, Some(new.id));
        let second = client.send(Command::WriteEvents, &write("second", vec![7]));
        until(|| new.behaviour.taken.load(Ordering::SeqCst) == number + 1);
        old.answer_late();
        let mut results = HashMap::new();
        while results.len() < 2 {
            let package = client.receive().unwrap();
            assert_eq!(package.command, Command::WriteEventsCompleted as u8);
            results.insert(package.correlation, WriteEventsCompleted::decode(package.payload).unwrap().result());
        }
        assert_eq!(results[&second], OperationResult::Success);
        match results[&first] {
            OperationResult::Success => true,
            OperationResult::ForwardTimeout => false,
            other => panic!("{other:?}"),
        }
    };
    assert!((0..20).any(answers_in_time), "an answer that was on its way is lost");
}

/// Dials somebody who does `answer` with the connection; what comes of the greeting.
fn dial(
    plane: &Plane,
    answer: impl FnOnce(std::net::TcpStream) + Send + 'static,
) -> Result<SecureStream, GreetingError> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || answer(listener.accept().unwrap().0));
    let hello = real_hello(NodeId::random(), plane.secret().is_some()).encode();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
    let result = runtime.block_on(async {
        let stream = monoio::net::TcpStream::connect(address).await.unwrap();
        let result =
            monoio::time::timeout(Duration::from_secs(30), greet(stream, plane, address, &hello)).await.unwrap();
        // The runtime closes what was dropped; the other side may wait for that.
        while !answering.is_finished() {
            monoio::time::sleep(Duration::from_millis(1)).await;
        }
        result
    });
    answering.join().unwrap();
    result
}

#[test]
fn the_words_of_a_refused_greeting() {
    let certificates = TestCluster::new();
    let check = |plane: &Plane, answerer: Plane, expected: &str, heard: &'static str| {
        let error = dial(plane, move |stream| {
            let result = Peer::answer(stream, &answerer).and_then(|peer| admit(peer, &answerer));
            let words = result.map(|_| ()).unwrap_err();
            assert!(words.contains(heard), "{words}");
        });
        let words = error.unwrap_err().to_string();
        assert!(words.contains(expected), "{words}");
    };
    let [plain, tls, both] = closed(b'a', &certificates);
    let others = closed(b'b', &certificates);
    check(&plain, others[0].clone(), "the answering node does not prove", "the end after 0 of 32 bytes");
    check(&both, others[2].clone(), "the answering node does not prove", "close");
    check(&plain, Plane::Open, "refused: with or without?", "with or without?");
    check(&both, tls.clone(), "refused: with or without?", "with or without?");
    let strangers = closed(b'a', &TestCluster::new());
    check(&tls, strangers[1].clone(), "is not signed by an authority", "another authority of the same name");
    // One that speaks no TLS, one that welcomes whoever comes, one that says nothing.
    let error = dial(&tls, |mut stream| std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad").unwrap());
    let words = error.unwrap_err().to_string();
    assert!(words.contains("does not speak TLS") && words.contains("plain HTTP answer"), "{words}");
    let error = dial(&plain, |mut stream| std::io::Write::write_all(&mut stream, &Welcome::accept()).unwrap());
    assert!(matches!(error, Err(GreetingError::Unproven)), "{error:?}");
    let mut said = [0; HELLO_BYTES + NONCE_BYTES];
    let error = dial(&plain, move |mut stream| std::io::Read::read_exact(&mut stream, &mut said).unwrap());
    assert!(error.unwrap_err().to_string().contains("it closed the connection"));
}
