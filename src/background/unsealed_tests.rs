//! Tests of the chore that looks at what is not sealed.

use parking_lot::Mutex;

use super::super::testing::{Chunks, LAYOUT};
use super::*;
use crate::storage::DurableMark;
use crate::types::{Guid, NodeId};

/// Bytes of log in the open chunk, and what of it is committed and durable.
const WRITTEN: u64 = 20 << 10;

/// The first of the chunks that a test makes ahead.
const DAMAGED_AHEAD: u32 = 3;

struct Bench {
    chunks: Chunks,
    asked: Arc<Mutex<Vec<Renewal>>>,
    chore: UnsealedScrubber,
    now: Instant,
}

impl Bench {
    /// Two full chunks, the second of which counts as the open one, and an empty one ahead of it.
    fn new() -> Bench {
        let chunks = Chunks::new(2);
        let end = LAYOUT.chunk_start(1).plus(WRITTEN);
        chunks.disk.write_at(FileName::Chunk(1), LAYOUT.file_offset(end), &vec![0; LAYOUT.room(end) as usize]).unwrap();
        for sequence in 1..3 {
            let (offset, slot) = DurableMark::encode_slot(sequence, end);
            chunks.disk.write_at(FileName::Chunk(1), offset, &slot).unwrap();
        }
        DurableState::new(NodeId(Guid([1; 16])), LAYOUT.chunk_size).create(&*chunks.disk).unwrap();
        chunks.published.set_positions(end, end, end, end);
        chunks.published.set_high_water(end);
        let asked = Arc::<Mutex<Vec<Renewal>>>::default();
        let asks = Arc::clone(&asked);
        let chore = UnsealedScrubber::new(UnsealedLinks {
            disk: Arc::clone(&chunks.disk),
            layout: LAYOUT,
            published: Arc::clone(&chunks.published),
            damage: chunks.damage.clone(),
            figures: Arc::clone(&chunks.figures),
            bytes_per_second: 1 << 40,
            ask: Box::new(move |renewal| asks.lock().push(renewal)),
        });
        Bench { chunks, asked, chore, now: Instant::now() }
    }

    /// A whole pass; `between` is called before each step.
    fn pass_with(&mut self, mut between: impl FnMut(&Chunks)) -> Vec<Renewal> {
        let passes = || self.chunks.figures.unsealed_passes.load(Ordering::Relaxed);
        let before = passes();
        while passes() == before {
            between(&self.chunks);
            if let Next::After(rest) = self.chore.step(self.now) {
                self.now += rest;
            }
        }
        std::mem::take(&mut self.asked.lock())
    }

    fn pass(&mut self) -> Vec<Renewal> {
        self.pass_with(|_| ())
    }

    fn figure(&self, of: impl Fn(&StorageFigures) -> &std::sync::atomic::AtomicU64) -> u64 {
        of(&self.chunks.figures).load(Ordering::Relaxed)
    }
}

#[test]
fn what_is_whole_gives_no_cause() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        assert_eq!(bench.pass(), []);
    }
    assert_eq!(bench.chunks.damage.take(), None);
    assert_eq!(
        (bench.figure(|figures| &figures.pages_mended), bench.figure(|figures| &figures.background_errors)),
        (0, 0)
    );
    let read = 3 * (2 * LAYOUT.file_length() + STATE_FILE_BYTES);
    assert_eq!(bench.figure(|figures| &figures.scrubbed_bytes), read, "each byte once in a pass");
}

#[test]
fn any_byte_of_the_open_chunk_that_changes_is_found() {
    let mut bench = Bench::new();
    let (start, footer) = (LAYOUT.chunk_start(1), LAYOUT.footer_offset());
    let end = start.plus(WRITTEN);
    let good = bench.chunks.file(1);
    let fields = [0, 9, 40, 512, 531, 540, 1030, 2000, 4095, footer, footer + 4095, 4096 + WRITTEN, footer - 1];
    let mut mended = 0;
    for offset in (0..LAYOUT.file_length()).step_by(509).chain(fields) {
        bench.chunks.flip(1, offset);
        let asked = bench.pass();
        let damage = bench.chunks.damage.take();
        if (512..532).contains(&offset) || (1024..1044).contains(&offset) {
            assert_eq!((asked, damage), (vec![Renewal::Marks(1)], None), "offset {offset}");
            bench.chunks.flip(1, offset);
        } else if offset < 4096 || offset >= footer {
            mended += 1;
            assert_eq!((asked, damage), (vec![], None), "offset {offset}");
        } else if offset < 4096 + WRITTEN {
            let record = start.plus((offset - 4096) / 1024 * 1024);
            let Damage { chunk, from, to, .. } = damage.expect("damage");
            assert_eq!((chunk, from, to), (1, record, record.plus(1024)), "offset {offset}");
            bench.chunks.flip(1, offset);
        } else {
            let [Renewal::Zeros { from, to }] = asked[..] else { panic!("offset {offset}: {asked:?}") };
            let position = start.plus(offset - 4096);
            assert!(end <= from && from <= position && position < to, "{offset}: {from} to {to}");
            assert!(to.since(from) <= 4096, "{offset}: {from} to {to}");
            bench.chunks.flip(1, offset);
        }
        assert_eq!(bench.figure(|figures| &figures.pages_mended), mended, "offset {offset}");
        assert!(bench.chunks.file(1) == good, "offset {offset}");
    }
    assert_eq!(bench.figure(|figures| &figures.background_errors), 0);
}

#[test]
fn the_chunk_ahead_and_the_small_files_are_looked_at_too() {
    let mut bench = Bench::new();
    bench.chunks.flip(2, 4096 + 70);
    let from = LAYOUT.chunk_start(2).plus(70);
    assert_eq!(bench.pass(), [Renewal::Zeros { from, to: LAYOUT.chunk_start(2).plus(4096) }]);
    bench.chunks.flip(2, 4096 + 70);
    for (slot, at) in [(0, 0), (0, 4095), (1, 4096), (1, 5000)] {
        let mut byte = [0];
        bench.chunks.disk.read_at(FileName::State, at, &mut byte).unwrap();
        bench.chunks.disk.write_at(FileName::State, at, &[byte[0] ^ 1]).unwrap();
        assert_eq!(bench.pass(), [Renewal::State(slot)], "byte {at}");
        bench.chunks.disk.write_at(FileName::State, at, &byte).unwrap();
    }
    let lock = bench.chunks.disk.directory().join("ringstore.lock");
    let good = std::fs::read(&lock).unwrap();
    for wrong in [&good[1..], b"process 0", b""] {
        std::fs::write(&lock, wrong).unwrap();
        assert_eq!(bench.pass(), []);
        assert_eq!(std::fs::read(&lock).unwrap(), good);
    }
    assert_eq!(bench.figure(|figures| &figures.pages_mended), 3);
}

#[test]
fn what_is_being_written_is_no_damage() {
    let mut bench = Bench::new();
    let end = LAYOUT.chunk_start(1).plus(WRITTEN);
    // Another torn mark at each look; and bytes behind the log that turn out to be a part of it.
    bench.chunks.disk.write_at(FileName::Chunk(1), LAYOUT.file_offset(end), &[7; 100]).unwrap();
    let mut looks = 0_u8;
    let asked = bench.pass_with(|chunks| {
        looks += 1;
        chunks.disk.write_at(FileName::Chunk(1), 513, &[looks]).unwrap();
        if looks > 4 {
            chunks.published.set_high_water(end.plus(100));
        }
    });
    assert!(looks > 6, "{looks}");
    assert_eq!((asked, bench.figure(|figures| &figures.renewals_asked)), (vec![], 0));
}

#[test]
fn a_page_that_cannot_be_read_keeps_nothing_else_from_being_looked_at() {
    let mut bench = Bench::new();
    let (name, footer) = (FileName::Chunk(1), LAYOUT.footer_offset());
    let (start, good) = (LAYOUT.chunk_start(1), bench.chunks.file(1));
    let zeros = |page: u64| Renewal::Zeros { from: start.plus(page - 4096), to: start.plus(page) };
    let cases = [
        (name, 0, Some(Renewal::Header(1))),
        (name, footer, None),
        (name, 4096 + WRITTEN, Some(zeros(4096 + WRITTEN))),
        (name, footer - 4096, Some(zeros(footer - 4096))),
        (FileName::State, 0, Some(Renewal::State(0))),
        (FileName::State, 4096, Some(Renewal::State(1))),
    ];
    for (file, page, renewal) in cases {
        bench.chore.bad_pages = vec![(file, page)];
        // A record, and a byte behind the log.
        bench.chunks.flip(1, 4096 + 5000);
        bench.chunks.flip(1, footer - 4097);
        let asked = bench.pass();
        let damage = bench.chunks.damage.take().expect("damage");
        assert_eq!((damage.from, damage.to), (start.plus(4096), start.plus(5120)), "{file} {page}");
        let behind = Renewal::Zeros { from: start.plus(footer - 4097 - 4096), to: start.plus(footer - 8192) };
        let mut expected: Vec<Renewal> = renewal.into_iter().chain([behind]).collect();
        let mut found = asked.clone();
        expected.sort_by_key(|renewal| format!("{renewal:?}"));
        found.sort_by_key(|renewal| format!("{renewal:?}"));
        assert_eq!(found, expected, "{file} {page}");
        bench.chunks.flip(1, 4096 + 5000);
        bench.chunks.flip(1, footer - 4097);
        assert!(bench.chunks.file(1) == good, "{file} {page}");
    }
    assert_eq!(bench.figure(|figures| &figures.pages_mended), 1, "the footer page is written anew here");
    assert_eq!(bench.figure(|figures| &figures.background_errors), 0);
    // Only for a moment, while the second look is waited for.
    bench.chore.bad_pages = vec![(name, 0)];
    while bench.chore.suspicions.is_empty() {
        bench.chore.step(bench.now);
        bench.now += Duration::from_secs(1);
    }
    bench.chore.bad_pages.clear();
    assert_eq!(bench.pass(), []);
}

/// Of a chunk full of rot no more is kept in memory than that, and its file is flushed once.
#[test]
fn much_rot_is_looked_at_in_portions() {
    let mut bench = Bench::new();
    let pages: Vec<u64> = (4096..LAYOUT.footer_offset()).step_by(4096).collect();
    for page in &pages {
        bench.chunks.flip(2, page + 9);
    }
    let ahead = DAMAGED_AHEAD..DAMAGED_AHEAD + 4;
    for chunk in ahead.clone() {
        let page = ChunkHeader { chunk, layout: LAYOUT }.encode();
        bench.chunks.disk.create(FileName::Chunk(chunk), &page, LAYOUT.file_length()).unwrap();
        for page in &pages {
            bench.chunks.flip(chunk, page + 9);
        }
    }
    let mut asked = Vec::new();
    let passes = |bench: &Bench| bench.figure(|figures| &figures.unsealed_passes);
    while passes(&bench) == 0 {
        if let Next::After(rest) = bench.chore.step(bench.now) {
            bench.now += rest;
        }
        assert!(bench.chore.suspicions.len() <= SUSPICIONS_MAX);
        asked.append(&mut bench.asked.lock());
    }
    assert_eq!(asked.len(), 5 * pages.len());
    bench.chore.asked.sort_by_key(|name| name.to_string());
    let files: Vec<FileName> = [2].into_iter().chain(ahead).map(FileName::Chunk).collect();
    assert_eq!(bench.chore.asked, files);
}

/// The check waits for the end of the record then, which never comes: neither it nor what lies behind it may go unnoticed.
#[test]
fn a_length_that_reaches_beyond_the_commit_position_is_found() {
    let mut bench = Bench::new();
    let start = LAYOUT.chunk_start(1);
    for record in [WRITTEN - 1024, WRITTEN - 5 * 1024] {
        let at = 4096 + record;
        bench.chunks.xor(1, at + 1, 0x80);
        bench.chunks.flip(1, 4096 + WRITTEN - 100);
        assert_eq!(bench.pass(), []);
        let found: Vec<_> = std::iter::from_fn(|| bench.chunks.damage.take()).map(|damage| damage.from).collect();
        let mut expected = vec![start.plus(record), start.plus(WRITTEN - 1024)];
        expected.dedup();
        assert_eq!(found, expected);
        bench.chunks.flip(1, 4096 + WRITTEN - 100);
        bench.chunks.xor(1, at + 1, 0x80);
    }
}

#[test]
fn no_pass_begins_before_the_log_thread_has_spoken() {
    let mut bench = Bench::new();
    bench.chunks.published = Arc::default();
    bench.chore.links.published = Arc::clone(&bench.chunks.published);
    let read = |bench: &Bench| bench.figure(|figures| &figures.scrubbed_bytes);
    for _ in 0..20 {
        let Next::After(rest) = bench.chore.step(bench.now) else { panic!("there is nothing to do yet") };
        assert!(rest <= REST_MIN, "{rest:?}");
        bench.now += rest;
    }
    assert_eq!(read(&bench), 0);
    // It has, but nobody knows what is committed: what may be sealed is left to others.
    let end = LAYOUT.chunk_start(1).plus(WRITTEN);
    bench.chunks.published.set_positions(end, end, LogPosition::ZERO, LogPosition::ZERO);
    bench.chunks.published.set_high_water(end);
    assert_eq!(bench.pass(), []);
    assert_eq!(read(&bench), 2 * LAYOUT.file_length() + STATE_FILE_BYTES);
    assert_eq!(bench.chunks.damage.take(), None);
}

#[test]
fn a_chunk_that_has_become_full_since_the_pass_began_is_left_out() {
    let mut bench = Bench::new();
    let (start, end) = (LAYOUT.chunk_start(1), LAYOUT.chunk_start(1).plus(WRITTEN));
    bench.chunks.published.set_positions(end, end, LogPosition(1024), LogPosition(1024));
    let mut steps = 0;
    bench.pass_with(|chunks| {
        steps += 1;
        if steps == 2 {
            chunks.published.set_positions(end, end, start.plus(1024), start.plus(1024));
        }
    });
    let read = bench.figure(|figures| &figures.scrubbed_bytes);
    assert_eq!(read, 2 * LAYOUT.file_length() + STATE_FILE_BYTES, "chunks 1 and 2 only");
}
