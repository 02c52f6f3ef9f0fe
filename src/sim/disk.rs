//! A node's disk: what the system shows, what would survive a power cut, and the writes between the two.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use parking_lot::RwLock;

use crate::limits::CHUNK_HEADER_BYTES;
use crate::storage::{ChunkLayout, Disk, DurableMark, FileInfo, FileName, LogRead, ReadError};
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

impl File {
    /// Puts a write behind everything that was ever flushed, if there is room.
    fn put_astray(&mut self, write: &Unflushed, random: &mut Rng) -> bool {
        let used = self.durable.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let first = used.max(write.offset + 1).next_multiple_of(SECTOR_BYTES);
        let Some(room) = self.durable.len().checked_sub(first + write.bytes.len()) else { return false };
        let at = first + random.usize(0..=room / SECTOR_BYTES) * SECTOR_BYTES;
        self.durable[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
        true
    }
}

/// What a power cut did to unflushed writes.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) lost: u64,
    pub(super) torn: u64,
    pub(super) misdirected: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct VirtualDisk {
    layout: ChunkLayout,
    files: RwLock<BTreeMap<FileName, File>>,
    /// Counts writes: a flush covers those before it.
    order: AtomicU64,
}

impl VirtualDisk {
    pub(super) fn new(layout: ChunkLayout) -> VirtualDisk {
        VirtualDisk { layout, files: RwLock::default(), order: AtomicU64::new(0) }
    }

    /// What a flush submitted now covers.
    pub(super) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// A flush of the file, submitted at `order`, is done.
    pub(super) fn flushed(&self, name: FileName, order: u64) {
        let mut files = self.files.write();
        let Some(file) = files.get_mut(&name) else { return };
        while file.unflushed.front().is_some_and(|write| write.order < order) {
            let write = file.unflushed.pop_front().expect("just seen");
            file.durable[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }

    /// A flush of the file, submitted at `order`, fails. The system takes the pages for clean all the same: reads see what
    /// was written, and no later flush brings it to the disk. Some of it has got there.
    pub(super) fn flush_failed(&self, name: FileName, order: u64, random: &mut Rng) {
        let mut files = self.files.write();
        let Some(file) = files.get_mut(&name) else { return };
        let covered = file.unflushed.iter().take_while(|write| write.order < order).count();
        for write in file.unflushed.drain(..covered) {
            if random.bool() {
                file.durable[write.offset..write.offset + write.bytes.len()].copy_from_slice(&write.bytes);
            }
        }
    }

    /// The power fails: of each file's unflushed writes all, none, some, or some sectors are there afterwards.
    /// `misdirected`: now and then a write to a chunk lands in the wrong place, where no flushed log is.
    pub(super) fn lose_power(&self, random: &mut Rng, misdirected: bool) -> Losses {
        let mut losses = Losses::default();
        for (&name, file) in self.files.write().iter_mut() {
            let mode = random.u8(0..4);
            let mut writes = std::mem::take(&mut file.unflushed);
            if misdirected && matches!(name, FileName::Chunk(_)) && !writes.is_empty() && random.u8(0..3) == 0 {
                let astray = random.usize(0..writes.len());
                let write = writes.remove(astray).expect("one of them");
                losses.misdirected += u64::from(file.put_astray(&write, random));
            }
            for write in writes {
                let whole = mode == 0 || (mode == 2 && random.bool());
                let (mut kept, mut count) = (0, 0);
                for (index, sector) in sectors(write.offset, write.bytes.len()) {
                    count += 1;
                    if whole || (mode == 3 && random.bool()) {
                        kept += 1;
                        let bytes = &write.bytes[sector.clone()];
                        file.durable[index..index + bytes.len()].copy_from_slice(bytes);
                    }
                }
                losses.lost += u64::from(kept == 0);
                losses.torn += u64::from(kept > 0 && kept < count);
            }
            file.seen.clone_from(&file.durable);
        }
        losses
    }

    /// Bytes of the log change by themselves: some bits here and there, or all of them to zero.
    pub(super) fn rot(&self, from: LogPosition, to: LogPosition, random: &mut Rng) {
        let offset = self.layout.file_offset(from) as usize;
        let range = offset..offset + to.since(from) as usize;
        self.rot_file(FileName::Chunk(self.layout.chunk_of(from)), range, random);
    }

    /// The same anywhere in a file.
    pub(super) fn rot_file(&self, name: FileName, range: Range<usize>, random: &mut Rng) {
        let mut files = self.files.write();
        let Some(file) = files.get_mut(&name) else { return };
        let is_gone = random.u8(0..3) == 0;
        for at in range.clone() {
            let byte = if is_gone { 0 } else { file.durable[at] ^ (1 << random.u8(0..8)) };
            (file.durable[at], file.seen[at]) = (byte, byte);
        }
        // Something has changed for sure.
        (file.durable[range.start], file.seen[range.start]) = (!file.durable[range.start], !file.seen[range.start]);
    }

    /// The position of the newest durable mark that a power cut would leave.
    pub(super) fn durable_mark(&self) -> LogPosition {
        self.newest_mark().map_or(LogPosition::ZERO, |(_, mark)| mark.position)
    }

    /// That mark, and the file that it is in.
    pub(super) fn newest_mark(&self) -> Option<(FileName, DurableMark)> {
        let files = self.files.read_recursive();
        let marks = files.iter().filter_map(|(&name, file)| match name {
            FileName::Chunk(_) => {
                DurableMark::read_newest(&file.durable[..CHUNK_HEADER_BYTES as usize]).map(|mark| (name, mark))
            }
            FileName::State => None,
        });
        marks.max_by_key(|(_, mark)| mark.sequence)
    }

    /// What a power cut would leave of these bytes.
    pub(super) fn durable_bytes(&self, name: FileName, range: Range<u64>) -> Option<Vec<u8>> {
        let files = self.files.read_recursive();
        Some(files.get(&name)?.durable[range.start as usize..range.end as usize].to_vec())
    }

    /// True when these bytes of the log are durable here.
    pub(super) fn holds(&self, mut position: LogPosition, mut bytes: &[u8]) -> bool {
        let files = self.files.read_recursive();
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
        let files = self.files.read_recursive();
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
        Ok(self.files.read_recursive().iter().map(info).collect())
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        let mut files = self.files.write();
        if files.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut seen = head.to_vec();
        seen.resize(length as usize, 0);
        files.insert(name, File { durable: seen.clone(), seen, unflushed: VecDeque::new() });
        Ok(())
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let files = self.files.read_recursive();
        let file = files.get(&name).ok_or(io::ErrorKind::NotFound)?;
        let offset = offset as usize;
        into.copy_from_slice(file.seen.get(offset..offset + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files.write();
        let file = files.get_mut(&name).ok_or(io::ErrorKind::NotFound)?;
        let offset = offset as usize;
        file.seen.get_mut(offset..offset + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        let order = self.order.fetch_add(1, Ordering::Relaxed);
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
        let files = self.files.read_recursive();
        let file = files.get(&FileName::Chunk(chunk)).ok_or(ReadError::NoChunk { position, chunk })?;
        visit(&file.seen[self.layout.file_offset(position) as usize..self.layout.footer_offset() as usize]);
        Ok(())
    }
}

impl LogRead for Arc<VirtualDisk> {
    fn with_chunk(&self, position: LogPosition, visit: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        (**self).with_chunk(position, visit)
    }
}

/// A disk as somebody sees it who thinks that what is in the cache need not be written again.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct UnflushedDisk<'a>(pub(super) &'a VirtualDisk);

#[cfg(test)]
impl Disk for UnflushedDisk<'_> {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        self.0.list()
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        self.0.create(name, head, length)
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(name, offset, into)
    }

    fn write_at(&self, _: FileName, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _: FileName) -> io::Result<()> {
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
            disk.lose_power(&mut Rng::with_seed(seed), false);
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
