//! Somebody who speaks TLS and shows a certificate that nobody has signed but itself.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Greets a port, at which `authorities` are trusted; how it was refused.
///
/// # Errors
/// When it was not: something came back that is no refusal.
pub(crate) fn knock(to: SocketAddr, from: Ipv4Addr, authorities: &Path, limit: Duration) -> anyhow::Result<String> {
    let own = rcgen::generate_simple_self_signed(vec![from.to_string()])?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(|error| anyhow!("{error}"))?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(authorities).context("the authorities")? {
        roots.add(authority?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.cert.der().clone()], key)?;
    let connection = ClientConnection::new(Arc::new(config), ServerName::from(to.ip()))?;
    let socket = TcpStream::connect_timeout(&to, limit)?;
    socket.set_read_timeout(Some(limit))?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut answer = [0; 1024];
    let request =
        b"GET /admin/status HTTP/1.1\r\nHost: stranger\r\n\r\n                                                ";
    let result = stream.write_all(request).and_then(|()| stream.flush()).and_then(|()| stream.read(&mut answer));
    match result {
        Ok(0) => Ok("closed".to_owned()),
        Ok(count) => bail!("it was answered: {:?}", String::from_utf8_lossy(&answer[..count])),
        Err(error) => Ok(error.to_string()),
    }
}
