//! What happens in a step, and what the replicas want then.

use std::rc::Rc;

use crate::consensus::following::Link;
use crate::consensus::harness::node;
use crate::consensus::replica::State;
use crate::consensus::{Effect, Message, Replica, VoteResponse};
use crate::types::{LogPosition, NodeId, Term};

use super::model::{
    Action, Bounds, Content, LATE, Letter, NODES, NOW, Record, Violation, World, end_of, epoch_at, index_of, mask_of,
    nodes_of, options, violated,
};

impl World {
    /// # Errors
    /// What is wrong then.
    pub(super) fn step(&mut self, action: Action, bounds: &Bounds) -> Result<(), Violation> {
        let before: [LogPosition; NODES] = std::array::from_fn(|at| self.hosts[at].replica.commit_position());
        self.happen(action, bounds)?;
        for at in 0..NODES {
            // Nothing can crash any more: that a flush takes its time only delays an acknowledgement, and those are
            // delivered at any time anyway.
            while self.ghost.crashes_left == 0 && !bounds.slow_flushes && self.is_unflushed(at) {
                self.flush(at, bounds)?;
            }
        }
        for at in 0..NODES {
            self.host_mut(at).normalise();
        }
        let mut letters = std::mem::take(&mut self.letters);
        letters.retain(|letter| self.matters(letter, bounds));
        self.letters = letters;
        let crashed = |at: usize| matches!(action, Action::Crash { node, .. } if usize::from(node) == at);
        for (at, before) in before.into_iter().enumerate().filter(|(at, _)| !crashed(*at)) {
            if self.hosts[at].replica.commit_position() < before {
                return violated("CommitMonotone", format!("node {at} had committed up to {before}"));
            }
        }
        self.check(bounds)
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
                let term = self.hosts[usize::from(leader)].replica.term();
                self.host_mut(to.into()).hinted = term;
                let leader = node(leader.into());
                self.run(to.into(), bounds, |replica, effects| replica.handle_leader_seen(NOW, leader, term, effects))
            }
            Action::Deliver(letter) => {
                let letter = self.letters.remove(letter.into());
                self.answering = letter.link;
                self.deliver(&letter, bounds)?;
                self.answering = 0;
                Ok(())
            }
            Action::Save(n) => self.save(n.into(), bounds),
            Action::Flush(n) => self.flush(n.into(), bounds),
            Action::Copy(n) => {
                self.copy(n.into());
                Ok(())
            }
            Action::Append(n) => {
                self.ghost.entries_left -= 1;
                let term = self.hosts[usize::from(n)].replica.term();
                self.append(n.into(), Record { term, list: None });
                Ok(())
            }
            Action::Change { leader, subject } => {
                self.change_members(leader.into(), subject);
                Ok(())
            }
            Action::Break(n) => self.break_link(n.into(), bounds),
            Action::Reconnect(n) => self.run(n.into(), bounds, |replica, effects| {
                if let State::Following(following) = &mut replica.state {
                    following.retry_at = Some(NOW);
                }
                replica.handle_tick(NOW, effects);
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
            for voter in (0..NODES).filter(|&voter| voter != at).map(node) {
                if let State::PreCandidate(_) = replica.state {
                    let term = replica.term();
                    let response = VoteResponse { voter, term, granted: true, leader: None, is_suspect: false };
                    replica.handle_vote_answer(NOW, true, term.next(), response, effects);
                }
            }
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

    fn is_unflushed(&self, at: usize) -> bool {
        self.hosts[at].flushed < self.hosts[at].log.len()
    }

    /// One record more: a flush of several is as many in a row, whose acknowledgements come in a row.
    fn flush(&mut self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        let host = self.host_mut(at);
        host.flushed += 1;
        let end = end_of(host.flushed);
        self.run(at, bounds, |replica, effects| replica.handle_flushed(end, effects))
    }

    pub(super) fn append(&mut self, at: usize, record: Record) {
        let host = self.host_mut(at);
        host.log.push(record);
        let records = host.log.len();
        let epoch = epoch_at(&host.log, records - 1);
        host.replica.handle_appended(end_of(records), epoch);
        if let Some(list) = record.list {
            host.replica.handle_list(end_of(records - 1), nodes_of(list));
        }
    }

    fn copy(&mut self, at: usize) {
        let (leader, _) = self.hosts[at].open.expect("it streams");
        let record = self.hosts[leader].log[self.hosts[at].log.len()];
        self.host_mut(at).replica.handle_data(NOW);
        self.append(at, record);
    }

    fn change_members(&mut self, leader: usize, subject: u8) {
        self.ghost.changes_left -= 1;
        let replica = &self.hosts[leader].replica;
        let members = replica.plan_change(NOW, self.change(leader, subject)).expect("it was possible just now");
        let term = replica.term();
        self.append(leader, Record { term, list: Some(mask_of(&members)) });
    }

    fn break_link(&mut self, at: usize, bounds: &Bounds) -> Result<(), Violation> {
        self.ghost.breaks_left -= 1;
        let Some((leader, _)) = self.hosts[at].open else { return Ok(()) };
        self.close_link(at);
        self.run(at, bounds, |replica, effects| replica.handle_link_down(NOW, node(leader), effects))?;
        self.run(leader, bounds, |replica, effects| replica.handle_link_down(NOW, node(at), effects))
    }

    fn crash(&mut self, at: usize, kept: usize, saved: bool, bounds: &Bounds) -> Result<(), Violation> {
        self.ghost.crashes_left -= 1;
        self.close_link(at);
        let host = self.host_mut(at);
        if let (true, Some(&(_, term, voted_for))) = (saved, host.saves.last()) {
            host.durable = (term, voted_for);
        }
        host.saves.clear();
        host.log.truncate(kept);
        host.flushed = kept;
        host.lives += 1;
        host.hinted = Term::ZERO;
        host.replica = Replica::new(options(at, host.lives, bounds), host.restored(bounds), NOW);
        // Connections died with the process; what asks for a vote makes one of its own.
        self.letters.retain(|letter| letter.to != at || matches!(letter.content, Content::Vote(_)));
        for other in (0..NODES).filter(|&other| other != at) {
            if self.hosts[other].open.is_some_and(|(leader, _)| leader == at) {
                self.close_link(other);
            }
            self.run(other, bounds, |replica, effects| replica.handle_link_down(NOW, node(at), effects))?;
        }
        Ok(())
    }

    // --- what a replica wants ---

    pub(super) fn run(
        &mut self,
        at: usize,
        bounds: &Bounds,
        run: impl FnOnce(&mut Replica, &mut Vec<Effect>),
    ) -> Result<(), Violation> {
        let mut effects = Vec::new();
        run(&mut self.host_mut(at).replica, &mut effects);
        self.carry_out_all(at, effects, bounds)
    }

    fn carry_out_all(&mut self, at: usize, effects: Vec<Effect>, bounds: &Bounds) -> Result<(), Violation> {
        effects.into_iter().try_for_each(|effect| {
            self.check_speech(at, &effect)?;
            self.carry_out(at, effect, bounds)
        })
    }

    fn carry_out(&mut self, at: usize, effect: Effect, bounds: &Bounds) -> Result<(), Violation> {
        match effect {
            Effect::SaveState { sequence, term, voted_for } => {
                self.host_mut(at).saves.push((sequence, term, voted_for));
                return if bounds.slow_saves { Ok(()) } else { self.save(at, bounds) };
            }
            Effect::Send { to, message } => self.send(at, index_of(to), message),
            Effect::RequestVote { to, pre: false, request } => {
                self.post(Letter { from: at, to: index_of(to), link: 0, content: Content::Vote(request) });
            }
            Effect::AnswerVote { token, response } => {
                let (asked, to) = (Term((token / 10) as u32), (token % 10) as usize);
                self.post(Letter { from: at, to, link: 0, content: Content::Answer { asked, response } });
            }
            Effect::Follow { leader } => return self.follow(at, leader, bounds),
            Effect::Unfollow => self.close_link(at),
            Effect::Truncate { to } => return self.truncate(at, to, bounds),
            Effect::OpenData { .. } => self.host_mut(at).has_data = true,
            Effect::Lead { term } => return self.lead(at, term),
            Effect::Commit { position } => return self.commit(at, position),
            Effect::Fatal { reason } => return violated("Fatal", reason),
            // That a successor is asked only makes it stand sooner, and anyone may stand at any time here.
            _ => {}
        }
        Ok(())
    }

    fn follow(&mut self, at: usize, leader: NodeId, bounds: &Bounds) -> Result<(), Violation> {
        self.close_link(at);
        let mut effects = Vec::new();
        let host = self.host_mut(at);
        host.replica.handle_link_up(NOW, leader, &mut effects);
        if let State::Following(following) = &host.replica.state
            && let Link::Subscribing(name) = following.link
        {
            host.names.push(name);
            host.open = Some((index_of(leader), host.names.len() as u8));
        }
        self.carry_out_all(at, effects, bounds)
    }

    /// What the leader sent to `at` on its link is lost. What `at` sent may still arrive.
    fn close_link(&mut self, at: usize) {
        let host = self.host_mut(at);
        host.has_data = false;
        if let Some((leader, link)) = host.open.take() {
            self.letters.retain(|letter| (letter.from, letter.to, letter.link) != (leader, at, link));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let name = match &message {
            Message::Subscribe { .. } | Message::Acknowledge { .. } | Message::HeartbeatAnswer { .. } => {
                let link = self.hosts[from].open.filter(|(leader, _)| *leader == to).map(|(_, link)| link);
                if let Some(link) = link {
                    self.post(Letter { from, to, link, content: Content::Message(message) });
                }
                return;
            }
            Message::Subscribed { subscription, .. } => Some(*subscription),
            Message::Heartbeat { .. } => {
                let mut followers = self.hosts[from].replica.followers();
                followers.find(|(follower, _)| *follower == node(to)).map(|(_, tracked)| tracked.subscription)
            }
            Message::Refused { .. } => None,
        };
        let named = name.and_then(|name| self.hosts[to].names.iter().position(|known| *known == name));
        let link = named.map_or(self.answering, |at| at as u8 + 1);
        // Else the follower has closed it.
        if self.hosts[to].open == Some((from, link)) {
            self.post(Letter { from, to, link, content: Content::Message(message) });
        }
    }

    fn post(&mut self, letter: Letter) {
        if letter.link > 0 || !self.letters.iter().any(|known| **known == letter) {
            self.letters.push(Rc::new(letter));
        }
    }
}
