//! The index: stream, event number → log position. Kept in memory, derived from the log and rebuilt from it at start.
//!
//! Promises: what [`Index::applied`] covers is visible to every reader that saw that value; a record is applied once,
//! whoever calls how often; the events of one record become visible together. (A stream may show the events of up to 32 KiB
//! of log, or of one longer record, before [`Index::applied`] has moved past them.) Leaves to others: what is committed (the
//! log thread says so), reading the events themselves (edges, with [`LogRead`]), and uncommitted stream heads (the log
//! thread's overlay).
//!
//! Any number of threads read; one at a time applies. Memory: about 8 bytes an event and 100 a stream, and for the newest
//! identifiers up to 21 MB (26 on a leader).
#![forbid(unsafe_code)]

mod apply;
mod error;
mod metadata;
mod recent;
mod slots;
mod streams;
mod transactions;

pub use error::IndexError;
pub use metadata::{Acl, METADATA_EVENT_TYPE, StreamMetadata};
pub use transactions::Transaction;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLock};

use crate::limits::{RECENT_IDS_MAX, RECORD_STARTS_BYTES, TRANSACTION_WRITES_MAX, TRANSACTIONS_MAX};
use crate::storage::{ChunkLayout, LogRead};
use crate::types::{EventId, LogPosition, base_stream};

use apply::{Applier, Pass};
use recent::RecentIds;
use streams::{StreamEntry, Streams};
use transactions::Transactions;

/// The log is told what the index has passed each time that it is this much, so that mappings do not pile up in memory.
const PASSED_BYTES: u64 = 16 << 20;

/// "No event yet".
const NO_POSITION: u64 = u64::MAX;

/// The metadata of every metadata stream: only its last event is readable.
static METASTREAM_METADATA: LazyLock<Arc<StreamMetadata>> =
    LazyLock::new(|| Arc::new(StreamMetadata { max_count: Some(1), ..StreamMetadata::default() }));

static NO_METADATA: LazyLock<Arc<StreamMetadata>> = LazyLock::new(Arc::default);

/// What the log thread must know of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHead {
    /// -1: no event; `i64::MAX`: hard deleted.
    pub last_event_number: i64,
    /// True when its metadata truncates before the highest number.
    pub soft_deleted: bool,
    /// True when metadata was ever written for it.
    pub has_metadata: bool,
}

impl StreamHead {
    /// A stream that was never written to.
    pub const NONE: StreamHead = StreamHead { last_event_number: -1, soft_deleted: false, has_metadata: false };
}

/// What readers must know of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// -1: no event; `i64::MAX`: hard deleted.
    pub last_event_number: i64,
    /// True when the stream has a tombstone.
    pub hard_deleted: bool,
    /// Its metadata; of a metadata stream the fixed one: only the last event counts.
    pub metadata: Arc<StreamMetadata>,
    /// The number of the oldest event in the index.
    pub oldest_event_number: i64,
}

impl StreamInfo {
    /// The first event number that `$tb` and `$maxCount` leave readable (0 when neither is set); `$maxAge` is judged event
    /// by event, with [`StreamMetadata::is_expired`]. May lie beyond the last event.
    #[must_use]
    pub fn first_readable(&self) -> i64 {
        let kept = |count: i64| self.last_event_number.saturating_sub(count).saturating_add(1);
        let by_count = self.metadata.max_count.map_or(0, kept);
        self.metadata.truncate_before.unwrap_or(0).max(by_count).max(self.oldest_event_number)
    }

    /// True when the stream is soft-deleted.
    #[must_use]
    pub fn is_soft_deleted(&self) -> bool {
        self.metadata.is_soft_deleted()
    }
}

/// What came of [`Index::try_apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// There was nothing that could be applied.
    Nothing,
    /// Some was applied; there may be more.
    Advanced,
    /// Another thread is at it.
    Elsewhere,
}

/// Figures for `/stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFigures {
    /// Streams, including those that have metadata only.
    pub streams: u64,
    /// Events, tombstones included.
    pub events: u64,
    /// Memory, about.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    streams: Streams,
    recent: RecentIds,
    transactions: Mutex<Transactions>,
    /// Starts of records that readers see, ascending: each one that begins [`RECORD_STARTS_BYTES`] or more behind the one
    /// noted before it.
    starts: RwLock<Vec<u64>>,
    /// Held by the thread that applies.
    applier: Mutex<Applier>,
    /// Written by the applier, after everything below is visible.
    applied: AtomicU64,
    last_event_position: AtomicU64,
    stream_count: AtomicU64,
    event_count: AtomicU64,
    stream_bytes: AtomicU64,
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl Index {
    /// An empty index, always the same: for tests and simulations.
    #[must_use]
    pub fn new() -> Index {
        Index::with_seed(1)
    }

    /// An empty index. A random seed keeps clients from making the hashes of their events fall together on purpose; nothing
    /// else depends on it.
    #[must_use]
    pub fn with_seed(seed: u64) -> Index {
        Index {
            streams: Streams::new(),
            recent: RecentIds::new(RECENT_IDS_MAX, seed),
            transactions: Mutex::new(Transactions::new(TRANSACTIONS_MAX, TRANSACTION_WRITES_MAX)),
            starts: RwLock::default(),
            applier: Mutex::default(),
            applied: AtomicU64::new(0),
            last_event_position: AtomicU64::new(NO_POSITION),
            stream_count: AtomicU64::new(0),
            event_count: AtomicU64::new(0),
            stream_bytes: AtomicU64::new(0),
        }
    }

    /// Applies the records up to `limit`, which must be committed and in the log's files, and gives the position reached:
    /// `limit`, or more when another thread was further. A record across `limit` is left for the next call. Callers at the
    /// same time wait for each other.
    ///
    /// # Errors
    /// [`IndexError`]; what came before the record that it names stays applied, and it may be tried again.
    pub fn apply_to(
        &self,
        log: &dyn LogRead,
        layout: ChunkLayout,
        limit: LogPosition,
    ) -> Result<LogPosition, IndexError> {
        if self.applied() >= limit {
            return Ok(self.applied());
        }
        let mut applier = self.applier.lock();
        while self.apply_pass(&mut applier, log, layout, Pass { limit, stop_at: limit })? {}
        Ok(self.applied())
    }

    /// Like [`Index::apply_to`], for a thread with other things to do: stops after about `bytes` of the log, at least one
    /// record, and does not wait for another thread that applies.
    ///
    /// # Errors
    /// See [`Index::apply_to`].
    pub fn try_apply(
        &self,
        log: &dyn LogRead,
        layout: ChunkLayout,
        limit: LogPosition,
        bytes: u64,
    ) -> Result<Attempt, IndexError> {
        let Some(mut applier) = self.applier.try_lock() else { return Ok(Attempt::Elsewhere) };
        let stop_at = self.applied().plus(bytes).min(limit);
        let has_advanced = self.apply_pass(&mut applier, log, layout, Pass { limit, stop_at })?;
        Ok(if has_advanced { Attempt::Advanced } else { Attempt::Nothing })
    }

    /// Applies records of one chunk; false when there are none.
    fn apply_pass(
        &self,
        applier: &mut Applier,
        log: &dyn LogRead,
        layout: ChunkLayout,
        pass: Pass,
    ) -> Result<bool, IndexError> {
        let position = self.applied();
        if position >= pass.stop_at {
            return Ok(false);
        }
        let mut outcome = Ok(());
        log.with_chunk(position, &mut |bytes| {
            assert_eq!(bytes.len() as u64, layout.room(position), "the log at {position} is read to its chunk's end");
            outcome = self.apply_chunk(applier, bytes, pass);
        })
        .map_err(|source| IndexError::Read { position, source })?;
        outcome?;
        let applied = self.applied();
        if applied.since(applier.passed) >= PASSED_BYTES {
            log.passed(applier.passed, applied);
            applier.passed = applied;
        }
        Ok(applied > position)
    }

    /// Applied up to here.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        LogPosition(self.applied.load(Ordering::Acquire))
    }

    /// The position of the last record applied that holds events for readers.
    #[must_use]
    pub fn last_event_position(&self) -> Option<LogPosition> {
        let position = self.last_event_position.load(Ordering::Acquire);
        (position != NO_POSITION).then_some(LogPosition(position))
    }

    /// The head of a stream.
    #[must_use]
    pub fn head(&self, stream: &str) -> StreamHead {
        let head = self.streams.look(self.streams.name(stream), |entry| StreamHead {
            last_event_number: entry.last_event_number(),
            soft_deleted: entry.metadata().is_some_and(|metadata| metadata.is_soft_deleted()),
            has_metadata: entry.metadata().is_some(),
        });
        head.unwrap_or(StreamHead::NONE)
    }

    /// What readers must know; `None` when the stream has neither events nor metadata.
    #[must_use]
    pub fn stream(&self, stream: &str) -> Option<StreamInfo> {
        let fixed = if base_stream(stream).is_some() { &METASTREAM_METADATA } else { &NO_METADATA };
        self.streams.look(self.streams.name(stream), |entry| StreamInfo {
            last_event_number: entry.last_event_number(),
            hard_deleted: entry.tombstone().is_some(),
            metadata: Arc::clone(entry.metadata().unwrap_or(fixed)),
            oldest_event_number: entry.oldest_event_number(),
        })
    }

    /// Replaces `out` with the prepare positions of at most `count` events from number `first` on, and gives the number of
    /// the first of them (more than `first` when older events are not in the index). For [`EventNumber::TOMBSTONE`] the
    /// tombstone's.
    ///
    /// [`EventNumber::TOMBSTONE`]: crate::types::EventNumber::TOMBSTONE
    pub fn positions(&self, stream: &str, first: i64, count: usize, out: &mut Vec<LogPosition>) -> i64 {
        out.clear();
        let look = |entry: &StreamEntry| entry.positions(first, count, out);
        self.streams.look(self.streams.name(stream), look).unwrap_or(first)
    }

    /// The event number of a recently committed event. The last [`RECENT_IDS_MAX`] at least are known; unlike in v5 also
    /// after a restart.
    #[must_use]
    pub fn recent(&self, stream: &str, id: EventId) -> Option<i64> {
        let name = self.streams.name(stream);
        self.recent.get(name.hash, id, || self.streams.ordinal(name))
    }

    /// Takes about `events` steps towards answering [`Index::recent`] at once, which otherwise the first who asks must do.
    /// For a node that is about to lead. True when there are more to take.
    pub fn prepare_recent(&self, events: u64) -> bool {
        self.recent.prepare(events)
    }

    /// A transaction by its identifier, committed or not; `None` when there never was one or it was dropped from the
    /// bounded table.
    #[must_use]
    pub fn transaction(&self, id: LogPosition) -> Option<Transaction> {
        self.transactions.lock().get(id)
    }

    /// The stream of a transaction that [`Index::transaction`] knows, without the list of its writes.
    #[must_use]
    pub fn transaction_stream(&self, id: LogPosition) -> Option<Arc<str>> {
        self.transactions.lock().stream(id)
    }

    /// Where to begin to walk over the records so as to meet each one that readers see and that begins at or behind
    /// `position`: the start of such a record at or before it, or of the log.
    #[must_use]
    pub fn record_at_or_before(&self, position: LogPosition) -> LogPosition {
        let starts = self.starts.read();
        let after = starts.partition_point(|&start| start <= position.0);
        LogPosition(after.checked_sub(1).map_or(0, |index| starts[index]))
    }

    /// For a walk that has come to `position`: where to go on. That is `position` itself when a record that readers see may
    /// be near, and otherwise the start of the next one; `None` when none begins there or behind it, as far as the log is
    /// applied. So a walk passes at most [`RECORD_STARTS_BYTES`] and one record of what readers do not see.
    #[must_use]
    pub fn next_visible(&self, position: LogPosition) -> Option<LogPosition> {
        let starts = self.starts.read();
        let after = starts.partition_point(|&start| start <= position.0);
        let is_near = after.checked_sub(1).is_some_and(|index| position.0 - starts[index] < RECORD_STARTS_BYTES);
        if is_near { Some(position) } else { starts.get(after).copied().map(LogPosition) }
    }

    /// Figures for `/stats`.
    #[must_use]
    pub fn figures(&self) -> IndexFigures {
        let starts = (self.starts.read().capacity() * size_of::<u64>()) as u64;
        let recent = self.recent.bytes();
        IndexFigures {
            streams: self.stream_count.load(Ordering::Relaxed),
            events: self.event_count.load(Ordering::Relaxed),
            bytes: self.stream_bytes.load(Ordering::Relaxed) + starts + recent,
        }
    }
}

#[cfg(test)]
mod tests;
