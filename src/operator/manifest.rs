//! `backup.json`: what a backup holds. Written last, so a backup that has one is whole up to the position in it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{OperatorError, file_failed, refused};
use super::files::write_whole;
use crate::storage::ChunkLayout;
use crate::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term};

/// The manifest of a finished backup.
pub(super) const MANIFEST_FILE: &str = "backup.json";
/// Which cluster a backup is of, from its first moment on.
pub(super) const ORIGIN_FILE: &str = "backup-origin.json";

/// Version of both files.
const FORMAT: u32 = 1;
/// A manifest has about 100 bytes for each chunk.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What a folder may be a backup of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Origin {
    ringstore_backup: u32,
    pub(super) cluster: ClusterId,
    pub(super) chunk_size: u64,
}

/// An epoch in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EpochEntry {
    pub(super) number: u32,
    pub(super) position: u64,
    pub(super) id: Guid,
}

impl From<Epoch> for EpochEntry {
    fn from(epoch: Epoch) -> EpochEntry {
        EpochEntry { number: epoch.term.0, position: epoch.position.0, id: epoch.id }
    }
}

/// A chunk in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChunkEntry {
    pub(super) chunk: u32,
    /// Log bytes of it that are in the backup.
    pub(super) bytes: u64,
    /// CRC-32C of those.
    pub(super) crc32c: u32,
}

/// A finished backup: what its `backup.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    #[serde(flatten)]
    pub(super) origin: Origin,
    /// The node that it was last copied from.
    pub(super) node: NodeId,
    /// The log up to here is in it; committed when the backup began.
    pub(super) position: u64,
    /// Term of its last record.
    pub(super) term: Term,
    pub(super) epochs: Vec<EpochEntry>,
    pub(super) records: u64,
    pub(super) events: u64,
    /// When it was finished, UTC.
    pub(super) date: String,
    /// Of the program that wrote it.
    pub(super) version: String,
    pub(super) chunks: Vec<ChunkEntry>,
}

impl Origin {
    pub(super) fn new(cluster: ClusterId, chunk_size: u64) -> Origin {
        Origin { ringstore_backup: FORMAT, cluster, chunk_size }
    }

    pub(super) fn layout(&self) -> ChunkLayout {
        ChunkLayout { chunk_size: self.chunk_size }
    }

    /// The origin of the backup that is, or was begun, in `folder`.
    pub(super) fn load(folder: &Path) -> Result<Option<Origin>, OperatorError> {
        let path = folder.join(ORIGIN_FILE);
        read(&path)?.map(|bytes| parse(&path, &bytes)).transpose()
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), OperatorError> {
        write_whole(&folder.join(ORIGIN_FILE), &json(self))
    }
}

impl Manifest {
    /// What the bytes of a manifest say; `path` is for the words of the error.
    ///
    /// # Errors
    /// When they are no manifest, or one of a backup that cannot be.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, OperatorError> {
        parse::<Manifest>(path, bytes)?.checked(path)
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        json(self)
    }

    pub(super) fn position(&self) -> LogPosition {
        LogPosition(self.position)
    }

    /// The manifest in `folder`; `None` when it has none.
    pub(super) fn load(folder: &Path) -> Result<Option<Manifest>, OperatorError> {
        let path = folder.join(MANIFEST_FILE);
        read(&path)?.map(|bytes| Manifest::parse(&path, &bytes)).transpose()
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), OperatorError> {
        write_whole(&folder.join(MANIFEST_FILE), &self.encode())
    }

    /// Nothing in the file is believed that would lead reading astray.
    fn checked(self, path: &Path) -> Result<Manifest, OperatorError> {
        let chunk_size = self.origin.chunk_size;
        let sizes = crate::limits::CHUNK_SIZE_MIN_BYTES..=crate::limits::CHUNK_SIZE_MAX_BYTES;
        let is_size = sizes.contains(&chunk_size) && chunk_size.is_multiple_of(4096);
        let mut rest = self.position;
        let fits = is_size
            && self.chunks.iter().zip(0..).all(|(entry, number)| {
                let expected = rest.min(chunk_size);
                rest -= expected;
                entry.chunk == number && entry.bytes == expected && expected > 0
            });
        if !fits || rest > 0 {
            return Err(refused(format!(
                "{}: its chunks do not make up a log of {} bytes in chunks of {chunk_size}; the file was changed, so this \
                 is no backup to rely on: make a new one",
                path.display(),
                self.position
            )));
        }
        Ok(self)
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("a manifest has a JSON form");
    bytes.push(b'\n');
    bytes
}

/// The bytes of a file; `None` when it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, OperatorError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_failed(path, "read")(error)),
    };
    if length > FILE_BYTES_MAX {
        return Err(refused(format!("{} has {length} bytes, the limit is {FILE_BYTES_MAX}", path.display())));
    }
    fs::read(path).map(Some).map_err(file_failed(path, "read"))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, OperatorError> {
    let not_one = |words: String| refused(format!("{} is not a file of a backup: {words}", path.display()));
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| not_one(error.to_string()))?;
    match value["ringstoreBackup"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            return Err(not_one(format!("its format is {format}, this program reads {FORMAT}; use a newer ringstore")));
        }
        None => return Err(not_one("it has no ringstoreBackup".to_owned())),
    }
    serde_json::from_value(value).map_err(|error| not_one(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::TempDirectory;

    pub(super) fn manifest() -> Manifest {
        let entry = |chunk, bytes| ChunkEntry { chunk, bytes, crc32c: 7 };
        Manifest {
            origin: Origin::new(ClusterId(Guid([9; 16])), 1 << 20),
            node: NodeId(Guid([1; 16])),
            position: (1 << 20) + 64,
            term: Term(3),
            epochs: vec![EpochEntry { number: 1, position: 0, id: Guid([2; 16]) }],
            records: 5,
            events: 4,
            date: "2020-01-02T03:04:05.678Z".to_owned(),
            version: "0.1.0".to_owned(),
            chunks: vec![entry(0, 1 << 20), entry(1, 64)],
        }
    }

    #[test]
    fn a_manifest_comes_back_and_one_that_was_changed_is_refused() {
        let folder = TempDirectory::new();
        assert!(Manifest::load(folder.path()).unwrap().is_none());
        manifest().save(folder.path()).unwrap();
        assert_eq!(Manifest::load(folder.path()).unwrap(), Some(manifest()));
        let check = |change: fn(&mut Manifest), expected: &str| {
            let mut changed = manifest();
            change(&mut changed);
            changed.save(folder.path()).unwrap();
            let words = Manifest::load(folder.path()).unwrap_err().to_string();
            assert!(words.contains(expected), "{words}");
        };
        check(|manifest| manifest.position += 8, "do not make up");
        check(|manifest| manifest.chunks[0].chunk = 1, "do not make up");
        check(|manifest| manifest.origin.chunk_size = 0, "do not make up");
        check(|manifest| manifest.chunks.clear(), "do not make up");
        check(|manifest| manifest.origin.ringstore_backup = 2, "its format is 2");
        fs::write(folder.path().join(MANIFEST_FILE), b"{}").unwrap();
        assert!(Manifest::load(folder.path()).unwrap_err().to_string().contains("no ringstoreBackup"));
    }
}
