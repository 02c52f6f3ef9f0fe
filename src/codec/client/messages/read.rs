//! Reads, and events as readers see them.

use bytes::Bytes;

/// An event as readers see it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EventRecord {
    /// The stream that it belongs to.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// Its number there.
    #[prost(int64, required, tag = "2")]
    pub event_number: i64,
    /// Sixteen bytes.
    #[prost(bytes = "bytes", required, tag = "3")]
    pub event_id: Bytes,
    /// Its type.
    #[prost(string, required, tag = "4")]
    pub event_type: String,
    /// 1: JSON.
    #[prost(int32, required, tag = "5")]
    pub data_content_type: i32,
    /// The same as for the data.
    #[prost(int32, required, tag = "6")]
    pub metadata_content_type: i32,
    /// Its data.
    #[prost(bytes = "bytes", required, tag = "7")]
    pub data: Bytes,
    /// Its metadata.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub metadata: Option<Bytes>,
    /// 100 ns ticks since 0001-01-01.
    #[prost(int64, optional, tag = "9")]
    pub created: Option<i64>,
    /// Milliseconds since 1970-01-01.
    #[prost(int64, optional, tag = "10")]
    pub created_epoch: Option<i64>,
}

/// An entry of a stream page.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolvedIndexedEvent {
    /// The event, or the target of a resolved link.
    #[prost(message, optional, tag = "1")]
    pub event: Option<EventRecord>,
    /// The link, when it was resolved.
    #[prost(message, optional, tag = "2")]
    pub link: Option<EventRecord>,
}

/// An entry of the whole log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResolvedEvent {
    /// The event, or the target of a resolved link.
    #[prost(message, optional, tag = "1")]
    pub event: Option<EventRecord>,
    /// The link, when it was resolved.
    #[prost(message, optional, tag = "2")]
    pub link: Option<EventRecord>,
    /// Of the entry as found.
    #[prost(int64, required, tag = "3")]
    pub commit_position: i64,
    /// Of the entry as found.
    #[prost(int64, required, tag = "4")]
    pub prepare_position: i64,
}

/// 0xB0.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadEvent {
    /// The stream.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// -1: the last one.
    #[prost(int64, required, tag = "2")]
    pub event_number: i64,
    /// Follow link events.
    #[prost(bool, required, tag = "3")]
    pub resolve_link_tos: bool,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "4")]
    pub require_master: bool,
}

/// How the read of one event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ReadEventResult {
    /// Here it is.
    Success = 0,
    /// No such event.
    NotFound = 1,
    /// No such stream.
    NoStream = 2,
    /// The stream has a tombstone.
    StreamDeleted = 3,
    /// See the text.
    Error = 4,
    /// The caller lacks the right.
    AccessDenied = 5,
}

/// 0xB1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadEventCompleted {
    /// Outcome.
    #[prost(enumeration = "ReadEventResult", required, tag = "1")]
    pub result: i32,
    /// Empty unless the read succeeded.
    #[prost(message, required, tag = "2")]
    pub event: ResolvedIndexedEvent,
    /// Text with an error.
    #[prost(string, optional, tag = "3")]
    pub error: Option<String>,
}

/// 0xB2 and 0xB4.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadStreamEvents {
    /// The stream.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// First number to read.
    #[prost(int64, required, tag = "2")]
    pub from_event_number: i64,
    /// Size of the page.
    #[prost(int32, required, tag = "3")]
    pub max_count: i32,
    /// Follow link events.
    #[prost(bool, required, tag = "4")]
    pub resolve_link_tos: bool,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "5")]
    pub require_master: bool,
}

/// How the read of a stream page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ReadStreamResult {
    /// Here it is.
    Success = 0,
    /// No such stream.
    NoStream = 1,
    /// The stream has a tombstone.
    StreamDeleted = 2,
    /// Never sent over TCP.
    NotModified = 3,
    /// See the text.
    Error = 4,
    /// The caller lacks the right.
    AccessDenied = 5,
}

/// 0xB3 and 0xB5.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadStreamEventsCompleted {
    /// The page, in reading direction.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<ResolvedIndexedEvent>,
    /// Outcome.
    #[prost(enumeration = "ReadStreamResult", required, tag = "2")]
    pub result: i32,
    /// Where to read next.
    #[prost(int64, required, tag = "3")]
    pub next_event_number: i64,
    /// Last number of the stream.
    #[prost(int64, required, tag = "4")]
    pub last_event_number: i64,
    /// Nothing further in this direction now.
    #[prost(bool, required, tag = "5")]
    pub is_end_of_stream: bool,
    /// Of the last event visible.
    #[prost(int64, required, tag = "6")]
    pub last_commit_position: i64,
    /// Text with an error.
    #[prost(string, optional, tag = "7")]
    pub error: Option<String>,
}

/// 0xB6 and 0xB8.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ReadAllEvents {
    /// Start position.
    #[prost(int64, required, tag = "1")]
    pub commit_position: i64,
    /// Start position.
    #[prost(int64, required, tag = "2")]
    pub prepare_position: i64,
    /// Size of the page.
    #[prost(int32, required, tag = "3")]
    pub max_count: i32,
    /// Follow link events.
    #[prost(bool, required, tag = "4")]
    pub resolve_link_tos: bool,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "5")]
    pub require_master: bool,
}

/// How the read of a page of the whole log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ReadAllResult {
    /// Here it is.
    Success = 0,
    /// Never sent over TCP.
    NotModified = 1,
    /// See the text.
    Error = 2,
    /// The caller lacks the right.
    AccessDenied = 3,
}

/// 0xB7 and 0xB9.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadAllEventsCompleted {
    /// Start position.
    #[prost(int64, required, tag = "1")]
    pub commit_position: i64,
    /// Start position.
    #[prost(int64, required, tag = "2")]
    pub prepare_position: i64,
    /// The page, in reading direction.
    #[prost(message, repeated, tag = "3")]
    pub events: Vec<ResolvedEvent>,
    /// Where to read next.
    #[prost(int64, required, tag = "4")]
    pub next_commit_position: i64,
    /// Where to read next.
    #[prost(int64, required, tag = "5")]
    pub next_prepare_position: i64,
    /// Not written on success.
    #[prost(enumeration = "ReadAllResult", optional, tag = "6")]
    pub result: Option<i32>,
    /// Text with an error.
    #[prost(string, optional, tag = "7")]
    pub error: Option<String>,
}
