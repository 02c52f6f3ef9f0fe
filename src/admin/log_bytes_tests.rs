//! A log of two chunks in files, read as a request asks for it.

use super::*;
use crate::codec::record::{RecordKind, padding, seal};
use crate::engine::NodeView;
use crate::storage::memory::TempDirectory;
use crate::storage::{ChunkHeader, Disk as _, FileDisk, FileName};
use crate::types::{ClusterId, Guid, Term};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
const CLUSTER: ClusterId = ClusterId(Guid([7; 16]));

struct Log {
    source: Source,
    disk: FileDisk,
    starts: Vec<u64>,
    bytes: Vec<u8>,
    _directory: TempDirectory,
}

impl Log {
    fn new() -> Log {
        let directory = TempDirectory::new();
        let disk = FileDisk::open(directory.path()).unwrap();
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        while bytes.len() < (1 << 20) + 5000 {
            let position = LogPosition(bytes.len() as u64);
            starts.push(position.0);
            let length = 4000 + bytes.len() / 800 % 100 * 8;
            let room = LAYOUT.room(position) as usize;
            let mut record = vec![1; if length + 32 > room { room } else { length }];
            let header = Header {
                length: 0,
                crc: 0,
                position,
                term: Term(1),
                kind: RecordKind::Append,
                flags: 0,
                event_count: 1,
                timestamp: 0,
            };
            if length + 32 > room {
                padding(&mut record, position, Term(1), 0)
            } else {
                seal(&mut record, header)
            }
            bytes.extend_from_slice(&record);
        }
        for chunk in 0..2 {
            let page = ChunkHeader { chunk, layout: LAYOUT }.encode();
            disk.create(FileName::Chunk(chunk), &page, LAYOUT.file_length()).unwrap();
        }
        disk.write_at(FileName::Chunk(0), 4096, &bytes[..1 << 20]).unwrap();
        disk.write_at(FileName::Chunk(1), 4096, &bytes[1 << 20..]).unwrap();
        let published = Arc::new(Published::default());
        published.set_view(NodeView { cluster: Some(CLUSTER), ..NodeView::default() });
        let end = LogPosition(bytes.len() as u64);
        published.set_positions(end, end, end, end);
        let log = LogReader::new(directory.path(), LAYOUT);
        let source = Source { log, damage: DamageReports::default(), published };
        Log { source, disk, starts, bytes, _directory: directory }
    }

    fn flip(&self, position: u64) {
        let at = LogPosition(position);
        let (name, offset) = (FileName::Chunk(LAYOUT.chunk_of(at)), LAYOUT.file_offset(at));
        let mut byte = [0];
        self.disk.read_at(name, offset, &mut byte).unwrap();
        self.disk.write_at(name, offset, &[byte[0] ^ 4]).unwrap();
    }

    /// What is given, and where it ends; or the status and the words.
    fn read(&self, from: u64, to: u64) -> Result<(Vec<u8>, u64), (u16, String)> {
        let response = self.source.read(LogPosition(from), LogPosition(to));
        if response.status != 200 {
            return Err((response.status, response.reason.into_owned()));
        }
        let header = |name: &str| response.headers.iter().find(|(known, _)| known == name).unwrap().1.to_string();
        assert_eq!(header(CRC_HEADER), format!("{:08x}", crc32c::crc32c(&response.body)));
        Ok((response.body.to_vec(), header(END_HEADER).parse().unwrap()))
    }

    fn refused(&self, from: Option<&str>, to: Option<&str>, cluster: Option<ClusterId>) -> (u16, String) {
        let cluster = cluster.map(|cluster| cluster.to_string());
        let response = self.source.accept(Asked { from, to, cluster: cluster.as_deref(), durable: None }).unwrap_err();
        (response.status, response.reason.into_owned())
    }
}

#[test]
fn whole_records_are_given_up_to_the_chunk_end() {
    let log = Log::new();
    let end = log.bytes.len() as u64;
    let (bytes, at) = log.read(0, end).unwrap();
    assert_eq!((bytes.as_slice(), at), (&log.bytes[..1 << 20], 1 << 20), "a chunk at a time");
    let (bytes, at) = log.read(1 << 20, end).unwrap();
    assert_eq!((bytes.as_slice(), at), (&log.bytes[1 << 20..], end));
    let (from, to) = (log.starts[3], log.starts[4]);
    assert_eq!(log.read(from, to).unwrap(), (log.bytes[from as usize..to as usize].to_vec(), to));
    assert_eq!(log.read(from, to + 8).unwrap().1, to, "no part of a record");
}

#[test]
fn what_is_not_cut_at_records_is_refused() {
    let log = Log::new();
    let (from, to) = (log.starts[3], log.starts[4]);
    let (status, words) = log.read(from, to - 8).unwrap_err();
    assert_eq!((status, words.contains(&format!("ends at {to}"))), (400, true), "{words}");
    let (status, words) = log.read(from + 8, to).unwrap_err();
    assert_eq!((status, words.contains("no record begins at")), (400, true), "{words}");
    assert_eq!(log.source.damage.count(), 0);
}

#[test]
fn damage_never_leaves_and_is_reported() {
    let log = Log::new();
    let (from, to, end) = (log.starts[3], log.starts[4], log.starts[20]);
    for at in [from, from + 1, from + 2, from + 5, from + 9, from + 100, to - 1] {
        log.flip(at);
        assert_eq!(log.read(0, end).unwrap().1, from, "what comes before it");
        for asked in [from, log.starts[2] + 16] {
            let outcome = log.read(asked, end);
            assert!(asked != from || outcome.as_ref().is_err_and(|(status, _)| *status == 500), "{at}: {outcome:?}");
        }
        let damage = log.source.damage.take().unwrap();
        assert_eq!((damage.chunk, damage.from.0, damage.to.0), (0, from, to), "{at}");
        log.flip(at);
        assert_eq!(log.read(from, end).unwrap().1, end);
    }
}

#[test]
fn requests_say_which_cluster_and_ask_for_what_is_committed() {
    let log = Log::new();
    let end = log.bytes.len();
    let check = |from, to, cluster: Option<ClusterId>, status: u16, words: &str| {
        let (found, said) = log.refused(from, to, cluster);
        assert!(found == status && said.contains(words), "{from:?} {to:?}: {found} {said}");
    };
    check(Some("0"), Some("8"), None, 400, "name the cluster");
    check(Some("0"), Some("8"), Some(ClusterId::default()), 409, "this node's cluster is");
    check(None, Some("8"), Some(CLUSTER), 400, "from is \"\"");
    check(Some("0"), Some("x"), Some(CLUSTER), 400, "to is \"x\"");
    check(Some("8"), Some("8"), Some(CLUSTER), 400, "nothing lies between");
    let beyond = (end + 8).to_string();
    check(Some("0"), Some(&beyond), Some(CLUSTER), 409, "has committed up to");
    log.source.published.set_positions(LogPosition(999), LogPosition(64), LogPosition(999), LogPosition(999));
    check(Some("0"), Some("72"), Some(CLUSTER), 409, "up to 64 only");
}

#[test]
fn two_read_at_once() {
    let busy = Arc::default();
    let first = Place::take(&busy);
    let second = Place::take(&busy);
    assert!(first.is_some() && second.is_some() && Place::take(&busy).is_none());
    drop(first);
    assert!(Place::take(&busy).is_some());
}

#[test]
fn what_is_flushed_and_not_committed_is_given_only_to_those_who_ask_for_it() {
    let log = Log::new();
    let (end, committed) = (LogPosition(log.bytes.len() as u64), LogPosition(log.starts[3]));
    log.source.published.set_positions(end, end, committed, committed);
    let (to, cluster) = (log.starts[5].to_string(), CLUSTER.to_string());
    let ask = |durable| {
        let asked = Asked { from: Some("0"), to: Some(&to), cluster: Some(&cluster), durable };
        log.source.accept(asked).map_err(|refused| refused.status)
    };
    assert_eq!((ask(None), ask(Some("false"))), (Err(409), Err(409)));
    assert_eq!(ask(Some("true")), Ok((LogPosition(0), LogPosition(log.starts[5]))));
    let response = log.source.read(LogPosition(0), LogPosition(log.starts[5]));
    let said = response.headers.iter().find(|(name, _)| name == COMMITTED_HEADER).unwrap().1.to_string();
    assert_eq!(said, committed.to_string());
}
