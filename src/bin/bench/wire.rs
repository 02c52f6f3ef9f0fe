//! The v5 TCP protocol as far as the load generator speaks it: frames are written straight into a send buffer, and of
//! answers only the fields that are needed are read. No allocation for a message, and no code of the server.

use crate::slots::Correlation;

pub(crate) const HEARTBEAT_REQUEST: u8 = 0x01;
pub(crate) const HEARTBEAT_RESPONSE: u8 = 0x02;
pub(crate) const WRITE_EVENTS: u8 = 0x82;
pub(crate) const WRITE_EVENTS_COMPLETED: u8 = 0x83;
pub(crate) const READ_FORWARD: u8 = 0xB2;
pub(crate) const READ_FORWARD_COMPLETED: u8 = 0xB3;
pub(crate) const READ_BACKWARD: u8 = 0xB4;
pub(crate) const READ_BACKWARD_COMPLETED: u8 = 0xB5;
pub(crate) const READ_ALL_FORWARD: u8 = 0xB6;
pub(crate) const READ_ALL_FORWARD_COMPLETED: u8 = 0xB7;
pub(crate) const READ_ALL_BACKWARD: u8 = 0xB8;
pub(crate) const READ_ALL_BACKWARD_COMPLETED: u8 = 0xB9;
pub(crate) const SUBSCRIBE: u8 = 0xC0;
pub(crate) const SUBSCRIPTION_CONFIRMED: u8 = 0xC1;
pub(crate) const EVENT_APPEARED: u8 = 0xC2;
pub(crate) const SUBSCRIPTION_DROPPED: u8 = 0xC4;
pub(crate) const BAD_REQUEST: u8 = 0xF0;
pub(crate) const NOT_HANDLED: u8 = 0xF1;
pub(crate) const AUTHENTICATE: u8 = 0xF2;
pub(crate) const AUTHENTICATED: u8 = 0xF3;
pub(crate) const NOT_AUTHENTICATED: u8 = 0xF4;
pub(crate) const IDENTIFY_CLIENT: u8 = 0xF5;
pub(crate) const CLIENT_IDENTIFIED: u8 = 0xF6;

/// Length, command, flags, correlation identifier.
pub(crate) const HEAD_BYTES: usize = 4 + PACKAGE_HEAD_BYTES;
const PACKAGE_HEAD_BYTES: usize = 18;
/// The protocol's own limit for a package.
const PACKAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

const AUTHENTICATED_FLAG: u8 = 0x01;

/// Expected version "any".
pub(crate) const ANY: i64 = -2;
/// Expected version "no stream".
pub(crate) const NO_STREAM: i64 = -1;

/// The bytes received are not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

/// One package as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package<'a> {
    pub command: u8,
    pub correlation: [u8; 16],
    pub payload: &'a [u8],
}

/// The first package of `bytes` and the length of its frame; none when it has not come whole yet.
pub(crate) fn package(bytes: &[u8]) -> Result<Option<(Package<'_>, usize)>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if !(PACKAGE_HEAD_BYTES..=PACKAGE_BYTES_MAX).contains(&length) {
        return Err(Malformed("a frame of impossible length"));
    }
    let Some(package) = rest.get(..length) else { return Ok(None) };
    let (head, payload) = package.split_at(PACKAGE_HEAD_BYTES);
    let correlation = *head.last_chunk::<16>().expect("18 bytes");
    Ok(Some((Package { command: head[0], correlation, payload }, 4 + length)))
}

/// The length of the frame that `bytes` begin with, as soon as that is known.
pub(crate) fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<4>().map(|length| 4 + u32::from_le_bytes(*length) as usize)
}

// --- Requests --------------------------------------------------------------------------------------------------------

/// Appends one frame; `payload` appends its payload.
pub(crate) fn frame(out: &mut Vec<u8>, command: u8, correlation: &[u8; 16], payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let mut head = [0; HEAD_BYTES];
    head[4] = command;
    head[6..].copy_from_slice(correlation);
    out.extend_from_slice(&head);
    payload(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Login and password, at most 255 bytes each (the options see to that).
pub(crate) fn authenticate(out: &mut Vec<u8>, correlation: Correlation, login: &str, password: &str) {
    let start = out.len();
    frame(out, AUTHENTICATE, &correlation.to_bytes(), |out| {
        for text in [login, password] {
            out.push(u8::try_from(text.len()).expect("checked with the options"));
            out.extend_from_slice(text.as_bytes());
        }
    });
    out[start + 5] = AUTHENTICATED_FLAG;
}

pub(crate) fn identify_client(out: &mut Vec<u8>, correlation: Correlation, name: &str) {
    frame(out, IDENTIFY_CLIENT, &correlation.to_bytes(), |out| {
        out.extend_from_slice(&[0x08, 1]);
        bytes_field(out, 0x12, name.as_bytes());
    });
}

/// The parts of an event that are the same for all events of a run, encoded once.
#[derive(Debug)]
pub(crate) struct EventTemplate {
    /// Type and content types.
    middle: Vec<u8>,
    /// As long as the largest payload.
    payload: Vec<u8>,
    metadata: Vec<u8>,
}

impl EventTemplate {
    pub(crate) fn new(event_type: &str, size_max: u32, metadata_size: u32) -> Self {
        let mut middle = Vec::new();
        bytes_field(&mut middle, 0x12, event_type.as_bytes());
        middle.extend_from_slice(&[0x18, 0, 0x20, 0]);
        let text = |size: u32| -> Vec<u8> { (b'a'..=b'z').cycle().take(size as usize).collect() };
        let mut metadata = Vec::new();
        bytes_field(&mut metadata, 0x32, &text(metadata_size));
        Self { middle, payload: text(size_max), metadata }
    }

    /// Appends one event as field 3 of WriteEvents.
    pub(crate) fn event(&self, out: &mut Vec<u8>, id: &[u8; 16], size: u32) {
        let data = &self.payload[..size as usize];
        let inside = 18 + self.middle.len() + 1 + varint_bytes(u64::from(size)) + data.len() + self.metadata.len();
        out.push(0x1A);
        varint(out, inside as u64);
        out.extend_from_slice(&[0x0A, 16]);
        out.extend_from_slice(id);
        out.extend_from_slice(&self.middle);
        bytes_field(out, 0x2A, data);
        out.extend_from_slice(&self.metadata);
    }
}

/// WriteEvents; `events` appends the events.
pub(crate) fn write_events(
    out: &mut Vec<u8>,
    correlation: Correlation,
    stream: &[u8],
    expected_version: i64,
    require_leader: bool,
    events: impl FnOnce(&mut Vec<u8>),
) {
    frame(out, WRITE_EVENTS, &correlation.to_bytes(), |out| {
        bytes_field(out, 0x0A, stream);
        int_field(out, 0x10, expected_version);
        events(out);
        out.extend_from_slice(&[0x20, u8::from(require_leader)]);
    });
}

/// ReadStreamEvents, `command` says which way.
pub(crate) fn read_stream(
    out: &mut Vec<u8>,
    command: u8,
    correlation: Correlation,
    stream: &[u8],
    from: i64,
    count: u32,
    require_leader: bool,
) {
    frame(out, command, &correlation.to_bytes(), |out| {
        bytes_field(out, 0x0A, stream);
        int_field(out, 0x10, from);
        int_field(out, 0x18, i64::from(count));
        out.extend_from_slice(&[0x20, 0, 0x28, u8::from(require_leader)]);
    });
}

/// ReadAllEvents, `command` says which way; the position is the commit and the prepare position.
pub(crate) fn read_all(
    out: &mut Vec<u8>,
    command: u8,
    correlation: Correlation,
    position: (i64, i64),
    count: u32,
    require_leader: bool,
) {
    frame(out, command, &correlation.to_bytes(), |out| {
        int_field(out, 0x08, position.0);
        int_field(out, 0x10, position.1);
        int_field(out, 0x18, i64::from(count));
        out.extend_from_slice(&[0x20, 0, 0x28, u8::from(require_leader)]);
    });
}

/// SubscribeToStream; an empty name is the all-stream.
pub(crate) fn subscribe(out: &mut Vec<u8>, correlation: Correlation, stream: &[u8]) {
    frame(out, SUBSCRIBE, &correlation.to_bytes(), |out| {
        bytes_field(out, 0x0A, stream);
        out.extend_from_slice(&[0x10, 0]);
    });
}

fn bytes_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn int_field(out: &mut Vec<u8>, tag: u8, value: i64) {
    out.push(tag);
    varint(out, value.cast_unsigned());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

// --- Answers ---------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WriteAnswer {
    pub result: u64,
    pub first: i64,
    pub last: i64,
    /// With "wrong expected version": the stream's last event number.
    pub current: i64,
}

/// A page of a stream or of the all-stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PageAnswer {
    pub result: u64,
    pub events: u64,
    /// Of their data and metadata.
    pub payload_bytes: u64,
    /// Where the next page begins: an event number and nothing, or commit and prepare position.
    pub next: (i64, i64),
    /// The stream's last event number.
    pub last: i64,
    pub end_of_stream: bool,
}

/// An event that a subscription brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Appeared<'a> {
    pub stream: &'a [u8],
    pub number: i64,
    pub id: &'a [u8],
    pub payload_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NotHandled<'a> {
    pub reason: u64,
    /// With "not the leader": the leader's address and TCP port.
    pub leader: Option<(&'a [u8], u64)>,
}

impl NotHandled<'_> {
    pub(crate) const TOO_BUSY: u64 = 1;
}

impl WriteAnswer {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(payload);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => answer.result = value.number,
                3 => answer.first = value.number.cast_signed(),
                4 => answer.last = value.number.cast_signed(),
                7 => answer.current = value.number.cast_signed(),
                _ => {}
            }
        }
        Ok(answer)
    }
}

impl PageAnswer {
    /// ReadStreamEventsCompleted.
    pub(crate) fn of_stream(payload: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(payload);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => answer.count(value.bytes)?,
                2 => answer.result = value.number,
                3 => answer.next.0 = value.number.cast_signed(),
                4 => answer.last = value.number.cast_signed(),
                5 => answer.end_of_stream = value.number != 0,
                _ => {}
            }
        }
        Ok(answer)
    }

    /// ReadAllEventsCompleted, whose results other than success have other numbers than those of a stream's page.
    pub(crate) fn of_all(payload: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(payload);
        while let Some((number, value)) = fields.next()? {
            match number {
                3 => answer.count(value.bytes)?,
                4 => answer.next.0 = value.number.cast_signed(),
                5 => answer.next.1 = value.number.cast_signed(),
                6 => answer.result = value.number,
                _ => {}
            }
        }
        answer.end_of_stream = answer.events == 0;
        Ok(answer)
    }

    fn count(&mut self, event: &[u8]) -> Result<(), Malformed> {
        self.events += 1;
        self.payload_bytes += record(event)?.payload_bytes;
        Ok(())
    }
}

impl<'a> Appeared<'a> {
    /// StreamEventAppeared.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(payload);
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                return record(value.bytes);
            }
        }
        Err(Malformed("an event that appeared and is not there"))
    }
}

impl<'a> NotHandled<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        let mut fields = Fields(payload);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => answer.reason = value.number,
                2 => answer.leader = leader(value.bytes)?,
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn leader(bytes: &[u8]) -> Result<Option<(&[u8], u64)>, Malformed> {
    let (mut address, mut port) = (&[][..], 0);
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => address = value.bytes,
            2 => port = value.number,
            _ => {}
        }
    }
    Ok((port != 0).then_some((address, port)))
}

/// The event in a ResolvedEvent or a ResolvedIndexedEvent.
fn record(resolved: &[u8]) -> Result<Appeared<'_>, Malformed> {
    let mut found = Appeared::default();
    let mut outer = Fields(resolved);
    while let Some((number, value)) = outer.next()? {
        if number != 1 {
            continue;
        }
        let mut fields = Fields(value.bytes);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => found.stream = value.bytes,
                2 => found.number = value.number.cast_signed(),
                3 => found.id = value.bytes,
                7 | 8 => found.payload_bytes += value.bytes.len() as u64,
                _ => {}
            }
        }
    }
    Ok(found)
}

/// The fields of a protobuf message, one after the other.
struct Fields<'a>(&'a [u8]);

/// One field: `number` of a varint, `bytes` of what has a length; the other one is empty.
#[derive(Clone, Copy)]
struct Value<'a> {
    number: u64,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value { number: self.varint()?, bytes: &[] },
            2 => {
                let length = self.varint()?;
                Value { number: 0, bytes: self.take(length)? }
            }
            1 => Value { number: 0, bytes: self.take(8)? },
            5 => Value { number: 0, bytes: self.take(4)? },
            _ => return Err(Malformed("a field of unknown kind")),
        };
        Ok(Some((tag >> 3, value)))
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed("a field longer than its message"))?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed("a number that does not end"))
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
