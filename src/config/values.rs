//! From the text of one option to a value of its type. What several options mean together is judged in `check`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::pinning::{self, CpuPinning};
use crate::config::raw::{RawOptions, Source};
use crate::config::table::{Kind, OptionSpec};
use crate::gossip::AddressRule;
use crate::limits::{ADVERTISE_RULES_MAX, DEVICE_NAME_MAX_BYTES};
use crate::types::Network;

/// Reads options by name.
///
/// # Panics
///
/// All methods do when the table has no such option, or has it with another kind: our mistake, which any test shows.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    raw: &'a RawOptions,
}

impl<'a> Values<'a> {
    pub(super) fn new(raw: &'a RawOptions) -> Values<'a> {
        Values { raw }
    }

    pub(super) fn origin(self, name: &str) -> Source {
        self.raw.get(name).2
    }

    pub(super) fn text(self, name: &str) -> &'a str {
        self.raw.get(name).1.trim()
    }

    pub(super) fn switch(self, name: &str) -> Result<bool, ConfigError> {
        self.parsed(name, truth)
    }

    pub(super) fn port(self, name: &str) -> Result<u16, ConfigError> {
        self.parsed(name, |text| text.parse().ok())
    }

    pub(super) fn ip(self, name: &str) -> Result<IpAddr, ConfigError> {
        self.parsed(name, ip)
    }

    /// An address that may be missing.
    pub(super) fn optional_ip(self, name: &str) -> Result<Option<IpAddr>, ConfigError> {
        if self.text(name).is_empty() { Ok(None) } else { self.ip(name).map(Some) }
    }

    /// A whole number within the bounds of the table.
    pub(super) fn integer<T: TryFrom<i64>>(self, name: &str) -> Result<T, ConfigError> {
        let Kind::Integer { min, max } = self.raw.get(name).0.kind else { panic!("{name} is no integer") };
        let within = |text: &str| text.parse().ok().filter(|number| (min..=max).contains(number));
        self.parsed(name, |text| within(text).and_then(|number| T::try_from(number).ok()))
    }

    pub(super) fn milliseconds(self, name: &str) -> Result<Duration, ConfigError> {
        let Kind::Milliseconds { min, max } = self.raw.get(name).0.kind else { panic!("{name} is no time") };
        let within =
            |text: &str| text.parse().ok().filter(|number| (min.unsigned_abs()..=max.unsigned_abs()).contains(number));
        self.parsed(name, |text| within(text).map(Duration::from_millis))
    }

    pub(super) fn bytes(self, name: &str) -> Result<u64, ConfigError> {
        let Kind::Bytes { min, max } = self.raw.get(name).0.kind else { panic!("{name} is no size") };
        self.parsed(name, |text| bytes(text).filter(|size| (min..=max).contains(size)))
    }

    pub(super) fn pinning(self, name: &str) -> Result<CpuPinning, ConfigError> {
        self.parsed(name, CpuPinning::parse)
    }

    pub(super) fn processors(self, name: &str) -> Result<Vec<usize>, ConfigError> {
        self.parsed(name, pinning::processors)
    }

    /// The name of a network device, if there is one.
    pub(super) fn device(self, name: &str) -> Result<Option<String>, ConfigError> {
        self.parsed(name, |text| (text.is_empty() || is_device_name(text)).then(|| text.to_owned()))
            .map(|device| Some(device).filter(|device| !device.is_empty()))
    }

    /// Addresses by client network, in the order given.
    pub(super) fn address_rules(self, name: &str) -> Result<Vec<AddressRule>, ConfigError> {
        let (spec, text, origin) = self.raw.get(name);
        let mut rules = Vec::new();
        for rule in text.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
            let refused =
                |problem| ConfigError::AddressRule { name: spec.name, rule: rule.to_owned(), origin, problem };
            rules.push(address_rule(rule).map_err(refused)?);
        }
        if rules.len() > ADVERTISE_RULES_MAX {
            return Err(ConfigError::TooManyRules { name: spec.name, found: rules.len(), origin });
        }
        Ok(rules)
    }

    /// A path that may be missing, which is not the same as `.`.
    pub(super) fn optional_path(self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        let (spec, path, origin) = self.raw.get(name);
        if path.starts_with('~') {
            return Err(ConfigError::TildePath { name: spec.name, path: path.to_owned(), origin });
        }
        Ok(Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty()))
    }

    pub(super) fn path(self, name: &str) -> Result<PathBuf, ConfigError> {
        let (spec, _, origin) = self.raw.get(name);
        let empty = ConfigError::EmptyPath { name: spec.name, origin, example: spec.example };
        self.optional_path(name)?.ok_or(empty)
    }

    /// Endpoints of other nodes, each once, in the order given.
    pub(super) fn endpoints(self, name: &str) -> Result<Vec<SocketAddr>, ConfigError> {
        let (_, text, origin) = self.raw.get(name);
        let mut endpoints = Vec::new();
        for seed in text.split(',').map(str::trim).filter(|seed| !seed.is_empty()) {
            let refused = |problem| ConfigError::Seed { seed: seed.to_owned(), origin, problem };
            let endpoint = endpoint(seed).map_err(refused)?;
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        Ok(endpoints)
    }

    fn parsed<T>(self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ConfigError> {
        let (spec, text, origin) = self.raw.get(name);
        parse(text.trim()).ok_or_else(|| refused(spec, text, origin))
    }
}

/// What a switch accepts. v5 takes every other text for true, also `off`; we refuse it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// An address, where IPv6 may stand in brackets.
fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text).parse().ok()
}

/// A size: plain bytes, or with a binary unit.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    digits.trim_end().parse::<u64>().ok()?.checked_mul(unit)
}

fn endpoint(seed: &str) -> Result<SocketAddr, &'static str> {
    let Ok(endpoint) = seed.parse::<SocketAddr>() else {
        return Err(if ip(seed).is_some() {
            "has no port"
        } else if names_host(seed) {
            "is a host name, but must be an address; ClusterDns finds nodes by name"
        } else {
            "is not IP:port"
        });
    };
    match endpoint {
        _ if endpoint.port() == 0 => Err("has port 0, which nobody listens on"),
        _ if endpoint.ip().is_unspecified() => Err("is the address that means \"any\", which nobody can connect to"),
        _ => Ok(endpoint),
    }
}

/// What the kernel takes for a device's name.
fn is_device_name(text: &str) -> bool {
    text.len() <= DEVICE_NAME_MAX_BYTES
        && !matches!(text, "." | "..")
        && text.bytes().all(|letter| letter.is_ascii_graphic() && !b"/:".contains(&letter))
}

fn address_rule(text: &str) -> Result<AddressRule, String> {
    let (network, address) = text.split_once('=').ok_or("is not NETWORK=ADDRESS")?;
    let (network, address) = (network.trim(), address.trim());
    let network: Network = network.parse().map_err(|error| format!("names a network that {error}"))?;
    let address = ip(address).ok_or("names no IPv4 or IPv6 address behind =")?;
    if address.is_unspecified() {
        return Err("tells clients the address that means \"any\", which nobody can connect to".to_owned());
    }
    Ok(AddressRule { network, address })
}

/// True for `node-1.example.org` and `node-1.example.org:2112`.
fn names_host(seed: &str) -> bool {
    let host = seed.split(':').next().unwrap_or(seed);
    host.bytes().any(|letter| letter.is_ascii_alphabetic())
        && host.bytes().all(|letter| letter.is_ascii_alphanumeric() || b".-_".contains(&letter))
}

fn refused(spec: &OptionSpec, text: &str, origin: Source) -> ConfigError {
    ConfigError::Value {
        name: spec.name,
        value: spec.shown(text).to_owned(),
        origin,
        expected: spec.kind.expected(),
        example: spec.example,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table;

    fn with<T>(name: &str, text: &str, read: impl FnOnce(Values<'_>) -> T) -> T {
        let mut raw = RawOptions::default();
        raw.offer(table::find(name).unwrap(), text.to_owned(), Source::CommandLine).unwrap();
        read(Values::new(&raw))
    }

    #[test]
    fn switches() {
        let check = |text: &str, expected: Option<bool>| {
            assert_eq!(with("WhatIf", text, |values| values.switch("WhatIf")).ok(), expected, "{text}");
        };
        for yes in ["true", "True", "1", "yes", "ON", " true "] {
            check(yes, Some(true));
        }
        for no in ["false", "FALSE", "0", "no", "off"] {
            check(no, Some(false));
        }
        for neither in ["", "2", "maybe", "truely"] {
            check(neither, None);
        }
    }

    #[test]
    fn ports_and_numbers() {
        let check = |name: &str, text: &str, expected: Option<i64>| {
            let read = |values: Values<'_>| match name {
                "IntTcpPort" => values.port(name).ok().map(i64::from),
                _ => values.integer(name).ok(),
            };
            assert_eq!(with(name, text, read), expected, "{name} {text}");
        };
        check("IntTcpPort", "0", Some(0));
        check("IntTcpPort", "65535", Some(65535));
        check("IntTcpPort", "65536", None);
        check("IntTcpPort", "-1", None);
        check("IntTcpPort", "", None);
        check("NodePriority", "-7", Some(-7));
        check("NodePriority", "2147483648", None);
        check("NodePriority", "1.5", None);
        check("ClusterSize", "7", Some(7));
        check("ClusterSize", "8", None);
        check("ClusterSize", "0", None);
        check("EdgeThreads", "0", Some(0));
        check("EdgeThreads", "257", None);
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<u64>| {
            let read = with("GossipIntervalMs", text, |values| values.milliseconds("GossipIntervalMs"));
            assert_eq!(read.ok(), expected.map(Duration::from_millis), "{text}");
        };
        check("1", Some(1));
        check("3600000", Some(3_600_000));
        check("3600001", None);
        check("0", None);
        check("-1", None);
        check("1s", None);
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text), expected, "{text}");
        check("4096", Some(4096));
        check("16MiB", Some(16 << 20));
        check("16 mib", Some(16 << 20));
        check("4KiB", Some(4096));
        check("1GiB", Some(1 << 30));
        check("12b", Some(12));
        check("16MB", None);
        check("MiB", None);
        check("-1", None);
        check("99999999999999GiB", None);
        check("", None);
    }

    #[test]
    fn addresses() {
        let check = |text: &str, is_accepted: bool| assert_eq!(ip(text).is_some(), is_accepted, "{text}");
        check("10.0.0.1", true);
        check("::1", true);
        check("[::1]", true);
        check("localhost", false);
        check("10.0.0", false);
        check("10.0.0.1:1", false);
        check("", false);
    }

    #[test]
    fn seeds() {
        let check = |text: &str, expected: &[&str]| {
            let read = with("GossipSeed", text, |values| values.endpoints("GossipSeed")).unwrap();
            assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        };
        check("", &[]);
        check("10.0.0.2:2112", &["10.0.0.2:2112"]);
        check(" 10.0.0.2:2112 , [::1]:2112,", &["10.0.0.2:2112", "[::1]:2112"]);
        check("10.0.0.2:2112,10.0.0.2:2112", &["10.0.0.2:2112"]);
    }

    #[test]
    fn seeds_that_are_refused() {
        let check = |text: &str, expected: &str| {
            let message = with("GossipSeed", text, |values| values.endpoints("GossipSeed")).unwrap_err().to_string();
            assert!(message.starts_with(&format!("GossipSeed {expected}")), "{text}: {message}");
            assert!(message.ends_with("for example 10.0.0.2:2112"), "{message}");
        };
        check("10.0.0.2", "\"10.0.0.2\" (command line) has no port");
        check("10.0.0.3:2112,10.0.0.2", "\"10.0.0.2\" (command line) has no port");
        check("::1", "\"::1\" (command line) has no port");
        check("10.0.0.2:0", "\"10.0.0.2:0\" (command line) has port 0");
        check("10.0.0.2:65536", "\"10.0.0.2:65536\" (command line) is not IP:port");
        check("0.0.0.0:2112", "\"0.0.0.0:2112\" (command line) is the address that means \"any\"");
        check("node-1:2112", "\"node-1:2112\" (command line) is a host name");
        check("node-1.example.org", "\"node-1.example.org\" (command line) is a host name");
        check("10.0.0.2;10.0.0.3", "\"10.0.0.2;10.0.0.3\" (command line) is not IP:port");
    }

    #[test]
    fn devices() {
        let check = |text: &str, expected: Option<Option<&str>>| {
            let read = with("IntDevice", text, |values| values.device("IntDevice")).ok();
            assert_eq!(read.as_ref().map(Option::as_deref), expected, "{text}");
        };
        check("", Some(None));
        check(" eth1 ", Some(Some("eth1")));
        check("bond0.4094", Some(Some("bond0.4094")));
        check("a23456789012345", Some(Some("a23456789012345")));
        for refused in ["a234567890123456", "eth 1", "eth/1", "eth0:1", "..", "ét"] {
            check(refused, None);
        }
    }

    #[test]
    fn rules_of_addresses() {
        let read = |text: &str| with("ExtAdvertise", text, |values| values.address_rules("ExtAdvertise"));
        let check = |text: &str, expected: &[&str]| {
            let rules = read(text).unwrap();
            assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{text}");
        };
        check("", &[]);
        check("10.1.0.0/16=10.1.0.5", &["10.1.0.0/16=10.1.0.5"]);
        check(" 10.1.2.3 = 10.1.0.5 , ::/0=[fd00::1],", &["10.1.2.3/32=10.1.0.5", "::/0=fd00::1"]);
        let refused = |text: &str, expected: &str| {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("ExtAdvertise \"{text}\" (command line) {expected}")), "{message}");
            assert!(message.ends_with("for example 10.1.0.0/16=10.1.0.5"), "{message}");
        };
        refused("10.1.0.0/16", "is not NETWORK=ADDRESS;");
        refused(
            "10.1.0.1/16=10.1.0.5",
            "names a network that has bits set behind its prefix: the network is 10.1.0.0/16;",
        );
        refused("10.1.0.0/33=10.1.0.5", "names a network that has no prefix from 0 to 32;");
        refused("10.1.0.0/16=node-1", "names no IPv4 or IPv6 address behind =;");
        refused("10.1.0.0/16=0.0.0.0", "tells clients the address that means \"any\", which nobody can connect to;");
        let many = vec!["10.1.0.0/16=10.1.0.5"; 17].join(",");
        let message = read(&many).unwrap_err().to_string();
        assert_eq!(
            message,
            "ExtAdvertise has 17 rules (command line), but may have 16; give one rule for several networks"
        );
    }

    #[test]
    fn paths() {
        let check = |text: &str, expected: Option<&str>| {
            let read = with("Log", text, |values| values.optional_path("Log")).unwrap();
            assert_eq!(read, expected.map(PathBuf::from));
        };
        check("", None);
        check("a b", Some("a b"));
        check("./~x", Some("./~x"));
        let message = with("Db", "~/data", |values| values.path("Db")).unwrap_err().to_string();
        assert_eq!(
            message,
            "Db is \"~/data\" (command line): ~ is replaced by shells, not by ringstore; write the whole path"
        );
        let message = with("Db", "", |values| values.path("Db")).unwrap_err().to_string();
        assert_eq!(message, "Db is empty (command line), but must name a directory; write for example Db = ./data");
    }

    #[test]
    fn a_refused_value_is_told_with_its_limit() {
        let message =
            with("ClusterSize", "9", |values| values.integer::<usize>("ClusterSize")).unwrap_err().to_string();
        assert_eq!(
            message,
            "ClusterSize is \"9\" (command line), but must be a whole number from 1 to 7; \
             write for example ClusterSize = 3"
        );
    }
}
