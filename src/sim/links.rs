//! Links between nodes: connections that carry packets in order, stall while their path is cut, and may break.

use std::collections::{BTreeMap, VecDeque};

use crate::consensus::Message;
use crate::types::{Guid, NodeId};

use super::agenda::Moment;
use super::kinds::Fault;
use super::node::Input;
use super::profile::within;
use super::world::{Event, World};

/// Messages remembered for each path.
const SAID_KEPT: usize = 8;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Control,
    Data(Guid),
}

/// What goes over a link.
#[derive(Debug)]
pub(super) enum Packet {
    /// The opener introduces itself.
    Hello,
    /// The other end has taken the link.
    Welcome,
    Message(Message),
    Bytes(Vec<u8>),
    /// The other end is gone.
    Fin,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Lane {
    sent: u64,
    expected: u64,
    /// Arrived before its turn, or while the path is cut.
    held: BTreeMap<u64, Packet>,
    last_at: Moment,
    /// Bytes on the way.
    transit: usize,
}

/// A connection. End 0 is the opener's, the follower's; lane 0 goes from it to end 1.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) kind: Kind,
    pub(super) ends: [usize; 2],
    pub(super) opener: NodeId,
    /// Whom the opener wants to reach.
    pub(super) wanted: NodeId,
    open: [bool; 2],
    lanes: [Lane; 2],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) links: BTreeMap<u64, Link>,
    /// By sender and receiver: nothing gets through.
    pub(super) cut: Vec<Vec<bool>>,
    /// By sender and receiver: the last messages, for those that come twice.
    said: BTreeMap<(usize, usize), VecDeque<Message>>,
}

impl Network {
    pub(super) fn new(nodes: usize) -> Network {
        Network { links: BTreeMap::new(), cut: vec![vec![false; nodes]; nodes], said: BTreeMap::new() }
    }

    /// The bits of the nodes that `node` cannot send to.
    pub(super) fn cuts_of(&self, node: usize) -> u64 {
        self.cut[node].iter().enumerate().fold(0, |bits, (peer, &cut)| bits | u64::from(cut) << peer)
    }

    /// Bytes that were sent from this end of the link and have not arrived.
    pub(super) fn transit(&self, link: u64, end: usize) -> usize {
        self.links.get(&link).map_or(0, |link| link.lanes[end].transit)
    }
}

impl World {
    pub(super) fn open_link(&mut self, kind: Kind, from: usize, wanted: NodeId) -> u64 {
        let id = self.id();
        let opener = self.nodes[from].id;
        let ends = [from, self.index_of(wanted)];
        let link = Link { kind, ends, opener, wanted, open: [true, true], lanes: Default::default() };
        self.network.links.insert(id, link);
        self.send_packet(id, 0, Packet::Hello);
        id
    }

    /// Sends from an end of the link, if that is open.
    pub(super) fn send_packet(&mut self, link: u64, end: usize, packet: Packet) {
        let Some(open) = self.network.links.get(&link).filter(|link| link.open[end]) else { return };
        let path = (open.ends[end], open.ends[1 - end]);
        if self.profile.has(Fault::Duplicates)
            && let Packet::Message(message) = &packet
        {
            let again = self.say_again(path, message);
            again.into_iter().for_each(|message| self.launch(link, end, Packet::Message(message)));
        }
        self.launch(link, end, packet);
    }

    /// Remembers a message, and gives one of the last ones now and then: it may be from an earlier connection. Requests
    /// to subscribe are never repeated by anyone.
    fn say_again(&mut self, path: (usize, usize), message: &Message) -> Option<Message> {
        if matches!(message, Message::Subscribe { .. }) {
            return None;
        }
        let said = self.network.said.entry(path).or_default();
        if said.len() == SAID_KEPT {
            said.pop_front();
        }
        said.push_back(message.clone());
        let random = &mut self.random.network;
        let again = (random.u8(0..16) == 0).then(|| said[random.usize(0..said.len())].clone());
        if again.is_some() {
            self.count("messages twice");
        }
        again
    }

    fn launch(&mut self, id: u64, lane: usize, packet: Packet) {
        let delay = self.network_delay();
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let way = &mut link.lanes[lane];
        let mut at = (self.now + delay).max(way.last_at + 1);
        if let Packet::Bytes(bytes) = &packet {
            way.transit += bytes.len();
            at += bytes.len() as Moment * 1_000_000 / self.profile.bytes_per_ms;
        }
        way.last_at = at;
        let sequence = way.sent;
        way.sent += 1;
        self.agenda.plan(at, Event::Packet { link: id, lane, sequence, packet });
    }

    pub(super) fn network_delay(&mut self) -> Moment {
        let random = &mut self.random.network;
        let hiccup = if random.u8(..) == 0 { random.u64(0..=self.profile.network_hiccup) } else { 0 };
        within(random, self.profile.network) + hiccup
    }

    pub(super) fn packet_arrived(&mut self, id: u64, lane: usize, sequence: u64, packet: Packet) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.lanes[lane].held.insert(sequence, packet);
        self.pump(id, lane);
    }

    /// Delivers what has arrived in order, unless the path is cut.
    pub(super) fn pump(&mut self, id: u64, lane: usize) {
        loop {
            let Some(link) = self.network.links.get_mut(&id) else { return };
            if self.network.cut[link.ends[lane]][link.ends[1 - lane]] {
                return;
            }
            let way = &mut link.lanes[lane];
            let Some(packet) = way.held.remove(&way.expected) else { return };
            way.expected += 1;
            if let Packet::Bytes(bytes) = &packet {
                way.transit -= bytes.len();
            }
            self.deliver(id, 1 - lane, packet);
        }
    }

    fn deliver(&mut self, id: u64, end: usize, packet: Packet) {
        let Some(link) = self.network.links.get(&id) else { return };
        let node = link.ends[end];
        if !self.nodes[node].host_up {
            return;
        }
        if link.open[end] && self.nodes[node].is_up() {
            if matches!(packet, Packet::Fin) {
                self.close_end(id, end);
            }
            self.input(node, Input::Packet { link: id, packet });
        } else if !matches!(packet, Packet::Fin) && link.open[1 - end] {
            // Nobody is there: the system answers with a reset.
            self.launch(id, end, Packet::Fin);
        }
    }

    /// Closes one end; the other hears of it.
    pub(super) fn close_link(&mut self, id: u64, end: usize) {
        self.send_packet(id, end, Packet::Fin);
        self.close_end(id, end);
    }

    fn close_end(&mut self, id: u64, end: usize) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.open[end] = false;
        if !link.open[1 - end] {
            self.network.links.remove(&id);
        }
    }

    /// A node's process ends. Its system says goodbye for it, unless that is gone too.
    pub(super) fn abandon_links(&mut self, node: usize, silently: bool) {
        let mine = |(&id, link): (&u64, &Link)| link.ends.iter().position(|&end| end == node).map(|end| (id, end));
        for (id, end) in self.network.links.iter().filter_map(mine).collect::<Vec<_>>() {
            if silently {
                self.close_end(id, end);
            } else {
                self.close_link(id, end);
            }
        }
    }

    /// The host of a node is back: it resets the connections that it knows nothing of.
    pub(super) fn reset_links(&mut self, node: usize) {
        let mine = |(&id, link): (&u64, &Link)| {
            let end = link.ends.iter().position(|&end| end == node)?;
            (!link.open[end]).then_some((id, end))
        };
        for (id, end) in self.network.links.iter().filter_map(mine).collect::<Vec<_>>() {
            self.launch(id, end, Packet::Fin);
        }
    }

    /// A link breaks: both ends notice, what was on the way is lost.
    pub(super) fn break_link(&mut self, id: u64) {
        let Some(link) = self.network.links.get(&id) else { return };
        let (ends, open) = (link.ends, link.open);
        self.network.links.remove(&id);
        for (end, node) in ends.into_iter().enumerate() {
            if open[end] && self.nodes[node].is_up() {
                self.input(node, Input::Packet { link: id, packet: Packet::Fin });
            }
        }
    }

    pub(super) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        if from == to || self.network.cut[from][to] == cut {
            return;
        }
        self.network.cut[from][to] = cut;
        let bits = self.network.cuts_of(from);
        self.line(from, if cut { "severs" } else { "heals" }, bits, 0);
        if cut {
            return;
        }
        let lane = |(&id, link): (&u64, &Link)| (0..2).find(|&lane| link.ends[lane] == from).map(|lane| (id, lane));
        for (link, lane) in self.network.links.iter().filter_map(lane).collect::<Vec<_>>() {
            let delay = self.network_delay();
            self.agenda.plan(self.now + delay, Event::Pump { link, lane });
        }
    }
}
