//! The files of the index: its manifest and a table, behind their checksums.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use ringstore::codec::record::RecordKind;
use ringstore::index::{Index, TableFile, TableStore, Upkeep, UpkeepBounds, UpkeepLinks};
use ringstore::storage::{ChunkLayout, DamageReports, LogRead, ReadError};
use ringstore::types::LogPosition;

use super::records::record;
use super::tools::Input;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 12 };
const PAGE: usize = 4096;
const PAGE_DATA: usize = PAGE - 4;
const PAGES_MAX: usize = 4;
const END: u64 = 64;
const TABLE: u64 = 1;
const MANIFEST: &str = "manifest";
const TABLE_FILE: &str = "table-0000000001";
const STRANGER: &str = "stranger";

/// A single table is merged with itself, in steps that end within it.
const BOUNDS: UpkeepBounds =
    UpkeepBounds { events: 60, bytes: 1 << 20, log_bytes: 1 << 20, step_bytes: 1024, merge_tables: 1 };
const STEPS_MAX: usize = 64;

#[derive(Debug, Default)]
struct Files(Mutex<BTreeMap<String, Vec<u8>>>);

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl TableFile for Bytes {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..at.checked_add(into.len())?));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl TableStore for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().keys().cloned().collect())
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.entry(name.to_owned()).or_default();
        file.truncate(usize::try_from(offset).map_err(io::Error::other)?);
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn publish(&self, written: &str, name: &str) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(written).ok_or(io::ErrorKind::NotFound)?;
        files.insert(name.to_owned(), file);
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn TableFile>> {
        let files = self.0.lock();
        Ok(Arc::new(Bytes(files.get(name).ok_or(io::ErrorKind::NotFound)?.clone())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().remove(name);
        Ok(())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// A log of one record.
struct Log(Vec<u8>);

impl LogRead for Log {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        visit(&self.0[(position.0 % LAYOUT.chunk_size) as usize..]);
        Ok(())
    }
}

fn log() -> Log {
    let mut bytes = record(LogPosition(0), 1, RecordKind::Epoch, 0, &[0; 32]);
    assert_eq!(bytes.len() as u64, END);
    bytes.resize(LAYOUT.chunk_size as usize, 0);
    Log(bytes)
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn manifest() -> Vec<u8> {
    let mut out = b"RSINDEX\0\x01\0\0\0\x01\0\0\0".to_vec();
    [7, 2, LAYOUT.chunk_size, END, TABLE, 0, END].iter().for_each(|number: &u64| out.extend(number.to_le_bytes()));
    out
}

fn with_crc(mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&body);
    body.extend(crc.to_le_bytes());
    body
}

fn open(manifest: Vec<u8>, table: Vec<u8>) -> Index {
    let files = [(MANIFEST, manifest), (TABLE_FILE, table), (STRANGER, Vec::new())];
    let store = Arc::new(Files(Mutex::new(files.map(|(name, bytes)| (name.to_owned(), bytes)).into())));
    let kept = Arc::clone(&store);
    let index = Index::open(store, &log(), LAYOUT, LogPosition(END), 1).expect("what is damaged is made again");
    assert!(index.applied().0 <= END, "no more than the log has");
    assert!(!kept.0.lock().contains_key(STRANGER), "the folder is tidied up");
    index
}

/// The first byte says what is mended: 1 the head, 4 the checksum.
pub(super) fn index_manifest(input: &[u8]) {
    let mut input = Input(input);
    let mend = input.byte();
    let mut bytes = input.rest().to_vec();
    if mend & 1 != 0 && bytes.len() >= 16 {
        bytes[..12].copy_from_slice(&manifest()[..12]);
    }
    let bytes = if mend & 4 != 0 { with_crc(bytes) } else { bytes };
    let index = open(bytes, Vec::new());
    let figures = index.figures();
    assert_eq!((figures.tables, figures.events), (0, 0), "there is no good table");
}

pub(super) fn index_manifest_seeds() -> Vec<Vec<u8>> {
    vec![
        [&[4], &manifest()[..]].concat(),
        [&[0], &with_crc(manifest())[..]].concat(),
        [&[5], &manifest()[..16]].concat(),
    ]
}

/// The first byte says what of the last page is mended (1: what it begins with, its number and its piece of the log; 2: its
/// last record); then come pages, each of them its length and its bytes, with zeros behind them and a good checksum.
pub(super) fn index_table(input: &[u8]) {
    let mut input = Input(input);
    let mend = input.byte();
    let mut pages = vec![vec![0; PAGE_DATA]; 1 + usize::from(input.byte()) % PAGES_MAX];
    for page in pages.iter_mut().rev() {
        let length = usize::from(input.byte()) | usize::from(input.byte()) << 8;
        let bytes = input.take(length.min(PAGE_DATA));
        page[..bytes.len()].copy_from_slice(bytes);
    }
    let log = log();
    let last = pages.last_mut().expect("at least one");
    if mend & 1 != 0 {
        last[..12].copy_from_slice(b"RSTABLE\0\x01\0\0\0");
        [TABLE, 0, END].into_iter().zip([16, 24, 32]).for_each(|(number, at)| put(last, at, number));
    }
    if mend & 2 != 0 {
        put(last, 72, 0);
        last[12..16].copy_from_slice(&log.0[4..8]);
    }
    let mut file = Vec::with_capacity(pages.len() * PAGE);
    for (page, data) in (0_u64..).zip(&pages) {
        let place = [TABLE.to_le_bytes(), page.to_le_bytes()].concat();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&place), data);
        file.extend_from_slice(data);
        file.extend(crc.to_le_bytes());
    }
    let index = Arc::new(open(with_crc(manifest()), file));
    if look_up(&index) {
        keep_up(&index, log);
        look_up(&index);
    }
}

/// The table is merged, or found out and made again from the log: it never stands in the way for good.
fn keep_up(index: &Arc<Index>, log: Log) {
    let links = UpkeepLinks {
        index: Arc::clone(index),
        log: Box::new(log),
        layout: LAYOUT,
        durable: Box::new(|| LogPosition(END)),
        damage: DamageReports::default(),
    };
    let mut upkeep = Upkeep::new(links, BOUNDS);
    let now = Instant::now();
    let mut is_done = || {
        upkeep.step(now);
        let figures = index.figures();
        figures.merges > 0 || figures.rebuilds > 0
    };
    assert!((0..STEPS_MAX).any(|_| is_done()), "{:?} after {STEPS_MAX} steps", index.figures());
}

/// True when the table was good enough to be opened.
fn look_up(index: &Index) -> bool {
    let is_open = index.figures().tables > 0;
    let mut out = Vec::new();
    for stream in ["", "a", "orders-1", "$$a"] {
        let (head, info) = (index.head(stream), index.stream(stream));
        if let (Ok(head), Ok(Some(info))) = (&head, &info) {
            assert_eq!(head.last_event_number, info.last_event_number, "{stream}");
        }
        for (first, count) in [(0, 3), (-1, 1), (i64::MAX - 1, 2)] {
            if index.positions(stream, first, count, &mut out).is_ok() {
                assert!(out.len() <= count, "no more than was asked for");
            }
        }
    }
    let start = index.record_at_or_before(LogPosition(END));
    assert!(start.0 < END, "a start of a record");
    assert!(index.next_visible(LogPosition(0)).is_none_or(|next| next.0 <= END), "a record that is there");
    is_open
}

pub(super) fn index_table_seeds() -> Vec<Vec<u8>> {
    let mut last = vec![0; 176];
    [1, 1, 1, u64::MAX, 0].into_iter().zip([40, 48, 56, 64, 72]).for_each(|(number, at)| put(&mut last, at, number));
    // One entry: hash, length, head, name "a", one event with number 0 at 0.
    let body = [1, 1, b'a', 1, 0, 1, 0];
    let entry = [&[0x11; 8][..], &[body.len() as u8], &body].concat();
    put(&mut last, 88, entry.len() as u64);
    let place = [&[0x11; 8][..], &[0; 16]].concat();
    put(&mut last, 96, PAGE_DATA as u64);
    put(&mut last, 104, place.len() as u64);
    let page = |bytes: &[u8]| [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat();
    vec![
        [&[3, 2][..], &page(&last), &page(&place), &page(&entry)].concat(),
        [&[3, 0][..], &page(&last[..80])].concat(),
        vec![1, 0],
    ]
}
