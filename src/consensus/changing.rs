//! Changes of the member list, one member at a time (Raft thesis ch. 4).
//!
//! A list is in force on a node from the moment that its record is in the node's log, committed or not: for votes, for
//! commits and for the leader's quorum. Two lists that differ by one member have no two majorities without a common
//! node, so the old and the new list cannot both decide. That holds for neighbours only. Hence the two conditions
//! for a change: the list before is committed, and the leader has committed a record of its own term. (Without the second a
//! change that an earlier leader had begun could come back behind one that a later leader had begun: the flaw that
//! was found in the first published form.)
//!
//! A node that a list leaves out stands for election until the list is committed: it may be the only one that has it. Its
//! own vote does not count then, nor what it has flushed.

use crate::limits::{CLUSTER_SIZE_MAX, MEMBER_LAG_MAX_BYTES};
use crate::types::{LogPosition, NodeId, Ticks};

use super::leading::Tracked;
use super::lists::MemberLists;
use super::replica::{Replica, State};

/// What becomes of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It becomes a voting member.
    Add(NodeId),
    /// It is a voting member no more.
    Remove(NodeId),
}

/// The last list record in a log, as recovery found it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RestoredList {
    /// Where the record lies.
    pub position: LogPosition,
    /// Its members.
    pub members: Vec<NodeId>,
    /// The members before.
    pub before: Vec<NodeId>,
}

impl RestoredList {
    pub(super) fn over(self) -> MemberLists<Vec<NodeId>> {
        let mut lists = MemberLists::new(self.before);
        lists.push(self.position, self.members);
        lists
    }
}

impl Replica {
    /// The voting members: the last list in the log, committed or not.
    #[must_use]
    pub fn members(&self) -> &[NodeId] {
        #[cfg(test)]
        if self.options.planted == Some(super::PlantedBug::ListCountedOnceCommitted) && self.is_change_pending() {
            return self.lists.before().map_or(self.lists.last(), |before| before);
        }
        self.lists.last()
    }

    /// True while the list in force is not known to be committed.
    #[must_use]
    pub fn is_change_pending(&self) -> bool {
        self.lists.is_pending(self.commit_position)
    }

    /// What the list would be after this change, which the leader may begin now: append a record of it, and report
    /// [`Replica::handle_list`].
    ///
    /// # Errors
    /// Says why the change cannot be begun, for people. Nothing has changed then.
    pub fn plan_change(&self, now: Ticks, change: Change) -> Result<Vec<NodeId>, String> {
        if !self.is_leader() {
            return Err("this node does not lead: ask the leader".to_owned());
        }
        if self.is_resigning() {
            return Err("leadership is being handed over: ask the new leader in a moment".to_owned());
        }
        if self.is_change_pending() && !self.may_overlap() {
            return Err("the change before this one is not committed yet: try again when it is".to_owned());
        }
        if !self.has_committed_in_term() && !self.may_begin_early() {
            return Err("this leader has committed nothing in its term yet: try again in a moment".to_owned());
        }
        let members = self.change_list(change)?;
        if let Change::Add(node) = change {
            self.check_newcomer(now, node)?;
        }
        let sound = members.iter().filter(|member| self.is_at_hand(now, **member)).count();
        let needed = members.len() / 2 + 1;
        if sound < needed {
            return Err(format!(
                "only {sound} of the {} members that would be left are connected and up to date, and a majority of {needed} \
                 is needed to write: bring the others back first",
                members.len()
            ));
        }
        Ok(members)
    }

    /// A record of a member list is in the log, at `position`; it is in force. Follows
    /// [`Replica::handle_appended`] for that record.
    pub fn handle_list(&mut self, position: LogPosition, members: Vec<NodeId>) {
        assert!(position < self.log_end, "a list at {position} of a log that ends at {}", self.log_end);
        self.lists.push(position, members);
    }

    /// True when this node may stand for election: it is a member, or was one before a change that is not committed.
    pub(super) fn may_stand(&self) -> bool {
        let was_member = || self.lists.before().is_some_and(|before| before.contains(&self.options.node));
        self.is_member() || (self.is_change_pending() && was_member())
    }

    /// True once a record of the leader's own term is committed: from then on it knows what is.
    pub(super) fn has_committed_in_term(&self) -> bool {
        self.own_epoch().is_some_and(|epoch| self.commit_position > epoch.position)
    }

    /// True when a follower has nearly all of the leader's log.
    pub(super) fn is_caught_up(&self, now: Ticks, tracked: &Tracked) -> bool {
        let is_fresh = tracked.linked && now.since(tracked.heard) < self.options.election_timeout;
        is_fresh && self.log_end.0.saturating_sub(tracked.acknowledged.0) <= MEMBER_LAG_MAX_BYTES
    }

    fn change_list(&self, change: Change) -> Result<Vec<NodeId>, String> {
        let mut members = self.members().to_vec();
        match change {
            Change::Add(node) if members.contains(&node) => return Err(format!("{node} is a member already")),
            Change::Add(_) if members.len() >= CLUSTER_SIZE_MAX => {
                return Err(format!("the cluster has {CLUSTER_SIZE_MAX} members, the most that there can be"));
            }
            Change::Add(node) => members.push(node),
            Change::Remove(node) if !members.contains(&node) => return Err(format!("{node} is not a member")),
            Change::Remove(_) if members.len() == 1 => {
                return Err("the last member cannot be removed: nobody would be left to lead".to_owned());
            }
            Change::Remove(node) => members.retain(|member| *member != node),
        }
        Ok(members)
    }

    fn check_newcomer(&self, now: Ticks, node: NodeId) -> Result<(), String> {
        let Some((_, tracked)) = self.followers().find(|(follower, tracked)| *follower == node && tracked.linked)
        else {
            return Err(format!("{node} does not copy this leader's log: start it as a clone first"));
        };
        if self.is_caught_up(now, &tracked) {
            return Ok(());
        }
        let behind = self.log_end.0.saturating_sub(tracked.acknowledged.0);
        Err(format!(
            "{node} is {behind} bytes behind the leader's log, more than the {MEMBER_LAG_MAX_BYTES} allowed: add it when \
             it has caught up"
        ))
    }

    /// True for this node and for followers that are connected and have nearly everything.
    fn is_at_hand(&self, now: Ticks, member: NodeId) -> bool {
        let State::Leading(leading) = &self.state else {
            return false;
        };
        member == self.options.node || leading.tracked(member).is_some_and(|tracked| self.is_caught_up(now, tracked))
    }

    fn may_overlap(&self) -> bool {
        #[cfg(test)]
        return self.options.planted == Some(super::PlantedBug::ChangeBeforeCommitted);
        #[cfg(not(test))]
        false
    }

    fn may_begin_early(&self) -> bool {
        #[cfg(test)]
        return self.options.planted == Some(super::PlantedBug::ChangeBeforeOwnTerm);
        #[cfg(not(test))]
        false
    }
}
