//! What a connection of the internal plane needs, without I/O: the one value that the parts of a node are given.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::channel::TlsChannel;
use super::error::SecurityError;
use super::identity::IdentityFiles;
use super::secret::ClusterSecret;
use super::tls_error::TlsError;
use super::trust::Trust;

/// Where the locks of a plane lie, as the options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaneFiles {
    /// With it: mutual TLS.
    pub identity: Option<IdentityFiles>,
    /// `SslTargetHost`: the name that all nodes' certificates have. Without it each is valid for its node's address.
    pub target_host: Option<String>,
    /// `ClusterSecretFile`. With it: proofs.
    pub secret: Option<PathBuf>,
}

/// How the internal plane is closed. Cheap to clone; shared by all threads.
#[derive(Clone, Debug, Default)]
pub enum Plane {
    /// To nobody: for loopback, and where an unsafe option says so.
    #[default]
    Open,
    /// To those who do not have the cluster's secret.
    Secret(Arc<ClusterSecret>),
    /// To those without a certificate of the cluster's authority, valid for them.
    Tls(Arc<Trust>),
    /// To those who lack either.
    Both {
        /// The cluster's secret.
        secret: Arc<ClusterSecret>,
        /// The certificates.
        trust: Arc<Trust>,
    },
}

impl Plane {
    /// Loads what there is.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn load(files: &PlaneFiles) -> Result<Plane, SecurityError> {
        Plane::load_for(files, None)
    }

    /// Likewise for a node that the others reach at this address: its certificate must be one that they take.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn load_for(files: &PlaneFiles, own: Option<IpAddr>) -> Result<Plane, SecurityError> {
        let secret = files.secret.as_deref().map(ClusterSecret::load).transpose()?;
        let target_host = files.target_host.as_deref();
        let trust = files.identity.clone().map(|identity| Trust::load_for(identity, target_host, own)).transpose()?;
        Ok(Plane::new(secret.map(Arc::new), trust.map(Arc::new)))
    }

    /// Of what there is.
    #[must_use]
    pub fn new(secret: Option<Arc<ClusterSecret>>, trust: Option<Arc<Trust>>) -> Plane {
        match (secret, trust) {
            (None, None) => Plane::Open,
            (Some(secret), None) => Plane::Secret(secret),
            (None, Some(trust)) => Plane::Tls(trust),
            (Some(secret), Some(trust)) => Plane::Both { secret, trust },
        }
    }

    /// True when everybody who reaches the port may speak.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Plane::Open)
    }

    /// True when such a plane may listen on this address without an unsafe option.
    #[must_use]
    pub fn may_listen_on(&self, address: IpAddr) -> bool {
        !self.is_open() || address.to_canonical().is_loopback()
    }

    /// The secret, when proofs are needed: around the greeting on 1112, for each request on 2112; inside of TLS if there is.
    #[must_use]
    pub fn secret(&self) -> Option<&Arc<ClusterSecret>> {
        match self {
            Plane::Secret(secret) | Plane::Both { secret, .. } => Some(secret),
            Plane::Open | Plane::Tls(_) => None,
        }
    }

    /// The certificates, when connections are TLS.
    #[must_use]
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        match self {
            Plane::Tls(trust) | Plane::Both { trust, .. } => Some(trust),
            Plane::Open | Plane::Secret(_) => None,
        }
    }

    /// The channel for a connection that was dialled to `peer`; none where connections are plain.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn dialled(&self, peer: IpAddr) -> Result<Option<TlsChannel>, TlsError> {
        self.trust().map(|trust| TlsChannel::client(&trust.current(), peer.to_canonical())).transpose()
    }

    /// The channel for a connection that was accepted from `peer`; none where connections are plain.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn accepted(&self, peer: IpAddr) -> Result<Option<TlsChannel>, TlsError> {
        self.trust().map(|trust| TlsChannel::server(&trust.current(), peer.to_canonical())).transpose()
    }

    /// How it is closed, for log lines.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Plane::Open => "open to everybody who reaches it",
            Plane::Secret(_) => "closed by the cluster's secret (not encrypted)",
            Plane::Tls(_) => "closed by mutual TLS",
            Plane::Both { .. } => "closed by mutual TLS and the cluster's secret",
        }
    }

    /// What the operator should know of its files.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let secret = self.secret().map_or(&[][..], |secret| secret.warnings());
        let trust = self.trust().map(|trust| trust.warnings()).unwrap_or_default();
        secret.iter().cloned().chain(trust).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_open_plane_is_for_loopback_only() {
        let secret = Arc::new(ClusterSecret::from_bytes(&[b'x'; 32]).unwrap());
        let check = |plane: &Plane, address: &str, expected: bool| {
            assert_eq!(plane.may_listen_on(address.parse().unwrap()), expected, "{plane:?} {address}");
        };
        for (address, when_open) in [
            ("127.0.0.1", true),
            ("127.9.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            check(&Plane::Open, address, when_open);
            check(&Plane::Secret(secret.clone()), address, true);
        }
        assert!(Plane::new(None, None).is_open() && Plane::Open.secret().is_none());
        let closed = Plane::new(Some(secret), None);
        assert!(closed.secret().is_some() && closed.trust().is_none() && !closed.is_open());
        assert!(closed.dialled(Ipv4Addr::LOCALHOST.into()).unwrap().is_none(), "no TLS without certificates");
    }
}
