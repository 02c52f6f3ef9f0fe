//! How an edge takes its index on: when it begins, how far it goes, and when it may rest.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::*;
use crate::api::EdgeOptions;
use crate::api::pending::Waiting;
use crate::api::test_log::TestLog;
use crate::api::testing::lonely_links;
use crate::api::work::Work;
use crate::engine::NodeView;
use crate::storage::ChunkLayout;
use crate::types::Guid;

const LAYOUT: ChunkLayout = ChunkLayout { chunk_size: 16 << 20 };

/// Long enough that nobody takes it for the lazy period.
const FOREVER: Duration = Duration::from_secs(5);

/// An edge that has applied nothing, and the ends of the records in its log: of 128 KiB each, and 48 of them.
fn edge() -> (Rc<EdgeState>, Vec<LogPosition>) {
    let mut log = TestLog::with_layout(LAYOUT);
    let data = vec![b'x'; 128 << 10];
    let ends = (0..48).map(|_| {
        log.append("a", &[("t", &data)]);
        log.end
    });
    let ends = ends.collect();
    let mut links = lonely_links();
    (links.log, links.layout) = (Arc::new(log.log), LAYOUT);
    (EdgeState::new(EdgeOptions::new(0, 1 << 20), links), ends)
}

fn publish(edge: &EdgeState, readable: LogPosition) {
    edge.links.published.set_positions(readable, readable, readable, readable);
}

/// A request of a client that is gone meanwhile.
fn request(edge: &EdgeState) -> u64 {
    let work = Work::Forwarded { link: 0, asked: work::Asked::WriteEvents, answer: None };
    let deadline = Instant::now() + FOREVER;
    let waiting = Waiting { session: 0, correlation: Guid::ZERO, deadline, bytes: 0, work };
    edge.pending.borrow_mut().insert(waiting).unwrap()
}

/// From now on an answer waits for the index to be at `end`.
fn hold(edge: &EdgeState, end: LogPosition) {
    let (key, outcome) = (request(edge), Outcome { answer: Answer::Confirmed { end }, spare: None });
    assert!(edge.pending.borrow_mut().hold(end, key, outcome).is_none());
}

fn run<F: Future<Output = ()>>(test: F) {
    monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap().block_on(test);
}

/// True when the rest is over as soon as it begins.
async fn rests_not(edge: &EdgeState, next: Rest) -> bool {
    let mut rest = pin!(rest(edge, next));
    poll_fn(|context| Poll::Ready(rest.as_mut().poll(context).is_ready())).await
}

#[test]
fn a_little_is_left_for_a_while_and_a_lot_is_not() {
    let (edge, ends) = edge();
    let mut pace = Pace::default();
    publish(&edge, ends[1]);
    assert!(matches!(follow(&edge, &mut pace), Rest::Lazy { .. }));
    assert_eq!(edge.links.index.applied(), LogPosition::ZERO);
    std::thread::sleep(LAZY_PERIOD);
    assert_eq!(follow(&edge, &mut pace), Rest::UntilMore(ends[1]));
    assert_eq!(edge.links.index.applied(), ends[1]);
    publish(&edge, ends[20]);
    assert_eq!(follow(&edge, &mut pace), Rest::None, "there is more than a pass takes");
}

#[test]
fn what_has_begun_goes_on_to_what_was_readable_then() {
    let (edge, ends) = edge();
    let mut pace = Pace::default();
    publish(&edge, ends[40]);
    let mut passes = 1;
    assert_eq!(follow(&edge, &mut pace), Rest::None);
    publish(&edge, ends[42]);
    let last = loop {
        passes += 1;
        match follow(&edge, &mut pace) {
            Rest::None => {}
            other => break other,
        }
    };
    assert!((5..8).contains(&passes), "{passes}");
    let applied = edge.links.index.applied();
    assert!(applied >= ends[40], "{applied}");
    assert!(if applied < ends[42] { matches!(last, Rest::Lazy { .. }) } else { last == Rest::UntilMore(ends[42]) });
}

#[test]
fn a_reader_finds_what_was_readable_when_it_came() {
    let (edge, ends) = edge();
    publish(&edge, ends[25]);
    catch_up(&edge);
    assert_eq!(edge.links.index.applied(), ends[25]);
}

#[test]
fn who_waits_keeps_the_edge_from_its_lazy_rest() {
    run(async {
        let (edge, ends) = edge();
        let mut pace = Pace::default();
        publish(&edge, ends[1]);
        let lazy = follow(&edge, &mut pace);
        assert!(matches!(lazy, Rest::Lazy { .. }));
        assert!(!rests_not(&edge, lazy).await);
        // In the window in which nobody has said that no hints are wanted.
        edge.links.inbox.want_hints(true);
        hold(&edge, ends[1]);
        hurry(&edge);
        assert!(edge.links.inbox.is_empty());
        assert!(rests_not(&edge, Rest::Lazy { since: Instant::now() + FOREVER }).await);
        assert_eq!(follow(&edge, &mut pace), Rest::UntilMore(ends[1]));
        // What became readable during the pass is not slept over either.
        publish(&edge, ends[2]);
        assert!(rests_not(&edge, Rest::UntilMore(ends[1])).await);
        assert!(!rests_not(&edge, Rest::UntilMore(ends[2])).await && edge.links.inbox.wants_hints());
    });
}

#[test]
fn a_new_leader_waits_for_its_index() {
    let (edge, ends) = edge();
    publish(&edge, ends[1]);
    edge.links.published.set_view(NodeView { role: Role::PreLeader, ..NodeView::default() });
    assert_eq!(follow(&edge, &mut Pace::default()), Rest::UntilMore(ends[1]));
}

#[test]
fn a_new_leader_has_its_recent_events_listed_before_the_last_pass() {
    let (edge, mut ends) = edge();
    let mut log = TestLog::with_layout(LAYOUT);
    let events = vec![("t", &b""[..]); 5000];
    ends.clear();
    for _ in 0..5 {
        log.append("a", &events);
        ends.push(log.end);
    }
    let mut links = edge.links.clone();
    links.log = Arc::new(log.log);
    let edge = EdgeState::new(EdgeOptions::new(0, 1 << 20), links);
    let mut pace = Pace::default();
    publish(&edge, ends[3]);
    while follow(&edge, &mut pace) != Rest::UntilMore(ends[3]) {
        std::thread::sleep(LAZY_PERIOD);
    }
    edge.links.published.set_view(NodeView { role: Role::PreLeader, ..NodeView::default() });
    publish(&edge, ends[4]);
    for _ in 0..2 {
        assert_eq!((follow(&edge, &mut pace), edge.links.index.applied()), (Rest::None, ends[3]));
    }
    assert_eq!((follow(&edge, &mut pace), edge.links.index.applied()), (Rest::UntilMore(ends[4]), ends[4]));
}

#[test]
fn who_begins_to_wait_wakes_an_edge_that_rests() {
    run(async {
        let (edge, ends) = edge();
        publish(&edge, ends[1]);
        let is_awake = Rc::new(Cell::new(false));
        let (resting, told) = (Rc::clone(&edge), Rc::clone(&is_awake));
        monoio::spawn(async move {
            rest(&resting, Rest::Lazy { since: Instant::now() + FOREVER }).await;
            told.set(true);
        });
        give_way().await;
        assert!(!is_awake.get());
        hold(&edge, ends[1]);
        hurry(&edge);
        give_way().await;
        assert!(is_awake.get());
    });
}

#[test]
fn an_index_that_stands_still_is_tried_again_without_haste() {
    run(async {
        let (edge, ends) = edge();
        let end = ends[ends.len() - 1];
        // There is no record there.
        publish(&edge, end.plus(4096));
        hold(&edge, end.plus(4096));
        let mut pace = Pace::default();
        let mut passes = 0;
        while follow(&edge, &mut pace) != Rest::Retry {
            passes += 1;
            assert!(passes < 10);
        }
        assert_eq!((edge.links.index.applied(), follow(&edge, &mut pace)), (end, Rest::Retry));
        assert!(!rests_not(&edge, Rest::Retry).await);
    });
}

#[test]
fn answers_that_need_reading_are_given_with_pauses() {
    let (edge, ends) = edge();
    let reply = |answer| Reply { ticket: edge.ticket(request(&edge)), answer, spare: None };
    let end = LogPosition::ZERO;
    take_reply(&edge, reply(Answer::StreamDeleted { end }), ends[0]);
    assert_eq!((edge.pending.borrow().len(), edge.pending.borrow().holds_answers()), (0, false));
    for (count, answer) in [
        Answer::WrongExpectedVersion { current: 3, end },
        Answer::SoftDeleted { last_event_number: 3, end },
        Answer::Confirmed { end },
    ]
    .into_iter()
    .enumerate()
    {
        take_reply(&edge, reply(answer), ends[0]);
        assert_eq!((edge.pending.borrow().len(), edge.pending.borrow().holds_answers()), (count + 1, true));
        // Alone.
        let released = edge.pending.borrow_mut().release(ends[0]).unwrap();
        assert!(takes_time(&released.1.answer));
    }
}
