//! How long does the log thread's brain take for one append, without disk and network?
//!
//! One node, the real engine and index; writes are copied to memory and flushes complete at once. Two numbers: appends
//! a second, and the time of a turn of 32 appends. `--small` runs it in a moment, so that CI notices when it rots.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringstore::codec::record::{BatchBuilder, MemberRecord, MembershipBody, RecordKind};
use ringstore::engine::{Action, Answer, Append, Engine, EngineOptions, Request, Stages, Ticket};
use ringstore::index::Index;
use ringstore::storage::{ChunkLayout, DurableState, LogRead, ReadError, Recovered};
use ringstore::types::{ClusterId, EventId, ExpectedVersion, Guid, LogPosition, NodeId, Term, Ticks};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 64 << 20 };
const APPENDS_PER_TURN: usize = 32;
const STREAMS: usize = 100;
const PAYLOAD: [u8; 256] = [b'x'; 256];

/// The log's bytes, in the place of chunk files. Wraps: only what was just written is read.
struct Memory(RefCell<Vec<u8>>);

impl LogRead for Memory {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let at = (position.0 % LAYOUT.chunk_size) as usize;
        visit(&self.0.borrow()[at..]);
        Ok(())
    }
}

fn single_node(index: &Arc<Index>) -> Engine {
    let node = NodeId(Guid([1; 16]));
    let member = MemberRecord { node, int_ip: [127, 0, 0, 1].into(), int_tcp_port: 1112, int_http_port: 2112 };
    let list = MembershipBody { cluster: ClusterId(Guid([2; 16])), members: vec![member] };
    let state = DurableState { founding: Some(list), founded: true, ..DurableState::new(node, LAYOUT.chunk_size) };
    let recovered = Recovered {
        end: LogPosition::ZERO,
        last_term: Term::ZERO,
        epochs: Vec::new(),
        membership: None,
        cut: None,
        is_suspect: false,
        stale: Vec::new(),
        sealed: LogPosition::ZERO,
        chunk_count: 1,
        headers: Vec::new(),
        mark: None,
    };
    let options = EngineOptions {
        layout: LAYOUT,
        log_buffer_bytes: 16 << 20,
        election_timeout: Duration::from_millis(700),
        heartbeat_interval: Duration::from_millis(100),
        priority: 0,
        seed: 1,
        chunks_ready: 1,
        window_bytes: 4 << 20,
    };
    Engine::new(options, state, recovered, Arc::clone(index), Ticks(0)).expect("a log buffer")
}

/// Carries out what the engine asks for until it asks for nothing; counts the writes that were acknowledged.
fn carry_out(engine: &mut Engine, memory: &Memory, index: &Index, actions: &mut Vec<Action>) -> usize {
    let mut acknowledged = 0;
    loop {
        engine.end_turn();
        engine.take_actions(actions);
        if actions.is_empty() {
            return acknowledged;
        }
        for action in actions.drain(..) {
            match action {
                Action::Write { id, position, length, .. } => {
                    let at = (position.0 % LAYOUT.chunk_size) as usize;
                    memory.0.borrow_mut()[at..at + length].copy_from_slice(engine.buffer().slice(position, length));
                    engine.handle_written(id);
                }
                Action::Flush { id, .. } => engine.handle_flushed(id),
                Action::SaveState(state) => engine.handle_state_saved(state.sequence),
                Action::PrepareChunk(chunk) => engine.handle_chunk_ready(chunk),
                Action::Progress(progress) => {
                    index.apply_to(memory, LAYOUT, progress.readable).expect("a good log");
                }
                Action::Reply(reply) => acknowledged += usize::from(matches!(reply.answer, Answer::Appended { .. })),
                _ => {}
            }
        }
    }
}

fn append(number: u64, handed_over: Ticks) -> Request {
    let stream = format!("bench-{}", number as usize % STREAMS);
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let mut body = BatchBuilder::new(&stream, 512);
    body.event(EventId(Guid(id)), "bench-event", false, &PAYLOAD, b"");
    Request::Append(Box::new(Append {
        ticket: Ticket { edge: 0, key: number },
        kind: RecordKind::Append,
        expected_version: ExpectedVersion::Any,
        guard: None,
        event_count: 1,
        body: body.finish(),
        metadata_of: None,
        revival: None,
        deadline: Ticks(u64::MAX),
        handed_over,
        queued: None,
    }))
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--small");
    let turns = if small { 200 } else { 20_000 };
    let index = Arc::new(Index::new());
    let memory = Memory(RefCell::new(vec![0; LAYOUT.chunk_size as usize]));
    let mut engine = single_node(&index);
    let (mut actions, stages) = (Vec::new(), Stages::default());
    engine.begin_turn(Ticks(1), 1);
    carry_out(&mut engine, &memory, &index, &mut actions);
    let mut turn_nanos = Histogram::<u64>::new(3).expect("three digits");
    let mut acknowledged = 0;
    let started = Instant::now();
    for turn in 0..turns {
        let requests: Vec<Request> =
            (0..APPENDS_PER_TURN).map(|n| append((turn * APPENDS_PER_TURN + n) as u64, Ticks(turn as u64))).collect();
        let turn_started = Instant::now();
        engine.begin_turn(Ticks(2 + turn as u64), 1);
        for request in requests {
            engine.handle_request(request).expect("room in the log buffer");
        }
        acknowledged += carry_out(&mut engine, &memory, &index, &mut actions);
        engine.report_stages(&stages);
        turn_nanos.record(turn_started.elapsed().as_nanos() as u64).expect("within the histogram's range");
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(acknowledged, turns * APPENDS_PER_TURN, "every append is acknowledged");
    println!(
        "append: {:.0} a second (256 bytes, {STREAMS} streams, encoding and index included)",
        acknowledged as f64 / seconds
    );
    println!(
        "turn of {APPENDS_PER_TURN}: p50 {:.1} us, p99 {:.1} us, max {:.1} us",
        turn_nanos.value_at_quantile(0.5) as f64 / 1e3,
        turn_nanos.value_at_quantile(0.99) as f64 / 1e3,
        turn_nanos.max() as f64 / 1e3
    );
}
