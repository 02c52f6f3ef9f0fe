//! Reading small files that hold secrets or certificates, and looking at who else may read them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::SecurityError;
use crate::limits::PEM_FILE_MAX_BYTES;

/// Permission bits of others, and of the group to write.
const TOO_OPEN: u32 = 0o027;

/// The file's bytes.
pub(super) fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, SecurityError> {
    let unreadable = |source| SecurityError::Unreadable { what, path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // A device or a pipe has no length: what is read is bounded, not what is promised.
    file.take(PEM_FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > PEM_FILE_MAX_BYTES {
        return Err(SecurityError::TooLong { what, path: path.to_owned(), bytes: bytes.len() as u64 });
    }
    Ok(bytes)
}

/// A warning when others than the owner and the group can read a secret file, or others than the owner can change it.
pub(super) fn too_open(what: &'static str, path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    (mode & TOO_OPEN != 0).then(|| {
        format!(
            "the {what} {} has permissions {mode:03o}: others than its owner and group may read it, or others than its owner \
             may change it; chmod 600 (or 640)",
            path.display()
        )
    })
}
