//! Answers that are not pages of events, each appended to an output buffer as a whole frame.
//!
//! Which optional fields are present is part of the protocol: v5 writes some of them always, zero included, and clients
//! were built against that. Pages are in [`page`](super::page).

use std::net::IpAddr;

use bytes::Bytes;
use prost::Message;

use crate::codec::client::command::Command;
use crate::codec::client::event::ProtocolLevel;
use crate::codec::client::frame::{begin, finish, put_frame, put_message};
use crate::codec::client::messages::{
    self, CreatePersistentSubscriptionResult, DeletePersistentSubscriptionResult, NotHandledReason, OperationResult,
    ScavengeResult, SubscriptionDropReason, UpdatePersistentSubscriptionResult,
};
use crate::types::Guid;

/// "No number" in a failed write's answer.
const NO_NUMBER: i64 = i32::MIN as i64;

/// What a successful write or commit tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Number of the first event.
    pub first_event_number: i64,
    /// Number of the last event.
    pub last_event_number: i64,
    /// Prepare position of the last event; -1 on an idempotent repeat.
    pub prepare_position: i64,
    /// Commit position; -1 on an idempotent repeat.
    pub commit_position: i64,
}

impl Written {
    /// The answer to a repeat of a write that was done before.
    #[must_use]
    pub fn repeated(first_event_number: i64, last_event_number: i64) -> Written {
        Written { first_event_number, last_event_number, prepare_position: -1, commit_position: -1 }
    }
}

impl OperationResult {
    /// The text that goes with a failure; `None` with success.
    #[must_use]
    pub fn text(self) -> Option<&'static str> {
        Some(match self {
            OperationResult::Success => return None,
            OperationResult::PrepareTimeout => "Prepare phase timeout.",
            OperationResult::CommitTimeout => "Commit phase timeout.",
            OperationResult::ForwardTimeout => "Forwarding timeout",
            OperationResult::WrongExpectedVersion => "Wrong expected version.",
            OperationResult::StreamDeleted => "Stream is deleted.",
            OperationResult::InvalidTransaction => "Invalid transaction.",
            OperationResult::AccessDenied => "Access denied.",
        })
    }

    fn message(self) -> Option<String> {
        self.text().map(str::to_owned)
    }
}

/// WriteEventsCompleted, success.
pub fn write_succeeded(out: &mut Vec<u8>, correlation: Guid, written: Written) {
    // By hand, the most frequent answer of all: result 0, the four numbers in fields 3 to 6, current version 0.
    let start = begin(out, Command::WriteEventsCompleted, correlation);
    let Written { first_event_number, last_event_number, prepare_position, commit_position } = written;
    let numbers = [first_event_number, last_event_number, prepare_position, commit_position];
    let mut payload = [0; 4 + 4 * (1 + VARINT_MAX_BYTES)];
    payload[0] = key(1);
    let mut end = 2;
    for (field, number) in (3..).zip(numbers) {
        payload[end] = key(field);
        end = put_varint(&mut payload, end + 1, number.cast_unsigned());
    }
    payload[end] = key(7);
    out.extend_from_slice(&payload[..end + 2]);
    finish(out, start);
}

const VARINT_MAX_BYTES: usize = 10;

/// The key of a varint field.
const fn key(field: u8) -> u8 {
    field << 3
}

/// Puts a varint at `at`, and gives where it ends.
fn put_varint(bytes: &mut [u8], mut at: usize, mut value: u64) -> usize {
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
    at + 1
}

/// WriteEventsCompleted, failure. `current_version` is the stream's last event number with
/// [`OperationResult::WrongExpectedVersion`], -1 otherwise.
pub fn write_failed(out: &mut Vec<u8>, correlation: Guid, result: OperationResult, current_version: i64) {
    write_failed_with(out, correlation, result, current_version, result.message());
}

/// WriteEventsCompleted, failure, with words of our own (a full disk, for instance) in place of v5's.
pub fn write_failed_because(out: &mut Vec<u8>, correlation: Guid, result: OperationResult, text: &str) {
    write_failed_with(out, correlation, result, -1, Some(text.to_owned()));
}

fn write_failed_with(
    out: &mut Vec<u8>,
    correlation: Guid,
    result: OperationResult,
    current_version: i64,
    message: Option<String>,
) {
    debug_assert!(result != OperationResult::Success, "a failure");
    let message = messages::WriteEventsCompleted {
        result: result.into(),
        message,
        first_event_number: NO_NUMBER,
        last_event_number: NO_NUMBER,
        prepare_position: Some(NO_NUMBER),
        commit_position: Some(0),
        current_version: Some(current_version),
    };
    put_message(out, Command::WriteEventsCompleted, correlation, &message);
}

/// DeleteStreamCompleted, success.
pub fn delete_succeeded(out: &mut Vec<u8>, correlation: Guid, prepare_position: i64, commit_position: i64) {
    let positions = (prepare_position, commit_position);
    put_delete(out, correlation, OperationResult::Success, positions, None);
}

/// DeleteStreamCompleted, failure. `text` replaces v5's words.
pub fn delete_failed(out: &mut Vec<u8>, correlation: Guid, result: OperationResult, text: Option<&str>) {
    put_delete(out, correlation, result, (-1, -1), text.map(str::to_owned).or(result.message()));
}

fn put_delete(
    out: &mut Vec<u8>,
    correlation: Guid,
    result: OperationResult,
    (prepare_position, commit_position): (i64, i64),
    message: Option<String>,
) {
    let message = messages::DeleteStreamCompleted {
        result: result.into(),
        message,
        prepare_position: Some(prepare_position),
        commit_position: Some(commit_position),
    };
    put_message(out, Command::DeleteStreamCompleted, correlation, &message);
}

/// TransactionStartCompleted: the transaction's identifier, or why not.
pub fn transaction_started(out: &mut Vec<u8>, correlation: Guid, started: Result<i64, OperationResult>) {
    let result = started.err().unwrap_or(OperationResult::Success);
    let transaction_id = started.unwrap_or(-1);
    let message =
        messages::TransactionStartCompleted { transaction_id, result: result.into(), message: result.message() };
    put_message(out, Command::TransactionStartCompleted, correlation, &message);
}

/// TransactionWriteCompleted.
pub fn transaction_written(out: &mut Vec<u8>, correlation: Guid, transaction_id: i64, result: OperationResult) {
    let message =
        messages::TransactionWriteCompleted { transaction_id, result: result.into(), message: result.message() };
    put_message(out, Command::TransactionWriteCompleted, correlation, &message);
}

/// TransactionCommitCompleted.
pub fn transaction_committed(
    out: &mut Vec<u8>,
    correlation: Guid,
    transaction_id: i64,
    committed: Result<Written, OperationResult>,
) {
    let result = committed.err().unwrap_or(OperationResult::Success);
    let (first_event_number, last_event_number) = (NO_NUMBER, NO_NUMBER);
    let failed = Written { first_event_number, last_event_number, prepare_position: 0, commit_position: 0 };
    let written = committed.unwrap_or(failed);
    let message = messages::TransactionCommitCompleted {
        transaction_id,
        result: result.into(),
        // Unlike the other answers this one has an empty text on success.
        message: Some(result.text().unwrap_or_default().to_owned()),
        first_event_number: written.first_event_number,
        last_event_number: written.last_event_number,
        prepare_position: Some(written.prepare_position),
        commit_position: Some(written.commit_position),
    };
    put_message(out, Command::TransactionCommitCompleted, correlation, &message);
}

/// SubscriptionConfirmation; `last_event_number` is `None` for a subscription to the whole log.
pub fn subscription_confirmed(
    out: &mut Vec<u8>,
    correlation: Guid,
    level: ProtocolLevel,
    last_commit_position: i64,
    last_event_number: Option<i64>,
) {
    let last_event_number = last_event_number.map(|number| level.show(number));
    let message = messages::SubscriptionConfirmation { last_commit_position, last_event_number };
    put_message(out, Command::SubscriptionConfirmation, correlation, &message);
}

/// SubscriptionDropped, of either kind of subscription.
pub fn subscription_dropped(out: &mut Vec<u8>, correlation: Guid, reason: SubscriptionDropReason) {
    let reason = Some(reason).filter(|&reason| reason != SubscriptionDropReason::Unsubscribed).map(i32::from);
    put_message(out, Command::SubscriptionDropped, correlation, &messages::SubscriptionDropped { reason });
}

/// PersistentSubscriptionConfirmation; `subscription` is "stream::group".
pub fn persistent_subscription_confirmed(
    out: &mut Vec<u8>,
    correlation: Guid,
    level: ProtocolLevel,
    subscription: &str,
    last_commit_position: i64,
    last_event_number: i64,
) {
    let message = messages::PersistentSubscriptionConfirmation {
        last_commit_position,
        subscription_id: subscription.to_owned(),
        last_event_number: Some(level.show(last_event_number)),
    };
    put_message(out, Command::PersistentSubscriptionConfirmation, correlation, &message);
}

/// CreatePersistentSubscriptionCompleted; `reason` is empty on success.
pub fn persistent_subscription_created(
    out: &mut Vec<u8>,
    correlation: Guid,
    result: CreatePersistentSubscriptionResult,
    reason: &str,
) {
    let reason = Some(reason.to_owned());
    let message = messages::CreatePersistentSubscriptionCompleted { result: result.into(), reason };
    put_message(out, Command::CreatePersistentSubscriptionCompleted, correlation, &message);
}

/// UpdatePersistentSubscriptionCompleted; `reason` is empty on success.
pub fn persistent_subscription_updated(
    out: &mut Vec<u8>,
    correlation: Guid,
    result: UpdatePersistentSubscriptionResult,
    reason: &str,
) {
    let reason = Some(reason.to_owned());
    let message = messages::UpdatePersistentSubscriptionCompleted { result: result.into(), reason };
    put_message(out, Command::UpdatePersistentSubscriptionCompleted, correlation, &message);
}

/// DeletePersistentSubscriptionCompleted; `reason` is empty on success.
pub fn persistent_subscription_deleted(
    out: &mut Vec<u8>,
    correlation: Guid,
    result: DeletePersistentSubscriptionResult,
    reason: &str,
) {
    let reason = Some(reason.to_owned());
    let message = messages::DeletePersistentSubscriptionCompleted { result: result.into(), reason };
    put_message(out, Command::DeletePersistentSubscriptionCompleted, correlation, &message);
}

/// ScavengeDatabaseResponse; the identifier is absent when unauthorized.
pub fn scavenge_answered(out: &mut Vec<u8>, correlation: Guid, result: ScavengeResult, scavenge: Option<Guid>) {
    let scavenge_id = scavenge.map(|id| id.to_string());
    let message = messages::ScavengeDatabaseResponse { result: result.into(), scavenge_id };
    put_message(out, Command::ScavengeDatabaseResponse, correlation, &message);
}

/// An endpoint as a node advertises it: an address or a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address text.
    pub address: String,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint of an address.
    #[must_use]
    pub fn new(address: IpAddr, port: u16) -> Endpoint {
        Endpoint { address: address.to_string(), port }
    }
}

/// NotHandled: ask again later.
pub fn not_ready(out: &mut Vec<u8>, correlation: Guid) {
    put_not_handled(out, correlation, NotHandledReason::NotReady, None);
}

/// NotHandled: too much is waiting, ask again later.
pub fn too_busy(out: &mut Vec<u8>, correlation: Guid) {
    put_not_handled(out, correlation, NotHandledReason::TooBusy, None);
}

/// NotHandled: ask the leader, which advertises these endpoints to clients.
pub fn not_leader(
    out: &mut Vec<u8>,
    correlation: Guid,
    tcp: &Endpoint,
    http: &Endpoint,
    secure_tcp: Option<&Endpoint>,
) {
    let leader = messages::MasterInfo {
        external_tcp_address: tcp.address.clone(),
        external_tcp_port: tcp.port.into(),
        external_http_address: http.address.clone(),
        external_http_port: http.port.into(),
        external_secure_tcp_address: secure_tcp.map(|endpoint| endpoint.address.clone()),
        external_secure_tcp_port: secure_tcp.map(|endpoint| endpoint.port.into()),
    };
    put_not_handled(out, correlation, NotHandledReason::NotMaster, Some(leader.encode_to_vec().into()));
}

fn put_not_handled(out: &mut Vec<u8>, correlation: Guid, reason: NotHandledReason, additional_info: Option<Bytes>) {
    let message = messages::NotHandled { reason: reason.into(), additional_info };
    put_message(out, Command::NotHandled, correlation, &message);
}

/// BadRequest. With [`Guid::ZERO`] v5 clients give the whole connection up.
pub fn bad_request(out: &mut Vec<u8>, correlation: Guid, text: &str) {
    put_frame(out, Command::BadRequest, correlation, text.as_bytes());
}

/// Why credentials were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticationRefusal {
    /// Authenticate without credentials in the package.
    NoCredentials,
    /// Authenticate with credentials that are not good.
    Unauthorized,
    /// A request with credentials (its own or the connection's) that are not good.
    NotAuthenticated,
}

/// NotAuthenticated.
pub fn not_authenticated(out: &mut Vec<u8>, correlation: Guid, refusal: AuthenticationRefusal) {
    let text = match refusal {
        AuthenticationRefusal::NoCredentials => "No user credentials provided.",
        AuthenticationRefusal::Unauthorized => "Unauthorized",
        AuthenticationRefusal::NotAuthenticated => "Not Authenticated",
    };
    put_frame(out, Command::NotAuthenticated, correlation, text.as_bytes());
}

/// Authenticated.
pub fn authenticated(out: &mut Vec<u8>, correlation: Guid) {
    put_frame(out, Command::Authenticated, correlation, b"");
}

/// ClientIdentified.
pub fn client_identified(out: &mut Vec<u8>, correlation: Guid) {
    put_frame(out, Command::ClientIdentified, correlation, b"");
}

/// Pong.
pub fn pong(out: &mut Vec<u8>, correlation: Guid, payload: &[u8]) {
    put_frame(out, Command::Pong, correlation, payload);
}

/// HeartbeatRequest, with a correlation identifier of our own.
pub fn heartbeat_request(out: &mut Vec<u8>, correlation: Guid) {
    put_frame(out, Command::HeartbeatRequestCommand, correlation, b"");
}

/// HeartbeatResponse.
pub fn heartbeat_response(out: &mut Vec<u8>, correlation: Guid) {
    put_frame(out, Command::HeartbeatResponseCommand, correlation, b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_written_by_hand_is_the_message() {
        let mut numbers = vec![-1, i64::MIN, i64::MAX];
        numbers.extend((0..63).flat_map(|bit| [(1 << bit) - 1, 1 << bit]));
        for (index, &number) in numbers.iter().enumerate() {
            let other = |step: usize| numbers[(index + step) % numbers.len()];
            let (last_event_number, prepare_position, commit_position) = (other(1), other(7), other(50));
            let written = Written { first_event_number: number, last_event_number, prepare_position, commit_position };
            let message = messages::WriteEventsCompleted {
                result: OperationResult::Success.into(),
                message: None,
                first_event_number: number,
                last_event_number,
                prepare_position: Some(prepare_position),
                commit_position: Some(commit_position),
                current_version: Some(0),
            };
            let (mut by_hand, mut expected) = (vec![7], vec![7]);
            write_succeeded(&mut by_hand, Guid([3; 16]), written);
            put_message(&mut expected, Command::WriteEventsCompleted, Guid([3; 16]), &message);
            assert_eq!(by_hand, expected, "{written:?}");
        }
    }
}
