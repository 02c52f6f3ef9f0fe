//! A log with damage, and other nodes that speak HTTP over loopback.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::super::Background;
use super::super::testing::{Chunks, LAYOUT};
use super::*;
use crate::engine::NodeView;
use crate::gossip::{Addresses, KnownNode};
use crate::storage::{FileInfo, LogRead as _};
use crate::types::Guid;

const CLUSTER: ClusterId = ClusterId(Guid([7; 16]));

/// A node that has committed `bytes` of the log up to `committed`.
fn peer(number: u8, bytes: Vec<u8>, committed: u64) -> KnownNode {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            let target = request.split(' ').nth(1).unwrap();
            let body = match target.strip_prefix("/log/bytes?from=").and_then(|query| query.split_once("&to=")) {
                Some((from, to)) => bytes[from.parse().unwrap()..to.parse().unwrap()].to_vec(),
                None => {
                    format!("{{\"cluster\":\"{CLUSTER}\",\"commitPosition\":{committed},\"chunkSize\":65536}}").into()
                }
            };
            let crc = crc32c::crc32c(&body);
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nRing-Crc32c: {crc:08x}\r\n\r\n");
            stream.write_all(&[head.into_bytes(), body].concat()).unwrap();
        }
    });
    let addresses =
        Addresses { int_tcp: address, int_http: address, ext_tcp: address, ext_http: address, ext_secure_tcp: None };
    KnownNode { node: NodeId(Guid([number; 16])), addresses, is_alive: true }
}

struct Bench {
    chunks: Chunks,
    good: Vec<u8>,
    directory: Directory,
    repairer: Repairer,
}

impl Bench {
    fn new(has_peers: bool) -> Bench {
        let chunks = Chunks::new(2);
        chunks.published.set_view(NodeView { cluster: Some(CLUSTER), ..NodeView::default() });
        let good =
            (0..2).flat_map(|chunk| chunks.file(chunk)[4096..4096 + LAYOUT.chunk_size as usize].to_vec()).collect();
        let directory = Directory::default();
        let repairer = Repairer::new(RepairerLinks {
            disk: Arc::clone(&chunks.disk),
            log: LogReader::new(chunks.disk.directory(), LAYOUT),
            node: NodeId(Guid([1; 16])),
            published: Arc::clone(&chunks.published),
            directory: directory.clone(),
            damage: chunks.damage.clone(),
            figures: Arc::clone(&chunks.figures),
            has_peers,
            way: crate::ring::Way::default(),
            plane: crate::security::Plane::Open,
        });
        Bench { chunks, good, directory, repairer }
    }

    fn report(&self, chunk: u32, from: u64, to: u64) {
        let (from, to) = (LogPosition(from), LogPosition(to));
        self.chunks.damage.report(Damage { chunk, from, to, reason: "seen".to_owned() });
    }

    /// Found, waiting, repaired.
    fn figures(&self) -> [u64; 3] {
        let figures = &self.chunks.figures;
        [&figures.damage_found, &figures.damage_waiting, &figures.damage_repaired]
            .map(|one| one.load(Ordering::Relaxed))
    }

    /// Steps at a time that is `later` than now.
    fn steps(&mut self, later: Duration) {
        for _ in 0..10 {
            self.repairer.step(Instant::now() + later);
        }
    }

    fn is_whole(&self) -> bool {
        let chunk = |chunk: u32| self.chunks.file(chunk)[4096..4096 + LAYOUT.chunk_size as usize].to_vec();
        (0..2).flat_map(chunk).eq(self.good.iter().copied())
    }
}

#[test]
fn damage_is_repaired_from_a_node_that_has_committed_it() {
    let mut bench = Bench::new(true);
    let behind = peer(2, bench.good.clone(), 3 << 10);
    let good = peer(3, bench.good.clone(), 128 << 10);
    bench.directory.replace(vec![behind, good], "".into());
    // Two records in what was reported as one range, and another one.
    for offset in [5 << 10, 9 << 10, (64 + 3) << 10] {
        let at = LogPosition(offset + 100);
        bench.chunks.flip(LAYOUT.chunk_of(at), LAYOUT.file_offset(at));
    }
    bench.report(0, 5 << 10, 64 << 10);
    bench.report(1, 67 << 10, 68 << 10);
    bench.steps(Duration::ZERO);
    assert!(bench.is_whole());
    assert_eq!(bench.figures(), [2, 0, 3]);
}

#[test]
fn what_cannot_be_repaired_waits_and_is_tried_again() {
    let mut bench = Bench::new(true);
    bench.chunks.flip(0, 4096 + (5 << 10) + 77);
    bench.report(0, 5 << 10, 6 << 10);
    bench.steps(Duration::ZERO);
    assert_eq!(bench.figures(), [1, 1, 0], "no other node is known");
    bench.report(0, 5 << 10, 6 << 10);
    let behind = peer(2, bench.good.clone(), 6 << 9);
    bench.directory.replace(vec![behind], "".into());
    bench.steps(Duration::from_secs(60));
    assert_eq!(bench.figures(), [1, 1, 0], "the only other one is behind; the range counts once");
    let good = peer(3, bench.good.clone(), 128 << 10);
    bench.directory.replace(vec![behind, good], "".into());
    bench.steps(Duration::from_secs(600));
    assert!(bench.is_whole());
    assert_eq!(bench.figures(), [1, 0, 1]);
}

#[test]
fn a_node_that_hangs_is_not_waited_for_when_the_thread_stops() {
    let bench = Bench::new(true);
    // It takes the connection and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let addresses =
        Addresses { int_tcp: address, int_http: address, ext_tcp: address, ext_http: address, ext_secure_tcp: None };
    bench.directory.replace(vec![KnownNode { node: NodeId(Guid([2; 16])), addresses, is_alive: true }], "".into());
    bench.chunks.flip(0, 4096 + (5 << 10) + 77);
    bench.report(0, 5 << 10, 6 << 10);
    let figures = Arc::clone(&bench.chunks.figures);
    let thread = Background::start("repairer", &[], vec![Box::new(bench.repairer)]).unwrap();
    let _waiting = listener.accept().unwrap();
    let began = Instant::now();
    thread.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(figures.damage_waiting.load(Ordering::Relaxed), 1);
}

#[test]
fn what_the_disk_could_not_read_is_seen_after_the_repair() {
    let mut bench = Bench::new(true);
    bench.directory.replace(vec![peer(3, bench.good.clone(), 128 << 10)], "".into());
    let log = bench.repairer.links.log.clone();
    // Whether the log could be read, and the record there is good.
    let look = || {
        let (at, mut is_good) = (LogPosition(8 << 10), false);
        let outcome = log.with_chunk(at, &mut |bytes| is_good = RecordView::check(bytes, at, LAYOUT.room(at)).is_ok());
        (outcome.is_ok(), is_good)
    };
    assert_eq!(look(), (true, true));
    // Behind the end of its file a mapping fails as on a bad sector.
    let path = bench.chunks.disk.directory().join(FileName::Chunk(0).to_string());
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(4096 + (8 << 10)).unwrap();
    assert_eq!(look(), (false, false));
    assert_eq!(look(), (true, false));
    file.set_len(LAYOUT.file_length()).unwrap();
    bench.report(0, 8 << 10, 64 << 10);
    bench.steps(Duration::ZERO);
    assert!(bench.is_whole());
    assert_eq!(look(), (true, true));
}

#[test]
fn damage_that_is_gone_is_forgotten_and_what_is_not_committed_is_left_alone() {
    let mut bench = Bench::new(false);
    bench.report(0, 5 << 10, 6 << 10);
    bench.steps(Duration::ZERO);
    assert_eq!(bench.figures(), [1, 0, 0]);
    bench.report(2, 128 << 10, 129 << 10);
    bench.steps(Duration::from_secs(60));
    assert_eq!(bench.figures(), [2, 1, 0]);
    assert!(bench.is_whole());
}

/// What memory has of the files, and apart from it what the disk has.
struct TwoFaced<'a> {
    memory: &'a FileDisk,
    disk: RefCell<Vec<u8>>,
    flipped: Option<u64>,
}

impl Disk for TwoFaced<'_> {
    fn list(&self) -> io::Result<Vec<FileInfo>> {
        self.memory.list()
    }

    fn create(&self, name: FileName, head: &[u8], length: u64) -> io::Result<()> {
        self.memory.create(name, head, length)
    }

    fn read_at(&self, name: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.memory.read_at(name, offset, into)?;
        let index = self.flipped.and_then(|at| at.checked_sub(offset));
        if let Some(byte) = index.and_then(|index| into.get_mut(index as usize)) {
            *byte ^= 8;
        }
        Ok(())
    }

    fn read_cold(&self, _: FileName, offset: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.disk.borrow()[offset as usize..offset as usize + into.len()]);
        Ok(())
    }

    fn write_at(&self, _: FileName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.borrow_mut()[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, name: FileName) -> io::Result<()> {
        self.memory.sync(name)
    }
}

#[test]
fn what_is_written_back_was_checked() {
    let chunks = Chunks::new(2);
    let good = chunks.file(1);
    let range = |from: u64, to: u64| {
        let (from, to) = (LogPosition((64 + from) << 10), LogPosition((64 + to) << 10));
        Damage { chunk: 1, from, to, reason: "seen".to_owned() }
    };
    let disk = |bytes: &[u8], flipped| TwoFaced { memory: &chunks.disk, disk: bytes.to_vec().into(), flipped };
    for bad in [4096 + (9 << 10) + 77, 4096 + (9 << 10), 4096 + (9 << 10) + 2] {
        let bad_memory = disk(&good, Some(bad));
        let error = write_back(&bad_memory, LAYOUT, &range(3, 20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(*bad_memory.disk.borrow() == good, "{bad}: the disk had it right");
    }
    let mut bad = good.clone();
    bad[4096 + (9 << 10) + 77] ^= 8;
    for (from, to) in [(3, 20), (9, 10), (0, 64), (8, 64)] {
        let bad_disk = disk(&bad, None);
        assert!(write_back(&bad_disk, LAYOUT, &range(from, to)).unwrap() >= 1 << 10);
        assert!(*bad_disk.disk.borrow() == good, "{from} {to}");
        assert_eq!(write_back(&bad_disk, LAYOUT, &range(from, to)).unwrap(), 0);
    }
}
