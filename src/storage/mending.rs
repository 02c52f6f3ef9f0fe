//! Mending before the start, by the log matching rule: what of another node's log may stand where this node's is damaged.
//!
//! The damage may lie in a tail that this node flushed and nobody ever committed, and the other node may have one of its
//! own. So a position, a term or a commit alone proves nothing. But a record that begins at the same position, with the same
//! term and checksum, in both logs was put there by the one leader of that term, and then all before it is the same in
//! both. From this follows, in this order:
//!
//! 1. A good record of this log behind the damage that the other node has, too: what lies before it there is exactly what
//!    was lost here, committed or not.
//! 2. What both nodes have committed is the same in both.
//! 3. Where no good record of this log follows and the record before the damage is the same in both, what the other node
//!    has committed belongs there.
//! 4. A damaged record whose head is still good is the other node's record with the same head: it has the checksum.
//! 5. Otherwise the damage may lie in a tail that was not committed. It is never cut below what this node knows to be
//!    committed. Where the other node has committed something else from before the damage on, that is proven; where not,
//!    it is a matter of patience, and the node must count as suspect.
//!
//! Promises: nothing is written for another reason than 1 to 4; memory for what is fetched without being committed is
//! bounded. Leaves to others: whom to ask, and when to give up waiting.

use crate::codec::record::{Header, RecordView};
use crate::consensus::EpochTable;
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{Epoch, LogPosition, Term};

use super::chunk::DurableMark;
use super::damage::Damage;
use super::disk::{Disk, FileName, is_bad_sector};
use super::error::RecoveryError;
use super::layout::{ChunkLayout, PAGE_BYTES};
use super::recovery::{Survey, erase_tail};
use super::repair::{FetchError, RangeSource, RepairError, Repaired, repair_range};
use super::search::find_record;

/// Bytes fetched and held at most before they are known to be committed.
const HELD_BYTES_MAX: u64 = 128 << 20;

/// Bytes of the log read at a time.
const WINDOW_BYTES: u64 = 1 << 20;

/// What another node says of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// Committed and durable there.
    pub committed: LogPosition,
    /// Durable there; [`RangeSource::fetch`] gives bytes up to here.
    pub flushed: LogPosition,
    /// Its term: as long as it stays the same its log loses its end once at most.
    pub term: Term,
    /// Its epochs, oldest first.
    pub epochs: Vec<Epoch>,
}

/// Another node: unlike other sources it gives what it has flushed, committed or not.
pub trait LogPeer: RangeSource {
    /// Asks it anew.
    ///
    /// # Errors
    /// [`FetchError`].
    fn facts(&self) -> Result<PeerFacts, FetchError>;
}

/// A place at which recovery stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the first bad record should begin.
    pub from: LogPosition,
    /// Known here to be committed up to this: the durable hint.
    pub committed: LogPosition,
    /// What recovery saw of the log.
    pub survey: Survey,
}

impl Gap {
    /// Never cut below this.
    fn floor(&self) -> LogPosition {
        self.committed.max(self.survey.sealed)
    }
}

/// What came of asking one node.
#[derive(Debug)]
pub enum Mended {
    /// The damage, or the first part of it, is repaired.
    Repaired(Repaired),
    /// The other node has committed something else from before the damage on: nobody needs what was lost.
    Diverged {
        /// The end of what is the same in both.
        common: LogPosition,
    },
    /// It cannot be told.
    Unsure {
        /// True when nothing that is known speaks against a tail that was not committed.
        may_cut: bool,
        /// For people.
        reason: String,
    },
}

/// Repairs the damage at `gap` with the bytes of `peer` where they are proven to belong there.
///
/// # Errors
/// [`RepairError`]; it may be tried again, and another node may be asked.
pub fn mend_range(disk: &dyn Disk, layout: ChunkLayout, gap: &Gap, peer: &dyn LogPeer) -> Result<Mended, RepairError> {
    let facts = peer.facts()?;
    let before = record_before(disk, layout, gap.from);
    let is_joined = match &before {
        None => (gap.from == LogPosition::ZERO).then_some(true),
        Some(header) => has_same(layout, header, facts.flushed, peer)?,
    };
    let damage = |to| Damage {
        chunk: layout.chunk_of(gap.from),
        from: gap.from,
        to,
        reason: "recovery stopped here".to_owned(),
    };
    if is_joined != Some(false)
        && let Some(anchor) = find_anchor(disk, layout, gap.from, facts.flushed, peer)?
    {
        return take_before(disk, layout, &damage(anchor.position), &anchor, &facts, peer).map(Mended::Repaired);
    }
    if let Some(to) = committed_end(disk, layout, gap, &facts, is_joined) {
        make_writable(disk, layout, to)?;
        return repair_range(disk, layout, &[], &damage(to), peer).map(Mended::Repaired);
    }
    if is_joined != Some(false)
        && let Some(same) = head_at(disk, layout, gap.from)
        && has_same(layout, &same, facts.flushed, peer)? == Some(true)
    {
        make_writable(disk, layout, same.end())?;
        return take_before(disk, layout, &damage(same.end()), &same, &facts, peer).map(Mended::Repaired);
    }
    Ok(verdict(gap, &facts, is_joined))
}

/// Whether the peer has this record of ours; `None` when its log does not go so far.
fn has_same(
    layout: ChunkLayout,
    ours: &Header,
    flushed: LogPosition,
    peer: &dyn RangeSource,
) -> Result<Option<bool>, RepairError> {
    if flushed < ours.end() {
        return Ok(None);
    }
    match peer.fetch(ours.position, ours.end()) {
        Ok(bytes) => {
            let theirs = RecordView::check(&bytes, ours.position, layout.room(ours.position));
            Ok(Some(theirs.is_ok_and(|theirs| theirs.header == *ours)))
        }
        // No record begins or ends there.
        Err(FetchError::Refused { status: 400, .. }) => Ok(Some(false)),
        Err(error) => Err(error.into()),
    }
}

/// The first record of the peer behind `from`, in the chunk or at the begin of the next one, that is good here, too.
fn find_anchor(
    disk: &dyn Disk,
    layout: ChunkLayout,
    from: LogPosition,
    flushed: LogPosition,
    peer: &dyn RangeSource,
) -> Result<Option<Header>, RepairError> {
    let next_chunk = layout.chunk_start(layout.chunk_of(from) + 1);
    let mut at = from;
    while at < flushed {
        let bytes = match peer.fetch(at, at.plus(layout.room(at)).min(flushed)) {
            Ok(bytes) => bytes,
            Err(FetchError::Refused { status: 400, .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let record = RecordView::check(rest, at, layout.room(at)).map_err(|error| unfit(peer, at, &error))?;
            if at > from && is_here(disk, layout, &record.header) {
                return Ok(Some(record.header));
            }
            if at >= next_chunk {
                return Ok(None);
            }
            at = record.header.end();
            rest = &rest[record.bytes().len()..];
        }
    }
    Ok(None)
}

fn unfit(peer: &dyn RangeSource, position: LogPosition, reason: &dyn ToString) -> RepairError {
    RepairError::Unfit { source_name: peer.describe(), position, reason: reason.to_string() }
}

/// What the head of the record at `position` says, whose body need not be good.
fn head_at(disk: &dyn Disk, layout: ChunkLayout, position: LogPosition) -> Option<Header> {
    let mut head = [0; RECORD_HEADER_BYTES];
    disk.read_at(FileName::Chunk(layout.chunk_of(position)), layout.file_offset(position), &mut head).ok()?;
    Header::read(&head, position, layout.room(position)).ok()
}

/// True when this log has this record, whole.
fn is_here(disk: &dyn Disk, layout: ChunkLayout, theirs: &Header) -> bool {
    let (name, offset) = (FileName::Chunk(layout.chunk_of(theirs.position)), layout.file_offset(theirs.position));
    let room = layout.room(theirs.position);
    if head_at(disk, layout, theirs.position) != Some(*theirs) {
        return false;
    }
    let mut record = vec![0; theirs.length as usize];
    disk.read_at(name, offset, &mut record).is_ok() && RecordView::check(&record, theirs.position, room).is_ok()
}

/// Takes what the peer has before `anchor`, which both logs have.
fn take_before(
    disk: &dyn Disk,
    layout: ChunkLayout,
    damage: &Damage,
    anchor: &Header,
    facts: &PeerFacts,
    peer: &dyn LogPeer,
) -> Result<Repaired, RepairError> {
    if facts.committed >= damage.to {
        return repair_range(disk, layout, &[], damage, peer);
    }
    // What is not committed there may go while it is fetched: only a new term can do that, and what comes in its place
    // stays as long as that term does.
    let length = damage.to.since(damage.from);
    if length > HELD_BYTES_MAX {
        let reason = format!("{length} bytes that are not committed there, at most {HELD_BYTES_MAX} are taken");
        return Err(unfit(peer, damage.from, &reason));
    }
    let mut held = Held { from: damage.from, bytes: Vec::new(), name: peer.describe() };
    while held.end() < damage.to {
        let piece = peer.fetch(held.end(), damage.to)?;
        if piece.is_empty() {
            return Err(unfit(peer, held.end(), &"nothing was given"));
        }
        held.bytes.extend_from_slice(&piece);
    }
    let is_still_there = has_same(layout, anchor, facts.flushed, peer)? == Some(true);
    if !is_still_there || peer.facts()?.term != facts.term {
        return Err(unfit(peer, anchor.position, &"its log has changed meanwhile"));
    }
    repair_range(disk, layout, &[], damage, &held)
}

/// Bytes that were fetched before.
struct Held {
    from: LogPosition,
    bytes: Vec<u8>,
    name: String,
}

impl Held {
    fn end(&self) -> LogPosition {
        self.from.plus(self.bytes.len() as u64)
    }
}

impl RangeSource for Held {
    fn fetch(&self, from: LogPosition, to: LogPosition) -> Result<Vec<u8>, FetchError> {
        let index = |position: LogPosition| usize::try_from(position.since(self.from)).unwrap_or(usize::MAX);
        Ok(self.bytes.get(index(from)..index(to)).unwrap_or_default().to_vec())
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}

/// Up to where what the peer has committed belongs here, without a record in common behind the damage.
fn committed_end(
    disk: &dyn Disk,
    layout: ChunkLayout,
    gap: &Gap,
    facts: &PeerFacts,
    is_joined: Option<bool>,
) -> Option<LogPosition> {
    let chunk_end = gap.from.plus(layout.room(gap.from));
    let to = chunk_end.min(gap.floor());
    if gap.from < to {
        // The same on both, or this node's hint and footers are wrong.
        return (facts.committed >= to).then_some(to);
    }
    let to = chunk_end.min(facts.committed);
    (is_joined == Some(true) && gap.from < to && !is_followed(disk, layout, gap)).then_some(to)
}

/// True when a good record of this log lies at the gap or behind it; also when that cannot be told.
fn is_followed(disk: &dyn Disk, layout: ChunkLayout, gap: &Gap) -> bool {
    let found = find_record(disk, layout, gap.from..gap.survey.limit, Term::ZERO);
    !matches!(found, Ok(None))
}

/// The page that the range ends in may be a bad sector, so that a part of it cannot be written. Nobody else writes now.
fn make_writable(disk: &dyn Disk, layout: ChunkLayout, end: LogPosition) -> Result<(), RepairError> {
    if layout.room(end) == layout.chunk_size {
        return Ok(());
    }
    let name = FileName::Chunk(layout.chunk_of(end));
    let page = layout.file_offset(end) / PAGE_BYTES * PAGE_BYTES;
    let mut bytes = vec![0; PAGE_BYTES as usize];
    match disk.read_at(name, page, &mut bytes) {
        Err(error) if is_bad_sector(&error) => disk
            .write_at(name, page, &vec![0; PAGE_BYTES as usize])
            .map_err(|source| RepairError::Io { name, attempt: "written", source }),
        _ => Ok(()),
    }
}

fn verdict(gap: &Gap, facts: &PeerFacts, is_joined: Option<bool>) -> Mended {
    let mut epochs = EpochTable::new(gap.survey.epochs.clone());
    epochs.truncate(gap.from);
    let common = match epochs.common_end(gap.from, &facts.epochs, facts.flushed) {
        Ok(common) => common,
        Err(error) => return Mended::Unsure { may_cut: false, reason: error.to_string() },
    };
    let may_cut = common >= gap.floor();
    if may_cut && is_joined == Some(false) && common < gap.from && facts.committed > common {
        return Mended::Diverged { common };
    }
    let PeerFacts { committed, flushed, .. } = facts;
    let reason = format!(
        "it has committed up to {committed}, flushed up to {flushed}, and nothing of it proves what belongs at {}; both logs \
         are the same up to {common}",
        gap.from
    );
    Mended::Unsure { may_cut, reason }
}

/// The record that ends at `position`; `None` when it cannot be found.
fn record_before(disk: &dyn Disk, layout: ChunkLayout, position: LogPosition) -> Option<Header> {
    let last_byte = LogPosition(position.0.checked_sub(1)?);
    let name = FileName::Chunk(layout.chunk_of(last_byte));
    let (mut window, mut start) = (Vec::new(), LogPosition::ZERO);
    let mut at = layout.chunk_start(layout.chunk_of(last_byte));
    while at < position {
        let is_inside = at >= start && at.since(start) + RECORD_HEADER_BYTES as u64 <= window.len() as u64;
        if !is_inside {
            // No further than the records that are known to be good: what follows may be unreadable.
            window.resize(usize::try_from(position.since(at).min(WINDOW_BYTES)).ok()?, 0);
            disk.read_at(name, layout.file_offset(at), &mut window).ok()?;
            start = at;
        }
        let header = Header::read(&window[usize::try_from(at.since(start)).ok()?..], at, layout.room(at)).ok()?;
        if header.end() == position {
            return Some(header);
        }
        at = header.end();
    }
    None
}

/// Cuts the log at `from`, the end of a record: first makes a mark there durable, then erases what follows. The node must
/// count as suspect before.
///
/// # Errors
/// [`RecoveryError::Io`]; calling it again is safe.
pub fn cut_tail(disk: &dyn Disk, layout: ChunkLayout, survey: &Survey, from: LogPosition) -> Result<(), RecoveryError> {
    assert!(from >= survey.sealed, "a cut at {from}, sealed up to {}", survey.sealed);
    let name = FileName::Chunk(layout.chunk_of(from));
    let failed = |attempt| move |source| RecoveryError::Io { name, attempt, source };
    let sequence = survey.mark.map_or(1, |mark| mark.sequence + 1);
    let (offset, slot) = DurableMark::encode_slot(sequence, from);
    disk.write_at(name, offset, &slot).map_err(failed("written"))?;
    disk.sync(name).map_err(failed("flushed"))?;
    erase_tail(disk, layout, from)?;
    Ok(())
}

#[cfg(test)]
#[path = "mending_tests.rs"]
mod tests;
