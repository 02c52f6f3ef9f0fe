//! Stand-ins for tests: a disk in memory that can crash, and a directory that goes away with its value.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Disk, FileInfo, FileName};
use super::error::ReadError;
use super::layout::ChunkLayout;
use super::reader::LogRead;
use crate::types::LogPosition;

/// Files in memory: what they hold, and what of it would survive a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk {
    /// What reads see.
    pub(crate) files: RefCell<BTreeMap<FileName, Vec<u8>>>,
    durable: RefCell<BTreeMap<FileName, Vec<u8>>>,
}

impl MemoryDisk {
    /// Forgets what was not flushed.
    pub(crate) fn crash(&self) {
        self.files.replace(self.durable.borrow().clone());
    }

    /// Makes everything durable.
    pub(crate) fn sync_all(&self) {
        self.durable.replace(self.files.borrow().clone());
    }

    /// Runs `change` on the bytes of a file.
    pub(crate) fn edit(&self, name: FileName, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.files.borrow_mut().get_mut(&name).unwrap());
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let info = |(&name, bytes): (&FileName, &Vec<u8>)| FileInfo { name, length: bytes.len() as u64 };
        Ok(self.files.borrow().iter().map(info).collect())
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        if self.files.borrow().contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut bytes = head.to_vec();
        bytes.resize(length as usize, 0);
        self.files.borrow_mut().insert(name, bytes.clone());
        self.durable.borrow_mut().insert(name, bytes);
        Ok(())
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let files = self.files.borrow();
        let bytes = files.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let offset = offset as usize;
        into.copy_from_slice(bytes.get(offset..offset + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let file = files.get_mut(&name).ok_or(io::ErrorKind::NotFound)?;
        let offset = offset as usize;
        file.get_mut(offset..offset + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, name: FileName) -> io::Result<()> {
        let bytes = self.files.borrow().get(&name).ok_or(io::ErrorKind::NotFound)?.clone();
        self.durable.borrow_mut().insert(name, bytes);
        Ok(())
    }
}

/// A log of chunks in memory, for those who only read.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    /// How it is cut.
    pub(crate) layout: ChunkLayout,
    /// The bytes from position 0 on, to the end of a chunk.
    pub(crate) bytes: Vec<u8>,
}

impl LogRead for MemoryLog {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let (start, end) = (position.0 as usize, (position.0 + self.layout.room(position)) as usize);
        let chunk = self.layout.chunk_of(position);
        visit(self.bytes.get(start..end).ok_or(ReadError::NoChunk { position, chunk })?);
        Ok(())
    }
}

/// A new directory below the system's place for temporary files.
#[derive(Debug)]
pub(crate) struct TempDirectory(PathBuf);

impl TempDirectory {
    /// Makes it.
    pub(crate) fn new() -> TempDirectory {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringstore-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        TempDirectory(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
