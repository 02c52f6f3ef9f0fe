//! Some seeds of the simulator, and that a seed is a run: the same one twice gives the same trace.
//!
//! A failure prints the seed's last lines and how to replay it. Endless seeds: `cargo sim --seeds 100000`.

use std::time::Duration;

use ringstore::sim::{Coverage, Options, run};

/// Together below half a minute on one core.
const SEEDS: u64 = 500;

fn check(seeds: std::ops::Range<u64>, options: &Options) {
    let failures: Vec<String> =
        seeds.filter_map(|seed| run(seed, options).err()).map(|failure| failure.to_string()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn promises_are_kept_whatever_fails() {
    check(0..SEEDS, &Options::default());
}

#[test]
fn a_seed_is_a_run() {
    let options = Options { faulty: Duration::from_secs(5), ..Options::default() };
    let mut hashes = Vec::new();
    for seed in 1_000..1_010 {
        let [first, second] = [run(seed, &options), run(seed, &options)].map(|run| run.map(|report| report.trace_hash));
        let first = first.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second.unwrap_or_else(|failure| panic!("{failure}")), "seed {seed}");
        hashes.push(first);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 10, "different seeds are different runs");
}

/// The runs do what they are for: elections, crashes, cuts, sends from files, acknowledged writes.
#[test]
fn runs_go_through_what_they_should() {
    let mut coverage = Coverage::default();
    for seed in 2_000..2_100 {
        let report = run(seed, &Options::default()).unwrap_or_else(|failure| panic!("{failure}"));
        coverage.add(&report.coverage);
    }
    for what in [
        "acknowledged writes",
        "reads (leader)",
        "reads (any node)",
        "elections",
        "crashes (power)",
        "flushes that failed",
        "disks replaced",
        "cuts",
        "cuts of an epoch",
        "sends from files",
        "chunks",
        "clock-jump",
        "flap",
        "messages twice",
        "refused: hears a leader",
        "refused: log is newer",
    ] {
        assert!(coverage.count(what) >= 20, "{what}: {coverage}");
    }
}
