//! One method for each operation, and how each becomes an entry of the submission queue. They only queue.

use std::net::SocketAddr;

use io_uring::{opcode, squeue};
use socket2::SockAddr;

use super::buffers::{Next, Slice};
use super::driver::{Driver, GroupId};
use super::mirror::Window;
use super::operation::{FileId, Operation, Source, Work, ZEROS, ZeroCopy};

/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the kernel copied.
const REPORT_USAGE: u16 = 1 << 3;

/// Ask the file system for the data only: chunk files are preallocated, so their size never changes.
const DATA_ONLY: io_uring::types::FsyncFlags = io_uring::types::FsyncFlags::DATASYNC;

/// Slices in one [`Driver::write_gathered_durable`] at most; the kernel's limit is 1024 (UIO_MAXIOV). For `benches/floor`,
/// like that.
pub const GATHERED_MAX: usize = 1024;

impl Driver {
    /// Accepts connections until it fails; each comes as an outcome.
    pub fn accept(&mut self, listener: FileId, tag: u64) {
        self.start(listener, tag, Work::Accept);
    }

    /// Connects a socket.
    pub fn connect(&mut self, socket: FileId, address: SocketAddr, tag: u64) {
        self.start(socket, tag, Work::Connect { address: Box::new(SockAddr::from(address)) });
    }

    /// Receives until the buffer (its length, not its capacity) is full.
    pub fn receive_exact(&mut self, socket: FileId, buffer: Vec<u8>, tag: u64) {
        self.start(socket, tag, Work::Receive { buffer, done: 0, exact: true });
    }

    /// Receives what is there, at least one byte, into the buffer's length.
    pub fn receive(&mut self, socket: FileId, buffer: Vec<u8>, tag: u64) {
        self.start(socket, tag, Work::Receive { buffer, done: 0, exact: false });
    }

    /// Receives all that comes, into buffers of the group, until the stream ends. Stops while no buffer is free and goes
    /// on by itself.
    pub fn stream(&mut self, socket: FileId, group: GroupId, tag: u64) {
        self.start(socket, tag, Work::Stream { group: group.0 });
    }

    /// Sends everything in the source. One send at a time on a socket, or the parts may change places.
    pub fn send(&mut self, socket: FileId, source: Source, tag: u64) {
        self.start(socket, tag, Work::Send { source, done: 0, zero_copy: None });
    }

    /// Sends from the log buffer, without copying where the kernel can. The bytes are in use until
    /// [`Outcome::SendReleased`](super::Outcome::SendReleased), but the next send may go after the `Sent`.
    pub fn send_zero_copy(&mut self, socket: FileId, window: Window, tag: u64) {
        let zero_copy = Some(ZeroCopy::default());
        self.start(socket, tag, Work::Send { source: Source::Log(window), done: 0, zero_copy });
    }

    /// Writes everything in the source to the file at `offset`.
    pub fn write(&mut self, file: FileId, source: Source, offset: u64, tag: u64) {
        self.write_padded(file, source, 0, offset, tag);
    }

    /// Like [`Driver::write`], with `zeros` bytes of zero behind the source. So a write can fill its last page: the kernel
    /// need not read it from the disk first.
    ///
    /// # Panics
    /// With more than [`ZEROS_MAX`](super::ZEROS_MAX) zeros.
    pub fn write_padded(&mut self, file: FileId, source: Source, zeros: u32, offset: u64, tag: u64) {
        assert!(zeros as usize <= ZEROS.len(), "{zeros} zeros behind a write");
        let work = Work::Write { source, zeros, vectors: Vec::new(), offset, done: 0, durable: false };
        self.start(file, tag, work);
    }

    /// Like [`Driver::write`], but complete only when the bytes are durable: write and flush in one operation
    /// (RWF_DSYNC). Says nothing of other bytes of the file.
    ///
    /// Works on files opened with O_DIRECT, too, when the source, its length and `offset` are multiples of the device's
    /// block size: a [`Window`] at such a position is, because the log buffer begins at a page.
    ///
    /// For the experiments of `benches/floor` (its ways `dsync` and `direct`). The server does not use it: nothing is
    /// written ahead while such a write is under way, and its rate was within the noise of write and fdatasync. See
    /// [`decisions`](crate::manual::decisions), "Buffered writes and fdatasync".
    pub fn write_durable(&mut self, file: FileId, source: Source, offset: u64, tag: u64) {
        let work = Work::Write { source, zeros: 0, vectors: Vec::new(), offset, done: 0, durable: true };
        self.start(file, tag, work);
    }

    /// Writes received bytes that lie in several places to the file at `offset`, one behind the other, and completes when
    /// they are durable: [`Driver::write_durable`] for a follower, whose bytes stay where the kernel received them.
    ///
    /// For the experiments of `benches/floor` (its way `gathered`), and not used by the server for the same reasons. It
    /// would be the first to change our mind: see [`decisions`](crate::manual::decisions).
    ///
    /// # Panics
    /// With more than [`GATHERED_MAX`] slices, or none.
    pub fn write_gathered_durable(&mut self, file: FileId, slices: Vec<Slice>, offset: u64, tag: u64) {
        assert!((1..=GATHERED_MAX).contains(&slices.len()), "{} slices in a write", slices.len());
        let work = Work::WriteGathered { slices, vectors: Vec::new(), offset, done: 0, durable: true };
        self.start(file, tag, work);
    }

    /// Makes what was written to the file durable. Submit it when the writes have completed: it waits for nothing.
    pub fn sync(&mut self, file: FileId, tag: u64) {
        self.start(file, tag, Work::Sync);
    }

    /// Fills the buffer (its length, not its capacity) from the file at `offset`.
    pub fn read(&mut self, file: FileId, buffer: Vec<u8>, offset: u64, tag: u64) {
        self.start(file, tag, Work::Read { buffer, offset, done: 0 });
    }

    /// Waits for the next write to an eventfd.
    pub fn watch(&mut self, eventfd: FileId, tag: u64) {
        self.start(eventfd, tag, Work::Watch { count: Box::new(0) });
    }

    fn start(&mut self, file: FileId, tag: u64, work: Work) {
        self.files.start(file);
        let slot = self.operations.insert(Operation { file, tag, work });
        self.submit(slot);
    }

    /// Queues (what is left of) the operation in `slot`.
    pub(super) fn submit(&mut self, slot: u32) {
        let Some(entry) = self.entry(slot) else { return };
        let data = self.operations.user_data(slot);
        self.push(entry.user_data(data.pack()));
    }

    /// The submission for the operation in `slot`; `None` for a stream that has to wait for a buffer. Pointers in it
    /// point into the operation's own heap memory, a mapping that it keeps, or a buffer group.
    fn entry(&mut self, slot: u32) -> Option<squeue::Entry> {
        let operation = self.operations.get_mut(slot);
        let fd = self.files.descriptor(operation.file);
        Some(match &mut operation.work {
            Work::Accept => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
            Work::Connect { address } => opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build(),
            Work::Receive { buffer, done, exact } => {
                let (pointer, length) = rest_of(buffer, *done);
                opcode::Recv::new(fd, pointer, length).flags(if *exact { libc::MSG_WAITALL } else { 0 }).build()
            }
            Work::Stream { group } => {
                let group = &mut self.groups[usize::from(*group)];
                match group.next() {
                    Next::Multishot(id) => opcode::RecvMulti::new(fd, id).build(),
                    Next::Single { pointer, length } => opcode::Recv::new(fd, pointer, length).build(),
                    Next::Wait => {
                        group.waiting.push(slot);
                        return None;
                    }
                }
            }
            Work::Send { source, done, zero_copy } => {
                let pointer = source.pointer().wrapping_add(*done as usize);
                let length = source.length() - *done;
                // WAITALL: the kernel itself goes on after a part. NOSIGNAL: a closed peer is an answer, not a signal.
                let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
                if zero_copy.is_none() {
                    opcode::Send::new(fd, pointer, length).flags(flags).build()
                } else {
                    let fixed = match (&*source, &self.registered) {
                        (Source::Log(window), Some(fixed)) if window.mapping() == fixed.mapping() => Some(0),
                        _ => None,
                    };
                    let send = opcode::SendZc::new(fd, pointer, length).flags(flags).zc_flags(REPORT_USAGE);
                    send.buf_index(fixed).build()
                }
            }
            Work::Write { source, zeros: 0, offset, done, durable, .. } => {
                let pointer = source.pointer().wrapping_add(*done as usize);
                let write = opcode::Write::new(fd, pointer, source.length() - *done);
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                write.offset(*offset + u64::from(*done)).rw_flags(flags).build()
            }
            Work::Write { source, zeros, vectors, offset, done, durable } => {
                padded_vectors(source, *zeros, *done, vectors);
                let write = opcode::Writev::new(fd, vectors.as_ptr(), vectors.len() as u32);
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                write.offset(*offset + u64::from(*done)).rw_flags(flags).build()
            }
            Work::WriteGathered { slices, vectors, offset, done, durable } => {
                *vectors = vectors_of(slices, *done);
                let write = opcode::Writev::new(fd, vectors.as_ptr(), vectors.len() as u32);
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                write.offset(*offset + u64::from(*done)).rw_flags(flags).build()
            }
            Work::Sync => opcode::Fsync::new(fd).flags(DATA_ONLY).build(),
            Work::Read { buffer, offset, done } => {
                let (pointer, length) = rest_of(buffer, *done);
                opcode::Read::new(fd, pointer, length).offset(*offset + u64::from(*done)).build()
            }
            Work::Watch { count } => {
                let pointer: *mut u64 = &raw mut **count;
                opcode::Read::new(fd, pointer.cast(), size_of::<u64>() as u32).build()
            }
        })
    }
}

/// What is left of a source and the zeros behind it after their first `done` bytes, as the kernel takes it.
pub(super) fn padded_vectors(source: &Source, zeros: u32, done: u32, vectors: &mut Vec<libc::iovec>) {
    let from_source = done.min(source.length());
    let from_zeros = done - from_source;
    let parts = [
        (source.pointer().wrapping_add(from_source as usize), source.length() - from_source),
        (ZEROS.as_ptr(), zeros - from_zeros),
    ];
    vectors.clear();
    for (pointer, length) in parts.into_iter().filter(|(_, length)| *length > 0) {
        vectors.push(libc::iovec { iov_base: pointer.cast_mut().cast(), iov_len: length as usize });
    }
}

/// What is left of the slices after their first `done` bytes, as the kernel takes it.
pub(super) fn vectors_of(slices: &[Slice], done: u32) -> Vec<libc::iovec> {
    let mut skip = done as usize;
    let mut vectors = Vec::with_capacity(slices.len());
    for slice in slices {
        let skipped = skip.min(slice.len());
        skip -= skipped;
        let rest = &slice[skipped..];
        if !rest.is_empty() {
            vectors.push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
        }
    }
    vectors
}

/// Where the unfilled part of a buffer begins, and how long it is.
fn rest_of(buffer: &mut [u8], done: u32) -> (*mut u8, u32) {
    let rest = &mut buffer[done as usize..];
    let length = u32::try_from(rest.len()).expect("an operation moves less than 4 GiB");
    (rest.as_mut_ptr(), length)
}
