//! Goal: recovery gives back exactly what was whole, and never mistakes damage for a torn tail. Method: random logs in
//! memory, hurt at every kind of place, against a plain list of the records that were written.

use super::*;
use crate::codec::record::{
    BatchBuilder, EpochBody, Header, MemberRecord, MembershipBody, MembershipRecord, padding, seal, sealed_length,
};
use crate::storage::check::ChunkCheck;
use crate::storage::memory::MemoryDisk;
use crate::types::{ClusterId, EventId, Guid, NodeId};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 64 << 10 };

fn member(n: u8) -> MemberRecord {
    let (node, int_ip) = (NodeId(Guid([n; 16])), [10, 0, 0, 1].into());
    MemberRecord { node, int_ip, int_tcp_port: 1112, int_http_port: 2112 }
}

/// A log as the log thread would write it, and the truth about it.
struct Log {
    disk: MemoryDisk,
    layout: ChunkLayout,
    /// Where each record begins.
    records: Vec<LogPosition>,
    end: LogPosition,
    term: Term,
    epochs: Vec<Epoch>,
    membership: Option<(LogPosition, MembershipRecord)>,
}

impl Log {
    fn new(layout: ChunkLayout) -> Log {
        let log = Log {
            disk: MemoryDisk::default(),
            layout,
            records: Vec::new(),
            end: LogPosition::ZERO,
            term: Term(0),
            epochs: Vec::new(),
            membership: None,
        };
        log.add_chunk();
        log
    }

    fn add_chunk(&self) {
        let chunk = self.disk.list().unwrap().len() as u32;
        let page = ChunkHeader { chunk, layout: self.layout }.encode();
        self.disk.create(FileName::Chunk(chunk), &page, self.layout.file_length()).unwrap();
    }

    fn put(&mut self, bytes: &[u8]) {
        let name = FileName::Chunk(self.layout.chunk_of(self.end));
        self.disk.write_at(name, self.layout.file_offset(self.end), bytes).unwrap();
        self.records.push(self.end);
        self.end = self.end.plus(bytes.len() as u64);
        if self.layout.room(self.end) == self.layout.chunk_size {
            self.add_chunk();
        }
    }

    fn record(&mut self, kind: RecordKind, body: &[u8]) {
        let mut length = sealed_length(body.len());
        let room = self.layout.room(self.end) as usize;
        if length > room {
            let mut fill = vec![0; room];
            padding(&mut fill, self.end, self.term, 0);
            self.put(&fill);
        }
        let room = self.layout.room(self.end) as usize;
        if room - length < RECORD_HEADER_BYTES {
            length = room;
        }
        let mut bytes = vec![0; length];
        bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
        let (position, term) = (self.end, self.term);
        seal(&mut bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp: 1 });
        self.put(&bytes);
    }

    fn append(&mut self, random: &mut fastrand::Rng) {
        let mut batch = BatchBuilder::new("orders", 0);
        let data: Vec<u8> = (0..random.usize(0..3000)).map(|_| random.u8(..)).collect();
        batch.event(EventId(Guid([7; 16])), "placed", true, &data, b"");
        self.record(RecordKind::Append, &batch.finish());
    }

    fn epoch(&mut self, id: u8) {
        self.term = Term(self.term.0 + 1 + u32::from(id % 3));
        let previous = self.epochs.last().map(|epoch| epoch.position);
        let body = EpochBody { epoch_id: Guid([id; 16]), leader: NodeId(Guid([1; 16])), previous };
        self.record(RecordKind::Epoch, &body.encode());
        let position = *self.records.last().unwrap();
        self.epochs.push(Epoch { term: self.term, position, id: Guid([id; 16]) });
    }

    /// A list of the most members after another one, as the last record of a chunk that has `rest` bytes more to give.
    fn longest_member_list(&mut self, rest: usize) {
        let list = MembershipBody { cluster: ClusterId(Guid([9; 16])), members: (1..8).map(member).collect() };
        let body = MembershipRecord { list, before: (2..9).map(member).collect() };
        let bytes = body.encode();
        let filler = self.layout.room(self.end) as usize - sealed_length(bytes.len()) - rest;
        self.record(RecordKind::Padding, &vec![0; filler - RECORD_HEADER_BYTES]);
        self.record(RecordKind::Membership, &bytes);
        assert_eq!(self.layout.room(self.end), self.layout.chunk_size, "it got the rest");
        self.membership = Some((*self.records.last().unwrap(), body));
    }

    fn member_list(&mut self, id: u8) {
        let list = MembershipBody { cluster: ClusterId(Guid([9; 16])), members: vec![member(id)] };
        let body = MembershipRecord { list, before: vec![member(id), member(id + 1)] };
        self.record(RecordKind::Membership, &body.encode());
        self.membership = Some((*self.records.last().unwrap(), body));
    }

    /// Seals a full chunk; false when it is damaged.
    fn seal(&self, chunk: u32) -> bool {
        let mut check = ChunkCheck::new(self.layout, chunk, Term::ZERO);
        let mut random = fastrand::Rng::with_seed(u64::from(chunk));
        while let Some((position, left)) = check.wants() {
            let mut piece = vec![0; random.usize(1..=left.min(10_000) as usize)];
            self.disk.read_at(FileName::Chunk(chunk), self.layout.file_offset(position), &mut piece).unwrap();
            check.take(&piece, &self.disk);
        }
        let Some(footer) = check.footer() else { return false };
        self.disk.write_at(FileName::Chunk(chunk), self.layout.footer_offset(), &footer.encode()).unwrap();
        true
    }

    /// Writes a durable mark, and the log before it counts as flushed.
    fn mark(&self, sequence: u64, position: LogPosition) {
        let (offset, slot) = DurableMark::encode_slot(sequence, position);
        let chunk = self.layout.chunk_of(position).min(self.disk.list().unwrap().len() as u32 - 1);
        self.disk.write_at(FileName::Chunk(chunk), offset, &slot).unwrap();
    }

    fn flip(&self, position: LogPosition, random: &mut fastrand::Rng) {
        let offset = self.layout.file_offset(position) as usize;
        let bit = 1 << random.u32(0..8);
        self.disk.edit(FileName::Chunk(self.layout.chunk_of(position)), |bytes| bytes[offset] ^= bit);
    }

    fn recover(&self) -> Result<Recovered, RecoveryError> {
        recover(&self.disk, self.layout, &mut |_| ())
    }

    /// The start of the record that covers `position`.
    fn record_over(&self, position: LogPosition) -> LogPosition {
        self.records[self.records.partition_point(|&start| start <= position) - 1]
    }
}

fn random_log(seed: u64) -> (Log, fastrand::Rng) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut log = Log::new(LAYOUT);
    log.epoch(1);
    log.member_list(1);
    // From 1: an identifier of zeros is none.
    for id in 1..=random.u8(20..120) {
        match random.u32(0..20) {
            0 => log.epoch(id),
            1 => log.member_list(id),
            _ => log.append(&mut random),
        }
    }
    (log, random)
}

/// What recovery must find when it stops at `end`.
fn check_found(log: &Log, found: &Recovered, end: LogPosition) {
    assert_eq!(found.end, end);
    let epochs: Vec<_> = log.epochs.iter().copied().filter(|epoch| epoch.position < end).collect();
    assert_eq!(found.last_term, epochs.last().map_or(Term::ZERO, |epoch| epoch.term));
    assert_eq!(found.epochs, epochs);
    if log.membership.as_ref().is_some_and(|(position, _)| *position < end) {
        assert_eq!(found.membership, log.membership);
    }
    assert_eq!(found.chunk_count as usize, log.disk.list().unwrap().len());
}

/// Erases behind `end`, and then nothing but zeros is there and recovery finds the same end again, also after a crash.
fn check_erased(log: &Log, end: LogPosition) {
    erase_tail(&log.disk, log.layout, end).unwrap();
    log.disk.crash();
    let again = log.recover().unwrap();
    check_found(log, &again, end);
    assert_eq!(again.cut, None);
    assert_eq!(erase_tail(&log.disk, log.layout, end).unwrap(), 0);
}

#[test]
fn a_whole_log_comes_back_whole() {
    for seed in 0..40 {
        let (log, _) = random_log(seed);
        let mut last = LogPosition::ZERO;
        let found = recover(&log.disk, LAYOUT, &mut |progress| {
            assert!(progress.position >= last && progress.position <= progress.limit);
            last = progress.position;
        });
        let found = found.unwrap();
        check_found(&log, &found, log.end);
        assert_eq!((found.cut, found.mark), (None, None));
        assert_eq!(last, log.end);
    }
}

#[test]
fn sealed_chunks_are_believed_and_say_the_same_as_their_records() {
    for seed in 0..60 {
        let (log, mut random) = random_log(seed);
        let full = LAYOUT.chunk_of(log.end);
        let mut leading = full;
        for chunk in 0..full {
            if random.u32(0..6) == 0 {
                // Not sealed, or its footer is damaged: it is read instead.
                leading = leading.min(chunk);
                if random.bool() {
                    assert!(log.seal(chunk));
                    let at = LAYOUT.footer_offset() as usize + random.usize(0..4096);
                    log.disk.edit(FileName::Chunk(chunk), |bytes| bytes[at] ^= 1 << random.u32(0..8));
                }
            } else {
                assert!(log.seal(chunk));
            }
        }
        // What is sealed is not looked at: not even rot in it keeps a node from its start.
        let mut hurt = None;
        if leading > 0 {
            let position = LogPosition(random.u64(0..LAYOUT.chunk_start(leading).0));
            log.flip(position, &mut random);
            hurt = Some(log.record_over(position));
        }
        log.disk.sync_all();
        let list = log.membership.as_ref().unwrap().0;
        match log.recover() {
            Ok(found) => {
                check_found(&log, &found, log.end);
                assert_eq!((found.cut, found.is_suspect), (None, false));
                assert!(found.sealed <= LAYOUT.chunk_start(full) && found.sealed >= LAYOUT.chunk_start(leading));
            }
            Err(RecoveryError::Corrupt { position, .. }) => assert_eq!((Some(list), position), (hurt, list), "{seed}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

/// A disk that counts what is read from it.
struct Counting<'a> {
    disk: &'a MemoryDisk,
    read: std::cell::Cell<u64>,
}

impl Disk for Counting<'_> {
    fn list(&self) -> std::io::Result<Vec<FileInfo>> {
        self.disk.list()
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> std::io::Result<()> {
        self.disk.create(name, head, length)
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.read.set(self.read.get() + into.len() as u64);
        self.disk.read_at(name, offset, into)
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.write_at(name, offset, bytes)
    }

    fn sync(&self, name: FileName) -> std::io::Result<()> {
        self.disk.sync(name)
    }
}

#[test]
fn a_start_reads_two_pages_of_each_sealed_chunk_and_the_rest_once() {
    let mut log = Log::new(LAYOUT);
    log.epoch(1);
    log.member_list(1);
    while log.disk.list().unwrap().len() < 40 {
        log.record(RecordKind::Append, &[1; 2000]);
    }
    log.record(RecordKind::Append, &[1; 2000]);
    log.add_chunk();
    let (full, chunks) = (LAYOUT.chunk_of(log.end), log.disk.list().unwrap().len() as u64);
    assert!((0..full).all(|chunk| log.seal(chunk)));
    log.mark(1, log.end);
    let disk = Counting { disk: &log.disk, read: Default::default() };
    let found = recover(&disk, LAYOUT, &mut |_| ()).unwrap();
    check_found(&log, &found, log.end);
    found.erase_tail(&disk, LAYOUT).unwrap();
    // The pages, the member list, the last chunk, what is behind the log's end.
    let tail = LAYOUT.chunk_start(chunks as u32).since(log.end);
    let list = (sealed_length(MembershipRecord::MAX_BYTES) + RECORD_HEADER_BYTES) as u64;
    let most = chunks * 8192 + list + LAYOUT.chunk_size + tail;
    assert!(disk.read.get() <= most, "{} bytes read, {most} are enough", disk.read.get());
}

#[test]
fn damage_in_front_of_a_sealed_chunk_is_never_a_torn_tail() {
    let (log, _) = random_log(3);
    assert!(log.seal(1));
    let position = log.records[3];
    assert_eq!(LAYOUT.chunk_of(position), 0);
    log.flip(position, &mut fastrand::Rng::with_seed(1));
    let error = log.recover().unwrap_err();
    assert!(
        matches!(error, RecoveryError::Corrupt { position: at, durable, .. }
            if at == position && durable == LAYOUT.chunk_start(2)),
        "{error}"
    );
}

#[test]
fn a_footer_that_does_not_follow_the_chunks_before_is_not_believed() {
    let mut log = Log::new(LAYOUT);
    log.epoch(1);
    while log.disk.list().unwrap().len() < 3 {
        log.record(RecordKind::Append, &[1; 2000]);
    }
    assert!(log.seal(0) && log.seal(1));
    let mut page = vec![0; 4096];
    log.disk.read_at(FileName::Chunk(1), LAYOUT.footer_offset(), &mut page).unwrap();
    let footer = ChunkFooter::decode(&page, 1, LAYOUT).unwrap().unwrap();
    let check = |bad: ChunkFooter| {
        log.disk.write_at(FileName::Chunk(1), LAYOUT.footer_offset(), &bad.encode()).unwrap();
        let found = log.recover().unwrap();
        assert_eq!(found.sealed, LAYOUT.chunk_start(1));
        check_found(&log, &found, log.end);
    };
    check(ChunkFooter { first_term: Term::ZERO, ..footer.clone() });
    check(ChunkFooter { last_term: Term::ZERO, ..footer.clone() });
    check(ChunkFooter { epochs: log.epochs.clone(), ..footer.clone() });
    check(ChunkFooter { has_more_epochs: true, ..footer });
}

#[test]
fn good_records_behind_a_hole_make_the_log_suspect() {
    for seed in 0..60 {
        let (log, mut random) = random_log(seed);
        log.mark(1, log.records[2]);
        let index = random.usize(2..log.records.len());
        let start = log.records[index];
        let end = log.records.get(index + 1).copied().unwrap_or(log.end);
        let zeros = random.bool();
        if zeros {
            let length = end.since(start) as usize;
            let (name, offset) = (FileName::Chunk(LAYOUT.chunk_of(start)), LAYOUT.file_offset(start) as usize);
            log.disk.edit(name, |bytes| bytes[offset..offset + length].fill(0));
        } else {
            log.flip(LogPosition(random.u64(start.0..end.0)), &mut random);
        }
        log.disk.sync_all();
        let found = log.recover().unwrap();
        check_found(&log, &found, start);
        assert_eq!(found.is_suspect, index + 1 < log.records.len(), "seed {seed}");
        assert_eq!(found.cut.is_some(), found.is_suspect || !zeros);
        assert_eq!(found.erase_tail(&log.disk, LAYOUT).unwrap() > 0, found.cut.is_some());
        check_erased(&log, start);
        assert!(!log.recover().unwrap().is_suspect);
    }
}

#[test]
fn no_chunk_and_an_empty_chunk_are_an_empty_log() {
    let found = recover(&MemoryDisk::default(), LAYOUT, &mut |_| ()).unwrap();
    assert_eq!((found.end, found.chunk_count), (LogPosition::ZERO, 0));
    let found = Log::new(LAYOUT).recover().unwrap();
    assert_eq!((found.end, found.chunk_count), (LogPosition::ZERO, 1));
}

#[test]
fn what_the_system_wrote_back_in_any_order_above_the_mark_is_cut_at_the_first_hole() {
    for seed in 0..80 {
        let (log, mut random) = random_log(seed);
        let mark = log.records[random.usize(log.records.len() / 2..log.records.len())];
        log.mark(5, mark);
        log.disk.sync_all();
        let whole = log.disk.files.borrow().clone();
        // Sectors of what was not flushed are lost at random.
        let mut sector = LogPosition(mark.0.next_multiple_of(512));
        while sector < log.end {
            if random.u32(0..10) == 0 {
                let offset = LAYOUT.file_offset(sector) as usize;
                let name = FileName::Chunk(LAYOUT.chunk_of(sector));
                log.disk.edit(name, |bytes| bytes[offset..offset + 512].fill(0));
            }
            sector = sector.plus(512);
        }
        let is_hurt = |index: &usize| {
            let start = log.records[*index];
            let length = log.records.get(index + 1).unwrap_or(&log.end).since(start) as usize;
            let (name, offset) = (FileName::Chunk(LAYOUT.chunk_of(start)), LAYOUT.file_offset(start) as usize);
            whole[&name][offset..offset + length] != log.disk.files.borrow()[&name][offset..offset + length]
        };
        let end = (0..log.records.len()).find(is_hurt).map_or(log.end, |index| log.records[index]);
        let found = log.recover().unwrap();
        check_found(&log, &found, end);
        check_erased(&log, end);
    }
}

#[test]
fn a_flipped_bit_below_the_mark_is_damage_and_above_it_a_torn_tail() {
    for seed in 0..150 {
        let (log, mut random) = random_log(seed);
        let mark = log.records[random.usize(1..log.records.len())];
        log.mark(2, mark);
        let hit = LogPosition(random.u64(0..log.end.0));
        let record = log.record_over(hit);
        log.flip(hit, &mut random);
        log.disk.sync_all();
        match log.recover() {
            Err(RecoveryError::Corrupt { chunk, position, offset, durable, .. }) => {
                assert!(record < mark, "seed {seed}");
                assert_eq!((chunk, position, durable), (LAYOUT.chunk_of(record), record, mark));
                assert_eq!(offset, LAYOUT.file_offset(record));
            }
            Ok(found) => {
                assert!(record >= mark, "seed {seed}");
                check_found(&log, &found, record);
                assert_eq!(found.cut.as_ref().unwrap().position, record);
                check_erased(&log, record);
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[test]
fn zeros_below_the_mark_are_damage() {
    let (log, _) = random_log(1);
    log.mark(1, log.end);
    let record = log.records[3];
    let offset = LAYOUT.file_offset(record) as usize;
    log.disk.edit(FileName::Chunk(0), |bytes| bytes[offset..offset + 32].fill(0));
    let error = log.recover().unwrap_err();
    assert!(matches!(error, RecoveryError::Corrupt { position, .. } if position == record), "{error}");
    assert!(error.to_string().contains("chunk-000000.000000"), "{error}");
}

#[test]
fn a_log_that_was_truncated_has_a_newer_mark_at_a_lower_position() {
    let (log, _) = random_log(2);
    log.mark(8, log.end);
    let cut = log.records[10];
    log.mark(9, cut);
    assert!(erase_tail(&log.disk, LAYOUT, cut).unwrap() > 0);
    let found = log.recover().unwrap();
    check_found(&log, &found, cut);
    assert_eq!((found.cut, found.mark), (None, Some(DurableMark { sequence: 9, position: cut })));
    assert_eq!(erase_tail(&log.disk, LAYOUT, cut).unwrap(), 0, "the range was erased already");
}

#[test]
fn a_stale_record_of_an_older_term_behind_the_end_is_no_part_of_the_log() {
    let mut log = Log::new(LAYOUT);
    log.epoch(1);
    let fork = log.end;
    log.record(RecordKind::Append, &[1; 100]);
    let stale = log.end;
    log.member_list(2);
    // A later leader's records end exactly where the older leader's list begins.
    log.end = fork;
    log.records.truncate(1);
    log.epoch(4);
    assert!(log.end < stale);
    let mut fill = vec![0; stale.since(log.end) as usize];
    let (position, term, kind) = (log.end, log.term, RecordKind::Append);
    seal(&mut fill, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp: 1 });
    log.put(&fill);
    assert_eq!(log.end, stale);
    let found = log.recover().unwrap();
    assert_eq!((found.end, found.membership), (stale, None));
    let reason = found.cut.unwrap().reason;
    assert!(reason.starts_with("a record of term"), "{reason}");
    assert!(erase_tail(&log.disk, LAYOUT, stale).unwrap() > 0);
}

#[test]
fn an_epoch_that_does_not_ascend_ends_the_log() {
    let mut log = Log::new(LAYOUT);
    log.epoch(1);
    let end = log.end;
    let body = EpochBody { epoch_id: Guid([3; 16]), leader: NodeId(Guid([1; 16])), previous: None };
    log.record(RecordKind::Epoch, &body.encode());
    let found = log.recover().unwrap();
    assert_eq!((found.end, found.epochs.len()), (end, 1));
    assert!(found.cut.unwrap().reason.starts_with("epoch "));
    log.mark(1, log.end);
    assert!(matches!(log.recover(), Err(RecoveryError::Corrupt { position, .. }) if position == end));
}

#[test]
fn what_recovery_found_is_durable_from_then_on() {
    // The process alone was killed: the system's cache still has what never was flushed.
    for seed in 0..10 {
        let (log, _) = random_log(seed);
        log.mark(1, LogPosition::ZERO);
        log.recover().unwrap();
        log.disk.crash();
        check_found(&log, &log.recover().unwrap(), log.end);
    }
}

#[test]
fn a_record_larger_than_the_read_buffer_is_checked_in_pieces() {
    let mut log = Log::new(ChunkLayout { chunk_size: 16 << 20 });
    log.epoch(1);
    let large = log.end;
    log.record(RecordKind::Append, &vec![0xA5; READ_BYTES * 2 + 12_345]);
    // The next one does not fit: a large padding record, too.
    log.record(RecordKind::Append, &vec![0x5A; READ_BYTES * 2]);
    let found = log.recover().unwrap();
    check_found(&log, &found, log.end);
    assert_eq!(found.cut, None);
    log.flip(large.plus(READ_BYTES as u64 + 777), &mut fastrand::Rng::with_seed(1));
    let found = log.recover().unwrap();
    assert_eq!(found.end, large);
    assert!(found.cut.unwrap().reason.starts_with("record checksum"));
}

#[test]
fn files_that_do_not_fit_are_named() {
    let check = |change: &dyn Fn(&MemoryDisk), expected: &str| {
        let (log, _) = random_log(3);
        assert!(log.disk.list().unwrap().len() >= 3);
        change(&log.disk);
        let error = log.recover().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let remove = |number: u32| {
        move |disk: &MemoryDisk| {
            disk.files.borrow_mut().remove(&FileName::Chunk(number));
        }
    };
    check(&remove(1), "chunk 1 (chunk-000001.000000) is missing although chunk");
    check(&remove(0), "chunk 0 (chunk-000000.000000) is missing although chunk");
    check(
        &|disk| disk.edit(FileName::Chunk(1), |bytes| bytes.truncate(5000)),
        "chunk-000001.000000 has 5000 bytes, 73728 were expected",
    );
    check(
        &|disk| disk.edit(FileName::Chunk(1), |bytes| bytes[..8192].fill(0)),
        "chunk-000001.000000 does not begin with",
    );
    check(
        &|disk| {
            let zero = disk.files.borrow()[&FileName::Chunk(0)].clone();
            disk.edit(FileName::Chunk(1), |bytes| *bytes = zero);
        },
        "it says that it is chunk 0, its name says 1",
    );
}

/// The header page of another format version, as its own program would write it.
fn other_version(log: &Log, version: u32, length: u64) -> String {
    log.disk.edit(FileName::Chunk(1), |bytes| {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes.truncate(length as usize);
    });
    log.recover().unwrap_err().to_string()
}

#[test]
fn chunks_of_another_version_are_refused_with_what_to_do() {
    let (log, _) = random_log(3);
    let error = other_version(&log, 1, LAYOUT.footer_offset());
    assert!(error.contains("chunk-000001.000000 has chunk format version 1, this program reads version 2"), "{error}");
    assert!(error.contains("older ringstore"), "{error}");
    let (log, _) = random_log(3);
    let error = other_version(&log, 3, LAYOUT.file_length());
    assert!(error.contains("version 3") && error.contains("newer ringstore; start that one again"), "{error}");
}

#[test]
fn a_last_chunk_that_was_taken_away_is_damage_when_it_was_durable() {
    let (log, _) = random_log(3);
    let last = LAYOUT.chunk_of(log.end);
    log.mark(1, log.records[2]);
    let (offset, slot) = DurableMark::encode_slot(2, log.end);
    log.disk.write_at(FileName::Chunk(0), offset, &slot).unwrap();
    log.disk.files.borrow_mut().remove(&FileName::Chunk(last));
    let error = log.recover().unwrap_err().to_string();
    assert!(error.contains("the log ends here"), "{error}");
}

#[test]
fn a_damaged_header_page_is_made_anew_wherever_the_rest_shows_which_chunk_it_is() {
    let (log, _) = random_log(3);
    let last = LAYOUT.chunk_of(log.end);
    assert!(last >= 2 && log.seal(0));
    log.add_chunk();
    log.mark(7, log.end);
    log.disk.sync_all();
    let whole = log.disk.files.borrow().clone();
    for chunk in 0..last + 2 {
        for at in 0..32 {
            log.disk.edit(FileName::Chunk(chunk), |bytes| bytes[at] ^= 0x40);
            let hurt = log.disk.files.borrow().clone();
            let found = log.recover().unwrap_or_else(|error| panic!("chunk {chunk}, byte {at}: {error}"));
            check_found(&log, &found, log.end);
            assert_eq!((&found.headers[..], &found.cut), (&[chunk][..], &None));
            assert_eq!(found.mark.unwrap().sequence, 7, "the mark has its own checksum");
            assert_eq!(found.is_suspect, chunk > 0, "a newer mark may have been lost where nothing is sealed");
            assert!(*log.disk.files.borrow() == hurt, "nothing is mended before the suspicion can be saved");
            found.erase_tail(&log.disk, LAYOUT).unwrap();
            log.disk.crash();
            assert!(*log.disk.files.borrow() == whole, "chunk {chunk}, byte {at}");
            let again = log.recover().unwrap();
            assert_eq!((again.headers.len(), again.is_suspect), (0, false));
        }
    }
    // All of the page: a footer or a record still shows what it is; an empty chunk could be anything.
    for (chunk, is_known) in [(0, true), (1, true), (last + 1, false)] {
        log.disk.edit(FileName::Chunk(chunk), |bytes| bytes[..4096].fill(0));
        assert_eq!(log.recover().map(|found| found.headers).ok(), is_known.then(|| vec![chunk]));
        log.disk.files.replace(whole.clone());
    }
    // Damage in front of a mark in the damaged page is damage still.
    log.disk.edit(FileName::Chunk(last), |bytes| bytes[9] ^= 1);
    log.flip(log.records[log.records.len() - 2], &mut fastrand::Rng::with_seed(1));
    assert!(matches!(log.recover(), Err(RecoveryError::Corrupt { .. })));
}

#[test]
fn what_no_leader_writes_ends_the_log() {
    let epoch = |id: u8| EpochBody { epoch_id: Guid([id; 16]), leader: NodeId(Guid([1; 16])), previous: None }.encode();
    // In the term after that of the log so far, what follows; and how many of these records stand.
    let check = |first: bool, term: u32, records: &[(RecordKind, &[u8])], good: usize| {
        let mut log = Log::new(LAYOUT);
        if first {
            log.epoch(1);
        }
        let before = log.records.len();
        log.term = Term(log.term.0 + term);
        records.iter().for_each(|(kind, body)| log.record(*kind, body));
        let end = log.records.get(before + good).copied().unwrap_or(log.end);
        let found = log.recover().unwrap();
        assert_eq!((found.end, found.cut.is_some()), (end, good < records.len()), "{records:?}");
        log.mark(1, log.end);
        assert_eq!(log.recover().is_ok(), good == records.len(), "below the mark it is damage");
    };
    let (named, nameless) = (epoch(9), epoch(0));
    let (named, nameless) = ((RecordKind::Epoch, &named[..]), (RecordKind::Epoch, &nameless[..]));
    let (append, padding) = ((RecordKind::Append, &[1; 40][..]), (RecordKind::Padding, &[0; 40][..]));
    check(false, 0, &[named], 0);
    check(false, 0, &[padding], 0);
    check(false, 1, &[append], 0);
    check(false, 1, &[nameless, named], 0);
    check(false, 1, &[named, append], 2);
    check(false, 1, &[padding, named, append], 3);
    check(true, 0, &[append, padding, append], 3);
    check(true, 0, &[named], 0);
    check(true, 2, &[append], 0);
    check(true, 2, &[nameless, named], 0);
    check(true, 2, &[padding, append], 1);
    check(true, 2, &[padding, named, append, named], 3);
}

#[test]
fn a_log_may_end_where_no_record_fits_any_more() {
    let mut log = Log::new(LAYOUT);
    log.epoch(1);
    let length = (LAYOUT.room(log.end) - 24) as usize;
    let mut bytes = vec![0; length];
    let (position, term, kind) = (log.end, log.term, RecordKind::Append);
    seal(&mut bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp: 1 });
    log.put(&bytes);
    let found = log.recover().unwrap();
    check_found(&log, &found, log.end);
    assert_eq!(found.cut, None);
    log.disk.edit(FileName::Chunk(0), |bytes| bytes[LAYOUT.file_offset(log.end) as usize + 20] = 1);
    let found = log.recover().unwrap();
    assert_eq!(found.cut.as_ref().map(|tail| tail.position), Some(log.end));
    assert!(found.erase_tail(&log.disk, LAYOUT).unwrap() > 0);
    assert_eq!(log.recover().unwrap().cut, None);
}

/// Goal: the longest list is read wherever it lies. What happened: one that only a footer told of was read without the rest of
/// the chunk, which its record had got, and taken for damaged.
#[test]
fn the_longest_member_list_is_read_at_the_end_of_a_chunk() {
    for rest in [0, 8, 24] {
        let mut log = Log::new(LAYOUT);
        log.epoch(1);
        log.longest_member_list(rest);
        log.append(&mut fastrand::Rng::with_seed(1));
        log.mark(1, log.end);
        assert!(log.seal(0), "the chunk is whole");
        let found = log.recover().unwrap();
        assert_eq!((found.end, found.membership), (log.end, log.membership), "{rest} bytes more");
    }
}
