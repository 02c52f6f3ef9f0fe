//! What happened, one fixed-width line for each change of state, and a hash over all of it.
//!
//! ```text
//!   seconds   node  what            a            b
//!   1.204113  n2    leads           3        81920
//! ```
//!
//! | what | a | b |
//! | --- | --- | --- |
//! | `starts` | end of the recovered log | chunk files |
//! | `crashes` | 0: process, 1: power | end of its log |
//! | `pauses` | milliseconds | |
//! | `role` | role: 0 initializing, 1 unknown, 2 pre-replica, 3 catching up, 4 clone, 5 follower, 6 pre-leader, 7 leader, 8 resigning, 9 stopping | term |
//! | `leads` | term | end of its log |
//! | `commits` | commit position | end of its log |
//! | `cuts` | from | bytes |
//! | `acks` | number of a write's first event; the node is the client | end of the record |
//! | `reads` | last number of a stream; the node is the client | |
//! | `refused` | current version; the node is the client | |
//! | `severs` | bits of the peers that it cannot send to any more | |
//! | `heals` | bits of the peers that it can send to again | |
//! | `disk` | how many times slower than usual; 0: full | |
//! | `jumps` | wall clock, 100 ns ticks | 1: back |
//! | `rots`, `repairs` | from | to |
//! | `replaced` | its disk | |
//! | `resigns`, `stops`, `breaks` | | |

use std::collections::VecDeque;

use super::agenda::{MICROSECOND, Moment, SECOND};

/// Lines kept for a failure's report.
const LINES_KEPT: usize = 80;

/// A kind of line; the legend is in the module.
pub(super) type What = &'static str;

#[derive(Clone, Copy, Debug)]
struct Line {
    at: Moment,
    node: usize,
    what: What,
    a: u64,
    b: u64,
}

impl Line {
    fn text(&self) -> String {
        let (seconds, micros) = (self.at / SECOND, self.at % SECOND / MICROSECOND);
        format!("{seconds:>4}.{micros:06}  n{:<3} {:<8} {:>12} {:>12}", self.node, self.what, self.a, self.b)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: VecDeque<Line>,
    /// Print each line as it comes.
    loud: bool,
}

impl Trace {
    pub(super) fn new(loud: bool) -> Trace {
        Trace { hash: 0xCBF2_9CE4_8422_2325, lines: VecDeque::with_capacity(LINES_KEPT), loud }
    }

    pub(super) fn line(&mut self, at: Moment, node: usize, what: What, a: u64, b: u64) {
        self.mix(a);
        self.mix(b ^ what.len() as u64 ^ ((node as u64) << 48));
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        let line = Line { at, node, what, a, b };
        if self.loud {
            println!("{}", line.text());
        }
        self.lines.push_back(line);
    }

    /// Takes a number into the hash.
    pub(super) fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub(super) fn tail(&self) -> Vec<String> {
        self.lines.iter().map(Line::text).collect()
    }
}
