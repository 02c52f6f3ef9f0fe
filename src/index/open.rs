//! Opening an index that has tables, and the hand-over from memory to a table.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::codec::record::RecordView;
use crate::limits::{INDEX_FILTERS_BYTES, RECENT_IDS_MAX};
use crate::storage::{ChunkLayout, LogRead};
use crate::types::LogPosition;

use super::manifest::{Listed, Manifest};
use super::pages::Damage;
use super::parts::{Tables, View};
use super::recent::RecentEvent;
use super::store::TableStore;
use super::table::{NO_POSITION as NONE_IN_TABLE, RECENT_BYTES, Table};
use super::transactions::Transactions;
use super::writer::Extras;
use super::{Index, NO_POSITION};

/// A part that is complete, to be written to a table.
#[derive(Debug)]
pub(super) struct Complete {
    /// Its streams are in this slot.
    pub(super) slot: usize,
    pub(super) from: LogPosition,
    pub(super) to: LogPosition,
    pub(super) extras: Extras,
    /// Memory of its streams.
    streams_bytes: u64,
}

impl Complete {
    /// What its table takes on the disk at most, about: what lies close together in memory takes less there.
    pub(super) fn bytes(&self) -> u64 {
        let Extras { starts, recents, transactions, .. } = &self.extras;
        self.streams_bytes + (starts.len() + recents.len() * RECENT_BYTES + transactions.len()) as u64
    }
}

/// What is found in the tables at a start.
struct Restored {
    view: View,
    /// Newest first.
    recents: Vec<Vec<RecentEvent>>,
    transactions: Option<Transactions>,
}

impl Index {
    /// Opens the index whose files are in `store`. What `log` does not have any more, which ends at `end`, is left out;
    /// [`Index::applied`] says up to where there are tables that go with the log, and from where on it must be applied.
    /// What is damaged is indexed again.
    ///
    /// # Errors
    /// Those of the system that say nothing about the files (too many are open, no permission): nothing is removed then.
    pub fn open(
        store: Arc<dyn TableStore>,
        log: &dyn LogRead,
        layout: ChunkLayout,
        end: LogPosition,
        seed: u64,
    ) -> io::Result<Index> {
        let manifest = load_manifest(&*store, layout)?;
        let view = open_tables(&*store, log, layout, end, &manifest)?;
        remove_strangers(&*store, &manifest);
        Ok(Index::with_tables(store, layout, seed, &manifest, restore(view)))
    }

    /// Up to where the index in `store` says that tables have the log; for those who check what a start finds. `None`
    /// without a manifest that can be read.
    #[must_use]
    pub fn saved_in(store: &dyn TableStore) -> Option<LogPosition> {
        Some(LogPosition(Manifest::load(store).ok()??.covered))
    }

    fn with_tables(
        store: Arc<dyn TableStore>,
        layout: ChunkLayout,
        seed: u64,
        manifest: &Manifest,
        restored: Restored,
    ) -> Index {
        let Restored { view, recents, transactions } = restored;
        let is_changed = view.covered.0 != manifest.covered || view.tables().count() != manifest.tables.len();
        let last = view.tables().rev().map(|table| table.footer.last_event).find(|&last| last != NONE_IN_TABLE);
        let covered = view.covered;
        let tables = Tables::new(store, layout, manifest, view);
        tables.is_changed.store(is_changed, Ordering::Relaxed);
        let index = Index::of(seed, Some(tables), covered, false);
        index.recent.restore(recents.into_iter().rev().flatten());
        if let Some(transactions) = transactions {
            *index.transactions.lock() = transactions;
        }
        index.last_event_position.store(last.unwrap_or(NO_POSITION), Ordering::Release);
        index.applier.lock().last_event = last.map(LogPosition);
        index
    }

    /// An index of a piece of the log only, which begins at `from`, to be written to a table.
    pub(super) fn piece(from: LogPosition, transactions: Option<Transactions>) -> Index {
        let index = Index::of(1, None, from, false);
        if let Some(transactions) = transactions {
            *index.transactions.lock() = transactions;
        }
        index
    }

    /// Up to here the index is not ready until its upkeep has applied the log. For who has just opened it, before others
    /// use it.
    pub fn set_behind(&self, to: LogPosition) {
        if self.tables.is_some() && self.applied() < to {
            self.behind_to.store(to.0, Ordering::Release);
            self.is_behind.store(true, Ordering::Release);
        }
    }

    /// The newest part is complete; what is applied from now on comes into the other slot, which is empty.
    pub(super) fn complete_part(&self) -> Complete {
        let tables = self.tables.as_ref().expect("an index with tables");
        let mut applier = self.applier.lock();
        let _changing = tables.changing.lock();
        let (from, to) = (tables.view().covered, applier.reached);
        let (events, streams, streams_bytes) = (applier.figures.events, applier.figures.streams, applier.figures.bytes);
        let mut extras = Extras {
            events: events - self.older.events.load(Ordering::Relaxed),
            new_streams: streams - self.older.streams.load(Ordering::Relaxed),
            ..self.extras(applier.last_event, applier.last_record)
        };
        extras.last_event = if extras.last_event < from.0 { NONE_IN_TABLE } else { extras.last_event };
        let transactions = self.transactions.lock().clone();
        let last_sequence = self.recent.next_sequence();
        let slot = self.current.load(Ordering::Relaxed);
        assert!(self.slots[1 - slot].is_empty(), "the part before {from} is in no table yet");
        self.change_places(|| self.current.store(1 - slot, Ordering::Release));
        // So that each table has the first record that readers see in it.
        applier.last_start = None;
        applier.figures.bytes = 0;
        self.older.events.store(events, Ordering::Relaxed);
        self.older.streams.store(streams, Ordering::Relaxed);
        drop(applier);
        extras.recents = self.recent.events(last_sequence.saturating_sub(extras.events), last_sequence);
        extras.transactions = transactions.encode();
        let starts = self.starts.read();
        extras.starts =
            starts.iter().take_while(|start| **start < to.0).flat_map(|start| start.to_le_bytes()).collect();
        Complete { slot, from, to, extras, streams_bytes }
    }

    /// The same for an index of a piece, all of it.
    pub(super) fn complete_piece(&self, from: LogPosition) -> Complete {
        let applier = self.applier.lock();
        let last_sequence = self.recent.next_sequence();
        let extras = Extras {
            events: applier.figures.events,
            new_streams: applier.figures.streams,
            recents: self.recent.events(0, last_sequence),
            transactions: self.transactions.lock().encode(),
            starts: self.starts.read().iter().flat_map(|start| start.to_le_bytes()).collect(),
            ..self.extras(applier.last_event, applier.last_record)
        };
        let (slot, streams_bytes) = (self.current.load(Ordering::Relaxed), applier.figures.bytes);
        Complete { slot, from, to: applier.reached, extras, streams_bytes }
    }

    fn extras(&self, last_event: Option<LogPosition>, last_record: Option<(LogPosition, u32)>) -> Extras {
        let (last_record, last_record_crc) = last_record.map_or((NONE_IN_TABLE, 0), |(at, crc)| (at.0, crc));
        let last_event = last_event.map_or(NONE_IN_TABLE, |position| position.0);
        Extras { last_event, last_record, last_record_crc, ..Extras::default() }
    }

    /// The table of a part that was complete is there: memory is not needed any more.
    pub(super) fn part_is_written(&self, complete: &Complete, table: &Arc<Table>) {
        let tables = self.tables.as_ref().expect("an index with tables");
        let _changing = tables.changing.lock();
        let view = tables.view().with(table, &[]).expect("a new part lies behind all tables");
        let freed = self.change_places(|| {
            tables.set_view(view);
            let mut starts = self.starts.write();
            let written = starts.partition_point(|&start| start < complete.to.0);
            starts.drain(..written);
            self.slots[complete.slot].take()
        });
        self.written.events.fetch_add(complete.extras.events, Ordering::Relaxed);
        self.written.streams.fetch_add(complete.extras.new_streams, Ordering::Relaxed);
        drop(freed);
    }
}

fn load_manifest(store: &dyn TableStore, layout: ChunkLayout) -> io::Result<Manifest> {
    let manifest = match Manifest::load(store) {
        Ok(Some(manifest)) if manifest.chunk_size == layout.chunk_size => manifest,
        Ok(None) => Manifest::default(),
        Ok(Some(manifest)) => {
            tracing::warn!(
                found = manifest.chunk_size,
                expected = layout.chunk_size,
                "the index belongs to a log with another chunk size; it is made again"
            );
            Manifest::default()
        }
        Err(damage) => {
            let damage = damage.elsewhere()?;
            tracing::warn!(%damage, "the manifest of the index cannot be used; the index is made again from the log");
            Manifest::default()
        }
    };
    Ok(manifest)
}

/// Removes the files that the manifest does not name: they are of no use to anybody.
fn remove_strangers(store: &dyn TableStore, manifest: &Manifest) {
    let removed = store
        .list()
        .and_then(|names| names.iter().filter(|name| !manifest.keeps(name)).try_for_each(|name| store.remove(name)));
    if let Err(error) = removed {
        tracing::warn!(%error, "the folder of the index could not be tidied up");
    }
}

/// Opens the tables, the newest first, so that filters of newer ones have room in memory. Those that are damaged or of
/// another log are left out, and so is what the log does not have.
fn open_tables(
    store: &dyn TableStore,
    log: &dyn LogRead,
    layout: ChunkLayout,
    end: LogPosition,
    manifest: &Manifest,
) -> io::Result<View> {
    let mut filter_room = INDEX_FILTERS_BYTES;
    let mut tables = Vec::new();
    let mut covered = LogPosition(manifest.covered);
    for listed in manifest.tables.iter().rev() {
        if listed.to > end.0 {
            tracing::warn!(table = listed.id, to = listed.to, log_end = %end,
                "a table of the index goes beyond the end of the log; its piece of the log will be indexed again");
            covered = covered.min(LogPosition(listed.from));
            continue;
        }
        match open_table(store, log, layout, *listed, filter_room) {
            Ok(table) => {
                filter_room = filter_room.saturating_sub(table.filter_bytes());
                tables.push(Arc::new(table));
            }
            Err(damage) => {
                let damage = damage.elsewhere()?;
                tracing::error!(table = listed.id, from = listed.from, to = listed.to, %damage,
                    "a table of the index cannot be used; its piece of the log will be indexed again");
            }
        }
    }
    tables.reverse();
    Ok(View::new(tables, covered.min(end)))
}

fn open_table(
    store: &dyn TableStore,
    log: &dyn LogRead,
    layout: ChunkLayout,
    listed: Listed,
    filter_room: u64,
) -> Result<Table, Damage> {
    let table = Table::open(store, listed.id, filter_room)?;
    if (table.footer.from, table.footer.to) != (listed.from, listed.to) {
        return Err(Damage::Content("it is of another piece of the log than the manifest says"));
    }
    let (position, mut is_same) = (LogPosition(table.footer.last_record), false);
    if position < table.to() {
        let compare = &mut |bytes: &[u8]| {
            let record = RecordView::trust(bytes, position, layout.room(position)).ok();
            is_same = record.is_some_and(|record| {
                (record.header.end(), record.header.crc) == (table.to(), table.footer.last_record_crc)
            });
        };
        // A log that cannot be read there has not that record.
        let _ = log.with_chunk(position, compare);
    }
    if is_same { Ok(table) } else { Err(Damage::Content("the log has another record where it ends")) }
}

/// What a start needs beside the streams: the newest identifiers and the explicit transactions. Where a table that has
/// some of them is missing, the index ends in front of it, so that they come from the log.
fn restore(mut view: View) -> Restored {
    loop {
        match collect(&view) {
            Ok((recents, transactions)) => return Restored { view, recents, transactions },
            Err(end) => {
                let tables: Vec<_> = view.tables().filter(|table| table.to() <= end).cloned().collect();
                let covered = tables.last().map_or(LogPosition::ZERO, |table| table.to()).max(end);
                view = View::new(tables, covered);
            }
        }
    }
}

type Collected = (Vec<Vec<RecentEvent>>, Option<Transactions>);

/// # Errors
/// The start of a piece of the log without which not everything is there.
fn collect(view: &View) -> Result<Collected, LogPosition> {
    let (mut recents, mut transactions, mut count) = (Vec::new(), None, 0);
    for segment in view.segments.iter().rev() {
        let super::parts::Segment::Table(table) = segment else { return Err(segment.from()) };
        let failed = |damage: Damage| {
            tracing::error!(table = table.id(), %damage, "a table of the index is damaged; its log is applied again");
            table.from()
        };
        if recents.is_empty() {
            transactions = Some(table.transactions().map_err(failed)?);
        }
        let events = table.recents().map_err(failed)?;
        count += events.len();
        recents.push(events);
        if count >= RECENT_IDS_MAX {
            break;
        }
    }
    Ok((recents, transactions))
}
