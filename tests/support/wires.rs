//! Hosts without hardware: network namespaces, each with an internal and an external interface on two bridges.
//!
//! The bridges lie in namespaces of their own (the hubs), so that nothing of the machine's own network is touched, and
//! several sets can stand beside each other. All that is made carries the process id in its name: it is taken down when
//! it is dropped, and what a killed run left behind by [`remove_stale`].
//!
//! Hosts have numbers, counted from 0: the host `index` has the address `NETWORK.1.(index + 1)` on the internal and
//! `NETWORK.2.(index + 1)` on the external side.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cluster::Home;
use super::shell::words;

/// A hardware address that nobody has: what is sent there is lost without a word.
const NOWHERE: &str = "02:fa:ff:ff:ff:ff";

/// Which of its planes a cable belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Internal,
    External,
}

impl Plane {
    pub(crate) const BOTH: [Plane; 2] = [Plane::Internal, Plane::External];

    /// The name of its bridge, and with a zero behind it of its interface at each host.
    fn bridge(self) -> &'static str {
        match self {
            Plane::Internal => "int",
            Plane::External => "ext",
        }
    }

    fn third(self) -> u8 {
        match self {
            Plane::Internal => 1,
            Plane::External => 2,
        }
    }
}

/// What a set looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// What the names of its namespaces begin with; the process id follows.
    pub(crate) mark: &'static str,
    /// The first two bytes of all addresses.
    pub(crate) network: (u8, u8),
    /// Both bridges lie in one hub that has an address on each, for a load that lives there. Else each has its own hub,
    /// and nobody is on both sides but the hosts.
    pub(crate) is_one_hub: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wires {
    shape: Shape,
    mark: String,
}

/// Runs `ip` with these words.
fn ip(line: &str) -> anyhow::Result<()> {
    words(&format!("ip {line}"))
}

impl Wires {
    /// What this machine lacks, if anything.
    pub(crate) fn missing(shape: Shape) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("namespaces need root".to_owned());
        }
        for (program, question) in [("ip", "-Version"), ("nsenter", "--version")] {
            if Command::new(program).arg(question).output().is_err() {
                return Some(format!("the program {program} is not there"));
            }
        }
        let probe = format!("{}{}-probe", shape.mark, std::process::id());
        let made = ip(&format!("netns add {probe}"))
            .and_then(|()| ip(&format!("-n {probe} link add b0 type bridge")))
            .and_then(|()| ip(&format!("-n {probe} link add v0 type veth peer name v1")));
        let _ = ip(&format!("netns del {probe}"));
        made.err().map(|error| format!("this machine gives no network namespaces, bridges or veth pairs: {error:#}"))
    }

    /// Builds the bridges and `count` hosts on both of them.
    ///
    /// # Errors
    /// When the machine refuses any of it.
    pub(crate) fn build(shape: Shape, count: usize) -> anyhow::Result<Wires> {
        // From here on dropping it takes down what there is.
        let wires = Wires { mark: format!("{}{}", shape.mark, std::process::id()), shape };
        for plane in Plane::BOTH {
            let (hub, bridge, third) = (wires.hub(plane), plane.bridge(), plane.third());
            if !shape.is_one_hub || plane == Plane::Internal {
                wires.add_namespace(&hub)?;
            }
            // Without snooping it joins no group of its own, and says so to nobody.
            ip(&format!("-n {hub} link add {bridge} type bridge mcast_snooping 0"))?;
            ip(&format!("-n {hub} link set {bridge} up"))?;
            if shape.is_one_hub {
                let (first, second) = shape.network;
                ip(&format!("-n {hub} addr add {first}.{second}.{third}.254/24 dev {bridge}"))?;
            }
        }
        (0..count).try_for_each(|index| wires.add_host(index, &Plane::BOTH))?;
        Ok(wires)
    }

    /// Adds a host with cables to these planes.
    pub(crate) fn add_host(&self, index: usize, planes: &[Plane]) -> anyhow::Result<()> {
        let (host, number) = (self.name(index), index + 1);
        self.add_namespace(&host)?;
        for plane in planes {
            let (hub, bridge) = (self.hub(*plane), plane.bridge());
            let (hardware, address) = (hardware(*plane, index), self.address(*plane, index));
            ip(&format!(
                "-n {hub} link add {bridge}-{number} type veth peer name {bridge}0 address {hardware} netns {host}"
            ))?;
            ip(&format!("-n {hub} link set {bridge}-{number} master {bridge} up"))?;
            ip(&format!("-n {host} addr add {address}/24 dev {bridge}0"))?;
            ip(&format!("-n {host} link set {bridge}0 up"))?;
        }
        Ok(())
    }

    fn add_namespace(&self, name: &str) -> anyhow::Result<()> {
        ip(&format!("netns add {name}"))?;
        // Nobody here speaks it, and its solicitations would be seen by those who look at what goes over the wires.
        inside(name, || {
            let set = |whose: &str| fs::write(format!("/proc/sys/net/ipv6/conf/{whose}/disable_ipv6"), "1");
            // A kernel without it has no such file.
            let _ = set("all").and_then(|()| set("default"));
        })?;
        ip(&format!("-n {name} link set lo up"))
    }

    /// The namespace with the bridge of this plane.
    pub(crate) fn hub(&self, plane: Plane) -> String {
        let name = if self.shape.is_one_hub { "hub" } else { plane.bridge() };
        format!("{}-{name}", self.mark)
    }

    /// The namespace of a host.
    pub(crate) fn name(&self, index: usize) -> String {
        format!("{}-{}", self.mark, index + 1)
    }

    pub(crate) fn address(&self, plane: Plane, index: usize) -> Ipv4Addr {
        let (first, second) = self.shape.network;
        Ipv4Addr::new(first, second, plane.third(), index as u8 + 1)
    }

    /// The port of the bridge that the cable of a host is plugged into.
    pub(crate) fn port(plane: Plane, index: usize) -> String {
        format!("{}-{}", plane.bridge(), index + 1)
    }

    /// The interface of a host.
    pub(crate) fn device(plane: Plane) -> String {
        format!("{}0", plane.bridge())
    }

    /// A node at a host, with these ports ([`Home::ports`]); what it prints goes to `folder`, its log to `db`.
    pub(crate) fn home(&self, index: usize, ports: [u16; 4], folder: PathBuf, db: PathBuf) -> Home {
        let launcher = ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name(index)), "--".to_owned()];
        Home {
            int_ip: self.address(Plane::Internal, index),
            ext_ip: self.address(Plane::External, index),
            ports,
            folder,
            db,
            launcher: launcher.into(),
            environment: Vec::new(),
            options: Vec::new(),
        }
    }

    /// Plugs the cable of a host in or pulls it.
    pub(crate) fn set_cable(&self, plane: Plane, index: usize, plugged: bool) -> anyhow::Result<()> {
        let port = Wires::port(plane, index);
        ip(&format!("-n {} link set {port} {}", self.hub(plane), if plugged { "up" } else { "down" }))
    }

    /// Switches the bridge between all hosts on or off.
    pub(crate) fn set_bridge(&self, plane: Plane, on: bool) -> anyhow::Result<()> {
        ip(&format!("-n {} link set {} {}", self.hub(plane), plane.bridge(), if on { "up" } else { "down" }))
    }

    /// Lets what `from` sends to `to` get lost on the way, or arrive again.
    pub(crate) fn set_lost(&self, plane: Plane, from: usize, to: usize, lost: bool) -> anyhow::Result<()> {
        let (address, host, device) = (self.address(plane, to), self.name(from), Wires::device(plane));
        let place = if lost { NOWHERE.to_owned() } else { hardware(plane, to) };
        let state = if lost { "permanent" } else { "reachable" };
        ip(&format!("-n {host} neigh replace {address} lladdr {place} nud {state} dev {device}"))
    }

    /// Takes from `from` the route to `to`, so that sending fails at once, or gives it back.
    pub(crate) fn set_unroutable(&self, plane: Plane, from: usize, to: usize, cut: bool) -> anyhow::Result<()> {
        let word = if cut { "add" } else { "del" };
        ip(&format!("-n {} route {word} blackhole {}/32", self.name(from), self.address(plane, to)))
    }

    /// Limits what reaches a host to so many kbit/s, or lifts the limit.
    pub(crate) fn set_slow_link(&self, plane: Plane, index: usize, kbit: Option<u64>) -> anyhow::Result<()> {
        let (hub, port) = (self.hub(plane), Wires::port(plane, index));
        match kbit {
            Some(kbit) => {
                words(&format!("tc -n {hub} qdisc replace dev {port} root tbf rate {kbit}kbit burst 16k latency 300ms"))
            }
            None => words(&format!("tc -n {hub} qdisc del dev {port} root")),
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        remove_namespaces(&self.mark);
    }
}

fn hardware(plane: Plane, index: usize) -> String {
    format!("02:fa:00:00:{:02x}:{:02x}", plane.third(), index + 1)
}

/// Brings the calling thread into a namespace. Threads and processes that it starts from here on live there as well.
pub(crate) fn enter(name: &str) -> anyhow::Result<()> {
    let place = Path::new("/run/netns").join(name);
    let file = File::open(&place).with_context(|| place.display().to_string())?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering the namespace {name}"))
}

/// Does something in a namespace, on a thread of its own.
pub(crate) fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(|| enter(name).map(|()| work())).join().expect("a thread in a namespace"))
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn remove_namespaces(mark: &str) {
    for name in namespaces().iter().filter(|name| name.strip_prefix(mark).is_some_and(|rest| rest.starts_with('-'))) {
        if let Err(error) = ip(&format!("netns del {name}")) {
            println!("the namespace {name} stays: {error:#}");
        }
    }
}

/// Takes down the namespaces of runs with this mark whose process is gone.
pub(crate) fn remove_stale(mark: &str) {
    for name in namespaces() {
        let process = name.strip_prefix(mark).and_then(|rest| rest.split('-').next()?.parse().ok());
        if process.is_some_and(is_gone) {
            remove_namespaces(&format!("{mark}{}", process.unwrap_or_default()));
        }
    }
}

/// Takes down the namespaces of this process: for one that ends without dropping what it has.
pub(crate) fn remove_own(mark: &str) {
    remove_namespaces(&format!("{mark}{}", std::process::id()));
}

/// True when there is no such process.
pub(crate) fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}
