//! Captured hosts for tests: one text file each in `testdata/`, unpacked into a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::tree::Tree;

/// A folder that goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringstore-machine-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks a captured host. A line `=== PATH` begins a file, `=== PATH/` is a folder; the lines until the next one are its
/// text.
pub(crate) fn unpack(name: &str) -> (Folder, Tree) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/machine/testdata/{name}.tree"));
    let text = fs::read_to_string(&packed).unwrap();
    let folder = Folder::new();
    // What stands before the first file tells people what it is.
    for entry in text.trim_end().split("\n=== ").skip(1) {
        let (path, content) = entry.split_once('\n').unwrap_or((entry, ""));
        let file = folder.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(file).unwrap();
        } else {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{content}\n")).unwrap();
        }
    }
    let tree = Tree::at(folder.path());
    (folder, tree)
}

/// All files below a folder with their text, to compare two states of it.
pub(crate) fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let text = fs::read(&path).unwrap();
            found.push((path, text));
        }
    }
    found.sort();
    found
}
