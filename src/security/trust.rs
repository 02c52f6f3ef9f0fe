//! What TLS connections are made with, and how it is changed under way.
//!
//! A [`Trust`] is shared by all threads as an `Arc`. Whoever makes a connection takes [`Trust::current`]; connections that
//! stand keep what they were made with, so a reload drops nothing. The main thread reloads, everybody reads.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::certificate::PeerNames;
use super::error::SecurityError;
use super::identity::{Identity, IdentityFiles, OwnCertificate};
use super::verify::{ClientCheck, Seen, ServerCheck};
use crate::limits::CERTIFICATE_WARNING;
use crate::types::WallTime;

/// The algorithms. Given to each configuration: none is installed for the whole process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// When certificates end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first of the certificate, its chain and the authorities.
    pub not_after: WallTime,
    /// The file, for the operator.
    pub file: PathBuf,
    /// What the certificate says.
    pub names: PeerNames,
}

impl Expiry {
    /// Whole days that are left; negative when it is over. A metric.
    #[must_use]
    pub fn days_left(&self, now: WallTime) -> i64 {
        let days = i64::try_from(self.not_after.distance(now).as_secs() / 86_400).unwrap_or(i64::MAX);
        if now <= self.not_after { days } else { -days - 1 }
    }

    /// What to tell the operator, from 30 days ahead on.
    #[must_use]
    pub fn warning(&self, now: WallTime) -> Option<String> {
        let (file, names, end) = (self.file.display(), &self.names, self.not_after);
        if now > end {
            return Some(format!(
                "the certificate {file} ({names}), or an authority or chain that it needs, expired at {end}: new connections \
                 to other nodes are refused. Renew it and send SIGHUP"
            ));
        }
        (end.distance(now) <= CERTIFICATE_WARNING).then(|| {
            format!(
                "the certificate {file} ({names}), or an authority or chain that it needs, expires in {} days, at {end}. \
                 Renew it and send SIGHUP: links stand meanwhile",
                self.days_left(now)
            )
        })
    }
}

/// What connections between nodes are made with, of one moment.
#[derive(Debug)]
pub struct TlsConfigs {
    provider: Arc<CryptoProvider>,
    own: Arc<SingleCertAndKey>,
    client_verifier: Arc<dyn ClientCertVerifier>,
    server_verifier: Arc<WebPkiServerVerifier>,
    target_host: Option<ServerName<'static>>,
    names: PeerNames,
    authorities: String,
    not_after: WallTime,
}

impl TlsConfigs {
    /// Of an identity; `target_host` is `SslTargetHost`.
    ///
    /// # Errors
    /// When `target_host` is no name, or TLS cannot be set up.
    pub fn new(identity: &Identity, target_host: Option<&str>) -> Result<TlsConfigs, SecurityError> {
        let provider = provider();
        let refused = |error: &dyn std::error::Error| rustls::Error::General(error.to_string());
        let clients = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider.clone());
        let servers = WebPkiServerVerifier::builder_with_provider(identity.roots.clone(), provider.clone());
        Ok(TlsConfigs {
            own: single(identity.own.certified.clone()),
            client_verifier: clients.build().map_err(|error| refused(&error))?,
            server_verifier: servers.build().map_err(|error| refused(&error))?,
            target_host: target_host.map(target).transpose()?,
            names: identity.names().clone(),
            authorities: identity.authorities.clone(),
            not_after: identity.not_after(),
            provider,
        })
    }

    /// What this node's certificate says.
    #[must_use]
    pub fn names(&self) -> &PeerNames {
        &self.names
    }

    /// Whom this node trusts, for errors.
    pub(super) fn authorities(&self) -> &str {
        &self.authorities
    }

    /// The name that a peer at this address must have.
    pub(super) fn expected(&self, peer: IpAddr) -> ServerName<'static> {
        self.target_host.clone().unwrap_or_else(|| ServerName::IpAddress(peer.into()))
    }

    /// For one connection that is dialled. TLS 1.3 only, and nothing is resumed: a peer is checked each time.
    pub(super) fn client(&self, seen: Arc<Seen>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let check = Arc::new(ServerCheck { inner: self.server_verifier.clone(), seen });
        let builder = ClientConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(&[&TLS13])?;
        let builder = builder.dangerous().with_custom_certificate_verifier(check);
        let mut config = builder.with_client_cert_resolver(self.own.clone());
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// For one connection that is accepted from this address, likewise.
    pub(super) fn server(&self, peer: IpAddr, seen: Arc<Seen>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let check = ClientCheck { inner: self.client_verifier.clone(), expected: self.expected(peer), seen };
        let builder = ServerConfig::builder_with_provider(self.provider.clone()).with_protocol_versions(&[&TLS13])?;
        let mut config = builder.with_client_cert_verifier(Arc::new(check)).with_cert_resolver(self.own.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

fn single(certified: Arc<CertifiedKey>) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(certified))
}

fn target(value: &str) -> Result<ServerName<'static>, SecurityError> {
    ServerName::try_from(value.to_owned())
        .map_err(|error| SecurityError::TargetHost { value: value.to_owned(), reason: error.to_string() })
}

/// The internal plane's certificates, in use and replaceable.
#[derive(Debug)]
pub struct Trust {
    files: IdentityFiles,
    target_host: Option<String>,
    /// Where the others reach this node.
    own: Option<IpAddr>,
    current: RwLock<Arc<TlsConfigs>>,
    warnings: RwLock<Vec<String>>,
}

impl Trust {
    /// Loads the files; `target_host` is `SslTargetHost`.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn load(files: IdentityFiles, target_host: Option<&str>) -> Result<Trust, SecurityError> {
        Trust::load_for(files, target_host, None)
    }

    /// Likewise for a node that the others reach at `own`: they must find that address in its certificate, or `target_host`.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn load_for(
        files: IdentityFiles,
        target_host: Option<&str>,
        own: Option<IpAddr>,
    ) -> Result<Trust, SecurityError> {
        let own = own.map(|own| own.to_canonical()).filter(|own| !own.is_unspecified());
        let (configs, warnings) = checked(&files, target_host, own)?;
        let (current, warnings) = (RwLock::new(Arc::new(configs)), RwLock::new(warnings));
        Ok(Trust { files, target_host: target_host.map(str::to_owned), own, current, warnings })
    }

    /// What no file could give, for tests: a certificate that is not valid now.
    #[cfg(test)]
    pub(super) fn unchecked(files: IdentityFiles, configs: TlsConfigs) -> Trust {
        let (current, warnings) = (RwLock::new(Arc::new(configs)), RwLock::new(Vec::new()));
        Trust { files, target_host: None, own: None, current, warnings }
    }

    /// What a new connection is made with.
    #[must_use]
    pub fn current(&self) -> Arc<TlsConfigs> {
        self.current.read().clone()
    }

    /// Reads the files again. Connections that stand stay as they are; new ones are made with the new files.
    ///
    /// # Errors
    /// When the new files cannot be used. The old ones stay in use.
    pub fn reload(&self) -> Result<Expiry, SecurityError> {
        let (configs, warnings) = checked(&self.files, self.target_host.as_deref(), self.own)?;
        *self.current.write() = Arc::new(configs);
        *self.warnings.write() = warnings;
        Ok(self.expiry())
    }

    /// When what is in use ends.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        let current = self.current();
        Expiry { not_after: current.not_after, file: self.files.certificate.clone(), names: current.names.clone() }
    }

    /// What the operator should know of the files that were read last.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.read().clone()
    }
}

/// What the files have, when the other nodes will take it.
fn checked(
    files: &IdentityFiles,
    target_host: Option<&str>,
    own: Option<IpAddr>,
) -> Result<(TlsConfigs, Vec<String>), SecurityError> {
    let identity = Identity::load(files)?;
    let configs = TlsConfigs::new(&identity, target_host)?;
    if let Some(own) = own {
        identity.check_name(files, &configs.expected(own))?;
    }
    Ok((configs, identity.warnings().to_vec()))
}

/// The external side's certificate, in use and replaceable: a server for clients, which need none.
#[derive(Debug)]
pub struct ExternalTrust {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<(Arc<ServerConfig>, Expiry)>,
    warnings: RwLock<Vec<String>>,
}

impl ExternalTrust {
    /// Loads the files.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<ExternalTrust, SecurityError> {
        let (config, expiry, warnings) = external(&certificate, &key)?;
        Ok(ExternalTrust { certificate, key, current: RwLock::new((config, expiry)), warnings: RwLock::new(warnings) })
    }

    /// What a new connection is made with: TLS 1.2 or 1.3.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().0.clone()
    }

    /// Reads the files again, as [`Trust::reload`].
    ///
    /// # Errors
    /// When the new files cannot be used. The old ones stay in use.
    pub fn reload(&self) -> Result<Expiry, SecurityError> {
        let (config, expiry, warnings) = external(&self.certificate, &self.key)?;
        *self.current.write() = (config, expiry.clone());
        *self.warnings.write() = warnings;
        Ok(expiry)
    }

    /// When what is in use ends.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.current.read().1.clone()
    }

    /// What the operator should know of the files that were read last.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.read().clone()
    }
}

type External = (Arc<ServerConfig>, Expiry, Vec<String>);

fn external(certificate: &Path, key: &Path) -> Result<External, SecurityError> {
    let own = OwnCertificate::load(certificate, key)?;
    own.check_uses(certificate, false)?;
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12, &TLS13])?;
    let config = builder.with_no_client_auth().with_cert_resolver(single(own.certified));
    let expiry = Expiry { not_after: own.not_after, file: certificate.to_owned(), names: own.names };
    Ok((Arc::new(config), expiry, own.warnings))
}
