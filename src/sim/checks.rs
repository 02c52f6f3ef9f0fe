//! The checkers that look at every turn of every node. They draw no randomness and change nothing but their notes.

use crate::codec::record::{Header, RecordKind};
use crate::engine::{Role, WriteSource};
use crate::index::NotReady;
use crate::limits::RECORD_HEADER_BYTES;
use crate::storage::{LogRead, Recovered};
use crate::types::{Epoch, LogPosition, NodeId, Term};

use super::Checker;
use super::agenda::{MILLISECOND, Moment};
use super::kinds::Fault;
use super::profile::{pick, within};
use super::world::{Event, World};

/// As often at most damage to an index may show itself at the end of a run.
const LOOKS_MAX: u32 = 100;

/// How far a cut of the log is, as the shell sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cut {
    #[default]
    None,
    Erasing,
    Flushed,
}

/// What the checkers remember of a node.
#[derive(Debug, Default)]
pub(super) struct Watched {
    commit: LogPosition,
    /// Compared with the reference up to here.
    verified: LogPosition,
    led: Option<Term>,
    role: Role,
    cut: Cut,
    /// The turn in which a flush was last reported.
    cut_flushed_at: Moment,
    /// Flushed and committed once: a restart must find it. Outlives the process.
    acknowledged: LogPosition,
}

/// An election that somebody won.
#[derive(Debug)]
pub(super) struct Election {
    term: Term,
    node: usize,
    life: u32,
    end: LogPosition,
    epochs: Vec<Epoch>,
}

impl Watched {
    /// Flushed here and committed once.
    pub(super) fn acknowledged(&self) -> LogPosition {
        self.acknowledged
    }

    /// The node has given up what it had from here on, and does not claim to have it.
    pub(super) fn forget_behind(&mut self, position: LogPosition) {
        self.acknowledged = self.acknowledged.min(position);
    }

    /// What outlives the process.
    pub(super) fn of_next_start(&self) -> Watched {
        Watched { acknowledged: self.acknowledged, ..Watched::default() }
    }
}

impl World {
    pub(super) fn check_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(engine) = &node.engine else { return };
        let Some(replica) = engine.replica() else { return };
        let (end, flushed, commit, _) = engine.positions();
        let (term, leads, role) = (replica.term(), replica.is_leader(), engine.role());
        if node.voters != replica.members() {
            node.voters = replica.members().to_vec();
        }
        let before = node.watched.commit;
        node.watched.commit = commit;
        node.watched.acknowledged = node.watched.acknowledged.max(commit.min(flushed));
        if node.watched.role != role {
            let from = std::mem::replace(&mut node.watched.role, role);
            self.coverage.note_role(from, role);
            self.line(index, "role", role as u64, u64::from(term.0));
        }
        if leads && self.nodes[index].watched.led != Some(term) {
            self.nodes[index].watched.led = Some(term);
            self.elected(index, term);
        }
        if commit < before {
            self.object(Checker::CommitGrows, format!("n{index}: commit position {before} became {commit}"));
        }
        if commit > before {
            self.line(index, "commits", commit.0, end.0);
            self.count("commits");
        }
        // A follower's flush may come behind the commit of what it covers.
        self.plan_seal(index);
        if commit > self.nodes[index].watched.verified {
            self.check_committed(index, term);
        }
    }

    fn elected(&mut self, index: usize, term: Term) {
        let node = &self.nodes[index];
        let Some(replica) = node.engine.as_ref().and_then(|engine| engine.replica()) else { return };
        let epochs = replica.epochs().newest();
        let election = Election { term, node: index, life: node.life, end: replica.log_end(), epochs };
        self.line(index, "leads", u64::from(term.0), election.end.0);
        self.count("elections");
        if let Some(other) = self.elections.iter().find(|other| other.term == term) {
            let detail = format!("n{index} leads term {term}, which n{} led in its start {}", other.node, other.life);
            return self.object(Checker::OneLeader, detail);
        }
        self.elections.push(election);
        self.check_leader_complete(Term(term.0 - 1));
        self.plan_hunt(index);
    }

    /// Leader completeness (5.4): what was committed in earlier terms is in the log of every later leader, those of
    /// terms behind `committed_in`.
    fn check_leader_complete(&mut self, committed_in: Term) {
        let lacking = self.elections.iter().filter(|election| election.term > committed_in).find_map(|election| {
            let (end, epochs) = self.reference.before(election.term);
            let same = |(ours, theirs): (&Epoch, &Epoch)| (ours.term, ours.position) == (theirs.term, theirs.position);
            let complete = election.end >= end
                && election.epochs.len() >= epochs.len()
                && epochs.iter().zip(&election.epochs).all(same);
            (!complete).then(|| {
                let Election { term, node, end: has, .. } = election;
                format!("n{node} leads term {term} with a log that ends at {has} and lacks some of what is committed to {end}")
            })
        });
        if let Some(detail) = lacking {
            self.object(Checker::LeaderComplete, detail);
        }
    }

    /// Compares what a node has newly committed with what everyone else has.
    fn check_committed(&mut self, index: usize, term: Term) {
        let node = &self.nodes[index];
        let Some(engine) = &node.engine else { return };
        let (_, _, commit, readable) = engine.positions();
        let from = node.watched.verified;
        let mut to = commit.min(readable).max(from);
        let mut bytes = Vec::with_capacity(commit.since(from) as usize);
        node.disk.read_log(from, to, &mut bytes);
        // A start that believes footers does not see what has rotted: that is compared when it is repaired.
        for &(first, last) in &node.rotten {
            let (first, last) = (first.max(from), last.min(to));
            if first < last {
                let known = &self.reference.bytes()[first.0 as usize..last.0 as usize];
                bytes[(first.0 - from.0) as usize..(last.0 - from.0) as usize].copy_from_slice(known);
            }
        }
        // A leader may have committed what it has not written itself yet; its own term's records are in the log buffer.
        let epoch = engine.replica().and_then(|replica| replica.own_epoch());
        if commit > to && epoch.is_some_and(|epoch| epoch.position <= to) {
            bytes.extend_from_slice(engine.buffer().slice(to, commit.since(to) as usize));
            to = commit;
        }
        self.nodes[index].watched.verified = to;
        self.coverage.note("bytes compared", bytes.len() as u64);
        match self.reference.take(self.now, term, from, &bytes) {
            Ok(None) => {}
            Ok(Some(new)) => {
                self.check_majority(index, new);
                self.check_leader_complete(term);
            }
            Err((checker, detail)) => self.object(checker, format!("n{index}: {detail}")),
        }
    }

    /// What is new in the reference lies on a majority of disks, and every later leader has it.
    fn check_majority(&mut self, index: usize, new: LogPosition) {
        let bytes = &self.reference.bytes()[new.0 as usize..];
        let disks = self.nodes.iter().map(|node| (node.id, &node.disk));
        // What a disk had that was lost since counts: the node has told of it before.
        let lost = self.lost_disks.iter().map(|(id, disk)| (*id, disk));
        let have: Vec<NodeId> =
            disks.chain(lost).filter(|(_, disk)| disk.holds(new, bytes)).map(|(id, _)| id).collect();
        let holders = |voters: &[NodeId]| voters.iter().filter(|id| have.contains(id)).count();
        // The list in force was that of the committed log, or a later one that the node has by now.
        let (committed, own) = (self.reference_members(), &self.nodes[index].voters);
        if [&committed, own].iter().all(|voters| holders(voters) <= voters.len() / 2) {
            let (end, holders, members) = (self.reference.end(), holders(&committed), committed.len());
            let detail =
                format!("n{index} committed {new} to {end}, which {holders} of {members} members have flushed");
            self.object(Checker::DurableMajority, detail);
        }
    }

    pub(super) fn check_write(&mut self, index: usize, position: LogPosition, length: usize, source: WriteSource) {
        if source != WriteSource::Zeros {
            return;
        }
        self.line(index, "cuts", position.0, length as u64);
        self.note_cut(index, position, length);
        let commit = self.nodes[index].watched.commit.min(self.reference.end());
        if position >= commit {
            return;
        }
        // A leader may have committed what it has not written itself: then what is there is stale, and may go.
        let end = position.plus((length as u64).min(commit.since(position)).min(RECORD_HEADER_BYTES as u64));
        let mut there = Vec::new();
        self.nodes[index].disk.read_log(position, end, &mut there);
        if there == self.reference.bytes()[position.0 as usize..end.0 as usize] {
            let detail = format!("n{index} erases from {position}, but has committed up to {commit}");
            self.object(Checker::CommittedStays, detail);
        }
    }

    /// Kinds of cuts: of the first zeros what they take away, of the others that there are more.
    fn note_cut(&mut self, index: usize, position: LogPosition, length: usize) {
        let node = &mut self.nodes[index];
        if std::mem::replace(&mut node.watched.cut, Cut::Erasing) == Cut::Erasing {
            return self.count("cuts across a chunk end");
        }
        let mut gone = Vec::new();
        node.disk.read_log(position, position.plus(length as u64), &mut gone);
        let (mut at, mut has_epoch, mut is_own) = (0, false, false);
        let led = node.watched.led;
        while let Ok(header) = Header::read(&gone[at..], position.plus(at as u64), (gone.len() - at) as u64) {
            has_epoch |= header.kind == RecordKind::Epoch;
            is_own |= led == Some(header.term);
            at += header.length as usize;
            if gone.len() < at + RECORD_HEADER_BYTES {
                break;
            }
        }
        self.count("cuts");
        self.coverage.note("cuts of an epoch", u64::from(has_epoch));
        self.coverage.note("cuts of what a leader wrote", u64::from(is_own));
    }

    /// The phases of a cut, as the flushes show them that a durable mark goes with.
    pub(super) fn note_marking_flush(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        match node.watched.cut {
            Cut::Erasing => node.watched.cut = Cut::Flushed,
            // One that was asked for while the other was under way follows it at once.
            Cut::Flushed if node.watched.cut_flushed_at == self.now => {
                node.watched.cut = Cut::None;
                self.count("cuts during a cut");
            }
            _ => node.watched.cut = Cut::None,
        }
    }

    pub(super) fn note_flushed(&mut self, index: usize) {
        self.nodes[index].watched.cut_flushed_at = self.now;
    }

    pub(super) fn check_recovered(&mut self, index: usize, recovered: &Recovered) {
        let acknowledged = self.nodes[index].watched.acknowledged;
        if recovered.end < acknowledged {
            let detail = format!("n{index} starts with a log to {}, but had {acknowledged} durable", recovered.end);
            self.object(Checker::Recovery, detail);
        }
    }

    /// At the end of a run: every node's log and index are what the reference says.
    pub(super) fn check_final(&mut self) {
        self.count("final comparisons");
        self.check_history();
        for index in 0..self.nodes.len() {
            self.check_footers(index);
            let node = &self.nodes[index];
            let mut bytes = Vec::new();
            node.disk.read_log(LogPosition::ZERO, self.reference.end(), &mut bytes);
            if bytes != self.reference.bytes() {
                self.object(
                    Checker::SameLog,
                    format!("the log in the files of n{index} differs from what was committed"),
                );
            } else if let Some(detail) = self.whole_index_differs(index) {
                self.object(Checker::IndexAgrees, detail);
            }
        }
    }

    pub(super) fn check_history(&mut self) {
        self.count("histories judged");
        if let Some(misfit) = self.history.misfit(&self.reference) {
            self.object(Checker::Linearizable, misfit);
        }
    }

    /// The same once more when looking has shown damage, which is then made good.
    fn whole_index_differs(&mut self, index: usize) -> Option<String> {
        for _ in 0..LOOKS_MAX {
            self.complete_index(index);
            match self.index_differs(index) {
                Ok(None) if !self.nodes[index].applied.is_complete() => {}
                Ok(differs) => return differs,
                Err(NotReady) if self.nodes[index].applied.has_misfit() => {
                    return Some(format!("n{index}: parts of the index do not fit together"));
                }
                Err(NotReady) => {}
            }
        }
        Some(format!("n{index}: the index is never whole"))
    }

    /// How it differs from the log. Says nothing when a part of it was damaged and must be made again first.
    fn index_differs(&self, index: usize) -> Result<Option<String>, NotReady> {
        let node = &self.nodes[index];
        let mut positions = Vec::new();
        for (name, stream) in &self.reference.streams {
            let last = if stream.deleted { i64::MAX } else { stream.ids.len() as i64 - 1 };
            let found = node.applied.head(name)?.last_event_number;
            if found != last {
                return Ok(Some(format!("n{index}: {name} ends with {found} in the index, with {last} in the log")));
            }
            let first = node.applied.positions(name, 0, stream.ids.len(), &mut positions)?;
            let same = |(&position, id): (&LogPosition, &crate::types::EventId)| {
                let mut bytes = [0; 16];
                let read = node.disk.with_chunk(position, &mut |chunk| bytes.copy_from_slice(&chunk[8..24]));
                read.is_ok() && bytes == id.0.0
            };
            if !stream.deleted && !positions.iter().zip(&stream.ids[first as usize..]).all(same) {
                return Ok(Some(format!("n{index}: the index leads to other events of {name} than the log has")));
            }
        }
        Ok(None)
    }

    /// With this fault something happens to a leader before it has found its feet.
    fn plan_hunt(&mut self, node: usize) {
        if self.settling.is_some() {
            return;
        }
        let timeout = self.profile.election_timeout.as_nanos() as u64;
        for (fault, likely) in [(Fault::HuntLeader, 3), (Fault::HuntAll, 1), (Fault::Rotate, 4), (Fault::Members, 2)] {
            let random = &mut self.random.hunts;
            if self.profile.has(fault) && random.u8(0..4) < likely {
                let longest = pick(random, &[MILLISECOND, timeout / 20, timeout / 4, timeout * 2]);
                let delay = within(random, (0, longest));
                self.agenda.plan(self.now + delay, Event::Hunt { node, fault });
            }
        }
    }
}
