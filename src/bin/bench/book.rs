//! Which of what happens belongs to the measured span, and what the span still owes at the end.
//!
//! In a closed loop an answer counts where it comes. In an open loop a request counts where its intended time lies,
//! whenever it is answered: a stall at the span's end shows although its answers come after it, and what was due in the
//! warm-up counts nowhere. What has no answer at all when the run ends counts with the age that it has then.
//!
//! Nothing here looks at a clock.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::pace::Pace;
use crate::record::{Kind, Recorder};

/// What one thread counts.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// The measured span of an open loop.
    span: Option<Range<Instant>>,
    /// What happens now belongs to the span.
    measuring: bool,
    inside: Recorder,
    /// The warm-up, and what comes after the end.
    outside: Recorder,
}

impl Book {
    /// `span` decides in an open loop; in a closed one [`Book::measure`] does.
    pub(crate) fn new(is_open: bool, span: Range<Instant>) -> Self {
        Self { span: is_open.then_some(span), ..Self::default() }
    }

    /// The measured span begins or ends.
    pub(crate) fn measure(&mut self, measuring: bool) {
        self.measuring = measuring;
    }

    /// The measured span ends earlier than it was planned.
    pub(crate) fn end_at(&mut self, now: Instant) {
        if let Some(span) = &mut self.span {
            span.end = span.end.min(now);
        }
    }

    /// For what has no intended time: errors and troubles.
    pub(crate) fn now(&mut self) -> &mut Recorder {
        if self.measuring { &mut self.inside } else { &mut self.outside }
    }

    /// A request, or a delivery that follows from one, is answered.
    #[inline]
    pub(crate) fn answered(&mut self, kind: Kind, intended: Instant, now: Instant, events: u64, payload_bytes: u64) {
        let inside = self.span.as_ref().map_or(self.measuring, |span| span.contains(&intended));
        let recorder = if inside { &mut self.inside } else { &mut self.outside };
        recorder.of(kind).add(now.saturating_duration_since(intended), events, payload_bytes);
    }

    /// The run is over, and a request of the open loop has no answer.
    pub(crate) fn unanswered(&mut self, kind: Kind, intended: Instant, now: Instant) {
        if self.span.as_ref().is_some_and(|span| span.contains(&intended)) {
            self.inside.troubles.unanswered += 1;
            self.inside.of(kind).add_age(now.saturating_duration_since(intended));
        }
    }

    /// The run is over; what `pace` has left was due and never sent.
    pub(crate) fn never_sent(&mut self, pace: &mut Pace, now: Instant, mut kind: impl FnMut() -> Kind) {
        let Some(end) = self.span.as_ref().map(|span| span.end) else { return };
        while let Some(due) = pace.next().filter(|due| *due < end) {
            pace.taken();
            self.unanswered(kind(), due, now);
        }
    }

    /// Gives out what was counted since the last time.
    pub(crate) fn take(&mut self, inside: bool) -> Recorder {
        std::mem::take(if inside { &mut self.inside } else { &mut self.outside })
    }
}

/// The moment that lies so long before `now`; `now` itself when the clock does not reach back so far.
pub(crate) fn before(now: Instant, age: Duration) -> Instant {
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    fn counts(recorder: &Recorder, kind: Kind) -> (u64, u64) {
        let tally = &recorder.tallies[kind as usize];
        // With three digits.
        (tally.operations, tally.latency.max() / 1_000_000)
    }

    /// Of an open loop, the span from 1,000 to 2,000 ms.
    fn open() -> (Instant, Book) {
        let zero = Instant::now();
        (zero, Book::new(true, zero + millis(1000)..zero + millis(2000)))
    }

    #[test]
    fn in_an_open_loop_the_intended_time_decides() {
        let (zero, mut book) = open();
        let mut answer = |intended, now| book.answered(Kind::Write, zero + millis(intended), zero + millis(now), 1, 10);
        // A backlog of the warm-up that is answered in the span.
        answer(300, 1500);
        answer(999, 1001);
        // The first and the last of the span, the one before the warm-up's cut is made, the other in the drain.
        answer(1000, 1001);
        answer(1999, 2900);
        // Begun before the thread saw that the span is over.
        answer(2000, 2010);
        let inside = book.take(true);
        assert_eq!(counts(&inside, Kind::Write), (2, 901));
        assert_eq!(inside.tallies[0].payload_bytes, 20);
        assert_eq!(counts(&book.take(false), Kind::Write), (3, 1200));
        assert_eq!(counts(&book.take(true), Kind::Write), (0, 0), "it is given out once");
    }

    #[test]
    fn in_a_closed_loop_the_time_of_the_answer_decides() {
        let zero = Instant::now();
        let mut book = Book::new(false, zero + millis(1000)..zero + millis(2000));
        let answer = |book: &mut Book, intended, now| {
            book.answered(Kind::Read, zero + millis(intended), zero + millis(now), 1, 0);
        };
        answer(&mut book, 990, 995);
        book.measure(true);
        book.now().errors += 1;
        answer(&mut book, 998, 1003);
        book.measure(false);
        book.now().errors += 10;
        answer(&mut book, 1990, 2300);
        book.unanswered(Kind::Read, zero + millis(1500), zero + millis(9000));
        let inside = book.take(true);
        assert_eq!((counts(&inside, Kind::Read), inside.errors), ((1, 5), 1));
        let outside = book.take(false);
        assert_eq!((counts(&outside, Kind::Read), outside.errors), ((2, 310), 10));
    }

    #[test]
    fn a_stall_at_the_end_shows() {
        let (zero, mut book) = open();
        // A hundred a second; nothing is answered any more, and nothing more is sent, from 1,900 ms on.
        let mut pace = Pace::new(Some(100.0), zero, 0, 1);
        while pace.next().is_some_and(|due| due < zero + millis(1900)) {
            let due = pace.next().unwrap();
            pace.taken();
            book.answered(Kind::Write, due, due + millis(1), 1, 0);
        }
        let over = zero + millis(5000);
        for intended in [500, 1880, 1890] {
            book.unanswered(Kind::Write, zero + millis(intended), over);
        }
        book.never_sent(&mut pace, over, || Kind::Write);
        let inside = book.take(true);
        assert_eq!(counts(&inside, Kind::Write), (90, 3120), "the age of the oldest, and no more operations");
        assert_eq!(inside.troubles.unanswered, 12, "two without an answer, ten that were due; none of the warm-up");
        assert_eq!(inside.tallies[0].latency.len(), 102);
        assert_eq!(pace.next(), Some(zero + millis(2000)));
    }

    #[test]
    fn an_early_end_is_the_end() {
        let (zero, mut book) = open();
        let mut pace = Pace::new(Some(100.0), zero, 0, 1);
        book.end_at(zero + millis(1050));
        book.answered(Kind::Write, zero + millis(1060), zero + millis(1061), 1, 0);
        book.never_sent(&mut pace, zero + millis(1100), || Kind::Read);
        let inside = book.take(true);
        assert_eq!(counts(&inside, Kind::Write), (0, 0));
        assert_eq!((inside.troubles.unanswered, counts(&inside, Kind::Read).1), (5, 100));
        book.end_at(zero + millis(3000));
        book.unanswered(Kind::Write, zero + millis(1500), zero + millis(4000));
        assert_eq!(book.take(true).troubles.unanswered, 0, "it never moves back");
    }
}
