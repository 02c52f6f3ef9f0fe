//! The tail of the log on its way to the disk: what is written, what is durable, what comes next.
//!
//! Sans-IO: it says which write or flush to submit and is told when that is done. At most one flush is in flight; what
//! is written meanwhile is the next batch. Writes are in flight in log order but may complete in any. One that ends within
//! a page is the last in flight: the shell fills its page with zeros, and they must not come after the next write.

use std::collections::VecDeque;

use crate::limits::DISK_WRITE_MAX_BYTES;
use crate::storage::{ChunkLayout, PAGE_BYTES};
use crate::types::LogPosition;

use super::action::{Action, BufferToken, WriteSource};

/// Writes in flight at most: enough to keep the disk's queue busy, few enough to coalesce.
const WRITES_IN_FLIGHT_MAX: usize = 8;

#[derive(Debug)]
struct InFlight {
    id: u64,
    end: LogPosition,
    /// The last record end that the write, and all before it, cover; zero when that is not known.
    record_end: LogPosition,
    /// The slice that it reads from.
    token: Option<BufferToken>,
    /// The slice is free once this write, and all before it, are done.
    frees: bool,
    /// Part of a cut: it adds nothing to the log.
    erases: bool,
    done: bool,
}

/// Received bytes that wait for their turn, or for their chunk.
#[derive(Debug)]
struct Incoming {
    position: LogPosition,
    length: usize,
    record_end: LogPosition,
    token: BufferToken,
    taken: usize,
}

#[derive(Debug)]
struct FlushInFlight {
    id: u64,
    record_end: LogPosition,
}

/// The steps of cutting the log's tail away. Nothing else is written meanwhile.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Waits until all before it is written, and no write and no flush is in flight.
    Waiting { to: LogPosition },
    /// The durable mark is moved back first, or a crash in the midst of it would look like damage.
    Marking { id: u64 },
    /// Zeros are written over the tail, from `at` on.
    Erasing { at: LogPosition },
    /// The zeros are being flushed.
    Flushing { id: u64 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct LogWriter {
    layout: ChunkLayout,
    /// Bytes in the log buffer end here (a record end); they are written before anything in `incoming`.
    buffered: LogPosition,
    /// Submitted for writing up to here.
    issued: LogPosition,
    incoming: VecDeque<Incoming>,
    in_flight: VecDeque<InFlight>,
    written: LogPosition,
    written_record_end: LogPosition,
    flushed: LogPosition,
    flush: Option<FlushInFlight>,
    cut: Option<Cut>,
    /// A cut further back that was asked for since that one began.
    next_cut: Option<LogPosition>,
    /// The highest byte that was ever submitted: what a cut must erase.
    high_water: LogPosition,
    /// Chunks below this number can be written.
    chunks_ready: u32,
    next_id: u64,
}

impl LogWriter {
    pub(super) fn new(layout: ChunkLayout, end: LogPosition, chunks_ready: u32) -> LogWriter {
        LogWriter {
            layout,
            buffered: end,
            issued: end,
            incoming: VecDeque::new(),
            in_flight: VecDeque::new(),
            written: end,
            written_record_end: end,
            flushed: end,
            flush: None,
            cut: None,
            next_cut: None,
            high_water: end,
            chunks_ready,
            next_id: 0,
        }
    }

    /// In the chunk files, contiguous, at a record end.
    pub(super) fn written_records(&self) -> LogPosition {
        self.written_record_end
    }

    /// Nothing before this is needed in the log buffer for writing.
    pub(super) fn unwritten_from(&self) -> LogPosition {
        self.written
    }

    /// The end of all that was ever submitted, but for zeros.
    pub(super) fn high_water(&self) -> LogPosition {
        self.high_water
    }

    pub(super) fn chunks_ready(&self) -> u32 {
        self.chunks_ready
    }

    pub(super) fn is_cutting(&self) -> bool {
        self.cut.is_some()
    }

    pub(super) fn handle_chunk_ready(&mut self, chunk: u32) {
        self.chunks_ready = self.chunks_ready.max(chunk + 1);
    }

    /// Records in the log buffer end at `end` now.
    pub(super) fn buffered(&mut self, end: LogPosition) {
        assert!(end >= self.buffered, "buffered {} to {end}", self.buffered);
        self.buffered = end;
    }

    /// Bytes arrived from the leader; the last complete record in the log now ends at `record_end`.
    pub(super) fn received(
        &mut self,
        position: LogPosition,
        length: usize,
        record_end: LogPosition,
        token: BufferToken,
    ) {
        self.incoming.push_back(Incoming { position, length, record_end, token, taken: 0 });
    }

    /// The log goes on from `end`: what was received or buffered behind it is dropped, and erased where it was written.
    /// Done when [`LogWriter::is_cutting`] is false again.
    pub(super) fn restart_at(&mut self, end: LogPosition, actions: &mut Vec<Action>) {
        while let Some(last) = self.incoming.back_mut().filter(|last| last.position.plus(last.length as u64) > end) {
            let keep = end.0.saturating_sub(last.position.0) as usize;
            if keep > last.taken {
                last.length = keep;
                break;
            }
            let token = last.token;
            self.incoming.pop_back();
            // The first part of a slice may be on its way to the disk already.
            match self.in_flight.iter_mut().rfind(|write| write.token == Some(token)) {
                Some(write) => write.frees = true,
                None => actions.push(Action::Release(token)),
            }
        }
        match &mut self.cut {
            None if self.high_water > end => self.cut = Some(Cut::Waiting { to: end }),
            None => {}
            // What lies behind the earlier cut is not this log's, though it may go on in the buffer by now.
            Some(Cut::Waiting { to }) => *to = end.min(*to),
            // A cut that has begun is finished first. Nothing is written behind it meanwhile.
            Some(_) if self.issued > end => self.next_cut = Some(self.next_cut.map_or(end, |to| to.min(end))),
            Some(_) => {}
        }
        self.buffered = end;
    }

    pub(super) fn handle_written(&mut self, id: u64, actions: &mut Vec<Action>) {
        let write = self.in_flight.iter_mut().find(|write| write.id == id).expect("a write that was submitted");
        write.done = true;
        while self.in_flight.front().is_some_and(|write| write.done) {
            let write = self.in_flight.pop_front().expect("just seen");
            if let Some(token) = write.token.filter(|_| write.frees) {
                actions.push(Action::Release(token));
            }
            if !write.erases {
                self.written = write.end;
                self.written_record_end = self.written_record_end.max(write.record_end);
            }
        }
    }

    /// A flush is durable. Returns the new durable position at a record end, if it is news.
    pub(super) fn handle_flushed(&mut self, id: u64) -> Option<LogPosition> {
        match self.cut {
            Some(Cut::Marking { id: marking }) if marking == id => {
                self.cut = Some(Cut::Erasing { at: self.issued });
                return None;
            }
            Some(Cut::Flushing { id: flushing }) if flushing == id => {
                self.cut = self.next_cut.take().map(|to| Cut::Waiting { to });
                return None;
            }
            _ => {}
        }
        let flush = self.flush.take().expect("a flush that was submitted");
        assert_eq!(flush.id, id, "one flush in flight");
        // What is about to be cut away does not count as durable.
        let limit = if let Some(Cut::Waiting { to }) = self.cut { to } else { LogPosition(u64::MAX) };
        let position = flush.record_end.min(limit);
        (position > self.flushed).then(|| {
            self.flushed = position;
            position
        })
    }

    /// Submits what can be submitted now.
    pub(super) fn poll(&mut self, actions: &mut Vec<Action>) {
        self.poll_cut(actions);
        let limit = match self.cut {
            None => LogPosition(u64::MAX),
            Some(Cut::Waiting { to }) => to,
            Some(_) => return,
        };
        while self.may_write() && self.issue_write(limit, actions) {}
        if self.cut.is_none() && self.flush.is_none() && self.written_record_end > self.flushed {
            let id = self.id();
            self.flush = Some(FlushInFlight { id, record_end: self.written_record_end });
            self.push_flush(id, self.flushed, self.written, false, actions);
        }
    }

    fn may_write(&self) -> bool {
        self.in_flight.len() < WRITES_IN_FLIGHT_MAX
            && self.in_flight.back().is_none_or(|last| last.done || self.layout.page_rest(last.end) == 0)
    }

    /// Submits the write at `issued`, of bytes below `limit`. False when there is none now.
    fn issue_write(&mut self, limit: LogPosition, actions: &mut Vec<Action>) -> bool {
        if self.issued >= limit || self.layout.chunk_of(self.issued) >= self.chunks_ready {
            return false;
        }
        let room = self.layout.room(self.issued).min(DISK_WRITE_MAX_BYTES);
        let next_received = self.incoming.front().map(|incoming| incoming.position.plus(incoming.taken as u64));
        if next_received == Some(self.issued) {
            self.issue_received(room, actions);
            return true;
        }
        let buffered = self.buffered.min(next_received.unwrap_or(self.buffered));
        if self.issued >= buffered {
            return false;
        }
        let end = self.whole_pages(buffered, buffered.since(self.issued).min(room));
        let length = end.since(self.issued);
        let at_record_end = end == buffered || self.layout.room(end) == self.layout.chunk_size;
        let record_end = if at_record_end { end } else { LogPosition::ZERO };
        self.push_write(length, WriteSource::LogBuffer, record_end, false, actions);
        true
    }

    /// Where a write of `length` bytes, of all those up to `available`, ends: when more come behind it, at a page.
    fn whole_pages(&self, available: LogPosition, length: u64) -> LogPosition {
        let end = self.issued.plus(length);
        let into_page = (PAGE_BYTES - self.layout.page_rest(end)) % PAGE_BYTES;
        if end < available && into_page < length { LogPosition(end.0 - into_page) } else { end }
    }

    fn issue_received(&mut self, room: u64, actions: &mut Vec<Action>) {
        let issued = self.issued;
        let incoming = self.incoming.front_mut().expect("the caller saw it");
        let length = room.min((incoming.length - incoming.taken) as u64);
        let source = WriteSource::Received { token: incoming.token, offset: incoming.taken };
        incoming.taken += length as usize;
        if incoming.taken < incoming.length {
            // Where records end inside a slice that is cut in two is not known; its last part brings it.
            self.push_write(length, source, LogPosition::ZERO, false, actions);
        } else {
            let record_end = incoming.record_end.min(issued.plus(length));
            self.incoming.pop_front();
            self.push_write(length, source, record_end, true, actions);
        }
    }

    fn push_write(
        &mut self,
        length: u64,
        source: WriteSource,
        record_end: LogPosition,
        frees: bool,
        actions: &mut Vec<Action>,
    ) {
        let id = self.id();
        let position = self.issued;
        let end = position.plus(length);
        let token = if let WriteSource::Received { token, .. } = source { Some(token) } else { None };
        self.in_flight.push_back(InFlight { id, end, record_end, token, frees, erases: false, done: false });
        self.issued = end;
        self.high_water = self.high_water.max(end);
        actions.push(Action::Write { id, position, length: length as usize, source });
    }

    fn push_flush(&self, id: u64, from: LogPosition, to: LogPosition, must_mark: bool, actions: &mut Vec<Action>) {
        let last = LogPosition(to.0.saturating_sub(1).max(from.0));
        actions.push(Action::Flush {
            id,
            first_chunk: self.layout.chunk_of(from),
            last_chunk: self.layout.chunk_of(last),
            durable_before: self.flushed,
            must_mark,
        });
    }

    fn poll_cut(&mut self, actions: &mut Vec<Action>) {
        if let Some(Cut::Waiting { to }) = self.cut
            && self.issued >= to
            && self.in_flight.is_empty()
            && self.flush.is_none()
        {
            self.issued = to;
            self.written = to;
            self.written_record_end = to;
            self.flushed = self.flushed.min(to);
            let id = self.id();
            self.push_flush(id, to, to, true, actions);
            self.cut = Some(Cut::Marking { id });
        }
        if let Some(Cut::Erasing { at }) = self.cut {
            let at = self.erase(at, actions);
            self.cut = Some(Cut::Erasing { at });
            if self.in_flight.is_empty() {
                let id = self.id();
                self.push_flush(id, self.issued, self.high_water, true, actions);
                self.high_water = self.issued;
                self.cut = Some(Cut::Flushing { id });
            }
        }
    }

    /// Submits zeros from `at` to the high water, as many as may be in flight. Returns where it got.
    fn erase(&mut self, mut at: LogPosition, actions: &mut Vec<Action>) -> LogPosition {
        while at < self.high_water && self.in_flight.len() < WRITES_IN_FLIGHT_MAX {
            let length = self.high_water.since(at).min(self.layout.room(at)).min(DISK_WRITE_MAX_BYTES);
            let id = self.id();
            let end = at.plus(length);
            let record_end = LogPosition::ZERO;
            self.in_flight.push_back(InFlight {
                id,
                end,
                record_end,
                token: None,
                frees: false,
                erases: true,
                done: false,
            });
            actions.push(Action::Write { id, position: at, length: length as usize, source: WriteSource::Zeros });
            at = end;
        }
        at
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 1000;

    struct Disk {
        writer: LogWriter,
        actions: Vec<Action>,
    }

    impl Disk {
        fn new() -> Disk {
            Disk {
                writer: LogWriter::new(ChunkLayout { chunk_size: CHUNK }, LogPosition::ZERO, 9),
                actions: Vec::new(),
            }
        }

        fn receive(&mut self, position: u64, length: usize, token: u64) {
            let end = LogPosition(position + length as u64);
            self.writer.received(LogPosition(position), length, end, BufferToken(token));
            self.poll();
        }

        fn restart_at(&mut self, end: u64) {
            self.writer.restart_at(LogPosition(end), &mut self.actions);
            self.poll();
        }

        fn poll(&mut self) {
            self.writer.poll(&mut self.actions);
        }

        fn written(&mut self, id: u64) {
            self.writer.handle_written(id, &mut self.actions);
        }

        /// Takes what was asked for: writes as (id, position, length), zeros as (id, position, -length), releases and
        /// flushes by their numbers.
        fn asked(&mut self) -> Vec<(&'static str, u64, u64, i64)> {
            let show = |action| match action {
                Action::Write { id, position, length, source: WriteSource::Zeros } => {
                    ("zeros", id, position.0, length as i64)
                }
                Action::Write { id, position, length, .. } => ("write", id, position.0, length as i64),
                Action::Flush { id, durable_before, .. } => ("flush", id, durable_before.0, 0),
                Action::Release(token) => ("release", token.0, 0, 0),
                other => panic!("{other:?}"),
            };
            self.actions.drain(..).map(show).collect()
        }
    }

    /// A slice across a chunk's end is written in two parts, which may complete in any order.
    #[test]
    fn a_slice_is_released_when_all_its_parts_are_written() {
        let mut disk = Disk::new();
        disk.receive(0, 1200, 7);
        assert_eq!(disk.asked(), [("write", 1, 0, 1000), ("write", 2, 1000, 200)]);
        disk.written(2);
        assert_eq!(disk.asked(), []);
        disk.written(1);
        assert_eq!(disk.asked(), [("release", 7, 0, 0)]);
    }

    /// The rest of a slice is cut off while its first part is on the way to the disk.
    #[test]
    fn a_slice_that_is_cut_is_released_when_its_first_part_is_written() {
        let mut disk = Disk::new();
        disk.writer.chunks_ready = 1;
        disk.receive(0, 1200, 7);
        assert_eq!(disk.asked(), [("write", 1, 0, 1000)]);
        disk.restart_at(600);
        assert_eq!(disk.asked(), []);
        disk.written(1);
        assert_eq!(disk.asked(), [("release", 7, 0, 0)]);
    }

    /// A write that ends within a page brings zeros for the rest of it: the next one must come after them.
    #[test]
    fn a_write_waits_for_the_zeros_before_it() {
        let mut disk = Disk::new();
        disk.writer.layout = ChunkLayout { chunk_size: 1 << 20 };
        disk.receive(0, 8192, 1);
        disk.receive(8192, 100, 2);
        disk.receive(8292, 100, 3);
        assert_eq!(disk.asked(), [("write", 1, 0, 8192), ("write", 2, 8192, 100)], "whole pages hold nobody up");
        disk.written(1);
        disk.poll();
        assert_eq!(disk.asked(), [("release", 1, 0, 0), ("flush", 3, 0, 0)]);
        disk.written(2);
        disk.poll();
        assert_eq!(disk.asked(), [("release", 2, 0, 0), ("write", 4, 8292, 100)]);
    }

    /// A leader that was deposed while it cut its tail is told to cut further back, or elected again meanwhile.
    #[test]
    fn a_cut_that_has_begun_is_finished_before_the_next() {
        for (next, further) in [(200, true), (400, false)] {
            let mut disk = Disk::new();
            disk.receive(0, 800, 7);
            disk.written(1);
            disk.poll();
            assert_eq!(disk.writer.handle_flushed(2), Some(LogPosition(800)));
            disk.asked();
            disk.restart_at(400);
            assert_eq!(disk.asked(), [("flush", 3, 400, 0)]);
            disk.restart_at(next);
            assert_eq!(disk.writer.handle_flushed(3), None);
            disk.poll();
            assert_eq!(disk.asked(), [("zeros", 4, 400, 400)]);
            assert_eq!(disk.writer.high_water(), LogPosition(800), "what is cut is there until it is erased");
            disk.written(4);
            disk.poll();
            assert_eq!(disk.asked(), [("flush", 5, 400, 0)]);
            assert_eq!(disk.writer.handle_flushed(5), None);
            disk.poll();
            assert_eq!(disk.writer.is_cutting(), further);
            let expected: &[_] = if further { &[("flush", 6, 200, 0)] } else { &[] };
            assert_eq!(disk.asked(), expected);
        }
    }

    /// A cut waits for writes under way; the node is elected meanwhile, goes on in its buffer, and is deposed.
    #[test]
    fn a_cut_that_waits_is_never_moved_forward() {
        let mut disk = Disk::new();
        disk.receive(0, 800, 7);
        disk.restart_at(400);
        assert_eq!(disk.writer.high_water(), LogPosition(800), "a cut that waits has erased nothing");
        disk.writer.buffered(LogPosition(480));
        disk.restart_at(480);
        disk.written(1);
        disk.poll();
        assert_eq!(disk.asked(), [("write", 1, 0, 800), ("release", 7, 0, 0), ("flush", 2, 0, 0)]);
        disk.writer.handle_flushed(2);
        disk.poll();
        assert_eq!(disk.asked(), [("zeros", 3, 400, 400)]);
        disk.written(3);
        disk.poll();
        disk.writer.handle_flushed(4);
        disk.poll();
        assert_eq!(disk.asked(), [("flush", 4, 0, 0), ("write", 5, 400, 80), ("flush", 6, 0, 0)]);
    }
}
