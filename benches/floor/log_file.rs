//! The chunk files of one process, written and flushed in one of several ways.
//!
//! `Buffered` is what the server does (`transport::files`, `engine::log_writer`): writes as soon as there are bytes, up
//! to eight in flight, and a flush of what is written, one at a time. Writes are of whole pages: one that ends within a
//! page is followed by zeros up to its end, and is the last in flight. The others are trials, and pad nothing.
//!
//! One thing differs. The files here are in the page cache from the start, and the log goes round in two of them; the
//! server's chunks were zeroed past the cache, and each page of them is written for the first time. Whole pages are what
//! makes both alike: neither has to read a page before it writes it. But the kernel allocates the server's pages as they
//! are written, and finds the floor's there.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use ringstore::limits::DISK_WRITE_MAX_BYTES;
use ringstore::ring::{Driver, Failure, FileId, GATHERED_MAX, MirroredBuffer, Slice, Source};
use ringstore::storage::{ChunkHeader, ChunkLayout, Disk, FileDisk, FileName, PAGE_BYTES};
use ringstore::types::LogPosition;

use crate::options::{Options, Variant, WriteMode};
use crate::results::histogram;
use crate::tag::Tag;

/// As the engine's log writer has it.
const WRITES_IN_FLIGHT_MAX: usize = 8;

/// Bytes of a write that is its own flush.
const DURABLE_WRITE_MAX_BYTES: u64 = 8 << 20;

/// What O_DIRECT is aligned to.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// Files in rotation. The log goes round, so that a run of any length needs no new ones; overwriting changes no metadata,
/// as in a chunk that was prepared.
pub(crate) const FILES: u32 = 2;

/// A write or a flush under way.
struct InFlight {
    id: u64,
    end: u64,
    /// Completions still to come.
    remaining: u32,
    started: Instant,
}

/// The positions and files of one process's log.
pub(crate) struct LogFile {
    variant: Variant,
    layout: ChunkLayout,
    ring_files: Vec<FileId>,
    /// For writes without the ring.
    plain_files: Vec<File>,
    issued: u64,
    written: u64,
    /// End of the last flush that was begun.
    flush_begun: u64,
    flushed: u64,
    writes: VecDeque<InFlight>,
    flushes: VecDeque<InFlight>,
    next_id: u64,
    pub(crate) write_nanos: Histogram<u64>,
    pub(crate) flush_nanos: Histogram<u64>,
}

/// Makes the chunk files of one process, as the server's are made; those that are there already stay.
pub(crate) fn prepare(options: &Options, node: usize) -> Result<()> {
    let folder = options.node_folder(node);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let disk = FileDisk::open(&folder)?;
    for chunk in 0..FILES {
        let (name, layout) = (FileName::Chunk(chunk), options.layout());
        let path = folder.join(name.to_string());
        if !path.exists() {
            let page = ChunkHeader { chunk, layout }.encode();
            disk.create(name, &page, layout.file_length())
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    Ok(())
}

fn open(path: &Path, direct: bool) -> Result<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}

impl LogFile {
    pub(crate) fn open(driver: &mut Driver, options: &Options, node: usize) -> Result<LogFile> {
        let variant = options.variant();
        let direct = variant.mode.is_direct();
        let (mut ring_files, mut plain_files) = (Vec::new(), Vec::new());
        for chunk in 0..FILES {
            let path = options.node_folder(node).join(FileName::Chunk(chunk).to_string());
            ring_files.push(driver.attach(open(&path, direct)?.into()));
            let plain = open(&path, false)?;
            if !direct {
                // As a chunk that was just prepared: a trial of O_DIRECT before may have emptied the page cache.
                std::io::copy(&mut &plain, &mut std::io::sink()).context("the log files cannot be read")?;
            }
            plain_files.push(plain);
        }
        Ok(LogFile {
            variant,
            layout: options.layout(),
            ring_files,
            plain_files,
            issued: 0,
            written: 0,
            flush_begun: 0,
            flushed: 0,
            writes: VecDeque::new(),
            flushes: VecDeque::new(),
            next_id: 0,
            write_nanos: histogram(),
            flush_nanos: histogram(),
        })
    }

    /// Durable up to here.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed
    }

    /// Bytes from here on are still to be read from the log buffer.
    pub(crate) fn needed_from(&self) -> u64 {
        self.written / BLOCK_BYTES * BLOCK_BYTES
    }

    /// Forgets what was measured so far.
    pub(crate) fn forget(&mut self) {
        self.write_nanos.reset();
        self.flush_nanos.reset();
    }

    /// Goes on with what lies in the log buffer below `end`.
    pub(crate) fn poll_buffer(&mut self, driver: &mut Driver, buffer: &mut MirroredBuffer, end: u64) -> Result<()> {
        while self.issued < end && self.may_write() {
            if self.variant.mode.is_one_step() {
                if !self.write_durable(driver, buffer, end) {
                    break;
                }
                continue;
            }
            let length = self.whole_pages(end, self.room().min(end - self.issued));
            let position = LogPosition(self.issued);
            if self.variant.mode.is_inline() {
                self.write_inline(buffer.slice(position, length as usize))?;
            } else {
                self.submit_write(driver, Source::Log(buffer.window(position, length as u32)));
            }
        }
        self.poll_flush(driver)
    }

    /// Goes on with what was received, written from where it lies.
    pub(crate) fn poll_received(&mut self, driver: &mut Driver, incoming: &mut VecDeque<Slice>) -> Result<()> {
        while self.variant.mode.is_one_step() && self.may_write() && !incoming.is_empty() {
            self.write_gathered(driver, incoming);
        }
        while !self.variant.mode.is_one_step() && self.may_write() {
            let Some(slice) = incoming.pop_front() else { break };
            let length = u64::from(slice.length()).min(self.room()) as u32;
            if length < slice.length() {
                incoming.push_front(slice.part(length, slice.length() - length));
            }
            if self.variant.mode.is_inline() {
                self.write_inline(&slice[..length as usize])?;
            } else {
                self.submit_write(driver, Source::Received(slice.part(0, length)));
            }
        }
        self.poll_flush(driver)
    }

    /// What one write may carry from here.
    fn room(&self) -> u64 {
        self.layout.room(LogPosition(self.issued)).min(DISK_WRITE_MAX_BYTES)
    }

    fn may_write(&self) -> bool {
        if self.variant.mode.is_one_step() {
            return self.writes.len() < self.variant.flushes;
        }
        // The zeros behind it must not come after the next write.
        let ends_in_page = |write: &InFlight| self.layout.page_rest(LogPosition(write.end)) > 0;
        if self.variant.mode.pads() && self.writes.back().is_some_and(|last| last.remaining > 0 && ends_in_page(last)) {
            return false;
        }
        self.writes.len() < WRITES_IN_FLIGHT_MAX && !(self.variant.lazy && self.flushes.len() >= self.variant.flushes)
    }

    /// What of `length` bytes one write takes: when more come behind it, it ends with a page.
    fn whole_pages(&self, available: u64, length: u64) -> u64 {
        let end = self.issued + length;
        let into_page = (PAGE_BYTES - self.layout.page_rest(LogPosition(end))) % PAGE_BYTES;
        if self.variant.mode.pads() && end < available && into_page < length { length - into_page } else { length }
    }

    fn file_index(&self, chunk: u32) -> usize {
        (chunk % FILES) as usize
    }

    fn place(&self, position: u64) -> (usize, u64) {
        let position = LogPosition(position);
        (self.file_index(self.layout.chunk_of(position)), self.layout.file_offset(position))
    }

    fn in_flight(&mut self, end: u64, remaining: u32) -> InFlight {
        self.next_id += 1;
        InFlight { id: self.next_id, end, remaining, started: Instant::now() }
    }

    fn submit_write(&mut self, driver: &mut Driver, source: Source) {
        let (file, offset) = self.place(self.issued);
        let length = source.length();
        self.issued += u64::from(length);
        let write = self.in_flight(self.issued, 1);
        let rest = if self.variant.mode.pads() { self.layout.page_rest(LogPosition(self.issued)) } else { 0 };
        let zeros = u32::try_from(rest).expect("less than a page");
        driver.write_padded(self.ring_files[file], source, zeros, offset, Tag::Write(write.id).pack());
        self.writes.push_back(write);
    }

    /// A write on this thread, without the ring.
    fn write_inline(&mut self, bytes: &[u8]) -> Result<()> {
        let started = Instant::now();
        let (file, offset) = self.place(self.issued);
        self.plain_files[file].write_all_at(bytes, offset).context("a write failed")?;
        self.issued += bytes.len() as u64;
        self.written = self.issued;
        self.write_nanos.saturating_record(started.elapsed().as_nanos() as u64);
        Ok(())
    }

    /// One write that is its own flush. False when it has to wait for the one before.
    fn write_durable(&mut self, driver: &mut Driver, buffer: &mut MirroredBuffer, end: u64) -> bool {
        let room = self.layout.room(LogPosition(self.issued)).min(DURABLE_WRITE_MAX_BYTES);
        let mut end = end.min(self.issued + room);
        let mut start = self.issued;
        let mut padded = end;
        if self.variant.mode.is_direct() {
            start = start / BLOCK_BYTES * BLOCK_BYTES;
            if start < self.issued && !self.writes.is_empty() {
                // Two writes of one block at a time may reach the disk in either order.
                return false;
            }
            let whole = end / BLOCK_BYTES * BLOCK_BYTES;
            if self.variant.flushes > 1 && whole > self.issued {
                // The rest follows at once, beside it.
                end = whole;
            }
            padded = end.next_multiple_of(BLOCK_BYTES);
            buffer.slice_mut(LogPosition(end), (padded - end) as usize).fill(0);
        }
        let (file, offset) = self.place(start);
        let window = buffer.window(LogPosition(start), (padded - start) as u32);
        let write = self.in_flight(end, 1);
        let tag = Tag::Write(write.id).pack();
        if self.variant.mode == WriteMode::DirectSync {
            driver.write(self.ring_files[file], Source::Log(window), offset, tag);
        } else {
            driver.write_durable(self.ring_files[file], Source::Log(window), offset, tag);
        }
        self.writes.push_back(write);
        self.issued = end;
        true
    }

    /// Everything that was received, as far as it goes into one file, in one write that is its own flush.
    fn write_gathered(&mut self, driver: &mut Driver, incoming: &mut VecDeque<Slice>) {
        let (file, offset) = self.place(self.issued);
        let mut room = self.layout.room(LogPosition(self.issued)).min(DURABLE_WRITE_MAX_BYTES);
        let mut slices = Vec::new();
        while room > 0 && slices.len() < GATHERED_MAX {
            let Some(slice) = incoming.pop_front() else { break };
            let length = u64::from(slice.length()).min(room) as u32;
            if length < slice.length() {
                incoming.push_front(slice.part(length, slice.length() - length));
            }
            slices.push(slice.part(0, length));
            room -= u64::from(length);
            self.issued += u64::from(length);
        }
        let write = self.in_flight(self.issued, 1);
        driver.write_gathered_durable(self.ring_files[file], slices, offset, Tag::Write(write.id).pack());
        self.writes.push_back(write);
    }

    fn poll_flush(&mut self, driver: &mut Driver) -> Result<()> {
        while self.flushes.len() < self.variant.flushes && self.written > self.flush_begun {
            let first = self.layout.chunk_of(LogPosition(self.flush_begun));
            let last = self.layout.chunk_of(LogPosition(self.written - 1));
            let flush = self.in_flight(self.written, last - first + 1);
            self.flush_begun = self.written;
            for chunk in first..=last {
                let file = self.file_index(chunk);
                if self.variant.mode == WriteMode::Blocking {
                    self.plain_files[file].sync_data().context("a flush failed")?;
                } else {
                    driver.sync(self.ring_files[file], Tag::Sync(flush.id).pack());
                }
            }
            if self.variant.mode == WriteMode::Blocking {
                self.flushed = flush.end;
                self.flush_nanos.saturating_record(flush.started.elapsed().as_nanos() as u64);
                break;
            }
            self.flushes.push_back(flush);
        }
        Ok(())
    }

    pub(crate) fn handle_written(&mut self, driver: &mut Driver, id: u64, result: Result<(), Failure>) -> Result<()> {
        result.context("a write failed")?;
        if self.variant.mode == WriteMode::DirectSync {
            let write = self.writes.iter().find(|write| write.id == id).expect("a write that was submitted");
            let (file, _) = self.place(write.end - 1);
            driver.sync(self.ring_files[file], Tag::Sync(id).pack());
            return Ok(());
        }
        self.finish_write(id);
        Ok(())
    }

    fn finish_write(&mut self, id: u64) {
        let nanos = finish(&mut self.writes, id, &mut self.written);
        if self.variant.mode.is_one_step() {
            self.flushed = self.written;
            self.flush_begun = self.written;
            self.flush_nanos.saturating_record(nanos);
        } else {
            self.write_nanos.saturating_record(nanos);
        }
    }

    pub(crate) fn handle_synced(&mut self, id: u64, result: Result<(), Failure>) -> Result<()> {
        result.context("a flush failed")?;
        if self.variant.mode == WriteMode::DirectSync {
            self.finish_write(id);
            return Ok(());
        }
        let nanos = finish(&mut self.flushes, id, &mut self.flushed);
        self.flush_nanos.saturating_record(nanos);
        Ok(())
    }
}

/// Books one completion. What is done counts only when all before it is done. Returns how long it took.
fn finish(queue: &mut VecDeque<InFlight>, id: u64, reached: &mut u64) -> u64 {
    let entry = queue.iter_mut().find(|entry| entry.id == id).expect("something that was submitted");
    entry.remaining -= 1;
    let nanos = entry.started.elapsed().as_nanos() as u64;
    while queue.front().is_some_and(|entry| entry.remaining == 0) {
        *reached = queue.pop_front().expect("just seen").end;
    }
    nanos
}
