//! What was decided, when, and why: the context, the choice, what was turned down, what would change our mind.
//!
//! New ones go on top. A decision that no longer holds stays, with a line that says which one replaced it.
//!
//! # 2026-11-22: The internal plane asks for certificates, or a secret, or both
//!
//! *Context.* Whoever reaches the internal ports could copy the log and vote. *Choice.* Mutual TLS 1.3 with rustls over ring,
//! driven without I/O by whichever ring has the connection; a peer's certificate must be valid for the peer itself (its address,
//! or `SslTargetHost`), on both sides, so that one node's stolen certificate is of use only at that node's address; nothing is
//! resumed, so each connection is checked in full. Where TLS is off: proofs with a shared secret and fresh nonces, of the
//! greeting on 1112, and of each request and answer on 2112. *Turned down.* aws-lc: a C library and its build for algorithms
//! that we do not need. OpenSSL: not ours to update. A default provider for the process: a library that sets one decides
//! for others. Tickets: they skip the check. Timestamps in signed requests: clocks differ. A secret in a header: it is
//! overheard once and for all. Encrypting with keys made of the secret: that is TLS, made by us. *The price:* the secret
//! does not protect against someone in the path, there are no revocation lists, and a renewed authority must be in
//! `CertificateAuthorityFile` of all nodes beside the old one before certificates are. *Would change our mind:* operators
//! who need revocation.
//!
//! # 2026-11-22: Leadership goes only to whom can take writes
//!
//! *Context.* A node whose index is being made again must answer writes to streams that it does not know "not ready". A leader
//! handed over to such a node for its priority, and took no writes itself while it waited for one that had declined. *Choice.*
//! The answer to a heartbeat says whether the index is complete, as a flag of link version 2, which is in no release yet; other
//! flags are not looked at, so that a later release may have more. Leaders hand over to ready nodes only (when they must
//! go, to one that is not ready rather than to nobody; and to whom the operator names); a leader that is not ready hands over
//! to one that is, at once; nodes that are not ready stand for election late. A follower that declines ends the hand-over, and
//! is not asked again for some seconds, unless there is no other. *Turned down.* Telling by gossip: it is a second old. A follower that is not ready
//! declining: one that must go would leave an election behind. *The price:* a node of high priority leads later after its
//! index was lost. *Would change our mind:* an index that is made again in less than an election takes.
//!
//! # 2026-11-22: A leader goes past the term of a node that was removed
//!
//! *Context.* A member may stand for election, in a term of its own, before it hears that another leads, and be removed before
//! the leader hears of that term. Who is no member deposes nobody; so it was refused, and copied nothing, until the next
//! election, which may be years away; and a node that does not copy the log cannot be added again. *Choice.* The leader stands
//! itself, in the next term after that one, when it has committed in its own, hears a majority, and no change or hand-over is
//! under way. Its followers vote for it as for a successor. *Turned down.* Copying to a node of a higher term: its
//! acknowledgements would count once it is added, although it has voted in a term that this leader does not know. Being
//! deposed: the pause of an election. *The price:* such a node costs a moment without a leader, once. *Would change our mind:*
//! nodes that come back in higher terms again and again.
//!
//! # 2026-11-22: A vote of suspects needs all of both lists
//!
//! *Context.* Suspect voters elect only together with all members; while the last list is not committed it was not said of which
//! list. *Choice.* Of both. Whom the last list leaves out may be the only one that still has what a later leader committed by
//! the list before; it is asked once there is a suspect vote, and its vote counts for nothing else. *The price:* after a removal
//! that a candidate does not know to be committed, and with so many suspect that no sound majority is left, the removed
//! node must vote too, or the operator trusts a log. *Would change our mind:* a commit position that is always durable.
//!
//! # 2026-11-22: A full disk costs its node, and the cluster only when no majority has room
//!
//! *Context.* A leader with a full disk refused all writes although both followers had room; followers with full disks said
//! nothing, and writes waited for them until clients gave up. *Choice.* With each heartbeat's answer a follower that can
//! make no new chunk says how far those that it has reach. The leader hands over as soon as it can make none itself, a
//! chunk before it would have to refuse, when a majority has room without it; and it refuses with words what would go
//! beyond the room of a majority. Nobody hands over to a full node, and it stands for election late. The last 64 KiB of
//! room are for the records that begin terms and change the member list, so that a full cluster can still elect somebody
//! who takes reads. Members that are silent count as full while another one is: with them nothing gets committed either.
//! *Turned down.* A plain "full": writes would be refused with up to two chunks of room left, or wait when these are used
//! up. Stepping down without a successor: an election among nodes of which some may be full, and a pause. Handing over
//! when no majority has room: nothing is gained, and the record of the new term takes room. *The price:* leadership moves
//! once when the leader's disk is full, and back to a higher priority when it has room. *Would change our mind:* disks that
//! are full and not full in turns by the second.
//!
//! # 2026-11-22: The index in tables, read with pread, names in full
//!
//! *Context.* An index in memory makes a start as long as the log and memory as large as the number of events. *Choice.* The
//! newest part in memory (1,048,576 events, 96 MiB or 256 MiB of log, whichever is first), the rest in immutable tables that
//! are merged in steps of 2 MiB. Tables have the names of their streams in full: the hash finds, the name decides, so that
//! no accident and no attacker makes two streams one. (The plan was "a hash is only a hint, the record decides": that reads
//! the log for each head, on the thread that writes it.) Recent events are told apart by their position for the same
//! reason. Pages are read with `pread` into the reader's memory and checked each time. *Turned down.* Mapping the files:
//! what was checked can be read again from the disk behind our back, a bad sector is a signal that ends the process, and
//! mapped pages count as the node's memory. The price of a call and a checksum is a microsecond. *Accepted.* A stream that
//! the newest part does not know costs a look at a filter for each table, and a page or two of the tables whose filter says
//! "perhaps"; where that page is not in memory, a read from the disk, also on the log thread. It keeps the heads of 65,536
//! streams, and asks once for each. After a part was completed, the first question about a stream in the new one goes to
//! the older parts, and the answer is kept. *Would change our mind:* leaders that write to millions of old streams in turn
//! on slow disks; then the head would be looked up on the edge before.
//!
//! # 2026-11-22: A damaged table is dropped, and its piece of the log indexed again
//!
//! *Context.* Files of the index rot like others. *Choice.* Whoever meets a page that does not check out drops the whole
//! table; the background thread indexes its piece of the log again, with the checksum of each record. Meanwhile what needs
//! that piece is answered "not ready". After a start that is far behind the log (no manifest, or a table missing that has
//! recent identifiers) no stream is known until the log was applied; the whole log can be read nevertheless, from the
//! beginning of a chunk where no better place is known, and such a leader takes no writes. *Turned down.* Mending single
//! pages: the table is made as quickly. Answering from what is left: a head could be wrong. *Would change our mind:* tables
//! so large that rebuilding one takes hours; then they would be cut.
//!
//! # 2026-11-22: A record of a member list names the list before, too
//!
//! *Context.* A list counts from its append, so when its record is cut the one before must be in force again; and recovery,
//! which believes footers, knows the last list only. *Choice.* The record carries both, at most 528 bytes. Two are enough: a
//! leader begins a change only when the one before is committed, so at most the last list in any log is uncommitted, and
//! what is committed is never cut. *Turned down.* Reading the log back to the record before: a second kind of recovery in a
//! running node. The list in the state file: it follows commits, so it would have to be durable before the next record
//! may be received. *Would change our mind:* changes of several members at once (joint consensus), which nobody has missed.
//!
//! # 2026-11-22: Suspect nodes may stand, and all votes together elect
//!
//! *Context.* A node that knows that its disk lost something must not help one to lead who lacks what is committed. *Choice.*
//! Votes of sound nodes must make a majority, or else all members must vote. A suspect node may stand, later than others:
//! after a power cut that all disks lie about, only one of them can lead, and unanimity picks the one that has most.
//! *Turned down.* Suspect nodes that never stand: then such a cluster needs an operator although nothing may be lost. A
//! suspect node counted as lost (a new id, a copy of the whole log): safe, but a power cut would take a majority away. *The
//! price:* with a minority suspect and another node gone there may be no leader until that is back. *Would change our mind:* disks
//! that never lie.
//!
//! # 2026-11-22: A leader judges its disk against its followers'
//!
//! *Context.* A leader with a slow disk slows everyone's reads of its own log and holds up what it alone must write; one whose
//! flush hangs leads on, because heartbeats need no disk. *Choice.* Followers tell how long their flushes take; eight
//! times their median and 50 ms more, for five seconds, and the leader hands over. A hanging flush counts with its age.
//! Equally slow disks have no such factor between them, so nothing moves. Commits go on meanwhile: the leader's own
//! disk is one vote like any other. *Turned down.* An absolute limit: a cluster on slow disks would hand leadership around.
//! Stepping down without a successor: with no follower at hand that is worse. *Would change our mind:* a field report of a
//! leader that should have gone and did not.
//!
//! # 2026-11-22: Every record is checked when it is read
//!
//! *Context.* Records were checked when they were appended or received, and when the node started; a bit that rotted later
//! was served. *Choice.* The checksum is computed at each use: once for a record in a page, once for the subscribers of an
//! edge, once by the index, once on the way to a follower from a chunk file. What each page asks for, the end of the last
//! record, is remembered. *Measured* with `reads`, old and new in turn, three rounds, medians, raw output in
//! `benches/results/reads-checked.txt`; the answers are the same byte for byte. The machine was busy, so differences of ten
//! percent show nothing.
//!
//! | events a second of one core, new to old | records of 500 events | of one event | of one event, 100 streams |
//! | --- | --- | --- | --- |
//! | stream forward | 0.81 | 0.71 | 0.78 |
//! | stream backward | 0.95 | 0.78 | 0.71 |
//! | all forward | 0.69 | 0.68 | 0.70 |
//! | all backward | 0.88 | 0.97 | 1.00 |
//! | pushed to 1 | 0.76 | 0.71 | 0.70 |
//! | pushed to 10 | 0.80 | 0.83 | 0.80 |
//!
//! That is 2 to 27 µs for a page of 500 events of 256 bytes, whose sending costs many times that. A read of one event out of
//! a large record checks all of it: some 0.1 ms for each MiB. *Turned down.* Checking each chunk once and trusting it then:
//! rot comes later, too. Leaving it to the scrubber: it comes round in days. *Would change our mind:* checksums of the file
//! system or the disk that are known to be there.
//!
//! # 2026-11-22: Damage is answered with NotReady in a cluster, with an error alone
//!
//! *Context.* A record that does not check out must not be served, and the other nodes repair it within a second. *Choice.*
//! `NotHandled: NotReady` where a repair is to be expected: clients of v5 ask again by themselves. The read's own result
//! Error, with words, on a node that is alone: there the same read fails until the operator acts, and repeating it in
//! silence would hide that. Live subscriptions wait, 30 s at most: an event that is left out would never be noticed.
//! *Turned down.* Forwarding the read to another node: the client may have asked for this node's view. Closing the
//! connection: everybody else on it would lose their requests. *Would change our mind:* clients that give NotReady up at
//! once.
//!
//! # 2026-11-22: Repairs come over HTTP, whole records at a time
//!
//! *Context.* A damaged range is to be fetched from a node that need not lead, also by a node that has not started, and a
//! backup needs the same bytes. *Choice.* `GET /log/bytes` on the port for gossip: committed, durable and checked records
//! only (durable ones too for a node that mends its log at start and proves otherwise that they belong there), some MiB an answer, read on a thread of its own so that votes do not wait. *Turned down.* The data link: it
//! belongs to one term and one leader, and begins at a follower's end. *Would change our mind:* repairs so large that the
//! log thread's ring would pay.
//!
//! # 2026-11-22: Buffered writes and fdatasync, one flush in flight
//!
//! *Context.* The disk can be written in several ways; which one gives most is a question for a measurement. *Measured*
//! with `floor --compare`, raw output in `benches/results/floor-write-paths.txt`: medians of five rounds (bulk: four or
//! five), each way as a ratio to a buffered write followed by fdatasync through the ring. The machine was busy with
//! builds: the same way differed by a factor of two between rounds (buffered, 32 in flight: 56,703 to 113,622 records a
//! second), so differences of ten percent show nothing. The bulk column is computed from the raw lines, since that run
//! was cut off before its table. `buffered` did not yet fill the last page of a write with zeros, as it and the server
//! do now.
//!
//! | rate (p50), ratio to buffered | 1 × 256 B | 32 × 256 B | 1,024 × 256 B | 64 × 64 KiB |
//! | --- | --- | --- | --- | --- |
//! | `dsync`: one write with RWF_DSYNC, followers copy first | 1.12 (0.93) | 0.97 (0.90) | 1.10 (0.87) | 1.05 (0.97) |
//! | `gathered`: the same, followers write from where they received | 1.01 (0.85) | 1.11 (0.88) | 1.13 (0.86) | 1.12 (0.89) |
//! | `inline`: the write on the log thread itself, fdatasync through the ring | 1.11 (0.93) | 1.16 (0.88) | 1.20 (0.81) | 1.23 (0.81) |
//! | `buffered+2`: two flushes in flight | 0.99 (0.96) | 1.06 (0.95) | 1.26 (0.78) | 1.04 (0.94) |
//! | `gathered+2` | 0.94 (1.01) | 1.14 (0.93) | 0.99 (1.02) | 1.06 (0.97) |
//! | `direct-sync`: O_DIRECT, then fdatasync | 0.78 (1.17) | 1.06 (0.90) | 1.16 (0.85) | 0.67 (1.27) |
//! | `direct-sync` with one reader through a memory map (2 rounds) | | | 0.56 (1.65) | 0.47 (1.91) |
//!
//! *Choice.* Buffered writes as soon as there are bytes, one flush at a time. *Turned down.* O_DIRECT: edges read
//! through the page cache, and what was written past it must come back from the disk. With one reader the rate was 0.47
//! to 0.56, with 528 and 540 major faults a run against 0 to 2 (bulk: 108 and 109 against 0 or 1). O_DIRECT with
//! RWF_DSYNC (`direct`) had 1.7 to 14 times the p99, likely because of the builds beside it, so it is not judged by
//! these figures. Two flushes: no clear gain but at 1,024 in flight, and the log writer would have to order them.
//! RWF_DSYNC: gathered has 0.85 to 0.89 of the p50 and 0.68 to 0.91 of the CPU a record, but a rate within the noise,
//! and nothing is written ahead while a flush is under way. Inline: the most regular gain, better in 16 of 20 rounds;
//! but a write that the kernel holds up would then hold up heartbeats and acknowledgements. *Would change our mind:*
//! `gathered` or `inline` on a quiet machine with a clear gain; a disk that ends a durable write (FUA) sooner than a
//! flush; readers that do not need the page cache.
//!
//! # 2026-11-22: Client connections stay on monoio
//!
//! *Context.* Edges could use the raw ring that the log thread has. *Choice.* Monoio stays as long as the client hop is
//! not what limits. `echo` measures that hop bare, in turn with every run of the cluster; column echo beside floor in
//! the results of `scripts/bench.sh` has the figures. What an edge spends beyond it is its own work on requests, and a
//! raw ring would not change that. *Turned down, for now.* Edges on the raw ring: accept, cancellation, timers and HTTP
//! would be ours to write. *Would change our mind:* results in which echo and not floor is what limits, or a profile of
//! an edge in which monoio weighs more than the requests.
//!
//! # 2026-11-22: Identifiers at hand are few, behind them a filter and the index
//!
//! *Context.* A write without an exact claim needs to know of each of its events whether it was written lately. Maps of
//! identifiers cost memory for each event and take the processor's cache. *Choice.* The log thread keeps what the index
//! has not applied, and 8,192 at least: a ring in the order of the log, and a table of eight bytes each. Only when a
//! filter of the last 262,144 says "perhaps", or this leader has not written so many yet, is the index asked. The index
//! keeps a ring on every node, and lists it in a hash table only where it is asked: that is on a leader. *Turned down.*
//! Maps by name and by identifier, as before: memory taken for each entry, and the same identifiers kept twice. The
//! index alone: it lacks what is not committed. *Would change our mind:* many repeats as the habit of clients; each one
//! costs a question to the index.
//!
//! # 2026-11-22: Edges follow the log lazily when nobody waits
//!
//! *Context.* Each turn of the log thread that brought a commit woke every edge of the node, only to let the index go
//! on. *Choice.* An edge that has no answers held and no subscriptions wants no hints; its index begins to go on every
//! 10 ms, or when a reader comes, and goes as far as the log was readable then. A follower's log thread learns of commits with the next data. *Turned down.* A thread that
//! only applies: one more hand-over for each write on a leader. Applying only when somebody reads: the first reader
//! after an hour would wait for an hour's log. *The price:* `positions.applied` in `/stats` may lie 10 ms behind.
//! *Would change our mind:* readers on followers that wait noticeably for the index.
//!
//! # 2026-11-22: An answer carries the request's memory back
//!
//! *Context.* A request was allocated on an edge and freed on the log thread: two threads at the allocator for each
//! write. *Choice.* The request travels boxed with its body, and the answer brings the box back. The edge finds in it
//! what was asked, and keeps it for the next write, within 4,096 requests and 8 MiB; bodies above 64 KiB are freed.
//! `tests/allocations.rs` holds the engine to it: no call of the allocator for an append, whatever the answer. *Turned
//! down.* A pool shared by threads: a lock or an atomic for what the answer does on its way. Bodies in a ring shared
//! with the log thread: its places are given back in order, so that one write that waits holds all behind it. *Would
//! change our mind:* nothing foreseen.
//!
//! # 2026-11-22: Stages are always measured
//!
//! *Context.* "Why was it slow an hour ago" cannot be answered by a measurement that must be switched on first.
//! *Choice.* One histogram for each stage, always on, two significant digits, 100 ns to 60 s. The log thread looks at
//! the clock a few times a turn; up to 64 appends share a mark; what was measured goes into the histograms under one
//! lock a turn, for which it does not wait while somebody reads. *Turned down.* A time for each write: memory and a
//! look at the clock for each. Sampling: rare stalls are what one looks for. Three digits: more memory, for a
//! difference that nobody acts on. *Would change our mind:* a profile in which it shows.
//!
//! # 2026-11-22: An epoch begins with the padding before it
//!
//! *Context.* A new leader's first record may have to be padding, because its epoch record does not fit the rest of the
//! chunk. The padding carries the new term. Two leaders that padded the same chunk end then had logs that differed there
//! and epoch tables that did not; the simulator found it. *Choice.* The epoch's position is that of its padding, if it
//! has one; its identifier is known with the record itself. *Turned down.* Padding with the old term: a leader writes
//! only its own. Room kept at each chunk's end for an epoch: one more number that must never be wrong. *Would change our
//! mind:* nothing foreseen.
//!
//! # 2026-11-22: The durable commit position is checked at recovery
//!
//! *Context.* The durable mark lags by up to a batch, so the very last batch of a stopped node is below no mark.
//! *Choice.* The commit position in the state file is never above what is flushed here, and is saved at a clean stop: a
//! log that ends below it has lost committed data, and the node refuses to start. *Turned down.* Taking the log as it is:
//! the node's vote could then elect a log without acknowledged writes. *The price:* who ran with
//! `UnsafeDisableFlushToDisk`, lost the end in a power cut and switches flushing on again must start that node empty.
//! *Would change our mind:* repair of a range from a peer, which a later version will have.
//!
//! # 2026-11-22: How a node finds the leader
//!
//! *Context.* The links go from follower to leader, so a follower must learn who leads. *Choice.* Gossip says it, as a
//! hint: a node tries, and believes the leader when that answers. A voter that refuses a pre-vote because it hears a
//! leader names it. A rumour never ends a pre-vote, and one of an older term is ignored: gossip shows a dead leader for a
//! while yet. Those who lose the leader's link at one moment stand for election one after the other, by rank in the
//! member list, because two that stand against each other cost a whole time-out. *Turned down.* An announcement of the
//! leader by a call of its own: gossip carries it already, at once, because a change of view is spread to all. *Would
//! change our mind:* clusters so large that gossip is slow.
//!
//! # 2026-11-22: The window holds at least the largest record
//!
//! *Context.* A follower acknowledges whole records; with a window smaller than a record, that record would never be
//! acknowledged, and the link would stand still. *Choice.* The window is the larger of 16 MiB and the largest record.
//! *Turned down.* Acknowledging parts of records: then a position may lie inside one, everywhere. *Would change our
//! mind:* much larger records.
//!
//! # 2026-11-22: Eight bytes before the log on a data link
//!
//! *Context.* A data link carries the log byte for byte and nothing else, but a refusal needs words. *Choice.* The leader
//! answers the greeting with eight bytes, acceptance or the length of a reason; from then on it is the log. *Turned
//! down.* Closing without a word: neither side could log why. *Would change our mind:* nothing foreseen.
//!
//! # 2026-11-22: The log buffer is registered with the kernel when zero-copy pays
//!
//! *Context.* A registered buffer saves pinning pages for each zero-copy send, and makes all of it resident. *Choice.*
//! It is registered after the first usage report that says "not copied". On loopback that never comes, and an idle node
//! stays small. *Turned down.* Registering at start: 64 MiB resident for nothing on most hosts. *Would change our mind:*
//! a measurement with two network cards.
//!
//! # 2026-11-22: A write that nobody waits for any more is not placed
//!
//! *Context.* Under overload the log thread's queue holds writes whose clients were told "commit timeout" already, and
//! who have sent them again. *Choice.* A write carries the time at which its client gives up; the log thread drops it
//! then, as v5 does before its writer, and the bytes that wait are bounded. *Turned down.* Placing it nevertheless: the
//! useful share of the work goes to nothing. *Would change our mind:* nothing foreseen.
//!
//! # 2026-11-22: Layers as `tests/tidy.rs` has them
//!
//! *Context.* Modules should be readable from below, and the deterministic part must not reach for the world. *Choice.*
//! Seven levels, in [`architecture`](super::architecture). The engine is a level of its own between storage and the
//! threads, because both the real log thread and the simulator drive it. Within a level a few pairs are allowed, one
//! way each, by name. The test reads the sources as text, so paths are written out. *Turned down.* A crate for each
//! layer: the compiler would check, but each change across layers becomes several, and private items become public.
//! *Would change our mind:* a build that takes minutes, or somebody who wants one layer alone.
//!
//! # 2026-11-22: The durable mark lies in the chunk's header page
//!
//! *Context.* Recovery must tell a torn tail, which is cut, from damage to what was acknowledged, which must never be
//! cut silently. For that it must know a position that was surely durable. *Choice.* Two alternating slots of 512 bytes
//! in the first page of the chunk; at most once in 100 ms, the log thread writes the position that was durable *before*
//! the flush which carries the mark. It costs one small write ten times a second, and no flush. *Turned down.* A
//! checkpoint file: a second file to flush means a second flush for each batch, or a mark that may be ahead of the log.
//! Trusting every good record: a hole with good records behind it is what a power cut normally leaves. *The price:*
//! damage within the last 100 ms and one flush looks like a torn tail; the other nodes of the majority still have what
//! was acknowledged. *Would change our mind:* a disk on which the extra page per flush shows in the latency.
//!
//! # 2026-11-22: Readers map chunk files, not the log buffer
//!
//! *Context.* Edges read events that the log thread has just written. *Choice.* Edges read the chunk files, mapped; the
//! index applies a record only when it is committed *and* written to this node's files. Right after the write the pages
//! are in the system's cache, so it is memory in both cases. *Turned down.* Sharing the log buffer with edges: every
//! reader would need protection against the ring wrapping around under it, across threads, in the one place that must
//! never stall. *Measured since,* on a busy machine (`floor --read-back`, buffered, in
//! `benches/results/floor-write-paths.txt`): a reader follows what was just committed at 354 and 315 MB/s (1,024 × 256
//! bytes) and at 676 and 550 MB/s (64 × 64 KiB), with 0 or 1 major faults a run; steps of up to 64 KiB take 5 to 9 µs at
//! p50, and at most 52 µs at p99. *Would change our mind:* a profile in which faults on fresh pages weigh more than the decoding of the
//! events.
//!
//! # 2026-11-22: The epoch is the first record, the member list the second
//!
//! *Context.* A founded cluster keeps its member list in the log, and the plan was to have it there first. *Choice.*
//! The first leader writes its epoch as every leader does, then the list. Until the list is applied, nodes vote by the
//! list that each made durable at the founding; it is the same. *Turned down.* The list at position 0: then one record
//! lies before the first epoch, and "the logs part at the end of the last common epoch" needs an exception for it.
//! *Would change our mind:* nothing foreseen.
//!
//! # 2026-11-22: A repeated write is recognised at the edge
//!
//! *Context.* A client that got no answer sends the same events again, and must get the first answer, for all time
//! where it named an exact version. Comparing identifiers may mean reading old events. *Choice.* The log thread knows
//! only heads: for a claim below the head it says "wrong version, and this is committed up to there", and the edge
//! compares the identifiers with what is in the log. Only for writes without a claim does the log thread look into a
//! bounded cache of recent identifiers, because there the decision to append hangs on it. *Turned down.* Comparing in
//! the log thread: it would read files. Keeping all identifiers in memory: 16 bytes for each event, for ever. *Would
//! change our mind:* clients that repeat writes without a claim long after, as their habit.
//!
//! # 2026-11-22: An explicit transaction is written again at its commit
//!
//! *Context.* v5 has transactions of several requests. *Choice.* Their parts are records that readers do not see; at
//! the commit an edge gathers the events and sends them as one ordinary append with the transaction's expected version.
//! *Turned down.* A commit record that points at the parts: every reader, the index and every subscription would know
//! two shapes of events. *Would change our mind:* large transactions in wide use.
//!
//! # 2026-11-22: The index lives in memory
//!
//! Replaced by *The index in tables* above.
//!
//! *Context.* The first cluster should be complete and simple. *Choice.* Dense lists of positions in memory, about 8
//! bytes an event and 100 a stream, rebuilt from the log at start. *Turned down, for now:* sorted files with filters,
//! merged in the background; they come with their own issue and change nothing outside `index`. *Would change our
//! mind:* it is a step, not an end: the start takes as long as reading the log.
//!
//! # 2026-11-22: A full disk is answered with a BadRequest that says so
//!
//! *Context.* v5's results of a write have no value for it. *Choice.* BadRequest with a text for people, on that
//! request only; the connection stays. Every client shows the text to its caller. *Turned down.* `NotHandled: TooBusy`:
//! clients repeat it in silence until they give up. A timeout: it hides the cause. *Would change our mind:* a client
//! that treats BadRequest as the end of its connection.
//!
//! # 2026-11-22: Member list by unanimity, then only that list votes
//!
//! *Context.* v5 takes the members from gossip, so two halves that do not see each other may each think they are the
//! cluster. *Choice.* `ClusterSize` empty nodes must all have made the same list durable before the cluster exists.
//! *Turned down.* A majority of those found: with changing seeds two lists can be founded over overlapping nodes. *The
//! price:* the very first start needs all nodes. *Would change our mind:* nothing; it happens once in a cluster's life.
//!
//! # 2026-11-22: Chunk files are zeroed past the page cache, and the log is written by whole pages
//!
//! *Context.* A chunk file is filled with zeros ahead of the writer, so that a flush changes no metadata. Done through the
//! page cache that took more of the processor than anything else at a high rate: with 16 KiB events at 154 MB/s the three
//! preparing threads used 285 ms of processor time a second each, together 43 % of a machine of two cores. And a page that
//! the system dropped before the log came to it had to be read back before a part of it could be written. *Choice.* The
//! zeros go to the disk directly (O_DIRECT, with the page cache where a file system refuses that), and each write of the
//! log is filled up with zeros to the end of its last page, where nothing was written yet: so no page is ever read in order
//! to be written. The price is an order: a write that ends within a page is the last in flight, or its zeros could come
//! after the next write's bytes. The simulator writes the same zeros, in any order that the engine allows. *Measured:*
//! 25 ms of processor time a second for each preparing thread at 229 MB/s; 32 × 32 writes of 256 bytes rose from 160,000 to
//! 254,000 a second and went from 8.9 to 4.9 µs of processor time each for all three nodes (runs of four seconds, minutes
//! apart, other work on the machine). *Turned down.* Reserving the file only: three writers of 64 KiB blocks with a flush
//! after each then get half of the rate (302 to 344 against 532 to 698 MB/s), because each flush also commits the file
//! system's journal. Having the device write the zeros (FALLOC_FL_WRITE_ZEROES): the disk at hand cannot; it would make
//! preparing free where a disk can. *Would change our mind:* a measurement on such a disk.
//!
//! # 2026-11-22: The flush is submitted when the write is complete, not in a chain with it
//!
//! *Context.* Between a write and its flush the log thread wakes up once. The kernel can go from one to the other by
//! itself (IOSQE_IO_LINK). *Tried.* A flush chained to a batch's only write, with the chain's end seen to after a short
//! write. Interleaved, three rounds each, other work on the machine, without and with: one write in flight 477, 450, 396 and 407, 418, 431 µs at p50;
//! 32 connections with one write each 25,700, 23,200, 26,700 and 24,500, 20,300, 21,000 a second. *Choice.* No chain. The
//! flush that waits for the thread covers what was written meanwhile; the chained one begins earlier with less, and there
//! are more of them. *Would change our mind:* flushes that cost nothing.
//!
//! # 2026-11-22: What the log thread writes is looked at by others and mended by itself
//!
//! *Context.* Durable marks, the state's slots and the zeros behind the log rot like all else, and the log thread may be
//! writing there at any moment. *Choice.* The background thread reads them and believes what is wrong only when the same bytes
//! are there after 300 ms; then it asks the log thread, which writes the page in one call when it has nothing in flight
//! there. *Turned down.* Writing from the background thread: between its look and its write the log may have grown over the
//! place. A lock between the two: the log thread never waits. Through the ring: its writes have no order among each other,
//! so a later mark could come before an earlier one. Only at start: a node may run for years. *Would change our mind:* a
//! disk that rots so often that these calls are felt.
//!
//! # 2026-11-22: The edges' rings do not interrupt
//!
//! *Context.* monoio sets its rings up so that each completion interrupts the thread. *Choice.* COOP_TASKRUN and
//! SINGLE_ISSUER: completions wait until the edge enters the kernel, which it does all the time. Interleaved, 32 × 1,
//! three rounds, other work on the machine: 23.5, 26.3, 25.9 µs of the leader's processor time a write without, 21.6, 23.4, 22.5 with it. It needs the version of `io-uring` that
//! monoio has, under a second name. *Turned down.* DEFER_TASKRUN: monoio's loop may go on submitting without waiting, and
//! then nothing would complete. *Would change our mind:* monoio doing it by itself.
//!
//! # 2026-11-22: Performance is printed, not asserted
//!
//! *Context.* Times depend on the machine, and a test that fails on a busy one is soon ignored. *Choice.* Tests fail
//! for what is wrong: a lost event, two orders, an end that does not come within a minute. Times are printed; scripts
//! compare them with our targets and say so. *Turned down.* Limits with much room: they catch nothing. *Would change
//! our mind:* machines of our own for measuring, always alike.
//!
//! # 2026-11-22: The tests' client shares no code with the server
//!
//! *Context.* Integration and fault tests need a client whose every answer is known. *Choice.* A small one of their own
//! in `tests/support/`, written from the description of the wire; and real clients of others in `tests/compat/`.
//! *Turned down.* The server's own codec: a wrong field would be wrong on both sides and pass. *Would change our mind:*
//! nothing.
