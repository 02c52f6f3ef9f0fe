//! # Options
//!
//! How a node is told what to do. This page is made of the table in `src/config/table/`; do not edit it.
//!
//! ## Where options come from
//!
//! Each option can be given in three ways. The first of these that has it wins, as a whole: lists are not merged.
//!
//! | Source | Form | Notes |
//! |---|---|---|
//! | Command line | `--int-ip 10.0.0.1`, `--int-ip=10.0.0.1` | Case and dashes do not matter, so the spellings of v5 work: `-IntIp 10.0.0.1`. A switch needs no value: `--what-if`. Lists may be repeated. |
//! | Environment | `EVENTSTORE_INT_IP=10.0.0.1` | Case does not matter. An empty value counts as not set. `${env:POD_IP}` as the whole value is replaced by that variable's. |
//! | YAML file | `IntIp: 10.0.0.1` | The file that `--config` or `EVENTSTORE_CONFIG` names, else `/etc/eventstore/eventstore.conf` if it exists. One flat mapping; case and dashes of keys do not matter. Lists are sequences, or texts with commas. |
//! | Default | | The tables below. |
//!
//! An unknown flag or YAML key is an error that suggests the nearest known name. An unknown `EVENTSTORE_` variable is a
//! warning: Kubernetes sets some of its own. At start a node prints each option that is not at its default, with its value
//! and its source; `--what-if` prints all of them, checks them and exits.
//!
//! Switches accept true, false, yes, no, on, off, 1 and 0. Times are whole milliseconds. Sizes are bytes, plain or with
//! KiB, MiB or GiB.
//!
//! ## Application options
//!
//! | YAML key | Flag | Environment | Default | Meaning |
//! |---|---|---|---|---|
//! | `Help` | `--help` | `EVENTSTORE_HELP` | `false` | Print this text and exit. Must be true or false; for example `true`. |
//! | `Version` | `--version` | `EVENTSTORE_VERSION` | `false` | Print the version and exit. Must be true or false; for example `true`. |
//! | `WhatIf` | `--what-if` | `EVENTSTORE_WHAT_IF` | `false` | Check the options, print all of them with their sources, and exit without starting anything. Must be true or false; for example `true`. |
//! | `Config` | `--config` | `EVENTSTORE_CONFIG` | none | YAML file with options. When none is named, /etc/eventstore/eventstore.conf is read if it exists. Must be a path; for example `/etc/eventstore/eventstore.conf`. |
//! | `Log` | `--log` | `EVENTSTORE_LOG` | `/var/log/ringstore` | Directory for log files; an empty value logs to the console only. Must be a path; for example `./log`. |
//!
//! ## Interface options
//!
//! | YAML key | Flag | Environment | Default | Meaning |
//! |---|---|---|---|---|
//! | `IntIp` | `--int-ip` | `EVENTSTORE_INT_IP` | `127.0.0.1` | Address to listen on for traffic between the nodes. Another one than loopback needs UseInternalSsl or ClusterSecretFile. Must be an IPv4 or IPv6 address (no host name); for example `10.0.0.1`. |
//! | `ExtIp` | `--ext-ip` | `EVENTSTORE_EXT_IP` | `127.0.0.1` | Address to listen on for clients. Must be an IPv4 or IPv6 address (no host name); for example `192.168.0.1`. |
//! | `IntTcpPort` | `--int-tcp-port` | `EVENTSTORE_INT_TCP_PORT` | `1112` | Port for replication and forwarded requests, on IntIp; 0 lets the system choose. A node on its own does not open it. Must be a port from 0 to 65535; for example `11112`. |
//! | `ExtTcpPort` | `--ext-tcp-port` | `EVENTSTORE_EXT_TCP_PORT` | `1113` | Port for clients, TCP protocol, on ExtIp; 0 lets the system choose. Must be a port from 0 to 65535; for example `11113`. |
//! | `IntHttpPort` | `--int-http-port` | `EVENTSTORE_INT_HTTP_PORT` | `2112` | Port for gossip, elections and administration, on IntIp; 0 lets the system choose. A node on its own has it for administration and backup only, and goes on without it where it is taken. Must be a port from 0 to 65535; for example `12112`. |
//! | `ExtHttpPort` | `--ext-http-port` | `EVENTSTORE_EXT_HTTP_PORT` | `2113` | Port for clients, HTTP, on ExtIp; 0 lets the system choose. Must be a port from 0 to 65535; for example `12113`. |
//! | `IntIpAdvertiseAs` | `--int-ip-advertise-as` | `EVENTSTORE_INT_IP_ADVERTISE_AS` | none | Internal address told to the other nodes, when it is not IntIp (address translation, containers). Must be an IPv4 or IPv6 address (no host name); for example `10.0.0.1`. |
//! | `ExtIpAdvertiseAs` | `--ext-ip-advertise-as` | `EVENTSTORE_EXT_IP_ADVERTISE_AS` | none | Address told to clients, when it is not ExtIp. Must be an IPv4 or IPv6 address (no host name); for example `192.168.0.1`. |
//! | `IntTcpPortAdvertiseAs` | `--int-tcp-port-advertise-as` | `EVENTSTORE_INT_TCP_PORT_ADVERTISE_AS` | `0` | Internal TCP port told to the other nodes; 0 means IntTcpPort. Must be a port from 0 to 65535; for example `11112`. |
//! | `ExtTcpPortAdvertiseAs` | `--ext-tcp-port-advertise-as` | `EVENTSTORE_EXT_TCP_PORT_ADVERTISE_AS` | `0` | TCP port told to clients; 0 means ExtTcpPort. Must be a port from 0 to 65535; for example `11113`. |
//! | `IntHttpPortAdvertiseAs` | `--int-http-port-advertise-as` | `EVENTSTORE_INT_HTTP_PORT_ADVERTISE_AS` | `0` | Internal HTTP port told to the other nodes; 0 means IntHttpPort. Must be a port from 0 to 65535; for example `12112`. |
//! | `ExtHttpPortAdvertiseAs` | `--ext-http-port-advertise-as` | `EVENTSTORE_EXT_HTTP_PORT_ADVERTISE_AS` | `0` | HTTP port told to clients; 0 means ExtHttpPort. Must be a port from 0 to 65535; for example `12113`. |
//! | `IntTcpHeartbeatInterval` | `--int-tcp-heartbeat-interval` | `EVENTSTORE_INT_TCP_HEARTBEAT_INTERVAL` | `700` | Pause between heartbeats on connections that carry forwarded requests between the nodes. The leader's own heartbeats follow IntTcpHeartbeatTimeout. Must be a whole number of milliseconds from 1 to 3600000; for example `500`. |
//! | `IntTcpHeartbeatTimeout` | `--int-tcp-heartbeat-timeout` | `EVENTSTORE_INT_TCP_HEARTBEAT_TIMEOUT` | `700` | How long to wait for a sign of life from another node. It is the election timeout, too: a node that hears nothing from the leader for so long, and up to twice that, stands for election. The leader sends it a heartbeat seven times in this span. The same on all nodes. Must be a whole number of milliseconds from 100 to 3600000; for example `1500`. |
//! | `ExtTcpHeartbeatInterval` | `--ext-tcp-heartbeat-interval` | `EVENTSTORE_EXT_TCP_HEARTBEAT_INTERVAL` | `2000` | Pause between heartbeats on connections of clients. Must be a whole number of milliseconds from 1 to 3600000; for example `5000`. |
//! | `ExtTcpHeartbeatTimeout` | `--ext-tcp-heartbeat-timeout` | `EVENTSTORE_EXT_TCP_HEARTBEAT_TIMEOUT` | `1000` | How long to wait for a sign of life from a client after a heartbeat. Must be a whole number of milliseconds from 1 to 3600000; for example `3000`. |
//! | `GossipOnSingleNode` | `--gossip-on-single-node` | `EVENTSTORE_GOSSIP_ON_SINGLE_NODE` | `false` | Without effect: a node on its own always answers GET /gossip, so that clients can find it by gossip. Must be true or false; for example `true`. |
//! | `IntDevice` | `--int-device` | `EVENTSTORE_INT_DEVICE` | none | Network device for traffic between the nodes: the internal ports take connections that arrive on it only (or come from this machine to an address of it), and all connections to other nodes leave by it, whatever the routes say. None leaves it to the routes; where these take another device than the one with IntIp, the log and /stats say so. Must be the name of a network device, at most 15 bytes; for example `eth1`. |
//! | `ExtDevice` | `--ext-device` | `EVENTSTORE_EXT_DEVICE` | none | Network device for clients: their ports take connections that arrive on it only, or that come from this machine to an address of it. Must be the name of a network device, at most 15 bytes; for example `eth0`. |
//! | `IntBusyPollUs` | `--int-busy-poll-us` | `EVENTSTORE_INT_BUSY_POLL_US` | `0` | Microseconds that the log thread polls the internal card's queue before it sleeps: saves the interrupt's delay for a processor that is never idle. 0 is off. Needs Linux 6.9 and a card with NAPI; where the kernel refuses, the node says so and goes on without. Must be a whole number from 0 to 1000; for example `50`. |
//! | `ExtAdvertise` | `--ext-advertise` | `EVENTSTORE_EXT_ADVERTISE` | none | Addresses told to clients by the network that they ask from: the first rule that holds, else ExtIpAdvertiseAs, else ExtIp. All nodes of the cluster know each other's rules and answer by them, in GET /gossip and when they send a client to the leader. At most 16 rules. In YAML also [{ for: 10.1.0.0/16, address: 10.1.0.5 }]. Must be a list of NETWORK=ADDRESS, or in YAML of mappings with for and address; for example `10.1.0.0/16=10.1.0.5`. |
//! | `AdminOnExt` | `--admin-on-ext` | `EVENTSTORE_ADMIN_ON_EXT` | `true` | Of v5, accepted and without effect: in this version there is nothing at /admin and /web on the client port, whatever it says. What changes the cluster (`ringstore admin`), elections and the gossip of the nodes are on the internal port only. Must be true or false; for example `false`. |
//! | `StatsOnExt` | `--stats-on-ext` | `EVENTSTORE_STATS_ON_EXT` | `true` | Serve /stats on the client port; it is always on the internal one (`ringstore admin stats`). Must be true or false; for example `false`. |
//! | `GossipOnExt` | `--gossip-on-ext` | `EVENTSTORE_GOSSIP_ON_EXT` | `true` | Serve GET /gossip on the client port. Clients that find the cluster by gossip need it, unless they reach the internal one. Must be true or false; for example `false`. |
//! | `CertificateFile` | `--certificate-file` | `EVENTSTORE_CERTIFICATE_FILE` | none | Certificate of this node, PEM, with its chain behind it: for the TLS ports, and for traffic between the nodes with UseInternalSsl. PKCS#12, which v5 takes, is turned into PEM by openssl pkcs12. Read again on SIGHUP; links that stand stay. Must be a path; for example `/etc/eventstore/node.pem`. |
//! | `CertificatePrivateKeyFile` | `--certificate-private-key-file` | `EVENTSTORE_CERTIFICATE_PRIVATE_KEY_FILE` | none | Private key of CertificateFile, PEM, not protected by a password. Must be a path; for example `/etc/eventstore/node.key`. |
//! | `CertificateAuthorityFile` | `--certificate-authority-file` | `EVENTSTORE_CERTIFICATE_AUTHORITY_FILE` | none | Certificates, PEM, of the authorities that the other nodes' certificates must chain to. Needed with UseInternalSsl. Use an authority that signs nothing but nodes of this cluster. Must be a path; for example `/etc/eventstore/ca.pem`. |
//! | `UseInternalSsl` | `--use-internal-ssl` | `EVENTSTORE_USE_INTERNAL_SSL` | `false` | Close the internal ports to all but nodes with a certificate of CertificateAuthorityFile that is valid for them, and encrypt what goes between the nodes. Both sides of each connection are checked. The same on all nodes. Must be true or false; for example `true`. |
//! | `SslTargetHost` | `--ssl-target-host` | `EVENTSTORE_SSL_TARGET_HOST` | `n/a` | Name that the certificates of all nodes have. n/a: each is valid for the address that its node is dialled at and connects from. Must be a text; for example `node.cluster.example`. |
//! | `IntSecureTcpPort` | `--int-secure-tcp-port` | `EVENTSTORE_INT_SECURE_TCP_PORT` | `0` | Port for replication and forwarded requests with UseInternalSsl, instead of IntTcpPort; 0: IntTcpPort is used, with TLS. Must be a port from 0 to 65535; for example `1115`. |
//! | `IntSecureTcpPortAdvertiseAs` | `--int-secure-tcp-port-advertise-as` | `EVENTSTORE_INT_SECURE_TCP_PORT_ADVERTISE_AS` | `0` | Port to tell others instead of IntSecureTcpPort; 0 means the same. Must be a port from 0 to 65535; for example `21115`. |
//! | `ClusterSecretFile` | `--cluster-secret-file` | `EVENTSTORE_CLUSTER_SECRET_FILE` | none | File with a secret of at least 32 bytes that all nodes have: each connection between nodes begins with a proof of it from both sides, and requests to IntHttpPort are signed. Keeps strangers out where there is no UseInternalSsl; it encrypts nothing. Must be a path; for example `/etc/eventstore/cluster.secret`. |
//! | `UnsafeOpenInternalPlane` | `--unsafe-open-internal-plane` | `EVENTSTORE_UNSAFE_OPEN_INTERNAL_PLANE` | `false` | Start although IntIp is not a loopback address and there is neither UseInternalSsl nor ClusterSecretFile: whoever reaches IntIp can read and change everything. Must be true or false; for example `true`. |
//! | `ExtSecureTcpPort` | `--ext-secure-tcp-port` | `EVENTSTORE_EXT_SECURE_TCP_PORT` | `0` | Port for clients with TLS, TCP protocol, on ExtIp; 0: none. Needs CertificateFile and CertificatePrivateKeyFile. Must be a port from 0 to 65535; for example `1116`. |
//! | `ExtSecureTcpPortAdvertiseAs` | `--ext-secure-tcp-port-advertise-as` | `EVENTSTORE_EXT_SECURE_TCP_PORT_ADVERTISE_AS` | `0` | Port to tell others instead of ExtSecureTcpPort; 0 means the same. Must be a port from 0 to 65535; for example `21116`. |
//! | `ExtSecureHttpPort` | `--ext-secure-http-port` | `EVENTSTORE_EXT_SECURE_HTTP_PORT` | `0` | Port for clients with HTTPS, on ExtIp; 0: none. Needs CertificateFile and CertificatePrivateKeyFile. Must be a port from 0 to 65535; for example `2114`. |
//! | `DisableInsecureTCP` | `--disable-insecure-tcp` | `EVENTSTORE_DISABLE_INSECURE_TCP` | `false` | Do not open ExtTcpPort: clients use ExtSecureTcpPort, which must be set. Must be true or false; for example `true`. |
//!
//! ## Cluster options
//!
//! | YAML key | Flag | Environment | Default | Meaning |
//! |---|---|---|---|---|
//! | `ClusterSize` | `--cluster-size` | `EVENTSTORE_CLUSTER_SIZE` | `1` | How many nodes form the cluster; all nodes must agree. Odd numbers are best; 1 is a node on its own. Must be a whole number from 1 to 7; for example `3`. |
//! | `GossipSeed` | `--gossip-seed` | `EVENTSTORE_GOSSIP_SEED` | none | Internal HTTP endpoints (IntIp:IntHttpPort) of other nodes, where gossip begins. Must be a list of IP:port, with commas between; for example `10.0.0.2:2112,10.0.0.3:2112`. |
//! | `ClusterDns` | `--cluster-dns` | `EVENTSTORE_CLUSTER_DNS` | none | DNS name that lists the internal addresses of all nodes. Used together with GossipSeed when both are given. Must be a text; for example `nodes.example.org`. |
//! | `DiscoverViaDns` | `--discover-via-dns` | `EVENTSTORE_DISCOVER_VIA_DNS` | `true` | false switches ClusterDns off. Without a ClusterDns it has no effect. Must be true or false; for example `false`. |
//! | `ClusterGossipPort` | `--cluster-gossip-port` | `EVENTSTORE_CLUSTER_GOSSIP_PORT` | `30777` | Port to gossip with at the addresses that ClusterDns lists: the IntHttpPort of the nodes. Must be a port from 0 to 65535; for example `2112`. |
//! | `GossipIntervalMs` | `--gossip-interval-ms` | `EVENTSTORE_GOSSIP_INTERVAL_MS` | `1000` | Pause between gossip rounds. Must be a whole number of milliseconds from 1 to 3600000; for example `500`. |
//! | `GossipTimeoutMs` | `--gossip-timeout-ms` | `EVENTSTORE_GOSSIP_TIMEOUT_MS` | `500` | How long one gossip exchange may take. Must be a whole number of milliseconds from 1 to 3600000; for example `2000`. |
//! | `GossipAllowedDifferenceMs` | `--gossip-allowed-difference-ms` | `EVENTSTORE_GOSSIP_ALLOWED_DIFFERENCE_MS` | `60000` | Difference between the clocks of two nodes above which gossip complains. Must be a whole number of milliseconds from 1 to 86400000; for example `5000`. |
//! | `NodePriority` | `--node-priority` | `EVENTSTORE_NODE_PRIORITY` | `0` | Preference as leader, higher first. Must be a whole number from -2147483648 to 2147483647; for example `1`. |
//! | `ReadOnlyReplica` | `--read-only-replica` | `EVENTSTORE_READ_ONLY_REPLICA` | `false` | Join a cluster that exists as a copy of its log: this node serves reads and subscriptions and forwards writes, but never votes, never counts for a write and is never made a member. Clients of v5 see it as a Clone. Must be true or false; for example `true`. |
//!
//! ## Database options
//!
//! | YAML key | Flag | Environment | Default | Meaning |
//! |---|---|---|---|---|
//! | `Db` | `--db` | `EVENTSTORE_DB` | `/var/lib/ringstore` | Directory of the log. One node only may use it. Must be a path; for example `./data`. |
//! | `ChunkSize` | `--chunk-size` | `EVENTSTORE_CHUNK_SIZE` | `256MiB` | Size of a chunk file; a multiple of 4096 and at least twice MaxAppendSize. The same on all nodes, and fixed once the node has started for the first time. Must be a size from 1048576 to 1073741824 bytes, plain or with KiB, MiB or GiB; for example `64MiB`. |
//! | `MaxAppendSize` | `--max-append-size` | `EVENTSTORE_MAX_APPEND_SIZE` | `16MiB` | Largest write of a client: all events of one request together. Must be a size from 4096 to 25165824 bytes, plain or with KiB, MiB or GiB; for example `1MiB`. |
//! | `ScrubMibPerSecond` | `--scrub-mib-per-second` | `EVENTSTORE_SCRUB_MIB_PER_SECOND` | `20` | MiB of full chunks that are read and checked each second, round and round, to find what the disk has lost. 0 = off. Must be a whole number from 0 to 10000; for example `100`. |
//! | `UnsafeDisableFlushToDisk` | `--unsafe-disable-flush-to-disk` | `EVENTSTORE_UNSAFE_DISABLE_FLUSH_TO_DISK` | `false` | Acknowledge writes that are not on disk. Unsafe: a power failure loses acknowledged writes. Must be true or false; for example `true`. |
//!
//! ## Thread options
//!
//! | YAML key | Flag | Environment | Default | Meaning |
//! |---|---|---|---|---|
//! | `EdgeThreads` | `--edge-threads` | `EVENTSTORE_EDGE_THREADS` | `1` | Threads that serve clients; 0 means one for each processor, with ExtCpus one for each of those. Must be a whole number from 0 to 256; for example `4`. |
//! | `CpuPinning` | `--cpu-pinning` | `EVENTSTORE_CPU_PINNING` | none | Binds threads to processors: log, control and background to one each, edges to several. Empty means that the system places them, or IntCpus and ExtCpus do: a thread is named in one of the options only. Must be a list like log=0,control=1,edges=2-3, with processor numbers; for example `log=0,control=1,edges=2-3`. |
//! | `IntCpus` | `--int-cpus` | `EVENTSTORE_INT_CPUS` | none | Processors of the internal plane: the log thread with the kernel's workers of its ring, the control thread and the background threads run on these only, each on any of them. Best those that the interrupts of IntDevice arrive on, or their neighbours on the same NUMA node. Not together with log, control or background in CpuPinning, which give each of these threads one processor. Must be a list of processors from 0 to 1023, each once, as 0-3,8; for example `0-3`. |
//! | `ExtCpus` | `--ext-cpus` | `EVENTSTORE_EXT_CPUS` | none | Processors of the external plane: the edge threads take one each, in turn. Best without those in IntCpus, so that clients cannot slow replication down. Not together with edges in CpuPinning. Must be a list of processors from 0 to 1023, each once, as 0-3,8; for example `4-7`. |
//!
//! ## Options of v5 that are missing
//!
//! These are recognised and ignored with a warning, whichever source they come from, so that an existing configuration
//! starts.
//!
//! - `Defines`
//! - `StartStandardProjections`: no projection runs
//! - `DisableHTTPCaching`
//! - `MonoMinThreadpoolSize`
//! - `StreamInfoCacheCapacity`
//! - `Force`
//! - `StatsPeriodSec`
//! - `WorkerThreads`
//! - `EnableHistograms`
//! - `LogHttpRequests`
//! - `LogFailedAuthenticationAttempts`
//! - `SkipIndexScanOnReads`
//! - `AuthenticationType`: the internal users are used
//! - `AuthenticationConfig`
//! - `DisableFirstLevelHttpAuthorization`
//! - `CertificateStoreLocation`
//! - `CertificateStoreName`
//! - `CertificateSubjectName`
//! - `CertificateThumbprint`
//! - `CertificatePassword`
//! - `CommitCount`: a write is acknowledged by a majority
//! - `PrepareCount`: a write is acknowledged by a majority
//! - `MinFlushDelayMs`
//! - `DisableScavengeMerging`
//! - `ScavengeHistoryMaxAge`
//! - `CachedChunks`
//! - `ReaderThreadsCount`
//! - `ChunksCacheSize`
//! - `MaxMemTableSize`
//! - `HashCollisionReadLimit`
//! - `Index`: there is no separate index directory
//! - `MemDb`: events are kept on disk
//! - `SkipDbVerify`
//! - `WriteThrough`
//! - `Unbuffered`
//! - `ChunkInitialReaderCount`
//! - `PrepareTimeoutMs`
//! - `CommitTimeoutMs`
//! - `BetterOrdering`
//! - `UnsafeIgnoreHardDelete`: hard deletes stay in force
//! - `SkipIndexVerify`
//! - `IndexCacheDepth`
//! - `OptimizeIndexMerge`
//! - `AlwaysKeepScavenged`
//! - `ReduceFileCachePressure`
//! - `InitializationThreads`
//! - `StructuredLog`
//! - `MaxAutoMergeIndexLevel`
//! - `WriteStatsToDb`
//! - `ConnectionPendingSendBytesThreshold`
//! - `ConnectionQueueSizeThreshold`
//! - `IntHttpPrefixes`
//! - `ExtHttpPrefixes`
//! - `EnableTrustedAuth`: the header is not honoured
//! - `AddInterfacePrefixes`
//! - `SslValidateServer`: certificates are always checked
//! - `RunProjections`: no projection runs
//! - `ProjectionThreads`
//! - `ProjectionsQueryExpiry`
//! - `FaultOutOfOrderProjections`
