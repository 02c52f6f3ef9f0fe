//! What the edge itself reads and writes in stream metadata: the truncation mark that soft deletes use.

use serde_json::{Map, Value};

use crate::codec::record::BatchBuilder;
use crate::types::EventId;

/// "Truncate before": events below this number are gone for readers.
const TRUNCATE_BEFORE: &str = "$tb";

/// The type of metadata events.
pub(super) const METADATA_TYPE: &str = "$metadata";

/// The type of tombstones.
const TOMBSTONE_TYPE: &str = "$streamDeleted";

/// True when metadata with this JSON marks its stream as soft-deleted.
pub(super) fn soft_deletes(event_type: &str, data: &[u8]) -> bool {
    // Cheap look first: hardly any metadata has the mark.
    event_type == METADATA_TYPE
        && data.windows(TRUNCATE_BEFORE.len()).any(|window| window == TRUNCATE_BEFORE.as_bytes())
        && object(data).get(TRUNCATE_BEFORE).and_then(Value::as_i64) == Some(i64::MAX)
}

/// The metadata that takes a soft deletion back: all keys of `old` and the mark at the number of the next event.
pub(super) fn revived(old: &[u8], last_event_number: i64) -> Vec<u8> {
    let mut metadata = object(old);
    metadata.insert(TRUNCATE_BEFORE.to_owned(), Value::from(last_event_number.saturating_add(1)));
    Value::Object(metadata).to_string().into_bytes()
}

/// The metadata of a soft-deleted stream.
pub(super) fn soft_deleted() -> Vec<u8> {
    Value::Object(Map::from_iter([(TRUNCATE_BEFORE.to_owned(), Value::from(i64::MAX))])).to_string().into_bytes()
}

/// The body of a record with one metadata event for `metastream`.
pub(super) fn metadata_body(metastream: &str, json: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(metastream, json.len() + 64);
    builder.event(EventId::random(), METADATA_TYPE, true, json, b"");
    builder.finish()
}

/// The body of the record that hard-deletes `stream`.
pub(super) fn tombstone_body(stream: &str) -> Vec<u8> {
    let mut builder = BatchBuilder::new(stream, 64);
    builder.event(EventId::random(), TOMBSTONE_TYPE, false, b"", b"");
    builder.finish()
}

/// What is not a JSON object counts as no metadata, as in v5.
fn object(json: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revival_keeps_the_other_keys() {
        let old = br#"{"$tb":9223372036854775807,"$maxAge":7,"own":{"a":[1]}}"#;
        assert!(soft_deletes(METADATA_TYPE, old));
        let new = revived(old, 41);
        assert!(!soft_deletes(METADATA_TYPE, &new));
        let new: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!(new, serde_json::json!({"$tb": 42, "$maxAge": 7, "own": {"a": [1]}}));
        assert!(soft_deletes(METADATA_TYPE, &soft_deleted()));
    }

    #[test]
    fn what_is_no_metadata_deletes_nothing() {
        assert!(!soft_deletes("other", &soft_deleted()));
        for data in [&b""[..], b"$tb", b"[9223372036854775807]", b"{\"$tb\":\"9223372036854775807\"}", b"\xFF$tb"] {
            assert!(!soft_deletes(METADATA_TYPE, data));
            assert!(!revived(data, 0).is_empty());
        }
    }
}
