//! Deliberate faults that the checkers must catch, each by its name: who would otherwise check the checkers?

use std::time::Duration;

use super::{Checker, Fault, Options, run};
use crate::consensus::PlantedBug;

/// Within so many seeds each must be caught.
const SEEDS: u64 = 2_000;

/// What members that disagree on who they are lead to.
const MEMBERS: &[Checker] =
    &[Checker::OneLeader, Checker::LeaderComplete, Checker::DurableMajority, Checker::SameLog, Checker::NoFatal];

/// Runs seeds until a checker objects, and expects it to be one of these.
fn check(planted: PlantedBug, expected: &[Checker]) {
    check_with(planted, &[], expected);
}

/// With kinds of faults that the planted one needs to show.
fn check_with(planted: PlantedBug, with: &[Fault], expected: &[Checker]) {
    let faulty = Duration::from_secs(6);
    check_options(&Options { planted: Some(planted), with: with.to_vec(), faulty, ..Options::default() }, expected);
}

fn check_options(options: &Options, expected: &[Checker]) {
    let planted = options.planted;
    // Nodes that disagree may also just stand still: that is noticed, too, and says less than what is looked for.
    let telling = |seed| run(seed, options).err().filter(|failure| failure.checker != Checker::Liveness);
    let failure = (0..SEEDS).find_map(telling);
    let Some(failure) = failure else { panic!("nobody has noticed {planted:?} in {SEEDS} runs") };
    println!("{planted:?}: seed {}: {:?}: {}", failure.seed, failure.checker, failure.detail);
    assert!(expected.contains(&failure.checker), "{failure}");
}

/// A node that forgets term and vote in a crash votes again in the same term: the term gets a second leader, or one
/// that lacks what is committed.
#[test]
fn votes_that_are_not_durable_are_noticed() {
    check(PlantedBug::VoteNotDurable, &[Checker::OneLeader, Checker::LeaderComplete]);
}

#[test]
fn two_votes_in_one_term_are_noticed() {
    check(PlantedBug::VoteTwice, &[Checker::OneLeader]);
}

#[test]
fn votes_for_logs_that_lack_something_are_noticed() {
    check(PlantedBug::VoteForShorterLog, &[Checker::LeaderComplete, Checker::NoFatal]);
}

/// The scene of figure 8 in Raft's paper: what a majority has of an old term may still be overwritten. By a leader that was
/// elected before the old one counted, too: then it is the bytes that differ.
#[test]
fn commitment_of_an_old_term_by_counting_is_noticed() {
    check(PlantedBug::CommitOldTerm, &[Checker::LeaderComplete, Checker::SameLog, Checker::NoFatal]);
}

/// A majority is counted that a power cut turns into a minority.
#[test]
fn acknowledgement_before_the_flush_is_noticed() {
    check(PlantedBug::AcknowledgeBeforeFlush, &[Checker::DurableMajority]);
}

#[test]
fn acknowledgements_of_clones_that_count_are_noticed() {
    check(PlantedBug::CountClones, &[Checker::DurableMajority]);
}

#[test]
fn cuts_below_the_commit_position_are_noticed() {
    check(PlantedBug::TruncateBelowCommit, &[Checker::CommittedStays]);
}

/// Two logs are compared by their epochs: without some of them they seem to part elsewhere than they do.
#[test]
fn an_epoch_that_is_lost_is_noticed() {
    check(PlantedBug::LostEpoch, &[Checker::LeaderComplete, Checker::NoFatal]);
}

#[test]
fn reads_of_a_leader_that_leads_no_more_are_noticed() {
    check_with(PlantedBug::StaleLeaderRead, &[Fault::NewOptions, Fault::Isolate], &[Checker::Linearizable]);
}

#[test]
fn writes_before_the_inheritance_is_known_are_noticed() {
    check(PlantedBug::WriteTooSoon, &[Checker::DenseNumbers, Checker::ExactlyOnce, Checker::IndexAgrees]);
}

#[test]
fn an_index_ahead_of_the_commit_position_is_noticed() {
    check(PlantedBug::IndexAheadOfCommit, &[Checker::IndexAgrees]);
}

/// A client that was not answered asks the next leader again.
#[test]
fn retries_that_a_new_leader_writes_again_are_noticed() {
    check(PlantedBug::IdempotenceLost, &[Checker::ExactlyOnce]);
}

/// What a process that crashed had written is in the system's cache, and goes with the power.
#[test]
fn a_cache_that_is_taken_for_the_disk_is_noticed() {
    check(PlantedBug::RecoverWithoutFlush, &[Checker::DurableMajority, Checker::Recovery, Checker::Sealed]);
}

/// After a failed flush the system takes pages for clean that never reached the disk.
#[test]
fn a_flush_tried_again_is_noticed() {
    check(PlantedBug::FlushAgain, &[Checker::DurableMajority, Checker::Recovery]);
}

/// With two changes under way an old and a new list have majorities without a common node.
#[test]
fn member_changes_that_overlap_are_noticed() {
    let with = [Fault::Members];
    check_with(PlantedBug::ChangeBeforeCommitted, &with, MEMBERS);
}

#[test]
fn member_lists_that_count_only_once_committed_are_noticed() {
    let with = [Fault::Members, Fault::HuntLeader, Fault::Partition];
    check_with(PlantedBug::ListCountedOnceCommitted, &with, MEMBERS);
}

#[test]
fn a_member_list_that_outlives_its_record_is_noticed() {
    let with = [Fault::Members, Fault::HuntLeader, Fault::Partition];
    // The next list in the same place is what gives it away first.
    check_with(PlantedBug::CutListKept, &with, &[Checker::NoPanic]);
}

/// Such a chunk may still be cut, and a start believes its footer.
#[test]
fn footers_of_chunks_that_may_be_cut_are_noticed() {
    check(PlantedBug::SealBeforeCommit, &[Checker::Sealed]);
}

/// The footer may reach the disk and the chunk not.
#[test]
fn footers_of_chunks_that_are_not_flushed_are_noticed() {
    check(PlantedBug::SealBeforeFlush, &[Checker::Sealed]);
}

/// A power cut leaves a table that is named and is not whole.
#[test]
fn tables_that_are_named_before_they_are_flushed_are_noticed() {
    check(PlantedBug::TableNotFlushed, &[Checker::TablesKept]);
}

/// What a node has above its commit position need not be what is committed.
#[test]
fn repairs_from_stale_peers_are_noticed() {
    let with = [Fault::Rot, Fault::HuntAll, Fault::Rotate, Fault::CrashAll];
    check_with(PlantedBug::RepairFromStalePeer, &with, &[Checker::RepairExact]);
}
