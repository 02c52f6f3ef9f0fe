//! What the edge threads do in the real server: requests to the log thread, answers when the index is there.

use std::sync::Arc;

use crate::codec::record::{BatchBuilder, RecordKind};
use crate::engine::{Answer, Append, MetadataEffect, Reply, Request, Revival, Ticket};
use crate::index::{Attempt, METADATA_EVENT_TYPE};
use crate::types::{EventId, ExpectedVersion, Guid, LogPosition, Ticks, metastream_of};

use super::Checker;
use super::agenda::MILLISECOND;
use super::node::Input;
use super::profile::within;
use super::workload::{Outcome, Task};
use super::world::{Event, World};

/// An answer that waits for the index.
#[derive(Debug)]
pub(super) struct Waiting {
    end: LogPosition,
    attempt: u64,
    then: Then,
}

/// What must be read has rotted, or the index is not whole.
struct Damaged;

/// What to do when the index is there.
#[derive(Clone, Copy, Debug)]
enum Then {
    Written { first: i64, position: LogPosition },
    Repeated { first: i64 },
    Compare { current: i64 },
    Deleted,
    Revive { last: i64 },
    Read,
}

impl World {
    /// A client's request arrives.
    pub(super) fn asked(&mut self, index: usize, attempt: u64) {
        if !self.nodes[index].is_up() {
            return self.answer(attempt, Outcome::Retry);
        }
        let task = self.workload.attempts.get(&attempt).map(|asked| Arc::clone(&asked.task));
        if let Some(Task::Read { stream, master: false }) = task.as_deref() {
            return self.read_here(index, attempt, stream);
        }
        if let Some(request) = self.request(attempt, None) {
            self.input(index, Input::Request(request));
        }
    }

    /// The request of an attempt; `revival` when the stream was soft-deleted with this last number.
    fn request(&mut self, attempt: u64, revival: Option<i64>) -> Option<Request> {
        let task = Arc::clone(&self.workload.attempts.get(&attempt)?.task);
        let ticket = Ticket { edge: 0, key: attempt };
        let append = match &*task {
            Task::Read { .. } => return Some(Request::Barrier { ticket }),
            Task::Write { stream, expected, events } => {
                let mut body = BatchBuilder::new(stream, 0);
                for &(id, size) in events {
                    body.event(id, "written", false, &vec![id.0.0[0]; size], b"");
                }
                let revival = revival.map(|last| self.revival(stream, last));
                let (kind, expected_version) = (RecordKind::Append, *expected);
                Append { revival, ..plain(ticket, kind, expected_version, body) }
            }
            Task::SoftDelete { stream, id } => {
                let metastream: Arc<str> = metastream_of(stream).into();
                let mut body = BatchBuilder::new(&metastream, 0);
                body.event(*id, METADATA_EVENT_TYPE, true, br#"{"$tb":9223372036854775807}"#, b"");
                Append {
                    guard: Some(Arc::clone(stream)),
                    metadata_of: Some(MetadataEffect { base: Arc::clone(stream), soft_deletes: true }),
                    ..plain(ticket, RecordKind::Append, ExpectedVersion::Any, body)
                }
            }
            Task::Limit { stream, id, count } => {
                let metastream: Arc<str> = metastream_of(stream).into();
                let mut body = BatchBuilder::new(&metastream, 0);
                body.event(*id, METADATA_EVENT_TYPE, true, format!("{{\"$maxCount\":{count}}}").as_bytes(), b"");
                let revival = revival.map(|last| self.revival(stream, last));
                let metadata_of = Some(MetadataEffect { base: Arc::clone(stream), soft_deletes: false });
                Append { revival, metadata_of, ..plain(ticket, RecordKind::Append, ExpectedVersion::Any, body) }
            }
            Task::HardDelete { stream, id } => {
                let mut body = BatchBuilder::new(stream, 0);
                body.event(*id, "$streamDeleted", true, b"{}", b"");
                plain(ticket, RecordKind::Delete, ExpectedVersion::Any, body)
            }
        };
        Some(Request::Append(Box::new(append)))
    }

    fn revival(&mut self, stream: &Arc<str>, last: i64) -> Revival {
        let metastream: Arc<str> = metastream_of(stream).into();
        let mut body = BatchBuilder::new(&metastream, 0);
        let id = EventId(Guid(self.random.workload.u128(..).to_le_bytes()));
        body.event(id, METADATA_EVENT_TYPE, true, format!("{{\"$tb\":{}}}", last + 1).as_bytes(), b"");
        Revival { base: Arc::clone(stream), metastream, last_event_number: last, body: body.finish() }
    }

    /// The log thread has answered.
    pub(super) fn reply(&mut self, index: usize, reply: Reply) {
        let attempt = reply.ticket.key;
        let (end, then) = match reply.answer {
            Answer::Appended { first_event_number: first, position, end, .. } => {
                (end, Then::Written { first, position })
            }
            Answer::AlreadyWritten { first_event_number: first, end, .. } => (end, Then::Repeated { first }),
            Answer::WrongExpectedVersion { current, end } => (end, Then::Compare { current }),
            Answer::StreamDeleted { end } => (end, Then::Deleted),
            Answer::SoftDeleted { last_event_number: last, end } => (end, Then::Revive { last }),
            Answer::Confirmed { end } => (end, Then::Read),
            Answer::TooLarge { .. } => return self.answer(attempt, Outcome::Refused { current: None }),
            _ => return self.answer(attempt, Outcome::Retry),
        };
        self.nodes[index].waiting.push(Waiting { end, attempt, then });
        self.plan_apply(index);
    }

    pub(super) fn plan_apply(&mut self, index: usize) {
        if !self.nodes[index].applying {
            self.nodes[index].applying = true;
            let life = self.nodes[index].life;
            self.plan_in(self.profile.apply, Event::Apply { node: index, life });
        }
    }

    /// The index takes what has become readable; answers that waited for it go on.
    pub(super) fn apply(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.applying = false;
        let (log, limit) = (&*node.disk, node.readable);
        let outcome = match node.applied.try_apply(log, self.layout, limit, 1 << 40) {
            Ok(Attempt::Rebuilding) => {
                // The upkeep is at it.
                node.applying = true;
                self.count("index behind after a start");
                return self
                    .agenda
                    .plan(self.now + 5 * MILLISECOND, Event::Apply { node: index, life: self.nodes[index].life });
            }
            Ok(_) => node.applied.apply_to(log, self.layout, limit).map(|_| ()),
            Err(error) => Err(error),
        };
        if outcome.is_err() && !node.rotten.is_empty() {
            // A start that believes footers does not see what has rotted before them. The index goes on when that is repaired.
            node.applying = true;
            self.count("index waits for a repair");
            return self
                .agenda
                .plan(self.now + 20 * MILLISECOND, Event::Apply { node: index, life: self.nodes[index].life });
        }
        let node = &mut self.nodes[index];
        if let Err(error) = outcome {
            return self.object(Checker::IndexAgrees, format!("n{index}: {error}"));
        }
        let applied = node.applied.applied();
        let commit = node.engine.as_ref().map_or(applied, |engine| engine.positions().2);
        if applied > commit {
            let detail = format!("n{index} has {applied} in its index, and {commit} committed");
            return self.object(Checker::IndexAgrees, detail);
        }
        let node = &mut self.nodes[index];
        for waiting in node.waiting.extract_if(.., |waiting| waiting.end <= applied).collect::<Vec<_>>() {
            self.go_on(index, waiting);
        }
    }

    fn go_on(&mut self, index: usize, waiting: Waiting) {
        let Waiting { end, attempt, then } = waiting;
        let Some(asked) = self.workload.attempts.get(&attempt) else { return };
        let task = Arc::clone(&asked.task);
        match then {
            Then::Written { first, position } => {
                self.check_acknowledged(index, &task, Some(position), first);
                self.answer(attempt, Outcome::Written { first, end });
            }
            Then::Repeated { first } => {
                self.count("repeated writes found written");
                self.check_acknowledged(index, &task, None, first);
                self.answer(attempt, Outcome::Written { first, end });
            }
            Then::Compare { current } => match self.repeated_at(index, &task, current) {
                Err(Damaged) => self.answer(attempt, Outcome::Retry),
                Ok(Some(first)) => {
                    self.check_acknowledged(index, &task, None, first);
                    self.answer(attempt, Outcome::Written { first, end });
                }
                Ok(None) => self.answer(attempt, Outcome::Refused { current: Some(current) }),
            },
            Then::Deleted => self.answer(attempt, Outcome::Refused { current: None }),
            Then::Revive { last } => {
                self.count("revivals");
                if let Some(request) = self.request(attempt, Some(last)) {
                    self.input(index, Input::Request(request));
                }
            }
            Then::Read => self.read(index, attempt, &task),
        }
    }

    fn read(&mut self, index: usize, attempt: u64, task: &Task) {
        let Task::Read { stream, .. } = task else { return };
        self.count("reads judged");
        let node = &self.nodes[index];
        let (applied, head) = (node.applied.applied(), node.applied.head(stream));
        // A part of it is being made again.
        let Ok(last) = head.map(|head| head.last_event_number) else { return self.answer(attempt, Outcome::Retry) };
        let Some(asked) = self.workload.attempts.get(&attempt) else { return };
        if applied < asked.floor_end || last < asked.floor_number {
            let detail = format!(
                "n{index} reads {stream} at {applied} and sees number {last}; before the read was asked, {} was \
                 acknowledged and number {} of the stream known",
                asked.floor_end, asked.floor_number
            );
            return self.object(Checker::Linearizable, detail);
        }
        self.answer(attempt, Outcome::Read { last, anywhere: None });
    }

    /// A read that any node may answer, from what it has. The index is derived from what is committed and in the files.
    fn read_here(&mut self, index: usize, attempt: u64, stream: &str) {
        let node = &self.nodes[index];
        let Ok(head) = node.applied.head(stream) else { return self.answer(attempt, Outcome::Retry) };
        let last = head.last_event_number;
        let anywhere = Some(((index, node.life), self.now));
        if last >= 0 && self.reference.committed_at(stream, last).is_none() {
            let detail = format!("n{index} shows number {last} of {stream}, which nobody has committed");
            return self.object(Checker::Linearizable, detail);
        }
        self.answer(attempt, Outcome::Read { last, anywhere });
    }

    /// The edge's part of idempotence: the events behind the claimed version are those of the request.
    fn repeated_at(&self, index: usize, task: &Task, current: i64) -> Result<Option<i64>, Damaged> {
        let Task::Write { stream, expected, events } = task else { return Ok(None) };
        let claimed = match expected {
            ExpectedVersion::NoStream => -1,
            ExpectedVersion::Exact(number) => *number,
            ExpectedVersion::Any | ExpectedVersion::StreamExists => return Ok(None),
        };
        if claimed >= current {
            return Ok(None);
        }
        let node = &self.nodes[index];
        let mut positions = Vec::new();
        let first = node.applied.positions(stream, claimed + 1, events.len(), &mut positions);
        let Ok(first) = first else { return Err(Damaged) };
        let same = |(position, (id, _)): (&LogPosition, &(EventId, usize))| {
            let mut bytes = Vec::new();
            node.disk.read_log(position.plus(8), position.plus(24), &mut bytes);
            bytes == id.0.0
        };
        if positions.iter().any(|&position| node.is_rotten(position)) {
            return Err(Damaged);
        }
        let all = first == claimed + 1 && positions.len() == events.len() && positions.iter().zip(events).all(same);
        Ok(all.then_some(first))
    }

    /// What is acknowledged is committed, where the acknowledgement says.
    fn check_acknowledged(&mut self, index: usize, task: &Task, position: Option<LogPosition>, first: i64) {
        let Task::Write { stream, events, .. } = task else { return };
        for (number, (id, _)) in (first..).zip(events) {
            let there = self.reference.events.get(id).is_some_and(|place| {
                *place.stream == **stream
                    && place.number == number
                    && position.is_none_or(|position| place.record == position)
            });
            if !there {
                let found = self.reference.events.get(id);
                let detail =
                    format!("n{index} acknowledges event {number} of {stream} at {position:?}; committed is {found:?}");
                return self.object(Checker::Acknowledged, detail);
            }
        }
    }

    /// Sends an answer to the client.
    fn answer(&mut self, attempt: u64, outcome: Outcome) {
        let delay = within(&mut self.random.workload, self.profile.network);
        self.agenda.plan(self.now + delay, Event::Answer { attempt, outcome });
    }
}

fn plain(ticket: Ticket, kind: RecordKind, expected_version: ExpectedVersion, body: BatchBuilder) -> Append {
    let event_count = body.event_count();
    let body = body.finish();
    Append {
        ticket,
        kind,
        expected_version,
        guard: None,
        event_count,
        body,
        metadata_of: None,
        revival: None,
        deadline: Ticks(u64::MAX),
        handed_over: Ticks(0),
        queued: None,
    }
}
