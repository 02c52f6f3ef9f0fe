//! What can happen to a node: drawn from a seed, done to the lab, and undone.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::disk::Disk;
use crate::lab::{Lab, clock_library};
use crate::support::cluster::Cluster;
use crate::support::keys::Keys;
use crate::support::wires::Plane;
use crate::support::workload::Workload;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL; started again after a while.
    Kill,
    /// All nodes at once; started again at once.
    KillAll,
    /// SIGTERM, and started again at once.
    Restart,
    /// SIGSTOP, SIGCONT after a while.
    Stop,
    /// The internal cable is pulled.
    Cut,
    /// What one node sends to another is lost, silently or with an error; the way back is open.
    OneWay,
    /// What a node sends to any other is lost.
    Mute,
    /// What any other sends to a node is lost.
    Deaf,
    /// Two nodes do not reach each other, everybody else reaches both.
    Pair,
    /// Both cables are pulled. Each node in turn.
    Isolate,
    /// The external cable is pulled: clients are cut off, the nodes are not.
    External,
    /// The internal cable has a loose contact.
    Flap,
    /// The bridge of the internal plane is off: nobody reaches anybody.
    Bridge,
    /// The internal cable lets through a few Mbit/s.
    SlowLink,
    /// Another program takes all the room on the disk.
    FullDisk,
    /// The disk takes little in a second.
    SlowDisk,
    /// The wall clock jumps, and back.
    Clock,
    /// The leader is asked to hand over.
    Resign,
}

impl Kind {
    pub(crate) const ALL: [Kind; 18] = [
        Kind::Kill,
        Kind::KillAll,
        Kind::Restart,
        Kind::Stop,
        Kind::Cut,
        Kind::OneWay,
        Kind::Mute,
        Kind::Deaf,
        Kind::Pair,
        Kind::Isolate,
        Kind::External,
        Kind::Flap,
        Kind::Bridge,
        Kind::SlowLink,
        Kind::FullDisk,
        Kind::SlowDisk,
        Kind::Clock,
        Kind::Resign,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::KillAll => "kill-all",
            Kind::Restart => "restart",
            Kind::Stop => "stop",
            Kind::Cut => "cut",
            Kind::OneWay => "one-way",
            Kind::Mute => "mute",
            Kind::Deaf => "deaf",
            Kind::Pair => "pair",
            Kind::Isolate => "isolate",
            Kind::External => "external",
            Kind::Flap => "flap",
            Kind::Bridge => "bridge",
            Kind::SlowLink => "slow-link",
            Kind::FullDisk => "full-disk",
            Kind::SlowDisk => "slow-disk",
            Kind::Clock => "clock",
            Kind::Resign => "resign",
        }
    }

    /// The kinds of a list such as "kill,cut"; all of them for "all".
    pub(crate) fn named(list: &str) -> anyhow::Result<Vec<Kind>> {
        if list == "all" {
            return Ok(Kind::ALL.into());
        }
        let find = |name: &str| {
            let known = || Kind::ALL.map(Kind::name).join(", ");
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            found.with_context(|| format!("--kinds {name} is not known; all, or some of {}", known()))
        };
        list.split(',').map(find).collect()
    }

    /// Why this machine cannot do it.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Kind::Clock if clock_library().is_none() => Some("libfaketime is not installed (Debian: faketime)"),
            Kind::SlowDisk if !Disk::can_be_slow() => Some("no blkio control group with throttling is mounted"),
            Kind::SlowLink if std::process::Command::new("tc").arg("-V").output().is_err() => Some("no program tc"),
            _ => None,
        }
    }

    /// True when nobody promises that writes are acknowledged meanwhile.
    fn stops_writes(self) -> bool {
        matches!(self, Kind::KillAll | Kind::Bridge | Kind::FullDisk | Kind::SlowDisk)
    }
}

/// A fault as it was drawn: everything that chance decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) kind: Kind,
    /// The leader of that moment, or a node by number.
    strikes_leader: bool,
    pub(crate) node: usize,
    /// Another node, for what lies between two.
    other: usize,
    /// How long all is well before.
    pub(crate) calm: Duration,
    pub(crate) span: Duration,
    dice: u64,
}

/// Draws faults: the same ones for the same seed, kinds and number of nodes.
#[derive(Debug)]
pub(crate) struct Schedule {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    /// What is left of the kinds until each has had its turn.
    bag: Vec<Kind>,
    nodes: usize,
    turn: usize,
}

impl Schedule {
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>, nodes: usize) -> Schedule {
        Schedule { random: fastrand::Rng::with_seed(seed), kinds, bag: Vec::new(), nodes, turn: 0 }
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    pub(crate) fn draw(&mut self) -> Draw {
        if self.bag.is_empty() {
            self.bag.clone_from(&self.kinds);
            self.random.shuffle(&mut self.bag);
        }
        let kind = self.bag.pop().expect("at least one kind");
        let mut node = self.random.usize(0..self.nodes);
        let strikes_leader = self.random.bool() && kind != Kind::Isolate;
        if kind == Kind::Isolate {
            node = self.turn % self.nodes;
            self.turn += 1;
        }
        let other = (node + self.random.usize(1..self.nodes)) % self.nodes;
        let calm = Duration::from_millis(self.random.u64(800..2_200));
        let span = match kind {
            Kind::KillAll | Kind::Restart => self.random.u64(0..500),
            Kind::Resign | Kind::Clock => self.random.u64(1_000..2_000),
            Kind::FullDisk => self.random.u64(4_000..7_000),
            _ => self.random.u64(2_500..5_500),
        };
        Draw { kind, strikes_leader, node, other, calm, span: Duration::from_millis(span), dice: self.random.u64(..) }
    }
}

/// Where faults strike.
#[derive(Debug)]
pub(crate) struct Stage {
    // Dropped in this order: the nodes end before their disks and networks go.
    pub(crate) cluster: Cluster,
    pub(crate) lab: Lab,
    pub(crate) keys: Keys,
}

/// A fault that is on.
#[derive(Debug)]
pub(crate) struct Struck {
    draw: Draw,
    victim: usize,
    other: usize,
    /// What was done, for the line that tells of it.
    pub(crate) what: String,
    /// No write need be acknowledged while it lasts.
    pub(crate) stops_writes: bool,
}

impl Stage {
    fn pick(&self, draw: &Draw, load: &Workload) -> (usize, usize, bool) {
        let count = self.cluster.nodes.len();
        let leader = load.watcher().leader();
        let victim = match leader {
            Some(leader) if draw.strikes_leader || draw.kind == Kind::Resign => leader,
            _ => draw.node,
        };
        let distance = (draw.other + count - draw.node) % count;
        (victim, (victim + distance) % count, leader == Some(victim))
    }

    fn others(&self, victim: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.cluster.nodes.len()).filter(move |other| *other != victim)
    }

    /// Lets it happen.
    pub(crate) fn strike(&mut self, draw: Draw, load: &Workload) -> anyhow::Result<Struck> {
        let (victim, other, is_leader) = self.pick(&draw, load);
        let role = if is_leader { "leader" } else { "follower" };
        let mut what = format!("{role} {}", victim + 1);
        match draw.kind {
            Kind::Kill => self.cluster.nodes[victim].kill(),
            Kind::KillAll => {
                "all".clone_into(&mut what);
                for node in &self.cluster.nodes {
                    node.signal(Signal::KILL);
                }
                for node in &mut self.cluster.nodes {
                    node.wait()?;
                }
            }
            Kind::Restart => {
                let status = self.cluster.nodes[victim].stop()?;
                ensure!(status.success(), "node {} ended with {status} after SIGTERM", victim + 1);
            }
            Kind::Stop => self.cluster.nodes[victim].signal(Signal::STOP),
            Kind::Cut | Kind::Flap => self.lab.wires.set_cable(Plane::Internal, victim, false)?,
            Kind::OneWay => {
                let is_silent = draw.dice & 1 == 0;
                what.push_str(&format!(" to {}{}", other + 1, if is_silent { "" } else { ", no route" }));
                if is_silent {
                    self.lab.wires.set_lost(Plane::Internal, victim, other, true)?;
                } else {
                    self.lab.wires.set_unroutable(Plane::Internal, victim, other, true)?;
                }
            }
            Kind::Mute => self
                .others(victim)
                .try_for_each(|other| self.lab.wires.set_lost(Plane::Internal, victim, other, true))?,
            Kind::Deaf => self
                .others(victim)
                .try_for_each(|other| self.lab.wires.set_lost(Plane::Internal, other, victim, true))?,
            Kind::Pair => {
                what.push_str(&format!(" and {}", other + 1));
                self.lab.wires.set_lost(Plane::Internal, victim, other, true)?;
                self.lab.wires.set_lost(Plane::Internal, other, victim, true)?;
            }
            Kind::Isolate => {
                self.lab.wires.set_cable(Plane::Internal, victim, false)?;
                self.lab.wires.set_cable(Plane::External, victim, false)?;
            }
            Kind::External => self.lab.wires.set_cable(Plane::External, victim, false)?,
            Kind::Bridge => {
                "all".clone_into(&mut what);
                self.lab.wires.set_bridge(Plane::Internal, false)?;
            }
            Kind::SlowLink => {
                let kbit = 500 << (draw.dice % 5);
                what.push_str(&format!(", {kbit} kbit/s"));
                self.lab.wires.set_slow_link(Plane::Internal, victim, Some(kbit))?;
            }
            Kind::FullDisk => {
                load.set_disk_may_be_full(true);
                self.lab.disks[victim].fill()?;
                load.set_heavy(true);
            }
            Kind::SlowDisk => {
                let speed = (64 << 10) << (draw.dice % 5);
                what.push_str(&format!(", {} KiB/s", speed >> 10));
                self.lab.disks[victim].set_speed(Some(speed))?;
            }
            Kind::Clock => {
                let seconds = [2, 60, 3_600, 86_400, 315_360_000][(draw.dice % 5) as usize];
                let seconds = if draw.dice & 16 == 0 { seconds } else { -seconds };
                what.push_str(&format!(", {seconds:+} s"));
                self.lab.set_clock(victim, seconds)?;
            }
            Kind::Resign => {
                let node = &self.cluster.nodes[victim];
                let address = node.int_http().to_string();
                let done =
                    node.operate(&self.keys, &["admin", "resign", "--yes", "--wait", "0", "--node", &address])?;
                what.push_str(&format!(", {}", done.status));
            }
        }
        Ok(Struck { draw, victim, other, what, stops_writes: draw.kind.stops_writes() })
    }

    /// What goes on while it lasts, in steps of a few milliseconds.
    pub(crate) fn step(&self, struck: &Struck, flaps: &mut fastrand::Rng) -> anyhow::Result<Duration> {
        if struck.draw.kind != Kind::Flap {
            return Ok(Duration::from_millis(20));
        }
        self.lab.wires.set_cable(Plane::Internal, struck.victim, flaps.bool())?;
        Ok(Duration::from_millis(flaps.u64(30..700)))
    }

    /// Random choices for [`Stage::step`].
    pub(crate) fn flaps(struck: &Struck) -> fastrand::Rng {
        fastrand::Rng::with_seed(struck.draw.dice)
    }

    /// Undoes it.
    pub(crate) fn heal(&mut self, struck: &Struck, load: &Workload) -> anyhow::Result<()> {
        let (victim, other) = (struck.victim, struck.other);
        match struck.draw.kind {
            Kind::Kill | Kind::Restart => self.cluster.nodes[victim].start()?,
            Kind::KillAll => self.cluster.nodes.iter_mut().try_for_each(|node| node.start())?,
            Kind::Stop => self.cluster.nodes[victim].signal(Signal::CONT),
            Kind::Cut | Kind::Flap => self.lab.wires.set_cable(Plane::Internal, victim, true)?,
            Kind::OneWay if struck.draw.dice & 1 == 0 => {
                self.lab.wires.set_lost(Plane::Internal, victim, other, false)?
            }
            Kind::OneWay => self.lab.wires.set_unroutable(Plane::Internal, victim, other, false)?,
            Kind::Mute => self
                .others(victim)
                .try_for_each(|other| self.lab.wires.set_lost(Plane::Internal, victim, other, false))?,
            Kind::Deaf => self
                .others(victim)
                .try_for_each(|other| self.lab.wires.set_lost(Plane::Internal, other, victim, false))?,
            Kind::Pair => {
                self.lab.wires.set_lost(Plane::Internal, victim, other, false)?;
                self.lab.wires.set_lost(Plane::Internal, other, victim, false)?;
            }
            Kind::Isolate => {
                self.lab.wires.set_cable(Plane::Internal, victim, true)?;
                self.lab.wires.set_cable(Plane::External, victim, true)?;
            }
            Kind::External => self.lab.wires.set_cable(Plane::External, victim, true)?,
            Kind::Bridge => self.lab.wires.set_bridge(Plane::Internal, true)?,
            Kind::SlowLink => self.lab.wires.set_slow_link(Plane::Internal, victim, None)?,
            Kind::FullDisk => {
                load.set_heavy(false);
                self.lab.disks[victim].make_room()?;
            }
            Kind::SlowDisk => self.lab.disks[victim].set_speed(None)?,
            Kind::Clock => self.lab.set_clock(victim, 0)?,
            Kind::Resign => {}
        }
        Ok(())
    }

    /// When the cluster is whole again: what was allowed meanwhile is no longer.
    pub(crate) fn settled(load: &Workload) {
        load.set_disk_may_be_full(false);
    }
}
