//! The file system that a directory is on, after `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

use super::tree::Tree;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `ext4`, `xfs`, `nfs4`, ...
    pub kind: String,
    /// The block device, or whatever the kind has for one.
    pub source: String,
}

impl FileSystem {
    /// The file system of `path`, which is absolute and without links.
    #[must_use]
    pub fn of(tree: &Tree, path: &Path) -> Option<FileSystem> {
        let text = tree.text("proc/self/mountinfo")?;
        let mounts = text.lines().filter_map(parse).filter(|mounted| path.starts_with(&mounted.mount));
        // Of two on one place the later one is on top.
        mounts.max_by_key(|mounted| mounted.mount.components().count())
    }

    /// True when what is written does not outlive the machine.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// True when the disk is elsewhere, or behind another process: then nobody here knows what a flush means.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "glusterfs" | "virtiofs")
            || self.kind.starts_with("fuse")
    }
}

/// `36 35 98:0 /root /mount options optional-fields - kind source options`
fn parse(line: &str) -> Option<FileSystem> {
    let (front, back) = line.split_once(" - ")?;
    let mount = front.split(' ').nth(4)?;
    let mut back = back.split(' ');
    Some(FileSystem { mount: PathBuf::from(plain(mount)), kind: back.next()?.to_owned(), source: plain(back.next()?) })
}

/// Spaces, tabs, line ends and backslashes are written as three octal digits.
fn plain(text: &str) -> String {
    let (mut shown, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        shown.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        (shown, rest) = match code {
            Some(code) => (shown + &char::from(code).to_string(), &after[3..]),
            None => (shown + "\\", after),
        };
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let check = |path: &str, kind: &str, source: &str| {
            let found = FileSystem::of(&tree, Path::new(path)).unwrap();
            assert_eq!((found.kind.as_str(), found.source.as_str()), (kind, source), "{path}");
        };
        check("/", "ext4", "/dev/md0");
        check("/var/lib/ringstore/db", "xfs", "/dev/nvme0n1p1");
        check("/var/lib/ringstore2", "ext4", "/dev/md0");
        check("/mnt/old backups/x", "nfs4", "filer:/old backups");
        assert!(FileSystem::of(&tree, Path::new("/dev/shm/x")).unwrap().is_in_memory());
        assert!(FileSystem::of(&tree, Path::new("/mnt/old backups")).unwrap().is_remote());
    }

    #[test]
    fn octal_digits_are_letters() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected);
        check("/a\\040b\\134c", "/a b\\c");
        check("/plain", "/plain");
        check("/end\\", "/end\\");
        check("/odd\\9", "/odd\\9");
    }
}
