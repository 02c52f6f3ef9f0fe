//! What every load knows of its cluster and of itself: which node leads, and when writes were acknowledged.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, figures};

/// How long a node may take to say what it is before it counts as gone.
pub(crate) const STATE_LIMIT: Duration = Duration::from_millis(300);

/// How often each node is asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// Wrong answers that are kept: the first ones say it, the others follow from them.
const WRONG_MAX: usize = 20;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a node was seen to be.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    answers: bool,
    leads: bool,
    term: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Watcher {
    stop: AtomicBool,
    start: Instant,
    /// HTTP and TCP endpoint of each node.
    nodes: Vec<(SocketAddr, SocketAddr)>,
    seen: Mutex<Vec<Seen>>,
    /// When the attempt began that was acknowledged, and when the answer came.
    acknowledged: Mutex<Vec<(Instant, Instant)>>,
    wrong: Mutex<Vec<String>>,
}

impl Watcher {
    /// A watcher over all nodes, and a thread for each.
    pub(crate) fn start(cluster: &Cluster) -> (Arc<Watcher>, Vec<JoinHandle<()>>) {
        let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.ext_http(), node.ext_tcp())).collect();
        let watcher = Arc::new(Watcher {
            stop: AtomicBool::new(false),
            start: Instant::now(),
            seen: Mutex::new(vec![Seen::default(); nodes.len()]),
            nodes,
            acknowledged: Mutex::default(),
            wrong: Mutex::default(),
        });
        let threads = (0..watcher.count()).map(|index| {
            let watcher = Arc::clone(&watcher);
            std::thread::spawn(move || watcher.watch(index))
        });
        let threads = threads.collect();
        (watcher, threads)
    }

    fn watch(&self, index: usize) {
        let (ext_http, _) = self.nodes[index];
        while !self.stopped() {
            let seen = match figures(ext_http, STATE_LIMIT) {
                Ok(figures) => Seen { answers: true, leads: figures.leads(), term: figures.term },
                Err(_) => Seen::default(),
            };
            lock(&self.seen)[index] = seen;
            std::thread::sleep(INTERVAL);
        }
    }

    /// Tells all threads of the load to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Time since the load began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn tcp(&self, node: usize) -> SocketAddr {
        self.nodes[node].1
    }

    /// The node that leads in the newest term, of those that answer.
    pub(crate) fn leader(&self) -> Option<usize> {
        let seen = lock(&self.seen);
        let leading = seen.iter().enumerate().filter(|(_, node)| node.answers && node.leads);
        leading.max_by_key(|(_, node)| node.term).map(|(index, _)| index)
    }

    /// The node to try: the leader or, where a follower is to forward, another than it; without a leader one after the
    /// other.
    pub(crate) fn target(&self, is_forwarded: bool, turn: usize) -> usize {
        let count = self.count();
        let away = |leader: usize| if is_forwarded { leader + 1 + turn % (count - 1) } else { leader };
        self.leader().map_or(turn, away) % count
    }

    /// An answer that must not be.
    pub(crate) fn wrong(&self, what: &str) {
        let mut wrong = lock(&self.wrong);
        if wrong.len() < WRONG_MAX {
            wrong.push(format!("{:.6?}: {what}", self.elapsed()));
        }
    }

    /// Fails when there was an answer that must not be.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let wrong = lock(&self.wrong);
        anyhow::ensure!(wrong.is_empty(), "answers that must not be:\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Enters that an attempt which began at `begin` is acknowledged now.
    pub(crate) fn acknowledge(&self, begin: Instant) {
        let mut all = lock(&self.acknowledged);
        // Taken under the lock: the ends are in order.
        all.push((begin, Instant::now()));
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.acknowledged).len()
    }

    /// How long after `moment` the first write was acknowledged that was also sent after it.
    pub(crate) fn writable_after(&self, moment: Instant) -> Option<Duration> {
        let all = lock(&self.acknowledged);
        let from = all.partition_point(|(_, end)| *end <= moment);
        all[from..].iter().find(|(begin, _)| *begin >= moment).map(|(_, end)| *end - moment)
    }

    /// The longest time without an acknowledgement between `from` and `to`.
    pub(crate) fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let all = lock(&self.acknowledged);
        let after = all.partition_point(|(_, end)| *end <= from);
        let within = all[after..].iter().map(|(_, end)| *end).take_while(|end| *end < to);
        let (mut previous, mut longest) = (from, Duration::ZERO);
        for end in within.chain([to]) {
            longest = longest.max(end.saturating_duration_since(previous));
            previous = end;
        }
        longest
    }
}
