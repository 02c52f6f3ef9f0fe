//! The world that is searched: three replicas with logs and disks, and letters. See the module above.

use std::rc::Rc;
use std::time::Duration;

use crate::consensus::harness::{RECORD_BYTES, node};
use crate::consensus::replica::State;
use crate::consensus::{
    Change, EpochTable, Message, PlantedBug, Replica, ReplicaOptions, Restored, RestoredList, VoteRequest, VoteResponse,
};
use crate::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term, Ticks};

pub(super) const NODES: usize = 3;

/// The clock in every step but those for which patience must be over.
pub(super) const NOW: Ticks = Ticks(1_000_000_000_000);
pub(super) const LATE: Ticks = Ticks(1_100_000_000_000);
const NEVER: Ticks = Ticks(u64::MAX);
const TIMEOUT: Duration = Duration::from_secs(1);

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) terms: u32,
    /// Nodes that stand for election.
    pub(super) candidates: u8,
    /// Founding members; the nodes behind them follow as clones.
    pub(super) members: u8,
    /// Records beside those that begin a term.
    pub(super) entries: u8,
    /// Changes of the member list.
    pub(super) changes: u8,
    pub(super) crashes: u8,
    /// Links that break, and leaders that give up.
    pub(super) breaks: u8,
    /// A save is a step of its own; else it is done when it is asked for.
    pub(super) slow_saves: bool,
    /// A flush is a step of its own even when nothing can crash any more.
    pub(super) slow_flushes: bool,
    /// Steps from the beginning.
    pub(super) depth: usize,
    pub(super) planted: Option<PlantedBug>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) name: &'static str,
    pub(super) words: String,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: the beginning.
    Start,
    Stand(u8),
    /// A leader's patience with its quorum is over.
    GiveUp(u8),
    Hint {
        to: u8,
        leader: u8,
    },
    Deliver(u8),
    Save(u8),
    /// One record more is durable.
    Flush(u8),
    Copy(u8),
    Append(u8),
    /// The leader adds or removes a member.
    Change {
        leader: u8,
        subject: u8,
    },
    Break(u8),
    Reconnect(u8),
    Crash {
        node: u8,
        kept: u8,
        saved: bool,
    },
}

/// A record of `RECORD_BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) term: Term,
    /// The members, a bit each, if it is a record of a list.
    pub(super) list: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Vote(VoteRequest),
    Answer { asked: Term, response: VoteResponse },
    Message(Message),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Zero: a vote, on a connection of its own. Else which of the follower's links it is on.
    pub(super) link: u8,
    pub(super) content: Content,
}

impl Letter {
    pub(super) fn is_behind(&self, other: &Letter) -> bool {
        self.link > 0 && (self.from, self.to, self.link) == (other.from, other.to, other.link)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) replica: Replica,
    pub(super) log: Vec<Record>,
    pub(super) flushed: usize,
    pub(super) durable: (Term, Option<NodeId>),
    pub(super) saves: Vec<(u64, Term, Option<NodeId>)>,
    /// The subscription of each link that it opened.
    pub(super) names: Vec<Guid>,
    /// The leader that it has a link with, and which one.
    pub(super) open: Option<(usize, u8)>,
    /// The leader's log comes on it.
    pub(super) has_data: bool,
    /// The last term whose leader it opened a link to by a hint.
    pub(super) hinted: Term,
    pub(super) lives: u64,
}

/// What the search knows and no node does.
#[derive(Clone, Debug)]
pub(super) struct Ghost {
    pub(super) committed: Vec<Record>,
    /// In which terms it was committed, and up to how many records.
    pub(super) commits: Vec<(Term, usize)>,
    /// The terms that had a leader.
    pub(super) led: Vec<Term>,
    pub(super) entries_left: u8,
    pub(super) changes_left: u8,
    pub(super) crashes_left: u8,
    pub(super) breaks_left: u8,
    /// For the figures only.
    pub(super) cuts: bool,
}

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) hosts: [Rc<Host>; NODES],
    /// In the order in which they were sent, which counts for those on one link only.
    pub(super) letters: Vec<Rc<Letter>>,
    pub(super) ghost: Ghost,
    /// The link whose message is being answered.
    pub(super) answering: u8,
}

/// What is met somewhere, or the search has seen nothing.
pub(super) const REACHED: [&str; 7] = [
    "a leader",
    "two leaders at once",
    "something committed",
    "committed in two terms",
    "a log cut",
    "an unsaved vote",
    "a list committed",
];

pub(super) fn index_of(node: NodeId) -> usize {
    usize::from(node.0.0[0]) - 1
}

pub(super) fn end_of(records: usize) -> LogPosition {
    LogPosition(records as u64 * RECORD_BYTES)
}

pub(super) fn records_to(position: LogPosition) -> usize {
    (position.0 / RECORD_BYTES) as usize
}

pub(super) fn nodes_of(mask: u8) -> Vec<NodeId> {
    (0..NODES).filter(|at| mask & (1 << at) != 0).map(node).collect()
}

pub(super) fn mask_of(nodes: &[NodeId]) -> u8 {
    nodes.iter().fold(0, |mask, node| mask | 1 << index_of(*node))
}

/// The epoch that the record at `at` begins, if it begins one.
pub(super) fn epoch_at(log: &[Record], at: usize) -> Option<Epoch> {
    let term = log[at].term;
    let begins = at == 0 || log[at - 1].term != term;
    begins.then(|| Epoch { term, position: end_of(at), id: Guid([0xE0 | term.0 as u8; 16]) })
}

pub(super) fn epochs_of(log: &[Record]) -> EpochTable {
    EpochTable::new((0..log.len()).filter_map(|at| epoch_at(log, at)).collect())
}

pub(super) fn founding(bounds: &Bounds) -> u8 {
    (1 << bounds.members) - 1
}

/// The list in force after these records.
pub(super) fn list_of(log: &[Record], bounds: &Bounds) -> u8 {
    log.iter().rev().find_map(|record| record.list).unwrap_or(founding(bounds))
}

pub(super) fn violated(name: &'static str, words: String) -> Result<(), Violation> {
    Err(Violation { name, words })
}

impl Host {
    fn new(at: usize, bounds: &Bounds) -> Host {
        Host {
            replica: Replica::new(options(at, 0, bounds), Restored::default(), NOW),
            log: Vec::new(),
            flushed: 0,
            durable: (Term::ZERO, None),
            saves: Vec::new(),
            names: Vec::new(),
            open: None,
            has_data: false,
            hinted: Term::ZERO,
            lives: 0,
        }
    }

    /// What a start finds on the disk.
    pub(super) fn restored(&self, bounds: &Bounds) -> Restored {
        let list = self.log.iter().rposition(|record| record.list.is_some()).map(|at| RestoredList {
            position: end_of(at),
            members: nodes_of(list_of(&self.log[..=at], bounds)),
            before: nodes_of(list_of(&self.log[..at], bounds)),
        });
        Restored {
            term: self.durable.0,
            voted_for: self.durable.1,
            epochs: epochs_of(&self.log),
            log_end: end_of(self.log.len()),
            list,
            ..Restored::default()
        }
    }

    /// Forgets what does not matter: times, and how many saves there were.
    pub(super) fn normalise(&mut self) {
        let replica = &mut self.replica;
        replica.election_deadline = NEVER;
        replica.leader_heard = replica.leader_heard.map(|_| NOW);
        replica.refused = None;
        match &mut replica.state {
            State::Following(following) => {
                following.retry_at = following.retry_at.map(|_| NEVER);
                // Nobody is suspect here.
                following.first_commit = None;
            }
            State::Leading(leading) => {
                leading.next_heartbeat = NOW;
                leading.no_wish_before = NEVER;
                leading.no_urgent_wish_before = NEVER;
            }
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
        let done = replica.save_done;
        replica.save_asked -= done;
        replica.save_done = 0;
        replica.held_back.iter_mut().for_each(|(sequence, _)| *sequence -= done);
        self.saves.iter_mut().for_each(|(sequence, ..)| *sequence -= done);
    }
}

pub(super) fn options(at: usize, lives: u64, bounds: &Bounds) -> ReplicaOptions {
    ReplicaOptions {
        node: node(at),
        cluster: ClusterId(Guid([9; 16])),
        members: nodes_of(founding(bounds)),
        election_timeout: TIMEOUT,
        heartbeat_interval: TIMEOUT / 7,
        priority: 0,
        seed: at as u64 * 100 + lives,
        is_jittered: false,
        planted: bounds.planted,
    }
}

impl World {
    pub(super) fn new(bounds: &Bounds) -> World {
        let host = |at| {
            let mut host = Host::new(at, bounds);
            host.normalise();
            Rc::new(host)
        };
        let ghost = Ghost {
            committed: Vec::new(),
            commits: Vec::new(),
            led: Vec::new(),
            entries_left: bounds.entries,
            changes_left: bounds.changes,
            crashes_left: bounds.crashes,
            breaks_left: bounds.breaks,
            cuts: false,
        };
        World { hosts: std::array::from_fn(host), letters: Vec::new(), ghost, answering: 0 }
    }

    pub(super) fn reached(&self) -> [bool; REACHED.len()] {
        let leaders = self.hosts.iter().filter(|host| host.replica.is_leader()).count();
        let committed = &self.ghost.committed;
        let terms = committed.windows(2).filter(|pair| pair[0].term != pair[1].term).count();
        let unsaved = self.hosts.iter().any(|host| !host.saves.is_empty());
        let has_list = committed.iter().any(|record| record.list.is_some());
        [leaders > 0, leaders > 1, !committed.is_empty(), terms > 0, self.ghost.cuts, unsaved, has_list]
    }

    /// A step, as people read it.
    pub(super) fn describe(&self, action: Action) -> String {
        match action {
            Action::Deliver(letter) => format!("deliver {:?}", self.letters[usize::from(letter)]),
            other => format!("{other:?}"),
        }
    }

    pub(super) fn host_mut(&mut self, at: usize) -> &mut Host {
        Rc::make_mut(&mut self.hosts[at])
    }

    // --- what can happen ---

    pub(super) fn actions(&self, bounds: &Bounds) -> Vec<Action> {
        let is_first = |at: usize| !self.letters[..at].iter().any(|before| self.letters[at].is_behind(before));
        let letters = (0..self.letters.len()).filter(|&at| is_first(at));
        let mut actions: Vec<Action> = letters.map(|at| Action::Deliver(at as u8)).collect();
        for at in 0..NODES {
            self.actions_of(at, bounds, &mut actions);
            self.actions_with_links_of(at, &mut actions);
        }
        actions
    }

    fn actions_of(&self, at: usize, bounds: &Bounds, actions: &mut Vec<Action>) {
        let (host, n) = (&self.hosts[at], at as u8);
        let replica = &host.replica;
        let leads = replica.is_leader();
        let may_stand = !leads && n < bounds.candidates && replica.term().0 < bounds.terms && replica.may_stand();
        let mut may = |condition: bool, action: Action| actions.extend(condition.then_some(action));
        may(may_stand && replica.held_back.is_empty(), Action::Stand(n));
        // A leader alone never loses its quorum.
        may(leads && self.ghost.breaks_left > 0 && replica.members() != [node(at)], Action::GiveUp(n));
        may(!host.saves.is_empty(), Action::Save(n));
        may(host.flushed < host.log.len(), Action::Flush(n));
        may(leads && self.ghost.entries_left > 0, Action::Append(n));
        if leads && self.ghost.changes_left > 0 {
            let is_possible = |&subject: &u8| replica.plan_change(NOW, self.change(at, subject)).is_ok();
            let subjects = (0..NODES as u8).filter(is_possible);
            actions.extend(subjects.map(|subject| Action::Change { leader: n, subject }));
        }
        if self.ghost.crashes_left > 0 && self.hosts.iter().any(|host| host.replica.term() > Term::ZERO) {
            for kept in host.flushed as u8..=host.log.len() as u8 {
                actions.push(Action::Crash { node: n, kept, saved: false });
                actions.extend((!host.saves.is_empty()).then_some(Action::Crash { node: n, kept, saved: true }));
            }
        }
    }

    fn actions_with_links_of(&self, at: usize, actions: &mut Vec<Action>) {
        let (host, n) = (&self.hosts[at], at as u8);
        let replica = &host.replica;
        let mut may = |condition: bool, action: Action| actions.extend(condition.then_some(action));
        may(self.is_streaming(at), Action::Copy(n));
        if let State::Following(following) = &replica.state
            && following.leader.is_some()
        {
            let is_down = following.retry_at.is_some() && replica.leader_heard.is_none() && host.open.is_none();
            may(host.open.is_some() && self.ghost.breaks_left > 0, Action::Break(n));
            may(is_down, Action::Reconnect(n));
        }
        for leader in (0..NODES).filter(|&leader| leader != at) {
            let other = &self.hosts[leader].replica;
            let is_news = other.is_leader() && other.term() > host.hinted && other.term() >= replica.term();
            may(
                is_news && !replica.is_leader() && replica.leader() != Some(node(leader)),
                Action::Hint { to: n, leader: leader as u8 },
            );
        }
    }

    /// The change that makes a member of who is none, or the other way round.
    pub(super) fn change(&self, leader: usize, subject: u8) -> Change {
        let node = node(subject.into());
        if self.hosts[leader].replica.has_member(node) { Change::Remove(node) } else { Change::Add(node) }
    }

    /// A leader that leads no more sends nothing more of its log. (What is on the way would reach the follower as if it had
    /// come before: until it takes part in another term, which closes its link, nobody looks at its log.)
    fn is_streaming(&self, at: usize) -> bool {
        let host = &self.hosts[at];
        let Some((leader, link)) = host.open.filter(|_| host.has_data) else { return false };
        let (subscription, leader) = (host.names[usize::from(link) - 1], &self.hosts[leader]);
        let is_served = leader.replica.followers().any(|(_, tracked)| tracked.subscription == subscription);
        is_served && host.replica.accepts_data(subscription) && leader.log.len() > host.log.len()
    }
}
