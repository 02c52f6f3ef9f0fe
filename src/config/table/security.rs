//! Who may speak: certificates, the cluster's secret, ports with TLS.

use crate::config::table::{Group, Kind, OptionSpec, Support};

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "CertificateFile",
        kind: Kind::Path,
        default: "",
        example: "/etc/eventstore/node.pem",
        group: Group::Interface,
        help: "Certificate of this node, PEM, with its chain behind it: for the TLS ports, and for traffic \
            between the nodes with UseInternalSsl. PKCS#12, which v5 takes, is turned into PEM by openssl \
            pkcs12. Read again on SIGHUP; links that stand stay.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "CertificatePrivateKeyFile",
        kind: Kind::Path,
        default: "",
        example: "/etc/eventstore/node.key",
        group: Group::Interface,
        help: "Private key of CertificateFile, PEM, not protected by a password.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "CertificateAuthorityFile",
        kind: Kind::Path,
        default: "",
        example: "/etc/eventstore/ca.pem",
        group: Group::Interface,
        help: "Certificates, PEM, of the authorities that the other nodes' certificates must chain to. Needed \
            with UseInternalSsl. Use an authority that signs nothing but nodes of this cluster.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "UseInternalSsl",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Interface,
        help: "Close the internal ports to all but nodes with a certificate of CertificateAuthorityFile that is \
            valid for them, and encrypt what goes between the nodes. Both sides of each connection are \
            checked. The same on all nodes.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "SslTargetHost",
        kind: Kind::Text,
        default: "n/a",
        example: "node.cluster.example",
        group: Group::Interface,
        help: "Name that the certificates of all nodes have. n/a: each is valid for the address that its node \
            is dialled at and connects from.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "IntSecureTcpPort",
        kind: Kind::Port,
        default: "0",
        example: "1115",
        group: Group::Interface,
        help: "Port for replication and forwarded requests with UseInternalSsl, instead of IntTcpPort; 0: \
            IntTcpPort is used, with TLS.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "IntSecureTcpPortAdvertiseAs",
        kind: Kind::Port,
        default: "0",
        example: "21115",
        group: Group::Interface,
        help: "Port to tell others instead of IntSecureTcpPort; 0 means the same.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ClusterSecretFile",
        kind: Kind::Path,
        default: "",
        example: "/etc/eventstore/cluster.secret",
        group: Group::Interface,
        help: "File with a secret of at least 32 bytes that all nodes have: each connection between nodes \
            begins with a proof of it from both sides, and requests to IntHttpPort are signed. Keeps \
            strangers out where there is no UseInternalSsl; it encrypts nothing.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "UnsafeOpenInternalPlane",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Interface,
        help: "Start although IntIp is not a loopback address and there is neither UseInternalSsl nor \
            ClusterSecretFile: whoever reaches IntIp can read and change everything.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ExtSecureTcpPort",
        kind: Kind::Port,
        default: "0",
        example: "1116",
        group: Group::Interface,
        help: "Port for clients with TLS, TCP protocol, on ExtIp; 0: none. Needs CertificateFile and \
            CertificatePrivateKeyFile.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ExtSecureTcpPortAdvertiseAs",
        kind: Kind::Port,
        default: "0",
        example: "21116",
        group: Group::Interface,
        help: "Port to tell others instead of ExtSecureTcpPort; 0 means the same.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ExtSecureHttpPort",
        kind: Kind::Port,
        default: "0",
        example: "2114",
        group: Group::Interface,
        help: "Port for clients with HTTPS, on ExtIp; 0: none. Needs CertificateFile and \
            CertificatePrivateKeyFile.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "DisableInsecureTCP",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Interface,
        help: "Do not open ExtTcpPort: clients use ExtSecureTcpPort, which must be set.",
        is_secret: false,
        support: Support::Present,
    },
];
