//! Measures how long writes spend in each stage: the engine's side of [`Stages`].
//!
//! **Invariant:** nothing here reads a clock; the shell tells the time, a few times a turn, and nothing is kept for
//! each append: those that came together share a mark.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits::FLUSH_TIME_AGE_MAX;
use crate::types::{LogPosition, NodeId, Ticks};

use super::action::{Action, WriteSource};
use super::stages::{LogStage, Spans, Stages};

/// Marks of one kind that are kept; beyond it the newest stands for what comes after it, too.
const MARKS_MAX: usize = 1024;

/// Appends that share a mark: a mark counts when all of it has arrived, so a long turn makes several.
const APPENDS_PER_MARK: u64 = 64;

/// A stretch of the log that came at one time.
#[derive(Debug)]
struct Mark {
    end: LogPosition,
    at: Ticks,
    count: u64,
}

/// Stretches of the log, in order, that are on the way to somewhere.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<Mark>);

impl Marks {
    /// One thing more, that ends at `end`, set out at `at`.
    pub(super) fn push(&mut self, end: LogPosition, at: Ticks) {
        let is_full = self.0.len() >= MARKS_MAX;
        match self.0.back_mut() {
            Some(last) if is_full || (last.at == at && last.count < APPENDS_PER_MARK) => {
                // A send that is planned again, from a file now, may end before the plan that it replaces.
                last.end = last.end.max(end);
                last.count += 1;
            }
            _ => self.0.push_back(Mark { end, at, count: 1 }),
        }
    }

    /// All before `to` has arrived: takes out whole marks, calling `arrived` with when they set out and how many
    /// they are.
    pub(super) fn take(&mut self, to: LogPosition, mut arrived: impl FnMut(Ticks, u64)) {
        while let Some(mark) = self.0.pop_front_if(|mark| mark.end <= to) {
            arrived(mark.at, mark.count);
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A write or flush under way.
#[derive(Debug)]
struct Submitted {
    id: u64,
    stage: LogStage,
    at: Ticks,
}

/// A mean in which the last spans weigh most.
#[derive(Debug, Default)]
struct Smoothed {
    mean: Duration,
    is_begun: bool,
    /// When the last span ended.
    last: Ticks,
}

impl Smoothed {
    /// One more span: an eighth of the mean from now on. The first is the mean.
    fn add(&mut self, span: Duration, now: Ticks) {
        self.mean = if self.is_begun { (self.mean * 7 + span) / 8 } else { span };
        self.is_begun = true;
        self.last = now;
    }

    /// The mean, while it tells of the present.
    fn present(&self, now: Ticks) -> Option<Duration> {
        (now.since(self.last) < FLUSH_TIME_AGE_MAX).then_some(self.mean)
    }
}

/// See the module. Lives in the engine.
#[derive(Debug)]
pub(super) struct Stopwatch {
    now: Ticks,
    /// Appended, the write not submitted.
    unsubmitted: Marks,
    /// Appended, not committed.
    uncommitted: Marks,
    /// As many as the log writer has in flight: a few.
    submitted: Vec<Submitted>,
    spans: Spans,
    flush: Smoothed,
}

impl Stopwatch {
    pub(super) fn new(now: Ticks) -> Stopwatch {
        Stopwatch {
            now,
            unsubmitted: Marks::default(),
            uncommitted: Marks::default(),
            submitted: Vec::new(),
            spans: Spans::default(),
            flush: Smoothed::default(),
        }
    }

    pub(super) fn now(&self) -> Ticks {
        self.now
    }

    pub(super) fn set_now(&mut self, now: Ticks) {
        self.now = now;
    }

    /// An append that an edge handed over at that time is decided on now.
    pub(super) fn taken(&mut self, handed_over: Ticks) {
        self.spans.push(LogStage::Queue, handed_over, self.now, 1);
    }

    /// An append is in the log buffer, up to `end`.
    pub(super) fn appended(&mut self, end: LogPosition) {
        self.unsubmitted.push(end, self.now);
        self.uncommitted.push(end, self.now);
    }

    /// The log writer has decided on these. What belongs to a cut adds nothing to the log and is not counted.
    pub(super) fn submitted(&mut self, actions: &[Action]) {
        let at = self.now;
        for action in actions {
            match *action {
                Action::Write { source: WriteSource::Zeros, .. } | Action::Flush { must_mark: true, .. } => {}
                Action::Write { id, position, length, source } => {
                    self.submitted.push(Submitted { id, stage: LogStage::Write, at });
                    if source == WriteSource::LogBuffer {
                        let spans = &mut self.spans;
                        let waited = |from, count| spans.push(LogStage::BatchWait, from, at, count);
                        self.unsubmitted.take(position.plus(length as u64), waited);
                    }
                }
                Action::Flush { id, .. } => self.submitted.push(Submitted { id, stage: LogStage::Flush, at }),
                _ => {}
            }
        }
    }

    /// A write or flush is complete.
    pub(super) fn completed(&mut self, id: u64) {
        if let Some(place) = self.submitted.iter().position(|submitted| submitted.id == id) {
            let Submitted { stage, at, .. } = self.submitted.swap_remove(place);
            if stage == LogStage::Flush {
                self.flush.add(self.now.since(at), self.now);
            }
            self.spans.push(stage, at, self.now, 1);
        }
    }

    /// How long flushes take at the moment; or how long one has been under way, if that is longer already. Zero when there
    /// was none for a while: one slow flush long ago says nothing of the disk.
    pub(super) fn flush_time(&self) -> Duration {
        let flushes = self.submitted.iter().filter(|submitted| submitted.stage == LogStage::Flush);
        let under_way = flushes.map(|submitted| self.now.since(submitted.at)).max();
        under_way.unwrap_or_default().max(self.flush.present(self.now).unwrap_or_default())
    }

    /// The log is committed up to `position`.
    pub(super) fn committed(&mut self, position: LogPosition) {
        let (spans, now) = (&mut self.spans, self.now);
        self.uncommitted.take(position, |from, count| spans.push(LogStage::Commit, from, now, count));
    }

    /// A follower has made everything before `position` durable; `sent` is what its link was given.
    pub(super) fn acknowledged(&mut self, node: NodeId, sent: &mut Marks, position: LogPosition) {
        let (spans, now) = (&mut self.spans, self.now);
        sent.take(position, |from, count| spans.push_replication(node, from, now, count));
    }

    /// Leadership begins or ends: what was appended before is nobody's any more.
    pub(super) fn forget_appends(&mut self) {
        self.unsubmitted.clear();
        self.uncommitted.clear();
    }

    /// Hands over what was measured.
    pub(super) fn report(&mut self, stages: &Stages) {
        stages.record_spans(&mut self.spans);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BufferToken;

    fn taken(marks: &mut Marks, to: u64) -> Vec<(u64, u64)> {
        let mut taken = Vec::new();
        marks.take(LogPosition(to), |at, count| taken.push((at.0, count)));
        taken
    }

    #[test]
    fn marks_count_when_all_of_them_has_arrived() {
        let mut marks = Marks::default();
        for (end, at) in [(10, 1), (20, 1), (30, 2), (40, 3)] {
            marks.push(LogPosition(end), Ticks(at));
        }
        assert_eq!(taken(&mut marks, 19), []);
        assert_eq!(taken(&mut marks, 39), [(1, 2), (2, 1)]);
        assert_eq!(taken(&mut marks, 39), []);
        assert_eq!(taken(&mut marks, 40), [(3, 1)]);
    }

    #[test]
    fn a_long_turn_makes_several_marks() {
        let mut marks = Marks::default();
        (1..=2 * APPENDS_PER_MARK + 1).for_each(|end| marks.push(LogPosition(end), Ticks(1)));
        assert_eq!(taken(&mut marks, APPENDS_PER_MARK), [(1, APPENDS_PER_MARK)]);
        assert_eq!(taken(&mut marks, u64::MAX), [(1, APPENDS_PER_MARK), (1, 1)]);
    }

    #[test]
    fn marks_are_bounded_and_lose_no_count() {
        let mut marks = Marks::default();
        let count = 3 * MARKS_MAX as u64;
        (1..=count).for_each(|n| marks.push(LogPosition(n), Ticks(n)));
        assert_eq!(marks.0.len(), MARKS_MAX);
        assert_eq!(taken(&mut marks, count - 1).len(), MARKS_MAX - 1);
        assert_eq!(taken(&mut marks, count), [(MARKS_MAX as u64, count - MARKS_MAX as u64 + 1)]);
    }

    fn counts(stopwatch: &mut Stopwatch, stages: &Stages) -> Vec<u64> {
        stopwatch.report(stages);
        stages.snapshot().iter().map(|(_, spans)| spans.len()).collect()
    }

    fn write(id: u64, position: u64, length: usize, source: WriteSource) -> Action {
        Action::Write { id, position: LogPosition(position), length, source }
    }

    fn flush(id: u64, must_mark: bool) -> Action {
        Action::Flush { id, first_chunk: 0, last_chunk: 0, durable_before: LogPosition::ZERO, must_mark }
    }

    #[test]
    fn what_a_leader_lost_is_not_counted() {
        let (mut stopwatch, stages) = (Stopwatch::new(Ticks(1)), Stages::default());
        [10, 20, 30].into_iter().for_each(|end| stopwatch.appended(LogPosition(end)));
        stopwatch.submitted(&[write(1, 0, 20, WriteSource::LogBuffer)]);
        stopwatch.forget_appends();
        stopwatch.appended(LogPosition(20));
        stopwatch.submitted(&[write(2, 10, 20, WriteSource::LogBuffer)]);
        stopwatch.committed(LogPosition(30));
        // The write that was under way when leadership was lost is complete all the same.
        (1..=2).for_each(|id| stopwatch.completed(id));
        // Queue, batch wait, write, flush, commit, answer. The first three shared a mark that was not all submitted.
        assert_eq!(counts(&mut stopwatch, &stages), [0, 1, 2, 0, 1, 0]);
    }

    #[test]
    fn a_cut_is_not_counted_and_a_follower_has_writes_and_flushes_only() {
        let (mut stopwatch, stages) = (Stopwatch::new(Ticks(1)), Stages::default());
        let received = WriteSource::Received { token: BufferToken(1), offset: 0 };
        stopwatch.submitted(&[write(1, 0, 20, received), flush(2, false)]);
        stopwatch.submitted(&[write(3, 20, 20, WriteSource::Zeros), flush(4, true)]);
        stopwatch.set_now(Ticks(9_000));
        (1..=4).for_each(|id| stopwatch.completed(id));
        assert!(stopwatch.submitted.is_empty());
        assert_eq!(counts(&mut stopwatch, &stages), [0, 0, 1, 1, 0, 0]);
    }
}
