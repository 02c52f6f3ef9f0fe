//! What runs went through: how often each state, transition and fault was reached. What is known and was never reached
//! shows as 0.

use std::collections::BTreeMap;
use std::fmt;

use crate::engine::Role;

use super::kinds::FAULTS;

const ROLES: usize = Role::ALL.len();

/// What is counted besides the kinds of faults, by heading.
const KNOWN: [(&str, &[&str]); 9] = [
    (
        "workload",
        &[
            "acknowledged writes",
            "repeated writes found written",
            "refused writes",
            "soft deletes",
            "metadata writes",
            "hard deletes",
            "revivals",
            "reads (leader)",
            "reads (any node)",
            "timeouts",
            "tries elsewhere",
        ],
    ),
    (
        "disks",
        &[
            "flushes",
            "flushes that failed",
            "chunks",
            "chunks sealed",
            "chunks not sealed for damage",
            "sealed chunks believed",
            "crashes (process)",
            "crashes (power)",
            "writes lost in a power cut",
            "writes torn in a power cut",
            "writes in the wrong place",
            "disks replaced",
            "starts",
            "starts with a torn tail",
            "starts of a suspect",
            "runs blocked by suspicion",
        ],
    ),
    (
        "rot",
        &[
            "rot in a running node",
            "rot in a node that is down",
            "ranges repaired",
            "rot in a footer",
            "rot in a header",
            "rot in a mark",
            "rot in the state file",
            "pages mended",
            "index waits for a repair",
            "ranges repaired at start",
            "tails cut at start: other log",
            "tails cut at start: patience",
            "repairs that found nobody",
            "repairs refused",
        ],
    ),
    (
        "index",
        &[
            "index tables written",
            "index merges",
            "index tables at start",
            "index files lost in a power cut",
            "index behind after a start",
            "rot in the index",
            "index tables found damaged",
            "index sound again after rot",
            "index rebuilds",
        ],
    ),
    ("members", &["member changes asked for", "member changes done", "member changes refused"]),
    (
        "cuts of the log",
        &["cuts", "cuts of an epoch", "cuts across a chunk end", "cuts during a cut", "cuts of what a leader wrote"],
    ),
    (
        "replication",
        &[
            "commits",
            "sends from the buffer",
            "sends from files",
            "stalled followers",
            "subscriptions",
            "subscriptions refused",
            "messages twice",
        ],
    ),
    (
        "elections",
        &[
            "elections",
            "pre-votes",
            "votes",
            "votes for a hand-over",
            "hand-overs refused",
            "hand-overs without an answer",
            "granted",
            "refused: hears a leader",
            "refused: has voted",
            "refused: log is newer",
            "refused: old term",
            "refused: otherwise",
        ],
    ),
    ("checks", &["turns", "bytes compared", "reads judged", "histories judged", "final comparisons"]),
];

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
    roles: [[u64; ROLES]; ROLES],
}

impl Coverage {
    /// How often this happened.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// How often a node went from one role to the other.
    #[must_use]
    pub fn transitions(&self, from: Role, to: Role) -> u64 {
        self.roles[from as usize][to as usize]
    }

    /// Takes over what another run counted.
    pub fn add(&mut self, other: &Coverage) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
        for (sums, counts) in self.roles.iter_mut().zip(&other.roles) {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    pub(super) fn note(&mut self, what: &'static str, times: u64) {
        debug_assert!(is_known(what), "`{what}` is not in the table");
        *self.counts.entry(what).or_default() += times;
    }

    pub(super) fn note_role(&mut self, from: Role, to: Role) {
        self.roles[from as usize][to as usize] += 1;
    }
}

fn is_known(what: &str) -> bool {
    FAULTS.iter().any(|(_, name)| *name == what) || KNOWN.iter().any(|(_, names)| names.contains(&what))
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults")?;
        for (_, name) in FAULTS.iter().filter(|(fault, _)| fault.is_counted()) {
            writeln!(f, "  {name:<30} {:>14}", self.count(name))?;
        }
        for (heading, names) in KNOWN {
            writeln!(f, "{heading}")?;
            for name in names {
                writeln!(f, "  {name:<30} {:>14}", self.count(name))?;
            }
        }
        write!(f, "roles, from (down) to (across)\n{:<17}", "")?;
        for to in Role::ALL {
            write!(f, "{:>12.11}", format!("{to:?}"))?;
        }
        for from in Role::ALL {
            write!(f, "\n  {:<15.15}", format!("{from:?}"))?;
            for to in Role::ALL {
                write!(f, "{:>12}", self.transitions(from, to))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_reached_is_shown_too() {
        let mut coverage = Coverage::default();
        coverage.note("cuts", 3);
        coverage.note_role(Role::Leader, Role::Unknown);
        let mut sums = coverage.clone();
        sums.add(&coverage);
        assert_eq!((sums.count("cuts"), sums.transitions(Role::Leader, Role::Unknown)), (6, 2));
        let text = sums.to_string();
        let line = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
        assert!(line("cuts  ").ends_with(" 6") && line("commits").ends_with(" 0"), "{text}");
    }
}
