//! Reads back what was acknowledged: every stream must have at least the acknowledged events, up to the highest
//! acknowledged number. More may be there: a write whose answer was lost counts as not acknowledged.
//!
//! A node that is not asked as the leader may lag: what is missing there is looked for again for a while. Where each
//! write began a stream, a sample of them is read back, and the words say so.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::blocking::Client;
use crate::load::Acknowledged;
use crate::wire;
use crate::wire::PageAnswer;
use crate::worker::Plan;

/// After a run in which the leader was lost, the cluster has so long to have one again; and a follower to catch up.
const LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);
const READS_IN_FLIGHT: usize = 64;
/// Of the streams in which something is missing, so many are named.
const NAMED_MAX: usize = 5;

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    streams: usize,
    acknowledged: u64,
    found: u64,
    /// Streams in which something is missing, with what.
    missing: Vec<String>,
    /// Deliveries to subscribers that had to happen, and that did.
    deliveries: Option<(u64, u64)>,
    /// Not every stream was looked at.
    is_sample: bool,
}

impl Verified {
    pub(crate) fn is_good(&self) -> bool {
        self.missing.is_empty() && self.deliveries.is_none_or(|(wanted, delivered)| wanted <= delivered)
    }

    pub(crate) fn with_deliveries(self, wanted: u64, delivered: u64) -> Self {
        Self { deliveries: Some((wanted, delivered)), ..self }
    }

    pub(crate) fn sampled(self, is_sample: bool) -> Self {
        Self { is_sample, ..self }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "ok" } else { "FAILED" };
        let Self { streams, acknowledged, found, .. } = self;
        write!(out, "{word}: {acknowledged} events acknowledged, {found} found, in {streams} streams")?;
        if self.is_sample {
            write!(out, " (a sample of the streams that were written)")?;
        }
        if let Some((wanted, delivered)) = self.deliveries {
            write!(out, "; {wanted} deliveries due, {delivered} made")?;
        }
        if !self.missing.is_empty() {
            write!(out, "; something is missing in {} streams: ", self.missing.len())?;
            write!(out, "{}", self.missing[..self.missing.len().min(NAMED_MAX)].join(", "))?;
        }
        Ok(())
    }
}

/// Reads back everything; asks again as long as no node can answer, or something is missing at a node that may lag.
///
/// # Errors
/// When within the limit no node answers.
pub(crate) fn verify(plan: &Plan, acknowledged: Vec<Acknowledged>) -> anyhow::Result<Verified> {
    let wanted = by_stream(acknowledged);
    // A leader's answer is final: it has everything that it acknowledged.
    let may_lag = !asks_leader(plan);
    let start = Instant::now();
    loop {
        match read_back(plan, &wanted).map(|found| compare(&wanted, &found)) {
            Ok(verified) if verified.is_good() || !may_lag || start.elapsed() > LIMIT => return Ok(verified),
            Ok(_) => std::thread::sleep(PAUSE),
            Err(error) if start.elapsed() > LIMIT => {
                return Err(error.context(format!("nothing could be read back within {} s", LIMIT.as_secs())));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn asks_leader(plan: &Plan) -> bool {
    plan.load.writes.as_ref().is_some_and(|writes| writes.require_leader)
}

/// Several connections may have written a stream: their events add up.
fn by_stream(acknowledged: Vec<Acknowledged>) -> Vec<Acknowledged> {
    let mut streams: BTreeMap<Vec<u8>, (u64, i64)> = BTreeMap::new();
    for Acknowledged { stream, events, last } in acknowledged {
        let sum = streams.entry(stream).or_insert((0, -1));
        *sum = (sum.0 + events, sum.1.max(last));
    }
    streams.into_iter().map(|(stream, (events, last))| Acknowledged { stream, events, last }).collect()
}

/// The last event number of each stream, -1 where there is none.
fn read_back(plan: &Plan, wanted: &[Acknowledged]) -> anyhow::Result<Vec<i64>> {
    plan.directory.suspect();
    let address = plan.directory.address(0).context("no node is known")?;
    let mut client = Client::connect(address, &plan.user)?;
    let leader = asks_leader(plan);
    let mut found = vec![-1; wanted.len()];
    client.exchange(
        wanted.len(),
        READS_IN_FLIGHT,
        |number, correlation, out| {
            wire::read_stream(out, wire::READ_BACKWARD, correlation, &wanted[number].stream, -1, 1, leader);
        },
        |number, payload| {
            let answer = PageAnswer::of_stream(payload).map_err(|error| anyhow::anyhow!("{}", error.0))?;
            ensure!(answer.result <= 1, "a stream cannot be read, result {}", answer.result);
            found[number] = if answer.result == 0 { answer.last } else { -1 };
            Ok(())
        },
    )?;
    Ok(found)
}

fn compare(wanted: &[Acknowledged], found: &[i64]) -> Verified {
    let mut verified = Verified { streams: wanted.len(), ..Verified::default() };
    for (wanted, last) in wanted.iter().zip(found) {
        let count = u64::try_from(last + 1).unwrap_or(0);
        verified.acknowledged += wanted.events;
        verified.found += count;
        if *last < wanted.last || count < wanted.events {
            let stream = String::from_utf8_lossy(&wanted.stream);
            let Acknowledged { events, last: number, .. } = wanted;
            verified
                .missing
                .push(format!("{stream} ({events} events to number {number} acknowledged, last number {last})"));
        }
    }
    verified
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(stream: &str, events: u64, last: i64) -> Acknowledged {
        Acknowledged { stream: stream.into(), events, last }
    }

    #[test]
    fn connections_of_one_stream_add_up() {
        let all = vec![acknowledged("a", 2, 5), acknowledged("b", 1, 0), acknowledged("a", 4, 3)];
        assert_eq!(by_stream(all), [acknowledged("a", 6, 5), acknowledged("b", 1, 0)]);
    }

    #[test]
    fn more_than_acknowledged_is_good_and_less_is_not() {
        let wanted = [acknowledged("a", 3, 2)];
        let check = |last| compare(&wanted, &[last]);
        assert!(check(2).is_good() && check(7).is_good());
        for last in [1, -1] {
            let verified = check(last);
            assert!(!verified.is_good());
            assert!(verified.to_string().starts_with("FAILED: 3 events acknowledged"), "{verified}");
            assert!(verified.to_string().contains("last number"), "{verified}");
        }
        // Fewer events than acknowledged, although the highest number is there.
        assert!(!compare(&[acknowledged("a", 5, 2)], &[3]).is_good());
    }

    #[test]
    fn a_sample_is_called_one() {
        let verified = compare(&[acknowledged("a", 1, 0)], &[0]);
        assert!(!verified.to_string().contains("sample"), "{verified}");
        assert!(
            verified.sampled(true).to_string().ends_with("in 1 streams (a sample of the streams that were written)")
        );
    }

    #[test]
    fn subscribers_must_have_got_all() {
        let good = compare(&[], &[]).with_deliveries(10, 11);
        assert!(good.is_good() && good.to_string().contains("11 made"), "{good}");
        assert!(!compare(&[], &[]).with_deliveries(10, 9).is_good());
    }
}
