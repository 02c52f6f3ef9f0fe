//! Kernel parameters that matter to a node, what they should be at least, and why.

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub struct Sysctl {
    /// Its name.
    pub name: &'static str,
    /// Its file below the root.
    pub path: &'static str,
    /// What it should be.
    pub wish: Wish,
    /// Why.
    pub reason: &'static str,
}

/// What a parameter should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This or more.
    AtLeast(u64),
    /// The last of three numbers: this or more.
    ThirdAtLeast(u64),
    /// Just this.
    Exactly(u64),
}

/// A link at 10 Gbit/s with a round trip of some milliseconds, or the window of a follower
/// (`limits::REPLICATION_WINDOW_BYTES`), whichever is more.
const SOCKET_BUFFER_BYTES: u64 = 16 << 20;

const _: () = assert!(SOCKET_BUFFER_BYTES >= crate::limits::REPLICATION_WINDOW_BYTES);
// The words of somaxconn say so.
const _: () = assert!(crate::limits::EDGE_BACKLOG == 1024);

/// All that are looked at. Not among them, because they would change nothing: `net.core.rmem_max` and `wmem_max` (the node asks
/// for no buffer sizes but leaves them to the kernel), and `tcp_max_syn_backlog` (without effect while SYN cookies are on).
pub const SYSCTLS: [Sysctl; 5] = [
    Sysctl {
        name: "net.ipv4.tcp_rmem",
        path: "proc/sys/net/ipv4/tcp_rmem",
        wish: Wish::ThirdAtLeast(SOCKET_BUFFER_BYTES),
        reason: "its third number bounds how far the kernel lets a receive buffer grow; below a follower's window \
            (16 MiB) it is what slows catching up on a fast link",
    },
    Sysctl {
        name: "net.ipv4.tcp_wmem",
        path: "proc/sys/net/ipv4/tcp_wmem",
        wish: Wish::ThirdAtLeast(SOCKET_BUFFER_BYTES),
        reason: "its third number bounds how far the kernel lets a send buffer grow; below a follower's window (16 MiB) \
            it is what slows catching up on a fast link",
    },
    Sysctl {
        name: "net.ipv4.tcp_slow_start_after_idle",
        path: "proc/sys/net/ipv4/tcp_slow_start_after_idle",
        wish: Wish::Exactly(0),
        reason: "links stay open for years and are idle between bursts; with 1 the first large write after a pause is \
            sent in small portions, one round trip each",
    },
    Sysctl {
        name: "net.core.somaxconn",
        path: "proc/sys/net/core/somaxconn",
        wish: Wish::AtLeast(crate::limits::EDGE_BACKLOG as u64),
        reason: "bounds the connections that wait to be accepted, of which a listener of clients asks for 1024; all clients come back at once when a leader is lost",
    },
    Sysctl {
        name: "net.core.netdev_max_backlog",
        path: "proc/sys/net/core/netdev_max_backlog",
        wish: Wish::AtLeast(4096),
        reason: "packets that may wait for a CPU, where RPS or a virtual device hands them over; beyond it they are \
            dropped and sent again",
    },
];

impl Sysctl {
    /// What it should become, when it is `found`; none when it is good, or not understood.
    #[must_use]
    pub fn better(&self, found: &str) -> Option<String> {
        let numbers: Vec<u64> = found.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        match (self.wish, &numbers[..]) {
            (Wish::AtLeast(least), [number]) if *number < least => Some(least.to_string()),
            (Wish::Exactly(wanted), [number]) if *number != wanted => Some(wanted.to_string()),
            (Wish::ThirdAtLeast(least), [first, second, third]) if *third < least => {
                Some(format!("{first}\t{second}\t{least}"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lowered() {
        let check = |wish: Wish, found: &str, expected: Option<&str>| {
            let sysctl = Sysctl { wish, ..SYSCTLS[0] };
            assert_eq!(sysctl.better(found).as_deref(), expected, "{wish:?} {found}");
        };
        check(Wish::AtLeast(10), "9", Some("10"));
        check(Wish::AtLeast(10), "10", None);
        check(Wish::AtLeast(10), "11\n", None);
        check(Wish::AtLeast(10), "a", None);
        check(Wish::AtLeast(10), "", None);
        check(Wish::Exactly(0), "1", Some("0"));
        check(Wish::Exactly(0), "0", None);
        check(Wish::ThirdAtLeast(9), "1\t2\t3", Some("1\t2\t9"));
        check(Wish::ThirdAtLeast(9), "1 2 9", None);
        check(Wish::ThirdAtLeast(9), "1 2", None);
    }

    #[test]
    fn a_longer_queue_than_listeners_ask_for_is_not_wished() {
        let somaxconn = SYSCTLS.iter().find(|sysctl| sysctl.name == "net.core.somaxconn").unwrap();
        assert_eq!(somaxconn.better("128").as_deref(), Some("1024"));
        assert_eq!(somaxconn.better("1024"), None);
    }

    #[test]
    fn names_and_files_belong_together() {
        for sysctl in SYSCTLS {
            assert_eq!(format!("proc/sys/{}", sysctl.name.replace('.', "/")), sysctl.path);
        }
    }
}
