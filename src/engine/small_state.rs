//! The small durable state: term and vote, the founding, the commit hint; and the replica's start from it.

use std::time::Duration;

use crate::codec::record::MembershipBody;
use crate::consensus::{EpochTable, MemberLists, Replica, ReplicaOptions, Restored, RestoredList};

use super::action::Action;
use super::core::Engine;
use super::members::ids;

/// Commit progress after which the durable hint is renewed: how much a restart may have to learn from the leader.
const COMMIT_HINT_BYTES: u64 = 64 << 20;

/// The hint is renewed after this time, too, when it has moved at all: a quiet cluster may write less than that in a year, and
/// all of it would count as maybe not committed after a restart.
const COMMIT_HINT_REST: Duration = Duration::from_secs(10);

/// Saves of the small state: one at a time, the newest wins.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// Sequence of the save in flight.
    pub(super) in_flight: Option<u64>,
    /// Something changed since.
    pub(super) dirty: bool,
    /// Replica saves that the state holds by now, not yet in a save in flight.
    pub(super) replica: u64,
    /// Replica saves that the save in flight covers.
    pub(super) replica_in_flight: u64,
    /// Control requests to answer once the next save is durable; then once the one in flight is.
    pub(super) tokens: Vec<u64>,
    pub(super) tokens_in_flight: Vec<u64>,
}

impl Engine {
    /// The small state with this sequence is durable.
    pub fn handle_state_saved(&mut self, sequence: u64) {
        assert_eq!(self.saving.in_flight, Some(sequence), "one save of the state in flight");
        self.saving.in_flight = None;
        let replica_sequence = self.saving.replica_in_flight;
        for token in std::mem::take(&mut self.saving.tokens_in_flight) {
            self.answer_control(token, Ok(()));
        }
        if self.state.founded && self.replica.is_none() {
            self.start_replica();
        }
        let now = self.now;
        self.with_replica(|replica, effects| replica.handle_saved(now, replica_sequence, effects));
    }

    pub(super) fn mark_state_dirty(&mut self) {
        self.saving.dirty = true;
    }

    /// The next save covers the replica's save `sequence`.
    pub(super) fn save_for_replica(&mut self, sequence: u64) {
        self.saving.replica = sequence;
        self.saving.dirty = true;
        self.poll_saving();
    }

    pub(super) fn start_replica(&mut self) {
        let (Some(list), Some(mut recovered)) = (self.cluster().cloned(), self.recovered.take()) else {
            return;
        };
        // A log that was restored for a new cluster begins with the old one's: its lists are nobody's here.
        recovered.membership = recovered.membership.filter(|(_, record)| record.list.cluster == list.cluster);
        self.is_list_in_log = recovered.membership.is_some();
        let options = ReplicaOptions {
            node: self.state.node,
            cluster: list.cluster,
            members: ids(&list.members),
            election_timeout: self.options.election_timeout,
            heartbeat_interval: self.options.heartbeat_interval,
            priority: self.options.priority,
            seed: self.options.seed,
            is_jittered: true,
            #[cfg(test)]
            planted: self.options.planted,
        };
        let restored = Restored {
            term: self.state.term,
            voted_for: self.state.voted_for,
            epochs: EpochTable::new(recovered.epochs),
            log_end: recovered.end,
            commit_position: self.state.commit_hint,
            list: recovered.membership.as_ref().map(|(position, record)| RestoredList {
                position: *position,
                members: ids(&record.list.members),
                before: ids(&record.before),
            }),
            is_suspect: self.state.suspect,
        };
        self.replica = Some(Replica::new(options, restored, self.now));
        self.lists = Some(match recovered.membership {
            None => MemberLists::new(list),
            Some((position, record)) => {
                let mut lists = MemberLists::new(MembershipBody { members: record.before, ..list });
                lists.push(position, record.list);
                lists
            }
        });
        self.list_changed();
        self.view_dirty = true;
    }

    pub(super) fn handle_accept_founding(&mut self, token: u64, list: MembershipBody) {
        match &self.state.founding {
            Some(accepted) if *accepted != list => {
                let reason = format!("this node has accepted the founding of cluster {} already", accepted.cluster);
                self.answer_control(token, Err(reason));
                return;
            }
            _ => self.state.founding = Some(list),
        }
        self.saving.tokens.push(token);
        self.mark_state_dirty();
        self.poll_saving();
    }

    pub(super) fn handle_founded(&mut self, list: MembershipBody) {
        if self.state.founded {
            return;
        }
        if self.state.founding.as_ref().is_some_and(|accepted| accepted.cluster != list.cluster) {
            tracing::error!(cluster = %list.cluster, "not joined: this node has accepted the founding of another cluster");
            return;
        }
        self.state.founding = Some(list);
        self.state.founded = true;
        self.mark_state_dirty();
        self.poll_saving();
    }

    pub(super) fn poll_commit_hint(&mut self) {
        let Some(replica) = &self.replica else { return };
        // What can be saved: see below.
        let commit = replica.commit_position().min(replica.flushed());
        let is_due = commit > self.commit_hint_saved && self.now >= self.commit_hint_saved_at.after(COMMIT_HINT_REST);
        if (is_due || commit.0 >= self.commit_hint_saved.0 + COMMIT_HINT_BYTES) && self.saving.in_flight.is_none() {
            self.mark_state_dirty();
        }
    }

    pub(super) fn poll_saving(&mut self) {
        if !self.saving.dirty || self.saving.in_flight.is_some() {
            return;
        }
        if let Some(replica) = &self.replica {
            // Only what is durable here: the hint must never pass the log's end after a crash.
            self.state.commit_hint = replica.commit_position().min(replica.flushed());
        }
        self.state.sequence += 1;
        (self.commit_hint_saved, self.commit_hint_saved_at) = (self.state.commit_hint, self.now);
        self.saving.dirty = false;
        self.saving.in_flight = Some(self.state.sequence);
        self.saving.replica_in_flight = self.saving.replica;
        self.saving.tokens_in_flight = std::mem::take(&mut self.saving.tokens);
        self.actions.push(Action::SaveState(Box::new(self.state.clone())));
    }
}
