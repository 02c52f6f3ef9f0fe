//! The files of a data directory, byte by byte.
//!
//! All integers are little-endian and of fixed width. All checksums are CRC-32C (Castagnoli). Identifiers are 16 bytes in
//! the layout of a .NET GUID, as the v5 wire has them. Tests beside the code hold every layout here ("golden layout").
//!
//! # The directory
//!
//! | file | what it is |
//! | --- | --- |
//! | `ringstore.lock` | locked (`flock`) by the process that has the directory open; its text says which process |
//! | `node.state` | 8192 bytes: the durable small state, in two slots |
//! | `chunk-NNNNNN.000000` | chunk NNNNNN of the log (six digits or more, from 0), `4096 + chunk size + 4096` bytes |
//! | `index/manifest` | which tables make up the index |
//! | `index/table-NNNNNNNNNN` | a table of the index (ten digits or more, from 1) |
//! | `….tmp` | one of the above while it is being made; removed at start |
//!
//! Other files are left alone. A file is made under its temporary name: room reserved, header and zeros written, flushed,
//! renamed, directory flushed. So a chunk or state file is there with its full length or not at all. The log thread's
//! writes then only overwrite, and a flush carries no metadata of the file system.
//!
//! The folder `index` may be removed while the node is stopped: it is made again from the log. Files in it that the manifest
//! does not name are removed at start.
//!
//! # Positions
//!
//! The log is one sequence of bytes. The byte at log position `p` lies in chunk `p / chunk size` at file offset
//! `4096 + p % chunk size`; the same on every node. See [`ChunkLayout`](crate::storage::ChunkLayout).
//!
//! # Chunk header page
//!
//! The first 4096 bytes of a chunk file. [`ChunkHeader`](crate::storage::ChunkHeader) and
//! [`DurableMark`](crate::storage::DurableMark).
//!
//! ```text
//!    0  8  magic "RSCHUNK\0"
//!    8 u32 format version: 2
//!   12 u32 chunk number
//!   16 u64 chunk size: bytes of log in the chunk
//!   24 u32 zero
//!   28 u32 crc of bytes 0..28
//!   32     zeros
//!  512     durable mark, slot 0 (512 bytes)
//! 1024     durable mark, slot 1 (512 bytes)
//! 1536     zeros
//! ```
//!
//! A durable mark says "the log was durable up to `position`":
//!
//! ```text
//!    0 u64 sequence; the slot is sequence % 2
//!    8 u64 position: the end of a record, or 0
//!   16 u32 crc of bytes 0..16
//!   20     zeros
//! ```
//!
//! Before a flush, at most once in 100 ms, the log thread writes into the chunk that it flushes the position that was
//! durable *before*; the flush carries it. So a mark is true whether or not the flush that carries it succeeds. Sequences
//! count up over all chunks, and the mark with the highest sequence in any chunk is the one that holds, also when its
//! position is lower than another's: before the log is truncated, a mark at the cut is made durable. A slot of zeros was
//! never written. Any other that does not check out has rotted, because a slot is a sector: where one bit is wrong the
//! checksum tells which, and the mark is put right; otherwise the slot is ignored, and the other one holds the mark before.
//! While the node runs only the log thread writes marks: what the background thread finds in a chunk that is not sealed the
//! log thread writes anew, the newest mark under the next two sequences. In a sealed chunk, where the log thread writes
//! nothing any more, the scrubber puts the slot right or erases it.
//!
//! The magic, the version and the checksum lie at these places in all versions: a chunk of another one is refused by name.
//!
//! # Chunk footer page
//!
//! The last 4096 bytes of a chunk file: zeros until the chunk is *sealed*. The background thread seals a chunk when all of it
//! is committed and durable here and every record checks out; from then on nothing in the log bytes may change.
//! [`ChunkFooter`](crate::storage::ChunkFooter).
//!
//! ```text
//!    0  8  magic "RSFOOTER"
//!    8 u32 format version: 2
//!   12 u32 chunk number
//!   16 u64 chunk size
//!   24 u32 crc of the chunk's log bytes, `chunk size` of them
//!   28 u32 flags: 1 = more epochs begin in the chunk than fit here, and none is listed: read the chunk
//!   32 u64 number of records, padding included
//!   40 u64 number of events
//!   48 u32 term of the first record
//!   52 u32 term of the last record
//!   56 u64 position of the last membership record in the chunk; all ones for none
//!   64 u32 number of epochs listed, at most 125
//!   68     zeros
//!   80     the epochs that begin in the chunk, 32 bytes each:
//!            0 u32 term
//!            4 u32 zero
//!            8 u64 position
//!           16  16 epoch id; zeros when only the padding before the epoch record is in this chunk
//!          zeros
//! 4092 u32 crc of bytes 0..4092
//! ```
//!
//! # Records
//!
//! The log is a gapless sequence of records, each at a multiple of 8, none across a chunk's end.
//! [`Header`](crate::codec::record::Header), [`RecordKind`](crate::codec::record::RecordKind).
//!
//! ```text
//!    0 u32 length of the whole record, a multiple of 8, at least 32
//!    4 u32 crc of bytes 8..length
//!    8 u64 position: the record's own log position
//!   16 u32 term of the leader that wrote it
//!   20 u8  kind: 1 padding, 2 epoch, 3 membership, 4 append, 5 delete, 6 transaction start, 7 transaction write
//!   21 u8  flags: zero
//!   22 u16 event count
//!   24 i64 timestamp: 100 ns ticks since 0001-01-01 UTC
//!   32     body, then zeros to `length`
//! ```
//!
//! *Padding* fills the rest of a chunk in which the next record does not fit; its body is zeros. Where less than 32 bytes
//! would remain behind a record, that record is lengthened with zeros to the chunk's end instead. The first bytes behind
//! the last record are zero: 32 zeros (a length of 0) are the end of the log.
//!
//! ## Body of append, delete, transaction start and transaction write: a batch
//!
//! [`BatchBuilder`](crate::codec::record::BatchBuilder), [`BatchView`](crate::codec::record::BatchView). Offsets from the
//! body's start:
//!
//! ```text
//!    0 u16 length of the stream's name in bytes, n
//!    2     six zeros
//!    8 i64 first event number; 9223372036854775807 in a delete;
//!          the expected version in a transaction start, the transaction's identifier in a transaction write
//!   16  n  the stream's name, UTF-8
//!          zeros up to a multiple of 8, then the events one after the other
//! ```
//!
//! An event's entry; its log position is the event's prepare position, the record's is its commit position:
//!
//! ```text
//!    0 u32 size of the whole entry, a multiple of 8
//!    4 u32 distance from the record's start to this entry
//!    8  16 event id
//!   24 u16 length of the event type, t
//!   26 u8  flags: 1 = the data is JSON
//!   27 u8  zero
//!   28 u32 length of the data, d
//!   32 u32 length of the metadata, m
//!   36  t  event type, UTF-8
//!       d  data
//!       m  metadata
//!          zeros up to `size`
//! ```
//!
//! Event k of a batch has the number `first event number + k`. A transaction's identifier is the log position of its start
//! record; its commit is an ordinary append that holds all its events again.
//!
//! ## Body of an epoch
//!
//! The first record that a leader writes in its term; the record's term is the epoch's number.
//! [`EpochBody`](crate::codec::record::EpochBody).
//!
//! ```text
//!    0  16 epoch id
//!   16  16 node id of the leader
//!   32 u64 log position of the epoch before; all ones for none
//! ```
//!
//! ## Body of a membership record
//!
//! [`MembershipRecord`](crate::codec::record::MembershipRecord): the list in force from this record on, committed or not, and
//! the one before, which is in force again when the record is cut.
//!
//! ```text
//!    0  16 cluster id
//!   16 u32 number of members
//!   20     members, 36 bytes each:
//!            0  16 node id
//!           16  16 internal address, IPv6 (IPv4 as ::ffff:a.b.c.d), network byte order
//!           32 u16 port of replication
//!           34 u16 port of gossip and elections
//!       u32 number of members before; 0 or nothing in the founding's list as it was written at first: the same list
//!           those members, 36 bytes each
//! ```
//!
//! # Durable state
//!
//! `node.state`: slot 0 at offset 0, slot 1 at offset 4096. A state is written into slot 0, flushed, written into slot 1 and
//! flushed, and counts as saved only then; the good slot with the highest sequence holds.
//! [`DurableState`](crate::storage::DurableState).
//!
//! ```text
//!    0  8  magic "RSSTATE\0"
//!    8 u32 format version: 2
//!   12 u32 term
//!   16 u64 sequence
//!   24  16 node id
//!   40 u64 chunk size
//!   48 u64 commit position hint
//!   56  16 node id voted for in the term; zeros for none
//!   72 u8  flags: 1 = founded, 2 = voted, 4 = a founding list follows, 8 = suspect
//!   73     seven zeros
//!   80 u32 length of the founding list, f
//!   84  f  founding list, as the body of a membership record
//!          zeros
//! 4092 u32 crc of bytes 0..4092
//! ```
//!
//! No file: a new node. Two good slots that differ, or one good slot: the node stopped in the midst of a save, or a slot has
//! rotted. In the first case no answer that depended on the new state has left, in the second both held the same; so the
//! best that is there is the truth, and it is written into both again. No good slot: the node stops, because it may have
//! voted; it must come back as a new node.
//!
//! # Recovery
//!
//! [`recover`](crate::storage::recover) reads the header page and the footer page of every chunk. A chunk with a good footer
//! whose terms and epochs follow those before is believed; of the log bytes only the others are read, normally those of the
//! last chunk or two, and every record in them is checked: length, place, kind, checksum; terms are above zero and never
//! descend; each begins with an epoch record that has an identifier, or with padding in front of it. (A follower holds the
//! same against what its leader sends.)
//! A start therefore takes the same time for any size of the log. (Rot in a sealed chunk is found by the scrubber. A damaged
//! footer makes its chunk be read, and sealed again later.) It stops at the first record that does not check out (the
//! *end*). *Durable* is the position of the newest durable mark, or the end of the last sealed chunk when that is higher.
//!
//! | the end is | then |
//! | --- | --- |
//! | below what is durable | damage: a member of a cluster fetches the range from another node and recovers again; a node that is alone stops and names chunk, position, file offset and reason, and nothing is changed |
//! | elsewhere, and only zeros behind it | the end of the log |
//! | elsewhere, and anything else behind it | a torn tail: cut |
//!
//! In both good cases what lies from the durable position to the end is written in place once more and flushed, and
//! everything from the end to the end of the last chunk that is not zero is zeroed and flushed
//! ([`erase_tail`](crate::storage::Recovered::erase_tail)).
//!
//! A damaged header page whose identity does not check out is made anew when a good footer or a good first record shows which
//! chunk it is; for a chunk without a record at least 24 of the identity's 32 bytes must be right. Otherwise the node stops:
//! the file may be another one. Marks in such a page are believed when they check out. Where the chunk is not sealed the log
//! is *suspect* (below): a newer mark may have been lost with the page; so it is where more than one bit of a mark is wrong.
//! The page is mended when that has been saved.
//!
//! Why records *behind* a torn one are cut although they are good: the operating system writes the pages of an unflushed
//! batch back in any order, so above the mark a hole with good records behind it is what a power cut normally leaves. None
//! of them was acknowledged from this node: an acknowledgement needs a flush of everything before it. Except within the
//! time between two marks, 100 ms and one flush: damage to the disk there looks like a torn tail. The node then comes
//! back with a shorter log than it had acknowledged, for at most that span. So a log that is cut with good records of it
//! behind the cut (in their place, of the last term or a later one) is *suspect*, and the state file says so before they are
//! erased: such a node does not count itself up to date in elections until it has caught up with a leader.
//!
//! Why they are erased: a record left behind the end has the right place and a good checksum. If new records happened to
//! end where it begins, it would become a part of the log.
//!
//! Why the part above the mark is written again: when only the process died, those records may be good in the system's
//! cache and not on the disk; and when a flush had failed, the system takes their pages for clean, so another flush alone
//! would do nothing.
//!
//! # Who finds rot while the node runs
//!
//! | bytes | found by | made right by |
//! | --- | --- | --- |
//! | log bytes of a sealed chunk | readers, scrubber | repairer, from another node |
//! | header, marks and footer of a sealed chunk | scrubber | scrubber |
//! | log bytes of the open chunk, committed and durable here | readers, unsealed scrubber | repairer, from another node |
//! | header page (but for the marks) and footer page of the open chunk and of those ahead of it | unsealed scrubber | unsealed scrubber |
//! | durable marks there, and a header page that cannot be read | unsealed scrubber | log thread |
//! | zeros behind the log's end, also in the chunks ahead | unsealed scrubber | log thread |
//! | a slot of `node.state` | unsealed scrubber | log thread, from memory |
//! | the text of `ringstore.lock` | unsealed scrubber | unsealed scrubber |
//! | a page of a table of the index | readers, upkeep of the index | upkeep: the table is dropped, its piece of the log indexed again |
//! | the manifest of the index | upkeep of the index | upkeep: it is written anew |
//!
//! What the log thread writes nobody else writes; see [`UnsealedScrubber`](crate::background::UnsealedScrubber) for how what
//! is just being written is told from what has rotted. A range that is flushed here and not committed yet is looked at when
//! it is committed. A node that is alone mends all of this but the log's own bytes, which it reports with chunk and position.
//!
//! # What is assumed of the disk
//!
//! - A flush (`fdatasync`, `fsync`) that returned success made everything written to the file before it survive a power cut.
//! - A write that was not flushed may survive wholly, partly (in any sectors of 512 bytes, in any order) or not at all.
//! - Writing a sector does not change another one. (A torn write of a whole 4096-byte page, of which 512 bytes changed,
//!   leaves the other sectors as they were, because it writes the same bytes there.)
//! - A rename followed by a flush of the directory is atomic and durable.
//! - What was flushed may still rot: checksums find it, they do not repair it.
//!
//! # Versions
//!
//! | version | since |
//! | --- | --- |
//! | chunk 2, state 2 | chunks have a footer page; both slots of the state hold the same, and a log may be suspect |
//! | chunk 1, state 1 | the first; not read any more |
//!
//! # Tables of the index
//!
//! A table is the index of a piece of the log, `from` to `to`, both ends of records. It is a sequence of bytes, cut into
//! pieces of 4092; each page of 4096 bytes of the file is such a piece and the crc of: u64 number of the table, u64 number
//! of the page, the piece. Sections begin with a page, and what is behind them in their last page is zero. A varint has
//! seven bits in a byte, lowest first; the high bit says that more follow.
//!
//! Section *entries*: the streams, by hash (of the name, foldhash with a fixed seed) and then by name (as bytes), each of
//! them in one entry or more; an entry has at most 1024 events.
//!
//! ```text
//!    u64    hash
//!    varint bytes that follow
//!    u8     flags: 1 the stream's first entry, 2 tombstone, 4 metadata
//!    varint length of the name, then the name
//!    varint (first entry) events in all entries of the stream
//!    varint (tombstone) where the tombstone's entry lies in the log
//!    varint (metadata) length, then the metadata as the JSON of an event that sets it
//!    varint number of the first event of this entry
//!    varint events of this entry, then a varint for each: its position, less that of the event before it
//! ```
//!
//! Section *places*: u64 hash, i64 number of the first event, u64 place of an entry; one for the first entry, and for each
//! that begins 4096 bytes or more behind the one before. *Starts*: u64 for each record start that the index notes (see
//! [`RECORD_STARTS_BYTES`](crate::limits::RECORD_STARTS_BYTES)). *Recents*: the last events of the piece, at most 262,144:
//! 16 bytes identifier, u64 hash of the stream, i64 number, u64 position. *Transactions*: the explicit transactions as they
//! were at `to`, oldest first: u64 identifier, i64 expected version, u32 length of the stream's name, u32 number of writes,
//! the name, u64 position of each write. *Filter*: u64 words, eight to a block; a stream's hash `h` picks block
//! `h * blocks >> 64` and sets six bits in it. It is left out for very many streams.
//!
//! The last page of the file is the footer:
//!
//! ```text
//!    0  8  magic "RSTABLE\0"
//!    8 u32 version: 1
//!   12 u32 crc that the last record of the piece has
//!   16 u64 number of the table
//!   24 u64 from    32 u64 to
//!   40 u64 streams in it    48 u64 events, tombstones included    56 u64 streams that begin in it
//!   64 u64 position of the last record that readers see, or 2^64-1
//!   72 u64 position of the last record
//!   80     six sections, each u64 place and u64 length: entries, places, starts, recents, transactions, filter
//! ```
//!
//! A table whose last record is not in the log at `to`, with that crc, is of another log and not used.
//!
//! # The manifest of the index
//!
//! ```text
//!    0  8  magic "RSINDEX\0"
//!    8 u32 version: 1
//!   12 u32 number of tables
//!   16 u64 sequence: one more with each manifest
//!   24 u64 number of the next table
//!   32 u64 chunk size of the log
//!   40 u64 covered: the log is in tables up to here
//!   48     for each table, in the order of the log: u64 number, u64 from, u64 to
//!      u32 crc of everything before
//! ```
//!
//! What lies between two tables, or between the last one and `covered`, is to be indexed again. Files are written under
//! `….tmp`, flushed, renamed, the folder flushed: first a table, then the manifest that names it, then those that it replaces
//! are removed. A manifest of another version is treated like one that does not check out: the index is made again.

#[cfg(test)]
mod tests {
    //! Golden bytes for the layouts whose code is in `codec`, next to the text that they hold.

    use crate::codec::record::{BatchBuilder, BatchView, EpochBody, MemberRecord, MembershipBody};
    use crate::types::{ClusterId, EventId, Guid, LogPosition, NodeId};

    fn check(bytes: &[u8], expected: &str) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn golden_layout_of_a_batch() {
        let mut batch = BatchBuilder::new("orders", 0);
        batch.event(EventId(Guid([0xA1; 16])), "placed", true, b"{}", b"me");
        batch.event(EventId(Guid([0xA2; 16])), "x", false, b"", b"");
        let mut body = batch.finish();
        BatchView::set_first_event_number(&mut body, 7);
        let name = concat!("0600", "000000000000", "0700000000000000", "6f7264657273", "0000");
        let first = concat!(
            "30000000",
            "38000000",
            "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
            "0600",
            "01",
            "00",
            "02000000",
            "02000000",
            "706c61636564",
            "7b7d",
            "6d65",
            "0000"
        );
        let second = concat!(
            "28000000",
            "68000000",
            "a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2",
            "0100",
            "00",
            "00",
            "00000000",
            "00000000",
            "78",
            "000000"
        );
        check(&body, &[name, first, second].concat());
    }

    #[test]
    fn golden_layout_of_an_epoch() {
        let leader = NodeId(Guid([2; 16]));
        let body = |previous| EpochBody { epoch_id: Guid([1; 16]), leader, previous }.encode();
        let ids = concat!("01010101010101010101010101010101", "02020202020202020202020202020202");
        check(&body(Some(LogPosition(0x1240))), &format!("{ids}4012000000000000"));
        check(&body(None), &format!("{ids}ffffffffffffffff"));
    }

    #[test]
    fn golden_layout_of_a_member_list() {
        let member = |id: u8, ip: &str| MemberRecord {
            node: NodeId(Guid([id; 16])),
            int_ip: ip.parse().unwrap(),
            int_tcp_port: 1112,
            int_http_port: 2112,
        };
        let members = vec![member(1, "10.0.0.1"), member(2, "fd00::2")];
        let body = MembershipBody { cluster: ClusterId(Guid([9; 16])), members }.encode();
        let head = concat!("09090909090909090909090909090909", "02000000");
        let first = concat!("01010101010101010101010101010101", "00000000000000000000ffff0a000001", "5804", "4008");
        let second = concat!("02020202020202020202020202020202", "fd000000000000000000000000000002", "5804", "4008");
        check(&body, &[head, first, second].concat());
    }
}
