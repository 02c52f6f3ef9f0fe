//! What can the disk and the links of this machine do, at this moment? The figure that every figure of the server is
//! read against.
//!
//! The stripped pipeline: one process leads, two follow, built from the server's own parts (the ring's driver, the
//! mirrored log buffer, provided receive buffers, prepared chunk files, write and fdatasync), without protocol,
//! consensus and parsing. The leader keeps so many records outstanding (a closed loop) and sends their bytes as a stream;
//! a follower writes what it received from where it lies, flushes, and answers with eight bytes; a record is done when two
//! of the three have it flushed.
//!
//! Without arguments the canonical workloads run. With `--compare` ways of writing are compared in turn; that is what the
//! server's way was chosen by.

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context, Result};

#[path = "floor/follower.rs"]
mod follower;
#[path = "floor/leader.rs"]
mod leader;
#[path = "floor/log_file.rs"]
mod log_file;
#[path = "floor/options.rs"]
mod options;
#[path = "floor/read_back.rs"]
mod read_back;
#[path = "floor/results.rs"]
mod results;
#[path = "floor/tag.rs"]
mod tag;

use options::{Options, Variant, Workload};
use results::Results;

/// One leads, two follow.
const NODES: usize = 3;

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let options = Options::read()?;
    if let Some(leader) = options.follow {
        return follower::run(&options, leader);
    }
    let prepared = (0..NODES).try_for_each(|node| log_file::prepare(&options, node));
    let measured = prepared.and_then(|()| measure(&options));
    // Also after a failure: the files are large.
    let removed = remove(&options);
    let results = measured?;
    removed?;
    if let Some(path) = &options.json {
        let text = match &results[..] {
            [one] => serde_json::to_string_pretty(one)?,
            all => serde_json::to_string_pretty(all)?,
        };
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Removes what the bench has made: its nodes' folders, and the folder around them when nothing else lies there.
fn remove(options: &Options) -> Result<()> {
    for node in 0..NODES {
        let folder = options.node_folder(node);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    // Whatever keeps it, most likely files of somebody else: it stays.
    let _ = std::fs::remove_dir(&options.folder);
    Ok(())
}

/// All runs: variants take turns, so that a drift of the machine's speed meets all of them.
fn measure(options: &Options) -> Result<Vec<Results>> {
    let mut all = Vec::new();
    let variants = options.variants();
    let rounds = if options.compare.is_empty() { 1 } else { options.rounds };
    for workload in options.workloads() {
        let first = all.len();
        for _ in 0..rounds {
            for &variant in &variants {
                let results = leader::run(&options.of_run(workload, variant))?;
                results.print();
                all.push(results);
            }
        }
        if variants.len() > 1 {
            print_ratios(workload, &variants, &all[first..]);
        }
    }
    Ok(all)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Medians over the rounds, as ratios to the first variant.
fn print_ratios(workload: Workload, variants: &[Variant], results: &[Results]) {
    let Workload { in_flight, size } = workload;
    println!("\n{in_flight} x {size} B      rate   p50   p99   CPU   (ratios of medians to the first)");
    let of = |variant: &Variant, figure: fn(&Results) -> f64| {
        let name = variant.name();
        median(results.iter().filter(|run| run.variant == name).map(figure))
    };
    let figures: [fn(&Results) -> f64; 4] =
        [|run| run.records_per_second, |run| run.p50_us, |run| run.p99_us, |run| run.cpu_us_per_record];
    for variant in variants {
        let ratios = figures.map(|figure| format!("{:5.2}", of(variant, figure) / of(&variants[0], figure)));
        println!("{:<18}{}", variant.name(), ratios.join(" "));
    }
    println!();
}
