//! The record of a run: every operation with its begin and its end.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::support::known;

/// Nanoseconds since the run began.
pub(crate) type Moment = u64;

/// An operation whose end nobody saw.
pub(crate) const NEVER: Moment = u64::MAX;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It lies in its stream from `first` on; `position` in the log, where the server said so.
    Acknowledged { first: i64, position: Option<i64> },
    /// The expected version was not that of the stream: nothing of it is written, now or later.
    Wrong { current: i64 },
    /// It may be written, or not, or still be.
    Unknown,
}

/// A write, with all its repetitions.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) client: u32,
    pub(crate) stream: String,
    pub(crate) expected: i64,
    /// The identifier of the first event; those of the others follow it.
    pub(crate) id: u128,
    pub(crate) count: u32,
    pub(crate) begin: Moment,
    /// Begin of the attempt that was answered.
    pub(crate) attempt_begin: Moment,
    pub(crate) end: Moment,
    pub(crate) attempts: u32,
    /// The node that was asked last.
    pub(crate) node: usize,
    pub(crate) outcome: Outcome,
}

/// One page of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) client: u32,
    pub(crate) stream: String,
    pub(crate) node: usize,
    pub(crate) require_master: bool,
    pub(crate) begin: Moment,
    pub(crate) end: Moment,
    /// The first number asked for.
    pub(crate) from: i64,
    pub(crate) count: i64,
    /// The server said that nothing follows.
    pub(crate) is_end: bool,
}

/// What one subscription to the whole log was told, on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) node: usize,
    /// What it is told lies behind this position.
    pub(crate) confirmed: i64,
    /// (commit, prepare) of each event.
    pub(crate) positions: Vec<(i64, i64)>,
    /// Still connected when the run ended.
    pub(crate) is_open: bool,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) sessions: Vec<Session>,
}

impl History {
    pub(crate) fn append(&mut self, mut other: History) {
        self.writes.append(&mut other.writes);
        self.reads.append(&mut other.reads);
        self.sessions.append(&mut other.sessions);
    }

    /// Writes down every operation, in the order of their beginnings.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn save(&self, file: &Path) -> io::Result<()> {
        let mut lines: Vec<(Moment, String)> =
            self.writes.iter().map(|write| (write.begin, write.to_string())).collect();
        lines.extend(self.reads.iter().map(|read| (read.begin, read.to_string())));
        lines.sort_unstable();
        let mut out = BufWriter::new(File::create(file)?);
        lines.iter().try_for_each(|(_, line)| writeln!(out, "{line}"))?;
        for session in &self.sessions {
            let (node, count) = (session.node + 1, session.positions.len());
            let (first, last) = (session.positions.first(), session.positions.last());
            writeln!(
                out,
                "subscription at node {node} from {}: {count} events, {first:?} to {last:?}",
                session.confirmed
            )?;
        }
        out.flush()
    }

    /// The operations on `stream` that were under way between `from` and `to`, at most `count` of each kind.
    pub(crate) fn around(&self, stream: &str, from: Moment, to: Moment, count: usize) -> String {
        let mut lines = Vec::new();
        let writes = self.writes.iter().filter(|write| write.stream == stream && write.begin < to && write.end > from);
        lines.extend(writes.take(count).map(|write| (write.begin, write.to_string())));
        let reads = self.reads.iter().filter(|read| read.stream == stream && read.begin < to && read.end > from);
        lines.extend(reads.take(count).map(|read| (read.begin, read.to_string())));
        lines.sort();
        lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    }
}

fn time(moment: Moment) -> String {
    if moment == NEVER { "never".to_owned() } else { format!("{:.6?}", Duration::from_nanos(moment)) }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, attempt, end) = (time(self.begin), time(self.attempt_begin), time(self.end));
        write!(
            f,
            "write  {} x{} to {} expecting {}: begin {begin}, attempt {} at node {} from {attempt}, end {end}: {:?}",
            known::name(self.id),
            self.count,
            self.stream,
            self.expected,
            self.attempts,
            self.node + 1,
            self.outcome
        )
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begin, end) = (time(self.begin), time(self.end));
        write!(
            f,
            "read   client {} of {} at node {}{}: begin {begin}, end {end}: {} events from {}{}",
            self.client,
            self.stream,
            self.node + 1,
            if self.require_master { " as leader" } else { "" },
            self.count,
            self.from,
            if self.is_end { ", the end" } else { "" }
        )
    }
}
