//! Taking connections in.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use monoio::net::{TcpListener, TcpStream};

use crate::api::counters::{add, subtract};
use crate::api::edge::EdgeState;
use crate::api::http;
use crate::api::session::{self, Origin};
use crate::limits::{EDGE_CONNECTIONS_MAX, EDGE_HTTP_CONNECTIONS_MAX};

/// Pause after a failed accept: mostly there are no file descriptors left, and trying at once would only spin.
const BACKOFF: Duration = Duration::from_millis(100);

/// Accepts until the edge stops, and hands each connection to `take`.
async fn accept_all(edge: &Rc<EdgeState>, listener: &TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) {
    while let Some(handle) = edge.accept_handle() {
        // The accept is awaited also when it was cancelled: one that is dropped could leak a socket.
        match listener.cancelable_accept(handle).await {
            Ok((stream, peer)) => take(stream, peer),
            Err(_) if edge.stopping.get() => return,
            Err(error) => back_off(edge, listener, &error).await,
        }
    }
}

async fn back_off(edge: &EdgeState, listener: &TcpListener, error: &io::Error) {
    add(&edge.links.counters.accept_errors, 1);
    let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    tracing::warn!(
        address,
        %error,
        "a connection could not be accepted; trying again in {} ms. If file descriptors ran out, raise the limit \
         (ulimit -n, LimitNOFILE)",
        BACKOFF.as_millis()
    );
    monoio::time::sleep(BACKOFF).await;
}

/// Accepts clients on the external TCP port.
pub(super) async fn accept_clients(edge: Rc<EdgeState>, listener: TcpListener) {
    accept_all(&edge, &listener, |stream, peer| {
        add(&edge.links.counters.tcp_connections, 1);
        if edge.sessions.borrow().len() >= EDGE_CONNECTIONS_MAX {
            tracing::warn!(%peer, limit = EDGE_CONNECTIONS_MAX, "too many connections on this edge; closed at once");
            return;
        }
        monoio::spawn(session::serve(Rc::clone(&edge), stream.into(), Origin::Client));
    })
    .await;
}

/// Accepts on the external HTTP port.
pub(super) async fn accept_http(edge: Rc<EdgeState>, listener: TcpListener) {
    accept_all(&edge, &listener, |stream, peer| {
        if edge.http_connections.get() >= EDGE_HTTP_CONNECTIONS_MAX {
            tracing::warn!(%peer, limit = EDGE_HTTP_CONNECTIONS_MAX, "too many HTTP connections on this edge");
            return;
        }
        let edge = Rc::clone(&edge);
        monoio::spawn(async move {
            let counters = std::sync::Arc::clone(&edge.links.counters);
            edge.http_connections.set(edge.http_connections.get() + 1);
            add(&counters.http_connections, 1);
            add(&counters.http_connections_now, 1);
            http::serve(Rc::clone(&edge), stream, peer).await;
            edge.http_connections.set(edge.http_connections.get() - 1);
            subtract(&counters.http_connections_now, 1);
        });
    })
    .await;
}
