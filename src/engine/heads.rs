//! What this leader's writes did to their streams, over what the index says.
//!
//! Only a leader has entries here: those of its own appends. Nobody else writes meanwhile, so an entry stays true when
//! the index has applied it, and is kept for the next write as long as there is room. A new leader takes no write before
//! the index has applied all that it inherited, so entries and index together are the whole truth.
//!
//! A write costs no allocation once the tables have grown: entries are used again, and so is the memory of their names.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::index::{Index, StreamHead};
use crate::limits::{HEADS_KEPT_MAX, RECENT_IDS_MAX};
use crate::types::{EventId, LogPosition};

use super::recent::RecentIds;

/// A longer name's memory is not kept for the next one.
const NAME_KEPT_BYTES: usize = 128;

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
    recent: RecentIds,
    /// Ends of the writes that the index has not applied yet.
    unapplied: VecDeque<LogPosition>,
}

impl Heads {
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
            recent: RecentIds::new(RECENT_IDS_MAX, seed),
            unapplied: VecDeque::new(),
        }
    }

    /// How far the index is now.
    pub(super) fn applied(&self) -> LogPosition {
        self.index.applied()
    }

    pub(super) fn name<'a>(&self, text: &'a str) -> StreamName<'a> {
        StreamName { text, hash: self.hasher.hash_one(text) }
    }

    pub(super) fn get(&self, name: StreamName<'_>) -> Head {
        if let Some(found) = self.find(name).filter(|&slot| self.is_valid(slot)) {
            return self.slots[found as usize].head;
        }
        let StreamHead { last_event_number, soft_deleted, has_metadata, .. } = self.index.head(name.text);
        Head { last_event_number, soft_deleted, has_metadata, end: LogPosition::ZERO }
    }

    /// The number under which this event was written to `stream` lately, and the end of its record if the index may not
    /// have applied it.
    pub(super) fn recent(&self, stream: StreamName<'_>, id: EventId) -> Option<(i64, LogPosition)> {
        // Once this leader has written as many as are kept, the index knows no others.
        let inherited = || self.index.recent(stream.text, id).map(|number| (number, LogPosition::ZERO));
        let found = self.recent.get(stream.hash, id);
        if found.is_some() || self.recent.is_full() { found } else { inherited() }
    }

    /// Remembers the identifier of an event, written to `stream` under `number` in the record that ends at `end`.
    pub(super) fn remember(&mut self, stream: StreamName<'_>, id: EventId, number: i64, end: LogPosition) {
        self.recent.insert(stream.hash, id, number, end);
    }

    /// A record ends at `end` that the index has to apply.
    pub(super) fn wrote(&mut self, end: LogPosition) {
        self.unapplied.push_back(end);
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
    }

    /// Looks how far the index is.
    pub(super) fn evict(&mut self) {
        if self.unapplied.is_empty() {
            return;
        }
        self.applied = self.index.applied();
        while self.unapplied.front().is_some_and(|&end| end <= self.applied) {
            self.unapplied.pop_front();
        }
    }

    /// Leadership is lost: nothing here is known to survive.
    pub(super) fn clear(&mut self) {
        self.buckets = vec![NONE; 64];
        self.slots = Vec::new();
        (self.newest, self.oldest) = (NONE, NONE);
        self.recent.clear();
        self.unapplied.clear();
    }

    /// Writes that the index has not applied yet.
    pub(super) fn unapplied(&self) -> usize {
        self.unapplied.len()
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
        let at = if self.slots.len() >= HEADS_KEPT_MAX && is_spare {
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
        if slot.name.capacity() > NAME_KEPT_BYTES {
            slot.name = String::new();
        }
        slot.name.push_str(name.text);
        slot.chained = std::mem::replace(&mut self.buckets[bucket], at);
        at
    }

    /// Makes the chains short enough for one more slot.
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
