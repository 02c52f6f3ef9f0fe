//! The gossip document that v5's clients read: key for key and order for order, and nothing more, because some clients
//! take an unknown shape for a later server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use super::addresses::AddressRule;
use super::member::{Member, MemberState};
use crate::types::{Guid, NodeId, WallTime};

/// One entry of the document, before it has the form of the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'a> {
    /// A node.
    Node {
        /// What it says.
        member: &'a Member,
        /// Whether we think that it lives.
        is_alive: bool,
    },
    /// A seed that has not answered yet.
    Seed {
        /// Where it is supposed to be.
        address: SocketAddr,
        /// False after a call failed.
        is_alive: bool,
        /// When we last looked.
        time_stamp: WallTime,
    },
}

/// The document that `GET /gossip` answers with: one for all who ask, but for the addresses that clients of some networks
/// are told. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Document {
    json: Arc<str>,
    /// Nodes that have rules, and what their rules are applied to; `None` where no node has any.
    ruled: Option<Arc<Ruled>>,
}

#[derive(Debug)]
struct Ruled {
    info: ClusterInfo,
    /// In the order of the members; empty for those that have none.
    rules: Vec<(NodeId, Vec<AddressRule>)>,
}

impl Document {
    /// As those get it for whom no rule holds. Empty before there is one.
    #[must_use]
    pub fn json(&self) -> Arc<str> {
        Arc::clone(&self.json)
    }

    /// As a client at this address gets it: for each member the address that it has for the client's network.
    ///
    /// # Panics
    /// Never: the document has a JSON form.
    #[must_use]
    pub fn for_client(&self, client: IpAddr) -> Arc<str> {
        let Some(ruled) = &self.ruled else { return self.json() };
        let told =
            |rules: &[AddressRule]| rules.iter().find(|rule| rule.network.contains(client)).map(|rule| rule.address);
        if !ruled.rules.iter().any(|(_, rules)| told(rules).is_some()) {
            return self.json();
        }
        let mut info = ruled.info.clone();
        for (member, (_, rules)) in info.members.iter_mut().zip(&ruled.rules) {
            if let Some(address) = told(rules) {
                member.external_tcp_ip = address.to_string();
                member.external_http_ip = address.to_string();
            }
        }
        serde_json::to_string_pretty(&info).expect("the document has a JSON form").into()
    }

    /// The rules of a node; empty when it has none.
    #[must_use]
    pub fn rules_of(&self, node: NodeId) -> &[AddressRule] {
        let rules = self.ruled.as_ref().map_or(&[][..], |ruled| &ruled.rules);
        rules.iter().find(|(ruled, _)| *ruled == node).map_or(&[], |(_, rules)| rules)
    }
}

impl From<&str> for Document {
    /// The same for everybody.
    fn from(json: &str) -> Document {
        Document { json: json.into(), ruled: None }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterInfo {
    members: Vec<MemberInfo>,
    server_ip: String,
    server_port: u16,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberInfo {
    instance_id: Guid,
    time_stamp: String,
    state: &'static str,
    is_alive: bool,
    internal_tcp_ip: String,
    internal_tcp_port: u16,
    internal_secure_tcp_port: u16,
    external_tcp_ip: String,
    external_tcp_port: u16,
    external_secure_tcp_port: u16,
    internal_http_ip: String,
    internal_http_port: u16,
    external_http_ip: String,
    external_http_port: u16,
    last_commit_position: i64,
    writer_checkpoint: i64,
    chaser_checkpoint: i64,
    epoch_position: i64,
    epoch_number: i32,
    epoch_id: Guid,
    node_priority: i32,
}

/// The document of the node whose internal HTTP endpoint is `server`.
pub(super) fn render<'a>(server: SocketAddr, entries: impl Iterator<Item = Shown<'a>>) -> Document {
    let entries: Vec<Shown<'_>> = entries.collect();
    let newest_term = entries.iter().filter_map(led_term).max();
    let mut members: Vec<(MemberInfo, (NodeId, Vec<AddressRule>))> = entries
        .iter()
        .map(|entry| match *entry {
            Shown::Node { member, is_alive } => {
                // Of two that say that they lead, the one of the older term only has not heard yet. Clients must not
                // be sent there, so it is shown as what it is about to be.
                let is_deposed = led_term(entry).is_some_and(|term| Some(term) < newest_term);
                let state = if is_deposed { MemberState::Unknown } else { member.report.state };
                (node(member, is_alive, state), (member.node, member.ext_advertise.clone()))
            }
            Shown::Seed { address, is_alive, time_stamp } => {
                (seed(address, is_alive, time_stamp), (NodeId::default(), Vec::new()))
            }
        })
        .collect();
    members.sort_by(|(a, _), (b, _)| {
        (b.internal_http_ip.as_str(), b.internal_http_port).cmp(&(a.internal_http_ip.as_str(), a.internal_http_port))
    });
    let (members, rules): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    let info = ClusterInfo { members, server_ip: server.ip().to_string(), server_port: server.port() };
    let json = serde_json::to_string_pretty(&info).expect("the document has a JSON form").into();
    let ruled = rules.iter().any(|(_, rules)| !rules.is_empty()).then(|| Arc::new(Ruled { info, rules }));
    Document { json, ruled }
}

fn led_term(entry: &Shown<'_>) -> Option<crate::types::Term> {
    match entry {
        Shown::Node { member, .. } if matches!(member.report.state, MemberState::Leader | MemberState::PreLeader) => {
            Some(member.report.term)
        }
        _ => None,
    }
}

fn node(member: &Member, is_alive: bool, state: MemberState) -> MemberInfo {
    let signed = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
    let Member { addresses, report, .. } = member;
    MemberInfo {
        instance_id: member.instance,
        time_stamp: member.time_stamp.to_string(),
        state: state.wire_name(),
        is_alive,
        internal_tcp_ip: addresses.int_tcp.ip().to_string(),
        internal_tcp_port: addresses.int_tcp.port(),
        internal_secure_tcp_port: 0,
        external_tcp_ip: addresses.ext_tcp.ip().to_string(),
        external_tcp_port: addresses.ext_tcp.port(),
        external_secure_tcp_port: addresses.ext_secure_tcp.map_or(0, |address| address.port()),
        internal_http_ip: addresses.int_http.ip().to_string(),
        internal_http_port: addresses.int_http.port(),
        external_http_ip: addresses.ext_http.ip().to_string(),
        external_http_port: addresses.ext_http.port(),
        last_commit_position: report.last_commit_position.map_or(-1, signed),
        writer_checkpoint: signed(report.writer_checkpoint),
        chaser_checkpoint: signed(report.chaser_checkpoint),
        epoch_position: report.epoch.map_or(-1, |epoch| signed(epoch.position)),
        epoch_number: report.epoch.map_or(-1, |epoch| i32::try_from(epoch.number).unwrap_or(i32::MAX)),
        epoch_id: report.epoch.map_or(Guid::ZERO, |epoch| epoch.id),
        node_priority: member.priority,
    }
}

fn seed(address: SocketAddr, is_alive: bool, time_stamp: WallTime) -> MemberInfo {
    let (ip, port) = (address.ip().to_string(), address.port());
    MemberInfo {
        instance_id: Guid::ZERO,
        time_stamp: time_stamp.to_string(),
        state: "Manager",
        is_alive,
        internal_tcp_ip: ip.clone(),
        internal_tcp_port: port,
        internal_secure_tcp_port: 0,
        external_tcp_ip: ip.clone(),
        external_tcp_port: port,
        external_secure_tcp_port: 0,
        internal_http_ip: ip.clone(),
        internal_http_port: port,
        external_http_ip: ip,
        external_http_port: port,
        last_commit_position: -1,
        writer_checkpoint: -1,
        chaser_checkpoint: -1,
        epoch_position: -1,
        epoch_number: -1,
        epoch_id: Guid::ZERO,
        node_priority: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::table::tests::member;
    use crate::types::Term;

    /// An answer in the form of a real one, with a node like `member(3)` and an unanswered seed.
    const SAMPLE: &str = r#"{
  "members": [
    {
      "instanceId": "67676767-6767-6767-6767-676767676767",
      "timeStamp": "2020-01-02T03:04:05.678Z",
      "state": "Slave",
      "isAlive": true,
      "internalTcpIp": "127.0.0.3",
      "internalTcpPort": 1112,
      "internalSecureTcpPort": 0,
      "externalTcpIp": "127.0.0.3",
      "externalTcpPort": 1113,
      "externalSecureTcpPort": 0,
      "internalHttpIp": "127.0.0.3",
      "internalHttpPort": 2112,
      "externalHttpIp": "127.0.0.3",
      "externalHttpPort": 2113,
      "lastCommitPosition": 2015,
      "writerCheckpoint": 2155,
      "chaserCheckpoint": 2155,
      "epochPosition": 1829,
      "epochNumber": 1,
      "epochId": "07070707-0707-0707-0707-070707070707",
      "nodePriority": 0
    },
    {
      "instanceId": "00000000-0000-0000-0000-000000000000",
      "timeStamp": "2020-01-02T03:04:05.678Z",
      "state": "Manager",
      "isAlive": true,
      "internalTcpIp": "127.0.0.2",
      "internalTcpPort": 2112,
      "internalSecureTcpPort": 0,
      "externalTcpIp": "127.0.0.2",
      "externalTcpPort": 2112,
      "externalSecureTcpPort": 0,
      "internalHttpIp": "127.0.0.2",
      "internalHttpPort": 2112,
      "externalHttpIp": "127.0.0.2",
      "externalHttpPort": 2112,
      "lastCommitPosition": -1,
      "writerCheckpoint": -1,
      "chaserCheckpoint": -1,
      "epochPosition": -1,
      "epochNumber": -1,
      "epochId": "00000000-0000-0000-0000-000000000000",
      "nodePriority": 0
    }
  ],
  "serverIp": "127.0.0.1",
  "serverPort": 2112
}"#;

    fn server() -> SocketAddr {
        "127.0.0.1:2112".parse().unwrap()
    }

    #[test]
    fn the_document_is_that_of_a_real_server() {
        let node = member(3);
        let address = "127.0.0.2:2112".parse().unwrap();
        let seed = Shown::Seed { address, is_alive: true, time_stamp: node.time_stamp };
        let entries = [seed, Shown::Node { member: &node, is_alive: true }];
        assert_eq!(&*render(server(), entries.into_iter()).json(), SAMPLE);
    }

    /// What a node of a real 4.1.3 cluster answered (v5 kept the format), rendered again from its values.
    #[test]
    fn the_document_of_a_real_cluster_is_rendered_byte_for_byte() {
        let recorded = include_str!("testdata/cluster_gossip.json");
        let parsed: serde_json::Value = serde_json::from_str(recorded).unwrap();
        let mut expected = recorded.to_owned();
        let mut nodes = Vec::new();
        for entry in parsed["members"].as_array().unwrap() {
            let last = entry["internalHttpIp"].as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap();
            let mut node = member(last);
            node.instance = entry["instanceId"].as_str().unwrap().parse().unwrap();
            if entry["state"] == "Master" {
                node.report.state = MemberState::Leader;
            }
            node.report.epoch.as_mut().unwrap().id = entry["epochId"].as_str().unwrap().parse().unwrap();
            expected = expected.replace(entry["timeStamp"].as_str().unwrap(), &node.time_stamp.to_string());
            nodes.push(node);
        }
        assert_eq!(nodes.len(), 3);
        nodes.sort_by_key(|node| node.node);
        let entries = nodes.iter().map(|member| Shown::Node { member, is_alive: true });
        assert_eq!(&*render(server(), entries).json(), expected);
    }

    #[test]
    fn addresses_are_sorted_as_text_and_ports_as_numbers() {
        let address = |text: &str| text.parse().unwrap();
        let seeds = ["10.0.0.1:2112", "9.0.0.1:2112", "10.0.0.1:10000", "10.0.0.10:1"];
        let entries =
            seeds.map(|seed| Shown::Seed { address: address(seed), is_alive: true, time_stamp: WallTime::default() });
        let document: serde_json::Value = serde_json::from_str(&render(server(), entries.into_iter()).json()).unwrap();
        let shown = document["members"].as_array().unwrap().iter();
        let shown: Vec<String> =
            shown.map(|m| format!("{}:{}", m["internalHttpIp"].as_str().unwrap(), m["internalHttpPort"])).collect();
        assert_eq!(shown, ["9.0.0.1:2112", "10.0.0.10:1", "10.0.0.1:10000", "10.0.0.1:2112"]);
    }

    #[test]
    fn each_client_is_told_the_addresses_of_its_network() {
        let rule = |network: &str, address: &str| AddressRule {
            network: network.parse().unwrap(),
            address: address.parse().unwrap(),
        };
        let (mut one, two) = (member(1), member(2));
        one.ext_advertise = vec![rule("10.1.0.0/16", "10.1.0.5"), rule("10.0.0.0/8", "10.9.0.5")];
        let document = render(server(), [&one, &two].into_iter().map(|member| Shown::Node { member, is_alive: true }));
        let check = |client: &str, expected: &str| {
            let json: serde_json::Value = serde_json::from_str(&document.for_client(client.parse().unwrap())).unwrap();
            let (first, second) = (&json["members"][1], &json["members"][0]);
            assert_eq!(
                (&first["externalTcpIp"], &first["externalHttpIp"]),
                (&expected.into(), &expected.into()),
                "{client}"
            );
            assert_eq!((&first["externalTcpPort"], &first["internalTcpIp"]), (&1113.into(), &"127.0.0.1".into()));
            assert_eq!(second["externalTcpIp"], "127.0.0.2", "it has no rules");
        };
        check("10.1.2.3", "10.1.0.5");
        check("10.2.2.3", "10.9.0.5");
        check("192.168.0.1", "127.0.0.1");
        let stranger = document.for_client("192.168.0.1".parse().unwrap());
        assert!(Arc::ptr_eq(&stranger, &document.json()), "made once for all for whom no rule holds");
        assert_eq!((document.rules_of(one.node).len(), document.rules_of(two.node).len()), (2, 0));
        assert!(Document::from("x").rules_of(one.node).is_empty());
    }

    #[test]
    fn only_the_leader_of_the_newest_term_is_shown_as_one() {
        let leader = |n: u8, term: u32| {
            let mut node = member(n);
            node.report.state = MemberState::Leader;
            node.report.term = Term(term);
            node
        };
        let (old, new) = (leader(1, 4), leader(2, 5));
        let entries = [&old, &new].map(|member| Shown::Node { member, is_alive: true });
        let document: serde_json::Value = serde_json::from_str(&render(server(), entries.into_iter()).json()).unwrap();
        assert_eq!(document["members"][0]["state"], "Master");
        assert_eq!(document["members"][1]["state"], "Unknown");
    }
}
