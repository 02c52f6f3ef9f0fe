//! The v5 client protocol, byte by byte: frames, packages, commands, messages.
//!
//! [`frame`] cuts packages out of a byte stream and puts them back, [`command`] names their first byte, [`messages`] are
//! the protobuf payloads, [`request`] turns a package into a checked [`Request`], [`response`] writes answers with the
//! presence rules that v5 clients were built against, [`page`] writes pages of events straight from the log's bytes.
//! The words "master" and "slave" live here because the wire has them, and go no further in.
//!
//! **Invariant:** nothing here does IO or knows what a session is; slices in, values out, and the other way round.

pub mod command;
pub mod event;
pub mod frame;
pub mod messages;
pub mod page;
pub mod request;
pub mod response;

pub use command::Command;
pub use event::ProtocolLevel;
pub use frame::{Credentials, CredentialsView, FrameError, Package, PackageView};
pub use page::AllPosition;
pub use request::{Request, RequestError, RequestLimits};

#[cfg(test)]
mod golden_tests;
