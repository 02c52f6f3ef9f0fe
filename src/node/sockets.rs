//! The listening sockets, bound before any thread starts, so that a port in use is said at once and in words.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use crate::api::{EdgeSockets, listeners};
use crate::config::Config;
use crate::ring;

use super::NodeError;

/// How long a port that is taken is tried again.
///
/// The kernel takes the io_uring of a killed process down after the process is gone, when its last flush has ended, and
/// the ring holds the sockets registered with it until then.
const TAKEN_PORT_PATIENCE: Duration = Duration::from_secs(3);

/// Time between two tries.
const TAKEN_PORT_PAUSE: Duration = Duration::from_millis(20);

/// All listeners of a node.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) edges: Vec<EdgeSockets>,
    /// `None` on a node that is alone: nobody replicates from it.
    pub(super) int_tcp: Option<OwnedFd>,
    /// `None` only on a node that is alone, when its address cannot be listened on.
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
            return Ok(Sockets { edges, int_tcp: None, int_http: administration(config) });
        }
        let int_tcp = patiently(config.int_tcp(), || ring::listen(config.int_tcp()), |error| error)
            .map_err(failed("IntIp and IntTcpPort", config.int_tcp()))?;
        let bound = ring::local_address(&int_tcp).map_err(failed("IntIp and IntTcpPort", config.int_tcp()))?;
        config.int_tcp_port = bound.port();
        let int_http = internal_http(config).map_err(failed("IntIp and IntHttpPort", config.int_http()))?;
        Ok(Sockets { edges, int_tcp: Some(int_tcp), int_http: Some(int_http) })
    }
}

/// Tries again for [`TAKEN_PORT_PATIENCE`] when `address` is in use; any other error is returned at once.
fn patiently<T, E>(
    address: SocketAddr,
    mut bind: impl FnMut() -> Result<T, E>,
    cause: impl Fn(&E) -> &io::Error,
) -> Result<T, E> {
    let mut first_try = None;
    loop {
        let error = match bind() {
            Err(error) if cause(&error).kind() == io::ErrorKind::AddrInUse => error,
            ended => return ended,
        };
        let begun = *first_try.get_or_insert_with(|| {
            tracing::info!(
                "{address} is in use; trying for {TAKEN_PORT_PATIENCE:?}, for a process that was killed gives its ports back \
                 a little later"
            );
            Instant::now()
        });
        if begun.elapsed() >= TAKEN_PORT_PATIENCE {
            return Err(error);
        }
        sleep(TAKEN_PORT_PAUSE);
    }
}

fn internal_http(config: &mut Config) -> io::Result<TcpListener> {
    let listener = patiently(config.int_http(), || TcpListener::bind(config.int_http()), |error| error)?;
    config.int_http_port = listener.local_addr()?.port();
    Ok(listener)
}

/// Internal HTTP of a node that is alone. Only its operator needs it, so that several such nodes may share a host without
/// an option more than in v5, where a single node opens no internal port.
fn administration(config: &mut Config) -> Option<TcpListener> {
    let address = config.int_http();
    let failed = |error: io::Error| {
        tracing::warn!(
            "{address} cannot be listened on: {error}; the node serves its clients, but `ringstore admin` and `ringstore \
             backup` cannot reach it: set IntHttpPort (or IntIp) to a free one if you need them"
        );
    };
    internal_http(config).map_err(failed).ok()
}

fn external(
    address: SocketAddr,
    count: usize,
    option: &'static str,
    port: &mut u16,
) -> Result<Vec<TcpListener>, NodeError> {
    let sockets = patiently(address, || listeners(address, count), |error| &error.source)
        .map_err(|error| NodeError::Listen { option, message: error.to_string() })?;
    let bound = sockets.first().map(TcpListener::local_addr).transpose().map_err(failed(option, address))?;
    *port = bound.map_or(*port, |bound| bound.port());
    Ok(sockets)
}

fn failed(option: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> NodeError {
    move |error| NodeError::Listen {
        option,
        message: format!(
            "{address} cannot be listened on: {error}; is another process on it, and is the address this host's?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_goes_on_without_its_internal_http_and_a_member_does_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let options = |cluster_size| Config {
            cluster_size,
            ext_tcp_port: 0,
            ext_http_port: 0,
            int_tcp_port: 0,
            int_http_port: port,
            ..Config::default()
        };
        let sockets = Sockets::bind(&mut options(1)).unwrap();
        assert!(sockets.int_http.is_none() && sockets.int_tcp.is_none() && !sockets.edges.is_empty());
        let error = Sockets::bind(&mut options(3)).unwrap_err();
        assert!(error.to_string().starts_with("IntIp and IntHttpPort: 127.0.0.1:"), "{error}");

        drop(taken);
        let mut config = Config { int_http_port: 0, ..options(1) };
        let sockets = Sockets::bind(&mut config).unwrap();
        assert!(sockets.int_tcp.is_none());
        assert_eq!(sockets.int_http.unwrap().local_addr().unwrap(), config.int_http());
        assert_ne!(config.int_http_port, 0);
    }

    #[test]
    fn a_port_that_a_killed_process_still_holds_is_waited_for() {
        let held: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |at: usize| held[at].local_addr().unwrap().port();
        let mut config = Config {
            cluster_size: 3,
            ext_tcp_port: port(0),
            int_tcp_port: port(1),
            int_http_port: port(2),
            ext_http_port: 0,
            ..Config::default()
        };
        let kernel = std::thread::spawn(|| {
            sleep(10 * TAKEN_PORT_PAUSE);
            drop(held);
        });
        Sockets::bind(&mut config).unwrap();
        kernel.join().unwrap();
    }
}
