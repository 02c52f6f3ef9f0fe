//! The options about who may speak: what they mean together, and what is missing.

use std::path::PathBuf;

use crate::config::check::Checked;
use crate::config::error::ConfigError;
use crate::config::settings::Security;
use crate::config::values::Values;
use crate::security::{IdentityFiles, PlaneFiles};

/// The default of `SslTargetHost` in v5, which stands for "none".
const TARGET_HOST_OF_V5: &str = "n/a";

/// The port that replication and forwarding use: with TLS there may be another one.
pub(super) fn int_tcp_port(values: Values<'_>) -> Result<u16, ConfigError> {
    values.port(int_tcp_option(values, "IntSecureTcpPort", "IntTcpPort")?)
}

/// The option that tells others another port than [`int_tcp_port`].
pub(super) fn int_tcp_port_advertised(values: Values<'_>) -> Result<&'static str, ConfigError> {
    int_tcp_option(values, "IntSecureTcpPortAdvertiseAs", "IntTcpPortAdvertiseAs")
}

fn int_tcp_option(values: Values<'_>, secure: &'static str, plain: &'static str) -> Result<&'static str, ConfigError> {
    let is_secure = values.switch("UseInternalSsl")? && values.port("IntSecureTcpPort")? != 0;
    Ok(if is_secure { secure } else { plain })
}

/// Reads the options; what one needs of another is an error here.
pub(super) fn read(values: Values<'_>) -> Result<Security, ConfigError> {
    let port = |name| values.port(name).map(|port| Some(port).filter(|port| *port != 0));
    let target_host = Some(values.text("SslTargetHost")).filter(|name| !name.is_empty() && *name != TARGET_HOST_OF_V5);
    let is_internal = values.switch("UseInternalSsl")?;
    let identity = is_internal.then(|| identity(values)).transpose()?;
    let security = Security {
        internal: PlaneFiles {
            identity,
            target_host: target_host.map(str::to_owned),
            secret: values.optional_path("ClusterSecretFile")?,
        },
        is_open_by_intent: values.switch("UnsafeOpenInternalPlane")?,
        external: None,
        int_tcp_port: values.port("IntSecureTcpPort")?,
        ext_tcp_port: port("ExtSecureTcpPort")?,
        ext_http_port: port("ExtSecureHttpPort")?,
        is_plain_tcp_off: values.switch("DisableInsecureTCP")?,
    };
    if security.is_plain_tcp_off && security.ext_tcp_port.is_none() {
        return Err(missing(values, "DisableInsecureTCP", "ExtSecureTcpPort"));
    }
    Ok(Security { external: external(values, &security)?, ..security })
}

fn identity(values: Values<'_>) -> Result<IdentityFiles, ConfigError> {
    Ok(IdentityFiles {
        certificate: needed(values, "UseInternalSsl", "CertificateFile")?,
        key: needed(values, "UseInternalSsl", "CertificatePrivateKeyFile")?,
        authorities: needed(values, "UseInternalSsl", "CertificateAuthorityFile")?,
    })
}

fn external(values: Values<'_>, security: &Security) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let option = match (security.ext_tcp_port, security.ext_http_port) {
        (Some(_), _) => "ExtSecureTcpPort",
        (None, Some(_)) => "ExtSecureHttpPort",
        (None, None) => return Ok(None),
    };
    let certificate = needed(values, option, "CertificateFile")?;
    Ok(Some((certificate, needed(values, option, "CertificatePrivateKeyFile")?)))
}

/// The path in `name`, which `option` cannot do without.
fn needed(values: Values<'_>, option: &'static str, name: &'static str) -> Result<PathBuf, ConfigError> {
    values.optional_path(name)?.ok_or_else(|| missing(values, option, name))
}

fn missing(values: Values<'_>, option: &'static str, needs: &'static str) -> ConfigError {
    ConfigError::Needs { option, value: values.text(option).to_owned(), origin: values.origin(option), needs }
}

/// Nobody opens the internal plane to a network by accident.
pub(super) fn check(values: Values<'_>, checked: &mut Checked) -> Result<(), ConfigError> {
    let config = &checked.config;
    if config.is_internal_closed() || config.int_ip.to_canonical().is_loopback() {
        return Ok(());
    }
    if !config.security.is_open_by_intent {
        return Err(ConfigError::OpenPlane { address: config.int_ip, origin: values.origin("IntIp") });
    }
    checked.warnings.push(format!(
        "UnsafeOpenInternalPlane is true and IntIp is {}: whoever reaches it can read and change everything; use \
         UseInternalSsl or ClusterSecretFile",
        config.int_ip
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{Outcome, load};

    fn outcome(arguments: &str) -> Result<(Security, u16, Vec<String>), String> {
        let none: [(OsString, OsString); 0] = [];
        let words = arguments.split_whitespace().map(OsString::from);
        match load(words, none, |_| Err(std::io::ErrorKind::NotFound.into())).map_err(|error| error.to_string())? {
            Outcome::Run(loaded) => Ok((loaded.config.security, loaded.config.int_tcp_port, loaded.warnings)),
            Outcome::Help(_) | Outcome::Version(_) => unreachable!("not asked for"),
        }
    }

    #[test]
    fn an_open_plane_beyond_loopback_is_refused_unless_it_is_meant() {
        for closed in ["", "--int-ip ::1", "--int-ip 10.0.0.1 --cluster-secret-file /s"] {
            assert_eq!(outcome(closed).unwrap().2, Vec::<String>::new(), "{closed}");
        }
        for address in ["10.0.0.1", "0.0.0.0", "::", "fe80::1"] {
            let error = outcome(&format!("--int-ip {address}")).unwrap_err();
            for part in [address, "UseInternalSsl", "ClusterSecretFile", "UnsafeOpenInternalPlane", "command line"] {
                assert!(error.contains(part), "{error}");
            }
        }
        let warnings = outcome("--int-ip 10.0.0.1 --unsafe-open-internal-plane").unwrap().2;
        assert!(warnings[0].contains("UnsafeOpenInternalPlane") && warnings.len() == 1, "{warnings:?}");
    }

    #[test]
    fn what_tls_needs_is_named() {
        const FILES: &str = "--certificate-file /c --certificate-private-key-file /k";
        for (arguments, needs) in [
            ("--use-internal-ssl", "CertificateFile"),
            ("--use-internal-ssl --certificate-file /c", "CertificatePrivateKeyFile"),
            (&format!("--use-internal-ssl {FILES}"), "CertificateAuthorityFile"),
            ("--ext-secure-tcp-port 1116", "CertificateFile"),
            ("--ext-secure-http-port 1116 --certificate-file /c", "CertificatePrivateKeyFile"),
            ("--disable-insecure-tcp", "ExtSecureTcpPort"),
        ] {
            let error = outcome(arguments).unwrap_err();
            let option = arguments.split_whitespace().next().unwrap().trim_start_matches("--").replace('-', "");
            assert!(error.contains(&format!("needs {needs}")), "{error}");
            assert!(error.to_ascii_lowercase().starts_with(&option), "{error}");
        }
        let (security, port, _) = outcome(&format!(
            "--use-internal-ssl {FILES} --certificate-authority-file /a --int-secure-tcp-port 1115 --ext-secure-tcp-port 9"
        ))
        .unwrap();
        let files = security.internal.identity.unwrap();
        assert_eq!((files.certificate, files.key), security.external.unwrap());
        assert_eq!((port, security.ext_tcp_port, security.ext_http_port), (1115, Some(9), None));
        assert_eq!(security.internal.target_host, None);
        let (_, port, warnings) = outcome(&format!("--int-secure-tcp-port 1115 {FILES}")).unwrap();
        assert_eq!((port, warnings.len()), (1112, 2), "without UseInternalSsl: {warnings:?}");
    }
}
