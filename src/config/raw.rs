//! What the sources said, before anyone judges it: for each option the text of the source that outranks the others.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::error::ConfigError;
use crate::config::table::{self, OptionSpec, Support};

/// Where a value came from. A greater source outranks a smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The YAML file.
    ConfigFile,
    /// An `EVENTSTORE_` variable.
    Environment,
    /// A flag.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Default => "default",
            Source::ConfigFile => "config file",
            Source::Environment => "environment",
            Source::CommandLine => "command line",
        })
    }
}

/// The text of one option and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawValue {
    pub(super) text: String,
    pub(super) origin: Source,
}

/// All options that some source has, plus what the operator should hear about them.
#[derive(Debug, Default)]
pub(super) struct RawOptions {
    values: BTreeMap<&'static str, RawValue>,
    pub(super) warnings: Vec<String>,
}

impl RawOptions {
    /// Takes a value in, unless a source of higher rank has one already. An option that ringstore does not have yet
    /// leaves a warning only.
    ///
    /// # Errors
    ///
    /// When the same source has a value for this option already.
    pub(super) fn offer(&mut self, spec: &'static OptionSpec, text: String, origin: Source) -> Result<(), ConfigError> {
        if let Support::NotYet { consequence } = spec.support {
            self.warn_of_missing_option(spec.name, origin, consequence);
            return Ok(());
        }
        if let Some(known) = self.values.get(spec.name) {
            if known.origin == origin {
                let (first, second) = (spec.shown(&known.text).to_owned(), spec.shown(&text).to_owned());
                return Err(ConfigError::GivenTwice { name: spec.name, origin, first, second });
            }
            if known.origin > origin {
                return Ok(());
            }
        }
        self.values.insert(spec.name, RawValue { text, origin });
        Ok(())
    }

    /// The value in force, with its source.
    ///
    /// # Panics
    ///
    /// When no option has this name: that is our mistake, not the operator's.
    pub(super) fn get(&self, name: &str) -> (&'static OptionSpec, &str, Source) {
        let spec = table::find(name).unwrap_or_else(|| panic!("the table has no option {name}"));
        match self.values.get(spec.name) {
            Some(value) => (spec, &value.text, value.origin),
            None => (spec, spec.default, Source::Default),
        }
    }

    fn warn_of_missing_option(&mut self, name: &str, origin: Source, consequence: &str) {
        let mut warning =
            format!("{name} ({origin}) is an option of v5 that ringstore does not have yet; it is ignored");
        if !consequence.is_empty() {
            warning.push_str(": ");
            warning.push_str(consequence);
        }
        self.warnings.push(warning);
    }
}
