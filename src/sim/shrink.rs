//! Makes a failing run smaller: a shorter time, fewer clients, fewer kinds of faults, fewer faults. What is left out
//! leaves the rest of the run as it was, as far as that is possible, and a run counts only when the same checker objects.

use std::time::Duration;

use super::kinds::Fault;
use super::{Failure, Options, run};

/// Tries at most: each is a whole run.
const TRIES_MAX: u32 = 2_000;

struct Search<'a> {
    options: Options,
    failure: Failure,
    tries: u32,
    tell: &'a mut dyn FnMut(&str),
}

/// The smallest failing run that was found, starting from that of `seed` with `options`; `None` when that one does not
/// fail. `tell` hears of each step.
pub fn shrink(seed: u64, options: &Options, tell: &mut dyn FnMut(&str)) -> Option<(Options, Failure)> {
    let failure = *run(seed, options).err()?;
    let mut search = Search { options: options.clone(), failure, tries: 0, tell };
    loop {
        let before = search.size();
        search.end_sooner();
        search.fewer_clients();
        search.fewer_kinds();
        search.fewer_faults();
        if search.size() == before || search.tries >= TRIES_MAX {
            return Some((search.options, search.failure));
        }
    }
}

impl Search<'_> {
    fn size(&self) -> (usize, Duration, usize) {
        (self.failure.faults.len(), self.options.faulty, self.options.without.len())
    }

    /// Keeps the options when they fail the same way.
    fn attempt(&mut self, options: Options) -> bool {
        if self.tries >= TRIES_MAX {
            return false;
        }
        self.tries += 1;
        let Err(failure) = run(self.failure.seed, &options) else { return false };
        if failure.checker != self.failure.checker {
            return false;
        }
        let (faults, seconds) = (failure.faults.len(), failure.at.as_secs_f64());
        (self.tell)(&format!("try {}: fails after {seconds:.3} s and {faults} faults", self.tries));
        (self.options, self.failure) = (options, *failure);
        true
    }

    fn end_sooner(&mut self) {
        let at = self.failure.at + Duration::from_millis(1);
        if at < self.options.faulty {
            self.attempt(Options { faulty: Duration::from_millis(at.as_millis() as u64), ..self.options.clone() });
        }
        for parts in [2, 3, 4] {
            let faulty = self.options.faulty * (parts - 1) / parts;
            let faulty = Duration::from_millis(faulty.as_millis() as u64);
            self.attempt(Options { faulty, ..self.options.clone() });
        }
    }

    fn fewer_clients(&mut self) {
        for clients in 1..self.options.clients.unwrap_or(6) {
            if self.attempt(Options { clients: Some(clients), ..self.options.clone() }) {
                return;
            }
        }
    }

    fn fewer_kinds(&mut self) {
        let kinds: Vec<Fault> = self.failure.kinds.clone();
        for kind in kinds {
            if !self.options.without.contains(&kind) {
                let mut without = self.options.without.clone();
                without.push(kind);
                self.attempt(Options { without, ..self.options.clone() });
            }
        }
    }

    /// Leaves out halves of what is there, then quarters, and so on.
    fn fewer_faults(&mut self) {
        let mut length = self.failure.faults.len().div_ceil(2);
        while length > 0 {
            let mut from = 0;
            while from < self.failure.faults.len() {
                let to = (from + length).min(self.failure.faults.len());
                let mut skip = self.options.skip.clone();
                skip.extend(self.failure.faults[from..to].iter().map(|fault| fault.number));
                if !self.attempt(Options { skip, ..self.options.clone() }) {
                    from = to;
                }
            }
            length = if length == 1 { 0 } else { length.div_ceil(2) };
        }
    }
}
