//! What a caller does with the proofs of a closed plane, whichever way its bytes travel.

use super::error::HttpError;
use crate::security::{HttpCaller, HttpOpening, PROOF_HEADER};

/// The answer to a challenge is short.
pub(super) const CHALLENGE_BYTES_MAX: usize = 4 << 10;

/// Characters of a refusal that are shown.
const WORDS_MAX: usize = 400;

/// The name of the header as received headers have it.
pub(super) const PROOF_KEY: &str = "ring-proof";

/// The line of a request that carries its proof; none where nothing is proven.
pub(super) fn proof_line(caller: Option<&mut HttpCaller>, method: &str, target: &str, body: &[u8]) -> String {
    caller.map_or_else(String::new, |caller| format!("{PROOF_HEADER}: {}\r\n", caller.sign(method, target, body)))
}

/// Takes the answer to the challenge.
///
/// # Errors
/// When the peer has another secret, or none.
pub(super) fn finish(opening: HttpOpening, status: u16, body: &[u8]) -> Result<HttpCaller, HttpError> {
    if status == 200 {
        return Ok(opening.finish(body)?);
    }
    let expected = "expected an answer to GET /challenge, because this side has a ClusterSecretFile: the peer needs the same, \
                    or none on either";
    Err(HttpError::Refused { expected, status, words: words(body) })
}

/// Checks an answer before anything of it is believed.
///
/// # Errors
/// When it is not proven. A refusal is told with its words, which are not proven, either.
pub(super) fn check(
    caller: Option<&HttpCaller>,
    status: u16,
    proof: Option<&str>,
    body: &[u8],
) -> Result<(), HttpError> {
    let Some(caller) = caller else { return Ok(()) };
    if proof.is_none() && status >= 400 {
        let expected = "expected an answer that is proven with the secret of the cluster (ClusterSecretFile)";
        return Err(HttpError::Refused { expected, status, words: words(body) });
    }
    Ok(caller.check(status, body, proof)?)
}

/// What a peer says, fit for a log line: it may be anybody.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * WORDS_MAX)]);
    let clean: String = text.trim().chars().map(|char| if char.is_control() { '?' } else { char }).collect();
    if clean.chars().count() <= WORDS_MAX {
        clean
    } else {
        clean.chars().take(WORDS_MAX).chain("…".chars()).collect()
    }
}
