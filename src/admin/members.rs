//! The operator's routes: `GET /admin/status`, and what changes members and leadership. On the internal side only.
//!
//! Decides nothing: whether a change keeps the quorum is judged by the leader's log thread, whose words are passed on.

use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::control::Control;
use super::figures::{follower, role_name};
use super::internal::{ask, finished, parse};
use super::routes::json_answer;
use crate::codec::record::MemberRecord;
use crate::engine::{ControlInput, MemberChange, NodeView};
use crate::gossip::{Heard, MemberState};
use crate::http::{Request, Response};
use crate::types::NodeId;

/// Handing over takes until the successor has caught up.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(5);
/// A change is answered when its record is committed: a flush on a majority.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// A save of the small state: two flushes.
const TRUST_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of `POST /admin/members/add` and `remove`: the node that a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// Its identifier.
    pub node: NodeId,
}

/// The body of `POST /admin/resign`: who is to lead; nobody named means whoever has most of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resign {
    /// A member.
    pub to: Option<NodeId>,
}

/// The cluster as this node knows it.
pub(super) fn status(control: &Rc<Control>) -> Response {
    control.pump();
    let status = &control.status;
    let view = status.published.view();
    let log_end = status.published.log_end();
    let gossip = control.gossip.borrow();
    json_answer(&json!({
        "node": status.node.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "cluster": view.cluster.map(|cluster| cluster.to_string()),
        "role": role_name(view.role),
        "term": view.term.0,
        "leader": view.leader.map(|leader| leader.to_string()),
        "isChangePending": view.is_change_pending,
        "isSuspect": view.is_suspect,
        "isDiskFull": view.disk_full,
        "logEnd": log_end.0,
        "commitPosition": status.published.committed().0,
        "settings": control.settings.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect::<serde_json::Map<_, _>>(),
        "unixMs": unix_ms(),
        "members": view.members,
        "nodes": gossip.entries(control.now()).iter().map(node).collect::<Vec<_>>(),
        "followers": view.followers.iter().map(|view| follower(view, log_end.0)).collect::<Vec<_>>(),
    }))
}

/// This node's clock, for whoever compares it.
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn node(heard: &Heard<'_>) -> Value {
    let member = heard.member;
    json!({
        "node": member.node.to_string(),
        "cluster": member.membership.as_ref().map(|list| list.cluster.to_string()),
        "isAlive": heard.is_alive,
        "heardMsAgo": u64::try_from(heard.age.as_millis()).unwrap_or(u64::MAX),
        "state": state_name(member.report.state),
        "isReadOnly": member.read_only,
        "term": member.report.term.0,
        "writerCheckpoint": member.report.writer_checkpoint,
        "priority": member.priority,
        "isSuspect": member.report.is_suspect,
        "flushMicros": member.report.flush_micros,
        "started": member.started.to_string(),
        "intTcp": member.addresses.int_tcp.to_string(),
        "intHttp": member.addresses.int_http.to_string(),
        "extTcp": member.addresses.ext_tcp.to_string(),
        "extHttp": member.addresses.ext_http.to_string(),
        "extSecureTcp": member.addresses.ext_secure_tcp.map(|address| address.to_string()),
    })
}

/// A state in our own words.
fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Initializing => "initializing",
        MemberState::Unknown => "unknown",
        MemberState::PreReplica => "preReplica",
        MemberState::CatchingUp => "catchingUp",
        MemberState::Clone => "clone",
        MemberState::Follower => "follower",
        MemberState::PreLeader => "preLeader",
        MemberState::Leader => "leader",
        MemberState::ShuttingDown => "shuttingDown",
        MemberState::Shutdown => "shutdown",
    }
}

/// A clone becomes a member.
pub(super) async fn add(control: &Rc<Control>, request: &Request) -> Response {
    let asked: Change = match parse(request) {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    match promotable(control, asked.node) {
        Ok(record) => change(control, MemberChange::Add(record)).await,
        Err(words) => Response::words(409, words),
    }
}

/// A member becomes a clone, or goes.
pub(super) async fn remove(control: &Rc<Control>, request: &Request) -> Response {
    match parse::<Change>(request) {
        Ok(asked) => change(control, MemberChange::Remove(asked.node)).await,
        Err(refused) => refused,
    }
}

/// Leadership goes to another member.
pub(super) async fn resign(control: &Rc<Control>, request: &Request) -> Response {
    // Without a body it is what it always was: to whoever has most.
    let asked = if request.body.is_empty() { Ok(Resign::default()) } else { parse(request) };
    let asked: Resign = match asked {
        Ok(asked) => asked,
        Err(refused) => return refused,
    };
    let wait = control.pending.open();
    let input = ControlInput::Resign { token: wait.token, to: asked.to };
    ask(control, wait, input, RESIGN_TIMEOUT).await.map_or_else(|refused| refused, finished)
}

/// A suspect node's log counts again as it is.
pub(super) async fn trust(control: &Rc<Control>) -> Response {
    let wait = control.pending.open();
    let input = ControlInput::TrustLog { token: wait.token };
    ask(control, wait, input, TRUST_TIMEOUT).await.map_or_else(|refused| refused, finished)
}

/// How a node is to stand in the member list; or why it cannot. The address that it says itself counts.
fn promotable(control: &Control, node: NodeId) -> Result<MemberRecord, String> {
    if control.is_alone {
        return Err(format!(
            "this node is on its own (ClusterSize 1), so that node {node} cannot reach it: restart it with ClusterSize 3 and \
             the GossipSeed of the others, then start those with its address as theirs"
        ));
    }
    let gossip = control.gossip.borrow();
    let entries = gossip.entries(control.now());
    let Some(heard) = entries.iter().find(|heard| heard.member.node == node) else {
        return Err(format!(
            "node {node} is not known here: start it with a GossipSeed of this cluster, and ask for its status"
        ));
    };
    let address = heard.member.addresses.int_http;
    if heard.member.read_only {
        return Err(format!(
            "node {node} at {address} is a read-only replica, which never becomes a member: start it without \
             ReadOnlyReplica first"
        ));
    }
    if !heard.is_alive {
        let age = heard.age.as_secs();
        return Err(format!(
            "node {node} at {address} was last heard of {age} s ago: a member must run when it is added"
        ));
    }
    Ok(heard.member.record())
}

async fn change(control: &Rc<Control>, change: MemberChange) -> Response {
    let wait = control.pending.open();
    let input = ControlInput::ChangeMembers { token: wait.token, change };
    if !control.tell_log_thread(input) {
        return Response::words(503, "the log thread is too busy: the change was not begun; try again");
    }
    match wait.answer(CHANGE_TIMEOUT).await {
        Some(answered) => finished(answered),
        None => Response::words(503, slow_words(&control.status.published.view(), change)),
    }
}

/// What has become of a change that was not answered in time, and what to do next.
fn slow_words(view: &NodeView, change: MemberChange) -> String {
    let (node, is_there) = match change {
        MemberChange::Add(member) => (member.node, true),
        MemberChange::Remove(node) => (node, false),
    };
    let limit = CHANGE_TIMEOUT.as_secs();
    let is_in_list = view.members.iter().any(|member| member.node == node) == is_there;
    let (what, done) = if is_there { ("is a member", "added") } else { ("is no member", "removed") };
    match (is_in_list, view.is_change_pending) {
        (true, true) => format!(
            "after {limit} s node {node} {what} in the list in force, but the list is not committed: no majority of the {} \
             members has it on its disks yet. It commits by itself when enough of them run and have caught up, and is undone \
             if another node is elected that does not have it. Do not ask for another change; look at `ringstore admin \
             status` until no change is pending",
            view.members.len()
        ),
        (true, false) => format!("node {node} was {done}, only the answer came late: there is nothing left to do"),
        (false, _) => format!(
            "the log thread has not taken the change up within {limit} s, most likely because its disk is slow: it may be \
             begun yet. Look at `ringstore admin status`, and ask again if node {node} was not {done}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Guid;

    #[test]
    fn a_slow_change_is_answered_with_its_state() {
        let member = |n| {
            let node = NodeId(Guid([n; 16]));
            MemberRecord { node, int_ip: [127, 0, 0, n].into(), int_tcp_port: 1112, int_http_port: 2112 }
        };
        let view = |members: &[u8], is_change_pending| NodeView {
            members: members.iter().map(|n| member(*n)).collect(),
            is_change_pending,
            ..NodeView::default()
        };
        let (add, remove) = (MemberChange::Add(member(4)), MemberChange::Remove(member(3).node));
        let check = |members: &[u8], pending, change, expected: &str| {
            let words = slow_words(&view(members, pending), change);
            assert!(words.contains(expected), "{words}");
        };
        check(&[1, 2, 3, 4], true, add, "is a member in the list in force, but the list is not committed");
        check(&[1, 2], true, remove, "is no member in the list in force, but the list is not committed");
        check(&[1, 2, 3, 4], false, add, "was added, only the answer came late");
        check(&[1, 2], false, remove, "was removed, only the answer came late");
        check(&[1, 2, 3], false, add, "ask again if node");
        check(&[1, 2, 3], true, remove, "ask again if node");
    }
}
