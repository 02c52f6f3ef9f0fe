//! The background thread that prepares chunk files ahead of the writer and watches the disk's free space.
//!
//! Making a chunk writes all of it, so it must be slow on purpose: small steps, each flushed before the next, on a thread
//! of low priority. The log thread's flushes then never wait behind a large one.
//!
//! A chunk is made only when the reserve stays free beside it: the disk is never filled to its last byte by this node,
//! and the operator finds room to work in.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::chunk::ChunkHeader;
use super::disk::{FileDisk, FileName};
use super::layout::ChunkLayout;
use crate::ring::pin_thread;

/// How often the free space is looked at, and a chunk that could not be made is tried again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes filled between two flushes.
const FLUSH_STEP_BYTES: u64 = 4 << 20;

/// Niceness of the thread.
const PRIORITY: i32 = 10;

/// What the thread reports.
#[derive(Debug)]
pub enum PreparerReport {
    /// The file of the chunk is there, filled with zeros and durable.
    Ready {
        /// The chunk.
        chunk: u32,
        /// Its file, open for reading and writing.
        file: OwnedFd,
    },
    /// There is no room: writes should be refused. Reported once, until [`PreparerReport::RoomAgain`].
    DiskFull {
        /// Bytes free now.
        available: u64,
        /// Bytes that must be free.
        required: u64,
        /// The chunk that cannot be made; `None` when no chunk is wanted but the reserve is not there.
        chunk: Option<u32>,
    },
    /// There is room again.
    RoomAgain {
        /// Bytes free now.
        available: u64,
    },
    /// A chunk cannot be made, or the free space not be told, for another reason than room: writes should be refused when
    /// the chunk is needed. Tried again each second, reported once, until [`PreparerReport::WorksAgain`].
    Failed {
        /// The chunk, when one was being made.
        chunk: Option<u32>,
        /// Why not.
        error: io::Error,
    },
    /// What had failed has worked.
    WorksAgain,
}

/// Bytes of free space below which the node takes no writes: one chunk, but no less than 16 MiB and no more than 64 MiB.
/// It is for what else writes to the same disk meanwhile (the node's own text logs, the operator), not for the log.
#[must_use]
pub fn reserve_bytes(layout: ChunkLayout) -> u64 {
    layout.chunk_size.clamp(16 << 20, 64 << 20)
}

/// The handle on the thread; dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct Preparer {
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// Starts the thread, on these CPUs if any are given. `report` is called on it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        disk: Arc<FileDisk>,
        layout: ChunkLayout,
        cpus: Vec<usize>,
        report: impl FnMut(PreparerReport) + Send + 'static,
    ) -> io::Result<Preparer> {
        let watched = Arc::clone(&disk);
        Preparer::start_with(disk, layout, cpus, CHECK_INTERVAL, move || watched.available_bytes(), report)
    }

    fn start_with(
        disk: Arc<FileDisk>,
        layout: ChunkLayout,
        cpus: Vec<usize>,
        interval: Duration,
        available: impl FnMut() -> io::Result<u64> + Send + 'static,
        report: impl FnMut(PreparerReport) + Send + 'static,
    ) -> io::Result<Preparer> {
        let orders = Arc::new(Orders::default());
        let mut worker = Worker {
            disk,
            layout,
            interval,
            available,
            report,
            orders: Arc::clone(&orders),
            full: false,
            failing: false,
        };
        let thread = std::thread::Builder::new().name("chunk-preparer".to_owned()).spawn(move || {
            if !cpus.is_empty()
                && let Err(error) = pin_thread(&cpus)
            {
                tracing::warn!(?cpus, %error, "the chunk-preparer thread cannot be pinned; it runs anywhere");
            }
            worker.run();
        })?;
        Ok(Preparer { orders, thread: Some(thread) })
    }

    /// Says that chunk `chunk` is needed: it and those before it that are missing are made, then
    /// [`PreparerReport::Ready`] comes for `chunk`, also when it was there already. Never waits for the disk.
    pub fn need(&self, chunk: u32) {
        self.orders.state.lock().wanted.insert(chunk);
        self.orders.changed.notify_one();
    }

    /// Stops the thread, within one step of filling, and waits for it.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.orders.state.lock().stop = true;
        self.orders.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Orders {
    state: Mutex<OrderState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OrderState {
    /// Chunks asked for and not reported yet. The log thread asks for one or two ahead, so it stays small.
    wanted: BTreeSet<u32>,
    stop: bool,
}

impl Orders {
    fn is_stopped(&self) -> bool {
        self.state.lock().stop
    }
}

struct Worker<A, R> {
    disk: Arc<FileDisk>,
    layout: ChunkLayout,
    interval: Duration,
    available: A,
    report: R,
    orders: Arc<Orders>,
    /// True between the reports of a full disk and of room.
    full: bool,
    /// True between the reports of another failure and of its end.
    failing: bool,
}

impl<A: FnMut() -> io::Result<u64>, R: FnMut(PreparerReport)> Worker<A, R> {
    fn run(&mut self) {
        if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
            tracing::warn!("the thread that prepares chunks keeps its priority: setpriority failed ({error})");
        }
        let mut tried = false;
        loop {
            let wanted = {
                let mut state = self.orders.state.lock();
                // What was asked for while the last one was made is looked at once, then the thread rests.
                if !state.stop && (tried || state.wanted.is_empty()) {
                    self.orders.changed.wait_for(&mut state, self.interval);
                }
                if state.stop {
                    return;
                }
                state.wanted.first().copied()
            };
            tried = !self.look(wanted);
        }
    }

    /// Looks at the free space and makes the chunk when there is room. False when the chunk must be tried again later.
    fn look(&mut self, wanted: Option<u32>) -> bool {
        let available = match (self.available)() {
            Ok(available) => available,
            Err(error) => {
                self.report_failed(None, error);
                return false;
            }
        };
        let missing = wanted.is_some_and(|chunk| !self.exists(chunk));
        let required = self.required(missing);
        if available < required {
            self.report_full(available, required, wanted.filter(|_| missing));
            if missing {
                return false;
            }
        }
        let made = wanted.is_none_or(|chunk| self.prepare(chunk, available, required));
        if made && self.full && available >= required {
            self.full = false;
            (self.report)(PreparerReport::RoomAgain { available });
        }
        if made && self.failing {
            self.failing = false;
            (self.report)(PreparerReport::WorksAgain);
        }
        made
    }

    /// Bytes that must be free. A little more to get out of a full disk than into it, so that the state does not flap.
    fn required(&self, chunk_is_missing: bool) -> u64 {
        let reserve = reserve_bytes(self.layout);
        let chunk = if chunk_is_missing { self.layout.file_length() } else { 0 };
        reserve + chunk + if self.full { reserve / 8 } else { 0 }
    }

    fn report_full(&mut self, available: u64, required: u64, chunk: Option<u32>) {
        if !self.full {
            self.full = true;
            (self.report)(PreparerReport::DiskFull { available, required, chunk });
        }
    }

    fn report_failed(&mut self, chunk: Option<u32>, error: io::Error) {
        if !self.failing {
            self.failing = true;
            (self.report)(PreparerReport::Failed { chunk, error });
        }
    }

    /// Makes the chunk when it is not there, and hands it over. False when that did not work.
    fn prepare(&mut self, chunk: u32, available: u64, required: u64) -> bool {
        match self.make_up_to(chunk) {
            Ok(file) => {
                self.orders.state.lock().wanted.remove(&chunk);
                (self.report)(PreparerReport::Ready { chunk, file: file.into() });
                true
            }
            Err(_) if self.orders.is_stopped() => false,
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                // A quota, or someone else was faster.
                self.report_full(available, required, Some(chunk));
                false
            }
            Err(error) => {
                self.report_failed(Some(chunk), error);
                false
            }
        }
    }

    /// Chunks are made in order, without a gap: recovery insists on it.
    fn make_up_to(&self, chunk: u32) -> io::Result<File> {
        let first = (0..=chunk).rev().take_while(|&number| !self.exists(number)).last();
        for number in first.into_iter().flat_map(|first| first..=chunk) {
            let page = ChunkHeader { chunk: number, layout: self.layout }.encode();
            let length = self.layout.file_length();
            self.disk.create_in_steps(FileName::Chunk(number), &page, length, &mut |file, written| {
                self.after_step(file, written)
            })?;
        }
        self.disk.open_file(FileName::Chunk(chunk))
    }

    fn after_step(&self, file: &File, written: u64) -> io::Result<()> {
        if self.orders.is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // The steps are 1 MiB, behind a header page.
        if written % FLUSH_STEP_BYTES < (1 << 20) { self.disk.flush_data(file) } else { Ok(()) }
    }

    fn exists(&self, chunk: u32) -> bool {
        self.disk.directory().join(FileName::Chunk(chunk).to_string()).exists()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::storage::disk::Disk;
    use crate::storage::memory::TempDirectory;
    use crate::storage::recover;

    const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Setup {
        preparer: Preparer,
        reports: Receiver<PreparerReport>,
        disk: Arc<FileDisk>,
        available: Arc<AtomicU64>,
        directory: TempDirectory,
    }

    fn start(layout: ChunkLayout) -> Setup {
        let directory = TempDirectory::new();
        let disk = Arc::new(FileDisk::open(directory.path()).unwrap().unsafe_without_flush());
        let available = Arc::new(AtomicU64::new(1 << 40));
        let (watched, (send, reports)) = (Arc::clone(&available), channel());
        let preparer = Preparer::start_with(
            Arc::clone(&disk),
            layout,
            Vec::new(),
            Duration::from_millis(2),
            move || Ok(watched.load(Ordering::Relaxed)),
            move |report| send.send(report).unwrap(),
        );
        Setup { preparer: preparer.unwrap(), reports, disk, available, directory }
    }

    impl Setup {
        fn next(&self) -> PreparerReport {
            self.reports.recv_timeout(PATIENCE).unwrap()
        }

        fn expect_ready(&self, expected: u32) -> File {
            match self.next() {
                PreparerReport::Ready { chunk, file } if chunk == expected => file.into(),
                other => panic!("chunk {expected} was due, not {other:?}"),
            }
        }
    }

    #[test]
    fn chunks_are_made_whole_and_in_order_and_handed_over() {
        let setup = start(LAYOUT);
        setup.preparer.need(2);
        let mut bytes = Vec::new();
        setup.expect_ready(2).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, LAYOUT.file_length());
        assert_eq!(ChunkHeader { chunk: 2, layout: LAYOUT }.check(&bytes), Ok(()));
        assert!(bytes[32..].iter().all(|&byte| byte == 0));
        setup.preparer.need(1);
        setup.expect_ready(1);
        let found = recover(&*setup.disk, LAYOUT, &mut |_| ()).unwrap();
        assert_eq!((found.chunk_count, found.end.0), (3, 0));
    }

    #[test]
    fn a_full_disk_is_reported_once_and_the_chunk_comes_when_there_is_room() {
        let setup = start(LAYOUT);
        let reserve = reserve_bytes(LAYOUT);
        setup.available.store(reserve + LAYOUT.file_length() - 1, Ordering::Relaxed);
        setup.preparer.need(0);
        let report = setup.next();
        assert!(matches!(report, PreparerReport::DiskFull { chunk: Some(0), .. }), "{report:?}");
        std::thread::sleep(Duration::from_millis(30));
        // Room again, but only just: not enough to leave the state.
        setup.available.store(reserve + LAYOUT.file_length(), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(30));
        assert!(setup.reports.try_recv().is_err());
        assert!(setup.disk.list().unwrap().is_empty());
        setup.available.store(reserve * 2 + LAYOUT.file_length(), Ordering::Relaxed);
        setup.expect_ready(0);
        assert!(matches!(setup.next(), PreparerReport::RoomAgain { .. }));
    }

    #[test]
    fn the_reserve_is_watched_also_when_nothing_is_wanted() {
        let setup = start(LAYOUT);
        setup.available.store(reserve_bytes(LAYOUT) - 1, Ordering::Relaxed);
        let report = setup.next();
        assert!(matches!(report, PreparerReport::DiskFull { chunk: None, .. }), "{report:?}");
        setup.available.store(1 << 40, Ordering::Relaxed);
        assert!(matches!(setup.next(), PreparerReport::RoomAgain { available } if available == 1 << 40));
    }

    #[test]
    fn another_failure_is_reported_once_and_tried_again() {
        let setup = start(LAYOUT);
        let obstacle = setup.directory.path().join("chunk-000000.000000.tmp");
        std::fs::create_dir(&obstacle).unwrap();
        setup.preparer.need(0);
        let report = setup.next();
        assert!(matches!(report, PreparerReport::Failed { chunk: Some(0), .. }), "{report:?}");
        std::thread::sleep(Duration::from_millis(30));
        assert!(setup.reports.try_recv().is_err());
        std::fs::remove_dir(&obstacle).unwrap();
        setup.expect_ready(0);
        assert!(matches!(setup.next(), PreparerReport::WorksAgain));
    }

    #[test]
    fn stopping_in_the_middle_leaves_no_half_chunk() {
        let setup = start(ChunkLayout { chunk_size: 256 << 20 });
        setup.preparer.need(0);
        let unfinished = setup.directory.path().join("chunk-000000.000000.tmp");
        while !unfinished.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        setup.preparer.stop();
        assert!(setup.reports.try_recv().is_err());
        assert!(!unfinished.exists() && setup.disk.list().unwrap().is_empty());
    }

    #[test]
    fn the_free_space_of_the_disk_is_told() {
        let setup = start(LAYOUT);
        assert!(setup.disk.available_bytes().unwrap() > 0);
        assert_eq!(reserve_bytes(LAYOUT), 16 << 20);
        assert_eq!(reserve_bytes(ChunkLayout { chunk_size: 256 << 20 }), 64 << 20);
    }
}
