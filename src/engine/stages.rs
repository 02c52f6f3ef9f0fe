//! Where the time of a write goes: one histogram for each stage, in nanoseconds, since start.
//!
//! The thread that owns a stage gathers its spans and hands them over once a turn, under a lock that nobody holds for
//! long. While somebody reads, the log thread keeps its spans for a later turn; when they are half as many as it may keep it
//! waits. Leaves the measuring to `stopwatch` and the edges.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::limits::FOLLOWERS_MAX;
use crate::types::{NodeId, Ticks};

/// Below this a span is not told from zero.
const SPAN_LEAST_NANOS: u64 = 100;

/// A longer span counts as this.
const SPAN_MAX_NANOS: u64 = 60_000_000_000;

/// Significant decimal digits of what is kept.
const DIGITS: u8 = 2;

/// Spans that wait to be handed over; one more is lost. A turn makes about one for each request that it takes.
const SPANS_MAX: usize = 4096;

/// From this many on the log thread waits for the lock.
const SPANS_PATIENT: usize = SPANS_MAX / 2;

/// Links whose acknowledgements wait to be handed over.
const ACKNOWLEDGED_MAX: usize = 1024;

/// A stage of the log thread, followers aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogStage {
    /// From the hand-over by the edge until the log thread takes an append.
    Queue,
    /// In the log buffer, until the write that contains it is submitted.
    BatchWait,
    /// A write to a chunk file, submitted until complete.
    Write,
    /// A flush of chunk files, submitted until complete.
    Flush,
    /// In the log buffer, until committed.
    Commit,
}

/// Names of the [`LogStage`]s, in their order.
const LOG_STAGES: [&str; 5] = ["queue", "batchWait", "write", "flush", "commit"];

/// The histograms of all stages. Filled by the log thread and the edges, read for `/stats`.
#[derive(Debug)]
pub struct Stages {
    log: Mutex<LogStages>,
    /// From the commit until the answer is in the connection's send buffer. The edges' own.
    answers: Mutex<Histogram<u64>>,
}

#[derive(Debug)]
struct LogStages {
    stages: [Histogram<u64>; LOG_STAGES.len()],
    /// For each follower: from the hand-over of bytes to its link until it acknowledges them as durable.
    replication: BTreeMap<NodeId, Histogram<u64>>,
}

impl Default for Stages {
    fn default() -> Stages {
        let log = LogStages { stages: std::array::from_fn(|_| histogram()), replication: BTreeMap::new() };
        Stages { log: Mutex::new(log), answers: Mutex::new(histogram()) }
    }
}

impl Stages {
    /// A copy of every stage with its name; the figures are nanoseconds.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(String, Histogram<u64>)> {
        let (stages, replication) = {
            let log = self.log.lock();
            (log.stages.clone(), log.replication.clone())
        };
        let named = LOG_STAGES.iter().map(|name| (*name).to_owned()).zip(stages);
        let replication = replication.into_iter().map(|(node, spans)| (format!("replication/{node}"), spans));
        let answers = self.answers.lock().clone();
        named.chain(replication).chain([("answer".to_owned(), answers)]).collect()
    }

    /// Takes over what an edge has answered; all of it counts as answered `now`.
    pub fn record_answers(&self, now: Ticks, answered: &mut AnswerTimes) {
        if answered.runs.is_empty() {
            return;
        }
        let mut answers = self.answers.lock();
        for (committed_at, count) in answered.runs.drain(..) {
            answers.saturating_record_n(nanos_between(committed_at, now), count);
        }
    }

    /// Takes over what the log thread has measured. While somebody reads, it keeps that for the next turn.
    pub(super) fn record_spans(&self, spans: &mut Spans) {
        if spans.stages.is_empty() && spans.replication.is_empty() {
            return;
        }
        let is_patient = spans.stages.len() < SPANS_PATIENT && spans.replication.len() < ACKNOWLEDGED_MAX / 2;
        let Some(mut log) = self.log.try_lock().or_else(|| (!is_patient).then(|| self.log.lock())) else { return };
        for span in spans.stages.drain(..) {
            log.stages[span.stage as usize].saturating_record_n(span.nanos, span.count);
        }
        for (node, nanos, count) in spans.replication.drain(..) {
            if log.replication.len() < FOLLOWERS_MAX || log.replication.contains_key(&node) {
                log.replication.entry(node).or_insert_with(histogram).saturating_record_n(nanos, count);
            }
        }
    }
}

/// When writes were committed that an edge has answered since it last looked at the clock. Lives on the edge.
#[derive(Debug, Default)]
pub struct AnswerTimes {
    /// Bounded by the requests that wait for the edge's answers.
    runs: Vec<(Ticks, u64)>,
}

impl AnswerTimes {
    /// Notes an answer. Writes that were committed together take no more room than one.
    pub fn note(&mut self, committed_at: Ticks) {
        match self.runs.last_mut() {
            Some((at, count)) if *at == committed_at => *count += 1,
            _ => self.runs.push((committed_at, 1)),
        }
    }

    /// True when nothing is noted, so that the clock need not be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[derive(Debug)]
struct Span {
    stage: LogStage,
    nanos: u64,
    count: u64,
}

/// What the log thread has measured and not handed over yet. Bounded: what a shell does not take is lost.
#[derive(Debug, Default)]
pub(super) struct Spans {
    stages: Vec<Span>,
    replication: Vec<(NodeId, u64, u64)>,
}

impl Spans {
    pub(super) fn push(&mut self, stage: LogStage, from: Ticks, to: Ticks, count: u64) {
        let nanos = nanos_between(from, to);
        let is_full = self.stages.len() >= SPANS_MAX;
        match self.stages.last_mut() {
            Some(last) if last.stage == stage && last.nanos == nanos => last.count += count,
            _ if is_full => {}
            _ => self.stages.push(Span { stage, nanos, count }),
        }
    }

    pub(super) fn push_replication(&mut self, node: NodeId, from: Ticks, to: Ticks, count: u64) {
        if self.replication.len() < ACKNOWLEDGED_MAX {
            self.replication.push((node, nanos_between(from, to), count));
        }
    }
}

/// Clocks of different processors agree well enough, but a span is never negative.
fn nanos_between(from: Ticks, to: Ticks) -> u64 {
    to.0.saturating_sub(from.0)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(SPAN_LEAST_NANOS, SPAN_MAX_NANOS, DIGITS).expect("good bounds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Guid;

    fn counts(stages: &Stages) -> Vec<(String, u64)> {
        stages.snapshot().into_iter().map(|(name, spans)| (name, spans.len())).collect()
    }

    #[test]
    fn every_stage_is_shown_and_counts_what_it_was_given() {
        let stages = Stages::default();
        let (mut spans, mut answers) = (Spans::default(), AnswerTimes::default());
        spans.push(LogStage::Queue, Ticks(1_000), Ticks(3_000), 2);
        spans.push(LogStage::Queue, Ticks(5_000), Ticks(7_000), 3);
        spans.push(LogStage::Commit, Ticks(9_000), Ticks(8_000), 1);
        spans.push(LogStage::Flush, Ticks(0), Ticks(u64::MAX), 1);
        spans.push_replication(NodeId(Guid([7; 16])), Ticks(0), Ticks(10_000), 1);
        assert_eq!(spans.stages.len(), 3, "what took equally long is one entry");
        stages.record_spans(&mut spans);
        stages.record_spans(&mut spans);
        [4_000, 4_000, 6_000].into_iter().for_each(|at| answers.note(Ticks(at)));
        stages.record_answers(Ticks(7_000), &mut answers);
        assert!(answers.is_empty());
        let replication = format!("replication/{}", NodeId(Guid([7; 16])));
        let expected = [("queue", 5), ("batchWait", 0), ("write", 0), ("flush", 1), ("commit", 1), (&*replication, 1)];
        let expected = expected.into_iter().chain([("answer", 3)]).map(|(name, count)| (name.to_owned(), count));
        assert_eq!(counts(&stages), expected.collect::<Vec<_>>());
        let snapshot = stages.snapshot();
        assert!(snapshot[0].1.equivalent(snapshot[0].1.max(), 2_000), "{}", snapshot[0].1.max());
        assert!(snapshot[3].1.equivalent(snapshot[3].1.max(), SPAN_MAX_NANOS), "a long span counts as the longest");
        assert_eq!(snapshot[4].1.count_between(0, SPAN_LEAST_NANOS - 1), 1, "never negative");
        assert_eq!(snapshot[6].1.count_at(3_000), 2);
    }

    #[test]
    fn the_log_thread_waits_for_a_reader_only_when_much_has_gathered() {
        let (stages, mut spans) = (Stages::default(), Spans::default());
        spans.push(LogStage::Write, Ticks(0), Ticks(1_000), 1);
        let reader = stages.log.lock();
        stages.record_spans(&mut spans);
        assert_eq!(spans.stages.len(), 1, "kept for the next turn");
        drop(reader);
        (0..2 * SPANS_MAX as u64).for_each(|nanos| spans.push(LogStage::Queue, Ticks(0), Ticks(nanos), 1));
        (0..2 * SPANS_MAX as u64).for_each(|_| spans.push_replication(NodeId::default(), Ticks(0), Ticks(1), 1));
        assert_eq!((spans.stages.len(), spans.replication.len()), (SPANS_MAX, ACKNOWLEDGED_MAX));
        stages.record_spans(&mut spans);
        assert_eq!(counts(&stages)[0].1, SPANS_MAX as u64 - 1);
        assert_eq!((spans.stages.len(), spans.replication.len()), (0, 0));
    }

    #[test]
    fn followers_are_bounded() {
        let (stages, mut spans) = (Stages::default(), Spans::default());
        for n in 0..=FOLLOWERS_MAX as u8 {
            spans.push_replication(NodeId(Guid([n; 16])), Ticks(0), Ticks(1), 1);
        }
        spans.push_replication(NodeId(Guid([0; 16])), Ticks(0), Ticks(1), 1);
        stages.record_spans(&mut spans);
        let log = stages.log.lock();
        assert_eq!(log.replication.len(), FOLLOWERS_MAX);
        assert_eq!(log.replication[&NodeId(Guid([0; 16]))].len(), 2);
    }
}
