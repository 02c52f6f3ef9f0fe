//! Event numbers, expected versions and the naming rules of streams.

/// The 0-based place of an event in its stream, with the sentinels that the wire has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNumber(pub i64);

impl EventNumber {
    /// "The stream has no event"; as a place to read from: the end.
    pub const NONE: EventNumber = EventNumber(-1);
    /// The number of a tombstone, and the last number of a hard-deleted stream.
    pub const TOMBSTONE: EventNumber = EventNumber(i64::MAX);
}

/// What a writer claims about the stream before its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// No claim (-2 on the wire).
    Any,
    /// The stream does not exist (-1).
    NoStream,
    /// The stream exists: has an event or metadata (-4).
    StreamExists,
    /// The last event has this number (0 or more).
    Exact(i64),
}

impl ExpectedVersion {
    /// The claim that the wire's number stands for; `None` for -3 and anything below -4.
    #[must_use]
    pub fn from_wire(number: i64) -> Option<ExpectedVersion> {
        match number {
            -1 => Some(ExpectedVersion::NoStream),
            -2 => Some(ExpectedVersion::Any),
            -4 => Some(ExpectedVersion::StreamExists),
            0.. => Some(ExpectedVersion::Exact(number)),
            _ => None,
        }
    }
}

/// What the name of a stream's metadata stream begins with.
pub const METASTREAM_PREFIX: &str = "$$";

/// The stream whose metadata `stream` holds, if it is a metadata stream.
#[must_use]
pub fn base_stream(stream: &str) -> Option<&str> {
    stream.strip_prefix(METASTREAM_PREFIX)
}

/// The name of the stream that holds the metadata of `stream`.
#[must_use]
pub fn metastream_of(stream: &str) -> String {
    format!("{METASTREAM_PREFIX}{stream}")
}

/// True for streams whose default access is for administrators only.
#[must_use]
pub fn is_system_stream(stream: &str) -> bool {
    stream.starts_with('$')
}
