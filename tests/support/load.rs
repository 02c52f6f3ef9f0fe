//! Writers that keep every acknowledgement: a load that is fast and simple, to measure pauses with.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::{ANY, Client, NO_STREAM, Refusal, event};
use crate::support::cluster::Cluster;
use crate::support::messages::WriteEvents;
use crate::support::watcher::{STATE_LIMIT, Watcher};

/// How long a writer waits for one answer before it repeats the request elsewhere.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

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

/// The running load.
#[derive(Debug)]
pub(crate) struct Load {
    watcher: Arc<Watcher>,
    watchers: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<Writer>>,
}

impl Load {
    /// Starts `count` writers with events of about `data_bytes`.
    pub(crate) fn start(cluster: &Cluster, run: u32, first: u32, count: u32, data_bytes: usize) -> Load {
        let (watcher, watchers) = Watcher::start(cluster);
        let writers = (first..first + count).map(|index| {
            let mut writer = Writer::new(Arc::clone(&watcher), run, index, data_bytes);
            std::thread::spawn(move || {
                writer.run();
                writer
            })
        });
        let writers = writers.collect();
        Load { watcher, watchers, writers }
    }

    /// Ends the load: what each writer wrote, or what went wrong on the way.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<Writer>> {
        self.watcher.stop();
        let writers: Vec<Writer> = self.writers.into_iter().map(|thread| thread.join().expect("a writer")).collect();
        self.watchers.into_iter().for_each(|thread| thread.join().expect("a watcher"));
        self.watcher.check()?;
        Ok(writers)
    }

    /// What its writers know of the nodes and of what was acknowledged.
    pub(crate) fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

/// One thread that writes, and the record of what it wrote.
#[derive(Debug)]
pub(crate) struct Writer {
    watcher: Arc<Watcher>,
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
    fn new(watcher: Arc<Watcher>, run: u32, index: u32, data_bytes: usize) -> Writer {
        let kind = [Kind::Any, Kind::Exact, Kind::Shared, Kind::Forwarded][index as usize % 4];
        let stream = if kind == Kind::Shared { SHARED_STREAM.to_owned() } else { format!("fault-{index}") };
        let (acknowledged, connection) = (Vec::new(), None);
        Writer { watcher, run, index, kind, data_bytes, stream, sent: 0, acknowledged, connection, attempts: 0 }
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
        while !self.watcher.stopped() && self.write_next() {}
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
            let begin = Instant::now();
            match self.attempt(&request) {
                Ok(numbers) => {
                    self.acknowledged.extend(numbers);
                    self.watcher.acknowledge(begin);
                    return true;
                }
                Err(Next::Wrong(what)) => {
                    self.watcher.wrong(&format!("{} ({:?}): {what}", self.stream, self.kind));
                    return false;
                }
                Err(Next::Repeat) => self.attempts += 1,
            }
            if self.watcher.stopped() && last_moment.get_or_insert_with(Instant::now).elapsed() > LAST_LIMIT {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn attempt(&mut self, request: &WriteEvents) -> Result<std::ops::RangeInclusive<i64>, Next> {
        // A client of its own good sense leaves a node that no longer leads; the forwarded ones wait for an answer.
        let forwarded = self.kind == Kind::Forwarded;
        let watcher = Arc::clone(&self.watcher);
        let leader = watcher.leader();
        let target = watcher.target(forwarded, self.attempts + self.index as usize);
        let moved = || watcher.leader().is_some_and(|now| Some(now) != leader && now != target);
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

    /// The open connection to `target`, or a new one.
    fn connect(&mut self, target: usize) -> Option<Client> {
        match self.connection.take() {
            Some((node, client)) if node == target => Some(client),
            _ => Client::connect(self.watcher.tcp(target), STATE_LIMIT).ok(),
        }
    }
}

/// Sixteen bytes that name the run, the writer and the event.
fn identifier(run: u32, writer: u32, counter: u64) -> [u8; 16] {
    let number = u128::from(run) << 96 | u128::from(writer) << 64 | u128::from(counter);
    number.to_be_bytes()
}
