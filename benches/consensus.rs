//! What does the core's step cost a leader of three: a batch appended, acknowledged by both followers, flushed here,
//! committed?

use std::hint::black_box;
use std::time::Duration;

use ringstore::consensus::{Effect, EpochTable, Message, Replica, ReplicaOptions, Restored, VoteResponse};
use ringstore::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Ticks};

mod support;

use support::Bench;

/// Bytes of a batch; any number will do.
const BATCH_BYTES: u64 = 4096;

const MEMBERS: [NodeId; 3] = [NodeId(Guid([1; 16])), NodeId(Guid([2; 16])), NodeId(Guid([3; 16]))];

const SUBSCRIPTION: Guid = Guid([9; 16]);

/// A replica that was elected by both others, with its epoch record in the log.
fn leader() -> Replica {
    let options = ReplicaOptions {
        node: MEMBERS[0],
        cluster: ClusterId(Guid([4; 16])),
        members: MEMBERS.to_vec(),
        election_timeout: Duration::from_millis(700),
        heartbeat_interval: Duration::from_millis(100),
        priority: 0,
        seed: 1,
        is_jittered: true,
    };
    let mut replica =
        Replica::new(options, Restored { epochs: EpochTable::default(), ..Restored::default() }, Ticks(0));
    // Late enough for any patience to be over.
    let now = Ticks(10_000_000_000);
    let mut effects = Vec::new();
    replica.handle_tick(now, &mut effects);
    while !replica.is_leader() {
        let asked = std::mem::take(&mut effects);
        assert!(!asked.is_empty(), "the election goes on");
        for effect in asked {
            match effect {
                Effect::SaveState { sequence, .. } => replica.handle_saved(now, sequence, &mut effects),
                Effect::RequestVote { to, pre, request } => {
                    let response =
                        VoteResponse { voter: to, term: request.term, granted: true, leader: None, is_suspect: false };
                    replica.handle_vote_answer(now, pre, request.term, response, &mut effects);
                }
                _ => {}
            }
        }
    }
    let epoch = Epoch { term: replica.term(), position: LogPosition::ZERO, id: Guid([5; 16]) };
    replica.handle_appended(LogPosition(BATCH_BYTES), Some(epoch));
    for follower in &MEMBERS[1..] {
        let subscribe = Message::Subscribe {
            term: replica.term(),
            subscription: SUBSCRIPTION,
            epochs: Vec::new(),
            log_end: LogPosition::ZERO,
            commit_position: LogPosition::ZERO,
            priority: 0,
        };
        replica.handle_message(now, *follower, subscribe, &mut effects);
    }
    replica
}

fn main() {
    let bench = Bench::from_arguments();
    let mut replica = leader();
    let now = Ticks(10_000_000_001);
    let (term, mut end, mut effects) = (replica.term(), replica.log_end(), Vec::new());
    bench.run("consensus: a batch from append to commit", 1, 0, || {
        end = end.plus(BATCH_BYTES);
        replica.handle_appended(end, None);
        for follower in &MEMBERS[1..] {
            let message = Message::Acknowledge { term, subscription: SUBSCRIPTION, position: end };
            replica.handle_message(now, *follower, black_box(message), &mut effects);
        }
        replica.handle_flushed(end, &mut effects);
        black_box(&mut effects).clear();
    });
    assert_eq!(replica.commit_position(), end, "every batch is committed");
}
