//! Writes at a follower, which go to the leader: answers, timeouts, and leaders that are none.

use super::*;

#[test]
fn a_write_at_a_follower_goes_to_the_leader_and_its_answer_comes_back() {
    let leader = Node::leader();
    let (address, _port) = leader.internal_port();
    let follower = follower_of(&leader, directory(&leader, address));
    let mut client = follower.client().admin();
    let id = client.send(Command::IdentifyClient, &IdentifyClient { version: 1, connection_name: None });
    client.expect_text(Command::ClientIdentified, id);
    let written = client.write("$forwarded", NO_STREAM, vec![event(1, "one")]);
    assert_eq!((written.result(), written.last_event_number), (OperationResult::Success, 0), "with its credentials");
    let refused = client.write("$forwarded", 7, vec![event(2, "two")]);
    assert_eq!((refused.result(), refused.current_version), (OperationResult::WrongExpectedVersion, Some(0)));
    assert_eq!(leader.client().admin().texts("$forwarded"), ["one"]);
    let mut anyone = follower.client();
    assert_eq!(anyone.write("$forwarded", ANY, vec![event(3, "x")]).result(), OperationResult::AccessDenied);
    let many: Vec<_> =
        (0..200).map(|_| anyone.send(Command::WriteEvents, &write("b", ANY, vec![event(4, "x")]))).collect();
    for id in many {
        anyone.expect::<WriteEventsCompleted>(Command::WriteEventsCompleted, id);
    }
    assert_eq!(leader.links.counters.forward_connections_now.load(Ordering::SeqCst), 1, "one connection for all");
    until(|| follower.links.counters.pending_requests_now.load(Ordering::SeqCst) == 0);
}

#[test]
fn the_answer_to_a_forwarded_write_waits_a_moment_for_the_own_index() {
    let leader = Node::leader();
    let (address, _port) = leader.internal_port();
    let follower = follower_of(&leader, directory(&leader, address));
    let mut client = follower.client();
    // No log comes to the played follower, so the wait ends with its time.
    let since = Instant::now();
    assert_eq!(client.write("a", NO_STREAM, vec![event(1, "one")]).result(), OperationResult::Success);
    assert!(since.elapsed() >= Duration::from_millis(200), "{:?}", since.elapsed());
    let since = Instant::now();
    let repeated = client.write("a", NO_STREAM, vec![event(1, "one")]);
    assert_eq!((repeated.result(), repeated.commit_position), (OperationResult::Success, Some(-1)));
    assert!(since.elapsed() < Duration::from_millis(200), "a repeat names no position to wait for");
}

fn follower_of(leader: &Node, directory: crate::gossip::Directory) -> Node {
    Node::start(Setup { role: Role::Follower, leader: Some(leader.id), directory, ..Setup::leader() })
}

#[test]
fn a_leader_that_goes_away_gives_forwarding_timeouts() {
    let mut leader = Node::leader();
    let (address, _port) = leader.internal_port();
    let follower = follower_of(&leader, directory(&leader, address));
    let mut client = follower.client();
    assert_eq!(client.write("a", ANY, vec![event(1, "one")]).result(), OperationResult::Success);
    leader.behaviour.is_mute.store(true, Ordering::SeqCst);
    let id = client.send(Command::WriteEvents, &write("a", ANY, vec![event(2, "two")]));
    until(|| leader.behaviour.taken.load(Ordering::SeqCst) == 2);
    leader.shut_down();
    let lost: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
    assert_eq!((lost.result(), lost.message()), (OperationResult::ForwardTimeout, "Forwarding timeout"));
}

#[test]
fn what_never_left_is_not_ready_and_what_is_never_answered_times_out() {
    let leader = Node::leader();
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let follower = follower_of(&leader, directory(&leader, closed));
    let mut client = follower.client();
    for _ in 0..3 {
        let id = client.send(Command::WriteEvents, &write("a", ANY, vec![]));
        assert_eq!(not_handled(&mut client, id), NotHandledReason::NotReady);
    }
    // Somebody listens and says nothing; its heartbeats are what is missing first, so they are made slow here.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut setup = Setup::leader();
    setup.options.forward_timeout = Duration::from_millis(300);
    setup.options.internal_heartbeat.interval = Duration::from_secs(20);
    let directory = directory(&leader, silent.local_addr().unwrap());
    let follower = Node::start(Setup { role: Role::Follower, leader: Some(leader.id), directory, ..setup });
    let written = follower.client().write("a", ANY, vec![]);
    assert_eq!(written.result(), OperationResult::ForwardTimeout);
}

#[test]
fn a_leader_that_talks_nonsense_is_left() {
    let leader = Node::leader();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let follower = follower_of(&leader, directory(&leader, port.local_addr().unwrap()));
    let mut client = follower.client();
    let id = client.send(Command::WriteEvents, &write("a", ANY, vec![]));
    let (mut socket, _) = port.accept().unwrap();
    let mut request = vec![0; 5 + 22];
    socket.read_exact(&mut request).unwrap();
    let own = Guid(request[11..27].try_into().unwrap());
    let mut out = Vec::new();
    let strange = Guid([0xFF; 16]);
    // An answer to nobody, one of the wrong kind, and a client's request: all ignored. Then no frame at all.
    write_failed(&mut out, strange, OperationResult::AccessDenied, -1);
    transaction_started(&mut out, own, Ok(1));
    put_frame(&mut out, Command::WriteEvents, own, b"");
    out.extend_from_slice(&[0; 4]);
    socket.write_all(&out).unwrap();
    let lost: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
    assert_eq!(lost.result(), OperationResult::ForwardTimeout);
    let id = client.send_raw(Command::Ping as u8, 0, b"");
    client.expect_text(Command::Pong, id);
}

#[test]
fn two_followers_that_take_each_other_for_the_leader_do_not_play_ball() {
    let first = Node::start(Setup { role: Role::Follower, leader: Some(NodeId::random()), ..Setup::leader() });
    let (address, _port) = first.internal_port();
    let second = follower_of(&first, directory(&first, address));
    let mut client = second.client();
    let id = client.send(Command::WriteEvents, &write("a", ANY, vec![]));
    assert_eq!(not_handled(&mut client, id), NotHandledReason::NotReady);
}
