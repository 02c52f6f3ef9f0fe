//! The refusals of requests, with their words.

use crate::codec::client::command::Command;

/// Why a request is answered BadRequest. The connection stays open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The command has no meaning on this port.
    #[error("no client request has this command")]
    UnknownCommand,
    /// The payload is not the message that the command wants.
    #[error("the payload is not a {message}: {reason}")]
    Payload {
        /// The message's name.
        message: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// All-zero correlation identifier: the answer could not find its way.
    #[error("the correlation identifier is all zero; every request needs one of its own")]
    ZeroCorrelation,
    /// A name that must be there is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which one.
        what: &'static str,
    },
    /// A name passes its limit.
    #[error("{what} has {bytes} bytes of UTF-8, the limit is {limit}")]
    NameTooLong {
        /// Which one.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// A number that cannot be meant.
    #[error("{what} is {value}, the lowest allowed is {min}")]
    Number {
        /// Which one.
        what: &'static str,
        /// As sent.
        value: i64,
        /// The lowest that is accepted.
        min: i64,
    },
    /// Not an expected version for this command.
    #[error("expected version {value} is not allowed here; write {allowed}")]
    ExpectedVersion {
        /// As sent.
        value: i64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// An identifier is not sixteen bytes, or all zero.
    #[error("event identifier {index} is {bytes} bytes{zero}; write 16 bytes that are not all zero", zero = if *.bytes == 16 { ", all zero" } else { "" })]
    EventId {
        /// Its place in the request.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// More entries than one request may have.
    #[error("{count} {what} in one request, the limit is {limit}; send them in several requests")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// One event is too large, whatever `MaxAppendSize` says.
    #[error("event {index} has {bytes} bytes of data, metadata and type, the limit for one event is {limit}")]
    EventTooLarge {
        /// Its place in the request.
        index: usize,
        /// Its size.
        bytes: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// The request is larger than this node is set to accept.
    #[error(
        "Maximum append size exceeded: the request has {bytes} bytes of names, data and metadata, MaxAppendSize is {limit}; send less at once or raise MaxAppendSize"
    )]
    AppendTooLarge {
        /// Its size.
        bytes: u64,
        /// `MaxAppendSize`.
        limit: u64,
    },
}

impl RequestError {
    /// The text of the BadRequest.
    #[must_use]
    pub fn answer(&self, command: u8) -> String {
        format!("Could not unwrap network package for command {}.\n{self}", Command::describe(command))
    }
}
