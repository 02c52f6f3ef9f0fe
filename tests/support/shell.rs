//! Other programs, run for what they do or print.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Runs a command given as words between blanks.
pub(crate) fn words(line: &str) -> anyhow::Result<()> {
    run(&line.split_whitespace().collect::<Vec<_>>()).map(|_| ())
}

/// Runs a command; what it printed.
pub(crate) fn run(line: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(line[0]).args(&line[1..]).output().with_context(|| format!("{} cannot run", line[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}, {}", line.join(" "), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
