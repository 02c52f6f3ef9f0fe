//! The world of one run: nodes, network, clients, and the events that move them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::codec::record::{MemberRecord, MembershipBody};
use crate::storage::ChunkLayout;
use crate::types::{ClusterId, Guid, NodeId};

use super::agenda::{Agenda, MILLISECOND, Moment};
use super::calls::Call;
use super::checks::Election;
use super::coverage::Coverage;
use super::disk::VirtualDisk;
use super::faults::Undo;
use super::history::History;
use super::kinds::Fault;
use super::links::{Network, Packet};
use super::node::Node;
use super::profile::{Profile, Span, within};
use super::reference::Reference;
use super::settle::Settling;
use super::trace::Trace;
use super::workload::{Outcome, Workload};
use super::{Checker, Injected, Options, Report};

/// What is planned. `life` counts the starts of a node: what was planned for an earlier one is dropped.
#[derive(Debug)]
pub(super) enum Event {
    /// The node's log thread runs.
    Turn { node: usize, life: u32 },
    /// An operation of its disk is done.
    Io { node: usize, life: u32, io: u64 },
    /// A chunk file is made.
    Prepare { node: usize, life: u32 },
    /// The scrubber passes.
    Scrub { node: usize, life: u32 },
    /// The sealer goes on.
    Seal { node: usize, life: u32 },
    /// The upkeep of the index goes on.
    Upkeep { node: usize, life: u32 },
    /// The index goes on.
    Apply { node: usize, life: u32 },
    /// A send on a data link is done.
    Sent { node: usize, life: u32, send: u64 },
    /// Something arrives at the other end of a link.
    Packet { link: u64, lane: usize, sequence: u64, packet: Packet },
    /// A path works again: what was held back arrives.
    Pump { link: u64, lane: usize },
    /// A vote or hint arrives.
    Call { to: usize, call: Call },
    /// A node tells the others whom it takes for the leader.
    Gossip { node: usize },
    /// Somebody looks whether the cluster is founded.
    Found,
    /// A client goes on.
    Client { client: usize },
    /// A client's request arrives at a node.
    Ask { node: usize, attempt: u64 },
    /// A client has waited long enough.
    Timeout { attempt: u64 },
    /// An answer reaches its client.
    Answer { attempt: u64, outcome: Outcome },
    /// Something goes wrong.
    Fault,
    /// Something happens to a new leader.
    Hunt { node: usize, fault: Fault },
    /// A fault ends.
    Undo(Undo),
    /// Everything heals; later: has the cluster come together?
    Settle,
}

/// The sources of chance: a draw from one leaves the others alone.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) network: Rng,
    pub(super) disk: Rng,
    pub(super) workload: Rng,
    pub(super) schedule: Rng,
    pub(super) faults: Rng,
    /// Which new leaders are hunted; apart, because elections depend on everything.
    pub(super) hunts: Rng,
}

impl Streams {
    fn new(random: &mut Rng) -> Streams {
        Streams {
            network: random.fork(),
            disk: random.fork(),
            workload: random.fork(),
            schedule: random.fork(),
            faults: random.fork(),
            hunts: random.fork(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Moment,
    /// What stands for the beginning of virtual time where the code takes an `Instant`; nothing depends on which it is.
    pub(super) began: Instant,
    pub(super) agenda: Agenda<Event>,
    pub(super) random: Streams,
    pub(super) profile: Profile,
    pub(super) layout: ChunkLayout,
    pub(super) options: Options,
    /// The founding list.
    pub(super) list: MembershipBody,
    pub(super) nodes: Vec<Node>,
    /// Disks that were replaced, by the node that had them.
    pub(super) lost_disks: Vec<(NodeId, Arc<VirtualDisk>)>,
    pub(super) network: Network,
    pub(super) workload: Workload,
    pub(super) reference: Reference,
    pub(super) elections: Vec<Election>,
    pub(super) settling: Option<Settling>,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) history: History,
    /// What went wrong so far, and how many numbers were given.
    pub(super) schedule: Vec<Injected>,
    pub(super) faults_numbered: u32,
    /// All founding members have accepted the list once.
    pub(super) founded: bool,
    pub(super) objection: Option<(Checker, String)>,
    /// Names links, disk operations, sends, tokens and calls.
    next_id: u64,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> World {
        let mut random = Rng::with_seed(seed);
        let profile = Profile::draw(options, &mut random);
        let mut random = Streams::new(&mut random);
        let layout = ChunkLayout { chunk_size: profile.chunk_size };
        let nodes: Vec<Node> =
            (0..profile.nodes()).map(|index| Node::new(index, layout, &mut random.schedule)).collect();
        let members = nodes[..profile.members].iter().map(|node| member(node.id)).collect();
        let list = MembershipBody { cluster: ClusterId(Guid([0xC1; 16])), members };
        World {
            now: 0,
            began: Instant::now(),
            agenda: Agenda::new(),
            network: Network::new(nodes.len()),
            workload: Workload::new(profile.clients),
            reference: Reference::new(layout),
            elections: Vec::new(),
            settling: None,
            trace: Trace::new(options.trace),
            coverage: Coverage::default(),
            history: History::default(),
            schedule: Vec::new(),
            faults_numbered: 0,
            founded: false,
            objection: None,
            next_id: 0,
            options: options.clone(),
            random,
            profile,
            layout,
            list,
            nodes,
            lost_disks: Vec::new(),
        }
    }

    /// Runs to the end, or to the first objection.
    pub(super) fn run(&mut self) -> Option<(Checker, String)> {
        self.begin();
        while self.objection.is_none() && !self.is_settled() {
            let (at, event) = self.agenda.next()?;
            debug_assert!(at >= self.now, "time goes forward");
            self.now = at;
            self.trace.mix(at);
            self.handle(event);
        }
        self.objection.take()
    }

    pub(super) fn report(&self) -> Report {
        Report {
            trace_hash: self.trace.hash(),
            simulated: Duration::from_nanos(self.now),
            coverage: self.coverage.clone(),
        }
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
            self.plan_in((0, MILLISECOND), Event::Gossip { node });
        }
        for client in 0..self.profile.clients {
            self.plan_in((0, 100 * MILLISECOND), Event::Client { client });
        }
        self.agenda.plan(MILLISECOND, Event::Found);
        self.plan_fault();
        self.agenda.plan(self.profile.faulty_until, Event::Settle);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Turn { node, life } if self.lives(node, life) => self.turn(node),
            Event::Io { node, life, io } if self.lives(node, life) => self.io_done(node, io),
            Event::Prepare { node, life } if self.lives(node, life) => self.prepare(node),
            Event::Apply { node, life } if self.lives(node, life) => self.apply(node),
            Event::Upkeep { node, life } if self.lives(node, life) => self.upkeep(node),
            Event::Seal { node, life } if self.lives(node, life) => self.seal(node),
            Event::Scrub { node, life } if self.lives(node, life) => self.scrub(node),
            Event::Sent { node, life, send } if self.lives(node, life) => self.sent(node, send),
            Event::Turn { .. }
            | Event::Io { .. }
            | Event::Prepare { .. }
            | Event::Apply { .. }
            | Event::Scrub { .. }
            | Event::Upkeep { .. }
            | Event::Seal { .. }
            | Event::Sent { .. } => {}
            Event::Packet { link, lane, sequence, packet } => self.packet_arrived(link, lane, sequence, packet),
            Event::Pump { link, lane } => self.pump(link, lane),
            Event::Call { to, call } => self.call_arrived(to, call),
            Event::Gossip { node } => self.gossip(node),
            Event::Found => self.found(),
            Event::Client { client } => self.client_turn(client),
            Event::Ask { node, attempt } => self.asked(node, attempt),
            Event::Timeout { attempt } => self.timed_out(attempt),
            Event::Answer { attempt, outcome } => self.answered(attempt, outcome),
            Event::Fault => self.fault(),
            Event::Hunt { node, fault } => self.hunt(node, fault),
            Event::Undo(undo) => self.undo(undo),
            Event::Settle => self.settle(),
        }
    }

    /// True while this start of the node is the current one.
    pub(super) fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].is_up() && self.nodes[node].life == life
    }

    /// The node with this identity.
    pub(super) fn index_of(&self, id: NodeId) -> usize {
        usize::from(id.0.0[0]) - 1
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn count(&mut self, what: &'static str) {
        self.coverage.note(what, 1);
    }

    pub(super) fn object(&mut self, checker: Checker, detail: String) {
        self.objection.get_or_insert((checker, detail));
    }

    pub(super) fn line(&mut self, node: usize, what: &'static str, a: u64, b: u64) {
        self.trace.line(self.now, node, what, a, b);
    }

    /// Plans an event after a scheduling delay.
    pub(super) fn plan_in(&mut self, span: Span, event: Event) {
        let delay = within(&mut self.random.schedule, span);
        self.agenda.plan(self.now + delay, event);
    }
}

pub(super) fn member(node: NodeId) -> MemberRecord {
    let int_ip = std::net::IpAddr::from([10, 0, 0, node.0.0[0]]);
    MemberRecord { node, int_ip, int_tcp_port: 1112, int_http_port: 2112 }
}

#[cfg(test)]
#[path = "news_tests.rs"]
mod tests;
