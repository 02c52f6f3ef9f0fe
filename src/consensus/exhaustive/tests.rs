//! What the search says of the real core within small bounds, and that it sees what is planted.
//!
//! `scripts/exhaustive.sh` runs larger bounds, by the environment: `RINGSTORE_EXHAUSTIVE="terms=3 entries=1"`.

use crate::consensus::PlantedBug;

use super::model::{Action, Bounds, REACHED, World};
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
    // All to the end.
    for text in ["terms=1 entries=1", "terms=1 crashes=1", "terms=1 breaks=1 slow-saves=1", "terms=2"] {
        let found = check_all(text);
        assert!(found.reached[0] > 0 && found.reached[2] > 0, "the search has seen nothing: {:?}", found.reached);
    }
}

#[test]
fn every_state_with_a_change_of_members_is_good() {
    for text in ["terms=1 changes=1", "terms=1 changes=1 members=2", "terms=2 changes=1 members=2"] {
        let found = check_all(text);
        assert!(found.reached[6] > 0, "no list was ever committed: {:?}", found.reached);
    }
}

/// The planted bug is found within these bounds, and by one of these names.
fn check_from(planted: PlantedBug, names: &[&str], bounds: &str, begin: fn(&Bounds) -> World) {
    let (bounds, _) = parse(bounds, SMALL);
    let bounds = Bounds { planted: Some(planted), ..bounds };
    let found = search(bounds, begin, usize::MAX);
    print(&bounds, &found);
    let name = found.violation.expect("it is found").0.name;
    assert!(names.contains(&name), "{planted:?} is found as {name}");
}

fn check(planted: PlantedBug, name: &str, bounds: &str) {
    check_from(planted, &[name], bounds, World::new);
}

#[test]
fn a_vote_that_is_not_durable_is_found() {
    check(PlantedBug::VoteNotDurable, "DurableSpeech", "terms=1 candidates=1 slow-saves=1");
}

#[test]
fn an_acknowledgement_before_the_flush_is_found() {
    check(PlantedBug::AcknowledgeBeforeFlush, "DurableSpeech", "terms=1 candidates=1 entries=1 slow-flushes=1");
}

/// Raft's figure 8 up to (b): the first node has led term 1 and knows of term 2, which the second leads; neither's log has
/// left its node.
fn two_terms(bounds: &Bounds) -> World {
    let mut world = World::new(bounds);
    let stand = |world: &mut World, node| world.step(Action::Stand(node), bounds).expect("it stands");
    let deliver = |world: &mut World, from: usize, to: usize| {
        let at = world.letters.iter().position(|letter| (letter.from, letter.to) == (from, to));
        world.step(Action::Deliver(at.expect("it was sent") as u8), bounds).expect("it arrives");
    };
    stand(&mut world, 0);
    [(0, 1), (1, 0)].into_iter().for_each(|(from, to)| deliver(&mut world, from, to));
    stand(&mut world, 1);
    // The first one's request comes too late to the third, and its answer brings the news.
    [(1, 2), (0, 2), (2, 1), (2, 0)].into_iter().for_each(|(from, to)| deliver(&mut world, from, to));
    let led: Vec<bool> = world.hosts.iter().map(|host| host.replica.is_leader()).collect();
    let lengths: Vec<usize> = world.hosts.iter().map(|host| host.log.len()).collect();
    assert_eq!((led, lengths), (vec![false, true, false], vec![1, 1, 0]));
    world
}

#[test]
fn committing_records_of_an_old_term_by_counting_is_found() {
    check_from(PlantedBug::CommitOldTerm, &["LeaderComplete", "OneHistory"], "terms=4", two_terms);
}

#[test]
fn what_figure_8_warns_of_does_not_happen() {
    let (bounds, _) = parse("terms=3", SMALL);
    let found = search(bounds, two_terms, usize::MAX);
    print(&bounds, &found);
    assert!(found.violation.is_none() && found.is_complete && found.reached[4] > 0, "{:?}", found.reached);
}

#[test]
fn a_change_before_the_one_before_is_committed_is_found() {
    check(PlantedBug::ChangeBeforeCommitted, "OneChange", "terms=1 candidates=1 changes=2");
}

#[test]
fn a_list_that_counts_only_once_it_is_committed_is_found() {
    let names = ["DurableMajority", "LeaderComplete", "OneHistory", "OneLeader"];
    check_from(PlantedBug::ListCountedOnceCommitted, &names, "terms=2 changes=1", World::new);
}
