//! Chance in a replica: jitter that keeps nodes from standing against each other, and names of subscriptions.

use std::time::Duration;

use crate::types::Guid;

/// Neighbouring seeds must not draw alike.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Draws from a seed. Part of the replica's state: a copy draws the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Chance {
    seed: u64,
    /// State of the jitter's generator; `None`: no jitter.
    jitter: Option<u64>,
    /// Names drawn so far.
    names: u64,
}

impl Chance {
    pub(super) fn new(seed: u64, is_jittered: bool) -> Chance {
        Chance { seed, jitter: is_jittered.then_some(seed.wrapping_add(1).wrapping_mul(SPREAD)), names: 0 }
    }

    /// A random part of `range`.
    pub(super) fn jitter(&mut self, range: Duration) -> Duration {
        let Some(state) = &mut self.jitter else {
            return Duration::ZERO;
        };
        let nanos = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut random = fastrand::Rng::with_seed(*state);
        let drawn = Duration::from_nanos(random.u64(0..nanos));
        *state = random.get_seed();
        drawn
    }

    /// A name that this replica has not used before. Another life of the node has another seed.
    pub(super) fn name(&mut self) -> Guid {
        self.names += 1;
        // A generator of its own for each name: how often jitter was drawn does not matter.
        let mut random = fastrand::Rng::with_seed(self.seed ^ self.names.wrapping_mul(SPREAD));
        Guid(random.u128(..).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_jitter_can_be_switched_off() {
        let (mut one, mut other) = (Chance::new(7, true), Chance::new(7, false));
        let names: std::collections::BTreeSet<Guid> = (0..1000).map(|_| one.name()).collect();
        assert_eq!(names.len(), 1000);
        let range = Duration::from_secs(1);
        assert!((0..100).all(|_| one.jitter(range) < range));
        assert_ne!(one.jitter(range), one.jitter(range));
        let before = other.clone();
        assert_eq!((other.jitter(range), &other), (Duration::ZERO, &before), "no jitter, no states");
    }
}
