//! Wires the edge's subscriptions to its sessions: one task reads each new piece of the log once, for all of them.

use std::collections::HashSet;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use crate::api::connection::give_way;
use crate::api::edge::EdgeState;
use crate::api::inbox;
use crate::api::reading::reader;
use crate::api::session::Session;
use crate::api::writes::Caller;
use crate::codec::client::request::Subscribe;
use crate::codec::client::response;
use crate::limits::{SEND_QUEUE_BYTES, SUBSCRIPTIONS_PER_CONNECTION_MAX};

/// Log and frames between two looks at the other work of the edge.
const SLICE_BYTES: usize = 1 << 20;

/// How long a subscriber that has fallen behind may slow the others of its edge down, for each slice that it gets something
/// of. When it does not read at all its queue is full after a few slices, and it is disconnected.
const PATIENCE_STEPS: u32 = 50;
const PATIENCE_STEP: Duration = Duration::from_millis(2);

/// The most of these steps that others wait for one subscriber, until it has caught up again.
pub(super) const PATIENCE_STEPS_TOTAL: u32 = 500;

/// How long subscribers wait for a damaged record of the log to be repaired, and how often it is looked at meanwhile.
const REPAIR_PATIENCE: Duration = Duration::from_secs(30);
const REPAIR_STEP: Duration = Duration::from_millis(100);

/// What became of a slice.
enum Fed {
    /// Everything applied is delivered.
    All,
    /// There is more.
    Part,
    /// The next record is damaged.
    Damaged,
}

/// The sessions that got something.
type Receivers = HashSet<u64, FixedState>;

/// SubscribeToStream.
pub(super) fn subscribe(caller: &Caller<'_>, request: Subscribe) {
    let (edge, session, correlation) = (caller.edge, caller.session, caller.correlation);
    let key = session.key.get();
    edge.before_long_work();
    inbox::catch_up(edge);
    let mut subscriptions = edge.subscriptions.borrow_mut();
    if subscriptions.len_of(key) >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
        let text =
            format!("This connection has {SUBSCRIPTIONS_PER_CONNECTION_MAX} subscriptions; no more are possible.");
        return session.send(|out| response::bad_request(out, correlation, &text));
    }
    let mut answer = Vec::new();
    let (reader, level) = (reader(&edge.links), session.level.get());
    match subscriptions.subscribe(&reader, (key, correlation), request, caller.identity, level, &mut answer) {
        Ok(()) => session.send(|out| out.extend_from_slice(&answer)),
        Err(error) if reader.is_passing(&error) => session.send(|out| response::not_ready(out, correlation)),
        Err(error) => {
            tracing::error!(%error, "a subscription could not begin");
            session.send(|out| response::bad_request(out, correlation, &error.to_string()));
        }
    }
    let count = subscriptions.len();
    drop(subscriptions);
    edge.count_subscriptions(count);
    inbox::hurry(edge);
}

/// UnsubscribeFromStream.
pub(super) fn unsubscribe(caller: &Caller<'_>) {
    let (edge, session) = (caller.edge, caller.session);
    let mut answer = Vec::new();
    let mut subscriptions = edge.subscriptions.borrow_mut();
    subscriptions.unsubscribe(session.key.get(), caller.correlation, &mut answer);
    let count = subscriptions.len();
    drop(subscriptions);
    session.send(|out| out.extend_from_slice(&answer));
    edge.count_subscriptions(count);
}

/// Pushes what the index has newly applied, as long as the edge lives.
pub(super) async fn feed(edge: Rc<EdgeState>) {
    loop {
        edge.until_fed().await;
        let mut receivers = Receivers::default();
        let mut damaged_since = None;
        loop {
            let may_wait = damaged_since.is_none_or(|since: Instant| since.elapsed() < REPAIR_PATIENCE);
            match feed_slice(&edge, &mut receivers, may_wait) {
                Fed::All => break,
                Fed::Part => {
                    damaged_since = None;
                    be_patient(&edge, &receivers).await;
                }
                Fed::Damaged => {
                    damaged_since.get_or_insert_with(Instant::now);
                    monoio::time::sleep(REPAIR_STEP).await;
                }
            }
            receivers.clear();
        }
    }
}

/// Pushes one slice, and notes who got something. Where a record is damaged, subscribers wait for its repair while they may
/// and one is to be expected.
fn feed_slice(edge: &EdgeState, receivers: &mut Receivers, may_wait: bool) -> Fed {
    let limit = edge.links.index.applied();
    // Where there are few subscribers the next frame is mostly for the one before, too.
    let mut last: Option<(u64, Rc<Session>)> = None;
    let mut send = |key, frame: &[u8]| {
        if last.as_ref().is_none_or(|(of, _)| *of != key) {
            last = edge.session(key).map(|session| (key, session));
            receivers.extend(last.as_ref().map(|_| key));
        }
        if let Some((_, session)) = &last {
            session.send(|out| out.extend_from_slice(frame));
        }
    };
    let mut subscriptions = edge.subscriptions.borrow_mut();
    let reader = reader(&edge.links);
    match subscriptions.deliver(&reader, limit, SLICE_BYTES, &mut send) {
        Ok(true) => Fed::All,
        Ok(false) => Fed::Part,
        Err(error) if may_wait && reader.is_passing(&error) => Fed::Damaged,
        Err(error) => {
            // Whoever subscribes again reads what is missing, or is told that it cannot be read.
            tracing::error!(%error, "subscriptions cannot go on: all of this edge are dropped");
            subscriptions.drop_all(&mut send);
            Fed::All
        }
    }
}

/// Waits a little while one of those that just got something is about to be cut off for not keeping up.
async fn be_patient(edge: &EdgeState, receivers: &Receivers) {
    give_way().await;
    for _ in 0..PATIENCE_STEPS {
        let waits_for = |count, &key| count + u32::from(edge.session(key).is_some_and(|session| deserves(&session)));
        if receivers.iter().fold(0, waits_for) == 0 {
            return;
        }
        monoio::time::sleep(PATIENCE_STEP).await;
    }
}

/// True when the session is behind and others have not waited for it too long; counts one step.
fn deserves(session: &Session) -> bool {
    let is_behind = session.connection.unexcused_bytes() > SEND_QUEUE_BYTES / 2 && !session.connection.is_closing();
    let left = session.patience.get();
    session.patience.set(if is_behind { left.saturating_sub(1) } else { PATIENCE_STEPS_TOTAL });
    is_behind && left > 0
}

impl EdgeState {
    /// Has new events pushed.
    pub(super) fn feed_subscriptions(&self) {
        self.is_fed.set(false);
        if let Some(waker) = self.feed_waker.take() {
            waker.wake();
        }
    }

    async fn until_fed(&self) {
        poll_fn(|context| {
            if !self.is_fed.replace(true) {
                return Poll::Ready(());
            }
            self.feed_waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// A connection is gone.
    pub(super) fn forget_subscriptions(&self, session: &Session) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        subscriptions.remove_connection(session.key.get());
        let count = subscriptions.len();
        drop(subscriptions);
        self.count_subscriptions(count);
    }

    /// The edge stops: subscribers are told.
    pub(super) fn drop_subscriptions(&self) {
        self.subscriptions.borrow_mut().drop_all(&mut |key, frame| {
            if let Some(session) = self.session(key) {
                session.send(|out| out.extend_from_slice(frame));
            }
        });
        self.count_subscriptions(0);
    }

    /// Brings this edge's share of the common counter up to date.
    fn count_subscriptions(&self, count: usize) {
        let before = self.subscriptions_counted.replace(count);
        let counter = &self.links.counters.subscriptions_now;
        counter.fetch_add(count as u64, Ordering::Relaxed);
        counter.fetch_sub(before as u64, Ordering::Relaxed);
    }
}
