//! The kernel and what it allows to the asking process.

use std::collections::BTreeSet;

use super::tree::Tree;

/// Kernel, clock, and what it forbids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// `6.12.9-amd64`.
    pub release: String,
    /// The sysctl `kernel.io_uring_disabled`: 0 for everyone, 1 for a group and the privileged only, 2 for nobody.
    /// Kernels before 6.6 have none.
    pub io_uring_disabled: Option<u32>,
    /// The sysctl `kernel.io_uring_group`; -1 is none.
    pub io_uring_group: Option<i64>,
    /// Seccomp of the asking process: 0 none, 1 strict, 2 a filter.
    pub seccomp: Option<u32>,
    /// The process may lock and register memory beyond its limit (CAP_IPC_LOCK).
    pub may_lock_memory: bool,
    /// What the kernel's time comes from.
    pub clock_source: Option<String>,
    /// What else it could come from.
    pub clock_sources: Vec<String>,
    /// How the CPUs' clock rates are governed; empty where that is not shown (virtual machines).
    pub governors: BTreeSet<String>,
}

const CAP_IPC_LOCK: u32 = 14;

impl Kernel {
    pub(super) fn read(tree: &Tree) -> Kernel {
        let capabilities = status_field(tree, "CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok());
        let clock = |name: &str| tree.text(&format!("sys/devices/system/clocksource/clocksource0/{name}"));
        let cpus = tree.list("sys/devices/system/cpu");
        let governor = |cpu: &String| tree.text(&format!("sys/devices/system/cpu/{cpu}/cpufreq/scaling_governor"));
        Kernel {
            release: tree.text("proc/sys/kernel/osrelease").unwrap_or_default(),
            io_uring_disabled: tree.number("proc/sys/kernel/io_uring_disabled"),
            io_uring_group: tree.number("proc/sys/kernel/io_uring_group"),
            seccomp: status_field(tree, "Seccomp").and_then(|text| text.parse().ok()),
            may_lock_memory: capabilities.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1),
            clock_source: clock("current_clocksource"),
            clock_sources: words(&clock("available_clocksource").unwrap_or_default()),
            governors: cpus.iter().filter_map(governor).collect(),
        }
    }

    /// Major and minor number of the release.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A line of `/proc/self/status`.
pub(super) fn status_field(tree: &Tree, name: &str) -> Option<String> {
    let text = tree.text("proc/self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// True when a process of this name runs.
pub(super) fn runs(tree: &Tree, name: &str) -> bool {
    let is_process = |entry: &String| entry.bytes().all(|byte| byte.is_ascii_digit());
    let names = tree.list("proc").into_iter().filter(is_process);
    names.into_iter().any(|process| tree.text(&format!("proc/{process}/comm")).as_deref() == Some(name))
}

/// A limit of the process; none is "unlimited".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What is in force.
    pub soft: Option<u64>,
    /// What the process may raise it to.
    pub hard: Option<u64>,
}

/// Limits of the process that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Locked and registered memory, bytes.
    pub locked_memory: Option<Limit>,
    /// File descriptors.
    pub open_files: Option<Limit>,
}

impl Limits {
    pub(super) fn read(tree: &Tree) -> Limits {
        let text = tree.text("proc/self/limits").unwrap_or_default();
        let limit = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let mut values = line.split_whitespace();
            let mut value = || match values.next()? {
                "unlimited" => Some(None),
                number => number.parse().ok().map(Some),
            };
            Some(Limit { soft: value()?, hard: value()? })
        };
        Limits { locked_memory: limit("Max locked memory"), open_files: limit("Max open files") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_and_limits_of_captured_hosts() {
        let (_folder, tree) = crate::machine::testing::unpack("two_cards");
        let kernel = Kernel::read(&tree);
        assert_eq!((kernel.release.as_str(), kernel.version()), ("6.12.9-amd64", Some((6, 12))));
        assert_eq!((kernel.io_uring_disabled, kernel.seccomp, kernel.may_lock_memory), (Some(0), Some(0), true));
        assert_eq!(kernel.clock_source.as_deref(), Some("tsc"));
        assert_eq!(kernel.governors.iter().collect::<Vec<_>>(), ["performance"]);
        let limits = Limits::read(&tree);
        assert_eq!(limits.locked_memory, Some(Limit { soft: None, hard: None }));
        assert_eq!(limits.open_files, Some(Limit { soft: Some(1024), hard: Some(524_288) }));
        assert!(!runs(&tree, "irqbalance"));

        let (_folder, tree) = crate::machine::testing::unpack("bonded");
        let kernel = Kernel::read(&tree);
        assert_eq!((kernel.version(), kernel.io_uring_disabled), (Some((5, 15)), None));
        assert_eq!((kernel.seccomp, kernel.may_lock_memory), (Some(2), false));
        assert_eq!(kernel.clock_sources, ["tsc", "hpet", "acpi_pm"]);
        assert_eq!(Limits::read(&tree).locked_memory, Some(Limit { soft: Some(65_536), hard: Some(65_536) }));
        assert!(runs(&tree, "irqbalance"));
    }

    #[test]
    fn releases_have_two_numbers() {
        let check = |release: &str, expected| {
            assert_eq!(Kernel { release: release.to_owned(), ..Kernel::default() }.version(), expected, "{release}");
        };
        check("6.1.0-13-amd64", Some((6, 1)));
        check("5.15.0", Some((5, 15)));
        check("6.18-rc1", Some((6, 18)));
        check("", None);
        check("six", None);
    }
}
