//! Recovery of the log at start: find its end, check every record, tell a torn tail from damage.
//!
//! The durable mark decides: below it everything was flushed once, so a record that does not check out there is damage,
//! and a matter for the operator. At or above it lies what was being written when the node stopped. The system writes
//! such a batch back in any order, so a hole may have good records behind it; none of it was acknowledged from here, and
//! all of it from the hole on is cut.
//!
//! Memory is bounded by one read buffer, also when a record is larger.

use crate::codec::record::{EpochBody, Header, MembershipRecord, RecordError, RecordKind, RecordView};
use crate::limits::{CHUNK_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::types::{Epoch, Guid, LogPosition, Term};

use super::chunk::{ChunkHeader, DurableMark, FORMAT_VERSION};
use super::disk::{Disk, FileInfo, FileName};
use super::error::RecoveryError;
use super::layout::ChunkLayout;

/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;

/// What recovery found. Everything below `end` is checked and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The end of the log.
    pub end: LogPosition,
    /// Term of the last record; zero for an empty log.
    pub last_term: Term,
    /// The epochs, oldest first; terms ascend.
    pub epochs: Vec<Epoch>,
    /// The last member list in the log with the one before it, and where its record lies.
    pub membership: Option<(LogPosition, MembershipRecord)>,
    /// What was found at `end` when it was not simply nothing. [`erase_tail`] removes it.
    pub cut: Option<TornTail>,
    /// True when `cut` is not just what a power cut leaves: good records of this log lie behind it, so acknowledged writes
    /// may be among what is cut. The node then must not count itself up to date in elections.
    pub is_suspect: bool,
    /// Chunk files that are there, numbered from 0 without a gap; the last ones may be empty.
    pub chunk_count: u32,
    /// The newest durable mark; the next one carries its sequence plus one.
    pub mark: Option<DurableMark>,
}

impl Recovered {
    /// Judges the end that was found against [`DurableState::commit_hint`](super::DurableState::commit_hint): what was
    /// known to be committed had been flushed here before the hint was saved, so a log that ends below it has lost
    /// acknowledged writes. The durable mark alone does not tell: it lags. Ask before [`erase_tail`]; not for a log that
    /// was written without flushing, which may lose its end.
    ///
    /// # Errors
    /// [`RecoveryError::Corrupt`] with the hint as the durable position.
    pub fn check_committed(&self, layout: ChunkLayout, hint: LogPosition) -> Result<(), RecoveryError> {
        if self.end >= hint {
            return Ok(());
        }
        let found = self.cut.as_ref().map_or("the log ends here", |tail| &tail.reason);
        Err(RecoveryError::Corrupt {
            chunk: layout.chunk_of(self.end),
            position: self.end,
            offset: layout.file_offset(self.end),
            durable: hint,
            reason: format!("{found}, but the state file knows that it was committed up to {hint}"),
        })
    }
}

/// The remains of a write that was under way when the node stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Where the first record that does not check out begins.
    pub position: LogPosition,
    /// What does not check out.
    pub reason: String,
}

/// How far the scan is; given to the callback of [`recover`] after each piece that was read, and at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanProgress {
    /// Checked up to here.
    pub position: LogPosition,
    /// The scan ends here at the latest.
    pub limit: LogPosition,
}

/// Scans the log from its start, and writes and flushes once more what lies above the durable mark: after a crash of the
/// process alone such records are good in the system's cache and yet may not be on the disk. (Flushing without writing is
/// not enough: after a failed flush the system takes pages for clean that never reached the disk.) Without any mark that
/// is the whole log.
///
/// Follow it with [`erase_tail`] at [`Recovered::end`] before anything is written.
///
/// # Errors
/// See [`RecoveryError`].
pub fn recover(
    disk: &dyn Disk,
    layout: ChunkLayout,
    progress: &mut dyn FnMut(ScanProgress),
) -> Result<Recovered, RecoveryError> {
    let (chunk_count, mark) = check_chunks(disk, layout)?;
    let durable = mark.map_or(LogPosition::ZERO, |mark| mark.position);
    let limit = layout.chunk_start(chunk_count);
    let mut scan = Scan::new(disk, layout);
    let end_reason = scan.run(limit, progress)?;
    let end = scan.end;
    progress(ScanProgress { position: end, limit });
    if end < durable {
        return Err(RecoveryError::Corrupt {
            chunk: layout.chunk_of(end),
            position: end,
            offset: layout.file_offset(end),
            durable,
            reason: end_reason.unwrap_or_else(|| "the log ends here".to_owned()),
        });
    }
    write_again(disk, layout, durable, end)?;
    let cut = end_reason.map(|reason| TornTail { position: end, reason });
    let Scan { term: last_term, epochs, membership, .. } = scan;
    Ok(Recovered { end, last_term, epochs, membership, cut, is_suspect: false, chunk_count, mark })
}

/// Overwrites with zeros whatever is not zero from `from` to the end of the last chunk, and makes that durable: a stale
/// record can then never be taken for a new one. Reads the rest of every chunk, so it is for the start; see
/// [`erase_range`] for a running node. Gives the number of bytes that it wrote.
///
/// # Errors
/// [`RecoveryError::Io`]; calling it again is safe.
pub fn erase_tail(disk: &dyn Disk, layout: ChunkLayout, from: LogPosition) -> Result<u64, RecoveryError> {
    let last = disk.list().map_err(failed(FileName::Chunk(0), "listed"))?.last().map(|file| file.name);
    let Some(FileName::Chunk(last)) = last else {
        return Ok(0);
    };
    let mut erased = 0;
    let mut buffer = vec![0; buffer_bytes(layout)];
    each_piece(layout, from, layout.chunk_start(last + 1), &mut |name, offset, length, ends_chunk| {
        let piece = &mut buffer[..length];
        disk.read_at(name, offset, piece).map_err(failed(name, "read"))?;
        if piece.iter().any(|&byte| byte != 0) {
            piece.fill(0);
            disk.write_at(name, offset, piece).map_err(failed(name, "written"))?;
            erased += length as u64;
        }
        // Also when nothing was written: an earlier attempt may have been stopped before its flush.
        if ends_chunk { disk.sync(name).map_err(failed(name, "flushed")) } else { Ok(()) }
    })?;
    Ok(erased)
}

/// Overwrites the log from `from` to `to` with zeros and makes that durable. For a truncation while the node runs; a
/// durable mark at or below `from` must be durable before.
///
/// # Errors
/// [`RecoveryError::Io`]; calling it again is safe.
pub fn erase_range(
    disk: &dyn Disk,
    layout: ChunkLayout,
    from: LogPosition,
    to: LogPosition,
) -> Result<(), RecoveryError> {
    let zeros = vec![0; READ_BYTES.min(usize::try_from(to.since(from)).unwrap_or(READ_BYTES))];
    each_piece(layout, from, to, &mut |name, offset, length, ends_chunk| {
        disk.write_at(name, offset, &zeros[..length]).map_err(failed(name, "written"))?;
        if ends_chunk { disk.sync(name).map_err(failed(name, "flushed")) } else { Ok(()) }
    })
}

/// Reads the log from `from` to `to`, writes it in place and flushes it.
fn write_again(disk: &dyn Disk, layout: ChunkLayout, from: LogPosition, to: LogPosition) -> Result<(), RecoveryError> {
    let mut buffer = vec![0; READ_BYTES.min(usize::try_from(to.since(from)).unwrap_or(READ_BYTES))];
    each_piece(layout, from, to, &mut |name, offset, length, ends_chunk| {
        disk.read_at(name, offset, &mut buffer[..length]).map_err(failed(name, "read"))?;
        disk.write_at(name, offset, &buffer[..length]).map_err(failed(name, "written"))?;
        if ends_chunk { disk.sync(name).map_err(failed(name, "flushed")) } else { Ok(()) }
    })
}

/// Calls `visit` for pieces of at most [`READ_BYTES`], none across a chunk end: file, offset, length, and whether it is
/// the last piece in its chunk.
fn each_piece(
    layout: ChunkLayout,
    from: LogPosition,
    to: LogPosition,
    visit: &mut dyn FnMut(FileName, u64, usize, bool) -> Result<(), RecoveryError>,
) -> Result<(), RecoveryError> {
    let mut at = from;
    while at < to {
        let in_chunk = layout.room(at).min(to.since(at));
        let length = in_chunk.min(READ_BYTES as u64);
        visit(FileName::Chunk(layout.chunk_of(at)), layout.file_offset(at), length as usize, length == in_chunk)?;
        at = at.plus(length);
    }
    Ok(())
}

/// Checks names, lengths and header pages; gives the number of chunks and the newest durable mark.
fn check_chunks(disk: &dyn Disk, layout: ChunkLayout) -> Result<(u32, Option<DurableMark>), RecoveryError> {
    let mut files = disk.list().map_err(failed(FileName::Chunk(0), "listed"))?;
    files.sort_unstable_by_key(|file| file.name);
    let last = files.last().map_or(FileName::State, |file| file.name);
    let (mut count, mut mark) = (0, None);
    let mut page = vec![0; CHUNK_HEADER_BYTES as usize];
    for file in files {
        let FileName::Chunk(chunk) = file.name else {
            continue;
        };
        if let (true, FileName::Chunk(last)) = (chunk != count, last) {
            return Err(RecoveryError::MissingChunk { missing: count, last });
        }
        check_version(disk, file, chunk)?;
        if file.length != layout.file_length() {
            return Err(RecoveryError::ChunkLength { chunk, found: file.length, expected: layout.file_length() });
        }
        disk.read_at(file.name, 0, &mut page).map_err(failed(file.name, "read"))?;
        let header = ChunkHeader { chunk, layout };
        header.check(&page).map_err(|reason| RecoveryError::ChunkHeader { chunk, reason })?;
        let found = DurableMark::read_newest(&page);
        mark = [mark, found].into_iter().flatten().max_by_key(|mark: &DurableMark| mark.sequence);
        count += 1;
    }
    Ok((count, mark))
}

/// A buffer for pieces that [`each_piece`] makes, none of which goes across a chunk end.
fn buffer_bytes(layout: ChunkLayout) -> usize {
    READ_BYTES.min(usize::try_from(layout.chunk_size).unwrap_or(READ_BYTES))
}

/// A chunk of another version has another length, too: its version is the better answer.
fn check_version(disk: &dyn Disk, file: FileInfo, chunk: u32) -> Result<(), RecoveryError> {
    let mut page = vec![0; CHUNK_HEADER_BYTES.min(file.length) as usize];
    disk.read_at(file.name, 0, &mut page).map_err(failed(file.name, "read"))?;
    match ChunkHeader::version(&page) {
        Some(found) if found != FORMAT_VERSION => {
            Err(RecoveryError::ChunkVersion { chunk, found, reads: FORMAT_VERSION })
        }
        _ => Ok(()),
    }
}

fn failed(name: FileName, attempt: &'static str) -> impl FnOnce(std::io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { name, attempt, source }
}

/// The scan under way: a window on the log, and what was found before it.
struct Scan<'a> {
    disk: &'a dyn Disk,
    layout: ChunkLayout,
    buffer: Vec<u8>,
    /// Position of the first byte in `buffer`.
    window: LogPosition,
    /// Bytes in `buffer` that hold the log. Invariant: they do not go across a chunk end.
    window_length: usize,
    /// The end of the last good record.
    end: LogPosition,
    /// Term of the last good record.
    term: Term,
    epochs: Vec<Epoch>,
    membership: Option<(LogPosition, MembershipRecord)>,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a dyn Disk, layout: ChunkLayout) -> Scan<'a> {
        Scan {
            disk,
            layout,
            buffer: vec![0; buffer_bytes(layout)],
            window: LogPosition::ZERO,
            window_length: 0,
            end: LogPosition::ZERO,
            term: Term::ZERO,
            epochs: Vec::new(),
            membership: None,
        }
    }

    /// Goes on until a record does not check out and says why; `None` where the log just ends.
    fn run(
        &mut self,
        limit: LogPosition,
        progress: &mut dyn FnMut(ScanProgress),
    ) -> Result<Option<String>, RecoveryError> {
        while self.end < limit {
            let window = self.window;
            let header = match self.check(self.end)? {
                Ok(header) => header,
                Err(RecordError::Empty) => return Ok(None),
                Err(error) => return Ok(Some(error.to_string())),
            };
            if let Err(reason) = self.take(header)? {
                return Ok(Some(reason));
            }
            self.end = header.end();
            if self.window != window {
                progress(ScanProgress { position: self.end, limit });
            }
        }
        Ok(None)
    }

    /// Checks the record at `position`.
    fn check(&mut self, position: LogPosition) -> Result<Result<Header, RecordError>, RecoveryError> {
        let room = self.layout.room(position);
        let head = self.bytes(position, room.min(RECORD_HEADER_BYTES as u64) as usize)?;
        let header = match Header::read(head, position, room) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let length = header.length as usize;
        if length <= READ_BYTES {
            return Ok(RecordView::check(self.bytes(position, length)?, position, room).map(|record| record.header));
        }
        let computed = self.checksum(position.plus(8), length - 8)?;
        let stored = header.crc;
        Ok(if computed == stored { Ok(header) } else { Err(RecordError::Checksum { computed, stored }) })
    }

    /// The checksum of bytes that do not fit the buffer.
    fn checksum(&mut self, mut position: LogPosition, mut length: usize) -> Result<u32, RecoveryError> {
        let mut crc = 0;
        while length > 0 {
            let step = length.min(READ_BYTES);
            crc = crc32c::crc32c_append(crc, self.bytes(position, step)?);
            position = position.plus(step as u64);
            length -= step;
        }
        Ok(crc)
    }

    /// Takes note of a record whose checksum is good; the inner error says why it cannot follow those before it.
    fn take(&mut self, header: Header) -> Result<Result<(), String>, RecoveryError> {
        if header.term < self.term {
            // A stale record of a deposed leader may lie right behind the end.
            return Ok(Err(format!("a record of term {} behind one of term {}", header.term, self.term)));
        }
        if matches!(header.kind, RecordKind::Epoch | RecordKind::Membership) {
            let taken = self.take_control(header)?;
            if taken.is_err() {
                return Ok(taken);
            }
        }
        if header.kind == RecordKind::Padding && header.term > self.term {
            // The epoch record of this term did not fit the chunk: the epoch begins here all the same.
            self.epochs.push(Epoch { term: header.term, position: header.position, id: Guid::ZERO });
        }
        self.term = header.term;
        Ok(Ok(()))
    }

    fn take_control(&mut self, header: Header) -> Result<Result<(), String>, RecoveryError> {
        let length = header.length as usize;
        if length > READ_BYTES {
            return Ok(Err(format!("an epoch or member list of {length} bytes, the limit is {READ_BYTES}")));
        }
        let body = &self.bytes(header.position, length)?[RECORD_HEADER_BYTES..];
        if header.kind == RecordKind::Membership {
            let Some(membership) = MembershipRecord::decode(body) else {
                return Ok(Err("a member list that cannot be read".to_owned()));
            };
            self.membership = Some((header.position, membership));
            return Ok(Ok(()));
        }
        let Some(epoch) = EpochBody::decode(body) else {
            return Ok(Err("an epoch that cannot be read".to_owned()));
        };
        if let Some(last) = self.epochs.last_mut().filter(|last| last.term == header.term && last.id.is_zero()) {
            last.id = epoch.epoch_id;
            return Ok(Ok(()));
        }
        if let Some(last) = self.epochs.last().filter(|last| last.term >= header.term) {
            return Ok(Err(format!("epoch {} behind epoch {}", header.term, last.term)));
        }
        self.epochs.push(Epoch { term: header.term, position: header.position, id: epoch.epoch_id });
        Ok(Ok(()))
    }

    /// The `length` bytes at `position`, which lie in one chunk and fit the buffer.
    fn bytes(&mut self, position: LogPosition, length: usize) -> Result<&[u8], RecoveryError> {
        assert!(length <= READ_BYTES && length as u64 <= self.layout.room(position), "{length} bytes at {position}");
        let window_end = self.window.plus(self.window_length as u64);
        if position < self.window || position.plus(length as u64) > window_end {
            let name = FileName::Chunk(self.layout.chunk_of(position));
            let fill = self.layout.room(position).min(READ_BYTES as u64) as usize;
            let offset = self.layout.file_offset(position);
            self.disk.read_at(name, offset, &mut self.buffer[..fill]).map_err(failed(name, "read"))?;
            (self.window, self.window_length) = (position, fill);
        }
        let at = position.since(self.window) as usize;
        Ok(&self.buffer[at..at + length])
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
