//! The internal plane closed by a secret and by certificates, as an operator has it: real nodes, the commands, SIGHUP.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::operator::{fails, ringstore, succeeds, text};
use crate::single::{connect, write};
use crate::support::client::{ANY, event};
use crate::support::cluster::{Cluster, Node, scratch, small_chunks};
use crate::support::{http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn secret(path: &Path, byte: &str) -> PathBuf {
    fs::write(path, byte.repeat(40)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

/// A node on its own with these options, and what it has printed.
fn node(folder: &Path, options: &[&str]) -> Node {
    let chunks = small_chunks(4 << 20);
    let options: Vec<&str> = chunks.iter().map(String::as_str).chain(options.iter().copied()).collect();
    let mut node = Node::single(folder, &options);
    node.start_and_wait().unwrap();
    node
}

fn output(node: &Node) -> String {
    fs::read_to_string(node.folder.join("output")).unwrap()
}

fn wait_for_line(node: &Node, expected: &str) {
    wait_until(expected, LIMIT, || output(node).contains(expected))
        .unwrap_or_else(|error| panic!("{error}: {}", node.tail()));
}

/// What `/stats` says of the planes, on the side of the clients.
fn planes(node: &Node) -> Value {
    http::get(node.ext_http(), "/stats", LIMIT).unwrap().json().unwrap()["planes"].clone()
}

/// Options of a node, and of a command, with the certificate of this name.
fn certificate(folder: &Path, name: &str) -> [String; 6] {
    let file = |name: &str| folder.join(name).display().to_string();
    [
        "--certificate-file".to_owned(),
        file(&format!("{name}.pem")),
        "--certificate-private-key-file".to_owned(),
        file(&format!("{name}.key")),
        "--certificate-authority-file".to_owned(),
        file("ca.pem"),
    ]
}

fn with<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(rest.iter().map(String::as_str)).collect()
}

#[test]
fn a_node_with_a_secret_answers_those_that_have_it() {
    let folder = scratch("closed-secret");
    let (good, other) = (secret(&folder.join("secret"), "a"), secret(&folder.join("other"), "b"));
    let node = node(&folder.join("node"), &["--cluster-secret-file", text(&good)]);
    write(&mut connect(&node), "kept", ANY, vec![event([1; 16], vec![1])]).unwrap();
    let asked = node.int_http().to_string();
    assert_eq!(planes(&node)["internal"], "closed by the cluster's secret (not encrypted)");

    let words = succeeds(&["admin", "--node", &asked, "--cluster-secret-file", text(&good), "status"]);
    assert!(words.contains("1 member, 0 may fail"), "{words}");
    succeeds(&["admin", "status", "--node", &asked, "--cluster-secret-file", text(&good), "--json"]);
    let backup = folder.join("backup");
    succeeds(&["backup", text(&backup), "--from", &asked, "--cluster-secret-file", text(&good)]);
    assert!(succeeds(&["verify", text(&backup)]).contains("no damage"));
    // The file of the node's options does as well, and says which node.
    let config = folder.join("eventstore.conf");
    let (ip, port) = (node.int_http().ip(), node.int_http().port());
    let options = format!("IntIp: {ip}\nIntHttpPort: {port}\nClusterSecretFile: {}\n", text(&good));
    fs::write(&config, options).unwrap();
    succeeds(&["admin", "--config", text(&config), "status"]);
    let figures: serde_json::Value =
        serde_json::from_str(&succeeds(&["admin", "--config", text(&config), "stats"])).expect("JSON");
    assert_eq!(figures["planes"]["internal"], "closed by the cluster's secret (not encrypted)");
    succeeds(&["backup", text(&backup), "--config", text(&config)]);

    fails(&["admin", "--node", &asked, "status"], "--cluster-secret-file");
    fails(&["admin", "--node", &asked, "--cluster-secret-file", text(&other), "status"], "the challenge is not proven");
    fails(&["backup", text(&folder.join("none")), "--from", &asked], "Ring-Proof");
    for path in ["/stats", "/gossip", "/admin/status", "/log/info"] {
        assert_eq!(http::get(node.int_http(), path, LIMIT).unwrap().status, 401, "{path}");
    }
    for path in ["/gossip", "/elections/vote", "/elections/pre-vote", "/admin/resign"] {
        let answer = http::request(node.int_http(), "POST", path, "{}", LIMIT).unwrap();
        assert!(answer.status == 401 && answer.body.contains("ClusterSecretFile"), "{path}: {}", answer.body);
    }
    assert_eq!(http::get(node.int_http(), "/ping", LIMIT).unwrap().status, 200);
    let said = output(&node);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("refused on the internal HTTP port")).collect();
    assert!(
        lines.len() == 1 && lines[0].contains("127.0.0.1:") && lines[0].contains("expected"),
        "one a minute: {lines:?}"
    );
    assert!(planes(&node)["refused"].as_u64().unwrap() >= 10);
    drop(node);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn certificates_are_read_again_on_sighup() {
    let folder = scratch("closed-tls");
    let made = folder.join("certificates");
    let nodes = ["--node", "node=127.0.0.101", "--node", "operator=127.0.0.1", "--node", "stranger=10.9.9.9"];
    let (_, words) = ringstore(&[&["certificates", "--out", text(&made), "--days", "20"], &nodes[..]].concat());
    assert!(words.contains("made"), "{words}");
    let own = certificate(&made, "node");
    let mut node = node(&folder.join("node"), &with(&["--use-internal-ssl"], &own));
    let asked = node.int_http().to_string();
    let status = ["admin", "--node", &asked, "status"];
    assert_eq!(planes(&node)["internal"], "closed by mutual TLS");
    assert!(matches!(planes(&node)["certificates"]["internal"]["daysLeft"].as_u64(), Some(19 | 20)));
    wait_for_line(&node, "expires in");

    let operator = certificate(&made, "operator");
    assert!(succeeds(&with(&status, &operator)).contains("1 member, 0 may fail"));
    fails(&status, "here it is https, with a certificate");
    fails(&with(&status, &certificate(&made, "stranger")), "not for the address that it connects from");
    fails(&with(&status, &own), "not for the address that it connects from");
    // The node's own options make the command connect from the node's address.
    let config = folder.join("eventstore.conf");
    let (ip, port) = (node.int_http().ip(), node.int_http().port());
    let options = format!(
        "IntIp: {ip}\nIntHttpPort: {port}\nUseInternalSsl: true\nCertificateFile: {}\nCertificatePrivateKeyFile: {}\n\
         CertificateAuthorityFile: {}\n",
        own[1], own[3], own[5]
    );
    fs::write(&config, options).unwrap();
    succeeds(&["admin", "--config", text(&config), "status"]);
    fails(&["admin", "--config", text(&config), "--node", "127.0.0.101:1", "status"], "no connection to 127.0.0.101:1");

    succeeds(&[
        "certificates",
        "--out",
        text(&made),
        "--add",
        "--days",
        "19",
        "--node",
        "next=127.0.0.101,renewed.example",
    ]);
    fs::copy(made.join("next.pem"), made.join("node.pem")).unwrap();
    fs::copy(made.join("next.key"), made.join("node.key")).unwrap();
    node.signal(Signal::HUP);
    wait_for_line(&node, "was read again");
    assert_eq!(planes(&node)["certificates"]["internal"]["names"][1], "renewed.example");
    succeeds(&with(&status, &operator));

    fs::write(made.join("node.pem"), "nonsense").unwrap();
    node.signal(Signal::HUP);
    wait_for_line(&node, "the old one stays in use");
    assert_eq!(planes(&node)["certificates"]["internal"]["names"][1], "renewed.example");
    succeeds(&with(&status, &operator));
    assert!(node.is_running());
    assert!(node.stop().unwrap().success());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn sighup_is_no_end_where_there_is_nothing_to_read() {
    let folder = scratch("closed-sighup");
    let mut node = node(&folder.join("node"), &[]);
    node.signal(Signal::HUP);
    node.signal(Signal::HUP);
    wait_for_line(&node, "no certificates to read again");
    assert!(node.is_running() && node.figures().unwrap().leads());
    assert!(node.stop().unwrap().success(), "one SIGTERM is the first word about stopping");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn three_nodes_with_certificates_and_a_secret_are_a_cluster() {
    let folder = scratch("closed-cluster");
    let made = folder.join("certificates");
    let all = "cluster=127.0.0.1,127.0.0.101,127.0.0.102,127.0.0.103";
    succeeds(&["certificates", "--out", text(&made), "--node", all]);
    let secret = secret(&folder.join("secret"), "a");
    let mut options: Vec<String> = small_chunks(4 << 20).into();
    let files = certificate(&made, "cluster");
    let keys = with(&["--use-internal-ssl", "--cluster-secret-file", text(&secret)], &files);
    options.extend(keys.into_iter().map(str::to_owned));
    let cluster = Cluster::start(&folder, &options).unwrap();
    let leader = cluster.leader().unwrap();
    let follower = (leader + 1) % 3;
    write_at_each(&cluster, 1);
    cluster.wait_until_even().unwrap();
    let asked = cluster.nodes[follower].int_http().to_string();
    let admin = with(&["admin", "--node", &asked, "--cluster-secret-file", text(&secret)], &files);
    let words = succeeds(&[&admin[..], &["status"]].concat());
    assert!(words.contains("3 members, 1 may fail\n"), "{words}");
    succeeds(&[&admin[..], &["resign", "--yes"]].concat());
    cluster.wait_until_whole().unwrap();
    // Who forwarded to the old leader now does to the new one.
    write_at_each(&cluster, 2);
    fails(&with(&["admin", "--node", &asked, "status"], &files), "Ring-Proof");
    fails(&["admin", "--node", &asked, "--cluster-secret-file", text(&secret), "status"], "here it is https");
    // The doctor asks the others as the node would.
    let place = cluster.nodes[follower].place();
    let seeds = cluster.nodes[leader].int_http().to_string();
    let doctor = with(&["doctor", "--cluster-size", "3", "--gossip-seed", &seeds], &place);
    let (_, words) = ringstore(&[&doctor[..], &with(&[], &options)].concat());
    assert!(words.contains(&format!("{seeds} agrees on ClusterSize")), "{words}");
    let (status, words) = ringstore(&[&doctor[..], &with(&["--use-internal-ssl"], &files)].concat());
    assert!(status == 1 && words.contains("does not answer /admin/status") && words.contains("Ring-Proof"), "{words}");
    // New certificates while it runs: links stand, and new ones are made with them.
    succeeds(&["certificates", "--out", text(&made), "--add", "--node", &all.replace("cluster=", "next=")]);
    fs::copy(made.join("next.pem"), made.join("cluster.pem")).unwrap();
    fs::copy(made.join("next.key"), made.join("cluster.key")).unwrap();
    let term = cluster.nodes[leader].figures().unwrap().term;
    for node in &cluster.nodes {
        node.signal(Signal::HUP);
        wait_for_line(node, "was read again");
    }
    write_at_each(&cluster, 3);
    assert_eq!(cluster.nodes[leader].figures().unwrap().term, term, "nobody was deposed");
    drop(cluster);
    fs::remove_dir_all(folder).unwrap();
}

fn write_at_each(cluster: &Cluster, round: u8) {
    for (number, node) in (0..).zip(&cluster.nodes) {
        write(&mut connect(node), "kept", ANY, vec![event([16 * round + number; 16], vec![1])]).unwrap();
    }
}
