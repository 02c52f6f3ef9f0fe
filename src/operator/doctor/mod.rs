//! `ringstore doctor`: looks at what a node needs of its host and of the other nodes, and says one line a finding.
//!
//! It promises to change nothing; the one thing that it writes is a file in the data directory to measure flushes in, which has no
//! name any more when the first byte is written. It judges with the options that the node would start with.

mod data;
mod finding;
mod host;
mod keys;
mod peers;
mod planes;

use serde_json::json;

use self::finding::{Finding, Grade, Group, worst};
use super::error::{OperatorError, chain};
use crate::config::{ConfigError, Loaded};
use crate::machine::{Machine, Tree};

/// Looks at everything and tells. True when nothing is a problem.
///
/// Options that cannot be used are a finding, too: then only what does not depend on them is looked at.
pub(super) fn run(
    options: &Result<Box<Loaded>, ConfigError>,
    as_json: bool,
    tell: &mut dyn FnMut(&str),
) -> Result<bool, OperatorError> {
    let machine = Machine::read(&Tree::real())?;
    let mut groups = vec![options_group(options)];
    let busy_poll_us = options.as_ref().map_or(0, |loaded| loaded.config.int_busy_poll_us);
    groups.extend(host::findings(&machine, busy_poll_us));
    if let Ok(loaded) = options {
        groups.push(keys::findings(&loaded.config));
        groups.push(data::findings(&loaded.config));
        groups.extend(planes::findings(&machine, &loaded.config));
        groups.push(peers::findings(&machine, &loaded.config));
    }
    let findings: Vec<Finding> = groups.into_iter().flat_map(|group| group.findings).collect();
    let worst = worst(&findings);
    if as_json {
        let all: Vec<_> = findings.iter().map(Finding::json).collect();
        let document = json!({ "worst": worst.word(), "findings": all });
        tell(&serde_json::to_string_pretty(&document).expect("a JSON value has a text form"));
    } else {
        findings.iter().for_each(|finding| tell(&finding.line()));
        tell(&summary(&findings));
    }
    Ok(worst < Grade::Problem)
}

fn options_group(options: &Result<Box<Loaded>, ConfigError>) -> Group {
    let mut group = Group::new("options");
    match options {
        Ok(loaded) => {
            let file = loaded.config.config_file.as_ref();
            let from = file.map_or("no configuration file".to_owned(), |file| file.display().to_string());
            group.fine(format!("the options can be used ({from})"));
            for warning in &loaded.warnings {
                group.advice(warning.clone(), "the node says the same when it starts");
            }
        }
        Err(error) => {
            group.problem(
                chain(error),
                "correct it and run the doctor again: keys, data directory, planes and peers were not looked at",
            );
        }
    }
    group
}

fn summary(findings: &[Finding]) -> String {
    let count = |grade: Grade| findings.iter().filter(|finding| finding.grade == grade).count();
    format!("{} fine, {} advice, {} problems", count(Grade::Fine), count(Grade::Advice), count(Grade::Problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Outcome};

    fn told(arguments: &[&str], as_json: bool) -> (bool, Vec<String>) {
        let arguments = arguments.iter().map(std::ffi::OsString::from);
        let loaded = config::load(arguments, [], |_| Err(std::io::ErrorKind::NotFound.into()));
        let mut lines = Vec::new();
        let mut tell = |line: &str| lines.push(line.to_owned());
        let loaded = loaded.map(|outcome| match outcome {
            Outcome::Run(loaded) => loaded,
            _ => panic!("neither help nor version was asked for"),
        });
        let is_fit = run(&loaded, as_json, &mut tell).unwrap();
        (is_fit, lines)
    }

    #[test]
    fn a_node_on_its_own_has_a_page() {
        let folder = std::env::temp_dir().join("ringstore-doctor-page");
        let (_, lines) = told(&["--db", folder.to_str().unwrap()], false);
        for group in ["options", "kernel", "limits", "clock", "keys", "data", "internal", "external", "host", "peers"] {
            assert!(lines.iter().any(|line| line.split_whitespace().nth(1) == Some(group)), "{group}: {lines:#?}");
        }
        assert!(lines.last().unwrap().contains(" fine, "), "{lines:#?}");
        assert!(!folder.exists(), "nothing was made");
    }

    #[test]
    fn options_that_cannot_be_used_are_a_problem() {
        let (is_fit, lines) = told(&["--cluster-size", "99"], true);
        let document: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert!(!is_fit && document["worst"] == "problem");
        assert!(document["findings"][0]["what"].as_str().unwrap().contains("ClusterSize"));
        assert!(document["findings"].as_array().unwrap().iter().all(|finding| finding["group"] != "peers"));
    }
}
