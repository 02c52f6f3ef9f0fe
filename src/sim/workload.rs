//! Clients: each asks for one thing at a time, of the node that it takes for the leader, and again until it knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;

use crate::types::{EventId, ExpectedVersion, Guid, LogPosition};

use super::agenda::{MILLISECOND, Moment};
use super::history::{Operation, Told};
use super::node::Node;
use super::profile::within;
use super::world::{Event, World};

/// What a client wants done.
#[derive(Debug)]
pub(super) enum Task {
    /// Events with the sizes of their data.
    Write {
        stream: Arc<str>,
        expected: ExpectedVersion,
        events: Vec<(EventId, usize)>,
    },
    SoftDelete {
        stream: Arc<str>,
        id: EventId,
    },
    HardDelete {
        stream: Arc<str>,
        id: EventId,
    },
    /// Metadata that limits the stream to this many events.
    Limit {
        stream: Arc<str>,
        id: EventId,
        count: u32,
    },
    /// `master`: only a node that proves to lead may answer.
    Read {
        stream: Arc<str>,
        master: bool,
    },
}

impl Task {
    fn stream(&self) -> &Arc<str> {
        match self {
            Task::Write { stream, .. }
            | Task::Read { stream, .. }
            | Task::SoftDelete { stream, .. }
            | Task::Limit { stream, .. }
            | Task::HardDelete { stream, .. } => stream,
        }
    }
}

/// What a client is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Written {
        first: i64,
        end: LogPosition,
    },
    /// The claim does not hold, for a stream that ends with this number; or the request cannot be carried out at all.
    Refused {
        current: Option<i64>,
    },
    /// The last number; the node, its start and the moment when it gave no proof to lead.
    Read {
        last: i64,
        anywhere: Option<((usize, u32), Moment)>,
    },
    /// Not here, not now, or nobody knows.
    Retry,
}

/// One request under way, and what was known when it was asked.
#[derive(Debug)]
pub(super) struct Attempt {
    client: usize,
    asked: Moment,
    pub(super) task: Arc<Task>,
    /// Everything up to here was acknowledged to somebody.
    pub(super) floor_end: LogPosition,
    /// Somebody knew that the stream has this number.
    pub(super) floor_number: i64,
}

#[derive(Debug, Default)]
struct Client {
    task: Option<Arc<Task>>,
    attempt: Option<u64>,
    attempts: u32,
    /// The node that it takes for the leader.
    node: usize,
    /// Last numbers of streams, as it was told.
    known: BTreeMap<Arc<str>, i64>,
    streams_made: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Workload {
    clients: Vec<Client>,
    pub(super) attempts: BTreeMap<u64, Attempt>,
    acknowledged_end: LogPosition,
    /// The last number of each stream that any client was told of.
    numbers: BTreeMap<Arc<str>, i64>,
    /// Streams that were deleted for good.
    deleted: u32,
    pub(super) last_write_done: bool,
}

impl Workload {
    pub(super) fn new(clients: usize) -> Workload {
        Workload {
            clients: (0..clients).map(|_| Client::default()).collect(),
            attempts: BTreeMap::new(),
            acknowledged_end: LogPosition::ZERO,
            numbers: BTreeMap::new(),
            deleted: 0,
            last_write_done: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| client.task.is_none())
    }

    /// For people: what clients wait for.
    pub(super) fn standing(&self) -> String {
        let waiting: Vec<_> = self.clients.iter().filter_map(|client| client.task.as_ref()).collect();
        format!("clients wait for {waiting:?}")
    }

    fn draw(&mut self, random: &mut Rng, index: usize, event_bytes: usize) -> Task {
        let client = &mut self.clients[index];
        let stream: Arc<str> = match random.u8(0..20) {
            0..12 => format!("plain-{}", random.u8(0..5)).into(),
            12..14 => {
                client.streams_made += u32::from(random.bool());
                format!("new-{}", client.streams_made).into()
            }
            14..17 => format!("soft-{}", random.u8(0..2)).into(),
            _ => format!("hard-{}", self.deleted).into(),
        };
        let id = EventId(Guid(random.u128(..).to_le_bytes()));
        match (&stream[..4], random.u8(0..20)) {
            (_, 0..5) => Task::Read { stream, master: random.u8(0..3) > 0 },
            ("soft", 5..8) => Task::SoftDelete { stream, id },
            ("hard", 5) => Task::HardDelete { stream, id },
            ("soft" | "plai", 8) => Task::Limit { stream, id, count: random.u32(1..100) },
            (kind, _) => {
                let expected = expected(random, kind, client.known.get(&stream).copied());
                let count = if random.u8(0..4) == 0 { random.usize(2..=5) } else { 1 };
                let mut event = |_| (EventId(Guid(random.u128(..).to_le_bytes())), random.usize(0..event_bytes));
                let events = (0..count).map(&mut event).collect();
                Task::Write { stream, expected, events }
            }
        }
    }

    fn know(&mut self, stream: &Arc<str>, number: i64) {
        let known = self.numbers.entry(Arc::clone(stream)).or_insert(-1);
        *known = number.max(*known);
    }
}

fn expected(random: &mut Rng, kind: &str, known: Option<i64>) -> ExpectedVersion {
    match random.u8(0..10) {
        // A repeat of this claim on a stream that is soft-deleted again and again is a new write, as in v5.
        0 if kind != "soft" => ExpectedVersion::NoStream,
        _ if kind == "new-" => ExpectedVersion::NoStream,
        1 => ExpectedVersion::StreamExists,
        2..6 => known.filter(|&known| known >= 0).map_or(ExpectedVersion::Any, ExpectedVersion::Exact),
        6 => ExpectedVersion::Exact(random.i64(0..20)),
        _ => ExpectedVersion::Any,
    }
}

impl World {
    pub(super) fn wake_clients(&mut self) {
        for client in 0..self.profile.clients {
            self.plan_in((0, 10 * MILLISECOND), Event::Client { client });
        }
    }

    /// A client goes on: with a new task, or the old one again.
    pub(super) fn client_turn(&mut self, index: usize) {
        let client = &self.workload.clients[index];
        if client.attempt.is_some() {
            return;
        }
        if client.task.is_none() {
            let Some(task) = self.next_task(index) else { return };
            let client = &mut self.workload.clients[index];
            client.task = Some(Arc::new(task));
            client.attempts = 0;
        }
        self.attempt(index);
    }

    /// At the end of a run one client makes one last write.
    fn next_task(&mut self, index: usize) -> Option<Task> {
        let random = &mut self.random.workload;
        if self.settling.is_none() {
            return Some(self.workload.draw(random, index, self.profile.event_bytes));
        }
        let id = EventId(Guid(random.u128(..).to_le_bytes()));
        let (stream, expected) = ("last".into(), ExpectedVersion::Any);
        (index == 0 && !self.workload.last_write_done).then(|| Task::Write {
            stream,
            expected,
            events: vec![(id, 100)],
        })
    }

    fn attempt(&mut self, index: usize) {
        let id = self.id();
        let client = &mut self.workload.clients[index];
        let Some(task) = client.task.clone() else { return };
        client.attempt = Some(id);
        client.attempts += 1;
        // A read goes anywhere now and then: to those that led before, too.
        let is_read = matches!(*task, Task::Read { .. });
        let astray = is_read && self.random.workload.u8(0..3) == 0;
        let node = if astray { self.random.workload.usize(0..self.nodes.len()) } else { client.node };
        let is_proven = matches!(*task, Task::Read { master: true, .. });
        let deposed = self.deposed().filter(|_| is_proven && self.random.workload.bool());
        let node = deposed.unwrap_or(node);
        let stream = task.stream();
        let floor_number = self.workload.numbers.get(stream).copied().unwrap_or(-1);
        let floor_end = self.workload.acknowledged_end;
        self.workload.attempts.insert(id, Attempt { client: index, asked: self.now, task, floor_end, floor_number });
        let random = &mut self.random.workload;
        let delay = within(random, self.profile.network);
        let timeout = self.profile.election_timeout.as_nanos() as Moment;
        let patience = within(random, (timeout / 2, timeout * 4));
        self.agenda.plan(self.now + delay, Event::Ask { node, attempt: id });
        self.agenda.plan(self.now + patience, Event::Timeout { attempt: id });
    }

    /// Of several nodes that take themselves for the leader the one that was so first: where a stale read would come from.
    fn deposed(&self) -> Option<usize> {
        let led = |node: &Node| {
            let replica = node.engine.as_ref()?.replica()?;
            replica.is_leader().then(|| (replica.term(), node.index))
        };
        let leaders: Vec<_> = self.nodes.iter().filter_map(led).collect();
        leaders.iter().min().filter(|_| leaders.len() > 1).map(|&(_, node)| node)
    }

    pub(super) fn timed_out(&mut self, attempt: u64) {
        let Some(asked) = self.workload.attempts.get(&attempt) else { return };
        let client = asked.client;
        if self.workload.clients[client].attempt == Some(attempt) {
            self.count("timeouts");
            self.try_elsewhere(client);
        }
    }

    fn try_elsewhere(&mut self, index: usize) {
        let random = &mut self.random.workload;
        let client = &mut self.workload.clients[index];
        client.attempt = None;
        client.node = random.usize(0..self.nodes.len());
        // Longer each time, or clients of a cluster without a leader would do nothing but ask.
        let pause = within(random, (MILLISECOND, 20 * MILLISECOND * Moment::from(client.attempts.clamp(1, 10))));
        self.agenda.plan(self.now + pause, Event::Client { client: index });
        self.count("tries elsewhere");
    }

    pub(super) fn answered(&mut self, attempt: u64, outcome: Outcome) {
        let Some(Attempt { client: index, asked, task, .. }) = self.workload.attempts.remove(&attempt) else { return };
        let client = &self.workload.clients[index];
        let once = client.attempt == Some(attempt) && client.attempts == 1;
        self.note_history(asked, &task, outcome, once);
        self.learn(index, &task, outcome);
        let client = &self.workload.clients[index];
        if client.attempt != Some(attempt) {
            return; // It has given this attempt up.
        }
        match outcome {
            Outcome::Retry => return self.try_elsewhere(index),
            Outcome::Refused { .. } if client.attempts == 1 => self.refused(&task),
            _ => {}
        }
        let client = &mut self.workload.clients[index];
        client.attempt = None;
        client.task = None;
        let pause = within(&mut self.random.workload, self.profile.think);
        self.agenda.plan(self.now + pause, Event::Client { client: index });
    }

    fn note_history(&mut self, asked: Moment, task: &Task, outcome: Outcome, once: bool) {
        let told = match (task, outcome) {
            (Task::Write { expected, events, .. }, Outcome::Written { first, .. }) => {
                Told::Written { expected: *expected, first, last: first + events.len() as i64 - 1, once }
            }
            (Task::Write { expected, .. }, Outcome::Refused { current: Some(current) }) => {
                Told::Refused { expected: *expected, current }
            }
            (Task::Read { .. }, Outcome::Read { last, anywhere: None }) => Told::Read { last },
            (Task::Read { .. }, Outcome::Read { last, anywhere: Some((node, at)) }) => {
                Told::ReadAnywhere { last, node, at }
            }
            _ => return,
        };
        let stream = Arc::clone(task.stream());
        self.history.add(Operation { stream, asked, answered: self.now, told });
    }

    /// What a client was told binds what anyone may see from now on.
    fn learn(&mut self, index: usize, task: &Task, outcome: Outcome) {
        match (task, outcome) {
            (Task::Write { stream, events, .. }, Outcome::Written { first, end }) => {
                let last = first + events.len() as i64 - 1;
                self.line(index, "acks", first as u64, end.0);
                self.count("acknowledged writes");
                self.workload.know(stream, last);
                self.workload.acknowledged_end = self.workload.acknowledged_end.max(end);
                self.workload.clients[index].known.insert(Arc::clone(stream), last);
                self.workload.last_write_done |= &**stream == "last";
            }
            (Task::SoftDelete { .. }, Outcome::Written { end, .. }) => {
                self.count("soft deletes");
                self.workload.acknowledged_end = self.workload.acknowledged_end.max(end);
            }
            (Task::Limit { .. }, Outcome::Written { end, .. }) => {
                self.count("metadata writes");
                self.workload.acknowledged_end = self.workload.acknowledged_end.max(end);
            }
            (Task::HardDelete { stream, .. }, Outcome::Written { end, .. }) => {
                self.count("hard deletes");
                self.workload.know(stream, i64::MAX);
                self.workload.deleted += 1;
                self.workload.acknowledged_end = self.workload.acknowledged_end.max(end);
            }
            (Task::Read { stream, .. }, Outcome::Read { last, anywhere }) => {
                self.line(index, "reads", last as u64, 0);
                self.count(if anywhere.is_some() { "reads (any node)" } else { "reads (leader)" });
                self.workload.know(stream, last);
                self.workload.clients[index].known.insert(Arc::clone(stream), last);
            }
            (Task::Write { stream, .. }, Outcome::Refused { current }) => {
                self.line(index, "refused", current.unwrap_or(-1) as u64, 0);
                self.count("refused writes");
                if let Some(current) = current {
                    self.workload.clients[index].known.insert(Arc::clone(stream), current);
                }
            }
            _ => {}
        }
    }

    /// A write that was asked for once and refused is not in the log, and never will be.
    fn refused(&mut self, task: &Task) {
        let Task::Write { stream, events, .. } = task else { return };
        for (id, _) in events {
            if self.reference.events.contains_key(id) {
                return self
                    .object(super::Checker::Refused, format!("an event of {stream} was refused but is in the log"));
            }
            self.reference.refused.insert(*id);
        }
    }
}
