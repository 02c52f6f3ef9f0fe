//! The last part of a run: everything heals, and the cluster must come together and take a write. Then, in some runs,
//! all nodes lose power at once, and it must do so again.

use super::Checker;
use super::agenda::{MILLISECOND, Moment, SECOND};
use super::world::{Event, World};

/// How long coming together may take.
const PATIENCE: Moment = 30 * SECOND;

/// How far the last part is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    deadline: Moment,
    /// One of the runs that lose power at the end has done so.
    again: bool,
    done: bool,
}

impl World {
    pub(super) fn is_settled(&self) -> bool {
        self.settling.is_some_and(|settling| settling.done)
    }

    pub(super) fn settle(&mut self) {
        self.agenda.plan(self.now + 20 * MILLISECOND, Event::Settle);
        let Some(settling) = self.settling else { return self.heal_all() };
        // Those that wait for somebody to repair them from try by themselves.
        let ready = |node: &usize| !self.nodes[*node].is_damaged();
        (0..self.nodes.len()).filter(ready).collect::<Vec<_>>().into_iter().for_each(|node| self.start(node));
        if self.is_together() {
            self.together(settling.again);
        } else if self.now > settling.deadline && self.is_blocked_by_suspicion() {
            self.count("runs blocked by suspicion");
            self.check_history();
            self.settling = Some(Settling { done: true, ..settling });
        } else if self.now > settling.deadline {
            let detail = format!("{} s after all has healed: {}", PATIENCE / SECOND, self.standing());
            self.object(Checker::Liveness, detail);
        }
    }

    fn heal_all(&mut self) {
        self.settling = Some(Settling { deadline: self.now + PATIENCE, again: false, done: false });
        self.profile.make_benign();
        let count = self.nodes.len();
        for from in 0..count {
            (0..count).for_each(|to| self.set_cut(from, to, false));
            let node = &mut self.nodes[from];
            (node.disk_slowness, node.full_disk, node.paused_until) = (1, false, 0);
            if node.stopping {
                self.crash(from, false);
            }
            self.hurry_io(from);
            self.start(from);
            self.plan_turn(from, self.now);
        }
        self.wake_clients();
    }

    fn together(&mut self, again: bool) {
        if again || self.random.faults.bool() {
            self.check_final();
            self.settling = self.settling.map(|settling| Settling { done: true, ..settling });
            return;
        }
        (0..self.nodes.len()).for_each(|node| self.crash(node, true));
        self.settling = Some(Settling { deadline: self.now + PATIENCE, again: true, done: false });
        self.workload.last_write_done = false;
        self.wake_clients();
    }

    /// Nothing is under way, a last write was acknowledged, and all logs are the same, durable, committed and applied.
    fn is_together(&self) -> bool {
        let end = self.reference.end();
        let there = |node: &super::node::Node| {
            let Some(engine) = &node.engine else { return false };
            let (log_end, flushed, commit, _) = engine.positions();
            [log_end, flushed, commit, node.applied.applied()] == [end; 4] && node.applied.is_complete()
        };
        let is_whole = self.nodes.iter().all(|node| node.rotten.is_empty());
        is_whole && self.workload.is_idle() && self.workload.last_write_done && self.nodes.iter().all(there)
    }

    /// A member is gone for good, and of the others so many may have lost acknowledged writes that no majority of sound
    /// nodes is left: nobody is elected then before the lost member is back, which it never is. That is how a suspect's
    /// vote is defined, and not what the liveness checker is for; the table of coverage shows how often it happens.
    fn is_blocked_by_suspicion(&self) -> bool {
        let lists = self.nodes.iter().map(|node| &node.voters).filter(|voters| !voters.is_empty());
        lists.into_iter().any(|voters| {
            let present = || self.nodes.iter().filter(|node| voters.contains(&node.id) && node.is_up());
            let is_sound = |node: &&super::node::Node| {
                let replica = node.engine.as_ref().and_then(|engine| engine.replica());
                replica.is_some_and(|replica| !replica.is_suspect())
            };
            present().count() < voters.len() && present().filter(is_sound).count() <= voters.len() / 2
        })
    }

    fn standing(&self) -> String {
        let node = |node: &super::node::Node| match &node.engine {
            None => format!("n{} is down", node.index),
            Some(engine) => {
                let (end, flushed, commit, readable) = engine.positions();
                let term = engine.replica().map_or(0, |replica| replica.term().0);
                let applied = node.applied.applied();
                format!(
                    "n{} {:?} in term {term}: end {end}, flushed {flushed}, commit {commit}, readable {readable}, applied {applied}",
                    node.index,
                    engine.role()
                )
            }
        };
        let clients = self.workload.standing();
        let last = if self.workload.last_write_done { "last write done" } else { "no last write" };
        let nodes: Vec<String> = self.nodes.iter().map(node).collect();
        format!("{}; {clients}, {last}", nodes.join("; "))
    }
}
