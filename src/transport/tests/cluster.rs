//! Clusters: election, replication, catch-up, loss of the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::node::{Directories, LAYOUT, Node, PATIENCE, listener, until};
use super::planes::{both, secret};
use crate::codec::record::{MemberRecord, MembershipBody};
use crate::engine::{Answer, ControlInput, ControlOutput, Role};
use crate::security::Plane;
use crate::security::testing::TestCluster;
use crate::storage::{LogRead, LogReader};
use crate::types::{ClusterId, Guid, LogPosition, NodeId, Ticks};

type Running = Arc<Mutex<Vec<Option<Node>>>>;

/// Nodes and the thread that carries their votes.
struct Cluster {
    directories: Directories,
    list: MembershipBody,
    plane: Plane,
    nodes: Running,
    postman: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

fn node_id(index: usize) -> NodeId {
    NodeId(Guid([index as u8 + 1; 16]))
}

impl Cluster {
    fn new(count: usize) -> Cluster {
        Cluster::on(Plane::Open, count)
    }

    fn on(plane: Plane, count: usize) -> Cluster {
        let listeners: Vec<_> = (0..count).map(|_| listener()).collect();
        let member = |(index, listener): (usize, &std::net::TcpListener)| {
            let address = listener.local_addr().unwrap();
            MemberRecord { node: node_id(index), int_ip: address.ip(), int_tcp_port: address.port(), int_http_port: 1 }
        };
        let members = listeners.iter().enumerate().map(member).collect();
        let list = MembershipBody { cluster: ClusterId(Guid([9; 16])), members };
        let directories = Directories::new();
        let start = |(index, listener): (usize, std::net::TcpListener)| {
            Some(Node::start(&directories.of(&index.to_string()), node_id(index), listener, &list, plane.clone()))
        };
        let nodes: Running = Arc::new(Mutex::new(listeners.into_iter().enumerate().map(start).collect()));
        let stop = Arc::new(AtomicBool::new(false));
        let postman = Some(std::thread::spawn({
            let (nodes, stop) = (Arc::clone(&nodes), Arc::clone(&stop));
            move || carry_votes(&nodes, &stop)
        }));
        Cluster { directories, list, plane, nodes, postman, stop }
    }

    fn with<T>(&self, index: usize, run: impl FnOnce(&Node) -> T) -> T {
        run(self.nodes.lock()[index].as_ref().expect("it runs"))
    }

    fn leader(&self) -> Option<usize> {
        let nodes = self.nodes.lock();
        nodes.iter().position(|node| node.as_ref().is_some_and(|node| node.published.view().role == Role::Leader))
    }

    fn wait_for_leader(&self) -> usize {
        until("a leader", || self.leader().is_some());
        self.leader().unwrap()
    }

    /// Appends on the leader, many at a time, and waits for the answers.
    fn append(&self, count: usize, size: usize) -> LogPosition {
        let leader = self.wait_for_leader();
        let answers: Vec<_> = (0..count)
            .map(|number| self.with(leader, |node| node.append(&format!("stream-{}", number % 7), size)))
            .collect();
        let mut last = LogPosition::ZERO;
        for answer in answers {
            match answer.recv_timeout(PATIENCE).unwrap() {
                Answer::Appended { end, .. } => last = last.max(end),
                other => panic!("{other:?}"),
            }
        }
        last
    }

    fn wait_until_all_have(&self, end: LogPosition) {
        until("all nodes have the log", || {
            self.nodes.lock().iter().flatten().all(|node| node.published.readable() >= end)
        });
    }

    /// Every node's log must be the same, byte for byte.
    fn assert_same_logs(&self, end: LogPosition) {
        let logs: Vec<Vec<u8>> = (0..self.list.members.len())
            .map(|index| {
                let reader = LogReader::new(self.directories.of(&index.to_string()), LAYOUT);
                let mut log = Vec::new();
                while (log.len() as u64) < end.0 {
                    let position = LogPosition(log.len() as u64);
                    let mut take = |bytes: &[u8]| {
                        let wanted = (end.since(position) as usize).min(bytes.len());
                        log.extend_from_slice(&bytes[..wanted]);
                    };
                    reader.with_chunk(position, &mut take).unwrap();
                }
                log
            })
            .collect();
        assert!(logs.windows(2).all(|pair| pair[0] == pair[1]), "the logs differ below {end}");
    }

    fn stop_node(&self, index: usize) {
        let node = self.nodes.lock()[index].take().expect("it runs");
        node.stop().unwrap();
    }

    fn restart_node(&self, index: usize) {
        let member = self.list.members[index];
        let address = std::net::SocketAddr::new(member.int_ip, member.int_tcp_port);
        let listener = crate::ring::listen(address, None).unwrap().into();
        let path = self.directories.of(&index.to_string());
        let node = Node::start(&path, node_id(index), listener, &self.list, self.plane.clone());
        self.nodes.lock()[index] = Some(node);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let nodes: Vec<Node> = self.nodes.lock().drain(..).flatten().collect();
        drop(nodes);
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.postman.take().unwrap().join();
    }
}

/// What HTTP does otherwise: carries requests for votes and their answers. Tokens name asker and kind.
fn carry_votes(nodes: &Running, stop: &AtomicBool) {
    let mut asked = std::collections::HashMap::new();
    let mut next_token = 0;
    while !stop.load(Ordering::Relaxed) {
        let nodes = nodes.lock();
        for node in nodes.iter().flatten() {
            while let Some(output) = node.control_output.pop() {
                let peer = |id: NodeId| nodes.iter().flatten().find(|node| node.id == id);
                match output {
                    ControlOutput::SendVote { to, pre, request } => {
                        next_token += 1;
                        asked.insert(next_token, (node.id, to, pre, request.term));
                        let input = ControlInput::Vote { token: next_token, pre, request };
                        let _ = peer(to).map(|peer| peer.control_input.send(input));
                    }
                    ControlOutput::VoteAnswer { token, response } => {
                        let Some((asker, from, pre, term)) = asked.remove(&token) else { continue };
                        let input = ControlInput::VoteAnswered { from, pre, term, response: Some(response) };
                        let _ = peer(asker).map(|peer| peer.control_input.send(input));
                    }
                    ControlOutput::SendTransfer { to, request } => {
                        let _ =
                            peer(to).map(|peer| peer.control_input.send(ControlInput::Transfer { token: 0, request }));
                    }
                    ControlOutput::Answer { .. } | ControlOutput::ViewChanged | ControlOutput::MembersChanged(_) => {}
                }
            }
            let view = node.published.view();
            if view.leader == Some(node.id) {
                let seen = ControlInput::LeaderSeen { leader: node.id, term: view.term };
                for peer in nodes.iter().flatten().filter(|peer| peer.published.view().leader.is_none()) {
                    let _ = peer.control_input.send(seen.clone());
                }
            }
        }
        drop(nodes);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_single_node_leads_and_keeps_its_log_over_a_restart() {
    let cluster = Cluster::new(1);
    let end = cluster.append(500, 300);
    let flushed = cluster.with(0, |node| node.published.flushed());
    assert!(flushed >= end, "acknowledged at {end}, flushed to {flushed}");
    cluster.stop_node(0);
    cluster.restart_node(0);
    cluster.wait_for_leader();
    let further = cluster.append(10, 300);
    assert!(further > end);
}

#[test]
fn a_write_whose_client_waits_no_more_is_not_placed() {
    let cluster = Cluster::new(1);
    let before = cluster.append(1, 100);
    let late = cluster.with(0, |node| node.append_until(Ticks(1), "late", 100));
    assert_eq!(late.recv_timeout(PATIENCE).unwrap(), Answer::TooBusy);
    assert_eq!(cluster.with(0, |node| node.published.log_end()), before);
}

#[test]
fn three_nodes_hold_the_same_log_over_many_chunks() {
    let cluster = Cluster::new(3);
    replicate_many_chunks(&cluster);
}

#[test]
fn three_nodes_with_a_secret_hold_the_same_log() {
    let cluster = Cluster::on(secret(b'a'), 3);
    replicate_many_chunks(&cluster);
}

#[test]
fn three_nodes_with_certificates_hold_the_same_log() {
    let certificates = TestCluster::new();
    let cluster = Cluster::on(Plane::Tls(certificates.trust(&["127.0.0.1"])), 3);
    replicate_many_chunks(&cluster);
    let zero_copy =
        |index| cluster.with(index, |node| node.published.counters.sent_zero_copy_bytes.load(Ordering::Relaxed));
    assert_eq!((0..3).map(zero_copy).sum::<u64>(), 0);
    let leader = cluster.leader().unwrap();
    assert!(cluster.with(leader, Node::log).contains("nothing is sent without copying (zero-copy)"));
}

#[test]
fn three_nodes_with_both_hold_the_same_log() {
    let certificates = TestCluster::new();
    let cluster = Cluster::on(both(b'a', &certificates), 3);
    replicate_many_chunks(&cluster);
}

fn replicate_many_chunks(cluster: &Cluster) {
    let mut end = LogPosition::ZERO;
    for size in [100, 3000, 60_000, 200_000] {
        end = cluster.append(40, size);
    }
    assert!(end.0 > 5 << 20, "{end}");
    cluster.wait_until_all_have(end);
    cluster.assert_same_logs(end);
    let leader = cluster.leader().unwrap();
    let counters =
        |index: usize| cluster.with(index, |node| node.published.counters.received_bytes.load(Ordering::Relaxed));
    for follower in (0..3).filter(|&index| index != leader) {
        assert!(counters(follower) >= end.0, "the log came over the data link");
    }
    let copied = cluster.with(leader, |node| node.published.counters.sent_copied_bytes.load(Ordering::Relaxed));
    assert!(copied > 0, "loopback is always copied");
}

#[test]
fn every_stage_of_a_write_is_counted() {
    let cluster = Cluster::new(3);
    let appends = [cluster.append(70, 100), cluster.append(30, 50_000)];
    cluster.wait_until_all_have(appends[1]);
    // The thread reports at the end of the turn in which it answers.
    let counts = |stage: &str| -> Vec<u64> {
        let of = |index| {
            let stages = cluster.with(index, |node| node.published.stages.snapshot());
            stages.iter().find(|(name, _)| name == stage).map_or(0, |(_, spans)| spans.len())
        };
        (0..3).map(of).collect()
    };
    for stage in ["queue", "batchWait", "commit"] {
        until(stage, || counts(stage).iter().sum::<u64>() >= 100);
        assert_eq!(counts(stage).iter().sum::<u64>(), 100, "{stage}");
    }
    let leader = cluster.leader().unwrap();
    let stages = cluster.with(leader, |node| node.published.stages.snapshot());
    let commit = &stages.iter().find(|(name, _)| name == "commit").unwrap().1;
    assert!(commit.min() > 100 && commit.max() < 20_000_000_000, "{} to {} ns", commit.min(), commit.max());
    for stage in ["write", "flush"] {
        until(stage, || counts(stage).iter().all(|&count| count > 0));
    }
    for follower in (0..3).filter(|&index| index != leader) {
        let stage = format!("replication/{}", node_id(follower));
        until(&stage, || counts(&stage)[leader] > 0);
    }
}

#[test]
fn a_follower_that_was_away_is_served_from_chunk_files_while_writes_go_on() {
    serve_from_chunk_files(&Cluster::new(3));
}

#[test]
fn a_follower_with_certificates_is_served_from_chunk_files_too() {
    let certificates = TestCluster::new();
    serve_from_chunk_files(&Cluster::on(both(b'a', &certificates), 3));
}

fn serve_from_chunk_files(cluster: &Cluster) {
    let leader = cluster.wait_for_leader();
    let away = (leader + 1) % 3;
    cluster.append(10, 100);
    cluster.stop_node(away);
    // More than the log buffer holds, over several chunks.
    cluster.append(100, 50_000);
    cluster.restart_node(away);
    let end = cluster.append(100, 20_000);
    cluster.wait_until_all_have(end);
    cluster.assert_same_logs(end);
    assert_eq!(cluster.leader(), Some(leader), "no election for a follower");
    let from_files = cluster.with(leader, |node| node.published.counters.sent_from_files_bytes.load(Ordering::Relaxed));
    assert!(from_files > 3 << 20, "{from_files} bytes from files");
}

#[test]
fn another_node_leads_when_the_leader_is_gone_and_it_comes_back_as_a_follower() {
    lose_leaders(&Cluster::new(3));
}

#[test]
fn another_node_leads_on_closed_planes_too() {
    let certificates = TestCluster::new();
    for plane in [secret(b'a'), both(b'a', &certificates)] {
        lose_leaders(&Cluster::on(plane, 3));
    }
}

fn lose_leaders(cluster: &Cluster) {
    let mut end = cluster.append(50, 1000);
    for _ in 0..3 {
        let gone = cluster.wait_for_leader();
        cluster.stop_node(gone);
        until("another leader", || cluster.leader().is_some_and(|leader| leader != gone));
        end = cluster.append(50, 1000);
        cluster.restart_node(gone);
        cluster.wait_until_all_have(end);
    }
    cluster.assert_same_logs(end);
}

/// What a leader wrote but could not commit is cut away online when it comes back as a follower: the durable mark first,
/// then zeros over the tail, then the new leader's log in the same place.
#[test]
fn an_uncommitted_tail_is_cut_when_its_leader_comes_back() {
    let cluster = Cluster::new(3);
    let committed = cluster.append(20, 1000);
    cluster.wait_until_all_have(committed);
    let old = cluster.leader().unwrap();
    let others = [(old + 1) % 3, (old + 2) % 3];
    others.iter().for_each(|&index| cluster.stop_node(index));
    // Over the end of a chunk, so that the cut goes through two files.
    let lost: Vec<_> = (0..20).map(|_| cluster.with(old, |node| node.append("lost", 60_000))).collect();
    until("the tail is durable", || {
        let flushed = cluster.with(old, |node| node.published.flushed());
        flushed.0 > committed.0 + (1 << 20) && flushed == cluster.with(old, |node| node.published.log_end())
    });
    cluster.stop_node(old);
    assert!(lost.iter().all(|answer| !matches!(answer.try_recv(), Ok(Answer::Appended { .. }))));
    others.iter().for_each(|&index| cluster.restart_node(index));
    let end = cluster.append(30, 2000);
    cluster.restart_node(old);
    cluster.wait_until_all_have(end);
    let end = cluster.append(30, 60_000);
    cluster.wait_until_all_have(end);
    cluster.assert_same_logs(end);
    // A second start of the node that was cut: recovery must find nothing odd.
    cluster.stop_node(old);
    cluster.restart_node(old);
    let end = cluster.append(5, 100);
    cluster.wait_until_all_have(end);
    cluster.assert_same_logs(end);
}

#[test]
fn an_idle_cluster_sleeps() {
    let cluster = Cluster::new(3);
    cluster.wait_until_all_have(cluster.append(10, 100));
    std::thread::sleep(Duration::from_millis(300));
    let enters = || -> u64 {
        (0..3).map(|index| cluster.with(index, |node| node.published.counters.enters.load(Ordering::Relaxed))).sum()
    };
    let before = enters();
    std::thread::sleep(Duration::from_secs(1));
    // 10 heartbeats a second to each of two followers, a few enters each; a thread that spins has thousands.
    let per_second = enters() - before;
    assert!(per_second < 600, "{per_second} enters a second");
}
