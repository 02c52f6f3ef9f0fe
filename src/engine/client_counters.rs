//! Figures of the external side, counted by the edges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the edge threads, since start; the `…_now` ones go down, too. Written by the edges (a shared atomic is the
/// exception of the house; this is one), read for `/stats`.
#[derive(Debug, Default)]
pub struct ClientCounters {
    /// Open TCP connections of clients.
    pub tcp_connections_now: AtomicU64,
    /// TCP connections accepted.
    pub tcp_connections: AtomicU64,
    /// Open HTTP connections of clients.
    pub http_connections_now: AtomicU64,
    /// HTTP connections accepted.
    pub http_connections: AtomicU64,
    /// Open connections of clients with TLS, TCP and HTTP.
    pub tls_connections_now: AtomicU64,
    /// Connections of clients with TLS that did not come up.
    pub tls_failures: AtomicU64,
    /// Connections that forward requests of other nodes' clients, open now.
    pub forward_connections_now: AtomicU64,
    /// Requests of clients, TCP and HTTP.
    pub requests: AtomicU64,
    /// Requests passed on to the leader.
    pub forwarded_requests: AtomicU64,
    /// Open subscriptions.
    pub subscriptions_now: AtomicU64,
    /// Requests that wait for the log thread or for the leader.
    pub pending_requests_now: AtomicU64,
    /// Bytes of writes on their way from the edges into the log.
    pub queued_bytes_now: AtomicU64,
    /// Requests refused because too much was waiting.
    pub busy_refusals: AtomicU64,
    /// Connections cut for silence or for not reading.
    pub cut_connections: AtomicU64,
    /// Connections that could not be accepted.
    pub accept_errors: AtomicU64,
    /// Bytes received from clients.
    pub received_bytes: AtomicU64,
    /// Bytes sent to clients.
    pub sent_bytes: AtomicU64,
}

/// A write's share of [`ClientCounters::queued_bytes_now`], given back when it is dropped.
#[derive(Debug)]
pub struct QueuedBytes {
    counters: Arc<ClientCounters>,
    bytes: u64,
}

impl QueuedBytes {
    /// Takes a share; `None` when all edges together would have more than `limit`.
    #[must_use]
    pub fn take(counters: &Arc<ClientCounters>, bytes: u64, limit: u64) -> Option<QueuedBytes> {
        let before = counters.queued_bytes_now.fetch_add(bytes, Ordering::Relaxed);
        let share = QueuedBytes { counters: Arc::clone(counters), bytes };
        // One that does not fit is given back by its drop.
        (before.saturating_add(bytes) <= limit).then_some(share)
    }

    /// Gives the share back before the drop: the write is in the log, but its memory travels on.
    pub fn release(&mut self) {
        if self.bytes > 0 {
            self.counters.queued_bytes_now.fetch_sub(self.bytes, Ordering::Relaxed);
            self.bytes = 0;
        }
    }

    /// Takes another share in place of the old one, without touching the counters' owner; false, and then it holds
    /// nothing, when all edges together would have more than `limit`.
    #[must_use]
    pub fn retake(&mut self, bytes: u64, limit: u64) -> bool {
        self.release();
        let before = self.counters.queued_bytes_now.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = bytes;
        let fits = before.saturating_add(bytes) <= limit;
        if !fits {
            self.release();
        }
        fits
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        self.release();
    }
}

/// Shares that the log thread gives back together: one change of the common counter for all writes of a turn.
#[derive(Debug, Default)]
pub(super) struct ReleasedBytes {
    counters: Option<Arc<ClientCounters>>,
    bytes: u64,
}

impl ReleasedBytes {
    /// Takes what the share stands for; the rest of it is left to its owner, for dropping it would touch what all edges
    /// write to.
    pub(super) fn take_from(&mut self, share: &mut Option<QueuedBytes>) {
        let Some(share) = share else { return };
        self.bytes += std::mem::take(&mut share.bytes);
        if self.counters.is_none() {
            self.counters = Some(Arc::clone(&share.counters));
        }
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self) {
        if let Some(counters) = self.counters.as_ref().filter(|_| self.bytes > 0) {
            counters.queued_bytes_now.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for ReleasedBytes {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_limited_and_given_back() {
        let counters = Arc::new(ClientCounters::default());
        let first = QueuedBytes::take(&counters, 60, 100).unwrap();
        assert!(QueuedBytes::take(&counters, 41, 100).is_none());
        let second = QueuedBytes::take(&counters, 40, 100).unwrap();
        drop(first);
        let mut third = second;
        third.release();
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 0);
        assert!(!third.retake(101, 100) && third.retake(100, 100));
        assert!(third.retake(70, 100), "the old share does not count");
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 70);
        drop(third);
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_share_is_given_back_once_whoever_does_it() {
        let counters = Arc::new(ClientCounters::default());
        let mut shares: Vec<_> = [30, 12].map(|bytes| QueuedBytes::take(&counters, bytes, 100)).into();
        let mut released = ReleasedBytes::default();
        released.take_from(&mut shares[0]);
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 42);
        released.give_back();
        released.give_back();
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 12);
        drop(shares);
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 0);
    }
}
