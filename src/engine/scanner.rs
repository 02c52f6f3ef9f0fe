//! Finds and checks the records in the leader's byte stream, wherever the buffers happen to cut it.

use crate::codec::record::{EpochBody, Header, MembershipRecord, RecordError, RecordKind};
use crate::limits::RECORD_HEADER_BYTES;
use crate::storage::ChunkLayout;
use crate::types::{Epoch, Guid, LogPosition, Term};

/// Bytes of a body that are kept to be read: an epoch's or a member list's. Others are only checked.
const BODY_KEPT_BYTES: usize = MembershipRecord::MAX_BYTES;

/// Why the leader's bytes cannot be its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// A record does not check out.
    #[error("at log position {position}: {error}")]
    Record {
        /// Where it begins.
        position: LogPosition,
        /// What is wrong.
        error: RecordError,
    },
    /// Terms only grow, and each has one epoch record.
    #[error("record at {position} is of term {found}, after term {last}")]
    Term {
        /// Where the record begins.
        position: LogPosition,
        /// Its term.
        found: Term,
        /// The term before.
        last: Term,
    },
    /// Nothing but the padding that makes it begin the next chunk stands in a term before its epoch; no term is zero.
    #[error("record at {position} is of term {term}, which no epoch has begun")]
    NotBegun {
        /// Where the record begins.
        position: LogPosition,
        /// Its term.
        term: Term,
    },
    /// The body is none, or has no identifier.
    #[error("the epoch record at {position} cannot be read or has no identifier")]
    Epoch {
        /// Where the record begins.
        position: LogPosition,
    },
    /// The body is no member list.
    #[error("the member list at {position} cannot be read")]
    List {
        /// Where the record begins.
        position: LogPosition,
    },
}

/// A record that is not complete yet.
#[derive(Debug)]
struct Open {
    header: Header,
    crc: u32,
    missing: usize,
    body: Vec<u8>,
}

/// What one slice completed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The end of the last complete record.
    pub record_end: LogPosition,
    /// Epochs that began, with the record's end.
    pub epochs: Vec<(Epoch, LogPosition)>,
    /// Member lists, with where their records lie.
    pub lists: Vec<(LogPosition, MembershipRecord)>,
}

/// See the module.
#[derive(Debug)]
pub struct Scanner {
    layout: ChunkLayout,
    /// The next byte's position.
    position: LogPosition,
    record_end: LogPosition,
    last_term: Term,
    /// The last term was begun by padding; its epoch record comes next.
    unnamed: bool,
    head: Vec<u8>,
    open: Option<Open>,
}

impl Scanner {
    /// A scanner for bytes from `start` on, in a log whose newest epoch is `last`.
    #[must_use]
    pub fn new(layout: ChunkLayout, start: LogPosition, last: Option<Epoch>) -> Scanner {
        let head = Vec::with_capacity(RECORD_HEADER_BYTES);
        let last_term = last.map_or(Term::ZERO, |epoch| epoch.term);
        let unnamed = last.is_some_and(|epoch| epoch.id.is_zero());
        Scanner { layout, position: start, record_end: start, last_term, unnamed, head, open: None }
    }

    /// The position of the next byte.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they are no log; the scanner is of no use afterwards.
    pub fn scan(&mut self, mut bytes: &[u8]) -> Result<Scanned, ScanError> {
        let mut scanned = Scanned::default();
        while !bytes.is_empty() {
            let taken = match &mut self.open {
                None => self.take_head(bytes)?,
                Some(open) => open.take(bytes),
            };
            bytes = &bytes[taken..];
            self.position = self.position.plus(taken as u64);
            if self.open.as_ref().is_some_and(|open| open.missing == 0) {
                self.complete(&mut scanned)?;
            }
        }
        scanned.record_end = self.record_end;
        Ok(scanned)
    }

    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, ScanError> {
        let taken = bytes.len().min(RECORD_HEADER_BYTES - self.head.len());
        self.head.extend_from_slice(&bytes[..taken]);
        if self.head.len() == RECORD_HEADER_BYTES {
            let position = self.record_end;
            let header = Header::read(&self.head, position, self.layout.room(position))
                .map_err(|error| ScanError::Record { position, error })?;
            if header.term < self.last_term {
                return Err(ScanError::Term { position, found: header.term, last: self.last_term });
            }
            let crc = crc32c::crc32c(&self.head[8..]);
            let missing = header.length as usize - RECORD_HEADER_BYTES;
            self.open = Some(Open { header, crc, missing, body: Vec::new() });
            self.head.clear();
        }
        Ok(taken)
    }

    /// As recovery has it: what one takes the other must take, too.
    fn check_begun(&self, header: &Header) -> Result<(), ScanError> {
        let Header { position, term, kind, .. } = *header;
        let is_begun = term == self.last_term && !self.unnamed;
        if term == Term::ZERO || !(is_begun || matches!(kind, RecordKind::Epoch | RecordKind::Padding)) {
            return Err(ScanError::NotBegun { position, term });
        }
        Ok(())
    }

    fn complete(&mut self, scanned: &mut Scanned) -> Result<(), ScanError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let Header { position, term, kind, .. } = open.header;
        if open.crc != open.header.crc {
            let error = RecordError::Checksum { computed: open.crc, stored: open.header.crc };
            return Err(ScanError::Record { position, error });
        }
        self.check_begun(&open.header)?;
        self.record_end = open.header.end();
        if kind == RecordKind::Padding && term > self.last_term {
            scanned.epochs.push((Epoch { term, position, id: Guid::ZERO }, self.record_end));
            self.last_term = term;
            self.unnamed = true;
        }
        if kind == RecordKind::Epoch {
            if term == self.last_term && !self.unnamed {
                return Err(ScanError::Term { position, found: term, last: self.last_term });
            }
            let body = EpochBody::decode(&open.body)
                .filter(|body| !body.epoch_id.is_zero())
                .ok_or(ScanError::Epoch { position })?;
            scanned.epochs.push((Epoch { term, position, id: body.epoch_id }, self.record_end));
            self.last_term = term;
            self.unnamed = false;
        }
        if kind == RecordKind::Membership {
            let list = MembershipRecord::decode(&open.body).ok_or(ScanError::List { position })?;
            scanned.lists.push((position, list));
        }
        Ok(())
    }
}

impl Open {
    fn take(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.missing);
        let bytes = &bytes[..taken];
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        if matches!(self.header.kind, RecordKind::Epoch | RecordKind::Membership) {
            let keep = bytes.len().min(BODY_KEPT_BYTES - self.body.len());
            self.body.extend_from_slice(&bytes[..keep]);
        }
        self.missing -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::record::{seal, sealed_length};
    use crate::types::NodeId;

    const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 64 << 10 };

    /// Scans records of these terms and kinds, with the identifier of epochs; how many are good.
    fn good(records: &[(u32, RecordKind, u8)]) -> usize {
        let mut scanner = Scanner::new(LAYOUT, LogPosition::ZERO, None);
        let is_good = |&&(term, kind, id): &&(u32, RecordKind, u8)| {
            let body = EpochBody { epoch_id: Guid([id; 16]), leader: NodeId(Guid([1; 16])), previous: None }.encode();
            let mut bytes = vec![0; sealed_length(body.len())];
            bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
            let (position, term) = (scanner.position(), Term(term));
            seal(
                &mut bytes,
                Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp: 1 },
            );
            scanner.scan(&bytes).is_ok()
        };
        records.iter().take_while(is_good).count()
    }

    #[test]
    fn only_what_a_leader_writes_is_taken() {
        let epoch = |term, id| (term, RecordKind::Epoch, id);
        let append = |term| (term, RecordKind::Append, 0);
        let padding = |term| (term, RecordKind::Padding, 0);
        assert_eq!(good(&[epoch(0, 1)]), 0);
        assert_eq!(good(&[padding(0)]), 0);
        assert_eq!(good(&[append(0)]), 0);
        assert_eq!(good(&[append(1)]), 0);
        assert_eq!(good(&[epoch(1, 0)]), 0);
        assert_eq!(good(&[padding(1), append(1)]), 1);
        assert_eq!(good(&[epoch(1, 1), append(2)]), 1);
        assert_eq!(good(&[epoch(1, 1), epoch(1, 2)]), 1);
        assert_eq!(good(&[epoch(2, 1), epoch(1, 2)]), 1);
        assert_eq!(good(&[epoch(1, 1), append(1), padding(1), append(1), padding(3), epoch(3, 2), append(3)]), 7);
        assert_eq!(good(&[padding(1), padding(2), epoch(2, 1), append(2)]), 4);
    }
}
