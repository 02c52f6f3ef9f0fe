//! What happens when: events by virtual time, ties in the order in which they were planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A moment on the virtual clock, nanoseconds since the start of the run.
pub(super) type Moment = u64;

pub(super) const MICROSECOND: Moment = 1_000;
pub(super) const MILLISECOND: Moment = 1_000_000;
pub(super) const SECOND: Moment = 1_000_000_000;

#[derive(Debug)]
struct Entry<E> {
    at: Moment,
    count: u64,
    event: E,
}

impl<E> Entry<E> {
    fn key(&self) -> (Moment, u64) {
        (self.at, self.count)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Entry<E>) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Entry<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the heap gives the greatest first.
    fn cmp(&self, other: &Entry<E>) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// The events to come.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    count: u64,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Agenda<E> {
        Agenda { heap: BinaryHeap::new(), count: 0 }
    }

    pub(super) fn plan(&mut self, at: Moment, event: E) {
        self.count += 1;
        self.heap.push(Entry { at, count: self.count, event });
    }

    pub(super) fn next(&mut self) -> Option<(Moment, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_ties_in_the_order_planned() {
        let mut agenda = Agenda::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (3, 'b')] {
            agenda.plan(at, event);
        }
        let order: String = std::iter::from_fn(|| agenda.next()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcd");
    }
}
