//! The ports with TLS, seen by clients that use rustls themselves, and by those that do something else there.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::security::ExternalTrust;
use crate::security::testing::{TestCluster, today};

/// A node with ports for TLS, and the authority that signed its certificate.
struct Secure {
    node: Node,
    cluster: TestCluster,
    trust: Arc<ExternalTrust>,
}

impl Secure {
    fn leader() -> Secure {
        Secure::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Setup)) -> Secure {
        let cluster = TestCluster::new();
        let files = cluster.files("external", &cluster.issue(&["127.0.0.1"], today()));
        let trust = Arc::new(ExternalTrust::load(files.certificate, files.key).unwrap());
        let mut setup = Setup::leader();
        setup.options.append_size_max = 4 << 20;
        setup.options.external = Some(Arc::clone(&trust));
        change(&mut setup);
        Secure { node: Node::start(setup), cluster, trust }
    }

    fn client(&self) -> Client {
        self.client_of(&TLS13)
    }

    fn client_of(&self, version: &'static SupportedProtocolVersion) -> Client {
        connect(self.node.secure_tcp, &self.cluster, version)
    }

    fn failures(&self) -> u64 {
        self.node.links.counters.tls_failures.load(Ordering::SeqCst)
    }

    fn open_now(&self) -> u64 {
        self.node.links.counters.tls_connections_now.load(Ordering::SeqCst)
    }
}

/// A client that trusts this authority.
fn connect(address: SocketAddr, cluster: &TestCluster, version: &'static SupportedProtocolVersion) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.authority.own().certificate.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let config = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = Client::connect(address);
    client.tls = Some(Box::new(ClientConnection::new(config, name).unwrap()));
    client
}

/// Everything up to the end.
fn rest(client: &mut Client) -> std::io::Result<Vec<u8>> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match client.get(&mut piece)? {
            0 => return Ok(all),
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}

#[test]
fn clients_write_read_and_subscribe_in_both_versions() {
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let secure = Secure::leader();
        let (mut writer, mut reader) = (secure.client_of(version), secure.client_of(version));
        assert_eq!(writer.write("a", NO_STREAM, vec![event(1, "one")]).result(), OperationResult::Success);
        let message = SubscribeToStream { event_stream_id: "a".into(), resolve_link_tos: false };
        let stream = reader.send(Command::SubscribeToStream, &message);
        reader.expect::<SubscriptionConfirmation>(Command::SubscriptionConfirmation, stream);
        // A plain connection and one with TLS see the same.
        assert_eq!(secure.node.client().write("a", 0, vec![event(2, "two")]).result(), OperationResult::Success);
        let pushed: StreamEventAppeared = reader.expect(Command::StreamEventAppeared, stream);
        assert_eq!(pushed.event.event.unwrap().event_number, 1);
        assert_eq!(writer.texts("a"), ["one", "two"]);
        assert_eq!(writer.tls.as_ref().unwrap().protocol_version(), Some(expected));
        assert_eq!((secure.open_now(), secure.failures()), (2, 0));
        drop((writer, reader));
        until(|| secure.open_now() == 0);
    }
}

#[test]
fn large_and_many_events_go_through_whole() {
    for version in [&TLS12, &TLS13] {
        let secure = Secure::with(|setup| setup.log_queue = 4096);
        let mut client = secure.client_of(version);
        let mut random = fastrand::Rng::with_seed(7);
        let texts: Vec<String> = (0..3).map(|_| (0..1 << 20).map(|_| random.alphanumeric()).collect()).collect();
        for (number, text) in texts.iter().enumerate() {
            let written = client.write("large", number as i64 - 1, vec![event(number as u8 + 1, text)]);
            assert_eq!(written.result(), OperationResult::Success);
        }
        assert!(client.texts("large") == texts, "3 MiB in one page");
        // Sent before the first answer is read: many frames in a record, and records that end within a frame.
        let ids: Vec<_> = (0..2000)
            .map(|number| {
                let message = write("small", ANY, vec![event(1 + (number % 250) as u8, &"x".repeat(number % 97))]);
                client.send(Command::WriteEvents, &message)
            })
            .collect();
        for id in ids {
            let written: WriteEventsCompleted = client.expect(Command::WriteEventsCompleted, id);
            assert_eq!(written.result(), OperationResult::Success);
        }
        assert_eq!(client.read("small", false).events.len(), 100);
    }
}

#[test]
fn both_sides_say_goodbye_and_nothing_before_it_is_lost() {
    let secure = Secure::leader();
    let mut client = secure.client();
    client.send(Command::WriteEvents, &write("a", ANY, vec![event(1, "last")]));
    client.tls.as_mut().unwrap().send_close_notify();
    // An end without the other side's goodbye would be an error.
    rest(&mut client).unwrap();
    until(|| secure.node.client().texts("a") == ["last"]);
    // The server says it, too, when it is the one that closes.
    let mut client = secure.client();
    client.put(&[0; 4]).unwrap();
    assert!(!rest(&mut client).unwrap().is_empty(), "words, then the goodbye");
}

#[test]
fn keys_may_change_under_way() {
    let secure = Secure::leader();
    let mut client = secure.client();
    for number in 1..=4 {
        client.write("a", ANY, vec![event(number, "x")]);
        client.tls.as_mut().unwrap().refresh_traffic_keys().unwrap();
    }
    assert_eq!(client.texts("a").len(), 4);
}

#[test]
fn a_damaged_record_ends_the_connection_and_the_client_hears_why() {
    let secure = Secure::leader();
    let mut client = secure.client();
    client.write("a", ANY, vec![event(1, "one")]);
    client.socket.write_all(&[&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat()).unwrap();
    let error = rest(&mut client).unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
    until(|| secure.open_now() == 0);
    assert_eq!(secure.node.client().texts("a"), ["one"]);
}

#[test]
fn a_client_without_tls_is_told_so_and_closed() {
    let secure = Secure::leader();
    let mut client = Client::connect(secure.node.secure_tcp);
    client.send(Command::WriteEvents, &write("a", ANY, vec![event(1, "open")]));
    let text = client.expect_text(Command::BadRequest, Guid::ZERO);
    assert!(text.contains("connections with TLS"), "{text}");
    client.expect_closed();
    assert_eq!((secure.failures(), secure.open_now()), (1, 0));
    assert_eq!(secure.node.log_bytes(), 0, "nothing of it was done");

    let mut client = Client::connect(secure.node.secure_http);
    client.put(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answer = String::from_utf8(rest(&mut client).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 This port is for connections with TLS"), "{answer}");
    assert_eq!(secure.failures(), 2);
}

#[test]
fn a_client_with_tls_at_the_plain_port_gets_no_handshake() {
    let secure = Secure::leader();
    let mut client = connect(secure.node.tcp, &secure.cluster, &TLS13);
    // What it says is taken for the beginning of a frame; the first that it is sent, a heartbeat, is no TLS.
    let error = client.put(b"x").unwrap_err().to_string();
    assert!(error.contains("corrupt message") || error.contains("reset"), "{error}");
    let mut client = connect(secure.node.http, &secure.cluster, &TLS13);
    assert!(client.put(b"x").is_err());
    assert_eq!(secure.node.client().write("a", ANY, vec![]).result(), OperationResult::Success, "the others go on");
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_counted() {
    let secure = Secure::leader();
    let mut client = connect(secure.node.secure_tcp, &TestCluster::new(), &TLS13);
    let error = client.put(b"x").unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // Its alert goes with its next call.
    let _ = client.put(b"x");
    drop(client);
    until(|| secure.failures() == 1);
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for() {
    let patience = Duration::from_millis(300);
    let secure = Secure::with(|setup| setup.options.handshake_timeout = patience);
    for address in [secure.node.secure_tcp, secure.node.secure_http] {
        let begun = Instant::now();
        // Nothing at all, and the beginning of a record.
        let mut stalled = [b"".as_slice(), b"\x16\x03\x01\x02"].map(|first| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(first).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream
        });
        // Others get through meanwhile.
        secure.client().write("a", ANY, vec![]);
        for stream in &mut stalled {
            let end = stream.read(&mut [0; 64]);
            assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
        }
        assert!((patience..10 * patience).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
    until(|| secure.failures() == 4 && secure.open_now() == 0);
    let counters = &secure.node.links.counters;
    until(|| counters.http_connections_now.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let secure = Secure::leader();
    let shown = |client: &Client| client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].clone();
    let mut old = secure.client();
    old.write("a", ANY, vec![event(1, "one")]);
    secure.cluster.files("external", &secure.cluster.issue(&["127.0.0.1"], today()));
    let mut same = secure.client();
    same.write("a", ANY, vec![]);
    assert_eq!(shown(&same), shown(&old), "until it is read");
    secure.trust.reload().unwrap();
    let mut new = secure.client();
    new.write("a", ANY, vec![event(2, "two")]);
    assert_ne!(shown(&new), shown(&old));
    assert_eq!(old.texts("a"), ["one", "two"], "the old connection stays");
    // A file that cannot be used changes nothing.
    secure.cluster.write("external.pem", "nonsense");
    assert!(secure.trust.reload().is_err());
    let mut newest = secure.client();
    newest.write("a", ANY, vec![]);
    assert_eq!(shown(&newest), shown(&new));
    assert!(Path::new(&secure.cluster.path("external.pem")).exists());
}

#[test]
fn https_answers_what_http_answers() {
    for version in [&TLS12, &TLS13] {
        let secure = Secure::leader();
        let ask = |client: &mut Client| {
            client.put(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client.put(b"GET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            String::from_utf8(rest(client).unwrap()).unwrap()
        };
        let mut plain = Client::connect(secure.node.http);
        let mut closed = connect(secure.node.secure_http, &secure.cluster, version);
        let (expected, found) = (ask(&mut plain), ask(&mut closed));
        assert_eq!(found, expected);
        assert!(found.contains("/one") && found.ends_with("/two"), "{found}");
        until(|| secure.open_now() == 0);
    }
}

#[test]
fn a_refused_client_is_told_where_the_leader_has_tls() {
    let leader = Secure::leader();
    let (id, known) = (leader.node.id, directory(&leader.node, leader.node.tcp));
    let follower = Node::start(Setup { role: Role::Follower, leader: Some(id), directory: known, ..Setup::leader() });
    let mut client = follower.client();
    let message = WriteEvents { require_master: true, ..write("a", ANY, vec![]) };
    let id = client.send(Command::WriteEvents, &message);
    let refused: NotHandled = client.expect(Command::NotHandled, id);
    let told = MasterInfo::decode(refused.additional_info.unwrap()).unwrap();
    assert_eq!(told.external_secure_tcp_address.as_deref(), Some("127.0.0.1"));
    assert_eq!(told.external_secure_tcp_port, Some(i32::from(leader.node.secure_tcp.port())));
}
