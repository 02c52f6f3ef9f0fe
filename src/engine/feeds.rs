//! What each follower is sent next: bytes of the log, and with them how far it is committed.

use crate::consensus::{Message, Replica};
use crate::limits::{RECORD_HEADER_BYTES, SEND_MAX_BYTES};
use crate::types::{Guid, LogPosition, NodeId};

use super::action::{Action, SendPlan};
use super::core::Engine;
use super::stopwatch::Marks;

/// The data link of one follower, as the leader sees it.
#[derive(Debug)]
pub struct Feed {
    subscription: Guid,
    start: LogPosition,
    /// The next byte to send.
    next: LogPosition,
    /// Sent or being sent up to here; `next` catches up when the send completes.
    planned: LogPosition,
    /// The kernel may still read the log buffer from here on.
    held_from: Option<LogPosition>,
    /// Handed to the link, not acknowledged as durable.
    unacknowledged: Marks,
    /// The last heartbeat round that was sent.
    round: Option<u64>,
    /// A heartbeat that brings only a new commit position, until there is something to send it with.
    news: Option<Message>,
}

impl Feed {
    pub(super) fn new(subscription: Guid, start: LogPosition) -> Feed {
        let (next, planned, unacknowledged) = (start, start, Marks::default());
        Feed { subscription, start, next, planned, held_from: None, unacknowledged, round: None, news: None }
    }

    /// Some of what was sent, or is being sent, is not durable there yet.
    fn is_unacknowledged(&self, acknowledged: LogPosition) -> bool {
        self.planned > self.start && acknowledged < self.planned
    }

    /// Everything before this was handed to the kernel.
    #[must_use]
    pub fn next(&self) -> LogPosition {
        self.next
    }
}

impl Engine {
    /// The data link of a follower is open: where it begins.
    ///
    /// # Errors
    /// For people, when there is no such subscription (any more).
    pub fn handle_data_link(&mut self, follower: NodeId, subscription: Guid) -> Result<LogPosition, String> {
        match self.feeds.get(&follower) {
            Some(feed) if feed.subscription == subscription && feed.next == feed.start => Ok(feed.start),
            Some(_) => Err(format!("subscription {subscription} is not the current one, or has a data link already")),
            None => Err(format!("{follower} has not subscribed")),
        }
    }

    /// What to send next on the data link of `follower`, if there is something, it fits the window and no send is
    /// under way. Report the outcome with [`Engine::handle_sent`].
    pub fn plan_send(&mut self, follower: NodeId) -> Option<SendPlan> {
        let floor = self.buffer_floor();
        let guard = self.buffer_guard();
        let written = self.log.written_records();
        let acknowledged = self.acknowledged_by(follower);
        // A follower acknowledges whole records, so a record larger than the window would never be.
        let largest = self.largest_record() + RECORD_HEADER_BYTES as u64;
        let window = self.options.window_bytes.max(largest);
        let replica = self.replica.as_ref().filter(|replica| replica.is_leader())?;
        let feed = self.feeds.get_mut(&follower)?;
        if feed.planned != feed.next {
            return None;
        }
        let from_file = feed.next < floor || feed.next < guard.min(written);
        let available = if from_file { guard.min(written) } else { replica.log_end() };
        let window_end = acknowledged.max(feed.start).plus(window);
        let mut end = available.min(window_end).min(feed.next.plus(SEND_MAX_BYTES));
        if from_file {
            end = end.min(feed.next.plus(self.options.layout.room(feed.next)));
        }
        if end <= feed.next {
            return None;
        }
        feed.planned = end;
        feed.unacknowledged.push(end, self.stopwatch.now());
        let plan = SendPlan { position: feed.next, length: end.since(feed.next) as usize, from_file };
        if let Some(message) = feed.news.take() {
            self.actions.push(Action::Send { peer: follower, message });
        }
        Some(plan)
    }

    /// A place at or before `position`, in its chunk, where a record begins: the nearest that is known without reading.
    #[must_use]
    pub fn record_before(&self, position: LogPosition) -> LogPosition {
        let layout = self.options.layout;
        // A chunk begins with a record.
        let start = layout.chunk_start(layout.chunk_of(position));
        self.heads.index().record_at_or_before(position).max(start)
    }

    /// Sends a message of the replica. A follower that is at work on what it was sent need not be woken for a commit
    /// position alone: it learns of it with the next data, or when it has acknowledged everything. (What it has not flushed
    /// is not committed for it anyway.)
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        let is_at_work = self.is_at_work(to);
        if let (Message::Heartbeat { round, .. }, Some(feed)) = (&message, self.feeds.get_mut(&to)) {
            // Whatever is said now is newer.
            feed.news = None;
            if feed.round == Some(*round) && is_at_work {
                feed.news = Some(message);
                return;
            }
            feed.round = Some(*round);
        }
        self.actions.push(Action::Send { peer: to, message });
    }

    /// Tells the followers that have nothing more to do what else is committed.
    pub(super) fn poll_commit_news(&mut self) {
        if self.feeds.values().all(|feed| feed.news.is_none()) {
            return;
        }
        let mut feeds = std::mem::take(&mut self.feeds);
        for (&follower, feed) in feeds.iter_mut().filter(|(_, feed)| feed.news.is_some()) {
            if !feed.is_unacknowledged(self.acknowledged_by(follower))
                && let Some(message) = feed.news.take()
            {
                self.actions.push(Action::Send { peer: follower, message });
            }
        }
        self.feeds = feeds;
    }

    fn is_at_work(&self, follower: NodeId) -> bool {
        let acknowledged = self.acknowledged_by(follower);
        self.feeds.get(&follower).is_some_and(|feed| feed.is_unacknowledged(acknowledged))
    }

    /// `bytes` of the planned send were taken by the kernel (fewer than planned: the rest is planned again).
    pub fn handle_sent(&mut self, follower: NodeId, subscription: Guid, bytes: usize) {
        let Some(feed) = self.feeds.get_mut(&follower).filter(|feed| feed.subscription == subscription) else {
            return;
        };
        feed.next = feed.next.plus(bytes as u64).min(feed.planned);
        feed.planned = feed.next;
    }

    /// The kernel may still read the log buffer from `position` on for this link (`None`: nothing). A shell that lets
    /// the kernel read the buffer says so before it submits.
    pub fn hold_buffer(&mut self, follower: NodeId, subscription: Guid, position: Option<LogPosition>) {
        if let Some(feed) = self.feeds.get_mut(&follower).filter(|feed| feed.subscription == subscription) {
            feed.held_from = position;
        }
    }

    /// Holds that outlived their feed (a closed link whose send is not complete): the shell counts them here.
    pub fn hold_orphaned(&mut self, position: Option<LogPosition>) {
        self.orphaned_hold = position;
    }

    /// A follower has said how much it has made durable.
    pub(super) fn note_acknowledged(&mut self, follower: NodeId) {
        let acknowledged = self.acknowledged_by(follower);
        if let Some(feed) = self.feeds.get_mut(&follower) {
            self.stopwatch.acknowledged(follower, &mut feed.unacknowledged, acknowledged);
        }
    }

    /// The oldest position that the log buffer still has.
    pub(super) fn buffer_floor(&self) -> LogPosition {
        let end = self.replica.as_ref().map_or(self.buffer_from, Replica::log_end);
        self.buffer_from.max(LogPosition(end.0.saturating_sub(self.buffer.capacity() as u64)))
    }

    /// Followers behind this are served from files although the log buffer may still have it: the oldest quarter of the
    /// buffer is what the next appends overwrite, and they must not wait for a follower that catches up.
    fn buffer_guard(&self) -> LogPosition {
        let end = self.replica.as_ref().map_or(self.buffer_from, Replica::log_end);
        let quarter = self.buffer.capacity() as u64 / 4;
        self.buffer_floor().max(LogPosition(end.0.saturating_sub(3 * quarter)))
    }

    /// Bytes that may be appended to the log buffer without overwriting what the kernel may still read.
    pub(super) fn buffer_room(&self) -> u64 {
        let end = self.replica.as_ref().map_or(self.buffer_from, Replica::log_end);
        let held = self.feeds.values().filter_map(|feed| feed.held_from).chain(self.orphaned_hold).min();
        let needed = held.unwrap_or(end).min(self.log.unwritten_from()).min(end);
        (self.buffer.capacity() as u64).saturating_sub(end.since(needed))
    }

    /// A follower whose link holds the buffer while less than a quarter of it is free, or while an append waits for room
    /// (`waiting`). When its hold does not move for a while, the shell should break that link rather than let everyone
    /// wait.
    #[must_use]
    pub fn stalling_follower(&self, waiting: bool) -> Option<NodeId> {
        let end = self.replica.as_ref()?.log_end();
        let quarter = self.buffer.capacity() as u64 / 4;
        let oldest = self.feeds.iter().filter_map(|(node, feed)| Some((feed.held_from?, *node))).min()?;
        (waiting || end.0.saturating_sub(oldest.0.0) > 3 * quarter).then_some(oldest.1)
    }

    fn acknowledged_by(&self, follower: NodeId) -> LogPosition {
        let replica = self.replica.as_ref();
        let tracked = replica.and_then(|replica| replica.followers().find(|(node, _)| *node == follower));
        tracked.map_or(LogPosition::ZERO, |(_, tracked)| tracked.acknowledged)
    }
}
