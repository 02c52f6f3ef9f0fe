//! What nodes say to each other on port 1112: the greeting, its answer, and the frames of the control link.
//!
//! The first bytes on every connection are a [`Hello`] of fixed size: what the connection is for, and whose it is. On
//! control and data links a [`Welcome`] of fixed size answers it, followed by the reason when it is a refusal. Then a
//! data link carries the bytes of the log and nothing else; a control link carries frames as [`put_frame`] makes them; a
//! forward link carries frames of the client protocol, without a welcome.
//!
//! Bounds are strict: whatever is not exactly as written here is an error, and the connection is closed with its text.

use crate::types::{ClusterId, Guid, LogPosition, NodeId, Term};

/// Length of a [`Hello`] in bytes.
pub const HELLO_BYTES: usize = 96;

/// Length of a [`Welcome`] in bytes, without the reason.
pub const WELCOME_BYTES: usize = 8;

/// Longest reason of a refusal, bytes; a longer one is cut.
pub const REASON_MAX_BYTES: usize = 1024;

/// Longest package in a control frame, bytes: the largest subscribe message, with room.
pub const CONTROL_PACKAGE_MAX_BYTES: usize = 64 << 10;

/// Command, flags, correlation.
const PACKAGE_HEADER_BYTES: usize = 18;

const MAGIC: [u8; 8] = *b"RSLINK\0\0";

/// What this release says. Version 2: priority in Subscribe, the time of flushes, the room on the disk and readiness in the
/// answer to a heartbeat, member lists in the log that change.
const VERSION: u16 = 2;

/// The oldest version that this release understands. Version 1 was in no release.
const VERSION_OLDEST: u16 = 2;

const _: () = assert!(VERSION_OLDEST == VERSION || VERSION_OLDEST + 1 == VERSION);

/// Version of the link protocol, for people.
pub const PROTOCOL_VERSION: u16 = VERSION;

/// In a greeting: the sender has the cluster's secret.
const FLAG_SECRET: u8 = 1;

/// The first byte of a TLS handshake.
pub const TLS_HANDSHAKE: u8 = 0x16;

const ACCEPTED: [u8; 4] = *b"RSOK";

/// What a refusal begins with.
pub const REFUSAL: [u8; 4] = *b"RSNO";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Liveness, subscription, acknowledgements.
    Control = 1,
    /// The log, byte for byte.
    Data = 2,
    /// Requests of clients, for the leader to carry out.
    Forward = 3,
}

impl Purpose {
    /// Its name in log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Control => "control",
            Purpose::Data => "data",
            Purpose::Forward => "forward",
        }
    }
}

/// The first bytes on a connection to port 1112.
///
/// ```text
///  0 "RSLINK\0\0"   8 u16 version   10 u8 purpose   11 u8 flags   12 u32 term of the sender
/// 16 cluster id    32 node id      48 subscription id (data; else zero)
/// 64 u64 position that the data is to begin at (data; else zero)
/// 72 u64 chunk size of the log     80 … zero       92 u32 crc32c of bytes 0..92
/// ```
///
/// Flag 1: the sender has the cluster's secret. A nonce follows, and proofs go both ways before the welcome; see
/// [`security`](crate::security).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The cluster that the sender belongs to.
    pub cluster: ClusterId,
    /// Who sends it.
    pub node: NodeId,
    /// Its term.
    pub term: Term,
    /// The subscription that a data link belongs to.
    pub subscription: Guid,
    /// Where a data link begins.
    pub start: LogPosition,
    /// The size of the log's chunks: one position must lie at one offset of one chunk on every node.
    pub chunk_size: u64,
    /// The sender has the cluster's secret, and wants a proof of it.
    pub secret: bool,
}

/// Why bytes on a link are not what they should be. Always the end of the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The first bytes are something else: a client, a v5 node, or a node that speaks TLS.
    #[error(
        "it does not speak the protocol of this port: its first bytes are {found:02x?}, not {MAGIC:02x?}{}",
        looks_like(*found)
    )]
    NotOurs {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// Another version of the protocol.
    #[error(
        "it speaks version {found} of the link protocol, this node versions {VERSION_OLDEST} to {VERSION}: upgrade the node \
         with the older release first, one release at a time"
    )]
    Version {
        /// As found.
        found: u16,
    },
    /// The checksum does not fit.
    #[error("the greeting's checksum is {computed:08x}, it says {stored:08x}")]
    Checksum {
        /// Of the bytes.
        computed: u32,
        /// In the bytes.
        stored: u32,
    },
    /// A flag that this release does not know: it may mean that something else follows.
    #[error("the greeting has flags {found:#04x}, this node knows {FLAG_SECRET:#04x} only: upgrade the older node")]
    Flags {
        /// As found.
        found: u8,
    },
    /// No such purpose.
    #[error("unknown purpose {found} of a connection")]
    Purpose {
        /// As found.
        found: u8,
    },
    /// Neither acceptance nor refusal.
    #[error("the answer to the greeting begins with {found:02x?}")]
    Welcome {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A length outside of its bounds.
    #[error("a {what} of {length} bytes; it has {min} to {max}")]
    Length {
        /// What it is the length of.
        what: &'static str,
        /// As found.
        length: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A command that this protocol does not have.
    #[error("unknown command {found:#04x} on a control link")]
    Command {
        /// As found.
        found: u8,
    },
    /// Text that is not UTF-8.
    #[error("a reason that is not UTF-8")]
    Text,
}

impl Hello {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.purpose as u8;
        out[11] = if self.secret { FLAG_SECRET } else { 0 };
        out[12..16].copy_from_slice(&self.term.0.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster.0.0);
        out[32..48].copy_from_slice(&self.node.0.0);
        out[48..64].copy_from_slice(&self.subscription.0);
        out[64..72].copy_from_slice(&self.start.0.to_le_bytes());
        out[72..80].copy_from_slice(&self.chunk_size.to_le_bytes());
        let crc = crc32c::crc32c(&out[..92]);
        out[92..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`Hello::encode`] made.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Hello, LinkError> {
        let found: [u8; 8] = array(bytes, 0);
        if found != MAGIC {
            return Err(LinkError::NotOurs { found });
        }
        let (computed, stored) = (crc32c::crc32c(&bytes[..92]), u32::from_le_bytes(array(bytes, 92)));
        if computed != stored {
            return Err(LinkError::Checksum { computed, stored });
        }
        let version = u16::from_le_bytes(array(bytes, 8));
        if !(VERSION_OLDEST..=VERSION).contains(&version) {
            return Err(LinkError::Version { found: version });
        }
        let purpose = match bytes[10] {
            1 => Purpose::Control,
            2 => Purpose::Data,
            3 => Purpose::Forward,
            found => return Err(LinkError::Purpose { found }),
        };
        let secret = match bytes[11] {
            0 => false,
            FLAG_SECRET => true,
            found => return Err(LinkError::Flags { found }),
        };
        Ok(Hello {
            purpose,
            cluster: ClusterId(Guid(array(bytes, 16))),
            node: NodeId(Guid(array(bytes, 32))),
            term: Term(u32::from_le_bytes(array(bytes, 12))),
            subscription: Guid(array(bytes, 48)),
            start: LogPosition(u64::from_le_bytes(array(bytes, 64))),
            chunk_size: u64::from_le_bytes(array(bytes, 72)),
            secret,
        })
    }
}

fn looks_like(found: [u8; 8]) -> &'static str {
    if found[0] == TLS_HANDSHAKE {
        ". It looks like TLS: certificates (UseInternalSsl) are set there and not here; set them on all nodes or on none"
    } else {
        ""
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of that length")
}

/// The answer to a [`Hello`] on control and data links: "RSOK" and four zeros, or "RSNO" and the length of the reason,
/// which follows as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// Go on.
    Accepted,
    /// A reason of so many bytes follows, then the end.
    Refused {
        /// Bytes of the reason.
        reason_bytes: usize,
    },
}

impl Welcome {
    /// The bytes of an acceptance.
    #[must_use]
    pub fn accept() -> [u8; WELCOME_BYTES] {
        let mut out = [0; WELCOME_BYTES];
        out[..4].copy_from_slice(&ACCEPTED);
        out
    }

    /// The bytes of a refusal, with its reason.
    #[must_use]
    pub fn refuse(reason: &str) -> Vec<u8> {
        let reason = shorten(reason);
        let mut out = REFUSAL.to_vec();
        out.extend_from_slice(&(reason.len() as u32).to_le_bytes());
        out.extend_from_slice(reason.as_bytes());
        out
    }

    /// Reads an answer without its reason.
    ///
    /// # Errors
    /// When it is none, or the reason would be too long.
    pub fn decode(bytes: &[u8; WELCOME_BYTES]) -> Result<Welcome, LinkError> {
        let length = u32::from_le_bytes(array(bytes, 4)) as usize;
        match array(bytes, 0) {
            ACCEPTED => bounded("welcome's rest", length, 0, 0).map(|_| Welcome::Accepted),
            REFUSAL => Ok(Welcome::Refused { reason_bytes: bounded("reason", length, 0, REASON_MAX_BYTES)? }),
            found => Err(LinkError::Welcome { found }),
        }
    }
}

/// The beginning of a text that fits a reason.
#[must_use]
pub fn shorten(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_MAX_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// Checks a length that came over the wire.
///
/// # Errors
/// When it is out of bounds.
pub fn bounded(what: &'static str, length: usize, min: usize, max: usize) -> Result<usize, LinkError> {
    if (min..=max).contains(&length) { Ok(length) } else { Err(LinkError::Length { what, length, min, max }) }
}

/// A frame of the control link, taken apart: the framing of the client protocol (u32 length of what follows, command,
/// flags (zero), correlation, payload).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub command: u8,
    /// The subscription that it belongs to, or zero.
    pub correlation: Guid,
    /// The rest.
    pub payload: &'a [u8],
}

/// Appends a frame; `payload` appends its last part.
///
/// # Panics
/// When it becomes too long: the sender bounds what it says.
pub fn put_frame(out: &mut Vec<u8>, command: u8, correlation: Guid, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[command, 0]);
    out.extend_from_slice(&correlation.0);
    payload(out);
    let length = out.len() - start - 4;
    assert!(length <= CONTROL_PACKAGE_MAX_BYTES, "a control package of {length} bytes");
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
}

/// The first frame in `bytes` and its length; `None` when it is not there in full yet.
///
/// # Errors
/// When its length cannot be one.
pub fn take_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, LinkError> {
    if bytes.len() < 4 {
        return Ok(None);
    }
    let length = u32::from_le_bytes(array(bytes, 0)) as usize;
    let length = bounded("control package", length, PACKAGE_HEADER_BYTES, CONTROL_PACKAGE_MAX_BYTES)?;
    let Some(package) = bytes.get(4..4 + length) else { return Ok(None) };
    let frame = Frame { command: package[0], correlation: Guid(array(package, 2)), payload: &package[18..] };
    Ok(Some((frame, 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            purpose: Purpose::Data,
            cluster: ClusterId(Guid([1; 16])),
            node: NodeId(Guid([2; 16])),
            term: Term(7),
            subscription: Guid([3; 16]),
            start: LogPosition(4096),
            chunk_size: 1 << 20,
            secret: false,
        }
    }

    #[test]
    fn a_secret_is_a_flag_and_other_flags_are_refused() {
        let (plain, flagged) = (hello().encode(), Hello { secret: true, ..hello() }.encode());
        assert_eq!((plain[11], flagged[11]), (0, 1));
        assert_eq!((&plain[..11], &plain[12..92]), (&flagged[..11], &flagged[12..92]));
        assert_eq!(Hello::decode(&flagged), Ok(Hello { secret: true, ..hello() }));
        for found in [2, 3, 0x80] {
            let mut bytes = plain;
            bytes[11] = found;
            let crc = crc32c::crc32c(&bytes[..92]);
            bytes[92..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Hello::decode(&bytes), Err(LinkError::Flags { found }));
        }
    }

    #[test]
    fn tls_on_a_plain_port_is_called_so() {
        let words = |first: u8| {
            let mut bytes = [0; HELLO_BYTES];
            bytes[0] = first;
            Hello::decode(&bytes).unwrap_err().to_string()
        };
        assert!(words(TLS_HANDSHAKE).contains("looks like TLS"), "{}", words(TLS_HANDSHAKE));
        assert!(!words(0x12).contains("TLS"));
    }

    #[test]
    fn golden_hello() {
        let hex: String = hello().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "52534c494e4b0000",
            "0200",
            "02",
            "00",
            "07000000",
            &"01".repeat(16),
            &"02".repeat(16),
            &"03".repeat(16),
            "0010000000000000",
            "0000100000000000",
            &"00".repeat(12),
        ];
        assert_eq!(hex[..184], expected.concat());
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }

    #[test]
    fn any_flipped_bit_of_a_hello_is_seen() {
        for bit in 0..HELLO_BYTES * 8 {
            let mut bytes = hello().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Hello::decode(&bytes).is_err(), "bit {bit}");
        }
        let mut client = [0; HELLO_BYTES];
        client[0] = 18;
        assert!(matches!(Hello::decode(&client), Err(LinkError::NotOurs { .. })));
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = hello().encode();
        for found in [0, VERSION_OLDEST - 1, VERSION + 1] {
            bytes[8..10].copy_from_slice(&found.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..92]);
            bytes[92..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Hello::decode(&bytes), Err(LinkError::Version { found }));
        }
        let words = LinkError::Version { found: 1 }.to_string();
        assert!(
            words.contains("version 1 of") && words.contains("versions 2 to 2") && words.contains("upgrade"),
            "{words}"
        );
    }

    #[test]
    fn welcomes() {
        assert_eq!(Welcome::decode(&Welcome::accept()), Ok(Welcome::Accepted));
        let refusal = Welcome::refuse("another cluster");
        let head = refusal[..8].try_into().unwrap();
        assert_eq!(Welcome::decode(head), Ok(Welcome::Refused { reason_bytes: 15 }));
        assert_eq!(&refusal[8..], b"another cluster");
        let long = "ä".repeat(REASON_MAX_BYTES);
        assert_eq!(Welcome::refuse(&long).len(), 8 + REASON_MAX_BYTES);
        assert!(Welcome::decode(b"RSNO\xff\xff\0\0").is_err());
        assert!(Welcome::decode(b"RSOK\x01\0\0\0").is_err());
        assert!(Welcome::decode(b"HTTP/1.1").is_err());
    }

    #[test]
    fn frames_come_apart_again_at_any_cut() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 0x21, Guid([5; 16]), |out| out.extend_from_slice(b"payload"));
        put_frame(&mut bytes, 0x22, Guid::ZERO, |_| ());
        for cut in 0..bytes.len() {
            let taken = take_frame(&bytes[..cut]).unwrap();
            assert_eq!(taken.is_some(), cut >= 29, "cut at {cut}");
        }
        let (frame, length) = take_frame(&bytes).unwrap().unwrap();
        assert_eq!(frame, Frame { command: 0x21, correlation: Guid([5; 16]), payload: b"payload" });
        let (frame, rest) = take_frame(&bytes[length..]).unwrap().unwrap();
        assert_eq!((frame.command, frame.payload, length + rest), (0x22, &b""[..], bytes.len()));
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_at_once() {
        for length in [0u32, 17, CONTROL_PACKAGE_MAX_BYTES as u32 + 1, u32::MAX] {
            assert!(take_frame(&length.to_le_bytes()).is_err(), "{length}");
        }
    }
}
