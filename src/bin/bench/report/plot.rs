//! A run as a drawing: latency by percentile on top, throughput over time below. One SVG file without references, that
//! every browser shows.
//!
//! The percentiles are drawn as HdrHistogram does, over the logarithm of 1/(1-p), so that each further nine has the
//! same width; latency is logarithmic too, so that one drawing shows a median of 0.3 ms and a stall of 2 s.

use std::fmt::{Display, Write as _};
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{latency, per_second, rate, thousands, utc};
use crate::outcome::{Outcome, Second, Series};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 916.0;
const TITLE_LINE: f64 = 17.0;
const LEGEND_LINE: f64 = 18.0;
const LATENCY_HEIGHT: f64 = 330.0;
const THROUGHPUT_HEIGHT: f64 = 220.0;
/// Characters of the settings in one line.
const SETTINGS_CHARS: usize = 125;
/// Colours that colour-blind eyes tell apart (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const TROUBLE: &str = "#c1121f";
const INK: &str = "#1f2933";
const FAINT: &str = "#616e7c";
const GRID: &str = "#e4e7eb";

/// The drawing as the text of an SVG file.
pub(crate) fn plot(outcome: &Outcome) -> String {
    let settings = settings_lines(outcome);
    // Room for the legend between the panel's heading and the panel: inside, a curve may run anywhere.
    let top = 82.0 + TITLE_LINE * settings.len() as f64 + LEGEND_LINE * measured(outcome).len() as f64;
    let below = top + LATENCY_HEIGHT + 104.0;
    let mut drawing = Drawing::new(below + THROUGHPUT_HEIGHT + 58.0);
    heading(&mut drawing, outcome, &settings);
    latency_panel(&mut drawing, outcome, top);
    throughput_panel(&mut drawing, outcome, below);
    drawing.end()
}

fn heading(drawing: &mut Drawing, outcome: &Outcome, settings: &[String]) {
    let first = outcome.series.first();
    let kinds: Vec<&str> = outcome.series.iter().map(|series| series.name).collect();
    let found = first.map_or_else(String::new, |series| {
        format!(": {} operations/s", rate(per_second(series.operations, outcome.measured)))
    });
    drawing.text(LEFT, 34.0, "start", "title", &format!("ringstore-bench, {}{found}", kinds.join(", ")));
    for (index, line) in settings.iter().enumerate() {
        drawing.text(LEFT, 57.0 + TITLE_LINE * index as f64, "start", "faint", line);
    }
}

fn settings_lines(outcome: &Outcome) -> Vec<String> {
    let moment = format!("{:.1} s from {}", outcome.measured.as_secs_f64(), utc(outcome.started_unix_seconds));
    let pairs = outcome.settings.iter().map(|(name, value)| format!("{name} {value}"));
    let mut lines = vec![String::new()];
    for pair in pairs.chain([moment]) {
        let fits = lines.last().is_none_or(|line| line.chars().count() + 3 + pair.chars().count() <= SETTINGS_CHARS);
        if !fits {
            lines.push(String::new());
        }
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() {
            line.push_str(" · ");
        }
        line.push_str(&pair);
    }
    lines
}

// --- Latency by percentile -------------------------------------------------------------------------------------------

fn latency_panel(drawing: &mut Drawing, outcome: &Outcome, top: f64) {
    let panel = Panel { top, bottom: top + LATENCY_HEIGHT };
    let measured = measured(outcome);
    let above = top - 10.0 - LEGEND_LINE * measured.len() as f64;
    drawing.text(LEFT, above, "start", "head", "latency by percentile");
    if measured.is_empty() {
        return panel.nothing(drawing, "no operation was answered in the measured span");
    }
    let count = measured.iter().map(|(series, _)| series.latency.len()).max().unwrap_or(1);
    // At least to 99 %, and to the whole nine above what so many values can tell.
    let decades = (count as f64).log10().ceil().clamp(2.0, 9.0);
    let across = Scale { values: 0.0..decades, pixels: LEFT..RIGHT };
    let least = measured.iter().map(|(series, _)| lowest(&series.latency)).min().unwrap_or(1);
    let most = measured.iter().map(|(series, _)| series.latency.max()).max().unwrap_or(1);
    let ticks = one_two_five(least, most);
    let span = (ticks[0] as f64).log10()..(ticks[ticks.len() - 1] as f64).log10();
    let up = Scale { values: span, pixels: panel.bottom..panel.top };

    latency_axes(drawing, &panel, (&across, decades), (&up, &ticks));
    for (index, (series, colour)) in measured.iter().enumerate() {
        let curve = curve(&series.latency);
        let points: Vec<(f64, f64)> = curve.iter().map(|(x, y)| (across.at(*x), up.at(y.log10()))).collect();
        drawing.path(&points, &format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\""));
        let at = above + LEGEND_LINE * (index + 1) as f64;
        drawing.line((LEFT, at - 4.0), (LEFT + 26.0, at - 4.0), colour, 2.6);
        drawing.text(LEFT + 34.0, at, "start", "legend", &legend(series));
    }
}

/// The series that have a curve, each with its colour.
fn measured(outcome: &Outcome) -> Vec<(&Series, &'static str)> {
    let coloured = outcome.series.iter().zip(COLOURS.into_iter().cycle());
    coloured.filter(|(series, _)| !series.latency.is_empty()).collect()
}

fn legend(series: &Series) -> String {
    let at = |quantile| latency(series.latency.value_at_quantile(quantile));
    format!(
        "{}: p50 {}, p99 {}, p99.9 {}, max {}",
        series.name,
        at(0.5),
        at(0.99),
        at(0.999),
        latency(series.latency.max())
    )
}

fn latency_axes(drawing: &mut Drawing, panel: &Panel, across: (&Scale, f64), up: (&Scale, &[u64])) {
    let (across, decades) = across;
    for decade in 0..=decades as usize {
        let x = across.at(decade as f64);
        drawing.line((x, panel.top), (x, panel.bottom), GRID, 1.0);
        drawing.text(x, panel.bottom + 18.0, "middle", "tick", &format!("{} %", nines(decade)));
    }
    let half = across.at(2_f64.log10());
    drawing.line((half, panel.top), (half, panel.bottom), GRID, 1.0);
    if half - across.at(0.0) > 34.0 {
        drawing.text(half, panel.bottom + 18.0, "middle", "tick", "50 %");
    }
    let (up, ticks) = up;
    for tick in thinned(ticks) {
        let y = up.at((*tick as f64).log10());
        drawing.line((LEFT, y), (RIGHT, y), GRID, 1.0);
        drawing.text(LEFT - 8.0, y + 4.0, "end", "tick", &tick_latency(*tick));
    }
    panel.frame(drawing);
    drawing.text((LEFT + RIGHT) / 2.0, panel.bottom + 40.0, "middle", "faint", "percentile");
    drawing.upright(22.0, (panel.top + panel.bottom) / 2.0, "latency");
}

/// 0, 90, 99, 99.9 … percent.
fn nines(decade: usize) -> String {
    match decade {
        0 => "0".into(),
        1 => "90".into(),
        2 => "99".into(),
        more => format!("99.{}", "9".repeat(more - 2)),
    }
}

/// The curve as log10(1/(1-p)) and nanoseconds. It ends with the largest value, at the place of one in all of them.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = (histogram.len() as f64).log10();
    let mut points = Vec::new();
    for point in histogram.iter_quantiles(10) {
        let x = -(1.0 - point.quantile_iterated_to()).log10();
        if x < end {
            points.push((x.max(0.0), point.value_iterated_to().max(1) as f64));
        }
    }
    points.push((end, histogram.max().max(1) as f64));
    points
}

fn lowest(histogram: &Histogram<u64>) -> u64 {
    // A drawing from nothing upwards has no logarithm; less than 100 ns is nobody's latency.
    histogram.min().max(100)
}

/// 1, 2 and 5 in each power of ten, from the last at or below `least` to the first at or above `most`.
fn one_two_five(least: u64, most: u64) -> Vec<u64> {
    let all: Vec<u64> =
        (0..19).flat_map(|power| [1, 2, 5].map(|digit: u64| digit.saturating_mul(10_u64.pow(power)))).collect();
    let first = all.iter().rposition(|tick| *tick <= least).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= most).unwrap_or(all.len() - 1).max(first + 1);
    all[first..=last].to_vec()
}

/// So many that the labels do not touch: all, or the powers of ten.
fn thinned(ticks: &[u64]) -> impl Iterator<Item = &u64> {
    let all = ticks.len() <= 14;
    ticks.iter().filter(move |tick| all || 10_u64.pow(tick.ilog10()) == **tick)
}

fn tick_latency(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} µs", nanos / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ => format!("{} s", thousands(nanos / 1_000_000_000)),
    }
}

// --- Throughput over time --------------------------------------------------------------------------------------------

/// One line of the lower panel: its name, and a rate for each second.
struct Rates {
    name: &'static str,
    per_second: Vec<f64>,
    most: f64,
}

fn throughput_panel(drawing: &mut Drawing, outcome: &Outcome, top: f64) {
    let panel = Panel { top, bottom: top + THROUGHPUT_HEIGHT };
    drawing.text(LEFT, top - 12.0, "start", "head", "throughput over time");
    let Some(last) = outcome.timeline.last() else {
        return panel.nothing(drawing, "the measured span had no whole second");
    };
    let seconds = last.at.as_secs_f64();
    let across = Scale { values: 0.0..seconds, pixels: LEFT..RIGHT };
    let step = nice_step(seconds, 12.0).max(1.0);
    for index in 0..=(seconds / step) as usize {
        let x = across.at(index as f64 * step);
        drawing.line((x, panel.top), (x, panel.bottom), GRID, 1.0);
        drawing.text(x, panel.bottom + 18.0, "middle", "tick", &format!("{}", index as f64 * step));
    }
    let operations = rates("operations/s", outcome, |second| second.operations);
    let events = rates("events/s", outcome, |second| second.events);
    // Its own axis, to the right, and only where it is not the same line.
    let events = Some(events).filter(|events| events.per_second != operations.per_second);
    rates_line(drawing, &panel, &across, outcome, &operations, Side::Left);
    if let Some(events) = &events {
        rates_line(drawing, &panel, &across, outcome, events, Side::Right);
    }
    errors(drawing, &panel, &across, outcome);
    panel.frame(drawing);
    drawing.text((LEFT + RIGHT) / 2.0, panel.bottom + 40.0, "middle", "faint", "seconds of the measured span");
}

fn rates(name: &'static str, outcome: &Outcome, what: fn(&Second) -> u64) -> Rates {
    let mut from = Duration::ZERO;
    let per_second: Vec<f64> = outcome
        .timeline
        .iter()
        .map(|second| {
            let length = second.at.saturating_sub(from);
            from = second.at;
            per_second(what(second), length)
        })
        .collect();
    let most = per_second.iter().copied().fold(0.0, f64::max);
    Rates { name, per_second, most }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}

/// A step for each second, with its axis and its entry in the legend.
fn rates_line(drawing: &mut Drawing, panel: &Panel, across: &Scale, outcome: &Outcome, rates: &Rates, side: Side) {
    let step = nice_step(rates.most.max(1.0), 5.0);
    // Room above the highest step; the same number of lines on both sides would be luck, so only the left has a grid.
    let up = Scale { values: 0.0..(rates.most.max(1.0) / step + 0.25).ceil() * step, pixels: panel.bottom..panel.top };
    let (edge, out, anchor, colour) = match side {
        Side::Left => (LEFT, -8.0, "end", COLOURS[0]),
        Side::Right => (RIGHT, 8.0, "start", COLOURS[1]),
    };
    for index in 0..=(up.values.end / step).round() as usize {
        let y = up.at(index as f64 * step);
        if side == Side::Left {
            drawing.line((LEFT, y), (RIGHT, y), GRID, 1.0);
        }
        drawing.text(edge + out, y + 4.0, anchor, "tick", &short(index as f64 * step));
    }
    let mut points = Vec::new();
    let mut from = 0.0;
    for (second, rate) in outcome.timeline.iter().zip(&rates.per_second) {
        let to = second.at.as_secs_f64();
        points.extend([(across.at(from), up.at(*rate)), (across.at(to), up.at(*rate))]);
        from = to;
    }
    if side == Side::Left {
        let mut area = points.clone();
        area.extend([(across.at(from), panel.bottom), (across.at(0.0), panel.bottom)]);
        drawing.path(&area, &format!("fill=\"{colour}\" fill-opacity=\"0.10\" stroke=\"none\""));
    }
    let dashes = if side == Side::Left { "" } else { " stroke-dasharray=\"6 4\"" };
    drawing.path(&points, &format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}"));
    let at = if side == Side::Left { LEFT + 200.0 } else { LEFT + 340.0 };
    drawing.line((at, panel.top - 16.0), (at + 26.0, panel.top - 16.0), colour, 2.6);
    drawing.text(at + 34.0, panel.top - 12.0, "start", "legend", rates.name);
    let middle = (panel.top + panel.bottom) / 2.0;
    drawing.upright(if side == Side::Left { 22.0 } else { WIDTH - 14.0 }, middle, rates.name);
}

/// A mark below each second that had errors.
fn errors(drawing: &mut Drawing, panel: &Panel, across: &Scale, outcome: &Outcome) {
    let mut from = 0.0;
    let mut sum = 0;
    for second in &outcome.timeline {
        let to = second.at.as_secs_f64();
        if second.errors > 0 {
            drawing.dot(across.at((from + to) / 2.0), panel.bottom - 7.0, TROUBLE);
            sum += second.errors;
        }
        from = to;
    }
    if sum > 0 {
        drawing.dot(LEFT + 490.0, panel.top - 16.0, TROUBLE);
        drawing.text(LEFT + 502.0, panel.top - 12.0, "start", "legend", &format!("errors, {} in all", thousands(sum)));
    }
}

/// A step of 1, 2 or 5 times a power of ten, so that about `count` of them reach `most`.
fn nice_step(most: f64, count: f64) -> f64 {
    let rough = most / count;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power)
}

/// A rate as an axis says it: 250, 40k, 1.5M.
fn short(number: f64) -> String {
    let trimmed = |number: f64, unit: &str| {
        let text = format!("{number:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match number {
        n if n >= 1e6 => trimmed(n / 1e6, "M"),
        n if n >= 1e4 => trimmed(n / 1e3, "k"),
        n => trimmed(n, ""),
    }
}

// --- Drawing ---------------------------------------------------------------------------------------------------------

/// From values to pixels, in proportion.
struct Scale {
    values: Range<f64>,
    /// The end may lie before the start: upwards is towards smaller numbers.
    pixels: Range<f64>,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let part = (value - self.values.start) / (self.values.end - self.values.start);
        self.pixels.start + part.clamp(0.0, 1.0) * (self.pixels.end - self.pixels.start)
    }
}

struct Panel {
    top: f64,
    bottom: f64,
}

impl Panel {
    fn frame(&self, drawing: &mut Drawing) {
        for edge in [(LEFT, self.top), (RIGHT, self.bottom)] {
            drawing.line((LEFT, edge.1), (RIGHT, edge.1), "#9aa5b1", 1.0);
            drawing.line((edge.0, self.top), (edge.0, self.bottom), "#9aa5b1", 1.0);
        }
    }

    fn nothing(&self, drawing: &mut Drawing, why: &str) {
        self.frame(drawing);
        drawing.text((LEFT + RIGHT) / 2.0, (self.top + self.bottom) / 2.0, "middle", "faint", why);
    }
}

/// The text of the SVG as it grows.
struct Drawing {
    text: String,
}

impl Drawing {
    fn new(height: f64) -> Drawing {
        let mut drawing = Drawing { text: String::new() };
        drawing.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif\">"
        ));
        drawing.put(format_args!(
            "<style>text{{font-size:12px;fill:{INK}}} .title{{font-size:20px;font-weight:600}} \
             .head{{font-size:14px;font-weight:600}} .faint,.tick{{fill:{FAINT}}} .tick{{font-size:11px}}</style>"
        ));
        drawing.put(format_args!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"));
        drawing
    }

    fn end(mut self) -> String {
        self.put("</svg>");
        self.text
    }

    fn put(&mut self, element: impl Display) {
        let _ = writeln!(self.text, "{element}");
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        self.put(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    fn path(&mut self, points: &[(f64, f64)], style: &str) {
        let mut steps = String::new();
        for (index, (x, y)) in points.iter().enumerate() {
            let _ = write!(steps, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
        }
        self.put(format_args!("<path d=\"{steps}\" stroke-linejoin=\"round\" {style}/>"));
    }

    fn dot(&mut self, x: f64, y: f64, colour: &str) {
        self.put(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, what: &str) {
        let what = escaped(what);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{what}</text>"
        ));
    }

    /// Text that reads upwards, beside an axis.
    fn upright(&mut self, x: f64, y: f64, what: &str) {
        let what = escaped(what);
        self.put(format_args!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\" class=\"faint\">{what}</text>"
        ));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers_that_enclose_what_is_drawn() {
        assert_eq!(one_two_five(130_000, 900_000), [100_000, 200_000, 500_000, 1_000_000]);
        assert_eq!(one_two_five(100, 100), [100, 200]);
        assert_eq!(one_two_five(2_000, 2_000_000).len(), 10);
        assert_eq!(thinned(&one_two_five(100, 10_000_000)).count(), 6);
        assert_eq!([nice_step(47_000.0, 5.0), nice_step(60.0, 12.0), nice_step(1.0, 5.0)], [10_000.0, 5.0, 0.2]);
        assert_eq!(
            [short(0.0), short(0.2), short(4_500.0), short(40_000.0), short(1_500_000.0)],
            ["0", "0.2", "4500", "40k", "1.5M"]
        );
        assert_eq!([nines(0), nines(1), nines(2), nines(4)], ["0", "90", "99", "99.99"]);
    }

    #[test]
    fn the_curve_rises_and_ends_with_the_largest_value() {
        let mut histogram = Histogram::new(3).unwrap();
        for value in 1..=1000 {
            histogram.record(value * 1000).unwrap();
        }
        let curve = curve(&histogram);
        assert!(curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
        let (x, y) = curve[curve.len() - 1];
        assert!((x - 3.0).abs() < 1e-9 && y >= 1_000_000.0, "{x} {y}");
        let median = curve.iter().find(|(x, _)| *x >= 2_f64.log10() - 1e-9).unwrap();
        assert!((median.1 / 500_000.0 - 1.0).abs() < 0.01, "{median:?}");
    }
}
