//! Writes events straight from the log's bytes into an answer: lengths are computed first, data is copied once.
//!
//! These are the same bytes that the derived messages of [`messages`](super::messages) would give (a test says so), less
//! the strings and buffers in between.

use prost::encoding::{encode_varint, encoded_len_varint};

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
pub fn put_number(out: &mut Vec<u8>, field: u8, number: i64) {
    out.push(field << 3);
    encode_varint(number.cast_unsigned(), out);
}

/// Appends a field that holds bytes or text.
pub fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_length(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_length(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | 2);
    encode_varint(length as u64, out);
}

fn number_bytes(number: i64) -> usize {
    1 + encoded_len_varint(number.cast_unsigned())
}

/// Size of a field with `length` bytes in it.
fn field_bytes(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// An event with the number that the client is shown.
#[derive(Clone, Copy, Debug)]
struct Shown<'a> {
    event: &'a EventView<'a>,
    number: i64,
    created_epoch: i64,
}

impl<'a> Shown<'a> {
    fn new(event: &'a EventView<'a>, level: ProtocolLevel) -> Shown<'a> {
        let created_epoch = event.timestamp.saturating_sub(UNIX_EPOCH_TICKS).div_euclid(TICKS_PER_MILLISECOND);
        Shown { event, number: level.show(event.event_number.0), created_epoch }
    }

    /// Size of the EventRecord, without its tag and length.
    fn bytes(&self) -> usize {
        let event = self.event;
        // The identifier's field takes 18 bytes, the two content types two each.
        let fixed = 18 + 2 + 2;
        let texts = [event.stream.len(), event.event_type.len(), event.data.len(), event.metadata.len()];
        let numbers = [self.number, event.timestamp, self.created_epoch];
        fixed + texts.map(field_bytes).iter().sum::<usize>() + numbers.map(number_bytes).iter().sum::<usize>()
    }

    fn put(&self, out: &mut Vec<u8>, field: u8) {
        let event = self.event;
        put_length(out, field, self.bytes());
        put_bytes(out, 1, event.stream.as_bytes());
        put_number(out, 2, self.number);
        put_bytes(out, 3, &event.id.0.0);
        put_bytes(out, 4, event.event_type.as_bytes());
        put_number(out, 5, i64::from(event.is_json));
        put_number(out, 6, i64::from(event.is_json));
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

    fn shown(&self, level: ProtocolLevel) -> impl Iterator<Item = (u8, Shown<'a>)> + use<'a> {
        let event = self.event.map(|event| (1, Shown::new(event, level)));
        event.into_iter().chain(self.link.map(|link| (2, Shown::new(link, level))))
    }

    /// Size of the ResolvedIndexedEvent, without tag and length.
    fn indexed_bytes(&self, level: ProtocolLevel) -> usize {
        self.shown(level).map(|(_, shown)| field_bytes(shown.bytes())).sum()
    }

    /// Size of the whole field that holds this entry in a page; what a page's bound is checked against.
    #[must_use]
    pub fn entry_bytes(&self, level: ProtocolLevel) -> usize {
        // Two positions of at most ten bytes with their tags, in pages of the whole log.
        field_bytes(self.indexed_bytes(level) + 22)
    }

    /// Appends a field that holds this entry as a ResolvedIndexedEvent. Event numbers are shown as they are.
    pub fn put_indexed(&self, out: &mut Vec<u8>, field: u8, level: ProtocolLevel) {
        put_length(out, field, self.indexed_bytes(level));
        self.shown(level).for_each(|(field, shown)| shown.put(out, field));
    }

    /// Appends a field that holds this entry as a ResolvedEvent, with the positions of the original.
    ///
    /// # Panics
    /// When there is neither event nor link: nothing was found, so there is nothing to deliver.
    pub fn put_positioned(&self, out: &mut Vec<u8>, field: u8, level: ProtocolLevel) {
        let original = self.original().expect("an entry of the log is an event or a link");
        let (commit, prepare) = (original.commit_position.as_i64(), original.prepare_position.as_i64());
        put_length(out, field, self.indexed_bytes(level) + number_bytes(commit) + number_bytes(prepare));
        self.shown(level).for_each(|(field, shown)| shown.put(out, field));
        put_number(out, 3, commit);
        put_number(out, 4, prepare);
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
        resolved.put_indexed(&mut out, 1, level);
        let completed = messages::ReadStreamEventsCompleted { events: vec![indexed], ..Default::default() };
        assert!(completed.encode_to_vec().starts_with(&out) && out.len() + 10 == completed.encoded_len());
        assert!(resolved.entry_bytes(level) >= out.len());

        let positioned = messages::ResolvedEvent { event, link, commit_position: 4096, prepare_position: 1 << 40 };
        out.clear();
        resolved.put_positioned(&mut out, 1, level);
        assert_eq!(out, messages::StreamEventAppeared { event: positioned }.encode_to_vec());
        assert!(resolved.entry_bytes(level) >= out.len());
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
    fn unknown_versions_are_clamped() {
        let levels = [-5, 0, 1, 7].map(ProtocolLevel::from_version);
        assert_eq!(levels, [ProtocolLevel::V1, ProtocolLevel::V1, ProtocolLevel::V2, ProtocolLevel::V2]);
    }
}
