//! One node: its log thread, and a stand-in for its edge.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use crate::codec::record::{BatchBuilder, MembershipBody, RecordKind};
use crate::engine::{
    Answer, Append, ControlInput, ControlOutput, EdgeMessage, Engine, EngineOptions, Forwarded, Published, Request,
    Ticket,
};
use crate::gossip::Directory;
use crate::index::Index;
use crate::queue::Queue;
use crate::ring::{Way, listen};
use crate::security::Plane;
use crate::storage::{
    ChunkHeader, ChunkLayout, DamageReports, Disk, DurableState, FileDisk, FileName, LogReader, erase_tail, recover,
};
use crate::transport::{LogThread, LogThreadError, LogThreadLinks, LogThreadOptions, ShellInput, monotonic_now};
use crate::types::{EventId, ExpectedVersion, NodeId, Ticks};

pub(super) const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };

/// A small buffer, so that followers fall behind it soon.
const LOG_BUFFER_BYTES: usize = 1 << 20;

/// How long a test waits for what must come: the disk of a busy machine may stand still for a long time.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that goes away with the test.
pub(super) struct Directories {
    root: PathBuf,
}

impl Directories {
    pub(super) fn new() -> Directories {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringstore-transport-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&root).unwrap();
        Directories { root }
    }

    pub(super) fn of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

/// Answers that came, and who waits for one.
#[derive(Default)]
struct Waiting {
    senders: Mutex<HashMap<u64, mpsc::Sender<Answer>>>,
    next_key: AtomicU64,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) published: Arc<Published>,
    pub(super) control_input: Arc<Queue<ControlInput>>,
    pub(super) control_output: Arc<Queue<ControlOutput>>,
    pub(super) shell_input: Arc<Queue<ShellInput>>,
    /// Connections that were handed to the edge.
    pub(super) forwarded: Arc<Mutex<Vec<Forwarded>>>,
    log: Log,
    requests: Arc<Queue<Request>>,
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<Result<(), LogThreadError>>>,
    edge: Option<JoinHandle<()>>,
    preparer: Option<JoinHandle<()>>,
    stop_edge: Arc<AtomicBool>,
}

/// What one log thread says, for tests that look for words.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Into the log of the node; and with RUST_LOG set, a failing test tells its story.
fn subscriber(log: Log) -> impl tracing::Subscriber + Send + Sync {
    let of_node = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || log.clone());
    let told = tracing_subscriber::fmt::layer().with_test_writer();
    tracing_subscriber::registry()
        .with(of_node.with_filter(tracing_subscriber::filter::LevelFilter::INFO))
        .with(told.with_filter(tracing_subscriber::EnvFilter::from_default_env()))
}

fn prepare_directory(path: &Path, id: NodeId, list: &MembershipBody) -> Arc<FileDisk> {
    let disk = FileDisk::open(path).unwrap();
    if DurableState::load(&disk).unwrap().is_none() {
        let mut state = DurableState::new(id, LAYOUT.chunk_size);
        state.founding = Some(list.clone());
        state.founded = true;
        state.create(&disk).unwrap();
        make_chunk(&disk, 0);
    }
    Arc::new(disk)
}

fn make_chunk(disk: &FileDisk, chunk: u32) {
    if disk.open_file(FileName::Chunk(chunk)).is_ok() {
        return;
    }
    let head = ChunkHeader { chunk, layout: LAYOUT }.encode();
    disk.create(FileName::Chunk(chunk), &head, LAYOUT.file_length()).unwrap();
}

impl Node {
    /// Starts a node over its directory, as a new one or as it was left.
    pub(super) fn start(
        path: &Path,
        id: NodeId,
        listener: std::net::TcpListener,
        list: &MembershipBody,
        plane: Plane,
    ) -> Node {
        let address = listener.local_addr().unwrap();
        let disk = prepare_directory(path, id, list);
        let queues = (
            Arc::new(Queue::for_ring(1024).unwrap()),
            Arc::new(Queue::for_ring(1024).unwrap()),
            Arc::new(Queue::for_ring(1024).unwrap()),
        );
        let (requests, control_input, shell_input) = queues;
        let control_output = Arc::new(Queue::for_task(1024));
        let inbox = Arc::new(Queue::for_task(64 << 10));
        let published = Arc::new(Published::default());
        let index = Arc::new(Index::new());
        let (prepare_chunk, preparer) = preparer(Arc::clone(&disk), Arc::clone(&shell_input));
        let links = LogThreadLinks {
            requests: Arc::clone(&requests),
            control_input: Arc::clone(&control_input),
            shell_input: Arc::clone(&shell_input),
            control_output: Arc::clone(&control_output),
            edges: vec![Arc::clone(&inbox)],
            published: Arc::clone(&published),
            directory: Directory::default(),
            disk: Arc::clone(&disk),
            damage: DamageReports::default(),
            prepare_chunk,
        };
        let log = Log::default();
        let thread = std::thread::spawn({
            let (index, directory) = (Arc::clone(&index), disk);
            let log = log.clone();
            move || {
                let _guard = tracing::subscriber::set_default(subscriber(log));
                run(id, &directory, links, index, listener, plane)
            }
        });
        let waiting = Arc::new(Waiting::default());
        let (stop_edge, forwarded) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let edge = std::thread::spawn({
            let edge = Edge {
                inbox,
                index,
                reader: LogReader::new(path, LAYOUT),
                waiting: Arc::clone(&waiting),
                forwarded: Arc::clone(&forwarded),
            };
            let stop = Arc::clone(&stop_edge);
            move || edge.run(&stop)
        });
        let (thread, edge, preparer) = (Some(thread), Some(edge), Some(preparer));
        Node {
            id,
            address,
            published,
            control_input,
            control_output,
            shell_input,
            forwarded,
            log,
            requests,
            waiting,
            thread,
            edge,
            preparer,
            stop_edge,
        }
    }

    /// What the log thread has said so far.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.0.lock()).into_owned()
    }

    /// Sends an append of one event of `size` bytes; the answer comes over the channel.
    pub(super) fn append(&self, stream: &str, size: usize) -> mpsc::Receiver<Answer> {
        self.append_until(Ticks(u64::MAX), stream, size)
    }

    /// Likewise, for a client that waits no longer than until then.
    pub(super) fn append_until(&self, deadline: Ticks, stream: &str, size: usize) -> mpsc::Receiver<Answer> {
        let (sender, receiver) = mpsc::channel();
        let key = self.waiting.next_key.fetch_add(1, Ordering::Relaxed);
        self.waiting.senders.lock().insert(key, sender);
        let mut builder = BatchBuilder::new(stream, size);
        builder.event(EventId::random(), "happened", false, &vec![key as u8; size], b"");
        let append = Append {
            ticket: Ticket { edge: 0, key },
            kind: RecordKind::Append,
            expected_version: ExpectedVersion::Any,
            guard: None,
            event_count: 1,
            body: builder.finish(),
            metadata_of: None,
            revival: None,
            deadline,
            handed_over: monotonic_now(),
            queued: None,
        };
        let mut request = Request::Append(Box::new(append));
        while let Err(back) = self.requests.send(request) {
            request = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        receiver
    }

    /// Stops the thread and gives its result.
    pub(super) fn stop(mut self) -> Result<(), LogThreadError> {
        self.shell_input.send(ShellInput::Stop).unwrap();
        self.join()
    }

    /// Waits for the thread's own end.
    pub(super) fn join(&mut self) -> Result<(), LogThreadError> {
        let result = self.thread.take().unwrap().join().unwrap();
        self.stop_edge.store(true, Ordering::Relaxed);
        self.edge.take().unwrap().join().unwrap();
        self.preparer.take().unwrap().join().unwrap();
        result
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.shell_input.send(ShellInput::Stop);
            let _ = self.join();
        }
    }
}

/// The background thread's part. It ends with the node, when nobody can ask any more.
fn preparer(disk: Arc<FileDisk>, shell: Arc<Queue<ShellInput>>) -> (Box<dyn FnMut(u32) + Send>, JoinHandle<()>) {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        for chunk in receiver {
            make_chunk(&disk, chunk);
            let file = disk.open_file(FileName::Chunk(chunk)).unwrap().into();
            shell.send(ShellInput::ChunkReady { chunk, file }).unwrap();
        }
    });
    (Box::new(move |chunk| sender.send(chunk).unwrap()), thread)
}

fn run(
    id: NodeId,
    disk: &FileDisk,
    links: LogThreadLinks,
    index: Arc<Index>,
    listener: std::net::TcpListener,
    plane: Plane,
) -> Result<(), LogThreadError> {
    let state = DurableState::load(disk).unwrap().unwrap();
    let recovered = recover(disk, LAYOUT, &mut |_| ()).unwrap();
    erase_tail(disk, LAYOUT, recovered.end).unwrap();
    let options = LogThreadOptions {
        layout: LAYOUT,
        mark: recovered.mark,
        flush: true,
        way: Way { patience: Some(Duration::from_secs(5)), ..Way::default() },
        plane,
        busy_poll_us: 0,
        zero_copy: true,
        cpus: Vec::new(),
    };
    let engine = EngineOptions {
        layout: LAYOUT,
        log_buffer_bytes: LOG_BUFFER_BYTES,
        election_timeout: Duration::from_secs(1),
        heartbeat_interval: Duration::from_millis(100),
        priority: 0,
        seed: u64::from(id.0.0[0]),
        chunks_ready: recovered.chunk_count,
        window_bytes: 512 << 10,
        planted: None,
    };
    let engine = Engine::new(engine, state, recovered, index, monotonic_now()).unwrap();
    LogThread::new(options, links, engine, Some(listener.into()))?.run()
}

/// Makes the first `count` chunks of a new node.
pub(super) fn make_chunks(path: &Path, count: u32) {
    let disk = FileDisk::open(path).unwrap();
    (0..count).for_each(|chunk| make_chunk(&disk, chunk));
}

/// A listener on a free port of loopback, as the ring wants it.
pub(super) fn listener() -> std::net::TcpListener {
    std::net::TcpListener::from(listen("127.0.0.1:0".parse().unwrap(), None).unwrap())
}

/// The edge's part: apply what is readable, answer when it is.
struct Edge {
    inbox: Arc<Queue<EdgeMessage>>,
    index: Arc<Index>,
    reader: LogReader,
    waiting: Arc<Waiting>,
    forwarded: Arc<Mutex<Vec<Forwarded>>>,
}

impl Edge {
    fn run(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Some(message) = self.inbox.pop() else {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            };
            match message {
                EdgeMessage::Reply(reply) => {
                    if let Some(sender) = self.waiting.senders.lock().remove(&reply.ticket.key) {
                        let _ = sender.send(reply.answer);
                    }
                }
                EdgeMessage::Progress(progress) => {
                    while self.index.applied() < progress.readable {
                        self.index.apply_to(&self.reader, LAYOUT, progress.readable).unwrap();
                    }
                }
                EdgeMessage::ForwardConnection(forwarded) => self.forwarded.lock().push(*forwarded),
                EdgeMessage::ShutDown => return,
            }
        }
    }
}

/// Waits until `done`.
pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
