//! Sockets and threads as the ring wants them: made and configured here, driven by the ring afterwards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use io_uring::types::Napi;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger, set_tcp_nodelay, set_tcp_user_timeout};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::driver::Driver;
use super::error::Failure;

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: i32 = 128;

/// The highest of a socket's priorities that needs no privilege ("interactive"); others have 0.
const PRIORITY_FIRST: u32 = 6;

/// A client's host that vanished is noticed after about two minutes.
const KEEP_ALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

pub(super) fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    // Blocking, see `Driver::attach`.
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
}

/// A socket that listens; with a device it takes connections that arrive there only. One on an IPv6 address takes no IPv4.
///
/// # Errors
/// Those of `socket`, `bind` and `listen`, and of [`bind_device`].
pub fn listen(address: SocketAddr, device: Option<&str>) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    // A restarted node must not wait for its old connections' last packets.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    bind_device(&socket, device)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
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

/// Lets what this socket sends overtake other traffic of this host in the queue of its device: for connections that carry
/// little and must not wait. What the packets say of themselves (TOS, TCLASS) is left alone.
///
/// # Errors
/// Those of `setsockopt`.
pub fn put_first(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_priority(PRIORITY_FIRST)
}

/// Has the kernel ask a silent peer whether it is still there, so that one that vanished does not keep its connection.
///
/// # Errors
/// Those of `setsockopt`.
pub fn keep_alive(socket: impl AsFd) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_keepalive(&KEEP_ALIVE)
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

/// Binds a socket to a network device, if there is one: it sends and receives over that only. Before `bind`, so that two
/// devices may have sockets on one port.
///
/// # Errors
/// In words when there is no such device, or when it is not permitted.
pub fn bind_device(socket: impl AsFd, device: Option<&str>) -> io::Result<()> {
    let Some(device) = device else { return Ok(()) };
    SockRef::from(&socket).bind_device(Some(device.as_bytes())).map_err(|error| device_error(device, error))
}

/// Tries whether sockets can be bound to a device.
///
/// # Errors
/// Those of [`bind_device`].
pub fn check_device(device: &str) -> io::Result<()> {
    bind_device(Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?, Some(device))
}

fn device_error(device: &str, error: io::Error) -> io::Error {
    let words = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NODEV) => format!("there is no network device {device} here; `ip link` lists those that there are"),
        Some(Errno::PERM | Errno::ACCESS) => format!(
            "binding a socket to network device {device} is not permitted ({error}); give the process CAP_NET_RAW (in a \
             systemd unit AmbientCapabilities=CAP_NET_RAW, in a container --cap-add NET_RAW), or name no device"
        ),
        _ => format!("a socket cannot be bound to network device {device}: {error}; name another, or none"),
    };
    io::Error::new(error.kind(), words)
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

    /// Has the kernel poll the cards of this ring's connections for so long before a wait goes to sleep (NAPI busy polling,
    /// Linux 6.9). Interrupts stay on.
    ///
    /// # Errors
    /// When the kernel refuses; the ring works without it.
    pub fn poll_busily(&mut self, microseconds: u32) -> Result<(), Failure> {
        let mut napi = Napi::new().set_busy_poll_timeout(microseconds);
        self.ring.submitter().register_napi(&mut napi).map_err(|error| Failure::from_io(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_know_their_addresses() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let address = local_address(&listener).unwrap();
        assert_ne!(address.port(), 0);
        let stream = std::net::TcpStream::connect(address).unwrap();
        prepare_link(&stream, Duration::from_secs(5)).unwrap();
        assert_eq!(peer_address(&stream).unwrap(), address);
    }

    #[test]
    fn options_of_sockets_are_those_that_the_kernel_shows() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let stream = std::net::TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        put_first(&stream).unwrap();
        keep_alive(&stream).unwrap();
        let shown = SockRef::from(&stream);
        assert_eq!(shown.priority().unwrap(), 6);
        assert!(shown.keepalive().unwrap());
        assert_eq!(shown.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(shown.tcp_keepalive_retries().unwrap(), 4);
    }

    /// Linux lets anybody bind a fresh socket to a device, but a container may not.
    #[test]
    fn a_device_is_bound_or_missing_in_words() {
        let missing = check_device("no-such-dev0").unwrap_err().to_string();
        assert!(missing.starts_with("there is no network device no-such-dev0 here; `ip link`"), "{missing}");
        match listen("127.0.0.1:0".parse().unwrap(), Some("lo")) {
            Ok(listener) => assert_eq!(SockRef::from(&listener).device().unwrap().unwrap(), b"lo"),
            Err(error) => assert!(error.to_string().contains("give the process CAP_NET_RAW"), "{error}"),
        }
        let refused = device_error("eth1", io::Error::from_raw_os_error(1)).to_string();
        assert!(refused.contains("eth1 is not permitted") && refused.contains("CAP_NET_RAW"), "{refused}");
        let other = device_error("eth1", io::Error::from_raw_os_error(22)).to_string();
        assert!(other.starts_with("a socket cannot be bound to network device eth1: "), "{other}");
    }

    /// A kernel without it says so, and the ring goes on either way.
    #[test]
    fn busy_polling_is_taken_or_not_supported() {
        let Ok(mut driver) = Driver::new() else { return };
        match driver.poll_busily(50) {
            Ok(()) | Err(Failure::NotSupported) => {}
            Err(other) => panic!("{other:?}"),
        }
        let mut completions = Vec::new();
        driver.enter(super::super::Wait::For(Duration::from_millis(1)), &mut completions).unwrap();
    }

    #[test]
    fn an_impossible_cpu_is_refused() {
        assert!(pin_thread(&[1 << 20]).is_err());
    }
}
