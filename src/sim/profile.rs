//! What a seed's world is like: how large, how fast, and which faults it knows. Each run leaves some faults out
//! entirely, so that others get their turn.

use std::time::Duration;

use fastrand::Rng;

use super::Options;
use super::agenda::{MICROSECOND, MILLISECOND, Moment};
use super::kinds::{FAULTS, Fault};

/// The weight of a kind that was asked for.
const WEIGHT_WITH: u32 = 16;

/// A range of durations.
pub(super) type Span = (Moment, Moment);

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
    /// Between steps of the sealer.
    pub(super) seal: Span,
    /// Events that the index has in memory before it writes a table.
    pub(super) index_events: u64,
    /// Between a node's input and its turn.
    pub(super) turn: Span,
    pub(super) apply: Span,
    pub(super) clients: usize,
    pub(super) think: Span,
    pub(super) event_bytes: usize,
    pub(super) fault_gap: Span,
    pub(super) fault_length: Span,
    /// What this run knows, and how often each comes compared with the others.
    pub(super) faults: Vec<(Fault, u32)>,
    /// Left out of it, for a smaller run that fails the same way.
    without: Vec<Fault>,
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
        let faults = draw_faults(options, random);
        let gap = pick(random, &[timeout, timeout * 4, timeout * 12]).max(100 * MILLISECOND);
        let length = pick(random, &[timeout, timeout * 3, timeout * 10]);
        let clients = random.usize(1..=6);
        let has_members = faults.iter().any(|(fault, _)| *fault == Fault::Members);
        let clones = pick(random, if has_members { &[1, 1, 2] } else { &[0, 0, 0, 0, 0, 1] });
        let log_buffer_bytes = pick(random, &[128 << 10, 256 << 10, 1 << 20]);
        Profile {
            members,
            clones,
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
            seal: pick(random, &[(0, 5 * MILLISECOND), (MILLISECOND, 100 * MILLISECOND), (0, 1_000 * MILLISECOND)]),
            index_events: pick(random, &[20, 100, 100, 400, 10_000]),
            turn: pick(random, &[(0, 5 * MICROSECOND), (0, 100 * MICROSECOND), (0, 2 * MILLISECOND)]),
            apply: pick(random, &[(0, 50 * MICROSECOND), (0, 3 * MILLISECOND)]),
            clients: options.clients.unwrap_or(clients),
            think: pick(random, &[(0, 10 * MILLISECOND), (0, 50 * MILLISECOND), (0, 300 * MILLISECOND)]),
            event_bytes: pick(random, &[100, 1_000, 12_000]),
            fault_gap: (gap / 4, gap * 2),
            fault_length: (length / 10, length),
            faults,
            without: options.without.clone(),
            faulty_until: options.faulty.as_nanos() as Moment,
        }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|&(known, _)| known == fault) && !self.without.contains(&fault)
    }

    /// The kinds that the run knows.
    pub(super) fn kinds(&self) -> Vec<Fault> {
        FAULTS.iter().map(|(fault, _)| *fault).filter(|&fault| self.has(fault)).collect()
    }

    /// One of the run's kinds, the heavier ones more often; `None` when it is left out.
    pub(super) fn pick_fault(&self, random: &mut Rng) -> Option<Fault> {
        let events = || self.faults.iter().filter(|(fault, _)| fault.is_event());
        let sum: u32 = events().map(|(_, weight)| weight).sum();
        let mut at = random.u32(0..sum.max(1));
        let picked = events().find(|(_, weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        picked.map(|&(fault, _)| fault).filter(|&fault| self.has(fault))
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

/// Each run leaves most kinds out, and some of those it has come more often than others.
fn draw_faults(options: &Options, random: &mut Rng) -> Vec<(Fault, u32)> {
    let share = pick(random, &[1, 2, 2, 3]);
    let mut faults = Vec::new();
    for (fault, _) in FAULTS {
        let weight = pick(random, &[1, 4, 4, 16]);
        let is_drawn = random.u8(0..5) < share;
        if options.with.contains(&fault) {
            faults.push((fault, WEIGHT_WITH));
        } else if is_drawn {
            faults.push((fault, weight));
        }
    }
    faults
}

/// One of these.
pub(super) fn pick<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(0..choices.len())]
}

/// A duration in the range.
pub(super) fn within(random: &mut Rng, span: Span) -> Moment {
    random.u64(span.0..=span.1)
}
