//! From raw options to a [`Config`]: reads each value by its type, then judges what the options mean together.
//!
//! Contradictions are errors; what may be meant but is doubtful is a warning.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::raw::{RawOptions, Source};
use crate::config::report::Adjusted;
use crate::config::security;
use crate::config::settings::{AdvertiseAs, Config, DnsDiscovery, Heartbeat, OnExt};
use crate::config::unused;
use crate::config::values::Values;

/// The default of ClusterDns in v5, which stands for "none" in files that were copied from its documentation.
const CLUSTER_DNS_OF_V5: &str = "fake.dns";

/// An election timeout that is meant, at most.
const ELECTION_TIMEOUT_USUAL_MAX: Duration = Duration::from_secs(5);

/// The outcome of the checks.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) warnings: Vec<String>,
    /// Values in force that are not those of their sources.
    pub(super) adjusted: Vec<Adjusted>,
}

/// Reads and checks everything.
pub(super) fn check(raw: &RawOptions) -> Result<Checked, ConfigError> {
    let values = Values::new(raw);
    let mut checked = Checked { config: read(values)?, warnings: Vec::new(), adjusted: Vec::new() };
    check_listeners(&checked.config)?;
    check_discovery(values, &mut checked)?;
    check_advertised(&mut checked)?;
    security::check(values, &mut checked)?;
    unused::warn(values, &mut checked);
    check_sizes(values, &mut checked)?;
    check_processors(values, &mut checked)?;
    warn_of_dangers(&mut checked);
    Ok(checked)
}

impl Default for Config {
    /// The defaults of the table, which are a node on its own.
    fn default() -> Config {
        check(&RawOptions::default()).expect("the defaults of the table pass the checks").config
    }
}

fn read(values: Values<'_>) -> Result<Config, ConfigError> {
    Ok(Config {
        config_file: values.optional_path("Config")?,
        db: values.path("Db")?,
        log: values.optional_path("Log")?,
        int_ip: values.ip("IntIp")?,
        ext_ip: values.ip("ExtIp")?,
        int_tcp_port: security::int_tcp_port(values)?,
        int_http_port: values.port("IntHttpPort")?,
        ext_tcp_port: values.port("ExtTcpPort")?,
        ext_http_port: values.port("ExtHttpPort")?,
        advertise_as: advertise_as(values)?,
        ext_advertise: values.address_rules("ExtAdvertise")?,
        int_device: values.device("IntDevice")?,
        ext_device: values.device("ExtDevice")?,
        int_busy_poll_us: values.integer("IntBusyPollUs")?,
        on_ext: OnExt {
            admin: values.switch("AdminOnExt")?,
            stats: values.switch("StatsOnExt")?,
            gossip: values.switch("GossipOnExt")?,
        },
        security: security::read(values)?,
        int_tcp_heartbeat: Heartbeat {
            interval: values.milliseconds("IntTcpHeartbeatInterval")?,
            timeout: values.milliseconds("IntTcpHeartbeatTimeout")?,
        },
        ext_tcp_heartbeat: Heartbeat {
            interval: values.milliseconds("ExtTcpHeartbeatInterval")?,
            timeout: values.milliseconds("ExtTcpHeartbeatTimeout")?,
        },
        cluster_size: values.integer("ClusterSize")?,
        gossip_seeds: values.endpoints("GossipSeed")?,
        dns: dns(values)?,
        gossip_interval: values.milliseconds("GossipIntervalMs")?,
        gossip_timeout: values.milliseconds("GossipTimeoutMs")?,
        gossip_allowed_difference: values.milliseconds("GossipAllowedDifferenceMs")?,
        gossip_on_single_node: values.switch("GossipOnSingleNode")?,
        node_priority: values.integer("NodePriority")?,
        read_only_replica: values.switch("ReadOnlyReplica")?,
        chunk_size_bytes: values.bytes("ChunkSize")?,
        append_size_max_bytes: values.bytes("MaxAppendSize")?,
        scrub_bytes_per_second: values.integer::<u64>("ScrubMibPerSecond")? << 20,
        unsafe_disable_flush_to_disk: values.switch("UnsafeDisableFlushToDisk")?,
        edge_threads: values.integer("EdgeThreads")?,
        cpu_pinning: values.pinning("CpuPinning")?,
        int_cpus: values.processors("IntCpus")?,
        ext_cpus: values.processors("ExtCpus")?,
    })
}

fn advertise_as(values: Values<'_>) -> Result<AdvertiseAs, ConfigError> {
    let port = |name| values.port(name).map(|port| Some(port).filter(|port| *port != 0));
    Ok(AdvertiseAs {
        int_ip: values.optional_ip("IntIpAdvertiseAs")?,
        ext_ip: values.optional_ip("ExtIpAdvertiseAs")?,
        int_tcp_port: port(security::int_tcp_port_advertised(values)?)?,
        int_http_port: port("IntHttpPortAdvertiseAs")?,
        ext_tcp_port: port("ExtTcpPortAdvertiseAs")?,
        ext_http_port: port("ExtHttpPortAdvertiseAs")?,
        ext_secure_tcp_port: port("ExtSecureTcpPortAdvertiseAs")?,
    })
}

fn dns(values: Values<'_>) -> Result<Option<DnsDiscovery>, ConfigError> {
    let is_wanted = values.switch("DiscoverViaDns")?;
    let gossip_port = values.port("ClusterGossipPort")?;
    let name = values.text("ClusterDns");
    if !is_wanted || name.is_empty() || name == CLUSTER_DNS_OF_V5 {
        return Ok(None);
    }
    let origin = values.origin("ClusterDns");
    if !is_dns_name(name) {
        return Err(ConfigError::DnsName { name: name.to_owned(), origin });
    }
    if gossip_port == 0 {
        return Err(ConfigError::GossipPortZero { name: name.to_owned(), origin: values.origin("ClusterGossipPort") });
    }
    Ok(Some(DnsDiscovery { name: name.to_owned(), gossip_port }))
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.bytes().all(|letter| letter.is_ascii_alphanumeric() || b".-_".contains(&letter))
}

/// No two listeners may meet on one address and port.
fn check_listeners(config: &Config) -> Result<(), ConfigError> {
    let mut listeners = vec![
        ("IntTcpPort", config.int_tcp()),
        ("IntHttpPort", config.int_http()),
        ("ExtTcpPort", config.ext_tcp()),
        ("ExtHttpPort", config.ext_http()),
    ];
    listeners.retain(|(option, _)| *option != "ExtTcpPort" || !config.security.is_plain_tcp_off);
    listeners.extend(config.ext_secure_tcp().map(|address| ("ExtSecureTcpPort", address)));
    listeners.extend(config.ext_secure_http().map(|address| ("ExtSecureHttpPort", address)));
    for (i, (second, there)) in listeners.iter().enumerate() {
        for (first, here) in &listeners[..i] {
            let port = here.port();
            if port != 0 && port == there.port() && overlap(here.ip(), there.ip()) {
                return Err(ConfigError::SamePort { first, second, port, address: there.ip() });
            }
        }
    }
    Ok(())
}

/// True when a listener on one address is in the way of a listener on the other.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        // `::` takes IPv4 connections too, unless the system is set up otherwise.
        IpAddr::V6(address) => address.is_unspecified(),
        IpAddr::V4(address) => address.is_unspecified() && narrow.is_ipv4(),
    };
    one == other || covers(one, other) || covers(other, one)
}

/// A cluster needs a way to find its nodes; a node on its own must not have one.
fn check_discovery(values: Values<'_>, checked: &mut Checked) -> Result<(), ConfigError> {
    let config = &checked.config;
    if config.read_only_replica && !config.is_cluster() {
        return Err(ConfigError::ReadOnlyAlone { origin: values.origin("ReadOnlyReplica") });
    }
    if config.is_cluster() {
        if config.gossip_seeds.is_empty() && config.dns.is_none() {
            return Err(ConfigError::NoDiscovery { cluster_size: config.cluster_size });
        }
        warn_of_discovery(values, checked);
        return Ok(());
    }
    let without_cluster = |name: &'static str| ConfigError::DiscoveryWithoutCluster {
        name,
        value: values.text(name).to_owned(),
        origin: values.origin(name),
    };
    if config.dns.is_some() {
        return Err(without_cluster("ClusterDns"));
    }
    match config.gossip_seeds.len() {
        0 => Ok(()),
        // v5 allows one; it may be the node itself.
        1 => {
            checked.warnings.push(format!(
                "GossipSeed is \"{}\", but ClusterSize is 1, a node on its own; set ClusterSize if there are others",
                values.text("GossipSeed")
            ));
            Ok(())
        }
        _ => Err(without_cluster("GossipSeed")),
    }
}

fn warn_of_discovery(values: Values<'_>, checked: &mut Checked) {
    let config = &checked.config;
    if config.cluster_size.is_multiple_of(2) {
        checked.warnings.push(format!(
            "ClusterSize is {size}, an even number: such a cluster survives the loss of no more nodes than one of \
             {smaller}; set ClusterSize to {smaller} or {larger}",
            size = config.cluster_size,
            smaller = config.cluster_size - 1,
            larger = config.cluster_size + 1
        ));
    }
    let election_timeout = config.int_tcp_heartbeat.timeout;
    if election_timeout > ELECTION_TIMEOUT_USUAL_MAX {
        checked.warnings.push(format!(
            "IntTcpHeartbeatTimeout is {} ms: a lost leader is not noticed for so long, or twice that, and nothing is \
             written meanwhile; set it to {} or less, unless the network between the nodes is that slow",
            election_timeout.as_millis(),
            ELECTION_TIMEOUT_USUAL_MAX.as_millis()
        ));
    }
    if config.dns.is_none() && values.origin("ClusterDns") > Source::Default && !values.text("ClusterDns").is_empty() {
        checked.warnings.push(format!(
            "ClusterDns is \"{}\", but is not used: {}; the gossip seeds are",
            values.text("ClusterDns"),
            if values.text("ClusterDns") == CLUSTER_DNS_OF_V5 {
                "v5 has it for \"none\""
            } else {
                "DiscoverViaDns is false"
            }
        ));
    }
    if let Some(dns) = &config.dns
        && dns.gossip_port != config.advertised().int_http.port()
        && values.origin("ClusterGossipPort") == Source::Default
    {
        checked.warnings.push(format!(
            "ClusterGossipPort is {} by default, but this node gossips on port {}; \
             set ClusterGossipPort to the internal HTTP port of the nodes that {} lists",
            dns.gossip_port,
            config.advertised().int_http.port(),
            dns.name
        ));
    }
}

/// What other nodes and their clients are told must be something that they can connect to.
fn check_advertised(checked: &mut Checked) -> Result<(), ConfigError> {
    let config = &checked.config;
    let told = &config.advertise_as;
    for (name, address) in [("IntIpAdvertiseAs", told.int_ip), ("ExtIpAdvertiseAs", told.ext_ip)] {
        if let Some(address) = address.filter(IpAddr::is_unspecified) {
            return Err(unreachable_address(config, name, address, name));
        }
    }
    if !config.is_cluster() {
        return Ok(());
    }
    let advertised = config.advertised();
    for (name, address, advertise_as) in
        [("IntIp", advertised.int_tcp.ip(), "IntIpAdvertiseAs"), ("ExtIp", advertised.ext_tcp.ip(), "ExtIpAdvertiseAs")]
    {
        if address.is_unspecified() {
            return Err(unreachable_address(config, name, address, advertise_as));
        }
    }
    for (name, endpoint) in [
        ("IntTcpPort", advertised.int_tcp),
        ("IntHttpPort", advertised.int_http),
        ("ExtTcpPort", advertised.ext_tcp),
        ("ExtHttpPort", advertised.ext_http),
    ] {
        // A port that is not opened is told as 0.
        if endpoint.port() == 0 && !(name == "ExtTcpPort" && config.security.is_plain_tcp_off) {
            return Err(ConfigError::UnknownPort { name, cluster_size: config.cluster_size });
        }
    }
    let (int_ip, ext_ip) = (advertised.int_tcp.ip(), advertised.ext_tcp.ip());
    if ext_ip.is_loopback() && !int_ip.is_loopback() {
        checked.warnings.push(format!(
            "clients are told that this node is at {ext_ip}, which is their own machine; \
             set ExtIp or ExtIpAdvertiseAs to an address that they reach this node by"
        ));
    }
    Ok(())
}

fn unreachable_address(
    config: &Config,
    name: &'static str,
    address: IpAddr,
    advertise_as: &'static str,
) -> ConfigError {
    ConfigError::UnreachableAddress { name, address, cluster_size: config.cluster_size, advertise_as }
}

/// A chunk must hold the largest record, with room for its head and names.
fn check_sizes(values: Values<'_>, checked: &mut Checked) -> Result<(), ConfigError> {
    let chunk_size = checked.config.chunk_size_bytes;
    if !chunk_size.is_multiple_of(4096) {
        let origin = values.origin("ChunkSize");
        return Err(ConfigError::ChunkSizeUneven { chunk_size, origin, nearest: chunk_size - chunk_size % 4096 });
    }
    let max_append_size = checked.config.append_size_max_bytes;
    if chunk_size >= max_append_size * 2 {
        return Ok(());
    }
    let origin = values.origin("MaxAppendSize");
    if origin > Source::Default {
        return Err(ConfigError::ChunkTooSmall { chunk_size, max_append_size, origin });
    }
    // Only the chunk size was chosen, so that one is meant.
    let lowered = chunk_size / 4;
    checked.config.append_size_max_bytes = lowered;
    checked.adjusted.push(Adjusted {
        name: "MaxAppendSize",
        value: lowered.to_string(),
        reason: "default, lowered to fit ChunkSize",
    });
    checked.warnings.push(format!(
        "MaxAppendSize is lowered from {max_append_size} to {lowered} bytes, a quarter of ChunkSize ({chunk_size} bytes); \
         larger writes are refused"
    ));
    Ok(())
}

/// Each thread is placed by one option, or by none.
fn check_processors(values: Values<'_>, checked: &mut Checked) -> Result<(), ConfigError> {
    let config = &checked.config;
    let pinning = &config.cpu_pinning;
    for (list, thread, is_pinned) in [
        ("IntCpus", "log", pinning.log.is_some()),
        ("IntCpus", "control", pinning.control.is_some()),
        ("IntCpus", "background", pinning.background.is_some()),
        ("ExtCpus", "edges", !pinning.edges.is_empty()),
    ] {
        let processors = values.text(list);
        if is_pinned && !processors.is_empty() {
            let (processors, pinning) = (processors.to_owned(), values.text("CpuPinning").to_owned());
            return Err(ConfigError::PlacedTwice { list, processors, origin: values.origin(list), pinning, thread });
        }
    }
    let shared: Vec<String> =
        config.int_cpus.iter().filter(|cpu| config.ext_cpus.contains(cpu)).map(ToString::to_string).collect();
    if !shared.is_empty() {
        checked.warnings.push(format!(
            "IntCpus is \"{}\" and ExtCpus is \"{}\", which share {}: clients can slow replication down there; take them \
             out of one of the two, unless the machine has no more",
            values.text("IntCpus"),
            values.text("ExtCpus"),
            shared.join(",")
        ));
    }
    Ok(())
}

fn warn_of_dangers(checked: &mut Checked) {
    if checked.config.unsafe_disable_flush_to_disk {
        checked.warnings.push(
            "UnsafeDisableFlushToDisk is true: a power failure can lose writes that were acknowledged; \
             use it for tests only"
                .into(),
        );
    }
}

#[cfg(test)]
mod tests;
