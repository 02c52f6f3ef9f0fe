//! Reading requests off a connection.

use std::io;
use std::mem;

use bytes::Bytes;
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};

use super::body::BodyReader;
use super::error::HttpError;
use super::head::{self, BodyLength, Headers, Method, RequestHead};

/// Room that a read is given at least.
const READ_BYTES: usize = 4 << 10;

/// What a request may be at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Request line and headers, bytes.
    pub head_bytes_max: usize,
    /// Number of headers; more than 128 are never taken.
    pub headers_max: usize,
    /// The body, bytes.
    pub body_bytes_max: usize,
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path as it came, percent signs and all.
    pub path: String,
    /// What stood behind the question mark.
    pub query: Option<String>,
    /// The headers.
    pub headers: Headers,
    /// The body; empty when there is none.
    pub body: Bytes,
    /// True when the peer will send another request on this connection, if we let it.
    pub keep_alive: bool,
}

impl Request {
    /// The value of a query parameter, as it came.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=').or(Some((pair, "")))).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

/// Reads the next request; `None` when the peer closed the connection between two requests. `buffer` belongs to the
/// connection: it holds what arrived behind the last request.
///
/// # Errors
/// See [`HttpError`]; the connection is to be closed after any of them, with an answer if there is a status for it.
pub async fn read_request<S: AsyncReadRent + AsyncWriteRent>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    limits: &Limits,
) -> Result<Option<Request>, HttpError> {
    let Some(head) = read_head(stream, buffer, limits).await? else { return Ok(None) };
    // A request that says nothing about a body has none.
    let length = head::body_length(&head.headers)?.unwrap_or(BodyLength::Known(0));
    let reader = BodyReader::new(length, limits.body_bytes_max)?;
    if length != BodyLength::Known(0) && expects_continue(&head)? && buffer.is_empty() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.0?;
    }
    let body = Bytes::from(read_body(stream, buffer, reader).await?);
    let RequestHead { method, path, query, headers, keep_alive, .. } = head;
    Ok(Some(Request { method, path, query, headers, body, keep_alive }))
}

async fn read_head<S: AsyncReadRent>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    limits: &Limits,
) -> Result<Option<RequestHead>, HttpError> {
    loop {
        if let Some((head, length)) = head::parse_request(buffer, limits.head_bytes_max, limits.headers_max)? {
            buffer.drain(..length);
            return Ok(Some(head));
        }
        if read_more(stream, buffer).await? == 0 {
            // Empty lines before a request are allowed, so they are no request cut short.
            let nothing = buffer.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
            return if nothing { Ok(None) } else { Err(HttpError::Truncated) };
        }
    }
}

fn expects_continue(head: &RequestHead) -> Result<bool, HttpError> {
    match head.headers.get("expect") {
        Some(expected) if expected.eq_ignore_ascii_case("100-continue") => Ok(head.version_1_1),
        Some(_) => Err(HttpError::Expectation),
        None => Ok(false),
    }
}

/// Reads a body to its end, be it of a request or of an answer.
pub(super) async fn read_body<S: AsyncReadRent>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    mut reader: BodyReader,
) -> Result<Vec<u8>, HttpError> {
    loop {
        let (used, done) = reader.take(buffer)?;
        buffer.drain(..used);
        if done {
            return Ok(reader.into_body());
        }
        if read_more(stream, buffer).await? == 0 {
            return if reader.ends_with_close() { Ok(reader.into_body()) } else { Err(HttpError::Truncated) };
        }
    }
}

/// Appends what the peer sends next to `buffer`; 0 when it closed. When this future is dropped the buffer is lost, and
/// the connection with it.
pub(super) async fn read_more<S: AsyncReadRent>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut owned = mem::take(buffer);
    owned.reserve(READ_BYTES);
    let (start, end) = (owned.len(), owned.capacity());
    let (result, slice) = stream.read(SliceMut::new(owned, start, end)).await;
    *buffer = slice.into_inner();
    result
}

#[cfg(test)]
mod tests {
    use monoio::net::{TcpListener, TcpStream};

    use super::*;

    const LIMITS: Limits = Limits { head_bytes_max: 1024, headers_max: 16, body_bytes_max: 64 };

    /// Sends `pieces` one after the other over loopback, and reads requests until the end or an error.
    fn exchange(pieces: Vec<&'static str>) -> (Vec<Request>, Option<HttpError>, Vec<u8>) {
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let client = monoio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).await.0.unwrap();
                    monoio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
                stream.shutdown().await.unwrap();
                let mut answer = Vec::new();
                while read_more(&mut stream, &mut answer).await.unwrap_or(0) > 0 {}
                answer
            });
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut buffer, mut requests) = (Vec::new(), Vec::new());
            let error = loop {
                match read_request(&mut stream, &mut buffer, &LIMITS).await {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            drop(stream);
            (requests, error, client.await)
        })
    }

    #[test]
    fn requests_follow_each_other_on_one_connection() {
        let first = "POST /a?x=1&y HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\r\nHo";
        let (requests, error, _) = exchange(vec![first, "st: h\r\n\r\n\r\n"]);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(requests.len(), 2);
        assert_eq!((requests[0].path.as_str(), &requests[0].body[..]), ("/a", b"hi".as_slice()));
        assert_eq!((requests[0].query_value("x"), requests[0].query_value("y")), (Some("1"), Some("")));
        assert_eq!(requests[0].query_value("z"), None);
        assert_eq!((requests[1].method, requests[1].path.as_str()), (Method::Get, "/b"));
    }

    #[test]
    fn a_body_that_waits_is_asked_for() {
        let head = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (requests, error, answer) = exchange(vec![head, "2\r\nhi\r\n", "0\r\n\r\n"]);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(&requests[0].body[..], b"hi");
        assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_an_error() {
        let error = |pieces| exchange(pieces).1;
        assert!(matches!(error(vec!["GET / HT"]), Some(HttpError::Truncated)));
        assert!(matches!(
            error(vec!["POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhi"]),
            Some(HttpError::Truncated)
        ));
        let large = error(vec!["POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65\r\n\r\n"]);
        assert_eq!(large.unwrap().status(), Some(413));
        let expecting = error(vec!["POST / HTTP/1.1\r\nHost: h\r\nExpect: money\r\nContent-Length: 5\r\n\r\n"]);
        assert_eq!(expecting.unwrap().status(), Some(417));
    }
}
