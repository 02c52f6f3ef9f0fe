//! One function for each message: decode, check, give the typed request.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

use super::{
    DeleteStream, Direction, NewEvent, ReadAll, ReadEvent, ReadStream, Request, RequestError, RequestLimits, Subscribe,
    TransactionCommit, TransactionStart, TransactionWrite, WriteEvents,
};
use crate::codec::client::command::Command;
use crate::codec::client::messages;
use crate::codec::client::page::AllPosition;
use crate::limits::{EVENT_SIZE_MAX_BYTES, EVENTS_PER_APPEND_MAX, NAME_MAX_BYTES};
use crate::types::{EventId, ExpectedVersion, Guid, METASTREAM_PREFIX};

fn decode<M: Message + Default>(message: &'static str, payload: &Bytes) -> Result<M, RequestError> {
    M::decode(payload.clone()).map_err(|error| RequestError::Payload { message, reason: error.to_string() })
}

/// Refuses a payload with too many entries of the repeated `field` before it is decoded: an entry of two bytes on the
/// wire would become more than a hundred in memory.
fn check_count(payload: &Bytes, field: u32, what: &'static str) -> Result<(), RequestError> {
    let mut rest = payload.clone();
    let mut count = 0;
    while !rest.is_empty() {
        // What cannot be read here is refused by the decoder, with its words.
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { return Ok(()) };
        if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
            return Ok(());
        }
        count += usize::from(tag == field);
    }
    let limit = EVENTS_PER_APPEND_MAX;
    if count > limit { Err(RequestError::TooMany { what, count, limit }) } else { Ok(()) }
}

fn check_name(what: &'static str, name: &str, limit: usize) -> Result<(), RequestError> {
    match name.len() {
        0 => Err(RequestError::Empty { what }),
        bytes if bytes > limit => Err(RequestError::NameTooLong { what, bytes, limit }),
        _ => Ok(()),
    }
}

fn check_stream(stream: &str) -> Result<(), RequestError> {
    check_name("the stream name", stream, NAME_MAX_BYTES)
}

fn check_number(what: &'static str, value: i64, min: i64) -> Result<(), RequestError> {
    if value < min { Err(RequestError::Number { what, value, min }) } else { Ok(()) }
}

pub(super) fn write_events(payload: &Bytes, limits: &RequestLimits) -> Result<WriteEvents, RequestError> {
    check_count(payload, 3, "events")?;
    let message: messages::WriteEvents = decode("WriteEvents", payload)?;
    check_stream(&message.event_stream_id)?;
    let value = message.expected_version;
    let allowed = "-4 (exists), -2 (any), -1 (no stream) or the last event number";
    let expected_version = ExpectedVersion::from_wire(value).ok_or(RequestError::ExpectedVersion { value, allowed })?;
    let events = new_events(message.events, message.event_stream_id.len(), limits)?;
    Ok(WriteEvents {
        stream: message.event_stream_id,
        expected_version,
        events,
        require_leader: message.require_master,
    })
}

/// The events of a write, checked one by one and together; `name_bytes` belong to the stream's name.
fn new_events(
    events: Vec<messages::NewEvent>,
    name_bytes: usize,
    limits: &RequestLimits,
) -> Result<Vec<NewEvent>, RequestError> {
    let events = events.into_iter().enumerate().map(|(index, event)| new_event(index, event));
    let events = events.collect::<Result<Vec<_>, _>>()?;
    let size = |event: &NewEvent| event.event_type.len() + event.data.len() + event.metadata.len();
    let bytes = (name_bytes + events.iter().map(size).sum::<usize>()) as u64;
    let limit = limits.append_bytes_max;
    if bytes > limit { Err(RequestError::AppendTooLarge { bytes, limit }) } else { Ok(events) }
}

fn new_event(index: usize, event: messages::NewEvent) -> Result<NewEvent, RequestError> {
    let id = event_id(index, &event.event_id)?;
    if id.0.is_zero() {
        return Err(RequestError::EventId { index, bytes: 16 });
    }
    check_name("the event type", &event.event_type, NAME_MAX_BYTES)?;
    let metadata = event.metadata.unwrap_or_default();
    let bytes = event.data.len() + metadata.len() + 2 * event.event_type.encode_utf16().count();
    if bytes > EVENT_SIZE_MAX_BYTES {
        return Err(RequestError::EventTooLarge { index, bytes, limit: EVENT_SIZE_MAX_BYTES });
    }
    let is_json = event.data_content_type == 1;
    Ok(NewEvent { id, event_type: event.event_type, is_json, data: event.data, metadata })
}

fn event_id(index: usize, bytes: &[u8]) -> Result<EventId, RequestError> {
    let id = bytes.try_into().map_err(|_| RequestError::EventId { index, bytes: bytes.len() })?;
    Ok(EventId(Guid(id)))
}

/// The claim of a request that cannot say "exists".
fn expected_version(value: i64) -> Result<ExpectedVersion, RequestError> {
    let allowed = "-2 (any), -1 (no stream) or the last event number";
    match ExpectedVersion::from_wire(value) {
        Some(ExpectedVersion::StreamExists) | None => Err(RequestError::ExpectedVersion { value, allowed }),
        Some(expected_version) => Ok(expected_version),
    }
}

pub(super) fn delete_stream(payload: &Bytes) -> Result<DeleteStream, RequestError> {
    let message: messages::DeleteStream = decode("DeleteStream", payload)?;
    let hard_delete = message.hard_delete();
    // A soft delete writes to the metadata stream, whose name is longer.
    let prefix = if hard_delete { 0 } else { METASTREAM_PREFIX.len() };
    check_name("the stream name", &message.event_stream_id, NAME_MAX_BYTES - prefix)?;
    Ok(DeleteStream {
        expected_version: expected_version(message.expected_version)?,
        stream: message.event_stream_id,
        require_leader: message.require_master,
        hard_delete,
    })
}

pub(super) fn transaction_start(payload: &Bytes) -> Result<TransactionStart, RequestError> {
    let message: messages::TransactionStart = decode("TransactionStart", payload)?;
    check_stream(&message.event_stream_id)?;
    Ok(TransactionStart {
        expected_version: expected_version(message.expected_version)?,
        stream: message.event_stream_id,
        require_leader: message.require_master,
    })
}

pub(super) fn transaction_write(payload: &Bytes, limits: &RequestLimits) -> Result<TransactionWrite, RequestError> {
    check_count(payload, 2, "events")?;
    let message: messages::TransactionWrite = decode("TransactionWrite", payload)?;
    check_number("the transaction identifier", message.transaction_id, 0)?;
    let events = new_events(message.events, 0, limits)?;
    Ok(TransactionWrite { transaction_id: message.transaction_id, events, require_leader: message.require_master })
}

pub(super) fn transaction_commit(payload: &Bytes) -> Result<TransactionCommit, RequestError> {
    let message: messages::TransactionCommit = decode("TransactionCommit", payload)?;
    check_number("the transaction identifier", message.transaction_id, 0)?;
    Ok(TransactionCommit { transaction_id: message.transaction_id, require_leader: message.require_master })
}

pub(super) fn read_event(payload: &Bytes) -> Result<ReadEvent, RequestError> {
    let message: messages::ReadEvent = decode("ReadEvent", payload)?;
    check_stream(&message.event_stream_id)?;
    check_number("the event number", message.event_number, -1)?;
    Ok(ReadEvent {
        stream: message.event_stream_id,
        event_number: message.event_number,
        resolve_links: message.resolve_link_tos,
        require_leader: message.require_master,
    })
}

pub(super) fn read_stream(payload: &Bytes, direction: Direction) -> Result<ReadStream, RequestError> {
    let message: messages::ReadStreamEvents = decode("ReadStreamEvents", payload)?;
    check_stream(&message.event_stream_id)?;
    check_number("the event number to read from", message.from_event_number, -1)?;
    Ok(ReadStream {
        direction,
        stream: message.event_stream_id,
        from: message.from_event_number,
        max_count: message.max_count,
        resolve_links: message.resolve_link_tos,
        require_leader: message.require_master,
    })
}

pub(super) fn read_all(payload: &Bytes, direction: Direction) -> Result<ReadAll, RequestError> {
    let message: messages::ReadAllEvents = decode("ReadAllEvents", payload)?;
    Ok(ReadAll {
        direction,
        from: AllPosition { commit: message.commit_position, prepare: message.prepare_position },
        max_count: message.max_count,
        resolve_links: message.resolve_link_tos,
        require_leader: message.require_master,
    })
}

pub(super) fn subscribe(payload: &Bytes) -> Result<Subscribe, RequestError> {
    let message: messages::SubscribeToStream = decode("SubscribeToStream", payload)?;
    let stream = Some(message.event_stream_id).filter(|stream| !stream.is_empty());
    stream.as_deref().map_or(Ok(()), check_stream)?;
    Ok(Subscribe { stream, resolve_links: message.resolve_link_tos })
}

pub(super) fn persistent(command: Command, payload: &Bytes) -> Result<Request, RequestError> {
    Ok(match command {
        Command::CreatePersistentSubscription => {
            Request::CreatePersistentSubscription(decode("CreatePersistentSubscription", payload)?)
        }
        Command::UpdatePersistentSubscription => {
            Request::UpdatePersistentSubscription(decode("UpdatePersistentSubscription", payload)?)
        }
        Command::DeletePersistentSubscription => {
            Request::DeletePersistentSubscription(decode("DeletePersistentSubscription", payload)?)
        }
        Command::ConnectToPersistentSubscription => connect_persistent(payload)?,
        Command::PersistentSubscriptionAckEvents => {
            check_count(payload, 2, "event identifiers")?;
            let message: messages::PersistentSubscriptionAckEvents =
                decode("PersistentSubscriptionAckEvents", payload)?;
            check_processed(&message.subscription_id, &message.processed_event_ids)?;
            Request::PersistentSubscriptionAck(message)
        }
        Command::PersistentSubscriptionNakEvents => {
            check_count(payload, 2, "event identifiers")?;
            let message: messages::PersistentSubscriptionNakEvents =
                decode("PersistentSubscriptionNakEvents", payload)?;
            check_processed(&message.subscription_id, &message.processed_event_ids)?;
            Request::PersistentSubscriptionNak(message)
        }
        _ => return Err(RequestError::UnknownCommand),
    })
}

fn connect_persistent(payload: &Bytes) -> Result<Request, RequestError> {
    let message: messages::ConnectToPersistentSubscription = decode("ConnectToPersistentSubscription", payload)?;
    check_stream(&message.event_stream_id)?;
    check_name("the group name", &message.subscription_id, NAME_MAX_BYTES)?;
    check_number("allowed_in_flight_messages", message.allowed_in_flight_messages.into(), 0)?;
    Ok(Request::ConnectToPersistentSubscription(message))
}

fn check_processed(subscription: &str, ids: &[Bytes]) -> Result<(), RequestError> {
    check_name("the subscription identifier", subscription, 2 * NAME_MAX_BYTES + 2)?;
    if ids.is_empty() {
        return Err(RequestError::Empty { what: "the list of event identifiers" });
    }
    ids.iter().enumerate().try_for_each(|(index, id)| event_id(index, id).map(|_| ()))
}
