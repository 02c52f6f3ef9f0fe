//! Repair: a damaged range of the committed log is written again in place, with bytes that another node gives.
//!
//! Promises: nothing is written that is not a chain of good records from the range's first byte to its last, in their
//! places, of the terms that this node's epochs ask for and not of a higher one than what follows; after success the range
//! is durable and was read back. A failed repair leaves the range damaged, or a part of it repaired; it may be tried again.
//! Leaves to others: where the bytes come from ([`RangeSource`]), that they are the committed ones (the source asks only
//! nodes of this cluster that have committed so far), and when to try again.

use std::io;

use crate::codec::record::{Header, RecordError, RecordView};
use crate::limits::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES};
use crate::types::{Epoch, LogPosition, Term};

use super::damage::{Damage, DamageReports};
use super::disk::{Disk, FileName, read_around};
use super::layout::{ChunkLayout, PAGE_BYTES};
use super::reader::LogRead;
use super::search::{check, find_record};

/// Gives bytes of the committed log from somewhere else: from another node, or from a backup.
pub trait RangeSource {
    /// Whole records from `from` on, where a record begins: one at least, none that goes beyond `to`, and for the rest as
    /// many as the source likes (some MiB). The caller asks again for what is missing.
    ///
    /// # Errors
    /// [`FetchError`].
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError>;

    /// What the last bytes came from, for log lines.
    fn describe(&self) -> String;
}

/// Why a source gave no bytes. All may go away by trying again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is nobody to ask.
    #[error("there is no other node to fetch from: {reason}")]
    Nobody {
        /// Why not, for people.
        reason: String,
    },
    /// It does not answer, or not in a form that can be used.
    #[error("{peer} gave no usable answer: {reason}")]
    Unreachable {
        /// Who was asked.
        peer: String,
        /// What went wrong.
        reason: String,
    },
    /// It has not committed so far, so what it has there need not be what is committed.
    #[error("{peer} has committed up to {committed} only, the range ends at {needed}")]
    Behind {
        /// Who was asked.
        peer: String,
        /// Up to where it has committed.
        committed: LogPosition,
        /// Where the range ends.
        needed: LogPosition,
    },
    /// It says why it gives none: another cluster, too busy, its own bytes are damaged, records begin elsewhere.
    #[error("{peer} refused (status {status}): {words}")]
    Refused {
        /// Who was asked.
        peer: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        words: String,
    },
}

/// Why a range was not repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// No bytes could be had. Try again later.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What came is not what belongs there. Try another source.
    #[error("what {source_name} gave for log position {position} does not fit: {reason}")]
    Unfit {
        /// Where the bytes came from.
        source_name: String,
        /// The first record that does not fit.
        position: LogPosition,
        /// Why not.
        reason: String,
    },
    /// The file cannot be read or written. Look at the disk.
    #[error("{name} cannot be {attempt}: {source}; check the disk")]
    Io {
        /// The file.
        name: FileName,
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was written is not what is read back. Look at the disk.
    #[error(
        "{name} does not keep what is written to it: log position {position} read back: {reason}; replace the disk"
    )]
    NotKept {
        /// The file.
        name: FileName,
        /// The first record that is bad again.
        position: LogPosition,
        /// What is wrong with it.
        reason: String,
    },
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Bytes written.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Where they came from.
    pub source: String,
}

/// Fetches the range of `damage`, checks it, writes it in place, flushes it, reads it back and checks it again. `epochs`
/// are those of this node's log, as far as they are known: none asks for nothing.
///
/// # Errors
/// [`RepairError`]; what was written before is good, and the whole may be tried again.
pub fn repair_range(
    disk: &dyn Disk,
    layout: ChunkLayout,
    epochs: &[Epoch],
    damage: &Damage,
    source: &dyn RangeSource,
) -> Result<Repaired, RepairError> {
    assert_eq!(layout.chunk_of(damage.from), damage.chunk, "damage at {} in its chunk", damage.from);
    assert!(damage.from < damage.to && damage.to.since(damage.from) <= layout.room(damage.from), "{damage}");
    let name = FileName::Chunk(damage.chunk);
    let failed = |attempt| move |source| RepairError::Io { name, attempt, source };
    let next_term = term_behind(disk, layout, damage.to);
    let mut pieces = Vec::new();
    // Whole pages are written, so that the system need not read one that the disk cannot read any more; the records on such
    // a page are all damaged, so that the range has all of it.
    let (mut pending, mut written) = (Vec::new(), damage.from);
    let mut chain = Chain { layout, epochs, position: damage.from, term: Term::ZERO, records: 0 };
    while chain.position < damage.to {
        let from = chain.position;
        let bytes = source.fetch(from, damage.to)?;
        let unfit = |(position, reason)| RepairError::Unfit { source_name: source.describe(), position, reason };
        chain.take(&bytes, damage.to).map_err(unfit)?;
        if let Some((term, _)) = next_term.filter(|&(term, _)| chain.position == damage.to && term < chain.term) {
            let reason = format!("it ends with term {}, but what follows here is of term {term}", chain.term);
            return Err(unfit((damage.to, reason)));
        }
        pending.extend_from_slice(&bytes);
        let end = layout.file_offset(written) + pending.len() as u64;
        let kept = if chain.position == damage.to { 0 } else { (end % PAGE_BYTES).min(pending.len() as u64) };
        let rest = pending.split_off(pending.len() - kept as usize);
        disk.write_at(name, layout.file_offset(written), &pending).map_err(failed("written"))?;
        written = written.plus(pending.len() as u64);
        pending = rest;
        pieces.push((from, bytes.len()));
    }
    disk.sync(name).map_err(failed("flushed"))?;
    let mut again = Chain { position: damage.from, term: Term::ZERO, records: 0, ..chain };
    for (from, length) in pieces {
        let mut bytes = vec![0; length];
        disk.read_cold(name, layout.file_offset(from), &mut bytes).map_err(failed("read"))?;
        again.take(&bytes, damage.to).map_err(|(position, reason)| RepairError::NotKept { name, position, reason })?;
    }
    Ok(Repaired { bytes: damage.to.since(damage.from), records: chain.records, source: source.describe() })
}

/// The term of the record at `position`, when there is one whose head can be read. Only its head: the rest of it does not
/// matter here, and a bad one is other damage.
fn term_behind(disk: &dyn Disk, layout: ChunkLayout, position: LogPosition) -> Option<(Term, LogPosition)> {
    let mut head = [0; RECORD_HEADER_BYTES];
    disk.read_at(FileName::Chunk(layout.chunk_of(position)), layout.file_offset(position), &mut head).ok()?;
    let header = Header::read(&head, position, layout.room(position)).ok()?;
    let mut record = vec![0; header.length as usize];
    disk.read_at(FileName::Chunk(layout.chunk_of(position)), layout.file_offset(position), &mut record).ok()?;
    let record = RecordView::check(&record, position, layout.room(position)).ok()?;
    Some((record.header.term, record.header.end()))
}

/// Records that follow on one another, checked one after the other.
struct Chain<'a> {
    layout: ChunkLayout,
    epochs: &'a [Epoch],
    position: LogPosition,
    term: Term,
    records: u64,
}

impl Chain<'_> {
    /// Takes the next records; `to`: none may go beyond. The error says where and why.
    fn take(&mut self, bytes: &[u8], to: LogPosition) -> Result<(), (LogPosition, String)> {
        if bytes.is_empty() {
            return Err((self.position, "nothing was given".to_owned()));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let position = self.position;
            let room = self.layout.room(position).min(to.0.saturating_sub(position.0));
            let record = RecordView::check(rest, position, room).map_err(|error| (position, error.to_string()))?;
            let term = record.header.term;
            if term < self.term {
                return Err((position, format!("a record of term {term} behind one of term {}", self.term)));
            }
            if let Some(due) = self.term_due(position).filter(|&due| due != term) {
                return Err((position, format!("a record of term {term}, this node's epochs say {due}")));
            }
            (self.term, self.position) = (term, record.header.end());
            self.records += 1;
            rest = &rest[record.bytes().len()..];
        }
        Ok(())
    }

    /// The term of the record at `position` according to the epochs; `None` when they do not say.
    fn term_due(&self, position: LogPosition) -> Option<Term> {
        let after = self.epochs.partition_point(|epoch| epoch.position <= position);
        after.checked_sub(1).map(|index| self.epochs[index].term)
    }
}

/// Looks at the record at `from`, with which `bytes` begin and which end with its chunk or at the end of what is committed:
/// the damage when it does not check out.
#[must_use]
pub fn damage_at(layout: ChunkLayout, bytes: &[u8], from: LogPosition) -> Option<Damage> {
    let error = RecordView::check(bytes, from, layout.room(from)).err()?;
    Some(damaged_range(layout, bytes, from, &error))
}

/// The first damage in a reported range as it is now, read without a mapping: a bad sector is damage, too. `limit`: up to
/// where the log is committed.
///
/// # Errors
/// Those of the disk, bad sectors aside.
pub fn find_damage(
    disk: &dyn Disk,
    layout: ChunkLayout,
    reported: &Damage,
    limit: LogPosition,
) -> io::Result<Option<Damage>> {
    let end = layout.chunk_start(reported.chunk + 1).min(limit);
    let mut at = reported.from;
    while at < reported.to.min(end) {
        if let Some(header) = check(disk, layout, at)? {
            at = header.end();
            continue;
        }
        let mut head = [0; RECORD_HEADER_BYTES];
        read_around(disk, FileName::Chunk(reported.chunk), layout.file_offset(at), &mut head)?;
        // Mostly it is not the length that is damaged.
        let by_length = Header::read(&head, at, layout.room(at).min(end.since(at))).ok().map(|header| header.end());
        let to = match by_length {
            Some(next) if next == end || check(disk, layout, next)?.is_some() => next,
            _ => find_record(disk, layout, at.plus(RECORD_ALIGNMENT as u64)..end, Term::ZERO)?
                .map_or(end, |header| header.position),
        };
        return Ok(Some(Damage { chunk: reported.chunk, from: at, to, reason: reported.reason.clone() }));
    }
    Ok(None)
}

/// How far the damage goes that begins at `from`: to the next record that checks out, or to the end of `bytes`, which begin
/// at `from` and end with its chunk or at the end of what is committed.
///
/// What looks like a record behind damage may be the bytes of an event, put there by somebody who knew their place: then
/// no other node has a record that ends there, and the repairer widens the range.
#[must_use]
pub fn damaged_range(layout: ChunkLayout, bytes: &[u8], from: LogPosition, error: &RecordError) -> Damage {
    assert!(bytes.len() as u64 <= layout.room(from), "{} bytes at {from}", bytes.len());
    let begins = |at: usize| {
        let position = from.plus(at as u64);
        // Cheap, and false nearly always where no record begins.
        let claims = bytes.get(at + 8..at + 16).is_some_and(|place| place == position.0.to_le_bytes());
        claims && RecordView::check(&bytes[at..], position, layout.room(position)).is_ok()
    };
    // Mostly it is not the length that is damaged.
    let by_length = Header::read(bytes, from, layout.room(from)).ok().map(|header| header.length as usize);
    let end = by_length.filter(|&at| at == bytes.len() || begins(at)).unwrap_or_else(|| {
        let mut places = (RECORD_HEADER_BYTES..bytes.len()).step_by(RECORD_ALIGNMENT);
        places.find(|&at| begins(at)).unwrap_or(bytes.len())
    });
    Damage { chunk: layout.chunk_of(from), from, to: from.plus(end as u64), reason: error.to_string() }
}

/// Reports that the record at `from` does not check out, for those who met it on their way and have no time to see how far
/// the damage goes: to the record's end when its length can be believed, otherwise to its chunk's end or to `limit`, up to
/// which the log is committed. The repairer looks closer.
pub fn report_damage(
    reports: &DamageReports,
    log: &dyn LogRead,
    layout: ChunkLayout,
    from: LogPosition,
    limit: LogPosition,
    error: &RecordError,
) {
    let mut length = layout.room(from).min(limit.0.saturating_sub(from.0));
    if length == 0 {
        return;
    }
    // Where the log cannot be read it is not known to be damaged.
    let _ = log.with_chunk(from, &mut |bytes| {
        let header = Header::read(bytes, from, length);
        let end = header.ok().map(|header| header.length as usize).filter(|&end| {
            let next = from.plus(end as u64);
            let is_end = end as u64 == length;
            is_end || bytes.get(end..).is_some_and(|rest| RecordView::check(rest, next, layout.room(next)).is_ok())
        });
        length = end.map_or(length, |end| end as u64);
        let (chunk, to) = (layout.chunk_of(from), from.plus(length));
        reports.report(Damage { chunk, from, to, reason: error.to_string() });
    });
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
