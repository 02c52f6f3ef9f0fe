//! Records and what is in them.

use ringstore::codec::record::{
    BatchBuilder, BatchView, EVENT_HEADER_BYTES, EpochBody, Header, MemberRecord, MembershipBody, RecordKind,
    RecordView, seal, sealed_length,
};
use ringstore::limits::RECORD_HEADER_BYTES;
use ringstore::types::{ClusterId, EventId, EventNumber, Guid, LogPosition, NodeId, Term};

const POSITION: LogPosition = LogPosition(4096);
const ROOM: u64 = 1 << 20;

/// The first byte says what of the record is mended: 1 its length, 2 its place, 4 its checksum.
pub(super) fn records(input: &[u8]) {
    let Some((&mend, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    mend_record(&mut bytes, POSITION, mend);
    let trusted = RecordView::trust(&bytes, POSITION, ROOM);
    if let Ok(record) = &trusted {
        check_body(record);
    }
    let Ok(record) = RecordView::check(&bytes, POSITION, ROOM) else { return };
    assert_eq!(trusted.map(|record| record.header), Ok(record.header));
    // What checks out encodes back to the same bytes.
    let mut again = record.bytes().to_vec();
    seal(&mut again, record.header);
    assert_eq!(again, record.bytes());
}

/// Makes the bytes at `position` more of a record: 1 in `mend` stands for its length, 2 for its place, 4 for its
/// checksum.
pub(super) fn mend_record(bytes: &mut [u8], position: LogPosition, mend: u8) {
    if bytes.len() < RECORD_HEADER_BYTES {
        return;
    }
    if mend & 1 != 0 {
        let length = (bytes.len() as u32) & !7;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
    }
    if mend & 2 != 0 {
        bytes[8..16].copy_from_slice(&position.0.to_le_bytes());
    }
    let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    if mend & 4 != 0
        && let Some(covered) = bytes.get(8..length)
    {
        let crc = crc32c::crc32c(covered);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

fn check_body(record: &RecordView<'_>) {
    let body = record.body();
    if let Some(epoch) = EpochBody::decode(body) {
        assert_eq!(epoch.encode(), body[..40]);
    }
    if let Some(list) = MembershipBody::decode(body) {
        assert_eq!(MembershipBody::decode(&list.encode()), Some(list));
    }
    if let Some(batch) = BatchView::read(record) {
        check_batch(record, &batch);
    }
}

fn check_batch(record: &RecordView<'_>, batch: &BatchView<'_>) {
    let body = record.body();
    assert_eq!(BatchView::stream_of(body), Some(batch.stream()));
    let events: Vec<_> = batch.events().collect();
    let slow = slow_events(body, batch.event_count());
    let read: Vec<_> = events.iter().map(|event| (event.id, event.event_type, event.data, event.metadata)).collect();
    assert_eq!(read, slow, "as a parser without tricks reads them");
    let entries: Vec<_> = batch.entries().collect();
    assert!(entries.len() >= events.len());
    let ids: Vec<EventId> = BatchView::ids_of(body).take(events.len()).collect();
    let first = batch.first_event_number();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(entries[index], (event.prepare_position, event.id));
        assert_eq!(ids[index], event.id);
        let number = EventNumber(first.saturating_add(index as i64));
        assert_eq!(batch.event_at(event.prepare_position, number), Some(*event));
        assert!(event.commit_position == POSITION && event.prepare_position < record.header.end());
        let entry = &record.bytes()[event.prepare_position.since(POSITION) as usize..];
        let _ = BatchView::record_of(entry, event.prepare_position);
    }
    build_again(batch, &events);
}

/// What was read can be written, and is the same when it is read again.
fn build_again(batch: &BatchView<'_>, events: &[ringstore::codec::record::EventView<'_>]) {
    let mut builder = BatchBuilder::new(batch.stream(), 0);
    events
        .iter()
        .for_each(|event| builder.event(event.id, event.event_type, event.is_json, event.data, event.metadata));
    let (count, body) = (builder.event_count(), builder.finish());
    let again = BatchView::of_body(&body, count).expect("a body that was built just now");
    assert_eq!(again.stream(), batch.stream());
    let content = |e: &ringstore::codec::record::EventView<'_>| {
        (e.id, e.is_json, e.event_type.len(), e.data.len(), e.metadata.len())
    };
    assert!(again.events().map(|event| content(&event)).eq(events.iter().map(content)));
}

type SlowEvent<'a> = (EventId, &'a str, &'a [u8], &'a [u8]);

/// The events of a body by the description of the format, up to the first that is none.
fn slow_events(body: &[u8], count: u16) -> Vec<SlowEvent<'_>> {
    let number = |at: usize, bytes: usize| {
        let mut number = 0;
        for (index, byte) in body[at..at + bytes].iter().enumerate() {
            number |= usize::from(*byte) << (8 * index);
        }
        number
    };
    let mut at = 16 + number(0, 2);
    at += (8 - at % 8) % 8;
    let mut events = Vec::new();
    for _ in 0..count {
        if at + 4 > body.len() || number(at, 4) < EVENT_HEADER_BYTES || at + number(at, 4) > body.len() {
            break;
        }
        let (end, type_at) = (at + number(at, 4), at + EVENT_HEADER_BYTES);
        let data_at = type_at + number(at + 24, 2);
        let metadata_at = data_at + number(at + 28, 4);
        let metadata_end = metadata_at + number(at + 32, 4);
        if metadata_end > end {
            break;
        }
        let Ok(event_type) = std::str::from_utf8(&body[type_at..data_at]) else { break };
        let id = EventId(Guid(body[at + 8..at + 24].try_into().expect("sixteen bytes")));
        events.push((id, event_type, &body[data_at..metadata_at], &body[metadata_at..metadata_end]));
        at = end;
    }
    events
}

/// A whole record.
pub(super) fn record(position: LogPosition, term: u32, kind: RecordKind, event_count: u16, body: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; sealed_length(body.len())];
    buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
    let term = Term(term);
    seal(&mut buffer, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 5 });
    buffer
}

/// The bodies of one record of each sort: kind, events, body.
pub(super) fn sample_bodies() -> Vec<(RecordKind, u16, Vec<u8>)> {
    let epoch = EpochBody { epoch_id: Guid([7; 16]), leader: NodeId(Guid([1; 16])), previous: None };
    let member = MemberRecord {
        node: NodeId(Guid([1; 16])),
        int_ip: std::net::IpAddr::from([10, 0, 0, 1]),
        int_tcp_port: 1112,
        int_http_port: 2112,
    };
    let members = (1..=2).map(|n| MemberRecord { node: NodeId(Guid([n; 16])), ..member }).collect();
    let list = MembershipBody { cluster: ClusterId(Guid([9; 16])), members };
    let mut batch = BatchBuilder::new("orders-1", 0);
    batch.event(EventId(Guid([1; 16])), "created", true, b"{}", b"");
    batch.event(EventId(Guid([2; 16])), "x", false, b"0123456789", b"meta");
    let start = BatchBuilder::new("orders-2", 0).finish();
    vec![
        (RecordKind::Epoch, 0, epoch.encode()),
        (RecordKind::Membership, 0, list.encode()),
        (RecordKind::Append, 2, batch.finish()),
        (RecordKind::TransactionStart, 0, start),
    ]
}

pub(super) fn records_seeds() -> Vec<Vec<u8>> {
    let whole =
        |(kind, count, body): (RecordKind, u16, Vec<u8>)| [&[7], &record(POSITION, 3, kind, count, &body)[..]].concat();
    sample_bodies().into_iter().map(whole).collect()
}
