//! A bound on the memory that one input may take: an allocator that counts, because libFuzzer's own limit on single
//! allocations works with a sanitizer only, and the targets run without one (all of the code that they reach is safe).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a body may take for itself, whatever the input: the read buffers of recovery, mostly.
const BASE_BYTES: usize = 32 << 20;

/// What it may take for each byte of the input. The worst that is allowed: an empty event takes two bytes on the wire
/// and about 140 in memory, and several forms of it are compared.
const BYTES_PER_BYTE: usize = 1 << 10;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with a count of the bytes that are in use.
struct Counting;

fn note(bytes: isize) {
    // A thread that ends frees memory when these are gone already.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

#[allow(clippy::cast_possible_wrap)]
// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Begins to count for one input.
pub(crate) fn start() {
    LIVE.set(0);
    PEAK.set(0);
}

/// Checks what was counted.
pub(crate) fn check(input_bytes: usize) {
    let (peak, bound) = (PEAK.get(), BASE_BYTES + input_bytes * BYTES_PER_BYTE);
    assert!(peak.unsigned_abs() <= bound, "{peak} bytes of memory for an input of {input_bytes}; the bound is {bound}");
}
