//! Three nodes: any of them takes a write, all of them show it, and leadership is handed over when it is asked for.

use std::time::Duration;

use crate::single::{connect, write};
use crate::support::client::{ANY, Refusal, event};
use crate::support::cluster::{Cluster, Node, scratch, small_chunks};
use crate::support::http;
use crate::support::messages::WriteEvents;
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(10);

/// The reason of `NotHandled` that sends a client to the leader.
const NOT_MASTER: i32 = 2;

fn seen(node: &Node, stream: &str) -> usize {
    connect(node).read_to_end(stream).expect("a stream that can be read").len()
}

#[test]
fn every_node_takes_writes_and_shows_them() {
    let folder = scratch("cluster");
    let cluster = Cluster::start(&folder, &small_chunks(4 << 20)).unwrap();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let number = index as i64;
        let written = write(&mut connect(node), "everywhere", number - 1, vec![event([index as u8 + 1; 16], vec![1])]);
        assert_eq!(written.unwrap().first_event_number, number, "at {}", node.ip);
        // A client reads its own write at the node that answered it, without waiting.
        assert_eq!(seen(node, "everywhere"), index + 1, "at {}", node.ip);
    }
    for node in &cluster.nodes {
        wait_until("every node shows all", LIMIT, || seen(node, "everywhere") == 3).unwrap();
    }
    let leader = cluster.leader().unwrap();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let events = vec![event([index as u8 + 9; 16], vec![1])];
        let request =
            WriteEvents { stream: "at-the-leader".to_owned(), expected_version: ANY, events, require_master: true };
        let answer = connect(node).write(&request, LIMIT, &|| false).unwrap();
        if index == leader {
            assert!(answer.is_ok(), "{answer:?}");
        } else {
            assert_eq!(answer, Err(Refusal::NotHandled(NOT_MASTER)), "at {}", node.ip);
        }
    }
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_leader_that_is_asked_to_hands_over() {
    let folder = scratch("resign");
    let cluster = Cluster::start(&folder, &small_chunks(4 << 20)).unwrap();
    let before = cluster.leader().unwrap();
    let term = cluster.nodes[before].figures().unwrap().term;
    let answer = http::request(cluster.nodes[before].int_http(), "POST", "/admin/resign", "", LIMIT).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_until("another node leads", LIMIT, || {
        let figures = cluster.nodes.iter().map(Node::figures);
        figures.enumerate().any(|(index, seen)| index != before && seen.is_some_and(|seen| seen.leads()))
    })
    .unwrap();
    cluster.wait_until_whole().unwrap();
    let after = cluster.leader().unwrap();
    assert_ne!(after, before);
    assert_eq!(cluster.nodes[after].figures().unwrap().term, term + 1, "one election was enough");
    write(&mut connect(&cluster.nodes[before]), "goes-on", ANY, vec![event([1; 16], vec![1])]).unwrap();
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_cluster_that_was_stopped_comes_back_with_a_majority() {
    let folder = scratch("majority");
    let mut cluster = Cluster::start(&folder, &small_chunks(4 << 20)).unwrap();
    let leader = cluster.leader().unwrap();
    write(&mut connect(&cluster.nodes[leader]), "kept", ANY, vec![event([1; 16], vec![1])]).unwrap();
    for node in &mut cluster.nodes {
        node.kill();
    }
    // All were killed at once, and the one that led stays away.
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for index in others {
        cluster.nodes[index].start().unwrap();
    }
    cluster.leader().unwrap();
    for index in others {
        wait_until("the write is shown", LIMIT, || {
            cluster.nodes[index].figures().is_some() && seen(&cluster.nodes[index], "kept") == 1
        })
        .unwrap();
    }
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}
