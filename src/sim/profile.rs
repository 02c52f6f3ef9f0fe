//! What a seed's world is like: how large, how fast, and which faults it knows. Each run leaves some faults out
//! entirely, so that others get their turn.

use std::time::Duration;

use fastrand::Rng;

use super::Options;
use super::agenda::{MICROSECOND, MILLISECOND, Moment};

/// A range of durations.
pub(super) type Span = (Moment, Moment);

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    CrashProcess,
    CrashPower,
    CrashAll,
    Pause,
    Isolate,
    Partition,
    OneWay,
    BreakLink,
    SlowDisk,
    DiskFull,
    Resign,
    Stop,
    /// Something of the above happens to a leader soon after its election.
    HuntLeader,
    /// All nodes crash soon after an election.
    HuntAll,
    /// Soon after its election a leader is cut off, and the one before it comes back: the scene of figure 8 in Raft's
    /// paper.
    Rotate,
    /// Gossip tells of leaders that lead no more.
    StaleHints,
    /// Votes and gossip are lost.
    LossyCalls,
}

pub(super) const FAULTS: [Fault; 17] = [
    Fault::CrashProcess,
    Fault::CrashPower,
    Fault::CrashAll,
    Fault::Pause,
    Fault::Isolate,
    Fault::Partition,
    Fault::OneWay,
    Fault::BreakLink,
    Fault::SlowDisk,
    Fault::DiskFull,
    Fault::Resign,
    Fault::Stop,
    Fault::HuntLeader,
    Fault::HuntAll,
    Fault::Rotate,
    Fault::StaleHints,
    Fault::LossyCalls,
];

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) members: usize,
    pub(super) clones: usize,
    pub(super) chunk_size: u64,
    pub(super) log_buffer_bytes: usize,
    pub(super) window_bytes: u64,
    pub(super) election_timeout: Duration,
    pub(super) heartbeat_interval: Duration,
    /// One way between nodes.
    pub(super) network: Span,
    /// Now and then a packet takes this long.
    pub(super) network_hiccup: Moment,
    /// What a data link carries.
    pub(super) bytes_per_ms: u64,
    /// The largest piece that data arrives in.
    pub(super) piece_bytes: usize,
    pub(super) write: Span,
    pub(super) flush: Span,
    pub(super) prepare: Span,
    /// Between a node's input and its turn.
    pub(super) turn: Span,
    pub(super) apply: Span,
    pub(super) clients: usize,
    pub(super) think: Span,
    pub(super) event_bytes: usize,
    pub(super) fault_gap: Span,
    pub(super) fault_length: Span,
    pub(super) faults: Vec<Fault>,
    /// How long faults last before everything heals.
    pub(super) faulty_until: Moment,
}

impl Profile {
    pub(super) fn draw(options: &Options, random: &mut Rng) -> Profile {
        let members = options.nodes.unwrap_or_else(|| pick(random, &[1, 3, 3, 3, 3, 3, 5, 5]));
        let timeout = pick(random, &[100, 150, 250, 500, 1000]) * MILLISECOND;
        let lan = (30 * MICROSECOND, 400 * MICROSECOND);
        let network = pick(random, &[lan, lan, (MILLISECOND, 5 * MILLISECOND), (50 * MICROSECOND, timeout / 12)]);
        let flush =
            pick(random, &[(50 * MICROSECOND, MILLISECOND), (MILLISECOND, 10 * MILLISECOND), (0, timeout / 10)]);
        let faults = FAULTS.into_iter().filter(|_| random.u8(0..5) < 2).collect();
        let gap = pick(random, &[timeout / 2, timeout * 2, timeout * 8]).max(50 * MILLISECOND);
        let length = pick(random, &[timeout, timeout * 3, timeout * 10]);
        let log_buffer_bytes = pick(random, &[128 << 10, 256 << 10, 1 << 20]);
        Profile {
            members,
            clones: usize::from(random.u8(0..4) == 0),
            chunk_size: pick(random, &[8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]),
            log_buffer_bytes,
            window_bytes: pick(random, &[16 << 10, 64 << 10, log_buffer_bytes as u64 / 2]),
            election_timeout: Duration::from_nanos(timeout),
            heartbeat_interval: Duration::from_nanos(timeout / pick(random, &[4, 5, 10])),
            network,
            network_hiccup: pick(random, &[0, timeout / 4, timeout]),
            bytes_per_ms: pick(random, &[50, 500, 5_000, 100_000, 100_000]),
            piece_bytes: pick(random, &[200, 1_500, 16 << 10, 64 << 10]),
            write: pick(random, &[(10 * MICROSECOND, 100 * MICROSECOND), (0, 5 * MILLISECOND)]),
            flush,
            prepare: pick(random, &[(MILLISECOND, 5 * MILLISECOND), (MILLISECOND, 300 * MILLISECOND)]),
            turn: pick(random, &[(0, 5 * MICROSECOND), (0, 100 * MICROSECOND), (0, 2 * MILLISECOND)]),
            apply: pick(random, &[(0, 50 * MICROSECOND), (0, 3 * MILLISECOND)]),
            clients: random.usize(1..=6),
            think: pick(random, &[(0, 10 * MILLISECOND), (0, 50 * MILLISECOND), (0, 300 * MILLISECOND)]),
            event_bytes: pick(random, &[100, 1_000, 12_000]),
            fault_gap: (gap / 4, gap * 2),
            fault_length: (length / 10, length),
            faults,
            faulty_until: options.faulty.as_nanos() as Moment,
        }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// For the last part of a run: nothing is slow any more.
    pub(super) fn make_benign(&mut self) {
        self.network = (30 * MICROSECOND, 400 * MICROSECOND);
        self.network_hiccup = 0;
        self.bytes_per_ms = 100_000;
        self.piece_bytes = 64 << 10;
        self.flush = (50 * MICROSECOND, MILLISECOND);
        self.write = (10 * MICROSECOND, 100 * MICROSECOND);
        self.turn = (0, 5 * MICROSECOND);
        self.prepare = (MILLISECOND, 5 * MILLISECOND);
        self.faults.clear();
    }

    pub(super) fn nodes(&self) -> usize {
        self.members + self.clones
    }
}

/// One of these.
pub(super) fn pick<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(0..choices.len())]
}

/// A duration in the range.
pub(super) fn within(random: &mut Rng, span: Span) -> Moment {
    random.u64(span.0..=span.1)
}
