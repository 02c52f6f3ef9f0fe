//! Who may speak on the internal plane: certificates, TLS without I/O, and proofs that a node has the cluster's secret.
//!
//! | the plane has | a connection to 1112 | a connection to 2112 |
//! | --- | --- | --- |
//! | [`Plane::Open`] | as it comes | as it comes |
//! | [`Plane::Secret`] | proofs around the greeting ([`LinkDialler`]) | a challenge, then each request proven ([`HttpCaller`]) |
//! | [`Plane::Tls`] | mutual TLS 1.3 ([`TlsChannel`]), then the greeting | HTTPS with certificates on both sides |
//! | [`Plane::Both`] | TLS, and the proofs inside of it | TLS, and the proofs inside of it |
//!
//! It promises:
//!
//! - A peer's certificate chains to the cluster's authority *and* is valid for the peer: for `SslTargetHost` when that is
//!   set, else for the address that it was dialled at or connects from. Both sides check both.
//! - A proof that was overheard is worth nothing on another connection: both sides' nonces are in it, fresh from the
//!   system's randomness. A proof of one side is never one of the other.
//! - Errors say what was expected and what was found, and no secret.
//! - [`Trust::reload`] changes everything or nothing, and takes no certificate that the other nodes would refuse.
//! - What strangers cost is bounded: places ([`PlaceLimits`]), bytes and certificates of a handshake, log lines ([`Seldom`]).
//!
//! Every certificate of the authority is a node's: the node id of a greeting is not bound to it, and commands need one of the
//! same kind. Whoever has an operator's certificate, or the secret, can vote. Before the proof a stranger is told why it is
//! refused, with the ids of the node and the cluster: they are no secrets.
//!
//! The secret keeps strangers out; it does not hide anything, and does not protect what follows against someone who can
//! change the packets of a standing connection, or who stands between two nodes and passes on their proofs. Where such
//! people can be, use TLS.
//!
//! **Invariant:** nothing here touches a socket. Files are read by [`Identity::load`], [`ClusterSecret::load`] and what calls
//! them, a clock only for the validity of certificates; the connections belong to those who use this.
//!
//! # Proofs on 1112
//!
//! A proof is HMAC-SHA256 with the secret as the key. Integers are little-endian.
//!
//! ```text
//! dialler   hello (96)   nonce of the dialler (32)
//! answerer  nonce of the answerer (32)   proof of the answerer (32)
//! dialler   proof of the dialler (32)
//!
//! what is proven:
//!   0 "ringstore link 1"   16 u8 role: 1 answerer, 2 dialler   17 … zero
//!  24 cluster id           40 nonce of the dialler             72 nonce of the answerer
//! 104 u64 bytes of hello  112 hello
//! ```
//!
//! The answerer proves itself first, so a node never gives a proof to a stranger that it dialled by mistake; what a stranger
//! gets from an answerer fits that connection's nonces and that role only. A node refuses a hello with its own node id: it
//! could be its own, sent back.
//!
//! # Proofs on 2112
//!
//! On each connection first `GET /challenge?nonce=<64 hex>`, answered by `{"nonce": "<64 hex>", "proof": "<64 hex>"}`. Then each
//! request and each answer carries the header `Ring-Proof: <64 hex>`. The counter is 1 for the first request after the challenge
//! and its answer, 2 for the next, and is not sent: both sides count.
//!
//! ```text
//!   0 "ringstore http 1"   16 u8 kind: 1 challenge, 2 request, 3 answer   17 … zero
//!  24 nonce of the caller  56 nonce of the answerer    88 u64 counter (challenge: 0)
//!     request and answer:
//!  96 SHA-256 of the body  128 u64 bytes of body
//!     request: 136 u64 bytes of method   144 u64 bytes of target   152 method, then target (path with query)
//!     answer:  136 u64 status
//! ```
//!
//! The cluster id is not in these: nodes that found a cluster have none yet, and gossip's and elections' bodies carry it.
#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod channel;
mod error;
mod files;
mod http_proof;
mod identity;
mod link_proof;
mod places;
mod plane;
mod secret;
mod seldom;
#[cfg(test)]
pub(crate) mod testing;
mod tls_error;
mod trust;
mod verify;
mod words;

pub use self::authority::{Authority, Issued, Validity};
pub use self::certificate::PeerNames;
pub use self::channel::{TlsChannel, sealed_bytes_max};
pub use self::error::SecurityError;
pub use self::http_proof::{CHALLENGE_PATH, HttpAnswerer, HttpCaller, HttpOpening, PROOF_HEADER};
pub use self::identity::{Identity, IdentityFiles};
pub use self::link_proof::{CHALLENGE_BYTES, LinkAnswerer, LinkDialler, NONCE_BYTES, PROOF_BYTES};
pub use self::places::{FAILED_PLACE_PAUSE, Place, PlaceLimits, ProvenHosts};
pub use self::plane::{Plane, PlaneFiles};
pub use self::secret::{ClusterSecret, ProofError};
pub use self::seldom::Seldom;
pub use self::tls_error::TlsError;
pub use self::trust::{Expiry, ExternalTrust, TlsConfigs, Trust};
