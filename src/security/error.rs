//! Why files cannot be used as an identity or a secret.

use std::io;
use std::path::PathBuf;

use crate::limits::{CERTIFICATE_CHAIN_MAX, CLUSTER_SECRET_MAX_BYTES, CLUSTER_SECRET_MIN_BYTES, PEM_FILE_MAX_BYTES};
use crate::types::WallTime;

/// All are for the operator: each names the file and the next step. A start ends with it; a reload leaves what was in use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// It is not there, or may not be read.
    #[error("the {what} {} cannot be read: {source}; check the path, and that the user of the server may read it", path.display())]
    Unreadable {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is too long to be what it should be.
    #[error("the {what} {} has {bytes} bytes, at most {PEM_FILE_MAX_BYTES} are read; is it the right file?", path.display())]
    TooLong {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// There is no such section in the file.
    #[error(
        "the {what} {} has no section {expected} (it has: {found}); it must be a PEM file, DER and PKCS#12 (.p12, .pfx) are \
         converted with `openssl x509` or `openssl pkcs12 -nodes`",
        path.display()
    )]
    NoSection {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The section that is missing.
        expected: &'static str,
        /// The sections that are there.
        found: String,
    },
    /// The file is damaged, or not what its sections say.
    #[error("the {what} {} cannot be understood: {reason}; make it anew", path.display())]
    Malformed {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error(
        "the private key {} does not fit the certificate {} ({found}): it belongs to another one; give the pair that was \
         made together",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
        /// Whose certificate it is.
        found: String,
    },
    /// The certificate is past its time.
    #[error("the {what} {} ({found}) expired at {not_after}, it is {now} now; renew it", path.display())]
    Expired {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        found: String,
        /// Its end.
        not_after: WallTime,
        /// The clock.
        now: WallTime,
    },
    /// The certificate's time has not come.
    #[error(
        "the {what} {} ({found}) is valid from {not_before} on, it is {now} now; check this node's clock, or make it anew",
        path.display()
    )]
    NotYetValid {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        found: String,
        /// Its beginning.
        not_before: WallTime,
        /// The clock.
        now: WallTime,
    },
    /// The certificate is not for what nodes do with it.
    #[error(
        "the certificate {} ({found}) is not for {missing}: a node is server and client to the others, so its certificate \
         needs both in its extended key usage, or no such extension",
        path.display()
    )]
    Purpose {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        found: String,
        /// What it may not be used for.
        missing: &'static str,
    },
    /// The certificate says nothing that a peer could check.
    #[error(
        "the certificate {} ({found}) has no subject alternative names: others cannot check whose it is; make it with the \
         addresses and names of the node",
        path.display()
    )]
    NoNames {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        found: String,
    },
    /// The certificate is another node's: all others would refuse it.
    #[error(
        "the certificate {} ({found}) is not for this node: others ask for {expected}. Was it copied from another node? Give \
         this one its own, or make it with that address or name (IntIpAdvertiseAs, else IntIp; or SslTargetHost)",
        path.display()
    )]
    OtherName {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        found: String,
        /// What peers look for.
        expected: String,
    },
    /// No peer looks at so many certificates.
    #[error(
        "the certificate {} has {found} certificates behind its first, at most {CERTIFICATE_CHAIN_MAX} are taken by other \
         nodes; leave out those that are in CertificateAuthorityFile",
        path.display()
    )]
    LongChain {
        /// The file.
        path: PathBuf,
        /// How many there are.
        found: usize,
    },
    /// The certificate is not signed by the authority that this node trusts.
    #[error(
        "the certificate {} ({found}) is not signed by an authority of {} ({expected}): {reason}; the other nodes would \
         refuse it. Sign it with that authority, or give its intermediate certificates behind it in the same file",
        certificate.display(), authorities.display()
    )]
    OtherAuthority {
        /// The file of the certificate.
        certificate: PathBuf,
        /// Whose certificate it is, and who signed it.
        found: String,
        /// The file of the authorities.
        authorities: PathBuf,
        /// The authorities in it.
        expected: String,
        /// As the verifier says it.
        reason: String,
    },
    /// A certificate that signs nothing is given as an authority.
    #[error(
        "the authority {} ({found}) is no authority: its basic constraints do not say CA; give the certificate of the one \
         that signed the nodes' certificates",
        path.display()
    )]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// Whose certificate it is.
        found: String,
    },
    /// `SslTargetHost` is no name.
    #[error("SslTargetHost \"{value}\" is neither a host name nor an IP address: {reason}")]
    TargetHost {
        /// As given.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The secret is too short or too long.
    #[error(
        "the secret of the cluster{} has {bytes} bytes without white space around it; it needs {CLUSTER_SECRET_MIN_BYTES} to \
         {CLUSTER_SECRET_MAX_BYTES}. Make one with `head --bytes 32 /dev/urandom | base64`, the same on all nodes",
        path.as_ref().map_or_else(String::new, |path| format!(" in {}", path.display()))
    )]
    SecretLength {
        /// The file, when it comes from one.
        path: Option<PathBuf>,
        /// What is left of it.
        bytes: u64,
    },
    /// The TLS library refuses.
    #[error("TLS cannot be set up: {source}")]
    Tls {
        /// As it says it.
        #[from]
        source: rustls::Error,
    },
    /// The certificates cannot be made.
    #[error("{what} cannot be made: {reason}")]
    Making {
        /// What was to be made.
        what: String,
        /// Why not.
        reason: String,
    },
}
