//! Reading chunk files as they are on the disk, not as the page cache has them, and without filling the cache.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use rustix::io::{ReadWriteFlags, preadv2};

use super::disk::{FileDisk, FileName};
use super::layout::PAGE_BYTES;

/// Bytes read at a time at most.
pub const COLD_READ_BYTES: usize = 1 << 20;

/// A chunk file, read past the page cache where the file system can (what was written and not flushed yet is seen all the
/// same: the system writes it first). Elsewhere it is read as usual, and what was read is given back to the system.
#[derive(Debug)]
pub struct ColdFile {
    file: File,
    direct: Option<File>,
    buffer: Vec<u8>,
}

impl ColdFile {
    /// Opens chunk `chunk`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(disk: &FileDisk, chunk: u32) -> io::Result<ColdFile> {
        let name = FileName::Chunk(chunk);
        let (file, direct) = (disk.open_file(name)?, disk.open_direct(name));
        Ok(ColdFile { file, direct, buffer: vec![0; COLD_READ_BYTES + 2 * PAGE_BYTES as usize] })
    }

    /// The bytes at `offset`: at most `length`, at least one unless `length` is zero.
    ///
    /// # Errors
    /// Those of the system, and `UnexpectedEof` behind the file's end.
    pub fn read(&mut self, offset: u64, length: u64) -> io::Result<&[u8]> {
        let skip = (offset % PAGE_BYTES) as usize;
        let length = length.min((COLD_READ_BYTES - skip) as u64) as usize;
        let pages = (skip + length).next_multiple_of(PAGE_BYTES as usize);
        let aligned = self.buffer.as_ptr().align_offset(PAGE_BYTES as usize);
        let into = &mut self.buffer[aligned..aligned + pages];
        let start = offset - skip as u64;
        match self.direct.as_ref().map(|direct| read_fully(direct, into, start)) {
            Some(Ok(read)) if read >= skip + length => {}
            Some(Ok(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Not on this file system, or not in these pieces.
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                self.direct = None;
                self.read_cached(offset, start, aligned, skip + length)?;
            }
            Some(Err(error)) => return Err(error),
            None => self.read_cached(offset, start, aligned, skip + length)?,
        }
        Ok(&self.buffer[aligned + skip..aligned + skip + length])
    }

    /// The same, from the page cache when all of it is there: for those who do not mind which copy they see, so that what
    /// was just written need not come back from the disk.
    ///
    /// # Errors
    /// As [`ColdFile::read`].
    pub fn read_any(&mut self, offset: u64, length: u64) -> io::Result<&[u8]> {
        let length = length.min(COLD_READ_BYTES as u64) as usize;
        let into = &mut self.buffer[..length];
        let read = preadv2(&self.file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT);
        // An error, too, means no more than that it must be read in another way.
        if read == Ok(length) { Ok(&self.buffer[..length]) } else { self.read(offset, length as u64) }
    }

    fn read_cached(&mut self, offset: u64, start: u64, aligned: usize, length: usize) -> io::Result<()> {
        let into = &mut self.buffer[aligned..aligned + length];
        self.file.read_exact_at(into, start)?;
        FileDisk::forget_cached(&self.file, offset, length as u64);
        Ok(())
    }
}

/// Reads until `into` is full or the file ends; the number of bytes.
fn read_fully(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(length) => read += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::Disk;
    use crate::storage::memory::TempDirectory;

    fn check(is_direct: bool) {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        let bytes: Vec<u8> = (0..3 << 20).map(|index: u32| (index / 7) as u8).collect();
        disk.create(FileName::Chunk(0), &bytes, bytes.len() as u64).unwrap();
        let mut file = ColdFile::open(&disk, 0).unwrap();
        if !is_direct {
            file.direct = None;
        }
        for (offset, length) in [(0, 4096), (4096, 1 << 20), (4104, 3000), ((3 << 20) - 8, 8), (8191, 2), (5000, 0)] {
            let read = file.read(offset, length).unwrap();
            assert_eq!(read, &bytes[offset as usize..(offset + length) as usize], "{offset} {length}");
            let read = file.read_any(offset, length).unwrap();
            assert_eq!(read, &bytes[offset as usize..(offset + length) as usize], "{offset} {length}");
        }
        let read = file.read(100, 3 << 20).unwrap();
        assert_eq!(read, &bytes[100..100 + read.len()]);
        assert!(!read.is_empty());
        // Through the page cache, and not flushed.
        disk.write_at(FileName::Chunk(0), 70_000, b"new").unwrap();
        assert_eq!(file.read(70_000, 3).unwrap(), b"new");
        assert_eq!(file.read_any(70_000, 3).unwrap(), b"new");
        assert_eq!(file.read((3 << 20) - 4, 8).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn any_range_is_read_as_it_was_written_last() {
        check(true);
        check(false);
    }
}
