//! Taking records from the log into the index.

use std::sync::atomic::Ordering;

use crate::codec::record::{BatchView, RecordKind, RecordView};
use crate::limits::RECORD_STARTS_BYTES;
use crate::types::{EventId, LogPosition, METASTREAM_PREFIX, base_stream};

use super::streams::Growth;
use super::{Index, IndexError, IndexFigures, StreamMetadata};

/// Other threads learn how far the log is applied each time that it is about this much: told of each record, they would
/// take the cache lines away too often.
const PUBLISH_BYTES: u64 = 32 << 10;

/// What the applying thread keeps between records: room, so that a record costs no allocation, and what other threads
/// need not know before the next [`Index::publish`].
#[derive(Debug, Default)]
pub(super) struct Applier {
    positions: Vec<u64>,
    ids: Vec<EventId>,
    /// Applied up to here; at most some records more than was published.
    reached: LogPosition,
    last_event: Option<LogPosition>,
    /// The record start noted last, and those that were not published.
    last_start: Option<LogPosition>,
    starts: Vec<u64>,
    figures: IndexFigures,
    /// The log up to here was given back.
    pub(super) passed: LogPosition,
}

impl Applier {
    fn note_start(&mut self, position: LogPosition) {
        if self.last_start.is_none_or(|last| position.since(last) >= RECORD_STARTS_BYTES) {
            self.starts.push(position.0);
            self.last_start = Some(position);
        }
    }

    fn grew(&mut self, growth: Growth, events: u64) {
        self.figures.streams += u64::from(growth.is_new);
        self.figures.events += events;
        self.figures.bytes += growth.bytes;
    }
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
        let mut publish_at = applier.reached.plus(PUBLISH_BYTES);
        while applier.reached < pass.stop_at && !bytes.is_empty() {
            let position = applier.reached;
            // The checksum was checked when the record was appended, and by recovery when the node started.
            let record = RecordView::trust(bytes, position, bytes.len() as u64)
                .map_err(|source| IndexError::Record { position, source })?;
            if record.header.end() > pass.limit {
                return Ok(());
            }
            self.apply_record(applier, &record)?;
            if record.header.kind.is_visible() {
                applier.note_start(position);
            }
            bytes = &bytes[record.bytes().len()..];
            applier.reached = record.header.end();
            if applier.reached >= publish_at {
                self.publish(applier);
                publish_at = applier.reached.plus(PUBLISH_BYTES);
            }
        }
        Ok(())
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
                let batch = BatchView::read(record).ok_or_else(unreadable("append"))?;
                self.apply_append(applier, &batch)?;
            }
            RecordKind::Delete => {
                let batch = BatchView::read(record).ok_or_else(unreadable("delete"))?;
                let (tombstone, _) = batch.entries().next().ok_or_else(unreadable("delete"))?;
                let name = self.streams.name(batch.stream());
                applier.grew(self.streams.set_tombstone(name, tombstone.0), 1);
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

    fn apply_append(&self, applier: &mut Applier, batch: &BatchView<'_>) -> Result<(), IndexError> {
        let (position, stream, first) = (batch.record_position(), batch.stream(), batch.first_event_number());
        if batch.event_count() == 0 {
            return Ok(());
        }
        applier.positions.clear();
        applier.ids.clear();
        for (prepare_position, id) in batch.entries() {
            applier.positions.push(prepare_position.0);
            applier.ids.push(id);
        }
        if applier.positions.len() != usize::from(batch.event_count()) {
            return Err(IndexError::Body { position, kind: "append" });
        }
        let name = self.streams.name(stream);
        let growth = self
            .streams
            .append(name, first, &applier.positions)
            .map_err(|expected| IndexError::EventNumber { position, stream: stream.into(), expected, found: first })?;
        applier.grew(growth, applier.positions.len() as u64);
        self.apply_metadata(applier, batch);
        self.recent.insert(name.hash, growth.ordinal, first, &applier.ids);
        applier.last_event = Some(position);
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
            applier.grew(self.streams.set_metadata(self.streams.name(base), metadata), 0);
        }
    }
}
