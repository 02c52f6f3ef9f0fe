//! What the engine asks of the log thread's shell.

use crate::codec::record::MembershipBody;
use crate::consensus::Message;
use crate::storage::DurableState;
use crate::types::{Guid, LogPosition, NodeId};

use super::{ControlOutput, Progress, Reply};

/// Received bytes that the shell keeps until they are written: whatever the shell needs to find them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferToken(pub u64);

/// Where the bytes of a write come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSource {
    /// The log buffer, at the write's own position.
    LogBuffer,
    /// A received slice; `offset` into it. The token is free again when [`Action::Release`] says so.
    Received {
        /// The slice.
        token: BufferToken,
        /// Where in it the write begins.
        offset: usize,
    },
    /// Zeros: what was there is cut away.
    Zeros,
}

/// One thing for the shell to do, in the order given.
#[derive(Debug)]
pub enum Action {
    /// Write to the chunk file that holds `position`; never across its end. The rest of the last page may be written with
    /// zeros ([`ChunkLayout::page_rest`](crate::storage::ChunkLayout::page_rest)), so that it need not be read from the disk
    /// first: nothing was written there, and nothing is until this is done. Report `handle_written(id)`.
    Write {
        /// Names the write.
        id: u64,
        /// Where in the log.
        position: LogPosition,
        /// How many bytes.
        length: usize,
        /// From where.
        source: WriteSource,
    },
    /// Flush these chunk files (data only). Report `handle_flushed(id)` when all are durable. A failure is final.
    Flush {
        /// Names the flush.
        id: u64,
        /// First chunk.
        first_chunk: u32,
        /// Last chunk, included.
        last_chunk: u32,
        /// Durable before this flush: may be written as the durable mark of `last_chunk` along with it.
        durable_before: LogPosition,
        /// The mark must be written (else: when the last one is old).
        must_mark: bool,
    },
    /// The shell may reuse a received slice.
    Release(BufferToken),
    /// Make the small state durable and report `handle_state_saved(sequence)`.
    SaveState(Box<DurableState>),
    /// Have this chunk ready soon.
    PrepareChunk(u32),
    /// Send on the control link with `peer`. Without one the message is lost.
    Send {
        /// The other end.
        peer: NodeId,
        /// What to say.
        message: Message,
    },
    /// Open the control link to the leader; report `handle_leader_link`.
    ConnectControl {
        /// The leader.
        leader: NodeId,
    },
    /// Open the data link to the leader.
    ConnectData {
        /// The leader.
        leader: NodeId,
        /// The subscription.
        subscription: Guid,
        /// Position of the first byte that it will carry.
        start: LogPosition,
    },
    /// Close both links to the leader, or stop opening them. Not reported back.
    CloseLeader,
    /// Close both links with a follower. Not reported back.
    CloseFollower {
        /// The follower.
        follower: NodeId,
    },
    /// Answer an edge.
    Reply(Reply),
    /// Tell every edge.
    Progress(Progress),
    /// Tell the control thread.
    Control(ControlOutput),
    /// Role, leader, positions of followers or the like changed: publish [`Engine::view`](super::Engine::view).
    ViewChanged,
    /// The cluster is founded, or joined: hellos carry its id from now on.
    ClusterKnown(MembershipBody),
    /// Stop the process, loudly.
    Fatal(String),
}

/// Bytes to send next on a follower's data link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendPlan {
    /// The first byte.
    pub position: LogPosition,
    /// How many.
    pub length: usize,
    /// True: read them from the chunk file; they are not in the log buffer any more.
    pub from_file: bool,
}
