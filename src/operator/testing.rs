//! Logs for the tests of this module, written record by record as a node would.

use std::path::Path;

use crate::codec::record::{
    BatchBuilder, BatchView, EpochBody, Header, MemberRecord, MembershipBody, RecordKind, padding, seal, sealed_length,
};
use crate::limits::RECORD_HEADER_BYTES;
use crate::storage::{ChunkHeader, ChunkLayout, Disk as _, DurableState, FileDisk, FileName};
use crate::types::{ClusterId, EventId, Guid, LogPosition, NodeId, Term};

use super::log_check::LogCheck;

pub(super) const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
pub(super) const CLUSTER: ClusterId = ClusterId(Guid([9; 16]));
pub(super) const NODE: NodeId = NodeId(Guid([1; 16]));

/// A log in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) bytes: Vec<u8>,
    term: u32,
    epoch: Option<LogPosition>,
}

pub(super) fn members() -> MembershipBody {
    let member =
        MemberRecord { node: NODE, int_ip: "127.0.0.1".parse().unwrap(), int_tcp_port: 1112, int_http_port: 2112 };
    MembershipBody { cluster: CLUSTER, members: vec![member] }
}

impl Log {
    pub(super) fn end(&self) -> LogPosition {
        LogPosition(self.bytes.len() as u64)
    }

    /// Appends a record; gives its place.
    pub(super) fn record(&mut self, kind: RecordKind, event_count: u16, body: &[u8]) -> LogPosition {
        let length = sealed_length(body.len());
        let room = LAYOUT.room(self.end());
        if (length as u64) > room {
            let mut pad = vec![0; room as usize];
            padding(&mut pad, self.end(), Term(self.term), 1);
            self.bytes.extend(pad);
        }
        let rest = LAYOUT.room(self.end()) - length as u64;
        let length = if rest < RECORD_HEADER_BYTES as u64 { length + rest as usize } else { length };
        let position = self.end();
        let mut bytes = vec![0; length];
        bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
        let term = Term(self.term);
        seal(&mut bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp: 1 });
        self.bytes.extend(bytes);
        position
    }

    /// A new leader's first record.
    pub(super) fn epoch(&mut self, term: u32) {
        self.term = term;
        let begin = self.end();
        let body = EpochBody { epoch_id: Guid([term as u8; 16]), leader: NODE, previous: self.epoch };
        self.record(RecordKind::Epoch, 0, &body.encode());
        self.epoch = Some(begin);
    }

    /// One append of `count` events of `size` bytes.
    pub(super) fn append(&mut self, stream: &str, first: i64, count: u16, size: usize) -> LogPosition {
        let mut batch = BatchBuilder::new(stream, 0);
        for n in 0..count {
            batch.event(EventId(Guid([n as u8; 16])), "happened", false, &vec![7; size], b"");
        }
        let mut body = batch.finish();
        BatchView::set_first_event_number(&mut body, first);
        self.record(RecordKind::Append, count, &body)
    }

    /// A log of two epochs and some more than two chunks.
    pub(super) fn sample() -> Log {
        let mut log = Log::default();
        log.epoch(1);
        log.record(RecordKind::Membership, 0, &members().encode());
        for n in 0..30 {
            log.append("a", n, 1, 50_000);
            log.append("b", n * 2, 2, 100);
        }
        log.epoch(3);
        for n in 30..45 {
            log.append("a", n, 1, 50_000);
        }
        log
    }

    /// Writes the log as the data directory of a node that was stopped; full chunks are sealed.
    pub(super) fn write(&self, directory: &Path) {
        let disk = FileDisk::open(directory).unwrap();
        let mut state = DurableState::new(NODE, LAYOUT.chunk_size);
        (state.founding, state.founded, state.commit_hint) = (Some(members()), true, self.end());
        (state.term, state.sequence) = (Term(self.term), 1);
        state.create(&disk).unwrap();
        let mut check = LogCheck::new(LAYOUT, false);
        for (chunk, bytes) in (0..).zip(self.bytes.chunks(LAYOUT.chunk_size as usize)) {
            let header = ChunkHeader { chunk, layout: LAYOUT }.encode();
            disk.create(FileName::Chunk(chunk), &header, LAYOUT.file_length()).unwrap();
            disk.write_at(FileName::Chunk(chunk), LAYOUT.file_offset(LAYOUT.chunk_start(chunk)), bytes).unwrap();
            assert_eq!(check.take(bytes), (bytes.len(), None));
            let found = check.end_chunk();
            if bytes.len() as u64 == LAYOUT.chunk_size {
                let page = found.footer(chunk, LAYOUT).encode();
                disk.write_at(FileName::Chunk(chunk), LAYOUT.footer_offset(), &page).unwrap();
            }
        }
    }
}
