//! Writes, deletes and explicit transactions.

use bytes::Bytes;

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum OperationResult {
    /// Done.
    Success = 0,
    /// A transaction phase was not confirmed in time.
    PrepareTimeout = 1,
    /// Not on a majority in time; it may still succeed.
    CommitTimeout = 2,
    /// The leader did not answer a forwarded write in time.
    ForwardTimeout = 3,
    /// The claim about the stream does not hold.
    WrongExpectedVersion = 4,
    /// The stream has a tombstone.
    StreamDeleted = 5,
    /// Defined, never sent.
    InvalidTransaction = 6,
    /// The caller lacks the right.
    AccessDenied = 7,
}

/// An event to be written.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NewEvent {
    /// Sixteen bytes, not all zero.
    #[prost(bytes = "bytes", required, tag = "1")]
    pub event_id: Bytes,
    /// Its type, not empty.
    #[prost(string, required, tag = "2")]
    pub event_type: String,
    /// 1: the data is JSON.
    #[prost(int32, required, tag = "3")]
    pub data_content_type: i32,
    /// Ignored.
    #[prost(int32, required, tag = "4")]
    pub metadata_content_type: i32,
    /// Its data.
    #[prost(bytes = "bytes", required, tag = "5")]
    pub data: Bytes,
    /// Its metadata.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub metadata: Option<Bytes>,
}

/// 0x82.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteEvents {
    /// The stream.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// The claim about the stream.
    #[prost(int64, required, tag = "2")]
    pub expected_version: i64,
    /// Written as one unit.
    #[prost(message, repeated, tag = "3")]
    pub events: Vec<NewEvent>,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "4")]
    pub require_master: bool,
}

/// 0x83.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteEventsCompleted {
    /// Outcome.
    #[prost(enumeration = "OperationResult", required, tag = "1")]
    pub result: i32,
    /// Text of a failure.
    #[prost(string, optional, tag = "2")]
    pub message: Option<String>,
    /// Of the first event.
    #[prost(int64, required, tag = "3")]
    pub first_event_number: i64,
    /// Of the last event.
    #[prost(int64, required, tag = "4")]
    pub last_event_number: i64,
    /// Of the last event.
    #[prost(int64, optional, tag = "5")]
    pub prepare_position: Option<i64>,
    /// Of the last event.
    #[prost(int64, optional, tag = "6")]
    pub commit_position: Option<i64>,
    /// Last event number, with a wrong expected version.
    #[prost(int64, optional, tag = "7")]
    pub current_version: Option<i64>,
}

/// 0x8A.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteStream {
    /// The stream.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// The claim about the stream.
    #[prost(int64, required, tag = "2")]
    pub expected_version: i64,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "3")]
    pub require_master: bool,
    /// True: for good.
    #[prost(bool, optional, tag = "4")]
    pub hard_delete: Option<bool>,
}

/// 0x8B.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteStreamCompleted {
    /// Outcome.
    #[prost(enumeration = "OperationResult", required, tag = "1")]
    pub result: i32,
    /// Text of a failure.
    #[prost(string, optional, tag = "2")]
    pub message: Option<String>,
    /// Of the record written.
    #[prost(int64, optional, tag = "3")]
    pub prepare_position: Option<i64>,
    /// Of the record written.
    #[prost(int64, optional, tag = "4")]
    pub commit_position: Option<i64>,
}

/// 0x84.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransactionStart {
    /// The stream.
    #[prost(string, required, tag = "1")]
    pub event_stream_id: String,
    /// The claim, checked at the commit.
    #[prost(int64, required, tag = "2")]
    pub expected_version: i64,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "3")]
    pub require_master: bool,
}

/// 0x85.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransactionStartCompleted {
    /// The transaction's identifier.
    #[prost(int64, required, tag = "1")]
    pub transaction_id: i64,
    /// Outcome.
    #[prost(enumeration = "OperationResult", required, tag = "2")]
    pub result: i32,
    /// Text of a failure.
    #[prost(string, optional, tag = "3")]
    pub message: Option<String>,
}

/// 0x86.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransactionWrite {
    /// The transaction's identifier.
    #[prost(int64, required, tag = "1")]
    pub transaction_id: i64,
    /// To be added.
    #[prost(message, repeated, tag = "2")]
    pub events: Vec<NewEvent>,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "3")]
    pub require_master: bool,
}

/// 0x87.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransactionWriteCompleted {
    /// The transaction's identifier.
    #[prost(int64, required, tag = "1")]
    pub transaction_id: i64,
    /// Outcome.
    #[prost(enumeration = "OperationResult", required, tag = "2")]
    pub result: i32,
    /// Text of a failure.
    #[prost(string, optional, tag = "3")]
    pub message: Option<String>,
}

/// 0x88.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct TransactionCommit {
    /// The transaction's identifier.
    #[prost(int64, required, tag = "1")]
    pub transaction_id: i64,
    /// True: only the leader may handle it.
    #[prost(bool, required, tag = "2")]
    pub require_master: bool,
}

/// 0x89.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TransactionCommitCompleted {
    /// The transaction's identifier.
    #[prost(int64, required, tag = "1")]
    pub transaction_id: i64,
    /// Outcome.
    #[prost(enumeration = "OperationResult", required, tag = "2")]
    pub result: i32,
    /// Text of a failure.
    #[prost(string, optional, tag = "3")]
    pub message: Option<String>,
    /// Of the first event.
    #[prost(int64, required, tag = "4")]
    pub first_event_number: i64,
    /// Of the last event.
    #[prost(int64, required, tag = "5")]
    pub last_event_number: i64,
    /// Of the last event.
    #[prost(int64, optional, tag = "6")]
    pub prepare_position: Option<i64>,
    /// Of the last event.
    #[prost(int64, optional, tag = "7")]
    pub commit_position: Option<i64>,
}
