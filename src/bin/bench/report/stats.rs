//! What nodes say of themselves: `/stats` before and after the measured span, and the difference.
//!
//! Speaks just the HTTP that this one question needs, blocking and with time-outs, so that it works beside any runtime.
//! A figure that a node does not give (an older version, a `/proc` that cannot be read) counts as zero.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use serde_json::Value;

use crate::outcome::NodeReport;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the whole answer: a loaded node may be slow, but a dead one must not hold up the end of a run.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;
const HEADERS_MAX: usize = 64;
const TARGET: &str = "/stats?histograms=true";

/// The order in which a write meets the stages; others follow by name.
const STAGES: [&str; 7] = ["queue", "batchWait", "write", "flush", "replication/", "commit", "answer"];

/// What a node said at one moment. All counts are since the process started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    endpoint: String,
    role: String,
    /// Tells one process of the node from the next.
    process: (u64, String),
    uptime: Duration,
    cpu: Duration,
    resident_bytes: u64,
    log_enters: u64,
    log_flushes: u64,
    log_appends: u64,
    /// Stage, and how often each value in nanoseconds was recorded.
    stages: BTreeMap<String, BTreeMap<u64, u64>>,
}

/// Asks the node whose client HTTP endpoint this is, as this user (login and password). Blocks up to [`CONNECT_TIMEOUT`] + [`ANSWER_TIMEOUT`].
///
/// # Errors
/// When the node cannot be reached in time, refuses, or answers something else than statistics.
pub(crate) fn snapshot(http: SocketAddr, user: &(String, String)) -> anyhow::Result<Snapshot> {
    let body = get(http, user).with_context(|| format!("GET http://{http}{TARGET}"))?;
    let document: Value =
        serde_json::from_slice(&body).with_context(|| format!("http://{http}{TARGET} did not answer JSON"))?;
    read(&http.to_string(), &document)
}

/// What the node did between the two. When it was restarted in between, everything counts from that start.
pub(crate) fn difference(before: &Snapshot, after: &Snapshot) -> NodeReport {
    let restarted = after.process != before.process || after.uptime < before.uptime;
    let nothing = Snapshot::default();
    let before = if restarted { &nothing } else { before };
    let mut names: Vec<&String> = after.stages.keys().collect();
    names.sort_by_key(|name| STAGES.iter().position(|stage| name.starts_with(stage)).unwrap_or(STAGES.len()));
    NodeReport {
        endpoint: after.endpoint.clone(),
        role: after.role.clone(),
        restarted,
        cpu: after.cpu.saturating_sub(before.cpu),
        resident_bytes: after.resident_bytes,
        log_enters: after.log_enters.saturating_sub(before.log_enters),
        log_flushes: after.log_flushes.saturating_sub(before.log_flushes),
        log_appends: after.log_appends.saturating_sub(before.log_appends),
        stages: names.iter().map(|name| ((*name).clone(), between(before, after, name))).collect(),
    }
}

fn between(before: &Snapshot, after: &Snapshot, stage: &str) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("3 digits are a precision that the library knows");
    let earlier = before.stages.get(stage);
    for (value, count) in &after.stages[stage] {
        let already = earlier.and_then(|counts| counts.get(value)).copied().unwrap_or(0);
        // Recording nothing would still count as a largest value.
        if *count > already {
            histogram.record_n(*value, count - already).expect("it resizes itself, so any value fits");
        }
    }
    histogram
}

/// Reads the document.
fn read(endpoint: &str, document: &Value) -> anyhow::Result<Snapshot> {
    let role = document["node"]["role"].as_str();
    let role = role.with_context(|| format!("http://{endpoint}/stats has no node.role; is it a ringstore node?"))?;
    let figure = |group: &str, name: &str| document[group][name].as_u64().unwrap_or(0);
    let mut stages = BTreeMap::new();
    for (name, stage) in document["stages"].as_object().into_iter().flatten() {
        let counts = counts(&stage["counts"])
            .with_context(|| format!("http://{endpoint}{TARGET}: stages.{name}.counts is not [[ns, count], …]"))?;
        stages.insert(name.clone(), counts);
    }
    Ok(Snapshot {
        endpoint: endpoint.to_string(),
        role: role.to_string(),
        process: (figure("proc", "id"), document["proc"]["startTime"].as_str().unwrap_or_default().to_string()),
        uptime: Duration::from_millis(figure("node", "uptimeMs")),
        cpu: Duration::from_millis(figure("proc", "cpuMs")),
        resident_bytes: figure("proc", "mem"),
        log_enters: figure("log", "enters"),
        log_flushes: figure("log", "flushes"),
        log_appends: figure("log", "appends"),
        stages,
    })
}

fn counts(pairs: &Value) -> Option<BTreeMap<u64, u64>> {
    pairs.as_array()?.iter().map(|pair| Some((pair.get(0)?.as_u64()?, pair.get(1)?.as_u64()?))).collect()
}

/// One request on its own connection; the body of the answer.
fn get(http: SocketAddr, (login, password): &(String, String)) -> anyhow::Result<Vec<u8>> {
    let credentials = base64(format!("{login}:{password}").as_bytes());
    let mut stream = TcpStream::connect_timeout(&http, CONNECT_TIMEOUT)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let request = format!(
        "GET {TARGET} HTTP/1.1\r\nHost: {http}\r\nAuthorization: Basic {credentials}\r\n\
         Accept: application/json\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        if let Some(body) = body(&received, false)? {
            return Ok(body);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no whole answer within {ANSWER_TIMEOUT:?}; {} bytes came", received.len());
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return body(&received, true)?.context("the node closed before its answer was whole"),
            length => received.extend_from_slice(&piece[..length]),
        }
        ensure!(received.len() <= ANSWER_BYTES_MAX, "the answer is longer than {ANSWER_BYTES_MAX} bytes");
    }
}

/// As credentials are written (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, index| bits << 8 | usize::from(*group.get(index).unwrap_or(&0)));
        for sign in 0..4 {
            // A group of one byte has two signs, one of two has three.
            text.push(if sign > group.len() { '=' } else { SIGNS[bits >> (18 - 6 * sign) & 63].into() });
        }
    }
    text
}

/// The body of a whole answer; `None` while more must come. Without a length it ends where the connection does.
fn body(received: &[u8], closed: bool) -> anyhow::Result<Option<Vec<u8>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(received)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or(0);
    if status != 200 {
        bail!("status {status} {}; wanted 200", response.reason.unwrap_or_default());
    }
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    ensure!(header("transfer-encoding").is_none(), "the answer is chunked, which this reader does not know");
    let rest = &received[head..];
    let Some(length) = header("content-length") else {
        return Ok(closed.then(|| rest.to_vec()));
    };
    let length: usize = std::str::from_utf8(length.value)?.trim().parse().context("Content-Length is not a number")?;
    Ok(rest.get(..length).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    fn document(id: u64, uptime_ms: u64, cpu_ms: u64, flush: &Value) -> Value {
        json!({
            "proc": { "id": id, "startTime": "t", "cpuMs": cpu_ms, "mem": 4096 },
            "node": { "role": "leader", "uptimeMs": uptime_ms },
            "log": { "appends": cpu_ms * 2, "flushes": cpu_ms, "enters": cpu_ms * 3 },
            "stages": {
                "answer": { "count": 1, "counts": [[10, 1]] },
                "replication/b": { "counts": [] },
                "flush": { "counts": flush },
                "queue": { "counts": [] },
            },
        })
    }

    fn snapshots(before: &Value, after: &Value) -> NodeReport {
        difference(&read("n:1", before).unwrap(), &read("n:1", after).unwrap())
    }

    #[test]
    fn the_difference_is_what_happened_in_between() {
        let before = document(7, 1_000, 100, &json!([[1000, 5], [2000, 1]]));
        let after = document(7, 9_000, 350, &json!([[1000, 7], [2000, 1], [500_000, 1]]));
        let report = snapshots(&before, &after);
        assert!(!report.restarted);
        assert_eq!((report.endpoint.as_str(), report.role.as_str(), report.resident_bytes), ("n:1", "leader", 4096));
        assert_eq!(report.cpu, Duration::from_millis(250));
        assert_eq!((report.log_appends, report.log_flushes, report.log_enters), (500, 250, 750));
        // In the order of a write's way, not of the alphabet.
        let names: Vec<&str> = report.stages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["queue", "flush", "replication/b", "answer"]);
        let flush = &report.stages[1].1;
        assert_eq!((flush.len(), flush.count_at(1000), flush.count_at(2000), flush.count_at(500_000)), (3, 2, 0, 1));
        assert!(report.stages[3].1.is_empty());
    }

    #[test]
    fn a_restarted_node_counts_from_its_start() {
        let before = document(7, 5_000, 100, &json!([[1000, 5]]));
        // Less uptime; or another process that has run longer by now.
        for after in [document(7, 4_000, 30, &json!([[1000, 2]])), document(8, 6_000, 30, &json!([[1000, 2]]))] {
            let report = snapshots(&before, &after);
            assert!(report.restarted);
            assert_eq!((report.cpu, report.stages[1].1.len()), (Duration::from_millis(30), 2));
        }
    }

    #[test]
    fn what_is_not_said_counts_as_zero_but_nonsense_is_an_error() {
        let old = read("n:1", &json!({ "node": { "role": "follower" }, "proc": { "mem": null } })).unwrap();
        assert_eq!((old.resident_bytes, old.stages.len()), (0, 0));
        assert!(read("n:1", &json!({ "hello": 1 })).is_err());
        let text = format!("{:#}", read("n:1", &document(1, 1, 1, &json!([["x", 1]]))).unwrap_err());
        assert!(text.contains("stages.flush.counts"), "{text}");
    }

    /// Answers one request with these pieces; what `snapshot` makes of it, and what it had asked.
    fn asked(pieces: &'static [&'static str]) -> (anyhow::Result<Snapshot>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            for piece in pieces {
                stream.write_all(piece.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
            String::from_utf8(request).unwrap()
        });
        (snapshot(address, &("admin".into(), "changeit".into())), server.join().unwrap())
    }

    #[test]
    fn it_asks_as_the_user_and_reads_the_answer_in_pieces() {
        let whole: &'static [&'static str] =
            &["HTTP/1.1 200 OK\r\nConte", "nt-Length: 26\r\n\r\n{\"node\":", "{\"role\":\"leader\"}}"];
        let (found, request) = asked(whole);
        assert_eq!(found.unwrap().role, "leader");
        assert!(request.starts_with("GET /stats?histograms=true HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Basic YWRtaW46Y2hhbmdlaXQ=\r\n"), "{request}");
        let (found, _) = asked(&["HTTP/1.1 200 OK\r\n\r\n", "{\"node\":{\"role\":\"follower\"}}"]);
        assert_eq!(found.unwrap().role, "follower");
    }

    #[test]
    fn credentials_of_any_length() {
        let check = |text: &str, wanted| assert_eq!(base64(text.as_bytes()), wanted, "{text}");
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foobar", "Zm9vYmFy");
        check("\u{3ff}\u{3ff}", "z7/Pvw==");
    }

    #[test]
    fn a_bad_answer_is_an_error_that_names_it() {
        let check = |pieces, word: &str| {
            let text = format!("{:#}", asked(pieces).0.unwrap_err());
            assert!(text.contains(word), "{text}");
        };
        check(&["HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"], "401");
        check(&["HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"], "closed before");
        check(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], "did not answer JSON");
        check(&["no HTTP at all\r\n\r\n"], "GET http://127.0.0.1:");
    }
}
