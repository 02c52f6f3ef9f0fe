//! The command line: puts arguments in the spellings of v5 and ours in order, then hands them to `clap`.
//!
//! `clap` is built from the table. It knows one spelling, `--int-ip=1`; v5 users write `-IntIp 1`, `--IntIp`, `--intip`
//! too, so the spelling is settled before. That step also answers the mistakes that deserve a better answer than a
//! general parser can give: unknown names, missing values, repetitions.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use crate::config::error::ConfigError;
use crate::config::raw::{RawOptions, Source};
use crate::config::suggest::nearest;
use crate::config::table::{self, Kind, OptionSpec};

/// Columns of the help text at most.
const HELP_COLUMNS: usize = 96;

/// Columns in front of what help says about an option.
const HELP_INDENT: usize = 10;

/// Takes in the arguments, without the program's name.
pub(super) fn collect(arguments: Vec<OsString>, raw: &mut RawOptions) -> Result<(), ConfigError> {
    let canonical = canonical(&unicode(arguments)?)?;
    if canonical.is_empty() {
        return Ok(());
    }
    let parsed = command().no_binary_name(true).try_get_matches_from(canonical);
    let matches = parsed.map_err(|error| ConfigError::CommandLine { message: error.to_string() })?;
    for spec in table::all() {
        let Some(values) = matches.get_many::<String>(spec.name) else { continue };
        let values: Vec<&str> = values.map(String::as_str).collect();
        raw.offer(spec, values.join(","), Source::CommandLine)?;
    }
    Ok(())
}

/// The text that `--help` prints.
pub(super) fn help() -> String {
    command().render_help().to_string()
}

fn command() -> Command {
    Command::new("ringstore")
        .about("An event store for Linux clusters. Clients of EventStoreDB v5 connect unchanged.")
        .override_usage("ringstore [OPTIONS]")
        .after_help(AFTER_HELP)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .next_line_help(true)
        .args(table::all().map(argument))
}

const AFTER_HELP: &str = "\
Each option can be given in three ways; the first that has it wins:
  flag          --int-ip 10.0.0.1, --int-ip=10.0.0.1, also -IntIp 10.0.0.1 as in v5
  environment   EVENTSTORE_INT_IP=10.0.0.1, in any case; an empty value counts as not set
  YAML file     IntIp: 10.0.0.1, in the file that --config or EVENTSTORE_CONFIG names

Case and dashes of names do not matter. --what-if prints what is in force and where it is from.

A node on its own:       ringstore --db ./data --log ./log
One node of a cluster:   ringstore --db ./data --log ./log --int-ip 10.0.0.1 --ext-ip 10.0.0.1 \\
                           --cluster-size 3 --gossip-seed 10.0.0.2:2112,10.0.0.3:2112
";

fn argument(spec: &'static OptionSpec) -> Arg {
    let argument = Arg::new(spec.name)
        .long(spec.flag().trim_start_matches('-').to_owned())
        .value_name(spec.kind.placeholder())
        .action(if spec.kind.is_list() { ArgAction::Append } else { ArgAction::Set });
    if !spec.is_present() {
        return argument.hide(true);
    }
    let argument = argument.help(argument_help(spec)).help_heading(spec.group.title());
    match spec.kind {
        Kind::Switch => argument.num_args(0..=1).default_missing_value("true"),
        _ => argument,
    }
}

fn argument_help(spec: &OptionSpec) -> String {
    let mut help = wrapped(spec.help, HELP_COLUMNS - HELP_INDENT);
    let default = if spec.default.is_empty() { "none" } else { spec.default };
    if spec.kind.is_list() {
        help.push_str(&format!("\nFor example {}", spec.example));
    }
    help.push_str(&format!("\nDefault {default}. {}, YAML {}.", spec.environment_name(), spec.name));
    help
}

/// The text with line breaks, so that no line is longer than `columns`.
fn wrapped(text: &str, columns: usize) -> String {
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let fits = used + 1 + word.len() <= columns;
        if !wrapped.is_empty() {
            wrapped.push(if fits { ' ' } else { '\n' });
        }
        used = if fits { used + 1 + word.len() } else { word.len() };
        wrapped.push_str(word);
    }
    wrapped
}

fn unicode(arguments: Vec<OsString>) -> Result<Vec<String>, ConfigError> {
    let unicode = |argument: OsString| {
        argument.into_string().map_err(|argument| ConfigError::NotUnicode {
            what: "an argument".into(),
            lossy: argument.to_string_lossy().into_owned(),
        })
    };
    arguments.into_iter().map(unicode).collect()
}

/// Rewrites all arguments as `--flag=value`, with the flag in the spelling of the table.
fn canonical(arguments: &[String]) -> Result<Vec<String>, ConfigError> {
    let mut canonical = Vec::new();
    let mut given: Vec<(&'static str, String)> = Vec::new();
    let mut rest = arguments.iter().map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        let (spelling, attached) = match argument.split_once('=') {
            Some((spelling, value)) => (spelling, Some(value)),
            None => (argument, None),
        };
        let spec = flagged(argument, spelling)?;
        let value = match attached.or_else(|| sign(spec, spelling)) {
            Some(value) => value,
            None if spec.kind == Kind::Switch => rest.next_if(|next| is_truth(next)).unwrap_or("true"),
            None => rest.next_if(|next| !is_flag(next)).ok_or_else(|| missing_value(spec))?,
        };
        if let Some((_, first)) = given.iter().find(|(name, _)| *name == spec.name && !spec.kind.is_list()) {
            let (first, second) = (first.clone(), spelling.to_owned());
            return Err(ConfigError::GivenTwice { name: spec.name, origin: Source::CommandLine, first, second });
        }
        given.push((spec.name, spelling.to_owned()));
        canonical.push(format!("{}={value}", spec.flag()));
    }
    Ok(canonical)
}

/// The option that an argument names by a flag.
fn flagged(argument: &str, spelling: &str) -> Result<&'static OptionSpec, ConfigError> {
    match spelling {
        "-h" | "-?" => return Ok(known("Help")),
        "-V" => return Ok(known("Version")),
        _ if !spelling.starts_with('-') || spelling.trim_matches('-').is_empty() => {
            return Err(ConfigError::StrayArgument { argument: argument.to_owned() });
        }
        _ => {}
    }
    find(spelling).ok_or_else(|| ConfigError::UnknownOption {
        spelling: spelling.to_owned(),
        origin: Source::CommandLine,
        nearest: nearest(&table::folded(spelling), table::all().map(|spec| table::folded(spec.name)))
            .and_then(|name| table::find(&name))
            .map(OptionSpec::flag),
    })
}

fn known(name: &str) -> &'static OptionSpec {
    table::find(name).expect("help and version are in the table")
}

/// The option of a flag; `--what-if+` and `--what-if-` are spellings of v5 for true and false.
fn find(spelling: &str) -> Option<&'static OptionSpec> {
    let signed = || table::find(spelling.strip_suffix('+')?).filter(|spec| spec.kind == Kind::Switch);
    table::find(spelling).or_else(signed)
}

/// The value that a sign behind a switch stands for.
fn sign(spec: &OptionSpec, spelling: &str) -> Option<&'static str> {
    match spelling.chars().next_back() {
        Some('-') if spec.kind == Kind::Switch => Some("false"),
        Some('+') => Some("true"),
        _ => None,
    }
}

/// True for a word that a switch takes as its value. Other words after a switch are not its value.
fn is_truth(argument: &str) -> bool {
    crate::config::values::truth(argument).is_some()
}

/// True when an argument names an option, so that it is not the value of the one before. Negative numbers are values.
fn is_flag(argument: &str) -> bool {
    argument.starts_with('-') && find(argument.split('=').next().unwrap_or(argument)).is_some()
}

fn missing_value(spec: &OptionSpec) -> ConfigError {
    ConfigError::MissingValue {
        flag: spec.flag(),
        example: if spec.example.is_empty() { "VALUE" } else { spec.example },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(line: &str) -> Result<RawOptions, ConfigError> {
        let mut raw = RawOptions::default();
        collect(line.split_whitespace().map(OsString::from).collect(), &mut raw)?;
        Ok(raw)
    }

    #[test]
    fn spellings_of_one_flag() {
        let check = |line: &str| {
            let raw = collected(line).unwrap();
            assert_eq!(raw.get("IntIp").1, "10.0.0.1", "{line}");
            assert_eq!(raw.get("IntIp").2, Source::CommandLine, "{line}");
        };
        check("--int-ip 10.0.0.1");
        check("--int-ip=10.0.0.1");
        check("-int-ip 10.0.0.1");
        check("-IntIp 10.0.0.1");
        check("-IntIp=10.0.0.1");
        check("--IntIp 10.0.0.1");
        check("--intip 10.0.0.1");
        check("--INT-IP=10.0.0.1");
        check("--i-n-t-i-p 10.0.0.1");
        check("--what-if --int-ip 10.0.0.1 --db x");
    }

    #[test]
    fn switches_with_and_without_a_value() {
        let check = |line: &str, expected: &str| {
            assert_eq!(collected(line).unwrap().get("WhatIf").1, expected, "{line}");
        };
        check("", "false");
        check("--what-if", "true");
        check("--what-if true", "true");
        check("--what-if False", "False");
        check("--what-if 0", "0");
        check("--what-if=no", "no");
        check("--what-if-", "false");
        check("--what-if+", "true");
        check("-WhatIf --db x", "true");
    }

    #[test]
    fn help_and_version_have_short_flags() {
        for (line, name) in [("-h", "Help"), ("-?", "Help"), ("--help", "Help"), ("-V", "Version")] {
            assert_eq!(collected(line).unwrap().get(name).1, "true", "{line}");
        }
    }

    #[test]
    fn the_next_argument_is_the_value_unless_it_names_an_option() {
        let raw = collected("--node-priority -5 --log -odd-directory --db --1").unwrap();
        assert_eq!(raw.get("NodePriority").1, "-5");
        assert_eq!(raw.get("Log").1, "-odd-directory");
        assert_eq!(raw.get("Db").1, "--1");
        assert_eq!(collected("--db=a=b").unwrap().get("Db").1, "a=b");
        assert_eq!(collected("--log=").unwrap().get("Log").1, "");
    }

    #[test]
    fn lists_may_be_repeated() {
        let raw = collected("--gossip-seed 10.0.0.2:1 --GossipSeed=10.0.0.3:1,10.0.0.4:1").unwrap();
        assert_eq!(raw.get("GossipSeed").1, "10.0.0.2:1,10.0.0.3:1,10.0.0.4:1");
    }

    #[test]
    fn mistakes_are_answered_with_the_next_step() {
        let check = |line: &str, expected: &str| {
            assert_eq!(collected(line).unwrap_err().to_string(), expected, "{line}");
        };
        check(
            "--int-ipp 1",
            "--int-ipp (command line) is not an option; did you mean --int-ip? `ringstore --help` lists all options",
        );
        check("--banana", "--banana (command line) is not an option; `ringstore --help` lists all options");
        check("--int-ip", "--int-ip has no value; write for example --int-ip 10.0.0.1");
        check("--int-ip --what-if", "--int-ip has no value; write for example --int-ip 10.0.0.1");
        check(
            "--projection-threads",
            "--projection-threads has no value; write for example --projection-threads VALUE",
        );
        check(
            "--int-ip 1 -IntIp 2",
            "IntIp is given twice (command line), as \"--int-ip\" and as \"-IntIp\"; remove one of them",
        );
        for stray in ["data", "-", "--", "--what-if maybe"] {
            let argument = stray.split(' ').next_back().unwrap();
            check(
                stray,
                &format!(
                    "the argument \"{argument}\" belongs to no option; options are written --name value or --name=value"
                ),
            );
        }
    }

    #[test]
    fn arguments_that_are_not_unicode_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let error = collect(vec![OsString::from_vec(b"--db=\xff".to_vec())], &mut RawOptions::default()).unwrap_err();
        assert!(matches!(error, ConfigError::NotUnicode { .. }), "{error}");
    }

    #[test]
    fn options_of_v5_that_are_missing_are_warned_of() {
        let raw = collected("--run-projections All --mem-db --IntIp 10.0.0.1 --int-secure-tcp-port=0").unwrap();
        assert_eq!(raw.get("IntIp").1, "10.0.0.1");
        assert_eq!(raw.warnings.len(), 2);
        assert!(raw.warnings.iter().any(|warning| warning
            == "MemDb (command line) is an option of v5 that ringstore does not have yet; it is ignored: \
                events are kept on disk"));
    }

    #[test]
    fn help_tells_everything_in_100_columns() {
        let help = help();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for spec in table::present() {
            assert!(help.contains(&format!("{} ", spec.flag())), "{}", spec.flag());
            assert!(help.contains(&format!("{}, YAML {}.", spec.environment_name(), spec.name)), "{}", spec.name);
            assert!(help.contains(spec.group.title()));
        }
        assert!(!help.contains("projection"), "options that are missing are not listed");
    }
}
