//! The tables of the protocol for stream reads, row by row.

use std::time::Duration;

use super::*;
use crate::api::test_log::{SECOND, TestLog, answer, user};
use crate::codec::client::messages::{ReadEventCompleted, ReadStreamEventsCompleted, ResolvedIndexedEvent};
use crate::limits::READ_PAGE_BYTES_MAX;
use crate::storage::ChunkLayout;
use crate::types::LogPosition;

const ID: Guid = Guid([3; 16]);

struct Page {
    direction: Direction,
    from: i64,
    max_count: i32,
}

fn forward(from: i64, max_count: i32) -> Page {
    Page { direction: Direction::Forward, from, max_count }
}

fn backward(from: i64, max_count: i32) -> Page {
    Page { direction: Direction::Backward, from, max_count }
}

fn read_page(
    log: &TestLog,
    stream: &str,
    page: &Page,
    resolve_links: bool,
    who: &Identity,
) -> ReadStreamEventsCompleted {
    let &Page { direction, from, max_count } = page;
    let stream = stream.to_owned();
    let request = ReadStream { direction, stream, from, max_count, resolve_links, require_leader: false };
    let mut out = b"earlier".to_vec();
    log.reader().read_stream(&request, who, ProtocolLevel::V2, ID, &mut out);
    let command = match direction {
        Direction::Forward => Command::ReadStreamEventsForwardCompleted,
        Direction::Backward => Command::ReadStreamEventsBackwardCompleted,
    };
    answer(command, ID, &out[7..])
}

/// Checks a page that succeeds: its numbers, the next number, the end mark.
fn check(log: &TestLog, stream: &str, page: &Page, numbers: &[i64], next: i64, is_end: bool) {
    let read = read_page(log, stream, page, false, &Identity::Anonymous);
    let found: Vec<_> = read.events.iter().map(|entry| entry.event.as_ref().unwrap().event_number).collect();
    let label = format!("{stream} from {} count {}", page.from, page.max_count);
    assert_eq!((read.result(), read.error.as_deref()), (ReadStreamResult::Success, Some("")), "{label}");
    assert_eq!((&found[..], read.next_event_number, read.is_end_of_stream), (numbers, next, is_end), "{label}");
    assert_eq!(read.last_event_number, log.index.head(stream).unwrap().last_event_number, "{label}");
    assert_eq!(read.last_commit_position, log.reader().last_position().unwrap(), "{label}");
}

fn check_refused(log: &TestLog, stream: &str, page: &Page, result: ReadStreamResult, last: i64, error: &str) {
    let read = read_page(log, stream, page, false, &Identity::Anonymous);
    assert_eq!((read.result(), read.events.len()), (result, 0), "{stream}");
    assert_eq!((read.next_event_number, read.last_event_number, read.is_end_of_stream), (-1, last, true), "{stream}");
    assert!(read.error.as_ref().is_some_and(|text| text.starts_with(error) && text.is_empty() == error.is_empty()));
}

/// A stream of ten events in records of one, two and three, with others between them.
fn ten_events() -> TestLog {
    let mut log = TestLog::new();
    for texts in [&["0"][..], &["1", "2"], &["3", "4", "5"], &["6", "7", "8"], &["9"]] {
        log.append_texts("orders", texts);
        log.append_texts("other", &["x"]);
        log.hidden();
    }
    log
}

#[test]
fn a_page_that_is_out_of_time_ends_with_what_it_has() {
    let log = TestLog { page_time: Duration::ZERO, ..ten_events() };
    check(&log, "orders", &forward(2, 5), &[2], 3, false);
    check(&log, "orders", &forward(9, 5), &[9], 10, true);
    check(&log, "orders", &backward(6, 5), &[6], 5, false);
    check(&log, "orders", &backward(0, 5), &[0], -1, true);
}

#[test]
fn the_clock_is_looked_at_for_each_page_of_memory_and_after_each_link() {
    let log = TestLog { page_time: Duration::ZERO, ..ten_events() };
    let mut clock = PageClock::start(&log.reader());
    let seen = [0, 100, 5000, 5001].map(|at| clock.is_over(LogPosition(at)));
    assert_eq!(seen, [true, false, true, false]);
    clock.went_elsewhere();
    assert!(clock.is_over(LogPosition(5001)));
}

#[test]
fn forward_pages() {
    let log = ten_events();
    check(&log, "orders", &forward(0, 3), &[0, 1, 2], 3, false);
    check(&log, "orders", &forward(2, 5), &[2, 3, 4, 5, 6], 7, false);
    check(&log, "orders", &forward(7, 3), &[7, 8, 9], 10, true);
    check(&log, "orders", &forward(0, 4096), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10, true);
    check(&log, "orders", &forward(9, 1), &[9], 10, true);
    check(&log, "orders", &forward(10, 5), &[], 10, true);
    check(&log, "orders", &forward(15, 5), &[], 10, true);
    check(&log, "orders", &forward(i64::MAX, 5), &[], 10, true);
}

#[test]
fn backward_pages() {
    let log = ten_events();
    check(&log, "orders", &backward(-1, 3), &[9, 8, 7], 6, false);
    check(&log, "orders", &backward(5, 2), &[5, 4], 3, false);
    check(&log, "orders", &backward(2, 3), &[2, 1, 0], -1, true);
    check(&log, "orders", &backward(2, 2), &[2, 1], 0, false);
    check(&log, "orders", &backward(0, 1), &[0], -1, true);
    check(&log, "orders", &backward(2, 10), &[2, 1, 0], -1, true);
    // Partly and wholly beyond the end.
    check(&log, "orders", &backward(11, 4), &[9, 8], 7, false);
    check(&log, "orders", &backward(11, 20), &[9, 8, 7, 6, 5, 4, 3, 2, 1, 0], -1, true);
    check(&log, "orders", &backward(20, 3), &[], 9, false);
    check(&log, "orders", &backward(i64::MAX, 3), &[], 9, false);
}

#[test]
fn pages_of_a_truncated_stream() {
    for metadata in ["{\"$tb\":4}", "{\"$maxCount\":6}", "{\"$tb\":2,\"$maxCount\":6}", "{\"$tb\":4,\"$maxCount\":9}"] {
        let mut log = ten_events();
        log.metadata("orders", metadata);
        check(&log, "orders", &forward(0, 3), &[], 4, false);
        check(&log, "orders", &forward(0, 4), &[], 4, false);
        check(&log, "orders", &forward(0, 5), &[4], 5, false);
        check(&log, "orders", &forward(4, 2), &[4, 5], 6, false);
        check(&log, "orders", &forward(2, 100), &[4, 5, 6, 7, 8, 9], 10, true);
        check(&log, "orders", &backward(3, 2), &[], -1, true);
        check(&log, "orders", &backward(5, 2), &[5, 4], -1, true);
        check(&log, "orders", &backward(6, 2), &[6, 5], 4, false);
        check(&log, "orders", &backward(-1, 100), &[9, 8, 7, 6, 5, 4], -1, true);
    }
}

#[test]
fn a_stream_truncated_beyond_its_end() {
    let mut log = ten_events();
    log.metadata("orders", "{\"$tb\":20}");
    check(&log, "orders", &forward(0, 5), &[], 20, false);
    check(&log, "orders", &forward(20, 5), &[], 10, true);
    check(&log, "orders", &backward(-1, 5), &[], -1, true);
}

#[test]
fn expired_events_are_left_out_of_the_page() {
    let mut log = TestLog::new();
    log.metadata("orders", "{\"$maxAge\":100}");
    for text in ["0", "1", "2", "3"] {
        log.append_texts("orders", &[text]);
        log.now += 50 * SECOND;
    }
    // Ages are now 200, 150, 100 and 50 seconds.
    log.now += SECOND;
    check(&log, "orders", &forward(0, 2), &[], 2, false);
    check(&log, "orders", &forward(2, 2), &[3], 4, true);
    check(&log, "orders", &forward(0, 10), &[3], 4, true);
    check(&log, "orders", &backward(-1, 2), &[3], -1, true);
    check(&log, "orders", &backward(-1, 1), &[3], 2, false);
    check(&log, "orders", &backward(1, 2), &[], -1, true);
    log.now += 100 * SECOND;
    check(&log, "orders", &forward(0, 10), &[], 4, true);
}

#[test]
fn streams_that_cannot_be_read() {
    let mut log = ten_events();
    let ok = forward(0, 10);
    check_refused(&log, "nothing", &ok, ReadStreamResult::NoStream, -1, "");
    check_refused(&log, "nothing", &backward(-1, 10), ReadStreamResult::NoStream, -1, "");
    log.metadata("only-metadata", "{\"$maxCount\":3}");
    check_refused(&log, "only-metadata", &ok, ReadStreamResult::NoStream, -1, "");
    log.metadata("orders", "{\"$tb\":9223372036854775807}");
    check_refused(&log, "orders", &ok, ReadStreamResult::NoStream, 9, "");
    check_refused(&log, "orders", &backward(-1, 10), ReadStreamResult::NoStream, 9, "");
    log.metadata("other", "{}");
    log.tombstone("other");
    check_refused(&log, "other", &ok, ReadStreamResult::StreamDeleted, i64::MAX, "");
    check_refused(&log, "$$other", &ok, ReadStreamResult::StreamDeleted, i64::MAX, "");
    check_refused(&log, "$system", &ok, ReadStreamResult::AccessDenied, -1, "");
}

#[test]
fn page_sizes_and_starts_out_of_range_are_errors() {
    let log = ten_events();
    let too_big = "Read size too big, should be less than 4096 items";
    check_refused(&log, "orders", &forward(0, 4097), ReadStreamResult::Error, -1, too_big);
    check_refused(&log, "orders", &backward(0, i32::MAX), ReadStreamResult::Error, -1, too_big);
    check_refused(&log, "orders", &forward(0, 0), ReadStreamResult::Error, -1, "max_count is 0");
    check_refused(&log, "orders", &backward(0, -1), ReadStreamResult::Error, -1, "max_count is -1");
    check_refused(&log, "orders", &forward(-1, 1), ReadStreamResult::Error, -1, "from_event_number is -1");
}

#[test]
fn the_level_of_the_client_decides_how_a_tombstone_looks() {
    let mut log = ten_events();
    log.tombstone("orders");
    let (direction, stream) = (Direction::Forward, "orders".to_owned());
    let request = ReadStream { direction, stream, from: 0, max_count: 1, resolve_links: false, require_leader: false };
    let mut out = Vec::new();
    log.reader().read_stream(&request, &Identity::Anonymous, ProtocolLevel::V1, ID, &mut out);
    let read: ReadStreamEventsCompleted = answer(Command::ReadStreamEventsForwardCompleted, ID, &out);
    assert_eq!(read.last_event_number, i64::from(i32::MAX));
}

#[test]
fn of_a_metadata_stream_only_the_last_event_is_readable() {
    let mut log = ten_events();
    log.metadata("orders", "{\"a\":1}");
    log.metadata("orders", "{\"a\":2}");
    check(&log, "$$orders", &forward(0, 10), &[1], 2, true);
    check(&log, "$$orders", &backward(-1, 10), &[1], -1, true);
    assert_eq!(read_event(&log, "$$orders", 0, false, &Identity::Anonymous).result(), ReadEventResult::Success);
    let last = read_event(&log, "$$orders", -1, false, &Identity::Anonymous);
    assert_eq!(&last.event.event.unwrap().data[..], b"{\"a\":2}");
}

fn read_event(
    log: &TestLog,
    stream: &str,
    event_number: i64,
    resolve_links: bool,
    who: &Identity,
) -> ReadEventCompleted {
    let request = ReadEvent { stream: stream.to_owned(), event_number, resolve_links, require_leader: false };
    let mut out = b"earlier".to_vec();
    log.reader().read_event(&request, who, ID, &mut out);
    answer(Command::ReadEventCompleted, ID, &out[7..])
}

#[test]
fn single_events() {
    let mut log = ten_events();
    let check = |log: &TestLog, stream: &str, number: i64, result: ReadEventResult, found: Option<i64>| {
        let read = read_event(log, stream, number, false, &Identity::Anonymous);
        assert_eq!((read.result(), read.error.as_deref()), (result, None), "{stream} {number}");
        assert_eq!(read.event.event.map(|event| event.event_number), found, "{stream} {number}");
    };
    check(&log, "orders", 0, ReadEventResult::Success, Some(0));
    check(&log, "orders", 4, ReadEventResult::Success, Some(4));
    check(&log, "orders", -1, ReadEventResult::Success, Some(9));
    check(&log, "orders", 10, ReadEventResult::NotFound, None);
    check(&log, "orders", i64::MAX, ReadEventResult::NotFound, None);
    check(&log, "nothing", 0, ReadEventResult::NoStream, None);
    check(&log, "nothing", -1, ReadEventResult::NoStream, None);
    check(&log, "$system", 0, ReadEventResult::AccessDenied, None);
    // Metadata that was never set, of a stream that exists: an empty success.
    check(&log, "$$orders", -1, ReadEventResult::Success, None);
    check(&log, "$$nothing", -1, ReadEventResult::NoStream, None);
    log.metadata("orders", "{\"$tb\":3}");
    check(&log, "orders", 2, ReadEventResult::NotFound, None);
    check(&log, "orders", 3, ReadEventResult::Success, Some(3));
    log.metadata("orders", "{\"$maxAge\":10}");
    log.now += 11 * SECOND;
    check(&log, "orders", -1, ReadEventResult::NotFound, None);
    log.metadata("orders", "{\"$tb\":9223372036854775807}");
    check(&log, "orders", 9, ReadEventResult::NoStream, None);
    log.tombstone("orders");
    check(&log, "orders", 9, ReadEventResult::StreamDeleted, None);
    check(&log, "$$orders", -1, ReadEventResult::StreamDeleted, None);
}

/// What was delivered: (data of the event, data of the link).
fn shape(entry: &ResolvedIndexedEvent) -> (Option<String>, Option<String>) {
    let text =
        |record: &crate::codec::client::messages::EventRecord| String::from_utf8_lossy(&record.data).into_owned();
    (entry.event.as_ref().map(text), entry.link.as_ref().map(text))
}

#[test]
fn links_are_followed_once() {
    let mut log = ten_events();
    let links =
        ["3@orders", "99@orders", "0@gone", "x@orders", "no", " 4 @orders", "-2@orders", "1@", "-1@orders", "0@a@b"];
    log.append_texts("a@b", &["at"]);
    for link in links {
        log.append("links", &[("$>", link.as_bytes())]);
    }
    log.append("links", &[("$>", b"0@links"), ("t", b"plain")]);
    let read = read_page(&log, "links", &forward(0, 100), true, &Identity::Anonymous);
    assert_eq!(read.result(), ReadStreamResult::Success);
    let shapes: Vec<_> = read.events.iter().map(shape).collect();
    let some = |text: &str| Some(text.to_owned());
    let wanted = [
        (some("3"), some("3@orders")),
        (None, some("99@orders")),
        (None, some("0@gone")),
        (some("x@orders"), None),
        (some("no"), None),
        (some("4"), some(" 4 @orders")),
        (some("-2@orders"), None),
        (some("1@"), None),
        (some("9"), some("-1@orders")),
        (some("at"), some("0@a@b")),
        (some("3@orders"), some("0@links")),
        (some("plain"), None),
    ];
    assert_eq!(shapes, wanted);
    let unresolved = read_page(&log, "links", &forward(0, 100), false, &Identity::Anonymous);
    assert!(unresolved.events.iter().all(|entry| entry.event.is_some() && entry.link.is_none()));
    let one = read_event(&log, "links", 0, true, &Identity::Anonymous);
    assert_eq!(shape(&one.event), (some("3"), some("3@orders")));
    let gone = read_event(&log, "links", 1, true, &Identity::Anonymous);
    assert_eq!((gone.result(), shape(&gone.event)), (ReadEventResult::Success, (None, some("99@orders"))));
}

#[test]
fn a_link_to_what_the_caller_may_not_read_refuses_the_read() {
    let mut log = ten_events();
    log.append_texts("$secret", &["hidden"]);
    log.append_texts("links", &["plain"]);
    log.append("links", &[("$>", b"0@$secret")]);
    let page = forward(0, 10);
    let read = read_page(&log, "links", &page, true, &Identity::Anonymous);
    assert_eq!((read.result(), read.events.len(), read.last_event_number), (ReadStreamResult::AccessDenied, 0, -1));
    assert_eq!(read_page(&log, "links", &page, true, &user("admin")).events.len(), 2);
    assert_eq!(read_page(&log, "links", &page, false, &Identity::Anonymous).events.len(), 2);
    let read = read_event(&log, "links", 1, true, &Identity::Anonymous);
    assert_eq!((read.result(), read.event.event), (ReadEventResult::AccessDenied, None));
}

#[test]
fn a_page_ends_before_it_outgrows_a_frame() {
    let mut log = TestLog::with_layout(ChunkLayout { chunk_size: 32 << 20 });
    let data = vec![7; 15 << 20];
    for _ in 0..6 {
        log.append("big", &[("t", &data)]);
    }
    log.append_texts("big", &["small"]);
    check(&log, "big", &forward(0, 10), &[0, 1, 2, 3], 4, false);
    check(&log, "big", &forward(4, 10), &[4, 5, 6], 7, true);
    check(&log, "big", &backward(-1, 10), &[6, 5, 4, 3, 2], 1, false);
    check(&log, "big", &backward(1, 10), &[1, 0], -1, true);
    let page = read_page(&log, "big", &forward(0, 10), false, &Identity::Anonymous);
    assert!(prost::Message::encoded_len(&page) <= READ_PAGE_BYTES_MAX + 100);
}

#[test]
fn a_damaged_log_is_an_error_that_says_where() {
    let mut log = ten_events();
    let position = log.append_texts("damaged", &["x"]);
    log.log.bytes[position.0 as usize + 8] ^= 1;
    let read = read_page(&log, "damaged", &forward(0, 10), false, &Identity::Anonymous);
    assert_eq!(read.result(), ReadStreamResult::Error);
    assert!(read.error().contains(&format!("position {position}")), "{}", read.error());
    let read = read_event(&log, "damaged", 0, false, &Identity::Anonymous);
    assert_eq!(read.result(), ReadEventResult::Error);
    assert!(read.error().contains(&format!("position {position}")), "{}", read.error());
}

/// The index is being rebuilt: streams are not ready, the whole log is read all the same, from any place.
#[test]
fn without_an_index_the_whole_log_can_be_read_and_streams_are_not_ready() {
    use crate::codec::client::AllPosition;
    use crate::codec::client::messages::{NotHandled, NotHandledReason, ReadAllEventsCompleted};
    use crate::codec::client::request::ReadAll;

    let mut log = ten_events();
    let directory = crate::storage::memory::TempDirectory::new();
    let store = crate::index::FileStore::open(directory.path(), false).unwrap();
    let layout = log.log.layout;
    log.index = crate::index::Index::open(std::sync::Arc::new(store), &log.log, layout, log.end, 1).unwrap();
    log.index.set_behind(log.end);
    let not_ready = |out: &[u8]| {
        let refused: NotHandled = answer(Command::NotHandled, ID, out);
        assert_eq!(refused.reason(), NotHandledReason::NotReady);
    };
    let mut out = Vec::new();
    let stream = "orders".to_owned();
    let request = ReadEvent { stream, event_number: 3, resolve_links: false, require_leader: false };
    log.reader().read_event(&request, &Identity::System, ID, &mut out);
    not_ready(&out);
    for (who, is_forward) in [(Identity::System, true), (Identity::Anonymous, false)] {
        let direction = if is_forward { Direction::Forward } else { Direction::Backward };
        let request = ReadStream {
            direction,
            stream: "orders".to_owned(),
            from: 0,
            max_count: 5,
            resolve_links: false,
            require_leader: false,
        };
        out.clear();
        log.reader().read_stream(&request, &who, ProtocolLevel::V2, ID, &mut out);
        not_ready(&out);
    }
    let read_all = |direction, from| -> ReadAllEventsCompleted {
        let mut out = Vec::new();
        let request = ReadAll { direction, from, max_count: 4, resolve_links: false, require_leader: false };
        log.reader().read_all(&request, &Identity::System, ProtocolLevel::V2, ID, &mut out);
        let command = match direction {
            Direction::Forward => Command::ReadAllEventsForwardCompleted,
            Direction::Backward => Command::ReadAllEventsBackwardCompleted,
        };
        answer(command, ID, &out)
    };
    for (direction, start) in
        [(Direction::Forward, AllPosition { commit: 0, prepare: 0 }), (Direction::Backward, AllPosition::END)]
    {
        let (mut from, mut count) = (start, 0);
        loop {
            let page = read_all(direction, from);
            count += page.events.len();
            if page.events.is_empty() {
                break;
            }
            from = AllPosition { commit: page.next_commit_position, prepare: page.next_prepare_position };
        }
        assert_eq!(count, 15, "{direction:?}");
    }
}
