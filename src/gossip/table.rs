//! The other nodes: entries, how they are merged, and which of them live.

use std::collections::BTreeMap;
use std::time::Duration;

use super::exchange::NODES_MAX;
use super::member::Member;
use crate::types::{NodeId, Ticks};

/// A node that has not been heard of for this long, and whose entry says nothing new, is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30 * 60);

/// Another node.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) member: Member,
    /// When the node is last known to have lived.
    pub(super) heard: Ticks,
    /// When a call to it last failed.
    failed: Option<Ticks>,
    /// The version that the node itself last sent (0: none of this instance yet).
    direct_version: u64,
}

/// All other nodes. The own entry is not in here: a node knows itself best.
#[derive(Clone, Debug)]
pub(super) struct Table {
    entries: BTreeMap<NodeId, Entry>,
    /// A node unheard of for longer counts as dead.
    silence_max: Duration,
}

/// What a merge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// What we have is as new or newer.
    Old,
    Taken,
    /// There is no room for another node.
    Full,
}

impl Table {
    pub(super) fn new(silence_max: Duration) -> Table {
        Table { entries: BTreeMap::new(), silence_max }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.entries.get(&node)
    }

    /// True when the node was heard of lately, and after the last call to it that failed.
    pub(super) fn is_alive(&self, entry: &Entry, now: Ticks) -> bool {
        now.since(entry.heard) < self.silence_max && entry.failed.is_none_or(|failed| entry.heard > failed)
    }

    /// Takes an entry if it is newer than ours. `direct`: the node itself sent it. `age`: how long ago it was heard of.
    ///
    /// What a node says itself is newer than what others say of it, and than what it said itself with a lower version
    /// (two of its messages may overtake each other). From others, an entry of the same instance is newer when its
    /// version is greater, and one of another instance when that was started later; only this rests on a clock, and
    /// the node itself corrects it.
    pub(super) fn merge(&mut self, now: Ticks, member: &Member, age: Duration, direct: bool) -> Merged {
        let heard = Ticks(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        let Some(known) = self.entries.get_mut(&member.node) else {
            return self.insert(member, heard, age, direct);
        };
        let same_instance = known.member.instance == member.instance;
        let newer = match (direct, same_instance) {
            (true, true) => member.version > known.direct_version,
            (true, false) => true,
            (false, true) => member.version > known.member.version,
            (false, false) => member.started > known.member.started,
        };
        if newer {
            known.member = member.clone();
            known.direct_version = match (direct, same_instance) {
                (true, _) => member.version,
                (false, true) => known.direct_version,
                (false, false) => 0,
            };
        }
        // What a node says itself proves that it lives, new or not; what others say only when it shows a later life.
        if newer || direct {
            known.heard = known.heard.max(heard);
        }
        if direct {
            self.forget_predecessors(member, heard);
        }
        if newer { Merged::Taken } else { Merged::Old }
    }

    fn insert(&mut self, member: &Member, heard: Ticks, age: Duration, direct: bool) -> Merged {
        let is_replaced = self.at_same_address(member).any(|entry| entry.heard > heard);
        // Somebody who has not forgotten a node yet does not bring it back.
        if age >= FORGET_AFTER || (is_replaced && !direct) {
            return Merged::Old;
        }
        if direct {
            self.forget_predecessors(member, heard);
        }
        // The own entry needs room, too, in what we send.
        if self.entries.len() + 1 >= NODES_MAX {
            return Merged::Full;
        }
        let direct_version = if direct { member.version } else { 0 };
        self.entries.insert(member.node, Entry { member: member.clone(), heard, failed: None, direct_version });
        Merged::Taken
    }

    /// Other nodes that are said to be where this one is: there can be only one, the one that answers. (A node that lost
    /// its disk comes back with another id.)
    fn at_same_address<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a Entry> {
        let is_other = |entry: &&Entry| entry.member.node != member.node;
        let address = member.addresses.int_http;
        self.entries.values().filter(is_other).filter(move |entry| entry.member.addresses.int_http == address)
    }

    fn forget_predecessors(&mut self, member: &Member, heard: Ticks) {
        let (node, address) = (member.node, member.addresses.int_http);
        self.entries
            .retain(|other, entry| *other == node || entry.member.addresses.int_http != address || entry.heard > heard);
    }

    /// A call to the node failed.
    pub(super) fn mark_failed(&mut self, now: Ticks, node: NodeId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.failed = Some(now);
        }
    }

    /// Forgets nodes that have been silent for very long.
    pub(super) fn forget_old(&mut self, now: Ticks) {
        self.entries.retain(|_, entry| now.since(entry.heard) < FORGET_AFTER);
    }

    /// Forgets the nodes that do not pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Member) -> bool) {
        self.entries.retain(|_, entry| keep(&entry.member));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::record::MembershipBody;
    use crate::gossip::{Addresses, EpochReport, MemberState, Report};
    use crate::types::{ClusterId, Guid, Term, WallTime};

    /// A node `n` at 127.0.0.n.
    pub(in crate::gossip) fn member(n: u8) -> Member {
        let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, n], port));
        let epoch = EpochReport { number: 1, position: 1829, id: Guid([7; 16]) };
        let mut member = Member {
            node: NodeId(Guid([n; 16])),
            instance: Guid([100 + n % 100; 16]),
            started: WallTime(637_135_310_456_780_000),
            version: 1,
            cluster_size: 3,
            chunk_size: 1 << 20,
            accepted_founding: None,
            membership: None,
            addresses: Addresses {
                int_tcp: at(1112),
                int_http: at(2112),
                ext_tcp: at(1113),
                ext_http: at(2113),
                ext_secure_tcp: None,
            },
            ext_advertise: Vec::new(),
            priority: 0,
            read_only: false,
            time_stamp: WallTime(637_135_310_456_780_000),
            report: Report {
                state: MemberState::Follower,
                term: Term(1),
                last_commit_position: Some(2015),
                writer_checkpoint: 2155,
                chaser_checkpoint: 2155,
                epoch: Some(epoch),
                is_suspect: false,
                flush_micros: 0,
            },
        };
        member.membership = Some(MembershipBody { cluster: ClusterId(Guid([5; 16])), members: vec![member.record()] });
        member
    }

    const SILENCE_MAX: Duration = Duration::from_secs(5);
    const NO_AGE: Duration = Duration::ZERO;

    fn at(seconds: u64) -> Ticks {
        Ticks(3_600_000_000_000).after(Duration::from_secs(seconds))
    }

    fn alive(table: &Table, now: Ticks) -> bool {
        table.is_alive(table.get(NodeId(Guid([1; 16]))).unwrap(), now)
    }

    #[test]
    fn the_newer_entry_wins() {
        let mut table = Table::new(SILENCE_MAX);
        let mut entry = Member { version: 5, ..member(1) };
        assert_eq!(table.merge(at(0), &entry, NO_AGE, true), Merged::Taken);
        entry.version = 4;
        assert_eq!(table.merge(at(0), &entry, NO_AGE, true), Merged::Old);
        entry.version = 6;
        assert_eq!(table.merge(at(0), &entry, NO_AGE, false), Merged::Taken);
        // What others claim cannot outweigh what the node says: here somebody spread a version that it never had.
        let forged = Member { version: u64::MAX, ..entry.clone() };
        assert_eq!(table.merge(at(0), &forged, NO_AGE, false), Merged::Taken);
        entry.version = 7;
        assert_eq!(table.merge(at(0), &entry, NO_AGE, true), Merged::Taken);
        assert_eq!(table.merge(at(0), &entry, NO_AGE, true), Merged::Old);
        // Another instance: an earlier one from others is old; from the node itself it is the one that runs.
        let other = Member { instance: Guid([77; 16]), version: 1, started: WallTime(1), ..entry.clone() };
        assert_eq!(table.merge(at(0), &other, NO_AGE, false), Merged::Old);
        assert_eq!(table.merge(at(0), &other, NO_AGE, true), Merged::Taken);
        assert_eq!(table.get(entry.node).unwrap().member.instance, other.instance);
    }

    #[test]
    fn a_node_is_dead_when_silent_or_when_a_call_failed() {
        let mut table = Table::new(SILENCE_MAX);
        let mut entry = member(1);
        table.merge(at(0), &entry, NO_AGE, true);
        assert!(alive(&table, at(4)));
        assert!(!alive(&table, at(5)), "silent");
        entry.version += 1;
        table.merge(at(10), &entry, NO_AGE, false);
        assert!(alive(&table, at(11)), "others heard it");
        table.mark_failed(at(12), entry.node);
        assert!(!alive(&table, at(12)));
        entry.version += 1;
        table.merge(at(13), &entry, Duration::from_secs(2), false);
        assert!(!alive(&table, at(13)), "others heard it, but before our call failed");
        entry.version += 1;
        table.merge(at(14), &entry, Duration::from_secs(1), false);
        assert!(alive(&table, at(14)), "others heard it after our call failed");
        // The same version again proves nothing, unless the node itself says it.
        table.merge(at(30), &entry, NO_AGE, false);
        assert!(!alive(&table, at(30)));
        table.merge(at(30), &entry, NO_AGE, true);
        assert!(alive(&table, at(30)));
    }

    #[test]
    fn silent_nodes_are_forgotten_and_stay_so() {
        let mut table = Table::new(SILENCE_MAX);
        table.merge(at(0), &member(1), NO_AGE, true);
        table.forget_old(at(1799));
        assert_eq!(table.entries().count(), 1);
        table.forget_old(at(1800));
        assert_eq!(table.entries().count(), 0);
        assert_eq!(table.merge(at(1800), &member(1), Duration::from_secs(1800), false), Merged::Old);
        assert_eq!(table.entries().count(), 0);
    }

    #[test]
    fn an_address_has_one_node() {
        let mut table = Table::new(SILENCE_MAX);
        let lost = member(1);
        table.merge(at(0), &lost, NO_AGE, true);
        // The same machine with a new disk, and so with a new id.
        let fresh = Member { node: NodeId(Guid([9; 16])), ..member(1) };
        assert_eq!(table.merge(at(10), &fresh, NO_AGE, true), Merged::Taken);
        assert!(table.get(lost.node).is_none());
        assert_eq!(table.merge(at(11), &lost, Duration::from_secs(11), false), Merged::Old, "others still know it");
        assert!(table.get(lost.node).is_none());
    }

    #[test]
    fn the_table_does_not_grow_without_bound() {
        let mut table = Table::new(SILENCE_MAX);
        for n in 0..NODES_MAX - 1 {
            assert_eq!(table.merge(at(0), &member(n as u8), NO_AGE, true), Merged::Taken);
        }
        assert_eq!(table.merge(at(0), &member(200), NO_AGE, true), Merged::Full);
        let known = Member { version: 2, ..member(1) };
        assert_eq!(table.merge(at(0), &known, NO_AGE, true), Merged::Taken);
    }
}
