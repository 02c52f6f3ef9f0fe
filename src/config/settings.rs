//! The options as the server uses them.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::pinning::CpuPinning;
use crate::gossip::{AddressRule, Addresses};
use crate::security::PlaneFiles;

/// The options as the server uses them: typed, checked once, and trusted afterwards.
///
/// Made by [`crate::config::load`], or by [`Config::default`] with nothing but defaults. Invariants: no two listeners
/// share a port, no thread is placed by two options, `chunk_size_bytes` is a multiple of 4096 and at least twice
/// `append_size_max_bytes`, and in a cluster the advertised addresses can be connected to and there is a way to find the
/// others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that was read, if any.
    pub config_file: Option<PathBuf>,
    /// Directory of the log.
    pub db: PathBuf,
    /// Directory for log files; none logs to the console only.
    pub log: Option<PathBuf>,

    /// Address for traffic between the nodes.
    pub int_ip: IpAddr,
    /// Address for clients.
    pub ext_ip: IpAddr,
    /// Port for replication and forwarding; 0 lets the system choose.
    pub int_tcp_port: u16,
    /// Port for gossip and elections; 0 lets the system choose.
    pub int_http_port: u16,
    /// Port for clients, TCP; 0 lets the system choose.
    pub ext_tcp_port: u16,
    /// Port for clients, HTTP; 0 lets the system choose.
    pub ext_http_port: u16,
    /// What others are told instead of the listening addresses.
    pub advertise_as: AdvertiseAs,
    /// What clients are told by the network that they ask from, the first that holds; else the advertised address.
    pub ext_advertise: Vec<AddressRule>,
    /// The device that the internal plane is bound to; none leaves it to the routes.
    pub int_device: Option<String>,
    /// The device that the clients' listeners are bound to.
    pub ext_device: Option<String>,
    /// Microseconds that the internal ring polls its card before it sleeps; 0 is off.
    pub int_busy_poll_us: u32,
    /// What the clients' HTTP port serves.
    pub on_ext: OnExt,
    /// Who may speak on the internal plane, and the ports with TLS.
    pub security: Security,
    /// Heartbeats between the nodes.
    pub int_tcp_heartbeat: Heartbeat,
    /// Heartbeats to clients.
    pub ext_tcp_heartbeat: Heartbeat,

    /// Nodes in the cluster, 1 to 7.
    pub cluster_size: usize,
    /// Internal HTTP endpoints where gossip begins. May contain this node's own.
    pub gossip_seeds: Vec<SocketAddr>,
    /// Where to look the other nodes up; none when DNS is not to be asked.
    pub dns: Option<DnsDiscovery>,
    /// Pause between gossip rounds.
    pub gossip_interval: Duration,
    /// How long one gossip exchange may take.
    pub gossip_timeout: Duration,
    /// Difference between two nodes' clocks above which gossip complains.
    pub gossip_allowed_difference: Duration,
    /// Accepted because v5 has it; without effect: a node on its own always answers gossip.
    pub gossip_on_single_node: bool,
    /// Preference as leader, higher first.
    pub node_priority: i32,
    /// Join a cluster that exists, as a copy that never becomes a member.
    pub read_only_replica: bool,

    /// Size of a chunk, bytes of log.
    pub chunk_size_bytes: u64,
    /// Largest write, bytes.
    pub append_size_max_bytes: u64,
    /// Bytes of sealed chunks that the scrubber reads a second; 0: it is off.
    pub scrub_bytes_per_second: u64,
    /// Acknowledge what is not on disk.
    pub unsafe_disable_flush_to_disk: bool,

    /// Edge threads as configured; 0 means one for each processor, see [`Config::edge_thread_count`].
    pub edge_threads: usize,
    /// Which thread runs where.
    pub cpu_pinning: CpuPinning,
    /// Where the threads of the internal plane run; empty leaves it to the system or `cpu_pinning`. Invariant: empty when
    /// `cpu_pinning` has one of these threads.
    pub int_cpus: Vec<usize>,
    /// Where the edges run, one after the other; the same.
    pub ext_cpus: Vec<usize>,
}

/// What the clients' HTTP port serves of what need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnExt {
    /// `AdminOnExt`: only the words of a refusal hang on it, for there is nothing at `/admin` and `/web` there.
    pub admin: bool,
    /// `/stats`.
    pub stats: bool,
    /// `GET /gossip`.
    pub gossip: bool,
}

/// Who may speak on the internal plane, and the ports with TLS.
///
/// Invariants: `internal` is there with `UseInternalSsl`; a certificate and its key are there with any TLS port;
/// with neither `internal` nor `secret` `int_ip` is loopback, or `is_open_by_intent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// How the internal plane is closed.
    pub internal: PlaneFiles,
    /// `UnsafeOpenInternalPlane`.
    pub is_open_by_intent: bool,
    /// Certificate and key that clients are shown; set when there is a port with TLS for them.
    pub external: Option<(PathBuf, PathBuf)>,
    /// `IntSecureTcpPort`; 0: there is none of its own.
    pub int_tcp_port: u16,
    /// `ExtSecureTcpPort`; none is not opened.
    pub ext_tcp_port: Option<u16>,
    /// `ExtSecureHttpPort`; none is not opened.
    pub ext_http_port: Option<u16>,
    /// `DisableInsecureTCP`: the plain port for clients is not opened.
    pub is_plain_tcp_off: bool,
}

/// What others are told instead of the listening addresses; `None` means the listening one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertiseAs {
    /// Instead of `int_ip`.
    pub int_ip: Option<IpAddr>,
    /// Instead of `ext_ip`.
    pub ext_ip: Option<IpAddr>,
    /// Instead of `int_tcp_port`.
    pub int_tcp_port: Option<u16>,
    /// Instead of `int_http_port`.
    pub int_http_port: Option<u16>,
    /// Instead of `ext_tcp_port`.
    pub ext_tcp_port: Option<u16>,
    /// Instead of `ext_http_port`.
    pub ext_http_port: Option<u16>,
    /// Instead of `security.ext_tcp_port`.
    pub ext_secure_tcp_port: Option<u16>,
}

/// How a connection is kept under watch. Both are at least a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Pause between heartbeats.
    pub interval: Duration,
    /// How long to wait for a sign of life after one.
    pub timeout: Duration,
}

/// Where to look the other nodes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// The name that lists all nodes' internal addresses.
    pub name: String,
    /// The port to gossip with at these addresses.
    pub gossip_port: u16,
}

impl Config {
    /// Where to listen for replication and forwarding.
    #[must_use]
    pub fn int_tcp(&self) -> SocketAddr {
        SocketAddr::new(self.int_ip, self.int_tcp_port)
    }

    /// True when nobody speaks on the internal plane without a certificate or the secret.
    #[must_use]
    pub fn is_internal_closed(&self) -> bool {
        self.security.internal.identity.is_some() || self.security.internal.secret.is_some()
    }

    /// Where to listen for gossip and elections.
    #[must_use]
    pub fn int_http(&self) -> SocketAddr {
        SocketAddr::new(self.int_ip, self.int_http_port)
    }

    /// Where to listen for clients, TCP; not at all when `security.is_plain_tcp_off`.
    #[must_use]
    pub fn ext_tcp(&self) -> SocketAddr {
        SocketAddr::new(self.ext_ip, self.ext_tcp_port)
    }

    /// Where to listen for clients, HTTP.
    #[must_use]
    pub fn ext_http(&self) -> SocketAddr {
        SocketAddr::new(self.ext_ip, self.ext_http_port)
    }

    /// Where to listen for clients with TLS, TCP.
    #[must_use]
    pub fn ext_secure_tcp(&self) -> Option<SocketAddr> {
        self.security.ext_tcp_port.map(|port| SocketAddr::new(self.ext_ip, port))
    }

    /// Where to listen for clients with HTTPS.
    #[must_use]
    pub fn ext_secure_http(&self) -> Option<SocketAddr> {
        self.security.ext_http_port.map(|port| SocketAddr::new(self.ext_ip, port))
    }

    /// What this node tells others about where it is.
    ///
    /// Ports that the system chose are known only after listening: whoever listens writes them into the port fields
    /// before it asks for this. A plain port that is not opened is told as 0, as secure ones are where there is none.
    #[must_use]
    pub fn advertised(&self) -> Addresses {
        let told = &self.advertise_as;
        let int_ip = told.int_ip.unwrap_or(self.int_ip);
        let ext_ip = told.ext_ip.unwrap_or(self.ext_ip);
        let ext_tcp_port = told.ext_tcp_port.unwrap_or(self.ext_tcp_port);
        let secure = self.security.ext_tcp_port.map(|port| told.ext_secure_tcp_port.unwrap_or(port));
        Addresses {
            int_tcp: SocketAddr::new(int_ip, told.int_tcp_port.unwrap_or(self.int_tcp_port)),
            int_http: SocketAddr::new(int_ip, told.int_http_port.unwrap_or(self.int_http_port)),
            ext_tcp: SocketAddr::new(ext_ip, if self.security.is_plain_tcp_off { 0 } else { ext_tcp_port }),
            ext_http: SocketAddr::new(ext_ip, told.ext_http_port.unwrap_or(self.ext_http_port)),
            ext_secure_tcp: secure.map(|port| SocketAddr::new(ext_ip, port)),
        }
    }

    /// The settings that all nodes of a cluster should have alike, with their values: what nodes tell each other's operator.
    #[must_use]
    pub fn shared_settings(&self) -> Vec<(&'static str, u64)> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        vec![
            ("ClusterSize", self.cluster_size as u64),
            ("ChunkSize", self.chunk_size_bytes),
            ("MaxAppendSize", self.append_size_max_bytes),
            ("GossipIntervalMs", ms(self.gossip_interval)),
            ("GossipTimeoutMs", ms(self.gossip_timeout)),
            ("IntTcpHeartbeatInterval", ms(self.int_tcp_heartbeat.interval)),
            ("IntTcpHeartbeatTimeout", ms(self.int_tcp_heartbeat.timeout)),
            ("UnsafeDisableFlushToDisk", u64::from(self.unsafe_disable_flush_to_disk)),
        ]
    }

    /// True when there are other nodes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.cluster_size > 1
    }

    /// Edge threads to start on a machine with this many processors.
    #[must_use]
    pub fn edge_thread_count(&self, processors: NonZeroUsize) -> usize {
        let own = if self.ext_cpus.is_empty() { processors.get() } else { self.ext_cpus.len() };
        if self.edge_threads == 0 { own.min(crate::limits::EDGE_THREADS_MAX) } else { self.edge_threads }
    }

    /// Processors of the log thread and its ring's workers; empty: anywhere.
    #[must_use]
    pub fn log_cpus(&self) -> Vec<usize> {
        self.cpu_pinning.log.map_or_else(|| self.int_cpus.clone(), |cpu| vec![cpu])
    }

    /// Processors of the control thread; empty: anywhere.
    #[must_use]
    pub fn control_cpus(&self) -> Vec<usize> {
        self.cpu_pinning.control.map_or_else(|| self.int_cpus.clone(), |cpu| vec![cpu])
    }

    /// Processors of the background threads; empty: anywhere.
    #[must_use]
    pub fn background_cpus(&self) -> Vec<usize> {
        self.cpu_pinning.background.map_or_else(|| self.int_cpus.clone(), |cpu| vec![cpu])
    }

    /// The processor of the edge thread with this number, in turn; empty: anywhere.
    #[must_use]
    pub fn edge_cpus(&self, edge: usize) -> Vec<usize> {
        let own = || self.ext_cpus.get(edge % self.ext_cpus.len().max(1)).copied();
        self.cpu_pinning.edge(edge).or_else(own).into_iter().collect()
    }
}
