//! What does the index cost: for an event that is inserted, for a stream's head (each write asks for it), for a page of
//! positions (each read does)?

use std::hint::black_box;

use ringstore::codec::record::{BatchBuilder, BatchView, Header, RecordKind, seal, sealed_length};
use ringstore::index::Index;
use ringstore::limits::RECORD_HEADER_BYTES;
use ringstore::storage::{ChunkLayout, LogRead, ReadError};
use ringstore::types::{EventId, Guid, LogPosition, Term};

mod support;

use support::Bench;

const STREAMS: u64 = 1000;

const RECORDS: u64 = 20_000;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 16 << 20 };

const PAGE: usize = 500;

/// A log of one chunk, in memory.
struct Log {
    bytes: Vec<u8>,
    end: LogPosition,
}

impl LogRead for Log {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        visit(&self.bytes[position.0 as usize..]);
        Ok(())
    }
}

fn stream(number: u64) -> String {
    format!("bench-{}", number % STREAMS)
}

/// One event a record, the streams in turn.
fn log() -> Log {
    let mut log = Log { bytes: vec![0; LAYOUT.chunk_size as usize], end: LogPosition::ZERO };
    for number in 0..RECORDS {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let mut body = BatchBuilder::new(&stream(number), 512);
        body.event(EventId(Guid(id)), "bench-event", false, &[b'x'; 256], b"");
        let mut body = body.finish();
        BatchView::set_first_event_number(&mut body, (number / STREAMS) as i64);
        let at = log.end.0 as usize;
        let record = &mut log.bytes[at..at + sealed_length(body.len())];
        record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
        let header = Header {
            length: 0,
            crc: 0,
            position: log.end,
            term: Term(1),
            kind: RecordKind::Append,
            flags: 0,
            event_count: 1,
            timestamp: 0,
        };
        seal(record, header);
        log.end = log.end.plus(record.len() as u64);
    }
    log
}

fn main() {
    let bench = Bench::from_arguments();
    let log = log();
    bench.run("index: insert an event, a new index each time", RECORDS, 0, || {
        let index = Index::new();
        index.apply_to(&log, LAYOUT, log.end).expect("a good log");
        black_box(&index);
    });
    let index = Index::new();
    assert_eq!(index.apply_to(&log, LAYOUT, log.end).expect("a good log"), log.end);
    let names: Vec<String> = (0..STREAMS).map(stream).collect();
    bench.run("index: head of a stream", STREAMS, 0, || {
        names.iter().for_each(|name| {
            black_box(index.head(black_box(name)));
        });
    });
    let events = (RECORDS / STREAMS) as usize;
    let mut positions = Vec::with_capacity(PAGE);
    bench.run(&format!("index: positions of a page of {events} events"), STREAMS, 0, || {
        for name in &names {
            positions.clear();
            index.positions(black_box(name), 0, PAGE, &mut positions);
        }
        assert_eq!(positions.len(), events);
    });
}
