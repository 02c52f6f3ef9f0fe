//! A disk of its own for a node: ext4 in a loop device, that can be filled, slowed down and broken.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::support::shell::run;

/// Bytes a second that a device may write, of the first version of control groups; the root group holds for everybody.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

/// The file that says why a folder is kept.
const KEPT: &str = "kept";

/// A mounted file system in a file; gone when dropped, with the device, but not the file.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    device: String,
    pub(crate) mount: PathBuf,
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// Bytes free on the file system of `place`.
pub(crate) fn free_at(place: &Path) -> anyhow::Result<u64> {
    let found = rustix::fs::statvfs(place).with_context(|| place.display().to_string())?;
    Ok(found.f_bavail * found.f_frsize)
}

impl Disk {
    /// Makes and mounts a file system of `mib` below `folder`; the file that holds it takes what is written only.
    pub(crate) fn on_loop(folder: &Path, name: &str, mib: u64) -> anyhow::Result<Disk> {
        let image = folder.join(format!("{name}.img"));
        Disk::in_file(image, folder.join(name), mib)
    }

    /// The same with the file at a place of the caller's choice.
    pub(crate) fn in_file(image: PathBuf, mount: PathBuf, mib: u64) -> anyhow::Result<Disk> {
        File::create(&image)?.set_len(mib << 20)?;
        run(&["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", text(&image)?])?;
        Disk::existing(image, mount)
    }

    /// Mounts the file system that is in a file.
    pub(crate) fn existing(image: PathBuf, mount: PathBuf) -> anyhow::Result<Disk> {
        fs::create_dir_all(&mount)?;
        let device = run(&["losetup", "--find", "--show", text(&image)?])?.trim().to_owned();
        // From here on dropping it takes the device back.
        let disk = Disk { image, device, mount };
        run(&["mount", "-o", "noatime", &disk.device, text(&disk.mount)?])?;
        Ok(disk)
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Bytes free on it.
    pub(crate) fn free(&self) -> anyhow::Result<u64> {
        free_at(&self.mount)
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let available = self.free()?;
        let file = File::options().create(true).append(true).open(self.filler())?;
        let at = file.metadata()?.len();
        // The last blocks go to the map of the file itself.
        for less in [0, 64 << 10, 1 << 20, 4 << 20] {
            let length = available.saturating_sub(less);
            if length == 0 || rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, length).is_ok() {
                return Ok(());
            }
        }
        bail!("{} cannot be filled ({available} bytes free)", self.mount.display())
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) -> anyhow::Result<()> {
        fs::remove_file(self.filler()).with_context(|| self.filler().display().to_string())
    }

    /// True where disks can be slowed down.
    pub(crate) fn can_be_slow() -> bool {
        Path::new(THROTTLE).exists()
    }

    /// Limits what the device writes in a second, or lifts the limit.
    pub(crate) fn set_speed(&self, bytes_a_second: Option<u64>) -> anyhow::Result<()> {
        let number = fs::read_to_string(format!("/sys/block/{}/dev", self.device.trim_start_matches("/dev/")))?;
        let rule = format!("{} {}", number.trim(), bytes_a_second.unwrap_or(0));
        fs::write(THROTTLE, &rule).with_context(|| format!("{THROTTLE}: {rule}"))
    }

    /// Where the bytes of `file` from `offset` on lie in the file of this disk, as (offset, length).
    fn extents(&self, file: &Path, offset: u64) -> anyhow::Result<Vec<(u64, u64)>> {
        // Lines such as "   0:      255..     511:      34304..     34560:    256:   last,eof", in bytes.
        let table = run(&["filefrag", "-b1", "-v", text(file)?])?;
        let mut found = Vec::new();
        for line in table.lines() {
            let cells: Vec<&str> = line.split(':').map(str::trim).collect();
            let [number, logical, physical, length, ..] = cells[..] else { continue };
            let start = |range: &str| range.split("..").next().and_then(|first| first.parse::<u64>().ok());
            let (Ok(_), Some(logical), Some(physical)) = (number.parse::<u64>(), start(logical), start(physical))
            else {
                continue;
            };
            let length: u64 = length.parse().with_context(|| line.to_owned())?;
            let skip = offset.saturating_sub(logical).min(length);
            if length > skip {
                found.push((physical + skip, length - skip));
            }
        }
        ensure!(!found.is_empty(), "filefrag says nothing of {}:\n{table}", file.display());
        Ok(found)
    }

    /// Breaks the disk below the bytes of `file` from `offset` on: whoever writes there gets an error (ENOSPC or EIO, as the kernel says it).
    ///
    /// The file of this disk must lie on a file system without room: a hole is punched into it there, `then_fill` takes
    /// the room that this gave, and so the next write finds none.
    pub(crate) fn break_below(
        &self,
        file: &Path,
        offset: u64,
        then_fill: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        use rustix::fs::FallocateFlags;
        let extents = self.extents(file, offset)?;
        let image = File::options().write(true).open(&self.image)?;
        for (at, length) in extents {
            rustix::fs::fallocate(&image, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, length)?;
        }
        then_fill()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if Disk::can_be_slow() {
            let _ = self.set_speed(None);
        }
        // Whoever still has a file open there does not hold up the others: the device goes with its last user.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).output();
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
    }
}

/// Unmounts what is mounted below `folder`, frees loop devices over files there, and removes the folder unless it is to
/// be [kept](keep).
pub(crate) fn remove_below(folder: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last mounted first: a disk may lie in a file on another.
    for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(place).starts_with(folder) {
            run(&["umount", "--lazy", place])?;
        }
    }
    for line in run(&["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"])?.lines() {
        let mut cells = line.split_whitespace();
        if let (Some(device), Some(file)) = (cells.next(), cells.next())
            && Path::new(file).starts_with(folder)
        {
            run(&["losetup", "--detach", device])?;
        }
    }
    if folder.join(KEPT).exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}

/// Marks the data of a run that failed: later runs leave it alone.
pub(crate) fn keep(folder: &Path, why: &str) {
    if let Err(error) = fs::write(folder.join(KEPT), why) {
        println!("fault: {} cannot be marked to be kept: {error}", folder.display());
    }
}
