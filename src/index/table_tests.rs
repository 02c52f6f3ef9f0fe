//! The index with tables against one that has everything in memory.
//!
//! Goal: whatever happens to the files, an answer is that of the index in memory, or "not ready", and after a while all of
//! them are there again. Method: random logs, small bounds, steps of the upkeep at random times, failing and crashing disks,
//! bits turned anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::room::ROOM_PAUSE;
use super::store::memory::MemoryStore;
use super::streams::{Name, StreamEntry};
use super::table::Table;
use super::tests::{LAYOUT, Log, id};
use super::writer::{Extras, TableWriter};
use super::*;
use crate::codec::record::RecordKind;
use crate::limits::RECORD_STARTS_BYTES;
use crate::storage::{ReadError, reserve_bytes};
use crate::types::metastream_of;

/// Small parts, so that there are many tables.
const BOUNDS: UpkeepBounds =
    UpkeepBounds { events: 60, bytes: 1 << 20, log_bytes: 1 << 20, step_bytes: 2048, merge_tables: 3 };

/// The log, for the upkeep, too; and whether it cannot be read now.
#[derive(Clone)]
struct SharedLog(Arc<RwLock<Log>>, Arc<AtomicBool>);

impl LogRead for SharedLog {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        if self.1.load(Ordering::Relaxed) {
            return Err(ReadError::NoChunk { position, chunk: LAYOUT.chunk_of(position) });
        }
        self.0.read().log.with_chunk(position, visit)
    }
}

struct World {
    random: fastrand::Rng,
    log: SharedLog,
    streams: Vec<String>,
    /// The number of the next event of each.
    next: Vec<i64>,
    transactions: Vec<LogPosition>,
    store: Arc<MemoryStore>,
    index: Arc<Index>,
    upkeep: Upkeep,
    reference: Index,
    now: Instant,
    durable: Arc<AtomicU64>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(1..80);
        let streams: Vec<String> = (0..count).map(|n| format!("stream-{n}")).collect();
        let streams: Vec<String> =
            streams.iter().cloned().chain(streams.iter().map(|name| metastream_of(name))).collect();
        let log = SharedLog(Arc::new(RwLock::new(Log::new())), Arc::default());
        let store: Arc<MemoryStore> = Arc::default();
        let durable: Arc<AtomicU64> = Arc::default();
        let (index, upkeep) = open(&store, &log, &durable);
        let next = vec![0; streams.len()];
        let (transactions, now, reference) = (Vec::new(), Instant::now(), Index::new());
        World { random, log, streams, next, transactions, store, index, upkeep, reference, now, durable }
    }

    /// Writes some records, and has them applied.
    fn write(&mut self) {
        let mut log = self.log.0.write();
        for _ in 0..self.random.usize(1..40) {
            let stream = self.random.usize(0..self.streams.len());
            let (name, next) = (&self.streams[stream], &mut self.next[stream]);
            if *next == i64::MAX {
                continue;
            }
            match self.random.u8(0..40) {
                0 => {
                    self.transactions.push(log.batch(RecordKind::TransactionStart, name, -2, &[]));
                }
                1 if !self.transactions.is_empty() => {
                    let start = self.transactions[self.random.usize(0..self.transactions.len())];
                    let data = vec![7; self.random.usize(0..40_000)];
                    log.batch(RecordKind::TransactionWrite, name, start.as_i64(), &[(9, "t", &data)]);
                }
                2 if !name.starts_with("$$") => {
                    log.batch(RecordKind::Delete, name, i64::MAX, &[(8, "$streamDeleted", b"")]);
                    *next = i64::MAX;
                }
                _ if name.starts_with("$$") => {
                    let json =
                        ["{\"$maxCount\":5}", "{}", "{\"$tb\":9223372036854775807}", "{\"$acl\":{\"$r\":\"x\"}}"];
                    log.metadata(name, *next, json[self.random.usize(0..json.len())]);
                    *next += 1;
                }
                kind => {
                    let count = if kind == 3 { 3000 } else { self.random.u64(1..6) };
                    let first = self.random.u64(0..1 << 40);
                    log.append(name, *next, first..first + count);
                    *next += count as i64;
                }
            }
        }
        drop(log);
        self.apply();
    }

    fn apply(&mut self) {
        let end = self.end();
        self.reference.apply_to(&self.log, LAYOUT, end).unwrap();
        self.index.apply_to(&self.log, LAYOUT, end).unwrap();
        self.durable.store(end.0, Ordering::Relaxed);
    }

    fn end(&self) -> LogPosition {
        self.log.0.read().end
    }

    /// Steps of the upkeep, with time going on. True when it had nothing to do at last.
    fn keep_up(&mut self, steps: usize) -> bool {
        for _ in 0..steps {
            if let Some(rest) = self.upkeep.step(self.now) {
                self.now += rest;
                if rest < Duration::from_secs(1) {
                    return true;
                }
            }
        }
        false
    }

    fn reopen(&mut self) {
        (self.index, self.upkeep) = open(&self.store, &self.log, &self.durable);
        assert!(self.index.applied() <= self.end());
        if self.random.bool() {
            self.index.set_behind(self.end());
        } else {
            self.apply();
        }
    }

    /// Every answer is right or not there; gives the number of those that are not.
    fn compare(&mut self) -> usize {
        let mut missing = 0;
        let mut agree = |what: &str, same: Option<bool>| {
            assert_ne!(same, Some(false), "{what}");
            missing += usize::from(same.is_none());
        };
        let (index, reference, random) = (&self.index, &self.reference, &mut self.random);
        for (stream, &next) in self.streams.iter().zip(&self.next) {
            let head = reference.head(stream).unwrap();
            agree("head", index.head(stream).ok().map(|found| found == head));
            let info = reference.stream(stream).unwrap();
            agree("info", index.stream(stream).ok().map(|found| found == info));
            let from = if random.u8(0..9) == 0 { i64::MAX } else { random.i64(0..next.clamp(1, 10_000) + 2) };
            let count = random.usize(0..2000);
            let (mut expected, mut found) = (Vec::new(), vec![LogPosition(7)]);
            let first = reference.positions(stream, from, count, &mut expected).unwrap();
            let answer = index.positions(stream, from, count, &mut found).ok();
            agree(
                &format!("positions of {stream} from {from}"),
                answer.map(|found_first| (found_first, &found) == (first, &expected)),
            );
        }
        agree("nobody", index.stream("nobody").ok().map(|found| found.is_none()));
        assert!(index.last_event_position() == reference.last_event_position() || !index.is_complete());
        missing + self.compare_others()
    }

    /// Identifiers, transactions and the places of records.
    fn compare_others(&mut self) -> usize {
        let (index, reference) = (&self.index, &self.reference);
        let mut missing = 0;
        for event in self.reference.recent.events(0, self.reference.recent.next_sequence()).iter().rev().take(300) {
            for stream in
                self.streams.iter().filter(|stream| super::streams::Name::new(stream).hash == event.stream_hash)
            {
                let expected = reference.recent(stream, event.id).unwrap();
                match index.recent(stream, event.id) {
                    Ok(found) => assert_eq!(found, expected, "{stream} {event:?}"),
                    Err(NotReady) => missing += 1,
                }
            }
        }
        if index.applied() == reference.applied() {
            for &id in &self.transactions {
                assert_eq!(index.transaction(id), reference.transaction(id));
            }
        }
        assert_eq!(index.recent(&self.streams[0], id(1 << 50)).unwrap_or(None), None);
        let visible = visible(&self.log.0.read());
        for _ in 0..40 {
            let position = LogPosition(self.random.u64(0..self.end().0 + 10));
            self.compare_places(position, &visible);
        }
        missing
    }

    fn compare_places(&self, position: LogPosition, visible: &[LogPosition]) {
        let start = self.index.record_at_or_before(position);
        assert!(start <= position);
        let before = visible.partition_point(|&at| at <= position);
        if self.index.is_complete() {
            let last = visible[..before].last().copied().unwrap_or_default();
            assert!(visible.contains(&start) || start == LogPosition::ZERO, "{start} is no record");
            assert!(start + RECORD_STARTS_BYTES > last, "{start} is far before {last}");
        }
        let next = visible.get(visible.partition_point(|&at| at < position)).copied();
        match (self.index.next_visible(position), next) {
            (None, Some(next)) => {
                assert!(next >= self.index.applied() && !self.index.is_behind(), "{next} is not found")
            }
            (Some(found), Some(next)) => assert!(found <= next, "{found} is behind {next}"),
            (_, None) => {}
        }
    }

    /// In the end everything is there.
    fn heal(&mut self) {
        *self.store.changes_left.lock() = None;
        assert!((0..100).any(|_| self.keep_up(5000) && self.index.is_complete()), "it does not become complete");
        self.apply();
        assert_eq!(self.compare(), 0);
    }
}

impl std::ops::Add<u64> for LogPosition {
    type Output = LogPosition;

    fn add(self, bytes: u64) -> LogPosition {
        self.plus(bytes)
    }
}

/// Where the records begin that readers see.
fn visible(log: &Log) -> Vec<LogPosition> {
    let (mut at, mut found) = (LogPosition::ZERO, Vec::new());
    while at < log.end {
        let bytes = &log.log.bytes[at.0 as usize..];
        let header = crate::codec::record::Header::read(bytes, at, LAYOUT.room(at)).unwrap();
        found.extend(header.kind.is_visible().then_some(at));
        at = header.end();
    }
    found
}

fn open(store: &Arc<MemoryStore>, log: &SharedLog, durable: &Arc<AtomicU64>) -> (Arc<Index>, Upkeep) {
    let (end, durable) = (log.0.read().end, Arc::clone(durable));
    let index = Arc::new(Index::open(Arc::clone(store) as Arc<dyn TableStore>, log, LAYOUT, end, 3).unwrap());
    let links = UpkeepLinks {
        index: Arc::clone(&index),
        log: Box::new(log.clone()),
        layout: LAYOUT,
        durable: Box::new(move || LogPosition(durable.load(Ordering::Relaxed))),
        damage: crate::storage::DamageReports::default(),
    };
    (index, Upkeep::new(links, BOUNDS))
}

#[test]
fn tables_say_what_memory_said() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            world.write();
            let steps = world.random.usize(0..40);
            world.keep_up(steps);
            assert_eq!(world.compare(), 0, "seed {seed}");
        }
        world.keep_up(10_000);
        let figures = world.index.figures();
        assert!(figures.tables > 0 && figures.tables < 20 && figures.merges > 0, "seed {seed}: {figures:?}");
        assert_eq!(figures.events, world.reference.figures().events, "seed {seed}");
        world.reopen();
        world.heal();
    }
}

#[test]
fn nothing_is_lost_by_a_crash_at_any_step() {
    for seed in 100..130 {
        let mut world = World::new(seed);
        for _ in 0..40 {
            world.write();
            let steps = world.random.usize(0..60);
            world.keep_up(steps);
            match world.random.u8(0..6) {
                0 => {
                    let left = world.random.u32(0..12);
                    *world.store.changes_left.lock() = Some(left);
                    world.keep_up(30);
                    world.compare();
                    let crashed = world.store.crash(&mut world.random);
                    world.store = Arc::new(crashed);
                    world.reopen();
                }
                1 => *world.store.changes_left.lock() = None,
                _ => {}
            }
            world.compare();
        }
        world.heal();
    }
}

/// The disk fails now and then, and so does the log for the upkeep, also while a part is being written; nobody starts
/// anew in between, and memory has everything until a table has it.
#[test]
fn nothing_is_lost_by_failures_while_it_runs() {
    for seed in 300..360 {
        let mut world = World::new(seed);
        for _ in 0..40 {
            world.write();
            let left = (world.random.u8(0..3) == 0).then(|| world.random.u32(0..12));
            *world.store.changes_left.lock() = left;
            if world.random.u8(0..4) == 0 {
                world.store.flip(&mut world.random);
            }
            let is_broken = world.random.u8(0..4) == 0;
            world.log.1.store(is_broken, Ordering::Relaxed);
            let steps = world.random.usize(0..30);
            world.keep_up(steps);
            world.log.1.store(false, Ordering::Relaxed);
            world.compare();
        }
        world.heal();
        world.reopen();
        world.heal();
        let files = world.store.files.lock();
        let strangers: Vec<_> = files.keys().filter(|name| name.ends_with(".tmp")).collect();
        assert!(strangers.is_empty(), "seed {seed}: {strangers:?}");
    }
}

/// Nothing is begun that does not fit beside the log's reserve, and what found no room waits before it is tried again.
#[test]
fn tables_leave_the_reserve_of_the_disk_alone() {
    let mut world = World::new(11);
    let reserve = reserve_bytes(LAYOUT);
    *world.store.size.lock() = Some(reserve);
    for _ in 0..20 {
        world.write();
        world.keep_up(100);
    }
    assert_eq!((world.index.figures().tables, world.compare()), (0, 0));
    assert!(world.store.files.lock().is_empty(), "nothing was begun");
    *world.store.size.lock() = None;
    world.keep_up(100);
    assert_eq!(world.index.figures().tables, 0, "it waits");
    world.now += ROOM_PAUSE;
    world.keep_up(1000);
    assert!(world.index.figures().tables > 0);
    for _ in 0..20 {
        world.write();
        world.keep_up(1000);
        // Room for new tables, which in memory are small, and for none that is made of them.
        let used: u64 = world.store.files.lock().values().map(|bytes| bytes.lock().len() as u64).sum();
        *world.store.size.lock() = Some(reserve + used + used / 2);
        world.now += ROOM_PAUSE;
        assert_eq!(world.compare(), 0);
    }
    world.store.size.lock().take();
    world.now += ROOM_PAUSE;
    world.keep_up(10_000);
    let figures = world.index.figures();
    assert!(figures.merges > 0 && figures.tables < 20, "{figures:?}");
    assert_eq!(world.compare(), 0);
}

/// A disk that is full in the middle of a table, at its end too.
#[test]
fn a_table_that_cannot_be_written_leaves_no_file() {
    use super::entry::Summary;
    use super::writer::{Extras, TableWriter};

    for size in [0, 300_000, 600_000] {
        let store: Arc<MemoryStore> = Arc::default();
        let mut writer = TableWriter::new(Arc::clone(&store) as Arc<dyn TableStore>, 1, (0, 1 << 40), 1);
        writer.begin(1, b"orders", Summary { count: 100_000, ..Summary::default() }, 0);
        (0..100_000).for_each(|n| writer.position(n << 20).unwrap());
        writer.end().unwrap();
        *store.size.lock() = Some(size);
        let extras = Extras { starts: vec![0; 800_000], ..Extras::default() };
        assert_eq!(writer.finish(&extras).unwrap_err().kind(), std::io::ErrorKind::StorageFull, "{size}");
        let names: Vec<_> = store.files.lock().keys().cloned().collect();
        assert!(names.is_empty(), "{size}: {names:?}");
    }
}

#[test]
fn a_turned_bit_is_never_served() {
    for seed in 200..260 {
        let mut world = World::new(seed);
        for _ in 0..30 {
            world.write();
            let steps = world.random.usize(0..80);
            world.keep_up(steps);
            if world.random.u8(0..3) == 0 {
                world.store.flip(&mut world.random);
            }
            if world.random.u8(0..8) == 0 {
                world.reopen();
            }
            world.compare();
        }
        world.heal();
    }
}

#[test]
fn without_its_files_the_index_is_made_again_from_the_log() {
    let mut world = World::new(7);
    for _ in 0..40 {
        world.write();
        world.keep_up(100);
    }
    assert!(world.index.figures().tables > 2);
    world.store = Arc::default();
    (world.index, world.upkeep) = open(&world.store, &world.log, &world.durable);
    assert_eq!(world.index.applied(), LogPosition::ZERO);
    world.index.set_behind(world.end());
    assert!(!world.index.is_complete());
    assert_eq!(world.index.head("stream-0"), Err(NotReady));
    assert_eq!(world.index.try_apply(&world.log, LAYOUT, world.end(), 100).unwrap(), Attempt::Rebuilding);
    assert_eq!(world.index.walk_limit(), world.end(), "the log itself can be read");
    world.heal();
    assert_eq!(world.index.figures().rebuilds, 1);
}

/// Puts a table without any stream in the place of one, as a fault in the program could.
fn empty(index: &Index, table: &Table) {
    let tables = index.tables.as_ref().unwrap();
    let id = tables.next_id.fetch_add(1, Ordering::Relaxed);
    let piece = (table.footer.from, table.footer.to);
    let extras = Extras {
        starts: table.starts().unwrap(),
        recents: table.recents().unwrap(),
        transactions: table.transactions_bytes().unwrap(),
        events: 0,
        new_streams: 0,
        last_event: table.footer.last_event,
        last_record: table.footer.last_record,
        last_record_crc: table.footer.last_record_crc,
    };
    TableWriter::new(Arc::clone(&tables.store), id, piece, 0).finish(&extras).unwrap();
    let empty = tables.open(id).unwrap();
    let view = tables.view().with(&empty, &[table.id()]).unwrap();
    index.change_places(|| tables.set_view(view));
}

/// A table, and a stream with events in it, in an older part and in a newer one: in memory, or in a table.
fn in_the_middle(world: &World, is_memory: bool) -> Option<(Arc<Table>, String)> {
    let view = world.index.tables.as_ref().unwrap().view();
    let tables: Vec<_> = view.tables().cloned().collect();
    let mut places = (0..tables.len()).flat_map(|at| world.streams.iter().map(move |stream| (at, stream)));
    let (at, stream) = places.find(|(at, stream)| {
        let name = Name::new(stream);
        let has = |table: &Arc<Table>| table.find(name).unwrap().is_some_and(|found| found.part.count > 0);
        let in_memory = |slot: &Streams| slot.look(name, |entry: &StreamEntry| entry.part().count > 0) == Some(true);
        let (older, newer) = (&tables[..*at], &tables[*at + 1..]);
        let is_right = if is_memory { newer.is_empty() } else { newer.iter().any(has) };
        let is_in_memory = world.index.slots.iter().any(in_memory);
        older.iter().any(has) && has(&tables[*at]) && is_right && is_in_memory == is_memory
    })?;
    Some((Arc::clone(&tables[at]), stream.clone()))
}

#[test]
fn parts_that_do_not_fit_together_are_made_again_from_the_log() {
    let mut tried = [0; 2];
    for (seed, is_memory) in (300..330).zip([false, true].into_iter().cycle()) {
        let mut world = World::new(seed);
        let middle = (0..200).find_map(|_| {
            world.write();
            world.keep_up(200);
            in_the_middle(&world, is_memory)
        });
        let Some((table, stream)) = middle else { continue };
        empty(&world.index, &table);
        // Memory may know the stream from before, but not where its older events are.
        let is_refused = if is_memory || world.random.bool() {
            world.index.positions(&stream, 0, 1 << 20, &mut Vec::new()).is_err()
        } else {
            world.index.stream(&stream).is_err()
        };
        assert!(is_refused, "seed {seed}: {stream} has a gap in table {}", table.id());
        tried[usize::from(is_memory)] += 1;
        assert_eq!(world.index.figures().misfits, 0);
        world.heal();
        assert_eq!(world.index.figures().misfits, 1, "seed {seed}");
        assert!(world.index.figures().rebuilds > 0);
        world.reopen();
        world.heal();
        assert_eq!(world.index.figures().misfits, 0, "seed {seed}: the manifest names what fits");
    }
    assert!(tried.iter().all(|&count| count > 3), "{tried:?}");
}

/// A manifest or a table that only cannot be read now is no reason to throw it away; one that the disk has lost is.
#[test]
fn files_that_cannot_be_read_now_are_kept() {
    let mut world = World::new(12);
    for _ in 0..30 {
        world.write();
        world.keep_up(100);
    }
    let (files, tables) = (world.store.list().unwrap(), world.index.figures().tables);
    assert!(tables > 0);
    let open_it = |world: &World| {
        let store = Arc::clone(&world.store) as Arc<dyn TableStore>;
        Index::open(store, &world.log, LAYOUT, world.end(), 3)
    };
    let table = files.iter().find(|name| name.starts_with("table")).unwrap();
    for name in ["manifest", table] {
        let busy = std::io::Error::from_raw_os_error(24);
        *world.store.unreadable.lock() = Some((name.to_owned(), busy.raw_os_error().unwrap()));
        assert_eq!(open_it(&world).unwrap_err().kind(), busy.kind(), "{name}");
        assert_eq!(world.store.list().unwrap(), files, "{name}");
        world.store.unreadable.lock().take();
        assert_eq!(open_it(&world).unwrap().figures().tables, tables, "{name}");
    }
    *world.store.unreadable.lock() = Some(("manifest".to_owned(), 5));
    assert_eq!(open_it(&world).unwrap().applied(), LogPosition::ZERO);
}

#[test]
fn no_table_goes_beyond_what_is_durable() {
    let mut world = World::new(8);
    for _ in 0..20 {
        world.write();
    }
    let end = world.end();
    world.durable.store(end.0 - 1, Ordering::Relaxed);
    world.keep_up(1000);
    assert_eq!(world.index.figures().tables, 0);
    world.durable.store(end.0, Ordering::Relaxed);
    world.keep_up(1000);
    assert!(world.index.figures().tables > 0);
    assert_eq!(world.compare(), 0);
}

#[test]
fn tables_of_another_log_are_not_used() {
    let mut world = World::new(9);
    for _ in 0..20 {
        world.write();
        world.keep_up(100);
    }
    assert!(world.index.figures().tables > 0);
    let (store, covered) = (Arc::clone(&world.store), world.index.tables.as_ref().unwrap().view().covered);
    let mut other = World::new(10);
    while other.end() < covered {
        other.write();
    }
    other.store = store;
    other.reopen();
    other.heal();
}

/// Streams whose names have the same hash cannot be made at will, so here a table has them for certain: a writer is given
/// the hashes.
#[test]
fn streams_with_the_same_hash_are_told_apart() {
    use super::entry::Summary;
    use super::streams::Name;
    use super::writer::{Extras, TableWriter};

    let store: Arc<MemoryStore> = Arc::default();
    let mut writer = TableWriter::new(Arc::clone(&store) as Arc<dyn TableStore>, 1, (0, 1 << 20), 30);
    let names: Vec<String> = (10..40).map(|n| format!("stream-{n}")).collect();
    let count = |n: usize| if n.is_multiple_of(3) { 5000 } else { n as u64 + 1 };
    for (n, name) in names.iter().enumerate() {
        writer.begin(77, name.as_bytes(), Summary { count: count(n), ..Summary::default() }, 4);
        (0..count(n)).for_each(|at| writer.position(at * 100 + n as u64).unwrap());
        writer.end().unwrap();
    }
    writer.finish(&Extras::default()).unwrap();
    let table = super::table::Table::open(&*store, 1, 1 << 20).unwrap();
    for (n, name) in names.iter().enumerate() {
        let name = Name { text: name, hash: 77 };
        let found = table.find(name).unwrap().unwrap();
        assert_eq!((found.part.first, found.part.count as u64), (4, count(n)));
        for first in [0, count(n) / 2, count(n) - 1] {
            let mut positions = Vec::new();
            table.positions(name, &found, first as i64 + 4, 3, &mut positions).unwrap();
            let expected = (first..count(n)).take(3).map(|at| LogPosition(at * 100 + n as u64));
            assert_eq!(positions, expected.collect::<Vec<_>>());
        }
    }
    assert!(table.find(Name { text: "stream-99", hash: 77 }).unwrap().is_none());
    assert!(table.find(Name { text: "stream-10", hash: 78 }).unwrap().is_none());
}

#[test]
fn golden_layout_of_a_table() {
    use super::entry::Summary;
    use super::recent::RecentEvent;
    use super::writer::{Extras, TableWriter};

    let store: Arc<MemoryStore> = Arc::default();
    let mut writer = TableWriter::new(Arc::clone(&store) as Arc<dyn TableStore>, 3, (0x100, 0x900), 2);
    let summary = Summary { count: 2, tombstone: Some(0x300), metadata: Some(b"{}"[..].into()) };
    writer.begin(5, b"ab", summary, 7);
    writer.position(0x200).unwrap();
    writer.position(0x281).unwrap();
    writer.end().unwrap();
    writer.begin(6, b"c", Summary { count: 1, ..Summary::default() }, 0);
    writer.position(0x400).unwrap();
    writer.end().unwrap();
    let recent = RecentEvent { id: id(9), stream_hash: 6, number: 0, position: 0x400 };
    let mut transactions = super::transactions::Transactions::new(8, 8);
    transactions.start(LogPosition(0x500), "d", -2);
    transactions.write(0x500, LogPosition(0x600));
    let extras = Extras {
        starts: 0x110_u64.to_le_bytes().to_vec(),
        recents: vec![recent],
        transactions: transactions.encode(),
        events: 4,
        new_streams: 1,
        last_event: 0x3F0,
        last_record: 0x600,
        last_record_crc: 0x0A0B_0C0D,
    };
    writer.finish(&extras).unwrap();
    let file = store.files.lock()["table-0000000003"].lock().clone();
    assert_eq!(file.len(), 7 * 4096);
    let u64s = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let mut first = u64s(&[5]);
    first.extend_from_slice(&[17, 7, 2, b'a', b'b', 2, 0x80, 6, 2, b'{', b'}', 7, 2, 0x80, 4, 0x81, 1]);
    first[8] = first.len() as u8 - 9;
    let mut second = u64s(&[6]);
    second.extend_from_slice(&[8, 1, 1, b'c', 1, 0, 1, 0x80, 8]);
    let entries = [first, second].concat();
    let recent = [id(9).0.0.to_vec(), u64s(&[6, 0, 0x400])].concat();
    let transaction =
        [u64s(&[0x500]), (-2_i64).to_le_bytes().to_vec(), vec![1, 0, 0, 0, 1, 0, 0, 0, b'd'], u64s(&[0x600])];
    let transaction = transaction.concat();
    let lengths = [entries.len() as u64, 24, 8, 40, transaction.len() as u64, 64];
    let sections = lengths.iter().enumerate().flat_map(|(number, &length)| [number as u64 * 4092, length]);
    let footer = [
        b"RSTABLE\0\x01\0\0\0\x0d\x0c\x0b\x0a".to_vec(),
        u64s(&[3, 0x100, 0x900, 2, 4, 1, 0x3F0, 0x600]),
        u64s(&sections.collect::<Vec<_>>()),
    ];
    let expected = [entries, u64s(&[5, 7, 0]), u64s(&[0x110]), recent, transaction];
    for (number, page) in file.chunks_exact(4096).enumerate() {
        let data = match number {
            5 => page[..64].to_vec(),
            6 => footer.concat(),
            number => expected[number].clone(),
        };
        assert_eq!(page[..data.len()], data, "page {number}");
        assert!(page[data.len()..4092].iter().all(|&byte| byte == 0), "page {number}");
        let covered = [u64s(&[3, number as u64]), page[..4092].to_vec()].concat();
        assert_eq!(page[4092..], crc32c::crc32c(&covered).to_le_bytes(), "page {number}");
    }
}
