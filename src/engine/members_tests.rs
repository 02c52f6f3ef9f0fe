//! Goal: a change of the member list from the operator's wish to every node's state, and what comes of it when leadership is
//! lost meanwhile. Method: engines with disks and links in memory, where everything arrives at once unless it is cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::codec::record::BatchBuilder;
use crate::consensus::{Message, TransferRequest, VoteRequest, VoteResponse};
use crate::engine::{Append, ControlInput, EngineOptions, Request, Role, Ticket};
use crate::engine::{BufferToken, WriteSource};
use crate::index::Index;
use crate::storage::memory::MemoryLog;
use crate::storage::{ChunkLayout, DurableState, Recovered};
use crate::types::{ClusterId, EventId, ExpectedVersion, Guid, Term, Ticks};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };

#[derive(Debug)]
enum Mail {
    LeaderLink(bool),
    FollowerGone,
    Message(Message),
    Vote(bool, VoteRequest),
    VoteAnswer(bool, Term, VoteResponse),
    Transfer(TransferRequest),
    LeaderSeen(Term),
}

struct Node {
    engine: Engine,
    index: Arc<Index>,
    log: MemoryLog,
    received: BTreeMap<u64, Vec<u8>>,
    next_token: u64,
    /// The leader and the subscription of the data link.
    data: Option<(usize, Guid)>,
    votes: BTreeMap<u64, (usize, bool, Term)>,
    answers: BTreeMap<u64, Result<(), String>>,
    saved: Option<DurableState>,
    /// What gossip was told.
    told: Option<MembershipBody>,
    /// No chunks are made, and the last one that was asked for.
    is_full: bool,
    wanted: Option<u32>,
    /// What requests were answered.
    replies: Vec<Answer>,
}

struct Cluster {
    nodes: Vec<Node>,
    mail: Vec<(usize, usize, Mail)>,
    cut: BTreeSet<usize>,
    now: Ticks,
}

fn id(at: usize) -> NodeId {
    NodeId(Guid([at as u8 + 1; 16]))
}

fn at(node: NodeId) -> usize {
    usize::from(node.0.0[0]) - 1
}

fn member(at: usize) -> MemberRecord {
    let address = [127, 0, 0, at as u8 + 1];
    MemberRecord { node: id(at), int_ip: address.into(), int_tcp_port: 1112, int_http_port: 2112 }
}

impl Node {
    fn new(node: usize, list: &MembershipBody) -> Node {
        let state = DurableState {
            founding: Some(list.clone()),
            founded: true,
            ..DurableState::new(id(node), LAYOUT.chunk_size)
        };
        let recovered = Recovered {
            end: LogPosition::ZERO,
            last_term: Term::ZERO,
            epochs: Vec::new(),
            membership: None,
            cut: None,
            is_suspect: false,
            stale: Vec::new(),
            sealed: LogPosition::ZERO,
            chunk_count: 1,
            headers: Vec::new(),
            mark: None,
        };
        let options = EngineOptions {
            layout: LAYOUT,
            log_buffer_bytes: 1 << 20,
            election_timeout: Duration::from_millis(700),
            heartbeat_interval: Duration::from_millis(100),
            priority: 0,
            seed: node as u64,
            chunks_ready: 2,
            window_bytes: 256 << 10,
            planted: None,
        };
        let index = Arc::new(Index::new());
        Node {
            engine: Engine::new(options, state, recovered, Arc::clone(&index), Ticks(0)).unwrap(),
            index,
            log: MemoryLog { layout: LAYOUT, bytes: vec![0; 8 << 20] },
            received: BTreeMap::new(),
            next_token: 0,
            data: None,
            votes: BTreeMap::new(),
            answers: BTreeMap::new(),
            saved: None,
            told: None,
            is_full: false,
            wanted: None,
            replies: Vec::new(),
        }
    }
}

impl Cluster {
    /// A cluster of the first `members` nodes, and the rest as clones; it has a leader that takes writes.
    fn new(members: usize, clones: usize) -> Cluster {
        let list = MembershipBody { cluster: ClusterId(Guid([9; 16])), members: (0..members).map(member).collect() };
        let nodes = (0..members + clones).map(|node| Node::new(node, &list)).collect();
        let mut cluster = Cluster { nodes, mail: Vec::new(), cut: BTreeSet::new(), now: Ticks(0) };
        cluster.run(3000);
        cluster
    }

    fn leader(&self) -> usize {
        let leads = |node: &Node| node.engine.role() == Role::Leader;
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|&at| leads(&self.nodes[at])).collect();
        assert_eq!(leaders.len(), 1, "one leader: {leaders:?}");
        leaders[0]
    }

    fn run(&mut self, millis: u64) {
        for milli in 0..millis {
            self.now = self.now.after(Duration::from_millis(1));
            for node in 0..self.nodes.len() {
                self.turn(node);
                if milli % 50 == 0 {
                    self.gossip(node);
                }
            }
            for follower in 0..self.nodes.len() {
                self.feed(follower);
            }
            for (from, to, mail) in std::mem::take(&mut self.mail) {
                if !self.cut.contains(&from) && !self.cut.contains(&to) {
                    self.deliver(from, to, mail);
                }
            }
        }
    }

    fn gossip(&mut self, node: usize) {
        let view = self.nodes[node].engine.view();
        if view.leader == Some(id(node)) {
            let others = (0..self.nodes.len()).filter(|&to| to != node);
            self.mail.extend(others.map(|to| (node, to, Mail::LeaderSeen(view.term))));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, mail: Mail) {
        let node = &mut self.nodes[to];
        match mail {
            Mail::LeaderLink(up) => node.engine.handle_leader_link(id(from), up),
            Mail::FollowerGone => node.engine.handle_follower_link_down(id(from)),
            Mail::Message(message) => node.engine.handle_message(id(from), message),
            Mail::Vote(pre, request) => {
                node.next_token += 1;
                let token = node.next_token;
                node.votes.insert(token, (from, pre, request.term));
                node.engine.handle_control(ControlInput::Vote { token, pre, request });
            }
            Mail::VoteAnswer(pre, term, response) => {
                let (from, response) = (id(from), Some(response));
                node.engine.handle_control(ControlInput::VoteAnswered { from, pre, term, response });
            }
            Mail::Transfer(request) => node.engine.handle_control(ControlInput::Transfer { token: 0, request }),
            Mail::LeaderSeen(term) => node.engine.handle_control(ControlInput::LeaderSeen { leader: id(from), term }),
        }
    }

    /// Carries the next bytes of the log to a follower.
    fn feed(&mut self, follower: usize) {
        let Some((leader, subscription)) = self.nodes[follower].data else { return };
        if self.cut.contains(&follower) || self.cut.contains(&leader) {
            return;
        }
        let Some(plan) = self.nodes[leader].engine.plan_send(id(follower)) else { return };
        let bytes = match plan.from_file {
            true => self.nodes[leader].log.bytes[plan.position.0 as usize..][..plan.length].to_vec(),
            false => self.nodes[leader].engine.buffer().slice(plan.position, plan.length).to_vec(),
        };
        self.nodes[leader].engine.handle_sent(id(follower), subscription, plan.length);
        let node = &mut self.nodes[follower];
        node.next_token += 1;
        node.received.insert(node.next_token, bytes.clone());
        node.engine.handle_data(subscription, BufferToken(node.next_token), &bytes);
    }

    fn turn(&mut self, at: usize) {
        let mut actions = Vec::new();
        self.nodes[at].engine.begin_turn(self.now, 1);
        loop {
            self.nodes[at].engine.end_turn();
            self.nodes[at].engine.take_actions(&mut actions);
            if actions.is_empty() {
                return;
            }
            actions.drain(..).for_each(|action| self.act(at, action));
        }
    }

    fn act(&mut self, node: usize, action: Action) {
        let this = &mut self.nodes[node];
        match action {
            Action::Write { id, position, length, source } => {
                let bytes = match source {
                    WriteSource::LogBuffer => this.engine.buffer().slice(position, length).to_vec(),
                    WriteSource::Received { token, offset } => {
                        this.received[&token.0][offset..offset + length].to_vec()
                    }
                    WriteSource::Zeros => vec![0; length],
                };
                this.log.bytes[position.0 as usize..][..length].copy_from_slice(&bytes);
                this.engine.handle_written(id);
            }
            Action::Flush { id, .. } => this.engine.handle_flushed(id),
            Action::Release(token) => drop(this.received.remove(&token.0)),
            Action::SaveState(state) => {
                let sequence = state.sequence;
                this.saved = Some(*state);
                this.engine.handle_state_saved(sequence);
            }
            Action::PrepareChunk(chunk) if this.is_full => this.wanted = Some(chunk),
            Action::PrepareChunk(chunk) => this.engine.handle_chunk_ready(chunk),
            Action::Reply(reply) => this.replies.push(reply.answer),
            Action::ViewChanged | Action::ClusterKnown(_) => {}
            Action::Send { peer, message } => self.mail.push((node, at(peer), Mail::Message(message))),
            Action::ConnectControl { leader } => self.mail.push((at(leader), node, Mail::LeaderLink(true))),
            Action::ConnectData { leader, subscription, .. } => {
                let begun = self.nodes[at(leader)].engine.handle_data_link(id(node), subscription);
                self.nodes[node].data = begun.is_ok().then_some((at(leader), subscription));
            }
            Action::CloseLeader => {
                if let Some((leader, _)) = this.data.take() {
                    self.mail.push((node, leader, Mail::FollowerGone));
                }
            }
            Action::CloseFollower { follower } => {
                self.nodes[at(follower)].data = None;
                self.mail.push((node, at(follower), Mail::LeaderLink(false)));
            }
            Action::Progress(progress) => assert!(this.index.apply_to(&this.log, LAYOUT, progress.readable).is_ok()),
            Action::Control(output) => self.control(node, output),
            Action::Fatal(reason) => panic!("node {node}: {reason}"),
        }
    }

    fn control(&mut self, node: usize, output: ControlOutput) {
        match output {
            ControlOutput::SendVote { to, pre, request } => self.mail.push((node, at(to), Mail::Vote(pre, request))),
            ControlOutput::VoteAnswer { token, response } => {
                let (asker, pre, term) = self.nodes[node].votes.remove(&token).expect("asked for");
                self.mail.push((node, asker, Mail::VoteAnswer(pre, term, response)));
            }
            ControlOutput::SendTransfer { to, request } => self.mail.push((node, at(to), Mail::Transfer(request))),
            ControlOutput::Answer { token, result } => drop(self.nodes[node].answers.insert(token, result)),
            ControlOutput::MembersChanged(list) => self.nodes[node].told = Some(list),
            ControlOutput::ViewChanged => {}
        }
    }

    /// The disk of a node has no room for another chunk, or has room again.
    fn set_full(&mut self, node: usize, is_full: bool) {
        let node = &mut self.nodes[node];
        node.is_full = is_full;
        node.engine.handle_disk_full(is_full);
        if let Some(chunk) = node.wanted.take_if(|_| !is_full) {
            node.engine.handle_chunk_ready(chunk);
        }
    }

    /// Writes 50 KiB; what that was answered within a fifth of a second.
    fn write(&mut self, node: usize) -> Option<Answer> {
        let mut body = BatchBuilder::new("s", 60 << 10);
        body.event(
            EventId(Guid(self.now.0.to_le_bytes().repeat(2).try_into().unwrap())),
            "e",
            true,
            &[7; 50 << 10],
            b"",
        );
        let append = Append {
            ticket: Ticket { edge: 0, key: 1 },
            kind: RecordKind::Append,
            expected_version: ExpectedVersion::Any,
            guard: None,
            event_count: 1,
            body: body.finish(),
            metadata_of: None,
            revival: None,
            deadline: Ticks(u64::MAX),
            handed_over: Ticks(0),
            queued: None,
        };
        self.nodes[node].replies.clear();
        self.nodes[node].engine.handle_request(Request::Append(Box::new(append))).expect("room in the log buffer");
        self.run(200);
        self.nodes[node].replies.pop()
    }

    /// Asks a node for a change; what it says within a second.
    fn change(&mut self, node: usize, change: MemberChange) -> Option<Result<(), String>> {
        self.nodes[node].answers.remove(&7);
        self.nodes[node].engine.handle_control(ControlInput::ChangeMembers { token: 7, change });
        self.run(1000);
        self.nodes[node].answers.remove(&7)
    }

    /// Every node's log, state file and gossip have these members.
    fn check_members(&self, members: &[usize]) {
        let expected: Vec<MemberRecord> = members.iter().copied().map(member).collect();
        for (at, node) in self.nodes.iter().enumerate() {
            let view = node.engine.view();
            assert_eq!(view.members, expected, "node {at}");
            assert!(!view.is_change_pending, "node {at}");
            assert_eq!(node.saved.as_ref().and_then(|state| state.founding.as_ref()).unwrap().members, expected);
            assert_eq!(node.told.as_ref().unwrap().members, expected, "node {at}");
            let role = if members.contains(&at) { Role::Follower } else { Role::Clone };
            assert!(
                view.role == role || (view.role == Role::Leader && role == Role::Follower),
                "{at}: {:?}",
                view.role
            );
        }
    }
}

#[test]
fn a_clone_is_put_in_and_the_leader_out() {
    let mut cluster = Cluster::new(3, 1);
    cluster.check_members(&[0, 1, 2]);
    let leader = cluster.leader();
    assert_eq!(cluster.change(leader, MemberChange::Add(member(3))), Some(Ok(())));
    cluster.check_members(&[0, 1, 2, 3]);
    assert_eq!(cluster.change(leader, MemberChange::Remove(id(leader))), Some(Ok(())));
    cluster.run(1000);
    let left: Vec<usize> = (0..4).filter(|&node| node != leader).collect();
    cluster.check_members(&left);
    let next = cluster.leader();
    assert_ne!(next, leader);
    // And back in again.
    assert_eq!(cluster.change(next, MemberChange::Add(member(leader))), Some(Ok(())));
    let expected: Vec<usize> = left.into_iter().chain([leader]).collect();
    cluster.check_members(&expected);
}

#[test]
fn what_would_lose_the_quorum_or_makes_no_sense_is_refused_with_words() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.leader();
    let mut check = |node: usize, change: MemberChange, words: &str| {
        let answer = cluster.change(node, change).expect("an answer").unwrap_err();
        assert!(answer.contains(words), "{answer}");
        cluster.check_members(&[0, 1, 2]);
    };
    check((leader + 1) % 3, MemberChange::Add(member(3)), "does not lead");
    check(leader, MemberChange::Add(member(1)), "is a member already");
    check(leader, MemberChange::Remove(id(3)), "is not a member");
    check(leader, MemberChange::Add(member(9)), "start it as a clone first");
    let gone = (leader + 2) % 3;
    cluster.cut.insert(gone);
    cluster.nodes[leader].engine.handle_follower_link_down(id(gone));
    let kept = (leader + 1) % 3;
    let answer = cluster.change(leader, MemberChange::Remove(id(kept))).unwrap().unwrap_err();
    assert!(answer.contains("only 1 of the 2 members that would be left"), "{answer}");
    assert_eq!(cluster.change(leader, MemberChange::Remove(id(gone))), Some(Ok(())), "the dead one may go");
}

#[test]
fn a_change_whose_leader_is_cut_off_is_answered_as_unknown_and_undone() {
    let mut cluster = Cluster::new(3, 1);
    let old = cluster.leader();
    cluster.cut.insert(old);
    let answer = cluster.change(old, MemberChange::Add(member(3))).expect("an answer").unwrap_err();
    assert!(answer.contains("it may come into force or not; look at the status"), "{answer}");
    assert_eq!(cluster.nodes[old].engine.members().len(), 4, "in its log");
    // The others notice that their link is dead.
    for follower in (0..4).filter(|&node| node != old) {
        cluster.nodes[follower].engine.handle_leader_link(id(old), false);
        cluster.nodes[follower].data = None;
    }
    cluster.run(2000);
    assert_ne!(cluster.leader(), old);
    cluster.cut.clear();
    cluster.run(2000);
    cluster.check_members(&[0, 1, 2]);
}

#[test]
fn leadership_is_handed_to_whom_the_operator_names() {
    let mut cluster = Cluster::new(3, 0);
    let old = cluster.leader();
    let to = (old + 1) % 3;
    cluster.nodes[old].engine.handle_control(ControlInput::Resign { token: 5, to: Some(id(to)) });
    cluster.run(500);
    assert_eq!(cluster.nodes[old].answers.get(&5), Some(&Ok(())));
    assert_eq!(cluster.leader(), to);
}

/// A leader with a full disk lets another lead before its chunks are used up, and nobody hands back to it.
#[test]
fn a_leader_with_a_full_disk_hands_over_before_it_has_to_refuse() {
    let mut cluster = Cluster::new(3, 0);
    let old = cluster.leader();
    cluster.set_full(old, true);
    cluster.run(500);
    let leader = cluster.leader();
    assert_ne!(leader, old);
    for written in 0..60 {
        let answer = cluster.write(leader);
        assert!(matches!(answer, Some(Answer::Appended { .. })), "write {written}: {answer:?}");
    }
    assert_eq!(cluster.leader(), leader);
    let follower = |cluster: &Cluster| {
        let followers = cluster.nodes[leader].engine.view().followers;
        followers.into_iter().find(|follower| follower.node == id(old)).unwrap()
    };
    let behind = follower(&cluster);
    assert!(
        behind.is_full && behind.acknowledged <= LogPosition(2 << 20) && behind.lag_bytes > 500 << 10,
        "{behind:?}"
    );
    // It comes back by itself, through the chunks that it missed.
    cluster.set_full(old, false);
    cluster.run(1000);
    let whole = follower(&cluster);
    assert!(!whole.is_full && whole.lag_bytes == 0, "{whole:?}");
}

/// What a majority cannot write is refused at once, with its reason; what was taken before is committed.
#[test]
fn full_followers_are_a_reason_to_refuse_writes_and_nothing_else() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.leader();
    let full = [(leader + 1) % 3, (leader + 2) % 3];
    full.iter().for_each(|&node| cluster.set_full(node, true));
    cluster.run(200);
    let mut written = 0;
    let refusal = loop {
        match cluster.write(leader) {
            Some(Answer::Appended { .. }) => written += 1,
            other => break other,
        }
        assert!(written < 60, "two chunks have no room for more than 40");
    };
    assert_eq!(refusal, Some(Answer::NoQuorumRoom));
    assert!((30..=40).contains(&written), "{written} writes");
    let answer = cluster.change(leader, MemberChange::Remove(id(full[0])));
    assert_eq!(answer, Some(Ok(())), "the reserve is for records like this");
    assert_eq!(cluster.change(leader, MemberChange::Add(member(full[0]))), Some(Ok(())));
    cluster.nodes[leader].replies.clear();
    let ticket = Ticket { edge: 0, key: 2 };
    cluster.nodes[leader].engine.handle_request(Request::Barrier { ticket }).unwrap();
    cluster.run(200);
    assert!(matches!(cluster.nodes[leader].replies[..], [Answer::Confirmed { .. }]), "reads go on");
    assert_eq!(cluster.leader(), leader, "nobody has more room");
    // One of them is enough.
    cluster.set_full(full[0], false);
    cluster.run(300);
    for _ in 0..30 {
        let answer = cluster.write(leader);
        assert!(matches!(answer, Some(Answer::Appended { .. })), "{answer:?}");
    }
    cluster.set_full(full[1], false);
    cluster.run(500);
    let ends: Vec<_> = cluster.nodes.iter().map(|node| node.engine.positions().2).collect();
    assert!(ends.iter().all(|end| *end == ends[0]) && ends[0] > LogPosition(3 << 20), "{ends:?}");
}

/// A full node and one that is gone: nothing can be committed, and that is said.
#[test]
fn a_silent_member_has_no_room_when_another_is_full() {
    let mut cluster = Cluster::new(3, 0);
    let leader = cluster.leader();
    let (full, gone) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.cut.insert(gone);
    cluster.run(1000);
    assert!(matches!(cluster.write(leader), Some(Answer::Appended { .. })));
    cluster.set_full(full, true);
    cluster.run(200);
    let answers: Vec<_> = (0..45).filter_map(|_| cluster.write(leader)).collect();
    assert_eq!(answers.len(), 45, "nobody waits");
    assert_eq!(answers.last(), Some(&Answer::NoQuorumRoom));
}
