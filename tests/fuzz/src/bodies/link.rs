//! What nodes say to each other on their own port: greeting, welcome, frames of the control link.

use ringstore::codec::link::{HELLO_BYTES, Hello, Purpose, WELCOME_BYTES, Welcome, take_frame};
use ringstore::consensus::Message;
use ringstore::transport::messages::{decode, encode};
use ringstore::types::{ClusterId, Epoch, Guid, LogPosition, NodeId, Term};

use super::tools::{Input, pieces};

/// The first byte chooses the part; bit 7 of it gives a greeting the checksum that it should have.
pub(super) fn link(input: &[u8]) {
    let mut input = Input(input);
    let choice = input.byte();
    match choice & 3 {
        0 => hello(input.rest(), choice & 0x80 != 0),
        1 => welcome(input.rest()),
        _ => {
            let step = input.byte();
            frames(input.rest(), step);
        }
    }
}

fn hello(bytes: &[u8], mend: bool) {
    let mut hello = [0; HELLO_BYTES];
    let length = bytes.len().min(HELLO_BYTES);
    hello[..length].copy_from_slice(&bytes[..length]);
    if mend {
        let crc = crc32c::crc32c(&hello[..HELLO_BYTES - 4]);
        hello[HELLO_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    if let Ok(read) = Hello::decode(&hello) {
        assert_eq!(Hello::decode(&read.encode()), Ok(read));
    }
}

fn welcome(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk::<WELCOME_BYTES>() else { return };
    match Welcome::decode(head) {
        Ok(Welcome::Accepted) => assert_eq!(*head, Welcome::accept()),
        Ok(Welcome::Refused { reason_bytes }) => {
            let reason = bytes.get(WELCOME_BYTES..WELCOME_BYTES + reason_bytes);
            if let Some(Ok(reason)) = reason.map(std::str::from_utf8) {
                assert_eq!(Welcome::refuse(reason), bytes[..WELCOME_BYTES + reason_bytes]);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn frames(wire: &[u8], step: u8) {
    let messages = messages_of(wire, step);
    assert_eq!(messages, messages_of(wire, 0), "however it is cut, it is the same");
    for message in messages.into_iter().flatten() {
        let mut again = Vec::new();
        encode(&message, &mut again);
        let (frame, length) = take_frame(&again).expect("our own frame").expect("a whole frame");
        assert_eq!((decode(&frame), length), (Ok(message), again.len()));
    }
}

/// The messages up to the first thing that is none.
fn messages_of(wire: &[u8], step: u8) -> Vec<Option<Message>> {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for piece in pieces(wire, step) {
        buffer.extend_from_slice(piece);
        loop {
            match take_frame(&buffer) {
                Ok(Some((frame, length))) => {
                    assert_eq!(&buffer[4..5], [frame.command]);
                    messages.push(decode(&frame).ok());
                    buffer.drain(..length);
                }
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}

pub(super) fn link_seeds() -> Vec<Vec<u8>> {
    let hello = Hello {
        purpose: Purpose::Data,
        cluster: ClusterId(Guid([1; 16])),
        node: NodeId(Guid([2; 16])),
        term: Term(7),
        subscription: Guid([3; 16]),
        start: LogPosition(4096),
        chunk_size: 1 << 20,
        secret: false,
    };
    let (term, subscription, position) = (Term(9), Guid([7; 16]), LogPosition(5000));
    let epochs =
        (1..3).map(|n| Epoch { term: Term(n), position: LogPosition(u64::from(n)), id: Guid([4; 16]) }).collect();
    let messages = [
        Message::Subscribe { term, subscription, epochs, log_end: position, commit_position: position, priority: 3 },
        Message::Subscribed { term, subscription, start: position },
        Message::Refused { term, reason: "not the leader".to_owned() },
        Message::Acknowledge { term, subscription, position },
        Message::Heartbeat { term, round: 12, commit_position: position },
        Message::HeartbeatAnswer { term, round: 12, flush_micros: 90, full_from: None, is_ready: true },
        Message::HeartbeatAnswer { term, round: 13, flush_micros: 90, full_from: Some(position), is_ready: false },
    ];
    let mut wire = vec![2, 5];
    messages.iter().for_each(|message| encode(message, &mut wire));
    vec![
        [&[0x80], &hello.encode()[..]].concat(),
        [&[1], &Welcome::accept()[..]].concat(),
        [&[1], &Welcome::refuse("another cluster")[..]].concat(),
        wire,
    ]
}
