//! The parts that an index with tables consists of, and what they say together of a stream.
//!
//! From the newest piece of the log to the oldest: what is applied now, what is being written to a table, the tables. A
//! table that was found damaged leaves a gap, which is filled from the log in the background; whoever needs what lay there
//! is told [`NotReady`] until then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::limits::INDEX_FILTERS_BYTES;
use crate::storage::ChunkLayout;
use crate::types::LogPosition;

use super::StreamMetadata;
use super::manifest::{Listed, Manifest};
use super::misfit::Misfit;
use super::pages::Damage;
use super::store::TableStore;
use super::streams::Part;
use super::table::Table;

/// A part of the index that is needed for the answer is being rebuilt from the log: ask again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part of the index is being rebuilt from the log; ask again later")]
pub struct NotReady;

/// What all parts know of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// True when any part knows the stream.
    pub(super) is_known: bool,
    pub(super) has_events: bool,
    /// The number of its oldest event.
    pub(super) oldest: i64,
    /// The number of its next event.
    pub(super) next: i64,
    pub(super) tombstone: Option<u64>,
    pub(super) metadata: Option<Arc<StreamMetadata>>,
}

impl Facts {
    /// Takes in what the next older part knows. True when still older parts can add nothing.
    ///
    /// # Errors
    /// When events are missing between two parts, against the index's promise: the numbers expected and found. Then
    /// nothing is certain.
    pub(super) fn add(&mut self, part: &Part) -> Result<bool, (i64, i64)> {
        self.is_known = true;
        let end = part.first + part.count as i64;
        let oldest = part.oldest.unwrap_or(part.first);
        if end > oldest {
            if self.has_events && end != self.oldest {
                return Err((self.oldest, end));
            }
            if !self.has_events {
                self.next = end;
            }
            (self.oldest, self.has_events) = (oldest, true);
        }
        self.tombstone = self.tombstone.or(part.tombstone);
        if self.metadata.is_none() {
            self.metadata.clone_from(&part.metadata);
        }
        let has_all = self.has_events && self.oldest == 0 && self.metadata.is_some();
        Ok(part.oldest.is_some() || has_all)
    }

    /// -1 without an event, `i64::MAX` behind a tombstone.
    pub(super) fn last_event_number(&self) -> i64 {
        if self.tombstone.is_some() { i64::MAX } else { self.next - 1 }
    }
}

/// A piece of the log.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// In a table.
    Table(Arc<Table>),
    /// To be indexed again.
    Missing { from: LogPosition, to: LogPosition },
}

impl Segment {
    pub(super) fn from(&self) -> LogPosition {
        match self {
            Segment::Table(table) => table.from(),
            Segment::Missing { from, .. } => *from,
        }
    }

    pub(super) fn to(&self) -> LogPosition {
        match self {
            Segment::Table(table) => table.to(),
            Segment::Missing { to, .. } => *to,
        }
    }
}

/// The log from its beginning to `covered`, in pieces without gaps between them.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) segments: Vec<Segment>,
    pub(super) covered: LogPosition,
}

impl View {
    /// From the tables there are, in the order of the log.
    pub(super) fn new(tables: impl IntoIterator<Item = Arc<Table>>, covered: LogPosition) -> View {
        let mut view = View { segments: Vec::new(), covered: LogPosition::ZERO };
        for table in tables {
            view.miss(table.from());
            view.covered = table.to();
            view.segments.push(Segment::Table(table));
        }
        view.miss(covered);
        view
    }

    fn miss(&mut self, to: LogPosition) {
        if self.covered < to {
            self.segments.push(Segment::Missing { from: self.covered, to });
            self.covered = to;
        }
    }

    pub(super) fn tables(&self) -> impl DoubleEndedIterator<Item = &Arc<Table>> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Table(table) => Some(table),
            Segment::Missing { .. } => None,
        })
    }

    /// The first piece that is to be indexed again.
    pub(super) fn missing(&self) -> Option<(LogPosition, LogPosition)> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::Missing { from, to } => Some((*from, *to)),
            Segment::Table(_) => None,
        })
    }

    /// The same with `added` in the place of what covers its piece of the log, unless the tables there have changed since:
    /// `instead` says which they were.
    pub(super) fn with(&self, added: &Arc<Table>, instead: &[u64]) -> Option<View> {
        let is_inside = |table: &Table| added.from() <= table.from() && table.to() <= added.to();
        let inside: Vec<u64> = self.tables().filter(|table| is_inside(table)).map(|table| table.id()).collect();
        let is_apart = |table: &Table| table.to() <= added.from() || added.to() <= table.from();
        let fits = inside == instead && self.tables().all(|table| is_inside(table) || is_apart(table));
        let mut tables: Vec<_> = self.tables().filter(|table| !is_inside(table)).cloned().collect();
        let place = tables.partition_point(|table| table.from() < added.from());
        tables.insert(place, Arc::clone(added));
        fits.then(|| View::new(tables, self.covered.max(added.to())))
    }

    /// The same without a table.
    pub(super) fn without(&self, id: u64) -> View {
        View::new(self.tables().filter(|table| table.id() != id).cloned(), self.covered)
    }

    /// The piece that holds `position`.
    pub(super) fn at(&self, position: LogPosition) -> usize {
        self.segments.partition_point(|segment| segment.to() <= position)
    }
}

/// The tables, and what is to be done with them.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) store: Arc<dyn TableStore>,
    pub(super) layout: ChunkLayout,
    view: RwLock<Arc<View>>,
    pub(super) next_id: AtomicU64,
    sequence: AtomicU64,
    /// The manifest does not say what the view is.
    pub(super) is_changed: AtomicBool,
    /// One at a time changes what there is.
    pub(super) changing: Mutex<()>,
    pub(super) merges: AtomicU64,
    pub(super) rebuilds: AtomicU64,
    pub(super) damaged: AtomicU64,
    /// Parts that must be made again because they do not fit together. Taken after `changing`.
    pub(super) misfit: Mutex<Option<Misfit>>,
    pub(super) misfits: AtomicU64,
}

impl Tables {
    pub(super) fn new(store: Arc<dyn TableStore>, layout: ChunkLayout, manifest: &Manifest, view: View) -> Tables {
        Tables {
            store,
            layout,
            view: RwLock::new(Arc::new(view)),
            next_id: AtomicU64::new(manifest.next_id.max(1)),
            sequence: AtomicU64::new(manifest.sequence),
            is_changed: AtomicBool::new(false),
            changing: Mutex::new(()),
            merges: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            misfit: Mutex::new(None),
            misfits: AtomicU64::new(0),
        }
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// For who holds `changing` and has told the readers.
    pub(super) fn set_view(&self, view: View) {
        *self.view.write() = Arc::new(view);
        self.is_changed.store(true, Ordering::Release);
    }

    /// Opens a table that was just written. A file that cannot be used is removed with the next manifest.
    pub(super) fn open(&self, id: u64) -> Result<Arc<Table>, Damage> {
        let used: u64 = self.view().tables().map(|table| table.filter_bytes()).sum();
        let opened = Table::open(&*self.store, id, INDEX_FILTERS_BYTES.saturating_sub(used));
        opened.map(Arc::new).inspect_err(|_| self.is_changed.store(true, Ordering::Release))
    }

    /// Reads the manifest only to see whether it is the one that was written last; if it is not, it is written anew. For who
    /// writes it.
    pub(super) fn check_manifest(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        if sequence == 0 || self.is_changed.load(Ordering::Acquire) {
            return;
        }
        let reason = match Manifest::load(&*self.store) {
            Ok(Some(manifest)) if manifest.sequence == sequence => return,
            Ok(Some(manifest)) => format!("it has number {}, {sequence} was written last", manifest.sequence),
            Ok(None) => "it is not there".to_owned(),
            Err(damage) => match damage.elsewhere() {
                Ok(damage) => damage.to_string(),
                // That says nothing about the file.
                Err(_) => return,
            },
        };
        tracing::error!(reason, "the manifest of the index is damaged; it is written anew");
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.is_changed.store(true, Ordering::Release);
    }

    /// Writes the manifest if it must be, and removes the files that it does not name.
    pub(super) fn save_manifest(&self) -> std::io::Result<()> {
        if !self.is_changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let view = self.view();
        let listed = |table: &Arc<Table>| Listed { id: table.id(), from: table.from().0, to: table.to().0 };
        let manifest = Manifest {
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            next_id: self.next_id.load(Ordering::Relaxed),
            chunk_size: self.layout.chunk_size,
            covered: view.covered.0,
            tables: view.tables().map(listed).collect(),
        };
        manifest.save(&*self.store).inspect_err(|_| self.is_changed.store(true, Ordering::Release))?;
        for name in self.store.list()? {
            // What is being written belongs to nobody yet.
            if !manifest.keeps(&name) && !name.ends_with(".tmp") {
                self.store.remove(&name)?;
            }
        }
        Ok(())
    }
}
