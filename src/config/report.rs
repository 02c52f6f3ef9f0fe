//! What start-up prints about the options: values in force, and where each came from.

use std::fmt::Write as _;

use crate::config::raw::{RawOptions, Source};
use crate::config::table::{self, OptionSpec};

/// Which options a report lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those that are not at their default: at start-up.
    Modified,
    /// All, by group: for `--what-if`.
    All,
}

/// A value in force that is not the one of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Adjusted {
    /// The option.
    pub(super) name: &'static str,
    /// The value in force.
    pub(super) value: String,
    /// Stands in the place of the source.
    pub(super) reason: &'static str,
}

/// The report.
pub(super) fn report(raw: &RawOptions, adjusted: &[Adjusted], extent: Extent) -> String {
    let lines: Vec<(&'static OptionSpec, String)> = table::present()
        .filter(|spec| extent == Extent::All || is_modified(raw, adjusted, spec))
        .map(|spec| (spec, line(raw, adjusted, spec)))
        .collect();
    let mut report = match (extent, lines.is_empty()) {
        (_, true) => "Options: all at their defaults\n".to_owned(),
        (Extent::Modified, false) => "Options that are not at their defaults:\n".to_owned(),
        (Extent::All, false) => "Options in force:\n".to_owned(),
    };
    let mut group = None;
    for (spec, line) in lines {
        if extent == Extent::All && group != Some(spec.group) {
            group = Some(spec.group);
            let _ = writeln!(report, "{}", spec.group.title());
        }
        report.push_str(&line);
    }
    report
}

fn is_modified(raw: &RawOptions, adjusted: &[Adjusted], spec: &OptionSpec) -> bool {
    raw.get(spec.name).2 > Source::Default || adjusted.iter().any(|adjusted| adjusted.name == spec.name)
}

fn line(raw: &RawOptions, adjusted: &[Adjusted], spec: &OptionSpec) -> String {
    let (_, text, origin) = raw.get(spec.name);
    let (value, origin) = match adjusted.iter().find(|adjusted| adjusted.name == spec.name) {
        Some(adjusted) => (adjusted.value.as_str(), adjusted.reason.to_owned()),
        None => (text, origin.to_string()),
    };
    format!("  {:<26} {} ({origin})\n", spec.name, spec.shown(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(values: &[(&str, &str, Source)]) -> RawOptions {
        let mut raw = RawOptions::default();
        for (name, text, origin) in values {
            raw.offer(table::find(name).unwrap(), (*text).to_owned(), *origin).unwrap();
        }
        raw
    }

    #[test]
    fn only_modified_options_are_listed_at_start() {
        let raw = raw(&[
            ("ClusterSize", "3", Source::ConfigFile),
            ("IntIp", "10.0.0.1", Source::Environment),
            ("Log", "", Source::CommandLine),
        ]);
        let adjusted = Adjusted { name: "MaxAppendSize", value: "262144".into(), reason: "lowered" };
        assert_eq!(
            report(&raw, &[adjusted], Extent::Modified),
            "Options that are not at their defaults:\n  \
             Log                        <empty> (command line)\n  \
             IntIp                      10.0.0.1 (environment)\n  \
             ClusterSize                3 (config file)\n  \
             MaxAppendSize              262144 (lowered)\n"
        );
        assert_eq!(report(&RawOptions::default(), &[], Extent::Modified), "Options: all at their defaults\n");
    }

    #[test]
    fn what_if_lists_all_options_by_group() {
        let report = report(&raw(&[("IntIp", "10.0.0.1", Source::Environment)]), &[], Extent::All);
        for spec in table::present() {
            assert!(report.contains(&format!("\n  {} ", spec.name)), "{}", spec.name);
            assert_eq!(report.matches(&format!("\n{}\n", spec.group.title())).count(), 1, "{report}");
        }
        assert!(report.contains("  IntIp                      10.0.0.1 (environment)\n"), "{report}");
        assert!(report.contains("  ExtIp                      127.0.0.1 (default)\n"), "{report}");
        assert!(report.contains("  GossipSeed                 <empty> (default)\n"), "{report}");
        assert!(!report.contains("RunProjections"));
    }
}
