//! Options: flags, environment, YAML file, defaults.
//!
//! Two stages. Parsing collects for each option the text of the source that outranks the others and judges nothing but
//! names. Then the texts become a [`Config`], which is checked once and trusted afterwards. All of it comes from one
//! [`table`]: parser, help, start-up report and the page in the manual.
//!
//! It promises that an unknown name, a value out of bounds and a contradiction are errors that name the value, the
//! limit and the next step, and that options of v5 that are missing here are warnings.
//!
//! It leaves reading arguments, environment and files to its caller, and printing too. **Invariant:** nothing here
//! touches the process or the file system but by what [`load`] is given.

mod check;
mod command_line;
mod environment;
mod error;
mod file;
pub mod manual;
mod pinning;
mod raw;
mod report;
mod security;
mod settings;
mod suggest;
pub mod table;
mod unused;
mod values;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use error::ConfigError;
pub use pinning::CpuPinning;
pub use raw::Source;
pub use settings::{AdvertiseAs, Config, DnsDiscovery, Heartbeat, OnExt, Security};

use crate::config::raw::RawOptions;
use crate::config::report::{Adjusted, Extent};
use crate::config::values::Values;

/// Read when no file is named and this one exists: the place where packages of v5 put it.
pub const DEFAULT_FILE: &str = "/etc/eventstore/eventstore.conf";

/// What the options ask for.
#[derive(Debug)]
pub enum Outcome {
    /// Print this help text and exit with success.
    Help(String),
    /// Print this line and exit with success.
    Version(String),
    /// Start the node, or with `what_if` only print.
    Run(Box<Loaded>),
}

/// Checked options and what to print about them.
#[derive(Debug)]
pub struct Loaded {
    /// The options.
    pub config: Config,
    /// Options with value and source, one a line: those not at their default, with `what_if` all.
    pub report: String,
    /// What the operator should hear, one sentence each.
    pub warnings: Vec<String>,
    /// True when nothing is to be started.
    pub what_if: bool,
}

/// Reads all sources and checks the result.
///
/// `arguments` come without the program's name. `read_file` reads a whole file; it is called at most once.
///
/// # Errors
///
/// The first thing that is wrong. `--help` and `--version` are answered in spite of anything wrong outside the command
/// line.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Outcome, ConfigError> {
    let mut raw = RawOptions::default();
    command_line::collect(arguments.into_iter().collect(), &mut raw)?;
    if let Some(text) = text_asked_for(&raw)? {
        return Ok(text);
    }
    environment::collect(environment.into_iter().collect(), &mut raw)?;
    let config_file = collect_file(read_file, &mut raw)?;
    if let Some(text) = text_asked_for(&raw)? {
        return Ok(text);
    }
    let what_if = Values::new(&raw).switch("WhatIf")?;
    let mut checked = check::check(&raw)?;
    if raw.get("Config").2 == Source::Default
        && let Some(path) = &config_file
    {
        let value = path.display().to_string();
        checked.adjusted.push(Adjusted { name: "Config", value, reason: "default, the file exists" });
    }
    checked.config.config_file = config_file;
    let extent = if what_if { Extent::All } else { Extent::Modified };
    let report = report::report(&raw, &checked.adjusted, extent);
    let mut warnings = raw.warnings;
    warnings.append(&mut checked.warnings);
    Ok(Outcome::Run(Box::new(Loaded { config: checked.config, report, warnings, what_if })))
}

/// The name and version of this program.
#[must_use]
pub fn version() -> String {
    format!("ringstore {}", env!("CARGO_PKG_VERSION"))
}

/// What `--version` prints: the version, and the formats that matter when nodes of two releases run together.
#[must_use]
pub fn version_text() -> String {
    let formats = FORMATS.map(|(what, version)| format!("{what} {version}"));
    format!("{}\nreads and writes: {}", version(), formats.join(", "))
}

/// What files and handshakes say of themselves; another version is refused with words.
const FORMATS: [(&str, u32); 4] = [
    ("chunk files", crate::storage::CHUNK_FORMAT_VERSION),
    ("state file", crate::storage::STATE_FORMAT_VERSION),
    ("replication links", crate::codec::link::PROTOCOL_VERSION as u32),
    ("gossip", crate::gossip::EXCHANGE_FORMAT),
];

fn text_asked_for(raw: &RawOptions) -> Result<Option<Outcome>, ConfigError> {
    let values = Values::new(raw);
    if values.switch("Help")? {
        return Ok(Some(Outcome::Help(command_line::help())));
    }
    Ok(values.switch("Version")?.then(|| Outcome::Version(version_text())))
}

/// Takes in the configuration file; answers its path when there is one.
fn collect_file(
    read_file: impl FnOnce(&Path) -> io::Result<String>,
    raw: &mut RawOptions,
) -> Result<Option<PathBuf>, ConfigError> {
    let origin = raw.get("Config").2;
    let named = Values::new(raw).optional_path("Config")?;
    let is_optional = named.is_none();
    let path = named.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(error) if is_optional && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(ConfigError::FileUnreadable { path, origin, cause }),
    };
    file::collect(&path, &text, raw)?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests;
