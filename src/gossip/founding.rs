//! How a new cluster comes to be: by unanimity.
//!
//! `ClusterSize` empty nodes that see each other agree on one member list. The one with the lowest id proposes it, each
//! makes its acceptance durable and then gossips it, and whoever has seen that all members accepted the same list knows
//! that the cluster is founded. An acceptance is never taken back, so two founded lists cannot share a node.
//!
//! Left to others: making an acceptance durable (log thread), carrying entries around ([`Gossip`](super::Gossip)).

use std::time::Duration;

use super::member::Member;
use crate::codec::record::{MemberRecord, MembershipBody};
use crate::types::{ClusterId, NodeId, Ticks};

/// The view must have been the same for this long before a list is proposed: nodes that start together find each other
/// in this time, and so all see the same lowest one.
const STABLE_FOR: Duration = Duration::from_millis(500);
/// An acceptance that could not be made durable is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a node that waits says why.
const EXPLAIN_EVERY: Duration = Duration::from_secs(10);

/// What a node is to a founding. What it was at the start comes from its durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Empty, and has accepted nothing.
    Empty,
    /// Has durably accepted this list and will accept no other.
    Accepted(MembershipBody),
    /// Belongs to this cluster, as a member or as a clone.
    Settled(MembershipBody),
}

/// What the founding asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make it durable that this node accepts the list, then call [`Founding::handle_accepted`].
    Accept(MembershipBody),
    /// The cluster exists, and this node is a member.
    Found(MembershipBody),
    /// The cluster exists without this node: copy its log.
    Join(MembershipBody),
    /// Tell the operator.
    Warn(String),
}

/// A node's part in a founding. See the module's words.
#[derive(Debug)]
pub struct Founding {
    own: MemberRecord,
    cluster_size: usize,
    standing: Standing,
    /// A list whose acceptance is being made durable. Once asked for, it may be durable whatever the answer was: so it
    /// stays, is asked for again after a failure, and nothing else is accepted or joined.
    pending: Option<MembershipBody>,
    /// When to ask again; `None` while an answer is awaited.
    retry_at: Option<Ticks>,
    /// The nodes that could be founded with, and since when the view was that.
    candidates: Vec<NodeId>,
    stable_since: Ticks,
    explain_at: Ticks,
}

impl Founding {
    /// The part of node `own` in a cluster of `cluster_size`.
    ///
    /// # Panics
    /// When the cluster size is 0.
    #[must_use]
    pub fn new(own: MemberRecord, cluster_size: usize, standing: Standing, now: Ticks) -> Founding {
        assert!(cluster_size > 0, "a cluster has a node");
        Founding {
            own,
            cluster_size,
            standing,
            pending: None,
            retry_at: None,
            candidates: Vec::new(),
            stable_since: now,
            explain_at: now.after(EXPLAIN_EVERY),
        }
    }

    /// Where the node stands.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The acceptance that was asked for is durable; or it is not known to be, and will be asked for again.
    pub fn handle_accepted(&mut self, now: Ticks, done: bool) {
        if !done {
            self.retry_at = Some(now.after(RETRY_AFTER));
        } else if let Some(list) = self.pending.take() {
            assert_eq!(self.standing, Standing::Empty, "a node accepts one list in its life");
            self.standing = Standing::Accepted(list);
            self.explain_at = now.after(EXPLAIN_EVERY);
        }
    }

    /// The cluster that this node belongs to has another member list now.
    pub(super) fn handle_members_changed(&mut self, list: MembershipBody) {
        if matches!(&self.standing, Standing::Settled(known) if known.cluster == list.cluster) {
            self.standing = Standing::Settled(list);
        }
    }

    /// What is to be done now, given what the other nodes say (with the nodes' liveness). `fresh` names a cluster that
    /// this node might propose: a random identifier, new in each call.
    pub fn poll(&mut self, now: Ticks, peers: &[(&Member, bool)], fresh: ClusterId) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.standing.clone() {
            Standing::Settled(_) => {}
            Standing::Accepted(list) => self.await_founding(now, peers, &list, &mut steps),
            Standing::Empty => match self.pending.clone() {
                Some(list) => self.repeat(now, list, &mut steps),
                None => self.find_cluster(now, peers, fresh, &mut steps),
            },
        }
        steps
    }

    fn repeat(&mut self, now: Ticks, list: MembershipBody, steps: &mut Vec<Step>) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            steps.push(Step::Accept(list));
        }
    }

    /// With a list accepted: is everyone else through, or why not?
    fn await_founding(&mut self, now: Ticks, peers: &[(&Member, bool)], list: &MembershipBody, steps: &mut Vec<Step>) {
        let others = || list.members.iter().filter(|member| member.node != self.own.node);
        let entry_of = |node: NodeId| peers.iter().find(|(peer, _)| peer.node == node);
        let accepted = |member: &MemberRecord| {
            entry_of(member.node).is_some_and(|(peer, _)| peer.accepted_founding.as_ref() == Some(list))
        };
        // The list of a cluster that exists may have been changed since.
        let is_founded =
            peers.iter().any(|(peer, _)| peer.membership.as_ref().is_some_and(|theirs| theirs.cluster == list.cluster));
        if is_founded || others().all(accepted) {
            self.standing = Standing::Settled(list.clone());
            steps.push(Step::Found(list.clone()));
            return;
        }
        if now >= self.explain_at {
            let missing = others().filter(|member| !accepted(member));
            let reasons: Vec<String> = missing.map(|member| why_missing(member, entry_of(member.node))).collect();
            self.explain_at = now.after(EXPLAIN_EVERY);
            steps.push(Step::Warn(format!(
                "this node has accepted the founding of cluster {} and waits for all of its {} members: {}. Start the \
                 nodes that are missing. If a member's data is lost, or it has accepted another list, this founding \
                 cannot succeed any more: stop the nodes that wait for it, remove their data directories (no cluster \
                 was founded, so nothing is in them) and start them again",
                list.cluster,
                list.members.len(),
                reasons.join("; ")
            )));
        }
    }

    /// With nothing accepted: is there a cluster, a proposal, or enough nodes for one?
    fn find_cluster(&mut self, now: Ticks, peers: &[(&Member, bool)], fresh: ClusterId, steps: &mut Vec<Step>) {
        if self.cluster_size == 1 {
            self.accept(MembershipBody { cluster: fresh, members: vec![self.own] }, steps);
            return;
        }
        if let Some(list) = peers.iter().find_map(|(peer, _)| peer.membership.as_ref()) {
            self.standing = Standing::Settled(list.clone());
            steps.push(Step::Join(list.clone()));
            return;
        }
        // Only what somebody has durably accepted is a proposal; of several (which means that two nodes thought that
        // they were the lowest) all take the same, if they see the same.
        let alive = || peers.iter().filter(|(_, is_alive)| *is_alive).map(|(peer, _)| *peer);
        let proposals = || alive().filter_map(|peer| peer.accepted_founding.as_ref());
        let for_us = proposals().filter(|list| self.fits(list)).min_by_key(|list| list.cluster);
        if let Some(list) = for_us {
            self.accept(list.clone(), steps);
            return;
        }
        let is_other_in_progress = proposals().next().is_some();
        let candidates = self.candidates(alive());
        let seen: Vec<NodeId> = candidates.iter().map(|member| member.node).collect();
        if seen != self.candidates || is_other_in_progress {
            self.candidates = seen;
            self.stable_since = now;
        }
        let is_lowest = candidates.first().is_some_and(|member| member.node == self.own.node);
        let is_stable = now.since(self.stable_since) >= STABLE_FOR;
        if is_lowest && is_stable && !is_other_in_progress && candidates.len() >= self.cluster_size {
            let members = candidates.into_iter().take(self.cluster_size).collect();
            self.accept(MembershipBody { cluster: fresh, members }, steps);
        } else {
            self.explain_waiting(now, steps);
        }
    }

    /// The nodes that a cluster could be founded of, this one included, by id.
    fn candidates<'a>(&self, alive: impl Iterator<Item = &'a Member>) -> Vec<MemberRecord> {
        let mut candidates: Vec<MemberRecord> =
            alive.filter(|peer| peer.accepted_founding.is_none()).map(Member::record).collect();
        candidates.push(self.own);
        candidates.sort_by_key(|member| member.node);
        candidates
    }

    /// True when a proposed list is one that this node may accept.
    fn fits(&self, list: &MembershipBody) -> bool {
        let mut nodes: Vec<NodeId> = list.members.iter().map(|member| member.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len() == self.cluster_size && list.members.len() == nodes.len() && nodes.contains(&self.own.node)
    }

    fn accept(&mut self, list: MembershipBody, steps: &mut Vec<Step>) {
        assert!(self.fits(&list), "only a list of {} with this node in it is accepted", self.cluster_size);
        self.pending = Some(list.clone());
        self.retry_at = None;
        steps.push(Step::Accept(list));
    }

    fn explain_waiting(&mut self, now: Ticks, steps: &mut Vec<Step>) {
        if now < self.explain_at {
            return;
        }
        self.explain_at = now.after(EXPLAIN_EVERY);
        steps.push(Step::Warn(format!(
            "this node is empty and waits for a cluster: it sees {} of the {} empty nodes that found one (ClusterSize), \
             itself included. Start the others, and look at GossipSeed or ClusterDns if they run already",
            self.candidates.len(),
            self.cluster_size
        )));
    }
}

fn why_missing(member: &MemberRecord, entry: Option<&(&Member, bool)>) -> String {
    let name = format!("{} at {}:{}", member.node, member.int_ip, member.int_http_port);
    match entry {
        None => format!("{name} was not seen"),
        Some((peer, _)) => match (&peer.membership, &peer.accepted_founding) {
            (Some(list), _) => format!("{name} belongs to cluster {}", list.cluster),
            (_, Some(list)) => format!("{name} has accepted cluster {} instead", list.cluster),
            (None, None) => format!("{name} has not accepted yet"),
        },
    }
}
