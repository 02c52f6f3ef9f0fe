//! The log thread: drives the [`Engine`](crate::engine::Engine) over one io_uring, with the links between nodes on port
//! 1112 and the files of the log.
//!
//! Promises: what the engine decides is carried out in its order; bytes that the kernel may still read are not
//! overwritten; a failed write or flush ends the thread and is never tried again; no send, recv or file system call on
//! the way of the data, only `io_uring_enter`. Leaves to others: every decision (`engine`), the kernel's interface
//! (`ring`), clients (`api`), gossip and votes (`admin`).
//!
//! A turn takes what arrived, lets the engine decide, queues submissions and enters the ring once. The thread sleeps in
//! that same call, with the eventfds of its queues read in the ring.
#![forbid(unsafe_code)]

mod carry_out;
mod connections;
mod control_link;
mod data_link;
mod edges;
mod error;
mod file_feed;
mod files;
mod greeting;
pub mod messages;
mod opening;
mod places;
mod tag;
#[cfg(test)]
mod tests;
mod thread;
mod wire;

pub use crate::ring::monotonic_now;
pub use error::LogThreadError;
pub use thread::{LogThread, LogThreadLinks, LogThreadOptions, ShellInput};
