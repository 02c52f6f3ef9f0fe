//! What the log thread shows to everyone else without being asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::{NodeView, Role, Stages};
use crate::types::LogPosition;

/// The node's state as other threads see it. Written by the log thread only (a shared atomic is the exception of the
/// house; this is one), read by edges, the control thread and `/stats`.
#[derive(Debug, Default)]
pub struct Published {
    view: RwLock<Arc<NodeView>>,
    /// The view's role, for those who ask often.
    role: AtomicU8,
    positions: Positions,
    /// Figures of the log thread.
    pub counters: LogCounters,
    /// Where the time of writes goes. The edges fill their share of it.
    pub stages: Stages,
}

/// Away from the view, whose lock all edges write to: the log thread writes here each turn. (Two cache lines, because the
/// processor fetches them in pairs.)
#[derive(Debug, Default)]
#[repr(align(128))]
struct Positions {
    log_end: AtomicU64,
    flushed: AtomicU64,
    committed: AtomicU64,
    readable: AtomicU64,
    /// One more than it is; zero before the log thread has said it.
    high_water: AtomicU64,
}

/// Counters of the log thread, since start. Away from what others wait for.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LogCounters {
    /// Records appended as leader.
    pub appends: AtomicU64,
    /// Flushes of chunk files completed.
    pub flushes: AtomicU64,
    /// Bytes written to chunk files.
    pub written_bytes: AtomicU64,
    /// Bytes sent on data links from the log buffer, copied by the kernel.
    pub sent_copied_bytes: AtomicU64,
    /// Bytes sent on data links without a copy, as the kernel's usage report says.
    pub sent_zero_copy_bytes: AtomicU64,
    /// Bytes sent on data links that were read from chunk files.
    pub sent_from_files_bytes: AtomicU64,
    /// Damaged records above the commit position that were met on the way to a follower: nobody can repair them.
    pub damaged_uncommitted: AtomicU64,
    /// Bytes received on data links.
    pub received_bytes: AtomicU64,
    /// Connections to the internal TCP port that were refused.
    pub refused_links: AtomicU64,
    /// Elections this node has started.
    pub elections: AtomicU64,
    /// Times that the node entered the kernel (`io_uring_enter`).
    pub enters: AtomicU64,
}

impl Published {
    /// The node's view.
    #[must_use]
    pub fn view(&self) -> Arc<NodeView> {
        Arc::clone(&self.view.read())
    }

    /// Replaces the view. For the log thread.
    pub fn set_view(&self, view: NodeView) {
        let mut current = self.view.write();
        self.role.store(view.role as u8, Ordering::Release);
        *current = Arc::new(view);
    }

    /// The view's role.
    #[must_use]
    pub fn role(&self) -> Role {
        Role::ALL[usize::from(self.role.load(Ordering::Acquire))]
    }

    /// End of the log, flushed or not.
    #[must_use]
    pub fn log_end(&self) -> LogPosition {
        LogPosition(self.positions.log_end.load(Ordering::Acquire))
    }

    /// Writer checkpoint: durable on this node up to here.
    #[must_use]
    pub fn flushed(&self) -> LogPosition {
        LogPosition(self.positions.flushed.load(Ordering::Acquire))
    }

    /// Commit position.
    #[must_use]
    pub fn committed(&self) -> LogPosition {
        LogPosition(self.positions.committed.load(Ordering::Acquire))
    }

    /// Committed and written to this node's chunk files: what the index may apply.
    #[must_use]
    pub fn readable(&self) -> LogPosition {
        LogPosition(self.positions.readable.load(Ordering::Acquire))
    }

    /// Nothing was ever written to the log's files from here on, but zeros. `None` before the log thread has said so, which
    /// it does in the turn in which it writes.
    #[must_use]
    pub fn high_water(&self) -> Option<LogPosition> {
        self.positions.high_water.load(Ordering::Acquire).checked_sub(1).map(LogPosition)
    }

    /// Says what [`Published::high_water`] is. For the log thread.
    pub fn set_high_water(&self, position: LogPosition) {
        self.positions.high_water.store(position.0 + 1, Ordering::Release);
    }

    /// Replaces the positions. For the log thread.
    pub fn set_positions(
        &self,
        log_end: LogPosition,
        flushed: LogPosition,
        committed: LogPosition,
        readable: LogPosition,
    ) {
        self.positions.log_end.store(log_end.0, Ordering::Release);
        self.positions.flushed.store(flushed.0, Ordering::Release);
        self.positions.committed.store(committed.0, Ordering::Release);
        self.positions.readable.store(readable.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_that_of_the_view() {
        let published = Published::default();
        assert_eq!(published.role(), NodeView::default().role);
        for role in Role::ALL {
            published.set_view(NodeView { role, ..NodeView::default() });
            assert_eq!((published.role(), published.view().role), (role, role));
        }
    }
}
