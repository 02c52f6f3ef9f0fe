//! What travels over HTTP between the nodes: votes, hand-overs, founding, and gossip's hints about the leader.

use crate::consensus::{TransferRequest, VoteRequest, VoteResponse};
use crate::engine::{ControlInput, ControlOutput};
use crate::types::{NodeId, Term};

use super::agenda::{MILLISECOND, Moment, SECOND};
use super::kinds::Fault;
use super::node::Input;
use super::world::{Event, World};

/// How long a node waits for the answer to a request.
const CALL_PATIENCE: Moment = SECOND / 2;

/// One way of a request; `life` is that of the node that asked.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Vote {
        from: usize,
        life: u32,
        pre: bool,
        request: VoteRequest,
    },
    VoteAnswer {
        life: u32,
        from: NodeId,
        pre: bool,
        term: Term,
        response: VoteResponse,
    },
    Transfer {
        from: usize,
        life: u32,
        request: TransferRequest,
    },
    TransferAnswer {
        life: u32,
        from: NodeId,
        term: Term,
        is_willing: bool,
    },
    /// The time is over in which the request with this number had to be answered.
    TransferTimeout {
        life: u32,
        number: u64,
        to: NodeId,
        term: Term,
    },
    Hint {
        leader: NodeId,
        term: Term,
    },
}

/// A vote that a node was asked for and has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedVote {
    from: usize,
    life: u32,
    pre: bool,
    request: VoteRequest,
}

/// A hand-over that a node was asked to take and has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct AskedTransfer {
    from: usize,
    life: u32,
    term: Term,
}

impl World {
    fn call(&mut self, from: usize, to: usize, call: Call) {
        let lossy = self.profile.has(Fault::LossyCalls);
        let lost = lossy && self.random.network.u8(0..10) < 3;
        let delay = self.network_delay();
        if lost || self.network.cut[from][to] {
            return;
        }
        if self.profile.has(Fault::Duplicates) && self.random.network.u8(0..8) == 0 {
            let later = delay + self.random.network.u64(0..=2 * SECOND);
            self.agenda.plan(self.now + later, Event::Call { to, call: call.clone() });
        }
        self.agenda.plan(self.now + delay, Event::Call { to, call });
    }

    pub(super) fn call_arrived(&mut self, to: usize, call: Call) {
        if !self.nodes[to].is_up() {
            return;
        }
        let token = self.id();
        let input = match call {
            Call::Vote { from, life, pre, request } => {
                self.nodes[to].asked_votes.insert(token, AskedVote { from, life, pre, request });
                ControlInput::Vote { token, pre, request }
            }
            Call::VoteAnswer { life, from, pre, term, response } if self.nodes[to].life == life => {
                ControlInput::VoteAnswered { from, pre, term, response: Some(response) }
            }
            Call::VoteAnswer { .. } => return,
            Call::Transfer { from, life, request } => {
                let asked = AskedTransfer { from, life, term: request.term };
                self.nodes[to].asked_transfers.insert(token, asked);
                ControlInput::Transfer { token, request }
            }
            Call::TransferAnswer { life, from, term, is_willing } => {
                if self.nodes[to].life != life {
                    return;
                }
                self.nodes[to].transfer_number = None;
                if is_willing {
                    return;
                }
                self.count("hand-overs refused");
                ControlInput::TransferDeclined { from, term, is_refusal: true, reason: "it says no".to_owned() }
            }
            Call::TransferTimeout { life, number, to: from, term } => {
                if self.nodes[to].life != life || self.nodes[to].transfer_number.take_if(|n| *n == number).is_none() {
                    return;
                }
                self.count("hand-overs without an answer");
                ControlInput::TransferDeclined { from, term, is_refusal: false, reason: "no answer".to_owned() }
            }
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
                if request.transfer {
                    self.count("votes for a hand-over");
                }
                self.call(node, to, Call::Vote { from: node, life, pre, request });
            }
            ControlOutput::VoteAnswer { token, response } => {
                let Some(asked) = self.nodes[node].asked_votes.remove(&token) else { return };
                let AskedVote { from, life, pre, request } = asked;
                self.note_vote(node, &request, &response);
                let term = request.term;
                self.call(node, from, Call::VoteAnswer { life, from: self.nodes[node].id, pre, term, response });
            }
            ControlOutput::SendTransfer { to, request } => {
                let (number, term, target) = (self.id(), request.term, self.index_of(to));
                self.nodes[node].transfer_number = Some(number);
                self.call(node, target, Call::Transfer { from: node, life, request });
                let timeout = Call::TransferTimeout { life, number, to, term };
                self.agenda.plan(self.now + CALL_PATIENCE, Event::Call { to: node, call: timeout });
            }
            ControlOutput::Answer { token, result } => {
                self.members_answered(node, token, result.is_ok());
                if let Some(AskedTransfer { from, life, term }) = self.nodes[node].asked_transfers.remove(&token) {
                    let (id, is_willing) = (self.nodes[node].id, result.is_ok());
                    self.call(node, from, Call::TransferAnswer { life, from: id, term, is_willing });
                }
                if result.is_ok() && self.nodes[node].founding == Some(token) {
                    self.nodes[node].accepted = true;
                }
            }
            ControlOutput::ViewChanged => self.hint(node),
            ControlOutput::MembersChanged(_) => {}
        }
    }

    /// Why a vote was given or not, as far as that can be told from outside.
    fn note_vote(&mut self, node: usize, request: &VoteRequest, response: &VoteResponse) {
        let Some(replica) = self.nodes[node].engine.as_ref().and_then(|engine| engine.replica()) else { return };
        let is_newer = (replica.epochs().last_term(), replica.log_end().0) > (request.last_term, request.log_end);
        let what = match response {
            VoteResponse { granted: true, .. } => "granted",
            VoteResponse { leader: Some(_), .. } => "refused: hears a leader",
            _ if response.term > request.term => "refused: old term",
            _ if is_newer => "refused: log is newer",
            _ if response.term == request.term => "refused: has voted",
            _ => "refused: otherwise",
        };
        self.count(what);
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
        self.founded |= self.nodes[..members].iter().all(|node| node.accepted);
        let all_accepted = self.founded;
        let mut missing = false;
        for node in 0..self.nodes.len() {
            let known = self.nodes[node].engine.as_ref().is_some_and(|engine| engine.cluster().is_some());
            if known || !self.nodes[node].is_up() {
                missing |= !known;
                continue;
            }
            missing = true;
            let list = self.reference.members().unwrap_or(&self.list).clone();
            let is_listed = list.members.iter().any(|member| member.node == self.nodes[node].id);
            let input = match all_accepted {
                true if !is_listed => ControlInput::JoinAsClone { list },
                true => ControlInput::Founded { list },
                false if !is_listed => continue,
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
