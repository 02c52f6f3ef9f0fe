//! `ringstore verify`: reads everything in a backup or in the data directory of a stopped node, and changes nothing.
//!
//! A record that does not check out is damage when the log is known to have been whole there: below the durable mark,
//! the commit position of the state file, a sealed chunk's end, or the position of a backup. Above that it is what a
//! write left that was under way; the node cuts it when it starts.

use std::path::Path;

use super::error::{OperatorError, refused};
use super::files::{self, PIECE_BYTES, ReadOnlyFolder, walk};
use super::log_check::{Break, ChunkSummary, LogCheck};
use super::manifest::{MANIFEST_FILE, Manifest, ORIGIN_FILE, Origin};
use super::progress::{Progress, size};
use crate::codec::record::{Header, RecordView};
use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_HEADER_BYTES, RECORD_ALIGNMENT, RECORD_HEADER_BYTES};
use crate::storage::{ChunkFooter, ChunkHeader, ChunkLayout, DurableMark, DurableState, FileName, STATE_FILE_BYTES};
use crate::types::LogPosition;

/// Findings that are told one by one; the rest is only counted.
const FINDINGS_TOLD_MAX: u64 = 1000;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The file.
    pub(super) file: String,
    /// Log position and offset in the file, where it is about the log.
    pub(super) place: Option<(LogPosition, u64)>,
    /// What does not check out.
    pub(super) reason: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place {
            Some((position, offset)) => {
                write!(f, "{}, log position {position}, file offset {offset}: {}", self.file, self.reason)
            }
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// What was looked at, and how much of it is not as it must be.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) findings: u64,
    /// For people, on stdout.
    pub(super) summary: Vec<String>,
}

/// Verifies `directory`; `tell` gets each finding and each remark.
pub(super) fn verify(directory: &Path, tell: &mut dyn FnMut(&str)) -> Result<Outcome, OperatorError> {
    let mut verifier = Verifier::open(directory, tell)?;
    verifier.check_names();
    verifier.check_chunks()?;
    verifier.check_log()?;
    Ok(verifier.finish())
}

/// What kind of folder it is, with what it says of itself.
enum Kind {
    Backup(Box<Manifest>),
    Node(Option<Box<DurableState>>),
}

struct Verifier<'a> {
    folder: ReadOnlyFolder,
    kind: Kind,
    layout: ChunkLayout,
    chunks: Vec<(u32, u64)>,
    footers: Vec<Option<ChunkFooter>>,
    check: LogCheck,
    /// The log was whole up to here.
    durable: LogPosition,
    /// Marks found: the newest one holds.
    mark: Option<DurableMark>,
    tell: &'a mut dyn FnMut(&str),
    outcome: Outcome,
    name: String,
}

impl<'a> Verifier<'a> {
    fn open(directory: &Path, tell: &'a mut dyn FnMut(&str)) -> Result<Verifier<'a>, OperatorError> {
        let manifest = Manifest::load(directory)?;
        if manifest.is_none() && Origin::load(directory)?.is_some() {
            return Err(refused(format!(
                "the backup in {} was begun and never finished ({ORIGIN_FILE} is there, {MANIFEST_FILE} is not): run \
                 `ringstore backup` into it again, it goes on where it stopped",
                directory.display()
            )));
        }
        let listed = files::list(directory)?;
        if listed.is_empty() && manifest.is_none() {
            return Err(refused(format!(
                "{} is neither a backup (it has no {MANIFEST_FILE}) nor a data directory (it has neither {} nor chunks)",
                directory.display(),
                FileName::State
            )));
        }
        // The layout is known only when the folder has been looked at.
        let any_layout = ChunkLayout { chunk_size: crate::limits::CHUNK_SIZE_DEFAULT_BYTES };
        let mut folder = ReadOnlyFolder::open(directory, any_layout, manifest.is_none())?;
        let mut findings = Vec::new();
        let (kind, chunk_size) = match manifest {
            Some(manifest) => {
                let chunk_size = manifest.origin.chunk_size;
                (Kind::Backup(Box::new(manifest)), chunk_size)
            }
            None => read_node(&mut folder, &listed, &mut findings)?,
        };
        let layout = ChunkLayout { chunk_size };
        folder.set_layout(layout);
        let durable = match &kind {
            Kind::Backup(manifest) => manifest.position(),
            Kind::Node(state) => state.as_ref().map_or(LogPosition::ZERO, |state| state.commit_hint),
        };
        let chunk = |(name, length): (FileName, u64)| match name {
            FileName::Chunk(number) => Some((number, length)),
            _ => None,
        };
        let mut verifier = Verifier {
            folder,
            kind,
            layout,
            chunks: listed.into_iter().filter_map(chunk).collect(),
            footers: Vec::new(),
            check: LogCheck::new(layout, true),
            durable,
            mark: None,
            tell,
            outcome: Outcome::default(),
            name: directory.display().to_string(),
        };
        findings.into_iter().for_each(|finding| verifier.found(finding));
        Ok(verifier)
    }

    /// Chunk numbers without a gap, as many as there must be, each file with its length.
    fn check_names(&mut self) {
        let chunks = self.chunks.clone();
        for (expected, (number, length)) in (0..).zip(&chunks) {
            if *number != expected {
                let reason = format!("it is missing although chunk {number} is there");
                self.found_in(FileName::Chunk(expected), reason);
                self.chunks.truncate(expected as usize);
                return;
            }
            if *length != self.layout.file_length() {
                let reason = format!("it has {length} bytes, {} were expected", self.layout.file_length());
                self.found_in(FileName::Chunk(*number), reason);
                self.chunks.truncate(expected as usize);
                return;
            }
        }
        if self.durable > self.layout.chunk_start(chunks.len() as u32) {
            let reason = format!("it is missing, but the log was whole up to {}", self.durable);
            self.found_in(FileName::Chunk(chunks.len() as u32), reason);
        }
    }

    /// Header pages and footers.
    fn check_chunks(&mut self) -> Result<(), OperatorError> {
        for index in 0..self.chunks.len() {
            let chunk = self.chunks[index].0;
            let name = FileName::Chunk(chunk);
            let mut page = vec![0; CHUNK_HEADER_BYTES as usize];
            self.folder.read_at(name, 0, &mut page)?;
            if let Err(reason) = (ChunkHeader { chunk, layout: self.layout }).check(&page) {
                self.found_in(name, format!("its header page: {reason}"));
            }
            let mark = DurableMark::read_newest(&page);
            self.mark = [self.mark, mark].into_iter().flatten().max_by_key(|mark| mark.sequence);
            let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
            self.folder.read_at(name, self.layout.footer_offset(), &mut page)?;
            let footer = ChunkFooter::decode(&page, chunk, self.layout).unwrap_or_else(|reason| {
                self.found_in(name, format!("its footer page: {reason}"));
                None
            });
            if footer.is_some() && matches!(self.kind, Kind::Node(_)) {
                self.durable = self.durable.max(self.layout.chunk_start(chunk + 1));
            }
            self.footers.push(footer);
        }
        if let (Kind::Node(_), Some(mark)) = (&self.kind, self.mark) {
            self.durable = self.durable.max(mark.position);
        }
        Ok(())
    }

    fn check_log(&mut self) -> Result<(), OperatorError> {
        let chunk_count = self.chunks.len() as u32;
        let limit = match &self.kind {
            Kind::Backup(manifest) => manifest.position().min(self.layout.chunk_start(chunk_count)),
            Kind::Node(_) => self.layout.chunk_start(chunk_count),
        };
        let mut progress = Progress::new("verified", limit.0);
        for chunk in 0..chunk_count {
            let until = self.layout.chunk_start(chunk + 1).min(limit);
            if until <= self.layout.chunk_start(chunk) {
                break;
            }
            let is_whole = self.check_chunk(until, &mut progress)?;
            self.tell_complaints(&mut progress);
            let summary = self.check.end_chunk();
            if let Some(is_whole) = is_whole {
                self.compare(chunk, &summary, is_whole);
            } else {
                return Ok(());
            }
        }
        self.compare_log();
        Ok(())
    }

    /// Walks through one chunk. False when it has damage; `None` when the log ends in it.
    fn check_chunk(&mut self, until: LogPosition, progress: &mut Progress) -> Result<Option<bool>, OperatorError> {
        let mut is_whole = true;
        loop {
            let mut count = |_: LogPosition, bytes: &[u8]| {
                progress.add(bytes.len() as u64);
                Ok(())
            };
            let Some(broken) = walk(&mut self.folder, &mut self.check, until, &mut count)? else {
                return Ok(Some(is_whole));
            };
            self.tell_complaints(progress);
            progress.finish_line();
            let next = self.next_record(broken.position, until)?;
            if matches!(self.kind, Kind::Node(_)) && broken.position >= self.durable {
                self.remark_on_tail(&broken, next);
                return Ok(None);
            }
            let to = next.unwrap_or(until);
            let goes_on = if next.is_some() { "records go on at" } else { "no record until" };
            let reason = if broken.is_empty { "zeros where a record should be".to_owned() } else { broken.reason };
            self.found_at(broken.position, format!("{reason}; {goes_on} {to}"));
            is_whole = false;
            self.check.skip_to(to);
        }
    }

    /// What lies behind the end of a node's log is no damage, but may be worth a word.
    fn remark_on_tail(&mut self, broken: &Break, next: Option<LogPosition>) {
        let mut words = match broken.is_empty {
            true => return,
            false => format!(
                "remark: the log ends at {} in what a write left that was under way ({}); the node cuts it when it starts",
                broken.position, broken.reason
            ),
        };
        if let Some(next) = next {
            words.push_str(&format!("; good records follow at {next}, so it may be damage, too"));
        }
        (self.tell)(&words);
    }

    /// The next place before `until` where a record checks out.
    fn next_record(&mut self, broken: LogPosition, until: LogPosition) -> Result<Option<LogPosition>, OperatorError> {
        let mut at = broken.plus(RECORD_ALIGNMENT as u64);
        let mut buffer = Vec::new();
        while at.plus(RECORD_HEADER_BYTES as u64) <= until {
            let length = usize::try_from(until.since(at)).unwrap_or(usize::MAX).min(PIECE_BYTES);
            buffer.resize(length, 0);
            self.folder.read_log(at, &mut buffer)?;
            let mut offset = 0;
            while offset + RECORD_HEADER_BYTES <= length {
                let here = at.plus(offset as u64);
                // Every record says where it belongs, so hardly anything else is looked at twice.
                let is_here = buffer[offset + 8..offset + 16] == here.0.to_le_bytes();
                if is_here && self.is_record(here, &buffer[offset..])? {
                    return Ok(Some(here));
                }
                offset += RECORD_ALIGNMENT;
            }
            at = at.plus(offset as u64);
        }
        Ok(None)
    }

    fn is_record(&mut self, position: LogPosition, bytes: &[u8]) -> Result<bool, OperatorError> {
        let room = self.layout.room(position);
        let Ok(header) = Header::read(bytes, position, room) else { return Ok(false) };
        let length = header.length as usize;
        let mut whole = Vec::new();
        let record = match bytes.get(..length) {
            Some(record) => record,
            None => {
                whole.resize(length, 0);
                self.folder.read_log(position, &mut whole)?;
                &whole
            }
        };
        Ok(RecordView::check(record, position, room).is_ok() && header.term >= self.check.term())
    }

    /// A chunk against its footer and the manifest.
    fn compare(&mut self, chunk: u32, summary: &ChunkSummary, is_whole: bool) {
        let name = FileName::Chunk(chunk);
        // Of a chunk with damage the sums cannot be right, and the damage has been told.
        if !is_whole {
            return;
        }
        let is_full = self.check.position() == self.layout.chunk_start(chunk + 1);
        let footer = self.footers[chunk as usize].take();
        match footer {
            Some(footer) if is_full => {
                for words in differences(&footer, summary) {
                    self.found_in(name, format!("its footer says {words}"));
                }
            }
            Some(_) => self.found_in(name, "it has a footer, but the log ends in it".to_owned()),
            None if is_full && matches!(self.kind, Kind::Backup(_)) => {
                self.found_in(name, "it is full, but has no footer".to_owned());
            }
            None => {}
        }
        let Kind::Backup(manifest) = &self.kind else { return };
        let entry = manifest.chunks.get(chunk as usize).filter(|entry| entry.crc32c != summary.crc);
        if let Some(entry) = entry {
            let words = format!("its checksum is {:08x}, the manifest says {:08x}", summary.crc, entry.crc32c);
            self.found_in(name, words);
        }
    }

    /// The whole log against the manifest.
    fn compare_log(&mut self) {
        let Kind::Backup(manifest) = &self.kind else { return };
        if self.outcome.findings > 0 {
            return;
        }
        let epochs: Vec<_> = self.check.epochs().iter().map(|epoch| (*epoch).into()).collect();
        let found = (self.check.counts(), self.check.term());
        if (manifest.records, manifest.events, manifest.term) != (found.0.0, found.0.1, found.1) {
            let words = format!(
                "it says {} records, {} events, term {}; the log has {}, {}, {}",
                manifest.records, manifest.events, manifest.term, found.0.0, found.0.1, found.1
            );
            self.found(Finding { file: MANIFEST_FILE.to_owned(), place: None, reason: words });
        } else if manifest.epochs != epochs {
            let reason = "its epochs are not those of the log".to_owned();
            self.found(Finding { file: MANIFEST_FILE.to_owned(), place: None, reason });
        }
    }

    fn tell_complaints(&mut self, progress: &mut Progress) {
        for (position, reason) in self.check.take_complaints() {
            progress.finish_line();
            self.found_at(position, reason);
        }
    }

    fn found_in(&mut self, name: FileName, reason: String) {
        self.found(Finding { file: name.to_string(), place: None, reason });
    }

    fn found_at(&mut self, position: LogPosition, reason: String) {
        let chunk = self.layout.chunk_of(position);
        let file = format!("chunk {chunk} ({})", FileName::Chunk(chunk));
        self.found(Finding { file, place: Some((position, self.layout.file_offset(position))), reason });
    }

    fn found(&mut self, finding: Finding) {
        self.outcome.findings += 1;
        if self.outcome.findings <= FINDINGS_TOLD_MAX {
            (self.tell)(&format!("damage: {finding}"));
        } else if self.outcome.findings == FINDINGS_TOLD_MAX + 1 {
            (self.tell)(&format!("more than {FINDINGS_TOLD_MAX} findings: the rest is only counted"));
        }
    }

    fn finish(mut self) -> Outcome {
        let (records, events) = self.check.counts();
        let what = match &self.kind {
            Kind::Backup(manifest) => format!(
                "backup of cluster {} from node {}, finished {}",
                manifest.origin.cluster, manifest.node, manifest.date
            ),
            Kind::Node(Some(state)) => match state.founding.as_ref().filter(|_| state.founded) {
                Some(list) => format!("data directory of node {} in cluster {}", state.node, list.cluster),
                None => format!("data directory of node {}, in no cluster yet", state.node),
            },
            Kind::Node(None) => "data directory whose state cannot be read".to_owned(),
        };
        self.outcome.summary = vec![
            format!("{}: {what}", self.name),
            format!(
                "{} of log up to position {}: {records} records, {events} events in {} streams, {} epochs, last term {}",
                size(self.check.position().0),
                self.check.position(),
                self.check.stream_count(),
                self.check.epochs().len(),
                self.check.term()
            ),
            match self.outcome.findings {
                0 => "no damage".to_owned(),
                1 => "1 finding of damage".to_owned(),
                count => format!("{count} findings of damage"),
            },
        ];
        self.outcome
    }
}

/// State and chunk size of a data directory.
fn read_node(
    folder: &mut ReadOnlyFolder,
    listed: &[(FileName, u64)],
    findings: &mut Vec<Finding>,
) -> Result<(Kind, u64), OperatorError> {
    let state = read_state(folder, listed, findings)?;
    if let Some(state) = state {
        let chunk_size = state.chunk_size;
        return Ok((Kind::Node(Some(Box::new(state))), chunk_size));
    }
    let first = listed.iter().find(|(name, _)| matches!(name, FileName::Chunk(_)));
    let Some((name, length)) = first else {
        return Err(refused(format!(
            "{} cannot be read and there are no chunks: nothing can be verified",
            FileName::State
        )));
    };
    // Without a state the file's length says how large a chunk is.
    let chunk_size = length.saturating_sub(CHUNK_HEADER_BYTES + CHUNK_FOOTER_BYTES);
    if chunk_size < crate::limits::CHUNK_SIZE_MIN_BYTES {
        return Err(refused(format!("{name} has {length} bytes, which no chunk has: nothing can be verified")));
    }
    Ok((Kind::Node(None), chunk_size))
}

fn read_state(
    folder: &mut ReadOnlyFolder,
    listed: &[(FileName, u64)],
    findings: &mut Vec<Finding>,
) -> Result<Option<DurableState>, OperatorError> {
    let name = FileName::State;
    let mut found = |reason: String| findings.push(Finding { file: name.to_string(), place: None, reason });
    let Some((_, length)) = listed.iter().find(|(file, _)| *file == name) else {
        found("it is missing".to_owned());
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from((*length).min(2 * STATE_FILE_BYTES)).expect("two small files")];
    folder.read_at(name, 0, &mut bytes)?;
    let slots = match DurableState::slots(&bytes) {
        Ok(slots) => slots,
        Err(reason) => {
            found(reason);
            return Ok(None);
        }
    };
    let half = bytes.len() / 2;
    for (index, slot) in slots.iter().enumerate() {
        let is_written = bytes[index * half..(index + 1) * half].iter().any(|&byte| byte != 0);
        if let (Err(reason), true) = (slot, is_written) {
            found(format!("slot {index}: {reason}"));
        }
    }
    Ok(slots.into_iter().filter_map(Result::ok).max_by_key(|state| state.sequence))
}

/// What a footer says that is not so.
fn differences(footer: &ChunkFooter, found: &ChunkSummary) -> Vec<String> {
    let mut words = Vec::new();
    let mut compare = |what: &str, says: String, is: String| {
        if says != is {
            words.push(format!("{what} {says}, it has {is}"));
        }
    };
    compare("checksum", format!("{:08x}", footer.crc), format!("{:08x}", found.crc));
    compare("records", footer.records.to_string(), found.records.to_string());
    compare("events", footer.events.to_string(), found.events.to_string());
    compare("first term", footer.first_term.to_string(), found.first_term.to_string());
    compare("last term", footer.last_term.to_string(), found.last_term.to_string());
    compare("membership record at", format!("{:?}", footer.membership), format!("{:?}", found.membership));
    if !footer.has_more_epochs {
        compare("epochs", format!("{:?}", footer.epochs), format!("{:?}", found.epochs));
    }
    words
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
