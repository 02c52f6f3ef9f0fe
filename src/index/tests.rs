//! Tests of the index against logs in memory.

use std::collections::BTreeMap;

use super::*;
use crate::codec::record::sealed_length;
use crate::codec::record::{
    BatchBuilder, BatchView, EVENT_HEADER_BYTES, Header, RecordKind, RecordView, padding, seal,
};
use crate::limits::{RECORD_HEADER_BYTES, RECORD_STARTS_BYTES};
use crate::storage::memory::MemoryLog;
use crate::storage::{FileName, ReadError};
use crate::types::{EventId, EventNumber, Guid, Term};

pub(super) const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 256 << 10 };

/// A log under construction.
pub(super) struct Log {
    pub(super) log: MemoryLog,
    pub(super) end: LogPosition,
}

/// An event to write: identifier, type, data.
pub(super) type Event<'a> = (u64, &'a str, &'a [u8]);

pub(super) fn id(n: u64) -> EventId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes[15] = 1;
    EventId(Guid(bytes))
}

impl Log {
    pub(super) fn new() -> Log {
        Log { log: MemoryLog { layout: LAYOUT, bytes: Vec::new() }, end: LogPosition::ZERO }
    }

    fn record(&mut self, kind: RecordKind, event_count: u16, body: &[u8]) -> LogPosition {
        let mut length = sealed_length(body.len());
        let room = LAYOUT.room(self.end) as usize;
        if length > room {
            let position = self.end;
            padding(self.room(room), position, Term(1), 0);
            self.end = self.end.plus(room as u64);
        }
        let room = LAYOUT.room(self.end) as usize;
        if room - length < RECORD_HEADER_BYTES {
            length = room;
        }
        let (position, term) = (self.end, Term(1));
        let buffer = self.room(length);
        buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
        seal(buffer, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 1 });
        self.end = position.plus(length as u64);
        position
    }

    /// The next `length` bytes, in a log that always reaches to the end of a chunk.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let (start, chunk) = (self.end.0 as usize, LAYOUT.chunk_of(self.end));
        self.log.bytes.resize(LAYOUT.chunk_start(chunk + 1).0 as usize, 0);
        &mut self.log.bytes[start..start + length]
    }

    pub(super) fn batch(&mut self, kind: RecordKind, stream: &str, number: i64, events: &[Event<'_>]) -> LogPosition {
        let mut batch = BatchBuilder::new(stream, 0);
        for (n, event_type, data) in events {
            batch.event(id(*n), event_type, true, data, b"");
        }
        let event_count = batch.event_count();
        let mut body = batch.finish();
        BatchView::set_first_event_number(&mut body, number);
        self.record(kind, event_count, &body)
    }

    pub(super) fn append(&mut self, stream: &str, number: i64, ids: std::ops::Range<u64>) -> LogPosition {
        let events: Vec<Event<'_>> = ids.map(|id| (id, "placed", &b"data"[..])).collect();
        self.batch(RecordKind::Append, stream, number, &events)
    }

    pub(super) fn metadata(&mut self, metastream: &str, number: i64, json: &str) -> LogPosition {
        self.batch(RecordKind::Append, metastream, number, &[(number as u64 + 1000, "$metadata", json.as_bytes())])
    }

    fn apply(&self, index: &Index) {
        assert_eq!(index.apply_to(&self.log, LAYOUT, self.end).unwrap(), self.end);
    }

    /// The event whose entry lies at `prepare_position`, as a reader finds it.
    fn read(&self, prepare_position: LogPosition) -> (String, EventId) {
        let at = prepare_position.0 as usize;
        let start = BatchView::record_of(&self.log.bytes[at..], prepare_position).unwrap();
        let bytes = &self.log.bytes[start.0 as usize..];
        let record = RecordView::check(bytes, start, LAYOUT.room(start)).unwrap();
        let batch = BatchView::read(&record).unwrap();
        let event = batch.event_at(prepare_position, EventNumber(0)).unwrap();
        (event.stream.to_owned(), event.id)
    }
}

fn positions(index: &Index, stream: &str, first: i64, count: usize) -> (i64, Vec<LogPosition>) {
    let mut out = vec![LogPosition(1); 3];
    let first = index.positions(stream, first, count, &mut out).unwrap();
    (first, out)
}

#[test]
fn events_are_found_by_stream_and_number() {
    let mut log = Log::new();
    for n in 0..200 {
        log.append("orders", n * 3, n as u64 * 3..n as u64 * 3 + 3);
        log.append(&format!("order-{n}"), 0, 5000 + n as u64..5001 + n as u64);
    }
    let index = Index::new();
    log.apply(&index);
    assert_eq!(index.head("orders").unwrap(), StreamHead { last_event_number: 599, ..StreamHead::NONE });
    let (first, found) = positions(&index, "orders", 7, 500);
    assert_eq!((first, found.len()), (7, 500));
    for (number, position) in (7..).zip(found) {
        assert_eq!(log.read(position), ("orders".to_owned(), id(number)));
    }
    assert_eq!(positions(&index, "orders", 598, 10).1.len(), 2);
    assert_eq!(positions(&index, "orders", 600, 10), (600, vec![]));
    assert_eq!(positions(&index, "orders", i64::MAX, 10), (i64::MAX, vec![]));
    assert_eq!(positions(&index, "nothing", 0, 10), (0, vec![]));
    assert_eq!((index.stream("nothing").unwrap(), index.head("nothing").unwrap()), (None, StreamHead::NONE));
    assert_eq!(log.read(positions(&index, "order-7", 0, 1).1[0]), ("order-7".to_owned(), id(5007)));
    let figures = index.figures();
    assert_eq!((figures.streams, figures.events), (201, 800));
    assert!(figures.bytes > 800 * 8);
}

#[test]
fn a_log_that_begins_in_the_middle_of_a_stream_keeps_its_numbers() {
    let mut log = Log::new();
    log.append("orders", 40, 0..2);
    log.append("orders", 42, 2..3);
    let index = Index::new();
    log.apply(&index);
    let info = index.stream("orders").unwrap().unwrap();
    assert_eq!((info.last_event_number, info.oldest_event_number, info.first_readable()), (42, 40, 40));
    let (first, found) = positions(&index, "orders", 0, 2);
    assert_eq!((first, log.read(found[0]).1, log.read(found[1]).1), (40, id(0), id(1)));
    assert_eq!(log.read(positions(&index, "orders", 42, 2).1[0]).1, id(2));
}

#[test]
fn applying_is_idempotent_and_stops_in_front_of_a_record_across_the_limit() {
    let mut log = Log::new();
    let first = log.append("a", 0, 0..1);
    let second = log.append("a", 1, 1..2);
    let end = log.end;
    let index = Index::new();
    let apply = |limit: u64| index.apply_to(&log.log, LAYOUT, LogPosition(limit)).unwrap();
    assert_eq!((apply(0), index.last_event_position()), (LogPosition::ZERO, None));
    assert_eq!(apply(second.0 - 8), first);
    assert_eq!((apply(second.0), index.last_event_position()), (second, Some(first)));
    assert_eq!(apply(end.0 - 8), second);
    for limit in [end.0, end.0, second.0, 0] {
        assert_eq!(apply(limit), end);
        assert_eq!((index.head("a").unwrap().last_event_number, index.applied()), (1, end));
    }
    assert_eq!(index.last_event_position(), Some(second));
    assert_eq!(index.figures().events, 2);
}

#[test]
fn a_gap_in_the_numbers_is_an_error_that_changes_nothing() {
    let mut log = Log::new();
    log.append("a", 0, 0..2);
    let bad = log.append("a", 3, 2..3);
    log.append("a", 4, 3..4);
    let index = Index::new();
    for _ in 0..2 {
        let error = index.apply_to(&log.log, LAYOUT, log.end).unwrap_err();
        assert!(matches!(error, IndexError::EventNumber { position, expected: 2, found: 3, .. } if position == bad));
        assert_eq!((index.applied(), index.head("a").unwrap().last_event_number), (bad, 1));
    }
}

#[test]
fn numbers_that_no_event_can_have_are_errors() {
    for number in [-1, i64::MIN, i64::MAX] {
        let mut log = Log::new();
        log.append("a", number, 0..1);
        let index = Index::new();
        assert!(index.apply_to(&log.log, LAYOUT, log.end).is_err(), "{number}");
        assert_eq!(index.stream("a").unwrap(), None);
    }
}

#[test]
fn a_damaged_record_is_an_error_with_its_place() {
    let mut log = Log::new();
    log.append("a", 0, 0..1);
    let hurt = log.append("a", 1, 1..2);
    let end = log.end;
    let entry = hurt.0 as usize + RECORD_HEADER_BYTES + 24;
    let check = |at: usize, value: u8| {
        let mut log = MemoryLog { layout: LAYOUT, bytes: log.log.bytes.clone() };
        log.bytes[at] = value;
        let index = Index::new();
        let error = index.apply_to(&log, LAYOUT, end).unwrap_err();
        assert!(error.to_string().contains(&format!("log position {hurt}:")), "{error}");
        assert_eq!(index.applied(), hurt);
    };
    check(hurt.0 as usize + 8, 0xFF);
    check(hurt.0 as usize + 20, 99);
    check(hurt.0 as usize + RECORD_HEADER_BYTES, 0xFF);
    check(entry, (EVENT_HEADER_BYTES - 4) as u8);
    let missing = MemoryLog { layout: LAYOUT, bytes: Vec::new() };
    assert!(matches!(Index::new().apply_to(&missing, LAYOUT, end), Err(IndexError::Read { .. })));
}

#[test]
fn metadata_is_about_the_base_stream() {
    let mut log = Log::new();
    log.append("x", 0, 0..10);
    log.metadata("$$x", 0, r#"{"$maxCount":3}"#);
    log.metadata("$$early", 0, r#"{"$tb":2}"#);
    log.metadata("$$$$x", 0, r#"{"$maxCount":9}"#);
    let index = Index::new();
    log.apply(&index);
    let info = index.stream("x").unwrap().unwrap();
    assert_eq!((info.metadata.max_count, info.first_readable()), (Some(3), 7));
    let head = StreamHead { last_event_number: -1, soft_deleted: false, has_metadata: true };
    assert_eq!(index.head("early").unwrap(), head);
    let info = index.stream("early").unwrap().unwrap();
    assert_eq!((info.last_event_number, info.first_readable()), (-1, 2));
    log.metadata("$$x", 1, r#"{"$tb":9223372036854775807}"#);
    log.apply(&index);
    assert!(index.head("x").unwrap().soft_deleted);
    let info = index.stream("x").unwrap().unwrap();
    assert!(info.is_soft_deleted() && info.last_event_number == 9 && info.first_readable() == i64::MAX);
    // A write of another type to the metadata stream changes nothing, metadata that is no JSON empties it.
    log.batch(RecordKind::Append, "$$x", 2, &[(1, "other", b"{}")]);
    log.apply(&index);
    assert!(index.head("x").unwrap().soft_deleted);
    log.metadata("$$x", 3, "what");
    log.apply(&index);
    assert_eq!(index.head("x").unwrap(), StreamHead { last_event_number: 9, soft_deleted: false, has_metadata: true });
    // The metadata stream itself: the last event only, whatever is written about it.
    let info = index.stream("$$x").unwrap().unwrap();
    assert_eq!((info.last_event_number, info.first_readable(), info.metadata.max_count), (3, 3, Some(1)));
}

#[test]
fn what_is_readable_follows_from_truncation_and_count() {
    let check = |last: i64, oldest: i64, truncate_before: Option<i64>, max_count: Option<i64>, first: i64| {
        let metadata = Arc::new(StreamMetadata { truncate_before, max_count, ..StreamMetadata::default() });
        let hard_deleted = last == i64::MAX;
        let info = StreamInfo { last_event_number: last, hard_deleted, metadata, oldest_event_number: oldest };
        assert_eq!(info.first_readable(), first, "{info:?}");
    };
    check(9, 0, None, None, 0);
    check(9, 0, Some(4), None, 4);
    check(9, 0, Some(40), None, 40);
    check(9, 0, None, Some(1), 9);
    check(9, 0, None, Some(10), 0);
    check(9, 0, None, Some(i64::MAX), 0);
    check(9, 0, Some(4), Some(3), 7);
    check(9, 0, Some(8), Some(3), 8);
    check(9, 5, Some(2), None, 5);
    check(-1, 0, None, Some(5), 0);
    check(i64::MAX, 0, None, Some(1), i64::MAX);
}

#[test]
fn a_tombstone_is_found_and_ends_the_stream() {
    let mut log = Log::new();
    log.append("x", 0, 0..2);
    let delete = log.batch(RecordKind::Delete, "x", i64::MAX, &[(7, "$streamDeleted", b"")]);
    log.batch(RecordKind::Delete, "never", i64::MAX, &[(8, "$streamDeleted", b"")]);
    let index = Index::new();
    index.apply_to(&log.log, LAYOUT, delete).unwrap();
    assert_eq!(index.head("x").unwrap().last_event_number, 1);
    log.apply(&index);
    assert!(index.last_event_position() > Some(delete));
    let info = index.stream("x").unwrap().unwrap();
    assert!(info.hard_deleted && info.last_event_number == i64::MAX);
    assert_eq!(index.head("never").unwrap().last_event_number, i64::MAX);
    let (first, found) = positions(&index, "x", i64::MAX, 1);
    assert_eq!((first, log.read(found[0]).1), (i64::MAX, id(7)));
    assert_eq!(positions(&index, "x", 0, 10).1.len(), 2);
    assert_eq!(index.figures().events, 4);
}

#[test]
fn recent_identifiers_are_known_by_stream() {
    let mut log = Log::new();
    log.append("a", 0, 10..13);
    log.append("b", 0, 11..12);
    let index = Index::new();
    log.apply(&index);
    assert_eq!((index.recent("a", id(12)).unwrap(), index.recent("a", id(11)).unwrap()), (Some(2), Some(1)));
    assert_eq!((index.recent("b", id(11)).unwrap(), index.recent("b", id(12)).unwrap()), (Some(0), None));
}

#[test]
fn transactions_are_gathered_and_stay_after_their_commit() {
    let mut log = Log::new();
    let start = log.batch(RecordKind::TransactionStart, "x", -2, &[]);
    let first = log.batch(RecordKind::TransactionWrite, "x", start.as_i64(), &[(1, "t", b"1")]);
    log.append("other", 0, 5..6);
    let second = log.batch(RecordKind::TransactionWrite, "x", start.as_i64(), &[(2, "t", b"2")]);
    let index = Index::new();
    log.apply(&index);
    assert_eq!(index.stream("x").unwrap(), None, "nothing of it is visible before its commit");
    let expected = Transaction { stream: "x".into(), expected_version: -2, writes: vec![first, second] };
    assert_eq!(index.transaction(start), Some(expected.clone()));
    assert_eq!(index.transaction(first), None);
    assert_eq!((index.transaction_stream(start), index.transaction_stream(first)), (Some("x".into()), None));
    log.append("x", 0, 1..3);
    log.apply(&index);
    assert_eq!(index.transaction(start), Some(expected));
}

#[test]
fn a_write_of_no_events_leaves_no_trace() {
    let mut log = Log::new();
    log.append("x", 0, 0..0);
    let index = Index::new();
    log.apply(&index);
    assert_eq!((index.stream("x").unwrap(), index.last_event_position()), (None, None));
}

#[test]
fn a_record_start_is_near_every_position() {
    let mut log = Log::new();
    let mut starts = Vec::new();
    let mut random = fastrand::Rng::with_seed(3);
    let index = Index::new();
    assert_eq!(index.record_at_or_before(LogPosition(1 << 40)), LogPosition::ZERO);
    for n in 0..2000 {
        let before = log.end;
        let data = vec![1; random.usize(0..2000)];
        starts.push(log.batch(RecordKind::Append, "x", n, &[(n as u64, "t", &data)]));
        if starts.last() != Some(&before) {
            starts.insert(starts.len() - 1, before);
        }
    }
    log.apply(&index);
    assert!(log.end.0 > 4 * LAYOUT.chunk_size);
    for _ in 0..2000 {
        let position = LogPosition(random.u64(0..log.end.0));
        let found = index.record_at_or_before(position);
        assert!(found <= position && starts.binary_search(&found).is_ok());
        // One record and one padding away at most; neither is above 3,000 bytes here.
        assert!(position.since(found) < RECORD_STARTS_BYTES + 6000, "{position} {found}");
    }
}

/// Readers that saw a value of `applied` must find every event below it, while several threads apply at once.
#[test]
fn readers_see_what_applied_covers_while_several_threads_apply() {
    let mut log = Log::new();
    let mut ends = Vec::new();
    for n in 0..3000 {
        log.append("all", n * 2, n as u64 * 2..n as u64 * 2 + 2);
        log.append(&format!("s-{}", n % 50), n / 50, 0..1);
        ends.push(log.end);
    }
    let index = Index::new();
    std::thread::scope(|scope| {
        for offset in 0..3 {
            let (index, log, ends) = (&index, &log, &ends);
            scope.spawn(move || {
                for end in ends.iter().skip(offset).step_by(3) {
                    assert!(index.apply_to(&log.log, LAYOUT, *end).unwrap() >= *end);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                let mut out = Vec::new();
                while index.applied() < log.end {
                    let applied = index.applied();
                    let rounds = ends.partition_point(|&end| end <= applied) as i64;
                    let last = index.head("all").unwrap().last_event_number;
                    assert!(last >= rounds * 2 - 1 && last % 2 != 0, "{last} after {rounds} rounds");
                    index.positions("all", 0, usize::MAX, &mut out).unwrap();
                    assert!(out.len() as i64 > last && out.is_sorted());
                    assert!(index.record_at_or_before(applied) <= applied);
                }
            });
        }
    });
    assert_eq!(index.applied(), log.end);
    assert_eq!(index.figures().events, 9000);
    assert_eq!(index.head("s-7").unwrap().last_event_number, 59);
}

#[test]
fn a_pass_takes_its_share_and_a_large_record_at_least() {
    let mut log = Log::new();
    for n in 0..40 {
        log.append("x", n, n as u64..n as u64 + 1);
    }
    let large = vec![1; 3000];
    let before = log.end;
    log.batch(RecordKind::Append, "x", 40, &[(40, "t", &large)]);
    let index = Index::new();
    let attempt = |limit, bytes| index.try_apply(&log.log, LAYOUT, limit, bytes).unwrap();
    assert_eq!(attempt(log.end, 500), Attempt::Advanced);
    let first = index.applied();
    assert!(first.0 >= 500 && first.0 < 800, "{first}");
    let applier = index.applier.lock();
    assert_eq!(attempt(log.end, 500), Attempt::Elsewhere);
    assert_eq!(index.applied(), first);
    drop(applier);
    assert_eq!(attempt(before, 1 << 20), Attempt::Advanced);
    assert_eq!(attempt(before, 1 << 20), Attempt::Nothing, "all of it is applied");
    assert_eq!(attempt(log.end, 8), Attempt::Advanced);
    assert_eq!(index.applied(), log.end);
}

#[test]
fn what_readers_do_not_see_is_passed_over() {
    let mut log = Log::new();
    let index = Index::new();
    assert_eq!(index.next_visible(LogPosition::ZERO), None);
    let data = vec![1; 2000];
    let mut visible = Vec::new();
    let mut random = fastrand::Rng::with_seed(5);
    let mut number = 0;
    for _ in 0..60 {
        for _ in 0..random.usize(0..90) {
            log.batch(RecordKind::TransactionWrite, "x", 0, &[(0, "t", &data)]);
        }
        for _ in 0..random.usize(1..40) {
            visible.push(log.batch(RecordKind::Append, "x", number, &[(number as u64, "t", &data)]));
            number += 1;
        }
    }
    log.apply(&index);
    for position in (0..log.end.0).step_by(1 << 10).map(LogPosition) {
        let next = visible.iter().find(|&&start| start >= position);
        match index.next_visible(position) {
            None => assert_eq!(next, None),
            Some(found) if found == position => {
                let start = index.record_at_or_before(position);
                assert!(visible.contains(&start) && position.since(start) < RECORD_STARTS_BYTES);
            }
            Some(found) => assert_eq!(Some(&found), next),
        }
    }
}

/// Streams by the hundred, old ones and new ones and metadata among each other: groups of appends change nothing.
#[test]
fn it_agrees_with_a_list_of_all_writes() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut log, index) = (Log::new(), Index::new());
        let mut expected: BTreeMap<String, Vec<EventId>> = BTreeMap::new();
        let stream_count = random.u32(1..300);
        for n in 0..1500 {
            let stream = format!("{}s-{}", if random.u8(0..20) == 0 { "$$" } else { "" }, random.u32(0..stream_count));
            let ids = expected.entry(stream.clone()).or_default();
            let count = if random.u8(0..50) == 0 { 700 } else { random.u64(1..4) };
            log.append(&stream, ids.len() as i64, n * 1000..n * 1000 + count);
            ids.extend((n * 1000..n * 1000 + count).map(id));
            if random.u8(0..30) == 0 {
                log.apply(&index);
            }
        }
        log.apply(&index);
        let events: usize = expected.values().map(Vec::len).sum();
        let figures = index.figures();
        assert_eq!((figures.streams, figures.events), (expected.len() as u64, events as u64), "seed {seed}");
        let all = expected.iter().flat_map(|(stream, ids)| ids.iter().map(move |&id| (stream, id)));
        assert!(all.clone().all(|(stream, id)| index.recent(stream, id).unwrap().is_some()), "seed {seed}");
        for (stream, ids) in &expected {
            let found = positions(&index, stream, 0, usize::MAX).1;
            assert_eq!(index.head(stream).unwrap().last_event_number + 1, ids.len() as i64);
            for (number, (&position, &id)) in found.iter().zip(ids).enumerate() {
                assert_eq!(log.read(position), (stream.clone(), id), "seed {seed}");
                assert_eq!(index.recent(stream, id).unwrap(), Some(number as i64));
            }
        }
    }
}

#[test]
fn an_error_within_a_group_leaves_what_came_before() {
    let mut log = Log::new();
    for n in 0..5 {
        log.append(&format!("s-{n}"), 0, n..n + 1);
    }
    let bad = log.append("s-3", 7, 8..9);
    log.append("s-4", 1, 9..10);
    let index = Index::new();
    for _ in 0..2 {
        let error = index.apply_to(&log.log, LAYOUT, log.end).unwrap_err();
        assert!(matches!(error, IndexError::EventNumber { expected: 1, found: 7, .. }), "{error}");
        assert_eq!((index.applied(), index.figures().events), (bad, 5));
        assert_eq!((index.head("s-4").unwrap().last_event_number, index.recent("s-4", id(9)).unwrap()), (0, None));
        assert_eq!((index.recent("s-4", id(4)).unwrap(), index.last_event_position() < Some(bad)), (Some(0), true));
    }
}

/// A log with a page that is good when it is checked, and zeros when the look at it is over.
struct Failing<'a> {
    log: &'a MemoryLog,
    failures: std::cell::Cell<u32>,
}

impl LogRead for Failing<'_> {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        self.log.with_chunk(position, visit)?;
        let Some(left) = self.failures.get().checked_sub(1) else { return Ok(()) };
        self.failures.set(left);
        Err(ReadError::Unreadable { name: FileName::Chunk(0), position })
    }
}

#[test]
fn nothing_is_applied_of_a_look_in_which_a_page_could_not_be_read() {
    let mut log = Log::new();
    log.append("orders", 0, 0..3);
    log.metadata("$$orders", 0, r#"{"$maxCount":2}"#);
    log.batch(RecordKind::Delete, "gone", i64::MAX, &[(9, "$streamDeleted", b"")]);
    let index = Index::new();
    let failing = Failing { log: &log.log, failures: 1.into() };
    let apply = || index.apply_to(&failing, LAYOUT, log.end);
    let error = apply().unwrap_err();
    assert!(matches!(error, IndexError::Read { position: LogPosition::ZERO, .. }), "{error}");
    assert_eq!((index.applied(), index.last_event_position()), (LogPosition::ZERO, None));
    assert_eq!(index.figures(), Index::new().figures());
    assert_eq!(apply().unwrap(), log.end);
    assert_eq!(index.head("orders").unwrap().last_event_number, 2);
}
