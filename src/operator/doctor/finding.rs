//! One line of what `ringstore doctor` has to say.

use serde_json::{Value, json};

/// How a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// As it should be, or cannot be otherwise.
    Fine,
    /// It works, and could be better.
    Advice,
    /// It does not work, or what was promised cannot be kept.
    Problem,
}

impl Grade {
    pub(super) fn word(self) -> &'static str {
        match self {
            Grade::Fine => "fine",
            Grade::Advice => "advice",
            Grade::Problem => "problem",
        }
    }
}

/// What was looked at, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) group: &'static str,
    pub(super) grade: Grade,
    /// What was found, with the value and the limit.
    pub(super) what: String,
    /// What to do. Invariant: empty only when it is fine.
    pub(super) next: String,
}

impl Finding {
    /// The line for people. Words of other machines are in it: what would do something to a terminal is a question mark.
    pub(super) fn line(&self) -> String {
        let next = if self.next.is_empty() { String::new() } else { format!("; {}", self.next) };
        let line = format!("{:<7}  {:<8}  {}{next}", self.grade.word(), self.group, self.what);
        line.replace(char::is_control, "?")
    }

    pub(super) fn json(&self) -> Value {
        json!({ "group": self.group, "grade": self.grade.word(), "what": self.what, "next": self.next })
    }
}

/// The findings of one group.
#[derive(Debug)]
pub(super) struct Group {
    name: &'static str,
    pub(super) findings: Vec<Finding>,
}

impl Group {
    pub(super) fn new(name: &'static str) -> Group {
        Group { name, findings: Vec::new() }
    }

    pub(super) fn fine(&mut self, what: impl Into<String>) {
        self.add(Grade::Fine, what.into(), String::new());
    }

    pub(super) fn advice(&mut self, what: impl Into<String>, next: impl Into<String>) {
        self.add(Grade::Advice, what.into(), next.into());
    }

    pub(super) fn problem(&mut self, what: impl Into<String>, next: impl Into<String>) {
        self.add(Grade::Problem, what.into(), next.into());
    }

    fn add(&mut self, grade: Grade, what: String, next: String) {
        assert!(grade == Grade::Fine || !next.is_empty(), "\"{what}\" has no next step");
        self.findings.push(Finding { group: self.name, grade, what, next });
    }
}

/// The worst of all.
pub(super) fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_grade_group_and_next_step() {
        let mut group = Group::new("limits");
        group.fine("all is well");
        assert_eq!(worst(&group.findings), Grade::Fine);
        group.problem("one\x1b[2J is not", "mend it");
        group.advice("two is slow", "speed it up");
        let lines: Vec<String> = group.findings.iter().map(Finding::line).collect();
        let expected = [
            "fine     limits    all is well",
            "problem  limits    one?[2J is not; mend it",
            "advice   limits    two is slow; speed it up",
        ];
        assert_eq!(lines, expected);
        assert_eq!(worst(&group.findings), Grade::Problem);
        assert_eq!(group.findings[1].json()["grade"], "problem");
    }
}
