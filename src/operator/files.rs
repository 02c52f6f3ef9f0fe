//! Reading the log for the commands: from files without changing anything, or from anywhere, piece by piece.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::{OperatorError, file_failed, refused};
use super::log_check::{Break, LogCheck};
use crate::storage::{ChunkLayout, FileName};
use crate::types::LogPosition;

/// Log bytes read at a time; a larger record takes as much as it has.
pub(super) const PIECE_BYTES: usize = 4 << 20;

/// The lock of a data directory.
const LOCK_FILE: &str = "ringstore.lock";

/// Somewhere the log's bytes come from.
pub(super) trait LogSource {
    /// Fills `into` with the log from `from` on: up to `wanted` bytes, none at or behind `until`, which lies in the same
    /// chunk or at its end. A source that knows where records end may give fewer, or one record that is larger.
    fn read(
        &mut self,
        from: LogPosition,
        until: LogPosition,
        wanted: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), OperatorError>;
}

/// Takes whole records, and where they lie.
pub(super) type Sink<'a> = dyn FnMut(LogPosition, &[u8]) -> Result<(), OperatorError> + 'a;

/// Walks `check` on to `until`, in one chunk, and gives each piece of whole records to `sink`. What does not go on with
/// the log ends it.
pub(super) fn walk(
    source: &mut dyn LogSource,
    check: &mut LogCheck,
    until: LogPosition,
    sink: &mut Sink<'_>,
) -> Result<Option<Break>, OperatorError> {
    let mut buffer = Vec::new();
    let mut wanted = PIECE_BYTES;
    while check.position() < until {
        let position = check.position();
        source.read(position, until, wanted, &mut buffer)?;
        let (used, broken) = check.take(&buffer);
        if used > 0 {
            sink(position, &buffer[..used])?;
        }
        if broken.is_some() {
            return Ok(broken);
        }
        if used == 0 && (position.plus(buffer.len() as u64) >= until || buffer.len() < wanted) {
            let reason = format!("the record here goes on behind {until}, where the log was to end");
            return Ok(Some(Break { position, reason, is_empty: false }));
        }
        // A record that is larger than a piece has a header that says how large.
        wanted = if used == 0 { check.wanted(&buffer).unwrap_or(PIECE_BYTES).max(PIECE_BYTES) } else { PIECE_BYTES };
    }
    Ok(None)
}

/// A folder of chunks that is only read.
#[derive(Debug)]
pub(super) struct ReadOnlyFolder {
    path: PathBuf,
    open: Option<(FileName, File)>,
    layout: ChunkLayout,
    /// Held, not used.
    _lock: Option<File>,
}

impl ReadOnlyFolder {
    /// The folder; nothing in it is changed, not even its lock file. `is_locked`: keep nodes and commands out meanwhile.
    pub(super) fn open(path: &Path, layout: ChunkLayout, is_locked: bool) -> Result<ReadOnlyFolder, OperatorError> {
        let lock = if is_locked { lock(path)? } else { None };
        Ok(ReadOnlyFolder { path: path.to_owned(), open: None, layout, _lock: lock })
    }

    /// How the log in it is cut, when that is known only later.
    pub(super) fn set_layout(&mut self, layout: ChunkLayout) {
        self.layout = layout;
    }

    /// Fills `into` from a file.
    pub(super) fn read_at(&mut self, name: FileName, offset: u64, into: &mut [u8]) -> Result<(), OperatorError> {
        let path = self.path.join(name.to_string());
        if self.open.as_ref().is_none_or(|(open, _)| *open != name) {
            let file = File::open(&path).map_err(file_failed(&path, "opened"))?;
            self.open = Some((name, file));
        }
        let (_, file) = self.open.as_ref().expect("just opened");
        file.read_exact_at(into, offset).map_err(file_failed(&path, "read"))
    }
}

impl LogSource for ReadOnlyFolder {
    fn read(
        &mut self,
        from: LogPosition,
        until: LogPosition,
        wanted: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let length = usize::try_from(until.since(from)).unwrap_or(usize::MAX).min(wanted);
        into.resize(length, 0);
        self.read_log(from, into)
    }
}

impl ReadOnlyFolder {
    /// Fills `into` with the log from `from` on, all in one chunk.
    pub(super) fn read_log(&mut self, from: LogPosition, into: &mut [u8]) -> Result<(), OperatorError> {
        self.read_at(FileName::Chunk(self.layout.chunk_of(from)), self.layout.file_offset(from), into)
    }
}

/// The files of ours in a folder, in order, with their lengths.
pub(super) fn list(path: &Path) -> Result<Vec<(FileName, u64)>, OperatorError> {
    let failed = |source: io::Error| file_failed(path, "listed")(source);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(name) = entry.file_name().to_str().and_then(FileName::parse) {
            files.push((name, entry.metadata().map_err(failed)?.len()));
        }
    }
    files.sort_unstable_by_key(|(name, _)| *name);
    Ok(files)
}

/// Takes the lock of a data directory without writing to it. A folder that was never opened by a node has no lock file.
fn lock(path: &Path) -> Result<Option<File>, OperatorError> {
    let file = path.join(LOCK_FILE);
    let mut lock = match File::open(&file) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_failed(&file, "opened")(error)),
    };
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // Best effort: it only helps to find the process.
            let _ = lock.read_to_string(&mut holder);
            Err(refused(format!(
                "{} is in use ({holder}): its files change while they are looked at. Stop the node, or make a backup of \
                 it and verify that",
                path.display()
            )))
        }
        Err(errno) => Err(file_failed(&file, "locked")(errno.into())),
    }
}

/// Names in a folder beside the lock file; empty also when there is no folder.
pub(super) fn contents(path: &Path) -> Result<Vec<String>, OperatorError> {
    let failed = |source: io::Error| file_failed(path, "listed")(source);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    // What every new file system has at its root is nobody's data.
    names.retain(|name| name != LOCK_FILE && name != "lost+found");
    names.sort_unstable();
    Ok(names)
}

/// Writes a small file so that it is there whole or not at all, and durable.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), OperatorError> {
    use std::io::Write as _;
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished).map_err(file_failed(&unfinished, "created"))?;
    file.write_all(bytes).map_err(file_failed(&unfinished, "written"))?;
    file.sync_all().map_err(file_failed(&unfinished, "flushed"))?;
    fs::rename(&unfinished, path).map_err(file_failed(path, "named"))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), OperatorError> {
    let file = File::open(path).map_err(file_failed(path, "opened"))?;
    file.sync_all().map_err(file_failed(path, "flushed"))
}
