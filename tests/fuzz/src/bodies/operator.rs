//! What comes to an operator's commands and from them: requests for changes, the status of a cluster, the answers of
//! other nodes, and the manifest of a backup.

use std::path::Path;

use bytes::Bytes;
use ringstore::admin::{Change, Resign};
use ringstore::background::PeerAnswer;
use ringstore::http::{Method, Response};
use ringstore::operator::{BackupManifest, ClusterStatus, OperatorError};
use ringstore::types::NodeId;
use serde_json::{Value, json};

use super::tools::Input;

const ID: &str = "01010101-0101-0101-0101-010101010101";

/// The first byte says what the rest is: the body of a request for a change, or the answers `/admin/status` and, behind
/// a zero byte, `/stats`.
pub(super) fn admin(input: &[u8]) {
    let mut input = Input(input);
    match input.byte() % 3 {
        0 => change(input.rest()),
        1 => resign(input.rest()),
        _ => status(input.rest()),
    }
}

fn change(body: &[u8]) {
    let Ok(asked) = serde_json::from_slice::<Change>(body) else { return };
    let again = json!({ "node": asked.node.to_string() });
    assert_eq!(serde_json::from_value::<Change>(again).ok(), Some(asked), "the same when it is asked again");
}

fn resign(body: &[u8]) {
    let Ok(asked) = serde_json::from_slice::<Resign>(body) else { return };
    let again = json!({ "to": asked.to.map(|node| node.to_string()) });
    assert_eq!(serde_json::from_value::<Resign>(again).ok(), Some(asked), "the same when it is asked again");
}

fn status(answers: &[u8]) {
    let mut answers = answers.splitn(2, |byte| *byte == 0);
    let (status, stats) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
    let Ok(value) = serde_json::from_slice::<Value>(status) else { return };
    let Ok(status) = serde_json::from_value::<ClusterStatus>(value.clone()) else { return };
    let stats = serde_json::from_slice(stats).unwrap_or(Value::Null);
    let alone = status.lines(None, &stats);
    assert_eq!(alone, status.lines(Some(&status), &stats), "who leads says the same as who is asked");
    assert!(alone.iter().all(|line| !line.chars().any(char::is_control)), "nothing for a terminal: {alone:?}");
    let count = |list: &str| value[list].as_array().map_or(0, Vec::len);
    assert!(alone.len() >= 7 + count("nodes"), "a line for each node");
    for entry in ["members", "nodes"].iter().filter_map(|list| value[list].as_array()).flatten() {
        find(&status, entry);
    }
    assert!(status.find("").is_err(), "nobody is meant by nothing");
}

/// Whoever is listed is found by the whole identifier, and by no address that is not its own.
fn find(status: &ClusterStatus, entry: &Value) {
    let node: NodeId = serde_json::from_value(entry["node"].clone()).expect("it was read before");
    assert_eq!(status.find(&node.to_string()).ok(), Some(node));
    if let Some(address) = entry["intHttp"].as_str() {
        let _ = status.find(address);
    }
}

pub(super) fn admin_seeds() -> Vec<Vec<u8>> {
    let member = json!({ "node": ID, "intIp": "10.0.0.1", "intTcpPort": 1112, "intHttpPort": 2112 });
    let node = json!({
        "node": ID, "isAlive": true, "heardMsAgo": 20, "state": "leader", "isReadOnly": false, "term": 7,
        "writerCheckpoint": 5000, "priority": 0, "isSuspect": false, "flushMicros": 800,
        "started": "2020-01-02T03:04:05Z", "intTcp": "10.0.0.1:1112", "intHttp": "10.0.0.1:2112",
        "extTcp": "10.0.0.1:1113",
    });
    let follower = json!({ "node": ID, "acknowledged": 5000, "lagBytes": 0, "isLinked": true });
    let status = json!({
        "node": ID, "version": "0.1.0", "cluster": ID, "role": "leader", "term": 7, "leader": ID,
        "isChangePending": false, "isSuspect": false, "isDiskFull": false, "logEnd": 5000, "commitPosition": 5000,
        "members": [member], "nodes": [node], "followers": [follower],
    });
    let stats = json!({ "storage": { "damageFound": 0 }, "index": { "isComplete": true } });
    let with = |kind: u8, value: &Value| [&[kind], value.to_string().as_bytes()].concat();
    vec![
        with(0, &json!({ "node": ID })),
        with(1, &json!({ "to": ID })),
        with(1, &json!({})),
        with(2, &status),
        [&with(2, &status)[..], &[0], stats.to_string().as_bytes()].concat(),
    ]
}

/// The first two bytes say where the answer is cut; the rest is what a node answers to a request for its log.
pub(super) fn peer_answer(input: &[u8]) {
    let mut input = Input(input);
    let cut = usize::from(input.byte()) | usize::from(input.byte()) << 8;
    let wire = input.rest();
    let whole = PeerAnswer::parse(wire).ok();
    let begun = PeerAnswer::parse(&wire[..cut.min(wire.len())]).ok();
    match (&begun, &whole) {
        (None, _) => assert!(whole.is_none(), "what is no beginning of an answer does not become one"),
        (Some(Some(_)), _) => assert_eq!(begun, whole, "what is behind an answer is no part of it"),
        (Some(None), _) => {}
    }
    let Some(Some(answer)) = whole else { return };
    assert!(answer.body.len() <= wire.len() && answer.status < 1000);
    // As a node of ours writes it.
    let mut response = Response::new(answer.status);
    response.body = Bytes::from(answer.body.clone());
    if let Some(crc) = &answer.crc {
        response = response.header("Ring-Crc32c", crc.clone());
    }
    if let Some(proof) = &answer.proof {
        response = response.header("Ring-Proof", proof.clone());
    }
    let again = PeerAnswer::parse(&response.encode(Method::Get, false));
    // Some have no body, and what is not ASCII is not said.
    let is_ascii = |value: &Option<String>| value.iter().all(|value| value.bytes().all(|byte| byte.is_ascii_graphic()));
    let is_plain = is_ascii(&answer.crc) && is_ascii(&answer.proof);
    if is_plain && (200..600).contains(&answer.status) && ![204, 304].contains(&answer.status) {
        assert_eq!(again.ok().flatten(), Some(answer), "the same when it is said again");
    }
}

pub(super) fn peer_answer_seeds() -> Vec<Vec<u8>> {
    let seed = |cut: u16, text: &str| [&cut.to_le_bytes()[..], text.as_bytes()].concat();
    vec![
        seed(9, "HTTP/1.1 200 OK\r\nRing-Crc32c: 0a0b0c0d\r\nRing-End: 64\r\nContent-Length: 7\r\n\r\nrecords"),
        seed(90, "HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!and more"),
        seed(20, "HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"),
        seed(50, "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"),
    ]
}

/// `backup.json`.
pub(super) fn backup_json(input: &[u8]) {
    let path = Path::new("backup.json");
    let manifest = match BackupManifest::parse(path, input) {
        Ok(manifest) => manifest,
        Err(OperatorError::Refused { words }) => {
            assert!(words.contains("backup.json"), "the words name the file: {words}");
            return;
        }
        Err(error) => panic!("another error: {error}"),
    };
    let bytes = manifest.encode();
    assert_eq!(BackupManifest::parse(path, &bytes).ok().as_ref(), Some(&manifest), "the same when it is read again");
    let value: Value = serde_json::from_slice(&bytes).expect("it is JSON");
    let number = |value: &Value| value.as_u64().expect("a number");
    let (position, chunk_size) = (number(&value["position"]), number(&value["chunkSize"]));
    let chunks = value["chunks"].as_array().expect("a list");
    let bytes: Vec<u64> = chunks.iter().map(|chunk| number(&chunk["bytes"])).collect();
    assert_eq!(bytes.iter().sum::<u64>(), position, "the chunks make up the log");
    assert!(bytes.iter().all(|bytes| (1..=chunk_size).contains(bytes)));
}

pub(super) fn backup_json_seeds() -> Vec<Vec<u8>> {
    let manifest = json!({
        "ringstoreBackup": 1, "cluster": ID, "chunkSize": 1 << 20, "node": ID, "position": (1 << 20) + 64, "term": 3,
        "epochs": [{ "number": 1, "position": 0, "id": ID }, { "number": 3, "position": 640, "id": ID }],
        "records": 5, "events": 4, "date": "2020-01-02T03:04:05.678Z", "version": "0.1.0",
        "chunks": [{ "chunk": 0, "bytes": 1 << 20, "crc32c": 7 }, { "chunk": 1, "bytes": 64, "crc32c": 8 }],
    });
    let text = |value: &Value| value.to_string().into_bytes();
    let mut empty = manifest.clone();
    (empty["position"], empty["chunks"], empty["epochs"]) = (json!(0), json!([]), json!([]));
    vec![text(&manifest), text(&empty), text(&json!({ "ringstoreBackup": 2 }))]
}
