//! Two channels back to back, and everybody who must not get in.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::super::authority::{Authority, Issued};
use super::super::identity::Identity;
use super::super::plane::Plane;
use super::super::testing::{TestCluster, future, past, today};
use super::super::trust::{TlsConfigs, Trust, provider};
use super::*;
use crate::limits::CERTIFICATE_CHAIN_MAX;

const DIALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const ANSWERER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Both ends of one connection, and what each has received.
struct Pair {
    dialler: TlsChannel,
    answerer: TlsChannel,
    at_dialler: Vec<u8>,
    at_answerer: Vec<u8>,
}

impl Pair {
    fn of(dialler: &TlsConfigs, answerer: &TlsConfigs) -> Pair {
        let dialler = TlsChannel::client(dialler, ANSWERER).unwrap();
        let answerer = TlsChannel::server(answerer, DIALLER).unwrap();
        Pair { dialler, answerer, at_dialler: Vec::new(), at_answerer: Vec::new() }
    }

    /// Of one cluster, established.
    fn good() -> Pair {
        let cluster = TestCluster::new();
        let (one, two) = (cluster.trust(&["10.0.0.1"]), cluster.trust(&["10.0.0.2"]));
        let mut pair = Pair::of(&one.current(), &two.current());
        pair.meet(usize::MAX);
        assert!(pair.dialler.is_established() && pair.answerer.is_established());
        pair
    }

    /// Moves what must go out in pieces until both are silent; what each side says of it. What a side that has failed is
    /// sent, it does not look at.
    fn meet(&mut self, piece: usize) -> (Option<TlsError>, Option<TlsError>) {
        let (mut at_dialler, mut at_answerer) = (None, None);
        while self.dialler.wants_send() || self.answerer.wants_send() {
            let wire = sent(&mut self.dialler);
            at_answerer = at_answerer.or(give(&mut self.answerer, &wire, piece, &mut self.at_answerer));
            let wire = sent(&mut self.answerer);
            at_dialler = at_dialler.or(give(&mut self.dialler, &wire, piece, &mut self.at_dialler));
        }
        (at_dialler, at_answerer)
    }
}

fn sent(channel: &mut TlsChannel) -> Vec<u8> {
    let mut wire = Vec::new();
    channel.take_handshake(&mut wire);
    wire
}

fn give(channel: &mut TlsChannel, wire: &[u8], piece: usize, plain: &mut Vec<u8>) -> Option<TlsError> {
    wire.chunks(piece.min(wire.len()).max(1)).find_map(|part| channel.receive(part, plain).err())
}

fn sealed(channel: &mut TlsChannel, plain: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    channel.seal(plain, &mut wire).unwrap();
    wire
}

/// A stranger with whatever certificate, who trusts the cluster's authority.
fn stranger(cluster: &TestCluster, issued: &Issued) -> TlsConfigs {
    TlsConfigs::new(&Identity::unchecked(issued, &cluster.authority.own().certificate), None).unwrap()
}

/// What both sides say when the one that dials, and then the one that answers, has this certificate: the one that refuses,
/// and the one that is refused.
fn both_ways(issued: impl Fn(&TestCluster, IpAddr) -> Issued) -> [(TlsError, TlsError); 2] {
    let cluster = TestCluster::new();
    let (one, two) = (cluster.trust(&["10.0.0.1"]).current(), cluster.trust(&["10.0.0.2"]).current());
    let mut dials = Pair::of(&stranger(&cluster, &issued(&cluster, DIALLER)), &two);
    let (refused, refuses) = dials.meet(usize::MAX);
    assert!(!dials.answerer.is_established() && dials.answerer.peer().is_none());
    let mut answers = Pair::of(&one, &stranger(&cluster, &issued(&cluster, ANSWERER)));
    let (refuses_too, refused_too) = answers.meet(usize::MAX);
    assert!(!answers.dialler.is_established() && !answers.answerer.is_established());
    [(refuses.unwrap(), refused.unwrap()), (refuses_too.unwrap(), refused_too.unwrap())]
}

fn has(error: &TlsError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
}

#[test]
fn two_nodes_talk_however_the_stream_is_cut() {
    let cluster = TestCluster::new();
    let (one, two) = (cluster.trust(&["10.0.0.1"]).current(), cluster.trust(&["10.0.0.2"]).current());
    for piece in [1, 2, 3, 5, 7, 64, 1000, 4096, usize::MAX] {
        let mut pair = Pair::of(&one, &two);
        assert_eq!(pair.meet(piece), (None, None), "{piece}");
        assert!(pair.dialler.is_established() && pair.answerer.is_established(), "{piece}");
        assert_eq!(pair.dialler.peer().unwrap().names, ["10.0.0.2"]);
        assert_eq!(pair.answerer.peer().unwrap().names, ["10.0.0.1"]);
        let wire = sealed(&mut pair.dialler, b"hello");
        assert!(!wire.windows(5).any(|bytes| bytes == b"hello"), "it is sealed");
        assert_eq!(give(&mut pair.answerer, &wire, piece, &mut pair.at_answerer), None);
        let wire = sealed(&mut pair.answerer, b"welcome");
        assert_eq!(give(&mut pair.dialler, &wire, piece, &mut pair.at_dialler), None);
        assert_eq!(
            (pair.at_answerer.as_slice(), pair.at_dialler.as_slice()),
            (b"hello".as_slice(), b"welcome".as_slice())
        );
    }
}

#[test]
fn a_mebibyte_goes_through_both_ways_at_any_cut() {
    let mut random = fastrand::Rng::with_seed(5);
    let data: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1 << 20).collect();
    let mut pair = Pair::good();
    for wire_of in [Pair::take_from_dialler as fn(&mut Pair, &[u8]) -> Vec<u8>, Pair::take_from_answerer] {
        let wire = wire_of(&mut pair, &data);
        assert!(wire.len() > data.len() && wire.len() <= sealed_bytes_max(data.len()), "{}", wire.len());
    }
    for length in [0, 1, 16383, 16384, 16385, 65536] {
        let wire = sealed(&mut pair.dialler, &data[..length]);
        assert!(wire.len() <= sealed_bytes_max(length), "{length}: {}", wire.len());
        assert_eq!(wire.is_empty(), length == 0);
        give(&mut pair.answerer, &wire, 1 + length / 3, &mut pair.at_answerer);
        assert_eq!(pair.at_answerer, data[..length]);
        pair.at_answerer.clear();
    }
}

impl Pair {
    /// Seals it in random pieces, receives it in others, compares; gives the bytes of the wire.
    fn take_from_dialler(&mut self, data: &[u8]) -> Vec<u8> {
        let wire = sealed(&mut self.dialler, data);
        through(&mut self.answerer, &wire, data);
        wire
    }

    fn take_from_answerer(&mut self, data: &[u8]) -> Vec<u8> {
        let wire = sealed(&mut self.answerer, data);
        through(&mut self.dialler, &wire, data);
        wire
    }
}

fn through(to: &mut TlsChannel, wire: &[u8], data: &[u8]) {
    let mut random = fastrand::Rng::with_seed(6);
    let (mut rest, mut plain) = (wire, Vec::new());
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(random.usize(1..=rest.len().min(100_000)));
        let before = plain.len();
        to.receive(part, &mut plain).unwrap();
        assert!(plain.len() - before <= part.len() + TLS_RECORD_BYTES, "a record at most was unfinished");
        rest = behind;
    }
    assert!(plain == data);
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let other = |name: &'static str| {
        move |_: &TestCluster, address: IpAddr| {
            let authority = Authority::new(name, today()).unwrap();
            authority.issue("intruder", &[address.to_string()], today()).unwrap()
        }
    };
    for (refuses, refused) in both_ways(other("another authority")) {
        assert!(matches!(refuses, TlsError::Authority { .. }), "{refuses}");
        has(
            &refuses,
            &["10.0.0.", "\"test authority\"", "\"intruder\"", "\"another authority\"", "CertificateAuthorityFile"],
        );
        assert!(matches!(refused, TlsError::Refused { .. }), "{refused}");
        has(&refused, &["refuses this side", "UnknownCA", "\"intruder\"", "does not trust the authority"]);
    }
    // Another authority that has the same name.
    for (refuses, refused) in both_ways(other("test authority")) {
        assert!(matches!(refuses, TlsError::Authority { .. }), "{refuses}");
        assert!(matches!(refused, TlsError::Refused { .. }), "{refused}");
    }
}

#[test]
fn a_self_signed_certificate_is_refused_on_both_sides() {
    let alone = |_: &TestCluster, address: IpAddr| {
        let params = CertificateParams::new(vec![address.to_string()]).unwrap();
        let key = KeyPair::generate().unwrap();
        Issued { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    };
    for (refuses, refused) in both_ways(alone) {
        assert!(matches!(refuses, TlsError::Authority { .. }), "{refuses}");
        has(&refuses, &["signed by itself", "expected one signed by \"test authority\""]);
        assert!(matches!(refused, TlsError::Refused { .. }), "{refused}");
    }
}

#[test]
fn an_expired_certificate_and_an_early_one_are_refused_on_both_sides() {
    for validity in [past(), future()] {
        let issued = |cluster: &TestCluster, address: IpAddr| cluster.issue(&[&address.to_string()], validity);
        for (refuses, refused) in both_ways(issued) {
            assert!(matches!(refuses, TlsError::Time { .. }), "{refuses}");
            has(&refuses, &["is not valid now", "valid until", "clocks"]);
            has(&refused, &["CertificateExpired", "the peer's clock", "valid until"]);
        }
    }
}

#[test]
fn a_certificate_for_another_address_is_refused_on_both_sides() {
    let issued = |cluster: &TestCluster, _: IpAddr| cluster.issue(&["10.0.0.3", "node3.internal"], today());
    let [dials, answers] = both_ways(issued);
    has(&dials.0, &["the certificate of 10.0.0.1", "expected one for 10.0.0.1", "10.0.0.3, node3.internal"]);
    has(&answers.0, &["the certificate of 10.0.0.2", "expected one for 10.0.0.2", "10.0.0.3, node3.internal"]);
    for (refuses, refused) in [dials, answers] {
        assert!(matches!(refuses, TlsError::Name { .. }), "{refuses}");
        has(&refused, &["BadCertificate", "is not for the address", "10.0.0.3, node3.internal"]);
    }
}

#[test]
fn a_copied_certificate_without_its_key_is_refused() {
    let cluster = TestCluster::new();
    let (one, two) = (cluster.trust(&["10.0.0.1"]).current(), cluster.trust(&["10.0.0.2"]).current());
    let copied = |address: &str| {
        let (good, other) = (cluster.issue(&[address], today()), cluster.issue(&["10.0.0.7"], today()));
        let mut identity = Identity::unchecked(&good, &cluster.authority.own().certificate);
        let key = Identity::unchecked(&other, &cluster.authority.own().certificate).own.certified.key.clone();
        identity.own.certified = Arc::new(CertifiedKey::new(identity.own.certified.cert.clone(), key));
        TlsConfigs::new(&identity, None).unwrap()
    };
    let (_, at_answerer) = Pair::of(&copied("10.0.0.1"), &two).meet(usize::MAX);
    has(&at_answerer.unwrap(), &["the certificate of 10.0.0.1", "does not have the private key"]);
    let (at_dialler, _) = Pair::of(&one, &copied("10.0.0.2")).meet(usize::MAX);
    has(&at_dialler.unwrap(), &["the certificate of 10.0.0.2", "does not have the private key"]);
}

#[test]
fn a_target_host_stands_for_all_addresses() {
    let cluster = TestCluster::new();
    let load = |name: &str, names: &[&str]| {
        let files = cluster.files(name, &cluster.issue(names, today()));
        Trust::load(files, Some("cluster.internal")).unwrap().current()
    };
    let (one, two) = (load("one", &["cluster.internal"]), load("two", &["x", "cluster.internal"]));
    let mut pair = Pair::of(&one, &two);
    assert_eq!(pair.meet(usize::MAX), (None, None));
    assert!(pair.answerer.is_established());
    // The right address does not help then.
    let addressed = load("three", &["10.0.0.1", "10.0.0.2"]);
    let (_, at_answerer) = Pair::of(&addressed, &two).meet(usize::MAX);
    has(&at_answerer.unwrap(), &["expected one for cluster.internal", "10.0.0.1, 10.0.0.2"]);
    let (at_dialler, _) = Pair::of(&one, &addressed).meet(usize::MAX);
    has(&at_dialler.unwrap(), &["expected one for cluster.internal"]);
}

#[test]
fn a_client_without_a_certificate_or_with_old_tls_is_refused() {
    let cluster = TestCluster::new();
    let two = cluster.trust(&["10.0.0.2"]).current();
    let check = |versions: &[&'static SupportedProtocolVersion]| {
        let mut client = TlsChannel::new(anonymous(&cluster, versions), ANSWERER, Arc::new(Seen::default()), None);
        let mut server = TlsChannel::server(&two, DIALLER).unwrap();
        let mut error = None;
        while client.wants_send() && error.is_none() {
            let wire = sent(&mut client);
            error = give(&mut server, &wire, usize::MAX, &mut Vec::new());
            let wire = sent(&mut server);
            let _ = client.receive(&wire, &mut Vec::new());
        }
        assert!(!server.is_established());
        error.unwrap()
    };
    has(&check(&[&TLS13]), &["10.0.0.1 shows no certificate", "\"test authority\"", "CertificateFile"]);
    has(&check(&[&TLS12]), &["is broken", "10.0.0.1"]);
}

fn anonymous(cluster: &TestCluster, versions: &[&'static SupportedProtocolVersion]) -> Connection {
    let mut roots = RootCertStore::empty();
    let pem = &cluster.authority.own().certificate;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    ClientConnection::new(Arc::new(config), ServerName::IpAddress(ANSWERER.into())).unwrap().into()
}

#[test]
fn clients_of_the_external_side_need_no_certificate() {
    let cluster = TestCluster::new();
    let files = cluster.files("n", &cluster.issue(&["10.0.0.2"], today()));
    let trust = ExternalTrust::load(files.certificate, files.key).unwrap();
    for version in [&TLS12, &TLS13] {
        let mut client = TlsChannel::new(anonymous(&cluster, &[version]), ANSWERER, Arc::new(Seen::default()), None);
        let mut server = TlsChannel::external(&trust, DIALLER).unwrap();
        let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
        while client.wants_send() || server.wants_send() {
            let wire = sent(&mut client);
            assert_eq!(give(&mut server, &wire, 100, &mut at_server), None);
            let wire = sent(&mut server);
            assert_eq!(give(&mut client, &wire, 100, &mut at_client), None);
        }
        assert!(client.is_established() && server.is_established() && server.peer().is_none());
        let wire = sealed(&mut client, b"GET / HTTP/1.1");
        assert_eq!(give(&mut server, &wire, 100, &mut at_server), None);
        assert_eq!(at_server, b"GET / HTTP/1.1");
    }
}

#[test]
fn plain_bytes_are_refused_with_what_they_look_like() {
    let cluster = TestCluster::new();
    let two = cluster.trust(&["10.0.0.2"]).current();
    let check = |bytes: &[u8], piece: usize, words: &[&str]| {
        for mut channel in [TlsChannel::server(&two, DIALLER).unwrap(), TlsChannel::client(&two, DIALLER).unwrap()] {
            let error = give(&mut channel, bytes, piece, &mut Vec::new()).expect("it must be refused");
            has(&error, words);
            assert!(matches!(error, TlsError::NotTls { .. }), "{error}");
            assert_eq!(channel.receive(bytes, &mut Vec::new()).unwrap_err(), error, "and stays refused");
            assert_eq!(channel.ended().unwrap_err(), error);
        }
    };
    check(b"RSLINK\0\0\x03\0\x01", 100, &["10.0.0.1 does not speak TLS", "UseInternalSsl"]);
    check(b"RSNO\x04\0\0\0what", 100, &["without TLS"]);
    check(b"POST /gossip HTTP/1.1\r\n\r\n", 100, &["plain HTTP request", "https"]);
    check(b"HTTP/1.1 400 Bad Request\r\n\r\n", 100, &["plain HTTP answer"]);
    check(b"\x16\0\0\0\x01\x02", 1, &["[16, 00]"]);
    check(b"\x17\x03\x03\0\x01\x02", 1, &["[17]"]);
    check(&[0; 100], 7, &["expected a TLS record, found [00"]);
}

/// Each certificate behind the first may cost many checks of signatures, before it is known whose they are.
#[test]
fn a_chain_that_only_costs_time_is_not_looked_at() {
    let [dials, answers] = both_ways(|cluster, address| {
        let issued = cluster.issue(&[&address.to_string()], today());
        let behind = cluster.authority.own().certificate.repeat(CERTIFICATE_CHAIN_MAX + 1);
        Issued { certificate: issued.certificate + &behind, key: issued.key }
    });
    for (refuses, _) in [dials, answers] {
        has(&refuses, &["at most 4 certificates", "found 5", "CertificateAuthorityFile"]);
    }
    let cluster = TestCluster::new();
    let issued = cluster.issue(&["10.0.0.1"], today());
    for (behind, is_taken) in [(CERTIFICATE_CHAIN_MAX, true), (CERTIFICATE_CHAIN_MAX + 1, false)] {
        let certificate = issued.certificate.clone() + &cluster.authority.own().certificate.repeat(behind);
        let files = cluster.files("node", &Issued { certificate, key: issued.key.clone() });
        assert_eq!(Trust::load(files, None).is_ok(), is_taken, "{behind}");
    }
}

#[test]
fn whatever_a_stranger_sends_ends_in_an_error_and_in_bounds() {
    let cluster = TestCluster::new();
    let two = cluster.trust(&["10.0.0.2"]).current();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..300 {
        let mut channel = TlsChannel::server(&two, DIALLER).unwrap();
        let mut plain = Vec::new();
        // The beginning of a real hello, then noise in records of a handshake.
        let mut wire = match round % 3 {
            0 => sent(&mut TlsChannel::client(&two, DIALLER).unwrap()),
            1 => vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xFF, 0xFF],
            _ => vec![0x16, 3, 1],
        };
        wire.truncate(random.usize(3..=wire.len()));
        let mut count = 0;
        let error = loop {
            match channel.receive(&wire, &mut plain) {
                Err(error) => break error,
                Ok(()) => count += wire.len(),
            }
            assert!(count <= 2 * TLS_HANDSHAKE_MAX_BYTES, "it goes on for ever");
            let kind = random.choice([0x14, 0x16, 0x16, 0x17]).unwrap();
            let length = random.u16(..0x4000);
            wire = [&[kind, 3, 3], length.to_be_bytes().as_slice()].concat();
            wire.extend(std::iter::repeat_with(|| random.u8(..)).take(usize::from(length)));
        };
        assert!(plain.is_empty() && !channel.is_established(), "{error}");
        assert!(channel.seal(b"x", &mut plain).unwrap_err().to_string().contains("has failed"));
    }
}

#[test]
fn a_changed_bit_ends_the_connection_and_nothing_wrong_comes_out() {
    for bit in (0..8 * 40).step_by(3) {
        let mut pair = Pair::good();
        let good = sealed(&mut pair.dialler, b"good");
        let mut changed = sealed(&mut pair.dialler, b"eighteen bytes of it");
        changed[bit / 8] ^= 1 << (bit % 8);
        // A longer length waits for more: give it more.
        let more = sealed(&mut pair.dialler, &vec![1; 70_000]);
        let wire = [good, changed, more].concat();
        let Some(error) = give(&mut pair.answerer, &wire, usize::MAX, &mut pair.at_answerer) else {
            // TLS 1.3 demands that the second and third byte of a record are not looked at (RFC 8446, 5.1), and rustls takes the
            // kind of a sealed record, the first byte, from inside of it: bit 0 makes a handshake of it outside. What is sealed
            // is whole.
            assert!(bit == 0 || (8..24).contains(&bit), "bit {bit} must be seen");
            let whole = [b"goodeighteen bytes of it".as_slice(), &[1; 70_000]].concat();
            assert!(pair.at_answerer == whole, "bit {bit}");
            continue;
        };
        assert!(matches!(error, TlsError::Broken { .. }), "bit {bit}: {error}");
        assert_eq!(pair.at_answerer, b"good", "bit {bit}: what came before is good, nothing else comes");
        // The other side is told.
        let alert = sent(&mut pair.answerer);
        let told = give(&mut pair.dialler, &alert, usize::MAX, &mut pair.at_dialler).unwrap();
        assert!(matches!(told, TlsError::Refused { .. }), "{told}");
    }
}

#[test]
fn a_repeated_or_left_out_record_ends_the_connection() {
    let mut pair = Pair::good();
    let wire = sealed(&mut pair.dialler, b"once");
    assert_eq!(give(&mut pair.answerer, &wire, 3, &mut pair.at_answerer), None);
    assert!(give(&mut pair.answerer, &wire, 3, &mut pair.at_answerer).is_some());
    assert_eq!(pair.at_answerer, b"once");
    let mut pair = Pair::good();
    let _left_out = sealed(&mut pair.dialler, b"first");
    let wire = sealed(&mut pair.dialler, b"second");
    assert!(give(&mut pair.answerer, &wire, 3, &mut pair.at_answerer).is_some());
    assert!(pair.at_answerer.is_empty());
    // A whole recorded side of a connection, to a new one.
    let cluster = TestCluster::new();
    let (one, two) = (cluster.trust(&["10.0.0.1"]).current(), cluster.trust(&["10.0.0.2"]).current());
    let mut pair = Pair::of(&one, &two);
    let mut recorded = Vec::new();
    while pair.dialler.wants_send() || pair.answerer.wants_send() {
        let wire = sent(&mut pair.dialler);
        recorded.extend_from_slice(&wire);
        give(&mut pair.answerer, &wire, usize::MAX, &mut pair.at_answerer);
        let wire = sent(&mut pair.answerer);
        give(&mut pair.dialler, &wire, usize::MAX, &mut pair.at_dialler);
    }
    assert!(pair.answerer.is_established());
    let mut again = TlsChannel::server(&two, DIALLER).unwrap();
    let error = give(&mut again, &recorded, usize::MAX, &mut Vec::new()).expect("a replay is refused");
    assert!(!again.is_established(), "{error}");
}

#[test]
fn an_end_without_a_goodbye_is_seen() {
    let cluster = TestCluster::new();
    let two = cluster.trust(&["10.0.0.2"]).current();
    let error = TlsChannel::server(&two, DIALLER).unwrap().ended().unwrap_err();
    assert_eq!(error, TlsError::Truncated { peer: DIALLER, established: false });
    let mut pair = Pair::good();
    let wire = sealed(&mut pair.dialler, b"some bytes");
    assert_eq!(give(&mut pair.answerer, &wire[..wire.len() - 1], 4, &mut pair.at_answerer), None);
    assert!(pair.at_answerer.is_empty(), "nothing of an unfinished record comes out");
    let error = pair.answerer.ended().unwrap_err();
    assert_eq!(error, TlsError::Truncated { peer: DIALLER, established: true });
    has(&error, &["without close_notify", "may be missing"]);
}

#[test]
fn a_goodbye_is_the_end_of_one_direction() {
    let mut pair = Pair::good();
    let mut wire = sealed(&mut pair.dialler, b"last words");
    pair.dialler.close(&mut wire);
    let length = wire.len();
    pair.dialler.close(&mut wire);
    assert_eq!(wire.len(), length, "it is said once");
    let error = pair.dialler.seal(b"more", &mut wire).unwrap_err();
    has(&error, &["has said goodbye"]);
    wire.extend_from_slice(b"bytes behind the end");
    assert_eq!(give(&mut pair.answerer, &wire, usize::MAX, &mut pair.at_answerer), None);
    assert!(pair.answerer.is_closed_by_peer());
    assert_eq!(pair.at_answerer, b"last words");
    pair.answerer.ended().unwrap();
    // The other direction is still open.
    let wire = sealed(&mut pair.answerer, b"an answer");
    assert_eq!(give(&mut pair.dialler, &wire, 2, &mut pair.at_dialler), None);
    assert_eq!(pair.at_dialler, b"an answer");
}

#[test]
fn nothing_is_sealed_before_the_handshake() {
    let cluster = TestCluster::new();
    let mut channel = TlsChannel::client(&cluster.trust(&["10.0.0.2"]).current(), ANSWERER).unwrap();
    let mut wire = Vec::new();
    has(&channel.seal(b"early", &mut wire).unwrap_err(), &["the handshake is not complete"]);
    assert!(wire.is_empty());
}

#[test]
fn links_stand_while_certificates_are_replaced() {
    let cluster = TestCluster::new();
    let files = cluster.files("two", &cluster.issue(&["10.0.0.2"], today()));
    let (one, two) = (cluster.trust(&["10.0.0.1"]), Arc::new(Trust::load(files, None).unwrap()));
    let mut pair = Pair::of(&one.current(), &two.current());
    pair.meet(usize::MAX);
    // The node gets another address; its old links go on, new ones to the old address are refused.
    cluster.files("two", &cluster.issue(&["10.0.0.9"], today()));
    two.reload().unwrap();
    let wire = sealed(&mut pair.dialler, b"still here");
    assert_eq!(give(&mut pair.answerer, &wire, 9, &mut pair.at_answerer), None);
    assert_eq!(pair.at_answerer, b"still here");
    let (at_dialler, _) = Pair::of(&one.current(), &two.current()).meet(usize::MAX);
    has(&at_dialler.unwrap(), &["expected one for 10.0.0.2", "10.0.0.9"]);
}

#[test]
fn a_plane_with_certificates_makes_both_ends() {
    let cluster = TestCluster::new();
    let plane = Plane::new(None, Some(cluster.trust(&["127.0.0.1", "10.0.0.1"])));
    let address = "::ffff:10.0.0.1".parse().unwrap();
    let dialler = plane.dialled(address).unwrap().unwrap();
    let answerer = plane.accepted(address).unwrap().unwrap();
    let mut pair = Pair { dialler, answerer, at_dialler: Vec::new(), at_answerer: Vec::new() };
    assert_eq!(pair.meet(11), (None, None));
    assert!(pair.dialler.is_established() && pair.answerer.is_established());
}
