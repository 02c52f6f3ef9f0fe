//! What is in flight: the table that keeps every buffer the kernel may still touch.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::types::Fd;
use socket2::SockAddr;

use super::buffers::Slice;
use super::mirror::Window;
use super::token::{GENERATION_COUNT, Kind, UserData};

/// Operations in flight at once, at most: a few for every link that a cluster can have and every greeting that may be
/// pending, plus zero-copy sends whose notification is late.
const OPERATIONS_MAX: usize = 1 << 16;

/// Bytes that an operation reads from; it owns them until it gives them back.
#[derive(Debug)]
pub enum Source {
    /// Of its own.
    Owned(Vec<u8>),
    /// A range of the log buffer.
    Log(Window),
    /// As they were received.
    Received(Slice),
    /// A part of what several operations read.
    Shared(SharedPart),
}

/// A part of bytes that several operations read.
#[derive(Clone, Debug)]
pub struct SharedPart {
    bytes: Rc<Vec<u8>>,
    /// Invariant: inside of `bytes`.
    range: Range<usize>,
}

impl SharedPart {
    /// # Panics
    /// When the range is not inside.
    #[must_use]
    pub fn new(bytes: Rc<Vec<u8>>, range: Range<usize>) -> SharedPart {
        let inside = range.start <= range.end && range.end <= bytes.len();
        assert!(inside, "{range:?} of {} bytes", bytes.len());
        SharedPart { bytes, range }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl Source {
    /// How many bytes.
    ///
    /// # Panics
    /// From 4 GiB on: more than an operation moves.
    #[must_use]
    pub fn length(&self) -> u32 {
        match self {
            Source::Owned(bytes) => u32::try_from(bytes.len()).expect("an operation moves less than 4 GiB"),
            Source::Log(window) => window.length(),
            Source::Received(slice) => slice.length(),
            Source::Shared(part) => u32::try_from(part.bytes().len()).expect("an operation moves less than 4 GiB"),
        }
    }

    pub(super) fn pointer(&self) -> *const u8 {
        match self {
            Source::Owned(bytes) => bytes.as_ptr(),
            Source::Log(window) => window.pointer(),
            Source::Received(slice) => slice.as_ptr(),
            Source::Shared(part) => part.bytes().as_ptr(),
        }
    }
}

/// Zeros that a write can have behind its source.
pub const ZEROS_MAX: usize = 4096;

/// They never change, so any number of operations may read them.
pub(super) static ZEROS: [u8; ZEROS_MAX] = [0; ZEROS_MAX];

/// What an operation does, with everything that the kernel may touch meanwhile.
#[derive(Debug)]
pub(super) enum Work {
    Accept,
    /// Boxed: the kernel keeps the address of the address.
    Connect {
        address: Box<SockAddr>,
    },
    Receive {
        buffer: Vec<u8>,
        done: u32,
        exact: bool,
    },
    Stream {
        group: u16,
    },
    Send {
        source: Source,
        done: u32,
        zero_copy: Option<ZeroCopy>,
    },
    Write {
        source: Source,
        /// Zeros behind it, at most [`ZEROS_MAX`].
        zeros: u32,
        /// Source and zeros, when there are any. Kept here because the kernel reads it when it gets to the operation.
        vectors: Vec<libc::iovec>,
        offset: u64,
        done: u32,
        /// Complete only when the bytes are durable.
        durable: bool,
    },
    WriteGathered {
        slices: Vec<Slice>,
        /// The parts that are left to write. Kept here because the kernel reads them when it gets to the operation.
        vectors: Vec<libc::iovec>,
        offset: u64,
        done: u32,
        durable: bool,
    },
    Sync,
    Read {
        buffer: Vec<u8>,
        offset: u64,
        done: u32,
    },
    /// Boxed: the kernel writes the eventfd's count there.
    Watch {
        count: Box<u64>,
    },
}

/// The second half of a zero-copy send: the bytes stay in use until the kernel notifies us.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ZeroCopy {
    /// Notifications still to come.
    pub(super) notifications: u32,
    /// A notification said that the kernel had copied after all.
    pub(super) copied: bool,
    /// The send itself is over and was reported.
    pub(super) sent: bool,
}

impl Work {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Work::Accept => Kind::Accept,
            Work::Connect { .. } => Kind::Connect,
            Work::Receive { .. } => Kind::Receive,
            Work::Stream { .. } => Kind::Stream,
            Work::Send { .. } => Kind::Send,
            Work::Write { .. } | Work::WriteGathered { .. } => Kind::Write,
            Work::Sync => Kind::Sync,
            Work::Read { .. } => Kind::Read,
            Work::Watch { .. } => Kind::Watch,
        }
    }
}

/// One operation in flight.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) file: FileId,
    pub(super) tag: u64,
    pub(super) work: Work,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    operation: Option<Operation>,
}

/// The operations in flight, by slot.
#[derive(Debug, Default)]
pub(super) struct Operations {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Operations {
    pub(super) fn insert(&mut self, operation: Operation) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            assert!(self.slots.len() < OPERATIONS_MAX, "{OPERATIONS_MAX} operations in flight: something leaks them");
            self.slots.push(Slot { generation: 0, operation: None });
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize].operation = Some(operation);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Operation {
        let entry = &mut self.slots[slot as usize];
        entry.generation = (entry.generation + 1) % GENERATION_COUNT;
        self.free.push(slot);
        entry.operation.take().expect("an operation is removed once")
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Operation {
        self.slots[slot as usize].operation.as_mut().expect("the slot is in use")
    }

    /// What the kernel is given for the operation in `slot`.
    pub(super) fn user_data(&self, slot: u32) -> UserData {
        let entry = &self.slots[slot as usize];
        let kind = entry.operation.as_ref().expect("the slot is in use").work.kind();
        UserData { kind, slot, generation: entry.generation }
    }

    /// The slot that a completion is for.
    ///
    /// # Panics
    /// When there is no such operation: then a buffer could be given away while the kernel writes to it.
    pub(super) fn find(&self, data: UserData) -> u32 {
        let known = self.slots.get(data.slot as usize).is_some_and(|slot| slot.operation.is_some());
        assert!(known && self.user_data(data.slot) == data, "a completion for an operation that is over: {data:?}");
        data.slot
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// A file or socket that the driver owns. Never names another one: closed ones leave their generation behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct OpenFile {
    fd: Option<OwnedFd>,
    generation: u32,
    /// Operations that have the descriptor's number. It is closed when they are over, not before: the kernel looks some
    /// numbers up only in a worker thread, and by then it could name another file.
    in_flight: u32,
    closing: bool,
}

/// The files that the driver owns.
#[derive(Debug, Default)]
pub(super) struct Files {
    slots: Vec<OpenFile>,
    free: Vec<u32>,
}

impl Files {
    pub(super) fn insert(&mut self, fd: OwnedFd) -> FileId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(OpenFile { fd: None, generation: 0, in_flight: 0, closing: false });
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.fd = Some(fd);
        FileId { slot, generation: entry.generation }
    }

    fn entry(&mut self, file: FileId) -> &mut OpenFile {
        let entry = &mut self.slots[file.slot as usize];
        assert!(entry.generation == file.generation && entry.fd.is_some(), "{file:?} was closed");
        entry
    }

    /// The descriptor, if the file is not closed or closing.
    pub(super) fn get(&self, file: FileId) -> Option<&OwnedFd> {
        let entry = self.slots.get(file.slot as usize)?;
        entry.fd.as_ref().filter(|_| entry.generation == file.generation && !entry.closing)
    }

    pub(super) fn is_idle(&self, file: FileId) -> bool {
        let entry = &self.slots[file.slot as usize];
        assert!(entry.generation == file.generation && entry.fd.is_some(), "{file:?} was closed");
        entry.in_flight == 0
    }

    /// Notes one more operation on the file.
    ///
    /// # Panics
    /// When the file is closed or closing.
    pub(super) fn start(&mut self, file: FileId) {
        let entry = self.entry(file);
        assert!(!entry.closing, "an operation on {file:?}, which is being closed");
        entry.in_flight += 1;
    }

    /// The descriptor for an operation that was started.
    pub(super) fn descriptor(&mut self, file: FileId) -> Fd {
        let entry = self.entry(file);
        assert!(entry.in_flight > 0, "{file:?} has no operation");
        Fd(entry.fd.as_ref().expect("checked by entry()").as_raw_fd())
    }

    pub(super) fn is_closing(&mut self, file: FileId) -> bool {
        self.entry(file).closing
    }

    /// Notes that an operation is over, and closes the file if that was asked for and it was the last one.
    pub(super) fn finish(&mut self, file: FileId) {
        let entry = self.entry(file);
        entry.in_flight -= 1;
        if entry.closing && entry.in_flight == 0 {
            drop(self.take(file));
        }
    }

    /// Marks the file as closing, or closes it at once when it is idle. `Some` when operations are still on it.
    pub(super) fn close(&mut self, file: FileId) -> Option<&OwnedFd> {
        let entry = self.entry(file);
        entry.closing = true;
        if entry.in_flight == 0 {
            drop(self.take(file));
            return None;
        }
        self.slots[file.slot as usize].fd.as_ref()
    }

    /// Takes the descriptor out; the identifier is used up.
    ///
    /// # Panics
    /// When operations are still on it.
    pub(super) fn take(&mut self, file: FileId) -> OwnedFd {
        let entry = self.entry(file);
        assert!(entry.in_flight == 0, "{} operations are still on {file:?}", entry.in_flight);
        entry.generation = entry.generation.wrapping_add(1);
        entry.closing = false;
        let fd = entry.fd.take().expect("checked by entry()");
        self.free.push(file.slot);
        fd
    }

    /// Every descriptor that is open.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.slots.iter().filter_map(|entry| entry.fd.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_slot_used_again_has_another_generation() {
        let mut files = Files::default();
        let file = files.insert(null());
        let mut operations = Operations::default();
        let slot = operations.insert(Operation { file, tag: 1, work: Work::Sync });
        let first = operations.user_data(slot);
        assert_eq!(operations.find(first), slot);
        operations.remove(slot);
        assert_eq!(operations.in_flight(), 0);
        let again = operations.insert(Operation { file, tag: 2, work: Work::Sync });
        assert_eq!(again, slot);
        assert_ne!(operations.user_data(again), first);
    }

    #[test]
    #[should_panic(expected = "an operation that is over")]
    fn a_completion_for_nothing_is_a_bug() {
        Operations::default().find(UserData { kind: Kind::Sync, slot: 0, generation: 0 });
    }

    #[test]
    fn a_file_is_closed_after_its_last_operation() {
        let mut files = Files::default();
        let file = files.insert(null());
        files.start(file);
        assert!(files.close(file).is_some(), "one operation is on it");
        assert!(files.get(file).is_none(), "but no new one may be");
        assert_eq!(files.iter().count(), 1);
        files.finish(file);
        assert_eq!(files.iter().count(), 0);
        let other = files.insert(null());
        assert_ne!(other, file);
        assert!(files.close(other).is_none(), "idle: closed at once");
    }
}
