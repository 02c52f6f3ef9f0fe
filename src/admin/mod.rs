//! The control thread: HTTP on the internal plane, and everything that is neither log nor client.
//!
//! It serves and calls the other nodes on 2112 (gossip, elections, the operator's wishes), looks up seeds, carries the
//! consensus core's votes, and keeps the [`Directory`](crate::gossip::Directory) fresh for the edges. It decides
//! nothing: gossip's rules are in [`crate::gossip`], votes are decided on the log thread, and each request that needs
//! it goes there over a bounded queue and is answered 503 when no answer comes in time.
//!
//! Where the internal plane is closed nobody is heard before it has proven that it is of the cluster: by its certificate,
//! or request by request with the secret. `/ping` and `/health/live` are the exception with a secret, not with TLS.
//!
//! [`routes`] holds the answers that the external side gives, too, as plain functions of a [`NodeStatus`]. Layers of
//! one level do not name each other, so the node (the level above) hands them to the edges.
//!
//! The words "master" and "slave" of v5's wire are made in [`crate::gossip`] and here, and go no further in.

mod control;
mod figures;
mod gate;
mod internal;
mod log_bytes;
mod members;
mod options;
mod pending;
pub mod routes;
mod seeds;
mod server;
mod stages;
mod status;

#[cfg(test)]
mod tests;

pub use control::ControlThread;
pub use members::{Change, Resign};
pub use options::{ControlError, ControlOptions, ControlQueues, SeedSource, StopSignal};
pub use status::{IndexFigures, Locks, NodeStatus};
