//! The messages of the control link as frames, byte by byte. Integers are little-endian.
//!
//! ```text
//! 0x21 Subscribe        u32 term, u32 count, u64 log end, u64 commit position, i32 priority, u32 zero,
//!                       count × (u32 term, u64 position, id)
//! 0x22 Subscribed       u32 term, u64 start
//! 0x23 Refused          u32 term, reason as UTF-8
//! 0x24 Acknowledge      u32 term, u64 position
//! 0x25 Heartbeat        u32 term, u64 round, u64 commit position
//! 0x26 HeartbeatAnswer  u32 term, u64 round, u64 microseconds that a flush takes,
//!                       u64 position that a full disk can take the log up to (all ones: it is not full),
//!                       u32 flags (1: as leader it could take writes; others are not looked at)
//! ```
//!
//! The correlation identifier of a frame is the subscription where the message has one, else zero.

use crate::codec::link::{CONTROL_PACKAGE_MAX_BYTES, Frame, LinkError, REASON_MAX_BYTES, bounded, put_frame, shorten};
use crate::consensus::{EPOCHS_SENT_MAX, Message};
use crate::types::{Epoch, Guid, LogPosition, Term};

const SUBSCRIBE: u8 = 0x21;
const SUBSCRIBED: u8 = 0x22;
const REFUSED: u8 = 0x23;
const ACKNOWLEDGE: u8 = 0x24;
const HEARTBEAT: u8 = 0x25;
const HEARTBEAT_ANSWER: u8 = 0x26;

/// In the place of a position: the disk is not full.
const NOT_FULL: LogPosition = LogPosition(u64::MAX);

/// Flag of an answer to a heartbeat: as leader the node could take writes.
const READY: u32 = 1;

const SUBSCRIBE_BYTES: usize = 32;
const EPOCH_BYTES: usize = 28;

// The largest message, with the 18 bytes before its payload, fits a frame.
const _: () = assert!(SUBSCRIBE_BYTES + EPOCHS_SENT_MAX * EPOCH_BYTES + 18 <= CONTROL_PACKAGE_MAX_BYTES);

/// Appends the frame of a message.
///
/// # Panics
/// When a subscription has more than [`EPOCHS_SENT_MAX`] epochs, which none has.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Subscribe { term, subscription, epochs, log_end, commit_position, priority } => {
            put_frame(out, SUBSCRIBE, *subscription, |out| {
                put_term(out, *term);
                out.extend_from_slice(&(epochs.len() as u32).to_le_bytes());
                put_u64(out, log_end.0);
                put_u64(out, commit_position.0);
                out.extend_from_slice(&priority.to_le_bytes());
                out.extend_from_slice(&[0; 4]);
                for epoch in epochs {
                    put_term(out, epoch.term);
                    put_u64(out, epoch.position.0);
                    out.extend_from_slice(&epoch.id.0);
                }
            });
        }
        Message::Subscribed { term, subscription, start } => {
            put_numbers(out, SUBSCRIBED, *subscription, *term, &[start.0]);
        }
        Message::Refused { term, reason } => put_frame(out, REFUSED, Guid::ZERO, |out| {
            put_term(out, *term);
            out.extend_from_slice(shorten(reason).as_bytes());
        }),
        Message::Acknowledge { term, subscription, position } => {
            put_numbers(out, ACKNOWLEDGE, *subscription, *term, &[position.0]);
        }
        Message::Heartbeat { term, round, commit_position } => {
            put_numbers(out, HEARTBEAT, Guid::ZERO, *term, &[*round, commit_position.0]);
        }
        Message::HeartbeatAnswer { term, round, flush_micros, full_from, is_ready } => {
            put_frame(out, HEARTBEAT_ANSWER, Guid::ZERO, |out| {
                put_term(out, *term);
                [*round, *flush_micros, full_from.unwrap_or(NOT_FULL).0]
                    .iter()
                    .for_each(|&number| put_u64(out, number));
                let flags = if *is_ready { READY } else { 0 };
                out.extend_from_slice(&flags.to_le_bytes());
            });
        }
    }
}

fn put_numbers(out: &mut Vec<u8>, command: u8, correlation: Guid, term: Term, numbers: &[u64]) {
    put_frame(out, command, correlation, |out| {
        put_term(out, term);
        numbers.iter().for_each(|&number| put_u64(out, number));
    });
}

fn put_term(out: &mut Vec<u8>, term: Term) {
    out.extend_from_slice(&term.0.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Reads the message in a frame.
///
/// # Errors
/// When it is not one, to the byte.
pub fn decode(frame: &Frame<'_>) -> Result<Message, LinkError> {
    let payload = frame.payload;
    let exactly = |what, bytes| bounded(what, payload.len(), bytes, bytes);
    let subscription = frame.correlation;
    Ok(match frame.command {
        SUBSCRIBE => decode_subscribe(frame)?,
        SUBSCRIBED => {
            exactly("Subscribed", 12)?;
            Message::Subscribed { term: term_at(payload, 0), subscription, start: position_at(payload, 4) }
        }
        REFUSED => {
            bounded("Refused", payload.len(), 4, 4 + REASON_MAX_BYTES)?;
            let reason = std::str::from_utf8(&payload[4..]).map_err(|_| LinkError::Text)?.to_owned();
            Message::Refused { term: term_at(payload, 0), reason }
        }
        ACKNOWLEDGE => {
            exactly("Acknowledge", 12)?;
            Message::Acknowledge { term: term_at(payload, 0), subscription, position: position_at(payload, 4) }
        }
        HEARTBEAT => {
            exactly("Heartbeat", 20)?;
            let (round, commit_position) = (u64_at(payload, 4), position_at(payload, 12));
            Message::Heartbeat { term: term_at(payload, 0), round, commit_position }
        }
        HEARTBEAT_ANSWER => {
            exactly("HeartbeatAnswer", 32)?;
            let (round, flush_micros) = (u64_at(payload, 4), u64_at(payload, 12));
            let full_from = Some(position_at(payload, 20)).filter(|position| *position != NOT_FULL);
            let flags = u32::from_le_bytes(payload[28..32].try_into().expect("four bytes"));
            let is_ready = flags & READY != 0;
            Message::HeartbeatAnswer { term: term_at(payload, 0), round, flush_micros, full_from, is_ready }
        }
        found => return Err(LinkError::Command { found }),
    })
}

fn decode_subscribe(frame: &Frame<'_>) -> Result<Message, LinkError> {
    let payload = frame.payload;
    let most = SUBSCRIBE_BYTES + EPOCHS_SENT_MAX * EPOCH_BYTES;
    bounded("Subscribe", payload.len(), SUBSCRIBE_BYTES, most)?;
    let count = u32::from_le_bytes(payload[4..8].try_into().expect("four bytes")) as usize;
    bounded("Subscribe's list of epochs", count, 0, EPOCHS_SENT_MAX)?;
    let expected = SUBSCRIBE_BYTES + count * EPOCH_BYTES;
    bounded("Subscribe", payload.len(), expected, expected)?;
    let epochs: Vec<Epoch> = payload[SUBSCRIBE_BYTES..]
        .chunks_exact(EPOCH_BYTES)
        .map(|bytes| Epoch {
            term: term_at(bytes, 0),
            position: position_at(bytes, 4),
            id: Guid(bytes[12..28].try_into().expect("sixteen bytes")),
        })
        .collect();
    Ok(Message::Subscribe {
        term: term_at(payload, 0),
        subscription: frame.correlation,
        epochs,
        log_end: position_at(payload, 8),
        commit_position: position_at(payload, 16),
        priority: i32::from_le_bytes(payload[24..28].try_into().expect("four bytes")),
    })
}

fn term_at(bytes: &[u8], at: usize) -> Term {
    Term(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn position_at(bytes: &[u8], at: usize) -> LogPosition {
    LogPosition(u64_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::link::take_frame;

    fn messages() -> Vec<Message> {
        let epoch =
            |n: u32| Epoch { term: Term(n), position: LogPosition(u64::from(n) * 100), id: Guid([n as u8; 16]) };
        let (term, subscription) = (Term(9), Guid([7; 16]));
        let (log_end, commit_position) = (LogPosition(5000), LogPosition(4000));
        let subscribe = |count| Message::Subscribe {
            term,
            subscription,
            epochs: (1..=count).map(epoch).collect(),
            log_end,
            commit_position,
            priority: -5,
        };
        vec![
            subscribe(0),
            subscribe(3),
            subscribe(EPOCHS_SENT_MAX as u32),
            Message::Subscribed { term, subscription, start: log_end },
            Message::Refused { term, reason: "not the leader".to_owned() },
            Message::Acknowledge { term, subscription, position: log_end },
            Message::Heartbeat { term, round: 12, commit_position },
            Message::HeartbeatAnswer { term, round: 12, flush_micros: 731, full_from: None, is_ready: false },
            Message::HeartbeatAnswer { term, round: 12, flush_micros: 731, full_from: Some(log_end), is_ready: true },
        ]
    }

    #[test]
    fn messages_come_back_as_they_went() {
        for message in messages() {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            let (frame, length) = take_frame(&bytes).unwrap().unwrap();
            assert_eq!(length, bytes.len());
            assert_eq!(decode(&frame), Ok(message));
        }
    }

    #[test]
    fn one_byte_more_or_less_is_refused() {
        for message in messages() {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            let frame = take_frame(&bytes).unwrap().unwrap().0;
            if frame.command == REFUSED {
                continue;
            }
            let short = Frame { payload: &frame.payload[..frame.payload.len() - 1], ..frame };
            assert!(decode(&short).is_err(), "{message:?}");
            let long = [frame.payload, &[0]].concat();
            assert!(decode(&Frame { payload: &long, ..frame }).is_err(), "{message:?}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let frame = |command, payload| Frame { command, correlation: Guid::ZERO, payload };
        assert!(decode(&frame(0x82, &[])).is_err());
        assert!(decode(&frame(REFUSED, &[0, 0, 0, 0, 0xFF])).is_err());
        assert!(decode(&frame(SUBSCRIBE, &[0xFF; 32])).is_err());
    }
}
