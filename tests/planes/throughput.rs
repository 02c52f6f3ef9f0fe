//! Writes a second with an open internal plane and with a closed one, in turn.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::Arguments;
use crate::house::House;
use crate::support::keys::Lock;

/// Connections of the load, and requests that each has on the way.
const CONNECTIONS: u32 = 32;
const IN_FLIGHT: u32 = 32;

/// Runs it: open against TLS, or against the secret where that was asked for.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    let closed = if arguments.open { Lock::TLS } else { arguments.lock() };
    let locks = [Lock::default(), closed];
    let mut found: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for round in 1..=arguments.rounds {
        for (lock, found) in locks.iter().zip(&mut found) {
            let place = folder.join(format!("{}-{round}", lock.name()));
            std::fs::create_dir_all(&place)?;
            let (writes, p99) = measure(arguments, &place, *lock)?;
            println!("  round {round}, {}: {writes:.0} writes/s, p99 {p99:.0} us", lock.name());
            found.push(writes);
            let _ = std::fs::remove_dir_all(&place);
        }
    }
    let [open, with] = found.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    println!(
        "result mode=throughput connections={CONNECTIONS} in_flight={IN_FLIGHT} rounds={} seconds={} \
         median_writes_per_s_open={open:.0} median_writes_per_s_{}={with:.0} ratio={:.3}",
        arguments.rounds,
        arguments.seconds,
        closed.name(),
        with / open
    );
    Ok(())
}

/// A new cluster under load; writes a second, and their 99th percentile in microseconds.
fn measure(arguments: &Arguments, folder: &Path, lock: Lock) -> anyhow::Result<(f64, f64)> {
    let house = House::start(folder, lock, &[])?;
    let seeds: Vec<String> = house.cluster.nodes.iter().map(|node| node.ext_http().to_string()).collect();
    let result = folder.join("result.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringstore-bench"));
    command.args(["writes", "--connections", &CONNECTIONS.to_string(), "--in-flight", &IN_FLIGHT.to_string()]);
    command.args(["--seconds", &arguments.seconds.to_string(), "--seed", &seeds.join(",")]);
    let output = command.arg("--json").arg(&result).output().context("ringstore-bench")?;
    ensure!(output.status.success(), "ringstore-bench: {}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_str(&std::fs::read_to_string(&result)?)?;
    let series = &found["series"][0];
    let writes = series["operationsPerSecond"].as_f64().context("operationsPerSecond")?;
    Ok((writes, series["latency"]["p99Us"].as_f64().unwrap_or_default()))
}
