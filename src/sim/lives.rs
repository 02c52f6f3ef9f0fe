//! The lives of a node: how it starts on what its disk holds, and how a life ends.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Engine, EngineOptions};
use crate::storage::{Disk, DurableState, Recovered, RecoveryError, recover};
use crate::types::LogPosition;

use super::Checker;
use super::agenda::MILLISECOND;
#[cfg(test)]
use super::disk::UnflushedDisk;
use super::faults::Undo;
use super::kinds::Fault;
use super::profile::pick;
use super::world::{Event, World};

impl World {
    /// Starts a node's process on what its disk holds.
    pub(super) fn start(&mut self, index: usize) {
        if self.nodes[index].is_up() {
            return;
        }
        self.nodes[index].host_up = true;
        let (mut state, recovered) = match self.recover_and_mend(index) {
            Ok(Some(found)) => found,
            Ok(None) => {
                // Nobody can help now.
                self.agenda.plan(self.now + 200 * MILLISECOND, Event::Undo(Undo::Start(index)));
                return;
            }
            Err(reason) => return self.object(Checker::Recovery, format!("n{index} cannot start: {reason}")),
        };
        self.line(index, "starts", recovered.end.0, u64::from(recovered.chunk_count));
        self.count("starts");
        self.coverage.note("sealed chunks believed", u64::from(self.layout.chunk_of(recovered.sealed)));
        if recovered.cut.is_some() {
            self.count("starts with a torn tail");
        }
        if recovered.is_suspect {
            self.count("starts of a suspect");
        }
        self.check_recovered(index, &recovered);
        let (election_timeout, heartbeat_interval, priority) = self.timing();
        let options = EngineOptions {
            layout: self.layout,
            log_buffer_bytes: self.profile.log_buffer_bytes,
            election_timeout,
            heartbeat_interval,
            priority,
            seed: self.random.schedule.u64(..),
            chunks_ready: recovered.chunk_count,
            window_bytes: self.profile.window_bytes,
            #[cfg(test)]
            planted: self.options.planted,
        };
        state.commit_hint = self.open_index(index, &recovered, state.commit_hint);
        let node = &mut self.nodes[index];
        (node.marks_rotten, node.mending_since) = (false, None);
        node.mark_sequence = recovered.mark.map_or(0, |mark| mark.sequence);
        node.marked_at = self.now;
        node.readable = LogPosition::ZERO;
        node.watched = node.watched.of_next_start();
        let now = node.clock.ticks(self.now);
        let engine = Engine::new(options, state, recovered, Arc::clone(&node.applied), now);
        node.engine = Some(engine.expect("memory for a log buffer"));
        self.reset_links(index);
        self.plan_turn(index, self.now);
        let delay = self.random.schedule.u64(0..=250 * MILLISECOND);
        self.plan_upkeep(index, delay);
        if !self.nodes[index].rotten.is_empty() || self.nodes[index].pages_rotten {
            self.plan_scrub(index);
        }
    }

    /// With new options: what an operator may have set since the last start, not the same on all nodes.
    fn timing(&mut self) -> (Duration, Duration, i32) {
        let (timeout, interval) = (self.profile.election_timeout, self.profile.heartbeat_interval);
        if !self.profile.has(Fault::NewOptions) || self.settling.is_some() {
            return (timeout, interval, 0);
        }
        let random = &mut self.random.schedule;
        let priority = pick(random, &[0, 0, 1, 5, 9]);
        (timeout * random.u32(80..=200) / 100, interval * random.u32(50..=150) / 100, priority)
    }

    /// A member's disk is gone, unless too few of the others would be left; the node that comes back is a new one.
    pub(super) fn replace_disk(&mut self, index: usize) {
        if !self.can_lose(index) {
            return;
        }
        self.crash(index, true);
        let lost = self.nodes[index].replace_disk(self.layout);
        self.lost_disks.push(lost);
        self.line(index, "replaced", 0, 0);
        self.count("disks replaced");
        self.undo_later(Undo::Start(index));
    }

    /// `None` when damage must wait for somebody who has the bytes.
    fn recover_and_mend(&mut self, index: usize) -> Result<Option<(DurableState, Recovered)>, String> {
        let mut stuck_at = None;
        loop {
            match self.recover(index) {
                Ok(found) => return Ok(Some(found)),
                Err(error) if !self.nodes[index].is_damaged() => return Err(error.to_string()),
                Err(error) => {
                    if !matches!(error, RecoveryError::Corrupt { .. }) {
                        return Err(error.to_string());
                    }
                    if !self.mend(index, &error, &mut stuck_at) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn recover(&mut self, index: usize) -> Result<(DurableState, Recovered), RecoveryError> {
        let node = &self.nodes[index];
        let mut state = match DurableState::load(&*node.disk).expect("a state file") {
            Some(state) => state,
            None => {
                let state = DurableState::new(node.id, self.layout.chunk_size);
                state.create(&*node.disk).expect("a new state file");
                state
            }
        };
        #[cfg(test)]
        let unflushed = UnflushedDisk(&node.disk);
        #[cfg(test)]
        let is_careless = self.options.planted == Some(crate::consensus::PlantedBug::RecoverWithoutFlush);
        #[cfg(test)]
        let disk: &dyn Disk = if is_careless { &unflushed } else { &*node.disk };
        #[cfg(not(test))]
        let disk: &dyn Disk = &*node.disk;
        let recovered = recover(disk, self.layout, &mut |_| {})?;
        recovered.check_committed(self.layout, state.commit_hint)?;
        if recovered.is_suspect {
            state.save_suspect(&*node.disk).expect("a state file");
        }
        recovered.erase_tail(&*node.disk, self.layout)?;
        Ok((state, recovered))
    }

    /// Ends a node's process at once: `power` takes the system's cache along.
    pub(super) fn crash(&mut self, index: usize, power: bool) {
        let node = &mut self.nodes[index];
        let Some(engine) = &node.engine else { return };
        let end = engine.positions().0;
        for io in node.io.values() {
            // What was on its way may have got to the cache, in full.
            if let Some((name, offset, bytes)) = io.write().filter(|_| self.random.disk.bool()) {
                node.disk.write_at(name, offset, &bytes).expect("a write inside its file");
            }
        }
        if power {
            let misdirected = self.profile.has(Fault::Misdirected);
            let lost = node.disk.lose_power(&mut self.random.disk, misdirected);
            node.host_up = false;
            let tables = node.folder.lose_power(&mut self.random.disk);
            self.coverage.note("index files lost in a power cut", tables);
            self.coverage.note("writes lost in a power cut", lost.lost);
            self.coverage.note("writes torn in a power cut", lost.torn);
            self.coverage.note("writes in the wrong place", lost.misdirected);
        }
        let node = &mut self.nodes[index];
        node.forget();
        self.line(index, "crashes", u64::from(power), end.0);
        self.count(if power { "crashes (power)" } else { "crashes (process)" });
        self.abandon_links(index, power);
    }
}
