//! A small HTTP/1.1 reader and writer over `httparse`, for servers and for calls between our own nodes.
//!
//! It promises that whatever arrives is either a whole request within the given [`Limits`] or an [`HttpError`] with the
//! status to answer with, and that nothing it holds grows beyond those limits. It knows no routes and no clock: how
//! long a peer may take is the caller's business, who drops the connection together with the future that timed out (a
//! read that is dropped may have taken bytes with it).
//!
//! Calls between nodes prove who makes them, and believe nothing that is not proven, as the [`Plane`](crate::security::Plane) says that they are
//! given. Servers do their side of it themselves.
//!
//! **Invariant:** nothing here trusts a length that a peer sent before it has been compared with a limit.

mod blocking;
mod body;
mod client;
mod dialled;
mod error;
mod head;
mod proof;
mod request;
mod response;
mod secure;

pub use blocking::{Call, Received, call_blocking};
pub use client::{CallError, Client, connect, read_response};
pub use dialled::{DialError, Dialled, Patience};
pub use error::HttpError;
pub use head::{Headers, Method, speaks_tls};
pub use request::{Limits, Request, read_request};
pub use response::{Response, write_response};
pub use secure::{SecureError, SecureReadHalf, SecureStream, SecureWriteHalf};
