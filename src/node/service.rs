//! Tells the service manager how the node is: a datagram to the socket that it names in `NOTIFY_SOCKET`, after
//! `sd_notify(3)`. Without that variable nobody wants to know, and nothing is done.
//!
//! It promises never to hinder the node: what cannot be told is logged once and left. It leaves deciding when to tell to its
//! callers: `READY=1` is for the moment at which every thread serves, not that at which a leader is elected, or nodes of a
//! new cluster would wait for each other to be started.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Once;
use std::time::Duration;

/// How much longer than the last sign of life a start may take. Signs come every few seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The node serves: all threads run and all listeners answer.
pub(super) fn ready() {
    tell("READY=1\nSTATUS=serving");
}

/// The node was told to stop.
pub(super) fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping");
}

/// The start takes long, and goes on: the manager must not end it meanwhile.
pub(super) fn starting(what: &str) {
    tell(&starting_words(what));
}

fn starting_words(what: &str) -> String {
    // One line each: nothing in the words may pass for another variable.
    let what = what.replace(char::is_control, " ");
    format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={what}", PATIENCE.as_micros())
}

fn tell(words: &str) {
    static SAID: Once = Once::new();
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name, words) {
        SAID.call_once(|| {
            tracing::warn!(
                %error,
                "the service manager cannot be told how the node is (NOTIFY_SOCKET is {}): with Type=notify it ends the node \
                 after TimeoutStartSec; allow sockets of the family AF_UNIX in the unit",
                name.display()
            );
        });
    }
}

/// Sends to a socket with a path, or with an abstract name, which is written with `@` in front.
fn send(name: &OsStr, words: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a whole path nor @NAME")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the node up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(words.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let name = format!("ringstore-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&by_path), "READY=1");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(send(path.as_os_str(), "READY=1").unwrap_err().kind(), io::ErrorKind::NotFound);

        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(received(&by_name), "STOPPING=1");
        assert_eq!(send(OsStr::new("vsock:2:1"), "READY=1").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn words_stay_on_their_line() {
        let words = starting_words("no repair\nREADY=1");
        assert_eq!(words, "EXTEND_TIMEOUT_USEC=120000000\nSTATUS=no repair READY=1");
    }
}
