//! Sealing, and the pages around the log: what the sealer and the scrubber of the real server do to headers and footers.
//!
//! A chunk that is full, committed and flushed is read in pieces through the same check as there, and gets its footer, written
//! and flushed like anything else: a crash may lose it or tear it. A start then believes it. Whenever a footer is
//! about to be written the checker [`Checker::Sealed`] compares what it tells of with what was committed.

use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES};
use crate::storage::{ChunkCheck, ChunkFooter, ChunkHeader, Disk, FileName};
use crate::types::Term;

use super::Checker;
use super::agenda::MILLISECOND;
use super::io::Io;
use super::profile::within;
use super::world::{Event, World};

/// How far the sealer of a node is; gone with its process.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    /// The first chunk that is not known to be sealed.
    next: u32,
    /// Term of the last record before it.
    term: Term,
    work: Option<ChunkCheck>,
    /// A step is planned, or the footer is on its way.
    is_busy: bool,
}

impl World {
    /// The log has grown: there may be something to seal.
    pub(super) fn plan_seal(&mut self, index: usize) {
        let full = self.full_chunks(index);
        let node = &mut self.nodes[index];
        if !node.sealing.is_busy && node.sealing.next < full {
            node.sealing.is_busy = true;
            let delay = within(&mut self.random.disk, self.profile.seal);
            self.agenda.plan(self.now + delay, Event::Seal { node: index, life: self.nodes[index].life });
        }
    }

    /// Chunks below this number will not change any more.
    fn full_chunks(&self, index: usize) -> u32 {
        let Some(engine) = &self.nodes[index].engine else { return 0 };
        let (end, flushed, commit, _) = engine.positions();
        #[cfg(test)]
        match self.options.planted {
            Some(crate::consensus::PlantedBug::SealBeforeCommit) => return self.layout.chunk_of(flushed),
            Some(crate::consensus::PlantedBug::SealBeforeFlush) => return self.layout.chunk_of(commit.min(end)),
            _ => {}
        }
        let _ = end;
        self.layout.chunk_of(commit.min(flushed))
    }

    /// One step of the sealer: a chunk is begun, or another piece of it is read.
    pub(super) fn seal(&mut self, index: usize) {
        self.nodes[index].sealing.is_busy = false;
        let Some(mut check) = self.nodes[index].sealing.work.take().or_else(|| self.next_to_seal(index)) else {
            return;
        };
        let node = &self.nodes[index];
        if let Some((position, left)) = check.wants() {
            let least = left.min(self.layout.chunk_size / 4).max(1);
            let mut bytes = Vec::new();
            let length = self.random.disk.u64(least..=left);
            node.disk.read_log(position, position.plus(length), &mut bytes);
            if check.take(&bytes, &*node.disk).is_some() {
                // Begun anew when it was repaired.
                self.count("chunks not sealed for damage");
                self.nodes[index].sealing.is_busy = true;
                let later = self.random.disk.u64(200 * MILLISECOND..=1_000 * MILLISECOND);
                return self.agenda.plan(self.now + later, Event::Seal { node: index, life: self.nodes[index].life });
            }
        }
        let Some(footer) = check.footer() else {
            self.nodes[index].sealing.work = Some(check);
            return self.plan_seal(index);
        };
        self.check_seal(index, &footer);
        self.nodes[index].sealing.is_busy = true;
        self.begin_io(index, Io::Footer { footer: Box::new(footer) });
    }

    /// The next full chunk that has no footer yet.
    fn next_to_seal(&mut self, index: usize) -> Option<ChunkCheck> {
        let full = self.full_chunks(index);
        let node = &mut self.nodes[index];
        let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
        while node.sealing.next < full {
            let chunk = node.sealing.next;
            node.disk.read_at(FileName::Chunk(chunk), self.layout.footer_offset(), &mut page).ok()?;
            match ChunkFooter::decode(&page, chunk, self.layout) {
                Ok(Some(footer)) => (node.sealing.next, node.sealing.term) = (chunk + 1, footer.last_term),
                _ => return Some(ChunkCheck::new(self.layout, chunk, node.sealing.term)),
            }
        }
        None
    }

    /// What a footer says must be what was committed, and be flushed here.
    fn check_seal(&mut self, index: usize, footer: &ChunkFooter) {
        let (start, end) = (self.layout.chunk_start(footer.chunk), self.layout.chunk_start(footer.chunk + 1));
        let committed = self.reference.bytes().get(start.0 as usize..end.0 as usize);
        let node = &self.nodes[index];
        if node.is_rotten_between(start, end) {
            return; // It has begun to rot while it was read.
        }
        let detail = match committed {
            None => format!("which is committed up to {} only", self.reference.end()),
            Some(bytes) if crc32c::crc32c(bytes) != footer.crc => "with other bytes than were committed".to_owned(),
            Some(bytes) if !node.disk.holds(start, bytes) => "which is not flushed".to_owned(),
            Some(_) => return,
        };
        self.object(Checker::Sealed, format!("n{index} seals chunk {}, {detail}", footer.chunk));
    }

    /// The footer is flushed.
    pub(super) fn sealed(&mut self, index: usize, footer: &ChunkFooter) {
        let sealing = &mut self.nodes[index].sealing;
        (sealing.next, sealing.term, sealing.is_busy) = (footer.chunk + 1, footer.last_term, false);
        self.count("chunks sealed");
        self.line(index, "seals", u64::from(footer.chunk), u64::from(footer.crc));
        self.plan_seal(index);
    }

    /// What the scrubber does to the header and footer pages of sealed chunks: it knows what they must hold. False when the
    /// header page of another one is damaged.
    pub(super) fn scrub_pages(&mut self, index: usize) -> bool {
        let node = &self.nodes[index];
        let (mut mended, mut all) = (0, true);
        for chunk in 0.. {
            let (name, header) = (FileName::Chunk(chunk), ChunkHeader { chunk, layout: self.layout });
            let mut page = vec![0; CHUNK_HEADER_BYTES as usize];
            if node.disk.read_at(name, 0, &mut page).is_err() {
                break;
            }
            if chunk >= node.sealing.next {
                all &= header.wrong_parts(&page).is_empty();
                continue;
            }
            for (at, bytes) in header.wrong_parts(&page) {
                node.disk.write_at(name, at as u64, &bytes).expect("a write inside its file");
                mended += 1;
            }
            let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
            node.disk.read_at(name, self.layout.footer_offset(), &mut page).expect("a chunk that was sealed");
            if !matches!(ChunkFooter::decode(&page, chunk, self.layout), Ok(Some(_)))
                && let Some(footer) = self.footer_of(index, chunk)
            {
                let offset = self.layout.footer_offset();
                node.disk.write_at(name, offset, &footer.encode()).expect("a write inside its file");
                mended += 1;
            }
            node.disk.sync(name).expect("a flush");
        }
        self.coverage.note("pages mended", mended);
        all
    }

    fn footer_of(&self, index: usize, chunk: u32) -> Option<ChunkFooter> {
        let mut check = ChunkCheck::new(self.layout, chunk, Term::ZERO);
        let mut bytes = Vec::new();
        let disk = &*self.nodes[index].disk;
        disk.read_log(self.layout.chunk_start(chunk), self.layout.chunk_start(chunk + 1), &mut bytes);
        check.take(&bytes, disk);
        check.footer()
    }

    /// At the end of a run: each footer that is there tells what was committed.
    pub(super) fn check_footers(&mut self, index: usize) {
        let chunks = self.layout.chunk_of(self.reference.end());
        for chunk in 0..=chunks {
            let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
            let node = &self.nodes[index];
            if node.disk.read_at(FileName::Chunk(chunk), self.layout.footer_offset(), &mut page).is_err() {
                return;
            }
            if let Ok(Some(footer)) = ChunkFooter::decode(&page, chunk, self.layout) {
                self.check_seal(index, &footer);
            }
        }
    }
}
