//! Full disks and failing disks, one after the other, told in plain words.
//!
//! Full: at the leader, at a follower, at two nodes. With one full disk writes go on, where another node leads if need be; with
//! two they are refused with words; reads go on at every node; nobody ends; and all comes back by itself when there is
//! room. Failing: the disk refuses what is written to the log;
//! the node must end with its own exit status and say why, and the others go on.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Arguments;
use crate::disk::Disk;
use crate::faults::Stage;
use crate::lab::{Lab, remove_stale};
use crate::support::cluster::{Cluster, small_chunks};
use crate::support::keys::Keys;
use crate::support::pace::Limit;
use crate::support::shell::words;
use crate::support::steady::{Steady, interrupted};
use crate::support::workload::Workload;
use crate::support::{client, verify, wait_until};

/// Room on each disk: the load is done long before it has taken that, so a disk is full only where the test fills it.
const DISK_MIB: u64 = 1536;
/// Room in memory for each disk that is to fail.
const MEMORY_MIB: u64 = 384;

/// Small chunks are soon full.
const CHUNK_SIZE: u64 = 2 << 20;

/// What must be free on a disk that counts as one with room: far more than the load writes while others are full.
const ROOM_MIB: u64 = 256;

/// Enough to fill several chunks within [`FULL`], and at most a hundred MiB each time.
const LIMIT: Limit = Limit { burst: 32 << 20, a_second: 6 << 20 };

/// How long disks stay full: several chunks could be written in this time.
const FULL: Duration = Duration::from_secs(8);

/// The part of [`FULL`] at the end whose acknowledgements count as "writes go on".
const LATE: Duration = Duration::from_secs(3);

/// The longest time without an acknowledged write when one disk is full: 1.5 s are the aim for a hand-over, and this machine
/// may be busy.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// The exit status of a node whose disk fails.
const EXIT_DISK: i32 = 3;

/// How long a node may take to notice that its disk fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn prepare(folder: &Path) -> anyhow::Result<bool> {
    verify::self_test().context("the checker itself")?;
    if let Some(missing) = Lab::missing(folder) {
        println!("fault: SKIPPED the disks: {missing}");
        return Ok(false);
    }
    remove_stale(folder.parent().context("a folder below another")?)?;
    Ok(true)
}

/// A running cluster under load, and all that is looked at.
struct Scene {
    load: Workload,
    stage: Stage,
    interrupted: std::sync::Arc<AtomicBool>,
}

impl Scene {
    fn start(arguments: &Arguments, folder: &Path, lab: Lab) -> anyhow::Result<Scene> {
        let keys = Keys::make(folder, "keys", arguments.lock(), &lab.addresses())?;
        let cluster = Cluster::start_at(lab.homes(&keys, false)?, &small_chunks(CHUNK_SIZE))?;
        let load = Workload::start(&cluster, arguments.seed, arguments.writers, LIMIT);
        Ok(Scene { load, stage: Stage { cluster, lab, keys }, interrupted: interrupted()? })
    }

    fn steady(&mut self) -> Steady<'_> {
        let (cluster, interrupted) = (&mut self.stage.cluster, &*self.interrupted);
        Steady { cluster, load: &self.load, interrupted, chunk_size: CHUNK_SIZE }
    }

    /// Ends the load and judges the run.
    fn end(mut self, folder: &Path, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let history = self.load.stop(result.is_ok());
        let judged = result.and_then(|()| self.steady().judge(&history));
        if judged.is_err() {
            Steady::keep(&history, folder)?;
        }
        judged.map(|_| ())
    }
}

/// Disks that are full.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    if !prepare(folder)? {
        return Ok(());
    }
    let mut scene = Scene::start(arguments, folder, Lab::build(folder, 3, DISK_MIB)?)?;
    let result = ["leader", "follower", "leader and a follower", "both followers"]
        .into_iter()
        .try_for_each(|who| scene.full(who).with_context(|| format!("full: {who}")));
    scene.end(folder, result)
}

impl Scene {
    fn full(&mut self, who: &str) -> anyhow::Result<()> {
        self.steady().rest(Duration::from_secs(1))?;
        let leader = self.stage.cluster.leader()?;
        let victims: &[usize] = match who {
            "leader" => &[0],
            "follower" => &[1],
            "leader and a follower" => &[0, 1],
            _ => &[1, 2],
        };
        let victims: Vec<usize> = victims.iter().map(|distance| (leader + distance) % 3).collect();
        self.have_room(0..3, "before any is filled")?;
        self.load.set_disk_may_be_full(true);
        self.load.set_heavy(true);
        let refused = |load: &Workload| load.refusals().values().sum::<usize>();
        let (before, begin) = (refused(&self.load), Instant::now());
        victims.iter().try_for_each(|index| self.stage.lab.disks[*index].fill())?;
        self.steady().rest(FULL - LATE)?;
        let acknowledged = self.load.watcher().acknowledged();
        self.steady().rest(LATE)?;
        let late = self.load.watcher().acknowledged() - acknowledged;
        self.have_room((0..3).filter(|index| !victims.contains(index)), "while others are full")?;
        let refused = refused(&self.load) - before;
        let pause = self.load.watcher().longest_pause(begin, Instant::now());
        let now = self.stage.cluster.leader()?;
        println!(
            "full: {who} (leader {}, full {:?}): after {:.0?} {late} writes in {LATE:?}, longest pause {pause:.0?}, {refused} \
             refused with words, leader now {}",
            leader + 1,
            victims.iter().map(|index| index + 1).collect::<Vec<_>>(),
            FULL - LATE,
            now + 1
        );
        self.reads_go_on()?;
        self.load.set_heavy(false);
        victims.iter().try_for_each(|index| self.stage.lab.disks[*index].make_room())?;
        let room = Instant::now();
        let writable = self.steady().writable(room)?;
        self.steady().whole()?;
        println!("  room again: writable after {writable:.0?}, whole after {:.0?}", room.elapsed());
        self.load.set_disk_may_be_full(false);
        if let [victim] = victims[..] {
            ensure!(late > 0, "no writes with one disk full");
            ensure!(victim != now, "a node with a full disk leads, and others have room");
            ensure!(pause < PAUSE_MAX, "no writes for {pause:?} because of one full disk");
        } else {
            ensure!(late == 0, "writes were acknowledged with two of three disks full");
            ensure!(refused > 0, "writes were not refused with words");
        }
        Ok(())
    }

    /// What must not fail for a reason of the test's own.
    fn have_room(&self, nodes: impl IntoIterator<Item = usize>, when: &str) -> anyhow::Result<()> {
        for index in nodes {
            let free = self.stage.lab.disks[index].free()? >> 20;
            ensure!(
                free >= ROOM_MIB,
                "the test's own disks are too small: node {} has {free} MiB free {when}, of {DISK_MIB}; {ROOM_MIB} MiB \
                 are wanted",
                index + 1
            );
        }
        Ok(())
    }

    /// Every node shows what was written before.
    fn reads_go_on(&mut self) -> anyhow::Result<()> {
        for (index, node) in self.stage.cluster.nodes.iter_mut().enumerate() {
            ensure!(node.is_running(), "node {} ended\n{}", index + 1, node.tail());
            let mut connection = client::Client::connect(node.ext_tcp(), Duration::from_secs(2))?;
            let page = connection.read("any-0", 0, 10)?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            ensure!(page.events.len() == 10, "node {} shows {} events", index + 1, page.events.len());
        }
        println!("  reads go on at all nodes");
        Ok(())
    }
}

/// A tmpfs, gone when dropped.
struct Memory(PathBuf);

impl Memory {
    fn mount(place: PathBuf, mib: u64) -> anyhow::Result<Memory> {
        std::fs::create_dir_all(&place)?;
        words(&format!("mount -t tmpfs -o size={mib}m ringstore-test {}", place.display()))?;
        Ok(Memory(place))
    }

    /// Takes all the room, to the last page.
    fn fill(&self, name: &str) -> anyhow::Result<()> {
        let mut file = std::fs::File::create(self.0.join(name))?;
        let page = [0; 4096];
        loop {
            match file.write_all(&page) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("filling a file system in memory"),
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = words(&format!("umount --lazy {}", self.0.display()));
    }
}

/// Disks that fail: a follower's, then the leader's.
pub(crate) fn run_failing(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    if !prepare(folder)? {
        return Ok(());
    }
    for (who, distance) in [("follower", 1), ("leader", 0)] {
        let place = folder.join(who);
        std::fs::create_dir_all(&place)?;
        failing(arguments, &place, distance).with_context(|| format!("the disk of the {who} fails"))?;
    }
    Ok(())
}

/// All disks lie in memory, so that the one that fails can be chosen when the leader is known.
fn failing(arguments: &Arguments, folder: &Path, distance: usize) -> anyhow::Result<()> {
    let mut lab = Lab::build(folder, 3, MEMORY_MIB)?;
    let mut memories = Vec::new();
    for (index, disk) in lab.disks.iter_mut().enumerate() {
        let memory = Memory::mount(folder.join(format!("memory-{index}")), MEMORY_MIB)?;
        *disk = Disk::in_file(memory.0.join("disk.img"), folder.join(format!("mount-{index}")), MEMORY_MIB)?;
        memories.push(memory);
    }
    let mut scene = Scene::start(arguments, folder, lab)?;
    let result = scene.fail(&memories, distance);
    let ended = scene.end(folder, result);
    drop(memories);
    ended
}

impl Scene {
    fn fail(&mut self, memories: &[Memory], distance: usize) -> anyhow::Result<()> {
        self.steady().rest(Duration::from_secs(1))?;
        let victim = (self.stage.cluster.leader()? + distance) % 3;
        let node = &self.stage.cluster.nodes[victim];
        let end = node.figures().context("the victim answers")?.log_end;
        let chunk = node.db().join(format!("chunk-{:06}.000000", end / CHUNK_SIZE));
        let memory = &memories[victim];
        memory.fill("first")?;
        // The first page of the file is its header.
        self.stage.lab.disks[victim].break_below(&chunk, 4096 + end % CHUNK_SIZE, || memory.fill("second"))?;
        let begin = Instant::now();
        self.load.set_heavy(true);
        let node = &mut self.stage.cluster.nodes[victim];
        wait_until("the node ends", PATIENCE, || !node.is_running()).with_context(|| node.tail())?;
        let status = node.wait()?;
        let time = begin.elapsed();
        self.load.set_heavy(false);
        let said = self.stage.cluster.nodes[victim].tail();
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("ERROR")).collect();
        println!("failing disk of node {}: ended after {time:.1?} with {status}: {}", victim + 1, lines.join(" | "));
        ensure!(status.code() == Some(EXIT_DISK), "exit status {EXIT_DISK} is for a disk that fails\n{said}");
        ensure!(!lines.is_empty(), "it said nothing of the reason\n{said}");
        self.stage.cluster.nodes.remove(victim);
        let writable = self.steady().writable(Instant::now())?;
        println!("  the others go on: writable after {writable:.0?}");
        Ok(())
    }
}
