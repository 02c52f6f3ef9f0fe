//! Who is there, at which addresses, in which state, how far: membership by gossip, sans-IO.
//!
//! [`Gossip`] is fed with time, answers and requests, and says whom to call and with what; the control thread does the
//! calling. It also holds the rules by which a new cluster is founded ([`Founding`]), and makes the document that v5's
//! clients read ([`Gossip::document`]).
//!
//! Gossip informs and never decides: no vote and no truncation rests on it. What founding rests on is that a node's
//! acceptance is durable before it is gossiped and is never taken back, so that old or lost gossip can delay a founding
//! but not make two.
//!
//! **Invariant:** nothing here reads a clock, draws from the system's randomness or touches a socket; wall-clock times
//! are shown to people and decide nothing except which of two unknown instances of a node is taken for the newer one.
#![forbid(unsafe_code)]

mod addresses;
mod core;
mod directory;
mod document;
mod exchange;
mod founding;
mod member;
mod peer_routes;
mod table;

#[cfg(test)]
mod founding_tests;

pub use self::core::{Gossip, GossipOptions, Heard};
pub use addresses::{AddressRule, Addresses};
pub use directory::{Directory, KnownNode};
pub use document::Document;
pub use exchange::{EXCHANGE_FORMAT, EXCHANGE_MAX_BYTES, Exchange, ExchangeError, Relayed};
pub use founding::{Founding, Standing, Step};
pub use member::{EpochReport, Member, MemberState, Report};
pub use peer_routes::{PeerRoute, PeerRoutes};
