//! The world that is searched: three replicas with logs and disks, letters, and what must hold. See the module above.

use std::rc::Rc;
use std::time::Duration;

use crate::consensus::harness::{RECORD_BYTES, node};
use crate::consensus::replica::State;
use crate::consensus::{
    Effect, EpochTable, Message, PlantedBug, Replica, ReplicaOptions, Restored, VoteRequest, VoteResponse,
};
use crate::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term, Ticks};

use super::search::fingerprint;

pub(super) const NODES: usize = 3;

/// The clock in every step but those for which patience must be over.
const NOW: Ticks = Ticks(1_000_000_000_000);
const LATE: Ticks = Ticks(1_100_000_000_000);
const NEVER: Ticks = Ticks(u64::MAX);
const TIMEOUT: Duration = Duration::from_secs(1);

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) terms: u32,
    /// Nodes that stand for election.
    pub(super) candidates: u8,
    /// Records beside those that begin a term.
    pub(super) entries: u8,
    pub(super) crashes: u8,
    /// Links that break, and leaders that give up.
    pub(super) breaks: u8,
    /// Links that one node opens.
    pub(super) links: u8,
    /// A save is a step of its own; else it is done when it is asked for.
    pub(super) slow_saves: bool,
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
    Deliver(u16),
    Save(u8),
    /// One record more is durable, or all are.
    Flush {
        node: u8,
        all: bool,
    },
    Copy(u8),
    Append(u8),
    Break(u8),
    Reconnect(u8),
    Crash {
        node: u8,
        kept: u8,
        saved: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Content {
    Vote(VoteRequest),
    Answer { asked: Term, response: VoteResponse },
    Message(Message),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Letter {
    from: usize,
    to: usize,
    content: Content,
}

#[derive(Clone, Debug, Hash)]
struct Host {
    replica: Replica,
    /// Terms of the records, one each `RECORD_BYTES`.
    log: Vec<Term>,
    flushed: usize,
    durable: (Term, Option<NodeId>),
    saves: Vec<(u64, Term, Option<NodeId>)>,
    /// The leader whose log comes, and for which subscription.
    data: Option<(usize, Guid)>,
    links_left: u8,
    lives: u64,
}

/// What the search knows and no node does.
#[derive(Clone, Debug, Hash)]
struct Ghost {
    committed: Vec<Term>,
    /// In which terms it was committed, and up to how many records, ascending.
    commits: Vec<(Term, usize)>,
    leaders: Vec<(Term, usize)>,
    entries_left: u8,
    crashes_left: u8,
    breaks_left: u8,
    cuts: bool,
}

/// A state.
#[derive(Clone, Debug)]
pub(super) struct World {
    hosts: [(u128, Rc<Host>); NODES],
    /// In the order of their fingerprints: the set counts, not who wrote first.
    letters: Vec<(u128, Rc<Letter>)>,
    ghost: Ghost,
}

/// What must be met somewhere, or the search has seen nothing.
pub(super) const REACHED: [&str; 6] = [
    "a leader",
    "two leaders at once",
    "something committed",
    "committed in two terms",
    "a log cut",
    "an unsaved vote",
];

fn index_of(node: NodeId) -> usize {
    usize::from(node.0.0[0]) - 1
}

fn end_of(records: usize) -> LogPosition {
    LogPosition(records as u64 * RECORD_BYTES)
}

fn records_to(position: LogPosition) -> usize {
    (position.0 / RECORD_BYTES) as usize
}

/// The epoch that the record at `at` begins, if it begins one.
fn epoch_at(log: &[Term], at: usize) -> Option<Epoch> {
    let begins = at == 0 || log[at - 1] != log[at];
    begins.then(|| Epoch { term: log[at], position: end_of(at), id: Guid([log[at].0 as u8; 16]) })
}

fn epochs_of(log: &[Term]) -> EpochTable {
    EpochTable::new((0..log.len()).filter_map(|at| epoch_at(log, at)).collect())
}

fn violated(name: &'static str, words: String) -> Result<(), Violation> {
    Err(Violation { name, words })
}

impl Host {
    fn new(at: usize, bounds: &Bounds) -> Host {
        let replica = Replica::new(options(at, 0, bounds), Restored::default(), NOW);
        Host {
            replica,
            log: Vec::new(),
            flushed: 0,
            durable: (Term::ZERO, None),
            saves: Vec::new(),
            data: None,
            links_left: bounds.links,
            lives: 0,
        }
    }

    /// Forgets what does not matter: times, and how many saves there were.
    fn normalise(&mut self) {
        let replica = &mut self.replica;
        replica.election_deadline = NEVER;
        replica.leader_heard = replica.leader_heard.map(|_| NOW);
        replica.refused = None;
        match &mut replica.state {
            State::Following(following) => following.retry_at = following.retry_at.map(|_| NEVER),
            State::Leading(leading) => {
                leading.next_heartbeat = NOW;
                leading.no_wish_before = NEVER;
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

fn options(at: usize, lives: u64, bounds: &Bounds) -> ReplicaOptions {
    ReplicaOptions {
        node: node(at),
        cluster: ClusterId(Guid([9; 16])),
        members: (0..NODES).map(node).collect(),
        election_timeout: TIMEOUT,
        heartbeat_interval: TIMEOUT / 7,
        priority: 0,
        seed: at as u64 * 100 + lives,
        is_jittered: false,
        planted: bounds.planted,
    }
}

impl World {
    pub(super) fn new(bounds: Bounds) -> World {
        let host = |at| {
            let mut host = Host::new(at, &bounds);
            host.normalise();
            (fingerprint(&host), Rc::new(host))
        };
        let ghost = Ghost {
            committed: Vec::new(),
            commits: Vec::new(),
            leaders: Vec::new(),
            entries_left: bounds.entries,
            crashes_left: bounds.crashes,
            breaks_left: bounds.breaks,
            cuts: false,
        };
        World { hosts: std::array::from_fn(host), letters: Vec::new(), ghost }
    }

    pub(super) fn fingerprint(&self) -> u128 {
        let hosts = self.hosts.each_ref().map(|(fingerprint, _)| *fingerprint);
        let letters: Vec<u128> = self.letters.iter().map(|(fingerprint, _)| *fingerprint).collect();
        fingerprint(&(hosts, letters, &self.ghost))
    }

    pub(super) fn reached(&self) -> [bool; REACHED.len()] {
        let leaders = self.hosts().filter(|host| host.replica.is_leader()).count();
        let committed = &self.ghost.committed;
        let terms = committed.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let unsaved = self.hosts().any(|host| !host.saves.is_empty());
        [leaders > 0, leaders > 1, !committed.is_empty(), terms > 0, self.ghost.cuts, unsaved]
    }

    /// A step, as people read it.
    pub(super) fn describe(&self, action: Action) -> String {
        match action {
            Action::Deliver(letter) => format!("deliver {:?}", self.letters[usize::from(letter)].1),
            other => format!("{other:?}"),
        }
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().map(|(_, host)| &**host)
    }

    fn host(&self, at: usize) -> &Host {
        &self.hosts[at].1
    }

    fn host_mut(&mut self, at: usize) -> &mut Host {
        Rc::make_mut(&mut self.hosts[at].1)
    }

    // --- what can happen ---

    pub(super) fn actions(&self, bounds: &Bounds) -> Vec<Action> {
        let mut actions: Vec<Action> = (0..self.letters.len() as u16).map(Action::Deliver).collect();
        for at in 0..NODES {
            self.actions_of(at, bounds, &mut actions);
        }
        actions
    }

    fn actions_of(&self, at: usize, bounds: &Bounds, actions: &mut Vec<Action>) {
        let (host, n) = (self.host(at), at as u8);
        let replica = &host.replica;
        let leads = replica.is_leader();
        let is_first = at == 0 || (n < bounds.candidates && !self.is_new());
        let mut may = |condition: bool, action: Action| actions.extend(condition.then_some(action));
        may(!leads && is_first && replica.term().0 < bounds.terms && replica.held_back.is_empty(), Action::Stand(n));
        may(leads && self.ghost.breaks_left > 0, Action::GiveUp(n));
        may(!host.saves.is_empty(), Action::Save(n));
        may(host.flushed < host.log.len(), Action::Flush { node: n, all: true });
        may(host.flushed + 1 < host.log.len(), Action::Flush { node: n, all: false });
        may(leads && self.ghost.entries_left > 0, Action::Append(n));
        may(self.is_streaming(at), Action::Copy(n));
        if let State::Following(following) = &replica.state
            && following.leader.is_some()
        {
            let is_down = following.retry_at.is_some() && replica.leader_heard.is_none();
            may(!is_down && self.ghost.breaks_left > 0, Action::Break(n));
            may(is_down && host.links_left > 0, Action::Reconnect(n));
        }
        for leader in (0..NODES).filter(|&leader| leader != at) {
            let is_leader = self.host(leader).replica.is_leader();
            let follows = replica.leader() == Some(node(leader));
            may(!leads && is_leader && !follows && host.links_left > 0, Action::Hint { to: n, leader: leader as u8 });
        }
        if self.ghost.crashes_left > 0 && !self.is_new() {
            for kept in host.flushed..=host.log.len() {
                may(true, Action::Crash { node: n, kept: kept as u8, saved: false });
                may(!host.saves.is_empty(), Action::Crash { node: n, kept: kept as u8, saved: true });
            }
        }
    }

    fn is_new(&self) -> bool {
        self.hosts().all(|host| host.replica.term() == Term::ZERO)
    }

    fn is_streaming(&self, at: usize) -> bool {
        let host = self.host(at);
        let Some((leader, subscription)) = host.data else { return false };
        host.replica.accepts_data(subscription) && self.host(leader).log.len() > host.log.len()
    }

    // --- a step ---

    /// # Errors
    /// What is wrong then.
    pub(super) fn step(&mut self, action: Action, bounds: &Bounds) -> Result<(), Violation> {
        let before: Vec<LogPosition> = self.hosts().map(|host| host.replica.commit_position()).collect();
        self.happen(action, bounds)?;
        for at in 0..NODES {
            self.host_mut(at).normalise();
            self.hosts[at].0 = fingerprint(&*self.hosts[at].1);
        }
        let crashed = |at: usize| matches!(action, Action::Crash { node, .. } if usize::from(node) == at);
        for (at, before) in before.into_iter().enumerate().filter(|(at, _)| !crashed(*at)) {
            if self.host(at).replica.commit_position() < before {
                return violated("CommitMonotone", format!("node {at} had committed up to {before}"));
            }
        }
        self.check()
    }

    fn happen(&mut self, action: Action, bounds: &Bounds) -> Result<(), Violation> {
        match action {
            Action::Start => Ok(()),
            Action::Stand(n) => self.stand(n.into(), bounds),
            Action::GiveUp(n) => {
                self.ghost.breaks_left -= 1;
                self.run(n.into(), bounds, |replica, effects| replica.handle_tick(LATE, effects))
            }
            Action::Hint { to, leader } => {
                let term = self.host(leader.into()).replica.term();
                let leader = node(leader.into());
                self.run(to.into(), bounds, |replica, effects| {
                    replica.handle_leader_seen(NOW, leader, term, effects);
                })
            }
            Action::Deliver(letter) => {
                let letter = Rc::clone(&self.letters[usize::from(letter)].1);
                self.deliver(&letter, bounds)
            }
            Action::Save(n) => self.save(n.into(), bounds),
            Action::Flush { node, all } => self.flush(node.into(), all, bounds),
            Action::Copy(n) => self.copy(n.into()),
            Action::Append(n) => {
                self.ghost.entries_left -= 1;
                let term = self.host(n.into()).replica.term();
                self.append(n.into(), term);
                Ok(())
            }
            Action::Break(n) => self.break_link(n.into(), bounds),
            Action::Reconnect(n) => self.run(n.into(), bounds, |replica, effects| {
                if let State::Following(following) = &mut replica.state {
                    following.retry_at = Some(NOW);
                }
                replica.handle_tick(LATE, effects);
            }),
            Action::Crash { node, kept, saved } => self.crash(node.into(), kept.into(), saved, bounds),
        }
    }

    /// Waits no longer for a leader, is granted every pre-vote, and stands.
    fn stand(&mut self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        self.run(at, bounds, |replica, effects| {
            if let State::Following(following) = &mut replica.state {
                following.retry_at = None;
            }
            replica.leader_heard = None;
            replica.election_deadline = NOW;
            let mut asked = Vec::new();
            replica.handle_tick(LATE, &mut asked);
            effects.extend(asked.into_iter().filter(|effect| !matches!(effect, Effect::RequestVote { pre: true, .. })));
            let (term, voter) = (replica.term(), node((at + 1) % NODES));
            let response = VoteResponse { voter, term, granted: true, leader: None, is_suspect: false };
            replica.handle_vote_answer(NOW, true, term.next(), response, effects);
        })
    }

    fn deliver(&mut self, letter: &Letter, bounds: &Bounds) -> Result<(), Violation> {
        let from = node(letter.from);
        // Votes are asked for when patience is over: who hears a leader would only say no.
        match letter.content.clone() {
            Content::Vote(request) => {
                let token = u64::from(request.term.0) * 10 + letter.from as u64;
                self.run(letter.to, bounds, |replica, effects| {
                    replica.handle_vote_request(LATE, token, false, request, effects);
                })
            }
            Content::Answer { asked, response } => self.run(letter.to, bounds, |replica, effects| {
                replica.handle_vote_answer(NOW, false, asked, response, effects);
            }),
            Content::Message(message) => self.run(letter.to, bounds, |replica, effects| {
                replica.handle_message(NOW, from, message, effects);
            }),
        }
    }

    fn save(&mut self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        let saves = std::mem::take(&mut self.host_mut(at).saves);
        let Some(&(sequence, term, voted_for)) = saves.last() else { return Ok(()) };
        self.host_mut(at).durable = (term, voted_for);
        self.run(at, bounds, |replica, effects| replica.handle_saved(NOW, sequence, effects))
    }

    fn flush(&mut self, at: usize, all: bool, bounds: &Bounds) -> Result<(), Violation> {
        let host = self.host_mut(at);
        host.flushed = if all { host.log.len() } else { host.flushed + 1 };
        let end = end_of(host.flushed);
        self.run(at, bounds, |replica, effects| replica.handle_flushed(end, effects))
    }

    fn append(&mut self, at: usize, term: Term) {
        let host = self.host_mut(at);
        host.log.push(term);
        let epoch = epoch_at(&host.log, host.log.len() - 1);
        host.replica.handle_appended(end_of(host.log.len()), epoch);
    }

    fn copy(&mut self, at: usize) -> Result<(), Violation> {
        let (leader, _) = self.host(at).data.expect("it streams");
        let term = self.host(leader).log[self.host(at).log.len()];
        self.host_mut(at).replica.handle_data(NOW);
        self.append(at, term);
        Ok(())
    }

    fn break_link(&mut self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        self.ghost.breaks_left -= 1;
        let State::Following(following) = &self.host(at).replica.state else { return Ok(()) };
        let Some(leader) = following.leader else { return Ok(()) };
        self.close_link(at);
        self.run(at, bounds, |replica, effects| replica.handle_link_down(NOW, leader, effects))?;
        self.run(index_of(leader), bounds, |replica, effects| replica.handle_link_down(NOW, node(at), effects))
    }

    fn crash(&mut self, at: usize, kept: usize, saved: bool, bounds: &Bounds) -> Result<(), Violation> {
        self.ghost.crashes_left -= 1;
        let host = self.host_mut(at);
        if let (true, Some(&(_, term, voted_for))) = (saved, host.saves.last()) {
            host.durable = (term, voted_for);
        }
        host.saves.clear();
        host.data = None;
        host.log.truncate(kept);
        host.flushed = kept;
        host.lives += 1;
        let restored = Restored {
            term: host.durable.0,
            voted_for: host.durable.1,
            epochs: epochs_of(&host.log),
            log_end: end_of(kept),
            ..Restored::default()
        };
        host.replica = Replica::new(options(at, host.lives, bounds), restored, NOW);
        // Connections died with the process; what asks for a vote makes one of its own.
        self.letters.retain(|(_, letter)| letter.to != at || matches!(letter.content, Content::Vote(_)));
        for other in (0..NODES).filter(|&other| other != at) {
            if self.host(other).data.is_some_and(|(leader, _)| leader == at) {
                self.close_link(other);
            }
            self.run(other, bounds, |replica, effects| replica.handle_link_down(NOW, node(at), effects))?;
        }
        Ok(())
    }

    /// What the leader sent to `at` on its link is lost.
    fn close_link(&mut self, at: usize) {
        self.host_mut(at).data = None;
        let is_from_leader = |letter: &Letter| {
            let Content::Message(message) = &letter.content else { return false };
            let to_leader = matches!(
                message,
                Message::Subscribe { .. } | Message::Acknowledge { .. } | Message::HeartbeatAnswer { .. }
            );
            letter.to == at && !to_leader
        };
        self.letters.retain(|(_, letter)| !is_from_leader(letter));
    }

    fn post(&mut self, from: usize, to: usize, content: Content) {
        let letter = Letter { from, to, content };
        let fingerprint = fingerprint(&letter);
        if let Err(at) = self.letters.binary_search_by_key(&fingerprint, |(known, _)| *known) {
            self.letters.insert(at, (fingerprint, Rc::new(letter)));
        }
    }

    // --- what a replica wants ---

    fn run(
        &mut self,
        at: usize,
        bounds: &Bounds,
        run: impl FnOnce(&mut Replica, &mut Vec<Effect>),
    ) -> Result<(), Violation> {
        let mut effects = Vec::new();
        run(&mut self.host_mut(at).replica, &mut effects);
        effects.into_iter().try_for_each(|effect| {
            self.check_speech(at, &effect)?;
            self.carry_out(at, effect, bounds)
        })
    }

    fn carry_out(&mut self, at: usize, effect: Effect, bounds: &Bounds) -> Result<(), Violation> {
        match effect {
            Effect::SaveState { sequence, term, voted_for } => {
                self.host_mut(at).saves.push((sequence, term, voted_for));
                if bounds.slow_saves { Ok(()) } else { self.save(at, bounds) }
            }
            Effect::Send { to, message } => {
                self.post(at, index_of(to), Content::Message(message));
                Ok(())
            }
            Effect::RequestVote { to, pre: false, request } => {
                self.post(at, index_of(to), Content::Vote(request));
                Ok(())
            }
            Effect::AnswerVote { token, response } => {
                let asked = Term((token / 10) as u32);
                // A refusal without a newer term changes nothing anywhere.
                if !response.granted && response.term <= asked {
                    return Ok(());
                }
                self.post(at, (token % 10) as usize, Content::Answer { asked, response });
                Ok(())
            }
            Effect::Follow { leader } => self.follow(at, leader, bounds),
            Effect::Unfollow => {
                self.close_link(at);
                Ok(())
            }
            Effect::Truncate { to } => self.truncate(at, to, bounds),
            Effect::OpenData { leader, subscription, .. } => {
                self.host_mut(at).data = Some((index_of(leader), subscription));
                Ok(())
            }
            Effect::Lead { term } => self.lead(at, term),
            Effect::Commit { position } => self.commit(at, position),
            Effect::Fatal { reason } => violated("Fatal", reason),
            _ => Ok(()),
        }
    }

    fn follow(&mut self, at: usize, leader: NodeId, bounds: &Bounds) -> Result<(), Violation> {
        self.close_link(at);
        let host = self.host_mut(at);
        if host.links_left == 0 {
            return Ok(());
        }
        host.links_left -= 1;
        self.run(at, bounds, |replica, effects| replica.handle_link_up(NOW, leader, effects))
    }

    fn truncate(&mut self, at: usize, to: LogPosition, bounds: &Bounds) -> Result<(), Violation> {
        let kept = records_to(to);
        let log = &self.host(at).log;
        if kept < log.len() {
            let common = log.iter().zip(&self.ghost.committed).take_while(|(ours, theirs)| ours == theirs).count();
            if kept < common {
                return violated("CommittedKept", format!("node {at} cuts its log {log:?} at {kept}"));
            }
            self.ghost.cuts = true;
            let host = self.host_mut(at);
            host.log.truncate(kept);
            host.flushed = host.flushed.min(kept);
            // Nobody goes on reading what is gone.
            for other in 0..NODES {
                if self.host(other).data.is_some_and(|(leader, _)| leader == at) {
                    self.host_mut(other).data = None;
                }
            }
        }
        self.run(at, bounds, |replica, effects| replica.handle_truncated(effects))
    }

    fn lead(&mut self, at: usize, term: Term) -> Result<(), Violation> {
        if self.ghost.leaders.iter().any(|(led, _)| *led == term) {
            return violated("OneLeader", format!("node {at} leads term {term}, which had a leader"));
        }
        self.ghost.leaders.push((term, at));
        self.ghost.leaders.sort_unstable();
        // A leader of an older term may be elected late; it has what was committed before its term.
        let earlier = self.ghost.commits.iter().filter(|(in_term, _)| *in_term < term).map(|(_, records)| *records);
        let log = &self.host(at).log;
        let committed = &self.ghost.committed[..earlier.max().unwrap_or(0)];
        if !log.starts_with(committed) {
            return violated("LeaderComplete", format!("node {at} leads with {log:?}, committed is {committed:?}"));
        }
        self.append(at, term);
        Ok(())
    }

    fn commit(&mut self, at: usize, position: LogPosition) -> Result<(), Violation> {
        let log = &self.host(at).log;
        let Some(prefix) = log.get(..records_to(position)) else {
            return violated("CommitInLog", format!("node {at} commits {position} of {log:?}"));
        };
        let committed = &self.ghost.committed;
        let shorter = prefix.len().min(committed.len());
        if prefix[..shorter] != committed[..shorter] {
            return violated("OneHistory", format!("node {at} commits {prefix:?}, committed is {committed:?}"));
        }
        if prefix.len() > committed.len() {
            let (committed, term) = (prefix.to_vec(), self.host(at).replica.term());
            self.ghost.commits.retain(|(in_term, _)| *in_term != term);
            self.ghost.commits.push((term, committed.len()));
            self.ghost.committed = committed;
        }
        Ok(())
    }

    // --- what must hold ---

    /// Nobody speaks of a term, a vote or a record that is not durable. A refusal is excepted: it promises nothing.
    fn check_speech(&self, at: usize, effect: &Effect) -> Result<(), Violation> {
        let host = self.host(at);
        let ((term, vote), own) = (host.durable, node(at));
        let is_durable = match effect {
            // What was held back while a newer term was saved along with it promises as much.
            Effect::RequestVote { pre: false, request, .. } => {
                term > request.term || (term, vote) == (request.term, Some(own))
            }
            Effect::Lead { term: led } => (term, vote) == (*led, Some(own)),
            Effect::AnswerVote { response, .. } if response.granted => {
                term > response.term || (term == response.term && vote.is_some())
            }
            Effect::AnswerVote { response, .. } => response.term <= term,
            Effect::Send { message: Message::Refused { .. }, .. } => true,
            Effect::Send { message: Message::Acknowledge { term: spoken, position, .. }, .. } => {
                *spoken <= term && records_to(*position) <= host.flushed
            }
            Effect::Send { message, .. } => message.term() <= term,
            _ => true,
        };
        if is_durable {
            Ok(())
        } else {
            violated("DurableSpeech", format!("node {at}, durable {term} {vote:?}: {effect:?}"))
        }
    }

    fn check(&self) -> Result<(), Violation> {
        let committed = &self.ghost.committed;
        let holders = self.hosts().filter(|host| host.log[..host.flushed].starts_with(committed)).count();
        if holders <= NODES / 2 {
            return violated("DurableMajority", format!("{committed:?} is on {holders} disks"));
        }
        for (at, host) in self.hosts().enumerate() {
            assert_eq!(host.replica.log_end(), end_of(host.log.len()), "the model of node {at}");
            assert_eq!(*host.replica.epochs(), epochs_of(&host.log), "the model of node {at}");
            for other in self.hosts().skip(at + 1) {
                let pairs = host.log.iter().zip(&other.log);
                let same = pairs.clone().take_while(|(one, two)| one == two).count();
                if pairs.skip(same).any(|(one, two)| one == two) {
                    return violated("LogMatching", format!("{:?} and {:?}", host.log, other.log));
                }
            }
        }
        Ok(())
    }
}
