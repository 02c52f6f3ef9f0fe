//! The receive buffer of one connection: grows with what arrives, up to the largest frame, within a common budget.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use monoio::buf::IoBufMut;
use monoio::io::CancelableAsyncReadRent;
use monoio::net::tcp::TcpOwnedReadHalf;

use crate::api::connection::{Connection, LargeFrame};
use crate::limits::RECEIVE_BUFFER_BYTES;

/// What one call receives at most while frames are small.
const READ_BYTES: usize = 16 << 10;

/// A frame up to this size is copied out of the buffer, so that it does not keep the whole block alive.
const COPY_BYTES: usize = 4 << 10;

/// What the connections of one edge may hold in large receive buffers, together.
#[derive(Clone, Debug)]
pub(super) struct ReceiveBudget {
    left: Rc<Cell<usize>>,
}

impl ReceiveBudget {
    pub(super) fn new(bytes: usize) -> ReceiveBudget {
        ReceiveBudget { left: Rc::new(Cell::new(bytes)) }
    }
}

/// Received bytes that are not whole frames yet.
pub(super) struct ReceiveBuffer {
    buffer: BytesMut,
    budget: ReceiveBudget,
    /// Taken from the budget.
    taken: usize,
    /// Since when it holds some, or since the last whole frame was taken out.
    since: Option<Instant>,
}

/// How receiving went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// More bytes are in the buffer.
    More,
    /// The other side is gone, or the connection is being cut.
    End,
    /// The edge's budget for large frames is used up.
    NoRoom,
}

impl ReceiveBuffer {
    pub(super) fn new(budget: ReceiveBudget) -> ReceiveBuffer {
        ReceiveBuffer { buffer: BytesMut::new(), budget, taken: 0, since: None }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes the first `count` bytes out.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        self.since = None;
        if count > COPY_BYTES {
            return self.buffer.split_to(count).freeze();
        }
        let frame = Bytes::copy_from_slice(&self.buffer[..count]);
        self.skip(count);
        frame
    }

    /// Forgets the first `count` bytes.
    pub(super) fn skip(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.buffer, count);
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.buffer = BytesMut::new();
    }

    /// Receives once. `frame` is the size of the frame that has begun, as far as known: the buffer doubles towards it,
    /// so that a client that only announces a large frame costs nothing.
    pub(super) async fn receive(
        &mut self,
        half: &mut TcpOwnedReadHalf,
        connection: &Connection,
        frame: usize,
    ) -> Received {
        let length = self.buffer.len();
        let wanted = frame.saturating_sub(length).min(length).max(READ_BYTES);
        if !self.pay_for(length + wanted) {
            return Received::NoRoom;
        }
        self.show_frame(connection);
        self.buffer.reserve(wanted);
        let Some(handle) = connection.cancel_handle() else { return Received::End };
        let buffer = std::mem::take(&mut self.buffer);
        let capacity = buffer.capacity();
        let (result, slice) = half.cancelable_read(buffer.slice_mut(length..capacity), handle).await;
        self.buffer = slice.into_inner();
        match result {
            Ok(0) => Received::End,
            Ok(count) => {
                connection.count_received(count);
                Received::More
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::More,
            Err(_) => Received::End,
        }
    }

    /// Gives everything back.
    pub(super) fn release(&mut self, connection: &Connection) {
        self.clear();
        self.pay_for(0);
        self.show_frame(connection);
    }

    /// Lets others see who holds how much for how long.
    fn show_frame(&mut self, connection: &Connection) {
        self.since = (self.taken > 0).then(|| self.since.unwrap_or_else(Instant::now));
        connection.set_frame(self.since.map(|since| LargeFrame { held: self.taken, since }));
    }

    /// Settles with the budget for a buffer of `bytes`.
    fn pay_for(&mut self, bytes: usize) -> bool {
        let owed = if bytes > RECEIVE_BUFFER_BYTES { bytes } else { 0 };
        let left = self.budget.left.get() + self.taken;
        let enough = owed <= left;
        self.taken = if enough { owed } else { self.taken };
        self.budget.left.set(left - self.taken);
        enough
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        self.budget.left.set(self.budget.left.get() + self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_buffers_use_the_budget_and_they_give_it_back() {
        let budget = ReceiveBudget::new(300_000);
        let mut first = ReceiveBuffer::new(budget.clone());
        let mut second = ReceiveBuffer::new(budget.clone());
        assert!(first.pay_for(RECEIVE_BUFFER_BYTES) && second.pay_for(200_000));
        assert!(!first.pay_for(200_000), "too much together");
        assert!(second.pay_for(100) && first.pay_for(200_000), "the other has given back");
        assert!(first.pay_for(300_000), "what one has itself counts for it");
        drop(first);
        assert_eq!(budget.left.get(), 300_000);
    }
}
