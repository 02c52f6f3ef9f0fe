//! All states of a small cluster: three real replicas, everything that can happen to them in any order, within bounds.
//!
//! What the simulator shows for many random schedules is shown here for all short ones. The model (`model`) is a state that
//! can be copied and hashed: the replicas, their logs and disks, the letters on the way. The search (`search`) is breadth
//! first, so that a violation comes with a shortest way to it.
//!
//! How the world is made small, and why nothing is lost by it:
//! - Letters are a set. One that was sent may be delivered at any time, in any order, many times, or never: that is
//!   reordering, duplication and loss, and more than TCP would do to a link. What a leader sent on a link dies with it.
//! - Time is gone: each step sees a clock at which every timer may fire (`NOW`, or `LATE` where patience must be over), and
//!   deadlines are forgotten after it. So an election may begin, and a leader give up, at any moment. Jitter is off.
//! - A pre-vote succeeds at once. It only ever keeps a node from standing; the model lets every node stand always.
//! - Heartbeat rounds are left out: they confirm reads, which the simulator checks.
//! - A crash and the start after it are one step. It leaves any part of the log that was not flushed, and the state that
//!   was being saved, or not.
//!
//! Bounded are terms, the nodes that stand, records, crashes, breaks, how often a node opens a link, and the number of
//! steps. By symmetry the first to stand is the first node. Changes of the member list are not in the model yet.
//!
//! A search of its own rather than a model checker's: it is a hundred lines, needs nothing that the project does not
//! have, and lives where the planted bugs can be seen.

mod encode;
mod invariants;
mod letters;
mod model;
mod search;
mod steps;
mod tests;
