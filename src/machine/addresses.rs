//! Which device has which address: asked for over netlink, or read from a captured folder.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::tree::Tree;
use crate::ring::Routes;

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
    let shown = Routes::open().and_then(|mut routes| routes.addresses()).unwrap_or_default();
    let names: BTreeMap<u32, String> = tree
        .list("sys/class/net")
        .into_iter()
        .filter_map(|name| Some((tree.number(&format!("sys/class/net/{name}/ifindex"))?, name)))
        .collect();
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (index, address) in shown {
        if let Some(name) = names.get(&index) {
            found.entry(name.clone()).or_default().push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_addresses_are_read() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let found = read(&tree);
        assert_eq!(found["ens1f0np0"], ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found["lo"].len(), 2);
    }
}
