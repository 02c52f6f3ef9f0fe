//! The upkeep of an index that has tables, in small steps of one thread.
//!
//! It brings the index up to date where that is far behind after a start, writes the part that is complete to a table,
//! indexes damaged pieces of the log again, merges tables, and reads them round and round to see whether they are good. A
//! step takes some milliseconds; what fails is tried again after a while, and nothing is lost by that: the log is there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::limits::{
    INDEX_MEMORY_BYTES, INDEX_MEMORY_EVENTS, INDEX_MEMORY_LOG_BYTES, INDEX_MERGE_TABLES, INDEX_SCRUB_BYTES_PER_SECOND,
    INDEX_STEP_BYTES,
};
use crate::storage::{ChunkLayout, DamageReports, LogRead, report_damage};
use crate::types::LogPosition;

use super::entry::{Summary, metadata_bytes};
use super::merge::{self, MergeJob, Trouble};
use super::misfit::MISFIT_PAUSE;
use super::open::Complete;
use super::pages::PAGE;
use super::parts::Tables;
use super::room::{Room, is_want_of_room};
use super::streams::{EntryPlace, StreamEntry, Streams};
use super::writer::TableWriter;
use super::{Attempt, Index, IndexError};

/// After trouble with the disk or the log it is tried again.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// Nothing to do: how often that is looked at.
const IDLE_PAUSE: Duration = Duration::from_millis(250);

/// Between two lines about a rebuild.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

/// Log that is applied in one step.
const APPLY_BYTES: u64 = 4 << 20;

/// Chunks of the log after which a table is written, at the latest.
const TABLE_CHUNKS: u64 = 4;

/// When the newest part is complete, and how large steps are.
#[derive(Clone, Copy, Debug)]
pub struct UpkeepBounds {
    /// Events in memory.
    pub events: u64,
    /// Bytes of memory.
    pub bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes written or read in a step.
    pub step_bytes: u64,
    /// Tables that are merged at least.
    pub merge_tables: usize,
}

impl Default for UpkeepBounds {
    fn default() -> UpkeepBounds {
        UpkeepBounds {
            events: INDEX_MEMORY_EVENTS,
            bytes: INDEX_MEMORY_BYTES,
            log_bytes: INDEX_MEMORY_LOG_BYTES,
            step_bytes: INDEX_STEP_BYTES,
            merge_tables: INDEX_MERGE_TABLES,
        }
    }
}

impl UpkeepBounds {
    /// For a log that is cut so: a table comes after a few chunks at the latest, also where those are small.
    #[must_use]
    pub fn of(layout: ChunkLayout) -> UpkeepBounds {
        UpkeepBounds {
            log_bytes: INDEX_MEMORY_LOG_BYTES.min(TABLE_CHUNKS * layout.chunk_size),
            ..UpkeepBounds::default()
        }
    }
}

/// What the upkeep works with.
pub struct UpkeepLinks {
    /// The index, opened from files.
    pub index: Arc<Index>,
    /// The log that it is about.
    pub log: Box<dyn LogRead + Send>,
    /// How that is cut.
    pub layout: ChunkLayout,
    /// How far the log is durable on this node: no table goes beyond that.
    pub durable: Box<dyn Fn() -> LogPosition + Send>,
    /// Where damage to the log is reported that is met on the way.
    pub damage: DamageReports,
}

/// Writes a part to a table.
#[derive(Debug)]
struct WriteJob {
    complete: Complete,
    places: Vec<EntryPlace>,
    done: usize,
    writer: TableWriter,
}

/// A piece of the log that is indexed again.
#[derive(Debug)]
struct Rebuild {
    index: Index,
    from: LogPosition,
    to: LogPosition,
    write: Option<WriteJob>,
}

/// How far long work is.
#[derive(Debug)]
struct Progress {
    began: Instant,
    said: Instant,
    from: LogPosition,
    to: LogPosition,
    events: u64,
}

/// Why a step failed.
enum Failure {
    Disk(io::Error),
    Log(IndexError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Disk(error)
    }
}

/// See the module.
pub struct Upkeep {
    links: UpkeepLinks,
    bounds: UpkeepBounds,
    /// The part that is complete.
    complete: Option<Complete>,
    write: Option<WriteJob>,
    rebuild: Option<Rebuild>,
    merge: Option<MergeJob>,
    progress: Option<Progress>,
    /// For new tables, and for merged ones, which are larger.
    room_to_write: Room,
    room_to_merge: Room,
    /// The table and page to be checked next.
    scrub: (u64, u64),
    /// Times that all tables and the manifest were checked.
    rounds: u64,
    pause_until: Option<Instant>,
    /// Parts that do not fit together are not dropped again before this.
    misfit_pause_until: Option<Instant>,
    room: Vec<u8>,
}

impl Upkeep {
    /// The upkeep of `links.index`, which was opened from files.
    #[must_use]
    pub fn new(links: UpkeepLinks, bounds: UpkeepBounds) -> Upkeep {
        assert!(links.index.tables.is_some(), "an index in memory needs no upkeep");
        Upkeep {
            links,
            bounds,
            complete: None,
            write: None,
            rebuild: None,
            merge: None,
            progress: None,
            room_to_write: Room::default(),
            room_to_merge: Room::default(),
            scrub: (0, 0),
            rounds: 0,
            pause_until: None,
            misfit_pause_until: None,
            room: Vec::new(),
        }
    }

    fn tables(&self) -> &Tables {
        self.links.index.tables.as_ref().expect("checked when it was made")
    }

    /// Times that all tables and the manifest were checked, since it was made.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// One step. Says how long nothing need be done then; `None` when there is more to do now.
    pub fn step(&mut self, now: Instant) -> Option<Duration> {
        if let Some(left) =
            self.pause_until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
        {
            return Some(left);
        }
        self.pause_until = None;
        match self.work(now) {
            Ok(true) => None,
            Ok(false) => Some(self.scrub_step()),
            Err(failure) => {
                match failure {
                    Failure::Disk(error) => {
                        tracing::error!(%error, "a table of the index could not be written; it is tried again");
                        if is_want_of_room(&error) {
                            self.room_to_write.is_full(now);
                            self.room_to_merge.is_full(now);
                        }
                    }
                    Failure::Log(error) => {
                        tracing::error!(%error, "the index cannot be rebuilt; it is tried again");
                        self.report(&error);
                    }
                }
                self.give_up();
                self.pause_until = Some(now + TROUBLE_PAUSE);
                Some(TROUBLE_PAUSE)
            }
        }
    }

    /// Tells who repairs the log what is wrong with it.
    fn report(&self, error: &IndexError) {
        if let IndexError::Record { position, source } = error {
            let UpkeepLinks { index, log, layout, damage, .. } = &self.links;
            report_damage(damage, &**log, *layout, *position, index.walk_limit(), source);
        }
    }

    /// Begins anew with whatever is begun; a part that is complete stays so.
    fn give_up(&mut self) {
        if let Some(job) = self.write.take() {
            self.complete = Some(job.give_up());
        }
        if let Some(job) = self.rebuild.take().and_then(|rebuild| rebuild.write) {
            job.give_up();
        }
        if let Some(merge) = self.merge.take() {
            merge.abandon();
        }
    }

    /// True when something was done.
    fn work(&mut self, now: Instant) -> Result<bool, Failure> {
        self.tables().save_manifest()?;
        let mut is_busy = self.drop_misfit(now);
        is_busy |= self.write_step(now)?;
        is_busy |= self.catch_up(now)?;
        is_busy |= self.rebuild_step(now)?;
        if self.rebuild.is_none() {
            is_busy |= self.merge_step(now)?;
        }
        Ok(is_busy)
    }

    // --- writing ---

    /// True when the newest part has grown so much that it should be written to a table.
    fn is_due(&self) -> bool {
        let index = &self.links.index;
        let events = index.event_count.load(Ordering::Relaxed) - index.older.events.load(Ordering::Relaxed);
        let log_bytes = index.applied().since(self.tables().view().covered);
        let bytes = index.stream_bytes.load(Ordering::Relaxed);
        let is_misfit = index.misfit_end().is_some_and(|end| self.tables().view().covered < end);
        log_bytes > 0
            && (is_misfit
                || events >= self.bounds.events
                || bytes >= self.bounds.bytes
                || log_bytes >= self.bounds.log_bytes)
    }

    fn write_step(&mut self, now: Instant) -> Result<bool, Failure> {
        if self.complete.is_none() && self.write.is_none() && self.is_due() {
            self.complete = Some(self.links.index.complete_part());
        }
        let durable = (self.links.durable)();
        if let Some(complete) = self.complete.take_if(|complete| complete.to <= durable) {
            if !self.has_room_to_write(complete.bytes(), now) {
                self.complete = Some(complete);
                return Ok(false);
            }
            let slot = &self.links.index.slots[complete.slot];
            self.write = Some(WriteJob::new(self.tables(), slot, complete));
        }
        let Some(mut job) = self.write.take() else { return Ok(false) };
        let index = Arc::clone(&self.links.index);
        match job.step(&index.slots[job.complete.slot], self.bounds.step_bytes) {
            Ok(false) => self.write = Some(job),
            Ok(true) => self.part_is_written(job)?,
            Err(error) => {
                self.complete = Some(job.give_up());
                return Err(error.into());
            }
        }
        Ok(true)
    }

    fn has_room_to_write(&mut self, bytes: u64, now: Instant) -> bool {
        let tables = self.links.index.tables.as_ref().expect("checked when it was made");
        self.room_to_write.has(bytes, tables, now)
    }

    fn part_is_written(&mut self, job: WriteJob) -> Result<(), Failure> {
        let WriteJob { complete, writer, .. } = job;
        let id = writer.id();
        let opened = writer
            .finish(&complete.extras)
            .map_err(Failure::Disk)
            .and_then(|()| self.tables().open(id).map_err(|damage| Failure::Disk(io::Error::other(damage))));
        match opened {
            Ok(table) => self.links.index.part_is_written(&complete, &table),
            Err(failure) => {
                self.complete = Some(complete);
                return Err(failure);
            }
        }
        self.tables().save_manifest()?;
        Ok(())
    }

    // --- after a start ---

    /// Applies the log where the index is far behind it.
    fn catch_up(&mut self, now: Instant) -> Result<bool, Failure> {
        let index = &self.links.index;
        if !index.is_behind() {
            return Ok(false);
        }
        let limit = LogPosition(index.behind_to.load(Ordering::Acquire));
        if index.applied() >= limit {
            index.is_behind.store(false, Ordering::Release);
            self.tables().rebuilds.fetch_add(1, Ordering::Relaxed);
            self.end_progress(now);
            return Ok(true);
        }
        if self.progress.is_none() {
            self.progress = Some(Progress::begin(now, index.applied(), limit));
        }
        // Memory is bounded: what is complete is written first.
        if (self.write.is_some() || self.complete.is_some()) && self.is_due() {
            return Ok(self.write.is_some());
        }
        let events = || index.event_count.load(Ordering::Relaxed);
        let before = events();
        let applied = index.try_apply_of(&*self.links.log, self.links.layout, limit, APPLY_BYTES);
        let outcome = applied.map_err(Failure::Log)?;
        let (events, applied) = (events() - before, index.applied());
        if let Some(progress) = &mut self.progress {
            progress.went_on(now, applied, events);
        }
        Ok(outcome == Attempt::Advanced)
    }

    fn end_progress(&mut self, now: Instant) {
        if let Some(progress) = self.progress.take() {
            progress.end(now);
        }
    }

    // --- damage ---

    /// Parts that do not fit together are used no more. True when there were any: the manifest must say so next.
    fn drop_misfit(&mut self, now: Instant) -> bool {
        if self.links.index.is_behind() || self.misfit_pause_until.is_some_and(|until| now < until) {
            return false;
        }
        let is_dropped = self.links.index.drop_misfit();
        if is_dropped {
            self.misfit_pause_until = Some(now + MISFIT_PAUSE);
        }
        is_dropped
    }

    fn rebuild_step(&mut self, now: Instant) -> Result<bool, Failure> {
        if self.links.index.is_behind() {
            return Ok(false);
        }
        let view = self.tables().view();
        let Some((from, to)) = view.missing() else {
            self.rebuild = None;
            self.end_progress(now);
            return Ok(false);
        };
        // It becomes one table after another, each not larger than this.
        let is_writing = self.rebuild.as_ref().is_some_and(|rebuild| rebuild.write.is_some());
        if !is_writing && !self.has_room_to_write(self.bounds.bytes.min(to.since(from)), now) {
            return Ok(false);
        }
        let mut rebuild = match self.rebuild.take() {
            // A table before it may have been lost meanwhile: that piece comes first then.
            Some(rebuild) if rebuild.from == from && rebuild.to <= to => rebuild,
            other => {
                if let Some(job) = other.and_then(|rebuild| rebuild.write) {
                    job.give_up();
                }
                let before = view.tables().take_while(|table| table.to() <= from).last();
                let transactions =
                    match before.filter(|table| table.to() == from).map(|table| (table, table.transactions())) {
                        Some((_, Ok(transactions))) => Some(transactions),
                        Some((table, Err(damage))) => {
                            self.links.index.lost(table, &damage);
                            return Ok(true);
                        }
                        None => None,
                    };
                self.progress.get_or_insert_with(|| Progress::begin(now, from, to));
                Rebuild { index: Index::piece(from, transactions), from, to, write: None }
            }
        };
        if let Some(mut job) = rebuild.write.take() {
            let outcome = job.step(&rebuild.index.slots[job.complete.slot], self.bounds.step_bytes);
            if matches!(outcome, Ok(true)) {
                return self.piece_is_written(job);
            }
            rebuild.write = Some(job);
            self.rebuild = Some(rebuild);
            return outcome.map(|_| true).map_err(Failure::Disk);
        }
        self.index_again(&mut rebuild, now)?;
        self.rebuild = Some(rebuild);
        Ok(true)
    }

    /// Applies some of the piece; when it is large enough for a table or at its end, that table is begun.
    fn index_again(&mut self, rebuild: &mut Rebuild, now: Instant) -> Result<(), Failure> {
        let index = &rebuild.index;
        let before = index.event_count.load(Ordering::Relaxed);
        index.try_apply_of(&*self.links.log, self.links.layout, rebuild.to, APPLY_BYTES).map_err(Failure::Log)?;
        let (events, applied) = (index.event_count.load(Ordering::Relaxed), index.applied());
        if let Some(progress) = &mut self.progress {
            progress.went_on(now, applied, events - before);
        }
        let is_large = events >= self.bounds.events || index.stream_bytes.load(Ordering::Relaxed) >= self.bounds.bytes;
        if is_large || applied >= rebuild.to {
            let complete = index.complete_piece(rebuild.from);
            rebuild.write = Some(WriteJob::new(self.tables(), &index.slots[complete.slot], complete));
        }
        Ok(())
    }

    fn piece_is_written(&mut self, job: WriteJob) -> Result<bool, Failure> {
        let WriteJob { complete, writer, .. } = job;
        let id = writer.id();
        writer.finish(&complete.extras)?;
        let index = Arc::clone(&self.links.index);
        let tables = index.tables.as_ref().expect("checked when it was made");
        let table = tables.open(id).map_err(io::Error::other)?;
        {
            let _changing = tables.changing.lock();
            match tables.view().with(&table, &[]) {
                Some(view) => index.change_places(|| tables.set_view(view)),
                // What lies there has changed meanwhile; the file is removed with the next manifest.
                None => tables.is_changed.store(true, Ordering::Release),
            }
        }
        tables.rebuilds.fetch_add(1, Ordering::Relaxed);
        tables.save_manifest()?;
        Ok(true)
    }

    // --- merging ---

    fn merge_step(&mut self, now: Instant) -> Result<bool, Failure> {
        let tables = self.links.index.tables.as_ref().expect("checked when it was made");
        let mut job = match self.merge.take() {
            // The log and others have gone on meanwhile.
            Some(job) if !self.room_to_merge.has(job.bytes_left(), tables, now) => {
                job.abandon();
                return Ok(false);
            }
            Some(job) => job,
            None => {
                let Some(chosen) = merge::choose(&tables.view(), self.bounds.merge_tables) else { return Ok(false) };
                let bytes = chosen.iter().map(|table| table.file_bytes()).sum();
                if !self.room_to_merge.has(bytes, tables, now) {
                    return Ok(false);
                }
                let id = tables.next_id.fetch_add(1, Ordering::Relaxed);
                MergeJob::new(Arc::clone(&tables.store), id, chosen)
            }
        };
        let outcome = match job.step(self.bounds.step_bytes) {
            Ok(false) => {
                self.merge = Some(job);
                return Ok(true);
            }
            Ok(true) => self.finish_merge(job),
            Err(trouble) => {
                job.abandon();
                Err(trouble)
            }
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(Trouble::Write(error)) => Err(error.into()),
            Err(Trouble::Damaged(table, damage)) => {
                self.links.index.lost(&table, &damage);
                Ok(true)
            }
        }
    }

    fn finish_merge(&mut self, job: MergeJob) -> Result<(), Trouble> {
        let (id, inputs) = (job.id(), job.input_ids());
        job.finish()?;
        let index = Arc::clone(&self.links.index);
        let tables = index.tables.as_ref().expect("checked when it was made");
        let table = tables.open(id).map_err(|damage| Trouble::Write(io::Error::other(damage)))?;
        {
            let _changing = tables.changing.lock();
            match tables.view().with(&table, &inputs) {
                Some(view) => {
                    tables.merges.fetch_add(1, Ordering::Relaxed);
                    index.change_places(|| tables.set_view(view));
                }
                // One of them was lost meanwhile.
                None => tables.is_changed.store(true, Ordering::Release),
            }
        }
        Ok(tables.save_manifest()?)
    }

    // --- checking ---

    /// Reads a little of the tables; gives the rest until the next time.
    fn scrub_step(&mut self) -> Duration {
        let pages = (INDEX_SCRUB_BYTES_PER_SECOND / PAGE as u64) * IDLE_PAUSE.as_millis() as u64 / 1000;
        let view = self.tables().view();
        let (id, page) = self.scrub;
        // By number: the order of the log is another one when a piece was indexed again.
        let Some(table) = view.tables().filter(|table| table.id() >= id).min_by_key(|table| table.id()) else {
            // Once in a round.
            self.tables().check_manifest();
            self.scrub = (0, 0);
            self.rounds += 1;
            return IDLE_PAUSE;
        };
        let first = if table.id() == id { page } else { 0 };
        if let Err(damage) = table.check(first, pages, &mut self.room) {
            self.links.index.lost(table, &damage);
        }
        let next = first + pages;
        self.scrub = if next < table.page_count() { (table.id(), next) } else { (table.id() + 1, 0) };
        IDLE_PAUSE
    }
}

impl WriteJob {
    /// Leaves no file behind, and gives back what is to be written still.
    fn give_up(self) -> Complete {
        self.writer.abandon();
        self.complete
    }

    fn new(tables: &Tables, slot: &Streams, complete: Complete) -> WriteJob {
        let places = slot.places();
        let id = tables.next_id.fetch_add(1, Ordering::Relaxed);
        let piece = (complete.from.0, complete.to.0);
        let writer = TableWriter::new(Arc::clone(&tables.store), id, piece, places.len() as u64);
        WriteJob { complete, places, done: 0, writer }
    }

    /// Writes about `bytes`; true when all streams are written.
    fn step(&mut self, slot: &Streams, bytes: u64) -> io::Result<bool> {
        let until = self.writer.bytes() + bytes;
        while let Some(&place) = self.places.get(self.done) {
            let writer = &mut self.writer;
            slot.at(place, |entry| write_stream(writer, entry)).expect("a complete part does not change")?;
            self.done += 1;
            if self.writer.bytes() >= until {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn write_stream(writer: &mut TableWriter, entry: &StreamEntry) -> io::Result<()> {
    let part = entry.part();
    let summary = Summary {
        count: part.count as u64,
        tombstone: part.tombstone,
        metadata: part.metadata.as_deref().map(metadata_bytes),
    };
    writer.begin(entry.hash(), entry.name().as_bytes(), summary, part.first);
    entry.here().iter().try_for_each(|&position| writer.position(position))?;
    writer.end()
}

impl Progress {
    fn begin(now: Instant, from: LogPosition, to: LogPosition) -> Progress {
        tracing::info!(%from, %to, "the index is being rebuilt from the log; what needs this part is not ready yet");
        Progress { began: now, said: now, from, to, events: 0 }
    }

    fn went_on(&mut self, now: Instant, at: LogPosition, events: u64) {
        self.events += events;
        if now.duration_since(self.said) >= PROGRESS_PERIOD {
            self.said = now;
            let (done, all) = (at.0.saturating_sub(self.from.0), self.to.since(self.from).max(1));
            tracing::info!(
                events = self.events,
                events_per_second = self.rate(now),
                "rebuilding the index: {} % ({at} of {} bytes)",
                done.min(all) * 100 / all,
                self.to
            );
        }
    }

    fn rate(&self, now: Instant) -> u64 {
        let millis = u64::try_from(now.duration_since(self.began).as_millis()).unwrap_or(u64::MAX).max(1);
        self.events.saturating_mul(1000) / millis
    }

    fn end(&self, now: Instant) {
        tracing::info!(
            events = self.events,
            events_per_second = self.rate(now),
            seconds = now.duration_since(self.began).as_secs_f32(),
            "the index is complete again"
        );
    }
}
