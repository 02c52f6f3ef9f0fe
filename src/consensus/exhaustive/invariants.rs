//! What must hold in every state and of everything that is said.

use crate::consensus::harness::node;
use crate::consensus::{Effect, Message, PlantedBug};
use crate::types::{LogPosition, Term};

use super::model::{
    Bounds, NODES, Record, Violation, World, end_of, epochs_of, list_of, mask_of, records_to, violated,
};

impl World {
    pub(super) fn truncate(&mut self, at: usize, to: LogPosition, bounds: &Bounds) -> Result<(), Violation> {
        let kept = records_to(to);
        let log = &self.hosts[at].log;
        if kept < log.len() {
            let common = log.iter().zip(&self.ghost.committed).take_while(|(ours, theirs)| ours == theirs).count();
            if kept < common {
                return violated("CommittedKept", format!("node {at} cuts its log {log:?} at {kept}"));
            }
            self.ghost.cuts = true;
            let host = self.host_mut(at);
            host.log.truncate(kept);
            host.flushed = host.flushed.min(kept);
        }
        self.run(at, bounds, |replica, effects| replica.handle_truncated(effects))
    }

    pub(super) fn lead(&mut self, at: usize, term: Term) -> Result<(), Violation> {
        if self.ghost.led.contains(&term) {
            return violated("OneLeader", format!("node {at} leads term {term}, which had a leader"));
        }
        self.ghost.led.push(term);
        self.ghost.led.sort_unstable();
        // A leader of an older term may be elected late; it has what was committed before its term.
        let earlier = self.ghost.commits.iter().filter(|(in_term, _)| *in_term < term).map(|(_, records)| *records);
        let log = &self.hosts[at].log;
        let committed = &self.ghost.committed[..earlier.max().unwrap_or(0)];
        if !log.starts_with(committed) {
            return violated("LeaderComplete", format!("node {at} leads with {log:?}, committed is {committed:?}"));
        }
        self.append(at, Record { term, list: None });
        Ok(())
    }

    pub(super) fn commit(&mut self, at: usize, position: LogPosition) -> Result<(), Violation> {
        let log = &self.hosts[at].log;
        let Some(prefix) = log.get(..records_to(position)) else {
            return violated("CommitInLog", format!("node {at} commits {position} of {log:?}"));
        };
        let committed = &self.ghost.committed;
        let shorter = prefix.len().min(committed.len());
        if prefix[..shorter] != committed[..shorter] {
            return violated("OneHistory", format!("node {at} commits {prefix:?}, committed is {committed:?}"));
        }
        if prefix.len() > committed.len() {
            let (committed, term) = (prefix.to_vec(), self.hosts[at].replica.term());
            self.ghost.commits.retain(|(in_term, _)| *in_term != term);
            self.ghost.commits.push((term, committed.len()));
            self.ghost.commits.sort_unstable();
            self.ghost.committed = committed;
        }
        Ok(())
    }

    /// Nobody speaks of a term, a vote or a record that is not durable. A refusal is excepted: it promises nothing.
    pub(super) fn check_speech(&self, at: usize, effect: &Effect) -> Result<(), Violation> {
        let host = &self.hosts[at];
        let ((term, vote), own) = (host.durable, node(at));
        let is_durable = match effect {
            // What was held back while a newer term was saved along with it promises as much.
            Effect::RequestVote { pre: false, request, .. } => {
                term > request.term || (term, vote) == (request.term, Some(own))
            }
            Effect::Lead { term: led } => (term, vote) == (*led, Some(own)),
            Effect::AnswerVote { response, .. } if response.granted => {
                term > response.term || (term == response.term && vote.is_some())
            }
            Effect::AnswerVote { response, .. } => response.term <= term,
            Effect::Send { message: Message::Refused { .. }, .. } => true,
            Effect::Send { message: Message::Acknowledge { term: spoken, position, .. }, .. } => {
                *spoken <= term && records_to(*position) <= host.flushed
            }
            Effect::Send { message, .. } => message.term() <= term,
            _ => true,
        };
        if is_durable {
            Ok(())
        } else {
            violated("DurableSpeech", format!("node {at}, durable {term} {vote:?}: {effect:?}"))
        }
    }

    pub(super) fn check(&self, bounds: &Bounds) -> Result<(), Violation> {
        self.check_majority(bounds)?;
        for at in 0..NODES {
            self.check_host(at, bounds)?;
            let host = &self.hosts[at];
            for other in self.hosts.iter().skip(at + 1) {
                let pairs = host.log.iter().zip(&other.log);
                let same = pairs.clone().take_while(|(one, two)| one == two).count();
                if pairs.skip(same).any(|(one, two)| one.term == two.term) {
                    return violated("LogMatching", format!("{:?} and {:?}", host.log, other.log));
                }
            }
        }
        Ok(())
    }

    /// What is committed is on the disks of a majority of a list: of the last one committed, or of one that a node has
    /// behind that.
    fn check_majority(&self, bounds: &Bounds) -> Result<(), Violation> {
        let committed = &self.ghost.committed;
        let has_all = |at: &usize| self.hosts[*at].log[..self.hosts[*at].flushed].starts_with(committed);
        let holders = (0..NODES).filter(has_all).fold(0, |mask, at| mask | 1_u8 << at);
        let is_majority = |list: u8| (holders & list).count_ones() > list.count_ones() / 2;
        let mut lists = self.hosts.iter().filter(|host| host.log.starts_with(committed));
        if is_majority(list_of(committed, bounds)) || lists.any(|host| is_majority(list_of(&host.log, bounds))) {
            return Ok(());
        }
        violated("DurableMajority", format!("{committed:?} is on the disks {holders:#b}"))
    }

    fn check_host(&self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        let host = &self.hosts[at];
        let (replica, log) = (&host.replica, &host.log);
        assert_eq!(replica.log_end(), end_of(log.len()), "the model of node {at}");
        assert_eq!(*replica.epochs(), epochs_of(log), "the model of node {at}");
        let counts_otherwise =
            matches!(bounds.planted, Some(PlantedBug::ListCountedOnceCommitted | PlantedBug::CutListKept));
        if !counts_otherwise && mask_of(replica.members()) != list_of(log, bounds) {
            return violated("ListInForce", format!("node {at} has {:?} with {log:?}", replica.members()));
        }
        let behind = log.get(records_to(replica.commit_position())..).unwrap_or_default();
        if replica.is_leader() && behind.iter().filter(|record| record.list.is_some()).count() > 1 {
            return violated("OneChange", format!("node {at} leads with two changes in {behind:?}"));
        }
        Ok(())
    }
}
