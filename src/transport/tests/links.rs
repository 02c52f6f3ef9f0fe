//! Port 1112 as strangers and confused nodes see it; and a disk that fails.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::node::{Directories, LAYOUT, Node, PATIENCE, listener, make_chunks, until};
use super::planes::{begin, both, greet, secret};
use crate::codec::link::{Hello, Purpose};
use crate::codec::record::{MemberRecord, MembershipBody};
use crate::consensus::Message;
use crate::engine::{Answer, Role};
use crate::security::Plane;
use crate::security::testing::TestCluster;
use crate::transport::messages::encode;
use crate::transport::{LogThreadError, ShellInput};
use crate::types::{ClusterId, Guid, LogPosition, NodeId, Term};

pub(super) const CLUSTER: ClusterId = ClusterId(Guid([9; 16]));
pub(super) const NODE: NodeId = NodeId(Guid([1; 16]));

fn single(directories: &Directories) -> Node {
    single_on(directories, Plane::Open)
}

pub(super) fn single_on(directories: &Directories, plane: Plane) -> Node {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let member = MemberRecord { node: NODE, int_ip: address.ip(), int_tcp_port: address.port(), int_http_port: 1 };
    let list = MembershipBody { cluster: CLUSTER, members: vec![member] };
    let node = Node::start(&directories.of("node"), NODE, listener, &list, plane);
    until("the node leads", || node.published.view().role == Role::Leader);
    node
}

pub(super) fn hello(purpose: Purpose) -> Hello {
    Hello {
        purpose,
        cluster: CLUSTER,
        node: NodeId(Guid([2; 16])),
        term: Term(1),
        subscription: Guid::ZERO,
        start: LogPosition::ZERO,
        chunk_size: LAYOUT.chunk_size,
        secret: false,
    }
}

/// Sends `bytes` and reads until the node closes the connection.
fn conversation(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn who_does_not_belong_is_refused_with_the_reason() {
    let directories = Directories::new();
    let node = single(&directories);
    let check = |hello: Hello, reason: &str| {
        let answer = conversation(&node, &hello.encode());
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains(reason), "{hello:?}: {text:?}");
    };
    check(Hello { cluster: ClusterId(Guid([8; 16])), ..hello(Purpose::Control) }, "belongs to cluster");
    check(Hello { cluster: ClusterId(Guid([8; 16])), ..hello(Purpose::Forward) }, "belongs to cluster");
    check(Hello { node: NODE, ..hello(Purpose::Control) }, "data directory was copied");
    check(Hello { chunk_size: 4096, ..hello(Purpose::Control) }, "must be the same");
    check(hello(Purpose::Data), "has not subscribed");
    let mut damaged = hello(Purpose::Control).encode();
    damaged[20] ^= 1;
    assert!(String::from_utf8_lossy(&conversation(&node, &damaged)).contains("checksum"));
    // A node of an older release: it reads the words as it always has.
    let mut old = hello(Purpose::Control).encode();
    old[8] = 1;
    let crc = crc32c::crc32c(&old[..92]);
    old[92..].copy_from_slice(&crc.to_le_bytes());
    let answer = conversation(&node, &old);
    assert_eq!(&answer[..4], b"RSNO");
    assert!(String::from_utf8_lossy(&answer[8..]).starts_with("it speaks version 1 of the link protocol, this node"));
    let client = conversation(&node, &[0x12; 96]);
    assert_eq!(client[4], 0xF0, "a client gets a BadRequest: {client:02x?}");
    assert_eq!(client.len(), 4 + u32::from_le_bytes(client[..4].try_into().unwrap()) as usize);
    assert_eq!(node.published.view().role, Role::Leader, "and nothing else is disturbed");
    node.stop().unwrap();
}

#[test]
fn garbage_after_a_good_greeting_closes_the_link_only() {
    let directories = Directories::new();
    let node = single(&directories);
    for garbage in [&[0xFF; 64][..], &[18, 0, 0, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]] {
        let bytes = [&hello(Purpose::Control).encode()[..], garbage].concat();
        let answer = conversation(&node, &bytes);
        assert!(answer.is_empty() || answer.starts_with(b"RSOK"), "{answer:02x?}");
    }
    // What only a leader says.
    let heartbeat = [38, 0, 0, 0, 0x25].into_iter().chain([0; 37]).collect::<Vec<u8>>();
    conversation(&node, &[&hello(Purpose::Control).encode()[..], &heartbeat].concat());
    let answer = node.append("still", 10).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
    node.stop().unwrap();
}

#[test]
fn forward_connections_go_to_an_edge_with_all_that_follows_the_greeting() {
    let directories = Directories::new();
    let node = single(&directories);
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.write_all(&[&hello(Purpose::Forward).encode()[..], b"frames"].concat()).unwrap();
    until("the edge has it", || !node.forwarded.lock().is_empty());
    let mut handed = TcpStream::from(node.forwarded.lock().pop().unwrap().socket);
    let mut frames = [0; 6];
    handed.read_exact(&mut frames).unwrap();
    assert_eq!(&frames, b"frames");
    handed.write_all(b"answer").unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer", "no welcome stands before the client protocol");
    node.stop().unwrap();
}

/// A follower that subscribes and then takes nothing must not hold up the writes: its unsent bytes hold the log buffer
/// until its link is broken.
#[test]
fn a_follower_that_takes_nothing_is_dropped_and_writes_go_on() {
    take_nothing(Plane::Open);
}

#[test]
fn a_follower_with_certificates_that_takes_nothing_is_dropped_too() {
    let certificates = TestCluster::new();
    take_nothing(both(b'a', &certificates));
}

fn take_nothing(plane: Plane) {
    let directories = Directories::new();
    let node = single_on(&directories, plane.clone());
    let subscription = Guid([7; 16]);
    let term = node.published.view().term;
    let mut control = greet(&node, &plane, hello(Purpose::Control)).unwrap();
    let (epochs, start) = (Vec::new(), LogPosition::ZERO);
    let subscribe =
        Message::Subscribe { term, subscription, epochs, log_end: start, commit_position: start, priority: 0 };
    let mut bytes = Vec::new();
    encode(&subscribe, &mut bytes);
    control.write(&bytes).unwrap();
    until("it is served", || node.published.view().followers.len() == 1);
    let mut data = greet(&node, &plane, Hello { subscription, ..hello(Purpose::Data) }).unwrap();
    // Acknowledging without taking opens the window, so that more is planned for it than its socket holds.
    for round in 0..30 {
        let answers: Vec<_> = (0..10).map(|_| node.append("busy", 100_000)).collect();
        let mut end = LogPosition::ZERO;
        for answer in answers {
            match answer.recv_timeout(PATIENCE) {
                Ok(Answer::Appended { end: at, .. }) => end = at,
                other => panic!("round {round}: {other:?}"),
            }
        }
        bytes.clear();
        encode(&Message::Acknowledge { term, subscription, position: end }, &mut bytes);
        // The link is closed at some point.
        let _ = control.write(&bytes);
    }
    let (rest, _) = data.read_to_end();
    assert!(rest.len() < 25_000_000, "it was dropped on the way, after {} bytes", rest.len());
    node.stop().unwrap();
}

/// What happened: a range that was held for a link, but not being sent yet when the link was closed, stayed held, and in
/// the end no append fitted the log buffer.
#[test]
fn links_that_come_and_go_leave_nothing_held() {
    come_and_go(Plane::Open);
}

#[test]
fn links_with_certificates_that_come_and_go_leave_nothing_held() {
    let certificates = TestCluster::new();
    come_and_go(both(b'a', &certificates));
}

fn come_and_go(plane: Plane) {
    let directories = Directories::new();
    let node = single_on(&directories, plane.clone());
    let term = node.published.view().term;
    let (mut answers, mut kept) = (Vec::new(), Vec::new());
    for round in 0..200u8 {
        answers.push(node.append("busy", 20_000));
        let mut control = greet(&node, &plane, hello(Purpose::Control)).unwrap();
        let subscription = Guid([round; 16]);
        let (epochs, start) = (Vec::new(), LogPosition::ZERO);
        let subscribe =
            Message::Subscribe { term, subscription, epochs, log_end: start, commit_position: start, priority: 0 };
        let mut bytes = Vec::new();
        encode(&subscribe, &mut bytes);
        control.write(&bytes).unwrap();
        control.read(34).unwrap();
        let data = begin(&node, &plane, Hello { subscription, ..hello(Purpose::Data) }).map(|mut data| {
            if round % 2 == 0 {
                data.read(8).unwrap();
            }
            data
        });
        let data = data.unwrap();
        // The greeting of the next round closes these on the other side, at whatever they are by then.
        kept.push((control, data));
    }
    answers.extend((0..50).map(|_| node.append("busy", 60_000)));
    for answer in answers {
        let answer = answer.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
    }
    node.stop().unwrap();
}

#[test]
fn silent_strangers_are_bounded() {
    be_silent(Plane::Open);
}

#[test]
fn silent_strangers_are_bounded_on_closed_planes() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), both(b'a', &certificates)] {
        be_silent(plane);
    }
}

fn be_silent(plane: Plane) {
    let directories = Directories::new();
    let node = single_on(&directories, plane.clone());
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(node.address).unwrap()).collect();
    // The node closes those beyond its limit; a good one gets in as soon as others are gone.
    let closed = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&*stream).read(&mut [0; 1]), Ok(0))
    };
    until("some are closed", || silent.iter().filter(|stream| closed(stream)).count() >= 16);
    drop(silent);
    until("a good one gets in", || greet(&node, &plane, hello(Purpose::Control)).is_ok());
    node.stop().unwrap();
}

/// A failed write is final: the thread ends with an error and its own exit status, and acknowledges nothing more.
#[test]
fn a_failed_write_stops_the_node() {
    let directories = Directories::new();
    make_chunks(&directories.of("node"), 5);
    let mut node = single(&directories);
    // The next chunk is one that cannot be written.
    let full: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap().into();
    assert!(node.shell_input.send(ShellInput::ChunkReady { chunk: 5, file: full }).is_ok());
    let mut answers = Vec::new();
    for _ in 0..80 {
        answers.push(node.append("big", 100_000));
    }
    let error = node.join().unwrap_err();
    assert!(matches!(error, LogThreadError::Write { .. }), "{error}");
    assert_eq!(error.exit_status(), 3);
    assert!(error.to_string().contains("no space"), "{error}");
    let acknowledged = answers.iter().filter(|answer| matches!(answer.try_recv(), Ok(Answer::Appended { .. }))).count();
    assert!(acknowledged < 80, "what lies in the bad chunk is not acknowledged");
}
