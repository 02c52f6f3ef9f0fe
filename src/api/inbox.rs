//! What the log thread says, and what follows from it: the index goes on, requests are answered, subscribers served.
//!
//! An edge where nobody waits for the index is not woken for each commit: it tells the log thread that it wants no hints,
//! and looks every few milliseconds. Readers bring the index up to date themselves; who begins to wait without a message
//! of the log thread says so here.
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
use crate::types::LogPosition;

/// Messages between two looks at the index: answers gather, and other tasks get their turn.
const BATCH_MESSAGES: usize = 1024;

/// Log that the index takes in between two looks at other work. Others who apply wait for it, too.
const APPLY_BYTES: u64 = 1 << 20;

/// How long the index may stay behind while nobody on this edge waits for it; readers bring it up to date themselves. So a
/// node that only follows is not woken by each commit.
const LAZY_PERIOD: Duration = Duration::from_millis(10);

/// Answers are given for this long before others have a turn.
const SLICE: Duration = Duration::from_millis(1);

/// How many small answers are given between two looks at the clock.
const LOOK_AFTER: usize = 32;

/// Runs until the edge is told to stop.
pub(super) async fn run(edge: Rc<EdgeState>) {
    let mut is_behind = false;
    let mut behind_since = None;
    loop {
        if !is_behind {
            rest(&edge, behind_since).await;
        }
        edge.begin_turn();
        // Before the answers: most of them can then be given at once. One that is far behind has its pass below, and one
        // that has asked for nothing is in no hurry.
        if !is_behind && edge.pending.borrow().len() > 0 {
            apply(&edge);
        }
        let applied = edge.links.index.applied();
        let mut count = 0;
        while let Some(message) = edge.links.inbox.pop() {
            match message {
                EdgeMessage::Reply(reply) => take_reply(&edge, reply, applied),
                // A reason to look at the published position, which is at least as new.
                EdgeMessage::Progress(_) => {}
                EdgeMessage::ForwardConnection(socket) => session::adopt(&edge, socket, Origin::Node),
                EdgeMessage::ShutDown => {
                    // What was answered before is passed on.
                    advance(&edge, &mut behind_since).await;
                    return;
                }
            }
            count += 1;
            if count == BATCH_MESSAGES {
                break;
            }
        }
        is_behind = advance(&edge, &mut behind_since).await;
        give_way().await;
    }
}

/// Waits for a message, and for more of the log only when that matters now.
async fn rest(edge: &EdgeState, behind_since: Option<Instant>) {
    let inbox = &edge.links.inbox;
    inbox.want_hints(behind_since.is_none());
    match behind_since {
        Some(since) => {
            let left = LAZY_PERIOD.saturating_sub(since.elapsed());
            // A message, or time to look at the index: either way the caller does both.
            let _ = monoio::time::timeout(left, inbox.ready()).await;
        }
        // What was published before the hints were wanted again is seen here.
        None if is_index_behind(edge) => {}
        None => inbox.ready().await,
    }
}

/// Somebody has begun to wait for the index, and this task may not know.
pub(super) fn hurry(edge: &EdgeState) {
    if !edge.links.inbox.wants_hints() {
        let readable = edge.links.published.readable();
        // A full queue is read soon anyway.
        let _ = edge.links.inbox.send(EdgeMessage::Progress(Progress { readable }));
    }
}

/// Brings the index up to date for a reader that does not wait.
pub(super) fn catch_up(edge: &EdgeState) {
    apply(edge);
}

fn is_index_behind(edge: &EdgeState) -> bool {
    edge.links.index.applied() < edge.links.published.readable()
}

fn take_reply(edge: &Rc<EdgeState>, reply: Reply, applied: LogPosition) {
    let Reply { ticket, answer, spare } = reply;
    debug_assert_eq!(ticket.edge, edge.options.index, "an answer for another edge");
    let end = index_needed(&answer);
    let outcome = Outcome { answer, spare };
    match end {
        // A confirmed read may make a large page: these are given one by one, with pauses.
        Some(end) if end <= applied && !edge.pending.borrow().holds_answers() && !is_confirmed(&outcome.answer) => {
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

fn is_confirmed(answer: &Answer) -> bool {
    matches!(answer, Answer::Confirmed { .. })
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

/// Brings the index nearer to what may be read, gives the answers that waited for it, and feeds the subscriptions. True
/// when there is more to apply.
async fn advance(edge: &Rc<EdgeState>, behind_since: &mut Option<Instant>) -> bool {
    let is_behind = follow(edge, behind_since);
    edge.begin_turn();
    let applied = edge.links.index.applied();
    let mut work = 0;
    loop {
        let released = edge.pending.borrow_mut().release(applied);
        let Some((key, outcome)) = released else { break };
        work += if is_confirmed(&outcome.answer) { LOOK_AFTER } else { 1 };
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
    is_behind
}

/// Takes the index on, unless nobody waits for it and it was not left alone for long. True when another pass should follow.
fn follow(edge: &EdgeState, behind_since: &mut Option<Instant>) -> bool {
    if !is_index_behind(edge) {
        *behind_since = None;
        return false;
    }
    let since = *behind_since.get_or_insert_with(Instant::now);
    let is_awaited = edge.pending.borrow().holds_answers()
        || !edge.subscriptions.borrow().is_empty()
        // A new leader takes no write before the index has all that it inherited.
        || edge.links.published.view().role == Role::PreLeader;
    if !is_awaited && since.elapsed() < LAZY_PERIOD {
        return false;
    }
    let is_behind = apply(edge);
    *behind_since = is_index_behind(edge).then(Instant::now);
    is_behind
}

/// One pass of the index; true when another one should follow.
fn apply(edge: &EdgeState) -> bool {
    let links = &edge.links;
    let readable = links.published.readable();
    if links.index.applied() >= readable {
        return false;
    }
    // When another edge is at it this one comes back after its other work.
    match links.index.try_apply(&*links.log, links.layout, readable, APPLY_BYTES) {
        Ok(advanced) => advanced && links.index.applied() < readable,
        Err(error) => {
            let place = Some(links.index.applied());
            if edge.index_stuck_at.replace(place) != place {
                // Said once for each place. Writes are answered with timeouts and reads stay where the index is; the
                // operator must act.
                tracing::error!(%error, "the index stands still");
            }
            false
        }
    }
}
