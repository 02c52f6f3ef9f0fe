//! Bytes to values and back: log records, and the messages on the wire. Slices in, values out; no IO.
#![forbid(unsafe_code)]

pub mod client;
pub mod link;
pub mod record;
