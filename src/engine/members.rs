//! The member list: changed by the leader through the log, learnt by everyone from it.
//!
//! The replica counts by the list's ids; the engine keeps the lists themselves, with addresses. Both forget a list when its
//! record is cut. What this node's state file and its gossip say follows once a list is committed.

use crate::codec::record::{MemberRecord, MembershipBody, MembershipRecord, RecordKind};
use crate::consensus::Change;
use crate::types::{LogPosition, NodeId};

use super::action::Action;
use super::core::Engine;
use super::effects::CONTROL_ROOM_BYTES;
use super::{Answer, ControlOutput, MemberChange};

/// A change of the list that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingChange {
    token: u64,
    end: LogPosition,
}

impl Engine {
    /// The voting members: the last list in the log, committed or not. Empty without a cluster.
    #[must_use]
    pub fn members(&self) -> &[MemberRecord] {
        self.lists.as_ref().map_or(&[], |lists| &lists.last().members)
    }

    pub(super) fn handle_change_members(&mut self, token: u64, change: MemberChange) {
        match self.begin_change(change) {
            Ok(end) => self.change = Some(PendingChange { token, end }),
            Err(reason) => self.answer_control(token, Err(reason)),
        }
    }

    /// Appends the record of a new list. The list is in force at once.
    fn begin_change(&mut self, change: MemberChange) -> Result<LogPosition, String> {
        let (Some(replica), Some(lists)) = (&self.replica, &self.lists) else {
            return Err("this node is in no cluster yet".to_owned());
        };
        let step = match change {
            MemberChange::Add(member) => Change::Add(member.node),
            MemberChange::Remove(node) => Change::Remove(node),
        };
        replica.plan_change(self.now, step)?;
        if self.stopping || !self.accepting {
            return Err("this leader takes no writes at the moment: try again".to_owned());
        }
        match self.refusal_for_room(CONTROL_ROOM_BYTES) {
            None => {}
            Some(Answer::NoQuorumRoom) => {
                return Err(
                    "the disks of so many members are full that no majority can take the new list: make room, then \
                            try again"
                        .to_owned(),
                );
            }
            Some(_) => return Err("this leader's disk is full: make room, then try again".to_owned()),
        }
        if self.buffer_room() < CONTROL_ROOM_BYTES {
            return Err("this leader's log buffer is full: try again when the followers have caught up".to_owned());
        }
        let mut list = lists.last().clone();
        match change {
            MemberChange::Add(member) => list.members.push(member),
            MemberChange::Remove(node) => list.members.retain(|member| member.node != node),
        }
        let names: Vec<String> = list.members.iter().map(|member| member.node.to_string()).collect();
        tracing::info!("the member list is being changed ({change:?}): {}", names.join(", "));
        Ok(self.append_list(list))
    }

    /// Appends a member list, for which there is room. Returns the record's end.
    pub(super) fn append_list(&mut self, list: MembershipBody) -> LogPosition {
        let before = self.members().to_vec();
        let record = MembershipRecord { list, before };
        let position = self.append_control(RecordKind::Membership, &record.encode(), None);
        self.take_list(position, record);
        self.positions().0
    }

    /// What a leader writes into a log that has no list of its cluster.
    pub(super) fn list_to_write(&self) -> Option<MembershipBody> {
        self.lists.as_ref().map(|lists| lists.last().clone())
    }

    /// The record of a list is in the log: it is in force.
    pub(super) fn take_list(&mut self, position: LogPosition, record: MembershipRecord) {
        let (Some(replica), Some(lists)) = (&mut self.replica, &mut self.lists) else { return };
        // Of the cluster whose log was restored for this one: it says nothing about this one's members.
        if record.list.cluster != replica.options().cluster {
            return;
        }
        self.is_list_in_log = true;
        replica.handle_list(position, ids(&record.list.members));
        lists.push(position, record.list);
        self.list_changed();
    }

    /// The log was cut: perhaps the list before is in force again.
    pub(super) fn cut_lists(&mut self, end: LogPosition) {
        if self.lists.as_mut().is_some_and(|lists| lists.truncate(end)) {
            tracing::info!("the record of the last member list was cut: the list before is in force again");
            // Perhaps it was the only one: a list that is written once more than needed does no harm.
            self.is_list_in_log = false;
            self.list_changed();
        }
    }

    pub(super) fn list_changed(&mut self) {
        self.list_unsaved = true;
        self.view_dirty = true;
        // The nodes' addresses.
        if let Some(lists) = &self.lists {
            self.actions.push(Action::ClusterKnown(lists.last().clone()));
        }
        self.control(ControlOutput::ViewChanged);
    }

    /// Answers who waits for a change that is committed.
    pub(super) fn finish_change(&mut self, committed: LogPosition) {
        if let Some(PendingChange { token, .. }) = self.change.take_if(|change| change.end <= committed) {
            self.answer_control(token, Ok(()));
            self.view_dirty = true;
        }
    }

    /// Leadership is over: nobody here knows what becomes of a change that is not committed.
    pub(super) fn abandon_change(&mut self) {
        if let Some(PendingChange { token, .. }) = self.change.take() {
            let reason = "leadership was lost before the new member list was committed: it may come into force or not; \
                          look at the status of the new leader";
            self.answer_control(token, Err(reason.to_owned()));
        }
    }

    /// The state file and gossip follow the list once it is committed. A node that copies an old part of the log meets lists
    /// of the past there: it waits until it is near the end, of which it knows only once the leader has told.
    pub(super) fn poll_lists(&mut self) {
        let (Some(replica), Some(lists)) = (&self.replica, &self.lists) else { return };
        let knows_the_end = replica.is_leader() || replica.leader_commit() > LogPosition::ZERO;
        if !self.list_unsaved || lists.is_pending(replica.commit_position()) || !knows_the_end || self.is_far_behind() {
            return;
        }
        self.list_unsaved = false;
        self.view_dirty = true;
        let list = lists.last().clone();
        if self.state.founding.as_ref() != Some(&list) {
            self.state.founding = Some(list.clone());
            self.mark_state_dirty();
        }
        self.control(ControlOutput::MembersChanged(list));
    }
}

/// The members' ids.
pub(super) fn ids(members: &[MemberRecord]) -> Vec<NodeId> {
    members.iter().map(|member| member.node).collect()
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
