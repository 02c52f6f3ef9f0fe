//! The record of a run: every operation with its begin and its end.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, ensure};

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

    /// Reads what [`History::save`] wrote. Times are rounded there, so operations are taken as a microsecond longer; the
    /// identifiers are those of run 1; of a subscription the first and the last position are known, the others are the first.
    ///
    /// # Errors
    /// Those of the file, and a line that is not one of ours.
    pub(crate) fn load(file: &Path) -> anyhow::Result<History> {
        let mut history = History::default();
        let lines = BufReader::new(File::open(file).with_context(|| file.display().to_string())?).lines();
        for (number, line) in lines.enumerate() {
            let line = line?;
            history.read_line(&line).with_context(|| format!("line {} of {}: {line}", number + 1, file.display()))?;
        }
        let wider = |begin: &mut Moment, end: &mut Moment| {
            *begin = begin.saturating_sub(ROUNDED);
            *end = end.saturating_add(ROUNDED);
        };
        history.writes.iter_mut().for_each(|write| wider(&mut write.begin, &mut write.end));
        history.reads.iter_mut().for_each(|read| wider(&mut read.begin, &mut read.end));
        Ok(history)
    }

    fn read_line(&mut self, line: &str) -> anyhow::Result<()> {
        let words = Words(line.split_whitespace().map(|word| word.trim_end_matches([':', ','])).collect());
        match words.at(0)? {
            "write" => {
                let write = words.write(line)?;
                ensure!(write.to_string() == line, "read as {write}");
                self.writes.push(write);
            }
            "read" => {
                let read = words.read(line)?;
                ensure!(read.to_string() == line, "read as {read}");
                self.reads.push(read);
            }
            _ => self.sessions.push(session(line).context("neither a write, a read nor a subscription")?),
        }
        Ok(())
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

/// Times in a file are rounded to this, nanoseconds.
const ROUNDED: Moment = 1_000;

/// The words of a line of a file.
struct Words<'a>(Vec<&'a str>);

impl Words<'_> {
    fn at(&self, place: usize) -> anyhow::Result<&str> {
        self.0.get(place).copied().with_context(|| format!("no word {place}"))
    }

    fn number<T: FromStr>(&self, place: usize) -> anyhow::Result<T> {
        let word = self.at(place)?.trim_start_matches('x');
        word.parse().ok().with_context(|| format!("{word} is no such number"))
    }

    fn node(&self, place: usize) -> anyhow::Result<usize> {
        self.number::<usize>(place)?.checked_sub(1).context("node 0")
    }

    fn moment(&self, place: usize) -> anyhow::Result<Moment> {
        let word = self.at(place)?;
        let units = [("ns", 1e0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
        let unit = units.iter().find_map(|(unit, nanoseconds)| Some((word.strip_suffix(unit)?, nanoseconds)));
        match unit {
            _ if word == "never" => Ok(NEVER),
            Some((number, nanoseconds)) => Ok((number.parse::<f64>()? * nanoseconds).round() as Moment),
            None => anyhow::bail!("{word} is no time"),
        }
    }

    /// `write event C of client N xCOUNT to STREAM expecting V begin T attempt A at node N from T end T OUTCOME`
    fn write(&self, line: &str) -> anyhow::Result<Write> {
        let client = self.number(5)?;
        let outcome = match self.at(22)? {
            "Unknown" => Outcome::Unknown,
            "Wrong" => Outcome::Wrong { current: self.number(25)? },
            "Acknowledged" => Outcome::Acknowledged {
                first: self.number(25)?,
                position: in_brackets(line).map(str::parse).transpose()?,
            },
            other => anyhow::bail!("{other} is no outcome"),
        };
        Ok(Write {
            client,
            stream: self.at(8)?.to_owned(),
            expected: self.number(10)?,
            id: known::identifier(1, client, self.number(2)?),
            count: self.number(6)?,
            begin: self.moment(12)?,
            attempt_begin: self.moment(19)?,
            end: self.moment(21)?,
            attempts: self.number(14)?,
            node: self.node(17)?,
            outcome,
        })
    }

    /// `read client N of STREAM at node N [as leader] begin T end T COUNT events from FROM [the end]`
    fn read(&self, line: &str) -> anyhow::Result<Read> {
        let require_master = self.at(8)? == "as";
        let rest = if require_master { 10 } else { 8 };
        Ok(Read {
            client: self.number(2)?,
            stream: self.at(4)?.to_owned(),
            node: self.node(7)?,
            require_master,
            begin: self.moment(rest + 1)?,
            end: self.moment(rest + 3)?,
            count: self.number(rest + 4)?,
            from: self.number(rest + 7)?,
            is_end: line.ends_with(", the end"),
        })
    }
}

fn in_brackets(line: &str) -> Option<&str> {
    line.split_once("Some(")?.1.split(')').next()
}

/// `subscription at node N from POSITION: COUNT events, FIRST to LAST`, both `Some((commit, prepare))` or `None`.
fn session(line: &str) -> Option<Session> {
    let line = line.strip_prefix("subscription at node ")?;
    let numbers = line.split(|letter: char| !letter.is_ascii_digit() && letter != '-').filter(|word| !word.is_empty());
    let numbers: Vec<i64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
    let (node, confirmed, count) = (usize::try_from(*numbers.first()?).ok()?, *numbers.get(1)?, *numbers.get(2)?);
    let positions = match (count, numbers.get(3..).unwrap_or_default()) {
        (0, []) => Vec::new(),
        (1.., [a, b, c, d]) => {
            let mut all = vec![(*a, *b); usize::try_from(count).ok()?];
            *all.last_mut()? = (*c, *d);
            all
        }
        _ => return None,
    };
    Some(Session { node: node.checked_sub(1)?, confirmed, positions, is_open: false })
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
