//! The requests of one edge that wait for someone else: the log thread, or the leader that a request was sent to.
//!
//! Bounded in number and in bytes; what does not fit is answered "too busy". Every request has a time limit, and goes
//! when its connection goes. An answer that comes after that finds no entry and is dropped.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::api::slab::Slab;
use crate::types::{Guid, LogPosition};

/// A waiting request. `W` says what to do with the answer.
#[derive(Debug)]
pub(super) struct Waiting<W> {
    /// Key of the client's session.
    pub(super) session: u64,
    /// The client's own name for the request.
    pub(super) correlation: Guid,
    /// When the client gets a timeout instead of the answer.
    pub(super) deadline: Instant,
    /// What it counts against the common limit.
    pub(super) bytes: usize,
    /// What to do with the answer.
    pub(super) work: W,
}

#[derive(Debug)]
struct Entry<W> {
    waiting: Waiting<W>,
    /// Where its answer is held.
    held: Option<(LogPosition, u64)>,
}

/// All waiting requests, and the answers that wait for the index. `A` is an answer.
#[derive(Debug)]
pub(super) struct Pending<W, A> {
    waiting: Slab<Entry<W>>,
    bytes: usize,
    bytes_max: usize,
    /// Answers that may be given once the index has applied the log up to the position. The second number keeps
    /// entries of the same position apart and in order.
    answers: BTreeMap<(LogPosition, u64), (u64, A)>,
    answers_seen: u64,
}

impl<W, A> Pending<W, A> {
    pub(super) fn new(requests_max: usize, bytes_max: usize) -> Pending<W, A> {
        let waiting = Slab::new(requests_max);
        Pending { waiting, bytes: 0, bytes_max, answers: BTreeMap::new(), answers_seen: 0 }
    }

    /// Enters a request; `None` when too much waits. Gives its key.
    pub(super) fn insert(&mut self, waiting: Waiting<W>) -> Option<u64> {
        let bytes = waiting.bytes;
        if self.bytes + bytes > self.bytes_max {
            return None;
        }
        let key = self.waiting.insert(Entry { waiting, held: None }).ok()?;
        self.bytes += bytes;
        Some(key)
    }

    pub(super) fn get(&self, key: u64) -> Option<&Waiting<W>> {
        Some(&self.waiting.get(key)?.waiting)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Waiting<W>> {
        Some(&mut self.waiting.get_mut(key)?.waiting)
    }

    /// Gives a request another time limit.
    pub(super) fn set_deadline(&mut self, key: u64, deadline: Instant) {
        if let Some(entry) = self.waiting.get_mut(key) {
            entry.waiting.deadline = deadline;
        }
    }

    /// Takes a request out to be answered.
    pub(super) fn remove(&mut self, key: u64) -> Option<Waiting<W>> {
        let entry = self.waiting.remove(key)?;
        self.bytes -= entry.waiting.bytes;
        if let Some(place) = entry.held {
            self.answers.remove(&place);
        }
        Some(entry.waiting)
    }

    /// Keeps an answer until the index has applied up to `end`. An answer to nobody is dropped.
    pub(super) fn hold(&mut self, end: LogPosition, key: u64, answer: A) {
        if let Some(entry) = self.waiting.get_mut(key)
            && entry.held.is_none()
        {
            self.answers_seen += 1;
            entry.held = Some((end, self.answers_seen));
            self.answers.insert((end, self.answers_seen), (key, answer));
        }
    }

    /// True while an answer waits for the index.
    pub(super) fn holds_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// The next answer that may be given now that the index has applied up to `applied`.
    pub(super) fn release(&mut self, applied: LogPosition) -> Option<(u64, A)> {
        let first = self.answers.first_entry().filter(|entry| entry.key().0 <= applied)?;
        let (key, answer) = first.remove();
        if let Some(entry) = self.waiting.get_mut(key) {
            entry.held = None;
        }
        Some((key, answer))
    }

    /// The keys of the requests that satisfy the condition.
    pub(super) fn keys(&self, condition: impl Fn(&Waiting<W>) -> bool) -> Vec<u64> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.waiting.iter().filter(|(_, entry)| condition(&entry.waiting)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(session: u64, bytes: usize) -> Waiting<&'static str> {
        Waiting { session, correlation: Guid::ZERO, deadline: Instant::now(), bytes, work: "work" }
    }

    #[test]
    fn requests_are_bounded_in_number_and_bytes() {
        let mut pending: Pending<_, ()> = Pending::new(2, 100);
        let first = pending.insert(waiting(1, 60)).unwrap();
        assert!(pending.insert(waiting(1, 41)).is_none(), "too many bytes");
        pending.insert(waiting(2, 40)).unwrap();
        assert!(pending.insert(waiting(3, 0)).is_none(), "too many requests");
        assert_eq!(pending.keys(|waiting| waiting.session == 1), [first]);
        pending.remove(first).unwrap();
        assert!(pending.remove(first).is_none());
        pending.insert(waiting(3, 60)).unwrap();
    }

    #[test]
    fn answers_wait_for_the_index_and_late_ones_are_dropped() {
        let mut pending = Pending::new(8, 100);
        let keys: Vec<_> = (0..3).map(|_| pending.insert(waiting(1, 1)).unwrap()).collect();
        pending.hold(LogPosition(200), keys[0], "a");
        pending.hold(LogPosition(100), keys[1], "b");
        pending.remove(keys[2]);
        pending.hold(LogPosition(0), keys[2], "late");
        assert_eq!(pending.release(LogPosition(99)), None);
        assert_eq!(pending.release(LogPosition(200)), Some((keys[1], "b")));
        assert_eq!(pending.release(LogPosition(200)), Some((keys[0], "a")));
        pending.hold(LogPosition(300), keys[0], "c");
        pending.remove(keys[0]);
        assert_eq!(pending.release(LogPosition(u64::MAX)), None, "an answer goes with its request");
    }
}
