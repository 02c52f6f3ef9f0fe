//! The log thread's brain: consensus, the tail of the log and the heads of streams, joined into one deterministic
//! machine. [`Engine`] decides; a shell carries out: the log thread over a real ring, the simulator over a virtual
//! world.
//!
//! Promises: an answer [`Answer::Appended`] leaves after a majority has flushed the record; records enter the log in one
//! order; what is readable is committed. Leaves to the shell: sockets, files, clocks, threads.

mod action;
mod appends;
mod client_counters;
mod control;
mod core;
mod edge;
mod effects;
mod feeds;
mod heads;
mod log_writer;
mod members;
mod published;
mod recent;
mod request;
mod scanner;
mod small_state;
mod stages;
mod stopwatch;

pub use self::action::{Action, BufferToken, SendPlan, WriteSource};
pub use self::client_counters::{ClientCounters, QueuedBytes};
pub use self::control::{ControlInput, ControlOutput, MemberChange};
pub use self::core::{Engine, EngineOptions};
pub use self::edge::{EdgeMessage, Forwarded};
pub use self::feeds::Feed;
pub use self::published::{LogCounters, Published};
pub use self::request::{
    Answer, Append, FollowerView, MetadataEffect, NodeView, Progress, Reply, Request, Revival, Role, Ticket,
};
pub use self::scanner::{ScanError, Scanned, Scanner};
pub use self::stages::{AnswerTimes, Stages};
