//! The check of one whole chunk in small steps, for the sealer, the scrubber and whoever verifies a data directory.

use std::io;

use crate::limits::RECORD_ALIGNMENT;
use crate::types::{LogPosition, Term};

use super::damage::Damage;
use super::disk::Disk;
use super::facts::LogFacts;
use super::footer::ChunkFooter;
use super::layout::ChunkLayout;
use super::search::find_record;
use super::walk::ChunkWalk;

/// A chunk under check: ask [`ChunkCheck::wants`] what to read, give it to [`ChunkCheck::take`], until nothing is wanted.
/// Goes on behind damage, with the next record that checks out.
#[derive(Debug)]
pub struct ChunkCheck {
    layout: ChunkLayout,
    chunk: u32,
    /// Nothing is looked at from here on.
    end: LogPosition,
    walk: ChunkWalk,
    facts: LogFacts,
    /// Of the log bytes so far.
    crc: u32,
    /// The next byte to be read.
    at: LogPosition,
    is_whole: bool,
}

impl ChunkCheck {
    /// Of chunk `chunk`, which follows a record of `term`; zero when that is not known.
    #[must_use]
    pub fn new(layout: ChunkLayout, chunk: u32, term: Term) -> ChunkCheck {
        ChunkCheck {
            layout,
            chunk,
            end: layout.chunk_start(chunk + 1),
            walk: ChunkWalk::new(layout, chunk),
            facts: LogFacts::behind(term),
            crc: 0,
            at: layout.chunk_start(chunk),
            is_whole: true,
        }
    }

    /// The same, of the records up to `end`, which is where one ends: for a chunk that is still being written.
    #[must_use]
    pub fn up_to(layout: ChunkLayout, chunk: u32, end: LogPosition) -> ChunkCheck {
        let check = ChunkCheck::new(layout, chunk, Term::ZERO);
        ChunkCheck { end: end.min(check.end), ..check }
    }

    /// The chunk's number.
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Where the bytes that are wanted next begin, and how many there are up to the end: any number of them, but not none.
    /// `None`: all is checked.
    #[must_use]
    pub fn wants(&self) -> Option<(LogPosition, u64)> {
        (self.at < self.end).then(|| (self.at, self.end.since(self.at)))
    }

    /// Takes the next bytes; the damage that they show, if any. `disk` is read only to find where it ends.
    pub fn take(&mut self, bytes: &[u8], disk: &dyn Disk) -> Option<Damage> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        let stop = self.walk.push(bytes, &mut self.facts);
        self.at = self.at.plus(bytes.len() as u64);
        let reason = match stop {
            Some(stop) => stop.reason(),
            None if self.at < self.end || self.walk.end() == self.at => return None,
            // A length that has rotted upwards: what lies behind that record was taken for a part of it.
            None => format!("its length reaches beyond {}, where a record ends", self.end),
        };
        Some(self.skip_damage(self.walk.end().plus(RECORD_ALIGNMENT as u64), reason, disk))
    }

    /// Says that the wanted bytes, `length` of them, cannot be read: damage, too. The check goes on behind them.
    pub fn unreadable(&mut self, length: u64, error: &io::Error, disk: &dyn Disk) -> Damage {
        self.skip_damage(
            self.at.plus(length),
            format!("file offset {} cannot be read: {error}", self.layout.file_offset(self.at)),
            disk,
        )
    }

    /// The damage from the end of the last good record to the next one that begins at or behind `behind`, where the check
    /// goes on.
    fn skip_damage(&mut self, behind: LogPosition, reason: String, disk: &dyn Disk) -> Damage {
        self.is_whole = false;
        let (from, end) = (self.walk.end(), self.end);
        // What cannot be read on the way holds no good record as far as anybody can tell.
        let next = find_record(disk, self.layout, behind..end, self.facts.term).ok().flatten();
        let to = next.map_or(end, |header| header.position);
        self.at = to;
        self.walk = ChunkWalk::from(self.layout, to);
        Damage { chunk: self.chunk, from, to, reason }
    }

    /// What the chunk's footer must say; `None` when there was damage, or something is still wanted.
    #[must_use]
    pub fn footer(&self) -> Option<ChunkFooter> {
        let is_walked = self.walk.end() == self.layout.chunk_start(self.chunk + 1);
        (self.is_whole && is_walked && self.wants().is_none())
            .then(|| self.walk.footer(self.chunk, self.crc, &self.facts))
    }
}
