//! How many accepted connections may be there that have not proven who they are: no host takes the places of the others, and
//! hosts that nobody knows never take those of the cluster's nodes.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The bits of an IPv6 address that one host chooses itself.
const HOST_BITS: u32 = 64;

/// Most of [`ProvenHosts`]: a cluster has fewer.
const PROVEN_HOSTS_MAX: usize = 64;

/// A place among those who have not proven who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    host: IpAddr,
    is_known: bool,
}

impl Place {
    /// For a connection from this address. `is_known`: a node of the cluster lives there.
    #[must_use]
    pub fn of(address: IpAddr, is_known: bool) -> Place {
        let host = match address.to_canonical() {
            IpAddr::V6(address) if !is_known => Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into(),
            address => address,
        };
        Place { host, is_known }
    }
}

/// How long the place of one that failed stays taken: a handshake costs a signature, and whoever leaves behind it would have
/// the next one at once. With 16 places no host gets more than ten of them a second.
pub const FAILED_PLACE_PAUSE: Duration = Duration::from_millis(1600);

/// Hosts from which somebody has proven who it is: nodes do not always connect from the address that they tell others.
#[derive(Debug, Default)]
pub struct ProvenHosts {
    hosts: VecDeque<IpAddr>,
}

impl ProvenHosts {
    /// Somebody has, from there; the host that has for the longest time not done so is forgotten.
    pub fn note(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        self.hosts.retain(|host| *host != address);
        if self.hosts.len() == PROVEN_HOSTS_MAX {
            self.hosts.pop_front();
        }
        self.hosts.push_back(address);
    }

    /// Whether somebody has lately.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.hosts.contains(&address.to_canonical())
    }
}

/// How many places there are.
#[derive(Clone, Copy, Debug)]
pub struct PlaceLimits {
    /// Of all hosts where nodes of the cluster live.
    pub known: usize,
    /// Of one of them.
    pub known_of_host: usize,
    /// Of all others.
    pub strangers: usize,
    /// Of one of those.
    pub strangers_of_host: usize,
}

impl PlaceLimits {
    /// Whether there is room for one more beside those that are taken.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn check(&self, new: Place, taken: impl Iterator<Item = Place>) -> Result<(), usize> {
        let (mut all, mut of_host) = (0, 0);
        for place in taken {
            all += usize::from(place.is_known == new.is_known);
            of_host += usize::from(place == new);
        }
        let (all_max, of_host_max) =
            if new.is_known { (self.known, self.known_of_host) } else { (self.strangers, self.strangers_of_host) };
        match () {
            () if of_host >= of_host_max => Err(of_host_max),
            () if all >= all_max => Err(all_max),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PlaceLimits = PlaceLimits { known: 32, known_of_host: 8, strangers: 12, strangers_of_host: 4 };

    fn place(address: &str, is_known: bool) -> Place {
        Place::of(address.parse().unwrap(), is_known)
    }

    #[test]
    fn no_host_takes_the_places_of_others_and_strangers_not_those_of_nodes() {
        let check = |new, taken: &[Place]| LIMITS.check(new, taken.iter().copied());
        let one = place("10.0.0.1", false);
        assert_eq!(check(one, &[one; 3]), Ok(()));
        assert_eq!(check(one, &[one; 4]), Err(4));
        assert_eq!(check(place("::ffff:10.0.0.1", false), &[one; 4]), Err(4));
        assert_eq!(check(place("10.0.0.2", false), &[one; 4]), Ok(()));
        let all: Vec<_> = (0..12).map(|host| Place::of(IpAddr::from([10, 0, 1, host]), false)).collect();
        assert_eq!(check(one, &all), Err(12));
        assert_eq!(check(place("10.0.0.1", true), &all), Ok(()));
        // A node that goes mad is in nobody's way but its own.
        let mad = place("10.0.0.3", true);
        assert_eq!(check(mad, &[mad; 8]), Err(8));
        assert_eq!(check(place("10.0.0.1", true), &[mad; 8]), Ok(()));
        assert_eq!(check(one, &[mad; 8]), Ok(()));
    }

    #[test]
    fn hosts_that_have_proven_who_they_are_are_remembered_up_to_a_limit() {
        let host = |number: u8| IpAddr::from([10, 0, 0, number]);
        let mut proven = ProvenHosts::default();
        proven.note("::ffff:10.0.0.1".parse().unwrap());
        assert!(proven.has(host(1)) && !proven.has(host(2)));
        (2..=64).for_each(|number| proven.note(host(number)));
        proven.note(host(1));
        proven.note(host(65));
        assert!(proven.has(host(1)) && !proven.has(host(2)) && proven.has(host(65)));
        assert_eq!(proven.hosts.len(), PROVEN_HOSTS_MAX);
    }

    #[test]
    fn all_addresses_that_one_host_chooses_are_one() {
        assert_eq!(place("2001:db8::1", false), place("2001:db8::ffff:1", false));
        assert_ne!(place("2001:db8::1", false), place("2001:db8:0:1::1", false));
        assert_ne!(place("2001:db8::1", true), place("2001:db8::2", true));
    }
}
