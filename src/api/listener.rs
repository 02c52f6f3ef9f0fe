//! Listening sockets, one for each edge thread and port.
//!
//! They are bound before the edges start, so that a port in use is an error of the start-up. Every edge has its own
//! socket on the same address (`SO_REUSEPORT`) and the kernel spreads new connections over them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::limits::EDGE_BACKLOG;
use crate::ring::{bind_device, keep_alive};

/// A port cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; stop what uses the port, or choose another one or another address")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The system's words.
    #[source]
    pub source: io::Error,
}

/// Makes `count` listening sockets on `address`, which with a device take connections that arrive there only. With port 0
/// the system chooses the port once, for all of them.
///
/// # Errors
/// When the address is in use, is not of this machine, or needs rights that the process lacks.
pub fn listeners(address: SocketAddr, count: usize, device: Option<&str>) -> Result<Vec<TcpListener>, ListenError> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    refuse_if_taken(address, device)?;
    for _ in 0..count {
        let listener = listen(address, device).map_err(|source| ListenError { address, source })?;
        address = listener.local_addr().map_err(|source| ListenError { address, source })?;
        sockets.push(listener);
    }
    Ok(sockets)
}

/// Binds the address once for itself alone: `SO_REUSEPORT` would let a second server of the same user in.
fn refuse_if_taken(address: SocketAddr, device: Option<&str>) -> Result<(), ListenError> {
    if address.port() == 0 {
        return Ok(());
    }
    let probe = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        bind_device(&socket, device)?;
        socket.bind(&SockAddr::from(address))
    };
    probe().map_err(|source| ListenError { address, source })
}

fn listen(address: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    bind_device(&socket, device)?;
    // Every connection that it accepts inherits this.
    keep_alive(&socket)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(i32::from(EDGE_BACKLOG))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_vanished_is_noticed() {
        let listener = listeners("127.0.0.1:0".parse().unwrap(), 1, None).unwrap().remove(0);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let shown = socket2::SockRef::from(&accepted);
        assert!(shown.keepalive().unwrap());
        assert_eq!(shown.tcp_keepalive_time().unwrap().as_secs(), 60);
    }

    #[test]
    fn several_sockets_share_the_port_but_a_second_server_is_refused() {
        let first = listeners("127.0.0.1:0".parse().unwrap(), 3, None).unwrap();
        let address = first[0].local_addr().unwrap();
        assert!(first.iter().all(|listener| listener.local_addr().unwrap() == address));
        let error = listeners(address, 1, None).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("choose another"), "{error}");
        let error = listeners("127.0.0.1:0".parse().unwrap(), 1, Some("no-such-dev0")).unwrap_err().to_string();
        assert!(error.contains("there is no network device no-such-dev0"), "{error}");
    }
}
