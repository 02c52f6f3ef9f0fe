//! The bytes of this codec against bytes that are known to be right: the worked examples of the protocol's description,
//! and what a real server answered to recorded requests.

use bytes::BytesMut;
use prost::Message;

use crate::codec::client::event::Resolved;
use crate::codec::client::frame::{Package, put_frame, put_package, take_package};
use crate::codec::client::messages::{self, OperationResult, ReadAllResult, ReadEventResult, ReadStreamResult};
use crate::codec::client::page::{self, AllPage, AllPosition, StreamPage, StreamPageEnd};
use crate::codec::client::request::{ConnectionRequest, Direction, NewEvent, ReadStream, Request, WriteEvents};
use crate::codec::client::response::{self, AuthenticationRefusal, Endpoint, Written};
use crate::codec::client::{Command, Credentials, ProtocolLevel, RequestLimits};
use crate::codec::record::EventView;
use crate::types::{EventId, EventNumber, ExpectedVersion, Guid, LogPosition};

const CORRELATION: &str = "00112233-4455-6677-8899-aabbccddeeff";

fn correlation() -> Guid {
    CORRELATION.parse().unwrap()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
}

/// Checks that `write` gives exactly the frame in `hex`.
fn check(hex: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    write(&mut out);
    assert_eq!(hex_of(&out), hex_of(&bytes_of(hex)));
}

fn package_of(frame: &[u8]) -> Package {
    take_package(&mut BytesMut::from(frame)).unwrap().unwrap()
}

fn request_of(hex: &str) -> Request {
    Request::read(&package_of(&bytes_of(hex)), &RequestLimits::default()).unwrap()
}

const WRITE: &str = "82 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF";
const WRITE_PAYLOAD: &str =
    "0A 06 74 65 73 74 2D 31 10 FF FF FF FF FF FF FF FF FF 01 1A 2D 0A 10 A1 A1 F4 FB A3 B4 FE 4D
    A0 1F EC 52 C3 4E 16 E4 12 0A 69 74 65 6D 2D 61 64 64 65 64 18 01 20 00 2A 07 7B 22 61 22 3A 31 7D 32 00 20 00";

fn event_id() -> EventId {
    EventId("fbf4a1a1-b4a3-4dfe-a01f-ec52c34e16e4".parse().unwrap())
}

fn write_request() -> Request {
    Request::WriteEvents(WriteEvents {
        stream: "test-1".to_owned(),
        expected_version: ExpectedVersion::NoStream,
        events: vec![NewEvent {
            id: event_id(),
            event_type: "item-added".to_owned(),
            is_json: true,
            data: "{\"a\":1}".into(),
            metadata: "".into(),
        }],
        require_leader: false,
    })
}

#[test]
fn example_10_1_write_events() {
    assert_eq!(request_of(&format!("56 00 00 00 {WRITE} {WRITE_PAYLOAD}")), write_request());
    let with_credentials = format!(
        "65 00 00 00 82 01 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 05 61 64 6D 69 6E 08 63 68 61 6E 67 65 69 74 {WRITE_PAYLOAD}"
    );
    let package = package_of(&bytes_of(&with_credentials));
    assert_eq!(package.credentials, Credentials::new(b"admin", b"changeit"));
    assert_eq!(Request::read(&package, &RequestLimits::default()), Ok(write_request()));
    check(&with_credentials, |out| {
        put_package(
            out,
            package.command,
            0,
            correlation(),
            package.credentials.as_ref().map(Credentials::view),
            &package.payload,
        );
    });
}

#[test]
fn examples_10_2_to_10_4_write_events_completed() {
    check(
        "20 00 00 00 83 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 00 18 00 20 00 28 80 20 30 80 20 38 00",
        |out| {
            let written =
                Written { first_event_number: 0, last_event_number: 0, prepare_position: 4096, commit_position: 4096 };
            response::write_succeeded(out, correlation(), written);
        },
    );
    check(
        "30 00 00 00 83 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 00 18 00 20 00 28 FF FF FF
         FF FF FF FF FF FF 01 30 FF FF FF FF FF FF FF FF FF 01 38 00",
        |out| response::write_succeeded(out, correlation(), Written::repeated(0, 0)),
    );
    check(
        "52 00 00 00 83 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 04 12 17 57 72 6F 6E 67 20
         65 78 70 65 63 74 65 64 20 76 65 72 73 69 6F 6E 2E 18 80 80 80 80 F8 FF FF FF FF 01 20 80 80 80
         80 F8 FF FF FF FF 01 28 80 80 80 80 F8 FF FF FF FF 01 30 00 38 03",
        |out| response::write_failed(out, correlation(), OperationResult::WrongExpectedVersion, 3),
    );
}

#[test]
fn example_10_5_reading_it_back() {
    let request = request_of(
        "22 00 00 00 B2 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 0A 06 74 65 73 74 2D 31 10 00
         18 0A 20 00 28 00",
    );
    let wanted = ReadStream {
        direction: Direction::Forward,
        stream: "test-1".to_owned(),
        from: 0,
        max_count: 10,
        resolve_links: false,
        require_leader: false,
    };
    assert_eq!(request, Request::ReadStream(wanted));
    let event = EventView {
        stream: "test-1",
        event_number: EventNumber(0),
        id: event_id(),
        event_type: "item-added",
        is_json: true,
        data: b"{\"a\":1}",
        metadata: b"",
        timestamp: 637_135_310_456_780_000,
        commit_position: LogPosition(0),
        prepare_position: LogPosition(0),
    };
    check(
        "6B 00 00 00 B3 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 0A 4A 0A 48 0A 06 74 65 73 74
         2D 31 10 00 1A 10 A1 A1 F4 FB A3 B4 FE 4D A0 1F EC 52 C3 4E 16 E4 22 0A 69 74 65 6D 2D 61 64 64
         65 64 28 01 30 01 3A 07 7B 22 61 22 3A 31 7D 42 00 48 E0 E9 89 ED 86 E6 E3 EB 08 50 AE 9E D7 A1
         F6 2D 10 00 18 01 20 00 28 01 30 80 40 3A 00",
        |out| {
            let mut page = StreamPage::begin(out, Command::ReadStreamEventsForwardCompleted, correlation());
            assert!(page.push(Resolved::plain(&event)));
            page.finish(ProtocolLevel::V2, end(1, 0));
        },
    );
    check(
        "31 00 00 00 B3 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 10 01 18 FF FF FF FF FF FF FF
         FF FF 01 20 FF FF FF FF FF FF FF FF FF 01 28 01 30 80 40 3A 00",
        |out| {
            let mut page = StreamPage::begin(out, Command::ReadStreamEventsForwardCompleted, correlation());
            assert!(page.push(Resolved::plain(&event)), "dropped again");
            page.fail(ProtocolLevel::V1, ReadStreamResult::NoStream, end(-1, -1), "");
        },
    );
    check("16 00 00 00 B1 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 01 12 00", |out| {
        page::read_event_failed(out, correlation(), ReadEventResult::NotFound, None);
    });
}

fn end(next_event_number: i64, last_event_number: i64) -> StreamPageEnd {
    StreamPageEnd { next_event_number, last_event_number, is_end_of_stream: true, last_commit_position: 8192 }
}

#[test]
fn examples_10_6_small_frames() {
    check("12 00 00 00 01 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF", |out| {
        response::heartbeat_request(out, correlation());
    });
    check("12 00 00 00 02 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF", |out| {
        response::heartbeat_response(out, correlation());
    });
    check("12 00 00 00 F6 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF", |out| {
        response::client_identified(out, correlation());
    });
    check("14 00 00 00 F1 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 00", |out| {
        response::not_ready(out, correlation());
    });
    check(
        "30 00 00 00 F1 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 02 12 1A 0A 08 31 30 2E 30
         2E 30 2E 31 10 D9 08 1A 08 31 30 2E 30 2E 30 2E 31 20 C1 10",
        |out| {
            let address = "10.0.0.1".parse().unwrap();
            let (tcp, http) = (Endpoint::new(address, 1113), Endpoint::new(address, 2113));
            response::not_leader(out, correlation(), &tcp, &http, None);
        },
    );
    check("12 00 00 00 C4 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF", |out| {
        response::subscription_dropped(out, correlation(), messages::SubscriptionDropReason::Unsubscribed);
    });
    check("14 00 00 00 C4 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 01", |out| {
        response::subscription_dropped(out, correlation(), messages::SubscriptionDropReason::AccessDenied);
    });
    let connection_request = |hex: &str| ConnectionRequest::read(&package_of(&bytes_of(hex)));
    let identify =
        "1F 00 00 00 F5 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 01 12 09 6D 79 2D 63 6C 69 65 6E 74";
    let identified = ConnectionRequest::Identify { level: ProtocolLevel::V2, name: "my-client".to_owned() };
    assert_eq!(connection_request(identify), Some(identified));
    let authenticate = "21 00 00 00 F2 01 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 05 61 64 6D 69 6E 08 63 68 61 6E 67 65 69 74";
    assert_eq!(connection_request(authenticate), Some(ConnectionRequest::Authenticate));
    assert_eq!(package_of(&bytes_of(authenticate)).credentials, Credentials::new(b"admin", b"changeit"));
}

/// One recorded exchange: the request's package and the answer's frame.
struct Exchange<'a> {
    name: &'a str,
    level: ProtocolLevel,
    package: Package,
    answer_command: Command,
    answer: Vec<u8>,
}

fn recorded() -> impl Iterator<Item = Exchange<'static>> {
    let lines = include_str!("testdata/recorded.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let columns: Vec<_> = line.split(" | ").collect();
        let request: Vec<_> = columns[2].split(' ').collect();
        let mut package = bytes_of(request[0]);
        package.extend(bytes_of(request[1]));
        package.extend(correlation().0);
        package.extend(bytes_of(request[2]));
        let (command, payload) = columns[3].split_once(' ').unwrap();
        let answer_command = Command::from_byte(bytes_of(command)[0]).unwrap();
        let mut answer = Vec::new();
        put_frame(&mut answer, answer_command, correlation(), &bytes_of(payload));
        Exchange {
            name: columns[0],
            level: if columns[1] == "V1" { ProtocolLevel::V1 } else { ProtocolLevel::V2 },
            package: Package::read(package.into()).unwrap(),
            answer_command,
            answer,
        }
    })
}

#[test]
fn recorded_requests_are_understood() {
    let mut refused = Vec::new();
    for exchange in recorded() {
        let Exchange { name, package, .. } = &exchange;
        if let Some(request) = ConnectionRequest::read(package) {
            assert_ne!(request, ConnectionRequest::IdentifyUnreadable, "{name}");
            continue;
        }
        match Request::read(package, &RequestLimits::default()) {
            Ok(_) => assert_ne!(exchange.answer_command, Command::BadRequest, "{name}"),
            Err(error) => {
                assert_eq!(exchange.answer_command, Command::BadRequest, "{name}: {error}");
                let text = String::from_utf8_lossy(&exchange.answer[22..]).into_owned();
                assert!(error.answer(package.command).starts_with(&text), "{name}: {error}");
                refused.push(name.to_owned());
            }
        }
    }
    assert_eq!(refused.len(), 4, "{refused:?}");
}

#[test]
fn recorded_answers_come_out_byte_for_byte() {
    let mut count = 0;
    for exchange in recorded().filter(|exchange| exchange.answer_command != Command::BadRequest) {
        let mut out = Vec::new();
        write_again(&exchange, &mut out);
        assert_eq!(hex_of(&out), hex_of(&exchange.answer), "{}", exchange.name);
        count += 1;
    }
    assert_eq!(count, 38);
}

fn decode<M: Message + Default>(exchange: &Exchange<'_>) -> M {
    M::decode(&exchange.answer[22..]).unwrap()
}

/// Writes the recorded answer with our builders, from the values in it.
fn write_again(exchange: &Exchange<'_>, out: &mut Vec<u8>) {
    let (id, payload) = (correlation(), &exchange.answer[22..]);
    match exchange.answer_command {
        Command::Pong => response::pong(out, id, payload),
        Command::ClientIdentified => response::client_identified(out, id),
        Command::Authenticated => response::authenticated(out, id),
        Command::NotAuthenticated => response::not_authenticated(out, id, refusal(payload)),
        Command::WriteEventsCompleted => write_completed(&decode(exchange), out),
        Command::DeleteStreamCompleted => delete_completed(&decode(exchange), out),
        Command::TransactionStartCompleted => {
            let message: messages::TransactionStartCompleted = decode(exchange);
            response::transaction_started(out, id, Ok(message.transaction_id));
        }
        Command::ReadEventCompleted => event_completed(&decode(exchange), out),
        Command::ReadStreamEventsForwardCompleted | Command::ReadStreamEventsBackwardCompleted => {
            stream_completed(exchange, &decode(exchange), out);
        }
        Command::ReadAllEventsForwardCompleted | Command::ReadAllEventsBackwardCompleted => {
            all_completed(exchange, &decode(exchange), out);
        }
        Command::SubscriptionConfirmation => {
            let message: messages::SubscriptionConfirmation = decode(exchange);
            let (position, number) = (message.last_commit_position, message.last_event_number);
            response::subscription_confirmed(out, id, exchange.level, position, number);
        }
        Command::SubscriptionDropped => {
            let message: messages::SubscriptionDropped = decode(exchange);
            response::subscription_dropped(out, id, message.reason());
        }
        Command::CreatePersistentSubscriptionCompleted => {
            let message: messages::CreatePersistentSubscriptionCompleted = decode(exchange);
            response::persistent_subscription_created(out, id, message.result(), message.reason());
        }
        Command::NotHandled => {
            let message: messages::NotHandled = decode(exchange);
            let leader = messages::MasterInfo::decode(message.additional_info()).unwrap();
            let endpoint = |address: &str, port: i32| Endpoint { address: address.to_owned(), port: port as u16 };
            let tcp = endpoint(&leader.external_tcp_address, leader.external_tcp_port);
            let http = endpoint(&leader.external_http_address, leader.external_http_port);
            response::not_leader(out, id, &tcp, &http, None);
        }
        other => panic!("{}: no builder for {other:?}", exchange.name),
    }
}

fn refusal(text: &[u8]) -> AuthenticationRefusal {
    match text[0] {
        b'U' => AuthenticationRefusal::Unauthorized,
        _ if text.starts_with(b"No user") => AuthenticationRefusal::NoCredentials,
        _ => AuthenticationRefusal::NotAuthenticated,
    }
}

fn write_completed(message: &messages::WriteEventsCompleted, out: &mut Vec<u8>) {
    match message.result() {
        OperationResult::Success => {
            let written = Written {
                first_event_number: message.first_event_number,
                last_event_number: message.last_event_number,
                prepare_position: message.prepare_position(),
                commit_position: message.commit_position(),
            };
            response::write_succeeded(out, correlation(), written);
        }
        result => response::write_failed(out, correlation(), result, message.current_version()),
    }
}

fn delete_completed(message: &messages::DeleteStreamCompleted, out: &mut Vec<u8>) {
    match message.result() {
        OperationResult::Success => {
            response::delete_succeeded(out, correlation(), message.prepare_position(), message.commit_position());
        }
        result => response::delete_failed(out, correlation(), result, None),
    }
}

/// The view of the log from which `record` was made.
fn view(record: &messages::EventRecord, commit: i64, prepare: i64) -> EventView<'_> {
    EventView {
        stream: &record.event_stream_id,
        event_number: EventNumber(record.event_number),
        id: EventId(Guid(record.event_id[..].try_into().unwrap())),
        event_type: &record.event_type,
        is_json: record.data_content_type == 1,
        data: &record.data,
        metadata: record.metadata(),
        timestamp: record.created(),
        commit_position: LogPosition(commit as u64),
        prepare_position: LogPosition(prepare as u64),
    }
}

fn event_completed(message: &messages::ReadEventCompleted, out: &mut Vec<u8>) {
    match (message.result(), &message.event.event) {
        (ReadEventResult::Success, Some(record)) => {
            page::read_event_succeeded(out, correlation(), Resolved::plain(&view(record, 0, 0)));
        }
        (result, _) => page::read_event_failed(out, correlation(), result, None),
    }
}

fn stream_completed(exchange: &Exchange<'_>, message: &messages::ReadStreamEventsCompleted, out: &mut Vec<u8>) {
    let mut page = StreamPage::begin(out, exchange.answer_command, correlation());
    for entry in &message.events {
        assert!(page.push(Resolved::plain(&view(entry.event.as_ref().unwrap(), 0, 0))));
    }
    let shown_as_tombstone = exchange.level == ProtocolLevel::V1 && message.last_event_number == i64::from(i32::MAX);
    let end = StreamPageEnd {
        next_event_number: message.next_event_number,
        last_event_number: if shown_as_tombstone { i64::MAX } else { message.last_event_number },
        is_end_of_stream: message.is_end_of_stream,
        last_commit_position: message.last_commit_position,
    };
    match message.result() {
        ReadStreamResult::Success => page.finish(exchange.level, end),
        result => page.fail(exchange.level, result, end, message.error()),
    }
}

fn all_completed(exchange: &Exchange<'_>, message: &messages::ReadAllEventsCompleted, out: &mut Vec<u8>) {
    let from = AllPosition { commit: message.commit_position, prepare: message.prepare_position };
    let mut page = AllPage::begin(out, exchange.answer_command, correlation(), exchange.level, from);
    for entry in &message.events {
        let event = view(entry.event.as_ref().unwrap(), entry.commit_position, entry.prepare_position);
        assert!(page.push(Resolved::plain(&event)));
    }
    match message.result() {
        ReadAllResult::Success => {
            page.finish(AllPosition { commit: message.next_commit_position, prepare: message.next_prepare_position });
        }
        result => page.fail(result, message.error.as_deref()),
    }
}
