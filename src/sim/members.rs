//! Changes of the member list, asked for as an operator would.

use crate::engine::{ControlInput, MemberChange};
use crate::types::{LogPosition, NodeId};

use super::node::{Input, Node};
use super::profile::pick;
use super::world::{World, member};

impl World {
    /// The members as the last committed list has them.
    pub(super) fn reference_members(&self) -> Vec<NodeId> {
        let list = self.reference.members().unwrap_or(&self.list);
        list.members.iter().map(|member| member.node).collect()
    }

    /// True when the cluster can do without what this node has: a member's disk is lost only while no change of the
    /// members is under way, also not in the log of a node that is down, and as long as a majority of the members keep
    /// theirs, without rot.
    pub(super) fn can_lose(&self, index: usize) -> bool {
        let members = self.reference_members();
        let is_same = |node: &Node| node.changes.is_empty() && (node.voters.is_empty() || node.voters == members);
        let is_sound = |node: &Node| node.index != index && node.rotten.is_empty();
        let keeps = |id: &NodeId| self.nodes.iter().any(|node| node.id == *id && is_sound(node));
        let founded = self.founded && self.reference.end() > LogPosition::ZERO && self.settling.is_none();
        let left = members.iter().filter(|&id| keeps(id)).count();
        founded && self.nodes.iter().all(is_same) && left > members.len() / 2
    }

    /// Asks a leader, as a rule, for some change of the list, sensible or not.
    pub(super) fn change_members(&mut self, node: usize) {
        let leads = |node: &Node| {
            node.engine.as_ref().and_then(|engine| engine.replica()).is_some_and(|replica| replica.is_leader())
        };
        // There may be one that does not know yet that it leads no more.
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|&node| leads(&self.nodes[node])).collect();
        let node = if leaders.is_empty() { node } else { pick(&mut self.random.faults, &leaders) };
        if self.random.faults.u8(0..4) == 0 {
            self.part_members(node);
        }
        // Two at a time are one too many.
        for _ in 0..=u8::from(self.random.faults.u8(0..2) == 0) {
            self.change_a_member(node);
        }
    }

    /// The other members are cut off from this node and from those that are none, just before these are to become some: two
    /// sides, each of which may take itself for the majority.
    fn part_members(&mut self, node: usize) {
        let members = self.reference_members();
        let is_other = |index: usize| index != node && members.contains(&self.nodes[index].id);
        let count = self.nodes.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let across = pairs.filter(|&(from, to)| is_other(from) != is_other(to)).collect();
        self.sever(across);
    }

    fn change_a_member(&mut self, node: usize) {
        let members = self.reference_members();
        let is_dead = |id: &&NodeId| self.nodes.iter().all(|node| node.id != **id);
        let dead = members.iter().find(is_dead).copied();
        let is_other = |node: &&Node| !members.contains(&node.id) && node.rotten.is_empty();
        let others: Vec<NodeId> = self.nodes.iter().filter(is_other).map(|node| node.id).collect();
        let random = &mut self.random.faults;
        let change = match (dead, others.is_empty()) {
            (Some(dead), _) if random.bool() => MemberChange::Remove(dead),
            (_, false) if random.u8(0..3) > 0 => MemberChange::Add(member(pick(random, &others))),
            _ => MemberChange::Remove(pick(random, &members)),
        };
        let token = self.id();
        if self.nodes[node].is_up() {
            self.nodes[node].changes.push(token);
            self.count("member changes asked for");
            self.input(node, Input::Control(ControlInput::ChangeMembers { token, change }));
        }
    }

    /// The answer to a change, if it is one.
    pub(super) fn members_answered(&mut self, node: usize, token: u64, is_done: bool) {
        let changes = &mut self.nodes[node].changes;
        let Some(at) = changes.iter().position(|&asked| asked == token) else { return };
        changes.swap_remove(at);
        self.count(if is_done { "member changes done" } else { "member changes refused" });
    }
}
