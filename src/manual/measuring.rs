//! How fast is it? What each tool measures, how to read its figures, and how to compare two versions honestly.
//!
//! # Which tool
//!
//! | question | tool |
//! | --- | --- |
//! | how fast is a cluster on this machine, against what the machine can do | `scripts/bench.sh` (`--quick`: does all of it work?) |
//! | is this commit faster than that one | `scripts/compare.sh A B` |
//! | where does the leader's processor time go | `scripts/profile.sh` |
//! | how does a running cluster behave under this load | `ringstore-bench` |
//! | where do writes wait, now, in production | `stages` in `/stats` |
//! | what can the disks and links do | `cargo bench --bench floor` |
//! | what can the client hop do | `cargo bench --bench echo` |
//! | what does one stage cost | `cargo bench --bench` with `codec`, `record`, `queue`, `append`, `consensus`, `ring`, `index` or `reads` |
//!
//! Each script and each bench says at its top what it does; the scripts and `ringstore-bench` have `--help`, with
//! examples. The benches of single stages take `--small` for a moment's run, as CI makes it, so that they cannot rot.
//!
//! # Floor, echo, bound
//!
//! A rate alone says little: another disk gives another one, and the same machine is slower at another hour. So each
//! figure of the cluster stands beside two others, taken in turn with it in the same round.
//!
//! - **Floor** is the server's pipeline with everything taken out that is not disk and network: one process leads, two
//!   follow, with the same buffers, writes and flushes, without a protocol, a consensus, an index. A record is done
//!   when two of the three have flushed it. Its two files are in the page cache and are written over and over, where
//!   the server's chunks are zeroed past the cache and each page is new.
//! - **Echo** is the hop to the client with everything taken out: a bare monoio server answers a bare tokio-uring
//!   client, with as many connections, requests in flight and bytes.
//! - **Bound** = 1 / (1/floor + 1/echo), the rate of a machine that does one after the other for each write. A cluster
//!   and its load share the processors in the same way, when all run on one machine. The **share** is the cluster's
//!   rate divided by the bound of the same round; for large events, and for the catch-up of a follower, by the floor
//!   alone. For one request in flight the latency is compared with floor p50 + echo p50.
//!
//! A share can be compared between machines and hours; a rate cannot.
//!
//! # The canonical set
//!
//! `scripts/bench.sh` starts a fresh cluster of three nodes on this machine and runs the lines below, five times. Its
//! table has for each figure the median of the rounds, the smallest and the largest value, floor, echo, bound and
//! share, the target and whether it is reached.
//!
//! | line | load | what is looked at |
//! | --- | --- | --- |
//! | `one` | 1 connection, 1 write of 256 bytes in flight | latency, against the sum of floor and echo |
//! | `connections` | 32 connections, 1 in flight each | rate as a share of the bound, p99 |
//! | `saturation` | 32 connections, 32 in flight each | the same; CPU of all nodes; CPU and system calls of the log thread |
//! | `batches` | 1 connection, 8 writes of 500 events in flight | events a second |
//! | `large` | 16 connections, 8 writes of 16 KiB in flight each | MB a second, as a share of the floor's |
//! | `reads` | pages of 500 events, 4 in flight, one stream and the all-stream | events a second |
//! | `catchup` | a follower that lacks 1 GiB of log | MB a second, as a share of the floor's bulk rate |
//! | `openloop` | half the rate of `saturation`, 60 s, a dozen chunks | p99, p99.9, with chunk changes in it |
//! | `idle` | 5,000 idle connections | memory for each, p99 of 32 writers with them and without |
//!
//! Line 7, the log thread, counts its `io_uring_enter`. That is not every system call: waking an edge that sleeps is a
//! write to an eventfd, which nobody counts. A figure of all nodes is "not measured" when one of them could not be
//! asked or was restarted.
//!
//! Results are in a folder of their own below `benches/results/`, named by date and commit: `summary.md` is the table,
//! `machine.json` the machine, kernel, commit and settings, `runs.jsonl` everything that each run has said, one JSON
//! object in each line, `openloop-round-N.hgrm` the latencies of the open loop. `python3 scripts/bench_summary.py
//! summary FOLDER` makes the table again. With `--quick` the folder is below `target/`, and the figures mean nothing.
//!
//! # The load tool
//!
//! `ringstore-bench` speaks the v5 protocol, so it loads any server that does. It finds the nodes by gossip (`--seed`)
//! and connects to the leader, a follower, or an address (`--target`). When a leader is lost it connects to the next
//! one and sends again what was not answered; such requests count with the time from their first sending. `--verify`
//! reads back at the end what was acknowledged (of streams that begin with each write a sample; from a follower again
//! for up to 15 s, since it may lag). Exit status: 0 the run is good, 1 something acknowledged is missing or
//! nothing succeeded, 2 wrong options or no node to connect to. An interrupt ends the run early, with its results.
//!
//! - **Warm-up** (`--warm-up`, 2 s): the load runs and does not count. Connections are made, tables grow, the
//!   processors reach their speed.
//! - **Closed loop** (the default): each connection has `--in-flight` requests on the way, the next leaves when an
//!   answer has come. This finds the highest rate. Its latencies are those of a full queue, and a stall of the server
//!   hides the requests that were not even made meanwhile.
//! - **Open loop** (`--rate`): requests have times fixed beforehand, and latency counts from that intended time,
//!   whether or not there was room to send. This is what users see. A request belongs to the measured span when its
//!   intended time does, whenever the answer comes; what has none 10 s after the end, or was due and never sent, counts
//!   as "unanswered", and its age then is among the latencies. Ask for a rate well below the highest one, and check
//!   that it was kept.
//! - **Deliveries** (`subscriptions`): from the start of the write until the event arrives at a subscriber.
//! - **Cold reads** (`--cold`) only leave out reading the span beforehand. Emptying the kernel's page cache is for you
//!   to do.
//!
//! On standard error there is a line for each second. At the end, on standard output: settings; for each kind of
//! operation its rate and latencies; troubles, where there were some (reconnects, retries, "too busy", "not handled",
//! refusals, requests unanswered at the end); for each node CPU time, memory, flushes and entries into the kernel, and
//! its stages. These are the differences of `/stats` between the start and the end of the measured span.
//!
//! `--json FILE` has the same for programs. Names are stable and carry their unit; what has no meaning in a run is
//! null:
//!
//! | member | what is in it |
//! | --- | --- |
//! | `settings` | all options as they took effect, by name |
//! | `startedUnixSeconds`, `measuredSeconds` | when the measured span began, how long it was |
//! | `troubles` | `reconnects`, `retries`, `tooBusy`, `notHandled`, `refused`, `unanswered` |
//! | `series` | for each of `write`, `read`, `delivery` that there was: `name`, `operations`, `events`, `payloadBytes`, `operationsPerSecond`, `eventsPerSecond`, `megabytesPerSecond` (10^6 bytes of data and metadata), `latency` |
//! | `latency` | `count`, `meanUs`, `p50Us`, `p90Us`, `p99Us`, `p999Us`, `p9999Us`, `maxUs`, `percentiles` as `[percentile, microseconds]` |
//! | `timeline` | for each second: `atSeconds`, `operations`, `events`, `errors`, `p50Us`, `p99Us`, `maxUs`; deliveries are not in it |
//! | `nodes` | for each node: `endpoint`, `role`, `restarted`, `cpuSeconds`, `cpuUsPerOperation`, `residentBytes`, `logAppends`, `logFlushes`, `logEnters`, `flushesPerAppend`, `entersPerAppend`, `stages` |
//! | `nodesExpected`, `nodesSeen` | nodes that the gossip shows, with dead ones; nodes that said something at both ends of the span |
//! | `serverCpuSeconds`, `serverCpuUsPerOperation` | of all nodes together; null when one is missing or was restarted |
//! | `serverCpuOperation` | what an operation is there, and for each node's: `write`, `read`, or `operation` where there are both; deliveries are none |
//!
//! `--hgrm FILE` has the percentiles in the form of HdrHistogram's plotting tools, in microseconds; a second and third
//! series go to files beside it. `--plot FILE.svg` draws latency by percentile and throughput over time.
//!
//! # Stages
//!
//! `GET /stats` has member `stages`, and the load tool ends with the same table for the measured span. For each stage:
//! `count`, `meanUs`, `p50Us`, `p90Us`, `p99Us`, `p999Us`, `maxUs`; with `?histograms=true` also `counts`, all values
//! since start as `[nanoseconds, count]`. [`architecture`](super::architecture) says exactly from where to where each
//! goes.
//!
//! | stage | when it is long |
//! | --- | --- |
//! | `queue` | the log thread is busy; or a write waits for room in the log buffer, for a prepared chunk or for the index, and all wait behind it |
//! | `batchWait` | earlier writes are in flight: look at `write` |
//! | `write` | the kernel takes the bytes slowly, perhaps because memory is short or the disk is behind |
//! | `flush` | the disk; the price of every commit |
//! | `replication/<node id>` | that follower's link and flush; one slow follower of two does not show in `commit` |
//! | `commit` | the sum, seen from the leader: from the log buffer until a majority has flushed it |
//! | `answer` | the edge is busy, or its index is behind |
//!
//! A write's time inside the server is about `queue` + `commit` + `answer`. `batchWait`, `write` and `flush` are parts
//! of `commit`, and `replication` runs beside them; so they are not to be added up. What the client sees beyond that is
//! decoding its request, the network, and its own waiting for a processor.
//!
//! # Profiles
//!
//! `scripts/profile.sh` needs `perf`. It puts a load on a fresh cluster and prints what the leader did meanwhile: CPU
//! seconds of each thread (the kernel's workers of a ring stand beside their thread), CPU and entries into the kernel
//! for each append, and the functions of each thread that take most. `--keep` leaves `perf.data`. Another load goes
//! behind `--`:
//!
//! ```sh
//! scripts/profile.sh --seconds 20 -- reads --page 500 --in-flight 4
//! ```
//!
//! # An honest comparison
//!
//! 1. Nothing else runs on the machine. When that cannot be had, say so beside the figure, and trust ratios only.
//! 2. A, B, A, B and not A, A, B, B: `scripts/compare.sh` does that, and its ratio B/A is taken within each round. A
//!    machine that is slow for a while is then slow for both.
//! 3. Five rounds at least. Look at the spread of the ratios: one that reaches over 1 has shown nothing.
//! 4. The same settings, the same data, a fresh cluster for each; say what was measured and with which command.
//! 5. On one machine the load takes processor time from the nodes. A faster client can look like a faster server:
//!    compare the servers' CPU for each write too, and keep to one version of the tool, as `compare.sh` does.
//! 6. Never compare a closed loop's latency at one rate with that at another. For latency take an open loop at a rate
//!    that both keep.
//! 7. Keep the raw results. A median without its spread, or a share without its floor, cannot be checked by anybody.
//!
//! # What is not reached, and why
//!
//! The figures are in `benches/results/`, 2026-11-22, commits fca53b1 and e7e0b5f (the open loop); all three nodes and the
//! load on one virtual machine of two cores.
//!
//! | line | measured | target | what stands in the way |
//! | --- | --- | --- | --- |
//! | 32 × 1, p99 | 2.3 ms | 2 ms | not profiled; probably the threads of four processes that take turns on two cores for each batch |
//! | 500 events a write | 579,000 a second | 1,000,000 | copies into fresh pages of the page cache, see below |
//! | 16 KiB events | 292 MB/s, 35 % of the floor | 50 % | the same |
//! | catch-up | 531 MB/s, 58 % of the floor | 70 % | not profiled; probably the same, and the copy into a buffer on the leader's side |
//! | open loop at half of the rate, p99 and p99.9 | 35 and 62 ms | 2 and 10 ms | no processor time is left over, see below |
//! | p99 with 5,000 idle connections | 1.10 to 1.47 times | 1.2 times | not looked into |
//! | clients' p99 while a follower catches up (`scripts/planes.sh --mode flood`) | 1.7 to 4 times; 5 to 10 when it gets as much of the processors as the others | 2 times | three hosts on one core, see below |
//!
//! *Fresh pages.* Under 16 KiB events at 181 MB/s `perf` has 29 % of all processor time in the kernel's
//! `copy_folio_from_iter_atomic`, in the workers that write the log: about 1 ms for each MB written, far more than a copy
//! within memory costs. We take it for the price of pages that are new to the virtual machine, and did not trace it: the
//! page cache held 0.7 of 24 GB when we looked, so memory is taken away soon and must be fetched again. The floor writes the same two files over and over, so it does
//! not pay for it, and a log that grows always does. Tried: zeroing past the cache (kept: 154 to 229 MB/s, and 300 in good
//! seconds); O_DIRECT and RWF_DSYNC, in [`decisions`](super::decisions). Not tried: dropping old chunks from the cache on
//! purpose, so that their pages are used again; it would take them from readers on machines that have room.
//!
//! *Open loop.* At 120,000 writes a second in an open loop the three nodes use 10.5 µs of processor time a write, and 3.9 at
//! 300,000 in a closed one: batches are smaller, and each costs its wake-ups. Both cores are then at work all the time, a
//! fifth of it for the load tool, which wakes up every 50 µs. The server's own stages stay short (commit: 1.2 ms at p50,
//! 7.3 at p99); when the machine is slower for some seconds, what is due piles up before them. With chunks of 32 MiB, one
//! every 0.6 s, it went on piling up: 1.2 s at p99. A flush chained to its write was tried and dropped, in
//! [`decisions`](super::decisions). Next: fewer wake-ups between followers' log threads and the leader's when
//! little is in flight, and the load on a machine of its own.
//!
//! *Catching up beside clients.* Measured on 2026-11-23: the internal sides of all three hosts are on one core, the
//! external ones and the load on the other. A follower that takes 550 MB/s needs most of its core for itself: copies,
//! checksums, its index, and zeros for the chunks that come next. `perf sched` has log threads wait up to 6.6 ms for
//! their turn, and clients' p99 goes from 0.9 to 5.5 ms. When the follower has only what the others leave (SCHED_IDLE),
//! as if its host had a core of its own, the median stays as it is, 0.34 beside 0.37 ms, and p99 goes to 2.0 to 3.6 ms;
//! four times as slow in the first tenth of a second, in which its process starts, and where chunks end. Pieces of 256,
//! 128 and 64 KiB instead of 1 MiB changed nothing beyond the spread. On hosts of their own it was not measured. The
//! background threads and the one that makes chunks ahead have a lower priority than the log threads already. `perf`
//! with the switches and wake-ups of 1.5 s of such a run: 18 of 1,032 writes took more than 2 ms, each while a thread
//! of the follower (its index, its next chunk, its edge), or once of the test, kept one of the two cores; none for the
//! leader's own work of sending. Such a thread keeps it until the scheduler's next tick, here 4 ms (250 Hz), when the
//! one that wakes up has used more than its share lately; now and then we saw it from SCHED_IDLE threads as well, and
//! do not know why. Tried on the same day, kept out: slices of 0.1 and 0.3 ms for log threads and edges
//! (`sched_setattr`; nothing beyond the spread), real-time priority for log threads (p99 2.9 to 5.2 times instead of
//! 3.6 to 8.9: better, not enough for what it can do to a host). With `cubic` instead of this machine's `bbr`, which
//! sends by timers, the follower was 1.4 times as fast, and the ratio the same. Next: the same on three hosts.
