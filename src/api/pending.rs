//! The requests of one edge that wait for someone else: the log thread, or the leader that a request was sent to.
//!
//! Bounded in number and in bytes; what does not fit is answered "too busy". Every request has a time limit, and goes
//! when its connection goes. An answer that comes after that finds no entry and is dropped.

use std::collections::VecDeque;
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
    /// Answers that may be given once the index has applied the log up to their place, in the order of these. They come
    /// in the order of the log but for a few.
    answers: VecDeque<Held<A>>,
    answers_seen: u64,
    /// How many of them are gone with their requests.
    gone: usize,
    /// No request's time is up before this.
    next_deadline: Option<Instant>,
}

/// An answer that waits for the index.
#[derive(Debug)]
struct Held<A> {
    /// The second number keeps answers of the same position apart and in order.
    place: (LogPosition, u64),
    key: u64,
    /// `None` when its request is gone.
    answer: Option<A>,
}

impl<W, A> Pending<W, A> {
    pub(super) fn new(requests_max: usize, bytes_max: usize) -> Pending<W, A> {
        let waiting = Slab::new(requests_max);
        let answers = VecDeque::new();
        Pending { waiting, bytes: 0, bytes_max, answers, answers_seen: 0, gone: 0, next_deadline: None }
    }

    /// Enters a request; `None` when too much waits. Gives its key.
    pub(super) fn insert(&mut self, waiting: Waiting<W>) -> Option<u64> {
        let bytes = waiting.bytes;
        if self.bytes + bytes > self.bytes_max {
            return None;
        }
        let deadline = waiting.deadline;
        let key = self.waiting.insert(Entry { waiting, held: None }).ok()?;
        self.bytes += bytes;
        self.note_deadline(deadline);
        Some(key)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn get(&self, key: u64) -> Option<&Waiting<W>> {
        Some(&self.waiting.get(key)?.waiting)
    }

    /// What is to be done with the answer, to be changed.
    pub(super) fn work_mut(&mut self, key: u64) -> Option<&mut W> {
        Some(&mut self.waiting.get_mut(key)?.waiting.work)
    }

    /// Gives a request another time limit.
    pub(super) fn set_deadline(&mut self, key: u64, deadline: Instant) {
        if let Some(entry) = self.waiting.get_mut(key) {
            entry.waiting.deadline = deadline;
            self.note_deadline(deadline);
        }
    }

    fn note_deadline(&mut self, deadline: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(deadline, |next| next.min(deadline)));
    }

    /// Takes a request out to be answered, and the answer with it that is held for it.
    pub(super) fn remove(&mut self, key: u64) -> Option<(Waiting<W>, Option<A>)> {
        let entry = self.waiting.remove(key)?;
        self.bytes -= entry.waiting.bytes;
        Some((entry.waiting, entry.held.and_then(|place| self.drop_answer(place))))
    }

    fn drop_answer(&mut self, place: (LogPosition, u64)) -> Option<A> {
        let index = self.answers.binary_search_by_key(&place, |held| held.place).ok()?;
        let answer = self.answers[index].answer.take();
        self.gone += usize::from(answer.is_some());
        // Their places go now and then, so that one costs little and they are never more than the others.
        if self.gone > self.answers.len() / 2 {
            self.answers.retain(|held| held.answer.is_some());
            self.gone = 0;
        }
        answer
    }

    /// Keeps an answer until the index has applied up to `end`; hands it back when it is for nobody.
    pub(super) fn hold(&mut self, end: LogPosition, key: u64, answer: A) -> Option<A> {
        let Some(entry) = self.waiting.get_mut(key).filter(|entry| entry.held.is_none()) else {
            return Some(answer);
        };
        self.answers_seen += 1;
        let place = (end, self.answers_seen);
        entry.held = Some(place);
        let held = Held { place, key, answer: Some(answer) };
        if self.answers.back().is_none_or(|last| last.place < place) {
            self.answers.push_back(held);
        } else {
            self.answers.insert(self.answers.partition_point(|other| other.place < place), held);
        }
        None
    }

    /// True while an answer waits for the index.
    pub(super) fn holds_answers(&self) -> bool {
        self.answers.len() > self.gone
    }

    /// The next answer that may be given now that the index has applied up to `applied`.
    pub(super) fn release(&mut self, applied: LogPosition) -> Option<(u64, A)> {
        while self.answers.front().is_some_and(|held| held.place.0 <= applied) {
            let Held { key, answer, .. } = self.answers.pop_front().expect("just seen");
            let Some(answer) = answer else {
                self.gone -= 1;
                continue;
            };
            if let Some(entry) = self.waiting.get_mut(key) {
                entry.held = None;
            }
            return Some((key, answer));
        }
        None
    }

    /// The keys of the requests whose time is up. All are looked at only when one may be among them.
    pub(super) fn late(&mut self, now: Instant) -> Vec<u64> {
        if self.next_deadline.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let (mut late, mut next) = (Vec::new(), None::<Instant>);
        for (key, Entry { waiting, .. }) in self.waiting.iter() {
            if waiting.deadline <= now {
                late.push(key);
            } else {
                next = Some(next.map_or(waiting.deadline, |next| next.min(waiting.deadline)));
            }
        }
        // Those that are late now are taken out by the caller.
        self.next_deadline = next;
        late
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
        assert_eq!(pending.hold(LogPosition(0), keys[2], "late"), Some("late"));
        assert_eq!(pending.release(LogPosition(99)), None);
        assert_eq!(pending.release(LogPosition(200)), Some((keys[1], "b")));
        assert_eq!(pending.release(LogPosition(200)), Some((keys[0], "a")));
        pending.hold(LogPosition(300), keys[0], "c");
        assert!(pending.holds_answers());
        assert_eq!(pending.remove(keys[0]).unwrap().1, Some("c"), "an answer goes with its request");
        assert_eq!((pending.release(LogPosition(u64::MAX)), pending.holds_answers()), (None, false));
    }

    #[test]
    fn answers_come_in_the_order_of_the_log_whatever_goes_in_between() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut pending = Pending::new(1 << 10, 1 << 20);
        let mut expected = Vec::new();
        for number in 0..1000_u64 {
            let key = pending.insert(waiting(1, 1)).unwrap();
            let end = LogPosition(number.saturating_sub(random.u64(..5)));
            assert_eq!(pending.hold(end, key, number), None);
            expected.push((end, number, key));
        }
        expected.sort_unstable();
        let mut kept = Vec::new();
        for &(end, number, key) in &expected {
            if random.u8(..10) < 8 {
                assert_eq!(pending.remove(key).unwrap().1, Some(number));
            } else {
                kept.push((end, number, key));
            }
            assert!(pending.answers.len() <= 2 * pending.waiting.len(), "places of what is gone do not pile up");
        }
        let released = std::iter::from_fn(|| pending.release(LogPosition(u64::MAX)));
        assert!(released.map(|(key, number)| (number, key)).eq(kept.iter().map(|&(_, number, key)| (number, key))));
        assert_eq!((pending.holds_answers(), pending.gone, pending.answers.len()), (false, 0, 0));
    }

    #[test]
    fn late_requests_are_found_once_their_time_is_up() {
        use std::time::Duration;
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pending: Pending<_, ()> = Pending::new(8, 100);
        let mut enter = |seconds| {
            let deadline = after(seconds);
            pending.insert(Waiting { deadline, ..waiting(1, 1) }).unwrap()
        };
        let (long, short) = (enter(9), enter(2));
        assert!(pending.late(after(1)).is_empty());
        assert_eq!(pending.late(after(2)), [short]);
        pending.remove(short);
        pending.set_deadline(long, after(5));
        assert!(pending.late(after(4)).is_empty());
        assert_eq!(pending.late(after(5)), [long]);
    }
}
