//! The listening sockets, bound before any thread starts, so that a port in use is said at once and in words.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::thread::available_parallelism;

use crate::api::{EdgeSockets, listeners};
use crate::config::Config;
use crate::ring;

use super::NodeError;

/// All listeners of a node.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) edges: Vec<EdgeSockets>,
    /// `None` on a node that is alone: as in v5 it opens no internal ports.
    pub(super) int_tcp: Option<OwnedFd>,
    pub(super) int_http: Option<TcpListener>,
}

impl Sockets {
    /// Binds everything. Ports that the system chose (port 0) are written back to `config`.
    pub(super) fn bind(config: &mut Config) -> Result<Sockets, NodeError> {
        let one = std::num::NonZeroUsize::MIN;
        let count = config.edge_thread_count(available_parallelism().unwrap_or(one));
        let tcp = external(config.ext_tcp(), count, "ExtIp and ExtTcpPort", &mut config.ext_tcp_port)?;
        let http = external(config.ext_http(), count, "ExtIp and ExtHttpPort", &mut config.ext_http_port)?;
        let edges = tcp.into_iter().zip(http).map(|(tcp, http)| EdgeSockets { tcp: vec![tcp], http: vec![http] });
        let edges = edges.collect();
        if !config.is_cluster() {
            return Ok(Sockets { edges, int_tcp: None, int_http: None });
        }
        let int_tcp = ring::listen(config.int_tcp()).map_err(failed("IntIp and IntTcpPort", config.int_tcp()))?;
        let bound = ring::local_address(&int_tcp).map_err(failed("IntIp and IntTcpPort", config.int_tcp()))?;
        config.int_tcp_port = bound.port();
        let int_http =
            TcpListener::bind(config.int_http()).map_err(failed("IntIp and IntHttpPort", config.int_http()))?;
        let bound = int_http.local_addr().map_err(failed("IntIp and IntHttpPort", config.int_http()))?;
        config.int_http_port = bound.port();
        Ok(Sockets { edges, int_tcp: Some(int_tcp), int_http: Some(int_http) })
    }
}

fn external(
    address: SocketAddr,
    count: usize,
    option: &'static str,
    port: &mut u16,
) -> Result<Vec<TcpListener>, NodeError> {
    let sockets =
        listeners(address, count).map_err(|error| NodeError::Listen { option, message: error.to_string() })?;
    let bound = sockets.first().map(TcpListener::local_addr).transpose().map_err(failed(option, address))?;
    *port = bound.map_or(*port, |bound| bound.port());
    Ok(sockets)
}

fn failed(option: &'static str, address: SocketAddr) -> impl Fn(std::io::Error) -> NodeError {
    move |error| NodeError::Listen {
        option,
        message: format!(
            "{address} cannot be listened on: {error}; is another process on it, and is the address this host's?"
        ),
    }
}
