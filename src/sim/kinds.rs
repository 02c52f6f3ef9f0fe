//! The kinds of faults, and their names on the command line.

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// A process ends; what the system had in its cache stays.
    CrashProcess,
    /// The power fails: what was not flushed is gone, torn, or there.
    CrashPower,
    /// All nodes crash at once.
    CrashAll,
    /// A process stands still for a while.
    Pause,
    /// A node is cut off in both directions.
    Isolate,
    /// The nodes fall into two halves.
    Partition,
    /// A node is not heard, by one or by all, but hears.
    OneWay,
    /// The nodes are cut off one after the other.
    InTurn,
    /// A node's paths come and go.
    Flap,
    /// A connection breaks.
    BreakLink,
    /// Writes and flushes take long.
    SlowDisk,
    /// No chunk can be made, for a while.
    DiskFull,
    /// A flush fails: what it should have covered may be lost, and the process must end.
    FailedFlush,
    /// In a power cut a write lands in the wrong place.
    Misdirected,
    /// Flushed bytes change on a disk.
    Rot,
    /// The operator adds or removes a member.
    Members,
    /// A member loses its disk, and comes back as a new node.
    ReplaceDisk,
    /// Somebody asks a node to hand leadership over.
    Resign,
    /// A node is asked to stop.
    Stop,
    /// Nodes come back with other timeouts and priorities.
    NewOptions,
    /// The wall clock of a node jumps.
    ClockJump,
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
    /// Votes, gossip and control messages come twice, also over a later connection.
    Duplicates,
}

/// All kinds, with their names.
pub const FAULTS: [(Fault, &str); 27] = [
    (Fault::CrashProcess, "crash-process"),
    (Fault::CrashPower, "crash-power"),
    (Fault::CrashAll, "crash-all"),
    (Fault::Pause, "pause"),
    (Fault::Isolate, "isolate"),
    (Fault::Partition, "partition"),
    (Fault::OneWay, "one-way"),
    (Fault::InTurn, "in-turn"),
    (Fault::Flap, "flap"),
    (Fault::BreakLink, "break-link"),
    (Fault::SlowDisk, "slow-disk"),
    (Fault::DiskFull, "disk-full"),
    (Fault::FailedFlush, "failed-flush"),
    (Fault::Misdirected, "misdirected"),
    (Fault::Rot, "rot"),
    (Fault::Members, "members"),
    (Fault::ReplaceDisk, "replace-disk"),
    (Fault::Resign, "resign"),
    (Fault::Stop, "stop"),
    (Fault::NewOptions, "new-options"),
    (Fault::ClockJump, "clock-jump"),
    (Fault::HuntLeader, "hunt-leader"),
    (Fault::HuntAll, "hunt-all"),
    (Fault::Rotate, "rotate"),
    (Fault::StaleHints, "stale-hints"),
    (Fault::LossyCalls, "lossy-calls"),
    (Fault::Duplicates, "duplicates"),
];

impl Fault {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        FAULTS.iter().find(|(fault, _)| *fault == self).map_or("?", |(_, name)| name)
    }

    /// The kind with this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Fault> {
        FAULTS.iter().find(|(_, known)| *known == name).map(|(fault, _)| *fault)
    }

    /// True for what happens at moments of its own; the others colour all that goes on in a run.
    pub(super) fn is_event(self) -> bool {
        !matches!(
            self,
            Fault::Misdirected
                | Fault::NewOptions
                | Fault::HuntLeader
                | Fault::HuntAll
                | Fault::Rotate
                | Fault::StaleHints
                | Fault::LossyCalls
                | Fault::Duplicates
        )
    }

    /// True for what has a number and is counted, see [`Injected`](super::Injected).
    pub(super) fn is_counted(self) -> bool {
        self.is_event() || matches!(self, Fault::HuntLeader | Fault::HuntAll | Fault::Rotate)
    }
}
