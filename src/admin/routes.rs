//! The answers that the internal and the external side give alike: `/ping`, `/info`, `/stats`, `/gossip`,
//! `/health/live`. Plain functions of a [`NodeStatus`], for any thread.

use std::net::IpAddr;

use serde_json::json;

use super::figures;
use super::status::{NodeStatus, member_state};
use crate::http::{Method, Request, Response};

/// The version that clients are told: that of the server whose protocols this one speaks.
const EVENT_STORE_VERSION: &str = "5.0.11.0";

const JSON: &str = "application/json; charset=utf-8";

/// What v5 sends with each answer, so that browsers of other origins may use it.
const ALLOW_HEADERS: &str = "Content-Type, X-Requested-With, X-Forwarded-Host, X-Forwarded-Prefix, X-PINGOTHER, \
     Authorization, ES-LongPoll, ES-ExpectedVersion, ES-EventId, ES-EventType, ES-RequiresMaster, ES-HardDelete, \
     ES-ResolveLinkTos";

/// A path that has an answer, and how it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) methods: &'static [Method],
}

const GET: &[Method] = &[Method::Get, Method::Head];

const SHARED: [Route; 5] = [
    Route { path: "/ping", methods: GET },
    Route { path: "/info", methods: GET },
    Route { path: "/stats", methods: GET },
    Route { path: "/gossip", methods: GET },
    Route { path: "/health/live", methods: GET },
];

/// What the external side serves of what need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnExt {
    /// `/admin` and `/web`: `AdminOnExt`.
    pub admin: bool,
    /// `/stats`: `StatsOnExt`.
    pub stats: bool,
    /// `GET /gossip`: `GossipOnExt`.
    pub gossip: bool,
}

impl OnExt {
    /// The option that takes this path away from the external side, if one does.
    fn taken_by(self, path: &str) -> Option<&'static str> {
        let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match () {
            () if !self.stats && below("/stats") => Some("StatsOnExt"),
            () if !self.gossip && below("/gossip") => Some("GossipOnExt"),
            () if !self.admin && (below("/admin") || below("/web")) => Some("AdminOnExt"),
            () => None,
        }
    }
}

/// The answer of the external side to a client at this address; 404 and 405 included.
#[must_use]
pub fn external(status: &NodeStatus, on_ext: OnExt, request: &Request, client: IpAddr) -> Response {
    if let Some(option) = on_ext.taken_by(&request.path) {
        let path = shortened(&request.path);
        return finish(Response::words(404, format!("{path} is not served on this port: {option} is false")), &[]);
    }
    match dispatch(&SHARED, request) {
        Ok(route) if route.path == "/gossip" => finish(gossip(status, request, Some(client)), route.methods),
        Ok(route) => finish(shared(status, request), route.methods),
        Err(response) => response,
    }
}

/// The answer to a request for one of the shared paths.
pub(super) fn shared(status: &NodeStatus, request: &Request) -> Response {
    match request.path.as_str() {
        "/ping" => ping(request),
        "/info" => info(status),
        "/stats" => stats(status, request),
        "/gossip" => gossip(status, request, None),
        "/health/live" => Response::new(204),
        path => Response::words(404, format!("there is nothing at {path}")),
    }
}

/// Finds the route of a request. The error is the whole answer: 404, 405, or that to OPTIONS.
pub(super) fn dispatch<'a>(routes: &'a [Route], request: &Request) -> Result<&'a Route, Response> {
    let Some(route) = routes.iter().find(|route| route.path == request.path) else {
        let words = format!("there is nothing at {}", shortened(&request.path));
        return Err(finish(Response::words(404, words), &[]));
    };
    if route.methods.contains(&request.method) {
        return Ok(route);
    }
    let response = if request.method == Method::Options {
        Response::new(200)
    } else {
        let words = format!("{} takes {}, not {}", route.path, names(route.methods), request.method.name());
        Response::words(405, words).header("Allow", names(route.methods))
    };
    Err(finish(response, route.methods))
}

/// Adds the headers that every answer has.
pub(super) fn finish(response: Response, methods: &[Method]) -> Response {
    let methods = if methods.is_empty() { String::new() } else { names(methods) };
    response
        .header("Access-Control-Allow-Methods", methods)
        .header("Access-Control-Allow-Headers", ALLOW_HEADERS)
        .header("Access-Control-Allow-Origin", "*")
        .header("Access-Control-Expose-Headers", "Location, ES-Position, ES-CurrentVersion")
        .header("Date", super::status::wall_now().http_date())
}

/// The methods as v5 lists them.
fn names(methods: &[Method]) -> String {
    // HEAD is answered, but v5 does not list it, and no client looks for it.
    let listed = methods.iter().filter(|method| **method != Method::Head).chain([&Method::Options]);
    listed.map(|method| method.name()).collect::<Vec<_>>().join(", ")
}

fn ping(request: &Request) -> Response {
    const TEXT: &str = "Ping request successfully handled";
    let accept = request.headers.get("accept").unwrap_or_default();
    if accept.starts_with("text/plain") || request.query_value("format") == Some("text") {
        return Response::with_body(200, "text/plain; charset=utf-8", format!("Text: {TEXT}"));
    }
    json_answer(&json!({ "text": TEXT }))
}

fn info(status: &NodeStatus) -> Response {
    let state = member_state(status.published.view().role).wire_name().to_lowercase();
    json_answer(&json!({
        "esVersion": EVENT_STORE_VERSION,
        "state": state,
        "projectionsMode": "None",
        "ringstoreVersion": env!("CARGO_PKG_VERSION"),
    }))
}

fn stats(status: &NodeStatus, request: &Request) -> Response {
    let histograms = request.query_value("histograms") == Some("true");
    json_answer(&figures::stats(status, histograms))
        .header("Cache-Control", "max-age=1, public")
        .header("Vary", "Accept")
}

/// The document; for a client with the addresses that its network is told.
fn gossip(status: &NodeStatus, request: &Request, client: Option<IpAddr>) -> Response {
    if request.query_value("format").is_some_and(|format| format != "json") {
        return Response::words(406, "Requested URI is not available in requested format");
    }
    let document = status.directory.document();
    let document = client.map_or_else(|| document.json(), |client| document.for_client(client));
    // The control thread fills it before it takes connections; an edge may be a moment earlier.
    if document.is_empty() {
        return Response::words(503, "Server Is Not Ready");
    }
    Response::with_body(200, JSON, document.as_bytes().to_vec())
        .header("Cache-Control", "max-age=0, no-cache, must-revalidate")
        .header("Vary", "Accept")
}

pub(super) fn json_answer(value: &serde_json::Value) -> Response {
    Response::with_body(200, JSON, serde_json::to_vec_pretty(value).expect("a JSON value has a text form"))
}

/// The beginning of a text that came from outside, for a message.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::gossip::{Directory, PeerRoute};
    use crate::index::IndexFigures as Figures;
    use crate::types::{LogPosition, NodeId, WallTime};

    struct NoIndex;

    impl super::super::IndexFigures for NoIndex {
        fn applied(&self) -> LogPosition {
            LogPosition::ZERO
        }

        fn last_event_position(&self) -> Option<LogPosition> {
            None
        }

        fn figures(&self) -> Figures {
            Figures::default()
        }

        fn is_complete(&self) -> bool {
            true
        }
    }

    fn status() -> NodeStatus {
        let directory = Directory::default();
        directory.replace(Vec::new(), "{}".into());
        NodeStatus {
            node: NodeId::default(),
            published: Arc::default(),
            clients: Arc::default(),
            index: Arc::new(NoIndex),
            storage: Arc::default(),
            directory,
            routes: crate::gossip::PeerRoutes::default(),
            locks: super::super::Locks::default(),
            started: WallTime::default(),
            started_at: Instant::now(),
        }
    }

    fn get(path: &str) -> Request {
        Request {
            method: Method::Get,
            path: path.to_owned(),
            query: None,
            headers: crate::http::Headers::default(),
            body: bytes::Bytes::new(),
            keep_alive: true,
        }
    }

    const ALL: OnExt = OnExt { admin: true, stats: true, gossip: true };
    const NONE: OnExt = OnExt { admin: false, stats: false, gossip: false };

    #[test]
    fn the_external_side_serves_what_the_options_leave_it() {
        let status = status();
        let check = |on_ext: OnExt, path: &str, expected: u16, words: &str| {
            let response = external(&status, on_ext, &get(path), "10.1.0.9".parse().unwrap());
            assert_eq!(response.status, expected, "{path}");
            let body = String::from_utf8_lossy(&response.body).into_owned();
            assert!(body.contains(words), "{path}: {body}");
        };
        check(ALL, "/stats", 200, "planes");
        check(ALL, "/gossip", 200, "{}");
        check(ALL, "/admin/resign", 404, "there is nothing at /admin/resign");
        check(NONE, "/stats", 404, "/stats is not served on this port: StatsOnExt is false");
        check(NONE, "/gossip", 404, "/gossip is not served on this port: GossipOnExt is false");
        for path in ["/admin", "/admin/members/add", "/web", "/web/index.html"] {
            check(NONE, path, 404, "is not served on this port: AdminOnExt is false");
        }
        check(NONE, "/administration", 404, "there is nothing at /administration");
        check(OnExt { stats: false, ..ALL }, "/gossip", 200, "{}");
        for path in ["/ping", "/info"] {
            check(NONE, path, 200, "");
        }
        // What the nodes ask each other is never here.
        for on_ext in [ALL, NONE] {
            check(on_ext, "/elections/vote", 404, "there is nothing at");
            let post = Request { method: Method::Post, ..get("/gossip") };
            let response = external(&status, on_ext, &post, "10.1.0.9".parse().unwrap());
            assert!(matches!(response.status, 404 | 405), "{}", response.status);
        }
    }

    #[test]
    fn stats_show_the_peers_on_the_wrong_device() {
        let status = status();
        let peer = |text: &str, device: &str, is_wrong| PeerRoute {
            peer: text.parse().unwrap(),
            device: Some(device.to_owned()),
            is_wrong,
        };
        let peers = vec![peer("10.0.0.2:2112", "eth0", true), peer("10.0.0.3:2112", "eth1", false)];
        status.routes.replace(Some("eth1".to_owned()), peers);
        let planes = &figures::stats(&status, false)["planes"];
        assert_eq!(planes["internalDevice"], "eth1");
        assert_eq!(planes["peersOnWrongDevice"], 1);
        assert_eq!(planes["peers"][0], json!({ "peer": "10.0.0.2:2112", "device": "eth0", "isWrong": true }));
    }
}
