//! The real engine, storage and index in a virtual world: clock, network, disks, clients, faults, and checkers that
//! know what was promised.
//!
//! Everything in a run follows from its seed: network, disks, workload and scheduling draw from streams of their own,
//! and the same seed gives the same trace ([`Report::trace_hash`]). A run goes through two parts: first anything may
//! fail and the checkers watch over safety; then all heals, and the cluster must come together again and take a write.
//!
//! Promises: a run touches nothing outside itself but the memory of the log buffers. Leaves to others: sockets, files
//! and threads, which the tests of the real binary cover. What the checkers look at is listed at [`Checker`]; the legend
//! of a trace is in the module `trace`.
#![forbid(unsafe_code)]

mod agenda;
mod calls;
mod checks;
mod disk;
mod edge;
mod faults;
mod io;
mod links;
mod node;
#[cfg(test)]
mod planted_tests;
mod profile;
mod reference;
mod settle;
mod trace;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::world::World;

/// What a run is told besides its seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voting members; drawn from the seed when `None`.
    pub nodes: Option<usize>,
    /// Virtual time during which anything may fail.
    pub faulty: Duration,
    /// Print the trace as it grows.
    pub trace: bool,
    /// What the replicas do wrong.
    #[cfg(test)]
    pub(crate) planted: Option<crate::consensus::PlantedBug>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            nodes: None,
            faulty: Duration::from_secs(10),
            trace: false,
            #[cfg(test)]
            planted: None,
        }
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Checker {
    /// A term has one leader, once.
    OneLeader,
    /// A leader's log begins with everything that was committed before its term.
    LeaderComplete,
    /// What nodes have committed is the same, byte for byte, and made of good records.
    SameLog,
    /// What is committed lies flushed on a majority of the members' disks.
    DurableMajority,
    /// A commit position never moves back while its node runs.
    CommitGrows,
    /// An acknowledged write is committed where the acknowledgement says.
    Acknowledged,
    /// What a client was told is not written is not in the log.
    Refused,
    /// An event is in the log once, however often its client asked.
    ExactlyOnce,
    /// The event numbers of a stream have no gap.
    DenseNumbers,
    /// A read behind a barrier sees every write acknowledged, and everything read, before it was asked.
    Linearizable,
    /// A node starts with everything that it had acknowledged.
    Recovery,
    /// Nobody overwrites what it has committed.
    CommittedStays,
    /// Memory that a write or send still needs is left alone.
    BufferReuse,
    /// No engine gives up.
    NoFatal,
    /// No assertion fails.
    NoPanic,
    /// The index agrees with the log.
    IndexAgrees,
    /// After all has healed the cluster comes together and takes a write.
    Liveness,
}

/// A run that kept all promises.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The same for the same seed and options.
    pub trace_hash: u64,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// What happened how often.
    pub counts: BTreeMap<&'static str, u64>,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Replays the run.
    pub seed: u64,
    /// Who objected.
    pub checker: Checker,
    /// What it saw.
    pub detail: String,
    /// The last lines of the trace.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {:?}: {}", self.seed, self.checker, self.detail)?;
        write!(f, "replay with: cargo sim --seed {}", self.seed)
    }
}

impl std::error::Error for Failure {}

/// Runs the world of `seed`.
///
/// # Errors
/// The first objection of a [`Checker`]. A panic in the simulated code is one, where panics unwind.
pub fn run(seed: u64, options: &Options) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, options);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    let (checker, detail) = match outcome {
        Ok(None) => return Ok(world.report()),
        Ok(Some(objection)) => objection,
        Err(panic) => (Checker::NoPanic, panic_text(panic.as_ref())),
    };
    Err(Box::new(Failure { seed, checker, detail, trace: world.trace.tail() }))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text").to_owned()
}
