//! Volatile and persistent subscriptions.

use bytes::Bytes;

use super::read::{ResolvedEvent, ResolvedIndexedEvent};

/// 0xC0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SubscribeToStream {
    /// The stream; empty: the whole log.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// Follow link events.
    #[prost(bool, required, tag = "2")]
    pub resolve_link_tos: bool,
}

/// 0xC1.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SubscriptionConfirmation {
    /// Of the last event visible.
    #[prost(int64, required, tag = "1")]
    pub last_commit_position: i64,
    /// Of the stream; absent for the whole log.
    #[prost(int64, optional, tag = "2")]
    pub last_event_number: Option<i64>,
}

/// 0xC2.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamEventAppeared {
    /// The pushed event.
    #[prost(message, required, tag = "1")]
    pub event: ResolvedEvent,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SubscriptionDropReason {
    /// It was asked to, or the node ends it.
    Unsubscribed = 0,
    /// The caller lacks the right.
    AccessDenied = 1,
    /// No such group.
    NotFound = 2,
    /// Defined, never sent.
    PersistentSubscriptionDeleted = 3,
    /// The group has enough consumers.
    SubscriberMaxCountReached = 4,
}

/// 0xC4.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SubscriptionDropped {
    /// Not written when unsubscribed.
    #[prost(enumeration = "SubscriptionDropReason", optional, tag = "1")]
    pub reason: Option<i32>,
}

/// 0xC8.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreatePersistentSubscription {
    /// The group.
    #[prost(string, required, tag = "1")]
    pub subscription_group_name: String,
    /// The stream.
    #[prost(string, required, tag = "2")]
    pub event_stream_id: String,
    /// Follow link events.
    #[prost(bool, required, tag = "3")]
    pub resolve_link_tos: bool,
    /// Event number to start at; -1: from now on.
    #[prost(int64, required, tag = "4")]
    pub start_from: i64,
    /// Time until an event is sent again; 0: never.
    #[prost(int32, required, tag = "5")]
    pub message_timeout_milliseconds: i32,
    /// Collect latencies.
    #[prost(bool, required, tag = "6")]
    pub record_statistics: bool,
    /// Live events kept.
    #[prost(int32, required, tag = "7")]
    pub live_buffer_size: i32,
    /// Page size of history.
    #[prost(int32, required, tag = "8")]
    pub read_batch_size: i32,
    /// History events kept.
    #[prost(int32, required, tag = "9")]
    pub buffer_size: i32,
    /// Retries before parking.
    #[prost(int32, required, tag = "10")]
    pub max_retry_count: i32,
    /// Used when no strategy is named.
    #[prost(bool, required, tag = "11")]
    pub prefer_round_robin: bool,
    /// Milliseconds between checkpoints.
    #[prost(int32, required, tag = "12")]
    pub checkpoint_after_time: i32,
    /// Events that force a checkpoint.
    #[prost(int32, required, tag = "13")]
    pub checkpoint_max_count: i32,
    /// Events below which none is written.
    #[prost(int32, required, tag = "14")]
    pub checkpoint_min_count: i32,
    /// Consumers at most; 0: no limit.
    #[prost(int32, required, tag = "15")]
    pub subscriber_max_count: i32,
    /// Name of the strategy.
    #[prost(string, optional, tag = "16")]
    pub named_consumer_strategy: Option<String>,
}

/// 0xCE.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdatePersistentSubscription {
    /// The group.
    #[prost(string, required, tag = "1")]
    pub subscription_group_name: String,
    /// The stream.
    #[prost(string, required, tag = "2")]
    pub event_stream_id: String,
    /// Follow link events.
    #[prost(bool, required, tag = "3")]
    pub resolve_link_tos: bool,
    /// Event number to start at; -1: from now on.
    #[prost(int64, required, tag = "4")]
    pub start_from: i64,
    /// Time until an event is sent again; 0: never.
    #[prost(int32, required, tag = "5")]
    pub message_timeout_milliseconds: i32,
    /// Collect latencies.
    #[prost(bool, required, tag = "6")]
    pub record_statistics: bool,
    /// Live events kept.
    #[prost(int32, required, tag = "7")]
    pub live_buffer_size: i32,
    /// Page size of history.
    #[prost(int32, required, tag = "8")]
    pub read_batch_size: i32,
    /// History events kept.
    #[prost(int32, required, tag = "9")]
    pub buffer_size: i32,
    /// Retries before parking.
    #[prost(int32, required, tag = "10")]
    pub max_retry_count: i32,
    /// Used when no strategy is named.
    #[prost(bool, required, tag = "11")]
    pub prefer_round_robin: bool,
    /// Milliseconds between checkpoints.
    #[prost(int32, required, tag = "12")]
    pub checkpoint_after_time: i32,
    /// Events that force a checkpoint.
    #[prost(int32, required, tag = "13")]
    pub checkpoint_max_count: i32,
    /// Events below which none is written.
    #[prost(int32, required, tag = "14")]
    pub checkpoint_min_count: i32,
    /// Consumers at most; 0: no limit.
    #[prost(int32, required, tag = "15")]
    pub subscriber_max_count: i32,
    /// Name of the strategy.
    #[prost(string, optional, tag = "16")]
    pub named_consumer_strategy: Option<String>,
}

/// 0xCA.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeletePersistentSubscription {
    /// The group.
    #[prost(string, required, tag = "1")]
    pub subscription_group_name: String,
    /// The stream.
    #[prost(string, required, tag = "2")]
    pub event_stream_id: String,
}

/// How the create of a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum CreatePersistentSubscriptionResult {
    /// Done.
    Success = 0,
    /// The group is there already.
    AlreadyExists = 1,
    /// See the text.
    Fail = 2,
    /// The caller lacks the right.
    AccessDenied = 3,
}

/// 0xC9.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreatePersistentSubscriptionCompleted {
    /// Outcome.
    #[prost(enumeration = "CreatePersistentSubscriptionResult", required, tag = "1")]
    pub result: i32,
    /// Text of a failure, empty on success.
    #[prost(string, optional, tag = "2")]
    pub reason: Option<String>,
}

/// How the update of a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum UpdatePersistentSubscriptionResult {
    /// Done.
    Success = 0,
    /// There is no such group.
    DoesNotExist = 1,
    /// See the text.
    Fail = 2,
    /// The caller lacks the right.
    AccessDenied = 3,
}

/// 0xCF.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdatePersistentSubscriptionCompleted {
    /// Outcome.
    #[prost(enumeration = "UpdatePersistentSubscriptionResult", required, tag = "1")]
    pub result: i32,
    /// Text of a failure, empty on success.
    #[prost(string, optional, tag = "2")]
    pub reason: Option<String>,
}

/// How the delete of a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum DeletePersistentSubscriptionResult {
    /// Done.
    Success = 0,
    /// There is no such group.
    DoesNotExist = 1,
    /// See the text.
    Fail = 2,
    /// The caller lacks the right.
    AccessDenied = 3,
}

/// 0xCB.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeletePersistentSubscriptionCompleted {
    /// Outcome.
    #[prost(enumeration = "DeletePersistentSubscriptionResult", required, tag = "1")]
    pub result: i32,
    /// Text of a failure, empty on success.
    #[prost(string, optional, tag = "2")]
    pub reason: Option<String>,
}

/// 0xC5.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConnectToPersistentSubscription {
    /// The group name, despite its own name.
    #[prost(string, required, tag = "1")]
    pub subscription_id: String,
    /// The stream.
    #[prost(string, required, tag = "2")]
    pub event_stream_id: String,
    /// Unconfirmed events that the consumer may hold.
    #[prost(int32, required, tag = "3")]
    pub allowed_in_flight_messages: i32,
}

/// 0xC6.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PersistentSubscriptionConfirmation {
    /// Of the last event visible.
    #[prost(int64, required, tag = "1")]
    pub last_commit_position: i64,
    /// "stream::group".
    #[prost(string, required, tag = "2")]
    pub subscription_id: String,
    /// Of the stream.
    #[prost(int64, optional, tag = "3")]
    pub last_event_number: Option<i64>,
}

/// 0xC7.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PersistentSubscriptionStreamEventAppeared {
    /// The event handed out.
    #[prost(message, required, tag = "1")]
    pub event: ResolvedIndexedEvent,
    /// 0 the first time.
    #[prost(int32, optional, tag = "2")]
    pub retry_count: Option<i32>,
}

/// 0xCC.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PersistentSubscriptionAckEvents {
    /// "stream::group".
    #[prost(string, required, tag = "1")]
    pub subscription_id: String,
    /// Sixteen bytes each.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub processed_event_ids: Vec<Bytes>,
}

/// What to do with events that a consumer could not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NakAction {
    /// As retry.
    Unknown = 0,
    /// Put aside.
    Park = 1,
    /// Send again.
    Retry = 2,
    /// Drop.
    Skip = 3,
    /// Counts as processed.
    Stop = 4,
}

/// 0xCD.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PersistentSubscriptionNakEvents {
    /// "stream::group".
    #[prost(string, required, tag = "1")]
    pub subscription_id: String,
    /// Sixteen bytes each.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub processed_event_ids: Vec<Bytes>,
    /// Free text.
    #[prost(string, optional, tag = "3")]
    pub message: Option<String>,
    /// What to do.
    #[prost(enumeration = "NakAction", required, tag = "4")]
    pub action: i32,
}
