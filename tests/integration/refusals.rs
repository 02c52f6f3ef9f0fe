//! io_uring refused for each reason that a host has: `ringstore doctor` and the server itself name the cause and the remedy,
//! and the server has made nothing by then.
//!
//! A seccomp filter is one of a thread, and what the thread starts inherits it; so a test puts it on a thread of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;

use crate::support::cluster::{command, program, scratch};

const ALL: [libc::c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
const PROFILE: &str = "allow io_uring_setup, io_uring_enter and io_uring_register";
/// The exit status for a ring that is refused.
const STATUS: i32 = 6;
const LOCKED_BYTES: u64 = 64 << 10;

/// Exit status and all that was printed.
fn finish(mut command: Command) -> (i32, String) {
    let output = command.output().expect("the program starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap_or_else(|| panic!("ended by a signal: {text}")), text)
}

/// Runs on a thread that is refused `calls`, and so is what it starts.
fn refused<T: Send>(calls: &[libc::c_long], errno: i32, run: impl FnOnce() -> T + Send) -> T {
    let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a program for the kernel");
    let body = || {
        apply_filter(&filter).expect("a thread may give up rights");
        run()
    };
    thread::scope(|scope| scope.spawn(body).join().expect("the thread ends"))
}

/// The problems of the group, each as what it is and the next step.
fn problems(document: &str, group: &str) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
    assert_eq!(document["worst"], "problem", "{document}");
    let findings = document["findings"].as_array().unwrap().iter();
    let of_group = findings.filter(|finding| finding["group"] == group && finding["grade"] == "problem");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    of_group.map(|finding| (text(&finding["what"]), text(&finding["next"]))).collect()
}

/// Doctor and server, run by `launch`, say all of `words`.
fn check(folder: &Path, launch: impl Fn(&[&str]) -> Command, words: &[&str]) {
    let db = folder.join("db");
    let place = ["--db", db.to_str().unwrap(), "--log", folder.to_str().unwrap()];
    let ports = ["--ext-tcp-port", "0", "--ext-http-port", "0", "--int-http-port", "0"];
    let (status, text) = finish(launch(&[&["doctor", "--json"][..], &place].concat()));
    let found = problems(&text, "kernel");
    assert!(status == 1 && found.len() == 1, "{status}: {text}");
    let line = format!("{}: {}", found[0].0, found[0].1);
    words.iter().for_each(|word| assert!(line.contains(word), "the doctor does not say {word:?}: {line}"));
    let (status, text) = finish(launch(&[&place[..], &ports].concat()));
    assert_eq!(status, STATUS, "{text}");
    words.iter().for_each(|word| assert!(text.contains(word), "the server does not say {word:?}: {text}"));
    assert!(!db.exists(), "the data directory was made before the ring was refused");
}

fn ringstore(arguments: &[&str]) -> Command {
    let mut command = command();
    command.args(arguments);
    command
}

#[test]
fn a_seccomp_filter_is_named() {
    let folder = scratch("refused-seccomp");
    let check = |calls: &[libc::c_long], errno, words: &[&str]| {
        refused(calls, errno, || check(&folder, ringstore, words));
    };
    let setup = "io_uring_setup was refused (not permitted)";
    check(&ALL, libc::EPERM, &[setup, "a seccomp filter forbids it", PROFILE]);
    check(&ALL, libc::ENOSYS, &["io_uring_setup was refused", "a seccomp filter hides it", PROFILE]);
    // A profile that was mended by half.
    check(&ALL[1..2], libc::EPERM, &["lacks io_uring_enter", "a seccomp filter forbids it", PROFILE]);
    check(&ALL[2..], libc::EPERM, &["lacks io_uring_register", "a seccomp filter forbids it", PROFILE]);
    fs::remove_dir_all(folder).unwrap();
}

/// Setting the sysctl would take io_uring from all of the host. What it does is EPERM, and here a filter says that; what
/// tells of it is its file, and here another one lies on top of that, in a mount namespace.
#[test]
fn the_sysctl_is_named() {
    const FILE: &str = "/proc/sys/kernel/io_uring_disabled";
    const SCRIPT: &str = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    let folder = scratch("refused-sysctl");
    let values = folder.join("value");
    let launch = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(&values).arg(FILE).arg(program()).args(arguments);
        command
    };
    fs::write(&values, "0\n").unwrap();
    let mut trial = launch(&[]);
    trial.arg("--version");
    if !trial.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespaces here, or no {FILE}");
        return;
    }
    for (value, words) in [
        ("2", ["kernel.io_uring_disabled is 2", "sysctl -w kernel.io_uring_disabled=0"]),
        ("1", ["kernel.io_uring_disabled is 1", "kernel.io_uring_group"]),
    ] {
        fs::write(&values, format!("{value}\n")).unwrap();
        refused(&ALL, libc::EPERM, || check(&folder, launch, &words));
    }
    fs::remove_dir_all(folder).unwrap();
}

/// A folder with the program, where any user may run it; removed at the end, whichever that is.
struct ForAll(PathBuf);

impl Drop for ForAll {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn program_for_all() -> ForAll {
    let folder = std::env::temp_dir().join(format!("ringstore-for-all-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let made = ForAll(folder);
    fs::set_permissions(&made.0, PermissionsExt::from_mode(0o777)).unwrap();
    fs::copy(program(), made.0.join("ringstore")).unwrap();
    made
}

/// Linux counts the rings as locked memory since 6.14.
fn counts_rings() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}

/// The limit does not bind the privileged, so root becomes somebody else first.
#[test]
fn little_locked_memory_is_named() {
    let made = program_for_all();
    let folder = &made.0;
    let is_root = rustix::process::geteuid().is_root();
    let launch = |arguments: &[&str]| {
        let mut command = Command::new("prlimit");
        command.arg(format!("--memlock={LOCKED_BYTES}:{LOCKED_BYTES}"));
        if is_root {
            command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command.args(["--inh-caps=-all", "--bounding-set=-all"]);
        }
        command.arg(folder.join("ringstore")).args(arguments).current_dir("/");
        command
    };
    let mut trial = launch(&[]);
    trial.arg("--version");
    if !trial.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: prlimit and setpriv cannot be used here");
    } else if counts_rings() {
        check(
            folder,
            launch,
            &["io_uring_setup was refused (no memory", "limited to 65536 bytes", "LimitMEMLOCK=infinity"],
        );
        let db = folder.join("db");
        let (_, text) = finish(launch(&["doctor", "--json", "--db", db.to_str().unwrap()]));
        let found = problems(&text, "limits");
        assert!(found[0].0.contains("64.0 KiB") && found[0].1.contains("LimitMEMLOCK=infinity"), "{found:?}");
    } else {
        let (_, text) = finish(launch(&["doctor", "--db", "/"]));
        assert!(text.contains("advice   limits    locked memory: 64.0 KiB"), "{text}");
        eprintln!("the server was not tried: this kernel does not count rings as locked memory");
    }
}
