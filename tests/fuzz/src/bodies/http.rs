//! HTTP between nodes and with clients: requests as they arrive, and what the client side makes of answers.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use ringstore::http::{HttpError, Limits, Method, Request, Response, read_request, read_response};

use super::tools::{Input, pieces};

const LIMITS: Limits = Limits { head_bytes_max: 2 << 10, headers_max: 16, body_bytes_max: 1 << 10 };

/// The first byte says who reads, the second in which pieces the rest arrives.
pub(super) fn requests_and_answers(input: &[u8]) {
    let mut input = Input(input);
    let (reader, step) = (input.byte(), input.byte());
    let wire = input.rest();
    if reader & 1 == 0 {
        let read = requests_of(wire, step);
        assert_eq!(read, requests_of(wire, 0), "however it is cut, it is the same");
        read.0.iter().for_each(check_request);
    } else {
        let method = if reader & 2 == 0 { Method::Get } else { Method::Head };
        let read = answer_of(wire, step, method);
        assert_eq!(read, answer_of(wire, 0, method), "however it is cut, it is the same");
    }
}

/// The requests, and whether it ended well.
fn requests_of(wire: &[u8], step: u8) -> (Vec<Request>, bool) {
    let mut stream = Stream { pieces: pieces(wire, step).collect(), written: 0 };
    let (mut buffer, mut requests) = (Vec::new(), Vec::new());
    let ended_well = loop {
        match finish(read_request(&mut stream, &mut buffer, &LIMITS)) {
            Ok(Some(request)) => requests.push(request),
            Ok(None) => break true,
            Err(error) => break !check_error(&error),
        }
        // The connection's buffer holds what arrived behind the request, and no more.
        assert!(buffer.len() <= wire.len());
    };
    // "Continue", at most once for each request that was begun.
    assert!(stream.written <= 25 * (requests.len() + 1));
    (requests, ended_well)
}

fn check_error(error: &HttpError) -> bool {
    assert!(error.status().is_none_or(|status| (400..600).contains(&status)) && !error.to_string().is_empty());
    true
}

fn check_request(request: &Request) {
    assert!(request.body.len() <= LIMITS.body_bytes_max);
    let head = request.path.len() + request.query.as_ref().map_or(0, String::len);
    assert!(head <= LIMITS.head_bytes_max);
    let _ = request.query_value("format");
    // An answer that repeats what came from outside is one answer all the same.
    let answer = Response::words(404, format!("there is nothing at {}", request.path));
    let wire = answer.encode(request.method, request.keep_alive);
    let is_head = request.method == Method::Head;
    let body = if is_head { &b""[..] } else { &answer.body[..] };
    let read = answer_of(&wire, 5, request.method).expect("our own answer");
    assert_eq!((read.0, &read.1[..], read.2), (404, body, request.keep_alive));
}

/// Status, body, and whether the connection may be used again.
fn answer_of(wire: &[u8], step: u8, method: Method) -> Option<(u16, Vec<u8>, bool)> {
    let mut stream = Stream { pieces: pieces(wire, step).collect(), written: 0 };
    let mut buffer = Vec::new();
    let limit = LIMITS.body_bytes_max * 4;
    match finish(read_response(&mut stream, &mut buffer, method, limit)) {
        Ok((response, keep_alive)) => {
            assert!(response.body.len() <= limit && response.status >= 200);
            Some((response.status, response.body.to_vec(), keep_alive))
        }
        Err(error) => {
            check_error(&error);
            None
        }
    }
}

/// Runs a future that never waits.
fn finish<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// A connection whose peer has sent everything and closed.
struct Stream<'a> {
    pieces: VecDeque<&'a [u8]>,
    written: usize,
}

impl AsyncReadRent for Stream<'_> {
    async fn read<T: IoBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        let mut piece = self.pieces.pop_front().unwrap_or_default();
        let result = piece.read(buf).await;
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
        result
    }

    async fn readv<T: IoVecBufMut>(&mut self, buf: T) -> BufResult<usize, T> {
        (Err(io::ErrorKind::Unsupported.into()), buf)
    }
}

impl AsyncWriteRent for Stream<'_> {
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        self.written += buf.bytes_init();
        (Ok(buf.bytes_init()), buf)
    }

    async fn writev<T: IoVecBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        (Err(io::ErrorKind::Unsupported.into()), buf)
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let request = |text: &str| [b"\0\x07", text.as_bytes()].concat();
    let answer = |text: &str| [b"\x01\x05", text.as_bytes()].concat();
    vec![
        request("GET /gossip?format=json HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n"),
        request("POST /elections/vote HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}HEAD / HTTP/1.0\r\n\r\n"),
        request(
            "PUT http://a:1/b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
        ),
        request("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nhi"),
        answer("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        answer("HTTP/1.0 404 x\r\n\r\nuntil the close"),
    ]
}
