//! What the kernel answers when it does not do as asked: errnos become words here, once.

use std::io;

use rustix::io::Errno;

/// Why an operation failed.
///
/// Reconnect after the connection's own ends (`ConnectionReset` to `HostUnreachable`); try again later when resources
/// are short (`NoBufferSpace` to `NoMemory`); give up on what a disk says (`NoSpace` to `InputOutput`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The peer aborted the connection (ECONNRESET).
    #[error("the peer reset the connection")]
    ConnectionReset,
    /// Nobody listens there (ECONNREFUSED).
    #[error("nobody listens there")]
    ConnectionRefused,
    /// This side had closed or aborted it already (ECONNABORTED, ENOTCONN, ESHUTDOWN).
    #[error("the connection is not open any more")]
    NotConnected,
    /// Sent after the peer stopped to listen (EPIPE).
    #[error("the peer takes no more bytes")]
    BrokenPipe,
    /// No answer within the socket's patience (ETIMEDOUT).
    #[error("no answer in time")]
    TimedOut,
    /// No way to the host (EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN).
    #[error("no route to the host")]
    HostUnreachable,
    /// The stream ended before all bytes were there. Not an errno: a receive or read gave 0.
    #[error("the stream ended early")]
    EndedEarly,
    /// The address is taken (EADDRINUSE).
    #[error("the address is in use")]
    AddressInUse,
    /// The address is not this host's (EADDRNOTAVAIL).
    #[error("the address is not available on this host")]
    AddressNotAvailable,
    /// No receive buffer was free (ENOBUFS).
    #[error("no buffer space")]
    NoBufferSpace,
    /// Too many open files in this process or on this host (EMFILE, ENFILE).
    #[error("too many open files; raise the limit (ulimit -n)")]
    TooManyFiles,
    /// No memory, or over the locked-memory limit (ENOMEM).
    #[error("no memory, or over RLIMIT_MEMLOCK (ulimit -l)")]
    NoMemory,
    /// The disk or the quota is full (ENOSPC, EDQUOT).
    #[error("no space on the disk")]
    NoSpace,
    /// The file is read-only, or its file system has become so (EROFS).
    #[error("the file system is read-only")]
    ReadOnly,
    /// The device failed (EIO).
    #[error("input/output error of the device")]
    InputOutput,
    /// Cancelled, mostly because its file is being closed (ECANCELED).
    #[error("cancelled")]
    Cancelled,
    /// A signal came in between (EINTR).
    #[error("interrupted")]
    Interrupted,
    /// It would have had to wait (EAGAIN).
    #[error("not ready")]
    NotReady,
    /// Not allowed (EPERM, EACCES).
    #[error("not permitted")]
    NotPermitted,
    /// The kernel does not know the operation, or not with these flags (EINVAL, EOPNOTSUPP, ENOSYS).
    #[error("not supported by this kernel")]
    NotSupported,
    /// The file descriptor is not open, or an address is wrong (EBADF, EFAULT): our own bug.
    #[error("bad file descriptor or address (a bug of this server)")]
    Bug,
    /// Anything else.
    #[error("errno {0}")]
    Other(i32),
}

impl Failure {
    /// The failure that an errno (a positive number) stands for.
    #[must_use]
    pub fn from_errno(number: i32) -> Failure {
        if !(1..4096).contains(&number) {
            return Failure::Other(number);
        }
        match Errno::from_raw_os_error(number) {
            Errno::CONNRESET => Failure::ConnectionReset,
            Errno::CONNREFUSED => Failure::ConnectionRefused,
            Errno::CONNABORTED | Errno::NOTCONN | Errno::SHUTDOWN => Failure::NotConnected,
            Errno::PIPE => Failure::BrokenPipe,
            Errno::TIMEDOUT | Errno::TIME => Failure::TimedOut,
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => Failure::HostUnreachable,
            Errno::ADDRINUSE => Failure::AddressInUse,
            Errno::ADDRNOTAVAIL => Failure::AddressNotAvailable,
            Errno::NOBUFS => Failure::NoBufferSpace,
            Errno::MFILE | Errno::NFILE => Failure::TooManyFiles,
            Errno::NOMEM => Failure::NoMemory,
            Errno::NOSPC | Errno::DQUOT => Failure::NoSpace,
            Errno::ROFS => Failure::ReadOnly,
            Errno::IO => Failure::InputOutput,
            Errno::CANCELED => Failure::Cancelled,
            Errno::INTR => Failure::Interrupted,
            Errno::AGAIN => Failure::NotReady,
            Errno::PERM | Errno::ACCESS => Failure::NotPermitted,
            Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => Failure::NotSupported,
            Errno::BADF | Errno::FAULT => Failure::Bug,
            _ => Failure::Other(number),
        }
    }

    /// The failure in an error of the standard library.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(number) => Failure::from_errno(number),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Failure::EndedEarly,
            None => Failure::Other(0),
        }
    }
}

/// The count of bytes (or the descriptor) that a completion carries, or why there is none.
pub(super) fn completed(result: i32) -> Result<u32, Failure> {
    u32::try_from(result).map_err(|_| Failure::from_errno(result.saturating_neg()))
}

/// The ring itself cannot be had or used: there is no way on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// `io_uring_setup` was refused.
    #[error("io_uring_setup was refused ({failure}): {advice}")]
    Refused {
        /// Why.
        failure: Failure,
        /// What the operator can do.
        advice: String,
    },
    /// The ring works, but something that there is no way around is missing.
    #[error("io_uring on this kernel lacks {capability}: {advice}")]
    Missing {
        /// What.
        capability: &'static str,
        /// What the operator can do.
        advice: String,
    },
    /// `io_uring_enter` failed.
    #[error("io_uring_enter failed ({failure}); the log thread cannot go on")]
    Enter {
        /// Why.
        failure: Failure,
    },
    /// Memory for receive buffers could not be had or registered.
    #[error(
        "{bytes} bytes of receive buffers were refused ({failure}); raise RLIMIT_MEMLOCK (ulimit -l) or the memory limit"
    )]
    Buffers {
        /// How many.
        bytes: usize,
        /// Why.
        failure: Failure,
    },
}

impl RingError {
    /// The error for a refused `io_uring_setup`, with the cause as far as this host shows it, and the remedy.
    #[must_use]
    pub fn refused(error: &io::Error) -> RingError {
        let advice = Circumstances::read().advice(error);
        RingError::Refused { failure: Failure::from_io(error), advice }
    }

    /// The error for an operation that the ring itself was refused after it had been set up.
    pub(super) fn forbidden(capability: &'static str, error: &io::Error) -> RingError {
        RingError::Missing { capability, advice: Circumstances::read().advice(error) }
    }

    /// What failed, and what to do about it, for those who print the two apart.
    #[must_use]
    pub fn parts(&self) -> (String, String) {
        match self {
            RingError::Refused { failure, advice } => {
                (format!("io_uring_setup was refused ({failure})"), advice.clone())
            }
            RingError::Missing { capability, advice } => {
                (format!("io_uring on this kernel lacks {capability}"), advice.clone())
            }
            RingError::Enter { .. } | RingError::Buffers { .. } => {
                (self.to_string(), "look at the limits of this process and at `dmesg`".to_owned())
            }
        }
    }
}

/// What there is on a host and in a process that can forbid io_uring. None is "this kernel has no such thing".
#[derive(Clone, Debug, Default)]
struct Circumstances {
    /// The sysctl `kernel.io_uring_disabled`.
    disabled: Option<u32>,
    /// The sysctl `kernel.io_uring_group`; -1 is none.
    group: Option<i64>,
    /// Of this process: 0 none, 1 strict, 2 a filter.
    seccomp: Option<u32>,
    /// The hard limit of locked memory, in bytes or "unlimited".
    locked_memory: Option<String>,
    /// That limit does not bind this process (CAP_IPC_LOCK).
    may_lock_memory: bool,
}

const CAP_IPC_LOCK: u32 = 14;

impl Circumstances {
    fn read() -> Circumstances {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Circumstances::of(&text)
    }

    fn of(text: &dyn Fn(&str) -> String) -> Circumstances {
        let line =
            |path: &str, name: &str| text(path).lines().find_map(|line| Some(line.strip_prefix(name)?.to_owned()));
        let limit = line("/proc/self/limits", "Max locked memory");
        Circumstances {
            disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            group: text("/proc/sys/kernel/io_uring_group").trim().parse().ok(),
            seccomp: line("/proc/self/status", "Seccomp:").and_then(|value| value.trim().parse().ok()),
            may_lock_memory: line("/proc/self/status", "CapEff:")
                .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
                .is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1),
            locked_memory: limit.and_then(|values| values.split_whitespace().nth(1).map(str::to_owned)),
        }
    }

    /// The likely cause of `error`, and the remedy.
    fn advice(&self, error: &io::Error) -> String {
        match (Failure::from_io(error), error.raw_os_error()) {
            (Failure::NotPermitted, _) => self.forbidden(),
            (Failure::NoMemory, _) => self.over_limit(),
            (_, Some(libc::ENOSYS)) if self.seccomp == Some(2) => format!("{SECCOMP_HIDES}: {SECCOMP_REMEDY}"),
            (_, Some(libc::ENOSYS)) => {
                "the kernel is built without io_uring; Linux 6.1 or newer with it is needed".to_owned()
            }
            (Failure::TooManyFiles, _) => {
                "raise the number of open files (ulimit -n, LimitNOFILE= in systemd)".to_owned()
            }
            _ => "Linux 6.1 or newer with io_uring is needed".to_owned(),
        }
    }

    fn forbidden(&self) -> String {
        match (self.disabled, self.seccomp) {
            (Some(1), seccomp) => format!(
                "kernel.io_uring_disabled is 1, which leaves it to processes with CAP_SYS_ADMIN and to the group of \
                 kernel.io_uring_group (now {}): set the former to 0 (sysctl -w kernel.io_uring_disabled=0), or the latter to a \
                 group of the node's user{}",
                self.group.filter(|group| *group >= 0).map_or("none".to_owned(), |group| group.to_string()),
                if seccomp == Some(2) { "; a seccomp filter is in force, too, and must allow it" } else { "" }
            ),
            (Some(value), _) if value > 1 => format!(
                "kernel.io_uring_disabled is {value}, which forbids it to everyone: set it to 0 (sysctl -w \
                 kernel.io_uring_disabled=0, and a file in /etc/sysctl.d for the next boot)"
            ),
            (_, Some(2)) => format!(
                "a seccomp filter forbids it (Seccomp: 2 in /proc/self/status; no sysctl does): {SECCOMP_REMEDY}"
            ),
            _ => "neither kernel.io_uring_disabled nor a seccomp filter forbids it: look for a security module (SELinux, \
                  AppArmor) in `dmesg` and the audit log"
                .to_owned(),
        }
    }

    fn over_limit(&self) -> String {
        match self.locked_memory.as_deref().filter(|_| !self.may_lock_memory) {
            Some("unlimited") | None => {
                "the limit of locked memory does not bind this process, so there was no memory to be had: look at `free`, \
                 and at the memory limit of the container or cgroup (in a user namespace it does bind: raise it, too)"
                    .to_owned()
            }
            Some(bytes) => format!(
                "locked memory (RLIMIT_MEMLOCK) of this user is limited to {bytes} bytes, and rings and their buffers count: \
                 raise it (LimitMEMLOCK=infinity in systemd, --ulimit memlock=-1 for containers, ulimit -l)"
            ),
        }
    }
}

const SECCOMP_HIDES: &str =
    "a seccomp filter hides it (Seccomp: 2 in /proc/self/status), or the kernel is built without it";
const SECCOMP_REMEDY: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's profile \
    (--security-opt seccomp=PROFILE) or the unit's SystemCallFilter=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_words() {
        assert_eq!(completed(0), Ok(0));
        assert_eq!(completed(42), Ok(42));
        assert_eq!(completed(-libc::ENOBUFS), Err(Failure::NoBufferSpace));
        assert_eq!(completed(-libc::ECONNRESET), Err(Failure::ConnectionReset));
        assert_eq!(completed(-libc::ENOSPC), Err(Failure::NoSpace));
        assert_eq!(completed(-9999), Err(Failure::Other(9999)));
    }

    /// Files as the kernel has them, by path.
    fn host(disabled: Option<&str>, seccomp: &str, locked: &str) -> Circumstances {
        host_of(disabled, seccomp, locked, "0000000000000000")
    }

    fn host_of(disabled: Option<&str>, seccomp: &str, locked: &str, rights: &str) -> Circumstances {
        let files = [
            ("/proc/sys/kernel/io_uring_disabled", disabled.unwrap_or_default().to_owned()),
            ("/proc/sys/kernel/io_uring_group", "-1\n".to_owned()),
            (
                "/proc/self/status",
                format!("Name:\tringstore\nCapEff:\t{rights}\nSeccomp:\t{seccomp}\nSeccomp_filters:\t1\n"),
            ),
            (
                "/proc/self/limits",
                format!("Max locked memory         {locked}                {locked}      bytes     \n"),
            ),
        ];
        Circumstances::of(&|path| files.iter().find(|(name, _)| *name == path).expect(path).1.clone())
    }

    #[test]
    fn a_refusal_names_its_cause_and_the_remedy() {
        let check = |errno: i32, host: Circumstances, cause: &str, remedy: &str| {
            let text = host.advice(&io::Error::from_raw_os_error(errno));
            assert!(text.contains(cause) && text.contains(remedy), "{text}");
        };
        let profile = "allow io_uring_setup, io_uring_enter and io_uring_register";
        check(
            libc::EPERM,
            host(Some("2\n"), "2", "65536"),
            "io_uring_disabled is 2",
            "sysctl -w kernel.io_uring_disabled=0",
        );
        check(
            libc::EPERM,
            host(Some("1\n"), "0", "65536"),
            "io_uring_disabled is 1",
            "kernel.io_uring_group (now none)",
        );
        check(
            libc::EPERM,
            host(Some("1\n"), "2", "65536"),
            "io_uring_disabled is 1",
            "a seccomp filter is in force, too",
        );
        check(libc::EPERM, host(Some("0\n"), "2", "65536"), "a seccomp filter forbids it", profile);
        check(libc::EPERM, host(None, "2", "65536"), "a seccomp filter forbids it", profile);
        check(libc::EACCES, host(Some("0\n"), "0", "65536"), "neither", "security module");
        check(libc::ENOMEM, host(Some("0\n"), "0", "65536"), "limited to 65536 bytes", "LimitMEMLOCK=infinity");
        check(libc::ENOMEM, host(Some("0\n"), "0", "unlimited"), "does not bind", "cgroup");
        let root = host_of(Some("0\n"), "0", "65536", "000001fffeffffff");
        check(libc::ENOMEM, root, "does not bind", "cgroup");
        check(libc::ENOSYS, host(None, "2", "65536"), "a seccomp filter hides it", profile);
        check(libc::ENOSYS, host(None, "0", "65536"), "built without io_uring", "Linux 6.1");
        check(libc::EMFILE, host(None, "0", "65536"), "open files", "LimitNOFILE");
    }

    #[test]
    fn an_error_is_its_two_parts() {
        let error = RingError::refused(&io::Error::from_raw_os_error(libc::ENOMEM));
        let (what, next) = error.parts();
        assert_eq!(error.to_string(), format!("{what}: {next}"));
    }
}
