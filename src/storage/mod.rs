//! The log's files: chunks, the durable state, recovery at start, chunks prepared ahead, and reading.
//!
//! Promises: what [`recover`] returns is whole, checked and durable; a file that [`Disk::create`] made is there after a
//! crash with its full length, or not at all. Leaves to others: the writing of the log itself (the log thread, through
//! its ring), what the records mean (`codec`, `index`), and which positions are committed (`consensus`).
//!
//! The byte layouts are in the manual, [`log_format`](crate::manual::log_format).
#![forbid(unsafe_code)]

mod check;
mod chunk;
mod cold;
mod damage;
mod disk;
mod error;
mod facts;
mod figures;
mod footer;
mod layout;
#[cfg(test)]
pub(crate) mod memory;
mod mending;
mod preparer;
mod reader;
mod recovery;
mod renewal;
mod repair;
mod search;
mod state;
mod walk;

pub use check::ChunkCheck;
pub use chunk::{ChunkHeader, DurableMark, WrongMark};
pub use cold::{COLD_READ_BYTES, ColdFile};
pub use damage::{Damage, DamageReports};
pub use disk::{Disk, FileDisk, FileInfo, FileName, is_bad_sector};
pub use error::{ReadError, RecoveryError, StorageError};
pub use figures::StorageFigures;
pub use footer::ChunkFooter;
pub use layout::{ChunkLayout, PAGE_BYTES};
pub use mending::{Gap, LogPeer, Mended, PeerFacts, cut_tail, mend_range};
pub use preparer::{Preparer, PreparerReport, reserve_bytes};
pub use reader::{LogRead, LogReader};
pub use recovery::{Recovered, ScanProgress, Survey, TornTail, erase_tail, recover, survey};
pub use renewal::Renewal;
pub use repair::{
    FetchError, RangeSource, RepairError, Repaired, damage_at, damaged_range, find_damage, repair_range, report_damage,
};
pub use state::{DurableState, STATE_FILE_BYTES, STATE_SLOT_BYTES, STATE_SLOT_OFFSETS};

/// Format version of chunk files.
pub const CHUNK_FORMAT_VERSION: u32 = chunk::FORMAT_VERSION;
/// Format version of the state file.
pub const STATE_FORMAT_VERSION: u32 = state::FORMAT_VERSION;
