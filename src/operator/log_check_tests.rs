//! Goal: a good log has no complaint however it is cut into pieces, and whatever is wrong with one is named at its place.

use super::*;
use crate::codec::record::{BatchBuilder, seal};
use crate::limits::RECORD_HEADER_BYTES;
use crate::operator::testing::{LAYOUT, Log};

/// Walks a log in pieces of `piece` bytes; gives the walk and what was wrong.
fn walked(bytes: &[u8], piece: usize) -> (LogCheck, Vec<(LogPosition, String)>, Option<Break>) {
    let mut check = LogCheck::new(LAYOUT, true);
    let mut complaints = Vec::new();
    let mut length = piece;
    while (check.position().0 as usize) < bytes.len() {
        let at = check.position().0 as usize;
        let end = (at + length).min(bytes.len()).min(at + LAYOUT.room(check.position()) as usize);
        let (used, broken) = check.take(&bytes[at..end]);
        complaints.append(&mut check.take_complaints());
        if broken.is_some() {
            return (check, complaints, broken);
        }
        if used == 0 && end == bytes.len() {
            // The record goes on behind the log's end.
            let position = check.position();
            return (check, complaints, Some(Break { position, reason: "too long".to_owned(), is_empty: false }));
        }
        length = if used == 0 { length * 2 } else { piece };
    }
    (check, complaints, None)
}

#[test]
fn a_good_log_is_walked_in_pieces_of_any_size() {
    let log = Log::sample();
    for piece in [64, 4096, 60_000, 4 << 20] {
        let (mut check, complaints, broken) = walked(&log.bytes, piece);
        assert_eq!((complaints, broken), (Vec::new(), None), "{piece}");
        assert_eq!(check.position(), log.end());
        assert_eq!((check.counts().1, check.stream_count()), (45 + 60, 2));
        assert_eq!(check.epochs().iter().map(|epoch| epoch.term.0).collect::<Vec<_>>(), [1, 3]);
        // The walk never ended a chunk, so this is the sum of all.
        let all = check.end_chunk();
        assert_eq!((all.crc, all.events), (crc32c::crc32c(&log.bytes), 105));
        assert_eq!(all.footer(0, LAYOUT).epochs, check.epochs());
    }
}

#[test]
fn a_flipped_bit_is_a_break_at_its_record() {
    let mut log = Log::default();
    log.epoch(1);
    let first = log.append("a", 0, 1, 100);
    let second = log.append("a", 1, 1, 100);
    for at in first.0..second.0 {
        let mut bytes = log.bytes.clone();
        bytes[at as usize] ^= 0x10;
        let (_, _, broken) = walked(&bytes, 1 << 20);
        assert_eq!(broken.map(|broken| broken.position), Some(first), "{at}");
    }
}

/// A record with these parts behind an epoch record of term 2.
fn behind_an_epoch(kind: RecordKind, term: u32, flags: u8, count: u16, body: &[u8]) -> Vec<u8> {
    let mut log = Log::default();
    log.epoch(2);
    let position = log.end();
    let mut record = vec![0; (RECORD_HEADER_BYTES + body.len()).next_multiple_of(8)];
    record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
    let term = Term(term);
    seal(&mut record, Header { length: 0, crc: 0, position, term, kind, flags, event_count: count, timestamp: 0 });
    log.bytes.extend(record);
    log.bytes
}

#[test]
fn what_a_good_checksum_does_not_make_right_is_named() {
    let check = |bytes: &[u8], expected: &str| {
        let (_, complaints, broken) = walked(bytes, 1 << 20);
        let words: Vec<String> = complaints.into_iter().map(|(_, words)| words).collect();
        let words = broken.map_or(words.join("; "), |broken| broken.reason);
        assert_eq!(words, expected);
    };
    let mut batch = BatchBuilder::new("s", 0);
    batch.event(crate::types::EventId(Guid([1; 16])), "t", false, b"", b"");
    let body = batch.finish();
    check(&behind_an_epoch(RecordKind::Append, 2, 0, 1, &body), "");
    check(&behind_an_epoch(RecordKind::Append, 1, 0, 1, &body), "a record of term 1 behind one of term 2");
    check(&behind_an_epoch(RecordKind::Append, 2, 4, 1, &body), "its flags are 4, but none has a meaning");
    check(&behind_an_epoch(RecordKind::Append, 2, 0, 2, &body), "it has 1 readable events, its header says 2");
    check(&behind_an_epoch(RecordKind::Append, 2, 0, 1, &[9; 8]), "its body is not a batch of events");
    check(&behind_an_epoch(RecordKind::Membership, 2, 0, 0, &[9; 8]), "a member list that cannot be read");
    check(&behind_an_epoch(RecordKind::Epoch, 3, 0, 0, &[9; 8]), "an epoch record that cannot be read");
    check(&behind_an_epoch(RecordKind::Padding, 2, 0, 0, &[9; 8]), "padding that is not all zeros");
    let epoch = |previous| EpochBody { epoch_id: Guid([5; 16]), leader: Default::default(), previous }.encode();
    let first = Some(LogPosition::ZERO);
    check(&behind_an_epoch(RecordKind::Epoch, 3, 0, 0, &epoch(first)), "");
    let words = "it says that the epoch before begins at none, found was 0";
    check(&behind_an_epoch(RecordKind::Epoch, 3, 0, 0, &epoch(None)), words);
    check(&behind_an_epoch(RecordKind::Epoch, 2, 0, 0, &epoch(first)), "epoch 2 behind epoch 2");
}

#[test]
fn an_epoch_that_begins_with_padding_is_one_epoch_of_two_chunks() {
    let mut log = Log::default();
    log.epoch(1);
    log.append("a", 0, 1, (1 << 20) - 332);
    let begin = log.end();
    log.append("b", 0, 1, 20);
    assert!(log.end().0 < 1 << 20 && (1 << 20) - log.end().0 < 72, "{}", log.end());
    log.epoch(2);
    let mut check = LogCheck::new(LAYOUT, false);
    let (used, _) = check.take(&log.bytes[..1 << 20]);
    assert_eq!(used, 1 << 20);
    let first = check.end_chunk();
    assert!(first.epochs[1].id.is_zero() && first.epochs[1].position > begin, "{first:?}");
    let (_, broken) = check.take(&log.bytes[1 << 20..]);
    assert_eq!((broken, check.take_complaints()), (None, Vec::new()));
    assert_eq!(check.end_chunk().epochs, check.epochs()[1..]);
}
