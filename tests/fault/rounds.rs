//! The rounds: a quiet moment, a fault, the way back; at the end the checks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::Arguments;
use crate::support::check;
use crate::support::cluster::{Cluster, small_chunks};
use crate::support::load::{Load, Writer};
use crate::support::wait_until;

/// What happens in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The leader gets SIGKILL.
    Sigkill,
    /// The leader gets SIGSTOP and, after [`STOPPED`], SIGCONT.
    Sigstop,
    /// A follower gets SIGKILL.
    Follower,
}

/// How long a stopped leader stands still.
const STOPPED: Duration = Duration::from_secs(3);

/// How long a round watches after its fault.
const WATCHED: Duration = Duration::from_secs(3);

/// How long the cluster may take to write again, or a node to return, before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Sigkill => "sigkill",
            Mode::Sigstop => "sigstop",
            Mode::Follower => "follower",
        }
    }

    fn named(name: &str) -> anyhow::Result<Vec<Mode>> {
        let all = [Mode::Sigkill, Mode::Sigstop, Mode::Follower];
        let chosen: Vec<Mode> = all.into_iter().filter(|mode| name == "all" || name == mode.name()).collect();
        ensure!(!chosen.is_empty(), "--mode {name} is not known; see --help");
        Ok(chosen)
    }
}

/// The longest times without an acknowledged write.
#[derive(Clone, Copy, Debug)]
struct Gaps {
    /// Before the fault: what this machine does to a healthy cluster.
    quiet: Duration,
    /// After the fault.
    fault: Duration,
    /// When another leader was seen.
    elected: Option<Duration>,
    /// While the node came back.
    rejoin: Duration,
}

/// Runs the rounds of `arguments` and all checks.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let modes = Mode::named(&arguments.mode)?;
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let mut cluster = Cluster::start_locked(folder, arguments.lock(), &small_chunks(arguments.chunk_size))?;
    let load = Load::start(&cluster, random.u32(..), 0, arguments.writers, 160);
    for mode in modes {
        let mut all = Vec::new();
        for number in 1..=arguments.rounds {
            let gaps =
                round(mode, &mut cluster, &load, &mut random).with_context(|| format!("{mode:?} round {number}"))?;
            let [quiet, fault, rejoin] = [gaps.quiet, gaps.fault, gaps.rejoin].map(|gap| gap.as_millis());
            let elected = gaps.elected.map_or_else(String::new, |time| format!("new leader seen after {time:.0?}; "));
            println!(
                "{} round {number}: {fault} ms without a write ({elected}quiet {quiet} ms, rejoin {rejoin} ms)",
                mode.name()
            );
            all.push(gaps);
        }
        summary(mode, &all);
    }
    finish(arguments, cluster, load, Vec::new())
}

fn round(mode: Mode, cluster: &mut Cluster, load: &Load, random: &mut fastrand::Rng) -> anyhow::Result<Gaps> {
    let calm = Instant::now();
    std::thread::sleep(Duration::from_millis(random.u64(1_000..1_500)));
    let leader = cluster.leader()?;
    let victim = if mode == Mode::Follower { (leader + random.usize(1..=2)) % 3 } else { leader };
    let moment = Instant::now();
    let quiet = load.watcher().longest_pause(calm, moment);
    match mode {
        Mode::Sigkill | Mode::Follower => cluster.nodes[victim].kill(),
        Mode::Sigstop => cluster.nodes[victim].signal(Signal::STOP),
    }
    let elected = watch(load, leader, moment, if mode == Mode::Sigstop { STOPPED } else { WATCHED });
    wait_until("writes are acknowledged again", PATIENCE, || load.watcher().writable_after(moment).is_some())
        .with_context(|| cluster.tails())?;
    let back = Instant::now();
    let fault = load.watcher().longest_pause(moment, back);
    match mode {
        Mode::Sigkill | Mode::Follower => cluster.nodes[victim].start()?,
        Mode::Sigstop => cluster.nodes[victim].signal(Signal::CONT),
    }
    if mode == Mode::Sigstop {
        // Just woken it may still believe that it leads: in step is the cluster when there is one leader only.
        cluster.wait_until_whole()?;
    }
    cluster.wait_until_in_step(victim, PATIENCE)?;
    Ok(Gaps { quiet, fault, elected, rejoin: load.watcher().longest_pause(back, Instant::now()) })
}

/// Lets `span` pass; after which time another node than `before` was seen to lead.
fn watch(load: &Load, before: usize, moment: Instant, span: Duration) -> Option<Duration> {
    let mut elected = None;
    while moment.elapsed() < span {
        if elected.is_none() && load.watcher().leader().is_some_and(|now| now != before) {
            elected = Some(moment.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    elected
}

fn summary(mode: Mode, all: &[Gaps]) {
    let sorted = |of: fn(&Gaps) -> Duration| {
        let mut times: Vec<u128> = all.iter().map(|gaps| of(gaps).as_millis()).collect();
        times.sort_unstable();
        times
    };
    let (fault, quiet, rejoin) = (sorted(|gaps| gaps.fault), sorted(|gaps| gaps.quiet), sorted(|gaps| gaps.rejoin));
    let (median, last) = (all.len() / 2, all.len() - 1);
    println!(
        "result mode={} rounds={} median_ms={} largest_ms={} quiet_median_ms={} quiet_largest_ms={} rejoin_largest_ms={}",
        mode.name(),
        all.len(),
        fault[median],
        fault[last],
        quiet[median],
        quiet[last],
        rejoin[last]
    );
}

/// Stops the writers, then the nodes, and checks what is there. `earlier` are writers that have ended before.
pub(crate) fn finish(
    arguments: &Arguments,
    mut cluster: Cluster,
    load: Load,
    earlier: Vec<Writer>,
) -> anyhow::Result<()> {
    let mut writers = load.stop().with_context(|| cluster.tails())?;
    writers.extend(earlier);
    let end = cluster.wait_until_even()?;
    let count = check::events(&cluster, &writers)?;
    let acknowledged: usize = writers.iter().map(|writer| writer.acknowledged.len()).sum();
    ensure!(acknowledged > 0, "no write was acknowledged at all");
    check::stop(&mut cluster)?;
    check::logs(&cluster, arguments.chunk_size, end)?;
    println!(
        "checked: {acknowledged} events acknowledged, {count} in the log at each node, {end} bytes of log identical"
    );
    Ok(())
}
