//! Which device has which address: asked for over netlink, or read from a captured folder.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::tree::Tree;
use crate::ring::Routes;

/// The addresses of each device, by its name.
pub(super) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// The addresses of all devices; an error where the kernel does not tell them: a filter may deny netlink.
pub(super) fn read(tree: &Tree) -> io::Result<Addresses> {
    if !tree.is_real() {
        let of = |name: String| {
            let text = tree.text(&format!("addresses/{name}")).unwrap_or_default();
            let addresses = text.lines().filter_map(|line| line.split('/').next()?.trim().parse().ok()).collect();
            (name, addresses)
        };
        return Ok(tree.list("addresses").into_iter().map(of).collect());
    }
    let shown = Routes::open()?.addresses()?;
    let names: BTreeMap<u32, String> = tree
        .list("sys/class/net")
        .into_iter()
        .filter_map(|name| Some((tree.number(&format!("sys/class/net/{name}/ifindex"))?, name)))
        .collect();
    let mut found = Addresses::new();
    for (index, address) in shown {
        if let Some(name) = names.get(&index) {
            found.entry(name.clone()).or_default().push(address);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_addresses_are_read() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let found = read(&tree).unwrap();
        assert_eq!(found["ens1f0np0"], ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found["lo"].len(), 2);
    }
}
