//! Room on the disk: the log's reserve of free space is not for tables.
//!
//! A file that fills the disk stops the node's writes; when it fails for that and is removed there is room again, and so on.
//! So what is large begins only where it fits beside the reserve, and where it did not it is tried again after minutes.

use std::io;
use std::time::{Duration, Instant};

use crate::storage::reserve_bytes;

use super::parts::Tables;

/// How long nothing is begun that found no room.
pub(super) const ROOM_PAUSE: Duration = Duration::from_secs(120);

/// For one kind of file: whether it may be begun.
#[derive(Debug, Default)]
pub(super) struct Room {
    again: Option<Instant>,
}

impl Room {
    /// True when the disk has room for so many bytes and the reserve. When not, the answer stays so for a while.
    pub(super) fn has(&mut self, bytes: u64, tables: &Tables, now: Instant) -> bool {
        if self.again.is_some_and(|again| now < again) {
            return false;
        }
        let needed = bytes.saturating_add(reserve_bytes(tables.layout));
        match tables.store.available_bytes() {
            Ok(available) if available < needed => {
                tracing::warn!(
                    available,
                    needed,
                    "the disk has no room for a table of the index; it waits. Make room on the disk"
                );
                self.is_full(now);
                false
            }
            // Writing tells what is wrong with the disk.
            _ => true,
        }
    }

    /// There was no room after all.
    pub(super) fn is_full(&mut self, now: Instant) {
        self.again = Some(now + ROOM_PAUSE);
    }
}

/// True when writing failed for want of room.
pub(super) fn is_want_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
