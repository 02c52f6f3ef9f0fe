//! Backups from a stand-in for a node. Goal: only what is missing is fetched, and nothing is kept that is not the log.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::codec::record::{Header, RecordKind};
use crate::operator::testing::{CLUSTER, LAYOUT, Log};
use crate::operator::verify::verify;
use crate::storage::memory::TempDirectory;

/// A node that gives a log, as far as the contract of the two routes goes.
pub(in crate::operator) struct Giver {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    cluster: ClusterId,
    given: Arc<AtomicU64>,
    /// While true it answers 503.
    busy: Arc<AtomicBool>,
    /// Flips a bit of what it gives, behind the checksum that goes with it.
    lies: Arc<AtomicBool>,
}

impl Giver {
    fn start(log: Log, cluster: ClusterId) -> Giver {
        let listener = TcpListener::bind("127.0.0.91:0").unwrap();
        let giver = Giver {
            address: listener.local_addr().unwrap(),
            log: Arc::new(Mutex::new(log)),
            cluster,
            given: Arc::default(),
            busy: Arc::default(),
            lies: Arc::default(),
        };
        let (log, given, busy, lies) =
            (Arc::clone(&giver.log), Arc::clone(&giver.given), Arc::clone(&giver.busy), Arc::clone(&giver.lies));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..count]).into_owned();
                let log = log.lock();
                let answer = match request.split(' ').nth(1).unwrap() {
                    _ if busy.load(Ordering::SeqCst) => b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy".to_vec(),
                    "/log/info" => with_body(info(&log, cluster).to_string().into_bytes(), ""),
                    path => {
                        assert!(request.contains(&format!("Ring-Cluster: {cluster}\r\n")), "{request}");
                        let mut body = bytes(&log, path);
                        given.fetch_add(body.len() as u64, Ordering::SeqCst);
                        if lies.load(Ordering::SeqCst) {
                            let middle = body.len() / 2;
                            body[middle] ^= 1;
                        }
                        let crc = crc32c::crc32c(&body);
                        with_body(body, &format!("Ring-Crc32c: {crc:08x}\r\n"))
                    }
                };
                stream.write_all(&answer).unwrap();
            }
        });
        giver
    }

    fn backup(&self, directory: &Path) -> Result<Done, OperatorError> {
        backup(directory, Some(&self.address.to_string()), Access::default())
    }

    /// Bytes of log given since the last call.
    fn take_given(&self) -> u64 {
        self.given.swap(0, Ordering::SeqCst)
    }
}

fn with_body(body: Vec<u8>, headers: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.into_bytes(), body].concat()
}

fn info(log: &Log, cluster: ClusterId) -> serde_json::Value {
    let mut check = LogCheck::new(LAYOUT, false);
    log.bytes.chunks(LAYOUT.chunk_size as usize).for_each(|bytes| assert_eq!(check.take(bytes).1, None));
    let epochs = check.epochs().iter();
    let epochs = epochs.map(|epoch| json!({ "term": epoch.term.0, "position": epoch.position.0, "id": epoch.id }));
    json!({ "cluster": cluster, "node": CLUSTER, "term": 3, "commitPosition": log.end().0, "logEnd": log.end().0,
            "chunkSize": LAYOUT.chunk_size, "firstPosition": 0, "epochs": epochs.collect::<Vec<_>>() })
}

/// Whole records, one at least, about 200,000 bytes of them.
fn bytes(log: &Log, path: &str) -> Vec<u8> {
    let number = |name: &str| path.split(['?', '&']).find_map(|part| part.strip_prefix(name)).unwrap().parse().unwrap();
    let (from, to): (u64, u64) = (number("from="), number("to="));
    let mut end = from;
    while end < to && end - from < 200_000 {
        let room = LAYOUT.room(LogPosition(end));
        end += u64::from(Header::read(&log.bytes[end as usize..], LogPosition(end), room).unwrap().length);
    }
    assert!(end <= to);
    log.bytes[from as usize..end as usize].to_vec()
}

/// Makes a backup of a log in `directory`.
pub(in crate::operator) fn backup_of(log: &Log, directory: &Path) {
    Giver::start(log.clone(), CLUSTER).backup(directory).unwrap();
}

fn assert_good(directory: &Path) {
    assert_eq!(verify(directory, &mut |words| panic!("{words}")).unwrap().findings, 0);
}

#[test]
fn a_second_run_fetches_only_what_is_new() {
    let folder = TempDirectory::new();
    let giver = Giver::start(Log::sample(), CLUSTER);
    let first = giver.backup(folder.path()).unwrap();
    let length = giver.log.lock().end().0;
    assert_eq!((first.fetched, first.kept, first.manifest.position), (length, 0, length));
    assert_eq!((first.manifest.events, first.manifest.epochs.len(), first.manifest.chunks.len()), (105, 2, 3));
    assert_eq!(giver.take_given(), length);
    assert_good(folder.path());

    for n in 45..80 {
        giver.log.lock().append("a", n, 1, 50_000);
    }
    let longer = giver.log.lock().end().0;
    let second = giver.backup(folder.path()).unwrap();
    assert_eq!((second.fetched, second.kept), (longer - length, length));
    assert_eq!(giver.take_given(), longer - length);
    assert_good(folder.path());
    assert_eq!(giver.backup(folder.path()).unwrap().fetched, 0, "nothing is new");
}

#[test]
fn damage_in_the_backup_is_fetched_again() {
    let folder = TempDirectory::new();
    let giver = Giver::start(Log::sample(), CLUSTER);
    giver.backup(folder.path()).unwrap();
    giver.take_given();
    let path = folder.path().join("chunk-000001.000000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 900_000] ^= 4;
    bytes[LAYOUT.footer_offset() as usize + 9] ^= 4;
    fs::write(&path, bytes).unwrap();
    giver.backup(folder.path()).unwrap();
    assert!((1..200_000).contains(&giver.take_given()), "from the damage to the chunk's end");
    assert_good(folder.path());
    fs::write(&path, b"short").unwrap();
    giver.backup(folder.path()).unwrap();
    assert_eq!(giver.take_given(), LAYOUT.chunk_size);
    assert_good(folder.path());
}

#[test]
fn a_run_that_was_stopped_is_gone_on_with() {
    let folder = TempDirectory::new();
    let giver = Giver::start(Log::sample(), CLUSTER);
    giver.backup(folder.path()).unwrap();
    giver.take_given();
    // As it was in the middle of chunk 1: no manifest, nothing behind.
    fs::remove_file(folder.path().join(MANIFEST_FILE)).unwrap();
    fs::remove_file(folder.path().join("chunk-000002.000000")).unwrap();
    let path = folder.path().join("chunk-000001.000000");
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 600_000..].fill(0);
    fs::write(&path, bytes).unwrap();
    assert!(verify(folder.path(), &mut |_| ()).unwrap_err().to_string().contains("never finished"));
    let done = giver.backup(folder.path()).unwrap();
    assert!(done.kept > LAYOUT.chunk_size + 500_000, "{}", done.kept);
    assert_eq!(done.kept + done.fetched, giver.log.lock().end().0);
    assert_good(folder.path());
}

#[test]
fn what_is_not_this_log_is_refused() {
    let folder = TempDirectory::new();
    let giver = Giver::start(Log::sample(), CLUSTER);
    giver.backup(folder.path()).unwrap();
    let other = ClusterId(Guid([66; 16]));
    let check = |giver: &Giver, directory: &Path, expected: &str| {
        let words = giver.backup(directory).unwrap_err().to_string();
        assert!(words.contains(expected), "{words}");
    };
    check(&Giver::start(Log::sample(), other), folder.path(), "has a backup of cluster 09090909");
    let mut parted = Log::default();
    parted.epoch(2);
    (0..60).for_each(|n| {
        parted.append("a", n, 1, 50_000);
    });
    check(&Giver::start(parted.clone(), CLUSTER), folder.path(), "the logs have parted");
    let mut short = Log::default();
    short.epoch(1);
    check(&Giver::start(short, CLUSTER), folder.path(), "ask one that is further");
    let notes = TempDirectory::new();
    fs::write(notes.path().join("notes.txt"), b"mine").unwrap();
    check(&giver, notes.path(), "is not empty and no backup (notes.txt");
    // Bytes whose checksum on the way is good, but that are no records.
    giver.lies.store(true, Ordering::SeqCst);
    check(&giver, &notes.path().join("new"), "does not fit: record checksum is");
    assert!(!notes.path().join("new").join(MANIFEST_FILE).exists());
    let mut wrong = Log::default();
    wrong.epoch(1);
    wrong.record(RecordKind::Membership, 0, b"no list");
    check(&Giver::start(wrong, CLUSTER), &notes.path().join("wrong"), "a member list that cannot be read");
    assert_eq!(giver.cluster, CLUSTER);
}

#[test]
fn a_busy_node_is_asked_again() {
    let folder = TempDirectory::new();
    let giver = Giver::start(Log::sample(), CLUSTER);
    let remote = Remote { access: Access::default(), address: giver.address, cluster: CLUSTER.to_string(), fetched: 0 };
    giver.busy.store(true, Ordering::SeqCst);
    assert_eq!(remote.ask(LogPosition::ZERO, LogPosition(100)), Err("status 503, busy".to_owned()));
    let busy = Arc::clone(&giver.busy);
    let free = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        busy.store(false, Ordering::SeqCst);
    });
    let (mut bytes, mut remote, until) = (Vec::new(), remote, LAYOUT.chunk_start(1));
    remote.read(LogPosition::ZERO, until, 0, &mut bytes).unwrap();
    assert!(!bytes.is_empty() && remote.fetched == bytes.len() as u64);
    free.join().unwrap();
    giver.backup(folder.path()).unwrap();
}
