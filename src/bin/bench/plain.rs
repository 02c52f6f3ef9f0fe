//! A plain table of what a run found.

use std::fmt::Write;

use crate::outcome::Outcome;

pub(crate) fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    let seconds = outcome.measured.as_secs_f64();
    for series in &outcome.series {
        let rate = |count: u64| count as f64 / seconds;
        let at = |quantile| series.latency.value_at_quantile(quantile) as f64 / 1e6;
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{:<8} {:>10.0} op/s {:>11.0} events/s {:>8.1} MB/s  p50 {:.3} p90 {:.3} p99 {:.3} p99.9 {:.3} max {:.3} ms",
            series.name,
            rate(series.operations),
            rate(series.events),
            rate(series.payload_bytes) / 1e6,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            series.latency.max() as f64 / 1e6
        );
    }
    let _ = writeln!(text, "{:?}", outcome.troubles);
    text
}
