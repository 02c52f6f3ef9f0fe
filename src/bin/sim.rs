//! Runs the simulator for as many seeds as wanted: `sim --seeds 2000`, one again: `sim --seed 17 --trace`, or looks for a
//! smaller run that fails the same way: `sim --seed 17 --shrink`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ringstore::sim::{Coverage, FAULTS, Failure, Fault, Options, Report, run, shrink};

/// Between lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Failures printed in full; of more only the seed is kept.
const FAILURES_SHOWN: usize = 10;

fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_name("N").value_parser(value_parser!(u64))
    };
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let seconds = Arg::new("seconds").long("seconds").value_name("S").value_parser(value_parser!(f64));
    let kinds = |name: &'static str, help: &'static str| {
        let names = clap::builder::PossibleValuesParser::new(FAULTS.iter().map(|(_, name)| *name));
        Arg::new(name).long(name).value_name("KIND,...").value_delimiter(',').value_parser(names).help(help)
    };
    let skip = Arg::new("skip").long("skip").value_name("N,...").value_delimiter(',');
    Command::new("sim")
        .about("The real engine, storage and index in a virtual world, with faults and checkers")
        .arg(number("seed", "Run this seed only"))
        .arg(number("seeds", "How many seeds to run").default_value("100"))
        .arg(number("from", "The first of them").default_value("0"))
        .arg(number("jobs", "How many run at a time; all processors unless given"))
        .arg(number("nodes", "Voting members; drawn from the seed unless given"))
        .arg(number("clients", "Clients; drawn from the seed unless given"))
        .arg(seconds.help("Virtual seconds during which anything may fail").default_value("10"))
        .arg(kinds("with", "Kinds of faults to have for sure, and often"))
        .arg(kinds("without", "Kinds of faults to leave out"))
        .arg(skip.help("Numbers of faults to leave out").value_parser(value_parser!(u32)))
        .arg(flag("trace", "Print every change of state"))
        .arg(flag("shrink", "With --seed: find a smaller run that fails the same way"))
}

fn options(arguments: &ArgMatches) -> Options {
    let number = |name: &str| arguments.get_one::<u64>(name).map(|number| *number as usize);
    let seconds = arguments.get_one::<f64>("seconds").copied().unwrap_or_default();
    let kinds = |name: &str| {
        let names = arguments.get_many::<String>(name).into_iter().flatten();
        names.filter_map(|name| Fault::parse(name)).collect()
    };
    Options {
        nodes: number("nodes"),
        clients: number("clients"),
        faulty: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        without: kinds("without"),
        skip: arguments.get_many::<u32>("skip").into_iter().flatten().copied().collect(),
        with: kinds("with"),
        trace: arguments.get_flag("trace"),
    }
}

fn main() -> ExitCode {
    let arguments = command().get_matches();
    let number = |name: &str| arguments.get_one::<u64>(name).copied();
    let options = options(&arguments);
    // The failure says it all.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    match number("seed") {
        Some(seed) if arguments.get_flag("shrink") => make_smaller(seed, &options),
        Some(seed) => run_many(seed, 1, 1, &options),
        None => {
            let jobs = std::thread::available_parallelism().map_or(1, |jobs| jobs.get() as u64);
            let jobs = number("jobs").unwrap_or(jobs).max(1);
            run_many(number("from").unwrap_or_default(), number("seeds").unwrap_or_default(), jobs, &options)
        }
    }
}

fn make_smaller(seed: u64, options: &Options) -> ExitCode {
    // Panics on the way are part of the search.
    std::panic::set_hook(Box::new(|_| {}));
    let Some((_, failure)) = shrink(seed, options, &mut |step| println!("{step}")) else {
        println!("seed {seed} does not fail with these options");
        return ExitCode::SUCCESS;
    };
    println!("\nwhat is left of what goes wrong:");
    for fault in &failure.faults {
        println!(
            "{:>12.6}  n{:<3} {:<14} number {}",
            fault.at.as_secs_f64(),
            fault.node,
            fault.fault.name(),
            fault.number
        );
    }
    println!("\n{failure}");
    ExitCode::FAILURE
}

/// What all jobs together have seen.
#[derive(Debug)]
struct Sums {
    passed: u64,
    failed: Vec<u64>,
    simulated: Duration,
    coverage: Coverage,
    began: Instant,
    shown: Instant,
}

impl Sums {
    fn take(&mut self, outcome: Result<Report, Box<Failure>>) {
        match outcome {
            Ok(report) => {
                self.passed += 1;
                self.simulated += report.simulated;
                self.coverage.add(&report.coverage);
            }
            Err(failure) => {
                if self.failed.len() < FAILURES_SHOWN {
                    println!("{failure}\n");
                }
                self.failed.push(failure.seed);
            }
        }
        if self.shown.elapsed() > PROGRESS_EVERY {
            self.shown = Instant::now();
            println!("{}", self.progress());
        }
    }

    fn progress(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let rate = (self.passed + self.failed.len() as u64) as f64 / seconds;
        let hours = self.simulated.as_secs_f64() / 3600.0;
        let (passed, failed) = (self.passed, self.failed.len());
        format!("{passed} passed, {failed} failed, {hours:.1} hours simulated, {rate:.1} seeds/s, {seconds:.0} s")
    }
}

fn run_many(from: u64, count: u64, jobs: u64, options: &Options) -> ExitCode {
    let (began, shown) = (Instant::now(), Instant::now());
    let (failed, coverage) = (Vec::new(), Coverage::default());
    let sums = Mutex::new(Sums { passed: 0, failed, simulated: Duration::ZERO, coverage, began, shown });
    let next = AtomicU64::new(from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from.saturating_add(count) {
                return;
            }
            let outcome = run(seed, options);
            if let (1, Ok(report)) = (count, &outcome) {
                println!("trace hash {:016x}", report.trace_hash);
            }
            sums.lock().unwrap_or_else(PoisonError::into_inner).take(outcome);
        }
    };
    std::thread::scope(|scope| (0..jobs.min(count)).for_each(|_| drop(scope.spawn(work))));
    let mut sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", sums.coverage);
    if !sums.failed.is_empty() {
        sums.failed.sort_unstable();
        println!("failed seeds: {:?}", sums.failed);
    }
    println!("{}", sums.progress());
    if sums.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
