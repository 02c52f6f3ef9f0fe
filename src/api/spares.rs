//! The memory of writes that are done: the log thread gives it back with the answer, and the next writes use it again.

use crate::codec::record::RecordKind;
use crate::engine::{Append, Ticket};
use crate::limits::{EDGE_SPARE_APPENDS, EDGE_SPARE_BYTES, SPARE_BODY_BYTES};
use crate::types::{ExpectedVersion, Ticks};

/// Bounded in number and in bytes; what does not fit is freed.
#[derive(Debug, Default)]
pub(super) struct Spares {
    /// Boxed because they travel so.
    #[allow(clippy::vec_box)]
    appends: Vec<Box<Append>>,
    /// Capacity of their bodies, together.
    bytes: usize,
}

impl Spares {
    /// One to fill in: only `body` (its memory) and `queued` (a released share) may have something in them.
    pub(super) fn take(&mut self) -> Box<Append> {
        let Some(append) = self.appends.pop() else { return Box::new(empty()) };
        self.bytes -= append.body.capacity();
        append
    }

    pub(super) fn give(&mut self, mut append: Box<Append>) {
        let bytes = append.body.capacity();
        if self.appends.len() >= EDGE_SPARE_APPENDS || bytes > SPARE_BODY_BYTES || self.bytes + bytes > EDGE_SPARE_BYTES
        {
            return;
        }
        self.bytes += bytes;
        append.guard = None;
        append.metadata_of = None;
        append.revival = None;
        if let Some(queued) = &mut append.queued {
            queued.release();
        }
        self.appends.push(append);
    }
}

impl Extend<Box<Append>> for Spares {
    fn extend<I: IntoIterator<Item = Box<Append>>>(&mut self, appends: I) {
        appends.into_iter().for_each(|append| self.give(append));
    }
}

fn empty() -> Append {
    Append {
        ticket: Ticket { edge: 0, key: 0 },
        kind: RecordKind::Append,
        expected_version: ExpectedVersion::Any,
        guard: None,
        event_count: 0,
        body: Vec::new(),
        metadata_of: None,
        revival: None,
        deadline: Ticks(u64::MAX),
        handed_over: Ticks(0),
        queued: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::engine::{ClientCounters, MetadataEffect, QueuedBytes};

    fn with_body(bytes: usize) -> Box<Append> {
        Box::new(Append { body: Vec::with_capacity(bytes), ..empty() })
    }

    #[test]
    fn memory_comes_back_and_nothing_else_does() {
        let counters = Arc::new(ClientCounters::default());
        let queued = QueuedBytes::take(&counters, 10, 100);
        let metadata_of = Some(MetadataEffect { base: "a".into(), soft_deletes: true });
        let mut spares = Spares::default();
        spares.give(Box::new(Append { guard: Some("a".into()), metadata_of, queued, ..*with_body(1000) }));
        assert_eq!(counters.queued_bytes_now.load(Ordering::Relaxed), 0, "the share does not stay with the memory");
        let append = spares.take();
        assert_eq!((append.body.capacity(), &append.guard, &append.metadata_of), (1000, &None, &None));
        assert_eq!((spares.bytes, spares.take().body.capacity()), (0, 0));
    }

    #[test]
    fn the_store_is_bounded_in_number_and_bytes() {
        let mut spares = Spares::default();
        spares.give(with_body(SPARE_BODY_BYTES + 1));
        assert_eq!(spares.appends.len(), 0, "too large to keep");
        for _ in 0..2 * EDGE_SPARE_BYTES / SPARE_BODY_BYTES {
            spares.give(with_body(SPARE_BODY_BYTES));
        }
        assert!(spares.bytes <= EDGE_SPARE_BYTES && spares.bytes > EDGE_SPARE_BYTES - SPARE_BODY_BYTES);
        let mut spares = Spares::default();
        for _ in 0..2 * EDGE_SPARE_APPENDS {
            spares.give(with_body(0));
        }
        assert_eq!(spares.appends.len(), EDGE_SPARE_APPENDS);
    }
}
