//! The identifiers of recently committed events: a repeated write that makes no exact claim is known by them.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;

use crate::types::EventId;

/// Stream by hash, and event. Identifiers are random and 128 bits wide, so a clash of hashes alone does no harm.
type Key = (u64, EventId);

/// First in, first out, bounded.
#[derive(Debug)]
pub(super) struct RecentIds {
    limit: usize,
    numbers: HashMap<Key, i64, FixedState>,
    /// Oldest first. A key that was written again is in it twice; only its newest place counts.
    order: VecDeque<(Key, i64)>,
}

impl RecentIds {
    pub(super) fn new(limit: usize) -> RecentIds {
        let numbers = HashMap::with_hasher(FixedState::with_seed(1));
        RecentIds { limit, numbers, order: VecDeque::new() }
    }

    pub(super) fn insert(&mut self, stream_hash: u64, id: EventId, number: i64) {
        let key = (stream_hash, id);
        self.numbers.insert(key, number);
        self.order.push_back((key, number));
        if self.order.len() > self.limit
            && let Some((oldest, number)) = self.order.pop_front()
            && self.numbers.get(&oldest) == Some(&number)
        {
            self.numbers.remove(&oldest);
        }
    }

    pub(super) fn get(&self, stream_hash: u64, id: EventId) -> Option<i64> {
        self.numbers.get(&(stream_hash, id)).copied()
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> u64 {
        let (map, queue) = (self.numbers.capacity() * size_of::<(Key, i64)>(), self.order.capacity());
        (map + queue * size_of::<(Key, i64)>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Guid;

    fn id(n: u8) -> EventId {
        EventId(Guid([n; 16]))
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = RecentIds::new(3);
        for n in 0..5 {
            recent.insert(7, id(n), i64::from(n));
        }
        let found: Vec<_> = (0..5).map(|n| recent.get(7, id(n))).collect();
        assert_eq!(found, [None, None, Some(2), Some(3), Some(4)]);
        assert_eq!(recent.get(8, id(4)), None, "another stream");
        assert_eq!((recent.numbers.len(), recent.order.len()), (3, 3));
    }

    #[test]
    fn an_identifier_written_again_lives_as_long_as_its_newest_place() {
        let mut recent = RecentIds::new(3);
        recent.insert(7, id(1), 10);
        recent.insert(7, id(2), 11);
        recent.insert(7, id(1), 12);
        recent.insert(7, id(3), 13);
        assert_eq!(recent.get(7, id(1)), Some(12));
        recent.insert(7, id(4), 14);
        assert_eq!((recent.get(7, id(1)), recent.get(7, id(2))), (Some(12), None));
        recent.insert(7, id(5), 15);
        assert_eq!(recent.get(7, id(1)), None);
        assert_eq!(recent.numbers.len(), 3);
    }
}
