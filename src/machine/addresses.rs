//! Which device has which address: asked for over netlink, or read from a captured folder.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{self, Message};
use super::tree::Tree;

const GET_ADDRESS: u16 = 22;
const NEW_ADDRESS: u16 = 20;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// Family, prefix, flags, scope, index.
const HEADER_BYTES: usize = 8;

/// The addresses of all devices, by the name of the device.
pub(super) fn read(tree: &Tree) -> BTreeMap<String, Vec<IpAddr>> {
    if !tree.is_real() {
        let of = |name: String| {
            let text = tree.text(&format!("addresses/{name}")).unwrap_or_default();
            let addresses = text.lines().filter_map(|line| line.split('/').next()?.trim().parse().ok()).collect();
            (name, addresses)
        };
        return tree.list("addresses").into_iter().map(of).collect();
    }
    let answer = netlink::ask(None, GET_ADDRESS, netlink::DUMP, &[0; HEADER_BYTES]).unwrap_or_default();
    let names: BTreeMap<usize, String> = tree
        .list("sys/class/net")
        .into_iter()
        .filter_map(|name| Some((tree.number(&format!("sys/class/net/{name}/ifindex"))?, name)))
        .collect();
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (index, address) in answer.iter().filter_map(parse) {
        if let Some(name) = names.get(&index) {
            found.entry(name.clone()).or_default().push(address);
        }
    }
    found
}

/// Index of the device and address.
fn parse(message: &Message) -> Option<(usize, IpAddr)> {
    if message.kind != NEW_ADDRESS || message.body.len() < HEADER_BYTES {
        return None;
    }
    let index = netlink::word(&message.body[4..])?;
    let attributes = netlink::attributes(&message.body[HEADER_BYTES..]);
    let value = |wanted: u16| attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    // On a point-to-point device ADDRESS is the other end.
    let bytes = value(LOCAL).or_else(|| value(ADDRESS))?;
    let four = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
    let sixteen = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
    Some((index, four().or_else(sixteen)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_local_one() {
        let mut body = vec![2, 24, 0, 0];
        body.extend(netlink::number(3));
        netlink::put(&mut body, ADDRESS, &[10, 0, 0, 2]);
        let check = |body: &[u8], kind: u16, expected: Option<(usize, &str)>| {
            let found = parse(&Message { kind, body: body.to_vec() });
            assert_eq!(found, expected.map(|(index, text)| (index, text.parse().unwrap())));
        };
        check(&body, NEW_ADDRESS, Some((3, "10.0.0.2")));
        netlink::put(&mut body, LOCAL, &[10, 0, 0, 1]);
        check(&body, NEW_ADDRESS, Some((3, "10.0.0.1")));
        check(&body, 16, None);
        check(&body[..8], NEW_ADDRESS, None);
        check(&body[..3], NEW_ADDRESS, None);
    }

    #[test]
    fn captured_addresses_are_read() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let found = read(&tree);
        assert_eq!(found["ens1f0np0"], ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found["lo"].len(), 2);
    }
}
