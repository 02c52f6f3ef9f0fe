//! Streams by name: where their events lie and what their metadata says. Sharded, so that readers seldom meet the applier.
//!
//! They are those of a piece of the log: of all of it in an index that is only in memory, and of its newest part in one
//! that has tables. There an entry learns what the tables know of its stream when it is first asked for that.

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
use super::parts::Facts;

const SHARD_COUNT: usize = 256;

/// Appends that [`Streams::append_all`] takes at once.
pub(super) const GROUP_MAX: usize = 16;

/// One seed for all: the order of a table never depends on the run.
const HASH_SEED: u64 = 0x72_69_6e_67;

/// What is known of one stream. One cache line: that of a stream that was not looked at lately must be fetched.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct StreamEntry {
    name: Box<str>,
    hash: u64,
    /// The number of the event at `positions[0]`, or that the next event gets. With all its bits turned (and so below
    /// zero) while nobody has looked what the older parts of the index know of the stream.
    first: i64,
    /// Prepare positions; event numbers are consecutive.
    positions: Vec<u64>,
    seldom: Option<Box<Seldom>>,
}

/// What few streams have.
#[derive(Debug, Default)]
struct Seldom {
    /// The number of the stream's oldest event: 0 unless older events left the log. Means nothing while nobody has looked
    /// at the older parts.
    oldest: i64,
    /// Where the tombstone's entry lies.
    tombstone: Option<u64>,
    /// Set by the stream's metadata stream.
    metadata: Option<Arc<StreamMetadata>>,
}

const _: () = assert!(size_of::<StreamEntry>() == 64);

/// What a part of the index knows of a stream.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The number of its first event in this part.
    pub(super) first: i64,
    pub(super) count: usize,
    pub(super) tombstone: Option<u64>,
    pub(super) metadata: Option<Arc<StreamMetadata>>,
    /// The number of the stream's oldest event, where the part knows all that older parts know, too; only the positions
    /// of events before `first` it does not.
    pub(super) oldest: Option<i64>,
}

impl StreamEntry {
    fn new(name: &str, hash: u64, is_whole: bool) -> StreamEntry {
        StreamEntry {
            name: name.into(),
            hash,
            first: if is_whole { 0 } else { !0 },
            positions: Vec::new(),
            seldom: None,
        }
    }

    fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// True when everything is known of the stream but positions before [`StreamEntry::first`].
    pub(super) fn is_resolved(&self) -> bool {
        self.first >= 0
    }

    fn first(&self) -> i64 {
        if self.is_resolved() { self.first } else { !self.first }
    }

    fn set_first(&mut self, first: i64) {
        self.first = if self.is_resolved() { first } else { !first };
    }

    /// -1 without an event, `i64::MAX` behind a tombstone. For an entry that is resolved.
    pub(super) fn last_event_number(&self) -> i64 {
        if self.tombstone().is_some() { i64::MAX } else { self.next_event_number() - 1 }
    }

    /// The number that the next event gets, tombstone or not.
    fn next_event_number(&self) -> i64 {
        self.first() + self.positions.len() as i64
    }

    /// For an entry that is resolved.
    pub(super) fn oldest_event_number(&self) -> i64 {
        self.seldom.as_ref().map_or(0, |seldom| seldom.oldest)
    }

    pub(super) fn tombstone(&self) -> Option<LogPosition> {
        self.seldom.as_ref()?.tombstone.map(LogPosition)
    }

    /// `None` when none was ever written. For an entry that is resolved.
    pub(super) fn metadata(&self) -> Option<&Arc<StreamMetadata>> {
        self.seldom.as_ref()?.metadata.as_ref()
    }

    pub(super) fn part(&self) -> Part {
        Part {
            first: self.first(),
            count: self.positions.len(),
            tombstone: self.tombstone().map(|position| position.0),
            metadata: self.seldom.as_ref().and_then(|seldom| seldom.metadata.clone()),
            oldest: self.is_resolved().then(|| self.oldest_event_number()),
        }
    }

    /// The positions here.
    pub(super) fn here(&self) -> &[u64] {
        &self.positions
    }

    /// See [`Index::positions`](super::Index::positions); `None` when older parts must be asked.
    pub(super) fn positions(&self, first: i64, count: usize, out: &mut Vec<LogPosition>) -> Option<i64> {
        if let (i64::MAX, Some(tombstone)) = (first, self.tombstone()) {
            out.extend((count > 0).then_some(tombstone));
            return Some(first);
        }
        let here = self.first();
        let is_whole = self.is_resolved() && here == self.oldest_event_number();
        if first < here && !is_whole || !self.is_resolved() && self.positions.is_empty() {
            return None;
        }
        let first = first.max(here);
        let index = usize::try_from(first - here).unwrap_or(usize::MAX);
        let found = self.positions.get(index..).unwrap_or_default();
        out.extend(found.iter().take(count).map(|&position| LogPosition(position)));
        Some(first)
    }

    /// Adds events. Gives the number that was due when `first` is another, and changes nothing then. A stream that is not
    /// known yet may begin anywhere: the older events left the log, or are in older parts of the index.
    fn append(&mut self, first: i64, positions: &[u64]) -> Result<(), i64> {
        let is_first = self.positions.is_empty() && (!self.is_resolved() || self.first == self.oldest_event_number());
        let due = if is_first { first.max(0) } else { self.next_event_number() };
        // The highest number is the tombstone's, no event's.
        let fits = first.checked_add(positions.len() as i64).is_some();
        if first != due || !fits {
            return Err(due);
        }
        if is_first {
            if self.is_resolved() && due != self.oldest_event_number() {
                self.seldom().oldest = due;
            }
            self.set_first(due);
        }
        self.positions.extend_from_slice(positions);
        Ok(())
    }

    /// Takes in what older parts know; `next` is the number of the next event.
    fn resolve(&mut self, oldest: i64, next: i64, tombstone: Option<u64>, metadata: Option<&Arc<StreamMetadata>>) {
        if self.is_resolved() {
            return;
        }
        self.first = if self.positions.is_empty() { next } else { self.first() };
        if oldest != 0 || tombstone.is_some() || metadata.is_some() {
            let seldom = self.seldom();
            seldom.oldest = oldest;
            seldom.tombstone = seldom.tombstone.or(tombstone);
            seldom.metadata = seldom.metadata.take().or_else(|| metadata.cloned());
        }
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Growth {
    /// Whether the change gave the stream an entry.
    pub(super) is_new: bool,
    /// Whether it made the stream known to the whole index, as far as that can be told without asking older parts.
    pub(super) is_first: bool,
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

impl<'a> Name<'a> {
    /// A name for all functions. Its hash picks the shard, and stands for the name where a mistake does no harm.
    pub(super) fn new(text: &'a str) -> Name<'a> {
        Name { text, hash: FixedState::with_seed(HASH_SEED).hash_one(text) }
    }
}

/// Where an entry lies as long as none is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryPlace {
    pub(super) hash: u64,
    shard: u32,
    bucket: u32,
}

/// All streams, of a piece of the log.
#[derive(Debug)]
pub(super) struct Streams {
    /// There are no older parts: a stream without an entry is not there.
    is_whole: bool,
    shards: Box<[Shard]>,
}

impl Streams {
    pub(super) fn new(is_whole: bool) -> Streams {
        let shards = std::iter::repeat_with(Shard::default).take(SHARD_COUNT).collect();
        Streams { is_whole, shards }
    }

    /// True when there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.read().is_empty())
    }

    /// Takes all entries out. (To free them takes its time, and no reader should wait for it.)
    pub(super) fn take(&self) -> Streams {
        let shards = self.shards.iter().map(|shard| RwLock::new(std::mem::take(&mut *shard.write()))).collect();
        Streams { is_whole: self.is_whole, shards }
    }

    /// Where all entries lie, in order of their hashes and names.
    pub(super) fn places(&self) -> Vec<EntryPlace> {
        let mut places = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let table = shard.read();
            places.reserve(table.len());
            let place = |bucket: usize| {
                let hash = table.get_bucket(bucket)?.hash;
                Some(EntryPlace { hash, shard: number as u32, bucket: bucket as u32 })
            };
            places.extend((0..table.num_buckets()).filter_map(place));
        }
        places.sort_unstable();
        // The same hash: they lie in one shard, and are few.
        for same in places.chunk_by_mut(|a, b| a.hash == b.hash).filter(|same| same.len() > 1) {
            let table = self.shards[same[0].shard as usize].read();
            same.sort_by_key(|place| table.get_bucket(place.bucket as usize).map(|entry| entry.name.clone()));
        }
        places
    }

    /// Runs `look` on the entry at a place.
    pub(super) fn at<T>(&self, place: EntryPlace, look: impl FnOnce(&StreamEntry) -> T) -> Option<T> {
        self.shards[place.shard as usize].read().get_bucket(place.bucket as usize).map(look)
    }

    /// Takes in what older parts know of a stream, unless `may` says no.
    pub(super) fn resolve(&self, name: Name<'_>, facts: &Facts, may: impl FnOnce() -> bool) {
        let mut shard = self.shards[shard_of(name.hash)].write();
        if let Some(entry) = shard.find_mut(name.hash, |entry| *entry.name == *name.text)
            && may()
        {
            entry.resolve(facts.oldest, facts.next, facts.tombstone, facts.metadata.as_ref());
        }
    }

    /// Runs `look` on the stream's entry.
    pub(super) fn look<T>(&self, name: Name<'_>, look: impl FnOnce(&StreamEntry) -> T) -> Option<T> {
        let shard = self.shards[shard_of(name.hash)].read();
        shard.find(name.hash, |entry| *entry.name == *name.text).map(look)
    }

    pub(super) fn set_tombstone(&self, name: Name<'_>, position: u64) -> Growth {
        let Ok(growth) = self.change(name, |entry| {
            entry.seldom().tombstone = Some(position);
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
                None => change_in(table, append.name, self.is_whole, change),
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
        change_in(&mut self.shards[shard_of(name.hash)].write(), name, self.is_whole, change)
    }
}

/// Changes the entry of a name in the table of its shard, where it may not be yet.
fn change_in<E>(
    table: &mut Table,
    name: Name<'_>,
    is_whole: bool,
    change: impl FnOnce(&mut StreamEntry) -> Result<(), E>,
) -> Result<Growth, E> {
    match table.entry(name.hash, |entry| *entry.name == *name.text, |entry| entry.hash) {
        Entry::Occupied(mut found) => change_entry(found.get_mut(), change),
        Entry::Vacant(place) => {
            let mut entry = StreamEntry::new(name.text, name.hash, is_whole);
            change(&mut entry)?;
            let bytes = size_of::<StreamEntry>() + name.text.len() + entry.positions.capacity() * size_of::<u64>();
            let is_first = is_whole || (entry.first() == 0 && !entry.positions.is_empty());
            place.insert(entry);
            Ok(Growth { is_new: true, is_first, bytes: bytes as u64 })
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
    Ok(Growth { is_new: false, is_first: false, bytes: (grown * size_of::<u64>()) as u64 })
}

fn shard_of(hash: u64) -> usize {
    // Not the bits that the table inside a shard looks at first (lowest and highest).
    (hash >> 32) as usize % SHARD_COUNT
}
