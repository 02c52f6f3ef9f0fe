//! A table: the index of a piece of the log, in a file that never changes.
//!
//! What is looked up is found with a filter and the places of some entries, both in memory, and a page or two of the file.
//! A name decides, never its hash alone: entries have the whole name. Every page that is read is checked
//! ([`Damage`] when it does not check out); opening a table reads its last page, the places and the filter.
//! The layout is in the manual, [`log_format`](crate::manual::log_format).

use std::sync::Arc;

use crate::types::{EventId, Guid, LogPosition};

use super::entry::{ENTRY_BYTES_MIN, Entry, Summary};
use super::filter::Filter;
use super::metadata::{METADATA_EVENT_TYPE, StreamMetadata};
use super::pages::{Cursor, Damage, PAGE, PAGE_DATA, Pages};
use super::recent::RecentEvent;
use super::store::TableStore;
use super::streams::{Name, Part};
use super::transactions::Transactions;

pub(super) const MAGIC: &[u8; 8] = b"RSTABLE\0";
pub(super) const VERSION: u32 = 1;

/// Bytes of a place in the section of places, of a record start, of a recent event.
pub(super) const PLACE_BYTES: usize = 24;
pub(super) const START_BYTES: usize = 8;
pub(super) const RECENT_BYTES: usize = 40;

/// "None" for a position in a footer.
pub(super) const NO_POSITION: u64 = u64::MAX;

/// A part of the table's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// What the last page of a table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) id: u64,
    /// The piece of the log.
    pub(super) from: u64,
    pub(super) to: u64,
    /// Streams in it; events in it; streams that begin in it.
    pub(super) streams: u64,
    pub(super) events: u64,
    pub(super) new_streams: u64,
    /// The last record that readers see.
    pub(super) last_event: u64,
    /// The last record of the piece, and its checksum: so that a table of another log is found out.
    pub(super) last_record: u64,
    pub(super) last_record_crc: u32,
    pub(super) entries: Section,
    pub(super) places: Section,
    pub(super) starts: Section,
    pub(super) recents: Section,
    pub(super) transactions: Section,
    pub(super) filter: Section,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.last_record_crc.to_le_bytes());
        let numbers = [self.id, self.from, self.to, self.streams, self.events, self.new_streams];
        let sections = self.sections().map(|section| [section.at, section.length]);
        let places = [self.last_event, self.last_record];
        numbers.iter().chain(&places).chain(sections.as_flattened()).for_each(|number| {
            out.extend_from_slice(&number.to_le_bytes());
        });
        out.resize(PAGE_DATA, 0);
        out
    }

    /// Nothing in a footer is believed that would lead reading astray: its checksum says that it is what was written, not
    /// that it was right. `room` is what lies before it.
    fn check(&self, id: u64, room: u64) -> Result<(), Damage> {
        if self.id != id || self.from >= self.to {
            return Err(Damage::Content("its last page is that of another table"));
        }
        let units = [1, PLACE_BYTES, START_BYTES, RECENT_BYTES, 1, 1];
        for (section, unit) in self.sections().into_iter().zip(units) {
            let is_inside = section.at.checked_add(section.length).is_some_and(|end| end <= room);
            if !is_inside || !section.length.is_multiple_of(unit as u64) {
                return Err(Damage::Content("a section of it is not where one can be"));
            }
        }
        // Each of them takes some bytes there, so these can be added up and be made room for.
        let entries = self.entries.length;
        if self.streams > entries / ENTRY_BYTES_MIN || self.new_streams > self.streams || self.events > entries {
            return Err(Damage::Content("its last page counts more than it has room for"));
        }
        let is_in_piece = |at: &u64| *at == NO_POSITION || (self.from..self.to).contains(at);
        if ![self.last_event, self.last_record].iter().all(is_in_piece) {
            return Err(Damage::Content("its last page has records of another piece of the log"));
        }
        Ok(())
    }

    fn sections(&self) -> [Section; 6] {
        [self.entries, self.places, self.starts, self.recents, self.transactions, self.filter]
    }

    pub(super) fn decode(page: &[u8]) -> Result<Footer, Damage> {
        let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes"));
        if &page[..8] != MAGIC || u32_at(8) != VERSION {
            return Err(Damage::Content("it is no table of this version"));
        }
        let section = |number: usize| Section { at: u64_at(80 + 16 * number), length: u64_at(88 + 16 * number) };
        Ok(Footer {
            id: u64_at(16),
            from: u64_at(24),
            to: u64_at(32),
            streams: u64_at(40),
            events: u64_at(48),
            new_streams: u64_at(56),
            last_event: u64_at(64),
            last_record: u64_at(72),
            last_record_crc: u32_at(12),
            entries: section(0),
            places: section(1),
            starts: section(2),
            recents: section(3),
            transactions: section(4),
            filter: section(5),
        })
    }
}

/// Where an entry lies, about one for each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) hash: u64,
    pub(super) first: i64,
    pub(super) at: u64,
}

/// A stream that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) part: Part,
    /// Its first entry.
    at: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) footer: Footer,
    pages: Pages,
    places: Vec<Place>,
    /// Not with very many streams, and not where filters have used up their memory.
    filter: Option<Filter>,
}

/// The name of a table's file.
pub(super) fn file_name(id: u64) -> String {
    format!("table-{id:010}")
}

impl Table {
    /// Opens a table; its filter only if that is not larger than `filter_room`.
    pub(super) fn open(store: &dyn TableStore, id: u64, filter_room: u64) -> Result<Table, Damage> {
        let pages = Pages::open(store.open(&file_name(id))?, id)?;
        let mut last = Vec::new();
        pages.read(pages.count - 1, 1, &mut last)?;
        let footer = Footer::decode(&last)?;
        footer.check(id, (pages.count - 1) * PAGE_DATA as u64)?;
        let mut table = Table { footer, pages, places: Vec::new(), filter: None };
        let bytes = table.section(table.footer.places)?;
        let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let place = |bytes: &[u8]| Place {
            hash: u64_at(bytes, 0),
            first: u64_at(bytes, 8).cast_signed(),
            at: u64_at(bytes, 16),
        };
        table.places = bytes.chunks_exact(PLACE_BYTES).map(place).collect();
        if !table.has_good_places() {
            return Err(Damage::Content("the places of its entries make no sense"));
        }
        let filter = table.footer.filter;
        if filter.length > 0 && filter.length <= filter_room {
            let filter = Filter::decode(&table.section(filter)?);
            table.filter = Some(filter.ok_or(Damage::Content("its filter makes no sense"))?);
        }
        Ok(table)
    }

    pub(super) fn id(&self) -> u64 {
        self.footer.id
    }

    pub(super) fn from(&self) -> LogPosition {
        LogPosition(self.footer.from)
    }

    pub(super) fn to(&self) -> LogPosition {
        LogPosition(self.footer.to)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.pages.count * PAGE as u64
    }

    pub(super) fn filter_bytes(&self) -> u64 {
        self.filter.as_ref().map_or(0, Filter::bytes)
    }

    /// What it has in memory, bytes.
    pub(super) fn memory(&self) -> u64 {
        self.filter_bytes() + (self.places.len() * size_of::<Place>()) as u64
    }

    pub(super) fn page_count(&self) -> u64 {
        self.pages.count
    }

    /// Reads pages only to see whether they are good.
    pub(super) fn check(&self, first: u64, count: u64, room: &mut Vec<u8>) -> Result<(), Damage> {
        room.clear();
        self.pages.read(first, count.min(self.pages.count.saturating_sub(first)) as usize, room)
    }

    /// The first is that of the first entry, and those that follow come in order.
    fn has_good_places(&self) -> bool {
        let Section { at, length } = self.footer.entries;
        let is_in_order = |pair: &[Place]| pair[0].at < pair[1].at && pair[0].hash <= pair[1].hash;
        self.places.first().map(|first| first.at) == (length > 0).then_some(at)
            && self.places.last().is_none_or(|last| last.at < at + length)
            && self.places.windows(2).all(is_in_order)
    }

    fn section(&self, section: Section) -> Result<Vec<u8>, Damage> {
        let mut cursor = Cursor::new(&self.pages, section.at, section.at + section.length, 16);
        Ok(cursor.take(section.length as usize)?.to_vec())
    }

    /// Reads entries, from the one at `at` on.
    pub(super) fn entries_from(&self, at: u64, ahead: usize) -> Cursor<'_> {
        let Section { at: start, length } = self.footer.entries;
        Cursor::new(&self.pages, at, start + length, ahead)
    }

    /// Looks a stream up.
    pub(super) fn find(&self, name: Name<'_>) -> Result<Option<Found>, Damage> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_hold(name.hash)) {
            return Ok(None);
        }
        let after = self.places.partition_point(|place| place.hash < name.hash);
        let Some(place) = self.places.get(after.saturating_sub(1)) else { return Ok(None) };
        let mut cursor = self.entries_from(place.at, 2);
        let mut entry = Entry::default();
        while !cursor.is_at_end() {
            if entry.read_hash(&mut cursor)? > name.hash {
                break;
            }
            if entry.hash == name.hash {
                entry.read_rest(&mut cursor)?;
                if entry.name == name.text.as_bytes()
                    && let Some(head) = entry.head.take()
                {
                    return Ok(Some(Found { part: part_of(entry.first, head)?, at: entry.at }));
                }
            }
            cursor.go_to(entry.end);
        }
        Ok(None)
    }

    /// Appends the positions of at most `count` events from number `first` on, which is not below the part's first.
    pub(super) fn positions(
        &self,
        name: Name<'_>,
        found: &Found,
        first: i64,
        count: usize,
        out: &mut Vec<LogPosition>,
    ) -> Result<(), Damage> {
        let places = &self.places[self.places.partition_point(|place| place.hash < name.hash)..];
        let places = &places[..places.partition_point(|place| place.hash == name.hash)];
        // Right unless another stream has the same hash; then its entries are where this leads, and not the numbers.
        let near = places.partition_point(|place| place.first <= first).checked_sub(1).map(|index| places[index].at);
        let mut entry = Entry::default();
        let mut cursor = self.entries_from(near.filter(|&at| at > found.at).unwrap_or(found.at), 2);
        entry.read_hash(&mut cursor)?;
        entry.read_rest(&mut cursor)?;
        if entry.name != name.text.as_bytes() || entry.first > first {
            cursor = self.entries_from(found.at, 2);
            entry.read_hash(&mut cursor)?;
            entry.read_rest(&mut cursor)?;
        }
        let missing = Damage::Content("an entry is missing");
        let end = found.part.first + found.part.count as i64;
        let wanted = i64::try_from(count).unwrap_or(i64::MAX).min(end.saturating_sub(first));
        let until = first + wanted.max(0);
        let mut number = first;
        while number < until {
            if entry.end_number() > number {
                let Ok(skip) = usize::try_from(number - entry.first) else { return Err(missing) };
                let before = out.len();
                let positions = self.positions_of(&entry)?.skip(skip).take((until - number) as usize);
                out.extend(positions.map(LogPosition));
                number += (out.len() - before) as i64;
                continue;
            }
            if cursor.is_at_end() || entry.read_hash(&mut cursor)? != name.hash {
                return Err(missing);
            }
            entry.read_rest(&mut cursor)?;
            if entry.name != name.text.as_bytes() {
                return Err(missing);
            }
        }
        Ok(())
    }

    /// The positions of an entry's events: in order, and in the table's piece of the log.
    pub(super) fn positions_of(&self, entry: &Entry) -> Result<impl Iterator<Item = u64>, Damage> {
        let positions = entry.positions()?;
        let is_in_piece = |at: &u64| (self.footer.from..self.footer.to).contains(at);
        if !positions.first().is_none_or(is_in_piece) || !positions.last().is_none_or(is_in_piece) {
            return Err(Damage::Content("an entry has events of another piece of the log"));
        }
        Ok(positions.into_iter())
    }

    pub(super) fn start_count(&self) -> u64 {
        self.footer.starts.length / START_BYTES as u64
    }

    pub(super) fn start(&self, index: u64) -> Result<u64, Damage> {
        let Section { at, length } = self.footer.starts;
        let start = Cursor::new(&self.pages, at + index * START_BYTES as u64, at + length, 1).u64()?;
        let is_in_piece = (self.footer.from..self.footer.to).contains(&start);
        is_in_piece.then_some(start).ok_or(Damage::Content("it has a record start of another piece of the log"))
    }

    /// How many record starts lie at `position` or before it.
    pub(super) fn starts_up_to(&self, position: u64) -> Result<u64, Damage> {
        let (mut low, mut high) = (0, self.start_count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.start(middle)? <= position {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    pub(super) fn starts(&self) -> Result<Vec<u8>, Damage> {
        self.section(self.footer.starts)
    }

    /// Its recent events, oldest first.
    pub(super) fn recents(&self) -> Result<Vec<RecentEvent>, Damage> {
        let bytes = self.section(self.footer.recents)?;
        let recents: Vec<RecentEvent> = bytes.chunks_exact(RECENT_BYTES).map(decode_recent).collect();
        // Some of the piece before may be among them.
        let makes_sense =
            |event: &RecentEvent| event.position < self.footer.to && (0..i64::MAX).contains(&event.number);
        recents.iter().all(makes_sense).then_some(recents).ok_or(Damage::Content("its newest events make no sense"))
    }

    pub(super) fn transactions_bytes(&self) -> Result<Vec<u8>, Damage> {
        self.section(self.footer.transactions)
    }

    /// The explicit transactions as they were where its piece of the log ends.
    pub(super) fn transactions(&self) -> Result<Transactions, Damage> {
        let bytes = self.transactions_bytes()?;
        Transactions::decode(&bytes, self.to()).ok_or(Damage::Content("its transactions make no sense"))
    }
}

fn part_of(first: i64, head: Summary) -> Result<Part, Damage> {
    let metadata = match head.metadata {
        Some(json) => {
            let metadata = StreamMetadata::of_event(METADATA_EVENT_TYPE, true, &json);
            Some(Arc::new(metadata.ok_or(Damage::Content("metadata in it makes no sense"))?))
        }
        None => None,
    };
    let count = usize::try_from(head.count).map_err(|_| Damage::Content("a stream is too long"))?;
    Ok(Part { first, count, tombstone: head.tombstone, metadata, oldest: None })
}

pub(super) fn encode_recent(event: &RecentEvent) -> [u8; RECENT_BYTES] {
    let mut out = [0; RECENT_BYTES];
    out[..16].copy_from_slice(&event.id.0.0);
    out[16..24].copy_from_slice(&event.stream_hash.to_le_bytes());
    out[24..32].copy_from_slice(&event.number.to_le_bytes());
    out[32..].copy_from_slice(&event.position.to_le_bytes());
    out
}

fn decode_recent(bytes: &[u8]) -> RecentEvent {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    RecentEvent {
        id: EventId(Guid(bytes[..16].try_into().expect("sixteen bytes"))),
        stream_hash: u64_at(16),
        number: u64_at(24).cast_signed(),
        position: u64_at(32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::store::memory::MemoryStore;
    use crate::index::writer::{Extras, TableWriter};

    /// A table of two streams, its footer and the first page of its entries as they are changed, and checksums that fit.
    fn changed(footer: impl FnOnce(&mut Footer), entries: impl FnOnce(&mut [u8])) -> Arc<MemoryStore> {
        let store: Arc<MemoryStore> = Arc::default();
        let mut writer = TableWriter::new(Arc::clone(&store) as Arc<dyn TableStore>, 1, (64, 1024), 2);
        for (hash, name) in [(5, b"a"), (6, b"b")] {
            writer.begin(hash, name, Summary { count: 2, ..Summary::default() }, 0);
            [128, 192].into_iter().try_for_each(|position| writer.position(position)).unwrap();
            writer.end().unwrap();
        }
        let extras =
            Extras { starts: 128_u64.to_le_bytes().to_vec(), events: 4, last_record: 512, ..Extras::default() };
        writer.finish(&Extras { last_event: 192, ..extras }).unwrap();
        {
            let files = store.files.lock();
            let mut file = files[&file_name(1)].lock();
            let last = file.len() - PAGE;
            let mut decoded = Footer::decode(&file[last..]).unwrap();
            footer(&mut decoded);
            file[last..last + PAGE_DATA].copy_from_slice(&decoded.encode());
            entries(&mut file[..PAGE_DATA]);
            for (number, page) in (0_u64..).zip(file.chunks_exact_mut(PAGE)) {
                let place = [1_u64.to_le_bytes(), number.to_le_bytes()].concat();
                let crc = crc32c::crc32c_append(crc32c::crc32c(&place), &page[..PAGE_DATA]);
                page[PAGE_DATA..].copy_from_slice(&crc.to_le_bytes());
            }
        }
        store
    }

    fn look(store: &MemoryStore) -> Result<Vec<LogPosition>, Damage> {
        let table = Table::open(store, 1, 1 << 20)?;
        let name = Name { text: "a", hash: 5 };
        let Some(found) = table.find(name)? else { return Ok(Vec::new()) };
        let mut positions = Vec::new();
        table.positions(name, &found, 0, 5, &mut positions)?;
        Ok(positions)
    }

    #[test]
    fn a_footer_that_makes_no_sense_is_damage() {
        assert_eq!(look(&changed(|_| (), |_| ())).unwrap(), [LogPosition(128), LogPosition(192)]);
        let check = |what: &str, change: fn(&mut Footer)| {
            let found = look(&changed(change, |_| ()));
            assert!(matches!(found, Err(Damage::Content(_))), "{what}: {found:?}");
        };
        check("no piece of the log", |footer| footer.to = footer.from);
        check("entries that end behind all numbers", |footer| footer.entries.at = u64::MAX);
        check("entries that reach into the footer", |footer| footer.entries.length = 6 * PAGE_DATA as u64);
        check("entries that begin elsewhere", |footer| footer.entries.at = 1);
        check("a place that is cut", |footer| footer.places.length -= 1);
        check("no place", |footer| footer.places.length = 0);
        check("starts behind the end", |footer| footer.starts.at = 1 << 40);
        check("a newest event that is cut", |footer| footer.recents.length = 41);
        check("transactions behind the end", |footer| footer.transactions.length = u64::MAX);
        check("a filter behind the end", |footer| footer.filter.at = 1 << 40);
        check("more streams than entries", |footer| footer.streams = 1 << 60);
        check("more new streams than streams", |footer| footer.new_streams = 3);
        check("more events than bytes", |footer| footer.events = 1 << 60);
        check("its last event elsewhere", |footer| footer.last_event = 1024);
        check("its last record elsewhere", |footer| footer.last_record = 63);
    }

    #[test]
    fn an_entry_that_makes_no_sense_is_damage() {
        // hash, length, flags, name, events of the stream, first number, events of the entry, positions.
        let check = |what: &str, at: usize, byte: u8| {
            let found = look(&changed(|_| (), |entries| entries[at] = byte));
            assert!(matches!(found, Err(Damage::Content(_))), "{what}: {found:?}");
        };
        check("longer than its section", 8, 0x7F);
        check("longer than it is", 8, 12);
        check("more events than it says", 12, 3);
        check("fewer events than it has", 12, 1);
        check("more events than it has room for", 14, 7);
        check("an event of the piece before", 16, 0);
    }
}
