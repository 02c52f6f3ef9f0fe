//! The receive buffer of one connection: adapts to what arrives. While frames are small it costs no budget; a frame beyond
//! [`RECEIVE_BUFFER_BYTES`] takes memory from what the connections of the edge share, as its bytes arrive.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use monoio::buf::IoBufMut;

use crate::api::connection::{Connection, LargeFrame};
use crate::http::SecureReadHalf;
use crate::limits::{RECEIVE_BUFFER_BYTES, RECEIVE_BUSY_BYTES, RECEIVE_IDLE_BYTES};
use crate::security::TlsError;

/// By how much the room grows and shrinks.
const ROOM_STEP: usize = 4;

/// After so many small receives the room shrinks. An idle connection has one with each heartbeat.
const QUIET_RECEIVES: u8 = 4;

/// A frame up to this size is copied out of the buffer in any case.
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
///
/// Small while the connection is quiet, since its memory waits in a receive that may last for hours, and larger as long as
/// receives fill it.
pub(super) struct ReceiveBuffer {
    buffer: Vec<u8>,
    /// What lies before this was taken out.
    start: usize,
    /// Room for the next receive, while frames are small.
    room: usize,
    /// Receives in a row that needed much less than the room.
    quiet: u8,
    budget: ReceiveBudget,
    /// Taken from the budget.
    taken: usize,
    /// Since when it holds some, or since the last whole frame was taken out.
    since: Option<Instant>,
    /// Why TLS ended it.
    tls_error: Option<TlsError>,
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
        let (buffer, room) = (Vec::new(), RECEIVE_IDLE_BYTES);
        ReceiveBuffer { buffer, start: 0, room, quiet: 0, budget, taken: 0, since: None, tls_error: None }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Takes the first `count` bytes out, with memory of their own: of frame and rest the shorter one is copied.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        let end = self.start + count;
        if self.buffer.len() - end >= count || count <= COPY_BYTES {
            let frame = Bytes::copy_from_slice(&self.bytes()[..count]);
            self.skip(count);
            return frame;
        }
        let rest = self.buffer[end..].to_vec();
        let (frame, start) = (std::mem::replace(&mut self.buffer, rest), std::mem::take(&mut self.start));
        self.since = None;
        Bytes::from(frame).slice(start..end)
    }

    /// Takes the first `count` bytes out: they are done with.
    pub(super) fn skip(&mut self, count: usize) {
        self.since = None;
        self.start += count;
        debug_assert!(self.start <= self.buffer.len(), "more than was there");
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.buffer = Vec::new();
        self.start = 0;
    }

    /// Receives once. `frame` is the size of the frame that has begun, as far as known: the buffer doubles towards it when
    /// it is nearly full, so that a client that only announces a large frame costs nothing.
    pub(super) async fn receive(
        &mut self,
        half: &mut SecureReadHalf,
        connection: &Connection,
        frame: usize,
    ) -> Received {
        let wanted = self.wanted(frame);
        if !self.pay_for(self.bytes().len() + wanted) {
            return Received::NoRoom;
        }
        self.show_frame(connection);
        self.make_room(wanted);
        let Some(handle) = connection.cancel_handle() else { return Received::End };
        let buffer = std::mem::take(&mut self.buffer);
        let (length, capacity) = (buffer.len(), buffer.capacity());
        let (result, slice) = half.cancelable_read(buffer.slice_mut(length..capacity), handle).await;
        self.buffer = slice.into_inner();
        match result {
            Ok(0) => Received::End,
            Ok(count) => {
                self.learn(count, capacity - length);
                connection.count_received(count);
                Received::More
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::More,
            Err(error) => {
                self.tls_error = error.downcast::<TlsError>().ok();
                Received::End
            }
        }
    }

    /// Why TLS has ended the connection, if it has: said once.
    pub(super) fn take_tls_error(&mut self) -> Option<TlsError> {
        self.tls_error.take()
    }

    /// How much to receive next.
    fn wanted(&self, frame: usize) -> usize {
        let length = self.bytes().len();
        let missing = frame.saturating_sub(length);
        if frame > RECEIVE_BUFFER_BYTES {
            // While there is room for a good receive nothing moves: each byte is moved about once, however they arrive.
            let free = self.buffer.capacity() - self.buffer.len();
            let is_enough = free >= missing.min(RECEIVE_BUSY_BYTES);
            let more = length.max(RECEIVE_BUFFER_BYTES.saturating_sub(length));
            return if is_enough { free } else { missing.min(more).max(RECEIVE_BUSY_BYTES) };
        }
        // Frames that fit stay within what costs nothing of the budget.
        self.room.max(missing).min(RECEIVE_BUFFER_BYTES - length)
    }

    /// Room behind the bytes that are there, in memory that fits.
    fn make_room(&mut self, wanted: usize) {
        let needed = self.bytes().len() + wanted;
        if self.buffer.capacity() >= 2 * needed {
            let mut smaller = Vec::with_capacity(needed);
            smaller.extend_from_slice(self.bytes());
            (self.buffer, self.start) = (smaller, 0);
        } else if self.buffer.capacity() - self.buffer.len() < wanted {
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(needed - wanted);
            self.start = 0;
            self.buffer.reserve_exact(wanted);
        }
    }

    /// Adapts the room to what came: `count` bytes into room for `offered`.
    fn learn(&mut self, count: usize, offered: usize) {
        self.quiet = if count < self.room / ROOM_STEP { self.quiet + 1 } else { 0 };
        if count == offered {
            self.room = (self.room * ROOM_STEP).min(RECEIVE_BUSY_BYTES);
        } else if self.quiet >= QUIET_RECEIVES {
            self.room = (self.room / ROOM_STEP).max(RECEIVE_IDLE_BYTES);
            self.quiet = 0;
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
    fn buffer() -> ReceiveBuffer {
        ReceiveBuffer::new(ReceiveBudget::new(1 << 20))
    }

    /// As if `count` bytes had come.
    fn arrive(buffer: &mut ReceiveBuffer, frame: usize, count: usize) {
        let wanted = buffer.wanted(frame);
        buffer.make_room(wanted);
        let offered = buffer.buffer.capacity() - buffer.buffer.len();
        assert!(offered >= wanted);
        let count = count.min(offered);
        let next = buffer.buffer.len() as u8;
        buffer.buffer.extend((0..count).map(|index| next.wrapping_add(index as u8)));
        buffer.learn(count, offered);
    }

    #[test]
    fn the_buffer_grows_under_load_and_shrinks_when_it_is_quiet() {
        let mut buffer = buffer();
        for _ in 0..5 {
            arrive(&mut buffer, 0, 1 << 20);
            buffer.skip(buffer.bytes().len());
        }
        assert_eq!(buffer.room, RECEIVE_BUSY_BYTES);
        // Work that does not fill it keeps it.
        for _ in 0..100 {
            arrive(&mut buffer, 0, 10 << 10);
            buffer.skip(buffer.bytes().len());
        }
        assert_eq!(buffer.room, RECEIVE_BUSY_BYTES);
        for _ in 0..3 * usize::from(QUIET_RECEIVES) {
            arrive(&mut buffer, 0, 22);
            buffer.skip(22);
        }
        arrive(&mut buffer, 0, 22);
        assert_eq!((buffer.room, buffer.buffer.capacity()), (RECEIVE_IDLE_BYTES, RECEIVE_IDLE_BYTES));
    }

    #[test]
    fn small_frames_never_need_the_budget() {
        let mut buffer = buffer();
        buffer.room = RECEIVE_BUSY_BYTES;
        arrive(&mut buffer, 0, RECEIVE_BUSY_BYTES);
        for frame in [RECEIVE_BUSY_BYTES + 1, RECEIVE_BUFFER_BYTES] {
            let total = buffer.bytes().len() + buffer.wanted(frame);
            assert!((frame..=RECEIVE_BUFFER_BYTES).contains(&total), "{total}");
        }
        assert!(buffer.wanted(RECEIVE_BUFFER_BYTES + 1) >= RECEIVE_BUSY_BYTES);
        assert!(buffer.wanted(64 << 20) <= 2 * RECEIVE_BUSY_BYTES, "what was announced is not there yet");
    }

    #[test]
    fn a_large_frame_in_small_pieces_is_moved_a_few_times_only() {
        let mut buffer = buffer();
        let (frame, mut moved) = (1 << 20, 0);
        while buffer.bytes().len() < frame {
            let (length, capacity) = (buffer.bytes().len(), buffer.buffer.capacity());
            let wanted = buffer.wanted(frame);
            assert!(buffer.pay_for(length + wanted));
            arrive(&mut buffer, frame, (frame - length).min(700));
            moved += if buffer.buffer.capacity() == capacity { 0 } else { length };
            assert!(buffer.taken == 0 || buffer.taken >= buffer.buffer.capacity(), "what is held is paid for");
            assert!(buffer.buffer.capacity() <= (2 * length).max(RECEIVE_BUFFER_BYTES) + RECEIVE_BUSY_BYTES);
        }
        assert!(moved < 2 * frame, "{moved} bytes of {frame}");
        assert_eq!(buffer.take(frame).len(), frame);
    }

    #[test]
    fn frames_come_out_whole_however_they_are_taken() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut buffer = buffer();
        let mut expected = Vec::new();
        for _ in 0..2000 {
            let wanted = buffer.wanted(0);
            buffer.make_room(wanted);
            let count = random.usize(1..=wanted);
            let piece: Vec<u8> = (0..count).map(|_| random.u8(..)).collect();
            buffer.buffer.extend_from_slice(&piece);
            buffer.learn(count, wanted);
            expected.extend_from_slice(&piece);
            while buffer.bytes().len() > 8 << 10 || (random.bool() && !buffer.bytes().is_empty()) {
                let size = random.usize(1..=buffer.bytes().len());
                if random.bool() {
                    assert_eq!(buffer.bytes()[..size], expected[..size]);
                    buffer.skip(size);
                } else {
                    assert_eq!(buffer.take(size), expected[..size]);
                }
                expected.drain(..size);
            }
            assert_eq!(buffer.bytes(), expected);
        }
    }
}
