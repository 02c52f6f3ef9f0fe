//! Single records and events where they lie in the log, for what writes must know of earlier ones.

use std::ops::ControlFlow;

use crate::api::edge::EdgeLinks;
use crate::api::log_events::FetchError;
use crate::api::reading::reader;
use crate::codec::record::BatchView;
use crate::types::{EventId, LogPosition};

/// Looks at the batch of the committed record at `position`.
///
/// # Errors
/// [`FetchError`], and then `look` was not called.
pub(super) fn batch<R>(
    links: &EdgeLinks,
    position: LogPosition,
    look: impl FnOnce(BatchView<'_>) -> R,
) -> Result<R, FetchError> {
    reader(links).with_hidden_batch(position, look)
}

/// True when the events of `stream` from number `first` on are these, all of them.
///
/// # Errors
/// [`FetchError`]: it is not known.
pub(super) fn are_there(links: &EdgeLinks, stream: &str, first: i64, ids: &[EventId]) -> Result<bool, FetchError> {
    let reader = reader(links);
    let mut positions = Vec::new();
    let found = links.index.positions(stream, first, ids.len(), &mut positions)?;
    if found != first || positions.len() != ids.len() {
        return Ok(false);
    }
    let (mut ids, mut are_same) = (ids.iter(), true);
    reader.with_events((first..).zip(positions), |event| {
        are_same = ids.next() == Some(&event.id);
        Ok::<_, FetchError>(if are_same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(are_same)
}

/// The data of the last event of `stream`; empty when there is none.
///
/// # Errors
/// [`FetchError`].
pub(super) fn last_data(links: &EdgeLinks, stream: &str) -> Result<Vec<u8>, FetchError> {
    let last = links.index.head(stream)?.last_event_number;
    let mut positions = Vec::new();
    if (0..i64::MAX).contains(&last) {
        links.index.positions(stream, last, 1, &mut positions)?;
    }
    let Some(&position) = positions.first() else {
        return Ok(Vec::new());
    };
    reader(links).with_event(position, last, |event| event.data.to_vec())
}
