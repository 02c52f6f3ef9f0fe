//! What does handing a request over to another thread cost, when that thread is awake and when it has to be woken?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringstore::queue::Queue;
use ringstore::ring::{Driver, Outcome, Wait};

/// Items in the queue at a time, as many as the log thread takes in one turn.
const CAPACITY: usize = 1024;

/// Sent to end the receiver.
const END: u64 = u64::MAX;

/// The receiving thread, as the log thread does it: takes what is there, sleeps in its ring when there is nothing.
fn receive(queue: &Queue<u64>, received: &AtomicU64) {
    let mut driver = Driver::new().expect("an io_uring");
    let eventfd = driver.attach(queue.eventfd().try_clone_to_owned().expect("a descriptor"));
    let (mut armed, mut outcomes) = (false, Vec::new());
    loop {
        while let Some(item) = queue.pop() {
            if item == END {
                return;
            }
            received.store(item, Ordering::Release);
        }
        let wait = if queue.may_sleep() { Wait::For(Duration::from_secs(1)) } else { Wait::No };
        if wait != Wait::No && !std::mem::replace(&mut armed, true) {
            driver.watch(eventfd, 0);
        }
        driver.enter(wait, &mut outcomes).expect("the ring");
        queue.stay_awake();
        armed &= !outcomes.drain(..).any(|completion| matches!(completion.outcome, Outcome::Woken(_)));
    }
}

fn send(queue: &Queue<u64>, item: u64) {
    let mut item = item;
    while let Err(back) = queue.send(item) {
        item = back;
        std::thread::yield_now();
    }
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--small");
    let (items, wakes) = if small { (10_000, 20) } else { (5_000_000, 5_000) };
    let queue = Arc::new(Queue::for_ring(CAPACITY).expect("an eventfd"));
    let received = Arc::new(AtomicU64::new(0));
    let receiver = std::thread::spawn({
        let (queue, received) = (Arc::clone(&queue), Arc::clone(&received));
        move || receive(&queue, &received)
    });
    let started = Instant::now();
    (1..=items).for_each(|item| send(&queue, item));
    while received.load(Ordering::Acquire) < items {
        std::thread::yield_now();
    }
    println!("queue: a stream of items: {:.1} ns each", started.elapsed().as_nanos() as f64 / items as f64);
    let mut nanos = Histogram::<u64>::new(3).expect("three digits");
    for wake in 1..=wakes {
        // Long enough for the receiver to fall asleep.
        std::thread::sleep(Duration::from_micros(200));
        let started = Instant::now();
        send(&queue, items + wake);
        while received.load(Ordering::Acquire) < items + wake {
            std::hint::spin_loop();
        }
        nanos.record(started.elapsed().as_nanos() as u64).expect("a histogram that grows");
    }
    let micros = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
    println!("queue: to a thread that sleeps: p50 {:.1} us, p99 {:.1} us", micros(0.5), micros(0.99));
    send(&queue, END);
    receiver.join().expect("the receiver ends");
}
