//! The bodies of epoch and membership records.

use std::net::IpAddr;

use crate::limits::CLUSTER_SIZE_MAX;
use crate::types::{ClusterId, Guid, LogPosition, NodeId};

/// The body of the first record of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochBody {
    /// Random identifier of the epoch, shown in gossip.
    pub epoch_id: Guid,
    /// The leader that wrote it.
    pub leader: NodeId,
    /// Where the epoch before begins; `None` for the first.
    pub previous: Option<LogPosition>,
}

impl EpochBody {
    /// The body's bytes: id, leader, previous position (all ones for none).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.extend_from_slice(&self.epoch_id.0);
        out.extend_from_slice(&self.leader.0.0);
        out.extend_from_slice(&self.previous.map_or(u64::MAX, |position| position.0).to_le_bytes());
        out
    }

    /// Reads a body; `None` when it is not one.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<EpochBody> {
        let previous = u64::from_le_bytes(body.get(32..40)?.try_into().ok()?);
        Some(EpochBody {
            epoch_id: Guid(body[0..16].try_into().ok()?),
            leader: NodeId(Guid(body[16..32].try_into().ok()?)),
            previous: (previous != u64::MAX).then_some(LogPosition(previous)),
        })
    }
}

/// A voting member: who it is and where it was last reached from inside the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRecord {
    /// The node.
    pub node: NodeId,
    /// Its internal address; a hint, gossip knows better.
    pub int_ip: IpAddr,
    /// Port of replication.
    pub int_tcp_port: u16,
    /// Port of gossip and elections.
    pub int_http_port: u16,
}

const MEMBER_BYTES: usize = 36;

impl MemberRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        let ip = match self.int_ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&self.node.0.0);
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.int_tcp_port.to_le_bytes());
        out.extend_from_slice(&self.int_http_port.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<MemberRecord> {
        let octets: [u8; 16] = bytes.get(16..32)?.try_into().ok()?;
        Some(MemberRecord {
            node: NodeId(Guid(bytes[0..16].try_into().ok()?)),
            int_ip: IpAddr::from(octets).to_canonical(),
            int_tcp_port: u16::from_le_bytes(bytes.get(32..34)?.try_into().ok()?),
            int_http_port: u16::from_le_bytes(bytes.get(34..36)?.try_into().ok()?),
        })
    }
}

/// A member list: the first part of a membership record's body, and the body of the list in the durable state.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MembershipBody {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its voting members.
    pub members: Vec<MemberRecord>,
}

impl MembershipBody {
    /// The body's bytes: cluster id, count, members.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(20 + self.members.len() * MEMBER_BYTES);
        out.extend_from_slice(&self.cluster.0.0);
        out.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        self.members.iter().for_each(|member| member.encode(&mut out));
        out
    }

    /// Reads a body; `None` when it is not one: also when it has more than [`CLUSTER_SIZE_MAX`] members, or one of them twice,
    /// who would have two votes. Two may have one address: a lost node and the one that replaces it.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<MembershipBody> {
        let cluster = ClusterId(Guid(body.get(0..16)?.try_into().ok()?));
        let count = u32::from_le_bytes(body.get(16..20)?.try_into().ok()?) as usize;
        Some(MembershipBody { cluster, members: decode_members(count, &body[20..])? })
    }
}

fn decode_members(count: usize, bytes: &[u8]) -> Option<Vec<MemberRecord>> {
    if count > CLUSTER_SIZE_MAX {
        return None;
    }
    let bytes = bytes.get(..count * MEMBER_BYTES)?;
    let members = bytes.chunks_exact(MEMBER_BYTES).map(MemberRecord::decode).collect::<Option<Vec<_>>>()?;
    let is_known = |at: usize| members[..at].iter().any(|member| member.node == members[at].node);
    if (0..members.len()).any(is_known) { None } else { Some(members) }
}

/// The body of a membership record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipRecord {
    /// The list in force from this record on.
    pub list: MembershipBody,
    /// The members before: in force again when the record is cut.
    pub before: Vec<MemberRecord>,
}

impl MembershipRecord {
    /// The most that a body takes, with its padding.
    pub const MAX_BYTES: usize = 24 + 2 * CLUSTER_SIZE_MAX * MEMBER_BYTES;

    /// The body's bytes: the list, then count and members of the one before.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.list.encode();
        out.extend_from_slice(&(self.before.len() as u32).to_le_bytes());
        self.before.iter().for_each(|member| member.encode(&mut out));
        out
    }

    /// Reads a body; `None` when it is not one. A record without a list before is a founding's, as it was written at first:
    /// before it the same list was in force.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<MembershipRecord> {
        let list = MembershipBody::decode(body)?;
        let rest = body.get(20 + list.members.len() * MEMBER_BYTES..)?;
        let count = rest.get(0..4).map_or(0, |count| u32::from_le_bytes(count.try_into().expect("four bytes")));
        if count == 0 {
            return Some(MembershipRecord { before: list.members.clone(), list });
        }
        Some(MembershipRecord { list, before: decode_members(count as usize, &rest[4..])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_as_they_went() {
        let epoch = EpochBody { epoch_id: Guid([1; 16]), leader: NodeId(Guid([2; 16])), previous: None };
        assert_eq!(EpochBody::decode(&epoch.encode()), Some(epoch));
        let member = |n: u8, ip: &str| MemberRecord {
            node: NodeId(Guid([n; 16])),
            int_ip: ip.parse().unwrap(),
            int_tcp_port: 1112,
            int_http_port: 2112,
        };
        let members = vec![member(1, "10.0.0.1"), member(2, "fd00::2")];
        let body = MembershipBody { cluster: ClusterId(Guid([9; 16])), members };
        assert_eq!(MembershipBody::decode(&body.encode()), Some(body.clone()));
        assert_eq!(MembershipBody::decode(&body.encode()[..50]), None);
        let before = vec![member(1, "10.0.0.1"), member(2, "fd00::2"), member(3, "10.0.0.3")];
        let record = MembershipRecord { list: body.clone(), before };
        let mut bytes = record.encode();
        assert_eq!(MembershipRecord::decode(&bytes[..bytes.len() - 1]), None);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        assert_eq!(MembershipRecord::decode(&bytes), Some(record), "records are filled up with zeros");
        let full = MembershipRecord {
            list: MembershipBody { members: vec![member(1, "::1"); 7], ..body.clone() },
            before: vec![member(1, "::1"); 7],
        };
        assert!(full.encode().len() <= MembershipRecord::MAX_BYTES);
        for padding in 0..8 {
            let old = [body.encode(), vec![0; padding]].concat();
            let expected = MembershipRecord { list: body.clone(), before: body.members.clone() };
            assert_eq!(MembershipRecord::decode(&old), Some(expected), "as the founding's was written at first");
        }
    }

    #[test]
    fn lists_too_long_or_with_one_twice_are_none() {
        let member = |n: u8| MemberRecord {
            node: NodeId(Guid([n; 16])),
            int_ip: [10, 0, 0, 1].into(),
            int_tcp_port: 1112,
            int_http_port: 2112,
        };
        let list = |ids: &[u8]| MembershipBody {
            cluster: ClusterId(Guid([9; 16])),
            members: ids.iter().map(|n| member(*n)).collect(),
        };
        let check = |ids: &[u8], before: &[u8], is_one: bool| {
            let record = MembershipRecord { list: list(ids), before: list(before).members };
            assert_eq!(MembershipRecord::decode(&record.encode()).is_some(), is_one, "{ids:?} after {before:?}");
        };
        check(&[1, 2, 3, 4, 5, 6, 7], &[1, 2, 3, 4, 5, 6], true);
        check(&[1, 2, 3, 4, 5, 6, 7, 8], &[1], false);
        check(&[1], &[1, 2, 3, 4, 5, 6, 7, 8], false);
        check(&[1, 2, 1], &[1, 2], false);
        check(&[1, 2], &[1, 2, 2], false);
        assert_eq!(MembershipBody::decode(&list(&[3, 3]).encode()), None);
    }
}
