//! The few messages of the v5 wire that the tests speak.

/// One event of a write.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NewEvent {
    #[prost(bytes = "vec", required, tag = "1")]
    pub(crate) event_id: Vec<u8>,
    #[prost(string, required, tag = "2")]
    pub(crate) event_type: String,
    #[prost(int32, required, tag = "3")]
    pub(crate) data_content_type: i32,
    #[prost(int32, required, tag = "4")]
    pub(crate) metadata_content_type: i32,
    #[prost(bytes = "vec", required, tag = "5")]
    pub(crate) data: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "6")]
    pub(crate) metadata: Option<Vec<u8>>,
}

/// 0x82.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteEvents {
    #[prost(string, required, tag = "1")]
    pub(crate) stream: String,
    #[prost(int64, required, tag = "2")]
    pub(crate) expected_version: i64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) events: Vec<NewEvent>,
    #[prost(bool, required, tag = "4")]
    pub(crate) require_master: bool,
}

/// 0x83.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteEventsCompleted {
    #[prost(int32, required, tag = "1")]
    pub(crate) result: i32,
    #[prost(string, optional, tag = "2")]
    pub(crate) message: Option<String>,
    #[prost(int64, required, tag = "3")]
    pub(crate) first_event_number: i64,
    #[prost(int64, required, tag = "4")]
    pub(crate) last_event_number: i64,
    #[prost(int64, optional, tag = "5")]
    pub(crate) prepare_position: Option<i64>,
    #[prost(int64, optional, tag = "6")]
    pub(crate) commit_position: Option<i64>,
    #[prost(int64, optional, tag = "7")]
    pub(crate) current_version: Option<i64>,
}

/// 0xB2 and 0xB4.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadStreamEvents {
    #[prost(string, required, tag = "1")]
    pub(crate) stream: String,
    #[prost(int64, required, tag = "2")]
    pub(crate) from_event_number: i64,
    #[prost(int32, required, tag = "3")]
    pub(crate) max_count: i32,
    #[prost(bool, required, tag = "4")]
    pub(crate) resolve_link_tos: bool,
    #[prost(bool, required, tag = "5")]
    pub(crate) require_master: bool,
}

/// An event as it is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EventRecord {
    #[prost(string, required, tag = "1")]
    pub(crate) stream: String,
    #[prost(int64, required, tag = "2")]
    pub(crate) event_number: i64,
    #[prost(bytes = "vec", required, tag = "3")]
    pub(crate) event_id: Vec<u8>,
    #[prost(string, required, tag = "4")]
    pub(crate) event_type: String,
    #[prost(bytes = "vec", required, tag = "7")]
    pub(crate) data: Vec<u8>,
}

/// An entry of a page.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolvedIndexedEvent {
    #[prost(message, optional, tag = "1")]
    pub(crate) event: Option<EventRecord>,
}

/// 0xB3 and 0xB5.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadStreamEventsCompleted {
    #[prost(message, repeated, tag = "1")]
    pub(crate) events: Vec<ResolvedIndexedEvent>,
    #[prost(int32, required, tag = "2")]
    pub(crate) result: i32,
    #[prost(int64, required, tag = "3")]
    pub(crate) next_event_number: i64,
    #[prost(int64, required, tag = "4")]
    pub(crate) last_event_number: i64,
    #[prost(bool, required, tag = "5")]
    pub(crate) is_end_of_stream: bool,
    #[prost(string, optional, tag = "7")]
    pub(crate) error: Option<String>,
}

/// 0xB6.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadAllEvents {
    #[prost(int64, required, tag = "1")]
    pub(crate) commit_position: i64,
    #[prost(int64, required, tag = "2")]
    pub(crate) prepare_position: i64,
    #[prost(int32, required, tag = "3")]
    pub(crate) max_count: i32,
    #[prost(bool, required, tag = "4")]
    pub(crate) resolve_link_tos: bool,
    #[prost(bool, required, tag = "5")]
    pub(crate) require_master: bool,
}

/// An entry of the whole log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResolvedEvent {
    #[prost(message, optional, tag = "1")]
    pub(crate) event: Option<EventRecord>,
    #[prost(int64, required, tag = "3")]
    pub(crate) commit_position: i64,
    #[prost(int64, required, tag = "4")]
    pub(crate) prepare_position: i64,
}

/// 0xB7.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadAllEventsCompleted {
    #[prost(message, repeated, tag = "3")]
    pub(crate) events: Vec<ResolvedEvent>,
    #[prost(int64, required, tag = "4")]
    pub(crate) next_commit_position: i64,
    #[prost(int64, required, tag = "5")]
    pub(crate) next_prepare_position: i64,
    #[prost(int32, optional, tag = "6")]
    pub(crate) result: Option<i32>,
    #[prost(string, optional, tag = "7")]
    pub(crate) error: Option<String>,
}

/// 0xC0.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubscribeToStream {
    #[prost(string, required, tag = "1")]
    pub(crate) stream: String,
    #[prost(bool, required, tag = "2")]
    pub(crate) resolve_link_tos: bool,
}

/// 0xC1.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SubscriptionConfirmation {
    #[prost(int64, required, tag = "1")]
    pub(crate) last_commit_position: i64,
}

/// 0xC2.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StreamEventAppeared {
    #[prost(message, optional, tag = "1")]
    pub(crate) event: Option<ResolvedEvent>,
}

/// 0xF1.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NotHandled {
    #[prost(int32, required, tag = "1")]
    pub(crate) reason: i32,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) additional_info: Option<Vec<u8>>,
}
