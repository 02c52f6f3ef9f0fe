//! The check of a peer's certificate, one for each connection: rustls' own verifiers, plus the name on both sides, plus a note
//! of what the peer showed, for the words of a refusal.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::certificate::{self, PeerNames};
use crate::limits::CERTIFICATE_CHAIN_MAX;

/// What the peer of one connection showed, also when it was refused.
#[derive(Debug, Default)]
pub(super) struct Seen {
    names: OnceLock<PeerNames>,
    /// Its certificate was good; whether it has the key to it is another question.
    is_verified: OnceLock<()>,
}

impl Seen {
    fn note(&self, der: &CertificateDer<'_>) {
        if let Some(names) = certificate::read_or_none(der) {
            // A second one in a connection does not occur, and would change nothing.
            let _ = self.names.set(names);
        }
    }

    pub(super) fn names(&self) -> Option<&PeerNames> {
        self.names.get()
    }

    pub(super) fn is_verified(&self) -> bool {
        self.is_verified.get().is_some()
    }
}

/// Whoever can connect can send a chain, and each certificate in it costs the check of a signature, or many.
fn check_chain(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    let found = intermediates.len();
    if found <= CERTIFICATE_CHAIN_MAX {
        return Ok(());
    }
    Err(Error::General(format!(
        "expected at most {CERTIFICATE_CHAIN_MAX} certificates of authorities behind the peer's own, found {found}; leave out those that are in CertificateAuthorityFile of this node"
    )))
}

/// On the side that dialled: the name is checked by the inner verifier, which rustls tells whom it dialled.
#[derive(Debug)]
pub(super) struct ServerCheck {
    pub(super) inner: Arc<WebPkiServerVerifier>,
    pub(super) seen: Arc<Seen>,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_chain(intermediates)?;
        self.seen.note(end_entity);
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let _ = self.seen.is_verified.set(());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// On the side that accepted: a certificate is demanded, chains to the authority, and is valid for the one that connects.
#[derive(Debug)]
pub(super) struct ClientCheck {
    pub(super) inner: Arc<dyn ClientCertVerifier>,
    pub(super) expected: ServerName<'static>,
    pub(super) seen: Arc<Seen>,
}

impl ClientCertVerifier for ClientCheck {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_chain(intermediates)?;
        self.seen.note(end_entity);
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.expected)?;
        let _ = self.seen.is_verified.set(());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
