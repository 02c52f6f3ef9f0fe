//! Length-prefixed frames and the package inside: command, flags, correlation identifier, credentials, payload.
//!
//! Decoding takes packages off the front of the receive buffer without copying the payload; encoding appends a frame to
//! an output buffer and fills the length in at the end. The texts of [`FrameError`] are the wire's own: they go out as a
//! BadRequest with an all-zero correlation identifier, and then the connection is closed.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::codec::client::command::Command;
use crate::limits::FRAME_MAX_BYTES;
use crate::types::Guid;

/// The length in front of every package, bytes.
pub const LENGTH_BYTES: usize = 4;

/// Command, flags and correlation identifier, bytes.
pub const PACKAGE_HEADER_BYTES: usize = 18;

/// Flag: login and password follow the correlation identifier.
pub const FLAG_AUTHENTICATED: u8 = 0x01;

/// Flag: between nodes only, the request runs as the internal system account.
pub const FLAG_TRUSTED_WRITE: u8 = 0x02;

/// The refusal of [`FLAG_TRUSTED_WRITE`] on the external port; the connection is closed after it.
pub const TRUSTED_WRITE_TEXT: &str = "Trusted writes aren't accepted over the external TCP interface";

const CREDENTIAL_MAX_BYTES: usize = u8::MAX as usize;

/// Why bytes are not a frame. Always the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is zero, negative or above the limit.
    #[error("Invalid TCP frame received. Error: Package size is out of bounds: {length} (max: {max})..")]
    Length {
        /// As the client sent it.
        length: i32,
        /// The most that is accepted.
        max: usize,
    },
    /// Not even the fixed part.
    #[error("Received bad network package. Error: the package has {length} bytes, the shortest has {min}")]
    Short {
        /// Bytes of the package.
        length: usize,
        /// Bytes of the fixed part.
        min: usize,
    },
    /// The flags promise credentials that are not there.
    #[error("Received bad network package. Error: {part} does not fit into the package of {length} bytes")]
    Credentials {
        /// "login" or "password".
        part: &'static str,
        /// Bytes of the package.
        length: usize,
    },
}

/// Login and password of one package, where they lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CredentialsView<'a> {
    /// The login's bytes, at most 255.
    pub login: &'a [u8],
    /// The password's bytes, at most 255.
    pub password: &'a [u8],
}

impl fmt::Debug for CredentialsView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = String::from_utf8_lossy(self.login);
        f.debug_struct("CredentialsView").field("login", &login).finish_non_exhaustive()
    }
}

/// Login and password of one package, as the bytes that came.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    login: Box<[u8]>,
    password: Box<[u8]>,
}

impl Credentials {
    /// Credentials for a package; `None` when one of them is longer than the 255 bytes that can be represented.
    #[must_use]
    pub fn new(login: &[u8], password: &[u8]) -> Option<Credentials> {
        let fits = login.len() <= CREDENTIAL_MAX_BYTES && password.len() <= CREDENTIAL_MAX_BYTES;
        fits.then(|| Credentials { login: login.into(), password: password.into() })
    }

    /// The same, borrowed.
    #[must_use]
    pub fn view(&self) -> CredentialsView<'_> {
        CredentialsView { login: &self.login, password: &self.password }
    }

    /// The login as text; what is not UTF-8 in it is replaced, so it names nobody.
    #[must_use]
    pub fn login(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.login)
    }

    /// The password's bytes.
    #[must_use]
    pub fn password(&self) -> &[u8] {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("login", &self.login()).finish_non_exhaustive()
    }
}

/// A package where it lies. The command may be one that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageView<'a> {
    /// The command's code.
    pub command: u8,
    /// Flags; those we do not know are ignored.
    pub flags: u8,
    /// Chosen by the sender of the request, repeated in its answers.
    pub correlation: Guid,
    /// Set when the flags say so.
    pub credentials: Option<CredentialsView<'a>>,
    /// Everything else.
    pub payload: &'a [u8],
}

impl<'a> PackageView<'a> {
    /// Reads a package: a frame without its length.
    ///
    /// # Errors
    /// [`FrameError::Short`] and [`FrameError::Credentials`].
    pub fn read(bytes: &'a [u8]) -> Result<PackageView<'a>, FrameError> {
        let length = bytes.len();
        let Some((header, mut payload)) = bytes.split_first_chunk::<PACKAGE_HEADER_BYTES>() else {
            return Err(FrameError::Short { length, min: PACKAGE_HEADER_BYTES });
        };
        let (command, flags) = (header[0], header[1]);
        let mut credentials = None;
        if flags & FLAG_AUTHENTICATED != 0 {
            let (taken, rest) = split_credentials(payload)?;
            (credentials, payload) = (Some(taken), rest);
        }
        let correlation = Guid(header[2..].try_into().expect("sixteen bytes"));
        Ok(PackageView { command, flags, correlation, credentials, payload })
    }

    /// True when the sender claims to be a node.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.flags & FLAG_TRUSTED_WRITE != 0
    }
}

/// A package as it came, with memory of its own. The command may be one that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The command's code.
    pub command: u8,
    /// Flags; those we do not know are ignored.
    pub flags: u8,
    /// Chosen by the sender of the request, repeated in its answers.
    pub correlation: Guid,
    /// Set when the flags say so.
    pub credentials: Option<Credentials>,
    /// Everything else: shares the receive buffer, so it should not be kept longer than needed.
    pub payload: Bytes,
}

impl Package {
    /// True when the sender claims to be a node.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.flags & FLAG_TRUSTED_WRITE != 0
    }

    /// Reads a package: a frame without its length.
    ///
    /// # Errors
    /// [`FrameError::Short`] and [`FrameError::Credentials`].
    pub fn read(bytes: Bytes) -> Result<Package, FrameError> {
        let PackageView { command, flags, correlation, credentials, payload } = PackageView::read(&bytes)?;
        let credentials = credentials
            .map(|CredentialsView { login, password }| Credentials { login: login.into(), password: password.into() });
        let payload = bytes.slice_ref(payload);
        Ok(Package { command, flags, correlation, credentials, payload })
    }

    /// The same, borrowed.
    #[must_use]
    pub fn view(&self) -> PackageView<'_> {
        PackageView {
            command: self.command,
            flags: self.flags,
            correlation: self.correlation,
            credentials: self.credentials.as_ref().map(Credentials::view),
            payload: &self.payload,
        }
    }
}

/// Takes login and password off the front of `rest`, what follows the package's fixed part.
fn split_credentials(rest: &[u8]) -> Result<(CredentialsView<'_>, &[u8]), FrameError> {
    let length = PACKAGE_HEADER_BYTES + rest.len();
    let login_bytes = usize::from(*rest.first().ok_or(FrameError::Credentials { part: "login", length })?);
    // "Or equal" as v5 has it: a login that leaves a single byte is refused even when that byte says "empty password".
    if 1 + login_bytes + 1 >= rest.len() {
        return Err(FrameError::Credentials { part: "login", length });
    }
    let password_at = 2 + login_bytes;
    let payload_at = password_at + usize::from(rest[password_at - 1]);
    if payload_at > rest.len() {
        return Err(FrameError::Credentials { part: "password", length });
    }
    let (taken, payload) = rest.split_at(payload_at);
    Ok((CredentialsView { login: &taken[1..=login_bytes], password: &taken[password_at..] }, payload))
}

/// The whole size of the frame that starts `buffer`, length included; `None` while that cannot be told.
///
/// # Errors
/// [`FrameError::Length`].
pub fn frame_bytes(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = i32::from_le_bytes(*length);
    match usize::try_from(length) {
        Ok(bytes) if (1..=FRAME_MAX_BYTES).contains(&bytes) => Ok(Some(LENGTH_BYTES + bytes)),
        _ => Err(FrameError::Length { length, max: FRAME_MAX_BYTES }),
    }
}

/// Takes the next package off the front of `buffer`; `None` when more bytes are needed (see [`frame_bytes`]).
///
/// # Errors
/// Every [`FrameError`]; the connection is then of no more use.
pub fn take_package(buffer: &mut BytesMut) -> Result<Option<Package>, FrameError> {
    match frame_bytes(buffer)? {
        Some(size) if size <= buffer.len() => {
            let mut frame = buffer.split_to(size).freeze();
            Package::read(frame.split_off(LENGTH_BYTES)).map(Some)
        }
        _ => Ok(None),
    }
}

/// A frame being written: where it begins in the output buffer.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct FrameStart(usize);

impl FrameStart {
    /// Where the payload begins in the output buffer (of a frame without credentials).
    #[must_use]
    pub fn payload_at(self) -> usize {
        self.0 + LENGTH_BYTES + PACKAGE_HEADER_BYTES
    }
}

/// Starts a frame at the end of `out`; the payload is appended next, then [`finish`] is called.
pub fn begin(out: &mut Vec<u8>, command: Command, correlation: Guid) -> FrameStart {
    begin_with(out, command as u8, 0, correlation)
}

fn begin_with(out: &mut Vec<u8>, command: u8, flags: u8, correlation: Guid) -> FrameStart {
    let start = FrameStart(out.len());
    out.extend_from_slice(&[0, 0, 0, 0, command, flags]);
    out.extend_from_slice(&correlation.0);
    start
}

/// Ends the frame: fills in its length.
///
/// # Panics
/// When the frame is longer than 2 GiB; every answer is bounded far below.
pub fn finish(out: &mut [u8], start: FrameStart) {
    let length = i32::try_from(out.len() - start.0 - LENGTH_BYTES).expect("a frame is below 2 GiB");
    out[start.0..start.0 + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Appends a whole frame with raw bytes as its payload.
pub fn put_frame(out: &mut Vec<u8>, command: Command, correlation: Guid, payload: &[u8]) {
    let start = begin(out, command, correlation);
    out.extend_from_slice(payload);
    finish(out, start);
}

/// Appends a whole frame with a protobuf message as its payload.
pub fn put_message(out: &mut Vec<u8>, command: Command, correlation: Guid, message: &impl prost::Message) {
    let start = begin(out, command, correlation);
    message.encode_raw(out);
    finish(out, start);
}

/// Appends a whole package of any command, for forwarding: `flags` without [`FLAG_AUTHENTICATED`], which is set when
/// there are credentials.
pub fn put_package(
    out: &mut Vec<u8>,
    command: u8,
    flags: u8,
    correlation: Guid,
    credentials: Option<CredentialsView<'_>>,
    payload: &[u8],
) {
    let flag = if credentials.is_some() { FLAG_AUTHENTICATED } else { 0 };
    let start = begin_with(out, command, (flags & !FLAG_AUTHENTICATED) | flag, correlation);
    for part in credentials.iter().flat_map(|credentials| [credentials.login, credentials.password]) {
        out.push(u8::try_from(part.len()).expect("checked when the credentials were made"));
        out.extend_from_slice(part);
    }
    out.extend_from_slice(payload);
    finish(out, start);
}

/// Replaces the correlation identifier of a finished frame: one encoding then serves many subscribers.
pub fn set_correlation(frame: &mut [u8], correlation: Guid) {
    frame[LENGTH_BYTES + 2..LENGTH_BYTES + PACKAGE_HEADER_BYTES].copy_from_slice(&correlation.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(flags: u8, rest: &[u8]) -> Result<Package, FrameError> {
        let mut bytes = vec![Command::WriteEvents as u8, flags];
        bytes.extend_from_slice(&[7; 16]);
        bytes.extend_from_slice(rest);
        Package::read(bytes.into())
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_with_the_words_of_v5() {
        for length in [0, -1, i32::MIN, (64 << 20) + 1] {
            let error = frame_bytes(&i32::to_le_bytes(length)).unwrap_err();
            let text =
                format!("Invalid TCP frame received. Error: Package size is out of bounds: {length} (max: 67108864)..");
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(frame_bytes(&i32::to_le_bytes(64 << 20)), Ok(Some((64 << 20) + 4)));
        assert_eq!(frame_bytes(&[1, 0, 0]), Ok(None));
    }

    #[test]
    fn frames_are_taken_one_by_one_however_the_bytes_arrive() {
        let mut wire = Vec::new();
        put_frame(&mut wire, Command::Ping, Guid([1; 16]), b"abc");
        put_frame(&mut wire, Command::HeartbeatRequestCommand, Guid([2; 16]), b"");
        for step in 1..wire.len() {
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(package) = take_package(&mut buffer).unwrap() {
                    seen.push((package.command, package.correlation, package.payload));
                }
            }
            assert_eq!(seen, [(3, Guid([1; 16]), "abc".into()), (1, Guid([2; 16]), "".into())], "step {step}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn the_payload_shares_the_receive_buffer() {
        let mut buffer = BytesMut::new();
        let mut wire = Vec::new();
        put_frame(&mut wire, Command::Ping, Guid([1; 16]), b"abc");
        buffer.extend_from_slice(&wire);
        let address = buffer[22..].as_ptr();
        assert_eq!(take_package(&mut buffer).unwrap().unwrap().payload.as_ptr(), address);
    }

    #[test]
    fn credentials_at_the_edges() {
        let good = package(FLAG_AUTHENTICATED, b"\x01a\x02bcrest").unwrap();
        assert_eq!(good.credentials, Credentials::new(b"a", b"bc"));
        assert_eq!(&good.payload[..], b"rest");
        assert_eq!(&package(FLAG_AUTHENTICATED, b"\x01a\x02bc").unwrap().payload[..], b"");
        assert_eq!(package(FLAG_AUTHENTICATED, b"\x01a\x00p").unwrap().credentials, Credentials::new(b"a", b""));
        for bad in [&b""[..], b"\x00", b"\x01a", b"\x01a\x00", b"\x05ab", b"\xffab"] {
            let error = package(FLAG_AUTHENTICATED, bad).unwrap_err();
            assert!(matches!(error, FrameError::Credentials { part: "login", .. }), "{bad:?} {error}");
        }
        let error = package(FLAG_AUTHENTICATED, b"\x01a\x03bc").unwrap_err();
        assert!(error.to_string().starts_with("Received bad network package. Error: password"), "{error}");
        assert_eq!(package(0xFC, b"\x01").unwrap().credentials, None);
    }

    #[test]
    fn a_short_package_is_refused() {
        let error = Package::read(Bytes::from_static(&[1; 17])).unwrap_err();
        assert!(error.to_string().starts_with("Received bad network package. Error: "), "{error}");
    }

    #[test]
    fn a_package_survives_forwarding() {
        let credentials = Credentials::new(b"admin", b"changeit").unwrap();
        let mut wire = Vec::new();
        put_package(&mut wire, 0x82, FLAG_TRUSTED_WRITE, Guid([3; 16]), Some(credentials.view()), b"payload");
        let package = take_package(&mut BytesMut::from(&wire[..])).unwrap().unwrap();
        assert!(package.is_trusted());
        assert_eq!((package.command, package.credentials), (0x82, Some(credentials)));
        assert_eq!((package.correlation, &package.payload[..]), (Guid([3; 16]), &b"payload"[..]));
    }

    #[test]
    fn a_password_is_not_printed() {
        assert!(!format!("{:?}", Credentials::new(b"admin", b"secret")).contains("secret"));
    }
}
