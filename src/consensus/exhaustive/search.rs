//! Breadth first through all states of a [`World`], with a shortest way to whatever is wrong.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;

use super::model::{Action, Bounds, REACHED, Violation, World};

/// What a search found.
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) steps: u64,
    /// The longest way to a state that cannot be reached in fewer steps.
    pub(super) depth: usize,
    pub(super) time: Duration,
    /// How many states had what [`REACHED`] names.
    pub(super) reached: [usize; REACHED.len()],
    /// False: the limit of states was met first.
    pub(super) is_complete: bool,
    pub(super) violation: Option<(Violation, Vec<String>)>,
}

struct Search {
    bounds: Bounds,
    begin: fn(&Bounds) -> World,
    /// Each state with the one before it and the step between them.
    seen: HashMap<u64, (u64, Action), FixedState>,
    level: Vec<World>,
    next: Vec<World>,
    found: Found,
}

/// Visits all states within the bounds that follow on a beginning, or `states_max` of them.
pub(super) fn search(bounds: Bounds, begin: fn(&Bounds) -> World, states_max: usize) -> Found {
    let start = Instant::now();
    let found = Found {
        states: 1,
        steps: 0,
        depth: 0,
        time: Duration::ZERO,
        reached: [0; REACHED.len()],
        is_complete: false,
        violation: None,
    };
    let first = begin(&bounds);
    let seen = HashMap::from_iter([(first.fingerprint(&bounds), (0, Action::Start))]);
    let mut search = Search { bounds, begin, seen, level: vec![first], next: Vec::new(), found };
    let mut is_open = true;
    while is_open && search.found.violation.is_none() && search.seen.len() < states_max {
        search.visit_level();
        is_open = !search.level.is_empty() && search.found.depth < bounds.depth;
    }
    search.found.is_complete = !is_open && search.found.violation.is_none();
    search.found.states = search.seen.len();
    search.found.time = start.elapsed();
    search.found
}

impl Search {
    fn visit_level(&mut self) {
        for world in std::mem::take(&mut self.level) {
            let before = world.fingerprint(&self.bounds);
            for (index, has) in world.reached().into_iter().enumerate() {
                self.found.reached[index] += usize::from(has);
            }
            for action in world.actions(&self.bounds) {
                self.found.steps += 1;
                let mut world = world.clone();
                if let Err(violation) = step(&mut world, action, &self.bounds) {
                    let mut way = self.way_to(before);
                    way.push(format!("{action:?}"));
                    self.found.violation = Some((violation, way));
                    return;
                }
                if let std::collections::hash_map::Entry::Vacant(entry) =
                    self.seen.entry(world.fingerprint(&self.bounds))
                {
                    entry.insert((before, action));
                    self.next.push(world);
                }
            }
        }
        self.level = std::mem::take(&mut self.next);
        self.found.depth += usize::from(!self.level.is_empty());
    }

    fn way_to(&self, mut state: u64) -> Vec<String> {
        let mut actions = Vec::new();
        while let Some(&(before, action)) = self.seen.get(&state).filter(|(_, action)| *action != Action::Start) {
            actions.push(action);
            state = before;
        }
        let mut world = (self.begin)(&self.bounds);
        let mut way = Vec::new();
        for action in actions.into_iter().rev() {
            way.push(world.describe(action));
            world.step(action, &self.bounds).expect("it went well before");
        }
        way
    }
}

/// A step; a failed assertion of a replica is a violation like any other.
fn step(world: &mut World, action: Action, bounds: &Bounds) -> Result<(), Violation> {
    let step = catch_unwind(AssertUnwindSafe(|| world.step(action, bounds)));
    step.unwrap_or_else(|_| Err(Violation { name: "Assertion", words: "a replica's own assertion failed".to_owned() }))
}
