//! What the test programs share: a small client of the v5 wire, HTTP in a few lines, nodes as processes, hosts made of
//! network namespaces, loads that keep a history, and the judgement over it.
//!
//! The client is written from the wire's description and shares no code with the server, so that one mistake cannot
//! hide on both sides.

// Each test program includes this module and uses its part of it.
#![allow(dead_code)]

pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod follower;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod known;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod messages;
pub(crate) mod pace;
pub(crate) mod shell;
pub(crate) mod steady;
pub(crate) mod verify;
pub(crate) mod watcher;
pub(crate) mod wires;
pub(crate) mod worker;
pub(crate) mod workload;

use std::time::{Duration, Instant};

/// Asks every 20 ms until `condition` holds.
///
/// # Errors
/// When it does not within `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(start.elapsed());
        }
        anyhow::ensure!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
