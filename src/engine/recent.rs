//! The identifiers of the events that this leader wrote last: a repeated write that makes no exact claim is known by
//! them.
//!
//! First in, first out, and without memory of its own for an entry: identifiers lie in a ring in the order of the log,
//! and a table of eight bytes each says where. An event costs a place in both, whether its write has one event or
//! thousands. Both are small, so that they stay in the processor's cache: they hold what the index has not applied yet,
//! and [a few thousand](super::heads) at least. They grow when the index lags behind, and shrink when it has caught up.
//! The index knows the rest; a filter says when it need not be asked, which is nearly always.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;

use crate::types::{EventId, LogPosition};

/// Places of the first table; it doubles when it is half full.
const TABLE_START: usize = 256;

/// Bits that an identifier sets in the filter, all in one word.
const FILTER_BITS: u32 = 3;

/// An event in the ring.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Stream by hash: one client may use the same identifier in several streams. Identifiers are 128 bits wide, so a
    /// clash of hashes alone does no harm.
    stream: u64,
    id: EventId,
    number: i64,
    end: LogPosition,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RecentIds {
    hasher: FixedState,
    /// Places of the ring. They become more when the index lags behind.
    limit: usize,
    limit_least: usize,
    ring: Vec<Known>,
    /// Where the oldest lies, once the ring is full: the next one takes its place.
    oldest: usize,
    /// Open addressing, linear probing, at most half full. Zero: free. Else the tag in the upper half (its upper bits
    /// are the home place), and in the lower one the place in the ring plus one.
    table: Vec<u64>,
    filter: Filter,
}

impl RecentIds {
    /// Knows the last `limit` identifiers (more, when the index lacks them), and of the last `remembered` ones whether one
    /// may be among them. The seed keeps others from making them clash on purpose.
    pub(super) fn new(limit: usize, remembered: usize, seed: u64) -> RecentIds {
        assert!((1..1 << 30).contains(&limit), "{limit} recent identifiers");
        let hasher = FixedState::with_seed(seed);
        let filter = Filter::new(remembered);
        RecentIds {
            hasher,
            limit,
            limit_least: limit,
            ring: Vec::new(),
            oldest: 0,
            table: vec![0; TABLE_START],
            filter,
        }
    }

    pub(super) fn clear(&mut self) {
        self.limit = self.limit_least;
        self.ring = Vec::new();
        self.oldest = 0;
        self.table = vec![0; TABLE_START];
        self.filter = Filter::new(self.filter.remembered);
    }

    /// False when the event is not one of the last that were remembered.
    pub(super) fn may_know(&self, stream: u64, id: EventId) -> bool {
        self.filter.may_have(self.hash(stream, id))
    }

    /// The number of the event and the end of its record; of the newest when it was written several times.
    pub(super) fn get(&self, stream: u64, id: EventId) -> Option<(i64, LogPosition)> {
        let (_, found) = self.find(tag_of(self.hash(stream, id)), stream, id);
        found.map(|place| (self.ring[place].number, self.ring[place].end))
    }

    /// Remembers an event. What lies up to `applied` is in the index.
    pub(super) fn insert(&mut self, stream: u64, id: EventId, number: i64, end: LogPosition, applied: LogPosition) {
        let hash = self.hash(stream, id);
        self.filter.insert(hash);
        if self.ring.len() == self.limit && self.ring[self.oldest].end > applied {
            self.ring.rotate_left(self.oldest);
            self.oldest = 0;
            self.limit *= 2;
            self.rebuild();
        }
        self.shrink(applied);
        let known = Known { stream, id, number, end };
        let place = if self.ring.len() == self.limit {
            let place = self.oldest;
            self.forget(place);
            self.ring[place] = known;
            self.oldest = if place + 1 == self.limit { 0 } else { place + 1 };
            place
        } else {
            if self.ring.len() * 2 >= self.table.len() {
                self.rebuild();
            }
            self.ring.push(known);
            self.ring.len() - 1
        };
        self.enter(tag_of(hash), place);
    }

    /// Once in a round: when the index has all but a few again, a ring that has grown goes back to what it was.
    fn shrink(&mut self, applied: LogPosition) {
        if self.limit == self.limit_least || self.ring.len() < self.limit || self.oldest > 0 {
            return;
        }
        // A few: so that it does not grow again soon.
        let newer = self.limit_least / 2;
        if self.ring[self.limit - newer - 1].end <= applied {
            self.ring = self.ring.split_off(self.limit - self.limit_least);
            self.limit = self.limit_least;
            self.table = Vec::new();
            self.rebuild();
        }
    }

    /// Of one that was written before, the table knows the newest only.
    fn enter(&mut self, tag: u32, place: usize) {
        let Known { stream, id, .. } = self.ring[place];
        let (at, _) = self.find(tag, stream, id);
        self.table[at] = entry(tag, place);
    }

    /// Where in the table the event's entry is, or would be; and its place in the ring if it is there.
    fn find(&self, tag: u32, stream: u64, id: EventId) -> (usize, Option<usize>) {
        let mut at = self.home(tag);
        loop {
            let found = self.table[at];
            if found == 0 {
                return (at, None);
            }
            if tag_of(found) == tag {
                let place = place_of(found);
                let known = &self.ring[place];
                if known.id == id && known.stream == stream {
                    return (at, Some(place));
                }
            }
            at = self.after(at);
        }
    }

    /// Takes the entry for a place in the ring out of the table, if there is one: not when a newer place is known.
    fn forget(&mut self, place: usize) {
        let Known { stream, id, .. } = self.ring[place];
        let tag = tag_of(self.hash(stream, id));
        let wanted = entry(tag, place);
        let mut hole = self.home(tag);
        while self.table[hole] != wanted {
            if self.table[hole] == 0 {
                return;
            }
            hole = self.after(hole);
        }
        // What follows moves up, as far as it gets nearer to its home, so that no search ends too early.
        let mut at = self.after(hole);
        while self.table[at] != 0 {
            let home = self.home(tag_of(self.table[at]));
            if self.distance(home, at) >= self.distance(hole, at) {
                self.table[hole] = self.table[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.table[hole] = 0;
    }

    /// A table that is less than half full, of all that lies in the ring from the oldest to the newest.
    fn rebuild(&mut self) {
        let places = (2 * self.ring.len() + 1).next_power_of_two().max(TABLE_START);
        self.table.clear();
        self.table.resize(places, 0);
        for place in 0..self.ring.len() {
            let Known { stream, id, .. } = self.ring[place];
            self.enter(tag_of(self.hash(stream, id)), place);
        }
    }

    fn hash(&self, stream: u64, id: EventId) -> u64 {
        self.hasher.hash_one((stream, u128::from_le_bytes(id.0.0)))
    }

    /// The table has at most 2^32 places, so a tag's upper bits name one of them.
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.table.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.table.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.table.len() - 1)
    }
}

/// Says of most identifiers that were not remembered lately that they were not. Two generations: when the newer one has
/// as many as are to be remembered, it takes the place of the older one.
#[derive(Debug)]
struct Filter {
    remembered: usize,
    count: usize,
    newer: usize,
    /// A power of two; the generations side by side, for each identifier looks at both.
    words: Vec<[u64; 2]>,
}

impl Filter {
    /// Eight bits an identifier, so that it seldom errs.
    fn new(remembered: usize) -> Filter {
        let words = (remembered / 8).next_power_of_two();
        Filter { remembered, count: 0, newer: 0, words: vec![[0; 2]; words] }
    }

    fn place(&self, hash: u64) -> (usize, u64) {
        // The table's tags are the upper half.
        let bits = (0..FILTER_BITS).fold(0, |bits, bit| bits | 1 << (hash >> (32 + 6 * bit) & 63));
        (hash as usize & (self.words.len() - 1), bits)
    }

    fn insert(&mut self, hash: u64) {
        if self.count == self.remembered {
            self.count = 0;
            self.newer ^= 1;
            let newer = self.newer;
            self.words.iter_mut().for_each(|word| word[newer] = 0);
        }
        self.count += 1;
        let (word, bits) = self.place(hash);
        self.words[word][self.newer] |= bits;
    }

    fn may_have(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        self.words[word].iter().any(|word| word & bits == bits)
    }
}

fn entry(tag: u32, place: usize) -> u64 {
    (u64::from(tag) << 32) | (place as u64 + 1)
}

/// Of a hash, or of an entry.
fn tag_of(bits: u64) -> u32 {
    (bits >> 32) as u32
}

fn place_of(entry: u64) -> usize {
    (entry & u64::from(u32::MAX)) as usize - 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::types::Guid;

    fn id(n: u64) -> EventId {
        EventId(Guid(u128::from(n).to_le_bytes()))
    }

    const ALL: LogPosition = LogPosition(u64::MAX);

    #[test]
    fn one_identifier_in_two_streams_is_known_in_both() {
        let mut recent = RecentIds::new(4, 64, 1);
        recent.insert(7, id(5), 3, LogPosition(192), ALL);
        recent.insert(8, id(5), 8, LogPosition(512), ALL);
        assert_eq!(recent.get(7, id(5)), Some((3, LogPosition(192))));
        assert_eq!(recent.get(8, id(5)), Some((8, LogPosition(512))));
        assert_eq!(recent.get(9, id(5)), None);
    }

    #[test]
    fn an_identifier_written_again_lives_as_long_as_its_newest_place() {
        let mut recent = RecentIds::new(3, 64, 1);
        for (n, number) in [(1, 10), (2, 11), (1, 12), (3, 13), (4, 14)] {
            recent.insert(7, id(n), number, LogPosition::ZERO, ALL);
        }
        let number = |recent: &RecentIds, n| recent.get(7, id(n)).map(|(number, _)| number);
        assert_eq!([1, 2, 3, 4].map(|n| number(&recent, n)), [Some(12), None, Some(13), Some(14)]);
        recent.insert(7, id(5), 15, LogPosition::ZERO, ALL);
        assert_eq!([1, 3, 4, 5].map(|n| number(&recent, n)), [None, Some(13), Some(14), Some(15)]);
    }

    #[test]
    fn it_agrees_with_a_plain_map_over_many_rounds_and_keeps_what_the_index_lacks() {
        const LIMIT: usize = 500;
        let mut random = fastrand::Rng::with_seed(3);
        let mut recent = RecentIds::new(LIMIT, 1000, 9);
        let mut order: Vec<(u64, EventId)> = Vec::new();
        let mut numbers: HashMap<(u64, EventId), i64> = HashMap::new();
        let mut longest = 0;
        for number in 0..20_000 {
            // The index stands still for a while.
            let applied = LogPosition(if (9000..10_500).contains(&number) { 9000 } else { number as u64 });
            let key = (random.u64(0..3), id(random.u64(0..400)));
            recent.insert(key.0, key.1, number, LogPosition(number as u64), applied);
            order.push(key);
            numbers.insert(key, number);
            let asked = (random.u64(0..3), id(random.u64(0..400)));
            let first_kept = order.len() as i64 - recent.ring.len() as i64;
            let expected = numbers.get(&asked).copied().filter(|&number| number >= first_kept);
            assert_eq!(recent.get(asked.0, asked.1).map(|(number, _)| number), expected, "at {number}");
            longest = longest.max(recent.ring.len());
            assert!(recent.ring.len() == LIMIT.min(order.len()) || number > 9000, "{} at {number}", recent.ring.len());
        }
        assert_eq!(longest, 4 * LIMIT, "as much as the index lacked at a time, and room to double");
        assert_eq!((recent.ring.len(), recent.limit, recent.table.len()), (LIMIT, LIMIT, 1024), "it has caught up");
        recent.clear();
        assert_eq!(recent.get(order[0].0, order[0].1), None);
    }

    #[test]
    fn the_filter_forgets_none_of_the_last_ones_and_few_others_pass() {
        const REMEMBERED: usize = 4096;
        let mut recent = RecentIds::new(16, REMEMBERED, 5);
        for n in 0..10 * REMEMBERED as u64 {
            recent.insert(1, id(n), n as i64, LogPosition::ZERO, ALL);
        }
        let last = 10 * REMEMBERED as u64;
        assert!((last - REMEMBERED as u64..last).all(|n| recent.may_know(1, id(n))));
        let mistakes = (last..2 * last).filter(|&n| recent.may_know(1, id(n))).count();
        assert!(mistakes < last as usize / 10, "{mistakes} of {last}");
        recent.clear();
        assert!(!recent.may_know(1, id(last - 1)));
    }
}
