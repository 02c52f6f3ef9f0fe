//! Stream metadata: the keys that the server minds, read from a `$metadata` event.

use std::time::Duration;

use serde_json::{Map, Value};

/// The type of events that hold stream metadata.
pub const METADATA_EVENT_TYPE: &str = "$metadata";

/// Record timestamps in a second.
const TIMESTAMPS_PER_SECOND: i64 = 10_000_000;

/// The access list in stream metadata. `None`: the default list holds; an empty list: administrators only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// `$r`: who may read.
    pub read: Option<Vec<Box<str>>>,
    /// `$w`: who may write.
    pub write: Option<Vec<Box<str>>>,
    /// `$d`: who may delete.
    pub delete: Option<Vec<Box<str>>>,
    /// `$mr`: who may read the metadata.
    pub metadata_read: Option<Vec<Box<str>>>,
    /// `$mw`: who may write the metadata.
    pub metadata_write: Option<Vec<Box<str>>>,
}

/// The keys of stream metadata that the server minds. Custom keys stay in the event and are not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamMetadata {
    /// `$maxCount`: only the newest events are readable. Invariant: above 0.
    pub max_count: Option<i64>,
    /// `$maxAge`: only younger events are readable. Invariant: above 0.
    pub max_age: Option<Duration>,
    /// `$tb`: events below are not readable; the highest number is a soft delete. Invariant: 0 or more.
    pub truncate_before: Option<i64>,
    /// `$cacheControl`: how long the stream's head page may be cached. Invariant: above 0.
    pub cache_control: Option<Duration>,
    /// `$acl`.
    pub acl: Option<Acl>,
}

impl StreamMetadata {
    /// The metadata that an event sets for a stream when it is written to the stream's metadata stream; `None` when the
    /// event is of another type than [`METADATA_EVENT_TYPE`] and so sets nothing. One that is not marked as JSON, is no
    /// JSON object or has a wrong type at a known key counts as empty metadata.
    #[must_use]
    pub fn of_event(event_type: &str, is_json: bool, data: &[u8]) -> Option<StreamMetadata> {
        if event_type != METADATA_EVENT_TYPE {
            return None;
        }
        let document = if is_json { serde_json::from_slice::<Map<String, Value>>(data).ok() } else { None };
        Some(document.and_then(|document| read(&document).ok()).unwrap_or_default())
    }

    /// A document that [`StreamMetadata::of_event`] reads as the same metadata.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut document = Map::new();
        let mut put = |key: &str, number: Option<i64>| {
            document.extend(number.map(|number| (key.to_owned(), Value::from(number))));
        };
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        put("$maxCount", self.max_count);
        put("$maxAge", self.max_age.map(seconds));
        put("$tb", self.truncate_before);
        put("$cacheControl", self.cache_control.map(seconds));
        document.extend(self.acl.as_ref().map(|acl| ("$acl".to_owned(), acl.to_json())));
        Value::Object(document).to_string()
    }

    /// True when the stream is soft-deleted.
    #[must_use]
    pub fn is_soft_deleted(&self) -> bool {
        self.truncate_before == Some(i64::MAX)
    }

    /// True when `$maxAge` hides an event of `timestamp` from a reader at `now`, both in ticks of 100 ns as records have
    /// them.
    #[must_use]
    pub fn is_expired(&self, timestamp: i64, now: i64) -> bool {
        let Some(max_age) = self.max_age else { return false };
        let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        timestamp < now.saturating_sub(seconds.saturating_mul(TIMESTAMPS_PER_SECOND))
    }
}

impl Acl {
    fn to_json(&self) -> Value {
        let mut lists = Map::new();
        let mut put = |key: &str, roles: &Option<Vec<Box<str>>>| {
            let roles = roles.as_ref().map(|roles| roles.iter().map(|role| Value::from(&**role)).collect());
            lists.extend(roles.map(|roles| (key.to_owned(), Value::Array(roles))));
        };
        put("$r", &self.read);
        put("$w", &self.write);
        put("$d", &self.delete);
        put("$mr", &self.metadata_read);
        put("$mw", &self.metadata_write);
        Value::Object(lists)
    }
}

/// A known key holds a value of the wrong type.
struct WrongType;

fn read(document: &Map<String, Value>) -> Result<StreamMetadata, WrongType> {
    let seconds = |number: i64| Duration::from_secs(number.unsigned_abs());
    let positive = |key| Ok(number(document, key)?.filter(|&number| number > 0));
    Ok(StreamMetadata {
        max_count: positive("$maxCount")?,
        max_age: positive("$maxAge")?.map(seconds),
        truncate_before: number(document, "$tb")?.filter(|&number| number >= 0),
        cache_control: positive("$cacheControl")?.map(seconds),
        acl: document.get("$acl").map(acl).transpose()?,
    })
}

/// A whole number; one that no 64 bits hold is out of range, so absent.
fn number(document: &Map<String, Value>, key: &str) -> Result<Option<i64>, WrongType> {
    match document.get(key) {
        None => Ok(None),
        Some(Value::Number(number)) if !number.is_f64() => Ok(number.as_i64()),
        Some(_) => Err(WrongType),
    }
}

fn acl(value: &Value) -> Result<Acl, WrongType> {
    let list = value.as_object().ok_or(WrongType)?;
    let roles = |key| list.get(key).map(roles).transpose();
    Ok(Acl {
        read: roles("$r")?,
        write: roles("$w")?,
        delete: roles("$d")?,
        metadata_read: roles("$mr")?,
        metadata_write: roles("$mw")?,
    })
}

/// One role, or a list of them.
fn roles(value: &Value) -> Result<Vec<Box<str>>, WrongType> {
    let role = |value: &Value| value.as_str().map(Box::from).ok_or(WrongType);
    match value {
        Value::Array(values) => values.iter().map(role).collect(),
        value => Ok(vec![role(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> StreamMetadata {
        StreamMetadata::of_event("$metadata", true, json.as_bytes()).unwrap()
    }

    /// Read, written and read again: the same.
    fn metadata_of(json: &str) -> String {
        let (metadata, written) = (parse(json), parse(json).to_json());
        assert_eq!(parse(&written), metadata, "{written}");
        written
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(metadata_of(""), "{}");
        assert_eq!(metadata_of(r#"{"$tb":7,"$maxCount":5,"mine":1}"#), r#"{"$maxCount":5,"$tb":7}"#);
        for json in [
            r#"{"$maxAge":9223372036854775807,"$cacheControl":3}"#,
            r#"{"$acl":{}}"#,
            r#"{"$acl":{"$r":"$all","$w":["ops","an\"n"],"$d":[],"$mr":["x"],"$mw":"root"}}"#,
        ] {
            metadata_of(json);
        }
    }

    #[test]
    fn known_keys_are_read_and_others_ignored() {
        let metadata = parse(
            r#"{"$maxCount":5,"$maxAge":60,"$tb":7,"$cacheControl":3,"$tmp":true,"mine":{"a":[1]},
                "$acl":{"$r":"$all","$w":["ops","ann"],"$d":[],"$mw":"root"}}"#,
        );
        assert_eq!((metadata.max_count, metadata.truncate_before), (Some(5), Some(7)));
        assert_eq!(metadata.max_age, Some(Duration::from_secs(60)));
        assert_eq!(metadata.cache_control, Some(Duration::from_secs(3)));
        let acl = metadata.acl.unwrap();
        assert_eq!(acl.read, Some(vec!["$all".into()]));
        assert_eq!(acl.write, Some(vec!["ops".into(), "ann".into()]));
        assert_eq!((acl.delete, acl.metadata_read), (Some(vec![]), None));
        assert_eq!(acl.metadata_write, Some(vec!["root".into()]));
        assert!(!parse(r#"{"$tb":9223372036854775806}"#).is_soft_deleted());
        assert!(parse(r#"{"$tb":9223372036854775807}"#).is_soft_deleted());
    }

    #[test]
    fn values_out_of_range_are_absent_and_wrong_types_empty_everything() {
        let check = |json: &str, max_count| assert_eq!(parse(json).max_count, max_count, "{json}");
        check(r#"{"$maxCount":2,"$tb":-1,"$maxAge":0,"$cacheControl":-5}"#, Some(2));
        check(r#"{"$maxCount":0}"#, None);
        check(r#"{"$maxCount":-3}"#, None);
        check(r#"{"$maxCount":18446744073709551615}"#, None);
        for wrong in [
            r#""$tb":"7""#,
            r#""$tb":7.5"#,
            r#""$tb":null"#,
            r#""$acl":[]"#,
            r#""$acl":{"$r":5}"#,
            r#""$acl":{"$w":["a",null]}"#,
            r#""$maxAge":true"#,
        ] {
            assert_eq!(parse(&format!(r#"{{"$maxCount":2,{wrong}}}"#)), StreamMetadata::default(), "{wrong}");
        }
        for document in ["", "[]", "7", "{", "{} x", "\u{0}"] {
            assert_eq!(parse(document), StreamMetadata::default(), "{document}");
        }
        let deep = format!(r#"{{"$maxCount":2,"x":{}"#, "[".repeat(100_000));
        assert_eq!(parse(&deep), StreamMetadata::default());
        assert_eq!(StreamMetadata::of_event("$metadata", false, br#"{"$tb":7}"#), Some(StreamMetadata::default()));
        assert_eq!(StreamMetadata::of_event("other", true, br#"{"$tb":7}"#), None);
    }

    #[test]
    fn age_is_counted_in_seconds() {
        let metadata = parse(r#"{"$maxAge":10}"#);
        let now = 637_000_000_000_000_000;
        assert!(!metadata.is_expired(now - 100_000_000, now));
        assert!(metadata.is_expired(now - 100_000_001, now));
        assert!(!metadata.is_expired(now + 5, now));
        assert!(!parse("{}").is_expired(0, now));
        assert!(!parse(r#"{"$maxAge":9223372036854775807}"#).is_expired(0, now));
    }
}
