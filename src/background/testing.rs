//! A data directory with full chunks, for the tests of chores that work on chunks.

use std::sync::Arc;
use std::time::Instant;

use super::{Chore, Next};
use crate::codec::record::{BatchBuilder, EpochBody, Header, RecordKind, seal};
use crate::engine::Published;
use crate::limits::RECORD_HEADER_BYTES;
use crate::storage::memory::TempDirectory;
use crate::storage::{ChunkFooter, ChunkHeader, ChunkLayout, DamageReports, Disk, FileDisk, FileName, StorageFigures};
use crate::types::{EventId, Guid, LogPosition, NodeId, Term};

pub(super) const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 64 << 10 };

/// Bytes of each record; a chunk holds a whole number of them.
const RECORD_BYTES: u64 = 1 << 10;

/// Full chunks, all committed and flushed, and one that is empty.
pub(super) struct Chunks {
    pub(super) disk: Arc<FileDisk>,
    pub(super) published: Arc<Published>,
    pub(super) damage: DamageReports,
    pub(super) figures: Arc<StorageFigures>,
    _directory: TempDirectory,
}

impl Chunks {
    pub(super) fn new(full: u32) -> Chunks {
        let directory = TempDirectory::new();
        let disk = Arc::new(FileDisk::open(directory.path()).unwrap());
        for chunk in 0..=full {
            let page = ChunkHeader { chunk, layout: LAYOUT }.encode();
            disk.create(FileName::Chunk(chunk), &page, LAYOUT.file_length()).unwrap();
        }
        let end = LAYOUT.chunk_start(full);
        for position in (0..end.0).step_by(RECORD_BYTES as usize).map(LogPosition) {
            let name = FileName::Chunk(LAYOUT.chunk_of(position));
            disk.write_at(name, LAYOUT.file_offset(position), &record(position)).unwrap();
        }
        let published = Arc::new(Published::default());
        published.set_positions(end, end, end, end);
        let (damage, figures) = (DamageReports::default(), Arc::default());
        Chunks { disk, published, damage, figures, _directory: directory }
    }

    /// Lets a chore work until it rests for long.
    pub(super) fn run(&self, chore: &mut dyn Chore) {
        let mut now = Instant::now();
        for _ in 0..10_000 {
            match chore.step(now) {
                Next::Now => {}
                Next::After(rest) if rest.as_millis() < 1000 => now += rest,
                Next::After(_) => return,
            }
        }
        panic!("{} does not come to rest", chore.name());
    }

    /// Changes a byte of a chunk file.
    pub(super) fn flip(&self, chunk: u32, offset: u64) {
        self.xor(chunk, offset, 0x20);
    }

    /// Changes these bits of a byte of a chunk file.
    pub(super) fn xor(&self, chunk: u32, offset: u64, bits: u8) {
        let mut byte = [0];
        self.disk.read_at(FileName::Chunk(chunk), offset, &mut byte).unwrap();
        self.disk.write_at(FileName::Chunk(chunk), offset, &[byte[0] ^ bits]).unwrap();
    }

    pub(super) fn footer(&self, chunk: u32) -> Result<Option<ChunkFooter>, String> {
        let mut page = vec![0; 4096];
        self.disk.read_at(FileName::Chunk(chunk), LAYOUT.footer_offset(), &mut page).unwrap();
        ChunkFooter::decode(&page, chunk, LAYOUT)
    }

    /// The whole file of a chunk.
    pub(super) fn file(&self, chunk: u32) -> Vec<u8> {
        let mut bytes = vec![0; LAYOUT.file_length() as usize];
        self.disk.read_at(FileName::Chunk(chunk), 0, &mut bytes).unwrap();
        bytes
    }
}

/// The record at `position`: an epoch at the begin of the log and of each fourth chunk, else a write of one event.
fn record(position: LogPosition) -> Vec<u8> {
    let term = Term(1 + LAYOUT.chunk_of(position) / 4);
    let is_epoch = position.0.is_multiple_of(4 * LAYOUT.chunk_size);
    let (kind, body) = if is_epoch {
        let (epoch_id, leader) = (Guid([term.0 as u8; 16]), NodeId(Guid([1; 16])));
        (RecordKind::Epoch, EpochBody { epoch_id, leader, previous: None }.encode().to_vec())
    } else {
        let mut batch = BatchBuilder::new("orders", 0);
        batch.event(EventId(Guid(u128::from(position.0).to_le_bytes())), "placed", true, &[position.0 as u8; 500], b"");
        (RecordKind::Append, batch.finish())
    };
    let mut bytes = vec![0; RECORD_BYTES as usize];
    bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
    let event_count = u16::from(!is_epoch);
    seal(&mut bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 1 });
    bytes
}
