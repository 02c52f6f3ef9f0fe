//! The places of accepted connections that have not proven who they are ([`security`](crate::security) says who gets one).
//!
//! Where the plane is closed the place of one that failed stays taken for a moment: handshakes are done on the thread that
//! carries heartbeats.

use crate::limits::{GREETINGS_MAX, KNOWN_GREETINGS_MAX, STRANGERS_MAX, STRANGERS_PER_HOST_MAX};
use crate::security::{FAILED_PLACE_PAUSE, Place, PlaceLimits};
use crate::types::Ticks;

const LIMITS: PlaceLimits = PlaceLimits {
    known: KNOWN_GREETINGS_MAX,
    known_of_host: GREETINGS_MAX,
    strangers: STRANGERS_MAX,
    strangers_of_host: STRANGERS_PER_HOST_MAX,
};

/// The places of those who are gone.
#[derive(Debug, Default)]
pub(super) struct Places {
    left: Vec<(Place, Ticks)>,
}

impl Places {
    /// Whether there is room for one more beside those who are there.
    ///
    /// # Errors
    /// The limit that is reached.
    pub(super) fn check(&mut self, now: Ticks, new: Place, taken: impl Iterator<Item = Place>) -> Result<(), usize> {
        self.left.retain(|(_, until)| *until > now);
        LIMITS.check(new, taken.chain(self.left.iter().map(|(place, _)| *place)))
    }

    /// One failed: its place stays taken for a moment.
    pub(super) fn leave(&mut self, now: Ticks, place: Place) {
        self.left.push((place, now.after(FAILED_PLACE_PAUSE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_one_that_failed_stays_taken_for_a_moment() {
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|address| Place::of(address.parse().unwrap(), false));
        let (mut places, now) = (Places::default(), Ticks(1));
        (0..STRANGERS_PER_HOST_MAX).for_each(|_| places.leave(now, one));
        assert_eq!(places.check(now, one, std::iter::empty()), Err(STRANGERS_PER_HOST_MAX));
        assert_eq!(places.check(now, other, std::iter::empty()), Ok(()));
        assert_eq!(places.check(now.after(FAILED_PLACE_PAUSE), one, std::iter::empty()), Ok(()));
        assert!(places.left.is_empty());
    }
}
