//! What an operation of the ring was for: packed into the 64 bits that come back with its outcome.

/// One use of a place in the table of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ConnectionId {
    /// Invariant: below 2^24.
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A queue that wakes this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waker {
    Requests = 0,
    Control = 1,
    Shell = 2,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// The listener accepts.
    Accept,
    /// The eventfd of a queue is read.
    Wake(Waker),
    /// A connection is made.
    Connect(ConnectionId),
    /// Something is sent on a connection.
    Send(ConnectionId),
    /// Something is received on a connection.
    Receive(ConnectionId),
    /// A chunk file is read for a connection.
    ReadLog(ConnectionId),
    /// The write that the engine numbered so. Invariant: below 2^56.
    Write(u64),
    /// The durable mark is written into this chunk's header.
    Mark(u32),
    /// A chunk is flushed.
    SyncChunk(u32),
    /// The small state is written.
    WriteState,
    /// The small state is flushed.
    SyncState,
}

impl Tag {
    /// Kind in the highest byte, the rest below it: of a connection 24 bits of slot and 32 of generation.
    pub(super) fn pack(self) -> u64 {
        let connection = |id: ConnectionId| {
            assert!(id.slot < 1 << 24, "connection slot {}", id.slot);
            u64::from(id.slot) << 32 | u64::from(id.generation)
        };
        let (kind, rest) = match self {
            Tag::Accept => (0, 0),
            Tag::Wake(waker) => (1, waker as u64),
            Tag::Connect(id) => (2, connection(id)),
            Tag::Send(id) => (3, connection(id)),
            Tag::Receive(id) => (4, connection(id)),
            Tag::ReadLog(id) => (5, connection(id)),
            Tag::Write(id) => (6, id),
            Tag::Mark(chunk) => (7, u64::from(chunk)),
            Tag::SyncChunk(chunk) => (8, u64::from(chunk)),
            Tag::WriteState => (9, 0),
            Tag::SyncState => (10, 0),
        };
        assert!(rest < 1 << 56, "{self:?} does not fit a tag");
        kind << 56 | rest
    }

    /// Reads what [`Tag::pack`] made.
    pub(super) fn unpack(bits: u64) -> Option<Tag> {
        let rest = bits & ((1 << 56) - 1);
        let id = ConnectionId { slot: (rest >> 32) as u32, generation: rest as u32 };
        Some(match bits >> 56 {
            0 => Tag::Accept,
            1 => Tag::Wake(match rest {
                0 => Waker::Requests,
                1 => Waker::Control,
                2 => Waker::Shell,
                _ => return None,
            }),
            2 => Tag::Connect(id),
            3 => Tag::Send(id),
            4 => Tag::Receive(id),
            5 => Tag::ReadLog(id),
            6 => Tag::Write(rest),
            7 => Tag::Mark(rest as u32),
            8 => Tag::SyncChunk(rest as u32),
            9 => Tag::WriteState,
            10 => Tag::SyncState,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        let id = ConnectionId { slot: 0xABCDEF, generation: u32::MAX };
        let connections = [Tag::Connect(id), Tag::Send(id), Tag::Receive(id), Tag::ReadLog(id)];
        let wakers = [Waker::Requests, Waker::Control, Waker::Shell].map(Tag::Wake);
        let disk = [Tag::Write((1 << 56) - 1), Tag::Mark(7), Tag::SyncChunk(u32::MAX), Tag::WriteState, Tag::SyncState];
        for tag in connections.into_iter().chain(wakers).chain(disk).chain([Tag::Accept]) {
            assert_eq!(Tag::unpack(tag.pack()), Some(tag));
        }
        assert_eq!(Tag::unpack(u64::MAX), None);
        assert_eq!(Tag::unpack(1 << 56 | 3), None);
    }
}
