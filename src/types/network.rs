//! A range of IP addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of IP addresses, written `10.1.0.0/16` or `fd00:1::/32`; a bare address is the range of itself.
///
/// Invariant: the bits behind the prefix are zero, and the prefix is no longer than the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What stands before the slash is no address.
    #[error("is not written ADDRESS/PREFIX")]
    Form,
    /// The prefix is no number, or too long.
    #[error("has no prefix from 0 to {longest}")]
    Prefix {
        /// The longest of the address's family.
        longest: u8,
    },
    /// Bits behind the prefix: perhaps a host's address was meant, perhaps another prefix.
    #[error("has bits set behind its prefix: the network is {network}")]
    HostBits {
        /// The network that the address lies in.
        network: Network,
    },
}

impl Network {
    /// The network of an address, with what lies behind the prefix cut off; none when the prefix is too long.
    #[must_use]
    pub fn of(address: IpAddr, prefix: u8) -> Option<Network> {
        (prefix <= longest(address)).then(|| Network { address: masked(address, prefix), prefix })
    }

    /// True for an address of this network. An IPv4 address that an IPv6 socket shows (`::ffff:10.1.0.1`) is one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let cut = u32::from(longest(address).saturating_sub(prefix));
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(cut).unwrap_or(0)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(cut).unwrap_or(0)).into()),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let longest = longest(address);
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix.parse().map_err(|_| NetworkError::Prefix { longest })?,
        };
        let network = Network::of(address, prefix).ok_or(NetworkError::Prefix { longest })?;
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits { network }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl serde::Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Network, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("the network \"{text}\" {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        let check = |text: &str, expected: &str| {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), expected);
            assert_eq!(expected.parse(), Ok(network));
            assert_eq!(serde_json::from_str::<Network>(&serde_json::to_string(&network).unwrap()).unwrap(), network);
        };
        check("10.1.0.0/16", "10.1.0.0/16");
        check("10.1.2.3", "10.1.2.3/32");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("fd00:1::/32", "fd00:1::/32");
        check("::/0", "::/0");
        check("::1", "::1/128");
    }

    #[test]
    fn what_is_none() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert_eq!(error, expected, "{text}");
        };
        check("", "is not written ADDRESS/PREFIX");
        check("10.1/16", "is not written ADDRESS/PREFIX");
        check("10.1.0.0/33", "has no prefix from 0 to 32");
        check("10.1.0.0/", "has no prefix from 0 to 32");
        check("10.1.0.0/255.255.0.0", "has no prefix from 0 to 32");
        check("::/129", "has no prefix from 0 to 128");
        check("10.1.2.3/16", "has bits set behind its prefix: the network is 10.1.0.0/16");
    }

    #[test]
    fn addresses_inside_and_outside() {
        let check = |network: &str, address: &str, expected: bool| {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network} {address}");
        };
        check("10.1.0.0/16", "10.1.255.255", true);
        check("10.1.0.0/16", "10.2.0.0", false);
        check("10.1.0.0/16", "::ffff:10.1.2.3", true);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("10.1.2.3/32", "10.1.2.2", false);
        check("0.0.0.0/0", "255.1.2.3", true);
        check("0.0.0.0/0", "fd00::1", false);
        check("::/0", "10.1.2.3", false);
        check("fd00:1::/32", "fd00:1:ffff::1", true);
        check("fd00:1::/32", "fd00:2::1", false);
    }
}
