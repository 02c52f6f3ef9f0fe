//! The words of the log as types: positions, numbers, identifiers, time.
//!
//! Everything here is a plain value. **Invariant:** nothing in this module reads a clock, a file or a socket.

mod event;
mod identity;
mod network;
mod position;
mod time;
mod wall_time;

pub use event::{EventNumber, ExpectedVersion, METASTREAM_PREFIX, base_stream, is_system_stream, metastream_of};
pub use identity::{ClusterId, EventId, Guid, NodeId};
pub use network::{Network, NetworkError};
pub use position::{Epoch, LogPosition, Term};
pub use time::Ticks;
pub use wall_time::WallTime;
