//! The proofs around the greeting on 1112: one state for each side, used once and for one connection.
//!
//! The bytes are in the words of [`super`]. Both types are consumed by their last step, so that nothing is proven twice with
//! the same nonce. They know neither frames nor sockets; that the hello is of the same cluster is looked at before, for
//! better words, and again by the proof.

use std::sync::Arc;

use super::secret::{Bytes32, ClusterSecret, ProofError, nonce};
use crate::types::ClusterId;

/// Length of what the dialler sends behind its hello, bytes.
pub const NONCE_BYTES: usize = 32;

/// Length of a proof, bytes.
pub const PROOF_BYTES: usize = 32;

/// Length of the answerer's nonce and proof, bytes.
pub const CHALLENGE_BYTES: usize = NONCE_BYTES + PROOF_BYTES;

const LABEL: &[u8; 16] = b"ringstore link 1";

#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Role {
    Answerer = 1,
    Dialler = 2,
}

/// What both sides know of one connection.
#[derive(Debug)]
struct Exchange {
    secret: Arc<ClusterSecret>,
    cluster: ClusterId,
    hello: Vec<u8>,
    dialler: Bytes32,
}

impl Exchange {
    fn message(&self, role: Role, answerer: &Bytes32) -> Vec<u8> {
        let mut out = Vec::with_capacity(112 + self.hello.len());
        out.extend_from_slice(LABEL);
        out.extend_from_slice(&[role as u8, 0, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&self.cluster.0.0);
        out.extend_from_slice(&self.dialler);
        out.extend_from_slice(answerer);
        out.extend_from_slice(&(self.hello.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.hello);
        out
    }

    fn prove(&self, role: Role, answerer: &Bytes32) -> Bytes32 {
        self.secret.prove(&self.message(role, answerer))
    }

    fn check(&self, role: Role, answerer: &Bytes32, proof: &[u8]) -> Result<(), ProofError> {
        if self.secret.is_proof(&self.message(role, answerer), proof) {
            return Ok(());
        }
        let whose = match role {
            Role::Answerer => "answering node",
            Role::Dialler => "connecting node",
        };
        Err(ProofError::Link { whose, cluster: self.cluster })
    }
}

/// The side that opened the connection.
#[derive(Debug)]
pub struct LinkDialler(Exchange);

impl LinkDialler {
    /// Begins with a fresh nonce. `hello` is what is sent in front of it, byte for byte.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(secret: Arc<ClusterSecret>, cluster: ClusterId, hello: &[u8]) -> Result<LinkDialler, ProofError> {
        Ok(LinkDialler(Exchange { secret, cluster, hello: hello.to_vec(), dialler: nonce()? }))
    }

    /// What is sent behind the hello.
    #[must_use]
    pub fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.0.dialler
    }

    /// Checks the answerer's proof and gives this side's, which is sent next.
    ///
    /// # Errors
    /// When the answerer has another secret, or is of another cluster.
    pub fn answer(self, challenge: &[u8; CHALLENGE_BYTES]) -> Result<[u8; PROOF_BYTES], ProofError> {
        let (answerer, proof) = challenge.split_first_chunk().expect("a nonce and a proof");
        self.0.check(Role::Answerer, answerer, proof)?;
        Ok(self.0.prove(Role::Dialler, answerer))
    }
}

/// The side that accepted the connection.
#[derive(Debug)]
pub struct LinkAnswerer {
    exchange: Exchange,
    answerer: Bytes32,
}

impl LinkAnswerer {
    /// Begins with a fresh nonce. `hello` and `dialler` are what came, byte for byte; `cluster` is this node's own.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        secret: Arc<ClusterSecret>,
        cluster: ClusterId,
        hello: &[u8],
        dialler: &[u8; NONCE_BYTES],
    ) -> Result<LinkAnswerer, ProofError> {
        let exchange = Exchange { secret, cluster, hello: hello.to_vec(), dialler: *dialler };
        Ok(LinkAnswerer { exchange, answerer: nonce()? })
    }

    /// What is sent: the nonce, and the proof of this side.
    #[must_use]
    pub fn challenge(&self) -> [u8; CHALLENGE_BYTES] {
        let mut out = [0; CHALLENGE_BYTES];
        out[..NONCE_BYTES].copy_from_slice(&self.answerer);
        out[NONCE_BYTES..].copy_from_slice(&self.exchange.prove(Role::Answerer, &self.answerer));
        out
    }

    /// Checks the dialler's proof: it may go on.
    ///
    /// # Errors
    /// When it has another secret, is of another cluster, or repeats what it overheard.
    pub fn accept(self, proof: &[u8; PROOF_BYTES]) -> Result<(), ProofError> {
        self.exchange.check(Role::Dialler, &self.answerer, proof)
    }
}

#[cfg(test)]
mod tests {
    use super::super::http_proof::to_hex;
    use super::*;
    use crate::types::Guid;

    const CLUSTER: ClusterId = ClusterId(Guid([7; 16]));
    const OTHER_CLUSTER: ClusterId = ClusterId(Guid([8; 16]));
    const HELLO: &[u8] = b"a hello, with all that it says";

    fn secret(byte: u8) -> Arc<ClusterSecret> {
        Arc::new(ClusterSecret::from_bytes(&[byte; 32]).unwrap())
    }

    fn dial(byte: u8, cluster: ClusterId) -> LinkDialler {
        LinkDialler::new(secret(byte), cluster, HELLO).unwrap()
    }

    fn answer(dialler: &LinkDialler, hello: &[u8]) -> LinkAnswerer {
        LinkAnswerer::new(secret(b'a'), CLUSTER, hello, &dialler.nonce()).unwrap()
    }

    #[test]
    fn two_nodes_of_a_cluster_prove_it_to_each_other() {
        let dialler = dial(b'a', CLUSTER);
        let answerer = answer(&dialler, HELLO);
        let proof = dialler.answer(&answerer.challenge()).unwrap();
        answerer.accept(&proof).unwrap();
    }

    #[test]
    fn the_bytes_are_as_they_were() {
        let (cluster, hello) = (CLUSTER, HELLO.to_vec());
        let exchange = Exchange { secret: secret(b'a'), cluster, hello, dialler: [1; 32] };
        let message = exchange.message(Role::Dialler, &[2; 32]);
        assert_eq!(&message[..24], b"ringstore link 1\x02\0\0\0\0\0\0\0");
        assert_eq!((&message[24..40], &message[40..72]), ([7; 16].as_slice(), [1; 32].as_slice()));
        assert_eq!((&message[72..104], &message[112..]), ([2; 32].as_slice(), HELLO));
        assert_eq!(message[104..112], [30, 0, 0, 0, 0, 0, 0, 0]);
        let check = |role, expected: &str| assert_eq!(to_hex(&exchange.prove(role, &[2; 32])), expected, "{role:?}");
        check(Role::Answerer, "8cbe22e62312457ca7bf2e80242d20ad1779a6e9c4e47e9d5ae346170c83292b");
        check(Role::Dialler, "e187f300b36d34213f4858678c3ae9c09dfdfa18f95f766c827f6fc3921b2f61");
    }

    #[test]
    fn another_secret_or_cluster_is_refused_by_both_sides() {
        for (byte, cluster) in [(b'b', CLUSTER), (b'a', OTHER_CLUSTER), (b'b', OTHER_CLUSTER)] {
            let dialler = dial(byte, cluster);
            let answerer = answer(&dialler, HELLO);
            let challenge = answerer.challenge();
            // A stranger that does not care for our proof and goes on.
            let stolen = dialler.0.prove(Role::Dialler, &answerer.answerer);
            let expected = ProofError::Link { whose: "answering node", cluster };
            assert_eq!(dialler.answer(&challenge), Err(expected));
            let error = answerer.accept(&stolen).unwrap_err();
            assert_eq!(error, ProofError::Link { whose: "connecting node", cluster: CLUSTER });
            let words = error.to_string();
            assert!(words.contains("ClusterSecretFile") && words.contains(&CLUSTER.to_string()), "{words}");
        }
    }

    #[test]
    fn a_recorded_handshake_is_worth_nothing() {
        let dialler = dial(b'a', CLUSTER);
        let (nonce, answerer) = (dialler.nonce(), answer(&dialler, HELLO));
        let recorded_challenge = answerer.challenge();
        let recorded_proof = dialler.answer(&recorded_challenge).unwrap();
        answerer.accept(&recorded_proof).unwrap();
        // The dialler's side again: the answerer's nonce is another one.
        let again = LinkAnswerer::new(secret(b'a'), CLUSTER, HELLO, &nonce).unwrap();
        assert_ne!(again.challenge(), recorded_challenge);
        assert!(again.accept(&recorded_proof).is_err());
        // The answerer's side again: the dialler's nonce is another one.
        assert!(dial(b'a', CLUSTER).answer(&recorded_challenge).is_err());
    }

    #[test]
    fn a_proof_sent_back_is_refused() {
        let dialler = dial(b'a', CLUSTER);
        let answerer = answer(&dialler, HELLO);
        let (_, own) = answerer.challenge().split_first_chunk::<32>().map(|(n, p)| (*n, p.to_vec())).unwrap();
        assert!(answerer.accept(&own.try_into().unwrap()).is_err(), "the answerer's own proof");
        // A dialler that gets a dialler's proof of the same nonces.
        let dialler = dial(b'a', CLUSTER);
        let mut challenge = [3; CHALLENGE_BYTES];
        challenge[NONCE_BYTES..].copy_from_slice(&dialler.0.prove(Role::Dialler, &[3; 32]));
        assert!(dialler.answer(&challenge).is_err(), "a proof of the other role");
    }

    #[test]
    fn a_changed_hello_is_refused_on_both_sides() {
        for at in 0..HELLO.len() {
            let mut changed = HELLO.to_vec();
            changed[at] ^= 1;
            let dialler = dial(b'a', CLUSTER);
            let answerer = answer(&dialler, &changed);
            let proof = dialler.0.prove(Role::Dialler, &answerer.answerer);
            assert!(dialler.answer(&answerer.challenge()).is_err(), "byte {at}");
            assert!(answerer.accept(&proof).is_err(), "byte {at}");
        }
        let dialler = dial(b'a', CLUSTER);
        let answerer = answer(&dialler, &[HELLO, b"more"].concat());
        assert!(dialler.answer(&answerer.challenge()).is_err());
    }

    #[test]
    fn any_changed_bit_of_a_proof_is_refused() {
        for bit in 0..256 {
            let dialler = dial(b'a', CLUSTER);
            let answerer = answer(&dialler, HELLO);
            let mut proof = dialler.answer(&answerer.challenge()).unwrap();
            proof[bit / 8] ^= 1 << (bit % 8);
            assert!(answerer.accept(&proof).is_err(), "bit {bit}");
        }
    }
}
