//! How a connection that forwards begins where the internal plane is closed: TLS, then proofs of the cluster's secret. The
//! other side is the log thread of the leader.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRentExt};
use monoio::net::TcpStream;

use crate::codec::link::{HELLO_BYTES, Hello, LinkError, WELCOME_BYTES, Welcome};
use crate::http::{SecureError, SecureStream};
use crate::security::{CHALLENGE_BYTES, LinkDialler, Plane, ProofError, TlsError};

/// How long all of it may take: with the connect less than a forwarded request waits.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection to the leader. Another attempt makes sense; with most of these after something was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side is not who it must be, or does not speak TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The other side does not have the secret, or this side cannot prove it.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The own greeting, which this side made.
    #[error("the greeting of this node: {0}")]
    Hello(#[from] LinkError),
    /// In its words.
    #[error("refused: {0}")]
    Refused(String),
    /// It welcomes whoever comes.
    #[error(
        "expected a proof that it has the secret of the cluster (ClusterSecretFile), found a welcome without one: it is an \
         older release, or not of this cluster; it is not believed"
    )]
    Unproven,
    /// Nothing, or too little, came.
    #[error("the greeting took longer than {GREETING_TIMEOUT:?}: the other side is busy, or says nothing")]
    Late,
}

impl From<SecureError> for GreetingError {
    fn from(error: SecureError) -> GreetingError {
        match error {
            SecureError::Tls(error) => GreetingError::Tls(error),
            SecureError::Io(error) => GreetingError::Io(error),
        }
    }
}

/// Makes the connection one that the leader's edge serves. With a secret `hello` is said here; without one it is the first
/// of what the caller sends. The caller bounds the time.
pub(super) async fn greet(
    stream: TcpStream,
    plane: &Plane,
    leader: SocketAddr,
    hello: &[u8],
) -> Result<SecureStream, GreetingError> {
    let mut stream = SecureStream::establish(stream, plane.dialled(leader.ip())?).await?;
    let Some(secret) = plane.secret() else { return Ok(stream) };
    let cluster = own(hello)?.cluster;
    let dialler = LinkDialler::new(secret.clone(), cluster, hello)?;
    stream.write_all([hello, &dialler.nonce()[..]].concat()).await.0?;
    let beginning: [u8; WELCOME_BYTES] = read(&mut stream, WELCOME_BYTES).await?.try_into().expect("read in full");
    match Welcome::decode(&beginning) {
        Ok(Welcome::Refused { reason_bytes }) => {
            let reason = read(&mut stream, reason_bytes).await?;
            return Err(GreetingError::Refused(String::from_utf8_lossy(&reason).into_owned()));
        }
        Ok(Welcome::Accepted) => return Err(GreetingError::Unproven),
        // A challenge begins with a nonce, which looks like nothing.
        Err(_) => {}
    }
    let rest = read(&mut stream, CHALLENGE_BYTES - WELCOME_BYTES).await?;
    let challenge = [&beginning[..], &rest].concat().try_into().expect("both parts");
    stream.write_all(dialler.answer(&challenge)?.to_vec()).await.0?;
    Ok(stream)
}

fn own(hello: &[u8]) -> Result<Hello, LinkError> {
    let bytes: &[u8; HELLO_BYTES] = hello.try_into().map_err(|_| LinkError::Length {
        what: "greeting",
        length: hello.len(),
        min: HELLO_BYTES,
        max: HELLO_BYTES,
    })?;
    Hello::decode(bytes)
}

/// Exactly so many bytes. With TLS its error says what is wrong.
async fn read<S: AsyncReadRent>(stream: &mut S, count: usize) -> Result<Vec<u8>, GreetingError> {
    let (result, bytes) = stream.read_exact(vec![0; count]).await;
    match result {
        Ok(_) => Ok(bytes),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<TlsError>()) => {
            Err(GreetingError::Tls(error.downcast::<TlsError>().expect("looked at")))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(GreetingError::Refused("it closed the connection; its log says more".to_owned()))
        }
        Err(error) => Err(GreetingError::Io(error)),
    }
}
