//! From a package to whoever handles it: the connection's own business, then identity, then the request.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::api::edge::EdgeState;
use crate::api::forward::{self, Forward};
use crate::api::gate::{Gate, RequestClass, gate};
use crate::api::identity::{authenticate, identify};
use crate::api::reading::{self, ReadRequest};
use crate::api::session::{Origin, Session};
use crate::api::subscribing;
use crate::api::work::Asked;
use crate::api::writes::{self, Caller};
use crate::codec::client::frame::TRUSTED_WRITE_TEXT;
use crate::codec::client::request::{ConnectionRequest, Request, WriteEventsView};
use crate::codec::client::response::{self, Endpoint};
use crate::codec::client::{Command, Credentials, Package, PackageView, RequestLimits};
use crate::engine::Role;

/// Handles a write where it lies: `bytes` is a frame without its length. False when it is anything else or not a plain good
/// one, and then nothing was done: it is for [`handle`], which has the words of all refusals.
pub(super) fn handle_write(edge: &Rc<EdgeState>, session: &Rc<Session>, bytes: &[u8]) -> bool {
    if bytes.first() != Some(&(Command::WriteEvents as u8)) {
        return false;
    }
    let Ok(package) = PackageView::read(bytes) else { return false };
    if package.correlation.is_zero() || (package.is_trusted() && session.origin == Origin::Client) {
        return false;
    }
    let Some(request) = WriteEventsView::read(package.payload, &request_limits(edge)) else { return false };
    edge.tally.count_request();
    if let Some(identity) = identify(edge, session, &package) {
        let caller = Caller { edge, session, correlation: package.correlation, identity: &identity };
        let serve = || writes::write_events(&caller, &request);
        write(&caller, &package, Asked::WriteEvents, request.require_leader, serve);
    }
    true
}

fn request_limits(edge: &EdgeState) -> RequestLimits {
    RequestLimits { append_bytes_max: edge.options.append_size_max }
}

/// Handles one package of a session.
pub(super) fn handle(edge: &Rc<EdgeState>, session: &Rc<Session>, package: &Package) {
    if package.is_trusted() && session.origin == Origin::Client {
        return session.end_with(package.correlation, TRUSTED_WRITE_TEXT);
    }
    match ConnectionRequest::read(package) {
        Some(request) => handle_connection(edge, session, package, request),
        None => handle_request(edge, session, package),
    }
}

fn handle_connection(edge: &EdgeState, session: &Session, package: &Package, request: ConnectionRequest) {
    let correlation = package.correlation;
    match request {
        ConnectionRequest::HeartbeatRequest => session.send(|out| response::heartbeat_response(out, correlation)),
        ConnectionRequest::HeartbeatResponse => {}
        ConnectionRequest::Authenticate => authenticate(edge, session, package),
        ConnectionRequest::Identify { level, name } => {
            tracing::debug!(session = session.key.get(), name, ?level, "a client has identified itself");
            session.level.set(level);
            session.send(|out| response::client_identified(out, correlation));
        }
        ConnectionRequest::IdentifyUnreadable => {
            tracing::info!(session = session.key.get(), "an identification cannot be read");
        }
        ConnectionRequest::Complaint(text) => {
            tracing::info!(session = session.key.get(), text, "a client says that we sent a bad request");
        }
    }
}

/// Everything but the connection's own business: needs an identity, then a meaning.
fn handle_request(edge: &Rc<EdgeState>, session: &Rc<Session>, package: &Package) {
    let correlation = package.correlation;
    edge.tally.count_request();
    let view = package.view();
    let Some(identity) = identify(edge, session, &view) else {
        return;
    };
    match Request::read(package, &request_limits(edge)) {
        Ok(request) => route(&Caller { edge, session, correlation, identity: &identity }, &view, request),
        Err(error) => {
            let text = error.answer(package.command);
            session.send(|out| response::bad_request(out, correlation, &text));
        }
    }
}

fn route(caller: &Caller<'_>, package: &PackageView<'_>, request: Request) {
    let (session, correlation) = (caller.session, caller.correlation);
    match request {
        Request::Ping(payload) => session.send(|out| response::pong(out, correlation, &payload)),
        Request::WriteEvents(request) => {
            let asked = Asked::WriteEvents;
            write(caller, package, asked, request.require_leader, || writes::write_owned(caller, &request));
        }
        Request::DeleteStream(request) => {
            let asked = Asked::DeleteStream;
            write(caller, package, asked, request.require_leader, || writes::delete_stream(caller, &request));
        }
        Request::TransactionStart(request) => {
            let asked = Asked::TransactionStart;
            write(caller, package, asked, request.require_leader, || writes::transaction_start(caller, &request));
        }
        Request::TransactionWrite(request) => {
            let asked = Asked::TransactionWrite(request.transaction_id);
            write(caller, package, asked, request.require_leader, || writes::transaction_write(caller, &request));
        }
        Request::TransactionCommit(request) => {
            let asked = Asked::TransactionCommit(request.transaction_id);
            write(caller, package, asked, request.require_leader, || writes::transaction_commit(caller, &request));
        }
        Request::ReadEvent(request) => read(caller, request.require_leader, ReadRequest::Event(request)),
        Request::ReadStream(request) => read(caller, request.require_leader, ReadRequest::Stream(request)),
        Request::ReadAll(request) => read(caller, request.require_leader, ReadRequest::All(request)),
        Request::Subscribe(request) => subscribe(caller, || subscribing::subscribe(caller, request)),
        Request::Unsubscribe => subscribe(caller, || subscribing::unsubscribe(caller)),
        Request::PersistentSubscriptionAck(_) | Request::PersistentSubscriptionNak(_) | Request::StrayAnswer => {}
        _ => unsupported(caller, package),
    }
}

/// A request that changes the log: served, sent on, or refused.
fn write(caller: &Caller<'_>, package: &PackageView<'_>, asked: Asked, require_leader: bool, serve: impl FnOnce()) {
    match gate(role(caller.edge), RequestClass::Write { require_leader }) {
        Gate::Serve | Gate::ServeConfirmed => serve(),
        // Two nodes that each take the other for the leader must not send a request back and forth.
        Gate::Forward if caller.session.origin == Origin::Node => refuse_not_ready(caller),
        Gate::Forward => {
            let kept = caller.session.credentials.borrow();
            let kept = kept.as_ref().map(|kept| &kept.credentials);
            let credentials = package.credentials.or(kept.map(Credentials::view));
            let is_trusted = package.is_trusted();
            forward::forward(caller.edge, caller.session, &Forward { package, asked, credentials, is_trusted });
        }
        Gate::NotLeader => refuse_not_leader(caller),
        Gate::NotReady => refuse_not_ready(caller),
    }
}

fn read(caller: &Caller<'_>, require_leader: bool, request: ReadRequest) {
    if caller.edge.sending.is_used_up() {
        return caller.edge.refuse_busy(caller.session, caller.correlation);
    }
    match gate(role(caller.edge), RequestClass::Read { require_leader }) {
        Gate::Serve => reading::read(caller, &request),
        Gate::ServeConfirmed => reading::read_confirmed(caller, request),
        Gate::NotLeader => refuse_not_leader(caller),
        Gate::NotReady | Gate::Forward => refuse_not_ready(caller),
    }
}

fn subscribe(caller: &Caller<'_>, serve: impl FnOnce()) {
    match gate(role(caller.edge), RequestClass::Subscription) {
        Gate::Serve => serve(),
        _ => refuse_not_ready(caller),
    }
}

fn role(edge: &EdgeState) -> Role {
    if edge.stopping.get() { Role::ShuttingDown } else { edge.turn.get().role }
}

pub(super) fn refuse_not_ready(caller: &Caller<'_>) {
    caller.session.send(|out| response::not_ready(out, caller.correlation));
}

/// Names the leader, if another node is known to lead.
pub(super) fn refuse_not_leader(caller: &Caller<'_>) {
    let view = caller.edge.links.published.view();
    // One that hands over, or cannot prove that it still leads, has nobody else to name.
    let leads = matches!(view.role, Role::PreLeader | Role::Leader | Role::ResigningLeader);
    let leader = view.leader.filter(|_| !leads);
    let client = caller.session.client;
    let Some(told) = leader.and_then(|leader| caller.edge.links.directory.addresses_for(leader, client)) else {
        return refuse_not_ready(caller);
    };
    let endpoint = |address: SocketAddr| Endpoint::new(address.ip(), address.port());
    let (tcp, http) = (endpoint(told.ext_tcp), endpoint(told.ext_http));
    let secure_tcp = told.ext_secure_tcp.map(endpoint);
    caller.session.send(|out| response::not_leader(out, caller.correlation, &tcp, &http, secure_tcp.as_ref()));
}

/// What the protocol has and this server does not have yet.
fn unsupported(caller: &Caller<'_>, package: &PackageView<'_>) {
    let text = format!("{} is not supported by this server yet.", Command::describe(package.command));
    caller.session.send(|out| response::bad_request(out, caller.correlation, &text));
}
