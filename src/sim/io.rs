//! A node's disk operations and sends: begun when the engine asks, done after a while, in any order.

use std::borrow::Cow;
use std::sync::Arc;

use crate::engine::{BufferToken, WriteSource};
use crate::storage::{ChunkFooter, ChunkHeader, Disk, DurableMark, DurableState, FileName, STATE_SLOT_OFFSETS};
use crate::types::LogPosition;

use super::Checker;
use super::agenda::{MILLISECOND, Moment};
use super::links::Packet;
use super::node::{Input, Send};
use super::profile::{Span, within};
use super::world::{Event, World};

/// Between durable marks, unless the engine insists.
const MARK_EVERY: Moment = 100 * MILLISECOND;

/// Bytes on the way at which a link takes no more.
const SOCKET_BYTES: usize = 128 << 10;

/// Received bytes that the engine has not released.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) writes: usize,
}

/// A disk operation under way.
#[derive(Debug)]
pub(super) enum Io {
    Write {
        id: u64,
        position: LogPosition,
        /// Without the zeros that fill the last page.
        length: usize,
        file: (FileName, u64),
        bytes: Vec<u8>,
        source: WriteSource,
    },
    /// The durable mark is written, then the chunks are flushed.
    Mark {
        id: u64,
        chunks: (u32, u32),
        file: (FileName, u64),
        bytes: Vec<u8>,
    },
    Flush {
        id: u64,
        chunks: (u32, u32),
        order: u64,
    },
    /// A slot of the state file; the next one follows its flush.
    State {
        sequence: u64,
        slot: usize,
        bytes: Vec<u8>,
    },
    StateFlush {
        sequence: u64,
        slot: usize,
        bytes: Vec<u8>,
        order: u64,
    },
    /// What the sealer found goes into the footer page, which is flushed next.
    Footer {
        footer: Box<ChunkFooter>,
    },
    FooterFlush {
        footer: Box<ChunkFooter>,
        order: u64,
    },
}

impl Io {
    /// What it writes, if it does: file, offset, bytes.
    pub(super) fn write(&self) -> Option<(FileName, u64, Cow<'_, [u8]>)> {
        match self {
            Io::Write { file, bytes, .. } | Io::Mark { file, bytes, .. } => Some((file.0, file.1, bytes.into())),
            Io::State { slot, bytes, .. } => Some((FileName::State, STATE_SLOT_OFFSETS[*slot], bytes.into())),
            Io::Footer { footer } => {
                Some((FileName::Chunk(footer.chunk), footer.layout.footer_offset(), footer.encode().into()))
            }
            Io::Flush { .. } | Io::StateFlush { .. } | Io::FooterFlush { .. } => None,
        }
    }
}

impl World {
    pub(super) fn begin_io(&mut self, index: usize, io: Io) {
        let span = match io {
            Io::Write { .. } | Io::Mark { .. } | Io::State { .. } | Io::Footer { .. } => self.profile.write,
            Io::Flush { .. } | Io::StateFlush { .. } | Io::FooterFlush { .. } => self.profile.flush,
        };
        let delay = self.disk_delay(index, span);
        let id = self.id();
        self.nodes[index].io.insert(id, io);
        self.agenda.plan(self.now + delay, Event::Io { node: index, life: self.nodes[index].life, io: id });
    }

    /// The disk is well again: what was slow is done soon.
    pub(super) fn hurry_io(&mut self, index: usize) {
        let life = self.nodes[index].life;
        for io in self.nodes[index].io.keys().copied().collect::<Vec<_>>() {
            let delay = within(&mut self.random.disk, self.profile.flush);
            self.agenda.plan(self.now + delay, Event::Io { node: index, life, io });
        }
    }

    fn disk_delay(&mut self, index: usize, span: Span) -> Moment {
        within(&mut self.random.disk, span) * self.nodes[index].disk_slowness
    }

    pub(super) fn write(&mut self, index: usize, id: u64, position: LogPosition, length: usize, source: WriteSource) {
        self.check_write(index, position, length, source);
        let node = &mut self.nodes[index];
        let Some(engine) = &node.engine else { return };
        let mut bytes = match source {
            WriteSource::LogBuffer => engine.buffer().slice(position, length).to_vec(),
            WriteSource::Zeros => vec![0; length],
            WriteSource::Received { token, offset } => match node.tokens.get_mut(&token.0) {
                Some(token) => {
                    token.writes += 1;
                    token.bytes[offset..offset + length].to_vec()
                }
                None => {
                    return self.object(Checker::BufferReuse, format!("n{index} writes from a slice it has released"));
                }
            },
        };
        // As the log thread does, so that a write whose zeros come after its successor is seen.
        bytes.resize(length + self.layout.page_rest(position.plus(length as u64)) as usize, 0);
        let file = (FileName::Chunk(self.layout.chunk_of(position)), self.layout.file_offset(position));
        self.begin_io(index, Io::Write { id, position, length, file, bytes, source });
    }

    pub(super) fn release(&mut self, index: usize, token: BufferToken) {
        let Some(token) = self.nodes[index].tokens.remove(&token.0) else { return };
        if token.writes > 0 {
            self.object(Checker::BufferReuse, format!("n{index} releases a slice that {} writes need", token.writes));
        }
    }

    pub(super) fn flush(&mut self, index: usize, id: u64, chunks: (u32, u32), durable: LogPosition, must_mark: bool) {
        self.count("flushes");
        if must_mark {
            self.note_marking_flush(index);
        }
        let node = &mut self.nodes[index];
        if !must_mark && self.now < node.marked_at + MARK_EVERY {
            let order = node.disk.order();
            return self.begin_io(index, Io::Flush { id, chunks, order });
        }
        node.mark_sequence += 1;
        node.marked_at = self.now;
        let (offset, slot) = DurableMark::encode_slot(node.mark_sequence, durable);
        let file = (FileName::Chunk(chunks.1), offset);
        self.begin_io(index, Io::Mark { id, chunks, file, bytes: slot.to_vec() });
    }

    pub(super) fn save(&mut self, index: usize, state: &DurableState) {
        self.begin_io(index, Io::State { sequence: state.sequence, slot: 0, bytes: state.encode().to_vec() });
    }

    pub(super) fn io_done(&mut self, index: usize, io: u64) {
        let node = &mut self.nodes[index];
        let Some(io) = node.io.remove(&io) else { return };
        if let Some((name, offset, bytes)) = io.write() {
            node.disk.write_at(name, offset, &bytes).expect("a write inside its file");
        }
        let order = node.disk.order();
        if let Io::Flush { .. } | Io::StateFlush { .. } | Io::FooterFlush { .. } = io
            && std::mem::take(&mut node.flush_fails)
        {
            self.flush_failed(index, &io);
            #[cfg(test)]
            if self.options.planted == Some(crate::consensus::PlantedBug::FlushAgain) {
                return self.begin_io(index, io);
            }
            return self.crash_for_a_while(index, false);
        }
        match io {
            Io::Write { id, position, length, bytes, source, .. } => {
                self.written(index, position, &bytes[..length], source);
                self.input(index, Input::Written { id });
            }
            Io::Mark { id, chunks, .. } => self.begin_io(index, Io::Flush { id, chunks, order }),
            Io::Flush { id, chunks, order } => {
                (chunks.0..=chunks.1).for_each(|chunk| node.disk.flushed(FileName::Chunk(chunk), order));
                self.input(index, Input::Flushed { id });
            }
            Io::Footer { footer } => self.begin_io(index, Io::FooterFlush { footer, order }),
            Io::FooterFlush { footer, order } => {
                node.disk.flushed(FileName::Chunk(footer.chunk), order);
                self.sealed(index, &footer);
            }
            Io::State { sequence, slot, bytes } => {
                self.begin_io(index, Io::StateFlush { sequence, slot, bytes, order });
            }
            Io::StateFlush { sequence, slot, bytes, order } => {
                node.disk.flushed(FileName::State, order);
                if slot + 1 < STATE_SLOT_OFFSETS.len() {
                    self.begin_io(index, Io::State { sequence, slot: slot + 1, bytes });
                } else {
                    self.input(index, Input::Saved { sequence });
                }
            }
        }
    }

    /// A failed flush is final: whoever hears of it must end, and start anew on what is there.
    fn flush_failed(&mut self, index: usize, io: &Io) {
        let (node, random) = (&self.nodes[index], &mut self.random.disk);
        match *io {
            Io::Flush { chunks, order, .. } => {
                let chunks = chunks.0..=chunks.1;
                chunks.for_each(|chunk| node.disk.flush_failed(FileName::Chunk(chunk), order, random));
            }
            Io::StateFlush { order, .. } => node.disk.flush_failed(FileName::State, order, random),
            Io::FooterFlush { ref footer, order } => {
                node.disk.flush_failed(FileName::Chunk(footer.chunk), order, random);
            }
            _ => {}
        }
        self.count("flushes that failed");
    }

    /// The memory that a write came from must have been left alone until now.
    fn written(&mut self, index: usize, position: LogPosition, bytes: &[u8], source: WriteSource) {
        let node = &mut self.nodes[index];
        match source {
            WriteSource::LogBuffer => {
                let Some(engine) = &node.engine else { return };
                if engine.buffer().slice(position, bytes.len()) != bytes {
                    self.object(
                        Checker::BufferReuse,
                        format!("n{index}: log buffer at {position} changed under a write"),
                    );
                }
            }
            WriteSource::Received { token, .. } => match node.tokens.get_mut(&token.0) {
                Some(token) => token.writes -= 1,
                None => self.object(Checker::BufferReuse, format!("n{index}: a slice was released under its write")),
            },
            WriteSource::Zeros => {}
        }
    }

    pub(super) fn want_chunk(&mut self, index: usize, chunk: u32) {
        let node = &mut self.nodes[index];
        let planned = node.wanted_chunk.is_some();
        node.wanted_chunk = node.wanted_chunk.max(Some(chunk));
        if !planned {
            self.plan_prepare(index);
        }
    }

    fn plan_prepare(&mut self, index: usize) {
        let span =
            if self.nodes[index].full_disk { (20 * MILLISECOND, 60 * MILLISECOND) } else { self.profile.prepare };
        let delay = within(&mut self.random.disk, span);
        self.agenda.plan(self.now + delay, Event::Prepare { node: index, life: self.nodes[index].life });
    }

    pub(super) fn prepare(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.full_disk != node.told_full {
            node.told_full = node.full_disk;
            let full = node.full_disk;
            self.input(index, Input::DiskFull { full });
        }
        let node = &mut self.nodes[index];
        if node.full_disk {
            return self.plan_prepare(index);
        }
        let Some(wanted) = node.wanted_chunk.take() else { return };
        let files = node.disk.list().expect("a list of files");
        for chunk in (0..=wanted).filter(|&chunk| files.iter().all(|file| file.name != FileName::Chunk(chunk))) {
            let header = ChunkHeader { chunk, layout: self.layout };
            node.disk.create(FileName::Chunk(chunk), &header.encode(), self.layout.file_length()).expect("a new file");
        }
        self.count("chunks");
        self.input(index, Input::ChunkReady { chunk: wanted });
    }

    /// Begins a send to each follower that is due one, as the log thread does after each turn.
    pub(super) fn feed_followers(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(stalling) = node.engine.as_ref().and_then(|engine| engine.stalling_follower(false)) {
            self.count("stalled followers");
            self.drop_follower(index, stalling, true);
        }
        let node = &self.nodes[index];
        let due: Vec<_> = node.followers.iter().filter_map(|(&id, links)| Some((id, links.data?))).collect();
        for (follower, (link, subscription)) in due {
            let node = &mut self.nodes[index];
            let Some(engine) = &mut node.engine else { return };
            if node.sends.values().any(|send| send.link == link) {
                continue;
            }
            let Some(plan) = engine.plan_send(follower) else { continue };
            let mut bytes = Vec::with_capacity(plan.length);
            if plan.from_file {
                node.disk.read_log(plan.position, plan.position.plus(plan.length as u64), &mut bytes);
            } else {
                engine.hold_buffer(follower, subscription, Some(plan.position));
                bytes.extend_from_slice(engine.buffer().slice(plan.position, plan.length));
            }
            self.count(if plan.from_file { "sends from files" } else { "sends from the buffer" });
            let send = Send { follower, subscription, link, plan, bytes, orphaned: false };
            let id = self.id();
            let node = &mut self.nodes[index];
            node.sends.insert(id, send);
            let delay = within(&mut self.random.network, self.profile.write);
            self.agenda.plan(self.now + delay, Event::Sent { node: index, life: self.nodes[index].life, send: id });
        }
    }

    /// The socket has taken a send's bytes, unless it is full: then it takes a while longer.
    pub(super) fn sent(&mut self, index: usize, id: u64) {
        let node = &mut self.nodes[index];
        let Some(send) = node.sends.get(&id) else { return };
        if !send.orphaned && self.network.transit(send.link, 1) > SOCKET_BYTES {
            self.agenda.plan(self.now + 5 * MILLISECOND, Event::Sent { node: index, life: node.life, send: id });
            return;
        }
        self.input(index, Input::Sent { send: id });
    }

    pub(super) fn send_done(&mut self, index: usize, id: u64) {
        let node = &mut self.nodes[index];
        let (Some(send), Some(engine)) = (node.sends.remove(&id), &mut node.engine) else { return };
        if send.orphaned {
            return node.count_orphans();
        }
        let changed = !send.plan.from_file && engine.buffer().slice(send.plan.position, send.plan.length) != send.bytes;
        let random = &mut self.random.network;
        let taken = if random.u8(0..4) == 0 { random.usize(1..=send.bytes.len()) } else { send.bytes.len() };
        engine.hold_buffer(send.follower, send.subscription, None);
        engine.handle_sent(send.follower, send.subscription, taken);
        if changed {
            let position = send.plan.position;
            return self
                .object(Checker::BufferReuse, format!("n{index}: log buffer at {position} changed under a send"));
        }
        // Few enough pieces that a large send does not fill the agenda.
        let largest = self.profile.piece_bytes.max(taken / 16);
        let mut rest = &send.bytes[..taken];
        while !rest.is_empty() {
            let length = self.random.network.usize(1..=largest).min(rest.len());
            self.send_packet(send.link, 1, Packet::Bytes(rest[..length].to_vec()));
            rest = &rest[length..];
        }
    }
}
