//! `ringstore certificates`: an authority and certificates of nodes.
//!
//! Writes PEM files into one folder, overwrites none, and prints what goes into each node's options. When something fails
//! nothing of it is left. The certificates are made by [`crate::security`]. The authority lives longer than they do, and signs
//! none that would outlive it: such a certificate ends with it, and says otherwise.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{OperatorError, file_failed, refused};
use super::files;
use crate::security::{Authority, Issued, SecurityError, Validity};
use crate::types::WallTime;

const AUTHORITY: &str = "ca";
/// Behind it comes what tells two authorities apart, for those who read why one node refuses another.
const AUTHORITY_NAME: &str = "ringstore cluster authority";

/// Permissions of keys; only their owner reads them.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// A hundred years.
const DAYS_MAX: i64 = 36_500;
/// An authority that is exchanged is work on all nodes; certificates are exchanged one by one.
const AUTHORITY_LIVES_LONGER: u32 = 10;

/// What is to be made.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CertificatesCommand {
    /// The folder for the files; made when it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A node: its name, and the addresses and host names that others reach it by; IntIp must be among them
    #[arg(long = "node", value_name = "NAME=IP[,IP|DNS...]", required = true)]
    nodes: Vec<String>,
    /// How long the nodes' certificates are valid, from now on
    #[arg(long, value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: u32,
    /// How long the authority is [default: ten times as long]
    #[arg(long, value_name = "DAYS", conflicts_with = "add",
          value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    authority_days: Option<u32>,
    /// Signs with the authority that is in the folder (ca.pem, ca.key): for a node that comes later
    #[arg(long)]
    add: bool,
}

/// One node's names.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    name: String,
    names: Vec<String>,
}

/// A file that is to be written.
struct Planned {
    path: PathBuf,
    text: String,
    mode: u32,
}

/// Makes what the command says; gives the words about it.
pub(super) fn make(command: &CertificatesCommand) -> Result<Vec<String>, OperatorError> {
    let nodes = nodes(&command.nodes)?;
    fs::create_dir_all(&command.out).map_err(file_failed(&command.out, "made"))?;
    let out = fs::canonicalize(&command.out).map_err(file_failed(&command.out, "looked at"))?;
    let now = SystemTime::now();
    let validity = Validity::days(now, command.days);
    let mut planned = Vec::new();
    let authority = if command.add {
        existing_authority(&out)?
    } else {
        let name = format!("{AUTHORITY_NAME} {:08x}", fastrand::u32(..));
        let made = Authority::new(&name, Validity::days(now, authority_days(command))).map_err(failed)?;
        plan(&mut planned, &out, AUTHORITY, made.own());
        made
    };
    let end = authority.not_after().map_err(failed)?;
    outlives(end, validity, now)?;
    for Node { name, names } in &nodes {
        plan(&mut planned, &out, name, &authority.issue(name, names, validity).map_err(failed)?);
    }
    write(&planned)?;
    files::sync_folder(&out)?;
    Ok(summary(&out, &nodes, (validity, end), &planned))
}

fn authority_days(command: &CertificatesCommand) -> u32 {
    let longer = command.days.saturating_mul(AUTHORITY_LIVES_LONGER).min(DAYS_MAX as u32);
    command.authority_days.unwrap_or(longer)
}

/// Refuses a certificate that would end after its authority.
fn outlives(end: WallTime, validity: Validity, now: SystemTime) -> Result<(), OperatorError> {
    let until = WallTime::from_system(validity.until);
    // Certificates count whole seconds, these are ticks of 100 ns.
    if until.0 / 10_000_000 <= end.0 / 10_000_000 {
        return Ok(());
    }
    let now = WallTime::from_system(now);
    let left = if end > now { end.distance(now).as_secs() / 86_400 } else { 0 };
    let next = match left {
        0 => "make a new authority in another --out, and bring it to all nodes beside the old one before new certificates \
              (the README has the order)"
            .to_owned(),
        days => format!("give --days {days} or fewer, or make a longer authority in another --out"),
    };
    Err(refused(format!("the authority is valid until {end}, and the certificates would be until {until}; {next}")))
}

/// `NAME=IP[,IP|DNS...]`, several.
fn nodes(arguments: &[String]) -> Result<Vec<Node>, OperatorError> {
    let usage = |words: String| OperatorError::Usage { words };
    let mut seen = BTreeSet::from([AUTHORITY.to_owned()]);
    let mut out = Vec::new();
    for argument in arguments {
        let Some((name, list)) = argument.split_once('=') else {
            return Err(usage(format!(
                "--node \"{argument}\" has no \"=\"; write NAME=IP, for example node1=10.0.0.1"
            )));
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || name.len() > 64 || !name.chars().all(is_plain) {
            let words = "is not the name of a file; letters, digits, -, _ and dots, at most 64";
            return Err(usage(format!("--node \"{argument}\": \"{name}\" {words}")));
        }
        if !seen.insert(name.to_owned()) {
            return Err(usage(format!(
                "--node \"{argument}\": \"{name}\" is taken; each node needs its own name, not \"ca\""
            )));
        }
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            return Err(usage(format!("--node \"{argument}\" has an empty address; write NAME=IP,IP or NAME=IP,DNS")));
        }
        out.push(Node { name: name.to_owned(), names });
    }
    Ok(out)
}

fn failed(error: SecurityError) -> OperatorError {
    refused(error.to_string())
}

fn existing_authority(out: &Path) -> Result<Authority, OperatorError> {
    let read = |ending: &str| {
        let path = out.join(format!("{AUTHORITY}.{ending}"));
        fs::read_to_string(&path).map_err(file_failed(&path, "read"))
    };
    Authority::load(&Issued { certificate: read("pem")?, key: read("key")? }).map_err(failed)
}

fn plan(planned: &mut Vec<Planned>, out: &Path, name: &str, issued: &Issued) {
    let path = |ending: &str| out.join(format!("{name}.{ending}"));
    planned.push(Planned { path: path("pem"), text: issued.certificate.clone(), mode: CERTIFICATE_MODE });
    planned.push(Planned { path: path("key"), text: issued.key.clone(), mode: KEY_MODE });
}

/// All files or none.
fn write(planned: &[Planned]) -> Result<(), OperatorError> {
    for (index, file) in planned.iter().enumerate() {
        if let Err(error) = write_new(file) {
            // Best effort: the error is told either way, and the next attempt names what is left.
            planned[..index].iter().for_each(|file| drop(fs::remove_file(&file.path)));
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => refused(format!(
                    "{} exists, and nothing is overwritten: a running node may have it. Give another --out, or --add with new \
                     names for further nodes; nothing was made",
                    file.path.display()
                )),
                _ => file_failed(&file.path, "written")(error),
            });
        }
    }
    Ok(())
}

fn write_new(file: &Planned) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&file.path)?;
    let written = out.write_all(file.text.as_bytes()).and_then(|()| out.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&file.path);
    }
    written
}

fn summary(out: &Path, nodes: &[Node], ends: (Validity, WallTime), planned: &[Planned]) -> Vec<String> {
    let (until, authority_until) = (WallTime::from_system(ends.0.until), ends.1);
    let mut lines = vec![format!(
        "made {} files in {}, valid until {until}, the authority until {authority_until}:",
        planned.len(),
        out.display()
    )];
    for file in planned {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("  {name}{}", if file.mode == KEY_MODE { "  (private: only for its owner)" } else { "" }));
    }
    let file = |name: &str, ending: &str| out.join(format!("{name}.{ending}")).display().to_string();
    for Node { name, names } in nodes {
        lines.push(String::new());
        lines.push(format!("# options of {name} ({})", names.join(", ")));
        lines.push("UseInternalSsl: true".to_owned());
        lines.push(format!("CertificateFile: {}", file(name, "pem")));
        lines.push(format!("CertificatePrivateKeyFile: {}", file(name, "key")));
        lines.push(format!("CertificateAuthorityFile: {}", file(AUTHORITY, "pem")));
        if !names.iter().any(|name| name.parse::<IpAddr>().is_ok()) {
            lines.push(format!("# {name} has no address: all nodes need a host name in common, as SslTargetHost"));
        }
    }
    lines.push(String::new());
    lines.push(
        "ca.key signs further nodes, and whoever has it gets into the cluster: keep it off the nodes, where others do not \
         read it."
            .to_owned(),
    );
    lines
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
