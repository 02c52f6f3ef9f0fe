//! What the connections do: which request comes next, how it looks on the wire, and what an answer means for it. The
//! load is the same for all connections; each has its own place in it, so that nothing is shared while it runs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::Kind;
use crate::size::Sizes;
use crate::slots::Correlation;
use crate::wire;
use crate::wire::{EventTemplate, PageAnswer, WriteAnswer};

/// Results of writes after which the same request is worth another try.
const TIMEOUTS: std::ops::RangeInclusive<u64> = 1..=3;
const WRONG_EXPECTED_VERSION: u64 = 4;
/// Of the streams that are new with each write, so many are kept for reading back, spread over all.
const FRESH_KEPT_MAX: usize = 4096;
/// A connection's events are numbered from its own number times this.
const SEQUENCES: u64 = 1 << 40;

/// What a write says of its stream's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Expected {
    /// No check.
    Any,
    /// The number of the last event before; each stream is then written by one connection only.
    Exact,
    /// Each write begins a stream.
    NoStream,
}

/// Turns moments of this process into nanoseconds of Unix time, which events carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Instant,
    unix: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { base: Instant::now(), unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    pub(crate) fn nanoseconds(&self, at: Instant) -> u64 {
        let since = self.unix + at.saturating_duration_since(self.base);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// How events are written.
#[derive(Debug)]
pub(crate) struct Writes {
    /// Of every stream's name; new in each run.
    pub prefix: String,
    pub streams: u32,
    /// In each write.
    pub events: u32,
    pub sizes: Sizes,
    pub metadata: u32,
    pub expected: Expected,
    pub require_leader: bool,
    pub template: EventTemplate,
    pub clock: Clock,
}

impl Writes {
    /// Appends the name of stream `number`, always of the same length.
    pub(crate) fn stream_name(&self, number: u64) -> Vec<u8> {
        let mut name = self.prefix.clone().into_bytes();
        let digits = if self.expected == Expected::NoStream { 16 } else { 7 };
        name.extend_from_slice(format!("{number:0digits$}").as_bytes());
        name
    }

    /// The nanoseconds of Unix time at which the write of an event began; none for an event of another run.
    pub(crate) fn began(&self, stream: &[u8], id: &[u8]) -> Option<u64> {
        let time = id.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))?;
        stream.starts_with(self.prefix.as_bytes()).then_some(time)
    }

    fn payload_bytes(&self, sequence: u64) -> u64 {
        let events = u64::from(self.events);
        let data = match self.sizes {
            Sizes::One(size) => events * u64::from(size),
            _ => (sequence..sequence + events).map(|number| u64::from(self.sizes.of(number))).sum(),
        };
        data + events * u64::from(self.metadata)
    }
}

/// Which way pages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// One stream, from its first event on.
    Forward,
    /// One stream, from its last event back.
    Backward,
    /// The all-stream, from the log's start on.
    All,
    /// The all-stream, from the log's end back.
    AllBackward,
}

impl Way {
    pub(crate) fn is_all(self) -> bool {
        matches!(self, Self::All | Self::AllBackward)
    }

    pub(crate) fn command(self) -> u8 {
        match self {
            Self::Forward => wire::READ_FORWARD,
            Self::Backward => wire::READ_BACKWARD,
            Self::All => wire::READ_ALL_FORWARD,
            Self::AllBackward => wire::READ_ALL_BACKWARD,
        }
    }

    /// Where the first page begins when nothing is known.
    pub(crate) fn start(self) -> (i64, i64) {
        match self {
            Self::Forward | Self::All => (0, 0),
            Self::Backward | Self::AllBackward => (-1, -1),
        }
    }
}

/// How pages are read.
#[derive(Debug)]
pub(crate) struct Reads {
    pub way: Way,
    /// Empty for the all-stream.
    pub stream: Vec<u8>,
    pub page: u32,
    /// Where each page of the span begins. Empty: a connection learns it from the page before, one page at a time.
    pub starts: Vec<(i64, i64)>,
    pub require_leader: bool,
}

impl Reads {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, correlation: Correlation, from: (i64, i64)) {
        let (command, leader) = (self.way.command(), self.require_leader);
        if self.way.is_all() {
            wire::read_all(out, command, correlation, from, self.page, leader);
        } else {
            wire::read_stream(out, command, correlation, &self.stream, from.0, self.page, leader);
        }
    }
}

/// What all connections do.
#[derive(Debug)]
pub(crate) struct Load {
    pub writes: Option<Writes>,
    pub reads: Option<Reads>,
    /// Of 100 requests, where there are both.
    pub writes_percent: u32,
}

/// One request, from the time it is due to its answer; enough to send it again as the same request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub kind: Kind,
    /// From which its latency counts.
    pub intended: Instant,
    /// When it was last sent.
    pub sent: Instant,
    /// Number of its first event, or of the read.
    pub sequence: u64,
    stream: usize,
    expected: i64,
    from: (i64, i64),
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done {
        events: u64,
        payload_bytes: u64,
    },
    /// The server ran out of time; the same request may be sent again.
    Again,
    Refused,
}

/// One stream as the connection that writes it knows it.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub stream: Vec<u8>,
    /// Events in acknowledged writes.
    pub acknowledged: u64,
    /// The highest event number in an acknowledgement, -1 before the first.
    pub last: i64,
    /// Exact versions: what the next write expects, how many wait for an answer, and whether one was refused.
    next: i64,
    waiting: u32,
    refused: bool,
}

impl Written {
    fn new(stream: Vec<u8>) -> Self {
        Self { stream, acknowledged: 0, last: -1, next: -1, waiting: 0, refused: false }
    }
}

/// One connection's place in the load.
#[derive(Debug)]
pub(crate) struct Place {
    written: Vec<Written>,
    turn: usize,
    sequence: u64,
    /// Streams that are new with each write: a part of those acknowledged, and the distance between those kept.
    fresh: Vec<u64>,
    fresh_count: u64,
    fresh_step: u64,
    page: usize,
    /// Where the next page begins, when pages are read one after the other; none while one is on its way.
    chain: Option<(i64, i64)>,
    random: fastrand::Rng,
}

impl Place {
    /// The place of connection `index` of `count`.
    pub(crate) fn new(load: &Load, index: usize, count: usize) -> Self {
        let mut written = Vec::new();
        if let Some(writes) = load.writes.as_ref().filter(|writes| writes.expected != Expected::NoStream) {
            let own = (index as u64..u64::from(writes.streams)).step_by(count);
            written.extend(own.map(|number| Written::new(writes.stream_name(number))));
            if written.is_empty() {
                written.push(Written::new(writes.stream_name(index as u64 % u64::from(writes.streams))));
            }
        }
        let pages = load.reads.as_ref().map_or(0, |reads| reads.starts.len());
        Self {
            written,
            turn: 0,
            sequence: (index as u64 + 1) * SEQUENCES,
            fresh: Vec::new(),
            fresh_count: 0,
            fresh_step: 1,
            page: pages * index / count.max(1),
            chain: load.reads.as_ref().map(|reads| reads.way.start()),
            random: fastrand::Rng::with_seed(index as u64),
        }
    }

    /// The place of a connection that makes no requests.
    pub(crate) fn outside() -> Self {
        Self::new(&Load { writes: None, reads: None, writes_percent: 0 }, 0, 1)
    }

    /// Of which kind the next request would be.
    pub(crate) fn next_kind(&mut self, load: &Load) -> Kind {
        let writes = match (&load.writes, &load.reads) {
            (Some(_), Some(_)) => self.random.u32(0..100) < load.writes_percent,
            (writes, _) => writes.is_some(),
        };
        if writes { Kind::Write } else { Kind::Read }
    }

    /// The next request, unless there is none at this time.
    pub(crate) fn begin(&mut self, load: &Load, intended: Instant, now: Instant) -> Option<Request> {
        match (&load.writes, &load.reads) {
            (Some(writes), Some(reads)) => match self.next_kind(load) {
                Kind::Write => self.begin_write(writes, intended, now),
                Kind::Read | Kind::Delivery => self.begin_read(reads, intended, now),
            },
            (Some(writes), None) => self.begin_write(writes, intended, now),
            (None, Some(reads)) => self.begin_read(reads, intended, now),
            (None, None) => None,
        }
    }

    fn begin_write(&mut self, writes: &Writes, intended: Instant, now: Instant) -> Option<Request> {
        let (mut stream, mut expected) = (0, wire::ANY);
        match writes.expected {
            Expected::NoStream => expected = wire::NO_STREAM,
            Expected::Any => {
                stream = self.turn;
                self.turn = (self.turn + 1) % self.written.len();
            }
            Expected::Exact => {
                stream = (0..self.written.len())
                    .map(|step| (self.turn + step) % self.written.len())
                    .find(|stream| !self.written[*stream].refused)?;
                self.turn = (stream + 1) % self.written.len();
                let written = &mut self.written[stream];
                expected = written.next;
                written.next += i64::from(writes.events);
                written.waiting += 1;
            }
        }
        let sequence = self.sequence;
        self.sequence += u64::from(writes.events);
        Some(Request { kind: Kind::Write, intended, sent: now, sequence, stream, expected, from: (0, 0) })
    }

    fn begin_read(&mut self, reads: &Reads, intended: Instant, now: Instant) -> Option<Request> {
        let from = if reads.starts.is_empty() {
            self.chain.take()?
        } else {
            let from = reads.starts[self.page % reads.starts.len()];
            self.page += 1;
            from
        };
        let sequence = self.sequence;
        self.sequence += 1;
        Some(Request { kind: Kind::Read, intended, sent: now, sequence, stream: 0, expected: 0, from })
    }

    /// Appends the request's frame.
    pub(crate) fn encode(&self, load: &Load, request: &Request, correlation: Correlation, out: &mut Vec<u8>) {
        match request.kind {
            Kind::Write => {
                let writes = load.writes.as_ref().expect("a load with writes");
                let fresh;
                let stream = if writes.expected == Expected::NoStream {
                    fresh = writes.stream_name(request.sequence);
                    &fresh
                } else {
                    &self.written[request.stream].stream
                };
                let leader = writes.require_leader;
                wire::write_events(out, correlation, stream, request.expected, leader, |out| {
                    events(writes, request, out);
                });
            }
            Kind::Read | Kind::Delivery => {
                load.reads.as_ref().expect("a load with reads").encode(out, correlation, request.from);
            }
        }
    }

    pub(crate) fn wrote(&mut self, load: &Load, request: &Request, answer: &WriteAnswer) -> Verdict {
        if TIMEOUTS.contains(&answer.result) {
            return Verdict::Again;
        }
        let writes = load.writes.as_ref().expect("a load with writes");
        let events = u64::from(writes.events);
        if writes.expected == Expected::NoStream {
            if answer.result != 0 {
                return Verdict::Refused;
            }
            self.keep_fresh(request.sequence);
            return Verdict::Done { events, payload_bytes: writes.payload_bytes(request.sequence) };
        }
        let written = &mut self.written[request.stream];
        if answer.result == 0 {
            written.acknowledged += events;
            written.last = written.last.max(answer.last);
        } else if answer.result == WRONG_EXPECTED_VERSION {
            written.refused = true;
            written.last = written.last.max(answer.current);
        }
        if writes.expected == Expected::Exact {
            written.waiting -= 1;
            if written.waiting == 0 && written.refused {
                // All that were on their way have been judged: go on from where the stream is.
                (written.refused, written.next) = (false, written.last);
            }
        }
        match answer.result {
            0 => Verdict::Done { events, payload_bytes: writes.payload_bytes(request.sequence) },
            _ => Verdict::Refused,
        }
    }

    pub(crate) fn read(&mut self, load: &Load, request: &Request, answer: &PageAnswer) -> Verdict {
        let reads = load.reads.as_ref().expect("a load with reads");
        let over = answer.events == 0 || answer.next.0 < 0 || (answer.end_of_stream && reads.way != Way::AllBackward);
        if reads.starts.is_empty() {
            // At the end it begins again.
            self.chain = Some(if over { reads.way.start() } else { answer.next });
        }
        // The page behind the last one is part of reading a chain, and no error.
        let empty = answer.events == 0 && (!reads.starts.is_empty() || request.from == reads.way.start());
        if answer.result != 0 || empty {
            return Verdict::Refused;
        }
        Verdict::Done { events: answer.events, payload_bytes: answer.payload_bytes }
    }

    fn keep_fresh(&mut self, sequence: u64) {
        self.fresh_count += 1;
        if self.fresh_count.is_multiple_of(self.fresh_step) {
            self.fresh.push(sequence);
        }
        if self.fresh.len() >= FRESH_KEPT_MAX {
            let mut index = 0;
            self.fresh.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.fresh_step *= 2;
        }
    }

    /// Acknowledged streams of their own that [`Place::into_acknowledged`] does not name.
    pub(crate) fn fresh_left_out(&self) -> u64 {
        self.fresh_count - self.fresh.len() as u64
    }

    /// What was acknowledged, for reading it back.
    pub(crate) fn into_acknowledged(self, load: &Load) -> Vec<Acknowledged> {
        let Some(writes) = &load.writes else { return Vec::new() };
        let events = u64::from(writes.events);
        let fresh = self.fresh.into_iter().map(|sequence| Acknowledged {
            stream: writes.stream_name(sequence),
            events,
            last: i64::from(writes.events) - 1,
        });
        let written = self.written.into_iter().filter(|written| written.acknowledged != 0);
        let written = written.map(|Written { stream, acknowledged, last, .. }| Acknowledged {
            stream,
            events: acknowledged,
            last,
        });
        written.chain(fresh).collect()
    }
}

/// What must be found in a stream after the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    pub stream: Vec<u8>,
    pub events: u64,
    /// The highest event number acknowledged.
    pub last: i64,
}

fn events(writes: &Writes, request: &Request, out: &mut Vec<u8>) {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&writes.clock.nanoseconds(request.intended).to_le_bytes());
    for number in request.sequence..request.sequence + u64::from(writes.events) {
        id[..8].copy_from_slice(&number.to_le_bytes());
        writes.template.event(out, &id, writes.sizes.of(number));
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
