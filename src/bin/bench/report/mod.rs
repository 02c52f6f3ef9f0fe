//! Shows what a run found: as a table for people, as JSON for programs, as `.hgrm` for the HdrHistogram tools, as a
//! drawing; and asks nodes what they say of themselves ([`stats`]).
//!
//! The drawing of values is pure: an [`Outcome`] in, text out, the same for the same. Only [`write_hgrm`] writes (the
//! files it names), and only [`stats::snapshot`] speaks to a node.
//!
//! Latencies come in nanoseconds and go out in microseconds (JSON, `.hgrm`) or with their unit (table, drawing);
//! a megabyte has 1,000,000 bytes everywhere.

mod hgrm;
mod json;
mod plot;
pub(crate) mod stats;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use hgrm::write_hgrm;
pub(crate) use json::json;
pub(crate) use plot::plot;
pub(crate) use table::table;

use crate::outcome::{Outcome, Series, Troubles};

/// Nanoseconds as microseconds.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// `count` in each second of `span`; nothing happens in no time.
fn per_second(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { count as f64 / span.as_secs_f64() }
}

/// `part` for each one of `whole`, or nothing when there is none.
fn each(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / whole as f64)
}

fn megabytes_per_second(series: &Series, span: Duration) -> f64 {
    per_second(series.payload_bytes, span) / 1e6
}

/// What the servers' CPU time is shared out over: all operations, and what one of them is. A delivery is not one of its
/// own: it follows from a write.
fn work(outcome: &Outcome) -> (&'static str, u64) {
    let requests: Vec<&Series> = outcome.series.iter().filter(|series| series.name != "delivery").collect();
    let unit = if let [only] = requests[..] { only.name } else { "operation" };
    (unit, requests.iter().map(|series| series.operations).sum())
}

/// CPU time of all nodes; none when one did not say, or was restarted: that would be a part taken for the whole.
fn cpu_of_all(outcome: &Outcome) -> Option<Duration> {
    let nodes = &outcome.nodes;
    let is_whole = !nodes.is_empty() && nodes.len() == outcome.nodes_expected;
    (is_whole && nodes.iter().all(|node| !node.restarted)).then(|| nodes.iter().map(|node| node.cpu).sum())
}

/// The troubles with the names they are shown by.
fn troubles(troubles: &Troubles) -> [(&'static str, u64); 6] {
    [
        ("reconnects", troubles.reconnects),
        ("retries", troubles.retries),
        ("too busy", troubles.too_busy),
        ("not handled", troubles.not_handled),
        ("refused", troubles.refused),
        ("unanswered", troubles.unanswered),
    ]
}

/// A whole number with commas: 1234567 is `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate: whole from 100 on, with decimals below.
fn rate(number: f64) -> String {
    if number >= 99.5 { thousands(number.round() as u64) } else { three_digits(number) }
}

/// Three digits that count, whatever the size: 0.123, 1.23, 12.3, 123, 1234.
fn three_digits(number: f64) -> String {
    // The limits are those of rounding: 9.996 is 10.0, not 10.00.
    let decimals = match number {
        n if n < 0.9995 => 3,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// A latency with the unit in which it reads best.
fn latency(nanos: u64) -> String {
    let number = nanos as f64;
    match nanos {
        0..999_500 => format!("{} µs", three_digits(number / 1e3)),
        999_500..999_500_000 => format!("{} ms", three_digits(number / 1e6)),
        _ => format!("{} s", three_digits(number / 1e9)),
    }
}

/// A moment of Unix time as people read it, in UTC.
fn utc(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Gregorian calendar from days since 1970-01-01, counted in years that begin in March, so that the leap day is the
    // last of its year (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}
