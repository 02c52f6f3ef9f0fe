//! How a command gets into a closed internal plane: the files that it is given, or those of a node's options.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::error::{OperatorError, chain};
use super::node;
use crate::config::Config;
use crate::ring::Way;
use crate::security::{IdentityFiles, Plane, PlaneFiles, SecurityError};

/// Whom a command asks unless it is told.
const DEFAULT_NODE: &str = "127.0.0.1:2112";

/// The files.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Where the internal plane is closed")]
pub(super) struct AccessOptions {
    /// The secret that the nodes share: the same file as their ClusterSecretFile
    #[arg(long, value_name = "FILE", global = true)]
    cluster_secret_file: Option<PathBuf>,
    /// A certificate, PEM, that the nodes take (UseInternalSsl): of their authority, and valid for the address that this
    /// command connects from, or for --ssl-target-host where the nodes have SslTargetHost. That of a node does, on that node
    #[arg(long, value_name = "FILE", global = true)]
    certificate_file: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", global = true)]
    certificate_private_key_file: Option<PathBuf>,
    /// The authorities, PEM, that the nodes' certificates must chain to
    #[arg(long, value_name = "FILE", global = true)]
    certificate_authority_file: Option<PathBuf>,
    /// The name that all nodes' certificates have, when the nodes have an SslTargetHost
    #[arg(long, value_name = "NAME", global = true)]
    ssl_target_host: Option<String>,
    /// All of these, and the node to ask, from the options of a node: its configuration file and the environment
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// What a command calls nodes with. The default calls those of an open plane.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) plane: Plane,
    pub(super) way: Way,
    /// The node that the options are of.
    own: Option<SocketAddr>,
}

impl AccessOptions {
    /// Reads the files.
    pub(super) fn open(self) -> Result<Access, OperatorError> {
        let usage = |words: &str| OperatorError::Usage { words: words.to_owned() };
        if let Some(config) = &self.config {
            let others = [&self.certificate_file, &self.certificate_private_key_file, &self.certificate_authority_file];
            let has_others = others.into_iter().chain([&self.cluster_secret_file]).any(Option::is_some);
            if has_others || self.ssl_target_host.is_some() {
                return Err(usage("--config brings the files of a node: give either it or the files"));
            }
            let arguments = vec![OsString::from("--config"), config.clone().into_os_string()];
            let loaded = super::node_options(arguments).map_err(|error| usage(&chain(&error)))?;
            return Access::of_node(&loaded.config);
        }
        let files = (self.certificate_file, self.certificate_private_key_file, self.certificate_authority_file);
        let identity = match files {
            (None, None, None) => None,
            (Some(certificate), Some(key), Some(authorities)) => Some(IdentityFiles { certificate, key, authorities }),
            _ => {
                return Err(usage(
                    "a certificate needs --certificate-file, --certificate-private-key-file and --certificate-authority-file, \
                     all three",
                ));
            }
        };
        if identity.is_none() && self.ssl_target_host.is_some() {
            return Err(usage(
                "--ssl-target-host is for certificates: give --certificate-file and what goes with it, too",
            ));
        }
        let files = PlaneFiles { identity, target_host: self.ssl_target_host, secret: self.cluster_secret_file };
        Access::load(&files)
    }
}

impl Access {
    /// As the node with these options calls the others.
    pub(super) fn of_node(config: &Config) -> Result<Access, OperatorError> {
        let mut access = Access::load(&config.security.internal)?;
        // On loopback an open plane has no way to keep to.
        if !access.plane.is_open() || !config.int_ip.is_loopback() {
            access.way = Access::way_of(config);
        }
        let ip = if config.int_ip.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { config.int_ip };
        access.own = Some(SocketAddr::new(ip, config.int_http_port));
        Ok(access)
    }

    /// The way that the node's connections take: its certificate is valid for that address, and the network of clients need
    /// not lead to the others. On a machine that does not have the address, the system chooses one.
    pub(super) fn way_of(config: &Config) -> Way {
        let is_here = |ip: &IpAddr| !ip.is_unspecified() && UdpSocket::bind((*ip, 0)).is_ok();
        let from = Some(config.int_ip).filter(is_here);
        let device = config.int_device.as_deref().filter(|_| from.is_some()).map(Arc::from);
        Way { from, device, ..Way::default() }
    }

    fn load(files: &PlaneFiles) -> Result<Access, OperatorError> {
        let refused = |error: SecurityError| OperatorError::Refused { words: chain(&error) };
        let plane = Plane::load(files).map_err(refused)?;
        plane.warnings().iter().for_each(|warning| eprintln!("ringstore: {warning}"));
        Ok(Access { plane, ..Access::default() })
    }

    /// The node that is meant: the one that was named, else the one that the options are of, else the one of this host.
    pub(super) fn node(&self, named: Option<&str>) -> Result<SocketAddr, OperatorError> {
        match (named, self.own) {
            (Some(named), _) => node::resolve(named),
            (None, Some(own)) => Ok(own),
            (None, None) => node::resolve(DEFAULT_NODE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Security;
    use crate::security::testing::{TestCluster, today};

    #[test]
    fn files_and_nodes_options_close_the_plane_alike() {
        let cluster = TestCluster::new();
        let secret = cluster.write("secret", &"s".repeat(32));
        let files = cluster.files("node", &cluster.issue(&["127.0.0.9"], today()));
        let options = AccessOptions {
            cluster_secret_file: Some(secret.clone()),
            certificate_file: Some(files.certificate.clone()),
            certificate_private_key_file: Some(files.key.clone()),
            certificate_authority_file: Some(files.authorities.clone()),
            ..AccessOptions::default()
        };
        let named = options.open().unwrap();
        assert!(matches!(named.plane, Plane::Both { .. }) && named.way == Way::default());
        assert_eq!(named.node(None).unwrap().to_string(), "127.0.0.1:2112");

        let internal = PlaneFiles { identity: Some(files), target_host: None, secret: Some(secret) };
        let mut config = Config {
            int_ip: "127.0.0.9".parse().unwrap(),
            int_http_port: 9,
            security: Security { internal, ..Security::default() },
            ..Config::default()
        };
        let own = Access::of_node(&config).unwrap();
        assert!(matches!(own.plane, Plane::Both { .. }));
        assert_eq!(own.way.from, Some(config.int_ip), "its certificate is valid for that address");
        assert_eq!(own.node(None).unwrap().to_string(), "127.0.0.9:9");
        assert_eq!(own.node(Some("10.0.0.1")).unwrap().to_string(), "10.0.0.1:2112");
        // On another machine than the node's.
        config.int_ip = "192.0.2.1".parse().unwrap();
        assert_eq!(Access::of_node(&config).unwrap().way, Way::default());
        // An open plane is asked as before.
        config = Config { int_ip: "127.0.0.9".parse().unwrap(), ..Config::default() };
        let open = Access::of_node(&config).unwrap();
        assert!(open.plane.is_open() && open.way == Way::default());
    }
}
