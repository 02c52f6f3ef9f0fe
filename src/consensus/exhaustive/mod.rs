//! All states of a small cluster: three real replicas, everything that can happen to them in any order, within bounds.
//!
//! What the simulator shows for many random schedules is shown here for all short ones. The model (`model`, `steps`) is a
//! state that can be copied and encoded: the replicas, their logs and disks, the letters on the way. The search (`search`)
//! is breadth first, so that a violation comes with a shortest way to it.
//!
//! How the world is made small:
//! - A letter about a vote goes over a connection of its own: it is delivered once at any time, in any order, or never.
//!   Those on one link keep their order, as TCP has it, and die with it; links overtake each other.
//! - Time is gone: each step sees a clock at which every timer may fire (`NOW`, or `LATE` where patience must be over), and
//!   deadlines are forgotten after it. So an election may begin, and a leader give up, at any moment. Jitter is off.
//! - A pre-vote succeeds at once. It only ever keeps a node from standing; the model lets every node stand always.
//! - Heartbeat rounds are left out: they confirm reads, which the simulator checks. So is the request to take over: it makes
//!   a node stand sooner, and any may stand at any time.
//! - A node follows a leader of a term once, by a hint, and again when that link broke or it was started again.
//! - A crash and the start after it are one step. It leaves any part of the log that was not flushed, and the state that
//!   was being saved, or not. Once no crash is left, flushes take no time (`steps`).
//! - A letter that can do nothing any more is dropped (`letters`); states that differ in nothing but the names of nodes
//!   that may do the same are one (`encode`). States are known by 64 bits of hash.
//!
//! Bounded are terms, the nodes that stand, records, changes of the member list, crashes, and breaks. With two founding
//! members the third node is a clone that may be added.
//!
//! A search of its own rather than a model checker's: it is small, needs nothing that the project does not
//! have, and lives where the planted bugs can be seen.

mod encode;
mod invariants;
mod letters;
mod model;
mod search;
mod steps;
mod tests;
