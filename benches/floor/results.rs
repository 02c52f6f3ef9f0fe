//! What a run found, for people and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::log_file::LogFile;
use crate::options::Options;
use crate::read_back::ReadFigures;

/// Processor time is told in these, a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a run found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    pub(crate) variant: String,
    pub(crate) in_flight: usize,
    pub(crate) size: usize,
    pub(crate) records_per_second: f64,
    pub(crate) megabytes_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Flushes of the leader.
    pub(crate) flushes_per_second: f64,
    pub(crate) flush_p50_us: f64,
    pub(crate) flush_p99_us: f64,
    /// From submission to completion; zero where a write is its own flush.
    pub(crate) write_p50_us: f64,
    pub(crate) write_mode: &'static str,
    pub(crate) flushes_in_flight: usize,
    /// Processor time of all three processes and of the kernel's workers for them.
    pub(crate) cpu_us_per_record: f64,
    /// Of the leader's ring, its part of the system calls.
    pub(crate) enters_per_second: f64,
    pub(crate) measured_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_back: Option<ReadFigures>,
}

/// Longer spans count as this one.
const SPAN_MAX_NANOS: u64 = 60_000_000_000;

/// For spans in nanoseconds. Bounded: a histogram that grows does not do so for `saturating_record`.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, SPAN_MAX_NANOS, 3).expect("three digits of up to a minute")
}

/// A quantile of nanoseconds, in microseconds.
pub(crate) fn micros(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

/// Processor time that a process has used so far. Zero where that cannot be told.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// The counts of a run.
pub(crate) struct Counts {
    pub(crate) measured: Duration,
    pub(crate) records: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) enters: u64,
}

impl Results {
    pub(crate) fn new(
        options: &Options,
        counts: &Counts,
        latency: &Histogram<u64>,
        log: &LogFile,
        read_back: Option<ReadFigures>,
    ) -> Results {
        let seconds = counts.measured.as_secs_f64();
        let size = options.size.expect("set for each run");
        let per_second = counts.records as f64 / seconds;
        Results {
            variant: options.variant().name(),
            in_flight: options.in_flight.expect("set for each run"),
            size,
            records_per_second: per_second,
            megabytes_per_second: per_second * size as f64 / 1e6,
            p50_us: micros(latency, 0.5),
            p99_us: micros(latency, 0.99),
            p999_us: micros(latency, 0.999),
            max_us: latency.max() as f64 / 1e3,
            flushes_per_second: log.flush_nanos.len() as f64 / seconds,
            flush_p50_us: micros(&log.flush_nanos, 0.5),
            flush_p99_us: micros(&log.flush_nanos, 0.99),
            write_p50_us: micros(&log.write_nanos, 0.5),
            write_mode: options.write_mode.name(),
            flushes_in_flight: options.flushes,
            cpu_us_per_record: counts.cpu_seconds * 1e6 / counts.records.max(1) as f64,
            enters_per_second: counts.enters as f64 / seconds,
            measured_seconds: seconds,
            read_back,
        }
    }

    /// One line, and one more for the reader.
    pub(crate) fn print(&self) {
        println!(
            "floor {} x {} B, {}: {:.0} records/s, {:.1} MB/s, p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us; \
             {:.0} flushes/s, flush p50 {:.0} us, write p50 {:.0} us, CPU {:.2} us a record",
            self.in_flight,
            self.size,
            self.variant,
            self.records_per_second,
            self.megabytes_per_second,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.max_us,
            self.flushes_per_second,
            self.flush_p50_us,
            self.write_p50_us,
            self.cpu_us_per_record,
        );
        if let Some(read) = &self.read_back {
            println!(
                "  read back: {:.1} MB/s, up to 64 KiB in p50 {:.1} us, p99 {:.1} us, {} major faults",
                read.megabytes_per_second, read.step_p50_us, read.step_p99_us, read.major_faults
            );
        }
    }
}
