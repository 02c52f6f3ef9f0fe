//! Streams by name: where their events lie and what their metadata says. Sharded, so that readers seldom meet the applier.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use parking_lot::RwLock;

use crate::types::LogPosition;

use super::StreamMetadata;

const SHARD_COUNT: usize = 64;

/// One seed for all: the order of a map never depends on the run.
const HASH_SEED: u64 = 0x72_69_6e_67;

/// "No tombstone": no record begins there.
const NO_TOMBSTONE: u64 = u64::MAX;

/// What is known of one stream.
#[derive(Debug)]
pub(super) struct StreamEntry {
    /// The number of the event at `positions[0]`: 0 unless older events left the log.
    oldest: i64,
    /// Prepare positions; event numbers are consecutive.
    positions: Vec<u64>,
    /// Where the tombstone's entry lies.
    tombstone: u64,
    /// Set by the stream's metadata stream.
    pub(super) metadata: Option<Arc<StreamMetadata>>,
}

impl StreamEntry {
    fn new() -> StreamEntry {
        StreamEntry { oldest: 0, positions: Vec::new(), tombstone: NO_TOMBSTONE, metadata: None }
    }

    /// -1 without an event, `i64::MAX` behind a tombstone.
    pub(super) fn last_event_number(&self) -> i64 {
        if self.tombstone().is_some() { i64::MAX } else { self.next_event_number() - 1 }
    }

    /// The number that the next event gets, tombstone or not.
    fn next_event_number(&self) -> i64 {
        self.oldest + self.positions.len() as i64
    }

    pub(super) fn oldest_event_number(&self) -> i64 {
        self.oldest
    }

    pub(super) fn tombstone(&self) -> Option<LogPosition> {
        (self.tombstone != NO_TOMBSTONE).then_some(LogPosition(self.tombstone))
    }

    /// See [`Index::positions`](super::Index::positions).
    pub(super) fn positions(&self, first: i64, count: usize, out: &mut Vec<LogPosition>) -> i64 {
        if let (i64::MAX, Some(tombstone)) = (first, self.tombstone()) {
            out.extend((count > 0).then_some(tombstone));
            return first;
        }
        let first = first.max(self.oldest);
        let index = usize::try_from(first - self.oldest).unwrap_or(usize::MAX);
        let found = self.positions.get(index..).unwrap_or_default();
        out.extend(found.iter().take(count).map(|&position| LogPosition(position)));
        first
    }

    /// Adds events. Gives the number that was due when `first` is another, and changes nothing then. A stream that is not
    /// known yet may begin anywhere: the older events left the log.
    fn append(&mut self, first: i64, positions: &[u64]) -> Result<(), i64> {
        let due = if self.positions.is_empty() { first.max(0) } else { self.next_event_number() };
        // The highest number is the tombstone's, no event's.
        let fits = first.checked_add(positions.len() as i64).is_some();
        if first != due || !fits {
            return Err(due);
        }
        self.oldest = due - self.positions.len() as i64;
        self.positions.extend_from_slice(positions);
        Ok(())
    }
}

/// Memory that a change took, and whether it made the stream known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    pub(super) is_new: bool,
    pub(super) bytes: u64,
}

type Shard = RwLock<HashMap<Box<str>, StreamEntry, FixedState>>;

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    hasher: FixedState,
    shards: Box<[Shard]>,
}

impl Streams {
    pub(super) fn new() -> Streams {
        let shard = |_| RwLock::new(HashMap::with_hasher(FixedState::with_seed(HASH_SEED)));
        Streams { hasher: FixedState::with_seed(HASH_SEED), shards: (0..SHARD_COUNT).map(shard).collect() }
    }

    /// The hash of a name: picks the shard, and stands for the name where a mistake does no harm.
    pub(super) fn hash(&self, stream: &str) -> u64 {
        self.hasher.hash_one(stream)
    }

    /// Runs `look` on the stream's entry.
    pub(super) fn look<T>(&self, stream: &str, look: impl FnOnce(&StreamEntry) -> T) -> Option<T> {
        self.shard(stream).read().get(stream).map(look)
    }

    /// Adds events, visible all at once.
    ///
    /// # Errors
    /// The number that was due, when it is not `first`; nothing was changed.
    pub(super) fn append(&self, stream: &str, first: i64, positions: &[u64]) -> Result<Growth, i64> {
        self.change(stream, |entry| entry.append(first, positions))
    }

    pub(super) fn set_tombstone(&self, stream: &str, position: u64) -> Growth {
        let Ok(growth) = self.change(stream, |entry| {
            entry.tombstone = position;
            Ok::<(), std::convert::Infallible>(())
        });
        growth
    }

    pub(super) fn set_metadata(&self, stream: &str, metadata: StreamMetadata) -> Growth {
        let Ok(growth) = self.change(stream, |entry| {
            entry.metadata = Some(Arc::new(metadata));
            Ok::<(), std::convert::Infallible>(())
        });
        growth
    }

    fn change<E>(&self, stream: &str, change: impl FnOnce(&mut StreamEntry) -> Result<(), E>) -> Result<Growth, E> {
        let mut shard = self.shard(stream).write();
        if let Some(entry) = shard.get_mut(stream) {
            let before = entry.positions.capacity();
            change(entry)?;
            let grown = entry.positions.capacity() - before;
            return Ok(Growth { is_new: false, bytes: (grown * size_of::<u64>()) as u64 });
        }
        let mut entry = StreamEntry::new();
        change(&mut entry)?;
        let bytes = size_of::<(Box<str>, StreamEntry)>() + stream.len() + entry.positions.capacity() * size_of::<u64>();
        shard.insert(stream.into(), entry);
        Ok(Growth { is_new: true, bytes: bytes as u64 })
    }

    fn shard(&self, stream: &str) -> &Shard {
        // Not the bits that the map inside a shard looks at first (lowest and highest).
        &self.shards[(self.hash(stream) >> 32) as usize % SHARD_COUNT]
    }
}
