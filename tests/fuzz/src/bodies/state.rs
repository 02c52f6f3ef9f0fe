//! The small durable things: the state file, and a chunk's header page with its marks.

use ringstore::codec::record::{MemberRecord, MembershipBody};
use ringstore::storage::{
    ChunkHeader, ChunkLayout, DurableMark, DurableState, FileName, STATE_FILE_BYTES, STATE_FORMAT_VERSION,
    STATE_SLOT_BYTES, STATE_SLOT_OFFSETS,
};
use ringstore::types::{ClusterId, Guid, LogPosition, NodeId, Term};

use super::recovery::Files;
use super::tools::Input;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
const PAGE_BYTES: usize = 4096;
const MARK_SLOTS: [usize; 2] = [512, 1024];

/// A slot is the input's bytes with zeros behind them. The first byte says which of the two are mended, and how.
pub(super) fn slots(input: &[u8]) {
    let mut input = Input(input);
    let (mend, half) = (input.byte(), usize::from(input.byte()));
    let mut file = vec![0; STATE_FILE_BYTES as usize];
    for (index, slot) in file.chunks_exact_mut(STATE_SLOT_BYTES).enumerate() {
        let bytes = if index == 0 { input.take(half) } else { input.take(STATE_SLOT_BYTES) };
        slot[..bytes.len()].copy_from_slice(bytes);
        if mend & (1 << index) != 0 {
            slot[..8].copy_from_slice(b"RSSTATE\0");
            slot[8..12].copy_from_slice(&STATE_FORMAT_VERSION.to_le_bytes());
        }
        if mend & (4 << index) != 0 {
            let crc = crc32c::crc32c(&slot[..STATE_SLOT_BYTES - 4]);
            slot[STATE_SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let disk = Files::default();
    disk.0.borrow_mut().insert(FileName::State, file);
    let Ok(state) = DurableState::load(&disk) else { return };
    let mut state = state.expect("there is a file");
    assert_eq!(DurableState::load(&disk).ok(), Some(Some(state.clone())), "the same when it is loaded again");
    // The next save is found, whichever slot rots then.
    let before = state.sequence;
    state.sequence = state.sequence.saturating_add(1);
    state.term = Term(state.term.0 ^ 1);
    state.save(&disk).expect("a disk without faults");
    if state.sequence > before {
        for slot in STATE_SLOT_OFFSETS {
            let at = slot as usize + 100;
            disk.0.borrow_mut().get_mut(&FileName::State).expect("there is a file")[at] ^= 0x10;
            assert_eq!(DurableState::load(&disk).ok(), Some(Some(state.clone())));
        }
    }
}

/// A page is the input's bytes with zeros behind them, the marks' slots apart. The first byte says what is mended.
pub(super) fn chunk_header(input: &[u8]) {
    let mut input = Input(input);
    let mend = input.byte();
    let mut page = vec![0; PAGE_BYTES];
    page[..32].iter_mut().for_each(|byte| *byte = input.byte());
    if mend & 1 != 0 {
        let crc = crc32c::crc32c(&page[..28]);
        page[28..32].copy_from_slice(&crc.to_le_bytes());
    }
    for (index, at) in MARK_SLOTS.into_iter().enumerate() {
        let bytes = input.take(20);
        page[at..at + bytes.len()].copy_from_slice(bytes);
        if mend & (2 << index) != 0 {
            let crc = crc32c::crc32c(&page[at..at + 16]);
            page[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let header = ChunkHeader { chunk: 7, layout: LAYOUT };
    if header.check(&page).is_ok() {
        assert_eq!(page[..24], header.encode()[..24], "what checks out is what would be written");
    }
    check_marks(&page);
}

fn check_marks(page: &[u8]) {
    let at = |offset: usize| u64::from_le_bytes(page[offset..offset + 8].try_into().expect("eight bytes"));
    let good = MARK_SLOTS
        .into_iter()
        .filter(|&slot| crc32c::crc32c(&page[slot..slot + 16]).to_le_bytes() == page[slot + 16..slot + 20]);
    let expected = good.map(|slot| (at(slot), at(slot + 8))).max_by_key(|(sequence, _)| *sequence);
    let found = DurableMark::read_newest(page).map(|mark| (mark.sequence, mark.position.0));
    assert_eq!(found, expected, "as a reader without tricks reads it");
}

pub(super) fn slots_seeds() -> Vec<Vec<u8>> {
    let member = MemberRecord {
        node: NodeId(Guid([1; 16])),
        int_ip: std::net::IpAddr::from([10, 0, 0, 1]),
        int_tcp_port: 1112,
        int_http_port: 2112,
    };
    let mut state = DurableState::new(NodeId(Guid([1; 16])), 256 << 20);
    let empty = state.encode();
    state.sequence = 1;
    let members = (1..=3).map(|n| MemberRecord { node: NodeId(Guid([n; 16])), ..member }).collect();
    state.founding = Some(MembershipBody { cluster: ClusterId(Guid([9; 16])), members });
    (state.founded, state.term, state.voted_for) = (true, Term(5), Some(NodeId(Guid([2; 16]))));
    state.commit_hint = LogPosition(0x1234);
    let founded = state.encode();
    vec![
        [&[0b1111, 84], &empty[..84], &founded[..220]].concat(),
        [&[0b0101, 220], &founded[..220]].concat(),
        [&[0b1010, 0], &founded[..220]].concat(),
    ]
}

pub(super) fn chunk_header_seeds() -> Vec<Vec<u8>> {
    let page = ChunkHeader { chunk: 7, layout: LAYOUT }.encode();
    let mark = |sequence| DurableMark::encode_slot(sequence, LogPosition(sequence * 800)).1[..20].to_vec();
    vec![[&[7], &page[..32], &mark(4), &mark(3)].concat(), [&[0], &page[..32]].concat()]
}
