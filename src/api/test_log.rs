//! A small log with its index, for the tests of reads and subscriptions.

use std::time::Duration;

use bytes::BytesMut;
use prost::Message;

use crate::api::log_events::{Checks, Reader};
use crate::api::users::{Identity, Users};
use crate::codec::client::frame::take_package;
use crate::codec::client::{Command, CredentialsView};
use crate::codec::record::{BatchBuilder, BatchView, Header, RecordKind, padding, seal, sealed_length};
use crate::index::Index;
use crate::limits::RECORD_HEADER_BYTES;
use crate::storage::ChunkLayout;
use crate::storage::memory::MemoryLog;
use crate::types::{EventId, Guid, LogPosition, Term, metastream_of};

/// Small chunks, so that tests cross from one to the next.
pub(super) const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 16 << 10 };

/// 100 ns ticks in a second.
pub(super) const SECOND: i64 = 10_000_000;

pub(super) struct TestLog {
    pub(super) log: MemoryLog,
    pub(super) end: LogPosition,
    pub(super) index: Index,
    /// Time of the records to come, and of reads.
    pub(super) now: i64,
    pub(super) page_time: Duration,
    pub(super) checks: Checks,
}

impl TestLog {
    pub(super) fn new() -> TestLog {
        TestLog::with_layout(LAYOUT)
    }

    pub(super) fn with_layout(layout: ChunkLayout) -> TestLog {
        let log = MemoryLog { layout, bytes: Vec::new() };
        TestLog {
            log,
            end: LogPosition::ZERO,
            index: Index::new(),
            now: 637_135_310_456_780_000,
            page_time: Duration::MAX,
            checks: Checks::default(),
        }
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            index: &self.index,
            log: &self.log,
            layout: self.log.layout,
            now: self.now,
            page_time: self.page_time,
            checks: &self.checks,
        }
    }

    /// Appends events (type, data) behind the stream's last one.
    pub(super) fn append(&mut self, stream: &str, events: &[(&str, &[u8])]) -> LogPosition {
        let number = self.index.head(stream).unwrap().last_event_number + 1;
        self.batch(RecordKind::Append, stream, number, events)
    }

    /// Appends one event for each text, of type "t".
    pub(super) fn append_texts(&mut self, stream: &str, texts: &[&str]) -> LogPosition {
        let events: Vec<_> = texts.iter().map(|text| ("t", text.as_bytes())).collect();
        self.append(stream, &events)
    }

    pub(super) fn metadata(&mut self, stream: &str, json: &str) -> LogPosition {
        self.append(&metastream_of(stream), &[("$metadata", json.as_bytes())])
    }

    pub(super) fn tombstone(&mut self, stream: &str) -> LogPosition {
        self.batch(RecordKind::Delete, stream, i64::MAX, &[("$streamDeleted", b"")])
    }

    pub(super) fn batch(
        &mut self,
        kind: RecordKind,
        stream: &str,
        number: i64,
        events: &[(&str, &[u8])],
    ) -> LogPosition {
        let mut batch = BatchBuilder::new(stream, 0);
        for (event_type, data) in events {
            batch.event(EventId::random(), event_type, true, data, b"");
        }
        let event_count = batch.event_count();
        let mut body = batch.finish();
        BatchView::set_first_event_number(&mut body, number);
        let position = self.record(kind, event_count, &body);
        self.index.apply_to(&self.log, self.log.layout, self.end).unwrap();
        position
    }

    /// A record that no reader sees.
    pub(super) fn hidden(&mut self) {
        self.record(RecordKind::Epoch, 0, &[7; 40]);
        self.index.apply_to(&self.log, self.log.layout, self.end).unwrap();
    }

    fn record(&mut self, kind: RecordKind, event_count: u16, body: &[u8]) -> LogPosition {
        let mut length = sealed_length(body.len());
        let room = self.log.layout.room(self.end) as usize;
        if length > room {
            let (position, now) = (self.end, self.now);
            padding(self.room(room), position, Term(1), now);
            self.end = self.end.plus(room as u64);
        }
        let room = self.log.layout.room(self.end) as usize;
        if room - length < RECORD_HEADER_BYTES {
            length = room;
        }
        let (position, term, timestamp) = (self.end, Term(1), self.now);
        let buffer = self.room(length);
        buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
        seal(buffer, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp });
        self.end = position.plus(length as u64);
        position
    }

    /// The next `length` bytes, in a log that always reaches to the end of a chunk.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.end.0 as usize;
        let end = self.log.layout.chunk_start(self.log.layout.chunk_of(self.end) + 1);
        self.log.bytes.resize(end.0 as usize, 0);
        &mut self.log.bytes[start..start + length]
    }
}

/// The identity of a built-in user.
pub(super) fn user(login: &str) -> Identity {
    Users::built_in().authenticate(CredentialsView { login: login.as_bytes(), password: b"changeit" }).unwrap()
}

/// The one frame in `out`, with its command and correlation identifier checked.
pub(super) fn answer<M: Message + Default>(command: Command, correlation: Guid, out: &[u8]) -> M {
    let mut buffer = BytesMut::from(out);
    let package = take_package(&mut buffer).unwrap().expect("a whole frame");
    assert!(buffer.is_empty(), "one frame");
    assert_eq!((package.command, package.correlation), (command as u8, correlation));
    M::decode(package.payload).unwrap()
}
