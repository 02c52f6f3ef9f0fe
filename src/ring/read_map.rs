//! A file mapped for reading. Readers get the page cache itself; nothing is copied.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::bad_pages::{Place, watch};

/// A shared, read-only mapping of the first `length` bytes of a file.
///
/// The bytes may still change under the mapping while the log thread writes the file's tail. Readers look only at what
/// is committed, which never changes again. What the disk cannot read is zeros from then on, and counted.
#[derive(Debug)]
pub struct ReadMap {
    start: NonNull<u8>,
    length: usize,
    pub(super) watched: Option<&'static Place>,
}

// SAFETY: the mapping is read-only memory that lives as long as the value; any thread may read it.
unsafe impl Send for ReadMap {}
// SAFETY: as above; there is no interior state.
unsafe impl Sync for ReadMap {}

impl ReadMap {
    /// Maps `length` bytes of `file`.
    ///
    /// # Errors
    /// Those of `mmap`; `InvalidInput` when the file is shorter than `length` (reading past its end would kill the
    /// process).
    pub fn new(file: &File, length: usize) -> io::Result<ReadMap> {
        let found = file.metadata()?.len();
        if length == 0 || found < length as u64 {
            let message = format!("the file has {found} bytes, {length} were to be mapped");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let start: NonNull<u8> = NonNull::new(start.cast()).expect("mmap gives no null without MAP_FIXED");
        let watched = watch(start.as_ptr().expose_provenance(), length);
        Ok(ReadMap { start, length, watched })
    }

    /// How often a page could not be read. Who finds another number after a look than before it has perhaps seen zeros
    /// that are not in the file. They stay: when the file is whole again it must be mapped anew.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.watched.map_or(0, Place::failures)
    }

    /// Gives the pages of `range` back, rounded down at both ends to whole pages: they no longer count as this process's
    /// memory. The next look at them finds them in the page cache, or on the disk. Without effect where the kernel
    /// refuses.
    ///
    /// # Panics
    /// When the range does not lie in the mapping.
    pub fn release(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} bytes", self.length);
        let page = rustix::param::page_size();
        let (start, end) = (range.start / page * page, range.end / page * page);
        if start < end {
            // SAFETY: `start..end` lies in our mapping, which is shared, of a file, and read-only: what it shows is the
            // same before and after, so that even readers at the same time see no difference.
            let _ = unsafe { madvise(self.start.as_ptr().add(start).cast(), end - start, Advice::LinuxDontNeed) };
        }
    }
}

impl Deref for ReadMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is valid for `length` bytes until drop. The kernel may change bytes behind what is committed
        // meanwhile, and a page that cannot be read becomes zeros; readers give neither a meaning (see the type's note).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for ReadMap {
    fn drop(&mut self) {
        if let Some(place) = self.watched {
            place.give_back();
        }
        // SAFETY: the range is the one that `new` mapped, and no slice outlives `self`.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "munmap of our own range: {unmapped:?}");
    }
}
