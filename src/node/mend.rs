//! Repair before the start: a node whose log is damaged below what it had made durable fetches that range from the other
//! nodes of its cluster, and goes on with its start.
//!
//! Promises: only a member of a cluster of several does so, with bytes that another node of that cluster has committed; it
//! says so loudly, tells every few seconds how it stands, and can be stopped at any time. Leaves to others: what is found
//! to be damaged while the node runs (the repairer), and the state file, whose loss nobody can make good.
//!
//! A node does not serve anybody while it mends, other nodes that mend included: two that do so at the same time need a
//! third that runs.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::background::PeerSource;
use crate::codec::record::{MemberRecord, RecordError, RecordView};
use crate::config::Config;
use crate::storage::{
    ChunkHeader, ChunkLayout, Damage, Disk as _, DurableState, FetchError, FileDisk, FileName, LogRead as _, LogReader,
    RecoveryError, RepairError, Repaired, damaged_range, repair_range,
};
use crate::types::{ClusterId, LogPosition, NodeId};

use super::NodeError;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);

/// Between two lines about how it stands.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Who can be asked, and for which log.
#[derive(Debug)]
pub(super) struct Mender {
    cluster: ClusterId,
    node: NodeId,
    members: Vec<MemberRecord>,
    /// `host:port` of internal HTTP: addresses may have changed since the member list was written.
    seeds: Vec<String>,
    layout: ChunkLayout,
}

/// What is known to be wrong.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// Where the first bad record should begin.
    pub(super) position: LogPosition,
    /// Up to where the log must be there.
    pub(super) durable: LogPosition,
    /// For people.
    pub(super) reason: String,
}

impl Loss {
    /// What recovery stopped at, if another node's bytes can help.
    pub(super) fn of(error: &RecoveryError) -> Option<Loss> {
        match error {
            RecoveryError::Corrupt { position, durable, reason, .. } => {
                Some(Loss { position: *position, durable: *durable, reason: reason.clone() })
            }
            _ => None,
        }
    }
}

impl Mender {
    /// `None` on a node that has nobody to ask: in no cluster yet, or alone in it.
    pub(super) fn new(config: &Config, state: &DurableState, layout: ChunkLayout) -> Option<Mender> {
        let list = state.founding.as_ref().filter(|_| state.founded)?;
        let others = list.members.iter().filter(|member| member.node != state.node);
        let members: Vec<_> = others.cloned().collect();
        let mut seeds: Vec<_> = config.gossip_seeds.iter().map(ToString::to_string).collect();
        seeds.extend(config.dns.as_ref().map(|dns| format!("{}:{}", dns.name, dns.gossip_port)));
        let has_peers = config.is_cluster() && !(members.is_empty() && seeds.is_empty());
        has_peers.then_some(Mender { cluster: list.cluster, node: state.node, members, seeds, layout })
    }

    /// Repairs one damaged range, however long it takes, or for `patience`.
    ///
    /// # Errors
    /// Only what trying again cannot change: the disk. With `patience`, also when it is over.
    pub(super) fn mend(
        &self,
        disk: &FileDisk,
        db: &Path,
        loss: &Loss,
        patience: Option<Duration>,
    ) -> Result<(), NodeError> {
        let (chunk, offset) = (self.layout.chunk_of(loss.position), self.layout.file_offset(loss.position));
        tracing::error!(chunk, position = %loss.position, offset, reason = loss.reason,
            "the log is damaged below {}, up to which it was durable: this node does not start before another node of \
             cluster {} has given it that range of the log", loss.durable, self.cluster);
        self.ensure_chunk(disk, chunk)?;
        let began = Instant::now();
        let mut said = began;
        loop {
            let words = match self.try_once(disk, db, loss) {
                Ok(repaired) => {
                    tracing::info!(chunk, position = %loss.position, bytes = repaired.bytes, records = repaired.records,
                        "the log is repaired from {}; going on with the start", repaired.source);
                    return Ok(());
                }
                Err(error @ (RepairError::Io { .. } | RepairError::NotKept { .. })) => {
                    return Err(NodeError::Mend { message: error.to_string() });
                }
                Err(error) => error.to_string(),
            };
            if patience.is_some_and(|patience| began.elapsed() >= patience) {
                return Err(NodeError::Mend { message: words });
            }
            if said.elapsed() >= PROGRESS_INTERVAL || said == began {
                said = Instant::now();
                tracing::warn!(
                    "no repair yet of chunk {chunk}, log position {}, after {} s: {words}; trying again. To give \
                    up: stop the node, move the data directory away, start it empty, so that it copies the log, and give it the \
                    place of this one with `ringstore admin replace {} NEW`",
                    loss.position,
                    began.elapsed().as_secs(),
                    self.node
                );
            }
            thread::sleep(RETRY);
        }
    }

    /// The log may end so early that its last chunk file is not there at all.
    fn ensure_chunk(&self, disk: &FileDisk, chunk: u32) -> Result<(), NodeError> {
        let failed = |source| NodeError::Disk { attempt: "given the chunk that is missing", source };
        let name = FileName::Chunk(chunk);
        if disk.list().map_err(failed)?.iter().any(|file| file.name == name) {
            return Ok(());
        }
        let head = ChunkHeader { chunk, layout: self.layout }.encode();
        disk.create(name, &head, self.layout.file_length()).map_err(failed)
    }

    /// Asks each node once.
    fn try_once(&self, disk: &FileDisk, db: &Path, loss: &Loss) -> Result<Repaired, RepairError> {
        let nobody = || FetchError::Nobody { reason: "no address of a seed or a member could be found".to_owned() };
        let mut failures = Vec::new();
        for source in self.peers() {
            let outcome = self.try_from(disk, db, loss, &source);
            match outcome {
                Ok(repaired) => return Ok(repaired),
                Err(error @ (RepairError::Io { .. } | RepairError::NotKept { .. })) => return Err(error),
                Err(error) => failures.push(error.to_string()),
            }
        }
        let error = if failures.is_empty() { nobody() } else { FetchError::Nobody { reason: failures.join("; ") } };
        Err(error.into())
    }

    fn try_from(&self, disk: &FileDisk, db: &Path, loss: &Loss, source: &PeerSource) -> Result<Repaired, RepairError> {
        let damage = self.extent(db, loss)?;
        let outcome = repair_range(disk, self.layout, &[], &damage, source);
        let is_cut_elsewhere = matches!(
            &outcome,
            Err(RepairError::Fetch(FetchError::Refused { status: 400, .. }) | RepairError::Unfit { .. })
        );
        if !is_cut_elsewhere {
            return outcome;
        }
        // What lies behind the damage here is not what was committed there: all is taken that the other node has.
        let committed = LogPosition(source.info()?.commit_position);
        let to = self.layout.chunk_start(damage.chunk + 1).min(committed);
        if to <= damage.to {
            return outcome;
        }
        repair_range(disk, self.layout, &[], &Damage { to, ..damage }, source)
    }

    /// From where to where the log must be fetched: to the next record that checks out, the chunk's end, or the end of what
    /// was durable.
    fn extent(&self, db: &Path, loss: &Loss) -> Result<Damage, RepairError> {
        let (layout, from) = (self.layout, loss.position);
        let chunk = layout.chunk_of(from);
        let length = layout.room(from).min(loss.durable.since(from));
        let mut damage = None;
        let read = LogReader::new(db, layout).with_chunk(from, &mut |bytes| {
            let bytes = &bytes[..usize::try_from(length).map_or(bytes.len(), |length| length.min(bytes.len()))];
            // A record that checks out by itself may be bad where it stands, of an older term: it is replaced alone.
            let error = match RecordView::check(bytes, from, layout.room(from)) {
                Ok(record) => {
                    let (to, reason) = (record.header.end(), loss.reason.clone());
                    damage = Some(Damage { chunk, from, to, reason });
                    return;
                }
                Err(RecordError::Empty) => RecordError::Empty,
                Err(error) => error,
            };
            damage = Some(damaged_range(layout, bytes, from, &error));
        });
        read.map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            RepairError::Io { name: FileName::Chunk(chunk), attempt: "read", source }
        })?;
        Ok(damage.expect("the log calls back when it gives no error"))
    }

    /// The other nodes: seeds first, because the operator may have changed them; each address once.
    fn peers(&self) -> Vec<PeerSource> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for seed in &self.seeds {
            match seed.to_socket_addrs() {
                Ok(found) => addresses.extend(found),
                Err(error) => tracing::debug!("seed {seed}: {error}"),
            }
        }
        addresses.extend(self.members.iter().map(|member| SocketAddr::new(member.int_ip, member.int_http_port)));
        let mut seen = Vec::new();
        addresses.retain(|address| {
            !seen.contains(address) && {
                seen.push(*address);
                true
            }
        });
        tracing::debug!(node = %self.node, ?addresses, "the nodes that are asked");
        addresses.into_iter().map(|address| PeerSource::new(self.cluster, address)).collect()
    }
}
