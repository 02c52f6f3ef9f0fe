//! Certificates for tests, of this module and of those that use it: an authority, nodes, and strangers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::authority::{Authority, Issued, Validity};
use super::identity::IdentityFiles;
use super::trust::Trust;

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A folder that goes with its owner, and an authority.
#[derive(Debug)]
pub(crate) struct TestCluster {
    folder: PathBuf,
    pub(crate) authority: Authority,
}

/// Valid today.
pub(crate) fn today() -> Validity {
    Validity::days(SystemTime::now(), 365)
}

/// It was valid until yesterday.
pub(crate) fn past() -> Validity {
    let now = SystemTime::now();
    Validity { from: now - 10 * DAY, until: now - DAY }
}

/// It is valid from tomorrow on.
pub(crate) fn future() -> Validity {
    let now = SystemTime::now();
    Validity { from: now + DAY, until: now + 10 * DAY }
}

impl TestCluster {
    pub(crate) fn new() -> TestCluster {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ringstore-security-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        TestCluster { folder, authority: Authority::new("test authority", today()).unwrap() }
    }

    /// A certificate of the cluster's authority for these names.
    pub(crate) fn issue(&self, names: &[&str], validity: Validity) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.authority.issue("node", &names, validity).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file that its owner alone can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    }

    /// Writes a certificate, its key, and the authority; `name` begins the files' names.
    pub(crate) fn files(&self, name: &str, issued: &Issued) -> IdentityFiles {
        IdentityFiles {
            certificate: self.write(&format!("{name}.pem"), &issued.certificate),
            key: self.write(&format!("{name}.key"), &issued.key),
            authorities: self.write("ca.pem", &self.authority.own().certificate),
        }
    }

    /// What a node with these names and addresses has.
    pub(crate) fn trust(&self, names: &[&str]) -> Arc<Trust> {
        let files = self.files(&names.join("-").replace(':', "_"), &self.issue(names, today()));
        Arc::new(Trust::load(files, None).unwrap())
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
