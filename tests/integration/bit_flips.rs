//! Single bits of a node's files are flipped, while it runs and while it is stopped.
//!
//! Goal: no flipped bit is ever served to a client; each that is met is found, and is repaired from another node, so that
//! the file holds the same bytes again. Method: three nodes with small chunks and some thousand events; for offsets of each
//! kind in the files of a follower a bit is flipped, then a client reads everything at that node until the file is whole
//! again, and compares each answer with what was written. The table says what was tried and what came of it.
//!
//! What the client does not read by itself (padding, epochs) is met through the route by which nodes read each other's
//! log, which checks every record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::single::{connect, write};
use crate::support::client::{ANY, Refusal, event};
use crate::support::cluster::{Cluster, Node, scratch, small_chunks};
use crate::support::http;
use crate::support::messages::EventRecord;
use crate::support::wait_until;

pub(crate) const CHUNK_BYTES: u64 = 1 << 20;
pub(crate) const PAGE_BYTES: u64 = 4096;
pub(crate) const STREAMS: usize = 8;
const WRITES: usize = 240;
const EVENTS_PER_WRITE: usize = 20;

/// How long the repair of one bit may take. It takes well below a second; performance is not what fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Offsets of each kind that are tried while the node runs, and while it is stopped.
const TRIES_RUNNING: usize = 6;
const TRIES_STOPPED: usize = 1;

pub(crate) type Reference = BTreeMap<String, Vec<EventRecord>>;

pub(crate) fn stream(number: usize) -> String {
    format!("flips-{number}")
}

fn fill(node: &Node) -> Reference {
    fill_with(node, WRITES, 200)
}

/// Writes events and gives what every node must show from then on.
pub(crate) fn fill_with(node: &Node, writes: usize, event_bytes: usize) -> Reference {
    let mut client = connect(node);
    for number in 0..writes {
        let one = |index: usize| {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&((number * EVENTS_PER_WRITE + index) as u64).to_le_bytes());
            event(id, vec![(number % 251) as u8; event_bytes + index * 10])
        };
        let events = (0..EVENTS_PER_WRITE).map(one).collect();
        write(&mut client, &stream(number % STREAMS), ANY, events).expect("a write to the leader");
    }
    let read = |number| (stream(number), client.read_to_end(&stream(number)).expect("a stream"));
    (0..STREAMS).map(read).collect()
}

/// What a client saw of all streams: every event as it was written, or a refusal. Anything else is served wrong.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) wrong: Vec<String>,
}

pub(crate) fn read_everything(node: &Node, reference: &Reference) -> Seen {
    let mut seen = Seen::default();
    let mut client = connect(node);
    for (stream, events) in reference {
        let mut from = 0;
        while from < events.len() as i64 {
            match client.read(stream, from, 100).expect("an answer") {
                Ok(page) => {
                    let end = (from as usize + page.events.len()).min(events.len());
                    let is_end = page.is_end_of_stream == (end == events.len());
                    if page.events.is_empty() || page.events != events[from as usize..end] || !is_end {
                        seen.wrong.push(format!("{stream} from {from}: {} events", page.events.len()));
                    }
                    from = (from + 100).max(page.next_event_number);
                }
                Err(refusal) => {
                    seen.refusals.push(refusal);
                    from += 100;
                }
            }
        }
    }
    seen
}

/// Reads the log of `node` as another node would, so that every record is looked at once.
fn read_as_a_node(node: &Node) {
    let Ok(info) =
        http::get(node.int_http(), "/log/info", PATIENCE).and_then(|info| info.json().map_err(std::io::Error::other))
    else {
        return;
    };
    let (end, cluster) = (info["commitPosition"].as_u64().unwrap(), info["cluster"].as_str().unwrap().to_owned());
    let mut from = 0;
    while from < end {
        let mut socket = TcpStream::connect(node.int_http()).expect("the internal port accepts");
        let head = format!("GET /log/bytes?from={from}&to={end} HTTP/1.1\r\nHost: a\r\nRing-Cluster: {cluster}\r\n");
        socket.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).expect("a request");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("an answer");
        let head = String::from_utf8_lossy(&answer[..answer.len().min(500)]).into_owned();
        let ends = head.lines().find_map(|line| line.strip_prefix("Ring-End: ")).and_then(|end| end.parse().ok());
        let Some(next) = ends else { return };
        from = next;
    }
}

pub(crate) fn storage_figure(node: &Node, name: &str) -> u64 {
    let stats = http::get(node.ext_http(), "/stats", PATIENCE).expect("an answer").json().expect("JSON");
    stats["storage"][name].as_u64().expect("a figure")
}

fn damage_found(node: &Node) -> u64 {
    storage_figure(node, "damageFound") + storage_figure(node, "pagesMended")
}

/// A place in a file, and what it is.
#[derive(Clone, Debug)]
struct Place {
    kind: &'static str,
    file: String,
    offset: u64,
    /// It lies in a record of the log, or in a page of a sealed chunk: it must be found and repaired.
    must_be_found: bool,
}

pub(crate) fn chunk_name(chunk: u64) -> String {
    format!("chunk-{chunk:06}.000000")
}

/// Places of all kinds in the files of `db`, of a log that ends at `end`.
fn places(db: &Path, end: u64) -> Vec<Place> {
    let mut places = Vec::new();
    let mut push = |kind, file: &str, offset, must_be_found| {
        places.push(Place { kind, file: file.to_owned(), offset, must_be_found });
    };
    for chunk in 0..=end / CHUNK_BYTES {
        // Of the chunk that is being written only the log: what else rots in any file is in `flips_everywhere`.
        let is_sealed = chunk < end / CHUNK_BYTES;
        let name = chunk_name(chunk);
        let bytes = std::fs::read(db.join(&name)).expect("a chunk file");
        if is_sealed {
            push("header page", &name, 9, true);
            push("header page", &name, 30, true);
            push("durable mark", &name, 520, true);
            push("durable mark", &name, 1032, true);
            push("footer page", &name, PAGE_BYTES + CHUNK_BYTES + 26, true);
            push("footer page", &name, PAGE_BYTES + CHUNK_BYTES + 4093, true);
        }
        let mut at = chunk * CHUNK_BYTES;
        while at < end.min((chunk + 1) * CHUNK_BYTES) {
            let offset = PAGE_BYTES + at % CHUNK_BYTES;
            let record = &bytes[offset as usize..];
            let length = u64::from(u32::from_le_bytes(record[..4].try_into().unwrap()));
            match record[20] {
                1 => {
                    push("padding, header", &name, offset + 5, true);
                    push("padding, body", &name, offset + length - 1, true);
                }
                4 => {
                    let field = at / 8 % 32;
                    push("record header", &name, offset + field, true);
                    push("stream name", &name, offset + 32 + 17, true);
                    push("event entry", &name, offset + 32 + 24 + at / 8 % 36, true);
                    push("event data", &name, offset + length - 20 - at / 8 % 100, true);
                }
                _ => push("epoch", &name, offset + 40, true),
            }
            at += length;
        }
    }
    places
}

/// At most `count` of each kind, spread over all there are.
fn chosen(places: &[Place], count: usize) -> Vec<Place> {
    let mut by_kind: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
    for place in places {
        by_kind.entry(place.kind).or_default().push(place);
    }
    let spread = |of_kind: Vec<&Place>| {
        let step = of_kind.len().div_ceil(count).max(1);
        of_kind.into_iter().step_by(step).cloned().collect::<Vec<_>>()
    };
    by_kind.into_values().flat_map(spread).collect()
}

fn byte_at(db: &Path, place: &Place) -> u8 {
    let mut byte = [0];
    File::open(db.join(&place.file)).unwrap().read_exact_at(&mut byte, place.offset).unwrap();
    byte[0]
}

fn flip(db: &Path, place: &Place, bit: u8) -> u8 {
    let before = byte_at(db, place);
    let file = File::options().write(true).open(db.join(&place.file)).unwrap();
    file.write_all_at(&[before ^ (1 << bit)], place.offset).unwrap();
    before
}

/// What came of the places of one kind.
#[derive(Debug, Default)]
struct Row {
    tried: usize,
    detected: usize,
    served_wrong: usize,
    repaired: usize,
}

fn print(title: &str, rows: &BTreeMap<&str, Row>) {
    println!("{title}\n  {:<22} {:>6} {:>9} {:>13} {:>9}", "kind", "tried", "detected", "served wrong", "repaired");
    for (kind, Row { tried, detected, served_wrong, repaired }) in rows {
        println!("  {kind:<22} {tried:>6} {detected:>9} {served_wrong:>13} {repaired:>9}");
    }
}

/// Fails for what must be so of every kind, and of what must be found.
fn judge(rows: &BTreeMap<&str, Row>, places: &[Place]) {
    for (kind, row) in rows {
        assert_eq!(row.served_wrong, 0, "{kind}");
        if places.iter().any(|place| place.kind == *kind && place.must_be_found) {
            assert_eq!((row.detected, row.repaired), (row.tried, row.tried), "{kind}");
        }
    }
}

#[test]
fn a_bit_that_rots_in_a_running_node_is_never_served_and_is_repaired() {
    let folder = scratch("flips-running");
    let mut options = small_chunks(CHUNK_BYTES).to_vec();
    options.extend(["--scrub-mib-per-second", "1000"].map(str::to_owned));
    let cluster = Cluster::start(&folder, &options).unwrap();
    let leader = cluster.leader().unwrap();
    let reference = fill(&cluster.nodes[leader]);
    let end = cluster.wait_until_even().unwrap();
    let node = &cluster.nodes[(leader + 1) % 3];
    let db = node.db();
    wait_until("full chunks are sealed", PATIENCE, || storage_figure(node, "sealedChunks") == end / CHUNK_BYTES)
        .unwrap();
    wait_until("the follower shows all", PATIENCE, || read_everything(node, &reference).wrong.is_empty()).unwrap();
    let places = chosen(&places(&db, end), TRIES_RUNNING);
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (number, place) in places.iter().enumerate() {
        let found_before = damage_found(node);
        let good = flip(&db, place, (number % 8) as u8);
        let row = rows.entry(place.kind).or_default();
        row.tried += 1;
        let (mut is_detected, began) = (false, Instant::now());
        // Nobody looks for the rest.
        let patience = if place.must_be_found { PATIENCE } else { Duration::ZERO };
        loop {
            let seen = read_everything(node, &reference);
            assert_eq!(seen.wrong, Vec::<String>::new(), "{place:?}\n{}", node.tail());
            row.served_wrong += seen.wrong.len();
            read_as_a_node(node);
            is_detected |= !seen.refusals.is_empty() || damage_found(node) > found_before;
            if byte_at(&db, place) == good || began.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // It is counted when it is flushed, a little after the file is whole.
        let is_counted = || is_detected || damage_found(node) > found_before;
        row.detected += usize::from(wait_until("it is counted", patience, is_counted).is_ok());
        row.repaired += usize::from(byte_at(&db, place) == good);
        if byte_at(&db, place) != good {
            flip(&db, place, (number % 8) as u8);
        }
    }
    print("bits flipped in a running follower", &rows);
    judge(&rows, &places);
    let seen = read_everything(node, &reference);
    assert!(seen.wrong.is_empty() && seen.refusals.is_empty(), "{seen:?}");
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_bit_that_rots_in_a_stopped_node_is_repaired_at_its_start() {
    let folder = scratch("flips-stopped");
    let mut cluster = Cluster::start(&folder, &small_chunks(CHUNK_BYTES)).unwrap();
    let leader = cluster.leader().unwrap();
    let reference = fill(&cluster.nodes[leader]);
    let end = cluster.wait_until_even().unwrap();
    let index = (leader + 1) % 3;
    let db = cluster.nodes[index].db();
    let mut places = chosen(&places(&db, end), TRIES_STOPPED);
    // Pages are checked while the node runs.
    places.retain(|place| place.must_be_found && !place.kind.ends_with("page"));
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (number, place) in places.iter().enumerate() {
        cluster.nodes[index].stop().unwrap();
        let good = flip(&db, place, (number % 8) as u8);
        let row = rows.entry(place.kind).or_default();
        row.tried += 1;
        cluster.nodes[index].start().unwrap();
        cluster.wait_until_in_step(index, PATIENCE).unwrap();
        let node = &cluster.nodes[index];
        let mut is_repaired = false;
        let whole = wait_until("the byte is as it was", PATIENCE, || {
            read_as_a_node(node);
            is_repaired = byte_at(&db, place) == good;
            is_repaired
        });
        whole.unwrap_or_else(|error| panic!("{place:?}: {error}\n{}", node.tail()));
        row.repaired += usize::from(is_repaired);
        row.detected += usize::from(is_repaired);
        let seen = read_everything(node, &reference);
        assert!(seen.wrong.is_empty(), "{place:?}: {seen:?}");
    }
    print("bits flipped in a stopped follower", &rows);
    judge(&rows, &places);
    drop(cluster);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_node_that_is_alone_reports_damage_and_serves_the_rest() {
    let folder = scratch("flips-alone");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let reference = fill(&node);
    let db = node.db();
    let bytes = std::fs::read(db.join(chunk_name(0))).unwrap();
    // An event of the first stream in the first chunk.
    let data = [7 * STREAMS as u8; 150];
    let offset = bytes.windows(data.len()).position(|window| window == data).expect("the event's data") as u64;
    let place = Place { kind: "event data", file: chunk_name(0), offset, must_be_found: true };
    let good = flip(&db, &place, 3);
    let seen = read_everything(&node, &reference);
    assert!(seen.wrong.is_empty(), "{seen:?}");
    let is_said = |refusal: &Refusal| refusal.to_string().contains("the log of this node is damaged at position");
    assert!(!seen.refusals.is_empty() && seen.refusals.iter().all(is_said), "{seen:?}");
    assert!(seen.refusals.len() < 3, "the rest is served: {seen:?}");
    let waiting = || storage_figure(&node, "damageWaiting");
    wait_until("the damage is shown", PATIENCE, || waiting() == 1).unwrap();
    let is_logged = |words: &str| wait_until("the log says so", PATIENCE, || node.tail().contains(words));
    is_logged("the log is damaged in chunk-000000.000000").unwrap();
    is_logged("restore the file from a backup").unwrap();
    // The operator puts the file back.
    File::options().write(true).open(db.join(&place.file)).unwrap().write_all_at(&[good], offset).unwrap();
    let seen = read_everything(&node, &reference);
    assert!(seen.wrong.is_empty() && seen.refusals.is_empty(), "{seen:?}");
    wait_until("nothing is left to repair", PATIENCE, || waiting() == 0).unwrap();
    drop(node);
    std::fs::remove_dir_all(folder).unwrap();
}
