//! Recovery of any log, and those who read the log after it: a follower's scanner, and the index.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use ringstore::codec::record::{RecordKind, RecordView};
use ringstore::engine::Scanner;
use ringstore::limits::CHUNK_HEADER_BYTES;
use ringstore::storage::{
    ChunkHeader, ChunkLayout, Disk, DurableMark, FileInfo, FileName, Recovered, erase_tail, recover,
};
use ringstore::types::LogPosition;

use super::records::{mend_record, record, sample_bodies};
use super::tools::Input;

const CHUNK_SIZE: usize = 1 << 10;
const CHUNKS_MAX: usize = 3;
const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: CHUNK_SIZE as u64 };

/// Files in memory. What was written is there at once: what a crash leaves is what the input says.
#[derive(Debug, Default)]
pub(super) struct Files(pub(super) RefCell<BTreeMap<FileName, Vec<u8>>>);

impl Disk for Files {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let files = self.0.borrow();
        Ok(files.iter().map(|(&name, bytes)| FileInfo { name, length: bytes.len() as u64 }).collect())
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        let mut bytes = head.to_vec();
        bytes.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
        self.0.borrow_mut().insert(name, bytes);
        Ok(())
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let files = self.0.borrow();
        let bytes = files.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        into.copy_from_slice(bytes.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.borrow_mut();
        let file = files.get_mut(&name).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        file.get_mut(at..at + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, name: FileName) -> io::Result<()> {
        self.0.borrow().get(&name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// The input: chunks; a durable mark (a position in units of 8 bytes; 0xFF for none) for the last; then pieces of the
/// log, each of them how it is mended, its length in units of 8 bytes, and its bytes. Pieces follow each other; what
/// does not fit a chunk begins the next one when it is mended so (bit 3), behind a padding (bit 4).
pub(super) fn recovery(input: &[u8]) {
    let mut input = Input(input);
    let (disk, _) = disk_of(&mut input);
    let before = disk.0.borrow().clone();
    let Ok(recovered) = recover(&disk, LAYOUT, &mut |progress| assert!(progress.position <= progress.limit)) else {
        return;
    };
    check_recovered(&disk, &recovered);
    assert_eq!(*disk.0.borrow(), before, "recovery writes again what is there, and nothing else");
    erase_tail(&disk, LAYOUT, recovered.end).expect("a disk without faults");
    let again = recover(&disk, LAYOUT, &mut |_| ()).expect("what was recovered is recovered again");
    let expected = Recovered { cut: None, is_suspect: false, stale: Vec::new(), ..recovered.clone() };
    assert_eq!(again, expected, "a log whose tail is erased just ends");
    assert_eq!(erase_tail(&disk, LAYOUT, again.end).ok(), Some(0), "nothing is left to erase");
    check_scanner(&disk, &recovered, input.byte());
}

fn disk_of(input: &mut Input<'_>) -> (Files, usize) {
    let chunks = usize::from(input.byte()) % (CHUNKS_MAX + 1);
    let mark = input.byte();
    let mut log = vec![0; chunks * CHUNK_SIZE];
    let mut at = 0;
    while !input.is_empty() && at < log.len() {
        at = put_piece(&mut log, at, input);
    }
    let disk = Files::default();
    for (chunk, bytes) in log.chunks(CHUNK_SIZE).enumerate() {
        let chunk = u32::try_from(chunk).expect("few chunks");
        let mut file = ChunkHeader { chunk, layout: LAYOUT }.encode();
        if mark != 0xFF && chunk as usize + 1 == chunks {
            let (offset, slot) = DurableMark::encode_slot(1, LogPosition(u64::from(mark) * 8));
            file[offset as usize..offset as usize + slot.len()].copy_from_slice(&slot);
        }
        file.extend_from_slice(bytes);
        // Whatever a chunk file has behind the log's bytes is zero.
        file.resize(LAYOUT.file_length() as usize, 0);
        disk.0.borrow_mut().insert(FileName::Chunk(chunk), file);
    }
    (disk, at)
}

/// Puts the next piece at `at`; gives the place behind it.
fn put_piece(log: &mut [u8], mut at: usize, input: &mut Input<'_>) -> usize {
    let (mend, length) = (input.byte(), usize::from(input.byte()) * 8);
    let room = CHUNK_SIZE - at % CHUNK_SIZE;
    if length > room && mend & 8 != 0 {
        if mend & 16 != 0 && room >= 32 {
            let term = u32::from(input.byte());
            let padding = record(LogPosition(at as u64), term, RecordKind::Padding, 0, &vec![0; room - 32]);
            log[at..at + room].copy_from_slice(&padding);
        }
        at += room;
    }
    let end = log.len().min(at + length.min(CHUNK_SIZE - at % CHUNK_SIZE));
    let bytes = input.take(end.saturating_sub(at));
    if let Some(place) = log.get_mut(at..end) {
        place[..bytes.len()].copy_from_slice(bytes);
        mend_record(place, LogPosition(at as u64), mend);
    }
    end.max(at + 8)
}

/// Everything below the end checks out, by a reader without tricks, and each term's epoch comes first.
fn check_recovered(disk: &Files, recovered: &Recovered) {
    let Recovered { end, epochs, mark, chunk_count, .. } = recovered;
    assert!(*end <= LAYOUT.chunk_start(*chunk_count), "{end} lies beyond the files");
    assert!(mark.is_none_or(|mark| mark.position <= *end), "what was durable is there");
    assert!(epochs.windows(2).all(|pair| pair[0].term < pair[1].term && pair[0].position < pair[1].position));
    assert!(epochs.last().is_none_or(|epoch| epoch.term <= recovered.last_term && epoch.position < *end));
    let files = disk.0.borrow();
    let (mut at, mut term) = (LogPosition::ZERO, 0);
    let mut epochs = epochs.iter().peekable();
    while at < *end {
        let file = &files[&FileName::Chunk(LAYOUT.chunk_of(at))];
        let bytes = &file[LAYOUT.file_offset(at) as usize..];
        let record = RecordView::check(bytes, at, LAYOUT.room(at)).expect("a good record");
        let header = record.header;
        if let Some(epoch) = epochs.next_if(|epoch| epoch.position == at) {
            assert!(epoch.term.0 > term, "terms do not go back");
            term = epoch.term.0;
        }
        assert!(term > 0 && header.term.0 == term, "each term begins with its epoch");
        at = header.end();
    }
    assert_eq!((at, term), (*end, recovered.last_term.0));
    assert_eq!(epochs.next(), None);
}

/// A follower that receives these bytes takes them for the same log.
fn check_scanner(disk: &Files, recovered: &Recovered, step: u8) {
    let files = disk.0.borrow();
    let mut scanner = Scanner::new(LAYOUT, LogPosition::ZERO, None);
    let (mut epochs, mut record_end) = (ringstore::consensus::EpochTable::default(), LogPosition::ZERO);
    for (_, file) in files.iter() {
        let room = recovered.end.0.saturating_sub(scanner.position().0).min(LAYOUT.chunk_size) as usize;
        let head = CHUNK_HEADER_BYTES as usize;
        for piece in super::tools::pieces(&file[head..head + room], step) {
            let scanned = scanner.scan(piece).expect("what was recovered is the log of a leader");
            scanned.epochs.iter().for_each(|(epoch, _)| epochs.push(*epoch));
            record_end = scanned.record_end;
        }
    }
    assert_eq!(record_end, recovered.end);
    assert_eq!(epochs, ringstore::consensus::EpochTable::new(recovered.epochs.clone()));
}

pub(super) fn recovery_seeds() -> Vec<Vec<u8>> {
    let piece = |mend: u8, record: &[u8]| {
        let units = u8::try_from(record.len() / 8).expect("a small record");
        [&[mend, units], record].concat()
    };
    let samples = |at: u64, term: u32, count: usize| -> Vec<u8> {
        let kinds = sample_bodies().into_iter().take(count);
        kinds.flat_map(|(kind, events, body)| piece(6, &record(LogPosition(at), term, kind, events, &body))).collect()
    };
    let mut torn = [&[2, 5][..], &samples(0, 1, 4)].concat();
    torn.extend(piece(0, &[0x55; 64]));
    let terms = [&[1, 0xFF][..], &samples(0, 1, 1), &samples(0, 2, 1), &samples(0, 2, 0), &samples(0, 9, 3)].concat();
    let large = record(LogPosition(0), 1, RecordKind::Append, 0, &[1; 800]);
    let next = record(LogPosition(0), 2, RecordKind::Append, 0, &[1; 400]);
    let padded = [&[2, 3][..], &piece(6, &large), &[6 | 8 | 16, 54, 2], &next].concat();
    vec![torn, terms, padded, vec![1, 0], vec![0, 0xFF]]
}
