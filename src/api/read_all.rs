//! Reads of the whole log, in either direction: no index needed, the log itself is the order.
//!
//! An event's position is (position of its record, position of its entry in it), compared in that order. Any pair of
//! numbers is a place between events, so a position that no server gave is as good as one that did.

use std::ops::ControlFlow;

use crate::api::access::{ALL_STREAM, Action, is_allowed};
use crate::api::links::LINK_TYPE;
use crate::api::log_events::{FetchError, PageClock, Reader};
use crate::api::reads::{Refusal, page_size};
use crate::api::users::Identity;
use crate::codec::client::event::Resolved;
use crate::codec::client::messages::ReadAllResult;
use crate::codec::client::page::AllPage;
use crate::codec::client::request::{Direction, ReadAll};
use crate::codec::client::response;
use crate::codec::client::{AllPosition, Command, ProtocolLevel};
use crate::codec::record::{BatchView, EVENT_HEADER_BYTES, EventView};
use crate::types::{Guid, LogPosition};

/// The place of an event.
fn place(event: &EventView<'_>) -> AllPosition {
    AllPosition { commit: event.commit_position.as_i64(), prepare: event.prepare_position.as_i64() }
}

/// A page being filled, and how far it got.
struct Filling<'p, 'o> {
    page: &'p mut AllPage<'o>,
    /// Events that may still be added.
    room: usize,
    /// Where to read next.
    next: AllPosition,
    resolve_for: Option<&'p Identity>,
    clock: PageClock,
}

impl Filling<'_, '_> {
    /// Adds an event; false when the page has no room for its bytes.
    fn push(&mut self, reader: &Reader<'_>, event: &EventView<'_>) -> Result<bool, Refusal> {
        let fits = match self.resolve_for {
            Some(identity) => {
                if event.event_type == LINK_TYPE {
                    self.clock.went_elsewhere();
                }
                reader.resolve(event, Some(identity), |entry| self.page.push(entry))?
            }
            None => self.page.push(Resolved::plain(event)),
        };
        // Out of time is full, too.
        let is_over = self.clock.is_over(event.prepare_position);
        self.room = if is_over { 0 } else { self.room - usize::from(fits) };
        Ok(fits)
    }
}

impl Reader<'_> {
    /// Answers ReadAllEventsForward and ReadAllEventsBackward.
    pub fn read_all(
        &self,
        request: &ReadAll,
        identity: &Identity,
        level: ProtocolLevel,
        correlation: Guid,
        out: &mut Vec<u8>,
    ) {
        let command = match request.direction {
            Direction::Forward => Command::ReadAllEventsForwardCompleted,
            Direction::Backward => Command::ReadAllEventsBackwardCompleted,
        };
        let applied = self.index.walk_limit();
        let end = AllPosition { commit: applied.as_i64(), prepare: applied.as_i64() };
        let from = if request.from == AllPosition::END { end } else { request.from };
        let start = out.len();
        let mut page = AllPage::begin(out, command, correlation, level, from);
        match self.fill_all_page(request, from, applied, identity, &mut page) {
            Ok(next) => page.finish(next),
            Err(Refusal::Error(text)) => page.fail(ReadAllResult::Error, Some(&text)),
            Err(Refusal::Fetch(error)) if self.is_passing(&error) => {
                out.truncate(start);
                response::not_ready(out, correlation);
            }
            Err(Refusal::Fetch(error)) => page.fail(ReadAllResult::Error, Some(&self.words_of(&error))),
            Err(Refusal::Denied | Refusal::Unreadable(..)) => page.fail(ReadAllResult::AccessDenied, None),
        }
    }

    fn fill_all_page(
        &self,
        request: &ReadAll,
        from: AllPosition,
        applied: LogPosition,
        identity: &Identity,
        page: &mut AllPage<'_>,
    ) -> Result<AllPosition, Refusal> {
        let size = page_size(request.max_count)?;
        if from.commit < 0 || from.prepare < 0 {
            return Err(Refusal::Error("Invalid position.".into()));
        }
        if !is_allowed(self.index, identity, Action::Read, ALL_STREAM)? {
            return Err(Refusal::Denied);
        }
        let room = usize::try_from(size).expect("checked");
        let (commit, applied_bytes) = (from.commit.cast_unsigned(), applied.0);
        let bytes_left = match request.direction {
            Direction::Forward => applied_bytes.saturating_sub(commit),
            Direction::Backward => applied_bytes.min(commit),
        };
        // No event takes less of the log than the head of its entry.
        page.expect(usize::try_from(bytes_left).map_or(room, |bytes| room.min(bytes / EVENT_HEADER_BYTES + 1)));
        let mut filling = Filling {
            page,
            room,
            next: from,
            resolve_for: request.resolve_links.then_some(identity),
            clock: PageClock::start(self),
        };
        match request.direction {
            Direction::Forward => self.fill_all_forward(from, applied, &mut filling)?,
            Direction::Backward => self.fill_all_backward(from, applied, &mut filling)?,
        }
        Ok(filling.next)
    }

    fn fill_all_forward(
        &self,
        from: AllPosition,
        applied: LogPosition,
        filling: &mut Filling<'_, '_>,
    ) -> Result<(), Refusal> {
        let first = LogPosition(from.commit.cast_unsigned());
        if first >= applied {
            return Ok(());
        }
        let mut refusal = None;
        self.walk(self.walk_start(first, &mut filling.clock)?, applied, &mut |batch, end| {
            if batch.record_position() < first {
                return ControlFlow::Continue(());
            }
            self.add_record(batch, end, from, filling).unwrap_or_else(|refused| {
                refusal = Some(refused);
                ControlFlow::Break(())
            })
        })?;
        refusal.map_or(Ok(()), Err)
    }

    /// Adds the events of a record from `from` on; breaks when the page is full.
    fn add_record(
        &self,
        batch: &BatchView<'_>,
        end: LogPosition,
        from: AllPosition,
        filling: &mut Filling<'_, '_>,
    ) -> Result<ControlFlow<()>, Refusal> {
        if filling.room == 0 {
            // The next place was set behind the record before.
            return Ok(ControlFlow::Break(()));
        }
        let mut added = false;
        for event in batch.events().filter(|event| place(event) >= from) {
            if filling.room == 0 || !filling.push(self, &event)? {
                filling.next = place(&event);
                return Ok(ControlFlow::Break(()));
            }
            added = true;
        }
        if added {
            filling.next = AllPosition { commit: end.as_i64(), prepare: 0 };
        }
        Ok(ControlFlow::Continue(()))
    }

    fn fill_all_backward(
        &self,
        from: AllPosition,
        applied: LogPosition,
        filling: &mut Filling<'_, '_>,
    ) -> Result<(), Refusal> {
        // Records that begin at or before `from` may hold events before it.
        let mut limit = LogPosition(from.commit.cast_unsigned()).min(applied).plus(1).min(applied);
        while limit > LogPosition::ZERO {
            let start = match self.walk_start(LogPosition(limit.0 - 1), &mut filling.clock) {
                // The page ends with the events that it has.
                Err(FetchError::NotReady(_)) if filling.next != from => return Ok(()),
                start => start?,
            };
            let unreadable = self.log.unreadable();
            let mut records = Vec::new();
            self.walk(start, limit, &mut |batch, _| {
                records.push(batch.record_position());
                ControlFlow::Continue(())
            })?;
            let mut is_full = false;
            self.with_batches(records.into_iter().rev(), |batch| {
                let flow = self.add_record_backward(batch, from, filling)?;
                is_full = flow.is_break();
                Ok::<_, Refusal>(flow)
            })?;
            self.still_readable(start, unreadable)?;
            if is_full {
                return Ok(());
            }
            limit = start;
        }
        Ok(())
    }

    /// Adds the events of a record that lie before `from`, last one first; breaks when the page is full.
    fn add_record_backward(
        &self,
        batch: &BatchView<'_>,
        from: AllPosition,
        filling: &mut Filling<'_, '_>,
    ) -> Result<ControlFlow<()>, Refusal> {
        let before = || batch.events().take_while(|event| place(event) < from);
        if batch.event_count() <= 1 {
            // The common case needs no list.
            return self.add_newest_first(before(), filling);
        }
        let too_many = before().count().saturating_sub(filling.room);
        let newest: Vec<_> = before().skip(too_many).collect();
        self.add_newest_first(newest.into_iter().rev(), filling)
    }

    fn add_newest_first<'e>(
        &self,
        events: impl Iterator<Item = EventView<'e>>,
        filling: &mut Filling<'_, '_>,
    ) -> Result<ControlFlow<()>, Refusal> {
        for event in events {
            if filling.room == 0 || !filling.push(self, &event)? {
                return Ok(ControlFlow::Break(()));
            }
            filling.next = place(&event);
        }
        Ok(if filling.room == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

#[cfg(test)]
#[path = "read_all_tests.rs"]
mod tests;
