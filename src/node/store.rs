//! Opens the data directory: identity, recovery of the log, the index up to what is known to be committed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::record::{MemberRecord, MembershipBody};
use crate::config::Config;
use crate::index::Index;
use crate::storage::{
    ChunkHeader, ChunkLayout, Disk as _, DurableState, FileDisk, FileName, LogReader, Recovered, RecoveryError,
    ScanProgress, recover,
};
use crate::types::{ClusterId, LogPosition, NodeId, Term};

use super::{NodeError, random_seed};

/// Between two lines about long work.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Log bytes that the index applies in one step at start.
const INDEX_STEP_BYTES: u64 = 16 << 20;

/// A data directory, ready to be worked on.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Arc<FileDisk>,
    pub(super) layout: ChunkLayout,
    pub(super) state: DurableState,
    pub(super) recovered: Recovered,
    pub(super) reader: LogReader,
    pub(super) index: Arc<Index>,
}

impl Store {
    /// Opens `config.db`, making it when it is new.
    pub(super) fn open(config: &Config) -> Result<Store, NodeError> {
        let disk = FileDisk::open(&config.db)?;
        let disk = if config.unsafe_disable_flush_to_disk { disk.unsafe_without_flush() } else { disk };
        let layout = ChunkLayout { chunk_size: config.chunk_size_bytes };
        let mut state = open_state(&disk, layout, &config.db)?;
        if disk.list().map_err(|source| NodeError::Disk { attempt: "listed", source })?.len() < 2 {
            create_first_chunk(&disk, layout, &state)?;
        }
        let began = Instant::now();
        let mut recovered = recover(&disk, layout, &mut progress("checking the log"))?;
        if !config.unsafe_disable_flush_to_disk {
            recovered.check_committed(layout, state.commit_hint)?;
        }
        report_cut(&recovered, config);
        if recovered.is_suspect && !config.unsafe_disable_flush_to_disk {
            state.save_suspect(&disk)?;
        }
        recovered.erase_tail(&disk, layout)?;
        tracing::info!(end = %recovered.end, sealed = %recovered.sealed, chunks = recovered.chunk_count,
            took = ?began.elapsed(), "the log is recovered");
        recovered.chunk_count = recovered.chunk_count.max(1);
        let reader = LogReader::new(&config.db, layout);
        let index = Arc::new(Index::with_seed(random_seed()));
        fill_index(&index, &reader, layout, state.commit_hint.min(recovered.end))?;
        tracing::info!(node = %state.node, log_end = %recovered.end, epochs = recovered.epochs.len(),
            chunks = recovered.chunk_count, "data directory {} opened", config.db.display());
        Ok(Store { disk: Arc::new(disk), layout, state, recovered, reader, index })
    }

    /// A cluster of one is founded by its only node, at once.
    pub(super) fn found_alone(&mut self, config: &Config) -> Result<(), NodeError> {
        if self.state.founded || config.is_cluster() {
            return Ok(());
        }
        let addresses = config.advertised();
        let member = MemberRecord {
            node: self.state.node,
            int_ip: addresses.int_ip(),
            int_tcp_port: addresses.int_tcp.port(),
            int_http_port: addresses.int_http.port(),
        };
        self.state.founding = Some(MembershipBody { cluster: ClusterId::random(), members: vec![member] });
        self.state.founded = true;
        self.state.sequence += 1;
        self.state.save(&*self.disk)?;
        Ok(())
    }

    /// The configured size and the founded one must be the same: growing is an explicit change, never a restart.
    pub(super) fn check_cluster_size(&self, config: &Config) -> Result<(), NodeError> {
        let Some(list) = self.state.founding.as_ref().filter(|_| self.state.founded) else { return Ok(()) };
        if list.members.len() == config.cluster_size {
            return Ok(());
        }
        Err(NodeError::ClusterSize {
            configured: config.cluster_size,
            founded: list.members.len(),
            db: config.db.clone(),
        })
    }
}

fn report_cut(recovered: &Recovered, config: &Config) {
    let Some(tail) = &recovered.cut else { return };
    let (position, reason) = (tail.position, &tail.reason);
    if !recovered.is_suspect {
        tracing::warn!(%position, %reason,
            "the log ends in what a write left that was under way when the node stopped; cut there, nothing durable is lost");
    } else if config.is_cluster() {
        tracing::warn!(%position, %reason, "the log is cut in front of good records: a power cut leaves that, and so does \
            damage to the disk. The node does not count itself up to date until it has caught up with a leader");
    } else {
        tracing::warn!(%position, %reason, "the log is cut in front of good records: a power cut leaves that, and so does \
            damage to the disk. If the power did not fail, writes of the last moments may be lost: check the disk");
    }
}

fn open_state(disk: &FileDisk, layout: ChunkLayout, db: &Path) -> Result<DurableState, NodeError> {
    let Some(state) = DurableState::load(disk)? else {
        let state = DurableState::new(NodeId::random(), layout.chunk_size);
        state.create(disk)?;
        tracing::info!(node = %state.node, "new data directory {}", db.display());
        return Ok(state);
    };
    if state.chunk_size != layout.chunk_size {
        return Err(NodeError::ChunkSize { configured: layout.chunk_size, found: state.chunk_size, db: db.to_owned() });
    }
    Ok(state)
}

/// Makes the first chunk of a node that has done nothing yet. Any other has had one: it must not begin again with nothing
/// under a name whose votes and acknowledgements others have counted.
fn create_first_chunk(disk: &FileDisk, layout: ChunkLayout, state: &DurableState) -> Result<(), NodeError> {
    if state.founding.is_some() || state.term > Term::ZERO || state.commit_hint > LogPosition::ZERO {
        return Err(RecoveryError::NoChunks { term: state.term, committed: state.commit_hint }.into());
    }
    let head = ChunkHeader { chunk: 0, layout }.encode();
    disk.create(FileName::Chunk(0), &head, layout.file_length())
        .map_err(|source| NodeError::Disk { attempt: "given its first chunk", source })
}

fn fill_index(index: &Index, reader: &LogReader, layout: ChunkLayout, limit: LogPosition) -> Result<(), NodeError> {
    let mut report = progress("filling the index");
    while index.applied() < limit {
        let step = limit.min(index.applied().plus(INDEX_STEP_BYTES));
        index.apply_to(reader, layout, step)?;
        report(ScanProgress { position: index.applied(), limit });
    }
    Ok(())
}

/// A callback that logs how far long work is, every few seconds.
fn progress(what: &'static str) -> impl FnMut(ScanProgress) {
    let mut last = Instant::now();
    move |progress| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            let percent = progress.position.0 * 100 / progress.limit.0.max(1);
            tracing::info!("{what}: {percent} % ({} of {} bytes)", progress.position, progress.limit);
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
