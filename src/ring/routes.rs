//! Which network device a destination leaves by, and which one has an address: asked of the kernel over rtnetlink.
//!
//! The layout of the messages is that of `rtnetlink(7)`: all in the host's byte order, headers and attributes aligned to
//! four bytes.
#![allow(clippy::host_endian_bytes)] // The kernel of this very host reads and writes them.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netdevice::index_to_name;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};

/// The kernel answers at once or never.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A list comes in pieces of up to 32 KiB.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of one answer at most.
const PIECES_MAX: usize = 256;

const HEADER_BYTES: usize = 16;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

/// Of a route: family, lengths, table, type and flags.
const ROUTE_BYTES: usize = 12;
const ROUTE_TYPE_AT: usize = 7;
const ROUTE_TYPE_LOCAL: u8 = 2;
const ROUTE_TO: u16 = 1;
const ROUTE_FROM: u16 = 2;
const ROUTE_DEVICE: u16 = 4;

/// Of an address: family, prefix, flags, scope, index of the device.
const ADDRESS_BYTES: usize = 8;
const ADDRESS_PEER: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;

/// What the kernel would do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The device that it would leave by.
    pub device: String,
    /// The destination is an address of this host: the packet leaves it not at all.
    pub is_local: bool,
}

/// A socket to ask the kernel with. Needs no privilege.
#[derive(Debug)]
pub struct Routes {
    socket: OwnedFd,
    sequence: u32,
}

impl Routes {
    /// Opens it.
    ///
    /// # Errors
    /// Those of `socket` and `bind`: a container may be denied netlink.
    pub fn open() -> io::Result<Routes> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_LIMIT))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Routes { socket, sequence: 0 })
    }

    /// The way to `to` of a connection from `from`, an address of this host (of another family: any).
    ///
    /// # Errors
    /// When there is no route, or the kernel does not answer.
    pub fn route(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Route> {
        let from = from.filter(|from| !from.is_unspecified() && from.is_ipv4() == to.is_ipv4());
        let messages = self.ask(GET_ROUTE, ACKNOWLEDGE, &route_question(to, from))?;
        let found = messages.iter().find_map(|(kind, body)| read_route(*kind, body));
        let (index, is_local) = found.ok_or_else(|| io::Error::other("the kernel names no device"))?;
        Ok(Route { device: index_to_name(&self.socket, index)?, is_local })
    }

    /// The device that has this address; none has most of the loopback network, which is `lo`'s all the same.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn device_with(&mut self, address: IpAddr) -> io::Result<Option<String>> {
        let messages = self.ask(GET_ADDRESS, DUMP, &[0; ADDRESS_BYTES])?;
        let mut addresses = messages.iter().filter_map(|(kind, body)| read_address(*kind, body));
        match addresses.find(|(_, found)| *found == address) {
            Some((index, _)) => Ok(Some(index_to_name(&self.socket, index)?)),
            None => Ok(address.is_loopback().then(|| "lo".to_owned())),
        }
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = message(kind, REQUEST | flags, self.sequence, body);
        sendto(&self.socket, &question, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let (mut messages, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
        for _ in 0..PIECES_MAX {
            let (length, _) = recv(&self.socket, &mut piece[..], RecvFlags::empty())?;
            if take_messages(&piece[..length], self.sequence, &mut messages)? {
                return Ok(messages);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer does not end"))
    }
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("a question is short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// Takes the messages of our question out of a piece. True when the answer is complete. What is left of an earlier
/// question (one that timed out) is passed over.
fn take_messages(mut bytes: &[u8], sequence: u32, messages: &mut Vec<(u16, Vec<u8>)>) -> io::Result<bool> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "a netlink message is cut off");
    while !bytes.is_empty() {
        let length = word(bytes, 0).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| (HEADER_BYTES..=bytes.len()).contains(length)).ok_or_else(cut)?;
        let (kind, body) = (half(bytes, 4).ok_or_else(cut)?, &bytes[HEADER_BYTES..length]);
        if word(bytes, 8) == Some(sequence) {
            match kind {
                DONE => return Ok(true),
                ERROR => {
                    let code = word(body, 0).ok_or_else(cut)?.cast_signed();
                    let failed = || io::Error::from_raw_os_error(code.saturating_neg());
                    return if code == 0 { Ok(true) } else { Err(failed()) };
                }
                _ => messages.push((kind, body.to_vec())),
            }
        }
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(false)
}

fn route_question(to: IpAddr, from: Option<IpAddr>) -> Vec<u8> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let mut body = vec![0; ROUTE_BYTES];
    body[0] = u8::try_from(family.as_raw()).expect("a small number");
    body[1] = bits(to);
    body[2] = from.map_or(0, bits);
    put(&mut body, ROUTE_TO, to);
    if let Some(from) = from {
        put(&mut body, ROUTE_FROM, from);
    }
    body
}

fn put(body: &mut Vec<u8>, kind: u16, address: IpAddr) {
    let value = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    body.extend(u16::try_from(4 + value.len()).expect("an address is short").to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// Index of the device, and whether the destination is this host.
fn read_route(kind: u16, body: &[u8]) -> Option<(u32, bool)> {
    let (head, rest) = body.split_at_checked(ROUTE_BYTES).filter(|_| kind == NEW_ROUTE)?;
    let device = attribute(rest, ROUTE_DEVICE)?;
    Some((word(device, 0)?, head[ROUTE_TYPE_AT] == ROUTE_TYPE_LOCAL))
}

/// Index of the device, and the address.
fn read_address(kind: u16, body: &[u8]) -> Option<(u32, IpAddr)> {
    let (head, rest) = body.split_at_checked(ADDRESS_BYTES).filter(|_| kind == NEW_ADDRESS)?;
    // On a point-to-point device the other attribute is the other end.
    let bytes = attribute(rest, ADDRESS_LOCAL).or_else(|| attribute(rest, ADDRESS_PEER))?;
    let four = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    Some((word(head, 4)?, four().or_else(sixteen)?))
}

/// The value of the first attribute of this kind; the end of the list is where it makes no sense any more.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn this_host_is_reached_without_leaving_it() {
        let mut routes = Routes::open().unwrap();
        for (to, from) in [("127.0.0.1", None), ("127.0.0.9", Some("127.0.0.1")), ("127.0.0.1", Some("::1"))] {
            let route = routes.route(ip(to), from.map(ip)).unwrap();
            assert_eq!(route, Route { device: "lo".to_owned(), is_local: true }, "{to}");
        }
        assert_eq!(routes.device_with(ip("127.0.0.1")).unwrap().as_deref(), Some("lo"));
        assert_eq!(routes.device_with(ip("127.3.2.1")).unwrap().as_deref(), Some("lo"));
        assert_eq!(routes.device_with(ip("192.0.2.7")).unwrap(), None);
        // An error leaves the socket usable: an address that is not ours cannot be the origin.
        assert!(routes.route(ip("127.0.0.1"), Some(ip("192.0.2.7"))).is_err());
        assert!(routes.route(ip("127.0.0.1"), None).is_ok());
    }

    #[test]
    fn a_route_is_read_as_the_kernel_writes_it() {
        let mut body = vec![0; ROUTE_BYTES];
        body[ROUTE_TYPE_AT] = 1;
        put(&mut body, ROUTE_TO, ip("10.0.0.2"));
        assert_eq!(read_route(NEW_ROUTE, &body), None, "no device");
        body.extend([8u16.to_ne_bytes(), ROUTE_DEVICE.to_ne_bytes()].concat());
        body.extend(3u32.to_ne_bytes());
        assert_eq!(read_route(NEW_ROUTE, &body), Some((3, false)));
        body[ROUTE_TYPE_AT] = ROUTE_TYPE_LOCAL;
        assert_eq!(read_route(NEW_ROUTE, &body), Some((3, true)));
        assert_eq!(read_route(NEW_ADDRESS, &body), None);
        assert_eq!(read_route(NEW_ROUTE, &body[..5]), None);
    }

    #[test]
    fn an_address_is_the_local_end() {
        let mut body = [vec![2, 24, 0, 0], 7u32.to_ne_bytes().to_vec()].concat();
        put(&mut body, ADDRESS_PEER, ip("10.0.0.2"));
        assert_eq!(read_address(NEW_ADDRESS, &body), Some((7, ip("10.0.0.2"))));
        put(&mut body, ADDRESS_LOCAL, ip("10.0.0.1"));
        assert_eq!(read_address(NEW_ADDRESS, &body), Some((7, ip("10.0.0.1"))));
        let mut body = [vec![10, 64, 0, 0], 7u32.to_ne_bytes().to_vec()].concat();
        put(&mut body, ADDRESS_PEER, ip("fd00::1"));
        assert_eq!(read_address(NEW_ADDRESS, &body), Some((7, ip("fd00::1"))));
    }

    #[test]
    fn answers_end_with_done_or_an_error_of_their_own_question() {
        let check = |bytes: &[u8], expected: Result<bool, i32>, count: usize| {
            let mut messages = Vec::new();
            let result = take_messages(bytes, 5, &mut messages);
            assert_eq!((result.map_err(|error| error.raw_os_error().unwrap_or(0)), messages.len()), (expected, count));
        };
        let data = message(NEW_ROUTE, 0, 5, &[1; 8]);
        check(&data, Ok(false), 1);
        check(&[data.clone(), message(DONE, 0, 5, &[0; 4])].concat(), Ok(true), 1);
        check(&[message(NEW_ROUTE, 0, 4, &[1; 8]), data.clone()].concat(), Ok(false), 1);
        check(&message(ERROR, 0, 4, &(-95i32).to_ne_bytes()), Ok(false), 0);
        check(&message(ERROR, 0, 5, &0i32.to_ne_bytes()), Ok(true), 0);
        check(&message(ERROR, 0, 5, &(-95i32).to_ne_bytes()), Err(95), 0);
        check(&data[..18], Err(0), 0);
        check(&[0; 16], Err(0), 0);
    }
}
