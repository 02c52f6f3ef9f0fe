//! A node's index in the files: the folder that its tables are in, their upkeep, and what a crash does to them.
//!
//! The tables, their manifest, merges and rebuilds are those of the real index; only the folder is virtual. A power cut takes
//! what was not flushed, and may bring back what was removed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use parking_lot::Mutex;

use crate::index::{Index, TableFile, TableStore, Upkeep, UpkeepBounds, UpkeepLinks};
use crate::storage::{DamageReports, Recovered};
use crate::types::LogPosition;

use super::Checker;
use super::agenda::{MICROSECOND, MILLISECOND, Moment};
use super::node::Node;
use super::profile::within;
use super::world::{Event, World};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Once all files were checked so often since one has rotted, and the index is whole, they are sound: one round may have been
/// under way, and the manifest is written behind another.
const SOUND_ROUNDS: u64 = 3;

/// Steps in which an index must be whole at the end of a run.
const LAST_STEPS: u32 = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct VirtualFolder {
    /// What the system shows.
    files: Mutex<BTreeMap<String, Bytes>>,
    /// What a power cut leaves for certain, but for files that were removed.
    durable: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Tables get their names without being flushed.
    is_careless: AtomicBool,
}

#[derive(Debug)]
struct OpenFile(Bytes);

impl TableFile for OpenFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock();
        let from = bytes.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl TableStore for VirtualFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock();
        if offset == 0 {
            files.insert(name.to_owned(), Arc::default());
        }
        let mut file = files.get(name).ok_or(io::ErrorKind::NotFound)?.lock();
        file.truncate(offset as usize);
        file.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&self, name: &str) -> io::Result<()> {
        let bytes = self.files.lock().get(name).ok_or(io::ErrorKind::NotFound)?.lock().clone();
        self.durable.lock().insert(name.to_owned(), bytes);
        Ok(())
    }

    fn publish(&self, written: &str, name: &str) -> io::Result<()> {
        let file = self.files.lock().remove(written).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = file.lock().clone();
        if name != "manifest" && self.is_careless.load(Ordering::Relaxed) {
            bytes.truncate(bytes.len() / 2);
        }
        let mut durable = self.durable.lock();
        durable.remove(written);
        durable.insert(name.to_owned(), bytes);
        self.files.lock().insert(name.to_owned(), file);
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn TableFile>> {
        let files = self.files.lock();
        Ok(Arc::new(OpenFile(Arc::clone(files.get(name).ok_or(io::ErrorKind::NotFound)?))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn available_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl VirtualFolder {
    #[cfg(test)]
    fn be_careless(&self, is_careless: bool) {
        self.is_careless.store(is_careless, Ordering::Relaxed);
    }

    /// The power fails. Gives how many files were cut or gone.
    pub(super) fn lose_power(&self, random: &mut Rng) -> u64 {
        let (mut files, mut durable) = (self.files.lock(), self.durable.lock());
        durable.retain(|name, _| files.contains_key(name) || random.bool());
        let mut lost = 0;
        for (name, file) in files.iter() {
            let mut bytes = file.lock().clone();
            if durable.get(name).is_none_or(|kept| *kept != bytes) {
                lost += 1;
                if !durable.contains_key(name) && random.bool() {
                    bytes.truncate(random.usize(0..=bytes.len()));
                    durable.insert(name.clone(), bytes);
                }
            }
        }
        *files = durable.iter().map(|(name, bytes)| (name.clone(), Arc::new(Mutex::new(bytes.clone())))).collect();
        lost
    }

    /// Some bytes of some file change, also under those who have it open. False when there is none.
    pub(super) fn rot(&self, random: &mut Rng) -> bool {
        let (files, mut durable) = (self.files.lock(), self.durable.lock());
        let Some((name, file)) = files.iter().nth(random.usize(0..files.len().max(1))) else { return false };
        let mut bytes = file.lock();
        if bytes.is_empty() {
            return false;
        }
        let at = random.usize(0..bytes.len());
        let bit = 1 << random.u8(0..8);
        bytes[at] ^= bit;
        if let Some(byte) = durable.get_mut(name).and_then(|kept| kept.get_mut(at)) {
            *byte ^= bit;
        }
        true
    }
}

/// The upkeep of a node's index; gone with its process.
pub(super) struct Keeper {
    upkeep: Upkeep,
    /// Up to where the log is durable.
    durable: Arc<AtomicU64>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper")
    }
}

impl World {
    /// Opens a node's index on the tables that it has. `hint`: up to where the log is known to be committed.
    pub(super) fn open_index(&mut self, index: usize, recovered: &Recovered, hint: LogPosition) -> LogPosition {
        let seed = self.random.schedule.u64(..);
        let node = &self.nodes[index];
        #[cfg(test)]
        node.folder.be_careless(self.options.planted == Some(crate::consensus::PlantedBug::TableNotFlushed));
        let saved = Index::saved_in(&*node.folder).unwrap_or_default();
        let folder = Arc::clone(&node.folder) as Arc<dyn TableStore>;
        let opened = Index::open(folder, &*node.disk, self.layout, recovered.end, seed).expect("a folder");
        let (covered, is_whole) = (opened.applied(), opened.is_complete());
        self.coverage.note("index tables at start", opened.figures().tables);
        let node = &mut self.nodes[index];
        if (covered < saved || !is_whole) && node.index_rotten.is_none() && !node.is_damaged() {
            let detail = format!(
                "n{index} starts with an index up to {covered} of a log to {}, whose manifest says {saved}; {}",
                recovered.end,
                if is_whole { "it is whole" } else { "tables of it are missing" }
            );
            self.object(Checker::TablesKept, detail);
        }
        let hint = hint.max(covered);
        let limit = hint.min(recovered.end);
        // As the real server does: what is near is applied at once, otherwise the upkeep does it.
        if self.random.schedule.bool() {
            let applied = opened.apply_to(&*self.nodes[index].disk, self.layout, limit);
            if let Err(error) = applied
                && self.nodes[index].rotten.is_empty()
            {
                self.object(Checker::IndexAgrees, format!("n{index}: {error}"));
            }
        }
        opened.set_behind(limit);
        let opened = Arc::new(opened);
        let durable = Arc::new(AtomicU64::new(limit.0));
        let reached = Arc::clone(&durable);
        let node = &mut self.nodes[index];
        let links = UpkeepLinks {
            index: Arc::clone(&opened),
            log: Box::new(Arc::clone(&node.disk)),
            layout: self.layout,
            durable: Box::new(move || LogPosition(reached.load(Ordering::Relaxed))),
            damage: DamageReports::default(),
        };
        let events = self.profile.index_events;
        let bounds = UpkeepBounds { events, step_bytes: 512, merge_tables: 3, ..UpkeepBounds::default() };
        // The rounds of a new upkeep begin anew.
        node.index_rotten = node.index_rotten.map(|_| 0);
        node.applied = opened;
        node.keeper = Some(Keeper { upkeep: Upkeep::new(links, bounds), durable });
        hint
    }

    pub(super) fn plan_upkeep(&mut self, index: usize, delay: Moment) {
        self.agenda.plan(self.now + delay, Event::Upkeep { node: index, life: self.nodes[index].life });
    }

    /// One step of the upkeep.
    pub(super) fn upkeep(&mut self, index: usize) {
        let pause = self.upkeep_step(index);
        let random = &mut self.random.disk;
        let delay = match pause {
            None => within(random, (10 * MICROSECOND, 2 * MILLISECOND)),
            Some(pause) => pause,
        };
        self.plan_upkeep(index, delay);
    }

    /// `None` when there is more to do now.
    fn upkeep_step(&mut self, index: usize) -> Option<Moment> {
        let now = self.began + std::time::Duration::from_nanos(self.now);
        let node = &mut self.nodes[index];
        let flushed = node.engine.as_ref().map_or(LogPosition::ZERO, |engine| engine.positions().1);
        let before = node.applied.figures();
        let keeper = node.keeper.as_mut()?;
        keeper.durable.store(flushed.0, Ordering::Relaxed);
        let pause = keeper.upkeep.step(now);
        let (after, rounds) = (node.applied.figures(), keeper.upkeep.rounds());
        let has_misfit = node.applied.has_misfit() || after.misfits > before.misfits;
        let is_whole = node.applied.is_complete();
        let was_mended = node.index_rotten.take_if(|at| is_whole && rounds >= *at + SOUND_ROUNDS).is_some();
        self.coverage.note("index merges", after.merges.saturating_sub(before.merges));
        self.coverage.note("index tables found damaged", after.damaged.saturating_sub(before.damaged));
        self.coverage.note("index rebuilds", after.rebuilds.saturating_sub(before.rebuilds));
        self.coverage.note("index tables written", after.tables.saturating_sub(before.tables));
        self.coverage.note("index sound again after rot", u64::from(was_mended));
        // Checksums find what has rotted; so the tables are wrong by themselves.
        if has_misfit {
            self.object(Checker::IndexAgrees, format!("n{index}: parts of the index do not fit together"));
        }
        pause.map(|pause| pause.as_nanos() as Moment)
    }

    /// At the end of a run: what was damaged is made again before it is compared.
    pub(super) fn complete_index(&mut self, index: usize) {
        for _ in 0..LAST_STEPS {
            if self.nodes[index].applied.is_complete() {
                return;
            }
            if let Some(pause) = self.upkeep_step(index) {
                self.now += pause;
            }
        }
        self.object(Checker::TablesKept, format!("n{index} does not make its index whole again"));
    }
}

impl Node {
    /// A file of its index has rotted just now.
    pub(super) fn index_has_rotten(&mut self) {
        self.index_rotten = Some(self.keeper.as_ref().map_or(0, |keeper| keeper.upkeep.rounds()));
    }
}
