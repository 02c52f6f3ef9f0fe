//! A write read where it lies: WriteEvents as slices of the receive buffer, without a copy and without an allocation.
//!
//! What is accepted here means the same as what [`Request::read`](super::Request::read) makes of the same bytes (a test
//! says so). What is not accepted here is for that one to read: it may know better (groups, which nobody sends), and it has
//! the words of the refusal.

use super::{NewEvent, RequestLimits, WriteEvents};
use crate::limits::{EVENT_SIZE_MAX_BYTES, EVENTS_PER_APPEND_MAX, NAME_MAX_BYTES};
use crate::types::{EventId, ExpectedVersion, Guid};

/// An event to be written, checked like a [`NewEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEventView<'a> {
    /// Its identifier, not zero.
    pub id: EventId,
    /// Its type, not empty.
    pub event_type: &'a str,
    /// The data is JSON, says the writer.
    pub is_json: bool,
    /// Its data.
    pub data: &'a [u8],
    /// Its metadata; empty when there is none.
    pub metadata: &'a [u8],
}

impl NewEvent {
    /// The same event, borrowed.
    #[must_use]
    pub fn view(&self) -> NewEventView<'_> {
        let NewEvent { id, event_type, is_json, data, metadata } = self;
        NewEventView { id: *id, event_type, is_json: *is_json, data, metadata }
    }
}

/// Append events to a stream; the checked request of [`WriteEvents`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct WriteEventsView<'a> {
    /// The stream.
    pub stream: &'a str,
    /// The claim about it.
    pub expected_version: ExpectedVersion,
    /// Refuse rather than forward.
    pub require_leader: bool,
    /// How many events.
    pub event_count: usize,
    /// Bytes of types, data and metadata of all events.
    pub event_bytes: usize,
    /// The first event: most writes have no more, and it is read once.
    first: Option<NewEventView<'a>>,
    /// The payload behind the first event.
    rest: &'a [u8],
}

impl<'a> WriteEventsView<'a> {
    /// Reads and checks the payload of a WriteEvents package; `None` when that is for
    /// [`Request::read`](super::Request::read) to do.
    #[must_use]
    pub fn read(payload: &'a [u8], limits: &RequestLimits) -> Option<WriteEventsView<'a>> {
        let (mut stream, mut version, mut require_leader) = ("", 0, false);
        let (mut first, mut event_count, mut event_bytes) = (None, 0, 0);
        let (mut fields, mut rest) = (Fields(payload), &payload[payload.len()..]);
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(bytes)) => stream = std::str::from_utf8(bytes).ok()?,
                (2, Value::Varint(value)) => version = value.cast_signed(),
                (3, Value::Bytes(bytes)) => {
                    let event = read_event(bytes)?;
                    event_count += 1;
                    event_bytes += event.event_type.len() + event.data.len() + event.metadata.len();
                    if first.is_none() {
                        (first, rest) = (Some(event), fields.0);
                    }
                }
                (4, Value::Varint(value)) => require_leader = value != 0,
                (1..=4, _) => return None,
                _ => {}
            }
        }
        let expected_version = ExpectedVersion::from_wire(version)?;
        let fits =
            event_count <= EVENTS_PER_APPEND_MAX && (stream.len() + event_bytes) as u64 <= limits.append_bytes_max;
        let view = WriteEventsView { stream, expected_version, require_leader, event_count, event_bytes, first, rest };
        (is_name(stream) && fits).then_some(view)
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = NewEventView<'a>> + Clone + use<'a> {
        let mut fields = Fields(self.rest);
        // All of them were read before: this ends where the payload ends.
        let next = move || {
            while let Some((number, value)) = fields.next().flatten() {
                if let (3, Value::Bytes(bytes)) = (number, value) {
                    return read_event(bytes);
                }
            }
            None
        };
        self.first.into_iter().chain(std::iter::from_fn(next))
    }

    /// The same request with memory of its own.
    #[must_use]
    pub fn to_owned(&self) -> WriteEvents {
        let own = |event: NewEventView<'_>| NewEvent {
            id: event.id,
            event_type: event.event_type.to_owned(),
            is_json: event.is_json,
            data: event.data.to_vec().into(),
            metadata: event.metadata.to_vec().into(),
        };
        WriteEvents {
            stream: self.stream.to_owned(),
            expected_version: self.expected_version,
            events: self.events().map(own).collect(),
            require_leader: self.require_leader,
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&name.len())
}

fn read_event(bytes: &[u8]) -> Option<NewEventView<'_>> {
    let (mut id, mut event_type, mut content_type) = (&bytes[..0], "", 0);
    let (mut data, mut metadata) = (&bytes[..0], &bytes[..0]);
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => id = bytes,
            (2, Value::Bytes(bytes)) => event_type = std::str::from_utf8(bytes).ok()?,
            (3, Value::Varint(value)) => content_type = value as i32,
            (4, Value::Varint(_)) => {}
            (5, Value::Bytes(bytes)) => data = bytes,
            (6, Value::Bytes(bytes)) => metadata = bytes,
            (1..=6, _) => return None,
            _ => {}
        }
    }
    let id = Guid(id.try_into().ok()?);
    // A character of one or two 16-bit units has at least as many bytes of UTF-8: hardly any type is worth counting.
    let others = data.len() + metadata.len();
    let fits = others + 2 * event_type.len() <= EVENT_SIZE_MAX_BYTES
        || others + 2 * event_type.encode_utf16().count() <= EVENT_SIZE_MAX_BYTES;
    let event = NewEventView { id: EventId(id), event_type, is_json: content_type == 1, data, metadata };
    (!id.is_zero() && is_name(event_type) && fits).then_some(event)
}

/// The value of one field, its number of bits not looked at.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed,
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, one after the other.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field with its number; `Some(None)` at the end, `None` when the bytes are not understood.
    #[inline]
    fn next(&mut self) -> Option<Option<(u32, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = u32::try_from(self.varint()?).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.fixed(4)?,
            _ => return None,
        };
        let number = key >> 3;
        (number > 0).then_some(Some((number, value)))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn fixed(&mut self, count: usize) -> Option<Value<'a>> {
        self.take(count).map(|_| Value::Fixed)
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        if first < 0x80 {
            self.0 = rest;
            return Some(first.into());
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.0.iter().take(10).enumerate() {
            // Nine bytes have 63 bits.
            if index == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
