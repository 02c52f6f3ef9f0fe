//! The identifiers of the events that this leader wrote last: a repeated write that makes no exact claim is known by
//! them.
//!
//! Bounded, first in, first out, and without memory of its own for an entry: identifiers lie in a ring in the order of
//! the log, and a table of eight bytes each says where. An event costs a place in both, whether its write has one event
//! or thousands.

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;

use crate::types::{EventId, LogPosition};

/// Places of the first table; it doubles when it is half full.
const TABLE_START: usize = 256;

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
    limit: usize,
    ring: Vec<Known>,
    /// Where the oldest lies, once the ring is full: the next one takes its place.
    oldest: usize,
    /// Open addressing, linear probing, at most half full. Zero: free. Else the tag in the upper half (its upper bits
    /// are the home place), and in the lower one the place in the ring plus one.
    table: Vec<u64>,
}

impl RecentIds {
    /// Knows the last `limit` identifiers, fewer than 2^31. The seed keeps others from making them clash on purpose.
    pub(super) fn new(limit: usize, seed: u64) -> RecentIds {
        assert!((1..1 << 31).contains(&limit), "{limit} recent identifiers");
        let hasher = FixedState::with_seed(seed);
        RecentIds { hasher, limit, ring: Vec::new(), oldest: 0, table: vec![0; TABLE_START] }
    }

    /// True when nothing was forgotten for want of entries: who asks for older ones asks for more than are kept.
    pub(super) fn is_full(&self) -> bool {
        self.ring.len() == self.limit
    }

    pub(super) fn clear(&mut self) {
        self.ring = Vec::new();
        self.oldest = 0;
        self.table = vec![0; TABLE_START];
    }

    /// The number of the event and the end of its record; of the newest when it was written several times.
    pub(super) fn get(&self, stream: u64, id: EventId) -> Option<(i64, LogPosition)> {
        let (_, found) = self.find(stream, id);
        found.map(|place| (self.ring[place].number, self.ring[place].end))
    }

    pub(super) fn insert(&mut self, stream: u64, id: EventId, number: i64, end: LogPosition) {
        let known = Known { stream, id, number, end };
        let place = if self.is_full() {
            let place = self.oldest;
            self.forget(place);
            self.ring[place] = known;
            self.oldest = (place + 1) % self.limit;
            place
        } else {
            if self.ring.len() * 2 >= self.table.len() {
                self.grow();
            }
            self.ring.push(known);
            self.ring.len() - 1
        };
        // Of one that was written before, the table knows the newest only.
        let (at, _) = self.find(stream, id);
        self.table[at] = entry(self.tag(stream, id), place);
    }

    /// Where in the table the event's entry is, or would be; and its place in the ring if it is there.
    fn find(&self, stream: u64, id: EventId) -> (usize, Option<usize>) {
        let tag = self.tag(stream, id);
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
        let tag = self.tag(stream, id);
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

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.table);
        self.table = vec![0; old.len() * 2];
        for found in old.into_iter().filter(|&found| found != 0) {
            let mut at = self.home(tag_of(found));
            while self.table[at] != 0 {
                at = self.after(at);
            }
            self.table[at] = found;
        }
    }

    fn tag(&self, stream: u64, id: EventId) -> u32 {
        (self.hasher.hash_one((stream, u128::from_le_bytes(id.0.0))) >> 32) as u32
    }

    /// The table has at most 2^32 places, so a tag's upper bits name one of them.
    fn home(&self, tag: u32) -> usize {
        (u64::from(tag) * self.table.len() as u64 >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.table.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.table.len() - 1)
    }
}

fn entry(tag: u32, place: usize) -> u64 {
    u64::from(tag) << 32 | (place as u64 + 1)
}

fn tag_of(entry: u64) -> u32 {
    (entry >> 32) as u32
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

    #[test]
    fn one_identifier_in_two_streams_is_known_in_both() {
        let mut recent = RecentIds::new(4, 1);
        recent.insert(7, id(5), 3, LogPosition(192));
        recent.insert(8, id(5), 8, LogPosition(512));
        assert_eq!(recent.get(7, id(5)), Some((3, LogPosition(192))));
        assert_eq!(recent.get(8, id(5)), Some((8, LogPosition(512))));
        assert_eq!(recent.get(9, id(5)), None);
    }

    #[test]
    fn an_identifier_written_again_lives_as_long_as_its_newest_place() {
        let mut recent = RecentIds::new(3, 1);
        for (n, number) in [(1, 10), (2, 11), (1, 12), (3, 13), (4, 14)] {
            recent.insert(7, id(n), number, LogPosition::ZERO);
        }
        let number = |recent: &RecentIds, n| recent.get(7, id(n)).map(|(number, _)| number);
        assert_eq!([1, 2, 3, 4].map(|n| number(&recent, n)), [Some(12), None, Some(13), Some(14)]);
        recent.insert(7, id(5), 15, LogPosition::ZERO);
        assert_eq!([1, 3, 4, 5].map(|n| number(&recent, n)), [None, Some(13), Some(14), Some(15)]);
    }

    #[test]
    fn it_agrees_with_a_plain_map_over_many_rounds() {
        const LIMIT: usize = 500;
        let mut random = fastrand::Rng::with_seed(3);
        let mut recent = RecentIds::new(LIMIT, 9);
        let mut order: Vec<(u64, EventId)> = Vec::new();
        let mut numbers: HashMap<(u64, EventId), i64> = HashMap::new();
        for number in 0..20_000 {
            let key = (random.u64(0..3), id(random.u64(0..400)));
            recent.insert(key.0, key.1, number, LogPosition(number as u64));
            order.push(key);
            numbers.insert(key, number);
            let asked = (random.u64(0..3), id(random.u64(0..400)));
            let first_kept = (order.len() as i64 - LIMIT as i64).max(0);
            let expected = numbers.get(&asked).copied().filter(|&number| number >= first_kept);
            assert_eq!(recent.get(asked.0, asked.1).map(|(number, _)| number), expected, "at {number}");
        }
        let used = recent.table.iter().filter(|&&entry| entry != 0).count();
        assert!(used <= LIMIT && recent.ring.len() == LIMIT, "{used} entries for {LIMIT} places");
        recent.clear();
        assert_eq!(recent.get(order[0].0, order[0].1), None);
    }
}
