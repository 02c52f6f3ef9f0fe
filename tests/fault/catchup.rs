//! A follower is away while much is written, comes back, and the leader's writes go on meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::support::cluster::{Cluster, Node, small_chunks};
use crate::support::load::{Load, Writer};
use crate::{Arguments, rounds};

const MIB: u64 = 1 << 20;

/// The largest wait for the follower.
const PATIENCE: Duration = Duration::from_secs(600);

/// Data of the events that fill the log, bytes.
const FILL_BYTES: usize = 48 << 10;

/// Runs it and prints both rates.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let mut cluster = Cluster::start_locked(folder, arguments.lock(), &small_chunks(arguments.chunk_size))?;
    let run = fastrand::Rng::with_seed(arguments.seed).u32(..);
    let away = (cluster.leader()? + 1) % 3;
    cluster.nodes[away].kill();
    let (behind, earlier) = fill(&cluster, run, arguments)?;

    let load = Load::start(&cluster, run, 0, arguments.writers, 160);
    let before = rate(&load, Duration::from_secs(3));
    let (start, acknowledged) = (Instant::now(), load.watcher().acknowledged());
    cluster.nodes[away].start()?;
    cluster.wait_until_in_step(away, PATIENCE)?;
    let time = start.elapsed();
    let meanwhile = (load.watcher().acknowledged() - acknowledged) as f64 / time.as_secs_f64();
    let pause = load.watcher().longest_pause(start, Instant::now());
    let after = rate(&load, Duration::from_secs(3));
    println!(
        "result mode=catchup mib={} seconds={:.1} catchup_mib_per_s={:.0} writes_per_s_before={before:.0} \
         writes_per_s_meanwhile={meanwhile:.0} writes_per_s_after={after:.0} largest_pause_ms={}",
        behind / MIB,
        time.as_secs_f64(),
        behind as f64 / MIB as f64 / time.as_secs_f64(),
        pause.as_millis()
    );
    ensure!(meanwhile > 0.0, "no write was acknowledged while the follower caught up");
    rounds::finish(arguments, cluster, load, earlier)
}

/// Writes until the log has grown by the wanted size; by how much it did, and who wrote.
fn fill(cluster: &Cluster, run: u32, arguments: &Arguments) -> anyhow::Result<(u64, Vec<Writer>)> {
    let end = || log_end(&cluster.nodes);
    let (start, from) = (Instant::now(), end()?);
    // Other writer numbers than the small load has: other streams, other identifiers.
    let load = Load::start(cluster, run, 1_000, 8, FILL_BYTES);
    while end()? - from < arguments.mib * MIB {
        ensure!(start.elapsed() < PATIENCE, "{} MiB are not written within {PATIENCE:?}", arguments.mib);
        std::thread::sleep(Duration::from_millis(50));
    }
    let writers = load.stop().with_context(|| cluster.tails())?;
    let (grown, time) = (end()? - from, start.elapsed());
    let speed = grown as f64 / MIB as f64 / time.as_secs_f64();
    let acknowledged: usize = writers.iter().map(|writer| writer.acknowledged.len()).sum();
    println!("written while it was away: {} MiB, {acknowledged} events, {speed:.0} MiB/s", grown / MIB);
    Ok((grown, writers))
}

/// The end of the log at the node that is furthest.
fn log_end(nodes: &[Node]) -> anyhow::Result<u64> {
    nodes.iter().filter_map(Node::figures).map(|figures| figures.log_end).max().context("no node answers")
}

/// Acknowledged writes a second.
fn rate(load: &Load, span: Duration) -> f64 {
    let before = load.watcher().acknowledged();
    std::thread::sleep(span);
    (load.watcher().acknowledged() - before) as f64 / span.as_secs_f64()
}
