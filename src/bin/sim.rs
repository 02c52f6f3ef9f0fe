//! Runs the simulator for as many seeds as wanted: `sim --seeds 2000`, or one again: `sim --seed 17 --trace`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, Command, value_parser};
use ringstore::sim::{Options, run};

/// Between lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_name("N").value_parser(value_parser!(u64))
    };
    Command::new("sim")
        .about("The real engine, storage and index in a virtual world, with faults and checkers")
        .arg(number("seed", "Run this seed only"))
        .arg(number("seeds", "How many seeds to run").default_value("100"))
        .arg(number("from", "The first of them").default_value("0"))
        .arg(number("nodes", "Voting members; drawn from the seed unless given"))
        .arg(number("seconds", "Virtual seconds during which anything may fail").default_value("10"))
        .arg(Arg::new("trace").long("trace").help("Print every change of state").action(ArgAction::SetTrue))
}

fn main() -> ExitCode {
    let arguments = command().get_matches();
    let number = |name: &str| arguments.get_one::<u64>(name).copied();
    let options = Options {
        nodes: number("nodes").map(|nodes| nodes as usize),
        faulty: Duration::from_secs(number("seconds").unwrap_or_default()),
        trace: arguments.get_flag("trace"),
    };
    let (from, count) = (number("from").unwrap_or_default(), number("seeds").unwrap_or_default());
    let one = number("seed");
    let seeds = one.map_or(from..from + count, |seed| seed..seed + 1);
    // The failure says it all.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
    let (mut passed, mut failed, mut simulated) = (0_u64, Vec::new(), Duration::ZERO);
    let mut shown = Instant::now();
    for seed in seeds {
        match run(seed, &options) {
            Ok(report) => {
                passed += 1;
                simulated += report.simulated;
                report.counts.into_iter().for_each(|(what, count)| *sums.entry(what).or_default() += count);
                if one.is_some() {
                    println!("trace hash {:016x}", report.trace_hash);
                }
            }
            Err(failure) => {
                println!("{failure}\n");
                failed.push(seed);
            }
        }
        if shown.elapsed() > PROGRESS_EVERY {
            shown = Instant::now();
            println!("seed {seed}: {passed} passed, {} failed", failed.len());
        }
    }
    println!("{:<20} {:>14.1}", "simulated hours", simulated.as_secs_f64() / 3600.0);
    sums.iter().for_each(|(what, count)| println!("{what:<20} {count:>14}"));
    if !failed.is_empty() {
        println!("failed seeds: {failed:?}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
