//! A ring of bytes mapped twice in a row, so that every window up to its capacity is one slice.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::types::LogPosition;

/// A ring addressed by log position: the byte at position `p` lies at `p % capacity`, and the memory behind the end is
/// the beginning again. Owned by one thread; the kernel reads from it while writes and sends are in flight, and the
/// owner must not overwrite such a range (the engine's reclaim rule).
#[derive(Debug)]
pub struct MirroredBuffer {
    memory: Arc<DoubleMapping>,
}

/// The memory, kept as long as the buffer or an operation of the ring refers to it.
#[derive(Debug)]
struct DoubleMapping {
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the mapping may be unmapped by any thread; it hands out no references itself.
unsafe impl Send for DoubleMapping {}
// SAFETY: as above: shared access only tells the address. References are made by the one `MirroredBuffer`.
unsafe impl Sync for DoubleMapping {}

/// A range of a [`MirroredBuffer`] for an operation of the ring: the kernel reads it, and the memory stays mapped as
/// long as this value lives. It gives no access to the bytes.
#[derive(Clone, Debug)]
pub struct Window {
    memory: Arc<DoubleMapping>,
    position: LogPosition,
    length: u32,
}

impl MirroredBuffer {
    /// A zeroed ring of `capacity` bytes.
    ///
    /// # Errors
    /// Those of `memfd_create`, `ftruncate` and `mmap`.
    ///
    /// # Panics
    /// When `capacity` is not a power of two of at least a page.
    pub fn new(capacity: usize) -> io::Result<MirroredBuffer> {
        assert!(capacity.is_power_of_two() && capacity >= 4096, "log buffer of {capacity} bytes");
        let memory = memfd_create("ringstore-log-buffer", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, capacity as u64)?;
        // SAFETY: reserves a fresh range; aliases nothing.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), capacity * 2, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let start: NonNull<u8> = NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED");
        let buffer = MirroredBuffer { memory: Arc::new(DoubleMapping { start, capacity }) };
        for half in 0..2 {
            // SAFETY: `half * capacity` lies inside the range reserved above.
            let at = unsafe { start.as_ptr().add(half * capacity) };
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: replaces pages of our own reservation, which nothing refers to yet.
            unsafe { mmap(at.cast(), capacity, ProtFlags::READ | ProtFlags::WRITE, flags, &memory, 0)? };
        }
        Ok(buffer)
    }

    /// The number of different bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// The range at `position`, for an operation of the ring. The owner does not overwrite it until the operation gives
    /// it back, or the kernel reads the newer bytes.
    ///
    /// # Panics
    /// When the range is larger than the ring.
    #[must_use]
    pub fn window(&self, position: LogPosition, length: u32) -> Window {
        assert!(length as usize <= self.capacity(), "window of {length} bytes in a ring of {}", self.capacity());
        Window { memory: Arc::clone(&self.memory), position, length }
    }

    /// The bytes of the window at `position`.
    ///
    /// # Panics
    /// When the window is larger than the ring.
    #[must_use]
    pub fn slice(&self, position: LogPosition, length: usize) -> &[u8] {
        // SAFETY: `address` checked that the window lies inside the double mapping, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.address(position, length), length) }
    }

    /// The bytes of the window at `position`, to write.
    ///
    /// # Panics
    /// When the window is larger than the ring.
    #[must_use]
    pub fn slice_mut(&mut self, position: LogPosition, length: usize) -> &mut [u8] {
        // SAFETY: as in `slice`; a window of at most `capacity` bytes covers no byte twice, and `&mut self` keeps other
        // slices away.
        unsafe { std::slice::from_raw_parts_mut(self.address(position, length), length) }
    }

    fn address(&self, position: LogPosition, length: usize) -> *mut u8 {
        assert!(length <= self.capacity(), "window of {length} bytes in a ring of {}", self.capacity());
        self.memory.address(position)
    }

    /// The whole double mapping, to register it with a ring.
    pub(super) fn mapped(&self) -> Window {
        Window { memory: Arc::clone(&self.memory), position: LogPosition::ZERO, length: 0 }
    }
}

impl DoubleMapping {
    fn address(&self, position: LogPosition) -> *mut u8 {
        let offset = (position.0 & (self.capacity as u64 - 1)) as usize;
        // SAFETY: offset < capacity, so the address lies within the first half of the 2 * capacity bytes mapped.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Window {
    /// Where the range begins in the log.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    pub(super) fn pointer(&self) -> *const u8 {
        self.memory.address(self.position)
    }

    /// Start and size in bytes of the double mapping that the range lies in.
    pub(super) fn mapping(&self) -> (*mut u8, usize) {
        (self.memory.start.as_ptr(), self.memory.capacity * 2)
    }
}

impl Drop for DoubleMapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `MirroredBuffer::new` reserved; no buffer, window or slice is left.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.capacity * 2) };
        debug_assert!(unmapped.is_ok(), "munmap of our own range: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_over_the_end_is_one_slice() {
        let mut ring = MirroredBuffer::new(4096).unwrap();
        ring.slice_mut(LogPosition(4096 * 7 + 4090), 12).copy_from_slice(b"over the end");
        assert_eq!(ring.slice(LogPosition(4096 * 7 + 4090), 12), b"over the end");
        assert_eq!(ring.slice(LogPosition(4096 * 9), 6), b"he end");
    }
}
