//! Makes an authority and certificates: for `ringstore certificates`, and for tests.
//!
//! Keys are ECDSA on P-256. Nothing is written to a file here.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate;
use super::error::SecurityError;
use crate::types::WallTime;

/// When a certificate counts.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// From here on.
    pub from: SystemTime,
    /// Until here.
    pub until: SystemTime,
}

impl Validity {
    /// From an hour before `now`, as clocks differ, for so many days.
    #[must_use]
    pub fn days(now: SystemTime, days: u32) -> Validity {
        let from = now - Duration::from_secs(3600);
        Validity { from, until: now + Duration::from_secs(u64::from(days) * 86_400) }
    }

    fn put(self, params: &mut CertificateParams) {
        let epoch = date_time_ymd(1970, 1, 1);
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        params.not_before = epoch + since(self.from);
        params.not_after = epoch + since(self.until);
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Issued({}, a key)", self.certificate)
    }
}

/// One that signs certificates of nodes.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: Issued,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({:?})", self.own)
    }
}

impl Authority {
    /// A new one, signed by itself.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(name: &str, validity: Validity) -> Result<Authority, SecurityError> {
        let failed = |error: rcgen::Error| SecurityError::Making {
            what: format!("the authority \"{name}\""),
            reason: error.to_string(),
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        // It signs nodes, and no further authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        validity.put(&mut params);
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let own = Issued { certificate, key: key.serialize_pem() };
        Ok(Authority { issuer: Issuer::new(params, key), own })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// When it is none, or the key is another one's.
    pub fn load(own: &Issued) -> Result<Authority, SecurityError> {
        let failed =
            |reason: String| SecurityError::Making { what: "a certificate with this authority".to_owned(), reason };
        let key = KeyPair::from_pem(&own.key).map_err(|error| failed(format!("its key: {error}")))?;
        let public = key.public_key_raw().to_vec();
        let issuer = Issuer::from_ca_cert_pem(&own.certificate, key)
            .map_err(|error| failed(format!("its certificate: {error}")))?;
        if !holds(&own.certificate, &public) {
            return Err(failed("its key does not fit its certificate".to_owned()));
        }
        Ok(Authority { issuer, own: own.clone() })
    }

    /// Its certificate and key.
    #[must_use]
    pub fn own(&self) -> &Issued {
        &self.own
    }

    /// It counts until here.
    ///
    /// # Errors
    /// When its certificate is none.
    pub fn not_after(&self) -> Result<WallTime, SecurityError> {
        let der = CertificateDer::from_pem_slice(self.own.certificate.as_bytes()).map_err(|error| error.to_string());
        let read = der.and_then(|der| certificate::read(&der));
        let failed = |reason| SecurityError::Making { what: "a certificate with this authority".to_owned(), reason };
        read.map(|(names, _)| names.not_after).map_err(failed)
    }

    /// A certificate of a node with these names and addresses, for server and client.
    ///
    /// # Errors
    /// When a name is none, or no key can be made.
    pub fn issue(&self, name: &str, names: &[String], validity: Validity) -> Result<Issued, SecurityError> {
        let failed = |error: rcgen::Error| {
            let what = format!("the certificate of \"{name}\" for {}", names.join(", "));
            SecurityError::Making { what, reason: error.to_string() }
        };
        if let Some(wrong) = names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
            let reason = format!("\"{wrong}\" is neither an address nor a host name");
            return Err(SecurityError::Making { what: format!("the certificate of \"{name}\""), reason });
        }
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = called(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        validity.put(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

/// True when the certificate is of this public key.
fn holds(pem: &str, public: &[u8]) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let parsed = X509Certificate::from_der(&der);
    parsed.is_ok_and(|(_, certificate)| certificate.public_key().subject_public_key.data.as_ref() == public)
}

fn called(name: &str) -> DistinguishedName {
    let mut out = DistinguishedName::new();
    out.push(DnType::CommonName, name);
    out
}
