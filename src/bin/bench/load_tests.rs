//! What a connection's place makes of answers, without a connection.

use super::*;

fn load(expected: Expected, reads: Option<Reads>) -> Load {
    let writes = Writes {
        prefix: "bench-test-".into(),
        streams: 3,
        events: 2,
        sizes: Sizes::One(10),
        metadata: 5,
        expected,
        require_leader: true,
        template: EventTemplate::new("t", 10, 5),
        clock: Clock::start(),
    };
    Load { writes: reads.is_none().then_some(writes), reads, writes_percent: 100 }
}

fn next(place: &mut Place, load: &Load) -> Option<Request> {
    let now = Instant::now();
    place.begin(load, now, now)
}

fn success(first: i64) -> WriteAnswer {
    WriteAnswer { result: 0, first, last: first + 1, current: 0 }
}

#[test]
fn an_acknowledged_write_is_counted_and_must_be_found() {
    let load = load(Expected::Any, None);
    let mut place = Place::new(&load, 1, 2);
    let first = next(&mut place, &load).unwrap();
    assert_eq!(first.expected, wire::ANY);
    assert_eq!(place.wrote(&load, &first, &success(4)), Verdict::Done { events: 2, payload_bytes: 30 });
    let second = next(&mut place, &load).unwrap();
    assert_eq!(second.sequence, first.sequence + 2, "no event number is used twice");
    assert_eq!(place.wrote(&load, &second, &WriteAnswer { result: 2, ..success(0) }), Verdict::Again);
    assert_eq!(place.wrote(&load, &second, &WriteAnswer { result: 7, ..success(0) }), Verdict::Refused);
    let stream = b"bench-test-0000001".to_vec();
    assert_eq!(place.into_acknowledged(&load), [Acknowledged { stream, events: 2, last: 5 }]);
}

#[test]
fn exact_versions_follow_each_other_and_find_their_way_back() {
    let load = load(Expected::Exact, None);
    let mut place = Place::new(&load, 0, 3);
    let requests: Vec<_> = (0..3).map(|_| next(&mut place, &load).unwrap()).collect();
    assert_eq!(requests.iter().map(|request| request.expected).collect::<Vec<_>>(), [-1, 1, 3]);
    let wrong = WriteAnswer { result: 4, first: 0, last: 0, current: 7 };
    assert_eq!(place.wrote(&load, &requests[0], &wrong), Verdict::Refused);
    assert!(next(&mut place, &load).is_none(), "nothing new while others are on their way");
    place.wrote(&load, &requests[1], &wrong);
    place.wrote(&load, &requests[2], &wrong);
    assert_eq!(next(&mut place, &load).unwrap().expected, 7, "from where the stream is");
}

#[test]
fn each_write_of_no_stream_has_a_stream_and_a_part_of_them_is_kept() {
    let load = load(Expected::NoStream, None);
    let mut place = Place::new(&load, 0, 1);
    for _ in 0..3 * FRESH_KEPT_MAX {
        let request = next(&mut place, &load).unwrap();
        assert_eq!(request.expected, wire::NO_STREAM);
        place.wrote(&load, &request, &success(0));
    }
    let left_out = place.fresh_left_out();
    let kept = place.into_acknowledged(&load);
    assert_eq!(kept.len() as u64 + left_out, 3 * FRESH_KEPT_MAX as u64);
    assert!((FRESH_KEPT_MAX / 2..=FRESH_KEPT_MAX).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().all(|one| one.events == 2 && one.last == 1));
    assert!(kept.windows(2).all(|pair| pair[0].stream < pair[1].stream), "no stream twice");
}

#[test]
fn the_same_request_is_the_same_bytes_and_carries_its_time() {
    let load = load(Expected::Any, None);
    let mut place = Place::new(&load, 0, 1);
    let request = next(&mut place, &load).unwrap();
    let encode = |place: &Place| {
        let mut out = Vec::new();
        place.encode(&load, &request, Correlation { slot: 1, generation: 1 }, &mut out);
        out
    };
    let frame = encode(&place);
    next(&mut place, &load).unwrap();
    assert_eq!(encode(&place), frame);
    let writes = load.writes.as_ref().unwrap();
    let time = writes.clock.nanoseconds(request.intended).to_le_bytes();
    assert_eq!(frame.windows(8).filter(|bytes| *bytes == time).count(), 2, "in each of the two events");
    let id = [&[0; 8], &time[..]].concat();
    assert_eq!(writes.began(b"bench-test-0000000", &id), Some(u64::from_le_bytes(time)));
    assert_eq!(writes.began(b"bench-other-0000000", &id), None, "an event of another run");
}

#[test]
fn pages_are_read_in_turn_or_one_after_the_other() {
    let reads =
        |starts: Vec<(i64, i64)>| Reads { way: Way::All, stream: Vec::new(), page: 2, starts, require_leader: false };
    let known = load(Expected::Any, Some(reads(vec![(0, 0), (10, 0), (20, 0)])));
    let mut place = Place::new(&known, 1, 3);
    let from: Vec<_> = (0..3).map(|_| next(&mut place, &known).unwrap().from.0).collect();
    assert_eq!(from, [10, 20, 0], "each connection begins elsewhere");

    let chained = load(Expected::Any, Some(reads(Vec::new())));
    let mut place = Place::new(&chained, 0, 1);
    let first = next(&mut place, &chained).unwrap();
    assert!(next(&mut place, &chained).is_none(), "the next page's begin is not known yet");
    let answer = PageAnswer { events: 2, payload_bytes: 9, next: (30, 1), ..PageAnswer::default() };
    assert_eq!(place.read(&chained, &first, &answer), Verdict::Done { events: 2, payload_bytes: 9 });
    let second = next(&mut place, &chained).unwrap();
    assert_eq!(second.from, (30, 1));
    let end = PageAnswer { end_of_stream: true, next: (30, 1), ..PageAnswer::default() };
    assert_eq!(place.read(&chained, &second, &end), Verdict::Done { events: 0, payload_bytes: 0 });
    assert_eq!(next(&mut place, &chained).unwrap().from, (0, 0), "again from the start");
}
