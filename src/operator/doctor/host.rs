//! Findings about the kernel, the limits of the process, and the clock.

use super::finding::Group;
use crate::limits::LOG_BUFFER_BYTES;
use crate::machine::{Kernel, Limits, Machine};
use crate::operator::progress::size;
use crate::ring::{Capabilities, Driver, RingError, probe, raise_limits};

/// Connections of some thousand clients, and chunk files.
const OPEN_FILES_LEAST: u64 = 16 << 10;
/// What the rings of a node with some edges and their buffers take. Linux counts them as locked memory since 6.14.
const RINGS_BYTES: u64 = 1 << 20;
const KERNEL_COUNTS_RINGS: (u32, u32) = (6, 14);
/// Below this io_uring lacks what the driver cannot do without.
const KERNEL_OLDEST: (u32, u32) = (6, 1);
/// Clocks that are read without leaving the process.
const FAST_CLOCKS: [&str; 5] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "timebase"];

/// `busy_poll_us` is IntBusyPollUs, where the options can be used.
pub(super) fn findings(machine: &Machine, busy_poll_us: u32) -> Vec<Group> {
    // As the node does it; what stays as it is the probe shows.
    let _ = raise_limits();
    let mut kernel = kernel(&machine.kernel, &probe());
    busy_poll(&mut kernel, &machine.kernel, busy_poll_us, &try_busy_poll);
    vec![kernel, limits(&machine.kernel, &machine.limits), clock(&machine.kernel)]
}

fn kernel(kernel: &Kernel, probed: &Result<Capabilities, RingError>) -> Group {
    let mut group = Group::new("kernel");
    match kernel.version() {
        Some(version) if version < KERNEL_OLDEST => group.advice(
            format!("Linux {}, older than {}.{}", kernel.release, KERNEL_OLDEST.0, KERNEL_OLDEST.1),
            "take a newer one; what this one lacks is named below",
        ),
        _ => group.fine(format!("Linux {}", kernel.release)),
    }
    match probed {
        Err(error) => {
            let (what, next) = error.parts();
            group.problem(what, next);
        }
        Ok(found) => {
            let allowed = match kernel.io_uring_disabled {
                Some(0) => "kernel.io_uring_disabled is 0".to_owned(),
                Some(value) => format!("kernel.io_uring_disabled is {value}, and this process is allowed all the same"),
                None => "this kernel has no switch for it".to_owned(),
            };
            group.fine(format!("io_uring can be used: {allowed}; {}", seccomp_words(kernel)));
            for finding in &found.findings {
                let words = format!("{}: {}", finding.capability, if finding.found { "found" } else { "not found" });
                if finding.found {
                    group.fine(words);
                } else {
                    group.advice(words, finding.path.clone());
                }
            }
        }
    }
    if kernel.io_uring_disabled == Some(1) && probed.is_ok() {
        group.advice(
            "kernel.io_uring_disabled is 1: io_uring is for the privileged and for one group only, and the node may run as \
             somebody else than this command",
            format!(
                "run the doctor as the node's user, or set kernel.io_uring_group to a group of that user (now {})",
                kernel.io_uring_group.filter(|group| *group >= 0).map_or("none".to_owned(), |group| group.to_string())
            ),
        );
    }
    group
}

/// On a ring of its own, which goes again.
fn try_busy_poll(microseconds: u32) -> Result<(), String> {
    let driver = Driver::new().map_err(|error| error.to_string());
    driver?.poll_busily(microseconds).map_err(|failure| failure.to_string())
}

fn busy_poll(group: &mut Group, kernel: &Kernel, microseconds: u32, attempt: &dyn Fn(u32) -> Result<(), String>) {
    if microseconds == 0 {
        return;
    }
    let words = format!("IntBusyPollUs is {microseconds}");
    match attempt(microseconds) {
        Ok(()) => group.fine(format!("{words}, and this kernel lets a ring poll the cards (NAPI busy polling)")),
        Err(error) => group.advice(
            format!(
                "{words}, but Linux {} refuses NAPI busy polling for a ring ({error}): links are served by interrupts",
                kernel.release
            ),
            "take Linux 6.9 or newer with CONFIG_NET_RX_BUSY_POLL, or set IntBusyPollUs to 0",
        ),
    }
}

fn seccomp_words(kernel: &Kernel) -> &'static str {
    match kernel.seccomp {
        Some(0) => "no seccomp filter",
        Some(_) => "a seccomp filter is in force, and lets it through",
        None => "the kernel has no seccomp",
    }
}

fn limits(kernel: &Kernel, limits: &Limits) -> Group {
    let mut group = Group::new("limits");
    if let Some(files) = limits.open_files {
        let most = files.hard.map_or("unlimited".to_owned(), |hard| hard.to_string());
        match files.hard {
            Some(hard) if hard < OPEN_FILES_LEAST => group.advice(
                format!("open files: at most {most}, and each connection and chunk is one"),
                format!("raise it to {OPEN_FILES_LEAST} or more: LimitNOFILE= in systemd, ulimit -Hn"),
            ),
            _ => group.fine(format!("open files: the node raises its limit to {most}")),
        }
    }
    if let Some(memory) = limits.locked_memory {
        locked_memory(&mut group, kernel, memory.hard);
    }
    group
}

fn locked_memory(group: &mut Group, kernel: &Kernel, hard: Option<u64>) {
    let needed = LOG_BUFFER_BYTES as u64;
    let counts_rings = kernel.version().is_none_or(|version| version >= KERNEL_COUNTS_RINGS);
    match hard {
        None => group.fine("locked memory: the node raises its limit to unlimited"),
        Some(hard) if hard >= needed + RINGS_BYTES => {
            group.fine(format!("locked memory: the node raises its limit to {}", size(hard)));
        }
        Some(hard) if kernel.may_lock_memory => group.fine(format!(
            "locked memory: {}, which does not bind a process with CAP_IPC_LOCK as this one; a node that runs as another user \
             is bound by the limit that it is given",
            size(hard)
        )),
        Some(hard) if hard < RINGS_BYTES && counts_rings => group.problem(
            format!(
                "locked memory: {}, and this kernel counts the rings of a node as such, which take up to {}: the node is \
                 refused its rings, or some of them",
                size(hard),
                size(RINGS_BYTES)
            ),
            MEMLOCK_REMEDY,
        ),
        Some(hard) => group.advice(
            format!(
                "locked memory: {}, and registering the log buffer takes {}: zero-copy sends have to pin their pages each \
                 time",
                size(hard),
                size(needed)
            ),
            MEMLOCK_REMEDY,
        ),
    }
}

const MEMLOCK_REMEDY: &str =
    "raise RLIMIT_MEMLOCK: LimitMEMLOCK=infinity in systemd, --ulimit memlock=-1 for containers, ulimit -l";

fn clock(kernel: &Kernel) -> Group {
    let mut group = Group::new("clock");
    let Some(source) = &kernel.clock_source else {
        group.fine("clock source: this machine does not show it");
        return group;
    };
    if FAST_CLOCKS.contains(&source.as_str()) {
        group.fine(format!("clock source: {source}"));
    } else {
        let others = kernel.clock_sources.iter().filter(|other| FAST_CLOCKS.contains(&other.as_str()));
        let others: Vec<&str> = others.map(String::as_str).collect();
        let next = if others.is_empty() {
            "the kernel has found the CPU's counter unfit: `dmesg | grep -i clocksource` says why".to_owned()
        } else {
            format!("write {} to /sys/devices/system/clocksource/clocksource0/current_clocksource", others[0])
        };
        group.advice(
            format!("clock source: {source}: each look at the time is a system call and a slow register"),
            next,
        );
    }
    let slow: Vec<&str> = kernel.governors.iter().map(String::as_str).filter(|name| *name == "powersave").collect();
    if !slow.is_empty() {
        group.advice(
            "the CPUs' clock rate is governed by \"powersave\": threads that wait often wake on a slow CPU",
            "cpupower frequency-set --governor performance (with intel_pstate powersave may be what is wanted)",
        );
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Limit;
    use crate::operator::doctor::finding::Grade;

    fn shown(group: &Group) -> Vec<(Grade, String)> {
        group.findings.iter().map(|finding| (finding.grade, finding.line())).collect()
    }

    #[test]
    fn a_refusal_is_what_and_the_next_step() {
        let error = RingError::Missing { capability: "everything", advice: "take a newer one".to_owned() };
        let lines = shown(&kernel(&Kernel::default(), &Err(error)));
        assert_eq!(lines[1].0, Grade::Problem);
        assert!(lines[1].1.ends_with("lacks everything; take a newer one"), "{lines:?}");
    }

    #[test]
    fn the_group_that_may_use_io_uring_is_named() {
        let check = |group: i64, expected: &str| {
            let found = Kernel { io_uring_disabled: Some(1), io_uring_group: Some(group), ..Kernel::default() };

            let (grade, line) = shown(&kernel(&found, &probe())).pop().unwrap();
            assert_eq!(grade, Grade::Advice);
            assert!(line.ends_with(expected), "{line}");
        };
        check(-1, "set kernel.io_uring_group to a group of that user (now none)");
        check(1000, "set kernel.io_uring_group to a group of that user (now 1000)");
    }

    #[test]
    fn this_kernel_is_fit_to_run_the_tests() {
        let machine = Machine::read(&crate::machine::Tree::real()).unwrap();
        let groups = findings(&machine, 0);
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().flat_map(shown).all(|(grade, _)| grade < Grade::Problem));
    }

    #[test]
    fn little_locked_memory_is_told_with_the_remedy() {
        let check = |hard: Option<u64>, may_lock_memory: bool, release: &str, expected: Grade| {
            let found = Kernel { may_lock_memory, release: release.to_owned(), ..Kernel::default() };
            let limit = Some(Limit { soft: hard, hard });
            let lines = shown(&limits(&found, &Limits { locked_memory: limit, open_files: None }));
            assert_eq!(lines[0].0, expected, "{lines:?}");
            lines[0].1.clone()
        };
        check(None, false, "6.18.0", Grade::Fine);
        check(Some(128 << 20), false, "6.18.0", Grade::Fine);
        check(Some(64 << 10), true, "6.18.0", Grade::Fine);
        check(Some(8 << 20), false, "6.18.0", Grade::Advice);
        check(Some(64 << 10), false, "6.12.9", Grade::Advice);
        let line = check(Some(64 << 10), false, "6.18.0", Grade::Problem);
        assert!(line.contains("LimitMEMLOCK") && line.contains("64"), "{line}");
    }

    /// The soft limit of this process is no hindrance: the doctor is to find what the node finds.
    #[test]
    fn the_node_raises_soft_limits_and_the_doctor_says_so() {
        let limit = |hard| Some(Limit { soft: Some(64 << 10), hard });
        let found = Limits { locked_memory: limit(None), open_files: limit(Some(1 << 20)) };
        let lines = shown(&limits(&Kernel { release: "6.18.0".to_owned(), ..Kernel::default() }, &found));
        assert!(
            lines.iter().all(|(grade, line)| *grade == Grade::Fine && line.contains("the node raises its limit to"))
        );
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn busy_polling_is_told_where_it_is_asked_for() {
        let check = |microseconds: u32, outcome: Result<(), String>, expected: Option<Grade>| {
            let mut group = Group::new("kernel");
            busy_poll(&mut group, &Kernel::default(), microseconds, &|_| outcome.clone());
            assert_eq!(group.findings.first().map(|finding| finding.grade), expected, "{group:?}");
        };
        check(0, Ok(()), None);
        check(50, Ok(()), Some(Grade::Fine));
        check(50, Err("not supported".to_owned()), Some(Grade::Advice));
        // This kernel may or may not; it is asked, not guessed.
        if let Err(words) = try_busy_poll(50) {
            assert!(!words.is_empty());
        }
    }

    #[test]
    fn slow_clocks_are_told() {
        let found = |source: &str| Kernel {
            clock_source: Some(source.to_owned()),
            clock_sources: vec!["tsc".to_owned(), "hpet".to_owned()],
            ..Kernel::default()
        };
        assert_eq!(shown(&clock(&found("tsc")))[0].0, Grade::Fine);
        let (grade, line) = shown(&clock(&found("hpet"))).remove(0);
        assert!(grade == Grade::Advice && line.contains("write tsc to"), "{line}");
    }
}
