//! The manual page about the options, made of the table.
//!
//! `src/manual/options.rs` is what [`module`] answers; a test here compares the two, and rewrites the file when
//! `RINGSTORE_REWRITE` is set in its environment.

use std::fmt::Write as _;

use crate::config::table::{self, OptionSpec, Support};

/// The text around the tables.
const BEFORE: &str = "\
# Options

How a node is told what to do. This page is made of the table in `src/config/table/`; do not edit it.

## Where options come from

Each option can be given in three ways. The first of these that has it wins, as a whole: lists are not merged.

| Source | Form | Notes |
|---|---|---|
| Command line | `--int-ip 10.0.0.1`, `--int-ip=10.0.0.1` | Case and dashes do not matter, so the spellings of v5 work: `-IntIp 10.0.0.1`. A switch needs no value: `--what-if`. Lists may be repeated. |
| Environment | `EVENTSTORE_INT_IP=10.0.0.1` | Case does not matter. An empty value counts as not set. `${env:POD_IP}` as the whole value is replaced by that variable's. |
| YAML file | `IntIp: 10.0.0.1` | The file that `--config` or `EVENTSTORE_CONFIG` names, else `/etc/eventstore/eventstore.conf` if it exists. One flat mapping; case and dashes of keys do not matter. Lists are sequences, or texts with commas. |
| Default | | The tables below. |

An unknown flag or YAML key is an error that suggests the nearest known name. An unknown `EVENTSTORE_` variable is a
warning: Kubernetes sets some of its own. At start a node prints each option that is not at its default, with its value
and its source; `--what-if` prints all of them, checks them and exits.

Switches accept true, false, yes, no, on, off, 1 and 0. Times are whole milliseconds. Sizes are bytes, plain or with
KiB, MiB or GiB.
";

/// What stands before the list of options that are missing.
const BEFORE_MISSING: &str = "
## Options of v5 that are missing

These are recognised and ignored with a warning, whichever source they come from, so that an existing configuration
starts.

";

/// The page, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = BEFORE.to_owned();
    let mut group = None;
    for spec in table::present() {
        if group != Some(spec.group) {
            group = Some(spec.group);
            let _ = writeln!(page, "\n## {}\n", spec.group.title());
            page.push_str("| YAML key | Flag | Environment | Default | Meaning |\n|---|---|---|---|---|\n");
        }
        page.push_str(&row(spec));
    }
    page.push_str(BEFORE_MISSING);
    for spec in table::all() {
        if let Support::NotYet { consequence } = spec.support {
            let colon = if consequence.is_empty() { "" } else { ": " };
            let _ = writeln!(page, "- `{}`{colon}{consequence}", spec.name);
        }
    }
    page
}

/// The page as the source text of a doc module.
#[must_use]
pub fn module() -> String {
    page().lines().map(|line| if line.is_empty() { "//!\n".to_owned() } else { format!("//! {line}\n") }).collect()
}

fn row(spec: &OptionSpec) -> String {
    let default = if spec.default.is_empty() { "none".to_owned() } else { format!("`{}`", spec.default) };
    format!(
        "| `{}` | `{}` | `{}` | {default} | {} Must be {}; for example `{}`. |\n",
        spec.name,
        spec.flag(),
        spec.environment_name(),
        spec.help,
        spec.kind.expected(),
        spec.example
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The manual's page is the one that the table makes. After a change of the table, run this test with
    /// `RINGSTORE_REWRITE=1` and read the difference.
    #[test]
    fn the_page_in_the_manual_agrees_with_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/options.rs");
        let expected = module();
        if std::env::var_os("RINGSTORE_REWRITE").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == expected, "src/manual/options.rs is out of date; run this test with RINGSTORE_REWRITE=1");
    }

    #[test]
    fn every_option_has_its_line() {
        let page = page();
        for spec in table::all() {
            assert!(page.contains(&format!("`{}`", spec.name)), "{}", spec.name);
        }
        // A bar inside a cell would end it.
        assert!(page.lines().filter(|line| line.starts_with("| `")).all(|line| line.matches('|').count() == 6));
    }
}
