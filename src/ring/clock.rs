//! The one monotonic clock that threads share.

use rustix::time::{ClockId, clock_gettime};

use crate::types::Ticks;

/// The clock that the engine is fed with, and that deadlines of requests to it are on.
#[must_use]
pub fn monotonic_now() -> Ticks {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is negative on a monotonic clock.
    Ticks(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}
