//! The index: stream, event number → log position. Derived from the log, and rebuilt from it wherever it is lost.
//!
//! Promises: what [`Index::applied`] covers is visible to every reader that saw that value; a record is applied once,
//! whoever calls how often; the events of one record become visible together. (A stream may show the events of up to 32 KiB
//! of log, or of one longer record, before [`Index::applied`] has moved past them.) What a file of the index says is
//! checked whenever it is read: who needs what is damaged is told [`NotReady`], and never something wrong. Leaves to
//! others: what is committed (the log thread says so), reading the events themselves (edges, with [`LogRead`]), and
//! uncommitted stream heads (the log thread's overlay).
//!
//! The newest part is in memory. An index that was [opened](Index::open) has the rest in tables: immutable files, which
//! its [`Upkeep`] writes, merges, checks, and makes again from the log where they are damaged; a start applies the log
//! from where the tables end. One that was made [with a seed](Index::with_seed) has everything in memory.
//!
//! Any number of threads read; one at a time applies. Memory: about 8 bytes an event and 100 a stream of the newest part,
//! for the newest identifiers up to 21 MB (26 on a leader), and for the tables what [`IndexFigures`] says: at most 64 MiB
//! for filters, and 24 bytes for each 4 KiB of them.
#![forbid(unsafe_code)]

mod apply;
mod entry;
mod error;
mod filter;
mod lookup;
mod manifest;
mod merge;
mod metadata;
mod misfit;
mod open;
mod pages;
mod parts;
mod recent;
mod room;
mod slots;
mod store;
mod streams;
mod table;
mod transactions;
mod upkeep;
mod writer;

pub use error::IndexError;
pub use metadata::{Acl, METADATA_EVENT_TYPE, StreamMetadata};
pub use parts::NotReady;
pub use store::{FileStore, TableFile, TableStore};
pub use transactions::Transaction;
pub use upkeep::{Upkeep, UpkeepBounds, UpkeepLinks};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::limits::{RECENT_IDS_MAX, TRANSACTION_WRITES_MAX, TRANSACTIONS_MAX};
use crate::storage::{ChunkLayout, LogRead};
use crate::types::LogPosition;

use apply::{Applier, Pass};
use parts::Tables;
use recent::RecentIds;
use streams::Streams;
use transactions::Transactions;

/// The log is told what the index has passed each time that it is this much, so that mappings do not pile up in memory.
const PASSED_BYTES: u64 = 16 << 20;

/// "No event yet".
const NO_POSITION: u64 = u64::MAX;

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
    /// The index is behind, and its upkeep takes it on: come back in a while.
    Rebuilding,
}

/// Figures for `/stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFigures {
    /// Streams. Those that have metadata only count as long as they are in memory only.
    pub streams: u64,
    /// Events, tombstones included.
    pub events: u64,
    /// Memory, about.
    pub bytes: u64,
    /// Events of which only memory knows.
    pub memory_events: u64,
    /// Tables.
    pub tables: u64,
    /// Bytes of their files.
    pub table_bytes: u64,
    /// Merges, since the start.
    pub merges: u64,
    /// Tables that were found damaged, since the start.
    pub damaged: u64,
    /// Times that parts did not fit together, and were dropped to be made again, since the start.
    pub misfits: u64,
    /// Pieces of the log that were indexed again, since the start.
    pub rebuilds: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Index {
    /// The streams of the newest part of the log, and those of the part before it, while that is written to a table.
    slots: [Streams; 2],
    /// Which of them is which.
    current: AtomicUsize,
    /// Odd while the parts of the index change places; another number after that.
    generation: AtomicU64,
    /// None: everything is in memory.
    tables: Option<Tables>,
    /// Committed when the index was opened, and far ahead of it: up to here it is not ready.
    behind_to: AtomicU64,
    is_behind: AtomicBool,
    recent: RecentIds,
    transactions: Mutex<Transactions>,
    /// Starts of records that readers see and that no table has, ascending: each one that begins
    /// [`RECORD_STARTS_BYTES`](crate::limits::RECORD_STARTS_BYTES) or more behind the one noted before it.
    starts: RwLock<Vec<u64>>,
    /// Held by the thread that applies.
    applier: Mutex<Applier>,
    /// Written by the applier, after everything below is visible.
    applied: AtomicU64,
    last_event_position: AtomicU64,
    stream_count: AtomicU64,
    event_count: AtomicU64,
    stream_bytes: AtomicU64,
    /// What was applied since the start: before the newest part begins, and in parts that are in tables now.
    older: Counts,
    written: Counts,
}

/// Events and streams.
#[derive(Debug, Default)]
struct Counts {
    events: AtomicU64,
    streams: AtomicU64,
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl Index {
    /// An empty index in memory, always the same: for tests and simulations.
    #[must_use]
    pub fn new() -> Index {
        Index::with_seed(1)
    }

    /// An empty index in memory. A random seed keeps clients from making the hashes of their events fall together on
    /// purpose; nothing else depends on it.
    #[must_use]
    pub fn with_seed(seed: u64) -> Index {
        Index::of(seed, None, LogPosition::ZERO, true)
    }

    /// An index that goes on at `from`. `is_whole`: nothing is known before that.
    fn of(seed: u64, tables: Option<Tables>, from: LogPosition, is_whole: bool) -> Index {
        let applier = Applier::from(from);
        Index {
            slots: [Streams::new(is_whole), Streams::new(is_whole)],
            current: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            tables,
            behind_to: AtomicU64::new(0),
            is_behind: AtomicBool::new(false),
            recent: RecentIds::new(RECENT_IDS_MAX, seed),
            transactions: Mutex::new(Transactions::new(TRANSACTIONS_MAX, TRANSACTION_WRITES_MAX)),
            starts: RwLock::default(),
            applier: Mutex::new(applier),
            applied: AtomicU64::new(from.0),
            last_event_position: AtomicU64::new(NO_POSITION),
            stream_count: AtomicU64::new(0),
            event_count: AtomicU64::new(0),
            stream_bytes: AtomicU64::new(0),
            older: Counts::default(),
            written: Counts::default(),
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
        if self.is_behind() {
            return Ok(Attempt::Rebuilding);
        }
        self.try_apply_of(log, layout, limit, bytes)
    }

    fn try_apply_of(
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
        self.apply_chunk(applier, log, layout, pass)?;
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

    /// Figures for `/stats`.
    #[must_use]
    pub fn figures(&self) -> IndexFigures {
        let starts = (self.starts.read().capacity() * size_of::<u64>()) as u64;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let events = count(&self.event_count).saturating_sub(count(&self.written.events));
        let mut figures = IndexFigures {
            streams: count(&self.stream_count).saturating_sub(count(&self.written.streams)),
            events,
            bytes: count(&self.stream_bytes) + starts + self.recent.bytes(),
            memory_events: events,
            ..IndexFigures::default()
        };
        if let Some(tables) = &self.tables {
            for table in tables.view().tables() {
                figures.streams += table.footer.new_streams;
                figures.events += table.footer.events;
                figures.tables += 1;
                figures.table_bytes += table.file_bytes();
                figures.bytes += table.memory();
            }
            (figures.merges, figures.damaged) = (count(&tables.merges), count(&tables.damaged));
            (figures.misfits, figures.rebuilds) = (count(&tables.misfits), count(&tables.rebuilds));
        }
        figures
    }
}

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
