//! The 64 bits that travel with an operation through the kernel and come back with its completion.
//!
//! Kind, slot and generation: the kind catches a mix-up, the generation a completion for a slot that was used again.

/// What kind of operation a completion belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nobody waits for the completion: cancellations.
    Ignored = 0,
    Accept = 1,
    Connect = 2,
    Receive = 3,
    Stream = 4,
    Send = 5,
    Write = 6,
    Sync = 7,
    Read = 8,
    Watch = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            0 => Kind::Ignored,
            1 => Kind::Accept,
            2 => Kind::Connect,
            3 => Kind::Receive,
            4 => Kind::Stream,
            5 => Kind::Send,
            6 => Kind::Write,
            7 => Kind::Sync,
            8 => Kind::Read,
            9 => Kind::Watch,
            _ => return None,
        })
    }
}

/// A completion's address: which slot of the driver's table, and which of its uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserData {
    pub(super) kind: Kind,
    pub(super) slot: u32,
    /// Invariant: below 2^24; it wraps.
    pub(super) generation: u32,
}

/// Generations count modulo this.
pub(super) const GENERATION_COUNT: u32 = 1 << 24;

impl UserData {
    /// For operations whose completion says nothing that matters.
    pub(super) const IGNORED: UserData = UserData { kind: Kind::Ignored, slot: 0, generation: 0 };

    /// Kind in the lowest byte, then 24 bits of generation, then the slot.
    pub(super) fn pack(self) -> u64 {
        assert!(self.generation < GENERATION_COUNT, "generation {}", self.generation);
        u64::from(self.slot) << 32 | u64::from(self.generation) << 8 | u64::from(self.kind as u8)
    }

    /// `None` for a number that [`UserData::pack`] does not make.
    pub(super) fn unpack(bits: u64) -> Option<UserData> {
        let kind = Kind::from_byte((bits & 0xFF) as u8)?;
        Some(UserData { kind, slot: (bits >> 32) as u32, generation: (bits >> 8) as u32 & (GENERATION_COUNT - 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for kind in 0..=9 {
            let kind = Kind::from_byte(kind).unwrap();
            for (slot, generation) in [(0, 0), (1, GENERATION_COUNT - 1), (u32::MAX, 1), (7, 0xABCDEF)] {
                let data = UserData { kind, slot, generation };
                assert_eq!(UserData::unpack(data.pack()), Some(data));
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_refused() {
        assert_eq!(UserData::unpack(10), None);
        assert_eq!(UserData::unpack(u64::MAX), None);
    }
}
