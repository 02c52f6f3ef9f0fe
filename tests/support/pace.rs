//! How fast a load lets the log grow: in bursts, and on the long run so that a run of any length fits its disks.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What a load may write in large events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Bytes that may be written at once, after a while without any.
    pub(crate) burst: u64,
    /// Bytes a second that add up to the next burst.
    pub(crate) a_second: u64,
}

/// A limit, and what is left of it now.
#[derive(Debug)]
pub(crate) struct Pace {
    limit: Limit,
    left: Mutex<(Instant, f64)>,
}

impl Pace {
    pub(crate) fn new(limit: Limit, now: Instant) -> Pace {
        Pace { limit, left: Mutex::new((now, limit.burst as f64)) }
    }

    /// Takes `bytes` of what may be written by `now`; false, and nothing taken, when there is less.
    pub(crate) fn take(&self, bytes: u64, now: Instant) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(left.0).as_secs_f64() * self.limit.a_second as f64;
        let available = (left.1 + earned).min(self.limit.burst as f64);
        let is_enough = available >= bytes as f64;
        // The later of the two: clients ask at moments of their own.
        *left = (left.0.max(now), if is_enough { available - bytes as f64 } else { available });
        is_enough
    }
}
