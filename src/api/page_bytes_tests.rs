//! Pages of random logs against the derived messages: the same bytes, and in them what was written.

use bytes::BytesMut;
use prost::Message;

use crate::api::links::LINK_TYPE;
use crate::api::test_log::{SECOND, TestLog};
use crate::api::users::Identity;
use crate::codec::client::frame::take_package;
use crate::codec::client::messages::{EventRecord, ReadAllEventsCompleted, ReadStreamEventsCompleted};
use crate::codec::client::request::{Direction, ReadAll, ReadStream};
use crate::codec::client::{AllPosition, ProtocolLevel};
use crate::types::Guid;

const STREAMS: [&str; 5] = ["orders", "b", "$system-stream-with-a-longer-name", "links", "x\u{e9}"];

/// An event as it was written.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    stream: String,
    number: i64,
    event_type: String,
    data: Vec<u8>,
    timestamp: i64,
}

/// What a stream's metadata says.
#[derive(Clone, Copy, Default)]
struct Limits {
    truncate_before: Option<i64>,
    max_count: Option<i64>,
    max_age: Option<i64>,
}

/// A random log, and what a reader must find in it.
struct Model {
    log: TestLog,
    random: fastrand::Rng,
    written: Vec<Written>,
    limits: Vec<Limits>,
}

impl Model {
    fn new(seed: u64) -> Model {
        let random = fastrand::Rng::with_seed(seed);
        let mut model =
            Model { log: TestLog::new(), random, written: Vec::new(), limits: vec![Limits::default(); STREAMS.len()] };
        for _ in 0..120 {
            match model.random.u32(..12) {
                0 => model.log.hidden(),
                1 => model.set_limits(),
                _ => model.append(),
            }
            model.log.now += model.random.i64(0..2 * SECOND);
        }
        model
    }

    fn append(&mut self) {
        let stream = STREAMS[self.random.usize(..STREAMS.len())];
        let count = [1, 1, 2, 5, 30][self.random.usize(..5)];
        let mut events = Vec::new();
        for _ in 0..count {
            let target = format!("{}@{}", self.random.i64(0..20), STREAMS[self.random.usize(..3)]);
            let size = [0, 1, 100, 127, 128, 300][self.random.usize(..6)];
            let data = std::iter::repeat_with(|| self.random.u8(..)).take(size).collect();
            let is_link = stream == "links";
            events.push(if is_link { (LINK_TYPE, target.into_bytes()) } else { ("some-type", data) });
        }
        let first = self.last(stream) + 1;
        let borrowed: Vec<_> = events.iter().map(|(event_type, data)| (*event_type, &data[..])).collect();
        self.log.append(stream, &borrowed);
        for (number, (event_type, data)) in (first..).zip(events) {
            let (stream, event_type) = (stream.to_owned(), event_type.to_owned());
            self.written.push(Written { stream, number, event_type, data, timestamp: self.log.now });
        }
    }

    fn set_limits(&mut self) {
        let index = self.random.usize(..STREAMS.len());
        let limits = match self.random.u32(..4) {
            0 => Limits { truncate_before: Some(self.random.i64(0..30)), ..Limits::default() },
            1 => Limits { max_count: Some(self.random.i64(1..40)), ..Limits::default() },
            2 => Limits { max_age: Some(self.random.i64(1..60)), ..Limits::default() },
            _ => Limits::default(),
        };
        let keys = [("$tb", limits.truncate_before), ("$maxCount", limits.max_count), ("$maxAge", limits.max_age)];
        let set = keys.iter().filter_map(|(key, value)| value.map(|value| format!("\"{key}\":{value}")));
        let json = format!("{{{}}}", set.collect::<Vec<_>>().join(","));
        let number = self.last(&format!("$${}", STREAMS[index])) + 1;
        self.log.metadata(STREAMS[index], &json);
        let (stream, event_type) = (format!("$${}", STREAMS[index]), "$metadata".to_owned());
        self.written.push(Written { stream, number, event_type, data: json.into_bytes(), timestamp: self.log.now });
        self.limits[index] = limits;
    }

    fn last(&self, stream: &str) -> i64 {
        self.written.iter().filter(|event| event.stream == stream).count() as i64 - 1
    }

    /// What a page of a stream holds, whatever the direction: the events of `numbers` that the limits leave.
    fn readable(&self, index: usize, numbers: std::ops::RangeInclusive<i64>) -> Vec<&Written> {
        let (stream, limits) = (STREAMS[index], self.limits[index]);
        let by_count = limits.max_count.map_or(0, |count| self.last(stream) + 1 - count);
        let first = by_count.max(limits.truncate_before.unwrap_or(0));
        let oldest = limits.max_age.map_or(i64::MIN, |age| self.log.now - age * SECOND);
        let is_readable = |event: &&Written| {
            event.stream == stream
                && event.number >= first
                && numbers.contains(&event.number)
                && event.timestamp >= oldest
        };
        self.written.iter().filter(is_readable).collect()
    }

    fn target(&self, link: &Written) -> Option<&Written> {
        let text = std::str::from_utf8(&link.data).unwrap();
        let (number, stream) = text.split_once('@').unwrap();
        let number: i64 = number.parse().unwrap();
        let index = STREAMS.iter().position(|name| *name == stream).unwrap();
        self.readable(index, number..=number).pop()
    }

    /// Checks an entry that stands for `written`.
    fn check_entry(&self, event: Option<&EventRecord>, link: Option<&EventRecord>, written: &Written, resolve: bool) {
        if resolve && written.event_type == LINK_TYPE {
            assert!(link.is_some_and(|link| is(link, written)), "{written:?}");
            let target = self.target(written);
            assert_eq!(event.is_some(), target.is_some(), "{written:?}");
            assert!(event.zip(target).is_none_or(|(event, target)| is(event, target)), "{written:?}");
        } else {
            assert!(link.is_none() && event.is_some_and(|event| is(event, written)), "{written:?}");
        }
    }
}

fn is(record: &EventRecord, written: &Written) -> bool {
    record.event_stream_id == written.stream
        && record.event_number == written.number
        && record.event_type == written.event_type
        && record.data == written.data
        && record.created == Some(written.timestamp)
        && record.metadata.as_ref().is_some_and(|metadata| metadata.is_empty())
}

/// The message in a frame, whose payload must be what the derived code makes of it.
fn decode<M: Message + Default>(out: &[u8]) -> M {
    let package = take_package(&mut BytesMut::from(out)).unwrap().unwrap();
    let message = M::decode(package.payload.clone()).unwrap();
    assert!(message.encode_to_vec() == package.payload, "other bytes than those of the derived message");
    message
}

#[test]
fn stream_pages_are_the_derived_messages_with_what_was_written() {
    let mut events = 0;
    for seed in 0..20 {
        let mut model = Model::new(seed);
        for _ in 0..150 {
            let index = model.random.usize(..STREAMS.len());
            let (stream, last) = (STREAMS[index].to_owned(), model.last(STREAMS[index]));
            let is_forward = model.random.bool();
            let (from, max_count) = (model.random.i64(0..last.max(0) + 10), model.random.i32(1..60));
            let resolve_links = model.random.bool();
            let direction = if is_forward { Direction::Forward } else { Direction::Backward };
            let request = ReadStream { direction, stream, from, max_count, resolve_links, require_leader: false };
            let mut out = Vec::new();
            let level = if model.random.bool() { ProtocolLevel::V1 } else { ProtocolLevel::V2 };
            model.log.reader().read_stream(&request, &Identity::System, level, Guid([4; 16]), &mut out);
            let page: ReadStreamEventsCompleted = decode(&out);
            let count = i64::from(max_count) - 1;
            let numbers = if is_forward { from..=from + count } else { from - count..=from };
            let mut wanted = model.readable(index, numbers);
            if !is_forward {
                wanted.reverse();
            }
            assert_eq!(page.events.len(), wanted.len(), "seed {seed}, {request:?}");
            for (entry, written) in page.events.iter().zip(wanted) {
                model.check_entry(entry.event.as_ref(), entry.link.as_ref(), written, resolve_links);
                events += 1;
            }
        }
    }
    assert!(events > 10_000, "{events} events are too few to mean anything");
}

#[test]
fn pages_of_the_whole_log_are_the_derived_messages_with_what_was_written() {
    for seed in 0..20 {
        let mut model = Model::new(seed);
        for direction in [Direction::Forward, Direction::Backward] {
            let resolve_links = model.random.bool();
            let is_forward = direction == Direction::Forward;
            let mut from = if is_forward { AllPosition::START } else { AllPosition::END };
            let mut seen = 0;
            loop {
                let max_count = model.random.i32(1..90);
                let request = ReadAll { direction, from, max_count, resolve_links, require_leader: false };
                let mut out = Vec::new();
                let level = ProtocolLevel::V2;
                model.log.reader().read_all(&request, &Identity::System, level, Guid([4; 16]), &mut out);
                let page: ReadAllEventsCompleted = decode(&out);
                for entry in &page.events {
                    let index = if is_forward { seen } else { model.written.len() - 1 - seen };
                    let written = &model.written[index];
                    model.check_entry(entry.event.as_ref(), entry.link.as_ref(), written, resolve_links);
                    assert!(entry.prepare_position > entry.commit_position);
                    seen += 1;
                }
                if page.events.is_empty() {
                    break;
                }
                from = AllPosition { commit: page.next_commit_position, prepare: page.next_prepare_position };
            }
            assert_eq!(seen, model.written.len(), "seed {seed}");
        }
    }
}
