//! Events where they lie in the log: one by its position, or all of a range in order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::codec::record::{BatchView, EventView, RecordError, RecordView};
use crate::index::{Index, NotReady};
use crate::limits::RECORD_STARTS_BYTES;
use crate::storage::{ChunkLayout, DamageReports, FileName, LogRead, ReadError, report_damage};
use crate::types::{EventNumber, LogPosition};

/// The smallest piece of a file that the kernel brings into memory.
const MEMORY_PAGE_BYTES: u64 = 4096;

/// What a read works on. **Invariant:** nothing in it changes the log or the index, and none of it waits.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Where events are.
    pub index: &'a Index,
    /// Their bytes.
    pub log: &'a dyn LogRead,
    /// How the log is cut.
    pub layout: ChunkLayout,
    /// Wall time in 100 ns ticks since 0001-01-01 UTC: what `$maxAge` is measured against.
    pub now: i64,
    /// A page that has taken this long ends with the events that it has, one at least.
    pub page_time: Duration,
    /// What is known of the records that were looked at before.
    pub checks: &'a Checks,
}

/// What the reads of one edge leave behind: records that do not check out are reported, and what is looked at again and
/// again is checked once.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Where damage is reported.
    pub damage: DamageReports,
    /// Other nodes have the log, too, so what is damaged here is repaired soon: clients are told to come again.
    pub is_repaired: bool,
    /// The last record that readers see, from where to where.
    last: Cell<Option<(LogPosition, LogPosition)>>,
    /// Where records begin that were met on the way to others, in pieces of the log that the index does not know now.
    met: RefCell<BTreeSet<u64>>,
}

/// So many record starts are remembered at most, at [`RECORD_STARTS_BYTES`] or more from each other: those of 4 GiB.
const MET_MAX: usize = 64 << 10;

impl Checks {
    /// Nothing looked at yet.
    #[must_use]
    pub fn new(damage: DamageReports, is_repaired: bool) -> Checks {
        Checks { damage, is_repaired, ..Checks::default() }
    }

    fn has_met(&self, position: LogPosition) {
        let mut met = self.met.borrow_mut();
        if met.len() == MET_MAX {
            met.clear();
        }
        met.insert(position.0);
    }

    fn met_at_or_before(&self, position: LogPosition) -> Option<LogPosition> {
        self.met.borrow().range(..=position.0).next_back().copied().map(LogPosition)
    }
}

/// Why the log's bytes could not be read where the index says that an event is. Damage is reported and may be repaired
/// soon (see `Reader::is_passing`); for the others the operator must look: the same read will fail again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The chunk cannot be read.
    #[error("cannot read the log at position {position}: {source}")]
    Read {
        /// Where.
        position: LogPosition,
        /// Why not.
        #[source]
        source: ReadError,
    },
    /// The record does not check out.
    #[error("the log of this node is damaged at position {position}: {source}")]
    Record {
        /// Where.
        position: LogPosition,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// The record is there, the event is not.
    #[error("no event at log position {position}, where the index has one")]
    Event {
        /// Where.
        position: LogPosition,
    },
    /// Where it lies is not known now.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

impl Reader<'_> {
    /// Calls `visit` with the event number `number`, whose entry lies at `position`.
    ///
    /// # Errors
    /// [`FetchError`], and then `visit` was not called.
    pub(super) fn with_event<T>(
        &self,
        position: LogPosition,
        number: i64,
        visit: impl FnOnce(&EventView<'_>) -> T,
    ) -> Result<T, FetchError> {
        // The record begins before the entry, but in the same chunk.
        let start = self.chunk_start(position);
        self.with_bytes(start, |bytes| {
            let event = Chunk { reader: self, start, bytes, record: None }.event(position, number)?;
            Ok(visit(&event))
        })
        .map_err(|error| self.explain(position, error))
    }

    /// True when a read that failed so should be tried again: the damage is reported, and other nodes have what is missing;
    /// or a part of the index is being rebuilt.
    pub(super) fn is_passing(&self, error: &FetchError) -> bool {
        // What cannot be read is known for what it is when it is read again.
        let is_damage =
            matches!(error, FetchError::Record { .. } | FetchError::Read { source: ReadError::Unreadable { .. }, .. });
        self.checks.is_repaired && is_damage || matches!(error, FetchError::NotReady(_))
    }

    /// Why there is no event at `position`, where the index has one: mostly because a record there or before it does not
    /// check out. What says where its record begins is itself a part of that record, so the records are gone through from
    /// one that the index knows.
    #[cold]
    fn explain(&self, position: LogPosition, error: FetchError) -> FetchError {
        let mut at = self.index.record_at_or_before(position);
        while at <= position {
            match self.with_bytes(at, |bytes| self.record_at(bytes, at).map(|(_, end)| end)) {
                Ok(end) => at = end,
                // The record is good, its events are not: the index would not have taken it so.
                Err(FetchError::Event { .. }) => return error,
                Err(found) => return found,
            }
        }
        error
    }

    /// Calls `visit` with the batch of the record at `position`, also when readers do not see it.
    ///
    /// # Errors
    /// [`FetchError`], and then `visit` was not called.
    pub(super) fn with_hidden_batch<T>(
        &self,
        position: LogPosition,
        visit: impl FnOnce(BatchView<'_>) -> T,
    ) -> Result<T, FetchError> {
        self.with_bytes(position, |bytes| {
            let record = self.checked(bytes, position)?;
            Ok(visit(BatchView::read(&record).ok_or(FetchError::Event { position })?))
        })
    }

    /// Calls `visit` with each of the events that `wanted` names by number and by the position of their entry, in that
    /// order, until it says break or fails. The log is asked once for all neighbours that lie in the same chunk, and a record
    /// is looked at once for all its events in a row.
    ///
    /// # Errors
    /// That of `visit`, or a [`FetchError`]: the events before the bad one were visited.
    pub(super) fn with_events<E: From<FetchError>>(
        &self,
        wanted: impl Iterator<Item = (i64, LogPosition)>,
        mut visit: impl FnMut(&EventView<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.with_chunks(
            wanted,
            |&(_, at)| at,
            |chunk, (number, at)| visit(&chunk.event(at, number).map_err(|error| self.explain(at, error))?),
        )
    }

    /// Calls `visit` with the record at each position of `wanted`, in that order, until it says break or fails. The records
    /// are those that [`Reader::walk`] has just given: they are not checked once more. A page of them may be gone since: see
    /// [`Reader::still_readable`].
    ///
    /// # Errors
    /// That of `visit`, or a [`FetchError`]: the records before the bad one were visited.
    pub(super) fn with_batches<E: From<FetchError>>(
        &self,
        wanted: impl Iterator<Item = LogPosition>,
        mut visit: impl FnMut(&BatchView<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.with_chunks(
            wanted,
            |&at| at,
            |chunk, at| {
                let bytes = &chunk.bytes[offset(chunk.start, at)..];
                let record = RecordView::trust(bytes, at, self.layout.room(at))
                    .map_err(|source| FetchError::Record { position: at, source })?;
                visit(&BatchView::read(&record).ok_or(FetchError::Event { position: at })?)
            },
        )
    }

    /// Whether what checked out at `position` when the log had counted so many [unreadable](LogRead::unreadable) pages was
    /// still there now.
    ///
    /// # Errors
    /// [`FetchError::Read`]: perhaps not. Who tries again learns which record cannot be read.
    pub(super) fn still_readable(&self, position: LogPosition, unreadable: u64) -> Result<(), FetchError> {
        if self.log.unreadable() == unreadable {
            return Ok(());
        }
        let name = FileName::Chunk(self.layout.chunk_of(position));
        Err(FetchError::Read { position, source: ReadError::Unreadable { name, position } })
    }

    /// Calls `visit` with each item of `wanted` and the chunk in which it lies, until it says break or fails.
    fn with_chunks<T, E: From<FetchError>>(
        &self,
        wanted: impl Iterator<Item = T>,
        position: impl Fn(&T) -> LogPosition,
        mut visit: impl FnMut(&mut Chunk<'_, '_>, T) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut wanted = wanted.peekable();
        while let Some(first) = wanted.peek() {
            let start = self.chunk_start(position(first));
            let end = start.plus(self.layout.chunk_size);
            let flow = self.with_bytes(start, |bytes| {
                let mut chunk = Chunk { reader: self, start, bytes, record: None };
                while let Some(item) = wanted.next_if(|item| (start..end).contains(&position(item))) {
                    if visit(&mut chunk, item)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok::<_, E>(ControlFlow::Continue(()))
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Calls `visit` with each record that readers can see and with its end, in order: those that begin at `from` (where a
    /// record must begin) or behind it and before `limit`, until it says break. Gives the end of the last record looked at, or
    /// `limit` when there is no further one that readers see. A long piece of log with none of those is passed over.
    ///
    /// # Errors
    /// [`FetchError`]; the records before the bad one were visited.
    pub(super) fn walk(
        &self,
        from: LogPosition,
        limit: LogPosition,
        visit: &mut dyn FnMut(&BatchView<'_>, LogPosition) -> ControlFlow<()>,
    ) -> Result<LogPosition, FetchError> {
        let mut at = from;
        while at < limit {
            let start = at;
            let flow = self.with_bytes(start, |bytes| {
                while at < limit && offset(start, at) < bytes.len() {
                    let (batch, end) = self.record_at(&bytes[offset(start, at)..], at)?;
                    at = end;
                    match batch {
                        Some(batch) if visit(&batch, end).is_break() => {
                            return Ok::<_, FetchError>(ControlFlow::Break(()));
                        }
                        Some(_) => {}
                        None => {
                            at = self.index.next_visible(end).map_or(limit, |next| next.min(limit));
                            if at != end {
                                // Perhaps in another chunk.
                                return Ok(ControlFlow::Continue(()));
                            }
                        }
                    }
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(at)
    }

    /// Where to begin a [walk](Reader::walk) so as to meet the record at `position`, which is not far: where the index is
    /// being rebuilt it says no more than a place in the same chunk, so the rest of the way is gone here, and remembered.
    ///
    /// # Errors
    /// [`FetchError::NotReady`] when the time is over before that; whoever comes again gets further.
    pub(super) fn walk_start(&self, position: LogPosition, clock: &mut PageClock) -> Result<LogPosition, FetchError> {
        let indexed = self.index.record_at_or_before(position);
        if self.index.is_complete() {
            return Ok(indexed);
        }
        let begin = self.checks.met_at_or_before(position).map_or(indexed, |met| met.max(indexed));
        let (mut at, mut near) = (begin, begin);
        while at <= position {
            let start = at;
            self.with_bytes(start, |bytes| {
                while at <= position && offset(start, at) < bytes.len() {
                    if at.since(near) >= RECORD_STARTS_BYTES {
                        near = at;
                        self.checks.has_met(near);
                        if clock.is_over(near) {
                            return Err(FetchError::NotReady(NotReady));
                        }
                    }
                    at = self.checked(&bytes[offset(start, at)..], at)?.header.end();
                }
                Ok(())
            })?;
        }
        Ok(near)
    }

    /// The place on the wire of the last event that readers can see, -1 when there is none. Clients compare it with the
    /// positions of events: it lies behind every event of the last record and before the record after it. (The record's
    /// own position would not do: a client that has read half of the record would take itself for up to date.)
    pub(super) fn last_position(&self) -> Result<i64, FetchError> {
        let Some(position) = self.index.last_event_position() else { return Ok(-1) };
        let end = match self.checks.last.get() {
            // It may be large, and every page asks for it.
            Some((start, end)) if start == position => end,
            _ => self.with_bytes(position, |bytes| Ok::<_, FetchError>(self.record_at(bytes, position)?.1))?,
        };
        self.checks.last.set(Some((position, end)));
        Ok(end.as_i64() - 1)
    }

    fn chunk_start(&self, position: LogPosition) -> LogPosition {
        self.layout.chunk_start(self.layout.chunk_of(position))
    }

    fn with_bytes<T, E: From<FetchError>>(
        &self,
        position: LogPosition,
        visit: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut visit = Some(visit);
        let mut result = None;
        let mut once = |bytes: &[u8]| {
            if let Some(visit) = visit.take() {
                result = Some(visit(bytes));
            }
        };
        let read = self.log.with_chunk(position, &mut once).map_err(|source| FetchError::Read { position, source });
        match result {
            // Of a page that could not be read the record is known.
            Some(Err(error)) => Err(error),
            _ => read.map_err(E::from).and_then(|()| result.expect("the log calls back when it gives no error")),
        }
    }

    /// The record at the start of `bytes`. One that does not check out is reported.
    fn checked<'b>(&self, bytes: &'b [u8], position: LogPosition) -> Result<RecordView<'b>, FetchError> {
        RecordView::check(bytes, position, self.layout.room(position)).map_err(|source| {
            let limit = self.index.applied();
            report_damage(&self.checks.damage, self.log, self.layout, position, limit, &source);
            FetchError::Record { position, source }
        })
    }

    /// The record at the start of `bytes` and its end; the batch is `None` for records that readers do not see.
    fn record_at<'b>(
        &self,
        bytes: &'b [u8],
        position: LogPosition,
    ) -> Result<(Option<BatchView<'b>>, LogPosition), FetchError> {
        batch_of(&self.checked(bytes, position)?)
    }
}

/// A record's batch and its end; the batch is `None` for records that readers do not see.
fn batch_of<'b>(record: &RecordView<'b>) -> Result<(Option<BatchView<'b>>, LogPosition), FetchError> {
    let (position, end) = (record.header.position, record.header.end());
    if !record.header.kind.is_visible() {
        return Ok((None, end));
    }
    let batch = BatchView::read(record).ok_or(FetchError::Event { position })?;
    Ok((Some(batch), end))
}

/// A chunk from its first byte on, and the record in it that was looked at last.
struct Chunk<'r, 'b> {
    reader: &'r Reader<'r>,
    start: LogPosition,
    bytes: &'b [u8],
    /// With its end.
    record: Option<(BatchView<'b>, LogPosition)>,
}

impl<'b> Chunk<'_, 'b> {
    /// The event number `number`, whose entry lies at `position` in this chunk.
    #[inline]
    fn event(&mut self, position: LogPosition, number: i64) -> Result<EventView<'b>, FetchError> {
        let missing = || FetchError::Event { position };
        let batch = match self.record {
            Some((batch, end)) if position > batch.record_position() && position < end => batch,
            _ => {
                let entry = self.bytes.get(offset(self.start, position)..).ok_or_else(missing)?;
                let at = BatchView::record_of(entry, position).filter(|&at| at >= self.start).ok_or_else(missing)?;
                // Not reported: where the record begins is only known to be true when it checks out.
                let record = RecordView::check(&self.bytes[offset(self.start, at)..], at, self.reader.layout.room(at))
                    .map_err(|source| FetchError::Record { position: at, source })?;
                let (batch, end) = batch_of(&record)?;
                let batch = batch.ok_or(FetchError::Event { position: at })?;
                self.record = Some((batch, end));
                batch
            }
        };
        batch.event_at(position, EventNumber(number)).ok_or_else(missing)
    }
}

/// The time of a page. What may take time is a piece of the log that is not in memory, so the clock is looked at only when
/// the reading has come to another page of memory, or back from an event that a link leads to.
#[derive(Debug)]
pub(super) struct PageClock {
    since: Instant,
    time: Duration,
    seen: u64,
}

impl PageClock {
    pub(super) fn start(reader: &Reader<'_>) -> PageClock {
        PageClock { since: Instant::now(), time: reader.page_time, seen: u64::MAX }
    }

    /// The reading went somewhere else for an event: the clock is looked at next time.
    #[inline]
    pub(super) fn went_elsewhere(&mut self) {
        self.seen = u64::MAX;
    }

    /// True when the time was over when the reading came to `position`.
    #[inline]
    pub(super) fn is_over(&mut self, position: LogPosition) -> bool {
        let page = position.0 / MEMORY_PAGE_BYTES;
        page != std::mem::replace(&mut self.seen, page) && self.since.elapsed() >= self.time
    }
}

/// Distance in bytes; positions of one chunk only.
fn offset(start: LogPosition, position: LogPosition) -> usize {
    usize::try_from(position.since(start)).expect("a chunk fits the address space")
}

#[cfg(test)]
#[path = "damage_tests.rs"]
mod tests;
