//! All sources together.

use super::*;

struct Given<'a> {
    arguments: &'a str,
    environment: &'a [(&'a str, &'a str)],
    /// Path and text of the one file that exists.
    file: Option<(&'a str, &'a str)>,
}

fn outcome(given: &Given<'_>) -> Result<Outcome, ConfigError> {
    let variables = given.environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load(given.arguments.split_whitespace().map(OsString::from), variables, |path| match given.file {
        Some((known, text)) if Path::new(known) == path => Ok(text.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn loaded(given: &Given<'_>) -> Loaded {
    match outcome(given).unwrap() {
        Outcome::Run(loaded) => *loaded,
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let check = |arguments: &str, environment: &[(&str, &str)], file: &str, port: u16, source: Option<Source>| {
        let loaded = loaded(&Given { arguments, environment, file: Some((DEFAULT_FILE, file)) });
        assert_eq!(loaded.config.ext_tcp_port, port);
        let line = source.map(|source| format!("\n  ExtTcpPort                 {port} ({source})\n"));
        match line {
            Some(line) => assert!(loaded.report.contains(&line), "{}", loaded.report),
            None => assert!(!loaded.report.contains("ExtTcpPort"), "{}", loaded.report),
        }
    };
    let environment = [("EVENTSTORE_EXT_TCP_PORT", "2000")];
    check("--ext-tcp-port 1000", &environment, "ExtTcpPort: 3000", 1000, Some(Source::CommandLine));
    check("", &environment, "ExtTcpPort: 3000", 2000, Some(Source::Environment));
    check("", &[], "ExtTcpPort: 3000", 3000, Some(Source::ConfigFile));
    check("", &[("EVENTSTORE_EXT_TCP_PORT", "")], "ExtTcpPort: 3000", 3000, Some(Source::ConfigFile));
    check("", &[], "", 1113, None);
    // The value of a lower source is not even looked at.
    check("--ext-tcp-port 1000", &[], "ExtTcpPort: odd", 1000, Some(Source::CommandLine));
}

#[test]
fn lists_are_replaced_as_a_whole() {
    let loaded = loaded(&Given {
        arguments: "--cluster-size 3 --gossip-seed 10.0.0.2:1",
        environment: &[("EVENTSTORE_GOSSIP_SEED", "10.0.0.3:1")],
        file: Some((DEFAULT_FILE, "GossipSeed: [10.0.0.4:1]")),
    });
    assert_eq!(loaded.config.gossip_seeds, ["10.0.0.2:1".parse().unwrap()]);
}

#[test]
fn the_file_is_the_named_one_or_the_default_one() {
    let check = |arguments: &str, environment: &[(&str, &str)], file: &str, expected: Option<&str>| {
        let loaded = loaded(&Given { arguments, environment, file: Some((file, "ClusterSize: 1\nNodePriority: 5")) });
        assert_eq!(loaded.config.config_file.as_deref(), expected.map(Path::new));
        assert_eq!(loaded.config.node_priority, if expected.is_some() { 5 } else { 0 });
    };
    check("", &[], DEFAULT_FILE, Some(DEFAULT_FILE));
    let report = loaded(&Given { arguments: "", environment: &[], file: Some((DEFAULT_FILE, "")) }).report;
    assert!(
        report.contains(&format!("Config                     {DEFAULT_FILE} (default, the file exists)")),
        "{report}"
    );
    check("", &[], "/elsewhere", None);
    check("--config /a.conf", &[], "/a.conf", Some("/a.conf"));
    check("", &[("EVENTSTORE_Config", "/b.conf")], "/b.conf", Some("/b.conf"));
    check("--config /a.conf", &[("EVENTSTORE_CONFIG", "/b.conf")], "/a.conf", Some("/a.conf"));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let named = Given { arguments: "--config /a.conf", environment: &[], file: None };
    let message = outcome(&named).unwrap_err().to_string();
    assert!(message.starts_with("the configuration file /a.conf (command line) cannot be read; "), "{message}");
    // Also the default one, when it is there but closed to us: half a configuration must not start.
    let denied = load([], [], |_| Err(io::ErrorKind::PermissionDenied.into()));
    assert!(matches!(denied, Err(ConfigError::FileUnreadable { origin: Source::Default, .. })));
    let tilde = Given { arguments: "--config ~/a.conf", environment: &[], file: None };
    assert!(matches!(outcome(&tilde), Err(ConfigError::TildePath { name: "Config", .. })));
}

#[test]
fn help_and_version_come_before_everything_else() {
    let broken = &[("EVENTSTORE_CLUSTER_SIZE", "9")];
    let check = |arguments: &str| outcome(&Given { arguments, environment: broken, file: None }).unwrap();
    assert!(matches!(check("--help --version --cluster-size 99"), Outcome::Help(_)));
    assert!(
        matches!(check("--version --what-if"), Outcome::Version(text) if text == version_text() && text.starts_with(&version()))
    );
    let from_file = Given { arguments: "", environment: &[], file: Some((DEFAULT_FILE, "Version: true")) };
    assert!(matches!(outcome(&from_file).unwrap(), Outcome::Version(_)));
}

#[test]
fn what_if_reports_everything_and_still_checks() {
    let loaded = loaded(&Given { arguments: "--what-if", environment: &[], file: None });
    assert!(loaded.what_if);
    assert!(loaded.report.starts_with("Options in force:\nApplication options\n"), "{}", loaded.report);
    assert!(loaded.report.contains("ExtTcpPort                 1113 (default)"), "{}", loaded.report);
    let broken = Given { arguments: "--what-if --cluster-size 9", environment: &[], file: None };
    assert!(matches!(outcome(&broken), Err(ConfigError::Value { name: "ClusterSize", .. })));
}

#[test]
fn warnings_of_all_sources_arrive() {
    let loaded = loaded(&Given {
        arguments: "--mem-db --int-ip 10.0.0.1 --unsafe-open-internal-plane",
        environment: &[("EVENTSTORE_STATS_PERIOD_SEC", "5"), ("EVENTSTORE_PORT", "tcp://10.0.0.9:1113")],
        file: Some((DEFAULT_FILE, "RunProjections: None")),
    });
    assert!(!loaded.what_if);
    let expected = [
        "MemDb (command line)",
        "variable EVENTSTORE_PORT",
        "StatsPeriodSec (env",
        "RunProjections (config",
        "UnsafeOpen",
    ];
    assert_eq!(loaded.warnings.len(), expected.len(), "{:?}", loaded.warnings);
    for (warning, expected) in loaded.warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warning}");
    }
}

/// A row of the table that nothing reads would be an option without effect.
#[test]
fn every_option_reaches_the_configuration() {
    let base = [
        ("ClusterSize", "5"),
        ("GossipSeed", "10.0.0.9:1"),
        ("ClusterDns", "nodes.example"),
        ("ClusterSecretFile", "/s"),
        ("CertificateFile", "/c"),
        ("CertificatePrivateKeyFile", "/k"),
        ("CertificateAuthorityFile", "/a"),
        ("ExtSecureTcpPort", "1117"),
    ];
    // What only TLS between the nodes has a use for.
    let with_tls = [("UseInternalSsl", "true"), ("IntSecureTcpPort", "1118")];
    let config = |changed: Option<(&str, &str)>, tls: &[(&str, &str)]| {
        let given = base.iter().chain(tls);
        let kept = given.filter(|(name, _)| changed.is_none_or(|(changed, _)| changed != *name));
        let file: String = kept.chain(changed.iter()).map(|(name, value)| format!("{name}: {value}\n")).collect();
        loaded(&Given { arguments: "", environment: &[], file: Some((DEFAULT_FILE, &file)) }).config
    };
    // These four act before there is a configuration; the tests above have them.
    for spec in table::present().filter(|spec| !["Help", "Version", "WhatIf", "Config"].contains(&spec.name)) {
        let is_inner = ["CertificateAuthorityFile", "IntSecureTcpPortAdvertiseAs"].contains(&spec.name);
        let tls = if is_inner { &with_tls[..] } else { &[] };
        assert_ne!(config(Some((spec.name, spec.example)), tls), config(None, tls), "{}", spec.name);
    }
}
