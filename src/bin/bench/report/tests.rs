//! Made-up outcomes, shown in every way.

use std::fs;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::{hgrm, json, plot, table, write_hgrm};
use crate::outcome::{NodeReport, Outcome, Second, Series, Troubles};

fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    for value in values {
        histogram.record(value).unwrap();
    }
    histogram
}

/// Two kinds of operation, two nodes, a little trouble. Small enough to be checked by hand.
fn outcome() -> Outcome {
    let second = |at, operations, errors| Second {
        at: Duration::from_secs(at),
        operations,
        events: operations * 10,
        errors,
        p50: Duration::from_micros(300),
        p99: Duration::from_micros(1500),
        max: Duration::from_millis(2),
    };
    let write = histogram((1..=1000).map(|each| each * 1024));
    Outcome {
        settings: vec![("kind", "mixed".into()), ("servers", "a<b & c".into()), ("rate", "-".into())],
        started_unix_seconds: 1_735_689_599,
        measured: Duration::from_secs(2),
        series: vec![
            Series { name: "write", operations: 1000, events: 10_000, payload_bytes: 2_560_000, latency: write },
            Series { name: "read", operations: 3, events: 1500, payload_bytes: 0, latency: histogram([2_048_000; 3]) },
            Series { name: "delivery", operations: 0, events: 0, payload_bytes: 0, latency: histogram([]) },
        ],
        timeline: vec![second(1, 600, 0), second(2, 400, 2)],
        troubles: Troubles { reconnects: 1, too_busy: 1200, ..Troubles::default() },
        nodes: vec![node("127.0.0.1:2113", "leader", 6), node("127.0.0.2:2113", "follower", 4)],
        nodes_expected: 2,
    }
}

fn node(endpoint: &str, role: &str, cpu_ms: u64) -> NodeReport {
    let leads = role == "leader";
    NodeReport {
        endpoint: endpoint.into(),
        role: role.into(),
        restarted: false,
        cpu: Duration::from_millis(cpu_ms),
        resident_bytes: 64 << 20,
        log_enters: 50,
        log_flushes: 25,
        log_appends: if leads { 1000 } else { 0 },
        stages: vec![("queue".into(), histogram([])), ("flush".into(), histogram([102_400, 204_800, 307_200]))],
    }
}

/// Nothing happened at all: no series had an answer, no node was asked, no second was whole.
fn nothing() -> Outcome {
    let series = Series { name: "write", operations: 0, events: 0, payload_bytes: 0, latency: histogram([]) };
    Outcome {
        measured: Duration::ZERO,
        series: vec![series],
        timeline: Vec::new(),
        troubles: Troubles::default(),
        nodes: Vec::new(),
        nodes_expected: 0,
        ..outcome()
    }
}

#[test]
fn the_table_is_as_people_know_it() {
    let wanted = "\
kind mixed · servers a<b & c · rate -
measured 2.0 s from 2024-12-31 23:59:59 UTC

          operations/s  events/s   MB/s      p50      p90      p99    p99.9      max
write              500     5,000   1.28   512 µs   922 µs  1.01 ms  1.02 ms  1.02 ms
read              1.50       750  0.000  2.05 ms  2.05 ms  2.05 ms  2.05 ms  2.05 ms
delivery         0.000     0.000  0.000        -        -        -        -        -

troubles: reconnects 1, too busy 1,200

where the time went

127.0.0.1:2113, leader: CPU 0.01 s, 5.98 µs an operation, memory 64 MiB, 1,000 appends, 25 flushes (0.0250 an append), \
50 enters (0.0500 an append)
  stage  count     p50     p99     max    mean
  flush      3  205 µs  307 µs  307 µs  205 µs

127.0.0.2:2113, follower: CPU 0.00 s, 3.99 µs an operation, memory 64 MiB, 25 flushes, \
50 enters
  stage  count     p50     p99     max    mean
  flush      3  205 µs  307 µs  307 µs  205 µs

all 2 nodes: CPU 0.01 s, 9.97 µs an operation
";
    let found = table(&outcome());
    assert_eq!(found, wanted, "\n{found}");
}

#[test]
fn a_run_without_anything_is_shown_too() {
    let text = table(&nothing());
    assert!(text.contains("write         0.000"), "{text}");
    assert!(!text.contains("troubles") && !text.contains("where the time went"), "{text}");
    let document: Value = serde_json::from_str(&json(&nothing())).unwrap();
    assert_eq!(document["series"][0]["latency"]["p50Us"], Value::Null);
    assert_eq!(document["serverCpuUsPerOperation"], Value::Null);
    well_formed(&plot(&nothing()));
    assert!(plot(&nothing()).contains("no operation was answered"));
    assert!(hgrm::percentiles("write", &histogram([])).contains("Total count    =            0"));
}

#[test]
fn the_json_holds_everything() {
    let text = json(&outcome());
    let document: Value = serde_json::from_str(&text).unwrap();
    let near = |pointer: &str, wanted: f64| {
        let found = document.pointer(pointer).and_then(Value::as_f64);
        // The histogram keeps three digits.
        assert!(found.is_some_and(|found| (found - wanted).abs() <= wanted * 0.001), "{pointer}: {found:?}, {wanted}");
    };
    near("/measuredSeconds", 2.0);
    near("/startedUnixSeconds", 1_735_689_599.0);
    near("/series/0/operationsPerSecond", 500.0);
    near("/series/0/eventsPerSecond", 5000.0);
    near("/series/0/megabytesPerSecond", 1.28);
    near("/series/0/latency/count", 1000.0);
    near("/series/0/latency/p50Us", 512.0);
    near("/series/0/latency/p99Us", 1013.76);
    near("/series/0/latency/p999Us", 1022.976);
    near("/series/0/latency/maxUs", 1024.0);
    near("/series/0/latency/meanUs", 512.5);
    near("/timeline/1/atSeconds", 2.0);
    near("/timeline/1/events", 4000.0);
    near("/timeline/1/errors", 2.0);
    near("/timeline/1/p99Us", 1500.0);
    near("/troubles/tooBusy", 1200.0);
    // The write's 1,000 and the read's 3.
    near("/nodes/0/cpuUsPerOperation", 5.982);
    near("/nodes/0/entersPerAppend", 0.05);
    near("/nodes/0/stages/flush/p50Us", 204.8);
    near("/nodes/0/stages/queue/count", 0.0);
    near("/serverCpuSeconds", 0.01);
    near("/serverCpuUsPerOperation", 9.970);
    near("/nodesExpected", 2.0);
    near("/nodesSeen", 2.0);
    assert_eq!(document["settings"]["servers"], "a<b & c");
    assert_eq!(document["series"][2]["name"], "delivery");
    assert_eq!(document["serverCpuOperation"], "operation");
    assert_eq!(document["nodes"][1]["restarted"], false);
    assert_eq!(document["nodes"][1]["entersPerAppend"], Value::Null);
    let curve = document["series"][0]["latency"]["percentiles"].as_array().unwrap();
    assert!(curve.len() > 10);
    assert_eq!(curve[curve.len() - 1][0], 100.0);
    assert!(curve.windows(2).all(|pair| pair[0][1].as_f64() <= pair[1][1].as_f64()));
}

#[test]
fn a_part_of_the_nodes_is_not_taken_for_all() {
    let mut missing = outcome();
    missing.nodes_expected = 3;
    let mut restarted = outcome();
    restarted.nodes[1].restarted = true;
    for (outcome, seen) in [(missing, "2 of 3 nodes"), (restarted, "2 of 2 nodes")] {
        let document: Value = serde_json::from_str(&json(&outcome)).unwrap();
        assert_eq!(document["serverCpuSeconds"], Value::Null);
        assert_eq!(document["serverCpuUsPerOperation"], Value::Null);
        assert_eq!(document["nodesExpected"], outcome.nodes_expected);
        let text = table(&outcome);
        assert!(text.contains(seen) && !text.contains("all "), "{text}");
    }
}

#[test]
fn one_kind_of_operation_is_called_by_its_name() {
    let mut outcome = outcome();
    outcome.series.retain(|series| series.name != "read");
    let text = table(&outcome);
    assert!(text.contains("all 2 nodes: CPU 0.01 s, 10.0 µs a write"), "deliveries do not count: {text}");
}

#[test]
fn the_hgrm_is_what_the_plotters_read() {
    let text = hgrm::percentiles("write", &histogram((1..=1000).map(|each| each * 1024)));
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("       Value     Percentile TotalCount 1/(1-Percentile)"));
    assert_eq!(lines.next(), Some(""));
    assert_eq!(lines.next(), Some("       1.024 0.000000000000          1           1.00"));
    let rows: Vec<Vec<f64>> = text
        .lines()
        .skip(2)
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
        .collect();
    let median = rows.iter().find(|row| row[1] == 0.5).unwrap();
    assert!((median[0] - 512.0).abs() < 0.6 && median[2] == 500.0 && median[3] == 2.0, "{median:?}");
    let last = rows.last().unwrap();
    assert!(last.len() == 3 && last[1] == 1.0 && last[2] == 1000.0, "{last:?}");
    assert!(rows[..rows.len() - 1].iter().all(|row| row.len() == 4));
    assert!(text.contains("#[Mean    =      512.681, StdDeviation   =      295.688]"), "{text}");
    assert!(text.contains("#[Max     =     1024.511, Total count    =         1000]"), "{text}");
    assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    assert!(text.ends_with("# series write, values in microseconds\n"), "{text}");
}

#[test]
fn each_series_has_its_hgrm_file() {
    let folder = std::env::temp_dir().join(format!("ringstore-bench-hgrm-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    write_hgrm(&outcome(), &folder.join("run.hgrm")).unwrap();
    for (file, series) in [("run.hgrm", "write"), ("run.read.hgrm", "read"), ("run.delivery.hgrm", "delivery")] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(&format!("# series {series},")), "{text}");
    }
    assert_eq!(hgrm::beside("a/run".as_ref(), "read").to_str(), Some("a/run.read.hgrm"));
    let error = write_hgrm(&outcome(), &folder.join("missing/run.hgrm")).unwrap_err();
    assert!(format!("{error:#}").contains("missing/run.hgrm"), "{error:#}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_drawing_shows_everything() {
    let drawing = plot(&outcome());
    well_formed(&drawing);
    for wanted in [
        "ringstore-bench, write, read, delivery: 500 operations/s",
        "kind mixed · servers a&lt;b &amp; c · rate - · 2.0 s from 2024-12-31 23:59:59 UTC",
        "write: p50 512 µs, p99 1.01 ms, p99.9 1.02 ms, max 1.02 ms",
        "read: p50 2.05 ms",
        ">99.9 %<",
        ">latency<",
        ">operations/s<",
        ">events/s<",
        "errors, 2 in all",
    ] {
        assert!(drawing.contains(wanted), "no {wanted} in\n{drawing}");
    }
    // Two curves (nobody delivered anything), the area under the operations, the operations, the events.
    assert_eq!(drawing.matches("<path ").count(), 5);
    // One second with errors, and the legend's.
    assert_eq!(drawing.matches("<circle ").count(), 2);
    assert!(!drawing.contains("NaN") && !drawing.contains("inf"), "{drawing}");
}

/// Elements are closed in the order in which they were opened, attributes are quoted, nothing is left unescaped.
fn well_formed(xml: &str) {
    let mut open = Vec::new();
    let mut rest = xml.trim_end();
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        assert!(
            !text.contains('>') && text.matches('&').count() == text.matches(';').count() || open == ["svg", "style"]
        );
        let end = tag.find('>').expect("a closed tag");
        let inner = &tag[1..end];
        assert!(inner.matches('"').count().is_multiple_of(2) && !inner.contains('<'), "{inner}");
        let name = inner.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if inner.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !inner.ends_with('/') {
            open.push(name);
        }
        rest = &tag[end + 1..];
        assert!(!open.is_empty() || rest.is_empty(), "something follows the document: {rest}");
    }
    assert!(open.is_empty(), "left open: {open:?}");
}
