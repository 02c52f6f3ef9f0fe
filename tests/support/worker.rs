//! One client: a thread that writes and reads, repeats what was not answered at another node, and keeps its history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::client::{ANY, Client as Connection, NO_STREAM, Refusal, Written, event};
use crate::support::history::{History, Moment, NEVER, Outcome, Read, Write};
use crate::support::known::{self, identifier};
use crate::support::messages::{EventRecord, WriteEvents};
use crate::support::watcher::STATE_LIMIT;
use crate::support::workload::Shared;

/// A follower answers a forwarded write at the latest so long after the leader did, whether it has the write or not (200 ms,
/// less what clocks and waiting add here).
const OWN_WRITE_WAIT: Moment = 150_000_000;

/// How long a client waits for one answer before it repeats the request elsewhere.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long it goes on with its last request when the run is over.
const LAST_LIMIT: Duration = Duration::from_secs(20);

/// Streams that all clients write to without a claim, and such that they race for with exact versions.
const SHARED_STREAMS: u32 = 3;

const READ_PAGE: i32 = 60;

/// Bytes of data of an event, at most, and when chunks are to be filled.
const DATA_MAX: usize = 300;
const HEAVY_DATA: usize = 24 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    number: u32,
    count: u32,
    random: fastrand::Rng,
    connection: Option<(usize, Connection)>,
    /// What this connection has shown: its reads must not fall behind that.
    shown: BTreeMap<String, i64>,
    /// Events named so far.
    counter: u64,
    /// Last event number in the stream that is this client's alone.
    own: i64,
    /// New streams begun.
    begun: u64,
    /// The last write was a large one: no pause.
    is_in_a_hurry: bool,
    history: History,
}

/// What came of an attempt.
enum Attempt {
    Written(Written),
    Wrong {
        current: i64,
    },
    Repeat,
    /// The server said what it must not say; told already.
    Hopeless,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, number: u32, count: u32, seed: u64) -> Client {
        let random = fastrand::Rng::with_seed(seed);
        let (shown, history) = (BTreeMap::new(), History::default());
        Client {
            shared,
            number,
            count,
            random,
            connection: None,
            shown,
            counter: 0,
            own: -1,
            begun: 0,
            is_in_a_hurry: false,
            history,
        }
    }

    /// Works until the run is over; what it did.
    pub(crate) fn run(mut self) -> History {
        while !self.shared.watcher.stopped() {
            let go_on = match self.random.u32(0..100) {
                0..35 => self.write_any(),
                35..55 => self.write_own(),
                55..68 => self.write_contended(),
                68..75 => self.write_new(),
                _ => self.read(),
            };
            if !go_on {
                break;
            }
            if !self.is_in_a_hurry {
                std::thread::sleep(Duration::from_millis(self.random.u64(8..40)));
            }
        }
        self.history
    }

    fn write_any(&mut self) -> bool {
        let stream = format!("any-{}", self.random.u32(0..SHARED_STREAMS));
        self.write(stream, ANY).is_some()
    }

    fn write_own(&mut self) -> bool {
        let stream = format!("own-{}", self.number);
        match self.write(stream.clone(), self.own) {
            Some(Outcome::Acknowledged { first, .. }) => {
                self.own = first + i64::from(self.history.writes.last().expect("just written").count) - 1;
                true
            }
            Some(Outcome::Wrong { current }) => {
                let own = self.own;
                self.shared
                    .watcher
                    .wrong(&format!("{stream} has one writer, which knows of {own}; the server says {current}"));
                false
            }
            Some(Outcome::Unknown) | None => false,
        }
    }

    fn write_contended(&mut self) -> bool {
        let stream = format!("race-{}", self.random.u32(0..SHARED_STREAMS));
        let expected = self.shared.known.floor(&stream);
        self.write(stream, expected).is_some()
    }

    /// A stream that must not be there yet; for some of them several clients race.
    fn write_new(&mut self) -> bool {
        self.begun += 1;
        let owner = if self.random.bool() { 0 } else { self.number };
        self.write(format!("new-{owner}-{}", self.begun), NO_STREAM).is_some()
    }

    /// Writes one to three events until there is an answer; `None` when there is no use in going on.
    fn write(&mut self, stream: String, expected: i64) -> Option<Outcome> {
        let heavy = self.shared.take_heavy(HEAVY_DATA);
        self.is_in_a_hurry = heavy;
        let count = if heavy { 1 } else { self.random.u32(1..4) };
        let id = identifier(self.shared.run, self.number, self.counter);
        self.counter += u64::from(count);
        let ids = (0..u128::from(count)).map(|place| id + place);
        let size = if heavy { HEAVY_DATA } else { self.random.usize(0..DATA_MAX) };
        let request = WriteEvents {
            stream: stream.clone(),
            expected_version: expected,
            events: ids.map(|id| event(id.to_be_bytes(), known::data(id, size))).collect(),
            require_master: false,
        };
        let floor = self.shared.known.floor(&stream);
        let (begin, node, outcome) = (self.shared.now(), 0, Outcome::Unknown);
        let (client, attempts) = (self.number, 0);
        let mut write = Write {
            client,
            stream,
            expected,
            id,
            count,
            begin,
            attempt_begin: begin,
            end: NEVER,
            attempts,
            node,
            outcome,
        };
        self.write_until_answered(&request, &mut write);
        self.judge(&write, floor);
        let outcome = write.outcome;
        self.history.writes.push(write);
        (outcome != Outcome::Unknown).then_some(outcome)
    }

    fn write_until_answered(&mut self, request: &WriteEvents, write: &mut Write) {
        let is_forwarded = self.random.u32(0..10) < 3;
        let mut last_moment = None;
        loop {
            let begin = Instant::now();
            (write.attempt_begin, write.attempts) = (self.shared.now(), write.attempts + 1);
            write.node = self
                .shared
                .watcher
                .target(is_forwarded && write.attempts == 1, (write.attempts + self.number) as usize);
            match self.attempt(request, write.node) {
                Attempt::Written(written) => {
                    let position = Some(written.commit_position).filter(|position| *position >= 0);
                    write.outcome = Outcome::Acknowledged { first: written.first_event_number, position };
                    write.end = self.shared.now();
                    self.shared.watcher.acknowledge(begin);
                    return;
                }
                Attempt::Wrong { current } => {
                    (write.outcome, write.end) = (Outcome::Wrong { current }, self.shared.now());
                    return;
                }
                Attempt::Repeat => {}
                Attempt::Hopeless => return,
            }
            if self.shared.watcher.stopped() && last_moment.get_or_insert_with(Instant::now).elapsed() > LAST_LIMIT {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn attempt(&mut self, request: &WriteEvents, node: usize) -> Attempt {
        let Some(mut connection) = self.connect(node) else { return Attempt::Repeat };
        let watcher = Arc::clone(&self.shared.watcher);
        let leader = watcher.leader();
        let moved = || watcher.leader().is_some_and(|now| Some(now) != leader && now != node);
        let Ok(answer) = connection.write(request, ANSWER_LIMIT, &moved) else { return Attempt::Repeat };
        self.connection = Some((node, connection));
        let count = request.events.len() as i64;
        match answer {
            Ok(written) if written.last_event_number - written.first_event_number == count - 1 => {
                Attempt::Written(written)
            }
            Ok(written) => self.hopeless(&format!("{count} events acknowledged as {written:?}")),
            Err(Refusal::Result { result: Refusal::WRONG_EXPECTED_VERSION, current_version: current, .. })
                if request.expected_version != ANY =>
            {
                Attempt::Wrong { current }
            }
            Err(refusal) if refusal.may_be_repeated() => Attempt::Repeat,
            Err(Refusal::Refused(text)) if self.shared.disk_may_be_full() && text.contains("disk") => {
                self.shared.refused(&text);
                std::thread::sleep(Duration::from_millis(30));
                Attempt::Repeat
            }
            Err(refusal) => self.hopeless(&format!("{} at node {}: {refusal}", request.stream, node + 1)),
        }
    }

    fn hopeless(&self, what: &str) -> Attempt {
        self.shared.watcher.wrong(&format!("client {}: {what}", self.number));
        Attempt::Hopeless
    }

    /// Holds an answered write against what was known when it began.
    fn judge(&mut self, write: &Write, floor: i64) {
        match write.outcome {
            Outcome::Acknowledged { first, .. } => {
                if first <= floor {
                    self.shared.watcher.wrong(&format!("{write}: number {floor} was seen before it began"));
                }
                if write.expected != ANY && first != write.expected + 1 {
                    self.shared.watcher.wrong(&format!("{write}: not behind the version that it expected"));
                }
                let ids = (0..u128::from(write.count)).map(|place| write.id + place);
                if let Err(what) = self.shared.known.enter(&write.stream, first, ids) {
                    self.shared.watcher.wrong(&format!("{write}: {what}"));
                }
                // A node that forwards keeps the answer back until it has the write itself, but not for ever: behind a
                // slow answer, or one to a repeat, its own reads may lag.
                if write.attempts == 1 && write.end.saturating_sub(write.begin) < OWN_WRITE_WAIT {
                    self.show(&write.stream, first + i64::from(write.count) - 1);
                }
            }
            Outcome::Wrong { current } => {
                // The version was seen when it was claimed, so the stream has grown since.
                if current <= write.expected || current < floor {
                    self.shared
                        .watcher
                        .wrong(&format!("{write}: refused, and the stream had reached {floor} when it began"));
                }
            }
            Outcome::Unknown => {}
        }
    }

    fn show(&mut self, stream: &str, number: i64) {
        match self.shown.get_mut(stream) {
            Some(last) => *last = number.max(*last),
            None => drop(self.shown.insert(stream.to_owned(), number)),
        }
    }

    fn read(&mut self) -> bool {
        let stream = match self.random.u32(0..3) {
            0 => format!("any-{}", self.random.u32(0..SHARED_STREAMS)),
            1 => format!("race-{}", self.random.u32(0..SHARED_STREAMS)),
            _ => format!("own-{}", self.random.u32(1..=self.count)),
        };
        let require_master = self.random.bool();
        let target = if require_master { self.shared.watcher.leader() } else { None };
        let node = target.unwrap_or_else(|| self.random.usize(0..self.shared.watcher.count()));
        let floor = self.shared.known.floor(&stream);
        let from = if self.random.u32(0..20) == 0 { 0 } else { (floor - self.random.i64(0..30)).max(0) };
        let Some(mut connection) = self.connect(node) else { return true };
        let begin = self.shared.now();
        let Ok(answer) = connection.read_page(&stream, from, READ_PAGE, require_master, ANSWER_LIMIT) else {
            return true;
        };
        let end = self.shared.now();
        self.connection = Some((node, connection));
        let page = match answer {
            Ok(page) => page,
            Err(refusal) if refusal.may_be_repeated() => return true,
            Err(refusal) => {
                self.shared.watcher.wrong(&format!("reading {stream} at node {}: {refusal}", node + 1));
                return false;
            }
        };
        let (client, count, is_end) = (self.number, page.events.len() as i64, page.is_end_of_stream);
        let read = Read { client, stream, node, require_master, begin, end, from, count, is_end };
        if let Err(what) = self.judge_read(&read, &page.events, floor) {
            self.shared.watcher.wrong(&format!("{read}: {what}"));
        }
        self.history.reads.push(read);
        true
    }

    fn judge_read(&mut self, read: &Read, events: &[EventRecord], floor: i64) -> Result<(), String> {
        let mut ids = Vec::with_capacity(events.len());
        for (place, event) in (read.from..).zip(events) {
            if event.event_number != place || event.stream != read.stream {
                return Err(format!("{} of {} where {place} should be", event.event_number, event.stream));
            }
            let id = event.event_id.as_slice().try_into().map(u128::from_be_bytes).map_err(|_| "no id".to_owned())?;
            if !known::is_data_of(id, &event.data) {
                return Err(format!("{} holds other data than was written", known::name(id)));
            }
            ids.push(id);
        }
        self.shared.known.enter(&read.stream, read.from, ids)?;
        let last = read.from + read.count - 1;
        if !read.is_end && read.count == 0 {
            return Err("neither events nor an end".to_owned());
        }
        if read.is_end && read.require_master && last < floor {
            return Err(format!("number {floor} had been seen before it began"));
        }
        let shown = self.shown.get(&read.stream).copied().unwrap_or(-1);
        if read.is_end && last < shown {
            return Err(format!("the same connection has shown number {shown} before"));
        }
        if read.count > 0 {
            self.show(&read.stream, last);
        }
        Ok(())
    }

    /// The open connection to `node`, or a new one.
    fn connect(&mut self, node: usize) -> Option<Connection> {
        match self.connection.take() {
            Some((now, connection)) if now == node => Some(connection),
            _ => {
                self.shown.clear();
                Connection::connect(self.shared.watcher.tcp(node), STATE_LIMIT).ok()
            }
        }
    }
}

/// The moments between which something is worth printing around `moment`.
pub(crate) fn around(moment: Moment) -> (Moment, Moment) {
    (moment.saturating_sub(2_000_000_000), moment.saturating_add(2_000_000_000))
}
