//! What do the client protocol's frames and messages cost an edge thread? A write in, as far as the body of the record
//! that goes to the log thread; its answer out.
//!
//! An edge reads a write where it lies. What it cannot read so it reads with the general decoder: the fallback.

use std::hint::black_box;

use bytes::Bytes;
use ringstore::codec::client::frame::{LENGTH_BYTES, frame_bytes, put_message};
use ringstore::codec::client::request::WriteEventsView;
use ringstore::codec::client::response::{Written, write_succeeded};
use ringstore::codec::client::{Command, Package, PackageView, Request, RequestLimits, messages};
use ringstore::codec::record::{BatchBuilder, EVENT_HEADER_BYTES};
use ringstore::limits::RECORD_ALIGNMENT;
use ringstore::types::Guid;

mod support;

use support::Bench;

/// Frames in one receive buffer.
const FRAMES: u64 = 32;

fn write_frames(events: usize) -> Bytes {
    let event = messages::NewEvent {
        event_id: Bytes::from_static(&[7; 16]),
        event_type: "bench-event".to_owned(),
        data_content_type: 0,
        metadata_content_type: 0,
        data: Bytes::from_static(&[b'x'; 256]),
        metadata: None,
    };
    let message = messages::WriteEvents {
        event_stream_id: "bench-17".to_owned(),
        expected_version: -2,
        events: vec![event; events],
        require_master: false,
    };
    let mut out = Vec::new();
    (0..FRAMES).for_each(|_| put_message(&mut out, Command::WriteEvents, Guid([9; 16]), &message));
    out.into()
}

/// All writes of a receive buffer, read where they lie, their events built into a record's body in memory that is used
/// again and again; counts the events.
fn decode(frames: &[u8], body: &mut Vec<u8>) -> usize {
    let (mut at, mut events) = (0, 0);
    while let Some(size) = frame_bytes(&frames[at..]).expect("a frame") {
        let package = PackageView::read(&frames[at + LENGTH_BYTES..at + size]).expect("a whole package");
        let write = WriteEventsView::read(package.payload, &RequestLimits::default()).expect("a write that is read so");
        let bytes = write.event_count * (EVENT_HEADER_BYTES + RECORD_ALIGNMENT) + write.event_bytes;
        let mut builder = BatchBuilder::within(std::mem::take(body), write.stream, bytes);
        for event in write.events() {
            builder.event(event.id, event.event_type, event.is_json, event.data, event.metadata);
        }
        events += usize::from(builder.event_count());
        *body = builder.finish();
        at += size;
    }
    events
}

/// All requests of a receive buffer, without the copy that received bytes may need; counts the events in them.
fn decode_fallback(frames: &Bytes) -> usize {
    let (mut at, mut events) = (0, 0);
    while let Some(size) = frame_bytes(&frames[at..]).expect("a frame") {
        let package = Package::read(frames.slice(at + LENGTH_BYTES..at + size)).expect("a whole package");
        match Request::read(&package, &RequestLimits::default()) {
            Ok(Request::WriteEvents(write)) => events += write.events.len(),
            other => panic!("not a write: {other:?}"),
        }
        at += size;
    }
    events
}

fn main() {
    let bench = Bench::from_arguments();
    for events in [1, 500] {
        let frames = write_frames(events);
        let mut body = Vec::new();
        assert_eq!(decode(&frames, &mut body), FRAMES as usize * events);
        let name = format!("codec: decode a write of {events} x 256 B into a record, a write");
        bench.run(&name, FRAMES, frames.len() as u64, || {
            black_box(decode(black_box(&frames), &mut body));
        });
        assert_eq!(decode_fallback(&frames), FRAMES as usize * events);
        let name = format!("codec: decode a write of {events} x 256 B, fallback, a write");
        bench.run(&name, FRAMES, frames.len() as u64, || {
            black_box(decode_fallback(black_box(&frames)));
        });
    }
    let written =
        Written { first_event_number: 17, last_event_number: 17, prepare_position: 1 << 30, commit_position: 1 << 30 };
    let mut out = Vec::with_capacity(8 << 10);
    bench.run("codec: encode a write's answer", FRAMES, 0, || {
        out.clear();
        (0..FRAMES).for_each(|_| write_succeeded(&mut out, black_box(Guid([9; 16])), black_box(written)));
        black_box(&out);
    });
}
