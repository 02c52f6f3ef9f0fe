//! A reader of what was just committed, as the server's edges are: through a memory map of the files.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringstore::ring::ReadMap;
use ringstore::storage::{ChunkLayout, FileName};
use ringstore::types::LogPosition;
use serde::Serialize;

use crate::log_file::FILES;
use crate::options::Options;
use crate::results::{histogram, micros};

/// How long it rests when there is nothing new.
const PAUSE: Duration = Duration::from_millis(1);

/// Bytes looked at in one measured step.
const STEP_BYTES: u64 = 64 << 10;

/// What the reader found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReadFigures {
    pub(crate) megabytes_per_second: f64,
    pub(crate) step_p50_us: f64,
    pub(crate) step_p99_us: f64,
    /// Pages that had to come from the disk.
    pub(crate) major_faults: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    forget: AtomicBool,
}

/// The reading thread.
pub(crate) struct ReadBack {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<ReadFigures>>,
}

impl ReadBack {
    pub(crate) fn start(options: &Options, committed: Arc<AtomicU64>) -> Result<ReadBack> {
        let layout = options.layout();
        let maps = (0..FILES)
            .map(|chunk| {
                let file = File::open(options.node_folder(0).join(FileName::Chunk(chunk).to_string()))?;
                ReadMap::new(&file, layout.file_length() as usize)
            })
            .collect::<std::io::Result<Vec<_>>>()
            .context("the log files cannot be mapped")?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || read(&shared, &committed, layout, &maps)
        });
        Ok(ReadBack { shared, thread })
    }

    /// Forgets what was measured so far.
    pub(crate) fn forget(&self) {
        self.shared.forget.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stop(self) -> Result<ReadFigures> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the reader panicked"))?
    }
}

fn read(shared: &Shared, committed: &AtomicU64, layout: ChunkLayout, maps: &[ReadMap]) -> Result<ReadFigures> {
    let mut nanos = histogram();
    let (mut at, mut bytes, mut started, mut faults) = (0, 0, Instant::now(), major_faults()?);
    while !shared.stop.load(Ordering::Relaxed) {
        if shared.forget.swap(false, Ordering::Relaxed) {
            nanos.reset();
            (bytes, started, faults) = (0, Instant::now(), major_faults()?);
        }
        let end = committed.load(Ordering::Acquire);
        if end - at > layout.chunk_size {
            // Too slow: what comes next is being overwritten. Go on with what is new.
            at = end - STEP_BYTES.min(end);
        }
        let position = LogPosition(at);
        let length = (end - at).min(layout.room(position)).min(STEP_BYTES) as usize;
        if length == 0 {
            std::thread::sleep(PAUSE);
            continue;
        }
        let map = &maps[(layout.chunk_of(position) % FILES) as usize];
        let from = layout.file_offset(position) as usize;
        let step_started = Instant::now();
        std::hint::black_box(crc32c::crc32c(&map[from..from + length]));
        nanos.saturating_record(step_started.elapsed().as_nanos() as u64);
        at += length as u64;
        bytes += length;
    }
    Ok(ReadFigures {
        megabytes_per_second: bytes as f64 / started.elapsed().as_secs_f64() / 1e6,
        step_p50_us: micros(&nanos, 0.5),
        step_p99_us: micros(&nanos, 0.99),
        major_faults: major_faults()? - faults,
    })
}

/// Page faults of this process that went to the disk, so far.
fn major_faults() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = text.rsplit_once(')').context("/proc/self/stat has no name")?.1;
    let field = after_name.split_whitespace().nth(9).context("/proc/self/stat is short")?;
    Ok(field.parse()?)
}
