//! Options of v5 that ringstore does not have yet: recognised, and answered with a warning.
//!
//! A row is taken out of here when its option arrives in one of the other files.

use crate::config::table::{Group, Kind, OptionSpec, Support};

pub(super) const OPTIONS: &[OptionSpec] = &[
    value("Defines", ""),
    switch("StartStandardProjections", "no projection runs"),
    switch("DisableHTTPCaching", ""),
    value("MonoMinThreadpoolSize", ""),
    value("StreamInfoCacheCapacity", ""),
    switch("Force", ""),
    value("StatsPeriodSec", ""),
    value("WorkerThreads", ""),
    switch("EnableHistograms", ""),
    switch("LogHttpRequests", ""),
    switch("LogFailedAuthenticationAttempts", ""),
    switch("SkipIndexScanOnReads", ""),
    value("AuthenticationType", "the internal users are used"),
    value("AuthenticationConfig", ""),
    switch("DisableFirstLevelHttpAuthorization", ""),
    value("CertificateStoreLocation", ""),
    value("CertificateStoreName", ""),
    value("CertificateSubjectName", ""),
    value("CertificateThumbprint", ""),
    secret("CertificatePassword", ""),
    value("CommitCount", "a write is acknowledged by a majority"),
    value("PrepareCount", "a write is acknowledged by a majority"),
    value("MinFlushDelayMs", ""),
    switch("DisableScavengeMerging", ""),
    value("ScavengeHistoryMaxAge", ""),
    value("CachedChunks", ""),
    value("ReaderThreadsCount", ""),
    value("ChunksCacheSize", ""),
    value("MaxMemTableSize", ""),
    value("HashCollisionReadLimit", ""),
    value("Index", "there is no separate index directory"),
    switch("MemDb", "events are kept on disk"),
    switch("SkipDbVerify", ""),
    switch("WriteThrough", ""),
    switch("Unbuffered", ""),
    value("ChunkInitialReaderCount", ""),
    value("PrepareTimeoutMs", ""),
    value("CommitTimeoutMs", ""),
    switch("BetterOrdering", ""),
    switch("UnsafeIgnoreHardDelete", "hard deletes stay in force"),
    switch("SkipIndexVerify", ""),
    value("IndexCacheDepth", ""),
    switch("OptimizeIndexMerge", ""),
    switch("AlwaysKeepScavenged", ""),
    switch("ReduceFileCachePressure", ""),
    value("InitializationThreads", ""),
    switch("StructuredLog", ""),
    value("MaxAutoMergeIndexLevel", ""),
    switch("WriteStatsToDb", ""),
    value("ConnectionPendingSendBytesThreshold", ""),
    value("ConnectionQueueSizeThreshold", ""),
    value("IntHttpPrefixes", ""),
    value("ExtHttpPrefixes", ""),
    switch("EnableTrustedAuth", "the header is not honoured"),
    switch("AddInterfacePrefixes", ""),
    switch("SslValidateServer", "certificates are always checked"),
    value("RunProjections", "no projection runs"),
    value("ProjectionThreads", ""),
    value("ProjectionsQueryExpiry", ""),
    switch("FaultOutOfOrderProjections", ""),
];

/// A row whose flag needs no value.
const fn switch(name: &'static str, consequence: &'static str) -> OptionSpec {
    row(name, Kind::Switch, consequence)
}

/// A row whose flag takes a value.
const fn value(name: &'static str, consequence: &'static str) -> OptionSpec {
    row(name, Kind::Text, consequence)
}

/// A row whose flag takes a value that is nobody's business.
const fn secret(name: &'static str, consequence: &'static str) -> OptionSpec {
    OptionSpec { is_secret: true, ..row(name, Kind::Text, consequence) }
}

const fn row(name: &'static str, kind: Kind, consequence: &'static str) -> OptionSpec {
    OptionSpec {
        name,
        kind,
        default: "",
        example: "",
        // Nothing lists these by group.
        group: Group::Application,
        help: "",
        is_secret: false,
        support: Support::NotYet { consequence },
    }
}
