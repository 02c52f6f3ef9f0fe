//! Latencies as `.hgrm`: the percentile output that the HdrHistogram plotters read. Values are microseconds.
//!
//! A file holds one series. The first goes to the file that was named; each further one beside it, its name before the
//! ending: `run.hgrm`, `run.read.hgrm`, `run.delivery.hgrm`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::micros;
use crate::outcome::Outcome;

/// Lines for each halving of what is left above, as in HdrHistogram's own output.
const TICKS_PER_HALVING: u32 = 5;

/// Writes a file for each series, the first to `file` (see the module).
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_hgrm(outcome: &Outcome, file: &Path) -> anyhow::Result<()> {
    for (index, series) in outcome.series.iter().enumerate() {
        let path = if index == 0 { file.to_path_buf() } else { beside(file, series.name) };
        fs::write(&path, percentiles(series.name, &series.latency))
            .with_context(|| format!("latencies of {} to {}", series.name, path.display()))?;
    }
    Ok(())
}

/// The file of a further series.
pub(super) fn beside(file: &Path, series: &str) -> PathBuf {
    let ending = file.extension().map_or_else(|| "hgrm".into(), |ending| ending.to_string_lossy());
    file.with_extension(format!("{series}.{ending}"))
}

/// The text of one file. The unit stands behind everything else: some readers want the head in the first line.
pub(super) fn percentiles(series: &str, histogram: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    // The iterator would report a zero that nobody measured.
    let points = (!histogram.is_empty()).then(|| histogram.iter_quantiles(TICKS_PER_HALVING));
    for point in points.into_iter().flatten() {
        total += point.count_since_last_iteration();
        let (value, quantile) = (micros(point.value_iterated_to()), point.quantile_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:2.12} {total:10}");
        // The last line has no fourth column: it would be a division by zero.
        let _ = if quantile < 1.0 { writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(text) };
    }
    let (mean, deviation, most) = match histogram.is_empty() {
        true => (0.0, 0.0, 0.0),
        false => (histogram.mean() / 1000.0, histogram.stdev() / 1000.0, micros(histogram.max())),
    };
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {most:12.3}, Total count    = {:12}]", histogram.len());
    let _ = writeln!(text, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), sub_buckets(histogram));
    let _ = writeln!(text, "# series {series}, values in microseconds");
    text
}

/// The library does not say; this is how it counts them: the power of two that tells `sigfig` digits apart.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}
