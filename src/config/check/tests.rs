//! Every check of the options: what is refused with which words, what is only warned of.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::*;
use crate::config::table;
use crate::limits::{APPEND_SIZE_DEFAULT_BYTES, CHUNK_SIZE_DEFAULT_BYTES};

/// Checks options written `Name=value`, separated by spaces.
fn checked(options: &str) -> Result<Checked, ConfigError> {
    let mut raw = RawOptions::default();
    for option in options.split_whitespace() {
        let (name, value) = option.split_once('=').unwrap();
        raw.offer(table::find(name).unwrap(), value.to_owned(), Source::CommandLine).unwrap();
    }
    super::check(&raw)
}

fn config(options: &str) -> Config {
    checked(options).unwrap_or_else(|error| panic!("{options}: {error}")).config
}

/// The options are refused, with a message that begins so.
fn check_refused(options: &str, expected: &str) {
    let message = checked(options).unwrap_err().to_string();
    assert!(message.starts_with(expected), "{options}: {message}");
    assert!(message.contains(';'), "a message has a next step: {message}");
}

/// The options are accepted, with one warning for each text, which it begins with.
fn check_warnings(options: &str, expected: &[&str]) {
    let warnings = checked(options).unwrap_or_else(|error| panic!("{options}: {error}")).warnings;
    assert_eq!(warnings.len(), expected.len(), "{options}: {warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{options}: {warning}");
    }
}

/// A cluster of three on one machine, without anything to warn of.
const CLUSTER: &str = "ClusterSize=3 GossipSeed=127.0.0.2:2112,127.0.0.3:2112";

#[test]
fn defaults_are_those_of_v5_for_everything_on_the_network() {
    let config = Config::default();
    assert_eq!(config.int_tcp().to_string(), "127.0.0.1:1112");
    assert_eq!(config.int_http().to_string(), "127.0.0.1:2112");
    assert_eq!(config.ext_tcp().to_string(), "127.0.0.1:1113");
    assert_eq!(config.ext_http().to_string(), "127.0.0.1:2113");
    assert_eq!(config.int_tcp_heartbeat.interval, Duration::from_millis(700));
    assert_eq!(config.int_tcp_heartbeat.timeout, Duration::from_millis(700));
    assert_eq!(config.ext_tcp_heartbeat.interval, Duration::from_millis(2000));
    assert_eq!(config.ext_tcp_heartbeat.timeout, Duration::from_millis(1000));
    assert_eq!(config.gossip_interval, Duration::from_millis(1000));
    assert_eq!(config.gossip_timeout, Duration::from_millis(500));
    assert_eq!(config.gossip_allowed_difference, Duration::from_millis(60_000));
    assert_eq!((config.cluster_size, config.node_priority, config.edge_threads), (1, 0, 1));
    assert_eq!((config.dns.clone(), config.gossip_seeds.len()), (None, 0));
    assert!(config.cpu_pinning.is_off() && !config.unsafe_disable_flush_to_disk);
    check_warnings("", &[]);
}

#[test]
fn defaults_of_sizes_agree_with_the_limits() {
    let config = Config::default();
    assert_eq!((config.chunk_size_bytes, config.scrub_bytes_per_second), (CHUNK_SIZE_DEFAULT_BYTES, 20 << 20));
    assert_eq!(config.append_size_max_bytes, APPEND_SIZE_DEFAULT_BYTES);
}

#[test]
fn values_out_of_bounds() {
    check_refused("ClusterSize=0", "ClusterSize is \"0\" (command line), but must be a whole number from 1 to 7;");
    check_refused("ClusterSize=8", "ClusterSize is \"8\" (command line), but must be a whole number from 1 to 7;");
    check_refused("IntIp=localhost", "IntIp is \"localhost\" (command line), but must be an IPv4 or IPv6 address");
    check_refused("ExtTcpPort=70000", "ExtTcpPort is \"70000\" (command line), but must be a port from 0 to 65535;");
    check_refused("CpuPinning=log", "CpuPinning is \"log\" (command line), but must be a list like log=0,");
    for name in ["IntTcp", "ExtTcp"] {
        for what in ["HeartbeatInterval", "HeartbeatTimeout"] {
            let expected = format!("{name}{what} is \"0\" (command line), but must be a whole number of milliseconds");
            check_refused(&format!("{name}{what}=0"), &expected);
        }
    }
    check_refused("GossipIntervalMs=0", "GossipIntervalMs is \"0\"");
    check_refused("GossipTimeoutMs=-1", "GossipTimeoutMs is \"-1\"");
    check_refused("Db=~/data", "Db is \"~/data\" (command line): ~ is replaced by shells");
    check_refused("Log=~", "Log is \"~\"");
    check_refused("Db=", "Db is empty (command line), but must name a directory;");
    assert_eq!(config("Log=").log, None);
}

#[test]
fn equal_ports_on_one_address() {
    let names = ["IntTcpPort", "IntHttpPort", "ExtTcpPort", "ExtHttpPort"];
    for (i, second) in names.iter().enumerate() {
        for first in &names[..i] {
            let options = format!("{first}=5000 {second}=5000");
            check_refused(&options, &format!("{first} and {second} are both 5000 on 127.0.0.1, but"));
        }
    }
    let ports = "IntTcpPort=1113 IntHttpPort=2113";
    let refused = |ips: &str| check_refused(&format!("{ips} {ports}"), "IntTcpPort and ExtTcpPort are both 1113 on");
    refused("IntIp=10.0.0.1 ExtIp=10.0.0.1");
    refused("IntIp=0.0.0.0 ExtIp=10.0.0.1");
    refused("IntIp=10.0.0.1 ExtIp=0.0.0.0");
    refused("IntIp=:: ExtIp=10.0.0.1");
    refused("IntIp=::1 ExtIp=::");
    check_warnings(&format!("IntIp=10.0.0.1 ExtIp=10.0.0.2 ClusterSecretFile=/s {ports}"), &[]);
    check_warnings(&format!("IntIp=127.0.0.1 ExtIp=127.0.0.2 {ports}"), &[]);
    check_warnings(&format!("IntIp=::1 ExtIp=0.0.0.0 {ports}"), &[]);
}

#[test]
fn port_0_is_the_systems_choice_on_a_single_node_only() {
    check_warnings("IntTcpPort=0 IntHttpPort=0 ExtTcpPort=0 ExtHttpPort=0", &[]);
    for name in ["IntTcpPort", "IntHttpPort", "ExtTcpPort", "ExtHttpPort"] {
        let expected = format!("{name} is 0, a port of the system's choice, and ClusterSize is 3:");
        check_refused(&format!("{CLUSTER} {name}=0"), &expected);
        check_warnings(&format!("{CLUSTER} {name}=0 {name}AdvertiseAs=5000"), &[]);
    }
}

#[test]
fn a_cluster_needs_a_way_to_find_its_nodes() {
    check_refused("ClusterSize=3", "ClusterSize is 3, but there is neither a GossipSeed nor a ClusterDns in use");
    check_refused("ClusterSize=3 DiscoverViaDns=true", "ClusterSize is 3, but there is neither");
    check_refused("ClusterSize=3 ClusterDns=fake.dns", "ClusterSize is 3, but there is neither");
    check_refused("ClusterSize=3 ClusterDns=a.b DiscoverViaDns=false", "ClusterSize is 3, but there is neither");
    check_refused("ClusterSize=3 GossipSeed=10.0.0.2", "GossipSeed \"10.0.0.2\" (command line) has no port;");
    check_warnings(CLUSTER, &[]);
}

#[test]
fn the_election_timeout_is_judged() {
    let too_short =
        "IntTcpHeartbeatTimeout is \"99\" (command line), but must be a whole number of milliseconds from 100";
    check_refused("IntTcpHeartbeatTimeout=99", too_short);
    check_warnings(&format!("{CLUSTER} IntTcpHeartbeatTimeout=100"), &[]);
    check_warnings(&format!("{CLUSTER} IntTcpHeartbeatTimeout=5000"), &[]);
    let warned = ["IntTcpHeartbeatTimeout is 5001 ms: a lost leader is not noticed for so long"];
    check_warnings(&format!("{CLUSTER} IntTcpHeartbeatTimeout=5001"), &warned);
    check_warnings("IntTcpHeartbeatTimeout=5001", &[]);
}

#[test]
fn a_node_on_its_own_has_nothing_to_find() {
    check_refused("ClusterDns=a.b", "ClusterDns is \"a.b\" (command line), but ClusterSize is 1, a node on its own;");
    check_refused("GossipSeed=10.0.0.2:1,10.0.0.3:1", "GossipSeed is \"10.0.0.2:1,10.0.0.3:1\" (command line), but");
    check_warnings("GossipSeed=10.0.0.2:1", &["GossipSeed is \"10.0.0.2:1\", but ClusterSize is 1"]);
    check_warnings("ClusterDns=fake.dns", &[]);
    check_warnings("ClusterDns=a.b DiscoverViaDns=false", &[]);
    check_warnings("GossipOnSingleNode=true", &[]);
    check_refused("GossipOnSingleNode=perhaps", "GossipOnSingleNode is \"perhaps\"");
}

/// v5 ignores seeds unless DiscoverViaDns is false, and a DNS name when it is.
#[test]
fn seeds_and_dns_are_used_when_they_are_given() {
    let check = |options: &str, seed_count: usize, dns: Option<&str>| {
        let config = config(&format!("ClusterSize=3 ClusterGossipPort=2112 {options}"));
        assert_eq!(config.gossip_seeds.len(), seed_count, "{options}");
        assert_eq!(config.dns.as_ref().map(|dns| dns.name.as_str()), dns, "{options}");
        assert!(config.dns.is_none_or(|dns| dns.gossip_port == 2112), "{options}");
        assert!(config.cluster_size == 3);
    };
    check("GossipSeed=10.0.0.2:1,10.0.0.3:1", 2, None);
    check("GossipSeed=10.0.0.2:1,10.0.0.3:1 DiscoverViaDns=true", 2, None);
    check("GossipSeed=10.0.0.2:1 DiscoverViaDns=false", 1, None);
    check("GossipSeed=10.0.0.2:1 DiscoverViaDns=false ClusterDns=a.b", 1, None);
    check("ClusterDns=nodes.example.org", 0, Some("nodes.example.org"));
    check("ClusterDns=a.b DiscoverViaDns=true", 0, Some("a.b"));
    check("ClusterDns=a.b GossipSeed=10.0.0.2:1", 1, Some("a.b"));
}

#[test]
fn dns_names_and_their_port() {
    let refused = |name: &str| {
        check_refused(&format!("ClusterSize=3 ClusterDns={name}"), &format!("ClusterDns is \"{name}\" (command line)"));
    };
    refused("nodes.example:2112");
    refused("http://nodes");
    refused(&"a".repeat(254));
    check_refused(
        "ClusterSize=3 ClusterDns=a.b ClusterGossipPort=0",
        "ClusterGossipPort is 0 (command line), but must be a port from 1 to 65535, because ClusterDns is \"a.b\";",
    );
    check_warnings(
        "ClusterSize=3 ClusterDns=a.b",
        &["ClusterGossipPort is 30777 by default, but this node gossips on port 2112;"],
    );
    check_warnings("ClusterSize=3 ClusterDns=a.b ClusterGossipPort=2112", &[]);
    check_warnings("ClusterSize=3 ClusterDns=a.b IntHttpPort=30777", &[]);
}

#[test]
fn doubtful_clusters_are_warned_of() {
    let even = "ClusterSize is 4, an even number: such a cluster survives the loss of no more nodes than one of 3; \
                set ClusterSize to 3 or 5";
    check_warnings("ClusterSize=4 GossipSeed=127.0.0.2:2112", &[even]);
    check_warnings("ClusterSize=2 GossipSeed=127.0.0.2:2112", &["ClusterSize is 2, an even number"]);
    for odd in [3, 5, 7] {
        check_warnings(&format!("ClusterSize={odd} GossipSeed=127.0.0.2:2112"), &[]);
    }
    let unused = "ClusterDns is \"a.b\", but is not used: DiscoverViaDns is false";
    check_warnings(&format!("{CLUSTER} ClusterDns=a.b DiscoverViaDns=false"), &[unused]);
    check_warnings(&format!("{CLUSTER} ClusterDns=fake.dns"), &["ClusterDns is \"fake.dns\", but is not used: v5 has"]);
}

#[test]
fn advertised_addresses_can_be_connected_to() {
    let in_cluster = |options: &str| format!("{CLUSTER} {options}");
    for any in ["0.0.0.0", "::"] {
        for name in ["IntIp", "ExtIp"] {
            let expected =
                format!("{name} is {any}, which means \"any\": nobody can connect to it (ClusterSize is 3);");
            check_refused(&in_cluster(&format!("{name}={any}")), &expected);
            check_refused(&format!("{name}AdvertiseAs={any}"), &format!("{name}AdvertiseAs is {any}, which means"));
        }
    }
    check_warnings("ExtIp=0.0.0.0", &[]);
    check_warnings("IntIp=0.0.0.0 ClusterSecretFile=/s", &[]);
    check_warnings(&in_cluster("ExtIp=0.0.0.0 ExtIpAdvertiseAs=192.168.0.1"), &[]);
    check_warnings(&in_cluster("IntIp=0.0.0.0 IntIpAdvertiseAs=127.0.0.1 ClusterSecretFile=/s"), &[]);
    check_warnings(
        &in_cluster("IntIp=10.0.0.1 ClusterSecretFile=/s"),
        &["clients are told that this node is at 127.0.0.1, which is their own machine;"],
    );
}

#[test]
fn advertised_is_the_listening_endpoint_unless_told_otherwise() {
    let check = |options: &str, expected: [&str; 4]| {
        let told = config(options).advertised();
        let told = [told.int_tcp, told.int_http, told.ext_tcp, told.ext_http].map(|endpoint| endpoint.to_string());
        assert_eq!(told, expected, "{options}");
    };
    check("", ["127.0.0.1:1112", "127.0.0.1:2112", "127.0.0.1:1113", "127.0.0.1:2113"]);
    check(
        "IntIp=10.0.0.1 ExtIp=10.0.0.2 ClusterSecretFile=/s",
        ["10.0.0.1:1112", "10.0.0.1:2112", "10.0.0.2:1113", "10.0.0.2:2113"],
    );
    check(
        "IntIpAdvertiseAs=10.0.0.1 ExtIpAdvertiseAs=::1 IntTcpPortAdvertiseAs=1 IntHttpPortAdvertiseAs=2 \
         ExtTcpPortAdvertiseAs=3 ExtHttpPortAdvertiseAs=4",
        ["10.0.0.1:1", "10.0.0.1:2", "[::1]:3", "[::1]:4"],
    );
}

#[test]
fn the_port_with_tls_is_told_and_one_that_is_not_opened_is_told_as_0() {
    const FILES: &str = "CertificateFile=/c CertificatePrivateKeyFile=/k";
    let check = |options: &str, plain: &str, secure: Option<&str>| {
        let told = config(&format!("{FILES} {options}")).advertised();
        assert_eq!(told.ext_tcp.to_string(), plain, "{options}");
        assert_eq!(told.ext_secure_tcp.map(|address| address.to_string()).as_deref(), secure, "{options}");
    };
    check("ExtSecureTcpPortAdvertiseAs=7", "127.0.0.1:1113", None);
    check("ExtSecureHttpPort=2114", "127.0.0.1:1113", None);
    check("ExtSecureTcpPort=1116", "127.0.0.1:1113", Some("127.0.0.1:1116"));
    let told = "ExtSecureTcpPort=1116 ExtSecureTcpPortAdvertiseAs=7 ExtIpAdvertiseAs=10.0.0.5 ExtTcpPortAdvertiseAs=8";
    check(told, "10.0.0.5:8", Some("10.0.0.5:7"));
    check(&format!("{told} DisableInsecureTCP=true"), "10.0.0.5:0", Some("10.0.0.5:7"));
    // Nor is it in the way of another one.
    let one_port = "ExtSecureTcpPort=1113";
    check_refused(&format!("{FILES} {one_port}"), "ExtTcpPort and ExtSecureTcpPort are both 1113 on 127.0.0.1, but");
    check(&format!("{one_port} DisableInsecureTCP=true"), "127.0.0.1:0", Some("127.0.0.1:1113"));
    check_warnings(&format!("{CLUSTER} {FILES} ExtSecureTcpPort=1116 DisableInsecureTCP=true"), &[]);
}

#[test]
fn a_chunk_holds_the_largest_write() {
    let sizes = |options: &str| {
        let config = config(options);
        (config.chunk_size_bytes, config.append_size_max_bytes)
    };
    assert_eq!(sizes("ChunkSize=32MiB"), (32 << 20, 16 << 20));
    assert_eq!(sizes("ChunkSize=64MiB MaxAppendSize=24MiB"), (64 << 20, 24 << 20));
    check_refused("ChunkSize=1048577", "ChunkSize is 1048577 bytes (command line), but must be a multiple of 4096;");
    check_refused("ChunkSize=1023KiB", "ChunkSize is \"1023KiB\" (command line), but must be a size from 1048576 to");
    check_refused("ChunkSize=2GiB", "ChunkSize is \"2GiB\" (command line), but must be a size from 1048576 to");
    check_refused("MaxAppendSize=25MiB", "MaxAppendSize is \"25MiB\" (command line), but must be a size from 4096 to");
    check_refused(
        "ChunkSize=32MiB MaxAppendSize=16777217",
        "ChunkSize is 33554432 bytes, but must be at least twice MaxAppendSize (16777217 bytes, command line); \
         set ChunkSize to 33554434 or more, or MaxAppendSize to 16777216 or less",
    );
}

#[test]
fn the_largest_write_shrinks_with_a_small_chunk_unless_it_was_chosen() {
    let checked = checked("ChunkSize=1MiB").unwrap();
    assert_eq!(checked.config.append_size_max_bytes, 256 << 10);
    assert_eq!(checked.adjusted.len(), 1);
    assert_eq!((checked.adjusted[0].name, checked.adjusted[0].value.as_str()), ("MaxAppendSize", "262144"));
    check_warnings(
        "ChunkSize=1MiB",
        &["MaxAppendSize is lowered from 16777216 to 262144 bytes, a quarter of ChunkSize"],
    );
    check_warnings("ChunkSize=1MiB MaxAppendSize=512KiB", &[]);
}

#[test]
fn unsafe_options_are_warned_of() {
    check_warnings("UnsafeDisableFlushToDisk=true", &["UnsafeDisableFlushToDisk is true: a power failure can lose"]);
}

#[test]
fn edge_threads_0_means_one_for_each_processor() {
    let check = |configured: &str, processors: usize, expected: usize| {
        let config = config(&format!("EdgeThreads={configured}"));
        assert_eq!(config.edge_thread_count(NonZeroUsize::new(processors).unwrap()), expected);
    };
    check("0", 8, 8);
    check("0", 1000, 256);
    check("1", 8, 1);
    check("4", 2, 4);
    check("0 ExtCpus=2,5,7", 8, 3);
    check("2 ExtCpus=2,5,7", 8, 2);
}

#[test]
fn each_thread_is_placed_by_one_option() {
    let check = |options: &str, log: &[usize], control: &[usize], background: &[usize], edges: [&[usize]; 3]| {
        let config = config(options);
        assert_eq!(config.log_cpus(), log, "{options}");
        assert_eq!(config.control_cpus(), control, "{options}");
        assert_eq!(config.background_cpus(), background, "{options}");
        assert_eq!([0, 1, 2].map(|edge| config.edge_cpus(edge)), edges.map(<[usize]>::to_vec), "{options}");
    };
    check("", &[], &[], &[], [&[]; 3]);
    check("IntCpus=0-1 ExtCpus=2-3", &[0, 1], &[0, 1], &[0, 1], [&[2], &[3], &[2]]);
    check("CpuPinning=log=4,edges=5 IntCpus=", &[4], &[], &[], [&[5]; 3]);
    check("CpuPinning=edges=5 IntCpus=0-1", &[0, 1], &[0, 1], &[0, 1], [&[5]; 3]);
    check("CpuPinning=log=4 ExtCpus=5", &[4], &[], &[], [&[5]; 3]);
    for thread in ["log", "control", "background"] {
        check_refused(
            &format!("CpuPinning={thread}=4 IntCpus=0-1"),
            &format!(
                "IntCpus is \"0-1\" (command line) and CpuPinning is \"{thread}=4\", but both place the {thread} thread;"
            ),
        );
    }
    check_refused("CpuPinning=edges=4 ExtCpus=0", "ExtCpus is \"0\" (command line) and CpuPinning is \"edges=4\", but");
    check_refused(
        "IntCpus=0-9999",
        "IntCpus is \"0-9999\" (command line), but must be a list of processors from 0 to 1023",
    );
    check_warnings(
        "IntCpus=0-1 ExtCpus=1-2 EdgeThreads=0",
        &["IntCpus is \"0-1\" and ExtCpus is \"1-2\", which share 1: clients can"],
    );
    check_warnings("IntCpus=0-1 ExtCpus=2", &[]);
}

#[test]
fn the_planes_are_left_to_the_system_unless_asked() {
    let config = Config::default();
    assert_eq!((config.int_device, config.ext_device, config.int_busy_poll_us), (None, None, 0));
    assert_eq!(config.on_ext, OnExt { admin: true, stats: true, gossip: true });
    assert!(config.ext_advertise.is_empty() && config.int_cpus.is_empty() && config.ext_cpus.is_empty());
    check_refused("IntDevice=eth/1", "IntDevice is \"eth/1\" (command line), but must be the name of a network device");
    check_refused(
        "IntBusyPollUs=1001",
        "IntBusyPollUs is \"1001\" (command line), but must be a whole number from 0 to",
    );
    check_refused("StatsOnExt=perhaps", "StatsOnExt is \"perhaps\"");
}
