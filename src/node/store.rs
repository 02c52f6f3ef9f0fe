//! Opens the data directory: identity, recovery of the log, the tables of the index and what came after them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::record::{MemberRecord, MembershipBody};
use crate::config::Config;
use crate::index::{FileStore, Index, IndexError};
use crate::limits::{INDEX_START_EVENTS, INDEX_START_LOG_BYTES};
use crate::security::Plane;
use crate::storage::{
    ChunkHeader, ChunkLayout, Disk as _, DurableState, FileDisk, FileName, LogReader, Recovered, RecoveryError,
    ScanProgress, recover,
};
use crate::types::{ClusterId, LogPosition, NodeId, Term};

use super::mend::{Loss, Mender};
use super::service;
use super::{NodeError, random_seed};

/// Between two lines about long work.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Where the tables of the index are, below the data directory.
const INDEX_FOLDER: &str = "index";

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
    pub(super) fn open(config: &Config, plane: &Plane) -> Result<Store, NodeError> {
        let disk = FileDisk::open(&config.db)?;
        let disk = if config.unsafe_disable_flush_to_disk { disk.unsafe_without_flush() } else { disk };
        let layout = ChunkLayout { chunk_size: config.chunk_size_bytes };
        let mut state = open_state(&disk, layout, &config.db)?;
        if disk.list().map_err(|source| NodeError::Disk { attempt: "listed", source })?.len() < 2 {
            create_first_chunk(&disk, layout, &state)?;
        }
        let began = Instant::now();
        let mender = Mender::new(config, plane, &state, layout);
        let mut recovered = recover_or_mend(&disk, layout, config, &mut state, mender.as_ref())?;
        report_cut(&recovered, config);
        if recovered.is_suspect && !config.unsafe_disable_flush_to_disk {
            state.save_suspect(&disk)?;
        }
        recovered.erase_tail(&disk, layout)?;
        tracing::info!(end = %recovered.end, sealed = %recovered.sealed, chunks = recovered.chunk_count,
            took = ?began.elapsed(), "the log is recovered");
        recovered.chunk_count = recovered.chunk_count.max(1);
        let reader = LogReader::new(&config.db, layout);
        let index = open_index(&disk, &reader, layout, &recovered)?;
        // Only what is committed comes into a table, and the newest one was held against the log.
        learn_commit(&disk, &mut state, index.applied().min(recovered.end))?;
        let limit = state.commit_hint.min(recovered.end);
        begin_index(&index, &reader, layout, limit)?;
        index.set_behind(limit);
        tracing::info!(node = %state.node, log_end = %recovered.end, epochs = recovered.epochs.len(),
            chunks = recovered.chunk_count, "data directory {} opened", config.db.display());
        Ok(Store { disk: Arc::new(disk), layout, state, recovered, reader, index: Arc::new(index) })
    }

    /// A cluster of one is founded by its only node, at once. One that was founded and has written no member list yet (it
    /// was restored from a backup) learns here where its node is.
    pub(super) fn found_alone(&mut self, config: &Config) -> Result<(), NodeError> {
        let addresses = config.advertised();
        let own = MemberRecord {
            node: self.state.node,
            int_ip: addresses.int_ip(),
            int_tcp_port: addresses.int_tcp.port(),
            int_http_port: addresses.int_http.port(),
        };
        let cluster = match self.state.founding.as_ref().filter(|_| self.state.founded) {
            None if config.is_cluster() => return Ok(()),
            None => ClusterId::random(),
            Some(list) => {
                let is_alone = matches!(list.members[..], [member] if member.node == own.node && member != own);
                if !is_alone || self.listed().is_some() {
                    return Ok(());
                }
                list.cluster
            }
        };
        self.state.founding = Some(MembershipBody { cluster, members: vec![own] });
        self.state.founded = true;
        self.state.sequence += 1;
        self.state.save(&*self.disk)?;
        Ok(())
    }

    /// The last member list of this node's cluster in its log. A log that was restored for a new cluster begins with those
    /// of the old one, which mean nothing here.
    fn listed(&self) -> Option<&MembershipBody> {
        let cluster = self.state.founding.as_ref().filter(|_| self.state.founded)?.cluster;
        let (_, record) = self.recovered.membership.as_ref()?;
        Some(&record.list).filter(|list| list.cluster == cluster)
    }

    /// Options that do not go with what the node is. `ClusterSize` counts until the founding; from then on the member list
    /// does, which is changed by explicit commands and never by a restart. Only a node that is told to be on its own cannot
    /// be a member of more: it would not listen for the others.
    pub(super) fn check_membership(&self, config: &Config) -> Result<(), NodeError> {
        let Some(founding) = self.state.founding.as_ref().filter(|_| self.state.founded) else { return Ok(()) };
        let list = self.listed().unwrap_or(founding);
        let (configured, founded) = (config.cluster_size, list.members.len());
        if !config.is_cluster() && list.members.iter().any(|member| member.node != self.state.node) {
            return Err(NodeError::ClusterSize { configured, founded, db: config.db.clone() });
        }
        let is_member = list.members.iter().any(|member| member.node == self.state.node);
        if config.read_only_replica && is_member {
            return Err(NodeError::ReadOnlyMember { node: self.state.node, db: config.db.clone() });
        }
        if configured != founded {
            tracing::info!(
                "ClusterSize is {configured}, the cluster has {founded} members: the member list counts, and is changed with \
                 `ringstore admin`"
            );
        }
        Ok(())
    }
}

/// Raises the hint, in the file as well: whoever writes a slot of it anew takes the state in memory for what the file holds.
fn learn_commit(disk: &FileDisk, state: &mut DurableState, committed: LogPosition) -> Result<(), NodeError> {
    if committed > state.commit_hint {
        (state.commit_hint, state.sequence) = (committed, state.sequence + 1);
        state.save(disk)?;
    }
    Ok(())
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

/// Recovers the log; where it is damaged and other nodes have it, as often as it takes to repair it first.
fn recover_or_mend(
    disk: &FileDisk,
    layout: ChunkLayout,
    config: &Config,
    state: &mut DurableState,
    mender: Option<&Mender>,
) -> Result<Recovered, NodeError> {
    let mut mended_at = None;
    loop {
        let recovered = recover(disk, layout, &mut progress("checking the log")).and_then(|recovered| {
            if !config.unsafe_disable_flush_to_disk {
                recovered.check_committed(layout, state.commit_hint)?;
            }
            Ok(recovered)
        });
        let error = match recovered {
            Ok(recovered) => return Ok(recovered),
            Err(error) => error,
        };
        let (Some(mender), Some(loss)) = (mender, Loss::of(&error)) else { return Err(error.into()) };
        // What was flushed here is gone, and the log may have gone on behind what can still be told: this node may have
        // acknowledged more than it will have when it is mended.
        state.save_suspect(disk)?;
        mender.mend(disk, state, &loss, mended_at)?;
        mended_at = Some(loss.position);
    }
}

/// The index as its tables have it.
fn open_index(
    disk: &FileDisk,
    reader: &LogReader,
    layout: ChunkLayout,
    recovered: &Recovered,
) -> Result<Index, NodeError> {
    Index::open(index_files(disk)?, reader, layout, recovered.end, random_seed())
        .map_err(|source| NodeError::Disk { attempt: "read in its folder of the index", source })
}

fn index_files(disk: &FileDisk) -> Result<Arc<FileStore>, NodeError> {
    let folder = disk.directory().join(INDEX_FOLDER);
    let store = FileStore::open(folder, disk.flushes());
    store.map(Arc::new).map_err(|source| NodeError::Disk { attempt: "given a folder for the index", source })
}

/// Brings the index to `limit`: at once where that is near; otherwise it is done in the background, and what needs the
/// index is not ready until then.
fn begin_index(index: &Index, reader: &LogReader, layout: ChunkLayout, limit: LogPosition) -> Result<(), IndexError> {
    let is_near = limit.0.saturating_sub(index.applied().0) <= INDEX_START_LOG_BYTES;
    let mut report = progress("filling the index");
    while is_near && index.applied() < limit && index.figures().memory_events < INDEX_START_EVENTS {
        let step = limit.min(index.applied().plus(INDEX_STEP_BYTES));
        match index.apply_to(reader, layout, step) {
            Ok(applied) => report(ScanProgress { position: applied, limit }),
            Err(error @ IndexError::Record { .. }) => {
                tracing::error!(%error, "the index is filled when the log has been repaired");
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A callback that says how far long work is, every few seconds.
fn progress(what: &'static str) -> impl FnMut(ScanProgress) {
    let mut last = Instant::now();
    move |progress| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            let percent = progress.position.0 * 100 / progress.limit.0.max(1);
            let words = format!("{what}: {percent} % ({} of {} bytes)", progress.position, progress.limit);
            tracing::info!("{words}");
            service::starting(&words);
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
