//! Taking connections in.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::net::{TcpListener, TcpStream};

use crate::api::counters::{add, subtract};
use crate::api::edge::EdgeState;
use crate::api::http;
use crate::api::secure::{self, Port};
use crate::api::session::{self, Origin};
use crate::limits::{EDGE_CONNECTIONS_MAX, EDGE_HANDSHAKES_MAX, EDGE_HTTP_CONNECTIONS_MAX};

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

/// Accepts clients on the external TCP port with TLS. A connection counts from the beginning of its handshake.
pub(super) async fn accept_secure_clients(edge: Rc<EdgeState>, listener: TcpListener) {
    accept_all(&edge, &listener, |stream, peer| {
        add(&edge.links.counters.tcp_connections, 1);
        let greeting = edge.greeting.get();
        if greeting >= EDGE_HANDSHAKES_MAX || edge.sessions.borrow().len() + greeting >= EDGE_CONNECTIONS_MAX {
            refuse(&edge, peer, Port::Tcp);
            return;
        }
        edge.greeting.set(greeting + 1);
        let edge = Rc::clone(&edge);
        monoio::spawn(async move {
            let greeted = secure::greet(&edge, stream, peer, Port::Tcp).await;
            edge.greeting.set(edge.greeting.get() - 1);
            let Some(stream) = greeted.filter(|_| !edge.stopping.get()) else { return };
            let counters = Arc::clone(&edge.links.counters);
            add(&counters.tls_connections_now, 1);
            session::serve(edge, stream, Origin::Client).await;
            subtract(&counters.tls_connections_now, 1);
        });
    })
    .await;
}

fn refuse(edge: &EdgeState, peer: SocketAddr, port: Port) {
    if let Some(unsaid) = edge.refusals.may_say(Instant::now()) {
        let (port, handshakes) = (port.option(), edge.greeting.get());
        tracing::warn!(%peer, port, handshakes, unsaid, "too many connections on this edge; closed at once");
    }
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
            let counted = HttpConnection::count(&edge);
            http::serve(Rc::clone(&edge), stream.into(), peer).await;
            drop(counted);
        });
    })
    .await;
}

/// Accepts on the external HTTPS port. A connection counts from the beginning of its handshake.
pub(super) async fn accept_https(edge: Rc<EdgeState>, listener: TcpListener) {
    accept_all(&edge, &listener, |stream, peer| {
        if edge.http_connections.get() >= EDGE_HTTP_CONNECTIONS_MAX {
            refuse(&edge, peer, Port::Http);
            return;
        }
        let edge = Rc::clone(&edge);
        monoio::spawn(async move {
            let counted = HttpConnection::count(&edge);
            let Some(stream) = secure::greet(&edge, stream, peer, Port::Http).await else { return };
            let counters = Arc::clone(&edge.links.counters);
            add(&counters.tls_connections_now, 1);
            http::serve(edge, stream, peer).await;
            subtract(&counters.tls_connections_now, 1);
            drop(counted);
        });
    })
    .await;
}

/// One of the HTTP connections, as long as it lasts.
struct HttpConnection(Rc<EdgeState>);

impl HttpConnection {
    fn count(edge: &Rc<EdgeState>) -> HttpConnection {
        edge.http_connections.set(edge.http_connections.get() + 1);
        add(&edge.links.counters.http_connections, 1);
        add(&edge.links.counters.http_connections_now, 1);
        HttpConnection(Rc::clone(edge))
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.0.http_connections.set(self.0.http_connections.get() - 1);
        subtract(&self.0.links.counters.http_connections_now, 1);
    }
}
