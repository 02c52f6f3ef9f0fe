//! What a completion is about, as the 64 bits that travel through the ring.

/// What a completion is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tag {
    /// A write of the log file, by its number.
    Write(u64),
    /// A flush of the log file, by its number.
    Sync(u64),
    /// Bytes from a peer, by its place.
    Stream(usize),
    /// A send to a peer.
    Send(usize),
    /// A connection to the leader.
    Connect,
}

impl Tag {
    pub(crate) fn pack(self) -> u64 {
        let (kind, number) = match self {
            Tag::Write(id) => (0, id),
            Tag::Sync(id) => (1, id),
            Tag::Stream(peer) => (2, peer as u64),
            Tag::Send(peer) => (3, peer as u64),
            Tag::Connect => (4, 0),
        };
        number << 8 | kind
    }

    /// # Panics
    /// For a number that [`Tag::pack`] does not make.
    pub(crate) fn unpack(bits: u64) -> Tag {
        let number = bits >> 8;
        match bits & 0xFF {
            0 => Tag::Write(number),
            1 => Tag::Sync(number),
            2 => Tag::Stream(number as usize),
            3 => Tag::Send(number as usize),
            4 => Tag::Connect,
            other => panic!("a tag of kind {other}"),
        }
    }
}
