//! Which network device a destination leaves by, and which one has an address: asked of the kernel over rtnetlink.

use std::io;
use std::net::IpAddr;

use rustix::net::AddressFamily;
use rustix::net::netdevice::index_to_name;

use super::netlink::{self, Message, Netlink};

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
    netlink: Netlink,
}

impl Routes {
    /// Opens it.
    ///
    /// # Errors
    /// Those of `socket` and `bind`: a container may be denied netlink.
    pub fn open() -> io::Result<Routes> {
        Netlink::open(None).map(|netlink| Routes { netlink })
    }

    /// The way to `to` of a connection from `from`, an address of this host (of another family: any).
    ///
    /// # Errors
    /// When there is no route, or the kernel does not answer.
    pub fn route(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Route> {
        let from = from.filter(|from| !from.is_unspecified() && from.is_ipv4() == to.is_ipv4());
        let messages = self.netlink.ask(GET_ROUTE, 0, &route_question(to, from))?;
        let found = messages.iter().find_map(read_route);
        let (index, is_local) = found.ok_or_else(|| io::Error::other("the kernel names no device"))?;
        Ok(Route { device: index_to_name(&self.netlink, index)?, is_local })
    }

    /// The device that has this address; none has most of the loopback network, which is `lo`'s all the same.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn device_with(&mut self, address: IpAddr) -> io::Result<Option<String>> {
        match self.addresses()?.into_iter().find(|(_, found)| *found == address) {
            Some((index, _)) => Ok(Some(index_to_name(&self.netlink, index)?)),
            None => Ok(address.is_loopback().then(|| "lo".to_owned())),
        }
    }

    /// All addresses of this host, each with the index of its device.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, IpAddr)>> {
        let messages = self.netlink.ask(GET_ADDRESS, netlink::DUMP, &[0; ADDRESS_BYTES])?;
        Ok(messages.iter().filter_map(read_address).collect())
    }
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
    match address {
        IpAddr::V4(address) => netlink::put(body, kind, &address.octets()),
        IpAddr::V6(address) => netlink::put(body, kind, &address.octets()),
    }
}

/// Index of the device, and whether the destination is this host.
fn read_route(message: &Message) -> Option<(u32, bool)> {
    let (head, rest) = message.body.split_at_checked(ROUTE_BYTES).filter(|_| message.kind == NEW_ROUTE)?;
    let device = netlink::attribute(rest, ROUTE_DEVICE)?;
    Some((netlink::word(device)?, head[ROUTE_TYPE_AT] == ROUTE_TYPE_LOCAL))
}

/// Index of the device, and the address.
fn read_address(message: &Message) -> Option<(u32, IpAddr)> {
    let (head, rest) = message.body.split_at_checked(ADDRESS_BYTES).filter(|_| message.kind == NEW_ADDRESS)?;
    // On a point-to-point device the other attribute is the other end.
    let bytes = netlink::attribute(rest, ADDRESS_LOCAL).or_else(|| netlink::attribute(rest, ADDRESS_PEER))?;
    let four = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let sixteen = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    Some((netlink::word(&head[4..])?, four().or_else(sixteen)?))
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
        let read = |kind: u16, body: &[u8]| read_route(&Message { kind, body: body.to_vec() });
        assert_eq!(read(NEW_ROUTE, &body), None, "no device");
        netlink::put(&mut body, ROUTE_DEVICE, &netlink::number(3));
        assert_eq!(read(NEW_ROUTE, &body), Some((3, false)));
        body[ROUTE_TYPE_AT] = ROUTE_TYPE_LOCAL;
        assert_eq!(read(NEW_ROUTE, &body), Some((3, true)));
        assert_eq!(read(NEW_ADDRESS, &body), None);
        assert_eq!(read(NEW_ROUTE, &body[..5]), None);
    }

    #[test]
    fn an_address_is_the_local_end() {
        let mut body = [vec![2, 24, 0, 0], netlink::number(7).to_vec()].concat();
        let read = |kind: u16, body: &[u8]| read_address(&Message { kind, body: body.to_vec() });
        assert_eq!(read(NEW_ADDRESS, &body), None);
        put(&mut body, ADDRESS_PEER, ip("10.0.0.2"));
        assert_eq!(read(NEW_ADDRESS, &body), Some((7, ip("10.0.0.2"))));
        put(&mut body, ADDRESS_LOCAL, ip("10.0.0.1"));
        assert_eq!(read(NEW_ADDRESS, &body), Some((7, ip("10.0.0.1"))));
        assert_eq!(read(NEW_ROUTE, &body), None);
        assert_eq!(read(NEW_ADDRESS, &body[..3]), None);
        let mut body = [vec![10, 64, 0, 0], netlink::number(7).to_vec()].concat();
        put(&mut body, ADDRESS_PEER, ip("fd00::1"));
        assert_eq!(read(NEW_ADDRESS, &body), Some((7, ip("fd00::1"))));
    }
}
