//! Clients that ask for more than they take, hold what others need, or say nothing.

use super::*;

#[test]
fn too_much_waiting_is_answered_too_busy() {
    let node = Node::start(Setup { log_queue: 8, ..Setup::leader() });
    let mut client = node.client();
    node.behaviour.is_stuck.store(true, Ordering::SeqCst);
    let ids: Vec<_> = (0..20).map(|_| client.send(Command::WriteEvents, &write("a", ANY, vec![]))).collect();
    for &id in &ids[8..] {
        assert_eq!(not_handled(&mut client, id), NotHandledReason::TooBusy);
    }
    node.behaviour.is_stuck.store(false, Ordering::SeqCst);
    for &id in &ids[..8] {
        client.expect::<WriteEventsCompleted>(Command::WriteEventsCompleted, id);
    }
    assert_eq!(node.links.counters.busy_refusals.load(Ordering::SeqCst), 12);
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected() {
    let node = Node::leader();
    let (mut writer, mut lazy) = (node.client(), node.client());
    let message = SubscribeToStream { event_stream_id: "a".into(), resolve_link_tos: false };
    // Many subscriptions on one connection, so that each event counts many times.
    for _ in 0..100 {
        lazy.send(Command::SubscribeToStream, &message);
    }
    until(|| node.links.counters.subscriptions_now.load(Ordering::SeqCst) == 100);
    let large = "x".repeat(500_000);
    assert_eq!(writer.write("a", ANY, vec![event(1, &large)]).result(), OperationResult::Success);
    until(|| node.links.counters.subscriptions_now.load(Ordering::SeqCst) == 0);
    until(|| node.links.counters.tcp_connections_now.load(Ordering::SeqCst) == 1);
    assert_eq!(writer.write("a", ANY, vec![event(2, "small")]).result(), OperationResult::Success);
}

#[test]
fn a_client_that_asks_but_does_not_read_is_paused_not_cut() {
    let node = Node::leader();
    let mut client = node.client();
    let large = "x".repeat(1_000_000);
    client.write("a", ANY, vec![event(1, &large)]);
    let ids: Vec<_> = (0..40).map(|_| client.send(Command::ReadStreamEventsForward, &read("a", false))).collect();
    std::thread::sleep(Duration::from_millis(200));
    for id in ids {
        let page: ReadStreamEventsCompleted = client.expect(Command::ReadStreamEventsForwardCompleted, id);
        assert_eq!(page.events.len(), 1);
    }
}

#[test]
fn confirmed_reads_wait_for_a_client_that_does_not_take_its_answers() {
    let node = Node::leader();
    let mut client = node.client();
    let large = "x".repeat(1_000_000);
    client.write("a", ANY, vec![event(1, &large)]);
    node.behaviour.is_stuck.store(true, Ordering::SeqCst);
    let ids: Vec<_> = (0..60).map(|_| client.send(Command::ReadStreamEventsForward, &read("a", true))).collect();
    until(|| node.links.counters.pending_requests_now.load(Ordering::SeqCst) == 60);
    node.behaviour.is_stuck.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(300));
    // What is not read yet takes no memory; some megabytes are in the socket's own buffers.
    let waiting = node.links.counters.pending_requests_now.load(Ordering::SeqCst);
    assert!((20..60).contains(&waiting), "{waiting} reads wait");
    let mut other = node.client();
    assert_eq!(other.read("b", true).result(), ReadStreamResult::NoStream, "others are not held up");
    for id in ids {
        let page: ReadStreamEventsCompleted = client.expect(Command::ReadStreamEventsForwardCompleted, id);
        assert_eq!(page.events.len(), 1);
    }
    assert_eq!(client.texts("b").len(), 0);
}

#[test]
fn who_sits_on_the_room_for_large_frames_loses_it() {
    let mut setup = Setup::leader();
    setup.options.receive_bytes = 3 << 20;
    let node = Node::start(setup);
    let mut idle: Vec<_> = (0..3).map(|_| node.client()).collect();
    for holder in &mut idle {
        let mut begun = (60_u32 << 20).to_le_bytes().to_vec();
        begun.resize(600 << 10, 0);
        holder.socket.write_all(&begun).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    let large = "x".repeat(1_000_000);
    for n in 0..3 {
        let written = node.client().write("a", ANY, vec![event(n + 1, &large)]);
        assert_eq!(written.result(), OperationResult::Success);
    }
    let cut = node.links.counters.cut_connections.load(Ordering::SeqCst);
    assert!((1..3).contains(&cut), "{cut} cut: no more than needed");
}

#[test]
fn silent_clients_are_asked_and_then_cut() {
    let mut setup = Setup::leader();
    setup.options.client_heartbeat.interval = Duration::from_millis(400);
    setup.options.client_heartbeat.timeout = Duration::from_millis(400);
    let node = Node::start(setup);
    let mut lively = node.client();
    let talk = std::thread::spawn(move || {
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(100));
            let ping = lively.send_raw(Command::Ping as u8, 0, b"");
            lively.expect_text(Command::Pong, ping);
        }
    });
    let mut dead = std::net::TcpStream::connect(node.tcp).unwrap();
    dead.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = dead.read_to_end(&mut bytes);
    assert_eq!(bytes[4], Command::HeartbeatRequestCommand as u8);
    assert_eq!(bytes.len() % 22, 0, "nothing else was said");
    talk.join().unwrap();
}
