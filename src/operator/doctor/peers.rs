//! Findings about the other nodes: can they be reached, how long does a round trip take, do their settings go with ours.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::data::shown;
use super::finding::Group;
use crate::config::Config;
use crate::machine::Machine;
use crate::operator::access::Access;
use crate::ring::{Route, Routes, Way};

/// Connections that are timed.
const CONNECTS: usize = 5;
/// A node that is further away is none to replicate with.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Peers that are asked at most; a name may stand for many addresses.
const PEERS_MAX: usize = 16;
/// Headers of IP and TCP, with the time stamp that TCP usually has.
const HEADERS_V4: u32 = 40 + 12;
const HEADERS_V6: u32 = 60 + 12;
/// Settings that must be the same, or nodes do not work together. Others only should.
const MUST_AGREE: [&str; 2] = ["ClusterSize", "ChunkSize"];

pub(super) fn findings(machine: &Machine, config: &Config) -> Group {
    let mut group = Group::new("peers");
    if !config.is_cluster() {
        group.fine("ClusterSize is 1: there are no others");
        return group;
    }
    let peers = peers(&mut group, machine, config);
    if peers.is_empty() {
        group.advice("no other node is named", "name the others with GossipSeed or ClusterDns");
    }
    let access = Access::of_node(config);
    if let Err(error) = &access {
        group.problem(
            format!("the other nodes can only be tried to reach, not asked: {error}"),
            "correct the files: the node does not start with them, either",
        );
    }
    let mut routes = Routes::open().ok();
    for peer in peers.into_iter().take(PEERS_MAX) {
        look_at(&mut group, machine, config, access.as_ref().ok(), routes.as_mut(), peer);
    }
    group
}

/// Where the others are: the seeds and what DNS says, without this node.
fn peers(group: &mut Group, machine: &Machine, config: &Config) -> Vec<SocketAddr> {
    let mut found = config.gossip_seeds.clone();
    if let Some(dns) = &config.dns {
        match (dns.name.as_str(), dns.gossip_port).to_socket_addrs() {
            Ok(addresses) => {
                let before = found.len();
                found.extend(addresses);
                group.fine(format!("ClusterDns {} lists {} addresses", dns.name, found.len() - before));
            }
            Err(error) => group.problem(
                format!("ClusterDns {} cannot be looked up: {error}", dns.name),
                "correct the name, or name the nodes with GossipSeed",
            ),
        }
    }
    found.sort();
    found.dedup();
    found.retain(|address| !is_own(machine, config, *address));
    found
}

fn is_own(machine: &Machine, config: &Config, address: SocketAddr) -> bool {
    if address == config.int_http() || address == config.advertised().int_http {
        return true;
    }
    // Another node may have another address of this host: only one that listens on all of them has them all.
    let is_here = !address.ip().is_loopback() && machine.device_with(address.ip()).is_some();
    config.int_ip.is_unspecified() && is_here && address.port() == config.int_http_port
}

fn look_at(
    group: &mut Group,
    machine: &Machine,
    config: &Config,
    access: Option<&Access>,
    routes: Option<&mut Routes>,
    peer: SocketAddr,
) {
    let taken = access.map_or_else(|| Access::way_of(config), |access| access.way.clone());
    let reached = match reach(&taken, peer) {
        Ok(reached) => reached,
        Err(error) => {
            group.problem(
                format!("{peer} cannot be reached{}: {error}", words_of(&taken)),
                "is the node running, is that its IntIp:IntHttpPort, does a firewall let it through, and is there a route?",
            );
            return;
        }
    };
    round_trip(group, config, peer, &reached);
    let route = routes.and_then(|routes| routes.route(peer.ip(), Some(config.int_ip)).ok());
    way(group, machine, config, peer, route.as_ref(), reached.segment);
    let Some(access) = access else { return };
    let status = match access.get(peer, "/admin/status") {
        Ok(status) => status,
        Err(error) => {
            group.problem(
                format!("{peer} does not answer /admin/status: {error}"),
                "is it a ringstore node of this release, with the same ClusterSecretFile and UseInternalSsl?",
            );
            return;
        }
    };
    let text = |name: &str| status[name].as_str().unwrap_or("unknown").to_owned();
    group.fine(format!("{peer} is {} {}, {}", text("version"), text("role"), text("node")));
    if text("version") != env!("CARGO_PKG_VERSION") {
        group.advice(
            format!("{peer} runs {}, this is {}", text("version"), env!("CARGO_PKG_VERSION")),
            "bring all nodes to one release",
        );
    }
    settings(group, config, peer, &status["settings"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    clocks(group, config, peer, &status, now, reached.slowest);
    replication_port(group, &taken, peer, &status);
}

/// How the way leaves this host, where the node keeps to something.
fn words_of(way: &Way) -> String {
    let from = way.from.map(|from| format!(" from {from}")).unwrap_or_default();
    let device = way.device.as_deref().map(|device| format!(" over {device}")).unwrap_or_default();
    format!("{from}{device}")
}

/// What connecting showed.
struct Reached {
    fastest: Duration,
    slowest: Duration,
    /// Bytes that TCP puts in one packet.
    segment: Option<u32>,
}

/// By the way that the node's own connections take.
fn reach(way: &Way, peer: SocketAddr) -> io::Result<Reached> {
    let mut reached = Reached { fastest: Duration::MAX, slowest: Duration::ZERO, segment: None };
    for _ in 0..CONNECTS {
        let start = Instant::now();
        let stream = way.connect(peer, CONNECT_LIMIT)?;
        let took = start.elapsed();
        (reached.fastest, reached.slowest) = (reached.fastest.min(took), reached.slowest.max(took));
        reached.segment = socket2::SockRef::from(&stream).tcp_mss().ok();
    }
    Ok(reached)
}

fn round_trip(group: &mut Group, config: &Config, peer: SocketAddr, reached: &Reached) {
    let words = format!("{peer} is reached within {} to {}", shown(reached.fastest), shown(reached.slowest));
    let timeout = config.int_tcp_heartbeat.timeout;
    if reached.slowest > timeout / 2 {
        group.problem(
            format!("{words}, more than half of IntTcpHeartbeatTimeout ({})", shown(timeout)),
            "raise IntTcpHeartbeatTimeout on all nodes, or leaders are deposed for nothing",
        );
    } else if reached.slowest > config.gossip_timeout / 2 {
        group.advice(
            format!("{words}, more than half of GossipTimeoutMs ({})", shown(config.gossip_timeout)),
            "raise GossipTimeoutMs on all nodes",
        );
    } else {
        group.fine(words);
    }
}

/// By which device, and in packets of which size. `route` is what the kernel would do by itself; sockets of a node with
/// IntDevice are bound to that, whatever the routes say.
fn way(
    group: &mut Group,
    machine: &Machine,
    config: &Config,
    peer: SocketAddr,
    route: Option<&Route>,
    segment: Option<u32>,
) {
    let named = route.filter(|route| !route.is_local).and_then(|route| machine.device(&route.device));
    let bound = config.int_device.as_deref().and_then(|name| machine.device(name));
    let own = bound.or_else(|| machine.carrier_of(config.int_ip));
    if let (Some(named), Some(own)) = (named, own)
        && named.name != own.name
    {
        let (found, expected, ip) = (&named.name, &own.name, peer.ip());
        if bound.is_some() {
            group.advice(
                format!(
                    "the routes to {peer} name {found}; the node's connections are bound to {expected} (IntDevice), and reach \
                     it as long as it is on that link"
                ),
                format!("give the route to {expected}: `ip route get {ip}`"),
            );
        } else {
            group.problem(
                format!("the way to {peer} leaves by {found}, but the internal plane is on {expected}"),
                format!("mend the route: `ip route get {ip} from {}`; or correct IntIp", config.int_ip),
            );
        }
    }
    let device = bound.or(named);
    let headers = if peer.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let mtu = device.filter(|device| !device.is_loopback()).and_then(|device| device.mtu);
    if let (Some(mtu), Some(segment)) = (mtu, segment) {
        if segment + headers < mtu {
            group.advice(
                format!("packets to {peer} carry {segment} bytes, MTU {mtu} here would take {}", mtu - headers),
                "give all nodes and the switch the same MTU",
            );
        } else {
            group.fine(format!("packets to {peer} carry {segment} bytes, as MTU {mtu} allows"));
        }
    }
}

fn settings(group: &mut Group, config: &Config, peer: SocketAddr, theirs: &Value) {
    let Some(theirs) = theirs.as_object() else {
        group.advice(format!("{peer} does not tell its settings"), "bring all nodes to one release");
        return;
    };
    let mut differ = false;
    for (name, ours) in config.shared_settings() {
        let Some(value) = theirs.get(name).and_then(Value::as_u64).filter(|value| *value != ours) else { continue };
        differ = true;
        let words = format!("{name} is {ours} here and {value} on {peer}");
        if MUST_AGREE.contains(&name) {
            group.problem(words, "set it to the same value on all nodes");
        } else {
            group.advice(words, "set it to the same value on all nodes");
        }
    }
    if !differ {
        let names: Vec<&str> = config.shared_settings().iter().map(|(name, _)| *name).collect();
        group.fine(format!("{peer} agrees on {}", names.join(", ")));
    }
}

/// `now` was read after the answer, so up to a round trip of the difference is the way's.
fn clocks(group: &mut Group, config: &Config, peer: SocketAddr, status: &Value, now: Duration, slack: Duration) {
    let Some(theirs) = status["unixMs"].as_u64().map(Duration::from_millis) else { return };
    let difference = now.abs_diff(theirs);
    let words = format!("the clock of {peer} differs by {} (a round trip included)", shown(difference));
    if difference > config.gossip_allowed_difference + slack {
        group.problem(
            format!("{words}, more than GossipAllowedDifferenceMs ({})", shown(config.gossip_allowed_difference)),
            "run chrony or another NTP client on all nodes",
        );
    } else {
        group.fine(words);
    }
}

/// Gossip may come through where replication does not.
fn replication_port(group: &mut Group, way: &Way, peer: SocketAddr, status: &Value) {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let own = nodes.iter().find(|node| node["node"] == status["node"]);
    let address = own.and_then(|node| node["intTcp"].as_str()).and_then(|text| text.parse::<SocketAddr>().ok());
    let Some(address) = address else {
        group.fine(format!("{peer} does not say where its replication port is"));
        return;
    };
    match way.connect(address, CONNECT_LIMIT) {
        Ok(_) => group.fine(format!("{address}, the replication port of {peer}, can be reached")),
        Err(error) => group.problem(
            format!("{address}, the replication port of {peer}, cannot be reached: {error}"),
            "let IntTcpPort through the firewall, between all nodes and in both directions",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::doctor::finding::Grade;

    fn peer() -> SocketAddr {
        "10.1.0.2:2112".parse().unwrap()
    }

    fn graded(run: impl FnOnce(&mut Group, &Config)) -> Vec<(Grade, String)> {
        let mut group = Group::new("peers");
        run(&mut group, &Config::default());
        group.findings.iter().map(|finding| (finding.grade, finding.line())).collect()
    }

    #[test]
    fn settings_that_differ_are_named() {
        let ours: serde_json::Map<String, Value> = Config::default()
            .shared_settings()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let check = |change: Option<(&str, u64)>, expected: Grade, words: &str| {
            let mut theirs = ours.clone();
            if let Some((name, value)) = change {
                theirs.insert(name.to_owned(), value.into());
            }
            let found = graded(|group, config| settings(group, config, peer(), &Value::Object(theirs)));
            assert!(found[0].0 == expected && found[0].1.contains(words), "{found:?}");
        };
        check(None, Grade::Fine, "agrees on ClusterSize, ChunkSize");
        check(Some(("ClusterSize", 5)), Grade::Problem, "ClusterSize is 1 here and 5 on 10.1.0.2:2112");
        check(Some(("IntTcpHeartbeatTimeout", 9)), Grade::Advice, "IntTcpHeartbeatTimeout is");
        let found = graded(|group, config| settings(group, config, peer(), &Value::Null));
        assert_eq!(found[0].0, Grade::Advice);
    }

    #[test]
    fn clocks_and_round_trips_have_limits() {
        let now = Duration::from_secs(1_000_000);
        let clock = |behind: u64, expected| {
            let status = json!({ "unixMs": (now.as_secs() - behind) * 1000 });
            let found = graded(|group, config| clocks(group, config, peer(), &status, now, Duration::ZERO));
            assert_eq!(found[0].0, expected, "{found:?}");
        };
        clock(0, Grade::Fine);
        clock(60, Grade::Fine);
        clock(61, Grade::Problem);
        let trip = |slowest: Duration, expected| {
            let reached = Reached { fastest: Duration::ZERO, slowest, segment: None };
            let found = graded(|group, config| round_trip(group, config, peer(), &reached));
            assert_eq!(found[0].0, expected, "{found:?}");
        };
        let config = Config::default();
        trip(Duration::from_micros(80), Grade::Fine);
        trip(config.int_tcp_heartbeat.timeout, Grade::Problem);
    }

    #[test]
    fn the_way_must_be_the_internal_device_with_its_packets() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let machine = Machine::read(&tree).unwrap();
        let check = |bound: Option<&str>, device: &str, segment: u32, expected: &[Grade]| {
            let route = Route { device: device.to_owned(), is_local: device == "lo" };
            let mut config = Config { int_ip: "10.1.0.1".parse().unwrap(), cluster_size: 3, ..Config::default() };
            config.int_device = bound.map(str::to_owned);
            let found = graded(|group, _| way(group, &machine, &config, peer(), Some(&route), Some(segment)));
            assert_eq!(found.iter().map(|(grade, _)| *grade).collect::<Vec<_>>(), expected, "{found:?}");
        };
        check(None, "ens1f0np0", 8948, &[Grade::Fine]);
        check(None, "ens1f0np0", 1448, &[Grade::Advice]);
        check(None, "ens2f0np0", 1448, &[Grade::Problem, Grade::Fine]);
        check(None, "lo", 1448, &[]);
        // Bound to its device the node works, whatever the routes say; the packets are those of the device.
        check(Some("ens1f0np0"), "ens2f0np0", 8948, &[Grade::Advice, Grade::Fine]);
    }

    #[test]
    fn any_card_may_carry_the_address_of_a_routed_host() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let mut machine = Machine::read(&tree).unwrap();
        let config = Config { int_ip: "10.77.0.1".parse().unwrap(), cluster_size: 3, ..Config::default() };
        machine.devices.iter_mut().find(|device| device.is_loopback()).unwrap().addresses.push(config.int_ip);
        let route = Route { device: "ens2f0np0".to_owned(), is_local: false };
        let found = graded(|group, _| way(group, &machine, &config, peer(), Some(&route), Some(1448)));
        assert_eq!(found.iter().map(|(grade, _)| *grade).collect::<Vec<_>>(), [Grade::Fine], "{found:?}");
    }

    #[test]
    fn others_are_reached_by_the_nodes_own_way() {
        let listener = std::net::TcpListener::bind("127.0.0.92:0").unwrap();
        let way = Way { from: Some("127.0.0.93".parse().unwrap()), ..Way::default() };
        reach(&way, listener.local_addr().unwrap()).unwrap();
        let status =
            json!({ "node": "a", "nodes": [{ "node": "a", "intTcp": listener.local_addr().unwrap().to_string() }] });
        let found = graded(|group, _| replication_port(group, &way, peer(), &status));
        assert_eq!(found[0].0, Grade::Fine, "{found:?}");
        for _ in 0..=CONNECTS {
            assert_eq!(listener.accept().unwrap().1.ip(), way.from.unwrap());
        }
    }

    #[test]
    fn the_node_itself_is_no_peer() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let machine = Machine::read(&tree).unwrap();
        let seeds = ["10.1.0.1:2112", "10.1.0.2:2112", "10.1.0.2:2112", "10.1.0.3:2112"];
        let config = Config {
            int_ip: "10.1.0.1".parse().unwrap(),
            gossip_seeds: seeds.map(|seed| seed.parse().unwrap()).to_vec(),
            ..Config::default()
        };
        let found = peers(&mut Group::new("peers"), &machine, &config);
        assert_eq!(found, ["10.1.0.2:2112".parse().unwrap(), "10.1.0.3:2112".parse().unwrap()]);
        let is_own = |int_ip: &str, address: &str| {
            let config = Config { int_ip: int_ip.parse().unwrap(), ..Config::default() };
            is_own(&machine, &config, address.parse().unwrap())
        };
        assert!(is_own("0.0.0.0", "192.168.7.1:2112") && !is_own("0.0.0.0", "192.168.7.9:2112"));
        assert!(!is_own("10.1.0.1", "192.168.7.1:2112"), "another node on this host");
    }

    #[test]
    fn nobody_is_a_problem() {
        let nobody = std::net::TcpListener::bind("127.0.0.91:0").unwrap().local_addr().unwrap();
        let machine = Machine::default();
        let found = graded(|group, config| look_at(group, &machine, config, Some(&Access::default()), None, nobody));
        assert!(found[0].0 == Grade::Problem && found[0].1.contains("cannot be reached"), "{found:?}");
    }
}
