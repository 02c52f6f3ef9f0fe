//! Control threads that talk to each other over loopback, each with a small stand-in for its log thread.
//!
//! Goal: what the parts promise holds when they are put together: a cluster is founded, votes travel, gossip shows who
//! is there and who is gone, and no request, however wrong, disturbs any of it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::codec::record::MembershipBody;
use crate::consensus::{TransferRequest, Versioned, VoteRequest, VoteResponse};
use crate::engine::{AnswerTimes, ClientCounters, ControlInput, ControlOutput, NodeView, Published, Role};
use crate::gossip::{Addresses, Directory, PeerRoutes, Standing};
use crate::queue::Queue;
use crate::security::Plane;
use crate::storage::{ChunkLayout, DamageReports, LogReader};
use crate::types::{ClusterId, Guid, LogPosition, NodeId, Term, Ticks, WallTime};

/// The same where the internal plane is closed.
#[path = "closed_tests.rs"]
mod closed;

const PATIENCE: Duration = Duration::from_secs(20);

struct NoIndex;

impl IndexFigures for NoIndex {
    fn applied(&self) -> LogPosition {
        LogPosition(2000)
    }

    fn last_event_position(&self) -> Option<LogPosition> {
        None
    }

    fn figures(&self) -> crate::index::IndexFigures {
        crate::index::IndexFigures::default()
    }

    fn is_complete(&self) -> bool {
        true
    }
}

/// The stand-in takes over from no leader of this term.
const UNWELCOME_TERM: Term = Term(99);

/// What the stand-in for the log thread has seen.
#[derive(Default)]
struct Seen {
    /// Everything that came from the control thread.
    inputs: usize,
    accepted: Option<MembershipBody>,
    founded: Option<MembershipBody>,
    votes: Vec<(NodeId, bool, Option<VoteResponse>)>,
    /// Leaders that gossip told of.
    hints: Vec<NodeId>,
    /// Followers that would not take over, and whether they had said so.
    declined: Vec<(NodeId, bool, String)>,
}

struct TestNode {
    node: NodeId,
    address: SocketAddr,
    queues: ControlQueues,
    published: Arc<Published>,
    seen: Arc<Mutex<Seen>>,
    /// While false the stand-in answers nothing.
    answers: Arc<AtomicBool>,
    stop: StopSignal,
    control: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl TestNode {
    fn start(n: u8, listener: TcpListener, cluster_size: usize, seeds: Vec<String>) -> TestNode {
        TestNode::start_in(Plane::Open, n, listener, cluster_size, seeds)
    }

    fn start_in(plane: Plane, n: u8, listener: TcpListener, cluster_size: usize, seeds: Vec<String>) -> TestNode {
        let node = NodeId(Guid([n; 16]));
        let address = listener.local_addr().unwrap();
        let addresses = Addresses {
            int_tcp: address,
            int_http: address,
            ext_tcp: address,
            ext_http: address,
            ext_secure_tcp: None,
        };
        let to_log = Arc::new(Queue::for_ring(64).unwrap());
        let queues = ControlQueues { to_log, from_log: Arc::new(Queue::for_task(64)) };
        let published = Arc::new(Published::default());
        let status = NodeStatus {
            node,
            published: Arc::clone(&published),
            clients: Arc::new(ClientCounters { queued_bytes_now: 5.into(), ..ClientCounters::default() }),
            index: Arc::new(NoIndex),
            storage: Arc::default(),
            directory: Directory::default(),
            routes: PeerRoutes::default(),
            locks: Locks { plane: plane.clone(), ..Locks::default() },
            started: WallTime(637_135_310_456_780_000),
            started_at: Instant::now(),
        };
        let options = ControlOptions {
            node,
            instance: Guid::random(),
            cluster_size,
            chunk_size: 1 << 20,
            addresses,
            ext_advertise: Vec::new(),
            way: crate::ring::Way::default(),
            plane: plane.clone(),
            priority: 0,
            read_only: false,
            standing: Standing::Empty,
            seeds: SeedSource { fixed: seeds, dns: None },
            gossip_interval: Duration::from_millis(200),
            gossip_timeout: Duration::from_millis(500),
            gossip_allowed_difference: Duration::from_secs(60),
            settings: vec![("ClusterSize", cluster_size as u64)],
            log: LogReader::new("/nowhere", ChunkLayout { chunk_size: 1 << 20 }),
            damage: DamageReports::default(),
        };
        let stop = StopSignal::new();
        let (seen, over) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let answers = Arc::new(AtomicBool::new(true));
        let log = LogStandIn {
            node,
            queues: queues.clone(),
            seen: Arc::clone(&seen),
            answers: Arc::clone(&answers),
            published: Arc::clone(&published),
        };
        let log_over = Arc::clone(&over);
        thread::spawn(move || log.run(&log_over));
        let (thread_queues, thread_stop) = (queues.clone(), stop.clone());
        let control = thread::spawn(move || {
            ControlThread::run(options, Some(listener), thread_queues, status, &thread_stop, &|| ()).unwrap();
        });
        TestNode { node, address, queues, published, seen, answers, stop, control: Some(control), over }
    }

    /// Asks with fresh bytes on a fresh connection, and reads to the end.
    fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        (status, answer)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, answer) = self.raw(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.raw(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// State and liveness of each member, sorted; without seeds that did not answer.
    fn shown(&self) -> Vec<(String, bool)> {
        let document = self.json("/gossip");
        let member = |m: &Value| (m["state"].as_str().unwrap().to_owned(), m["isAlive"].as_bool().unwrap());
        let members = document["members"].as_array().unwrap().iter().map(member);
        let mut shown: Vec<_> = members.filter(|(state, _)| state != "Manager").collect();
        shown.sort();
        shown
    }

    fn stop(&mut self) {
        self.stop.give();
        self.control.take().unwrap().join().unwrap();
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop.give();
        self.over.store(true, Ordering::Relaxed);
        let failed = self.control.take().map(JoinHandle::join).is_some_and(|result| result.is_err());
        assert!(!failed || thread::panicking(), "the control thread panicked");
    }
}

/// Answers like a log thread that never says no.
struct LogStandIn {
    node: NodeId,
    queues: ControlQueues,
    seen: Arc<Mutex<Seen>>,
    answers: Arc<AtomicBool>,
    published: Arc<Published>,
}

impl LogStandIn {
    fn run(&self, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            while let Some(input) = self.queues.to_log.pop() {
                self.seen.lock().inputs += 1;
                if self.answers.load(Ordering::Relaxed) {
                    self.handle(input);
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn handle(&self, input: ControlInput) {
        let answer = |output| self.queues.from_log.send(output).unwrap();
        match input {
            ControlInput::Vote { token, request, .. } => {
                let response = VoteResponse {
                    voter: self.node,
                    term: request.term,
                    granted: true,
                    leader: None,
                    is_suspect: true,
                };
                answer(ControlOutput::VoteAnswer { token, response });
            }
            ControlInput::VoteAnswered { from, pre, response, .. } => {
                self.seen.lock().votes.push((from, pre, response))
            }
            ControlInput::Transfer { token, request } => {
                let is_willing = request.term != UNWELCOME_TERM;
                let result = if is_willing { Ok(()) } else { Err("not for me".to_owned()) };
                answer(ControlOutput::Answer { token, result });
            }
            ControlInput::TrustLog { token } => {
                let result = Err("this node is not suspect: there is nothing to trust".to_owned());
                answer(ControlOutput::Answer { token, result });
            }
            ControlInput::Resign { token, .. } | ControlInput::ChangeMembers { token, .. } => {
                let result = Err("this node does not lead".to_owned());
                answer(ControlOutput::Answer { token, result });
            }
            ControlInput::AcceptFounding { token, list } => {
                let mut seen = self.seen.lock();
                assert!(seen.accepted.as_ref().is_none_or(|before| *before == list), "one list in a life");
                seen.accepted = Some(list);
                answer(ControlOutput::Answer { token, result: Ok(()) });
            }
            ControlInput::Founded { list } => {
                let leads = list.members[0].node == self.node;
                self.seen.lock().founded = Some(list);
                let role = if leads { Role::Leader } else { Role::Follower };
                self.published.set_view(NodeView { role, term: Term(1), ..NodeView::default() });
                self.published.set_positions(LogPosition(9), LogPosition(8), LogPosition(7), LogPosition(6));
                answer(ControlOutput::ViewChanged);
            }
            ControlInput::LeaderSeen { leader, .. } => self.seen.lock().hints.push(leader),
            ControlInput::TransferDeclined { from, is_refusal, reason, .. } => {
                self.seen.lock().declined.push((from, is_refusal, reason));
            }
            ControlInput::JoinAsClone { .. } => panic!("nobody is a clone here"),
        }
    }
}

fn cluster(count: u8) -> Vec<TestNode> {
    cluster_in(&Plane::Open, count)
}

fn cluster_in(plane: &Plane, count: u8) -> Vec<TestNode> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    // Names, so that they are looked up: which may also give addresses where nobody listens.
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let seeds: Vec<String> = listeners.iter().map(|listener| format!("localhost:{}", port(listener))).collect();
    let numbered = (1..=count).zip(listeners);
    let start = |(n, listener)| TestNode::start_in(plane.clone(), n, listener, usize::from(count), seeds.clone());
    numbered.map(start).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn vote_request() -> VoteRequest {
    VoteRequest {
        cluster: ClusterId(Guid([5; 16])),
        candidate: NodeId(Guid([1; 16])),
        term: Term(2),
        last_term: Term(1),
        log_end: 100,
        transfer: false,
        is_suspect: true,
    }
}

fn pair(state: &str, is_alive: bool) -> (String, bool) {
    (state.to_owned(), is_alive)
}

#[test]
fn a_cluster_is_founded_and_shows_who_is_there_and_who_is_gone() {
    let mut nodes = cluster(3);
    wait_until("all founded", || nodes.iter().all(|node| node.seen.lock().founded.is_some()));
    let lists: Vec<_> = nodes.iter().map(|node| node.seen.lock().founded.clone().unwrap()).collect();
    // Who does not follow the leader yet hears of it from gossip.
    let leader = lists[0].members[0].node;
    let hinted = |node: &TestNode| node.node == leader || node.seen.lock().hints.contains(&leader);
    wait_until("hints", || nodes.iter().all(hinted));
    assert!(lists.iter().all(|list| *list == lists[0] && list.members.len() == 3));

    let expected = [pair("Master", true), pair("Slave", true), pair("Slave", true)];
    for node in &nodes {
        wait_until("all are shown", || node.shown() == expected);
    }
    nodes[2].stop();
    let expected = [pair("Master", true), pair("Slave", false), pair("Slave", true)];
    for node in &nodes[..2] {
        wait_until("the third is dead", || node.shown() == expected);
    }
}

#[test]
fn votes_travel_and_come_back() {
    let mut nodes = cluster(3);
    wait_until("all founded", || nodes.iter().all(|node| node.seen.lock().founded.is_some()));
    nodes[2].stop();
    nodes[1].answers.store(true, Ordering::Relaxed);
    let ask = |to: NodeId, pre| {
        nodes[0].queues.from_log.send(ControlOutput::SendVote { to, pre, request: vote_request() }).unwrap();
        wait_until("an answer", || !nodes[0].seen.lock().votes.is_empty());
        nodes[0].seen.lock().votes.pop().unwrap()
    };
    let granted = VoteResponse { voter: nodes[1].node, term: Term(2), granted: true, leader: None, is_suspect: true };
    assert_eq!(ask(nodes[1].node, true), (nodes[1].node, true, Some(granted)));
    assert_eq!(ask(nodes[1].node, false), (nodes[1].node, false, Some(granted)));
    assert_eq!(ask(nodes[2].node, false), (nodes[2].node, false, None), "stopped");
    let nobody = NodeId(Guid([99; 16]));
    assert_eq!(ask(nobody, false), (nobody, false, None), "unknown");
    // A log thread that does not answer in time is no vote, and the candidate is not kept waiting.
    nodes[1].answers.store(false, Ordering::Relaxed);
    let start = Instant::now();
    assert_eq!(ask(nodes[1].node, false).2, None);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_leader_hears_who_does_not_take_over_and_who_may_not_have_been_asked() {
    let mut nodes = cluster(3);
    wait_until("all founded", || nodes.iter().all(|node| node.seen.lock().founded.is_some()));
    nodes[2].stop();
    let ask = |to: NodeId, term| {
        let request = TransferRequest { cluster: ClusterId(Guid([5; 16])), leader: nodes[0].node, term };
        nodes[0].queues.from_log.send(ControlOutput::SendTransfer { to, request }).unwrap();
    };
    let declined = || {
        wait_until("it was declined", || !nodes[0].seen.lock().declined.is_empty());
        nodes[0].seen.lock().declined.pop().unwrap()
    };
    ask(nodes[1].node, Term(2));
    ask(nodes[1].node, UNWELCOME_TERM);
    let (from, is_refusal, words) = declined();
    assert_eq!((from, is_refusal), (nodes[1].node, true), "{words}");
    assert!(words.contains("not for me"), "{words}");
    ask(nodes[2].node, Term(2));
    let (from, is_refusal, words) = declined();
    assert_eq!((from, is_refusal), (nodes[2].node, false), "{words}");
    nodes[1].answers.store(false, Ordering::Relaxed);
    ask(nodes[1].node, Term(2));
    let (from, is_refusal, words) = declined();
    assert_eq!((from, is_refusal), (nodes[1].node, false), "{words}");
    assert_eq!(nodes[0].seen.lock().declined.len(), 0, "who agrees declines nothing");
}

#[test]
fn a_single_node_is_founded_at_once_and_serves_its_figures() {
    let nodes = cluster(1);
    let node = &nodes[0];
    wait_until("founded", || node.shown() == [pair("Master", true)]);
    let info = node.json("/info");
    assert_eq!((info["esVersion"].as_str(), info["state"].as_str()), (Some("5.0.11.0"), Some("master")));
    assert_eq!(node.json("/ping")["text"], "Ping request successfully handled");
    let stats = node.json("/stats");
    assert_eq!(stats["node"]["role"], "leader");
    assert_eq!(stats["positions"]["logEnd"], 9);
    assert_eq!(stats["positions"]["applied"], 2000);
    assert_eq!(stats["es"]["checksum"], 8);
    assert!(stats["proc"]["mem"].as_u64().unwrap() > 0);
    assert_eq!(stats["clients"]["queuedBytesNow"], 5);
    assert_eq!(node.get("/health/live").0, 204);
    // No other node has a say here, or could follow it.
    for path in ["/gossip", "/elections/pre-vote", "/elections/vote", "/elections/transfer"] {
        let (status, answer) = node.post(path, &serde_json::to_string(&Versioned::new(vote_request())).unwrap());
        assert!(status == 409 && answer.contains("on its own (ClusterSize 1)"), "{path}: {answer}");
    }
    let (status, answer) = node.post("/admin/members/add", &json!({ "node": NodeId(Guid([2; 16])) }).to_string());
    assert!(status == 409 && answer.contains("restart it with ClusterSize 3"), "{answer}");
    let (_, answer) = node.raw("GET /gossip?format=json HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.contains("\r\nContent-Type: application/json; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\r\nAccess-Control-Allow-Methods: GET, POST, OPTIONS\r\n"), "{answer}");
}

#[test]
fn requests_of_the_operator_and_of_peers_get_their_answers() {
    let nodes = cluster(2);
    let (status, answer) = nodes[0].post("/admin/resign", "");
    assert_eq!(status, 409);
    assert!(answer.contains("this node does not lead"), "{answer}");
    let (status, answer) = nodes[0].post("/admin/trust", "");
    assert_eq!(status, 409);
    assert!(answer.contains("not suspect"), "{answer}");
    let request = TransferRequest { cluster: ClusterId(Guid([5; 16])), leader: NodeId(Guid([1; 16])), term: Term(2) };
    assert_eq!(nodes[0].post("/elections/transfer", &serde_json::to_string(&Versioned::new(request)).unwrap()).0, 200);
    let old = serde_json::to_string(&vote_request()).unwrap();
    let (status, answer) = nodes[0].post("/elections/vote", &old);
    assert_eq!(status, 400);
    assert!(answer.contains("version 1 of the elections' protocol is not understood here"), "{answer}");
    let vote = serde_json::to_string(&Versioned::new(vote_request())).unwrap();
    let (status, answer) = nodes[0].post("/elections/pre-vote", &vote);
    assert_eq!(status, 200);
    assert!(answer.contains("\"granted\": true"), "{answer}");
    nodes[0].answers.store(false, Ordering::Relaxed);
    assert_eq!(nodes[0].post("/elections/vote", &vote).0, 503);
}

#[test]
fn wrong_requests_are_answered_in_words_and_disturb_nothing() {
    let nodes = cluster(2);
    let node = &nodes[0];
    let whole = [pair("Master", true), pair("Slave", true)];
    wait_until("founded", || node.shown() == whole);
    let check = |(status, answer): (u16, String), expected: u16, words: &str| {
        assert_eq!(status, expected, "{answer}");
        assert!(answer.contains(words), "{answer}");
    };
    check(node.get("/nowhere"), 404, "there is nothing at /nowhere");
    check(node.get("/admin/resign"), 405, "/admin/resign takes POST");
    check(node.post("/admin/resign", r#"{"who":1}"#), 400, "/admin/resign takes");
    check(node.get("/admin/members/add"), 405, "takes POST");
    check(node.post("/admin/members/add", "{}"), 400, "missing field `node`");
    let unknown = r#"{"node":"42424242-4242-4242-4242-424242424242"}"#;
    check(node.post("/admin/members/add", unknown), 409, "is not known here");
    check(node.post("/admin/members/remove", unknown), 409, "this node does not lead");
    check(node.get("/gossip?format=xml"), 406, "not available");
    check(node.raw("OPTIONS /ping HTTP/1.1\r\nHost: a\r\n\r\n"), 200, "GET, OPTIONS");
    check(node.post("/gossip", r#"{"members":[],"serverIp":"1.2.3.4"}"#), 400, "EventStoreDB");
    check(node.post("/gossip", "[[[["), 400, "not a gossip exchange");
    check(node.post("/elections/vote", "{}"), 400, "/elections/vote takes");
    check(node.raw("POST /elections/vote HTTP/1.1\r\nHost: a\r\n\r\n"), 411, "Content-Length");
    check(node.raw("POST /gossip HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"), 413, "larger than");
    check(node.raw("\u{0}\u{1}\u{2}\r\n\r\n"), 400, "not a valid HTTP");
    check(node.raw("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), 505, "HTTP/1.1");
    check(node.raw(&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(20_000))), 431, "headers");
    check(node.raw("GET /ping HTT"), 0, "");
    // More connections than one host may have: the first are served, the rest closed, and then all is as before.
    let mut held: Vec<TcpStream> = (0..80).map(|_| TcpStream::connect(node.address).unwrap()).collect();
    thread::sleep(Duration::from_millis(50));
    let served = held.iter_mut().filter_map(|stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok().filter(|_| answer.starts_with("HTTP/1.1 200"))
    });
    let served = served.count();
    assert!((1..=64).contains(&served), "{served} of 80 were served");
    drop(held);
    wait_until("it serves again", || {
        let mut stream = TcpStream::connect(node.address).unwrap();
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        matches!(stream.read(&mut [0; 12]), Ok(12))
    });
    wait_until("all is as before", || node.shown() == whole);
}

/// The shape that load tools read: quantiles always, all that was recorded when asked for.
#[test]
fn the_stages_are_shown_with_quantiles_and_as_histograms() {
    let nodes = cluster(1);
    let shown = |path: &str| nodes[0].json(path)["stages"].clone();
    let record = |committed_at: &[u64]| {
        let mut answered = AnswerTimes::default();
        committed_at.iter().for_each(|&at| answered.note(Ticks(at)));
        nodes[0].published.stages.record_answers(Ticks(1_000_000), &mut answered);
    };
    record(&[998_976, 998_976, 991_808]);
    let brief = shown("/stats");
    let names: Vec<_> = brief.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["answer", "batchWait", "commit", "flush", "queue", "write"]);
    let members = ["count", "maxUs", "meanUs", "p50Us", "p90Us", "p999Us", "p99Us"];
    for stage in names {
        let figures = brief[stage].as_object().unwrap();
        let mut found: Vec<_> = figures.keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, members, "{stage}");
        assert!(figures.values().all(Value::is_number), "{figures:?}");
    }
    assert_eq!((brief["queue"]["count"].as_u64(), brief["queue"]["maxUs"].as_f64()), (Some(0), Some(0.0)));
    assert_eq!(brief["answer"]["count"], 3);
    let near = |value: &Value, expected: f64| (value.as_f64().unwrap() / expected - 1.0).abs() < 0.07;
    assert!(near(&brief["answer"]["p50Us"], 1.024) && near(&brief["answer"]["maxUs"], 8.192), "{brief}");
    assert!(near(&brief["answer"]["meanUs"], (1.024 * 2.0 + 8.192) / 3.0), "{brief}");

    assert_eq!(shown("/stats?histograms=false"), brief);
    let full = shown("/stats?histograms=true");
    assert_eq!(full["queue"]["counts"], json!([]));
    let counts = |stages: &Value| -> Vec<(u64, u64)> {
        serde_json::from_value(stages["answer"]["counts"].clone()).expect("pairs of numbers")
    };
    let before = counts(&full);
    assert_eq!(before.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
    assert!(before[0].0.abs_diff(1_024) < 64 && before[1].0.abs_diff(8_192) < 82, "{before:?}");
    record(&[991_808]);
    let after = counts(&shown("/stats?histograms=true"));
    assert_eq!(after, [before[0], (before[1].0, 2)], "cumulative, in the same buckets");
}

#[test]
fn the_operator_sees_all_nodes_and_adds_only_what_runs_and_may_be_one() {
    let nodes = cluster(2);
    wait_until("both see each other", || nodes.iter().all(|node| node.shown().iter().filter(|m| m.1).count() == 2));
    let status = nodes[0].json("/admin/status");
    assert_eq!(status["node"], nodes[0].node.to_string());
    let shown =
        |name: &str| status["nodes"].as_array().unwrap().iter().map(|node| node[name].clone()).collect::<Vec<_>>();
    assert_eq!(shown("node"), [json!(nodes[0].node.to_string()), json!(nodes[1].node.to_string())]);
    assert_eq!((shown("isAlive"), shown("isReadOnly")), (vec![json!(true); 2], vec![json!(false); 2]));
    assert_eq!(shown("intHttp")[1], nodes[1].address.to_string());
    // What runs may be added: the log thread is asked, and says what it thinks of it.
    let body = json!({ "node": nodes[1].node }).to_string();
    let (answer, words) = nodes[0].post("/admin/members/add", &body);
    assert!(answer == 409 && words.contains("this node does not lead"), "{words}");
}
