//! The wire against the worked examples of the protocol's description, byte for byte.

use super::*;

const CORRELATION: [u8; 16] =
    [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF];

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A frame of ours with the examples' correlation identifier in the place of its own.
fn with_example_correlation(mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..22].copy_from_slice(&CORRELATION);
    frame
}

fn ours() -> Correlation {
    Correlation { slot: 3, generation: 9 }
}

fn payload(frame: &[u8]) -> Vec<u8> {
    let (package, length) = package(frame).unwrap().unwrap();
    assert_eq!((length, package.correlation), (frame.len(), CORRELATION));
    package.payload.to_vec()
}

#[test]
fn a_write_is_the_example() {
    let expected =
        hex("56 00 00 00 82 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 0A 06 74 65 73 74 2D 31 10 FF
         FF FF FF FF FF FF FF FF 01 1A 2D 0A 10 A1 A1 F4 FB A3 B4 FE 4D A0 1F EC 52 C3 4E 16 E4 12 0A 69
         74 65 6D 2D 61 64 64 65 64 18 00 20 00 2A 07 61 62 63 64 65 66 67 32 00 20 00");
    let id: [u8; 16] = hex("A1 A1 F4 FB A3 B4 FE 4D A0 1F EC 52 C3 4E 16 E4").try_into().unwrap();
    let template = EventTemplate::new("item-added", 4096, 0);
    let mut out = vec![0xEE; 3];
    write_events(&mut out, ours(), b"test-1", NO_STREAM, false, |out| template.event(out, &id, 7));
    assert_eq!(with_example_correlation(out.split_off(3)), expected);
}

#[test]
fn a_large_event_carries_its_lengths() {
    let template = EventTemplate::new("t", 20_000, 200);
    let mut out = Vec::new();
    template.event(&mut out, &[7; 16], 20_000);
    let mut fields = Fields(&out);
    let (number, event) = fields.next().unwrap().unwrap();
    assert_eq!((number, fields.0.len()), (3, 0), "one field, to the end");
    let mut lengths = Vec::new();
    let mut inner = Fields(event.bytes);
    while let Some((number, value)) = inner.next().unwrap() {
        lengths.push((number, value.bytes.len()));
    }
    assert_eq!(lengths, [(1, 16), (2, 1), (3, 0), (4, 0), (5, 20_000), (6, 200)]);
}

#[test]
fn small_requests_are_the_examples() {
    let mut out = Vec::new();
    read_stream(&mut out, READ_FORWARD, ours(), b"test-1", 0, 10, false);
    let expected = "22 00 00 00 B2 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 0A 06 74 65 73 74 2D 31 10 00
         18 0A 20 00 28 00";
    assert_eq!(with_example_correlation(out), hex(expected));

    let mut out = Vec::new();
    authenticate(&mut out, ours(), "admin", "changeit");
    let expected = "21 00 00 00 F2 01 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 05 61 64 6D 69 6E 08 63 68 61
         6E 67 65 69 74";
    assert_eq!(with_example_correlation(out), hex(expected));

    let mut out = Vec::new();
    identify_client(&mut out, ours(), "my-client");
    let expected = "1F 00 00 00 F5 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 01 12 09 6D 79 2D 63 6C 69 65
         6E 74";
    assert_eq!(with_example_correlation(out), hex(expected));

    let mut out = Vec::new();
    frame(&mut out, HEARTBEAT_RESPONSE, &CORRELATION, |_| {});
    assert_eq!(out, hex("12 00 00 00 02 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF"));
}

#[test]
fn answers_to_writes() {
    let success = "20 00 00 00 83 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 00 18 00 20 00 28 80 20 30
         80 20 38 00";
    assert_eq!(WriteAnswer::parse(&payload(&hex(success))), Ok(WriteAnswer::default()));
    let wrong = "52 00 00 00 83 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 04 12 17 57 72 6F 6E 67 20
         65 78 70 65 63 74 65 64 20 76 65 72 73 69 6F 6E 2E 18 80 80 80 80 F8 FF FF FF FF 01 20 80 80 80
         80 F8 FF FF FF FF 01 28 80 80 80 80 F8 FF FF FF FF 01 30 00 38 03";
    let none = i64::from(i32::MIN);
    let expected = WriteAnswer { result: 4, first: none, last: none, current: 3 };
    assert_eq!(WriteAnswer::parse(&payload(&hex(wrong))), Ok(expected));
}

#[test]
fn a_page_is_counted() {
    let page = "6B 00 00 00 B3 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 0A 4A 0A 48 0A 06 74 65 73 74
         2D 31 10 00 1A 10 A1 A1 F4 FB A3 B4 FE 4D A0 1F EC 52 C3 4E 16 E4 22 0A 69 74 65 6D 2D 61 64 64
         65 64 28 01 30 01 3A 07 7B 22 61 22 3A 31 7D 42 00 48 E0 E9 89 ED 86 E6 E3 EB 08 50 AE 9E D7 A1
         F6 2D 10 00 18 01 20 00 28 01 30 80 40 3A 00";
    let expected = PageAnswer { result: 0, events: 1, payload_bytes: 7, next: (1, 0), last: 0, end_of_stream: true };
    assert_eq!(PageAnswer::of_stream(&payload(&hex(page))), Ok(expected));
    let none = "31 00 00 00 B3 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 10 01 18 FF FF FF FF FF FF FF
         FF FF 01 20 FF FF FF FF FF FF FF FF FF 01 28 01 30 80 40 3A 00";
    let expected = PageAnswer { result: 1, next: (-1, 0), last: -1, end_of_stream: true, ..PageAnswer::default() };
    assert_eq!(PageAnswer::of_stream(&payload(&hex(none))), Ok(expected));
}

#[test]
fn an_event_that_appeared_and_a_page_of_all() {
    // ResolvedEvent: the example's event as number 5, then its two positions.
    let mut event = hex(
        "0A 48 0A 06 74 65 73 74 2D 31 10 05 1A 10 A1 A1 F4 FB A3 B4 FE 4D A0 1F EC 52 C3 4E 16 E4 22 0A 69 74 65 6D 2D
         61 64 64 65 64 28 01 30 01 3A 07 7B 22 61 22 3A 31 7D 42 00 48 E0 E9 89 ED 86 E6 E3 EB 08 50 AE 9E D7 A1 F6 2D
         18 80 20 20 80 20",
    );
    event.splice(0..0, [0x0A, event.len() as u8]);
    let appeared = Appeared::parse(&event).unwrap();
    assert_eq!((appeared.stream, appeared.number, appeared.payload_bytes), (&b"test-1"[..], 5, 7));
    assert_eq!(appeared.id, hex("A1 A1 F4 FB A3 B4 FE 4D A0 1F EC 52 C3 4E 16 E4"));
    let mut page = hex("08 00 10 00");
    for _ in 0..2 {
        page.extend([0x1A]);
        page.extend(&event[1..]);
    }
    page.extend(hex("20 81 20 28 00"));
    let expected = PageAnswer { events: 2, payload_bytes: 14, next: (4097, 0), ..PageAnswer::default() };
    assert_eq!(PageAnswer::of_all(&page), Ok(expected));
}

#[test]
fn who_does_not_handle_says_who_does() {
    let frame = "30 00 00 00 F1 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF 08 02 12 1A 0A 08 31 30 2E 30 2E
         30 2E 31 10 D9 08 1A 08 31 30 2E 30 2E 30 2E 31 20 C1 10";
    let payload = payload(&hex(frame));
    let expected = NotHandled { reason: 2, leader: Some((&b"10.0.0.1"[..], 1113)) };
    assert_eq!(NotHandled::parse(&payload), Ok(expected));
    assert_eq!(NotHandled::parse(&[0x08, 0x01]), Ok(NotHandled { reason: NotHandled::TOO_BUSY, leader: None }));
}

#[test]
fn pieces_and_nonsense() {
    let whole = hex("12 00 00 00 F6 00 33 22 11 00 55 44 77 66 88 99 AA BB CC DD EE FF");
    for length in 0..whole.len() {
        assert!(package(&whole[..length]).unwrap().is_none(), "{length} bytes are not all");
    }
    assert_eq!(frame_bytes(&whole[..4]), Some(whole.len()));
    assert_eq!(frame_bytes(&whole[..3]), None);
    assert!(package(&[5, 0, 0, 0, 1, 2, 3, 4, 5]).is_err(), "shorter than a package's head");
    assert!(package(&[0xFF; 4]).is_err(), "longer than any package");
    for nonsense in [&[0x08][..], &[0x08, 0x80], &[0x0A, 5, 1], &[0x0B], &[0xFF; 11]] {
        assert!(WriteAnswer::parse(nonsense).is_err(), "{nonsense:x?}");
    }
}

#[test]
fn lengths_of_varints() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
        let mut out = Vec::new();
        varint(&mut out, value);
        assert_eq!(varint_bytes(value), out.len(), "{value}");
        assert_eq!(Fields(&out).varint(), Ok(value));
    }
}
