//! One connection: a task that reads and answers, a task that sends, and what they share. One read may bring many
//! answers, and all requests that became due meanwhile leave in one write. A lost connection is made again, and what
//! waited for an answer is sent again as the same requests.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use crate::book::{Book, before};
use crate::load::{Place, Request, Verdict};
use crate::record::Kind;
use crate::signal::Signal;
use crate::slots::{Correlation, Slots};
use crate::wire;
use crate::wire::{Appeared, Malformed, NotHandled, Package, PageAnswer, WriteAnswer};
use crate::worker::{Phase, TICK, Worker};

/// A connection attempt that takes longer is given up.
const CONNECT_TICKS: u64 = 3_000 / TICK.as_millis() as u64;
/// Between attempts.
const RETRY_TICKS: u64 = 3;
/// A request that a node could not take is sent again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(40);
/// Connections begin in groups, one group each tick: a listening socket's queue is finite.
const CONNECTS_PER_TICK: usize = 64;
/// Correlation identifiers that are no slot's.
const GREETING: u32 = u32::MAX;
const SUBSCRIPTION: u32 = u32::MAX - 1;
/// Answers that make a connection ready: to Authenticate and to IdentifyClient.
const GREETINGS: u32 = 2;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes requests.
    Active,
    /// Answers heartbeats.
    Idle,
    /// Receives the events of these streams; one empty name is the all-stream.
    Subscriber(Vec<Vec<u8>>),
}

/// Why a session ended.
struct Lost(String);

impl From<Malformed> for Lost {
    fn from(malformed: Malformed) -> Self {
        Self(format!("the node sent {}", malformed.0))
    }
}

/// Both tasks and the ticker use it; nobody keeps it borrowed over an await.
struct State {
    /// Frames that the writing task will send next.
    out: Vec<u8>,
    slots: Slots<Request>,
    place: Place,
    stream: Option<(Rc<TcpStream>, SocketAddr)>,
    /// Answers that are missing before the session is ready; 0 is ready.
    greetings: u32,
    /// Requests that a node could not take, and when they are sent again.
    again: Vec<(Correlation, Instant)>,
    heard: Instant,
    was_ready: bool,
}

/// One connection of a worker.
pub(crate) struct Connection {
    worker: Rc<Worker>,
    /// Among all connections of the run, and among those of this worker.
    index: usize,
    local: usize,
    role: Role,
    state: RefCell<State>,
    /// For the writing task: there is something to send, or the session is over.
    wake: Signal,
}

impl Connection {
    pub(crate) fn new(worker: Rc<Worker>, index: usize, local: usize, role: Role, place: Place) -> Self {
        let slots = if role == Role::Active { worker.plan.in_flight } else { 0 };
        let state = State {
            out: Vec::new(),
            slots: Slots::new(slots),
            place,
            stream: None,
            greetings: GREETINGS,
            again: Vec::new(),
            heard: Instant::now(),
            was_ready: false,
        };
        Self { worker, index, local, role, state: RefCell::new(state), wake: Signal::default() }
    }

    /// Connects and serves the connection until the run is over.
    pub(crate) async fn run(self: Rc<Self>) {
        self.worker.ticks.wait((self.local / CONNECTS_PER_TICK) as u64).await;
        while let Some((stream, address)) = self.connect().await {
            let stream = Rc::new(stream);
            self.greet(&stream, address);
            let writer = tokio_uring::spawn(Rc::clone(&self).write(Rc::clone(&stream)));
            let Lost(reason) = self.read(&stream).await;
            self.close();
            self.wake.give();
            // A task of ours that panicked has said so already.
            let _ = writer.await;
            if self.worker.phase.get() == Phase::Over {
                break;
            }
            self.worker.lost(&reason, address);
        }
    }

    async fn connect(&self) -> Option<(TcpStream, SocketAddr)> {
        let worker = &self.worker;
        loop {
            if worker.phase.get() == Phase::Over {
                return None;
            }
            if let Some(address) = worker.plan.directory.address(self.index) {
                let attempt = within(TcpStream::connect(address), worker.ticks.wait(CONNECT_TICKS)).await;
                match attempt {
                    Some(Ok(stream)) if stream.set_nodelay(true).is_ok() => return Some((stream, address)),
                    Some(Err(error)) => worker.plan.control.note(&format!("no connection to {address}: {error}")),
                    _ => worker.plan.control.note(&format!("no connection to {address} in time")),
                }
                worker.plan.directory.suspect();
            }
            worker.ticks.wait(RETRY_TICKS).await;
        }
    }

    fn greet(&self, stream: &Rc<TcpStream>, address: SocketAddr) {
        let mut state = self.state.borrow_mut();
        state.stream = Some((Rc::clone(stream), address));
        state.heard = Instant::now();
        state.out.clear();
        state.greetings = GREETINGS;
        let greeting = |generation| Correlation { slot: GREETING, generation };
        let (login, password) = &self.worker.plan.user;
        wire::authenticate(&mut state.out, greeting(0), login, password);
        wire::identify_client(&mut state.out, greeting(1), "ringstore-bench");
        if let Role::Subscriber(streams) = &self.role {
            state.greetings += streams.len() as u32;
        }
    }

    async fn read(&self, stream: &TcpStream) -> Lost {
        let mut buffer: Vec<u8> = Vec::with_capacity(self.read_bytes());
        loop {
            let filled = buffer.len();
            let frame = wire::frame_bytes(&buffer).unwrap_or(0);
            buffer.reserve(frame.saturating_sub(filled).max(1));
            let (result, slice) = stream.read(buffer.slice(filled..)).await;
            buffer = slice.into_inner();
            let used = match result {
                Ok(0) => return Lost("closed by the node".into()),
                Ok(_) => self.take(&buffer),
                Err(error) => return Lost(error.to_string()),
            };
            match used {
                Ok(used) if used == buffer.len() => buffer.clear(),
                Ok(used) => {
                    buffer.copy_within(used.., 0);
                    buffer.truncate(buffer.len() - used);
                }
                Err(lost) => return lost,
            }
        }
    }

    fn read_bytes(&self) -> usize {
        match self.role {
            Role::Idle => 1024,
            Role::Active if self.worker.plan.load.reads.is_some() => 1024 * 1024,
            _ => 128 * 1024,
        }
    }

    async fn write(self: Rc<Self>, stream: Rc<TcpStream>) {
        let mut sending = Vec::new();
        loop {
            if self.state.borrow().stream.is_none() {
                return;
            }
            std::mem::swap(&mut self.state.borrow_mut().out, &mut sending);
            if sending.is_empty() {
                self.wake.wait().await;
                continue;
            }
            let (result, sent) = stream.write_all(sending).await;
            sending = sent;
            sending.clear();
            if result.is_err() {
                // The reading task finds out as well and says why.
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }

    /// Takes every whole frame of what was received; says how many bytes they were.
    fn take(&self, bytes: &[u8]) -> Result<usize, Lost> {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.heard = now;
        let mut used = 0;
        {
            let mut book = self.worker.book.borrow_mut();
            while let Some((package, length)) = wire::package(&bytes[used..])? {
                used += length;
                self.answer(state, &mut book, package, now)?;
            }
        }
        self.fill(state, now);
        if !state.out.is_empty() {
            self.wake.give();
        }
        Ok(used)
    }

    fn answer(&self, state: &mut State, book: &mut Book, package: Package<'_>, now: Instant) -> Result<(), Lost> {
        let correlation = Correlation::from_bytes(package.correlation);
        match package.command {
            wire::WRITE_EVENTS_COMPLETED => {
                let answer = WriteAnswer::parse(package.payload)?;
                let Some((correlation, request)) = waiting(state, correlation) else { return Ok(()) };
                let verdict = state.place.wrote(&self.worker.plan.load, &request, &answer);
                self.judge(state, book, correlation, &request, verdict, now);
            }
            wire::READ_FORWARD_COMPLETED | wire::READ_BACKWARD_COMPLETED => {
                self.page(state, book, correlation, &PageAnswer::of_stream(package.payload)?, now);
            }
            wire::READ_ALL_FORWARD_COMPLETED | wire::READ_ALL_BACKWARD_COMPLETED => {
                self.page(state, book, correlation, &PageAnswer::of_all(package.payload)?, now);
            }
            wire::EVENT_APPEARED => self.appeared(book, &Appeared::parse(package.payload)?, now),
            wire::HEARTBEAT_REQUEST => {
                wire::frame(&mut state.out, wire::HEARTBEAT_RESPONSE, &package.correlation, |_| {});
            }
            wire::AUTHENTICATED | wire::CLIENT_IDENTIFIED | wire::SUBSCRIPTION_CONFIRMED => {
                self.greeted(state, book, now);
            }
            wire::NOT_HANDLED => {
                let answer = NotHandled::parse(package.payload)?;
                self.not_handled(state, book, correlation, &answer, now)?;
            }
            wire::NOT_AUTHENTICATED | wire::BAD_REQUEST | wire::SUBSCRIPTION_DROPPED => {
                return Err(self.turned_away(&package));
            }
            // Heartbeat responses, and what a later server may add.
            _ => {}
        }
        Ok(())
    }

    fn page(
        &self,
        state: &mut State,
        book: &mut Book,
        correlation: Option<Correlation>,
        answer: &PageAnswer,
        now: Instant,
    ) {
        let Some((correlation, request)) = waiting(state, correlation) else { return };
        let verdict = state.place.read(&self.worker.plan.load, &request, answer);
        self.judge(state, book, correlation, &request, verdict, now);
    }

    fn judge(
        &self,
        state: &mut State,
        book: &mut Book,
        correlation: Correlation,
        request: &Request,
        verdict: Verdict,
        now: Instant,
    ) {
        if let Verdict::Done { events, payload_bytes } = verdict {
            state.slots.release(correlation);
            book.answered(request.kind, request.intended, now, events, payload_bytes);
            return;
        }
        let recorder = book.now();
        recorder.troubles.refused += 1;
        recorder.errors += 1;
        if verdict == Verdict::Again {
            state.again.push((correlation, now + AGAIN_AFTER));
        } else {
            state.slots.release(correlation);
        }
    }

    fn appeared(&self, book: &mut Book, event: &Appeared<'_>, now: Instant) {
        let Some(writes) = &self.worker.plan.load.writes else { return };
        let Some(began) = writes.began(event.stream, event.id) else { return };
        let age = Duration::from_nanos(writes.clock.nanoseconds(now).saturating_sub(began));
        book.answered(Kind::Delivery, before(now, age), now, 1, event.payload_bytes);
        self.worker.delivered.set(self.worker.delivered.get() + 1);
    }

    /// One more answer of those that a session begins with.
    fn greeted(&self, state: &mut State, book: &mut Book, now: Instant) {
        state.greetings = state.greetings.saturating_sub(1);
        if let Role::Subscriber(streams) = &self.role
            && state.greetings == streams.len() as u32
        {
            for (index, stream) in streams.iter().enumerate() {
                let correlation = Correlation { slot: SUBSCRIPTION, generation: index as u32 };
                wire::subscribe(&mut state.out, correlation, stream);
            }
        }
        if state.greetings != 0 {
            return;
        }
        if !std::mem::replace(&mut state.was_ready, true) {
            self.worker.plan.control.one_more_is_ready();
        }
        // What a session before this one did not bring home goes first, in the order in which it was begun.
        state.again.clear();
        let mut waiting: Vec<_> =
            state.slots.iter().map(|(correlation, request)| (request.sequence, correlation)).collect();
        waiting.sort_unstable_by_key(|(sequence, _)| *sequence);
        book.now().troubles.retries += waiting.len() as u64;
        waiting.into_iter().for_each(|(_, correlation)| self.send_again(state, correlation, now));
    }

    fn send_again(&self, state: &mut State, correlation: Correlation, now: Instant) {
        let Some(correlation) = state.slots.renew(correlation) else { return };
        let Some(request) = state.slots.get_mut(correlation) else { return };
        request.sent = now;
        let request = *request;
        state.place.encode(&self.worker.plan.load, &request, correlation, &mut state.out);
    }

    fn not_handled(
        &self,
        state: &mut State,
        book: &mut Book,
        correlation: Option<Correlation>,
        answer: &NotHandled<'_>,
        now: Instant,
    ) -> Result<(), Lost> {
        let recorder = book.now();
        recorder.errors += 1;
        if answer.reason == NotHandled::TOO_BUSY {
            recorder.troubles.too_busy += 1;
        } else {
            recorder.troubles.not_handled += 1;
            self.worker.plan.directory.suspect();
        }
        if let Some((address, port)) = answer.leader {
            if let Some(address) = socket_address(address, port) {
                self.worker.plan.directory.leader_is(address);
            }
            return Err(Lost("the node is not the leader".into()));
        }
        match waiting(state, correlation) {
            Some((correlation, _)) => state.again.push((correlation, now + AGAIN_AFTER)),
            None => return Err(Lost("the node is not ready".into())),
        }
        Ok(())
    }

    fn turned_away(&self, package: &Package<'_>) -> Lost {
        let text = String::from_utf8_lossy(package.payload);
        let reason = match package.command {
            wire::NOT_AUTHENTICATED => format!("the node refused user `{}`: {text}", self.worker.plan.user.0),
            wire::BAD_REQUEST => format!("the node calls a request bad: {text}"),
            _ => "the node dropped a subscription".to_owned(),
        };
        self.worker.plan.control.note(&reason);
        Lost(reason)
    }

    /// Begins requests as long as there is room and one is due.
    fn fill(&self, state: &mut State, now: Instant) {
        let worker = &self.worker;
        if worker.phase.get() != Phase::Running || state.greetings != 0 || !state.slots.has_free() {
            return;
        }
        let mut pace = worker.pace.borrow_mut();
        while state.slots.has_free() {
            let Some(intended) = pace.peek(now) else { return };
            let Some(request) = state.place.begin(&worker.plan.load, intended, now) else { return };
            pace.taken();
            let correlation = state.slots.insert(request);
            state.place.encode(&worker.plan.load, &request, correlation, &mut state.out);
        }
    }

    /// As `fill`, from outside of the reading task.
    pub(crate) fn start_due(&self, now: Instant) {
        let mut state = self.state.borrow_mut();
        self.fill(&mut state, now);
        if !state.out.is_empty() {
            self.wake.give();
        }
    }

    /// Requests whose time has come again; with `thorough` also those that nobody answered, and a silent node.
    pub(crate) fn tick(&self, now: Instant, thorough: bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.again.is_empty() && !thorough {
            return;
        }
        if state.greetings == 0 {
            let due: Vec<_> = state.again.extract_if(.., |(_, at)| *at <= now).collect();
            self.worker.retried(due.len() as u64);
            due.into_iter().for_each(|(correlation, _)| self.send_again(state, correlation, now));
        }
        if thorough {
            self.watch(state, now);
        }
        if !state.out.is_empty() {
            self.wake.give();
        }
    }

    fn watch(&self, state: &mut State, now: Instant) {
        let Some((stream, address)) = state.stream.clone() else { return };
        let plan = &self.worker.plan;
        if state.slots.waiting() == 0 && state.greetings == 0 {
            state.heard = now;
        }
        let silent = now.saturating_duration_since(state.heard) > plan.timeout;
        if silent || !plan.directory.wants(address) {
            plan.control.note(&format!("{address} says nothing, or is no longer the node that we want"));
            plan.directory.suspect();
            // The reading task ends with it and connects anew.
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        if state.greetings != 0 || !state.again.is_empty() {
            return;
        }
        let late = |request: &Request| now.saturating_duration_since(request.sent) > plan.timeout;
        let unanswered: Vec<_> =
            state.slots.iter().filter(|(_, request)| late(request)).map(|(correlation, _)| correlation).collect();
        self.worker.retried(unanswered.len() as u64);
        unanswered.into_iter().for_each(|correlation| self.send_again(state, correlation, now));
    }

    fn close(&self) {
        let mut state = self.state.borrow_mut();
        state.greetings = GREETINGS;
        if let Some((stream, _)) = state.stream.take() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// The run is over: both tasks end.
    pub(crate) fn end(&self) {
        self.close();
        self.wake.give();
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.state.borrow().slots.waiting() != 0
    }

    pub(crate) fn book_unanswered(&self, book: &mut Book, now: Instant) {
        let state = self.state.borrow();
        state.slots.iter().for_each(|(_, request)| book.unanswered(request.kind, request.intended, now));
    }

    /// Its place, for what was acknowledged; it is given out once.
    pub(crate) fn take_place(&self) -> Place {
        std::mem::replace(&mut self.state.borrow_mut().place, Place::outside())
    }
}

/// The request that an answer belongs to; it stays in its slot.
fn waiting(state: &State, correlation: Option<Correlation>) -> Option<(Correlation, Request)> {
    let correlation = correlation?;
    state.slots.get(correlation).map(|request| (correlation, *request))
}

fn socket_address(address: &[u8], port: u64) -> Option<SocketAddr> {
    let address: IpAddr = str::from_utf8(address).ok()?.parse().ok()?;
    Some(SocketAddr::new(address, u16::try_from(port).ok()?))
}

/// What `future` gives, or none when `limit` is over first.
async fn within<T>(future: impl Future<Output = T>, limit: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut limit) = (pin!(future), pin!(limit));
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        limit.as_mut().poll(context).map(|()| None)
    })
    .await
}
