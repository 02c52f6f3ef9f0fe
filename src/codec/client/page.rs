//! Pages of events and single ones, written into the answer while they are found in the log.

use crate::codec::client::command::Command;
use crate::codec::client::event::{ProtocolLevel, Resolved, put_bytes, put_number};
use crate::codec::client::frame::{FrameStart, begin, finish};
use crate::codec::client::messages::{ReadAllResult, ReadEventResult, ReadStreamResult};
use crate::limits::READ_PAGE_BYTES_MAX;
use crate::types::Guid;

/// A place in the whole log as clients know it: compared by commit position, then by prepare position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllPosition {
    /// Where the record lies.
    pub commit: i64,
    /// Where the event's entry lies in it.
    pub prepare: i64,
}

impl AllPosition {
    /// "The end of the log" in a request; "nowhere" in a failed answer.
    pub const END: AllPosition = AllPosition { commit: -1, prepare: -1 };
    /// The start of the log.
    pub const START: AllPosition = AllPosition { commit: 0, prepare: 0 };
}

/// What stands behind the events of a stream page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPageEnd {
    /// Where to read next in the same direction.
    pub next_event_number: i64,
    /// Last event number of the stream.
    pub last_event_number: i64,
    /// Nothing further in this direction now.
    pub is_end_of_stream: bool,
    /// Position of the last visible event; -1 when there is none.
    pub last_commit_position: i64,
}

/// The most room that a page makes for itself when it knows its first event only.
const PAGE_RESERVE_BYTES: usize = 1 << 20;

/// Makes room for a whole page at once, as if all its `events` were like the first one, with a little to spare.
fn reserve(out: &mut Vec<u8>, events: usize, entry_bytes: usize) {
    let bytes = entry_bytes.saturating_mul(events.saturating_add(1));
    out.reserve(bytes.min(PAGE_RESERVE_BYTES));
}

/// An answer to ReadStreamEvents being written.
#[derive(Debug)]
pub struct StreamPage<'a> {
    out: &'a mut Vec<u8>,
    start: FrameStart,
    expected: usize,
}

impl<'a> StreamPage<'a> {
    /// Starts the answer; `command` is one of the two completed commands.
    pub fn begin(out: &'a mut Vec<u8>, command: Command, correlation: Guid) -> StreamPage<'a> {
        let start = begin(out, command, correlation);
        StreamPage { out, start, expected: 0 }
    }

    /// Says how many entries there will be, about: the buffer then grows once.
    pub fn expect(&mut self, entries: usize) {
        self.expected = entries;
    }

    /// Adds an entry, unless the page has some already and would grow beyond its bound: then the page ends here, gives
    /// false, and the reader goes on with another page.
    #[must_use]
    pub fn push(&mut self, entry: Resolved<'_>) -> bool {
        // The numbers of events inside a stream page are the same at both levels.
        let entry = entry.measure(ProtocolLevel::V2);
        if self.expected > 0 {
            reserve(self.out, std::mem::take(&mut self.expected), entry.bytes_max());
        }
        let fits = has_room(self.out, self.start, entry.bytes_max());
        if fits {
            entry.put_indexed(self.out, 1);
        }
        fits
    }

    /// Ends a page that was read.
    pub fn finish(self, level: ProtocolLevel, end: StreamPageEnd) {
        self.end(level, ReadStreamResult::Success, end, "");
    }

    /// Ends an answer that is no page: drops what was added. `error` is empty unless the result is an error.
    pub fn fail(self, level: ProtocolLevel, result: ReadStreamResult, end: StreamPageEnd, error: &str) {
        self.out.truncate(self.start.payload_at());
        self.end(level, result, end, error);
    }

    fn end(self, level: ProtocolLevel, result: ReadStreamResult, end: StreamPageEnd, error: &str) {
        put_number(self.out, 2, i64::from(result as i32));
        put_number(self.out, 3, end.next_event_number);
        put_number(self.out, 4, level.show(end.last_event_number));
        put_number(self.out, 5, i64::from(end.is_end_of_stream));
        put_number(self.out, 6, end.last_commit_position);
        put_bytes(self.out, 7, error.as_bytes());
        finish(self.out, self.start);
    }
}

fn has_room(out: &[u8], start: FrameStart, entry_bytes: usize) -> bool {
    let used = out.len() - start.payload_at();
    used == 0 || used + entry_bytes <= READ_PAGE_BYTES_MAX
}

/// An answer to ReadAllEvents being written.
#[derive(Debug)]
pub struct AllPage<'a> {
    out: &'a mut Vec<u8>,
    start: FrameStart,
    level: ProtocolLevel,
    events_at: usize,
    expected: usize,
}

impl<'a> AllPage<'a> {
    /// Starts the answer; `from` is where the read begins, sentinels replaced.
    pub fn begin(
        out: &'a mut Vec<u8>,
        command: Command,
        correlation: Guid,
        level: ProtocolLevel,
        from: AllPosition,
    ) -> AllPage<'a> {
        let start = begin(out, command, correlation);
        put_number(out, 1, from.commit);
        put_number(out, 2, from.prepare);
        let events_at = out.len();
        AllPage { out, start, level, events_at, expected: 0 }
    }

    /// See [`StreamPage::expect`].
    pub fn expect(&mut self, entries: usize) {
        self.expected = entries;
    }

    /// Adds an entry; see [`StreamPage::push`].
    #[must_use]
    pub fn push(&mut self, entry: Resolved<'_>) -> bool {
        let entry = entry.measure(self.level);
        if self.expected > 0 {
            reserve(self.out, std::mem::take(&mut self.expected), entry.bytes_max());
        }
        let is_first = self.out.len() == self.events_at;
        let fits = is_first || has_room(self.out, self.start, entry.bytes_max());
        if fits {
            entry.put_positioned(self.out, 3);
        }
        fits
    }

    /// Ends a page that was read.
    pub fn finish(self, next: AllPosition) {
        put_number(self.out, 4, next.commit);
        put_number(self.out, 5, next.prepare);
        finish(self.out, self.start);
    }

    /// Ends an answer that is no page: drops what was added. `error` goes with [`ReadAllResult::Error`] only.
    pub fn fail(self, result: ReadAllResult, error: Option<&str>) {
        self.out.truncate(self.events_at);
        put_number(self.out, 4, AllPosition::END.commit);
        put_number(self.out, 5, AllPosition::END.prepare);
        put_number(self.out, 6, i64::from(result as i32));
        if let Some(error) = error {
            put_bytes(self.out, 7, error.as_bytes());
        }
        finish(self.out, self.start);
    }
}

/// Appends the answer to a ReadEvent that found something. An entry with neither event nor link is the empty success of
/// a metadata stream that was never written.
pub fn read_event_succeeded(out: &mut Vec<u8>, correlation: Guid, entry: Resolved<'_>) {
    put_read_event(out, correlation, ReadEventResult::Success, entry, None);
}

/// Appends the answer to a ReadEvent that found nothing. `error` goes with [`ReadEventResult::Error`] only.
pub fn read_event_failed(out: &mut Vec<u8>, correlation: Guid, result: ReadEventResult, error: Option<&str>) {
    put_read_event(out, correlation, result, Resolved { event: None, link: None }, error);
}

fn put_read_event(
    out: &mut Vec<u8>,
    correlation: Guid,
    result: ReadEventResult,
    entry: Resolved<'_>,
    error: Option<&str>,
) {
    let start = begin(out, Command::ReadEventCompleted, correlation);
    put_number(out, 1, i64::from(result as i32));
    entry.measure(ProtocolLevel::V2).put_indexed(out, 2);
    if let Some(error) = error {
        put_bytes(out, 3, error.as_bytes());
    }
    finish(out, start);
}

/// Appends a pushed event.
pub fn stream_event_appeared(out: &mut Vec<u8>, correlation: Guid, level: ProtocolLevel, entry: Resolved<'_>) {
    let start = begin(out, Command::StreamEventAppeared, correlation);
    entry.measure(level).put_positioned(out, 1);
    finish(out, start);
}
