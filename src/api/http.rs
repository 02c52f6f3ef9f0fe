//! HTTP on the external port. The routes come from outside: the node hands in a function that answers a request from
//! what other threads publish, so an edge never waits for it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::io::AsyncWriteRent;
use monoio::time::timeout;

use crate::api::counters::add;
use crate::api::edge::EdgeState;
use crate::http::{Limits, Request, Response, SecureStream, read_request, write_response};

/// Answers a request of the external HTTP port, of a client at this address. Must not block: it runs on an edge thread.
pub type HttpRoutes = Arc<dyn Fn(&Request, IpAddr) -> Response + Send + Sync>;

/// Silence, or slowness with one request or answer, that ends a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the goodbye of TLS may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Nothing on this port takes a body yet; one is read over so that the connection can go on.
const LIMITS: Limits = Limits { head_bytes_max: 16 << 10, headers_max: 64, body_bytes_max: 64 << 10 };

/// Serves one connection until it ends.
pub(super) async fn serve(edge: Rc<EdgeState>, mut stream: SecureStream, peer: SocketAddr) {
    answer_all(&edge, &mut stream, peer).await;
    if stream.is_tls() {
        // Without a goodbye the client could not know that nothing is missing.
        let _ = timeout(GOODBYE_TIMEOUT, stream.shutdown()).await;
    }
}

async fn answer_all(edge: &EdgeState, stream: &mut SecureStream, peer: SocketAddr) {
    let mut buffer = Vec::new();
    while !edge.stopping.get() {
        // Whoever is too slow loses the connection, so nothing is lost with the dropped read.
        let Ok(read) = timeout(IDLE_TIMEOUT, read_request(stream, &mut buffer, &LIMITS)).await else {
            return;
        };
        let (response, method, keep_alive) = match read {
            Ok(Some(request)) => {
                add(&edge.links.counters.requests, 1);
                ((edge.links.routes)(&request, peer.ip()), request.method, request.keep_alive)
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%peer, %error, "an HTTP request could not be read");
                let Some(status) = error.status() else { return };
                (Response::words(status, error.to_string()), crate::http::Method::Get, false)
            }
        };
        let keep_alive = keep_alive && !edge.stopping.get();
        let written = timeout(IDLE_TIMEOUT, write_response(stream, &response, method, keep_alive)).await;
        if !keep_alive || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}
