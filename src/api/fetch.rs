//! Single records and events where they lie in the log, for what writes must know of earlier ones.

use crate::api::edge::EdgeLinks;
use crate::api::reading::reader;
use crate::codec::record::{BatchView, RecordView};
use crate::index::NotReady;
use crate::types::{EventId, LogPosition};

/// Looks at the batch of the committed record at `position`; `None` when it cannot be read.
pub(super) fn batch<R>(links: &EdgeLinks, position: LogPosition, look: impl FnOnce(BatchView<'_>) -> R) -> Option<R> {
    let mut look = Some(look);
    let mut seen = None;
    let read = links.log.with_chunk(position, &mut |bytes| {
        let record = RecordView::trust(bytes, position, links.layout.room(position)).ok();
        let batch = record.as_ref().and_then(BatchView::read);
        seen = batch.and_then(|batch| look.take().map(|look| look(batch)));
    });
    if let Err(error) = read {
        tracing::error!(%position, %error, "a committed record cannot be read");
    }
    seen
}

/// True when the events of `stream` from number `first` on are these, all of them.
///
/// # Errors
/// [`NotReady`]: where they lie is not known now.
pub(super) fn are_there(links: &EdgeLinks, stream: &str, first: i64, ids: &[EventId]) -> Result<bool, NotReady> {
    let reader = reader(links);
    let mut positions = Vec::new();
    let found = links.index.positions(stream, first, ids.len(), &mut positions)?;
    Ok(found == first
        && positions.len() == ids.len()
        && ids.iter().zip(&positions).zip(first..).all(|((id, &position), number)| {
            reader.with_event(position, number, |event| event.id == *id).is_ok_and(|same| same)
        }))
}

/// The data of the last event of `stream`; empty when there is none.
///
/// # Errors
/// [`NotReady`]: where it lies is not known now.
pub(super) fn last_data(links: &EdgeLinks, stream: &str) -> Result<Vec<u8>, NotReady> {
    let last = links.index.head(stream)?.last_event_number;
    let mut positions = Vec::new();
    if (0..i64::MAX).contains(&last) {
        links.index.positions(stream, last, 1, &mut positions)?;
    }
    let Some(&position) = positions.first() else {
        return Ok(Vec::new());
    };
    Ok(reader(links).with_event(position, last, |event| event.data.to_vec()).unwrap_or_default())
}
