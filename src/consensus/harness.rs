//! A handful of replicas on a table: virtual time, links that can be cut, logs that are lists of records. For tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use crate::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term, Ticks};

use super::changing::{Change, RestoredList};
use super::effects::Effect;
use super::epochs::EpochTable;
use super::message::{Message, TransferRequest, VoteRequest, VoteResponse};
use super::replica::{Replica, ReplicaOptions, Restored};

pub(super) const RECORD_BYTES: u64 = 64;

#[derive(Debug)]
enum Parcel {
    Link { up: bool },
    Message(Message),
    Vote { pre: bool, request: VoteRequest },
    VoteAnswer { pre: bool, term: Term, response: VoteResponse },
    Transfer(TransferRequest),
    Declined(Term),
}

pub(super) struct Host {
    pub(super) replica: Option<Replica>,
    pub(super) options: ReplicaOptions,
    /// Terms of the records, one each `RECORD_BYTES`.
    pub(super) log: Vec<Term>,
    pub(super) flushed: usize,
    epochs: Vec<Epoch>,
    /// The member lists in the log, by record.
    lists: Vec<(usize, Vec<NodeId>)>,
    pub(super) is_suspect: bool,
    pub(super) durable: (Term, Option<NodeId>),
    pub(super) commit: LogPosition,
    pub(super) auto_flush: bool,
    pub(super) auto_save: bool,
    pending_saves: Vec<(u64, Term, Option<NodeId>)>,
    data: Option<(NodeId, Guid)>,
    votes: BTreeMap<u64, (usize, bool, Term)>,
    pub(super) confirmed: u64,
    pub(super) fatal: Option<String>,
    /// Stopped, not dead: connections to it open, and nothing is answered.
    pub(super) stopped: bool,
}

/// See the module.
pub(super) struct Table {
    pub(super) now: Ticks,
    pub(super) hosts: Vec<Host>,
    parcels: VecDeque<(usize, usize, Parcel)>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    next_token: u64,
    pub(super) trace: String,
}

pub(super) fn node(index: usize) -> NodeId {
    NodeId(Guid([index as u8 + 1; 16]))
}

fn index_of(node: NodeId) -> usize {
    usize::from(node.0.0[0]) - 1
}

fn name(node: NodeId) -> char {
    char::from(b'a' + index_of(node) as u8)
}

impl Table {
    /// `members` voting replicas and `clones` others.
    pub(super) fn new(members: usize, clones: usize) -> Table {
        let mut table = Table {
            now: Ticks(0),
            hosts: Vec::new(),
            parcels: VecDeque::new(),
            cut: BTreeSet::new(),
            next_token: 0,
            trace: String::new(),
        };
        for index in 0..members + clones {
            let options = ReplicaOptions {
                node: node(index),
                cluster: ClusterId(Guid([9; 16])),
                members: (0..members).map(node).collect(),
                election_timeout: Duration::from_millis(700),
                heartbeat_interval: Duration::from_millis(100),
                priority: 0,
                seed: index as u64,
                is_jittered: true,
                planted: None,
            };
            let replica = Some(Replica::new(options.clone(), Restored::default(), table.now));
            table.hosts.push(Host {
                replica,
                options,
                log: Vec::new(),
                flushed: 0,
                epochs: Vec::new(),
                lists: Vec::new(),
                is_suspect: false,
                durable: (Term::ZERO, None),
                commit: LogPosition::ZERO,
                auto_flush: true,
                auto_save: true,
                pending_saves: Vec::new(),
                data: None,
                votes: BTreeMap::new(),
                confirmed: 0,
                fatal: None,
                stopped: false,
            });
        }
        table
    }

    pub(super) fn replica(&self, at: usize) -> &Replica {
        self.hosts[at].replica.as_ref().expect("the node runs")
    }

    /// Runs one replica and carries out what it wants; parcels wait in the mail.
    pub(super) fn run<T>(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut Replica, Ticks, &mut Vec<Effect>) -> T,
    ) -> Option<T> {
        let mut effects = Vec::new();
        let now = self.now;
        let result = self.hosts[at].replica.as_mut().map(|replica| run(replica, now, &mut effects));
        for effect in effects {
            self.carry_out(at, effect);
        }
        result
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let _ = match &effect {
            Effect::Lead { term } => writeln!(self.trace, "{} leads term {term}", name(node(at))),
            Effect::StepDown => writeln!(self.trace, "{} steps down", name(node(at))),
            Effect::Truncate { to } if to.0 < self.hosts[at].log.len() as u64 * RECORD_BYTES => {
                writeln!(self.trace, "{} cuts its log at {to}", name(node(at)))
            }
            Effect::Send { to, message: Message::Refused { .. } } => {
                writeln!(self.trace, "{} refuses {}", name(node(at)), name(*to))
            }
            Effect::HandOver { to, reason } => {
                writeln!(self.trace, "{} hands over to {}: {reason}", name(node(at)), name(*to))
            }
            Effect::GiveUp { count } => writeln!(self.trace, "{} gives up {count} messages", name(node(at))),
            Effect::Cleared => writeln!(self.trace, "{} is suspect no more", name(node(at))),
            _ => Ok(()),
        };
        let host = &mut self.hosts[at];
        match effect {
            Effect::SaveState { sequence, term, voted_for } => {
                host.pending_saves.push((sequence, term, voted_for));
                if host.auto_save {
                    self.save(at);
                }
            }
            Effect::Send { to, message } => self.parcels.push_back((at, index_of(to), Parcel::Message(message))),
            Effect::RequestVote { to, pre, request } => {
                self.parcels.push_back((at, index_of(to), Parcel::Vote { pre, request }));
            }
            Effect::AnswerVote { token, response } => {
                let (asker, pre, term) = host.votes.remove(&token).expect("a vote that was asked for");
                self.parcels.push_back((at, asker, Parcel::VoteAnswer { pre, term, response }));
            }
            Effect::RequestTransfer { to, request } => {
                self.parcels.push_back((at, index_of(to), Parcel::Transfer(request)));
            }
            Effect::Follow { leader } => {
                let up = self.hosts[index_of(leader)].replica.is_some() && !self.is_cut(at, index_of(leader));
                self.parcels.push_back((index_of(leader), at, Parcel::Link { up }));
            }
            Effect::Unfollow => host.data = None,
            Effect::Truncate { to } => {
                let keep = (to.0 / RECORD_BYTES) as usize;
                host.log.truncate(keep);
                host.flushed = host.flushed.min(keep);
                host.epochs.retain(|epoch| epoch.position < to);
                host.lists.retain(|(record, _)| *record < keep);
                self.run(at, |replica, _, effects| replica.handle_truncated(effects));
            }
            Effect::OpenData { leader, subscription, .. } => host.data = Some((leader, subscription)),
            Effect::Lead { term } => {
                let position = LogPosition(host.log.len() as u64 * RECORD_BYTES);
                let id = Guid([term.0 as u8; 16]);
                self.append_record(at, term, Some(Epoch { term, position, id }), None);
            }
            Effect::Commit { position } => {
                assert!(position >= host.commit, "commit of {} moved back", name(node(at)));
                host.commit = position;
            }
            Effect::Confirmed { round } => host.confirmed = round,
            Effect::Fatal { reason } => host.fatal = Some(reason),
            Effect::Cleared => host.is_suspect = false,
            Effect::GiveUp { .. }
            | Effect::HandOver { .. }
            | Effect::Serve { .. }
            | Effect::DropFollower { .. }
            | Effect::StepDown
            | Effect::Changed => {}
        }
    }

    /// Makes what waits to be saved durable.
    pub(super) fn save(&mut self, at: usize) {
        for (sequence, term, voted_for) in std::mem::take(&mut self.hosts[at].pending_saves) {
            self.hosts[at].durable = (term, voted_for);
            self.run(at, |replica, now, effects| replica.handle_saved(now, sequence, effects));
        }
    }

    fn append_record(&mut self, at: usize, term: Term, epoch: Option<Epoch>, list: Option<Vec<NodeId>>) {
        let host = &mut self.hosts[at];
        host.log.push(term);
        host.epochs.extend(epoch);
        let end = LogPosition(host.log.len() as u64 * RECORD_BYTES);
        let replica = host.replica.as_mut().expect("the node runs");
        replica.handle_appended(end, epoch);
        if let Some(list) = list {
            host.lists.push((host.log.len() - 1, list.clone()));
            replica.handle_list(LogPosition(end.0 - RECORD_BYTES), list);
        }
        if host.auto_flush {
            self.flush(at);
        }
    }

    /// The leader appends one record.
    pub(super) fn append(&mut self, at: usize) {
        assert!(self.replica(at).is_leader(), "{} leads", name(node(at)));
        let term = self.replica(at).term();
        self.append_record(at, term, None, None);
    }

    /// The leader begins a change of the member list, or says why not.
    pub(super) fn change(&mut self, at: usize, change: Change) -> Result<(), String> {
        let list = self.replica(at).plan_change(self.now, change)?;
        let term = self.replica(at).term();
        self.append_record(at, term, None, Some(list));
        Ok(())
    }

    /// Flushes all that the node has.
    pub(super) fn flush(&mut self, at: usize) {
        self.hosts[at].flushed = self.hosts[at].log.len();
        let end = LogPosition(self.hosts[at].log.len() as u64 * RECORD_BYTES);
        self.run(at, |replica, _, effects| replica.handle_flushed(end, effects));
    }

    /// Delivers mail and log bytes until nothing moves.
    pub(super) fn deliver(&mut self) {
        for _ in 0..10_000 {
            let parcel = self.parcels.pop_front();
            let copied = parcel.is_none() && self.copy_logs();
            match parcel {
                Some((from, to, parcel)) => self.hand_over(from, to, parcel),
                None if !copied => return,
                None => {}
            }
        }
        panic!("the mail never ends:\n{}", self.trace);
    }

    pub(super) fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn hand_over(&mut self, from: usize, to: usize, parcel: Parcel) {
        if self.hosts[to].stopped {
            return;
        }
        if self.is_cut(from, to) && !matches!(parcel, Parcel::Link { up: false }) {
            return;
        }
        match parcel {
            Parcel::Link { up } => {
                self.run(to, |replica, now, effects| {
                    if up {
                        replica.handle_link_up(now, node(from), effects)
                    } else {
                        replica.handle_link_down(now, node(from), effects)
                    }
                });
            }
            Parcel::Message(message) => {
                self.run(to, |replica, now, effects| replica.handle_message(now, node(from), message, effects));
            }
            Parcel::Vote { pre, request } => {
                self.next_token += 1;
                let token = self.next_token;
                self.hosts[to].votes.insert(token, (from, pre, request.term));
                self.run(to, |replica, now, effects| replica.handle_vote_request(now, token, pre, request, effects));
            }
            Parcel::VoteAnswer { pre, term, response } => {
                self.run(to, |replica, now, effects| replica.handle_vote_answer(now, pre, term, response, effects));
            }
            Parcel::Transfer(request) => {
                let result = self.run(to, |replica, now, effects| replica.handle_transfer(now, request, effects));
                if result.is_some_and(|result| result.is_err()) {
                    self.parcels.push_back((to, from, Parcel::Declined(request.term)));
                }
            }
            Parcel::Declined(term) => {
                let decline = |replica: &mut Replica, now, effects: &mut Vec<Effect>| {
                    replica.handle_transfer_declined(now, node(from), term, effects)
                };
                if self.run(to, decline) == Some(true) {
                    let _ = writeln!(self.trace, "{} does not take over from {}", name(node(from)), name(node(to)));
                }
            }
        }
    }

    /// Copies one record on one data link.
    fn copy_logs(&mut self) -> bool {
        for at in 0..self.hosts.len() {
            let Some((leader, subscription)) = self.hosts[at].data else {
                continue;
            };
            let leader = index_of(leader);
            let welcome = self.hosts[at].replica.as_ref().is_some_and(|replica| replica.accepts_data(subscription));
            let leads = self.hosts[leader].replica.as_ref().is_some_and(Replica::is_leader);
            let next = self.hosts[at].log.len();
            if !welcome
                || !leads
                || self.hosts[leader].stopped
                || self.hosts[at].stopped
                || self.is_cut(at, leader)
                || next >= self.hosts[leader].log.len()
            {
                continue;
            }
            let term = self.hosts[leader].log[next];
            let position = LogPosition(next as u64 * RECORD_BYTES);
            let epoch = self.hosts[leader].epochs.iter().find(|epoch| epoch.position == position).copied();
            let list =
                self.hosts[leader].lists.iter().find(|(record, _)| *record == next).map(|(_, list)| list.clone());
            let now = self.now;
            self.hosts[at].replica.as_mut().expect("welcome").handle_data(now);
            self.append_record(at, term, epoch, list);
            return true;
        }
        false
    }

    /// Lets time pass for every node, a millisecond a step. Gossip runs each 20 ms.
    pub(super) fn advance(&mut self, millis: u64) {
        for step in 0..millis {
            if step % 20 == 0 {
                self.gossip();
            }
            self.now = self.now.after(Duration::from_millis(1));
            for at in 0..self.hosts.len() {
                let now = self.now;
                let stopped = self.hosts[at].stopped;
                if !stopped && self.hosts[at].replica.as_ref().is_some_and(|replica| now >= replica.next_deadline()) {
                    self.run(at, |replica, now, effects| replica.handle_tick(now, effects));
                }
            }
            self.deliver();
        }
    }

    /// Lets the election deadline of one node pass, and of no other.
    pub(super) fn time_out(&mut self, at: usize) {
        let deadline = self.replica(at).election_deadline;
        self.run(at, |replica, _, effects| {
            replica.leader_heard = None;
            replica.handle_tick(deadline, effects);
        });
        self.deliver();
    }

    /// Every leader tells the nodes that it reaches.
    fn gossip(&mut self) {
        for at in 0..self.hosts.len() {
            if !self.hosts[at].stopped && self.hosts[at].replica.as_ref().is_some_and(Replica::is_leader) {
                self.announce(at);
            }
        }
    }

    /// Tells every node in reach that `leader` leads.
    pub(super) fn announce(&mut self, leader: usize) {
        let term = self.replica(leader).term();
        for at in (0..self.hosts.len()).filter(|&at| at != leader) {
            if self.is_cut(at, leader) || self.hosts[at].stopped {
                continue;
            }
            self.run(at, |replica, now, effects| replica.handle_leader_seen(now, node(leader), term, effects));
        }
        self.deliver();
    }

    pub(super) fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.replica = None;
        host.data = None;
        host.pending_saves.clear();
        host.log.truncate(host.flushed);
        let end = LogPosition(host.log.len() as u64 * RECORD_BYTES);
        host.epochs.retain(|epoch| epoch.position < end);
        host.lists.retain(|(record, _)| *record < host.flushed);
        self.parcels.retain(|(from, to, _)| *from != at && *to != at);
        for other in (0..self.hosts.len()).filter(|&other| other != at) {
            self.run(other, |replica, now, effects| replica.handle_link_down(now, node(at), effects));
        }
    }

    /// A node that is down loses its last records although they were flushed; it will know that something is wrong.
    pub(super) fn lose(&mut self, at: usize, records: usize) {
        let host = &mut self.hosts[at];
        assert!(host.replica.is_none(), "the node is down");
        host.log.truncate(host.log.len() - records);
        host.flushed = host.log.len();
        host.epochs.retain(|epoch| epoch.position.0 < host.flushed as u64 * RECORD_BYTES);
        host.lists.retain(|(record, _)| *record < host.flushed);
        host.is_suspect = true;
    }

    pub(super) fn restart(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let before = host.lists.iter().rev().nth(1).map_or(&host.options.members, |(_, list)| list).clone();
        let list = host.lists.last().map(|(record, members)| RestoredList {
            position: LogPosition(*record as u64 * RECORD_BYTES),
            members: members.clone(),
            before,
        });
        let restored = Restored {
            term: host.durable.0,
            voted_for: host.durable.1,
            epochs: EpochTable::new(host.epochs.clone()),
            log_end: LogPosition(host.log.len() as u64 * RECORD_BYTES),
            commit_position: LogPosition::ZERO,
            list,
            is_suspect: host.is_suspect,
        };
        host.commit = LogPosition::ZERO;
        host.replica = Some(Replica::new(host.options.clone(), restored, self.now));
    }

    /// Breaks the links between two nodes: both notice.
    pub(super) fn cut(&mut self, one: usize, other: usize) {
        self.cut.insert((one.min(other), one.max(other)));
        for (at, peer) in [(one, other), (other, one)] {
            self.run(at, |replica, now, effects| replica.handle_link_down(now, node(peer), effects));
        }
    }

    /// One line a node: role, term, log, commit, leader.
    pub(super) fn show(&mut self) {
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            let _ = match &host.replica {
                None => writeln!(self.trace, "{}: down", name(node(at))),
                Some(replica) => {
                    let role = if replica.is_leader() { "leader" } else { "follower" };
                    let leader = replica.leader().map_or('-', name);
                    let terms: Vec<String> = host.log.iter().map(Term::to_string).collect();
                    let members: String = replica.members().iter().copied().map(name).collect();
                    let pending = if replica.is_change_pending() { "?" } else { "" };
                    let list =
                        if host.lists.is_empty() { String::new() } else { format!(" members={members}{pending}") };
                    let suspect = if replica.is_suspect() { " suspect" } else { "" };
                    let resigning = if replica.is_resigning() { " resigning" } else { "" };
                    writeln!(
                        self.trace,
                        "{}: {role} term={} leader={leader} log=[{}] flushed={} commit={}{list}{suspect}{resigning}",
                        name(node(at)),
                        replica.term(),
                        terms.join(" "),
                        replica.flushed(),
                        replica.commit_position()
                    )
                }
            };
        }
    }
}
