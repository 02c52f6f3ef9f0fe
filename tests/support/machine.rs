//! What the machine itself does meanwhile: how long its disk takes to flush one page, and how late a thread wakes up.
//!
//! The nodes' disks lie in files on the machine's, and others work there as well. When writes took too long to go on, this
//! tells whether everybody had to wait then; it excuses nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::support::watcher::lock;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks that are kept: those of ten minutes.
const LOOKS_MAX: usize = 6_000;

/// One look.
#[derive(Clone, Copy, Debug)]
struct Look {
    begin: Instant,
    end: Instant,
    /// Of the page.
    flush: Duration,
    /// Behind the time at which the thread wanted to wake up.
    late: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Machine {
    stop: Arc<AtomicBool>,
    looks: Arc<Mutex<Vec<Look>>>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Looks at the disk of `folder` until dropped.
    pub(crate) fn watch(folder: &Path) -> anyhow::Result<Machine> {
        let path = folder.join("machine");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_over, seen) = (Arc::clone(&stop), Arc::clone(&looks));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(INTERVAL);
                let late = begin.elapsed().saturating_sub(INTERVAL);
                let start = Instant::now();
                // Without a disk to look at there is nothing to tell.
                if file.write_all_at(&[1; 4096], 0).and_then(|()| file.sync_data()).is_err() {
                    return;
                }
                let mut looks = lock(&seen);
                if looks.len() == LOOKS_MAX {
                    looks.drain(..LOOKS_MAX / 2);
                }
                looks.push(Look { begin, end: Instant::now(), flush: start.elapsed(), late });
            }
        });
        Ok(Machine { stop, looks, thread: Some(thread) })
    }

    /// The slowest flush and the latest wake-up of the looks that lie in part between `from` and `to`.
    pub(crate) fn worst(&self, from: Instant, to: Instant) -> (Duration, Duration) {
        let looks = lock(&self.looks);
        let within = looks.iter().filter(|look| look.end > from && look.begin < to);
        within.fold((Duration::ZERO, Duration::ZERO), |worst, look| (worst.0.max(look.flush), worst.1.max(look.late)))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
