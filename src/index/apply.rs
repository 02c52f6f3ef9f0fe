//! Taking records from the log into the index.
//!
//! Appends to ordinary streams are gathered and applied in groups, so that what must be fetched from memory is fetched for
//! all of them at the same time; other records are applied one by one, in their place. Other threads are told now and
//! then, after a group.
//!
//! What the log gives can turn into zeros after it was checked, where the disk cannot read a page a second time; the log
//! says so when the look at it is over. So a piece of it is copied out first, as far as it is needed, and applied only when
//! all of that look was good.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::codec::record::{BatchView, Header, RecordKind, RecordView};
use crate::limits::RECORD_STARTS_BYTES;
use crate::storage::{ChunkLayout, LogRead};
use crate::types::{EventId, LogPosition, METASTREAM_PREFIX, base_stream};

use super::streams::{GROUP_MAX, Growth, Name, StreamAppend};
use super::{Index, IndexError, IndexFigures, StreamMetadata};

/// Other threads learn how far the log is applied each time that it is about this much: told of each record, they would
/// take the cache lines away too often.
const PUBLISH_BYTES: u64 = 32 << 10;

/// A piece of the log that is looked at at once has not many more bytes.
const PIECE_BYTES: u64 = PUBLISH_BYTES;

/// A group of appends that is applied at once has not many more events.
const GROUP_EVENTS: usize = 1024;

/// What the applying thread keeps between records: room, so that a record costs no allocation, and what other threads
/// need not know before the next [`Index::publish`].
#[derive(Debug, Default)]
pub(super) struct Applier {
    /// What was taken out of the log and is not applied yet.
    piece: Piece,
    published: LogPosition,
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

/// A piece of the log, as far as it is needed: appends, and behind them one record that must be applied alone.
#[derive(Debug, Default)]
struct Piece {
    appends: Vec<Gathered>,
    /// Names of their streams.
    names: String,
    /// Of their events.
    positions: Vec<u64>,
    ids: Vec<EventId>,
    /// The whole record, and where it begins.
    single: Option<(LogPosition, Vec<u8>)>,
}

/// A [`StreamAppend`] whose name lies in [`Piece::names`].
#[derive(Debug)]
struct Gathered {
    name: Range<usize>,
    hash: u64,
    header: Header,
    first: i64,
    events: Range<usize>,
}

impl Piece {
    fn clear(&mut self) {
        self.appends.clear();
        self.names.clear();
        self.positions.clear();
        self.ids.clear();
        self.single = None;
    }

    /// Puts the events of an append behind the others; `None` for a record that must be applied alone.
    fn gather(&mut self, record: &RecordView<'_>) -> Option<()> {
        if record.header.kind != RecordKind::Append || record.header.event_count == 0 {
            return None;
        }
        let batch = BatchView::read(record).filter(|batch| base_stream(batch.stream()).is_none())?;
        self.add(record.header, &batch)
    }

    /// `None` when the events cannot be read.
    fn add(&mut self, header: Header, batch: &BatchView<'_>) -> Option<()> {
        let start = self.positions.len();
        for (prepare_position, id) in batch.entries() {
            self.positions.push(prepare_position.0);
            self.ids.push(id);
        }
        let events = start..self.positions.len();
        if events.len() != usize::from(batch.event_count()) {
            self.positions.truncate(start);
            self.ids.truncate(start);
            return None;
        }
        let name = self.names.len()..self.names.len() + batch.stream().len();
        self.names.push_str(batch.stream());
        let hash = Name::new(&self.names[name.clone()]).hash;
        self.appends.push(Gathered { name, hash, header, first: batch.first_event_number(), events });
        Some(())
    }

    /// Takes the records in `bytes`, which begin at `position`, up to a bound, to the end of the pass, or to one that does
    /// not check out.
    fn take(&mut self, mut bytes: &[u8], mut position: LogPosition, pass: Pass) -> Result<(), IndexError> {
        let end = position.plus(PIECE_BYTES);
        while position < end
            && let Some(record) = next_record(bytes, position, pass)?
        {
            if self.gather(&record).is_none() {
                self.single = Some((position, record.bytes().to_vec()));
                break;
            }
            bytes = &bytes[record.bytes().len()..];
            position = record.header.end();
        }
        Ok(())
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
    /// Applies records from what is applied on to the end of the chunk, as far as the pass goes.
    pub(super) fn apply_chunk(
        &self,
        applier: &mut Applier,
        log: &dyn LogRead,
        layout: ChunkLayout,
        pass: Pass,
    ) -> Result<(), IndexError> {
        let chunk_end = applier.reached.plus(layout.room(applier.reached));
        let pass = Pass { stop_at: pass.stop_at.min(chunk_end), ..pass };
        applier.published = applier.reached;
        let mut piece = std::mem::take(&mut applier.piece);
        let mut outcome = Ok(true);
        while matches!(outcome, Ok(true)) && applier.reached < pass.stop_at {
            outcome = self.apply_piece(applier, &mut piece, log, layout, pass);
        }
        applier.piece = piece;
        self.publish(applier);
        outcome.map(|_| ())
    }

    /// Applies the next records; false when there are none.
    fn apply_piece(
        &self,
        applier: &mut Applier,
        piece: &mut Piece,
        log: &dyn LogRead,
        layout: ChunkLayout,
        pass: Pass,
    ) -> Result<bool, IndexError> {
        let position = applier.reached;
        piece.clear();
        let mut taken = Ok(());
        let read = log.with_chunk(position, &mut |bytes| {
            assert_eq!(bytes.len() as u64, layout.room(position), "the log at {position} is read to its chunk's end");
            taken = piece.take(bytes, position, pass);
        });
        if let Err(source) = read {
            // First: of a page that could not be read the record is known, and can be repaired. What comes before it is
            // taken once more.
            taken?;
            return Err(IndexError::Read { position, source });
        }
        self.apply_appends(applier, piece)?;
        self.publish_sometimes(applier);
        if let Some((position, bytes)) = piece.single.take() {
            let record = RecordView::trust(&bytes, position, layout.room(position))
                .map_err(|source| IndexError::Record { position, source })?;
            self.apply_record(applier, piece, &record)?;
            applier.went_past(&record.header);
            self.publish_sometimes(applier);
        }
        taken?;
        Ok(applier.reached > position)
    }

    fn publish_sometimes(&self, applier: &mut Applier) {
        if applier.reached.since(applier.published) >= PUBLISH_BYTES {
            self.publish(applier);
            applier.published = applier.reached;
        }
    }

    /// Applies what was gathered, in groups and in order; all of it is forgotten then. Nobody is told: of a record of a
    /// metadata stream there is more to do.
    fn apply_appends(&self, applier: &mut Applier, piece: &mut Piece) -> Result<(), IndexError> {
        let mut rest = &piece.appends[..];
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut outcome = Ok(());
        while let (Some(first), true) = (rest.first(), outcome.is_ok()) {
            let is_full = |append: &Gathered| append.events.start - first.events.start >= GROUP_EVENTS;
            let count = rest.iter().take(GROUP_MAX).take_while(|append| !is_full(append)).count();
            let (now, later) = rest.split_at(count);
            group.clear();
            group.extend(now.iter().map(|append| StreamAppend {
                name: Name { text: &piece.names[append.name.clone()], hash: append.hash },
                header: append.header,
                first: append.first,
                events: append.events.clone(),
            }));
            outcome = self.apply_group(applier, &group, &piece.positions, &piece.ids);
            rest = later;
        }
        piece.appends.clear();
        piece.names.clear();
        piece.positions.clear();
        piece.ids.clear();
        outcome
    }

    fn apply_group(
        &self,
        applier: &mut Applier,
        group: &[StreamAppend<'_>],
        positions: &[u64],
        ids: &[EventId],
    ) -> Result<(), IndexError> {
        let mut outcome = Ok(());
        self.streams().append_all(group, positions, |append, appended| match appended {
            Ok(growth) => {
                let events = append.events.clone();
                applier.grew(growth, events.len() as u64);
                self.recent.insert(append.name.hash, append.first, &ids[events.clone()], &positions[events]);
                applier.last_event = Some(append.header.position);
                applier.went_past(&append.header);
            }
            Err(expected) => outcome = Err(wrong_number(append, expected)),
        });
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

    fn apply_record(
        &self,
        applier: &mut Applier,
        piece: &mut Piece,
        record: &RecordView<'_>,
    ) -> Result<(), IndexError> {
        let position = record.header.position;
        let unreadable = |kind| move || IndexError::Body { position, kind };
        match record.header.kind {
            RecordKind::Padding | RecordKind::Epoch | RecordKind::Membership => {}
            RecordKind::Append => {
                self.apply_append(applier, piece, record)?;
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

    /// An append that [`Piece::gather`] left: to a metadata stream, without events, or not readable.
    fn apply_append(
        &self,
        applier: &mut Applier,
        piece: &mut Piece,
        record: &RecordView<'_>,
    ) -> Result<(), IndexError> {
        let unreadable = || IndexError::Body { position: record.header.position, kind: "append" };
        let batch = BatchView::read(record).ok_or_else(unreadable)?;
        if batch.event_count() == 0 {
            return Ok(());
        }
        piece.add(record.header, &batch).ok_or_else(unreadable)?;
        self.apply_appends(applier, piece)?;
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
