//! Goal: an append costs the log thread's brain no memory of its own: neither an allocation nor a free, whatever the
//! answer. Method: this program counts what the engine asks the allocator for, over some ten thousand appends after a
//! warm-up in which its tables grow to their full size.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use ringstore::codec::record::{BatchBuilder, MemberRecord, MembershipBody, RecordKind};
use ringstore::engine::{Action, Answer, Append, ClientCounters, Engine, EngineOptions, QueuedBytes, Reply};
use ringstore::engine::{Request, Ticket};
use ringstore::index::Index;
use ringstore::limits::{HEADS_KEPT_MAX, RECENT_IDS_MAX};
use ringstore::storage::{ChunkLayout, DurableState, LogRead, ReadError, Recovered};
use ringstore::types::{ClusterId, EventId, ExpectedVersion, Guid, LogPosition, NodeId, Term, Ticks};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 64 << 20 };
const PER_TURN: usize = 64;
const MEASURED: usize = 10_000;

thread_local! {
    /// The engine is at work on this thread.
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count of the calls made while the engine is at work.
struct Counting;

impl Counting {
    fn note() {
        if COUNTS.get() {
            CALLS.set(CALLS.get() + 1);
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::note();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::note();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::note();
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Counting::note();
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a part of the engine's work and counts.
fn counted<T>(work: impl FnOnce() -> T) -> T {
    COUNTS.set(true);
    let result = work();
    COUNTS.set(false);
    result
}

/// The log's bytes, in the place of chunk files. Wraps: only what was just written is read.
struct Memory(RefCell<Vec<u8>>);

impl LogRead for Memory {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let at = (position.0 % LAYOUT.chunk_size) as usize;
        visit(&self.0.borrow()[at..]);
        Ok(())
    }
}

/// A cluster of one, whose disk takes everything at once.
struct Node {
    engine: Engine,
    index: Arc<Index>,
    memory: Memory,
    actions: Vec<Action>,
    replies: Vec<Reply>,
    turns: u64,
}

impl Node {
    fn new() -> Node {
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
        let index = Arc::new(Index::new());
        let engine = Engine::new(options, state, recovered, Arc::clone(&index), Ticks(0)).expect("a log buffer");
        let memory = Memory(RefCell::new(vec![0; LAYOUT.chunk_size as usize]));
        let mut node = Node { engine, index, memory, actions: Vec::new(), replies: Vec::new(), turns: 0 };
        node.turn(Vec::new());
        node
    }

    /// One turn of the log thread. What the shell and the index do is not counted.
    fn turn(&mut self, requests: Vec<Request>) {
        self.turns += 1;
        let engine = &mut self.engine;
        counted(|| engine.begin_turn(Ticks(self.turns), 1));
        for request in requests {
            counted(|| engine.handle_request(request)).expect("room in the log buffer");
        }
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            counted(|| {
                self.engine.end_turn();
                self.engine.take_actions(&mut actions);
            });
            if actions.is_empty() {
                self.actions = actions;
                return;
            }
            for action in actions.drain(..) {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Write { id, position, length, .. } => {
                let at = (position.0 % LAYOUT.chunk_size) as usize;
                let bytes = self.engine.buffer().slice(position, length);
                self.memory.0.borrow_mut()[at..at + length].copy_from_slice(bytes);
                counted(|| self.engine.handle_written(id));
            }
            Action::Flush { id, .. } => counted(|| self.engine.handle_flushed(id)),
            Action::SaveState(state) => self.engine.handle_state_saved(state.sequence),
            Action::PrepareChunk(chunk) => self.engine.handle_chunk_ready(chunk),
            Action::Progress(progress) => {
                self.index.apply_to(&self.memory, LAYOUT, progress.readable).expect("a good log");
            }
            Action::Reply(reply) => self.replies.push(reply),
            _ => {}
        }
    }
}

/// Makes requests as the edges do.
struct Edge {
    counters: Arc<ClientCounters>,
    requests: u64,
    events: u64,
}

impl Edge {
    fn append(&mut self, stream: &str, events: u16, expected_version: ExpectedVersion) -> Request {
        let first = self.events;
        self.events += u64::from(events);
        self.append_from(first, stream, events, expected_version)
    }

    /// The identifiers count from `first` on.
    fn append_from(&mut self, first: u64, stream: &str, events: u16, expected_version: ExpectedVersion) -> Request {
        self.requests += 1;
        let mut body = BatchBuilder::new(stream, 0);
        for event in first..first + u64::from(events) {
            body.event(EventId(Guid(u128::from(event).to_le_bytes())), "happened", false, b"payload", b"");
        }
        let body = body.finish();
        Request::Append(Box::new(Append {
            ticket: Ticket { edge: 0, key: self.requests },
            kind: RecordKind::Append,
            expected_version,
            guard: None,
            event_count: events,
            queued: QueuedBytes::take(&self.counters, body.len() as u64, u64::MAX),
            body,
            metadata_of: None,
            revival: None,
            deadline: Ticks(u64::MAX),
            handed_over: Ticks(0),
        }))
    }
}

/// All kinds of writes: to new streams and old ones, of one event and of many, refused ones and repeats.
fn mixture(edge: &mut Edge) -> Vec<Request> {
    let mut requests = Vec::with_capacity(MEASURED);
    while requests.len() < MEASURED {
        let number = requests.len();
        requests.push(match number % 8 {
            0 | 1 => edge.append(&format!("later-{number:08}"), 1, ExpectedVersion::NoStream),
            2 => edge.append("stream-00069999", 30, ExpectedVersion::Any),
            3 => edge.append("stream-00069998", 1, ExpectedVersion::Exact(1 << 40)),
            4 => edge.append_from(edge.events - 31, "stream-00069999", 30, ExpectedVersion::Any),
            _ => edge.append(&format!("stream-{:08}", 69_000 + number % 500), 1, ExpectedVersion::Any),
        });
    }
    requests
}

#[test]
fn an_append_neither_allocates_nor_frees() {
    let mut node = Node::new();
    let mut edge = Edge { counters: Arc::default(), requests: 0, events: 1 };
    let streams = 70_000;
    assert!(streams > HEADS_KEPT_MAX && 4 * streams > RECENT_IDS_MAX, "the warm-up fills all tables");
    for turn in 0..streams / PER_TURN + 1 {
        let numbers = turn * PER_TURN..(turn + 1) * PER_TURN;
        let append = |number| edge.append(&format!("stream-{number:08}"), 4, ExpectedVersion::Any);
        node.turn(numbers.map(append).collect());
        node.replies.clear();
    }
    // The lists of what waits for a proof of leadership grow once.
    for _ in 0..2 {
        node.turn((0..PER_TURN).map(|_| edge.append("stream-00069998", 1, ExpectedVersion::Exact(1 << 40))).collect());
        node.replies.clear();
    }
    let mut requests = mixture(&mut edge);
    node.replies.reserve(MEASURED);
    CALLS.set(0);
    while !requests.is_empty() {
        let turn = requests.drain(..PER_TURN.min(requests.len())).collect();
        node.turn(turn);
    }
    assert_eq!(CALLS.get(), 0, "allocations and frees of {MEASURED} appends");
    let answered = |is_it: fn(&Answer) -> bool| node.replies.iter().filter(|reply| is_it(&reply.answer)).count();
    assert_eq!(node.replies.len(), MEASURED);
    assert_eq!(answered(|answer| matches!(answer, Answer::Appended { .. })), MEASURED / 4 * 3);
    assert_eq!(answered(|answer| matches!(answer, Answer::AlreadyWritten { .. })), MEASURED / 8);
    assert_eq!(answered(|answer| matches!(answer, Answer::WrongExpectedVersion { .. })), MEASURED / 8);
    assert!(node.replies.iter().all(|reply| reply.spare.is_some()), "every answer brings its request back");
    let queued = edge.counters.queued_bytes_now.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(queued, 0, "what the appends held of the common limit is given back");
}
