//! Why a TLS connection ends: what was expected of the peer, and what was found.

use std::net::IpAddr;

use rustls::{AlertDescription, CertificateError, Error};

use super::certificate::PeerNames;
use crate::codec::client::Command;
use crate::codec::client::frame::PACKAGE_HEADER_BYTES;
use crate::limits::FRAME_MAX_BYTES;
use crate::types::WallTime;

/// Always the end of the connection; another attempt makes sense after something was changed, or for
/// [`Truncated`](TlsError::Truncated). What the peer can be told went into the channel's last bytes, as an alert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// It speaks something else.
    #[error("{peer} does not speak TLS: expected a TLS record, found {first:02x?}{guess}")]
    NotTls {
        /// The other side.
        peer: IpAddr,
        /// Its first bytes.
        first: Vec<u8>,
        /// What they look like.
        guess: &'static str,
    },
    /// Its certificate is somebody else's.
    #[error(
        "the certificate of {peer} is not for it: expected one for {expected}, found {found}; make it with that name or \
         address, or set SslTargetHost to a name that all nodes' certificates have"
    )]
    Name {
        /// The other side.
        peer: IpAddr,
        /// Its address, or `SslTargetHost`.
        expected: String,
        /// What the certificate says.
        found: String,
    },
    /// Its certificate is signed by somebody else, or by itself.
    #[error(
        "the certificate of {peer} is not signed by an authority that this node trusts: expected one signed by {expected}, \
         found {found}; is it a node of this cluster, and CertificateAuthorityFile the same on both?"
    )]
    Authority {
        /// The other side.
        peer: IpAddr,
        /// The authorities of this node.
        expected: String,
        /// What the certificate says.
        found: String,
    },
    /// Its certificate's time is over, or has not come.
    #[error(
        "the certificate of {peer} is not valid now: expected one that is valid at {now}, found {found}, valid from \
         {not_before} on; renew it there, and compare the clocks of both nodes"
    )]
    Time {
        /// The other side.
        peer: IpAddr,
        /// This node's clock.
        now: WallTime,
        /// What the certificate says, with its end.
        found: String,
        /// Its beginning.
        not_before: WallTime,
    },
    /// Its certificate cannot be used for another reason.
    #[error("the certificate of {peer} cannot be used: {reason}; found {found}")]
    Certificate {
        /// The other side.
        peer: IpAddr,
        /// Why not.
        reason: String,
        /// What the certificate says.
        found: String,
    },
    /// It showed no certificate.
    #[error(
        "{peer} shows no certificate: expected one signed by {expected}, found none; nodes and commands need \
         CertificateFile, CertificatePrivateKeyFile and CertificateAuthorityFile"
    )]
    NoCertificate {
        /// The other side.
        peer: IpAddr,
        /// The authorities of this node.
        expected: String,
    },
    /// It refuses this side.
    #[error(
        "{peer} refuses this side with the TLS alert \"{alert}\"{meaning}; this side showed {shown}; the log of {peer} says more"
    )]
    Refused {
        /// The other side.
        peer: IpAddr,
        /// Its alert.
        alert: String,
        /// What that means between nodes.
        meaning: &'static str,
        /// This side's certificate.
        shown: String,
    },
    /// What it sent is damaged, or not as the protocol has it.
    #[error("the TLS connection with {peer} is broken: {reason}")]
    Broken {
        /// The other side.
        peer: IpAddr,
        /// What is wrong.
        reason: String,
    },
    /// The stream ended without a goodbye: bytes at its end may be missing.
    #[error(
        "the TLS connection with {peer} ended without close_notify{}: what was sent last may be missing",
        if *established { "" } else { ", during the handshake" }
    )]
    Truncated {
        /// The other side.
        peer: IpAddr,
        /// Whether the handshake was complete.
        established: bool,
    },
    /// Nothing can be sent yet, or any more: a fault of this program, or a race that its caller decides.
    #[error("nothing can be sealed for {peer}: {reason}")]
    NotOpen {
        /// The other side.
        peer: IpAddr,
        /// Why not.
        reason: &'static str,
    },
}

/// What is known of a connection when it fails.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) peer: IpAddr,
    pub(super) expected: &'a str,
    pub(super) authorities: &'a str,
    pub(super) own: Option<&'a PeerNames>,
    pub(super) seen: Option<&'a PeerNames>,
    /// The certificate itself was good.
    pub(super) is_verified: bool,
    pub(super) now: WallTime,
}

impl Context<'_> {
    /// An error of rustls in our words.
    pub(super) fn explain(&self, error: &Error) -> TlsError {
        let peer = self.peer;
        match error {
            Error::InvalidCertificate(reason) => self.certificate(reason),
            Error::NoCertificatesPresented => TlsError::NoCertificate { peer, expected: self.authorities.to_owned() },
            Error::AlertReceived(alert) => TlsError::Refused {
                peer,
                alert: format!("{alert:?}"),
                meaning: meaning(*alert),
                shown: self.own.map_or_else(|| "no certificate".to_owned(), PeerNames::to_string),
            },
            Error::DecryptError => {
                let reason = "what came was changed on the way, or recorded earlier and sent again".to_owned();
                TlsError::Broken { peer, reason }
            }
            other => TlsError::Broken { peer, reason: other.to_string() },
        }
    }

    fn certificate(&self, reason: &CertificateError) -> TlsError {
        use CertificateError as C;
        let peer = self.peer;
        let found = self.seen.map_or_else(|| "one that cannot be read".to_owned(), PeerNames::to_string);
        match reason {
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                TlsError::Name { peer, expected: self.expected.to_owned(), found }
            }
            C::BadSignature if self.is_verified => {
                let reason = "it does not have the private key to it".to_owned();
                TlsError::Certificate { peer, reason, found }
            }
            C::UnknownIssuer | C::BadSignature => {
                TlsError::Authority { peer, expected: self.authorities.to_owned(), found }
            }
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
                let not_before = self.seen.map_or(WallTime(0), |names| names.not_before);
                TlsError::Time { peer, now: self.now, found, not_before }
            }
            other => TlsError::Certificate { peer, reason: other.to_string(), found },
        }
    }
}

/// What a node that sends this alert has found.
fn meaning(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::BadCertificate => {
            ": this side's certificate is not for the address that it connects from or was dialled at, nor for the peer's \
             SslTargetHost"
        }
        AlertDescription::UnknownCA => ": it does not trust the authority that signed this side's certificate",
        AlertDescription::CertificateExpired => {
            ": this side's certificate is not valid at the time of the peer's clock"
        }
        AlertDescription::CertificateRequired => ": it demands a certificate",
        AlertDescription::ProtocolVersion => {
            ": the two have no version of TLS in common; nodes speak 1.3 to each other"
        }
        AlertDescription::DecryptError => {
            ": a signature of this side does not fit: another authority of the same name, or a key of another certificate"
        }
        _ => "",
    }
}

/// True for the length and the command that a frame of v5's clients begins with.
fn is_client_frame(first: &[u8]) -> bool {
    let Some((length, [command, ..])) = first.split_first_chunk() else { return false };
    let length = u32::from_le_bytes(*length) as usize;
    (PACKAGE_HEADER_BYTES..=FRAME_MAX_BYTES).contains(&length) && Command::from_byte(*command).is_some()
}

/// What first bytes that are no TLS look like.
pub(super) fn guess(first: &[u8]) -> &'static str {
    let begins = |words: &[&[u8]]| words.iter().any(|word| first.starts_with(word));
    if begins(&[b"RSLINK", b"RSOK", b"RSNO"]) {
        " (a node that speaks to others without TLS: UseInternalSsl is set here and not there)"
    } else if begins(&[b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI"]) {
        " (a plain HTTP request: here it is https, with a certificate)"
    } else if is_client_frame(first) {
        " (a client of the TCP protocol without TLS: it is to use TLS, or the port without it)"
    } else if begins(&[b"HTTP"]) {
        " (a plain HTTP answer: the other side has no TLS)"
    } else {
        ""
    }
}
