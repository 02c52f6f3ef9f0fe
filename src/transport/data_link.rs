//! Data links: the log, byte for byte, out to a follower or in from the leader.
//!
//! Out: one send at a time on a socket, as large as the engine plans it; the next piece is got ready meanwhile, from the
//! log buffer or, for a follower that is further behind, from a chunk file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::codec::record::RecordError;
use crate::engine::BufferToken;
use crate::ring::{Failure, Slice, Source, Window};
use crate::storage::Damage;
use crate::types::{Guid, LogPosition, NodeId};

use super::connections::{DataIn, Stage};
use super::file_feed::{FileFeed, Piece};
use super::tag::{ConnectionId, Tag};
use super::thread::LogThread;

/// Smaller sends are cheaper copied than pinned and notified.
const ZERO_COPY_LEAST_BYTES: u32 = 16 << 10;

/// Reports of a copy in a row after which a link goes back to plain sends.
const COPIES_BEFORE_FALLBACK: u32 = 3;

/// How long a link may hold the oldest part of the log buffer without taking a byte: writes wait for it meanwhile.
const STALL_PATIENCE: Duration = Duration::from_millis(100);

/// The piece of the log that goes out next.
#[derive(Debug)]
enum Next {
    /// Being read from a chunk file.
    Reading,
    /// Read.
    Ready(Vec<u8>),
    /// In the log buffer, and held there.
    Buffered(Window),
}

/// Whether a link sends without copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroCopy {
    /// Plain sends: not wanted, not there, or it did not pay.
    Off,
    /// Tried, and copied so often in a row.
    Trying { copies: u32 },
    /// The kernel was seen to send without a copy.
    Pays,
}

/// A data link to a follower.
#[derive(Debug)]
pub(super) struct DataOut {
    pub(super) follower: NodeId,
    pub(super) subscription: Guid,
    /// A send is under way; the welcome is the first.
    sending: bool,
    /// Bytes of the log buffer that are being sent; the engine hears of them when they are gone.
    in_flight: usize,
    next: Option<Next>,
    zero_copy: ZeroCopy,
    /// A buffer to read into again.
    spare: Vec<u8>,
    files: FileFeed,
}

impl DataOut {
    /// `start`: where the link begins, at a record.
    pub(super) fn new(follower: NodeId, subscription: Guid, start: LogPosition, zero_copy: bool) -> DataOut {
        let zero_copy = if zero_copy { ZeroCopy::Trying { copies: 0 } } else { ZeroCopy::Off };
        let (files, spare) = (FileFeed::new(start), Vec::new());
        DataOut { follower, subscription, sending: true, in_flight: 0, next: None, zero_copy, spare, files }
    }

    /// A range of the log buffer that is held for this link but not being sent.
    pub(super) fn unsent(&self) -> Option<&Window> {
        match &self.next {
            Some(Next::Buffered(window)) => Some(window),
            None | Some(Next::Reading | Next::Ready(_)) => None,
        }
    }

    /// Notes a usage report. True when the link falls back to plain sends with it.
    fn report(&mut self, copied: bool) -> bool {
        self.zero_copy = match self.zero_copy {
            ZeroCopy::Trying { copies } if copied && copies + 1 >= COPIES_BEFORE_FALLBACK => ZeroCopy::Off,
            ZeroCopy::Trying { copies } if copied => ZeroCopy::Trying { copies: copies + 1 },
            ZeroCopy::Trying { .. } => ZeroCopy::Pays,
            ZeroCopy::Off | ZeroCopy::Pays => return false,
        };
        self.zero_copy == ZeroCopy::Off
    }
}

impl LogThread {
    // --- out ---

    /// Gets the next pieces for all followers ready, and sends what can be sent.
    pub(super) fn feed_followers(&mut self) {
        self.drop_stalling_follower();
        let mut ids = std::mem::take(&mut self.ids);
        ids.extend(self.followers.values().filter_map(|links| links.data));
        for id in ids.drain(..) {
            self.feed(id);
        }
        self.ids = ids;
    }

    /// Breaks the link of a follower that holds up the log buffer and takes nothing for a while.
    fn drop_stalling_follower(&mut self) {
        let stalling = self.engine.stalling_follower(self.deferred.is_some()).and_then(|node| {
            let data = self.followers.get(&node)?.data?;
            Some((node, self.holds.lowest(data)?))
        });
        self.stalling = match (stalling, self.stalling) {
            (Some((node, position)), Some((same, held, since))) if (node, position) == (same, held) => {
                if self.now.since(since) >= STALL_PATIENCE {
                    self.drop_follower(node, "it takes nothing and holds up the log buffer");
                    self.engine.handle_follower_link_down(node);
                    None
                } else {
                    Some((same, held, since))
                }
            }
            (Some((node, position)), _) => Some((node, position, self.now)),
            (None, _) => None,
        };
    }

    fn feed(&mut self, id: ConnectionId) {
        self.plan(id);
        if self.send_next(id) {
            self.plan(id);
        }
    }

    /// Asks the engine what comes next, when nothing is ready or being read.
    fn plan(&mut self, id: ConnectionId) {
        let Some(link) = self.connections.data_out(id).filter(|link| link.next.is_none()) else { return };
        match link.files.is_paused(self.now) {
            Some(true) => return,
            Some(false) => return self.read_file(id),
            None => {}
        }
        let Some(plan) = self.engine.plan_send(link.follower) else { return };
        if plan.from_file {
            let position = plan.position;
            link.files.want(plan, || self.engine.record_before(position));
            self.read_file(id);
        } else {
            let length = u32::try_from(plan.length).expect("a send is below 4 GiB");
            link.next = Some(Next::Buffered(self.engine.buffer().window(plan.position, length)));
            self.holds.add(id, plan.position);
            self.update_hold(id);
        }
    }

    /// Reads the next piece for a follower from its chunk file.
    fn read_file(&mut self, id: ConnectionId) {
        let Some(link) = self.connections.data_out(id) else { return };
        let (position, length) = link.files.next_read();
        link.next = Some(Next::Reading);
        let mut buffer = std::mem::take(&mut link.spare);
        buffer.resize(length, 0);
        let chunk = self.files.layout.chunk_of(position);
        let file = match self.files.chunk(&mut self.driver, chunk) {
            Ok(file) => file,
            // Without this file one follower cannot be served; nobody else is concerned.
            Err(error) => {
                self.broken(id, &error.to_string());
                return;
            }
        };
        let offset = self.files.layout.file_offset(position);
        self.driver.read(file, buffer, offset, Tag::ReadLog(id).pack());
    }

    /// A record that a follower needs is damaged here.
    fn report_damage(&self, follower: NodeId, from: LogPosition, error: &RecordError, is_news: bool) {
        let layout = self.files.layout;
        let committed = self.engine.positions().2;
        let to = from.plus(layout.room(from)).min(committed);
        if from < to {
            let damage = Damage { chunk: layout.chunk_of(from), from, to, reason: error.to_string() };
            self.links.damage.report(damage);
        } else if is_news {
            self.published.counters.damaged_uncommitted.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                node = %follower, position = %from, chunk = layout.chunk_of(from), %error,
                "a record that is not committed is damaged on this node's disk, and this follower cannot be sent what comes \
                 from there on: no majority has acknowledged it, so it cannot be repaired from another node; if it does not \
                 get committed through the others, restart this node: it cuts its log there and takes what the others have"
            );
        }
    }

    /// Sends what is ready, unless a send is under way. True when it did.
    fn send_next(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        let Stage::DataOut(link) = &mut connection.stage else { return false };
        if link.sending || matches!(link.next, None | Some(Next::Reading)) {
            return false;
        }
        link.sending = true;
        let is_tls = connection.tls.is_some();
        link.in_flight = match &link.next {
            Some(Next::Buffered(window)) if !is_tls => window.length() as usize,
            _ => 0,
        };
        let tag = Tag::Send(id).pack();
        match link.next.take() {
            Some(Next::Ready(bytes)) => self.send_owned(id, bytes),
            Some(Next::Buffered(window)) if is_tls => return self.send_window_sealed(id, &window),
            Some(Next::Buffered(window))
                if link.zero_copy != ZeroCopy::Off && window.length() >= ZERO_COPY_LEAST_BYTES =>
            {
                self.driver.send_zero_copy(connection.file, window, tag);
            }
            Some(Next::Buffered(window)) => self.driver.send(connection.file, Source::Log(window), tag),
            None | Some(Next::Reading) => unreachable!("checked above"),
        }
        true
    }

    /// Sends a range of the log buffer over TLS. It is ours when it is sealed: the buffer is let go of at once.
    fn send_window_sealed(&mut self, id: ConnectionId, window: &Window) -> bool {
        let length = window.length() as usize;
        let is_sent = self.send_log_sealed(id, window.position(), length);
        self.holds.remove(id, window.position());
        self.update_hold(id);
        let Some(link) = self.connections.data_out(id).filter(|_| is_sent) else { return false };
        let (follower, subscription) = (link.follower, link.subscription);
        self.published.counters.sent_copied_bytes.fetch_add(length as u64, Ordering::Relaxed);
        self.engine.handle_sent(follower, subscription, length);
        true
    }

    /// A piece of a chunk file was read for a follower.
    pub(super) fn handle_log_read(&mut self, id: ConnectionId, buffer: Vec<u8>, result: Result<u32, Failure>) {
        let length = buffer.len();
        let log_end = self.engine.positions().0;
        let Some(link) = self.connections.data_out(id) else { return };
        match result {
            Ok(count) if count as usize == length => {
                match link.files.take(self.files.layout, log_end, &buffer, self.now) {
                    Piece::Good => {}
                    Piece::Before => {
                        link.spare = buffer;
                        return self.read_file(id);
                    }
                    Piece::Damaged { record, error, is_news } => {
                        (link.next, link.spare) = (None, buffer);
                        let follower = link.follower;
                        return self.report_damage(follower, record, &error, is_news);
                    }
                }
                link.next = Some(Next::Ready(buffer));
                let (follower, subscription) = (link.follower, link.subscription);
                // It is ours now, so the next piece may be planned while this one is on its way.
                self.engine.handle_sent(follower, subscription, length);
                self.published.counters.sent_from_files_bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
            Ok(count) => self.broken(id, &format!("a chunk file gave {count} of {length} bytes for it")),
            Err(failure) => self.broken(id, &format!("a chunk file could not be read for it: {failure}")),
        }
    }

    /// Owned bytes went out: the welcome, or a piece of a chunk file.
    pub(super) fn handle_data_sent(&mut self, id: ConnectionId, buffer: Vec<u8>) {
        if let Some(link) = self.connections.data_out(id) {
            link.sending = false;
            if buffer.capacity() > 0 {
                link.spare = buffer;
            }
        }
    }

    /// A send from the log buffer is done; `window` is there when the kernel reads it no more.
    pub(super) fn handle_log_sent(&mut self, id: ConnectionId, window: Option<Window>, result: Result<(), Failure>) {
        let length = window.as_ref().map(Window::length);
        if let Some(window) = window {
            self.holds.remove(id, window.position());
            self.update_hold(id);
        }
        let Some(link) = self.connections.data_out(id) else { return };
        link.sending = false;
        let (follower, subscription, sent) = (link.follower, link.subscription, link.in_flight);
        if let Err(failure) = result {
            return self.broken(id, &failure.to_string());
        }
        if let Some(length) = length {
            self.published.counters.sent_copied_bytes.fetch_add(u64::from(length), Ordering::Relaxed);
        }
        self.engine.handle_sent(follower, subscription, sent);
    }

    /// The kernel needs the bytes of a zero-copy send no more, and says whether it had copied them.
    pub(super) fn handle_send_released(&mut self, id: ConnectionId, window: &Window, copied: bool) {
        self.holds.remove(id, window.position());
        self.update_hold(id);
        // What a link that is gone leaves unsent is reported as not copied: that says nothing about the way.
        let Some(link) = self.connections.data_out(id) else { return };
        let (falls_back, follower) = (link.report(copied), link.follower);
        let counters = &self.published.counters;
        let counter = if copied { &counters.sent_copied_bytes } else { &counters.sent_zero_copy_bytes };
        counter.fetch_add(u64::from(window.length()), Ordering::Relaxed);
        if !copied && !std::mem::replace(&mut self.buffer_registered, true) {
            self.register_log_buffer();
        }
        if falls_back {
            tracing::info!(node = %follower, "zero-copy: the kernel copies on this link anyway; using plain sends");
        }
    }

    /// Zero-copy pays: spare the kernel the pinning of pages at each send.
    fn register_log_buffer(&mut self) {
        match self.driver.register_log_buffer(self.engine.buffer()) {
            Ok(()) => tracing::info!("zero-copy: it works; the log buffer is registered with the kernel"),
            Err(failure) => {
                tracing::warn!(%failure, "zero-copy: it works, but the log buffer cannot be registered: raise RLIMIT_MEMLOCK");
            }
        }
    }

    /// Tells the engine what the kernel may still read for a link, or for links that are gone.
    fn update_hold(&mut self, id: ConnectionId) {
        match self.connections.data_out(id) {
            Some(link) => {
                let (follower, subscription) = (link.follower, link.subscription);
                self.engine.hold_buffer(follower, subscription, self.holds.lowest(id));
            }
            None => self.update_orphans(),
        }
    }

    pub(super) fn update_orphans(&mut self) {
        let connections = &self.connections;
        let orphan = self.holds.lowest_orphan(|id| connections.get(id).is_none());
        self.engine.hold_orphaned(orphan);
    }

    // --- in ---

    /// Bytes of the leader's log.
    pub(super) fn handle_streamed(&mut self, id: ConnectionId, slice: Slice) {
        if self.is_tls(id) {
            return self.handle_sealed_log(id, &slice);
        }
        let Some(Stage::DataIn(DataIn { subscription, .. })) = self.connections.get(id).map(|link| &link.stage) else {
            // The link was closed meanwhile: what it delivered is not heard.
            return;
        };
        let subscription = *subscription;
        // A clone, because the engine may give the token back before it returns.
        let token = self.files.tokens.insert(slice.clone());
        self.hand_on(id, subscription, token, &slice);
    }

    /// Gives the engine bytes of the leader's log.
    pub(super) fn hand_on(&mut self, id: ConnectionId, subscription: Guid, token: BufferToken, bytes: &[u8]) {
        self.published.counters.received_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if !self.engine.handle_data(subscription, token, bytes) {
            self.close(id);
            if let Some(links) = self.leader.as_mut().filter(|links| links.data == Some(id)) {
                links.data = None;
            }
        }
    }

    pub(super) fn handle_stream_ended(&mut self, id: ConnectionId, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.broken(id, &self.end_of_stream(id)),
            Err(failure) => self.broken(id, &failure.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_copy_is_given_up_after_some_copies_in_a_row_only() {
        let mut link = DataOut::new(NodeId::default(), Guid::ZERO, LogPosition::ZERO, true);
        assert!(!link.report(true));
        assert!(!link.report(true));
        assert!(link.report(true), "falls back, and says so once");
        assert!(!link.report(true));
        assert_eq!(link.zero_copy, ZeroCopy::Off);
        let mut link = DataOut::new(NodeId::default(), Guid::ZERO, LogPosition::ZERO, true);
        assert!(!link.report(true));
        assert!(!link.report(false));
        assert!((0..10).all(|_| !link.report(true)), "it was seen to work");
        assert_eq!(link.zero_copy, ZeroCopy::Pays);
    }
}
