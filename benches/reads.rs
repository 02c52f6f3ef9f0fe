//! How fast does a node turn its log into answers, without sockets?
//!
//! Events of 256 bytes in chunk files that are in memory; pages of 500 events from one stream and from the whole log, in
//! either direction, and events pushed to subscribers. For each the events a second of one core, and the core's time for a
//! page (for pushed events: a slice of 1 MiB). `hash` is that of all bytes of the answers and changes only when these do.
//! `--small` runs it in a moment, so that CI notices when it rots.

use std::fs::File;
use std::hash::Hasher;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foldhash::fast::FixedState;
use hdrhistogram::Histogram;
use ringstore::api::subscription::Subscriptions;
use ringstore::api::users::Identity;
use ringstore::api::{Checks, Reader};
use ringstore::codec::client::request::{Direction, ReadAll, ReadStream, Subscribe};
use ringstore::codec::client::{AllPosition, ProtocolLevel};
use ringstore::codec::record::{BatchBuilder, BatchView, Header, RecordKind, padding, seal, sealed_length};
use ringstore::index::Index;
use ringstore::limits::RECORD_HEADER_BYTES;
use ringstore::storage::{ChunkLayout, LogReader};
use ringstore::types::{EventId, Guid, LogPosition, Term};
use rustix::time::{ClockId, clock_gettime};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 32 << 20 };
const PAGE_EVENTS: i32 = 500;
const PAYLOAD: [u8; 256] = [b'x'; 256];
const STREAM: &str = "bench-0";
const NOW: i64 = 637_135_310_456_780_000;
const ID: Guid = Guid([5; 16]);

/// How events lie in the log.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    events_per_record: usize,
    streams: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "records of 500 events", events_per_record: 500, streams: 1 },
    Shape { name: "records of one event", events_per_record: 1, streams: 1 },
    Shape { name: "records of one event, 100 streams in turn", events_per_record: 1, streams: 100 },
];

/// A log in chunk files of its own directory, and its index.
struct Log {
    directory: PathBuf,
    reader: LogReader,
    index: Index,
    end: LogPosition,
    term: Term,
    checks: Checks,
}

impl Log {
    fn new(shape: Shape, events: usize) -> Log {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-reads-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory below target");
        let reader = LogReader::new(&directory, LAYOUT);
        let mut log = Log {
            directory,
            reader,
            index: Index::new(),
            end: LogPosition::ZERO,
            term: Term(1),
            checks: Checks::default(),
        };
        let mut file = log.create_chunk();
        for record in 0..events / shape.events_per_record {
            let stream = format!("bench-{}", record % shape.streams);
            let number = record / shape.streams * shape.events_per_record;
            log.append(&mut file, &stream, number, shape.events_per_record);
        }
        log.index.apply_to(&log.reader, LAYOUT, log.end).expect("a good log");
        log
    }

    fn create_chunk(&self) -> File {
        let name = format!("chunk-{:06}.000000", LAYOUT.chunk_of(self.end));
        let options = File::options().create_new(true).write(true).open(self.directory.join(name));
        let file = options.expect("a chunk file");
        file.set_len(LAYOUT.file_length()).expect("a sparse file");
        file
    }

    fn append(&mut self, file: &mut File, stream: &str, number: usize, count: usize) {
        let mut batch = BatchBuilder::new(stream, count * 320);
        for index in 0..count {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&((number + index) as u64).to_le_bytes());
            batch.event(EventId(Guid(id)), "bench-event", false, &PAYLOAD, b"");
        }
        let event_count = batch.event_count();
        let mut body = batch.finish();
        BatchView::set_first_event_number(&mut body, number as i64);
        let length = sealed_length(body.len());
        let room = LAYOUT.room(self.end) as usize;
        // A rest that could not hold a padding record must not remain, either.
        if length + RECORD_HEADER_BYTES > room {
            let mut rest = vec![0; room];
            padding(&mut rest, self.end, self.term, NOW);
            self.write(file, &rest);
            *file = self.create_chunk();
        }
        let mut record = vec![0; length];
        record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
        let (position, term, kind) = (self.end, self.term, RecordKind::Append);
        seal(&mut record, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: NOW });
        self.write(file, &record);
    }

    fn write(&mut self, file: &File, bytes: &[u8]) {
        file.write_all_at(bytes, LAYOUT.file_offset(self.end)).expect("room on the disk");
        self.end = self.end.plus(bytes.len() as u64);
    }

    fn reader(&self) -> Reader<'_> {
        // Not the server's: on a busy machine pages would end early, and the hash would be another.
        let page_time = Duration::MAX;
        Reader { index: &self.index, log: &self.reader, layout: LAYOUT, now: NOW, page_time, checks: &self.checks }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("{} could not be removed: {error}", self.directory.display());
        }
    }
}

/// What this thread has used of its core: unlike the time of day it says something on a busy machine, too.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("below a second"))
}

/// Times pages, and counts what is in them.
struct Run {
    events: usize,
    bytes: usize,
    nanos: Histogram<u64>,
    busy: Duration,
    hasher: foldhash::fast::FoldHasher<'static>,
}

impl Run {
    fn new() -> Run {
        let hasher = std::hash::BuildHasher::build_hasher(&FixedState::with_seed(1));
        let nanos = Histogram::new(3).expect("three digits");
        Run { events: 0, bytes: 0, nanos, busy: Duration::ZERO, hasher }
    }

    fn time(&mut self, events: usize, out: &mut Vec<u8>, work: impl FnOnce(&mut Vec<u8>)) {
        out.clear();
        let started = processor_time();
        work(out);
        let time = processor_time() - started;
        self.busy += time;
        self.nanos.record(time.as_nanos() as u64).expect("within the histogram's range");
        self.events += events;
        self.bytes += out.len();
        self.hasher.write(out);
    }

    fn print(&self, what: &str) {
        println!(
            "  {what:<22} {:>9.0} events/s, page p50 {:>6.1} us, p99 {:>6.1} us, {:.0} bytes/event, hash {:016x}",
            self.events as f64 / self.busy.as_secs_f64(),
            self.nanos.value_at_quantile(0.5) as f64 / 1e3,
            self.nanos.value_at_quantile(0.99) as f64 / 1e3,
            self.bytes as f64 / self.events as f64,
            self.hasher.finish()
        );
    }
}

fn read_stream(log: &Log, direction: Direction, rounds: usize) -> Run {
    let last = log.index.head(STREAM).expect("in memory").last_event_number;
    let count = i64::from(PAGE_EVENTS);
    let mut run = Run::new();
    let mut out = Vec::new();
    for _ in 0..rounds {
        for page in 0..(last + 1) / count {
            let from = match direction {
                Direction::Forward => page * count,
                Direction::Backward => last - page * count,
            };
            let (stream, max_count) = (STREAM.to_owned(), PAGE_EVENTS);
            let request =
                ReadStream { direction, stream, from, max_count, resolve_links: false, require_leader: false };
            run.time(count as usize, &mut out, |out| {
                log.reader().read_stream(&request, &Identity::Anonymous, ProtocolLevel::V2, ID, out);
            });
        }
    }
    run
}

fn read_all(log: &Log, direction: Direction, events: usize, rounds: usize) -> Run {
    let mut run = Run::new();
    let mut out = Vec::new();
    for _ in 0..rounds {
        let mut from = if direction == Direction::Forward { AllPosition::START } else { AllPosition::END };
        for _ in 0..events / PAGE_EVENTS as usize {
            let max_count = PAGE_EVENTS;
            let request = ReadAll { direction, from, max_count, resolve_links: false, require_leader: false };
            run.time(max_count as usize, &mut out, |out| {
                log.reader().read_all(&request, &Identity::System, ProtocolLevel::V2, ID, out);
            });
            from = next_position(&out);
        }
    }
    run
}

/// The place to go on from, at the end of a page of the whole log: two numbers, each behind its tag.
fn next_position(page: &[u8]) -> AllPosition {
    let numbers = |at: usize| -> Option<(i64, i64)> {
        let (commit, rest) = number(&page[at..], 4)?;
        let (prepare, rest) = number(rest, 5)?;
        rest.is_empty().then_some((commit, prepare))
    };
    let found = (page.len().saturating_sub(22)..page.len()).find_map(numbers);
    let (commit, prepare) = found.expect("a page ends with the next position");
    AllPosition { commit, prepare }
}

fn number(bytes: &[u8], field: u8) -> Option<(i64, &[u8])> {
    let mut rest = bytes.strip_prefix(&[field << 3])?;
    let number = prost::encoding::decode_varint(&mut rest).ok()?;
    Some((number.cast_signed(), rest))
}

/// Pushes the whole log to subscribers of everything, one piece after the other.
fn push(log: &Log, subscribers: u64, events: usize) -> Run {
    let mut subscriptions = Subscriptions::default();
    let empty = Index::new();
    let reader = Reader { index: &empty, ..log.reader() };
    for connection in 1..=subscribers {
        let request = Subscribe { stream: None, resolve_links: false };
        let mut out = Vec::new();
        let key = (connection, ID);
        let level = ProtocolLevel::V2;
        subscriptions.subscribe(&reader, key, request, &Identity::System, level, &mut out).expect("an empty log");
    }
    let mut run = Run::new();
    let mut outs = vec![Vec::new(); subscribers as usize];
    let mut all = Vec::new();
    let mut is_done = false;
    while !is_done {
        run.time(0, &mut all, |_| {
            let mut send = |connection: u64, frame: &[u8]| {
                outs[connection as usize - 1].extend_from_slice(frame);
            };
            is_done = subscriptions.deliver(&log.reader(), log.end, 1 << 20, &mut send).expect("a good log");
        });
        for out in &mut outs {
            run.bytes += out.len();
            run.hasher.write(out);
            out.clear();
        }
    }
    run.events = events * subscribers as usize;
    run
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--small");
    let (events, rounds) = if small { (5_000, 1) } else { (200_000, 10) };
    for shape in SHAPES {
        let events = if shape.streams > 1 && small { events * 10 } else { events };
        let log = Log::new(shape, events);
        println!("{}, pages of {PAGE_EVENTS}:", shape.name);
        // With many streams, each has its share of the events: more rounds.
        let stream_rounds = rounds * shape.streams.min(20);
        read_stream(&log, Direction::Forward, stream_rounds).print("stream forward");
        read_stream(&log, Direction::Backward, stream_rounds).print("stream backward");
        read_all(&log, Direction::Forward, events, rounds).print("all forward");
        read_all(&log, Direction::Backward, events, rounds).print("all backward");
        for subscribers in [1, 10] {
            push(&log, subscribers, events).print(&format!("pushed to {subscribers}"));
        }
    }
}
