//! The protobuf payloads, with the field numbers of v5.
//!
//! Proto2 in v5's dialect: required fields are always written, optional ones when they hold a value; missing required
//! fields are tolerated on receipt and read as zero, so that proto3 clients work. Which optional fields an answer must
//! hold is the business of [`response`](crate::codec::client::response). Data fields are [`Bytes`](bytes::Bytes) and share the receive buffer.

mod node;
mod read;
mod subscription;
mod write;

pub use node::{IdentifyClient, MasterInfo, NotHandled, NotHandledReason, ScavengeDatabaseResponse, ScavengeResult};
pub use read::{
    EventRecord, ReadAllEvents, ReadAllEventsCompleted, ReadAllResult, ReadEvent, ReadEventCompleted, ReadEventResult,
    ReadStreamEvents, ReadStreamEventsCompleted, ReadStreamResult, ResolvedEvent, ResolvedIndexedEvent,
};
pub use subscription::{
    ConnectToPersistentSubscription, CreatePersistentSubscription, CreatePersistentSubscriptionCompleted,
    CreatePersistentSubscriptionResult, DeletePersistentSubscription, DeletePersistentSubscriptionCompleted,
    DeletePersistentSubscriptionResult, NakAction, PersistentSubscriptionAckEvents, PersistentSubscriptionConfirmation,
    PersistentSubscriptionNakEvents, PersistentSubscriptionStreamEventAppeared, StreamEventAppeared, SubscribeToStream,
    SubscriptionConfirmation, SubscriptionDropReason, SubscriptionDropped, UpdatePersistentSubscription,
    UpdatePersistentSubscriptionCompleted, UpdatePersistentSubscriptionResult,
};
pub use write::{
    DeleteStream, DeleteStreamCompleted, NewEvent, OperationResult, TransactionCommit, TransactionCommitCompleted,
    TransactionStart, TransactionStartCompleted, TransactionWrite, TransactionWriteCompleted, WriteEvents,
    WriteEventsCompleted,
};
