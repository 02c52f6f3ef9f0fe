//! What goes to a follower from chunk files, checked record by record before it leaves.
//!
//! Promises: the last byte of a record is sent only when the whole record checked out, so a follower never completes a bad
//! one. Where one is damaged the follower waits, and the piece is read again until it was repaired. Leaves to others: the
//! repair, and what is sent from the log buffer, which was never on the disk.

use std::time::Duration;

use crate::codec::record::{Header, RecordError};
use crate::engine::SendPlan;
use crate::limits::{RECORD_HEADER_BYTES, SEND_MAX_BYTES};
use crate::storage::ChunkLayout;
use crate::types::{LogPosition, Ticks};

/// How long a follower waits before a damaged record is looked at again.
const REPAIR_PAUSE: Duration = Duration::from_millis(100);

/// The records of a byte stream, checked wherever it happens to be cut.
#[derive(Clone, Debug)]
struct RecordCheck {
    /// The next byte.
    position: LogPosition,
    /// Where the record begins that is not complete yet.
    record: LogPosition,
    head: Vec<u8>,
    /// The record's header, the checksum so far, the bytes that are missing.
    open: Option<(Header, u32, usize)>,
}

impl RecordCheck {
    /// Of what begins at `start`, where a record begins.
    fn new(start: LogPosition) -> RecordCheck {
        RecordCheck { position: start, record: start, head: Vec::with_capacity(RECORD_HEADER_BYTES), open: None }
    }

    /// Takes the next bytes of a log that ends at `end`. The error names the record; the check is of no use afterwards.
    fn take(
        &mut self,
        layout: ChunkLayout,
        end: LogPosition,
        mut bytes: &[u8],
    ) -> Result<(), (LogPosition, RecordError)> {
        while !bytes.is_empty() {
            let taken = match &mut self.open {
                None => {
                    let taken = bytes.len().min(RECORD_HEADER_BYTES - self.head.len());
                    self.head.extend_from_slice(&bytes[..taken]);
                    if self.head.len() == RECORD_HEADER_BYTES {
                        // One that claims to be longer than the log would otherwise wait for bytes that never come.
                        let room = layout.room(self.record).min(end.0.saturating_sub(self.record.0));
                        let header =
                            Header::read(&self.head, self.record, room).map_err(|error| (self.record, error))?;
                        let missing = header.length as usize - RECORD_HEADER_BYTES;
                        self.open = Some((header, crc32c::crc32c(&self.head[8..]), missing));
                        self.head.clear();
                    }
                    taken
                }
                Some((_, crc, missing)) => {
                    let taken = bytes.len().min(*missing);
                    *crc = crc32c::crc32c_append(*crc, &bytes[..taken]);
                    *missing -= taken;
                    taken
                }
            };
            bytes = &bytes[taken..];
            self.position = self.position.plus(taken as u64);
            if let Some((header, computed, 0)) = self.open {
                if computed != header.crc {
                    return Err((self.record, RecordError::Checksum { computed, stored: header.crc }));
                }
                self.record = header.end();
                self.open = None;
            }
        }
        Ok(())
    }
}

/// What came of a piece that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is the one to be sent.
    Good,
    /// It lies before that one: read on.
    Before,
    /// A record is damaged: read again after a while.
    Damaged {
        record: LogPosition,
        error: RecordError,
        /// It was not found damaged the last time.
        is_news: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct FileFeed {
    check: RecordCheck,
    /// The piece to be sent, until it was read and is good.
    wanted: Option<SendPlan>,
    paused_until: Option<Ticks>,
    /// The last record that was found damaged.
    damaged: Option<LogPosition>,
}

impl FileFeed {
    /// Of a link that begins at `start`, where a record begins.
    pub(super) fn new(start: LogPosition) -> FileFeed {
        FileFeed { check: RecordCheck::new(start), wanted: None, paused_until: None, damaged: None }
    }

    /// True while the link waits for a repair at `now`; `None` when a piece is to be read again now.
    pub(super) fn is_paused(&mut self, now: Ticks) -> Option<bool> {
        let until = self.paused_until?;
        if now < until {
            return Some(true);
        }
        self.paused_until = None;
        Some(false)
    }

    /// `plan` is to be read. `boundary` gives a place before it in its chunk where a record begins, for a link that was
    /// served from the log buffer meanwhile, so that it is not known how its records lie.
    pub(super) fn want(&mut self, plan: SendPlan, boundary: impl FnOnce() -> LogPosition) {
        if self.check.position != plan.position {
            self.check = RecordCheck::new(boundary());
        }
        self.wanted = Some(plan);
    }

    /// What to read now: the piece, or what lies before it and must be checked with it.
    pub(super) fn next_read(&self) -> (LogPosition, usize) {
        let plan = self.wanted.as_ref().expect("a piece is wanted");
        let at = self.check.position;
        assert!(at <= plan.position, "the check has come to {at}, behind {}", plan.position);
        if at == plan.position {
            return (at, plan.length);
        }
        let length = plan.position.since(at).min(SEND_MAX_BYTES);
        (at, usize::try_from(length).expect("below 4 GiB"))
    }

    /// Checks what [`FileFeed::next_read`] asked for, of a log that ends at `end`.
    pub(super) fn take(&mut self, layout: ChunkLayout, end: LogPosition, bytes: &[u8], now: Ticks) -> Piece {
        let is_wanted = self.wanted.as_ref().is_some_and(|plan| plan.position == self.check.position);
        let boundary = self.check.record;
        match self.check.take(layout, end, bytes) {
            Ok(()) if is_wanted => {
                self.wanted = None;
                Piece::Good
            }
            Ok(()) => Piece::Before,
            Err((record, error)) => {
                self.check = RecordCheck::new(boundary);
                self.paused_until = Some(now.after(REPAIR_PAUSE));
                let is_news = self.damaged.replace(record) != Some(record);
                Piece::Damaged { record, error, is_news }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::record::{RecordKind, seal};
    use crate::types::Term;

    const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
    const NOW: Ticks = Ticks(0);

    /// Records of many lengths, and where they begin.
    fn log() -> (Vec<u8>, Vec<u64>) {
        let (mut log, mut starts) = (Vec::new(), Vec::new());
        for index in 0..40_usize {
            let position = LogPosition(log.len() as u64);
            starts.push(position.0);
            let mut record = vec![9; 32 + index * 8];
            let (term, kind) = (Term(1), RecordKind::Append);
            let header = Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 1, timestamp: 0 };
            seal(&mut record, header);
            log.extend_from_slice(&record);
        }
        (log, starts)
    }

    fn plan(position: usize, length: usize) -> SendPlan {
        SendPlan { position: LogPosition(position as u64), length, from_file: true }
    }

    /// Reads the piece as the log thread does.
    fn feed(files: &mut FileFeed, log: &[u8]) -> Piece {
        loop {
            let (at, length) = files.next_read();
            let at = at.0 as usize;
            match files.take(LAYOUT, LogPosition(log.len() as u64), &log[at..at + length], NOW) {
                Piece::Before => {}
                piece => return piece,
            }
        }
    }

    #[test]
    fn pieces_of_any_length_are_checked_and_no_bad_record_is_completed() {
        let (good, starts) = log();
        for length in [7, 32, 100, 1000] {
            for bit in (0..good.len() * 8).step_by(13) {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let (mut files, mut sent) = (FileFeed::new(LogPosition::ZERO), 0);
                let record = *starts.iter().rfind(|start| **start <= bit as u64 / 8).unwrap();
                let found = loop {
                    files.want(plan(sent, length.min(bad.len() - sent)), || panic!("it goes on where it was"));
                    match feed(&mut files, &bad) {
                        Piece::Good => sent = files.check.position.0 as usize,
                        piece => break piece,
                    }
                };
                assert!(matches!(found, Piece::Damaged { record: at, .. } if at.0 == record), "bit {bit}: {found:?}");
                let end = starts.iter().copied().find(|start| *start > record).unwrap_or(good.len() as u64);
                // Whoever believes a wrong length waits for the end that it claims.
                let end = if (bit as u64 / 8) < record + 4 { good.len() as u64 } else { end };
                assert!((sent as u64) < end, "bit {bit}: sent up to {sent}");
                assert_eq!((files.is_paused(NOW), files.is_paused(NOW.after(REPAIR_PAUSE))), (Some(true), Some(false)));
                let again = feed(&mut files, &bad);
                assert!(matches!(again, Piece::Damaged { is_news: false, .. }), "bit {bit}: {again:?}");
                // Repaired: the very piece that was planned goes out.
                assert_eq!(feed(&mut files, &good), Piece::Good);
                assert_eq!(files.check.position.0 as usize, (sent + length).min(good.len()));
            }
        }
    }

    #[test]
    fn a_link_that_was_served_from_the_buffer_is_checked_from_a_place_where_a_record_begins() {
        let (good, starts) = log();
        let mut files = FileFeed::new(LogPosition::ZERO);
        let middle = starts[20] as usize + 11;
        files.want(plan(middle, 500), || LogPosition(starts[17]));
        assert_eq!(files.next_read(), (LogPosition(starts[17]), middle - starts[17] as usize));
        assert_eq!(feed(&mut files, &good), Piece::Good);
        let mut bad = good;
        bad[starts[20] as usize + 40] ^= 1;
        let mut files = FileFeed::new(LogPosition::ZERO);
        files.want(plan(middle, 500), || LogPosition(starts[17]));
        assert!(matches!(feed(&mut files, &bad), Piece::Damaged { record, .. } if record.0 == starts[20]));
    }
}
