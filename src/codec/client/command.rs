//! The first byte of a package: what is asked or answered.

macro_rules! commands {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        /// What a package is for. The names are those of v5, which puts them into its refusals.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command {
            $(#[doc = $doc] $name = $code,)*
        }

        impl Command {
            /// The command with this code, if there is one.
            #[must_use]
            pub fn from_byte(byte: u8) -> Option<Command> {
                match byte {
                    $($code => Some(Command::$name),)*
                    _ => None,
                }
            }

            /// Its name on the wire.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Command::$name => stringify!($name),)*
                }
            }
        }
    };
}

commands! {
    HeartbeatRequestCommand = 0x01, "Are you alive? Either side may ask.";
    HeartbeatResponseCommand = 0x02, "Answer to a heartbeat request.";
    Ping = 0x03, "Asks for the same bytes back.";
    Pong = 0x04, "Answer to a ping.";
    PrepareAck = 0x05, "Between v5 nodes only; known by name.";
    CommitAck = 0x06, "Between v5 nodes only; known by name.";
    SlaveAssignment = 0x07, "Between v5 nodes only; known by name.";
    CloneAssignment = 0x08, "Between v5 nodes only; known by name.";
    SubscribeReplica = 0x10, "Between v5 nodes only; known by name.";
    ReplicaLogPositionAck = 0x11, "Between v5 nodes only; known by name.";
    CreateChunk = 0x12, "Between v5 nodes only; known by name.";
    RawChunkBulk = 0x13, "Between v5 nodes only; known by name.";
    DataChunkBulk = 0x14, "Between v5 nodes only; known by name.";
    ReplicaSubscriptionRetry = 0x15, "Between v5 nodes only; known by name.";
    ReplicaSubscribed = 0x16, "Between v5 nodes only; known by name.";
    WriteEvents = 0x82, "Append events to a stream.";
    WriteEventsCompleted = 0x83, "Answer to an append.";
    TransactionStart = 0x84, "Begin an explicit transaction.";
    TransactionStartCompleted = 0x85, "Answer with the transaction's identifier.";
    TransactionWrite = 0x86, "Add events to a transaction.";
    TransactionWriteCompleted = 0x87, "Answer to a transaction's write.";
    TransactionCommit = 0x88, "Make a transaction's events visible.";
    TransactionCommitCompleted = 0x89, "Answer to a transaction's commit.";
    DeleteStream = 0x8A, "Delete a stream, softly or for good.";
    DeleteStreamCompleted = 0x8B, "Answer to a delete.";
    ReadEvent = 0xB0, "Read one event of a stream.";
    ReadEventCompleted = 0xB1, "The event, or why not.";
    ReadStreamEventsForward = 0xB2, "Read a page of a stream, ascending.";
    ReadStreamEventsForwardCompleted = 0xB3, "The page, or why not.";
    ReadStreamEventsBackward = 0xB4, "Read a page of a stream, descending.";
    ReadStreamEventsBackwardCompleted = 0xB5, "The page, or why not.";
    ReadAllEventsForward = 0xB6, "Read a page of the whole log, ascending.";
    ReadAllEventsForwardCompleted = 0xB7, "The page, or why not.";
    ReadAllEventsBackward = 0xB8, "Read a page of the whole log, descending.";
    ReadAllEventsBackwardCompleted = 0xB9, "The page, or why not.";
    SubscribeToStream = 0xC0, "Push me new events of a stream, or of all.";
    SubscriptionConfirmation = 0xC1, "The subscription is live.";
    StreamEventAppeared = 0xC2, "A pushed event.";
    UnsubscribeFromStream = 0xC3, "Ends a subscription of either kind.";
    SubscriptionDropped = 0xC4, "A subscription has ended, or was refused.";
    ConnectToPersistentSubscription = 0xC5, "Become a consumer of a group.";
    PersistentSubscriptionConfirmation = 0xC6, "The consumer is connected.";
    PersistentSubscriptionStreamEventAppeared = 0xC7, "An event handed to a consumer.";
    CreatePersistentSubscription = 0xC8, "Create a group.";
    CreatePersistentSubscriptionCompleted = 0xC9, "Answer to a create.";
    DeletePersistentSubscription = 0xCA, "Delete a group.";
    DeletePersistentSubscriptionCompleted = 0xCB, "Answer to a delete.";
    PersistentSubscriptionAckEvents = 0xCC, "A consumer is done with events.";
    PersistentSubscriptionNakEvents = 0xCD, "A consumer could not handle events.";
    UpdatePersistentSubscription = 0xCE, "Change a group's settings.";
    UpdatePersistentSubscriptionCompleted = 0xCF, "Answer to an update.";
    ScavengeDatabase = 0xD0, "Start a scavenge on this node.";
    ScavengeDatabaseResponse = 0xD1, "Answer to a scavenge.";
    BadRequest = 0xF0, "The package could not be understood; text.";
    NotHandled = 0xF1, "Not here, or not now.";
    Authenticate = 0xF2, "Check the package's credentials and keep them for the connection.";
    Authenticated = 0xF3, "The credentials are good.";
    NotAuthenticated = 0xF4, "The credentials are not good; text.";
    IdentifyClient = 0xF5, "The client's protocol level and name.";
    ClientIdentified = 0xF6, "Answer to an identification.";
}

impl Command {
    /// What refusals call the command with this code: its name, or its decimal number when it has none.
    #[must_use]
    pub fn describe(byte: u8) -> String {
        Command::from_byte(byte).map_or_else(|| byte.to_string(), |command| command.name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Command::describe(0x82), "WriteEvents");
        assert_eq!(Command::describe(0x10), "SubscribeReplica");
        assert_eq!(Command::describe(0x7F), "127");
        for byte in 0..=255 {
            assert!(Command::from_byte(byte).is_none_or(|command| command as u8 == byte), "{byte}");
        }
    }
}
