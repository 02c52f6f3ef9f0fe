//! What can be wrong with a message.

use std::io;

use super::secure::SecureError;
use crate::security::{ProofError, TlsError};

/// Why a message could not be read. All but [`Io`](HttpError::Io) and [`Truncated`](HttpError::Truncated) can still be
/// answered with [`HttpError::status`]; after any of them the connection has lost its place and must be closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The connection failed.
    #[error("the connection failed: {source}")]
    Io {
        /// From the system.
        #[source]
        source: io::Error,
    },
    /// The peer closed in the middle of a message.
    #[error("the peer closed the connection in the middle of a message")]
    Truncated,
    /// Not HTTP, or not this way.
    #[error("not a valid HTTP message: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// The head is longer than allowed.
    #[error("the request line and headers are larger than {limit} bytes or more than {header_limit} headers")]
    HeadTooLarge {
        /// The most bytes.
        limit: usize,
        /// The most headers.
        header_limit: usize,
    },
    /// The body is longer than allowed.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The most bytes.
        limit: usize,
    },
    /// The body's length cannot be told.
    #[error("send the body with a Content-Length, or chunked as the last transfer coding")]
    LengthRequired,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// An `Expect` header with anything but `100-continue`.
    #[error("the only expectation that can be met is 100-continue")]
    Expectation,
    /// The peer speaks TLS where this side does not.
    #[error(
        "it speaks TLS: expected an HTTP answer, found a TLS record; it has UseInternalSsl, this side needs it, too (commands: \
         --certificate-file, --certificate-private-key-file and --certificate-authority-file, or --config of a node)"
    )]
    SpeaksTls,
    /// The peer is not who it must be, or does not take this side for one of the cluster, or the channel is damaged.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What came is not proven to come from a node of the cluster: nothing of it is believed.
    #[error(transparent)]
    Unproven(#[from] ProofError),
    /// The peer refuses this side, or does not know what a proof is. Its words are not proven.
    #[error("{expected}; found status {status}, not proven: {words}")]
    Refused {
        /// What this side wanted.
        expected: &'static str,
        /// The status.
        status: u16,
        /// What the peer says, shortened.
        words: String,
    },
}

impl HttpError {
    /// The status to answer with, when an answer makes sense.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            HttpError::Io { .. }
            | HttpError::Truncated
            | HttpError::SpeaksTls
            | HttpError::Tls(_)
            | HttpError::Refused { .. } => None,
            HttpError::Unproven(_) => Some(401),
            HttpError::Malformed { .. } => Some(400),
            HttpError::LengthRequired => Some(411),
            HttpError::BodyTooLarge { .. } => Some(413),
            HttpError::Expectation => Some(417),
            HttpError::HeadTooLarge { .. } => Some(431),
            HttpError::Version => Some(505),
        }
    }

    pub(super) fn from_httparse(error: httparse::Error, limit: usize, header_limit: usize) -> HttpError {
        let reason = match error {
            httparse::Error::TooManyHeaders => return HttpError::HeadTooLarge { limit, header_limit },
            httparse::Error::Version => return HttpError::Version,
            httparse::Error::HeaderName => "a header's name",
            httparse::Error::HeaderValue => "a header's value",
            httparse::Error::NewLine => "a line's end",
            httparse::Error::Status => "the status",
            httparse::Error::Token => "the first line",
        };
        HttpError::Malformed { reason }
    }
}

impl From<io::Error> for HttpError {
    /// What a channel reports through a stream is told as itself.
    fn from(source: io::Error) -> HttpError {
        match source.downcast::<TlsError>() {
            Ok(error) => HttpError::Tls(error),
            Err(source) => HttpError::Io { source },
        }
    }
}

impl From<SecureError> for HttpError {
    fn from(error: SecureError) -> HttpError {
        match error {
            SecureError::Io(source) => source.into(),
            SecureError::Tls(error) => HttpError::Tls(error),
        }
    }
}
