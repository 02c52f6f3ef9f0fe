//! Findings about certificates and the cluster's secret: can the files be used, for whom are they, until when.

use std::net::IpAddr;
use std::time::SystemTime;

use super::finding::Group;
use crate::config::Config;
use crate::limits::CERTIFICATE_WARNING;
use crate::operator::error::chain;
use crate::security::{Expiry, ExternalTrust, Plane, SecurityError};
use crate::types::WallTime;

const SECONDS_OF_A_DAY: u64 = 86_400;

pub(super) fn findings(config: &Config) -> Group {
    let mut group = Group::new("keys");
    let now = WallTime::from_system(SystemTime::now());
    match Plane::load(&config.security.internal) {
        Ok(plane) => internal(&mut group, config, &plane, now),
        Err(error) => refused(&mut group, "internal", &error),
    }
    let Some((certificate, key)) = config.security.external.clone() else {
        group.fine("clients are served without TLS: neither ExtSecureTcpPort nor ExtSecureHttpPort is set");
        return group;
    };
    match ExternalTrust::load(certificate, key) {
        Ok(trust) => {
            warnings(&mut group, &trust.warnings());
            validity(&mut group, "clients are shown", &trust.expiry(), now);
        }
        Err(error) => refused(&mut group, "external", &error),
    }
    group
}

fn refused(group: &mut Group, plane: &str, error: &SecurityError) {
    group.problem(
        format!("the files of the {plane} plane cannot be used: {}", chain(error)),
        "correct it: the node does not start with them",
    );
}

fn warnings(group: &mut Group, words: &[String]) {
    words.iter().for_each(|words| group.advice(words.clone(), "the node says the same when it starts"));
}

fn internal(group: &mut Group, config: &Config, plane: &Plane, now: WallTime) {
    let words = format!("the internal plane is {}", plane.words());
    if plane.may_listen_on(config.int_ip) {
        group.fine(words);
    } else {
        group.advice(
            words,
            "close it with UseInternalSsl or ClusterSecretFile: whoever reaches it can read and change everything",
        );
    }
    warnings(group, &plane.warnings());
    let Some(trust) = plane.trust() else { return };
    let expiry = trust.expiry();
    validity(group, "the other nodes are shown", &expiry, now);
    let address = config.advertised().int_http.ip().to_canonical();
    let option = if config.advertise_as.int_ip.is_some() { "IntIpAdvertiseAs" } else { "IntIp" };
    named(group, config.security.internal.target_host.as_deref(), (address, option), &expiry);
}

fn validity(group: &mut Group, whom: &str, expiry: &Expiry, now: WallTime) {
    let (file, names, days) = (expiry.file.display(), &expiry.names, expiry.days_left(now));
    let words = format!("{whom} {file} ({names}); it and what it needs is valid for {days} more days");
    if days < i64::try_from(CERTIFICATE_WARNING.as_secs() / SECONDS_OF_A_DAY).unwrap_or(i64::MAX) {
        group.advice(words, "renew it and send SIGHUP: links stand meanwhile");
    } else {
        group.fine(words);
    }
}

/// The others look for SslTargetHost in it, or else for the address that they know this node by.
fn named(group: &mut Group, target_host: Option<&str>, (address, told_by): (IpAddr, &str), expiry: &Expiry) {
    let (expected, option) = match target_host {
        Some(name) => (name.to_owned(), "SslTargetHost"),
        None if address.is_unspecified() => return,
        None => (address.to_string(), told_by),
    };
    let file = expiry.file.display();
    if expiry.names.names.iter().any(|name| is_for(name, &expected)) {
        group.fine(format!("{file} is for {expected} ({option})"));
    } else {
        group.problem(
            format!("{file} is not for {expected} ({option}), which the other nodes look for: {}", expiry.names),
            format!("make one with {expected} among its subject alternative names, or correct {option}"),
        );
    }
}

/// A name of a certificate may stand for all that have one more word in front.
fn is_for(name: &str, expected: &str) -> bool {
    let below = |rest: &str| expected.split_once('.').is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(rest));
    name.eq_ignore_ascii_case(expected) || name.strip_prefix("*.").is_some_and(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::doctor::finding::Grade;
    use crate::security::Validity;
    use crate::security::testing::{TestCluster, past, set_mode, today};

    /// The findings that are not fine, and whether one has these words.
    fn check(config: &Config, expected: &[Grade], words: &str) {
        let group = findings(config);
        let shown: Vec<(Grade, String)> =
            group.findings.iter().map(|finding| (finding.grade, finding.line())).collect();
        let grades: Vec<Grade> = shown.iter().map(|(grade, _)| *grade).filter(|grade| *grade != Grade::Fine).collect();
        assert_eq!(grades, expected, "{shown:#?}");
        assert!(shown.iter().any(|(_, line)| line.contains(words)), "{words}: {shown:#?}");
    }

    #[test]
    fn certificates_are_looked_at_as_the_node_does() {
        let cluster = TestCluster::new();
        let mut config = Config { int_ip: "10.1.0.1".parse().unwrap(), ..Config::default() };
        check(&config, &[Grade::Advice], "the internal plane is open");
        config.int_ip = "127.0.0.1".parse().unwrap();
        check(&config, &[], "the internal plane is open");
        config.int_ip = "10.1.0.1".parse().unwrap();
        let files = cluster.files("node", &cluster.issue(&["10.1.0.1", "node1.cluster"], today()));
        config.security.internal.identity = Some(files.clone());
        check(&config, &[], "is for 10.1.0.1 (IntIp)");
        check(&config, &[], "more days");
        config.security.internal.target_host = Some("node1.cluster".to_owned());
        check(&config, &[], "is for node1.cluster (SslTargetHost)");
        config.security.internal.target_host = Some("node1.other".to_owned());
        check(&config, &[Grade::Problem], "is not for node1.other");
        config.security.internal.target_host = None;
        config.int_ip = "10.1.0.9".parse().unwrap();
        check(&config, &[Grade::Problem], "is not for 10.1.0.9 (IntIp), which the other nodes look for");
        config.advertise_as.int_ip = Some("10.1.0.2".parse().unwrap());
        check(&config, &[Grade::Problem], "is not for 10.1.0.2 (IntIpAdvertiseAs)");
        check(&config, &[Grade::Problem], "or correct IntIpAdvertiseAs");
        config.advertise_as.int_ip = None;
        config.int_ip = "10.1.0.1".parse().unwrap();
        let soon = Validity::days(SystemTime::now(), 9);
        cluster.files("node", &cluster.issue(&["10.1.0.1"], soon));
        check(&config, &[Grade::Advice], "renew it and send SIGHUP");
        cluster.files("node", &cluster.issue(&["10.1.0.1"], past()));
        check(&config, &[Grade::Problem], "the files of the internal plane cannot be used");
        std::fs::remove_file(files.key).unwrap();
        check(&config, &[Grade::Problem], "the files of the internal plane cannot be used");
    }

    #[test]
    fn a_star_stands_for_one_word() {
        let check = |name: &str, expected: bool| assert_eq!(is_for(name, "node1.cluster.example"), expected, "{name}");
        check("Node1.cluster.example", true);
        check("*.cluster.example", true);
        check("*.example", false);
        check("cluster.example", false);
    }

    #[test]
    fn the_secret_and_the_clients_certificate_are_too() {
        let cluster = TestCluster::new();
        let mut config = Config::default();
        let secret = cluster.write("secret", &"s".repeat(32));
        config.security.internal.secret = Some(secret.clone());
        check(&config, &[], "closed by the cluster's secret");
        set_mode(&secret, 0o644);
        check(&config, &[Grade::Advice], "ClusterSecretFile");
        let files = cluster.files("node", &cluster.issue(&["example.org"], today()));
        set_mode(&secret, 0o600);
        config.security.external = Some((files.certificate.clone(), files.key.clone()));
        check(&config, &[], "clients are shown");
        cluster.write("node.key", &cluster.issue(&["example.org"], today()).key);
        check(&config, &[Grade::Problem], "the files of the external plane cannot be used");
        cluster.write("secret", "short");
        check(&config, &[Grade::Problem; 2], "the files of the internal plane cannot be used");
    }
}
