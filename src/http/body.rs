//! Bodies: of a known length, chunked, or until the connection closes. Pure: the caller brings the bytes.

use super::error::HttpError;
use super::head::BodyLength;

/// A chunk's size line may have extensions, which nobody uses; this much is tolerated.
const CHUNK_LINE_MAX_BYTES: usize = 256;
/// Lines after the last chunk are read over, this many bytes at most.
const TRAILER_MAX_BYTES: usize = 4096;

/// Gathers a body from the bytes that arrive. Feed it with [`BodyReader::take`] until it says that it is done.
#[derive(Debug)]
pub(super) struct BodyReader {
    state: State,
    body: Vec<u8>,
    limit: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body with a known length are missing.
    Rest(usize),
    /// A chunk's size line comes next.
    ChunkLine,
    /// So many bytes of a chunk are missing.
    Chunk(usize),
    /// The line end behind a chunk's bytes.
    ChunkEnd,
    /// Lines after the last chunk, up to an empty one.
    Trailer,
    /// Everything up to the close.
    UntilClose,
    Done,
}

impl BodyReader {
    /// A reader for a body delimited like this, of at most `limit` bytes.
    pub(super) fn new(length: BodyLength, limit: usize) -> Result<BodyReader, HttpError> {
        let state = match length {
            BodyLength::Known(0) => State::Done,
            BodyLength::Known(length) => match usize::try_from(length) {
                Ok(length) if length <= limit => State::Rest(length),
                _ => return Err(HttpError::BodyTooLarge { limit }),
            },
            BodyLength::Chunked => State::ChunkLine,
            BodyLength::UntilClose => State::UntilClose,
        };
        Ok(BodyReader { state, body: Vec::new(), limit, trailer_bytes: 0 })
    }

    /// Takes from `bytes` what belongs to the body and says how much that was and whether the body is whole. Bytes that
    /// are not taken must be there again in the next call, with more behind them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), HttpError> {
        let mut used = 0;
        while self.state != State::Done {
            let Some(step) = self.step(&bytes[used..])? else { break };
            used += step;
        }
        Ok((used, self.state == State::Done))
    }

    /// The body. For an answer that ends with the connection: what has arrived when it closed.
    pub(super) fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// True when the close of the connection ends the body.
    pub(super) fn ends_with_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// One step; `None` when more bytes are needed.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match self.state {
            State::Rest(missing) => {
                let taken = self.append(bytes, missing)?;
                self.state = if taken == missing { State::Done } else { State::Rest(missing - taken) };
                Ok(Some(taken))
            }
            State::Chunk(missing) => {
                let taken = self.append(bytes, missing)?;
                self.state = if taken == missing { State::ChunkEnd } else { State::Chunk(missing - taken) };
                Ok(Some(taken))
            }
            State::UntilClose => self.append(bytes, usize::MAX).map(Some),
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkLine;
                    Ok(Some(2))
                }
                [b'\r'] => Ok(None),
                _ => Err(HttpError::Malformed { reason: "a chunk's end" }),
            },
            State::ChunkLine => self.chunk_line(bytes),
            State::Trailer => self.trailer_line(bytes),
            State::Done => Ok(None),
        }
    }

    fn append(&mut self, bytes: &[u8], most: usize) -> Result<usize, HttpError> {
        let taken = bytes.len().min(most);
        if self.body.len() + taken > self.limit {
            return Err(HttpError::BodyTooLarge { limit: self.limit });
        }
        self.body.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn chunk_line(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        let Some(end) = line_end(bytes, CHUNK_LINE_MAX_BYTES)? else { return Ok(None) };
        let line = &bytes[..end];
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_hex = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
        let text = if is_hex { std::str::from_utf8(digits).ok() } else { None };
        let size = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        let size = size.ok_or(HttpError::Malformed { reason: "a chunk's size" })?;
        let size = usize::try_from(size).map_err(|_| HttpError::BodyTooLarge { limit: self.limit })?;
        if size > self.limit - self.body.len() {
            return Err(HttpError::BodyTooLarge { limit: self.limit });
        }
        self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
        Ok(Some(end + 2))
    }

    fn trailer_line(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        let Some(end) = line_end(bytes, TRAILER_MAX_BYTES)? else { return Ok(None) };
        self.trailer_bytes += end + 2;
        if self.trailer_bytes > TRAILER_MAX_BYTES {
            return Err(HttpError::Malformed { reason: "the lines after the last chunk are too long" });
        }
        if end == 0 {
            self.state = State::Done;
        }
        Ok(Some(end + 2))
    }
}

/// Where the line's CR is; `None` when the line is not whole yet.
fn line_end(bytes: &[u8], limit: usize) -> Result<Option<usize>, HttpError> {
    let end = bytes.windows(2).take(limit).position(|pair| pair == b"\r\n");
    if end.is_none() && bytes.len() > limit {
        return Err(HttpError::Malformed { reason: "a line of a chunked body is too long" });
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step` bytes, keeping what is not taken, as the connection does.
    fn read(length: BodyLength, bytes: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, Option<u16>> {
        let mut reader = BodyReader::new(length, 20).map_err(|error| error.status())?;
        let (mut start, mut end) = (0, 0);
        loop {
            let (used, done) = reader.take(&bytes[start..end]).map_err(|error| error.status())?;
            start += used;
            if done {
                return Ok(Some((reader.into_body(), start)));
            }
            if end == bytes.len() {
                return Ok(None);
            }
            end = (end + step).min(bytes.len());
        }
    }

    #[test]
    fn bodies_arrive_in_any_pieces() {
        for step in 1..20 {
            assert_eq!(read(BodyLength::Known(5), b"helloGET", step), Ok(Some((b"hello".to_vec(), 5))));
            let chunked = b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: 1\r\n\r\nGET";
            assert_eq!(read(BodyLength::Chunked, chunked, step), Ok(Some((b"hello".to_vec(), chunked.len() - 3))));
            assert_eq!(read(BodyLength::Known(5), b"hell", step), Ok(None));
        }
        assert_eq!(read(BodyLength::Known(0), b"", 1), Ok(Some((Vec::new(), 0))));
    }

    #[test]
    fn what_is_too_long_or_wrong_is_refused() {
        assert_eq!(read(BodyLength::Known(21), b"", 1), Err(Some(413)));
        assert_eq!(read(BodyLength::Known(u64::MAX), b"", 1), Err(Some(413)));
        let check = |bytes: &[u8], status: u16| assert_eq!(read(BodyLength::Chunked, bytes, 7), Err(Some(status)));
        check(b"15\r\n", 413);
        check(b"ffffffffffffffff\r\n", 413);
        check(b"10\r\n0123456789abcdef\r\n5\r\n", 413);
        check(b"-1\r\n", 400);
        check(b"\r\n", 400);
        check(b"1ffffffffffffffff\r\n", 400);
        check(b"1\r\nabc", 400);
        check(&[b'1'; 400], 400);
        check(&[b"0\r\n".as_slice(), &b"a: b\r\n".repeat(1000)].concat(), 400);
    }

    /// Goal: no bytes from outside panic the parser or get more out of it than the limit. Method: messages that are
    /// nearly right, with random bytes changed, read in random pieces.
    #[test]
    fn no_bytes_break_it() {
        use super::super::head::{body_length, parse_request};
        let mut random = fastrand::Rng::with_seed(11);
        let message =
            b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        let mut bodies = 0;
        for _ in 0..20_000 {
            let mut bytes = message.to_vec();
            for _ in 0..random.usize(..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, *random.choice(message).unwrap()),
                }
            }
            let Ok(Some((head, length))) = parse_request(&bytes, 256, 8) else { continue };
            let Ok(Some(delimited)) = body_length(&head.headers) else { continue };
            if let Ok(Some((body, used))) = read(delimited, &bytes[length..], random.usize(1..9)) {
                assert!(body.len() <= 20 && used <= bytes.len() - length);
                bodies += 1;
            }
        }
        assert!(bodies > 1000, "most messages should still be readable: {bodies}");
    }
}
