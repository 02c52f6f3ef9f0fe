//! The log over HTTP, for other nodes that repair from this one and for backups: `GET /log/info` and `GET /log/bytes`.
//!
//! Promises: what leaves is committed (unless asked for otherwise), durable here, cut at records, and was checked after it was copied: a node never
//! hands damage on. Reading may wait for the disk, so it is done on a thread of its own: gossip and votes do not wait for
//! it. At most [`READERS_MAX`] requests are read at once.
//!
//! `GET /log/bytes?from=F&to=T` with header `Ring-Cluster`: whole records from `F` on, at most [`BYTES_MAX`] bytes (or one
//! record that is larger), none beyond `T` or the end of `F`'s chunk. Header `Ring-End` of the answer says where they end:
//! ask again from there. `Ring-Crc32c` is the checksum of the body. With `&durable=true` what is flushed here is given, too,
//! committed or not (`Ring-Committed` says up to where it is): for a node that mends its log and can prove by the log
//! matching rule that the bytes belong there; for nobody else.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::control::Control;
use super::routes::{json_answer, shortened};
use super::status::NodeStatus;
use crate::codec::record::{Header, RecordError, RecordView};
use crate::engine::Published;
use crate::http::{Request, Response};
use crate::queue::Queue;
use crate::storage::{ChunkLayout, Damage, DamageReports, LogRead as _, LogReader, ReadError, damaged_range};
use crate::types::LogPosition;

/// Bytes of log in one answer, unless a single record is larger.
const BYTES_MAX: usize = 4 << 20;

/// Requests that are read at once; more are told to come back.
const READERS_MAX: usize = 2;

/// A disk that takes longer hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Headers of the request and of the answer.
const CLUSTER_HEADER: &str = "Ring-Cluster";
const END_HEADER: &str = "Ring-End";
const COMMITTED_HEADER: &str = "Ring-Committed";
const CRC_HEADER: &str = "Ring-Crc32c";

/// What serves the routes.
pub(super) struct LogBytes {
    source: Source,
    /// Places among those who read.
    busy: Arc<AtomicUsize>,
}

impl LogBytes {
    pub(super) fn new(log: LogReader, damage: DamageReports, published: Arc<Published>) -> LogBytes {
        LogBytes { source: Source { log, damage, published }, busy: Arc::default() }
    }
}

/// `GET /log/info`: which log this is and how far it goes.
pub(super) fn info(status: &NodeStatus, log: &LogBytes) -> Response {
    let view = status.published.view();
    let epochs = view.epochs.iter();
    let epochs =
        epochs.map(|epoch| json!({ "term": epoch.term.0, "position": epoch.position.0, "id": epoch.id.to_string() }));
    json_answer(&json!({
        "cluster": view.cluster.map(|cluster| cluster.to_string()),
        "node": status.node.to_string(),
        "term": view.term.0,
        "commitPosition": log.source.limit().0,
        "durablePosition": status.published.flushed().0,
        "logEnd": status.published.log_end().0,
        "chunkSize": log.source.layout().chunk_size,
        "firstPosition": 0,
        "epochs": epochs.collect::<Vec<_>>(),
    }))
}

/// `GET /log/bytes`.
pub(super) async fn bytes(control: &Rc<Control>, request: &Request) -> Response {
    let log = &control.log_bytes;
    let asked = Asked {
        from: request.query_value("from"),
        to: request.query_value("to"),
        cluster: request.headers.get("ring-cluster"),
        durable: request.query_value("durable"),
    };
    let (from, to) = match log.source.accept(asked) {
        Ok(range) => range,
        Err(refused) => return refused,
    };
    let Some(place) = Place::take(&log.busy) else {
        let words = format!("{READERS_MAX} others read the log of this node already; try again");
        return Response::words(503, words);
    };
    let answer = Arc::new(Queue::for_task(1));
    let (answers, source) = (Arc::clone(&answer), log.source.clone());
    let read = move || {
        let response = source.read(from, to);
        // The place is free before the answer is there: whoever has it may ask again at once.
        drop(place);
        // Nobody waits for it any more when there is no room.
        let _ = answers.send(response);
    };
    if let Err(error) = thread::Builder::new().name("log-bytes".to_owned()).spawn(read) {
        return Response::words(503, format!("no thread to read with: {error}; try again"));
    }
    let waited = monoio::time::timeout(READ_TIMEOUT, answer.ready()).await;
    let response = waited.ok().and_then(|()| answer.pop());
    response.unwrap_or_else(|| Response::words(503, format!("the disk took longer than {READ_TIMEOUT:?}; try again")))
}

/// A place among those who read, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(busy: &Arc<AtomicUsize>) -> Option<Place> {
        let more = |taken: usize| (taken < READERS_MAX).then_some(taken + 1);
        let taken = busy.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then(|| Place(Arc::clone(busy)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a request says.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    from: Option<&'a str>,
    to: Option<&'a str>,
    cluster: Option<&'a str>,
    durable: Option<&'a str>,
}

/// The log, and what of it may leave.
#[derive(Clone)]
struct Source {
    log: LogReader,
    damage: DamageReports,
    published: Arc<Published>,
}

impl Source {
    fn layout(&self) -> ChunkLayout {
        self.log.layout()
    }

    /// Committed and durable here.
    fn limit(&self) -> LogPosition {
        self.published.committed().min(self.published.flushed())
    }

    /// The range that a request asks for; the error is the whole answer.
    fn accept(&self, asked: Asked<'_>) -> Result<(LogPosition, LogPosition), Response> {
        let number = |name: &str, value: Option<&str>| {
            let value = value.unwrap_or_default();
            value.parse().map(LogPosition).map_err(|_| {
                let words = format!("{name} is {value:?}; ask for /log/bytes?from=POSITION&to=POSITION");
                Response::words(400, shortened(&words))
            })
        };
        let (from, to) = (number("from", asked.from)?, number("to", asked.to)?);
        let cluster = self.published.view().cluster.map(|cluster| cluster.to_string());
        let durable = asked.durable;
        let Some(asked) = asked.cluster else {
            return Err(Response::words(400, format!("name the cluster in header {CLUSTER_HEADER}")));
        };
        if cluster.as_deref() != Some(asked) {
            let own = cluster.as_deref().unwrap_or("none yet");
            let words = format!("this node's cluster is {own}, not {asked}");
            return Err(Response::words(409, shortened(&words)));
        }
        if from >= to {
            return Err(Response::words(400, format!("from is {from}, to is {to}: nothing lies between")));
        }
        let (limit, done) = match durable {
            Some("true") => (self.published.flushed(), "flushed"),
            _ => (self.limit(), "committed"),
        };
        if to > limit {
            return Err(Response::words(409, format!("to is {to}, this node has {done} up to {limit} only")));
        }
        Ok((from, to))
    }

    fn read(&self, from: LogPosition, to: LogPosition) -> Response {
        let mut body = Vec::new();
        let mut outcome = Ok(());
        let mut read = || {
            body.clear();
            self.log.with_chunk(from, &mut |bytes| outcome = copy_records(self.layout(), bytes, from, to, &mut body))
        };
        // A page that could not be read is zeros at the second look: what is in front of it is good.
        let read = read().or_else(|_| read());
        let outcome = read.map_err(|error| Response::words(500, error.to_string())).and_then(|()| {
            // What came before a bad record is good; the next request begins at the bad one and is told.
            if body.is_empty() { outcome.map_err(|unread| self.refusal(from, to, unread)) } else { Ok(()) }
        });
        if let Err(refused) = outcome {
            return refused;
        }
        let (end, crc) = (from.plus(body.len() as u64), crc32c::crc32c(&body));
        Response::with_body(200, "application/octet-stream", body)
            .header(END_HEADER, end.0.to_string())
            .header(COMMITTED_HEADER, self.limit().0.to_string())
            .header(CRC_HEADER, format!("{crc:08x}"))
    }

    /// Why there is nothing to give: damage here, or no record begins there.
    fn refusal(&self, from: LogPosition, to: LogPosition, unread: Unread) -> Response {
        let error = match unread {
            Unread::Beyond { end } => {
                let words = format!("the record at {from} ends at {end}, behind {to}: ask for whole records");
                return Response::words(400, words);
            }
            Unread::Bad(error) => error,
        };
        match self.first_bad(from) {
            Ok(Some(damage)) => {
                let words = format!("the log is damaged here, too: {damage}");
                if damage.from < self.limit() {
                    self.damage.report(damage);
                }
                Response::words(500, words)
            }
            Ok(None) => Response::words(400, format!("no record begins at {from} ({error}): ask for whole records")),
            Err(error) => Response::words(500, error.to_string()),
        }
    }

    /// The damage that keeps the record at `from` from being found, if there is any: at `from` or before it in its chunk.
    /// A chunk begins with a record, so its records are gone through from there.
    fn first_bad(&self, from: LogPosition) -> Result<Option<Damage>, ReadError> {
        let layout = self.layout();
        let start = layout.chunk_start(layout.chunk_of(from));
        let limit = self.published.flushed();
        let mut found = None;
        let read = self.log.with_chunk(start, &mut |bytes| {
            let bytes = &bytes[..usize::try_from(limit.since(start)).map_or(bytes.len(), |end| end.min(bytes.len()))];
            let mut at = start;
            while at <= from && at < limit {
                let rest = &bytes[usize::try_from(at.since(start)).expect("inside of a chunk")..];
                match RecordView::check(rest, at, layout.room(at)) {
                    Ok(record) => at = record.header.end(),
                    Err(error) => {
                        found = Some(damaged_range(layout, rest, at, &error));
                        return;
                    }
                }
            }
        });
        // A page that could not be read is such damage.
        if found.is_some() { Ok(found) } else { read.map(|()| None) }
    }
}

/// Why the first record was not copied.
enum Unread {
    /// It goes beyond what was asked for.
    Beyond { end: LogPosition },
    /// It does not check out, or none begins there.
    Bad(RecordError),
}

/// Copies whole records, of those with which `bytes` begin at `from`, and checks the copies.
fn copy_records(
    layout: ChunkLayout,
    bytes: &[u8],
    from: LogPosition,
    to: LogPosition,
    out: &mut Vec<u8>,
) -> Result<(), Unread> {
    let mut at = from;
    while at < to && out.len() < bytes.len() {
        let (start, room) = (out.len(), layout.room(at));
        let header = Header::read(&bytes[start..], at, room).map_err(Unread::Bad)?;
        if header.end() > to {
            // Unless its length is what is wrong with it.
            let record = RecordView::check(&bytes[start..], at, room).map_err(Unread::Bad)?;
            return Err(Unread::Beyond { end: record.header.end() });
        }
        let length = header.length as usize;
        if start > 0 && start + length > BYTES_MAX {
            break;
        }
        out.extend_from_slice(&bytes[start..start + length]);
        if let Err(error) = RecordView::check(&out[start..], at, room) {
            out.truncate(start);
            return Err(Unread::Bad(error));
        }
        at = header.end();
    }
    Ok(())
}

#[cfg(test)]
#[path = "log_bytes_tests.rs"]
mod tests;
