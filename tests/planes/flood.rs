//! What disturbs: strangers who flood the external side, and a follower that catches up at full rate.
//!
//! The replication round trip is the stage `replication/NODE` in `/stats` of the leader: from the hand-over of bytes to a
//! follower's link until the follower acknowledges them as durable. The histograms only grow, so what was recorded in a
//! span is the difference of two answers; both are asked for while nothing floods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Arguments;
use crate::flooder::{Flood, Flooder};
use crate::house::{CLIENTS, House, NODES};
use crate::load::{self, Paced};
use crate::support::http;
use crate::support::wires::Plane;

/// The host of the flood; on the external bridge only.
const FLOODERS: usize = 101;

/// Threads of the flood.
const FLOOD_THREADS: u64 = 4;

/// Writers of the light load, and connections that fill the log.
const PACED_WRITERS: u64 = 4;
const FILL_THREADS: u64 = 8;

/// What is aimed at: nothing gets slower by more than this factor.
const TARGET: f64 = 2.0;

/// How long a follower may take to catch up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Times of one span, in nanoseconds, with how often each was recorded.
type Counts = BTreeMap<u64, u64>;

/// Runs both.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let processors = available_parallelism()?.get();
    // One for the nodes' internal side, one for all that is external: edges of the nodes, clients, flood.
    let (internal, external): (&[usize], &[usize]) = if processors > 1 { (&[0], &[1]) } else { (&[0], &[0]) };
    let list = |cpus: &[usize]| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let options = ["--int-cpus", &list(internal), "--ext-cpus", &list(external)].map(str::to_owned);
    let mut house = House::start(folder, arguments.lock(), &options)?;
    house.wires.add_host(FLOODERS, &[Plane::External])?;
    println!(
        "{processors} processors; IntCpus {}, ExtCpus {} at all {NODES} nodes; the flood's {FLOOD_THREADS} threads and the \
         light load's {PACED_WRITERS} run on {} as well, at the same priority as everything else",
        list(internal),
        list(external),
        list(external)
    );
    let result = flooded(arguments, &house, external).and_then(|flood| {
        caught_up(arguments, &mut house, external, Share::Alike)?;
        let catch_up = caught_up(arguments, &mut house, external, Share::Rest)?;
        Ok([flood, catch_up])
    });
    let ratios = result?;
    let above: Vec<f64> = ratios.into_iter().filter(|ratio| *ratio >= TARGET).collect();
    ensure!(above.is_empty() || !arguments.strict, "slower by {above:.2?}; aimed at is less than {TARGET}");
    Ok(())
}

/// The round trip with and without a flood, in turn; the ratio of the 99th percentiles.
fn flooded(arguments: &Arguments, house: &House, cpus: &[usize]) -> anyhow::Result<f64> {
    let leader = house.cluster.leader()?;
    let node = &house.cluster.nodes[leader];
    let targets: Vec<(SocketAddr, SocketAddr)> =
        house.cluster.nodes.iter().map(|node| (node.ext_tcp(), node.ext_http())).collect();
    let span = Duration::from_secs(arguments.seconds);
    let (mut calm, mut stormy) = (Counts::new(), Counts::new());
    let (mut calm_writes, mut stormy_writes) = (Vec::new(), Vec::new());
    let mut total = Flood::default();
    for round in 1..=arguments.rounds {
        for is_stormy in [false, true] {
            let before = replication(node.ext_http())?;
            let run = arguments.seed as u32 ^ (round as u32) << 8 ^ u32::from(is_stormy);
            let paced = Paced::start(node.ext_tcp(), PACED_WRITERS, run, cpus);
            let seed = arguments.seed + round as u64;
            let namespace = house.wires.name(FLOODERS);
            let flooder = is_stormy.then(|| Flooder::start(&namespace, cpus, &targets, FLOOD_THREADS, seed));
            std::thread::sleep(span);
            let writes = paced.stop()?;
            if let Some(flooder) = flooder {
                let flood = flooder.stop()?;
                total.connections += flood.connections;
                total.failed += flood.failed;
                total.pieces += flood.pieces;
                total.bytes += flood.bytes;
            }
            let counts = since(&replication(node.ext_http())?, &before);
            println!(
                "  round {round}, {}: round trip p50 {:.0} us, p99 {:.0} us ({} times); clients' writes p99 {} us ({})",
                if is_stormy { "flood" } else { "calm " },
                at(&counts, 0.5),
                at(&counts, 0.99),
                counts.values().sum::<u64>(),
                writes.value_at_quantile(0.99),
                writes.len()
            );
            let (all, all_writes) =
                if is_stormy { (&mut stormy, &mut stormy_writes) } else { (&mut calm, &mut calm_writes) };
            counts.iter().for_each(|(nanos, count)| *all.entry(*nanos).or_default() += count);
            all_writes.push(writes.value_at_quantile(0.99));
        }
    }
    ensure!(house.cluster.leader()? == leader, "the leader changed under the flood");
    ensure!(total.connections > 0, "no connection of the flood was made");
    let (without, with) = (at(&calm, 0.99), at(&stormy, 0.99));
    let seconds = (span * arguments.rounds as u32).as_secs_f64();
    println!(
        "result mode=flood lock={} what=replication-round-trip p99_us_calm={without:.0} p99_us_flood={with:.0} ratio={:.2} \
         p50_us_calm={:.0} p50_us_flood={:.0} median_write_p99_us_calm={} median_write_p99_us_flood={} \
         connections_per_s={:.0} refused_connections_per_s={:.0} malformed_per_s={:.0} flood_mib_per_s={:.1}",
        arguments.lock().name(),
        with / without,
        at(&calm, 0.5),
        at(&stormy, 0.5),
        median(&mut calm_writes),
        median(&mut stormy_writes),
        total.connections as f64 / seconds,
        total.failed as f64 / seconds,
        total.pieces as f64 / seconds,
        total.bytes as f64 / (1 << 20) as f64 / seconds
    );
    Ok(with / without)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// What a follower that catches up gets of the processors, which all three hosts have in common here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// As much as the others: its own work is in the way of theirs.
    Alike,
    /// What the others leave, as if its host had processors of its own: what is in the way is the work that it makes them.
    Rest,
}

/// Clients' writes while a follower catches up, and before; the ratio of the 99th percentiles.
fn caught_up(arguments: &Arguments, house: &mut House, cpus: &[usize], share: Share) -> anyhow::Result<f64> {
    let leader = house.cluster.leader()?;
    let away = (leader + 1) % NODES;
    let tcp = house.cluster.nodes[leader].ext_tcp();
    let run = arguments.seed as u32 ^ 0x5a5a_0000 ^ ((share as u32) << 8);
    let paced = Paced::start(tcp, PACED_WRITERS, run, cpus);
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let calm = paced.stop()?;
    house.cluster.nodes[away].kill();
    let sent = load::fill(tcp, arguments.mib, FILL_THREADS, run)?;
    let behind = house.cluster.nodes[leader].figures().context("the leader answers")?.log_end;
    // Alone with one follower, so that what is compared is the catching up.
    let paced = Paced::start(tcp, PACED_WRITERS, run ^ 1, cpus);
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let reduced = paced.stop()?;
    let start = Instant::now();
    let paced = Paced::start(tcp, PACED_WRITERS, run ^ 2, cpus);
    match share {
        Share::Alike => house.cluster.nodes[away].start()?,
        Share::Rest => house.cluster.nodes[away].start_idle()?,
    }
    house.cluster.wait_until_in_step(away, PATIENCE)?;
    let time = start.elapsed();
    let busy = paced.stop()?;
    let p99 = |times: &hdrhistogram::Histogram<u64>| times.value_at_quantile(0.99);
    let ratio = p99(&busy) as f64 / p99(&calm) as f64;
    println!(
        "result mode=flood lock={} what=catch-up follower_gets={} mib={} log_mib={} seconds={:.1} mib_per_s={:.0} write_p99_us_calm={} \
         write_p99_us_one_away={} write_p99_us_catching_up={} ratio={ratio:.2} ratio_to_one_away={:.2} writes={}",
        arguments.lock().name(),
        if share == Share::Rest { "the-rest" } else { "as-others" },
        sent.payload >> 20,
        behind >> 20,
        time.as_secs_f64(),
        (sent.payload >> 20) as f64 / time.as_secs_f64(),
        p99(&calm),
        p99(&reduced),
        p99(&busy),
        p99(&busy) as f64 / p99(&reduced) as f64,
        busy.len()
    );
    ensure!(house.cluster.leader()? == leader, "the leader changed while a follower caught up");
    Ok(ratio)
}

/// The round trips to all followers that were recorded so far.
fn replication(http: SocketAddr) -> anyhow::Result<Counts> {
    let stats = http::get(http, "/stats?histograms=true", Duration::from_secs(20))?.json()?;
    let mut counts = Counts::new();
    for (name, stage) in stats["stages"].as_object().context("stages")? {
        if !name.starts_with("replication/") {
            continue;
        }
        for pair in stage["counts"].as_array().into_iter().flatten() {
            let (nanos, count) = pair[0].as_u64().zip(pair[1].as_u64()).context("a pair of numbers")?;
            *counts.entry(nanos).or_default() += count;
        }
    }
    Ok(counts)
}

fn since(now: &Counts, before: &Counts) -> Counts {
    let grown = now.iter().map(|(nanos, count)| (*nanos, count - before.get(nanos).copied().unwrap_or_default()));
    grown.filter(|(_, count)| *count > 0).collect()
}

/// A quantile, in microseconds.
fn at(counts: &Counts, quantile: f64) -> f64 {
    let wanted = (counts.values().sum::<u64>() as f64 * quantile).ceil() as u64;
    let mut passed = 0;
    for (nanos, count) in counts {
        passed += count;
        if passed >= wanted {
            return *nanos as f64 / 1e3;
        }
    }
    0.0
}

// The clients' host is on the external bridge, and so is the flood's.
const _: () = assert!(CLIENTS != FLOODERS);
