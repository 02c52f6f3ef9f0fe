//! Counting: the edges' side of [`ClientCounters`](crate::engine::ClientCounters).

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts some more.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Counts less of something that is counted while it lasts.
pub(super) fn subtract(counter: &AtomicU64, count: u64) {
    counter.fetch_sub(count, Ordering::Relaxed);
}
