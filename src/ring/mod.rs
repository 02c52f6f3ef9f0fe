//! The raw io_uring driver and the memory it works on; the only home of unsafe code.
//!
//! A [`Driver`] is one ring of one thread. It owns files and sockets, and while an operation is in flight also the
//! buffers: they move in with the operation and come back with its [`Completion`]. So safe code cannot free, move or
//! reuse what the kernel still works on. Received bytes of a stream are [`Slice`]s of buffers that the kernel picked;
//! dropping the last slice of a buffer gives it back.
//!
//! [`probe()`] tries what the kernel can do and says which paths are taken. Errnos become [`Failure`]s here, once.
//!
//! Left to others: what to send, write and wait for, and in which order; protocols.
#![allow(unsafe_code)]

mod bad_pages;
mod buffers;
mod clock;
mod complete;
mod driver;
mod error;
mod ledger;
mod limits;
mod memory;
mod mirror;
pub(crate) mod netlink;
mod operation;
mod probe;
mod read_map;
mod rented;
mod routes;
mod socket;
mod submit;
#[cfg(test)]
mod tests;
mod token;
mod way;

pub use bad_pages::page_failures;
pub use buffers::Slice;
pub use clock::monotonic_now;
pub use driver::{Completion, Driver, GroupId, Outcome, Wait};
pub use error::{Failure, RingError};
pub use limits::{NotRaised, raise_limits};
pub use memory::prefer_memory_node;
pub use mirror::{MirroredBuffer, Window};
pub use operation::{FileId, SharedPart, Source, ZEROS_MAX};
pub use probe::{Capabilities, Finding, Mode, probe};
pub use read_map::ReadMap;
pub use rented::{rented, rented_first};
pub use routes::{Route, Routes};
pub use socket::{
    abort_on_close, bind_device, check_device, keep_alive, listen, local_address, peer_address, pin_thread,
    prepare_link, put_first,
};
pub use submit::GATHERED_MAX;
pub use way::{Begun, Way};
