//! The status of a cluster as lines for people.

use serde_json::Value;

use super::admin::quorum_words;
use super::node::{FollowerEntry, NodeEntry, Status};
use super::progress::size;
use crate::types::NodeId;

/// Between two columns.
const GAP: &str = "  ";

fn lines(own: &Status, leader: Option<&Status>, stats: &Value) -> Vec<String> {
    let best = leader.unwrap_or(own);
    let mut lines = vec![
        format!("cluster  {}", own.cluster.map_or("none yet: not founded".to_owned(), |cluster| cluster.to_string())),
        format!("leader   {}", leader_words(own)),
        format!("quorum   {}{}", quorum_words(best.members.len()), silent_words(best)),
    ];
    if best.is_change_pending {
        lines.push("change   a new member list is not committed yet".to_owned());
    }
    lines.push(String::new());
    lines.extend(table(own, best));
    lines.push(String::new());
    lines.push(format!(
        "asked    node {} ({}), {} log to {}, committed {}{}",
        own.node,
        own.role,
        own.version_words(),
        own.log_end,
        own.commit_position,
        if own.is_disk_full { ", DISK FULL: writes are refused" } else { "" }
    ));
    for group in ["storage", "index"] {
        if let Some(figures) = stats[group].as_object() {
            let shown: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
            lines.push(format!("{group:<8} {}", shown.join(", ")));
        }
    }
    lines
}

impl Status {
    /// Everything that this node (the one that was asked) and the leader say, for people. `stats`: this node's `/stats`.
    /// It comes from other machines: what would do something to a terminal is shown as a question mark.
    #[must_use]
    pub fn lines(&self, leader: Option<&Status>, stats: &Value) -> Vec<String> {
        let shown = |line: String| line.replace(char::is_control, "?");
        lines(self, leader, stats).into_iter().map(shown).collect()
    }

    fn version_words(&self) -> String {
        format!("ringstore {},", self.version)
    }
}

fn leader_words(own: &Status) -> String {
    let Some(leader) = own.leader else { return "none known: a majority of the members must run".to_owned() };
    let address = own.address_of(leader).map(|address| format!(" at {address}")).unwrap_or_default();
    format!("{leader}{address}, term {}", own.term)
}

fn silent_words(status: &Status) -> String {
    let is_silent = |node: NodeId| !status.entry(node).is_some_and(|entry| entry.is_alive);
    match status.members.iter().filter(|member| is_silent(member.node)).count() {
        0 => String::new(),
        count => format!("; {count} of them do not answer now"),
    }
}

fn table(own: &Status, best: &Status) -> Vec<String> {
    let head = [
        "node",
        "internal http",
        "clients tcp",
        "kind",
        "state",
        "term",
        "log durable to",
        "lag",
        "flush",
        "prio",
        "since",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    // The asked node knows best who is there; what is behind whom only the leader knows.
    rows.extend(own.nodes.iter().map(|entry| row(entry, best)));
    let is_heard = |node: NodeId| own.entry(node).is_some();
    for member in best.members.iter().filter(|member| !is_heard(member.node)) {
        let address = std::net::SocketAddr::new(member.int_ip, member.int_http_port).to_string();
        let mut row = [const { String::new() }; 12];
        (row[0], row[1], row[3]) = (member.node.to_string(), address, "member".to_owned());
        row[4] = "not heard of".to_owned();
        rows.push(row);
    }
    aligned(&rows)
}

fn row(entry: &NodeEntry, best: &Status) -> [String; 12] {
    let follower = best.followers.iter().find(|follower| follower.node == entry.node);
    let kind = match (best.is_member(entry.node), entry.is_read_only) {
        (true, _) => "member",
        (false, true) => "read-only",
        (false, false) => "clone",
    };
    let state = if entry.is_alive { entry.state.clone() } else { format!("dead? ({} s)", entry.heard_ms_ago / 1000) };
    [
        entry.node.to_string(),
        entry.int_http.to_string(),
        clients_at(entry),
        kind.to_owned(),
        state,
        entry.term.to_string(),
        entry.writer_checkpoint.to_string(),
        lag_words(entry.node, follower, best),
        format!("{}.{} ms", entry.flush_micros / 1000, entry.flush_micros % 1000 / 100),
        entry.priority.to_string(),
        entry.started.split('.').next().unwrap_or_default().to_owned(),
        match (entry.is_suspect, follower.is_some_and(|follower| follower.is_full)) {
            (true, _) => "SUSPECT".to_owned(),
            (false, true) => "FULL".to_owned(),
            (false, false) => String::new(),
        },
    ]
}

/// Where clients reach it; with TLS only where there is no other way.
fn clients_at(entry: &NodeEntry) -> String {
    let secure = entry.ext_secure_tcp.filter(|_| entry.ext_tcp.port() == 0);
    secure.map_or_else(|| entry.ext_tcp.to_string(), |address| format!("{address} TLS"))
}

fn lag_words(node: NodeId, follower: Option<&FollowerEntry>, best: &Status) -> String {
    match follower {
        _ if best.leader == Some(node) => String::new(),
        Some(follower) if follower.is_linked => size(follower.lag_bytes),
        _ => "no link".to_owned(),
    }
}

/// Columns as wide as their widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join(GAP).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A figure on one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::operator::node::tests::sample;

    #[test]
    fn the_status_is_a_table_with_what_matters() {
        let status = sample();
        let stats = json!({ "storage": { "damageFound": 0, "sealedChunks": 3 } });
        let shown = status.lines(None, &stats);
        let expected = [
            "cluster  09090909-0000-0000-0000-000000000000",
            "leader   01010101-0000-0000-0000-000000000000 at 10.0.0.1:2112, term 7",
            "quorum   3 members, 1 may fail; 1 of them do not answer now",
            "",
        ];
        assert_eq!(shown[..4], expected);
        let cells = |line: &str| {
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let rows: Vec<Vec<String>> = shown[5..10].iter().map(|line| cells(line)).collect();
        assert_eq!(rows[0][3..5], ["member", "leader"]);
        assert_eq!(rows[1][3..9], ["member", "follower", "7", "5000", "0 B", "0.8 ms"]);
        assert_eq!(rows[2][3..5], ["clone", "clone"]);
        assert_eq!(rows[2].last().unwrap(), "FULL");
        assert_eq!(rows[3][3..8], ["read-only", "clone", "7", "5000", "no link"]);
        assert_eq!(rows[4][1..], ["10.0.0.3:2112", "member", "not heard of"]);
        assert_eq!(shown[12], "storage  damageFound 0, sealedChunks 3");
        let odd = json!({ "storage": { "a\u{1b}[2J": "b\nc" } });
        assert_eq!(status.lines(None, &odd)[12], "storage  a?[2J b?c");
    }
}
