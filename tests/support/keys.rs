//! What the nodes of a test cluster know each other by: a secret, certificates, both, or nothing.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::cluster::command;

/// How an internal plane is closed; the default is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) secret: bool,
    pub(crate) tls: bool,
}

impl Lock {
    pub(crate) const SECRET: Lock = Lock { secret: true, tls: false };
    pub(crate) const TLS: Lock = Lock { secret: false, tls: true };

    /// Its name in result lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Lock { secret: false, tls: false } => "open",
            Lock { secret: true, tls: false } => "secret",
            Lock { secret: false, tls: true } => "tls",
            Lock { secret: true, tls: true } => "both",
        }
    }
}

/// The files of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) lock: Lock,
    folder: PathBuf,
}

impl Keys {
    /// Makes the files in a new folder `name` below `folder`; with certificates for nodes at these addresses.
    pub(crate) fn make(folder: &Path, name: &str, lock: Lock, addresses: &[Ipv4Addr]) -> anyhow::Result<Keys> {
        let keys = Keys { lock, folder: folder.join(name) };
        fs::create_dir_all(&keys.folder)?;
        if lock.secret {
            let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(keys.secret())?;
            let secret: String = (0..64).map(|_| fastrand::digit(16)).collect();
            writeln!(file, "{secret}")?;
        }
        if lock.tls {
            let mut command = command();
            command.arg("certificates").arg("--out").arg(&keys.folder);
            for address in addresses {
                command.arg("--node").arg(format!("{address}={address}"));
            }
            let output = command.output()?;
            ensure!(output.status.success(), "ringstore certificates: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(keys)
    }

    pub(crate) fn secret(&self) -> PathBuf {
        self.folder.join("secret")
    }

    /// The PEM files of a node: certificate, private key, authorities.
    pub(crate) fn certificate(&self, address: Ipv4Addr) -> [PathBuf; 3] {
        [format!("{address}.pem"), format!("{address}.key"), "ca.pem".to_owned()].map(|name| self.folder.join(name))
    }

    /// The same authority's certificate for another node.
    pub(crate) fn add(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        let mut command = command();
        command.arg("certificates").arg("--add").arg("--out").arg(&self.folder);
        let output = command.arg("--node").arg(format!("{address}={address}")).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ringstore certificates --add: {said}");
        Ok(())
    }

    /// The options of a node at this internal address.
    pub(crate) fn options(&self, address: Ipv4Addr) -> Vec<String> {
        let mut options = self.command_options(address);
        if self.lock.tls {
            options.push("--use-internal-ssl".to_owned());
        }
        if self.lock == Lock::default() && !address.is_loopback() {
            options.push("--unsafe-open-internal-plane".to_owned());
        }
        options
    }

    /// The options of a command that is run at this internal address.
    pub(crate) fn command_options(&self, address: Ipv4Addr) -> Vec<String> {
        let mut options = Vec::new();
        let mut add = |name: &str, path: PathBuf| options.extend([name.to_owned(), path.display().to_string()]);
        if self.lock.secret {
            add("--cluster-secret-file", self.secret());
        }
        if self.lock.tls {
            let [certificate, key, authorities] = self.certificate(address);
            add("--certificate-file", certificate);
            add("--certificate-private-key-file", key);
            add("--certificate-authority-file", authorities);
        }
        options
    }

    /// Keys of a stranger at `address`, in a new folder: signed by another authority, which it trusts as well as that of these
    /// keys.
    pub(crate) fn other_authority(&self, folder: &Path, address: Ipv4Addr) -> anyhow::Result<Keys> {
        let parent = folder.parent().context("a folder below another")?;
        let name = folder.file_name().and_then(|name| name.to_str()).context("a folder with a name")?;
        let keys = Keys::make(parent, name, self.lock, &[address])?;
        let ([_, _, own], [_, _, known]) = (keys.certificate(address), self.certificate(address));
        let both = fs::read_to_string(&own)? + &fs::read_to_string(known)?;
        fs::write(own, both)?;
        Ok(keys)
    }
}
