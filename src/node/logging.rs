//! Where log lines go: the console, and a file that is renewed each day.

use std::fs;
use std::io::IsTerminal as _;
use std::path::Path;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Old log files that are kept.
const LOG_FILES_KEPT: usize = 31;

/// Lines that wait to be written are written when this is dropped.
#[derive(Debug)]
#[must_use = "dropped at once, the last lines before the end are lost"]
pub struct LogGuard {
    _console: WorkerGuard,
    _file: Option<WorkerGuard>,
}

/// Starts logging. Lines are written by threads of their own, so that neither a slow disk nor a console that nobody reads
/// (a pipe that is full) delays the log thread; when far too many wait, some are dropped. A directory that cannot be used
/// is a warning: the console still has everything.
pub fn start(directory: Option<&Path>) -> LogGuard {
    let filter = || EnvFilter::try_from_env("RINGSTORE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let (console, console_guard) = tracing_appender::non_blocking(std::io::stderr());
    // Colours are for people: not for a journal, and not where somebody does not want them (https://no-color.org).
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let console = fmt::layer().with_ansi(is_coloured).with_target(false).with_writer(console).with_filter(filter());
    let (file, guard, problem) = match directory.map(open) {
        None => (None, None, None),
        Some(Ok((writer, guard))) => {
            let layer = fmt::layer().with_ansi(false).with_target(false).with_thread_names(true).with_writer(writer);
            (Some(layer.with_filter(filter())), Some(guard), None)
        }
        Some(Err(reason)) => (None, None, Some(reason)),
    };
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(console).with(file).try_init();
    if let Some(reason) = problem {
        tracing::warn!("{reason}; logging to the console only");
    }
    LogGuard { _console: console_guard, _file: guard }
}

type FileWriter = (tracing_appender::non_blocking::NonBlocking, WorkerGuard);

fn open(directory: &Path) -> Result<FileWriter, String> {
    let problem = |error: String| format!("log directory {} cannot be used: {error}", directory.display());
    fs::create_dir_all(directory).map_err(|error| problem(error.to_string()))?;
    let appender = tracing_appender::rolling::Builder::new()
        .rotation(tracing_appender::rolling::Rotation::DAILY)
        .filename_prefix("ringstore")
        .filename_suffix("log")
        .max_log_files(LOG_FILES_KEPT)
        .build(directory)
        .map_err(|error| problem(error.to_string()))?;
    Ok(tracing_appender::non_blocking(appender))
}

#[cfg(test)]
mod tests {
    /// What strangers send is said by us, a few lines of it and with the peer; rustls would say it each time, and without.
    #[test]
    fn the_tls_library_writes_no_lines() {
        let locked = include_str!("../../Cargo.lock");
        let package = locked.split("[[package]]").find(|package| package.contains("\nname = \"rustls\"\n")).unwrap();
        assert!(package.contains("\"rustls-webpki\""), "{package}");
        assert!(!package.contains("\"log\""), "some crate switches the feature `logging` of rustls on: {package}");
    }
}
