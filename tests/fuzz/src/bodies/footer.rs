//! The footer page of a sealed chunk, and what a peer says of its log.

use ringstore::background::LogInfo;
use ringstore::storage::{ChunkFooter, ChunkLayout};
use ringstore::types::{Epoch, Guid, Term};
use serde_json::json;

use super::tools::Input;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
const CHUNK: u32 = 7;
const PAGE_BYTES: usize = 4096;
const EPOCHS_MAX: usize = 125;

/// A page is the input's bytes with zeros behind them. The first byte says what is mended: 1 what it begins with, 2 its
/// place, 4 its checksum.
pub(super) fn chunk_footer(input: &[u8]) {
    let mut input = Input(input);
    let mend = input.byte();
    let mut page = [0; PAGE_BYTES];
    let bytes = input.take(PAGE_BYTES);
    page[..bytes.len()].copy_from_slice(bytes);
    let good = &footer(0).encode()[..24];
    if mend & 1 != 0 {
        page[..12].copy_from_slice(&good[..12]);
    }
    if mend & 2 != 0 {
        page[12..24].copy_from_slice(&good[12..]);
    }
    if mend & 4 != 0 {
        let crc = crc32c::crc32c(&page[..PAGE_BYTES - 4]);
        page[PAGE_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    let Ok(found) = ChunkFooter::decode(&page, CHUNK, LAYOUT) else { return };
    let Some(found) = found else {
        assert!(page.iter().all(|byte| *byte == 0), "only a page of zeros is none");
        return;
    };
    assert_eq!((found.chunk, found.layout), (CHUNK, LAYOUT));
    assert!(found.epochs.len() <= EPOCHS_MAX, "{} epochs", found.epochs.len());
    let number = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!((found.records, found.events), (number(32), number(40)));
    // A page that says that more epochs begin has none; what an unwritable one lists besides is not kept.
    let kept = if found.has_more_epochs { Vec::new() } else { found.epochs.clone() };
    let again = ChunkFooter::decode(&found.encode(), CHUNK, LAYOUT);
    assert_eq!(again, Ok(Some(ChunkFooter { epochs: kept, ..found })));
    assert!(ChunkFooter::decode(&page, CHUNK + 1, LAYOUT).is_err(), "it is of one chunk only");
    page[30] ^= 1;
    assert!(ChunkFooter::decode(&page, CHUNK, LAYOUT).is_err(), "a flipped bit is seen");
}

fn footer(epochs: u32) -> ChunkFooter {
    let start = LAYOUT.chunk_start(CHUNK);
    let epoch = |term: u32| Epoch { term: Term(term), position: start.plus(u64::from(term) * 64), id: Guid([7; 16]) };
    ChunkFooter {
        chunk: CHUNK,
        layout: LAYOUT,
        crc: 0x0102_0304,
        records: 5,
        events: 9,
        first_term: Term(1),
        last_term: Term(epochs + 1),
        epochs: (2..epochs + 2).map(epoch).collect(),
        has_more_epochs: false,
        membership: (epochs > 0).then_some(start.plus(128)),
    }
}

pub(super) fn chunk_footer_seeds() -> Vec<Vec<u8>> {
    let seed = |epochs: u32| [&[7], &footer(epochs).encode()[..80 + 32 * epochs as usize]].concat();
    vec![seed(0), seed(1), seed(3), [&[0], &footer(2).encode()[..]].concat(), vec![0]]
}

/// The answer of another node to `GET /log/info`.
pub(super) fn log_info(input: &[u8]) {
    let Ok(info) = serde_json::from_slice::<LogInfo>(input) else { return };
    let epochs: Vec<_> =
        info.epochs.iter().map(|epoch| json!({ "term": epoch.term, "position": epoch.position })).collect();
    let text = json!({
        "cluster": info.cluster,
        "commitPosition": info.commit_position,
        "durablePosition": info.durable_position,
        "term": info.term,
        "epochs": epochs,
        "chunkSize": info.chunk_size,
    });
    assert_eq!(serde_json::from_value::<LogInfo>(text).ok(), Some(info), "the same when it is said again");
}

pub(super) fn log_info_seeds() -> Vec<Vec<u8>> {
    let epochs = r#"[{"term":1,"position":0,"id":"01010101-0101-0101-0101-010101010101"},{"term":3,"position":640}]"#;
    let cluster = "09090909-0909-0909-0909-090909090909";
    let whole = format!(
        r#"{{"cluster":"{cluster}","node":"{cluster}","term":3,"commitPosition":2155,"durablePosition":3000,"logEnd":3000,"chunkSize":1048576,"firstPosition":0,"epochs":{epochs}}}"#
    );
    vec![whole.into_bytes(), br#"{"commitPosition":0,"chunkSize":4096}"#.to_vec()]
}
