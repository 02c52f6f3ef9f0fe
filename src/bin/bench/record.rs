//! What one thread counts between two cuts: cheap to add to, handed over whole at each cut.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::outcome::Troubles;

/// Significant digits of all latencies.
const DIGITS: u8 = 3;

/// A kind of operation; its number is its place in `Recorder::tallies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Write = 0,
    Read = 1,
    Delivery = 2,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Write, Self::Read, Self::Delivery];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Delivery => "delivery",
        }
    }
}

/// Operations of one kind.
#[derive(Debug)]
pub(crate) struct Tally {
    pub operations: u64,
    pub events: u64,
    pub payload_bytes: u64,
    pub latency: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        // Small until something is recorded: most runs have one kind only.
        let latency = Histogram::new(DIGITS).expect("a number of digits that it takes");
        Self { operations: 0, events: 0, payload_bytes: 0, latency }
    }
}

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, latency: Duration, events: u64, payload_bytes: u64) {
        self.operations += 1;
        self.events += events;
        self.payload_bytes += payload_bytes;
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency.record(nanoseconds).expect("it grows by itself");
    }

    /// One that was never answered: it is no operation, but it waited so long.
    pub(crate) fn add_age(&mut self, age: Duration) {
        let nanoseconds = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.latency.record(nanoseconds).expect("it grows by itself");
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.events += other.events;
        self.payload_bytes += other.payload_bytes;
        self.latency.add(&other.latency).expect("it grows by itself");
    }
}

/// Everything that a thread counts.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub tallies: [Tally; 3],
    pub troubles: Troubles,
    /// Answers that were an error, and connections lost.
    pub errors: u64,
}

impl Recorder {
    #[inline]
    pub(crate) fn of(&mut self, kind: Kind) -> &mut Tally {
        &mut self.tallies[kind as usize]
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.tallies.iter_mut().zip(&other.tallies).for_each(|(tally, more)| tally.merge(more));
        self.errors += other.errors;
        let (sum, more) = (&mut self.troubles, &other.troubles);
        sum.reconnects += more.reconnects;
        sum.retries += more.retries;
        sum.too_busy += more.too_busy;
        sum.not_handled += more.not_handled;
        sum.refused += more.refused;
        sum.unanswered += more.unanswered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorders_add_up() {
        let mut sum = Recorder::default();
        for milliseconds in [1, 3] {
            let mut one = Recorder::default();
            one.of(Kind::Write).add(Duration::from_millis(milliseconds), 5, 1000);
            one.errors = 1;
            one.troubles.retries = 2;
            sum.merge(&one);
        }
        let tally = sum.of(Kind::Write);
        assert_eq!((tally.operations, tally.events, tally.payload_bytes), (2, 10, 2000));
        assert_eq!(tally.latency.max() / 10_000, 300, "3 ms with three digits");
        assert_eq!((sum.errors, sum.troubles.retries), (2, 4));
    }
}
