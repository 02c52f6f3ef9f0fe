//! Goal: a write means the same, read where it lies and decoded into a message. Method: both readers on the same bytes,
//! well-formed with everything optional in them, and damaged.

use prost::Message;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};

use super::*;
use crate::codec::client::request::{Request, RequestError};
use crate::codec::client::{Command, Package, messages};

const LIMITS: RequestLimits = RequestLimits { append_bytes_max: 2000 };

fn decoded(payload: &[u8]) -> Result<WriteEvents, RequestError> {
    let package = Package {
        command: Command::WriteEvents as u8,
        flags: 0,
        correlation: Guid([1; 16]),
        credentials: None,
        payload: payload.to_vec().into(),
    };
    match Request::read(&package, &LIMITS)? {
        Request::WriteEvents(request) => Ok(request),
        other => panic!("{other:?}"),
    }
}

/// Both readers must agree; true when they accept.
fn check(payload: &[u8]) -> bool {
    let expected = decoded(payload);
    let Some(view) = WriteEventsView::read(payload, &LIMITS) else {
        assert!(expected.is_err() || has_group(payload, true), "only the message is accepted: {payload:x?}");
        return false;
    };
    assert!(!has_group(payload, true), "{payload:x?}");
    assert_eq!(expected.as_ref(), Ok(&view.to_owned()), "{payload:x?}");
    let events = expected.unwrap().events;
    let size = |event: &NewEvent| event.event_type.len() + event.data.len() + event.metadata.len();
    assert_eq!((view.event_count, view.event_bytes), (events.len(), events.iter().map(size).sum()));
    assert!(events.iter().map(NewEvent::view).eq(view.events()));
    true
}

/// Groups are left to the other reader: true when a field of the message, or of an event in it, begins one.
fn has_group(mut bytes: &[u8], has_events: bool) -> bool {
    while !bytes.is_empty() {
        let Ok(key) = decode_varint(&mut bytes) else { return false };
        let skipped = match key & 7 {
            0 => decode_varint(&mut bytes).map(|_| 0).ok(),
            1 => Some(8),
            2 => decode_varint(&mut bytes).ok(),
            3 => return true,
            5 => Some(4),
            _ => None,
        };
        let field = skipped.and_then(|length| bytes.split_at_checked(usize::try_from(length).ok()?));
        let Some((value, rest)) = field else { return false };
        if has_events && key == (3 << 3 | 2) && has_group(value, false) {
            return true;
        }
        bytes = rest;
    }
    false
}

fn put_field(out: &mut Vec<u8>, number: u32, wire_type: WireType, value: &[u8]) {
    encode_key(number, wire_type, out);
    if wire_type == WireType::LengthDelimited {
        encode_varint(value.len() as u64, out);
    }
    out.extend_from_slice(value);
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(value, &mut out);
    out
}

fn random_bytes(random: &mut fastrand::Rng, limit: usize) -> Vec<u8> {
    (0..random.usize(..limit)).map(|_| random.u8(..)).collect()
}

/// Fields that no message has, of every kind but groups.
fn put_unknown(random: &mut fastrand::Rng, out: &mut Vec<u8>) {
    let number = random.u32(7..2000);
    let bytes = random_bytes(random, 200);
    match random.u8(..4) {
        0 => put_field(out, number, WireType::Varint, &varint(random.u64(..))),
        1 => put_field(out, number, WireType::SixtyFourBit, &[7; 8]),
        2 => put_field(out, number, WireType::ThirtyTwoBit, &[7; 4]),
        _ => put_field(out, number, WireType::LengthDelimited, &bytes),
    }
}

/// Fields in any order, some of them twice, missing or wrong.
fn put_event(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.usize(4..12) {
        let bytes = random_bytes(random, 300);
        match random.u8(..8) {
            0 | 1 => put_field(&mut out, 1, WireType::LengthDelimited, &[random.u8(..200); 16]),
            2 | 3 => put_field(&mut out, 2, WireType::LengthDelimited, "größe-𝄞".as_bytes()),
            4 => put_field(&mut out, 3, WireType::Varint, &varint([0, 1, 1 << 32 | 1, u64::MAX][random.usize(..4)])),
            5 => put_field(&mut out, 4, WireType::Varint, &varint(random.u64(..))),
            6 => put_field(&mut out, random.u32(5..7), WireType::LengthDelimited, &bytes),
            _ => put_unknown(random, &mut out),
        }
    }
    out
}

fn put_write(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.usize(2..8) {
        match random.u8(..8) {
            0 | 1 => put_field(
                &mut out,
                1,
                WireType::LengthDelimited,
                ["a", "größe", "stream-1"][random.usize(..3)].as_bytes(),
            ),
            2 => put_field(&mut out, 2, WireType::Varint, &varint(random.i64(-5..5).cast_unsigned())),
            3 => put_field(&mut out, 2, WireType::Varint, &varint(random.u64(..))),
            4 => put_field(&mut out, 4, WireType::Varint, &varint(random.u64(..3))),
            5 => put_unknown(random, &mut out),
            _ => {
                let event = put_event(random);
                put_field(&mut out, 3, WireType::LengthDelimited, &event);
            }
        }
    }
    out
}

#[test]
fn both_readers_agree_on_fields_in_any_order() {
    let mut random = fastrand::Rng::with_seed(11);
    let accepted = (0..40_000).filter(|_| check(&put_write(&mut random))).count();
    assert!((4_000..36_000).contains(&accepted), "{accepted} accepted of 40,000: the test sees one side only");
}

#[test]
fn groups_are_left_to_the_message() {
    let mut random = fastrand::Rng::with_seed(13);
    let mut group = Vec::new();
    put_field(&mut group, 9, WireType::StartGroup, &[]);
    put_field(&mut group, 9, WireType::EndGroup, &[]);
    let mut left = 0;
    for _ in 0..20_000 {
        let mut payload = put_write(&mut random);
        if !check(&payload) {
            continue;
        }
        payload.extend_from_slice(&group);
        assert!(!check(&payload) && decoded(&payload).is_ok() && has_group(&payload, true));
        left += 1;
    }
    assert!(left > 1000, "{left}");
}

#[test]
fn both_readers_agree_on_damaged_messages() {
    let mut random = fastrand::Rng::with_seed(12);
    let event = |id: u8| messages::NewEvent {
        event_id: vec![id; 16].into(),
        event_type: "happened".to_owned(),
        data_content_type: 1,
        metadata_content_type: 1,
        data: vec![id; 130].into(),
        metadata: Some(vec![id; 5].into()),
    };
    let good = messages::WriteEvents {
        event_stream_id: "stream".to_owned(),
        expected_version: -2,
        events: vec![event(1), event(2)],
        require_master: true,
    };
    let good = good.encode_to_vec();
    assert!(check(&good));
    for length in 0..good.len() {
        check(&good[..length]);
    }
    let accepted = (0..60_000).filter(|_| {
        let mut payload = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..payload.len());
            payload[at] = random.u8(..);
        }
        check(&payload)
    });
    assert!(accepted.count() > 10_000);
    for _ in 0..20_000 {
        check(&random_bytes(&mut random, 60));
    }
}

#[test]
fn both_readers_have_the_same_limits() {
    let event = |event_type: &str, data: usize| messages::NewEvent {
        event_id: vec![1; 16].into(),
        event_type: event_type.to_owned(),
        data: vec![0; data].into(),
        ..Default::default()
    };
    let write = |stream: &str, events| {
        let message = messages::WriteEvents {
            event_stream_id: stream.to_owned(),
            expected_version: -2,
            events,
            ..Default::default()
        };
        message.encode_to_vec()
    };
    assert!(check(&write("s", vec![])) && !check(&write("", vec![])));
    assert!(check(&write("s", vec![event("tt", 1997)])) && !check(&write("s", vec![event("tt", 1998)])));
    assert!(!check(&write(&"s".repeat(65_536), vec![])) && !check(&write("s", vec![event("", 1)])));
    let large = RequestLimits { append_bytes_max: 64 << 20 };
    let reads = |payload: &[u8]| WriteEventsView::read(payload, &large).is_some();
    assert!(reads(&write(&"s".repeat(65_535), vec![event(&"t".repeat(65_535), 1)])));
    assert!(!reads(&write(&"s".repeat(65_536), vec![])) && !reads(&write("s", vec![event(&"t".repeat(65_536), 1)])));
    // Two bytes a character count as v5 counts them, not the bytes of UTF-8.
    let room = EVENT_SIZE_MAX_BYTES - 2 * 3;
    assert!(reads(&write("s", vec![event("€€€", room)])) && !reads(&write("s", vec![event("€€€", room + 1)])));
    assert!(reads(&write("s", vec![event("t", 0); 65_535])) && !reads(&write("s", vec![event("t", 0); 65_536])));
}
