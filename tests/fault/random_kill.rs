//! One node after the other is killed at a random moment and started again after a random time, under load; after each
//! round the logs of all nodes are compared as far as they are committed. On loopback: it needs nothing of the machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Arguments;
use crate::support::cluster::{Cluster, small_chunks};
use crate::support::pace::Limit;
use crate::support::steady::{Interrupted, Steady, interrupted};
use crate::support::verify;
use crate::support::workload::Workload;

/// No large events are asked for.
const LIMIT: Limit = Limit { burst: 0, a_second: 0 };

/// Runs the rounds, then judges the history.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    verify::self_test().context("the checker itself")?;
    let interrupted = interrupted()?;
    let mut cluster = Cluster::start_locked(folder, arguments.lock(), &small_chunks(arguments.chunk_size))?;
    let mut load = Workload::start(&cluster, arguments.seed, arguments.writers, LIMIT);
    let chunk_size = arguments.chunk_size;
    let mut steady = Steady { cluster: &mut cluster, load: &load, interrupted: &interrupted, chunk_size };
    let times = rounds(arguments, &mut steady);
    if times.as_ref().is_err_and(|error| error.is::<Interrupted>()) {
        return times.map(|_| ());
    }
    let history = load.stop(times.is_ok());
    let mut steady = Steady { cluster: &mut cluster, load: &load, interrupted: &interrupted, chunk_size };
    let judged = times.and_then(|times| Ok((times, steady.judge(&history)?)));
    if judged.is_err() {
        Steady::keep(&history, folder)?;
    }
    let (mut times, counts) = judged?;
    times.sort_unstable();
    println!(
        "result mode=random-kill seed={} rounds={} median_pause_ms={} largest_pause_ms={} acknowledged={}",
        arguments.seed,
        times.len(),
        times[times.len() / 2].as_millis(),
        times[times.len() - 1].as_millis(),
        counts.acknowledged
    );
    Ok(())
}

/// The longest time without an acknowledged write of each round.
fn rounds(arguments: &Arguments, steady: &mut Steady<'_>) -> anyhow::Result<Vec<Duration>> {
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let (mut compared, mut times) = (0, Vec::new());
    for number in 1..=arguments.rounds.max(1) {
        let (node, before, away) = (random.usize(0..3), random.u64(0..700_000), random.u64(0..900));
        steady.rest(Duration::from_micros(before))?;
        let role = if steady.load.watcher().leader() == Some(node) { "leader" } else { "follower" };
        let begin = Instant::now();
        steady.cluster.nodes[node].kill();
        steady.rest(Duration::from_millis(away))?;
        steady.cluster.nodes[node].start()?;
        let place = || format!("round {number}, node {} killed", node + 1);
        steady.writable(Instant::now()).with_context(place)?;
        steady.whole().with_context(place)?;
        compared = steady.compare(compared).with_context(place)?;
        let pause = steady.load.watcher().longest_pause(begin, Instant::now());
        println!(
            "round {number}: {role} {} killed, away {away} ms, longest pause {pause:.0?}, whole after {:.0?}, logs equal \
             up to {compared}",
            node + 1,
            begin.elapsed()
        );
        times.push(pause);
    }
    Ok(times)
}
