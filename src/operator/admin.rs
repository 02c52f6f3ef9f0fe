//! `ringstore admin`: what the cluster is, a node's figures, and changes of members and leadership.
//!
//! Every change says first what it does to the quorum, goes to the leader wherever it is asked for, and is judged there.
//! Whatever was interrupted is asked for again: what is done already is seen and not done twice.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use super::access::Access;
use super::error::{OperatorError, refused};
use super::node::{Answered, Status};
use super::progress::size;
use crate::types::NodeId;

/// Between two looks at what is waited for.
const POLL_PAUSE: Duration = Duration::from_millis(200);
/// Between two lines about waiting.
const TELL_PAUSE: Duration = Duration::from_secs(5);
/// How long a leader may take to be found, and a change to be seen, when the node that was asked is busy electing.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);
/// A clone that misses no more than this has caught up: what is written meanwhile is on its way.
const CAUGHT_UP_BYTES: u64 = 1 << 20;

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Shows the nodes of the cluster, who leads, and how many members may fail.
    Status {
        /// Print what the nodes answered, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints the figures of the node that is asked, as JSON: what GET /stats of its internal port answers.
    Stats,
    /// Makes a clone a voting member, once it has caught up.
    Add {
        /// The clone: the beginning of its id, or its internal address
        node: String,
        #[command(flatten)]
        change: Change,
    },
    /// Takes a member out; if it runs it goes on as a clone.
    Remove {
        /// The member: the beginning of its id, or its internal address
        node: String,
        #[command(flatten)]
        change: Change,
    },
    /// Puts a clone in the place of a member: adds the one, then removes the other. After an interruption run it again.
    Replace {
        /// The member that is lost, best by its id: another node may have its address
        old: String,
        /// The clone that takes its place
        new: String,
        #[command(flatten)]
        change: Change,
    },
    /// Trusts the log of the suspect node that is asked (--node), so that it votes like any other
    ///
    /// A node is suspect when its disk has lost what was flushed: it may have acknowledged writes that it lacks now. It
    /// becomes sound by itself when it has followed a leader. Only where no leader can be elected, because a member that is
    /// sound never comes back, its log must be taken for what it is.
    Trust {
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
    /// Hands leadership over.
    Resign {
        /// Who is to lead; without it the member that has most of the log
        #[arg(long, value_name = "NODE")]
        to: Option<String>,
        #[command(flatten)]
        change: Change,
    },
}

/// What all changes take.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Change {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// How long a clone may take to catch up
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    wait: u64,
}

/// The node that was named, and how to get in.
struct Asked {
    address: SocketAddr,
    access: Access,
}

impl Asked {
    fn status(&self) -> Result<Status, OperatorError> {
        self.access.status(self.address)
    }

    fn get(&self, path: &str) -> Result<Value, OperatorError> {
        self.access.get(self.address, path)
    }
}

/// Runs one.
pub(super) fn run(asked: Option<&str>, access: Access, command: &AdminCommand) -> Result<(), OperatorError> {
    let address = access.node(asked)?;
    let asked = &Asked { address, access };
    match command {
        AdminCommand::Status { json } => show_status(asked, *json),
        AdminCommand::Stats => show_stats(asked),
        AdminCommand::Add { node, change } => {
            let status = leader_status(asked)?;
            let node = status.find(node)?;
            replace(asked, &status, None, Some(node), *change)
        }
        AdminCommand::Remove { node, change } => {
            let status = leader_status(asked)?;
            let node = status.find(node)?;
            replace(asked, &status, Some(node), None, *change)
        }
        AdminCommand::Replace { old, new, change } => {
            let status = leader_status(asked)?;
            // Who was removed before an interruption may be known to nobody any more.
            let new = status.find(new)?;
            let old = match (status.find(old), status.is_member(new)) {
                (Ok(old), _) => Some(old),
                (Err(_), true) => None,
                (Err(error), false) => return Err(error),
            };
            if old == Some(new) {
                return Err(refused("the two nodes are one: name the lost one by its id"));
            }
            replace(asked, &status, old, Some(new), *change)
        }
        AdminCommand::Trust { yes } => trust(asked, *yes),
        AdminCommand::Resign { to, change } => resign(asked, to.as_deref(), *change),
    }
}

fn show_status(asked: &Asked, as_json: bool) -> Result<(), OperatorError> {
    if as_json {
        let status = asked.get("/admin/status")?;
        let leader = asked.status().ok().and_then(|status| status.leader.and_then(|leader| status.address_of(leader)));
        let leader = leader
            .filter(|leader| *leader != asked.address)
            .and_then(|leader| asked.access.get(leader, "/admin/status").ok());
        let stats = asked.get("/stats")?;
        let all = json!({ "asked": status, "leader": leader, "storage": stats["storage"], "index": stats["index"] });
        print_json(&all);
        return Ok(());
    }
    let own = asked.status()?;
    let leader = own.leader.filter(|leader| *leader != own.node).and_then(|leader| own.address_of(leader));
    let leader = leader.and_then(|address| asked.access.status(address).ok());
    let stats = asked.get("/stats").unwrap_or(Value::Null);
    own.lines(leader.as_ref(), &stats).iter().for_each(|line| println!("{line}"));
    Ok(())
}

fn show_stats(asked: &Asked) -> Result<(), OperatorError> {
    print_json(&asked.get("/stats")?);
    Ok(())
}

fn print_json(value: &Value) {
    println!("{}", serde_json::to_string_pretty(value).expect("a JSON value has a text form"));
}

/// The status of the leader, as the leader itself says.
fn leader_status(asked: &Asked) -> Result<Status, OperatorError> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut last = String::new();
    loop {
        match look_for_leader(asked) {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => last = "nobody leads: a majority of the members must run".to_owned(),
            // The node that was named must answer; what it names may have gone.
            Err(error) if last.is_empty() => return Err(error),
            Err(error) => last = error.to_string(),
        }
        if Instant::now() >= deadline {
            return Err(refused(format!("no leader was found within {} s: {last}", SETTLE_LIMIT.as_secs())));
        }
        thread::sleep(POLL_PAUSE);
    }
}

fn look_for_leader(asked: &Asked) -> Result<Option<Status>, OperatorError> {
    let status = asked.status()?;
    if status.cluster.is_none() {
        return Err(refused(format!("the node at {} is in no cluster yet", asked.address)));
    }
    if status.leader == Some(status.node) {
        return Ok(Some(status).filter(|status| status.role == "leader"));
    }
    let address = status.leader.and_then(|leader| status.address_of(leader));
    let Some(status) = address.and_then(|address| asked.access.status(address).ok()) else { return Ok(None) };
    Ok(Some(status).filter(|status| status.leader == Some(status.node) && status.role == "leader"))
}

/// Adds `new`, then removes `old`, as far as that is not done already.
fn replace(
    asked: &Asked,
    status: &Status,
    old: Option<NodeId>,
    new: Option<NodeId>,
    change: Change,
) -> Result<(), OperatorError> {
    let add = new.filter(|new| !status.is_member(*new));
    let remove = old.filter(|old| status.is_member(*old));
    if add.is_none() && remove.is_none() {
        println!("nothing to do: it is so already");
        return Ok(());
    }
    for line in announcement(status, add, remove) {
        println!("{line}");
    }
    confirm(change.yes)?;
    if let Some(node) = add {
        wait_for_clone(asked, node, change.wait)?;
        carry_out(asked, "/admin/members/add", node, true)?;
    }
    if let Some(node) = remove {
        carry_out(asked, "/admin/members/remove", node, false)?;
    }
    Ok(())
}

/// How many of so many members may fail while the rest goes on.
pub(super) fn may_fail(members: usize) -> usize {
    members.saturating_sub(1) / 2
}

/// "3 members, 1 may fail".
pub(super) fn quorum_words(members: usize) -> String {
    format!("{members} {}, {} may fail", if members == 1 { "member" } else { "members" }, may_fail(members))
}

fn announcement(status: &Status, add: Option<NodeId>, remove: Option<NodeId>) -> Vec<String> {
    let named = |node: NodeId| match status.address_of(node) {
        Some(address) => format!("{node} at {address}"),
        None => node.to_string(),
    };
    let count = status.members.len();
    let mut steps = vec![count];
    let mut lines = Vec::new();
    if let Some(node) = add {
        lines.push(format!("add member {}", named(node)));
        steps.push(count + 1);
    }
    if let Some(node) = remove {
        lines.push(format!("remove member {}", named(node)));
        steps.push(steps[steps.len() - 1] - 1);
    }
    let quorum: Vec<String> = steps.into_iter().map(quorum_words).collect();
    lines.push(quorum.join(" → "));
    let silent = status.members.iter().filter(|member| !status.entry(member.node).is_some_and(|entry| entry.is_alive));
    let silent = silent.filter(|member| Some(member.node) != remove).count();
    if silent > 0 {
        lines.push(format!("{silent} of the members do not answer now: the quorum has that much less to spare"));
    }
    lines
}

/// Asks the person at the terminal.
fn confirm(yes: bool) -> Result<(), OperatorError> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(refused("nobody is there to confirm it (stdin is no terminal): nothing was done; give --yes"));
    }
    eprint!("Go on? [y/N] ");
    // A prompt that is not seen is answered with nothing, which means no.
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let agreed = read.is_ok() && ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str());
    if agreed { Ok(()) } else { Err(refused("not confirmed: nothing was done")) }
}

/// Waits until a clone has what was committed when the wait began, and hardly misses anything since.
fn wait_for_clone(asked: &Asked, clone: NodeId, seconds: u64) -> Result<(), OperatorError> {
    let began = Instant::now();
    let mut told = Instant::now();
    let mut wanted = None;
    loop {
        let status = leader_status(asked)?;
        let wanted = *wanted.get_or_insert(status.commit_position);
        let entry = status.entry(clone);
        if entry.is_some_and(|entry| entry.is_read_only) {
            // The node says so better.
            return Ok(());
        }
        let follower = status.followers.iter().find(|follower| follower.node == clone);
        let is_there = follower.is_some_and(|follower| {
            follower.is_linked && follower.acknowledged >= wanted && follower.lag_bytes <= CAUGHT_UP_BYTES
        });
        if is_there {
            return Ok(());
        }
        let missing = match follower {
            Some(follower) if follower.is_linked => format!("is {} behind", size(follower.lag_bytes)),
            _ => "does not follow the leader".to_owned(),
        };
        if began.elapsed() >= Duration::from_secs(seconds) {
            return Err(refused(format!(
                "node {clone} {missing} after {seconds} s, so it was not added: look whether it runs, and give it more \
                 time with --wait"
            )));
        }
        if told.elapsed() >= TELL_PAUSE {
            told = Instant::now();
            eprintln!("waiting: node {clone} {missing}");
        }
        thread::sleep(POLL_PAUSE);
    }
}

/// One change: asks the leader, and waits until the list in force has it. A leader that is lost meanwhile is looked for
/// again: the change is one that may be asked for twice.
fn carry_out(asked: &Asked, path: &str, node: NodeId, is_member_then: bool) -> Result<(), OperatorError> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    let mut unclear = String::new();
    loop {
        let status = leader_status(asked)?;
        if status.is_member(node) == is_member_then && !status.is_change_pending {
            let done = if is_member_then { "is a member now" } else { "is no member any more" };
            println!("done: node {node} {done}; {}", quorum_words(status.members.len()));
            return Ok(());
        }
        if Instant::now() >= deadline {
            let words = if unclear.is_empty() { "the change is not committed yet".to_owned() } else { unclear };
            return Err(refused(format!(
                "{words}; it may still be carried out: look at `ringstore admin status`, and run the command again"
            )));
        }
        let leader = status.address_of(status.node).unwrap_or(asked.address);
        if !status.is_change_pending {
            match asked.access.change(leader, path, &json!({ "node": node })) {
                Answered::Done => continue,
                Answered::Refused(words) if words.contains("does not lead") => unclear = words,
                Answered::Refused(words) => return Err(refused(words)),
                Answered::Unclear(words) => unclear = words,
            }
        }
        thread::sleep(POLL_PAUSE);
    }
}

fn trust(asked: &Asked, yes: bool) -> Result<(), OperatorError> {
    let status = asked.status()?;
    if !status.is_suspect {
        println!("nothing to do: node {} at {} is not suspect", status.node, asked.address);
        return Ok(());
    }
    println!("node {} at {} may have acknowledged writes that its disk has lost.", status.node, asked.address);
    println!("Where no other living member has them, they are lost for good once this log is trusted.");
    println!("While all other members can be brought back, bring them back instead: then nothing is lost.");
    confirm(yes)?;
    match asked.access.change(asked.address, "/admin/trust", &json!({})) {
        Answered::Done => println!("done: node {} votes like any other", status.node),
        Answered::Refused(words) | Answered::Unclear(words) => return Err(refused(words)),
    }
    Ok(())
}

fn resign(asked: &Asked, to: Option<&str>, change: Change) -> Result<(), OperatorError> {
    let status = leader_status(asked)?;
    let to = to.map(|named| status.find(named)).transpose()?;
    if to == Some(status.node) {
        println!("nothing to do: node {} leads", status.node);
        return Ok(());
    }
    let from = status.address_of(status.node).unwrap_or(asked.address);
    let target = to.map_or("the member that has most of the log".to_owned(), |node| format!("node {node}"));
    println!("leadership goes from node {} at {from} to {target}; writes wait for an election", status.node);
    println!("{} before and after", quorum_words(status.members.len()));
    confirm(change.yes)?;
    let body = to.map_or(json!({}), |to| json!({ "to": to }));
    match asked.access.change(from, "/admin/resign", &body) {
        Answered::Done => {}
        Answered::Refused(words) | Answered::Unclear(words) => return Err(refused(words)),
    }
    let deadline = Instant::now() + SETTLE_LIMIT;
    while Instant::now() < deadline {
        let now = leader_status(asked)?;
        if now.node != status.node {
            let is_as_asked = to.is_none_or(|to| to == now.node);
            let words = if is_as_asked { "done" } else { "another one was elected" };
            println!("{words}: node {} leads term {}", now.node, now.term);
            return Ok(());
        }
        thread::sleep(POLL_PAUSE);
    }
    Err(refused(format!("node {} leads again: look at the logs of the nodes for why nobody took over", status.node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::node::tests::{id, sample};

    #[test]
    fn a_change_says_what_it_does_to_the_quorum() {
        let check = |add: Option<u8>, remove: Option<u8>, expected: &[&str]| {
            assert_eq!(announcement(&sample(), add.map(id), remove.map(id)), expected);
        };
        let silent = "1 of the members do not answer now: the quorum has that much less to spare";
        let add = "add member 04040404-0000-0000-0000-000000000000 at 10.0.0.3:2112";
        let remove = "remove member 03030303-0000-0000-0000-000000000000 at 10.0.0.3:2112";
        check(Some(4), None, &[add, "3 members, 1 may fail → 4 members, 1 may fail", silent]);
        check(None, Some(3), &[remove, "3 members, 1 may fail → 2 members, 0 may fail"]);
        let both = "3 members, 1 may fail → 4 members, 1 may fail → 3 members, 1 may fail";
        check(Some(4), Some(3), &[add, remove, both]);
        assert_eq!([1, 2, 3, 4, 5, 7].map(may_fail), [0, 0, 1, 1, 2, 3]);
        assert_eq!(quorum_words(1), "1 member, 0 may fail");
    }
}
