//! How the server is built: the bird's-eye view, the code map, the invariants, and where to look for what.
//!
//! # What it is, and what it promises
//!
//! An event store for Linux clusters. A cluster is 1, 3, 5 or 7 nodes, each holding the whole log. Clients of
//! EventStoreDB v5 connect unchanged: TCP on 1113, HTTP on 2113, gossip JSON for discovery. Between the nodes, and on a
//! network card of their own where the host has one: replication and forwarded requests on TCP 1112, gossip and
//! elections on HTTP 2112.
//!
//! | promise | how it is kept |
//! | --- | --- |
//! | an acknowledged write is on a majority of disks | the answer leaves after a majority has flushed the record |
//! | one order | one leader in a term writes; every node holds the same bytes at the same log position |
//! | what a reader saw stays | reads and subscriptions see only what is committed; nothing below the commit position is cut |
//! | a lost leader is a hiccup | a vote takes a few messages; a dead process is noticed at once, a silent one by its heartbeats |
//! | a deposed leader rejoins by itself | its uncommitted tail is cut online, without a restart |
//! | no false elections | liveness has its own connection and never waits behind bulk data; pre-vote; check-quorum |
//! | the planes stay apart | clients cannot delay replication: own thread, own ring, own buffers, own ports |
//! | wrong clusters never merge | cluster id and node id are on disk and in every greeting |
//!
//! What it is not: a node for a cluster of EventStoreDB's own nodes. Their election state is not durable, so no promise
//! above would hold. Their clients, yes; their nodes, no.
//!
//! # Threads and the way of the data
//!
//! ```text
//!              external plane                                          internal plane
//!  clients ──1113──▶ edge threads ──requests──▶ log thread ═══════════▶ followers' log threads    1112 control + data
//!          ──2113──▶ (monoio)      ◀──answers── (one io_uring)
//!                      │   ▲                       │ write, flush
//!                      │   └── index + mapped files ◀── chunk files
//!                      └──── forwarded requests ──────────────────────▶ leader's edge threads     1112 forward
//!                                          control thread (monoio)  ◀────────────────────────▶    2112 gossip, elections
//! ```
//!
//! - The **log thread** (`ring-log`) owns everything that must be in order: the tail of the log, the replication links,
//!   the consensus. It is a loop over one raw io_uring: take what arrived, let the deterministic
//!   [`engine`](crate::engine) decide, carry out its actions as submissions, enter the kernel once. It parses no client
//!   protocol and serves no reads. For an append its engine neither takes memory nor frees any (`tests/allocations.rs`
//!   counts): the request brings its own, and goes back with the answer.
//! - **Edge threads** serve clients. Each has its own listeners on 1113 and 2113 (`SO_REUSEPORT`), and on the ports with
//!   TLS where there are any, its own connections and subscriptions. An edge decodes a request, encodes the body of the
//!   record, which is the costly part, and sends it to the log thread over a bounded queue. It answers reads from the [`index`](crate::index) and the chunk files.
//!   It answers a write when its index has applied it, so a client reads its own writes at that node.
//! - The **control thread** has the internal HTTP on 2112: gossip, elections, administration, DNS. It carries what the
//!   log thread decides. A node on its own has that port for `ringstore admin` and `ringstore backup` only, takes no other
//!   node's gossip or votes there, and goes on without it where it is taken; 1112 stays closed. Where the plane has
//!   certificates or a secret nothing of a stranger gets further than the gate in front of its routes.
//! - The **background thread** prepares chunk files ahead of the writer, zero-filled, so that an append is an overwrite
//!   and a flush touches no metadata of the file system. It also watches the free space.
//!
//! Bounded queues everywhere. A full queue is an answer (`NotHandled: TooBusy`), never a hang or growing memory.
//!
//! # The way of a write
//!
//! 1. An edge reads `WriteEvents` where it lies in the receive buffer, checks access and limits, and encodes the events
//!    into the body of one record: the first copy. The memory of the body is a *spare*, left by an earlier write.
//! 2. The edge wakes the log thread once for the writes of all connections that were ready (or after 128 of them): a task
//!    of its own does it, which runs when the tasks before it have. So batches form without a timer.
//! 3. The log thread compares the claim with the stream's head (uncommitted ones included), gives the event numbers and
//!    the log position, and copies the body into the log buffer, where it gets its header and checksum: the second
//!    copy, and the last one of ours. From the log buffer it goes to the disk and to the followers.
//! 4. Disk writes are submitted as soon as there are bytes. At most one flush is in flight; what is written meanwhile is
//!    the next batch.
//! 5. Followers write the bytes from the buffer in which they arrived, flush, and acknowledge a position on the control
//!    link.
//! 6. A position that a majority has flushed, under a record of the leader's own term, is committed. The leader's own
//!    disk counts as one vote like any other. A follower learns of it together with the next data; one that has
//!    acknowledged all that it was sent is told at once.
//! 7. The answer goes back to the edge with the end of the record and with the request itself, whose memory is a spare
//!    again. The edge lets the index apply that far and puts the answer into the connection's send buffer; all that has
//!    gathered there leaves in one send.
//!
//! A write that reaches a follower goes over 1112 to an edge of the leader, and the answer comes back the same way. The
//! follower keeps it until its own index has the write, 200 ms at most: a client reads its own writes there, unless the
//! follower is that far behind.
//!
//! The heads of the streams that a leader wrote last stay at hand on its log thread (65,536 of them, more while the
//! index lacks them), and so do the identifiers of the events that the index has not applied yet, and 8,192 at least.
//! For everything older it asks the index; a filter says of most identifiers that it need not.
//!
//! Where the time goes is in member `stages` of `/stats`: count, mean and quantiles in microseconds since start, and
//! with `?histograms=true` all recorded values as `[nanoseconds, count]`, so that two answers can be subtracted.
//!
//! | stage | from | until | counted |
//! | --- | --- | --- | --- |
//! | `queue` | an edge hands a write over (by its last look at the clock) | the log thread decides on it; waits for room included | each write |
//! | `batchWait` | in the log buffer | the disk write that contains it is submitted | each append |
//! | `write` | a disk write is submitted | the log thread sees it complete | each disk write, on followers, too |
//! | `flush` | a flush is submitted | the log thread sees it complete | each flush, on followers, too |
//! | `replication/<node id>` | bytes are handed to a follower's link | it has acknowledged all of them as durable | each send |
//! | `commit` | in the log buffer | committed | each append |
//! | `answer` | committed | in the send buffer of the client's connection (of the forward link); the index is included | each append |
//!
//! Appends of one turn share one look at the clock, and up to 64 of them count together when the last of them arrives.
//! The cutting of a deposed leader's tail is not counted, and what it had not committed has no `commit`. Values have two
//! significant digits, from 100 ns to 60 s. How to read them: [`measuring`](super::measuring).
//!
//! # The way of a read
//!
//! An edge looks the events' positions up in the index and reads the events in the chunk files, which are mapped into
//! memory. An event is copied once, from there into the answer. Neighbours in a chunk cost one look at the file, events
//! of one record one look at the record. A page ends when it is full (in events or in bytes) or when its time is over; the
//! clock is read once for each 4 KiB of log. The whole log is read without the index: the log is the order.
//!
//! Every record is checked (CRC-32C) where it is used: once for each look at it by a reader, by the index, by the
//! subscriptions of an edge, and before its last byte goes to a follower from a chunk file. Events of one record in one page
//! are one look.
//!
//! A subscription is fed with each new piece of the log that the index has applied, read once for all subscribers of the
//! edge. An event is encoded once for all who see the same of it.
//!
//! # When the disk loses bits
//!
//! What was flushed may rot. Nobody is served a record that does not check out; it is reported, and repaired:
//!
//! | who meets it | what they do |
//! | --- | --- |
//! | a read, a subscription that begins | `NotHandled: NotReady` in a cluster, so that the client asks again; alone, the read's result Error with words |
//! | live subscriptions | wait up to 30 s for the repair, then they are dropped with a message |
//! | a write that must be compared with what is there | `NotHandled: NotReady`: neither answer is known to be true |
//! | the index | stands still there and goes on when it is repaired |
//! | a leader that serves a follower from chunk files | holds that follower back, and reads again each 100 ms |
//! | another node that asks for that piece of the log | is refused with words: damage is never handed on |
//! | the start of a member | asks the other nodes for the range, says every 5 s how it stands, and goes on with the start |
//! | the start of a node that is alone | refuses, and names chunk, position, file offset and what to do |
//!
//! The repairer (`background`) takes the reports, on a thread of its own because it waits for others. It looks once more, asks the other nodes in turn, the leader first, with
//! `GET /log/bytes` on 2112, and passes over those that have not committed so far. What comes must be good records from
//! the range's first byte to its last, of the terms that the node's own epochs ask for; it is written in place, flushed and
//! read back. `/stats` counts ranges found, waiting and repaired in `storage`.
//!
//! Two limits. A node that mends its log before its start serves nobody meanwhile, so of three nodes one must run. And the
//! state file cannot be repaired from elsewhere: where both slots are bad the node's vote is unknown, and it comes back as
//! a new node.
//!
//! Chunk files are mapped for reading. Where the disk gives an error for a page instead of wrong bytes, the system sends
//! SIGBUS: a handler (`ring`) puts a page of zeros there, so that the record's checksum says what is wrong and the way is
//! that of any other damage. After the repair the file is mapped anew. Tables of the index are read with `pread`: an error
//! of the disk is damage to the table.
//!
//! # Inside an edge
//!
//! - **Turns.** What a task does between two waits is a turn: the time and the node's role are looked up once for it.
//!   Figures are counted on the edge and added to the common ones once for many requests.
//! - **Receive buffers** follow what arrives: 1 KiB while a connection is quiet, because that memory waits in a receive
//!   that may last for hours; four times as much each time that a receive fills it, up to 32 KiB; less again after four
//!   small receives in a row. A larger frame takes memory from a budget that the connections of the edge share. A send buffer of
//!   which little was used is given back.
//! - **The sweep** is one timer for all connections and requests: each 50 ms it answers requests whose time is up, and
//!   looks at a quarter of the connections for heartbeats and time limits.
//! - **Progress only when it matters.** When more is readable the log thread has a hint for the edges. An edge where
//!   nobody waits for the index says that it wants none, and follows the log every 10 ms, at once when more than 1 MiB is
//!   missing, and then as far as the log was readable. Reads and new subscriptions that find it behind bring it up to date
//!   themselves. A node that leads soon is told at once: it takes no write before its index has all that it inherited,
//!   and before its edges have listed the recent events.
//!
//! # The index
//!
//! Streams lie in 256 tables by name, each with its own lock; one stream takes one cache line, its name and its list of
//! positions. One thread at a time applies the log, any edge. It gathers up to 16 appends (or some 1,024 events) and looks
//! up all their streams before it changes the first: what must be fetched from memory is then fetched at the same time.
//! Other threads learn how far it is every 32 KiB of log, and at the end.
//!
//! Every node keeps the identifiers of the last 262,144 events at least, in a ring. They are listed in a hash table only
//! on a node that is asked for them, which is a leader.
//!
//! That is the newest part of the index. When it has 1,048,576 events (or 96 MiB, or comes from 256 MiB of log), the
//! background thread lets a new part begin and writes the old one to a table below `index/`; tables of like size that lie
//! side by side are merged. A start opens the tables, of which it reads footers, filters and places, and applies the log
//! from where they end. Every page of a table is checked whenever it is read, and all of them are read round and round at
//! 8 MiB/s. A damaged table is dropped and its piece of the log is indexed again; so is everything when the folder is
//! removed. What needs a part that is missing is answered `NotHandled: NotReady` until then. Parts between which the numbers
//! of a stream do not go on, although every page checks out, are treated like damaged ones, with all that lie between them;
//! `/stats` counts that in `misfits`.
//!
//! ```text
//!   positions ▶ 0 ─────────────── tables ───────────────▶ covered ── complete ──▶ ── newest ──▶ applied
//! ```
//!
//! Questions go from the newest part to the oldest until the answer is certain. A counter that is odd while parts change
//! places makes a reader look again. An entry of the newest part learns what the older ones know of its stream when it is
//! first asked for that, so that hot streams are answered from one cache line.
//!
//! # The log
//!
//! A sequence of bytes addressed by **log position**. A **record** is the unit of everything: appended whole,
//! replicated whole, truncated whole, never across a chunk's end. One client write is one record, so it is atomic by
//! construction. An event's commit position is the position of the record, its prepare position that of its entry in
//! the record: unique, ordered, and enough to find it with one read. [`log_format`](super::log_format) has the bytes
//! and the recovery.
//!
//! A failed flush is final: the log is poisoned and the process ends with a status of its own. Below a reserve of free
//! space the node takes no writes and says so; reads go on, and so do writes when there is room again.
//!
//! # Consensus
//!
//! Raft (Ongaro's thesis) with the log position in the place of the index and a term in each record, sans-IO:
//! [`consensus`](crate::consensus).
//!
//! - Up-to-date is (term of the last record, end of the log), compared in that order. `NodePriority` shortens a
//!   candidate's patience and steers leadership transfer; it never overrides up-to-dateness.
//! - Pre-vote (9.6), check-quorum, leader stickiness, leadership transfer (3.10), commit of the own term only (5.4.2).
//! - Where logs part: the follower sends its epoch table; the leader answers with the end of the last epoch that both
//!   have; the follower cuts there.
//! - Term and vote are durable before they are answered.
//! - Reads with `require_master` are answered after a round of heartbeats that began after the request arrived.
//!
//! **Elections travel by HTTP** on 2112, carried by the control thread. **Liveness and replication travel by TCP** on
//! 1112.
//!
//! **Gossip** informs: who is there, at which addresses, in which state, how far. It finds peers and tells clients
//! where the leader is. It never decides: no vote and no truncation rests on it.
//!
//! **Founding.** A node has a random id, made once and kept in its data directory. A cluster is founded when
//! `ClusterSize` empty nodes that found each other by gossip have *all* made the same member list durable; so two lists
//! cannot both be founded over one node. From then on only the list votes. A node beyond the list is a *clone*: it
//! copies the log and counts for nothing. A member that lost its disk comes back under a new id, so as a clone.
//!
//! **Changing the list** (thesis ch. 4): the leader appends a record with the new list, one member more or less. The list
//! is in force on each node from the moment that its record is in the node's log, committed or not; a cut brings the one
//! before back, which the record names, too. A change begins only when the one before is committed and the leader has
//! committed something in its own term, and only when a majority of the new list is connected and up to date. A member is
//! replaced by adding the new one first: the cluster has an even size for a while. A leader that leaves commits the list
//! without counting itself, asks a successor and becomes a clone. The state file and gossip follow what is committed.
//!
//! **Handing over.** A leader hands over when it is asked to, when a caught-up member has a higher `NodePriority`, and when
//! its flushes take more than eight times and 50 ms longer than those of its followers, who tell it with each answer to a
//! heartbeat. The latter two after five seconds of it (a flush that does not end: at once, when it has taken longer than an
//! election), once a minute, and never while the list changes. A leader that can make no new chunk, most likely because
//! its disk is full, hands over at once when a majority has room without it. Nobody hands over to a node that would hand
//! back, or to a full one.
//!
//! **Full disks.** A follower that can make no new chunk tells the leader how far it can write the log. Writes beyond the
//! room of a majority are refused with words at once; reads go on, what was taken is committed, and all comes back by itself
//! when there is room. A full member goes on acknowledging what its chunks take; the rest waits on the link.
//!
//! **Suspect nodes.** A node whose disk lost what had been flushed may lack what it has acknowledged. Its vote counts only
//! if all members give theirs, until it has everything again: the argument is in `consensus/election.rs`.
//!
//! # The replication link
//!
//! A follower opens two connections to its leader's port 1112; an edge that forwards opens a third kind. The first
//! frame names the purpose, cluster, node and term. See [`wire`](super::wire).
//!
//! - *control*: subscribe, acknowledgements, commit position, heartbeats. Small, so never late.
//! - *data*: the log itself, byte for byte, from the agreed position on, and nothing else. The receiver knows the
//!   position of every byte by counting, and what arrives in a buffer goes to disk from that buffer.
//! - *forward*: ordinary client frames.
//!
//! The leader sends from the log buffer; a follower that is further behind is served from the chunk files, within its
//! window, without slowing the others. Zero-copy sends are kept only while the kernel reports that it did not copy. A
//! subscription lives in one term: a node that moves to a higher term drops its links, and what they had delivered but
//! not yet applied, before it answers anything.
//!
//! Facts about io_uring, measured on kernel 6.18 over loopback, that the code builds on:
//!
//! | fact | what follows |
//! | --- | --- |
//! | a provided buffer ring with incremental consumption and multishot receive gives 256 KiB a completion under load | no tuning of the receiver |
//! | without incremental consumption a message of 100 bytes uses up a whole buffer | it is used wherever the kernel has it (6.12) |
//! | an empty buffer ring ends a multishot receive with ENOBUFS | re-armed when a buffer has come back, never on a timer |
//! | zero-copy sends over loopback and veth are always copied, and 10 to 70 % slower | proven by the usage report, not assumed |
//! | two sends in flight on one socket may be reordered | one send at a time on a socket, as large as possible |
//! | a short write breaks a linked write and flush, and may land after the flush | the flush is submitted when the write is complete |
//! | DEFER_TASKRUN completes only inside enter | every slice of work is bounded |
//! | a dropped read of an async runtime loses bytes, a dropped accept leaks a socket | buffers and sockets belong to the connection |
//!
//! # Code map
//!
//! The number is the level. A module names modules of lower levels and itself; `tests/tidy.rs` says where it does not.
//!
//! | level | module | what it is for |
//! | --- | --- | --- |
//! | 0 | `types`, `limits` | positions, numbers, identifiers; every bound in one place |
//! | 0 | `codec` | bytes and values: records (`record`), the v5 client wire (`client`), the link between nodes (`link`) |
//! | 1 | `consensus`, `gossip` | sans-IO: elections, replication, truncation; membership, liveness, founding |
//! | 1 | `ring` | the raw io_uring driver, provided buffers, mapped memory; the only home of unsafe code |
//! | 1 | `queue` | bounded queues between threads, with an eventfd to wake |
//! | 2 | `storage` | chunk files, durable state, recovery, preparation, reading; over a `Disk` of five methods |
//! | 2 | `index` | stream and event number to log position: the newest part in memory, the rest in tables; rebuilt from the log |
//! | 2 | `http` | a small HTTP/1.1 reader and writer; knows no routes |
//! | 2 | `security` | who may speak on the internal plane: certificates, TLS without I/O, proofs of the cluster's secret |
//! | 3 | `engine` | the log thread's brain: consensus, log writer and stream heads in one deterministic machine |
//! | 4 | `transport` | the log thread's body: the engine over a real ring |
//! | 4 | `api` | edges: connections, requests, reads, subscriptions |
//! | 4 | `admin` | the control thread: HTTP on 2112, gossip rounds, DNS |
//! | 4 | `config` | flags, environment, YAML; checked once, trusted afterwards |
//! | 4 | `sim` | the virtual world: clock, network, disk, workload, checkers |
//! | 5 | `node` | wiring: threads, queues, start-up order, shutdown |
//! | 6 | `main`, `bin` | the server's `main`; the simulator's; the load generator |
//!
//! # Invariants
//!
//! - Commit position ≤ writer checkpoint ≤ end of the log; the commit position only grows.
//! - A writer checkpoint moves back only through truncation, and never below the commit position.
//! - At most one leader in a term; terms in the log never descend.
//! - A byte at a log position is the same on every node that has it committed.
//! - A stream's next event number is its last plus one.
//! - Nothing in `consensus`, `gossip`, `engine` or `sim` reads a clock, a file or a socket, or draws its own
//!   randomness.
//! - No table, queue or buffer grows without a bound; no wait is without an end.
//! - v5's words (master, slave) are on the client wire and in gossip's JSON, and go no further in.
//!
//! # Where do I look?
//!
//! | question | place |
//! | --- | --- |
//! | what does this option do | [`options`](super::options), `src/config/table/` |
//! | why was my write refused | `src/api/writes.rs`; the claim itself: `src/engine/heads.rs` |
//! | when is a position committed | `src/consensus/leading.rs` |
//! | why was there an election | `src/consensus/election.rs`, and the node's log |
//! | why did the node not start | `src/storage/recovery.rs`, `src/ring/probe.rs`; the message says the next step |
//! | what is in this file | [`log_format`](super::log_format) |
//! | what do these bytes on 1112 mean | [`wire`](super::wire) |
//! | when a service manager takes the node for started | `src/node/service.rs` |
//! | why io_uring is refused, in words | `src/ring/error.rs` |
//! | what happens to a flipped bit | `src/background/repairer.rs`, `src/storage/repair.rs`, `src/node/mend.rs` |
//! | who may read this stream | `src/api/access.rs` |
//! | where does the time of a write go | `stages` above; `src/engine/stopwatch.rs` takes them |
//! | how fast is it, and how do I compare | [`measuring`](super::measuring) |
//! | how is a failure replayed | `cargo sim --seed N`; every failing run prints its seed |
//! | what is tested how | `tests/`: each program's header says its goal and method |
