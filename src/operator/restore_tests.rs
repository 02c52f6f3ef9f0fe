//! Goal: a restored directory is the log of the backup under a new identity, or it cannot be started.

use super::*;
use crate::operator::backup::tests::backup_of;
use crate::operator::testing::{CLUSTER, LAYOUT, Log, NODE, members};
use crate::operator::verify::verify;
use crate::storage::memory::TempDirectory;
use crate::storage::{erase_tail, recover};
use crate::types::Term;

fn log_of(directory: &Path, end: LogPosition) -> Vec<u8> {
    let mut folder = ReadOnlyFolder::open(directory, LAYOUT, false).unwrap();
    let mut bytes = vec![0; end.0 as usize];
    for (chunk, piece) in (0..).zip(bytes.chunks_mut(LAYOUT.chunk_size as usize)) {
        folder.read_log(LAYOUT.chunk_start(chunk), piece).unwrap();
    }
    bytes
}

#[test]
fn a_restored_directory_is_that_log_under_a_new_identity() {
    let (log, folder, target) = (Log::sample(), TempDirectory::new(), TempDirectory::new());
    backup_of(&log, folder.path());
    for purpose in [Purpose::Join, Purpose::NewCluster] {
        let directory = target.path().join(format!("{purpose:?}"));
        let restored = restore(folder.path(), &directory, purpose).unwrap();
        assert_eq!(restored.position, log.end());
        assert_eq!(log_of(&directory, log.end()), log.bytes);
        let disk = FileDisk::open(&directory).unwrap();
        let state = DurableState::load(&disk).unwrap().unwrap();
        assert_ne!(state.node, NODE);
        assert_eq!((state.founded, state.term, state.voted_for), (true, Term(3), None));
        let list = state.founding.unwrap();
        match purpose {
            Purpose::Join => {
                assert_eq!((&list, state.commit_hint), (&members(), LogPosition::ZERO));
            }
            Purpose::NewCluster => {
                assert_ne!(list.cluster, CLUSTER);
                assert_eq!(list.members.iter().map(|member| member.node).collect::<Vec<_>>(), [state.node]);
                assert_eq!(state.commit_hint, log.end());
            }
        }
        assert_eq!(list.cluster, restored.cluster);
        let recovered = recover(&disk, LAYOUT, &mut |_| ()).unwrap();
        assert_eq!((recovered.end, recovered.last_term, recovered.cut), (log.end(), Term(3), None));
        erase_tail(&disk, LAYOUT, recovered.end).unwrap();
        drop(disk);
        assert_eq!(verify(&directory, &mut |words| panic!("{words}")).unwrap().findings, 0);
    }
}

#[test]
fn a_damaged_backup_and_a_directory_with_something_in_it_are_refused() {
    let (log, folder, target) = (Log::sample(), TempDirectory::new(), TempDirectory::new());
    let refusal = |from: &Path, to: &Path| restore(from, to, Purpose::Join).unwrap_err().to_string();
    assert!(refusal(folder.path(), target.path()).contains("has no backup.json"));
    backup_of(&log, folder.path());
    std::fs::write(target.path().join("notes.txt"), b"mine").unwrap();
    assert!(refusal(folder.path(), target.path()).contains("is not empty (notes.txt is there)"));
    let path = folder.path().join("chunk-000001.000000");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 700_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let new = target.path().join("new");
    let words = refusal(folder.path(), &new);
    assert!(words.contains("is damaged: chunk 1 (chunk-000001.000000), log position 1"), "{words}");
    assert!(!new.exists(), "nothing was begun");
}

/// What is there after an interruption at any file must not pass for an empty or a whole data directory.
#[test]
fn a_restore_that_was_interrupted_cannot_be_started() {
    let (log, folder, target) = (Log::sample(), TempDirectory::new(), TempDirectory::new());
    backup_of(&log, folder.path());
    restore(folder.path(), target.path(), Purpose::Join).unwrap();
    let first = target.path().join("chunk-000000.000000");
    std::fs::rename(&first, target.path().join("chunk-000000.000000.restoring")).unwrap();
    let disk = FileDisk::open(target.path()).unwrap();
    let state = DurableState::load(&disk).unwrap().unwrap();
    assert!(state.founding.is_some(), "a node with a founding and no chunk does not begin");
    assert!(recover(&disk, LAYOUT, &mut |_| ()).unwrap_err().to_string().contains("chunk 0"));
}
