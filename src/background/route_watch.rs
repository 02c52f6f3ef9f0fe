//! Looks after the internal plane's routes: does the way to each other node leave by the internal device?
//!
//! Asks the kernel at the start and each minute, for a new peer at once, and says it once when the device is another than it
//! should be, and once when it is right again. Leaves the figures to `/stats` ([`PeerRoutes`]). It changes nothing: routes
//! are the operator's.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Chore, Next};
use crate::gossip::{Directory, PeerRoute, PeerRoutes};
use crate::ring::{Route, Routes};
use crate::types::NodeId;

/// Between two looks at all peers.
const INTERVAL: Duration = Duration::from_secs(60);

/// Between two looks for new ones.
const NEW_PEERS_INTERVAL: Duration = Duration::from_secs(1);

/// Peers looked after at most: members, clones and seeds.
const PEERS_MAX: usize = 128;

/// Whom to ask for routes: the kernel, or a stand-in.
pub trait RouteSource: Send {
    /// The way to `to` from `from`.
    ///
    /// # Errors
    /// When there is none, or nothing is known.
    fn route(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Route>;

    /// The device with this address.
    ///
    /// # Errors
    /// When nothing is known.
    fn device_with(&mut self, address: IpAddr) -> io::Result<Option<String>>;
}

impl RouteSource for Routes {
    fn route(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Route> {
        Routes::route(self, to, from)
    }

    fn device_with(&mut self, address: IpAddr) -> io::Result<Option<String>> {
        Routes::device_with(self, address)
    }
}

/// What the watch needs.
#[derive(Debug)]
pub struct RouteWatchLinks<S> {
    /// Whom to ask.
    pub source: S,
    /// This node.
    pub node: NodeId,
    /// `IntIp`.
    pub int_ip: IpAddr,
    /// `IntDevice`; without it the device that has `IntIp` is expected, if that is a card.
    pub device: Option<String>,
    /// Where gossip begins.
    pub seeds: Vec<SocketAddr>,
    /// The other nodes.
    pub directory: Directory,
    /// For `/stats`.
    pub routes: PeerRoutes,
}

/// See the module.
#[derive(Debug)]
pub struct RouteWatch<S> {
    links: RouteWatchLinks<S>,
    expected: Option<String>,
    /// What was found last, and whether the operator was warned of it.
    known: BTreeMap<SocketAddr, (PeerRoute, bool)>,
    all_due: Option<Instant>,
    /// That the kernel does not answer was said.
    complained: bool,
}

impl<S: RouteSource> RouteWatch<S> {
    /// A watch that has not looked yet.
    #[must_use]
    pub fn new(links: RouteWatchLinks<S>) -> RouteWatch<S> {
        RouteWatch { links, expected: None, known: BTreeMap::new(), all_due: None, complained: false }
    }

    /// Seeds, and the nodes that gossip knows; not this one.
    fn peers(&self) -> Vec<SocketAddr> {
        let nodes = self.links.directory.nodes();
        let own = nodes.iter().find(|known| known.node == self.links.node).map(|known| known.addresses.int_http);
        let others = nodes.iter().filter(|known| known.node != self.links.node).map(|known| known.addresses.int_http);
        let mut peers: Vec<SocketAddr> = others.chain(self.links.seeds.iter().copied()).collect();
        peers.retain(|peer| Some(*peer) != own);
        peers.sort_unstable();
        peers.dedup();
        peers.truncate(PEERS_MAX);
        peers
    }

    /// What the device of the internal plane is; `None` where `IntIp` is no single address of this host, or one that is on the
    /// loopback device though it is no loopback address: any card may carry that.
    fn look_for_device(&mut self) {
        let is_card = |device: &String| device != "lo" || self.links.int_ip.is_loopback();
        let found = match &self.links.device {
            Some(device) => Ok(Some(device.clone())),
            None => self.links.source.device_with(self.links.int_ip),
        };
        match found {
            Ok(device) => self.expected = device.filter(is_card),
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(%error, "the kernel does not tell this node's addresses: the routes to the other nodes are not checked; \
                    allow netlink sockets, or set IntDevice");
            }
            Err(_) => {}
        }
    }

    fn look_at(&mut self, peer: SocketAddr) {
        let found = self.links.source.route(peer.ip(), Some(self.links.int_ip));
        let device = found.as_ref().ok().map(|route| route.device.clone());
        let is_here = found.as_ref().is_ok_and(|route| route.is_local);
        let is_elsewhere =
            !is_here && matches!((&device, &self.expected), (Some(found), Some(expected)) if found != expected);
        let is_bound = self.links.device.is_some();
        let route = PeerRoute { peer, device: device.clone(), is_wrong: is_elsewhere && !is_bound };
        let before = self.known.insert(peer, (route, is_elsewhere));
        let was_elsewhere = before.as_ref().is_some_and(|(_, was)| *was);
        let is_news = before.is_none_or(|(before, was)| before.device != device || was != is_elsewhere);
        let expected = self.expected.as_deref().unwrap_or("?");
        match device {
            _ if !is_news => {}
            None => tracing::debug!(%peer, error = ?found.err(), "no route to a node"),
            Some(found) if is_elsewhere && is_bound => tracing::warn!(
                %peer, expected, found,
                "the routes to a node name network device {found}; connections are bound to {expected} (IntDevice), and reach \
                 the node only if it is on that link: give the route to {expected} (`ip route get {}`)",
                peer.ip()
            ),
            Some(found) if is_elsewhere => tracing::warn!(
                %peer, expected, found,
                "the route to a node leaves by network device {found}, not by {expected} of the internal plane: replication \
                 would share it with clients; correct the routes (`ip route get {}`), or IntIp and IntDevice",
                peer.ip()
            ),
            Some(found) if was_elsewhere => {
                tracing::info!(%peer, expected, found, "the route to a node leaves by the internal plane's device again");
            }
            Some(found) => tracing::debug!(%peer, expected, found, "the route to a node"),
        }
    }
}

impl<S: RouteSource> Chore for RouteWatch<S> {
    fn name(&self) -> &'static str {
        "route watch"
    }

    fn step(&mut self, now: Instant) -> Next {
        let peers = self.peers();
        let looks_at_all = self.all_due.is_none_or(|due| due <= now);
        if looks_at_all {
            self.all_due = Some(now + INTERVAL);
            self.look_for_device();
        }
        let before = self.known.len();
        self.known.retain(|peer, _| peers.contains(peer));
        let mut is_changed = looks_at_all || before != self.known.len();
        for peer in peers {
            if looks_at_all || !self.known.contains_key(&peer) {
                self.look_at(peer);
                is_changed = true;
            }
        }
        if is_changed {
            self.links
                .routes
                .replace(self.expected.clone(), self.known.values().map(|(route, _)| route.clone()).collect());
        }
        Next::After(NEW_PEERS_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::gossip::{Addresses, KnownNode};
    use crate::types::Guid;

    /// Routes by address: device, and whether it is this host.
    #[derive(Clone, Debug, Default)]
    struct Table {
        routes: Arc<Mutex<BTreeMap<IpAddr, (&'static str, bool)>>>,
        asked: Arc<Mutex<usize>>,
        /// The device that has `IntIp`, where it is not `eth1`.
        own: Arc<Mutex<Option<&'static str>>>,
    }

    impl RouteSource for Table {
        fn route(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Route> {
            assert_eq!(from, Some(ip("10.0.0.1")));
            *self.asked.lock() += 1;
            let (device, is_local) = *self.routes.lock().get(&to).ok_or(io::ErrorKind::NetworkUnreachable)?;
            Ok(Route { device: device.to_owned(), is_local })
        }

        fn device_with(&mut self, address: IpAddr) -> io::Result<Option<String>> {
            Ok((address == ip("10.0.0.1")).then(|| self.own.lock().unwrap_or("eth1").to_owned()))
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(n: u8) -> KnownNode {
        let at = SocketAddr::from(([10, 0, 0, n], 2112));
        let addresses = Addresses { int_tcp: at, int_http: at, ext_tcp: at, ext_http: at, ext_secure_tcp: None };
        KnownNode { node: NodeId(Guid([n; 16])), addresses, is_alive: true }
    }

    fn watch(device: Option<&str>) -> (RouteWatch<Table>, Table, Directory, PeerRoutes) {
        let (source, directory, routes) = (Table::default(), Directory::default(), PeerRoutes::default());
        directory.replace(vec![known(1)], "".into());
        let links = RouteWatchLinks {
            source: source.clone(),
            node: NodeId(Guid([1; 16])),
            int_ip: ip("10.0.0.1"),
            device: device.map(str::to_owned),
            seeds: vec![known(1).addresses.int_http, known(2).addresses.int_http],
            directory: directory.clone(),
            routes: routes.clone(),
        };
        (RouteWatch::new(links), source, directory, routes)
    }

    /// Peers as `last number of the address, device, wrong?`.
    fn shown(routes: &PeerRoutes) -> Vec<(u8, Option<String>, bool)> {
        let last = |peer: SocketAddr| match peer.ip() {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        routes.read().1.into_iter().map(|route| (last(route.peer), route.device, route.is_wrong)).collect()
    }

    #[test]
    fn a_peer_on_the_wrong_device_is_found_and_found_right_again() {
        let (mut watch, source, _, routes) = watch(None);
        let start = Instant::now();
        source.routes.lock().insert(ip("10.0.0.2"), ("eth0", false));
        watch.step(start);
        assert_eq!(routes.read().0.as_deref(), Some("eth1"), "the device that has IntIp");
        assert_eq!(shown(&routes), [(2, Some("eth0".to_owned()), true)]);
        source.routes.lock().insert(ip("10.0.0.2"), ("eth1", false));
        watch.step(start + Duration::from_secs(30));
        assert_eq!((shown(&routes)[0].2, *source.asked.lock()), (true, 1), "asked once a minute");
        watch.step(start + INTERVAL);
        assert_eq!(shown(&routes), [(2, Some("eth1".to_owned()), false)]);
        source.routes.lock().clear();
        watch.step(start + 2 * INTERVAL);
        assert_eq!(shown(&routes), [(2, None, false)], "no route is no wrong one");
    }

    #[test]
    fn new_peers_are_looked_at_soon_and_old_ones_forgotten() {
        let (mut watch, source, directory, routes) = watch(Some("bond1"));
        for n in [2, 3] {
            source.routes.lock().insert(IpAddr::from([10, 0, 0, n]), ("eth1", false));
        }
        let start = Instant::now();
        watch.step(start);
        assert_eq!(shown(&routes).len(), 1);
        directory.replace(vec![known(1), known(2), known(3)], "".into());
        watch.step(start + NEW_PEERS_INTERVAL);
        let bound = |n| (n, Some("eth1".to_owned()), false);
        assert_eq!(routes.read().0.as_deref(), Some("bond1"), "IntDevice is what is expected");
        assert_eq!(shown(&routes), [bound(2), bound(3)], "connections are bound to it, whatever the routes say");
        assert!(watch.known.values().all(|(_, is_elsewhere)| *is_elsewhere), "but it is said");
        assert_eq!(*source.asked.lock(), 2);
        directory.replace(vec![known(1)], "".into());
        watch.step(start + 2 * NEW_PEERS_INTERVAL);
        assert_eq!(shown(&routes), [bound(2)], "the seed stays");
    }

    #[test]
    fn no_device_is_expected_for_an_address_on_the_loopback_device() {
        let (mut watch, source, _, routes) = watch(None);
        *source.own.lock() = Some("lo");
        source.routes.lock().insert(ip("10.0.0.2"), ("eth0", false));
        watch.step(Instant::now());
        assert_eq!(routes.read().0, None);
        assert_eq!(shown(&routes), [(2, Some("eth0".to_owned()), false)]);
        assert!(watch.known.values().all(|(_, is_elsewhere)| !is_elsewhere), "nor is anything said");
    }

    #[test]
    fn a_node_on_the_same_host_is_on_no_wrong_device() {
        let (mut watch, source, _, routes) = watch(None);
        source.routes.lock().insert(ip("10.0.0.2"), ("lo", true));
        watch.step(Instant::now());
        assert_eq!(shown(&routes), [(2, Some("lo".to_owned()), false)]);
    }
}
