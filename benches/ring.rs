//! What does the write path of one ring cost: an operation that does nothing much, a write to a prepared file, a write
//! with its flush, both in one operation?

use std::time::Instant;

use hdrhistogram::Histogram;
use ringstore::limits::RECORD_HEADER_BYTES;
use ringstore::ring::{Completion, Driver, FileId, MirroredBuffer, Outcome, Source, Wait};
use ringstore::storage::{Disk, FileDisk, FileName};
use ringstore::types::LogPosition;

const FILE_BYTES: u64 = 8 << 20;

const LOG_BUFFER_BYTES: usize = 1 << 20;

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read,
    Write,
    WriteThenSync,
    WriteDurable,
}

struct Bench {
    driver: Driver,
    buffer: MirroredBuffer,
    file: FileId,
    outcomes: Vec<Completion>,
}

impl Bench {
    /// Until the one operation under way is done.
    fn wait(&mut self) {
        while self.outcomes.is_empty() {
            self.driver.enter(Wait::Forever, &mut self.outcomes).expect("the ring");
        }
        for completion in self.outcomes.drain(..) {
            let ok = matches!(
                completion.outcome,
                Outcome::Written { result: Ok(()), .. } | Outcome::Synced(Ok(())) | Outcome::Read { result: Ok(_), .. }
            );
            assert!(ok, "{:?}", completion.outcome);
        }
    }

    fn run(&mut self, step: Step, length: u32, position: LogPosition) {
        let offset = position.0 % (FILE_BYTES - u64::from(length));
        let window = Source::Log(self.buffer.window(position, length));
        match step {
            Step::Read => self.driver.read(self.file, vec![0; length as usize], offset, 0),
            Step::Write => self.driver.write(self.file, window, offset, 0),
            Step::WriteDurable => self.driver.write_durable(self.file, window, offset, 0),
            Step::WriteThenSync => {
                self.driver.write(self.file, window, offset, 0);
                self.wait();
                self.driver.sync(self.file, 0);
            }
        }
        self.wait();
    }
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--small");
    let rounds = if small { 5 } else { 3_000 };
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("ring");
    std::fs::create_dir_all(&folder).expect("a folder below the target folder");
    let disk = FileDisk::open(&folder).expect("a data folder");
    let name = FileName::Chunk(0);
    if !folder.join(name.to_string()).exists() {
        disk.create(name, &[0; RECORD_HEADER_BYTES], FILE_BYTES).expect("room for a small file");
    }
    let mut driver = Driver::new().expect("an io_uring");
    let file = driver.attach(disk.open_file(name).expect("the file just made").into());
    let buffer = MirroredBuffer::new(LOG_BUFFER_BYTES).expect("a log buffer");
    let mut bench = Bench { driver, buffer, file, outcomes: Vec::new() };
    for length in [256, 16 << 10, 256 << 10] {
        for step in [Step::Read, Step::Write, Step::WriteThenSync, Step::WriteDurable] {
            let mut nanos = Histogram::<u64>::new(3).expect("three digits");
            let mut position = LogPosition::ZERO;
            for _ in 0..rounds {
                let started = Instant::now();
                bench.run(step, length, position);
                nanos.record(started.elapsed().as_nanos() as u64).expect("a histogram that grows");
                position = position.plus(u64::from(length));
            }
            let micros = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
            println!("ring: {step:?} of {length} B: p50 {:.1} us, p99 {:.1} us", micros(0.5), micros(0.99));
        }
    }
    std::fs::remove_dir_all(&folder).expect("what was just made");
}
