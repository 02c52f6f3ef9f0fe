//! The body of records that carry events: one stream, one first event number, then the events.

use crate::limits::{EVENTS_PER_APPEND_MAX, NAME_MAX_BYTES, RECORD_ALIGNMENT, RECORD_HEADER_BYTES};
use crate::types::{EventId, EventNumber, Guid, LogPosition};

use super::header::RecordView;

/// Before the stream's name in the body: lengths and the first event number.
const BATCH_HEADER_BYTES: usize = 16;

/// Before an event's type in its entry.
pub const EVENT_HEADER_BYTES: usize = 36;

const FLAG_JSON: u8 = 1;

/// Writes the body of an append. The first event number is filled in later, by the log thread.
#[derive(Debug)]
pub struct BatchBuilder {
    body: Vec<u8>,
    event_count: u16,
}

impl BatchBuilder {
    /// Starts the body for `stream`, with room for about `capacity` bytes.
    ///
    /// # Panics
    /// When the name is longer than its limit; callers have checked it.
    #[must_use]
    pub fn new(stream: &str, capacity: usize) -> BatchBuilder {
        BatchBuilder::within(Vec::new(), stream, capacity)
    }

    /// Like [`BatchBuilder::new`], in the memory of `body`, whose contents are forgotten.
    ///
    /// # Panics
    /// See [`BatchBuilder::new`].
    #[must_use]
    pub fn within(mut body: Vec<u8>, stream: &str, capacity: usize) -> BatchBuilder {
        assert!(stream.len() <= NAME_MAX_BYTES, "stream name of {} bytes", stream.len());
        body.clear();
        body.reserve(capacity + BATCH_HEADER_BYTES + stream.len() + RECORD_ALIGNMENT);
        body.extend_from_slice(&(stream.len() as u16).to_le_bytes());
        body.extend_from_slice(&[0; BATCH_HEADER_BYTES - 2]);
        body.extend_from_slice(stream.as_bytes());
        body.resize(body.len().next_multiple_of(RECORD_ALIGNMENT), 0);
        BatchBuilder { body, event_count: 0 }
    }

    /// Adds one event.
    ///
    /// # Panics
    /// When a length or the count passes its limit; callers have checked them.
    pub fn event(&mut self, id: EventId, event_type: &str, is_json: bool, data: &[u8], metadata: &[u8]) {
        assert!(event_type.len() <= NAME_MAX_BYTES, "event type of {} bytes", event_type.len());
        assert!(usize::from(self.event_count) < EVENTS_PER_APPEND_MAX, "too many events");
        let start = self.body.len();
        let used = EVENT_HEADER_BYTES + event_type.len() + data.len() + metadata.len();
        let size = used.next_multiple_of(RECORD_ALIGNMENT);
        let back = u32::try_from(RECORD_HEADER_BYTES + start).expect("a record is below 4 GiB");
        self.body.reserve(size);
        let mut header = [0; EVENT_HEADER_BYTES];
        header[..4].copy_from_slice(&u32::try_from(size).expect("an event is below 4 GiB").to_le_bytes());
        header[4..8].copy_from_slice(&back.to_le_bytes());
        header[8..24].copy_from_slice(&id.0.0);
        header[24..26].copy_from_slice(&(event_type.len() as u16).to_le_bytes());
        header[26] = if is_json { FLAG_JSON } else { 0 };
        header[28..32].copy_from_slice(&(data.len() as u32).to_le_bytes());
        header[32..36].copy_from_slice(&(metadata.len() as u32).to_le_bytes());
        self.body.extend_from_slice(&header);
        self.body.extend_from_slice(event_type.as_bytes());
        self.body.extend_from_slice(data);
        self.body.extend_from_slice(metadata);
        self.body.resize(start + size, 0);
        self.event_count += 1;
    }

    /// The number of events so far.
    #[must_use]
    pub fn event_count(&self) -> u16 {
        self.event_count
    }

    /// The finished body.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.body
    }
}

/// Reads a body that [`BatchBuilder`] wrote. The record's checksum was checked, so lengths are trusted but still
/// bounded: a wrong one gives `None`, never a panic.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    body: &'a [u8],
    record_position: LogPosition,
    event_count: u16,
    timestamp: i64,
    stream: &'a str,
    first_event_number: i64,
}

impl<'a> BatchView<'a> {
    /// The batch in `record`; `None` when the body is not one.
    #[must_use]
    pub fn read(record: &RecordView<'a>) -> Option<BatchView<'a>> {
        let (stream, first_event_number) = BatchView::head(record.body())?;
        Some(BatchView {
            body: record.body(),
            record_position: record.header.position,
            event_count: record.header.event_count,
            timestamp: record.header.timestamp,
            stream,
            first_event_number,
        })
    }

    /// The batch in a body of `event_count` events that is not part of a record yet: positions and time are zero.
    #[must_use]
    pub fn of_body(body: &'a [u8], event_count: u16) -> Option<BatchView<'a>> {
        let (stream, first_event_number) = BatchView::head(body)?;
        let record_position = LogPosition::ZERO;
        Some(BatchView { body, record_position, event_count, timestamp: 0, stream, first_event_number })
    }

    fn head(body: &'a [u8]) -> Option<(&'a str, i64)> {
        let head = body.get(..BATCH_HEADER_BYTES)?;
        let name_length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let stream = std::str::from_utf8(body.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + name_length)?).ok()?;
        Some((stream, i64::from_le_bytes(head[8..16].try_into().ok()?)))
    }

    /// The stream named in a body that is not part of a record yet.
    #[must_use]
    pub fn stream_of(body: &'a [u8]) -> Option<&'a str> {
        BatchView::head(body).map(|(stream, _)| stream)
    }

    /// The event entries in a body that is not part of a record yet, in order: where each begins, and its identifier.
    pub fn entries_of(body: &'a [u8]) -> impl Iterator<Item = (usize, EventId)> + 'a {
        let name_length = body.first_chunk().map_or(body.len(), |length| usize::from(u16::from_le_bytes(*length)));
        let at = first_entry_offset(name_length);
        std::iter::successors(Some(at), move |&at| Some(at + entry_size(body, at)?))
            .map_while(move |at| Some((at, EventId(Guid(body.get(at + 8..at + 24)?.try_into().ok()?)))))
    }

    /// The event identifiers in a body that is not part of a record yet, in order.
    pub fn ids_of(body: &'a [u8]) -> impl Iterator<Item = EventId> + 'a {
        BatchView::entries_of(body).map(|(_, id)| id)
    }

    /// Fills in the number of the first event.
    pub fn set_first_event_number(body: &mut [u8], number: i64) {
        body[8..16].copy_from_slice(&number.to_le_bytes());
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(&self) -> &'a str {
        self.stream
    }

    /// The number of the first event; see [`RecordKind`](super::RecordKind) for what transactions keep here.
    #[must_use]
    pub fn first_event_number(&self) -> i64 {
        self.first_event_number
    }

    /// How many events.
    #[must_use]
    pub fn event_count(&self) -> u16 {
        self.event_count
    }

    /// Where the record lies: the commit position of its events.
    #[must_use]
    pub fn record_position(&self) -> LogPosition {
        self.record_position
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events { batch: *self, at: events_offset(self.stream), index: 0 }
    }

    /// Prepare position and identifier of the events, in order, for whom the rest of them does not matter. Ends early
    /// where an entry is not one.
    pub fn entries(&self) -> impl Iterator<Item = (LogPosition, EventId)> + 'a {
        let (body, record) = (self.body, self.record_position);
        let mut at = events_offset(self.stream);
        (0..self.event_count).map_while(move |_| {
            let entry = body.get(at..)?;
            let (size, head) = (entry_size(entry, 0)?, entry.first_chunk::<EVENT_HEADER_BYTES>()?);
            let position = record.plus((RECORD_HEADER_BYTES + at) as u64);
            at += size;
            (size <= entry.len()).then_some((position, EventId(Guid(head[8..24].try_into().ok()?))))
        })
    }

    /// The event whose entry begins at `prepare_position`, with its number.
    #[must_use]
    pub fn event_at(&self, prepare_position: LogPosition, number: EventNumber) -> Option<EventView<'a>> {
        let offset = prepare_position.0.checked_sub(self.record_position.0)? as usize;
        self.entry(offset.checked_sub(RECORD_HEADER_BYTES)?, number.0)
    }

    fn entry(&self, at: usize, event_number: i64) -> Option<EventView<'a>> {
        let entry = self.body.get(at..at + entry_size(self.body, at)?)?;
        let type_length = usize::from(u16::from_le_bytes([entry[24], entry[25]]));
        let data_length = u32::from_le_bytes(entry[28..32].try_into().ok()?) as usize;
        let metadata_length = u32::from_le_bytes(entry[32..36].try_into().ok()?) as usize;
        let (event_type, rest) = entry[EVENT_HEADER_BYTES..].split_at_checked(type_length)?;
        let (data, rest) = rest.split_at_checked(data_length)?;
        Some(EventView {
            stream: self.stream,
            event_number: EventNumber(event_number),
            id: EventId(Guid(entry[8..24].try_into().ok()?)),
            event_type: std::str::from_utf8(event_type).ok()?,
            is_json: entry[26] & FLAG_JSON != 0,
            data,
            metadata: rest.get(..metadata_length)?,
            timestamp: self.timestamp,
            commit_position: self.record_position,
            prepare_position: self.record_position.plus((RECORD_HEADER_BYTES + at) as u64),
        })
    }

    /// The record position of the event entry that starts `entry_bytes` (at least 8 bytes) at `prepare_position`:
    /// every entry says how far back its record begins.
    #[must_use]
    pub fn record_of(entry_bytes: &[u8], prepare_position: LogPosition) -> Option<LogPosition> {
        let back = u32::from_le_bytes(entry_bytes.get(4..8)?.try_into().ok()?);
        Some(LogPosition(prepare_position.0.checked_sub(u64::from(back))?))
    }
}

fn events_offset(stream: &str) -> usize {
    first_entry_offset(stream.len())
}

fn first_entry_offset(name_length: usize) -> usize {
    (BATCH_HEADER_BYTES + name_length).next_multiple_of(RECORD_ALIGNMENT)
}

fn entry_size(body: &[u8], at: usize) -> Option<usize> {
    let size = u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?) as usize;
    (size >= EVENT_HEADER_BYTES).then_some(size)
}

/// The events of a batch, in order. Ends early where an entry is not one.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    batch: BatchView<'a>,
    at: usize,
    index: u16,
}

impl<'a> Iterator for Events<'a> {
    type Item = EventView<'a>;

    fn next(&mut self) -> Option<EventView<'a>> {
        if self.index >= self.batch.event_count {
            return None;
        }
        // A tombstone's number is the highest there is, and it stands alone.
        let number = self.batch.first_event_number.saturating_add(i64::from(self.index));
        let event = self.batch.entry(self.at, number)?;
        self.at += entry_size(self.batch.body, self.at)?;
        self.index += 1;
        Some(event)
    }
}

/// One event where it lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// Its number in the stream.
    pub event_number: EventNumber,
    /// Its identifier.
    pub id: EventId,
    /// Its type.
    pub event_type: &'a str,
    /// The writer's mark that the data is JSON.
    pub is_json: bool,
    /// Its data.
    pub data: &'a [u8],
    /// Its metadata; empty when there is none.
    pub metadata: &'a [u8],
    /// When it was written: 100 ns ticks since 0001-01-01 UTC.
    pub timestamp: i64,
    /// The position of its record.
    pub commit_position: LogPosition,
    /// The position of its entry inside the record.
    pub prepare_position: LogPosition,
}

#[cfg(test)]
mod tests {
    use super::super::header::{Header, RecordKind, seal, sealed_length};
    use super::*;
    use crate::types::Term;

    fn record(events: &[(&str, &[u8], &[u8])]) -> Vec<u8> {
        let mut builder = BatchBuilder::new("orders-1", 0);
        for (index, (event_type, data, metadata)) in events.iter().enumerate() {
            builder.event(EventId(Guid([index as u8 + 1; 16])), event_type, index == 0, data, metadata);
        }
        let event_count = builder.event_count();
        let mut body = builder.finish();
        BatchView::set_first_event_number(&mut body, 7);
        let mut buffer = vec![0; sealed_length(body.len())];
        buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
        let kind = RecordKind::Append;
        let (position, term) = (LogPosition(64), Term(1));
        seal(&mut buffer, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 5 });
        buffer
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = record(&[("created", b"{}", b""), ("", b"", b"meta"), ("x", b"0123456789", b"")]);
        let view = RecordView::check(&bytes, LogPosition(64), 1 << 20).unwrap();
        let batch = BatchView::read(&view).unwrap();
        assert_eq!((batch.stream(), batch.first_event_number(), batch.event_count()), ("orders-1", 7, 3));
        let events: Vec<_> = batch.events().collect();
        assert_eq!(events.iter().map(|event| event.event_number.0).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!((events[0].event_type, events[0].is_json, events[0].data), ("created", true, &b"{}"[..]));
        assert_eq!((events[1].event_type, events[1].is_json, events[1].metadata), ("", false, &b"meta"[..]));
        assert_eq!(batch.event_at(events[2].prepare_position, EventNumber(9)), Some(events[2]));
        for event in &events {
            let at = (event.prepare_position.0 - 64) as usize;
            assert_eq!(BatchView::record_of(&bytes[at..], event.prepare_position), Some(LogPosition(64)));
        }
        let entries: Vec<_> = batch.entries().collect();
        assert_eq!(entries, events.iter().map(|event| (event.prepare_position, event.id)).collect::<Vec<_>>());
        let ids: Vec<_> = BatchView::ids_of(view.body()).take(3).collect();
        assert_eq!(ids, events.iter().map(|event| event.id).collect::<Vec<_>>());
        let body = BatchView::of_body(view.body(), 3).unwrap();
        assert!(body.events().map(|event| event.data).eq(events.iter().map(|event| event.data)));
    }

    #[test]
    fn memory_used_before_leaves_no_trace() {
        let build = |body| {
            let mut builder = BatchBuilder::within(body, "orders", 10);
            builder.event(EventId(Guid([1; 16])), "created", false, b"data", b"");
            builder.finish()
        };
        let used = build(vec![0xFF; 300]);
        assert_eq!((&used, used.capacity()), (&build(Vec::new()), 300));
    }

    #[test]
    fn a_body_of_garbage_gives_none_and_no_panic() {
        let bytes = record(&[("created", b"{}", b"")]);
        for at in RECORD_HEADER_BYTES..bytes.len() {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut bad = bytes.clone();
                bad[at] = value;
                let view = RecordView::trust(&bad, LogPosition(64), 1 << 20).unwrap();
                if let Some(batch) = BatchView::read(&view) {
                    assert!(batch.events().count() <= 1 && batch.entries().count() <= 1);
                }
                assert!(BatchView::ids_of(view.body()).count() <= 2);
            }
        }
    }
}
