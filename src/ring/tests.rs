//! The driver on a real kernel, over loopback sockets and real files.
//!
//! The tests named `kernel_…` hold what we rely on in the kernel, measured once and built upon since. Do not delete them
//! because they "only test Linux": when one fails on a newer or older kernel, a path of the design does not hold there.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::submit::{padded_vectors, vectors_of};
use super::*;
use crate::queue::Queue;
use crate::types::LogPosition;

struct World {
    driver: Driver,
}

impl World {
    fn new() -> World {
        World { driver: Driver::new().unwrap() }
    }

    /// The path of kernels before 6.12.
    fn without_incremental_buffers() -> World {
        let found = Capabilities { incremental_buffers: false, ..probe().unwrap() };
        World { driver: Driver::with_capabilities(found).unwrap() }
    }

    fn turn(&mut self, span: Duration) -> Vec<Completion> {
        let mut outcomes = Vec::new();
        self.driver.enter(Wait::For(span), &mut outcomes).unwrap();
        outcomes
    }

    /// The next outcome that `take` wants; others are a failure.
    fn expect<T>(&mut self, take: impl FnOnce(Outcome) -> T) -> T {
        let start = Instant::now();
        loop {
            let mut outcomes = self.turn(Duration::from_millis(100));
            assert!(outcomes.len() <= 1, "one at a time in these tests: {outcomes:?}");
            if let Some(completion) = outcomes.pop() {
                return take(completion.outcome);
            }
            assert!(start.elapsed() < Duration::from_secs(10), "nothing came");
        }
    }

    /// A connected pair over loopback: the far end is an ordinary socket, the near one the driver's.
    fn pair(&mut self) -> (FileId, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        prepare_link(&near, Duration::from_secs(5)).unwrap();
        far.set_nodelay(true).unwrap();
        (self.driver.attach(near.into()), far)
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

fn temporary_file(name: &str) -> OwnedFd {
    let path = std::env::temp_dir().join(format!("ringstore-ring-{}-{name}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.into()
}

#[test]
fn accepts_and_connects_through_the_ring() {
    let mut world = World::new();
    let listener = listen("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let address = local_address(&listener).unwrap();
    let listener = world.driver.attach(listener);
    world.driver.accept(listener, 1);
    for _ in 0..3 {
        let near = world.driver.attach(Way::default().socket(address).unwrap());
        world.driver.connect(near, address, 2);
        let (mut connected, mut accepted) = (false, None);
        while !connected || accepted.is_none() {
            for completion in world.turn(Duration::from_secs(1)) {
                match completion.outcome {
                    Outcome::Connected(result) => connected = result.is_ok(),
                    Outcome::Accepted(result) => accepted = Some(result.unwrap()),
                    other => panic!("{other:?}"),
                }
            }
        }
        let far = world.driver.attach(accepted.unwrap());
        world.driver.send(near, Source::Owned(b"hello".to_vec()), 3);
        world.expect(|outcome| assert!(matches!(outcome, Outcome::Sent { result: Ok(()), source: Some(_) })));
        world.driver.receive_exact(far, vec![0; 5], 4);
        world.expect(|outcome| match outcome {
            Outcome::Received { buffer, result: Ok(5) } => assert_eq!(buffer, b"hello"),
            other => panic!("{other:?}"),
        });
        world.driver.close(near);
        world.driver.receive(far, vec![0; 5], 5);
        world.expect(|outcome| assert!(matches!(outcome, Outcome::Received { result: Ok(0), .. }), "{outcome:?}"));
        drop(world.driver.detach(far));
    }
    world.driver.close(listener);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::Accepted(Err(_)))));
    assert_eq!(world.driver.in_flight(), 0);
}

#[test]
fn a_refused_connection_says_so() {
    let mut world = World::new();
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let socket = world.driver.attach(Way::default().socket(free).unwrap());
    world.driver.connect(socket, free, 1);
    world.expect(|outcome| {
        assert!(matches!(outcome, Outcome::Connected(Err(Failure::ConnectionRefused))), "{outcome:?}")
    });
}

#[test]
fn an_exact_receive_waits_for_all_and_notices_an_early_end() {
    let mut world = World::new();
    let (near, mut far) = world.pair();
    world.driver.receive_exact(near, vec![0; 6], 1);
    far.write_all(b"abc").unwrap();
    assert!(world.turn(Duration::from_millis(50)).is_empty());
    far.write_all(b"def").unwrap();
    world.expect(|outcome| match outcome {
        Outcome::Received { buffer, result: Ok(6) } => assert_eq!(buffer, b"abcdef"),
        other => panic!("{other:?}"),
    });
    world.driver.receive_exact(near, vec![0; 6], 1);
    far.write_all(b"abc").unwrap();
    drop(far);
    world.expect(|outcome| match outcome {
        Outcome::Received { result: Err(Failure::EndedEarly), .. } => {}
        other => panic!("{other:?}"),
    });
}

/// The design rests on it: without incremental consumption a 100-byte message takes a whole buffer.
#[test]
fn kernel_many_small_messages_share_one_buffer() {
    let mut world = World::new();
    assert!(world.driver.capabilities().incremental_buffers, "these tests want Linux 6.12 or newer");
    small_messages(&mut world);
}

#[test]
fn small_messages_share_a_buffer_on_older_kernels_too() {
    small_messages(&mut World::without_incremental_buffers());
}

fn small_messages(world: &mut World) {
    let (near, mut far) = world.pair();
    let group = world.driver.add_group(2, 64 << 10).unwrap();
    world.driver.stream(near, group, 7);
    let mut slices = Vec::new();
    for index in 0..50u8 {
        far.write_all(&[index; 100]).unwrap();
        slices.push(world.expect(|outcome| match outcome {
            Outcome::Streamed(slice) => slice,
            other => panic!("{other:?}"),
        }));
    }
    for (index, slice) in slices.iter().enumerate() {
        assert_eq!(slice[..], [index as u8; 100]);
        assert_eq!(slice.as_ptr(), slices[0].as_ptr().wrapping_add(index * 100), "one behind the other");
    }
    drop(far);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::StreamEnded(Ok(())))));
    assert_eq!(slices[49][..], [49; 100], "slices outlive their stream");
}

/// An empty group ends a multishot receive with ENOBUFS; it must go on when, and only when, a buffer has come back.
#[test]
fn kernel_a_stream_stops_without_buffers_and_goes_on_with_one() {
    exhaustion(&mut World::new());
}

#[test]
fn a_stream_stops_without_buffers_on_older_kernels_too() {
    exhaustion(&mut World::without_incremental_buffers());
}

fn exhaustion(world: &mut World) {
    let (near, mut far) = world.pair();
    let group = world.driver.add_group(2, 4096).unwrap();
    world.driver.stream(near, group, 7);
    let sent = pattern(64 << 10);
    let copy = sent.clone();
    let writer = std::thread::spawn(move || far.write_all(&copy).map(|()| far));
    let mut received = Vec::new();
    let mut slices = Vec::new();
    while received.len() < sent.len() {
        let before = received.len();
        for completion in world.turn(Duration::from_millis(50)) {
            match completion.outcome {
                Outcome::Streamed(slice) => {
                    received.extend_from_slice(&slice);
                    slices.push(slice);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(slices.iter().map(|slice| slice.len()).sum::<usize>() <= 8192, "two buffers hold no more");
        if received.len() == before {
            // All is held by us: nothing may come, however often we ask, and asking must not spin.
            let enters = world.driver.enters();
            assert!(world.turn(Duration::from_millis(20)).is_empty());
            assert!(world.driver.enters() <= enters + 1);
            slices.clear();
        }
    }
    assert!(received == sent, "every byte, in order");
    drop(writer.join().unwrap().unwrap());
    drop(slices);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::StreamEnded(Ok(())))));
}

#[test]
fn bulk_comes_through_whole_and_goes_from_the_receive_buffer_to_a_file() {
    let mut world = World::new();
    let (near, mut far) = world.pair();
    let group = world.driver.add_group(4, 256 << 10).unwrap();
    let file = world.driver.attach(temporary_file("bulk"));
    world.driver.stream(near, group, 7);
    let sent = pattern(8 << 20);
    let copy = sent.clone();
    let writer = std::thread::spawn(move || far.write_all(&copy));
    let (mut received, mut written) = (0u64, 0u64);
    let mut ended = false;
    while written < sent.len() as u64 || !ended {
        for completion in world.turn(Duration::from_secs(1)) {
            match completion.outcome {
                Outcome::Streamed(slice) => {
                    // In two parts, as at a chunk's end.
                    let half = slice.length() / 2;
                    let parts = [slice.part(0, half), slice.part(half, slice.length() - half)];
                    for part in parts {
                        let at = received;
                        received += u64::from(part.length());
                        world.driver.write(file, Source::Received(part), at, 8);
                    }
                }
                Outcome::Written { source: Source::Received(part), result } => {
                    result.unwrap();
                    written += u64::from(part.length());
                }
                Outcome::StreamEnded(result) => {
                    result.unwrap();
                    ended = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    writer.join().unwrap().unwrap();
    world.driver.sync(file, 9);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::Synced(Ok(())))));
    world.driver.read(file, vec![0; sent.len() + 10], 0, 10);
    world.expect(|outcome| match outcome {
        Outcome::Read { buffer, result } => {
            assert_eq!(result, Ok(sent.len() as u32), "short at the file's end only");
            assert!(buffer[..sent.len()] == sent[..]);
        }
        other => panic!("{other:?}"),
    });
}

#[test]
fn writes_from_the_log_buffer_and_reads_back() {
    let mut world = World::new();
    let mut log = MirroredBuffer::new(4096).unwrap();
    let position = LogPosition(4096 * 3 - 50);
    log.slice_mut(position, 100).copy_from_slice(&pattern(100));
    let file = world.driver.attach(temporary_file("log"));
    world.driver.write(file, Source::Log(log.window(position, 100)), 4096, 1);
    world.expect(|outcome| match outcome {
        Outcome::Written { source: Source::Log(window), result } => {
            assert_eq!((window.position(), window.length(), result), (position, 100, Ok(())));
        }
        other => panic!("{other:?}"),
    });
    world.driver.sync(file, 2);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::Synced(Ok(())))));
    world.driver.read(file, vec![0; 100], 4096, 3);
    world.expect(|outcome| {
        assert!(matches!(outcome, Outcome::Read { buffer, result: Ok(100) } if buffer == pattern(100)))
    });
}

/// The log buffer begins at a page, so a window of whole blocks fits O_DIRECT as it is.
#[test]
fn durable_writes_go_to_files_with_and_without_page_cache() {
    for direct in [false, true] {
        let mut world = World::new();
        let mut log = MirroredBuffer::new(8192).unwrap();
        let position = LogPosition(4096 * 3);
        log.slice_mut(position, 8192).copy_from_slice(&pattern(8192));
        let file = temporary_file("durable");
        if direct {
            rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::DIRECT).expect("a file system with O_DIRECT");
        }
        let plain = file.try_clone().unwrap();
        let file = world.driver.attach(file);
        world.driver.write_durable(file, Source::Log(log.window(position, 8192)), 4096, 1);
        world.expect(|outcome| assert!(matches!(outcome, Outcome::Written { result: Ok(()), .. }), "{outcome:?}"));
        rustix::fs::fcntl_setfl(&plain, rustix::fs::OFlags::empty()).unwrap();
        let mut found = vec![0; 8192];
        std::fs::File::from(plain).read_exact_at(&mut found, 4096).unwrap();
        assert!(found == pattern(8192), "direct: {direct}");
    }
}

#[test]
fn a_gathered_write_puts_slices_one_behind_the_other() {
    let mut world = World::new();
    let (near, mut far) = world.pair();
    let group = world.driver.add_group(4, 4096).unwrap();
    let file = world.driver.attach(temporary_file("gathered"));
    world.driver.stream(near, group, 7);
    let sent = pattern(9000);
    far.write_all(&sent).unwrap();
    let mut slices = Vec::new();
    while slices.iter().map(Slice::length).sum::<u32>() < 9000 {
        for completion in world.turn(Duration::from_secs(10)) {
            let Outcome::Streamed(slice) = completion.outcome else { panic!("{:?}", completion.outcome) };
            // Small pieces, so that the write is one of many.
            let half = slice.length() / 2;
            slices.extend([slice.part(0, half), slice.part(half, slice.length() - half)]);
        }
    }
    let count = slices.len();
    world.driver.write_gathered_durable(file, slices, 100, 8);
    world.expect(|outcome| match outcome {
        Outcome::WrittenGathered { slices, result } => assert_eq!((slices.len(), result), (count, Ok(()))),
        other => panic!("{other:?}"),
    });
    world.driver.read(file, vec![0; 9000], 100, 9);
    world.expect(|outcome| {
        assert!(matches!(outcome, Outcome::Read { buffer, result: Ok(9000) } if buffer == pattern(9000)))
    });
}

#[test]
fn a_gathered_write_that_stopped_goes_on_where_it_was() {
    let mut world = World::new();
    let (near, mut far) = world.pair();
    let group = world.driver.add_group(4, 4096).unwrap();
    world.driver.stream(near, group, 7);
    far.write_all(&pattern(30)).unwrap();
    let slice = world.expect(|outcome| match outcome {
        Outcome::Streamed(slice) => slice,
        other => panic!("{other:?}"),
    });
    let slices = [slice.part(0, 10), slice.part(10, 10), slice.part(20, 10)];
    let lengths = |done| -> Vec<usize> { vectors_of(&slices, done).iter().map(|vector| vector.iov_len).collect() };
    assert_eq!(lengths(0), [10, 10, 10]);
    assert_eq!(lengths(4), [6, 10, 10]);
    assert_eq!(lengths(10), [10, 10]);
    assert_eq!(lengths(25), [5]);
    assert_eq!(vectors_of(&slices, 25)[0].iov_base.cast_const().cast(), slices[2].as_ptr().wrapping_add(5));
}

#[test]
fn a_padded_write_ends_in_zeros() {
    let mut world = World::new();
    let file = world.driver.attach(temporary_file("padded"));
    world.driver.write(file, Source::Owned(vec![7; 40]), 100, 1);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::Written { result: Ok(()), .. }), "{outcome:?}"));
    world.driver.write_padded(file, Source::Owned(pattern(10)), 6, 104, 2);
    world.expect(|outcome| assert!(matches!(outcome, Outcome::Written { result: Ok(()), .. }), "{outcome:?}"));
    world.driver.read(file, vec![9; 40], 100, 3);
    let expected = [&[7; 4][..], &pattern(10), &[0; 6], &[7; 20]].concat();
    world.expect(|outcome| assert!(matches!(outcome, Outcome::Read { buffer, .. } if buffer == expected)));
}

#[test]
fn a_padded_write_that_stopped_goes_on_where_it_was() {
    let source = Source::Owned(pattern(10));
    let mut vectors = Vec::new();
    let mut lengths = |done| {
        padded_vectors(&source, 6, done, &mut vectors);
        vectors.iter().map(|vector| vector.iov_len).collect::<Vec<_>>()
    };
    assert_eq!([lengths(0), lengths(4), lengths(10), lengths(13)], [vec![10, 6], vec![6, 6], vec![6], vec![3]]);
}

#[test]
fn a_failed_write_says_why() {
    let mut world = World::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let file = world.driver.attach(full.into());
    world.driver.write(file, Source::Owned(vec![1; 10]), 0, 1);
    world.expect(|outcome| {
        assert!(matches!(outcome, Outcome::Written { result: Err(Failure::NoSpace), .. }), "{outcome:?}")
    });
}

/// SEND_ZC on loopback is always copied, and the usage report says so: `auto` leaves zero-copy on such links.
#[test]
fn kernel_zero_copy_on_loopback_reports_a_copy() {
    for registered in [false, true] {
        let mut world = World::new();
        let mut log = MirroredBuffer::new(64 << 10).unwrap();
        log.slice_mut(LogPosition::ZERO, 64 << 10).copy_from_slice(&pattern(64 << 10));
        if registered {
            world.driver.register_log_buffer(&log).unwrap();
        }
        let (near, mut far) = world.pair();
        // Over the ring's end, so in both halves of the mapping.
        world.driver.send_zero_copy(near, log.window(LogPosition(60 << 10), 8 << 10), 5);
        let (mut sent, mut released) = (None, None);
        let mut received = vec![0; 8 << 10];
        let reader = std::thread::spawn(move || far.read_exact(&mut received).map(|()| (received, far)));
        while released.is_none() {
            for completion in world.turn(Duration::from_secs(1)) {
                assert_eq!(completion.tag, 5);
                match completion.outcome {
                    Outcome::Sent { source: None, result } => sent = Some(result),
                    Outcome::SendReleased { source: Source::Log(window), copied } => {
                        assert_eq!(window.length(), 8 << 10);
                        released = Some(copied);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((sent, released), (Some(Ok(())), Some(true)));
        let (received, _far) = reader.join().unwrap().unwrap();
        assert!(received[..4096] == pattern(64 << 10)[60 << 10..] && received[4096..] == pattern(4096)[..]);
        assert_eq!(world.driver.in_flight(), 0);
    }
}

#[test]
fn an_eventfd_wakes_a_waiting_ring() {
    let mut world = World::new();
    let queue = std::sync::Arc::new(Queue::for_ring(4).unwrap());
    let eventfd = world.driver.attach(queue.eventfd().try_clone_to_owned().unwrap());
    for _ in 0..3 {
        world.driver.watch(eventfd, 3);
        assert!(queue.may_sleep());
        let sender = std::sync::Arc::clone(&queue);
        let thread = std::thread::spawn(move || sender.send(1));
        let start = Instant::now();
        world.expect(|outcome| assert!(matches!(outcome, Outcome::Woken(Ok(())))));
        assert!(start.elapsed() < Duration::from_secs(5));
        thread.join().unwrap().unwrap();
        assert_eq!(queue.pop(), Some(1));
    }
}

#[test]
fn waiting_ends_with_its_time() {
    let mut world = World::new();
    let start = Instant::now();
    assert!(world.turn(Duration::from_millis(30)).is_empty());
    assert!((30..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let enters = world.driver.enters();
    let mut outcomes = Vec::new();
    world.driver.enter(Wait::No, &mut outcomes).unwrap();
    assert_eq!(world.driver.enters(), enters, "nothing to do costs no system call");
}

#[test]
fn closing_ends_what_is_in_flight() {
    let mut world = World::new();
    let (near, far) = world.pair();
    let group = world.driver.add_group(2, 4096).unwrap();
    world.driver.stream(near, group, 1);
    world.driver.send(near, Source::Owned(vec![7; 64 << 20]), 2);
    assert!(world.turn(Duration::from_millis(50)).is_empty(), "the far end does not read");
    world.driver.close(near);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        ended.extend(world.turn(Duration::from_secs(1)).into_iter().map(|completion| completion.tag));
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
    assert_eq!(world.driver.in_flight(), 0);
    assert!(world.driver.descriptor(near).is_none());
    drop(far);
}

#[test]
fn more_operations_than_the_queue_has_entries() {
    let mut world = World::new();
    let file = world.driver.attach(temporary_file("many"));
    for index in 0..1000u64 {
        world.driver.write(file, Source::Owned(index.to_le_bytes().to_vec()), index * 8, index);
    }
    let mut tags = Vec::new();
    while tags.len() < 1000 {
        tags.extend(world.turn(Duration::from_secs(1)).into_iter().map(|completion| completion.tag));
    }
    tags.sort_unstable();
    assert!(tags.iter().copied().eq(0..1000), "each exactly once");
}

/// Freed memory that the kernel writes to would be the worst bug there is: a driver dropped in the middle of everything
/// must have taken all of it back.
#[test]
fn a_driver_dropped_in_flight_leaves_nothing_behind() {
    let mut world = World::new();
    let (near, mut far) = world.pair();
    let group = world.driver.add_group(2, 4096).unwrap();
    world.driver.stream(near, group, 1);
    let (other, _other_far) = world.pair();
    world.driver.receive_exact(other, vec![0; 100], 2);
    world.turn(Duration::from_millis(10));
    let start = Instant::now();
    drop(world);
    assert!(start.elapsed() < Duration::from_secs(1), "cancelled, not waited for");
    let mut byte = [0];
    assert!(matches!(far.read(&mut byte), Ok(0) | Err(_)), "the socket is closed");
}
