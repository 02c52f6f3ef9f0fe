//! Heads: the first line and the headers, of requests and of answers. Pure: slices in, values out.

use super::error::HttpError;

/// Headers that `httparse` gets room for; [`Limits::headers_max`](super::Limits) may be lower, not higher.
pub(super) const HEADERS_CAPACITY: usize = 128;

/// How TLS records begin: an alert, and a handshake.
const TLS_ALERT: [u8; 2] = [0x15, 3];
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// Anything else that has the form of a method.
    Other,
}

impl Method {
    fn parse(text: &str) -> Method {
        match text {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }

    /// The method's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => "(another method)",
        }
    }
}

/// Headers in the order they came, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of the header with this name, given in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values of the header with this name, given in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// True when a comma-separated header has this token, compared without regard to case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// One header, its name in lower case.
    #[cfg(test)]
    pub(crate) fn of(name: &str, value: &str) -> Headers {
        Headers(vec![(name.to_owned(), value.to_owned())])
    }

    fn from_parsed(parsed: &[httparse::Header<'_>]) -> Headers {
        // Values outside UTF-8 are kept readable rather than refused: none that we act on has any.
        let own = |header: &httparse::Header<'_>| {
            (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).trim().to_owned())
        };
        Headers(parsed.iter().map(own).collect())
    }
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: Headers,
    pub(super) keep_alive: bool,
    pub(super) version_1_1: bool,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) keep_alive: bool,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    Chunked,
    /// Only for answers: the body ends with the connection.
    UntilClose,
}

/// Reads a request's head; `None` when more bytes are needed. Also gives the head's length.
pub(super) fn parse_request(
    bytes: &[u8],
    head_bytes_max: usize,
    headers_max: usize,
) -> Result<Option<(RequestHead, usize)>, HttpError> {
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_CAPACITY];
    let headers_max = headers_max.min(HEADERS_CAPACITY);
    let mut parsed = httparse::Request::new(&mut storage[..headers_max]);
    let status = parsed.parse(bytes).map_err(|error| HttpError::from_httparse(error, head_bytes_max, headers_max))?;
    let too_large = HttpError::HeadTooLarge { limit: head_bytes_max, header_limit: headers_max };
    let httparse::Status::Complete(length) = status else {
        return if bytes.len() > head_bytes_max { Err(too_large) } else { Ok(None) };
    };
    if length > head_bytes_max {
        return Err(too_large);
    }
    let target = parsed.path.ok_or(HttpError::Malformed { reason: "no request target" })?;
    let (path, query) = split_target(target);
    let headers = Headers::from_parsed(parsed.headers);
    let version_1_1 = parsed.version == Some(1);
    // A message whose host is missing or doubled is refused by the standard: it is how requests are smuggled.
    if headers.all("host").count() > 1 || (version_1_1 && headers.get("host").is_none()) {
        return Err(HttpError::Malformed { reason: "HTTP/1.1 needs exactly one Host header" });
    }
    let keep_alive = keeps_alive(&headers, version_1_1);
    let method = Method::parse(parsed.method.unwrap_or_default());
    Ok(Some((RequestHead { method, path, query, headers, keep_alive, version_1_1 }, length)))
}

/// True when what should be an answer begins like TLS.
#[must_use]
pub fn speaks_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&TLS_ALERT) || bytes.starts_with(&TLS_HANDSHAKE)
}

/// Reads an answer's head; `None` when more bytes are needed.
pub(super) fn parse_response(bytes: &[u8], head_bytes_max: usize) -> Result<Option<(ResponseHead, usize)>, HttpError> {
    if speaks_tls(bytes) {
        return Err(HttpError::SpeaksTls);
    }
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_CAPACITY];
    let mut parsed = httparse::Response::new(&mut storage);
    let status =
        parsed.parse(bytes).map_err(|error| HttpError::from_httparse(error, head_bytes_max, HEADERS_CAPACITY))?;
    let too_large = HttpError::HeadTooLarge { limit: head_bytes_max, header_limit: HEADERS_CAPACITY };
    let httparse::Status::Complete(length) = status else {
        return if bytes.len() > head_bytes_max { Err(too_large) } else { Ok(None) };
    };
    if length > head_bytes_max {
        return Err(too_large);
    }
    let headers = Headers::from_parsed(parsed.headers);
    let keep_alive = keeps_alive(&headers, parsed.version == Some(1));
    let status = parsed.code.ok_or(HttpError::Malformed { reason: "the status" })?;
    Ok(Some((ResponseHead { status, headers, keep_alive }, length)))
}

/// Path and query of a request target, which may be absolute (`http://host/path`).
fn split_target(target: &str) -> (String, Option<String>) {
    let origin = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
        _ => target,
    };
    match origin.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (origin.to_owned(), None),
    }
}

fn keeps_alive(headers: &Headers, version_1_1: bool) -> bool {
    if version_1_1 { !headers.has_token("connection", "close") } else { headers.has_token("connection", "keep-alive") }
}

/// How a message with these headers is delimited; `None` when they do not say.
pub(super) fn body_length(headers: &Headers) -> Result<Option<BodyLength>, HttpError> {
    let has_length = headers.get("content-length").is_some();
    if headers.get("transfer-encoding").is_some() {
        // Both at once is how requests are smuggled past proxies that take the other one.
        if has_length {
            return Err(HttpError::Malformed { reason: "both Content-Length and Transfer-Encoding" });
        }
        let mut codings = headers.all("transfer-encoding").flat_map(|value| value.split(','));
        let only = codings.next().map(str::trim);
        let is_chunked = only.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) && codings.next().is_none();
        return if is_chunked { Ok(Some(BodyLength::Chunked)) } else { Err(HttpError::LengthRequired) };
    }
    let mut lengths = headers.all("content-length");
    let Some(first) = lengths.next() else { return Ok(None) };
    if lengths.any(|other| other != first) {
        return Err(HttpError::Malformed { reason: "several Content-Length headers" });
    }
    let is_number = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    let length = if is_number { first.parse().ok() } else { None };
    length.map(|length| Some(BodyLength::Known(length))).ok_or(HttpError::Malformed { reason: "the Content-Length" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Option<(RequestHead, usize)>, HttpError> {
        parse_request(text.as_bytes(), 256, 4)
    }

    fn status_of(text: &str) -> Option<u16> {
        request(text).unwrap_err().status()
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = "GET /gossip?format=json HTTP/1.1\r\nHost: a\r\nAccept:  x \r\n\r\n";
        for cut in 0..text.len() {
            assert!(request(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let (head, length) = request(text).unwrap().unwrap();
        assert_eq!(length, text.len());
        assert_eq!(
            (head.method, head.path.as_str(), head.query.as_deref()),
            (Method::Get, "/gossip", Some("format=json"))
        );
        assert_eq!(head.headers.get("accept"), Some("x"));
        assert!(head.keep_alive);
    }

    #[test]
    fn connections_stay_or_go_as_the_version_says() {
        let check = |text: &str, expected: bool| assert_eq!(request(text).unwrap().unwrap().0.keep_alive, expected);
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true);
        check("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", false);
        check("GET / HTTP/1.0\r\n\r\n", false);
        check("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true);
    }

    #[test]
    fn wrong_heads_have_their_status() {
        assert_eq!(status_of("nonsense\r\n\r\n"), Some(400));
        assert_eq!(status_of("GET / HTTP/1.1\r\n\r\n"), Some(400), "no host");
        assert_eq!(status_of("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Some(400));
        assert_eq!(status_of("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Some(505));
        assert_eq!(status_of("GET / HTTP/1.1\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\ne: 1\r\n\r\n"), Some(431));
        assert_eq!(status_of(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(300))), Some(431));
        assert_eq!(status_of(&format!("GET /{}", "x".repeat(300))), Some(431), "not whole, and too long already");
    }

    #[test]
    fn targets_may_be_absolute() {
        assert_eq!(split_target("http://a:1/b?c"), ("/b".to_owned(), Some("c".to_owned())));
        assert_eq!(split_target("http://a"), ("/".to_owned(), None));
        assert_eq!(split_target("/redirect?to=http://a/"), ("/redirect".to_owned(), Some("to=http://a/".to_owned())));
    }

    #[test]
    fn body_lengths_are_told_or_refused() {
        let check = |lines: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            body_length(&Headers(lines.iter().map(own).collect())).map_err(|error| error.status())
        };
        assert_eq!(check(&[]), Ok(None));
        assert_eq!(check(&[("content-length", "12")]), Ok(Some(BodyLength::Known(12))));
        assert_eq!(check(&[("content-length", "12"), ("content-length", "12")]), Ok(Some(BodyLength::Known(12))));
        assert_eq!(check(&[("content-length", "12"), ("content-length", "13")]), Err(Some(400)));
        assert_eq!(check(&[("content-length", "+1")]), Err(Some(400)));
        assert_eq!(check(&[("content-length", "99999999999999999999")]), Err(Some(400)));
        assert_eq!(check(&[("transfer-encoding", "Chunked")]), Ok(Some(BodyLength::Chunked)));
        assert_eq!(check(&[("transfer-encoding", "gzip, chunked")]), Err(Some(411)));
        assert_eq!(check(&[("transfer-encoding", "chunked"), ("content-length", "1")]), Err(Some(400)));
    }
}
