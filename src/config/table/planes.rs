//! The two planes: which network device each has, and what the external one serves.

use crate::config::table::{Group, Kind, OptionSpec, Support};
use crate::limits::BUSY_POLL_MAX_US;

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "IntDevice",
        kind: Kind::Device,
        default: "",
        example: "eth1",
        group: Group::Interface,
        help: "Network device for traffic between the nodes: the internal ports take connections that arrive on it only \
            (or come from this machine to an address of it), and all connections to other nodes leave by it, whatever the \
            routes say. None leaves it to the routes; where these take another device than the one with IntIp, the log and \
            /stats say so.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ExtDevice",
        kind: Kind::Device,
        default: "",
        example: "eth0",
        group: Group::Interface,
        help: "Network device for clients: their ports take connections that arrive on it only, or that come from this \
            machine to an address of it.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "IntBusyPollUs",
        kind: Kind::Integer { min: 0, max: BUSY_POLL_MAX_US },
        default: "0",
        example: "50",
        group: Group::Interface,
        help: "Microseconds that the log thread polls the internal card's queue before it sleeps: saves the \
            interrupt's delay for a processor that is never idle. 0 is off. Needs Linux 6.9 and a card with NAPI; \
            where the kernel refuses, the node says so and goes on without.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ExtAdvertise",
        kind: Kind::AddressRules,
        default: "",
        example: "10.1.0.0/16=10.1.0.5",
        group: Group::Interface,
        help: "Addresses told to clients by the network that they ask from: the first rule that holds, else \
            ExtIpAdvertiseAs, else ExtIp. All nodes of the cluster know each other's rules and answer by them, in \
            GET /gossip and when they send a client to the leader. At most 16 rules. In YAML also \
            [{ for: 10.1.0.0/16, address: 10.1.0.5 }].",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "AdminOnExt",
        kind: Kind::Switch,
        default: "true",
        example: "false",
        group: Group::Interface,
        help: "Of v5, accepted and without effect: in this version there is nothing at /admin and /web on the client port, \
            whatever it says. What changes the cluster (`ringstore admin`), elections and the gossip of the nodes are on \
            the internal port only.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "StatsOnExt",
        kind: Kind::Switch,
        default: "true",
        example: "false",
        group: Group::Interface,
        help: "Serve /stats on the client port; it is always on the internal one (`ringstore admin stats`).",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "GossipOnExt",
        kind: Kind::Switch,
        default: "true",
        example: "false",
        group: Group::Interface,
        help: "Serve GET /gossip on the client port. Clients that find the cluster by gossip need it, unless they \
            reach the internal one.",
        is_secret: false,
        support: Support::Present,
    },
];
