//! What goes over the network.
//!
//! | port | plane | protocol | who speaks |
//! | --- | --- | --- | --- |
//! | 1113 | external | v5 client frames | clients |
//! | 2113 | external | HTTP: `/gossip`, `/ping`, `/info`, `/stats` | clients, operators |
//! | `ExtSecureTcpPort` | external | the same as on 1113, inside TLS | clients |
//! | `ExtSecureHttpPort` | external | the same as on 2113, inside TLS | clients, operators |
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
//! # Clients with TLS
//!
//! On ports of their own, TLS 1.2 or 1.3, with a certificate of the server only; sessions may be resumed. The handshake must be
//! complete after 10 s. Inside of it the bytes are as without it, and the end is said with `close_notify`. Whoever does not
//! speak TLS there is answered in the plain protocol of the port, a `BadRequest` or a status 400, and closed. The port is
//! told as `externalSecureTcpPort` in gossip (0: none) and in `MasterInfo` of `NotHandled`. Between the nodes it travels as
//! `addresses.extSecureTcp` of a member, which is left out where there is none.
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
//! | `POST /elections/pre-vote`, `/elections/vote` | [`VoteRequest`](crate::consensus::VoteRequest) in [`Versioned`](crate::consensus::Versioned) | [`VoteResponse`](crate::consensus::VoteResponse) |
//! | `POST /elections/transfer` | [`TransferRequest`](crate::consensus::TransferRequest) | done, or why not |
//! | `POST /admin/resign` | none | done, or why not |
//!
//! Where the plane is closed nobody gets an answer to any of these before a proof, or without a certificate.
//!
//! # Proof of membership
//!
//! What [`security`](crate::security) decides, and what goes over the wire for it. A node with certificates speaks TLS 1.3
//! only, on 1112 and 2112, and demands a certificate of the other side: signed by its authority, and valid for
//! `SslTargetHost` when that is set, else for the address that the peer was dialled at or connects from. Nothing is resumed.
//! Inside of TLS the bytes are as without it.
//!
//! A node with a secret demands proofs: HMAC-SHA256 with the secret (the file without white space around it) as the key.
//! With both, the proofs are inside of TLS. Integers are little-endian.
//!
//! ```text
//! 1112   dialler   hello (96), with flag 1   nonce of the dialler (32)
//!        answerer  nonce of the answerer (32)   proof of the answerer (32), or a refusal in their place
//!        dialler   proof of the dialler (32), or the end of the connection when the answerer has proven nothing
//!        then as without: the welcome, or the reason of a refusal; on a forward link nothing, or a BadRequest
//!
//! what is proven:
//!   0 "ringstore link 1"   16 u8 role: 1 answerer, 2 dialler   17 … zero
//!  24 cluster id           40 nonce of the dialler             72 nonce of the answerer
//! 104 u64 bytes of hello  112 hello
//! ```
//!
//! Byte 11 of the hello has the flags, zero where there is no secret. A node refuses a hello that lacks the flag which it
//! demands itself, and one that has it when the node has no secret; it looks at cluster, node and chunk size before the nonce,
//! and does nothing else for the other side before the proof. A nonce of an answerer never begins with `RSNO`. All of the
//! greeting, with the handshake of TLS, has five seconds. A node that demands TLS answers a plain one in plain words, with the
//! refusal or, to anybody else, with a BadRequest; one that is plain answers a TLS handshake with a plain refusal.
//!
//! On 2112 each connection begins with `GET /challenge?nonce=<64 hex>`, answered by
//! `{"nonce": "<64 hex>", "proof": "<64 hex>"}`. Then each request and each answer carries `Ring-Proof: <64 hex>`. The
//! counter is 1 for the first request after the challenge and its answer, and is not sent. A request without a valid proof is
//! answered 401 with words, and the connection ends; there is one challenge on a connection. `GET` and `HEAD` of `/ping` and
//! `/health/live` without a proof are answered without one, and not counted. A `HEAD` request, 204 and 304 have an empty body
//! in what is proven. What speaks plain HTTP where TLS is expected is answered 400 with words, in plain HTTP.
//!
//! Who has proven nothing has few places, by the address that it connects from (IPv6: by /64): 16 of a host and 48 of all
//! on 1112, 16 and 64 on 2112. The place of one that failed stays taken for 1.6 s. Addresses where a node of the cluster lives,
//! or which this node calls, or from which somebody has proven who it is, have places of their own, 64 each and 256 in all. One more is closed. A handshake of TLS has 32 KiB, and four
//! certificates behind the first.
//!
//! ```text
//! what is proven:
//!   0 "ringstore http 1"   16 u8 kind: 1 challenge, 2 request, 3 answer   17 … zero
//!  24 nonce of the caller  56 nonce of the answerer    88 u64 counter (challenge: 0)
//!     request and answer:
//!  96 SHA-256 of the body  128 u64 bytes of body
//!     request: 136 u64 bytes of method   144 u64 bytes of target   152 method, then target (path with query)
//!     answer:  136 u64 status
//! ```
//!
//! Both sides' nonces are fresh for each connection, so what was recorded proves nothing later; the role and the kind are in
//! what is proven, so what is sent back proves nothing either. The secret hides nothing, and does not protect a standing
//! connection against someone who can change its packets, nor two nodes against someone who stands between them and passes
//! on what they say: that is what TLS is for.
//!
//! # Versions and upgrades
//!
//! Four numbers say what a release speaks. A node that meets another one refuses it with both versions and what to do, in the
//! answer and in its own log; it never guesses.
//!
//! | where | number | now | if it does not fit |
//! | --- | --- | --- | --- |
//! | greeting on 1112 | version of the link protocol: greeting, control frames, what a data link carries | 2 | the connection is refused |
//! | elections on 2112 | `ringstoreElections` in requests and answers | 2 | status 400; the vote does not count |
//! | gossip on 2112 | `ringstoreGossip` in exchanges | 1 | status 400; the node is not shown |
//! | files | format version in the chunk's header page and in the state file | see [`log_format`](super::log_format) | the node does not start |
//!
//! **The rule for a rolling upgrade.** A release speaks its own version and understands the one before, in each of these: a
//! node of the release before can then be leader or follower of the new one, and what is sent is in the older of the two.
//! So nodes are upgraded one at a time, from any release to the next and none skipped: first the clones, then the
//! followers, each when the one before it has caught up (`ringstore admin status`), the leader last, after leadership was
//! handed over. A release that writes something into the log that the one before cannot read does so only when every
//! member's greeting has said the new version, and the way back ends there. (Version 1 of the link and of the elections was
//! in no release, so version 2 is the oldest that is understood.)
//!
//! How the internal plane is closed is no version, and there is no mixed mode: nodes that differ in it refuse each other, so it
//! changes with all nodes stopped. Nor does a node start with an open plane beyond loopback, as earlier releases did, unless
//! `UnsafeOpenInternalPlane` says so: the changelog has the steps of that upgrade.
