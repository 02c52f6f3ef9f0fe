//! Tells the operator in time that certificates end, and again and again that a plane is open which should not be.
//!
//! From 30 days before the end of a certificate on it says so once a day, after its end once an hour; for an internal plane
//! that is open to a network by `UnsafeOpenInternalPlane` once an hour. It changes nothing: certificates are read again on
//! SIGHUP, and what it says follows what is in use then.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Chore, Next};
use crate::security::{Expiry, ExternalTrust, Trust};
use crate::types::WallTime;

/// Between two lines about a certificate that ends soon.
const SOON_INTERVAL: Duration = Duration::from_secs(86_400);

/// Between two lines about one that has ended, or an open plane.
const NOW_INTERVAL: Duration = Duration::from_secs(3600);

/// Between two looks: a certificate may be exchanged, and the wall clock be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// What is looked after.
#[derive(Clone, Debug, Default)]
pub struct ExpiryWatchLinks {
    /// Certificates between the nodes.
    pub internal: Option<Arc<Trust>>,
    /// What clients are shown.
    pub external: Option<Arc<ExternalTrust>>,
    /// `IntIp`, where the plane is open to a network because an option says so.
    pub open_at: Option<IpAddr>,
}

/// See the module.
#[derive(Debug)]
pub struct ExpiryWatch {
    links: ExpiryWatchLinks,
    said: [Option<Instant>; 2],
    open_due: Option<Instant>,
}

impl ExpiryWatch {
    /// A watch that has said nothing yet.
    #[must_use]
    pub fn new(links: ExpiryWatchLinks) -> ExpiryWatch {
        ExpiryWatch { links, said: [None; 2], open_due: None }
    }

    /// What is to be said at this time.
    fn lines(&mut self, now: Instant, wall: WallTime) -> Vec<String> {
        let internal = self.links.internal.as_ref().map(|trust| trust.expiry());
        let external = self.links.external.as_ref().map(|trust| trust.expiry());
        let mut lines = Vec::new();
        for (expiry, said) in [internal, external].into_iter().zip(&mut self.said) {
            lines.extend(expiry.and_then(|expiry| about(&expiry, said, now, wall)));
        }
        if let Some(address) = self.links.open_at {
            // The start has said it already.
            let due = *self.open_due.get_or_insert(now + NOW_INTERVAL);
            if due <= now {
                self.open_due = Some(now + NOW_INTERVAL);
                lines.push(format!(
                    "UnsafeOpenInternalPlane is true and IntIp is {address}: whoever reaches it can read and change \
                     everything; use UseInternalSsl or ClusterSecretFile"
                ));
            }
        }
        lines
    }
}

/// The line about one certificate, when it is time for one.
fn about(expiry: &Expiry, said: &mut Option<Instant>, now: Instant, wall: WallTime) -> Option<String> {
    let Some(words) = expiry.warning(wall) else {
        *said = None;
        return None;
    };
    let interval = if wall > expiry.not_after { NOW_INTERVAL } else { SOON_INTERVAL };
    let is_due = said.is_none_or(|said| now.duration_since(said) >= interval);
    is_due.then(|| {
        *said = Some(now);
        words
    })
}

impl Chore for ExpiryWatch {
    fn name(&self) -> &'static str {
        "expiry watch"
    }

    fn step(&mut self, now: Instant) -> Next {
        for line in self.lines(now, WallTime::from_system(SystemTime::now())) {
            tracing::warn!("{line}");
        }
        Next::After(LOOK_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::security::Validity;
    use crate::security::testing::{DAY, TestCluster};

    fn validity(days: u32) -> Validity {
        let now = SystemTime::now();
        Validity { from: now - DAY, until: now + DAY * days }
    }

    fn wall(days: u32) -> WallTime {
        WallTime::from_system(SystemTime::now() + DAY * days)
    }

    #[test]
    fn an_end_that_is_near_is_said_once_a_day_until_it_is_renewed() {
        let cluster = TestCluster::new();
        let files = cluster.files("node", &cluster.issue(&["127.0.0.1"], validity(40)));
        let internal = Arc::new(Trust::load(files.clone(), None).unwrap());
        let external = Arc::new(ExternalTrust::load(files.certificate.clone(), files.key.clone()).unwrap());
        let links = ExpiryWatchLinks { internal: Some(internal.clone()), external: Some(external), open_at: None };
        let mut watch = ExpiryWatch::new(links);
        let start = Instant::now();
        let mut lines = |hours: u32, days: u32| watch.lines(start + NOW_INTERVAL * hours, wall(days));
        assert_eq!(lines(0, 1), Vec::<String>::new(), "39 days are left");
        let said = lines(1, 11);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("node.pem") && said[0].contains("SIGHUP"), "{said:?}");
        assert_eq!(lines(2, 11).len(), 0, "once a day");
        assert_eq!(lines(24, 12).len(), 0);
        assert_eq!(lines(25, 12).len(), 2);
        let said = lines(49, 41);
        assert!(said[0].contains("expired at"), "{said:?}");
        assert_eq!((lines(49, 41).len(), lines(50, 41).len()), (0, 2), "once an hour");
        let renewed = cluster.issue(&["127.0.0.1"], validity(100));
        fs::write(&files.certificate, &renewed.certificate).unwrap();
        fs::write(&files.key, &renewed.key).unwrap();
        internal.reload().unwrap();
        assert_eq!(lines(60, 41).len(), 1, "the external one was not read again");
    }

    #[test]
    fn an_open_plane_is_said_each_hour() {
        let mut watch =
            ExpiryWatch::new(ExpiryWatchLinks { open_at: Some(IpAddr::from([10, 0, 0, 1])), ..Default::default() });
        let start = Instant::now();
        let mut lines = |minutes: u32| watch.lines(start + Duration::from_secs(60) * minutes, wall(0));
        assert_eq!((lines(0).len(), lines(59).len()), (0, 0), "the start has said it");
        assert!(lines(60)[0].contains("UnsafeOpenInternalPlane") && lines(61).is_empty());
        assert_eq!(lines(121).len(), 1);
    }
}
