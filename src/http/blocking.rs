//! Calls to a node from a thread that may wait: commands and background work. One request, one connection, one answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::client::CallError;
use super::dialled::{DialError, Dialled, Patience};
use super::error::HttpError;
use super::head::{Headers, Method};
use super::proof::PROOF_KEY;
use crate::ring::Way;
use crate::security::Plane;

/// An answer as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The status.
    pub status: u16,
    /// All headers.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Headers beside those that every call has.
    pub headers: &'a [(&'a str, &'a str)],
    /// A JSON body; empty for none.
    pub body: &'a [u8],
    /// The largest body that the answer may have.
    pub body_bytes_max: usize,
    /// The time for all of it.
    pub limit: Duration,
}

/// Makes a call and waits for its answer: to a node of this plane, over a connection made this way.
///
/// # Errors
/// See [`CallError`]. An answer with any status is no error, if it is proven where it must be.
pub fn call_blocking(plane: &Plane, way: &Way, address: SocketAddr, call: &Call<'_>) -> Result<Received, CallError> {
    let dialled = Dialled::new(address, plane, way, Patience::of(call.limit));
    let answered = dialled.and_then(|mut dialled| Ok(exchange(&mut dialled, address, call)?));
    answered.map_err(|error| match error {
        DialError::Connect { source } => CallError::Connect { address, source },
        DialError::Peer(HttpError::Io { source })
            if matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            CallError::TimedOut { address, limit: call.limit }
        }
        DialError::Peer(source) => CallError::Answer { address, source },
    })
}

fn exchange(dialled: &mut Dialled, address: SocketAddr, call: &Call<'_>) -> Result<Received, HttpError> {
    let proof = dialled.proof_line(call.method, call.path, call.body);
    dialled.send(&encode(address, call, &proof))?;
    let (head, body) = dialled.read_answer(&mut Vec::new(), call.method, call.body_bytes_max)?;
    dialled.check(head.status, head.headers.get(PROOF_KEY), &body)?;
    Ok(Received { status: head.status, headers: head.headers, body })
}

fn encode(address: SocketAddr, call: &Call<'_>, proof: &str) -> Vec<u8> {
    let (name, path, length) = (call.method.name(), call.path, call.body.len());
    let mut out = format!("{name} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{proof}").into_bytes();
    for (name, value) in call.headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !call.body.is_empty() {
        out.extend_from_slice(b"Content-Type: application/json\r\n");
    }
    out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
    out.extend_from_slice(call.body);
    out
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers one request with these bytes, and gives what it was asked.
    fn answered(answer: &'static [u8], limit: Duration) -> (Result<Received, CallError>, String) {
        let listener = TcpListener::bind("127.0.0.90:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = vec![0; 4096];
            let count = stream.read(&mut asked).unwrap();
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                thread::sleep(Duration::from_millis(300));
            }
            String::from_utf8_lossy(&asked[..count]).into_owned()
        });
        let headers = [("Ring-Cluster", "c")];
        let call =
            Call { method: Method::Post, path: "/a?b=1", headers: &headers, body: b"{}", body_bytes_max: 8, limit };
        let result = call_blocking(&Plane::Open, &Way::default(), address, &call);
        (result, server.join().unwrap())
    }

    #[test]
    fn a_call_brings_its_answer_whatever_ends_the_body() {
        let check = |answer: &'static [u8]| {
            let (received, asked) = answered(answer, Duration::from_secs(5));
            let received = received.unwrap();
            assert_eq!((received.status, received.body.as_slice()), (200, &b"good"[..]));
            assert_eq!(received.headers.get("ring-crc32c"), Some("1"));
            assert!(asked.starts_with("POST /a?b=1 HTTP/1.1\r\nHost: 127.0.0.90:"), "{asked}");
            assert!(
                asked.contains("\r\nRing-Cluster: c\r\n") && asked.ends_with("Content-Length: 2\r\n\r\n{}"),
                "{asked}"
            );
        };
        check(b"HTTP/1.1 200 OK\r\nRing-Crc32c: 1\r\nContent-Length: 4\r\n\r\ngood");
        check(b"HTTP/1.1 200 OK\r\nRing-Crc32c: 1\r\n\r\ngood");
        check(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nRing-Crc32c: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n");
    }

    #[test]
    fn what_is_too_long_cut_off_or_late_is_an_error() {
        let check = |answer: &'static [u8], expected: &str| {
            let words = answered(answer, Duration::from_millis(200)).0.unwrap_err().to_string();
            assert!(words.contains(expected), "{words}");
        };
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789", "larger than 8 bytes");
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngo", "in the middle of a message");
        check(b"", "within 200ms");
        let nobody = TcpListener::bind("127.0.0.90:0").unwrap().local_addr().unwrap();
        let limit = Duration::from_secs(1);
        let call = Call { method: Method::Get, path: "/", headers: &[], body: b"", body_bytes_max: 8, limit };
        assert!(matches!(call_blocking(&Plane::Open, &Way::default(), nobody, &call), Err(CallError::Connect { .. })));
    }
}
