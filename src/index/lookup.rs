//! Questions to the index.
//!
//! What the newest part knows is answered from memory, under the lock of one shard. Everything else is gathered from the
//! parts, newest first; when those have changed places meanwhile, it is gathered again.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, LazyLock};

use crate::limits::RECORD_STARTS_BYTES;
use crate::types::{EventId, LogPosition, base_stream};

use super::misfit::Unanswered;
use super::pages::Damage;
use super::parts::{Facts, NotReady, Segment, View};
use super::streams::{Name, Part, StreamEntry, Streams};
use super::table::{Found, Table};
use super::{Index, StreamHead, StreamInfo, StreamMetadata};

/// The metadata of every metadata stream: only its last event is readable.
static METASTREAM_METADATA: LazyLock<Arc<StreamMetadata>> =
    LazyLock::new(|| Arc::new(StreamMetadata { max_count: Some(1), ..StreamMetadata::default() }));

static NO_METADATA: LazyLock<Arc<StreamMetadata>> = LazyLock::new(Arc::default);

/// Where a part of a stream's events lies.
enum Holder {
    Memory(usize),
    Table(Arc<Table>, Found),
}

impl Holder {
    /// The piece of the log of a table.
    fn piece(&self) -> Option<(LogPosition, LogPosition)> {
        match self {
            Holder::Memory(_) => None,
            Holder::Table(table, _) => Some((table.from(), table.to())),
        }
    }
}

impl Index {
    /// The streams of the newest part.
    pub(super) fn streams(&self) -> &Streams {
        &self.slots[self.current.load(Ordering::Acquire)]
    }

    /// True when the index is far behind the log, and its upkeep takes it on. Then nothing is known of any stream.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }

    /// False while a part of the index is being rebuilt; questions that need it are answered [`NotReady`].
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.is_behind() && self.tables.as_ref().is_none_or(|tables| tables.view().missing().is_none())
    }

    /// How far the whole log can be read: what is applied, or what was committed at the start while the index is far
    /// behind that.
    #[must_use]
    pub fn walk_limit(&self) -> LogPosition {
        let applied = self.applied();
        if self.is_behind() { applied.max(LogPosition(self.behind_to.load(Ordering::Acquire))) } else { applied }
    }

    /// The head of a stream. For one that the newest part does not know this looks at the tables: at a filter in memory
    /// for each, and at a page of the file where that says "perhaps".
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn head(&self, stream: &str) -> Result<StreamHead, NotReady> {
        let name = Name::new(stream);
        self.check_ready()?;
        let head = self.streams().look(name, |entry| {
            entry.is_resolved().then(|| StreamHead {
                last_event_number: entry.last_event_number(),
                soft_deleted: entry.metadata().is_some_and(|metadata| metadata.is_soft_deleted()),
                has_metadata: entry.metadata().is_some(),
            })
        });
        match head {
            Some(Some(head)) => Ok(head),
            None if self.tables.is_none() => Ok(StreamHead::NONE),
            _ => {
                let facts = self.facts(name)?;
                Ok(StreamHead {
                    last_event_number: facts.last_event_number(),
                    soft_deleted: facts.metadata.as_ref().is_some_and(|metadata| metadata.is_soft_deleted()),
                    has_metadata: facts.metadata.is_some(),
                })
            }
        }
    }

    /// What readers must know; `None` when the stream has neither events nor metadata.
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn stream(&self, stream: &str) -> Result<Option<StreamInfo>, NotReady> {
        let name = Name::new(stream);
        self.check_ready()?;
        let fixed = if base_stream(stream).is_some() { &METASTREAM_METADATA } else { &NO_METADATA };
        let info = self.streams().look(name, |entry| {
            entry.is_resolved().then(|| StreamInfo {
                last_event_number: entry.last_event_number(),
                hard_deleted: entry.tombstone().is_some(),
                metadata: Arc::clone(entry.metadata().unwrap_or(fixed)),
                oldest_event_number: entry.oldest_event_number(),
            })
        });
        match info {
            Some(Some(info)) => Ok(Some(info)),
            None if self.tables.is_none() => Ok(None),
            _ => {
                let facts = self.facts(name)?;
                Ok(facts.is_known.then(|| StreamInfo {
                    last_event_number: facts.last_event_number(),
                    hard_deleted: facts.tombstone.is_some(),
                    metadata: facts.metadata.unwrap_or_else(|| Arc::clone(fixed)),
                    oldest_event_number: facts.oldest,
                }))
            }
        }
    }

    /// Replaces `out` with the prepare positions of at most `count` events from number `first` on, and gives the number of
    /// the first of them (more than `first` when older events are not in the index). For [`EventNumber::TOMBSTONE`] the
    /// tombstone's.
    ///
    /// # Errors
    /// [`NotReady`].
    ///
    /// [`EventNumber::TOMBSTONE`]: crate::types::EventNumber::TOMBSTONE
    pub fn positions(
        &self,
        stream: &str,
        first: i64,
        count: usize,
        out: &mut Vec<LogPosition>,
    ) -> Result<i64, NotReady> {
        self.check_ready()?;
        self.positions_of(Name::new(stream), first, count, out)
    }

    /// The event number of a recently committed event. The last [`RECENT_IDS_MAX`](crate::limits::RECENT_IDS_MAX) at least
    /// are known; unlike in v5 also after a restart.
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn recent(&self, stream: &str, id: EventId) -> Result<Option<i64>, NotReady> {
        self.check_ready()?;
        let name = Name::new(stream);
        let mut outcome = Ok(());
        let found = self.recent.get(name.hash, id, |number, position| match self.is_at(name, number, position) {
            Ok(is_at) => is_at,
            Err(error) => {
                outcome = Err(error);
                false
            }
        });
        outcome.map(|()| found)
    }

    /// True when event `number` of a stream lies at `position`.
    fn is_at(&self, name: Name<'_>, number: i64, position: u64) -> Result<bool, NotReady> {
        let mut positions = Vec::new();
        let first = self.positions_of(name, number, 1, &mut positions)?;
        Ok(first == number && positions == [LogPosition(position)])
    }

    fn check_ready(&self) -> Result<(), NotReady> {
        if self.is_behind() { Err(NotReady) } else { Ok(()) }
    }

    // --- several parts ---

    /// Runs `read` until the parts of the index have not changed places meanwhile. It is told their generation.
    fn consistent<T>(&self, mut read: impl FnMut(u64) -> T) -> T {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            if generation.is_multiple_of(2) {
                let outcome = read(generation);
                fence(Ordering::Acquire);
                if self.generation.load(Ordering::Relaxed) == generation {
                    return outcome;
                }
            }
            std::thread::yield_now();
        }
    }

    /// The parts in memory, newest first.
    fn memory_parts(&self) -> [usize; 2] {
        let current = self.current.load(Ordering::Acquire);
        [current, 1 - current]
    }

    /// What all parts know of a stream. Where the newest one has an entry it is told, so that the next question is
    /// answered there.
    fn facts(&self, name: Name<'_>) -> Result<Facts, NotReady> {
        let (facts, generation) = self.consistent(|generation| (self.ask_parts(name), generation));
        let facts = facts.map_err(|why| self.unanswered(why, generation))?;
        if facts.is_known {
            let is_same = || self.generation.load(Ordering::Acquire) == generation;
            self.streams().resolve(name, &facts, is_same);
        }
        Ok(facts)
    }

    fn ask_parts(&self, name: Name<'_>) -> Result<Facts, Unanswered> {
        let mut facts = Facts::default();
        // Where the part ends that has the oldest events so far, if that is a table.
        let mut newer = None;
        for slot in self.memory_parts() {
            if let Some(part) = self.slots[slot].look(name, StreamEntry::part)
                && facts.add(&part).map_err(|numbers| self.misfit(None, newer, numbers))?
            {
                return Ok(facts);
            }
        }
        let Some(tables) = &self.tables else { return Ok(facts) };
        for segment in tables.view().segments.iter().rev() {
            let Some(found) = self.find(segment, name)? else { continue };
            let oldest = (facts.has_events, facts.oldest);
            let misfit = |numbers| self.misfit(Some(segment.from()), newer, numbers);
            if facts.add(&found.part).map_err(misfit)? {
                break;
            }
            if oldest != (facts.has_events, facts.oldest) {
                newer = Some(segment.to());
            }
        }
        Ok(facts)
    }

    fn find(&self, segment: &Segment, name: Name<'_>) -> Result<Option<Found>, NotReady> {
        match segment {
            Segment::Missing { .. } => Err(NotReady),
            Segment::Table(table) => table.find(name).map_err(|damage| self.lost(table, &damage)),
        }
    }

    fn positions_of(
        &self,
        name: Name<'_>,
        first: i64,
        count: usize,
        out: &mut Vec<LogPosition>,
    ) -> Result<i64, NotReady> {
        out.clear();
        match self.streams().look(name, |entry| entry.positions(first, count, out)) {
            Some(Some(first)) => return Ok(first),
            None if self.tables.is_none() => return Ok(first),
            _ => {}
        }
        if first == i64::MAX {
            let tombstone = self.facts(name)?.tombstone;
            out.extend(tombstone.filter(|_| count > 0).map(LogPosition));
            return Ok(first);
        }
        let (outcome, generation) = self.consistent(|generation| {
            out.clear();
            (self.collect(name, first, count, out), generation)
        });
        outcome.map_err(|why| self.unanswered(why, generation))
    }

    /// The positions of events that lie in any parts.
    fn collect(&self, name: Name<'_>, first: i64, count: usize, out: &mut Vec<LogPosition>) -> Result<i64, Unanswered> {
        let holders = self.holders(name, first)?;
        let Some((_, oldest, _)) = holders.last() else { return Ok(first) };
        let first = first.max(*oldest);
        let mut number = first;
        let mut older = None;
        for (holder, from, to) in holders.iter().rev() {
            let piece = holder.piece();
            let before = older.replace(piece).flatten();
            let wanted = count - out.len();
            if number >= *to || wanted == 0 {
                continue;
            }
            if number < *from {
                let (begin, end) = (before.map(|(begin, _)| begin), piece.map(|(_, end)| end));
                return Err(self.misfit(begin, end, (number, *from)));
            }
            match holder {
                Holder::Memory(slot) => {
                    let skip = (number - from) as usize;
                    self.slots[*slot].look(name, |entry| {
                        out.extend(entry.here().iter().skip(skip).take(wanted).map(|&position| LogPosition(position)));
                    });
                }
                Holder::Table(table, found) => {
                    let read = table.positions(name, found, number, wanted, out);
                    read.map_err(|damage| self.lost(table, &damage))?;
                }
            }
            number = first + out.len() as i64;
        }
        Ok(first)
    }

    /// The parts that have events of a stream, newest first, back to the one with number `first`; with the number of
    /// their first event and the one behind their last.
    fn holders(&self, name: Name<'_>, first: i64) -> Result<Vec<(Holder, i64, i64)>, NotReady> {
        let mut holders = Vec::new();
        let mut add = |holder, part: &Part| {
            if part.count > 0 {
                holders.push((holder, part.first, part.first + part.count as i64));
            }
            part.count > 0 && part.first <= first || part.oldest == Some(part.first)
        };
        for slot in self.memory_parts() {
            if let Some(part) = self.slots[slot].look(name, StreamEntry::part)
                && add(Holder::Memory(slot), &part)
            {
                return Ok(holders);
            }
        }
        let Some(tables) = &self.tables else { return Ok(holders) };
        for segment in tables.view().segments.iter().rev() {
            if let (Segment::Table(table), Some(found)) = (segment, self.find(segment, name)?) {
                let part = found.part.clone();
                if add(Holder::Table(Arc::clone(table), found), &part) {
                    break;
                }
            }
        }
        Ok(holders)
    }

    /// A table is damaged: it is used no more, and its piece of the log will be indexed again.
    pub(super) fn lost(&self, table: &Table, damage: &Damage) -> NotReady {
        if let Some(tables) = &self.tables {
            let _changing = tables.changing.lock();
            let view = tables.view();
            // Another reader may have seen it at the same time.
            if view.tables().any(|other| other.id() == table.id()) {
                tracing::error!(table = table.id(), from = %table.from(), to = %table.to(), %damage,
                    "a table of the index is damaged; its piece of the log will be indexed again");
                tables.damaged.fetch_add(1, Ordering::Relaxed);
                self.change_places(|| tables.set_view(view.without(table.id())));
            }
        }
        NotReady
    }

    /// Runs `change`, which lets the parts of the index change places; readers know then that they must look again. For
    /// who holds [`Tables::changing`](super::parts::Tables).
    pub(super) fn change_places<T>(&self, change: impl FnOnce() -> T) -> T {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let outcome = change();
        self.generation.fetch_add(1, Ordering::AcqRel);
        outcome
    }

    // --- record starts ---

    /// Where to begin to walk over the records so as to meet each one that readers see and that begins at or behind
    /// `position`: the start of such a record at or before it, or of the log. Where the index is being rebuilt it may lie
    /// as far before it as the beginning of its chunk.
    #[must_use]
    pub fn record_at_or_before(&self, position: LogPosition) -> LogPosition {
        self.consistent(|_| {
            if self.is_behind() && position >= self.applied() {
                return self.chunk_start(position).max(self.applied());
            }
            let starts = self.starts.read();
            let after = starts.partition_point(|&start| start <= position.0);
            if let Some(index) = after.checked_sub(1) {
                return LogPosition(starts[index]);
            }
            drop(starts);
            let Some(tables) = &self.tables else { return LogPosition::ZERO };
            let view = tables.view();
            self.start_in_tables(&view, position)
        })
    }

    fn start_in_tables(&self, view: &View, position: LogPosition) -> LogPosition {
        let from = view.at(position).min(view.segments.len().saturating_sub(1));
        for segment in view.segments.iter().take(from + 1).rev() {
            match segment {
                Segment::Missing { from, to } => {
                    // A chunk begins with a record.
                    let last = LogPosition(to.0 - 1).min(position);
                    return self.chunk_start(last).max(*from);
                }
                Segment::Table(table) => match table.starts_up_to(position.0) {
                    Ok(0) => {}
                    Ok(count) => match table.start(count - 1) {
                        Ok(start) => return LogPosition(start),
                        Err(damage) => return self.lost_start(table, &damage, position),
                    },
                    Err(damage) => return self.lost_start(table, &damage, position),
                },
            }
        }
        LogPosition::ZERO
    }

    fn lost_start(&self, table: &Table, damage: &Damage, position: LogPosition) -> LogPosition {
        self.lost(table, damage);
        self.chunk_start(LogPosition(table.footer.to - 1).min(position)).max(table.from())
    }

    fn chunk_start(&self, position: LogPosition) -> LogPosition {
        let layout = self.tables.as_ref().map(|tables| tables.layout);
        layout.map_or(LogPosition::ZERO, |layout| layout.chunk_start(layout.chunk_of(position)))
    }

    /// For a walk that has come to `position`: where to go on. That is `position` itself when a record that readers see may
    /// be near, and otherwise the start of the next one; `None` when none begins there or behind it, as far as the log is
    /// applied. So a walk passes at most [`RECORD_STARTS_BYTES`] and one record of what readers do not see.
    #[must_use]
    pub fn next_visible(&self, position: LogPosition) -> Option<LogPosition> {
        self.consistent(|_| {
            if self.is_behind() && position >= self.applied() {
                return Some(position);
            }
            let covered = self.tables.as_ref().map(|tables| tables.view());
            if let Some(view) = covered.filter(|view| position < view.covered) {
                match self.next_in_tables(&view, position) {
                    Ok(Some(next)) => return Some(next),
                    Ok(None) => {}
                    // Step by step, then, until the table is there again.
                    Err(NotReady) => return Some(position),
                }
            }
            let starts = self.starts.read();
            let after = starts.partition_point(|&start| start <= position.0);
            let is_near = after.checked_sub(1).is_some_and(|index| position.0 - starts[index] < RECORD_STARTS_BYTES);
            let behind = LogPosition(self.behind_to.load(Ordering::Acquire));
            let unknown = Some(self.applied()).filter(|&applied| self.is_behind() && applied < behind);
            if is_near { Some(position) } else { starts.get(after).copied().map(LogPosition).or(unknown) }
        })
    }

    /// The same for a position in front of what the tables cover.
    fn next_in_tables(&self, view: &View, position: LogPosition) -> Result<Option<LogPosition>, NotReady> {
        let from = view.at(position);
        for (index, segment) in view.segments.iter().enumerate().skip(from) {
            let table = match segment {
                Segment::Missing { from, .. } => return Ok(Some(position.max(*from))),
                Segment::Table(table) => table,
            };
            let next = (|| {
                let after = table.starts_up_to(position.0)?;
                // Each table has the first record that readers see in it, so a near one lies in the same table.
                if index == from && after > 0 && position.0 - table.start(after - 1)? < RECORD_STARTS_BYTES {
                    return Ok(Some(position));
                }
                if after < table.start_count() {
                    table.start(after).map(|start| Some(LogPosition(start)))
                } else {
                    Ok(None)
                }
            })();
            if let Some(next) = next.map_err(|damage: Damage| self.lost(table, &damage))? {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }
}
