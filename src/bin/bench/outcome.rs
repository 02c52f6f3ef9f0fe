//! What a run found, as plain values: filled by the run, shown by `report`. Nothing here measures or prints.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Everything that one run found. The measured span begins after the warm-up.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The settings as they took effect, for people and for comparing runs: name and value, in the options' order.
    pub settings: Vec<(&'static str, String)>,
    /// When the measured span began, seconds of Unix time.
    pub started_unix_seconds: u64,
    /// Length of the measured span.
    pub measured: Duration,
    /// One for each kind of operation of the run, in the order in which they are shown.
    pub series: Vec<Series>,
    /// The whole seconds of the measured span, in order.
    pub timeline: Vec<Second>,
    /// What went wrong and was lived with.
    pub troubles: Troubles,
    /// What each node said of its own stages in the measured span, where it could be asked.
    pub nodes: Vec<NodeReport>,
    /// Nodes that the cluster has. Figures over all of them need every one, and none that was restarted.
    pub nodes_expected: usize,
}

/// One kind of operation.
#[derive(Debug)]
pub(crate) struct Series {
    /// `write`, `read`, or `delivery` (from the write's start to the event's arrival at a subscriber).
    pub name: &'static str,
    /// Requests answered with success.
    pub operations: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of event data and metadata in them.
    pub payload_bytes: u64,
    /// Latency in nanoseconds; in an open loop from the intended time, and with the age of what was never answered.
    pub latency: Histogram<u64>,
}

/// One second of the measured span, all series together but `delivery`: what was answered in it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Second {
    /// Since the measured span's start, at the end of this second.
    pub at: Duration,
    pub operations: u64,
    pub events: u64,
    /// Answers that were an error, and connections lost.
    pub errors: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// What went wrong in the measured span and was lived with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Troubles {
    /// Connections made again.
    pub reconnects: u64,
    /// Requests sent again: no answer came in time, the connection was lost, or the answer was one that says to try again.
    pub retries: u64,
    /// Answers `NotHandled` with reason "too busy".
    pub too_busy: u64,
    /// Answers `NotHandled` with reason "not ready", and with another leader's address.
    pub not_handled: u64,
    /// Answers that refused the request (wrong expected version, access denied, time-outs of the server …).
    pub refused: u64,
    /// Of an open loop: requests of the measured span without an answer when the run ended, or due and never sent. The
    /// age that each had then is among the latencies.
    pub unanswered: u64,
}

/// What one node said of itself, the difference between the end and the start of the measured span.
#[derive(Debug)]
pub(crate) struct NodeReport {
    /// `host:port` of its HTTP endpoint.
    pub endpoint: String,
    /// `leader`, `follower` … at the end.
    pub role: String,
    /// The process was started in the measured span: its figures begin there.
    pub restarted: bool,
    /// CPU time that the process used.
    pub cpu: Duration,
    /// Resident memory at the end, bytes.
    pub resident_bytes: u64,
    /// Times that the log thread entered the kernel.
    pub log_enters: u64,
    /// Flushes of chunk files.
    pub log_flushes: u64,
    /// Records appended as leader.
    pub log_appends: u64,
    /// Name of the stage (`queue`, `batchWait`, `write`, `flush`, `replication/<node>`, `commit`, `answer`) and its
    /// times in nanoseconds.
    pub stages: Vec<(String, Histogram<u64>)>,
}
