//! Merging tables that lie side by side in the log into one, in steps.

use std::io;
use std::sync::Arc;

use crate::limits::RECENT_IDS_MAX;

use super::entry::{Entry, Summary};
use super::pages::{Cursor, Damage};
use super::parts::View;
use super::store::TableStore;
use super::table::{NO_POSITION, Table};
use super::writer::{Extras, TableWriter};

/// Pages fetched at a time from each table.
const AHEAD: usize = 32;

/// The smallest size that makes a difference between tables.
const TIER_BYTES: u64 = 64 << 10;

/// A table is of the next tier when it is so many times as large.
const TIER_FACTOR: u64 = 4;

/// Why a merge does not go on.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A table is damaged.
    Damaged(Arc<Table>, Damage),
    /// The new one could not be written.
    Write(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Write(error)
    }
}

/// The tables that should be merged next: at least `fan_in` of a like size, side by side. One that is smaller than a
/// newer one counts as large as that, or it would stay for ever.
pub(super) fn choose(view: &View, fan_in: usize) -> Option<Vec<Arc<Table>>> {
    let tables: Vec<&Arc<Table>> = view.tables().collect();
    let mut tiers: Vec<u32> = tables.iter().map(|table| tier(table.file_bytes())).collect();
    let mut above = 0;
    for tier in tiers.iter_mut().rev() {
        above = above.max(*tier);
        *tier = above;
    }
    let mut end = tables.len();
    while end > 0 {
        let same = |&index: &usize| {
            tiers[index] == tiers[end - 1] && (index + 1 == end || tables[index].to() == tables[index + 1].from())
        };
        let start = (0..end).rev().take_while(same).last().expect("the last one is like itself");
        if end - start >= fan_in {
            return Some(tables[start..end].iter().map(|table| Arc::clone(table)).collect());
        }
        end = start;
    }
    None
}

fn tier(bytes: u64) -> u32 {
    (bytes / TIER_BYTES).max(1).ilog(TIER_FACTOR)
}

/// Where the reading of a table is.
#[derive(Debug)]
struct Input {
    table: Arc<Table>,
    /// The entry to go on with.
    at: u64,
}

/// An entry that was read, and how to read the next.
struct Reading<'a> {
    table: &'a Arc<Table>,
    cursor: Cursor<'a>,
    entry: Entry,
    /// The entry before it.
    before: Option<(u64, Vec<u8>)>,
    is_over: bool,
}

impl<'a> Reading<'a> {
    fn begin(input: &'a Input) -> Result<Reading<'a>, Trouble> {
        let cursor = input.table.entries_from(input.at, AHEAD);
        let mut reading =
            Reading { table: &input.table, cursor, entry: Entry::default(), before: None, is_over: false };
        reading.read()?;
        Ok(reading)
    }

    /// To the next entry: streams come in order, and only the first entry of each is a head.
    fn advance(&mut self) -> Result<(), Trouble> {
        let (hash, name) = self.before.get_or_insert_default();
        *hash = self.entry.hash;
        std::mem::swap(name, &mut self.entry.name);
        self.read()?;
        let Some((hash, name)) = self.before.as_ref().filter(|_| !self.is_over) else { return Ok(()) };
        let order = (*hash, &name[..]).cmp(&self.key());
        if order.is_gt() || order.is_eq() == self.entry.head.is_some() {
            return Err(self.damaged(Damage::Content("its streams do not come in order")));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Trouble> {
        self.is_over = self.cursor.is_at_end();
        if self.is_over {
            self.entry.at = self.cursor.at();
            return Ok(());
        }
        let read = self.entry.read_hash(&mut self.cursor).and_then(|_| self.entry.read_rest(&mut self.cursor));
        read.map_err(|damage| self.damaged(damage))
    }

    fn damaged(&self, damage: Damage) -> Trouble {
        Trouble::Damaged(Arc::clone(self.table), damage)
    }

    fn key(&self) -> (u64, &[u8]) {
        (self.entry.hash, &self.entry.name)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct MergeJob {
    inputs: Vec<Input>,
    writer: TableWriter,
    /// The stream that is being written, and the number of its next event.
    open: Option<(u64, Vec<u8>)>,
    next: i64,
    /// Where its last event lies.
    last: u64,
}

impl MergeJob {
    /// Merges `tables`, which lie side by side, into a new one with this number.
    pub(super) fn new(store: Arc<dyn TableStore>, id: u64, tables: Vec<Arc<Table>>) -> MergeJob {
        let (from, to) = (tables[0].from().0, tables[tables.len() - 1].to().0);
        let streams = tables.iter().map(|table| table.footer.streams).sum();
        let input = |table: Arc<Table>| Input { at: table.footer.entries.at, table };
        let inputs = tables.into_iter().map(input).collect();
        MergeJob { inputs, writer: TableWriter::new(store, id, (from, to), streams), open: None, next: 0, last: 0 }
    }

    pub(super) fn id(&self) -> u64 {
        self.writer.id()
    }

    pub(super) fn input_ids(&self) -> Vec<u64> {
        self.inputs.iter().map(|input| input.table.id()).collect()
    }

    /// What it may still write, bytes: no more than it reads.
    pub(super) fn bytes_left(&self) -> u64 {
        let all: u64 = self.inputs.iter().map(|input| input.table.file_bytes()).sum();
        all.saturating_sub(self.writer.bytes())
    }

    /// Writes about `bytes`; true when all streams are written.
    pub(super) fn step(&mut self, bytes: u64) -> Result<bool, Trouble> {
        let until = self.writer.bytes() + bytes;
        let inputs = std::mem::take(&mut self.inputs);
        let outcome = self.merge(&inputs, until);
        self.inputs = inputs;
        let (is_done, places) = outcome?;
        for (input, at) in self.inputs.iter_mut().zip(places) {
            input.at = at;
        }
        Ok(is_done)
    }

    fn merge(&mut self, inputs: &[Input], until: u64) -> Result<(bool, Vec<u64>), Trouble> {
        let mut readings = inputs.iter().map(Reading::begin).collect::<Result<Vec<_>, _>>()?;
        let places = |readings: &[Reading<'_>]| readings.iter().map(|reading| reading.entry.at).collect();
        loop {
            if self.open.is_none() && !self.begin_stream(&readings)? {
                return Ok((true, places(&readings)));
            }
            let (hash, name) = self.open.clone().expect("begun");
            for reading in &mut readings {
                while !reading.is_over && reading.key() == (hash, &name) {
                    self.copy(reading)?;
                    reading.advance()?;
                    if self.writer.bytes() >= until {
                        return Ok((false, places(&readings)));
                    }
                }
            }
            self.writer.end()?;
            self.open = None;
        }
    }

    /// Begins with the first stream of those that come next; false when there is none.
    fn begin_stream(&mut self, readings: &[Reading<'_>]) -> Result<bool, Trouble> {
        let Some(first) = readings.iter().filter(|reading| !reading.is_over).min_by_key(|reading| reading.key()) else {
            return Ok(false);
        };
        let (hash, name) = (first.entry.hash, first.entry.name.clone());
        let (mut summary, mut number) = (Summary::default(), None);
        for reading in readings.iter().filter(|reading| !reading.is_over && reading.key() == (hash, &name)) {
            let head = reading.entry.head.as_ref();
            let head =
                head.ok_or_else(|| reading.damaged(Damage::Content("the first entry of a stream is missing")))?;
            if head.count > 0 {
                number = number.or(Some(reading.entry.first));
            }
            summary.count += head.count;
            summary.tombstone = head.tombstone.or(summary.tombstone);
            summary.metadata = head.metadata.clone().or(summary.metadata);
        }
        (self.next, self.last) = (number.unwrap_or(first.entry.first), 0);
        self.writer.begin(hash, &name, summary, self.next);
        self.open = Some((hash, name));
        Ok(true)
    }

    fn copy(&mut self, reading: &Reading<'_>) -> Result<(), Trouble> {
        if reading.entry.count > 0 && reading.entry.first != self.next {
            return Err(reading.damaged(Damage::Content("the numbers of a stream do not go on in it")));
        }
        for position in reading.table.positions_of(&reading.entry).map_err(|damage| reading.damaged(damage))? {
            if position < self.last {
                return Err(reading.damaged(Damage::Content("the events of a stream do not follow one another in it")));
            }
            self.last = position;
            self.writer.position(position)?;
        }
        self.next += reading.entry.count as i64;
        Ok(())
    }

    /// Writes the rest of the new table, after which it is there under its name. Gives its number.
    pub(super) fn finish(self) -> Result<u64, Trouble> {
        let extras = match self.extras() {
            Ok(extras) => extras,
            Err(trouble) => {
                self.writer.abandon();
                return Err(trouble);
            }
        };
        let id = self.writer.id();
        self.writer.finish(&extras)?;
        Ok(id)
    }

    fn extras(&self) -> Result<Extras, Trouble> {
        let mut extras = Extras { last_event: NO_POSITION, ..Extras::default() };
        for Input { table, .. } in &self.inputs {
            let damaged = |damage| Trouble::Damaged(Arc::clone(table), damage);
            extras.starts.extend(table.starts().map_err(damaged)?);
            let footer = &table.footer;
            extras.events += footer.events;
            extras.new_streams += footer.new_streams;
            extras.last_event = if footer.last_event == NO_POSITION { extras.last_event } else { footer.last_event };
            (extras.last_record, extras.last_record_crc) = (footer.last_record, footer.last_record_crc);
        }
        // Tables that do not count right do not become one that is refused.
        extras.events = extras.events.min(self.writer.bytes());
        extras.new_streams = extras.new_streams.min(self.writer.streams());
        let newest = &self.inputs[self.inputs.len() - 1].table;
        let damaged = |damage| Trouble::Damaged(Arc::clone(newest), damage);
        extras.transactions = newest.transactions_bytes().map_err(damaged)?;
        let mut recents = Vec::new();
        let mut left = RECENT_IDS_MAX;
        for Input { table, .. } in self.inputs.iter().rev() {
            if left == 0 {
                break;
            }
            let mut events = table.recents().map_err(|damage| Trouble::Damaged(Arc::clone(table), damage))?;
            events.drain(..events.len().saturating_sub(left));
            left -= events.len();
            recents.push(events);
        }
        extras.recents = recents.into_iter().rev().flatten().collect();
        Ok(extras)
    }

    pub(super) fn abandon(self) {
        self.writer.abandon();
    }
}
