//! A place for each node: a network namespace with an internal and an external interface, and a file system of its own.
//!
//! The namespaces are [`Wires`]' with one hub, where the load lives too. All that a lab makes carries the process id in its
//! name: it is taken down when the lab is dropped, and what a killed run left behind by the next one.
//!
//! Needs root, `ip`, `nsenter`, `mount`, `losetup`, `mkfs.ext4` and `filefrag`; [`Lab::missing`] says what is not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::disk::Disk;
use crate::support::cluster::Home;
use crate::support::keys::Keys;
use crate::support::wires::{self, Plane, Shape, Wires, is_gone};

/// The load lives in the hub: it asks the nodes on both sides.
const SHAPE: Shape = Shape { mark: "faults-", network: (10, 211), is_one_hub: true };

/// [`Home::ports`]; those in the middle are not the default's.
const PORTS: [u16; 4] = [1112, 1113, 1114, 1115];

/// A disk that is made only to see whether one can be made.
const PROBE_MIB: u64 = 16;

/// The library that shifts a process's wall clock, and nothing else, as a file says.
const CLOCK_LIBRARIES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Lab {
    folder: PathBuf,
    // Dropped in this order.
    pub(crate) disks: Vec<Disk>,
    pub(crate) wires: Wires,
}

impl Lab {
    /// What this machine lacks for a lab, if anything; `folder` is where it would be built.
    pub(crate) fn missing(folder: &Path) -> Option<String> {
        if let Some(missing) = Wires::missing(SHAPE) {
            return Some(missing);
        }
        for (program, question) in
            [("losetup", "--version"), ("mkfs.ext4", "-V"), ("filefrag", "-V"), ("mount", "--version")]
        {
            if Command::new(program).arg(question).output().is_err() {
                return Some(format!("the program {program} is not there"));
            }
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
        let wires = Wires::build(SHAPE, count)?;
        let mut lab = Lab { folder: folder.to_path_buf(), disks: Vec::new(), wires };
        for index in 0..count {
            lab.disks.push(Disk::on_loop(folder, &format!("disk-{}", index + 1), disk_mib)?);
        }
        // Threads that are started from here on live there as well.
        wires::enter(&lab.wires.hub(Plane::Internal))?;
        Ok(lab)
    }

    /// Where the nodes live, with their keys. With `clocks` each has a wall clock that [`Lab::set_clock`] moves.
    pub(crate) fn homes(&self, keys: &Keys, clocks: bool) -> anyhow::Result<Vec<Home>> {
        let library = clock_library().filter(|_| clocks);
        let mut homes = Vec::new();
        for index in 0..self.disks.len() {
            let folder = self.folder.join(format!("node-{}", index + 1));
            fs::create_dir_all(&folder)?;
            let mut home = self.wires.home(index, PORTS, folder, self.disks[index].mount.join("db"));
            home.options = keys.options(home.int_ip);
            if let Some(library) = &library {
                let file = self.clock_file(index);
                fs::write(&file, "+0\n")?;
                home.environment = vec![
                    ("LD_PRELOAD".to_owned(), library.display().to_string()),
                    ("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string()),
                    ("FAKETIME_NO_CACHE".to_owned(), "1".to_owned()),
                    ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
                ];
            }
            homes.push(home);
        }
        Ok(homes)
    }

    /// The internal addresses of the nodes.
    pub(crate) fn addresses(&self) -> Vec<std::net::Ipv4Addr> {
        (0..self.disks.len()).map(|index| self.wires.address(Plane::Internal, index)).collect()
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
}

/// The library for clocks that jump, where it is installed.
pub(crate) fn clock_library() -> Option<PathBuf> {
    CLOCK_LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Takes down what runs left behind that were killed: namespaces by name, and below `folder` mounts, loop devices and
/// data, whose process is gone.
pub(crate) fn remove_stale(folder: &Path) -> anyhow::Result<()> {
    wires::remove_stale(SHAPE.mark);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("fault-").and_then(|rest| rest.parse().ok());
        if process.is_some_and(is_gone) {
            crate::disk::remove_below(&entry.path())?;
        }
    }
    Ok(())
}
