//! What travels over HTTP between the nodes: votes, hand-overs, founding, and gossip's hints about the leader.

use crate::consensus::{TransferRequest, VoteRequest, VoteResponse};
use crate::engine::{ControlInput, ControlOutput};
use crate::types::{NodeId, Term};

use super::agenda::{MILLISECOND, SECOND};
use super::node::Input;
use super::profile::Fault;
use super::world::{Event, World};

/// One way of a request; `life` is that of the node that asked.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Vote { from: usize, life: u32, pre: bool, request: VoteRequest },
    VoteAnswer { life: u32, from: NodeId, pre: bool, term: Term, response: VoteResponse },
    Transfer { request: TransferRequest },
    Hint { leader: NodeId, term: Term },
}

/// A vote that a node was asked for and has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedVote {
    from: usize,
    life: u32,
    pre: bool,
    term: Term,
}

impl World {
    fn call(&mut self, from: usize, to: usize, call: Call) {
        let lossy = self.profile.has(Fault::LossyCalls);
        let lost = lossy && self.random.network.u8(0..10) < 3;
        let delay = self.network_delay();
        if !lost && !self.network.cut[from][to] {
            self.agenda.plan(self.now + delay, Event::Call { to, call });
        }
    }

    pub(super) fn call_arrived(&mut self, to: usize, call: Call) {
        if !self.nodes[to].is_up() {
            return;
        }
        let token = self.id();
        let input = match call {
            Call::Vote { from, life, pre, request } => {
                self.nodes[to].asked_votes.insert(token, AskedVote { from, life, pre, term: request.term });
                ControlInput::Vote { token, pre, request }
            }
            Call::VoteAnswer { life, from, pre, term, response } if self.nodes[to].life == life => {
                ControlInput::VoteAnswered { from, pre, term, response: Some(response) }
            }
            Call::VoteAnswer { .. } => return,
            Call::Transfer { request } => ControlInput::Transfer { token, request },
            Call::Hint { leader, term } => ControlInput::LeaderSeen { leader, term },
        };
        self.input(to, Input::Control(input));
    }

    /// Carries out what an engine tells its control thread.
    pub(super) fn control(&mut self, node: usize, output: ControlOutput) {
        let life = self.nodes[node].life;
        match output {
            ControlOutput::SendVote { to, pre, request } => {
                let to = self.index_of(to);
                self.count(if pre { "pre-votes" } else { "votes" });
                self.call(node, to, Call::Vote { from: node, life, pre, request });
            }
            ControlOutput::VoteAnswer { token, response } => {
                let Some(asked) = self.nodes[node].asked_votes.remove(&token) else { return };
                let AskedVote { from, life, pre, term } = asked;
                self.call(node, from, Call::VoteAnswer { life, from: self.nodes[node].id, pre, term, response });
            }
            ControlOutput::SendTransfer { to, request } => {
                let to = self.index_of(to);
                self.call(node, to, Call::Transfer { request });
            }
            ControlOutput::Answer { token, result } => {
                if result.is_ok() && self.nodes[node].founding == Some(token) {
                    self.nodes[node].accepted = true;
                }
            }
            ControlOutput::ViewChanged => self.hint(node),
            ControlOutput::MembersChanged(_) => {}
        }
    }

    /// Each second, and on news: whom the node takes for the leader. With stale hints it may be an old story.
    pub(super) fn gossip(&mut self, node: usize) {
        self.hint(node);
        self.plan_in((SECOND * 9 / 10, SECOND * 11 / 10), Event::Gossip { node });
    }

    fn hint(&mut self, node: usize) {
        let Some(engine) = &self.nodes[node].engine else { return };
        let view = engine.view();
        let mut hint = view.leader.map(|leader| (leader, view.term));
        if hint.is_some() {
            let old = std::mem::replace(&mut self.nodes[node].last_hint, hint);
            if old != hint {
                self.nodes[node].stale_hint = old;
            }
        }
        if self.profile.has(Fault::StaleHints) && self.random.network.bool() {
            hint = self.nodes[node].stale_hint;
        }
        let Some((leader, term)) = hint else { return };
        for to in (0..self.nodes.len()).filter(|&to| to != node) {
            self.call(node, to, Call::Hint { leader, term });
        }
    }

    /// Founds the cluster as gossip would: when all members have accepted the list, everyone hears that it exists.
    pub(super) fn found(&mut self) {
        let members = self.profile.members;
        let all_accepted = self.nodes[..members].iter().all(|node| node.accepted);
        let mut missing = false;
        for node in 0..self.nodes.len() {
            let known = self.nodes[node].engine.as_ref().is_some_and(|engine| engine.cluster().is_some());
            if known || !self.nodes[node].is_up() {
                missing |= !known;
                continue;
            }
            missing = true;
            let list = self.list.clone();
            let input = match all_accepted {
                true if node >= members => ControlInput::JoinAsClone { list },
                true => ControlInput::Founded { list },
                false if node >= members => continue,
                false => {
                    let token = self.id();
                    self.nodes[node].founding = Some(token);
                    ControlInput::AcceptFounding { token, list }
                }
            };
            self.input(node, Input::Control(input));
        }
        // A crash may take back what was not durable yet, so it never stops looking.
        let pause = if missing { 20 * MILLISECOND } else { SECOND / 2 };
        self.plan_in((pause, 2 * pause), Event::Found);
    }
}
