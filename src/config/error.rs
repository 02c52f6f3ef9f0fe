//! Why the options are refused.

use std::io;
use std::path::PathBuf;

use crate::config::raw::Source;

/// Why the options are refused. Nothing has been started; the operator corrects the option and starts again.
///
/// Each message says what failed, the value, the limit and the next step. What the system or the YAML parser says about
/// a file is the source of the error: print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No option has this name.
    #[error("{spelling} ({origin}) is not an option;{} `ringstore --help` lists all options", suggestion(.nearest))]
    UnknownOption {
        /// The name as given.
        spelling: String,
        /// Where it was given.
        origin: Source,
        /// The known name that is most like it, in the form of that source.
        nearest: Option<String>,
    },

    /// A flag stands at the end, or before another flag, without its value.
    #[error("{flag} has no value; write for example {flag} {example}")]
    MissingValue {
        /// The flag.
        flag: String,
        /// A value that it takes.
        example: &'static str,
    },

    /// An option is given twice in one source, which leaves open what is meant.
    #[error("{name} is given twice ({origin}), as \"{first}\" and as \"{second}\"; remove one of them")]
    GivenTwice {
        /// The option.
        name: &'static str,
        /// Where it was given.
        origin: Source,
        /// The value, or the spelling of the name, that came first.
        first: String,
        /// The one that came second.
        second: String,
    },

    /// An argument is neither a flag nor the value of one.
    #[error("the argument \"{argument}\" belongs to no option; options are written --name value or --name=value")]
    StrayArgument {
        /// The argument.
        argument: String,
    },

    /// A text that is not UTF-8.
    #[error("{what} is not valid UTF-8 (\"{lossy}\"); write it in UTF-8")]
    NotUnicode {
        /// Which text.
        what: String,
        /// The text with its invalid parts replaced.
        lossy: String,
    },

    /// `clap` objects although the arguments were put in order before; its message names the argument.
    #[error("the command line is not understood: {message}; `ringstore --help` shows how options are written")]
    CommandLine {
        /// What `clap` says.
        message: String,
    },

    /// The configuration file cannot be read.
    #[error("the configuration file {} ({origin}) cannot be read; correct Config or the file's permissions", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// Where its path was given.
        origin: Source,
        /// What the system says.
        #[source]
        cause: io::Error,
    },

    /// The configuration file is not YAML.
    #[error("the configuration file {} is not valid YAML; each line is written `Name: value`", path.display())]
    FileNotYaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        #[source]
        cause: serde_yaml_ng::Error,
    },

    /// The configuration file is YAML, but not a mapping of option names to values.
    #[error("{place} in the configuration file {} is {found}, but must be {expected}", path.display())]
    FileShape {
        /// The file.
        path: PathBuf,
        /// Which part of it.
        place: String,
        /// What is there.
        found: &'static str,
        /// What should be there.
        expected: &'static str,
    },

    /// A value is of the wrong type, or out of bounds.
    #[error("{name} is \"{value}\" ({origin}), but must be {expected}; write for example {name} = {example}")]
    Value {
        /// The option.
        name: &'static str,
        /// The value as given.
        value: String,
        /// Where it was given.
        origin: Source,
        /// What is accepted.
        expected: String,
        /// A value that is accepted.
        example: &'static str,
    },

    /// A path begins with `~`, which only a shell would replace.
    #[error("{name} is \"{path}\" ({origin}): ~ is replaced by shells, not by ringstore; write the whole path")]
    TildePath {
        /// The option.
        name: &'static str,
        /// The path.
        path: String,
        /// Where it was given.
        origin: Source,
    },

    /// A path is empty.
    #[error("{name} is empty ({origin}), but must name a directory; write for example {name} = {example}")]
    EmptyPath {
        /// The option.
        name: &'static str,
        /// Where it was given.
        origin: Source,
        /// A path.
        example: &'static str,
    },

    /// A gossip seed is not `IP:port`.
    #[error(
        "GossipSeed \"{seed}\" ({origin}) {problem}; write IP:port of a node's internal HTTP, for example 10.0.0.2:2112"
    )]
    Seed {
        /// The one seed.
        seed: String,
        /// Where it was given.
        origin: Source,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// A rule of addresses by network is none.
    #[error("{name} \"{rule}\" ({origin}) {problem}; write NETWORK=ADDRESS, for example 10.1.0.0/16=10.1.0.5")]
    AddressRule {
        /// The option.
        name: &'static str,
        /// The one rule.
        rule: String,
        /// Where it was given.
        origin: Source,
        /// What is wrong with it.
        problem: String,
    },

    /// More rules than a node's gossip entry has room for.
    #[error(
        "{name} has {found} rules ({origin}), but may have {}; give one rule for several networks",
        crate::limits::ADVERTISE_RULES_MAX
    )]
    TooManyRules {
        /// The option.
        name: &'static str,
        /// How many.
        found: usize,
        /// Where they were given.
        origin: Source,
    },

    /// A thread is placed by two options.
    #[error(
        "{list} is \"{processors}\" ({origin}) and CpuPinning is \"{pinning}\", but both place the {thread} thread; take \
         {thread} out of CpuPinning, or remove {list}"
    )]
    PlacedTwice {
        /// The list of processors.
        list: &'static str,
        /// Its value.
        processors: String,
        /// Where the list was given.
        origin: Source,
        /// The value of `CpuPinning`.
        pinning: String,
        /// The thread, as `CpuPinning` calls it.
        thread: &'static str,
    },

    /// A text that cannot be a DNS name.
    #[error(
        "ClusterDns is \"{name}\" ({origin}), but must be a DNS name of at most 253 letters, digits, dots and dashes; \
         the port to gossip with is ClusterGossipPort"
    )]
    DnsName {
        /// The text.
        name: String,
        /// Where it was given.
        origin: Source,
    },

    /// DNS answers with addresses only, so the port must be known.
    #[error(
        "ClusterGossipPort is 0 ({origin}), but must be a port from 1 to 65535, because ClusterDns is \"{name}\"; \
         set it to the internal HTTP port of the nodes, for example 2112"
    )]
    GossipPortZero {
        /// The DNS name.
        name: String,
        /// Where the port was given.
        origin: Source,
    },

    /// A node on its own is told where the others are.
    #[error(
        "{name} is \"{value}\" ({origin}), but ClusterSize is 1, a node on its own; \
         set ClusterSize to the number of nodes, or remove {name}"
    )]
    DiscoveryWithoutCluster {
        /// The option that names other nodes.
        name: &'static str,
        /// Its value.
        value: String,
        /// Where it was given.
        origin: Source,
    },

    /// A cluster in which this node is not told where the others are.
    #[error(
        "ClusterSize is {cluster_size}, but there is neither a GossipSeed nor a ClusterDns in use to find the other {others} \
         by; set GossipSeed to their internal HTTP endpoints, for example 10.0.0.2:2112,10.0.0.3:2112",
        others = cluster_size - 1
    )]
    NoDiscovery {
        /// Nodes in the cluster.
        cluster_size: usize,
    },

    /// A copy of nothing.
    #[error(
        "ReadOnlyReplica is true ({origin}), but ClusterSize is 1, a node on its own: there is no cluster to copy from; set \
         ClusterSize to that of the cluster and GossipSeed to its nodes"
    )]
    ReadOnlyAlone {
        /// Where the option came from.
        origin: Source,
    },

    /// Two listeners on one address have the same port.
    #[error(
        "{first} and {second} are both {port} on {address}, but a port can be listened on once; change one of them"
    )]
    SamePort {
        /// One option.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The port.
        port: u16,
        /// The address on which they meet.
        address: std::net::IpAddr,
    },

    /// Other nodes would be told an address that means "any".
    #[error(
        "{name} is {address}, which means \"any\": nobody can connect to it (ClusterSize is {cluster_size}); \
         set {advertise_as} to the address that others reach this node by"
    )]
    UnreachableAddress {
        /// The option.
        name: &'static str,
        /// Its value.
        address: std::net::IpAddr,
        /// Nodes in the cluster.
        cluster_size: usize,
        /// The option that helps.
        advertise_as: &'static str,
    },

    /// Other nodes would be told port 0.
    #[error(
        "{name} is 0, a port of the system's choice, and ClusterSize is {cluster_size}: the other nodes cannot know it; \
         set {name} to a fixed port, or set {name}AdvertiseAs"
    )]
    UnknownPort {
        /// The option.
        name: &'static str,
        /// Nodes in the cluster.
        cluster_size: usize,
    },

    /// An option that cannot do without another one.
    #[error("{option} is \"{value}\" ({origin}) and needs {needs}, which is not set; set {needs}, or remove {option}")]
    Needs {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// Where it was given.
        origin: Source,
        /// The option that is missing.
        needs: &'static str,
    },

    /// Everybody on a network would get in.
    #[error(
        "IntIp is {address} ({origin}), an address that others can reach, and nothing closes the internal ports: whoever \
         reaches them could read and change everything. Set UseInternalSsl with certificates \
         (`ringstore certificates` makes some for a test), or ClusterSecretFile (made by `openssl rand -base64 48`), or \
         UnsafeOpenInternalPlane where nobody else reaches that network"
    )]
    OpenPlane {
        /// `IntIp`.
        address: std::net::IpAddr,
        /// Where it was given.
        origin: Source,
    },

    /// A chunk size between two pages.
    #[error(
        "ChunkSize is {chunk_size} bytes ({origin}), but must be a multiple of 4096; the nearest below is {nearest}"
    )]
    ChunkSizeUneven {
        /// The size.
        chunk_size: u64,
        /// Where it was given.
        origin: Source,
        /// The next smaller size that is accepted.
        nearest: u64,
    },

    /// A chunk could not hold the largest write.
    #[error(
        "ChunkSize is {chunk_size} bytes, but must be at least twice MaxAppendSize ({max_append_size} bytes, {origin}); \
         set ChunkSize to {} or more, or MaxAppendSize to {} or less",
        max_append_size * 2, chunk_size / 2
    )]
    ChunkTooSmall {
        /// The chunk size.
        chunk_size: u64,
        /// The largest write.
        max_append_size: u64,
        /// Where the largest write was given.
        origin: Source,
    },
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!(" did you mean {name}?"))
}
