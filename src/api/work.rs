//! Requests that wait for someone: entering them, answering them, giving them up.

use std::rc::Rc;
use std::time::Duration;

use crate::api::counters::add;
use crate::api::edge::EdgeState;
use crate::api::forward;
use crate::api::pending::Waiting;
use crate::api::reading::{self, ReadWork};
use crate::api::session::{Origin, Session};
use crate::api::writes::{self, AppendWork, Writer};
use crate::codec::client::messages::OperationResult;
use crate::codec::client::{Package, response};
use crate::engine::{Answer, Append, QueuedBytes, Request, Ticket};
use crate::limits::{CONNECTION_PENDING_REQUESTS, LOG_QUEUE_BYTES};
use crate::ring::monotonic_now;
use crate::types::Guid;

/// What a waiting request waits for, and what is needed to answer it.
pub(super) enum Work {
    /// The log thread appends a record.
    Append(AppendWork),
    /// The log thread confirms that this node leads; then a read is done.
    Read(Box<ReadWork>),
    /// The leader answers, over the link with this number.
    Forwarded {
        /// The link.
        link: u64,
        /// What was asked.
        asked: Asked,
        /// The leader's answer, while it waits for this node's index.
        answer: Option<Box<Package>>,
    },
}

/// An answer, and the request that it is about: its memory, and what it said.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) answer: Answer,
    pub(super) spare: Option<Box<Append>>,
}

/// The answers to the requests that change the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    WriteEvents,
    DeleteStream,
    TransactionStart,
    /// With the transaction's identifier.
    TransactionWrite(i64),
    /// With the transaction's identifier.
    TransactionCommit(i64),
}

impl Asked {
    /// Writes the answer that says that it failed. `current` is the stream's last event number, as far as it matters.
    pub(super) fn fail(self, out: &mut Vec<u8>, correlation: Guid, result: OperationResult, current: i64) {
        match self {
            Asked::WriteEvents => response::write_failed(out, correlation, result, current),
            Asked::DeleteStream => response::delete_failed(out, correlation, result, None),
            Asked::TransactionStart => response::transaction_started(out, correlation, Err(result)),
            Asked::TransactionWrite(id) => response::transaction_written(out, correlation, id, result),
            Asked::TransactionCommit(id) => response::transaction_committed(out, correlation, id, Err(result)),
        }
    }

    /// What the client is told when the outcome is not known in time.
    pub(super) fn timeout(self) -> OperationResult {
        match self {
            Asked::TransactionStart => OperationResult::PrepareTimeout,
            _ => OperationResult::CommitTimeout,
        }
    }
}

impl EdgeState {
    /// Enters a request of `session` and gives its key. When too much waits already the client is told so.
    pub(super) fn enter(
        &self,
        session: &Session,
        correlation: Guid,
        time: Duration,
        bytes: usize,
        work: Work,
    ) -> Option<u64> {
        let deadline = self.now() + time;
        let waiting = Waiting { session: session.key.get(), correlation, deadline, bytes, work };
        // A connection from another node's edge carries the requests of many clients.
        let is_alone = session.origin == Origin::Client;
        let key = if !is_alone || session.pending.get() < CONNECTION_PENDING_REQUESTS {
            self.pending.borrow_mut().insert(waiting)
        } else {
            None
        };
        match key {
            Some(_) => session.pending.set(session.pending.get() + 1),
            None => self.refuse_busy(session, correlation),
        }
        key
    }

    pub(super) fn refuse_busy(&self, session: &Session, correlation: Guid) {
        add(&self.links.counters.busy_refusals, 1);
        session.send(|out| response::too_busy(out, correlation));
    }

    /// Takes a waiting request out; `None` when it, or its client, is gone.
    pub(super) fn take(&self, key: u64) -> Option<(Rc<Session>, Waiting<Work>)> {
        let (waiting, held) = self.pending.borrow_mut().remove(key)?;
        if let Some(Outcome { spare: Some(spare), .. }) = held {
            self.spares.borrow_mut().give(spare);
        }
        let session = self.session(waiting.session)?;
        session.pending.set(session.pending.get() - 1);
        Some((session, waiting))
    }

    /// Hands a request to the log thread on behalf of the waiting request `key`. The log thread is woken soon.
    pub(super) fn submit(&self, key: u64, request: Request) {
        match self.links.log_queue.push(request) {
            Ok(()) => self.handed_over(),
            Err(request) => {
                self.wake_log_thread();
                self.give_up(key, request);
            }
        }
    }

    /// Hands a write to the log thread, to be placed in the log within `time`.
    pub(super) fn submit_append(&self, key: u64, mut append: Box<Append>, time: Duration) {
        append.ticket = self.ticket(key);
        append.handed_over = self.turn.get().ticks;
        append.deadline = append.handed_over.after(time);
        if self.takes_share(&mut append) {
            self.submit(key, Request::Append(append));
        } else {
            self.give_up(key, Request::Append(append));
        }
    }

    /// Gives a write its share of what may wait; false when too much waits.
    fn takes_share(&self, append: &mut Append) -> bool {
        let bytes = (append.body.len() + append.revival.as_ref().map_or(0, |revival| revival.body.len())) as u64;
        if let Some(queued) = &mut append.queued {
            return queued.retake(bytes, LOG_QUEUE_BYTES);
        }
        append.queued = QueuedBytes::take(&self.links.counters, bytes, LOG_QUEUE_BYTES);
        append.queued.is_some()
    }

    /// Tells the stages of the writes that were answered just now.
    pub(super) fn record_answers(&self) {
        let mut answered = self.answered.borrow_mut();
        if !answered.is_empty() {
            self.links.published.stages.record_answers(monotonic_now(), &mut answered);
        }
    }

    /// There is no room for the request.
    fn give_up(&self, key: u64, request: Request) {
        if let Request::Append(append) = request {
            self.spares.borrow_mut().give(append);
        }
        if let Some((session, waiting)) = self.take(key) {
            self.refuse_busy(&session, waiting.correlation);
        }
    }

    pub(super) fn ticket(&self, key: u64) -> Ticket {
        Ticket { edge: self.options.index, key }
    }

    /// Gives up everything that a connection waits for. Answers that come later find nothing.
    pub(super) fn forget_session(&self, session: &Session) {
        if session.pending.get() > 0 {
            let key = session.key.get();
            let keys = self.pending.borrow().keys(|waiting| waiting.session == key);
            for key in keys {
                self.take(key);
            }
        }
        self.forget_subscriptions(session);
    }
}

/// The log thread's answer to the request `key`, the index being far enough.
pub(super) fn answer(edge: &Rc<EdgeState>, key: u64, outcome: Outcome) {
    let Outcome { answer, spare } = outcome;
    if matches!(answer, Answer::Confirmed { .. }) && reading::delay(edge, key) {
        return;
    }
    let taken = edge.take(key);
    let Some((session, waiting)) = taken else {
        return edge.spares.borrow_mut().extend(spare);
    };
    match waiting.work {
        Work::Append(work) => {
            let writer = Writer { edge, session: &session, correlation: waiting.correlation, work };
            let left = writes::answered(&writer, answer, spare, waiting.deadline);
            edge.spares.borrow_mut().extend(left);
        }
        Work::Read(work) => reading::confirmed(edge, &session, waiting.correlation, &work, &answer),
        Work::Forwarded { answer: Some(package), .. } => forward::pass_on(&session, waiting.correlation, &package),
        Work::Forwarded { .. } => {
            debug_assert!(false, "the log thread answers a request that it never got")
        }
    }
}

/// Nobody answered the request `key` in time.
pub(super) fn time_out(edge: &EdgeState, key: u64) {
    let Some((session, waiting)) = edge.take(key) else {
        return;
    };
    let correlation = waiting.correlation;
    match waiting.work {
        Work::Append(work) => session.send(|out| work.asked.fail(out, correlation, work.asked.timeout(), -1)),
        Work::Forwarded { answer: Some(package), .. } => forward::pass_on(&session, correlation, &package),
        Work::Forwarded { asked, .. } => {
            session.send(|out| asked.fail(out, correlation, OperationResult::ForwardTimeout, -1));
        }
        // Whether this node still leads is not known, so it may not read: the client tries again.
        Work::Read(_) => session.send(|out| response::not_ready(out, correlation)),
    }
}
