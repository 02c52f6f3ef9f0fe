//! What the storage's background work has done, for `/stats`.

use std::sync::atomic::AtomicU64;

/// Written by the background thread (and `repaired` by whoever repairs), read by `/stats`.
#[derive(Debug, Default)]
pub struct StorageFigures {
    /// Chunks from the first on that are sealed, without a gap.
    pub sealed_chunks: AtomicU64,
    /// Bytes that the scrubber reads a second; zero when it is switched off.
    pub scrub_rate_bytes: AtomicU64,
    /// Log position that the scrubber has come to in this pass.
    pub scrub_position: AtomicU64,
    /// Passes over all sealed chunks that are complete, since start.
    pub scrub_passes: AtomicU64,
    /// Bytes that the scrubber has read, since start.
    pub scrubbed_bytes: AtomicU64,
    /// Damaged ranges of the log that somebody has found, since start; a range counts once until it is repaired.
    pub damage_found: AtomicU64,
    /// Of these, ranges that are not repaired yet.
    pub damage_waiting: AtomicU64,
    /// Damaged header and footer pages that the node has written anew, since start.
    pub pages_mended: AtomicU64,
    /// Passes that are complete over what is not sealed: the open chunk, those ahead of it, the state file; since start.
    pub unsealed_passes: AtomicU64,
    /// Damaged durable marks, slots of the state and zeros behind the log that were found, since start; the log thread
    /// writes them anew.
    pub renewals_asked: AtomicU64,
    /// Damaged ranges that were repaired, since start.
    pub damage_repaired: AtomicU64,
    /// Reads and writes of the background work that failed, since start.
    pub background_errors: AtomicU64,
}
