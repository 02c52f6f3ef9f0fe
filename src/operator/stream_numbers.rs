//! Do event numbers go on without a gap in each stream? Remembers one number for each stream, about 50 bytes; the name is
//! kept as a hash of 128 bits, so that long names cost nothing and two streams are not taken for one.

use std::hash::BuildHasher as _;

use foldhash::HashMap;
use foldhash::fast::FixedState;

use crate::codec::record::{Header, RecordKind};

/// The number of a tombstone.
const DELETED: i64 = i64::MAX;

/// The last event number of every stream.
#[derive(Debug, Default)]
pub(super) struct StreamNumbers {
    last: HashMap<u128, i64>,
    /// Something of the log was not seen: then numbers must ascend, and more cannot be said.
    is_unsure: bool,
}

impl StreamNumbers {
    pub(super) fn count(&self) -> usize {
        self.last.len()
    }

    /// A part of the log could not be read.
    pub(super) fn lose_track(&mut self) {
        self.is_unsure = true;
    }

    /// Takes an append or a delete; the error says what does not fit, and the walk goes on from what was found.
    pub(super) fn take(&mut self, stream: &str, first: i64, header: Header) -> Result<(), String> {
        let last = self.last.get(&key(stream)).copied();
        let is_delete = header.kind == RecordKind::Delete;
        let next = if is_delete { DELETED } else { first.saturating_add(i64::from(header.event_count) - 1) };
        self.last.insert(key(stream), next);
        let expected = last.map_or(0, |last| last.saturating_add(1));
        let name = shown(stream);
        if last == Some(DELETED) {
            return Err(format!("stream {name} goes on behind its deletion"));
        }
        if is_delete {
            let is_last = first == DELETED;
            return if is_last { Ok(()) } else { Err(format!("the deletion of stream {name} has the number {first}")) };
        }
        match first == expected || (self.is_unsure && first > expected) {
            true => Ok(()),
            false => Err(format!("stream {name} goes on with event {first}, event {expected} was next")),
        }
    }
}

fn key(stream: &str) -> u128 {
    let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(stream));
    half(0x5EED_0001) << 64 | half(0x5EED_0002)
}

/// A name for a message.
fn shown(stream: &str) -> String {
    const CHARS_MAX: usize = 100;
    let more = if stream.chars().count() > CHARS_MAX { "…" } else { "" };
    format!("\"{}{more}\"", stream.chars().take(CHARS_MAX).collect::<String>().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LogPosition, Term};

    fn header(kind: RecordKind, event_count: u16) -> Header {
        Header {
            length: 32,
            crc: 0,
            position: LogPosition::ZERO,
            term: Term(1),
            kind,
            flags: 0,
            event_count,
            timestamp: 0,
        }
    }

    #[test]
    fn numbers_go_on_without_a_gap_until_something_was_lost() {
        let mut numbers = StreamNumbers::default();
        let mut check = |stream: &str, first: i64, count: u16, expected: Option<&str>| {
            let kind = if count == 0 { RecordKind::Delete } else { RecordKind::Append };
            if stream.is_empty() {
                numbers.lose_track();
                return;
            }
            assert_eq!(numbers.take(stream, first, header(kind, count.max(1))).err().as_deref(), expected);
        };
        check("a", 0, 3, None);
        check("b", 0, 1, None);
        check("a", 3, 1, None);
        check("a", 5, 1, Some("stream \"a\" goes on with event 5, event 4 was next"));
        check("a", 6, 1, None);
        check("c", 1, 1, Some("stream \"c\" goes on with event 1, event 0 was next"));
        check("b", 2, 0, Some("the deletion of stream \"b\" has the number 2"));
        check("a", i64::MAX, 0, None);
        check("a", 7, 1, Some("stream \"a\" goes on behind its deletion"));
        check("", 0, 0, None);
        check("d", 9, 1, None);
        check("d", 12, 1, None);
        check("d", 12, 1, Some("stream \"d\" goes on with event 12, event 13 was next"));
    }
}
