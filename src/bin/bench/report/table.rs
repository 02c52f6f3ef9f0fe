//! The table for people that ends a run. Columns and words may change from version to version: programs read the JSON.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::{cpu_of_all, each, latency, megabytes_per_second, per_second, rate, thousands, three_digits, utc, work};
use crate::outcome::{NodeReport, Outcome};

/// Width at which the settings go on in the next line.
const LINE_CHARS: usize = 110;

/// Everything a reader wants at once: settings, rates and latencies, troubles if there were any, and where the time
/// went inside the nodes.
pub(crate) fn table(outcome: &Outcome) -> String {
    let mut text = settings(outcome);
    text.push('\n');
    text.push_str(&series(outcome));
    text.push_str(&troubles(outcome));
    if outcome.nodes_expected != 0 {
        text.push_str("\nwhere the time went\n");
        for node in &outcome.nodes {
            text.push_str(&node_line(node, outcome));
            text.push_str(&stages(node));
        }
        text.push_str(&all_nodes(outcome));
    }
    text
}

fn settings(outcome: &Outcome) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for (name, value) in &outcome.settings {
        let pair = format!("{name} {value}");
        if !line.is_empty() && line.chars().count() + 3 + pair.chars().count() > LINE_CHARS {
            let _ = writeln!(text, "{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push_str(" · ");
        }
        line.push_str(&pair);
    }
    if !line.is_empty() {
        let _ = writeln!(text, "{line}");
    }
    let seconds = outcome.measured.as_secs_f64();
    let _ = writeln!(text, "measured {seconds:.1} s from {}", utc(outcome.started_unix_seconds));
    text
}

fn series(outcome: &Outcome) -> String {
    let head = ["", "operations/s", "events/s", "MB/s", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for series in &outcome.series {
        let mut row = vec![
            series.name.to_string(),
            rate(per_second(series.operations, outcome.measured)),
            rate(per_second(series.events, outcome.measured)),
            three_digits(megabytes_per_second(series, outcome.measured)),
        ];
        row.extend(latencies(&series.latency, &[0.5, 0.9, 0.99, 0.999]));
        row.push(at_most(&series.latency));
        rows.push(row);
    }
    columns(&rows, "")
}

/// The latencies at these quantiles; a dash each when nothing was measured.
fn latencies(histogram: &Histogram<u64>, quantiles: &[f64]) -> Vec<String> {
    let one = |quantile: &f64| match histogram.is_empty() {
        true => "-".to_string(),
        false => latency(histogram.value_at_quantile(*quantile)),
    };
    quantiles.iter().map(one).collect()
}

fn at_most(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() { "-".to_string() } else { latency(histogram.max()) }
}

/// One line, or nothing when all went well.
fn troubles(outcome: &Outcome) -> String {
    let there: Vec<String> = super::troubles(&outcome.troubles)
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {}", thousands(*count)))
        .collect();
    if there.is_empty() { String::new() } else { format!("\ntroubles: {}\n", there.join(", ")) }
}

fn node_line(node: &NodeReport, outcome: &Outcome) -> String {
    let restarted = if node.restarted { ", RESTARTED: its figures begin there" } else { "" };
    let mut text = format!("\n{}, {}{restarted}: {}", node.endpoint, node.role, cpu(node.cpu.as_secs_f64(), outcome));
    let _ = write!(text, ", memory {:.0} MiB", node.resident_bytes as f64 / f64::from(1 << 20));
    if node.log_appends > 0 {
        let _ = write!(text, ", {} appends", thousands(node.log_appends));
    }
    for (name, count) in [("flushes", node.log_flushes), ("enters", node.log_enters)] {
        let _ = write!(text, ", {} {name}", thousands(count));
        if let Some(share) = each(count as f64, node.log_appends) {
            let _ = write!(text, " ({share:.4} an append)");
        }
    }
    text.push('\n');
    text
}

/// CPU seconds, and shared out over the run's operations.
fn cpu(seconds: f64, outcome: &Outcome) -> String {
    let (unit, count) = work(outcome);
    match each(seconds * 1e6, count) {
        Some(micros) => {
            let article = if unit == "operation" { "an" } else { "a" };
            format!("CPU {seconds:.2} s, {} µs {article} {unit}", three_digits(micros))
        }
        None => format!("CPU {seconds:.2} s"),
    }
}

fn stages(node: &NodeReport) -> String {
    let mut rows = vec![["stage", "count", "p50", "p99", "max", "mean"].map(String::from).to_vec()];
    for (name, histogram) in node.stages.iter().filter(|(_, histogram)| !histogram.is_empty()) {
        let mut row = vec![name.clone(), thousands(histogram.len())];
        row.extend(latencies(histogram, &[0.5, 0.99]));
        row.push(at_most(histogram));
        row.push(latency(histogram.mean().round() as u64));
        rows.push(row);
    }
    // A node that was never asked for anything, or a version that does not say.
    if rows.len() == 1 { String::new() } else { columns(&rows, "  ") }
}

fn all_nodes(outcome: &Outcome) -> String {
    let (seen, expected) = (outcome.nodes.len(), outcome.nodes_expected);
    match cpu_of_all(outcome) {
        Some(_) if expected < 2 => String::new(),
        Some(seconds) => format!("\nall {seen} nodes: {}\n", cpu(seconds.as_secs_f64(), outcome)),
        None => format!("\n{seen} of {expected} nodes said something; no sum, since one is missing or was restarted\n"),
    }
}

/// Rows under each other: the first column to the left, the others to the right.
fn columns(rows: &[Vec<String>], indent: &str) -> String {
    let wide = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(wide).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{indent}{:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
