//! Goal: what a claim is answered with, and that every record within the limit gets written. Method: a cluster of one,
//! whose disk takes everything at once.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::codec::record::{BatchBuilder, MemberRecord, MembershipBody};
use crate::consensus::{Message, VoteResponse};
use crate::engine::{Action, ControlInput, ControlOutput, EngineOptions, Request, Role, Stages, Ticket};
use crate::index::Index;
use crate::storage::memory::MemoryLog;
use crate::storage::{ChunkLayout, DurableState, Recovered};
use crate::types::{ClusterId, EventId, Guid, NodeId, Ticks};

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 1 << 20 };
const LOG_BUFFER_BYTES: usize = 1 << 20;

struct Node {
    engine: Engine,
    index: Arc<Index>,
    log: MemoryLog,
    now: u64,
    /// What the engine sent to the other member and asked of the control thread.
    sent: Vec<Message>,
    controls: Vec<ControlOutput>,
    /// Chunks that are asked for are made.
    prepares: bool,
}

const PEER: NodeId = NodeId(Guid([9; 16]));

impl Node {
    fn new() -> Node {
        Node::with(Arc::new(Index::new()))
    }

    fn with(index: Arc<Index>) -> Node {
        let mut node = Node::among(index, &[]);
        node.turn(true);
        node
    }

    fn among(index: Arc<Index>, others: &[NodeId]) -> Node {
        let node = NodeId(Guid([1; 16]));
        let member = MemberRecord { node, int_ip: [127, 0, 0, 1].into(), int_tcp_port: 1112, int_http_port: 2112 };
        let others = others.iter().map(|other| MemberRecord { node: *other, ..member });
        let members = [member].into_iter().chain(others).collect();
        let list = MembershipBody { cluster: ClusterId(Guid([2; 16])), members };
        let state = DurableState { founding: Some(list), founded: true, ..DurableState::new(node, LAYOUT.chunk_size) };
        let recovered = Recovered {
            end: LogPosition::ZERO,
            last_term: Term::ZERO,
            epochs: Vec::new(),
            membership: None,
            cut: None,
            is_suspect: false,
            stale: Vec::new(),
            sealed: LogPosition::ZERO,
            chunk_count: 1,
            headers: Vec::new(),
            mark: None,
        };
        let options = EngineOptions {
            layout: LAYOUT,
            log_buffer_bytes: LOG_BUFFER_BYTES,
            election_timeout: Duration::from_millis(700),
            heartbeat_interval: Duration::from_millis(100),
            priority: 0,
            seed: 1,
            chunks_ready: 1,
            window_bytes: 256 << 10,
            planted: None,
        };
        let engine = Engine::new(options, state, recovered, Arc::clone(&index), Ticks(0)).unwrap();
        let log = MemoryLog { layout: LAYOUT, bytes: vec![0; 4 << 20] };
        Node { engine, index, log, now: 0, sent: Vec::new(), controls: Vec::new(), prepares: true }
    }

    /// Lets the only other member elect it, take its log and acknowledge it.
    fn lead_with_peer(&mut self) {
        self.lead_with_peer_until(true);
    }

    /// The same; `applies`: the index takes what is committed, without which a leader takes no writes.
    fn lead_with_peer_until(&mut self, applies: bool) {
        self.now += 10_000_000_000;
        self.turn(applies);
        let term = Term(1);
        for pre in [true, false] {
            let response = VoteResponse { voter: PEER, term, granted: true, leader: None, is_suspect: false };
            let response = VoteResponse { term: if pre { Term::ZERO } else { term }, ..response };
            self.engine.handle_control(ControlInput::VoteAnswered { from: PEER, pre, term, response: Some(response) });
            self.turn(applies);
        }
        let (subscription, start) = (Guid([7; 16]), LogPosition::ZERO);
        let (log_end, commit_position) = (start, start);
        let epochs = Vec::new();
        let subscribe = Message::Subscribe { term, subscription, epochs, log_end, commit_position, priority: 0 };
        self.engine.handle_message(PEER, subscribe);
        self.turn(applies);
        self.engine.handle_data_link(PEER, subscription).expect("subscribed");
        let position = self.log_end();
        self.engine.handle_message(PEER, Message::Acknowledge { term, subscription, position });
        self.turn(applies);
    }

    /// One turn, in which the disk takes everything; the answers that came.
    fn turn(&mut self, applies: bool) -> Vec<Answer> {
        let (mut actions, mut answers) = (Vec::new(), Vec::new());
        self.now += 1;
        self.engine.begin_turn(Ticks(self.now), 1);
        loop {
            self.engine.end_turn();
            self.engine.take_actions(&mut actions);
            if actions.is_empty() {
                return answers;
            }
            for action in actions.drain(..) {
                match action {
                    Action::Write { id, position, length, .. } => {
                        let at = position.0 as usize;
                        let written = self.engine.buffer().slice(position, length);
                        self.log.bytes[at..at + length].copy_from_slice(written);
                        self.engine.handle_written(id);
                    }
                    Action::Flush { id, .. } => self.engine.handle_flushed(id),
                    Action::SaveState(state) => self.engine.handle_state_saved(state.sequence),
                    Action::PrepareChunk(chunk) if self.prepares => self.engine.handle_chunk_ready(chunk),
                    Action::Progress(progress) if applies => {
                        self.index.apply_to(&self.log, LAYOUT, progress.readable).unwrap();
                    }
                    Action::Reply(reply) => {
                        let spare = reply.spare.expect("an append's memory goes back with its answer");
                        assert_eq!(spare.ticket, reply.ticket);
                        answers.push(reply.answer);
                    }
                    Action::Send { message, .. } => self.sent.push(message),
                    Action::Control(output) => self.controls.push(output),
                    _ => {}
                }
            }
        }
    }

    /// The answer to one request; the index does not learn of it when it is not `applied`.
    fn ask(&mut self, append: Append, applied: bool) -> Answer {
        self.engine.handle_request(Request::Append(Box::new(append))).expect("room in the log buffer");
        let mut answers = self.turn(applied);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    fn log_end(&self) -> LogPosition {
        self.engine.positions().0
    }
}

fn write(kind: RecordKind, stream: &str, data: &[u8]) -> Append {
    let mut body = BatchBuilder::new(stream, data.len() + 64);
    body.event(EventId(Guid([9; 16])), "happened", true, data, b"");
    Append {
        ticket: Ticket { edge: 0, key: 1 },
        kind,
        expected_version: ExpectedVersion::Any,
        guard: None,
        event_count: 1,
        body: body.finish(),
        metadata_of: None,
        revival: None,
        deadline: Ticks(u64::MAX),
        handed_over: Ticks(0),
        queued: None,
    }
}

/// A write whose record has `length` bytes. Its identifier is made of that, or it would be taken for a repeat.
fn write_of_length(length: u64) -> Append {
    let around = sealed_length(write(RecordKind::Append, "large", b"").body.len());
    let mut body = BatchBuilder::new("large", length as usize);
    let id = EventId(Guid(u128::from(length).to_le_bytes()));
    body.event(id, "happened", true, &vec![1; length as usize - around], b"");
    let append = Append { body: body.finish(), ..write(RecordKind::Append, "large", b"") };
    assert_eq!(sealed_length(append.body.len()) as u64, length);
    append
}

#[test]
fn the_metadata_of_a_deleted_stream_is_deleted_too() {
    for applied in [false, true] {
        let mut node = Node::new();
        let answer = node.ask(write(RecordKind::Append, "$$gone", b"{}"), applied);
        assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
        let answer = node.ask(write(RecordKind::Delete, "gone", b""), applied);
        assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
        for expected_version in [ExpectedVersion::Any, ExpectedVersion::Exact(0), ExpectedVersion::NoStream] {
            let answer = node.ask(Append { expected_version, ..write(RecordKind::Append, "$$gone", b"{}") }, applied);
            assert!(matches!(answer, Answer::StreamDeleted { .. }), "{expected_version:?}: {answer:?}");
        }
        let answer = node.ask(write(RecordKind::Append, "$$other", b"{}"), applied);
        assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
    }
}

/// A node that restarts in a quiet cluster must know nearly all that was committed.
#[test]
fn what_is_committed_is_saved_some_seconds_later_although_it_is_little() {
    let mut node = Node::new();
    node.ask(write(RecordKind::Append, "small", b"1"), true);
    node.now += 9_000_000_000;
    node.turn(true);
    let before = node.engine.state.sequence;
    assert!(node.engine.state.commit_hint < node.log_end());
    node.now += 2_000_000_000;
    node.turn(true);
    assert_eq!((node.engine.state.commit_hint, node.engine.state.sequence), (node.log_end(), before + 1));
    node.now += 20_000_000_000;
    node.turn(true);
    assert_eq!(node.engine.state.sequence, before + 1, "nothing new, nothing saved");
}

/// Whoever writes the state anew must not write what the file is to hold no more.
#[test]
fn the_state_is_known_to_be_saved_only_while_it_is() {
    let mut node = Node::new();
    node.turn(true);
    let before = node.engine.state.sequence;
    assert_eq!(node.engine.saved_state().map(|state| state.sequence), Some(before));
    node.engine.mark_state_dirty();
    assert_eq!(node.engine.saved_state(), None, "it is to be saved");
    node.engine.poll_saving();
    assert_eq!(node.engine.saved_state(), None, "it is being saved");
    node.turn(true);
    assert_eq!(node.engine.saved_state().map(|state| state.sequence), Some(before + 1));
}

#[test]
fn the_largest_record_is_written_behind_the_most_padding() {
    let mut node = Node::new();
    let largest = node.engine.largest_record();
    let answer = node.ask(write_of_length(largest + 8), true);
    assert!(matches!(answer, Answer::TooLarge { limit, .. } if limit == largest), "{answer:?}");
    // Fill the first chunk until eight bytes are missing.
    let filler = LAYOUT.room(node.log_end()) - (largest - 8);
    let first = filler / 3 / 8 * 8;
    for length in [first, filler - first] {
        node.ask(write_of_length(length), true);
    }
    assert_eq!(LAYOUT.room(node.log_end()), largest - 8);
    let answer = node.ask(write_of_length(largest), true);
    assert!(matches!(answer, Answer::Appended { position, .. } if position.0 == LAYOUT.chunk_size), "{answer:?}");
}

/// Count and time of each stage, the answers aside. A stage here has one span, or several that took equally long.
/// A chunk that cannot be made is no reason to let writers wait until they give up, or to refuse what still has room.
#[test]
fn writes_are_refused_when_the_next_chunk_is_needed_and_cannot_be_made() {
    let check = |tell: fn(&mut Engine, bool), expected: fn(&Answer) -> bool| {
        let mut node = Node::new();
        node.prepares = false;
        tell(&mut node.engine, true);
        let mut written = 0;
        let refused = loop {
            let answer = node.ask(write_of_length((100 << 10) + 8 * written), true);
            if !matches!(answer, Answer::Appended { .. }) {
                break answer;
            }
            written += 1;
        };
        assert!(expected(&refused), "{refused:?}");
        assert!((10..=20).contains(&written), "{written} writes had room in two chunks");
        assert!(node.engine.view().chunk_failed || node.engine.view().disk_full);
        node.engine.handle_chunk_ready(2);
        tell(&mut node.engine, false);
        let answer = node.ask(write_of_length(200 << 10), true);
        assert!(matches!(answer, Answer::Appended { .. }), "{answer:?}");
        assert!(!node.engine.view().chunk_failed && !node.engine.view().disk_full);
    };
    check(Engine::handle_chunk_failed, |answer| matches!(answer, Answer::ChunkFailed));
    check(Engine::handle_disk_full, |answer| matches!(answer, Answer::DiskFull));
}

fn stages(stages: &Stages) -> Vec<(String, u64, u64)> {
    let mut shown = Vec::new();
    for (name, spans) in stages.snapshot().into_iter().filter(|(name, _)| name != "answer") {
        assert!(spans.equivalent(spans.max(), spans.min()), "{name}: {} to {}", spans.min(), spans.max());
        shown.push((name, spans.len(), spans.lowest_equivalent(spans.max())));
    }
    shown
}

/// Virtual time goes on in steps of which every stage gets another, all on the grid of the histograms.
#[test]
fn a_committed_append_has_spent_its_time_in_the_stages() {
    let mut node = Node::new();
    let engine = &mut node.engine;
    let (figures, before) = (Stages::default(), Stages::default());
    engine.report_stages(&before);
    let start = 1_000_000_000;
    let at = |nanos: u64| Ticks(start + nanos);
    let only_action = |engine: &mut Engine| {
        let mut actions = Vec::new();
        engine.end_turn();
        engine.take_actions(&mut actions);
        assert_eq!(actions.len(), 1, "{actions:?}");
        actions.remove(0)
    };

    engine.begin_turn(at(0), 1);
    engine.handle_clock(at(1_024));
    let append = Append { handed_over: at(0), ..write(RecordKind::Append, "timed", b"{}") };
    engine.handle_request(Request::Append(Box::new(append))).expect("room in the log buffer");
    engine.handle_clock(at(1_024 + 2_048));
    let Action::Write { id, .. } = only_action(engine) else { panic!("no write") };
    engine.begin_turn(at(3_072 + 4_096), 1);
    engine.handle_written(id);
    let Action::Flush { id, .. } = only_action(engine) else { panic!("no flush") };
    engine.begin_turn(at(7_168 + 8_192), 1);
    engine.handle_flushed(id);
    let mut actions = Vec::new();
    engine.take_actions(&mut actions);
    let committed = actions.iter().find_map(|action| match action {
        Action::Reply(Reply { answer: Answer::Appended { committed_at, .. }, .. }) => Some(*committed_at),
        _ => None,
    });
    assert_eq!(committed, Some(at(15_360)));

    engine.report_stages(&figures);
    let expected =
        [("queue", 1, 1_024), ("batchWait", 1, 2_048), ("write", 1, 4_096), ("flush", 1, 8_192), ("commit", 1, 14_336)];
    assert_eq!(stages(&figures), expected.map(|(name, count, nanos)| (name.to_owned(), count, nanos)));
    // The record that began the term is nobody's append, but was written and flushed.
    let counts: Vec<_> = before.snapshot().iter().map(|(_, spans)| spans.len()).collect();
    assert_eq!(counts[0..2], [0, 0]);
    assert!(counts[2] > 0 && counts[3] > 0, "{counts:?}");
    assert_eq!(counts[4..], [0, 0]);
}

/// What a write must know is in a part of the index that is being rebuilt: it is refused, and nothing is written.
#[test]
fn a_write_to_a_stream_that_is_not_known_now_is_refused() {
    let directory = crate::storage::memory::TempDirectory::new();
    let log = MemoryLog { layout: LAYOUT, bytes: Vec::new() };
    let store = Arc::new(crate::index::FileStore::open(directory.path(), false).unwrap());
    let mut node = Node::with(Arc::new(Index::open(store, &log, LAYOUT, LogPosition::ZERO, 1).unwrap()));
    let append = |stream, expected_version| Append { expected_version, ..write(RecordKind::Append, stream, b"{}") };
    let written = node.ask(append("orders", ExpectedVersion::NoStream), true);
    assert!(matches!(written, Answer::Appended { .. }), "{written:?}");
    node.index.set_behind(LogPosition(1 << 40));
    let end = node.log_end();
    for expected in
        [ExpectedVersion::Any, ExpectedVersion::NoStream, ExpectedVersion::Exact(0), ExpectedVersion::StreamExists]
    {
        assert_eq!(node.ask(append("others", expected), true), Answer::NotReady);
        assert_eq!(node.ask(append("$$others", expected), true), Answer::NotReady);
    }
    assert_eq!(node.log_end(), end);
    let at_hand = node.ask(append("orders", ExpectedVersion::Exact(0)), true);
    assert!(matches!(at_hand, Answer::Appended { first_event_number: 1, .. }), "{at_hand:?}");
}

/// Goal: a leader that is cut off does not refuse a write by what it last knew of the stream. What happened: the cable of
/// a leader was loose; another one led already and had written, and the old one told a client, which knew that, that the
/// stream was shorter than the version that it expected.
#[test]
fn a_refusal_waits_until_leadership_is_proven() {
    let mut node = Node::among(Arc::new(Index::new()), &[PEER]);
    node.lead_with_peer();
    node.sent.clear();
    let claim = || Append { expected_version: ExpectedVersion::Exact(5), ..write(RecordKind::Append, "s", b"x") };
    node.engine.handle_request(Request::Append(Box::new(claim()))).expect("room in the log buffer");
    assert_eq!(node.turn(true), [], "nobody has said that it still leads");
    let round = node.sent.iter().find_map(|message| match message {
        Message::Heartbeat { round, .. } => Some(*round),
        _ => None,
    });
    let round = round.expect("it asks at once");
    let answer =
        |round| Message::HeartbeatAnswer { term: Term(1), round, flush_micros: 0, full_from: None, is_ready: true };
    node.engine.handle_message(PEER, answer(round - 1));
    assert_eq!(node.turn(true), [], "an answer to an earlier round proves nothing");
    node.engine.handle_message(PEER, answer(round));
    assert_eq!(node.turn(true), [Answer::WrongExpectedVersion { current: -1, end: LogPosition::ZERO }]);
}

/// Goal: a leader that is asked to hand over does so as soon as it leads, and when the successor declines it takes writes at
/// once, and says why it leads on, or that it does not know. What happened: while its index caught up it claimed not to lead; and for a whole election
/// timeout behind a refusal it took nothing.
#[test]
fn a_declined_hand_over_ends_at_once() {
    let mut node = Node::among(Arc::new(Index::new()), &[PEER]);
    node.lead_with_peer_until(false);
    assert_eq!(node.engine.role(), Role::PreLeader);
    node.engine.handle_control(ControlInput::Resign { token: 5, to: None });
    node.index.apply_to(&node.log, LAYOUT, node.engine.positions().3).unwrap();
    node.turn(true);
    let asked = |output: &ControlOutput| matches!(output, ControlOutput::SendTransfer { to: PEER, .. });
    assert_eq!(node.controls.iter().filter(|output| asked(output)).count(), 1, "{:?}", node.controls);
    assert_eq!(node.engine.role(), Role::ResigningLeader);
    node.controls.clear();
    let no =
        |term, is_refusal| ControlInput::TransferDeclined { from: PEER, term, is_refusal, reason: "no".to_owned() };
    let decline = |term| no(term, true);
    node.engine.handle_control(decline(Term(2)));
    node.turn(true);
    assert_eq!(node.engine.role(), Role::ResigningLeader, "of another term");
    node.engine.handle_control(decline(Term(1)));
    node.turn(true);
    let answers = |node: &Node| -> Vec<ControlOutput> {
        node.controls.iter().filter(|output| matches!(output, ControlOutput::Answer { .. })).cloned().collect()
    };
    let result = Err(format!("{PEER} does not take over: no; this node leads on"));
    assert_eq!(answers(&node), [ControlOutput::Answer { token: 5, result }]);
    assert_eq!(node.engine.role(), Role::Leader);
    node.controls.clear();
    node.engine.handle_control(ControlInput::Resign { token: 6, to: None });
    node.turn(true);
    node.engine.handle_control(no(Term(1), false));
    node.turn(true);
    let result = Err(format!("{PEER} could not be asked to take over, or its answer was lost: no; look at the status"));
    assert_eq!(answers(&node), [ControlOutput::Answer { token: 6, result }]);
}
