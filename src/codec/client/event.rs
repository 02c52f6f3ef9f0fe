//! Writes events straight from the log's bytes into an answer: lengths are computed first, data is copied once.
//!
//! These are the same bytes that the derived messages of [`messages`](super::messages) would give (a test says so), less
//! the strings and buffers in between.

use prost::encoding::encoded_len_varint;

use crate::codec::record::EventView;
use crate::types::EventNumber;

/// 100 ns ticks from 0001-01-01 to 1970-01-01.
pub const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;

/// 100 ns ticks in a millisecond.
pub const TICKS_PER_MILLISECOND: i64 = 10_000;

/// What the client said it understands; decides how the highest event number is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProtocolLevel {
    /// 32-bit event numbers: the number of a tombstone is shown as 2147483647. In force until the client identifies
    /// itself.
    #[default]
    V1,
    /// 64-bit event numbers.
    V2,
}

impl ProtocolLevel {
    /// The level for the version in IdentifyClient. Versions that nobody knows are clamped: v5 accepts them and then
    /// answers nothing.
    #[must_use]
    pub fn from_version(version: i32) -> ProtocolLevel {
        if version <= 0 { ProtocolLevel::V1 } else { ProtocolLevel::V2 }
    }

    /// `number` as this level shows it.
    #[must_use]
    pub fn show(self, number: i64) -> i64 {
        match self {
            ProtocolLevel::V1 if number == EventNumber::TOMBSTONE.0 => i64::from(i32::MAX),
            _ => number,
        }
    }
}

/// Appends a field that holds a varint (negative numbers take ten bytes, as proto2 has it).
#[inline]
pub fn put_number(out: &mut Vec<u8>, field: u8, number: i64) {
    put_varint(out, field << 3, number.cast_unsigned());
}

/// Appends a field that holds bytes or text.
pub fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_length(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

#[inline]
fn put_length(out: &mut Vec<u8>, field: u8, length: usize) {
    put_varint(out, field << 3 | 2, length as u64);
}

/// Appends a tag and a varint.
#[inline]
fn put_varint(out: &mut Vec<u8>, tag: u8, value: u64) {
    match u8::try_from(value) {
        Ok(byte) if byte < 0x80 => out.extend_from_slice(&[tag, byte]),
        _ => put_long_varint(out, tag, value),
    }
}

/// Up to seven bytes of the varint are made at once and go out with the tag in one word: byte by byte, these would take
/// most of an event's time.
fn put_long_varint(out: &mut Vec<u8>, tag: u8, value: u64) {
    const IN_ONE_WORD: u64 = 1 << (7 * 7);
    const CONTINUED: u64 = 0x8080_8080_8080_8080;
    if value < IN_ONE_WORD {
        let length = encoded_len_varint(value);
        let continued = CONTINUED & !(u64::MAX << (8 * (length - 1)));
        return put_word(out, (spread(value) | continued) << 8 | u64::from(tag), 1 + length);
    }
    out.push(tag);
    let (low, high) = (value & ((1 << 56) - 1), value >> 56);
    if high == 0 {
        // All eight groups are in use.
        return put_word(out, spread(low) | CONTINUED >> 8, 8);
    }
    put_word(out, spread(low) | CONTINUED, 8);
    put_word(out, high | (high & 0x80) << 1, encoded_len_varint(high));
}

/// Puts each seven bits of the lower 56 into a byte of their own.
#[inline]
fn spread(value: u64) -> u64 {
    let fours = (value & 0x00FF_FFFF_F000_0000) << 4 | (value & 0x0FFF_FFFF);
    let twos = (fours & 0x0FFF_C000_0FFF_C000) << 2 | (fours & 0x0000_3FFF_0000_3FFF);
    (twos & 0x3F80_3F80_3F80_3F80) << 1 | (twos & 0x007F_007F_007F_007F)
}

/// Appends the lowest `length` bytes of a word. A copy of a fixed length costs no call; what was too much is cut off.
#[inline]
fn put_word(out: &mut Vec<u8>, word: u64, length: usize) {
    let end = out.len() + length;
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

#[inline]
fn number_bytes(number: i64) -> usize {
    1 + encoded_len_varint(number.cast_unsigned())
}

/// Size of a field with `length` bytes in it.
#[inline]
fn field_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// An event with the number that the client is shown.
#[derive(Clone, Copy, Debug)]
struct Shown<'a> {
    event: &'a EventView<'a>,
    number: i64,
    created_epoch: i64,
    /// Size of the EventRecord, without its tag and length.
    bytes: usize,
}

impl<'a> Shown<'a> {
    #[inline]
    fn new(event: &'a EventView<'a>, level: ProtocolLevel) -> Shown<'a> {
        let number = level.show(event.event_number.0);
        let created_epoch = event.timestamp.saturating_sub(UNIX_EPOCH_TICKS).div_euclid(TICKS_PER_MILLISECOND);
        // The identifier's field takes 18 bytes, the two content types two each.
        let fixed = 18 + 2 + 2;
        let names = field_bytes(event.stream.len()) + field_bytes(event.event_type.len());
        let contents = field_bytes(event.data.len()) + field_bytes(event.metadata.len());
        let numbers = number_bytes(number) + number_bytes(event.timestamp) + number_bytes(created_epoch);
        Shown { event, number, created_epoch, bytes: fixed + names + contents + numbers }
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>, field: u8) {
        let event = self.event;
        put_length(out, field, self.bytes);
        put_bytes(out, 1, event.stream.as_bytes());
        put_number(out, 2, self.number);
        out.extend_from_slice(&[3 << 3 | 2, 16]);
        out.extend_from_slice(&event.id.0.0);
        put_bytes(out, 4, event.event_type.as_bytes());
        let is_json = u8::from(event.is_json);
        out.extend_from_slice(&[5 << 3, is_json, 6 << 3, is_json]);
        put_bytes(out, 7, event.data);
        put_bytes(out, 8, event.metadata);
        put_number(out, 9, event.timestamp);
        put_number(out, 10, self.created_epoch);
    }
}

/// An entry as it is delivered: an event, a link with its target, or a link whose target is gone.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'a> {
    /// The event, or the target of the link.
    pub event: Option<&'a EventView<'a>>,
    /// The link, when it was resolved.
    pub link: Option<&'a EventView<'a>>,
}

impl<'a> Resolved<'a> {
    /// An event that is delivered as it is.
    #[must_use]
    pub fn plain(event: &'a EventView<'a>) -> Resolved<'a> {
        Resolved { event: Some(event), link: None }
    }

    /// What lies in the stream or log that was read: the link if there is one, otherwise the event.
    #[must_use]
    pub fn original(&self) -> Option<&'a EventView<'a>> {
        self.link.or(self.event)
    }

    /// Computes the sizes that the entry's bytes begin with: once, for the check of a page's bound and for the bytes.
    #[must_use]
    #[inline]
    pub fn measure(&self, level: ProtocolLevel) -> Entry<'a> {
        let shown = |event: Option<&'a EventView<'a>>| event.map(|event| Shown::new(event, level));
        let (event, link) = (shown(self.event), shown(self.link));
        let size = |shown: &Option<Shown<'a>>| shown.as_ref().map_or(0, |shown| field_bytes(shown.bytes));
        Entry { bytes: size(&event) + size(&link), event, link }
    }
}

/// A [`Resolved`] with its sizes, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    event: Option<Shown<'a>>,
    link: Option<Shown<'a>>,
    /// Size of the ResolvedIndexedEvent, without tag and length.
    bytes: usize,
}

impl Entry<'_> {
    /// The most that the whole field takes that holds this entry in a page; what a page's bound is checked against.
    #[must_use]
    #[inline]
    pub fn bytes_max(&self) -> usize {
        // Two positions of at most ten bytes with their tags, in pages of the whole log.
        field_bytes(self.bytes + 22)
    }

    /// Appends a field that holds this entry as a ResolvedIndexedEvent.
    #[inline]
    pub fn put_indexed(&self, out: &mut Vec<u8>, field: u8) {
        put_length(out, field, self.bytes);
        self.put_events(out);
    }

    /// Appends a field that holds this entry as a ResolvedEvent, with the positions of the original.
    ///
    /// # Panics
    /// When there is neither event nor link: nothing was found, so there is nothing to deliver.
    #[inline]
    pub fn put_positioned(&self, out: &mut Vec<u8>, field: u8) {
        let original = self.link.or(self.event).expect("an entry of the log is an event or a link").event;
        let (commit, prepare) = (original.commit_position.as_i64(), original.prepare_position.as_i64());
        put_length(out, field, self.bytes + number_bytes(commit) + number_bytes(prepare));
        self.put_events(out);
        put_number(out, 3, commit);
        put_number(out, 4, prepare);
    }

    #[inline]
    fn put_events(&self, out: &mut Vec<u8>) {
        if let Some(event) = &self.event {
            event.put(out, 1);
        }
        if let Some(link) = &self.link {
            link.put(out, 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::codec::client::messages;
    use crate::types::{EventId, Guid, LogPosition};

    fn event<'a>(stream: &'a str, number: i64, data: &'a [u8]) -> EventView<'a> {
        EventView {
            stream,
            event_number: EventNumber(number),
            id: EventId(Guid([9; 16])),
            event_type: "type",
            is_json: number % 2 == 0,
            data,
            metadata: &data[..data.len() / 2],
            timestamp: 637_135_310_456_780_000,
            commit_position: LogPosition(4096),
            prepare_position: LogPosition(1 << 40),
        }
    }

    fn message(event: &EventView<'_>, level: ProtocolLevel) -> messages::EventRecord {
        messages::EventRecord {
            event_stream_id: event.stream.to_owned(),
            event_number: level.show(event.event_number.0),
            event_id: Bytes::copy_from_slice(&event.id.0.0),
            event_type: event.event_type.to_owned(),
            data_content_type: event.is_json.into(),
            metadata_content_type: event.is_json.into(),
            data: Bytes::copy_from_slice(event.data),
            metadata: Some(Bytes::copy_from_slice(event.metadata)),
            created: Some(event.timestamp),
            created_epoch: Some(1_577_934_245_678),
        }
    }

    fn check(target: Option<&EventView<'_>>, link: Option<&EventView<'_>>, level: ProtocolLevel) {
        let resolved = Resolved { event: target, link };
        let (event, link) = (target.map(|event| message(event, level)), link.map(|event| message(event, level)));
        let indexed = messages::ResolvedIndexedEvent { event: event.clone(), link: link.clone() };
        let mut out = Vec::new();
        resolved.measure(level).put_indexed(&mut out, 1);
        let completed = messages::ReadStreamEventsCompleted { events: vec![indexed], ..Default::default() };
        assert!(completed.encode_to_vec().starts_with(&out) && out.len() + 10 == completed.encoded_len());
        assert!(resolved.measure(level).bytes_max() >= out.len());

        let positioned = messages::ResolvedEvent { event, link, commit_position: 4096, prepare_position: 1 << 40 };
        out.clear();
        resolved.measure(level).put_positioned(&mut out, 1);
        assert_eq!(out, messages::StreamEventAppeared { event: positioned }.encode_to_vec());
        assert!(resolved.measure(level).bytes_max() >= out.len());
    }

    #[test]
    fn the_bytes_are_those_of_the_derived_messages() {
        let big = vec![7; 70_000];
        for level in [ProtocolLevel::V1, ProtocolLevel::V2] {
            for data in [&b""[..], b"x", &big[..127], &big[..128], &big] {
                for number in [0, 3, 127, 128, i64::from(i32::MAX), i64::MAX] {
                    let (event, link) = (event("orders-1", number, data), event("$ce-orders", 2, b"0@orders-1"));
                    check(Some(&event), None, level);
                    check(Some(&event), Some(&link), level);
                    check(None, Some(&link), level);
                }
            }
        }
    }

    #[test]
    fn random_events_have_the_bytes_of_the_derived_messages() {
        let mut random = fastrand::Rng::with_seed(3);
        let text = |random: &mut fastrand::Rng, most: usize| -> String {
            (0..random.usize(..most)).map(|_| random.char(..)).collect()
        };
        for _ in 0..2_000 {
            let (stream, event_type) = (text(&mut random, 70), text(&mut random, 200));
            let bytes: Vec<u8> = (0..random.usize(..20_000)).map(|_| random.u8(..)).collect();
            let (data, metadata) = bytes.split_at(random.usize(..=bytes.len()));
            let event = EventView {
                stream: &stream,
                event_number: EventNumber(random.i64(0..) >> random.u32(..63)),
                id: EventId(Guid(random.u128(..).to_le_bytes())),
                event_type: &event_type,
                is_json: random.bool(),
                data,
                metadata,
                timestamp: 637_135_310_456_780_000,
                commit_position: LogPosition(4096),
                prepare_position: LogPosition(1 << 40),
            };
            let level = if random.bool() { ProtocolLevel::V1 } else { ProtocolLevel::V2 };
            check(Some(&event), None, level);
            check(Some(&event), Some(&event), level);
        }
    }

    #[test]
    fn numbers_of_every_length_are_those_of_the_library() {
        let mut random = fastrand::Rng::with_seed(7);
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, u64::MAX >> bit, u64::MAX << bit]);
        let any: Vec<u64> = (0..10_000).map(|_| random.u64(..) >> random.u32(..64)).collect();
        for value in edges.chain(any) {
            let (mut out, mut expected) = (vec![1, 2, 3], vec![1, 2, 3, 5 << 3]);
            put_number(&mut out, 5, value.cast_signed());
            prost::encoding::encode_varint(value, &mut expected);
            assert_eq!(out, expected, "{value:x}");
            assert_eq!(out.len() - 3, number_bytes(value.cast_signed()));
        }
    }

    #[test]
    fn unknown_versions_are_clamped() {
        let levels = [-5, 0, 1, 7].map(ProtocolLevel::from_version);
        assert_eq!(levels, [ProtocolLevel::V1, ProtocolLevel::V1, ProtocolLevel::V2, ProtocolLevel::V2]);
    }
}
