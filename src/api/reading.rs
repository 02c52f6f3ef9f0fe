//! Reads: at once from the index and the log, or after the cluster has confirmed that this node still leads.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::api::connection::give_way;
use crate::api::dispatch::{refuse_not_leader, refuse_not_ready};
use crate::api::edge::{EdgeLinks, EdgeState};
use crate::api::inbox;
use crate::api::log_events::Reader;
use crate::api::pending::Waiting;
use crate::api::session::Session;
use crate::api::users::Identity;
use crate::api::work::Work;
use crate::api::writes::Caller;
use crate::codec::client::request::{ReadAll, ReadEvent, ReadStream};
use crate::engine::{Answer, Request};
use crate::limits::SEND_QUEUE_PAUSE_BYTES;
use crate::types::{Guid, WallTime};

/// What a waiting read counts against the edge's limit, beside its stream's name.
const READ_WORK_BYTES: usize = 256;

/// What one page may take of the edge's time: events that are not in memory come from the disk one by one.
const PAGE_TIME: Duration = Duration::from_millis(50);

/// How long a confirmed read may wait for its client to take earlier answers. Clients give an operation up after 7 s.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// A read of either kind.
#[derive(Debug)]
pub(super) enum ReadRequest {
    Event(ReadEvent),
    Stream(ReadStream),
    All(ReadAll),
}

/// A read that waits for the confirmation.
#[derive(Debug)]
pub(super) struct ReadWork {
    request: ReadRequest,
    identity: Identity,
}

/// What reads work on, now.
pub(super) fn reader(links: &EdgeLinks) -> Reader<'_> {
    Reader {
        index: &links.index,
        log: &*links.log,
        layout: links.layout,
        now: WallTime::from_system(SystemTime::now()).0,
        page_time: PAGE_TIME,
        checks: &links.checks,
    }
}

/// Reads and answers.
pub(super) fn read(caller: &Caller<'_>, request: &ReadRequest) {
    let (session, identity, correlation) = (caller.session, caller.identity, caller.correlation);
    caller.edge.before_long_work();
    inbox::catch_up(caller.edge);
    let reader = reader(&caller.edge.links);
    let level = session.level.get();
    session.send_page(|out| match request {
        ReadRequest::Event(request) => reader.read_event(request, identity, correlation, out),
        ReadRequest::Stream(request) => reader.read_stream(request, identity, level, correlation, out),
        ReadRequest::All(request) => reader.read_all(request, identity, level, correlation, out),
    });
}

/// Asks for the confirmation; the read follows in [`confirmed`].
pub(super) fn read_confirmed(caller: &Caller<'_>, request: ReadRequest) {
    let name = match &request {
        ReadRequest::Event(request) => request.stream.len(),
        ReadRequest::Stream(request) => request.stream.len(),
        ReadRequest::All(_) => 0,
    };
    let edge = caller.edge;
    let work = Work::Read(Box::new(ReadWork { request, identity: caller.identity.clone() }));
    let time = edge.options.commit_timeout;
    if let Some(key) = edge.enter(caller.session, caller.correlation, time, READ_WORK_BYTES + name, work) {
        edge.submit(key, Request::Barrier { ticket: edge.ticket(key) });
    }
}

/// Puts the confirmed read `key` off when its client has not taken the answers that it has already: a page may be large,
/// and a client can ask for thousands before the first is confirmed. Gives false when the read may be done at once.
///
/// A read that is done later than its confirmation came sees at least what was committed then.
pub(super) fn delay(edge: &Rc<EdgeState>, key: u64) -> bool {
    let is_read = |waiting: &&Waiting<Work>| matches!(waiting.work, Work::Read(_));
    let session = edge.pending.borrow().get(key).filter(is_read).map(|waiting| waiting.session);
    let Some(session) = session.and_then(|session| edge.session(session)) else { return false };
    let is_first = session.delayed.borrow().is_empty();
    if is_first && session.connection.waiting_bytes() <= SEND_QUEUE_PAUSE_BYTES {
        return false;
    }
    edge.pending.borrow_mut().set_deadline(key, Instant::now() + DELAY_MAX);
    session.delayed.borrow_mut().push_back(key);
    if is_first {
        monoio::spawn(read_delayed(Rc::clone(edge), session));
    }
    true
}

/// Does the delayed reads of a session as fast as the client takes the answers.
async fn read_delayed(edge: Rc<EdgeState>, session: Rc<Session>) {
    loop {
        session.connection.until_below(SEND_QUEUE_PAUSE_BYTES / 2).await;
        // It stays in the queue meanwhile, so that no later one overtakes it and no second task begins.
        let Some(key) = session.delayed.borrow().front().copied() else { return };
        // Nothing is found when the time was up or the connection has gone.
        if let Some((_, waiting)) = edge.take(key)
            && let Work::Read(work) = &waiting.work
        {
            let caller = caller(&edge, &session, waiting.correlation, work);
            read_if_room(&caller, &work.request);
        }
        session.delayed.borrow_mut().pop_front();
        give_way().await;
    }
}

fn caller<'a>(edge: &'a Rc<EdgeState>, session: &'a Rc<Session>, correlation: Guid, work: &'a ReadWork) -> Caller<'a> {
    Caller { edge, session, correlation, identity: &work.identity }
}

/// Reads unless the edge has too much to send already: what was so when the request came may have changed.
fn read_if_room(caller: &Caller<'_>, request: &ReadRequest) {
    if caller.edge.sending.is_used_up() {
        caller.edge.refuse_busy(caller.session, caller.correlation);
    } else {
        read(caller, request);
    }
}

/// The log thread's answer to the request for confirmation.
pub(super) fn confirmed(
    edge: &Rc<EdgeState>,
    session: &Rc<Session>,
    correlation: Guid,
    work: &ReadWork,
    answer: &Answer,
) {
    let caller = caller(edge, session, correlation, work);
    match answer {
        Answer::Confirmed { .. } => read_if_room(&caller, &work.request),
        Answer::NotLeader => refuse_not_leader(&caller),
        Answer::TooBusy => edge.refuse_busy(session, correlation),
        _ => refuse_not_ready(&caller),
    }
}
