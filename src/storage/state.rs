//! The small state that must survive a crash before an answer that depends on it goes out: term, vote, identity.

use std::fmt;

use crate::codec::record::MembershipBody;
use crate::types::{Guid, LogPosition, NodeId, Term};

use super::disk::{Disk, FileName};
use super::error::StorageError;

/// Bytes of a slot: a page.
pub const STATE_SLOT_BYTES: usize = 4096;

/// Where the slots lie in the state file, in the order in which they are written.
pub const STATE_SLOT_OFFSETS: [u64; 2] = [0, STATE_SLOT_BYTES as u64];

/// Bytes of the state file.
pub const STATE_FILE_BYTES: u64 = (STATE_SLOT_OFFSETS.len() * STATE_SLOT_BYTES) as u64;

const MAGIC: [u8; 8] = *b"RSSTATE\0";
pub(super) const FORMAT_VERSION: u32 = 2;
/// Where the founding list begins in a slot.
const FOUNDING_OFFSET: usize = 84;
const CRC_OFFSET: usize = STATE_SLOT_BYTES - 4;

const FLAG_FOUNDED: u8 = 1;
const FLAG_VOTED: u8 = 2;
const FLAG_FOUNDING: u8 = 4;
const FLAG_SUSPECT: u8 = 8;

/// What a node must not forget. Kept in two slots of one file, the same in both. A state is saved when it was written to
/// one, flushed, written to the other and flushed: one of the two is always whole, and either may rot later without an older
/// state being believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableState {
    /// Counts up with every save.
    pub sequence: u64,
    /// The node, for the life of its data directory.
    pub node: NodeId,
    /// Bytes of log in a chunk, for the life of the data directory.
    pub chunk_size: u64,
    /// The one member list that this node accepted for founding a cluster (or joined by), if any.
    pub founding: Option<MembershipBody>,
    /// True when the cluster of `founding` exists.
    pub founded: bool,
    /// The highest term seen.
    pub term: Term,
    /// Whom the node voted for in `term`.
    pub voted_for: Option<NodeId>,
    /// Committed up to here at least; saved along with other changes, so it lags.
    pub commit_hint: LogPosition,
    /// True when acknowledged writes may be missing from this node's log ([`Recovered::is_suspect`]), until it is known to
    /// have them again. Whoever clears it saves the state, as for any other change.
    ///
    /// [`Recovered::is_suspect`]: super::Recovered::is_suspect
    pub suspect: bool,
}

impl DurableState {
    /// The state of a node that has never run.
    #[must_use]
    pub fn new(node: NodeId, chunk_size: u64) -> DurableState {
        DurableState {
            sequence: 0,
            node,
            chunk_size,
            founding: None,
            founded: false,
            term: Term::ZERO,
            voted_for: None,
            commit_hint: LogPosition::ZERO,
            suspect: false,
        }
    }

    /// The bytes of a slot. They belong at each of [`STATE_SLOT_OFFSETS`], one after the other with a flush behind each.
    ///
    /// # Panics
    /// When the founding list does not fit the slot: it is bounded by the largest cluster.
    #[must_use]
    pub fn encode(&self) -> [u8; STATE_SLOT_BYTES] {
        let founding = self.founding.as_ref().map(MembershipBody::encode).unwrap_or_default();
        assert!(founding.len() <= CRC_OFFSET - FOUNDING_OFFSET, "a founding list of {} bytes", founding.len());
        let flag = |condition: bool, flag: u8| if condition { flag } else { 0 };
        let mut slot = [0; STATE_SLOT_BYTES];
        slot[0..8].copy_from_slice(&MAGIC);
        slot[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        slot[12..16].copy_from_slice(&self.term.0.to_le_bytes());
        slot[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        slot[24..40].copy_from_slice(&self.node.0.0);
        slot[40..48].copy_from_slice(&self.chunk_size.to_le_bytes());
        slot[48..56].copy_from_slice(&self.commit_hint.0.to_le_bytes());
        slot[56..72].copy_from_slice(&self.voted_for.unwrap_or_default().0.0);
        slot[72] = flag(self.founded, FLAG_FOUNDED)
            | flag(self.voted_for.is_some(), FLAG_VOTED)
            | flag(self.founding.is_some(), FLAG_FOUNDING)
            | flag(self.suspect, FLAG_SUSPECT);
        slot[80..84].copy_from_slice(&(founding.len() as u32).to_le_bytes());
        slot[FOUNDING_OFFSET..FOUNDING_OFFSET + founding.len()].copy_from_slice(&founding);
        let crc = crc32c::crc32c(&slot[..CRC_OFFSET]);
        slot[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// The state in a slot; why not, when there is none.
    fn decode(slot: &[u8]) -> Result<DurableState, BadSlot> {
        assert_eq!(slot.len(), STATE_SLOT_BYTES);
        if slot.iter().all(|&byte| byte == 0) {
            return Err("never written".into());
        }
        let (computed, stored) = (crc32c::crc32c(&slot[..CRC_OFFSET]), u32_at(slot, CRC_OFFSET));
        if computed != stored {
            return Err(format!("checksum is {computed:08x}, the slot says {stored:08x}").as_str().into());
        }
        if slot[0..8] != MAGIC {
            return Err("not a state".into());
        }
        let version = u32_at(slot, 8);
        if version != FORMAT_VERSION {
            return Err(BadSlot::Version(version));
        }
        let flags = slot[72];
        let founding = slot.get(FOUNDING_OFFSET..FOUNDING_OFFSET.saturating_add(u32_at(slot, 80) as usize));
        let founding = match flags & FLAG_FOUNDING != 0 {
            true => Some(founding.and_then(MembershipBody::decode).ok_or("the member list is not one")?),
            false => None,
        };
        Ok(DurableState {
            sequence: u64_at(slot, 16),
            node: NodeId(guid_at(slot, 24)),
            chunk_size: u64_at(slot, 40),
            founding,
            founded: flags & FLAG_FOUNDED != 0,
            term: Term(u32_at(slot, 12)),
            voted_for: (flags & FLAG_VOTED != 0).then(|| NodeId(guid_at(slot, 56))),
            commit_hint: LogPosition(u64_at(slot, 48)),
            suspect: flags & FLAG_SUSPECT != 0,
        })
    }

    /// What the two slots of a state file hold; why not, where one holds no state. For those who only look.
    ///
    /// # Errors
    /// In words, when the file has another length.
    pub fn slots(bytes: &[u8]) -> Result<[Result<DurableState, String>; 2], String> {
        if bytes.len() as u64 != STATE_FILE_BYTES {
            return Err(format!("it has {} bytes, not {STATE_FILE_BYTES}", bytes.len()));
        }
        let (first, second) = bytes.split_at(STATE_SLOT_BYTES);
        Ok([first, second].map(|slot| DurableState::decode(slot).map_err(|bad| bad.to_string())))
    }

    /// The newest state in the data directory; `None` when there is no state file, so the node is new.
    ///
    /// The state is written and flushed once more, into both slots: one may have rotted, or hold the state before because
    /// the node stopped between the two; and after a crash of the process alone a slot may be good in the system's cache
    /// and yet not be on the disk.
    ///
    /// # Errors
    /// [`StorageError::StateCorrupt`] when the file is there but holds no good state, [`StorageError::StateVersion`] when it
    /// is another program's, and [`StorageError::Io`].
    pub fn load(disk: &dyn Disk) -> Result<Option<DurableState>, StorageError> {
        let name = FileName::State;
        let failed = |attempt| move |source| StorageError::Io { name, attempt, source };
        let files = disk.list().map_err(failed("listed"))?;
        let Some(file) = files.iter().find(|file| file.name == name) else {
            return Ok(None);
        };
        if file.length != STATE_FILE_BYTES {
            let reason = format!("it has {} bytes, not {STATE_FILE_BYTES}", file.length);
            return Err(StorageError::StateCorrupt { reason });
        }
        let mut bytes = vec![0; STATE_FILE_BYTES as usize];
        disk.read_at(name, 0, &mut bytes).map_err(failed("read"))?;
        let (first, second) = bytes.split_at(STATE_SLOT_BYTES);
        let [mut order_first, mut order_second] = STATE_SLOT_OFFSETS;
        let state = match (DurableState::decode(first), DurableState::decode(second)) {
            (Ok(first), Ok(second)) => {
                if first.sequence >= second.sequence {
                    first
                } else {
                    second
                }
            }
            (Ok(state), Err(reason)) => {
                warn_of(1, &reason);
                // The good one is written over only when the other is good, too.
                std::mem::swap(&mut order_first, &mut order_second);
                state
            }
            (Err(reason), Ok(state)) => {
                warn_of(0, &reason);
                state
            }
            (Err(BadSlot::Version(found)), Err(_)) | (Err(_), Err(BadSlot::Version(found))) => {
                return Err(StorageError::StateVersion { found, reads: FORMAT_VERSION });
            }
            (Err(first), Err(second)) => {
                return Err(StorageError::StateCorrupt { reason: format!("slot 0: {first}; slot 1: {second}") });
            }
        };
        state.save_in_order(disk, [order_first, order_second])?;
        Ok(Some(state))
    }

    /// Makes the state file of a new node, durable.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn create(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let bytes = self.encode().repeat(STATE_SLOT_OFFSETS.len());
        let failed = |source| StorageError::Io { name: FileName::State, attempt: "created", source };
        disk.create(FileName::State, &bytes, STATE_FILE_BYTES).map_err(failed)
    }

    /// Writes the state to both slots and makes it durable, for whoever may wait. The caller has counted `sequence` up
    /// by one since the save before.
    ///
    /// # Errors
    /// [`StorageError::Io`]. A failed flush is final: whether the state is durable is unknown.
    pub fn save(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        self.save_in_order(disk, STATE_SLOT_OFFSETS)
    }

    /// Remembers, durably, that the log is suspect. For the start, before the log's tail is erased: what showed it is gone
    /// afterwards.
    ///
    /// # Errors
    /// As [`DurableState::save`].
    pub fn save_suspect(&mut self, disk: &dyn Disk) -> Result<(), StorageError> {
        if self.suspect {
            return Ok(());
        }
        self.suspect = true;
        self.sequence += 1;
        self.save(disk)
    }

    fn save_in_order(&self, disk: &dyn Disk, offsets: [u64; 2]) -> Result<(), StorageError> {
        let name = FileName::State;
        let slot = self.encode();
        for offset in offsets {
            disk.write_at(name, offset, &slot).map_err(|source| StorageError::Io {
                name,
                attempt: "written",
                source,
            })?;
            disk.sync(name).map_err(|source| StorageError::Io { name, attempt: "flushed", source })?;
        }
        Ok(())
    }
}

/// Why a slot holds no state.
#[derive(Clone, Debug, PartialEq, Eq)]
enum BadSlot {
    Version(u32),
    Reason(String),
}

impl From<&str> for BadSlot {
    fn from(reason: &str) -> BadSlot {
        BadSlot::Reason(reason.to_owned())
    }
}

impl fmt::Display for BadSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadSlot::Version(version) => {
                write!(f, "its format version is {version}, this program reads {FORMAT_VERSION}")
            }
            BadSlot::Reason(reason) => f.write_str(reason),
        }
    }
}

fn warn_of(slot: u32, reason: &BadSlot) {
    tracing::warn!(slot, %reason, "a slot of {} is damaged, or its write was cut off; it is written anew from the other", FileName::State);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn guid_at(bytes: &[u8], at: usize) -> Guid {
    Guid(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::record::MemberRecord;
    use crate::storage::memory::MemoryDisk;
    use crate::types::ClusterId;

    fn state(sequence: u64) -> DurableState {
        let member = MemberRecord {
            node: NodeId(Guid([1; 16])),
            int_ip: "10.0.0.1".parse().unwrap(),
            int_tcp_port: 1112,
            int_http_port: 2112,
        };
        DurableState {
            sequence,
            node: NodeId(Guid([1; 16])),
            chunk_size: 256 << 20,
            founding: Some(MembershipBody { cluster: ClusterId(Guid([9; 16])), members: vec![member] }),
            founded: true,
            term: Term(5),
            voted_for: Some(NodeId(Guid([2; 16]))),
            commit_hint: LogPosition(0x1234),
            suspect: false,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_layout() {
        let slot = state(3).encode();
        assert_eq!((STATE_SLOT_OFFSETS, STATE_FILE_BYTES), ([0, 4096], 8192));
        assert_eq!(
            hex(&slot[..84]),
            concat!(
                "5253535441544500",
                "02000000",
                "05000000",
                "0300000000000000",
                "01010101010101010101010101010101",
                "0000001000000000",
                "3412000000000000",
                "02020202020202020202020202020202",
                "07",
                "00000000000000",
                "38000000"
            )
        );
        assert_eq!(
            hex(&slot[84..84 + 56]),
            concat!(
                "09090909090909090909090909090909",
                "01000000",
                "01010101010101010101010101010101",
                "00000000000000000000ffff0a000001",
                "5804",
                "4008"
            )
        );
        assert!(slot[84 + 56..4092].iter().all(|&byte| byte == 0));
        assert_eq!(hex(&slot[4092..]), "d505ecb0");
    }

    #[test]
    fn the_newest_state_is_loaded_and_a_file_that_cannot_be_believed_is_refused() {
        let disk = MemoryDisk::default();
        assert_eq!(DurableState::load(&disk).unwrap(), None);
        let first = DurableState::new(NodeId(Guid([1; 16])), 1 << 20);
        first.create(&disk).unwrap();
        assert_eq!(DurableState::load(&disk).unwrap(), Some(first));
        for sequence in 1..6 {
            let state = DurableState { term: Term(sequence as u32), ..state(sequence) };
            state.save(&disk).unwrap();
            disk.crash();
            assert_eq!(DurableState::load(&disk).unwrap(), Some(state));
        }
        let version = |version: u8| {
            move |bytes: &mut Vec<u8>| {
                for slot in bytes.chunks_exact_mut(STATE_SLOT_BYTES) {
                    slot[8] = version;
                    let crc = crc32c::crc32c(&slot[..CRC_OFFSET]);
                    slot[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
                }
            }
        };
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let disk = disk.clone();
            disk.edit(FileName::State, |bytes| change(bytes));
            let error = DurableState::load(&disk).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        let both_rot = |bytes: &mut Vec<u8>| {
            bytes[13] ^= 1;
            bytes[4096 + 2000] ^= 1;
        };
        check(&both_rot, "node.state is damaged (slot 0: checksum is");
        check(&|bytes| bytes.truncate(4096), "node.state is damaged (it has 4096 bytes, not 8192)");
        check(&version(1), "node.state has format version 1, this program reads version 2: it was written by an older");
        check(&version(3), "node.state has format version 3, this program reads version 2: it was written by a newer");
    }

    /// A vote that was answered must never be forgotten for the one before it.
    #[test]
    fn any_flipped_bit_of_a_saved_state_leaves_the_newest() {
        let disk = MemoryDisk::default();
        state(0).create(&disk).unwrap();
        let newest = state(1);
        newest.save(&disk).unwrap();
        for bit in 0..STATE_FILE_BYTES as usize * 8 {
            disk.edit(FileName::State, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let hurt = disk.files.borrow()[&FileName::State].clone();
            assert_eq!(DurableState::load(&disk).unwrap().as_ref(), Some(&newest), "bit {bit}");
            disk.crash();
            let mended = disk.files.borrow()[&FileName::State].clone();
            assert!(mended != hurt && mended[..4096] == mended[4096..], "bit {bit} is mended, durably");
        }
    }

    /// Whatever a power cut leaves of a save, one slot is whole: the state before it or the new one.
    #[test]
    fn a_save_that_is_cut_off_anywhere_leaves_the_state_before_or_the_new_one() {
        let (old, new) = (state(4), DurableState { term: Term(6), voted_for: None, ..state(5) });
        for (slot, sector) in [(0, 0), (0, 3), (0, 7), (1, 0), (1, 7)] {
            let disk = MemoryDisk::default();
            old.create(&disk).unwrap();
            let bytes = new.encode();
            if slot == 1 {
                disk.write_at(FileName::State, 0, &bytes).unwrap();
            }
            // The sectors from this one on are lost.
            disk.write_at(FileName::State, STATE_SLOT_OFFSETS[slot], &bytes[..sector * 512]).unwrap();
            let expected = if slot == 0 { &old } else { &new };
            assert_eq!(DurableState::load(&disk).unwrap().as_ref(), Some(expected), "{slot} {sector}");
        }
    }

    /// A process dies between the first write of a save and its flush; the next one saves again, and then the power fails.
    #[test]
    fn a_loaded_state_is_durable_in_both_slots() {
        let disk = MemoryDisk::default();
        state(0).create(&disk).unwrap();
        disk.write_at(FileName::State, STATE_SLOT_OFFSETS[0], &state(1).encode()).unwrap();
        let loaded = DurableState::load(&disk).unwrap().unwrap();
        assert_eq!(loaded.sequence, 1);
        disk.crash();
        disk.edit(FileName::State, |bytes| bytes[2000] ^= 1);
        assert_eq!(DurableState::load(&disk).unwrap(), Some(loaded));
    }

    #[test]
    fn every_optional_part_may_be_absent() {
        let full = state(2);
        for (founding, voted_for, founded, suspect) in [(None, None, false, false), (None, full.voted_for, true, true)]
        {
            let state = DurableState { founding, voted_for, founded, suspect, ..full.clone() };
            assert_eq!(DurableState::decode(&state.encode()), Ok(state));
        }
        assert_eq!(DurableState::decode(&full.encode()), Ok(full));
    }
}
