//! The footer page of a sealed chunk: what the chunk holds, so that nobody need read it to know.

use crate::limits::CHUNK_FOOTER_BYTES;
use crate::types::{Epoch, Guid, LogPosition, Term};

use super::chunk::FORMAT_VERSION;
use super::layout::ChunkLayout;

/// What every footer begins with.
const MAGIC: [u8; 8] = *b"RSFOOTER";

const PAGE_BYTES: usize = CHUNK_FOOTER_BYTES as usize;
const EPOCHS_OFFSET: usize = 80;
const EPOCH_BYTES: usize = 32;
const CRC_OFFSET: usize = PAGE_BYTES - 4;

/// Epochs that fit the page.
const EPOCHS_MAX: usize = (CRC_OFFSET - EPOCHS_OFFSET) / EPOCH_BYTES;

const FLAG_MORE_EPOCHS: u32 = 1;

/// In place of a position that is not there.
const NO_POSITION: u64 = u64::MAX;

/// What is known of a chunk that is full, committed and durable. Written once, never changed afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkFooter {
    /// The chunk's number.
    pub chunk: u32,
    /// How the log is cut.
    pub layout: ChunkLayout,
    /// CRC-32C of the chunk's log bytes, `chunk_size` of them.
    pub crc: u32,
    /// Records in the chunk, padding included.
    pub records: u64,
    /// Events in them.
    pub events: u64,
    /// Term of the first record.
    pub first_term: Term,
    /// Term of the last record.
    pub last_term: Term,
    /// The epochs that begin in the chunk, oldest first. An epoch whose padding only is here has a zero identifier; the
    /// next chunk then begins with the same epoch and its identifier.
    pub epochs: Vec<Epoch>,
    /// True when more epochs begin in the chunk than the page has room for: those who need them must read the chunk. The
    /// rest of the footer is good all the same, and `epochs` is empty.
    pub has_more_epochs: bool,
    /// Where the last membership record in the chunk lies.
    pub membership: Option<LogPosition>,
}

impl ChunkFooter {
    /// The page. Epochs beyond what it has room for are left out, with the flag that says so.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_BYTES];
        let has_more_epochs = self.has_more_epochs || self.epochs.len() > EPOCHS_MAX;
        let epochs = if has_more_epochs { &[][..] } else { &self.epochs[..] };
        page[0..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&self.chunk.to_le_bytes());
        page[16..24].copy_from_slice(&self.layout.chunk_size.to_le_bytes());
        page[24..28].copy_from_slice(&self.crc.to_le_bytes());
        page[28..32].copy_from_slice(&(if has_more_epochs { FLAG_MORE_EPOCHS } else { 0 }).to_le_bytes());
        page[32..40].copy_from_slice(&self.records.to_le_bytes());
        page[40..48].copy_from_slice(&self.events.to_le_bytes());
        page[48..52].copy_from_slice(&self.first_term.0.to_le_bytes());
        page[52..56].copy_from_slice(&self.last_term.0.to_le_bytes());
        let membership = self.membership.map_or(NO_POSITION, |position| position.0);
        page[56..64].copy_from_slice(&membership.to_le_bytes());
        page[64..68].copy_from_slice(&(epochs.len() as u32).to_le_bytes());
        for (epoch, place) in epochs.iter().zip(page[EPOCHS_OFFSET..CRC_OFFSET].chunks_exact_mut(EPOCH_BYTES)) {
            place[0..4].copy_from_slice(&epoch.term.0.to_le_bytes());
            place[8..16].copy_from_slice(&epoch.position.0.to_le_bytes());
            place[16..32].copy_from_slice(&epoch.id.0);
        }
        let crc = crc32c::crc32c(&page[..CRC_OFFSET]);
        page[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// Reads `page`, the last page of the file of chunk `chunk`; `None` when it is all zeros: the chunk is not sealed.
    ///
    /// # Errors
    /// What does not fit, with the expected and the found value, for people.
    ///
    /// # Panics
    /// When `page` is not a page.
    pub fn decode(page: &[u8], chunk: u32, layout: ChunkLayout) -> Result<Option<ChunkFooter>, String> {
        assert_eq!(page.len(), PAGE_BYTES);
        if page.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let (computed, stored) = (crc32c::crc32c(&page[..CRC_OFFSET]), u32_at(page, CRC_OFFSET));
        if computed != stored {
            return Err(format!("its checksum is {computed:08x}, the page says {stored:08x}"));
        }
        let version = u32_at(page, 8);
        if page[0..8] != MAGIC || version != FORMAT_VERSION {
            return Err(format!("it is not a footer of format version {FORMAT_VERSION}"));
        }
        let (found, size) = (u32_at(page, 12), u64_at(page, 16));
        if (found, size) != (chunk, layout.chunk_size) {
            return Err(format!(
                "it says that it is of chunk {found} with {size} bytes, not of chunk {chunk} with {}",
                layout.chunk_size
            ));
        }
        let membership = u64_at(page, 56);
        Ok(Some(ChunkFooter {
            chunk,
            layout,
            crc: u32_at(page, 24),
            records: u64_at(page, 32),
            events: u64_at(page, 40),
            first_term: Term(u32_at(page, 48)),
            last_term: Term(u32_at(page, 52)),
            epochs: decode_epochs(page)?,
            has_more_epochs: u32_at(page, 28) & FLAG_MORE_EPOCHS != 0,
            membership: (membership != NO_POSITION).then_some(LogPosition(membership)),
        }))
    }
}

fn decode_epochs(page: &[u8]) -> Result<Vec<Epoch>, String> {
    let count = u32_at(page, 64) as usize;
    if count > EPOCHS_MAX {
        return Err(format!("it says that it has {count} epochs, {EPOCHS_MAX} fit"));
    }
    let places = page[EPOCHS_OFFSET..CRC_OFFSET].chunks_exact(EPOCH_BYTES).take(count);
    let epoch = |place: &[u8]| Epoch {
        term: Term(u32_at(place, 0)),
        position: LogPosition(u64_at(place, 8)),
        id: Guid(place[16..32].try_into().expect("sixteen bytes")),
    };
    Ok(places.map(epoch).collect())
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

    const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };

    fn footer() -> ChunkFooter {
        ChunkFooter {
            chunk: 7,
            layout: LAYOUT,
            crc: 0x0102_0304,
            records: 5,
            events: 9,
            first_term: Term(2),
            last_term: Term(3),
            epochs: vec![Epoch { term: Term(3), position: LogPosition(0x0070_0040), id: Guid([0xA1; 16]) }],
            has_more_epochs: false,
            membership: Some(LogPosition(0x0070_0080)),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_layout() {
        let page = footer().encode();
        assert_eq!(page.len(), 4096);
        assert_eq!(
            hex(&page[..112]),
            concat!(
                "5253464f4f544552",
                "02000000",
                "07000000",
                "0000100000000000",
                "04030201",
                "00000000",
                "0500000000000000",
                "0900000000000000",
                "02000000",
                "03000000",
                "8000700000000000",
                "01000000",
                "000000000000000000000000",
                "03000000",
                "00000000",
                "4000700000000000",
                "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
            )
        );
        assert!(page[112..4092].iter().all(|&byte| byte == 0));
        assert_eq!(page[4092..], crc32c::crc32c(&page[..4092]).to_le_bytes());
        let none = ChunkFooter { membership: None, epochs: Vec::new(), ..footer() }.encode();
        assert_eq!(hex(&none[56..68]), "ffffffffffffffff00000000");
    }

    #[test]
    fn a_footer_is_read_as_it_was_written_and_any_flipped_bit_is_seen() {
        let page = footer().encode();
        assert_eq!(ChunkFooter::decode(&page, 7, LAYOUT), Ok(Some(footer())));
        assert_eq!(ChunkFooter::decode(&[0; 4096], 7, LAYOUT), Ok(None));
        for bit in 0..4096 * 8 {
            let mut bad = page.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ChunkFooter::decode(&bad, 7, LAYOUT).is_err(), "bit {bit}");
        }
        let error = ChunkFooter::decode(&page, 8, LAYOUT).unwrap_err();
        assert_eq!(error, "it says that it is of chunk 7 with 1048576 bytes, not of chunk 8 with 1048576");
    }

    #[test]
    fn more_epochs_than_fit_leave_a_flag_and_the_rest() {
        let epoch = |term: u32| Epoch { term: Term(term), position: LogPosition(u64::from(term) * 64), id: Guid::ZERO };
        let check = |count: u32, fits: bool| {
            let full = ChunkFooter { epochs: (0..count).map(epoch).collect(), ..footer() };
            let found = ChunkFooter::decode(&full.encode(), 7, LAYOUT).unwrap().unwrap();
            let expected =
                if fits { full } else { ChunkFooter { epochs: Vec::new(), has_more_epochs: true, ..footer() } };
            assert_eq!(found, expected);
        };
        check(EPOCHS_MAX as u32, true);
        check(EPOCHS_MAX as u32 + 1, false);
    }
}
