//! Deliberate faults in the replica that the checkers must catch: who would otherwise check the checkers?

use super::{Checker, Options, run};
use crate::consensus::PlantedBug;

/// Runs seeds until a checker objects, and expects it to be one of these.
fn check(planted: PlantedBug, seeds: u64, expected: &[Checker]) {
    let options = Options { planted: Some(planted), ..Options::default() };
    let failure = (0..seeds).find_map(|seed| run(seed, &options).err());
    let Some(failure) = failure else { panic!("nobody has noticed {planted:?} in {seeds} runs") };
    println!("{planted:?}: {failure}");
    assert!(expected.contains(&failure.checker), "{failure}");
}

/// A node that forgets term and vote in a crash votes again in the same term: the term gets a second leader, or one
/// that lacks what is committed.
#[test]
fn votes_that_are_not_durable_are_noticed() {
    check(PlantedBug::VoteNotDurable, 2_000, &[Checker::OneLeader, Checker::LeaderComplete]);
}

/// The scene of figure 8 in Raft's paper: what a majority has of an old term may still be overwritten.
#[test]
fn commitment_of_an_old_term_by_counting_is_noticed() {
    check(PlantedBug::CommitOldTerm, 2_000, &[Checker::LeaderComplete]);
}

/// A majority is counted that a power cut turns into a minority.
#[test]
fn acknowledgement_before_the_flush_is_noticed() {
    check(PlantedBug::AcknowledgeBeforeFlush, 2_000, &[Checker::DurableMajority]);
}
