//! Goal: what has rotted is written anew only where nobody is about to write. Method: the files of a data directory before and
//! after, for each reason to leave them alone.

use super::*;
use crate::storage::ChunkHeader;
use crate::storage::memory::TempDirectory;
use crate::types::{Guid, NodeId};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 64 << 10 };
const HIGH_WATER: LogPosition = LogPosition(10_000);

struct Bench {
    directory: TempDirectory,
    files: LogFiles,
    state: DurableState,
}

impl Bench {
    /// One chunk of nonsense, and a state file of nonsense.
    fn new() -> Bench {
        let directory = TempDirectory::new();
        let disk = Arc::new(FileDisk::open(directory.path()).unwrap());
        let state = DurableState::new(NodeId(Guid([1; 16])), LAYOUT.chunk_size);
        state.create(&*disk).unwrap();
        let head = ChunkHeader { chunk: 0, layout: LAYOUT }.encode();
        disk.create(FileName::Chunk(0), &head, LAYOUT.file_length()).unwrap();
        for (name, length) in Bench::lengths() {
            disk.write_at(name, 0, &vec![0xee; length]).unwrap();
        }
        let mark = DurableMark { sequence: 7, position: LogPosition(4096) };
        Bench { directory, files: LogFiles::new(disk, LAYOUT, true, Some(mark)), state }
    }

    fn lengths() -> [(FileName, usize); 2] {
        let state = STATE_SLOT_OFFSETS[1] as usize + crate::storage::STATE_SLOT_BYTES;
        [(FileName::Chunk(0), LAYOUT.file_length() as usize), (FileName::State, state)]
    }

    /// Which bytes a renewal changed, of the chunk and of the state file.
    fn renew(&mut self, flushed: LogPosition, is_saved: bool, renewal: Renewal) -> [Vec<usize>; 2] {
        let at_rest = AtRest { flushed, high_water: HIGH_WATER, state: is_saved.then_some(&self.state) };
        self.files.renew(at_rest, renewal);
        Bench::lengths().map(|(name, length)| {
            let bytes = std::fs::read(self.directory.path().join(name.to_string())).unwrap();
            (0..length).filter(|&at| bytes[at] != 0xee).collect()
        })
    }
}

const NOTHING: [Vec<usize>; 2] = [Vec::new(), Vec::new()];

#[test]
fn marks_are_renewed_between_flushes_and_in_chunks_that_are_not_full() {
    let mut bench = Bench::new();
    bench.files.flush = Some(Flush { id: 1, first_chunk: 0, last_chunk: 0, remaining: 1 });
    assert_eq!(
        bench.renew(HIGH_WATER, true, Renewal::Marks(0)),
        NOTHING,
        "a flush is in flight, and a mark with it perhaps"
    );
    bench.files.flush = None;
    assert_eq!(bench.renew(LAYOUT.chunk_start(1), true, Renewal::Marks(0)), NOTHING, "the chunk may be sealed");
    let [chunk, state] = bench.renew(HIGH_WATER, true, Renewal::Marks(0));
    assert!(!chunk.is_empty() && chunk.iter().all(|at| (512..1536).contains(at)) && state.is_empty(), "{chunk:?}");
    assert_eq!(bench.files.mark_sequence, 9);
}

#[test]
fn a_header_page_is_renewed_as_a_whole_where_marks_are() {
    let mut bench = Bench::new();
    bench.files.flush = Some(Flush { id: 1, first_chunk: 0, last_chunk: 0, remaining: 1 });
    assert_eq!(bench.renew(HIGH_WATER, true, Renewal::Header(0)), NOTHING, "a mark may be on its way");
    bench.files.flush = None;
    assert_eq!(bench.renew(LAYOUT.chunk_start(1), true, Renewal::Header(0)), NOTHING, "the chunk may be sealed");
    let [chunk, state] = bench.renew(HIGH_WATER, true, Renewal::Header(0));
    assert_eq!((chunk, state), ((0..4096).collect(), Vec::new()));
    let page = std::fs::read(bench.directory.path().join(FileName::Chunk(0).to_string())).unwrap();
    let mark = DurableMark::read_newest(&page[..4096]);
    assert_eq!(mark.map(|mark| mark.position), Some(LogPosition(4096)), "{mark:?}");
}

#[test]
fn zeros_are_renewed_where_nothing_was_written() {
    let mut bench = Bench::new();
    let zeros = |from, to| Renewal::Zeros { from: LogPosition(from), to: LogPosition(to) };
    assert_eq!(bench.renew(HIGH_WATER, true, zeros(9_999, 12_288)), NOTHING, "a byte of it may be written");
    let header = 4096;
    let [chunk, _] = bench.renew(HIGH_WATER, true, zeros(10_000, 12_288));
    assert_eq!(chunk, (header + 10_000..header + 12_288).collect::<Vec<_>>(), "no more of the page than that");
    let mut bench = Bench::new();
    let [chunk, state] = bench.renew(HIGH_WATER, true, zeros(12_800, 16_384));
    assert_eq!(chunk, (header + 12_288..header + 16_384).collect::<Vec<_>>(), "the whole page");
    assert_eq!(state, [0; 0]);
}

#[test]
fn the_state_is_renewed_while_none_is_being_saved() {
    let mut bench = Bench::new();
    assert_eq!(bench.renew(HIGH_WATER, false, Renewal::State(1)), NOTHING, "it is being saved");
    let [chunk, state] = bench.renew(HIGH_WATER, true, Renewal::State(1));
    let slot = STATE_SLOT_OFFSETS[1] as usize;
    assert!(chunk.is_empty() && !state.is_empty() && state.iter().all(|&at| at >= slot), "{state:?}");
}
