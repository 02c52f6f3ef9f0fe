//! What must be there before a run of reads: a stream of the wanted length, and for the all-stream the places where
//! its pages begin, which only reading it tells.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::blocking::Client;
use crate::directory::Directory;
use crate::load::{Reads, Way};
use crate::slots::Correlation;
use crate::wire;
use crate::wire::{EventTemplate, PageAnswer, WriteAnswer};

/// Bytes and events in one write of the preparation, and how many writes are on the way.
const WRITE_BYTES: u32 = 512 * 1024;
const WRITE_EVENTS: u32 = 500;
const WRITES_IN_FLIGHT: usize = 8;
/// Attempts go on for so long, and between two of them lies a pause.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);
const WHOLE_LIMIT: Duration = Duration::from_secs(10);
const READS_IN_FLIGHT: usize = 4;

/// What is read.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub way: Way,
    pub page: u32,
    /// Events, whole pages of them.
    pub events: u32,
    pub size: u32,
    /// The pages are not read before the run.
    pub cold: bool,
    pub require_leader: bool,
}

/// Makes sure that the span is there, and reads it once unless it is to be cold. Begins again where it was when the
/// leader changes.
///
/// # Errors
/// When for a long time the nodes do not take the writes or reads.
pub(crate) fn prepare(span: &Span, directory: &Directory, user: &(String, String)) -> anyhow::Result<Reads> {
    let start = Instant::now();
    loop {
        let address = directory.address(0).context("no node to read from")?;
        match attempt(span, address, user) {
            Ok(reads) => return Ok(reads),
            Err(error) if start.elapsed() > PREPARE_LIMIT => return Err(error),
            Err(error) => eprintln!("preparing: {error:#}; trying again"),
        }
        directory.suspect();
        std::thread::sleep(PAUSE);
    }
}

fn attempt(span: &Span, address: SocketAddr, user: &(String, String)) -> anyhow::Result<Reads> {
    let mut client = Client::connect(address, user)?;
    let stream = format!("bench-read-{}", span.size).into_bytes();
    let there = last_number(&mut client, &stream, span.require_leader)? + 1;
    if there < i64::from(span.events) {
        eprintln!("preparing: writing {} events of {} bytes", i64::from(span.events) - there, span.size);
        write(&mut client, &stream, there, span).context("the stream to read cannot be prepared")?;
        await_whole(&mut client, &stream, span)?;
    }
    let mut reads = Reads {
        way: span.way,
        stream: if span.way.is_all() { Vec::new() } else { stream },
        page: span.page,
        starts: starts(span),
        require_leader: span.require_leader,
    };
    if !span.cold {
        eprintln!("preparing: reading {} events once", span.events);
        warm(&mut client, &mut reads, span).context("the span cannot be read")?;
    }
    Ok(reads)
}

/// The stream's last event number, -1 when there is no such stream.
fn last_number(client: &mut Client, stream: &[u8], require_leader: bool) -> anyhow::Result<i64> {
    let mut last = -1;
    let encode = |_, correlation: Correlation, out: &mut Vec<u8>| {
        wire::read_stream(out, wire::READ_BACKWARD, correlation, stream, -1, 1, require_leader);
    };
    client.exchange(1, 1, encode, |_, payload| {
        last = page(PageAnswer::of_stream(payload))?.last;
        Ok(())
    })?;
    Ok(last)
}

/// A follower shows what was written a little later.
fn await_whole(client: &mut Client, stream: &[u8], span: &Span) -> anyhow::Result<()> {
    let start = Instant::now();
    while last_number(client, stream, span.require_leader)? + 1 < i64::from(span.events) {
        ensure!(start.elapsed() < WHOLE_LIMIT, "the node does not show all events {} s later", WHOLE_LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn page(answer: Result<PageAnswer, wire::Malformed>) -> anyhow::Result<PageAnswer> {
    let answer = answer.map_err(|error| anyhow::anyhow!("the node sent {}", error.0))?;
    // 0 is success, 1 "no such stream"; in pages of the all-stream 1 does not occur.
    ensure!(answer.result <= 1, "the node refused to read, result {}", answer.result);
    Ok(answer)
}

fn write(client: &mut Client, stream: &[u8], first: i64, span: &Span) -> anyhow::Result<()> {
    let template = EventTemplate::new("bench", span.size, 0);
    let batch = (WRITE_BYTES / span.size.max(1)).clamp(1, WRITE_EVENTS);
    let missing = i64::from(span.events) - first;
    let count = usize::try_from(missing)?.div_ceil(batch as usize);
    let mut id = [0; 16];
    id[8..].copy_from_slice(&fastrand::u64(1..).to_le_bytes());
    let encode = |number: usize, correlation: Correlation, out: &mut Vec<u8>| {
        let from = first + number as i64 * i64::from(batch);
        let to = (from + i64::from(batch)).min(i64::from(span.events));
        wire::write_events(out, correlation, stream, from - 1, span.require_leader, |out| {
            for number in from..to {
                id[..8].copy_from_slice(&number.to_le_bytes());
                template.event(out, &id, span.size);
            }
        });
    };
    client.exchange(count, WRITES_IN_FLIGHT, encode, |_, payload| {
        let answer = WriteAnswer::parse(payload).map_err(|error| anyhow::anyhow!("the node sent {}", error.0))?;
        ensure!(answer.result == 0, "a write was refused, result {}", answer.result);
        Ok(())
    })
}

/// Where the pages of a stream begin: known without reading.
fn starts(span: &Span) -> Vec<(i64, i64)> {
    let pages = 0..i64::from(span.events / span.page);
    let page = i64::from(span.page);
    match span.way {
        Way::Forward => pages.map(|number| (number * page, 0)).collect(),
        Way::Backward => pages.map(|number| (i64::from(span.events) - 1 - number * page, 0)).collect(),
        Way::All | Way::AllBackward => Vec::new(),
    }
}

fn warm(client: &mut Client, reads: &mut Reads, span: &Span) -> anyhow::Result<()> {
    if !span.way.is_all() {
        let encode = |number, correlation: Correlation, out: &mut Vec<u8>| {
            reads.encode(out, correlation, reads.starts[number]);
        };
        return client.exchange(reads.starts.len(), READS_IN_FLIGHT, encode, |_, payload| {
            page(PageAnswer::of_stream(payload)).map(|_| ())
        });
    }
    let (mut from, mut events) = (span.way.start(), 0);
    let mut starts = Vec::new();
    // A node may cut a page short that takes it long, so only an empty one is the end.
    while events + u64::from(span.page) <= u64::from(span.events) {
        let mut answer = PageAnswer::default();
        client.exchange(
            1,
            1,
            |_, correlation, out| reads.encode(out, correlation, from),
            |_, payload| {
                answer = page(PageAnswer::of_all(payload))?;
                Ok(())
            },
        )?;
        if answer.events == 0 {
            break;
        }
        starts.push(from);
        (from, events) = (answer.next, events + answer.events);
    }
    ensure!(!starts.is_empty(), "the log shows no events");
    reads.starts = starts;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_stream_begin_where_the_one_before_ended() {
        let span = |way| Span { way, page: 100, events: 300, size: 1, cold: true, require_leader: false };
        let begin = |way| starts(&span(way)).into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(begin(Way::Forward), [0, 100, 200]);
        assert_eq!(begin(Way::Backward), [299, 199, 99]);
        assert!(begin(Way::All).is_empty());
    }
}
