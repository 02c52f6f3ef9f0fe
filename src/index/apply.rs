//! Taking records from the log into the index.
//!
//! Appends to ordinary streams are gathered and applied in groups, so that what must be fetched from memory is fetched for
//! all of them at the same time; other records are applied one by one, in their place. Other threads are told now and
//! then, after a group.

use std::sync::atomic::Ordering;

use crate::codec::record::{BatchView, Header, RecordKind, RecordView};
use crate::limits::RECORD_STARTS_BYTES;
use crate::types::{EventId, LogPosition, METASTREAM_PREFIX, base_stream};

use super::streams::{GROUP_MAX, Growth, Name, StreamAppend};
use super::{Index, IndexError, IndexFigures, StreamMetadata};

/// Other threads learn how far the log is applied each time that it is about this much: told of each record, they would
/// take the cache lines away too often.
const PUBLISH_BYTES: u64 = 32 << 10;

/// A group of appends that is applied at once has not many more events.
const GROUP_EVENTS: usize = 1024;

/// What the applying thread keeps between records: room, so that a record costs no allocation, and what other threads
/// need not know before the next [`Index::publish`].
#[derive(Debug, Default)]
pub(super) struct Applier {
    /// Of the events that were gathered.
    positions: Vec<u64>,
    ids: Vec<EventId>,
    /// Applied up to here; at most some records more than was published.
    pub(super) reached: LogPosition,
    pub(super) last_event: Option<LogPosition>,
    /// The record start noted last, and those that were not published.
    pub(super) last_start: Option<LogPosition>,
    starts: Vec<u64>,
    pub(super) figures: IndexFigures,
    /// The record applied last, and its checksum.
    pub(super) last_record: Option<(LogPosition, u32)>,
    /// The log up to here was given back.
    pub(super) passed: LogPosition,
}

impl Applier {
    /// One that goes on at this position.
    pub(super) fn from(position: LogPosition) -> Applier {
        Applier { reached: position, passed: position, ..Applier::default() }
    }

    fn note_start(&mut self, position: LogPosition) {
        if self.last_start.is_none_or(|last| position.since(last) >= RECORD_STARTS_BYTES) {
            self.starts.push(position.0);
            self.last_start = Some(position);
        }
    }

    /// A record is applied.
    fn went_past(&mut self, header: &Header) {
        if header.kind.is_visible() {
            self.note_start(header.position);
        }
        self.last_record = Some((header.position, header.crc));
        self.reached = header.end();
    }

    fn grew(&mut self, growth: Growth, events: u64) {
        self.figures.streams += u64::from(growth.is_first);
        self.figures.events += events;
        self.figures.bytes += growth.bytes;
    }
}

/// The record at `position`, where `bytes` begin; `None` when the pass does not go so far.
fn next_record(bytes: &[u8], position: LogPosition, pass: Pass) -> Result<Option<RecordView<'_>>, IndexError> {
    if position >= pass.stop_at || bytes.is_empty() {
        return Ok(None);
    }
    let record = RecordView::check(bytes, position, bytes.len() as u64)
        .map_err(|source| IndexError::Record { position, source })?;
    Ok((record.header.end() <= pass.limit).then_some(record))
}

fn wrong_number(append: &StreamAppend<'_>, expected: i64) -> IndexError {
    let (position, stream) = (append.header.position, append.name.text.into());
    IndexError::EventNumber { position, stream, expected, found: append.first }
}

/// How far to apply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// Committed and in the files: a record across it is not there yet.
    pub(super) limit: LogPosition,
    /// Enough for now: no record from here on.
    pub(super) stop_at: LogPosition,
}

impl Index {
    /// Applies the records in `bytes`, the rest of a chunk from what is applied on, as far as the pass goes.
    pub(super) fn apply_chunk(&self, applier: &mut Applier, bytes: &[u8], pass: Pass) -> Result<(), IndexError> {
        let outcome = self.apply_records(applier, bytes, pass);
        self.publish(applier);
        outcome
    }

    fn apply_records(&self, applier: &mut Applier, mut bytes: &[u8], pass: Pass) -> Result<(), IndexError> {
        let (mut group, mut position) = (Vec::new(), applier.reached);
        let mut publish_at = position.plus(PUBLISH_BYTES);
        loop {
            let next = next_record(bytes, position, pass);
            let gathered = next.as_ref().ok().and_then(|next| self.gather(applier, next.as_ref()?));
            let is_gathered = gathered.is_some();
            group.extend(gathered);
            if !is_gathered || group.len() == GROUP_MAX || applier.positions.len() >= GROUP_EVENTS {
                self.apply_group(applier, &mut group)?;
            }
            let Some(record) = next? else { return Ok(()) };
            if !is_gathered {
                self.apply_record(applier, &record)?;
                applier.went_past(&record.header);
            }
            bytes = &bytes[record.bytes().len()..];
            position = record.header.end();
            if applier.reached >= publish_at {
                self.publish(applier);
                publish_at = applier.reached.plus(PUBLISH_BYTES);
            }
        }
    }

    /// Puts the events of an append aside, to be applied with others; `None` for a record that must be applied alone.
    fn gather<'a>(&self, applier: &mut Applier, record: &RecordView<'a>) -> Option<StreamAppend<'a>> {
        if record.header.kind != RecordKind::Append || record.header.event_count == 0 {
            return None;
        }
        let batch = BatchView::read(record).filter(|batch| base_stream(batch.stream()).is_none())?;
        self.take_events(applier, record, &batch)
    }

    /// `None` when the events cannot be read.
    fn take_events<'a>(
        &self,
        applier: &mut Applier,
        record: &RecordView<'a>,
        batch: &BatchView<'a>,
    ) -> Option<StreamAppend<'a>> {
        let start = applier.positions.len();
        for (prepare_position, id) in batch.entries() {
            applier.positions.push(prepare_position.0);
            applier.ids.push(id);
        }
        let events = start..applier.positions.len();
        if events.len() != usize::from(batch.event_count()) {
            applier.positions.truncate(start);
            applier.ids.truncate(start);
            return None;
        }
        let (name, header) = (Name::new(batch.stream()), record.header);
        Some(StreamAppend { name, header, first: batch.first_event_number(), events })
    }

    /// Applies what was gathered, in order; all of it is forgotten then.
    fn apply_group(&self, applier: &mut Applier, group: &mut Vec<StreamAppend<'_>>) -> Result<(), IndexError> {
        let (positions, ids) = (std::mem::take(&mut applier.positions), std::mem::take(&mut applier.ids));
        let mut outcome = Ok(());
        self.streams().append_all(group, &positions, |append, appended| match appended {
            Ok(growth) => {
                let events = append.events.clone();
                applier.grew(growth, events.len() as u64);
                self.recent.insert(append.name.hash, append.first, &ids[events.clone()], &positions[events]);
                applier.last_event = Some(append.header.position);
                applier.went_past(&append.header);
            }
            Err(expected) => outcome = Err(wrong_number(append, expected)),
        });
        group.clear();
        (applier.positions, applier.ids) = (positions, ids);
        applier.positions.clear();
        applier.ids.clear();
        outcome
    }

    /// Tells the other threads how far the log is applied, after all that they may conclude from that.
    fn publish(&self, applier: &mut Applier) {
        self.recent.settle();
        if !applier.starts.is_empty() {
            self.starts.write().append(&mut applier.starts);
        }
        self.stream_count.store(applier.figures.streams, Ordering::Relaxed);
        self.event_count.store(applier.figures.events, Ordering::Relaxed);
        self.stream_bytes.store(applier.figures.bytes, Ordering::Relaxed);
        if let Some(last) = applier.last_event {
            self.last_event_position.store(last.0, Ordering::Release);
        }
        self.applied.store(applier.reached.0, Ordering::Release);
    }

    fn apply_record(&self, applier: &mut Applier, record: &RecordView<'_>) -> Result<(), IndexError> {
        let position = record.header.position;
        let unreadable = |kind| move || IndexError::Body { position, kind };
        match record.header.kind {
            RecordKind::Padding | RecordKind::Epoch | RecordKind::Membership => {}
            RecordKind::Append => {
                self.apply_append(applier, record)?;
            }
            RecordKind::Delete => {
                let batch = BatchView::read(record).ok_or_else(unreadable("delete"))?;
                let (tombstone, _) = batch.entries().next().ok_or_else(unreadable("delete"))?;
                applier.grew(self.streams().set_tombstone(Name::new(batch.stream()), tombstone.0), 1);
                applier.last_event = Some(position);
            }
            RecordKind::TransactionStart => {
                let batch = BatchView::read(record).ok_or_else(unreadable("transaction start"))?;
                self.transactions.lock().start(position, batch.stream(), batch.first_event_number());
            }
            RecordKind::TransactionWrite => {
                let batch = BatchView::read(record).ok_or_else(unreadable("transaction write"))?;
                self.transactions.lock().write(batch.first_event_number(), position);
            }
        }
        Ok(())
    }

    /// An append that [`Index::gather`] left: to a metadata stream, without events, or not readable.
    fn apply_append(&self, applier: &mut Applier, record: &RecordView<'_>) -> Result<(), IndexError> {
        let unreadable = || IndexError::Body { position: record.header.position, kind: "append" };
        let batch = BatchView::read(record).ok_or_else(unreadable)?;
        if batch.event_count() == 0 {
            return Ok(());
        }
        let append = self.take_events(applier, record, &batch).ok_or_else(unreadable)?;
        self.apply_group(applier, &mut vec![append])?;
        self.apply_metadata(applier, &batch);
        Ok(())
    }

    /// Events of a metadata stream change the stream that they are about.
    fn apply_metadata(&self, applier: &mut Applier, batch: &BatchView<'_>) {
        // Metadata of a metadata stream is fixed, as in v5: a metadata stream of one means nothing.
        let Some(base) = base_stream(batch.stream()).filter(|base| !base.starts_with(METASTREAM_PREFIX)) else {
            return;
        };
        let metadata =
            batch.events().filter_map(|event| StreamMetadata::of_event(event.event_type, event.is_json, event.data));
        if let Some(metadata) = metadata.last() {
            applier.grew(self.streams().set_metadata(Name::new(base), metadata), 0);
        }
    }
}
