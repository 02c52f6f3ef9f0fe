//! The routes of the internal side only.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::control::{Control, VOTE_TIMEOUT};
use super::log_bytes;
use super::members;
use super::pending::{Answered, Wait};
use super::routes::{self, Route, json_answer, shortened};
use crate::consensus::{TransferRequest, Versioned, VoteRequest};
use crate::engine::ControlInput;
use crate::gossip::Exchange;
use crate::http::{Method, Request, Response};

const GET: &[Method] = &[Method::Get, Method::Head];
const POST: &[Method] = &[Method::Post];

const ROUTES: [Route; 15] = [
    Route { path: "/gossip", methods: &[Method::Get, Method::Head, Method::Post] },
    Route { path: "/elections/pre-vote", methods: POST },
    Route { path: "/elections/vote", methods: POST },
    Route { path: "/elections/transfer", methods: POST },
    Route { path: "/admin/resign", methods: POST },
    Route { path: "/log/info", methods: GET },
    Route { path: "/log/bytes", methods: GET },
    Route { path: "/admin/trust", methods: POST },
    Route { path: "/admin/status", methods: GET },
    Route { path: "/admin/members/add", methods: POST },
    Route { path: "/admin/members/remove", methods: POST },
    Route { path: "/ping", methods: GET },
    Route { path: "/info", methods: GET },
    Route { path: "/stats", methods: GET },
    Route { path: "/health/live", methods: GET },
];

/// The answer to a request on the internal side.
pub(super) async fn answer(control: &Rc<Control>, request: &Request) -> Response {
    let route = match routes::dispatch(&ROUTES, request) {
        Ok(route) => route,
        Err(response) => return response,
    };
    let response = match (request.method, route.path) {
        (Method::Post, path) if control.is_alone && is_between_nodes(path) => alone(),
        (Method::Post, "/gossip") => gossip(control, request),
        (Method::Post, "/elections/pre-vote") => vote(control, request, true).await,
        (Method::Post, "/elections/vote") => vote(control, request, false).await,
        (Method::Post, "/elections/transfer") => transfer(control, request).await,
        (_, "/log/info") => log_bytes::info(&control.status, &control.log_bytes),
        (_, "/log/bytes") => log_bytes::bytes(control, request).await,
        (Method::Post, "/admin/resign") => members::resign(control, request).await,
        (Method::Post, "/admin/trust") => members::trust(control).await,
        (Method::Post, "/admin/members/add") => members::add(control, request).await,
        (Method::Post, "/admin/members/remove") => members::remove(control, request).await,
        (_, "/admin/status") => members::status(control),
        (_, path) => {
            if path == "/gossip" {
                control.pump();
            }
            routes::shared(&control.status, request)
        }
    };
    routes::finish(response, route.methods)
}

/// What only other nodes of a cluster post.
fn is_between_nodes(path: &str) -> bool {
    path == "/gossip" || path.starts_with("/elections/")
}

/// The refusal of other nodes by one that is alone: it would never open the port by which they could follow it.
fn alone() -> Response {
    Response::words(409, "this node is on its own (ClusterSize 1): it gossips with nobody, and nobody votes with it")
}

fn gossip(control: &Rc<Control>, request: &Request) -> Response {
    if let Some(refused) = without_body(request) {
        return refused;
    }
    match Exchange::parse(&request.body) {
        Ok(exchange) => match control.handle_gossip(&exchange) {
            Ok(view) => Response::with_body(200, "application/json; charset=utf-8", view.encode()),
            Err(words) => Response::words(409, words),
        },
        Err(error) => Response::words(400, shortened(&error.to_string())),
    }
}

async fn vote(control: &Rc<Control>, request: &Request, pre: bool) -> Response {
    let vote: VoteRequest = match parse_versioned(request) {
        Ok(vote) => vote,
        Err(refused) => return refused,
    };
    let wait = control.pending.open();
    let input = ControlInput::Vote { token: wait.token, pre, request: vote };
    match ask(control, wait, input, VOTE_TIMEOUT).await {
        Ok(Answered::Vote(response)) => {
            json_answer(&serde_json::to_value(Versioned::new(response)).expect("a vote response has a JSON form"))
        }
        Ok(Answered::Done(result)) => done(result),
        Err(refused) => refused,
    }
}

async fn transfer(control: &Rc<Control>, request: &Request) -> Response {
    let transfer: TransferRequest = match parse_versioned(request) {
        Ok(transfer) => transfer,
        Err(refused) => return refused,
    };
    let wait = control.pending.open();
    let input = ControlInput::Transfer { token: wait.token, request: transfer };
    ask(control, wait, input, VOTE_TIMEOUT).await.map_or_else(|refused| refused, finished)
}

/// Asks the log thread and waits. The error is the whole answer.
pub(super) async fn ask(
    control: &Control,
    wait: Wait<'_>,
    input: ControlInput,
    limit: Duration,
) -> Result<Answered, Response> {
    if !control.tell_log_thread(input) {
        return Err(Response::words(503, "the log thread is too busy; try again"));
    }
    let answered = wait.answer(limit).await;
    answered.ok_or_else(|| {
        Response::words(503, format!("the log thread has not answered within {} ms; try again", limit.as_millis()))
    })
}

pub(super) fn finished(answered: Answered) -> Response {
    match answered {
        Answered::Done(result) => done(result),
        Answered::Vote(_) => Response::words(500, "the log thread answered another question"),
    }
}

fn done(result: Result<(), String>) -> Response {
    match result {
        Ok(()) => json_answer(&json!({ "done": true })),
        Err(words) => Response::words(409, words),
    }
}

/// A body of an election, of this release.
fn parse_versioned<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Response> {
    parse::<Versioned<T>>(request)?.check().map_err(|words| {
        tracing::warn!("{} refused: {words}", request.path);
        Response::words(400, words)
    })
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(request: &Request) -> Result<T, Response> {
    if let Some(refused) = without_body(request) {
        return Err(refused);
    }
    let explain = |error: serde_json::Error| {
        let words = format!("the body is not what {} takes: {error}", request.path);
        Response::words(400, shortened(&words))
    };
    serde_json::from_slice(&request.body).map_err(explain)
}

/// The refusal of a request that should have a body and says nothing about one.
pub(super) fn without_body(request: &Request) -> Option<Response> {
    let says_something = ["content-length", "transfer-encoding"].iter().any(|name| request.headers.get(name).is_some());
    let refused = || Response::words(411, "send the body with a Content-Length, or chunked");
    (!says_something).then(refused)
}
