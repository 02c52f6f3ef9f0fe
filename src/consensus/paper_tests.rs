//! A test for each claim of the algorithm: Ongaro, "Consensus: Bridging Theory and Practice" (2014), by section.

use crate::types::{ClusterId, Guid, LogPosition, Term, Ticks};

use super::effects::Effect;
use super::harness::{RECORD_BYTES, Table, node};
use super::message::{Message, VoteRequest};

fn request(candidate: usize, term: u32, last_term: u32, records: u64) -> VoteRequest {
    VoteRequest {
        cluster: ClusterId(Guid([9; 16])),
        candidate: node(candidate),
        term: Term(term),
        last_term: Term(last_term),
        log_end: records * RECORD_BYTES,
        transfer: false,
        is_suspect: false,
    }
}

/// Asks `at` for a vote and returns what it answers, if it answers at once.
fn ask(table: &mut Table, at: usize, pre: bool, request: VoteRequest) -> Option<bool> {
    let mut effects = Vec::new();
    let now = table.now;
    let replica = table.hosts[at].replica.as_mut().unwrap();
    replica.handle_vote_request(now, 1, pre, request, &mut effects);
    effects.iter().find_map(|effect| match effect {
        Effect::AnswerVote { response, .. } => Some(response.granted),
        _ => None,
    })
}

fn ask_and_save(table: &mut Table, at: usize, request: VoteRequest) -> bool {
    let mut effects = Vec::new();
    let now = table.now;
    let replica = table.hosts[at].replica.as_mut().unwrap();
    replica.handle_vote_request(now, 1, false, request, &mut effects);
    let saves: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::SaveState { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .collect();
    saves.into_iter().for_each(|sequence| replica.handle_saved(now, sequence, &mut effects));
    let answer = effects.iter().find_map(|effect| match effect {
        Effect::AnswerVote { response, .. } => Some(response.granted),
        _ => None,
    });
    answer.expect("an answer once the vote is saved")
}

/// Three nodes, the first leads and has committed its epoch.
fn led() -> Table {
    let mut table = Table::new(3, 0);
    table.time_out(0);
    table.announce(0);
    table
}

/// 3.4: "each server will vote for at most one candidate in a given term, on a first-come-first-served basis".
#[test]
fn one_vote_in_a_term() {
    let mut table = Table::new(3, 0);
    assert!(ask_and_save(&mut table, 0, request(1, 5, 0, 0)));
    assert!(!ask_and_save(&mut table, 0, request(2, 5, 0, 0)), "another candidate of the same term");
    assert!(ask_and_save(&mut table, 0, request(1, 5, 0, 0)), "the same candidate again");
    assert!(!ask_and_save(&mut table, 0, request(2, 4, 0, 0)), "an older term");
    assert!(ask_and_save(&mut table, 0, request(2, 6, 0, 0)), "a newer term");
}

/// 3.8: term and vote are on disk before the answer leaves.
#[test]
fn a_vote_is_durable_before_it_is_answered() {
    let mut table = Table::new(3, 0);
    assert_eq!(ask(&mut table, 0, false, request(1, 1, 0, 0)), None, "no answer in the effects before the save");
}

/// 3.8, for the candidate's own vote: it does not lead before its vote is durable, even with all other votes.
#[test]
fn a_candidate_leads_only_with_its_own_vote_durable() {
    let mut table = Table::new(3, 0);
    table.hosts[0].auto_save = false;
    table.time_out(0);
    assert!(!table.replica(0).is_leader());
    table.save(0);
    table.deliver();
    assert!(table.replica(0).is_leader());
}

/// 3.6.1: the voter denies its vote if its own log is more up-to-date: later last term first, then longer.
#[test]
fn only_an_up_to_date_log_wins_votes() {
    let mut table = led();
    table.append(0);
    table.deliver();
    table.crash(0);
    let mut check = |last_term: u32, records: u64, expected: bool| {
        let term = table.replica(1).term().0 + 1;
        assert_eq!(
            ask_and_save(&mut table, 1, request(2, term, last_term, records)),
            expected,
            "{last_term} {records}"
        );
    };
    check(1, 1, false);
    check(0, 9, false);
    check(1, 2, true);
    check(1, 3, true);
    check(2, 1, true);
}

/// 3.6.2, figure 3.7: a record of an old term is not committed by counting replicas, only with one of the own term.
#[test]
fn an_old_term_is_committed_only_under_the_own_one() {
    let mut table = led();
    table.cut(0, 1);
    table.cut(0, 2);
    table.append(0);
    table.crash(0);
    table.cut.clear();
    table.restart(0);
    // Node 0 leads again, but cannot flush the epoch of its new term; its old record reaches a majority.
    table.hosts[0].auto_flush = false;
    table.time_out(0);
    assert!(table.replica(0).is_leader());
    table.hosts[1].auto_flush = false;
    table.hosts[2].auto_flush = false;
    table.announce(0);
    assert_eq!(table.hosts[1].log.len(), 3, "epoch 1, the old record, the new epoch");
    // Only up to the old record is durable at node 1.
    table.run(1, |replica, _, effects| replica.handle_flushed(LogPosition(2 * RECORD_BYTES), effects));
    table.deliver();
    let old = LogPosition(2 * RECORD_BYTES);
    assert!(table.replica(0).commit_position() < old, "the old record is on a majority, yet not committed");
    table.flush(0);
    table.flush(1);
    table.deliver();
    assert_eq!(table.replica(0).commit_position(), LogPosition(3 * RECORD_BYTES), "the own epoch commits both");
}

/// 3.5 and 10.2.1: what is not flushed counts for nothing, the leader's own disk included.
#[test]
fn only_flushed_records_commit() {
    let mut table = led();
    (0..3).for_each(|at| table.hosts[at].auto_flush = false);
    table.append(0);
    table.deliver();
    let (before, after) = (LogPosition(RECORD_BYTES), LogPosition(2 * RECORD_BYTES));
    assert_eq!(table.replica(0).commit_position(), before);
    table.flush(1);
    table.deliver();
    assert_eq!(table.replica(0).commit_position(), before, "one of three");
    table.flush(2);
    table.deliver();
    assert_eq!(table.replica(0).commit_position(), after, "two of three, without the leader's own");
}

/// 9.6: a pre-vote changes nothing, neither at the voter nor in the asker's term.
#[test]
fn a_pre_vote_changes_no_term() {
    let mut table = Table::new(3, 0);
    assert_eq!(ask(&mut table, 0, true, request(1, 7, 0, 0)), Some(true));
    assert_eq!(table.replica(0).term(), Term(0));
    table.crash(1);
    table.crash(2);
    table.advance(5000);
    assert_eq!(table.replica(0).term(), Term(0), "alone it never gets beyond asking");
}

/// 4.2.3: a server that hears from a leader within the minimum election timeout helps nobody to depose it.
#[test]
fn who_hears_a_leader_denies_its_vote() {
    let mut table = led();
    table.advance(1);
    assert!(!ask_and_save_none(&mut table, 1, true));
    assert!(!ask_and_save_none(&mut table, 1, false));
    assert_eq!(table.replica(1).term(), Term(1), "nor does the request raise its term");
}

fn ask_and_save_none(table: &mut Table, at: usize, pre: bool) -> bool {
    ask(table, at, pre, request(2, 9, 9, 9)).expect("refused at once")
}

/// 6.2: a leader that hears no majority for an election timeout steps down.
#[test]
fn a_leader_without_quorum_steps_down() {
    let mut table = led();
    table.cut(0, 1);
    table.advance(1500);
    assert!(table.replica(0).is_leader(), "one follower is quorum enough");
    table.cut(0, 2);
    table.advance(900);
    assert!(!table.replica(0).is_leader());
}

/// 6.4: a read is confirmed by a heartbeat round that a majority answered after it arrived.
#[test]
fn a_confirmation_needs_a_majority() {
    let mut table = led();
    table.advance(250);
    let round = table.run(0, |replica, _, effects| replica.confirm(effects)).flatten().unwrap();
    assert!(table.hosts[0].confirmed < round, "nobody has answered");
    table.deliver();
    assert!(table.hosts[0].confirmed >= round);
    table.cut(0, 1);
    table.cut(0, 2);
    let round = table.run(0, |replica, _, effects| replica.confirm(effects)).flatten().unwrap();
    table.deliver();
    assert!(table.hosts[0].confirmed < round, "nobody can answer");
}

/// 3.10: the leader hands over to an up-to-date follower without waiting for a time-out.
#[test]
fn leadership_is_transferred() {
    let mut table = led();
    table.append(0);
    table.deliver();
    table.advance(100);
    let target = table.run(0, |replica, now, effects| replica.resign(now, None, effects)).unwrap().unwrap();
    table.deliver();
    assert!(!table.replica(0).is_leader());
    assert!(table.replica(usize::from(target.0.0[0]) - 1).is_leader());
}

/// 3.6.3, state machine safety: a log that would be cut below what is committed stops the node instead.
#[test]
fn nothing_committed_is_ever_cut() {
    let mut table = led();
    table.append(0);
    table.deliver();
    table.advance(200);
    let committed = table.replica(1).commit_position();
    let mut effects = Vec::new();
    let replica = table.hosts[1].replica.as_mut().unwrap();
    replica.handle_link_down(Ticks(0), node(0), &mut effects);
    replica.handle_tick(replica.next_deadline(), &mut effects);
    replica.handle_leader_named(Ticks(0), node(0), &mut effects);
    effects.clear();
    replica.handle_link_up(Ticks(0), node(0), &mut effects);
    let Some(Effect::Send { message: super::Message::Subscribe { subscription, term, .. }, .. }) = effects.first()
    else {
        panic!("a subscription: {effects:?}")
    };
    let message = super::Message::Subscribed { term: *term, subscription: *subscription, start: LogPosition::ZERO };
    effects.clear();
    replica.handle_message(Ticks(0), node(0), message, &mut effects);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Fatal { .. })), "{effects:?}");
    assert_eq!(replica.commit_position(), committed);
    assert!(replica.log_end() >= committed);
}

/// 3.4: a leader that meets a higher term steps down, and a single node needs nobody.
#[test]
fn a_higher_term_deposes_and_one_node_leads_alone() {
    let mut table = led();
    table.run(0, |replica, now, effects| {
        let message = super::Message::HeartbeatAnswer {
            term: Term(4),
            round: 0,
            flush_micros: 0,
            full_from: None,
            is_ready: true,
        };
        replica.handle_message(now, node(1), message, effects);
    });
    assert!(!table.replica(0).is_leader());
    assert_eq!(table.replica(0).term(), Term(4));
    let mut alone = Table::new(1, 0);
    alone.advance(1);
    assert!(alone.replica(0).is_leader());
    alone.append(0);
    assert_eq!(alone.replica(0).commit_position(), LogPosition(2 * RECORD_BYTES));
}

/// 9.6 and gossip: a rumour of the leader that is gone does not end the attempt to replace it.
#[test]
fn a_rumour_does_not_end_a_pre_vote() {
    let mut table = led();
    table.crash(0);
    let deadline = table.replica(1).next_deadline();
    table.now = deadline;
    table.run(1, |replica, now, effects| replica.handle_tick(now, effects));
    table.run(1, |replica, now, effects| replica.handle_leader_seen(now, node(0), Term(1), effects));
    table.deliver();
    assert!(table.replica(1).is_leader());
}

/// A term that no election can have reached is not taken over: its successor may not exist.
#[test]
fn an_impossible_term_changes_nothing() {
    let mut table = led();
    let request = VoteRequest { transfer: true, ..request(2, u32::MAX, 9, 9) };
    assert_eq!(ask(&mut table, 1, false, request), Some(false));
    table.run(0, |replica, now, effects| {
        let message = super::Message::HeartbeatAnswer {
            term: Term(u32::MAX),
            round: 0,
            flush_micros: 0,
            full_from: None,
            is_ready: true,
        };
        replica.handle_message(now, node(1), message, effects);
    });
    assert!(table.replica(0).is_leader());
    assert_eq!(table.replica(1).term(), Term(1));
}

/// A follower that acknowledges what does not exist is sent away; the leader leads on.
#[test]
fn an_impossible_acknowledgement_ends_the_link() {
    let mut table = led();
    let (_, tracked) = table.replica(0).followers().next().unwrap();
    let (subscription, before) = (tracked.subscription, table.replica(0).commit_position());
    let mut effects = Vec::new();
    let replica = table.hosts[0].replica.as_mut().unwrap();
    let message = super::Message::Acknowledge { term: Term(1), subscription, position: LogPosition(1 << 40) };
    replica.handle_message(Ticks(0), node(1), message, &mut effects);
    assert!(effects.contains(&Effect::DropFollower { follower: node(1) }), "{effects:?}");
    assert_eq!(replica.commit_position(), before);
}

/// A clone has no election to try when its leader is silent: it connects anew.
#[test]
fn a_clone_of_a_silent_leader_connects_anew() {
    let mut table = Table::new(3, 1);
    table.time_out(0);
    table.announce(0);
    let deadline = table.replica(3).next_deadline();
    let mut effects = Vec::new();
    table.hosts[3].replica.as_mut().unwrap().handle_tick(deadline, &mut effects);
    assert!(
        effects.contains(&Effect::Unfollow) && effects.contains(&Effect::Follow { leader: node(0) }),
        "{effects:?}"
    );
}

/// Tokens of the votes answered, with what was said.
fn answers(effects: &[Effect]) -> Vec<(u64, bool, Term)> {
    let answer = |effect: &Effect| match effect {
        Effect::AnswerVote { token, response } => Some((*token, response.granted, response.term)),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

/// A save that hangs does not fill the memory: who waits for a vote is refused, and hears nothing of what is not durable.
#[test]
fn votes_that_wait_for_a_hanging_save_are_refused_when_they_are_too_many() {
    let mut table = Table::new(3, 0);
    let replica = table.hosts[1].replica.as_mut().unwrap();
    let mut effects = Vec::new();
    for token in 0..3000 {
        replica.handle_vote_request(Ticks(0), token, false, request(0, 7, 0, 0), &mut effects);
        assert!(replica.held_back.len() <= 1024, "{}", replica.held_back.len());
    }
    let refused: Vec<_> = (0..2048).map(|token| (token, false, Term::ZERO)).collect();
    assert_eq!(answers(&effects), refused);
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::GiveUp { count: 1024 })).count(), 2);
    effects.clear();
    replica.handle_saved(Ticks(0), replica.save_asked, &mut effects);
    let granted: Vec<_> = (2048..3000).map(|token| (token, true, Term(7))).collect();
    assert_eq!(answers(&effects), granted);
}

/// The same for what a follower would say to its leader: the link is closed, and comes back when the save is done.
#[test]
fn a_follower_whose_save_hangs_gives_its_link_up() {
    let mut table = Table::new(3, 0);
    table.time_out(0);
    let replica = table.hosts[1].replica.as_mut().unwrap();
    let mut effects = Vec::new();
    replica.handle_leader_seen(Ticks(0), node(0), Term(9), &mut effects);
    replica.handle_link_up(Ticks(0), node(0), &mut effects);
    let super::following::Link::Subscribing(subscription) = (match &replica.state {
        super::replica::State::Following(following) => following.link.clone(),
        other => panic!("{other:?}"),
    }) else {
        panic!("it does not subscribe");
    };
    let (term, start) = (Term(9), LogPosition::ZERO);
    replica.handle_message(Ticks(0), node(0), super::Message::Subscribed { term, subscription, start }, &mut effects);
    replica.handle_truncated(&mut effects);
    assert!(replica.is_streaming());
    for round in 1..2000 {
        let message = super::Message::Heartbeat { term, round, commit_position: start };
        replica.handle_message(Ticks(0), node(0), message, &mut effects);
        assert!(replica.held_back.len() <= 1024, "{}", replica.held_back.len());
    }
    assert!(!replica.is_streaming());
    assert!(effects.contains(&Effect::Unfollow));
    let is_of_term = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if message.term() == term);
    assert!(!effects.iter().any(is_of_term), "nothing of the term is said");
}

/// Goal: who is asked to take over has the leader's epoch. What happened: a leader that was asked to resign before it had
/// written that asked a follower that had all of the log so far, and whoever got the epoch then would not vote for it.
#[test]
fn nobody_is_asked_to_take_over_without_the_leaders_epoch() {
    let mut table = led();
    let (now, replica) = (table.now, table.hosts[0].replica.as_mut().unwrap());
    let is_asked = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::RequestTransfer { .. }));
    let epochs = replica.epochs.clone();
    replica.epochs.truncate(LogPosition::ZERO);
    let mut effects = Vec::new();
    replica.resign(now, None, &mut effects).unwrap();
    assert!(replica.is_resigning() && !is_asked(&effects), "{effects:?}");
    replica.epochs = epochs;
    replica.drive_transfer(&mut effects);
    assert!(is_asked(&effects), "{effects:?}");
}

/// What a process knew of its index is over with it.
#[test]
fn a_new_subscription_says_anew_whether_the_index_is_complete() {
    let mut table = led();
    table.advance(300);
    let ready = |table: &Table| table.replica(0).followers().map(|(_, tracked)| tracked.is_ready).collect::<Vec<_>>();
    assert_eq!(ready(&table), [true, true]);
    let (now, replica) = (table.now, table.hosts[0].replica.as_mut().unwrap());
    let message = Message::Subscribe {
        term: replica.term(),
        subscription: Guid([77; 16]),
        epochs: replica.epochs().newest(),
        log_end: replica.log_end(),
        commit_position: LogPosition::ZERO,
        priority: 0,
    };
    replica.handle_message(now, node(1), message, &mut Vec::new());
    assert_eq!(ready(&table), [false, true]);
}
