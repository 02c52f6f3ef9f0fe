//! What edge threads and the log thread say to each other. Plain values: they travel over bounded queues.

use std::sync::Arc;

use crate::codec::record::{BatchView, MemberRecord, RecordKind};
use crate::types::{ClusterId, Epoch, ExpectedVersion, LogPosition, NodeId, Term, Ticks};

use super::QueuedBytes;

/// Names a waiting request: which edge, and which of its slots. Only the edge that made it knows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Index of the edge thread.
    pub edge: u16,
    /// The edge's own key.
    pub key: u64,
}

/// What an edge asks of the log thread.
#[derive(Debug)]
pub enum Request {
    /// Put a record into the log. Answered once.
    Append(Box<Append>),
    /// Prove that this node still leads. Answered with [`Answer::Confirmed`] or [`Answer::NotLeader`].
    Barrier {
        /// Whom to answer.
        ticket: Ticket,
    },
}

/// A record to append, its body encoded by the edge with [`BatchBuilder`](crate::codec::record::BatchBuilder).
#[derive(Debug)]
pub struct Append {
    /// Whom to answer.
    pub ticket: Ticket,
    /// `Append`, `Delete`, `TransactionStart` or `TransactionWrite`.
    pub kind: RecordKind,
    /// The claim about the stream that the body names, or about `guard` when that is set. Ignored for the transaction kinds.
    pub expected_version: ExpectedVersion,
    /// The claim is about this stream instead, and none is made about the one written to (a soft delete writes to the
    /// metadata stream but its claim is about the stream itself).
    pub guard: Option<Arc<str>>,
    /// Number of events in `body`.
    pub event_count: u16,
    /// The body. For `Append` and `Delete` the log thread fills in the first event number, in the log; for the transaction
    /// kinds the edge has.
    pub body: Vec<u8>,
    /// Set when this is a `$metadata` event for the stream named here: what it does to that stream.
    pub metadata_of: Option<MetadataEffect>,
    /// A second record that revives a soft-deleted stream, made after [`Answer::SoftDeleted`].
    pub revival: Option<Revival>,
    /// Not placed in the log after this time, but answered [`Answer::TooBusy`]: its client has been told that the time is
    /// up, and work for nobody would keep an overload going.
    pub deadline: Ticks,
    /// When the edge handed it over, on the clock of [`Engine::begin_turn`](super::Engine::begin_turn).
    pub handed_over: Ticks,
    /// What it counts against the common limit until it is in the log; `None` where nothing is limited.
    pub queued: Option<QueuedBytes>,
}

impl Append {
    /// The stream written to.
    ///
    /// # Panics
    /// When the body names none: a fault of the edge that built it.
    #[must_use]
    pub fn stream(&self) -> &str {
        BatchView::stream_of(&self.body).expect("a body that an edge has built")
    }
}

/// What a metadata event does to the stream that it is about, as far as later writes must know at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataEffect {
    /// The stream that the metadata is about.
    pub base: Arc<str>,
    /// True when its `$tb` is the highest number: a soft delete.
    pub soft_deletes: bool,
}

/// The metadata event that brings a soft-deleted stream back, appended right behind the write that asks for it.
#[derive(Debug)]
pub struct Revival {
    /// The soft-deleted stream.
    pub base: Arc<str>,
    /// Its metadata stream.
    pub metastream: Arc<str>,
    /// Last event number of `base` for which `body` was made: `$tb` in it is this plus one.
    pub last_event_number: i64,
    /// The body, one `$metadata` event.
    pub body: Vec<u8>,
}

/// The log thread's answer to one request.
#[derive(Debug)]
pub struct Reply {
    /// Whom it answers.
    pub ticket: Ticket,
    /// The answer.
    pub answer: Answer,
    /// The request itself, with every answer to an append and with no other: the edge finds in it what it asked for (body
    /// and names are as it made them) and may use the memory again. The log thread neither allocates nor frees for an
    /// append. What `queued` stood for is given back.
    pub spare: Option<Box<Append>>,
}

/// The answers to requests. Unless said otherwise nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Written and committed. Visible once the index has applied up to `end`.
    Appended {
        /// Number of the first event.
        first_event_number: i64,
        /// Number of the last event.
        last_event_number: i64,
        /// Where the record lies.
        position: LogPosition,
        /// Where the last event's entry lies (the record itself when it has no events).
        last_prepare_position: LogPosition,
        /// The end of what was written (the revival included).
        end: LogPosition,
        /// When it was committed, on the log thread's clock.
        committed_at: Ticks,
    },
    /// The very same events were written before and are committed up to `end`.
    AlreadyWritten {
        /// Number of the first event.
        first_event_number: i64,
        /// Number of the last event.
        last_event_number: i64,
        /// The index must have applied this much before the edge answers.
        end: LogPosition,
    },
    /// The claim does not hold: the stream's last event number is `current` (-1: none). When the claim is below
    /// `current` the edge compares the events that are there: a repeat of the same write is a success.
    WrongExpectedVersion {
        /// Last event number.
        current: i64,
        /// The index must have applied this much before the edge compares or answers.
        end: LogPosition,
    },
    /// The stream has a tombstone, or is soft-deleted and the claim was "exists".
    StreamDeleted {
        /// The index must have applied this much before the edge answers.
        end: LogPosition,
    },
    /// The stream (or, for a metadata write, the stream it is about) is soft-deleted: send the request again with a
    /// [`Revival`] for this number.
    SoftDeleted {
        /// Last event number of the stream.
        last_event_number: i64,
        /// The index must have applied this much before the edge makes the revival.
        end: LogPosition,
    },
    /// The barrier holds: this node led after the request arrived. The index must have applied `end` before reading.
    Confirmed {
        /// Commit position at the confirmation.
        end: LogPosition,
    },
    /// This node does not lead (now). Nothing was written.
    NotLeader,
    /// Leadership was lost before the write was known to be committed: it may or may not survive.
    Unknown,
    /// The index of this node is being rebuilt, and what the write must know is in the part that is missing. Nothing was
    /// written.
    NotReady,
    /// Too much is waiting.
    TooBusy,
    /// No room on the disk below the reserve: writes wait for the operator, reads go on.
    DiskFull,
    /// The next chunk file is needed and cannot be made for another reason than room.
    ChunkFailed,
    /// So many members have full disks that no majority could take the record: writes wait for the operator, reads go on.
    NoQuorumRoom,
    /// The record does not fit a chunk.
    TooLarge {
        /// Bytes of the record.
        bytes: u64,
        /// The most that fit.
        limit: u64,
    },
}

/// What the log thread tells every edge, besides answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Committed, and in the chunk files of this node, up to here: what the index may apply.
    pub readable: LogPosition,
}

/// What a node is to its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Not started, or not a member of a founded cluster yet.
    #[default]
    Initializing,
    /// No leader known.
    Unknown,
    /// A leader is known, the link to it is not up yet.
    PreReplica,
    /// Receives the leader's log from an old position.
    CatchingUp,
    /// Follows the leader, but is not in the member list.
    Clone,
    /// Follows the leader; its acknowledgements count.
    Follower,
    /// Elected; its epoch is not committed and applied yet.
    PreLeader,
    /// Takes writes.
    Leader,
    /// Leads but hands over: takes no new writes.
    ResigningLeader,
    /// Is stopping.
    ShuttingDown,
}

impl Role {
    /// All of them, in the order of their declaration.
    pub const ALL: [Role; 10] = [
        Role::Initializing,
        Role::Unknown,
        Role::PreReplica,
        Role::CatchingUp,
        Role::Clone,
        Role::Follower,
        Role::PreLeader,
        Role::Leader,
        Role::ResigningLeader,
        Role::ShuttingDown,
    ];
}

/// The log thread's view of the node, published for everyone else whenever it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// What the node is.
    pub role: Role,
    /// The cluster that it belongs to, once that is founded.
    pub cluster: Option<ClusterId>,
    /// Its term.
    pub term: Term,
    /// The leader that it knows (itself when it leads).
    pub leader: Option<NodeId>,
    /// Where its last epoch begins, with number and identifier.
    pub epoch: Option<Epoch>,
    /// The voting members: the last list in this node's log, committed or not.
    pub members: Vec<MemberRecord>,
    /// True while that list is not known to be committed.
    pub is_change_pending: bool,
    /// True when acknowledged writes may be missing from this node's log: it does not stand for election like others.
    pub is_suspect: bool,
    /// How long this node's flushes take at the moment, microseconds, smoothed; or how long one has been under way.
    pub flush_micros: u64,
    /// All epochs of its log, oldest first.
    pub epochs: Arc<Vec<Epoch>>,
    /// True when writes are refused for want of disk space.
    pub disk_full: bool,
    /// True when the next chunk file cannot be made for another reason: writes are refused once those that are there are full.
    pub chunk_failed: bool,
    /// On a leader: what each follower has made durable.
    pub followers: Vec<FollowerView>,
}

/// A leader's view of one follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerView {
    /// The follower.
    pub node: NodeId,
    /// True when its acknowledgements count.
    pub is_member: bool,
    /// Sent to it.
    pub sent: LogPosition,
    /// Acknowledged as durable by it.
    pub acknowledged: LogPosition,
    /// True when it is served from chunk files instead of the log buffer.
    pub from_files: bool,
    /// False since its link broke.
    pub is_linked: bool,
    /// Bytes of the leader's log that it has not acknowledged.
    pub lag_bytes: u64,
    /// How long its flushes take, as it last said, like [`NodeView::flush_micros`].
    pub flush_micros: u64,
    /// Its `NodePriority`.
    pub priority: i32,
    /// True when it can make no new chunk, as it last said: its disk is full, most likely.
    pub is_full: bool,
    /// True when its index is complete, as it last said: it could take writes if it led.
    pub is_ready: bool,
}
