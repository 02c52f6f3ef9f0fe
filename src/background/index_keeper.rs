//! The upkeep of the index's tables, as a chore.

use std::time::Instant;

use crate::background::{Chore, Next};
use crate::index::Upkeep;

/// Writes, merges, checks and rebuilds tables of the index; see [`Upkeep`].
pub struct IndexKeeper(Upkeep);

impl IndexKeeper {
    /// The chore for an index's upkeep.
    #[must_use]
    pub fn new(upkeep: Upkeep) -> IndexKeeper {
        IndexKeeper(upkeep)
    }
}

impl Chore for IndexKeeper {
    fn name(&self) -> &'static str {
        "index"
    }

    fn step(&mut self, now: Instant) -> Next {
        self.0.step(now).map_or(Next::Now, Next::After)
    }
}
