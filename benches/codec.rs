//! What do the client protocol's frames and messages cost an edge thread? A write of one 256-byte event in, its answer
//! out.

use std::hint::black_box;

use bytes::Bytes;
use ringstore::codec::client::frame::{LENGTH_BYTES, frame_bytes, put_message};
use ringstore::codec::client::response::{Written, write_succeeded};
use ringstore::codec::client::{Command, Package, Request, RequestLimits, messages};
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

/// All requests of a receive buffer, without the copy that received bytes may need; counts the events in them.
fn decode(frames: &Bytes) -> usize {
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
        assert_eq!(decode(&frames), FRAMES as usize * events);
        let name = format!("codec: decode a write of {events} x 256 B, a write");
        bench.run(&name, FRAMES, frames.len() as u64, || {
            black_box(decode(black_box(&frames)));
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
