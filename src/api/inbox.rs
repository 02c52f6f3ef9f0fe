//! What the log thread says, and what follows from it: the index goes on, requests are answered, subscribers served.
//!
//! An edge where nobody waits for the index is not woken for each commit: it tells the log thread that it wants no hints,
//! and looks every few milliseconds. Once it has begun it goes on to what was readable then, so the index is never much
//! further behind than that. Readers bring the index up to date themselves; who begins to wait without a message of the
//! log thread says so here.
//!
//! An answer to a write waits until the index has applied the log up to its end, so that clients read their own writes.
//! (One that another node has given waits no longer than the request's time limit.)

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::api::connection::give_way;
use crate::api::edge::EdgeState;
use crate::api::session::{self, Origin};
use crate::api::work::{self, Outcome};
use crate::engine::{Answer, EdgeMessage, Progress, Reply, Role};
use crate::index::{Attempt, IndexError};
use crate::storage::report_damage;
use crate::types::LogPosition;

/// Messages between two looks at the index: answers gather, and other tasks get their turn.
const BATCH_MESSAGES: usize = 1024;

/// Log that the index takes in between two looks at other work. Others who apply wait for it, too.
const APPLY_BYTES: u64 = 1 << 20;

/// How long the index may stay behind while nobody on this edge waits for it, as long as one pass makes up for it; readers
/// bring it up to date themselves. So a node that only follows is not woken by each commit.
const LAZY_PERIOD: Duration = Duration::from_millis(10);

/// A reader that does not wait takes the index on by so many passes at most.
const CATCH_UP_PASSES: usize = 4;

/// Events that are listed for a new leader between two looks at other work.
const LIST_EVENTS: u64 = 8 << 10;

/// Answers are given for this long before others have a turn.
const SLICE: Duration = Duration::from_millis(1);

/// How many small answers are given between two looks at the clock.
const LOOK_AFTER: usize = 32;

/// What this task waits for when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing: another pass of the index should follow.
    None,
    /// More of the log than was readable here.
    UntilMore(LogPosition),
    /// The time at which the index goes on although nobody waits for it.
    Lazy {
        /// Since when it is left alone.
        since: Instant,
    },
    /// The time to try again what could not be applied.
    Retry,
}

/// How the index follows the log.
#[derive(Debug, Default)]
struct Pace {
    /// Since when the index is behind and left alone.
    behind_since: Option<Instant>,
    /// Where the passes that have begun end.
    target: Option<LogPosition>,
}

/// Runs until the edge is told to stop.
pub(super) async fn run(edge: Rc<EdgeState>) {
    let mut pace = Pace::default();
    let mut next = Rest::UntilMore(LogPosition::ZERO);
    loop {
        rest(&edge, next).await;
        edge.begin_turn();
        // Before the answers: most of them can then be given at once. One that is far behind has its pass below, and one
        // that has asked for nothing is in no hurry.
        if next != Rest::None && edge.pending.borrow().len() > 0 {
            apply(&edge, edge.links.published.readable());
        }
        let applied = edge.links.index.applied();
        let mut count = 0;
        while let Some(message) = edge.links.inbox.pop() {
            match message {
                EdgeMessage::Reply(reply) => take_reply(&edge, reply, applied),
                // A reason to look at the published position, which is at least as new.
                EdgeMessage::Progress(_) => {}
                EdgeMessage::ForwardConnection(forwarded) => session::adopt(&edge, *forwarded, Origin::Node),
                EdgeMessage::ShutDown => {
                    // What was answered before is passed on.
                    advance(&edge, &mut pace).await;
                    return;
                }
            }
            count += 1;
            if count == BATCH_MESSAGES {
                break;
            }
        }
        next = advance(&edge, &mut pace).await;
        give_way().await;
    }
}

/// Waits for a message, and for more of the log only when that matters now.
async fn rest(edge: &EdgeState, rest: Rest) {
    let inbox = &edge.links.inbox;
    let left = match rest {
        Rest::None => return,
        Rest::UntilMore(seen) => {
            inbox.want_hints(true);
            // What was published before the hints were wanted is seen here.
            if edge.links.published.readable() <= seen {
                inbox.ready().await;
            }
            return;
        }
        // Whoever began to wait since the last look at the index did not know that no hints would be wanted.
        Rest::Lazy { .. } if is_awaited(edge) => return,
        Rest::Lazy { since } => LAZY_PERIOD.saturating_sub(since.elapsed()),
        Rest::Retry => LAZY_PERIOD,
    };
    inbox.want_hints(false);
    // A message, or time to look at the index: either way the caller does both.
    let _ = monoio::time::timeout(left, inbox.ready()).await;
}

/// Somebody has begun to wait for the index, and this task may not know.
pub(super) fn hurry(edge: &EdgeState) {
    if !edge.links.inbox.wants_hints() {
        let readable = edge.links.published.readable();
        // A full queue is read soon anyway.
        let _ = edge.links.inbox.send(EdgeMessage::Progress(Progress { readable }));
    }
}

/// Takes the index to what is readable now, for a reader that does not wait: so far as some passes go, which is further
/// than an edge lets it fall behind. It stays behind that when another thread is at it.
pub(super) fn catch_up(edge: &EdgeState) {
    let readable = edge.links.published.readable();
    for _ in 0..CATCH_UP_PASSES {
        if apply(edge, readable) != Some(Attempt::Advanced) {
            break;
        }
    }
}

/// True when somebody waits for the index. (A request that waits for the log thread or a leader does not yet: its answer
/// comes with a message, or with [`hurry`].)
fn is_awaited(edge: &EdgeState) -> bool {
    edge.pending.borrow().holds_answers()
        || !edge.subscriptions.borrow().is_empty()
        // A new leader takes no write before the index has all that it inherited.
        || edge.links.published.role() == Role::PreLeader
}

fn take_reply(edge: &Rc<EdgeState>, reply: Reply, applied: LogPosition) {
    let Reply { ticket, answer, spare } = reply;
    debug_assert_eq!(ticket.edge, edge.options.index, "an answer for another edge");
    let end = index_needed(&answer);
    let outcome = Outcome { answer, spare };
    match end {
        // These are given one by one, with pauses.
        Some(end) if end <= applied && !edge.pending.borrow().holds_answers() && !takes_time(&outcome.answer) => {
            work::answer(edge, ticket.key, outcome);
        }
        Some(end) => {
            // Its request, or its client, is gone: only the memory is of use.
            if let Some(late) = edge.pending.borrow_mut().hold(end, ticket.key, outcome) {
                edge.spares.borrow_mut().extend(late.spare);
            }
        }
        None => work::answer(edge, ticket.key, outcome),
    }
}

/// True when events must be read before the client has its answer: a confirmed read may make a large page, and others
/// compare what was asked for with what is there.
fn takes_time(answer: &Answer) -> bool {
    matches!(answer, Answer::Confirmed { .. } | Answer::WrongExpectedVersion { .. } | Answer::SoftDeleted { .. })
}

/// How much of the log the index must have applied before the answer may be given.
fn index_needed(answer: &Answer) -> Option<LogPosition> {
    match answer {
        Answer::Appended { end, .. }
        | Answer::AlreadyWritten { end, .. }
        | Answer::WrongExpectedVersion { end, .. }
        | Answer::StreamDeleted { end }
        | Answer::SoftDeleted { end, .. }
        | Answer::Confirmed { end } => Some(*end),
        _ => None,
    }
}

/// Brings the index nearer to what may be read, gives the answers that waited for it, and feeds the subscriptions. Says
/// what to wait for then.
async fn advance(edge: &Rc<EdgeState>, pace: &mut Pace) -> Rest {
    let rest = follow(edge, pace);
    edge.begin_turn();
    let applied = edge.links.index.applied();
    let mut work = 0;
    loop {
        let released = edge.pending.borrow_mut().release(applied);
        let Some((key, outcome)) = released else { break };
        work += if takes_time(&outcome.answer) { LOOK_AFTER } else { 1 };
        work::answer(edge, key, outcome);
        if work >= LOOK_AFTER {
            work = 0;
            if edge.now().elapsed() >= SLICE {
                edge.record_answers();
                give_way().await;
                edge.begin_turn();
            }
        }
    }
    edge.record_answers();
    edge.feed_subscriptions();
    edge.tell_figures();
    rest
}

/// Takes the index on by one pass, unless nobody waits for it and it was not left alone for long. That decides only when
/// to begin: then pass follows on pass, or a log that grows fast would leave the index further and further behind.
fn follow(edge: &EdgeState, pace: &mut Pace) -> Rest {
    let (applied, readable) = (edge.links.index.applied(), edge.links.published.readable());
    if prepares_to_lead(edge, applied, readable) {
        return Rest::None;
    }
    if applied >= readable {
        *pace = Pace::default();
        return Rest::UntilMore(readable);
    }
    let since = *pace.behind_since.get_or_insert_with(Instant::now);
    let is_awaited = is_awaited(edge);
    let may_wait = readable.since(applied) <= APPLY_BYTES && since.elapsed() < LAZY_PERIOD;
    if pace.target.is_none() && !is_awaited && may_wait {
        return Rest::Lazy { since };
    }
    let target = if is_awaited { readable } else { *pace.target.get_or_insert(readable) };
    let attempt = apply(edge, readable);
    pace.target = Some(target).filter(|&target| edge.links.index.applied() < target);
    match attempt {
        Some(Attempt::Advanced) if pace.target.is_some() => Rest::None,
        // The other one takes the index on, and a reader here would do so, too.
        Some(Attempt::Elsewhere) if pace.target.is_some() && is_awaited => Rest::None,
        Some(Attempt::Nothing) if is_awaited => Rest::UntilMore(readable),
        // Its upkeep says nothing when it is done.
        Some(Attempt::Rebuilding) => {
            *pace = Pace::default();
            Rest::Retry
        }
        Some(_) => leave_alone(edge, pace),
        None => {
            *pace = Pace::default();
            Rest::Retry
        }
    }
}

/// A new leader asks for recent events with its first writes. The log thread, which says by heartbeats that it leads,
/// should not have to list them all then: so this is done before the last pass, which a leader waits for. True while there
/// is more to do.
fn prepares_to_lead(edge: &EdgeState, applied: LogPosition, readable: LogPosition) -> bool {
    let is_near = readable.0.saturating_sub(applied.0) <= APPLY_BYTES;
    edge.links.published.role() == Role::PreLeader && is_near && edge.links.index.prepare_recent(LIST_EVENTS)
}

/// The passes that have begun are over: what came meanwhile begins a new period.
fn leave_alone(edge: &EdgeState, pace: &mut Pace) -> Rest {
    let (applied, readable, since) = (edge.links.index.applied(), edge.links.published.readable(), Instant::now());
    let behind_since = (applied < readable).then_some(since);
    *pace = Pace { behind_since, target: None };
    if behind_since.is_some() { Rest::Lazy { since } } else { Rest::UntilMore(readable) }
}

/// One pass of the index towards `readable`; `None` when it stands still because of an error.
fn apply(edge: &EdgeState, readable: LogPosition) -> Option<Attempt> {
    let links = &edge.links;
    if links.index.applied() >= readable {
        return Some(Attempt::Nothing);
    }
    // When another edge is at it this one comes back after its other work.
    match links.index.try_apply(&*links.log, links.layout, readable, APPLY_BYTES) {
        Ok(attempt) => Some(attempt),
        Err(error) => {
            if let IndexError::Record { position, source } = &error {
                let damage = &links.checks.damage;
                report_damage(damage, &*links.log, links.layout, *position, readable, source);
            }
            let place = Some(links.index.applied());
            if edge.index_stuck_at.replace(place) != place {
                // Said once for each place. Writes are answered with timeouts and reads stay where the index is; the
                // operator must act.
                tracing::error!(%error, "the index stands still");
            }
            None
        }
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
