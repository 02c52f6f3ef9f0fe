//! Findings about the data directory: its file system, its room, and how long a flush takes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::finding::Group;
use crate::config::Config;
use crate::machine::{FileSystem, Tree};
use crate::operator::progress::size;

/// Small flushes that are measured, if they take no longer together than [`MEASURE_LIMIT`].
const FLUSHES: usize = 100;
const MEASURE_LIMIT: Duration = Duration::from_secs(3);
/// What one of them writes.
const FLUSH_BYTES: usize = 4096;
/// No disk that keeps what it is given is faster.
const FLUSH_LEAST: Duration = Duration::from_micros(5);
/// Above this a write waits noticeably.
const FLUSH_SLOW: Duration = Duration::from_millis(10);
/// Chunks that there must be room for: the one in use and the one made ahead.
const CHUNKS_LEAST: u64 = 2;
/// Below this many, room is short.
const CHUNKS_SHORT: u64 = 16;

/// Measured times, sorted. Invariant: not empty.
struct Flushes(Vec<Duration>);

impl Flushes {
    /// The nearest rank: the least time within which this many of them were done.
    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent).div_ceil(100).max(1) - 1]
    }
}

pub(super) fn findings(config: &Config) -> Group {
    let mut group = Group::new("data");
    let folder = match existing(&config.db) {
        Ok(folder) => folder,
        Err((place, error)) => {
            refused(&mut group, &place, &error);
            return group;
        }
    };
    if folder == config.db {
        group.fine(format!("data directory: {}", folder.display()));
    } else {
        group.fine(format!(
            "data directory: {} is made at the first start; what follows is of {}",
            config.db.display(),
            folder.display()
        ));
    }
    let whole = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
    let mounted = FileSystem::of(&Tree::real(), &whole);
    match &mounted {
        Some(found) => file_system(&mut group, found),
        None => group.fine("file system: this machine does not show it"),
    }
    room(&mut group, &folder, config.chunk_size_bytes);
    match measure(&folder) {
        // Of memory it was said already that it is none.
        Ok(_) if mounted.is_some_and(|found| found.is_in_memory()) => group.fine("flush: memory has none to measure"),
        Ok(flushes) => flush_time(&mut group, &flushes, config.int_tcp_heartbeat.timeout, config.is_cluster()),
        Err(error) if folder != config.db && is_forbidden(&error) => group.advice(
            format!("flush: cannot be measured before {} is made: {error} in {}", config.db.display(), folder.display()),
            "the service manager makes it (StateDirectory= in the unit), or make it and give it to the node's user; then run the \
             doctor again",
        ),
        Err(error) => group.problem(
            format!("no file can be written and flushed in {}: {error}", folder.display()),
            "give the node's user the directory, and run the doctor as that user",
        ),
    }
    if config.unsafe_disable_flush_to_disk {
        group.advice(
            "UnsafeDisableFlushToDisk is true: acknowledged writes are lost with the power",
            "take it out, unless the data may be lost",
        );
    }
    group
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The directory, or the nearest one above it that is there; or what is in the way, and why.
fn existing(path: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    let whole = std::path::absolute(path).map_err(|error| (path.to_owned(), error))?;
    for place in whole.ancestors() {
        // A link that leads nowhere is there, but nothing can be made below it.
        let found = match fs::symlink_metadata(place) {
            // Below a file there is nothing, either: the file itself is found further up.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => Err(error),
            Ok(_) => fs::metadata(place),
        };
        return match found {
            Ok(found) if found.is_dir() => Ok(if place == whole { path.to_owned() } else { place.to_owned() }),
            Ok(_) => Err((place.to_owned(), io::ErrorKind::NotADirectory.into())),
            Err(error) => Err((place.to_owned(), error)),
        };
    }
    Err((whole, io::ErrorKind::NotFound.into()))
}

fn refused(group: &mut Group, place: &Path, error: &io::Error) {
    let place = place.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => group.problem(
            format!("{place}: this user cannot see it: {error}"),
            "run the doctor as the node's user, or give that user the way to Db",
        ),
        io::ErrorKind::NotFound => group.problem(
            format!("{place} is a link that leads nowhere"),
            "make the directory that it names, or correct Db",
        ),
        _ => group.problem(format!("{place} is no directory: {error}"), "move it away, or correct Db"),
    }
}

fn file_system(group: &mut Group, found: &FileSystem) {
    let words = format!("file system: {} on {} ({})", found.kind, found.mount.display(), found.source);
    if found.is_in_memory() {
        group.problem(format!("{words}: it is memory, and lost with the machine"), "put Db on a disk");
    } else if found.is_remote() {
        group.advice(
            format!("{words}: whether a flush means anything is known to the other side only"),
            "put Db on a disk of this machine; each node has its own copy anyway",
        );
    } else if found.kind == "overlay" {
        group.advice(
            format!("{words}: the container's own layer, and lost with it"),
            "put Db on a volume that is mounted into the container",
        );
    } else if matches!(found.kind.as_str(), "btrfs" | "zfs" | "bcachefs") {
        group.advice(
            format!("{words}: it writes each page to a new place, so that flushes cost more than on ext4 or XFS"),
            "take ext4 or XFS, or measure; on btrfs `chattr +C` on the empty directory helps",
        );
    } else {
        group.fine(words);
    }
}

fn room(group: &mut Group, folder: &Path, chunk_bytes: u64) {
    let Ok(found) = rustix::fs::statvfs(folder) else {
        group.fine("room: this file system does not show it");
        return;
    };
    let (free, all) = (found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize));
    judge_room(group, free, all, chunk_bytes);
}

fn judge_room(group: &mut Group, free: u64, all: u64, chunk_bytes: u64) {
    let words = format!("room: {} of {} free", size(free), size(all));
    let chunks = free / chunk_bytes.max(1);
    if chunks < CHUNKS_LEAST {
        group.problem(
            format!("{words}: less than {CHUNKS_LEAST} chunks of {}", size(chunk_bytes)),
            "make room, or writes are refused when the open chunk is full",
        );
    } else if chunks < CHUNKS_SHORT {
        group.advice(format!("{words}: {chunks} more chunks of {}", size(chunk_bytes)), "plan for a larger disk");
    } else {
        group.fine(words);
    }
}

/// Writes and flushes in a file without a name: it is gone with this process, whatever happens.
fn measure(folder: &Path) -> io::Result<Flushes> {
    let path = folder.join(format!(".doctor-{}.tmp", std::process::id()));
    let file: File = OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    let page = [0x5a; FLUSH_BYTES];
    // As in a chunk, the room is there before: a flush of a growing file is one of the file system's log, too.
    file.write_all_at(&vec![0; FLUSHES * FLUSH_BYTES], 0)?;
    file.sync_all()?;
    let (began, mut times) = (Instant::now(), Vec::new());
    for index in 0..FLUSHES as u64 {
        let start = Instant::now();
        file.write_all_at(&page, index * FLUSH_BYTES as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
        if began.elapsed() > MEASURE_LIMIT {
            break;
        }
    }
    times.sort_unstable();
    Ok(Flushes(times))
}

fn flush_time(group: &mut Group, flushes: &Flushes, election_timeout: Duration, is_cluster: bool) {
    let (middle, slow) = (flushes.percentile(50), flushes.percentile(99));
    let words = format!(
        "flush of 4 KiB: p50 {}, p99 {}, max {} ({} measured)",
        shown(middle),
        shown(slow),
        shown(flushes.percentile(100)),
        flushes.0.len()
    );
    if is_cluster && slow > election_timeout / 2 {
        group.problem(
            format!("{words}: more than half of the election timeout ({})", shown(election_timeout)),
            "take a faster disk, or raise IntTcpHeartbeatTimeout on all nodes; else leaders are deposed for their disk",
        );
    } else if slow > FLUSH_SLOW {
        group.advice(
            format!("{words}: each write waits for one on a majority of the nodes"),
            "take a disk with a cache that outlives the power, or look for what else uses this one",
        );
    } else if middle < FLUSH_LEAST {
        group.advice(
            format!("{words}: faster than a disk can be"),
            "find out whether the disk, its controller or the host of this machine ignores flushes",
        );
    } else {
        group.fine(words);
    }
}

pub(super) fn shown(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..100_000 => format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10),
        _ => format!("{} ms", micros / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::doctor::finding::Grade;

    fn graded(run: impl FnOnce(&mut Group)) -> (Grade, String) {
        let mut group = Group::new("data");
        run(&mut group);
        let finding = group.findings.remove(0);
        (finding.grade, finding.line())
    }

    #[test]
    fn flush_times_are_judged_against_the_timeout() {
        let check = |middle: u64, slow: u64, is_cluster, expected| {
            let mut times = vec![Duration::from_micros(middle); 98];
            times.extend([Duration::from_micros(slow); 2]);
            let flushes = Flushes(times);
            let (grade, line) = graded(|group| flush_time(group, &flushes, Duration::from_millis(700), is_cluster));
            assert_eq!(grade, expected, "{line}");
        };
        check(800, 1500, true, Grade::Fine);
        check(800, 20_000, true, Grade::Advice);
        check(800, 400_000, true, Grade::Problem);
        check(800, 400_000, false, Grade::Advice);
        check(2, 9, true, Grade::Advice);
    }

    #[test]
    fn one_slow_flush_of_a_hundred_is_not_the_99th() {
        let mut times = vec![Duration::from_micros(800); 99];
        times.push(Duration::from_millis(400));
        let flushes = Flushes(times);
        let (grade, line) = graded(|group| flush_time(group, &flushes, Duration::from_millis(700), true));
        assert!(grade == Grade::Fine && line.contains("p99 800 µs, max 400 ms (100 measured)"), "{line}");
        let single = Flushes(vec![Duration::from_micros(7)]);
        assert_eq!([0, 50, 99, 100].map(|percent| single.percentile(percent)), [Duration::from_micros(7); 4]);
    }

    #[test]
    fn room_is_counted_in_chunks() {
        let check = |free: u64, expected| {
            assert_eq!(graded(|group| judge_room(group, free << 20, 1 << 40, 256 << 20)).0, expected, "{free}");
        };
        check(511, Grade::Problem);
        check(512, Grade::Advice);
        check(16 * 256, Grade::Fine);
    }

    #[test]
    fn kinds_of_file_systems() {
        let check = |kind: &str, expected| {
            let found = FileSystem { mount: "/data".into(), kind: kind.to_owned(), source: "/dev/x".to_owned() };
            assert_eq!(graded(|group| file_system(group, &found)).0, expected, "{kind}");
        };
        check("ext4", Grade::Fine);
        check("xfs", Grade::Fine);
        check("tmpfs", Grade::Problem);
        check("nfs4", Grade::Advice);
        check("overlay", Grade::Advice);
        check("btrfs", Grade::Advice);
    }

    #[test]
    fn a_directory_that_somebody_else_makes_is_no_problem_yet() {
        // Nobody can make a file there, not even root.
        let check = |db: &str, expected: Grade, words: &str| {
            let group = findings(&Config { db: db.into(), ..Config::default() });
            let found = group.findings.iter().find(|finding| finding.what.contains(words)).map(|finding| finding.grade);
            assert_eq!(found, Some(expected), "{group:?}");
        };
        check("/sys/kernel/not-made-yet", Grade::Advice, "cannot be measured before /sys/kernel/not-made-yet is made");
        check("/sys/kernel", Grade::Problem, "no file can be written and flushed in /sys/kernel");
    }

    #[test]
    fn what_is_in_the_way_of_the_directory_is_a_problem() {
        let folder = std::env::temp_dir().join(format!("ringstore-doctor-way-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        std::os::unix::fs::symlink(folder.join("nothing"), folder.join("link")).unwrap();
        let check = |db: &str, expected: &str| {
            let group = findings(&Config { db: folder.join(db), ..Config::default() });
            let (first, count) = (group.findings[0].clone(), group.findings.len());
            assert!(first.grade == Grade::Problem && first.what.contains(expected) && count == 1, "{group:?}");
        };
        check("file", "file is no directory");
        check("file/db/deep", "file is no directory");
        check("link", "link is a link that leads nowhere");
        check("link/db", "link is a link that leads nowhere");
        fs::remove_dir_all(folder).unwrap();
        let mut group = Group::new("data");
        refused(&mut group, Path::new("/closed/db"), &io::ErrorKind::PermissionDenied.into());
        assert!(group.findings[0].line().contains("problem") && group.findings[0].next.contains("as the node's user"));
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("ringstore-doctor-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let flushes = measure(&folder).unwrap();
        assert!(!flushes.0.is_empty() && flushes.percentile(50) <= flushes.percentile(99));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(existing(&folder.join("a/b")).unwrap(), folder);
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn times_are_shown_in_a_fitting_unit() {
        let check = |micros: u64, expected: &str| assert_eq!(shown(Duration::from_micros(micros)), expected);
        check(12, "12 µs");
        check(1250, "1.25 ms");
        check(123_456, "123 ms");
    }
}
