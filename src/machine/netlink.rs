//! Questions to the kernel over netlink sockets: what `ip` and `ethtool` ask. Only messages and attributes; what they mean
//! is known by [`addresses`](super::addresses) and [`ethtool`](super::ethtool).
//!
//! Layout after `netlink(7)`: all in the host's byte order, headers and attributes aligned to four bytes.
#![allow(clippy::host_endian_bytes)] // The kernel of this very host reads and writes them.

use std::io;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The kernel answers at once or never.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A dump comes in pieces of up to 32 KiB.
const PIECE_BYTES: usize = 64 << 10;
/// Messages of one answer at most.
const MESSAGES_MAX: usize = 64 << 10;

const HEADER_BYTES: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
/// Ask for all there is.
pub(super) const DUMP: u16 = 0x300;
/// An attribute made of attributes.
pub(super) const NESTED: u16 = 0x8000;

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) body: Vec<u8>,
}

/// Sends one question and gathers its answer.
pub(super) fn ask(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_LIMIT))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let acknowledge = if flags & DUMP == DUMP { 0 } else { ACKNOWLEDGE };
    let question = encode(kind, REQUEST | acknowledge | flags, body);
    rustix::net::sendto(&socket, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut messages = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    while messages.len() < MESSAGES_MAX {
        let (length, _) = rustix::net::recv(&socket, &mut piece[..], RecvFlags::empty())?;
        if decode(&piece[..length], &mut messages)? {
            return Ok(messages);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer does not end"))
}

fn encode(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("a question is short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number and sender: one question a socket.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Takes the messages out of a piece. True when the answer is complete.
fn decode(mut bytes: &[u8], messages: &mut Vec<Message>) -> io::Result<bool> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut off");
    while !bytes.is_empty() {
        let length = word(bytes).filter(|length| (HEADER_BYTES..=bytes.len()).contains(length)).ok_or_else(cut)?;
        let kind = half(&bytes[4..]).ok_or_else(cut)?;
        let body = &bytes[HEADER_BYTES..length];
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = i32::from_ne_bytes(body.get(..4).ok_or_else(cut)?.try_into().expect("four bytes"));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
            }
            _ => messages.push(Message { kind, body: body.to_vec() }),
        }
        bytes = &bytes[aligned(length).min(bytes.len())..];
    }
    Ok(false)
}

/// The attributes in `bytes`; the end of the list is where they make no sense any more.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (half(bytes), bytes.get(2..).and_then(half)) {
        let length = usize::from(length);
        if length < 4 || length > bytes.len() {
            break;
        }
        found.push((kind & !NESTED, &bytes[4..length]));
        bytes = &bytes[aligned(length).min(bytes.len())..];
    }
    found
}

/// Appends an attribute.
pub(super) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("an attribute is short");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// The number at the beginning.
pub(super) fn word(bytes: &[u8]) -> Option<usize> {
    let number = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    usize::try_from(number).ok()
}

/// The short number at the beginning.
pub(super) fn half(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// A number as an attribute's value.
pub(super) fn number(value: u32) -> [u8; 4] {
    value.to_ne_bytes()
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_put() {
        let mut bytes = Vec::new();
        put(&mut bytes, 2, b"eth0\0");
        put(&mut bytes, 9 | NESTED, &number(7));
        assert_eq!(bytes.len(), 12 + 8);
        let found = attributes(&bytes);
        assert_eq!(found, [(2, &b"eth0\0"[..]), (9, &number(7)[..])]);
        assert_eq!(attributes(&bytes[..13]).len(), 1, "cut off");
        assert_eq!(attributes(&[3, 0, 1, 0]), []);
    }

    #[test]
    fn answers_end_with_done_or_an_error() {
        let check = |bytes: &[u8], expected: Result<bool, i32>, count: usize| {
            let mut messages = Vec::new();
            let result = decode(bytes, &mut messages).map_err(|error| error.raw_os_error().unwrap_or(0));
            assert_eq!((result, messages.len()), (expected, count));
        };
        let data = encode(20, 0, b"abcde");
        let mut padded = data.clone();
        padded.resize(24, 0);
        check(&padded, Ok(false), 1);
        check(&[padded.clone(), encode(DONE, 0, &[0; 4])].concat(), Ok(true), 1);
        check(&encode(ERROR, 0, &0i32.to_ne_bytes()), Ok(true), 0);
        check(&encode(ERROR, 0, &(-95i32).to_ne_bytes()), Err(95), 0);
        check(&encode(ERROR, 0, &[]), Err(0), 0);
        check(&data[..18], Err(0), 0);
        check(&[0; 16], Err(0), 0);
    }
}
