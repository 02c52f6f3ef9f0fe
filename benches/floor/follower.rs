//! A follower: writes and flushes what it receives, and tells how far it is.

use std::collections::VecDeque;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use ringstore::limits::{LINK_BUFFER_BYTES, LINK_BUFFER_COUNT, LOG_BUFFER_BYTES};
use ringstore::ring::{Completion, Driver, FileId, MirroredBuffer, Outcome, Slice, Source, Wait, Way, prepare_link};
use ringstore::types::LogPosition;

use crate::leader::LINK_PATIENCE;
use crate::log_file::{BLOCK_BYTES, LogFile};
use crate::options::Options;
use crate::tag::Tag;

/// The only peer that a follower has.
const LEADER: usize = 0;

struct Follower {
    driver: Driver,
    socket: FileId,
    log: LogFile,
    /// Received, not yet being written.
    incoming: VecDeque<Slice>,
    /// Where it is copied to first, with `--copy`.
    buffer: Option<MirroredBuffer>,
    /// The end of what lies in `buffer`.
    end: u64,
    acknowledged: u64,
    acknowledging: bool,
    ended: bool,
}

/// Follows until the leader closes the connection.
pub(crate) fn run(options: &Options, leader: SocketAddr) -> Result<()> {
    let mut driver = Driver::new()?;
    let log = LogFile::open(&mut driver, options, options.node)?;
    let socket = Way::default().socket(leader)?;
    prepare_link(&socket, LINK_PATIENCE)?;
    let socket = driver.attach(socket);
    driver.connect(socket, leader, Tag::Connect.pack());
    let copies = options.variant().copy;
    let buffer = copies.then(|| MirroredBuffer::new(LOG_BUFFER_BYTES)).transpose();
    let mut follower = Follower {
        driver,
        socket,
        log,
        incoming: VecDeque::new(),
        buffer: buffer.context("no memory for the log buffer")?,
        end: 0,
        acknowledged: 0,
        acknowledging: false,
        ended: false,
    };
    follower.run_turns()
}

impl Follower {
    fn run_turns(&mut self) -> Result<()> {
        let mut completions = Vec::new();
        while !self.ended {
            self.driver.enter(Wait::Forever, &mut completions)?;
            for completion in completions.drain(..) {
                self.handle(completion)?;
            }
            self.write()?;
            self.acknowledge();
        }
        Ok(())
    }

    fn handle(&mut self, completion: Completion) -> Result<()> {
        match (Tag::unpack(completion.tag), completion.outcome) {
            (Tag::Connect, Outcome::Connected(result)) => {
                result.context("the leader cannot be reached")?;
                let group = self.driver.add_group(LINK_BUFFER_COUNT, LINK_BUFFER_BYTES)?;
                self.driver.stream(self.socket, group, Tag::Stream(LEADER).pack());
                Ok(())
            }
            (Tag::Stream(_), Outcome::Streamed(slice)) => {
                self.incoming.push_back(slice);
                Ok(())
            }
            // However it ends: the leader has what it wanted, or tells why not.
            (Tag::Stream(_), Outcome::StreamEnded(_)) => {
                self.ended = true;
                Ok(())
            }
            (Tag::Send(_), Outcome::Sent { result, .. }) => {
                self.ended |= result.is_err();
                self.acknowledging = false;
                Ok(())
            }
            (Tag::Write(id), Outcome::Written { result, .. }) => self.log.handle_written(&mut self.driver, id, result),
            (Tag::Write(id), Outcome::WrittenGathered { result, .. }) => {
                self.log.handle_written(&mut self.driver, id, result)
            }
            (Tag::Sync(id), Outcome::Synced(result)) => self.log.handle_synced(id, result),
            (tag, outcome) => bail!("{tag:?} brought {outcome:?}"),
        }
    }

    fn write(&mut self) -> Result<()> {
        let Some(buffer) = &mut self.buffer else {
            return self.log.poll_received(&mut self.driver, &mut self.incoming);
        };
        while let Some(slice) = self.incoming.front() {
            let room = LOG_BUFFER_BYTES as u64 - BLOCK_BYTES - (self.end - self.log.needed_from());
            if room < u64::from(slice.length()) {
                break;
            }
            buffer.slice_mut(LogPosition(self.end), slice.len()).copy_from_slice(slice);
            self.end += u64::from(slice.length());
            self.incoming.pop_front();
        }
        self.log.poll_buffer(&mut self.driver, buffer, self.end)
    }

    fn acknowledge(&mut self) {
        let flushed = self.log.flushed();
        if flushed > self.acknowledged && !self.acknowledging {
            self.acknowledged = flushed;
            self.acknowledging = true;
            let bytes = flushed.to_le_bytes().to_vec();
            self.driver.send(self.socket, Source::Owned(bytes), Tag::Send(LEADER).pack());
        }
    }
}
