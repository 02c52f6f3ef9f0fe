//! The test client itself, measured by the description of the wire and not by the server.

use prost::Message as _;

use crate::support::client::{NO_STREAM, PONG, Package, WRITE_EVENTS, event};
use crate::support::messages::WriteEvents;

#[test]
fn a_write_is_the_frame_of_the_description() {
    let id = [0xA1, 0xA1, 0xF4, 0xFB, 0xA3, 0xB4, 0xFE, 0x4D, 0xA0, 0x1F, 0xEC, 0x52, 0xC3, 0x4E, 0x16, 0xE4];
    let mut written = event(id, b"{\"a\":1}".to_vec());
    written.event_type = "item-added".to_owned();
    written.data_content_type = 1;
    written.metadata = Some(Vec::new());
    let request = WriteEvents {
        stream: "test-1".to_owned(),
        expected_version: NO_STREAM,
        events: vec![written],
        require_master: false,
    };
    let correlation = 0xFFEE_DDCC_BBAA_9988_6677_4455_0011_2233_u128.to_le_bytes();
    let frame = Package { command: WRITE_EVENTS, correlation, payload: request.encode_to_vec() }.encode();
    let wanted = "560000008200 33221100554477668899AABBCCDDEEFF 0A06746573742D31 10FFFFFFFFFFFFFFFFFF01 1A2D \
                  0A10A1A1F4FBA3B4FE4DA01FEC52C34E16E4 120A6974656D2D6164646564 1801 2000 2A077B2261223A317D 3200 2000";
    let hex: String = frame.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(hex, wanted.replace(' ', ""));
}

#[test]
fn a_frame_in_pieces_is_taken_when_it_is_whole() {
    let package = Package { command: PONG, correlation: [7; 16], payload: vec![1, 2, 3] };
    let frame = package.encode();
    for cut in 0..frame.len() {
        let mut buffer = frame[..cut].to_vec();
        assert_eq!(Package::take(&mut buffer).unwrap(), None);
        buffer.extend_from_slice(&frame[cut..]);
        assert_eq!(Package::take(&mut buffer).unwrap(), Some(package.clone()));
        assert!(buffer.is_empty());
    }
    assert!(Package::take(&mut vec![1, 0, 0, 0]).is_err());
}
