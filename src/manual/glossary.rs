//! The words, one for one thing, the same in code, options, statistics, log lines and here.
//!
//! | word | what we mean |
//! | --- | --- |
//! | node | the process, and what it keeps in its data directory |
//! | member | a node as gossip sees it; *cluster member*: one of the member list |
//! | leader | the node that orders writes in a term |
//! | follower | a member whose acknowledgements count toward the majority |
//! | clone | a node beyond the member list: it copies the log and counts for nothing; it becomes a member by a change |
//! | pre-leader | elected; its epoch is not committed and applied yet, so it takes no writes yet |
//! | pre-replica | knows a leader, has no link to it yet |
//! | catching up | receives the leader's log from an old position |
//! | resigning leader | leads still, hands over, takes no new writes |
//! | term | the number of an election round; at most one leader has each |
//! | epoch | the durable mark that a leader writes as the first record of its term; its number is the term |
//! | epoch table | the positions where epochs begin; two logs are compared by it |
//! | log position | a byte offset in the log; [`LogPosition`](crate::types::LogPosition) |
//! | record | the unit of the log: one write, one epoch, one member list, or padding |
//! | chunk | a file that holds a fixed span of the log |
//! | log buffer | the memory from which a leader's records go to disk and to followers |
//! | end of the log | behind the last record, flushed or not |
//! | writer checkpoint | the log is flushed up to here on this node |
//! | durable mark | a writer checkpoint kept in a chunk's header page, so that recovery can tell damage from a torn tail |
//! | acknowledgement | a follower's word that its log is flushed up to a position |
//! | commit position (of the log) | flushed by a majority up to here, so it stays |
//! | readable | committed, and in the chunk files of this node: what the index may apply |
//! | commit position, prepare position (of an event) | where its record, where its entry in the record lies; they order all events |
//! | stream | a named sequence of events |
//! | event number | an event's 0-based place in its stream |
//! | expected version, claim | what a writer says about the stream before its write: any, no stream, exists, or the last number |
//! | stream head | the last event number of a stream, with uncommitted writes counted |
//! | metadata stream | `$$name`: its last event is the metadata of the stream `name` |
//! | soft delete | metadata that hides all events so far; the stream can come back |
//! | hard delete, tombstone | a last event after which the name is never used again |
//! | edge | a thread that serves clients |
//! | turn | what a thread or a task does between two waits; some things are done once for it |
//! | batch | what one disk write or one flush carries: all that came while the one before was under way |
//! | spare | the memory of a write that was answered, kept on its edge for the next one |
//! | at hand | known on the log thread itself (heads, identifiers), without asking the index |
//! | hint, progress | a message that says nothing which cannot be seen elsewhere: more of the log is readable |
//! | forwarding | a follower's edge handing a request to an edge of the leader |
//! | gossip seed | an endpoint that is asked first to find the other nodes |
//! | member list, list in force | who votes; the last list in a node's log counts there, committed or not |
//! | change | a new member list with one member more or less; *pending* until it is committed |
//! | hand-over, successor | a leader gives leadership to a follower of its choice, which stands for election at once |
//! | suspect | a node that may lack what it has acknowledged, because its disk has lost something |
//! | sound | not suspect |
//! | founding | all nodes of a new cluster make the same member list durable |
//! | internal plane, external plane | the ports between the nodes (1112, 2112); the ports for clients (1113, 2113) |
//! | open plane | an internal plane that everybody who reaches it may speak on: on loopback, or by an unsafe option |
//! | identity, authority | a node's certificate with its key; who signs the certificates of a cluster |
//! | proof, challenge, nonce | HMAC-SHA256 with the cluster's secret; the first one of a connection; 32 fresh random bytes in it |
//! | dialler, answerer | the side that opened a connection, and the side that accepted it |
//! | control, data and forward link | the three kinds of connection on port 1112 |
//! | window | unacknowledged bytes on the way to one follower |
//! | torn tail | what a power cut leaves behind the last good record |
//! | stage | a part of a write's way through the server whose time is measured |
//! | floor | what disks and links can do: the server's pipeline without protocol, consensus and index |
//! | echo | what the client hop can do: requests answered without a look at what they say |
//! | bound, share | 1 / (1/floor + 1/echo); a figure of the cluster, divided by that of the same round |
//! | closed loop | the next request leaves when an answer has come |
//! | open loop, intended time | requests leave at times fixed beforehand; latency counts from these |
//!
//! On the wire of old clients, and nowhere else: *Master* is our leader, *Slave* our follower, *PreMaster* our
//! pre-leader.
