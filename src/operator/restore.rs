//! `ringstore restore`: a data directory made from a backup, for a node that joins the cluster of the backup again, or
//! that founds a new one.
//!
//! **Invariant:** until all is copied, checked and durable the directory cannot be started: its state file, which says
//! that there was a log, is there first, and the file of its first chunk last. A node on it would refuse to begin.
//!
//! Either way the node gets a new identity: a copy must never vote under a name whose votes others have counted. With
//! `--join` it is what a clone is that has stopped: it belongs to the cluster, is no member, knows nothing of what is
//! committed, and what the leader does not have is cut from its log. With `--new-cluster` it is the only member of a
//! cluster with a new identifier; whatever the log says of the old cluster's members has no meaning in it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::backup::no_manifest;
use super::error::{OperatorError, file_failed, refused};
use super::files::{self, ReadOnlyFolder, sync_folder, walk};
use super::log_check::{ChunkSummary, LogCheck};
use super::manifest::Manifest;
use super::progress::Progress;
use crate::codec::record::{MemberRecord, MembershipBody};
use crate::storage::{ChunkHeader, ChunkLayout, Disk as _, DurableMark, DurableState, FileDisk, FileName};
use crate::types::{ClusterId, LogPosition, NodeId};

/// What the restored node is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A clone of the backup's cluster.
    Join,
    /// The founder of a new one.
    NewCluster,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) position: LogPosition,
}

/// Makes `directory` from `backup`.
pub(super) fn restore(backup: &Path, directory: &Path, purpose: Purpose) -> Result<Restored, OperatorError> {
    let manifest = Manifest::load(backup)?.ok_or_else(|| no_manifest(backup))?;
    let names = files::contents(directory)?;
    if let Some(first) = names.first() {
        return Err(refused(format!(
            "{} is not empty ({first} is there): nothing was done. Give a directory that is empty or does not exist; if a \
             restore into it was interrupted, remove what it left first",
            directory.display()
        )));
    }
    let layout = manifest.origin.layout();
    // The member list of the backup's cluster is somewhere in its log, and the state must name it: so look first.
    let found = check_backup(backup, &manifest)?;
    let state = state(&manifest, &found, purpose)?;
    let disk = FileDisk::open(directory)?;
    state.create(&disk)?;
    let mut copy = Copy {
        source: ReadOnlyFolder::open(backup, layout, false)?,
        check: LogCheck::new(layout, false),
        disk,
        directory,
        layout,
        end: manifest.position(),
        progress: Progress::new("restored", manifest.position),
    };
    copy.chunks(&manifest)?;
    let cluster = state.founding.as_ref().expect("just given").cluster;
    Ok(Restored { node: state.node, cluster, position: manifest.position() })
}

/// The lines that tell what to do next.
pub(super) fn summary(directory: &Path, purpose: Purpose, restored: &Restored) -> Vec<String> {
    let Restored { node, cluster, position } = restored;
    let shown = directory.display();
    let mut lines = vec![format!("restored {shown} up to position {position}: node {node}")];
    lines.push(match purpose {
        Purpose::Join => format!(
            "it joins cluster {cluster} as a clone: start it with --db {shown} and the ClusterSize and GossipSeed of that \
             cluster, then `ringstore admin add {node}` if it is to be a member"
        ),
        Purpose::NewCluster => format!(
            "it founds cluster {cluster}, as its only member: start it with --db {shown}; empty nodes that are started with \
             its address as GossipSeed join as clones, and `ringstore admin add` makes them members"
        ),
    });
    lines
}

/// Reads the whole backup; nothing is made from one that does not check out.
fn check_backup(backup: &Path, manifest: &Manifest) -> Result<LogCheck, OperatorError> {
    let layout = manifest.origin.layout();
    let mut folder = ReadOnlyFolder::open(backup, layout, false)?;
    let mut check = LogCheck::new(layout, false);
    let mut progress = Progress::new("checked", manifest.position);
    for entry in &manifest.chunks {
        let until = layout.chunk_start(entry.chunk).plus(entry.bytes);
        let mut pass = |_: LogPosition, bytes: &[u8]| {
            progress.add(bytes.len() as u64);
            Ok(())
        };
        let broken = walk(&mut folder, &mut check, until, &mut pass)?.map(|broken| (broken.position, broken.reason));
        let complaint = || check.take_complaints().into_iter().next();
        let wrong = broken.or_else(complaint);
        let found = check.end_chunk();
        let wrong = wrong.or_else(|| sum_differs(layout, entry.chunk, entry.crc32c, &found));
        if let Some((position, words)) = wrong {
            return Err(refused(format!(
                "the backup in {} is damaged: chunk {} ({}), log position {position}, file offset {}: {words}. Nothing was \
                 restored; `ringstore backup` into it again, from a node of the cluster, fetches what is damaged",
                backup.display(),
                entry.chunk,
                FileName::Chunk(entry.chunk),
                layout.file_offset(position)
            )));
        }
    }
    Ok(check)
}

fn sum_differs(layout: ChunkLayout, chunk: u32, expected: u32, found: &ChunkSummary) -> Option<(LogPosition, String)> {
    let words = || format!("the chunk's checksum is {:08x}, the manifest says {expected:08x}", found.crc);
    (found.crc != expected).then(|| (layout.chunk_start(chunk), words()))
}

/// What the new node remembers.
fn state(manifest: &Manifest, found: &LogCheck, purpose: Purpose) -> Result<DurableState, OperatorError> {
    let mut state = DurableState::new(NodeId::random(), manifest.origin.chunk_size);
    // Votes of its own it has none; but a term that is in its log is one that has been.
    state.term = found.term();
    state.founded = true;
    state.founding = Some(match purpose {
        Purpose::Join => {
            let list = found.membership().filter(|list| list.cluster == manifest.origin.cluster);
            list.cloned().ok_or_else(|| {
                refused(
                    "the backup's log has no member list of its cluster, so a node cannot join by it: start an empty node \
                     instead, it copies the log",
                )
            })?
        }
        // The node fills in where it is when it starts: only then that is known.
        Purpose::NewCluster => MembershipBody {
            cluster: ClusterId::random(),
            members: vec![MemberRecord {
                node: state.node,
                int_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                int_tcp_port: 0,
                int_http_port: 0,
            }],
        },
    });
    if purpose == Purpose::NewCluster {
        // All of it is this cluster's from the beginning, and nobody can say otherwise.
        state.commit_hint = manifest.position();
    }
    Ok(state)
}

/// A copy under way.
struct Copy<'a> {
    source: ReadOnlyFolder,
    check: LogCheck,
    disk: FileDisk,
    directory: &'a Path,
    layout: ChunkLayout,
    end: LogPosition,
    progress: Progress,
}

impl Copy<'_> {
    fn chunks(&mut self, manifest: &Manifest) -> Result<(), OperatorError> {
        for entry in &manifest.chunks {
            self.chunk(entry.chunk, entry.bytes, entry.crc32c)?;
            if entry.chunk == 0 {
                let (hidden, first) = self.first_chunk();
                fs::rename(&first, &hidden).map_err(file_failed(&first, "hidden"))?;
            }
        }
        sync_folder(self.directory)?;
        let (hidden, first) = self.first_chunk();
        fs::rename(&hidden, &first).map_err(file_failed(&hidden, "named"))?;
        sync_folder(self.directory)
    }

    /// The file of the first chunk, under the name that no node knows and under its own.
    fn first_chunk(&self) -> (PathBuf, PathBuf) {
        let name = FileName::Chunk(0).to_string();
        (self.directory.join(format!("{name}.restoring")), self.directory.join(name))
    }

    fn chunk(&mut self, chunk: u32, bytes: u64, crc: u32) -> Result<(), OperatorError> {
        let name = FileName::Chunk(chunk);
        let path = self.directory.join(name.to_string());
        let until = self.layout.chunk_start(chunk).plus(bytes);
        let head = self.head(chunk, until);
        self.disk.create(name, &head, self.layout.file_length()).map_err(file_failed(&path, "created"))?;
        let (disk, layout, progress) = (&self.disk, self.layout, &mut self.progress);
        let mut write = |at: LogPosition, bytes: &[u8]| {
            progress.add(bytes.len() as u64);
            disk.write_at(name, layout.file_offset(at), bytes).map_err(file_failed(&path, "written"))
        };
        let broken = walk(&mut self.source, &mut self.check, until, &mut write)?;
        let found = self.check.end_chunk();
        // It was whole a moment ago.
        if broken.is_some() || found.crc != crc {
            return Err(refused(format!(
                "chunk {chunk} of the backup reads differently than a moment ago: look at the disk that it is on; remove \
                 {} before you try again",
                self.directory.display()
            )));
        }
        if bytes == self.layout.chunk_size {
            let page = found.footer(chunk, self.layout).encode();
            disk.write_at(name, layout.footer_offset(), &page).map_err(file_failed(&path, "written"))?;
        }
        disk.sync(name).map_err(file_failed(&path, "flushed"))
    }

    /// The header page; that of the last chunk says that all of the log is durable.
    fn head(&self, chunk: u32, until: LogPosition) -> Vec<u8> {
        let mut page = ChunkHeader { chunk, layout: self.layout }.encode();
        if until == self.end {
            let (offset, slot) = DurableMark::encode_slot(1, self.end);
            let offset = usize::try_from(offset).expect("within a page");
            page[offset..offset + slot.len()].copy_from_slice(&slot);
        }
        page
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
