//! The real engine, storage and index in a virtual world: clock, network, disks, clients, faults, and checkers that
//! know what was promised.
//!
//! Everything in a run follows from its seed: network, disks, workload and scheduling draw from streams of their own,
//! and the same seed gives the same trace ([`Report::trace_hash`]). A run goes through two parts: first anything may
//! fail and the checkers watch over safety; then all heals, and the cluster must come together again and take a write.
//!
//! **What may fail**, so that no checker asks for the impossible:
//!
//! - Processes end, nodes lose power, pause, start with other timeouts and priorities; wall clocks jump. Monotonic clocks
//!   run a little too fast or slow, and never stand still.
//! - Links delay, stall while a path is cut (in one direction or both), break; what was on the way is lost then. Calls over
//!   HTTP are lost, late, and come twice. Messages of an earlier link may come once more on a later one, but for requests to
//!   subscribe.
//! - In a power cut what was not flushed is there, gone, torn at sectors, or in the wrong place, behind all that was flushed.
//!   After a flush that failed the system shows what was written, and it may not be on the disk; the node must end.
//! - A disk is full for a while, or slow. A member's disk is lost for good only while a majority of the members keep theirs
//!   and the member list is not being changed; the node comes back as another one, a clone.
//! - Flushed bytes of the log rot on one node only while a majority of the members has them, and no rot, and below the durable
//!   mark of that node; header and footer pages, marks and a slot of the state file rot, too (see the module `rot`).
//! - The operator asks for changes of the member list and for hand-overs at any time, sensible or not.
//!
//! Each run leaves most kinds of faults out, and draws how often the others come ([`FAULTS`]).
//!
//! Promises: a run touches nothing outside itself but the memory of the log buffers. Leaves to others: sockets, files
//! and threads, which the tests of the real binary cover. What the checkers look at is listed at [`Checker`]; the legend
//! of a trace is in the module `trace`.
#![forbid(unsafe_code)]

mod agenda;
mod calls;
mod checks;
mod coverage;
mod disk;
mod edge;
mod faults;
mod history;
mod io;
mod kinds;
mod links;
mod lives;
mod members;
mod mending;
mod node;
#[cfg(test)]
mod planted_tests;
mod profile;
mod reference;
mod rot;
mod sealing;
mod settle;
mod shrink;
mod tables;
mod trace;
mod workload;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use self::coverage::Coverage;
pub use self::kinds::{FAULTS, Fault};
pub use self::shrink::shrink;
use self::world::World;

/// What a run is told besides its seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voting members; drawn from the seed when `None`.
    pub nodes: Option<usize>,
    /// Clients; drawn from the seed when `None`.
    pub clients: Option<usize>,
    /// Virtual time during which anything may fail.
    pub faulty: Duration,
    /// Kinds of faults that the run has for sure, and often.
    pub with: Vec<Fault>,
    /// Kinds of faults that the run leaves out.
    pub without: Vec<Fault>,
    /// Numbers of faults that the run leaves out, see [`Injected`].
    pub skip: Vec<u32>,
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
            clients: None,
            faulty: Duration::from_secs(10),
            with: Vec::new(),
            without: Vec::new(),
            skip: Vec::new(),
            trace: false,
            #[cfg(test)]
            planted: None,
        }
    }
}

impl Options {
    fn skips(&self, number: u32) -> bool {
        self.skip.contains(&number)
    }

    /// As options of the command line, those that are not the default.
    #[must_use]
    pub fn arguments(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: String| text.push_str(&format!(" --{name} {value}"));
        if let Some(nodes) = self.nodes {
            add("nodes", nodes.to_string());
        }
        if let Some(clients) = self.clients {
            add("clients", clients.to_string());
        }
        if self.faulty != Options::default().faulty {
            add("seconds", self.faulty.as_secs_f64().to_string());
        }
        for (name, kinds) in [("with", &self.with), ("without", &self.without)] {
            if !kinds.is_empty() {
                add(name, kinds.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(","));
            }
        }
        if !self.skip.is_empty() {
            let mut skip = self.skip.clone();
            skip.sort_unstable();
            add("skip", skip.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        text
    }
}

/// Something that went wrong in a run.
#[derive(Clone, Copy, Debug)]
pub struct Injected {
    /// Counts up; the same for the same seed, whatever else is left out of the run.
    pub number: u32,
    /// When.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// To which node.
    pub node: usize,
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
    /// Each stream is a linearizable object: a read behind a barrier sees every write acknowledged, and everything read,
    /// before it was asked; a write takes its place behind those; a refusal names a version that the stream had; a read
    /// on any node sees what is committed, and never less than before on that node.
    Linearizable,
    /// A node starts with everything that it had acknowledged.
    Recovery,
    /// Nobody overwrites what it has committed.
    CommittedStays,
    /// A chunk with a footer is full, committed and flushed, and the footer tells what it holds.
    Sealed,
    /// A node starts with all tables of its index that the manifest names, and they go with its log.
    TablesKept,
    /// What a repair writes is what was committed.
    RepairExact,
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
    pub coverage: Coverage,
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
    /// When.
    pub at: Duration,
    /// What had gone wrong before.
    pub faults: Vec<Injected>,
    /// The kinds of faults that the run knew.
    pub kinds: Vec<Fault>,
    /// Further options of the run, for its replay.
    pub arguments: String,
    /// The last lines of the trace.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {:?}: {}", self.seed, self.checker, self.detail)?;
        write!(f, "replay with: cargo sim --seed {}{}", self.seed, self.arguments)
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
    Err(Box::new(Failure {
        seed,
        checker,
        detail,
        at: Duration::from_nanos(world.now),
        faults: std::mem::take(&mut world.schedule),
        kinds: world.profile.kinds(),
        arguments: options.arguments(),
        trace: world.trace.tail(),
    }))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text").to_owned()
}
