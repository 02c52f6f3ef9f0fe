//! Writers that keep every acknowledgement, and a watcher that knows which node leads.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::{ANY, Client, NO_STREAM, Refusal, event};
use crate::support::cluster::{Cluster, figures};
use crate::support::messages::WriteEvents;

/// How long a writer waits for one answer before it repeats the request elsewhere.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// How long a node may take to say what it is before it counts as gone.
const STATE_LIMIT: Duration = Duration::from_millis(300);

/// How long a writer goes on with its last request when the others have stopped.
const LAST_LIMIT: Duration = Duration::from_secs(20);

/// The stream that several writers append to.
pub(crate) const SHARED_STREAM: &str = "fault-shared";

/// How a writer writes; the writers take turns through these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No claim, own stream, at the leader.
    Any,
    /// The exact version, own stream, at the leader.
    Exact,
    /// No claim, the shared stream, at the leader.
    Shared,
    /// The exact version, own stream, one to three events at once, at a follower that forwards.
    Forwarded,
}

/// What a node was seen to be.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    answers: bool,
    leads: bool,
    term: u64,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    nodes: Vec<(SocketAddr, SocketAddr)>,
    seen: Mutex<Vec<Seen>>,
    acknowledged_at: Mutex<Vec<Instant>>,
    wrong: Mutex<Vec<String>>,
}

impl Shared {
    /// The node that leads in the newest term, of those that answer.
    fn leader(&self) -> Option<usize> {
        let seen = lock(&self.seen);
        let leading = seen.iter().enumerate().filter(|(_, node)| node.answers && node.leads);
        leading.max_by_key(|(_, node)| node.term).map(|(index, _)| index)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running load.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    watchers: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<Writer>>,
}

impl Load {
    /// Starts `count` writers with events of about `data_bytes`.
    pub(crate) fn start(cluster: &Cluster, run: u32, first: u32, count: u32, data_bytes: usize) -> Load {
        let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.ext_http(), node.ext_tcp())).collect();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            seen: Mutex::new(vec![Seen::default(); nodes.len()]),
            nodes,
            acknowledged_at: Mutex::new(Vec::new()),
            wrong: Mutex::new(Vec::new()),
        });
        let watchers = (0..shared.nodes.len()).map(|index| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || watch(&shared, index))
        });
        let watchers = watchers.collect();
        let writers = (first..first + count).map(|index| {
            let mut writer = Writer::new(Arc::clone(&shared), run, index, data_bytes);
            std::thread::spawn(move || {
                writer.run();
                writer
            })
        });
        let writers = writers.collect();
        Load { shared, watchers, writers }
    }

    /// Ends the load: what each writer wrote, or what went wrong on the way.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<Writer>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let writers: Vec<Writer> = self.writers.into_iter().map(|thread| thread.join().expect("a writer")).collect();
        self.watchers.into_iter().for_each(|thread| thread.join().expect("a watcher"));
        let wrong = lock(&self.shared.wrong);
        anyhow::ensure!(wrong.is_empty(), "answers that must not be:\n{}", wrong.join("\n"));
        Ok(writers)
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.shared.acknowledged_at).len()
    }

    /// The node that leads, as the writers believe.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.shared.leader()
    }

    /// True when a write was acknowledged after `moment`.
    pub(crate) fn acknowledged_after(&self, moment: Instant) -> bool {
        lock(&self.shared.acknowledged_at).last().is_some_and(|last| *last > moment)
    }

    /// The longest time without an acknowledged write that touches the span from `from` to `to`.
    pub(crate) fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        longest_gap(&lock(&self.shared.acknowledged_at), from, to)
    }
}

/// `moments` are in order: each is taken under the lock that it is pushed under.
fn longest_gap(moments: &[Instant], from: Instant, to: Instant) -> Duration {
    let after = moments.partition_point(|moment| *moment <= from);
    let mut previous = if after == 0 { from } else { moments[after - 1] };
    let mut longest = Duration::ZERO;
    for moment in &moments[after..] {
        longest = longest.max(*moment - previous);
        previous = *moment;
        if previous >= to {
            return longest;
        }
    }
    longest.max(to.saturating_duration_since(previous))
}

fn watch(shared: &Shared, index: usize) {
    let (ext_http, _) = shared.nodes[index];
    while !shared.stopped() {
        let seen = match figures(ext_http, STATE_LIMIT) {
            Ok(figures) => Seen { answers: true, leads: figures.leads(), term: figures.term },
            Err(_) => Seen::default(),
        };
        lock(&shared.seen)[index] = seen;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One thread that writes, and the record of what it wrote.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    run: u32,
    index: u32,
    kind: Kind,
    data_bytes: usize,
    /// Where it writes to.
    pub(crate) stream: String,
    /// Events sent at least once, numbered from 0. All but the last request's are acknowledged.
    pub(crate) sent: u64,
    /// Event numbers in the stream of the acknowledged events, in the order of writing.
    pub(crate) acknowledged: Vec<i64>,
    connection: Option<(usize, Client)>,
    attempts: usize,
}

/// What to do after an attempt that was not acknowledged.
enum Next {
    /// The same again.
    Repeat,
    /// The server said what it must not say.
    Wrong(String),
}

impl Writer {
    fn new(shared: Arc<Shared>, run: u32, index: u32, data_bytes: usize) -> Writer {
        let kind = [Kind::Any, Kind::Exact, Kind::Shared, Kind::Forwarded][index as usize % 4];
        let stream = if kind == Kind::Shared { SHARED_STREAM.to_owned() } else { format!("fault-{index}") };
        let (acknowledged, connection) = (Vec::new(), None);
        Writer { shared, run, index, kind, data_bytes, stream, sent: 0, acknowledged, connection, attempts: 0 }
    }

    /// The number of this writer; the identifiers of its events carry it.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// The identifier of event `counter` of this writer.
    pub(crate) fn id(&self, counter: u64) -> [u8; 16] {
        identifier(self.run, self.index, counter)
    }

    /// The data of event `counter`: its size and every byte follow from the counter.
    pub(crate) fn data(&self, counter: u64) -> Vec<u8> {
        let size = self.data_bytes / 2 + (counter as usize * 37) % self.data_bytes.max(1);
        (0..size).map(|at| (counter as usize + at) as u8).collect()
    }

    fn run(&mut self) {
        while !self.shared.stopped() && self.write_next() {}
        self.connection = None;
    }

    /// Writes the next request until it is acknowledged; false when there is no use in going on.
    fn write_next(&mut self) -> bool {
        let count = if self.kind == Kind::Forwarded { 1 + self.sent % 3 } else { 1 };
        let first = self.sent;
        self.sent += count;
        let request = WriteEvents {
            stream: self.stream.clone(),
            expected_version: match self.kind {
                Kind::Any | Kind::Shared => ANY,
                Kind::Exact | Kind::Forwarded => self.acknowledged.last().copied().unwrap_or(NO_STREAM),
            },
            events: (first..first + count).map(|counter| event(self.id(counter), self.data(counter))).collect(),
            require_master: false,
        };
        let mut last_moment = None;
        loop {
            match self.attempt(&request) {
                Ok(numbers) => {
                    self.acknowledged.extend(numbers);
                    let mut moments = lock(&self.shared.acknowledged_at);
                    moments.push(Instant::now());
                    return true;
                }
                Err(Next::Wrong(what)) => {
                    lock(&self.shared.wrong).push(format!("{} ({:?}): {what}", self.stream, self.kind));
                    return false;
                }
                Err(Next::Repeat) => self.attempts += 1,
            }
            if self.shared.stopped() && last_moment.get_or_insert_with(Instant::now).elapsed() > LAST_LIMIT {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn attempt(&mut self, request: &WriteEvents) -> Result<std::ops::RangeInclusive<i64>, Next> {
        let leader = self.shared.leader();
        let target = self.target(leader);
        let shared = Arc::clone(&self.shared);
        // A client of its own good sense leaves a node that no longer leads; the forwarded ones wait for an answer.
        let forwarded = self.kind == Kind::Forwarded;
        let moved = || shared.leader().is_some_and(|now| Some(now) != leader && now != target);
        let give_up = || !forwarded && moved();
        let mut client = self.connect(target).ok_or(Next::Repeat)?;
        let Ok(answer) = client.write(request, ANSWER_LIMIT, &give_up) else { return Err(Next::Repeat) };
        self.connection = Some((target, client));
        let count = request.events.len() as i64;
        match answer {
            Ok(written) if written.last_event_number - written.first_event_number == count - 1 => {
                Ok(written.first_event_number..=written.last_event_number)
            }
            Ok(written) => Err(Next::Wrong(format!("{count} events acknowledged as {written:?}"))),
            Err(refusal) if refusal.may_be_repeated() => Err(Next::Repeat),
            Err(refusal @ Refusal::Result { .. }) => {
                Err(Next::Wrong(format!("expected version {}: {refusal}", request.expected_version)))
            }
            Err(refusal) => Err(Next::Wrong(refusal.to_string())),
        }
    }

    /// The node to try: the leader or, to have requests forwarded, its neighbour; without a leader one after the other.
    fn target(&self, leader: Option<usize>) -> usize {
        let count = self.shared.nodes.len();
        let turn = self.attempts + self.index as usize;
        let away = |leader: usize| if self.kind == Kind::Forwarded { leader + 1 + turn % (count - 1) } else { leader };
        leader.map_or(turn, away) % count
    }

    /// The open connection to `target`, or a new one.
    fn connect(&mut self, target: usize) -> Option<Client> {
        match self.connection.take() {
            Some((node, client)) if node == target => Some(client),
            _ => Client::connect(self.shared.nodes[target].1, STATE_LIMIT).ok(),
        }
    }
}

/// Sixteen bytes that name the run, the writer and the event.
fn identifier(run: u32, writer: u32, counter: u64) -> [u8; 16] {
    let number = u128::from(run) << 96 | u128::from(writer) << 64 | u128::from(counter);
    number.to_be_bytes()
}
