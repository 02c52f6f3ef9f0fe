//! What goes wrong, and how it ends.
//!
//! Each thing that goes wrong has a number and chance of its own: a run from which one is left out has the others as they
//! were, which is what makes a failing run smaller.

use std::time::Duration;

use super::Injected;
use super::agenda::{MILLISECOND, Moment, SECOND};
use super::kinds::Fault;
use super::node::Input;
use super::profile::{pick, within};
use super::world::{Event, World};
use crate::engine::ControlInput;

/// The end of a fault.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Start(usize),
    /// A node that should have stopped by itself.
    Kill {
        node: usize,
        life: u32,
    },
    /// Pairs of sender and receiver.
    Heal(Vec<(usize, usize)>),
    /// Paths that come and go: what is cut now, and how often that changes yet.
    Flap {
        pairs: Vec<(usize, usize)>,
        cut: bool,
        left: u32,
    },
    /// This node was cut off; the next one is to be.
    NextInTurn(usize),
    DiskWell(usize),
}

impl World {
    pub(super) fn plan_fault(&mut self) {
        let delay = within(&mut self.random.faults, self.profile.fault_gap);
        self.agenda.plan(self.now + delay, Event::Fault);
    }

    /// Lets one of the run's faults happen, and plans the next.
    pub(super) fn fault(&mut self) {
        if self.settling.is_some() {
            return;
        }
        self.plan_fault();
        self.numbered(None, |world| {
            let fault = world.profile.pick_fault(&mut world.random.faults)?;
            let node = world.victim();
            world.happen(fault, node);
            Some((fault, node))
        });
    }

    /// Lets something happen with chance of its own, unless it is left out of this run.
    fn numbered(&mut self, only: Option<Fault>, happen: impl FnOnce(&mut World) -> Option<(Fault, usize)>) {
        let streams = if only.is_some() { &mut self.random.hunts } else { &mut self.random.faults };
        let own = streams.fork();
        let number = self.faults_numbered;
        self.faults_numbered += 1;
        if self.options.skips(number) {
            return;
        }
        let others = std::mem::replace(&mut self.random.faults, own);
        if let Some((fault, node)) = happen(self) {
            self.count(fault.name());
            self.schedule.push(Injected { number, at: Duration::from_nanos(self.now), fault, node });
        }
        self.random.faults = others;
    }

    /// Any node, but the leader more often than others.
    fn victim(&mut self) -> usize {
        let leads = |index: &usize| {
            self.nodes[*index]
                .engine
                .as_ref()
                .and_then(|engine| engine.replica())
                .is_some_and(|replica| replica.is_leader())
        };
        let leader = (0..self.nodes.len()).find(leads);
        let any = self.random.faults.usize(0..self.nodes.len());
        leader.filter(|_| self.random.faults.u8(0..5) < 2).unwrap_or(any)
    }

    fn happen(&mut self, fault: Fault, node: usize) {
        let count = self.nodes.len();
        match fault {
            Fault::CrashProcess => self.crash_for_a_while(node, false),
            Fault::CrashPower => self.crash_for_a_while(node, true),
            Fault::CrashAll => self.crash_all(),
            Fault::Pause => self.pause(node),
            Fault::Isolate => self.sever((0..count).flat_map(|peer| [(node, peer), (peer, node)]).collect()),
            Fault::Partition => self.partition(),
            Fault::OneWay => {
                let peer = self.random.faults.usize(0..count);
                let everyone = self.random.faults.bool();
                self.sever((0..count).filter(|&to| everyone || to == peer).map(|to| (node, to)).collect());
            }
            Fault::BreakLink => self.break_some_link(node),
            Fault::SlowDisk => self.slow_disk(node),
            Fault::DiskFull => self.fill_disk(node),
            Fault::Resign => {
                let token = self.id();
                self.line(node, "resigns", 0, 0);
                if self.nodes[node].is_up() {
                    self.input(node, Input::Control(ControlInput::Resign { token, to: None }));
                }
            }
            Fault::Stop => self.stop(node),
            Fault::InTurn => self.isolate_in_turn(0),
            Fault::Flap => self.flap(node),
            Fault::FailedFlush => self.nodes[node].flush_fails = true,
            Fault::Rot => self.rot(node),
            Fault::Members => self.change_members(node),
            Fault::ReplaceDisk => self.replace_disk(node),
            Fault::ClockJump => self.jump_clock(node),
            colour => debug_assert!(!colour.is_event(), "{colour:?} does not happen"),
        }
    }

    /// The leader was elected a moment ago.
    pub(super) fn hunt(&mut self, node: usize, fault: Fault) {
        if self.settling.is_some() {
            return;
        }
        self.numbered(Some(fault), |world| {
            match fault {
                Fault::HuntAll => world.crash_all(),
                Fault::Rotate => world.rotate(node),
                Fault::Members => world.change_members(node),
                _ => world.hunt_leader(node),
            }
            Some((fault, node))
        });
    }

    fn hunt_leader(&mut self, node: usize) {
        let peers: Vec<usize> = (0..self.nodes.len()).filter(|&peer| peer != node).collect();
        match self.random.faults.u8(0..8) {
            0 => self.crash_for_a_while(node, false),
            1 => self.crash_for_a_while(node, true),
            2 => self.pause(node),
            3 | 4 => self.sever(peers.iter().flat_map(|&peer| [(node, peer), (peer, node)]).collect()),
            5 => self.sever(peers.iter().map(|&peer| (peer, node)).collect()),
            // One follower stays with it.
            _ => self.sever(peers.iter().skip(1).flat_map(|&peer| [(node, peer), (peer, node)]).collect()),
        }
    }

    /// Everyone hears each other again, but for the leader.
    fn rotate(&mut self, leader: usize) {
        let count = self.nodes.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        for (from, to) in pairs {
            self.set_cut(from, to, from == leader || to == leader);
        }
    }

    fn fault_length(&mut self) -> Moment {
        within(&mut self.random.faults, self.profile.fault_length)
    }

    pub(super) fn undo_later(&mut self, undo: Undo) {
        let delay = self.fault_length();
        self.agenda.plan(self.now + delay, Event::Undo(undo));
    }

    pub(super) fn crash_for_a_while(&mut self, node: usize, power: bool) {
        if self.nodes[node].is_up() {
            self.crash(node, power);
            self.undo_later(Undo::Start(node));
        }
    }

    fn crash_all(&mut self) {
        let power = self.random.faults.bool();
        let back = self.fault_length();
        for node in 0..self.nodes.len() {
            self.crash(node, power);
            let delay = back + self.random.faults.u64(0..50 * MILLISECOND);
            self.agenda.plan(self.now + delay, Event::Undo(Undo::Start(node)));
        }
    }

    fn pause(&mut self, node: usize) {
        let length = self.fault_length();
        self.nodes[node].paused_until = self.now + length;
        self.line(node, "pauses", length / MILLISECOND, 0);
    }

    pub(super) fn sever(&mut self, pairs: Vec<(usize, usize)>) {
        for &(from, to) in &pairs {
            self.set_cut(from, to, true);
        }
        self.undo_later(Undo::Heal(pairs));
    }

    fn partition(&mut self) {
        let nodes = self.nodes.len();
        let side: Vec<bool> = (0..nodes).map(|_| self.random.faults.bool()).collect();
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        self.sever(pairs.filter(|&(from, to)| side[from] != side[to]).collect());
    }

    /// Cut off for moments only, again and again: too short for an election, long enough to be noticed.
    fn flap(&mut self, node: usize) {
        let count = self.nodes.len();
        let both = self.random.faults.bool();
        let pairs = (0..count).flat_map(|peer| [(peer, node), (node, peer)]).filter(|&(from, _)| both || from == node);
        let left = self.random.faults.u32(4..=20);
        self.undo(Undo::Flap { pairs: pairs.collect(), cut: false, left });
    }

    fn flap_again(&mut self, pairs: Vec<(usize, usize)>, cut: bool, left: u32) {
        for &(from, to) in &pairs {
            self.set_cut(from, to, !cut);
        }
        if left > 0 && self.settling.is_none() {
            let timeout = self.profile.election_timeout.as_nanos() as Moment;
            let delay = self.random.faults.u64(0..=timeout / 2);
            self.agenda.plan(self.now + delay, Event::Undo(Undo::Flap { pairs, cut: !cut, left: left - 1 }));
        } else if !cut {
            self.undo(Undo::Heal(pairs));
        }
    }

    fn isolate_in_turn(&mut self, node: usize) {
        let count = self.nodes.len();
        if let Some(before) = node.checked_sub(1) {
            self.undo(Undo::Heal((0..count).flat_map(|peer| [(before, peer), (peer, before)]).collect()));
        }
        if node < count && self.settling.is_none() {
            for peer in 0..count {
                self.set_cut(node, peer, true);
                self.set_cut(peer, node, true);
            }
            let timeout = self.profile.election_timeout.as_nanos() as Moment;
            let delay = self.random.faults.u64(timeout / 2..=timeout * 3);
            self.agenda.plan(self.now + delay, Event::Undo(Undo::NextInTurn(node)));
        }
    }

    /// Back or forth, by anything from a moment to a year.
    fn jump_clock(&mut self, node: usize) {
        let longest = pick(&mut self.random.faults, &[SECOND, 3_600 * SECOND, 365 * 24 * 3_600 * SECOND]) as i64 / 100;
        let jump = self.random.faults.i64(-longest..=longest);
        self.nodes[node].wall_clock_off += jump;
        self.line(node, "jumps", jump.unsigned_abs(), u64::from(jump < 0));
    }

    fn break_some_link(&mut self, node: usize) {
        let links: Vec<u64> =
            self.network.links.iter().filter(|(_, link)| link.ends.contains(&node)).map(|(&id, _)| id).collect();
        if !links.is_empty() {
            self.line(node, "breaks", 0, 0);
            let link = pick(&mut self.random.faults, &links);
            self.break_link(link);
        }
    }

    fn slow_disk(&mut self, node: usize) {
        let slowness = pick(&mut self.random.faults, &[20, 20, 1_000]);
        self.line(node, "disk", slowness, 0);
        self.nodes[node].disk_slowness = slowness;
        self.undo_later(Undo::DiskWell(node));
    }

    fn fill_disk(&mut self, node: usize) {
        self.line(node, "disk", 0, 0);
        self.nodes[node].full_disk = true;
        self.undo_later(Undo::DiskWell(node));
    }

    fn stop(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        self.line(node, "stops", 0, 0);
        self.input(node, Input::Stop);
        let life = self.nodes[node].life;
        let patience = 2 * self.profile.election_timeout.as_nanos() as Moment;
        self.agenda.plan(self.now + patience, Event::Undo(Undo::Kill { node, life }));
        let back = self.fault_length();
        self.agenda.plan(self.now + patience + back, Event::Undo(Undo::Start(node)));
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(node) => self.start(node),
            Undo::Kill { node, life } if self.lives(node, life) => self.crash(node, false),
            Undo::Kill { .. } => {}
            Undo::Flap { pairs, cut, left } => self.flap_again(pairs, cut, left),
            Undo::NextInTurn(node) => self.isolate_in_turn(node + 1),
            Undo::Heal(pairs) => pairs.into_iter().for_each(|(from, to)| self.set_cut(from, to, false)),
            Undo::DiskWell(node) => {
                self.nodes[node].disk_slowness = 1;
                self.nodes[node].full_disk = false;
                self.hurry_io(node);
                self.line(node, "disk", 1, 0);
            }
        }
    }
}
