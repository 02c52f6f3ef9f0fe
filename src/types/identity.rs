//! Identifiers of 16 bytes, kept in the byte order that the v5 wire has them in (.NET GUID layout).

use std::fmt;
use std::str::FromStr;

/// Sixteen bytes in the layout of a .NET GUID: the first three groups of the text form are little-endian.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zero: "none" on the wire.
    pub const ZERO: Guid = Guid([0; 16]);

    /// A new random identifier, from the operating system's random source.
    #[must_use]
    pub fn random() -> Guid {
        Guid(uuid::Uuid::new_v4().to_bytes_le())
    }

    /// True for the identifier that means "none".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes_le(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Guid, uuid::Error> {
        Ok(Guid(uuid::Uuid::parse_str(text)?.to_bytes_le()))
    }
}

impl serde::Serialize for Guid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Guid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Guid, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Guid);

        impl $name {
            /// A new random identifier.
            #[must_use]
            pub fn random() -> $name {
                $name(Guid::random())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

identifier!(
    /// A node, for the life of its data directory.
    NodeId
);
identifier!(
    /// A cluster, from its founding on.
    ClusterId
);
identifier!(
    /// An event, as its writer named it; the key of idempotent retries.
    EventId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_swaps_the_first_three_groups() {
        let guid: Guid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        assert_eq!(
            guid.0,
            [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF]
        );
        assert_eq!(guid.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
