//! The secret that the nodes of a cluster share, and what is made with it: proofs, compared in constant time.

use std::fmt;
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::error::SecurityError;
use super::files;
use crate::limits::{CLUSTER_SECRET_MAX_BYTES, CLUSTER_SECRET_MIN_BYTES};
use crate::types::ClusterId;

const WHAT: &str = "secret of the cluster (ClusterSecretFile)";

/// 32 bytes: a nonce, or a proof.
pub(super) type Bytes32 = [u8; 32];

/// What `ClusterSecretFile` holds. Shared between threads as an `Arc`; it never changes.
pub struct ClusterSecret {
    key: hmac::Key,
    warnings: Vec<String>,
}

impl ClusterSecret {
    /// The secret in a file, without the white space around it.
    ///
    /// # Errors
    /// When the file cannot be read, or the secret is too short or too long.
    pub fn load(path: &Path) -> Result<ClusterSecret, SecurityError> {
        let bytes = files::read(WHAT, path)?;
        let mut secret = ClusterSecret::from_bytes(&bytes).map_err(|error| match error {
            SecurityError::SecretLength { bytes, .. } => SecurityError::SecretLength { path: Some(path.into()), bytes },
            other => other,
        })?;
        secret.warnings.extend(files::too_open(WHAT, path));
        Ok(secret)
    }

    /// The secret itself, without the white space around it.
    ///
    /// # Errors
    /// When it is too short or too long.
    pub fn from_bytes(bytes: &[u8]) -> Result<ClusterSecret, SecurityError> {
        let bytes = bytes.trim_ascii();
        if !(CLUSTER_SECRET_MIN_BYTES..=CLUSTER_SECRET_MAX_BYTES).contains(&bytes.len()) {
            return Err(SecurityError::SecretLength { path: None, bytes: bytes.len() as u64 });
        }
        Ok(ClusterSecret { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), warnings: Vec::new() })
    }

    /// What the operator should know: the file can be read by others.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The proof of `message`.
    pub(super) fn prove(&self, message: &[u8]) -> Bytes32 {
        hmac::sign(&self.key, message).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// True when `proof` is that of `message`; takes the same time wherever they differ.
    pub(super) fn is_proof(&self, message: &[u8], proof: &[u8]) -> bool {
        hmac::verify(&self.key, message, proof).is_ok()
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

/// Why a proof is refused. Always the end of the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The peer of a link has another secret, is of another cluster, or repeats what it overheard.
    #[error(
        "the {whose} does not prove that it is of this cluster: expected a proof with the secret of cluster {cluster}, fresh \
         for this connection and its greeting; found another. Is ClusterSecretFile the same on both nodes?"
    )]
    Link {
        /// Dialler or answerer.
        whose: &'static str,
        /// The cluster of this node.
        cluster: ClusterId,
    },
    /// The other side of an HTTP connection has another secret, or repeats what it overheard.
    #[error(
        "the {what} is not proven: expected a {PROOF} with the secret of the cluster, fresh for this connection; found \
         another. Is ClusterSecretFile (--cluster-secret-file) the same on both sides?",
        PROOF = super::PROOF_HEADER
    )]
    Http {
        /// Challenge, request or answer.
        what: &'static str,
    },
    /// There is no proof at all.
    #[error(
        "the {what} carries no proof: expected the header {PROOF}; found none. This side has a ClusterSecretFile, the other \
         one needs the same (commands: --cluster-secret-file), and asks GET {CHALLENGE} first",
        PROOF = super::PROOF_HEADER, CHALLENGE = super::CHALLENGE_PATH
    )]
    Missing {
        /// Request or answer.
        what: &'static str,
    },
    /// Something in the exchange is not written as it should be.
    #[error("the {what} is malformed: expected {expected}; found \"{found}\"")]
    Malformed {
        /// What it is.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
        /// Its beginning.
        found: String,
    },
    /// The system gives no random bytes: nothing can be proven.
    #[error(
        "the system's random source (getrandom) gives no bytes; a nonce cannot be made, and nothing is trusted without"
    )]
    Randomness,
}

/// Fresh from the system's randomness.
pub(super) fn nonce() -> Result<Bytes32, ProofError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ProofError::Randomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_has_32_bytes_without_the_white_space() {
        let check = |bytes: &[u8], fits: bool| assert_eq!(ClusterSecret::from_bytes(bytes).is_ok(), fits, "{bytes:?}");
        check(&[b'x'; 32], true);
        check(&[b'x'; 31], false);
        check(&[b"  ".as_slice(), &[b'x'; 31], b"\n\n\n"].concat(), false);
        check(&[b'x'; CLUSTER_SECRET_MAX_BYTES], true);
        check(&[b'x'; CLUSTER_SECRET_MAX_BYTES + 1], false);
        let one = ClusterSecret::from_bytes(&[b'x'; 40]).unwrap();
        let other = ClusterSecret::from_bytes(&[b" ".as_slice(), &[b'x'; 40], b"\r\n"].concat()).unwrap();
        assert_eq!(one.prove(b"m"), other.prove(b"m"));
        assert!(!format!("{one:?}").contains('x'), "a secret is never printed");
    }

    #[test]
    fn proofs_are_hmac_sha256() {
        // RFC 4231, test case 6: a key of 131 bytes.
        let secret = ClusterSecret::from_bytes(&[0xAA; 131]).unwrap();
        let proof = secret.prove(b"Test Using Larger Than Block-Size Key - Hash Key First");
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(super::super::http_proof::to_hex(&proof), expected);
    }

    #[test]
    fn files_are_refused_and_warned_about_in_words() {
        let path = std::env::temp_dir().join(format!("ringstore-secret-{}", std::process::id()));
        let load = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            ClusterSecret::load(&path)
        };
        let error = load("too short\n", 0o600).unwrap_err().to_string();
        assert!(
            error.contains("has 9 bytes") && error.contains("32 to 4096") && error.contains("ringstore-secret"),
            "{error}"
        );
        let good = "0123456789abcdef0123456789abcdef\n";
        assert!(load(good, 0o600).unwrap().warnings().is_empty());
        assert!(load(good, 0o640).unwrap().warnings().is_empty());
        let warned = load(good, 0o644).unwrap().warnings().join("");
        assert!(warned.contains("644") && warned.contains("chmod 600"), "{warned}");
        fs::remove_file(&path).unwrap();
        let error = ClusterSecret::load(&path).unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
        let endless = ClusterSecret::load(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(endless.contains("at most"), "{endless}");
    }
}
