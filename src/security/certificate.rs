//! What a certificate says of its owner, for words, warnings and checks at start. The verifier (webpki) decides, and reads
//! the certificate by itself.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

use super::words::shown;
use crate::types::WallTime;

/// Names of one certificate that are kept; a certificate of a node has a few.
const NAMES_MAX: usize = 16;

/// The owner of a certificate, as the certificate says. Fit to be shown: what is in it comes from a stranger, perhaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNames {
    /// The subject: its common name, or all of it when there is none.
    pub subject: String,
    /// Subject alternative names: DNS names and addresses, the first 16.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// It counts from here on.
    pub not_before: WallTime,
    /// It counts until here.
    pub not_after: WallTime,
}

impl fmt::Display for PeerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = if self.names.is_empty() { "no names".to_owned() } else { self.names.join(", ") };
        let signer = if self.subject == self.issuer { "itself".to_owned() } else { format!("\"{}\"", self.issuer) };
        write!(f, "\"{}\" for {names}, signed by {signer}, valid until {}", self.subject, self.not_after)
    }
}

/// What is looked at in our own files besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    /// It may sign others.
    pub(super) is_authority: bool,
    /// It may be a server's, as far as the extended key usage says.
    pub(super) is_server: bool,
    /// It may be a client's, likewise.
    pub(super) is_client: bool,
}

/// Reads a certificate in DER.
pub(super) fn read(der: &[u8]) -> Result<(PeerNames, Uses), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let names = PeerNames {
        subject: name(certificate.subject()),
        names: alternative_names(&certificate),
        issuer: name(certificate.issuer()),
        not_before: wall_time(certificate.validity().not_before.timestamp()),
        not_after: wall_time(certificate.validity().not_after.timestamp()),
    };
    Ok((names, uses(&certificate)))
}

/// The same, where it may be nonsense of a stranger.
pub(super) fn read_or_none(der: &[u8]) -> Option<PeerNames> {
    read(der).ok().map(|(names, _)| names)
}

fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    common.map_or_else(|| shown(&name.to_string()), shown)
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(shown(name)),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    });
    names.take(NAMES_MAX).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn uses(certificate: &X509Certificate<'_>) -> Uses {
    let mut uses = Uses { is_authority: certificate.is_ca(), is_server: true, is_client: true };
    for extension in certificate.extensions() {
        if let ParsedExtension::ExtendedKeyUsage(usage) = extension.parsed_extension() {
            (uses.is_server, uses.is_client) = (usage.server_auth, usage.client_auth);
        }
    }
    uses
}

fn wall_time(unix_seconds: i64) -> WallTime {
    let seconds = Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(seconds).map_or(WallTime(i64::MAX), WallTime::from_system)
}
