//! The 32 bytes that every record begins with, and the check of a whole record.

use crate::limits::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES};
use crate::types::{LogPosition, Term};

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Fills the end of a chunk.
    Padding = 1,
    /// The first record of a leader's term.
    Epoch = 2,
    /// The list of voting members.
    Membership = 3,
    /// Events of one write to one stream.
    Append = 4,
    /// The tombstone of a hard-deleted stream: one event with the highest number.
    Delete = 5,
    /// The begin of an explicit transaction: a batch without events; "first event number" holds the expected version.
    TransactionStart = 6,
    /// Events added to an explicit transaction; "first event number" holds the transaction's identifier.
    TransactionWrite = 7,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        Some(match byte {
            1 => RecordKind::Padding,
            2 => RecordKind::Epoch,
            3 => RecordKind::Membership,
            4 => RecordKind::Append,
            5 => RecordKind::Delete,
            6 => RecordKind::TransactionStart,
            7 => RecordKind::TransactionWrite,
            _ => return None,
        })
    }

    /// True for the kinds whose events readers see.
    #[must_use]
    pub fn is_visible(self) -> bool {
        matches!(self, RecordKind::Append | RecordKind::Delete)
    }
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whole record in bytes, header included; a multiple of 8.
    pub length: u32,
    /// CRC-32C of the bytes from 8 to `length`.
    pub crc: u32,
    /// The record's own place: a stale or misplaced block cannot pass for a record.
    pub position: LogPosition,
    /// Term of the leader that wrote it.
    pub term: Term,
    /// What it is.
    pub kind: RecordKind,
    /// Reserved, zero.
    pub flags: u8,
    /// Number of events in it.
    pub event_count: u16,
    /// 100 ns ticks since 0001-01-01 UTC, as .NET has them.
    pub timestamp: i64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// More bytes are needed to tell.
    #[error("the record needs {needed} bytes, {available} are there")]
    Incomplete {
        /// Bytes needed, as far as known.
        needed: usize,
        /// Bytes given.
        available: usize,
    },
    /// Zeros where a record would begin: the end of what was written.
    #[error("no record: the log ends here")]
    Empty,
    /// The length cannot be one.
    #[error("record length {length} is not a multiple of 8 of at least 32, or passes the limit of {limit}")]
    Length {
        /// As found.
        length: u32,
        /// The most it could be here.
        limit: u64,
    },
    /// The record claims another place.
    #[error("record at {expected} says that it belongs at {found}")]
    Misplaced {
        /// Where it was found.
        expected: LogPosition,
        /// What it says.
        found: LogPosition,
    },
    /// Unknown kind.
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// The checksum does not fit the bytes.
    #[error("record checksum is {computed:08x}, its header says {stored:08x}")]
    Checksum {
        /// Of the bytes.
        computed: u32,
        /// In the header.
        stored: u32,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl Header {
    /// Reads the header of the record that should lie at `position`; `room` is the distance to the end of its chunk.
    ///
    /// # Errors
    /// All of [`RecordError`] but the checksum, which needs the whole record.
    pub fn read(bytes: &[u8], position: LogPosition, room: u64) -> Result<Header, RecordError> {
        if bytes.len() < RECORD_HEADER_BYTES {
            return Err(RecordError::Incomplete { needed: RECORD_HEADER_BYTES, available: bytes.len() });
        }
        if bytes[..RECORD_HEADER_BYTES].iter().all(|&byte| byte == 0) {
            return Err(RecordError::Empty);
        }
        let length = u32_at(bytes, 0);
        if (length as usize) < RECORD_HEADER_BYTES
            || !(length as usize).is_multiple_of(RECORD_ALIGNMENT)
            || u64::from(length) > room
        {
            return Err(RecordError::Length { length, limit: room });
        }
        let found = LogPosition(u64_at(bytes, 8));
        if found != position {
            return Err(RecordError::Misplaced { expected: position, found });
        }
        let kind = RecordKind::from_byte(bytes[20]).ok_or(RecordError::Kind(bytes[20]))?;
        Ok(Header {
            length,
            crc: u32_at(bytes, 4),
            position,
            term: Term(u32_at(bytes, 16)),
            kind,
            flags: bytes[21],
            event_count: u16_at(bytes, 22),
            timestamp: u64_at(bytes, 24).cast_signed(),
        })
    }

    /// The position after the record.
    #[must_use]
    pub fn end(&self) -> LogPosition {
        self.position.plus(u64::from(self.length))
    }
}

/// A whole record whose header and checksum are good.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// The header, read.
    pub header: Header,
    bytes: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Checks the record that should lie at `position` at the start of `bytes`.
    ///
    /// # Errors
    /// See [`RecordError`]. `room` is the distance in bytes to the end of the chunk.
    pub fn check(bytes: &'a [u8], position: LogPosition, room: u64) -> Result<RecordView<'a>, RecordError> {
        let record = RecordView::trust(bytes, position, room)?;
        let computed = crc32c::crc32c(&record.bytes[8..]);
        if computed != record.header.crc {
            return Err(RecordError::Checksum { computed, stored: record.header.crc });
        }
        Ok(record)
    }

    /// Like [`RecordView::check`] without the checksum: for records that were checked when they were appended.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn trust(bytes: &'a [u8], position: LogPosition, room: u64) -> Result<RecordView<'a>, RecordError> {
        let header = Header::read(bytes, position, room)?;
        let length = header.length as usize;
        if bytes.len() < length {
            return Err(RecordError::Incomplete { needed: length, available: bytes.len() });
        }
        Ok(RecordView { header, bytes: &bytes[..length] })
    }

    /// The bytes after the header.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[RECORD_HEADER_BYTES..]
    }

    /// The whole record.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The length in bytes of the record that a body of `body_length` bytes makes.
#[must_use]
pub fn sealed_length(body_length: usize) -> usize {
    (RECORD_HEADER_BYTES + body_length).next_multiple_of(RECORD_ALIGNMENT)
}

/// Makes `buffer` a record: its body is in place behind the header's room, zero-filled to the buffer's end.
/// `header.length` and `header.crc` are computed here.
///
/// # Panics
/// When the buffer's length is not one a record can have.
pub fn seal(buffer: &mut [u8], mut header: Header) {
    assert!(buffer.len() >= RECORD_HEADER_BYTES && buffer.len().is_multiple_of(RECORD_ALIGNMENT), "{}", buffer.len());
    header.length = u32::try_from(buffer.len()).expect("a record is below 4 GiB");
    buffer[0..4].copy_from_slice(&header.length.to_le_bytes());
    buffer[8..16].copy_from_slice(&header.position.0.to_le_bytes());
    buffer[16..20].copy_from_slice(&header.term.0.to_le_bytes());
    buffer[20] = header.kind as u8;
    buffer[21] = header.flags;
    buffer[22..24].copy_from_slice(&header.event_count.to_le_bytes());
    buffer[24..32].copy_from_slice(&header.timestamp.to_le_bytes());
    let crc = crc32c::crc32c(&buffer[8..]);
    buffer[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Fills `buffer`, the rest of a chunk, with one padding record.
pub fn padding(buffer: &mut [u8], position: LogPosition, term: Term, timestamp: i64) {
    buffer.fill(0);
    let kind = RecordKind::Padding;
    seal(buffer, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Vec<u8> {
        let mut buffer = vec![0; 40];
        buffer[32..].copy_from_slice(b"bodybody");
        let header = Header {
            length: 0,
            crc: 0,
            position: LogPosition(4096),
            term: Term(3),
            kind: RecordKind::Append,
            flags: 0,
            event_count: 2,
            timestamp: 637_135_310_456_780_000,
        };
        seal(&mut buffer, header);
        buffer
    }

    #[test]
    fn golden_layout() {
        let hex: String = sealed().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "28000000",
                "94a4e182",
                "0010000000000000",
                "03000000",
                "04",
                "00",
                "0200",
                "e074a26d308fd708",
                "626f6479626f6479"
            )
        );
    }

    #[test]
    fn a_sealed_record_checks_out_and_any_flipped_bit_is_seen() {
        let good = sealed();
        assert_eq!(RecordView::check(&good, LogPosition(4096), 1 << 20).unwrap().body(), b"bodybody");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordView::check(&bad, LogPosition(4096), 1 << 20).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_or_cut_short_is_refused() {
        let good = sealed();
        assert!(matches!(RecordView::check(&good, LogPosition(0), 99), Err(RecordError::Misplaced { .. })));
        assert!(matches!(RecordView::check(&good[..39], LogPosition(4096), 99), Err(RecordError::Incomplete { .. })));
        assert!(matches!(RecordView::check(&good, LogPosition(4096), 39), Err(RecordError::Length { .. })));
        assert_eq!(RecordView::check(&[0; 64], LogPosition(0), 64).unwrap_err(), RecordError::Empty);
    }
}
