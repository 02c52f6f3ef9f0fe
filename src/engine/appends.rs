//! Decides what becomes of a write, and puts it into the log buffer.

use crate::codec::record::{BatchView, Header, RecordKind, padding, seal, sealed_length};
use crate::consensus::Replica;
use crate::index::NotReady;
use crate::limits::{FULL_DISK_RESERVE_BYTES, RECORD_HEADER_BYTES};
use crate::types::{ExpectedVersion, LogPosition, Term, Ticks, base_stream};

use super::core::{Deferred, Engine, Pending, Unproven};
use super::heads::{Head, StreamName, Validity};
use super::{Answer, Append, Reply, Revival};

/// The verdict on a claim.
enum Verdict {
    Write,
    /// Answer so, once the log is committed up to the position.
    Answer(Answer, LogPosition),
}

impl Engine {
    pub(super) fn handle_append(&mut self, append: Deferred) -> Result<(), Deferred> {
        if !self.accepts_writes() {
            self.answer_append(append, Answer::NotLeader);
            return Ok(());
        }
        if self.now > append.deadline {
            self.answer_append(append, Answer::TooBusy);
            return Ok(());
        }
        let bytes = (sealed_length(append.body.len())
            + append.revival.as_ref().map_or(0, |revival| sealed_length(revival.body.len())))
            as u64;
        let limit = self.largest_record();
        if bytes > limit {
            self.answer_append(append, Answer::TooLarge { bytes, limit });
            return Ok(());
        }
        if let Some(refusal) = self.refusal_for_room(bytes + self.full_disk_reserve()) {
            self.answer_append(append, refusal);
            return Ok(());
        }
        if self.heads.is_full() || !self.has_room(bytes) {
            return Err(append);
        }
        self.stopwatch.taken(append.handed_over);
        let stream = self.heads.name(append.stream());
        let judged = self.heads.get(stream).and_then(|head| {
            let verdict = self.judge(&append, stream, head)?;
            self.learn_what_changes(&append, stream)?;
            Ok((verdict, head))
        });
        let (answer, end) = match judged {
            Ok((Verdict::Answer(answer, end), _)) => (answer, end),
            Ok((Verdict::Write, head)) => self.write(&append, stream, head),
            // The edge tells the client to ask again; nothing is known for which the answer should wait.
            Err(NotReady) => (Answer::NotReady, LogPosition::ZERO),
        };
        match answer {
            // A round of heartbeats first: see `Unproven`.
            Answer::WrongExpectedVersion { .. } | Answer::StreamDeleted { .. } => {
                self.barriers.waiting.push(Unproven::Refusal { append, answer, end });
            }
            _ => self.answer_when_committed(append, answer, end),
        }
        Ok(())
    }

    /// Looks up the other streams that a write changes, before any of it is written.
    fn learn_what_changes(&mut self, append: &Append, stream: StreamName<'_>) -> Result<(), NotReady> {
        let base = append.metadata_of.as_ref().map(|effect| &*effect.base).or_else(|| base_stream(stream.text));
        let revival = append.revival.as_ref().map(|revival| [&*revival.base, &*revival.metastream]);
        for text in base.into_iter().chain(revival.into_iter().flatten()) {
            self.heads.learn(self.heads.name(text))?;
        }
        Ok(())
    }

    /// The outcome table of the v5 protocol (tcp.md 5.1), without the comparison of committed events: that is the
    /// edge's. `head` is that of `stream`, which is written to.
    fn judge(&self, append: &Append, stream: StreamName<'_>, head: Head) -> Result<Verdict, NotReady> {
        if !matches!(append.kind, RecordKind::Append | RecordKind::Delete) {
            return Ok(Verdict::Write);
        }
        let (claimed, head) = match append.guard.as_deref() {
            Some(guard) => (guard, self.heads.get(self.heads.name(guard))?),
            None => (stream.text, head),
        };
        let wrong = || {
            let answer = Answer::WrongExpectedVersion { current: head.last_event_number, end: head.end };
            Verdict::Answer(answer, head.end)
        };
        if head.is_hard_deleted() {
            return Ok(Verdict::Answer(Answer::StreamDeleted { end: head.end }, head.end));
        }
        // The metadata goes with the stream, whether or not it has a tombstone of its own.
        let base = base_stream(claimed).map(|base| self.heads.get(self.heads.name(base))).transpose()?;
        if let Some(base) = base.filter(Head::is_hard_deleted) {
            return Ok(Verdict::Answer(Answer::StreamDeleted { end: base.end }, base.end));
        }
        let current = head.last_event_number;
        match append.expected_version {
            ExpectedVersion::StreamExists if head.soft_deleted => {
                return Ok(Verdict::Answer(Answer::StreamDeleted { end: head.end }, head.end));
            }
            ExpectedVersion::StreamExists if current < 0 && !head.has_metadata => return Ok(wrong()),
            ExpectedVersion::Any | ExpectedVersion::StreamExists => {
                if append.guard.is_none()
                    && let Some(verdict) = self.judge_repeat(append, stream, head)?
                {
                    return Ok(verdict);
                }
            }
            ExpectedVersion::NoStream if head.soft_deleted => {}
            ExpectedVersion::NoStream if current >= 0 => return Ok(wrong()),
            ExpectedVersion::Exact(expected) if expected != current => return Ok(wrong()),
            ExpectedVersion::NoStream | ExpectedVersion::Exact(_) => {}
        }
        self.judge_revival(append, head)
    }

    /// Idempotence by identifier, for claims that name no number.
    fn judge_repeat(&self, append: &Append, stream: StreamName<'_>, head: Head) -> Result<Option<Verdict>, NotReady> {
        let ids = || BatchView::ids_of(&append.body).take(usize::from(append.event_count));
        let Some(id) = ids().next() else { return Ok(None) };
        let Some((first, first_end)) = self.heads.recent(stream, id)? else { return Ok(None) };
        #[cfg(test)]
        if self.has(crate::consensus::PlantedBug::IdempotenceLost) && first_end == LogPosition::ZERO {
            return Ok(None);
        }
        let (mut last, mut end) = (first, first_end);
        for id in ids().skip(1) {
            let Some((number, number_end)) = self.heads.recent(stream, id)? else {
                let answer = Answer::WrongExpectedVersion { current: head.last_event_number, end: head.end };
                return Ok(Some(Verdict::Answer(answer, head.end)));
            };
            (last, end) = (number, end.max(number_end));
        }
        let answer = Answer::AlreadyWritten { first_event_number: first, last_event_number: last, end };
        Ok(Some(Verdict::Answer(answer, end)))
    }

    /// A write to a soft-deleted stream, or to the metadata of one, brings it back: the edge must send along how.
    fn judge_revival(&self, append: &Append, head: Head) -> Result<Verdict, NotReady> {
        let soft_delete = append.metadata_of.as_ref().is_some_and(|effect| effect.soft_deletes);
        if append.kind == RecordKind::Delete || soft_delete {
            return Ok(Verdict::Write);
        }
        let dead = match &append.metadata_of {
            Some(effect) => self.heads.get(self.heads.name(&effect.base))?,
            None => head,
        };
        if !dead.soft_deleted || dead.is_hard_deleted() {
            return Ok(Verdict::Write);
        }
        Ok(match &append.revival {
            Some(revival) if revival.last_event_number == dead.last_event_number => Verdict::Write,
            _ => {
                let answer = Answer::SoftDeleted { last_event_number: dead.last_event_number, end: dead.end };
                Verdict::Answer(answer, dead.end)
            }
        })
    }

    /// Writes the record and its revival. Returns the answer, and the end of what was written.
    fn write(&mut self, append: &Append, stream: StreamName<'_>, head: Head) -> (Answer, LogPosition) {
        let count = i64::from(append.event_count);
        let (number, first, last) = match append.kind {
            RecordKind::Append => {
                let first = head.last_event_number + 1;
                (Some(first), first, head.last_event_number + count)
            }
            RecordKind::Delete => (Some(i64::MAX), i64::MAX, i64::MAX),
            // The transaction kinds keep something else in this place, and number nothing.
            _ => (None, 0, count - 1),
        };
        let (position, end) = self.append_record(append.kind, &append.body, append.event_count, number);
        let is_visible = append.kind.is_visible();
        let mut last_entry = None;
        let entries = BatchView::entries_of(&append.body).take(usize::from(append.event_count));
        for (index, (offset, id)) in (0..).zip(entries) {
            last_entry = Some(offset);
            if is_visible {
                self.heads.remember(stream, id, first.saturating_add(index), end);
            }
        }
        // The record itself when it has no events.
        let last_prepare_position =
            last_entry.map_or(position, |offset| position.plus((RECORD_HEADER_BYTES + offset) as u64));
        let revival =
            append.revival.as_ref().filter(|revival| self.heads.known(self.heads.name(&revival.base)).soft_deleted);
        if is_visible {
            self.heads.wrote(end, usize::from(append.event_count));
            self.heads.set(stream, Head { last_event_number: last, end, ..head }, Validity::Term);
            self.note_metadata(append, stream, end);
        }
        let end = revival.map_or(end, |revival| self.revive(revival));
        let answer = Answer::Appended {
            first_event_number: first,
            last_event_number: last,
            position,
            last_prepare_position,
            end,
            // Filled in when it is.
            committed_at: Ticks(0),
        };
        self.stopwatch.appended(end);
        (answer, end)
    }

    /// What a write to a metadata stream does to the stream that it is about.
    fn note_metadata(&mut self, append: &Append, stream: StreamName<'_>, end: LogPosition) {
        let Some(base) = append.metadata_of.as_ref().map(|effect| &*effect.base).or_else(|| base_stream(stream.text))
        else {
            return;
        };
        let base = self.heads.name(base);
        let before = self.heads.known(base);
        let after = match &append.metadata_of {
            Some(effect) => Head { soft_deleted: effect.soft_deletes, has_metadata: true, end, ..before },
            None => Head { end, ..before },
        };
        self.heads.set(base, after, Validity::UntilApplied);
    }

    /// Appends the metadata event that brings a stream back.
    fn revive(&mut self, revival: &Revival) -> LogPosition {
        let metastream = self.heads.name(&revival.metastream);
        let meta = self.heads.known(metastream);
        let first = meta.last_event_number + 1;
        let (_, end) = self.append_record(RecordKind::Append, &revival.body, 1, Some(first));
        if let Some(id) = BatchView::ids_of(&revival.body).next() {
            self.heads.remember(metastream, id, first, end);
        }
        self.heads.wrote(end, 1);
        self.heads.set(metastream, Head { last_event_number: first, end, ..meta }, Validity::Term);
        let base = self.heads.name(&revival.base);
        let revived = Head { soft_deleted: false, has_metadata: true, end, ..self.heads.known(base) };
        self.heads.set(base, revived, Validity::UntilApplied);
        end
    }

    /// Puts a record into the log buffer, with the number of its first event if that is to be filled in. Returns where it
    /// begins and ends.
    fn append_record(
        &mut self,
        kind: RecordKind,
        body: &[u8],
        event_count: u16,
        first_event_number: Option<i64>,
    ) -> (LogPosition, LogPosition) {
        let (position, length) = self.place(sealed_length(body.len()));
        let term = self.replica.as_ref().map_or(Term::ZERO, Replica::term);
        let timestamp = self.wall_clock;
        let bytes = self.buffer.slice_mut(position, length);
        let body_end = RECORD_HEADER_BYTES + body.len();
        bytes[RECORD_HEADER_BYTES..body_end].copy_from_slice(body);
        bytes[body_end..].fill(0);
        if let Some(number) = first_event_number {
            BatchView::set_first_event_number(&mut bytes[RECORD_HEADER_BYTES..], number);
        }
        seal(bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count, timestamp });
        let end = position.plus(length as u64);
        self.extend_log(end);
        (position, end)
    }

    /// Where a record of `length` bytes goes, and how long it becomes there: padding fills a chunk that it does not
    /// fit, and a rest too small for a padding record is given to it.
    pub(super) fn place(&mut self, length: usize) -> (LogPosition, usize) {
        let Some(replica) = &self.replica else { unreachable!("only a leader appends") };
        let (end, term) = (replica.log_end(), replica.term());
        let room = self.options.layout.room(end);
        if length as u64 > room {
            let rest = usize::try_from(room).expect("a chunk fits memory");
            padding(self.buffer.slice_mut(end, rest), end, term, self.wall_clock);
            let start = end.plus(room);
            self.extend_log(start);
            return self.place(length);
        }
        let rest = room as usize - length;
        (end, if rest < RECORD_HEADER_BYTES { length + rest } else { length })
    }

    /// The largest record that [`Engine::has_room`] can find room for when nothing else is in the log buffer: half of
    /// it, because padding hardly smaller than the record may come before. One that is larger would wait for ever, and
    /// all writes behind it.
    pub(super) fn largest_record(&self) -> u64 {
        let half = (self.buffer.capacity() / 2).saturating_sub(2 * RECORD_HEADER_BYTES);
        self.options.layout.chunk_size.min(half as u64)
    }

    fn extend_log(&mut self, end: LogPosition) {
        if let Some(replica) = &mut self.replica {
            replica.handle_appended(end, None);
        }
        self.log.buffered(end);
    }

    /// True when records of `bytes` in all fit the log buffer and the chunks that are ready, whatever padding they need.
    fn has_room(&self, bytes: u64) -> bool {
        self.next_chunk_ready(bytes)
            && self.buffer_room() >= bytes + self.padding_before(bytes) + 2 * RECORD_HEADER_BYTES as u64
    }

    /// Why no record of `bytes` can be taken for want of chunks, here or at a majority; `None` when it can.
    pub(super) fn refusal_for_room(&self, bytes: u64) -> Option<Answer> {
        let replica = self.replica.as_ref()?;
        let end = || replica.log_end().plus(self.padding_before(bytes) + bytes);
        if self.full_from().is_some_and(|full_from| end() > full_from) {
            return Some(if self.disk_full { Answer::DiskFull } else { Answer::ChunkFailed });
        }
        let room = replica.quorum_room(self.now);
        (room < LogPosition(u64::MAX) && end() > room).then_some(Answer::NoQuorumRoom)
    }

    /// When no new chunk can be made here: the end of those that there are.
    pub(super) fn full_from(&self) -> Option<LogPosition> {
        let is_full = self.disk_full || self.chunk_failed;
        is_full.then(|| self.options.layout.chunk_start(self.log.chunks_ready()))
    }

    /// See [`FULL_DISK_RESERVE_BYTES`].
    fn full_disk_reserve(&self) -> u64 {
        FULL_DISK_RESERVE_BYTES.min(self.options.layout.chunk_size / 16)
    }

    fn padding_before(&self, bytes: u64) -> u64 {
        let room = self.replica.as_ref().map_or(0, |replica| self.options.layout.room(replica.log_end()));
        if bytes > room { room } else { 0 }
    }

    fn next_chunk_ready(&self, bytes: u64) -> bool {
        let Some(replica) = &self.replica else {
            return false;
        };
        // The last byte, not the end: that belongs to the chunk after, which nobody prepares before it is needed.
        let last = replica.log_end().plus(self.padding_before(bytes) + bytes - 1);
        self.options.layout.chunk_of(last) < self.log.chunks_ready()
    }

    pub(super) fn answer_when_committed(&mut self, mut append: Deferred, answer: Answer, end: LogPosition) {
        let committed = self.replica.as_ref().map_or(LogPosition::ZERO, Replica::commit_position);
        if end <= committed {
            self.answer_append(append, answer);
            return;
        }
        self.released.take_from(&mut append.queued);
        // Answers leave in the order of the log: one about an older record waits for the ones before it.
        let end = self.pending.back().map_or(end, |last| last.end.max(end));
        let reply = Reply { ticket: append.ticket, answer, spare: Some(append) };
        self.pending.push_back(Pending { end, reply });
    }
}

#[cfg(test)]
#[path = "appends_tests.rs"]
mod tests;
