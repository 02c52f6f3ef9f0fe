//! Monotonic time as a plain number, so that the deterministic code never meets a clock.

use std::time::Duration;

/// Nanoseconds on a monotonic clock whose zero means nothing. Virtual in the simulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

impl Ticks {
    /// This moment plus `span`.
    #[must_use]
    pub fn after(self, span: Duration) -> Ticks {
        Ticks(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Ticks) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
