//! What the two planes are closed with, as one value: loaded before anything is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::config::Config;
use crate::security::{Expiry, ExternalTrust, Plane};

use super::NodeError;

/// Certificates and secrets of this node. Cheap to clone; clones see what was read again.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// How the internal plane is closed.
    pub(super) plane: Plane,
    /// What clients are shown at the ports with TLS; `None` when there are none.
    pub(super) external: Option<Arc<ExternalTrust>>,
}

impl Keys {
    /// Reads the files that the options name, and says how the internal plane is closed.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(super) fn load(config: &Config) -> Result<Keys, NodeError> {
        let plane = Plane::load_for(&config.security.internal, Some(config.advertised().int_tcp.ip()))?;
        let external = config.security.external.clone();
        let external = external.map(|(certificate, key)| ExternalTrust::load(certificate, key)).transpose()?;
        let keys = Keys { plane, external: external.map(Arc::new) };
        tracing::info!("the internal plane is {}", keys.plane.words());
        keys.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(keys)
    }

    /// Reads the certificates again. Links that stand stay; what cannot be used leaves in use what was. The secret stays:
    /// nodes with two different ones would refuse each other until the last has read it.
    pub(super) fn reload(&self) {
        let internal = self.plane.trust().map(|trust| ("internal", trust.reload()));
        let external = self.external.as_ref().map(|trust| ("external", trust.reload()));
        let outcomes: Vec<_> = internal.into_iter().chain(external).collect();
        if outcomes.is_empty() {
            tracing::info!("SIGHUP: there are no certificates to read again");
        }
        for (plane, outcome) in outcomes {
            match outcome {
                Ok(Expiry { not_after, file, names }) => tracing::info!(
                    "SIGHUP: the certificate of the {plane} plane was read again: {} ({names}); it and what it needs is valid \
                     until {not_after}. New connections take it, those that stand stay",
                    file.display()
                ),
                Err(error) => tracing::error!(
                    "SIGHUP: the new certificate of the {plane} plane cannot be used, so the old one stays in use: {error}"
                ),
            }
        }
        self.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        if self.plane.secret().is_some() {
            tracing::info!("SIGHUP: the cluster's secret stays as it is until a restart");
        }
    }

    /// What the operator should know of the files.
    fn warnings(&self) -> Vec<String> {
        let external = self.external.as_ref().map(|trust| trust.warnings());
        self.plane.warnings().into_iter().chain(external.unwrap_or_default()).collect()
    }
}

/// Reads certificates again on a thread of its own: their disk may not answer, and whoever asks has more to hear than that.
#[derive(Debug, Default)]
pub(super) struct Reloader {
    /// How many were asked for since the thread is there; none: it is not.
    asked: Arc<AtomicU64>,
}

impl Reloader {
    pub(super) fn start(&self, keys: &Keys) {
        if self.asked.fetch_add(1, Ordering::SeqCst) > 0 {
            tracing::warn!(
                "SIGHUP: the certificates are still being read since the last one, and will be once more then"
            );
            return;
        }
        let (keys, asked) = (keys.clone(), Arc::clone(&self.asked));
        // What was asked for while the files were read may be about newer ones.
        let reload = move || {
            loop {
                let answered = asked.load(Ordering::SeqCst);
                keys.reload();
                if asked.compare_exchange(answered, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    break;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("certificates".to_owned()).spawn(reload) {
            self.asked.store(0, Ordering::SeqCst);
            tracing::error!("SIGHUP: the certificates cannot be read again, as there is no thread for it: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    use rustix::io::Errno;

    use super::*;
    use crate::security::testing::{DAY, TestCluster, today};
    use crate::security::{ClusterSecret, Trust, Validity};

    #[test]
    fn what_is_read_again_is_used_when_it_can_be() {
        let cluster = TestCluster::new();
        let files = cluster.files("node", &cluster.issue(&["127.0.0.1", "first"], today()));
        let trust = Arc::new(Trust::load(files.clone(), None).unwrap());
        let secret = Arc::new(ClusterSecret::from_bytes(&[b'x'; 32]).unwrap());
        let external = Arc::new(ExternalTrust::load(files.certificate.clone(), files.key.clone()).unwrap());
        let keys = Keys { plane: Plane::new(Some(secret), Some(trust.clone())), external: Some(external.clone()) };
        // The clones that the threads have see it.
        let (standing, seen) = (trust.current(), keys.clone());
        let names = || {
            let internal = seen.plane.trust().unwrap().expiry();
            (internal.names.names[1].clone(), seen.external.as_ref().unwrap().expiry().names.names[1].clone())
        };
        let both = |name: &str| (name.to_owned(), name.to_owned());
        assert_eq!(names(), both("first"));
        cluster.files("node", &cluster.issue(&["127.0.0.1", "second"], today()));
        keys.reload();
        assert_eq!(names(), both("second"));
        assert_eq!(standing.names().names[1], "first", "who has the old ones keeps them");

        fs::write(&files.certificate, "nonsense").unwrap();
        keys.reload();
        assert_eq!(names(), both("second"), "nonsense");
        cluster.files("node", &cluster.issue(&["127.0.0.1", "third"], today()));
        fs::write(&files.key, cluster.issue(&["127.0.0.1"], today()).key).unwrap();
        keys.reload();
        assert_eq!(names(), both("second"), "a key of another certificate");
        fs::remove_file(&files.certificate).unwrap();
        keys.reload();
        assert_eq!(names(), both("second"), "gone");
        let now = std::time::SystemTime::now();
        let over = Validity { from: now - 10 * DAY, until: now - DAY };
        cluster.files("node", &cluster.issue(&["127.0.0.1", "fourth"], over));
        keys.reload();
        assert_eq!(names().0, "second", "its time is over");
        // Somebody has copied another node's pair.
        let own = Some("127.0.0.1".parse().unwrap());
        cluster.files("node", &cluster.issue(&["127.0.0.1", "fifth"], today()));
        let trust = Arc::new(Trust::load_for(files.clone(), None, own).unwrap());
        let keys = Keys { plane: Plane::Tls(trust.clone()), external: None };
        cluster.files("node", &cluster.issue(&["10.9.9.9"], today()));
        keys.reload();
        assert_eq!(trust.expiry().names.names[1], "fifth", "no peer would take the other");
        let error = Trust::load_for(files.clone(), None, own).unwrap_err().to_string();
        assert!(["10.9.9.9", "others ask for 127.0.0.1", "IntIp"].iter().all(|word| error.contains(word)), "{error}");
        assert!(Trust::load_for(files.clone(), Some("10.9.9.9"), own).is_ok(), "all nodes have one");
        assert!(Trust::load_for(files, None, Some("0.0.0.0".parse().unwrap())).is_ok(), "it is not known");
        // Nothing at all to read again is fine, too.
        Keys::default().reload();
    }
    /// The writing end of a pipe, once somebody opens the other one.
    fn opened_by_reader(pipe: &Path) -> File {
        let start = Instant::now();
        loop {
            match open(pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
                Ok(file) => return file.into(),
                Err(error) => assert!(error == Errno::NXIO && start.elapsed() < Duration::from_secs(60), "{error}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_asks_does_not_wait_for_the_files() {
        let cluster = TestCluster::new();
        let files = cluster.files("node", &cluster.issue(&["127.0.0.1", "first"], today()));
        let trust = Arc::new(Trust::load(files.clone(), None).unwrap());
        let (keys, reloader) = (Keys { plane: Plane::Tls(trust.clone()), external: None }, Reloader::default());
        // Nobody writes: whoever opens it waits.
        fs::remove_file(&files.certificate).unwrap();
        mknodat(CWD, &files.certificate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        reloader.start(&keys);
        assert_eq!(reloader.asked.load(Ordering::SeqCst), 1);
        let until_idle = || {
            let start = Instant::now();
            while reloader.asked.load(Ordering::SeqCst) > 0 {
                assert!(start.elapsed() < Duration::from_secs(60));
                thread::sleep(Duration::from_millis(1));
            }
        };
        let mut writer = opened_by_reader(&files.certificate);
        // It is asked again for newer files while it waits for the old one.
        fs::remove_file(&files.certificate).unwrap();
        cluster.files("node", &cluster.issue(&["127.0.0.1", "second"], today()));
        reloader.start(&keys);
        writer.write_all(b"nonsense").unwrap();
        drop(writer);
        until_idle();
        assert_eq!(trust.expiry().names.names[1], "second");
        fs::write(&files.certificate, "nonsense").unwrap();
        reloader.start(&keys);
        until_idle();
        assert_eq!(trust.expiry().names.names[1], "second");
    }
}
