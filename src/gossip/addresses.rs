//! Where a node is reached, and by whom under which address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::types::Network;

/// Where a node is reached, as it advertises itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Replication and forwarding.
    pub int_tcp: SocketAddr,
    /// Gossip and elections.
    pub int_http: SocketAddr,
    /// Clients, TCP; port 0 where there is only one with TLS.
    pub ext_tcp: SocketAddr,
    /// Clients, HTTP.
    pub ext_http: SocketAddr,
    /// Clients, TCP inside TLS; none where there is no such port. Nodes that do not know the word are older than it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext_secure_tcp: Option<SocketAddr>,
}

/// A rule of `ExtAdvertise`: clients of this network reach the node by this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AddressRule {
    /// Where the client is.
    #[serde(rename = "for")]
    pub network: Network,
    /// What it is told.
    pub address: IpAddr,
}

impl Addresses {
    /// The internal address.
    #[must_use]
    pub fn int_ip(&self) -> IpAddr {
        self.int_tcp.ip()
    }

    /// What a client at `client` is told: the external address of the first of `rules` that holds, else these.
    #[must_use]
    pub fn for_client(mut self, rules: &[AddressRule], client: IpAddr) -> Addresses {
        if let Some(rule) = rules.iter().find(|rule| rule.network.contains(client)) {
            self.ext_tcp.set_ip(rule.address);
            self.ext_http.set_ip(rule.address);
            self.ext_secure_tcp.iter_mut().for_each(|address| address.set_ip(rule.address));
        }
        self
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.network, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_holds_names_the_address() {
        let base = Addresses {
            int_tcp: "10.9.0.1:1112".parse().unwrap(),
            int_http: "10.9.0.1:2112".parse().unwrap(),
            ext_tcp: "192.168.0.1:1113".parse().unwrap(),
            ext_http: "192.168.0.1:2113".parse().unwrap(),
            ext_secure_tcp: Some("192.168.0.1:1116".parse().unwrap()),
        };
        let rule = |network: &str, address: &str| AddressRule {
            network: network.parse().unwrap(),
            address: address.parse().unwrap(),
        };
        let rules = [rule("10.1.2.0/24", "10.1.2.5"), rule("10.1.0.0/16", "10.1.0.5"), rule("::/0", "fd00::5")];
        let check = |client: &str, tcp: &str, http: &str| {
            let told = base.for_client(&rules, client.parse().unwrap());
            assert_eq!(
                (told.ext_tcp.to_string().as_str(), told.ext_http.to_string().as_str()),
                (tcp, http),
                "{client}"
            );
            assert_eq!((told.int_tcp, told.int_http), (base.int_tcp, base.int_http));
            assert_eq!(told.ext_secure_tcp.unwrap(), SocketAddr::new(told.ext_tcp.ip(), 1116));
            assert_eq!(
                Addresses { ext_secure_tcp: None, ..base }.for_client(&rules, client.parse().unwrap()).ext_secure_tcp,
                None
            );
        };
        check("10.1.2.9", "10.1.2.5:1113", "10.1.2.5:2113");
        check("10.1.3.9", "10.1.0.5:1113", "10.1.0.5:2113");
        check("::ffff:10.1.3.9", "10.1.0.5:1113", "10.1.0.5:2113");
        check("fd00::9", "[fd00::5]:1113", "[fd00::5]:2113");
        check("127.0.0.1", "192.168.0.1:1113", "192.168.0.1:2113");
        assert_eq!(base.for_client(&[], "10.1.2.9".parse().unwrap()), base);
    }

    /// What a node of an earlier version says, and what it is told: it takes an entry apart by these words.
    #[test]
    fn nodes_without_the_secure_port_understand_each_other_and_those_with_it() {
        let older = r#"{"intTcp":"10.9.0.1:1112","intHttp":"10.9.0.1:2112","extTcp":"10.9.0.1:1113","extHttp":"10.9.0.1:2113"}"#;
        let read: Addresses = serde_json::from_str(older).unwrap();
        assert_eq!(read.ext_secure_tcp, None);
        assert_eq!(serde_json::to_string(&read).unwrap(), older, "nothing new where there is nothing");
        let with = Addresses { ext_secure_tcp: Some("10.9.0.1:1116".parse().unwrap()), ..read };
        let text = serde_json::to_string(&with).unwrap();
        assert!(text.ends_with(r#","extSecureTcp":"10.9.0.1:1116"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Addresses>(&text).unwrap(), with);
    }
}
