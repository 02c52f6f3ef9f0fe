//! Findings about the kernel, the limits of the process, and the clock.

use super::finding::Group;
use crate::limits::LOG_BUFFER_BYTES;
use crate::machine::{Kernel, Limits, Machine};
use crate::operator::progress::size;
use crate::ring::{Capabilities, Failure, RingError, probe};

/// Connections of some thousand clients, and chunk files.
const OPEN_FILES_LEAST: u64 = 16 << 10;
/// Below this io_uring lacks what the driver cannot do without.
const KERNEL_OLDEST: (u32, u32) = (6, 1);
/// Clocks that are read without leaving the process.
const FAST_CLOCKS: [&str; 5] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "timebase"];

pub(super) fn findings(machine: &Machine) -> Vec<Group> {
    vec![
        kernel(&machine.kernel, &machine.limits, &probe()),
        limits(&machine.kernel, &machine.limits),
        clock(&machine.kernel),
    ]
}

fn kernel(kernel: &Kernel, limits: &Limits, probed: &Result<Capabilities, RingError>) -> Group {
    let mut group = Group::new("kernel");
    match kernel.version() {
        Some(version) if version < KERNEL_OLDEST => group.advice(
            format!("Linux {}, older than {}.{}", kernel.release, KERNEL_OLDEST.0, KERNEL_OLDEST.1),
            "take a newer one; what this one lacks is named below",
        ),
        _ => group.fine(format!("Linux {}", kernel.release)),
    }
    match probed {
        Err(error) => group.problem(error.to_string(), denial(kernel, limits, error)),
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
                "run the doctor as the node's user, or put that user in the group of kernel.io_uring_group (now {})",
                kernel.io_uring_group.map_or("none".to_owned(), |group| group.to_string())
            ),
        );
    }
    group
}

/// Why io_uring is refused, as far as it can be seen, and the remedy.
fn denial(kernel: &Kernel, limits: &Limits, error: &RingError) -> String {
    if let RingError::Refused { failure: Failure::NoMemory, .. } = error {
        let hard = limits.locked_memory.and_then(|limit| limit.hard);
        return match hard {
            Some(hard) => format!(
                "locked memory is limited to {}: LimitMEMLOCK=infinity in systemd, --ulimit memlock=-1 for containers",
                size(hard)
            ),
            None => "locked memory is not limited: look at the memory limit of the container or cgroup".to_owned(),
        };
    }
    match (kernel.io_uring_disabled, kernel.seccomp) {
        (Some(2), _) => {
            "kernel.io_uring_disabled is 2, which forbids it to everyone: sysctl -w kernel.io_uring_disabled=0"
                .to_owned()
        }
        (Some(1), _) => format!(
            "kernel.io_uring_disabled is 1: set it to 0, or put the node's user in the group of kernel.io_uring_group (now {})",
            kernel.io_uring_group.map_or("none".to_owned(), |group| group.to_string())
        ),
        (_, Some(2)) => {
            "a seccomp filter is in force (Seccomp: 2 in /proc/self/status): allow io_uring_setup, io_uring_enter and \
             io_uring_register in the container's profile; no sysctl forbids it"
                .to_owned()
        }
        (_, Some(1)) => "seccomp is in strict mode: nothing but read and write is allowed".to_owned(),
        _ => "neither kernel.io_uring_disabled nor seccomp forbids it: see the errno, and `dmesg`".to_owned(),
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
    match hard {
        None => group.fine("locked memory: unlimited"),
        Some(hard) if hard >= needed => group.fine(format!("locked memory: {}", size(hard))),
        Some(hard) if kernel.may_lock_memory => group.fine(format!(
            "locked memory: {}, which does not bind a process with CAP_IPC_LOCK as this one",
            size(hard)
        )),
        Some(hard) => group.advice(
            format!(
                "locked memory: {}, and registering the log buffer takes {}: zero-copy sends have to pin their pages each \
                 time, and rings may be refused",
                size(hard),
                size(needed)
            ),
            "raise RLIMIT_MEMLOCK: LimitMEMLOCK=infinity in systemd, --ulimit memlock=-1 for containers, ulimit -l",
        ),
    }
}

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

    fn refused() -> Result<Capabilities, RingError> {
        Err(RingError::Missing { capability: "everything", advice: "there is none".to_owned() })
    }

    #[test]
    fn a_denial_names_its_cause_and_the_remedy() {
        let check = |disabled: Option<u32>, seccomp: Option<u32>, expected: &str| {
            let found = Kernel { io_uring_disabled: disabled, seccomp, ..Kernel::default() };
            let lines = shown(&kernel(&found, &Limits::default(), &refused()));
            assert_eq!(lines[1].0, Grade::Problem);
            assert!(lines[1].1.contains(expected), "{lines:?}");
        };
        check(Some(2), Some(2), "sysctl -w kernel.io_uring_disabled=0");
        check(Some(1), Some(0), "kernel.io_uring_group (now none)");
        check(Some(0), Some(2), "allow io_uring_setup, io_uring_enter and io_uring_register");
        check(None, Some(0), "see the errno");
    }

    #[test]
    fn a_ring_without_memory_is_told_by_its_limit() {
        let hard = Some(64 << 10);
        let limits = Limits { locked_memory: Some(Limit { soft: hard, hard }), open_files: None };
        let error = RingError::Refused { failure: Failure::NoMemory, advice: String::new() };
        let lines = shown(&kernel(&Kernel::default(), &limits, &Err(error)));
        assert!(lines[1].0 == Grade::Problem && lines[1].1.contains("limited to 64.0 KiB"), "{lines:?}");
    }

    #[test]
    fn this_kernel_is_fit_to_run_the_tests() {
        let machine = Machine::read(&crate::machine::Tree::real()).unwrap();
        let groups = findings(&machine);
        assert_eq!(groups.len(), 3);
        assert!(groups.iter().flat_map(shown).all(|(grade, _)| grade < Grade::Problem));
    }

    #[test]
    fn little_locked_memory_is_told_with_the_remedy() {
        let check = |hard: Option<u64>, may_lock_memory: bool, expected: Grade| {
            let found = Kernel { may_lock_memory, ..Kernel::default() };
            let limit = Some(Limit { soft: hard, hard });
            let lines = shown(&limits(&found, &Limits { locked_memory: limit, open_files: None }));
            assert_eq!(lines[0].0, expected, "{lines:?}");
            lines[0].1.clone()
        };
        check(None, false, Grade::Fine);
        check(Some(64 << 20), false, Grade::Fine);
        check(Some(64 << 10), true, Grade::Fine);
        let line = check(Some(64 << 10), false, Grade::Advice);
        assert!(line.contains("LimitMEMLOCK") && line.contains("64"), "{line}");
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
