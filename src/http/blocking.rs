//! Calls to a node from a thread that may wait: commands and background work. One request, one connection, one answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::body::BodyReader;
use super::client::CallError;
use super::error::HttpError;
use super::head::{self, BodyLength, Headers, Method, ResponseHead};

const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes taken from the socket at a time.
const READ_BYTES: usize = 256 << 10;

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

/// Makes a call and waits for its answer.
///
/// # Errors
/// See [`CallError`]. An answer with any status is no error.
pub fn call_blocking(address: SocketAddr, call: &Call<'_>) -> Result<Received, CallError> {
    let deadline = Instant::now() + call.limit;
    let mut stream =
        TcpStream::connect_timeout(&address, call.limit).map_err(|source| CallError::Connect { address, source })?;
    let result = exchange(&mut stream, address, call, deadline);
    result.map_err(|source| match source {
        HttpError::Io { source } if matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            CallError::TimedOut { address, limit: call.limit }
        }
        source => CallError::Answer { address, source },
    })
}

fn exchange(
    stream: &mut TcpStream,
    address: SocketAddr,
    call: &Call<'_>,
    deadline: Instant,
) -> Result<Received, HttpError> {
    let failed = |source| HttpError::Io { source };
    stream.set_nodelay(true).map_err(failed)?;
    stream.set_write_timeout(Some(left(deadline)?)).map_err(failed)?;
    stream.write_all(&encode(address, call)).map_err(failed)?;
    let mut buffer = Vec::new();
    let head = read_head(stream, &mut buffer, deadline)?;
    let length = match head::body_length(&head.headers)? {
        _ if call.method == Method::Head || matches!(head.status, 204 | 304) => BodyLength::Known(0),
        Some(length) => length,
        None => BodyLength::UntilClose,
    };
    let mut reader = BodyReader::new(length, call.body_bytes_max)?;
    loop {
        let (used, done) = reader.take(&buffer)?;
        buffer.drain(..used);
        if done {
            break;
        }
        if read_more(stream, &mut buffer, deadline)? == 0 {
            if reader.ends_with_close() {
                break;
            }
            return Err(HttpError::Truncated);
        }
    }
    Ok(Received { status: head.status, headers: head.headers, body: reader.into_body() })
}

fn encode(address: SocketAddr, call: &Call<'_>) -> Vec<u8> {
    let (name, path, length) = (call.method.name(), call.path, call.body.len());
    let mut out = format!("{name} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n").into_bytes();
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

/// Reads an answer's head, skipping interim answers.
fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>, deadline: Instant) -> Result<ResponseHead, HttpError> {
    loop {
        if let Some((head, length)) = head::parse_response(buffer, HEAD_BYTES_MAX)? {
            buffer.drain(..length);
            if head.status >= 200 {
                return Ok(head);
            }
        } else if read_more(stream, buffer, deadline)? == 0 {
            return Err(HttpError::Truncated);
        }
    }
}

fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>, deadline: Instant) -> Result<usize, HttpError> {
    let failed = |source| HttpError::Io { source };
    stream.set_read_timeout(Some(left(deadline)?)).map_err(failed)?;
    let start = buffer.len();
    buffer.resize(start + READ_BYTES, 0);
    let count = stream.read(&mut buffer[start..]);
    buffer.truncate(start + count.as_ref().map_or(0, |count| *count));
    count.map_err(failed)
}

/// The time that is left; a socket does not take none at all.
fn left(deadline: Instant) -> Result<Duration, HttpError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(HttpError::Io { source: io::ErrorKind::TimedOut.into() }) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
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
        let result = call_blocking(address, &call);
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
        assert!(matches!(call_blocking(nobody, &call), Err(CallError::Connect { .. })));
    }
}
