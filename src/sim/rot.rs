//! Bits that change on a disk by themselves, and their repair from another node.
//!
//! The model, for a checker must not ask for the impossible. A range of the log rots on one node only while a majority of
//! the members has all records in it whole and flushed, and no rot elsewhere: a node that finds rot when it starts waits for
//! one that knows what is committed, so with rot anywhere in a majority nobody would. And only below the durable mark that this node has on its disk:
//! above it rot in the last record cannot be told from a write that a crash has torn. A running node finds rot when its
//! scrubber passes, after a while; a node that starts finds it in recovery. Both take the range from a node that has
//! committed it, through the same function as the real ones. Until then a read that meets it is tried elsewhere.

use crate::codec::record::RecordView;
use crate::storage::{ChunkLayout, Damage, FetchError, LogRead, RangeSource, RecoveryError, damage_at, repair_range};
use crate::types::{Epoch, LogPosition, NodeId};

use super::Checker;
use super::agenda::{MILLISECOND, SECOND};
use super::disk::VirtualDisk;
use super::profile::pick;
use super::world::{Event, World};

/// Bytes that rot at a time, at most.
const ROT_BYTES_MAX: u64 = 600;

/// The committed log of another node, as it gives it to those who ask.
struct Peer<'a> {
    disk: &'a VirtualDisk,
    layout: ChunkLayout,
    node: NodeId,
    committed: LogPosition,
}

impl RangeSource for Peer<'_> {
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
        if to > self.committed {
            return Err(FetchError::Behind { peer: self.describe(), committed: self.committed, needed: to });
        }
        let mut bytes = Vec::new();
        self.disk.read_log(from, to, &mut bytes);
        let mut at = 0;
        while at < bytes.len() {
            let position = from.plus(at as u64);
            let room = self.layout.room(position).min(to.since(position));
            match RecordView::check(&bytes[at..], position, room) {
                Ok(record) => at += record.bytes().len(),
                Err(error) => {
                    return Err(FetchError::Refused { peer: self.describe(), status: 409, words: error.to_string() });
                }
            }
        }
        Ok(bytes)
    }

    fn describe(&self) -> String {
        self.node.to_string()
    }
}

impl World {
    /// Some bytes of a node's log change, where the model allows it.
    pub(super) fn rot(&mut self, index: usize) {
        let Some((from, to)) = self.rot_place(index) else { return };
        let (first, last) = self.reference.records_around(from, to);
        if !self.others_have(index, first, last) {
            return;
        }
        let is_up = self.nodes[index].is_up();
        let node = &mut self.nodes[index];
        node.disk.rot(from, to, &mut self.random.faults);
        node.rotten.push((first, last));
        self.line(index, "rots", from.0, to.0);
        self.count(if is_up { "rot in a running node" } else { "rot in a node that is down" });
        if is_up {
            self.plan_scrub(index);
        }
    }

    /// Often an epoch: what nodes compare their logs by.
    fn rot_place(&mut self, index: usize) -> Option<(LogPosition, LogPosition)> {
        let node = &self.nodes[index];
        let mut limit = node.disk.durable_mark().min(node.watched.acknowledged()).min(self.reference.end());
        if node.is_up() {
            limit = limit.min(node.applied.applied());
        }
        if self.settling.is_some() || limit == LogPosition::ZERO {
            return None;
        }
        let random = &mut self.random.faults;
        let epoch = self.reference.epochs().iter().rev().find(|epoch| epoch.position < limit);
        let from = match epoch {
            Some(epoch) if random.u8(0..2) == 0 => epoch.position.plus(random.u64(0..32)),
            _ => LogPosition(random.u64(0..limit.0)),
        };
        let longest = if random.bool() { 8 } else { ROT_BYTES_MAX };
        let room = self.layout.room(from).min(limit.0.saturating_sub(from.0)).min(longest);
        (room > 0).then(|| (from, from.plus(random.u64(1..=room))))
    }

    /// A majority of the members, without this node, has these records whole and flushed, and the rest whole.
    fn others_have(&self, index: usize, from: LogPosition, to: LogPosition) -> bool {
        let members = self.reference_members();
        let is_changing = |node: &super::node::Node| !node.changes.is_empty() || node.voters != members;
        if self.nodes.iter().any(|node| !node.voters.is_empty() && is_changing(node)) {
            return false;
        }
        let bytes = &self.reference.bytes()[from.0 as usize..to.0 as usize];
        let whole = |node: &&super::node::Node| {
            node.index != index && node.rotten.is_empty() && members.contains(&node.id) && node.disk.holds(from, bytes)
        };
        self.nodes.iter().filter(whole).count() > members.len() / 2
    }

    pub(super) fn plan_scrub(&mut self, index: usize) {
        let latest = pick(&mut self.random.disk, &[20 * MILLISECOND, 200 * MILLISECOND, 2 * SECOND]);
        let delay = self.random.disk.u64(0..=latest);
        let life = self.nodes[index].life;
        self.agenda.plan(self.now + delay, Event::Scrub { node: index, life });
    }

    /// The scrubber passes: all of the committed log is looked at, what is damaged is repaired.
    pub(super) fn scrub(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.rotten.is_empty() {
            return;
        }
        let Some(engine) = &node.engine else { return };
        let (_, _, commit, readable) = engine.positions();
        let epochs = engine.replica().map(|replica| replica.epochs().newest()).unwrap_or_default();
        let end = commit.min(readable);
        let (mut from, mut all) = (LogPosition::ZERO, true);
        while let Some(damage) = self.next_damage(index, from, end) {
            from = damage.to;
            let repaired = self.repair(index, &damage, &epochs);
            self.coverage.note("ranges repaired", u64::from(repaired));
            all &= repaired;
        }
        if all {
            // Not every byte that rotted became another one.
            self.nodes[index].rotten.retain(|&(_, to)| to > end);
        }
        if !self.nodes[index].rotten.is_empty() {
            self.plan_scrub(index);
        }
    }

    fn next_damage(&self, index: usize, mut from: LogPosition, end: LogPosition) -> Option<Damage> {
        while from < end {
            let mut found = None;
            let mut next = from;
            let visit = &mut |bytes: &[u8]| {
                let mut bytes = &bytes[..(bytes.len() as u64).min(end.since(from)) as usize];
                while !bytes.is_empty() && found.is_none() {
                    match RecordView::check(bytes, next, self.layout.room(next)) {
                        Ok(record) => {
                            next = record.header.end();
                            bytes = &bytes[record.bytes().len()..];
                        }
                        Err(_) => found = damage_at(self.layout, bytes, next),
                    }
                }
            };
            self.nodes[index].disk.with_chunk(from, visit).ok()?;
            if found.is_some() {
                return found;
            }
            from = next;
        }
        None
    }

    /// Takes a damaged range from a node that has committed it. False when nobody can give it now.
    fn repair(&mut self, index: usize, damage: &Damage, epochs: &[Epoch]) -> bool {
        let Some(peer) = self.pick_peer(index, damage.to) else {
            self.count("repairs that found nobody");
            return false;
        };
        let layout = self.layout;
        let committed = self.served_by(peer);
        let source = Peer { disk: &self.nodes[peer].disk, layout, node: self.nodes[peer].id, committed };
        if repair_range(&self.nodes[index].disk, layout, epochs, damage, &source).is_err() {
            self.count("repairs refused");
            return false;
        }
        self.line(index, "repairs", damage.from.0, damage.to.0);
        let wanted = self.reference.bytes().get(damage.from.0 as usize..damage.to.0 as usize);
        if wanted.is_none_or(|wanted| !self.nodes[index].disk.holds(damage.from, wanted)) {
            let detail = format!("n{index} has repaired {damage} from n{peer}, with other bytes than were committed");
            self.object(Checker::RepairExact, detail);
        }
        self.nodes[index].rotten.retain(|&(from, to)| from < damage.from || to > damage.to);
        true
    }

    /// What a node says that it has committed.
    fn served_by(&self, peer: usize) -> LogPosition {
        let Some(engine) = &self.nodes[peer].engine else { return LogPosition::ZERO };
        let (end, _, commit, readable) = engine.positions();
        #[cfg(test)]
        if self.options.planted == Some(crate::consensus::PlantedBug::RepairFromStalePeer) {
            return end;
        }
        let _ = end;
        commit.min(readable)
    }

    /// A node that can be reached and has committed so far.
    fn pick_peer(&mut self, index: usize, to: LogPosition) -> Option<usize> {
        let cut = &self.network.cut;
        let reached = |&peer: &usize| peer != index && !cut[index][peer] && !cut[peer][index];
        let mut peers: Vec<usize> =
            (0..self.nodes.len()).filter(reached).filter(|&peer| self.served_by(peer) >= to).collect();
        self.random.disk.shuffle(&mut peers);
        #[cfg(test)]
        if self.options.planted == Some(crate::consensus::PlantedBug::RepairFromStalePeer) {
            let commit = |&peer: &usize| self.nodes[peer].engine.as_ref().map(|engine| engine.positions().2);
            return peers.into_iter().min_by_key(commit);
        }
        peers.pop()
    }

    /// A node that does not start for damage below its durable mark takes what is damaged from the others first. False
    /// when that cannot be done now.
    pub(super) fn mend(&mut self, index: usize, error: &RecoveryError) -> bool {
        let RecoveryError::Corrupt { position, durable, .. } = error else { return false };
        let mut found = None;
        let end = *durable;
        let visit = &mut |bytes: &[u8]| {
            let bytes = &bytes[..(bytes.len() as u64).min(end.since(*position)) as usize];
            found = damage_at(self.layout, bytes, *position);
        };
        let is_read = self.nodes[index].disk.with_chunk(*position, visit).is_ok();
        let Some(damage) = found.filter(|_| is_read) else { return false };
        let repaired = self.repair(index, &damage, &[]);
        if repaired {
            self.count("ranges repaired at start");
        }
        repaired
    }
}
