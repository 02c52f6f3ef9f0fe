//! The chore that repairs damage to the committed log with the bytes of another node.
//!
//! Takes what readers, the sealer and the scrubber report, looks at it once more, asks the other nodes in turn, the leader
//! first, and writes what they have. Damage that cannot be repaired now is tried again, later and later; it is logged when
//! it is found, when it is repaired, and now and then in between.
//!
//! Promises: only what is committed here is touched, with bytes that another node of this cluster has committed
//! ([`repair_range`] checks them); bounded memory. Leaves to others: finding damage, header and footer pages, and what is
//! done about it before the node has started.
//!
//! It waits for other nodes, so that it must have a thread of its own. One that hangs delays other repairs, by at most 12
//! seconds for each request; when this node stops, it is waited for no longer than two seconds.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Chore, Next, PeerSource};
use crate::codec::record::{RecordError, RecordView};
use crate::engine::Published;
use crate::gossip::Directory;
use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::ring::Way;
use crate::security::Plane;
use crate::storage::{
    COLD_READ_BYTES, ChunkFooter, ChunkLayout, ColdFile, Damage, DamageReports, Disk, FetchError, FileDisk, FileName,
    LogReader, PAGE_BYTES, RepairError, Repaired, StorageFigures, find_damage, repair_range,
};
use crate::types::{ClusterId, LogPosition, NodeId};

/// Damaged ranges that are remembered; more are forgotten, and found again.
const TASKS_MAX: usize = 1024;

/// How often new reports are looked for.
const LOOK_REST: Duration = Duration::from_millis(100);

/// Until a failed repair is tried again: the first time, and at most.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A repair that fails again and again is logged so often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What the repairer works on.
#[derive(Debug)]
pub struct RepairerLinks {
    /// The data directory.
    pub disk: Arc<FileDisk>,
    /// Its log.
    pub log: LogReader,
    /// This node.
    pub node: NodeId,
    /// How far the log is committed, its epochs, and who leads.
    pub published: Arc<Published>,
    /// Where the other nodes are.
    pub directory: Directory,
    /// What is to be repaired.
    pub damage: DamageReports,
    /// For `/stats`.
    pub figures: Arc<StorageFigures>,
    /// False on a node that is a cluster alone: nobody else has its log.
    pub has_peers: bool,
    /// How the others are reached.
    pub way: Way,
    /// How the internal plane is closed.
    pub plane: Plane,
}

/// See the module.
#[derive(Debug)]
pub struct Repairer {
    links: RepairerLinks,
    tasks: VecDeque<Task>,
    /// True when its thread is to stop.
    interrupt: Arc<AtomicBool>,
}

/// Damage that was found and is not repaired yet.
#[derive(Debug)]
struct Task {
    damage: Damage,
    tries: u32,
    due: Instant,
    complained_at: Option<Instant>,
    /// No other node has a record that ends where the damage was thought to end: it goes to the chunk's end for now.
    is_wide: bool,
}

/// What came of looking at a task.
enum Outcome {
    /// There is nothing (more) to repair.
    Whole,
    /// A range was repaired; there may be more.
    Repaired(Damage, Repaired),
    /// Not now, and why.
    Later(String),
}

impl Repairer {
    /// A repairer without work.
    #[must_use]
    pub fn new(links: RepairerLinks) -> Repairer {
        Repairer { links, tasks: VecDeque::new(), interrupt: Arc::default() }
    }

    fn layout(&self) -> ChunkLayout {
        self.links.log.layout()
    }

    fn take_reports(&mut self, now: Instant) {
        for _ in 0..TASKS_MAX {
            let Some(damage) = self.links.damage.take() else { break };
            let is_known = |task: &Task| task.damage.chunk == damage.chunk && overlap(&task.damage, &damage);
            if self.tasks.iter().any(is_known) || self.tasks.len() >= TASKS_MAX {
                continue;
            }
            self.links.figures.damage_found.fetch_add(1, Ordering::Relaxed);
            let offset = self.layout().file_offset(damage.from);
            tracing::error!(chunk = damage.chunk, position = %damage.from, end = %damage.to, offset,
                reason = damage.reason, "the log is damaged in {}: {}", FileName::Chunk(damage.chunk), self.what_next());
            self.tasks.push_back(Task { damage, tries: 0, due: now, complained_at: None, is_wide: false });
        }
        self.show_waiting();
    }

    fn what_next(&self) -> &'static str {
        if self.links.has_peers {
            "it is not served, and repaired from another node"
        } else {
            "it is not served. No other node has this log: stop this one, restore the file from a backup, and start it again"
        }
    }

    fn show_waiting(&self) {
        self.links.figures.damage_waiting.store(self.tasks.len() as u64, Ordering::Relaxed);
    }

    fn work(&self, task: &mut Task) -> Outcome {
        let limit = self.links.published.committed().min(self.links.published.flushed());
        if task.damage.from >= limit {
            return Outcome::Later(format!("this node knows the log to be committed up to {limit} only"));
        }
        let damage = match find_damage(&*self.links.disk, self.layout(), &task.damage, limit) {
            Ok(Some(damage)) => damage,
            Ok(None) if self.is_another(&task.damage) => task.damage.clone(),
            Ok(None) => return self.write_back(&task.damage, limit),
            Err(error) => return Outcome::Later(error.to_string()),
        };
        let to = if task.is_wide { self.chunk_end(&damage).min(limit) } else { damage.to };
        let damage = Damage { to, ..damage };
        match self.repair(&damage) {
            Ok(repaired) => Outcome::Repaired(damage, repaired),
            Err((words, is_cut_elsewhere)) => {
                task.is_wide = is_cut_elsewhere && !task.is_wide;
                Outcome::Later(words)
            }
        }
    }

    /// The records of a reported range check out as readers see them, in the page cache: the disk may have others all the
    /// same, which is what the scrubber looks at. Then what is in memory is written once more.
    fn write_back(&self, reported: &Damage, limit: LogPosition) -> Outcome {
        let damage = Damage { to: reported.to.min(limit), ..reported.clone() };
        match write_back(&*self.links.disk, self.layout(), &damage) {
            Ok(0) => Outcome::Whole,
            Ok(bytes) => {
                let source = "this node's own memory: only the disk had lost it".to_owned();
                Outcome::Repaired(damage, Repaired { bytes, records: 0, source })
            }
            Err(error) => Outcome::Later(format!("{}: {error}", FileName::Chunk(damage.chunk))),
        }
    }

    /// True for a whole sealed chunk whose records check out but are not those that were sealed: an old version of a page,
    /// for example, or a write that went to the wrong place.
    fn is_another(&self, reported: &Damage) -> bool {
        let (start, end) = (self.layout().chunk_start(reported.chunk), self.chunk_end(reported));
        (reported.from, reported.to) == (start, end)
            && self.checksums(reported.chunk).is_some_and(|(found, sealed)| found != sealed)
    }

    fn chunk_end(&self, damage: &Damage) -> LogPosition {
        self.layout().chunk_start(damage.chunk + 1)
    }

    /// Asks one node after the other. The error has the words of all, and whether one of them has its records cut elsewhere.
    fn repair(&self, damage: &Damage) -> Result<Repaired, (String, bool)> {
        let view = self.links.published.view();
        let Some(cluster) = view.cluster else { return Err(("this node is in no cluster yet".to_owned(), false)) };
        let (mut words, mut is_cut_elsewhere) = (Vec::new(), false);
        for source in self.peers(cluster, view.leader) {
            match repair_range(&*self.links.disk, self.layout(), &view.epochs, damage, &source) {
                Ok(repaired) => return Ok(repaired),
                Err(error) => {
                    is_cut_elsewhere |= matches!(&error, RepairError::Fetch(FetchError::Refused { status: 400, .. }));
                    words.push(error.to_string());
                    if matches!(error, RepairError::Io { .. } | RepairError::NotKept { .. }) {
                        // Another source would not help.
                        break;
                    }
                }
            }
        }
        let words = if words.is_empty() { "no other node is known".to_owned() } else { words.join("; ") };
        Err((words, is_cut_elsewhere))
    }

    fn peers(&self, cluster: ClusterId, leader: Option<NodeId>) -> Vec<PeerSource> {
        let mut nodes = self.links.directory.nodes();
        nodes.retain(|known| known.node != self.links.node);
        nodes.sort_by_key(|known| (Some(known.node) != leader, !known.is_alive));
        let addresses: Vec<SocketAddr> = nodes.iter().map(|known| known.addresses.int_http).collect();
        addresses
            .into_iter()
            .map(|address| {
                PeerSource::new(cluster, address)
                    .by(self.links.way.clone(), self.links.plane.clone())
                    .until(Arc::clone(&self.interrupt))
            })
            .collect()
    }

    /// Notes what came of a task; true when it is over.
    fn settle(&self, task: &mut Task, outcome: Outcome) -> bool {
        let now = Instant::now();
        if !matches!(outcome, Outcome::Later(_)) {
            // A page that could not be read is zeros in the mapping still.
            self.links.log.forget(task.damage.chunk);
        }
        match outcome {
            Outcome::Whole => true,
            Outcome::Repaired(damage, repaired) => {
                self.links.figures.damage_repaired.fetch_add(1, Ordering::Relaxed);
                tracing::info!(chunk = damage.chunk, position = %damage.from, end = %damage.to,
                    bytes = repaired.bytes, records = repaired.records, "the log is repaired from {}", repaired.source);
                self.check_footer(damage.chunk);
                // There may be more in what was reported.
                (task.damage.from, task.tries, task.due, task.is_wide) = (damage.to, 0, now, false);
                task.damage.from >= task.damage.to
            }
            Outcome::Later(words) => {
                let rest = RETRY_FIRST.saturating_mul(1 << task.tries.min(16)).min(RETRY_MAX);
                (task.tries, task.due) = (task.tries.saturating_add(1), now + rest);
                if self.links.has_peers && task.complained_at.is_none_or(|at| now - at >= COMPLAIN_EVERY) {
                    task.complained_at = Some(now);
                    tracing::warn!("no repair yet of {}: {words}; it is tried again", task.damage);
                }
                false
            }
        }
    }

    /// A sealed chunk must have the checksum again that its footer says. When it has not there is more damage, which its
    /// own reader reports.
    fn check_footer(&self, chunk: u32) {
        match self.checksums(chunk) {
            Some((found, sealed)) if found == sealed => {
                tracing::info!(chunk, "the checksum of the whole chunk fits its footer again");
            }
            Some((found, sealed)) => {
                tracing::warn!(
                    chunk,
                    "the checksum of the whole chunk is {found:08x}, its footer says {sealed:08x}: there \
                    is more damage, and the scrubber finds it"
                );
            }
            None => {}
        }
    }

    /// The checksum of a sealed chunk's log bytes, and that in its footer; `None` when it is not sealed.
    fn checksums(&self, chunk: u32) -> Option<(u32, u32)> {
        let layout = self.layout();
        let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
        self.links.disk.read_at(FileName::Chunk(chunk), layout.footer_offset(), &mut page).ok()?;
        let footer = ChunkFooter::decode(&page, chunk, layout).ok().flatten()?;
        let mut file = ColdFile::open(&self.links.disk, chunk).ok()?;
        let (mut found, mut at) = (0, CHUNK_HEADER_BYTES);
        while at < layout.footer_offset() {
            let bytes = file.read(at, layout.footer_offset() - at).ok()?;
            found = crc32c::crc32c_append(found, bytes);
            at += bytes.len() as u64;
        }
        Some((found, footer.crc))
    }
}

impl Chore for Repairer {
    fn name(&self) -> &'static str {
        "repairer"
    }

    fn interrupt(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.interrupt))
    }

    fn step(&mut self, now: Instant) -> Next {
        self.take_reports(now);
        let due = (0..self.tasks.len()).filter(|&index| self.tasks[index].due <= now);
        let Some(index) = due.min_by_key(|&index| self.tasks[index].due) else { return Next::After(LOOK_REST) };
        let mut task = self.tasks.remove(index).expect("just seen");
        let outcome = self.work(&mut task);
        if !self.settle(&mut task, outcome) {
            self.tasks.push_back(task);
        }
        self.show_waiting();
        Next::Now
    }
}

/// Writes the records of a range as they are in memory where the disk has them otherwise or not at all; gives the bytes
/// written. Without a mapping: what cannot be read must be an error here, not the end of the process.
fn write_back(disk: &dyn Disk, layout: ChunkLayout, damage: &Damage) -> io::Result<u64> {
    let name = FileName::Chunk(damage.chunk);
    // Good records from `at` on that were not compared yet.
    let (mut at, mut memory, mut written) = (damage.from, Vec::new(), 0);
    loop {
        let end = at.plus(memory.len() as u64);
        let is_last = end >= damage.to;
        if !is_last {
            read_records(disk, layout, end, damage.to, &mut memory)?;
        }
        // Whole pages, as far as they belong to the range: see `repair_range`.
        let offset = layout.file_offset(at);
        let kept = if is_last { 0 } else { (offset + memory.len() as u64) % PAGE_BYTES };
        let rest = memory.split_off(memory.len() - (kept as usize).min(memory.len()));
        let mut found = vec![0; memory.len()];
        let is_same = disk.read_cold(name, offset, &mut found).is_ok() && found == memory;
        if !is_same {
            disk.write_at(name, offset, &memory)?;
            written += memory.len() as u64;
        }
        (at, memory) = (at.plus(memory.len() as u64), rest);
        if is_last {
            break;
        }
    }
    if written > 0 {
        disk.sync(name)?;
    }
    Ok(written)
}

/// Puts whole records from `from` on behind `records`: one at least, and no more than begin before `to`. They are checked
/// here, in the bytes that will be written: an earlier reading may have been another.
fn read_records(
    disk: &dyn Disk,
    layout: ChunkLayout,
    from: LogPosition,
    to: LogPosition,
    records: &mut Vec<u8>,
) -> io::Result<()> {
    let (room, start) = (layout.room(from), records.len());
    let mut length = to.since(from).min(COLD_READ_BYTES as u64).max(RECORD_HEADER_BYTES as u64);
    let end = loop {
        records.resize(start + length as usize, 0);
        disk.read_at(FileName::Chunk(layout.chunk_of(from)), layout.file_offset(from), &mut records[start..])?;
        let (mut at, mut end) = (from, start);
        let error = loop {
            match RecordView::check(&records[end..], at, layout.room(at)) {
                Ok(record) => (at, end) = (record.header.end(), end + record.bytes().len()),
                Err(error) => break error,
            }
            if at >= to {
                break RecordError::Incomplete { needed: 0, available: 0 };
            }
        };
        match error {
            _ if end > start => break end,
            // The first is longer.
            RecordError::Incomplete { needed, .. } if length < needed as u64 && needed as u64 <= room => {
                length = needed as u64;
            }
            error => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("log position {from}: {error}"))),
        }
    };
    records.truncate(end);
    Ok(())
}

fn overlap(one: &Damage, other: &Damage) -> bool {
    one.from < other.to && other.from < one.to
}

#[cfg(test)]
#[path = "repairer_tests.rs"]
mod tests;
