//! Parts of the index that do not fit together: between the numbers that one has of a stream and those of the next, events
//! are missing or doubled, although every page checks out.
//!
//! That is against the index's promise, whoever broke it, and nothing says which part is wrong. So the two, and all that
//! lie between them, are used no more and made again from the log: the upkeep does so when the newest of them is in a
//! table. Until then the streams concerned are not ready; all others are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::types::LogPosition;

use super::Index;
use super::parts::{NotReady, View};

/// From one time to the next: when the same comes out again, the index is not made anew over and over.
pub(super) const MISFIT_PAUSE: Duration = Duration::from_secs(60);

/// Two parts that do not fit together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Misfit {
    /// From where the older one begins to where the newer one ends; its end is in memory when that is behind all tables.
    pub(super) from: LogPosition,
    pub(super) to: LogPosition,
    /// Of the event that should come next.
    pub(super) expected: i64,
    pub(super) found: i64,
}

/// Why the parts gave no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    NotReady,
    Misfit(Misfit),
}

impl From<NotReady> for Unanswered {
    fn from(_: NotReady) -> Unanswered {
        Unanswered::NotReady
    }
}

impl Index {
    /// Of an older part that begins at `from` and a newer one that ends at `to`, where they are tables, and the numbers
    /// expected and found.
    pub(super) fn misfit(
        &self,
        from: Option<LogPosition>,
        to: Option<LogPosition>,
        (expected, found): (i64, i64),
    ) -> Unanswered {
        let covered = || self.tables.as_ref().map_or(LogPosition::ZERO, |tables| tables.view().covered);
        let (from, to) = (from.unwrap_or_else(covered), to.unwrap_or_else(|| self.applied()));
        Unanswered::Misfit(Misfit { from, to, expected, found })
    }

    /// Notes a misfit for the upkeep, if the parts have not changed places since they were asked, in `generation`: what is
    /// seen while they do means nothing.
    pub(super) fn unanswered(&self, why: Unanswered, generation: u64) -> NotReady {
        if let (Unanswered::Misfit(misfit), Some(tables)) = (why, &self.tables) {
            let mut noted = tables.misfit.lock();
            if self.generation.load(Ordering::Acquire) != generation {
                return NotReady;
            }
            match &mut *noted {
                Some(known) => (known.from, known.to) = (known.from.min(misfit.from), known.to.max(misfit.to)),
                None => {
                    let Misfit { from, to, expected, found } = misfit;
                    tracing::error!(%from, %to, expected, found,
                        "the parts of the index do not fit together; that piece of the log will be indexed again");
                    *noted = Some(misfit);
                }
            }
        }
        NotReady
    }

    /// True while parts are known not to fit together, and are not dropped yet.
    #[must_use]
    pub fn has_misfit(&self) -> bool {
        self.misfit_end().is_some()
    }

    /// Up to where the log must be in tables before [`Index::drop_misfit`] can do something.
    pub(super) fn misfit_end(&self) -> Option<LogPosition> {
        self.tables.as_ref().and_then(|tables| tables.misfit.lock().map(|misfit| misfit.to))
    }

    /// Takes the tables out that do not fit together: their piece of the log is missing then, and indexed again. False when
    /// there are none, or not all is in tables yet.
    pub(super) fn drop_misfit(&self) -> bool {
        let Some(tables) = &self.tables else { return false };
        let _changing = tables.changing.lock();
        let mut noted = tables.misfit.lock();
        let view = tables.view();
        let Some(Misfit { from, to, .. }) = noted.take_if(|misfit| misfit.to <= view.covered) else { return false };
        let kept = view.tables().filter(|table| table.to() <= from || to <= table.from()).cloned();
        let kept = View::new(kept, view.covered);
        let dropped = view.tables().count() - kept.tables().count();
        tracing::warn!(%from, %to, tables = dropped, "tables of the index that do not fit together are used no more");
        self.change_places(|| tables.set_view(kept));
        tables.misfits.fetch_add(1, Ordering::Relaxed);
        true
    }
}
