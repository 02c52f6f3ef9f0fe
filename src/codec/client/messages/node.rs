//! What is said about the node and the connection.

use bytes::Bytes;

/// 0xF5.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IdentifyClient {
    /// Protocol level: 0 or 1.
    #[prost(int32, required, tag = "1")]
    pub version: i32,
    /// For logs and statistics.
    #[prost(string, optional, tag = "2")]
    pub connection_name: Option<String>,
}

/// Why a request was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NotHandledReason {
    /// Ask again later.
    NotReady = 0,
    /// Ask again later.
    TooBusy = 1,
    /// Ask the leader.
    NotMaster = 2,
}

/// 0xF1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NotHandled {
    /// Why.
    #[prost(enumeration = "NotHandledReason", required, tag = "1")]
    pub reason: i32,
    /// With NotMaster: a serialised master info.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub additional_info: Option<Bytes>,
}

/// Where the leader is, as it advertises itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MasterInfo {
    /// For clients.
    #[prost(string, required, tag = "1")]
    pub external_tcp_address: String,
    /// For clients.
    #[prost(int32, required, tag = "2")]
    pub external_tcp_port: i32,
    /// For clients.
    #[prost(string, required, tag = "3")]
    pub external_http_address: String,
    /// For clients.
    #[prost(int32, required, tag = "4")]
    pub external_http_port: i32,
    /// With TLS.
    #[prost(string, optional, tag = "5")]
    pub external_secure_tcp_address: Option<String>,
    /// With TLS.
    #[prost(int32, optional, tag = "6")]
    pub external_secure_tcp_port: Option<i32>,
}

/// How a scavenge request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ScavengeResult {
    /// It runs.
    Started = 0,
    /// One runs already.
    InProgress = 1,
    /// The caller lacks the right.
    Unauthorized = 2,
}

/// 0xD1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScavengeDatabaseResponse {
    /// Outcome.
    #[prost(enumeration = "ScavengeResult", required, tag = "1")]
    pub result: i32,
    /// Identifier of the scavenge.
    #[prost(string, optional, tag = "2")]
    pub scavenge_id: Option<String>,
}
