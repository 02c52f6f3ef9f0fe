//! Every file that cannot be used is refused with its name, what is wrong and what to do.

use std::fs;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

use super::super::authority::{Authority, Issued, Validity};
use super::super::testing::{DAY, TestCluster, future, past, set_mode, today};
use super::super::trust::Trust;
use super::*;

/// The error has all these words.
fn refused(files: &IdentityFiles, words: &[&str]) {
    let error = Identity::load(files).expect_err("it must be refused").to_string();
    for word in words {
        assert!(error.contains(word), "\"{word}\" is not in: {error}");
    }
}

/// Signed by itself, as these parameters say.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut params = CertificateParams::new(vec!["10.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "alone");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Issued { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

#[test]
fn a_good_identity_says_whose_it_is_and_how_long() {
    let cluster = TestCluster::new();
    let files = cluster.files("n", &cluster.issue(&["10.0.0.1", "node1.internal", "fd00::1"], today()));
    let identity = Identity::load(&files).unwrap();
    assert_eq!(identity.names().names, ["10.0.0.1", "node1.internal", "fd00::1"]);
    assert_eq!((identity.names().subject.as_str(), identity.names().issuer.as_str()), ("node", "test authority"));
    assert!(identity.warnings().is_empty(), "{:?}", identity.warnings());
    let now = WallTime::from_system(SystemTime::now());
    let days = identity.not_after().distance(now).as_secs() / 86_400;
    assert!(identity.not_after() > now && (363..=365).contains(&days), "{days}");
    set_mode(&files.key, 0o604);
    let warned = Identity::load(&files).unwrap().warnings().join("");
    assert!(warned.contains("n.key") && warned.contains("604"), "{warned}");
}

#[test]
fn files_that_are_something_else_are_refused() {
    let cluster = TestCluster::new();
    let good = cluster.files("n", &cluster.issue(&["10.0.0.1"], today()));
    let missing = IdentityFiles { certificate: cluster.path("nothing.pem"), ..good.clone() };
    refused(&missing, &["CertificateFile", "nothing.pem", "cannot be read", "No such file"]);
    let swapped = IdentityFiles { certificate: good.key.clone(), ..good.clone() };
    refused(&swapped, &["no section CERTIFICATE", "it has: PRIVATE KEY", "PEM"]);
    let swapped = IdentityFiles { key: good.certificate.clone(), ..good.clone() };
    refused(&swapped, &["CertificatePrivateKeyFile", "no section PRIVATE KEY", "it has: CERTIFICATE"]);
    let binary = cluster.write("n.p12", "\u{30}\u{1}\u{2}");
    refused(
        &IdentityFiles { authorities: binary, ..good.clone() },
        &["CertificateAuthorityFile", "it has: none", "pkcs12"],
    );
    let encrypted =
        cluster.write("e.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    refused(&IdentityFiles { key: encrypted, ..good.clone() }, &["not an encrypted one", "ENCRYPTED PRIVATE KEY"]);
    let damaged = cluster.write("d.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    refused(&IdentityFiles { certificate: damaged, ..good.clone() }, &["d.pem", "cannot be understood"]);
    let cut = fs::read_to_string(&good.certificate).unwrap();
    let cut = cluster.write("cut.pem", &cut[..cut.len() / 2]);
    refused(&IdentityFiles { certificate: cut, ..good }, &["cut.pem"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let cluster = TestCluster::new();
    let one = cluster.files("one", &cluster.issue(&["10.0.0.1"], today()));
    let other = cluster.files("other", &cluster.issue(&["10.0.0.2"], today()));
    refused(&IdentityFiles { key: other.key, ..one }, &["other.key", "does not fit", "one.pem", "10.0.0.1"]);
}

#[test]
fn times_are_looked_at() {
    let cluster = TestCluster::new();
    let over = cluster.files("over", &cluster.issue(&["10.0.0.1"], past()));
    refused(&over, &["over.pem", "10.0.0.1", "expired at", "renew it"]);
    let early = cluster.files("early", &cluster.issue(&["10.0.0.1"], future()));
    refused(&early, &["early.pem", "is valid from", "clock"]);
}

#[test]
fn what_other_nodes_would_refuse_is_refused_at_the_start() {
    let cluster = TestCluster::new();
    let alone = cluster.files("alone", &self_signed(|_| ()));
    refused(&alone, &["alone.pem", "signed by itself", "\"test authority\"", "is not signed by an authority"]);
    let server_only = self_signed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    refused(&cluster.files("server", &server_only), &["server.pem", "is not for clients", "extended key usage"]);
    let client_only = self_signed(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    refused(&cluster.files("client", &client_only), &["client.pem", "is not for servers"]);
    let nameless = self_signed(|params| params.subject_alt_names.clear());
    refused(&cluster.files("nameless", &nameless), &["no subject alternative names"]);
    let stranger = Authority::new("test authority", today()).unwrap();
    let forged = stranger.issue("node", &["10.0.0.1".to_owned()], today()).unwrap();
    refused(&cluster.files("forged", &forged), &["is not signed by an authority", "ca.pem"]);
}

#[test]
fn authorities_must_be_authorities_in_their_time() {
    let cluster = TestCluster::new();
    let issued = cluster.issue(&["10.0.0.1"], today());
    let good = cluster.files("n", &issued);
    let no_authority = IdentityFiles { authorities: good.certificate.clone(), ..good.clone() };
    refused(&no_authority, &["CA", "is no authority", "n.pem"]);
    let old = Authority::new("old authority", past()).unwrap().own().certificate.clone();
    let authorities = cluster.write("old.pem", &old);
    refused(&IdentityFiles { authorities, ..good.clone() }, &["old.pem", "expired at"]);
    // While an authority is replaced both are in the file.
    let authorities = cluster.write("both.pem", &format!("{old}\n{}", cluster.authority.own().certificate));
    let both = Identity::load(&IdentityFiles { authorities, ..good }).unwrap();
    assert_eq!(both.authorities, "\"test authority\"");
    let warned = both.warnings().join("");
    assert!(warned.contains("not trusted") && warned.contains("old authority"), "{warned}");
}

#[test]
fn a_reload_changes_everything_or_nothing() {
    let cluster = TestCluster::new();
    let files = cluster.files("n", &cluster.issue(&["10.0.0.1"], today()));
    let trust = Trust::load(files.clone(), None).unwrap();
    let (before, first) = (trust.current(), trust.expiry());
    fs::write(&files.certificate, "nothing").unwrap();
    trust.reload().unwrap_err();
    assert!(Arc::ptr_eq(&before, &trust.current()), "a bad file leaves the old one in use");
    assert_eq!(trust.expiry(), first);
    // The key of the new pair is not there yet: as bad.
    let soon = Validity::days(SystemTime::now(), 10);
    let renewed = cluster.issue(&["10.0.0.1"], soon);
    fs::write(&files.certificate, &renewed.certificate).unwrap();
    assert!(trust.reload().unwrap_err().to_string().contains("does not fit"));
    fs::write(&files.key, &renewed.key).unwrap();
    let expiry = trust.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &trust.current()) && expiry != first);
    let now = WallTime::from_system(SystemTime::now());
    assert!((9..=10).contains(&expiry.days_left(now)), "{}", expiry.days_left(now));
    let warning = expiry.warning(now).unwrap();
    assert!(warning.contains("n.pem") && warning.contains("SIGHUP") && warning.contains("days"), "{warning}");
    assert_eq!(first.warning(now), None);
    let later = WallTime::from_system(SystemTime::now() + 20 * DAY);
    assert_eq!(expiry.days_left(later), -11);
    assert!(expiry.warning(later).unwrap().contains("expired at"));
}

#[test]
fn a_target_host_must_be_a_name() {
    let cluster = TestCluster::new();
    let files = cluster.files("n", &cluster.issue(&["10.0.0.1"], today()));
    let error = Trust::load(files.clone(), Some("no name!")).unwrap_err().to_string();
    assert!(error.contains("SslTargetHost \"no name!\""), "{error}");
    Trust::load(files, Some("cluster.internal")).unwrap();
}
