//! What the search says of the real core within small bounds, and that it sees what is planted.
//!
//! `scripts/exhaustive.sh` runs larger bounds, by the environment: `RINGSTORE_EXHAUSTIVE="terms=3 entries=1"`.

use crate::consensus::PlantedBug;

use super::model::{Bounds, REACHED, World};
use super::search::{Found, search};

/// Some seconds in `cargo test`.
const SMALL: Bounds = Bounds {
    terms: 2,
    candidates: 2,
    members: 3,
    entries: 0,
    changes: 0,
    crashes: 0,
    breaks: 0,
    slow_saves: false,
    slow_flushes: false,
    depth: usize::MAX,
    planted: None,
};

fn print(bounds: &Bounds, found: &Found) {
    let Found { states, steps, depth, time, .. } = found;
    let what = if found.is_complete { "all states" } else { "not all states" };
    println!("{bounds:?}\n{what}: {states} states, {steps} steps, depth {depth}, {:.1} s", time.as_secs_f64());
    REACHED.iter().zip(found.reached).for_each(|(name, count)| println!("{count:>12} with {name}"));
    if let Some((violation, way)) = &found.violation {
        println!("{}: {}\n{}", violation.name, violation.words, way.join("\n"));
    }
}

/// Bounds as `name=number` words over `bounds`, and the limit of states.
fn parse(text: &str, mut bounds: Bounds) -> (Bounds, usize) {
    let mut states_max = usize::MAX;
    for word in text.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("{word:?} is not name=number"));
        let number: usize = value.parse().unwrap_or_else(|_| panic!("{value:?} is not a number"));
        let small = u8::try_from(number.min(255)).unwrap();
        match name {
            "terms" => bounds.terms = small.into(),
            "candidates" => bounds.candidates = small,
            "depth" => bounds.depth = number,
            "entries" => bounds.entries = small,
            "crashes" => bounds.crashes = small,
            "breaks" => bounds.breaks = small,
            "members" => bounds.members = small,
            "changes" => bounds.changes = small,
            "slow-flushes" => bounds.slow_flushes = number != 0,
            "slow-saves" => bounds.slow_saves = number != 0,
            "old-terms" => bounds.planted = (number != 0).then_some(PlantedBug::CommitOldTerm),
            "states" => states_max = number,
            _ => panic!(
                "unknown bound {name:?}; there are terms candidates depth entries members changes crashes breaks slow-saves slow-flushes old-terms states"
            ),
        }
    }
    (bounds, states_max)
}

fn check_all(text: &str) -> Found {
    let (bounds, states_max) = parse(text, SMALL);
    let found = search(bounds, World::new, states_max);
    print(&bounds, &found);
    assert!(found.violation.is_none(), "{:?}", found.violation);
    assert!(found.is_complete || states_max < usize::MAX);
    found
}

#[test]
fn every_state_within_the_bounds_is_good() {
    if let Ok(text) = std::env::var("RINGSTORE_EXHAUSTIVE") {
        check_all(&text);
        return;
    }
    // One election, to its end; two, as far as some seconds go.
    for text in ["terms=1 depth=1000", ""] {
        let found = check_all(text);
        assert!(found.reached[0] > 0 && found.reached[2] > 0, "the search has seen nothing: {:?}", found.reached);
    }
}

/// The planted bug is found within these bounds, and by this name.
fn check(planted: PlantedBug, name: &str, bounds: &str) {
    let (bounds, _) = parse(bounds, SMALL);
    let bounds = Bounds { planted: Some(planted), ..bounds };
    let found = search(bounds, World::new, usize::MAX);
    print(&bounds, &found);
    assert_eq!(found.violation.map(|(violation, _)| violation.name), Some(name), "{planted:?}");
}

#[test]
fn a_vote_that_is_not_durable_is_found() {
    check(PlantedBug::VoteNotDurable, "DurableSpeech", "terms=1 candidates=1 slow-saves=1");
}

#[test]
fn an_acknowledgement_before_the_flush_is_found() {
    check(PlantedBug::AcknowledgeBeforeFlush, "DurableSpeech", "terms=1 candidates=1 entries=1 slow-flushes=1");
}
