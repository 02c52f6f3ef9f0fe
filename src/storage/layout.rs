//! Where a log position lies: which chunk file, and where in it.

use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES};
use crate::types::LogPosition;

/// A file system changes a file in memory by pages. One that it does not have there, and that a write fills in part only,
/// must be read from the disk first.
pub const PAGE_BYTES: u64 = 4096;

/// How the log is cut into chunk files. One number, fixed for the life of a data directory and the same on every node
/// of a cluster, so that one position lies at one offset of one chunk everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLayout {
    /// Bytes of log in a chunk; the header page and the footer page come on top.
    pub chunk_size: u64,
}

impl ChunkLayout {
    /// The chunk that holds the byte at `position`.
    ///
    /// # Panics
    /// Beyond chunk number 2^32: more than any disk holds.
    #[must_use]
    pub fn chunk_of(&self, position: LogPosition) -> u32 {
        u32::try_from(position.0 / self.chunk_size).expect("chunk numbers fit 32 bits")
    }

    /// The offset in its chunk file of the byte at `position`.
    #[must_use]
    pub fn file_offset(&self, position: LogPosition) -> u64 {
        CHUNK_HEADER_BYTES + position.0 % self.chunk_size
    }

    /// Bytes from `position` to the end of its chunk; never zero, because the end belongs to the next chunk.
    #[must_use]
    pub fn room(&self, position: LogPosition) -> u64 {
        self.chunk_size - position.0 % self.chunk_size
    }

    /// Bytes from `position` to the end of its page in the file; zero where a page begins. See [`PAGE_BYTES`].
    #[must_use]
    pub fn page_rest(&self, position: LogPosition) -> u64 {
        let used = self.file_offset(position) % PAGE_BYTES;
        if used == 0 { 0 } else { (PAGE_BYTES - used).min(self.room(position)) }
    }

    /// The position of the first byte of chunk `chunk`.
    #[must_use]
    pub fn chunk_start(&self, chunk: u32) -> LogPosition {
        LogPosition(u64::from(chunk) * self.chunk_size)
    }

    /// Where the footer page lies in a chunk file.
    #[must_use]
    pub fn footer_offset(&self) -> u64 {
        CHUNK_HEADER_BYTES + self.chunk_size
    }

    /// Bytes of a chunk file, header page and footer page included.
    #[must_use]
    pub fn file_length(&self) -> u64 {
        self.footer_offset() + CHUNK_FOOTER_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_map_to_chunks_and_back() {
        let layout = ChunkLayout { chunk_size: 1 << 20 };
        let check = |position: u64, chunk: u32, offset: u64, room: u64| {
            let position = LogPosition(position);
            assert_eq!((layout.chunk_of(position), layout.file_offset(position)), (chunk, offset), "{position}");
            assert_eq!(layout.room(position), room, "{position}");
            assert_eq!(layout.chunk_start(chunk).plus(offset - CHUNK_HEADER_BYTES), position);
        };
        check(0, 0, 4096, 1 << 20);
        check((1 << 20) - 8, 0, 4096 + (1 << 20) - 8, 8);
        check(1 << 20, 1, 4096, 1 << 20);
        check((5 << 20) + 64, 5, 4160, (1 << 20) - 64);
        assert_eq!((layout.footer_offset(), layout.file_length()), (4096 + (1 << 20), 8192 + (1 << 20)));
        let rest = |position: u64| layout.page_rest(LogPosition(position));
        assert_eq!([rest(0), rest(8), rest(4096), rest(8184), rest(1 << 20)], [0, 4088, 0, 8, 0]);
        assert_eq!(ChunkLayout { chunk_size: 1000 }.page_rest(LogPosition(1990)), 10, "not beyond the chunk");
    }
}
