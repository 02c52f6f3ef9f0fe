//! Single bits of every file in a node's data directory are flipped, those of the index included.
//!
//! Goal: whatever rots is found by the node itself, nothing of it is served, and the file holds the right bytes again. Method:
//! the directory is listed, and a file of a kind that is not known here fails the test. For each file there is a list of
//! places: its first and its last byte, the fields of its layout, and some drawn from a printed seed. In a round one bit is
//! flipped in each file at once (they are independent of each other; tables of the index and the log, which they are made
//! from again, have rounds of their own). Then a client reads everything at that node, again and again, until each file is
//! whole: no answer may be another than what was written. `FLIPS_ROUNDS` and `FLIPS_SEED` in the environment make it longer
//! or another one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use ringstore::storage::WrongMark;

use crate::bit_flips::{
    CHUNK_BYTES, PAGE_BYTES, PATIENCE, Reference, STREAMS, chunk_name, fill_with, read_everything, storage_figure,
};
use crate::support::cluster::{Cluster, Node, scratch, small_chunks};
use crate::support::{http, wait_until};

/// More than eight chunks: two tables.
const WRITES: usize = 380;
const EVENT_BYTES: usize = 1150;

/// Rounds for the log and the small files, and for tables.
const ROUNDS: usize = 14;
const TABLE_ROUNDS: usize = 4;

const FOOTER: u64 = PAGE_BYTES + CHUNK_BYTES;

/// What a file of the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Lock,
    State,
    Sealed,
    Open,
    Ahead,
    Manifest,
    Table,
}

/// All files of a data directory, of a log that ends at `end`.
fn files(db: &Path, end: u64) -> BTreeMap<String, Kind> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        entries.map(|entry| entry.file_name().into_string().expect("a name")).collect()
    };
    let mut files = BTreeMap::new();
    for name in names(db).into_iter().filter(|name| name != "index") {
        let number = name.strip_prefix("chunk-").and_then(|rest| rest.strip_suffix(".000000")).map(str::parse::<u64>);
        let kind = match (name.as_str(), number) {
            ("ringstore.lock", _) => Kind::Lock,
            ("node.state", _) => Kind::State,
            (_, Some(Ok(chunk))) if chunk < end / CHUNK_BYTES => Kind::Sealed,
            (_, Some(Ok(chunk))) if chunk == end / CHUNK_BYTES => Kind::Open,
            (_, Some(Ok(_))) => Kind::Ahead,
            _ => panic!("{name} is a file of a new kind: who finds rot in it?"),
        };
        files.insert(name, kind);
    }
    for name in names(&db.join("index")) {
        let kind = match name.as_str() {
            "manifest" => Kind::Manifest,
            table if table.starts_with("table-") && !table.ends_with(".tmp") => Kind::Table,
            _ => panic!("index/{name} is a file of a new kind: who finds rot in it?"),
        };
        files.insert(format!("index/{name}"), kind);
    }
    files
}

/// The places of a file, in the order in which they are tried. `turn` moves what is tried first, so that files of one kind
/// do not all begin with the same.
fn places(kind: Kind, bytes: &[u8], end: u64, turn: usize, random: &mut fastrand::Rng) -> Vec<u64> {
    let length = bytes.len() as u64;
    let header = [8, 12, 16, 24, 28, 40, 511, 512, 520, 528, 531, 532, 1024, 1032, 1041, 1535, 1536, 4095];
    let footer = [0, 8, 12, 16, 24, 28, 32, 40, 48, 52, 56, 64, 68, 80, 96, 4000, 4092].map(|at| FOOTER + at);
    let written = PAGE_BYTES + end % CHUNK_BYTES;
    let state = [8, 12, 16, 24, 40, 48, 56, 72, 73, 80, 84, 200, 4092];
    let fields: Vec<u64> = match kind {
        Kind::Lock => vec![3],
        Kind::State => state.iter().flat_map(|at| [*at, 4096 + at]).collect(),
        Kind::Manifest => vec![8, 12, 16, 24, 32, 40, 48, 56, 64],
        Kind::Table => vec![8, 4091, 4092, length - 4096, length - 4060],
        Kind::Sealed => header.into_iter().chain(records(bytes, FOOTER, random)).chain(footer).collect(),
        Kind::Open => {
            let behind = [written, written + 8, written + 70_000, FOOTER - 1, FOOTER, FOOTER + 24];
            header.into_iter().chain(records(bytes, written, random)).chain(behind).collect()
        }
        Kind::Ahead => header.into_iter().chain([PAGE_BYTES, PAGE_BYTES + 8, 500_000, FOOTER - 1, FOOTER]).collect(),
    };
    let mut order = vec![0, length - 1];
    order.extend(fields);
    order.extend((0..order.len() / 3).map(|_| random.u64(0..length)));
    // A step that has no divisor in common with most lengths goes over all of them.
    let count = order.len();
    order.dedup();
    let step = [7, 5, 3, 1].into_iter().find(|step| !order.len().is_multiple_of(*step)).unwrap_or(1);
    (0..count.min(order.len())).map(|index| order[(turn * 3 + index * step) % order.len()]).collect()
}

/// Fields of some records of a chunk, which end at `end` of its file: of the header, the name, an entry, the data.
fn records(bytes: &[u8], end: u64, random: &mut fastrand::Rng) -> Vec<u64> {
    let (mut at, mut found) = (PAGE_BYTES, Vec::new());
    while at < end {
        let length = u64::from(u32::from_le_bytes(bytes[at as usize..][..4].try_into().unwrap()));
        found.push((at, length));
        at += length;
    }
    let fields = [0, 5, 9, 17, 20, 21, 22, 25, 32, 40, 50, 60, 66, 80];
    let mut places: Vec<u64> = fields
        .iter()
        .map(|field| {
            let (at, length) = found[random.usize(0..found.len())];
            at + (field % length)
        })
        .collect();
    let (last, length) = found[found.len() - 1];
    places.extend([last, last + length - 1]);
    places
}

#[derive(Debug)]
struct Flip {
    file: String,
    kind: Kind,
    offset: u64,
    good: u8,
    /// Of the whole file with the flipped bit.
    bad_crc: u32,
}

impl Flip {
    fn new(db: &Path, file: &str, kind: Kind, offset: u64, bit: u8) -> Flip {
        let handle = File::options().read(true).write(true).open(db.join(file)).unwrap();
        let mut byte = [0];
        handle.read_exact_at(&mut byte, offset).unwrap();
        handle.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
        let bad_crc = crc32c::crc32c(&std::fs::read(db.join(file)).unwrap());
        Flip { file: file.to_owned(), kind, offset, good: byte[0], bad_crc }
    }

    /// True when the file holds what it must again. A table that was damaged is never used again; a mark in a chunk that is
    /// being written is made anew, and says the same.
    fn is_whole(&self, db: &Path) -> bool {
        let Ok(bytes) = std::fs::read(db.join(&self.file)) else { return self.kind == Kind::Table };
        let is_mark = (512..532).contains(&self.offset) || (1024..1044).contains(&self.offset);
        match self.kind {
            // Without a manifest the numbers begin anew.
            Kind::Table => crc32c::crc32c(&bytes) != self.bad_crc,
            Kind::Open | Kind::Ahead if is_mark => WrongMark::all(&bytes[..PAGE_BYTES as usize]).is_empty(),
            // The node may have saved another state meanwhile.
            Kind::State => bytes.chunks(4096).all(|slot| crc32c::crc32c(&slot[..4092]).to_le_bytes() == slot[4092..]),
            // It counts up with each that is written.
            Kind::Manifest => crc32c::crc32c(&bytes[..bytes.len() - 4]).to_le_bytes() == bytes[bytes.len() - 4..],
            _ => bytes.get(self.offset as usize) == Some(&self.good),
        }
    }
}

/// The text without the sequences that colour it.
fn without_colours(text: &str) -> String {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |sum, piece| sum + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}

fn number_from(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn index_figure(node: &Node, name: &str) -> u64 {
    let stats = http::get(node.ext_http(), "/stats", PATIENCE).expect("an answer").json().expect("JSON");
    stats["index"][name].as_u64().or_else(|| stats["index"][name].as_bool().map(u64::from)).expect("a figure")
}

/// Everything that the node has found so far.
fn found(node: &Node) -> u64 {
    let storage = ["damageFound", "pagesMended", "renewalsAsked"].map(|name| storage_figure(node, name));
    storage.iter().sum::<u64>() + index_figure(node, "damagedTables")
}

/// Waits until nothing changes any more by itself: chunks are sealed, the state knows the commit position, tables are there.
fn settle(node: &Node, end: u64) {
    let quiet = || {
        let state = std::fs::read(node.db().join("node.state")).unwrap();
        let hint = u64::from_le_bytes(state[48..56].try_into().unwrap());
        let writing = std::fs::read_dir(node.db().join("index")).unwrap();
        let is_writing =
            writing.map(|entry| entry.unwrap().file_name()).any(|name| name.to_string_lossy().ends_with(".tmp"));
        hint == end
            && state[..4096] == state[4096..]
            && !is_writing
            && storage_figure(node, "sealedChunks") == end / CHUNK_BYTES
            && index_figure(node, "tables") > 0
            && index_figure(node, "isComplete") == 1
    };
    wait_until("the node has nothing left to do", PATIENCE, quiet)
        .unwrap_or_else(|error| panic!("{error}\n{}", node.tail()));
}

/// Reads everything at the node until all flips are whole again, and asserts that each was found and none served.
fn heal(node: &Node, reference: &Reference, flips: &[Flip], found_before: Option<u64>) {
    let (db, began) = (node.db(), Instant::now());
    loop {
        let seen = read_everything(node, reference);
        assert_eq!(seen.wrong, Vec::<String>::new(), "{flips:?}\n{}", node.tail());
        let waiting: Vec<&Flip> = flips.iter().filter(|flip| !flip.is_whole(&db)).collect();
        let found = found_before.map_or(flips.len() as u64, |before| found(node) - before);
        if waiting.is_empty() && found >= flips.len() as u64 && index_figure(node, "isComplete") == 1 {
            return;
        }
        let about = format!("{found} of {} found, not whole: {waiting:?}", flips.len());
        assert!(began.elapsed() < PATIENCE, "{about}\n{}", node.tail());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn options() -> Vec<String> {
    let mut options = small_chunks(CHUNK_BYTES).to_vec();
    options.extend(["--scrub-mib-per-second", "1000"].map(str::to_owned));
    options
}

/// The places of each file that are still to be tried.
fn all_places(db: &Path, end: u64, random: &mut fastrand::Rng) -> BTreeMap<String, (Kind, Vec<u64>)> {
    let with_places = |(turn, (file, kind)): (usize, (String, Kind))| {
        let bytes = std::fs::read(db.join(&file)).unwrap();
        let places = places(kind, &bytes, end, turn, random);
        (file, (kind, places))
    };
    files(db, end).into_iter().enumerate().map(with_places).collect()
}

fn print(title: &str, tried: &BTreeMap<Kind, usize>) {
    let sum: usize = tried.values().sum();
    println!("{title}: {sum} bits flipped, all found, none served, all repaired: {tried:?}");
}

#[test]
fn whatever_rots_in_any_file_of_a_running_follower_is_found_and_repaired() {
    let seed = number_from("FLIPS_SEED", fastrand::u64(0..1 << 32));
    println!("FLIPS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = scratch("flips-everywhere");
    let cluster = Cluster::start(&folder, &options()).unwrap();
    let leader = cluster.leader().unwrap();
    let reference = fill_with(&cluster.nodes[leader], WRITES, EVENT_BYTES);
    let end = cluster.wait_until_even().unwrap();
    let node = &cluster.nodes[(leader + 1) % 3];
    let db = node.db();
    settle(node, end);
    let places = all_places(&db, end, &mut random);
    let mut tried: BTreeMap<Kind, usize> = BTreeMap::new();
    for round in 0..number_from("FLIPS_ROUNDS", ROUNDS as u64) as usize {
        let before = found(node);
        let in_turn = places.iter().filter(|(_, (kind, _))| *kind != Kind::Table);
        let flip = |(file, (kind, places)): (&String, &(Kind, Vec<u64>))| {
            Flip::new(&db, file, *kind, places[round % places.len()], random.u8(0..8))
        };
        let flips: Vec<Flip> = in_turn.map(flip).collect();
        heal(node, &reference, &flips, Some(before));
        flips.iter().for_each(|flip| *tried.entry(flip.kind).or_default() += 1);
    }
    for round in 0..TABLE_ROUNDS {
        settle(node, end);
        let before = found(node);
        // The tables are others after each round.
        let places = all_places(&db, end, &mut random);
        let mut tables = places.iter().filter(|(_, (kind, _))| *kind == Kind::Table);
        let (file, (kind, places)) = tables.next().expect("a table");
        let flips = [Flip::new(&db, file, *kind, places[round % places.len()], random.u8(0..8))];
        heal(node, &reference, &flips, Some(before));
        *tried.entry(Kind::Table).or_default() += 1;
    }
    print("a running follower", &tried);
    assert!(tried.values().sum::<usize>() >= 150 && tried.len() == 7, "{tried:?}");
    let seen = read_everything(node, &reference);
    assert!(seen.wrong.is_empty() && seen.refusals.is_empty(), "{seen:?}");
    for chunk in 0..=end / CHUNK_BYTES {
        let log =
            |node: &Node| std::fs::read(node.db().join(chunk_name(chunk))).unwrap()[PAGE_BYTES as usize..].to_vec();
        assert!(log(node) == log(&cluster.nodes[leader]), "chunk {chunk} is not the leader's");
    }
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn whatever_rots_in_any_file_of_a_stopped_follower_is_repaired() {
    let seed = number_from("FLIPS_SEED", fastrand::u64(0..1 << 32));
    println!("FLIPS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = scratch("flips-everywhere-stopped");
    let mut cluster = Cluster::start(&folder, &options()).unwrap();
    let leader = cluster.leader().unwrap();
    let reference = fill_with(&cluster.nodes[leader], WRITES, EVENT_BYTES);
    let end = cluster.wait_until_even().unwrap();
    let index = (leader + 1) % 3;
    let db = cluster.nodes[index].db();
    let mut tried: BTreeMap<Kind, usize> = BTreeMap::new();
    for round in 0..4 {
        settle(&cluster.nodes[index], end);
        cluster.nodes[index].stop().unwrap();
        let places = all_places(&db, end, &mut random);
        let flips: Vec<Flip> = places
            .iter()
            .map(|(file, (kind, places))| {
                Flip::new(&db, file, *kind, places[(round * 5) % places.len()], random.u8(0..8))
            })
            // The text of the lock names the process that has the directory open, which is another one then.
            .filter(|flip| flip.kind != Kind::Lock)
            .collect();
        cluster.nodes[index].start().unwrap();
        cluster.wait_until_in_step(index, PATIENCE).unwrap();
        // What recovery has mended it has logged, and counts nowhere.
        heal(&cluster.nodes[index], &reference, &flips, None);
        flips.iter().for_each(|flip| *tried.entry(flip.kind).or_default() += 1);
    }
    print("a stopped follower", &tried);
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_node_that_is_alone_mends_what_it_knows_and_reports_the_rest_with_chunk_and_position() {
    let seed = number_from("FLIPS_SEED", fastrand::u64(0..1 << 32));
    println!("FLIPS_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = scratch("flips-everywhere-alone");
    let options = options();
    let mut node = Node::single(&folder, &options.iter().map(String::as_str).collect::<Vec<_>>());
    node.start_and_wait().unwrap();
    let reference = fill_with(&node, WRITES, EVENT_BYTES);
    let end = node.figures().expect("figures").log_end;
    settle(&node, end);
    let db = node.db();
    let places = all_places(&db, end, &mut random);
    for round in 0..4 {
        // What the node knows by itself.
        let is_log = |kind: Kind, offset: u64| match kind {
            Kind::Sealed => (PAGE_BYTES..FOOTER).contains(&offset),
            Kind::Open => (PAGE_BYTES..PAGE_BYTES + end % CHUNK_BYTES).contains(&offset),
            _ => false,
        };
        let before = found(&node);
        let mut flips = Vec::new();
        for (file, (kind, places)) in places.iter().filter(|(_, (kind, _))| *kind != Kind::Table) {
            let mut known = places.iter().filter(|&&offset| !is_log(*kind, offset)).cycle();
            flips.push(Flip::new(&db, file, *kind, *known.nth(round).expect("a place"), random.u8(0..8)));
        }
        heal(&node, &reference, &flips, Some(before));
    }
    // The log: nobody else has it. In a sealed chunk and in the open one.
    let waiting = || storage_figure(&node, "damageWaiting");
    for chunk in [2, end / CHUNK_BYTES] {
        let bytes = std::fs::read(db.join(chunk_name(chunk))).unwrap();
        let ends = if chunk == 2 { FOOTER } else { PAGE_BYTES + end % CHUNK_BYTES };
        let place = records(&bytes, ends, &mut random)[9];
        let flip = Flip::new(&db, &chunk_name(chunk), Kind::Sealed, place, 2);
        wait_until("the damage is found", PATIENCE, || waiting() == 1).unwrap_or_else(|_| panic!("{}", node.tail()));
        let seen = read_everything(&node, &reference);
        assert!(seen.wrong.is_empty() && seen.refusals.len() < STREAMS, "{seen:?}");
        let output = without_colours(&std::fs::read_to_string(node.folder.join("output")).unwrap());
        let is_named = |line: &str| {
            let position = line.split("position=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            let record = chunk * CHUNK_BYTES + place - PAGE_BYTES;
            line.contains(&format!("the log is damaged in {}", chunk_name(chunk)))
                && line.contains(&format!("chunk={chunk} "))
                && position.is_some_and(|position| position <= record && record - position < 64 << 10)
        };
        assert!(output.lines().any(is_named), "{}", node.tail());
        File::options().write(true).open(db.join(&flip.file)).unwrap().write_all_at(&[flip.good], place).unwrap();
        wait_until("nothing is left to repair", PATIENCE, || waiting() == 0).unwrap();
    }
    drop(node);
    std::fs::remove_dir_all(folder).unwrap();
}
