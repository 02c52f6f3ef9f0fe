//! A node's disk: what the system shows, what would survive a power cut, and the writes between the two.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;

use fastrand::Rng;

use crate::storage::{ChunkLayout, Disk, FileInfo, FileName, LogRead, ReadError};
use crate::types::LogPosition;

/// The smallest piece that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// A write in the system's cache that no flush covers yet.
#[derive(Debug)]
struct Unflushed {
    order: u64,
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct File {
    /// What reads see.
    seen: Vec<u8>,
    /// What a power cut leaves for certain.
    durable: Vec<u8>,
    unflushed: VecDeque<Unflushed>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct VirtualDisk {
    layout: ChunkLayout,
    files: RefCell<BTreeMap<FileName, File>>,
    /// Counts writes: a flush covers those before it.
    order: Cell<u64>,
}

impl VirtualDisk {
    pub(super) fn new(layout: ChunkLayout) -> VirtualDisk {
        VirtualDisk { layout, files: RefCell::default(), order: Cell::new(0) }
    }

    /// What a flush submitted now covers.
    pub(super) fn order(&self) -> u64 {
        self.order.get()
    }

    /// A flush of the file, submitted at `order`, is done.
    pub(super) fn flushed(&self, name: FileName, order: u64) {
        let mut files = self.files.borrow_mut();
        let Some(file) = files.get_mut(&name) else { return };
        while file.unflushed.front().is_some_and(|write| write.order < order) {
            let write = file.unflushed.pop_front().expect("just seen");
            file.durable[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }

    /// The power fails: of each file's unflushed writes all, none, some, or some sectors are there afterwards.
    pub(super) fn lose_power(&self, random: &mut Rng) {
        for file in self.files.borrow_mut().values_mut() {
            let mode = random.u8(0..4);
            for write in std::mem::take(&mut file.unflushed) {
                let whole = mode == 0 || (mode == 2 && random.bool());
                for (index, sector) in sectors(write.offset, write.bytes.len()) {
                    if whole || (mode == 3 && random.bool()) {
                        let bytes = &write.bytes[sector.clone()];
                        file.durable[index..index + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            file.seen.clone_from(&file.durable);
        }
    }

    /// True when these bytes of the log are durable here.
    pub(super) fn holds(&self, mut position: LogPosition, mut bytes: &[u8]) -> bool {
        let files = self.files.borrow();
        while !bytes.is_empty() {
            let Some(file) = files.get(&FileName::Chunk(self.layout.chunk_of(position))) else { return false };
            let length = bytes.len().min(self.layout.room(position) as usize);
            let offset = self.layout.file_offset(position) as usize;
            if file.durable[offset..offset + length] != bytes[..length] {
                return false;
            }
            position = position.plus(length as u64);
            bytes = &bytes[length..];
        }
        true
    }

    /// Appends the log's bytes from `from` to `to`, as reads see them.
    pub(super) fn read_log(&self, from: LogPosition, to: LogPosition, into: &mut Vec<u8>) {
        let files = self.files.borrow();
        let mut position = from;
        while position < to {
            let length = to.since(position).min(self.layout.room(position)) as usize;
            let offset = self.layout.file_offset(position) as usize;
            match files.get(&FileName::Chunk(self.layout.chunk_of(position))) {
                Some(file) => into.extend_from_slice(&file.seen[offset..offset + length]),
                None => into.resize(into.len() + length, 0),
            }
            position = position.plus(length as u64);
        }
    }
}

/// The sectors that a write touches: where each piece goes in the file, and which bytes of the write it is.
fn sectors(offset: usize, length: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let step = (SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(length - at);
        let piece = (offset + at, at..at + step);
        at += step;
        (step > 0).then_some(piece)
    })
}

impl Disk for VirtualDisk {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let info = |(&name, file): (&FileName, &File)| FileInfo { name, length: file.seen.len() as u64 };
        Ok(self.files.borrow().iter().map(info).collect())
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        if files.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut seen = head.to_vec();
        seen.resize(length as usize, 0);
        files.insert(name, File { durable: seen.clone(), seen, unflushed: VecDeque::new() });
        Ok(())
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let files = self.files.borrow();
        let file = files.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let offset = offset as usize;
        into.copy_from_slice(file.seen.get(offset..offset + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.borrow_mut();
        let file = files.get_mut(&name).ok_or(io::ErrorKind::NotFound)?;
        let offset = offset as usize;
        file.seen.get_mut(offset..offset + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        let order = self.order.get();
        self.order.set(order + 1);
        file.unflushed.push_back(Unflushed { order, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&self, name: FileName) -> io::Result<()> {
        self.flushed(name, u64::MAX);
        Ok(())
    }
}

impl LogRead for VirtualDisk {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        let chunk = self.layout.chunk_of(position);
        let files = self.files.borrow();
        let file = files.get(&FileName::Chunk(chunk)).ok_or(ReadError::NoChunk { position, chunk })?;
        visit(&file.seen[self.layout.file_offset(position) as usize..self.layout.footer_offset() as usize]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_what_was_flushed_and_tears_the_rest_at_sectors() {
        let (mut torn, mut kept, mut lost) = (0, 0, 0);
        for seed in 0..200 {
            let disk = VirtualDisk::new(ChunkLayout { chunk_size: 4096 });
            disk.create(FileName::Chunk(0), &[], 8192).unwrap();
            disk.write_at(FileName::Chunk(0), 4096, &[1; 1000]).unwrap();
            let order = disk.order();
            disk.write_at(FileName::Chunk(0), 4196, &[2; 2000]).unwrap();
            disk.flushed(FileName::Chunk(0), order);
            assert!(disk.holds(LogPosition(0), &[1; 1000]));
            disk.lose_power(&mut Rng::with_seed(seed));
            let mut bytes = vec![0; 2100];
            disk.read_at(FileName::Chunk(0), 4096, &mut bytes).unwrap();
            assert!(bytes[..100] == [1; 100], "flushed and not overwritten");
            let sectors = [&bytes[100..512], &bytes[512..1024], &bytes[1024..1536], &bytes[1536..2048], &bytes[2048..]];
            let new = sectors.map(|sector| sector.iter().all(|&byte| byte == 2));
            let old = sectors.map(|sector| sector.iter().all(|&byte| byte < 2));
            assert!(new.iter().zip(old).all(|(new, old)| *new != old), "a sector is whole");
            match new.iter().filter(|&&new| new).count() {
                0 => lost += 1,
                5 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(torn > 20 && kept > 20 && lost > 20, "{torn} {kept} {lost}");
    }
}
