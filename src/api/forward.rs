//! Writes that reach a follower go to the leader and their answers come back: one connection an edge, opened when it is
//! first needed, to the leader's internal port.
//!
//! On it travel ordinary client packages, under correlation identifiers of our own. A request that was handed to a
//! connection that then fails may have been carried out, so its client gets a forwarding timeout; one that never left
//! is answered "not ready".

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Buf;
use monoio::time::timeout;
use prost::Message;

use crate::api::connection::{Connection, give_way};
use crate::api::counters::add;
use crate::api::edge::EdgeState;
use crate::api::forward_greeting::{GREETING_TIMEOUT, GreetingError, greet};
use crate::api::gate::{Gate, RequestClass, gate};
use crate::api::heartbeat::{Beat, Heartbeat};
use crate::api::inbox;
use crate::api::receive::{ReceiveBuffer, Received};
use crate::api::session::Session;
use crate::api::work::{Asked, Outcome, Work};
use crate::codec::client::frame::{FLAG_TRUSTED_WRITE, LENGTH_BYTES, frame_bytes, put_frame, put_package};
use crate::codec::client::messages::{
    DeleteStreamCompleted, OperationResult, TransactionCommitCompleted, WriteEventsCompleted,
};
use crate::codec::client::{Command, CredentialsView, Package, PackageView, response};
use crate::engine::Answer;
use crate::http::{SecureReadHalf, SecureStream, connect};
use crate::limits::{FORWARD_QUEUE_BYTES, FRAME_MAX_BYTES};
use crate::security::Seldom;
use crate::types::{Guid, LogPosition, NodeId};

/// Time for the leader to accept the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How soon a connection that is being made and was closed is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// After a failed connection the next one to the same leader is tried no sooner; requests are answered "not ready"
/// meanwhile.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How long answers of an earlier leader are waited for when another one leads; the sweep looks at it.
const LEFT_PATIENCE: Duration = Duration::from_millis(100);

/// How long the answer to a write may wait for the index of this node.
const OWN_WRITE_WAIT: Duration = Duration::from_millis(200);

/// Login, password and their lengths, at most: what forwarding may add to a frame.
const CREDENTIALS_BYTES: usize = 512;

/// The way to the leader.
#[derive(Default)]
pub(super) struct Forwarder {
    link: RefCell<Option<Rc<Link>>>,
    /// Connections to earlier leaders, kept a moment for the answers that are on their way, and when they end.
    left: RefCell<Vec<(Rc<Link>, Instant)>>,
    links_made: Cell<u64>,
    /// The leader of the last connection that failed, and when the next one to it may be tried.
    retry: Cell<Option<(NodeId, Instant)>>,
    failures: Seldom,
}

impl Forwarder {
    /// Tells the operator why a connection ends, unless there was much of that lately: it is made again for as long as clients
    /// write.
    fn note_failure(&self, link: &Link, what: &str, why: &str) {
        if let Some(unsaid) = self.failures.may_say(Instant::now()) {
            tracing::warn!(leader = %link.leader, why, unsaid, "{what}");
        }
    }
}

/// One connection to a leader.
struct Link {
    number: u64,
    leader: NodeId,
    connection: Rc<Connection>,
    /// False until the connection stands: nothing has left so far.
    is_up: Cell<bool>,
    /// Another node leads: its end is no failure.
    is_left: Cell<bool>,
    heartbeat: RefCell<Heartbeat>,
}

impl Forwarder {
    /// Sends what waits, then closes.
    pub(super) fn stop(&self) {
        let left = self.left.borrow();
        for link in self.link.borrow().iter().chain(left.iter().map(|(link, _)| link)) {
            link.connection.close();
        }
    }

    /// Another node leads: the old one is sent no more requests, and its connection ends soon.
    fn leave(&self, leader: NodeId) {
        let Some(link) = self.link.take() else { return };
        tracing::info!(old = %link.leader, new = %leader, "another node leads: the connection to the old one is left");
        link.is_left.set(true);
        if link.is_up.get() {
            self.left.borrow_mut().push((link, Instant::now() + LEFT_PATIENCE));
        } else {
            link.connection.abort();
        }
    }

    /// Ends the connections whose time is over.
    fn end_left(&self, now: Instant) {
        self.left.borrow_mut().retain(|(link, until)| {
            let stays = now < *until;
            if !stays {
                link.connection.abort();
            }
            stays
        });
    }
}

/// What is forwarded for whom.
pub(super) struct Forward<'a> {
    pub(super) package: &'a PackageView<'a>,
    pub(super) asked: Asked,
    /// The package's credentials or the connection's.
    pub(super) credentials: Option<CredentialsView<'a>>,
    /// The request runs as the system itself.
    pub(super) is_trusted: bool,
}

/// Sends a client's request to the leader.
pub(super) fn forward(edge: &Rc<EdgeState>, session: &Session, request: &Forward<'_>) {
    let (package, correlation) = (request.package, request.package.correlation);
    let Some(link) = link_to_leader(edge) else {
        return session.send(|out| response::not_ready(out, correlation));
    };
    let bytes = package.payload.len() + CREDENTIALS_BYTES;
    if bytes > FRAME_MAX_BYTES {
        let text =
            format!("The request has {bytes} bytes, too many to be sent on to the leader; connect to the leader.");
        return session.send(|out| response::bad_request(out, correlation, &text));
    }
    if link.connection.waiting_bytes() + bytes > FORWARD_QUEUE_BYTES {
        return edge.refuse_busy(session, correlation);
    }
    let work = Work::Forwarded { link: link.number, asked: request.asked, answer: None };
    let Some(key) = edge.enter(session, correlation, edge.options.forward_timeout, bytes, work) else {
        return;
    };
    add(&edge.links.counters.forwarded_requests, 1);
    let (flags, credentials) = if request.is_trusted { (FLAG_TRUSTED_WRITE, None) } else { (0, request.credentials) };
    let own = own_correlation(key, link.number);
    link.connection.send(|out| put_package(out, package.command, flags, own, credentials, package.payload));
}

/// The correlation identifier of a forwarded request: its key and the link's number, never zero.
fn own_correlation(key: u64, link: u64) -> Guid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..].copy_from_slice(&link.to_le_bytes());
    Guid(bytes)
}

fn key_of(correlation: Guid) -> u64 {
    u64::from_le_bytes(correlation.0[..8].try_into().expect("eight bytes"))
}

/// The connection to the present leader, opened if need be; `None` when there is no way to it now.
fn link_to_leader(edge: &Rc<EdgeState>) -> Option<Rc<Link>> {
    let view = edge.links.published.view();
    // The role that brought the request here is that of the turn's begin: by now this node may lead itself.
    if gate(view.role, RequestClass::Write { require_leader: false }) != Gate::Forward {
        return None;
    }
    let leader = view.leader?;
    let forwarder = &edge.forwarder;
    let link = forwarder.link.borrow().clone();
    match link {
        Some(link) if link.leader != leader => forwarder.leave(leader),
        // It failed: once its end is seen there is a rest before the next one.
        Some(link) if link.connection.is_closing() => return None,
        Some(link) => return Some(link),
        None => {}
    }
    let rests = |(node, until)| node == leader && Instant::now() < until;
    if edge.stopping.get() || forwarder.retry.get().is_some_and(rests) {
        return None;
    }
    let address = edge.links.directory.node(leader)?.addresses.int_tcp;
    let hello = (edge.links.forward_hello)()?;
    // With a secret it is said before, with the proofs.
    let is_greeted = edge.options.plane.secret().is_some();
    forwarder.links_made.set(forwarder.links_made.get() + 1);
    let link = Rc::new(Link {
        number: forwarder.links_made.get(),
        leader,
        // Its bytes are not a client's: they are counted for nobody.
        connection: Connection::new(Rc::default(), edge.sending.clone()),
        is_up: Cell::new(false),
        is_left: Cell::new(false),
        heartbeat: RefCell::new(Heartbeat::new(edge.options.internal_heartbeat, Instant::now())),
    });
    if !is_greeted {
        link.connection.send(|out| out.extend_from_slice(&hello));
    }
    *forwarder.link.borrow_mut() = Some(Rc::clone(&link));
    monoio::spawn(run(Rc::clone(edge), Rc::clone(&link), address, hello));
    Some(link)
}

/// The life of one connection to a leader.
async fn run(edge: Rc<EdgeState>, link: Rc<Link>, address: SocketAddr, hello: Vec<u8>) {
    // When it was closed meanwhile there is nothing to wait for: what is dropped here goes with its connection.
    match unless_closing(&link, open(&edge, address, &hello)).await {
        Some(Ok(stream)) => serve(&edge, &link, stream).await,
        Some(Err(error)) => {
            // As a field it is escaped: with a secret they are words of somebody who has proven nothing.
            let error = error.to_string();
            if let Some(unsaid) = edge.forwarder.failures.may_say(Instant::now()) {
                tracing::info!(%address, leader = %link.leader, error, unsaid, "no connection to the leader");
            }
        }
        None => {}
    }
    link.connection.abort();
    if !link.is_left.get() {
        edge.forwarder.retry.set(Some((link.leader, Instant::now() + RETRY_AFTER)));
    }
    fail_all(&edge, &link);
    let mut current = edge.forwarder.link.borrow_mut();
    if current.as_ref().is_some_and(|current| current.number == link.number) {
        *current = None;
    }
}

/// `None` when the connection was closed before.
async fn unless_closing<T>(link: &Link, opening: impl Future<Output = T>) -> Option<T> {
    let mut opening = pin!(opening);
    loop {
        if link.connection.is_closing() {
            return None;
        }
        if let Ok(opened) = timeout(LOOK_INTERVAL, opening.as_mut()).await {
            return Some(opened).filter(|_| !link.connection.is_closing());
        }
    }
}

/// Connects; where the plane is closed both sides show that they belong to it.
async fn open(edge: &EdgeState, address: SocketAddr, hello: &[u8]) -> Result<SecureStream, GreetingError> {
    let stream =
        timeout(CONNECT_TIMEOUT, connect(&edge.options.way, address)).await.map_err(io::Error::from).flatten()?;
    let plane = &edge.options.plane;
    if plane.is_open() {
        return Ok(stream.into());
    }
    // What is dropped when the time is up goes with its connection.
    let greeted = timeout(GREETING_TIMEOUT, greet(stream, plane, address, hello)).await;
    greeted.unwrap_or(Err(GreetingError::Late))
}

async fn serve(edge: &Rc<EdgeState>, link: &Rc<Link>, stream: SecureStream) {
    let (mut reader, writer) = stream.into_split();
    link.is_up.set(true);
    *link.heartbeat.borrow_mut() = Heartbeat::new(edge.options.internal_heartbeat, Instant::now());
    let connection = Rc::clone(&link.connection);
    let writing = monoio::spawn(async move { connection.write_all(writer).await });
    let mut buffer = ReceiveBuffer::new(edge.budget.clone());
    while let Some(needed) = take_answers(edge, link, &mut buffer) {
        if buffer.receive(&mut reader, &link.connection, needed).await != Received::More {
            if let Some(error) = buffer.take_tls_error() {
                edge.forwarder.note_failure(link, "the connection to the leader ends", &error.to_string());
            }
            break;
        }
        give_way().await;
    }
    link.connection.close();
    drain(link, &mut reader, &mut buffer).await;
    writing.await;
}

async fn drain(link: &Link, reader: &mut SecureReadHalf, buffer: &mut ReceiveBuffer) {
    loop {
        buffer.clear();
        if buffer.receive(reader, &link.connection, 0).await != Received::More {
            return;
        }
    }
}

/// Handles the whole frames in the buffer; `None` when the connection is of no more use.
fn take_answers(edge: &EdgeState, link: &Link, buffer: &mut ReceiveBuffer) -> Option<usize> {
    edge.begin_turn();
    loop {
        let size = match frame_bytes(buffer.bytes()) {
            Ok(Some(size)) if size <= buffer.bytes().len() => size,
            Ok(size) => return Some(size.unwrap_or(0)).filter(|_| !link.connection.is_closing()),
            Err(error) => {
                edge.forwarder.note_failure(link, "the leader sends what is no frame", &error.to_string());
                return None;
            }
        };
        let mut frame = buffer.take(size);
        frame.advance(LENGTH_BYTES);
        take_answer(edge, link, &Package::read(frame).ok()?);
    }
}

fn take_answer(edge: &EdgeState, link: &Link, package: &Package) {
    let Some(command) = Command::from_byte(package.command) else {
        return;
    };
    match command {
        Command::HeartbeatRequestCommand => {
            link.connection.send(|out| response::heartbeat_response(out, package.correlation));
        }
        Command::BadRequest if package.correlation.is_zero() => {
            let text = String::from_utf8_lossy(&package.payload);
            edge.forwarder.note_failure(link, "the leader ends the connection", &text);
        }
        _ => bring_back(edge, link, command, package),
    }
}

/// Hands an answer to the client whose request it belongs to.
fn bring_back(edge: &EdgeState, link: &Link, command: Command, package: &Package) {
    let key = key_of(package.correlation);
    let fits = edge.pending.borrow().get(key).is_some_and(|waiting| match waiting.work {
        Work::Forwarded { link: number, asked, answer: None } => {
            package.correlation == own_correlation(key, link.number) && number == link.number && answers(command, asked)
        }
        _ => false,
    });
    // What is late, or no answer, is dropped.
    if fits
        && !hold_back(edge, key, command, package)
        && let Some((session, waiting)) = edge.take(key)
    {
        pass_on(&session, waiting.correlation, package);
    }
}

/// Keeps the answer to a write until the index of this node has it, for a moment: the client reads here what it wrote.
/// False when there is nothing to wait for.
fn hold_back(edge: &EdgeState, key: u64, command: Command, package: &Package) -> bool {
    let Some(position) = commit_position(command, package) else { return false };
    // No position lies between the start of a record and its end.
    let end = position.plus(1);
    if edge.links.index.applied() >= end {
        return false;
    }
    let mut pending = edge.pending.borrow_mut();
    let Some(deadline) = pending.get(key).map(|waiting| waiting.deadline) else { return false };
    if let Some(Work::Forwarded { answer, .. }) = pending.work_mut(key) {
        *answer = Some(Box::new(package.clone()));
    }
    pending.set_deadline(key, deadline.min(edge.now() + OWN_WRITE_WAIT));
    pending.hold(end, key, Outcome { answer: Answer::Confirmed { end }, spare: None });
    inbox::hurry(edge);
    true
}

/// Where a successful write lies; `None` for everything else, and for a repeat.
fn commit_position(command: Command, package: &Package) -> Option<LogPosition> {
    let payload = package.payload.clone();
    let position = match command {
        Command::WriteEventsCompleted => WriteEventsCompleted::decode(payload).ok()?.commit_position,
        Command::DeleteStreamCompleted => DeleteStreamCompleted::decode(payload).ok()?.commit_position,
        Command::TransactionCommitCompleted => TransactionCommitCompleted::decode(payload).ok()?.commit_position,
        _ => None,
    };
    position.and_then(|position| u64::try_from(position).ok()).map(LogPosition)
}

/// Gives a client the leader's answer.
pub(super) fn pass_on(session: &Session, correlation: Guid, package: &Package) {
    if let Some(command) = Command::from_byte(package.command) {
        session.send(|out| put_frame(out, command, correlation, &package.payload));
    }
}

fn answers(command: Command, asked: Asked) -> bool {
    match command {
        Command::NotHandled | Command::NotAuthenticated | Command::BadRequest => true,
        Command::WriteEventsCompleted => asked == Asked::WriteEvents,
        Command::DeleteStreamCompleted => asked == Asked::DeleteStream,
        Command::TransactionStartCompleted => asked == Asked::TransactionStart,
        Command::TransactionWriteCompleted => matches!(asked, Asked::TransactionWrite(_)),
        Command::TransactionCommitCompleted => matches!(asked, Asked::TransactionCommit(_)),
        _ => false,
    }
}

/// The connection is gone: everything that was to be answered over it is answered here.
fn fail_all(edge: &EdgeState, link: &Link) {
    // An answer that waits for the index of this node needs no connection.
    let on_link =
        |work: &Work| matches!(work, Work::Forwarded { link: number, answer: None, .. } if *number == link.number);
    let keys = edge.pending.borrow().keys(|waiting| on_link(&waiting.work));
    for key in keys {
        let Some((session, waiting)) = edge.take(key) else {
            continue;
        };
        let Work::Forwarded { asked, .. } = waiting.work else {
            continue;
        };
        session.send(|out| match link.is_up.get() {
            true => asked.fail(out, waiting.correlation, OperationResult::ForwardTimeout, -1),
            false => response::not_ready(out, waiting.correlation),
        });
    }
}

/// For the sweep: the link's heartbeat, and the end of those to earlier leaders.
pub(super) fn check_link(edge: &EdgeState, now: Instant) {
    edge.forwarder.end_left(now);
    let Some(link) = edge.forwarder.link.borrow().clone() else {
        return;
    };
    link.connection.enforce_close(now);
    if link.connection.is_closing() {
        return;
    }
    if let Some(leader) = edge.links.published.view().leader
        && leader != link.leader
    {
        return edge.forwarder.leave(leader);
    }
    if !link.is_up.get() {
        return;
    }
    let (heard, spoke) = (link.connection.life_signs(), link.connection.sent());
    match link.heartbeat.borrow_mut().check(now, heard, spoke) {
        Beat::Rest => {}
        Beat::Send => link.connection.send(|out| response::heartbeat_request(out, Guid::random())),
        Beat::Close => {
            tracing::info!(leader = %link.leader, "the leader is silent: the connection to it is closed");
            link.connection.abort();
        }
    }
}
