//! The judgement over a whole run: the history of all clients against the log that the nodes hold in the end.
//!
//! Writes to a stream are totally ordered by event number, so linearizability is checked directly, without a search:
//! an acknowledged write lies where it said, the order by number never contradicts the order in time, an exact version
//! is the one before, a write that was refused for its version is nowhere, a read with `require_master` reaches all that
//! was acknowledged before it began. Every read and every subscription saw a piece of the final order.
//!
//! The clients hold each answer against [`Known`] while the run goes on; this here knows nothing of that but the
//! history, so a mistake in one is not hidden by the other. [`self_test`] plants violations and wants each to be found.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use anyhow::{Context as _, bail, ensure};

use crate::support::client::{ANY, Client};
use crate::support::cluster::Cluster;
use crate::support::history::{History, Moment, NEVER, Outcome, Write};
use crate::support::known::{self, Known, name};
use crate::support::worker::around;

/// Events in a page of the whole log, and of a stream.
const PAGE: i32 = 1_000;
const STREAM_PAGE: i32 = 500;

const CONNECT_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// An event in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Commit and prepare position.
    pub(crate) place: (i64, i64),
    pub(crate) stream: String,
    pub(crate) number: i64,
    pub(crate) id: u128,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: usize,
    pub(crate) refused: usize,
    pub(crate) unanswered: usize,
    pub(crate) events: usize,
    pub(crate) streams: usize,
    pub(crate) reads: usize,
    pub(crate) leader_reads: usize,
    pub(crate) sessions: usize,
    pub(crate) delivered: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes acknowledged, {} refused for their version, {} without an answer; {} events in {} streams, none \
             lost, none twice; {} reads ({} as leader) linearizable; {} events told to {} subscriptions in order",
            self.acknowledged,
            self.refused,
            self.unanswered,
            self.events,
            self.streams,
            self.reads,
            self.leader_reads,
            self.delivered,
            self.sessions
        )
    }
}

/// Reads the whole log at every node, which must show the same, and every stream at every node.
pub(crate) fn log_at_all(cluster: &Cluster, known: &Known) -> anyhow::Result<Vec<Entry>> {
    let (first, others) = cluster.nodes.split_first().context("no nodes")?;
    let mut log = Vec::new();
    each_entry(first.ext_tcp(), |entry| {
        log.push(entry);
        Ok(())
    })
    .with_context(|| format!("at {}", first.ip))?;
    for node in others {
        same(&log, node.ext_tcp()).with_context(|| format!("the log at {} and at {}", first.ip, node.ip))?;
    }
    let rows = rows(&log)?;
    for node in &cluster.nodes {
        let mut client = Client::connect(node.ext_tcp(), CONNECT_LIMIT)?;
        for stream in known.names() {
            let row = rows.get(stream.as_str()).map(Vec::as_slice).unwrap_or_default();
            stream_at(&mut client, &stream, row).with_context(|| format!("{stream} at {}", node.ip))?;
        }
    }
    Ok(log)
}

/// Reads a stream page by page, however long it is: it must have the events of `row`, with the data that they were given.
fn stream_at(client: &mut Client, stream: &str, row: &[u128]) -> anyhow::Result<()> {
    let mut found = 0;
    loop {
        let page = match client.read(stream, found as i64, STREAM_PAGE)? {
            Ok(page) => page,
            Err(refusal) => bail!("reading from {found}: {refusal}"),
        };
        for event in &page.events {
            let (number, id) = (event.event_number, id_of(&event.event_id));
            ensure!(number == found as i64, "number {number} at place {found}");
            ensure!(row.get(found) == Some(&id), "event {found} is {}, in the log {:?}", name(id), row.get(found));
            ensure!(known::is_data_of(id, &event.data), "event {found} holds other data than was written");
            found += 1;
        }
        if page.is_end_of_stream {
            ensure!(found == row.len(), "{found} events, in the log {}", row.len());
            return Ok(());
        }
        ensure!(!page.events.is_empty(), "neither events nor an end at {found}");
    }
}

fn id_of(bytes: &[u8]) -> u128 {
    bytes.try_into().map(u128::from_be_bytes).unwrap_or_default()
}

/// Reads the whole log at a node, page by page, and shows it entry by entry.
fn each_entry(address: std::net::SocketAddr, mut show: impl FnMut(Entry) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut client = Client::connect_as_admin(address, CONNECT_LIMIT)?;
    let mut from = (0, 0);
    loop {
        let (events, next) = client.read_all(from, PAGE)?;
        if events.is_empty() {
            return Ok(());
        }
        ensure!(next > from, "the page after {from:?} is {next:?}");
        from = next;
        for entry in events {
            let event = entry.event.context("an entry without an event")?;
            let (place, id) = ((entry.commit_position, entry.prepare_position), id_of(&event.event_id));
            show(Entry { place, stream: event.stream, number: event.event_number, id })?;
        }
    }
}

/// The log at `address` is `log`, no more and no less.
fn same(log: &[Entry], address: std::net::SocketAddr) -> anyhow::Result<()> {
    let mut count = 0;
    each_entry(address, |entry| {
        ensure!(log.get(count) == Some(&entry), "part: {:?} and {entry:?}", log.get(count));
        count += 1;
        Ok(())
    })?;
    ensure!(count == log.len(), "have {} and {count} events", log.len());
    Ok(())
}

type Rows<'a> = HashMap<&'a str, Vec<u128>>;

/// The streams, each in its order; without those of the system.
fn rows(log: &[Entry]) -> anyhow::Result<Rows<'_>> {
    let mut rows: Rows<'_> = HashMap::new();
    let mut last = (-1, -1);
    for entry in log {
        ensure!(entry.place > last, "the log goes back from {last:?} to {:?}", entry.place);
        last = entry.place;
        if entry.stream.starts_with('$') {
            continue;
        }
        let row = rows.entry(&entry.stream).or_default();
        ensure!(entry.number == row.len() as i64, "{}: {} after {} events", entry.stream, entry.number, row.len());
        row.push(entry.id);
    }
    Ok(rows)
}

/// Judges `history` by `log`.
///
/// # Errors
/// The first violation, with what happened around it.
pub(crate) fn judge(history: &History, known: &Known, log: &[Entry], run: u32) -> anyhow::Result<Counts> {
    let rows = rows(log)?;
    let mut counts = Counts { events: rows.values().map(Vec::len).sum(), streams: rows.len(), ..Counts::default() };
    nothing_twice(log, history, run)?;
    seen_is_there(known, &rows)?;
    let places: HashMap<u128, &Entry> = log.iter().map(|entry| (entry.id, entry)).collect();
    for write in &history.writes {
        landed(write, &rows, &places).with_context(|| context(history, &write.stream, write.begin))?;
        match write.outcome {
            Outcome::Acknowledged { .. } => counts.acknowledged += 1,
            Outcome::Wrong { .. } => counts.refused += 1,
            Outcome::Unknown => counts.unanswered += 1,
        }
    }
    order_in_time(history, &places)?;
    reads(history, &rows, &places)?;
    counts.reads = history.reads.len();
    counts.leader_reads = history.reads.iter().filter(|read| read.require_master).count();
    counts.sessions = history.sessions.len();
    counts.delivered = sessions(history, log)?;
    Ok(counts)
}

fn context(history: &History, stream: &str, moment: Moment) -> String {
    let (from, to) = around(moment);
    format!("the history of {stream} around it:\n{}\n", history.around(stream, from, to, 40))
}

/// No event twice, none that nobody wrote.
fn nothing_twice(log: &[Entry], history: &History, run: u32) -> anyhow::Result<()> {
    let mut ids = HashSet::with_capacity(log.len());
    let mut last_sent: HashMap<u32, u64> = HashMap::new();
    for write in &history.writes {
        let end = write.id as u64 + u64::from(write.count);
        last_sent.entry(write.client).and_modify(|last| *last = end.max(*last)).or_insert(end);
    }
    for entry in log.iter().filter(|entry| !entry.stream.starts_with('$')) {
        let (client, counter) = ((entry.id >> 64) as u32, entry.id as u64);
        let ours = entry.id >> 96 == u128::from(run | 1) && last_sent.get(&client).is_some_and(|end| counter < *end);
        ensure!(ours, "{} {} is an event that nobody wrote: {:032x}", entry.stream, entry.number, entry.id);
        if !ids.insert(entry.id) {
            let copies: Vec<_> = log.iter().filter(|other| other.id == entry.id).collect();
            let write =
                history.writes.iter().find(|write| (write.id..write.id + u128::from(write.count)).contains(&entry.id));
            let begin = write.map_or(0, |write| write.begin);
            return Err(anyhow::anyhow!("{} is there twice: {copies:?}, written by {write:?}", name(entry.id))
                .context(context(history, &entry.stream, begin)));
        }
    }
    Ok(())
}

/// What any client was shown at some time is there now.
fn seen_is_there(known: &Known, rows: &Rows<'_>) -> anyhow::Result<()> {
    for stream in known.names() {
        let row = rows.get(stream.as_str()).map(Vec::as_slice).unwrap_or_default();
        for (number, id) in known.row(&stream).into_iter().enumerate().filter(|(_, id)| *id != 0) {
            let now = row.get(number).copied().unwrap_or_default();
            ensure!(now == id, "{stream} {number} was seen as {} and is {} in the end", name(id), name(now));
        }
    }
    Ok(())
}

/// An acknowledged write lies where it said; a refused one nowhere; one without an answer whole or not at all.
fn landed(write: &Write, rows: &Rows<'_>, places: &HashMap<u128, &Entry>) -> anyhow::Result<()> {
    let ids: Vec<u128> = (0..u128::from(write.count)).map(|place| write.id + place).collect();
    let found: Vec<&&Entry> = ids.iter().filter_map(|id| places.get(id)).collect();
    let numbers: Vec<i64> = found.iter().map(|entry| entry.number).collect();
    match write.outcome {
        Outcome::Acknowledged { first, position } => {
            let row = rows.get(write.stream.as_str()).map(Vec::as_slice).unwrap_or_default();
            let from = usize::try_from(first).unwrap_or(usize::MAX);
            let there = row.get(from..from.saturating_add(ids.len()));
            ensure!(there == Some(&ids), "{write}: not there; its events are at {numbers:?}");
            let last = found.last().expect("there").place.0;
            ensure!(position.is_none_or(|said| said == last), "{write}: it lies at log position {last}");
            ensure!(write.expected == ANY || first == write.expected + 1, "{write}: against its expected version");
        }
        Outcome::Wrong { .. } => ensure!(found.is_empty(), "{write}: refused, and yet there as {numbers:?}"),
        Outcome::Unknown => {
            let whole = found.is_empty() || numbers == (numbers[0]..numbers[0] + ids.len() as i64).collect::<Vec<_>>();
            ensure!(whole, "{write}: in part there, as {numbers:?}");
        }
    }
    Ok(())
}

/// The writes of each stream by their place in it, those that are there.
fn by_place<'a>(history: &'a History, places: &HashMap<u128, &Entry>) -> BTreeMap<&'a str, Vec<(i64, &'a Write)>> {
    let mut streams: BTreeMap<&str, Vec<(i64, &Write)>> = BTreeMap::new();
    for write in &history.writes {
        if let Some(entry) = places.get(&write.id) {
            streams.entry(&write.stream).or_default().push((entry.number, write));
        }
    }
    streams.values_mut().for_each(|writes| writes.sort_by_key(|(number, _)| *number));
    streams
}

/// Whatever ended before another began is before it in the stream.
fn order_in_time(history: &History, places: &HashMap<u128, &Entry>) -> anyhow::Result<()> {
    for (stream, writes) in by_place(history, places) {
        // The earliest end of those that lie further behind.
        let mut earliest: Option<&Write> = None;
        for (_, write) in writes.iter().rev() {
            if let Some(later) = earliest.filter(|later| later.end < write.begin) {
                let found = anyhow::anyhow!("out of order in time:\n{write}\nlies before\n{later}");
                return Err(found.context(context(history, stream, write.begin)));
            }
            if earliest.is_none_or(|later| write.end < later.end) {
                earliest = Some(write);
            }
        }
    }
    Ok(())
}

/// Reads saw a piece of the final order, nothing that was not sent yet, and at the leader all that had been acknowledged.
fn reads(history: &History, rows: &Rows<'_>, places: &HashMap<u128, &Entry>) -> anyhow::Result<()> {
    let floors = floors(history);
    let begins: HashMap<(&str, i64), Moment> = by_place(history, places)
        .into_iter()
        .flat_map(|(stream, writes)| writes.into_iter().map(move |(number, write)| ((stream, number), write.begin)))
        .collect();
    for read in &history.reads {
        let end = read.from + read.count;
        let found = || context(history, &read.stream, read.begin);
        let length = rows.get(read.stream.as_str()).map_or(0, Vec::len) as i64;
        ensure!(read.count == 0 || end <= length, "{read}: only {length} are there in the end\n{}", found());
        let begin = begins.get(&(read.stream.as_str(), end - 1)).copied().unwrap_or_default();
        ensure!(read.count == 0 || begin <= read.end, "{read}: it saw what was not sent yet\n{}", found());
        if read.require_master && read.is_end {
            let floor = floor_at(floors.get(read.stream.as_str()), read.begin);
            ensure!(end > floor, "{read}: number {floor} had been acknowledged before it began\n{}", found());
        }
    }
    Ok(())
}

/// For each stream the moments at which its largest acknowledged number grew.
fn floors(history: &History) -> HashMap<&str, Vec<(Moment, i64)>> {
    let mut floors: HashMap<&str, Vec<(Moment, i64)>> = HashMap::new();
    for write in &history.writes {
        if let Outcome::Acknowledged { first, .. } = write.outcome {
            floors.entry(&write.stream).or_default().push((write.end, first + i64::from(write.count) - 1));
        }
    }
    for steps in floors.values_mut() {
        steps.sort_unstable();
        let mut largest = -1;
        for step in steps.iter_mut() {
            largest = largest.max(step.1);
            step.1 = largest;
        }
    }
    floors
}

fn floor_at(steps: Option<&Vec<(Moment, i64)>>, moment: Moment) -> i64 {
    let steps = steps.map(Vec::as_slice).unwrap_or_default();
    let before = steps.partition_point(|(end, _)| *end < moment);
    if before == 0 { -1 } else { steps[before - 1].1 }
}

/// Each subscription was told a piece of the log without a gap, from where it was confirmed; how many events in all.
fn sessions(history: &History, log: &[Entry]) -> anyhow::Result<usize> {
    let mut delivered = 0;
    for session in &history.sessions {
        let start = log.partition_point(|entry| entry.place.0 <= session.confirmed);
        let name = format!("a subscription at node {}, confirmed at {}", session.node + 1, session.confirmed);
        for (index, place) in session.positions.iter().enumerate() {
            let wanted = log.get(start + index).map(|entry| entry.place);
            ensure!(wanted == Some(*place), "{name}: event {index} was {place:?}, in the log it is {wanted:?}");
        }
        let left = log.len() - start - session.positions.len();
        ensure!(!session.is_open || left == 0, "{name}: it was open in the end and {left} events short");
        delivered += session.positions.len();
    }
    Ok(delivered)
}

/// Plants violations in a small history and wants each to be found, by its words.
///
/// # Errors
/// When one is not found, or the sound history is not believed.
pub(crate) fn self_test() -> anyhow::Result<()> {
    let (history, log, known) = sound();
    judge(&history, &known, &log, 1).context("a sound history")?;
    type Plant = fn(&mut History, &mut Vec<Entry>, &Known);
    let plants: [(&str, Plant); 15] = [
        ("not there", |_, log, _| drop(log.pop())),
        ("twice", |_, log, _| log[2].id = log[1].id),
        ("nobody wrote", |_, log, _| log[2].id = 77),
        ("goes back", |_, log, _| log[2].place = (0, 0)),
        ("after 1 events", |_, log, _| log[1].number = 2),
        ("yet there", |history, _, _| history.writes[1].outcome = Outcome::Wrong { current: 0 }),
        ("in part", |history, log, _| {
            drop(log.pop());
            history.writes[1] = Write { count: 3, outcome: Outcome::Unknown, ..history.writes[1].clone() };
            history.writes[2].id += 1 << 20;
            history.writes[2].outcome = Outcome::Unknown;
        }),
        ("log position", |history, _, _| {
            history.writes[0].outcome = Outcome::Acknowledged { first: 0, position: Some(8) };
        }),
        ("expected version", |history, _, _| history.writes[1].expected = 3),
        ("out of order", |history, _, _| (history.writes[0].begin, history.writes[0].end) = (90, 95)),
        ("had been acknowledged", |history, _, _| history.reads[0].count = 2),
        ("only 4 are there", |history, _, _| history.reads[0].count = 5),
        ("not sent yet", |history, _, _| history.writes[2].begin = 72),
        ("was seen as", |_, _, known| known.enter("s", 4, [9]).expect("nothing there")),
        ("2 events short", |history, _, _| history.sessions[0].positions.truncate(1)),
    ];
    for (words, plant) in plants {
        let (mut history, mut log, known) = sound();
        plant(&mut history, &mut log, &known);
        let found = judge(&history, &known, &log, 1).err().map(|error| format!("{error:#}"));
        ensure!(found.as_ref().is_some_and(|found| found.contains(words)), "planted \"{words}\", found {found:?}");
    }
    Ok(())
}

/// Three writes of one client to one stream, a read of it as leader, and a subscription.
fn sound() -> (History, Vec<Entry>, Known) {
    let id = |counter| known::identifier(1, 5, counter);
    let write = |counter: u64, count: u32, expected: i64, begin: Moment| Write {
        client: 5,
        stream: "s".to_owned(),
        expected,
        id: id(counter),
        count,
        begin,
        attempt_begin: begin,
        end: begin + 5,
        attempts: 1,
        node: 0,
        outcome: Outcome::Acknowledged {
            first: counter as i64,
            position: Some((counter as i64 + i64::from(count)) * 64),
        },
    };
    let entry = |place: i64| {
        let (number, stream) = (place - 1, "s".to_owned());
        Entry { place: (place * 64, place * 64), stream, number, id: id(number as u64) }
    };
    let log: Vec<Entry> = (1..=4).map(entry).collect();
    let reads = vec![crate::support::history::Read {
        client: 6,
        stream: "s".to_owned(),
        node: 1,
        require_master: true,
        begin: 60,
        end: 70,
        from: 0,
        count: 4,
        is_end: true,
    }];
    let positions = log.iter().skip(1).map(|entry| entry.place).collect();
    let sessions = vec![crate::support::history::Session { node: 2, confirmed: 64, positions, is_open: true }];
    let unanswered = Write { end: NEVER, outcome: Outcome::Unknown, id: id(50), ..write(3, 1, ANY, 80) };
    let writes = vec![write(0, 1, ANY, 10), write(1, 2, 0, 20), write(3, 1, 2, 50), unanswered];
    (History { writes, reads, sessions }, log, Known::default())
}
