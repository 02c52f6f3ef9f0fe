//! What does the index cost, for each record applied and each look-up?
//!
//! Every node applies every record, so the first counts once for each node. Records are built in memory, a few MiB at a
//! time, outside what is timed: applying reads bytes that were just written, as on a node that keeps up. Times are
//! processor times in nanoseconds, so that others on the machine disturb them little. `--small` runs it in a
//! moment, so that CI notices when it rots.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use fastrand::Rng;
use ringstore::codec::record::{BatchBuilder, BatchView, Header, RecordKind, seal, sealed_length};
use ringstore::index::Index;
use ringstore::limits::RECORD_HEADER_BYTES;
use ringstore::storage::{ChunkLayout, LogRead, ReadError};
use ringstore::types::{EventId, Guid, LogPosition, Term};
use rustix::time::{ClockId, clock_gettime};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 4 << 20 };
const PAYLOAD: [u8; 256] = [b'x'; 256];

/// One chunk of the log at a time, in the place of chunk files.
struct Memory(RefCell<Vec<u8>>);

impl LogRead for Memory {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        visit(&self.0.borrow()[(position.0 % LAYOUT.chunk_size) as usize..]);
        Ok(())
    }
}

/// What is written, and where it has come to.
struct Load {
    streams: usize,
    events_per_record: usize,
    random: Rng,
    next_numbers: Vec<i64>,
    end: LogPosition,
    /// Streams and identifiers of the events last written, for look-ups.
    written: Vec<(usize, EventId)>,
}

impl Load {
    fn new(streams: usize, events_per_record: usize) -> Load {
        let (random, next_numbers) = (Rng::with_seed(7), vec![0; streams]);
        Load { streams, events_per_record, random, next_numbers, end: LogPosition::ZERO, written: Vec::new() }
    }

    fn stream(number: usize) -> String {
        format!("bench-stream-{number}")
    }

    /// The body of the next record, and how many events are in it.
    fn body(&mut self) -> (Vec<u8>, u16) {
        let stream = self.random.usize(0..self.streams);
        let mut batch = BatchBuilder::new(&Load::stream(stream), 512 * self.events_per_record);
        for _ in 0..self.events_per_record {
            let id = EventId(Guid(self.random.u128(..).to_le_bytes()));
            batch.event(id, "bench-event", false, &PAYLOAD, b"");
            self.written.push((stream, id));
        }
        let event_count = batch.event_count();
        let mut body = batch.finish();
        BatchView::set_first_event_number(&mut body, self.next_numbers[stream]);
        self.next_numbers[stream] += i64::from(event_count);
        (body, event_count)
    }

    /// Fills the rest of the chunk with records, and gives their number.
    fn fill_chunk(&mut self, memory: &Memory) -> usize {
        let mut bytes = memory.0.borrow_mut();
        self.written.clear();
        let mut records = 0;
        loop {
            let room = LAYOUT.room(self.end) as usize;
            let at = LAYOUT.chunk_size as usize - room;
            let (body, event_count) = self.body();
            let mut length = sealed_length(body.len());
            if room < 3 * length {
                // The last one reaches to the chunk's end.
                length = room;
            }
            let buffer = &mut bytes[at..at + length];
            buffer.fill(0);
            buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
            let (kind, position, term) = (RecordKind::Append, self.end, Term(1));
            seal(buffer, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 1 });
            self.end = position.plus(length as u64);
            records += 1;
            if length == room {
                return records;
            }
        }
    }
}

/// Processor time of this thread.
fn now() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("the clock of a thread begins at zero")
}

/// Nanoseconds since `started` for each of `count`.
fn nanos_each(started: Duration, count: usize) -> f64 {
    (now() - started).as_nanos() as f64 / count as f64
}

/// The time of one call of `operation`, over as many as fill a few milliseconds; they run round `over`.
fn time_of<T>(over: &[T], rounds: usize, mut operation: impl FnMut(&T)) -> f64 {
    let started = now();
    for _ in 0..rounds {
        for item in over {
            operation(item);
        }
    }
    nanos_each(started, rounds * over.len())
}

/// Applies `chunks` of the load, then looks up what the last of them wrote.
fn run(streams: usize, events_per_record: usize, chunks: usize) {
    let (index, memory) = (Index::new(), Memory(RefCell::new(vec![0; LAYOUT.chunk_size as usize])));
    let mut load = Load::new(streams, events_per_record);
    let mut chunk_nanos = Vec::with_capacity(chunks);
    for _ in 0..chunks {
        let records = load.fill_chunk(&memory);
        let started = now();
        index.apply_to(&memory, LAYOUT, load.end).expect("a good log");
        chunk_nanos.push(nanos_each(started, records));
    }
    chunk_nanos.sort_by(f64::total_cmp);
    let record = chunk_nanos[chunks / 2];
    let written: Vec<(String, EventId)> =
        load.written.iter().map(|&(stream, id)| (Load::stream(stream), id)).take(4096).collect();
    let rounds = 1 + chunks / 8;
    let head = time_of(&written, rounds, |(stream, _)| {
        black_box(index.head(stream).unwrap());
    });
    let info = time_of(&written, rounds, |(stream, _)| {
        black_box(index.stream(stream).unwrap());
    });
    let mut positions = Vec::new();
    let last = time_of(&written, rounds, |(stream, _)| {
        black_box(index.positions(stream, 0, 1, &mut positions).unwrap());
    });
    // Nobody has asked before: the index makes its list.
    let first_micros = time_of(&written[..1], 1, |(stream, id)| {
        assert!(index.recent(stream, *id).unwrap().is_some(), "just written");
    }) / 1e3;
    let known = time_of(&written, rounds, |(stream, id)| {
        assert!(index.recent(stream, *id).unwrap().is_some(), "just written");
    });
    let mut random = Rng::with_seed(9);
    let unknown = time_of(&written, rounds, |(stream, _)| {
        assert_eq!(index.recent(stream, EventId(Guid(random.u128(..).to_le_bytes()))).unwrap(), None);
    });
    println!(
        "{streams:>6} streams, {events_per_record:>3} events a record: apply {record:6.0} ns a record ({:.1} an event); \
         head {head:.0}, stream {info:.0}, positions {last:.0}, recent {known:.0} known, {unknown:.0} unknown, the \
         first {first_micros:.0} us",
        record / events_per_record as f64
    );
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--small");
    let chunks = if small { 4 } else { 120 };
    run(1000, 1, chunks);
    run(100_000, 1, chunks);
    run(1000, 500, chunks);
    run(100_000, 500, chunks);
}
