//! One HTTP request on its own connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.body)?)
    }
}

/// GET.
pub(crate) fn get(address: SocketAddr, path: &str, limit: Duration) -> io::Result<Response> {
    request(address, "GET", path, "", limit)
}

/// Any method, with a JSON body unless it is empty. `limit` holds for the whole exchange.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> io::Result<Response> {
    let deadline = Instant::now() + limit;
    let mut socket = TcpStream::connect_timeout(&address, limit)?;
    socket.set_write_timeout(Some(limit))?;
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{kind}");
    socket.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
    let mut received = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        if let Some(response) = parse(&received)? {
            return Ok(response);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => received.extend_from_slice(&piece[..count]),
        }
    }
}

/// The response in `bytes`, once it is whole. The server gives the length of every body that there is.
fn parse(bytes: &[u8]) -> io::Result<Option<Response>> {
    let bad =
        |what: &str| io::Error::new(ErrorKind::InvalidData, format!("{what}: {}", String::from_utf8_lossy(bytes)));
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad("no status"))?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = match length {
        Some(length) => length.trim().parse().map_err(|_| bad("a bad Content-Length"))?,
        // "No content" has none, and says nothing of its length.
        None if status == 204 => 0,
        None => return Err(bad("no Content-Length")),
    };
    let Some(body) = bytes.get(end + 4..end + 4 + length) else { return Ok(None) };
    Ok(Some(Response { status, head, body: String::from_utf8_lossy(body).into_owned() }))
}
