//! Streams as readers see them, and links from one stream to another.

use std::sync::Arc;

use crate::api::access::{Action, is_allowed};
use crate::api::log_events::{FetchError, Reader};
use crate::api::users::Identity;
use crate::codec::client::event::Resolved;
use crate::codec::client::messages::{ReadEventResult, ReadStreamResult};
use crate::codec::record::EventView;
use crate::index::{NotReady, StreamMetadata};
use crate::types::{EventNumber, LogPosition, base_stream};

/// The type of link events; their data is `N@stream`.
pub(super) const LINK_TYPE: &str = "$>";

/// A stream with readable events.
pub(super) struct StreamView {
    /// Number of its last event.
    pub(super) last: i64,
    /// First number that `$tb` and `$maxCount` leave readable.
    pub(super) first: i64,
    /// For `$maxAge`.
    pub(super) metadata: Arc<StreamMetadata>,
}

/// Why a stream has nothing to read, with its last event number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// No events, or softly deleted.
    NoStream {
        /// -1, or the real last number of a soft-deleted stream.
        last: i64,
    },
    /// Has a tombstone (a metadata stream: its stream has).
    Deleted,
}

impl Unreadable {
    pub(super) fn stream_result(self) -> (ReadStreamResult, i64) {
        match self {
            Unreadable::NoStream { last } => (ReadStreamResult::NoStream, last),
            Unreadable::Deleted => (ReadStreamResult::StreamDeleted, EventNumber::TOMBSTONE.0),
        }
    }

    fn event_result(self) -> ReadEventResult {
        match self {
            Unreadable::NoStream { .. } => ReadEventResult::NoStream,
            Unreadable::Deleted => ReadEventResult::StreamDeleted,
        }
    }
}

/// Why an entry could not be delivered.
pub(super) enum ResolveError {
    /// The caller may not read the link's target.
    Denied,
    /// The log failed.
    Fetch(FetchError),
}

impl From<NotReady> for ResolveError {
    fn from(error: NotReady) -> ResolveError {
        ResolveError::Fetch(error.into())
    }
}

impl From<FetchError> for ResolveError {
    fn from(error: FetchError) -> ResolveError {
        ResolveError::Fetch(error)
    }
}

/// An event that its stream's limits leave readable, `$maxAge` aside.
pub(super) struct Located {
    pub(super) position: LogPosition,
    pub(super) number: i64,
    pub(super) metadata: Arc<StreamMetadata>,
}

impl Reader<'_> {
    /// The readable range of `stream`.
    ///
    /// # Errors
    /// [`NotReady`]: the stream is not known now.
    pub(super) fn stream_view(&self, stream: &str) -> Result<Result<StreamView, Unreadable>, NotReady> {
        let tombstone = EventNumber::TOMBSTONE.0;
        // A metadata stream goes with its stream.
        if let Some(base) = base_stream(stream)
            && self.index.head(base)?.last_event_number == tombstone
        {
            return Ok(Err(Unreadable::Deleted));
        }
        let Some(info) = self.index.stream(stream)? else { return Ok(Err(Unreadable::NoStream { last: -1 })) };
        if info.hard_deleted {
            return Ok(Err(Unreadable::Deleted));
        }
        let last = info.last_event_number;
        if last < 0 || info.is_soft_deleted() {
            return Ok(Err(Unreadable::NoStream { last }));
        }
        Ok(Ok(StreamView { last, first: info.first_readable(), metadata: info.metadata }))
    }

    /// Where event `number` of `stream` lies (-1: the last one).
    ///
    /// # Errors
    /// [`NotReady`]: the stream is not known now.
    pub(super) fn locate(&self, stream: &str, number: i64) -> Result<Result<Located, ReadEventResult>, NotReady> {
        let view = match self.stream_view(stream)? {
            Ok(view) => view,
            Err(unreadable) => return Ok(Err(unreadable.event_result())),
        };
        let number = if number == EventNumber::NONE.0 { view.last } else { number };
        if number < view.first || number > view.last {
            return Ok(Err(ReadEventResult::NotFound));
        }
        let mut positions = Vec::with_capacity(1);
        let first = self.index.positions(stream, number, 1, &mut positions)?;
        Ok(match positions.first() {
            Some(&position) if first == number => Ok(Located { position, number, metadata: view.metadata }),
            _ => Err(ReadEventResult::NotFound),
        })
    }

    /// Calls `deliver` once with `event` as a reader who asked for links to be resolved gets it. Without an `identity` the
    /// right to read a link's target is not checked.
    pub(super) fn resolve<T>(
        &self,
        event: &EventView<'_>,
        identity: Option<&Identity>,
        deliver: impl FnOnce(Resolved<'_>) -> T,
    ) -> Result<T, ResolveError> {
        let Some((number, stream)) = link_target(event) else { return Ok(deliver(Resolved::plain(event))) };
        if let Some(identity) = identity
            && !is_allowed(self.index, identity, Action::Read, stream)?
        {
            return Err(ResolveError::Denied);
        }
        let gone = Resolved { event: None, link: Some(event) };
        let Ok(located) = self.locate(stream, number)? else { return Ok(deliver(gone)) };
        let delivered = self.with_event(located.position, located.number, |target| {
            let is_expired = located.metadata.is_expired(target.timestamp, self.now);
            deliver(if is_expired { gone } else { Resolved { event: Some(target), link: Some(event) } })
        })?;
        Ok(delivered)
    }
}

/// Number and stream that a link points to; `None` when the event is not a link or its data cannot be read as one.
fn link_target<'a>(event: &EventView<'a>) -> Option<(i64, &'a str)> {
    if event.event_type != LINK_TYPE {
        return None;
    }
    let (number, stream) = std::str::from_utf8(event.data).ok()?.split_once('@')?;
    let number = number.trim().parse().ok()?;
    (number >= EventNumber::NONE.0 && !stream.is_empty()).then_some((number, stream))
}
