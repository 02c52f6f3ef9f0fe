//! Clients against a real edge over loopback, with a played log thread: what a client sees, request by request.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use crate::api::testing::{Client, Node, Setup, directory, until};
use crate::codec::client::Command;
use crate::codec::client::frame::put_frame;
use crate::codec::client::messages::*;
use crate::codec::client::response::{transaction_started, write_failed};
use crate::engine::{Answer, Role};
use crate::gossip::{AddressRule, Gossip, GossipOptions, Standing};
use crate::types::{Guid, NodeId, Ticks, WallTime};

#[path = "edge_forwarding_tests.rs"]
mod forwarding;

const ANY: i64 = -2;
const NO_STREAM: i64 = -1;

fn event(id: u8, text: &str) -> NewEvent {
    NewEvent {
        event_id: Bytes::from(vec![id; 16]),
        event_type: "tested".into(),
        data_content_type: 1,
        metadata_content_type: 0,
        data: Bytes::copy_from_slice(text.as_bytes()),
        metadata: None,
    }
}

fn write(stream: &str, expected_version: i64, events: Vec<NewEvent>) -> WriteEvents {
    WriteEvents { event_stream_id: stream.into(), expected_version, events, require_master: false }
}

impl Client {
    fn ask<M: Message + Default>(&mut self, command: Command, message: &impl Message, answer: Command) -> M {
        let correlation = self.send(command, message);
        self.expect(answer, correlation)
    }

    fn write(&mut self, stream: &str, expected_version: i64, events: Vec<NewEvent>) -> WriteEventsCompleted {
        let message = write(stream, expected_version, events);
        self.ask(Command::WriteEvents, &message, Command::WriteEventsCompleted)
    }

    fn delete(&mut self, stream: &str, expected_version: i64, hard: bool) -> DeleteStreamCompleted {
        let (event_stream_id, hard_delete) = (stream.into(), Some(hard));
        let message = DeleteStream { event_stream_id, expected_version, require_master: true, hard_delete };
        self.ask(Command::DeleteStream, &message, Command::DeleteStreamCompleted)
    }

    fn read(&mut self, stream: &str, require_master: bool) -> ReadStreamEventsCompleted {
        let message = read(stream, require_master);
        self.ask(Command::ReadStreamEventsForward, &message, Command::ReadStreamEventsForwardCompleted)
    }

    fn texts(&mut self, stream: &str) -> Vec<String> {
        let page = self.read(stream, true);
        let text =
            |entry: &ResolvedIndexedEvent| String::from_utf8_lossy(&entry.event.as_ref().unwrap().data).into_owned();
        page.events.iter().map(text).collect()
    }
}

fn read(stream: &str, require_master: bool) -> ReadStreamEvents {
    ReadStreamEvents {
        event_stream_id: stream.into(),
        from_event_number: 0,
        max_count: 100,
        resolve_link_tos: false,
        require_master,
    }
}

fn not_handled(client: &mut Client, correlation: Guid) -> NotHandledReason {
    client.expect::<NotHandled>(Command::NotHandled, correlation).reason()
}

/// The payload of a message type that none of the requests needs.
fn nothing() -> SubscriptionDropped {
    SubscriptionDropped::default()
}

#[test]
fn a_write_is_read_back_at_once() {
    let node = Node::leader();
    let mut client = node.client();
    let written = client.write("a", NO_STREAM, vec![event(1, "one"), event(2, "two")]);
    assert_eq!(
        (written.result(), written.first_event_number, written.last_event_number),
        (OperationResult::Success, 0, 1)
    );
    assert!(written.prepare_position > written.commit_position, "{written:?}");
    assert_eq!(client.texts("a"), ["one", "two"]);
    let none = client.write("a", 1, vec![]);
    assert_eq!((none.result(), none.first_event_number, none.last_event_number), (OperationResult::Success, 2, 1));
    let page = client.read("nothing", false);
    assert_eq!(page.result(), ReadStreamResult::NoStream);
}

#[test]
fn a_repeat_succeeds_and_a_wrong_claim_does_not() {
    let node = Node::leader();
    let mut client = node.client();
    client.write("a", NO_STREAM, vec![event(1, "one"), event(2, "two")]);
    let before = node.log_bytes();
    let again = client.write("a", NO_STREAM, vec![event(1, "one"), event(2, "two")]);
    assert_eq!((again.result(), again.first_event_number, again.last_event_number), (OperationResult::Success, 0, 1));
    assert_eq!((again.prepare_position, again.commit_position), (Some(-1), Some(-1)));
    let tail = client.write("a", 0, vec![event(2, "two")]);
    assert_eq!((tail.result(), tail.first_event_number), (OperationResult::Success, 1));
    let check = |client: &mut Client, expected: i64, events| {
        let refused = client.write("a", expected, events);
        assert_eq!(refused.result(), OperationResult::WrongExpectedVersion);
        assert_eq!((refused.current_version, refused.first_event_number), (Some(1), i64::from(i32::MIN)));
        assert_eq!(refused.message(), "Wrong expected version.");
    };
    check(&mut client, NO_STREAM, vec![event(1, "one"), event(3, "three")]);
    check(&mut client, NO_STREAM, vec![event(1, "one"), event(2, "two"), event(3, "three")]);
    check(&mut client, 0, vec![]);
    check(&mut client, 7, vec![event(9, "nine")]);
    assert_eq!(node.log_bytes(), before, "nothing was written");
}

#[test]
fn deleted_streams() {
    let node = Node::leader();
    let mut client = node.client();
    client.write("a", NO_STREAM, vec![event(1, "one"), event(2, "two")]);
    client.write("$$a", NO_STREAM, vec![NewEvent { event_type: "$metadata".into(), ..event(3, r#"{"own":1}"#) }]);
    assert_eq!(client.delete("a", 0, false).result(), OperationResult::WrongExpectedVersion);
    assert_eq!(client.delete("a", 1, false).result(), OperationResult::Success);
    let page = client.read("a", false);
    assert_eq!((page.result(), page.last_event_number), (ReadStreamResult::NoStream, 1));
    // The first write once more is no new one; a claim of no stream that is none brings it back.
    let again = client.write("a", NO_STREAM, vec![event(1, "one"), event(2, "two")]);
    assert_eq!((again.result(), again.commit_position), (OperationResult::Success, Some(-1)));
    let differs = client.write("a", NO_STREAM, vec![event(1, "one"), event(9, "nine")]);
    assert_eq!(differs.result(), OperationResult::WrongExpectedVersion);
    assert_eq!(client.read("a", false).result(), ReadStreamResult::NoStream);
    // It comes back with its numbering, and only new events are seen.
    let written = client.write("a", NO_STREAM, vec![event(4, "four")]);
    assert_eq!((written.result(), written.first_event_number), (OperationResult::Success, 2));
    assert_eq!(client.texts("a"), ["four"]);
    assert!(client.texts("$$a").last().unwrap().contains(r#""$tb":2"#));
    let gone = client.delete("a", ANY, true);
    assert_eq!(gone.result(), OperationResult::Success);
    assert!(gone.commit_position > Some(0));
    assert_eq!(client.read("a", false).result(), ReadStreamResult::StreamDeleted);
    assert_eq!(client.write("a", ANY, vec![event(5, "five")]).result(), OperationResult::StreamDeleted);
    assert_eq!(client.delete("$$a", ANY, true).result(), OperationResult::AccessDenied);
    assert_eq!(client.delete("never", ANY, false).result(), OperationResult::Success);
}

#[test]
fn metadata_written_by_hand_brings_a_stream_back_empty() {
    let node = Node::leader();
    let mut client = node.client();
    client.write("a", NO_STREAM, vec![event(1, "one")]);
    client.delete("a", ANY, false);
    let metadata = NewEvent { event_type: "$metadata".into(), ..event(2, r#"{"own":"x"}"#) };
    assert_eq!(client.write("$$a", ANY, vec![metadata]).result(), OperationResult::Success);
    let last = client.texts("$$a").pop().unwrap();
    assert!(last.contains(r#""$tb":1"#) && last.contains(r#""own":"x""#), "{last}");
    let page = client.read("a", false);
    assert_eq!((page.result(), page.events.len(), page.next_event_number), (ReadStreamResult::Success, 0, 1));
}

#[test]
fn a_transaction_appears_as_one_write() {
    let node = Node::leader();
    let mut client = node.client();
    let start = TransactionStart { event_stream_id: "a".into(), expected_version: NO_STREAM, require_master: true };
    let started: TransactionStartCompleted =
        client.ask(Command::TransactionStart, &start, Command::TransactionStartCompleted);
    let transaction_id = started.transaction_id;
    assert!(transaction_id >= 0);
    let commit = |client: &mut Client, transaction_id| {
        let message = TransactionCommit { transaction_id, require_master: true };
        let answer = Command::TransactionCommitCompleted;
        client.ask::<TransactionCommitCompleted>(Command::TransactionCommit, &message, answer)
    };
    for (id, text) in [(1, "one"), (2, "two")] {
        let message = TransactionWrite { transaction_id, events: vec![event(id, text)], require_master: true };
        let answer = Command::TransactionWriteCompleted;
        let written: TransactionWriteCompleted = client.ask(Command::TransactionWrite, &message, answer);
        assert_eq!((written.result(), written.transaction_id), (OperationResult::Success, transaction_id));
    }
    assert_eq!(client.read("a", false).result(), ReadStreamResult::NoStream, "nothing is seen before the commit");
    let committed = commit(&mut client, transaction_id);
    assert_eq!(committed.result(), OperationResult::Success);
    assert_eq!((committed.first_event_number, committed.last_event_number), (0, 1));
    assert_eq!(client.texts("a"), ["one", "two"]);
    let again = commit(&mut client, transaction_id);
    assert_eq!((again.result(), again.commit_position), (OperationResult::Success, Some(-1)));
    assert_eq!(commit(&mut client, 4_000_000).result(), OperationResult::AccessDenied, "nobody knows it");
}

#[test]
fn subscribers_get_what_comes_after_their_confirmation() {
    let node = Node::leader();
    let (mut writer, mut reader) = (node.client(), node.client().admin());
    writer.write("a", NO_STREAM, vec![event(1, "one")]);
    let message = SubscribeToStream { event_stream_id: "a".into(), resolve_link_tos: false };
    let stream = reader.send(Command::SubscribeToStream, &message);
    let confirmed: SubscriptionConfirmation = reader.expect(Command::SubscriptionConfirmation, stream);
    assert_eq!(confirmed.last_event_number, Some(0));
    let message = SubscribeToStream { event_stream_id: String::new(), resolve_link_tos: false };
    let all = reader.send(Command::SubscribeToStream, &message);
    let confirmed: SubscriptionConfirmation = reader.expect(Command::SubscriptionConfirmation, all);
    assert_eq!(confirmed.last_event_number, None);
    writer.write("b", ANY, vec![event(2, "two")]);
    writer.write("a", 0, vec![event(3, "three"), event(4, "four")]);
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let package = reader.receive().unwrap();
        assert_eq!(package.command, Command::StreamEventAppeared as u8);
        let event = StreamEventAppeared::decode(package.payload).unwrap().event.event.unwrap();
        seen.push((package.correlation == all, event.event_stream_id, event.event_number));
    }
    seen.sort();
    let entry = |is_all, stream: &str, number| (is_all, stream.to_owned(), number);
    let expected =
        [entry(false, "a", 1), entry(false, "a", 2), entry(true, "a", 1), entry(true, "a", 2), entry(true, "b", 0)];
    assert_eq!(seen, expected);
    // Unsubscribing one leaves the other.
    let mut out = Vec::new();
    put_frame(&mut out, Command::UnsubscribeFromStream, all, b"");
    reader.socket.write_all(&out).unwrap();
    reader.expect::<SubscriptionDropped>(Command::SubscriptionDropped, all);
    writer.write("a", 2, vec![event(5, "five")]);
    reader.expect::<StreamEventAppeared>(Command::StreamEventAppeared, stream);
    drop(reader);
    until(|| node.links.counters.subscriptions_now.load(Ordering::SeqCst) == 0);
}

#[test]
fn subscribers_are_told_when_the_node_stops() {
    let mut node = Node::leader();
    let mut client = node.client();
    let message = SubscribeToStream { event_stream_id: "a".into(), resolve_link_tos: false };
    let id = client.send(Command::SubscribeToStream, &message);
    client.expect::<SubscriptionConfirmation>(Command::SubscriptionConfirmation, id);
    let since = Instant::now();
    node.shut_down();
    assert!(since.elapsed() < Duration::from_secs(4), "bounded");
    client.expect::<SubscriptionDropped>(Command::SubscriptionDropped, id);
    client.expect_closed();
}

#[test]
fn access_is_checked() {
    let node = Node::leader();
    let mut anyone = node.client();
    assert_eq!(anyone.write("$system", ANY, vec![event(1, "one")]).result(), OperationResult::AccessDenied);
    let mut admin = node.client().admin();
    assert_eq!(admin.write("$system", ANY, vec![event(1, "one")]).result(), OperationResult::Success);
    assert_eq!(anyone.read("$system", false).result(), ReadStreamResult::AccessDenied);
    // Wrong credentials are no anonymity.
    let mut wrong = node.client();
    wrong.credentials = crate::codec::client::Credentials::new(b"admin", b"wrong");
    let id = wrong.send(Command::WriteEvents, &write("a", ANY, vec![]));
    assert_eq!(wrong.expect_text(Command::NotAuthenticated, id), "Not Authenticated");
    let id = wrong.send_raw(Command::Authenticate as u8, 0, b"");
    assert_eq!(wrong.expect_text(Command::NotAuthenticated, id), "Unauthorized");
    wrong.credentials = None;
    let id = wrong.send(Command::WriteEvents, &write("a", ANY, vec![]));
    assert_eq!(wrong.expect_text(Command::NotAuthenticated, id), "Not Authenticated", "they are remembered");
    let id = anyone.send_raw(Command::Authenticate as u8, 0, b"");
    assert_eq!(anyone.expect_text(Command::NotAuthenticated, id), "No user credentials provided.");
    let id = admin.send_raw(Command::Authenticate as u8, 0, b"");
    assert_eq!(admin.expect_text(Command::Authenticated, id), "");
    admin.credentials = None;
    assert_eq!(admin.read("$system", false).result(), ReadStreamResult::Success, "as the connection's default");
}

#[test]
fn small_talk() {
    let node = Node::leader();
    let mut client = node.client();
    let id = client.send_raw(Command::Ping as u8, 0, b"any bytes \xFF");
    let pong = client.receive().unwrap();
    assert_eq!((pong.command, pong.correlation, &pong.payload[..]), (Command::Pong as u8, id, &b"any bytes \xFF"[..]));
    let id = client.send(Command::IdentifyClient, &IdentifyClient { version: 1, connection_name: None });
    assert_eq!(client.expect_text(Command::ClientIdentified, id), "");
    let id = client.send_raw(Command::HeartbeatRequestCommand as u8, 0, b"");
    assert_eq!(client.expect_text(Command::HeartbeatResponseCommand, id), "");
}

#[test]
fn what_is_malformed_is_answered_and_hurts_nobody() {
    let node = Node::leader();
    let mut client = node.client();
    for (command, payload) in
        [(0x80, &b""[..]), (0x10, b""), (0xBA, b""), (0xFF, b"x"), (0x82, b"\xFF\xFF"), (0xB1, b"")]
    {
        let id = client.send_raw(command, 0, payload);
        let text = client.expect_text(Command::BadRequest, id);
        let start = format!("Could not unwrap network package for command {}.\n", Command::describe(command));
        assert!(text.starts_with(&start), "{text}");
    }
    for message in [write("", ANY, vec![]), write("a", -3, vec![]), write("a", ANY, vec![event(0, "zero id")])] {
        let id = client.send(Command::WriteEvents, &message);
        client.expect_text(Command::BadRequest, id);
    }
    assert_eq!(client.write("a", ANY, vec![event(1, "one")]).result(), OperationResult::Success, "it stays open");
    let mut bystander = node.client();
    let ends = |bytes: &[u8], start: &str| {
        let mut client = node.client();
        client.socket.write_all(bytes).unwrap();
        let text = client.expect_text(Command::BadRequest, Guid::ZERO);
        assert!(text.starts_with(start), "{text}");
        client.expect_closed();
    };
    ends(&[0, 0, 0, 0], "Invalid TCP frame received. Error: Package size is out of bounds: 0 (max: 67108864)..");
    ends(&[0xFF; 64], "Invalid TCP frame received. Error: Package size is out of bounds: -1 (max: 67108864)..");
    ends(&[3, 0, 0, 0, 1, 2, 3], "Received bad network package. Error: ");
    let mut trusted = node.client();
    let id = trusted.send_raw(Command::WriteEvents as u8, 2, b"");
    let text = trusted.expect_text(Command::BadRequest, id);
    assert_eq!(text, "Trusted writes aren't accepted over the external TCP interface");
    trusted.expect_closed();
    assert_eq!(bystander.texts("a"), ["one"]);
}

#[test]
fn noise_breaks_nothing() {
    let node = Node::leader();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut socket = std::net::TcpStream::connect(node.tcp).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut noise: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        if random.bool() && noise.len() > 24 {
            // A good length and a real command, so that it gets further.
            noise[..4].copy_from_slice(&(random.u32(18..200)).to_le_bytes());
            noise[4] = *random
                .choice(&[1, 3, 0x82, 0x84, 0x86, 0x88, 0x8A, 0xB0, 0xB2, 0xB6, 0xC0, 0xC3, 0xF2, 0xF5])
                .unwrap();
            noise[5] = random.u8(..2);
        }
        let _ = socket.write_all(&noise);
        let _ = socket.read(&mut [0; 64]);
    }
    let mut client = node.client();
    assert_eq!(client.write("a", ANY, vec![event(1, "one")]).result(), OperationResult::Success);
    until(|| node.links.counters.tcp_connections_now.load(Ordering::SeqCst) == 1);
    until(|| node.links.counters.pending_requests_now.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_write_in_many_pieces_and_many_writes_in_one_piece() {
    let node = Node::leader();
    let mut client = node.client();
    let large = "x".repeat(900_000);
    assert_eq!(client.write("a", NO_STREAM, vec![event(1, &large)]).result(), OperationResult::Success);
    assert_eq!(client.texts("a"), [large]);
    let ids: Vec<_> = (0..500u16)
        .map(|index| {
            let mut event = event(2, "small");
            event.event_id = Bytes::from([&[9; 14][..], &index.to_le_bytes()].concat());
            client.send(Command::WriteEvents, &write("b", ANY, vec![event]))
        })
        .collect();
    for (index, id) in ids.into_iter().enumerate() {
        let written: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
        assert_eq!(written.first_event_number, index as i64, "in the order in which they were sent");
    }
    let (name, answers) = node.links.published.stages.snapshot().pop().unwrap();
    assert_eq!((&*name, answers.len()), ("answer", 501));
    assert!(answers.max() < 10_000_000_000, "{} ns", answers.max());
    let too_large = client.send(Command::WriteEvents, &write("a", ANY, vec![event(3, &"x".repeat((1 << 20) + 1))]));
    assert!(client.expect_text(Command::BadRequest, too_large).contains("MaxAppendSize"));
}

#[test]
fn silence_of_the_log_thread_becomes_a_timeout_and_its_late_answer_is_dropped() {
    let mut setup = Setup::leader();
    setup.options.commit_timeout = Duration::from_millis(300);
    let node = Node::start(setup);
    let mut client = node.client();
    node.behaviour.is_mute.store(true, Ordering::SeqCst);
    let written = client.write("a", NO_STREAM, vec![event(1, "one")]);
    assert_eq!((written.result(), written.message()), (OperationResult::CommitTimeout, "Commit phase timeout."));
    let id = client.send(Command::ReadStreamEventsForward, &read("a", true));
    assert_eq!(not_handled(&mut client, id), NotHandledReason::NotReady);
    // One that goes away while it waits, and whose place another one takes.
    let mut gone = node.client();
    gone.send(Command::WriteEvents, &write("b", NO_STREAM, vec![event(2, "two")]));
    until(|| node.behaviour.taken.load(Ordering::SeqCst) == 3);
    drop(gone);
    until(|| node.links.counters.pending_requests_now.load(Ordering::SeqCst) == 0);
    node.answer_late();
    assert_eq!(client.write("a", NO_STREAM, vec![event(1, "one")]).result(), OperationResult::Success, "a repeat");
    assert_eq!(client.texts("b"), ["two"]);
}

#[test]
fn refusals_of_the_log_thread() {
    let node = Node::leader();
    let mut client = node.client();
    let mut ask = |answer| {
        *node.behaviour.refusal.lock().unwrap() = Some(answer);
        client.send(Command::WriteEvents, &write("a", ANY, vec![event(1, "one")]));
        client.receive().unwrap()
    };
    let package = ask(Answer::DiskFull);
    assert_eq!(package.command, Command::BadRequest as u8);
    assert!(String::from_utf8_lossy(&package.payload).contains("disk"), "{package:?}");
    let package = ask(Answer::ChunkFailed);
    assert!(String::from_utf8_lossy(&package.payload).contains("next file of its log"), "{package:?}");
    let package = ask(Answer::NoQuorumRoom);
    assert_eq!(package.command, Command::BadRequest as u8);
    assert!(String::from_utf8_lossy(&package.payload).contains("no majority could take"), "{package:?}");
    let package = ask(Answer::TooLarge { bytes: 99, limit: 7 });
    assert!(String::from_utf8_lossy(&package.payload).contains("99"), "{package:?}");
    assert_eq!(ask(Answer::TooBusy).command, Command::NotHandled as u8);
    assert_eq!(ask(Answer::NotLeader).command, Command::NotHandled as u8);
    let unknown = WriteEventsCompleted::decode(ask(Answer::Unknown).payload).unwrap();
    assert_eq!(unknown.result(), OperationResult::CommitTimeout);
}

#[test]
fn each_state_answers_as_it_should() {
    let other = Node::leader();
    let known = directory(&other, other.tcp);
    let follower =
        Node::start(Setup { role: Role::Follower, leader: Some(other.id), directory: known, ..Setup::leader() });
    let mut client = follower.client();
    assert_eq!(client.read("a", false).result(), ReadStreamResult::NoStream, "reads are served locally");
    let message = WriteEvents { require_master: true, ..write("a", ANY, vec![]) };
    let id = client.send(Command::WriteEvents, &message);
    let refused: NotHandled = client.expect(Command::NotHandled, id);
    assert_eq!(refused.reason(), NotHandledReason::NotMaster);
    let leader = MasterInfo::decode(refused.additional_info.unwrap()).unwrap();
    let address = (leader.external_tcp_address.as_str(), leader.external_tcp_port);
    assert_eq!(address, ("127.0.0.1", i32::from(other.tcp.port())));
    let id = client.send(Command::ReadStreamEventsForward, &read("a", true));
    assert_eq!(not_handled(&mut client, id), NotHandledReason::NotMaster);
    follower.set_role(Role::Unknown, None);
    let id = client.send(Command::WriteEvents, &write("a", ANY, vec![]));
    assert_eq!(not_handled(&mut client, id), NotHandledReason::NotReady);
    follower.set_role(Role::Initializing, None);
    let id = client.send(Command::ReadStreamEventsForward, &read("a", false));
    assert_eq!(not_handled(&mut client, id), NotHandledReason::NotReady);
}

/// A client is sent to the address that the leader has for the client's network.
#[test]
fn a_client_is_sent_to_the_leader_by_the_rules_of_the_leader() {
    let other = Node::leader();
    let known = directory(&other, other.tcp);
    let addresses = known.node(other.id).unwrap().addresses;
    let rule = |network: &str| AddressRule { network: network.parse().unwrap(), address: "10.1.0.5".parse().unwrap() };
    let told = |network: &str| {
        let gossip = GossipOptions {
            node: other.id,
            instance: Guid::random(),
            cluster_size: 3,
            chunk_size: 1 << 20,
            addresses,
            ext_advertise: vec![rule(network)],
            priority: 0,
            read_only: false,
            interval: Duration::from_secs(1),
            allowed_difference: Duration::from_secs(60),
            standing: Standing::Empty,
            random_seed: 7,
        };
        let now = Ticks(3_600_000_000_000);
        known.replace(known.nodes(), Gossip::new(gossip, now, WallTime::default()).document(now));
        let role = Role::Follower;
        let follower = Node::start(Setup { role, leader: Some(other.id), directory: known.clone(), ..Setup::leader() });
        let mut client = follower.client();
        let id = client.send(Command::ReadStreamEventsForward, &read("a", true));
        let refused: NotHandled = client.expect(Command::NotHandled, id);
        MasterInfo::decode(refused.additional_info.unwrap()).unwrap()
    };
    let leader = told("127.0.0.0/8");
    assert_eq!((&*leader.external_tcp_address, &*leader.external_http_address), ("10.1.0.5", "10.1.0.5"));
    assert_eq!(leader.external_tcp_port, i32::from(other.tcp.port()));
    assert_eq!(told("10.0.0.0/8").external_tcp_address, "127.0.0.1");
}

#[test]
fn a_leader_that_is_deposed_while_a_read_waits_does_not_answer_it() {
    let other = Node::leader();
    let node = Node::start(Setup { directory: directory(&other, other.tcp), ..Setup::leader() });
    let mut client = node.client();
    node.behaviour.is_stuck.store(true, Ordering::SeqCst);
    let id = client.send(Command::ReadStreamEventsForward, &read("a", true));
    until(|| node.links.counters.pending_requests_now.load(Ordering::SeqCst) == 1);
    node.set_role(Role::Follower, Some(other.id));
    node.behaviour.is_stuck.store(false, Ordering::SeqCst);
    assert_eq!(not_handled(&mut client, id), NotHandledReason::NotMaster);
}

#[test]
fn http_is_answered_by_the_routes() {
    let node = Node::leader();
    let mut socket = std::net::TcpStream::connect(node.http).unwrap();
    socket
        .write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nGET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert!(answer.contains("/ping") && answer.ends_with("/info"), "{answer}");
}

#[test]
fn what_is_not_there_yet_says_so() {
    let node = Node::leader();
    let mut client = node.client().admin();
    let id = client.send(Command::ScavengeDatabase, &nothing());
    assert!(client.expect_text(Command::BadRequest, id).contains("ScavengeDatabase"));
}

#[path = "edge_load_tests.rs"]
mod load;

#[path = "secure_tests.rs"]
mod secure;
