//! What the command makes is what nodes take.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::*;
use crate::security::{Identity, IdentityFiles, TlsChannel, Trust};
use crate::storage::memory::TempDirectory;

fn command(out: &Path, nodes: &[&str], add: bool) -> CertificatesCommand {
    let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
    CertificatesCommand { out: out.to_owned(), nodes, days: 10, authority_days: None, add }
}

fn identity(out: &Path, name: &str) -> IdentityFiles {
    let file = |name: &str, ending: &str| out.join(format!("{name}.{ending}"));
    IdentityFiles { certificate: file(name, "pem"), key: file(name, "key"), authorities: file("ca", "pem") }
}

/// Two nodes greet each other over channels made of these files.
fn greet(dialler: IdentityFiles, dials_from: &str, answerer: IdentityFiles, answers_at: &str) {
    let (one, two) = (Trust::load(dialler, None).unwrap(), Trust::load(answerer, None).unwrap());
    let mut one = TlsChannel::client(&one.current(), answers_at.parse().unwrap()).unwrap();
    let mut two = TlsChannel::server(&two.current(), dials_from.parse().unwrap()).unwrap();
    let (mut wire, mut plain) = (Vec::new(), Vec::new());
    while one.wants_send() || two.wants_send() {
        one.take_handshake(&mut wire);
        two.receive(&wire, &mut plain).unwrap();
        wire.clear();
        two.take_handshake(&mut wire);
        one.receive(&wire, &mut plain).unwrap();
        wire.clear();
    }
    one.seal(b"greetings", &mut wire).unwrap();
    two.receive(&wire, &mut plain).unwrap();
    assert_eq!(plain, b"greetings");
}

#[test]
fn nodes_take_what_is_made() {
    let directory = TempDirectory::new();
    let out = directory.path().join("certificates");
    let nodes = ["node1=10.0.0.1,node1.internal", "node2=10.0.0.2,fd00::2", "node3=10.0.0.3"];
    let words = make(&command(&out, &nodes, false)).unwrap().join("\n");
    for expected in
        ["made 8 files", "UseInternalSsl: true", "node2.key", "CertificateAuthorityFile: /", "# options of node3"]
    {
        assert!(words.contains(expected), "{expected} is not in {words}");
    }
    let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("node1.key"), mode("ca.key"), mode("node1.pem")), (0o600, 0o600, 0o644));
    let loaded = Identity::load(&identity(&out, "node1")).unwrap();
    assert_eq!(loaded.names().names, ["10.0.0.1", "node1.internal"]);
    assert!(loaded.warnings().is_empty());
    greet(identity(&out, "node1"), "10.0.0.1", identity(&out, "node2"), "10.0.0.2");
    greet(identity(&out, "node2"), "fd00::2", identity(&out, "node3"), "10.0.0.3");
}

#[test]
fn a_later_node_is_signed_by_the_same_authority() {
    let directory = TempDirectory::new();
    make(&command(directory.path(), &["node1=10.0.0.1"], false)).unwrap();
    let authority = fs::read(directory.path().join("ca.pem")).unwrap();
    let words = make(&command(directory.path(), &["node2=10.0.0.2"], true)).unwrap().join("\n");
    assert!(words.contains("made 2 files"), "{words}");
    assert_eq!(fs::read(directory.path().join("ca.pem")).unwrap(), authority);
    greet(identity(directory.path(), "node1"), "10.0.0.1", identity(directory.path(), "node2"), "10.0.0.2");
    let empty = TempDirectory::new();
    let error = make(&command(empty.path(), &["node2=10.0.0.2"], true)).unwrap_err().to_string();
    assert!(error.contains("ca.pem cannot be read"), "{error}");
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_of_a_failure() {
    let directory = TempDirectory::new();
    let taken = directory.path().join("node2.key");
    fs::write(&taken, "precious").unwrap();
    let error = make(&command(directory.path(), &["node1=10.0.0.1", "node2=10.0.0.2"], false)).unwrap_err().to_string();
    assert!(error.contains("node2.key exists") && error.contains("nothing was made"), "{error}");
    assert_eq!(fs::read(&taken).unwrap(), b"precious");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "only what was there");
}

#[test]
fn nonsense_is_refused_in_words() {
    let check = |nodes: &[&str], expected: &str| {
        let directory = TempDirectory::new();
        let error = make(&command(directory.path(), nodes, false)).unwrap_err().to_string();
        assert!(error.contains(expected), "\"{expected}\" is not in: {error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    };
    check(&["node1"], "has no \"=\"");
    check(&["=10.0.0.1"], "is not the name of a file");
    check(&["../x=10.0.0.1"], "is not the name of a file");
    check(&["ca=10.0.0.1"], "is taken");
    check(&["a=10.0.0.1", "a=10.0.0.2"], "is taken");
    check(&["a=10.0.0.1,"], "empty address");
    check(&["a=10.0.0.1,no name"], "\"no name\" is neither an address nor a host name");
}

#[test]
fn a_node_without_an_address_is_told_what_it_needs() {
    let directory = TempDirectory::new();
    let words = make(&command(directory.path(), &["a=cluster.internal"], false)).unwrap().join("\n");
    assert!(words.contains("SslTargetHost"), "{words}");
}

fn authority_end(out: &Path) -> WallTime {
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    Authority::load(&Issued { certificate: read("ca.pem"), key: read("ca.key") }).unwrap().not_after().unwrap()
}

#[test]
fn the_authority_lives_longer_and_signs_nothing_that_outlives_it() {
    let directory = TempDirectory::new();
    make(&command(directory.path(), &["node1=10.0.0.1"], false)).unwrap();
    let days = authority_end(directory.path()).distance(WallTime::from_system(SystemTime::now())).as_secs() / 86_400;
    assert!((99..=100).contains(&days), "{days}, and certificates have 10");
    let longer = CertificatesCommand { days: 101, ..command(directory.path(), &["node2=10.0.0.2"], true) };
    let error = make(&longer).unwrap_err().to_string();
    assert!(error.contains("the authority is valid until") && error.contains("--days 99 or fewer"), "{error}");
    assert!(!directory.path().join("node2.pem").exists());
    make(&CertificatesCommand { days: 99, ..longer }).unwrap();
    let other = TempDirectory::new();
    let shorter = CertificatesCommand { authority_days: Some(9), ..command(other.path(), &["node1=10.0.0.1"], false) };
    let error = make(&shorter).unwrap_err().to_string();
    assert!(error.contains("--days") && fs::read_dir(other.path()).unwrap().count() == 0, "{error}");
}

#[test]
fn an_authority_that_has_ended_signs_nothing() {
    let directory = TempDirectory::new();
    let now = SystemTime::now();
    let past = Validity { from: now - Duration::from_secs(7200), until: now - Duration::from_secs(3600) };
    let authority = Authority::new("gone", past).unwrap();
    fs::write(directory.path().join("ca.pem"), &authority.own().certificate).unwrap();
    fs::write(directory.path().join("ca.key"), &authority.own().key).unwrap();
    let error = make(&command(directory.path(), &["node2=10.0.0.2"], true)).unwrap_err().to_string();
    assert!(error.contains("make a new authority"), "{error}");
}
