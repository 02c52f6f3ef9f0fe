//! A run as JSON, for programs and for comparing runs. Names are stable and carry their unit (`p50Us`); a figure that
//! has no meaning in this run (CPU for each operation where none succeeded, CPU of all nodes where one did not say) is
//! null.
//!
//! One line for each member of the document, and for each element of the long lists: small, and still read with `less`.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{cpu_of_all, each, megabytes_per_second, micros, per_second, work};
use crate::outcome::{NodeReport, Outcome, Second, Series};

/// The whole outcome: settings, series with their percentiles, timeline, troubles, nodes with their stages.
pub(crate) fn json(outcome: &Outcome) -> String {
    let (unit, operations) = work(outcome);
    let cpu = cpu_of_all(outcome).map(|cpu| cpu.as_secs_f64());
    let settings: Map<String, Value> =
        outcome.settings.iter().map(|(name, value)| ((*name).to_string(), json!(value))).collect();
    let troubles = &outcome.troubles;
    let members = [
        ("settings", json!(settings)),
        ("startedUnixSeconds", json!(outcome.started_unix_seconds)),
        ("measuredSeconds", json!(outcome.measured.as_secs_f64())),
        (
            "troubles",
            json!({
                "reconnects": troubles.reconnects,
                "retries": troubles.retries,
                "tooBusy": troubles.too_busy,
                "notHandled": troubles.not_handled,
                "refused": troubles.refused,
                "unanswered": troubles.unanswered,
            }),
        ),
        ("series", outcome.series.iter().map(|series| one_series(series, outcome)).collect()),
        ("timeline", outcome.timeline.iter().map(second).collect()),
        ("nodes", outcome.nodes.iter().map(|node| one_node(node, operations)).collect()),
        ("nodesExpected", json!(outcome.nodes_expected)),
        ("nodesSeen", json!(outcome.nodes.len())),
        ("serverCpuSeconds", json!(cpu)),
        ("serverCpuUsPerOperation", json!(cpu.and_then(|seconds| each(seconds * 1e6, operations)))),
        ("serverCpuOperation", json!(unit)),
    ];
    lines(&members)
}

fn lines(members: &[(&str, Value)]) -> String {
    let mut text = String::from("{");
    for (index, (name, value)) in members.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\n  \"{name}\": ");
        match value {
            Value::Array(elements) if !elements.is_empty() => {
                let each: Vec<String> = elements.iter().map(|element| format!("    {element}")).collect();
                let _ = write!(text, "[\n{}\n  ]", each.join(",\n"));
            }
            value => {
                let _ = write!(text, "{value}");
            }
        }
    }
    text.push_str("\n}\n");
    text
}

fn one_series(series: &Series, outcome: &Outcome) -> Value {
    let mut latency = distribution(&series.latency);
    latency.insert("p9999Us".into(), quantile(&series.latency, 0.9999));
    latency.insert("percentiles".into(), percentiles(&series.latency));
    json!({
        "name": series.name,
        "operations": series.operations,
        "events": series.events,
        "payloadBytes": series.payload_bytes,
        "operationsPerSecond": per_second(series.operations, outcome.measured),
        "eventsPerSecond": per_second(series.events, outcome.measured),
        "megabytesPerSecond": megabytes_per_second(series, outcome.measured),
        "latency": latency,
    })
}

/// The figures that every distribution has, null where nothing was measured.
fn distribution(histogram: &Histogram<u64>) -> Map<String, Value> {
    let mut members = Map::new();
    let some = !histogram.is_empty();
    members.insert("count".into(), json!(histogram.len()));
    members.insert("meanUs".into(), json!(some.then(|| histogram.mean() / 1000.0)));
    members.insert("maxUs".into(), json!(some.then(|| micros(histogram.max()))));
    for (name, at) in [("p50Us", 0.5), ("p90Us", 0.9), ("p99Us", 0.99), ("p999Us", 0.999)] {
        members.insert(name.into(), quantile(histogram, at));
    }
    members
}

fn quantile(histogram: &Histogram<u64>, at: f64) -> Value {
    json!((!histogram.is_empty()).then(|| micros(histogram.value_at_quantile(at))))
}

/// The whole curve: `[percentile, microseconds]`, two points for each halving of what is left above.
fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return json!([]);
    }
    let points = histogram.iter_quantiles(2);
    points.map(|point| json!([point.quantile_iterated_to() * 100.0, micros(point.value_iterated_to())])).collect()
}

fn second(second: &Second) -> Value {
    json!({
        "atSeconds": second.at.as_secs_f64(),
        "operations": second.operations,
        "events": second.events,
        "errors": second.errors,
        "p50Us": second.p50.as_nanos() as f64 / 1000.0,
        "p99Us": second.p99.as_nanos() as f64 / 1000.0,
        "maxUs": second.max.as_nanos() as f64 / 1000.0,
    })
}

fn one_node(node: &NodeReport, operations: u64) -> Value {
    let stages: Map<String, Value> =
        node.stages.iter().map(|(name, histogram)| (name.clone(), Value::Object(distribution(histogram)))).collect();
    json!({
        "endpoint": node.endpoint,
        "role": node.role,
        "restarted": node.restarted,
        "cpuSeconds": node.cpu.as_secs_f64(),
        "cpuUsPerOperation": each(node.cpu.as_secs_f64() * 1e6, operations),
        "residentBytes": node.resident_bytes,
        "logAppends": node.log_appends,
        "logFlushes": node.log_flushes,
        "logEnters": node.log_enters,
        "flushesPerAppend": each(node.log_flushes as f64, node.log_appends),
        "entersPerAppend": each(node.log_enters as f64, node.log_appends),
        "stages": stages,
    })
}
