//! ringstore: an event store for Linux clusters. Clients of EventStoreDB v5 connect unchanged; between the nodes an
//! io_uring replication path moves the log.
//!
//! Read [`manual::architecture`] first. The modules, from the bottom up (a module names only those above it in this
//! list, and `tests/tidy.rs` holds it to that):
//!
//! - [`types`]: log positions, numbers, identifiers, time.
//! - [`limits`]: every bound in one place.
//! - [`codec`]: bytes to values and back: log records, the client protocol, the frames between nodes.
//! - [`consensus`]: elections, commit and truncation, sans-IO.
//! - [`gossip`]: who is there, and how a cluster is founded, sans-IO.
//! - [`ring`]: the raw io_uring driver; the only home of unsafe code.
//! - [`queue`]: bounded queues between threads.
//! - [`storage`]: chunk files, durable state, recovery.
//! - [`index`]: stream and event number to log position, in memory and in tables on disk.
//! - [`machine`]: kernel, CPUs and network devices of the host, and the plan for what could be set better.
//! - [`http`]: a small HTTP/1.1 reader and writer; knows no routes.
//! - [`security`]: who may speak on the internal plane: certificates, TLS without I/O, proofs of the cluster secret.
//! - [`engine`]: the log thread's brain: consensus, log tail and stream heads in one deterministic machine.
//! - [`transport`]: the log thread: drives the engine over one io_uring.
//! - [`api`]: edge threads: what clients see.
//! - [`admin`]: the control thread: internal HTTP, gossip rounds, votes.
//! - [`background`]: the background thread: work that nobody waits for.
//! - [`operator`]: the commands that are not the server: admin, backup, restore, verify.
//! - [`config`]: flags, environment, YAML.
//! - [`sim`]: the simulator: the real engine, log and index over a virtual network, disk and clock.
//! - [`node`]: threads, start-up order, shutdown.
//! - [`manual`]: the prose: architecture, formats, options, decisions, glossary.

pub mod admin;
pub mod api;
pub mod background;
pub mod codec;
pub mod config;
pub mod consensus;
pub mod engine;
pub mod gossip;
pub mod http;
pub mod index;
pub mod limits;
pub mod machine;
pub mod manual;
pub mod node;
pub mod operator;
pub mod queue;
pub mod ring;
pub mod security;
pub mod sim;
pub mod storage;
pub mod transport;
pub mod types;
