//! Raft on a byte log, sans-IO: log position in the place of the index, an epoch record in the place of each term's
//! first entry. It decides; the [`engine`](crate::engine) carries out.
//!
//! **Invariant:** nothing here reads a clock, a file or a socket, draws randomness from outside, or waits. Positions,
//! messages, `now` and a seed come in, [`Effect`]s go out.
//!
//! Promises: at most one leader in a term; only what a majority has flushed, under a record of the leader's own term,
//! is committed; nothing below the commit position is ever cut; nobody hears of a term or vote that is not durable.
#![forbid(unsafe_code)]

mod chance;
mod changing;
mod effects;
mod election;
mod epochs;
#[cfg(test)]
mod exhaustive;
mod following;
mod handing_over;
#[cfg(test)]
mod harness;
mod leading;
mod lists;
#[cfg(test)]
mod membership_tests;
mod message;
#[cfg(test)]
mod paper_tests;
mod replica;
#[cfg(test)]
mod scenario_tests;

pub use changing::{Change, RestoredList};
pub use effects::Effect;
pub use epochs::{Divergence, EPOCHS_SENT_MAX, EpochTable};
pub use leading::Tracked;
pub use lists::MemberLists;
pub use message::{Message, TransferRequest, Versioned, VoteRequest, VoteResponse};
#[cfg(test)]
pub use replica::PlantedBug;
pub use replica::{Replica, ReplicaOptions, Restored};
