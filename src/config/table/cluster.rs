//! Who the other nodes are and how they are found.

use crate::config::table::{Group, Kind, OptionSpec, Support};
use crate::limits::CLUSTER_SIZE_MAX;

/// No heartbeat and no gossip is slower than this.
const HOUR_MS: i64 = 3_600_000;

/// Clocks that differ by more than this are not clocks.
const DAY_MS: i64 = 24 * HOUR_MS;

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "ClusterSize",
        kind: Kind::Integer { min: 1, max: CLUSTER_SIZE_MAX as i64 },
        default: "1",
        example: "3",
        group: Group::Cluster,
        help: "How many nodes form the cluster; all nodes must agree. Odd numbers are best; 1 is a node on its own.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "GossipSeed",
        kind: Kind::Endpoints,
        default: "",
        example: "10.0.0.2:2112,10.0.0.3:2112",
        group: Group::Cluster,
        help: "Internal HTTP endpoints (IntIp:IntHttpPort) of other nodes, where gossip begins.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ClusterDns",
        kind: Kind::Text,
        default: "",
        example: "nodes.example.org",
        group: Group::Cluster,
        help: "DNS name that lists the internal addresses of all nodes. Used together with GossipSeed when both \
            are given.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "DiscoverViaDns",
        kind: Kind::Switch,
        default: "true",
        example: "false",
        group: Group::Cluster,
        help: "false switches ClusterDns off. Without a ClusterDns it has no effect.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ClusterGossipPort",
        kind: Kind::Port,
        default: "30777",
        example: "2112",
        group: Group::Cluster,
        help: "Port to gossip with at the addresses that ClusterDns lists: the IntHttpPort of the nodes.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "GossipIntervalMs",
        kind: Kind::Milliseconds { min: 1, max: HOUR_MS },
        default: "1000",
        example: "500",
        group: Group::Cluster,
        help: "Pause between gossip rounds.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "GossipTimeoutMs",
        kind: Kind::Milliseconds { min: 1, max: HOUR_MS },
        default: "500",
        example: "2000",
        group: Group::Cluster,
        help: "How long one gossip exchange may take.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "GossipAllowedDifferenceMs",
        kind: Kind::Milliseconds { min: 1, max: DAY_MS },
        default: "60000",
        example: "5000",
        group: Group::Cluster,
        help: "Difference between the clocks of two nodes above which gossip complains.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "NodePriority",
        kind: Kind::Integer { min: i32::MIN as i64, max: i32::MAX as i64 },
        default: "0",
        example: "1",
        group: Group::Cluster,
        help: "Preference as leader, higher first.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ReadOnlyReplica",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Cluster,
        help: "Join a cluster that exists as a copy of its log: this node serves reads and subscriptions and forwards \
               writes, but never votes, never counts for a write and is never made a member. Clients of v5 see it as a \
               Clone.",
        is_secret: false,
        support: Support::Present,
    },
];
