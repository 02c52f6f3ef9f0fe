//! How far long work is, for the person who waits for it: one line on stderr, now and then.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two lines on a terminal, where the new one goes over the old one.
const INTERVAL_ON_TERMINAL: Duration = Duration::from_millis(500);
/// Between two lines in a file.
const INTERVAL_ELSEWHERE: Duration = Duration::from_secs(5);

/// Progress in bytes of log.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    started: Instant,
    shown: Instant,
    is_terminal: bool,
    is_line_open: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Progress {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Progress { what, total, done: 0, started: now, shown: now, is_terminal, is_line_open: false }
    }

    /// So many bytes more are done.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let interval = if self.is_terminal { INTERVAL_ON_TERMINAL } else { INTERVAL_ELSEWHERE };
        if self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        let line = line(self.what, self.done, self.total, self.started.elapsed());
        if self.is_terminal {
            self.is_line_open = true;
            eprint!("\r{line}\x1b[K");
            // Only shown: a terminal that does not take it does no harm.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Ends a line that would be written over, so that something else can be said.
    pub(super) fn finish_line(&mut self) {
        if std::mem::take(&mut self.is_line_open) {
            eprintln!();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish_line();
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    format!("{what}: {percent} % ({} of {}), {}/s", size(done), size(total), size(rate(done, elapsed)))
}

fn rate(bytes: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / millis
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| bytes >= 1 << shift);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, shift)| format!("{}.{} {name}", bytes >> shift, tenth(bytes, shift)),
    )
}

fn tenth(bytes: u64, shift: u32) -> u64 {
    ((bytes & ((1 << shift) - 1)) * 10) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lines_are_for_people() {
        let check = |bytes: u64, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1536, "1.5 KiB");
        check((3 << 20) + (900 << 10), "3.8 MiB");
        check(20 << 30, "20.0 GiB");
        assert_eq!(
            line("copied", 1 << 20, 4 << 20, Duration::from_secs(2)),
            "copied: 25 % (1.0 MiB of 4.0 MiB), 512.0 KiB/s"
        );
        assert_eq!(line("copied", 0, 0, Duration::ZERO), "copied: 100 % (0 B of 0 B), 0 B/s");
    }
}
