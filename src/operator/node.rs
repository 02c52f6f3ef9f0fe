//! A running node as the commands see it: its address, its status, and how it is asked.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Access;
use super::error::{OperatorError, refused};
use crate::http::{Call, CallError, Method, Received, call_blocking};
use crate::types::{ClusterId, NodeId, Term};

/// The port of internal HTTP unless another is named.
const DEFAULT_PORT: u16 = 2112;

const ASK_LIMIT: Duration = Duration::from_secs(5);
/// A node answers a change within ten seconds, or says that it could not.
const CHANGE_LIMIT: Duration = Duration::from_secs(15);
/// 64 nodes take some 40 KiB.
const STATUS_BYTES_MAX: usize = 1 << 20;

/// A voting member as the member list has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberEntry {
    pub(super) node: NodeId,
    pub(super) int_ip: IpAddr,
    pub(super) int_tcp_port: u16,
    pub(super) int_http_port: u16,
}

/// A node as gossip knows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeEntry {
    pub(super) node: NodeId,
    pub(super) is_alive: bool,
    pub(super) heard_ms_ago: u64,
    pub(super) state: String,
    pub(super) is_read_only: bool,
    pub(super) term: Term,
    pub(super) writer_checkpoint: u64,
    pub(super) priority: i32,
    pub(super) is_suspect: bool,
    pub(super) flush_micros: u64,
    pub(super) started: String,
    pub(super) int_tcp: SocketAddr,
    pub(super) int_http: SocketAddr,
    pub(super) ext_tcp: SocketAddr,
    /// Older nodes do not say.
    #[serde(default)]
    pub(super) ext_secure_tcp: Option<SocketAddr>,
}

/// A follower as the leader sees it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FollowerEntry {
    pub(super) node: NodeId,
    pub(super) acknowledged: u64,
    pub(super) lag_bytes: u64,
    pub(super) is_linked: bool,
    /// Older nodes do not say.
    #[serde(default)]
    pub(super) is_full: bool,
}

/// What `GET /admin/status` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub(super) node: NodeId,
    pub(super) version: String,
    pub(super) cluster: Option<ClusterId>,
    pub(super) role: String,
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    pub(super) is_change_pending: bool,
    pub(super) is_suspect: bool,
    pub(super) is_disk_full: bool,
    pub(super) log_end: u64,
    pub(super) commit_position: u64,
    pub(super) members: Vec<MemberEntry>,
    pub(super) nodes: Vec<NodeEntry>,
    pub(super) followers: Vec<FollowerEntry>,
}

impl Status {
    pub(super) fn entry(&self, node: NodeId) -> Option<&NodeEntry> {
        self.nodes.iter().find(|entry| entry.node == node)
    }

    pub(super) fn is_member(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node)
    }

    /// Where a node answers, as gossip or the member list says.
    pub(super) fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let listed = || self.members.iter().find(|member| member.node == node);
        let listed = || listed().map(|member| SocketAddr::new(member.int_ip, member.int_http_port));
        self.entry(node).map(|entry| entry.int_http).or_else(listed)
    }

    /// The node that an operator means: the beginning of its id, or one of its internal addresses.
    ///
    /// # Errors
    /// When none or several may be meant.
    pub fn find(&self, named: &str) -> Result<NodeId, OperatorError> {
        let mut found: Vec<NodeId> = Vec::new();
        let wanted = named.to_ascii_lowercase();
        let mut offer = |node: NodeId, tcp: SocketAddr, http: SocketAddr| {
            let is_address = [tcp.to_string(), http.to_string(), http.ip().to_string()].contains(&wanted);
            let is_id = wanted.len() >= 4 && node.to_string().starts_with(&wanted);
            if (is_address || is_id) && !found.contains(&node) {
                found.push(node);
            }
        };
        for entry in &self.nodes {
            offer(entry.node, entry.int_tcp, entry.int_http);
        }
        for member in &self.members {
            // Whoever answers at an address now is meant by it, not who was there before: that one goes by its id.
            let http = SocketAddr::new(member.int_ip, member.int_http_port);
            let is_taken = self.nodes.iter().any(|entry| entry.int_http == http && entry.node != member.node);
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let tcp = SocketAddr::new(member.int_ip, member.int_tcp_port);
            offer(member.node, if is_taken { nowhere } else { tcp }, if is_taken { nowhere } else { http });
        }
        match found[..] {
            [node] => Ok(node),
            [] => Err(refused(format!(
                "\"{named}\" is no node of this cluster: give the beginning of its id (4 letters or more), or its internal \
                 address; `ringstore admin status` lists them"
            ))),
            _ => Err(refused(format!(
                "\"{named}\" may be {} nodes: give more of the id, or the address and port",
                found.len()
            ))),
        }
    }
}

/// The address that `HOST:PORT` means; the port may be left out.
pub(super) fn resolve(named: &str) -> Result<SocketAddr, OperatorError> {
    let usage = |words: String| OperatorError::Usage { words };
    let bare: Result<IpAddr, _> = named.trim_start_matches('[').trim_end_matches(']').parse();
    if let Ok(ip) = bare {
        return Ok(SocketAddr::new(ip, DEFAULT_PORT));
    }
    let with_port = if named.contains(':') { named.to_owned() } else { format!("{named}:{DEFAULT_PORT}") };
    let addresses = with_port.to_socket_addrs();
    let first = addresses.map_err(|error| {
        usage(format!("\"{named}\" is not HOST:PORT ({error}); for example 10.0.0.1:2112, a node's IntIp:IntHttpPort"))
    })?;
    first.into_iter().next().ok_or_else(|| usage(format!("\"{named}\" has no address")))
}

impl Access {
    /// What the node at `address` says of its cluster.
    pub(super) fn status(&self, address: SocketAddr) -> Result<Status, OperatorError> {
        let value = self.get(address, "/admin/status")?;
        serde_json::from_value(value).map_err(|error| not_understood(address, &error.to_string()))
    }

    /// A JSON answer to GET.
    pub(super) fn get(&self, address: SocketAddr, path: &str) -> Result<Value, OperatorError> {
        let (headers, body_bytes_max, limit) = (&[], STATUS_BYTES_MAX, ASK_LIMIT);
        let call = Call { method: Method::Get, path, headers, body: b"", body_bytes_max, limit };
        let answer = self.call(address, &call)?;
        if answer.status != 200 {
            let words = String::from_utf8_lossy(&answer.body).trim().to_owned();
            return Err(refused(format!(
                "the node at {address} answered {path} with status {}: {words}",
                answer.status
            )));
        }
        serde_json::from_slice(&answer.body).map_err(|error| not_understood(address, &error.to_string()))
    }

    /// Asks for a change at `path`.
    pub(super) fn change(&self, address: SocketAddr, path: &str, body: &Value) -> Answered {
        let body = if body.is_null() { json!({}) } else { body.clone() }.to_string();
        let call = Call {
            method: Method::Post,
            path,
            headers: &[],
            body: body.as_bytes(),
            body_bytes_max: STATUS_BYTES_MAX,
            limit: CHANGE_LIMIT,
        };
        match self.call(address, &call) {
            Err(error) => Answered::Unclear(error.to_string()),
            Ok(answer) => {
                let words = String::from_utf8_lossy(&answer.body).trim().to_owned();
                match answer.status {
                    200 => Answered::Done,
                    503 => Answered::Unclear(words),
                    _ => Answered::Refused(words),
                }
            }
        }
    }

    /// One call, of any kind.
    pub(super) fn call(&self, address: SocketAddr, call: &Call<'_>) -> Result<Received, CallError> {
        call_blocking(&self.plane, &self.way, address, call)
    }
}

/// What a node answered to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Done,
    /// Not done, and why.
    Refused(String),
    /// Whether it was done is not known.
    Unclear(String),
}

fn not_understood(address: SocketAddr, error: &str) -> OperatorError {
    refused(format!(
        "the answer of the node at {address} is not understood ({error}): is it ringstore, and of a release that fits this \
         one ({})?",
        env!("CARGO_PKG_VERSION")
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A status of three members, a clone (4) at the address of the lost member 3, and a read-only replica (5).
    pub(in crate::operator) fn sample() -> Status {
        let id = |n: u8| format!("{:08x}-0000-0000-0000-000000000000", u32::from(n) * 0x0101_0101);
        let node = |n: u8, host: u8, is_alive: bool, state: &str| {
            json!({
                "node": id(n), "cluster": id(9), "isAlive": is_alive, "heardMsAgo": 20, "state": state,
                "isReadOnly": n == 5, "term": 7, "writerCheckpoint": 5000, "priority": 0, "isSuspect": false,
                "flushMicros": 800, "started": "2020-01-02T03:04:05Z", "intTcp": format!("10.0.0.{host}:1112"),
                "intHttp": format!("10.0.0.{host}:2112"), "extTcp": format!("10.0.0.{host}:1113"),
                "extHttp": format!("10.0.0.{host}:2113"),
            })
        };
        let member =
            |n: u8| json!({ "node": id(n), "intIp": format!("10.0.0.{n}"), "intTcpPort": 1112, "intHttpPort": 2112 });
        let follower = |n: u8, lag: u64| {
            json!({ "node": id(n), "isMember": true, "sent": 5000, "acknowledged": 5000 - lag, "lagBytes": lag,
                    "isLinked": true, "flushMicros": 800, "priority": 0, "fromFiles": false, "isFull": n == 4 })
        };
        let value = json!({
            "node": id(1), "version": "0.1.0", "cluster": id(9), "role": "leader", "term": 7, "leader": id(1),
            "isChangePending": false, "isSuspect": false, "isDiskFull": false, "logEnd": 5000, "commitPosition": 5000,
            "members": [member(1), member(2), member(3)],
            "nodes": [node(1, 1, true, "leader"), node(2, 2, true, "follower"), node(4, 3, true, "clone"),
                      node(5, 5, true, "clone")],
            "followers": [follower(2, 0), follower(4, 0)],
        });
        serde_json::from_value(value).unwrap()
    }

    pub(in crate::operator) fn id(n: u8) -> NodeId {
        let text = format!("{:08x}-0000-0000-0000-000000000000", u32::from(n) * 0x0101_0101);
        NodeId(text.parse().unwrap())
    }

    #[test]
    fn a_node_is_found_by_its_id_or_where_it_answers_now() {
        let status = sample();
        let check = |named: &str, expected: Option<u8>| {
            assert_eq!(status.find(named).ok(), expected.map(id), "{named}");
        };
        check("0101", Some(1));
        check("02020202-0000-0000-0000-000000000000", Some(2));
        check("10.0.0.2:2112", Some(2));
        check("10.0.0.2:1112", Some(2));
        check("10.0.0.2", Some(2));
        check("10.0.0.3:2112", Some(4));
        check("0303", Some(3));
        check("010", None);
        check("ffff", None);
        check("10.0.0.9", None);
        assert_eq!(status.address_of(id(3)), Some("10.0.0.3:2112".parse().unwrap()));
    }

    #[test]
    fn addresses_may_leave_the_port_out() {
        let check = |named: &str, expected: &str| assert_eq!(resolve(named).unwrap().to_string(), expected);
        check("10.0.0.1", "10.0.0.1:2112");
        check("10.0.0.1:99", "10.0.0.1:99");
        check("::1", "[::1]:2112");
        check("[::1]", "[::1]:2112");
        check("[::1]:5", "[::1]:5");
        assert!(matches!(resolve("10.0.0.1:x"), Err(OperatorError::Usage { .. })));
    }
}
