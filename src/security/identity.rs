//! Who this node is: its certificate and key, and the authorities that it trusts, from PEM files.
//!
//! What is loaded was looked at: the key fits, the times are right, the certificate has names, is for server and client, and
//! is signed by one of the authorities, so that the other nodes will take it. What is wrong is said with the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use super::certificate::{self, PeerNames, Uses};
use super::error::SecurityError;
use super::files;
use super::trust::provider;
use super::words::shown;
use crate::limits::CERTIFICATE_CHAIN_MAX;
use crate::types::WallTime;

const CERTIFICATE: &str = "certificate (CertificateFile)";
const KEY: &str = "private key (CertificatePrivateKeyFile)";
const AUTHORITIES: &str = "authorities (CertificateAuthorityFile)";

/// Sections of a file that an error names.
const SECTIONS_SHOWN_MAX: usize = 8;

/// Where an identity lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The node's certificate, and behind it those between it and the authority (`CertificateFile`).
    pub certificate: PathBuf,
    /// Its private key (`CertificatePrivateKeyFile`).
    pub key: PathBuf,
    /// The authorities whose signature counts (`CertificateAuthorityFile`).
    pub authorities: PathBuf,
}

/// A certificate with its key: all that a server for clients needs.
#[derive(Debug)]
pub(super) struct OwnCertificate {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) names: PeerNames,
    uses: Uses,
    /// Of the certificate or one of the chain, whatever is first.
    pub(super) not_after: WallTime,
    pub(super) warnings: Vec<String>,
}

impl OwnCertificate {
    pub(super) fn load(path: &Path, key_path: &Path) -> Result<OwnCertificate, SecurityError> {
        let now = WallTime::from_system(SystemTime::now());
        let chain = certificates(CERTIFICATE, path)?;
        let mut not_after = WallTime(i64::MAX);
        for der in &chain {
            let (names, _) = understood(CERTIFICATE, path, der)?;
            check_time(CERTIFICATE, path, &names, now)?;
            not_after = not_after.min(names.not_after);
        }
        let (names, uses) = understood(CERTIFICATE, path, &chain[0])?;
        if names.names.is_empty() {
            return Err(SecurityError::NoNames { path: path.into(), found: names.to_string() });
        }
        let certified = certified(path, key_path, chain, &names)?;
        let warnings = files::too_open(KEY, key_path).into_iter().collect();
        Ok(OwnCertificate { certified: Arc::new(certified), names, uses, not_after, warnings })
    }

    pub(super) fn check_uses(&self, path: &Path, is_client_too: bool) -> Result<(), SecurityError> {
        let missing = match self.uses {
            Uses { is_server: false, .. } => "servers",
            Uses { is_client: false, .. } if is_client_too => "clients",
            _ => return Ok(()),
        };
        Err(SecurityError::Purpose { path: path.into(), found: self.names.to_string(), missing })
    }
}

/// A node's certificate, its key, and the authorities that it trusts.
#[derive(Debug)]
pub struct Identity {
    pub(super) own: OwnCertificate,
    pub(super) roots: Arc<RootCertStore>,
    /// Whom this node trusts, for errors.
    pub(super) authorities: String,
    not_after: WallTime,
    warnings: Vec<String>,
}

impl Identity {
    /// Reads the files and looks at what is in them.
    ///
    /// # Errors
    /// When a file cannot be read, or what is in it cannot be used: [`SecurityError`] says which, why, and what to do.
    pub fn load(files: &IdentityFiles) -> Result<Identity, SecurityError> {
        let own = OwnCertificate::load(&files.certificate, &files.key)?;
        own.check_uses(&files.certificate, true)?;
        let (path, found) = (files.certificate.clone(), own.certified.cert.len() - 1);
        if found > CERTIFICATE_CHAIN_MAX {
            return Err(SecurityError::LongChain { path, found });
        }
        let trusted = Authorities::load(&files.authorities)?;
        let identity = Identity {
            not_after: own.not_after.min(trusted.not_after),
            warnings: own.warnings.iter().cloned().chain(trusted.warnings).collect(),
            own,
            roots: Arc::new(trusted.roots),
            authorities: trusted.subjects.join(", "),
        };
        identity.check_signature(files)?;
        Ok(identity)
    }

    /// The other nodes look for this name in the certificate.
    pub(super) fn check_name(&self, files: &IdentityFiles, expected: &ServerName<'_>) -> Result<(), SecurityError> {
        let leaf = ParsedCertificate::try_from(&self.own.certified.cert[0])?;
        verify_server_name(&leaf, expected).map_err(|_| SecurityError::OtherName {
            path: files.certificate.clone(),
            found: self.own.names.to_string(),
            expected: expected.to_str().into_owned(),
        })
    }

    /// When the first of its certificates, or of its authorities, expires.
    #[must_use]
    pub fn not_after(&self) -> WallTime {
        self.not_after
    }

    /// What its certificate says.
    #[must_use]
    pub fn names(&self) -> &PeerNames {
        &self.own.names
    }

    /// What the operator should know: a key that others can read, an authority that has expired.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The other nodes will ask the same.
    fn check_signature(&self, files: &IdentityFiles) -> Result<(), SecurityError> {
        let (leaf, chain) = self.own.certified.cert.split_first().expect("at least one certificate was read");
        let algorithms = provider().signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, UnixTime::now(), algorithms).map_err(
            |error| SecurityError::OtherAuthority {
                certificate: files.certificate.clone(),
                found: self.own.names.to_string(),
                authorities: files.authorities.clone(),
                expected: self.authorities.clone(),
                reason: error.to_string(),
            },
        )
    }
}

struct Authorities {
    roots: RootCertStore,
    subjects: Vec<String>,
    not_after: WallTime,
    warnings: Vec<String>,
}

impl Authorities {
    /// The authorities in a file that are in their time; the verifier itself does not look at that.
    fn load(path: &Path) -> Result<Authorities, SecurityError> {
        let now = WallTime::from_system(SystemTime::now());
        let (roots, not_after) = (RootCertStore::empty(), WallTime(i64::MAX));
        let mut out = Authorities { roots, subjects: Vec::new(), not_after, warnings: Vec::new() };
        let mut refused = None;
        for der in certificates(AUTHORITIES, path)? {
            let (names, uses) = understood(AUTHORITIES, path, &der)?;
            if !uses.is_authority {
                return Err(SecurityError::NoAuthority { path: path.into(), found: names.to_string() });
            }
            if let Err(error) = check_time(AUTHORITIES, path, &names, now) {
                out.warnings.push(format!("not trusted: {error}"));
                refused = Some(error);
                continue;
            }
            out.not_after = out.not_after.min(names.not_after);
            out.subjects.push(format!("\"{}\"", names.subject));
            out.roots.add(der)?;
        }
        // During a change of the authority one of them may be over; without any nobody could be trusted.
        match refused {
            Some(error) if out.roots.is_empty() => Err(error),
            _ => Ok(out),
        }
    }
}

fn understood(what: &'static str, path: &Path, der: &CertificateDer<'_>) -> Result<(PeerNames, Uses), SecurityError> {
    certificate::read(der).map_err(|reason| SecurityError::Malformed { what, path: path.into(), reason })
}

fn check_time(what: &'static str, path: &Path, names: &PeerNames, now: WallTime) -> Result<(), SecurityError> {
    let (path, found) = (path.to_owned(), names.to_string());
    if now > names.not_after {
        return Err(SecurityError::Expired { what, path, found, not_after: names.not_after, now });
    }
    if now < names.not_before {
        return Err(SecurityError::NotYetValid { what, path, found, not_before: names.not_before, now });
    }
    Ok(())
}

/// All certificates of a PEM file, at least one.
fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let bytes = files::read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| malformed(what, path, &error))?;
    if found.is_empty() {
        return Err(no_section(what, path, "CERTIFICATE", &bytes));
    }
    Ok(found)
}

/// The certificate with the key in a PEM file: PKCS#8, PKCS#1 or SEC 1.
fn certified(
    certificate: &Path,
    path: &Path,
    chain: Vec<CertificateDer<'static>>,
    names: &PeerNames,
) -> Result<CertifiedKey, SecurityError> {
    let bytes = files::read(KEY, path)?;
    let key = match PrivateKeyDer::pem_slice_iter(&bytes).next() {
        Some(key) => key.map_err(|error| malformed(KEY, path, &error))?,
        None => return Err(no_section(KEY, path, "PRIVATE KEY (not an encrypted one)", &bytes)),
    };
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            SecurityError::KeyMismatch { key: path.into(), certificate: certificate.into(), found: names.to_string() }
        }
        other => malformed(KEY, path, &other),
    })
}

fn malformed(what: &'static str, path: &Path, error: &dyn std::error::Error) -> SecurityError {
    SecurityError::Malformed { what, path: path.into(), reason: error.to_string() }
}

fn no_section(what: &'static str, path: &Path, expected: &'static str, bytes: &[u8]) -> SecurityError {
    let text = String::from_utf8_lossy(bytes);
    let begins = text.lines().filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let found: Vec<String> = begins.take(SECTIONS_SHOWN_MAX).map(shown).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    SecurityError::NoSection { what, path: path.into(), expected, found }
}

#[cfg(test)]
impl Identity {
    /// What a stranger has: nothing of it is looked at, besides that it is PEM and the key fits.
    pub(super) fn unchecked(issued: &super::authority::Issued, authority: &str) -> Identity {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let (names, uses) = certificate::read(&chain[0]).unwrap();
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &provider()).unwrap());
        let not_after = names.not_after;
        let own = OwnCertificate { certified, names, uses, not_after, warnings: Vec::new() };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let authorities = "\"test authority\"".to_owned();
        Identity { own, roots: Arc::new(roots), authorities, not_after, warnings: Vec::new() }
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
