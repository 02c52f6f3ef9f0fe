//! Questions to the kernel over netlink sockets: what `ip` and `ethtool` ask. Only messages and attributes; what they mean
//! is known by [`routes`](super::routes) and by `machine`.
//!
//! Layout after `netlink(7)`: all in the host's byte order, headers and attributes aligned to four bytes.
#![allow(clippy::host_endian_bytes)] // The kernel of this very host reads and writes them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The kernel answers at once or never.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A dump comes in pieces of up to 32 KiB.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of one answer at most.
const PIECES_MAX: usize = 256;

const HEADER_BYTES: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
/// Ask for all there is.
pub(crate) const DUMP: u16 = 0x300;
/// An attribute made of attributes.
pub(crate) const NESTED: u16 = 0x8000;

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A socket to ask with. Needs no privilege.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens it; without a protocol it is for routes and addresses.
    ///
    /// # Errors
    /// Those of `socket` and `bind`: a container may be denied netlink.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Netlink> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_LIMIT))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends one question and gathers its answer. What is left of an earlier one is passed over.
    ///
    /// # Errors
    /// What the kernel answers, or that it does not.
    pub(crate) fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let acknowledge = if flags & DUMP == DUMP { 0 } else { ACKNOWLEDGE };
        let question = encode(kind, REQUEST | acknowledge | flags, self.sequence, body);
        rustix::net::sendto(&self.socket, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let (mut messages, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
        for _ in 0..PIECES_MAX {
            let (length, _) = rustix::net::recv(&self.socket, &mut piece[..], RecvFlags::empty())?;
            if decode(&piece[..length], self.sequence, &mut messages)? {
                return Ok(messages);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer does not end"))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn encode(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("a question is short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    // The sender: the kernel knows it.
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// Takes the messages of this question out of a piece. True when the answer is complete.
fn decode(mut bytes: &[u8], sequence: u32, messages: &mut Vec<Message>) -> io::Result<bool> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut off");
    while !bytes.is_empty() {
        let length = word(bytes).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| (HEADER_BYTES..=bytes.len()).contains(length)).ok_or_else(cut)?;
        let (kind, body) = (half(&bytes[4..]).ok_or_else(cut)?, &bytes[HEADER_BYTES..length]);
        if word(&bytes[8..]) == Some(sequence) {
            match kind {
                DONE => return Ok(true),
                ERROR => {
                    let code = word(body).ok_or_else(cut)?.cast_signed();
                    let failed = || io::Error::from_raw_os_error(code.saturating_neg());
                    return if code == 0 { Ok(true) } else { Err(failed()) };
                }
                _ => messages.push(Message { kind, body: body.to_vec() }),
            }
        }
        bytes = &bytes[aligned(length).min(bytes.len())..];
    }
    Ok(false)
}

/// The attributes in `bytes`; the end of the list is where they make no sense any more.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
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

/// The value of the first attribute of this kind.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).into_iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Appends an attribute.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("an attribute is short");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// The number at the beginning.
pub(crate) fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// The short number at the beginning.
pub(crate) fn half(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// A number as an attribute's value.
pub(crate) fn number(value: u32) -> [u8; 4] {
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
    fn answers_end_with_done_or_an_error_of_their_own_question() {
        let check = |bytes: &[u8], expected: Result<bool, i32>, count: usize| {
            let mut messages = Vec::new();
            let result = decode(bytes, 5, &mut messages).map_err(|error| error.raw_os_error().unwrap_or(0));
            assert_eq!((result, messages.len()), (expected, count));
        };
        let data = encode(20, 0, 5, b"abcde");
        let mut padded = data.clone();
        padded.resize(24, 0);
        check(&padded, Ok(false), 1);
        check(&[padded.clone(), encode(DONE, 0, 5, &[0; 4])].concat(), Ok(true), 1);
        check(&[encode(20, 0, 4, &[1; 8]), data.clone()].concat(), Ok(false), 1);
        check(&encode(ERROR, 0, 4, &(-95i32).to_ne_bytes()), Ok(false), 0);
        check(&encode(ERROR, 0, 5, &0i32.to_ne_bytes()), Ok(true), 0);
        check(&encode(ERROR, 0, 5, &(-95i32).to_ne_bytes()), Err(95), 0);
        check(&encode(ERROR, 0, 5, &[]), Err(0), 0);
        check(&data[..18], Err(0), 0);
        check(&[0; 16], Err(0), 0);
    }
}
