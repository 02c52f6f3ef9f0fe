//! Heartbeats of one connection, as v5 counts them: bytes are life, in either direction.
//!
//! Pure bookkeeping: the edge's sweep asks every connection in turn, so there is one timer for all of them.

use std::time::{Duration, Instant};

/// How often, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatOptions {
    /// Silence after which a heartbeat request is sent.
    pub interval: Duration,
    /// Further silence after which the connection is closed.
    pub timeout: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing.
    Rest,
    /// Send a heartbeat request.
    Send,
    /// The other side is dead: close.
    Close,
}

/// The state for one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    options: HeartbeatOptions,
    next_check: Instant,
    received: u64,
    sent: u64,
    /// While an answer is awaited: until when, and what had been received when it was asked for.
    awaited: Option<(Instant, u64)>,
}

impl Heartbeat {
    pub(super) fn new(options: HeartbeatOptions, now: Instant) -> Heartbeat {
        Heartbeat { options, next_check: now + options.interval, received: 0, sent: 0, awaited: None }
    }

    /// Looks at the counts of bytes received and sent so far.
    pub(super) fn check(&mut self, now: Instant, received: u64, sent: u64) -> Beat {
        if let Some((until, seen)) = self.awaited
            && now >= until
        {
            if received == seen {
                return Beat::Close;
            }
            self.awaited = None;
        }
        if now < self.next_check {
            return Beat::Rest;
        }
        self.next_check = now + self.options.interval;
        let heard = received != std::mem::replace(&mut self.received, received);
        let spoke = sent != std::mem::replace(&mut self.sent, sent);
        if !heard && self.awaited.is_none() {
            self.awaited = Some((now + self.options.timeout, received));
            return Beat::Send;
        }
        // Keeps the other side's own watch quiet.
        if spoke { Beat::Rest } else { Beat::Send }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn silence_is_asked_and_then_closed() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(HeartbeatOptions { interval: ms(2000), timeout: ms(1000) }, start);
        assert_eq!(heart.check(start + ms(1999), 0, 0), Beat::Rest);
        assert_eq!(heart.check(start + ms(2000), 0, 0), Beat::Send);
        assert_eq!(heart.check(start + ms(2999), 0, 22), Beat::Rest);
        assert_eq!(heart.check(start + ms(3000), 0, 22), Beat::Close);
    }

    #[test]
    fn any_byte_is_life() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(HeartbeatOptions { interval: ms(700), timeout: ms(700) }, start);
        assert_eq!(heart.check(start + ms(700), 0, 0), Beat::Send);
        assert_eq!(heart.check(start + ms(1400), 1, 22), Beat::Rest);
        assert_eq!(heart.check(start + ms(2100), 2, 22), Beat::Send, "the other side has heard nothing");
        assert_eq!(heart.check(start + ms(2900), 3, 44), Beat::Rest, "but nothing was awaited");
    }
}
