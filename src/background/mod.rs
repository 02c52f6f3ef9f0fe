//! The background threads: work that nobody waits for, done in small steps at low priority.
//!
//! Each kind of work is a [`Chore`]: sealing full chunks, scrubbing old ones, repairing what rotted, keeping the index's
//! tables. A thread asks each of its own in turn for one bounded step and rests when none has anything to do. The repairer,
//! which waits for other nodes, has a thread of its own.
//!
//! Promises: a step that is slow delays other chores of its thread only, never the log thread or an edge; stopping waits
//! for one step, and a chore that waits for others is told ([`Chore::interrupt`]).
//! Leaves to others: the chunks made ahead of the writer (`storage::Preparer` has a thread of its own, because writes wait
//! for it).

mod expiry_watch;
mod index_keeper;
mod peer_source;
mod repairer;
mod route_watch;
mod scrubber;
mod sealer;
#[cfg(test)]
mod testing;
mod unsealed;

pub use expiry_watch::{ExpiryWatch, ExpiryWatchLinks};
pub use index_keeper::IndexKeeper;
pub use peer_source::{LogInfo, PeerAnswer, PeerSource};
pub use repairer::{Repairer, RepairerLinks};
pub use route_watch::{RouteSource, RouteWatch, RouteWatchLinks};
pub use scrubber::Scrubber;
pub use sealer::Sealer;
pub use unsealed::{UnsealedLinks, UnsealedScrubber};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::ring::pin_thread;

/// Niceness of the threads.
const PRIORITY: i32 = 15;

/// Longest rest: a chore that has nothing to do is asked again after this.
const REST_MAX: Duration = Duration::from_secs(1);

/// A longer step delays the others; it is logged.
const STEP_EXPECTED: Duration = Duration::from_millis(500);

/// When a chore wants its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is more to do now.
    Now,
    /// Not before this much time has passed; at least once a second all the same.
    After(Duration),
}

/// One kind of work.
pub trait Chore: Send {
    /// Its name in log lines.
    fn name(&self) -> &'static str;

    /// Does a bounded piece of work (some milliseconds, some MiB) and says when to come back. Trouble is its own to
    /// report and to remember: the thread knows nothing of it.
    fn step(&mut self, now: Instant) -> Next;

    /// What becomes true when the thread is to stop, for a chore whose step may wait: it gives up soon then.
    fn interrupt(&self) -> Option<Arc<AtomicBool>> {
        None
    }
}

/// The handle on a thread; dropping it stops the thread and waits for its current step.
#[derive(Debug)]
pub struct Background {
    orders: Arc<Orders>,
    interrupts: Vec<Arc<AtomicBool>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Orders {
    stop: Mutex<bool>,
    changed: Condvar,
}

impl Background {
    /// Starts a thread with this name for these chores, on these CPUs if any are given.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &'static str, cpus: &[usize], mut chores: Vec<Box<dyn Chore>>) -> io::Result<Background> {
        let interrupts = chores.iter().filter_map(|chore| chore.interrupt()).collect();
        let orders = Arc::new(Orders::default());
        let seen = Arc::clone(&orders);
        let cpus = cpus.to_vec();
        let run = move || {
            if !cpus.is_empty()
                && let Err(error) = pin_thread(&cpus)
            {
                tracing::warn!(?cpus, %error, "the {name} thread cannot be pinned; it runs anywhere");
            }
            if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
                tracing::warn!("the {name} thread keeps its priority: setpriority failed ({error})");
            }
            work(&mut chores, &seen);
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Background { orders, interrupts, thread: Some(thread) })
    }

    /// Stops the thread and waits for its current step.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.interrupts.iter().for_each(|interrupt| interrupt.store(true, Ordering::Release));
        *self.orders.stop.lock() = true;
        self.orders.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

/// Steps of all chores that are due, one each in turn, until told to stop.
fn work(chores: &mut [Box<dyn Chore>], orders: &Orders) {
    let mut due = vec![Instant::now(); chores.len()];
    loop {
        for (chore, due) in chores.iter_mut().zip(&mut due) {
            if *orders.stop.lock() {
                return;
            }
            let now = Instant::now();
            if *due <= now {
                let next = chore.step(now);
                if now.elapsed() > STEP_EXPECTED {
                    tracing::debug!(chore = chore.name(), took = ?now.elapsed(), "a step in the background was long");
                }
                *due = match next {
                    Next::Now => now,
                    Next::After(rest) => Instant::now() + rest.min(REST_MAX),
                };
            }
        }
        let rest = due.iter().min().map_or(REST_MAX, |next| next.saturating_duration_since(Instant::now()));
        let mut stop = orders.stop.lock();
        if !*stop && !rest.is_zero() {
            orders.changed.wait_for(&mut stop, rest);
        }
        if *stop {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Countdown {
        left: u32,
        report: Sender<u32>,
    }

    impl Chore for Countdown {
        fn name(&self) -> &'static str {
            "countdown"
        }

        fn step(&mut self, _: Instant) -> Next {
            if self.left == 0 {
                return Next::After(Duration::from_secs(3600));
            }
            self.left -= 1;
            self.report.send(self.left).unwrap();
            Next::Now
        }
    }

    #[test]
    fn chores_take_turns_until_they_rest_and_a_resting_thread_stops_at_once() {
        let (report, reports) = channel();
        let chore = |left| Box::new(Countdown { left, report: report.clone() }) as Box<dyn Chore>;
        let background = Background::start("background", &[], vec![chore(3), chore(2)]).unwrap();
        let seen: Vec<u32> = reports.iter().take(5).collect();
        assert_eq!(seen, [2, 1, 1, 0, 0]);
        let began = Instant::now();
        background.stop();
        assert!(began.elapsed() < Duration::from_secs(60) && reports.try_recv().is_err());
    }
}
