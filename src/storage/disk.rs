//! Files of a data directory behind five methods, so that the simulator can stand in for the real disk.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock, statvfs};

use super::cold::ColdFile;
use super::error::StorageError;
use super::layout::PAGE_BYTES;

/// The file that says who has the directory open.
const LOCK_FILE: &str = "ringstore.lock";

/// What the name of a file ends in while it is being made.
const UNFINISHED: &str = ".tmp";

/// Bytes of zeros written at a time while a file is made.
const FILL_STEP_BYTES: usize = 1 << 20;

/// Files kept open between calls.
const OPEN_FILES_MAX: usize = 4;

/// The files that the server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// The durable small state.
    State,
    /// A chunk of the log, by number.
    Chunk(u32),
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileName::State => f.write_str("node.state"),
            FileName::Chunk(number) => write!(f, "chunk-{number:06}.000000"),
        }
    }
}

impl FileName {
    /// The name that `text` is, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<FileName> {
        if text == FileName::State.to_string() {
            return Some(FileName::State);
        }
        let digits = text.strip_prefix("chunk-")?.strip_suffix(".000000")?;
        let name = FileName::Chunk(digits.parse().ok()?);
        // Only the one way of writing a number counts, or two files could be the same chunk.
        (name.to_string() == text).then_some(name)
    }
}

/// A file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name.
    pub name: FileName,
    /// Its length in bytes.
    pub length: u64,
}

/// A directory of preallocated files. What was written is durable only after [`Disk::sync`] of that file.
pub trait Disk {
    /// The files that are there, in order of name.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self) -> io::Result<Vec<FileInfo>>;

    /// Makes a file of `length` bytes that begins with `head` and goes on with zeros. When this returns, the file is
    /// durable with its name and full length; after a crash before that it is wholly there or not at all.
    ///
    /// # Errors
    /// `AlreadyExists` when there is such a file, `StorageFull` when there is no room, and those of the system.
    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()>;

    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    /// `NotFound`, `UnexpectedEof`, and those of the system.
    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// The same as the disk has it, not a copy in memory, where there is such a difference.
    ///
    /// # Errors
    /// As [`Disk::read_at`].
    fn read_cold(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_at(name, offset, into)
    }

    /// False when nothing is ever flushed, so that a file that says otherwise is not believed.
    fn is_flushing(&self) -> bool {
        true
    }

    /// Says that the bytes from `offset` on will be read soon. Costs nothing but time where it does not help.
    fn expect_read(&self, name: FileName, offset: u64, length: u64) {
        let _ = (name, offset, length);
    }

    /// Writes `bytes` at `offset`, inside the file's length.
    ///
    /// # Errors
    /// `NotFound`, and those of the system.
    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written to the file durable.
    ///
    /// # Errors
    /// Those of the system. A failed flush is final: never try again and go on.
    fn sync(&self, name: FileName) -> io::Result<()>;
}

/// What stands for bytes that cannot be read: nothing that checks out.
const UNREADABLE: u8 = 0xdb;

/// True for the error of a disk that cannot read a sector, which is damage like any other.
#[must_use]
pub fn is_bad_sector(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// [`Disk::read_at`] that puts up with bad sectors: pages that cannot be read become nonsense.
pub(super) fn read_around(disk: &dyn Disk, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
    match disk.read_at(name, offset, into) {
        Err(error) if is_bad_sector(&error) => {}
        outcome => return outcome,
    }
    let mut at = 0;
    while at < into.len() {
        let in_page = (PAGE_BYTES - (offset + at as u64) % PAGE_BYTES) as usize;
        let piece = at..into.len().min(at + in_page);
        match disk.read_at(name, offset + at as u64, &mut into[piece.clone()]) {
            Err(error) if is_bad_sector(&error) => into[piece.clone()].fill(UNREADABLE),
            outcome => outcome?,
        }
        at = piece.end;
    }
    Ok(())
}

/// Who is told of a failed flush.
#[derive(Default)]
struct FlushWatch(OnceLock<Watch>);

/// Is told which file could not be flushed, and why.
type Watch = Box<dyn Fn(FileName, &io::Error) + Send + Sync>;

impl fmt::Debug for FlushWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlushWatch")
    }
}

/// A real data directory, locked for this process as long as the value lives.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
    /// False only when flushing was switched off by its unsafe option.
    flush: bool,
    /// A flush has failed: none succeeds any more, because what is on the disk is not known.
    has_failed: AtomicBool,
    watch: FlushWatch,
    /// The files used last, newest first; at most [`OPEN_FILES_MAX`].
    open: Mutex<Vec<(FileName, Arc<File>)>>,
    /// Held: closing it gives the lock up.
    lock: File,
}

impl FileDisk {
    /// Opens and locks `directory`, making it when it is not there. Files that a crash left half made are removed.
    ///
    /// # Errors
    /// [`StorageError::InUse`] or [`StorageError::Directory`].
    pub fn open(directory: &Path) -> Result<FileDisk, StorageError> {
        let failed =
            |attempt| move |source| StorageError::Directory { directory: directory.to_owned(), attempt, source };
        fs::create_dir_all(directory).map_err(failed("created"))?;
        let lock = lock_directory(directory)?;
        let disk = FileDisk {
            directory: directory.to_owned(),
            flush: true,
            has_failed: AtomicBool::new(false),
            watch: FlushWatch::default(),
            open: Mutex::default(),
            lock,
        };
        disk.remove_unfinished().map_err(failed("opened"))?;
        Ok(disk)
    }

    /// Makes every flush of this value do nothing, for `UnsafeDisableFlushToDisk`: a power cut may then lose or tear
    /// anything.
    #[must_use]
    pub fn unsafe_without_flush(mut self) -> FileDisk {
        self.flush = false;
        self
    }

    /// Calls `tell` when a flush fails, which nobody may take lightly: the node must end. The first call counts.
    pub fn watch_flushes(&self, tell: impl Fn(FileName, &io::Error) + Send + Sync + 'static) {
        let _ = self.watch.0.set(Box::new(tell));
    }

    fn flush_failed(&self, name: FileName, error: &io::Error) {
        self.has_failed.store(true, Ordering::SeqCst);
        if let Some(tell) = self.watch.0.get() {
            tell(name, error);
        }
    }

    /// False when nothing is ever flushed.
    #[must_use]
    pub fn flushes(&self) -> bool {
        self.flush
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes the text of the lock file anew where it is not what this process wrote there. True when that was so. (Only
    /// people read it; the lock itself is the system's.)
    ///
    /// # Errors
    /// Those of the system.
    pub fn mend_lock_text(&self) -> io::Result<bool> {
        let right = lock_text();
        let mut found = vec![0; right.len() + 1];
        let length = self.lock.read_at(&mut found, 0)?;
        let is_wrong = found[..length] != *right.as_bytes();
        if is_wrong {
            self.lock.set_len(right.len() as u64)?;
            self.lock.write_all_at(right.as_bytes(), 0)?;
        }
        Ok(is_wrong)
    }

    /// Opens a file for reading and writing, for those who do their own IO.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open_file(&self, name: FileName) -> io::Result<File> {
        File::options().read(true).write(true).open(self.path(name))
    }

    /// The same for reading past the page cache; `None` where that does not work.
    pub(super) fn open_direct(&self, name: FileName) -> Option<File> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        File::options().read(true).custom_flags(flags).open(self.path(name)).ok()
    }

    /// Says that these bytes of a file, just read, need not be kept in memory.
    pub(super) fn forget_cached(file: &File, offset: u64, length: u64) {
        // Only advice.
        let _ = fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
    }

    /// Bytes that the file system has left for this process.
    ///
    /// # Errors
    /// Those of the system.
    pub fn available_bytes(&self) -> io::Result<u64> {
        let figures = statvfs(&self.directory)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }

    /// [`Disk::create`], telling `after_step` after each piece of zeros how many bytes are written; its error ends the
    /// making and leaves nothing behind.
    ///
    /// # Errors
    /// As [`Disk::create`], and those of `after_step`.
    pub(super) fn create_in_steps(
        &self,
        name: FileName,
        head: &[u8],
        length: u64,
        after_step: &mut dyn FnMut(&File, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        assert!(head.len() as u64 <= length, "{} bytes of head in a file of {length}", head.len());
        let path = self.path(name);
        if path.try_exists()? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} exists")));
        }
        let unfinished = self.directory.join(format!("{name}{UNFINISHED}"));
        let made = self.fill(&unfinished, head, length, after_step).and_then(|()| fs::rename(&unfinished, &path));
        if made.is_err() {
            // Best effort: what stays is removed at the next start.
            let _ = fs::remove_file(&unfinished);
        }
        made?;
        // A failed flush is not tried again: the file goes, and the next attempt makes and flushes a new entry.
        self.flush_directory().inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// Real zeros, not a hole and not merely reserved: later writes then change no metadata of the file system. They go
    /// past the page cache where that is possible: nobody reads them, and the log is written by whole pages.
    fn fill(
        &self,
        path: &Path,
        head: &[u8],
        length: u64,
        after_step: &mut dyn FnMut(&File, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        reserve(&file, length)?;
        file.write_all_at(head, 0)?;
        let zeros = vec![0; FILL_STEP_BYTES + PAGE_BYTES as usize];
        let zeros = &zeros[zeros.as_ptr().align_offset(PAGE_BYTES as usize)..][..FILL_STEP_BYTES];
        let mut direct = open_direct(path);
        let mut written = head.len() as u64;
        while written < length {
            let step = &zeros[..(length - written).min(FILL_STEP_BYTES as u64) as usize];
            let is_whole = written.is_multiple_of(PAGE_BYTES) && (step.len() as u64).is_multiple_of(PAGE_BYTES);
            match direct.as_ref().filter(|_| is_whole).map(|direct| direct.write_all_at(step, written)) {
                Some(Ok(())) => {}
                // Not on this file system, or not in these pieces.
                Some(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                    direct = None;
                    continue;
                }
                Some(Err(error)) => return Err(error),
                None => file.write_all_at(step, written)?,
            }
            written += step.len() as u64;
            after_step(&file, written)?;
        }
        if self.flush { file.sync_all() } else { Ok(()) }
    }

    /// Flushes a file that [`FileDisk::open_file`] or a step of making gave, unless flushing is off.
    pub(super) fn flush_data(&self, file: &File) -> io::Result<()> {
        if self.flush { file.sync_data() } else { Ok(()) }
    }

    fn flush_directory(&self) -> io::Result<()> {
        if self.flush { File::open(&self.directory)?.sync_all() } else { Ok(()) }
    }

    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().and_then(|name| name.strip_suffix(UNFINISHED)).and_then(FileName::parse).is_some() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, name: FileName) -> PathBuf {
        self.directory.join(name.to_string())
    }

    fn file(&self, name: FileName) -> io::Result<Arc<File>> {
        let take = |open: &mut Vec<(FileName, Arc<File>)>| {
            let found = open.iter().position(|(open, _)| *open == name);
            found.map(|index| open.remove(index).1)
        };
        let known = take(&mut self.open.lock());
        // Nobody who has it open already waits for the system meanwhile.
        let file = match known {
            Some(file) => file,
            None => Arc::new(self.open_file(name)?),
        };
        let mut open = self.open.lock();
        let file = take(&mut open).unwrap_or(file);
        open.truncate(OPEN_FILES_MAX - 1);
        open.insert(0, (name, Arc::clone(&file)));
        Ok(file)
    }
}

/// Takes the lock that keeps a second process out. The system gives it up when the process ends, however it ends.
fn lock_directory(directory: &Path) -> Result<File, StorageError> {
    let failed = |source| StorageError::Directory { directory: directory.to_owned(), attempt: "locked", source };
    let path = directory.join(LOCK_FILE);
    let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Best effort: the text only helps the operator to find the process.
            let _ = lock.read_to_string(&mut holder);
            let holder = if holder.is_empty() { "it did not say which".to_owned() } else { holder };
            return Err(StorageError::InUse { directory: directory.to_owned(), holder });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    lock.set_len(0).map_err(failed)?;
    lock.write_all(lock_text().as_bytes()).map_err(failed)?;
    Ok(lock)
}

fn lock_text() -> String {
    format!("process {}", std::process::id())
}

/// The file, opened to be written past the page cache; `None` where that does not work: it is only a saving.
fn open_direct(path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    File::options().write(true).custom_flags(flags).open(path).ok()
}

/// Takes the room for the whole file first, so that a full disk is noticed before gigabytes are written. A file system
/// that cannot is no problem: the zeros take the room.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INTR) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().and_then(FileName::parse) {
                files.push(FileInfo { name, length: entry.metadata()?.len() });
            }
        }
        files.sort_unstable_by_key(|file| file.name);
        Ok(files)
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        self.create_in_steps(name, head, length, &mut |_, _| Ok(()))
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(name)?.read_exact_at(into, offset)
    }

    fn read_cold(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let FileName::Chunk(chunk) = name else {
            FileDisk::forget_cached(&*self.file(name)?, offset, into.len() as u64);
            return self.read_at(name, offset, into);
        };
        let mut file = ColdFile::open(self, chunk)?;
        let mut done = 0;
        while done < into.len() {
            let bytes = file.read(offset + done as u64, (into.len() - done) as u64)?;
            into[done..done + bytes.len()].copy_from_slice(bytes);
            done += bytes.len();
        }
        Ok(())
    }

    fn is_flushing(&self) -> bool {
        self.flush
    }

    fn expect_read(&self, name: FileName, offset: u64, length: u64) {
        if let Ok(file) = self.file(name) {
            // Only advice: a system that does not take it reads a little slower.
            let _ = fadvise(&*file, offset, NonZeroU64::new(length), Advice::WillNeed);
        }
    }

    fn write_at(&self, name: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: FileName) -> io::Result<()> {
        if self.has_failed.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier flush has failed, so that none can be relied on any more"));
        }
        self.flush_data(&*self.file(name)?).inspect_err(|error| self.flush_failed(name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::TempDirectory;

    #[test]
    fn names_are_read_as_they_are_written() {
        let check = |text: &str, name| assert_eq!(FileName::parse(text), name, "{text}");
        check("node.state", Some(FileName::State));
        check("chunk-000007.000000", Some(FileName::Chunk(7)));
        check("chunk-1234567.000000", Some(FileName::Chunk(1_234_567)));
        check("chunk-7.000000", None);
        check("chunk-000007.000001", None);
        check("chunk-000007.000000.tmp", None);
        check("chunk-+00007.000000", None);
        check("chunk-9999999999.000000", None);
        check("ringstore.lock", None);
    }

    #[test]
    fn a_created_file_is_whole_and_others_are_ignored() {
        let directory = TempDirectory::new();
        fs::write(directory.path().join("chunk-000009.000000.tmp"), b"half").unwrap();
        fs::write(directory.path().join("notes.txt"), b"the operator's").unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let (name, length) = (FileName::Chunk(0), 3 * FILL_STEP_BYTES as u64 + 5);
        disk.create(name, b"head", length).unwrap();
        assert_eq!(disk.list().unwrap(), [FileInfo { name, length }]);
        assert!(!directory.path().join("chunk-000009.000000.tmp").exists());
        assert!(directory.path().join("notes.txt").exists());
        let mut bytes = vec![1; length as usize];
        disk.read_at(name, 0, &mut bytes).unwrap();
        assert!(bytes.starts_with(b"head") && bytes[4..].iter().all(|&byte| byte == 0));
        let error = disk.create(name, b"", 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn more_files_than_are_kept_open_are_written_and_read() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        for number in 0..10 {
            disk.create(FileName::Chunk(number), &[], 16).unwrap();
        }
        for round in 0..2_u8 {
            for number in 0..10 {
                let name = FileName::Chunk(number);
                disk.write_at(name, 3, &[number as u8, round]).unwrap();
                disk.sync(name).unwrap();
                let mut bytes = [0; 2];
                disk.read_at(name, 3, &mut bytes).unwrap();
                assert_eq!(bytes, [number as u8, round]);
                assert!(disk.open.lock().len() <= OPEN_FILES_MAX);
            }
        }
        let mut bytes = [0; 2];
        assert_eq!(disk.read_at(FileName::Chunk(0), 15, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(disk.read_at(FileName::State, 0, &mut bytes).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn after_a_failed_flush_none_succeeds() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        disk.create(FileName::Chunk(0), &[], 16).unwrap();
        disk.sync(FileName::Chunk(0)).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        disk.watch_flushes(move |name, error| seen.lock().push((name, error.to_string())));
        disk.flush_failed(FileName::Chunk(0), &io::Error::other("gone"));
        assert_eq!(*told.lock(), [(FileName::Chunk(0), "gone".to_owned())]);
        assert!(disk.sync(FileName::Chunk(0)).unwrap_err().to_string().contains("an earlier flush has failed"));
    }

    #[test]
    fn a_second_holder_of_the_directory_is_told_who_has_it() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        let error = FileDisk::open(directory.path()).unwrap_err();
        assert!(matches!(error, StorageError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(disk);
        FileDisk::open(directory.path()).unwrap();
    }

    #[test]
    fn a_making_that_is_stopped_leaves_nothing_behind() {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        let mut stop = |_: &File, written: u64| match written {
            0..1_500_000 => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::Interrupted)),
        };
        let error = disk.create_in_steps(FileName::Chunk(0), b"head", 4 << 20, &mut stop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK_FILE]);
    }
}
