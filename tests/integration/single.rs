//! One node: it starts, takes writes, shows itself over HTTP, ends when told, and has everything when it is back.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::{ANY, Client, NO_STREAM, PING, PONG, Refusal, Written, event};
use crate::support::cluster::{Node, scratch};
use crate::support::http;
use crate::support::messages::{NewEvent, WriteEvents};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn connect(node: &Node) -> Client {
    Client::connect(node.ext_tcp(), LIMIT).expect("the client port accepts")
}

/// Writes and expects an answer of any kind.
pub(crate) fn write(
    client: &mut Client,
    stream: &str,
    expected_version: i64,
    events: Vec<NewEvent>,
) -> Result<Written, Refusal> {
    let request = WriteEvents { stream: stream.to_owned(), expected_version, events, require_master: false };
    client.write(&request, LIMIT, &|| false).expect("an answer")
}

fn numbered(number: u8) -> NewEvent {
    event([number + 1; 16], vec![number; 10])
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = scratch("restart");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let mut client = connect(&node);
    for number in 0..20 {
        let written = write(&mut client, "kept", i64::from(number) - 1, vec![numbered(number)]).unwrap();
        assert_eq!(written.first_event_number, i64::from(number));
    }
    assert!(node.stop().unwrap().success(), "SIGTERM is a clean end\n{}", node.tail());
    for end in ["after SIGTERM", "after SIGKILL"] {
        node.start_and_wait().unwrap();
        let mut client = connect(&node);
        let events = client.read_to_end("kept").unwrap();
        let data: Vec<_> = events.iter().map(|event| event.data.clone()).collect();
        assert_eq!(data, (0..20).map(|number| vec![number; 10]).collect::<Vec<_>>(), "{end}");
        let repeated = write(&mut client, "kept", 18, vec![numbered(19)]).unwrap();
        assert_eq!((repeated.first_event_number, repeated.last_event_number), (19, 19), "a repeat adds nothing, {end}");
        node.kill();
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn expected_versions_are_judged() {
    let folder = scratch("versions");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let mut client = connect(&node);
    write(&mut client, "judged", NO_STREAM, vec![numbered(0), numbered(1)]).unwrap();
    for wrong in [NO_STREAM, 0, 5] {
        match write(&mut client, "judged", wrong, vec![numbered(9)]) {
            Err(Refusal::Result { result: Refusal::WRONG_EXPECTED_VERSION, current_version: 1, .. }) => {}
            other => panic!("expected version {wrong}: {other:?}"),
        }
    }
    assert_eq!(write(&mut client, "judged", ANY, vec![numbered(2)]).unwrap().last_event_number, 2);
    assert_eq!(client.read_to_end("judged").unwrap().len(), 3);
    assert_eq!(client.read_to_end("never-written").unwrap().len(), 0);
    let pong = client.call(PING, b"payload".to_vec(), LIMIT, &|| false).unwrap();
    assert_eq!((pong.command, pong.payload.as_slice()), (PONG, &b"payload"[..]));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn http_endpoints_have_the_shape_that_clients_read() {
    let folder = scratch("http");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let get = |path: &str| http::get(node.ext_http(), path, LIMIT).unwrap();

    for path in ["/gossip", "/gossip?format=json"] {
        let gossip = get(path);
        assert_eq!(gossip.status, 200);
        assert!(gossip.head.contains("content-type: application/json"), "{}", gossip.head);
        check_gossip(&gossip.json().unwrap());
    }
    for path in ["/ping", "/info", "/stats"] {
        let response = get(path);
        assert_eq!(response.status, 200, "{path}");
        assert!(response.json().unwrap().is_object(), "{path}: {}", response.body);
    }
    let figures = node.figures().unwrap();
    assert!(figures.leads() && figures.term > 0, "{figures:?}");
    assert!(figures.commit_position > 0 && figures.commit_position <= figures.log_end, "{figures:?}");
    assert_eq!(get("/info").json().unwrap()["state"], "master");
    assert_eq!(get("/no/such/path").status, 404);
    // The external port tells; it does not listen.
    let posted = http::request(node.ext_http(), "POST", "/gossip", "{}", LIMIT).unwrap();
    assert_eq!(posted.status, 405);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Clients refuse a member with a key missing; v5's own words are on this wire and nowhere else.
fn check_gossip(gossip: &Value) {
    let texts =
        ["instanceId", "timeStamp", "state", "internalTcpIp", "externalTcpIp", "internalHttpIp", "externalHttpIp"];
    let numbers = [
        "internalTcpPort",
        "internalSecureTcpPort",
        "externalTcpPort",
        "externalSecureTcpPort",
        "internalHttpPort",
        "externalHttpPort",
        "lastCommitPosition",
        "writerCheckpoint",
        "chaserCheckpoint",
        "epochPosition",
        "epochNumber",
        "nodePriority",
    ];
    assert!(gossip["serverIp"].is_string() && gossip["serverPort"].is_number(), "{gossip}");
    let member = &gossip["members"][0];
    assert!(texts.iter().all(|key| member[*key].is_string()), "{member}");
    assert!(numbers.iter().all(|key| member[*key].is_number()), "{member}");
    assert_eq!((member["isAlive"].as_bool(), member["state"].as_str()), (Some(true), Some("Master")));
    // This key would mark a v20 node, and v5 clients would then ask for things that are not there.
    assert!(member.get("httpEndPointIp").is_none());
}

#[test]
fn a_second_node_on_the_same_data_is_refused() {
    let folder = scratch("locked");
    let mut node = Node::single(&folder, &[]);
    node.start_and_wait().unwrap();
    let mut second = Node::single(&folder, &[]);
    second.start().unwrap();
    assert!(!second.wait().unwrap().success(), "two nodes on one data directory");
    assert!(second.tail().contains("db"), "the refusal names the directory: {}", second.tail());
    write(&mut connect(&node), "undisturbed", ANY, vec![numbered(0)]).unwrap();
    drop(node);
    std::fs::remove_dir_all(folder).unwrap();
}
