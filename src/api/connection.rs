//! One TCP connection: what waits to be sent, the task that sends it, and how it ends.
//!
//! Any code of the edge puts frames into the out-buffer; the connection's writer task takes all that has gathered and
//! sends it with one call. Closing is orderly: what waits is sent first, then the other side is told, and bytes that
//! it still sends are read and forgotten for a moment, because a reset could overtake the last answer. All of that
//! is bounded by [`CLOSE_TIMEOUT`].
//!
//! **Invariant:** no receive or send is ever dropped in flight; it is cancelled and awaited.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use monoio::buf::IoBuf;
use monoio::io::{CancelHandle, Canceller};

use crate::api::counters::add;
use crate::api::turn::Tally;
use crate::http::SecureWriteHalf;
use crate::limits::EDGE_SEND_BYTES;

/// From the decision to close until the socket is closed whatever the other side does.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An out-buffer that has grown beyond this is given back after use.
const BUFFER_KEEP_BYTES: usize = 64 << 10;

/// One that has not is given back when less than this part of it was used: the connection has become quiet. A heartbeat
/// does that to the buffers of one that has nothing else to send.
const BUFFER_USED_PART: usize = 16;

/// A smaller one is not worth it.
const BUFFER_SMALL_BYTES: usize = 512;

/// What waits to be sent on all connections of one edge, together. Clients that take nothing share what there is.
#[derive(Clone, Debug, Default)]
pub(super) struct SendBudget {
    waiting: Rc<Cell<usize>>,
}

impl SendBudget {
    /// True when no more than is needed should be added.
    pub(super) fn is_used_up(&self) -> bool {
        self.waiting.get() > EDGE_SEND_BYTES
    }
}

/// A large frame on its way in.
#[derive(Clone, Copy, Debug)]
pub(super) struct LargeFrame {
    /// Bytes that it holds of the edge's receive budget.
    pub(super) held: usize,
    /// Since when, or since the frame before it was handled.
    pub(super) since: Instant,
}

/// The shared state of one connection's tasks.
pub(super) struct Connection {
    out: RefCell<Vec<u8>>,
    /// Bytes that the writer task has taken and not sent yet.
    writing: Cell<usize>,
    /// Bytes of read answers among those that wait, as long as anything waits.
    excused: Cell<usize>,
    received: Cell<u64>,
    sent: Cell<u64>,
    /// The frame that has begun, when it is a large one.
    frame: Cell<Option<LargeFrame>>,
    /// Set once: nothing more is accepted from or for the other side; close by then at the latest.
    closing: Cell<Option<Instant>>,
    /// Tasks that wait for the other side to take answers: the reader, and the one that does delayed reads.
    paused: Cell<u32>,
    canceller: RefCell<Option<Canceller>>,
    writer_waker: Cell<Option<Waker>>,
    reader_wakers: RefCell<Vec<Waker>>,
    tally: Rc<Tally>,
    budget: SendBudget,
}

impl Connection {
    pub(super) fn new(tally: Rc<Tally>, budget: SendBudget) -> Rc<Connection> {
        Rc::new(Connection {
            out: RefCell::default(),
            writing: Cell::new(0),
            excused: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            frame: Cell::new(None),
            closing: Cell::new(None),
            paused: Cell::new(0),
            canceller: RefCell::new(Some(Canceller::new())),
            writer_waker: Cell::new(None),
            reader_wakers: RefCell::default(),
            tally,
            budget,
        })
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.out.borrow().len() + self.writing.get()
    }

    /// Bytes that wait to be sent, without those of read answers.
    pub(super) fn unexcused_bytes(&self) -> usize {
        self.waiting_bytes().saturating_sub(self.excused.get())
    }

    /// Bytes received; while the reader is paused, bytes taken by the other side count too: it lives.
    pub(super) fn life_signs(&self) -> u64 {
        self.received.get() + if self.is_paused() { self.sent.get() } else { 0 }
    }

    /// True while something waits for the other side to take answers.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.get() > 0
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        self.tally.count_received(bytes);
    }

    /// For the receive buffer: what it now holds of the common budget.
    pub(super) fn set_frame(&self, frame: Option<LargeFrame>) {
        self.frame.set(frame);
    }

    pub(super) fn frame(&self) -> Option<LargeFrame> {
        self.frame.get()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// Lets `write` append to the out-buffer. Does nothing on a connection that is being closed.
    pub(super) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_closing() {
            let mut out = self.out.borrow_mut();
            let before = out.len();
            write(&mut out);
            let waiting = &self.budget.waiting;
            waiting.set(waiting.get() + out.len() - before);
            self.wake_writer();
        }
    }

    /// Like [`Connection::send`], for what the other side has asked for and may be large.
    pub(super) fn send_excused(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.send(|out| {
            let before = out.len();
            write(out);
            self.excused.set(self.excused.get() + out.len() - before);
        });
    }

    /// Sends what waits, then closes.
    pub(super) fn close(&self) {
        if !self.is_closing() {
            self.closing.set(Some(Instant::now() + CLOSE_TIMEOUT));
            self.wake_writer();
            self.wake_readers();
        }
    }

    /// Closes now: ends the calls in flight.
    pub(super) fn abort(&self) {
        self.close();
        if let Some(canceller) = self.canceller.borrow_mut().take() {
            // The returned canceller has nothing to cancel.
            drop(canceller.cancel());
        }
    }

    /// Closes now, because the other side is silent or does not read.
    pub(super) fn cut(&self) {
        self.count_cut();
        self.abort();
    }

    pub(super) fn count_cut(&self) {
        add(&self.tally.counters.cut_connections, 1);
    }

    /// For the sweep: closes at last what was to be closed.
    pub(super) fn enforce_close(&self, now: Instant) {
        if self.closing.get().is_some_and(|until| now >= until) {
            self.abort();
        }
    }

    /// The handle that an input or output call is cancelled by; `None` when the connection is being cut.
    pub(super) fn cancel_handle(&self) -> Option<CancelHandle> {
        self.canceller.borrow().as_ref().map(Canceller::handle)
    }

    /// Waits until at most `limit` bytes wait to be sent, or the connection closes.
    pub(super) async fn until_below(&self, limit: usize) {
        self.paused.set(self.paused.get() + 1);
        poll_fn(|context| {
            if self.waiting_bytes() <= limit || self.is_closing() {
                return Poll::Ready(());
            }
            self.reader_wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
        self.paused.set(self.paused.get() - 1);
    }

    /// Sends what gathers in the out-buffer until the connection closes. The connection's writer task.
    pub(super) async fn write_all(&self, mut half: SecureWriteHalf) {
        let mut spare = Vec::new();
        while let Some(batch) = poll_fn(|context| self.poll_batch(context, &mut spare)).await {
            let Some(mut batch) = self.send_batch(&mut half, batch).await else {
                break;
            };
            let is_kept = is_worth_keeping(batch.len(), batch.capacity());
            batch.clear();
            spare = if is_kept { batch } else { Vec::new() };
        }
        if !self.is_closing() {
            // The other side is gone: nothing to wait for.
            self.abort();
        }
        // Only says that nothing more comes; when the other side is gone that does not matter.
        let _ = match self.cancel_handle() {
            Some(handle) => half.cancelable_shutdown(handle).await,
            None => half.shutdown_now().await,
        };
    }

    /// The next bytes to send; `None` when all is sent and the connection closes.
    fn poll_batch(&self, context: &mut Context<'_>, spare: &mut Vec<u8>) -> Poll<Option<Vec<u8>>> {
        let mut out = self.out.borrow_mut();
        if !out.is_empty() {
            self.writing.set(out.len());
            return Poll::Ready(Some(std::mem::replace(&mut *out, std::mem::take(spare))));
        }
        self.excused.set(0);
        if self.is_closing() {
            return Poll::Ready(None);
        }
        self.writer_waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    async fn send_batch(&self, half: &mut SecureWriteHalf, batch: Vec<u8>) -> Option<Vec<u8>> {
        let (mut batch, mut done) = (batch, 0);
        while done < batch.len() {
            let length = batch.len();
            let (result, slice) = half.cancelable_write(batch.slice(done..length), self.cancel_handle()?).await;
            batch = slice.into_inner();
            let count = result.ok().filter(|&count| count > 0)?;
            done += count;
            self.writing.set(length - done);
            self.budget.waiting.set(self.budget.waiting.get() - count);
            self.sent.set(self.sent.get() + count as u64);
            self.tally.count_sent(count);
            // Else an early page would excuse what is pushed later, for as long as the queue is never quite empty.
            self.excused.set(self.excused.get().min(self.waiting_bytes()));
            self.wake_readers();
        }
        Some(batch)
    }

    fn wake_writer(&self) {
        if let Some(waker) = self.writer_waker.take() {
            waker.wake();
        }
    }

    fn wake_readers(&self) {
        for waker in self.reader_wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.waiting.set(self.budget.waiting.get() - self.waiting_bytes());
    }
}

/// Whether a buffer that `used` bytes were sent from is for the next ones.
fn is_worth_keeping(used: usize, capacity: usize) -> bool {
    capacity <= BUFFER_SMALL_BYTES || (capacity <= BUFFER_KEEP_BYTES && used >= capacity / BUFFER_USED_PART)
}

/// Lets the other tasks of this thread run once.
pub(super) async fn give_way() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        // The runtime runs a task that wakes itself again at once, before all others; one that another task wakes goes to
        // the end of the queue.
        let waker = context.waker().clone();
        monoio::spawn(async move { waker.wake() });
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_way_comes_after_the_others() {
        let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
        builder.build().unwrap().block_on(async {
            let others = Rc::new(Cell::new(0));
            for _ in 0..3 {
                let others = Rc::clone(&others);
                monoio::spawn(async move { others.set(others.get() + 1) });
            }
            give_way().await;
            assert_eq!(others.get(), 3);
        });
    }

    #[test]
    fn a_quiet_connection_gives_its_buffers_back() {
        for (used, capacity, kept) in [
            (22, 64, true),
            (22, BUFFER_SMALL_BYTES, true),
            (22, 4 << 10, false),
            (1 << 10, 16 << 10, true),
            (60 << 10, 64 << 10, true),
            (100 << 10, 100 << 10, false),
        ] {
            assert_eq!(is_worth_keeping(used, capacity), kept, "{used} of {capacity}");
        }
    }
}
