//! The chore that seals chunks: checks each record of a chunk that can no longer change, then writes its footer.
//!
//! Promises: a footer is written only for a chunk that is full, committed and durable here, and in which every record
//! checked out. Damage is reported, and the chunk left as it is until it was repaired. Leaves to others: what a footer is
//! good for (`storage::recover`), and whether a sealed chunk stays whole (the scrubber).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Chore, Next};
use crate::engine::Published;
use crate::limits::CHUNK_FOOTER_BYTES;
use crate::storage::{
    COLD_READ_BYTES, ChunkCheck, ChunkFooter, ChunkLayout, ColdFile, Damage, DamageReports, Disk, FileDisk, FileName,
    StorageFigures,
};
use crate::types::Term;

/// Between two pieces while the sealer keeps up with the writer: some 60 MiB a second.
const REST: Duration = Duration::from_millis(16);

/// Pieces in one step when it does not keep up: a start must not find many chunks that are not sealed.
const HURRIED_PIECES: u32 = 32;

/// Until a chunk that was damaged is looked at again: it may have been repaired.
const DAMAGED_REST: Duration = Duration::from_secs(60);

/// When no chunk is full.
const IDLE_REST: Duration = Duration::from_secs(1);

/// A chunk on its way to its footer.
#[derive(Debug)]
struct Work {
    check: ChunkCheck,
    file: ColdFile,
    is_damaged: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Sealer {
    disk: Arc<FileDisk>,
    layout: ChunkLayout,
    published: Arc<Published>,
    damage: DamageReports,
    figures: Arc<StorageFigures>,
    /// The first chunk that is not known to be sealed.
    next: u32,
    /// Term of the last record before it; zero when that is not known.
    term: Term,
    work: Option<Work>,
    /// Set while `next` is damaged.
    look_again_at: Option<Instant>,
}

impl Sealer {
    /// Of the log in `disk`. `published` says how far it is committed and flushed.
    #[must_use]
    pub fn new(
        disk: Arc<FileDisk>,
        layout: ChunkLayout,
        published: Arc<Published>,
        damage: DamageReports,
        figures: Arc<StorageFigures>,
    ) -> Sealer {
        Sealer { disk, layout, published, damage, figures, next: 0, term: Term::ZERO, work: None, look_again_at: None }
    }

    /// Chunks below this number will not change any more.
    fn full_chunks(&self) -> u32 {
        self.layout.chunk_of(self.published.committed().min(self.published.flushed()))
    }

    /// One step; after a failure the chunk is begun anew.
    fn try_step(&mut self) -> io::Result<Next> {
        if let Some(work) = self.work.take() {
            return self.read_on(work);
        }
        let full = self.full_chunks();
        if self.next >= full {
            return Ok(Next::After(IDLE_REST));
        }
        let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
        let (chunk, name) = (self.next, FileName::Chunk(self.next));
        self.disk.read_at(name, self.layout.footer_offset(), &mut page)?;
        if let Ok(Some(footer)) = ChunkFooter::decode(&page, chunk, self.layout) {
            self.sealed(&footer);
            return Ok(Next::Now);
        }
        let (check, file) = (ChunkCheck::new(self.layout, chunk, self.term), ColdFile::open(&self.disk, chunk)?);
        self.work = Some(Work { check, file, is_damaged: false });
        Ok(Next::Now)
    }

    /// Reads and checks one piece; more when chunks wait.
    fn read_on(&mut self, mut work: Work) -> io::Result<Next> {
        let is_late = self.full_chunks() > self.next + 2;
        for _ in 0..if is_late { HURRIED_PIECES } else { 1 } {
            let Some((position, left)) = work.check.wants() else { return self.finish(&work) };
            let length = left.min(COLD_READ_BYTES as u64);
            let damage = match work.file.read_any(self.layout.file_offset(position), length) {
                Ok(bytes) => work.check.take(bytes, &*self.disk),
                Err(error) => Some(work.check.unreadable(length, &error, &*self.disk)),
            };
            if let Some(damage) = damage {
                work.is_damaged = true;
                self.found(damage);
            }
        }
        self.work = Some(work);
        Ok(if is_late { Next::Now } else { Next::After(REST) })
    }

    fn found(&self, damage: Damage) {
        if self.damage.report(damage.clone()) {
            let offset = self.layout.file_offset(damage.from);
            tracing::error!(chunk = damage.chunk, position = %damage.from, end = %damage.to, offset,
                reason = damage.reason, "the log is damaged; the chunk is not sealed before the range is repaired");
        }
    }

    fn finish(&mut self, work: &Work) -> io::Result<Next> {
        let Some(footer) = work.check.footer().filter(|_| !work.is_damaged) else {
            self.look_again_at = Some(Instant::now() + DAMAGED_REST);
            return Ok(Next::After(DAMAGED_REST));
        };
        let name = FileName::Chunk(footer.chunk);
        self.disk.write_at(name, self.layout.footer_offset(), &footer.encode())?;
        self.disk.sync(name)?;
        tracing::debug!(chunk = footer.chunk, records = footer.records, events = footer.events, "a chunk is sealed");
        self.sealed(&footer);
        Ok(Next::Now)
    }

    fn sealed(&mut self, footer: &ChunkFooter) {
        self.next = footer.chunk + 1;
        self.term = footer.last_term;
        self.figures.sealed_chunks.store(u64::from(self.next), Ordering::Relaxed);
    }
}

impl Chore for Sealer {
    fn name(&self) -> &'static str {
        "sealer"
    }

    fn step(&mut self, now: Instant) -> Next {
        // A footer says that its chunk is durable, which it never is without flushes.
        if !self.disk.flushes() || self.look_again_at.is_some_and(|at| now < at) {
            return Next::After(IDLE_REST);
        }
        self.look_again_at = None;
        match self.try_step() {
            Ok(next) => next,
            Err(error) => {
                // A disk whose flush has failed ends the node by itself; anything else may pass.
                (self.work, self.look_again_at) = (None, Some(now + DAMAGED_REST));
                self.figures.background_errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(chunk = self.next, %error, "a chunk cannot be opened, or its footer not be read or written; \
                    it is tried again in {} s, and until then no chunk is sealed. Check the disk", DAMAGED_REST.as_secs());
                Next::After(IDLE_REST)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chunks, LAYOUT};
    use super::*;
    use crate::storage::recover;
    use crate::types::LogPosition;

    fn sealer(chunks: &Chunks) -> Sealer {
        let (disk, published) = (Arc::clone(&chunks.disk), Arc::clone(&chunks.published));
        Sealer::new(disk, LAYOUT, published, chunks.damage.clone(), Arc::clone(&chunks.figures))
    }

    fn set_positions(chunks: &Chunks, flushed: LogPosition, committed: LogPosition) {
        let end = LAYOUT.chunk_start(6);
        chunks.published.set_positions(end, flushed, committed, committed);
    }

    #[test]
    fn only_what_is_committed_and_flushed_is_sealed() {
        let chunks = Chunks::new(6);
        let mut sealer = sealer(&chunks);
        let check = |expected: u32| {
            for chunk in 0..7 {
                assert_eq!(chunks.footer(chunk).unwrap().is_some(), chunk < expected, "{chunk} of {expected}");
            }
            assert_eq!(chunks.figures.sealed_chunks.load(Ordering::Relaxed), u64::from(expected));
        };
        let (second, end) = (LAYOUT.chunk_start(2), LAYOUT.chunk_start(6));
        for (flushed, committed, expected) in [
            (LogPosition(LAYOUT.chunk_size - 8), end, 0),
            (end, LogPosition(LAYOUT.chunk_size), 1),
            (second.plus(1000), end, 2),
            (end, end, 6),
        ] {
            set_positions(&chunks, flushed, committed);
            chunks.run(&mut sealer);
            check(expected);
        }
        let footer = chunks.footer(4).unwrap().unwrap();
        assert_eq!((footer.records, footer.events, footer.first_term, footer.last_term), (64, 63, Term(2), Term(2)));
        assert_eq!(footer.epochs[0].position, LAYOUT.chunk_start(4));
        assert_eq!(footer.crc, crc32c::crc32c(&chunks.file(4)[4096..4096 + LAYOUT.chunk_size as usize]));
        let found = recover(&*chunks.disk, LAYOUT, &mut |_| ()).unwrap();
        assert_eq!((found.end, found.sealed, found.epochs.len()), (end, end, 2));
    }

    #[test]
    fn damage_is_reported_and_the_chunk_is_sealed_when_it_was_repaired() {
        let chunks = Chunks::new(3);
        let place = LAYOUT.chunk_start(1).plus(5 * 1024);
        chunks.flip(1, LAYOUT.file_offset(place) + 100);
        chunks.flip(1, LAYOUT.file_offset(place) + 1024 + 3);
        let mut sealer = sealer(&chunks);
        chunks.run(&mut sealer);
        let Damage { chunk, from, to, reason } = chunks.damage.take().unwrap();
        assert_eq!((chunk, from, to), (1, place, place.plus(2048)));
        assert!(reason.starts_with("record checksum is"), "{reason}");
        assert_eq!(chunks.damage.take(), None);
        assert!(chunks.footer(0).unwrap().is_some() && chunks.footer(1).unwrap().is_none());
        chunks.flip(1, LAYOUT.file_offset(place) + 100);
        chunks.flip(1, LAYOUT.file_offset(place) + 1024 + 3);
        assert_eq!(sealer.step(Instant::now()), Next::After(IDLE_REST), "it is not looked at all the time");
        sealer.look_again_at = None;
        chunks.run(&mut sealer);
        assert!((0..3).all(|chunk| chunks.footer(chunk).unwrap().is_some()));
    }

    #[test]
    fn a_chunk_that_cannot_be_opened_is_tried_again() {
        let chunks = Chunks::new(2);
        let (path, aside) = (chunks.disk.directory().join(FileName::Chunk(1).to_string()), "aside");
        let aside = chunks.disk.directory().join(aside);
        std::fs::rename(&path, &aside).unwrap();
        let mut sealer = sealer(&chunks);
        chunks.run(&mut sealer);
        assert!(chunks.footer(0).unwrap().is_some());
        std::fs::rename(&aside, &path).unwrap();
        let mut later = Instant::now() + DAMAGED_REST * 2;
        for _ in 0..200 {
            if let Next::After(rest) = sealer.step(later) {
                later += rest;
            }
        }
        assert!(chunks.footer(1).unwrap().is_some());
    }

    #[test]
    fn without_flushes_nothing_is_sealed_and_no_footer_is_believed() {
        let mut chunks = Chunks::new(2);
        chunks.run(&mut sealer(&chunks));
        let disk = Arc::into_inner(std::mem::replace(&mut chunks.disk, Chunks::new(0).disk)).unwrap();
        chunks.disk = Arc::new(disk.unsafe_without_flush());
        assert_eq!(recover(&*chunks.disk, LAYOUT, &mut |_| ()).unwrap().sealed, LogPosition::ZERO);
        chunks.disk.write_at(FileName::Chunk(1), LAYOUT.footer_offset(), &[0; 4096]).unwrap();
        assert_eq!(sealer(&chunks).step(Instant::now()), Next::After(IDLE_REST));
        assert_eq!(chunks.footer(1), Ok(None));
    }

    #[test]
    fn a_damaged_footer_is_written_anew_at_the_next_start() {
        let chunks = Chunks::new(3);
        chunks.run(&mut sealer(&chunks));
        let good = chunks.file(1);
        chunks.flip(1, LAYOUT.footer_offset() + 30);
        assert!(chunks.footer(1).is_err());
        chunks.run(&mut sealer(&chunks));
        assert!(chunks.file(1) == good);
    }
}
