//! What is waited for after a fault, and what must be true then: writes go on, the cluster is whole, the logs are equal,
//! and in the end the history holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::support::cluster::{Cluster, Figures, Node};
use crate::support::history::History;
use crate::support::wait_until;
use crate::support::workload::Workload;
use crate::support::{check, verify};

/// How long the cluster may take to be whole again before the run fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// SIGINT or SIGTERM came.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Set by SIGINT and SIGTERM: the run ends and takes everything down.
pub(crate) fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// A cluster under load, to be looked at.
pub(crate) struct Steady<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) load: &'a Workload,
    pub(crate) interrupted: &'a AtomicBool,
    pub(crate) chunk_size: u64,
}

impl Steady<'_> {
    /// Lets time pass, with an eye on what the clients are told.
    pub(crate) fn rest(&self, span: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.load.watcher().check()?;
            ensure!(!self.interrupted.load(Ordering::Relaxed), Interrupted);
            let left = span.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// How long after `heal` a write was acknowledged that was sent after it.
    pub(crate) fn writable(&self, heal: Instant) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(time) = self.load.watcher().writable_after(heal) {
                return Ok(time);
            }
            self.rest(Duration::from_millis(5))?;
        }
        bail!("no write was acknowledged within {PATIENCE:?} of the heal\n{}", self.cluster.tails())
    }

    /// Waits until one node leads and all others follow it.
    pub(crate) fn whole(&mut self) -> anyhow::Result<()> {
        let mut ended = None;
        let whole = wait_until("one leader, and all others follow", PATIENCE, || {
            ended = self.cluster.nodes.iter_mut().position(|node| !node.is_running());
            let roles: Vec<Figures> = self.cluster.nodes.iter().filter_map(Node::figures).collect();
            let all = roles.len() == self.cluster.nodes.len();
            let one = roles.iter().filter(|figures| figures.leads()).count() == 1;
            let follow = roles.iter().all(|figures| figures.follows() || figures.leads());
            let term = roles.iter().all(|figures| figures.term == roles[0].term);
            let stop =
                ended.is_some() || self.load.watcher().check().is_err() || self.interrupted.load(Ordering::Relaxed);
            stop || (all && one && follow && term)
        });
        whole.with_context(|| self.cluster.tails())?;
        self.rest(Duration::ZERO)?;
        if let Some(index) = ended {
            let node = &mut self.cluster.nodes[index];
            let status = node.wait()?;
            bail!("node {} ended by itself, {status}\n{}", index + 1, node.tail());
        }
        Ok(())
    }

    /// Compares the logs of all nodes from `from` to what any of them had committed when this was called, as soon as all
    /// have; gives that place.
    pub(crate) fn compare(&self, from: u64) -> anyhow::Result<u64> {
        let commits = || -> Option<Vec<u64>> {
            let figures = self.cluster.nodes.iter().map(Node::figures);
            figures.map(|figures| figures.map(|figures| figures.commit_position)).collect()
        };
        let (mut wanted, mut end) = (None, None);
        let even = wait_until("all nodes have committed what one of them had", PATIENCE, || {
            let all = commits().unwrap_or_default();
            wanted = wanted.or(all.iter().copied().max());
            end = all.into_iter().min();
            let stop = self.load.watcher().check().is_err() || self.interrupted.load(Ordering::Relaxed);
            stop || end.is_some_and(|end| Some(end) >= wanted)
        });
        even.with_context(|| format!("{wanted:?} is wanted, {end:?} reached\n{}", self.cluster.tails()))?;
        self.rest(Duration::ZERO)?;
        let end = end.context("a node ended while the logs were compared")?;
        check::logs_between(self.cluster, self.chunk_size, from, end)?;
        Ok(from.max(end))
    }

    /// The judgement over a run whose load has ended with this history. Ends the nodes.
    pub(crate) fn judge(&mut self, history: &History) -> anyhow::Result<verify::Counts> {
        self.load.watcher().check()?;
        let end = self.cluster.wait_until_even()?;
        let log = verify::log_at_all(self.cluster, self.load.known())?;
        let counts = verify::judge(history, self.load.known(), &log, self.load.run())?;
        check::stop(self.cluster)?;
        check::logs(self.cluster, self.chunk_size, end)?;
        println!("checked: {counts}; {end} bytes of log identical at {} nodes", self.cluster.nodes.len());
        Ok(counts)
    }

    /// Keeps the history of a run that went wrong below `folder`.
    pub(crate) fn keep(history: &History, folder: &std::path::Path) -> anyhow::Result<()> {
        let file = folder.join("history.txt");
        history.save(&file).with_context(|| file.display().to_string())?;
        println!("fault: the whole history is in {}", file.display());
        Ok(())
    }
}
