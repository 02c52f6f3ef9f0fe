//! Options: the command line and the environment, the YAML file.

use std::ffi::OsString;
use std::io;

use ringstore::config::{ConfigError, Outcome, load};

/// The whole input is the file.
pub(super) fn file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // A name for the file keeps the default's absence out of it.
    let environment = [(OsString::from("EVENTSTORE_CONFIG"), OsString::from("/x.conf"))];
    check(&load([], environment, |_| Ok(text.to_owned())));
}

/// A line each: an argument, or behind an empty line the environment's `NAME=value`.
pub(super) fn command_line(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (arguments, environment) = text.split_once("\n\n").unwrap_or((text, ""));
    let arguments = arguments.lines().map(OsString::from);
    let environment: Vec<_> = environment.lines().filter_map(|line| line.split_once('=')).collect();
    let environment = environment.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    check(&load(arguments, environment, |_| Err(io::ErrorKind::NotFound.into())));
}

fn check(result: &Result<Outcome, ConfigError>) {
    match result {
        Ok(Outcome::Help(text) | Outcome::Version(text)) => assert!(!text.is_empty()),
        Ok(Outcome::Run(loaded)) => {
            let config = format!("{:?}", loaded.config);
            assert!(!config.is_empty() && loaded.warnings.iter().all(|warning| !warning.is_empty()));
            assert!(!loaded.what_if || !loaded.report.is_empty(), "--what-if prints everything");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub(super) fn file_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "IntIp: 10.0.0.1\nClusterSize: 3\nGossipSeed: ['10.0.0.2:2112', 10.0.0.3:2112]\n",
        "---\n# comment\nWhatIf: yes\nint-ip: \"::1\"\nDb: /data\nMemDb: False\nRunProjections: All\n",
        "LdapsAuth:\n  Host: 1.2.3.4\nConfig: /y\nChunkSize: 1048576\nMaxAppendSize: 4096\n",
        "CpuPinning: [log=0, edges=1]\nNodePriority: -3\nGossipSeed:\n  - 10.0.0.2:2112\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nIntIp: ~\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(super) fn command_line_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "--int-ip=10.0.0.1\n--cluster-size\n3\n--gossip-seed\n10.0.0.2:2112,10.0.0.3:2112\n--db\n./data",
        "-IntIp\n10.0.0.1\n--WhatIf+\n-Log=./log",
        "--help",
        "--what-if\n\nEVENTSTORE_INT_IP=10.0.0.1\nEVENTSTORE_CLUSTER_SIZE=3\nEVENTSTORE_CPU_PINNING=log=0,edges=1",
        "--chunk-size=1048576\n--max-append-size=4096\n--node-priority=-3\n--advertise-as=h",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
