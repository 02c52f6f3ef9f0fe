//! The listening sockets, bound before any thread starts, so that a port in use is said before anything else, and in words.

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
        check_device("IntDevice", config.int_device.as_deref())?;
        check_device("ExtDevice", config.ext_device.as_deref())?;
        let one = std::num::NonZeroUsize::MIN;
        let count = config.edge_thread_count(available_parallelism().unwrap_or(one));
        let edges = for_clients(config, count)?;
        if !config.is_cluster() {
            return Ok(Sockets { edges, int_tcp: None, int_http: administration(config) });
        }
        let device = config.int_device.as_deref();
        let int_tcp = patiently(config.int_tcp(), || ring::listen(config.int_tcp(), device), |error| error)
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

/// What is wrong with a device is said under the name of its option, before any port is.
fn check_device(option: &'static str, device: Option<&str>) -> Result<(), NodeError> {
    let failed = |error: io::Error| NodeError::Listen { option, message: error.to_string() };
    device.map_or(Ok(()), |device| ring::check_device(device).map_err(failed))
}

fn internal_http(config: &mut Config) -> io::Result<TcpListener> {
    // Without a device as ever: one on :: takes IPv4, too, where the system says so.
    let bind = || match config.int_device.as_deref() {
        Some(device) => ring::listen(config.int_http(), Some(device)).map(TcpListener::from),
        None => TcpListener::bind(config.int_http()),
    };
    let listener = patiently(config.int_http(), bind, |error| error)?;
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

/// What `count` edges listen on, one socket of each port for each.
fn for_clients(config: &mut Config, count: usize) -> Result<Vec<EdgeSockets>, NodeError> {
    let device = config.ext_device.clone();
    let bind = |address: Option<SocketAddr>, option| match address {
        Some(address) => external(address, count, device.as_deref(), option),
        None => Ok(Vec::new()),
    };
    let plain = Some(config.ext_tcp()).filter(|_| !config.security.is_plain_tcp_off);
    let mut tcp = bind(plain, "ExtIp and ExtTcpPort")?;
    let mut http = bind(Some(config.ext_http()), "ExtIp and ExtHttpPort")?;
    let mut secure_tcp = bind(config.ext_secure_tcp(), "ExtIp and ExtSecureTcpPort")?;
    let mut secure_http = bind(config.ext_secure_http(), "ExtIp and ExtSecureHttpPort")?;
    // Only these two may be of the system's choice: 0 for the others means that there are none.
    config.ext_tcp_port = bound_port(&tcp, config.ext_tcp(), "ExtIp and ExtTcpPort")?;
    config.ext_http_port = bound_port(&http, config.ext_http(), "ExtIp and ExtHttpPort")?;
    let one = |sockets: &mut Vec<TcpListener>| sockets.pop().into_iter().collect();
    let edge = |_| EdgeSockets {
        tcp: one(&mut tcp),
        http: one(&mut http),
        secure_tcp: one(&mut secure_tcp),
        secure_http: one(&mut secure_http),
    };
    Ok((0..count).map(edge).collect())
}

fn external(
    address: SocketAddr,
    count: usize,
    device: Option<&str>,
    option: &'static str,
) -> Result<Vec<TcpListener>, NodeError> {
    patiently(address, || listeners(address, count, device), |error| &error.source)
        .map_err(|error| NodeError::Listen { option, message: error.to_string() })
}

/// The port that the system has chosen, where it had to; that of `address` where there are no sockets.
fn bound_port(sockets: &[TcpListener], address: SocketAddr, option: &'static str) -> Result<u16, NodeError> {
    let bound = sockets.first().map(TcpListener::local_addr).transpose().map_err(failed(option, address))?;
    Ok(bound.unwrap_or(address).port())
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
    use crate::config::Security;

    #[test]
    fn a_device_that_is_not_there_is_said_under_its_option() {
        for (option, int_device, ext_device) in
            [("IntDevice", Some("no-such-dev0"), None), ("ExtDevice", None, Some("no-such-dev0"))]
        {
            let (int_device, ext_device) = (int_device.map(str::to_owned), ext_device.map(str::to_owned));
            let mut config = Config { ext_tcp_port: 0, ext_http_port: 0, int_device, ext_device, ..Config::default() };
            let error = Sockets::bind(&mut config).unwrap_err();
            let expected = format!("{option}: there is no network device no-such-dev0 here; `ip link` lists those");
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert_eq!(error.exit_status(), 5);
        }
    }

    /// All listeners of both planes are bound to their devices, where this machine permits that at all.
    #[test]
    fn listeners_are_bound_to_the_devices() {
        if ring::check_device("lo").is_err() {
            return;
        }
        let mut config = Config {
            cluster_size: 3,
            ext_tcp_port: 0,
            ext_http_port: 0,
            int_tcp_port: 0,
            int_http_port: 0,
            int_device: Some("lo".to_owned()),
            ext_device: Some("lo".to_owned()),
            ..Config::default()
        };
        let sockets = Sockets::bind(&mut config).unwrap();
        let bound = |socket: socket2::SockRef<'_>| assert_eq!(socket.device().unwrap().unwrap(), b"lo");
        bound((&sockets.int_tcp.unwrap()).into());
        bound((&sockets.int_http.unwrap()).into());
        bound((&sockets.edges[0].tcp[0]).into());
        bound((&sockets.edges[0].http[0]).into());
    }

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
    fn ports_with_tls_are_opened_where_they_are_asked_for_and_the_plain_one_can_be_left_out() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bind = |ext_tcp_port, ext_http_port, is_plain_tcp_off| {
            let security = Security { ext_tcp_port, ext_http_port, is_plain_tcp_off, ..Security::default() };
            let (edge_threads, int_http_port) = (2, 0);
            let mut config = Config {
                security,
                edge_threads,
                ext_tcp_port: 0,
                ext_http_port: 0,
                int_http_port,
                ..Config::default()
            };
            Sockets::bind(&mut config).map(|sockets| (sockets, config))
        };
        let counts = |sockets: &Sockets| {
            let counts = |edge: &EdgeSockets| {
                [&edge.tcp, &edge.http, &edge.secure_tcp, &edge.secure_http].map(|sockets| sockets.len())
            };
            sockets.edges.iter().map(counts).collect::<Vec<_>>()
        };
        assert_eq!(counts(&bind(None, None, false).unwrap().0), [[1, 1, 0, 0]; 2]);
        assert_eq!(counts(&bind(None, Some(port), false).unwrap().0), [[1, 1, 0, 1]; 2]);
        let (sockets, config) = bind(Some(port), None, true).unwrap();
        assert_eq!(counts(&sockets), [[0, 1, 1, 0]; 2]);
        for edge in &sockets.edges {
            assert_eq!(edge.secure_tcp[0].local_addr().unwrap(), config.ext_secure_tcp().unwrap());
            assert_eq!(edge.http[0].local_addr().unwrap(), config.ext_http());
        }
        assert_eq!((config.ext_tcp_port, config.advertised().ext_tcp.port()), (0, 0));
        let error = bind(Some(port), None, false).unwrap_err().to_string();
        assert!(error.starts_with("ExtIp and ExtSecureTcpPort: cannot listen on 127.0.0.1:"), "{error}");
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
