//! Bounded queues between threads, with a wake-up only for a receiver that sleeps.
//!
//! Many threads send, one receives. A full queue is an answer: [`Queue::push`] hands the item back. Senders push a
//! batch and call [`Queue::wake`] once.
//!
//! Some items are hints only: what they say can be seen elsewhere, too. A receiver says with [`Queue::want_hints`] when
//! none need be sent.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Poll;

use atomic_waker::AtomicWaker;
use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

/// How a sleeping receiver is woken.
#[derive(Debug)]
enum Wake {
    /// The receiver is a task on a monoio thread.
    Task(AtomicWaker),
    /// The receiver is a thread that has a read of this eventfd in its ring.
    EventFd(OwnedFd),
}

/// A bounded queue with one receiver.
#[derive(Debug)]
pub struct Queue<T> {
    items: ArrayQueue<T>,
    /// Written true by the receiver before it sleeps, false by the sender that wakes it (or the receiver itself).
    sleeping: AtomicBool,
    /// Written by the receiver.
    wants_hints: AtomicBool,
    wake: Wake,
}

impl<T> Queue<T> {
    /// A queue whose receiver is an async task.
    #[must_use]
    pub fn for_task(capacity: usize) -> Queue<T> {
        Queue {
            items: ArrayQueue::new(capacity),
            sleeping: AtomicBool::new(false),
            wants_hints: AtomicBool::new(true),
            wake: Wake::Task(AtomicWaker::new()),
        }
    }

    /// A queue whose receiver reads an eventfd in its own ring.
    ///
    /// # Errors
    /// Those of `eventfd`.
    pub fn for_ring(capacity: usize) -> io::Result<Queue<T>> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Queue {
            items: ArrayQueue::new(capacity),
            sleeping: AtomicBool::new(false),
            wants_hints: AtomicBool::new(true),
            wake: Wake::EventFd(fd),
        })
    }

    /// Puts an item in, without waking anyone.
    ///
    /// # Errors
    /// Hands the item back when the queue is full.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.items.push(item)
    }

    /// Wakes the receiver if it sleeps. Costs one load otherwise.
    pub fn wake(&self) {
        // Pairs with the fence in `may_sleep`: either we see `sleeping`, or the receiver sees what we pushed.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            match &self.wake {
                Wake::Task(waker) => waker.wake(),
                Wake::EventFd(fd) => {
                    // The counter cannot overflow: one write for each sleep. The kernel wants it in its own byte order.
                    #[allow(clippy::host_endian_bytes)]
                    let written = rustix::io::write(fd, &1u64.to_ne_bytes());
                    debug_assert!(written.is_ok(), "eventfd write: {written:?}");
                }
            }
        }
    }

    /// Puts an item in and wakes the receiver.
    ///
    /// # Errors
    /// Hands the item back when the queue is full.
    pub fn send(&self, item: T) -> Result<(), T> {
        self.push(item)?;
        self.wake();
        Ok(())
    }

    /// Takes the oldest item. For the receiver.
    #[must_use]
    pub fn pop(&self) -> Option<T> {
        self.items.pop()
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Announces that the receiver goes to sleep; false when something arrived and it must not. For the receiver.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.items.is_empty() {
            return true;
        }
        self.sleeping.store(false, Ordering::Relaxed);
        false
    }

    /// Takes the announcement of [`Queue::may_sleep`] back: the receiver was woken by something else. For the receiver.
    pub fn stay_awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Says whether hints are wanted from now on; at first they are. One who wants them again looks for itself after this
    /// call, at what the hints would have told of before. For the receiver.
    pub fn want_hints(&self, wanted: bool) {
        self.wants_hints.store(wanted, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// True when a hint should be sent. Ask after the change that it tells of can be seen.
    #[must_use]
    pub fn wants_hints(&self) -> bool {
        // Pairs with the fence in `want_hints`: either we see the wish, or the receiver sees the change.
        fence(Ordering::SeqCst);
        self.wants_hints.load(Ordering::Relaxed)
    }

    /// Waits until something is there. For a receiver made with [`Queue::for_task`]; safe to drop at any time.
    ///
    /// # Panics
    /// When the queue was made for a ring.
    pub async fn ready(&self) {
        let Wake::Task(waker) = &self.wake else { panic!("this queue's receiver is a ring") };
        poll_fn(|context| {
            waker.register(context.waker());
            if self.may_sleep() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// The eventfd that a sleeping ring reads.
    ///
    /// # Panics
    /// When the queue was made for a task.
    #[must_use]
    pub fn eventfd(&self) -> BorrowedFd<'_> {
        match &self.wake {
            Wake::EventFd(fd) => fd.as_fd(),
            Wake::Task(_) => panic!("this queue's receiver is a task"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_hands_the_item_back() {
        let queue = Queue::for_task(1);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.send(2), Err(2));
        assert_eq!(queue.pop(), Some(1));
        assert!(queue.is_empty());
    }

    #[test]
    fn only_a_sleeping_receiver_is_woken() {
        let queue = Queue::for_ring(4).unwrap();
        queue.send(1).unwrap();
        assert!(!queue.may_sleep(), "something waits");
        assert_eq!(queue.pop(), Some(1));
        assert!(queue.may_sleep());
        queue.send(2).unwrap();
        queue.send(3).unwrap();
        let mut count = [0; 8];
        rustix::io::read(queue.eventfd(), &mut count).unwrap();
        assert_eq!(count.iter().sum::<u8>(), 1, "one wake-up for both");
    }
}
