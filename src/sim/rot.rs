//! Bits that change on a disk by themselves, and their repair from another node.
//!
//! The model, for a checker must not ask for the impossible. A range of the log rots on one node only while a majority of
//! the members has all records in it whole and flushed, and no rot elsewhere: a node that finds rot when it starts waits for
//! one that knows what is committed, so with rot anywhere in a majority nobody would. And only below the durable mark that this node has on its disk:
//! above it rot in the last record cannot be told from a write that a crash has torn. A running node finds rot when its
//! scrubber passes, after a while; a node that starts finds it in recovery. Both take the range from a node that has
//! committed it, through the same functions as the real ones. Until then a read that meets it is tried elsewhere. A start
//! that believes a footer does not see what has rotted in its chunk: the index waits for the repair then.
//!
//! Around the log: footers rot wherever they are; header pages only while the log of the node is whole and the chunk's first record
//! is durable, for otherwise nothing is left to know the file by; the newest durable mark while the node is down and the log is
//! whole. An older mark may tell of a longer log, from before a cut; so other nodes are asked before the start, and a majority of
//! them must be sound. Of the state file one slot rots while the other one is good. Files of the index rot anywhere.

use crate::codec::record::RecordView;
use crate::storage::{
    ChunkFooter, Damage, DurableMark, DurableState, FileName, LogRead, STATE_FILE_BYTES, STATE_SLOT_BYTES,
    STATE_SLOT_OFFSETS, damage_at,
};
use crate::types::LogPosition;

use super::agenda::{MILLISECOND, SECOND};
use super::io::Io;
use super::profile::pick;
use super::world::{Event, World};

/// Bytes that rot at a time, at most.
const ROT_BYTES_MAX: u64 = 600;

impl World {
    /// Some bytes of a node's files change, where the model allows it.
    pub(super) fn rot(&mut self, index: usize) {
        #[cfg(test)]
        if self.options.planted == Some(crate::consensus::PlantedBug::RepairFromStalePeer) {
            return self.rot_log(index);
        }
        match self.random.faults.u8(0..20) {
            _ if self.settling.is_some() => {}
            0 => self.rot_footer(index),
            1 => self.rot_header(index),
            2 => self.rot_mark(index),
            3 => self.rot_state(index),
            4 => self.rot_index(index),
            _ => self.rot_log(index),
        }
    }

    fn rot_log(&mut self, index: usize) {
        if self.nodes[index].pages_rotten || self.nodes[index].marks_rotten {
            return;
        }
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

    /// A footer that was flushed.
    fn rot_footer(&mut self, index: usize) {
        let chunks = self.layout.chunk_of(self.nodes[index].watched.acknowledged());
        if chunks == 0 {
            return;
        }
        let (chunk, offset) = (self.random.faults.u32(0..chunks), self.layout.footer_offset());
        let name = FileName::Chunk(chunk);
        let page = self.nodes[index].disk.durable_bytes(name, offset..self.layout.file_length());
        if page.is_some_and(|page| matches!(ChunkFooter::decode(&page, chunk, self.layout), Ok(Some(_)))) {
            self.rot_page(index, name, (offset, self.layout.file_length()), "rot in a footer");
        }
    }

    /// The identity of a chunk file, or the zeros around it. Not of one whose first record might be torn, too: nothing would be left
    /// to know it by.
    fn rot_header(&mut self, index: usize) {
        let Some(limit) = self.rot_limit(index).filter(|_| self.nodes[index].rotten.is_empty()) else { return };
        let random = &mut self.random.faults;
        let chunk = random.u32(0..=self.layout.chunk_of(LogPosition(limit.0 - 1)));
        let from = pick(random, &[0, 8, 16, 24, 32, 300, 600, 1_100, 2_000]);
        let length = if from < 32 { 8 } else { 200 };
        self.rot_page(index, FileName::Chunk(chunk), (from, from + length), "rot in a header");
    }

    /// The newest durable mark. On a node that is down: on one that runs the next mark stands elsewhere.
    fn rot_mark(&mut self, index: usize) {
        let members = self.reference_members();
        let node = &self.nodes[index];
        if node.is_up() || node.is_damaged() || !members.contains(&node.id) {
            return;
        }
        let Some((name, mark)) = node.disk.newest_mark() else { return };
        if self.others_have(index, LogPosition::ZERO, LogPosition::ZERO) {
            let (offset, _) = DurableMark::encode_slot(mark.sequence, mark.position);
            self.nodes[index].marks_rotten = true;
            self.rot_page(index, name, (offset, offset + 20), "rot in a mark");
        }
    }

    /// One slot of the state file while the other one is good and stays so: the first slot of a node that runs is the first to be
    /// written again; the second one must wait for that, and a power cut meanwhile may tear the first.
    fn rot_state(&mut self, index: usize) {
        let node = &self.nodes[index];
        let is_saving = node.io.values().any(|io| matches!(io, Io::State { .. } | Io::StateFlush { .. }));
        let Some(bytes) = node.disk.durable_bytes(FileName::State, 0..STATE_FILE_BYTES) else { return };
        let Ok(slots) = DurableState::slots(&bytes) else { return };
        let slot = if node.is_up() { 0 } else { self.random.faults.usize(0..2) };
        if !is_saving && slots.iter().all(Result::is_ok) {
            let offset = STATE_SLOT_OFFSETS[slot];
            self.rot_page(index, FileName::State, (offset, offset + STATE_SLOT_BYTES as u64), "rot in the state file");
        }
    }

    /// The tables and their manifest are derived from the log: they may rot anywhere, at any time.
    fn rot_index(&mut self, index: usize) {
        if self.nodes[index].folder.rot(&mut self.random.faults) {
            self.nodes[index].index_has_rotten();
            self.line(index, "rot in the index", 0, 0);
            self.count("rot in the index");
        }
    }

    /// A few bytes of this range.
    fn rot_page(&mut self, index: usize, name: FileName, range: (u64, u64), what: &'static str) {
        let random = &mut self.random.faults;
        let from = random.u64(range.0..range.1);
        let to = random.u64(from + 1..=range.1).min(from + ROT_BYTES_MAX);
        let node = &mut self.nodes[index];
        node.disk.rot_file(name, from as usize..to as usize, random);
        self.count(what);
        self.line(index, what, from, to);
        if matches!(name, FileName::Chunk(_)) {
            self.nodes[index].pages_rotten = true;
            self.plan_scrub(index);
        }
    }

    /// Below it all is acknowledged and flushed, and known to be so by the disk itself.
    fn rot_limit(&self, index: usize) -> Option<LogPosition> {
        let node = &self.nodes[index];
        let mut limit = node.disk.durable_mark().min(node.watched.acknowledged()).min(self.reference.end());
        if node.is_up() {
            limit = limit.min(node.applied.applied());
        }
        (limit > LogPosition::ZERO).then_some(limit)
    }

    /// Often an epoch: what nodes compare their logs by.
    fn rot_place(&mut self, index: usize) -> Option<(LogPosition, LogPosition)> {
        let limit = self.rot_limit(index)?;
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
            node.index != index && !node.is_damaged() && members.contains(&node.id) && node.disk.holds(from, bytes)
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
        if std::mem::take(&mut self.nodes[index].pages_rotten) {
            // A header page of a chunk that is not sealed stays as it is until the next start, or the chunk is sealed.
            self.nodes[index].pages_rotten = !self.scrub_pages(index);
        }
        let node = &self.nodes[index];
        if node.rotten.is_empty() {
            if node.pages_rotten {
                self.plan_scrub(index);
            }
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
}
