//! Repair before the start: a node whose log is damaged below what it had made durable fetches that range from the other
//! nodes of its cluster, and goes on with its start.
//!
//! Promises: only a member of a cluster of several does so, with bytes that are proven to be those that belong there
//! (`storage::mend_range`); a tail that was never committed is cut instead, and the node then counts as suspect; it says
//! so loudly, tells every few seconds how it stands, and can be stopped at any time. Leaves to others: what is found
//! to be damaged while the node runs (the repairer), and the state file, whose loss nobody can make good.
//!
//! A node does not serve anybody while it mends, other nodes that mend included: two that do so at the same time need a
//! third that runs.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use crate::background::PeerSource;
use crate::codec::record::MemberRecord;
use crate::config::Config;
use crate::ring::Way;
use crate::security::Plane;
use crate::storage::{
    ChunkHeader, ChunkLayout, Disk as _, DurableState, FileDisk, FileName, Gap, Mended, RangeSource as _,
    RecoveryError, RepairError, Repaired, cut_tail, mend_range, survey,
};
use crate::types::{ClusterId, LogPosition, NodeId};

use super::NodeError;
use super::service;
use super::threads::internal_way;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);

/// Between two lines about how it stands.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Until what nobody can tell to be committed is cut: others may come meanwhile who can give it.
const CUT_PATIENCE: Duration = Duration::from_secs(15);

/// What came of asking all nodes once.
enum Step {
    Repaired(Repaired),
    /// Cut there; why.
    Cut(String),
    /// Nothing yet; why.
    Wait(String),
}

/// Who can be asked, and for which log.
#[derive(Debug)]
pub(super) struct Mender {
    cluster: ClusterId,
    node: NodeId,
    members: Vec<MemberRecord>,
    /// `host:port` of internal HTTP: addresses may have changed since the member list was written.
    seeds: Vec<String>,
    layout: ChunkLayout,
    way: Way,
    plane: Plane,
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

fn mend_error(error: RepairError) -> NodeError {
    NodeError::Mend { message: error.to_string() }
}

impl Mender {
    /// `None` on a node that has nobody to ask: in no cluster yet, or alone in it.
    pub(super) fn new(config: &Config, plane: &Plane, state: &DurableState, layout: ChunkLayout) -> Option<Mender> {
        let list = state.founding.as_ref().filter(|_| state.founded)?;
        let others = list.members.iter().filter(|member| member.node != state.node);
        let members: Vec<_> = others.cloned().collect();
        let mut seeds: Vec<_> = config.gossip_seeds.iter().map(ToString::to_string).collect();
        seeds.extend(config.dns.as_ref().map(|dns| format!("{}:{}", dns.name, dns.gossip_port)));
        let has_peers = config.is_cluster() && !(members.is_empty() && seeds.is_empty());
        has_peers.then_some(Mender {
            cluster: list.cluster,
            node: state.node,
            members,
            seeds,
            layout,
            way: internal_way(config),
            plane: plane.clone(),
        })
    }

    /// Repairs one damaged range, or the first part of it, or cuts the log there when what is lost was never committed;
    /// however long it takes. `stuck_at`: where it did so the last time.
    ///
    /// # Errors
    /// Only what trying again cannot change: the disk.
    pub(super) fn mend(
        &self,
        disk: &FileDisk,
        state: &mut DurableState,
        loss: &Loss,
        stuck_at: Option<LogPosition>,
    ) -> Result<(), NodeError> {
        let (chunk, offset) = (self.layout.chunk_of(loss.position), self.layout.file_offset(loss.position));
        tracing::error!(chunk, position = %loss.position, offset, reason = loss.reason,
            "the log is damaged below {}, up to which it was durable: this node does not start before another node of \
             cluster {} has given it that range of the log", loss.durable, self.cluster);
        service::starting(&format!("mending chunk {chunk}, log position {}", loss.position));
        self.ensure_chunk(disk, chunk)?;
        let gap = Gap { from: loss.position, committed: state.commit_hint, survey: survey(disk, self.layout)? };
        let is_stuck = stuck_at == Some(loss.position);
        if is_stuck {
            tracing::error!(position = %loss.position, "what was repaired did not help: recovery stops at the same place");
            thread::sleep(PROGRESS_INTERVAL);
        }
        let began = Instant::now();
        let mut said = began;
        loop {
            let is_patient = began.elapsed() < CUT_PATIENCE;
            let words = match self.try_once(disk, &gap, is_stuck, is_patient).map_err(mend_error)? {
                Step::Repaired(repaired) => {
                    tracing::info!(chunk, position = %loss.position, bytes = repaired.bytes, records = repaired.records,
                        "the log is repaired from {}; going on with the start", repaired.source);
                    return Ok(());
                }
                Step::Cut(reason) => return self.cut(disk, state, &gap, &reason),
                Step::Wait(words) => words,
            };
            if said.elapsed() >= PROGRESS_INTERVAL || said == began {
                said = Instant::now();
                service::starting(&format!("no repair yet of chunk {chunk}, log position {}: {words}", loss.position));
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

    /// The end of the log was never committed, as far as anybody can tell: it is cut like a torn one. Should that be wrong,
    /// the node does no harm: it is suspect.
    fn cut(&self, disk: &FileDisk, state: &mut DurableState, gap: &Gap, reason: &str) -> Result<(), NodeError> {
        tracing::error!(position = %gap.from, reason, "the log is cut at the damage, in a tail that was not committed; the \
            node does not count itself up to date until it has caught up with a leader");
        state.save_suspect(disk)?;
        cut_tail(disk, self.layout, &gap.survey, gap.from)?;
        Ok(())
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

    /// Asks each node once; when it is stuck, the others first. The error is one of the disk.
    fn try_once(&self, disk: &FileDisk, gap: &Gap, is_stuck: bool, is_patient: bool) -> Result<Step, RepairError> {
        let mut peers = self.peers();
        if is_stuck {
            peers.reverse();
        }
        let (mut words, mut diverged, mut unsure) = (Vec::new(), None, None);
        for peer in &peers {
            match mend_range(disk, self.layout, gap, peer) {
                Ok(Mended::Repaired(repaired)) => return Ok(Step::Repaired(repaired)),
                Ok(Mended::Diverged { common }) => {
                    let reason = format!("{} has committed another log from {common} on", peer.describe());
                    diverged = Some(reason);
                }
                Ok(Mended::Unsure { may_cut, reason }) => {
                    let reason = format!("{}: {reason}", peer.describe());
                    unsure = may_cut.then(|| reason.clone()).or(unsure);
                    words.push(reason);
                }
                Err(error @ (RepairError::Io { .. } | RepairError::NotKept { .. })) => return Err(error),
                Err(error) => words.push(error.to_string()),
            }
        }
        let reason = diverged.or(unsure.filter(|_| !is_patient));
        if let Some(reason) = reason {
            return Ok(Step::Cut(reason));
        }
        if words.is_empty() {
            words.push("no address of a seed or a member could be found".to_owned());
        }
        Ok(Step::Wait(words.join("; ")))
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
        addresses
            .into_iter()
            .map(|address| {
                PeerSource::new(self.cluster, address).with_flushed().by(self.way.clone(), self.plane.clone())
            })
            .collect()
    }
}
