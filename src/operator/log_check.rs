//! Checks the log record by record, as it is read, copied or received: place, checksum, order of terms and epochs, and
//! what the kinds of records promise of their bodies.
//!
//! A record that cannot be one is a [`Break`]: nothing behind it can be believed until a place is found where records
//! go on. What contradicts the rest of the log, in a record that checks out, is a complaint, and the walk goes on.

use crate::codec::record::{
    BatchView, EpochBody, Header, MembershipBody, MembershipRecord, RecordError, RecordKind, RecordView,
};
use crate::storage::{ChunkFooter, ChunkLayout};
use crate::types::{Epoch, Guid, LogPosition, Term};

use super::stream_numbers::StreamNumbers;

/// Complaints kept until somebody takes them; a log with more is not worth more words.
const COMPLAINTS_MAX: usize = 1000;

/// Bytes that do not go on with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// Where the record should begin.
    pub(super) position: LogPosition,
    /// Why it is none.
    pub(super) reason: String,
    /// Nothing but zeros where its header would be.
    pub(super) is_empty: bool,
}

/// What a chunk holds, for its footer and for a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChunkSummary {
    /// CRC-32C of the log bytes that were taken.
    pub(super) crc: u32,
    /// Records, padding included.
    pub(super) records: u64,
    pub(super) events: u64,
    pub(super) first_term: Term,
    pub(super) last_term: Term,
    /// Epochs that begin in it; one whose padding only is here has a zero identifier.
    pub(super) epochs: Vec<Epoch>,
    pub(super) membership: Option<LogPosition>,
}

impl ChunkSummary {
    /// The footer that seals the chunk.
    pub(super) fn footer(&self, chunk: u32, layout: ChunkLayout) -> ChunkFooter {
        ChunkFooter {
            chunk,
            layout,
            crc: self.crc,
            records: self.records,
            events: self.events,
            first_term: self.first_term,
            last_term: self.last_term,
            epochs: self.epochs.clone(),
            has_more_epochs: false,
            membership: self.membership,
        }
    }
}

/// A walk along the log.
#[derive(Debug)]
pub(super) struct LogCheck {
    layout: ChunkLayout,
    position: LogPosition,
    term: Term,
    epochs: Vec<Epoch>,
    membership: Option<(LogPosition, MembershipBody)>,
    records: u64,
    events: u64,
    chunk: ChunkSummary,
    /// Which numbers streams go on with, where that is checked.
    streams: Option<StreamNumbers>,
    complaints: Vec<(LogPosition, String)>,
}

impl LogCheck {
    /// A walk from the log's start. `numbers`: event numbers are checked, too, which takes memory for each stream.
    pub(super) fn new(layout: ChunkLayout, numbers: bool) -> LogCheck {
        LogCheck {
            layout,
            position: LogPosition::ZERO,
            term: Term::ZERO,
            epochs: Vec::new(),
            membership: None,
            records: 0,
            events: 0,
            chunk: ChunkSummary::default(),
            streams: numbers.then(StreamNumbers::default),
            complaints: Vec::new(),
        }
    }

    /// Where the next record begins.
    pub(super) fn position(&self) -> LogPosition {
        self.position
    }

    /// Term of the last record.
    pub(super) fn term(&self) -> Term {
        self.term
    }

    pub(super) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    pub(super) fn membership(&self) -> Option<&MembershipBody> {
        self.membership.as_ref().map(|(_, list)| list)
    }

    /// Records and events so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.records, self.events)
    }

    /// Streams seen, where they are looked at.
    pub(super) fn stream_count(&self) -> usize {
        self.streams.as_ref().map_or(0, StreamNumbers::count)
    }

    /// What contradicts the rest of the log since the last call.
    pub(super) fn take_complaints(&mut self) -> Vec<(LogPosition, String)> {
        std::mem::take(&mut self.complaints)
    }

    /// Takes the whole records that `bytes` begins with, which lie at [`LogCheck::position`] and in one chunk. Gives
    /// how many bytes those have, and why the next record is none, when it is not only incomplete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (usize, Option<Break>) {
        let mut used = 0;
        while used < bytes.len() {
            let room = self.layout.room(self.position);
            let taken = RecordView::check(&bytes[used..], self.position, room);
            let record = match taken {
                Ok(record) => record,
                Err(RecordError::Incomplete { .. }) => break,
                Err(error) => return (used, Some(self.broken(error.to_string(), error == RecordError::Empty))),
            };
            if record.header.term < self.term {
                let words = format!("a record of term {} behind one of term {}", record.header.term, self.term);
                return (used, Some(self.broken(words, false)));
            }
            self.take_record(&record);
            used += record.bytes().len();
            if room == record.bytes().len() as u64 {
                // The chunk is full; what follows is not in these bytes.
                break;
            }
        }
        (used, None)
    }

    /// Bytes of the record at the walk's place, when `bytes` has its header.
    pub(super) fn wanted(&self, bytes: &[u8]) -> Option<usize> {
        let header = Header::read(bytes, self.position, self.layout.room(self.position)).ok()?;
        Some(header.length as usize)
    }

    /// What the chunk that was just walked through holds; the next one begins.
    pub(super) fn end_chunk(&mut self) -> ChunkSummary {
        std::mem::take(&mut self.chunk)
    }

    /// Goes on behind damage. Numbers and epochs in between are not known.
    pub(super) fn skip_to(&mut self, position: LogPosition) {
        self.position = position;
        if let Some(streams) = &mut self.streams {
            streams.lose_track();
        }
    }

    fn broken(&self, reason: String, is_empty: bool) -> Break {
        Break { position: self.position, reason, is_empty }
    }

    fn take_record(&mut self, record: &RecordView<'_>) {
        let header = record.header;
        if header.flags != 0 {
            self.complain(header, format!("its flags are {}, but none has a meaning", header.flags));
        }
        match header.kind {
            RecordKind::Padding => self.take_padding(record),
            RecordKind::Epoch => self.take_epoch(record),
            RecordKind::Membership => self.take_membership(record),
            _ => self.take_batch(record),
        }
        if self.chunk.records == 0 {
            self.chunk.first_term = header.term;
        }
        self.chunk.last_term = header.term;
        self.chunk.crc = crc32c::crc32c_append(self.chunk.crc, record.bytes());
        self.chunk.records += 1;
        self.records += 1;
        if header.kind.is_visible() {
            self.chunk.events += u64::from(header.event_count);
            self.events += u64::from(header.event_count);
        }
        self.term = header.term;
        self.position = header.end();
    }

    fn take_padding(&mut self, record: &RecordView<'_>) {
        let header = record.header;
        if record.body().iter().any(|&byte| byte != 0) {
            self.complain(header, "padding that is not all zeros".to_owned());
        }
        if header.term > self.term {
            // The epoch record of this term did not fit the chunk: the epoch begins here all the same.
            self.begin_epoch(Epoch { term: header.term, position: header.position, id: Guid::ZERO });
        }
    }

    fn take_epoch(&mut self, record: &RecordView<'_>) {
        let header = record.header;
        let Some(body) = EpochBody::decode(record.body()) else {
            return self.complain(header, "an epoch record that cannot be read".to_owned());
        };
        let is_begun = self.epochs.last().is_some_and(|last| last.term == header.term && last.id.is_zero());
        let before = self.epochs.iter().rev().nth(usize::from(is_begun)).copied();
        if let Some(before) = before.filter(|before| before.term >= header.term) {
            self.complain(header, format!("epoch {} behind epoch {}", header.term, before.term));
        }
        if body.previous != before.map(|epoch| epoch.position) {
            let shown = |position: Option<LogPosition>| position.map_or("none".to_owned(), |at| at.to_string());
            let (says, found) = (shown(body.previous), shown(before.map(|epoch| epoch.position)));
            self.complain(header, format!("it says that the epoch before begins at {says}, found was {found}"));
        }
        if let Some(last) = self.epochs.last_mut().filter(|_| is_begun) {
            last.id = body.epoch_id;
            match self.chunk.epochs.last_mut().filter(|last| last.term == header.term) {
                Some(last) => last.id = body.epoch_id,
                // It began with the padding at the end of the chunk before.
                None => {
                    let epoch = *self.epochs.last().expect("just changed");
                    self.chunk.epochs.push(epoch);
                }
            }
        } else {
            self.begin_epoch(Epoch { term: header.term, position: header.position, id: body.epoch_id });
        }
    }

    fn begin_epoch(&mut self, epoch: Epoch) {
        self.epochs.push(epoch);
        self.chunk.epochs.push(epoch);
    }

    fn take_membership(&mut self, record: &RecordView<'_>) {
        match MembershipRecord::decode(record.body()) {
            Some(MembershipRecord { list, .. }) if !list.members.is_empty() => {
                self.membership = Some((record.header.position, list));
                self.chunk.membership = Some(record.header.position);
            }
            _ => self.complain(record.header, "a member list that cannot be read".to_owned()),
        }
    }

    fn take_batch(&mut self, record: &RecordView<'_>) {
        let header = record.header;
        let Some(batch) = BatchView::read(record) else {
            return self.complain(header, "its body is not a batch of events".to_owned());
        };
        let found = batch.events().count();
        let wanted = usize::from(header.event_count);
        if found != wanted {
            self.complain(header, format!("it has {found} readable events, its header says {wanted}"));
        }
        let expected = match header.kind {
            RecordKind::Delete if wanted != 1 => Some("a delete has one event"),
            RecordKind::Append if wanted == 0 => Some("an append has at least one event"),
            RecordKind::TransactionStart if wanted != 0 => Some("the start of a transaction has no event"),
            _ => None,
        };
        if let Some(expected) = expected {
            self.complain(header, format!("it has {wanted} events, but {expected}"));
        }
        if header.kind.is_visible()
            && let Some(streams) = &mut self.streams
            && let Err(words) = streams.take(batch.stream(), batch.first_event_number(), header)
        {
            self.complain(header, words);
        }
    }

    fn complain(&mut self, header: Header, words: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push((header.position, words));
        }
    }
}

#[cfg(test)]
#[path = "log_check_tests.rs"]
mod tests;
