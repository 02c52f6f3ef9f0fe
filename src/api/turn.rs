//! A turn is what a task does between two waits. The time and the node's role are looked up once for it.
//!
//! What must be told to others is gathered: figures are added up for many requests, and the log thread is woken when the
//! tasks that are ready have run, [`HANDED_MAX`] requests wait for it, or something begins that may take long.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::api::counters::{add, subtract};
use crate::api::edge::EdgeState;
use crate::engine::{ClientCounters, Published, Role};
use crate::ring::monotonic_now;
use crate::types::Ticks;

/// Requests handed to the log thread after which it is told at once: it should not wait for the end of a long turn.
const HANDED_MAX: usize = 128;

/// Read once for many requests. A task takes a new one when it begins and after each wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Now.
    pub(super) now: Instant,
    /// Now, on the log thread's clock.
    pub(super) ticks: Ticks,
    /// What the node is.
    pub(super) role: Role,
}

impl Turn {
    pub(super) fn new(published: &Published) -> Turn {
        Turn { now: Instant::now(), ticks: monotonic_now(), role: published.role() }
    }
}

/// What one edge has counted and not yet told: the common counters are written by all edges, and a write to them for each
/// request would cost more than much of the request itself.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counters: Arc<ClientCounters>,
    requests: Cell<u64>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    /// The edge's part of the waiting requests, as last told.
    pending: Cell<u64>,
}

impl Tally {
    pub(super) fn new(counters: Arc<ClientCounters>) -> Tally {
        Tally { counters, ..Tally::default() }
    }

    pub(super) fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received_bytes.set(self.received_bytes.get() + bytes as u64);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }

    /// Brings the common counters up to date. `pending` requests of this edge wait now.
    pub(super) fn tell(&self, pending: usize) {
        let counters = &*self.counters;
        tell(&self.requests, &counters.requests);
        tell(&self.received_bytes, &counters.received_bytes);
        tell(&self.sent_bytes, &counters.sent_bytes);
        let pending = pending as u64;
        let before = self.pending.replace(pending);
        if pending > before {
            add(&counters.pending_requests_now, pending - before);
        } else if pending < before {
            subtract(&counters.pending_requests_now, before - pending);
        }
    }
}

fn tell(own: &Cell<u64>, common: &AtomicU64) {
    let count = own.take();
    if count > 0 {
        common.fetch_add(count, Ordering::Relaxed);
    }
}

/// The requests handed to the log thread since it was last woken.
#[derive(Default)]
pub(super) struct Handed {
    count: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl EdgeState {
    /// Takes the time and the role anew.
    pub(super) fn begin_turn(&self) {
        self.turn.set(Turn::new(&self.links.published));
    }

    pub(super) fn now(&self) -> Instant {
        self.turn.get().now
    }

    /// A request lies in the log thread's queue. It is woken when the tasks that are ready now have run: requests of many
    /// connections then make one batch, and nobody waits for a timer.
    pub(super) fn handed_over(&self) {
        let count = self.handed.count.get() + 1;
        self.handed.count.set(count);
        if count == 1
            && let Some(waker) = self.handed.waker.take()
        {
            waker.wake();
        } else if count >= HANDED_MAX {
            self.wake_log_thread();
        }
    }

    /// What comes next may take long: the log thread need not wait for it.
    pub(super) fn before_long_work(&self) {
        if self.handed.count.get() > 0 {
            self.wake_log_thread();
        }
    }

    pub(super) fn wake_log_thread(&self) {
        self.handed.count.set(0);
        self.links.log_queue.wake();
    }

    /// Brings the common counters up to date.
    pub(super) fn tell_figures(&self) {
        self.tally.tell(self.pending.borrow().len());
    }
}

/// Wakes the log thread once for all that was handed over by the tasks before this one. Runs as long as the edge.
pub(super) async fn hand_over(edge: Rc<EdgeState>) {
    loop {
        poll_fn(|context| {
            if edge.handed.count.get() > 0 {
                return Poll::Ready(());
            }
            *edge.handed.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        edge.wake_log_thread();
        edge.tell_figures();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::api::EdgeOptions;
    use crate::api::connection::give_way;
    use crate::api::testing::lonely_links;
    use crate::engine::{Request, Ticket};

    /// Hands some requests over without giving way.
    fn hand(edge: &EdgeState, count: usize) {
        for _ in 0..count {
            edge.submit(0, Request::Barrier { ticket: Ticket { edge: 0, key: 0 } });
        }
    }

    /// True when the sleeping log thread has been woken.
    fn is_woken(edge: &EdgeState) -> bool {
        let file = edge.links.log_queue.eventfd();
        let mut files = [PollFd::new(&file, PollFlags::IN)];
        poll(&mut files, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce(Rc<EdgeState>) -> F) {
        let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer();
        builder.build().unwrap().block_on(async {
            let edge = EdgeState::new(EdgeOptions::new(0, 1 << 20), lonely_links());
            assert!(edge.links.log_queue.may_sleep());
            monoio::spawn(hand_over(Rc::clone(&edge)));
            give_way().await;
            test(edge).await;
        });
    }

    #[test]
    fn the_log_thread_is_woken_once_for_the_requests_of_all_ready_tasks() {
        run(|edge| async move {
            let readers = (0..5).map(|_| {
                let edge = Rc::clone(&edge);
                monoio::spawn(async move {
                    hand(&edge, 3);
                    assert!(!is_woken(&edge), "others are ready");
                })
            });
            for reader in readers.collect::<Vec<_>>() {
                reader.await;
            }
            give_way().await;
            assert!(is_woken(&edge));
            assert_eq!((edge.links.log_queue.len(), edge.handed.count.get()), (15, 0));
        });
    }

    #[test]
    fn a_single_request_waits_for_no_timer() {
        run(|edge| async move {
            hand(&edge, 1);
            assert!(!is_woken(&edge));
            give_way().await;
            assert!(is_woken(&edge));
        });
    }

    #[test]
    fn the_log_thread_does_not_wait_for_long_work() {
        run(|edge| async move {
            edge.before_long_work();
            assert!(!is_woken(&edge), "there is nothing for it");
            hand(&edge, 1);
            edge.before_long_work();
            assert!(is_woken(&edge));
        });
    }

    #[test]
    fn many_requests_do_not_wait_for_the_end_of_a_turn() {
        run(|edge| async move {
            hand(&edge, HANDED_MAX - 1);
            assert!(!is_woken(&edge));
            hand(&edge, 1);
            assert!(is_woken(&edge));
        });
    }

    #[test]
    fn a_new_turn_has_the_time_and_the_role_of_now() {
        run(|edge| async move {
            let before = edge.turn.get();
            edge.links.published.set_view(crate::engine::NodeView { role: Role::Leader, ..Default::default() });
            std::thread::sleep(Duration::from_millis(2));
            assert_eq!((edge.now(), edge.turn.get().role), (before.now, before.role));
            edge.begin_turn();
            assert!(edge.now() > before.now && edge.turn.get().ticks > before.ticks);
            assert_eq!(edge.turn.get().role, Role::Leader);
        });
    }

    #[test]
    fn figures_are_told_once_for_many_requests() {
        let counters = Arc::new(ClientCounters::default());
        let tallies = [Tally::new(Arc::clone(&counters)), Tally::new(Arc::clone(&counters))];
        for tally in &tallies {
            tally.count_request();
            tally.count_request();
            tally.count_received(10);
            tally.count_sent(7);
        }
        let seen = || {
            let all =
                [&counters.requests, &counters.received_bytes, &counters.sent_bytes, &counters.pending_requests_now];
            all.map(|counter| counter.load(Ordering::Relaxed))
        };
        assert_eq!(seen(), [0; 4]);
        tallies[0].tell(5);
        tallies[1].tell(3);
        assert_eq!(seen(), [4, 20, 14, 8]);
        tallies[0].tell(1);
        tallies[1].tell(3);
        assert_eq!(seen(), [4, 20, 14, 4]);
    }
}
