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
    /// The error for a refused `io_uring_setup`, with advice fitting the errno and this host's settings.
    pub(super) fn refused(error: &io::Error) -> RingError {
        let failure = Failure::from_io(error);
        let advice = match (failure, error.raw_os_error()) {
            (Failure::NotPermitted, _) => match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
                Ok(text) if text.trim() != "0" => format!(
                    "kernel.io_uring_disabled is {}; set it to 0 (sysctl -w kernel.io_uring_disabled=0), or allow it in seccomp",
                    text.trim()
                ),
                _ => "a seccomp profile forbids it (containers: allow io_uring_setup, io_uring_enter and io_uring_register)"
                    .to_owned(),
            },
            (Failure::NoMemory, _) => "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= in systemd)".to_owned(),
            (_, Some(libc::ENOSYS)) => {
                "the kernel is built without io_uring, or seccomp hides it; Linux 6.1 or newer is needed".to_owned()
            }
            (Failure::TooManyFiles, _) => "raise the number of open files (ulimit -n)".to_owned(),
            _ => "Linux 6.1 or newer with io_uring is needed".to_owned(),
        };
        RingError::Refused { failure, advice }
    }
}

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

    #[test]
    fn a_refusal_says_what_to_do() {
        let text = RingError::refused(&io::Error::from_raw_os_error(libc::ENOMEM)).to_string();
        assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");
        let text = RingError::refused(&io::Error::from_raw_os_error(libc::ENOSYS)).to_string();
        assert!(text.contains("seccomp"), "{text}");
        let text = RingError::refused(&io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(text.contains("seccomp"), "{text}");
    }
}
