//! What this kernel can do, tried rather than guessed from its version: distributions backport, containers forbid.

use std::fmt;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use super::driver::{Completion, Driver, Outcome, Wait};
use super::error::{Failure, RingError};

/// How long a trial may take. Nothing leaves the host, so a working kernel answers at once.
const TRIAL_WAIT: Duration = Duration::from_secs(1);

/// How the kernel runs the completion work of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Inside `enter` only, one issuing thread (Linux 6.1).
    Deferred,
    /// At any system call of the thread, without interrupting it (5.19).
    Cooperative,
    /// As interrupts.
    Plain,
}

impl Mode {
    /// True when the kernel marks in the ring that completion work waits, so that an enter can be saved without it.
    pub(super) fn has_task_flag(self) -> bool {
        self != Mode::Plain
    }

    fn weaker(self) -> Option<Mode> {
        match self {
            Mode::Deferred => Some(Mode::Cooperative),
            Mode::Cooperative => Some(Mode::Plain),
            Mode::Plain => None,
        }
    }
}

/// One capability, for the start-up log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub capability: &'static str,
    /// Whether it is there.
    pub found: bool,
    /// What the server does, therefore.
    pub path: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.capability, if self.found { "found" } else { "not found" }, self.path)
    }
}

/// What the probe found, and so which paths the driver takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How completion work runs.
    pub mode: Mode,
    /// Multishot receive into incrementally consumed provided buffers.
    pub incremental_buffers: bool,
    /// Zero-copy send.
    pub zero_copy_send: bool,
    /// One line for each capability.
    pub findings: Vec<Finding>,
}

impl Capabilities {
    fn note(&mut self, capability: &'static str, found: bool, path: impl Into<String>) {
        self.findings.push(Finding { capability, found, path: path.into() });
    }
}

/// Sets a ring up in `mode`, or the strongest weaker one that the kernel accepts.
pub(super) fn build_ring(entries: u32, completions: u32, mode: Mode) -> Result<(IoUring, Mode), RingError> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(completions).setup_clamp().setup_submit_all().dontfork();
    match mode {
        Mode::Deferred => builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag(),
        Mode::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
        Mode::Plain => &mut builder,
    };
    match (builder.build(entries), mode.weaker()) {
        (Ok(ring), _) => Ok((ring, mode)),
        // Only flags that the kernel does not know give EINVAL here; anything else a weaker mode will not cure.
        (Err(error), Some(weaker)) if error.raw_os_error() == Some(libc::EINVAL) => {
            build_ring(entries, completions, weaker)
        }
        (Err(error), _) => Err(RingError::refused(&error)),
    }
}

/// Tries everything that the driver uses.
///
/// # Errors
/// When io_uring is refused, or something vital is missing; the message names it and says what to do.
pub fn probe() -> Result<Capabilities, RingError> {
    let (ring, mode) = build_ring(8, 16, Mode::Deferred)?;
    let mut found = Capabilities { mode, incremental_buffers: false, zero_copy_send: false, findings: Vec::new() };
    let path = match mode {
        Mode::Deferred => "completions run inside io_uring_enter only",
        Mode::Cooperative => "completions run at any system call (COOP_TASKRUN); Linux 6.1 has better",
        Mode::Plain => "completions interrupt the thread; Linux 6.1 has better",
    };
    found.note("SINGLE_ISSUER and DEFER_TASKRUN", mode == Mode::Deferred, path);
    let operations = operations(&ring)?;
    found.note("operations (accept, connect, recv, send, read, write, fsync, cancel)", true, "all through the ring");
    found.zero_copy_send = operations.is_supported(opcode::SendZc::CODE);
    let path = if found.zero_copy_send {
        "data links on `auto` try SEND_ZC with usage reports, and go back to SEND where the kernel copies anyway"
    } else {
        "data links use SEND"
    };
    found.note("zero-copy send (SEND_ZC)", found.zero_copy_send, path);
    note_registered_buffers(&ring, &mut found);
    drop(ring);
    try_multishot_accept(&found)?;
    found.note("multishot accept", true, "one accept serves the listener");
    found.incremental_buffers = try_incremental(&found);
    let path = if found.incremental_buffers {
        "data links receive with one multishot recv into incrementally consumed buffers"
    } else {
        "data links receive with one recv at a time into the same buffers; Linux 6.12 has better"
    };
    found.note("provided buffer ring with IOU_PBUF_RING_INC, multishot recv", found.incremental_buffers, path);
    Ok(found)
}

/// The opcodes of this kernel, with the vital ones checked.
fn operations(ring: &IoUring) -> Result<Probe, RingError> {
    let missing = |capability, advice: &str| RingError::Missing { capability, advice: advice.to_owned() };
    let newer = "Linux 6.1 or newer is needed";
    let mut probe = Probe::new();
    let asked = ring.submitter().register_probe(&mut probe);
    asked.map_err(|error| RingError::forbidden("io_uring_register", &error))?;
    let vital = [
        (opcode::Accept::CODE, "accept"),
        (opcode::Connect::CODE, "connect"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::AsyncCancel::CODE, "cancel"),
    ];
    for (code, name) in vital {
        if !probe.is_supported(code) {
            return Err(missing(name, newer));
        }
    }
    if !ring.params().is_feature_ext_arg() {
        return Err(missing("a timeout for io_uring_enter (EXT_ARG)", newer));
    }
    if !ring.params().is_feature_nodrop() {
        return Err(missing("the promise to drop no completion (NODROP)", newer));
    }
    Ok(probe)
}

/// Registered buffers are tried with one page: the log buffer itself is registered only once zero-copy was seen to pay.
fn note_registered_buffers(ring: &IoUring, found: &mut Capabilities) {
    let page = vec![0u8; 4096];
    let range = libc::iovec { iov_base: page.as_ptr().cast_mut().cast(), iov_len: page.len() };
    // SAFETY: the page lives until after it is unregistered below.
    let registered = unsafe { ring.submitter().register_buffers(&[range]) };
    match registered {
        Ok(()) => {
            let _ = ring.submitter().unregister_buffers();
            found.note("registered buffers", true, "the log buffer is registered when zero-copy pays");
        }
        Err(error) => {
            let failure = Failure::from_io(&error);
            let path = format!("zero-copy sends pin pages each time ({failure}); raise RLIMIT_MEMLOCK (ulimit -l)");
            found.note("registered buffers", false, path);
        }
    }
}

/// Runs the driver until `enough`, or the time for trials is up.
fn run(driver: &mut Driver, mut enough: impl FnMut(&[Completion]) -> bool) -> Result<Vec<Completion>, RingError> {
    let start = std::time::Instant::now();
    let mut outcomes = Vec::new();
    while !enough(&outcomes) && start.elapsed() < TRIAL_WAIT {
        let mut more = Vec::new();
        driver.enter(Wait::For(Duration::from_millis(100)), &mut more)?;
        outcomes.append(&mut more);
    }
    Ok(outcomes)
}

fn try_multishot_accept(found: &Capabilities) -> Result<(), RingError> {
    let missing = |advice: &str| RingError::Missing { capability: "multishot accept", advice: advice.to_owned() };
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|_| missing("the loopback interface must be up"))?;
    let address = listener.local_addr().map_err(|_| missing("the loopback interface must be up"))?;
    let mut driver = Driver::with_capabilities(found.clone())?;
    let listener = driver.attach(listener.into());
    driver.accept(listener, 0);
    let _first = TcpStream::connect(address);
    let _second = TcpStream::connect(address);
    let outcomes = match run(&mut driver, |outcomes| outcomes.len() >= 2) {
        // io_uring_setup was allowed, this was not.
        Err(RingError::Enter { failure: Failure::NotPermitted }) => {
            let error = std::io::Error::from_raw_os_error(libc::EPERM);
            return Err(RingError::forbidden("io_uring_enter", &error));
        }
        outcomes => outcomes?,
    };
    let accepted = |completion: &Completion| matches!(completion.outcome, Outcome::Accepted(Ok(_)));
    let works = outcomes.len() >= 2 && outcomes.iter().all(accepted);
    if works { Ok(()) } else { Err(missing("Linux 6.1 or newer is needed")) }
}

/// Two messages must arrive by one receive in one buffer, one behind the other.
fn try_incremental(found: &Capabilities) -> bool {
    let found = Capabilities { incremental_buffers: true, ..found.clone() };
    let Ok(mut driver) = Driver::with_capabilities(found) else { return false };
    let Ok(group) = driver.add_group(2, 4096) else { return false };
    let Ok((mut near, far)) = UnixStream::pair() else { return false };
    let far = driver.attach(far.into());
    driver.stream(far, group, 0);
    let mut slices = Vec::new();
    for message in [b"first", b"other"] {
        let sent = near.write_all(message).is_ok();
        let Ok(outcomes) = run(&mut driver, |outcomes| !sent || !outcomes.is_empty()) else { return false };
        let streamed = outcomes.into_iter().filter_map(|completion| match completion.outcome {
            Outcome::Streamed(slice) => Some(slice),
            _ => None,
        });
        slices.extend(streamed);
    }
    let [first, other] = &slices[..] else { return false };
    first[..] == b"first"[..] && other[..] == b"other"[..] && other.as_ptr() == first.as_ptr().wrapping_add(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_a_line() {
        let found = probe().unwrap();
        assert_eq!(found.findings.len(), 6);
        for finding in &found.findings {
            assert!(finding.to_string().contains("found; "), "{finding}");
        }
    }

    #[test]
    fn a_weaker_mode_still_gives_a_ring() {
        for mode in [Mode::Cooperative, Mode::Plain] {
            let (_, got) = build_ring(8, 16, mode).unwrap();
            assert_eq!(got, mode);
        }
    }
}
