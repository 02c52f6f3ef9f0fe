//! The clients of the suite: they write with every kind of claim, read with and without `require_master`, follow the
//! whole log at every node, and hold every answer against what anybody was told before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::follower;
use crate::history::{History, Moment};
use crate::known::Known;
use crate::support::cluster::{Cluster, figures};

/// How long a node may take to say what it is before it counts as gone.
pub(crate) const STATE_LIMIT: Duration = Duration::from_millis(300);

/// How long those that follow the log may take to reach its end when all is well again.
const FOLLOW_LIMIT: Duration = Duration::from_secs(20);

/// What a node was seen to be.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    answers: bool,
    leads: bool,
    term: u64,
}

/// An acknowledged write: when the attempt began and when the answer came.
type Acknowledged = (Instant, Instant);

/// What the threads of the load share.
#[derive(Debug)]
pub(crate) struct Shared {
    stop: AtomicBool,
    stop_following: AtomicBool,
    /// Larger events and no pauses: to fill chunks.
    heavy: AtomicBool,
    /// A disk is full: writes may be refused for that.
    disk_may_be_full: AtomicBool,
    pub(crate) run: u32,
    start: Instant,
    /// HTTP and TCP endpoint of each node.
    nodes: Vec<(SocketAddr, SocketAddr)>,
    seen: Mutex<Vec<Seen>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    refusals: Mutex<BTreeMap<String, usize>>,
    wrong: Mutex<Vec<String>>,
    /// The last log position that each follower was told of, while it is connected.
    followed: Mutex<Vec<Option<(i64, i64)>>>,
    pub(crate) known: Known,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn new(cluster: &Cluster, run: u32) -> Shared {
        let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.ext_http(), node.ext_tcp())).collect();
        Shared {
            stop: AtomicBool::new(false),
            stop_following: AtomicBool::new(false),
            heavy: AtomicBool::new(false),
            disk_may_be_full: AtomicBool::new(false),
            run,
            start: Instant::now(),
            seen: Mutex::new(vec![Seen::default(); nodes.len()]),
            followed: Mutex::new(vec![None; nodes.len()]),
            nodes,
            acknowledged: Mutex::default(),
            refusals: Mutex::default(),
            wrong: Mutex::default(),
            known: Known::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run of less than 500 years")
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn tcp(&self, node: usize) -> SocketAddr {
        self.nodes[node].1
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn follows(&self) -> bool {
        !self.stop_following.load(Ordering::Relaxed)
    }

    pub(crate) fn is_heavy(&self) -> bool {
        self.heavy.load(Ordering::Relaxed)
    }

    pub(crate) fn disk_may_be_full(&self) -> bool {
        self.disk_may_be_full.load(Ordering::Relaxed)
    }

    /// The node that leads in the newest term, of those that answer.
    pub(crate) fn leader(&self) -> Option<usize> {
        let seen = lock(&self.seen);
        let leading = seen.iter().enumerate().filter(|(_, node)| node.answers && node.leads);
        leading.max_by_key(|(_, node)| node.term).map(|(index, _)| index)
    }

    /// An answer that must not be.
    pub(crate) fn wrong(&self, what: String) {
        let mut wrong = lock(&self.wrong);
        // The first ones say it; the others follow from them.
        if wrong.len() < 20 {
            wrong.push(format!("{:.6?}: {what}", self.start.elapsed()));
        }
    }

    pub(crate) fn refused(&self, text: &str) {
        *lock(&self.refusals).entry(text.to_owned()).or_default() += 1;
    }

    pub(crate) fn acknowledged(&self, begin: Instant) {
        let mut all = lock(&self.acknowledged);
        // Taken under the lock: the ends are in order.
        all.push((begin, Instant::now()));
    }

    pub(crate) fn followed(&self, node: usize, position: Option<(i64, i64)>) {
        lock(&self.followed)[node] = position;
    }
}

/// The running load.
#[derive(Debug)]
pub(crate) struct Workload {
    shared: Arc<Shared>,
    watchers: Vec<JoinHandle<()>>,
    clients: Vec<JoinHandle<History>>,
    followers: Vec<JoinHandle<History>>,
}

impl Workload {
    /// Starts `count` clients, and one for each node that follows the log.
    pub(crate) fn start(cluster: &Cluster, seed: u64, count: u32) -> Workload {
        let mut random = fastrand::Rng::with_seed(seed);
        let shared = Arc::new(Shared::new(cluster, random.u32(..)));
        let each = 0..shared.count();
        let watchers = each.clone().map(|index| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || watch(&shared, index))
        });
        let watchers = watchers.collect();
        let followers = each.map(|index| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || follower::follow(&shared, index))
        });
        let followers = followers.collect();
        let clients = (1..=count).map(|number| {
            let client = Client::new(Arc::clone(&shared), number, count, random.u64(..));
            std::thread::spawn(move || client.run())
        });
        let clients = clients.collect();
        Workload { shared, watchers, clients, followers }
    }

    /// The node that leads, as far as its clients know.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.shared.leader()
    }

    pub(crate) fn known(&self) -> &Known {
        &self.shared.known
    }

    pub(crate) fn run(&self) -> u32 {
        self.shared.run
    }

    pub(crate) fn set_heavy(&self, heavy: bool) {
        self.shared.heavy.store(heavy, Ordering::Relaxed);
    }

    pub(crate) fn set_disk_may_be_full(&self, may: bool) {
        self.shared.disk_may_be_full.store(may, Ordering::Relaxed);
    }

    /// How often which text was said to a write that was refused for want of room.
    pub(crate) fn refusals(&self) -> BTreeMap<String, usize> {
        lock(&self.shared.refusals).clone()
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        lock(&self.shared.acknowledged).len()
    }

    /// How long after `moment` the first write was acknowledged that was also sent after it.
    pub(crate) fn writable_after(&self, moment: Instant) -> Option<Duration> {
        let all = lock(&self.shared.acknowledged);
        let from = all.partition_point(|(_, end)| *end <= moment);
        all[from..].iter().find(|(begin, _)| *begin >= moment).map(|(_, end)| *end - moment)
    }

    /// The longest time without an acknowledgement between `from` and `to`.
    pub(crate) fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let all = lock(&self.shared.acknowledged);
        let after = all.partition_point(|(_, end)| *end <= from);
        let within = all[after..].iter().map(|(_, end)| *end).take_while(|end| *end < to);
        let (mut previous, mut longest) = (from, Duration::ZERO);
        for end in within.chain([to]) {
            longest = longest.max(end.saturating_duration_since(previous));
            previous = end;
        }
        longest
    }

    /// Fails when a client was told what must not be.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let wrong = lock(&self.shared.wrong);
        anyhow::ensure!(wrong.is_empty(), "answers that must not be:\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Ends the clients and, when all is well, lets those that follow reach the same end first; the history. What went
    /// wrong is said by [`Workload::check`]. Nothing more comes when it is called again.
    pub(crate) fn stop(&mut self, wait_for_followers: bool) -> History {
        let shared = &self.shared;
        shared.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for client in self.clients.drain(..) {
            history.append(client.join().expect("a client"));
        }
        let places = || lock(&shared.followed).clone();
        let is_even = || {
            let connected: Vec<_> = places().into_iter().flatten().collect();
            connected.windows(2).all(|two| two[0] == two[1])
        };
        if wait_for_followers && crate::support::wait_until("all are told of the end", FOLLOW_LIMIT, is_even).is_err() {
            shared.wrong(format!("subscriptions at the nodes ended at {:?}, not all at the same position", places()));
        }
        shared.stop_following.store(true, Ordering::Relaxed);
        for follower in self.followers.drain(..) {
            history.append(follower.join().expect("a follower"));
        }
        self.watchers.drain(..).for_each(|thread| thread.join().expect("a watcher"));
        history
    }
}

fn watch(shared: &Shared, index: usize) {
    let (ext_http, _) = shared.nodes[index];
    while !shared.stopped() {
        let seen = match figures(ext_http, STATE_LIMIT) {
            Ok(figures) => Seen { answers: true, leads: figures.leads(), term: figures.term },
            Err(_) => Seen::default(),
        };
        lock(&shared.seen)[index] = seen;
        std::thread::sleep(Duration::from_millis(20));
    }
}
