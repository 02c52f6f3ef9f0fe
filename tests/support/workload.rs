//! The clients of the suite: they write with every kind of claim, read with and without `require_master`, follow the
//! whole log at every node, and hold every answer against what anybody was told before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::follower;
use crate::support::history::{History, Moment};
use crate::support::known::Known;
use crate::support::pace::{Limit, Pace};
use crate::support::watcher::{Watcher, lock};
use crate::support::worker::Client;

/// How long those that follow the log may take to reach its end when all is well again.
const FOLLOW_LIMIT: Duration = Duration::from_secs(20);

/// What the threads of the load share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) watcher: Arc<Watcher>,
    stop_following: AtomicBool,
    /// Larger events and no pauses, as far as the pace allows it: to fill chunks.
    heavy: AtomicBool,
    pace: Pace,
    /// A disk is full: writes may be refused for that.
    disk_may_be_full: AtomicBool,
    pub(crate) run: u32,
    refusals: Mutex<BTreeMap<String, usize>>,
    /// The last log position that each follower was told of, while it is connected.
    followed: Mutex<Vec<Option<(i64, i64)>>>,
    pub(crate) known: Known,
}

impl Shared {
    fn new(watcher: Arc<Watcher>, run: u32, limit: Limit) -> Shared {
        Shared {
            stop_following: AtomicBool::new(false),
            heavy: AtomicBool::new(false),
            pace: Pace::new(limit, Instant::now()),
            disk_may_be_full: AtomicBool::new(false),
            run,
            followed: Mutex::new(vec![None; watcher.count()]),
            watcher,
            refusals: Mutex::default(),
            known: Known::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        u64::try_from(self.watcher.elapsed().as_nanos()).expect("a run of less than 500 years")
    }

    pub(crate) fn follows(&self) -> bool {
        !self.stop_following.load(Ordering::Relaxed)
    }

    /// True when an event of so many bytes is wanted and may be written now; it counts as written then.
    pub(crate) fn take_heavy(&self, bytes: usize) -> bool {
        self.heavy.load(Ordering::Relaxed) && self.pace.take(bytes as u64, Instant::now())
    }

    pub(crate) fn disk_may_be_full(&self) -> bool {
        self.disk_may_be_full.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self, text: &str) {
        *lock(&self.refusals).entry(text.to_owned()).or_default() += 1;
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
    pub(crate) fn start(cluster: &Cluster, seed: u64, count: u32, limit: Limit) -> Workload {
        let mut random = fastrand::Rng::with_seed(seed);
        let (watcher, watchers) = Watcher::start(cluster);
        let shared = Arc::new(Shared::new(watcher, random.u32(..), limit));
        let followers = (0..shared.watcher.count()).map(|index| {
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

    /// What its clients know of the nodes and of what was acknowledged.
    pub(crate) fn watcher(&self) -> &Watcher {
        &self.shared.watcher
    }

    /// For other threads that add to its history.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
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

    /// Ends the clients and, when all is well, lets those that follow reach the same end first; the history. What went
    /// wrong is said by [`Watcher::check`]. Nothing more comes when it is called again.
    pub(crate) fn stop(&mut self, wait_for_followers: bool) -> History {
        let shared = &self.shared;
        shared.watcher.stop();
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
            shared
                .watcher
                .wrong(&format!("subscriptions at the nodes ended at {:?}, not at the same position", places()));
        }
        shared.stop_following.store(true, Ordering::Relaxed);
        for follower in self.followers.drain(..) {
            history.append(follower.join().expect("a follower"));
        }
        self.watchers.drain(..).for_each(|thread| thread.join().expect("a watcher"));
        history
    }
}
