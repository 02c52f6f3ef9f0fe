//! Going through the records of one chunk, piece by piece, with a check of each.
//!
//! For all who read chunks as a whole: recovery, the sealer, the scrubber. Memory is bounded whatever a record claims to
//! be: of its bytes only an epoch or a member list is kept.

use crate::codec::record::{Header, RecordError, RecordKind};
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{LogPosition, Term};

use super::facts::LogFacts;
use super::footer::ChunkFooter;
use super::layout::ChunkLayout;

/// The longest epoch or member list that is read.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// Why a walk came to its end within the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Zeros where the next record would begin.
    Nothing,
    /// A record that does not check out.
    Bad(String),
}

impl Stop {
    /// In words, where there must be a record.
    pub(super) fn reason(self) -> String {
        match self {
            Stop::Nothing => "zeros where a record should begin".to_owned(),
            Stop::Bad(reason) => reason,
        }
    }
}

/// A record whose header is read and whose body is under way.
#[derive(Debug)]
struct Open {
    header: Header,
    crc: u32,
    /// Bytes of the body still to come.
    left: usize,
    /// The body so far, if somebody wants it.
    body: Vec<u8>,
}

/// See the module. Feed it the chunk's log bytes from the first on.
#[derive(Debug)]
pub(super) struct ChunkWalk {
    layout: ChunkLayout,
    /// The end of the last good record.
    end: LogPosition,
    /// The header that is not complete yet.
    head: Vec<u8>,
    open: Option<Open>,
    stopped: Option<Stop>,
    /// Good records so far.
    pub(super) records: u64,
    /// Events in them.
    pub(super) events: u64,
    /// Term of the first.
    pub(super) first_term: Term,
}

impl ChunkWalk {
    /// At the beginning of `chunk`.
    pub(super) fn new(layout: ChunkLayout, chunk: u32) -> ChunkWalk {
        ChunkWalk::from(layout, layout.chunk_start(chunk))
    }

    /// At the record that begins at `position`.
    pub(super) fn from(layout: ChunkLayout, position: LogPosition) -> ChunkWalk {
        ChunkWalk {
            layout,
            end: position,
            head: Vec::with_capacity(RECORD_HEADER_BYTES),
            open: None,
            stopped: None,
            records: 0,
            events: 0,
            first_term: Term::ZERO,
        }
    }

    /// The end of the last good record: where the next one begins, good or not.
    pub(super) fn end(&self) -> LogPosition {
        self.end
    }

    /// Takes the next bytes, and what their records say into `facts`. `Some` at the first that does not check out: the
    /// walk has come to its end then.
    ///
    /// # Panics
    /// When it gets bytes beyond the chunk's end.
    pub(super) fn push(&mut self, mut bytes: &[u8], facts: &mut LogFacts) -> Option<Stop> {
        while !bytes.is_empty() && self.stopped.is_none() {
            let taken = match &mut self.open {
                None => self.push_head(bytes),
                Some(open) => {
                    let taken = open.left.min(bytes.len());
                    open.left -= taken;
                    open.crc = crc32c::crc32c_append(open.crc, &bytes[..taken]);
                    if LogFacts::wants_body(&open.header) {
                        open.body.extend_from_slice(&bytes[..taken]);
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
            if let Some(open) = self.open.take_if(|open| open.left == 0) {
                self.close(&open, facts);
            }
        }
        self.stopped.clone()
    }

    /// What the footer of the chunk says, after all of it was pushed and nothing stopped the walk. `crc` is that of the
    /// chunk's bytes; `facts` are those of this walk alone, begun with no more than the term before.
    pub(super) fn footer(&self, chunk: u32, crc: u32, facts: &LogFacts) -> ChunkFooter {
        let start = self.layout.chunk_start(chunk);
        assert_eq!(self.end, self.layout.chunk_start(chunk + 1), "the whole chunk {chunk} is walked");
        ChunkFooter {
            chunk,
            layout: self.layout,
            crc,
            records: self.records,
            events: self.events,
            first_term: self.first_term,
            last_term: facts.term,
            epochs: facts.epochs.clone(),
            has_more_epochs: false,
            membership: facts.membership.as_ref().map(|(position, _)| *position).filter(|&position| position >= start),
        }
    }

    fn push_head(&mut self, bytes: &[u8]) -> usize {
        let room = self.layout.room(self.end);
        let wanted = RECORD_HEADER_BYTES.min(usize::try_from(room).unwrap_or(RECORD_HEADER_BYTES));
        let taken = (wanted - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..taken]);
        if self.head.len() < wanted {
            return taken;
        }
        if wanted < RECORD_HEADER_BYTES && self.head.iter().all(|&byte| byte == 0) {
            // No record fits any more: the log ends here as it would anywhere else.
            self.stopped = Some(Stop::Nothing);
            return taken;
        }
        match Header::read(&self.head, self.end, room) {
            Ok(header) => {
                let crc = crc32c::crc32c(&self.head[8..]);
                let left = header.length as usize - RECORD_HEADER_BYTES;
                if LogFacts::wants_body(&header) && left > CONTROL_BYTES_MAX {
                    let reason = format!("an epoch or member list of {left} bytes, the limit is {CONTROL_BYTES_MAX}");
                    self.stopped = Some(Stop::Bad(reason));
                }
                self.open = Some(Open { header, crc, left, body: Vec::new() });
            }
            Err(RecordError::Empty) => self.stopped = Some(Stop::Nothing),
            Err(error) => self.stopped = Some(Stop::Bad(error.to_string())),
        }
        self.head.clear();
        taken
    }

    /// The record is whole.
    fn close(&mut self, open: &Open, facts: &mut LogFacts) {
        let (computed, stored) = (open.crc, open.header.crc);
        if computed != stored {
            self.stopped = Some(Stop::Bad(RecordError::Checksum { computed, stored }.to_string()));
            return;
        }
        if let Err(reason) = facts.take(&open.header, &open.body) {
            self.stopped = Some(Stop::Bad(reason));
            return;
        }
        if self.records == 0 {
            self.first_term = open.header.term;
        }
        self.records += 1;
        self.events += if open.header.kind == RecordKind::Padding { 0 } else { u64::from(open.header.event_count) };
        self.end = open.header.end();
    }
}
