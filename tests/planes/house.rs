//! Three hosts with a node each, and a place for clients.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::support::cluster::{Cluster, Home, Node, small_chunks};
use crate::support::keys::{Keys, Lock};
use crate::support::wires::{self, Plane, Shape, Wires};

/// Nobody is on both sides but the hosts.
pub(crate) const SHAPE: Shape = Shape { mark: "rsp-", network: (10, 77), is_one_hub: false };

/// The hosts with nodes.
pub(crate) const NODES: usize = 3;

/// The host of those who do not belong to the cluster; on both bridges.
pub(crate) const STRANGER: usize = 3;

/// The host of the clients; on the external bridge only. Threads and processes of this program live there.
pub(crate) const CLIENTS: usize = 100;

/// The defaults.
const PORTS: [u16; 4] = [1112, 1113, 2112, 2113];

/// Bytes of log in a chunk file.
pub(crate) const CHUNK_SIZE: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct House {
    // Dropped in this order: the nodes end before their network goes.
    pub(crate) cluster: Cluster,
    pub(crate) keys: Keys,
    folder: PathBuf,
    pub(crate) wires: Wires,
}

impl House {
    /// Builds the hosts, starts a node in each, and brings the calling thread to the clients.
    pub(crate) fn start(folder: &Path, lock: Lock, options: &[String]) -> anyhow::Result<House> {
        let wires = Wires::build(SHAPE, NODES)?;
        wires.add_host(CLIENTS, &[Plane::External])?;
        wires::enter(&wires.name(CLIENTS))?;
        let addresses: Vec<Ipv4Addr> = (0..NODES).map(|index| wires.address(Plane::Internal, index)).collect();
        let keys = Keys::make(folder, &format!("keys-{}", lock.name()), lock, &addresses)?;
        let homes = (0..NODES).map(|index| home(&wires, folder, index, &keys)).collect();
        let options: Vec<String> = options.iter().cloned().chain(small_chunks(CHUNK_SIZE)).collect();
        let cluster = Cluster::start_at(homes, &options)?;
        Ok(House { cluster, keys, folder: folder.to_path_buf(), wires })
    }

    /// A node at another host, not started, with keys of the caller's choice.
    pub(crate) fn another(&self, name: &str, index: usize, keys: &Keys) -> Node {
        let mut home = home(&self.wires, &self.folder.join(name), index, keys);
        home.options.extend(small_chunks(CHUNK_SIZE));
        Node::at(home)
    }

    /// The internal HTTP endpoints of the cluster, as seeds.
    pub(crate) fn seeds(&self) -> String {
        let seeds: Vec<String> = self.cluster.nodes.iter().map(|node| node.int_http().to_string()).collect();
        seeds.join(",")
    }
}

fn home(wires: &Wires, folder: &Path, index: usize, keys: &Keys) -> Home {
    let folder = folder.join(format!("node-{}", index + 1));
    let db = folder.join("db");
    let mut home = wires.home(index, PORTS, folder, db);
    // Unlike nsenter it shows the process the devices of its namespace in /sys, too.
    home.launcher = ["ip", "netns", "exec"].map(str::to_owned).into();
    home.launcher.push(wires.name(index));
    home.options = keys.options(home.int_ip);
    let devices = [("--int-device", Plane::Internal), ("--ext-device", Plane::External)];
    home.options.extend(devices.into_iter().flat_map(|(name, plane)| [name.to_owned(), Wires::device(plane)]));
    home
}
