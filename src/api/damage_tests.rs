//! Every bit of a small log is flipped, one after the other, and everything that reads it reads all of it each time.
//!
//! Goal: an answer is that of the undamaged log, or it says that it cannot be given; and what did not check out is
//! reported, with its place.

use super::*;
use crate::api::subscription::Subscriptions;
use crate::api::test_log::{TestLog, user};
use crate::codec::client::frame::take_package;
use crate::codec::client::messages::{ReadAllEventsCompleted, ReadEventCompleted, ReadStreamEventsCompleted};
use crate::codec::client::request::{Direction, ReadAll, ReadEvent, ReadStream, Subscribe};
use crate::codec::client::{AllPosition, Command, ProtocolLevel};
use crate::types::Guid;
use bytes::BytesMut;
use prost::Message as _;

const ID: Guid = Guid([3; 16]);

/// Records of one and of several events, links, records that nobody sees, two chunks.
fn log() -> TestLog {
    let mut log = TestLog::with_layout(ChunkLayout { chunk_size: 1024 });
    log.append_texts("orders", &["0"]);
    log.append_texts("orders", &["1", "2", "3"]);
    log.hidden();
    log.append("links", &[("$>", b"2@orders")]);
    log.append_texts("other", &["a longer text than the others have"]);
    log.append_texts("orders", &["4", "5"]);
    log.append("links", &[("$>", b"0@orders")]);
    log
}

/// Every way to read, each with its answer's bytes.
fn answers(log: &TestLog) -> Vec<Vec<u8>> {
    let (reader, admin) = (log.reader(), user("admin"));
    let mut answers = Vec::new();
    for direction in [Direction::Forward, Direction::Backward] {
        for (stream, from) in [("orders", 0), ("orders", 4), ("orders", -1), ("links", 0), ("other", 0)] {
            let from = if direction == Direction::Forward { from.max(0) } else { from };
            let stream = stream.to_owned();
            let request =
                ReadStream { direction, stream, from, max_count: 10, resolve_links: true, require_leader: false };
            let mut out = Vec::new();
            reader.read_stream(&request, &admin, ProtocolLevel::V2, ID, &mut out);
            answers.push(out);
        }
        let from = if direction == Direction::Forward { AllPosition::START } else { AllPosition::END };
        for resolve_links in [false, true] {
            let request = ReadAll { direction, from, max_count: 100, resolve_links, require_leader: false };
            let mut out = Vec::new();
            reader.read_all(&request, &admin, ProtocolLevel::V2, ID, &mut out);
            answers.push(out);
        }
    }
    for (stream, event_number) in [("orders", 0), ("orders", 2), ("orders", 5), ("links", 1), ("orders", 6)] {
        let stream = stream.to_owned();
        let request = ReadEvent { stream, event_number, resolve_links: true, require_leader: false };
        let mut out = Vec::new();
        reader.read_event(&request, &admin, ID, &mut out);
        answers.push(out);
    }
    answers
}

/// What subscribers get of the whole log, and whether all of it.
fn pushed(log: &TestLog) -> (Vec<Vec<u8>>, bool) {
    let (empty, admin) = (Index::new(), user("admin"));
    let before = Reader { index: &empty, ..log.reader() };
    let mut subscriptions = Subscriptions::default();
    for (connection, stream, resolve_links) in [(1, None, false), (2, None, true), (3, Some("orders"), true)] {
        let request = Subscribe { stream: stream.map(str::to_owned), resolve_links };
        let mut out = Vec::new();
        let key = (connection, ID);
        subscriptions.subscribe(&before, key, request, &admin, ProtocolLevel::V2, &mut out).unwrap();
    }
    let mut frames = Vec::new();
    let mut send = |connection: u64, frame: &[u8]| {
        frames.push([&connection.to_le_bytes()[..], frame].concat());
    };
    let outcome = subscriptions.deliver(&log.reader(), log.end, usize::MAX, &mut send);
    (frames, outcome.is_ok())
}

/// True when an answer says that it cannot be given.
fn says_so(answer: &[u8], is_repaired: bool) -> bool {
    let package = take_package(&mut BytesMut::from(answer)).unwrap().expect("a whole frame");
    let is = |command: Command| package.command == command as u8;
    if is_repaired {
        return is(Command::NotHandled);
    }
    let words = if is(Command::ReadEventCompleted) {
        ReadEventCompleted::decode(package.payload).unwrap().error
    } else if is(Command::ReadAllEventsForwardCompleted) || is(Command::ReadAllEventsBackwardCompleted) {
        ReadAllEventsCompleted::decode(package.payload).unwrap().error
    } else {
        ReadStreamEventsCompleted::decode(package.payload).unwrap().error
    };
    words.is_some_and(|words| words.contains("the log of this node is damaged at position"))
}

#[test]
fn no_flipped_bit_is_served_and_each_that_is_met_is_reported() {
    for is_repaired in [false, true] {
        let mut log = TestLog { checks: Checks::new(DamageReports::default(), is_repaired), ..log() };
        let (reference, reference_pushed) = (answers(&log), pushed(&log));
        assert!(reference_pushed.1 && log.checks.damage.count() == 0);
        for bit in 0..log.end.0 as usize * 8 {
            log.checks = Checks::new(DamageReports::default(), is_repaired);
            log.log.bytes[bit / 8] ^= 1 << (bit % 8);
            let mut refused = 0;
            for (number, (answer, good)) in answers(&log).iter().zip(&reference).enumerate() {
                if answer != good {
                    assert!(says_so(answer, is_repaired), "bit {bit}, answer {number}");
                    refused += 1;
                }
            }
            let (frames, is_all) = pushed(&log);
            assert!(reference_pushed.0.starts_with(&frames), "bit {bit}");
            assert_eq!(is_all, frames.len() == reference_pushed.0.len(), "bit {bit}");
            // All of the whole log was read, so the damage was met.
            assert!(refused > 0 && !is_all, "bit {bit}");
            let damage = log.checks.damage.take().unwrap_or_else(|| panic!("bit {bit} is not reported"));
            let at = bit as u64 / 8;
            assert!(damage.from.0 <= at && at < damage.to.0, "bit {bit}: {damage}");
            assert_eq!(log.checks.damage.take(), None, "bit {bit}");
            log.log.bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(answers(&log), reference);
    }
}

#[test]
fn an_index_stands_still_at_damage_and_goes_on_when_it_is_repaired() {
    let mut log = log();
    let reference: Vec<_> = ["orders", "links", "other"].map(|stream| log.index.head(stream)).into();
    for at in (0..log.end.0 as usize).step_by(3) {
        log.log.bytes[at] ^= 0x10;
        let index = Index::new();
        let error = index.apply_to(&log.log, log.log.layout, log.end).unwrap_err();
        assert!(matches!(error, crate::index::IndexError::Record { .. }), "{at}: {error}");
        assert!(index.applied().0 <= at as u64, "{at}: applied to {}", index.applied());
        log.log.bytes[at] ^= 0x10;
        assert_eq!(index.apply_to(&log.log, log.log.layout, log.end).unwrap(), log.end);
        let heads: Vec<_> = ["orders", "links", "other"].map(|stream| index.head(stream)).into();
        assert_eq!(heads, reference);
    }
}
