//! Answers.

use std::borrow::Cow;
use std::io;
use std::io::Write as _;

use bytes::Bytes;
use monoio::io::{AsyncWriteRent, AsyncWriteRentExt};

use super::head::{Headers, Method};

/// An answer: made by a server, or received by a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The reason phrase; empty for the usual one of the status.
    pub reason: Cow<'static, str>,
    /// Headers beside those that the writer makes itself (`Content-Length`, `Connection`).
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// An answer without headers and body.
    #[must_use]
    pub fn new(status: u16) -> Response {
        Response { status, reason: Cow::Borrowed(""), headers: Vec::new(), body: Bytes::new() }
    }

    /// An answer with this content.
    #[must_use]
    pub fn with_body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response {
        Response { body: body.into(), ..Response::new(status) }.header("Content-Type", content_type)
    }

    /// An answer in words: they are the reason phrase, which v5's clients show, and the body, which people see.
    #[must_use]
    pub fn words(status: u16, words: impl Into<String>) -> Response {
        let words = words.into();
        let body = format!("{words}\n");
        Response { reason: Cow::Owned(words), ..Response::with_body(status, "text/plain; charset=utf-8", body) }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Response {
        self.headers.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// The answer's bytes. A `HEAD` request gets the same without the body.
    #[must_use]
    pub fn encode(&self, method: Method, keep_alive: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.body.len());
        let reason: &str = if self.reason.is_empty() { usual_reason(self.status) } else { &self.reason };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, OneLine(reason));
        for (name, value) in &self.headers {
            let _ = write!(out, "{}: {}\r\n", OneLine(name), OneLine(value));
        }
        if self.status != 204 && self.status != 304 {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        let _ = write!(out, "Connection: {connection}\r\n\r\n");
        if method != Method::Head && self.status != 204 && self.status != 304 {
            out.extend_from_slice(&self.body);
        }
        out
    }

    /// A received answer.
    pub(super) fn received(status: u16, headers: &Headers, body: Vec<u8>) -> Response {
        let content_type = headers.get("content-type").map(|value| Cow::Owned(value.to_owned()));
        let headers = content_type.map(|value| (Cow::Borrowed("Content-Type"), value)).into_iter().collect();
        Response { headers, body: body.into(), ..Response::new(status) }
    }
}

/// Sends an answer.
///
/// # Errors
/// Those of the connection.
pub async fn write_response<S: AsyncWriteRent>(
    stream: &mut S,
    response: &Response,
    method: Method,
    keep_alive: bool,
) -> io::Result<()> {
    stream.write_all(response.encode(method, keep_alive)).await.0?;
    stream.flush().await
}

/// Writes text as part of one line: whatever would end the line or is not ASCII becomes a question mark or a space, so
/// that no value that came from outside can add a header.
struct OneLine<'a>(&'a str);

impl std::fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for char in self.0.chars() {
            let shown = match char {
                '\r' | '\n' | '\t' => ' ',
                ' '..='~' => char,
                _ => '?',
            };
            std::fmt::Write::write_char(f, shown)?;
        }
        Ok(())
    }
}

fn usual_reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: &Response, method: Method, expected: &str) {
        assert_eq!(String::from_utf8(response.encode(method, true)).unwrap(), expected);
    }

    #[test]
    fn answers_are_written_whole() {
        let response = Response::with_body(200, "application/json", "{}");
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n";
        check(&response, Method::Get, &format!("{head}{{}}"));
        check(&response, Method::Head, head);
        check(&Response::new(204), Method::Get, "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
    }

    #[test]
    fn nothing_from_outside_can_add_a_header() {
        let response = Response::words(404, "no route /a\r\nEvil: \u{1F600}");
        let text = String::from_utf8(response.encode(Method::Get, false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 no route /a  Evil: ?\r\nContent-Type: "), "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}
