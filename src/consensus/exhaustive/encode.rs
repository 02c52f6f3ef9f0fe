//! A state in as few bytes as tell it from all others, and the same for all states that differ in the nodes' names only.
//!
//! What is left out follows from what is there (the epoch table from the log), does not matter to any later step (names of
//! subscriptions, times, words for people), or is the same in all states (flush times, priorities).

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::consensus::Message;
use crate::consensus::following::Link;
use crate::consensus::replica::{Replica, State};
use crate::types::{LogPosition, NodeId, Term};

use super::model::{Bounds, Content, Host, Letter, NODES, Record, World, index_of, mask_of, records_to};

/// New numbers of the nodes.
type Names = [u8; NODES];

const ALL_NAMES: [Names; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// In place of a node or a number that is not there.
const NONE: u8 = 0xFF;

struct Encoder {
    names: Names,
    out: Vec<u8>,
}

impl World {
    /// 64 bits: with ten million states, the chance that two of them are taken for one is below one in 300,000.
    pub(super) fn fingerprint(&self, bounds: &Bounds) -> u64 {
        // Nodes have the same name as long as they may do the same. Effects that are held back are not renamed.
        let class = |at: u8| (at < bounds.candidates, at < bounds.members);
        let fits = |names: &&Names| (0..NODES as u8).all(|at| class(at) == class(names[usize::from(at)]));
        let is_plain = bounds.slow_saves || self.hosts.iter().any(|host| !host.replica.held_back.is_empty());
        let count = if is_plain { 1 } else { ALL_NAMES.len() };
        let hash = |names: &Names| FixedState::with_seed(1).hash_one(&self.encode(*names)[..]);
        ALL_NAMES[..count].iter().filter(fits).map(hash).min().expect("the names as they are fit")
    }

    fn encode(&self, names: Names) -> Vec<u8> {
        let mut encoder = Encoder { names, out: Vec::with_capacity(256) };
        for new in 0..NODES as u8 {
            let at = names.iter().position(|name| *name == new).expect("names are a permutation");
            self.encode_host(at, &mut encoder);
        }
        self.encode_letters(&mut encoder);
        let ghost = &self.ghost;
        encoder.records(&ghost.committed);
        encoder.out.extend(ghost.commits.iter().flat_map(|(term, records)| [term.0 as u8, *records as u8]));
        encoder.out.push(NONE);
        encoder.out.extend(ghost.led.iter().map(|term| term.0 as u8));
        encoder.out.extend([ghost.entries_left, ghost.changes_left, ghost.crashes_left, ghost.breaks_left]);
        encoder.out
    }

    fn encode_host(&self, at: usize, encoder: &mut Encoder) {
        let host = &*self.hosts[at];
        let replica = &host.replica;
        encoder.records(&host.log);
        encoder.terms(&[replica.term, host.durable.0, host.hinted]);
        encoder.node(replica.voted_for);
        encoder.node(host.durable.1);
        encoder.positions(&[replica.commit_position, replica.flushed]);
        encoder.out.extend([host.flushed as u8, u8::from(host.has_data), replica.save_asked as u8]);
        encoder.node(host.open.map(|(leader, _)| crate::consensus::harness::node(leader)));
        encoder.mask(mask_of(replica.lists.last()));
        encoder.mask(replica.lists.before().map_or(0, |before| mask_of(before)));
        encoder.out.push(u8::from(replica.is_change_pending()));
        for (sequence, term, vote) in &host.saves {
            encoder.out.extend([*sequence as u8, term.0 as u8]);
            encoder.node(*vote);
        }
        if !replica.held_back.is_empty() {
            let held_back = FixedState::with_seed(2).hash_one(&replica.held_back);
            encoder.out.extend(held_back.to_le_bytes());
        }
        self.encode_role(replica, encoder);
    }

    fn encode_role(&self, replica: &Replica, encoder: &mut Encoder) {
        match &replica.state {
            State::Following(following) => {
                let link = match following.link {
                    Link::Down => 0,
                    Link::Connecting => 1,
                    Link::Subscribing(_) => 2,
                    Link::Truncating(_) => 3,
                    Link::Streaming(_) => 4,
                };
                let (retries, is_heard) = (following.retry_at.is_some(), replica.leader_heard.is_some());
                encoder.out.extend([0, link, u8::from(retries), u8::from(is_heard), following.answered_round as u8]);
                encoder.node(following.leader);
                encoder.positions(&[following.leader_commit]);
            }
            State::PreCandidate(votes) => {
                encoder.out.push(1);
                encoder.mask(mask_of(&votes.granted));
            }
            State::Candidate(votes) => {
                encoder.out.push(2);
                encoder.mask(mask_of(&votes.granted));
            }
            State::Leading(leading) => {
                encoder.out.extend([3, u8::from(leading.is_leaving), u8::from(replica.is_resigning())]);
                let mut tracked: [[u8; 3]; NODES] = [[NONE; 3]; NODES];
                for (follower, known) in replica.followers() {
                    let follower = index_of(follower);
                    let number = self.hosts[follower].names.iter().position(|name| *name == known.subscription);
                    let link = self.hosts[follower].names.len() - number.expect("it was given once");
                    tracked[usize::from(encoder.names[follower])] =
                        [link as u8, records_to(known.acknowledged) as u8, u8::from(known.linked)];
                }
                encoder.out.extend(tracked.as_flattened());
            }
        }
    }

    /// Letters are a set, but for those on one link, which come in their order.
    fn encode_letters(&self, encoder: &mut Encoder) {
        let mut all: Vec<Vec<u8>> = Vec::with_capacity(self.letters.len());
        for (index, letter) in self.letters.iter().enumerate() {
            let before = self.letters[..index].iter().filter(|before| letter.is_behind(before)).count();
            let mut one = Encoder { names: encoder.names, out: Vec::with_capacity(24) };
            let [from, to] = [letter.from, letter.to].map(|at| encoder.names[at]);
            one.out.extend([from, to, self.link_from_last(letter), before as u8]);
            one.content(&letter.content);
            all.push(one.out);
        }
        all.sort_unstable();
        for one in all {
            encoder.out.push(one.len() as u8);
            encoder.out.extend(one);
        }
        encoder.out.push(NONE);
    }

    /// Counted from the follower's last link: how many it had does not matter.
    fn link_from_last(&self, letter: &Letter) -> u8 {
        let Content::Message(message) = &letter.content else { return NONE };
        let is_follower = matches!(
            message,
            Message::Subscribe { .. } | Message::Acknowledge { .. } | Message::HeartbeatAnswer { .. }
        );
        let follower: &Host = &self.hosts[if is_follower { letter.from } else { letter.to }];
        follower.names.len() as u8 - letter.link
    }
}

impl Encoder {
    fn node(&mut self, node: Option<NodeId>) {
        self.out.push(node.map_or(NONE, |node| self.names[index_of(node)]));
    }

    fn mask(&mut self, mask: u8) {
        let bits = (0..NODES).filter(|at| mask & (1 << at) != 0).map(|at| 1 << self.names[at]);
        self.out.push(bits.sum());
    }

    fn terms(&mut self, terms: &[Term]) {
        self.out.extend(terms.iter().map(|term| term.0 as u8));
    }

    fn positions(&mut self, positions: &[LogPosition]) {
        self.out.extend(positions.iter().map(|position| records_to(*position) as u8));
    }

    fn records(&mut self, records: &[Record]) {
        self.out.push(records.len() as u8);
        for record in records {
            self.terms(&[record.term]);
            self.mask(record.list.unwrap_or(0));
        }
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Vote(request) => {
                let end = records_to(LogPosition(request.log_end)) as u8;
                self.out.extend([0, end, u8::from(request.transfer)]);
                self.terms(&[request.term, request.last_term]);
            }
            Content::Answer { asked, response } => {
                self.out.extend([1, u8::from(response.granted)]);
                self.terms(&[*asked, response.term]);
                self.node(response.leader);
            }
            Content::Message(message) => self.message(message),
        }
    }

    fn message(&mut self, message: &Message) {
        self.terms(&[message.term()]);
        match message {
            Message::Subscribe { epochs, log_end, .. } => {
                self.out.push(2);
                self.positions(&[*log_end]);
                for epoch in epochs {
                    self.terms(&[epoch.term]);
                    self.positions(&[epoch.position]);
                }
            }
            Message::Subscribed { start, .. } => {
                self.out.push(3);
                self.positions(&[*start]);
            }
            Message::Refused { .. } => self.out.push(4),
            Message::Acknowledge { position, .. } => {
                self.out.push(5);
                self.positions(&[*position]);
            }
            Message::Heartbeat { round, commit_position, .. } => {
                self.out.extend([6, *round as u8]);
                self.positions(&[*commit_position]);
            }
            Message::HeartbeatAnswer { round, .. } => self.out.extend([7, *round as u8]),
        }
    }
}
