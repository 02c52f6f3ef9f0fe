//! The client protocol: frames in pieces, packages, requests.

use bytes::{Bytes, BytesMut};
use prost::Message;
use prost::encoding::decode_varint;
use ringstore::codec::client::frame::{FrameError, put_package, take_package};
use ringstore::codec::client::request::{ConnectionRequest, NewEvent, WriteEventsView};
use ringstore::codec::client::{Command, Credentials, Package, PackageView, Request, RequestLimits, messages};
use ringstore::codec::record::{BatchBuilder, BatchView};
use ringstore::types::Guid;

use super::tools::{bytes_of, pieces};

const LIMITS: RequestLimits = RequestLimits { append_bytes_max: 64 << 10 };

/// What a real server was asked, and answered.
const RECORDED: &str = include_str!("../../../../src/codec/client/testdata/recorded.txt");

/// The first byte says in which pieces the rest arrives.
pub(super) fn frames(input: &[u8]) {
    let Some((&step, wire)) = input.split_first() else { return };
    let (packages, error) = packages_of(wire, step);
    // However it is cut, it is the same.
    assert_eq!((&packages, error), (&packages_of(wire, 0).0, packages_of(wire, 0).1));
    let mut again = Vec::new();
    for package in &packages {
        let view = package.view();
        put_package(&mut again, view.command, view.flags, view.correlation, view.credentials, view.payload);
        check_request(package);
    }
    assert_eq!(again, wire[..again.len()], "what decodes encodes back to the same bytes");
}

fn packages_of(wire: &[u8], step: u8) -> (Vec<Package>, Option<FrameError>) {
    let (mut buffer, mut packages) = (BytesMut::new(), Vec::new());
    for piece in pieces(wire, step) {
        buffer.extend_from_slice(piece);
        loop {
            match take_package(&mut buffer) {
                Ok(Some(package)) => packages.push(package),
                Ok(None) => break,
                Err(error) => return (packages, Some(error)),
            }
        }
    }
    (packages, None)
}

fn check_request(package: &Package) {
    if let Some(ConnectionRequest::Identify { name, .. }) = ConnectionRequest::read(package) {
        assert!(name.chars().count() <= 256);
    }
    let request = Request::read(package, &LIMITS);
    if let Err(error) = &request {
        assert!(!error.answer(package.command).is_empty());
    }
    if package.command == Command::WriteEvents as u8 && !package.correlation.is_zero() {
        check_write(&package.payload, request);
    }
}

/// A write means the same, read where it lies and decoded into a message; and its events come back from the log.
fn check_write(payload: &[u8], request: Result<Request, ringstore::codec::client::RequestError>) {
    let Some(view) = WriteEventsView::read(payload, &LIMITS) else {
        assert!(request.is_err() || has_group(payload, true), "only the message is accepted");
        return;
    };
    let Ok(Request::WriteEvents(expected)) = request else { panic!("only the view is accepted: {request:?}") };
    assert_eq!(expected, view.to_owned());
    assert!(expected.events.iter().map(NewEvent::view).eq(view.events()));
    let mut builder = BatchBuilder::new(view.stream, view.event_bytes);
    view.events().for_each(|new| builder.event(new.id, new.event_type, new.is_json, new.data, new.metadata));
    let (count, body) = (builder.event_count(), builder.finish());
    let batch = BatchView::of_body(&body, count).expect("a body that was built just now");
    let read: Vec<_> = batch.events().map(|e| (e.stream, e.id, e.event_type, e.is_json, e.data, e.metadata)).collect();
    let stream = view.stream;
    let written = view.events().map(|e| (stream, e.id, e.event_type, e.is_json, e.data, e.metadata));
    assert!(written.eq(read));
}

/// Groups are left to the message's reader: true when a field of the message, or of an event in it, begins one.
fn has_group(mut bytes: &[u8], has_events: bool) -> bool {
    while !bytes.is_empty() {
        let Ok(key) = decode_varint(&mut bytes) else { return false };
        let skipped = match key & 7 {
            0 => decode_varint(&mut bytes).map(|_| 0).ok(),
            1 => Some(8),
            2 => decode_varint(&mut bytes).ok(),
            3 => return true,
            5 => Some(4),
            _ => None,
        };
        let field = skipped.and_then(|length| bytes.split_at_checked(usize::try_from(length).ok()?));
        let Some((value, rest)) = field else { return false };
        if has_events && key == (3 << 3 | 2) && has_group(value, false) {
            return true;
        }
        bytes = rest;
    }
    false
}

/// The first byte is the command, the rest its payload: first as a request, then as each message that there is.
pub(super) fn messages(input: &[u8]) {
    let Some((&command, payload)) = input.split_first() else { return };
    let payload = Bytes::copy_from_slice(payload);
    let package =
        Package { command, flags: 0, correlation: Guid([1; 16]), credentials: None, payload: payload.clone() };
    check_request(&package);
    check_message(command, &payload);
}

fn check_message(command: u8, payload: &Bytes) {
    let Some(command) = Command::from_byte(command) else { return };
    match command {
        Command::WriteEvents => again::<messages::WriteEvents>(payload),
        Command::WriteEventsCompleted => again::<messages::WriteEventsCompleted>(payload),
        Command::TransactionStart => again::<messages::TransactionStart>(payload),
        Command::TransactionStartCompleted => again::<messages::TransactionStartCompleted>(payload),
        Command::TransactionWrite => again::<messages::TransactionWrite>(payload),
        Command::TransactionWriteCompleted => again::<messages::TransactionWriteCompleted>(payload),
        Command::TransactionCommit => again::<messages::TransactionCommit>(payload),
        Command::TransactionCommitCompleted => again::<messages::TransactionCommitCompleted>(payload),
        Command::DeleteStream => again::<messages::DeleteStream>(payload),
        Command::DeleteStreamCompleted => again::<messages::DeleteStreamCompleted>(payload),
        Command::ReadEvent => again::<messages::ReadEvent>(payload),
        Command::ReadEventCompleted => again::<messages::ReadEventCompleted>(payload),
        Command::ReadStreamEventsForward => again::<messages::ReadStreamEvents>(payload),
        Command::ReadStreamEventsForwardCompleted => again::<messages::ReadStreamEventsCompleted>(payload),
        Command::ReadAllEventsForward => again::<messages::ReadAllEvents>(payload),
        Command::ReadAllEventsForwardCompleted => again::<messages::ReadAllEventsCompleted>(payload),
        Command::SubscribeToStream => again::<messages::SubscribeToStream>(payload),
        Command::SubscriptionConfirmation => again::<messages::SubscriptionConfirmation>(payload),
        Command::StreamEventAppeared => again::<messages::StreamEventAppeared>(payload),
        Command::CreatePersistentSubscription => again::<messages::CreatePersistentSubscription>(payload),
        Command::PersistentSubscriptionAckEvents => again::<messages::PersistentSubscriptionAckEvents>(payload),
        Command::PersistentSubscriptionNakEvents => again::<messages::PersistentSubscriptionNakEvents>(payload),
        Command::NotHandled => again::<messages::NotHandled>(payload),
        Command::IdentifyClient => again::<messages::IdentifyClient>(payload),
        _ => {}
    }
}

/// What is read can be written, and is the same when it is read again.
fn again<M: Message + Default + PartialEq + std::fmt::Debug>(payload: &Bytes) {
    let Ok(message) = M::decode(payload.clone()) else { return };
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len());
    assert_eq!(M::decode(encoded.as_slice()).as_ref(), Ok(&message));
}

/// The packages of the recorded conversations.
fn recorded() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        for (index, part) in line.split(" | ").skip(2).enumerate() {
            let words: Vec<&str> = part.split(' ').collect();
            let (command, flags, payload) = match (index, &words[..]) {
                (0, [command, flags, payload]) => (*command, *flags, *payload),
                (_, [command, payload]) => (*command, "00", *payload),
                _ => continue,
            };
            let correlation = "33221100554477668899aabbccddeeff";
            found.push(bytes_of(&[command, flags, correlation, payload].concat()));
        }
    }
    found
}

pub(super) fn frames_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for package in recorded().iter().filter(|package| package.len() < 400).step_by(5) {
        let mut wire = vec![7];
        wire.extend_from_slice(&(package.len() as u32).to_le_bytes());
        wire.extend_from_slice(package);
        seeds.push(wire);
    }
    let mut several = vec![3];
    let credentials = Credentials::new(b"admin", b"changeit");
    let view = credentials.as_ref().map(Credentials::view);
    put_package(&mut several, Command::Ping as u8, 0, Guid([1; 16]), view, b"abc");
    put_package(&mut several, Command::HeartbeatRequestCommand as u8, 2, Guid([2; 16]), None, b"");
    seeds.push(several);
    seeds
}

pub(super) fn messages_seeds() -> Vec<Vec<u8>> {
    let packages = recorded();
    let views = packages.iter().filter_map(|package| PackageView::read(package).ok());
    let mut seeds: Vec<Vec<u8>> = views.map(|view| [&[view.command], view.payload].concat()).collect();
    seeds.retain(|seed| seed.len() < 400);
    // One of each command is enough to begin with.
    seeds.sort_by_key(|seed| (seed[0], std::cmp::Reverse(seed.len())));
    seeds.dedup_by_key(|seed| seed[0]);
    seeds
}
