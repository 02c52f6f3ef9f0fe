//! The log's files as the ring writes them: chunks, their durable marks, the state file.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::{BufferToken, Engine};
use crate::limits::LINK_BUFFER_BYTES;
use crate::ring::{Driver, Failure, FileId, SharedPart, Slice, Source};
use crate::storage::{
    ChunkHeader, ChunkLayout, Disk as _, DurableMark, DurableState, FileDisk, FileName, PAGE_BYTES, Renewal,
    STATE_SLOT_OFFSETS,
};
use crate::types::{LogPosition, Ticks};

use super::error::LogThreadError;
use super::tag::Tag;

/// Chunk files kept open; beyond it the oldest idle ones are closed.
const OPEN_CHUNKS_MAX: usize = 16;

/// The durable mark is renewed with a flush when the last one is older than this.
const MARK_INTERVAL: Duration = Duration::from_millis(100);

/// Buffers that are kept to open pieces of TLS into.
const SPARES_MAX: usize = 4;

/// A larger one is not kept: a piece is what one receive gave, and a record that had begun before.
const SPARE_MAX_BYTES: usize = 2 * LINK_BUFFER_BYTES as usize;

/// A flush that the engine waits for.
#[derive(Debug)]
struct Flush {
    id: u64,
    first_chunk: u32,
    last_chunk: u32,
    /// Chunks not flushed yet.
    remaining: u32,
}

/// A save of the state that the engine waits for: into one slot, a flush, into the other, a flush.
#[derive(Debug)]
struct Saving {
    sequence: u64,
    slot: Vec<u8>,
    /// Slots that are done.
    done: usize,
}

/// What the engine asks of [`LogFiles::flush`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FlushOrder {
    pub(super) id: u64,
    pub(super) first_chunk: u32,
    pub(super) last_chunk: u32,
    pub(super) durable_before: LogPosition,
    pub(super) must_mark: bool,
}

/// What of the files nobody is about to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtRest<'a> {
    /// Marks of chunks before the one with this position may be anyone's.
    flushed: LogPosition,
    /// From here on there is nothing but zeros.
    high_water: LogPosition,
    /// What both slots of the state file hold.
    state: Option<&'a DurableState>,
}

impl AtRest<'_> {
    pub(super) fn of(engine: &Engine) -> AtRest<'_> {
        let (_, flushed, _, _) = engine.positions();
        AtRest { flushed, high_water: engine.high_water(), state: engine.saved_state() }
    }
}

/// Bytes of a leader's log.
#[derive(Debug)]
enum Piece {
    /// As they were received.
    Slice(Slice),
    /// They came in TLS, and were opened into memory of this program.
    Opened(Rc<Vec<u8>>),
}

/// Pieces of a leader's log that the engine knows by number.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pieces: Vec<Option<Piece>>,
    free: Vec<u64>,
    /// Bytes of opened pieces: no group of buffers bounds them.
    opened_bytes: usize,
    /// To be opened into again.
    spares: Vec<Vec<u8>>,
}

impl Tokens {
    pub(super) fn insert(&mut self, slice: Slice) -> BufferToken {
        self.place(Piece::Slice(slice))
    }

    pub(super) fn insert_opened(&mut self, bytes: Rc<Vec<u8>>) -> BufferToken {
        self.opened_bytes += bytes.len();
        self.place(Piece::Opened(bytes))
    }

    fn place(&mut self, piece: Piece) -> BufferToken {
        let place = self.free.pop().unwrap_or_else(|| {
            self.pieces.push(None);
            self.pieces.len() as u64 - 1
        });
        self.pieces[place as usize] = Some(piece);
        BufferToken(place)
    }

    /// The bytes of `token` from `offset` on.
    pub(super) fn part(&self, token: BufferToken, offset: usize, length: usize) -> Source {
        match self.pieces[token.0 as usize].as_ref().expect("a token that was not released") {
            Piece::Slice(slice) => {
                let (offset, length) = (u32::try_from(offset), u32::try_from(length));
                let part = slice.part(offset.expect("inside of a slice"), length.expect("inside of a slice"));
                Source::Received(part)
            }
            Piece::Opened(bytes) => Source::Shared(SharedPart::new(Rc::clone(bytes), offset..offset + length)),
        }
    }

    pub(super) fn release(&mut self, token: BufferToken) {
        let piece = self.pieces[token.0 as usize].take();
        self.free.push(token.0);
        match piece {
            Some(Piece::Slice(_)) => {}
            Some(Piece::Opened(bytes)) => {
                self.opened_bytes -= bytes.len();
                if let Ok(bytes) = Rc::try_unwrap(bytes)
                    && self.spares.len() < SPARES_MAX
                    && bytes.capacity() <= SPARE_MAX_BYTES
                {
                    self.spares.push(bytes);
                }
            }
            None => panic!("{token:?} is released twice"),
        }
    }

    /// Bytes that were opened and are not written yet.
    pub(super) fn opened_bytes(&self) -> usize {
        self.opened_bytes
    }

    /// An empty buffer, one that was used before where there is one.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        let mut spare = self.spares.pop().unwrap_or_default();
        spare.clear();
        spare
    }
}

/// The files of the log thread. Every failure is final.
#[derive(Debug)]
pub(super) struct LogFiles {
    disk: Arc<FileDisk>,
    pub(super) layout: ChunkLayout,
    /// False with `UnsafeDisableFlushToDisk`.
    flushes: bool,
    chunks: BTreeMap<u32, FileId>,
    state: Option<FileId>,
    /// The state that is being saved.
    saving: Option<Saving>,
    flush: Option<Flush>,
    mark_sequence: u64,
    marked_at: Ticks,
    marked: LogPosition,
    pub(super) tokens: Tokens,
}

impl LogFiles {
    /// `mark`: the newest durable mark that recovery found.
    pub(super) fn new(disk: Arc<FileDisk>, layout: ChunkLayout, flushes: bool, mark: Option<DurableMark>) -> LogFiles {
        LogFiles {
            disk,
            layout,
            flushes,
            chunks: BTreeMap::new(),
            state: None,
            saving: None,
            flush: None,
            mark_sequence: mark.map_or(0, |mark| mark.sequence),
            marked_at: Ticks(0),
            marked: mark.map_or(LogPosition::ZERO, |mark| mark.position),
            tokens: Tokens::default(),
        }
    }

    /// A chunk file that was prepared.
    pub(super) fn add_chunk(&mut self, driver: &mut Driver, chunk: u32, file: OwnedFd) {
        // It may be there already: opened when it was first needed.
        self.chunks.entry(chunk).or_insert_with(|| driver.attach(file));
        while self.chunks.len() > OPEN_CHUNKS_MAX {
            let idle = self.chunks.iter().map(|(&chunk, &file)| (chunk, file)).find(|&(_, file)| driver.is_idle(file));
            let Some((oldest, file)) = idle.filter(|&(oldest, _)| oldest < chunk) else { break };
            self.chunks.remove(&oldest);
            driver.close(file);
        }
    }

    /// The file of a chunk, opened if need be. Opening is rare: once for each chunk that is read or was there at start.
    pub(super) fn chunk(&mut self, driver: &mut Driver, chunk: u32) -> Result<FileId, LogThreadError> {
        if let Some(&file) = self.chunks.get(&chunk) {
            return Ok(file);
        }
        let file = self.open(FileName::Chunk(chunk))?;
        self.add_chunk(driver, chunk, file);
        Ok(self.chunks[&chunk])
    }

    fn open(&self, name: FileName) -> Result<OwnedFd, LogThreadError> {
        let opened = self.disk.open_file(name);
        opened.map(OwnedFd::from).map_err(|source| LogThreadError::Open { name: name.to_string(), source })
    }

    /// Writes to the chunk that holds `position`, and zeros up to the end of the last page.
    pub(super) fn write(
        &mut self,
        driver: &mut Driver,
        id: u64,
        position: LogPosition,
        source: Source,
    ) -> Result<(), LogThreadError> {
        let file = self.chunk(driver, self.layout.chunk_of(position))?;
        let end = position.plus(u64::from(source.length()));
        let zeros = u32::try_from(self.layout.page_rest(end)).expect("less than a page");
        driver.write_padded(file, source, zeros, self.layout.file_offset(position), Tag::Write(id).pack());
        Ok(())
    }

    /// Begins a flush; with a durable mark when it must be or the last one is old. The flush itself is submitted when the
    /// mark is in the file: the kernel keeps no order between the two. `Some`: it is done already.
    pub(super) fn flush(
        &mut self,
        driver: &mut Driver,
        now: Ticks,
        order: FlushOrder,
    ) -> Result<Option<u64>, LogThreadError> {
        assert!(self.flush.is_none(), "one flush in flight");
        let FlushOrder { id, first_chunk, last_chunk, durable_before, must_mark } = order;
        let due = now.since(self.marked_at) >= MARK_INTERVAL && durable_before > self.marked;
        if !self.flushes && !must_mark {
            return Ok(Some(id));
        }
        let remaining = last_chunk - first_chunk + 1;
        self.flush = Some(Flush { id, first_chunk, last_chunk, remaining });
        if must_mark || due {
            self.mark_sequence += 1;
            self.marked_at = now;
            self.marked = durable_before;
            let (offset, slot) = DurableMark::encode_slot(self.mark_sequence, durable_before);
            let file = self.chunk(driver, last_chunk)?;
            driver.write(file, Source::Owned(slot.to_vec()), offset, Tag::Mark(last_chunk).pack());
            return Ok(None);
        }
        self.sync_chunks(driver)?;
        Ok(None)
    }

    fn sync_chunks(&mut self, driver: &mut Driver) -> Result<(), LogThreadError> {
        let flush = self.flush.as_ref().expect("a flush is in flight");
        for chunk in flush.first_chunk..=flush.last_chunk {
            let file = self.chunk(driver, chunk)?;
            driver.sync(file, Tag::SyncChunk(chunk).pack());
        }
        Ok(())
    }

    /// The mark is in the file. `Some`: the flush is done, because flushing is switched off.
    pub(super) fn mark_written(
        &mut self,
        driver: &mut Driver,
        chunk: u32,
        result: Result<(), Failure>,
    ) -> Result<Option<u64>, LogThreadError> {
        let what = || format!("the durable mark of {}", FileName::Chunk(chunk));
        result.map_err(|failure| LogThreadError::Flush { what: what(), failure })?;
        if !self.flushes {
            return Ok(self.flush.take().map(|flush| flush.id));
        }
        self.sync_chunks(driver)?;
        Ok(None)
    }

    /// A chunk is durable. `Some`: the flush is done.
    pub(super) fn chunk_synced(
        &mut self,
        chunk: u32,
        result: Result<(), Failure>,
    ) -> Result<Option<u64>, LogThreadError> {
        result.map_err(|failure| LogThreadError::Flush { what: FileName::Chunk(chunk).to_string(), failure })?;
        let flush = self.flush.as_mut().expect("a flush is in flight");
        flush.remaining -= 1;
        if flush.remaining > 0 {
            return Ok(None);
        }
        Ok(self.flush.take().map(|flush| flush.id))
    }

    /// Writes anew what has rotted, if it is not about to be written anyway; who found it looks again.
    ///
    /// In one call and not through the ring, whose writes have no order among each other: it is in the file before any later
    /// write begins, and there is none in flight to the same place. That is rare, and a page at most; the flush is left to
    /// who asked, whom the disk may keep waiting.
    pub(super) fn renew(&mut self, at_rest: AtRest<'_>, renewal: Renewal) {
        let written = match renewal {
            // Marks go out with flushes only; chunks in front of this one may be sealed, and belong to the scrubber then.
            Renewal::Marks(chunk) if self.flush.is_none() && chunk >= self.layout.chunk_of(at_rest.flushed) => {
                self.renew_marks(chunk)
            }
            Renewal::Header(chunk) if self.flush.is_none() && chunk >= self.layout.chunk_of(at_rest.flushed) => {
                self.renew_header(chunk)
            }
            Renewal::Zeros { from, to } if from >= at_rest.high_water => self.renew_zeros(at_rest.high_water, from, to),
            // The other slot stays as it is: one of the two is good at any time.
            Renewal::State(slot) => at_rest
                .state
                .map_or(Ok(()), |state| self.disk.write_at(FileName::State, STATE_SLOT_OFFSETS[slot], &state.encode())),
            Renewal::Marks(_) | Renewal::Header(_) | Renewal::Zeros { .. } => Ok(()),
        };
        if let Err(error) = written {
            tracing::error!(?renewal, %error, "what has rotted cannot be written anew; it is tried again. Check the disk");
        }
    }

    /// From the page's begin where there are zeros, too: of a page that is written as a whole nothing is read from the disk,
    /// for which the log would wait.
    fn renew_zeros(&self, high_water: LogPosition, from: LogPosition, to: LogPosition) -> io::Result<()> {
        let into_page = self.layout.file_offset(from) % PAGE_BYTES;
        let begin = LogPosition(from.0.saturating_sub(into_page));
        let from = if begin >= high_water { begin } else { from };
        let (name, offset) = (FileName::Chunk(self.layout.chunk_of(from)), self.layout.file_offset(from));
        debug_assert!(to.since(from) <= PAGE_BYTES, "a page at most");
        self.disk.write_at(name, offset, &vec![0; usize::try_from(to.since(from)).expect("a page at most")])
    }

    /// What the newest mark says, in both slots, under the next numbers: so they are the newest of all chunks, and true.
    fn renew_marks(&mut self, chunk: u32) -> io::Result<()> {
        for (offset, slot) in self.next_marks() {
            self.disk.write_at(FileName::Chunk(chunk), offset, &slot)?;
        }
        Ok(())
    }

    /// The same with all that is around them, in one piece: the system reads a page first of which only a part is written.
    fn renew_header(&mut self, chunk: u32) -> io::Result<()> {
        let mut page = ChunkHeader { chunk, layout: self.layout }.encode();
        for (offset, slot) in self.next_marks() {
            page[offset as usize..][..slot.len()].copy_from_slice(&slot);
        }
        self.disk.write_at(FileName::Chunk(chunk), 0, &page)
    }

    /// One for each slot, and where it lies.
    fn next_marks(&mut self) -> [(u64, Vec<u8>); 2] {
        self.mark_sequence += 2;
        [self.mark_sequence - 1, self.mark_sequence].map(|sequence| {
            let (offset, slot) = DurableMark::encode_slot(sequence, self.marked);
            (offset, slot.to_vec())
        })
    }

    /// Begins to save the small state.
    pub(super) fn save_state(&mut self, driver: &mut Driver, state: &DurableState) -> Result<(), LogThreadError> {
        assert!(self.saving.is_none(), "one save of the state in flight");
        self.saving = Some(Saving { sequence: state.sequence, slot: state.encode().to_vec(), done: 0 });
        if self.state.is_none() {
            self.state = Some(driver.attach(self.open(FileName::State)?));
        }
        self.write_slot(driver);
        Ok(())
    }

    fn write_slot(&self, driver: &mut Driver) {
        let saving = self.saving.as_ref().expect("a save is in flight");
        let source = Source::Owned(saving.slot.clone());
        driver.write(self.state.expect("it is open"), source, STATE_SLOT_OFFSETS[saving.done], Tag::WriteState.pack());
    }

    /// A slot of the state is in its file. `Some`: the state is saved, because flushing is switched off.
    pub(super) fn state_written(
        &mut self,
        driver: &mut Driver,
        result: Result<(), Failure>,
    ) -> Result<Option<u64>, LogThreadError> {
        result.map_err(|failure| LogThreadError::State { failure })?;
        if !self.flushes {
            return Ok(self.slot_done(driver));
        }
        driver.sync(self.state.expect("it was written to"), Tag::SyncState.pack());
        Ok(None)
    }

    /// A slot of the state is durable. `Some`: the state is saved; its sequence.
    pub(super) fn state_synced(
        &mut self,
        driver: &mut Driver,
        result: Result<(), Failure>,
    ) -> Result<Option<u64>, LogThreadError> {
        result.map_err(|failure| LogThreadError::State { failure })?;
        Ok(self.slot_done(driver))
    }

    /// Goes on with the next slot, if there is one.
    fn slot_done(&mut self, driver: &mut Driver) -> Option<u64> {
        let saving = self.saving.as_mut().expect("a save is in flight");
        saving.done += 1;
        if saving.done < STATE_SLOT_OFFSETS.len() {
            self.write_slot(driver);
            return None;
        }
        self.saving.take().map(|saving| saving.sequence)
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
