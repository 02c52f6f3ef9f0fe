//! TLS without I/O: bytes of the wire in, bytes of the wire out, whoever moves them.
//!
//! One for each connection, on the thread that has the connection. Getters: [`TlsChannel::is_established`],
//! [`TlsChannel::peer`], [`TlsChannel::wants_send`], [`TlsChannel::is_closed_by_peer`]. What the world reports:
//! [`TlsChannel::receive`], [`TlsChannel::ended`]. Commands: [`TlsChannel::seal`], [`TlsChannel::close`]. What to do next:
//! [`TlsChannel::take_handshake`].
//!
//! ```text
//! loop until is_established: take_handshake, send; receive what comes
//! then: receive, take_handshake (a key may change) and seal, as it comes
//! on an error of receive: take_handshake, send (an alert says why), close the connection
//! ```
//!
//! **Invariant:** a channel holds at most an unfinished record and an unfinished handshake message: what is received goes
//! into the caller's buffer at once, and what is sealed too.

use std::io::{BufRead as _, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConnection, Connection, ServerConnection};

use super::certificate::PeerNames;
use super::tls_error::{Context, TlsError, guess};
use super::trust::{ExternalTrust, TlsConfigs};
use super::verify::Seen;
use crate::limits::{TLS_HANDSHAKE_MAX_BYTES, TLS_RECORD_BYTES, TLS_RECORD_OVERHEAD_BYTES};
use crate::types::WallTime;

/// First bytes of a peer that an error shows.
const FIRST_BYTES: usize = 8;

/// Kinds of records that a connection may begin with: a handshake, or an alert.
const FIRST_RECORDS: [u8; 2] = [0x16, 0x15];

/// The first byte of all versions of TLS.
const MAJOR_VERSION: u8 = 3;

/// One side of one TLS connection.
#[derive(Debug)]
pub struct TlsChannel {
    connection: Connection,
    peer: IpAddr,
    /// Whose certificate is demanded, and who must have signed it: for errors.
    expected: String,
    authorities: String,
    own: Option<PeerNames>,
    seen: Arc<Seen>,
    first: Vec<u8>,
    handshake_bytes: usize,
    failed: Option<TlsError>,
    is_closed_by_peer: bool,
    is_closed: bool,
}

impl TlsChannel {
    /// The side that dialled a node at `peer`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn client(configs: &TlsConfigs, peer: IpAddr) -> Result<TlsChannel, TlsError> {
        let seen = Arc::new(Seen::default());
        let config = configs.client(seen.clone()).map_err(|error| broken(peer, &error))?;
        let connection = ClientConnection::new(config, configs.expected(peer)).map_err(|error| broken(peer, &error))?;
        Ok(TlsChannel::internal(configs, peer, connection.into(), seen))
    }

    /// The side that accepted a connection from a node at `peer`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn server(configs: &TlsConfigs, peer: IpAddr) -> Result<TlsChannel, TlsError> {
        let seen = Arc::new(Seen::default());
        let config = configs.server(peer, seen.clone()).map_err(|error| broken(peer, &error))?;
        let connection = ServerConnection::new(config).map_err(|error| broken(peer, &error))?;
        Ok(TlsChannel::internal(configs, peer, connection.into(), seen))
    }

    /// The side that accepted a connection from a client of the external plane, which shows no certificate.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn external(trust: &ExternalTrust, peer: IpAddr) -> Result<TlsChannel, TlsError> {
        let connection = ServerConnection::new(trust.current()).map_err(|error| broken(peer, &error))?;
        let own = Some(trust.expiry().names);
        Ok(TlsChannel::new(connection.into(), peer, Arc::new(Seen::default()), own))
    }

    fn internal(configs: &TlsConfigs, peer: IpAddr, connection: Connection, seen: Arc<Seen>) -> TlsChannel {
        let mut channel = TlsChannel::new(connection, peer, seen, Some(configs.names().clone()));
        channel.expected = configs.expected(peer).to_str().into_owned();
        channel.authorities = configs.authorities().to_owned();
        channel
    }

    fn new(connection: Connection, peer: IpAddr, seen: Arc<Seen>, own: Option<PeerNames>) -> TlsChannel {
        TlsChannel {
            connection,
            peer,
            expected: String::new(),
            authorities: String::new(),
            own,
            seen,
            first: Vec::with_capacity(FIRST_BYTES),
            handshake_bytes: 0,
            failed: None,
            is_closed_by_peer: false,
            is_closed: false,
        }
    }

    /// True when data can go both ways. On the side that dialled this does not yet say that the other side took this side's
    /// certificate: its refusal comes as an error of [`receive`](TlsChannel::receive), where its first data would be.
    #[must_use]
    pub fn is_established(&self) -> bool {
        !self.connection.is_handshaking() && self.failed.is_none()
    }

    /// What the peer's certificate says, once it was checked.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerNames> {
        self.is_established().then(|| self.seen.names()).flatten()
    }

    /// True when [`take_handshake`](TlsChannel::take_handshake) has something.
    #[must_use]
    pub fn wants_send(&self) -> bool {
        self.connection.wants_write()
    }

    /// True when the peer said goodbye: nothing comes any more, and nothing is missing.
    #[must_use]
    pub fn is_closed_by_peer(&self) -> bool {
        self.is_closed_by_peer
    }

    /// Takes bytes of the wire, in any pieces, and adds what they carry to `plain`: never more than `cipher` has.
    ///
    /// # Errors
    /// When the peer is not who it must be, or the bytes are not TLS, damaged, or too many for a handshake. What was carried
    /// before is in `plain`. The error is given again at each further call.
    pub fn receive(&mut self, cipher: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.look_at_first(cipher)?;
        let mut rest = cipher;
        while !rest.is_empty() && !self.is_closed_by_peer {
            let before = rest.len();
            if let Err(error) = self.connection.read_tls(&mut rest) {
                return Err(self.fail(broken(self.peer, &error)));
            }
            let processed = self.connection.process_new_packets();
            // What was checked before a damaged record is good.
            self.drain(plain);
            match processed {
                Ok(state) => self.is_closed_by_peer = state.peer_has_closed(),
                Err(error) => {
                    let explained = self.explain(&error);
                    return Err(self.fail(explained));
                }
            }
            self.count_handshake(before - rest.len())?;
        }
        Ok(())
    }

    /// Seals `plain` and adds it to `cipher`: at most [`sealed_bytes_max`] bytes, and what was waiting.
    ///
    /// # Errors
    /// When the handshake is not complete, has failed, or this side was closed.
    pub fn seal(&mut self, plain: &[u8], cipher: &mut Vec<u8>) -> Result<(), TlsError> {
        let reason = match () {
            () if self.is_closed => "this side has said goodbye",
            () if self.failed.is_some() => "the connection has failed",
            () if !self.is_established() => "the handshake is not complete",
            () => "",
        };
        if !reason.is_empty() {
            return Err(TlsError::NotOpen { peer: self.peer, reason });
        }
        let mut rest = plain;
        while !rest.is_empty() {
            let taken = self.connection.writer().write(rest).map_err(|error| broken(self.peer, &error))?;
            self.take_handshake(cipher);
            rest = &rest[taken..];
        }
        self.take_handshake(cipher);
        Ok(())
    }

    /// Adds to `cipher` what must go out although nobody sealed anything: the handshake, a change of keys, an alert.
    pub fn take_handshake(&mut self, cipher: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(cipher).expect("a vector takes everything");
        }
    }

    /// Says goodbye: nothing is sealed after it. What the peer still sends can be received.
    pub fn close(&mut self, cipher: &mut Vec<u8>) {
        if !self.is_closed {
            self.is_closed = true;
            self.connection.send_close_notify();
        }
        self.take_handshake(cipher);
    }

    /// The stream under it has ended.
    ///
    /// # Errors
    /// When the peer did not say goodbye, so that something may be missing, or it had failed before.
    pub fn ended(&self) -> Result<(), TlsError> {
        match &self.failed {
            Some(failed) => Err(failed.clone()),
            None if self.is_closed_by_peer => Ok(()),
            None => Err(TlsError::Truncated { peer: self.peer, established: self.is_established() }),
        }
    }

    /// Plain bytes have better words than what a TLS parser makes of them.
    fn look_at_first(&mut self, cipher: &[u8]) -> Result<(), TlsError> {
        if self.first.len() == FIRST_BYTES {
            return Ok(());
        }
        self.first.extend(cipher.iter().take(FIRST_BYTES - self.first.len()));
        let is_record = |first: &[u8]| {
            first.first().is_none_or(|kind| FIRST_RECORDS.contains(kind))
                && first.get(1).is_none_or(|version| *version == MAJOR_VERSION)
        };
        if is_record(&self.first) {
            return Ok(());
        }
        let first = self.first.clone();
        let guess = guess(&first);
        Err(self.fail(TlsError::NotTls { peer: self.peer, first, guess }))
    }

    /// A stranger may send a handshake, but not without end.
    fn count_handshake(&mut self, bytes: usize) -> Result<(), TlsError> {
        if !self.connection.is_handshaking() {
            return Ok(());
        }
        self.handshake_bytes += bytes;
        if self.handshake_bytes <= TLS_HANDSHAKE_MAX_BYTES {
            return Ok(());
        }
        let reason = format!(
            "its handshake has {} bytes and is not complete, at most {TLS_HANDSHAKE_MAX_BYTES} are taken",
            self.handshake_bytes
        );
        Err(self.fail(TlsError::Broken { peer: self.peer, reason }))
    }

    fn drain(&mut self, plain: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // An error means that nothing is there at the moment.
        while let Ok(chunk) = reader.fill_buf() {
            let length = chunk.len();
            if length == 0 {
                return;
            }
            plain.extend_from_slice(chunk);
            reader.consume(length);
        }
    }

    fn explain(&self, error: &rustls::Error) -> TlsError {
        let context = Context {
            peer: self.peer,
            expected: &self.expected,
            authorities: &self.authorities,
            own: self.own.as_ref(),
            seen: self.seen.names(),
            is_verified: self.seen.is_verified(),
            now: WallTime::from_system(SystemTime::now()),
        };
        context.explain(error)
    }

    fn fail(&mut self, error: TlsError) -> TlsError {
        self.failed = Some(error.clone());
        error
    }
}

/// Most bytes that [`TlsChannel::seal`] makes of so many.
#[must_use]
pub const fn sealed_bytes_max(plain: usize) -> usize {
    plain + (plain / TLS_RECORD_BYTES + 2) * TLS_RECORD_OVERHEAD_BYTES
}

fn broken(peer: IpAddr, error: &dyn std::error::Error) -> TlsError {
    TlsError::Broken { peer, reason: error.to_string() }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
