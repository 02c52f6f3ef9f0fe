//! Packages from clients as checked values: whoever holds a [`Request`] need not look at its fields with suspicion.
//!
//! Two steps, in v5's order. [`ConnectionRequest::read`] takes the packages that need no identity (heartbeats,
//! identification, authentication, a client's complaint); everything else goes to [`Request::read`] once the package's
//! credentials are checked. A [`RequestError`] is answered BadRequest with [`RequestError::answer`], the connection
//! stays open.
//!
//! A write is mostly read by [`WriteEventsView`] instead, where it lies.
//!
//! Whether the caller may do what it asks, and whether a page size makes sense (an error answer, not a bad request), is
//! for others to say.

mod error;
mod parse;
mod view;

use bytes::Bytes;
use prost::Message;

use crate::codec::client::command::Command;
use crate::codec::client::event::ProtocolLevel;
use crate::codec::client::frame::Package;
use crate::codec::client::messages;
use crate::codec::client::page::AllPosition;
use crate::limits::APPEND_SIZE_DEFAULT_BYTES;
use crate::types::{EventId, ExpectedVersion};

pub use error::RequestError;
pub use view::{NewEventView, WriteEventsView};

/// What a node accepts, beyond the fixed limits.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// `MaxAppendSize`: bytes of names, types, data and metadata of one request.
    pub append_bytes_max: u64,
}

impl Default for RequestLimits {
    fn default() -> RequestLimits {
        RequestLimits { append_bytes_max: APPEND_SIZE_DEFAULT_BYTES }
    }
}

/// What a client says about the connection as such; handled before credentials are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionRequest {
    /// Answer at once with the same correlation identifier.
    HeartbeatRequest,
    /// Nothing to do: that bytes came is what counts.
    HeartbeatResponse,
    /// Check the package's credentials, if any, and keep them as the connection's default.
    Authenticate,
    /// Set the connection's level and name, answer ClientIdentified.
    Identify {
        /// The level from now on.
        level: ProtocolLevel,
        /// For logs and statistics; may be empty.
        name: String,
    },
    /// An identification that could not be read: logged, not answered.
    IdentifyUnreadable,
    /// The client calls something of ours a bad request: logged, not answered.
    Complaint(String),
}

/// Characters kept of texts that are only logged.
const LOGGED_TEXT_CHARACTERS: usize = 256;

impl ConnectionRequest {
    /// The connection-level request in `package`; `None` for all others.
    #[must_use]
    pub fn read(package: &Package) -> Option<ConnectionRequest> {
        Some(match Command::from_byte(package.command)? {
            Command::HeartbeatRequestCommand => ConnectionRequest::HeartbeatRequest,
            Command::HeartbeatResponseCommand => ConnectionRequest::HeartbeatResponse,
            Command::Authenticate => ConnectionRequest::Authenticate,
            Command::BadRequest => ConnectionRequest::Complaint(shortened(&String::from_utf8_lossy(&package.payload))),
            Command::IdentifyClient => match messages::IdentifyClient::decode(package.payload.clone()) {
                Ok(message) => ConnectionRequest::Identify {
                    level: ProtocolLevel::from_version(message.version),
                    name: shortened(message.connection_name()),
                },
                Err(_) => ConnectionRequest::IdentifyUnreadable,
            },
            _ => return None,
        })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LOGGED_TEXT_CHARACTERS).collect()
}

/// Which way a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending.
    Forward,
    /// Descending.
    Backward,
}

/// An event to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Its identifier, not zero.
    pub id: EventId,
    /// Its type, not empty.
    pub event_type: String,
    /// The data is JSON, says the writer.
    pub is_json: bool,
    /// Its data.
    pub data: Bytes,
    /// Its metadata; empty when there is none.
    pub metadata: Bytes,
}

/// Append events to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteEvents {
    /// The stream.
    pub stream: String,
    /// The claim about it.
    pub expected_version: ExpectedVersion,
    /// The events, possibly none.
    pub events: Vec<NewEvent>,
    /// Refuse rather than forward.
    pub require_leader: bool,
}

/// Delete a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteStream {
    /// The stream.
    pub stream: String,
    /// The claim about it; never [`ExpectedVersion::StreamExists`].
    pub expected_version: ExpectedVersion,
    /// Refuse rather than forward.
    pub require_leader: bool,
    /// For good, with a tombstone.
    pub hard_delete: bool,
}

/// Begin an explicit transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionStart {
    /// The stream.
    pub stream: String,
    /// The claim, looked at when the transaction is committed; never [`ExpectedVersion::StreamExists`].
    pub expected_version: ExpectedVersion,
    /// Refuse rather than forward.
    pub require_leader: bool,
}

/// Add events to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionWrite {
    /// The transaction, not negative.
    pub transaction_id: i64,
    /// The events, possibly none.
    pub events: Vec<NewEvent>,
    /// Refuse rather than forward.
    pub require_leader: bool,
}

/// Make a transaction's events visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionCommit {
    /// The transaction, not negative.
    pub transaction_id: i64,
    /// Refuse rather than forward.
    pub require_leader: bool,
}

/// Read one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadEvent {
    /// The stream.
    pub stream: String,
    /// Its number; -1 for the last one.
    pub event_number: i64,
    /// Follow a link.
    pub resolve_links: bool,
    /// Answer only as leader.
    pub require_leader: bool,
}

/// Read a page of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadStream {
    /// Which way.
    pub direction: Direction,
    /// The stream.
    pub stream: String,
    /// First number to read, -1 or more.
    pub from: i64,
    /// Size of the page, as sent: what it must be is checked by the read.
    pub max_count: i32,
    /// Follow links.
    pub resolve_links: bool,
    /// Answer only as leader.
    pub require_leader: bool,
}

/// Read a page of the whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAll {
    /// Which way.
    pub direction: Direction,
    /// Where to begin, as sent.
    pub from: AllPosition,
    /// Size of the page, as sent: what it must be is checked by the read.
    pub max_count: i32,
    /// Follow links.
    pub resolve_links: bool,
    /// Answer only as leader.
    pub require_leader: bool,
}

/// Push me new events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The stream; `None` for the whole log.
    pub stream: Option<String>,
    /// Follow links.
    pub resolve_links: bool,
}

/// What a client asks for, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Send the same bytes back.
    Ping(Bytes),
    /// See [`WriteEvents`].
    WriteEvents(WriteEvents),
    /// See [`DeleteStream`].
    DeleteStream(DeleteStream),
    /// See [`TransactionStart`].
    TransactionStart(TransactionStart),
    /// See [`TransactionWrite`].
    TransactionWrite(TransactionWrite),
    /// See [`TransactionCommit`].
    TransactionCommit(TransactionCommit),
    /// See [`ReadEvent`].
    ReadEvent(ReadEvent),
    /// See [`ReadStream`].
    ReadStream(ReadStream),
    /// See [`ReadAll`].
    ReadAll(ReadAll),
    /// See [`Subscribe`].
    Subscribe(Subscribe),
    /// End the subscription with this correlation identifier.
    Unsubscribe,
    /// Create a group. Names are checked by the answerer, which has result codes for them.
    CreatePersistentSubscription(messages::CreatePersistentSubscription),
    /// Change a group.
    UpdatePersistentSubscription(messages::UpdatePersistentSubscription),
    /// Delete a group.
    DeletePersistentSubscription(messages::DeletePersistentSubscription),
    /// Become a consumer of a group.
    ConnectToPersistentSubscription(messages::ConnectToPersistentSubscription),
    /// Events are done; at least one, identifiers of sixteen bytes.
    PersistentSubscriptionAck(messages::PersistentSubscriptionAckEvents),
    /// Events could not be handled; at least one, identifiers of sixteen bytes.
    PersistentSubscriptionNak(messages::PersistentSubscriptionNakEvents),
    /// Start a scavenge.
    Scavenge,
    /// An answer that nobody waits for: accepted silently.
    StrayAnswer,
}

impl Request {
    /// Reads and checks the request in `package`.
    ///
    /// # Errors
    /// [`RequestError`]; nothing was done.
    pub fn read(package: &Package, limits: &RequestLimits) -> Result<Request, RequestError> {
        let payload = &package.payload;
        let command = Command::from_byte(package.command).ok_or(RequestError::UnknownCommand)?;
        let request = match command {
            Command::Ping => Request::Ping(payload.clone()),
            Command::WriteEvents => Request::WriteEvents(parse::write_events(payload, limits)?),
            Command::DeleteStream => Request::DeleteStream(parse::delete_stream(payload)?),
            Command::TransactionStart => Request::TransactionStart(parse::transaction_start(payload)?),
            Command::TransactionWrite => Request::TransactionWrite(parse::transaction_write(payload, limits)?),
            Command::TransactionCommit => Request::TransactionCommit(parse::transaction_commit(payload)?),
            Command::ReadEvent => Request::ReadEvent(parse::read_event(payload)?),
            Command::ReadStreamEventsForward => Request::ReadStream(parse::read_stream(payload, Direction::Forward)?),
            Command::ReadStreamEventsBackward => Request::ReadStream(parse::read_stream(payload, Direction::Backward)?),
            Command::ReadAllEventsForward => Request::ReadAll(parse::read_all(payload, Direction::Forward)?),
            Command::ReadAllEventsBackward => Request::ReadAll(parse::read_all(payload, Direction::Backward)?),
            Command::SubscribeToStream => Request::Subscribe(parse::subscribe(payload)?),
            Command::UnsubscribeFromStream => Request::Unsubscribe,
            Command::ScavengeDatabase => Request::Scavenge,
            Command::WriteEventsCompleted
            | Command::TransactionStartCompleted
            | Command::TransactionWriteCompleted
            | Command::TransactionCommitCompleted
            | Command::DeleteStreamCompleted
            | Command::NotHandled => return Ok(Request::StrayAnswer),
            _ => parse::persistent(command, payload)?,
        };
        if package.correlation.is_zero() && !matches!(request, Request::Ping(_)) {
            return Err(RequestError::ZeroCorrelation);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests;
