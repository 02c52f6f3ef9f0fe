//! Ranges of a log of three chunks, damaged and repaired from a good copy of it.

use std::cell::Cell;

use super::*;
use crate::codec::record::{RecordKind, padding, seal};
use crate::storage::chunk::ChunkHeader;
use crate::storage::memory::MemoryDisk;
use crate::types::Guid;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 4096 };

/// A good log, where its records begin, and its epochs.
struct Log {
    disk: MemoryDisk,
    bytes: Vec<u8>,
    starts: Vec<LogPosition>,
    epochs: Vec<Epoch>,
}

impl Log {
    fn new() -> Log {
        let mut log = Log { disk: MemoryDisk::default(), bytes: Vec::new(), starts: Vec::new(), epochs: Vec::new() };
        for number in 0..40_u32 {
            let term = Term(1 + number / 15);
            if number % 15 == 0 {
                log.epochs.push(Epoch { term, position: log.end(), id: Guid::ZERO });
            }
            log.append(term, 40 + number as usize % 7 * 48);
        }
        for chunk in 0..3 {
            let page = ChunkHeader { chunk, layout: LAYOUT }.encode();
            log.disk.create(FileName::Chunk(chunk), &page, LAYOUT.file_length()).unwrap();
        }
        let bytes = std::mem::take(&mut log.bytes);
        for (chunk, piece) in (0..).zip(bytes.chunks(4096)) {
            log.disk.write_at(FileName::Chunk(chunk), 4096, piece).unwrap();
        }
        log.bytes = bytes;
        log
    }

    fn end(&self) -> LogPosition {
        LogPosition(self.bytes.len() as u64)
    }

    fn append(&mut self, term: Term, length: usize) {
        let room = LAYOUT.room(self.end()) as usize;
        if length + RECORD_HEADER_BYTES > room {
            let mut rest = vec![0; room];
            padding(&mut rest, self.end(), term, 0);
            self.starts.push(self.end());
            self.bytes.extend_from_slice(&rest);
        }
        self.starts.push(self.end());
        let mut record = vec![0x5a; length];
        let (position, kind) = (self.end(), RecordKind::Append);
        seal(&mut record, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 1, timestamp: 0 });
        self.bytes.extend_from_slice(&record);
    }

    fn flip(&self, position: u64, bit: u8) {
        let at = LogPosition(position);
        let offset = LAYOUT.file_offset(at) as usize;
        self.disk.edit(FileName::Chunk(LAYOUT.chunk_of(at)), |bytes| bytes[offset] ^= 1 << bit);
    }

    /// What the disk holds from `from` to the end of its chunk or of the log.
    fn on_disk(&self, from: LogPosition) -> Vec<u8> {
        let length = LAYOUT.room(from).min(self.end().since(from));
        let mut bytes = vec![0; length as usize];
        self.disk.read_at(FileName::Chunk(LAYOUT.chunk_of(from)), LAYOUT.file_offset(from), &mut bytes).unwrap();
        bytes
    }

    fn damage(&self, from: LogPosition) -> Option<Damage> {
        damage_at(LAYOUT, &self.on_disk(from), from)
    }

    fn is_whole(&self) -> bool {
        (0..self.end().0).step_by(4096).all(|at| {
            let from = LogPosition(at);
            self.on_disk(from) == self.bytes[at as usize..(at + LAYOUT.room(from)).min(self.end().0) as usize]
        })
    }

    fn repair(&self, damage: &Damage, source: &dyn RangeSource) -> Result<Repaired, RepairError> {
        repair_range(&self.disk, LAYOUT, &self.epochs, damage, source)
    }
}

/// Gives what `bytes` hold, so much at a time.
struct Copy {
    bytes: Vec<u8>,
    at_once: u64,
    asked: Cell<u32>,
}

impl Copy {
    fn of(log: &Log) -> Copy {
        Copy { bytes: log.bytes.clone(), at_once: 4096, asked: Cell::new(0) }
    }
}

impl RangeSource for Copy {
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
        self.asked.set(self.asked.get() + 1);
        let mut end = from;
        while end < to && (end == from || end.since(from) < self.at_once) {
            let length = u32::from_le_bytes(self.bytes[end.0 as usize..end.0 as usize + 4].try_into().unwrap());
            end = end.plus(u64::from(length));
        }
        Ok(self.bytes[from.0 as usize..end.0 as usize].to_vec())
    }

    fn describe(&self) -> String {
        "the copy".to_owned()
    }
}

#[test]
fn any_flipped_bit_of_any_record_is_found_and_repaired() {
    let log = Log::new();
    let source = Copy::of(&log);
    for (index, &from) in log.starts.iter().enumerate() {
        let to = log.starts.get(index + 1).copied().unwrap_or(log.end());
        for (round, at) in (from.0..to.0).step_by(5).enumerate() {
            log.flip(at, round as u8 % 8);
            let damage = log.damage(from).unwrap_or_else(|| panic!("{at} in the record at {from}"));
            assert_eq!((damage.from, damage.to, damage.chunk), (from, to, LAYOUT.chunk_of(from)), "{at}");
            let repaired = log.repair(&damage, &source).unwrap();
            assert_eq!((repaired.bytes, repaired.records), (to.since(from), 1));
            assert!(log.is_whole() && log.damage(from).is_none(), "{at}");
        }
    }
}

#[test]
fn many_records_are_repaired_in_pieces_and_are_durable_then() {
    let log = Log::new();
    log.disk.sync_all();
    let (from, to) = (log.starts[3], LogPosition(4096));
    for at in (from.0..to.0).step_by(8) {
        log.flip(at, 1);
    }
    let damage = log.damage(from).unwrap();
    assert_eq!((damage.from, damage.to), (from, to));
    let source = Copy { at_once: 600, ..Copy::of(&log) };
    assert!(log.repair(&damage, &source).unwrap().records > 5);
    assert!(source.asked.get() > 2);
    log.disk.crash();
    assert!(log.is_whole());
}

#[test]
fn what_does_not_belong_there_is_never_written() {
    let log = Log::new();
    let (from, to) = (log.starts[20], log.starts[21]);
    log.flip(from.0 + 33, 0);
    let (damage, before) = (log.damage(from).unwrap(), log.on_disk(from));
    let check = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut source = Copy::of(&log);
        change(&mut source.bytes);
        let error = log.repair(&damage, &source).unwrap_err();
        assert!(matches!(&error, RepairError::Unfit { reason, .. } if reason.contains(what)), "{what}: {error}");
        assert_eq!(log.on_disk(from), before, "{what}");
    };
    let reseal = |bytes: &mut Vec<u8>, term: u32| {
        let record = &mut bytes[from.0 as usize..to.0 as usize];
        let header = Header::read(record, from, LAYOUT.room(from)).unwrap();
        seal(record, Header { term: Term(term), ..header });
    };
    check("checksum", &|bytes| bytes[from.0 as usize + 34] ^= 4);
    check("says that it belongs", &|bytes| bytes[from.0 as usize + 8] ^= 8);
    check("of term 1, this node's epochs say 2", &|bytes| reseal(bytes, 1));
    check("of term 3, this node's epochs say 2", &|bytes| reseal(bytes, 3));
    // Where no epochs are known, what follows still says something.
    let mut source = Copy::of(&log);
    reseal(&mut source.bytes, 9);
    let error = repair_range(&log.disk, LAYOUT, &[], &damage, &source).unwrap_err();
    assert!(error.to_string().contains("what follows here is of term 2"), "{error}");
    assert_eq!(log.on_disk(from), before);
}

#[test]
fn a_source_that_fails_leaves_the_damage() {
    struct Fails;
    impl RangeSource for Fails {
        fn fetch(&self, _: LogPosition, needed: LogPosition) -> Result<Vec<u8>, FetchError> {
            Err(FetchError::Behind { peer: "b".to_owned(), committed: LogPosition(8), needed })
        }
        fn describe(&self) -> String {
            "b".to_owned()
        }
    }
    let log = Log::new();
    log.flip(100, 3);
    let from = *log.starts.iter().rfind(|start| start.0 <= 100).unwrap();
    let damage = log.damage(from).unwrap();
    let error = log.repair(&damage, &Fails).unwrap_err();
    assert!(matches!(error, RepairError::Fetch(FetchError::Behind { .. })), "{error}");
    assert!(log.damage(from).is_some());
}

#[test]
fn damage_to_the_last_record_ends_where_the_committed_log_does() {
    let log = Log::new();
    let last = *log.starts.last().unwrap();
    for at in 0..4 {
        log.flip(last.0 + at, 7);
    }
    let damage = log.damage(last).unwrap();
    assert_eq!((damage.from, damage.to), (last, log.end()));
    log.repair(&damage, &Copy::of(&log)).unwrap();
    assert!(log.is_whole());
}
