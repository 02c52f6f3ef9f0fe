//! A node with everything real but the log thread: that one is played by a thread with a log in memory.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use parking_lot::RwLock;
use prost::Message;

use crate::api::Checks;
use crate::api::{Edge, EdgeLinks, EdgeOptions, EdgeSockets, listeners};
use crate::codec::client::frame::{put_message, put_package, take_package};
use crate::codec::client::{Command, Credentials, Package};
use crate::codec::link::{Hello, Purpose};
use crate::codec::record::{BatchView, Header, RecordKind, seal, sealed_length};
use crate::engine::{Answer, Append, ClientCounters, EdgeMessage, NodeView, Progress, Published, Reply, Request, Role};
use crate::gossip::{Addresses, Directory, KnownNode};
use crate::http::Response;
use crate::index::Index;
use crate::limits::RECORD_HEADER_BYTES;
use crate::queue::Queue;
use crate::ring::monotonic_now;
use crate::storage::{ChunkLayout, LogRead, ReadError};
use crate::types::{ClusterId, ExpectedVersion, Guid, LogPosition, NodeId, Term};

const CHUNK_BYTES: usize = 16 << 20;
const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: CHUNK_BYTES as u64 };

/// One chunk in memory.
pub(super) struct MemoryLog(RwLock<Vec<u8>>);

impl LogRead for MemoryLog {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        visit(&self.0.read()[position.0 as usize..]);
        Ok(())
    }
}

/// How the log thread behaves.
#[derive(Default)]
pub(super) struct Behaviour {
    /// Takes requests but does not answer them; they are kept.
    pub(super) is_mute: AtomicBool,
    /// Does not even take requests.
    pub(super) is_stuck: AtomicBool,
    /// Answers that were not given while it was mute.
    kept: Mutex<Vec<Reply>>,
    /// Given instead of appending.
    pub(super) refusal: Mutex<Option<Answer>>,
    pub(super) is_over: AtomicBool,
    /// Requests taken.
    pub(super) taken: AtomicU64,
}

/// A node: an edge thread and a log thread.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) tcp: SocketAddr,
    pub(super) http: SocketAddr,
    /// Port 0 without certificates in the options, and the next too.
    pub(super) secure_tcp: SocketAddr,
    pub(super) secure_http: SocketAddr,
    pub(super) links: EdgeLinks,
    pub(super) behaviour: Arc<Behaviour>,
    log: Arc<MemoryLog>,
    threads: Vec<JoinHandle<()>>,
}

/// What a test may want otherwise.
pub(super) struct Setup {
    pub(super) options: EdgeOptions,
    pub(super) role: Role,
    pub(super) leader: Option<NodeId>,
    pub(super) directory: Directory,
    pub(super) log_queue: usize,
}

impl Setup {
    pub(super) fn leader() -> Setup {
        let options = EdgeOptions::new(0, 1 << 20);
        Setup { options, role: Role::Leader, leader: None, directory: Directory::default(), log_queue: 1024 }
    }
}

impl Node {
    pub(super) fn leader() -> Node {
        Node::start(Setup::leader())
    }

    pub(super) fn start(setup: Setup) -> Node {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let open = |is_wanted| if is_wanted { listeners(any, 1, None).unwrap() } else { Vec::new() };
        let is_secure = setup.options.external.is_some();
        let (secure_tcp, secure_http) = (open(is_secure), open(is_secure));
        let sockets = EdgeSockets { tcp: open(true), http: open(true), secure_tcp, secure_http };
        let address = |sockets: &[TcpListener]| sockets.first().map_or(any, |socket| socket.local_addr().unwrap());
        let (tcp, http) = (address(&sockets.tcp), address(&sockets.http));
        let (secure_tcp, secure_http) = (address(&sockets.secure_tcp), address(&sockets.secure_http));
        let id = NodeId::random();
        let log = Arc::new(MemoryLog(RwLock::new(vec![0; CHUNK_BYTES])));
        let mut links = links(Queue::for_task(setup.log_queue), setup.directory, log.clone());
        if !setup.options.plane.is_open() {
            let hello = real_hello(id, setup.options.plane.secret().is_some());
            links.forward_hello = Arc::new(move || Some(hello.encode().to_vec()));
        }
        let leader = setup.leader.or((setup.role == Role::Leader).then_some(id));
        links.published.set_view(NodeView { role: setup.role, leader, ..NodeView::default() });
        let behaviour = Arc::new(Behaviour::default());
        let player = LogThread {
            links: links.clone(),
            log: log.clone(),
            behaviour: behaviour.clone(),
            end: LogPosition::ZERO,
            heads: HashMap::new(),
        };
        let (options, given) = (setup.options, links.clone());
        let threads = vec![
            std::thread::spawn(move || player.run()),
            std::thread::spawn(move || Edge::run(options, given, sockets, &|| ()).unwrap()),
        ];
        Node { id, tcp, http, secure_tcp, secure_http, links, behaviour, log, threads }
    }

    pub(super) fn set_role(&self, role: Role, leader: Option<NodeId>) {
        self.links.published.set_view(NodeView { role, leader, ..NodeView::default() });
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.tcp)
    }

    /// Gives the answers that were kept while the log thread was mute.
    pub(super) fn answer_late(&self) {
        self.behaviour.is_mute.store(false, Ordering::SeqCst);
        for reply in std::mem::take(&mut *self.behaviour.kept.lock().unwrap()) {
            self.links.inbox.send(EdgeMessage::Reply(reply)).unwrap();
        }
    }

    /// Listens like the internal port of this node: each connection whose hello is good goes to the edge.
    pub(super) fn internal_port(&self) -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, accepting) = (listener.local_addr().unwrap(), listener.try_clone().unwrap());
        let inbox = self.links.inbox.clone();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = accepting.accept() {
                let mut hello = [0; 5];
                if socket.read_exact(&mut hello).is_err() {
                    return;
                }
                assert_eq!(&hello, b"hello");
                inbox.send(EdgeMessage::ForwardConnection(Box::new(OwnedFd::from(socket).into()))).unwrap();
            }
        });
        (address, listener)
    }

    pub(super) fn shut_down(&mut self) {
        let _ = self.links.inbox.send(EdgeMessage::ShutDown);
        self.behaviour.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// The bytes of the log so far.
    pub(super) fn log_bytes(&self) -> u64 {
        assert_eq!(self.log.0.read().len(), CHUNK_BYTES);
        self.links.published.log_end().0
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shut_down();
        }
    }
}

/// What an edge shares with a node of which there is nothing yet.
fn links(log_queue: Queue<Request>, directory: Directory, log: Arc<MemoryLog>) -> EdgeLinks {
    EdgeLinks {
        log_queue: Arc::new(log_queue),
        inbox: Arc::new(Queue::for_task(1 << 16)),
        published: Arc::default(),
        directory,
        index: Arc::new(Index::new()),
        log,
        layout: LAYOUT,
        checks: Checks::default(),
        users: Arc::default(),
        counters: Arc::new(ClientCounters::default()),
        routes: Arc::new(|request, _| Response::with_body(200, "text/plain", request.path.clone())),
        forward_hello: Arc::new(|| Some(b"hello".to_vec())),
    }
}

/// The greeting of a node of a cluster.
pub(super) fn real_hello(node: NodeId, secret: bool) -> Hello {
    Hello {
        purpose: Purpose::Forward,
        cluster: ClusterId(Guid([9; 16])),
        node,
        term: Term(1),
        subscription: Guid::ZERO,
        start: LogPosition::ZERO,
        chunk_size: CHUNK_BYTES as u64,
        secret,
    }
}

/// The links of an edge that nobody serves: its queue to the log thread can be looked at.
pub(super) fn lonely_links() -> EdgeLinks {
    links(Queue::for_ring(1 << 10).unwrap(), Directory::default(), Arc::new(MemoryLog(RwLock::default())))
}

/// A directory with one node that is reached at `int_tcp` from inside.
pub(super) fn directory(node: &Node, int_tcp: SocketAddr) -> Directory {
    let ext_secure_tcp = Some(node.secure_tcp).filter(|address| address.port() != 0);
    let addresses = Addresses { int_tcp, int_http: int_tcp, ext_tcp: node.tcp, ext_http: node.http, ext_secure_tcp };
    let directory = Directory::default();
    directory.replace(vec![KnownNode { node: node.id, addresses, is_alive: true }], "{}".into());
    directory
}

#[derive(Clone, Copy)]
struct Head {
    last: i64,
    is_soft_deleted: bool,
}

/// The log thread's part, as far as one leader alone plays it: everything is committed at once.
struct LogThread {
    links: EdgeLinks,
    log: Arc<MemoryLog>,
    behaviour: Arc<Behaviour>,
    end: LogPosition,
    heads: HashMap<String, Head>,
}

impl LogThread {
    fn run(mut self) {
        while !self.behaviour.is_over.load(Ordering::SeqCst) {
            let is_stuck = self.behaviour.is_stuck.load(Ordering::SeqCst);
            match if is_stuck { None } else { self.links.log_queue.pop() } {
                Some(request) => self.take(request),
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn take(&mut self, request: Request) {
        self.behaviour.taken.fetch_add(1, Ordering::SeqCst);
        let refusal = self.behaviour.refusal.lock().unwrap().clone();
        let leads = self.links.published.view().role == Role::Leader;
        let (ticket, answer, spare) = match request {
            Request::Barrier { ticket } if leads => (ticket, Answer::Confirmed { end: self.end }, None),
            Request::Barrier { ticket } => (ticket, Answer::NotLeader, None),
            Request::Append(mut append) => {
                let answer = refusal.unwrap_or_else(|| self.append(&mut append));
                (append.ticket, answer, Some(append))
            }
        };
        let published: &Published = &self.links.published;
        published.set_positions(self.end, self.end, self.end, self.end);
        let reply = Reply { ticket, answer, spare };
        if self.behaviour.is_mute.load(Ordering::SeqCst) {
            self.behaviour.kept.lock().unwrap().push(reply);
        } else {
            self.links.inbox.push(EdgeMessage::Reply(reply)).unwrap();
        }
        self.links.inbox.send(EdgeMessage::Progress(Progress { readable: self.end })).unwrap();
    }

    fn head(&self, stream: &str) -> Head {
        self.heads.get(stream).copied().unwrap_or(Head { last: -1, is_soft_deleted: false })
    }

    fn append(&mut self, append: &mut Append) -> Answer {
        if matches!(append.kind, RecordKind::TransactionStart | RecordKind::TransactionWrite) {
            let position = self.write(append.kind, append.event_count, &append.body);
            return self.appended(0, 0, position);
        }
        let claimed = append.guard.as_deref().unwrap_or_else(|| append.stream()).to_owned();
        if let Some(refusal) = self.check(&claimed, append.expected_version) {
            return refusal;
        }
        let revived = append.metadata_of.as_ref().map_or(claimed, |effect| effect.base.to_string());
        let soft_deletes = append.metadata_of.as_ref().is_some_and(|effect| effect.soft_deletes);
        let head = self.head(&revived);
        if head.is_soft_deleted && !soft_deletes {
            match &append.revival {
                Some(revival) if revival.last_event_number == head.last && *revival.base == *revived => {}
                _ => {
                    return Answer::SoftDeleted { last_event_number: head.last, end: self.end };
                }
            }
        }
        let stream = append.stream().to_owned();
        let first = self.head(&stream).last + 1;
        let last = if append.kind == RecordKind::Delete { i64::MAX } else { first + i64::from(append.event_count) - 1 };
        if append.kind == RecordKind::Append {
            BatchView::set_first_event_number(&mut append.body, first);
        }
        let position = self.write(append.kind, append.event_count, &append.body);
        self.heads.entry(stream.clone()).or_insert(Head { last: -1, is_soft_deleted: false }).last = last;
        self.heads.entry(revived).or_insert(Head { last: -1, is_soft_deleted: false }).is_soft_deleted = soft_deletes;
        if let Some(mut revival) = append.revival.take() {
            let number = self.head(&revival.metastream).last + 1;
            BatchView::set_first_event_number(&mut revival.body, number);
            self.write(RecordKind::Append, 1, &revival.body);
            self.heads.insert(revival.metastream.to_string(), Head { last: number, is_soft_deleted: false });
        }
        self.appended(first, last, position)
    }

    fn check(&self, stream: &str, expected: ExpectedVersion) -> Option<Answer> {
        let head = self.head(stream);
        let end = self.end;
        if head.last == i64::MAX {
            return Some(Answer::StreamDeleted { end });
        }
        let holds = match expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::NoStream => head.last == -1 || head.is_soft_deleted,
            ExpectedVersion::StreamExists => head.last >= 0,
            ExpectedVersion::Exact(number) => number == head.last,
        };
        (!holds).then_some(Answer::WrongExpectedVersion { current: head.last, end })
    }

    fn appended(&self, first_event_number: i64, last_event_number: i64, position: LogPosition) -> Answer {
        let last_prepare_position = position.plus(RECORD_HEADER_BYTES as u64);
        let (end, committed_at) = (self.end, monotonic_now());
        Answer::Appended { first_event_number, last_event_number, position, last_prepare_position, end, committed_at }
    }

    fn write(&mut self, kind: RecordKind, event_count: u16, body: &[u8]) -> LogPosition {
        let position = self.end;
        let start = position.0 as usize;
        let length = sealed_length(body.len());
        let mut log = self.log.0.write();
        let buffer = &mut log[start..start + length];
        buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
        let timestamp = 638_000_000_000_000_000;
        seal(buffer, Header { length: 0, crc: 0, position, term: Term(1), kind, flags: 0, event_count, timestamp });
        self.end = position.plus(length as u64);
        position
    }
}

/// A client that sends one thing after the other and waits.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    pub(super) tls: Option<Box<rustls::ClientConnection>>,
    buffer: BytesMut,
    last: u64,
    pub(super) credentials: Option<Credentials>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client { socket, tls: None, buffer: BytesMut::new(), last: 0, credentials: None }
    }

    pub(super) fn admin(mut self) -> Client {
        self.credentials = Credentials::new(b"admin", b"changeit");
        self
    }

    /// Sends a request and gives its correlation identifier.
    pub(super) fn send(&mut self, command: Command, message: &impl Message) -> Guid {
        self.send_raw(command as u8, 0, &message.encode_to_vec())
    }

    pub(super) fn send_raw(&mut self, command: u8, flags: u8, payload: &[u8]) -> Guid {
        self.last += 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&self.last.to_le_bytes());
        let mut out = Vec::new();
        put_package(&mut out, command, flags, Guid(id), self.credentials.as_ref().map(Credentials::view), payload);
        self.put(&out).unwrap();
        Guid(id)
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).write_all(bytes),
            None => self.socket.write_all(bytes),
        }
    }

    /// What comes next; 0 at the end. With TLS an end without a goodbye is an error.
    pub(super) fn get(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(piece),
            None => self.socket.read(piece),
        }
    }

    /// The next package that is not a heartbeat's; `None` when the connection is closed.
    pub(super) fn receive(&mut self) -> Option<Package> {
        loop {
            if let Some(package) = take_package(&mut self.buffer).unwrap() {
                match Command::from_byte(package.command) {
                    Some(Command::HeartbeatRequestCommand) => {
                        let mut out = Vec::new();
                        put_message(&mut out, Command::HeartbeatResponseCommand, package.correlation, &());
                        self.put(&out).unwrap();
                    }
                    _ => return Some(package),
                }
                continue;
            }
            let mut piece = vec![0; 64 << 10];
            match self.get(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// The next package, which must be of this command; its message.
    pub(super) fn expect<M: Message + Default>(&mut self, command: Command, correlation: Guid) -> M {
        let package = self.receive().expect("the connection is open");
        let found = Command::describe(package.command);
        let text = String::from_utf8_lossy(package.payload.chunk()).into_owned();
        assert_eq!((package.command, package.correlation), (command as u8, correlation), "{found}: {text}");
        M::decode(package.payload).unwrap()
    }

    /// The next package's text, which must be of this command.
    pub(super) fn expect_text(&mut self, command: Command, correlation: Guid) -> String {
        let package = self.receive().expect("the connection is open");
        assert_eq!((package.command, package.correlation), (command as u8, correlation), "{package:?}");
        String::from_utf8_lossy(&package.payload).into_owned()
    }

    pub(super) fn expect_closed(&mut self) {
        if let Some(package) = self.receive() {
            panic!("{package:?}");
        }
    }
}

/// Waits for what other threads bring about.
pub(super) fn until(condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(10), "it does not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}
