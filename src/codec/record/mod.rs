//! The records of the log, byte by byte. The layout is in the manual under "log format"; golden tests hold it.
//!
//! A [`Header`] starts every record. [`RecordView`] is a record that was checked; [`BatchView`] reads the body of the
//! kinds that carry events; [`BatchBuilder`] writes such a body, and [`seal`] finishes a record where it will stay.

mod batch;
mod control;
mod header;

pub use batch::{BatchBuilder, BatchView, EVENT_HEADER_BYTES, EventView, Events};
pub use control::{EpochBody, MemberRecord, MembershipBody, MembershipRecord};
pub use header::{Header, RecordError, RecordKind, RecordView, padding, seal, sealed_length};
