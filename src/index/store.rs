//! Where the index keeps its files: a folder behind six methods, so that tests can stand in for the disk.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

/// A file that is complete, opened for reading. It can be read as long as this value lives, also after its removal.
pub trait TableFile: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn length(&self) -> io::Result<u64>;

    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof`, and those of the system.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// The folder. Files are written under one name and read under another, so that a file which can be read is whole.
pub trait TableStore: fmt::Debug + Send + Sync {
    /// The names of all files.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Writes at `offset` of a file, which is made (or made empty) at offset 0.
    ///
    /// # Errors
    /// Those of the system.
    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written to a file durable.
    ///
    /// # Errors
    /// Those of the system; the file is then of no use any more.
    fn flush(&self, name: &str) -> io::Result<()>;

    /// Makes a file durable and gives it its name for good, instead of the one that had it. After a crash either of the
    /// two is there, as a whole.
    ///
    /// # Errors
    /// Those of the system; the file is then of no use any more.
    fn publish(&self, written: &str, name: &str) -> io::Result<()>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound`, and those of the system.
    fn open(&self, name: &str) -> io::Result<Arc<dyn TableFile>>;

    /// Removes a file; nothing happens when there is none.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Bytes that there is room for.
    ///
    /// # Errors
    /// Those of the system.
    fn available_bytes(&self) -> io::Result<u64>;
}

/// A real folder.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    flush: bool,
    /// The file written last: a table is written in many pieces.
    written: Mutex<Option<(String, Arc<File>)>>,
}

impl FileStore {
    /// The folder, which is made when it is not there. With `flush` false nothing is ever flushed.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(folder: impl Into<PathBuf>, flush: bool) -> io::Result<FileStore> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        Ok(FileStore { folder, flush, written: Mutex::default() })
    }

    fn file(&self, name: &str, make: bool) -> io::Result<Arc<File>> {
        let mut written = self.written.lock();
        match &*written {
            Some((last, file)) if last == name && !make => Ok(Arc::clone(file)),
            _ => {
                let path = self.folder.join(name);
                let file = Arc::new(File::options().write(true).create(make).truncate(make).open(path)?);
                *written = Some((name.to_owned(), Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

impl TableStore for FileStore {
    fn list(&self) -> io::Result<Vec<String>> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        fs::read_dir(&self.folder)?.map(name).collect()
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name, offset == 0)?.write_all_at(bytes, offset)
    }

    fn flush(&self, name: &str) -> io::Result<()> {
        if self.flush { self.file(name, false)?.sync_data() } else { Ok(()) }
    }

    fn publish(&self, written: &str, name: &str) -> io::Result<()> {
        if self.flush {
            self.file(written, false)?.sync_all()?;
        }
        *self.written.lock() = None;
        fs::rename(self.folder.join(written), self.folder.join(name))?;
        if self.flush { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn TableFile>> {
        Ok(Arc::new(OpenFile(File::open(self.folder.join(name))?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        // While it is open the disk keeps its bytes.
        self.written.lock().take_if(|(written, _)| written == name);
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn available_bytes(&self) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(&self.folder)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}

#[derive(Debug)]
struct OpenFile(File);

impl TableFile for OpenFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

/// A folder in memory: it can crash, fail, and have its bytes turned.
#[cfg(test)]
pub(crate) mod memory {
    use std::collections::BTreeMap;

    use super::*;

    type Bytes = Arc<Mutex<Vec<u8>>>;

    /// See the module.
    #[derive(Debug, Default)]
    pub(crate) struct MemoryStore {
        pub(crate) files: Mutex<BTreeMap<String, Bytes>>,
        /// Changes that still succeed; then all fail, as after a crash.
        pub(crate) changes_left: Mutex<Option<u32>>,
        /// How many bytes it holds; no end when not given.
        pub(crate) size: Mutex<Option<u64>>,
        /// A file that cannot be opened, and the system's number for why.
        pub(crate) unreadable: Mutex<Option<(String, i32)>>,
    }

    #[derive(Debug)]
    struct MemoryFile(Bytes);

    impl TableFile for MemoryFile {
        fn length(&self) -> io::Result<u64> {
            Ok(self.0.lock().len() as u64)
        }

        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let bytes = self.0.lock();
            let from = bytes.get(offset as usize..offset as usize + into.len());
            into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    impl MemoryStore {
        fn change(&self) -> io::Result<()> {
            match &mut *self.changes_left.lock() {
                Some(0) => Err(io::ErrorKind::Other.into()),
                Some(left) => {
                    *left -= 1;
                    Ok(())
                }
                None => Ok(()),
            }
        }

        /// What is found after a crash: files that were being written are cut anywhere.
        pub(crate) fn crash(&self, random: &mut fastrand::Rng) -> MemoryStore {
            let files = self.files.lock();
            let files = files.iter().map(|(name, bytes)| {
                let mut bytes = bytes.lock().clone();
                if name.ends_with(".tmp") {
                    bytes.truncate(random.usize(0..=bytes.len()));
                }
                (name.clone(), Arc::new(Mutex::new(bytes)))
            });
            MemoryStore { files: Mutex::new(files.collect()), ..MemoryStore::default() }
        }

        /// Turns a bit of some file, also under those who have it open. Gives the file and the byte.
        pub(crate) fn flip(&self, random: &mut fastrand::Rng) -> Option<(String, usize)> {
            let files = self.files.lock();
            let (name, bytes) = files.iter().nth(random.usize(0..files.len().max(1)))?;
            let mut bytes = bytes.lock();
            let at = random.usize(0..bytes.len().max(1));
            *bytes.get_mut(at)? ^= 1 << random.u32(0..8);
            Some((name.clone(), at))
        }
    }

    impl TableStore for MemoryStore {
        fn list(&self) -> io::Result<Vec<String>> {
            Ok(self.files.lock().keys().cloned().collect())
        }

        fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.change()?;
            if self.available_bytes()? < bytes.len() as u64 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut files = self.files.lock();
            if offset == 0 {
                files.insert(name.to_owned(), Arc::default());
            }
            let mut file = files.get(name).ok_or(io::ErrorKind::NotFound)?.lock();
            assert_eq!(file.len() as u64, offset, "files are written from the beginning to the end");
            file.extend_from_slice(bytes);
            Ok(())
        }

        fn flush(&self, _: &str) -> io::Result<()> {
            self.change()
        }

        fn publish(&self, written: &str, name: &str) -> io::Result<()> {
            self.change()?;
            let mut files = self.files.lock();
            let file = files.remove(written).ok_or(io::ErrorKind::NotFound)?;
            files.insert(name.to_owned(), file);
            Ok(())
        }

        fn open(&self, name: &str) -> io::Result<Arc<dyn TableFile>> {
            if let Some((_, error)) = self.unreadable.lock().as_ref().filter(|(unreadable, _)| unreadable == name) {
                return Err(io::Error::from_raw_os_error(*error));
            }
            let files = self.files.lock();
            Ok(Arc::new(MemoryFile(Arc::clone(files.get(name).ok_or(io::ErrorKind::NotFound)?))))
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.change()?;
            self.files.lock().remove(name);
            Ok(())
        }

        fn available_bytes(&self) -> io::Result<u64> {
            let used: u64 = self.files.lock().values().map(|bytes| bytes.lock().len() as u64).sum();
            Ok(self.size.lock().map_or(u64::MAX, |size| size.saturating_sub(used)))
        }
    }
}
