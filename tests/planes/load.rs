//! Writers that are measured: some write as much as they can, some a little at a steady pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use crate::flooder::pin;
use crate::support::client::{ANY, Client, Refusal, event};
use crate::support::messages::WriteEvents;

/// Events of a large write, and bytes of data in each.
const EVENTS: u64 = 8;
const EVENT_BYTES: usize = 8 << 10;

/// How long a connection may take to be made, and a write to be answered.
const LIMIT: Duration = Duration::from_secs(20);

/// How often a write is repeated.
const ATTEMPTS_MAX: usize = 100;

/// Data of the events of paced writers, and the time between their writes.
const PACED_BYTES: usize = 160;
const PACE: Duration = Duration::from_millis(5);

/// What was written in large writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Bytes of data in all requests, repeated ones as often as they were sent.
    pub(crate) payload: u64,
    pub(crate) writes: u64,
    pub(crate) repeated: u64,
    pub(crate) time: Duration,
}

/// Writes so many MiB to a node, whoever leads, from several threads.
pub(crate) fn fill(node: SocketAddr, mib: u64, threads: u64, run: u32) -> anyhow::Result<Sent> {
    let start = Instant::now();
    let left = AtomicU64::new((mib << 20).div_ceil(EVENTS * EVENT_BYTES as u64));
    let all: Vec<anyhow::Result<(u64, u64)>> = std::thread::scope(|scope| {
        let writers = (0..threads).map(|number| {
            let left = &left;
            scope.spawn(move || fill_one(node, run, number, left))
        });
        let writers: Vec<_> = writers.collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    let (mut writes, mut repeated) = (0, 0);
    for one in all {
        let one = one.with_context(|| format!("writing to {node}"))?;
        (writes, repeated) = (writes + one.0, repeated + one.1);
    }
    let payload = (writes + repeated) * EVENTS * EVENT_BYTES as u64;
    Ok(Sent { payload, writes, repeated, time: start.elapsed() })
}

/// One thread's part; its writes, and how many had to be repeated.
fn fill_one(node: SocketAddr, run: u32, number: u64, left: &AtomicU64) -> anyhow::Result<(u64, u64)> {
    let mut client = Client::connect(node, LIMIT)?;
    let (mut writes, mut repeated) = (0, 0);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let events = (0..EVENTS).map(|place| {
            let id = u128::from(run) << 96 | u128::from(number) << 64 | u128::from(writes * EVENTS + place);
            event(id.to_be_bytes(), vec![place as u8; EVENT_BYTES])
        });
        let stream = format!("fill-{run}-{number}");
        let request = WriteEvents { stream, expected_version: ANY, events: events.collect(), require_master: false };
        let mut attempts = 0;
        loop {
            match client.write(&request, LIMIT, &|| false)? {
                Ok(_) => break,
                Err(refusal) if refusal.may_be_repeated() => repeated += 1,
                Err(refusal) => anyhow::bail!("{refusal}"),
            }
            attempts += 1;
            ensure!(attempts < ATTEMPTS_MAX, "not written after {attempts} attempts");
            std::thread::sleep(Duration::from_millis(20));
        }
        writes += 1;
    }
    Ok((writes, repeated))
}

/// Writers that send one small event, wait for the answer, and rest.
#[derive(Debug)]
pub(crate) struct Paced {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<Histogram<u64>>>>,
}

impl Paced {
    /// Writers on these processors.
    pub(crate) fn start(node: SocketAddr, count: u64, run: u32, cpus: &[usize]) -> Paced {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|number| {
            let (stop, cpus) = (Arc::clone(&stop), cpus.to_vec());
            std::thread::spawn(move || {
                pin(&cpus)?;
                pace(node, run, number, &stop)
            })
        });
        Paced { threads: threads.collect(), stop }
    }

    /// The times of all writes, microseconds.
    pub(crate) fn stop(self) -> anyhow::Result<Histogram<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = histogram();
        for thread in self.threads {
            all.add(thread.join().expect("a writer")?)?;
        }
        Ok(all)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("good bounds")
}

fn pace(node: SocketAddr, run: u32, number: u64, stop: &AtomicBool) -> anyhow::Result<Histogram<u64>> {
    let mut times = histogram();
    let mut client = Client::connect(node, LIMIT)?;
    let mut counter = 0_u128;
    while !stop.load(Ordering::Relaxed) {
        let id = u128::from(run) << 96 | u128::from(number + 1_000) << 64 | counter;
        counter += 1;
        let events = vec![event(id.to_be_bytes(), vec![7; PACED_BYTES])];
        let stream = format!("paced-{run}-{number}");
        let request = WriteEvents { stream, expected_version: ANY, events, require_master: false };
        let start = Instant::now();
        loop {
            match client.write(&request, LIMIT, &|| false)? {
                Ok(_) => break,
                // Too busy is an answer that clients wait for, and it counts.
                Err(refusal @ Refusal::NotHandled(_)) if start.elapsed() > LIMIT => anyhow::bail!("{refusal}"),
                Err(refusal) if refusal.may_be_repeated() => std::thread::sleep(Duration::from_millis(1)),
                Err(refusal) => anyhow::bail!("{refusal}"),
            }
        }
        times.saturating_record(start.elapsed().as_micros() as u64);
        std::thread::sleep(PACE);
    }
    Ok(times)
}
