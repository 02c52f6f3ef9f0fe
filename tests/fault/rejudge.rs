//! The judgement once more, over the data and the history that a run has kept: when it ended before its own (the machine
//! stood still, somebody stopped it), or to look at a violation again.
//!
//! The nodes run on loopback, on the disks of that run. Of subscriptions the history has their ends only, so these and the
//! count between them are compared; what clients saw in each other's answers was compared while the run went on.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use crate::Arguments;
use crate::disk::Disk;
use crate::support::check;
use crate::support::cluster::{Cluster, Home, small_chunks};
use crate::support::history::{History, Outcome, Session};
use crate::support::known::{self, Known};
use crate::support::verify::{self, Entry};

/// Judges what lies in `--data`.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    verify::self_test().context("the checker itself")?;
    let kept = arguments.data.as_deref().context("--mode judge needs --data, the folder that a run has kept")?;
    let mut history = History::load(&kept.join("history.txt"))?;
    let (disks, homes) = homes(kept, folder)?;
    let mut cluster = Cluster::start_at(homes, &small_chunks(arguments.chunk_size))?;
    let end = cluster.wait_until_even()?;
    let log = verify::log_at_all(&cluster, &told(&history)?)?;
    let run = log.iter().find(|entry| !entry.stream.starts_with('$')).map_or(0, |entry| (entry.id >> 96) as u32);
    history.writes.iter_mut().for_each(|write| write.id = known::identifier(run, write.client, write.id as u64));
    let known = told(&history)?;
    for session in &mut history.sessions {
        fill(session, &log)?;
    }
    let counts = verify::judge(&history, &known, &log, run)?;
    check::stop(&mut cluster)?;
    check::logs(&cluster, arguments.chunk_size, end)?;
    println!("checked: {counts}; {end} bytes of log identical at {} nodes", cluster.nodes.len());
    drop(disks);
    Ok(())
}

/// Where the kept nodes are started again: their own disks, new addresses.
fn homes(kept: &Path, folder: &Path) -> anyhow::Result<(Vec<Disk>, Vec<Home>)> {
    let (mut disks, mut homes) = (Vec::new(), Vec::new());
    for number in 1..=9_u8 {
        let (image, plain) = (kept.join(format!("disk-{number}.img")), kept.join(format!("node-{}/db", 100 + number)));
        let db = if image.exists() {
            disks.push(Disk::existing(image, folder.join(format!("disk-{number}")))?);
            disks[disks.len() - 1].mount.join("db")
        } else if plain.exists() {
            plain
        } else {
            break;
        };
        let ip = Ipv4Addr::new(127, 0, 0, 120 + number);
        homes.push(Home::new(ip, folder.join(format!("node-{number}")), db));
    }
    ensure!(!homes.is_empty(), "neither disk-1.img nor node-101/db in {}", kept.display());
    Ok((disks, homes))
}

/// What clients were told by acknowledgements.
fn told(history: &History) -> anyhow::Result<Known> {
    let known = Known::default();
    for write in &history.writes {
        let seen = match write.outcome {
            Outcome::Acknowledged { first, .. } => {
                known.enter(&write.stream, first, (0..u128::from(write.count)).map(|place| write.id + place))
            }
            Outcome::Wrong { .. } | Outcome::Unknown => known.enter(&write.stream, 0, []),
        };
        if let Err(words) = seen {
            bail!("{write}: {words}");
        }
    }
    Ok(known)
}

/// Gives a subscription of a file the positions between its ends, from the log, when the ends and the count are right.
fn fill(session: &mut Session, log: &[Entry]) -> anyhow::Result<()> {
    let start = log.partition_point(|entry| entry.place.0 <= session.confirmed);
    let (first, last) = match session.positions[..] {
        [] => return Ok(()),
        [only] => (only, only),
        [first, .., last] => (first, last),
    };
    let of_log = log.get(start..start + session.positions.len());
    let ends = of_log.and_then(|part| Some((part.first()?.place, part.last()?.place)));
    let name = format!("a subscription at node {}, confirmed at {}", session.node + 1, session.confirmed);
    ensure!(ends == Some((first, last)), "{name}: from {first:?} to {last:?}, in the log {ends:?}");
    session.positions = of_log.unwrap_or_default().iter().map(|entry| entry.place).collect();
    Ok(())
}
