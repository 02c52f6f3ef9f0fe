//! The chore that reads all sealed chunks round and round, and compares what the disk gives with what it must hold.
//!
//! Promises: each byte of a sealed chunk's file is looked at once in a pass, as the disk has it where the file system can
//! read past the page cache; the rate is bounded. Damage to the log goes to [`DamageReports`], for whoever repairs it. A
//! header page or a footer page that is damaged is written anew here, because this node knows what it must hold. Durable
//! marks are put right, or erased when more than a bit is wrong: the log thread writes none into a chunk that is sealed, and
//! a sealed chunk counts as durable without.
//!
//! Leaves to others: chunks that are not sealed ([`UnsealedScrubber`](super::UnsealedScrubber)), and the repair.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Chore, Next};
use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES};
use crate::storage::{
    COLD_READ_BYTES, ChunkCheck, ChunkFooter, ChunkHeader, ChunkLayout, ColdFile, Damage, DamageReports, Disk,
    FileDisk, FileName, StorageFigures, WrongMark,
};
use crate::types::Term;

/// When nothing is sealed, or a pass is complete.
const IDLE_REST: Duration = Duration::from_secs(1);

/// A chunk under check.
#[derive(Debug)]
struct Work {
    file: ColdFile,
    check: ChunkCheck,
    /// The footer as the disk has it; the reason when it is none.
    footer: Result<Option<ChunkFooter>, String>,
    is_damaged: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Scrubber {
    disk: Arc<FileDisk>,
    layout: ChunkLayout,
    damage: DamageReports,
    figures: Arc<StorageFigures>,
    bytes_per_second: u64,
    /// The chunk that is next in this pass.
    next: u32,
    work: Option<Work>,
}

impl Scrubber {
    /// Of the log in `disk`, reading `bytes_per_second`; zero switches it off. Which chunks are sealed the sealer says in
    /// `figures`.
    #[must_use]
    pub fn new(
        disk: Arc<FileDisk>,
        layout: ChunkLayout,
        damage: DamageReports,
        figures: Arc<StorageFigures>,
        bytes_per_second: u64,
    ) -> Scrubber {
        figures.scrub_rate_bytes.store(bytes_per_second, Ordering::Relaxed);
        Scrubber { disk, layout, damage, figures, bytes_per_second, next: 0, work: None }
    }

    fn try_step(&mut self) -> io::Result<Next> {
        if let Some(work) = self.work.take() {
            return self.read_on(work);
        }
        let sealed = self.figures.sealed_chunks.load(Ordering::Relaxed);
        if u64::from(self.next) >= sealed {
            if self.next > 0 {
                self.next = 0;
                self.figures.scrub_passes.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(chunks = sealed, "the scrubber has read all sealed chunks");
            }
            return Ok(Next::After(IDLE_REST));
        }
        let chunk = self.next;
        self.next += 1;
        self.begin(chunk)
    }

    /// Opens a chunk and checks its header page.
    fn begin(&mut self, chunk: u32) -> io::Result<Next> {
        let mut file = ColdFile::open(&self.disk, chunk)?;
        self.check_header(chunk, file.read(0, CHUNK_HEADER_BYTES))?;
        let footer = match file.read(self.layout.footer_offset(), CHUNK_FOOTER_BYTES) {
            Ok(page) => ChunkFooter::decode(page, chunk, self.layout),
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        let check = ChunkCheck::new(self.layout, chunk, Term::ZERO);
        self.work = Some(Work { file, check, footer, is_damaged: false });
        Ok(self.rest(CHUNK_HEADER_BYTES + CHUNK_FOOTER_BYTES))
    }

    /// Reads and checks one piece.
    fn read_on(&mut self, mut work: Work) -> io::Result<Next> {
        let Some((position, left)) = work.check.wants() else { return self.finish(&work) };
        let length = left.min(COLD_READ_BYTES as u64);
        let (damage, read) = match work.file.read(self.layout.file_offset(position), length) {
            Ok(bytes) => (work.check.take(bytes, &*self.disk), bytes.len() as u64),
            Err(error) => (Some(work.check.unreadable(length, &error, &*self.disk)), length),
        };
        if let Some(damage) = damage {
            work.is_damaged = true;
            self.found(damage);
        }
        self.figures.scrub_position.store(position.0 + read, Ordering::Relaxed);
        self.work = Some(work);
        Ok(self.rest(read))
    }

    /// All records are checked: now the chunk as a whole, and its footer.
    fn finish(&mut self, work: &Work) -> io::Result<Next> {
        let chunk = work.check.chunk();
        let Some(expected) = work.check.footer().filter(|_| !work.is_damaged) else { return Ok(Next::Now) };
        match &work.footer {
            Ok(Some(found)) if found.crc != expected.crc => {
                let (from, to) = (self.layout.chunk_start(chunk), self.layout.chunk_start(chunk + 1));
                let reason = format!(
                    "the chunk's checksum is {:08x}, it was sealed with {:08x}, although each record checks out",
                    expected.crc, found.crc
                );
                self.found(Damage { chunk, from, to, reason });
            }
            // As pages: one with more epochs than fit lists none.
            Ok(Some(found)) if found.encode() == expected.encode() => {}
            Ok(Some(_)) => self.mend_footer(&expected, "it does not tell what the chunk holds")?,
            Ok(None) => self.mend_footer(&expected, "it is zeros although the chunk was sealed")?,
            Err(reason) => self.mend_footer(&expected, reason)?,
        }
        Ok(Next::Now)
    }

    fn found(&self, damage: Damage) {
        let offset = self.layout.file_offset(damage.from);
        tracing::error!(chunk = damage.chunk, position = %damage.from, end = %damage.to, offset, reason = damage.reason,
            "the disk has damaged the log; the range is repaired from another node as soon as one can be asked, and not \
             served before");
        self.damage.report(damage);
    }

    fn mend_footer(&self, footer: &ChunkFooter, reason: &str) -> io::Result<()> {
        let offset = self.layout.footer_offset();
        self.disk.write_at(FileName::Chunk(footer.chunk), offset, &footer.encode())?;
        self.mended(footer.chunk, offset, "footer", reason)
    }

    fn check_header(&self, chunk: u32, page: io::Result<&[u8]>) -> io::Result<()> {
        let header = ChunkHeader { chunk, layout: self.layout };
        let (parts, reason) = match page {
            Ok(page) => {
                let wrong = |at: usize| format!("the bytes from {at} on are not what they must be");
                let mut parts = header.wrong_parts(page);
                parts.extend(WrongMark::all(page).iter().map(|wrong| (wrong.offset, wrong.bytes().to_vec())));
                let Some(first) = parts.first() else { return Ok(()) };
                let reason = header.check(page).err().unwrap_or_else(|| wrong(first.0));
                (parts, reason)
            }
            // The whole page: the disk may then find another place for it.
            Err(error) => (vec![(0, header.encode())], format!("it cannot be read: {error}")),
        };
        for (at, bytes) in parts {
            self.disk.write_at(FileName::Chunk(chunk), at as u64, &bytes)?;
        }
        self.mended(chunk, 0, "header", &reason)
    }

    fn mended(&self, chunk: u32, offset: u64, what: &str, reason: &str) -> io::Result<()> {
        self.disk.sync(FileName::Chunk(chunk))?;
        self.figures.pages_mended.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            chunk,
            offset,
            reason,
            "the disk has damaged the {what} page of {}; it is written anew",
            FileName::Chunk(chunk)
        );
        Ok(())
    }

    /// Until the next piece, so that `read` bytes do not exceed the rate.
    fn rest(&self, read: u64) -> Next {
        self.figures.scrubbed_bytes.fetch_add(read, Ordering::Relaxed);
        Next::After(Duration::from_nanos(read.saturating_mul(1_000_000_000) / self.bytes_per_second))
    }
}

impl Chore for Scrubber {
    fn name(&self) -> &'static str {
        "scrubber"
    }

    fn step(&mut self, _: Instant) -> Next {
        if self.bytes_per_second == 0 {
            return Next::After(IDLE_REST);
        }
        self.try_step().unwrap_or_else(|error| {
            self.figures.background_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(chunk = self.next.saturating_sub(1), %error,
                "the scrubber cannot read or mend this chunk and goes on with the next; check the disk");
            Next::After(IDLE_REST)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chunks, LAYOUT};
    use super::*;
    use crate::background::Sealer;

    fn sealed(chunks: u32) -> Chunks {
        let chunks = Chunks::new(chunks);
        let (disk, published) = (Arc::clone(&chunks.disk), Arc::clone(&chunks.published));
        let (damage, figures) = (chunks.damage.clone(), Arc::clone(&chunks.figures));
        chunks.run(&mut Sealer::new(disk, LAYOUT, published, damage, figures));
        chunks
    }

    fn scrubber(chunks: &Chunks, rate: u64) -> Scrubber {
        let (disk, damage) = (Arc::clone(&chunks.disk), chunks.damage.clone());
        Scrubber::new(disk, LAYOUT, damage, Arc::clone(&chunks.figures), rate)
    }

    #[test]
    fn a_pass_reads_all_that_is_sealed_at_the_rate() {
        let chunks = sealed(3);
        let mut scrubber = scrubber(&chunks, 1 << 20);
        let (mut now, begin) = (Instant::now(), Instant::now());
        while chunks.figures.scrub_passes.load(Ordering::Relaxed) == 0 {
            if let Next::After(rest) = scrubber.step(now) {
                now += rest;
            }
        }
        let read = chunks.figures.scrubbed_bytes.load(Ordering::Relaxed);
        assert_eq!(read, 3 * LAYOUT.file_length());
        let least = Duration::from_secs_f64(read as f64 / (1 << 20) as f64);
        assert!(now - begin >= least, "{:?} for {read} bytes", now - begin);
        assert_eq!(chunks.damage.take(), None);
        assert_eq!(chunks.figures.scrub_position.load(Ordering::Relaxed), 3 * LAYOUT.chunk_size);
    }

    #[test]
    fn any_byte_that_changes_is_found_and_what_the_node_knows_is_mended() {
        let chunks = sealed(2);
        let good = chunks.file(1);
        let (footer, start) = (LAYOUT.footer_offset(), LAYOUT.chunk_start(1));
        let mut mended = 0;
        let offsets = (0..LAYOUT.file_length()).step_by(509).chain([3, 40, 600, 1100, 4095, footer, footer + 4095]);
        for offset in offsets.chain([512, 531, 1024, 1043]) {
            chunks.flip(1, offset);
            chunks.run(&mut scrubber(&chunks, 1 << 40));
            if (4096..footer).contains(&offset) {
                let record = start.plus((offset - 4096) / 1024 * 1024);
                let Damage { chunk, from, to, .. } = chunks.damage.take().unwrap();
                assert_eq!((chunk, from, to), (1, record, record.plus(1024)), "offset {offset}");
                chunks.flip(1, offset);
            } else {
                mended += 1;
            }
            assert_eq!(chunks.damage.take(), None);
            assert_eq!(chunks.figures.pages_mended.load(Ordering::Relaxed), mended, "offset {offset}");
            assert!(chunks.file(1) == good, "offset {offset}");
        }
        assert_eq!(chunks.figures.background_errors.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn records_that_check_out_but_are_not_those_that_were_sealed_are_damage() {
        let chunks = sealed(1);
        let mut footer = chunks.footer(0).unwrap().unwrap();
        footer.crc ^= 1;
        chunks.disk.write_at(FileName::Chunk(0), LAYOUT.footer_offset(), &footer.encode()).unwrap();
        chunks.run(&mut scrubber(&chunks, 1 << 40));
        let damage = chunks.damage.take().unwrap();
        assert_eq!((damage.from, damage.to), (LAYOUT.chunk_start(0), LAYOUT.chunk_start(1)));
        assert!(damage.reason.contains("it was sealed with"), "{}", damage.reason);
        // Other contents than the records have, with a good checksum: the records are right.
        footer.crc ^= 1;
        footer.events += 1;
        chunks.disk.write_at(FileName::Chunk(0), LAYOUT.footer_offset(), &footer.encode()).unwrap();
        chunks.run(&mut scrubber(&chunks, 1 << 40));
        assert_eq!(chunks.damage.take(), None);
        assert_eq!(chunks.footer(0).unwrap().unwrap().events, footer.events - 1);
    }

    #[test]
    fn switched_off_it_reads_nothing() {
        let chunks = sealed(1);
        chunks.flip(0, 5000);
        let mut scrubber = scrubber(&chunks, 0);
        for _ in 0..10 {
            assert_eq!(scrubber.step(Instant::now()), Next::After(IDLE_REST));
        }
        assert_eq!((chunks.damage.take(), chunks.figures.scrubbed_bytes.load(Ordering::Relaxed)), (None, 0));
    }
}
