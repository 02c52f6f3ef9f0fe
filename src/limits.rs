//! Every bound of the server in one place, tied together by assertions that the compiler checks.

use std::time::Duration;

/// Records start at multiples of this, bytes.
pub const RECORD_ALIGNMENT: usize = 8;

/// The head of every record, bytes.
pub const RECORD_HEADER_BYTES: usize = 32;

/// The first page of a chunk file, before the log's bytes: identity and the durable mark.
pub const CHUNK_HEADER_BYTES: u64 = 4096;

/// The last page of a chunk file, behind the log's bytes: zeros until the chunk is sealed.
pub const CHUNK_FOOTER_BYTES: u64 = 4096;

/// Chunk size unless `ChunkSize` says otherwise, bytes of log.
pub const CHUNK_SIZE_DEFAULT_BYTES: u64 = 256 << 20;

/// Smallest chunk that `ChunkSize` accepts: tests want small ones.
pub const CHUNK_SIZE_MIN_BYTES: u64 = 1 << 20;

/// Largest chunk that `ChunkSize` accepts.
pub const CHUNK_SIZE_MAX_BYTES: u64 = 1 << 30;

/// Event identifiers that the index remembers at least for idempotent repeats without an exact version, a power of two;
/// about 100 bytes each.
pub const RECENT_IDS_MAX: usize = 256 << 10;

/// Explicit transactions that the index remembers, committed ones included; the oldest is dropped for a new one.
pub const TRANSACTIONS_MAX: usize = 64 << 10;

/// Writes to explicit transactions that the index remembers, over all transactions; the oldest is dropped for a new one.
pub const TRANSACTION_WRITES_MAX: usize = 1 << 20;

/// Distance of the record starts that the index keeps for reading the log backward, bytes.
pub const RECORD_STARTS_BYTES: u64 = 64 << 10;

/// Events of the index that are only in memory before they are written to a table; as many again while that is done. A
/// restart applies them again from the log.
pub const INDEX_MEMORY_EVENTS: u64 = 1 << 20;

/// Memory of these events and their streams, about, bytes.
pub const INDEX_MEMORY_BYTES: u64 = 96 << 20;

/// Bytes of the log that they come from: what a restart reads, and once more while a table is written.
pub const INDEX_MEMORY_LOG_BYTES: u64 = 256 << 20;

/// Memory of the filters of all tables, bytes: without its filter a table costs a look at the disk.
pub const INDEX_FILTERS_BYTES: u64 = 64 << 20;

/// Tables of like size that lie side by side before they are merged.
pub const INDEX_MERGE_TABLES: usize = 4;

/// Bytes that one step of the index's upkeep reads or writes, about.
pub const INDEX_STEP_BYTES: u64 = 2 << 20;

/// Bytes of tables that are checked in a second when there is nothing else to do.
pub const INDEX_SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;

/// Log that a start applies before it serves; a longer piece is applied while it serves.
pub const INDEX_START_LOG_BYTES: u64 = 512 << 20;

/// Events in it at most: they come into memory before the first table can be written.
pub const INDEX_START_EVENTS: u64 = 4 << 20;

/// Largest client frame, as v5 has it, bytes.
pub const FRAME_MAX_BYTES: usize = 64 << 20;

/// Largest write unless `MaxAppendSize` says otherwise: bytes of names, types, data and metadata of one request.
pub const APPEND_SIZE_DEFAULT_BYTES: u64 = 16 << 20;

/// The most that `MaxAppendSize` accepts. A record lies in the log buffer as a whole, perhaps behind padding of the same
/// size, so it must be well below half of that.
pub const APPEND_SIZE_MAX_BYTES: u64 = 24 << 20;

/// The least that `MaxAppendSize` accepts: room for the metadata event of a stream.
pub const APPEND_SIZE_MIN_BYTES: u64 = 4 << 10;

/// Events in one write: the record's event count is 16 bits wide.
pub const EVENTS_PER_APPEND_MAX: usize = u16::MAX as usize;

/// Longest stream name and longest event type, bytes of UTF-8: their lengths are 16 bits wide.
pub const NAME_MAX_BYTES: usize = u16::MAX as usize;

/// The ring of log bytes that disk, wire and followers share on a leader.
pub const LOG_BUFFER_BYTES: usize = 64 << 20;

/// Unacknowledged bytes on the way to one follower.
pub const REPLICATION_WINDOW_BYTES: u64 = 16 << 20;

/// Bytes that one write to a chunk file carries at most.
pub const DISK_WRITE_MAX_BYTES: u64 = 1 << 20;

/// Bytes that one send to a follower carries at most.
pub const SEND_MAX_BYTES: u64 = 1 << 20;

/// Receive buffers for the leader's log, together at least a window, so that a window never waits for a buffer.
pub const LINK_BUFFER_COUNT: u16 = 32;

/// Bytes of one of them: several completions share a buffer, and one completion can be large.
pub const LINK_BUFFER_BYTES: u32 = 512 << 10;

/// Connections on the internal port that have not proven who they are, of one host where a node of the cluster lives; one
/// more is closed.
pub const GREETINGS_MAX: usize = 64;

/// Those of all such hosts.
pub const KNOWN_GREETINGS_MAX: usize = 4 * GREETINGS_MAX;

/// Those of all other hosts: they never take the places of the cluster's nodes.
pub const STRANGERS_MAX: usize = 48;

/// Those of one other host. A node whose address is not known yet has a few links for each edge, and tries again.
pub const STRANGERS_PER_HOST_MAX: usize = 16;

/// Steps of handshakes that the log thread takes in one turn for those who have not proven who they are: each may cost
/// a signature and some checks of one.
pub const HANDSHAKES_PER_TURN: usize = 4;

/// Nodes that may have links to this one; a cluster has few, and clones are not many.
pub const FOLLOWERS_MAX: usize = 64;

/// Bytes of control messages that wait to be sent to one node; more, and its link is closed.
pub const CONTROL_OUTBOX_BYTES: usize = 1 << 20;

/// Requests waiting for the log thread; one more is answered "too busy".
pub const LOG_QUEUE_REQUESTS: usize = 16 << 10;

/// Bytes of writes waiting for the log thread, of all edges; one more is answered "too busy".
pub const LOG_QUEUE_BYTES: u64 = 256 << 20;

/// Messages waiting between the log thread and the control, background or main thread.
pub const CONTROL_QUEUE_MESSAGES: usize = 1 << 10;

/// Messages waiting for one edge thread.
pub const EDGE_QUEUE_MESSAGES: usize = 64 << 10;

/// Appends of a leader that its index has not applied yet; more wait in the queue.
pub const UNAPPLIED_APPENDS_MAX: usize = 64 << 10;

/// Events in them, about: one append more may be let in. Their identifiers are at hand on the log thread.
pub const UNAPPLIED_EVENTS_MAX: usize = 1 << 20;

/// Streams whose heads a leader keeps at hand, so that it need not ask the index at each write; about 150 bytes each.
pub const HEADS_KEPT_MAX: usize = 64 << 10;

/// Edge threads that `EdgeThreads` accepts at most.
pub const EDGE_THREADS_MAX: usize = 256;

/// Processors that `CpuPinning`, `IntCpus` and `ExtCpus` can name: 0 up to one less, as many as the kernel's fixed-size affinity mask has.
pub const CPU_COUNT_MAX: usize = 1024;

/// Longest name of a network device, bytes: the kernel's IFNAMSIZ without its zero.
pub const DEVICE_NAME_MAX_BYTES: usize = 15;

/// Rules of `ExtAdvertise` of one node: they travel in its gossip entry.
pub const ADVERTISE_RULES_MAX: usize = 16;

/// The longest that the internal ring may poll its card before it sleeps, microseconds: the log thread has other work to
/// look at each millisecond.
pub const BUSY_POLL_MAX_US: i64 = 1000;

/// Events in one page of a read, as v5 has it.
pub const READ_PAGE_EVENTS_MAX: i32 = 4096;

/// Bytes of events in one page of a read: a page that would grow beyond ends early, so that its frame stays within what
/// clients accept. A page holds at least one event however large.
pub const READ_PAGE_BYTES_MAX: usize = FRAME_MAX_BYTES - (64 << 10);

/// Data, metadata and type (two bytes a character) of one event, as v5 has it.
pub const EVENT_SIZE_MAX_BYTES: usize = (16 << 20) - 10_000;

/// Members of a cluster at most.
pub const CLUSTER_SIZE_MAX: usize = 7;

/// What a node may be behind the leader's log and still count as caught up: to be made a member, to be handed leadership
/// by the leader's own decision, and as one of those that must be left when a member goes. About what may be on its way.
pub const MEMBER_LAG_MAX_BYTES: u64 = REPLICATION_WINDOW_BYTES;

/// How long a leader wants to hand over before it does so by itself.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// For so long after a flush its time counts as that of the disk. Less than [`HAND_OVER_PATIENCE`], or a single slow flush of
/// an idle leader would move leadership.
pub const FLUSH_TIME_AGE_MAX: Duration = Duration::from_secs(3);

const _: () = assert!(FLUSH_TIME_AGE_MAX.as_millis() < HAND_OVER_PATIENCE.as_millis());

/// Between two attempts of a leader to hand over by itself; and before one that was handed leadership hands it on.
pub const HAND_OVER_PAUSE: Duration = Duration::from_secs(60);

/// The same for a leader whose disk is full, or whose index is not complete: its clients are refused meanwhile.
pub const URGENT_HAND_OVER_PAUSE: Duration = Duration::from_secs(5);

/// Room in the last chunks of a full disk that no client's write gets (a sixteenth of a chunk when that is less): the records
/// that begin terms go there, or a cluster with full disks could elect nobody who takes even reads.
pub const FULL_DISK_RESERVE_BYTES: u64 = 64 << 10;

/// A leader's disk is slow when its flushes take more than this many times those of its followers (at the median) ...
pub const SLOW_FLUSH_FACTOR: u64 = 8;

/// ... and this much longer, microseconds: between fast disks a factor means little.
pub const SLOW_FLUSH_LEAST_MICROS: u64 = 50_000;

/// Requests of one edge that wait for the log thread or for the leader; one more is answered "too busy".
pub const EDGE_PENDING_REQUESTS: usize = 16 << 10;

/// Bytes of requests of one edge that wait likewise. Two of the largest frames fit, with room for ordinary ones.
pub const EDGE_PENDING_BYTES: usize = 256 << 20;

/// Connections of one edge; one more is closed at once.
pub const EDGE_CONNECTIONS_MAX: usize = 16 << 10;

/// Bytes of forwarded requests that may wait for one edge's connection to the leader.
pub const FORWARD_QUEUE_BYTES: usize = 2 * FRAME_MAX_BYTES;

/// Connections of one edge on the port with TLS whose handshake is not complete; one more is closed at once. Each holds some
/// KiB, and at most [`TLS_HANDSHAKE_MAX_BYTES`].
pub const EDGE_HANDSHAKES_MAX: usize = 1024;

/// What a client's handshake may take.
pub const EDGE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of clients that the kernel completes ahead of an edge, where `net.core.somaxconn` allows as many.
pub const EDGE_BACKLOG: u16 = 1024;

/// HTTP connections of one edge; one more is closed at once.
pub const EDGE_HTTP_CONNECTIONS_MAX: usize = 1024;

/// Requests of one connection that wait for the log thread or the leader; one more is answered "too busy", so that one
/// client cannot take all places of its edge.
pub const CONNECTION_PENDING_REQUESTS: usize = 4 << 10;

/// Requests to append whose memory an edge keeps for the next ones.
pub const EDGE_SPARE_APPENDS: usize = 4 << 10;

/// Bytes of bodies that an edge keeps likewise.
pub const EDGE_SPARE_BYTES: usize = 8 << 20;

/// A body whose memory is larger is freed, not kept.
pub const SPARE_BODY_BYTES: usize = 64 << 10;

/// What an idle connection's receive buffer has: room for a heartbeat and a small request.
pub const RECEIVE_IDLE_BYTES: usize = 1 << 10;

/// What one call receives at most while frames are small.
pub const RECEIVE_BUSY_BYTES: usize = 32 << 10;

/// What a connection's receive buffer may hold without asking the edge's common budget, bytes.
pub const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Receive buffers of one edge beyond [`RECEIVE_BUFFER_BYTES`] each, together, bytes. Bounds what clients that send the
/// beginnings of large frames can hold.
pub const EDGE_RECEIVE_BYTES: usize = 512 << 20;

/// Bytes that may wait to be sent to one client, as v5 has it; more, and it is disconnected.
pub const SEND_QUEUE_BYTES: usize = 10 << 20;

/// Bytes waiting to be sent at which a connection's requests are no longer read, until the client has taken some.
pub const SEND_QUEUE_PAUSE_BYTES: usize = 1 << 20;

/// Bytes that may wait to be sent on all connections of one edge together; beyond it reads are answered "too busy" and
/// those who have the most waiting are disconnected. A page of a read comes on top for each read at the same time.
pub const EDGE_SEND_BYTES: usize = 1 << 30;

/// Subscriptions of one connection.
pub const SUBSCRIPTIONS_PER_CONNECTION_MAX: usize = 10_000;

/// Shortest secret of a cluster, bytes: nobody guesses it from proofs that were overheard.
pub const CLUSTER_SECRET_MIN_BYTES: usize = 32;

/// Longest secret of a cluster: a longer file is something else.
pub const CLUSTER_SECRET_MAX_BYTES: usize = 4096;

/// Largest file of certificates or keys, bytes: a chain and some authorities have a few KiB.
pub const PEM_FILE_MAX_BYTES: u64 = 1 << 20;

/// A certificate that expires within this time is warned about.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// Most that a TLS record adds to what it carries, bytes: header, kind and tag, with room.
pub const TLS_RECORD_OVERHEAD_BYTES: usize = 64;

/// Most that a peer may send before a TLS handshake is complete, bytes: certificates and their chains have a few KiB.
pub const TLS_HANDSHAKE_MAX_BYTES: usize = 32 << 10;

/// Most certificates behind a node's own in its chain: each costs the peer the check of a signature, before it knows whose
/// they are.
pub const CERTIFICATE_CHAIN_MAX: usize = 4;

/// Most bytes of one TLS record's content.
pub const TLS_RECORD_BYTES: usize = 16 << 10;

const _: () = assert!(CLUSTER_SECRET_MIN_BYTES < CLUSTER_SECRET_MAX_BYTES);
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGNMENT));
// A chunk must hold the largest record that its size allows; `config` checks the configured pair, this the defaults.
const _: () = assert!(APPEND_SIZE_DEFAULT_BYTES * 2 <= CHUNK_SIZE_DEFAULT_BYTES);
// The largest record and everything in flight to one follower fit the log buffer, or a leader could stall itself.
const _: () = assert!(APPEND_SIZE_MAX_BYTES + REPLICATION_WINDOW_BYTES <= LOG_BUFFER_BYTES as u64);
// The largest write, as the record with the most events, fits behind padding of its own size: else it could never be
// written. 64 bytes for each event are more than its entry has besides the bytes that `MaxAppendSize` counts.
const _: () = assert!(
    2 * (APPEND_SIZE_MAX_BYTES + 64 * EVENTS_PER_APPEND_MAX as u64 + NAME_MAX_BYTES as u64)
        + 8 * RECORD_HEADER_BYTES as u64
        <= LOG_BUFFER_BYTES as u64
);
const _: () = assert!(LINK_BUFFER_COUNT as u64 * LINK_BUFFER_BYTES as u64 >= REPLICATION_WINDOW_BYTES);
const _: () = assert!(CHUNK_HEADER_BYTES.is_multiple_of(4096) && CHUNK_FOOTER_BYTES.is_multiple_of(4096));
// `config` lowers the largest write to a quarter of a small chunk; that must still be a size it accepts.
const _: () = assert!(CHUNK_SIZE_MIN_BYTES / 4 >= APPEND_SIZE_MIN_BYTES);
// A single event and the link to it, with their names and types, fit a frame.
const _: () = assert!(2 * (EVENT_SIZE_MAX_BYTES + 2 * NAME_MAX_BYTES + 1024) <= READ_PAGE_BYTES_MAX);
const _: () = assert!(LOG_QUEUE_BYTES >= 2 * APPEND_SIZE_MAX_BYTES);
// A connection that only asks and reads slowly is paused long before it would be cut off.
const _: () = assert!(SEND_QUEUE_PAUSE_BYTES * 2 <= SEND_QUEUE_BYTES);
const _: () = assert!(RECEIVE_IDLE_BYTES < RECEIVE_BUSY_BYTES && RECEIVE_BUSY_BYTES <= RECEIVE_BUFFER_BYTES);
const _: () = assert!(EDGE_PENDING_BYTES >= 2 * FRAME_MAX_BYTES && EDGE_RECEIVE_BYTES >= 2 * FRAME_MAX_BYTES);
// A start applies at once what a node that was killed while it wrote a table has to apply again.
const _: () = assert!(INDEX_START_LOG_BYTES >= 2 * INDEX_MEMORY_LOG_BYTES);
const _: () = assert!(INDEX_START_EVENTS >= 2 * INDEX_MEMORY_EVENTS);
