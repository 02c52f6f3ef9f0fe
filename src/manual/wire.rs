//! What goes over the network.
//!
//! | port | plane | protocol | who speaks |
//! | --- | --- | --- | --- |
//! | 1113 | external | v5 client frames | clients |
//! | 2113 | external | HTTP: `/gossip`, `/ping`, `/info`, `/stats` | clients, operators |
//! | 1112 | internal | greeting, then control frames, log bytes or client frames | other nodes |
//! | 2112 | internal | HTTP: gossip, elections, `/admin/resign` | other nodes, operators |
//!
//! All integers on 1112 and 1113 are little-endian. A frame is `u32 length` and that many bytes: `u8 command`, `u8
//! flags`, 16 bytes of correlation identifier, with flag 1 login and password, then the payload.
//!
//! # Clients (1113)
//!
//! Exactly v5's: [`codec::client`](crate::codec::client) has frames, commands and messages, and tests that hold them to
//! recorded exchanges. `Master` and `Slave` are spoken here and in gossip's JSON only.
//!
//! # Between the nodes (1112)
//!
//! Bytes and bounds: [`codec::link`](crate::codec::link), where the layout of every frame stands beside its code.
//!
//! | connection | opened by | after the greeting |
//! | --- | --- | --- |
//! | control | a follower, to its leader | frames as the clients', in both directions |
//! | data | a follower, to its leader | from the leader: the bytes of the log from the agreed position on, nothing else |
//! | forward | an edge of a follower | client frames, served by an edge of the leader |
//!
//! The first bytes on each are a [`Hello`](crate::codec::link::Hello): purpose, cluster, node, term, and for a data
//! link the subscription and the position. Control and data links are answered with a
//! [`Welcome`](crate::codec::link::Welcome), or with the reason of a refusal, which both sides log.
//!
//! # Between the nodes (2112)
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /gossip` | none | the node's view, in v5's shape |
//! | `POST /gossip` | the sender's view | the receiver's view after merging |
//! | `POST /elections/pre-vote`, `/elections/vote` | [`VoteRequest`](crate::consensus::VoteRequest) | [`VoteResponse`](crate::consensus::VoteResponse) |
//! | `POST /elections/transfer` | [`TransferRequest`](crate::consensus::TransferRequest) | done, or why not |
//! | `POST /admin/resign` | none | done, or why not |
