//! The chore that looks round and round at what the log thread still writes: the chunks that are not sealed, the state file.
//!
//! Promises: in a pass it reads each byte of the open chunk, of the chunks made ahead of it and of `node.state` once, as the
//! disk has it where the file system can read past the page cache. Records below the commit position that are durable here
//! must check out; damage to them goes to [`DamageReports`]. What this thread knows and the log thread never writes (the
//! header page but for its marks, the footer page of a chunk that is not full) is written anew here. What the log thread
//! writes (durable marks, the state's slots, zeros behind the log) it is asked to write anew: [`Renewal`]. A page that cannot
//! be read is damage like any other and does not keep it from the rest; it is written as a whole.
//!
//! **Why that does not race with the log thread.** It may be writing what is read here, so what looks wrong counts only when
//! the same bytes are still there after [`SECOND_LOOK`]: a mark or a slot that was seen half written is whole by then, and
//! bytes behind the log that were just written have become a part of it ([`Published::high_water`]). Nothing that the log
//! thread writes is written here, not even when it is known to be damaged: it does that itself, and only when it has nothing
//! in flight there and has never written there.
//!
//! The rate is that of the scrubber, and the rest after a pass many times its length: so this adds a tenth.
//!
//! Leaves to others: sealed chunks ([`Scrubber`](super::Scrubber)), those that are full and wait for their seal (the sealer
//! reads them), and the repair.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Chore, Next};
use crate::engine::Published;
use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES};
use crate::storage::{
    COLD_READ_BYTES, ChunkCheck, ChunkFooter, ChunkHeader, ChunkLayout, ColdFile, Damage, DamageReports, Disk,
    DurableState, FileDisk, FileName, PAGE_BYTES, Renewal, STATE_FILE_BYTES, STATE_SLOT_BYTES, STATE_SLOT_OFFSETS,
    StorageFigures, WrongMark, is_bad_sector,
};
use crate::types::LogPosition;

/// Between two looks at something that is wrong: far longer than the log thread's writes take.
const SECOND_LOOK: Duration = Duration::from_millis(300);

/// The rest after a pass at least, and in times of the pass.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_PASSES: u32 = 9;

/// Damage of the last passes that is not logged again.
const KNOWN_MAX: usize = 64;

/// So many things that look wrong are looked at again before more is read.
const SUSPICIONS_MAX: usize = 64;

/// What the chore works with.
pub struct UnsealedLinks {
    /// The data directory.
    pub disk: Arc<FileDisk>,
    /// How the log is cut.
    pub layout: ChunkLayout,
    /// Says how far the log is written, flushed and committed.
    pub published: Arc<Published>,
    /// Where damage to the log is reported.
    pub damage: DamageReports,
    /// For `/stats`.
    pub figures: Arc<StorageFigures>,
    /// Bytes read a second; zero switches it off.
    pub bytes_per_second: u64,
    /// Asks the log thread; must not wait.
    pub ask: Box<dyn Fn(Renewal) + Send>,
}

/// A chunk under check.
#[derive(Debug)]
struct Work {
    chunk: u32,
    file: ColdFile,
    /// The records that must check out.
    check: ChunkCheck,
    /// What lies from here on in the log must be zeros, where nothing was written.
    zeros_from: LogPosition,
    /// Up to here they are read page by page: one of them cannot be read.
    pages_until: LogPosition,
}

/// What was found where something else should be.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Bytes(Vec<u8>),
    /// So many bytes cannot be read.
    BadSector(usize),
}

/// Something that looks wrong, but may be in the midst of being written.
#[derive(Debug)]
struct Suspicion {
    renewal: Renewal,
    name: FileName,
    offset: u64,
    seen: Seen,
    what: &'static str,
    /// When it may be looked at again.
    due: Instant,
}

/// See the module.
pub struct UnsealedScrubber {
    links: UnsealedLinks,
    /// Chunks that are left in this pass.
    chunks: VecDeque<u32>,
    work: Option<Work>,
    suspicions: VecDeque<Suspicion>,
    /// The files in which the log thread was asked to write, to be flushed at the begin of the next pass.
    asked: Vec<FileName>,
    /// Damage of the last passes.
    known: VecDeque<Damage>,
    /// Bytes read in this pass; `None` between two.
    read: Option<u64>,
    next_pass_at: Option<Instant>,
    now: Instant,
    /// Pages that cannot be read, as a test has it.
    #[cfg(test)]
    bad_pages: Vec<(FileName, u64)>,
}

impl UnsealedScrubber {
    /// At the beginning of its first pass.
    #[must_use]
    pub fn new(links: UnsealedLinks) -> UnsealedScrubber {
        UnsealedScrubber {
            links,
            chunks: VecDeque::new(),
            work: None,
            suspicions: VecDeque::new(),
            asked: Vec::new(),
            known: VecDeque::new(),
            read: None,
            next_pass_at: None,
            now: Instant::now(),
            #[cfg(test)]
            bad_pages: Vec::new(),
        }
    }

    fn try_step(&mut self) -> io::Result<Next> {
        if let Some(suspicion) = self.suspicions.pop_front_if(|suspicion| suspicion.due <= self.now) {
            return self.look_again(&suspicion);
        }
        if let Some(oldest) = self.suspicions.front().filter(|_| self.suspicions.len() >= SUSPICIONS_MAX) {
            return Ok(Next::After(oldest.due.duration_since(self.now)));
        }
        if let Some(work) = self.work.take() {
            return self.read_on(work);
        }
        if let Some(chunk) = self.chunks.pop_front() {
            return self.begin(chunk);
        }
        if let Some(suspicion) = self.suspicions.front() {
            return Ok(Next::After(suspicion.due.duration_since(self.now)));
        }
        let Some(read) = self.read.take() else { return self.begin_pass() };
        self.links.figures.unsealed_passes.fetch_add(1, Ordering::Relaxed);
        let rest = (self.time_of(read) * REST_PASSES).max(REST_MIN);
        self.next_pass_at = Some(self.now + rest);
        Ok(Next::After(rest))
    }

    /// Chunks below this number are sealed, or will be; while nobody knows yet what is committed, those that may be.
    fn full_chunks(&self) -> u32 {
        let UnsealedLinks { layout, published, .. } = &self.links;
        let (committed, flushed) = (published.committed(), published.flushed());
        layout.chunk_of(if committed == LogPosition::ZERO { flushed } else { committed.min(flushed) })
    }

    /// Looks at the small files, and which chunks there are.
    fn begin_pass(&mut self) -> io::Result<Next> {
        if self.links.published.high_water().is_none() {
            // The log thread has not said anything since the start: the whole log would seem to be open.
            return Ok(Next::After(REST_MIN));
        }
        self.read = Some(0);
        for name in std::mem::take(&mut self.asked) {
            self.links.disk.sync(name)?;
        }
        let full = self.full_chunks();
        let disk = &self.links.disk;
        let unsealed = |name| match name {
            FileName::Chunk(chunk) if chunk >= full => Some(chunk),
            FileName::Chunk(_) | FileName::State => None,
        };
        self.chunks = disk.list()?.into_iter().filter_map(|file| unsealed(file.name)).collect();
        if disk.mend_lock_text()? {
            self.mended("it is not what this process had written", "ringstore.lock", 0);
        }
        self.check_state()?;
        Ok(self.rest(STATE_FILE_BYTES))
    }

    fn check_state(&mut self) -> io::Result<()> {
        let (name, mut bytes) = (FileName::State, vec![0; STATE_FILE_BYTES as usize]);
        let mut seen = [None, None];
        for (slot, into) in bytes.chunks_exact_mut(STATE_SLOT_BYTES).enumerate() {
            seen[slot] = Some(self.look(name, STATE_SLOT_OFFSETS[slot], into.len())?);
            if let Some(Seen::Bytes(found)) = &seen[slot] {
                into.copy_from_slice(found);
            }
        }
        // One that cannot be read stays zeros, which are no state either.
        let slots = DurableState::slots(&bytes).map_err(io::Error::other)?;
        for (slot, (state, seen)) in slots.iter().zip(seen).enumerate() {
            if let (Err(_), Some(seen)) = (state, seen) {
                let what = "a slot of the state does not check out";
                self.suspect(Renewal::State(slot), name, STATE_SLOT_OFFSETS[slot], seen, what);
            }
        }
        Ok(())
    }

    /// It is looked at again before anything is done about it.
    fn suspect(&mut self, renewal: Renewal, name: FileName, offset: u64, seen: Seen, what: &'static str) {
        self.suspicions.push_back(Suspicion { renewal, name, offset, seen, what, due: self.now + SECOND_LOOK });
    }

    /// What the disk has there.
    fn look(&self, name: FileName, offset: u64, length: usize) -> io::Result<Seen> {
        let mut bytes = vec![0; length];
        let read =
            self.is_readable(name, offset, length).and_then(|()| self.links.disk.read_cold(name, offset, &mut bytes));
        match read {
            Ok(()) => Ok(Seen::Bytes(bytes)),
            Err(error) if is_bad_sector(&error) => Ok(Seen::BadSector(length)),
            Err(error) => Err(error),
        }
    }

    /// Fails where a test has pages that cannot be read.
    fn is_readable(&self, name: FileName, offset: u64, length: usize) -> io::Result<()> {
        #[cfg(test)]
        for &(bad, page) in &self.bad_pages {
            if bad == name && page < offset + length as u64 && offset < page + PAGE_BYTES {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
            }
        }
        let _ = (self, name, offset, length);
        Ok(())
    }

    /// Opens a chunk and checks its first and its last page.
    fn begin(&mut self, chunk: u32) -> io::Result<Next> {
        if chunk < self.full_chunks() {
            return Ok(Next::Now);
        }
        let layout = self.links.layout;
        let (name, file) = (FileName::Chunk(chunk), ColdFile::open(&self.links.disk, chunk)?);
        match self.look(name, 0, CHUNK_HEADER_BYTES as usize)? {
            Seen::Bytes(page) => self.check_header(chunk, &page)?,
            bad => self.suspect(Renewal::Header(chunk), name, 0, bad, "the header page cannot be read"),
        }
        match self.look(name, layout.footer_offset(), CHUNK_FOOTER_BYTES as usize)? {
            Seen::Bytes(page) => self.check_footer(chunk, &page)?,
            Seen::BadSector(_) => self.erase_footer(chunk, "the footer page cannot be read")?,
        }
        let limit = self.links.published.committed().min(self.links.published.flushed());
        let start = layout.chunk_start(chunk);
        let zeros_from = limit.max(start).min(layout.chunk_start(chunk + 1));
        let check = ChunkCheck::up_to(layout, chunk, zeros_from);
        self.work = Some(Work { chunk, file, check, zeros_from, pages_until: zeros_from });
        Ok(self.rest(CHUNK_HEADER_BYTES + CHUNK_FOOTER_BYTES))
    }

    /// The log thread writes nothing here but marks, and behind a mark in its sector the same zeros.
    fn check_header(&mut self, chunk: u32, page: &[u8]) -> io::Result<()> {
        let (name, header) = (FileName::Chunk(chunk), ChunkHeader { chunk, layout: self.links.layout });
        let parts = header.wrong_parts(page);
        for (at, bytes) in &parts {
            self.links.disk.write_at(name, *at as u64, bytes)?;
        }
        if let Some((at, _)) = parts.first() {
            self.links.disk.sync(name)?;
            self.mended("the header page was not what it must be", &name.to_string(), *at as u64);
        }
        for wrong in WrongMark::all(page) {
            let seen = Seen::Bytes(page[wrong.offset..wrong.offset + wrong.bytes().len()].to_vec());
            self.suspect(Renewal::Marks(chunk), name, wrong.offset as u64, seen, "a durable mark does not check out");
        }
        Ok(())
    }

    /// A footer that checks out is right: this node does not know yet, since its start, how far the log is committed. Only
    /// the sealer writes one, on this same thread, and it makes anew what is erased here.
    fn check_footer(&self, chunk: u32, page: &[u8]) -> io::Result<()> {
        if ChunkFooter::decode(page, chunk, self.links.layout).is_ok() {
            return Ok(());
        }
        self.erase_footer(chunk, "the footer page is neither zeros nor a footer")
    }

    fn erase_footer(&self, chunk: u32, what: &str) -> io::Result<()> {
        let (name, offset) = (FileName::Chunk(chunk), self.links.layout.footer_offset());
        self.links.disk.write_at(name, offset, &[0; CHUNK_FOOTER_BYTES as usize])?;
        self.links.disk.sync(name)?;
        self.mended(what, &name.to_string(), offset);
        Ok(())
    }

    fn mended(&self, what: &str, file: &str, offset: u64) {
        self.links.figures.pages_mended.fetch_add(1, Ordering::Relaxed);
        tracing::error!(file, offset, "the disk has damaged {file}: {what}; it is written anew");
    }

    /// Reads one piece: records first, then what lies behind them.
    fn read_on(&mut self, mut work: Work) -> io::Result<Next> {
        let Some((position, left)) = work.check.wants() else { return self.read_zeros(work) };
        let (name, offset) = (FileName::Chunk(work.chunk), self.links.layout.file_offset(position));
        let length = left.min(COLD_READ_BYTES as u64);
        let readable = self.is_readable(name, offset, length as usize);
        let (damage, read) = match readable.and_then(|()| work.file.read(offset, length)) {
            Ok(bytes) => (work.check.take(bytes, &*self.links.disk), bytes.len() as u64),
            Err(error) => (Some(work.check.unreadable(length, &error, &*self.links.disk)), length),
        };
        if let Some(damage) = damage {
            self.found(damage);
        }
        self.work = Some(work);
        Ok(self.rest(read))
    }

    /// Reads one piece of what lies behind the records; page by page where one of them cannot be read.
    fn read_zeros(&mut self, mut work: Work) -> io::Result<Next> {
        let layout = self.links.layout;
        let (name, from, end) = (FileName::Chunk(work.chunk), work.zeros_from, layout.chunk_start(work.chunk + 1));
        if from >= end {
            return Ok(Next::Now);
        }
        let offset = layout.file_offset(from);
        let in_page = (PAGE_BYTES - offset % PAGE_BYTES).min(end.since(from));
        let whole = end.since(from).min(COLD_READ_BYTES as u64);
        let length = if from < work.pages_until { in_page } else { whole };
        let readable = self.is_readable(name, offset, length as usize);
        let read = match readable.and_then(|()| work.file.read(offset, length)) {
            Ok(bytes) => {
                // Asked for after the read: what was written before it lies below.
                let unwritten = self.links.published.high_water().unwrap_or(LogPosition(u64::MAX)).max(from);
                work.zeros_from = from.plus(bytes.len() as u64);
                let (read, wrong) = (bytes.len() as u64, first_not_zero(bytes, unwritten.0 - from.0));
                if let Some(at) = wrong {
                    let page_end = (at + PAGE_BYTES - (offset + at) % PAGE_BYTES).min(read);
                    let seen = Seen::Bytes(bytes[at as usize..page_end as usize].to_vec());
                    work.zeros_from = from.plus(page_end);
                    let renewal = Renewal::Zeros { from: from.plus(at), to: work.zeros_from };
                    self.suspect(renewal, name, offset + at, seen, "there are no zeros behind the log's end");
                }
                read
            }
            Err(error) if is_bad_sector(&error) => self.unreadable_zeros(&mut work, length, in_page),
            Err(error) => return Err(error),
        };
        self.work = Some(work);
        Ok(self.rest(read))
    }

    /// Of `length` bytes some cannot be read: they are read again up to the end of each page, and that which cannot be is
    /// suspected. Gives what counts as read.
    fn unreadable_zeros(&mut self, work: &mut Work, length: u64, in_page: u64) -> u64 {
        let from = work.zeros_from;
        if length > in_page {
            work.pages_until = from.plus(length);
            return 0;
        }
        work.zeros_from = from.plus(in_page);
        // Where a page holds some log, too, that is damaged, and found so when it is committed.
        if in_page == PAGE_BYTES {
            let offset = self.links.layout.file_offset(from);
            let (renewal, seen) = (Renewal::Zeros { from, to: work.zeros_from }, Seen::BadSector(in_page as usize));
            let what = "a page behind the log's end cannot be read";
            self.suspect(renewal, FileName::Chunk(work.chunk), offset, seen, what);
        }
        in_page
    }

    /// Whether what was wrong still is.
    fn look_again(&mut self, suspicion: &Suspicion) -> io::Result<Next> {
        let Suspicion { renewal, name, offset, seen, what, .. } = suspicion;
        let length = match seen {
            Seen::Bytes(bytes) => bytes.len(),
            Seen::BadSector(length) => *length,
        };
        let position = match *renewal {
            Renewal::Zeros { from, .. } => Some(from),
            Renewal::Marks(_) | Renewal::Header(_) | Renewal::State(_) => None,
        };
        let is_still_there = self.look(*name, *offset, length)? == *seen;
        let unwritten = self.links.published.high_water();
        let is_written = position.is_some_and(|from| unwritten.is_none_or(|end| from < end));
        if !is_still_there || is_written {
            return Ok(Next::Now);
        }
        self.links.figures.renewals_asked.fetch_add(1, Ordering::Relaxed);
        if !self.asked.contains(name) {
            tracing::error!(file = %name, offset, position = position.map(|position| position.0),
                "the disk has damaged {name}: {what}; it is written anew, and what else of that file this pass finds");
            self.asked.push(*name);
        }
        (self.links.ask)(*renewal);
        Ok(Next::Now)
    }

    fn found(&mut self, damage: Damage) {
        if !self.known.contains(&damage) {
            let offset = self.links.layout.file_offset(damage.from);
            tracing::error!(chunk = damage.chunk, position = %damage.from, end = %damage.to, offset,
                reason = damage.reason, "the disk has damaged the log; the range is repaired from another node as soon as \
                one can be asked, and not served before");
            self.known.truncate(KNOWN_MAX - 1);
            self.known.push_front(damage.clone());
        }
        self.links.damage.report(damage);
    }

    /// Until the next piece, so that `read` bytes do not exceed the rate.
    fn rest(&mut self, read: u64) -> Next {
        self.links.figures.scrubbed_bytes.fetch_add(read, Ordering::Relaxed);
        self.read = self.read.map(|sum| sum + read);
        Next::After(self.time_of(read))
    }

    /// What it takes to read so much at the rate.
    fn time_of(&self, read: u64) -> Duration {
        Duration::from_nanos(read.saturating_mul(1_000_000_000) / self.links.bytes_per_second)
    }
}

/// The first byte from `from` on that is not zero.
fn first_not_zero(bytes: &[u8], from: u64) -> Option<u64> {
    let from = usize::try_from(from).ok()?;
    let at = bytes.get(from..)?.iter().position(|&byte| byte != 0)?;
    Some((from + at) as u64)
}

impl Chore for UnsealedScrubber {
    fn name(&self) -> &'static str {
        "unsealed scrubber"
    }

    fn step(&mut self, now: Instant) -> Next {
        if self.links.bytes_per_second == 0 {
            return Next::After(REST_MIN);
        }
        if let Some(left) =
            self.next_pass_at.and_then(|at| at.checked_duration_since(now)).filter(|left| !left.is_zero())
        {
            return Next::After(left);
        }
        (self.next_pass_at, self.now) = (None, now);
        self.try_step().unwrap_or_else(|error| {
            self.links.figures.background_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "a file that is not sealed cannot be read or mended; the next is looked at. Check the disk");
            (self.work, self.next_pass_at) = (None, Some(now + REST_MIN));
            Next::After(REST_MIN)
        })
    }
}

#[cfg(test)]
#[path = "unsealed_tests.rs"]
mod tests;
