//! When the next request is due. In a closed loop whenever there is room for one; in an open loop at times that were
//! fixed beforehand, so that a slow answer does not hide the requests that waited behind it.

use std::time::{Duration, Instant};

/// The requests of one thread in time.
#[derive(Debug)]
pub(crate) enum Pace {
    Closed,
    Open {
        /// The first request's time.
        origin: Instant,
        interval_nanoseconds: f64,
        /// How many were taken.
        taken: u64,
    },
}

impl Pace {
    /// `rate` is that of all threads together; thread `index` of `count` has each `count`th request.
    pub(crate) fn new(rate: Option<f64>, origin: Instant, index: usize, count: usize) -> Self {
        let Some(rate) = rate else { return Self::Closed };
        let all = 1e9 / rate;
        let origin = origin + Duration::from_nanos((all * index as f64) as u64);
        Self::Open { origin, interval_nanoseconds: all * count as f64, taken: 0 }
    }

    /// The time from which the next request's latency counts, if it is due.
    pub(crate) fn peek(&self, now: Instant) -> Option<Instant> {
        Some(self.next().unwrap_or(now)).filter(|due| *due <= now)
    }

    /// The request that `peek` gave is on its way.
    pub(crate) fn taken(&mut self) {
        if let Self::Open { taken, .. } = self {
            *taken += 1;
        }
    }

    /// The time of the next request; none in a closed loop.
    pub(crate) fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed => None,
            Self::Open { origin, interval_nanoseconds, taken } => {
                Some(*origin + Duration::from_nanos((interval_nanoseconds * *taken as f64) as u64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pace: &mut Pace, now: Instant) -> Option<Instant> {
        pace.peek(now).inspect(|_| pace.taken())
    }

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_closed_loop_is_always_due() {
        let now = Instant::now();
        let mut pace = Pace::new(None, now, 0, 1);
        assert_eq!((take(&mut pace, now), take(&mut pace, now), pace.next()), (Some(now), Some(now), None));
    }

    #[test]
    fn an_open_loop_keeps_its_times_however_late_it_is_asked() {
        let origin = Instant::now();
        let mut pace = Pace::new(Some(100.0), origin, 0, 1);
        assert_eq!(take(&mut pace, origin), Some(origin));
        assert_eq!(take(&mut pace, origin + millis(9)), None, "the second is due after 10 ms");
        let late = origin + millis(35);
        let taken: Vec<_> = std::iter::from_fn(|| take(&mut pace, late)).map(|due| due - origin).collect();
        assert_eq!(taken, [millis(10), millis(20), millis(30)], "what was missed keeps its intended times");
        assert_eq!(pace.next(), Some(origin + millis(40)));
    }

    #[test]
    fn threads_share_a_rate_in_turn() {
        let origin = Instant::now();
        let mut times = Vec::new();
        for index in 0..2 {
            let mut pace = Pace::new(Some(100.0), origin, index, 2);
            times.extend(
                std::iter::from_fn(|| take(&mut pace, origin + millis(39))).map(|due| (due - origin).as_millis()),
            );
        }
        times.sort_unstable();
        assert_eq!(times, [0, 10, 20, 30]);
    }

    #[test]
    fn a_rate_does_not_drift() {
        let origin = Instant::now();
        let mut pace = Pace::new(Some(300_000.0), origin, 0, 1);
        let end = origin + Duration::from_secs(1);
        let count = std::iter::from_fn(|| take(&mut pace, end)).count();
        assert!((300_000..=300_002).contains(&count), "{count}");
    }
}
