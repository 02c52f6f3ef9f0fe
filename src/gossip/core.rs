//! Gossip of one node: rounds, merging, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::addresses::{AddressRule, Addresses};
use super::directory::KnownNode;
use super::document::{self, Document, Shown};
use super::exchange::{Exchange, NODES_MAX, Relayed};
use super::founding::{Founding, Standing, Step};
use super::member::{Member, MemberState, Report};
use super::table::{Merged, Table};
use crate::codec::record::MembershipBody;
use crate::types::{ClusterId, Guid, NodeId, Term, Ticks, WallTime};

/// The first rounds follow each other quickly, so that nodes that start together find each other.
const FIRST_ROUNDS: u32 = 20;
const FIRST_ROUNDS_INTERVAL: Duration = Duration::from_millis(100);
/// A node is given at least this long before its silence means something.
const SILENCE_MIN: Duration = Duration::from_secs(5);
/// Without a word for this many rounds a node counts as dead.
const SILENT_ROUNDS: u32 = 5;
/// Complaints are made once; after this many different ones the record of them is cleared.
const COMPLAINTS_MAX: usize = 256;
/// Seeds that are taken at most.
const SEEDS_MAX: usize = NODES_MAX;

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// This node.
    pub node: NodeId,
    /// This run of it: random.
    pub instance: Guid,
    /// `ClusterSize`.
    pub cluster_size: usize,
    /// `ChunkSize`.
    pub chunk_size: u64,
    /// As advertised.
    pub addresses: Addresses,
    /// `ExtAdvertise`.
    pub ext_advertise: Vec<AddressRule>,
    /// `NodePriority`.
    pub priority: i32,
    /// `ReadOnlyReplica`.
    pub read_only: bool,
    /// `GossipIntervalMs`.
    pub interval: Duration,
    /// `GossipAllowedDifferenceMs`.
    pub allowed_difference: Duration,
    /// What the durable state says about the cluster.
    pub standing: Standing,
    /// Seed of the choice of partners.
    pub random_seed: u64,
}

/// A node as gossip heard of it last.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// What it says.
    pub member: &'a Member,
    /// Whether it counts as alive.
    pub is_alive: bool,
    /// How long ago it was heard of.
    pub age: Duration,
}

/// A seed: an address tried to find the others.
#[derive(Clone, Copy, Debug)]
struct Seed {
    address: SocketAddr,
    /// The node that answered there.
    node: Option<NodeId>,
    failed: bool,
}

/// Gossip of one node, sans-IO. Lives on the control thread.
///
/// Methods come in families: `handle_*` for what the world reports, `poll_*` for what to do next, the rest are getters
/// and commands. `now` is monotonic and decides; `wall` is shown.
#[derive(Debug)]
pub struct Gossip {
    own: Member,
    interval: Duration,
    allowed_difference: Duration,
    table: Table,
    seeds: Vec<Seed>,
    founding: Founding,
    random: fastrand::Rng,
    next_round: Ticks,
    rounds: u32,
    /// Addresses with an exchange under way; true when another one is to follow because the own view changed meanwhile.
    in_flight: BTreeMap<SocketAddr, bool>,
    /// Addresses to call at once.
    urgent: BTreeSet<SocketAddr>,
    notices: Vec<String>,
    complained: BTreeSet<String>,
    wall: WallTime,
}

impl Gossip {
    /// Gossip of a node that starts now.
    #[must_use]
    pub fn new(options: GossipOptions, now: Ticks, wall: WallTime) -> Gossip {
        let mut own = Member {
            node: options.node,
            instance: options.instance,
            started: wall,
            version: 1,
            cluster_size: u32::try_from(options.cluster_size).expect("a small number"),
            chunk_size: options.chunk_size,
            accepted_founding: None,
            membership: None,
            addresses: options.addresses,
            ext_advertise: options.ext_advertise,
            priority: options.priority,
            read_only: options.read_only,
            time_stamp: wall,
            report: Report::default(),
        };
        let founding = Founding::new(own.record(), options.cluster_size, options.read_only, options.standing, now);
        show_standing(&mut own, founding.standing());
        Gossip {
            own,
            interval: options.interval,
            allowed_difference: options.allowed_difference,
            table: Table::new((options.interval * SILENT_ROUNDS).max(SILENCE_MIN)),
            seeds: Vec::new(),
            founding,
            random: fastrand::Rng::with_seed(options.random_seed),
            next_round: now,
            rounds: 0,
            in_flight: BTreeMap::new(),
            urgent: BTreeSet::new(),
            notices: Vec::new(),
            complained: BTreeSet::new(),
            wall,
        }
    }

    /// The own node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.own.node
    }

    /// Where the node stands with respect to a cluster.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        self.founding.standing()
    }

    /// The node's internal HTTP address: as it says itself, or as the member list has it.
    #[must_use]
    pub fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let heard = self.table.get(node).map(|entry| entry.member.addresses.int_http);
        heard.or_else(|| self.listed().find(|(listed, _)| *listed == node).map(|(_, address)| address))
    }

    /// All nodes, the own one first.
    #[must_use]
    pub fn nodes(&self, now: Ticks) -> Vec<KnownNode> {
        let own = KnownNode { node: self.own.node, addresses: self.own.addresses, is_alive: true };
        let others = self.table.entries().map(|entry| KnownNode {
            node: entry.member.node,
            addresses: entry.member.addresses,
            is_alive: self.table.is_alive(entry, now),
        });
        std::iter::once(own).chain(others).collect()
    }

    /// All nodes with what they say of themselves, the own one first.
    #[must_use]
    pub fn entries(&self, now: Ticks) -> Vec<Heard<'_>> {
        let own = Heard { member: &self.own, is_alive: true, age: Duration::ZERO };
        let others = self.table.entries().map(|entry| Heard {
            member: &entry.member,
            is_alive: self.table.is_alive(entry, now),
            age: now.since(entry.heard),
        });
        std::iter::once(own).chain(others).collect()
    }

    /// Who leads, as far as the others say: the live node of the newest term that calls itself leader. A hint for
    /// consensus, which finds out for itself.
    #[must_use]
    pub fn leader_hint(&self, now: Ticks) -> Option<(NodeId, Term)> {
        let leads = |state| matches!(state, MemberState::Leader | MemberState::PreLeader);
        let leaders =
            self.table.entries().filter(|entry| leads(entry.member.report.state) && self.table.is_alive(entry, now));
        leaders.map(|entry| (entry.member.node, entry.member.report.term)).max_by_key(|(_, term)| *term)
    }

    /// The document for v5's clients.
    #[must_use]
    pub fn document(&self, now: Ticks) -> Document {
        let own = Shown::Node { member: &self.own, is_alive: true };
        let others = self
            .table
            .entries()
            .map(|entry| Shown::Node { member: &entry.member, is_alive: self.table.is_alive(entry, now) });
        let known = |address| self.table.entries().any(|entry| entry.member.addresses.int_http == address);
        let seeds = self
            .seeds
            .iter()
            .filter(|seed| seed.node.is_none() && !known(seed.address))
            .map(|seed| Shown::Seed { address: seed.address, is_alive: !seed.failed, time_stamp: self.wall });
        document::render(self.own.addresses.int_http, std::iter::once(own).chain(others).chain(seeds))
    }

    /// The own view, to be posted to another node or answered with.
    #[must_use]
    pub fn exchange(&self, now: Ticks) -> Exchange {
        let own = Relayed { heard_ms_ago: 0, member: self.own.clone() };
        let others = self.table.entries().map(|entry| Relayed {
            heard_ms_ago: u64::try_from(now.since(entry.heard).as_millis()).unwrap_or(u64::MAX),
            member: entry.member.clone(),
        });
        Exchange::new(self.own.node, self.own.instance, std::iter::once(own).chain(others).collect())
    }

    /// Freshens the own entry.
    pub fn refresh(&mut self, wall: WallTime, report: Report) {
        self.own.report = report;
        self.own.time_stamp = wall;
        self.own.version += 1;
        self.wall = wall;
    }

    /// The own view changed in a way that others should know now: an extra round goes to all.
    pub fn spread(&mut self) {
        for address in self.targets() {
            match self.in_flight.get_mut(&address) {
                Some(again) => *again = true,
                None => {
                    self.urgent.insert(address);
                }
            }
        }
    }

    /// Replaces the seeds, after a look-up.
    pub fn set_seeds(&mut self, addresses: &[SocketAddr]) {
        let before = std::mem::take(&mut self.seeds);
        let own = self.own.addresses.int_http;
        for address in addresses.iter().copied().filter(|address| *address != own).take(SEEDS_MAX) {
            if !self.seeds.iter().any(|seed| seed.address == address) {
                let known = before.iter().find(|seed| seed.address == address).copied();
                self.seeds.push(known.unwrap_or(Seed { address, node: None, failed: false }));
            }
        }
    }

    /// Whom to post [`Gossip::exchange`] to now. For each a `handle_answer` or `handle_failure` must follow.
    pub fn poll_calls(&mut self, now: Ticks) -> Vec<SocketAddr> {
        let mut calls = std::mem::take(&mut self.urgent);
        if now >= self.next_round {
            self.rounds = self.rounds.saturating_add(1);
            let pause = if self.rounds < FIRST_ROUNDS { FIRST_ROUNDS_INTERVAL } else { self.interval };
            self.next_round = now.after(pause);
            self.table.forget_old(now);
            let targets = self.targets();
            // Until there is a cluster everyone must hear of everyone, soon.
            if !matches!(self.standing(), Standing::Settled(_)) {
                calls.extend(targets);
            } else if !targets.is_empty() {
                calls.insert(targets[self.random.usize(..targets.len())]);
            }
        }
        calls.retain(|address| !self.in_flight.contains_key(address));
        calls.iter().for_each(|address| {
            self.in_flight.insert(*address, false);
        });
        calls.into_iter().collect()
    }

    /// When the next round is due.
    #[must_use]
    pub fn next_round(&self) -> Ticks {
        self.next_round
    }

    /// What the founding of a cluster asks for. `fresh`: see [`Founding::poll`].
    pub fn poll_founding(&mut self, now: Ticks, fresh: ClusterId) -> Vec<Step> {
        let peers: Vec<(&Member, bool)> =
            self.table.entries().map(|entry| (&entry.member, self.table.is_alive(entry, now))).collect();
        let steps = self.founding.poll(now, &peers, fresh);
        self.note_standing();
        steps
    }

    /// The acceptance that [`Step::Accept`] asked for is durable (or failed, and is asked for again later).
    pub fn handle_accepted(&mut self, now: Ticks, done: bool) {
        self.founding.handle_accepted(now, done);
        self.note_standing();
    }

    /// The member list of this node's cluster was changed, and that is committed.
    pub fn handle_members_changed(&mut self, list: MembershipBody) {
        self.founding.handle_members_changed(list);
        self.note_standing();
    }

    /// Another node posted its view.
    ///
    /// # Errors
    /// In words, when the node is none that we may know; nothing changed then.
    pub fn handle_request(&mut self, now: Ticks, wall: WallTime, exchange: &Exchange) -> Result<(), String> {
        // A seed or a DNS name may lead back to this node; the answer tells the caller, which is us.
        if self.is_self(exchange) {
            return Ok(());
        }
        self.check_sender(exchange)?;
        self.merge(now, wall, exchange);
        Ok(())
    }

    /// The node at `address` answered our post with its view.
    pub fn handle_answer(&mut self, now: Ticks, wall: WallTime, address: SocketAddr, exchange: &Exchange) {
        self.finish_call(address);
        if let Some(seed) = self.seeds.iter_mut().find(|seed| seed.address == address) {
            (seed.node, seed.failed) = (Some(exchange.from), false);
        }
        if self.is_self(exchange) {
            return;
        }
        match self.check_sender(exchange) {
            Ok(()) => self.merge(now, wall, exchange),
            // It is alive, but not one of ours: `check_sender` has complained.
            Err(_) => self.mark_failed(now, address),
        }
    }

    /// The call to `address` failed: no connection, no answer in time, or a refusal, which is given in words.
    pub fn handle_failure(&mut self, now: Ticks, address: SocketAddr, refusal: Option<&str>) {
        self.finish_call(address);
        self.mark_failed(now, address);
        if let Some(words) = refusal {
            self.complain(format!("the node at {address} refused our gossip: {words}"));
        }
    }

    /// What the operator should know: each only once, where repeating says nothing new.
    pub fn poll_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn mark_failed(&mut self, now: Ticks, address: SocketAddr) {
        self.seeds.iter_mut().filter(|seed| seed.address == address).for_each(|seed| seed.failed = true);
        let at_address = |member: &Member| member.addresses.int_http == address;
        let node = self.table.entries().map(|entry| &entry.member).find(|member| at_address(member));
        if let Some(node) = node.map(|member| member.node) {
            self.table.mark_failed(now, node);
        }
    }

    fn finish_call(&mut self, address: SocketAddr) {
        if self.in_flight.remove(&address) == Some(true) {
            self.urgent.insert(address);
        }
    }

    /// True when a node of the cluster lives at this address, or may live there: it is one that this node calls.
    pub fn knows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_there = |node: &SocketAddr| node.ip().to_canonical() == address;
        is_there(&self.own.addresses.int_http) || self.targets().iter().any(is_there)
    }

    /// Every address that may be called: known nodes, members of the cluster that were not heard of yet, and seeds
    /// where no known node answers.
    fn targets(&self) -> Vec<SocketAddr> {
        let known = self.table.entries().map(|entry| entry.member.addresses.int_http);
        let is_known = |node: NodeId| node == self.own.node || self.table.get(node).is_some();
        let listed = self.listed().filter(|(node, _)| !is_known(*node)).map(|(_, address)| address);
        let seeds = self.seeds.iter().filter(|seed| !seed.node.is_some_and(is_known)).map(|seed| seed.address);
        let all: BTreeSet<SocketAddr> = known.chain(listed).chain(seeds).collect();
        all.into_iter().filter(|address| *address != self.own.addresses.int_http).collect()
    }

    /// The members of the cluster with the addresses of the list.
    fn listed(&self) -> impl Iterator<Item = (NodeId, SocketAddr)> {
        let list = match self.founding.standing() {
            Standing::Empty => None,
            Standing::Accepted(list) | Standing::Settled(list) => Some(list),
        };
        let members = list.into_iter().flat_map(|list| &list.members);
        members.map(|member| (member.node, SocketAddr::new(member.int_ip, member.int_http_port)))
    }

    fn is_self(&self, exchange: &Exchange) -> bool {
        exchange.from == self.own.node && exchange.instance == self.own.instance
    }

    /// Whether we may talk to the sender at all.
    fn check_sender(&mut self, exchange: &Exchange) -> Result<(), String> {
        if exchange.from == self.own.node {
            let words = format!(
                "another process runs with this node's id {}: a data directory was copied or is used twice; remove the \
                 copy (a node gets its id when its data directory is made)",
                self.own.node
            );
            self.complain(words.clone());
            return Err(words);
        }
        let sender = exchange.nodes.iter().find(|relayed| relayed.member.node == exchange.from);
        let Some(sender) = sender else { return Err("the exchange lacks its sender's own entry".to_owned()) };
        match self.mismatch(&sender.member) {
            Some(words) => {
                self.complain(words.clone());
                Err(words)
            }
            None => Ok(()),
        }
    }

    /// Why a node cannot be in one cluster with this one, in words.
    fn mismatch(&self, other: &Member) -> Option<String> {
        let who = format!("node {} at {}", other.node, other.addresses.int_http);
        let next = "it is ignored; look at its options, and at GossipSeed and ClusterDns of both";
        if other.chunk_size != self.own.chunk_size {
            let (theirs, ours) = (other.chunk_size, self.own.chunk_size);
            return Some(format!("{who} has ChunkSize {theirs}, this node has {ours}: {next}"));
        }
        match (&other.membership, &self.own.membership) {
            (Some(theirs), Some(ours)) => (theirs.cluster != ours.cluster).then(|| {
                format!("{who} belongs to cluster {}, this node to cluster {}: {next}", theirs.cluster, ours.cluster)
            }),
            // From its founding on the size of a cluster is that of its list; until then the option must agree.
            _ => (other.cluster_size != self.own.cluster_size).then(|| {
                let (theirs, ours) = (other.cluster_size, self.own.cluster_size);
                format!("{who} has ClusterSize {theirs}, this node has {ours}: {next}")
            }),
        }
    }

    fn merge(&mut self, now: Ticks, wall: WallTime, exchange: &Exchange) {
        for Relayed { heard_ms_ago, member } in &exchange.nodes {
            if member.node == self.own.node {
                continue;
            }
            if let Some(words) = self.mismatch(member) {
                self.complain(words);
                continue;
            }
            let direct = member.node == exchange.from;
            let age = if direct { Duration::ZERO } else { Duration::from_millis(*heard_ms_ago) };
            if self.table.merge(now, member, age, direct) == Merged::Full {
                self.complain(format!("more than {NODES_MAX} nodes in gossip: node {} is ignored", member.node));
            }
            if direct && member.time_stamp.distance(wall) > self.allowed_difference {
                self.complain(format!(
                    "the clocks of this node and of node {} at {} differ by more than {} ms \
                     (GossipAllowedDifferenceMs): timestamps of events will, too; synchronise the clocks",
                    member.node,
                    member.addresses.int_http,
                    self.allowed_difference.as_millis()
                ));
            }
        }
    }

    /// Shows in the own entry where the node stands, and spreads it when it is new.
    fn note_standing(&mut self) {
        let before = (self.own.accepted_founding.clone(), self.own.membership.clone());
        show_standing(&mut self.own, self.founding.standing());
        if before == (self.own.accepted_founding.clone(), self.own.membership.clone()) {
            return;
        }
        self.own.version += 1;
        // What was tolerated from an empty node may not fit the cluster that it has become part of.
        let own_cluster: Option<MembershipBody> = self.own.membership.clone();
        self.table.retain(|member| match (&member.membership, &own_cluster) {
            (Some(theirs), Some(ours)) => theirs.cluster == ours.cluster,
            _ => true,
        });
        self.spread();
    }

    fn complain(&mut self, words: String) {
        if self.complained.len() >= COMPLAINTS_MAX {
            self.complained.clear();
        }
        if self.complained.insert(words.clone()) {
            self.notices.push(words);
        }
    }
}

fn show_standing(own: &mut Member, standing: &Standing) {
    (own.accepted_founding, own.membership) = match standing {
        Standing::Empty => (None, None),
        Standing::Accepted(list) => (Some(list.clone()), None),
        Standing::Settled(list) => (None, Some(list.clone())),
    };
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
