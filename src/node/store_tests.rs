//! Goal: a data directory that has lost what was committed is refused, and left as it is.

use super::*;
use crate::codec::record::{Header, RecordKind, seal};
use crate::limits::RECORD_HEADER_BYTES;
use crate::security::Plane;
use crate::storage::memory::TempDirectory;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
const RECORD_BYTES: u64 = 64;

fn config(directory: &TempDirectory) -> Config {
    Config { db: directory.path().to_owned(), chunk_size_bytes: LAYOUT.chunk_size, ..Config::default() }
}

/// A node that has committed three records and stopped in order: its hint is the end of its log.
fn stopped_node(config: &Config) {
    let Store { disk, mut state, .. } = Store::open(config, &Plane::Open).unwrap();
    for number in 0..3 {
        let position = LogPosition(number * RECORD_BYTES);
        let mut bytes = vec![7; RECORD_BYTES as usize];
        bytes[..RECORD_HEADER_BYTES].fill(0);
        let (term, kind) = (Term(1), RecordKind::Padding);
        seal(&mut bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp: 1 });
        disk.write_at(FileName::Chunk(0), LAYOUT.file_offset(position), &bytes).unwrap();
    }
    disk.sync(FileName::Chunk(0)).unwrap();
    (state.term, state.commit_hint, state.sequence) = (Term(1), LogPosition(3 * RECORD_BYTES), state.sequence + 1);
    state.save(&*disk).unwrap();
}

/// Hurts the last record.
fn damage(config: &Config) {
    let disk = FileDisk::open(&config.db).unwrap();
    let position = LogPosition(2 * RECORD_BYTES + 40);
    disk.write_at(FileName::Chunk(0), LAYOUT.file_offset(position), &[8]).unwrap();
}

#[test]
fn damage_below_the_commit_hint_is_no_torn_tail() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    stopped_node(&config);
    damage(&config);
    let file = directory.path().join("chunk-000000.000000");
    let before = std::fs::read(&file).unwrap();
    let error = Store::open(&config, &Plane::Open).unwrap_err();
    assert!(matches!(error, NodeError::Recovery(RecoveryError::Corrupt { .. })), "{error}");
    assert!(error.to_string().contains("log position 128") && error.to_string().contains("up to 192"), "{error}");
    assert!(std::fs::read(&file).unwrap() == before, "nothing was cut");
}

#[test]
fn a_log_that_was_never_flushed_may_lose_its_end() {
    let directory = TempDirectory::new();
    let config = Config { unsafe_disable_flush_to_disk: true, ..config(&directory) };
    stopped_node(&config);
    damage(&config);
    assert_eq!(Store::open(&config, &Plane::Open).unwrap().recovered.end, LogPosition(2 * RECORD_BYTES));
}

#[test]
fn a_node_that_has_lost_all_its_chunks_does_not_begin_again_with_nothing() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    let file = directory.path().join("chunk-000000.000000");
    drop(Store::open(&config, &Plane::Open).unwrap());
    // The node was stopped between making its state and its first chunk.
    std::fs::remove_file(&file).unwrap();
    stopped_node(&config);
    std::fs::remove_file(&file).unwrap();
    let error = Store::open(&config, &Plane::Open).unwrap_err();
    assert!(matches!(error, NodeError::Recovery(RecoveryError::NoChunks { .. })), "{error}");
    assert!(
        error.to_string().contains("`ringstore admin replace OLD NEW` gives it the place of the old one"),
        "{error}"
    );
    assert!(!file.exists());
}

#[test]
fn a_damaged_chunk_header_is_mended_at_start_and_the_suspicion_outlives_it() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    stopped_node(&config);
    let file = directory.path().join("chunk-000000.000000");
    let whole = std::fs::read(&file).unwrap();
    for at in 0..32 {
        let mut hurt = whole.clone();
        hurt[at] ^= 0x10;
        std::fs::write(&file, hurt).unwrap();
        let store = Store::open(&config, &Plane::Open).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert!(store.recovered.is_suspect && store.state.suspect);
        drop(store);
        assert!(std::fs::read(&file).unwrap() == whole, "byte {at}");
        let mut store = Store::open(&config, &Plane::Open).unwrap();
        assert!(!store.recovered.is_suspect && store.state.suspect, "until it has caught up");
        (store.state.suspect, store.state.sequence) = (false, store.state.sequence + 1);
        store.state.save(&*store.disk).unwrap();
    }
    // A state file without a good slot says what to do, too.
    std::fs::write(directory.path().join(FileName::State.to_string()), vec![7; 8192]).unwrap();
    let error = Store::open(&config, &Plane::Open).unwrap_err().to_string();
    assert!(error.contains("must not vote again") && error.contains("`ringstore admin replace OLD NEW`"), "{error}");
}

/// A cluster of one whose log holds no list of it yet learns where its node is; the options are held against the list.
#[test]
fn what_a_node_belongs_to_is_held_against_its_options() {
    let directory = TempDirectory::new();
    let alone = config(&directory);
    let mut store = Store::open(&alone, &Plane::Open).unwrap();
    store.found_alone(&alone).unwrap();
    let founded = store.state.founding.clone().unwrap();
    let elsewhere = Config { int_http_port: 9, cluster_size: 3, ..alone.clone() };
    store.found_alone(&elsewhere).unwrap();
    let moved = store.state.founding.clone().unwrap();
    assert_eq!((moved.cluster, moved.members[0].int_http_port), (founded.cluster, 9));
    assert_eq!(DurableState::load(&*store.disk).unwrap().unwrap().founding, Some(moved.clone()));
    store.check_membership(&elsewhere).expect("it may grow");
    let read_only = Config { read_only_replica: true, ..elsewhere.clone() };
    assert_eq!(store.check_membership(&read_only).unwrap_err().exit_status(), 2);

    let other = MemberRecord { node: NodeId(crate::types::Guid([7; 16])), ..moved.members[0] };
    let list = |cluster, members| {
        let list = MembershipBody { cluster, members };
        crate::codec::record::MembershipRecord { before: list.members.clone(), list }
    };
    let old = list(ClusterId(crate::types::Guid([66; 16])), vec![other, other, other]);
    store.recovered.membership = Some((LogPosition(64), old));
    store.check_membership(&alone).expect("a list of another cluster says nothing");
    store.recovered.membership = Some((LogPosition(64), list(moved.cluster, vec![moved.members[0], other])));
    assert_eq!(store.check_membership(&alone).unwrap_err().exit_status(), 2);
    store.check_membership(&elsewhere).unwrap();
    store.recovered.membership = Some((LogPosition(64), list(moved.cluster, vec![other])));
    store.check_membership(&read_only).expect("it was taken out");
}

#[test]
fn an_index_that_was_removed_is_made_again() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    stopped_node(&config);
    let end = LogPosition(3 * RECORD_BYTES);
    for _ in 0..2 {
        let store = Store::open(&config, &Plane::Open).unwrap();
        assert_eq!((store.index.applied(), store.index.is_complete()), (end, true));
        drop(store);
        let folder = directory.path().join(INDEX_FOLDER);
        std::fs::write(folder.join("manifest"), b"nonsense").unwrap();
        let store = Store::open(&config, &Plane::Open).unwrap();
        assert_eq!((store.index.applied(), store.index.is_complete()), (end, true));
        drop(store);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_log_cut_in_front_of_good_records_is_remembered_as_suspect() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    stopped_node(&config);
    {
        let disk = FileDisk::open(&config.db).unwrap();
        let mut state = DurableState::load(&disk).unwrap().unwrap();
        (state.commit_hint, state.sequence) = (LogPosition::ZERO, state.sequence + 1);
        state.save(&disk).unwrap();
        let second = LogPosition(RECORD_BYTES + 40);
        disk.write_at(FileName::Chunk(0), LAYOUT.file_offset(second), &[8]).unwrap();
    }
    for _ in 0..2 {
        let store = Store::open(&config, &Plane::Open).unwrap();
        assert_eq!(store.recovered.end, LogPosition(RECORD_BYTES));
        assert!(store.state.suspect, "also at the next start, when what showed it is erased");
    }
    assert!(DurableState::load(&FileDisk::open(&config.db).unwrap()).unwrap().unwrap().suspect);
}

#[test]
fn a_torn_last_record_is_not_suspect() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    stopped_node(&config);
    damage(&config);
    {
        let disk = FileDisk::open(&config.db).unwrap();
        let mut state = DurableState::load(&disk).unwrap().unwrap();
        (state.commit_hint, state.sequence) = (LogPosition::ZERO, state.sequence + 1);
        state.save(&disk).unwrap();
    }
    let store = Store::open(&config, &Plane::Open).unwrap();
    assert!(store.recovered.cut.is_some() && !store.recovered.is_suspect && !store.state.suspect);
}

/// Goal: the state in memory is what the file holds, under that sequence. What happened: the hint that the index had taught
/// it was in memory only.
#[test]
fn what_the_index_says_of_the_commit_position_is_saved() {
    let directory = TempDirectory::new();
    let config = config(&directory);
    let Store { disk, mut state, .. } = Store::open(&config, &Plane::Open).unwrap();
    let on_disk = || DurableState::load(&*disk).unwrap();
    for (committed, expected, saves) in [(64, 64, 1), (64, 64, 0), (32, 64, 0), (96, 96, 1)] {
        let before = state.sequence;
        learn_commit(&disk, &mut state, LogPosition(committed)).unwrap();
        assert_eq!((state.commit_hint, state.sequence), (LogPosition(expected), before + saves));
        assert_eq!(on_disk().as_ref(), Some(&state));
    }
}
