//! Requests that change the log: from the client's events to a record's body, and from the log thread's answer back.
//!
//! The log thread decides about versions; what it cannot know is done here: comparing a repeated write with the events
//! that are there, making the metadata that brings a soft-deleted stream back, gathering a transaction's events.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::access::{ALL_STREAM, Action, is_allowed};
use crate::api::edge::EdgeState;
use crate::api::fetch;
use crate::api::metadata::{self, METADATA_TYPE};
use crate::api::session::Session;
use crate::api::users::Identity;
use crate::api::work::{Asked, Work};
use crate::codec::client::messages::OperationResult;
use crate::codec::client::request::{
    DeleteStream, NewEvent, TransactionCommit, TransactionStart, TransactionWrite, WriteEvents,
};
use crate::codec::client::response::{self, Written};
use crate::codec::record::{BatchBuilder, BatchView, EVENT_HEADER_BYTES, EventView, RecordKind};
use crate::engine::{Answer, Append, MetadataEffect, Request, Revival, Ticket};
use crate::index::Transaction;
use crate::limits::EVENTS_PER_APPEND_MAX;
use crate::types::{EventId, EventNumber, ExpectedVersion, Guid, LogPosition, Ticks, base_stream, metastream_of};

/// How often a write to a soft-deleted stream is tried with a new revival, because others write to it too.
const REVIVALS_MAX: u8 = 4;

/// Said when writes wait for room.
const DISK_FULL_TEXT: &str = "The disk of the leader is full: nothing was written. Reads go on; writes go on when there \
                              is room again.";

/// A record on its way to the log, and what is needed when the answer comes.
pub(super) struct AppendWork {
    /// How the client is answered.
    pub(super) asked: Asked,
    stream: Arc<str>,
    expected_version: ExpectedVersion,
    /// The events' identifiers where a repeat of the same request succeeds.
    ids: Vec<EventId>,
    /// Everything needed to send it again. Kept only when the stream is known to be soft-deleted.
    again: Option<Box<Again>>,
}

struct Again {
    append: AgainAppend,
    revivals: u8,
}

/// What an append consists of, without its ticket.
#[derive(Clone)]
struct AgainAppend {
    body: Vec<u8>,
    event_count: u16,
    metadata_of: Option<MetadataEffect>,
    /// Of a metadata write: the new metadata.
    metadata: Bytes,
}

/// A request as it comes from the session.
pub(super) struct Caller<'a> {
    pub(super) edge: &'a Rc<EdgeState>,
    pub(super) session: &'a Rc<Session>,
    pub(super) correlation: Guid,
    pub(super) identity: &'a Identity,
}

impl Caller<'_> {
    fn may(&self, stream: &str, action: Action, asked: Asked) -> bool {
        let allowed = is_allowed(&self.edge.links.index, self.identity, action, stream);
        if !allowed {
            self.fail(asked, OperationResult::AccessDenied);
        }
        allowed
    }

    fn fail(&self, asked: Asked, result: OperationResult) {
        self.session.send(|out| asked.fail(out, self.correlation, result, -1));
    }

    fn refuse(&self, text: &str) {
        self.session.send(|out| response::bad_request(out, self.correlation, text));
    }

    /// Sends a record on its way. `append.ticket` is filled in here.
    fn append(&self, mut append: Append, work: AppendWork) {
        let time = self.edge.options.commit_timeout;
        let bytes = append.body.len();
        let work = Work::Append(Box::new(work));
        if let Some(key) = self.edge.enter(self.session, self.correlation, time, bytes, work) {
            append.ticket = self.edge.ticket(key);
            self.edge.submit(key, Request::Append(Box::new(append)));
        }
    }
}

/// WriteEvents, on the leader.
pub(super) fn write_events(caller: &Caller<'_>, request: &WriteEvents) {
    if caller.may(&request.stream, Action::Write, Asked::WriteEvents) {
        append_events(caller, Asked::WriteEvents, &request.stream, request.expected_version, &request.events);
    }
}

fn append_events(
    caller: &Caller<'_>,
    asked: Asked,
    stream: &str,
    expected_version: ExpectedVersion,
    events: &[NewEvent],
) {
    let size =
        |event: &NewEvent| EVENT_HEADER_BYTES + 8 + event.event_type.len() + event.data.len() + event.metadata.len();
    let mut builder = BatchBuilder::new(stream, events.iter().map(size).sum());
    for event in events {
        builder.event(event.id, &event.event_type, event.is_json, &event.data, &event.metadata);
    }
    let stream: Arc<str> = stream.into();
    let metadata_of = metadata_effect(&stream, events.last());
    let event_count = builder.event_count();
    let body = builder.finish();
    let again = may_need_revival(caller.edge, &stream, metadata_of.as_ref()).then(|| {
        let metadata = events.last().map(|event| event.data.clone()).unwrap_or_default();
        let append = AgainAppend { body: body.clone(), event_count, metadata_of: metadata_of.clone(), metadata };
        Box::new(Again { append, revivals: 0 })
    });
    let ids = events.iter().map(|event| event.id).collect();
    let work = AppendWork { asked, stream: Arc::clone(&stream), expected_version, ids, again };
    caller.append(plain_append(expected_version, event_count, body, metadata_of), work);
}

/// What a write does to the stream that it is metadata of: the last event counts.
fn metadata_effect(stream: &str, last: Option<&NewEvent>) -> Option<MetadataEffect> {
    let base = base_stream(stream)?;
    let last = last.filter(|event| event.event_type == METADATA_TYPE)?;
    let soft_deletes = last.is_json && metadata::soft_deletes(&last.event_type, &last.data);
    Some(MetadataEffect { base: base.into(), soft_deletes })
}

/// True when the log thread may ask for a revival, as far as the index knows. When it asks nevertheless, the deletion
/// is newer than the request, and the client is told to try again.
fn may_need_revival(edge: &EdgeState, stream: &str, metadata_of: Option<&MetadataEffect>) -> bool {
    let index = &edge.links.index;
    index.head(stream).soft_deleted || metadata_of.is_some_and(|effect| index.head(&effect.base).soft_deleted)
}

fn plain_append(
    expected_version: ExpectedVersion,
    event_count: u16,
    body: Vec<u8>,
    metadata_of: Option<MetadataEffect>,
) -> Append {
    Append {
        ticket: Ticket { edge: 0, key: 0 },
        kind: RecordKind::Append,
        expected_version,
        guard: None,
        event_count,
        body,
        metadata_of,
        revival: None,
        // Times and share are filled in when it is handed over.
        deadline: Ticks(u64::MAX),
        handed_over: Ticks(0),
        queued: None,
    }
}

/// DeleteStream, on the leader.
pub(super) fn delete_stream(caller: &Caller<'_>, request: &DeleteStream) {
    let asked = Asked::DeleteStream;
    if base_stream(&request.stream).is_some() || request.stream == ALL_STREAM {
        return caller.fail(asked, OperationResult::AccessDenied);
    }
    if !caller.may(&request.stream, Action::Delete, asked) {
        return;
    }
    let base: Arc<str> = request.stream.as_str().into();
    let expected_version = request.expected_version;
    let work = AppendWork { asked, stream: Arc::clone(&base), expected_version, ids: Vec::new(), again: None };
    let append = if request.hard_delete {
        let mut body = metadata::tombstone_body(&base);
        BatchView::set_first_event_number(&mut body, EventNumber::TOMBSTONE.0);
        Append { kind: RecordKind::Delete, ..plain_append(expected_version, 1, body, None) }
    } else {
        let metastream = metastream_of(&base);
        let body = metadata::metadata_body(&metastream, &metadata::soft_deleted());
        let effect = Some(MetadataEffect { base: Arc::clone(&base), soft_deletes: true });
        Append { guard: Some(base), ..plain_append(expected_version, 1, body, effect) }
    };
    caller.append(append, work);
}

/// TransactionStart, on the leader.
pub(super) fn transaction_start(caller: &Caller<'_>, request: &TransactionStart) {
    let asked = Asked::TransactionStart;
    if !caller.may(&request.stream, Action::Write, asked) {
        return;
    }
    let mut body = BatchBuilder::new(&request.stream, 0).finish();
    BatchView::set_first_event_number(&mut body, wire_version(request.expected_version));
    append_to_transaction(caller, asked, RecordKind::TransactionStart, request.stream.as_str().into(), 0, body);
}

/// TransactionWrite, on the leader. As in v5 one for a transaction that nobody knows is ignored, with success.
pub(super) fn transaction_write(caller: &Caller<'_>, request: &TransactionWrite) {
    let id = request.transaction_id;
    let asked = Asked::TransactionWrite(id);
    let position = u64::try_from(id).ok().map(LogPosition);
    let Some(stream) = position.and_then(|position| caller.edge.links.index.transaction_stream(position)) else {
        let success = OperationResult::Success;
        return caller.session.send(|out| response::transaction_written(out, caller.correlation, id, success));
    };
    let mut builder = BatchBuilder::new(&stream, request.events.iter().map(|event| event.data.len()).sum());
    for event in &request.events {
        builder.event(event.id, &event.event_type, event.is_json, &event.data, &event.metadata);
    }
    let event_count = builder.event_count();
    let mut body = builder.finish();
    BatchView::set_first_event_number(&mut body, id);
    append_to_transaction(caller, asked, RecordKind::TransactionWrite, stream, event_count, body);
}

fn append_to_transaction(
    caller: &Caller<'_>,
    asked: Asked,
    kind: RecordKind,
    stream: Arc<str>,
    event_count: u16,
    body: Vec<u8>,
) {
    let expected_version = ExpectedVersion::Any;
    let work = AppendWork { asked, stream: Arc::clone(&stream), expected_version, ids: Vec::new(), again: None };
    caller.append(Append { kind, ..plain_append(expected_version, event_count, body, None) }, work);
}

/// TransactionCommit, on the leader: the events are written again, as one ordinary append.
pub(super) fn transaction_commit(caller: &Caller<'_>, request: &TransactionCommit) {
    let asked = Asked::TransactionCommit(request.transaction_id);
    let transaction = find_transaction(caller.edge, request.transaction_id);
    let expected = transaction.as_ref().and_then(|found| ExpectedVersion::from_wire(found.expected_version));
    let (Some(transaction), Some(expected_version)) = (transaction, expected) else {
        return caller.fail(asked, OperationResult::AccessDenied);
    };
    if !caller.may(&transaction.stream, Action::Write, asked) {
        return;
    }
    match gather(caller.edge, &transaction) {
        Ok(events) => append_events(caller, asked, &transaction.stream, expected_version, &events),
        Err(text) => caller.refuse(&text),
    }
}

fn find_transaction(edge: &EdgeState, id: i64) -> Option<Transaction> {
    edge.links.index.transaction(LogPosition(u64::try_from(id).ok()?))
}

/// The events of a transaction in order.
fn gather(edge: &EdgeState, transaction: &Transaction) -> Result<Vec<NewEvent>, String> {
    let mut events = Vec::new();
    let mut bytes = transaction.stream.len();
    let limit = edge.options.append_size_max;
    for &position in &transaction.writes {
        let copied =
            fetch::batch(&edge.links, position, |batch| batch.events().map(|event| copy(&event)).collect::<Vec<_>>());
        let copied =
            copied.ok_or_else(|| format!("The transaction's events at log position {position} cannot be read."))?;
        let size = |event: &NewEvent| event.event_type.len() + event.data.len() + event.metadata.len();
        bytes += copied.iter().map(size).sum::<usize>();
        events.extend(copied);
        if bytes as u64 > limit || events.len() > EVENTS_PER_APPEND_MAX {
            return Err(format!(
                "The transaction has {} events with {bytes} bytes or more; one write may have {EVENTS_PER_APPEND_MAX} \
                 events and {limit} bytes (MaxAppendSize). Nothing was committed.",
                events.len()
            ));
        }
    }
    Ok(events)
}

fn copy(event: &EventView<'_>) -> NewEvent {
    NewEvent {
        id: event.id,
        event_type: event.event_type.to_owned(),
        is_json: event.is_json,
        data: Bytes::copy_from_slice(event.data),
        metadata: Bytes::copy_from_slice(event.metadata),
    }
}

/// The claim as the wire has it.
fn wire_version(expected: ExpectedVersion) -> i64 {
    match expected {
        ExpectedVersion::Any => -2,
        ExpectedVersion::NoStream => -1,
        ExpectedVersion::StreamExists => -4,
        ExpectedVersion::Exact(number) => number,
    }
}

/// The log thread's answer to a record.
pub(super) fn answered(
    edge: &Rc<EdgeState>,
    session: &Rc<Session>,
    correlation: Guid,
    work: AppendWork,
    answer: Answer,
    time: Duration,
) {
    let asked = work.asked;
    let fail = |result, current| session.send(|out| asked.fail(out, correlation, result, current));
    match answer {
        Answer::Appended {
            first_event_number,
            last_event_number,
            position,
            last_prepare_position,
            committed_at,
            ..
        } => {
            let written = Written {
                first_event_number,
                last_event_number,
                prepare_position: last_prepare_position.as_i64(),
                commit_position: position.as_i64(),
            };
            succeed(session, correlation, asked, written);
            edge.answered.borrow_mut().note(committed_at);
        }
        Answer::AlreadyWritten { first_event_number, last_event_number, .. } => {
            succeed(session, correlation, asked, Written::repeated(first_event_number, last_event_number));
        }
        Answer::WrongExpectedVersion { current, .. } => match repeated(edge, &work, current) {
            Some(written) => succeed(session, correlation, asked, written),
            None => fail(OperationResult::WrongExpectedVersion, current),
        },
        Answer::StreamDeleted { .. } => fail(OperationResult::StreamDeleted, -1),
        Answer::SoftDeleted { last_event_number, .. } if is_begun(edge, &work) => {
            match repeated(edge, &work, last_event_number) {
                Some(written) => succeed(session, correlation, asked, written),
                None => fail(OperationResult::WrongExpectedVersion, last_event_number),
            }
        }
        Answer::SoftDeleted { last_event_number, .. } => {
            revive(edge, session, correlation, work, last_event_number, time);
        }
        // Another node leads, or nobody: the client asks again, and then this node forwards or refuses.
        Answer::NotLeader => session.send(|out| response::not_ready(out, correlation)),
        Answer::TooBusy => edge.refuse_busy(session, correlation),
        Answer::DiskFull => session.send(|out| response::bad_request(out, correlation, DISK_FULL_TEXT)),
        Answer::TooLarge { bytes, limit } => {
            let text = format!("The write makes a record of {bytes} bytes, a chunk holds {limit}; send less at once.");
            session.send(|out| response::bad_request(out, correlation, &text));
        }
        // It may be written or not: the client's repeat of the same request finds out.
        _ => fail(asked.timeout(), -1),
    }
}

fn succeed(session: &Session, correlation: Guid, asked: Asked, written: Written) {
    let success = OperationResult::Success;
    session.send(|out| match asked {
        Asked::WriteEvents => response::write_succeeded(out, correlation, written),
        Asked::DeleteStream => {
            response::delete_succeeded(out, correlation, written.prepare_position, written.commit_position);
        }
        Asked::TransactionStart => response::transaction_started(out, correlation, Ok(written.commit_position)),
        Asked::TransactionWrite(id) => response::transaction_written(out, correlation, id, success),
        Asked::TransactionCommit(id) => response::transaction_committed(out, correlation, id, Ok(written)),
    });
}

/// True when "no stream" is claimed of a soft-deleted stream that begins with the very event to be written: then this is
/// the write that made it, once more, and not one that brings it back.
fn is_begun(edge: &EdgeState, work: &AppendWork) -> bool {
    let first = work.ids.get(..1).filter(|_| work.expected_version == ExpectedVersion::NoStream);
    first.is_some_and(|first| fetch::are_there(&edge.links, &work.stream, 0, first))
}

/// A claim below the current version may be that of a repeat: then the very same events follow it.
fn repeated(edge: &EdgeState, work: &AppendWork, current: i64) -> Option<Written> {
    let claimed = match work.expected_version {
        ExpectedVersion::NoStream => -1,
        ExpectedVersion::Exact(number) => number,
        ExpectedVersion::Any | ExpectedVersion::StreamExists => return None,
    };
    let last = claimed.checked_add(i64::try_from(work.ids.len()).ok()?)?;
    let first = claimed.checked_add(1)?;
    let found =
        !work.ids.is_empty() && last <= current && fetch::are_there(&edge.links, &work.stream, first, &work.ids);
    found.then(|| Written::repeated(first, last))
}

/// Sends the request again with the metadata that takes the soft deletion back.
fn revive(
    edge: &Rc<EdgeState>,
    session: &Rc<Session>,
    correlation: Guid,
    mut work: AppendWork,
    last_event_number: i64,
    time: Duration,
) {
    let Some(mut again) = work.again.take().filter(|again| again.revivals < REVIVALS_MAX) else {
        return edge.refuse_busy(session, correlation);
    };
    again.revivals += 1;
    let AgainAppend { body, event_count, metadata_of, metadata } = again.append.clone();
    let base: Arc<str> =
        metadata_of.as_ref().map_or_else(|| Arc::clone(&work.stream), |effect| Arc::clone(&effect.base));
    let metastream = metastream_of(&base);
    let old = if metadata_of.is_some() { metadata } else { fetch::last_data(&edge.links, &metastream).into() };
    let json = metadata::revived(&old, last_event_number);
    let revival_body = metadata::metadata_body(&metastream, &json);
    let revival = Revival { base, metastream: metastream.into(), last_event_number, body: revival_body };
    let bytes = body.len() + revival.body.len();
    let append = plain_append(work.expected_version, event_count, body, metadata_of);
    work.again = Some(again);
    if let Some(key) = edge.enter(session, correlation, time, bytes, Work::Append(Box::new(work))) {
        let append = Append { ticket: edge.ticket(key), revival: Some(revival), ..append };
        edge.submit(key, Request::Append(Box::new(append)));
    }
}
