//! The hash table below [`RecentIds`](super::recent::RecentIds): from a hash to the places of events in a ring.
//!
//! One thread writes, any number search at the same time. Nothing is ever taken out but all at once. Beside each place
//! lie some bits of the hash, eight of them in a word, so that a search that finds nothing looks at little memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Room is made for so many items at once.
const BLOCK_ITEMS: usize = 4096;

/// Tags in a word.
const GROUP: usize = 8;

/// Slots for each place that is put in at most.
const SLOTS_PER_PLACE: usize = 2;

/// Words after which a search ends. Only hashes that were chosen to fall together come this far.
const GROUPS_MAX: usize = 64;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = LOW_BITS << 7;

/// An array whose memory is taken when it is first written to: a node with few events needs little.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    /// A power of two.
    block_items: usize,
    blocks: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Blocks<T> {
    /// For `count` items, a power of two.
    pub(super) fn new(count: usize) -> Blocks<T> {
        assert!(count.is_power_of_two(), "{count} items");
        let block_items = count.min(BLOCK_ITEMS);
        Blocks { block_items, blocks: std::iter::repeat_with(OnceLock::new).take(count / block_items).collect() }
    }

    /// An item, round the array; `None` where nothing was written yet.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        Some(&self.block(index).get()?[index & (self.block_items - 1)])
    }

    /// An item to write to, round the array.
    pub(super) fn make(&self, index: usize) -> &T {
        let make = || std::iter::repeat_with(T::default).take(self.block_items).collect();
        &self.block(index).get_or_init(make)[index & (self.block_items - 1)]
    }

    fn block(&self, index: usize) -> &OnceLock<Box<[T]>> {
        &self.blocks[(index / BLOCK_ITEMS) & (self.blocks.len() - 1)]
    }

    /// Every item that there is memory for.
    fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().filter_map(OnceLock::get).flatten()
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().filter_map(OnceLock::get).map(|block| block.len() * size_of::<T>()).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    /// Words of tags, a power of two.
    group_count: usize,
    /// A byte for each slot: its tag, zero while it is free. A free slot has none that is taken behind it in its word.
    tags: Blocks<AtomicU64>,
    places: Blocks<AtomicU32>,
}

/// Never zero: zero marks a free slot.
fn tag(hash: u64) -> u64 {
    (hash >> 57) | 0x80
}

/// The high bit of each byte that equals `byte`; perhaps also of others behind the first of them.
fn matches(word: u64, byte: u64) -> u64 {
    let difference = word ^ (LOW_BITS * byte);
    difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS
}

impl Slots {
    /// For `count` places, a power of two.
    pub(super) fn new(count: usize) -> Slots {
        let count = (count * SLOTS_PER_PLACE).max(GROUP);
        let group_count = count / GROUP;
        Slots { group_count, tags: Blocks::new(group_count), places: Blocks::new(count) }
    }

    /// The word of tags that a search comes to after `probe` others.
    fn group(&self, hash: u64, probe: usize) -> usize {
        (hash as usize).wrapping_add(probe) & (self.group_count - 1)
    }

    /// Makes it empty. A search at the same time may find anything that was in it or nothing.
    pub(super) fn clear(&self) {
        self.tags.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The first place under this hash, or one that has its tag by accident, for which `judge` gives something.
    pub(super) fn find<T>(&self, hash: u64, mut judge: impl FnMut(u32) -> Option<T>) -> Option<T> {
        for probe in 0..GROUPS_MAX {
            let group = self.group(hash, probe);
            let word = self.tags.get(group)?.load(Ordering::Acquire);
            let mut found = matches(word, tag(hash));
            while found != 0 {
                let slot = group * GROUP + found.trailing_zeros() as usize / 8;
                // A place may be newer than its tag: then what it names is seen because of this load.
                if let Some(judged) = self.places.get(slot).and_then(|place| judge(place.load(Ordering::Acquire))) {
                    return Some(judged);
                }
                found &= found - 1;
            }
            if word & HIGH_BITS != HIGH_BITS {
                return None;
            }
        }
        None
    }

    /// Puts a place in, instead of the first one under this hash that `is_same` accepts. Without effect where there is no
    /// room near; see [`GROUPS_MAX`].
    pub(super) fn insert(&self, hash: u64, place: u32, mut is_same: impl FnMut(u32) -> bool) {
        for probe in 0..GROUPS_MAX {
            let group = self.group(hash, probe);
            let tags = self.tags.make(group);
            let word = tags.load(Ordering::Relaxed);
            let mut found = matches(word, tag(hash));
            while found != 0 {
                let older = self.places.make(group * GROUP + found.trailing_zeros() as usize / 8);
                if is_same(older.load(Ordering::Relaxed)) {
                    older.store(place, Ordering::Release);
                    return;
                }
                found &= found - 1;
            }
            if word & HIGH_BITS != HIGH_BITS {
                let free = (!word & HIGH_BITS).trailing_zeros() as usize / 8;
                self.places.make(group * GROUP + free).store(place, Ordering::Relaxed);
                tags.store(word | (tag(hash) << (8 * free)), Ordering::Release);
                return;
            }
        }
    }

    /// Memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.tags.bytes() + self.places.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_equal_are_found() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let bytes: [u8; 8] = std::array::from_fn(|_| 0x80 | random.u8(0..4));
            let byte = 0x80 | random.u8(0..4);
            let found = matches(u64::from_le_bytes(bytes), u64::from(byte));
            for (index, &other) in bytes.iter().enumerate() {
                assert!(other != byte || (found >> (8 * index + 7)) & 1 == 1, "{bytes:x?} {byte:x} {found:x}");
            }
            let first = bytes.iter().position(|&other| other == byte).map_or(64, |index| 8 * index as u32 + 7);
            assert_eq!(found.trailing_zeros(), first, "{bytes:x?} {byte:x}");
        }
    }

    #[test]
    fn places_are_found_under_their_hash_until_all_are_cleared() {
        let slots = Slots::new(1024);
        let mut random = fastrand::Rng::with_seed(2);
        // Few tags and few groups, so that groups overflow.
        let hashes: Vec<u64> = (0..1024).map(|_| (random.u64(0..2) << 57) | random.u64(0..200)).collect();
        for (place, &hash) in hashes.iter().enumerate() {
            slots.insert(hash, place as u32, |_| false);
        }
        for (place, &hash) in hashes.iter().enumerate() {
            let place = place as u32;
            assert_eq!(slots.find(hash, |found| (found == place).then_some(found)), Some(place));
            assert_eq!(slots.find(hash, |found| (found == 5000).then_some(())), None);
        }
        slots.insert(hashes[7], 2000, |older| older == 7);
        assert_eq!(slots.find(hashes[7], |found| (found == 7).then_some(())), None);
        assert_eq!(slots.find(hashes[7], |found| (found == 2000).then_some(())), Some(()));
        slots.clear();
        assert!(hashes.iter().all(|&hash| slots.find(hash, Some).is_none()));
    }

    #[test]
    fn hashes_that_fall_together_find_an_end() {
        let slots = Slots::new(1 << 16);
        let room = (GROUP * GROUPS_MAX) as u32;
        for place in 0..2 * room {
            slots.insert(77, place, |_| false);
        }
        let find = |place| slots.find(77, |found| (found == place).then_some(found));
        assert_eq!((find(room - 1), find(room)), (Some(room - 1), None));
        assert_eq!(slots.bytes(), BLOCK_ITEMS * 8 + BLOCK_ITEMS * 4);
    }

    #[test]
    fn memory_is_taken_when_it_is_written_to() {
        let blocks: Blocks<u64> = Blocks::new(1 << 20);
        assert_eq!((blocks.bytes(), blocks.get(7)), (0, None));
        assert_eq!(blocks.make((1 << 20) + 7), &0);
        assert_eq!((blocks.bytes(), blocks.get(7), blocks.get(BLOCK_ITEMS)), (BLOCK_ITEMS * 8, Some(&0), None));
        assert_eq!(Blocks::<u64>::new(4).make(7), &0);
    }
}
