//! Pages with checksums: how the bytes of a table lie in its file.
//!
//! A table is one sequence of bytes, cut into pieces of [`PAGE_DATA`] bytes; a page of the file is such a piece and its
//! checksum. The checksum covers the table's number and the page's, so that a page in the wrong place is damage, too.
//!
//! Pages are read with `pread` into memory of the reader's own and checked there: what was checked cannot change any more,
//! a failing disk is an error and no signal, and nothing stays mapped. The price, a call and a checksum of 4 KiB, is about
//! a microsecond.

use std::io;
use std::sync::Arc;

use super::store::{TableFile, TableStore};

/// A page of the file.
pub(super) const PAGE: usize = 4096;

/// Bytes of the table in it; its checksum is behind them.
pub(super) const PAGE_DATA: usize = PAGE - 4;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// Bytes written before they are flushed: so the flush at the end is short.
const FLUSH_BYTES: u64 = 8 << 20;

/// Why a table cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A page does not check out.
    #[error("page {page} has checksum {found:#010x}, {computed:#010x} was computed")]
    Page { page: u64, found: u32, computed: u32 },
    /// Something in it makes no sense.
    #[error("{0}")]
    Content(&'static str),
}

impl Damage {
    /// The error when it is none of the file, which may be as good as ever: the system had no more of something, or did not
    /// allow it.
    pub(super) fn elsewhere(self) -> Result<Damage, io::Error> {
        match self {
            Damage::Read(error) if !is_lost(&error) => Err(error),
            damage => Ok(damage),
        }
    }
}

/// True when the file or its bytes are gone: after `EIO` the disk does not have them.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn checksum(table: u64, page: u64, data: &[u8]) -> u32 {
    let place = [table.to_le_bytes(), page.to_le_bytes()].concat();
    crc32c::crc32c_append(crc32c::crc32c(&place), data)
}

/// Writes the pages of a new table.
#[derive(Debug)]
pub(super) struct PageWriter {
    store: Arc<dyn TableStore>,
    name: String,
    table: u64,
    /// Whole pages that are not in the file yet, and the data of the last one, which is not whole.
    whole: Vec<u8>,
    part: Vec<u8>,
    pages: u64,
    written: u64,
    unflushed: u64,
}

impl PageWriter {
    pub(super) fn new(store: Arc<dyn TableStore>, name: String, table: u64) -> PageWriter {
        let (whole, part) = (Vec::with_capacity(WRITE_BYTES + PAGE), Vec::with_capacity(PAGE_DATA));
        PageWriter { store, name, table, whole, part, pages: 0, written: 0, unflushed: 0 }
    }

    /// The place of the next byte in the table.
    pub(super) fn at(&self) -> u64 {
        self.pages * PAGE_DATA as u64 + self.part.len() as u64
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE_DATA - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = rest;
            if self.part.len() == PAGE_DATA {
                self.end_page()?;
            }
        }
        Ok(())
    }

    /// Fills the page up with zeros.
    pub(super) fn end_section(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        self.part.resize(PAGE_DATA, 0);
        self.end_page()
    }

    fn end_page(&mut self) -> io::Result<()> {
        let crc = checksum(self.table, self.pages, &self.part);
        self.whole.append(&mut self.part);
        self.whole.extend_from_slice(&crc.to_le_bytes());
        self.pages += 1;
        if self.whole.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.store.write(&self.name, self.written, &self.whole)?;
        self.written += self.whole.len() as u64;
        self.unflushed += self.whole.len() as u64;
        self.whole.clear();
        if self.unflushed >= FLUSH_BYTES {
            self.unflushed = 0;
            self.store.flush(&self.name)?;
        }
        Ok(())
    }

    /// Ends the file and gives it its name. Gives the number of its pages.
    pub(super) fn publish(&mut self, name: &str) -> io::Result<u64> {
        self.end_section()?;
        self.write()?;
        self.store.publish(&self.name, name)?;
        Ok(self.pages)
    }
}

/// The pages of a table that is there.
#[derive(Debug)]
pub(super) struct Pages {
    file: Arc<dyn TableFile>,
    table: u64,
    pub(super) count: u64,
}

impl Pages {
    pub(super) fn open(file: Arc<dyn TableFile>, table: u64) -> Result<Pages, Damage> {
        let length = file.length()?;
        if length == 0 || !length.is_multiple_of(PAGE as u64) {
            return Err(Damage::Content("its file does not consist of whole pages"));
        }
        Ok(Pages { file, table, count: length / PAGE as u64 })
    }

    /// Appends the data of pages to `out`, checked.
    pub(super) fn read(&self, first: u64, count: usize, out: &mut Vec<u8>) -> Result<(), Damage> {
        if first.checked_add(count as u64).is_none_or(|end| end > self.count) {
            return Err(Damage::Content("something should lie behind its end"));
        }
        let start = out.len();
        out.resize(start + count * PAGE, 0);
        let read = self.file.read_at(first * PAGE as u64, &mut out[start..]);
        let checked = read.map_err(Damage::from).and_then(|()| self.check(first, &mut out[start..]));
        out.truncate(if checked.is_ok() { start + count * PAGE_DATA } else { start });
        checked
    }

    /// Checks pages, and moves their data together.
    fn check(&self, first: u64, bytes: &mut [u8]) -> Result<(), Damage> {
        for index in 0..bytes.len() / PAGE {
            let page = &bytes[index * PAGE..(index + 1) * PAGE];
            let (data, crc) = page.split_at(PAGE_DATA);
            let found = u32::from_le_bytes(crc.try_into().expect("four bytes"));
            let computed = checksum(self.table, first + index as u64, data);
            if found != computed {
                return Err(Damage::Page { page: first + index as u64, found, computed });
            }
            bytes.copy_within(index * PAGE..index * PAGE + PAGE_DATA, index * PAGE_DATA);
        }
        Ok(())
    }
}

/// Reads a table's bytes from a place on.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pages: &'a Pages,
    /// Read no further.
    end: u64,
    /// Pages fetched at a time.
    ahead: usize,
    buffer: Vec<u8>,
    /// The first page in the buffer.
    page: u64,
    /// The next byte, from the buffer's start on.
    next: usize,
}

impl<'a> Cursor<'a> {
    /// From `at` to `end` at most; that many pages are fetched at a time.
    pub(super) fn new(pages: &'a Pages, at: u64, end: u64, ahead: usize) -> Cursor<'a> {
        let (page, next) = (at / PAGE_DATA as u64, (at % PAGE_DATA as u64) as usize);
        Cursor { pages, end, ahead, buffer: Vec::new(), page, next }
    }

    /// The place of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.page * PAGE_DATA as u64 + self.next as u64
    }

    /// It reads no further than this.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at() >= self.end
    }

    /// Goes on to a place that is not in front of this one.
    pub(super) fn go_to(&mut self, at: u64) {
        let (page, next) = (at / PAGE_DATA as u64, (at % PAGE_DATA as u64) as usize);
        if self.at() <= at && at <= self.page * PAGE_DATA as u64 + self.buffer.len() as u64 {
            self.next += (at - self.at()) as usize;
        } else {
            self.buffer.clear();
            (self.page, self.next) = (page, next);
        }
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&[u8], Damage> {
        self.fill(count)?;
        self.next += count;
        Ok(&self.buffer[self.next - count..self.next])
    }

    pub(super) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damage> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage::Content("a number in it does not end"))
    }

    fn fill(&mut self, count: usize) -> Result<(), Damage> {
        if self.buffer.len().checked_sub(self.next).is_some_and(|left| count <= left) {
            return Ok(());
        }
        if count as u64 > self.end.saturating_sub(self.at()) {
            return Err(Damage::Content("something in it is longer than its place"));
        }
        let used = self.next / PAGE_DATA;
        let kept = self.buffer.len() / PAGE_DATA;
        let dropped = used.min(kept);
        self.buffer.drain(..dropped * PAGE_DATA);
        self.page += dropped as u64;
        self.next -= dropped * PAGE_DATA;
        let have = self.buffer.len() / PAGE_DATA;
        let wanted = (self.next + count).div_ceil(PAGE_DATA) - have;
        let first = self.page + have as u64;
        let last = self.end.div_ceil(PAGE_DATA as u64);
        let more = wanted.max(self.ahead).min(usize::try_from(last - first).unwrap_or(usize::MAX)).max(wanted);
        self.pages.read(first, more, &mut self.buffer)
    }
}

/// Appends a number, seven bits in a byte, lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front of `bytes`.
pub(super) fn get_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
