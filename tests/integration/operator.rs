//! The operator's commands against real nodes: backup under load, restore both ways, verify; members replaced.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::single::{connect, write};
use crate::support::client::{ANY, Client, event};
use crate::support::cluster::{Cluster, Node, command, scratch, small_chunks};
use crate::support::http;
use crate::support::messages::WriteEvents;
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(60);
const CHUNK_BYTES: u64 = 1 << 20;

/// Runs a command; its exit status and all that it printed.
pub(crate) fn ringstore(arguments: &[&str]) -> (i32, String) {
    let output = command().args(arguments).output().expect("the program runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().expect("it ended by itself"), text)
}

pub(crate) fn succeeds(arguments: &[&str]) -> String {
    let (status, text) = ringstore(arguments);
    assert_eq!(status, 0, "{arguments:?}: {text}");
    text
}

pub(crate) fn fails(arguments: &[&str], expected: &str) {
    let (status, text) = ringstore(arguments);
    assert!(status == 2 && text.contains(expected), "{arguments:?}: {status} {text}");
}

fn status(node: &Node) -> Value {
    let answer = http::get(node.int_http(), "/admin/status", LIMIT).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().unwrap()
}

fn id(node: &Node) -> String {
    status(node)["node"].as_str().unwrap().to_owned()
}

fn members(node: &Node) -> Vec<String> {
    let status = status(node);
    status["members"].as_array().unwrap().iter().map(|member| member["node"].as_str().unwrap().to_owned()).collect()
}

/// Whether a leader has a link with this follower.
fn is_linked(leader: &Node, follower: &str) -> bool {
    let status = status(leader);
    let followers = status["followers"].as_array().unwrap();
    followers.iter().any(|known| known["node"] == follower && known["isLinked"] == true)
}

fn role(node: &Node) -> String {
    node.figures().map_or_else(String::new, |figures| figures.role)
}

/// Somebody who writes all the time; gives the number of acknowledged events.
fn load(address: SocketAddr, stop: &Arc<AtomicBool>) -> JoinHandle<i64> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut client = Client::connect(address, LIMIT).unwrap();
        let mut written = 0_i64;
        while !stop.load(Ordering::SeqCst) {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&written.to_le_bytes());
            let events = vec![event(id, vec![written as u8; 20_000])];
            let expected_version = written - 1;
            let request = WriteEvents { stream: "load".to_owned(), expected_version, events, require_master: false };
            client.write(&request, LIMIT, &|| false).unwrap().unwrap();
            written += 1;
        }
        written
    })
}

/// The log's bytes in a folder of chunks.
fn log_bytes(folder: &Path, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; end as usize];
    for (chunk, piece) in bytes.chunks_mut(CHUNK_BYTES as usize).enumerate() {
        let file = fs::File::open(folder.join(format!("chunk-{chunk:06}.000000"))).unwrap();
        file.read_exact_at(piece, 4096).unwrap();
    }
    bytes
}

fn position(backup: &Path) -> u64 {
    let manifest: Value = serde_json::from_slice(&fs::read(backup.join("backup.json")).unwrap()).unwrap();
    manifest["position"].as_u64().unwrap()
}

/// Options of a node that looks for others at `seeds`.
fn joining(seeds: &[SocketAddr]) -> Vec<String> {
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    let mut options = vec!["--cluster-size".to_owned(), "3".to_owned(), "--gossip-seed".to_owned(), seeds.join(",")];
    options.extend(small_chunks(CHUNK_BYTES));
    options
}

fn start(folder: &Path, options: &[String]) -> Node {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut node = Node::single(folder, &options);
    node.start().unwrap();
    node
}

fn wait_for_role(node: &Node, expected: &str) {
    wait_until(expected, LIMIT, || role(node) == expected).unwrap_or_else(|error| panic!("{error}: {}", node.tail()));
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_backup_under_load_is_restored_both_ways() {
    let folder = scratch("backup");
    let (backup, new, old) = (folder.join("backup"), folder.join("new"), folder.join("old"));
    let mut cluster = Cluster::start(&folder, &small_chunks(CHUNK_BYTES)).unwrap();
    let leader = cluster.leader().unwrap();
    let follower = (leader + 1) % 3;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = load(cluster.nodes[leader].ext_tcp(), &stop);
    let end = || cluster.nodes[follower].figures().map_or(0, |figures| figures.commit_position);
    wait_until("some chunks", LIMIT, || end() > 3 * CHUNK_BYTES).unwrap();
    let from = cluster.nodes[follower].int_http().to_string();

    succeeds(&["backup", text(&backup), "--from", &from]);
    let first = position(&backup);
    assert!(succeeds(&["verify", text(&backup)]).contains("no damage"));
    wait_until("more is written", LIMIT, || end() > first + 2 * CHUNK_BYTES).unwrap();
    let words = succeeds(&["backup", text(&backup), "--from", &from]);
    assert!(words.contains("were there and checked"), "{words}");
    assert!(position(&backup) > first);
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    // A follower hears of the last commit a little after the writer.
    let all = cluster.nodes[leader].figures().unwrap().log_end;
    wait_until("the follower has all that was acknowledged", LIMIT, || end() >= all).unwrap();
    succeeds(&["backup", text(&backup), "--from", &from]);
    assert!(succeeds(&["verify", text(&backup)]).contains("no damage"));
    let upto = position(&backup);
    let kept = log_bytes(&backup, upto);
    assert!(kept == log_bytes(&cluster.nodes[follower].db(), upto), "the bytes of the source");

    // A new cluster, grown to two members; the old one is not disturbed.
    succeeds(&["restore", text(&backup), "--db", text(&new.join("db")), "--new-cluster"]);
    fails(&["restore", text(&backup), "--db", text(&new.join("db")), "--new-cluster"], "is not empty");
    let seeds: Vec<SocketAddr> = cluster.nodes.iter().map(Node::int_http).collect();
    let founder = start(&new, &joining(&seeds));
    wait_for_role(&founder, "leader");
    assert_eq!(members(&founder), [id(&founder)]);
    assert_ne!(status(&founder)["cluster"], status(&cluster.nodes[leader])["cluster"]);
    assert_eq!(connect(&founder).read_to_end("load").unwrap().len() as i64, written);
    write(&mut connect(&founder), "load", written - 1, vec![event([200; 16], vec![1])]).unwrap();
    let second = start(&folder.join("second"), &joining(&[founder.int_http()]));
    wait_for_role(&second, "clone");
    let asked = founder.int_http().to_string();
    let words = succeeds(&["admin", "--node", &asked, "add", &second.int_http().to_string(), "--yes"]);
    assert!(words.contains("1 member, 0 may fail → 2 members, 0 may fail"), "{words}");
    wait_for_role(&second, "follower");
    write(&mut connect(&second), "load", written, vec![event([201; 16], vec![1])]).unwrap();
    assert_eq!(connect(&second).read_to_end("load").unwrap().len() as i64, written + 2);
    assert_eq!(role(&cluster.nodes[leader]), "leader");
    assert_eq!(status(&cluster.nodes[leader])["nodes"].as_array().unwrap().len(), 3, "the new one is not among them");
    assert!(founder.tail().contains("belongs to cluster") || second.tail().contains("belongs to cluster"));

    // The old cluster again, as a clone that copies what it misses.
    write(&mut connect(&cluster.nodes[leader]), "load", written - 1, vec![event([202; 16], vec![2])]).unwrap();
    succeeds(&["restore", text(&backup), "--db", text(&old.join("db")), "--join"]);
    let mut clone = start(&old, &joining(&seeds));
    wait_for_role(&clone, "clone");
    wait_until("it has the rest", LIMIT, || connect(&clone).read_to_end("load").unwrap().len() as i64 == written + 1)
        .unwrap();
    succeeds(&["admin", "--node", &from, "add", &id(&clone), "--yes"]);
    wait_for_role(&clone, "follower");
    assert_eq!(members(&cluster.nodes[follower]).len(), 4);
    succeeds(&["admin", "--node", &from, "remove", &id(&clone), "--yes"]);
    assert_eq!(members(&cluster.nodes[leader]).len(), 3);
    fails(&["verify", text(&clone.db())], "is in use");
    clone.stop().unwrap();
    assert!(succeeds(&["verify", text(&clone.db())]).contains("no damage"));
    for node in &mut cluster.nodes {
        node.stop().unwrap();
        assert!(succeeds(&["verify", text(&node.db())]).contains("no damage"));
    }

    // One flipped bit.
    let damaged = fs::File::options().read(true).write(true).open(backup.join("chunk-000001.000000")).unwrap();
    let mut byte = [0];
    damaged.read_exact_at(&mut byte, 500_000).unwrap();
    damaged.write_all_at(&[byte[0] ^ 1], 500_000).unwrap();
    fails(&["verify", text(&backup)], "damage: chunk 1 (chunk-000001.000000), log position 1");
    fails(&["restore", text(&backup), "--db", text(&folder.join("none")), "--join"], "is damaged: chunk 1");
    drop((founder, second, clone, cluster));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_single_node_is_backed_up_under_load_and_shows_its_status() {
    let folder = scratch("backup-single");
    let (backup, new) = (folder.join("backup"), folder.join("new"));
    let node = start(&folder.join("node"), &small_chunks(CHUNK_BYTES));
    wait_until("it leads", LIMIT, || node.figures().is_some_and(|figures| figures.leads())).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = load(node.ext_tcp(), &stop);
    wait_until("some chunks", LIMIT, || node.figures().is_some_and(|now| now.commit_position > 2 * CHUNK_BYTES))
        .unwrap();
    let asked = node.int_http().to_string();
    let words = succeeds(&["admin", "--node", &asked, "status"]);
    assert!(words.contains("1 member, 0 may fail\n") && words.contains(&id(&node)), "{words}");
    succeeds(&["backup", text(&backup), "--from", &asked]);
    assert!(succeeds(&["verify", text(&backup)]).contains("no damage"));
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    succeeds(&["backup", text(&backup), "--from", &asked]);
    assert!(succeeds(&["verify", text(&backup)]).contains("no damage"));
    succeeds(&["restore", text(&backup), "--db", text(&new.join("db")), "--new-cluster"]);

    // Where another process has its internal port it serves its clients, and says what does not work.
    let mut second = Node::single(&new, &small_chunks(CHUNK_BYTES).each_ref().map(String::as_str));
    let taken = std::net::TcpListener::bind(second.int_http()).unwrap();
    second.start_and_wait().unwrap();
    assert_eq!(connect(&second).read_to_end("load").unwrap().len() as i64, written);
    let output = fs::read_to_string(new.join("output")).unwrap();
    let said = output.lines().filter(|line| line.contains("`ringstore backup` cannot reach it"));
    assert_eq!(said.count(), 1, "{output}");
    second.stop().unwrap();
    drop(taken);
    assert!(succeeds(&["verify", text(&second.db())]).contains("no damage"));
    second.start_and_wait().unwrap();
    assert_eq!(members(&second), [id(&second)]);
    assert_ne!(status(&second)["cluster"], status(&node)["cluster"]);
    drop((node, second));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_member_that_lost_its_disk_is_replaced_by_one_command() {
    let folder = scratch("replace");
    let mut cluster = Cluster::start(&folder, &small_chunks(CHUNK_BYTES)).unwrap();
    let leader = cluster.leader().unwrap();
    let (kept, lost) = ((leader + 1) % 3, (leader + 2) % 3);
    for number in 0..100_u8 {
        let events = vec![event([number + 1; 16], vec![number; 20_000])];
        write(&mut connect(&cluster.nodes[leader]), "kept", ANY, events).unwrap();
    }
    let old = id(&cluster.nodes[lost]);
    let asked = cluster.nodes[kept].int_http().to_string();
    cluster.nodes[lost].kill();
    wait_until("the leader misses it", LIMIT, || !is_linked(&cluster.nodes[leader], &old)).unwrap();
    // With one of three gone no other can be spared.
    let other = id(&cluster.nodes[kept]);
    fails(&["admin", "--node", &asked, "remove", &other, "--yes"], "bring the others back first");
    fs::remove_dir_all(cluster.nodes[lost].db()).unwrap();
    cluster.nodes[lost].start().unwrap();
    wait_for_role(&cluster.nodes[lost], "clone");
    let new = id(&cluster.nodes[lost]);
    assert_ne!(new, old);
    let address = cluster.nodes[lost].int_http().to_string();
    fails(&["admin", "--node", &asked, "replace", &old, &address], "give --yes");
    assert!(members(&cluster.nodes[leader]).contains(&old), "nothing was done");
    let words = succeeds(&["admin", "--node", &asked, "replace", &old, &address, "--yes"]);
    let quorum = "3 members, 1 may fail → 4 members, 1 may fail → 3 members, 1 may fail";
    assert!(words.contains(quorum), "{words}");
    let words = succeeds(&["admin", "--node", &asked, "replace", &old, &address, "--yes"]);
    assert!(words.contains("nothing to do"), "{words}");
    cluster.wait_until_whole().unwrap();
    let now = members(&cluster.nodes[kept]);
    assert!(now.contains(&new) && !now.contains(&old) && now.len() == 3, "{now:?}");
    let words = succeeds(&["admin", "--node", &asked, "status"]);
    assert!(words.contains("3 members, 1 may fail\n") && words.contains(&new), "{words}");

    // The new one counts: with the leader gone it and the other go on, and leadership can be given to it.
    let words = succeeds(&["admin", "--node", &asked, "resign", "--to", &new, "--yes"]);
    assert!(words.contains(&format!("done: node {new} leads")), "{words}");
    cluster.wait_until_whole().unwrap();
    write(&mut connect(&cluster.nodes[kept]), "kept", ANY, vec![event([200; 16], vec![1])]).unwrap();
    let end = cluster.wait_until_even().unwrap();
    for node in &mut cluster.nodes {
        node.stop().unwrap();
    }
    let logs: Vec<Vec<u8>> = cluster.nodes.iter().map(|node| log_bytes(&node.db(), end)).collect();
    assert!(logs[0] == logs[1] && logs[1] == logs[2], "all logs are the same");
    drop(cluster);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_read_only_replica_serves_and_is_never_a_member() {
    let folder = scratch("read-only");
    let mut cluster = Cluster::start(&folder, &small_chunks(CHUNK_BYTES)).unwrap();
    let seeds: Vec<SocketAddr> = cluster.nodes.iter().map(Node::int_http).collect();
    let mut options = joining(&seeds);
    options.push("--read-only-replica".to_owned());
    let replica = start(&folder.join("replica"), &options);
    wait_for_role(&replica, "clone");
    wait_until("it knows the leader", LIMIT, || !replica.leaders_in_gossip().is_empty()).unwrap();
    // A write goes through it to the leader, and is read from it.
    wait_until("a write is forwarded", LIMIT, || {
        write(&mut connect(&replica), "through", ANY, vec![event([1; 16], vec![1])]).is_ok()
    })
    .unwrap();
    assert_eq!(connect(&replica).read_to_end("through").unwrap().len(), 1);
    let asked = cluster.nodes[0].int_http().to_string();
    let its_id = id(&replica);
    fails(
        &["admin", "--node", &asked, "add", &its_id, "--yes"],
        "is a read-only replica, which never becomes a member",
    );
    let words = succeeds(&["admin", "--node", &asked, "status"]);
    let line = words.lines().find(|line| line.starts_with(&its_id)).unwrap();
    assert!(line.contains("  read-only  "), "{words}");
    // Clients of v5 know no such state.
    let gossip = http::get(replica.ext_http(), "/gossip", LIMIT).unwrap().json().unwrap();
    let states: Vec<&str> =
        gossip["members"].as_array().unwrap().iter().map(|m| m["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "Clone").count(), 1, "{states:?}");

    // A member that is told to be one says why not, and ends.
    let follower = (cluster.leader().unwrap() + 1) % 3;
    let member = &mut cluster.nodes[follower];
    member.stop().unwrap();
    let mut arguments = member.place();
    arguments.extend(options);
    let output = command().args(&arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("is a voting member of its cluster"), "{text}");
    drop((replica, cluster));
    fs::remove_dir_all(folder).unwrap();
}
