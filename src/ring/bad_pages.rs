//! What happens when the disk cannot read a page of a mapped file: readers see zeros there, and the mapping is marked.
//!
//! The system says so with SIGBUS, which would end the process. The handler here looks the address up among the mapped
//! files and puts a page of zeros where it failed; the read goes on, and whoever reads finds by its checksums that
//! something is wrong. A signal for any other address, or one that somebody sent, ends the process as ever.
//!
//! Promises: the handler takes no lock and no memory, and makes one system call; a page that can be read stays what it is.
//! Leaves to others: to ask [`Place::failures`] after a read whether what it saw can be believed, and to map the file anew
//! when it is repaired.

use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Mappings that are watched. One that finds no place here is not, and a bad page under it ends the process: with chunks
/// of 256 MiB that is a log of 16 TiB.
const PLACES: usize = 1 << 16;

/// Separate runs of bad pages in all mappings together; one more ends the process. Each costs it two of the mappings that
/// the system allows it (65,530 mostly); neighbours become one mapping, so that a bad extent is one run.
const RUNS_MAX: u32 = 8192;

/// Said before the process ends for that.
const TOO_MANY: &[u8] = b"the disk cannot read the log in more than 8192 separate places (the limit): the node ends. \
    Replace the disk, start the node empty, and let it copy the log\n";

/// Runs in all places that are in use.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Failures of all places that ever were.
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// Values of [`Place::start`] where nothing is mapped.
const FREE: usize = 0;
const TAKEN: usize = 1;

static MAPS: [Place; PLACES] = [const { Place::new() }; PLACES];

/// No place from here on was ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

static INSTALL: Once = Once::new();

/// The handler that was there before: the standard library's, which tells of a stack that has overflown.
static mut BEFORE: Option<libc::sigaction> = None;

/// A mapped range of addresses that is watched.
#[derive(Debug)]
pub(super) struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
    failures: AtomicU32,
    /// Its part of [`RUNS`]. Pages that are read out of order count too often, never too seldom.
    runs: AtomicU32,
    /// The page that was covered last.
    last: AtomicUsize,
}

impl Place {
    const fn new() -> Place {
        Place {
            start: AtomicUsize::new(FREE),
            end: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            runs: AtomicU32::new(0),
            last: AtomicUsize::new(0),
        }
    }

    /// How often a page of it could not be read.
    pub(super) fn failures(&self) -> u32 {
        // What was read before must not be read after this: an acquiring load alone keeps only what follows it.
        fence(Ordering::Acquire);
        self.failures.load(Ordering::Acquire)
    }

    /// Gives the place back. Before the range is unmapped: somebody else's mapping may lie there next.
    pub(super) fn give_back(&self) {
        RUNS.fetch_sub(self.runs.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.start.store(FREE, Ordering::Release);
    }

    fn holds(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        let end = self.end.load(Ordering::Acquire);
        // A place that changes hands meanwhile is not the one of this address, whose mapping is being read.
        start > TAKEN && start <= address && address < end && self.start.load(Ordering::Acquire) == start
    }

    /// Puts zeros where `address` could not be read. In a signal handler; false when the system gives no page, or there are
    /// too many bad ones.
    fn cover(&self, address: usize) -> bool {
        let page = rustix::param::page_size();
        let start = address / page * page;
        if !self.is_allowed(start, page) {
            // SAFETY: the bytes are valid; write may be called in a handler. That nobody reads them does not matter.
            let _ = unsafe { libc::write(libc::STDERR_FILENO, TOO_MANY.as_ptr().cast(), TOO_MANY.len()) };
            return false;
        }
        // First: whoever sees the zeros must see this, too.
        self.failures.fetch_add(1, Ordering::AcqRel);
        FAILURES.fetch_add(1, Ordering::AcqRel);
        let (access, flags) = (ProtFlags::READ, MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE);
        // SAFETY: the page belongs to a read-only mapping of a file that its owner has not given back: it is being read at
        // `address`. It stays mapped and readable throughout; that its bytes may change is in the owner's promise.
        unsafe { mmap_anonymous(ptr::with_exposed_provenance_mut(start), page, access, flags) }.is_ok()
    }

    /// Counts the page at `start`, unless it belongs to the run of the one before it; false when that is one run too many.
    fn is_allowed(&self, start: usize, page: usize) -> bool {
        let last = self.last.swap(start, Ordering::Relaxed);
        if last.abs_diff(start) <= page {
            return true;
        }
        self.runs.fetch_add(1, Ordering::Relaxed);
        RUNS.fetch_add(1, Ordering::Relaxed) < RUNS_MAX
    }
}

/// How often a page of any [mapped file](super::ReadMap) could not be read.
#[must_use]
pub fn page_failures() -> u64 {
    fence(Ordering::Acquire);
    FAILURES.load(Ordering::Acquire)
}

/// Watches `length` mapped bytes from `start` on, until the place is given back. `None` when there is no place left.
pub(super) fn watch(start: usize, length: usize) -> Option<&'static Place> {
    INSTALL.call_once(install);
    for (index, place) in MAPS.iter().enumerate() {
        if place.start.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            place.failures.store(0, Ordering::Relaxed);
            place.last.store(0, Ordering::Relaxed);
            place.end.store(start + length, Ordering::Release);
            USED.fetch_max(index + 1, Ordering::AcqRel);
            place.start.store(start, Ordering::Release);
            return Some(place);
        }
    }
    None
}

fn install() {
    // Looked up here once, so that the handler finds it at hand.
    let _ = rustix::param::page_size();
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    // SAFETY: both structures are plain data for which zeros are a valid value, and the handler has the signature that
    // SA_SIGINFO asks for. `BEFORE` is written before the handler can run, once, and never again.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) == 0 {
            (&raw mut BEFORE).write(Some(before));
        }
        // It cannot fail with these arguments; without it a bad page ends the process.
        let installed = libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        debug_assert_eq!(installed, 0, "sigaction for SIGBUS");
    }
}

/// In signal context: nothing here may take a lock or memory, or panic.
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a valid structure to a handler with SA_SIGINFO; for the codes of a fault it has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code == libc::BUS_MCEERR_AO {
        // Nobody has read there: a warning of memory that went bad. Who reads it gets the other code.
        return;
    }
    if matches!(code, libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR) {
        let used = USED.load(Ordering::Acquire).min(PLACES);
        if let Some(place) = MAPS.iter().take(used).find(|place| place.holds(address))
            && place.cover(address)
        {
            return;
        }
    }
    end_as_ever(code > 0);
}

/// Leaves the signal to who had it before. `is_fault`: it comes again by itself, when the same instruction is tried again.
fn end_as_ever(is_fault: bool) {
    // SAFETY: `BEFORE` does not change any more; the other action is the default one. Both calls may be made in a handler.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if is_fault && let Some(before) = (&raw const BEFORE).read() {
            action = before;
        } else {
            action.sa_sigaction = libc::SIG_DFL;
        }
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        if !is_fault {
            // Held back until the handler has returned.
            libc::raise(libc::SIGBUS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Output};

    use rustix::mm::mmap;

    use super::*;
    use crate::ring::ReadMap;

    const PAGE: usize = 4096;

    /// A file of `pages` pages of sevens without a name.
    fn file(pages: usize) -> File {
        let file = File::from(rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        rustix::io::pwrite(&file, &vec![7; pages * PAGE], 0).unwrap();
        file
    }

    #[test]
    fn a_page_that_cannot_be_read_is_zeros_and_the_mapping_says_so() {
        let file = file(4);
        let map = ReadMap::new(&file, 4 * PAGE).unwrap();
        let other = ReadMap::new(&file, PAGE).unwrap();
        assert_eq!((map[3 * PAGE], map.failures()), (7, 0));
        // Behind the end of its file a mapping fails as on a bad sector.
        file.set_len(2 * PAGE as u64).unwrap();
        assert_eq!(map[PAGE..2 * PAGE], [7; PAGE]);
        assert_eq!(map.failures(), 0);
        assert_eq!(map[3 * PAGE..], [0; PAGE]);
        assert_eq!(map.failures(), 1);
        assert_eq!(map[2 * PAGE..], [0; 2 * PAGE]);
        assert_eq!((map.failures(), other.failures()), (2, 0));
        assert_eq!((map[0], other[0]), (7, 7));
        // The file is whole again: who maps it anew sees that, and the place is used again.
        file.set_len(4 * PAGE as u64).unwrap();
        drop(map);
        let map = ReadMap::new(&file, 4 * PAGE).unwrap();
        assert_eq!((map[0], map.failures()), (7, 0));
    }

    /// Mappings of this process that lie in `map`.
    fn mappings(map: &ReadMap) -> usize {
        let range = map.as_ptr() as usize..map.as_ptr() as usize + map.len();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = |line: &str| usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        maps.lines().filter(|line| range.contains(&start(line))).count()
    }

    #[test]
    fn good_pages_stay_however_many_are_bad_and_a_bad_extent_costs_one_mapping() {
        let file = file(200);
        let map = ReadMap::new(&file, 200 * PAGE - 10).unwrap();
        file.set_len(PAGE as u64).unwrap();
        assert!(map[PAGE..].iter().all(|&byte| byte == 0));
        assert_eq!(map.failures(), 199);
        assert_eq!(map[..PAGE], [7; PAGE]);
        assert_eq!(mappings(&map), 2);
        assert_eq!(map.watched.unwrap().runs.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn too_many_separate_bad_pages_end_the_process() {
        if std::env::var_os(CRASH).is_none() {
            let output = again("too_many_separate_bad_pages_end_the_process");
            assert_eq!(output.status.signal(), Some(libc::SIGBUS));
            assert!(String::from_utf8_lossy(&output.stderr).contains("more than 8192 separate places"));
            return;
        }
        let (pages, file) = (2 * RUNS_MAX as usize + 3, file(1));
        file.set_len((pages * PAGE) as u64).unwrap();
        let read_all = |runs: u32| {
            let map = ReadMap::new(&file, pages * PAGE).unwrap();
            file.set_len(PAGE as u64).unwrap();
            for run in 1..=runs as usize {
                assert_eq!(map[2 * run * PAGE], 0);
            }
            file.set_len((pages * PAGE) as u64).unwrap();
        };
        // What is no longer mapped does not count.
        read_all(RUNS_MAX);
        read_all(RUNS_MAX);
        read_all(RUNS_MAX + 1);
    }

    #[test]
    fn many_threads_may_meet_the_same_page() {
        let file = file(16);
        let map = ReadMap::new(&file, 16 * PAGE).unwrap();
        file.set_len(0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert!(map.iter().all(|&byte| byte == 0)));
                scope.spawn(|| {
                    let own = self::file(1);
                    for _ in 0..100 {
                        assert_eq!(ReadMap::new(&own, PAGE).unwrap()[0], 7);
                    }
                });
            }
        });
        assert!(map.failures() >= 16);
    }

    const CRASH: &str = "RINGSTORE_TEST_BUS_ERROR";

    /// Runs the test that calls it once more, in a process of its own.
    fn again(test: &str) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("ring::bad_pages::tests::{test}"), "--nocapture"]).env(CRASH, "1");
        command.output().unwrap()
    }

    /// The signal that ended it.
    fn ended_by(test: &str) -> Option<i32> {
        again(test).status.signal()
    }

    #[test]
    fn a_bad_page_that_is_not_of_a_mapped_file_ends_the_process() {
        if std::env::var_os(CRASH).is_none() {
            let signal = ended_by("a_bad_page_that_is_not_of_a_mapped_file_ends_the_process");
            assert_eq!(signal, Some(libc::SIGBUS));
            return;
        }
        let file = file(2);
        let _watched = ReadMap::new(&file, PAGE).unwrap();
        // SAFETY: a fresh mapping; that reading its second page ends the process is what is looked at.
        let byte = unsafe {
            let start = mmap(ptr::null_mut(), 2 * PAGE, ProtFlags::READ, MapFlags::SHARED, &file, 0).unwrap();
            file.set_len(PAGE as u64).unwrap();
            start.cast::<u8>().add(PAGE).read_volatile()
        };
        panic!("the page could be read: {byte}");
    }

    #[test]
    fn a_warning_of_bad_memory_leaves_the_handler_where_it_is() {
        if std::env::var_os(CRASH).is_none() {
            let output = again("a_warning_of_bad_memory_leaves_the_handler_where_it_is");
            assert!(output.status.success(), "{output:?}");
            return;
        }
        let file = file(2);
        let map = ReadMap::new(&file, 2 * PAGE).unwrap();
        // SAFETY: plain data for which zeros are a valid value; the system only reads it. A thread may send itself any code,
        // and gets it before the call returns.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (info.si_signo, info.si_code) = (libc::SIGBUS, libc::BUS_MCEERR_AO);
            let (process, thread) = (libc::getpid(), libc::gettid());
            let sent = libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGBUS, &raw const info);
            assert_eq!(sent, 0);
        }
        file.set_len(PAGE as u64).unwrap();
        assert_eq!((map[PAGE], map.failures()), (0, 1));
    }

    #[test]
    fn a_signal_that_somebody_sends_ends_the_process() {
        if std::env::var_os(CRASH).is_none() {
            let signal = ended_by("a_signal_that_somebody_sends_ends_the_process");
            assert_eq!(signal, Some(libc::SIGBUS));
            return;
        }
        let _watched = ReadMap::new(&file(1), PAGE).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(5));
        panic!("the signal was swallowed");
    }
}
