//! What was committed, as the checkers remember it: the bytes, and the events in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::record::{BatchView, EpochBody, MembershipBody, MembershipRecord, RecordKind, RecordView};
use crate::storage::ChunkLayout;
use crate::types::{Epoch, EventId, Guid, LogPosition, Term};

use super::Checker;
use super::agenda::Moment;

/// What a checker says.
pub(super) type Objection = (Checker, String);

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: Box<str>,
    pub(super) number: i64,
    pub(super) record: LogPosition,
}

/// A stream as the log has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) ids: Vec<EventId>,
    /// Since when each is known to be committed.
    since: Vec<Moment>,
    pub(super) deleted: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reference {
    layout: ChunkLayout,
    bytes: Vec<u8>,
    epochs: Vec<Epoch>,
    /// Where records begin.
    records: Vec<LogPosition>,
    members: Option<MembershipBody>,
    /// How far the log was committed by leaders of which term, in the order seen.
    committed: Vec<(Term, LogPosition)>,
    pub(super) events: BTreeMap<EventId, Place>,
    pub(super) streams: BTreeMap<Box<str>, Stream>,
    /// Events that a client was told are not written.
    pub(super) refused: BTreeSet<EventId>,
    /// What is read now was found to be committed at this moment.
    now: Moment,
}

impl Reference {
    pub(super) fn new(layout: ChunkLayout) -> Reference {
        Reference {
            layout,
            bytes: Vec::new(),
            epochs: Vec::new(),
            records: Vec::new(),
            members: None,
            committed: Vec::new(),
            events: BTreeMap::new(),
            streams: BTreeMap::new(),
            refused: BTreeSet::new(),
            now: 0,
        }
    }

    /// Since when this event of a stream is committed; `i64::MAX` is the tombstone of a deleted one.
    pub(super) fn committed_at(&self, stream: &str, number: i64) -> Option<Moment> {
        let stream = self.streams.get(stream)?;
        let number =
            if number == i64::MAX && stream.deleted { stream.since.len().checked_sub(1)? } else { number as usize };
        stream.since.get(number).copied()
    }

    #[cfg(test)]
    pub(super) fn of_stream(name: &str, since: &[Moment]) -> Reference {
        let mut reference = Reference::new(ChunkLayout { chunk_size: 1 << 20 });
        let ids = vec![EventId(Guid::ZERO); since.len()];
        reference.streams.insert(name.into(), Stream { ids, since: since.to_vec(), deleted: false });
        reference
    }

    pub(super) fn end(&self) -> LogPosition {
        LogPosition(self.bytes.len() as u64)
    }

    pub(super) fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// The last committed member list.
    pub(super) fn members(&self) -> Option<&MembershipBody> {
        self.members.as_ref()
    }

    /// The smallest range of whole records that this one lies in.
    pub(super) fn records_around(&self, from: LogPosition, to: LogPosition) -> (LogPosition, LogPosition) {
        let first = self.records.partition_point(|&record| record <= from).saturating_sub(1);
        let behind = self.records.partition_point(|&record| record < to);
        (self.records[first], self.records.get(behind).copied().unwrap_or(self.end()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A node of `term` has committed `bytes` from `from` on: they must be what is known, or what comes next. Gives
    /// what is new.
    pub(super) fn take(
        &mut self,
        now: Moment,
        term: Term,
        from: LogPosition,
        bytes: &[u8],
    ) -> Result<Option<LogPosition>, Objection> {
        self.now = now;
        let known = self.end().0.saturating_sub(from.0).min(bytes.len() as u64) as usize;
        let start = from.0 as usize;
        if from > self.end() {
            return Err((Checker::SameLog, format!("committed from {from} on, but only {} is known", self.end())));
        }
        if bytes[..known] != self.bytes[start..start + known] {
            let at = (0..known).find(|&at| bytes[at] != self.bytes[start + at]).unwrap_or_default();
            let position = from.0 + at as u64;
            return Err((Checker::SameLog, format!("the byte at {position} differs from what was committed before")));
        }
        if known == bytes.len() {
            return Ok(None);
        }
        let old = self.end();
        self.bytes.extend_from_slice(&bytes[known..]);
        match self.committed.last_mut() {
            Some((last, end)) if *last == term => *end = LogPosition(self.bytes.len() as u64),
            _ => self.committed.push((term, LogPosition(self.bytes.len() as u64))),
        }
        self.read(old)?;
        Ok(Some(old))
    }

    /// What leaders of terms before `term` have committed, and its epochs.
    pub(super) fn before(&self, term: Term) -> (LogPosition, &[Epoch]) {
        let end = self.committed.iter().filter(|(of, _)| *of < term).map(|(_, end)| *end).max().unwrap_or_default();
        (end, &self.epochs[..self.epochs.partition_point(|epoch| epoch.position < end)])
    }

    fn read(&mut self, mut position: LogPosition) -> Result<(), Objection> {
        let bytes = std::mem::take(&mut self.bytes);
        let mut result = Ok(());
        while (position.0 as usize) < bytes.len() && result.is_ok() {
            match RecordView::check(&bytes[position.0 as usize..], position, self.layout.room(position)) {
                Ok(record) => {
                    result = self.read_record(&record);
                    position = record.header.end();
                }
                Err(error) => result = Err((Checker::SameLog, format!("committed at {position}: {error}"))),
            }
        }
        self.bytes = bytes;
        result
    }

    fn read_record(&mut self, record: &RecordView<'_>) -> Result<(), Objection> {
        let (position, term) = (record.header.position, record.header.term);
        self.records.push(position);
        match record.header.kind {
            RecordKind::Membership => {
                self.members = MembershipRecord::decode(record.body()).map(|record| record.list);
                Ok(())
            }
            RecordKind::Epoch => {
                let Some(body) = EpochBody::decode(record.body()) else {
                    return Err((Checker::SameLog, format!("the epoch at {position} cannot be read")));
                };
                match self.epochs.last_mut() {
                    Some(last) if last.term == term => last.id = body.epoch_id,
                    _ => self.epochs.push(Epoch { term, position, id: body.epoch_id }),
                }
                Ok(())
            }
            RecordKind::Padding if self.epochs.last().is_some_and(|last| last.term < term) => {
                self.epochs.push(Epoch { term, position, id: Guid::ZERO });
                Ok(())
            }
            RecordKind::Append | RecordKind::Delete => match BatchView::read(record) {
                Some(batch) => self.read_batch(&batch, record.header.kind),
                None => Err((Checker::SameLog, format!("the batch at {position} cannot be read"))),
            },
            _ => Ok(()),
        }
    }

    fn read_batch(&mut self, batch: &BatchView<'_>, kind: RecordKind) -> Result<(), Objection> {
        let (name, record) = (batch.stream(), batch.record_position());
        let stream = self.streams.entry(name.into()).or_default();
        if stream.deleted {
            return Err((Checker::DenseNumbers, format!("{name} is written at {record} behind its tombstone")));
        }
        if kind == RecordKind::Delete {
            stream.deleted = true;
            stream.since.push(self.now);
            return Ok(());
        }
        let (expected, first) = (stream.ids.len() as i64, batch.first_event_number());
        if first != expected {
            return Err((Checker::DenseNumbers, format!("{name} at {record} goes on with {first}, not {expected}")));
        }
        for event in batch.events() {
            stream.ids.push(event.id);
            stream.since.push(self.now);
            if event.event_type == crate::index::METADATA_EVENT_TYPE {
                continue; // A repeated soft delete is a second one.
            }
            if self.refused.contains(&event.id) {
                return Err((
                    Checker::Refused,
                    format!("an event of {name} that was refused is in the log at {record}"),
                ));
            }
            let place = Place { stream: name.into(), number: event.event_number.0, record };
            if let Some(first) = self.events.insert(event.id, place) {
                return Err((
                    Checker::ExactlyOnce,
                    format!("an event of {name} at {record} is already at {}", first.record),
                ));
            }
        }
        Ok(())
    }
}
