//! Two logs that were the same once, one of them damaged: what is mended is what was there, or it is not touched.

use std::cell::RefCell;

use super::*;
use crate::codec::record::{EpochBody, RecordKind, seal};
use crate::storage::chunk::ChunkHeader;
use crate::storage::memory::MemoryDisk;
use crate::storage::{recover, survey};
use crate::types::{Guid, NodeId};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 8192 };

/// A log in the making.
#[derive(Clone, Default)]
struct Log {
    bytes: Vec<u8>,
    starts: Vec<u64>,
    epochs: Vec<Epoch>,
}

impl Log {
    fn end(&self) -> LogPosition {
        LogPosition(self.bytes.len() as u64)
    }

    /// `count` records of `term` and of `length` bytes; the first is an epoch when the term is new.
    fn with(mut self, term: u32, length: usize, count: usize, fill: u8) -> Log {
        for _ in 0..count {
            let (position, term) = (self.end(), Term(term));
            let is_epoch = self.epochs.last().is_none_or(|last| last.term < term);
            let mut record = vec![fill; length];
            if is_epoch {
                self.epochs.push(Epoch { term, position, id: Guid::ZERO });
                let (epoch_id, leader) = (Guid([term.0 as u8; 16]), NodeId(Guid([1; 16])));
                let body = EpochBody { epoch_id, leader, previous: None }.encode();
                record.fill(0);
                record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
            }
            let kind = if is_epoch { RecordKind::Epoch } else { RecordKind::Append };
            let event_count = u16::from(!is_epoch);
            seal(&mut record, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 1 });
            self.starts.push(position.0);
            self.bytes.extend_from_slice(&record);
        }
        self
    }

    /// On a disk, all of it durable, with a mark at its end.
    fn on_disk(&self) -> MemoryDisk {
        let disk = MemoryDisk::default();
        for chunk in 0..3 {
            let name = FileName::Chunk(chunk);
            disk.create(name, &ChunkHeader { chunk, layout: LAYOUT }.encode(), LAYOUT.file_length()).unwrap();
        }
        for (chunk, piece) in (0..).zip(self.bytes.chunks(8192)) {
            disk.write_at(FileName::Chunk(chunk), 4096, piece).unwrap();
        }
        let (offset, slot) = DurableMark::encode_slot(1, self.end());
        disk.write_at(FileName::Chunk(0), offset, &slot).unwrap();
        disk.sync_all();
        disk
    }
}

struct Peer {
    log: RefCell<Log>,
    committed: LogPosition,
    term: RefCell<Term>,
}

impl Peer {
    fn new(log: &Log, committed: u64) -> Peer {
        let term = RefCell::new(Term(9));
        Peer { log: RefCell::new(log.clone()), committed: LogPosition(committed), term }
    }
}

impl RangeSource for Peer {
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
        let log = self.log.borrow();
        assert!(to <= log.end(), "{to} of {}", log.end());
        let refused = || FetchError::Refused { peer: "p".to_owned(), status: 400, words: "cut elsewhere".to_owned() };
        let mut end = from;
        while end < to && LAYOUT.chunk_of(end) == LAYOUT.chunk_of(from) {
            if !log.starts.contains(&end.0) {
                return Err(refused());
            }
            let length = u32::from_le_bytes(log.bytes[end.0 as usize..end.0 as usize + 4].try_into().unwrap());
            if end.plus(u64::from(length)) > to {
                break;
            }
            end = end.plus(u64::from(length));
        }
        if end == from { Err(refused()) } else { Ok(log.bytes[from.0 as usize..end.0 as usize].to_vec()) }
    }

    fn describe(&self) -> String {
        "p".to_owned()
    }
}

impl LogPeer for Peer {
    fn facts(&self) -> Result<PeerFacts, FetchError> {
        let log = self.log.borrow();
        let (committed, flushed, epochs) = (self.committed, log.end(), log.epochs.clone());
        Ok(PeerFacts { committed, flushed, term: *self.term.borrow(), epochs })
    }
}

fn flip(disk: &MemoryDisk, position: u64) {
    let at = LogPosition(position);
    disk.edit(FileName::Chunk(LAYOUT.chunk_of(at)), |bytes| bytes[LAYOUT.file_offset(at) as usize] ^= 4);
}

fn holds(disk: &MemoryDisk, log: &Log) -> bool {
    let mut bytes = Vec::new();
    for chunk in 0..3 {
        let mut piece = vec![0; 8192];
        disk.read_at(FileName::Chunk(chunk), 4096, &mut piece).unwrap();
        bytes.extend_from_slice(&piece);
    }
    bytes[..log.bytes.len()] == log.bytes && bytes[log.bytes.len()..].iter().all(|&byte| byte == 0)
}

/// Where recovery stops, and what is known there.
fn gap(disk: &MemoryDisk, committed: u64) -> Gap {
    let committed = LogPosition(committed);
    let recovered = recover(disk, LAYOUT, &mut |_| {}).and_then(|found| found.check_committed(LAYOUT, committed));
    let Err(RecoveryError::Corrupt { position, .. }) = recovered else { panic!("{recovered:?}") };
    Gap { from: position, committed, survey: survey(disk, LAYOUT).unwrap() }
}

fn mend(disk: &MemoryDisk, committed: u64, peer: &Peer) -> Result<Mended, RepairError> {
    mend_range(disk, LAYOUT, &gap(disk, committed), peer)
}

fn common() -> Log {
    Log::default().with(1, 128, 20, 1)
}

#[test]
fn a_record_in_common_behind_the_damage_proves_what_was_lost_although_nobody_committed_it() {
    let log = common().with(5, 128, 60, 5);
    for index in [0, 1, 19, 20, 40, 62, 63, 64, 78] {
        let disk = log.on_disk();
        flip(&disk, log.starts[index] + 40);
        let outcome = mend(&disk, 0, &Peer::new(&log, 0));
        assert!(matches!(outcome, Ok(Mended::Repaired(_))), "{index}: {outcome:?}");
        assert!(holds(&disk, &log), "{index}");
    }
}

#[test]
fn the_bytes_of_another_term_never_come_behind_a_tail_that_was_not_committed() {
    let ours = common().with(5, 128, 10, 5);
    for (length, name) in [(128, "the same boundaries"), (136, "others")] {
        let theirs = common().with(6, length, 4, 6).with(7, length, 20, 7);
        let disk = ours.on_disk();
        flip(&disk, ours.starts[24] + 50);
        let before = disk.files.borrow().clone();
        let outcome = mend(&disk, 1280, &Peer::new(&theirs, theirs.end().0));
        assert!(matches!(outcome, Ok(Mended::Diverged { common: LogPosition(2560) })), "{name}: {outcome:?}");
        assert!(*disk.files.borrow() == before, "{name}: nothing is written");
        let Gap { from, survey, .. } = gap(&disk, 1280);
        cut_tail(&disk, LAYOUT, &survey, from).unwrap();
        let found = recover(&disk, LAYOUT, &mut |_| {}).unwrap();
        assert_eq!((found.end.0, found.is_suspect, found.mark.unwrap().sequence), (ours.starts[24], false, 2));
    }
}

#[test]
fn nothing_is_cut_below_what_is_known_to_be_committed() {
    let ours = common().with(5, 128, 10, 5);
    let theirs = common().with(6, 128, 24, 6);
    let disk = ours.on_disk();
    flip(&disk, ours.starts[24] + 50);
    let outcome = mend(&disk, ours.starts[22], &Peer::new(&theirs, theirs.end().0)).unwrap();
    assert!(matches!(outcome, Mended::Unsure { may_cut: false, .. }), "{outcome:?}");
}

#[test]
fn a_tail_that_is_lost_is_taken_only_where_it_is_committed() {
    let log = common().with(5, 128, 10, 5);
    let disk = log.on_disk();
    // In its checksum: otherwise its head would prove what it was.
    flip(&disk, log.starts[29] + 5);
    let outcome = mend(&disk, 0, &Peer::new(&log, log.starts[29])).unwrap();
    assert!(matches!(outcome, Mended::Unsure { may_cut: true, .. }), "{outcome:?}");
    let outcome = mend(&disk, 0, &Peer::new(&log, log.end().0)).unwrap();
    assert!(matches!(outcome, Mended::Repaired(_)) && holds(&disk, &log), "{outcome:?}");
}

#[test]
fn what_is_committed_on_both_is_the_same_whatever_follows() {
    // All of the second chunk's begin is gone, and what follows is not on the other node yet.
    let log = common().with(5, 128, 80, 5);
    let disk = log.on_disk();
    for index in 60..90 {
        flip(&disk, log.starts[index] + 9);
    }
    let short = Log { bytes: log.bytes[..log.starts[70] as usize].to_vec(), ..log.clone() };
    let peer = Peer::new(&short, log.starts[70]);
    mend(&disk, log.starts[70], &peer).unwrap();
    assert_eq!(gap(&disk, log.starts[70]).from, LogPosition(8192));
    mend(&disk, log.starts[70], &peer).unwrap();
    assert_eq!(gap(&disk, log.starts[70]).from.0, log.starts[70]);
}

#[test]
fn a_peer_whose_term_changes_meanwhile_is_asked_again() {
    struct Changing(Peer);
    impl RangeSource for Changing {
        fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
            self.0.term.borrow_mut().0 += 1;
            self.0.fetch(from, to)
        }
        fn describe(&self) -> String {
            self.0.describe()
        }
    }
    impl LogPeer for Changing {
        fn facts(&self) -> Result<PeerFacts, FetchError> {
            self.0.facts()
        }
    }
    let log = common();
    let disk = log.on_disk();
    flip(&disk, log.starts[7] + 50);
    let error = mend_range(&disk, LAYOUT, &gap(&disk, 0), &Changing(Peer::new(&log, 0))).unwrap_err();
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
    assert_eq!(gap(&disk, 0).from.0, log.starts[7]);
}

/// A disk with sectors that cannot be read, nor written in part, until they are written whole.
struct BadSectors<'a> {
    disk: &'a MemoryDisk,
    pages: RefCell<Vec<(FileName, u64)>>,
}

impl BadSectors<'_> {
    fn check(&self, name: FileName, from: u64, to: u64) -> std::io::Result<()> {
        let is_bad = |&(bad, page): &(FileName, u64)| bad == name && page < to && from < page + PAGE_BYTES;
        let error = std::io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        if self.pages.borrow().iter().any(is_bad) { Err(error) } else { Ok(()) }
    }
}

impl Disk for BadSectors<'_> {
    fn list(&self) -> std::io::Result<Vec<crate::storage::FileInfo>> {
        self.disk.list()
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> std::io::Result<()> {
        self.disk.create(name, head, length)
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.check(name, offset, offset + into.len() as u64)?;
        self.disk.read_at(name, offset, into)
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.pages.borrow_mut().retain(|&(bad, page)| bad != name || page < offset || end < page + PAGE_BYTES);
        self.check(name, offset, end)?;
        self.disk.write_at(name, offset, bytes)
    }

    fn sync(&self, name: FileName) -> std::io::Result<()> {
        self.disk.sync(name)
    }
}

#[test]
fn a_bad_sector_is_damage_and_is_written_whole() {
    let log = common().with(5, 704, 8, 5).with(5, 1024, 5, 6);
    for (chunk, page) in [(0, 4096), (0, 8192), (1, 4096)] {
        let memory = log.on_disk();
        let name = FileName::Chunk(chunk);
        let offset = page as usize;
        memory.edit(name, |bytes| bytes[offset..offset + 4096].fill(0));
        let disk = BadSectors { disk: &memory, pages: RefCell::new(vec![(name, page)]) };
        let peer = Peer::new(&log, log.end().0);
        let mut rounds = 0;
        while let Err(error) = recover(&disk, LAYOUT, &mut |_| {}) {
            let RecoveryError::Corrupt { position, .. } = error else { panic!("{error}") };
            let gap = Gap { from: position, committed: LogPosition(0), survey: survey(&disk, LAYOUT).unwrap() };
            let outcome = mend_range(&disk, LAYOUT, &gap, &peer);
            assert!(matches!(outcome, Ok(Mended::Repaired(_))), "{chunk} {page}: {outcome:?}");
            rounds += 1;
            assert!(rounds < 4);
        }
        assert!(rounds > 0 && holds(&memory, &log), "{chunk} {page}");
    }
}

#[test]
fn a_reported_bad_sector_is_found_without_a_mapping() {
    let log = common().with(5, 704, 8, 5).with(5, 1024, 5, 6);
    let memory = log.on_disk();
    let name = FileName::Chunk(0);
    let disk = BadSectors { disk: &memory, pages: RefCell::new(vec![(name, 8192)]) };
    let (from, to, reason) = (LogPosition(0), LogPosition(8192), "unreadable".to_owned());
    let found = super::super::find_damage(&disk, LAYOUT, &Damage { chunk: 0, from, to, reason }, log.end());
    let found = found.unwrap().unwrap();
    let first = *log.starts.iter().rfind(|&&start| start <= 4096).unwrap();
    assert_eq!((found.from.0, found.to.0), (first, 8192), "all records on that page, which is the chunk's last");
}

#[test]
fn a_record_whose_head_is_good_is_proven_by_it_whatever_follows_on_both() {
    let both = common().with(5, 128, 5, 5);
    let bad = both.starts[24];
    // A tail of each behind it; both committed the record, and the other one more.
    let ours = both.clone().with(5, 128, 6, 1);
    let theirs = both.with(6, 128, 9, 6);
    for (committed, hint) in [(theirs.end().0, 0), (bad + 128, 0), (bad, bad), (0, 0)] {
        let disk = ours.on_disk();
        flip(&disk, bad + 60);
        let outcome = mend(&disk, hint, &Peer::new(&theirs, committed)).unwrap();
        assert!(matches!(&outcome, Mended::Repaired(repaired) if repaired.records == 1), "{committed}: {outcome:?}");
        assert!(holds(&disk, &ours), "{committed}");
    }
}
