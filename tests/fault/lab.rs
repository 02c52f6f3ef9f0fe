//! A place for each node: a network namespace with an internal and an external interface, and a file system of its own.
//!
//! Two bridges, one for each plane, lie in a namespace of their own (the hub), where the load lives too; so nothing of
//! the machine's own network is touched, and several labs can stand beside each other. All that a lab makes carries the
//! process id in its name: it is taken down when the lab is dropped, and what a killed run left behind by the next one.
//!
//! Needs root, `ip`, `nsenter`, `mount`, `losetup`, `mkfs.ext4` and `filefrag`; [`Lab::missing`] says what is not there.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::disk::{Disk, words};
use crate::support::cluster::Home;

/// What the names of namespaces begin with; the process id follows.
const MARK: &str = "faults-";

const FIRST_PORT: u16 = 1112;

/// A disk that is made only to see whether one can be made.
const PROBE_MIB: u64 = 16;

/// A hardware address that nobody has: what is sent there is lost without a word.
const NOWHERE: &str = "02:fa:ff:ff:ff:ff";

/// The library that shifts a process's wall clock, and nothing else, as a file says.
const CLOCK_LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Lab {
    mark: String,
    folder: PathBuf,
    pub(crate) disks: Vec<Disk>,
}

/// Which of its planes a cable belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plane {
    Internal,
    External,
}

/// Runs `ip` with these words.
fn ip(line: &str) -> anyhow::Result<()> {
    words(&format!("ip {line}"))
}

impl Lab {
    /// What this machine lacks for a lab, if anything; `folder` is where it would be built.
    pub(crate) fn missing(folder: &Path) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("namespaces and mounts need root".to_owned());
        }
        for (program, question) in [
            ("ip", "-Version"),
            ("nsenter", "--version"),
            ("losetup", "--version"),
            ("mkfs.ext4", "-V"),
            ("filefrag", "-V"),
            ("mount", "--version"),
        ] {
            if Command::new(program).arg(question).output().is_err() {
                return Some(format!("the program {program} is not there"));
            }
        }
        let probe = format!("{MARK}{}-probe", std::process::id());
        let made = ip(&format!("netns add {probe}"))
            .and_then(|()| ip(&format!("-n {probe} link add b0 type bridge")))
            .and_then(|()| ip(&format!("-n {probe} link add v0 type veth peer name v1")));
        let _ = ip(&format!("netns del {probe}"));
        if let Err(error) = made {
            return Some(format!("this machine gives no network namespaces, bridges or veth pairs: {error:#}"));
        }
        let place = folder.join("probe");
        let disk = fs::create_dir_all(&place).map_err(anyhow::Error::from);
        let disk = disk.and_then(|()| Disk::on_loop(&place, "disk", PROBE_MIB).map(drop));
        let _ = fs::remove_dir_all(&place);
        disk.err().map(|error| format!("this machine gives no file systems in loop devices: {error:#}"))
    }

    /// Builds homes for `count` nodes, with file systems of `disk_mib` each, and brings the calling thread into the hub.
    ///
    /// # Errors
    /// When the machine refuses any of it, or has less room than the disks may take: a disk must be full only when it
    /// is to be.
    pub(crate) fn build(folder: &Path, count: usize, disk_mib: u64) -> anyhow::Result<Lab> {
        let (wanted, free) = (disk_mib * count as u64, crate::disk::free_at(folder)? >> 20);
        ensure!(
            free > wanted,
            "{count} disks of {disk_mib} MiB take up to {wanted} MiB, and {} has {free} MiB free: make room, or ask for \
             fewer minutes",
            folder.display()
        );
        let mark = format!("{MARK}{}", std::process::id());
        let mut lab = Lab { mark, folder: folder.to_path_buf(), disks: Vec::new() };
        lab.wire(count)?;
        for index in 0..count {
            lab.disks.push(Disk::on_loop(folder, &format!("disk-{}", index + 1), disk_mib)?);
        }
        let hub = File::open(Path::new("/run/netns").join(lab.hub())).context("the hub's namespace")?;
        // Threads that are started from here on live there as well.
        move_into_link_name_space(hub.as_fd(), Some(LinkNameSpaceType::Network)).context("entering the hub")?;
        Ok(lab)
    }

    fn wire(&self, count: usize) -> anyhow::Result<()> {
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link set lo up"))?;
        for (bridge, third) in [("int", 1), ("ext", 2)] {
            ip(&format!("-n {hub} link add {bridge} type bridge"))?;
            ip(&format!("-n {hub} link set {bridge} up"))?;
            ip(&format!("-n {hub} addr add 10.211.{third}.254/24 dev {bridge}"))?;
        }
        for index in 0..count {
            let (node, number) = (self.name(index), index + 1);
            ip(&format!("netns add {node}"))?;
            ip(&format!("-n {node} link set lo up"))?;
            for (plane, third) in [("int", 1), ("ext", 2)] {
                let address = hardware(third, index);
                ip(&format!(
                    "-n {hub} link add {plane}-{number} type veth peer name {plane}0 address {address} netns {node}"
                ))?;
                ip(&format!("-n {hub} link set {plane}-{number} master {plane} up"))?;
                ip(&format!("-n {node} addr add 10.211.{third}.{number}/24 dev {plane}0"))?;
                ip(&format!("-n {node} link set {plane}0 up"))?;
            }
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.mark)
    }

    fn name(&self, index: usize) -> String {
        format!("{}-{}", self.mark, index + 1)
    }

    /// Where the nodes live. With `clocks` each has a wall clock that [`Lab::set_clock`] moves.
    pub(crate) fn homes(&self, clocks: bool) -> anyhow::Result<Vec<Home>> {
        let library = clock_library().filter(|_| clocks);
        let mut homes = Vec::new();
        for index in 0..self.disks.len() {
            let folder = self.folder.join(format!("node-{}", index + 1));
            fs::create_dir_all(&folder)?;
            let mut environment = Vec::new();
            if let Some(library) = &library {
                let file = self.clock_file(index);
                fs::write(&file, "+0\n")?;
                environment = vec![
                    ("LD_PRELOAD".to_owned(), library.display().to_string()),
                    ("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string()),
                    ("FAKETIME_NO_CACHE".to_owned(), "1".to_owned()),
                    ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
                ];
            }
            homes.push(Home {
                int_ip: address(Plane::Internal, index),
                ext_ip: address(Plane::External, index),
                first_port: FIRST_PORT,
                folder,
                db: self.disks[index].mount.join("db"),
                launcher: ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.name(index)), "--".to_owned()]
                    .into(),
                environment,
            });
        }
        Ok(homes)
    }

    fn clock_file(&self, index: usize) -> PathBuf {
        self.folder.join(format!("clock-{}", index + 1))
    }

    /// Moves the wall clock of a node to so many seconds from the true time.
    pub(crate) fn set_clock(&self, index: usize, seconds: i64) -> anyhow::Result<()> {
        // By rename: the library must never find half a line.
        let (file, new) = (self.clock_file(index), self.folder.join("clock-new"));
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, file).context("the clock's file")
    }

    /// Plugs the cable of a node in or pulls it.
    pub(crate) fn set_cable(&self, plane: Plane, index: usize, plugged: bool) -> anyhow::Result<()> {
        let port = format!("{}-{}", plane.bridge(), index + 1);
        ip(&format!("-n {} link set {port} {}", self.hub(), if plugged { "up" } else { "down" }))
    }

    /// Switches the bridge between all nodes on or off.
    pub(crate) fn set_bridge(&self, plane: Plane, on: bool) -> anyhow::Result<()> {
        ip(&format!("-n {} link set {} {}", self.hub(), plane.bridge(), if on { "up" } else { "down" }))
    }

    /// Lets what `from` sends to `to` over the internal plane get lost on the way, or arrive again.
    pub(crate) fn set_lost(&self, from: usize, to: usize, lost: bool) -> anyhow::Result<()> {
        let (address, node) = (address(Plane::Internal, to), self.name(from));
        let place = if lost { NOWHERE.to_owned() } else { hardware(1, to) };
        let state = if lost { "permanent" } else { "reachable" };
        ip(&format!("-n {node} neigh replace {address} lladdr {place} nud {state} dev int0"))
    }

    /// Takes from `from` the route to `to`, so that sending fails at once, or gives it back.
    pub(crate) fn set_unroutable(&self, from: usize, to: usize, cut: bool) -> anyhow::Result<()> {
        let word = if cut { "add" } else { "del" };
        ip(&format!("-n {} route {word} blackhole {}/32", self.name(from), address(Plane::Internal, to)))
    }

    /// Limits what reaches a node over the internal plane to so many kbit/s, or lifts the limit.
    pub(crate) fn set_slow_link(&self, index: usize, kbit: Option<u64>) -> anyhow::Result<()> {
        let port = format!("int-{}", index + 1);
        let hub = self.hub();
        match kbit {
            Some(kbit) => {
                words(&format!("tc -n {hub} qdisc replace dev {port} root tbf rate {kbit}kbit burst 16k latency 300ms"))
            }
            None => words(&format!("tc -n {hub} qdisc del dev {port} root")),
        }
    }
}

impl Plane {
    fn bridge(self) -> &'static str {
        match self {
            Plane::Internal => "int",
            Plane::External => "ext",
        }
    }
}

fn address(plane: Plane, index: usize) -> Ipv4Addr {
    let third = if plane == Plane::Internal { 1 } else { 2 };
    Ipv4Addr::new(10, 211, third, index as u8 + 1)
}

fn hardware(third: usize, index: usize) -> String {
    format!("02:fa:00:00:{third:02x}:{:02x}", index + 1)
}

/// The library for clocks that jump, where it is installed.
pub(crate) fn clock_library() -> Option<PathBuf> {
    CLOCK_LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.disks.clear();
        remove_namespaces(&self.mark);
    }
}

fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn remove_namespaces(mark: &str) {
    for name in namespaces().iter().filter(|name| name.strip_prefix(mark).is_some_and(|rest| rest.starts_with('-'))) {
        if let Err(error) = ip(&format!("netns del {name}")) {
            println!("fault: the namespace {name} stays: {error:#}");
        }
    }
}

/// Takes down what runs left behind that were killed: namespaces by name, and below `folder` mounts, loop devices and
/// data, whose process is gone.
pub(crate) fn remove_stale(folder: &Path) -> anyhow::Result<()> {
    for name in namespaces() {
        let process = name.strip_prefix(MARK).and_then(|rest| rest.split('-').next()?.parse().ok());
        if process.is_some_and(is_gone) {
            remove_namespaces(&format!("{MARK}{}", process.unwrap_or_default()));
        }
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("fault-").and_then(|rest| rest.parse().ok());
        if process.is_some_and(is_gone) {
            crate::disk::remove_below(&entry.path())?;
        }
    }
    Ok(())
}

fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}
