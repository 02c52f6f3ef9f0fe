//! What clients see: the edge threads, their connections, requests and answers.
//!
//! An edge is one thread with one monoio runtime. It owns its listeners, connections, subscriptions and waiting
//! requests; nothing here is shared between edges but the index, the log's files, and counters. It talks to the log
//! thread by bounded queues only.
//!
//! The way of a request: `accept` → `session` (frames) → `dispatch` (identity, which state serves what) → `reading`,
//! `writes`, `subscribing` or `forward`. The way of an answer: `inbox` → `work` → the session's `connection`.
//!
//! At a port with TLS `secure` does the handshake first; what follows it reads and writes through
//! [`SecureStream`](crate::http::SecureStream), which passes a plain connection through.
//!
//! A write is read where it lies in the receive buffer and encoded from there into the body of its record, in memory that an
//! earlier write has left (`spares`); the log thread is woken once for the writes of all connections that had some (`turn`).
//!
//! **Invariant:** no request waits without a time limit, and no table here grows without a bound.
#![forbid(unsafe_code)]

mod accept;
pub mod access;
mod connection;
mod counters;
mod dispatch;
mod edge;
mod fetch;
mod forward;
mod forward_greeting;
mod gate;
mod heartbeat;
mod http;
mod identity;
mod inbox;
mod links;
mod listener;
mod log_events;
mod metadata;
mod pending;
mod read_all;
mod reading;
mod reads;
mod receive;
mod room;
mod secure;
mod session;
mod slab;
mod spares;
mod subscribing;
pub mod subscription;
mod sweep;
#[cfg(test)]
mod test_log;
mod turn;
pub mod users;
mod work;
mod writes;

#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod forward_tests;
#[cfg(test)]
mod page_bytes_tests;
#[cfg(test)]
mod testing;

pub use edge::{Edge, EdgeError, EdgeLinks, EdgeOptions, EdgeSockets};
pub use heartbeat::HeartbeatOptions;
pub use http::HttpRoutes;
pub use listener::{ListenError, listeners};
pub use log_events::{Checks, FetchError, Reader};
