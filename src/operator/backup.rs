//! `ringstore backup`: the committed log of a running node, copied record by record into a folder of chunks.
//!
//! Promises: a folder with a manifest is a whole backup up to the position in it, which was committed when the run began;
//! every record was checked when it arrived; what is there already and checks out is not fetched again. A run that is
//! stopped leaves a folder from which the next one goes on. Leaves to the node: what is committed, and that it gives no
//! damaged bytes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;

use super::access::Access;
use super::error::{OperatorError, file_failed, refused};
use super::files::{self, LogSource, walk};
use super::log_check::{ChunkSummary, LogCheck};
use super::manifest::{ChunkEntry, EpochEntry, MANIFEST_FILE, Manifest, ORIGIN_FILE, Origin};
use super::progress::{Progress, size};
use crate::http::{Call, Method};
use crate::limits::{CHUNK_FOOTER_BYTES, CHUNK_SIZE_MAX_BYTES, CHUNK_SIZE_MIN_BYTES};
use crate::storage::{ChunkFooter, ChunkHeader, ChunkLayout, Disk as _, FileDisk, FileName};
use crate::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term, WallTime};

/// One answer; a node gives some MiB, or one record that is larger.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a node that is busy, restarting or mending itself is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Written bytes after which a chunk's file is flushed: an interruption loses no more than that.
const FLUSH_BYTES: u64 = 64 << 20;

/// What `GET /log/info` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    cluster: Option<ClusterId>,
    node: NodeId,
    commit_position: u64,
    chunk_size: u64,
    #[serde(default)]
    first_position: u64,
    epochs: Vec<InfoEpoch>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct InfoEpoch {
    term: u32,
    position: u64,
    id: Guid,
}

/// What a run did, for its last lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) manifest: Manifest,
    /// Bytes that came over the network.
    pub(super) fetched: u64,
    /// Bytes that were there already and were checked.
    pub(super) kept: u64,
}

/// Brings the backup in `directory` up to what the node at `from` has committed now.
pub(super) fn backup(directory: &Path, from: Option<&str>, access: Access) -> Result<Done, OperatorError> {
    let address = access.node(from)?;
    let (info, cluster) = ask_info(&access, address)?;
    let origin = Origin::new(cluster, info.chunk_size);
    let before = prepare(directory, &origin, &info)?;
    // From here on no second run, and no node, is in the folder.
    let disk = FileDisk::open(directory)?;
    origin.save(directory)?;
    let layout = origin.layout();
    let target = LogPosition(info.commit_position);
    let source = Remote { access, address, cluster: cluster.to_string(), fetched: 0 };
    let mut copy =
        Copy { disk, directory, layout, target, source, check: LogCheck::new(layout, false), kept: 0, unflushed: 0 };
    let chunks = copy.chunks(before.as_ref())?;
    let manifest = copy.manifest(origin, &info, chunks);
    copy.check_epochs(&info)?;
    manifest.save(directory)?;
    Ok(Done { manifest, fetched: copy.source.fetched, kept: copy.kept })
}

/// The lines that a finished run prints.
pub(super) fn summary(directory: &Path, done: &Done, elapsed: Duration) -> Vec<String> {
    let Manifest { position, records, events, origin, .. } = &done.manifest;
    let seconds = elapsed.as_secs_f64();
    vec![
        format!("backup of cluster {} in {}: up to position {position}", origin.cluster, directory.display()),
        format!(
            "{records} records, {events} events; {} fetched, {} were there and checked, in {seconds:.1} s",
            size(done.fetched),
            size(done.kept)
        ),
    ]
}

fn ask_info(access: &Access, address: SocketAddr) -> Result<(Info, ClusterId), OperatorError> {
    let value = access.get(address, "/log/info")?;
    let info: Info = serde_json::from_value(value)
        .map_err(|error| refused(format!("what the node at {address} says of its log is not understood: {error}")))?;
    let cluster = info.cluster;
    let cluster =
        cluster.ok_or_else(|| refused(format!("the node at {address} is in no cluster yet: it has no log")))?;
    let sizes = CHUNK_SIZE_MIN_BYTES..=CHUNK_SIZE_MAX_BYTES;
    if !sizes.contains(&info.chunk_size) || !info.chunk_size.is_multiple_of(4096) || info.first_position != 0 {
        return Err(refused(format!(
            "the node at {address} has a log from {} in chunks of {} bytes, which this program cannot keep: use a newer one",
            info.first_position, info.chunk_size
        )));
    }
    if info.commit_position == 0 {
        return Err(refused(format!("the node at {address} has committed nothing yet: there is nothing to back up")));
    }
    Ok((info, cluster))
}

/// Whether the folder may take a backup of this cluster; the manifest of the run before, if there was one.
fn prepare(directory: &Path, origin: &Origin, info: &Info) -> Result<Option<Manifest>, OperatorError> {
    let shown = directory.display();
    let names = files::contents(directory)?;
    let begun = if names.is_empty() { None } else { Origin::load(directory)? };
    match begun {
        Some(begun) if begun != *origin => {
            return Err(refused(format!(
                "{shown} has a backup of cluster {} in chunks of {} bytes, the node is of cluster {} with chunks of {}: give \
                 this cluster a folder of its own",
                begun.cluster, begun.chunk_size, origin.cluster, origin.chunk_size
            )));
        }
        None if !names.is_empty() => {
            let first = &names[0];
            return Err(refused(format!(
                "{shown} is not empty and no backup ({first} is there, {ORIGIN_FILE} is not): give an empty folder, or that \
                 of an earlier backup of this cluster"
            )));
        }
        _ => {}
    }
    let before = Manifest::load(directory)?;
    if let Some(before) = &before {
        if before.position > info.commit_position {
            return Err(refused(format!(
                "{shown} goes up to position {}, the node has committed up to {} only: ask one that is further",
                before.position, info.commit_position
            )));
        }
        let known = |epoch: &EpochEntry| {
            info.epochs
                .iter()
                .any(|theirs| (theirs.term, theirs.position, theirs.id) == (epoch.number, epoch.position, epoch.id))
        };
        if let Some(epoch) = before.epochs.iter().find(|epoch| !known(epoch)) {
            return Err(refused(format!(
                "{shown} has epoch {} from position {}, which the node's log does not have: the logs have parted, so this \
                 needs a folder of its own",
                epoch.number, epoch.position
            )));
        }
    }
    fs::create_dir_all(directory).map_err(file_failed(directory, "created"))?;
    Ok(before)
}

/// The log over HTTP.
struct Remote {
    access: Access,
    address: SocketAddr,
    cluster: String,
    fetched: u64,
}

impl LogSource for Remote {
    fn read(
        &mut self,
        from: LogPosition,
        until: LogPosition,
        _wanted: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let began = Instant::now();
        loop {
            match self.ask(from, until) {
                Ok(bytes) => {
                    self.fetched += bytes.len() as u64;
                    *into = bytes;
                    return Ok(());
                }
                Err(words) if began.elapsed() >= PATIENCE => {
                    return Err(refused(format!(
                        "the log from position {from} cannot be had from the node at {}: {words}. What was copied stays: \
                         run the same command again, with another node in --from if this one does not mend",
                        self.address
                    )));
                }
                Err(words) => {
                    tracing::debug!("asked again: {words}");
                    thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }
}

impl Remote {
    /// One answer, checked against its checksum; the error is in words.
    fn ask(&self, from: LogPosition, until: LogPosition) -> Result<Vec<u8>, String> {
        let path = format!("/log/bytes?from={from}&to={until}");
        let headers = [("Ring-Cluster", self.cluster.as_str())];
        let body_bytes_max = ANSWER_BYTES_MAX;
        let call = Call {
            method: Method::Get,
            path: &path,
            headers: &headers,
            body: b"",
            body_bytes_max,
            limit: ANSWER_LIMIT,
        };
        let answer = self.access.call(self.address, &call).map_err(|error| error.to_string())?;
        if answer.status != 200 {
            let words = String::from_utf8_lossy(&answer.body).trim().to_owned();
            return Err(format!("status {}, {words}", answer.status));
        }
        let says = answer.headers.get("ring-crc32c").unwrap_or_default().to_owned();
        let computed = format!("{:08x}", crc32c::crc32c(&answer.body));
        if says != computed {
            return Err(format!("the checksum of what arrived is {computed}, the node says {says:?}"));
        }
        if answer.body.is_empty() || answer.body.len() as u64 > until.since(from) {
            return Err(format!("it gave {} bytes", answer.body.len()));
        }
        Ok(answer.body)
    }
}

/// A run under way.
struct Copy<'a> {
    disk: FileDisk,
    directory: &'a Path,
    layout: ChunkLayout,
    target: LogPosition,
    source: Remote,
    check: LogCheck,
    kept: u64,
    unflushed: u64,
}

impl Copy<'_> {
    fn chunks(&mut self, before: Option<&Manifest>) -> Result<Vec<ChunkEntry>, OperatorError> {
        let mut progress = Progress::new("backed up", self.target.0);
        let mut entries = Vec::new();
        let mut chunk = 0;
        while self.layout.chunk_start(chunk) < self.target {
            let entry = before.and_then(|manifest| manifest.chunks.get(chunk as usize)).copied();
            entries.push(self.chunk(chunk, entry, &mut progress)?);
            chunk += 1;
        }
        Ok(entries)
    }

    /// Brings one chunk up to date: what is there is checked, what is missing is fetched.
    fn chunk(
        &mut self,
        chunk: u32,
        before: Option<ChunkEntry>,
        progress: &mut Progress,
    ) -> Result<ChunkEntry, OperatorError> {
        let name = FileName::Chunk(chunk);
        let start = self.layout.chunk_start(chunk);
        let until = self.layout.chunk_start(chunk + 1).min(self.target);
        let path = self.directory.join(name.to_string());
        let is_there = path.try_exists().map_err(file_failed(&path, "opened"))?;
        if is_there {
            self.keep(chunk, before, until, progress)?;
        } else {
            let head = ChunkHeader { chunk, layout: self.layout }.encode();
            let length = self.layout.file_length();
            self.disk.create(name, &head, length).map_err(file_failed(&path, "created"))?;
        }
        let (disk, layout, unflushed) = (&self.disk, self.layout, &mut self.unflushed);
        let mut write = |at: LogPosition, bytes: &[u8]| {
            disk.write_at(name, layout.file_offset(at), bytes).map_err(file_failed(&path, "written"))?;
            *unflushed += bytes.len() as u64;
            if *unflushed >= FLUSH_BYTES {
                *unflushed = 0;
                disk.sync(name).map_err(file_failed(&path, "flushed"))?;
            }
            progress.add(bytes.len() as u64);
            Ok(())
        };
        if let Some(broken) = walk(&mut self.source, &mut self.check, until, &mut write)? {
            return Err(refused(format!(
                "what the node at {} gave for position {} does not fit: {}; look at that node, or ask another with --from",
                self.source.address, broken.position, broken.reason
            )));
        }
        if let Some((position, words)) = self.check.take_complaints().into_iter().next() {
            return Err(refused(format!(
                "the log of the node at {} is wrong at position {position}: {words}; look at that node, or ask another with \
                 --from",
                self.source.address
            )));
        }
        let found = self.check.end_chunk();
        self.seal(chunk, start, until, &found)?;
        Ok(ChunkEntry { chunk, bytes: until.since(start), crc32c: found.crc })
    }

    /// Walks through what an earlier run left of a chunk, as far as it checks out.
    fn keep(
        &mut self,
        chunk: u32,
        before: Option<ChunkEntry>,
        until: LogPosition,
        progress: &mut Progress,
    ) -> Result<(), OperatorError> {
        let start = self.check.position();
        let mut local = files::ReadOnlyFolder::open(self.directory, self.layout, false)?;
        let name = FileName::Chunk(chunk);
        let path = self.directory.join(name.to_string());
        let length = fs::metadata(&path).map_err(file_failed(&path, "read"))?.len();
        let mut page = vec![0; crate::limits::CHUNK_HEADER_BYTES as usize];
        let header = ChunkHeader { chunk, layout: self.layout };
        let is_chunk = length == self.layout.file_length() && {
            local.read_at(name, 0, &mut page)?;
            header.check(&page).is_ok()
        };
        if !is_chunk {
            progress.finish_line();
            eprintln!("{name} is not a good chunk file: it is made again");
            fs::remove_file(&path).map_err(file_failed(&path, "removed"))?;
            self.disk
                .create(name, &header.encode(), self.layout.file_length())
                .map_err(file_failed(&path, "created"))?;
            return Ok(());
        }
        // No further than what is committed: zeros end a chunk that was not finished.
        let mut pass = |_: LogPosition, bytes: &[u8]| {
            progress.add(bytes.len() as u64);
            Ok(())
        };
        let broken = walk(&mut local, &mut self.check, until, &mut pass)?;
        self.kept += self.check.position().since(start);
        let promised = before.map_or(LogPosition::ZERO, |entry| start.plus(entry.bytes));
        if let Some(broken) = broken.filter(|broken| !broken.is_empty || broken.position < promised) {
            progress.finish_line();
            eprintln!("{name} is damaged at position {}: {}; fetched again from there", broken.position, broken.reason);
        }
        Ok(())
    }

    /// Makes a chunk durable, with its footer when it is full.
    fn seal(
        &self,
        chunk: u32,
        start: LogPosition,
        until: LogPosition,
        found: &ChunkSummary,
    ) -> Result<(), OperatorError> {
        let name = FileName::Chunk(chunk);
        let path = self.directory.join(name.to_string());
        if until.since(start) == self.layout.chunk_size {
            let mut page = vec![0; CHUNK_FOOTER_BYTES as usize];
            let offset = self.layout.footer_offset();
            self.disk.read_at(name, offset, &mut page).map_err(file_failed(&path, "read"))?;
            let footer = found.footer(chunk, self.layout);
            if ChunkFooter::decode(&page, chunk, self.layout) != Ok(Some(footer.clone())) {
                self.disk.write_at(name, offset, &footer.encode()).map_err(file_failed(&path, "written"))?;
            }
        }
        self.disk.sync(name).map_err(file_failed(&path, "flushed"))
    }

    /// The epochs that were copied are those that the node says it has.
    fn check_epochs(&self, info: &Info) -> Result<(), OperatorError> {
        let says = |epoch: &Epoch| {
            info.epochs
                .iter()
                .any(|theirs| (theirs.term, theirs.position, theirs.id) == (epoch.term.0, epoch.position.0, epoch.id))
        };
        match self.check.epochs().iter().find(|epoch| !says(epoch)) {
            None => Ok(()),
            Some(epoch) => Err(refused(format!(
                "the copied log has epoch {} at position {}, which the node at {} does not have any more: run it again",
                epoch.term, epoch.position, self.source.address
            ))),
        }
    }

    fn manifest(&self, origin: Origin, info: &Info, chunks: Vec<ChunkEntry>) -> Manifest {
        let (records, events) = self.check.counts();
        let term: Term = self.check.term();
        Manifest {
            origin,
            node: info.node,
            position: self.target.0,
            term,
            epochs: self.check.epochs().iter().map(|epoch| (*epoch).into()).collect(),
            records,
            events,
            date: WallTime::from_system(SystemTime::now()).to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            chunks,
        }
    }
}

/// Words for a folder that has no finished backup.
pub(super) fn no_manifest(directory: &Path) -> OperatorError {
    refused(format!(
        "{} has no {MANIFEST_FILE}: it is no backup, or one that was never finished; run `ringstore backup` into it again, \
         it goes on where it stopped",
        directory.display()
    ))
}

#[cfg(test)]
#[path = "backup_tests.rs"]
pub(super) mod tests;
