//! The table of options: the one source of the parser, the help text, the start-up report and the manual page.
//!
//! A row names an option once; the flag, the environment variable and the YAML key follow from the name by rules. The
//! rows lie in a file for each group. Options of v5 that ringstore does not have yet are rows too, in `v5.rs`, so that
//! an existing configuration still starts and is told what it does not get.

mod application;
mod cluster;
mod database;
mod interface;
mod planes;
mod security;
mod threads;
mod v5;

use crate::limits::{CPU_COUNT_MAX, DEVICE_NAME_MAX_BYTES};

/// One option.
#[derive(Debug)]
pub struct OptionSpec {
    /// The canonical name, which is also the YAML key: `IntIp`.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// The value when no source has one, in the form that an operator would write. Empty means "none".
    pub default: &'static str,
    /// A value that is accepted and is not the default: for help and error messages.
    pub example: &'static str,
    /// Under which heading it is listed.
    pub group: Group,
    /// What it does, in a sentence or two.
    pub help: &'static str,
    /// True when its value must not be printed.
    pub is_secret: bool,
    /// Whether ringstore acts on it.
    pub support: Support,
}

/// What the value of an option may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// true or false; a flag without a value means true.
    Switch,
    /// Any text.
    Text,
    /// A file or directory.
    Path,
    /// An IPv4 or IPv6 literal.
    Ip,
    /// A port; 0 has a meaning that the help text tells.
    Port,
    /// A whole number between two bounds, both included.
    Integer {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A time in milliseconds.
    Milliseconds {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// A size in bytes, also as `16MiB`.
    Bytes {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A list of `IP:port`.
    Endpoints,
    /// Threads and processors, see [`crate::config::CpuPinning`].
    Pinning,
    /// A list of processors, `0-3,8`.
    Cpus,
    /// The name of a network device.
    Device,
    /// Addresses by client network, see [`crate::gossip::AddressRule`].
    AddressRules,
}

/// The headings under which options are listed, in the order of the help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// What the program as a whole does.
    Application,
    /// Addresses and ports.
    Interface,
    /// Who the other nodes are.
    Cluster,
    /// The log and its files.
    Database,
    /// Threads and processors.
    Threads,
}

/// Whether ringstore acts on an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does.
    Present,
    /// An option of v5 that is recognised and ignored, with a warning.
    NotYet {
        /// What the operator must know beyond "it is ignored"; empty when there is nothing.
        consequence: &'static str,
    },
}

/// The rows, our own options first: a suggestion prefers them.
static GROUPS: [&[OptionSpec]; 8] = [
    application::OPTIONS,
    interface::OPTIONS,
    planes::OPTIONS,
    security::OPTIONS,
    cluster::OPTIONS,
    database::OPTIONS,
    threads::OPTIONS,
    v5::OPTIONS,
];

impl OptionSpec {
    /// The flag as help spells it: `--int-ip`.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", words(self.name).join("-").to_ascii_lowercase())
    }

    /// The environment variable: `EVENTSTORE_INT_IP`.
    #[must_use]
    pub fn environment_name(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", words(self.name).join("_").to_ascii_uppercase())
    }

    /// A value of this option as it may be printed: nothing of a secret, and a word for an empty text.
    #[must_use]
    pub fn shown<'a>(&self, value: &'a str) -> &'a str {
        match value {
            "" => "<empty>",
            _ if self.is_secret => "****",
            _ => value,
        }
    }

    /// True when ringstore acts on it.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.support == Support::Present
    }
}

impl Kind {
    /// Says what is accepted, to follow the words "must be".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Kind::Switch => "true or false".into(),
            Kind::Text => "a text".into(),
            Kind::Path => "a path".into(),
            Kind::Ip => "an IPv4 or IPv6 address (no host name)".into(),
            Kind::Port => "a port from 0 to 65535".into(),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Milliseconds { min, max } => format!("a whole number of milliseconds from {min} to {max}"),
            Kind::Bytes { min, max } => format!("a size from {min} to {max} bytes, plain or with KiB, MiB or GiB"),
            Kind::Endpoints => "a list of IP:port, with commas between".into(),
            Kind::Pinning => "a list like log=0,control=1,edges=2-3, with processor numbers".into(),
            Kind::Cpus => format!("a list of processors from 0 to {}, each once, as 0-3,8", CPU_COUNT_MAX - 1),
            Kind::Device => format!("the name of a network device, at most {DEVICE_NAME_MAX_BYTES} bytes"),
            Kind::AddressRules => "a list of NETWORK=ADDRESS, or in YAML of mappings with for and address".into(),
        }
    }

    /// The word that stands for the value in the help text.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Switch => "true|false",
            Kind::Text => "NAME",
            Kind::Path => "PATH",
            Kind::Ip => "IP",
            Kind::Port => "PORT",
            Kind::Integer { .. } => "NUMBER",
            Kind::Milliseconds { .. } => "MILLISECONDS",
            Kind::Bytes { .. } => "BYTES",
            Kind::Endpoints => "IP:PORT,..",
            Kind::Pinning => "THREAD=CPU,..",
            Kind::Cpus => "CPUS",
            Kind::Device => "DEVICE",
            Kind::AddressRules => "NETWORK=IP,..",
        }
    }

    /// True when several values may be given, one after the other or with commas between.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Kind::Endpoints | Kind::Pinning | Kind::Cpus | Kind::AddressRules)
    }
}

impl Group {
    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Group::Application => "Application options",
            Group::Interface => "Interface options",
            Group::Cluster => "Cluster options",
            Group::Database => "Database options",
            Group::Threads => "Thread options",
        }
    }
}

/// What the names of our environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "EVENTSTORE_";

/// All rows, those that ringstore acts on first.
pub fn all() -> impl Iterator<Item = &'static OptionSpec> {
    GROUPS.iter().copied().flatten()
}

/// The rows that ringstore acts on, in the order of help.
pub fn present() -> impl Iterator<Item = &'static OptionSpec> {
    all().filter(|spec| spec.is_present())
}

/// The row of a name in any spelling: case does not matter, nor do dashes.
#[must_use]
pub fn find(spelling: &str) -> Option<&'static OptionSpec> {
    let wanted = folded(spelling);
    all().find(|spec| letters(spec.name).eq(wanted.chars()))
}

/// The row of an environment variable. Case does not matter: `EVENTSTORE_Int_IP` is common in users' files.
#[must_use]
pub fn find_environment(name: &str) -> Option<&'static OptionSpec> {
    all().find(|spec| spec.environment_name().eq_ignore_ascii_case(name))
}

/// A name in the form in which spellings are compared.
pub(super) fn folded(spelling: &str) -> String {
    letters(spelling).collect()
}

fn letters(spelling: &str) -> impl Iterator<Item = char> {
    spelling.chars().filter(|letter| *letter != '-').map(|letter| letter.to_ascii_lowercase())
}

/// Cuts a name before its capitals; a run of capitals stays together: `DisableHTTPCaching` is Disable, HTTP, Caching.
fn words(name: &str) -> Vec<&str> {
    let letters = name.as_bytes();
    let mut words = Vec::new();
    let mut start = 0;
    for i in 1..letters.len() {
        let begins_word = letters[i].is_ascii_uppercase()
            && (!letters[i - 1].is_ascii_uppercase() || letters.get(i + 1).is_some_and(u8::is_ascii_lowercase));
        if begins_word {
            words.push(&name[start..i]);
            start = i;
        }
    }
    words.push(&name[start..]);
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_from_the_canonical_one() {
        let check = |name: &str, flag: &str, environment: &str| {
            let spec = find(name).unwrap();
            assert_eq!(spec.name, name);
            assert_eq!(spec.flag(), flag);
            assert_eq!(spec.environment_name(), environment);
            assert_eq!(find_environment(environment).unwrap().name, name);
            assert_eq!(find(flag).unwrap().name, name);
        };
        check("Db", "--db", "EVENTSTORE_DB");
        check("IntIp", "--int-ip", "EVENTSTORE_INT_IP");
        check("ExtTcpPortAdvertiseAs", "--ext-tcp-port-advertise-as", "EVENTSTORE_EXT_TCP_PORT_ADVERTISE_AS");
        check("DiscoverViaDns", "--discover-via-dns", "EVENTSTORE_DISCOVER_VIA_DNS");
        check("DisableHTTPCaching", "--disable-http-caching", "EVENTSTORE_DISABLE_HTTP_CACHING");
        check("DisableInsecureTCP", "--disable-insecure-tcp", "EVENTSTORE_DISABLE_INSECURE_TCP");
        check("UnsafeDisableFlushToDisk", "--unsafe-disable-flush-to-disk", "EVENTSTORE_UNSAFE_DISABLE_FLUSH_TO_DISK");
        check("GossipIntervalMs", "--gossip-interval-ms", "EVENTSTORE_GOSSIP_INTERVAL_MS");
    }

    #[test]
    fn secrets_are_masked() {
        let check = |name: &str, value: &str, expected: &str| {
            assert_eq!(find(name).unwrap().shown(value), expected);
        };
        check("CertificatePassword", "hush", "****");
        check("CertificatePassword", "", "<empty>");
        check("Db", "/data", "/data");
    }

    #[test]
    fn no_two_rows_share_a_name() {
        let names: BTreeSet<String> = all().map(|spec| folded(spec.name)).collect();
        assert_eq!(names.len(), all().count());
        let variables: BTreeSet<String> = all().map(OptionSpec::environment_name).collect();
        assert_eq!(variables.len(), all().count());
    }

    #[test]
    fn all_104_options_of_v5_are_known_and_the_others_are_ours() {
        let ours = [
            "MaxAppendSize",
            "ChunkSize",
            "ScrubMibPerSecond",
            "EdgeThreads",
            "CpuPinning",
            "ReadOnlyReplica",
            "IntDevice",
            "ExtDevice",
            "IntBusyPollUs",
            "ExtAdvertise",
            "IntCpus",
            "ExtCpus",
            "CertificatePrivateKeyFile",
            "CertificateAuthorityFile",
            "ClusterSecretFile",
            "UnsafeOpenInternalPlane",
            "ExtSecureHttpPort",
        ];
        assert_eq!(all().count(), 104 + ours.len());
        for name in ours {
            assert!(find(name).unwrap().is_present(), "{name}");
        }
    }

    #[test]
    fn rows_of_ours_are_complete_and_in_the_order_of_their_groups() {
        for spec in present() {
            assert!(!spec.help.is_empty() && spec.help.ends_with('.'), "{}", spec.name);
            assert!(!spec.example.is_empty() && spec.example != spec.default, "{}", spec.name);
        }
        assert!(present().is_sorted_by_key(|spec| spec.group));
    }
}
