//! Changing lists and doubtful votes: what each rule is for, by the harm that is done without it (the planted bugs), and
//! that it is not done with it. Ongaro's thesis, ch. 4; `election` for suspect nodes.

use crate::types::LogPosition;

use super::changing::Change;
use super::harness::{RECORD_BYTES, Table, node};
use super::replica::PlantedBug;

/// `members` with node 0 leading, and everyone following it.
fn led(members: usize, clones: usize, planted: Option<PlantedBug>) -> Table {
    let mut table = Table::new(members, clones);
    for host in &mut table.hosts {
        host.options.planted = planted;
        host.replica.as_mut().unwrap().options.planted = planted;
    }
    table.time_out(0);
    table.announce(0);
    table.advance(100);
    table
}

fn change(table: &mut Table, leader: usize, change: Change) -> bool {
    let begun = table.change(leader, change).is_ok();
    table.deliver();
    begun
}

fn stop(table: &mut Table, nodes: &[usize], stopped: bool) {
    nodes.iter().for_each(|&at| table.hosts[at].stopped = stopped);
}

fn records(count: u64) -> LogPosition {
    LogPosition(count * RECORD_BYTES)
}

/// 4.1: a server uses the last list in its log, committed or not.
#[test]
fn a_list_counts_from_its_append() {
    for (planted, committed) in [(None, 2), (Some(PlantedBug::ListCountedOnceCommitted), 1)] {
        let mut table = led(4, 0, planted);
        stop(&mut table, &[2, 3], true);
        assert!(change(&mut table, 0, Change::Remove(node(3))));
        assert_eq!(
            table.replica(0).commit_position(),
            records(committed),
            "two of three, but not of four: {planted:?}"
        );
    }
}

/// 4.1: two steps at once have majorities without a common node. Here three of the five that are to be commit, and then two of
/// the three that were elect one who knows nothing of it.
#[test]
fn the_next_change_waits_for_the_commit_of_the_one_before() {
    for planted in [None, Some(PlantedBug::ChangeBeforeCommitted)] {
        let mut table = led(3, 2, planted);
        stop(&mut table, &[1, 2], true);
        assert!(change(&mut table, 0, Change::Add(node(3))));
        assert_eq!(change(&mut table, 0, Change::Add(node(4))), planted.is_some());
        let expected = if planted.is_some() { 3 } else { 1 };
        assert_eq!(table.replica(0).commit_position(), records(expected));
        table.advance(100);
        table.crash(0);
        stop(&mut table, &[1, 2], false);
        (1..3).for_each(|one| (3..5).for_each(|other| table.cut(one, other)));
        table.time_out(1);
        table.announce(1);
        assert_eq!(table.replica(1).commit_position(), records(2), "elected and committed by the old list");
        table.cut.clear();
        table.announce(1);
        assert_eq!(table.hosts[3].fatal.is_some(), planted.is_some(), "what was committed must be cut: {planted:?}");
    }
}

/// The flaw of the first published form (raft-dev, July 2015): a change that an old leader had begun comes back behind one
/// of a newer leader, and their majorities have no common node.
#[test]
fn a_leader_commits_in_its_term_before_it_changes_the_list() {
    for planted in [None, Some(PlantedBug::ChangeBeforeOwnTerm)] {
        let mut table = led(4, 1, planted);
        stop(&mut table, &[1, 2, 3], true);
        assert!(change(&mut table, 0, Change::Add(node(4))), "on the old leader and the newcomer only");
        table.crash(0);
        stop(&mut table, &[1, 2, 3], false);
        (1..4).for_each(|one| table.cut(one, 4));
        table.time_out(1);
        assert!(table.replica(1).is_leader(), "elected by the old list");
        stop(&mut table, &[3], true);
        table.announce(1);
        assert_eq!(table.replica(1).commit_position(), records(1), "its epoch is on two of four");
        assert_eq!(change(&mut table, 1, Change::Remove(node(0))), planted.is_some());
        if planted.is_none() {
            stop(&mut table, &[3], false);
            table.announce(1);
            table.advance(100);
            assert!(change(&mut table, 1, Change::Remove(node(0))), "three of four have its epoch now");
            continue;
        }
        assert_eq!(table.replica(1).commit_position(), records(3), "by two of the three that are to be left");
        table.advance(100);
        table.crash(1);
        table.restart(0);
        table.cut.clear();
        stop(&mut table, &[2], true);
        stop(&mut table, &[3], false);
        table.time_out(0);
        // Its term was an old one.
        table.time_out(0);
        assert!(table.replica(0).is_leader(), "elected by three of the five that it wanted");
        stop(&mut table, &[2], false);
        table.announce(0);
        assert!(table.hosts[2].fatal.is_some(), "what was committed must be cut");
    }
}

/// 4.1: "if a server's log is truncated it must fall back to the previous configuration".
#[test]
fn a_cut_brings_the_list_before_back() {
    for planted in [None, Some(PlantedBug::CutListKept)] {
        let mut table = led(3, 1, planted);
        stop(&mut table, &[1, 2], true);
        assert!(change(&mut table, 0, Change::Add(node(3))));
        assert!(table.replica(3).is_member(), "before it is committed");
        // Over a restart, too: the record names both lists.
        table.crash(3);
        table.restart(3);
        assert!(table.replica(3).is_member());
        table.crash(0);
        stop(&mut table, &[1, 2], false);
        table.cut(1, 3);
        table.cut(2, 3);
        table.time_out(1);
        table.append(1);
        table.cut.clear();
        table.announce(1);
        assert_eq!(table.replica(3).is_member(), planted.is_some(), "{planted:?}");
        assert_eq!(table.replica(3).log_end(), table.replica(1).log_end());
    }
}

/// A voter that had lost what it acknowledged helps one to lead who never had it.
#[test]
fn a_suspect_vote_does_not_make_a_majority() {
    for planted in [None, Some(PlantedBug::SuspectCounted)] {
        let mut table = led(3, 0, planted);
        table.cut(0, 1);
        table.append(0);
        table.deliver();
        assert_eq!(table.replica(0).commit_position(), records(2), "on nodes 0 and 2");
        table.advance(100);
        table.crash(0);
        table.crash(2);
        table.lose(0, 1);
        table.cut.clear();
        table.restart(0);
        table.advance(3000);
        let elected = (0..2).any(|at| table.replica(at).is_leader());
        assert_eq!(elected, planted.is_some(), "and so without the record: {planted:?}");
        table.restart(2);
        table.advance(3000);
        let kept = (0..3).any(|at| table.replica(at).is_leader() && table.hosts[at].log[1].0 == 1);
        assert_eq!(kept, planted.is_none());
    }
}

/// A leader that has committed nothing in its term does not know what is committed: a suspect node that believed it would
/// vote like a sound one without what it had acknowledged.
#[test]
fn a_suspect_node_trusts_a_leader_that_has_committed_in_its_term() {
    for planted in [None, Some(PlantedBug::SuspectClearedEarly)] {
        let mut table = led(3, 0, planted);
        table.cut(0, 1);
        table.append(0);
        table.deliver();
        table.crash(0);
        table.crash(2);
        table.lose(0, 1);
        table.restart(2);
        table.cut.clear();
        table.time_out(2);
        assert!(table.replica(2).is_leader());
        (0..3).for_each(|at| table.hosts[at].auto_flush = false);
        table.restart(0);
        table.announce(2);
        table.advance(200);
        assert_eq!(table.replica(0).log_end(), records(3), "it has all by now, but not flushed");
        assert_eq!(table.replica(0).is_suspect(), planted.is_none(), "{planted:?}");
        (0..3).for_each(|at| table.flush(at));
        table.advance(200);
        assert!(!table.replica(0).is_suspect());
    }
}

/// What a later leader committed by the list before may be only on the node that a suspect candidate's list leaves out.
#[test]
fn suspect_voters_are_unanimous_in_both_lists_while_one_is_pending() {
    for planted in [None, Some(PlantedBug::LeftOutForgotten)] {
        let mut table = led(3, 0, planted);
        stop(&mut table, &[1, 2], true);
        assert!(change(&mut table, 0, Change::Remove(node(2))), "on node 0 only");
        table.advance(100);
        table.crash(0);
        stop(&mut table, &[1, 2], false);
        table.time_out(2);
        table.announce(2);
        table.append(2);
        table.deliver();
        assert_eq!(table.replica(2).commit_position(), records(3), "by the list before, on nodes 1 and 2");
        table.advance(200);
        table.crash(2);
        table.crash(1);
        table.lose(1, 2);
        table.restart(0);
        table.restart(1);
        table.advance(3000);
        let elected = (0..2).any(|at| table.replica(at).is_leader());
        assert_eq!(elected, planted.is_some(), "and so without the record: {planted:?}");
        table.restart(2);
        table.advance(3000);
        let kept = (0..3).any(|at| table.replica(at).is_leader() && table.hosts[at].log[1].0 == 2);
        assert_eq!(kept, planted.is_none(), "{planted:?}");
    }
}

/// All of both lists are there: whom the new one leaves out is asked, too.
#[test]
fn whom_a_pending_list_leaves_out_may_complete_a_vote_of_suspects() {
    let mut table = led(3, 0, None);
    stop(&mut table, &[1, 2], true);
    assert!(change(&mut table, 0, Change::Remove(node(2))));
    (0..3).for_each(|at| table.crash(at));
    table.lose(1, 1);
    table.restart(0);
    table.restart(1);
    stop(&mut table, &[1, 2], false);
    table.cut(1, 2);
    table.advance(3000);
    assert!(!table.replica(0).is_leader(), "node 2 is missing");
    table.restart(2);
    table.advance(3000);
    assert!(table.replica(0).is_leader());
}

/// 4.2.2: the list without the leader is committed by the others.
#[test]
fn a_leader_that_leaves_does_not_count_itself() {
    let mut table = led(4, 0, None);
    stop(&mut table, &[2, 3], true);
    assert!(change(&mut table, 0, Change::Remove(node(0))));
    assert_eq!(table.replica(0).commit_position(), records(1), "node 1 alone is no majority of three");
    stop(&mut table, &[2], false);
    table.announce(0);
    table.advance(20);
    assert_eq!(table.replica(0).commit_position(), records(2));
    table.advance(200);
    assert!(!table.replica(0).is_leader() && !table.replica(0).is_member());
}

/// A leader's own hand-over waits for a change of the list.
#[test]
fn no_hand_over_of_its_own_while_the_list_changes() {
    let mut table = led(3, 1, None);
    for (at, micros) in [(0, 500_000), (1, 500), (2, 500), (3, 500)] {
        table.hosts[at].replica.as_mut().unwrap().note_flush_time(micros);
    }
    (1..3).for_each(|at| table.hosts[at].auto_flush = false);
    assert!(change(&mut table, 0, Change::Add(node(3))));
    table.advance(8000);
    assert!(table.replica(0).is_leader() && table.replica(0).is_change_pending());
    (1..3).for_each(|at| {
        table.hosts[at].auto_flush = true;
        table.flush(at);
    });
    table.advance(8000);
    assert!(!table.replica(0).is_leader());
}
