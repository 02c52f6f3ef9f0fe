//! The identifiers of recently committed events: a repeated write that makes no exact claim is known by them.
//!
//! Every node keeps them for each event, but only a leader is asked. So the thread that applies the log writes them one
//! after the other into a ring, and no more; they are listed in a hash table when somebody asks, and from then on as the
//! ring is written, until nobody has asked for long. Who asks does not wait while the table is up to date; before a node
//! leads, its edges bring it there step by step.
//!
//! There are two tables, for two generations of `limit` events: the one that is being written and the one before it. So at
//! least the last `limit` events are known, and at most twice as many. What a table says is checked in the ring.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use foldhash::fast::FixedState;
use parking_lot::Mutex;

use crate::types::{EventId, Guid};

use super::slots::{Blocks, Slots};

/// The tables are kept up to date for so many generations after they were last asked.
const WANTED_GENERATIONS: u64 = 16;

/// "No generation": an empty table.
const NO_GENERATION: u64 = u64::MAX;

/// An event in the ring. Words of their own, because it is overwritten while others may be looking.
#[derive(Debug, Default)]
struct Entry {
    id: [AtomicU64; 2],
    /// The stream, by its hash, and where the event lies: the one makes the hash of the event, the other makes sure.
    stream_hash: AtomicU64,
    position: AtomicU64,
    number: AtomicU64,
}

/// An event as it was read from the ring.
#[derive(Clone, Copy, Debug)]
struct Event {
    id: [u64; 2],
    stream_hash: u64,
    position: u64,
    number: i64,
}

/// An event as a table of the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecentEvent {
    pub(super) id: EventId,
    pub(super) stream_hash: u64,
    pub(super) number: i64,
    /// Where its entry lies.
    pub(super) position: u64,
}

/// Where the events of a generation are listed.
#[derive(Debug)]
struct Table {
    generation: AtomicU64,
    slots: Slots,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RecentIds {
    /// The events of a generation, as a power of two.
    limit_bits: u32,
    hasher: FixedState,
    /// By sequence number: events since the start. Room for two generations.
    ring: Blocks<Entry>,
    /// By parity of the generation.
    tables: [Table; 2],
    /// Events that were begun to be written into the ring: the next one's sequence number.
    begun: AtomicU64,
    /// Those up to here must be found.
    settled: AtomicU64,
    /// Those up to here are listed.
    listed: AtomicU64,
    /// The tables need not be kept up to date behind this.
    wanted_to: AtomicU64,
    /// Held by the thread that lists.
    lister: Mutex<()>,
}

impl RecentIds {
    /// Remembers `limit` events, a power of two. The seed keeps others from making their hashes fall together on purpose.
    pub(super) fn new(limit: usize, seed: u64) -> RecentIds {
        let table = || Table { generation: AtomicU64::new(NO_GENERATION), slots: Slots::new(limit) };
        RecentIds {
            limit_bits: limit.ilog2(),
            hasher: FixedState::with_seed(seed),
            ring: Blocks::new(2 * limit),
            tables: [table(), table()],
            begun: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            wanted_to: AtomicU64::new(0),
            lister: Mutex::new(()),
        }
    }

    /// Remembers events with consecutive numbers of the stream with this hash; they may be found from now on, and must be
    /// after [`RecentIds::settle`]. For one thread at a time.
    pub(super) fn insert(&self, stream_hash: u64, first: i64, ids: &[EventId], positions: &[u64]) {
        let mut sequence = self.begun.load(Ordering::Relaxed);
        // The identifiers first: behind the last of them there may be no number.
        for ((&id, &position), number) in ids.iter().zip(positions).zip(first..) {
            let (entry, id) = (self.ring.make(sequence as usize), words(id));
            sequence += 1;
            self.begun.store(sequence, Ordering::Relaxed);
            // Who sees a word of the new event also sees that the old one is gone.
            fence(Ordering::Release);
            entry.id[0].store(id[0], Ordering::Relaxed);
            entry.id[1].store(id[1], Ordering::Relaxed);
            entry.stream_hash.store(stream_hash, Ordering::Relaxed);
            entry.position.store(position, Ordering::Relaxed);
            entry.number.store(number.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Has the events so far be found. For the thread that inserts.
    pub(super) fn settle(&self) {
        let begun = self.begun.load(Ordering::Relaxed);
        // When another thread is listing this one does not wait: who asks sees what is missing, and lists it.
        if begun <= self.wanted_to.load(Ordering::Relaxed)
            && let Some(_lister) = self.lister.try_lock()
        {
            self.list(begun);
        }
        self.settled.store(begun, Ordering::Release);
    }

    /// Lists about `count` of the events that were not asked for yet, and from now on all that come: whoever asks first
    /// need not do it then. True when there are more.
    pub(super) fn prepare(&self, count: u64) -> bool {
        let settled = self.settled.load(Ordering::Acquire);
        self.want(settled);
        if self.listed.load(Ordering::Acquire) >= settled {
            return false;
        }
        // Where another thread is at it this one does not wait.
        if let Some(_lister) = self.lister.try_lock() {
            let from = self.listed.load(Ordering::Relaxed).max(settled.saturating_sub(1 << self.limit_bits));
            self.list_from(from, settled.min(from + count));
        }
        self.listed.load(Ordering::Acquire) < settled
    }

    /// The number of an event. Streams may have the same hash: `is_it` says whether the event with this number of the stream
    /// in question lies at this position, and is asked only when the identifier is known.
    pub(super) fn get(&self, stream_hash: u64, id: EventId, mut is_it: impl FnMut(i64, u64) -> bool) -> Option<i64> {
        let settled = self.settled.load(Ordering::Acquire);
        self.want(settled);
        if self.listed.load(Ordering::Acquire) < settled {
            let _lister = self.lister.lock();
            self.list(settled);
        }
        let id = words(id);
        let hash = self.hash(stream_hash, id);
        let newest = self.listed.load(Ordering::Acquire).checked_sub(1)? >> self.limit_bits;
        let mut is_it =
            |event: &Event| event.id == id && event.stream_hash == stream_hash && is_it(event.number, event.position);
        let mut find = |generation| {
            let table = self.table(generation);
            let judge = |place| self.read(self.sequence(generation, place)).filter(|event| is_it(event));
            let is_there = table.generation.load(Ordering::Acquire) == generation;
            if is_there { table.slots.find(hash, judge) } else { None }
        };
        find(newest).or_else(|| find(newest.checked_sub(1)?)).map(|event| event.number)
    }

    /// Keeps the tables up to date for some time from now on.
    fn want(&self, settled: u64) {
        let wanted_to = settled + (WANTED_GENERATIONS << self.limit_bits);
        if self.wanted_to.load(Ordering::Relaxed) + (1 << self.limit_bits) <= wanted_to {
            self.wanted_to.store(wanted_to, Ordering::Relaxed);
        }
    }

    /// Lists the events in front of sequence number `to`. For the holder of `lister`.
    fn list(&self, to: u64) {
        self.list_from(self.listed.load(Ordering::Relaxed).max(to.saturating_sub(1 << self.limit_bits)), to);
    }

    fn list_from(&self, from: u64, to: u64) {
        for sequence in from..to {
            let generation = sequence >> self.limit_bits;
            let table = self.table(generation);
            if table.generation.load(Ordering::Relaxed) != generation {
                table.generation.store(NO_GENERATION, Ordering::Relaxed);
                table.slots.clear();
                table.generation.store(generation, Ordering::Release);
            }
            // One that is gone from the ring is too old to be known.
            let Some(event) = self.read(sequence) else { continue };
            let is_same = |place| {
                let older = self.read(self.sequence(generation, place));
                older.is_some_and(|older| older.id == event.id && older.stream_hash == event.stream_hash)
            };
            let place = (sequence & ((1 << self.limit_bits) - 1)) as u32;
            table.slots.insert(self.hash(event.stream_hash, event.id), place, is_same);
        }
        self.listed.fetch_max(to, Ordering::Release);
    }

    /// The event with this sequence number, while it is in the ring.
    fn read(&self, sequence: u64) -> Option<Event> {
        let entry = self.ring.get(sequence as usize)?;
        let event = Event {
            id: [entry.id[0].load(Ordering::Relaxed), entry.id[1].load(Ordering::Relaxed)],
            stream_hash: entry.stream_hash.load(Ordering::Relaxed),
            position: entry.position.load(Ordering::Relaxed),
            number: entry.number.load(Ordering::Relaxed).cast_signed(),
        };
        // Pairs with the one in `insert`: all words are of this event, or the ring has gone past it.
        fence(Ordering::Acquire);
        (self.begun.load(Ordering::Relaxed) <= sequence + (2 << self.limit_bits)).then_some(event)
    }

    /// The sequence number of the next event. For the thread that inserts.
    pub(super) fn next_sequence(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The events from sequence number `from` to `to` that are still in the ring: all of the last generation are.
    pub(super) fn events(&self, from: u64, to: u64) -> Vec<RecentEvent> {
        let from = from.max(to.saturating_sub(1 << self.limit_bits));
        let event = |event: Event| RecentEvent {
            id: id_of(event.id),
            stream_hash: event.stream_hash,
            number: event.number,
            position: event.position,
        };
        (from..to).filter_map(|sequence| self.read(sequence).map(event)).collect()
    }

    /// Remembers events that were kept in tables. For the thread that inserts.
    pub(super) fn restore(&self, events: impl Iterator<Item = RecentEvent>) {
        for event in events {
            self.insert(event.stream_hash, event.number, &[event.id], &[event.position]);
        }
        self.settle();
    }

    fn sequence(&self, generation: u64, place: u32) -> u64 {
        (generation << self.limit_bits) + u64::from(place)
    }

    fn table(&self, generation: u64) -> &Table {
        &self.tables[generation as usize % 2]
    }

    fn hash(&self, stream_hash: u64, id: [u64; 2]) -> u64 {
        self.hasher.hash_one((stream_hash, id[0], id[1]))
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> u64 {
        (self.ring.bytes() + self.tables.iter().map(|table| table.slots.bytes()).sum::<usize>()) as u64
    }
}

/// The words that an identifier consists of.
fn words(EventId(Guid(bytes)): EventId) -> [u64; 2] {
    let whole = u128::from_le_bytes(bytes);
    [whole as u64, (whole >> 64) as u64]
}

fn id_of(words: [u64; 2]) -> EventId {
    EventId(Guid((u128::from(words[0]) | u128::from(words[1]) << 64).to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn id(n: u64) -> EventId {
        let mut bytes = [9; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        EventId(Guid(bytes))
    }

    fn get(recent: &RecentIds, stream: u64, n: u64) -> Option<i64> {
        recent.get(stream, id(n), |_, position| position == stream)
    }

    #[test]
    fn the_last_are_known_and_a_generation_before_them_is_not() {
        let recent = RecentIds::new(4, 1);
        assert_eq!(get(&recent, 7, 0), None);
        for n in 0..40 {
            recent.insert(7, n as i64, &[id(n)], &[7]);
            recent.settle();
            let known: Vec<u64> = (0..50).filter(|&n| get(&recent, 7, n) == Some(n as i64)).collect();
            let from = (n / 4 * 4).saturating_sub(4);
            assert_eq!(known, (from..=n).collect::<Vec<_>>());
            assert_eq!(get(&recent, 8, n), None, "another stream");
            assert_eq!(recent.get(7, id(n), |_, position| position == 8), None, "another stream with the same hash");
        }
    }

    #[test]
    fn the_last_number_of_all_is_remembered() {
        let recent = RecentIds::new(4, 1);
        recent.insert(7, i64::MAX - 2, &[id(0), id(1)], &[7, 7]);
        recent.settle();
        assert_eq!((get(&recent, 7, 0), get(&recent, 7, 1)), (Some(i64::MAX - 2), Some(i64::MAX - 1)));
    }

    /// Whoever asks when: the last ones are known with their newest number, and whatever is known was written.
    #[test]
    fn it_agrees_with_a_list_of_all_events() {
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let limit = 1 << random.u32(2..8);
            let recent = RecentIds::new(limit as usize, seed);
            let (mut all, mut settled) = (Vec::new(), 0);
            let (ids, ask_every) = (random.u64(1..2000), random.usize(1..200));
            for step in 0..600 {
                let (stream, count) = (random.u64(0..4), random.usize(1..12));
                let written: Vec<u64> = (0..count).map(|_| random.u64(0..ids)).collect();
                let first = random.i64(0..1000);
                let of_events: Vec<EventId> = written.iter().copied().map(id).collect();
                recent.insert(stream, first, &of_events, &vec![stream; of_events.len()]);
                all.extend((first..).zip(written).map(|(number, n)| (stream, n, number)));
                if random.bool() {
                    recent.settle();
                    settled = all.len();
                }
                if step % ask_every > 3 {
                    continue;
                }
                let known_from = settled.saturating_sub(limit as usize);
                let newest: BTreeMap<(u64, u64), i64> =
                    all[known_from..settled].iter().map(|&(stream, n, number)| ((stream, n), number)).collect();
                for _ in 0..100 {
                    let (stream, n) = (random.u64(0..4), random.u64(0..ids));
                    let found = recent.get(stream, id(n), |_, position| position == stream);
                    match newest.get(&(stream, n)) {
                        // What the ring overwrote before it was settled may be lost.
                        Some(&number) if all.len() == settled => assert_eq!(found, Some(number), "seed {seed}"),
                        _ => assert!(found.is_none_or(|found| all.contains(&(stream, n, found))), "seed {seed}"),
                    }
                }
            }
        }
    }

    #[test]
    fn tables_are_kept_up_to_date_only_while_they_are_asked() {
        let recent = RecentIds::new(8, 1);
        let listed = || recent.listed.load(Ordering::Relaxed);
        let mut next = 0;
        let mut write = |count: u64| {
            for _ in 0..count {
                recent.insert(7, next as i64, &[id(next)], &[7]);
                recent.settle();
                next += 1;
            }
            next
        };
        let written = write(100);
        assert_eq!((listed(), recent.tables[0].slots.bytes()), (0, 0));
        assert_eq!((get(&recent, 7, 99), get(&recent, 7, 92), get(&recent, 7, 91)), (Some(99), Some(92), None));
        assert_eq!(listed(), written);
        assert_eq!(write(8 * WANTED_GENERATIONS), listed());
        let last = write(500);
        assert!(listed() < last);
        assert_eq!(
            (get(&recent, 7, last - 8), get(&recent, 7, last - 1)),
            (Some(last as i64 - 8), Some(last as i64 - 1))
        );
        assert_eq!(listed(), last);
    }

    #[test]
    fn tables_are_prepared_step_by_step_and_kept_so() {
        let recent = RecentIds::new(64, 1);
        let write = |n: u64| {
            recent.insert(7, n as i64, &[id(n)], &[7]);
            recent.settle();
        };
        (0..1000).for_each(write);
        let mut steps = 1;
        while recent.prepare(10) {
            steps += 1;
            assert!(recent.listed.load(Ordering::Relaxed) < 1000);
        }
        assert_eq!((steps, recent.listed.load(Ordering::Relaxed)), (7, 1000));
        write(1000);
        assert_eq!(recent.listed.load(Ordering::Relaxed), 1001);
        assert!((936..=1000).all(|n| get(&recent, 7, n) == Some(n as i64)));
        // Who asks in the middle does the rest.
        (1001..2000 + 64 * WANTED_GENERATIONS).for_each(write);
        assert!(recent.prepare(10));
        let last = 1999 + 64 * WANTED_GENERATIONS;
        assert!((last - 63..=last).all(|n| get(&recent, 7, n) == Some(n as i64)));
        assert!(!recent.prepare(10));
    }

    /// A thread writes as fast as it can; the others must find all that was settled, with its own number.
    #[test]
    fn what_is_settled_is_found_while_the_ring_turns() {
        const LIMIT: u64 = 1 << 12;
        const EVENTS: u64 = 400_000;
        let (recent, settled) = (RecentIds::new(LIMIT as usize, 1), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for first in (0..EVENTS).step_by(8) {
                    let ids: Vec<EventId> = (first..first + 8).map(id).collect();
                    recent.insert(first % 5, first as i64, &ids, &[first % 5; 8]);
                    recent.settle();
                    settled.store(first + 8, Ordering::Release);
                }
            });
            for seed in 0..2 {
                let (recent, settled) = (&recent, &settled);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    loop {
                        let known_to = settled.load(Ordering::Acquire);
                        let n = random.u64(known_to.saturating_sub(2 * LIMIT)..known_to + 8);
                        let found = get(recent, n / 8 * 8 % 5, n);
                        // The ring may have turned on meanwhile.
                        let is_certain = n < known_to && n + LIMIT >= settled.load(Ordering::Acquire) + 8;
                        assert!(found == Some(n as i64) || (found.is_none() && !is_certain), "{n} {found:?}");
                        assert_eq!(get(recent, n / 8 * 8 % 5, n + EVENTS), None);
                        if known_to == EVENTS {
                            break;
                        }
                    }
                });
            }
        });
    }
}
