//! The ring of one thread: it owns the files, keeps what is in flight, enters the kernel and sorts what comes back.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::net::{Shutdown, shutdown};

use super::buffers::{BufferGroup, Slice};
use super::error::{Failure, RingError};
use super::mirror::{MirroredBuffer, Window};
use super::operation::{FileId, Files, Operation, Operations, Source};
use super::probe::{Capabilities, build_ring, probe};
use super::token::UserData;

/// Submissions that are collected before one enter; more of them cost one more enter.
const SUBMISSION_ENTRIES: u32 = 256;

/// Completions that the kernel can hand over at once; more of them wait in the kernel.
const COMPLETION_ENTRIES: u32 = 4096;

/// How often a full queue is handed to the kernel before that counts as impossible.
const SUBMIT_ATTEMPTS_MAX: u32 = 1000;

/// How long [`Driver`]'s drop waits for the kernel to let go of buffers.
const DROP_WAIT: Duration = Duration::from_secs(2);

/// What one operation brought. Every operation ends with exactly one *final* outcome; after it nothing of the operation
/// is in flight, and its tag is the caller's again.
#[derive(Debug)]
pub enum Outcome {
    /// A connection came in (the accept goes on), or the accept ended. `Err` is final.
    Accepted(Result<OwnedFd, Failure>),
    /// The connection is there, or not. Final.
    Connected(Result<(), Failure>),
    /// Bytes in the caller's buffer: how many. Final.
    Received {
        /// The buffer, back.
        buffer: Vec<u8>,
        /// An inexact receive gives 0 when the peer closed; an exact one all bytes or a failure.
        result: Result<u32, Failure>,
    },
    /// Bytes of a stream, in order; more may follow.
    Streamed(Slice),
    /// The stream ended: `Ok` when the peer closed it in an orderly way. Final.
    StreamEnded(Result<(), Failure>),
    /// Everything was handed to the network, or not: the next send may go. Final if it carries a source, which is so for
    /// every send but a zero-copy one.
    Sent {
        /// What was sent, back.
        source: Option<Source>,
        /// How it went.
        result: Result<(), Failure>,
    },
    /// The kernel uses the bytes of a zero-copy send no more. Comes after its `Sent`. Final.
    SendReleased {
        /// What was sent, back.
        source: Source,
        /// The kernel copied after all, says its usage report: zero-copy does not pay on this way.
        copied: bool,
    },
    /// Everything is in the file (not yet durable), or not. Final.
    Written {
        /// What was written, back.
        source: Source,
        /// How it went.
        result: Result<(), Failure>,
    },
    /// Everything of a gathered write is in the file and durable, or not. Final. Only `benches/floor` writes so: see
    /// [`Driver::write_gathered_durable`].
    WrittenGathered {
        /// What was written, back.
        slices: Vec<Slice>,
        /// How it went.
        result: Result<(), Failure>,
    },
    /// The file's data is durable, or not. Final.
    Synced(Result<(), Failure>),
    /// Bytes of a file: fewer than asked for only at its end. Final.
    Read {
        /// The buffer, back.
        buffer: Vec<u8>,
        /// How many bytes.
        result: Result<u32, Failure>,
    },
    /// The eventfd was written. Final.
    Woken(Result<(), Failure>),
}

/// An outcome, and whose it is.
#[derive(Debug)]
pub struct Completion {
    /// As the caller gave it with the operation.
    pub tag: u64,
    /// What happened.
    pub outcome: Outcome,
}

/// How long [`Driver::enter`] may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// At most so long.
    For(Duration),
    /// Until one comes.
    Forever,
}

/// A group of receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(pub(super) u16);

/// One io_uring and all that is in flight in it. Lives on the thread that made it.
///
/// Families: `attach`, `detach`, `close`, `add_group` for what it owns; one method for each operation (in
/// `submit.rs`), which only queues; [`Driver::enter`] hands the queue to the kernel and collects outcomes.
pub struct Driver {
    // Invariant: everything that an operation points to is in `operations` or `groups` until its last completion.
    pub(super) ring: IoUring,
    pub(super) operations: Operations,
    pub(super) files: Files,
    pub(super) groups: Vec<BufferGroup>,
    /// The log buffer that is registered as fixed buffer 0, kept mapped.
    pub(super) registered: Option<Window>,
    pub(super) capabilities: Capabilities,
    /// Outcomes that did not come from the kernel, for the next enter to hand out.
    pub(super) own_outcomes: Vec<Completion>,
    /// Taken from the kernel, not sorted yet; empty between enters but for what `push` had to take.
    arrived: Vec<cqueue::Entry>,
    enters: u64,
    /// SINGLE_ISSUER: the kernel takes submissions of the creating thread only.
    not_send: PhantomData<*const ()>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("in_flight", &self.operations.in_flight()).finish_non_exhaustive()
    }
}

impl Driver {
    /// Probes the kernel and sets the ring up, for the calling thread.
    ///
    /// # Errors
    /// When io_uring is refused or lacks something vital; the message says what to do.
    pub fn new() -> Result<Driver, RingError> {
        let capabilities = probe()?;
        Driver::with_capabilities(capabilities)
    }

    /// Like [`Driver::new`] with given capabilities: tests take the paths of older kernels with it.
    ///
    /// # Errors
    /// When io_uring is refused.
    pub fn with_capabilities(capabilities: Capabilities) -> Result<Driver, RingError> {
        let (ring, _) = build_ring(SUBMISSION_ENTRIES, COMPLETION_ENTRIES, capabilities.mode)?;
        Ok(Driver {
            ring,
            operations: Operations::default(),
            files: Files::default(),
            groups: Vec::new(),
            registered: None,
            capabilities,
            own_outcomes: Vec::new(),
            arrived: Vec::with_capacity(COMPLETION_ENTRIES as usize),
            enters: 0,
            not_send: PhantomData,
        })
    }

    /// What the probe found.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How often the kernel was entered.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.in_flight()
    }

    /// Takes a file, socket or eventfd over. Sockets must be blocking ones: the ring waits for them, not the thread, and
    /// a non-blocking one would answer "not ready" instead.
    pub fn attach(&mut self, fd: OwnedFd) -> FileId {
        self.files.insert(fd)
    }

    /// Gives a file back that has no operation in flight.
    ///
    /// # Panics
    /// When it has.
    pub fn detach(&mut self, file: FileId) -> OwnedFd {
        self.files.take(file)
    }

    /// The descriptor, to look at its options or addresses; `None` when it is closed or closing.
    #[must_use]
    pub fn descriptor(&self, file: FileId) -> Option<BorrowedFd<'_>> {
        self.files.get(file).map(AsFd::as_fd)
    }

    /// True when the file has no operation in flight.
    ///
    /// # Panics
    /// When it is closed.
    #[must_use]
    pub fn is_idle(&self, file: FileId) -> bool {
        self.files.is_idle(file)
    }

    /// Ends everything that is in flight on the file and closes it after that. Operations still end with their outcomes,
    /// mostly [`Failure::Cancelled`].
    ///
    /// # Panics
    /// When the file is closed or closing already.
    pub fn close(&mut self, file: FileId) {
        self.end_waiting_streams(file);
        let Some(fd) = self.files.close(file) else { return };
        // For sockets: ends what cannot be cancelled, and tells the peer. Anything else refuses, which is fine.
        let _ = shutdown(fd, Shutdown::Both);
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd.as_raw_fd())).all()).build();
        self.push(cancel.user_data(UserData::IGNORED.pack()));
    }

    /// A stream that waits for a buffer is not in the kernel: it ends here.
    fn end_waiting_streams(&mut self, file: FileId) {
        for group in 0..self.groups.len() {
            let waiting = mem::take(&mut self.groups[group].waiting);
            for slot in waiting {
                if self.operations.get_mut(slot).file != file {
                    self.groups[group].waiting.push(slot);
                    continue;
                }
                let operation = self.operations.remove(slot);
                let outcome = Outcome::StreamEnded(Err(Failure::Cancelled));
                self.own_outcomes.push(Completion { tag: operation.tag, outcome });
                self.files.finish(file);
                // `close` goes on with the file: it must not be closed before.
            }
        }
    }

    /// Makes a group of `count` (a power of two) receive buffers. Memory is used as it is first received into.
    ///
    /// # Errors
    /// When the memory is refused.
    ///
    /// # Panics
    /// When `count` is not a power of two.
    pub fn add_group(&mut self, count: u16, buffer_bytes: u32) -> Result<GroupId, RingError> {
        let id = u16::try_from(self.groups.len()).expect("fewer than 65536 buffer groups");
        let incremental = self.capabilities.incremental_buffers;
        self.groups.push(BufferGroup::new(&self.ring, id, count, buffer_bytes, incremental)?);
        Ok(GroupId(id))
    }

    /// Registers the log buffer, so that zero-copy sends need not pin its pages each time. This makes all its pages
    /// resident, so do it only once zero-copy was seen to pay.
    ///
    /// # Errors
    /// Mostly [`Failure::NoMemory`] for RLIMIT_MEMLOCK; sends work without it.
    pub fn register_log_buffer(&mut self, buffer: &MirroredBuffer) -> Result<(), Failure> {
        if self.registered.is_some() {
            return Ok(());
        }
        let window = buffer.mapped();
        let (start, length) = window.mapping();
        let range = libc::iovec { iov_base: start.cast(), iov_len: length };
        // SAFETY: the mapping lives as long as `window`, which is kept until the ring is gone.
        let registered = unsafe { self.ring.submitter().register_buffers(&[range]) };
        registered.map_err(|error| Failure::from_io(&error))?;
        self.registered = Some(window);
        Ok(())
    }

    /// Queues an entry. When the queue is full it is handed to the kernel at once.
    pub(super) fn push(&mut self, entry: squeue::Entry) {
        let mut attempts = 0;
        // SAFETY: what the entry points to is kept in `operations` or `groups` until its completion (type invariant).
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.enters += 1;
            let submitted = self.ring.submit();
            // A kernel that is short of room for completions takes submissions again when these are taken.
            self.arrived.extend(self.ring.completion());
            attempts += 1;
            assert!(attempts < SUBMIT_ATTEMPTS_MAX, "io_uring takes no submissions: {submitted:?}");
        }
    }

    /// Hands everything queued to the kernel, waits as told, and puts what was completed behind `outcomes`.
    ///
    /// Returns after a wake-up without an outcome, too. With DEFER_TASKRUN nothing completes outside of this call.
    ///
    /// # Errors
    /// When the kernel refuses in a way that there is no way on from.
    pub fn enter(&mut self, wait: Wait, outcomes: &mut Vec<Completion>) -> Result<(), RingError> {
        self.give_buffers_back();
        outcomes.append(&mut self.own_outcomes);
        let wait = if outcomes.is_empty() && self.arrived.is_empty() { wait } else { Wait::No };
        match self.enter_kernel(wait) {
            Ok(()) => {}
            Err(error) => match Failure::from_io(&error) {
                // Time is up, a signal, or completions must be taken first: all the same here.
                Failure::TimedOut | Failure::Interrupted | Failure::NotReady => {}
                _ if error.raw_os_error() == Some(libc::EBUSY) => {}
                failure => return Err(RingError::Enter { failure }),
            },
        }
        self.arrived.extend(self.ring.completion());
        while !self.arrived.is_empty() {
            let mut arrived = mem::take(&mut self.arrived);
            for entry in arrived.drain(..) {
                self.sort(&entry, outcomes);
            }
            if self.arrived.is_empty() {
                // Keep the larger buffer. Otherwise `push` has put more there, which comes next.
                self.arrived = arrived;
            }
        }
        outcomes.append(&mut self.own_outcomes);
        Ok(())
    }

    fn sort(&mut self, entry: &cqueue::Entry, outcomes: &mut Vec<Completion>) {
        let data = UserData::unpack(entry.user_data()).expect("user data that we made");
        if data != UserData::IGNORED {
            let slot = self.operations.find(data);
            self.complete(slot, entry.result(), entry.flags(), outcomes);
        }
    }

    fn enter_kernel(&mut self, wait: Wait) -> io::Result<()> {
        let queue = self.ring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        let ready = !self.ring.completion().is_empty();
        if idle && (ready || wait == Wait::No) && self.capabilities.mode.has_task_flag() {
            return Ok(());
        }
        self.enters += 1;
        match wait {
            Wait::For(span) if !ready => {
                let span = Timespec::from(span);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&span))?;
            }
            Wait::Forever if !ready => {
                self.ring.submit_and_wait(1)?;
            }
            Wait::No | Wait::For(_) | Wait::Forever => {
                self.ring.submit()?;
            }
        }
        Ok(())
    }

    /// Gives receive buffers that nobody needs to the kernel, and goes on with streams that waited for one.
    fn give_buffers_back(&mut self) {
        for index in 0..self.groups.len() {
            self.groups[index].give_back();
            for slot in mem::take(&mut self.groups[index].waiting) {
                self.submit(slot);
            }
        }
    }

    /// Ends the operation in `slot`: its file has one less.
    pub(super) fn finish(&mut self, slot: u32) -> Operation {
        let operation = self.operations.remove(slot);
        self.files.finish(operation.file);
        operation
    }
}

impl Drop for Driver {
    /// Cancels everything and waits until the kernel has let go of every buffer. What it does not let go of in time is
    /// leaked: freed memory that the kernel writes to would be worse.
    fn drop(&mut self) {
        for fd in self.files.iter() {
            let _ = shutdown(fd, Shutdown::Both);
        }
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        self.push(cancel.user_data(UserData::IGNORED.pack()));
        for group in 0..self.groups.len() {
            for slot in mem::take(&mut self.groups[group].waiting) {
                self.finish(slot);
            }
        }
        let start = std::time::Instant::now();
        let mut outcomes = Vec::new();
        while self.operations.in_flight() > 0 && start.elapsed() < DROP_WAIT {
            if self.enter(Wait::For(Duration::from_millis(50)), &mut outcomes).is_err() {
                break;
            }
            // A stream or accept that was armed anew by its last completion, or a send's second half.
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(cancel.user_data(UserData::IGNORED.pack()));
            outcomes.clear();
        }
        if self.operations.in_flight() > 0 {
            mem::forget(mem::take(&mut self.operations));
            mem::forget(mem::take(&mut self.groups));
            mem::forget(self.registered.take());
        }
    }
}
