//! What writes that are not in the index yet did to their streams, over what the index says.
//!
//! Only a leader has entries here: those of its own appends until the index has applied them. A new leader takes no
//! write before the index has applied all that it inherited, so overlay and index together are the whole truth.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::index::{Index, StreamHead};
use crate::types::{EventId, LogPosition};

/// A stream as the next write finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) last_event_number: i64,
    pub(super) soft_deleted: bool,
    pub(super) has_metadata: bool,
    /// The end of the last record that changed it, when that is not in the index yet; zero otherwise.
    pub(super) end: LogPosition,
}

impl Head {
    pub(super) fn is_hard_deleted(&self) -> bool {
        self.last_event_number == i64::MAX
    }
}

/// Stream by hash, and event: one client may use the same identifier in several streams.
type RecentKey = (u64, EventId);

/// Where an event that is not in the index yet was put.
#[derive(Clone, Debug)]
struct RecentEvent {
    stream: Arc<str>,
    event_number: i64,
    end: LogPosition,
}

#[derive(Debug)]
struct Entry {
    end: LogPosition,
    streams: [Option<Arc<str>>; 2],
    ids: Vec<EventId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Heads {
    index: Arc<Index>,
    heads: HashMap<Arc<str>, Head, FixedState>,
    recent: HashMap<RecentKey, RecentEvent, FixedState>,
    entries: VecDeque<Entry>,
}

impl Heads {
    pub(super) fn new(index: Arc<Index>) -> Heads {
        Heads {
            index,
            heads: HashMap::with_hasher(FixedState::default()),
            recent: HashMap::with_hasher(FixedState::default()),
            entries: VecDeque::new(),
        }
    }

    pub(super) fn applied(&self) -> LogPosition {
        self.index.applied()
    }

    pub(super) fn get(&self, stream: &str) -> Head {
        self.heads.get(stream).copied().unwrap_or_else(|| {
            let StreamHead { last_event_number, soft_deleted, has_metadata, .. } = self.index.head(stream);
            Head { last_event_number, soft_deleted, has_metadata, end: LogPosition::ZERO }
        })
    }

    /// The number under which this event was written to `stream` lately, and the end of its record if the index has
    /// not applied it.
    pub(super) fn recent(&self, stream: &str, id: EventId) -> Option<(i64, LogPosition)> {
        match self.recent.get(&recent_key(stream, id)) {
            Some(event) if &*event.stream == stream => Some((event.event_number, event.end)),
            _ => self.index.recent(stream, id).map(|number| (number, LogPosition::ZERO)),
        }
    }

    /// Remembers a write of `ids` to `stream`, the first with number `first`, that leaves it as `head`; and what it
    /// did to the stream that its metadata is about.
    pub(super) fn wrote(
        &mut self,
        stream: &Arc<str>,
        head: Head,
        first: i64,
        ids: Vec<EventId>,
        base: Option<(&Arc<str>, Head)>,
    ) {
        let end = head.end;
        for (offset, id) in ids.iter().enumerate() {
            let event_number = first.saturating_add(offset as i64);
            self.recent.insert(recent_key(stream, *id), RecentEvent { stream: Arc::clone(stream), event_number, end });
        }
        self.heads.insert(Arc::clone(stream), head);
        if let Some((base, head)) = base {
            self.heads.insert(Arc::clone(base), Head { end, ..head });
        }
        let streams = [Some(Arc::clone(stream)), base.map(|(base, _)| Arc::clone(base))];
        self.entries.push_back(Entry { end, streams, ids });
    }

    /// Forgets what the index has applied by now.
    pub(super) fn evict(&mut self) {
        let applied = self.index.applied();
        while self.entries.front().is_some_and(|entry| entry.end <= applied) {
            let entry = self.entries.pop_front().expect("just seen");
            for stream in entry.streams.iter().flatten() {
                if self.heads.get(stream).is_some_and(|head| head.end <= applied) {
                    self.heads.remove(stream);
                }
            }
            let written_to = entry.streams[0].as_deref().unwrap_or_default();
            for &id in &entry.ids {
                let key = recent_key(written_to, id);
                if self.recent.get(&key).is_some_and(|event| event.end <= applied) {
                    self.recent.remove(&key);
                }
            }
        }
    }

    /// Leadership is lost: nothing here is known to survive.
    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.recent.clear();
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn recent_key(stream: &str, id: EventId) -> RecentKey {
    (FixedState::with_seed(1).hash_one(stream), id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Guid;

    #[test]
    fn one_identifier_in_two_streams_is_known_in_both() {
        let mut heads = Heads::new(Arc::new(Index::new()));
        let (orders, bills): (Arc<str>, Arc<str>) = ("orders".into(), "bills".into());
        let id = EventId(Guid([5; 16]));
        for (stream, number) in [(&orders, 3), (&bills, 8)] {
            let end = LogPosition(64 * number as u64);
            let head = Head { last_event_number: number, soft_deleted: false, has_metadata: false, end };
            heads.wrote(stream, head, number, vec![id], None);
        }
        assert_eq!(heads.recent("orders", id), Some((3, LogPosition(192))));
        assert_eq!(heads.recent("bills", id), Some((8, LogPosition(512))));
        assert_eq!(heads.recent("letters", id), None);
    }
}
