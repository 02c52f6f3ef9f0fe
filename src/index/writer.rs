//! Writes a table, stream by stream in order of hash and name.

use std::io;
use std::sync::Arc;

use crate::limits::INDEX_FILTERS_BYTES;

use super::entry::{RUN_EVENTS_MAX, Summary, put_entry};
use super::filter::Filter;
use super::pages::PageWriter;
use super::recent::RecentEvent;
use super::store::TableStore;
use super::table::{Footer, PLACE_BYTES, Place, Section, encode_recent, file_name};

/// Distance of the entries whose places are kept, bytes.
const PLACE_DISTANCE: u64 = 4096;

/// What a table has beside its streams.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// As they lie in the file.
    pub(super) starts: Vec<u8>,
    pub(super) recents: Vec<RecentEvent>,
    pub(super) transactions: Vec<u8>,
    pub(super) events: u64,
    pub(super) new_streams: u64,
    pub(super) last_event: u64,
    pub(super) last_record: u64,
    pub(super) last_record_crc: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct TableWriter {
    pages: PageWriter,
    store: Arc<dyn TableStore>,
    footer: Footer,
    places: Vec<Place>,
    filter: Option<Filter>,
    /// The stream that is being written, and what of it waits.
    name: Vec<u8>,
    hash: u64,
    head: Option<Summary>,
    first: i64,
    run: Vec<u64>,
    out: Vec<u8>,
    body: Vec<u8>,
}

/// The name of a table's file while it is written.
fn unfinished(id: u64) -> String {
    format!("{}.tmp", file_name(id))
}

impl TableWriter {
    /// A table of the log from `from` to `to`, with at most so many streams.
    pub(super) fn new(store: Arc<dyn TableStore>, id: u64, (from, to): (u64, u64), streams: u64) -> TableWriter {
        let filter = (Filter::bytes_for(streams) <= INDEX_FILTERS_BYTES / 2).then(|| Filter::new(streams));
        TableWriter {
            pages: PageWriter::new(Arc::clone(&store), unfinished(id), id),
            store,
            footer: Footer { id, from, to, ..Footer::default() },
            places: Vec::new(),
            filter,
            name: Vec::new(),
            hash: 0,
            head: None,
            first: 0,
            run: Vec::with_capacity(RUN_EVENTS_MAX),
            out: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.footer.id
    }

    /// Streams begun so far.
    pub(super) fn streams(&self) -> u64 {
        self.footer.streams
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.pages.at()
    }

    /// Begins a stream; its first event has number `first`.
    pub(super) fn begin(&mut self, hash: u64, name: &[u8], summary: Summary, first: i64) {
        debug_assert!((self.hash, &self.name[..]) < (hash, name) || self.footer.streams == 0, "streams are in order");
        self.hash = hash;
        self.name.clear();
        self.name.extend_from_slice(name);
        (self.head, self.first) = (Some(summary), first);
        self.footer.streams += 1;
        if let Some(filter) = &mut self.filter {
            filter.insert(hash);
        }
    }

    /// Adds an event of the stream.
    pub(super) fn position(&mut self, position: u64) -> io::Result<()> {
        self.run.push(position);
        if self.run.len() == RUN_EVENTS_MAX { self.end_run() } else { Ok(()) }
    }

    /// Ends the stream.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.head.is_some() || !self.run.is_empty() { self.end_run() } else { Ok(()) }
    }

    fn end_run(&mut self) -> io::Result<()> {
        let at = self.pages.at();
        if self.places.last().is_none_or(|last| at - last.at >= PLACE_DISTANCE) {
            self.places.push(Place { hash: self.hash, first: self.first, at });
        }
        self.out.clear();
        let head = self.head.take();
        put_entry(&mut self.out, &mut self.body, (self.hash, &self.name), head.as_ref(), (self.first, &self.run));
        self.pages.put(&self.out)?;
        self.first += self.run.len() as i64;
        self.run.clear();
        Ok(())
    }

    /// Writes everything else, and gives the file its name when it is durable. Leaves no file behind when that fails.
    pub(super) fn finish(mut self, extras: &Extras) -> io::Result<()> {
        self.write_rest(extras).inspect_err(|_| {
            // It may have its name already, and that not be durable.
            let _ = self.store.remove(&file_name(self.footer.id));
            self.abandon();
        })
    }

    fn write_rest(&mut self, extras: &Extras) -> io::Result<()> {
        self.footer.entries = Section { at: 0, length: self.pages.at() };
        self.pages.end_section()?;
        let places = std::mem::take(&mut self.places);
        self.footer.places = self.section(places.iter().map(|place| {
            let mut bytes = [0; PLACE_BYTES];
            bytes[..8].copy_from_slice(&place.hash.to_le_bytes());
            bytes[8..16].copy_from_slice(&place.first.to_le_bytes());
            bytes[16..].copy_from_slice(&place.at.to_le_bytes());
            bytes
        }))?;
        self.footer.starts = self.section([&extras.starts])?;
        self.footer.recents = self.section(extras.recents.iter().map(encode_recent))?;
        self.footer.transactions = self.section([&extras.transactions])?;
        if let Some(filter) = self.filter.take() {
            self.footer.filter = self.section(filter.encode())?;
        }
        let Extras { events, new_streams, last_event, last_record, last_record_crc, .. } = *extras;
        let footer = Footer { events, new_streams, last_event, last_record, last_record_crc, ..self.footer.clone() };
        self.pages.put(&footer.encode())?;
        self.pages.publish(&file_name(footer.id))?;
        Ok(())
    }

    fn section<T: AsRef<[u8]>>(&mut self, items: impl IntoIterator<Item = T>) -> io::Result<Section> {
        let at = self.pages.at();
        for item in items {
            self.pages.put(item.as_ref())?;
        }
        let length = self.pages.at() - at;
        self.pages.end_section()?;
        Ok(Section { at, length })
    }

    /// Gives the table up.
    pub(super) fn abandon(self) {
        // What stays is removed when the index is opened next.
        let _ = self.store.remove(&unfinished(self.footer.id));
    }
}
