//! Receive buffers that the kernel picks from: a provided buffer ring with incremental consumption where the kernel has
//! it (6.12), else the same buffers, filled by one receive at a time.
//!
//! Who has which part of a buffer is in [`Ledger`]; here are the memory and the ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, Submitter};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::error::{Failure, RingError};
use super::ledger::Ledger;

/// `IOU_PBUF_RING_INC`: a receive takes as much of a buffer as it needs, the rest serves the next one.
pub(super) const INCREMENTAL: u16 = 2;

/// A free part smaller than this is not worth a receive of its own; only where the kernel does not count for us.
const SMALLEST_RECEIVE_BYTES: u32 = 4096;

/// Anonymous memory of our own, page-aligned, zeroed, given by the system page by page as it is first touched.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    length: usize,
}

impl Memory {
    fn new(length: usize) -> io::Result<Memory> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::PRIVATE)? };
        Ok(Memory { start: NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED"), length })
    }

    fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.length, "offset {offset} in {} bytes", self.length);
        // SAFETY: the offset was checked to lie within the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped; whoever refers to it holds the owner of this value.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "munmap of our own range: {unmapped:?}");
    }
}

/// What slices and the group share.
#[derive(Debug)]
struct Shared {
    ledger: RefCell<Ledger>,
    memory: Memory,
}

/// Received bytes where the kernel put them. While a slice or a clone of it lives, its buffer is not received into
/// again; dropping the last one gives the buffer back at the next turn of the driver.
#[derive(Debug)]
pub struct Slice {
    shared: Rc<Shared>,
    buffer: u16,
    offset: u32,
    length: u32,
}

impl Slice {
    /// The part of `length` bytes from `from` on, as a slice of its own.
    ///
    /// # Panics
    /// When the part is not inside.
    #[must_use]
    pub fn part(&self, from: u32, length: u32) -> Slice {
        let inside = from.checked_add(length).is_some_and(|end| end <= self.length);
        assert!(inside, "{length} bytes at {from} of a slice of {}", self.length);
        self.shared.ledger.borrow_mut().share(self.buffer);
        Slice { shared: Rc::clone(&self.shared), buffer: self.buffer, offset: self.offset + from, length }
    }

    /// Its length in bytes, as a number that fits an operation.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    fn pointer(&self) -> *mut u8 {
        let buffer_bytes = self.shared.ledger.borrow().buffer_bytes() as usize;
        self.shared.memory.pointer(usize::from(self.buffer) * buffer_bytes + self.offset as usize)
    }
}

impl Clone for Slice {
    fn clone(&self) -> Slice {
        self.part(0, self.length)
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel wrote these bytes and, by the ledger, leaves them alone until this slice is dropped; the
        // memory lives as long as `shared`.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.length as usize) }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.shared.ledger.borrow_mut().release(self.buffer);
    }
}

/// Who picks the buffer that is received into.
#[derive(Debug)]
enum Supply {
    /// The kernel, from a ring that we fill.
    Kernel(ProvidedRing),
    /// We; the front one is being filled.
    Own {
        free: VecDeque<u16>,
        /// A receive into the front one is under way: there can be only one.
        busy: bool,
    },
}

/// A group of equally large buffers, for one stream at a time (a second one may still be ending).
#[derive(Debug)]
pub(super) struct BufferGroup {
    shared: Rc<Shared>,
    supply: Supply,
    /// Operations whose stream stopped for want of a buffer.
    pub(super) waiting: Vec<u32>,
}

/// How the next receive of a stream is to be made.
pub(super) enum Next {
    /// Multishot, the kernel picks buffers of this group.
    Multishot(u16),
    /// One receive of `length` bytes to `pointer`.
    Single { pointer: *mut u8, length: u32 },
    /// No buffer is free.
    Wait,
}

impl BufferGroup {
    /// `count` buffers of `buffer_bytes` as group `id` of `ring`. With `incremental` false the kernel gets no ring.
    pub(super) fn new(
        ring: &IoUring,
        id: u16,
        count: u16,
        bytes: u32,
        incremental: bool,
    ) -> Result<BufferGroup, RingError> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers in a group");
        let total = usize::from(count) * bytes as usize;
        let refused = |error| RingError::Buffers { bytes: total, failure: Failure::from_io(&error) };
        let memory = Memory::new(total).map_err(refused)?;
        let supply = if incremental {
            let mut provided = ProvidedRing::new(&ring.submitter(), id, count).map_err(refused)?;
            (0..count)
                .for_each(|buffer| provided.add(buffer, memory.pointer(usize::from(buffer) * bytes as usize), bytes));
            provided.publish();
            Supply::Kernel(provided)
        } else {
            Supply::Own { free: (0..count).collect(), busy: false }
        };
        let shared = Rc::new(Shared { ledger: RefCell::new(Ledger::new(count, bytes)), memory });
        Ok(BufferGroup { shared, supply, waiting: Vec::new() })
    }

    /// How to receive next. A `Single` is under way from here on, until [`BufferGroup::received_single`].
    pub(super) fn next(&mut self) -> Next {
        let ledger = self.shared.ledger.borrow();
        match &mut self.supply {
            Supply::Kernel(ring) if ledger.kernel_count() > 0 => Next::Multishot(ring.group),
            Supply::Own { free, busy: busy @ false } if !free.is_empty() => {
                *busy = true;
                let consumed = ledger.consumed(free[0]);
                let at = usize::from(free[0]) * ledger.buffer_bytes() as usize + consumed as usize;
                Next::Single { pointer: self.shared.memory.pointer(at), length: ledger.buffer_bytes() - consumed }
            }
            Supply::Kernel(_) | Supply::Own { .. } => Next::Wait,
        }
    }

    /// Books what a multishot receive brought; `keeps`: the kernel goes on with the buffer.
    pub(super) fn received(&mut self, buffer: u16, length: u32, keeps: bool) -> Option<Slice> {
        let offset = self.shared.ledger.borrow_mut().receive(buffer, length, keeps);
        (length > 0).then(|| Slice { shared: Rc::clone(&self.shared), buffer, offset, length })
    }

    /// Books what a single receive brought: `length` bytes in the front buffer, 0 for nothing.
    pub(super) fn received_single(&mut self, length: u32) -> Option<Slice> {
        let Supply::Own { free, busy } = &mut self.supply else { panic!("the kernel picks this group's buffers") };
        assert!(*busy, "a receive that was not under way");
        *busy = false;
        let buffer = free[0];
        let room = {
            let ledger = self.shared.ledger.borrow();
            ledger.buffer_bytes() - ledger.consumed(buffer) - length
        };
        let keeps = room >= SMALLEST_RECEIVE_BYTES;
        if !keeps {
            free.pop_front();
        }
        self.received(buffer, length, keeps)
    }

    /// True when we pick the buffers and each receive is a single one.
    pub(super) fn is_single(&self) -> bool {
        matches!(self.supply, Supply::Own { .. })
    }

    /// Gives the kernel what nobody needs any more.
    pub(super) fn give_back(&mut self) {
        let mut ledger = self.shared.ledger.borrow_mut();
        let bytes = ledger.buffer_bytes();
        while let Some(buffer) = ledger.take_freed() {
            match &mut self.supply {
                Supply::Own { free, .. } => free.push_back(buffer),
                Supply::Kernel(ring) => {
                    ring.add(buffer, self.shared.memory.pointer(usize::from(buffer) * bytes as usize), bytes);
                    ring.publish();
                }
            }
        }
    }
}

/// The ring of free buffers that we fill and the kernel empties. We alone write the tail; the kernel keeps its own head.
#[derive(Debug)]
struct ProvidedRing {
    memory: Memory,
    group: u16,
    /// Entries minus one. Invariant: entries are a power of two, and as many as there are buffers, so it cannot overflow.
    mask: u16,
    tail: u16,
}

impl ProvidedRing {
    fn new(submitter: &Submitter<'_>, group: u16, entries: u16) -> io::Result<ProvidedRing> {
        let memory = Memory::new(usize::from(entries) * size_of::<BufRingEntry>())?;
        let address = memory.pointer(0) as u64;
        // SAFETY: the ring's memory belongs to the group, which the driver frees only after the io_uring is gone.
        unsafe { submitter.register_buf_ring_with_flags(address, entries, group, INCREMENTAL)? };
        Ok(ProvidedRing { memory, group, mask: entries - 1, tail: 0 })
    }

    /// Writes an entry that the kernel sees after [`ProvidedRing::publish`].
    fn add(&mut self, buffer: u16, pointer: *mut u8, length: u32) {
        let index = usize::from(self.tail & self.mask);
        let entry: *mut BufRingEntry = self.memory.pointer(index * size_of::<BufRingEntry>()).cast();
        // SAFETY: the entry lies in our ring (index <= mask), page-aligned memory fits its alignment, and the kernel does
        // not read it before the tail passes it. The tail itself lies in a field of entry 0 that the setters leave alone.
        let entry = unsafe { &mut *entry };
        entry.set_addr(pointer as u64);
        entry.set_len(length);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was added.
    fn publish(&mut self) {
        // SAFETY: the first entry is initialised (zeroed at least), and `pointer(0)` is the ring's base.
        let tail = unsafe { BufRingEntry::tail(self.memory.pointer(0).cast()) };
        // SAFETY: the tail is an aligned u16 inside our memory, which only this thread writes and the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
