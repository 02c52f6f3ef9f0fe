//! A stream's entries in a table. The layout is in the manual, [`log_format`](crate::manual::log_format).

use super::metadata::StreamMetadata;
use super::pages::{Cursor, Damage, get_varint, put_varint};

/// Events that one entry holds at most; the entries behind a stream's first one are called runs.
pub(super) const RUN_EVENTS_MAX: usize = 1024;

/// Bytes that an entry has at least: a hash, and six numbers of a byte or more.
pub(super) const ENTRY_BYTES_MIN: u64 = 14;

/// The first entry of a stream: it says how many events all its entries have, and what else there is.
const IS_HEAD: u8 = 1;
const HAS_TOMBSTONE: u8 = 2;
const HAS_METADATA: u8 = 4;

/// What the first entry of a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Events in the table.
    pub(super) count: u64,
    pub(super) tombstone: Option<u64>,
    /// As it is written in a metadata event.
    pub(super) metadata: Option<Box<[u8]>>,
}

/// An entry as it was read.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) hash: u64,
    /// Where it begins, and where the next one does.
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) name: Vec<u8>,
    pub(super) head: Option<Summary>,
    /// The number of its first event, or of the stream's next one.
    pub(super) first: i64,
    pub(super) count: usize,
    positions: Vec<u8>,
}

impl Entry {
    /// Reads the head of the next entry only: its hash, and sets where it ends.
    pub(super) fn read_hash(&mut self, cursor: &mut Cursor<'_>) -> Result<u64, Damage> {
        self.at = cursor.at();
        self.hash = cursor.u64()?;
        let length = cursor.varint()?;
        let end = cursor.at().checked_add(length).filter(|&end| end <= cursor.end());
        self.end = end.ok_or(Damage::Content("an entry is too long"))?;
        Ok(self.hash)
    }

    /// Reads the rest.
    pub(super) fn read_rest(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Damage> {
        let length = usize::try_from(self.end - cursor.at()).map_err(|_| Damage::Content("an entry is too long"))?;
        // An event takes a byte or more, so there are no more of them than the section has bytes.
        let events_max = cursor.end();
        let mut body = cursor.take(length)?;
        self.read_body(&mut body, events_max).ok_or(Damage::Content("an entry makes no sense"))
    }

    fn read_body(&mut self, body: &mut &[u8], events_max: u64) -> Option<()> {
        let flags = *take(body, 1)?.first()?;
        let length = get_varint(body)?;
        self.name.clear();
        self.name.extend_from_slice(take(body, length)?);
        self.head = None;
        if flags & IS_HEAD != 0 {
            let count = get_varint(body)?;
            let tombstone = if flags & HAS_TOMBSTONE != 0 { Some(get_varint(body)?) } else { None };
            let metadata = if flags & HAS_METADATA != 0 {
                let length = get_varint(body)?;
                Some(take(body, length)?.into())
            } else {
                None
            };
            self.head = Some(Summary { count, tombstone, metadata });
        }
        self.first = i64::try_from(get_varint(body)?).ok()?;
        self.count = usize::try_from(get_varint(body)?).ok().filter(|&count| count <= RUN_EVENTS_MAX)?;
        let all = self.head.as_ref().map_or(self.count as u64, |head| head.count);
        let is_possible = self.count as u64 <= all && all <= events_max && self.count <= body.len();
        self.first.checked_add_unsigned(all).filter(|_| is_possible)?;
        self.positions.clear();
        self.positions.extend_from_slice(body);
        Some(())
    }

    /// The number behind that of its last event.
    pub(super) fn end_number(&self) -> i64 {
        self.first + self.count as i64
    }

    /// The positions of its events, in order.
    pub(super) fn positions(&self) -> Result<Vec<u64>, Damage> {
        let mut bytes = &self.positions[..];
        let mut position = 0_u64;
        let mut all = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let delta = get_varint(&mut bytes);
            let next = delta.and_then(|delta| position.checked_add(delta));
            position = next.ok_or(Damage::Content("the positions of an entry make no sense"))?;
            all.push(position);
        }
        if !bytes.is_empty() {
            return Err(Damage::Content("something lies behind the positions of an entry"));
        }
        Ok(all)
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(taken)
}

/// Appends an entry. `body` is room to work in.
pub(super) fn put_entry(
    out: &mut Vec<u8>,
    body: &mut Vec<u8>,
    (hash, name): (u64, &[u8]),
    head: Option<&Summary>,
    (first, positions): (i64, &[u64]),
) {
    body.clear();
    let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
    let tombstone = head.and_then(|head| head.tombstone);
    let metadata = head.and_then(|head| head.metadata.as_deref());
    body.push(
        flag(head.is_some(), IS_HEAD)
            | flag(tombstone.is_some(), HAS_TOMBSTONE)
            | flag(metadata.is_some(), HAS_METADATA),
    );
    put_varint(body, name.len() as u64);
    body.extend_from_slice(name);
    if let Some(head) = head {
        put_varint(body, head.count);
    }
    if let Some(tombstone) = tombstone {
        put_varint(body, tombstone);
    }
    if let Some(metadata) = metadata {
        put_varint(body, metadata.len() as u64);
        body.extend_from_slice(metadata);
    }
    put_varint(body, first.cast_unsigned());
    put_varint(body, positions.len() as u64);
    let mut before = 0;
    for &position in positions {
        put_varint(body, position - before);
        before = position;
    }
    out.extend_from_slice(&hash.to_le_bytes());
    put_varint(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Metadata as the bytes of an event that sets it.
pub(super) fn metadata_bytes(metadata: &StreamMetadata) -> Box<[u8]> {
    metadata.to_json().into_bytes().into_boxed_slice()
}
