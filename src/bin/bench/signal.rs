//! Waking tasks of one thread: a signal from one task to another, and the ticks of a timer to all that wait for one.
//! Both live on one thread and need no lock.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::task::{Poll, Waker};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Set by any task, waited for by one. A signal given while nobody waits is kept, once.
#[derive(Default)]
pub(crate) struct Signal {
    given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    pub(crate) fn give(&self) {
        self.given.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.given.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Wakes all tasks that wait for the next tick.
#[derive(Default)]
pub(crate) struct Ticks {
    count: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Ticks {
    pub(crate) fn tick(&self) {
        self.count.set(self.count.get() + 1);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// Until `ticks` of them have passed.
    pub(crate) async fn wait(&self, ticks: u64) {
        let until = self.count.get() + ticks;
        poll_fn(|context| {
            if self.count.get() >= until {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A timer of the kernel, read through the ring: the runtime's own have a resolution of a millisecond, too coarse to
/// pace requests with.
pub(crate) struct Timer {
    file: tokio_uring::fs::File,
    descriptor: File,
    buffer: Vec<u8>,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = File::from(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?);
        let file = tokio_uring::fs::File::from_std(descriptor.try_clone()?);
        Ok(Self { file, descriptor, buffer: Vec::with_capacity(8) })
    }

    /// Expires after `first`, and then each `every`; zero is "not again".
    pub(crate) fn set(&self, first: Duration, every: Duration) -> io::Result<()> {
        // All zero would switch the timer off.
        let setting =
            Itimerspec { it_value: timespec(first.max(Duration::from_nanos(1))), it_interval: timespec(every) };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }

    pub(crate) async fn expired(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let (result, buffer) = self.file.read_at(buffer, 0).await;
        self.buffer = buffer;
        result.map(|_| ())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
