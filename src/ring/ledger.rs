//! Which part of which receive buffer belongs to whom. Plain bookkeeping: no memory, no system calls.

/// Who has a buffer, and how much of it is used up.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Received into so far; what comes next lies behind it.
    consumed: u32,
    /// Slices handed out and not yet released.
    slices: u32,
    /// The kernel may still receive into it.
    with_kernel: bool,
}

/// The books of one group of equally large buffers.
///
/// A buffer starts with the kernel. Each receive consumes a part of it, which becomes a slice. When the kernel has let
/// go of the buffer *and* every slice of it is released, it is to be given back.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    buffer_bytes: u32,
    /// Invariant: the number of entries with `with_kernel`.
    kernel_count: usize,
    /// Buffers that neither the kernel nor a slice needs, to be given back. Invariant: each at most once.
    freed: Vec<u16>,
}

impl Ledger {
    /// `count` buffers of `buffer_bytes`, all with the kernel.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Ledger {
        let entries = vec![Entry { consumed: 0, slices: 0, with_kernel: true }; usize::from(count)];
        Ledger { entries, buffer_bytes, kernel_count: usize::from(count), freed: Vec::with_capacity(count.into()) }
    }

    /// Books `length` received bytes and gives their offset in the buffer. `keeps`: the kernel goes on with the buffer.
    /// With a `length` of 0 no slice comes to be.
    pub(super) fn receive(&mut self, buffer: u16, length: u32, keeps: bool) -> u32 {
        let entry = &mut self.entries[usize::from(buffer)];
        assert!(entry.with_kernel, "bytes in buffer {buffer}, which the kernel does not have");
        let offset = entry.consumed;
        let room = self.buffer_bytes - offset;
        assert!(length <= room, "{length} bytes received into buffer {buffer} with room for {room}");
        entry.consumed += length;
        entry.slices += u32::from(length > 0);
        if !keeps {
            entry.with_kernel = false;
            self.kernel_count -= 1;
            if entry.slices == 0 {
                self.freed.push(buffer);
            }
        }
        offset
    }

    /// One more slice of the same bytes.
    pub(super) fn share(&mut self, buffer: u16) {
        let entry = &mut self.entries[usize::from(buffer)];
        assert!(entry.slices > 0, "a slice of buffer {buffer} is shared, but none is out");
        entry.slices += 1;
    }

    /// Takes a slice back.
    pub(super) fn release(&mut self, buffer: u16) {
        let entry = &mut self.entries[usize::from(buffer)];
        assert!(entry.slices > 0, "a slice of buffer {buffer} is released, but none is out");
        entry.slices -= 1;
        if entry.slices == 0 && !entry.with_kernel {
            self.freed.push(buffer);
        }
    }

    /// A buffer that the caller has to give back to the kernel; booked as given.
    pub(super) fn take_freed(&mut self) -> Option<u16> {
        let buffer = self.freed.pop()?;
        self.entries[usize::from(buffer)] = Entry { consumed: 0, slices: 0, with_kernel: true };
        self.kernel_count += 1;
        Some(buffer)
    }

    /// How many buffers the kernel may receive into.
    pub(super) fn kernel_count(&self) -> usize {
        self.kernel_count
    }

    /// Where the free part of a buffer begins.
    pub(super) fn consumed(&self, buffer: u16) -> u32 {
        self.entries[usize::from(buffer)].consumed
    }

    /// Bytes of one buffer.
    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_when_kernel_and_readers_are_done() {
        let mut ledger = Ledger::new(2, 100);
        assert_eq!(ledger.receive(0, 30, true), 0);
        assert_eq!(ledger.receive(0, 70, false), 30);
        assert_eq!(ledger.kernel_count(), 1);
        ledger.release(0);
        assert_eq!(ledger.take_freed(), None, "one slice is out");
        ledger.release(0);
        assert_eq!(ledger.take_freed(), Some(0));
        assert_eq!((ledger.kernel_count(), ledger.consumed(0)), (2, 0));
        assert_eq!(ledger.take_freed(), None, "it is back already");
    }

    #[test]
    fn readers_may_be_done_before_the_kernel() {
        let mut ledger = Ledger::new(1, 100);
        ledger.receive(0, 10, true);
        ledger.release(0);
        assert_eq!(ledger.take_freed(), None, "the kernel still fills it");
        assert_eq!(ledger.receive(0, 5, false), 10);
        ledger.release(0);
        assert_eq!(ledger.take_freed(), Some(0));
    }

    #[test]
    fn a_shared_slice_counts_twice_and_an_empty_receive_not_at_all() {
        let mut ledger = Ledger::new(2, 100);
        ledger.receive(0, 10, true);
        ledger.share(0);
        ledger.receive(0, 0, false);
        ledger.release(0);
        assert_eq!(ledger.take_freed(), None);
        ledger.release(0);
        assert_eq!(ledger.take_freed(), Some(0));
        ledger.receive(1, 0, false);
        assert_eq!(ledger.take_freed(), Some(1), "the kernel let go of it without a byte");
    }

    #[test]
    #[should_panic(expected = "which the kernel does not have")]
    fn bytes_in_a_buffer_of_ours_are_a_bug() {
        let mut ledger = Ledger::new(1, 100);
        ledger.receive(0, 10, false);
        ledger.receive(0, 10, false);
    }

    #[test]
    #[should_panic(expected = "none is out")]
    fn releasing_twice_is_a_bug() {
        let mut ledger = Ledger::new(1, 100);
        ledger.receive(0, 10, true);
        ledger.release(0);
        ledger.release(0);
    }
}
