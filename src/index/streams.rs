//! Streams by name: where their events lie and what their metadata says. Sharded, so that readers seldom meet the applier.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::{RwLock, RwLockWriteGuard};

use crate::codec::record::Header;
use crate::types::LogPosition;

use super::StreamMetadata;

const SHARD_COUNT: usize = 256;

/// Appends that [`Streams::append_all`] takes at once.
pub(super) const GROUP_MAX: usize = 16;

/// One seed for all: the order of a table never depends on the run.
const HASH_SEED: u64 = 0x72_69_6e_67;

/// "No tombstone": no record begins there.
const NO_TOMBSTONE: u64 = u64::MAX;

/// What is known of one stream. One cache line: that of a stream that was not looked at lately must be fetched.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct StreamEntry {
    name: Box<str>,
    hash: u64,
    /// Another number for each stream, for good.
    ordinal: u64,
    /// Prepare positions; event numbers are consecutive.
    positions: Vec<u64>,
    seldom: Option<Box<Seldom>>,
}

/// What few streams have.
#[derive(Debug)]
struct Seldom {
    /// The number of the event at `positions[0]`: 0 unless older events left the log.
    oldest: i64,
    /// Where the tombstone's entry lies.
    tombstone: u64,
    /// Set by the stream's metadata stream.
    metadata: Option<Arc<StreamMetadata>>,
}

const _: () = assert!(size_of::<StreamEntry>() == 64);

impl StreamEntry {
    fn new(name: &str, hash: u64, ordinal: u64) -> StreamEntry {
        StreamEntry { name: name.into(), hash, ordinal, positions: Vec::new(), seldom: None }
    }

    fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_with(|| Box::new(Seldom { oldest: 0, tombstone: NO_TOMBSTONE, metadata: None }))
    }

    /// -1 without an event, `i64::MAX` behind a tombstone.
    pub(super) fn last_event_number(&self) -> i64 {
        if self.tombstone().is_some() { i64::MAX } else { self.next_event_number() - 1 }
    }

    /// The number that the next event gets, tombstone or not.
    fn next_event_number(&self) -> i64 {
        self.oldest_event_number() + self.positions.len() as i64
    }

    pub(super) fn oldest_event_number(&self) -> i64 {
        self.seldom.as_ref().map_or(0, |seldom| seldom.oldest)
    }

    pub(super) fn tombstone(&self) -> Option<LogPosition> {
        let tombstone = self.seldom.as_ref()?.tombstone;
        (tombstone != NO_TOMBSTONE).then_some(LogPosition(tombstone))
    }

    /// `None` when none was ever written.
    pub(super) fn metadata(&self) -> Option<&Arc<StreamMetadata>> {
        self.seldom.as_ref()?.metadata.as_ref()
    }

    /// See [`Index::positions`](super::Index::positions).
    pub(super) fn positions(&self, first: i64, count: usize, out: &mut Vec<LogPosition>) -> i64 {
        if let (i64::MAX, Some(tombstone)) = (first, self.tombstone()) {
            out.extend((count > 0).then_some(tombstone));
            return first;
        }
        let oldest = self.oldest_event_number();
        let first = first.max(oldest);
        let index = usize::try_from(first - oldest).unwrap_or(usize::MAX);
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
        if self.positions.is_empty() && due != self.oldest_event_number() {
            self.seldom().oldest = due;
        }
        self.positions.extend_from_slice(positions);
        Ok(())
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    /// The stream's, which no other one has.
    pub(super) ordinal: u64,
    /// Whether the change made the stream known.
    pub(super) is_new: bool,
    /// Memory that it took.
    pub(super) bytes: u64,
}

/// A name and its hash, made once for all that is done with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a> {
    pub(super) text: &'a str,
    pub(super) hash: u64,
}

/// Events for a stream.
#[derive(Clone, Debug)]
pub(super) struct StreamAppend<'a> {
    pub(super) name: Name<'a>,
    /// Of the record.
    pub(super) header: Header,
    /// The number of the first event.
    pub(super) first: i64,
    /// Which of the positions given along are its events'.
    pub(super) events: Range<usize>,
}

type Table = HashTable<StreamEntry>;
type Shard = RwLock<Table>;

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    hasher: FixedState,
    shards: Box<[Shard]>,
}

impl Streams {
    pub(super) fn new() -> Streams {
        let shards = std::iter::repeat_with(Shard::default).take(SHARD_COUNT).collect();
        Streams { hasher: FixedState::with_seed(HASH_SEED), shards }
    }

    /// A name for the other functions. Its hash picks the shard, and stands for the name where a mistake does no harm.
    pub(super) fn name<'a>(&self, text: &'a str) -> Name<'a> {
        Name { text, hash: self.hasher.hash_one(text) }
    }

    /// Runs `look` on the stream's entry.
    pub(super) fn look<T>(&self, name: Name<'_>, look: impl FnOnce(&StreamEntry) -> T) -> Option<T> {
        let shard = self.shards[shard_of(name.hash)].read();
        shard.find(name.hash, |entry| *entry.name == *name.text).map(look)
    }

    /// The number that no other stream has.
    pub(super) fn ordinal(&self, name: Name<'_>) -> Option<u64> {
        self.look(name, |entry| entry.ordinal)
    }

    pub(super) fn set_tombstone(&self, name: Name<'_>, position: u64) -> Growth {
        let Ok(growth) = self.change(name, |entry| {
            entry.seldom().tombstone = position;
            Ok::<(), std::convert::Infallible>(())
        });
        growth
    }

    pub(super) fn set_metadata(&self, name: Name<'_>, metadata: StreamMetadata) -> Growth {
        let Ok(growth) = self.change(name, |entry| {
            entry.seldom().metadata = Some(Arc::new(metadata));
            Ok::<(), std::convert::Infallible>(())
        });
        growth
    }

    /// Adds the events of at most [`GROUP_MAX`] appends, those of each one visible all at once, and tells what became of
    /// each; ends with the first that fails, which changes nothing: then the number is given that was due.
    ///
    /// What is known of a stream must mostly be fetched from far away: here that is under way for all at the same time.
    pub(super) fn append_all(
        &self,
        appends: &[StreamAppend<'_>],
        positions: &[u64],
        mut done: impl FnMut(&StreamAppend<'_>, Result<Growth, i64>),
    ) {
        // Readers hold one lock at a time and wait for nothing meanwhile, so several may be held here in any order.
        let mut guards: [Option<RwLockWriteGuard<'_, Table>>; GROUP_MAX] = [const { None }; GROUP_MAX];
        let mut guard_of = [0; GROUP_MAX];
        for (index, append) in appends.iter().enumerate() {
            let shard = shard_of(append.name.hash);
            let same = appends[..index].iter().position(|earlier| shard_of(earlier.name.hash) == shard);
            guard_of[index] = same.unwrap_or(index);
            if same.is_none() {
                guards[index] = Some(self.shards[shard].write());
            }
        }
        let mut buckets = [None; GROUP_MAX];
        for (index, append) in appends.iter().enumerate() {
            let table = guards[guard_of[index]].as_ref().expect("locked above");
            buckets[index] = table.find_bucket_index(append.name.hash, |entry| entry.hash == append.name.hash);
        }
        for (index, append) in appends.iter().enumerate() {
            let table = guards[guard_of[index]].as_ref().expect("locked above");
            let is_it =
                |&bucket: &usize| table.get_bucket(bucket).is_some_and(|entry| *entry.name == *append.name.text);
            buckets[index] = buckets[index].filter(is_it);
        }
        let mut has_moved = false;
        for (index, append) in appends.iter().enumerate() {
            let table = guards[guard_of[index]].as_mut().expect("locked above");
            let change = |entry: &mut StreamEntry| entry.append(append.first, &positions[append.events.clone()]);
            // A new stream may move the others of its table.
            let outcome = match buckets[index].filter(|_| !has_moved).and_then(|bucket| table.get_bucket_mut(bucket)) {
                Some(entry) => change_entry(entry, change),
                None => change_in(table, append.name, change),
            };
            let (has_failed, is_new) = (outcome.is_err(), outcome.is_ok_and(|growth| growth.is_new));
            has_moved |= is_new;
            done(append, outcome);
            if has_failed {
                return;
            }
        }
    }

    fn change<E>(&self, name: Name<'_>, change: impl FnOnce(&mut StreamEntry) -> Result<(), E>) -> Result<Growth, E> {
        change_in(&mut self.shards[shard_of(name.hash)].write(), name, change)
    }
}

/// Changes the entry of a name in the table of its shard, where it may not be yet.
fn change_in<E>(
    table: &mut Table,
    name: Name<'_>,
    change: impl FnOnce(&mut StreamEntry) -> Result<(), E>,
) -> Result<Growth, E> {
    let ordinal = (table.len() * SHARD_COUNT + shard_of(name.hash)) as u64;
    match table.entry(name.hash, |entry| *entry.name == *name.text, |entry| entry.hash) {
        Entry::Occupied(mut found) => change_entry(found.get_mut(), change),
        Entry::Vacant(place) => {
            let mut entry = StreamEntry::new(name.text, name.hash, ordinal);
            change(&mut entry)?;
            let bytes = size_of::<StreamEntry>() + name.text.len() + entry.positions.capacity() * size_of::<u64>();
            place.insert(entry);
            Ok(Growth { ordinal, is_new: true, bytes: bytes as u64 })
        }
    }
}

fn change_entry<E>(
    entry: &mut StreamEntry,
    change: impl FnOnce(&mut StreamEntry) -> Result<(), E>,
) -> Result<Growth, E> {
    let before = entry.positions.capacity();
    change(entry)?;
    let grown = entry.positions.capacity() - before;
    Ok(Growth { ordinal: entry.ordinal, is_new: false, bytes: (grown * size_of::<u64>()) as u64 })
}

fn shard_of(hash: u64) -> usize {
    // Not the bits that the table inside a shard looks at first (lowest and highest).
    (hash >> 32) as usize % SHARD_COUNT
}
