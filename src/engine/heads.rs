//! What this leader's writes did to their streams, over what the index says.
//!
//! Only a leader has entries here: those of its own appends. Nobody else writes meanwhile, so an entry stays true when
//! the index has applied it, and is kept for the next write as long as there is room. A new leader takes no write before
//! the index has applied all that it inherited, so entries and index together are the whole truth.
//!
//! That does not go for long names, which would take a lot of memory: their entries go when they are applied.
//!
//! A write costs no allocation once the tables have grown: entries are used again, and so is the memory of their names.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::index::{Index, NotReady, StreamHead};
use crate::limits::{HEADS_KEPT_MAX, RECENT_IDS_MAX, UNAPPLIED_APPENDS_MAX, UNAPPLIED_EVENTS_MAX};
use crate::types::{EventId, LogPosition};

use super::recent::RecentIds;

/// The entry of a longer name is not kept when the index has it.
const NAME_KEPT_BYTES: usize = 128;

/// Identifiers kept at hand at least: about what is written while the index applies what was written before.
const RECENT_IDS_AT_HAND: usize = 8 << 10;

/// "No slot".
const NONE: u32 = u32::MAX;

/// A stream as the next write finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) last_event_number: i64,
    pub(super) soft_deleted: bool,
    pub(super) has_metadata: bool,
    /// The end of the last record that changed it, as far as that is known here. Zero when it is in the index for sure.
    pub(super) end: LogPosition,
}

impl Head {
    pub(super) fn is_hard_deleted(&self) -> bool {
        self.last_event_number == i64::MAX
    }
}

/// The name of a stream, hashed once.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamName<'a> {
    pub(super) text: &'a str,
    hash: u64,
}

/// How long an entry says more than the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// As long as this node leads.
    Term,
    /// Until the index has applied it: then the index knows better, for it reads the metadata itself.
    UntilApplied,
}

/// One stream. In a chain of those with the same bucket, and in a list by the last write.
#[derive(Debug)]
struct Slot {
    hash: u64,
    head: Head,
    validity: Validity,
    chained: u32,
    newer: u32,
    older: u32,
    name: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Heads {
    index: Arc<Index>,
    hasher: FixedState,
    /// The index had applied this much at the end of the last turn.
    applied: LogPosition,
    /// First slots of chains; a power of two, at least as many as slots.
    buckets: Vec<u32>,
    slots: Vec<Slot>,
    newest: u32,
    oldest: u32,
    /// Slots that are in no chain and not in the list.
    free: Vec<u32>,
    /// Writes to streams with long names, in the order of the log: the end of each, and the slot.
    long: VecDeque<(LogPosition, u32)>,
    recent: RecentIds,
    /// Events remembered since this node leads, as far as that matters.
    remembered: usize,
    /// The writes that the index has not applied yet: the end of each, and how many events.
    unapplied: VecDeque<(LogPosition, usize)>,
    unapplied_events: usize,
}

impl Heads {
    /// What they stand over.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// The seed keeps others from making names clash on purpose.
    pub(super) fn new(index: Arc<Index>, seed: u64) -> Heads {
        Heads {
            index,
            hasher: FixedState::with_seed(seed),
            applied: LogPosition::ZERO,
            buckets: vec![NONE; 64],
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            free: Vec::new(),
            long: VecDeque::new(),
            recent: RecentIds::new(RECENT_IDS_AT_HAND, RECENT_IDS_MAX, seed),
            remembered: 0,
            unapplied: VecDeque::new(),
            unapplied_events: 0,
        }
    }

    /// How far the index is now.
    pub(super) fn applied(&self) -> LogPosition {
        self.index.applied()
    }

    /// True when the index knows every stream.
    pub(super) fn is_ready(&self) -> bool {
        self.index.is_complete()
    }

    pub(super) fn name<'a>(&self, text: &'a str) -> StreamName<'a> {
        StreamName { text, hash: self.hasher.hash_one(text) }
    }

    /// # Errors
    /// [`NotReady`]: a part of the index is missing that may know the stream.
    pub(super) fn get(&self, name: StreamName<'_>) -> Result<Head, NotReady> {
        if let Some(found) = self.find(name).filter(|&slot| self.is_valid(slot)) {
            return Ok(self.slots[found as usize].head);
        }
        let StreamHead { last_event_number, soft_deleted, has_metadata, .. } = self.index.head(name.text)?;
        Ok(Head { last_event_number, soft_deleted, has_metadata, end: LogPosition::ZERO })
    }

    /// Has an entry for the stream, so that [`Heads::known`] may be asked about it until the end of the turn.
    ///
    /// # Errors
    /// As [`Heads::get`].
    pub(super) fn learn(&mut self, name: StreamName<'_>) -> Result<(), NotReady> {
        if let Some(slot) = self.find(name).filter(|&slot| self.is_valid(slot)) {
            // Or it might be the one that makes room.
            self.unlist(slot);
            self.list_as_newest(slot);
        } else {
            let head = self.get(name)?;
            self.set(name, head, Validity::Term);
        }
        Ok(())
    }

    /// The head of a stream that was [learned](Heads::learn) or written to in this turn.
    pub(super) fn known(&self, name: StreamName<'_>) -> Head {
        self.get(name).expect("a stream that a write changes is looked up before it is written")
    }

    /// The number under which this event was written to `stream` lately, and the end of its record if the index may not
    /// have applied it.
    ///
    /// # Errors
    /// As [`Heads::get`].
    pub(super) fn recent(&self, stream: StreamName<'_>, id: EventId) -> Result<Option<(i64, LogPosition)>, NotReady> {
        if let Some(found) = self.recent.get(stream.hash, id) {
            return Ok(Some(found));
        }
        // Once this leader has written as many as the index keeps, the index has no others.
        let may_be_inherited = self.remembered < RECENT_IDS_MAX;
        if !may_be_inherited && !self.recent.may_know(stream.hash, id) {
            return Ok(None);
        }
        Ok(self.index.recent(stream.text, id)?.map(|number| (number, LogPosition::ZERO)))
    }

    /// Remembers the identifier of an event, written to `stream` under `number` in the record that ends at `end`.
    pub(super) fn remember(&mut self, stream: StreamName<'_>, id: EventId, number: i64, end: LogPosition) {
        self.remembered += usize::from(self.remembered < RECENT_IDS_MAX);
        self.recent.insert(stream.hash, id, number, end, self.applied);
    }

    /// A record with so many events ends at `end`, and the index has to apply it.
    pub(super) fn wrote(&mut self, end: LogPosition, events: usize) {
        self.unapplied.push_back((end, events));
        self.unapplied_events += events;
    }

    /// Remembers how a write has left a stream.
    pub(super) fn set(&mut self, name: StreamName<'_>, head: Head, validity: Validity) {
        let slot = match self.find(name) {
            Some(slot) => {
                let in_doubt = self.slots[slot as usize].validity == Validity::UntilApplied && self.is_valid(slot);
                self.slots[slot as usize].validity = if in_doubt { Validity::UntilApplied } else { validity };
                self.unlist(slot);
                slot
            }
            None => self.add(name, validity),
        };
        self.slots[slot as usize].head = head;
        self.list_as_newest(slot);
        if name.text.len() > NAME_KEPT_BYTES {
            self.long.push_back((head.end, slot));
        }
    }

    /// Looks how far the index is.
    pub(super) fn evict(&mut self) {
        if self.unapplied.is_empty() && self.long.is_empty() {
            return;
        }
        self.applied = self.index.applied();
        while let Some(&(end, events)) = self.unapplied.front()
            && end <= self.applied
        {
            self.unapplied.pop_front();
            self.unapplied_events -= events;
        }
        self.free_applied();
    }

    /// Frees the slots of long names that the index has.
    fn free_applied(&mut self) {
        while let Some(&(end, slot)) = self.long.front()
            && end <= self.applied
        {
            self.long.pop_front();
            self.free_long(slot);
        }
    }

    /// Leadership is lost: nothing here is known to survive.
    pub(super) fn clear(&mut self) {
        self.buckets = vec![NONE; 64];
        self.slots = Vec::new();
        (self.newest, self.oldest) = (NONE, NONE);
        self.free = Vec::new();
        self.long = VecDeque::new();
        self.recent.clear();
        self.remembered = 0;
        self.unapplied.clear();
        self.unapplied_events = 0;
    }

    /// True when the index is so far behind that nothing more should be written.
    pub(super) fn is_full(&self) -> bool {
        self.unapplied.len() >= UNAPPLIED_APPENDS_MAX || self.unapplied_events >= UNAPPLIED_EVENTS_MAX
    }

    // --- slots ---

    fn find(&self, name: StreamName<'_>) -> Option<u32> {
        let mut at = self.buckets[self.bucket(name.hash)];
        while at != NONE {
            let slot = &self.slots[at as usize];
            if slot.hash == name.hash && slot.name == name.text {
                return Some(at);
            }
            at = slot.chained;
        }
        None
    }

    fn is_valid(&self, slot: u32) -> bool {
        let slot = &self.slots[slot as usize];
        slot.validity == Validity::Term || slot.head.end > self.applied
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// A slot for a stream that has none, in its chain but not in the list: the one that waits longest, unless there is
    /// room for more or the index does not have it yet.
    fn add(&mut self, name: StreamName<'_>, validity: Validity) -> u32 {
        let oldest = self.slots.get(self.oldest as usize);
        let is_spare = oldest.is_some_and(|slot| slot.head.end <= self.applied);
        let at = if let Some(at) = self.free.pop() {
            at
        } else if self.slots.len() >= HEADS_KEPT_MAX && is_spare {
            let at = self.oldest;
            self.unlist(at);
            self.unchain(at);
            at
        } else {
            self.grow();
            let head = Head { last_event_number: -1, soft_deleted: false, has_metadata: false, end: LogPosition::ZERO };
            let (hash, name) = (0, String::new());
            self.slots.push(Slot { hash, head, validity, chained: NONE, newer: NONE, older: NONE, name });
            (self.slots.len() - 1) as u32
        };
        let bucket = self.bucket(name.hash);
        let slot = &mut self.slots[at as usize];
        (slot.hash, slot.validity) = (name.hash, validity);
        slot.name.clear();
        slot.name.push_str(name.text);
        slot.chained = std::mem::replace(&mut self.buckets[bucket], at);
        at
    }

    /// Frees a slot whose name is long, unless it was written to again.
    fn free_long(&mut self, at: u32) {
        let slot = &self.slots[at as usize];
        if slot.name.len() > NAME_KEPT_BYTES && slot.head.end <= self.applied {
            self.unlist(at);
            self.unchain(at);
            self.slots[at as usize].name = String::new();
            self.free.push(at);
        }
    }

    /// Makes the chains short enough for one more slot. For when none is free.
    fn grow(&mut self) {
        if self.slots.len() < self.buckets.len() {
            return;
        }
        self.buckets = vec![NONE; 2 * self.buckets.len()];
        for at in 0..self.slots.len() {
            let bucket = self.bucket(self.slots[at].hash);
            self.slots[at].chained = std::mem::replace(&mut self.buckets[bucket], at as u32);
        }
    }

    fn unchain(&mut self, slot: u32) {
        let Slot { hash, chained, .. } = self.slots[slot as usize];
        let bucket = self.bucket(hash);
        let mut at = self.buckets[bucket];
        if at == slot {
            self.buckets[bucket] = chained;
            return;
        }
        while self.slots[at as usize].chained != slot {
            at = self.slots[at as usize].chained;
        }
        self.slots[at as usize].chained = chained;
    }

    fn unlist(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }

    fn list_as_newest(&mut self, slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        (self.slots[slot as usize].newer, self.slots[slot as usize].older) = (NONE, older);
        match older {
            NONE => self.oldest = slot,
            older => self.slots[older as usize].newer = slot,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::record::{BatchBuilder, BatchView, Header, RecordKind, seal, sealed_length};
    use crate::limits::RECORD_HEADER_BYTES;
    use crate::storage::ChunkLayout;
    use crate::storage::memory::MemoryLog;
    use crate::types::{Guid, Term};

    fn heads() -> Heads {
        Heads::new(Arc::new(Index::new()), 1)
    }

    fn head(last_event_number: i64, end: u64) -> Head {
        Head { last_event_number, soft_deleted: false, has_metadata: false, end: LogPosition(end) }
    }

    #[test]
    fn a_head_is_kept_when_the_index_has_it_but_not_where_the_index_knows_better() {
        let mut heads = heads();
        heads.set(heads.name("orders"), head(3, 64), Validity::Term);
        heads.set(heads.name("bills"), head(5, 128), Validity::UntilApplied);
        heads.set(heads.name("bills"), head(6, 192), Validity::Term);
        let last = |heads: &Heads, stream| heads.get(heads.name(stream)).unwrap().last_event_number;
        assert_eq!((last(&heads, "orders"), last(&heads, "bills")), (3, 6));
        heads.applied = LogPosition(128);
        assert_eq!(
            (last(&heads, "orders"), last(&heads, "bills")),
            (3, 6),
            "still in doubt: its last write is not there"
        );
        heads.applied = LogPosition(192);
        assert_eq!((last(&heads, "orders"), last(&heads, "bills")), (3, -1), "as the index has it");
        heads.set(heads.name("bills"), head(7, 256), Validity::Term);
        heads.applied = LogPosition(256);
        assert_eq!(last(&heads, "bills"), 7);
        heads.clear();
        assert_eq!((last(&heads, "orders"), last(&heads, "bills")), (-1, -1));
    }

    fn id(n: usize) -> EventId {
        EventId(Guid((n as u128 + 1).to_le_bytes()))
    }

    /// An index that has applied events of "orders" with these identifiers, numbered from 0 on.
    fn index_of(ids: impl Iterator<Item = usize>) -> (Arc<Index>, LogPosition) {
        let layout = ChunkLayout { chunk_size: 1 << 22 };
        let (mut log, mut end) = (MemoryLog { layout, bytes: vec![0; 1 << 22] }, 0);
        let ids: Vec<usize> = ids.collect();
        for (piece, ids) in ids.chunks(1000).enumerate() {
            let mut batch = BatchBuilder::new("orders", 0);
            ids.iter().for_each(|&n| batch.event(id(n), "t", false, b"", b""));
            let mut body = batch.finish();
            BatchView::set_first_event_number(&mut body, piece as i64 * 1000);
            let length = sealed_length(body.len());
            let buffer = &mut log.bytes[end..end + length];
            buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(&body);
            let (position, kind, event_count) = (LogPosition(end as u64), RecordKind::Append, ids.len() as u16);
            seal(
                buffer,
                Header { length: 0, crc: 0, position, term: Term(1), kind, flags: 0, event_count, timestamp: 0 },
            );
            end += length;
        }
        let (index, end) = (Arc::new(Index::new()), LogPosition(end as u64));
        index.apply_to(&log, layout, end).unwrap();
        (index, end)
    }

    #[test]
    fn identifiers_that_are_not_at_hand_any_more_are_known_from_the_index() {
        const INHERITED: usize = 10;
        const WRITTEN: usize = 2 * RECENT_IDS_AT_HAND;
        let (index, end) = index_of(0..INHERITED + WRITTEN);
        let mut heads = Heads::new(index, 1);
        heads.applied = end;
        let orders = heads.name("orders");
        let (orders, others) = (StreamName { text: "orders", ..orders }, heads.name("others").hash);
        let known = |heads: &Heads, n| heads.recent(orders, id(n)).unwrap();
        assert_eq!(known(&heads, 3), Some((3, LogPosition::ZERO)), "inherited");
        for n in INHERITED..INHERITED + WRITTEN {
            heads.remember(orders, id(n), n as i64, end);
        }
        let newest = INHERITED + WRITTEN - 1;
        assert_eq!((known(&heads, newest), known(&heads, newest + 1)), (Some((newest as i64, end)), None));
        for n in [0, INHERITED, INHERITED + 1, WRITTEN / 2] {
            assert_eq!(known(&heads, n), Some((n as i64, LogPosition::ZERO)), "from the index");
        }
        assert_eq!(heads.recent(StreamName { text: "others", hash: others }, id(INHERITED)), Ok(None));
        // Now this leader has written as many as the index keeps: only what the filter has is asked for.
        let rest = RECENT_IDS_MAX - WRITTEN;
        for n in 0..rest {
            heads.remember(StreamName { text: "others", hash: others }, id(n), n as i64, end);
        }
        assert_eq!(known(&heads, INHERITED), Some((INHERITED as i64, LogPosition::ZERO)));
        let inherited = (0..INHERITED).filter(|&n| known(&heads, n).is_some()).count();
        assert!(inherited < INHERITED, "the index was asked although it cannot know any");
    }

    #[test]
    fn a_long_name_is_kept_until_it_is_applied() {
        let mut heads = heads();
        let name = |n: usize| format!("{}-{n}", "x".repeat(NAME_KEPT_BYTES));
        let last = |heads: &Heads, stream: &str| heads.get(heads.name(stream)).unwrap().last_event_number;
        let apply = |heads: &mut Heads, applied| {
            heads.applied = LogPosition(applied);
            heads.free_applied();
        };
        for n in 1..=100 {
            heads.set(heads.name(&name(n)), head(n as i64, n as u64), Validity::Term);
            heads.set(heads.name(&format!("short-{n}")), head(n as i64, n as u64), Validity::Term);
        }
        // Written again.
        heads.set(heads.name(&name(1)), head(7, 200), Validity::Term);
        apply(&mut heads, 50);
        assert!(
            (2..=50).all(|n| last(&heads, &name(n)) == -1) && (51..=100).all(|n| last(&heads, &name(n)) == n as i64)
        );
        assert!((1..=100).all(|n| last(&heads, &format!("short-{n}")) == n as i64));
        assert_eq!((last(&heads, &name(1)), heads.free.len()), (7, 49));
        apply(&mut heads, 200);
        assert!(heads.slots.iter().all(|slot| slot.name.capacity() <= NAME_KEPT_BYTES));
        assert_eq!((last(&heads, &name(1)), heads.free.len(), heads.long.len()), (-1, 100, 0));
        // Their slots are used again.
        for n in 101..=300 {
            heads.set(heads.name(&format!("short-{n}")), head(n as i64, n as u64 + 200), Validity::Term);
        }
        assert!((1..=300).all(|n| last(&heads, &format!("short-{n}")) == n as i64));
        assert_eq!((heads.slots.len(), heads.free.len()), (300, 0));
    }

    #[test]
    fn the_stream_that_waits_longest_makes_room_but_never_one_that_the_index_lacks() {
        let mut heads = heads();
        let write = |heads: &mut Heads, number: usize, end: usize| {
            let stream = format!("stream-{number}");
            heads.set(heads.name(&stream), head(number as i64, end as u64), Validity::Term);
        };
        let is_kept = |heads: &Heads, number: usize| heads.find(heads.name(&format!("stream-{number}"))).is_some();
        (1..=HEADS_KEPT_MAX).for_each(|number| write(&mut heads, number, number));
        heads.applied = LogPosition(3);
        // Written again: it waits no more.
        write(&mut heads, 1, HEADS_KEPT_MAX + 1);
        for more in 1..=4 {
            write(&mut heads, HEADS_KEPT_MAX + more, HEADS_KEPT_MAX + 1 + more);
        }
        assert_eq!([1, 2, 3, 4].map(|number| is_kept(&heads, number)), [true, false, false, true]);
        assert_eq!(heads.slots.len(), HEADS_KEPT_MAX + 2, "two more, because the index lacks all others");
        for number in (4..=HEADS_KEPT_MAX + 4).chain([1]) {
            assert_eq!(heads.get(heads.name(&format!("stream-{number}"))).unwrap().last_event_number, number as i64);
        }
    }
}
