//! Taking records from the log into the index.

use std::sync::atomic::Ordering;

use crate::codec::record::{BatchView, RecordKind, RecordView};
use crate::limits::RECORD_STARTS_BYTES;
use crate::types::{EventId, EventNumber, LogPosition, METASTREAM_PREFIX, base_stream};

use super::streams::Growth;
use super::{Index, IndexError, StreamMetadata};

/// What the applying thread keeps between records: room, so that a record costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Applier {
    positions: Vec<u64>,
    ids: Vec<EventId>,
    /// The log up to here was given back.
    pub(super) passed: LogPosition,
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
    /// Applies the records in `bytes`, the rest of a chunk from `position` on, as far as the pass goes.
    pub(super) fn apply_chunk(
        &self,
        applier: &mut Applier,
        mut position: LogPosition,
        mut bytes: &[u8],
        pass: Pass,
    ) -> Result<(), IndexError> {
        while position < pass.stop_at && !bytes.is_empty() {
            // The checksum was checked when the record was appended, and by recovery when the node started.
            let record = RecordView::trust(bytes, position, bytes.len() as u64)
                .map_err(|source| IndexError::Record { position, source })?;
            if record.header.end() > pass.limit {
                return Ok(());
            }
            self.apply_record(applier, &record)?;
            if record.header.kind.is_visible() {
                self.note_start(position);
            }
            bytes = &bytes[record.bytes().len()..];
            position = record.header.end();
            self.applied.store(position.0, Ordering::Release);
        }
        Ok(())
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
                let tombstone = batch.events().next().ok_or_else(unreadable("delete"))?;
                self.grew(self.streams.set_tombstone(batch.stream(), tombstone.prepare_position.0), 1);
                self.last_event_position.store(position.0, Ordering::Release);
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
        for event in batch.events() {
            applier.positions.push(event.prepare_position.0);
            applier.ids.push(event.id);
        }
        if applier.positions.len() != usize::from(batch.event_count()) {
            return Err(IndexError::Body { position, kind: "append" });
        }
        let growth = self
            .streams
            .append(stream, first, &applier.positions)
            .map_err(|expected| IndexError::EventNumber { position, stream: stream.into(), expected, found: first })?;
        self.grew(growth, applier.positions.len() as u64);
        self.apply_metadata(batch);
        self.remember(stream, first, &applier.ids);
        self.last_event_position.store(position.0, Ordering::Release);
        Ok(())
    }

    /// Events of a metadata stream change the stream that they are about.
    fn apply_metadata(&self, batch: &BatchView<'_>) {
        // Metadata of a metadata stream is fixed, as in v5: a metadata stream of one means nothing.
        let Some(base) = base_stream(batch.stream()).filter(|base| !base.starts_with(METASTREAM_PREFIX)) else {
            return;
        };
        let metadata =
            batch.events().filter_map(|event| StreamMetadata::of_event(event.event_type, event.is_json, event.data));
        if let Some(metadata) = metadata.last() {
            self.grew(self.streams.set_metadata(base, metadata), 0);
        }
    }

    fn remember(&self, stream: &str, first: i64, ids: &[EventId]) {
        let hash = self.streams.hash(stream);
        let mut recent = self.recent.lock();
        for (number, &id) in (first..EventNumber::TOMBSTONE.0).zip(ids) {
            recent.insert(hash, id, number);
        }
    }

    fn note_start(&self, position: LogPosition) {
        let last = self.starts.read().last().copied();
        if last.is_none_or(|last| position.0 - last >= RECORD_STARTS_BYTES) {
            self.starts.write().push(position.0);
        }
    }

    fn grew(&self, growth: Growth, events: u64) {
        self.stream_count.fetch_add(u64::from(growth.is_new), Ordering::Relaxed);
        self.event_count.fetch_add(events, Ordering::Relaxed);
        self.stream_bytes.fetch_add(growth.bytes, Ordering::Relaxed);
    }
}
