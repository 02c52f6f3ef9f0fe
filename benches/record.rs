//! What do records cost: to encode on an edge, to seal on the leader's log thread, to check on a follower?

use std::hint::black_box;

use ringstore::codec::record::{BatchBuilder, Header, RecordKind, RecordView, seal, sealed_length};
use ringstore::limits::RECORD_HEADER_BYTES;
use ringstore::types::{EventId, Guid, LogPosition, Term};

mod support;

use support::Bench;

const ROOM: u64 = 1 << 30;

const HEADER: Header = Header {
    length: 0,
    crc: 0,
    position: LogPosition(1 << 20),
    term: Term(3),
    kind: RecordKind::Append,
    flags: 0,
    event_count: 1,
    timestamp: 0,
};

fn body(data: &[u8]) -> Vec<u8> {
    let mut body = BatchBuilder::new("bench-17", data.len() + 256);
    body.event(EventId(Guid([7; 16])), "bench-event", false, data, b"");
    body.finish()
}

fn record(body: &[u8]) -> Vec<u8> {
    let mut record = vec![0; sealed_length(body.len())];
    record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
    seal(&mut record, HEADER);
    record
}

fn main() {
    let bench = Bench::from_arguments();
    for size in [256, 16 << 10] {
        let data = vec![b'x'; size];
        let body_bytes = body(&data);
        let mut sealed = record(&body_bytes);
        RecordView::check(&sealed, HEADER.position, ROOM).expect("a good record");
        bench.run(&format!("record: encode the body of an event of {size} B"), 1, size as u64, || {
            black_box(body(black_box(&data)));
        });
        bench.run(&format!("record: seal {} B, copy and checksum", sealed.len()), 1, sealed.len() as u64, || {
            sealed[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body_bytes.len()].copy_from_slice(black_box(&body_bytes));
            seal(&mut sealed, black_box(HEADER));
        });
        bench.run(&format!("record: check {} B", sealed.len()), 1, sealed.len() as u64, || {
            black_box(RecordView::check(black_box(&sealed), HEADER.position, ROOM).expect("a good record"));
        });
        bench.run(&format!("record: CRC32C of {size} B"), 1, size as u64, || {
            black_box(crc32c::crc32c(black_box(&data)));
        });
    }
}
