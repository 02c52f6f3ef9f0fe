//! A replica among peers that say anything at all.

use std::time::Duration;

use ringstore::consensus::{
    Effect, Message, Replica, ReplicaOptions, Restored, TransferRequest, VoteRequest, VoteResponse,
};
use ringstore::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term, Ticks};

use super::tools::Input;

const RECORD_BYTES: u64 = 64;

/// A replica with the little world that carries its effects out.
struct World {
    replica: Replica,
    now: Ticks,
    /// Newest save that was asked for.
    saved: u64,
    saves: bool,
    subscription: Guid,
}

/// The input is what happens, one thing after the other.
pub(super) fn replica(input: &[u8]) {
    let mut input = Input(input);
    let mut world = World::new(input.byte());
    for _ in 0..512 {
        if input.is_empty() {
            return;
        }
        let (term, commit) = (world.replica.term(), world.replica.commit_position());
        if !world.happen(&mut input) {
            return;
        }
        let replica = &world.replica;
        assert!(replica.term() >= term && replica.commit_position() >= commit, "neither goes back");
        assert!(replica.flushed() <= replica.log_end() && replica.commit_position() <= replica.log_end());
    }
}

fn node(n: u8) -> NodeId {
    NodeId(Guid([n % 5 + 1; 16]))
}

impl World {
    fn new(choice: u8) -> World {
        let options = ReplicaOptions {
            node: node(0),
            cluster: ClusterId(Guid([9; 16])),
            members: (0..3).map(node).collect(),
            election_timeout: Duration::from_millis(700),
            heartbeat_interval: Duration::from_millis(100),
            priority: 0,
            seed: 1,
            is_jittered: choice & 1 == 0,
        };
        let replica = Replica::new(options, Restored::default(), Ticks(0));
        World { replica, now: Ticks(0), saved: 0, saves: choice & 2 == 0, subscription: Guid::ZERO }
    }

    /// False: the replica wants to stop.
    fn happen(&mut self, input: &mut Input<'_>) -> bool {
        let (now, peer) = (self.now, node(input.byte()));
        let mut effects = Vec::new();
        let replica = &mut self.replica;
        match input.byte() % 16 {
            0 => self.now = now.after(Duration::from_millis(u64::from(input.byte()) * 4)),
            1 => replica.handle_tick(now, &mut effects),
            2 => replica.handle_link_up(now, peer, &mut effects),
            3 => replica.handle_link_down(now, peer, &mut effects),
            4 => replica.handle_leader_seen(now, peer, term(input), &mut effects),
            5 => replica.handle_vote_request(now, 1, input.byte() & 1 == 0, vote(input, peer), &mut effects),
            6 => {
                let (pre, asked, granted) = (input.byte() & 1 == 0, term(input), input.byte() & 1 == 0);
                let leader = (input.byte() & 1 == 0).then_some(node(input.byte()));
                let response = VoteResponse { voter: peer, term: term(input), granted, leader, is_suspect: false };
                replica.handle_vote_answer(now, pre, asked, response, &mut effects);
            }
            7 => {
                let request = TransferRequest { cluster: replica.options().cluster, leader: peer, term: term(input) };
                let _ = replica.handle_transfer(now, request, &mut effects);
            }
            8 => self.append(input.byte() & 1 == 0, term(input)),
            9 => {
                let flushed = replica.log_end();
                replica.handle_flushed(flushed, &mut effects);
            }
            10 => {
                let _ = replica.confirm(&mut effects);
            }
            11 => {
                let _ = replica.resign(now, None, &mut effects);
            }
            12 => replica.handle_saved(now, self.saved, &mut effects),
            _ => {
                let message = message(input, self.subscription);
                replica.handle_message(now, peer, message, &mut effects);
            }
        }
        self.carry_out(effects)
    }

    /// The log grows: by the leader's own records, or by those that a leader sends.
    fn append(&mut self, begins_term: bool, term: Term) {
        let replica = &mut self.replica;
        let end = replica.log_end();
        let last = replica.epochs().last_term();
        let leads = replica.own_epoch().is_some();
        if !leads && !replica.is_streaming() {
            return;
        }
        let newer = begins_term && !leads && term > last && term <= replica.term();
        if last == Term::ZERO && !newer {
            return;
        }
        let epoch = newer.then_some(Epoch { term, position: end, id: Guid([3; 16]) });
        replica.handle_appended(end.plus(RECORD_BYTES), epoch);
    }

    fn carry_out(&mut self, mut effects: Vec<Effect>) -> bool {
        let mut done = 0;
        while done < effects.len() {
            match effects[done].clone() {
                Effect::SaveState { sequence, .. } => {
                    self.saved = sequence;
                    if self.saves {
                        self.replica.handle_saved(self.now, sequence, &mut effects);
                    }
                }
                Effect::Send { message: Message::Subscribe { subscription, .. }, .. } => {
                    self.subscription = subscription;
                }
                Effect::Truncate { to } => {
                    assert!(to >= self.replica.commit_position(), "what is committed is not cut");
                    self.replica.handle_truncated(&mut effects);
                }
                Effect::Lead { term } => {
                    let (position, id) = (self.replica.log_end(), Guid([4; 16]));
                    self.replica.handle_appended(position.plus(RECORD_BYTES), Some(Epoch { term, position, id }));
                }
                Effect::Fatal { .. } => return false,
                _ => {}
            }
            done += 1;
            assert!(done < 10_000, "effects without end");
        }
        true
    }
}

/// Terms and positions are small, but for one now and then.
fn term(input: &mut Input<'_>) -> Term {
    match input.byte() {
        0xFF => Term(input.u32()),
        small => Term(u32::from(small % 16)),
    }
}

fn position(input: &mut Input<'_>) -> LogPosition {
    match input.byte() {
        0xFF => LogPosition(input.u64()),
        small => LogPosition(u64::from(small % 32) * RECORD_BYTES),
    }
}

fn vote(input: &mut Input<'_>, candidate: NodeId) -> VoteRequest {
    let cluster = ClusterId(Guid([if input.byte() == 0xFF { 8 } else { 9 }; 16]));
    let (term, last_term, log_end) = (term(input), term(input), position(input).0);
    VoteRequest { cluster, candidate, term, last_term, log_end, transfer: input.byte() & 1 == 1, is_suspect: false }
}

fn message(input: &mut Input<'_>, known: Guid) -> Message {
    let subscription = if input.byte() == 0xFF { Guid([6; 16]) } else { known };
    let (kind, term) = (input.byte(), term(input));
    match kind % 6 {
        0 => {
            let count = usize::from(input.byte() % 5);
            let epoch = |_| Epoch { term: self::term(input), position: position(input), id: Guid([3; 16]) };
            let epochs = (0..count).map(epoch).collect();
            let (log_end, commit_position) = (position(input), position(input));
            Message::Subscribe { term, subscription, epochs, log_end, commit_position, priority: 0 }
        }
        1 => Message::Subscribed { term, subscription, start: position(input) },
        2 => Message::Refused { term, reason: "no".to_owned() },
        3 => Message::Acknowledge { term, subscription, position: position(input) },
        4 => Message::Heartbeat { term, round: u64::from(input.byte()), commit_position: position(input) },
        _ => {
            let (round, full) = (input.byte(), input.byte());
            let full_from = (full & 1 == 1).then(|| position(input));
            let is_ready = full & 2 == 0;
            Message::HeartbeatAnswer { term, round: u64::from(round), flush_micros: 9, full_from, is_ready }
        }
    }
}

pub(super) fn replica_seeds() -> Vec<Vec<u8>> {
    // A wait, an election with one vote, the epoch flushed and acknowledged; and a follower's life.
    let leader = [
        &[0][..],
        &[0, 0, 255, 0, 1],
        &[1, 6, 0, 1, 0, 1, 0, 0],
        &[1, 6, 1, 1, 0, 1, 0, 1],
        &[0, 9],
        &[1, 13, 0, 0, 1, 0, 0, 0],
        &[1, 13, 0, 3, 1, 1],
        &[0, 10, 0, 11],
    ];
    let follower = [
        &[0][..],
        &[1, 4, 2],
        &[1, 2],
        &[1, 13, 0, 1, 2, 0],
        &[1, 8, 0, 2],
        &[0, 9],
        &[1, 13, 0, 4, 2, 1, 1],
        &[1, 3],
        &[2, 5, 1, 0, 3, 2, 1, 0],
    ];
    vec![leader.concat(), follower.concat()]
}
