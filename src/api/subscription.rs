//! Volatile subscriptions of one edge: who waits for what, and the frames that a newly applied piece of the log means
//! for them.
//!
//! A subscription is live from its confirmation on: what the confirmation counts (up to its last event number, or its last
//! position) can be read, everything after it is pushed, in order and once. An event is encoded once for all subscribers
//! that see the same of it; only the correlation identifier differs.
//!
//! Lives on one edge thread. Does no sending: frames go to a callback of the edge, which also bounds what waits for a slow
//! client.

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::api::access::{ALL_STREAM, Action, is_allowed};
use crate::api::links::{LINK_TYPE, ResolveError};
use crate::api::log_events::{FetchError, Reader};
use crate::api::users::Identity;
use crate::codec::client::event::{ProtocolLevel, Resolved};
use crate::codec::client::frame::set_correlation;
use crate::codec::client::messages::SubscriptionDropReason;
use crate::codec::client::page::stream_event_appeared;
use crate::codec::client::request::Subscribe;
use crate::codec::client::response::{subscription_confirmed, subscription_dropped};
use crate::codec::record::{BatchView, EventView};
use crate::index::NotReady;
use crate::types::{EventNumber, Guid, LogPosition, base_stream};

type Map<K, V> = HashMap<K, V, FixedState>;

/// What a frame's buffer may keep between events.
const FRAME_KEEP_BYTES: usize = 64 << 10;

/// So often a piece of the log is looked at in which a page turns out to be unreadable: once more shows which record that
/// is, and what comes before it.
const LOOKS_MAX: usize = 2;

/// Takes a frame for a connection, which the edge names by a number of its own.
pub type SendFrame<'a> = dyn FnMut(u64, &[u8]) + 'a;

/// One subscription, on the list of its stream or of all.
#[derive(Debug)]
struct Subscriber {
    connection: u64,
    correlation: Guid,
    level: ProtocolLevel,
    resolve_links: bool,
    /// What the confirmation counted: an event number of the stream, or a position of the whole log.
    after: i64,
}

/// The subscriptions of one edge.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// What each connection subscribed to; `None` is the whole log. Invariant: exactly those on the lists below.
    connections: Map<u64, Map<Guid, Option<Arc<str>>>>,
    streams: Map<Arc<str>, Vec<Subscriber>>,
    all: Vec<Subscriber>,
    count: usize,
    /// Everything before is delivered. Meaningless while there is no subscription.
    delivered: LogPosition,
    /// Of a record behind that, the number of its first events that are delivered, too.
    begun: Option<(LogPosition, usize)>,
    staged: Staged,
}

impl Subscriptions {
    /// The number of live subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when nobody is subscribed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of live subscriptions of one connection.
    #[must_use]
    pub fn len_of(&self, connection: u64) -> usize {
        self.connections.get(&connection).map_or(0, Map::len)
    }

    /// Makes a subscription live and appends its confirmation to `out`, or appends the refusal. A second one with the same
    /// correlation identifier on a connection replaces the first.
    ///
    /// # Errors
    /// [`FetchError`]; nothing was subscribed or appended.
    pub fn subscribe(
        &mut self,
        reader: &Reader<'_>,
        (connection, correlation): (u64, Guid),
        request: Subscribe,
        identity: &Identity,
        level: ProtocolLevel,
        out: &mut Vec<u8>,
    ) -> Result<(), FetchError> {
        let stream = request.stream.as_deref();
        if !is_allowed(reader.index, identity, Action::Read, stream.unwrap_or(ALL_STREAM))? {
            subscription_dropped(out, correlation, SubscriptionDropReason::AccessDenied);
            return Ok(());
        }
        if reader.index.walk_limit() != reader.index.applied() {
            // What would be pushed is old: the index is far behind the log.
            return Err(NotReady.into());
        }
        self.remove(connection, correlation);
        if self.is_empty() {
            (self.delivered, self.begun) = (reader.index.applied(), None);
        }
        // In this order: other threads may apply more of the log meanwhile. What they apply after the position was read
        // is pushed, unless the stream's number counts it already.
        let last_position = reader.last_position()?;
        let last_number = stream.map(|stream| last_number(reader, stream)).transpose()?;
        subscription_confirmed(out, correlation, level, last_position, last_number);
        let after = last_number.unwrap_or(last_position);
        self.add(
            request.stream,
            Subscriber { connection, correlation, level, resolve_links: request.resolve_links, after },
        );
        Ok(())
    }

    fn add(&mut self, stream: Option<String>, subscriber: Subscriber) {
        let stream: Option<Arc<str>> = stream.map(Arc::from);
        let of_connection = self.connections.entry(subscriber.connection).or_default();
        of_connection.insert(subscriber.correlation, stream.clone());
        match stream {
            Some(stream) => self.streams.entry(stream).or_default().push(subscriber),
            None => self.all.push(subscriber),
        }
        self.count += 1;
    }

    /// Ends a subscription at its client's wish: appends the answer, or nothing when there is no such subscription.
    pub fn unsubscribe(&mut self, connection: u64, correlation: Guid, out: &mut Vec<u8>) {
        if self.remove(connection, correlation) {
            subscription_dropped(out, correlation, SubscriptionDropReason::Unsubscribed);
        }
    }

    fn remove(&mut self, connection: u64, correlation: Guid) -> bool {
        let Some(of_connection) = self.connections.get_mut(&connection) else { return false };
        let Some(stream) = of_connection.remove(&correlation) else { return false };
        if of_connection.is_empty() {
            self.connections.remove(&connection);
        }
        self.strike(stream, connection, correlation);
        true
    }

    /// Takes a subscription off its list.
    fn strike(&mut self, stream: Option<Arc<str>>, connection: u64, correlation: Guid) {
        self.retain(stream, |other| (other.connection, other.correlation) != (connection, correlation));
        self.count -= 1;
    }

    /// Keeps those of a list for which `keep` says so.
    fn retain(&mut self, stream: Option<Arc<str>>, keep: impl FnMut(&Subscriber) -> bool) {
        match stream {
            None => self.all.retain(keep),
            Some(stream) => {
                let list = self.streams.get_mut(&stream).expect("a subscription is on its stream's list");
                list.retain(keep);
                if list.is_empty() {
                    self.streams.remove(&stream);
                }
            }
        }
    }

    /// Forgets a connection that is gone, silently.
    pub fn remove_connection(&mut self, connection: u64) {
        let subscriptions = self.connections.remove(&connection).unwrap_or_default();
        self.count -= subscriptions.len();
        // Each list is gone through once, however often the connection is on it.
        let lists: HashSet<_, FixedState> = subscriptions.into_values().collect();
        for stream in lists {
            self.retain(stream, |other| other.connection != connection);
        }
    }

    /// Ends every subscription with a message to its client: the node is stopping.
    pub fn drop_all(&mut self, send: &mut SendFrame<'_>) {
        let mut frame = Vec::new();
        for (connection, subscriptions) in std::mem::take(&mut self.connections) {
            for correlation in subscriptions.into_keys() {
                frame.clear();
                subscription_dropped(&mut frame, correlation, SubscriptionDropReason::Unsubscribed);
                send(connection, &frame);
            }
        }
        self.streams.clear();
        self.all.clear();
        self.count = 0;
    }

    /// Pushes the events of the records from where it last stopped up to `limit` (which the index has applied), and gives
    /// true when that is reached. Stops early, with false, after about `bytes_max` bytes of log and frames together (also
    /// between the events of one record), so that other work of the edge gets its turn and subscribers time to read.
    ///
    /// # Errors
    /// [`FetchError`]; what comes before the bad record, or before the link to one, is delivered, nothing of it or after
    /// it. Another call goes on from there.
    pub fn deliver(
        &mut self,
        reader: &Reader<'_>,
        limit: LogPosition,
        bytes_max: usize,
        send: &mut SendFrame<'_>,
    ) -> Result<bool, FetchError> {
        if self.is_empty() {
            return Ok(true);
        }
        let before = (self.delivered, self.begun);
        let mut result = Ok(false);
        for _ in 0..LOOKS_MAX {
            let unreadable = reader.log.unreadable();
            self.staged.clear();
            (self.delivered, self.begun) = before;
            result = self.stage(reader, limit, bytes_max);
            if result.is_ok() || reader.log.unreadable() == unreadable {
                self.staged.send(send);
                return result;
            }
        }
        // Nothing of it can be believed.
        self.staged.clear();
        (self.delivered, self.begun) = before;
        result
    }

    /// Makes the frames that [`Subscriptions::deliver`] sends, which the log must say first were made of what is there.
    fn stage(&mut self, reader: &Reader<'_>, limit: LogPosition, bytes_max: usize) -> Result<bool, FetchError> {
        let start = self.delivered;
        let mut sent_bytes = 0;
        let (mut delivered, streams, all, staged) = (start, &self.streams, &self.all, &mut self.staged);
        let begun = &mut self.begun;
        let mut failed = Ok(());
        let result = reader.walk(start, limit, &mut |batch, end| {
            let subscribers = (streams.get(batch.stream()).map_or(&[][..], Vec::as_slice), all.as_slice());
            let position = batch.record_position();
            let first = begun.take().filter(|(record, _)| *record == position).map_or(0, |(_, count)| count);
            let room = (bytes_max as u64).saturating_sub(position.since(start).saturating_add(sent_bytes));
            let (bytes, rest) = stage_record(reader, batch, (first, room), subscribers, staged);
            sent_bytes += bytes;
            let rest = rest.unwrap_or_else(|(next, error)| {
                failed = Err(error);
                Some(next)
            });
            if let Some(next) = rest {
                *begun = Some((position, next));
                return ControlFlow::Break(());
            }
            delivered = end;
            let done_bytes = end.since(start).saturating_add(sent_bytes);
            if done_bytes >= bytes_max as u64 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let is_within_record = self.begun.is_some();
        // Records that nobody sees are passed too when all went well.
        self.delivered = *result.as_ref().ok().filter(|_| !is_within_record).unwrap_or(&delivered);
        result.and_then(|reached| failed.map(|()| reached)).map(|reached| reached >= limit && !is_within_record)
    }
}

/// The last event number of a stream as subscribers are told: that of its tombstone when there is one.
fn last_number(reader: &Reader<'_>, stream: &str) -> Result<i64, NotReady> {
    let last = reader.index.head(stream)?.last_event_number;
    let base = base_stream(stream).map(|base| reader.index.head(base)).transpose()?;
    let is_gone = base.is_some_and(|base| base.last_event_number == EventNumber::TOMBSTONE.0);
    Ok(if is_gone { EventNumber::TOMBSTONE.0 } else { last })
}

/// Makes frames of the events of a record from number `first` in it on, for the subscribers of its stream and of all, until
/// they have about `bytes_max` bytes. Gives their bytes, and the event to go on with when the record is not done, also because
/// what that event links to cannot be read.
fn stage_record(
    reader: &Reader<'_>,
    batch: &BatchView<'_>,
    (first, bytes_max): (usize, u64),
    (of_stream, of_all): (&[Subscriber], &[Subscriber]),
    staged: &mut Staged,
) -> (u64, Result<Option<usize>, (usize, FetchError)>) {
    if of_stream.is_empty() && of_all.is_empty() {
        return (0, Ok(None));
    }
    let commit = batch.record_position().as_i64();
    let mut sent_bytes = 0;
    for (index, event) in batch.events().enumerate().skip(first) {
        if sent_bytes >= bytes_max && index > first {
            return (sent_bytes, Ok(Some(index)));
        }
        let of_stream = of_stream.iter().filter(|subscriber| event.event_number.0 > subscriber.after);
        let subscribers = of_stream.chain(of_all.iter().filter(|subscriber| commit > subscriber.after));
        match staged.add(reader, &event, subscribers) {
            Ok(bytes) => sent_bytes += bytes,
            Err(error) => return (sent_bytes, Err((index, error))),
        }
    }
    (sent_bytes, Ok(None))
}

/// Frames that wait for the end of the look at the log that they were made in. An event has up to four: with and without
/// its link resolved, at each level.
#[derive(Debug, Default)]
struct Staged {
    bytes: Vec<u8>,
    /// For which connection and under which correlation identifier; several share the bytes.
    sends: Vec<(u64, Guid, Range<usize>)>,
}

impl Staged {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(FRAME_KEEP_BYTES);
        self.sends.clear();
        self.sends.shrink_to(FRAME_KEEP_BYTES / size_of::<(u64, Guid, Range<usize>)>());
    }

    /// Adds an event for its subscribers; gives the bytes that will be sent. When it fails nothing of the event is added.
    fn add<'s>(
        &mut self,
        reader: &Reader<'_>,
        event: &EventView<'_>,
        subscribers: impl Iterator<Item = &'s Subscriber>,
    ) -> Result<u64, FetchError> {
        let (bytes, sends) = (self.bytes.len(), self.sends.len());
        let mut frames: [Option<Range<usize>>; 4] = [const { None }; 4];
        let mut sent_bytes = 0;
        for subscriber in subscribers {
            let resolve = subscriber.resolve_links && event.event_type == LINK_TYPE;
            let kind = usize::from(resolve) * 2 + usize::from(subscriber.level == ProtocolLevel::V2);
            let frame = match &frames[kind] {
                Some(frame) => frame.clone(),
                None => {
                    let start = self.bytes.len();
                    if let Err(error) = encode(reader, event, resolve, subscriber, &mut self.bytes) {
                        self.bytes.truncate(bytes);
                        self.sends.truncate(sends);
                        return Err(error);
                    }
                    frames[kind].insert(start..self.bytes.len()).clone()
                }
            };
            sent_bytes += frame.len() as u64;
            self.sends.push((subscriber.connection, subscriber.correlation, frame));
        }
        Ok(sent_bytes)
    }

    /// Sends all of it, in order.
    fn send(&mut self, send: &mut SendFrame<'_>) {
        for (connection, correlation, frame) in self.sends.drain(..) {
            let frame = &mut self.bytes[frame];
            set_correlation(frame, correlation);
            send(connection, frame);
        }
        self.clear();
    }
}

fn encode(
    reader: &Reader<'_>,
    event: &EventView<'_>,
    resolve: bool,
    subscriber: &Subscriber,
    frame: &mut Vec<u8>,
) -> Result<(), FetchError> {
    let (correlation, level) = (subscriber.correlation, subscriber.level);
    if !resolve {
        stream_event_appeared(frame, correlation, level, Resolved::plain(event));
        return Ok(());
    }
    // The right to read a link's target is not checked here, as in v5.
    let resolved = reader.resolve(event, None, |entry| stream_event_appeared(frame, correlation, level, entry));
    match resolved {
        // An event that is there must not seem to be gone.
        Err(ResolveError::Fetch(error)) => Err(error),
        Err(ResolveError::Denied) => {
            stream_event_appeared(frame, correlation, level, Resolved { event: None, link: Some(event) });
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
