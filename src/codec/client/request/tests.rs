//! Every check of a request, with what is just right and what is just wrong.

use super::*;
use crate::types::Guid;

const ID: [u8; 16] = [5; 16];

fn package(command: Command, message: &impl Message) -> Package {
    let (flags, correlation) = (0, Guid([1; 16]));
    Package { command: command as u8, flags, correlation, credentials: None, payload: message.encode_to_vec().into() }
}

fn read(command: Command, message: &impl Message) -> Result<Request, RequestError> {
    Request::read(&package(command, message), &RequestLimits { append_bytes_max: 1000 })
}

/// The request must be refused, with these words in the text.
fn check_refused(command: Command, message: &impl Message, words: &str) {
    let text = read(command, message).unwrap_err().answer(command as u8);
    let start = format!("Could not unwrap network package for command {}.\n", command.name());
    assert!(text.starts_with(&start) && text.contains(words), "{text:?} lacks {words:?}");
}

fn new_event(id: &[u8], event_type: &str, data: &[u8]) -> messages::NewEvent {
    messages::NewEvent {
        event_id: Bytes::copy_from_slice(id),
        event_type: event_type.to_owned(),
        data: Bytes::copy_from_slice(data),
        ..Default::default()
    }
}

fn write(stream: &str, expected_version: i64, events: Vec<messages::NewEvent>) -> messages::WriteEvents {
    messages::WriteEvents { event_stream_id: stream.to_owned(), expected_version, events, require_master: false }
}

#[test]
fn writes_are_checked() {
    let check = |message: &messages::WriteEvents, words: &str| check_refused(Command::WriteEvents, message, words);
    check(&write("", -2, vec![]), "the stream name is empty");
    check(&write(&"x".repeat(65_536), -2, vec![]), "the stream name has 65536 bytes of UTF-8, the limit is 65535");
    check(&write("s", -3, vec![]), "expected version -3 is not allowed");
    check(&write("s", -5, vec![]), "expected version -5 is not allowed");
    check(
        &write("s", -2, vec![new_event(&ID, "t", b""), new_event(&ID[..15], "t", b"")]),
        "event identifier 1 is 15 bytes;",
    );
    check(&write("s", -2, vec![new_event(&[0; 16], "t", b"")]), "event identifier 0 is 16 bytes, all zero;");
    check(&write("s", -2, vec![new_event(&ID, "", b"")]), "the event type is empty");
    check(&write("s", -2, vec![new_event(&ID, &"t".repeat(65_536), b"")]), "the event type has 65536 bytes");
    check(
        &write("s", -2, vec![new_event(&ID, "tt", &[0; 998])]),
        "has 1001 bytes of names, data and metadata, MaxAppendSize is 1000",
    );
    assert!(read(Command::WriteEvents, &write("s", -2, vec![new_event(&ID, "tt", &[0; 997])])).is_ok());
    for (number, version) in
        [(-4, ExpectedVersion::StreamExists), (-2, ExpectedVersion::Any), (7, ExpectedVersion::Exact(7))]
    {
        let Ok(Request::WriteEvents(request)) = read(Command::WriteEvents, &write("s", number, vec![])) else {
            panic!()
        };
        assert_eq!(request.expected_version, version);
    }
}

#[test]
fn one_event_has_a_limit_of_its_own() {
    let limits = RequestLimits { append_bytes_max: 32 << 20 };
    let check = |data: usize| {
        let message = write("s", -2, vec![new_event(&ID, "ab", &vec![0; data])]);
        Request::read(&package(Command::WriteEvents, &message), &limits)
    };
    let limit = 16_777_216 - 10_000;
    assert!(check(limit - 4).is_ok());
    assert_eq!(check(limit - 3), Err(RequestError::EventTooLarge { index: 0, bytes: limit + 1, limit }));
}

#[test]
fn too_many_events_are_refused_before_they_take_memory() {
    let event = new_event(&ID, "t", b"");
    let at_limit = write("s", -2, vec![event.clone(); 65_535]);
    let limits = RequestLimits { append_bytes_max: 1 << 20 };
    assert!(Request::read(&package(Command::WriteEvents, &at_limit), &limits).is_ok());
    let mut over = write("s", -2, vec![event; 65_536]);
    check_refused(Command::WriteEvents, &over, "65536 events in one request, the limit is 65535");
    let message = messages::TransactionWrite { events: std::mem::take(&mut over.events), ..Default::default() };
    check_refused(Command::TransactionWrite, &message, "65536 events in one request");
    let processed_event_ids = vec![Bytes::new(); 65_536];
    let message = messages::PersistentSubscriptionAckEvents { subscription_id: "s::g".to_owned(), processed_event_ids };
    check_refused(Command::PersistentSubscriptionAckEvents, &message, "65536 event identifiers");
}

#[test]
fn deletes_and_transactions_are_checked() {
    let delete = |stream: &str, expected_version: i64, hard: bool| messages::DeleteStream {
        event_stream_id: stream.to_owned(),
        expected_version,
        require_master: false,
        hard_delete: Some(hard),
    };
    check_refused(Command::DeleteStream, &delete("", -2, false), "the stream name is empty");
    for version in [-3, -4, -5] {
        let words = format!("expected version {version} is not allowed");
        check_refused(Command::DeleteStream, &delete("s", version, false), &words);
        let start = messages::TransactionStart {
            event_stream_id: "s".to_owned(),
            expected_version: version,
            ..Default::default()
        };
        check_refused(Command::TransactionStart, &start, &words);
    }
    check_refused(Command::DeleteStream, &delete(&"x".repeat(65_534), -2, false), "the limit is 65533");
    assert!(read(Command::DeleteStream, &delete(&"x".repeat(65_534), -2, true)).is_ok());
    check_refused(Command::TransactionStart, &messages::TransactionStart::default(), "the stream name is empty");
    let negative = messages::TransactionWrite { transaction_id: -1, ..Default::default() };
    check_refused(Command::TransactionWrite, &negative, "the transaction identifier is -1");
    let negative = messages::TransactionCommit { transaction_id: -1, ..Default::default() };
    check_refused(Command::TransactionCommit, &negative, "the transaction identifier is -1");
}

#[test]
fn reads_and_subscriptions_are_checked() {
    check_refused(Command::ReadEvent, &messages::ReadEvent::default(), "the stream name is empty");
    let message = messages::ReadEvent { event_stream_id: "s".to_owned(), event_number: -2, ..Default::default() };
    check_refused(Command::ReadEvent, &message, "the event number is -2, the lowest allowed is -1");
    for command in [Command::ReadStreamEventsForward, Command::ReadStreamEventsBackward] {
        check_refused(command, &messages::ReadStreamEvents::default(), "the stream name is empty");
        let stream = "s".to_owned();
        let message =
            messages::ReadStreamEvents { event_stream_id: stream, from_event_number: -2, ..Default::default() };
        check_refused(command, &message, "the event number to read from is -2");
    }
    let everything = Subscribe { stream: None, resolve_links: false };
    let request = read(Command::SubscribeToStream, &messages::SubscribeToStream::default());
    assert_eq!(request, Ok(Request::Subscribe(everything)));
}

#[test]
fn consumers_are_checked() {
    let (group, stream) = ("g".to_owned(), "s".to_owned());
    let message = messages::ConnectToPersistentSubscription {
        subscription_id: group,
        event_stream_id: stream,
        allowed_in_flight_messages: -1,
    };
    check_refused(Command::ConnectToPersistentSubscription, &message, "allowed_in_flight_messages is -1");
    let mut message =
        messages::PersistentSubscriptionNakEvents { subscription_id: "s::g".to_owned(), ..Default::default() };
    check_refused(Command::PersistentSubscriptionNakEvents, &message, "the list of event identifiers is empty");
    message.processed_event_ids = vec![Bytes::from_static(b"short")];
    check_refused(Command::PersistentSubscriptionNakEvents, &message, "event identifier 0 is 5 bytes");
}

#[test]
fn what_is_no_request_is_refused_and_late_answers_are_not() {
    let check = |command: u8| {
        let mut package = package(Command::Ping, &());
        package.command = command;
        Request::read(&package, &RequestLimits::default())
    };
    for command in [0x00, 0x10, 0x7F, 0x80, 0xB1, 0xC6, 0xFF] {
        assert_eq!(check(command), Err(RequestError::UnknownCommand), "{command:#x}");
    }
    for command in [0x83, 0x85, 0x87, 0x89, 0x8B, 0xF1] {
        assert_eq!(check(command), Ok(Request::StrayAnswer), "{command:#x}");
    }
}

#[test]
fn a_correlation_identifier_of_zero_is_refused() {
    let mut package = package(Command::ScavengeDatabase, &());
    assert_eq!(Request::read(&package, &RequestLimits::default()), Ok(Request::Scavenge));
    package.correlation = Guid::ZERO;
    assert_eq!(Request::read(&package, &RequestLimits::default()), Err(RequestError::ZeroCorrelation));
}

/// Proto3 clients leave zero fields out.
#[test]
fn missing_required_fields_read_as_zero() {
    let mut bare = package(Command::ReadStreamEventsForward, &());
    bare.payload = Bytes::from_static(b"\x0a\x01s\x18\x0a");
    let Ok(Request::ReadStream(request)) = Request::read(&bare, &RequestLimits::default()) else { panic!() };
    assert_eq!((request.stream.as_str(), request.from, request.max_count), ("s", 0, 10));
}

/// Random bytes, and requests with random damage, give a request or a refusal, never a panic.
#[test]
fn garbage_is_refused_without_harm() {
    let mut random = fastrand::Rng::with_seed(7);
    let good = write("stream", 3, vec![new_event(&ID, "type", b"data"); 3]).encode_to_vec();
    for round in 0..20_000 {
        let mut payload = if round % 2 == 0 { good.clone() } else { vec![0; random.usize(..40)] };
        let changes = if round % 2 == 0 { 2 } else { payload.len() };
        for _ in 0..changes {
            let at = random.usize(..payload.len());
            payload[at] = random.u8(..);
        }
        let mut package = package(Command::WriteEvents, &());
        package.command = if round % 3 == 0 { 0x82 } else { random.u8(0x80..=0xD1) };
        package.payload = payload.into();
        if let Err(error) = Request::read(&package, &RequestLimits::default()) {
            assert!(error.answer(package.command).starts_with("Could not unwrap network package for command "));
        }
    }
}
