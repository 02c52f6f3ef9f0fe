//! Reads of one stream: an event, or a page in either direction, from the index and the log into the answer.
//!
//! Pure and synchronous: what is asked, by whom, at what time; the answer's frame is appended to an output buffer. Event
//! data is copied once, from the log into the answer. Reads of the whole log are in [`read_all`](super::read_all).
//! Whether this node should answer at all (`require_master`) is for the session to say.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::api::access::{Action, is_allowed};
use crate::api::links::{LINK_TYPE, Located, ResolveError, StreamView};
use crate::api::log_events::{FetchError, PageClock, Reader};
use crate::api::users::Identity;
use crate::codec::client::event::Resolved;
use crate::codec::client::messages::{ReadEventResult, ReadStreamResult};
use crate::codec::client::page::{StreamPage, StreamPageEnd, read_event_failed, read_event_succeeded};
use crate::codec::client::request::{Direction, ReadEvent, ReadStream};
use crate::codec::client::response;
use crate::codec::client::{Command, ProtocolLevel};
use crate::codec::record::EventView;
use crate::index::NotReady;
use crate::limits::READ_PAGE_EVENTS_MAX;
use crate::types::{EventNumber, Guid};

/// Why a page was not read.
pub(super) enum Refusal {
    /// No right, to the stream or to a link's target.
    Denied,
    /// Words for the client.
    Error(Cow<'static, str>),
    /// Nothing to read there, and the last event number.
    Unreadable(ReadStreamResult, i64),
    /// The log failed, or the index does not know now.
    Fetch(FetchError),
}

impl From<NotReady> for Refusal {
    fn from(error: NotReady) -> Refusal {
        Refusal::Fetch(error.into())
    }
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Refusal {
        Refusal::Fetch(error)
    }
}

impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Refusal {
        match error {
            ResolveError::Denied => Refusal::Denied,
            ResolveError::Fetch(error) => error.into(),
        }
    }
}

/// The size of a page as a number that can be counted to.
pub(super) fn page_size(max_count: i32) -> Result<i64, Refusal> {
    if max_count > READ_PAGE_EVENTS_MAX {
        // The words of v5; the limit itself is allowed.
        return Err(Refusal::Error("Read size too big, should be less than 4096 items".into()));
    }
    if max_count < 1 {
        return Err(Refusal::Error(
            format!("max_count is {max_count}, it should be 1 to {READ_PAGE_EVENTS_MAX}").into(),
        ));
    }
    Ok(i64::from(max_count))
}

/// Numbers `first..=last` of a stream are to be delivered.
#[derive(Clone, Copy)]
struct Range {
    first: i64,
    last: i64,
}

/// What became of a range.
#[derive(Clone, Copy, Default)]
struct Delivered {
    /// The number delivered last.
    last: Option<i64>,
    /// The number for which the page had no room or no time any more.
    stopped_at: Option<i64>,
}

impl Reader<'_> {
    /// Answers ReadEvent.
    pub fn read_event(&self, request: &ReadEvent, identity: &Identity, correlation: Guid, out: &mut Vec<u8>) {
        let start = out.len();
        if let Err(refusal) = self.find_event(request, identity, correlation, out) {
            out.truncate(start);
            match refusal {
                EventRefusal::Result(result) => self.answer_no_event(request, result, correlation, out),
                EventRefusal::Error(error) if self.is_passing(&error) => response::not_ready(out, correlation),
                EventRefusal::Error(error) => {
                    let words = self.words_of(&error);
                    read_event_failed(out, correlation, ReadEventResult::Error, Some(&words));
                }
            }
        }
    }

    fn find_event(
        &self,
        request: &ReadEvent,
        identity: &Identity,
        correlation: Guid,
        out: &mut Vec<u8>,
    ) -> Result<(), EventRefusal> {
        if !is_allowed(self.index, identity, Action::Read, &request.stream)? {
            return Err(EventRefusal::Result(ReadEventResult::AccessDenied));
        }
        let located = self.locate(&request.stream, request.event_number)??;
        let Located { position, number, metadata } = located;
        self.with_event(position, number, |event| {
            if metadata.is_expired(event.timestamp, self.now) {
                return Err(EventRefusal::Result(ReadEventResult::NotFound));
            }
            if request.resolve_links {
                self.resolve(event, Some(identity), |entry| read_event_succeeded(out, correlation, entry))?;
            } else {
                read_event_succeeded(out, correlation, Resolved::plain(event));
            }
            Ok(())
        })?
    }

    /// What the client is told about a read that failed. Damage is logged by those who repair it, once.
    pub(super) fn words_of(&self, error: &FetchError) -> String {
        if !matches!(error, FetchError::Record { .. }) {
            tracing::error!(%error, "a read failed");
        }
        error.to_string()
    }

    fn answer_no_event(&self, request: &ReadEvent, result: ReadEventResult, correlation: Guid, out: &mut Vec<u8>) {
        let is_missing = matches!(result, ReadEventResult::NoStream | ReadEventResult::NotFound);
        match self.is_beside_a_stream(&request.stream) {
            Ok(true) if is_missing => read_event_succeeded(out, correlation, Resolved { event: None, link: None }),
            Err(NotReady) if is_missing => response::not_ready(out, correlation),
            _ => read_event_failed(out, correlation, result, None),
        }
    }

    /// A quirk that clients know as "no metadata": nothing to be found under a name with `$` in front, but a stream exists
    /// that is named like it without its first two characters.
    fn is_beside_a_stream(&self, stream: &str) -> Result<bool, NotReady> {
        let mut rest = stream.chars();
        let named = rest.next() == Some('$') && rest.next().is_some();
        Ok(named && (0..EventNumber::TOMBSTONE.0).contains(&self.index.head(rest.as_str())?.last_event_number))
    }

    /// Answers ReadStreamEventsForward and ReadStreamEventsBackward.
    pub fn read_stream(
        &self,
        request: &ReadStream,
        identity: &Identity,
        level: ProtocolLevel,
        correlation: Guid,
        out: &mut Vec<u8>,
    ) {
        let command = match request.direction {
            Direction::Forward => Command::ReadStreamEventsForwardCompleted,
            Direction::Backward => Command::ReadStreamEventsBackwardCompleted,
        };
        let start = out.len();
        let mut page = StreamPage::begin(out, command, correlation);
        let failed = |last_event_number, last_commit_position| StreamPageEnd {
            next_event_number: -1,
            last_event_number,
            is_end_of_stream: true,
            last_commit_position,
        };
        // Before the events: a client must be able to rely on having seen everything up to it.
        let last = self.last_position();
        let last_commit_position = *last.as_ref().unwrap_or(&-1);
        let filled = last.map_err(Refusal::Fetch).and_then(|_| self.fill_stream_page(request, identity, &mut page));
        match filled {
            Ok(end) => page.finish(level, StreamPageEnd { last_commit_position, ..end }),
            Err(Refusal::Fetch(error)) if self.is_passing(&error) => {
                out.truncate(start);
                response::not_ready(out, correlation);
            }
            Err(Refusal::Fetch(error)) => {
                let words = self.words_of(&error);
                page.fail(level, ReadStreamResult::Error, failed(-1, last_commit_position), &words);
            }
            Err(Refusal::Denied) => {
                page.fail(level, ReadStreamResult::AccessDenied, failed(-1, last_commit_position), "");
            }
            Err(Refusal::Error(text)) => {
                page.fail(level, ReadStreamResult::Error, failed(-1, last_commit_position), &text);
            }
            Err(Refusal::Unreadable(result, last)) => page.fail(level, result, failed(last, last_commit_position), ""),
        }
    }

    fn fill_stream_page(
        &self,
        request: &ReadStream,
        identity: &Identity,
        page: &mut StreamPage<'_>,
    ) -> Result<StreamPageEnd, Refusal> {
        let size = page_size(request.max_count)?;
        if !is_allowed(self.index, identity, Action::Read, &request.stream)? {
            return Err(Refusal::Denied);
        }
        if request.direction == Direction::Forward && request.from < 0 {
            let text = format!("from_event_number is {}, a forward read begins at 0 or more", request.from);
            return Err(Refusal::Error(text.into()));
        }
        let view = self.stream_view(&request.stream)?.map_err(|unreadable| {
            let (result, last) = unreadable.stream_result();
            Refusal::Unreadable(result, last)
        })?;
        match request.direction {
            Direction::Forward => self.fill_forward(request, size, &view, identity, page),
            Direction::Backward => self.fill_backward(request, size, &view, identity, page),
        }
    }

    fn fill_forward(
        &self,
        request: &ReadStream,
        size: i64,
        view: &StreamView,
        identity: &Identity,
        page: &mut StreamPage<'_>,
    ) -> Result<StreamPageEnd, Refusal> {
        let end = request.from.saturating_add(size - 1);
        if end < view.first {
            return Ok(page_end(view.first, view, false));
        }
        let range = Range { first: request.from.max(view.first), last: end.min(view.last) };
        let delivered = self.deliver(request, range, view, identity, page)?;
        let next = match delivered {
            Delivered { last: Some(last), .. } => last + 1,
            Delivered { stopped_at: Some(number), .. } => number,
            _ => end.min(view.last) + 1,
        };
        Ok(page_end(next, view, delivered.stopped_at.is_none() && end >= view.last))
    }

    fn fill_backward(
        &self,
        request: &ReadStream,
        size: i64,
        view: &StreamView,
        identity: &Identity,
        page: &mut StreamPage<'_>,
    ) -> Result<StreamPageEnd, Refusal> {
        let end = if request.from < 0 { view.last } else { request.from };
        if end < view.first {
            return Ok(page_end(-1, view, true));
        }
        let start = (end - (size - 1)).max(view.first);
        let delivered =
            self.deliver(request, Range { first: start, last: end.min(view.last) }, view, identity, page)?;
        if let Some(number) = delivered.stopped_at {
            return Ok(page_end(number, view, false));
        }
        // Where the page's first number is missing, all before it is: expired or scavenged.
        let is_end = start <= view.first || (start <= view.last && delivered.last != Some(start));
        Ok(page_end(if is_end { -1 } else { (start - 1).min(view.last) }, view, is_end))
    }

    /// Puts the events of `range` that are not expired into the page, in the order of the read.
    fn deliver(
        &self,
        request: &ReadStream,
        range: Range,
        view: &StreamView,
        identity: &Identity,
        page: &mut StreamPage<'_>,
    ) -> Result<Delivered, Refusal> {
        let mut delivered = Delivered::default();
        let count = usize::try_from(range.last - range.first + 1).unwrap_or(0);
        if count == 0 {
            return Ok(delivered);
        }
        let mut positions = Vec::with_capacity(count);
        let first = self.index.positions(&request.stream, range.first, count, &mut positions)?;
        page.expect(positions.len());
        let mut clock = PageClock::start(self);
        let visit = |event: &EventView<'_>| -> Result<ControlFlow<()>, Refusal> {
            let number = event.event_number.0;
            if delivered.last.is_some() && clock.is_over(event.prepare_position) {
                delivered.stopped_at = Some(number);
                return Ok(ControlFlow::Break(()));
            }
            if view.metadata.is_expired(event.timestamp, self.now) {
                return Ok(ControlFlow::Continue(()));
            }
            let fits = if request.resolve_links && event.event_type == LINK_TYPE {
                clock.went_elsewhere();
                self.resolve(event, Some(identity), |entry| page.push(entry))?
            } else {
                page.push(Resolved::plain(event))
            };
            if !fits {
                delivered.stopped_at = Some(number);
                return Ok(ControlFlow::Break(()));
            }
            delivered.last = Some(number);
            Ok(ControlFlow::Continue(()))
        };
        // Consecutive numbers, the range's end at most: the stream may have grown meanwhile.
        let numbered = (first..=range.last).zip(positions.iter().copied());
        match request.direction {
            Direction::Forward => self.with_events(numbered, visit)?,
            Direction::Backward => {
                let numbered: Vec<_> = numbered.collect();
                self.with_events(numbered.into_iter().rev(), visit)?;
            }
        }
        Ok(delivered)
    }
}

/// The end of a page; the commit position is filled in by the caller.
fn page_end(next_event_number: i64, view: &StreamView, is_end_of_stream: bool) -> StreamPageEnd {
    StreamPageEnd { next_event_number, last_event_number: view.last, is_end_of_stream, last_commit_position: -1 }
}

enum EventRefusal {
    Result(ReadEventResult),
    Error(FetchError),
}

impl From<FetchError> for EventRefusal {
    fn from(error: FetchError) -> EventRefusal {
        EventRefusal::Error(error)
    }
}

impl From<NotReady> for EventRefusal {
    fn from(error: NotReady) -> EventRefusal {
        EventRefusal::Error(error.into())
    }
}

impl From<ReadEventResult> for EventRefusal {
    fn from(result: ReadEventResult) -> EventRefusal {
        EventRefusal::Result(result)
    }
}

impl From<ResolveError> for EventRefusal {
    fn from(error: ResolveError) -> EventRefusal {
        match error {
            ResolveError::Denied => EventRefusal::Result(ReadEventResult::AccessDenied),
            ResolveError::Fetch(error) => EventRefusal::Error(error),
        }
    }
}

#[cfg(test)]
#[path = "reads_tests.rs"]
mod tests;
