//! Requests that change the log: from the client's events to a record's body, and from the log thread's answer back.
//!
//! The log thread decides about versions; what it cannot know is done here: comparing a repeated write with the events
//! that are there, making the metadata that brings a soft-deleted stream back, gathering a transaction's events.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::api::access::{ALL_STREAM, Action, is_allowed};
use crate::api::dispatch::refuse_not_ready;
use crate::api::edge::EdgeState;
use crate::api::fetch;
use crate::api::log_events::FetchError;
use crate::api::metadata::{self, METADATA_TYPE};
use crate::api::reading::reader;
use crate::api::session::Session;
use crate::api::users::Identity;
use crate::api::work::{Asked, Work};
use crate::codec::client::messages::OperationResult;
use crate::codec::client::request::{
    DeleteStream, NewEvent, NewEventView, TransactionCommit, TransactionStart, TransactionWrite, WriteEvents,
    WriteEventsView,
};
use crate::codec::client::response::{self, Written};
use crate::codec::record::{BatchBuilder, BatchView, EVENT_HEADER_BYTES, EventView, RecordKind};
use crate::engine::{Answer, Append, MetadataEffect, Revival};
use crate::index::{NotReady, Transaction};
use crate::limits::{EVENTS_PER_APPEND_MAX, RECORD_ALIGNMENT};
use crate::types::{EventId, EventNumber, ExpectedVersion, Guid, LogPosition, base_stream, metastream_of};

/// How often a write to a soft-deleted stream is tried with a new revival, because others write to it too.
const REVIVALS_MAX: u8 = 4;

/// Said when writes wait for room.
const DISK_FULL_TEXT: &str = "The disk of the leader is full: nothing was written. Reads go on; writes go on when there \
                              is room again.";

/// Said when the next chunk file cannot be made.
const CHUNK_FAILED_TEXT: &str = "The leader cannot make the next file of its log: nothing was written. Its log tells why. \
                                 Reads go on; writes go on when it can again.";

/// Said when full followers leave no majority with room.
const NO_QUORUM_ROOM_TEXT: &str = "The disks of so many nodes are full that no majority could take the write: nothing was \
                                   written. Reads go on; writes go on when a majority has room again.";

/// A record on its way to the log. What was asked comes back with the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppendWork {
    /// How the client is answered.
    pub(super) asked: Asked,
    /// How often it was sent with a revival.
    revivals: u8,
}

/// Who waits for the answer to a write.
pub(super) struct Writer<'a> {
    pub(super) edge: &'a Rc<EdgeState>,
    pub(super) session: &'a Rc<Session>,
    pub(super) correlation: Guid,
    pub(super) work: AppendWork,
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
        match allowed {
            Ok(true) => {}
            Ok(false) => self.fail(asked, OperationResult::AccessDenied),
            Err(NotReady) => self.session.send(|out| response::not_ready(out, self.correlation)),
        }
        allowed == Ok(true)
    }

    fn fail(&self, asked: Asked, result: OperationResult) {
        self.session.send(|out| asked.fail(out, self.correlation, result, -1));
    }

    fn refuse(&self, text: &str) {
        self.session.send(|out| response::bad_request(out, self.correlation, text));
    }

    /// Sends a record on its way: `fill` makes it, in memory that another one has left. It has about `bytes`.
    fn append(&self, asked: Asked, bytes: usize, fill: impl FnOnce(&mut Append)) {
        let time = self.edge.options.commit_timeout;
        let work = Work::Append(AppendWork { asked, revivals: 0 });
        if let Some(key) = self.edge.enter(self.session, self.correlation, time, bytes, work) {
            let mut append = self.edge.spares.borrow_mut().take();
            fill(&mut append);
            self.edge.submit_append(key, append, time);
        }
    }
}

/// WriteEvents, on the leader.
pub(super) fn write_events(caller: &Caller<'_>, request: &WriteEventsView<'_>) {
    let WriteEventsView { stream, expected_version, event_count, event_bytes, .. } = *request;
    if caller.may(stream, Action::Write, Asked::WriteEvents) {
        let bytes = event_count * ENTRY_BYTES + event_bytes;
        append_events(caller, Asked::WriteEvents, stream, expected_version, bytes, request.events());
    }
}

/// WriteEvents that was not read where it lay.
pub(super) fn write_owned(caller: &Caller<'_>, request: &WriteEvents) {
    if caller.may(&request.stream, Action::Write, Asked::WriteEvents) {
        append_owned(caller, Asked::WriteEvents, &request.stream, request.expected_version, &request.events);
    }
}

/// What an event's entry has at most, besides type, data and metadata.
const ENTRY_BYTES: usize = EVENT_HEADER_BYTES + RECORD_ALIGNMENT;

fn append_owned(
    caller: &Caller<'_>,
    asked: Asked,
    stream: &str,
    expected_version: ExpectedVersion,
    events: &[NewEvent],
) {
    let size = |event: &NewEvent| ENTRY_BYTES + event.event_type.len() + event.data.len() + event.metadata.len();
    let bytes = events.iter().map(size).sum();
    append_events(caller, asked, stream, expected_version, bytes, events.iter().map(NewEvent::view));
}

fn append_events<'a>(
    caller: &Caller<'_>,
    asked: Asked,
    stream: &str,
    expected_version: ExpectedVersion,
    bytes: usize,
    events: impl Iterator<Item = NewEventView<'a>>,
) {
    caller.append(asked, stream.len() + bytes, |append| {
        let mut builder = BatchBuilder::within(std::mem::take(&mut append.body), stream, bytes);
        let mut last = None;
        for event in events {
            builder.event(event.id, event.event_type, event.is_json, event.data, event.metadata);
            last = Some(event);
        }
        append.kind = RecordKind::Append;
        append.expected_version = expected_version;
        append.event_count = builder.event_count();
        append.body = builder.finish();
        append.metadata_of = metadata_effect(stream, last);
    });
}

/// What a write does to the stream that it is metadata of: the last event counts.
fn metadata_effect(stream: &str, last: Option<NewEventView<'_>>) -> Option<MetadataEffect> {
    let base = base_stream(stream)?;
    let last = last.filter(|event| event.event_type == METADATA_TYPE)?;
    let soft_deletes = last.is_json && metadata::soft_deletes(last.event_type, last.data);
    Some(MetadataEffect { base: base.into(), soft_deletes })
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
    let base = request.stream.as_str();
    let mut body = if request.hard_delete {
        metadata::tombstone_body(base)
    } else {
        metadata::metadata_body(&metastream_of(base), &metadata::soft_deleted())
    };
    caller.append(asked, body.len(), |append| {
        append.expected_version = request.expected_version;
        append.event_count = 1;
        if request.hard_delete {
            BatchView::set_first_event_number(&mut body, EventNumber::TOMBSTONE.0);
            append.kind = RecordKind::Delete;
        } else {
            append.kind = RecordKind::Append;
            append.guard = Some(base.into());
            append.metadata_of = Some(MetadataEffect { base: base.into(), soft_deletes: true });
        }
        append.body = body;
    });
}

/// TransactionStart, on the leader.
pub(super) fn transaction_start(caller: &Caller<'_>, request: &TransactionStart) {
    let asked = Asked::TransactionStart;
    if !caller.may(&request.stream, Action::Write, asked) {
        return;
    }
    let mut body = BatchBuilder::new(&request.stream, 0).finish();
    BatchView::set_first_event_number(&mut body, wire_version(request.expected_version));
    append_to_transaction(caller, asked, RecordKind::TransactionStart, 0, body);
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
    append_to_transaction(caller, asked, RecordKind::TransactionWrite, event_count, body);
}

fn append_to_transaction(caller: &Caller<'_>, asked: Asked, kind: RecordKind, event_count: u16, body: Vec<u8>) {
    caller.append(asked, body.len(), |append| {
        append.kind = kind;
        append.expected_version = ExpectedVersion::Any;
        append.event_count = event_count;
        append.body = body;
    });
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
    caller.edge.before_long_work();
    match gather(caller.edge, &transaction) {
        Ok(events) => append_owned(caller, asked, &transaction.stream, expected_version, &events),
        Err(Ungathered::TooMuch(text)) => caller.refuse(&text),
        Err(Ungathered::Fetch(error)) if reader(&caller.edge.links).is_passing(&error) => refuse_not_ready(caller),
        Err(Ungathered::Fetch(error)) => {
            caller.refuse(&format!("The transaction's events cannot be read: {error}."));
        }
    }
}

fn find_transaction(edge: &EdgeState, id: i64) -> Option<Transaction> {
    edge.links.index.transaction(LogPosition(u64::try_from(id).ok()?))
}

/// Why the events of a transaction cannot be written.
enum Ungathered {
    /// In words.
    TooMuch(String),
    /// They cannot be read.
    Fetch(FetchError),
}

/// The events of a transaction in order.
fn gather(edge: &EdgeState, transaction: &Transaction) -> Result<Vec<NewEvent>, Ungathered> {
    let mut events = Vec::new();
    let mut bytes = transaction.stream.len();
    let limit = edge.options.append_size_max;
    for &position in &transaction.writes {
        let copied =
            fetch::batch(&edge.links, position, |batch| batch.events().map(|event| copy(&event)).collect::<Vec<_>>());
        let copied = copied.map_err(Ungathered::Fetch)?;
        let size = |event: &NewEvent| event.event_type.len() + event.data.len() + event.metadata.len();
        bytes += copied.iter().map(size).sum::<usize>();
        events.extend(copied);
        if bytes as u64 > limit || events.len() > EVENTS_PER_APPEND_MAX {
            return Err(Ungathered::TooMuch(format!(
                "The transaction has {} events with {bytes} bytes or more; one write may have {EVENTS_PER_APPEND_MAX} \
                 events and {limit} bytes (MaxAppendSize). Nothing was committed.",
                events.len()
            )));
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

/// The log thread's answer to a record, which comes with it. Gives the record back when nothing more is done with it.
pub(super) fn answered(
    writer: &Writer<'_>,
    answer: Answer,
    record: Option<Box<Append>>,
    deadline: Instant,
) -> Option<Box<Append>> {
    let Writer { edge, session, correlation, work } = *writer;
    let fail = |result, current| session.send(|out| work.asked.fail(out, correlation, result, current));
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
            writer.succeed(written);
            edge.answered.borrow_mut().note(committed_at);
        }
        Answer::AlreadyWritten { first_event_number, last_event_number, .. } => {
            writer.succeed(Written::repeated(first_event_number, last_event_number));
        }
        Answer::WrongExpectedVersion { current, .. } => writer.compare(record.as_deref(), current),
        Answer::StreamDeleted { .. } => fail(OperationResult::StreamDeleted, -1),
        Answer::SoftDeleted { last_event_number, .. } => {
            return writer.revive(record, last_event_number, deadline);
        }
        // Another node leads, or nobody: the client asks again, and then this node forwards or refuses.
        // The same where the index is being rebuilt.
        Answer::NotLeader | Answer::NotReady => session.send(|out| response::not_ready(out, correlation)),
        Answer::TooBusy => edge.refuse_busy(session, correlation),
        Answer::DiskFull => session.send(|out| response::bad_request(out, correlation, DISK_FULL_TEXT)),
        Answer::ChunkFailed => session.send(|out| response::bad_request(out, correlation, CHUNK_FAILED_TEXT)),
        Answer::NoQuorumRoom => session.send(|out| response::bad_request(out, correlation, NO_QUORUM_ROOM_TEXT)),
        Answer::TooLarge { bytes, limit } => {
            let text = format!("The write makes a record of {bytes} bytes, a chunk holds {limit}; send less at once.");
            session.send(|out| response::bad_request(out, correlation, &text));
        }
        // It may be written or not: the client's repeat of the same request finds out.
        _ => fail(work.asked.timeout(), -1),
    }
    record
}

impl Writer<'_> {
    fn succeed(&self, written: Written) {
        let (correlation, success) = (self.correlation, OperationResult::Success);
        self.session.send(|out| match self.work.asked {
            Asked::WriteEvents => response::write_succeeded(out, correlation, written),
            Asked::DeleteStream => {
                response::delete_succeeded(out, correlation, written.prepare_position, written.commit_position);
            }
            Asked::TransactionStart => response::transaction_started(out, correlation, Ok(written.commit_position)),
            Asked::TransactionWrite(id) => response::transaction_written(out, correlation, id, success),
            Asked::TransactionCommit(id) => response::transaction_committed(out, correlation, id, Ok(written)),
        });
    }

    /// The claim does not hold; but that may be because of the very same write, once more.
    fn compare(&self, record: Option<&Append>, current: i64) {
        match record.map(|record| repeated(self.edge, record, current)) {
            Some(Ok(Some(written))) => self.succeed(written),
            Some(Err(error)) => self.unreadable(&error),
            Some(Ok(None)) => {
                let result = OperationResult::WrongExpectedVersion;
                self.session.send(|out| self.work.asked.fail(out, self.correlation, result, current));
            }
            None => self.lost(),
        }
    }

    /// Which write this is about is not known, against the log thread's promise: a second try finds out.
    fn lost(&self) {
        debug_assert!(false, "an answer that needs its request came without");
        self.session.send(|out| response::not_ready(out, self.correlation));
    }

    /// What the write must be compared with cannot be read: neither answer would be known to be true. A later try finds out.
    fn unreadable(&self, error: &FetchError) {
        tracing::debug!(%error, "a write cannot be compared with what is there");
        self.session.send(|out| response::not_ready(out, self.correlation));
    }

    /// The stream is soft-deleted: the record is sent again with the metadata that takes that back, unless it is the one
    /// that made the stream. Gives the record back when it is not sent.
    fn revive(&self, record: Option<Box<Append>>, last_event_number: i64, deadline: Instant) -> Option<Box<Append>> {
        let Writer { edge, session, correlation, work } = *self;
        let Some(mut record) = record else {
            self.lost();
            return None;
        };
        let is_begun = match is_begun(edge, &record) {
            Ok(is_begun) => is_begun,
            Err(error) => {
                self.unreadable(&error);
                return Some(record);
            }
        };
        if is_begun {
            self.compare(Some(&record), last_event_number);
            return Some(record);
        }
        if work.revivals >= REVIVALS_MAX {
            edge.refuse_busy(session, correlation);
            return Some(record);
        }
        let revival = match revival(edge, &record, last_event_number) {
            Ok(revival) => revival,
            Err(error) => {
                self.unreadable(&error);
                return Some(record);
            }
        };
        let bytes = record.body.len() + revival.body.len();
        let time = deadline.saturating_duration_since(edge.now());
        let again = Work::Append(AppendWork { revivals: work.revivals + 1, ..work });
        let Some(key) = edge.enter(session, correlation, time, bytes, again) else {
            return Some(record);
        };
        record.revival = Some(revival);
        edge.submit_append(key, record, time);
        None
    }
}

/// The identifiers of a record's events where a repeat of the same request succeeds.
fn repeatable_ids(record: &Append) -> Vec<EventId> {
    if record.kind != RecordKind::Append || record.guard.is_some() {
        return Vec::new();
    }
    BatchView::ids_of(&record.body).take(usize::from(record.event_count)).collect()
}

/// True when "no stream" is claimed of a soft-deleted stream that begins with the very event to be written: then this is
/// the write that made it, once more, and not one that brings it back.
fn is_begun(edge: &EdgeState, record: &Append) -> Result<bool, FetchError> {
    let ids = repeatable_ids(record);
    let first = ids.get(..1).filter(|_| record.expected_version == ExpectedVersion::NoStream);
    first.map_or(Ok(false), |first| fetch::are_there(&edge.links, record.stream(), 0, first))
}

/// A claim below the current version may be that of a repeat: then the very same events follow it.
fn repeated(edge: &EdgeState, record: &Append, current: i64) -> Result<Option<Written>, FetchError> {
    let claimed = match record.expected_version {
        ExpectedVersion::NoStream => -1,
        ExpectedVersion::Exact(number) => number,
        ExpectedVersion::Any | ExpectedVersion::StreamExists => return Ok(None),
    };
    let ids = repeatable_ids(record);
    let last = i64::try_from(ids.len()).ok().and_then(|count| claimed.checked_add(count));
    let (Some(last), Some(first)) = (last, claimed.checked_add(1)) else { return Ok(None) };
    if ids.is_empty() || last > current {
        return Ok(None);
    }
    let found = fetch::are_there(&edge.links, record.stream(), first, &ids)?;
    Ok(found.then(|| Written::repeated(first, last)))
}

/// What takes the soft deletion back that `record` has met.
fn revival(edge: &EdgeState, record: &Append, last_event_number: i64) -> Result<Revival, FetchError> {
    let base = record.metadata_of.as_ref().map_or_else(|| record.stream().into(), |effect| Arc::clone(&effect.base));
    let metastream = metastream_of(&base);
    let old = match &record.metadata_of {
        // The new metadata, which it is itself.
        Some(_) => last_data(record),
        None => fetch::last_data(&edge.links, &metastream)?,
    };
    let body = metadata::metadata_body(&metastream, &metadata::revived(&old, last_event_number));
    Ok(Revival { base, metastream: metastream.into(), last_event_number, body })
}

/// The data of the last event in a record.
fn last_data(record: &Append) -> Vec<u8> {
    let batch = BatchView::of_body(&record.body, record.event_count);
    batch.and_then(|batch| batch.events().last()).map(|event| event.data.to_vec()).unwrap_or_default()
}
