//! Recovery of the log at start: find its end, check what is not sealed, tell a torn tail from damage.
//!
//! A sealed chunk was checked when it was sealed and its footer says what it holds, so that a start reads its footer only;
//! whether it is still whole is the scrubber's business. The rest, normally the last chunk or two, is read record by record.
//! So the time of a start does not depend on the size of the log.
//!
//! The durable mark decides: below it, or in front of a sealed chunk, everything was flushed once, so a record that does
//! not check out there is damage, and a matter for the operator. At or above it lies what was being written when the node
//! stopped. The system writes such a batch back in any order, so a hole may have good records behind it; all of it from the
//! hole on is cut. Good records behind the hole make the log suspect: the hole may also be rot in what was acknowledged.
//!
//! Memory is bounded by one read buffer, also when a record is larger.

use std::ops::Range;

use crate::codec::record::{MembershipRecord, RecordKind, RecordView, sealed_length};
use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::types::{Epoch, LogPosition, Term};

use super::chunk::{ChunkHeader, DurableMark, FORMAT_VERSION, WrongMark};
use super::disk::{Disk, FileInfo, FileName, read_around};
use super::error::RecoveryError;
use super::facts::LogFacts;
use super::footer::ChunkFooter;
use super::layout::ChunkLayout;
use super::search::{check as check_record, find_record};
use super::walk::{ChunkWalk, Stop};

/// Bytes read at a time.
const READ_BYTES: usize = 4 << 20;

/// Bytes that the system is asked to have ready behind those that are read.
const READ_AHEAD_BYTES: u64 = 16 << 20;

/// What recovery found. Everything below `end` is durable, and checked now or when its chunk was sealed.
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
    /// may be among what is cut. Also when the header page of a chunk that is not sealed is damaged, and more than one bit of
    /// a durable mark: the newest mark, which would have told of a loss, may have been there. The node then must not count
    /// itself up to date in elections.
    pub is_suspect: bool,
    /// What is not zero from `end` on, in large pieces: what [`Recovered::erase_tail`] has to overwrite.
    pub stale: Vec<Range<LogPosition>>,
    /// The log before this position lies in sealed chunks, whose footers were believed.
    pub sealed: LogPosition,
    /// Chunk files that are there, numbered from 0 without a gap; the last ones may be empty.
    pub chunk_count: u32,
    /// Chunks whose header page, or a mark in it, is damaged although the rest shows which they are.
    /// [`Recovered::erase_tail`] mends it.
    pub headers: Vec<u32>,
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

    /// [`erase_tail`] at `end`, without reading again what recovery has read. Before that it mends the header pages that
    /// are damaged: what makes the log suspect is then not seen any more, so it must have been saved.
    ///
    /// # Errors
    /// [`RecoveryError::Io`]; calling it again is safe.
    pub fn erase_tail(&self, disk: &dyn Disk, layout: ChunkLayout) -> Result<u64, RecoveryError> {
        self.headers.iter().try_for_each(|&chunk| mend_header(disk, layout, chunk))?;
        erase(disk, layout, self.end, layout.chunk_start(self.chunk_count), &self.stale)
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

/// Finds the end of the log, believing the footers of sealed chunks and reading the rest, and writes and flushes once more
/// what lies above the durable mark: after a crash of the process alone such records are good in the system's cache and
/// yet may not be on the disk. (Flushing without writing is not enough: after a failed flush the system takes pages for
/// clean that never reached the disk.) Without any mark that is all that is not sealed.
///
/// Follow it with [`Recovered::erase_tail`] before anything is written.
///
/// # Errors
/// See [`RecoveryError`].
pub fn recover(
    disk: &dyn Disk,
    layout: ChunkLayout,
    progress: &mut dyn FnMut(ScanProgress),
) -> Result<Recovered, RecoveryError> {
    let files = check_chunks(disk, layout)?;
    let (mark, chunk_count) = (files.mark, files.footers.len() as u32);
    let limit = layout.chunk_start(chunk_count);
    let scan = scan(disk, layout, &files.footers, progress)?;
    let end = scan.end;
    // What is sealed was durable before; so was all in front of it.
    let sealed_chunks = files.footers.iter().rposition(Option::is_some).map_or(0, |last| last as u32 + 1);
    let marked = mark.map_or(LogPosition::ZERO, |mark| mark.position);
    let durable = marked.max(layout.chunk_start(sealed_chunks));
    let end_reason = match scan.stop {
        Some(Stop::Bad(reason)) => Some(reason),
        Some(Stop::Nothing) | None => None,
    };
    if end < durable {
        let reason = end_reason.unwrap_or_else(|| "the log ends here".to_owned());
        return Err(corrupt(layout, end, durable, reason));
    }
    let membership = read_membership(disk, layout, scan.facts.membership, durable)?;
    write_again(disk, layout, durable, end)?;
    let stale = find_stale(disk, layout, end, limit)?;
    let has_good_behind = has_records(disk, layout, &stale, scan.facts.term)?;
    let is_suspect = has_good_behind || files.may_lack_mark;
    progress(ScanProgress { position: end, limit });
    let LogFacts { term: last_term, epochs, .. } = scan.facts;
    let cut = end_reason.or(has_good_behind.then(|| "zeros in front of good records".to_owned()));
    let cut = cut.map(|reason| TornTail { position: end, reason });
    let (sealed, headers) = (scan.sealed, files.headers);
    Ok(Recovered { end, last_term, epochs, membership, cut, is_suspect, stale, sealed, chunk_count, headers, mark })
}

/// What can be said of a log that [`recover`] refuses, up to where it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The epochs of the records that check out, oldest first.
    pub epochs: Vec<Epoch>,
    /// The end of the last chunk that was ever sealed: committed up to here.
    pub sealed: LogPosition,
    /// The end of the last chunk.
    pub limit: LogPosition,
    /// The newest durable mark.
    pub mark: Option<DurableMark>,
}

/// Looks at the log as [`recover`] does, changes nothing, and tells what it has seen.
///
/// # Errors
/// [`RecoveryError`]; not [`RecoveryError::Corrupt`].
pub fn survey(disk: &dyn Disk, layout: ChunkLayout) -> Result<Survey, RecoveryError> {
    let files = check_chunks(disk, layout)?;
    let sealed_chunks = files.footers.iter().rposition(Option::is_some).map_or(0, |last| last as u32 + 1);
    let (sealed, limit) = (layout.chunk_start(sealed_chunks), layout.chunk_start(files.footers.len() as u32));
    let scan = scan(disk, layout, &files.footers, &mut |_| {})?;
    Ok(Survey { epochs: scan.facts.epochs, sealed, limit, mark: files.mark })
}

/// Overwrites with zeros whatever is not zero from `from` to the end of the last chunk, and makes that durable: a stale
/// record can then never be taken for a new one. Reads the rest of every chunk, so it is for the start. Gives the number
/// of bytes that it wrote.
///
/// # Errors
/// [`RecoveryError::Io`]; calling it again is safe.
pub fn erase_tail(disk: &dyn Disk, layout: ChunkLayout, from: LogPosition) -> Result<u64, RecoveryError> {
    let last = disk.list().map_err(failed(FileName::Chunk(0), "listed"))?.last().map(|file| file.name);
    let Some(FileName::Chunk(last)) = last else {
        return Ok(0);
    };
    let to = layout.chunk_start(last + 1);
    erase(disk, layout, from, to, &find_stale(disk, layout, from, to)?)
}

/// Zeros over `stale`, then a flush of every chunk from `from` to `to`, also of those where nothing was written: an earlier
/// attempt may have been stopped before its flush.
fn erase(
    disk: &dyn Disk,
    layout: ChunkLayout,
    from: LogPosition,
    to: LogPosition,
    stale: &[Range<LogPosition>],
) -> Result<u64, RecoveryError> {
    let zeros = if stale.is_empty() { Vec::new() } else { piece_room(layout, from, to) };
    let mut erased = 0;
    for range in stale {
        each_piece(layout, range.start, range.end, &mut |name, offset, length, _| {
            erased += length as u64;
            disk.write_at(name, offset, &zeros[..length]).map_err(failed(name, "written"))
        })?;
    }
    if from < to {
        for chunk in layout.chunk_of(from)..layout.chunk_of(to) {
            let name = FileName::Chunk(chunk);
            disk.sync(name).map_err(failed(name, "flushed"))?;
        }
    }
    Ok(erased)
}

/// The pieces from `from` to `to` that are not all zeros, those next to each other as one.
fn find_stale(
    disk: &dyn Disk,
    layout: ChunkLayout,
    from: LogPosition,
    to: LogPosition,
) -> Result<Vec<Range<LogPosition>>, RecoveryError> {
    let mut buffer = piece_room(layout, from, to);
    let mut stale: Vec<Range<LogPosition>> = Vec::new();
    let mut at = from;
    each_piece(layout, from, to, &mut |name, offset, length, _| {
        read_around(disk, name, offset, &mut buffer[..length]).map_err(failed(name, "read"))?;
        disk.expect_read(name, offset + length as u64, READ_AHEAD_BYTES);
        let end = at.plus(length as u64);
        if !is_zero(&buffer[..length]) {
            match stale.last_mut().filter(|last| last.end == at) {
                Some(last) => last.end = end,
                None => stale.push(at..end),
            }
        }
        at = end;
        Ok(())
    })?;
    Ok(stale)
}

/// True when a record of this log lies in one of the ranges: in its place, with a good checksum, not of an older term.
fn has_records(
    disk: &dyn Disk,
    layout: ChunkLayout,
    ranges: &[Range<LogPosition>],
    term: Term,
) -> Result<bool, RecoveryError> {
    for range in ranges {
        let found = find_record(disk, layout, range.clone(), term);
        if found.map_err(failed(FileName::Chunk(layout.chunk_of(range.start)), "read"))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads the log from `from` to `to`, writes it in place and flushes it.
fn write_again(disk: &dyn Disk, layout: ChunkLayout, from: LogPosition, to: LogPosition) -> Result<(), RecoveryError> {
    let mut buffer = piece_room(layout, from, to);
    each_piece(layout, from, to, &mut |name, offset, length, ends_chunk| {
        disk.read_at(name, offset, &mut buffer[..length]).map_err(failed(name, "read"))?;
        disk.write_at(name, offset, &buffer[..length]).map_err(failed(name, "written"))?;
        if ends_chunk { disk.sync(name).map_err(failed(name, "flushed")) } else { Ok(()) }
    })
}

/// Zeros, as many as the largest piece between `from` and `to` has.
fn piece_room(layout: ChunkLayout, from: LogPosition, to: LogPosition) -> Vec<u8> {
    vec![0; layout.chunk_size.min(to.0.saturating_sub(from.0)).min(READ_BYTES as u64) as usize]
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

/// The first and the last page of every chunk file.
struct Pages {
    /// One for each chunk; `None` where it is not sealed, or its footer is damaged.
    footers: Vec<Option<ChunkFooter>>,
    /// Chunks whose header page has to be mended.
    headers: Vec<u32>,
    /// The newest mark may have been in a page that is damaged.
    may_lack_mark: bool,
    mark: Option<DurableMark>,
}

/// Checks names, lengths and header pages, and reads the footers.
fn check_chunks(disk: &dyn Disk, layout: ChunkLayout) -> Result<Pages, RecoveryError> {
    let mut files = disk.list().map_err(failed(FileName::Chunk(0), "listed"))?;
    files.sort_unstable_by_key(|file| file.name);
    let last = files.last().map_or(FileName::State, |file| file.name);
    let mut pages = Pages { footers: Vec::new(), headers: Vec::new(), may_lack_mark: false, mark: None };
    for file in files {
        let FileName::Chunk(chunk) = file.name else {
            continue;
        };
        let count = pages.footers.len() as u32;
        if let (true, FileName::Chunk(last)) = (chunk != count, last) {
            return Err(RecoveryError::MissingChunk { missing: count, last });
        }
        let mut page = read_header(disk, layout, file, chunk)?;
        let footer = read_footer(disk, layout, chunk)?;
        let is_whole = check_header(disk, layout, chunk, &page, footer.is_some())?;
        let wrong_marks = WrongMark::all(&page);
        if !is_whole || !wrong_marks.is_empty() {
            pages.headers.push(chunk);
        }
        let is_mark_lost = wrong_marks.iter().any(|wrong| wrong.right.is_none());
        pages.may_lack_mark |= footer.is_none() && (!is_whole || is_mark_lost);
        wrong_marks.iter().for_each(|wrong| put_mark(&mut page, wrong));
        // A mark has a checksum of its own: it is believed also in a page whose identity is damaged. Not to believe it
        // would take damage below it for a torn tail.
        let found = DurableMark::read_newest(&page);
        pages.mark = [pages.mark, found].into_iter().flatten().max_by_key(|mark: &DurableMark| mark.sequence);
        pages.footers.push(footer);
    }
    Ok(pages)
}

fn put_mark(page: &mut [u8], wrong: &WrongMark) {
    let right = wrong.bytes();
    page[wrong.offset..wrong.offset + right.len()].copy_from_slice(&right);
}

/// The header page of a file that may be a chunk of this log.
fn read_header(disk: &dyn Disk, layout: ChunkLayout, file: FileInfo, chunk: u32) -> Result<Vec<u8>, RecoveryError> {
    let mut page = vec![0; CHUNK_HEADER_BYTES.min(file.length) as usize];
    disk.read_at(file.name, 0, &mut page).map_err(failed(file.name, "read"))?;
    // A chunk of another version has another length, too: its version is the better answer.
    if let Some(found) = ChunkHeader::version(&page).filter(|&found| found != FORMAT_VERSION) {
        return Err(RecoveryError::ChunkVersion { chunk, found, reads: FORMAT_VERSION });
    }
    if file.length != layout.file_length() {
        return Err(RecoveryError::ChunkLength { chunk, found: file.length, expected: layout.file_length() });
    }
    Ok(page)
}

/// True when the page is that of `chunk`; false when it is damaged and can be made anew, because the rest of the file shows
/// that it is that chunk: a footer, the first record, or where there is none so much of the identity that it can be no other.
fn check_header(
    disk: &dyn Disk,
    layout: ChunkLayout,
    chunk: u32,
    page: &[u8],
    is_sealed: bool,
) -> Result<bool, RecoveryError> {
    let header = ChunkHeader { chunk, layout };
    let Err(reason) = header.check(page) else { return Ok(true) };
    // A page that checks out by itself is no damage: it is another file.
    let is_damage = ChunkHeader::version(page).is_none();
    let is_this = is_damage && (is_sealed || begins_as(disk, layout, chunk, header.resembles(page))?);
    if is_this { Ok(false) } else { Err(RecoveryError::ChunkHeader { chunk, reason }) }
}

/// True when the chunk's first record checks out, or there is none and `may_be_empty`.
fn begins_as(disk: &dyn Disk, layout: ChunkLayout, chunk: u32, may_be_empty: bool) -> Result<bool, RecoveryError> {
    let (name, start) = (FileName::Chunk(chunk), layout.chunk_start(chunk));
    if check_record(disk, layout, start).map_err(failed(name, "read"))?.is_some() {
        return Ok(true);
    }
    let mut head = [0; RECORD_HEADER_BYTES];
    disk.read_at(name, layout.file_offset(start), &mut head).map_err(failed(name, "read"))?;
    Ok(may_be_empty && is_zero(&head))
}

/// Makes the header page what it must be. A mark that cannot be told any more is erased: it counted as none.
fn mend_header(disk: &dyn Disk, layout: ChunkLayout, chunk: u32) -> Result<(), RecoveryError> {
    let name = FileName::Chunk(chunk);
    let mut page = vec![0; CHUNK_HEADER_BYTES as usize];
    disk.read_at(name, 0, &mut page).map_err(failed(name, "read"))?;
    let mut parts = (ChunkHeader { chunk, layout }).wrong_parts(&page);
    parts.extend(WrongMark::all(&page).iter().map(|wrong| (wrong.offset, wrong.bytes().to_vec())));
    for (at, bytes) in parts {
        disk.write_at(name, at as u64, &bytes).map_err(failed(name, "written"))?;
    }
    disk.sync(name).map_err(failed(name, "flushed"))?;
    tracing::error!(
        chunk,
        "the header page of {name} was damaged; the rest of the file shows what belongs there, so the page is made \
        anew. A disk that loses one page may lose others: check it"
    );
    Ok(())
}

/// A footer that does not check out counts as none: the chunk is then read, and sealed again while the node runs.
fn read_footer(disk: &dyn Disk, layout: ChunkLayout, chunk: u32) -> Result<Option<ChunkFooter>, RecoveryError> {
    let name = FileName::Chunk(chunk);
    let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
    if !disk.is_flushing() {
        // It may have reached the disk before what it tells of.
        return Ok(None);
    }
    read_around(disk, name, layout.footer_offset(), &mut page).map_err(failed(name, "read"))?;
    let footer = ChunkFooter::decode(&page, chunk, layout).unwrap_or_else(|reason| {
        tracing::warn!(chunk, reason, "the footer of {name} is damaged; the chunk is read instead, and sealed again");
        None
    });
    Ok(footer)
}

/// Where a scan of the log came to its end.
struct Scanned {
    facts: LogFacts,
    end: LogPosition,
    /// The end of the last chunk whose footer was believed.
    sealed: LogPosition,
    stop: Option<Stop>,
}

/// Goes over the chunks in order: takes the word of footers, reads where there is none.
fn scan(
    disk: &dyn Disk,
    layout: ChunkLayout,
    footers: &[Option<ChunkFooter>],
    progress: &mut dyn FnMut(ScanProgress),
) -> Result<Scanned, RecoveryError> {
    let limit = layout.chunk_start(footers.len() as u32);
    let mut scanned =
        Scanned { facts: LogFacts::from_start(), end: LogPosition::ZERO, sealed: LogPosition::ZERO, stop: None };
    for (chunk, footer) in (0..).zip(footers) {
        let end = layout.chunk_start(chunk + 1);
        if let Some(footer) = footer.as_ref().filter(|footer| !footer.has_more_epochs) {
            match scanned.facts.join(footer) {
                Ok(()) => {
                    (scanned.end, scanned.sealed) = (end, end);
                    continue;
                }
                Err(reason) => tracing::warn!(chunk, reason, "a chunk's footer does not follow; the chunk is read"),
            }
        }
        let mut report = |position| progress(ScanProgress { position, limit });
        let (end, stop) = walk_chunk(disk, layout, chunk, &mut scanned.facts, &mut report)?;
        (scanned.end, scanned.stop) = (end, stop);
        if scanned.stop.is_some() {
            break;
        }
    }
    Ok(scanned)
}

/// Checks the records of a chunk up to the first that does not check out; where the last good one ends.
fn walk_chunk(
    disk: &dyn Disk,
    layout: ChunkLayout,
    chunk: u32,
    facts: &mut LogFacts,
    report: &mut dyn FnMut(LogPosition),
) -> Result<(LogPosition, Option<Stop>), RecoveryError> {
    let mut walk = ChunkWalk::new(layout, chunk);
    let mut buffer = vec![0; READ_BYTES.min(layout.chunk_size as usize)];
    let (start, end) = (layout.chunk_start(chunk), layout.chunk_start(chunk + 1));
    let mut stop = None;
    each_piece(layout, start, end, &mut |name, offset, length, _| {
        if stop.is_some() {
            return Ok(());
        }
        disk.expect_read(name, offset + length as u64, READ_AHEAD_BYTES);
        // The record across a bad sector does not check out then.
        read_around(disk, name, offset, &mut buffer[..length]).map_err(failed(name, "read"))?;
        stop = walk.push(&buffer[..length], facts);
        report(walk.end());
        Ok(())
    })?;
    Ok((walk.end(), stop))
}

/// The member list whose place is known. Where only a footer told of it, its record is read now.
fn read_membership(
    disk: &dyn Disk,
    layout: ChunkLayout,
    place: Option<(LogPosition, Option<MembershipRecord>)>,
    durable: LogPosition,
) -> Result<Option<(LogPosition, MembershipRecord)>, RecoveryError> {
    let Some((position, list)) = place else { return Ok(None) };
    if let Some(list) = list {
        return Ok(Some((position, list)));
    }
    let (name, room) = (FileName::Chunk(layout.chunk_of(position)), layout.room(position));
    // The last record of a chunk is longer by what is left there, which is less than a header.
    let longest = sealed_length(MembershipRecord::MAX_BYTES) + RECORD_HEADER_BYTES;
    let mut bytes = vec![0; room.min(longest as u64) as usize];
    read_around(disk, name, layout.file_offset(position), &mut bytes).map_err(failed(name, "read"))?;
    let record = RecordView::check(&bytes, position, room)
        .map_err(|error| corrupt(layout, position, durable, format!("the member list: {error}")))?;
    match MembershipRecord::decode(record.body()).filter(|_| record.header.kind == RecordKind::Membership) {
        Some(list) => Ok(Some((position, list))),
        None => Err(corrupt(layout, position, durable, "a member list that cannot be read".to_owned())),
    }
}

fn corrupt(layout: ChunkLayout, position: LogPosition, durable: LogPosition, reason: String) -> RecoveryError {
    let (chunk, offset) = (layout.chunk_of(position), layout.file_offset(position));
    RecoveryError::Corrupt { chunk, position, offset, durable, reason }
}

fn is_zero(bytes: &[u8]) -> bool {
    // In words: the compiler then compares many at a time.
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|&byte| byte == 0)
}

fn failed(name: FileName, attempt: &'static str) -> impl FnOnce(std::io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { name, attempt, source }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
