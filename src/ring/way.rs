//! How connections to other nodes are made: from which address, over which device, with which patience.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockAddr, Socket};

use super::socket::{bind_device, prepare_link, tcp_socket};

/// The way that connections to other nodes take; the default leaves all to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The local address, so that the traffic takes its network; none where it is of another family than the remote one.
    pub from: Option<IpAddr>,
    /// The device that the sockets are bound to.
    pub device: Option<Arc<str>>,
    /// How long unacknowledged bytes wait before the connection counts as broken; `None` leaves it to the kernel, which
    /// takes a quarter of an hour.
    pub patience: Option<Duration>,
}

/// A connection that is being made; see [`Way::begin`].
#[derive(Debug)]
pub struct Begun(Socket);

impl Way {
    /// A socket to connect to `remote` with.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`, in words for the device.
    pub fn socket(&self, remote: SocketAddr) -> io::Result<OwnedFd> {
        self.make(remote).map(OwnedFd::from)
    }

    /// Connects, waiting at most `limit`.
    ///
    /// # Errors
    /// Those of [`Way::socket`] and `connect`.
    pub fn connect(&self, remote: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let socket = self.make(remote)?;
        socket.connect_timeout(&SockAddr::from(remote), limit)?;
        Ok(socket.into())
    }

    /// Begins to connect without waiting. When the socket can be written to, [`Begun::finish`] says how it went.
    ///
    /// # Errors
    /// Those of [`Way::socket`], and of `connect` where it fails at once.
    pub fn begin(&self, remote: SocketAddr) -> io::Result<(TcpStream, Begun)> {
        let socket = self.make(remote)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&SockAddr::from(remote)) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
            _ => {}
        }
        let begun = Begun(socket.try_clone()?);
        Ok((socket.into(), begun))
    }

    fn make(&self, remote: SocketAddr) -> io::Result<Socket> {
        let socket = tcp_socket(remote)?;
        bind_device(&socket, self.device.as_deref())?;
        match self.patience {
            Some(patience) => prepare_link(&socket, patience)?,
            // Requests are small and single: waiting for more to send would only delay them.
            None => socket.set_tcp_nodelay(true)?,
        }
        if let Some(from) = self.from.filter(|from| !from.is_unspecified() && from.is_ipv4() == remote.is_ipv4()) {
            socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
        }
        Ok(socket)
    }
}

impl Begun {
    /// How it went. The socket waits again from here on, as a ring wants it.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn finish(self) -> io::Result<()> {
        if let Some(error) = self.0.take_error()? {
            return Err(error);
        }
        self.0.set_nonblocking(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::event::{PollFd, PollFlags, poll};
    use socket2::SockRef;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_connection_leaves_from_the_address_with_the_patience() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let way = Way {
            from: Some("127.0.0.7".parse().unwrap()),
            patience: Some(Duration::from_millis(2800)),
            ..Way::default()
        };
        let stream = way.connect(remote, LIMIT).unwrap();
        assert_eq!(stream.local_addr().unwrap().ip(), "127.0.0.7".parse::<IpAddr>().unwrap());
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(Duration::from_millis(2800)));
        let other_family = Way { from: Some("::1".parse().unwrap()), ..way.clone() };
        assert_eq!(other_family.connect(remote, LIMIT).unwrap().local_addr().unwrap().ip(), remote.ip());
        let plain = Way::default().connect(remote, LIMIT).unwrap();
        assert!(plain.nodelay().unwrap() && SockRef::from(&plain).tcp_user_timeout().unwrap().is_none());
    }

    #[test]
    fn a_connection_that_is_begun_ends_well_or_with_its_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = listener.local_addr().unwrap();
        let (stream, begun) = Way::default().begin(remote).unwrap();
        listener.accept().unwrap();
        begun.finish().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), remote);
        drop(listener);
        // Loopback refuses at once, or when it is asked.
        let refused = Way::default().begin(remote).and_then(|(stream, begun)| {
            poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None)?;
            begun.finish()
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_device_that_is_not_there_is_said_in_words() {
        let way = Way { device: Some("no-such-dev0".into()), ..Way::default() };
        let error = way.socket("127.0.0.1:1".parse().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("there is no network device no-such-dev0"), "{error}");
    }
}
