//! What the fuzz targets share: the bodies, and a bound on memory.
//!
//! A target is a program in `targets/` that hands libFuzzer's bytes to one body. `cargo test` runs the corpora through
//! the same bodies (`tests/corpora.rs`), without a fuzzer.

pub mod bodies;
mod memory;

/// Runs a body on one input.
///
/// # Panics
/// When an assertion of the body fails, or it took far more memory than its input can explain.
pub fn run(body: fn(&[u8]), bytes: &[u8]) {
    memory::start();
    body(bytes);
    memory::check(bytes.len());
}
