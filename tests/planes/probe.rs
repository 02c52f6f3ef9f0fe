//! A client that writes to one node only, whatever comes, and keeps when it was answered and what.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::{ANY, Client, Refusal, event};
use crate::support::history::{History, NEVER, Outcome, Write};
use crate::support::known::{self, identifier};
use crate::support::messages::WriteEvents;
use crate::support::watcher::lock;
use crate::support::workload::Shared;

/// The numbers of probes among the clients of a history.
const FIRST: u32 = 1_000;

const CONNECT_LIMIT: Duration = Duration::from_millis(300);
/// Short: what is measured is when writes go on, not how patient this client is.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(10);
const DATA_BYTES: usize = 100;

/// One write, sent once.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
    /// Why it was not acknowledged.
    pub(crate) refusal: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    thread: JoinHandle<History>,
}

impl Probe {
    pub(crate) fn start(shared: Arc<Shared>, node: usize) -> Probe {
        let (stop, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (is_over, seen) = (Arc::clone(&stop), Arc::clone(&attempts));
        let thread = std::thread::spawn(move || {
            let mut history = History::default();
            let mut connection = None;
            while !is_over.load(Ordering::Relaxed) {
                let attempt = write(&shared, node, &mut connection, &mut history);
                lock(&seen).push(attempt);
                std::thread::sleep(PAUSE);
            }
            history
        });
        Probe { stop, attempts, thread }
    }

    /// All attempts that ended between these moments.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<Attempt> {
        let all = lock(&self.attempts);
        all.iter().filter(|attempt| attempt.end > from && attempt.end <= to).cloned().collect()
    }

    /// Its part of the history.
    pub(crate) fn stop(self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a probe")
    }
}

fn write(shared: &Shared, node: usize, connection: &mut Option<Client>, history: &mut History) -> Attempt {
    let client = FIRST + node as u32;
    let id = identifier(shared.run, client, history.writes.len() as u64);
    let stream = format!("probe-{}", node + 1);
    let events = vec![event(id.to_be_bytes(), known::data(id, DATA_BYTES))];
    let request = WriteEvents { stream: stream.clone(), expected_version: ANY, events, require_master: false };
    let (begin, at) = (Instant::now(), shared.now());
    let result = attempt(shared, node, connection, &request);
    let (end, outcome) = match &result {
        Ok(answer) => (shared.now(), *answer),
        Err(_) => (NEVER, Outcome::Unknown),
    };
    if let Outcome::Acknowledged { first, .. } = outcome
        && let Err(what) = shared.known.enter(&stream, first, [id])
    {
        shared.watcher.wrong(&format!("the probe of node {}: {what}", node + 1));
    }
    let (expected, count, attempts) = (ANY, 1, 1);
    history.writes.push(Write {
        client,
        stream,
        expected,
        id,
        count,
        begin: at,
        attempt_begin: at,
        end,
        attempts,
        node,
        outcome,
    });
    Attempt { begin, end: Instant::now(), refusal: result.err() }
}

fn attempt(
    shared: &Shared,
    node: usize,
    connection: &mut Option<Client>,
    request: &WriteEvents,
) -> Result<Outcome, String> {
    let mut client = match connection.take() {
        Some(client) => client,
        None => Client::connect(shared.watcher.tcp(node), CONNECT_LIMIT)
            .map_err(|error| format!("no connection, {}", error.kind()))?,
    };
    let answer =
        client.write(request, ANSWER_LIMIT, &|| false).map_err(|error| format!("no answer, {}", error.kind()))?;
    *connection = Some(client);
    match answer {
        Ok(written) => {
            let position = Some(written.commit_position).filter(|position| *position >= 0);
            Ok(Outcome::Acknowledged { first: written.first_event_number, position })
        }
        Err(refusal) => {
            if !refusal.may_be_repeated() {
                shared.watcher.wrong(&format!("the probe of node {}: {refusal}", node + 1));
            }
            Err(words(&refusal))
        }
    }
}

fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotHandled(0) => "not ready".to_owned(),
        Refusal::NotHandled(1) => "too busy".to_owned(),
        Refusal::NotHandled(2) => "not the leader".to_owned(),
        Refusal::Result { result: Refusal::PREPARE_TIMEOUT, .. } => "prepare timeout".to_owned(),
        Refusal::Result { result: Refusal::COMMIT_TIMEOUT, .. } => "commit timeout".to_owned(),
        Refusal::Result { result: Refusal::FORWARD_TIMEOUT, .. } => "forward timeout".to_owned(),
        other => other.to_string(),
    }
}
