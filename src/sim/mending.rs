//! What a node takes from the others where its log is damaged: while it runs, through the repairer's function, and before it
//! starts, through the one that the real server mends with (`storage::mend_range`).

use crate::codec::record::RecordView;
use crate::storage::{
    ChunkHeader, ChunkLayout, Damage, Disk, DurableState, FetchError, FileName, Gap, LogPeer, Mended, PeerFacts,
    RangeSource, RecoveryError, cut_tail, mend_range, repair_range, survey,
};
use crate::types::{Epoch, LogPosition, NodeId, Term};

use super::Checker;
use super::agenda::{Moment, SECOND};
use super::disk::VirtualDisk;
use super::node::Node;
use super::world::World;

/// Until what nobody can tell to be committed is cut, as in the real server.
const CUT_PATIENCE: Moment = 15 * SECOND;

/// The log of another node, as it gives it to those who ask.
struct Peer<'a> {
    disk: &'a VirtualDisk,
    layout: ChunkLayout,
    node: NodeId,
    facts: PeerFacts,
    /// It gives what it has flushed, too: for those who can prove that it belongs to them.
    gives_flushed: bool,
    /// Records of it that have rotted.
    is_rotten: bool,
}

impl RangeSource for Peer<'_> {
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
        let limit = if self.gives_flushed { self.facts.flushed } else { self.facts.committed };
        if to > limit {
            return Err(FetchError::Behind { peer: self.describe(), committed: limit, needed: to });
        }
        let refused = |status, words: String| Err(FetchError::Refused { peer: self.describe(), status, words });
        let mut bytes = Vec::new();
        self.disk.read_log(from, to.min(from.plus(self.layout.room(from))), &mut bytes);
        let mut at = 0;
        while at < bytes.len() {
            let position = from.plus(at as u64);
            let room = self.layout.room(position);
            match RecordView::check(&bytes[at..], position, room.min((bytes.len() - at) as u64)) {
                Ok(record) => at += record.bytes().len(),
                Err(_) if at > 0 => break,
                // As the real one answers: damage of its own, or no record begins or ends here.
                Err(error) if self.is_rotten => return refused(500, error.to_string()),
                Err(error) => return refused(400, error.to_string()),
            }
        }
        bytes.truncate(at);
        Ok(bytes)
    }

    fn describe(&self) -> String {
        self.node.to_string()
    }
}

impl LogPeer for Peer<'_> {
    fn facts(&self) -> Result<PeerFacts, FetchError> {
        Ok(self.facts.clone())
    }
}

impl World {
    fn peer(&self, peer: usize, gives_flushed: bool) -> Peer<'_> {
        let node = &self.nodes[peer];
        let replica = node.engine.as_ref().and_then(|engine| engine.replica());
        let facts = PeerFacts {
            committed: self.served_by(peer),
            flushed: node.engine.as_ref().map_or(LogPosition::ZERO, |engine| engine.positions().1),
            term: replica.map_or(Term::ZERO, |replica| replica.term()),
            epochs: replica.map(|replica| replica.epochs().newest()).unwrap_or_default(),
        };
        let is_rotten = !node.rotten.is_empty();
        Peer { disk: &node.disk, layout: self.layout, node: node.id, facts, gives_flushed, is_rotten }
    }

    /// Takes a damaged range from a node that has committed it. False when nobody can give it now.
    pub(super) fn repair(&mut self, index: usize, damage: &Damage, epochs: &[Epoch]) -> bool {
        let Some(peer) = self.pick_peer(index, damage.to) else {
            self.count("repairs that found nobody");
            return false;
        };
        let source = self.peer(peer, false);
        if repair_range(&*self.nodes[index].disk, self.layout, epochs, damage, &source).is_err() {
            self.count("repairs refused");
            return false;
        }
        // Its log agrees with the committed one so far, or nobody could tell that it is committed.
        self.check_repaired(index, peer, damage.from, damage.to);
        self.repaired(index, damage.from, damage.to);
        true
    }

    /// What is committed must be there now, and what has rotted was.
    fn check_repaired(&mut self, index: usize, peer: usize, from: LogPosition, to: LogPosition) {
        let node = &self.nodes[index];
        let committed = self.reference.end().min(to);
        let wanted = self.reference.bytes().get(from.0 as usize..committed.0 as usize).unwrap_or_default();
        if !node.disk.holds(from, wanted) || (to > committed && node.is_rotten_between(from, to)) {
            let detail =
                format!("n{index} has repaired {from} to {to} from n{peer}, with other bytes than were committed");
            self.object(Checker::RepairExact, detail);
        }
    }

    fn repaired(&mut self, index: usize, from: LogPosition, to: LogPosition) {
        self.line(index, "repairs", from.0, to.0);
        self.nodes[index].rotten.retain(|&(first, last)| first < from || last > to);
    }

    /// What a node says that it has committed.
    fn served_by(&self, peer: usize) -> LogPosition {
        let Some(engine) = &self.nodes[peer].engine else { return LogPosition::ZERO };
        let (end, flushed, commit, readable) = engine.positions();
        #[cfg(test)]
        if self.options.planted == Some(crate::consensus::PlantedBug::RepairFromStalePeer) {
            return end;
        }
        let _ = (end, readable);
        commit.min(flushed)
    }

    fn is_reached(&self, index: usize, peer: usize) -> bool {
        let cut = &self.network.cut;
        peer != index && self.nodes[peer].is_up() && !cut[index][peer] && !cut[peer][index]
    }

    /// A node that can be reached and has committed so far.
    fn pick_peer(&mut self, index: usize, to: LogPosition) -> Option<usize> {
        let reached = |&peer: &usize| self.is_reached(index, peer) && self.served_by(peer) >= to;
        let mut peers: Vec<usize> = (0..self.nodes.len()).filter(reached).collect();
        self.random.disk.shuffle(&mut peers);
        #[cfg(test)]
        if self.options.planted == Some(crate::consensus::PlantedBug::RepairFromStalePeer) {
            let commit = |&peer: &usize| self.nodes[peer].engine.as_ref().map(|engine| engine.positions().2);
            return peers.into_iter().min_by_key(commit);
        }
        peers.pop()
    }

    /// A node that does not start for damage below its durable mark takes what is damaged from the others first, as
    /// the real server does. False when that cannot be done now.
    pub(super) fn mend(&mut self, index: usize, error: &RecoveryError, stuck_at: &mut Option<LogPosition>) -> bool {
        let RecoveryError::Corrupt { position, .. } = error else { return false };
        if stuck_at.replace(*position) == Some(*position) {
            return false;
        }
        let node = &self.nodes[index];
        let mut state = DurableState::load(&*node.disk).expect("a state file").expect("it has started before");
        state.save_suspect(&*node.disk).expect("a state file");
        self.ensure_chunk(index, self.layout.chunk_of(*position));
        let survey = survey(&*self.nodes[index].disk, self.layout).expect("a log that can be looked at");
        let gap = Gap { from: *position, committed: state.commit_hint, survey };
        let mut peers: Vec<usize> = (0..self.nodes.len()).filter(|&peer| self.is_reached(index, peer)).collect();
        self.random.disk.shuffle(&mut peers);
        let mut may_cut = false;
        for peer in peers {
            let source = self.peer(peer, true);
            match mend_range(&*self.nodes[index].disk, self.layout, &gap, &source) {
                Ok(Mended::Repaired(repaired)) => {
                    let to = gap.from.plus(repaired.bytes);
                    // An older mark may tell of a longer log, from before a cut: that need not be the committed one.
                    if !self.nodes[index].marks_rotten || self.nodes[index].is_rotten_between(gap.from, to) {
                        self.check_repaired(index, peer, gap.from, to);
                    }
                    self.repaired(index, gap.from, to);
                    self.count("ranges repaired at start");
                    return true;
                }
                Ok(Mended::Diverged { .. }) => {
                    self.count("tails cut at start: other log");
                    return self.cut_at_start(index, &gap);
                }
                Ok(Mended::Unsure { may_cut: this, .. }) => may_cut |= this,
                Err(_) => self.count("repairs refused"),
            }
        }
        let since = *self.nodes[index].mending_since.get_or_insert(self.now);
        if may_cut && self.now >= since + CUT_PATIENCE {
            self.count("tails cut at start: patience");
            // It may have been acknowledged: that is why the node is suspect, and not believed before it has it again.
            self.nodes[index].watched.forget_behind(gap.from);
            // So may tables of what is gone now.
            self.nodes[index].index_rotten = Some(0);
            return self.cut_at_start(index, &gap);
        }
        self.count("repairs that found nobody");
        false
    }

    fn cut_at_start(&mut self, index: usize, gap: &Gap) -> bool {
        self.line(index, "cuts at start", gap.from.0, 0);
        cut_tail(&*self.nodes[index].disk, self.layout, &gap.survey, gap.from).expect("a cut");
        self.nodes[index].rotten.retain(|&(_, to)| to <= gap.from);
        true
    }

    /// The log may end so early that its last chunk file is not there at all.
    fn ensure_chunk(&self, index: usize, chunk: u32) {
        let (disk, name) = (&self.nodes[index].disk, FileName::Chunk(chunk));
        if disk.list().expect("a list of files").iter().all(|file| file.name != name) {
            let header = ChunkHeader { chunk, layout: self.layout };
            disk.create(name, &header.encode(), self.layout.file_length()).expect("a new file");
        }
    }
}

impl Node {
    /// True when a record between these positions has rotted.
    pub(super) fn is_rotten_between(&self, from: LogPosition, to: LogPosition) -> bool {
        self.rotten.iter().any(|&(first, last)| first < to && from < last)
    }

    /// True while something of its disk has rotted that it may not be able to mend by itself.
    pub(super) fn is_damaged(&self) -> bool {
        !self.rotten.is_empty() || self.marks_rotten
    }
}
