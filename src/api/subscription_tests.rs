//! What a subscriber is sent, and from which moment on.

use std::cell::Cell;

use super::*;
use crate::api::test_log::{TestLog, answer, user};
use crate::codec::client::Command;
use crate::codec::client::frame::take_package;
use crate::codec::client::messages::{StreamEventAppeared, SubscriptionConfirmation, SubscriptionDropped};
use crate::storage::{FileName, LogRead, ReadError};
use prost::Message;

fn id(n: u8) -> Guid {
    Guid([n; 16])
}

/// What was pushed: connection, correlation, event number, data of the event, data of the link.
type Pushed = (u64, Guid, i64, Option<String>, Option<String>);

fn pushed(connection: u64, frame: &[u8]) -> Pushed {
    let package = take_package(&mut bytes::BytesMut::from(frame)).unwrap().unwrap();
    assert_eq!(package.command, Command::StreamEventAppeared as u8);
    let entry = StreamEventAppeared::decode(package.payload).unwrap().event;
    let text =
        |record: &crate::codec::client::messages::EventRecord| String::from_utf8_lossy(&record.data).into_owned();
    let number = entry.link.as_ref().or(entry.event.as_ref()).unwrap().event_number;
    (connection, package.correlation, number, entry.event.as_ref().map(text), entry.link.as_ref().map(text))
}

struct Bench {
    log: TestLog,
    subscriptions: Subscriptions,
}

impl Bench {
    fn new() -> Bench {
        Bench { log: TestLog::new(), subscriptions: Subscriptions::default() }
    }

    /// Subscribes as an administrator; gives the confirmation.
    fn subscribe(
        &mut self,
        connection: u64,
        n: u8,
        stream: Option<&str>,
        level: ProtocolLevel,
    ) -> SubscriptionConfirmation {
        self.subscribe_with(connection, n, stream, false, level)
    }

    fn subscribe_with(
        &mut self,
        connection: u64,
        n: u8,
        stream: Option<&str>,
        resolve_links: bool,
        level: ProtocolLevel,
    ) -> SubscriptionConfirmation {
        let mut out = Vec::new();
        let request = Subscribe { stream: stream.map(str::to_owned), resolve_links };
        let key = (connection, id(n));
        self.subscriptions.subscribe(&self.log.reader(), key, request, &user("admin"), level, &mut out).unwrap();
        answer(Command::SubscriptionConfirmation, id(n), &out)
    }

    fn deliver(&mut self) -> Vec<Pushed> {
        let mut got = Vec::new();
        let end = self.log.end;
        let mut send = |connection: u64, frame: &[u8]| got.push(pushed(connection, frame));
        assert!(self.subscriptions.deliver(&self.log.reader(), end, usize::MAX, &mut send).unwrap());
        got
    }
}

fn numbers(pushed: &[Pushed], connection: u64, n: u8) -> Vec<i64> {
    pushed.iter().filter(|push| (push.0, push.1) == (connection, id(n))).map(|push| push.2).collect()
}

#[test]
fn events_after_the_confirmation_are_pushed_once_and_in_order() {
    let mut bench = Bench::new();
    bench.log.append_texts("orders", &["0", "1"]);
    let confirmation = bench.subscribe(1, 1, Some("orders"), ProtocolLevel::V2);
    assert_eq!(confirmation.last_event_number, Some(1));
    assert_eq!(confirmation.last_commit_position, bench.log.end.as_i64() - 1);
    assert!(bench.deliver().is_empty());
    bench.log.append_texts("orders", &["2", "3", "4"]);
    bench.log.append_texts("other", &["x"]);
    // A second one joins before the first has got its events: it must not get what its confirmation counts.
    let confirmation = bench.subscribe(2, 2, Some("orders"), ProtocolLevel::V2);
    assert_eq!(confirmation.last_event_number, Some(4));
    bench.log.append_texts("orders", &["5"]);
    let got = bench.deliver();
    assert_eq!((numbers(&got, 1, 1), numbers(&got, 2, 2), got.len()), (vec![2, 3, 4, 5], vec![5], 5));
    assert!(bench.deliver().is_empty());
}

#[test]
fn a_record_of_many_events_is_pushed_in_pieces() {
    let mut bench = Bench::new();
    bench.subscribe(1, 1, Some("orders"), ProtocolLevel::V2);
    bench.subscribe(2, 2, None, ProtocolLevel::V2);
    let text = "x".repeat(100);
    bench.log.append_texts("orders", &[&*text; 20]);
    bench.log.append_texts("orders", &["20"]);
    let (mut got, mut pieces) = (Vec::new(), 0);
    loop {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        let mut send = |connection: u64, frame: &[u8]| {
            bytes += frame.len();
            piece.push(pushed(connection, frame));
        };
        let is_done = bench.subscriptions.deliver(&bench.log.reader(), bench.log.end, 1000, &mut send).unwrap();
        assert!(bytes < 2000, "{bytes} bytes in one piece");
        pieces += 1;
        got.extend(piece);
        if pieces == 2 {
            // What was there before it came is not pushed to it, whatever of it is still under way to others.
            bench.subscribe(3, 3, Some("orders"), ProtocolLevel::V2);
        }
        if is_done {
            break;
        }
    }
    assert!(pieces > 5, "{pieces} pieces");
    let expected: Vec<i64> = (0..21).collect();
    assert_eq!((numbers(&got, 1, 1), numbers(&got, 2, 2), got.len()), (expected.clone(), expected, 42));
}

#[test]
fn all_gets_everything_after_its_position() {
    let mut bench = Bench::new();
    bench.log.append_texts("orders", &["0", "1"]);
    bench.subscribe(1, 1, Some("other"), ProtocolLevel::V1);
    bench.log.append_texts("orders", &["2", "3"]);
    let confirmation = bench.subscribe(1, 2, None, ProtocolLevel::V1);
    assert_eq!(confirmation.last_event_number, None);
    bench.log.hidden();
    bench.log.append_texts("orders", &["4"]);
    bench.log.metadata("orders", "{\"$tb\":5}");
    bench.log.tombstone("orders");
    let got = bench.deliver();
    assert_eq!(numbers(&got, 1, 2), [4, 0, i64::from(i32::MAX)]);
    assert_eq!(got.len(), 3);
}

#[test]
fn confirmations_of_streams_in_every_state() {
    let mut bench = Bench::new();
    let confirmation = bench.subscribe(1, 1, Some("new"), ProtocolLevel::V2);
    assert_eq!((confirmation.last_commit_position, confirmation.last_event_number), (-1, Some(-1)));
    bench.log.append_texts("deleted", &["0"]);
    bench.log.metadata("deleted", "{}");
    bench.log.tombstone("deleted");
    assert_eq!(bench.subscribe(1, 2, Some("deleted"), ProtocolLevel::V2).last_event_number, Some(i64::MAX));
    assert_eq!(bench.subscribe(1, 3, Some("deleted"), ProtocolLevel::V1).last_event_number, Some(i64::from(i32::MAX)));
    assert_eq!(bench.subscribe(1, 4, Some("$$deleted"), ProtocolLevel::V2).last_event_number, Some(i64::MAX));
    bench.log.append_texts("soft", &["0", "1"]);
    bench.log.metadata("soft", "{\"$tb\":9223372036854775807}");
    assert_eq!(bench.subscribe(1, 5, Some("soft"), ProtocolLevel::V2).last_event_number, Some(1));
    bench.log.append_texts("new", &["0"]);
    assert_eq!(numbers(&bench.deliver(), 1, 1), [0]);
}

#[test]
fn links_are_resolved_for_those_who_asked() {
    let mut bench = Bench::new();
    bench.log.append_texts("$secret", &["target"]);
    bench.subscribe_with(1, 1, Some("links"), true, ProtocolLevel::V2);
    bench.subscribe_with(2, 2, Some("links"), false, ProtocolLevel::V2);
    bench.subscribe_with(3, 3, None, true, ProtocolLevel::V1);
    bench.log.append("links", &[("$>", b"0@$secret"), ("$>", b"7@$secret")]);
    let got = bench.deliver();
    let some = |text: &str| Some(text.to_owned());
    let resolved = |connection, n| {
        [(connection, id(n), 0, some("target"), some("0@$secret")), (connection, id(n), 1, None, some("7@$secret"))]
    };
    let of = |n: u64| got.iter().filter(|push| push.0 == n).cloned().collect::<Vec<_>>();
    assert_eq!(of(1), resolved(1, 1));
    assert_eq!(of(3), resolved(3, 3));
    assert_eq!(of(2), [(2, id(2), 0, some("0@$secret"), None), (2, id(2), 1, some("7@$secret"), None)]);
}

#[test]
fn refusal_unsubscribing_and_lost_connections() {
    let mut bench = Bench::new();
    let mut out = Vec::new();
    let request = Subscribe { stream: None, resolve_links: false };
    let (key, level) = ((1, id(1)), ProtocolLevel::V1);
    let who = Identity::Anonymous;
    bench.subscriptions.subscribe(&bench.log.reader(), key, request, &who, level, &mut out).unwrap();
    let dropped: SubscriptionDropped = answer(Command::SubscriptionDropped, id(1), &out);
    assert_eq!((dropped.reason(), bench.subscriptions.len()), (SubscriptionDropReason::AccessDenied, 0));

    bench.subscribe(1, 1, Some("a"), level);
    bench.subscribe(1, 2, None, level);
    bench.subscribe(2, 1, Some("a"), level);
    assert_eq!((bench.subscriptions.len(), bench.subscriptions.len_of(1)), (3, 2));
    out.clear();
    bench.subscriptions.unsubscribe(1, id(9), &mut out);
    bench.subscriptions.unsubscribe(9, id(1), &mut out);
    assert!(out.is_empty());
    bench.subscriptions.unsubscribe(1, id(1), &mut out);
    let dropped: SubscriptionDropped = answer(Command::SubscriptionDropped, id(1), &out);
    assert_eq!((dropped.reason, bench.subscriptions.len()), (None, 2));
    bench.log.append_texts("a", &["0"]);
    let got = bench.deliver();
    assert_eq!((numbers(&got, 1, 2), numbers(&got, 2, 1), got.len()), (vec![0], vec![0], 2));

    bench.subscriptions.remove_connection(1);
    assert_eq!(bench.subscriptions.len(), 1);
    let mut dropped = Vec::new();
    bench.subscriptions.drop_all(&mut |connection, frame| dropped.push((connection, frame[4], frame.len())));
    assert_eq!(dropped, [(2, Command::SubscriptionDropped as u8, 22)]);
    assert!(bench.subscriptions.is_empty());
    bench.log.append_texts("a", &["1"]);
    assert!(bench.deliver().is_empty());
    // Somebody new does not get what nobody waited for.
    bench.subscribe(3, 3, Some("a"), level);
    bench.log.append_texts("a", &["2"]);
    assert_eq!(numbers(&bench.deliver(), 3, 3), [2]);
}

#[test]
fn a_second_subscription_under_the_same_identifier_replaces_the_first() {
    let mut bench = Bench::new();
    bench.subscribe(1, 1, Some("a"), ProtocolLevel::V2);
    bench.subscribe(1, 1, Some("b"), ProtocolLevel::V2);
    assert_eq!(bench.subscriptions.len(), 1);
    bench.log.append_texts("a", &["0"]);
    bench.log.append_texts("b", &["0"]);
    assert_eq!(bench.deliver().len(), 1);
}

#[test]
fn delivery_stops_after_its_share_and_goes_on_there() {
    let mut bench = Bench::new();
    bench.subscribe(1, 1, None, ProtocolLevel::V2);
    for _ in 0..50 {
        bench.log.append_texts("a", &["some", "events"]);
    }
    let (end, mut got, mut rounds) = (bench.log.end, Vec::new(), 1);
    while !bench
        .subscriptions
        .deliver(&bench.log.reader(), end, 1000, &mut |connection, frame| got.push(pushed(connection, frame)))
        .unwrap()
    {
        rounds += 1;
    }
    assert_eq!(numbers(&got, 1, 1), (0..100).collect::<Vec<_>>());
    assert!(rounds > 10, "{rounds}");
}

#[test]
fn delivery_stands_still_at_a_damaged_record() {
    let mut bench = Bench::new();
    bench.subscribe(1, 1, None, ProtocolLevel::V2);
    bench.log.append_texts("a", &["0"]);
    let bad = bench.log.append_texts("a", &["1"]).0 as usize;
    bench.log.append_texts("a", &["2"]);
    bench.log.log.bytes[bad + 8] ^= 1;
    let (end, mut got) = (bench.log.end, Vec::new());
    let mut send = |connection: u64, frame: &[u8]| got.push(pushed(connection, frame));
    assert!(bench.subscriptions.deliver(&bench.log.reader(), end, usize::MAX, &mut send).is_err());
    assert_eq!(numbers(&got, 1, 1), [0]);
    bench.log.log.bytes[bad + 8] ^= 1;
    assert_eq!(numbers(&bench.deliver(), 1, 1), [1, 2]);
}

/// A log in which a page turns out to be unreadable during the first looks at it.
struct Failing<'a> {
    log: &'a dyn LogRead,
    /// Looks that fail.
    left: Cell<u64>,
    failed: Cell<u64>,
}

impl LogRead for Failing<'_> {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        self.log.with_chunk(position, visit)?;
        let Some(left) = self.left.get().checked_sub(1) else { return Ok(()) };
        self.left.set(left);
        self.failed.set(self.failed.get() + 1);
        Err(ReadError::Unreadable { name: FileName::Chunk(0), position })
    }

    fn unreadable(&self) -> u64 {
        self.failed.get()
    }
}

#[test]
fn nothing_is_sent_of_a_look_in_which_a_page_could_not_be_read() {
    for (fails, is_sent) in [(0, true), (1, true), (2, false)] {
        let mut bench = Bench::new();
        bench.subscribe(1, 1, None, ProtocolLevel::V2);
        bench.subscribe(2, 2, Some("a"), ProtocolLevel::V2);
        bench.log.append_texts("a", &["0", "1"]);
        bench.log.append_texts("a", &["2"]);
        let failing = Failing { log: &bench.log.log, left: fails.into(), failed: 0.into() };
        let reader = Reader { log: &failing, ..bench.log.reader() };
        let (end, mut got) = (bench.log.end, Vec::new());
        let mut send = |connection: u64, frame: &[u8]| got.push(pushed(connection, frame));
        let outcome = bench.subscriptions.deliver(&reader, end, usize::MAX, &mut send);
        if !is_sent {
            assert!(matches!(outcome, Err(FetchError::Read { .. })), "{outcome:?}");
            assert!(got.is_empty());
            got = bench.deliver();
        }
        assert_eq!((numbers(&got, 1, 1), numbers(&got, 2, 2)), (vec![0, 1, 2], vec![0, 1, 2]), "{fails}");
        assert!(bench.deliver().is_empty());
    }
}
