//! Limits of the process that a server raises for itself: to what it may have, without asking anybody.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is raised: connections and chunk files are open files, and a ring and what is registered with it locked memory. The
/// usual soft limits of both are not meant for servers.
const RAISED: [(Resource, &str); 2] = [(Resource::Nofile, "open files"), (Resource::Memlock, "locked memory")];

/// A limit that stays as it was.
#[derive(Debug)]
pub struct NotRaised {
    /// Of what.
    pub what: &'static str,
    /// The limit; `None` is unlimited.
    pub limit: Option<u64>,
    /// Why it stays.
    pub error: io::Error,
}

/// Raises the soft limits of open files and of locked memory to the hard ones; answers those that stay below.
#[must_use]
pub fn raise_limits() -> Vec<NotRaised> {
    let raise = |(resource, what): (Resource, &'static str)| {
        let found = getrlimit(resource);
        if found.current == found.maximum {
            return None;
        }
        let error = setrlimit(resource, Rlimit { current: found.maximum, maximum: found.maximum }).err()?;
        Some(NotRaised { what, limit: found.current, error: error.into() })
    };
    RAISED.into_iter().filter_map(raise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limits_become_the_hard_ones() {
        for (resource, what) in RAISED {
            let before = getrlimit(resource);
            // Lower by something that no other test of this process can notice.
            let lower = before.maximum.map_or(Some(1 << 40), |maximum| maximum.checked_sub(1));
            setrlimit(resource, Rlimit { current: lower, maximum: before.maximum }).unwrap();
            let left = raise_limits();
            assert!(left.iter().all(|left| left.what != what), "{left:?}");
            assert_eq!(getrlimit(resource).current, before.maximum, "{what}");
        }
    }
}
