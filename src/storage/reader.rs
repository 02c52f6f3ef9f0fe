//! Reading the log where it lies: chunk files mapped into memory.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::ring::{ReadMap, page_failures};
use crate::types::LogPosition;

use super::disk::FileName;
use super::error::ReadError;
use super::layout::ChunkLayout;

/// Gives access to the bytes of the log. The real one is [`LogReader`]; the simulator has its own.
pub trait LogRead {
    /// Calls `visit` once with the bytes from `position` to the end of its chunk (the last byte of
    /// log, not of the file). Only what is committed, and written to
    /// the chunk file, has a meaning in them; the rest may change while it is looked at.
    ///
    /// # Errors
    /// [`ReadError`]. Then `visit` was not called, or something was found to be unreadable while it looked: what it made
    /// of it must be thrown away. (What it found not to check out is damaged all the same.)
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError>;

    /// Counts reads that failed as [`ReadError::Unreadable`] says, or more: who finds the same number before and after some
    /// calls knows that what checked out in the first was still there in the last.
    fn unreadable(&self) -> u64 {
        0
    }

    /// Says that somebody who reads from the beginning to the end has passed `from` to `to`, so that it need not be kept
    /// at hand. Nobody else notices but by the time a read takes.
    fn passed(&self, from: LogPosition, to: LogPosition) {
        let _ = (from, to);
    }
}

/// The log of a data directory, for any number of threads. A clone is another handle on the same mappings.
///
/// A chunk is mapped when it is first asked for and stays mapped: address space is plentiful, and the page cache decides
/// what is in memory. A page that the disk cannot read is zeros in the mapping, until [`LogReader::forget`] after the
/// repair: so the disk is asked for it once, and not by every reader.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    layout: ChunkLayout,
    /// By chunk number.
    chunks: RwLock<Vec<Option<Arc<ReadMap>>>>,
}

impl LogReader {
    /// A reader of the chunk files in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, layout: ChunkLayout) -> LogReader {
        LogReader { shared: Arc::new(Shared { directory: directory.into(), layout, chunks: RwLock::default() }) }
    }

    /// How the log is cut.
    #[must_use]
    pub fn layout(&self) -> ChunkLayout {
        self.shared.layout
    }

    /// The whole file of chunk `number`, header page and footer page included.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn chunk(&self, number: u32) -> Result<Arc<ReadMap>, ReadError> {
        let index = number as usize;
        if let Some(Some(map)) = self.shared.chunks.read().get(index) {
            return Ok(Arc::clone(map));
        }
        let map = self.map(number)?;
        let mut chunks = self.shared.chunks.write();
        if chunks.len() <= index {
            // The file exists, so this is bounded by the chunks on disk.
            chunks.resize(index + 1, None);
        }
        // Another thread may have been faster; one mapping is enough.
        Ok(Arc::clone(chunks[index].get_or_insert(map)))
    }

    /// Has chunk `number` mapped anew for the next who asks for it, if a page of its mapping could not be read: it has been
    /// repaired.
    pub fn forget(&self, number: u32) {
        if let Some(place) = self.shared.chunks.write().get_mut(number as usize) {
            place.take_if(|map| map.failures() > 0);
        }
    }

    fn map(&self, number: u32) -> Result<Arc<ReadMap>, ReadError> {
        let name = FileName::Chunk(number);
        let file = match File::open(self.shared.directory.join(name.to_string())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::NoChunk { position: self.shared.layout.chunk_start(number), chunk: number });
            }
            Err(source) => return Err(ReadError::Map { name, source }),
        };
        let length = usize::try_from(self.shared.layout.file_length()).expect("a chunk fits the address space");
        Ok(Arc::new(ReadMap::new(&file, length).map_err(|source| ReadError::Map { name, source })?))
    }
}

impl LogRead for LogReader {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let chunk = self.shared.layout.chunk_of(position);
        let map = self.chunk(chunk)?;
        let offset =
            usize::try_from(self.shared.layout.file_offset(position)).expect("an offset fits the address space");
        let end = usize::try_from(self.shared.layout.footer_offset()).expect("an offset fits the address space");
        let before = map.failures();
        visit(&map[offset..end]);
        if map.failures() == before {
            return Ok(());
        }
        let name = FileName::Chunk(chunk);
        tracing::error!(%position, "the disk cannot read a part of {name}");
        Err(ReadError::Unreadable { name, position })
    }

    fn unreadable(&self) -> u64 {
        page_failures()
    }

    /// The mapping's pages count as the process's memory while they are mapped: without this the node would seem to hold
    /// all of the log that its index has ever read.
    fn passed(&self, from: LogPosition, to: LogPosition) {
        let layout = self.shared.layout;
        let mut at = from;
        while at < to {
            let length = layout.room(at).min(to.since(at));
            let mapped = self.shared.chunks.read().get(layout.chunk_of(at) as usize).cloned().flatten();
            if let (Some(map), Ok(start)) = (mapped, usize::try_from(layout.file_offset(at))) {
                map.release(start..start + length as usize);
            }
            at = at.plus(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::chunk::ChunkHeader;
    use crate::storage::disk::{Disk, FileDisk};
    use crate::storage::memory::TempDirectory;

    const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };

    fn create(disk: &FileDisk, chunk: u32) {
        let page = ChunkHeader { chunk, layout: LAYOUT }.encode();
        disk.create(FileName::Chunk(chunk), &page, LAYOUT.file_length()).unwrap();
    }

    #[test]
    fn what_is_written_is_seen_and_chunks_may_come_later() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        create(&disk, 0);
        let reader = LogReader::new(directory.path(), LAYOUT);
        let other = reader.clone();
        let last = LogPosition((1 << 20) - 8);
        reader.with_chunk(last, &mut |bytes| assert_eq!(bytes, [0; 8])).unwrap();
        disk.write_at(FileName::Chunk(0), LAYOUT.file_offset(last), b"12345678").unwrap();
        other.with_chunk(last, &mut |bytes| assert_eq!(bytes, b"12345678")).unwrap();
        assert!(Arc::ptr_eq(&reader.chunk(0).unwrap(), &other.chunk(0).unwrap()));

        let mut visited = false;
        let error = reader.with_chunk(LogPosition(1 << 20), &mut |_| visited = true).unwrap_err();
        assert!(matches!(error, ReadError::NoChunk { chunk: 1, .. }) && !visited, "{error}");
        create(&disk, 1);
        reader.with_chunk(LogPosition((1 << 20) + 64), &mut |bytes| assert_eq!(bytes.len(), (1 << 20) - 64)).unwrap();
    }

    /// Bytes of a mapping that count as this process's memory.
    fn resident(map: &ReadMap) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let head = format!("{:x}-", map.as_ptr() as usize);
        let mapping = smaps.lines().skip_while(|line| !line.starts_with(&head));
        let kib = mapping.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    #[test]
    fn what_was_passed_is_no_longer_resident_and_can_still_be_read() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        for chunk in 0..2 {
            create(&disk, chunk);
            disk.write_at(FileName::Chunk(chunk), 4096, &vec![7; 1 << 20]).unwrap();
        }
        let reader = LogReader::new(directory.path(), LAYOUT);
        let sum = |from: u64| {
            let mut sum = 0;
            let mut add = |bytes: &[u8]| sum = bytes.iter().map(|&byte| u64::from(byte)).sum();
            reader.with_chunk(LogPosition(from), &mut add).unwrap();
            sum
        };
        assert_eq!((sum(0), sum(1 << 20)), (7 << 20, 7 << 20));
        let (first, second) = (reader.chunk(0).unwrap(), reader.chunk(1).unwrap());
        assert!(resident(&first) >= 1 << 20 && resident(&second) >= 1 << 20);
        reader.passed(LogPosition(100), LogPosition((1 << 20) + (512 << 10)));
        assert!(resident(&first) <= 64 << 10, "{}", resident(&first));
        assert!(resident(&second) <= 600 << 10, "{}", resident(&second));
        assert_eq!((sum(0), sum(1 << 20)), (7 << 20, 7 << 20));
    }

    #[test]
    fn what_the_disk_cannot_read_is_an_error_once_then_zeros_and_good_again_after_the_repair() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        create(&disk, 0);
        disk.write_at(FileName::Chunk(0), 4096, &vec![7; 1 << 20]).unwrap();
        let reader = LogReader::new(directory.path(), LAYOUT);
        let other = reader.clone();
        let look = |reader: &LogReader| {
            let mut seen = Vec::new();
            let outcome = reader.with_chunk(LogPosition(512 << 10), &mut |bytes| seen = bytes[..8192].to_vec());
            (outcome, seen)
        };
        let before = reader.unreadable();
        assert!(look(&reader).0.is_ok());
        // Behind the end of its file a mapping fails as on a bad sector.
        let file = File::options().write(true).open(directory.path().join("chunk-000000.000000")).unwrap();
        file.set_len(4096 + (512 << 10) + 4096).unwrap();
        let (outcome, seen) = look(&reader);
        assert!(matches!(outcome, Err(ReadError::Unreadable { position: LogPosition(0x80000), .. })), "{outcome:?}");
        assert_eq!(seen, [[7; 4096], [0; 4096]].concat());
        assert!(reader.unreadable() > before);
        let (outcome, again) = look(&other);
        assert!(outcome.is_ok() && again == seen, "{outcome:?}");
        let mut first = 0;
        other.with_chunk(LogPosition(0), &mut |bytes| first = bytes[0]).unwrap();
        assert_eq!(first, 7, "what can be read is served");

        file.set_len(LAYOUT.file_length()).unwrap();
        disk.write_at(FileName::Chunk(0), 4096, &vec![7; 1 << 20]).unwrap();
        assert_eq!(look(&other).1, seen, "until somebody says that it is repaired");
        reader.forget(0);
        reader.forget(9);
        let (outcome, seen) = look(&other);
        assert!(outcome.is_ok() && seen == [7; 8192]);
    }

    #[test]
    fn a_file_of_the_wrong_length_is_not_mapped() {
        let directory = TempDirectory::new();
        std::fs::write(directory.path().join("chunk-000000.000000"), b"short").unwrap();
        let reader = LogReader::new(directory.path(), LAYOUT);
        assert!(matches!(reader.chunk(0), Err(ReadError::Map { .. })));
    }
}
