//! Goal: damage anywhere in a data directory is found and named, and what is no damage is not.

use std::fs;

use super::*;
use crate::operator::testing::{LAYOUT, Log};
use crate::storage::memory::TempDirectory;

fn verified(directory: &Path) -> (Outcome, Vec<String>) {
    let mut told = Vec::new();
    let outcome = verify(directory, &mut |words| told.push(words.to_owned())).unwrap();
    (outcome, told)
}

fn change(directory: &Path, name: FileName, change: impl FnOnce(&mut Vec<u8>)) {
    let path = directory.join(name.to_string());
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_good_directory_has_no_finding_and_is_not_changed() {
    let directory = TempDirectory::new();
    Log::sample().write(directory.path());
    let before = fs::read(directory.path().join("ringstore.lock")).unwrap();
    let (outcome, told) = verified(directory.path());
    assert_eq!((outcome.findings, told), (0, Vec::new()));
    assert!(outcome.summary[1].contains("105 events in 2 streams, 2 epochs, last term 3"), "{:?}", outcome.summary);
    assert_eq!(outcome.summary[2], "no damage");
    assert_eq!(fs::read(directory.path().join("ringstore.lock")).unwrap(), before);
}

#[test]
fn damage_is_named_with_chunk_position_offset_and_where_records_go_on() {
    let log = Log::sample();
    let directory = TempDirectory::new();
    log.write(directory.path());
    change(directory.path(), FileName::Chunk(1), |bytes| bytes[4096 + 500_000] ^= 1);
    let (outcome, told) = verified(directory.path());
    assert_eq!((outcome.findings, told.len()), (1, 1), "{told:?}");
    let words = &told[0];
    assert!(words.starts_with("damage: chunk 1 (chunk-000001.000000), log position 1"), "{words}");
    assert!(words.contains("record checksum is") && words.contains("; records go on at 1"), "{words}");
    assert_eq!(outcome.summary[2], "1 finding of damage");
    let place: Vec<u64> = words.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    assert!(place.contains(&1), "{place:?}");
    // The walk found its way back: everything behind was looked at.
    assert!(outcome.summary[1].contains(&format!("up to position {}", log.end())), "{:?}", outcome.summary);
}

#[test]
fn every_page_and_file_is_looked_at() {
    let check = |name: FileName, at: usize, expected: &str| {
        let directory = TempDirectory::new();
        Log::sample().write(directory.path());
        change(directory.path(), name, |bytes| bytes[at] ^= 1);
        let (outcome, told) = verified(directory.path());
        assert!(outcome.findings > 0 && told[0].contains(expected), "{name} {at}: {told:?}");
    };
    check(FileName::Chunk(0), 3, "chunk-000000.000000: its header page: it starts with");
    check(FileName::Chunk(0), 17, "its header page: its checksum is");
    check(FileName::Chunk(1), LAYOUT.footer_offset() as usize + 30, "chunk-000001.000000: its footer page");
    check(FileName::State, 4096 + 20, "node.state: slot 1: checksum is");
    let directory = TempDirectory::new();
    Log::sample().write(directory.path());
    fs::remove_file(directory.path().join("chunk-000001.000000")).unwrap();
    let (_, told) = verified(directory.path());
    assert!(told[0].contains("chunk-000001.000000: it is missing although chunk 2 is there"), "{told:?}");
    fs::remove_file(directory.path().join("chunk-000002.000000")).unwrap();
    let (_, told) = verified(directory.path());
    assert!(told[0].contains("chunk-000001.000000: it is missing, but the log was whole up to"), "{told:?}");
}

#[test]
fn a_torn_tail_of_a_node_is_a_remark_and_zeros_before_the_end_are_damage() {
    let log = Log::sample();
    let directory = TempDirectory::new();
    log.write(directory.path());
    let end = LAYOUT.file_offset(log.end()) as usize;
    change(directory.path(), FileName::Chunk(2), |bytes| bytes[end..end + 40].fill(3));
    let (outcome, told) = verified(directory.path());
    assert_eq!(outcome.findings, 0);
    assert!(told[0].starts_with(&format!("remark: the log ends at {}", log.end())), "{told:?}");
    change(directory.path(), FileName::Chunk(2), |bytes| bytes[end - 60_000..].fill(0));
    let (outcome, told) = verified(directory.path());
    assert!(outcome.findings > 0 && told.iter().any(|words| words.contains("record checksum is")), "{told:?}");
    change(directory.path(), FileName::Chunk(2), |bytes| bytes[4096..LAYOUT.footer_offset() as usize].fill(0));
    let (_, told) = verified(directory.path());
    assert!(told[0].contains("zeros where a record should be; no record until"), "{told:?}");
}

#[test]
fn a_directory_in_use_and_one_that_is_none_are_refused() {
    let directory = TempDirectory::new();
    let refusal = |directory: &Path| verify(directory, &mut |_| ()).unwrap_err().to_string();
    assert!(refusal(directory.path()).contains("is neither a backup"));
    Log::sample().write(directory.path());
    let held = crate::storage::FileDisk::open(directory.path()).unwrap();
    assert!(refusal(directory.path()).contains("is in use (process "));
    drop(held);
    assert_eq!(verified(directory.path()).0.findings, 0);
    assert!(refusal(&directory.path().join("nothing")).contains("cannot be listed"));
}
