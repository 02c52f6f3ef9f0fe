//! Reads of the whole log in both directions, over records of many events and chunk ends.

use std::cell::Cell;
use std::time::Duration;

use super::*;
use crate::api::test_log::{TestLog, answer, user};
use crate::codec::client::messages::ReadAllEventsCompleted;
use crate::codec::record::RecordKind;
use crate::storage::{LogRead, ReadError};
use crate::types::EventNumber;

const ID: Guid = Guid([3; 16]);

fn read_as(log: &TestLog, request: &ReadAll, who: &Identity, level: ProtocolLevel) -> ReadAllEventsCompleted {
    let mut out = b"earlier".to_vec();
    log.reader().read_all(request, who, level, ID, &mut out);
    let command = match request.direction {
        Direction::Forward => Command::ReadAllEventsForwardCompleted,
        Direction::Backward => Command::ReadAllEventsBackwardCompleted,
    };
    answer(command, ID, &out[7..])
}

fn read(log: &TestLog, direction: Direction, from: AllPosition, max_count: i32) -> ReadAllEventsCompleted {
    let request = ReadAll { direction, from, max_count, resolve_links: false, require_leader: false };
    read_as(log, &request, &user("admin"), ProtocolLevel::V2)
}

/// An entry as (stream, number, its place).
type Entry = (String, i64, AllPosition);

fn entries(page: &ReadAllEventsCompleted) -> Vec<Entry> {
    let entry = |entry: &crate::codec::client::messages::ResolvedEvent| {
        let event = entry.event.as_ref().unwrap();
        let place = AllPosition { commit: entry.commit_position, prepare: entry.prepare_position };
        (event.event_stream_id.clone(), event.event_number, place)
    };
    page.events.iter().map(entry).collect()
}

fn next(page: &ReadAllEventsCompleted) -> AllPosition {
    AllPosition { commit: page.next_commit_position, prepare: page.next_prepare_position }
}

/// Records of one to nine events over several chunks, with hidden, empty and deleting ones between them.
fn busy_log() -> (TestLog, Vec<(String, i64)>) {
    let mut log = TestLog::new();
    let mut written = Vec::new();
    for round in 0..120_usize {
        let stream = format!("stream-{}", round % 7);
        let text = "x".repeat(round * 5);
        let texts = vec![text.as_str(); 1 + round % 9];
        let first = log.index.head(&stream).unwrap().last_event_number + 1;
        log.append_texts(&stream, &texts);
        written.extend((first..).take(texts.len()).map(|number| (stream.clone(), number)));
        match round % 10 {
            3 => log.hidden(),
            5 => drop(log.append(&stream, &[])),
            7 => drop(log.batch(RecordKind::TransactionWrite, &stream, 0, &[("t", b"not committed")])),
            _ => {}
        }
    }
    log.tombstone("stream-3");
    written.push(("stream-3".to_owned(), EventNumber::TOMBSTONE.0));
    log.hidden();
    assert!(log.end.0 > 5 * log.log.layout.chunk_size);
    (log, written)
}

/// Reads page by page until a page is empty, and checks what every page promises.
fn walk(log: &TestLog, direction: Direction, start: AllPosition, page_size: i32) -> Vec<Entry> {
    let (mut from, mut seen) = (start, Vec::new());
    loop {
        let page = read(log, direction, from, page_size);
        assert_eq!(page.result, None, "success is not written");
        let found = entries(&page);
        if found.is_empty() {
            let resolved = AllPosition { commit: page.commit_position, prepare: page.prepare_position };
            assert_eq!(next(&page), resolved, "an empty page stays where it is");
            return seen;
        }
        assert!(found.len() <= page_size as usize);
        let at_end = found.len() < page_size as usize;
        seen.extend(found);
        assert!(seen.len() < 10_000, "the pages go on for ever");
        from = next(&page);
        if at_end {
            assert!(
                log.page_time.is_zero() || read(log, direction, from, page_size).events.is_empty(),
                "a short page is the last one"
            );
        }
    }
}

#[test]
fn every_page_size_sees_every_event_once_in_both_directions() {
    let (log, written) = busy_log();
    for page_size in [1, 2, 3, 4, 5, 7, 8, 9, 10, 64, 600, 4096] {
        let forward = walk(&log, Direction::Forward, AllPosition::START, page_size);
        let named: Vec<_> = forward.iter().map(|(stream, number, _)| (stream.clone(), *number)).collect();
        assert!(named == written, "page size {page_size}");
        assert!(forward.is_sorted_by(|one, other| one.2 < other.2), "places grow");
        let mut backward = walk(&log, Direction::Backward, AllPosition::END, page_size);
        backward.reverse();
        assert!(backward == forward, "page size {page_size}");
    }
    let slow = TestLog { page_time: Duration::ZERO, ..log };
    assert_eq!(entries(&read(&slow, Direction::Forward, AllPosition::START, 100)).len(), 1, "out of time");
    let forward = walk(&slow, Direction::Forward, AllPosition::START, 100);
    let mut backward = walk(&slow, Direction::Backward, AllPosition::END, 100);
    backward.reverse();
    assert!(forward.len() == written.len() && backward == forward);
}

#[test]
fn next_positions_follow_the_rules() {
    let mut log = TestLog::new();
    let one = log.append_texts("a", &["0"]).as_i64();
    let three = log.append_texts("a", &["1", "2", "3"]).as_i64();
    let end = log.end.as_i64();
    let page = read(&log, Direction::Forward, AllPosition::START, 1);
    assert_eq!(next(&page), AllPosition { commit: three, prepare: 0 });
    let page = read(&log, Direction::Forward, next(&page), 1);
    let second = read(&log, Direction::Forward, next(&page), 1);
    assert_eq!(next(&page), entries(&second)[0].2, "inside a record: the place of the next event");
    let page = read(&log, Direction::Forward, next(&second), 5);
    assert_eq!((page.events.len(), next(&page)), (1, AllPosition { commit: end, prepare: 0 }));
    // Backward: the place of the last event returned, which is then excluded.
    let page = read(&log, Direction::Backward, AllPosition::END, 2);
    assert_eq!(next(&page), entries(&page)[1].2);
    assert_eq!(next(&page).commit, three);
    let page = read(&log, Direction::Backward, next(&page), 5);
    assert_eq!(entries(&page).iter().map(|entry| entry.1).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(next(&page).commit, one);
    // Forward from an event's own place includes it.
    let again = read(&log, Direction::Forward, next(&page), 1);
    assert_eq!(entries(&again)[0].1, 0);
}

/// Clients take themselves for up to date when the next position reaches the last commit position on both counts.
#[test]
fn a_reader_inside_the_last_record_is_not_up_to_date() {
    let mut log = TestLog::new();
    log.append_texts("a", &["0"]);
    log.append_texts("a", &["1", "2", "3"]);
    log.hidden();
    let last = log.reader().last_position().unwrap();
    let last = AllPosition { commit: last, prepare: last };
    for count in 1..4 {
        assert!(next(&read(&log, Direction::Forward, AllPosition::START, count)) < last, "{count} of 4 events");
    }
    assert!(next(&read(&log, Direction::Forward, AllPosition::START, 4)) >= last);
    assert!(entries(&read(&log, Direction::Forward, AllPosition::START, 4)).iter().all(|entry| entry.2 < last));
    let later = log.append_texts("a", &["4"]).as_i64();
    assert!(later > last.commit);
}

#[test]
fn the_ends_of_the_log() {
    let (log, _) = busy_log();
    let end = AllPosition { commit: log.end.as_i64(), prepare: log.end.as_i64() };
    let page = read(&log, Direction::Forward, AllPosition::END, 10);
    assert_eq!((page.events.len(), page.commit_position, page.prepare_position), (0, end.commit, end.prepare));
    assert_eq!(next(&page), end);
    assert!(read(&log, Direction::Backward, AllPosition::START, 10).events.is_empty());
    // Beyond what this node has: another node gave the position.
    let beyond = AllPosition { commit: end.commit + 4096, prepare: 0 };
    let page = read(&log, Direction::Forward, beyond, 10);
    assert_eq!((page.events.len(), next(&page)), (0, beyond));
    assert_eq!(read(&log, Direction::Backward, beyond, 10).events.len(), 10);
    let huge = AllPosition { commit: i64::MAX, prepare: i64::MAX };
    assert_eq!(read(&log, Direction::Backward, huge, 10).events.len(), 10);
    assert!(read(&log, Direction::Forward, huge, 10).events.is_empty());
    let empty = TestLog::new();
    for direction in [Direction::Forward, Direction::Backward] {
        for from in [AllPosition::START, AllPosition::END, huge] {
            assert!(read(&empty, direction, from, 10).events.is_empty());
        }
    }
}

#[test]
fn any_position_is_a_place_between_events() {
    let (log, _) = busy_log();
    let all = walk(&log, Direction::Forward, AllPosition::START, 4096);
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..300 {
        let commit = random.i64(0..log.end.as_i64());
        let from = AllPosition { commit, prepare: commit + random.i64(0..200) };
        let split = all.partition_point(|entry| entry.2 < from);
        let after = entries(&read(&log, Direction::Forward, from, 5));
        assert_eq!(after, all[split..].iter().take(5).cloned().collect::<Vec<_>>());
        let before = entries(&read(&log, Direction::Backward, from, 5));
        assert_eq!(before, all[..split].iter().rev().take(5).cloned().collect::<Vec<_>>());
    }
}

#[test]
fn refusals_repeat_the_start_and_lead_nowhere() {
    let (log, _) = busy_log();
    let start = AllPosition { commit: 64, prepare: 96 };
    let refused = |from: AllPosition, max_count: i32, who: &Identity| {
        let direction = Direction::Forward;
        let request = ReadAll { direction, from, max_count, resolve_links: false, require_leader: false };
        let page = read_as(&log, &request, who, ProtocolLevel::V2);
        assert!(page.events.is_empty() && next(&page) == AllPosition::END);
        assert_eq!((page.commit_position, page.prepare_position), (from.commit, from.prepare));
        (page.result(), page.error)
    };
    let admin = user("admin");
    let too_big = "Read size too big, should be less than 4096 items".to_owned();
    assert_eq!(refused(start, 4097, &admin), (ReadAllResult::Error, Some(too_big)));
    assert!(refused(start, 0, &admin).1.unwrap().starts_with("max_count is 0"));
    for (commit, prepare) in [(-1, 0), (0, -1), (-2, -2), (i64::MIN, 5)] {
        let from = AllPosition { commit, prepare };
        assert_eq!(refused(from, 5, &admin), (ReadAllResult::Error, Some("Invalid position.".to_owned())));
    }
    for who in [Identity::Anonymous, user("ops")] {
        assert_eq!(refused(start, 5, &who), (ReadAllResult::AccessDenied, None));
    }
}

#[test]
fn everybody_may_read_what_the_list_of_all_allows() {
    let (mut log, _) = busy_log();
    log.metadata("$all", "{\"$acl\":{\"$r\":[\"$ops\",\"reader\"]}}");
    let (direction, from) = (Direction::Forward, AllPosition::START);
    let request = ReadAll { direction, from, max_count: 5, resolve_links: true, require_leader: false };
    assert_eq!(read_as(&log, &request, &user("ops"), ProtocolLevel::V2).events.len(), 5);
    assert_eq!(read_as(&log, &request, &Identity::Anonymous, ProtocolLevel::V2).result(), ReadAllResult::AccessDenied);
}

#[test]
fn links_keep_their_own_place() {
    let mut log = TestLog::new();
    log.append_texts("orders", &["0"]);
    let link = log.append("links", &[("$>", b"0@orders")]).as_i64();
    let (direction, from) = (Direction::Backward, AllPosition::END);
    let request = ReadAll { direction, from, max_count: 1, resolve_links: true, require_leader: false };
    let page = read_as(&log, &request, &user("admin"), ProtocolLevel::V2);
    let entry = &page.events[0];
    assert_eq!(entry.event.as_ref().unwrap().event_stream_id, "orders");
    assert_eq!(entry.link.as_ref().unwrap().event_stream_id, "links");
    assert_eq!(entry.commit_position, link);
}

#[test]
fn the_level_of_the_client_decides_how_a_tombstone_looks() {
    let (log, _) = busy_log();
    let (direction, from) = (Direction::Backward, AllPosition::END);
    let request = ReadAll { direction, from, max_count: 1, resolve_links: false, require_leader: false };
    let number = |level| read_as(&log, &request, &user("admin"), level).events[0].event.as_ref().unwrap().event_number;
    assert_eq!((number(ProtocolLevel::V1), number(ProtocolLevel::V2)), (i64::from(i32::MAX), i64::MAX));
}

/// The index is being rebuilt, and a page has no time at all: each attempt gets a little further, so that every event is read
/// in the end, and the way to a place is gone once and not for each page.
#[test]
fn without_an_index_a_page_goes_on_where_the_one_before_was() {
    let layout = crate::storage::ChunkLayout { chunk_size: 1 << 20 };
    let mut log = TestLog::with_layout(layout);
    let text = "x".repeat(1000);
    for _ in 0..1500 {
        log.append_texts("orders", &[&text]);
    }
    let directory = crate::storage::memory::TempDirectory::new();
    let store = crate::index::FileStore::open(directory.path(), false).unwrap();
    log.index = crate::index::Index::open(std::sync::Arc::new(store), &log.log, layout, log.end, 1).unwrap();
    log.index.set_behind(log.end);
    log.page_time = Duration::ZERO;
    for (direction, start) in
        [(Direction::Forward, AllPosition { commit: 0, prepare: 0 }), (Direction::Backward, AllPosition::END)]
    {
        let (mut from, mut seen, mut not_ready) = (start, Vec::new(), 0);
        log.checks = crate::api::log_events::Checks::default();
        loop {
            let mut out = Vec::new();
            let request = ReadAll { direction, from, max_count: 50, resolve_links: false, require_leader: false };
            log.reader().read_all(&request, &user("admin"), ProtocolLevel::V2, ID, &mut out);
            if out[4] == Command::NotHandled as u8 {
                not_ready += 1;
                assert!(not_ready < 100, "{direction:?}: it does not go on at {from:?}");
                continue;
            }
            let command = match direction {
                Direction::Forward => Command::ReadAllEventsForwardCompleted,
                Direction::Backward => Command::ReadAllEventsBackwardCompleted,
            };
            let page: ReadAllEventsCompleted = answer(command, ID, &out);
            if page.events.is_empty() {
                break;
            }
            seen.extend(entries(&page).into_iter().map(|(_, number, _)| number));
            from = next(&page);
        }
        if direction == Direction::Backward {
            seen.reverse();
        }
        assert_eq!(seen, (0..1500).collect::<Vec<i64>>(), "{direction:?}");
        // In each of the two chunks, every 64 KiB on the way to a place.
        assert!(not_ready > 5, "{direction:?}: {not_ready}");
    }
}

/// A log in which a thread meets an unreadable page between two looks of another.
struct Vanishing<'a> {
    log: &'a dyn LogRead,
    looks: Cell<u64>,
}

impl LogRead for Vanishing<'_> {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        self.looks.set(self.looks.get() + 1);
        self.log.with_chunk(position, visit)
    }

    fn unreadable(&self) -> u64 {
        u64::from(self.looks.get() > 1)
    }
}

#[test]
fn what_was_checked_and_is_gone_when_it_is_read_again_is_not_served() {
    let mut log = TestLog::new();
    log.append_texts("a", &["0", "1"]);
    let request = ReadAll {
        direction: Direction::Backward,
        from: AllPosition::END,
        max_count: 10,
        resolve_links: false,
        require_leader: false,
    };
    let vanishing = Vanishing { log: &log.log, looks: 0.into() };
    let reader = Reader { log: &vanishing, ..log.reader() };
    let page = || {
        let mut out = Vec::new();
        reader.read_all(&request, &user("admin"), ProtocolLevel::V2, Guid::ZERO, &mut out);
        answer::<ReadAllEventsCompleted>(Command::ReadAllEventsBackwardCompleted, Guid::ZERO, &out)
    };
    let first = page();
    assert!(first.events.is_empty() && first.error.is_some(), "{first:?}");
    assert_eq!(page().events.len(), 2);
}
