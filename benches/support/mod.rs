//! What the benches of single stages share: a loop that takes the time of one operation.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// How long one sample runs, so that the clock's own cost does not count.
const SAMPLE_SPAN: Duration = Duration::from_millis(2);

/// Samples of one measurement.
const SAMPLES: usize = 200;

/// Times operations: many in a sample, many samples; the median is what it costs, the 99th percentile what the machine
/// adds now and then.
pub(crate) struct Bench {
    small: bool,
}

impl Bench {
    /// Reads the command line: `--small` is for CI.
    pub(crate) fn from_arguments() -> Bench {
        Bench { small: std::env::args().any(|argument| argument == "--small") }
    }

    /// Runs `operation`, which does `count` things (bytes: of them all), again and again, and prints one line.
    pub(crate) fn run(&self, name: &str, count: u64, bytes: u64, mut operation: impl FnMut()) {
        let (samples, span) = if self.small { (3, Duration::from_micros(50)) } else { (SAMPLES, SAMPLE_SPAN) };
        let calls = calls_for(span, &mut operation);
        let mut picos = Histogram::<u64>::new(3).expect("three digits");
        for _ in 0..samples {
            let started = Instant::now();
            (0..calls).for_each(|_| operation());
            let total = started.elapsed().as_nanos() as u64 * 1000;
            picos.record(total / (calls * count)).expect("a histogram that grows");
        }
        let nanos = |quantile| picos.value_at_quantile(quantile) as f64 / 1e3;
        let median = nanos(0.5);
        let rate =
            if bytes > 0 { format!(", {:.2} GB/s", bytes as f64 / count as f64 / median) } else { String::new() };
        println!("{name}: {median:.1} ns, p99 {:.1} ns{rate}", nanos(0.99));
    }
}

/// How many calls fill `span`; runs some, which also warms up.
fn calls_for(span: Duration, operation: &mut impl FnMut()) -> u64 {
    let mut calls = 1;
    loop {
        let started = Instant::now();
        (0..calls).for_each(|_| operation());
        if started.elapsed() >= span {
            return calls;
        }
        calls *= 2;
    }
}
