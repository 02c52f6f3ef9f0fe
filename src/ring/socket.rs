//! Sockets and threads as the ring wants them: made and configured here, driven by the ring afterwards.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger, set_tcp_nodelay, set_tcp_user_timeout};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::driver::Driver;
use super::error::Failure;

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: i32 = 128;

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    // Blocking, see `Driver::attach`.
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

/// A socket that listens.
///
/// # Errors
/// Those of `socket`, `bind` and `listen`.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    // A restarted node must not wait for its old connections' last packets.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// A socket to connect to `remote` with, from the local address `from` (so that the traffic takes its interface).
///
/// # Errors
/// Those of `socket` and `bind`.
pub fn outgoing(remote: SocketAddr, from: Option<IpAddr>) -> io::Result<OwnedFd> {
    let socket = tcp_socket(remote)?;
    if let Some(from) = from.filter(|from| !from.is_unspecified() && from.is_ipv4() == remote.is_ipv4()) {
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
    }
    Ok(socket.into())
}

/// Makes a connected socket fit for a link: no waiting for larger packets, and an end to what a dead peer holds:
/// unacknowledged bytes are given up after `patience`.
///
/// # Errors
/// Those of `setsockopt`.
pub fn prepare_link(socket: impl AsFd, patience: Duration) -> io::Result<()> {
    let socket = socket.as_fd();
    set_tcp_nodelay(socket, true)?;
    set_socket_keepalive(socket, true)?;
    set_tcp_user_timeout(socket, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Makes the end of a socket abrupt: what is not sent by then is dropped, so the kernel holds none of its memory longer.
///
/// # Errors
/// Those of `setsockopt`.
pub fn abort_on_close(socket: impl AsFd) -> io::Result<()> {
    Ok(set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// The address that a socket listens on or is connected from.
///
/// # Errors
/// Those of `getsockname`.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket)?).map_err(io::Error::from)
}

/// The address of the peer.
///
/// # Errors
/// Those of `getpeername`; an error too when the peer is gone.
pub fn peer_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getpeername(socket)?.ok_or(io::ErrorKind::NotConnected)?;
    SocketAddr::try_from(address).map_err(io::Error::from)
}

/// Lets the calling thread run on these CPUs only.
///
/// # Errors
/// Those of `sched_setaffinity`: no such CPU, or not ours.
pub fn pin_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            let message = format!("CPU {cpu} is beyond the highest possible number {}", CpuSet::MAX_CPU - 1);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

impl Driver {
    /// Lets the kernel have at most `count` worker threads of each kind for this ring (fsync runs on one), on these CPUs
    /// if any are given: they are not pinned with the thread.
    ///
    /// # Errors
    /// When the kernel refuses; the ring works without it.
    pub fn limit_workers(&mut self, count: u32, cpus: &[usize]) -> Result<(), Failure> {
        let submitter = self.ring.submitter();
        submitter.register_iowq_max_workers(&mut [count, count]).map_err(|error| Failure::from_io(&error))?;
        if cpus.is_empty() {
            return Ok(());
        }
        // SAFETY: a set of bits: all zero is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        for &cpu in cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU) {
            // SAFETY: the bit lies inside the set.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
        submitter.register_iowq_aff(&set).map_err(|error| Failure::from_io(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_know_their_addresses() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = local_address(&listener).unwrap();
        assert_ne!(address.port(), 0);
        let stream = std::net::TcpStream::connect(address).unwrap();
        prepare_link(&stream, Duration::from_secs(5)).unwrap();
        assert_eq!(peer_address(&stream).unwrap(), address);
        let socket = outgoing(address, Some("127.0.0.1".parse().unwrap())).unwrap();
        assert_eq!(local_address(&socket).unwrap().ip(), address.ip());
    }

    #[test]
    fn an_impossible_cpu_is_refused() {
        assert!(pin_thread(&[1 << 20]).is_err());
    }
}
