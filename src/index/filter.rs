//! Says of a stream's hash whether a table may hold it: a bloom filter in blocks of a cache line.

/// Bits for each stream.
const BITS: u64 = 10;

/// Bits that a stream sets, all in one block.
const PROBES: u32 = 6;

/// Words of a block.
const BLOCK: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// For about so many streams.
    pub(super) fn new(streams: u64) -> Filter {
        let blocks = (streams * BITS).div_ceil(BLOCK as u64 * 64).max(1);
        Filter { words: vec![0; blocks as usize * BLOCK] }
    }

    /// Bytes of a filter for so many streams.
    pub(super) fn bytes_for(streams: u64) -> u64 {
        (streams * BITS).div_ceil(BLOCK as u64 * 64).max(1) * BLOCK as u64 * 8
    }

    fn block(&self, hash: u64) -> usize {
        let blocks = (self.words.len() / BLOCK) as u128;
        ((u128::from(hash) * blocks) >> 64) as usize * BLOCK
    }

    /// The bits of a hash: the block comes from its high bits, these from a mix of all.
    fn bits(hash: u64) -> impl Iterator<Item = usize> {
        let mixed = (hash ^ (hash >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (0..PROBES).map(move |probe| (mixed >> (9 * probe + 1)) as usize % (BLOCK * 64))
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let block = self.block(hash);
        for bit in Filter::bits(hash) {
            self.words[block + bit / 64] |= 1 << (bit % 64);
        }
    }

    /// False: surely not.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let block = self.block(hash);
        Filter::bits(hash).all(|bit| self.words[block + bit / 64] & (1 << (bit % 64)) != 0)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    pub(super) fn encode(&self) -> impl Iterator<Item = [u8; 8]> {
        self.words.iter().map(|word| word.to_le_bytes())
    }

    /// `None` when the length cannot be that of a filter.
    pub(super) fn decode(bytes: &[u8]) -> Option<Filter> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK * 8) {
            return None;
        }
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Some(Filter { words: bytes.chunks_exact(8).map(word).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_little_else() {
        let mut random = fastrand::Rng::with_seed(1);
        for streams in [1, 7, 1000, 50_000] {
            let hashes: Vec<u64> = (0..streams).map(|_| random.u64(..)).collect();
            let mut filter = Filter::new(streams);
            hashes.iter().for_each(|&hash| filter.insert(hash));
            assert_eq!(filter.bytes(), Filter::bytes_for(streams));
            let filter = Filter::decode(&filter.encode().flatten().collect::<Vec<_>>()).unwrap();
            assert!(hashes.iter().all(|&hash| filter.may_hold(hash)));
            let wrong = (0..20_000).filter(|_| filter.may_hold(random.u64(..))).count();
            assert!(wrong < 500, "{wrong} of 20,000 beside {streams}");
        }
        assert!(Filter::decode(&[0; 65]).is_none() && Filter::decode(&[]).is_none());
    }
}
