//! The header page of a chunk file: what the file is, and the durable mark.

use crate::limits::CHUNK_HEADER_BYTES;
use crate::types::LogPosition;

use super::layout::ChunkLayout;

/// What every chunk file begins with.
const MAGIC: [u8; 8] = *b"RSCHUNK\0";

/// The version of chunk files that this program writes and reads.
pub(super) const FORMAT_VERSION: u32 = 2;

/// Bytes of the identity, its checksum included.
const IDENTITY_BYTES: usize = 32;

/// Bytes of an identity that may be wrong in one that is still known for what it is. Zeros alone are more.
const IDENTITY_DAMAGE_MAX: usize = 8;

/// Bytes of a mark's slot: a sector, the smallest piece that a disk writes whole.
const SLOT_BYTES: usize = 512;

/// Bytes of a mark in its slot.
const MARK_BYTES: usize = 20;

/// Where the first of the two slots lies.
const SLOTS_OFFSET: u64 = 512;

const PAGE_BYTES: usize = CHUNK_HEADER_BYTES as usize;

const _: () = assert!(SLOTS_OFFSET as usize + 2 * SLOT_BYTES <= PAGE_BYTES);

/// The identity of a chunk file: which piece of the log it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The chunk's number.
    pub chunk: u32,
    /// How the log is cut.
    pub layout: ChunkLayout,
}

impl ChunkHeader {
    /// The whole header page of a new chunk, without a durable mark.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        page[0..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&self.chunk.to_le_bytes());
        page[16..24].copy_from_slice(&self.layout.chunk_size.to_le_bytes());
        let crc = crc32c::crc32c(&page[..IDENTITY_BYTES - 4]);
        page[IDENTITY_BYTES - 4..IDENTITY_BYTES].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// The format version that a header page names, when it names one for certain: its magic and checksum lie at the same
    /// places in all versions.
    #[must_use]
    pub fn version(page: &[u8]) -> Option<u32> {
        let is_good = page.len() >= IDENTITY_BYTES
            && page[0..8] == MAGIC
            && crc32c::crc32c(&page[..IDENTITY_BYTES - 4]) == u32_at(page, IDENTITY_BYTES - 4);
        is_good.then(|| u32_at(page, 8))
    }

    /// True when `page` has so much of this chunk's identity that it can be nothing but that, damaged in one place. A page of
    /// zeros, or of another log, has not.
    #[must_use]
    pub fn resembles(&self, page: &[u8]) -> bool {
        let right = self.encode();
        let is_right = |(found, right): &(&u8, &u8)| found == right;
        page.iter().zip(&right[..IDENTITY_BYTES]).filter(is_right).count() >= IDENTITY_BYTES - IDENTITY_DAMAGE_MAX
    }

    /// What of `page`, the header page of this chunk, is not as it must be: where it begins, and the right bytes. The marks
    /// themselves are left out: see [`WrongMark`].
    #[must_use]
    pub fn wrong_parts(&self, page: &[u8]) -> Vec<(usize, Vec<u8>)> {
        assert_eq!(page.len(), PAGE_BYTES);
        let first = SLOTS_OFFSET as usize;
        let second = first + SLOT_BYTES;
        let parts = [
            0..IDENTITY_BYTES,
            IDENTITY_BYTES..first,
            first + MARK_BYTES..second,
            second + MARK_BYTES..second + SLOT_BYTES,
            second + SLOT_BYTES..PAGE_BYTES,
        ];
        let right = self.encode();
        let wrong = parts.into_iter().filter(|part| page[part.clone()] != right[part.clone()]);
        wrong.map(|part| (part.start, right[part].to_vec())).collect()
    }

    /// Checks that `page`, the first page of a file, is that of this chunk.
    ///
    /// # Errors
    /// What does not fit, with the expected and the found value, for people.
    pub fn check(&self, page: &[u8]) -> Result<(), String> {
        assert!(page.len() >= IDENTITY_BYTES, "a header page of {} bytes", page.len());
        if page[0..8] != MAGIC {
            return Err(format!("it starts with {:02x?}, not with {MAGIC:02x?}", &page[0..8]));
        }
        let (computed, stored) = (crc32c::crc32c(&page[..IDENTITY_BYTES - 4]), u32_at(page, IDENTITY_BYTES - 4));
        if computed != stored {
            return Err(format!("its checksum is {computed:08x}, the page says {stored:08x}"));
        }
        let version = u32_at(page, 8);
        if version != FORMAT_VERSION {
            return Err(format!("its format version is {version}, this program reads {FORMAT_VERSION}"));
        }
        let chunk = u32_at(page, 12);
        if chunk != self.chunk {
            return Err(format!("it says that it is chunk {chunk}, its name says {}", self.chunk));
        }
        let chunk_size = u64_at(page, 16);
        if chunk_size != self.layout.chunk_size {
            return Err(format!("its chunk size is {chunk_size}, this log's is {}", self.layout.chunk_size));
        }
        Ok(())
    }
}

/// "The log was durable up to `position`": written into a chunk's header page with the flush that follows, so it always
/// tells of an earlier flush and is true whether or not its own succeeds.
///
/// The log thread writes one, at most each 100 ms, into the chunk that the next flush is about. The one with the highest
/// sequence in any chunk counts, also when its position is lower: a truncation first makes a mark at the cut durable,
/// then erases.
///
/// **Invariant:** `position` is the end of a record (or zero); recovery takes what lies across it for damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableMark {
    /// Counts up over all chunks; the slot is `sequence % 2`.
    pub sequence: u64,
    /// Durable up to here.
    pub position: LogPosition,
}

impl DurableMark {
    /// Where the next slot lies in the chunk file, and its bytes.
    #[must_use]
    pub fn encode_slot(sequence: u64, position: LogPosition) -> (u64, [u8; SLOT_BYTES]) {
        let mut slot = [0; SLOT_BYTES];
        slot[0..8].copy_from_slice(&sequence.to_le_bytes());
        slot[8..16].copy_from_slice(&position.0.to_le_bytes());
        let crc = crc32c::crc32c(&slot[..16]);
        slot[16..20].copy_from_slice(&crc.to_le_bytes());
        (SLOTS_OFFSET + (sequence % 2) * SLOT_BYTES as u64, slot)
    }

    /// The newest mark in a header page; `None` when there is none. A slot that does not check out counts as none
    /// ([`WrongMark`]): the other one holds the mark before.
    #[must_use]
    pub fn read_newest(page: &[u8]) -> Option<DurableMark> {
        let first = SLOTS_OFFSET as usize;
        [first, first + SLOT_BYTES]
            .into_iter()
            .filter_map(|at| read_slot(&page[at..at + SLOT_BYTES]))
            .max_by_key(|mark| mark.sequence)
    }
}

/// A slot of a header page that holds neither a mark nor zeros. A slot is a sector, which no power cut tears: it has rotted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongMark {
    /// Where the slot begins in the page.
    pub offset: usize,
    /// The mark that was there, as its slot begins, when that can be told: one bit of it is wrong. Any two marks differ in
    /// six bits at least, checksums included, so there is only one.
    pub right: Option<[u8; MARK_BYTES]>,
}

impl WrongMark {
    /// The slots of a header page that are wrong.
    #[must_use]
    pub fn all(page: &[u8]) -> Vec<WrongMark> {
        let first = SLOTS_OFFSET as usize;
        let slots = [first, first + SLOT_BYTES].map(|offset| (offset, &page[offset..offset + MARK_BYTES]));
        let wrong =
            slots.into_iter().filter(|(_, mark)| mark.iter().any(|&byte| byte != 0) && read_slot(mark).is_none());
        wrong.map(|(offset, mark)| WrongMark { offset, right: put_right(mark) }).collect()
    }

    /// What to write at `offset`: the mark that was there, or none.
    #[must_use]
    pub fn bytes(&self) -> [u8; MARK_BYTES] {
        self.right.unwrap_or_default()
    }
}

/// The mark that differs from `mark` in one bit.
fn put_right(mark: &[u8]) -> Option<[u8; MARK_BYTES]> {
    let mark: [u8; MARK_BYTES] = mark.try_into().expect("the bytes of a mark");
    (0..MARK_BYTES * 8).find_map(|bit| {
        let mut right = mark;
        right[bit / 8] ^= 1 << (bit % 8);
        read_slot(&right).map(|_| right)
    })
}

fn read_slot(slot: &[u8]) -> Option<DurableMark> {
    // A slot of zeros fails here too: the checksum of 16 zeros is not zero.
    (crc32c::crc32c(&slot[..16]) == u32_at(slot, 16))
        .then(|| DurableMark { sequence: u64_at(slot, 0), position: LogPosition(u64_at(slot, 8)) })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: ChunkHeader = ChunkHeader { chunk: 7, layout: ChunkLayout { chunk_size: 1 << 20 } };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_layout() {
        let page = HEADER.encode();
        assert_eq!(page.len(), 4096);
        assert_eq!(
            hex(&page[..32]),
            concat!("52534348554e4b00", "02000000", "07000000", "0000100000000000", "00000000", "f1293aae")
        );
        assert!(page[32..].iter().all(|&byte| byte == 0));
        let (offset, slot) = DurableMark::encode_slot(3, LogPosition(0x1_0000_0040));
        assert_eq!(offset, 1024);
        assert_eq!(hex(&slot[..20]), concat!("0300000000000000", "4000000001000000", "939bcd96"));
        assert!(slot[20..].iter().all(|&byte| byte == 0));
        assert_eq!(DurableMark::encode_slot(4, LogPosition(0)).0, 512);
    }

    #[test]
    fn a_page_is_known_again_and_any_flipped_bit_is_seen() {
        let good = HEADER.encode();
        assert_eq!(HEADER.check(&good), Ok(()));
        for bit in 0..IDENTITY_BYTES * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(HEADER.check(&bad).is_err(), "bit {bit}");
        }
        let other = ChunkHeader { chunk: 8, ..HEADER };
        assert_eq!(other.check(&good), Err("it says that it is chunk 7, its name says 8".to_owned()));
        let other = ChunkHeader { layout: ChunkLayout { chunk_size: 2 << 20 }, ..HEADER };
        assert_eq!(other.check(&good), Err("its chunk size is 1048576, this log's is 2097152".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_page_is_told_wherever_it_is_but_in_the_marks() {
        let mut good = HEADER.encode();
        for sequence in 1..3 {
            let (offset, slot) = DurableMark::encode_slot(sequence, LogPosition(800));
            good[offset as usize..offset as usize + SLOT_BYTES].copy_from_slice(&slot);
        }
        assert_eq!(HEADER.wrong_parts(&good), []);
        for at in 0..PAGE_BYTES {
            let mut page = good.clone();
            page[at] ^= 0x40;
            let parts = HEADER.wrong_parts(&page);
            let is_mark = (512..532).contains(&at) || (1024..1044).contains(&at);
            assert_eq!(parts.len(), usize::from(!is_mark), "byte {at}");
            for (start, bytes) in parts {
                page[start..start + bytes.len()].copy_from_slice(&bytes);
                assert!(page == good, "byte {at}");
            }
        }
    }

    #[test]
    fn a_mark_with_one_wrong_bit_is_put_right_and_one_with_more_is_none() {
        let mut good = HEADER.encode();
        assert_eq!(WrongMark::all(&good), []);
        let (offset, slot) = DurableMark::encode_slot(7, LogPosition(800));
        good[offset as usize..offset as usize + SLOT_BYTES].copy_from_slice(&slot);
        assert_eq!(WrongMark::all(&good), []);
        for bit in 0..MARK_BYTES * 8 {
            let mut page = good.clone();
            page[1024 + bit / 8] ^= 1 << (bit % 8);
            page[512 + bit / 8] ^= 1 << (bit % 8);
            let found = WrongMark::all(&page);
            let mark: [u8; MARK_BYTES] = slot[..MARK_BYTES].try_into().unwrap();
            let expected = [(512, None), (1024, Some(mark))].map(|(offset, right)| WrongMark { offset, right });
            assert_eq!(found, expected, "bit {bit}");
            page[1024 + (bit / 8 + 3) % MARK_BYTES] ^= 0x10;
            assert_eq!(WrongMark::all(&page)[1].right, None, "bit {bit}");
        }
    }

    #[test]
    fn the_newest_good_mark_counts() {
        let mut page = HEADER.encode();
        assert_eq!(DurableMark::read_newest(&page), None);
        let mut write = |sequence, position| {
            let (offset, slot) = DurableMark::encode_slot(sequence, LogPosition(position));
            page[offset as usize..offset as usize + SLOT_BYTES].copy_from_slice(&slot);
            let newest = DurableMark::read_newest(&page).unwrap();
            assert_eq!(newest, DurableMark { sequence, position: LogPosition(position) });
        };
        write(1, 800);
        write(2, 1600);
        write(3, 400);
        write(4, 4000);
        for torn in [512, 515, 525, 530] {
            let mut page = page.clone();
            page[torn] ^= 0x10;
            assert_eq!(DurableMark::read_newest(&page).unwrap().sequence, 3, "{torn}");
        }
        assert_eq!(HEADER.check(&page), Ok(()), "marks are no part of the identity");
    }
}
