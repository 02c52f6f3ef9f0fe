//! What the program prints, and how it ends, when it is asked or told wrong.

use std::process::Output;

use crate::support::cluster::{command, scratch};

fn run(options: &[&str]) -> (Output, String) {
    let output = command().args(options).output().expect("the program starts");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).expect("the program prints UTF-8");
    (output, text)
}

/// Every word must be in what was printed.
fn check(options: &[&str], succeeds: bool, words: &[&str]) {
    let (output, text) = run(options);
    assert_eq!(output.status.success(), succeeds, "{options:?} ended with {}: {text}", output.status);
    assert!(output.status.code().is_some(), "{options:?} was ended by a signal: {text}");
    for word in words {
        assert!(text.contains(word), "{options:?} does not say {word:?}: {text}");
    }
}

#[test]
fn help_names_the_options() {
    check(&["--help"], true, &["--int-ip", "--ext-tcp-port", "--cluster-size", "--gossip-seed", "--db"]);
}

#[test]
fn version_is_the_one_of_the_package() {
    check(&["--version"], true, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn what_if_shows_values_and_touches_nothing() {
    let folder = scratch("what-if");
    let db = folder.join("db");
    let db = db.to_str().expect("UTF-8");
    check(&["--what-if", "--db", db, "--ext-tcp-port", "4113"], true, &["4113", db]);
    assert!(!folder.join("db").exists(), "--what-if made a data directory");
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
}

#[test]
fn an_unknown_option_suggests_the_nearest() {
    check(&["--clustr-size", "3"], false, &["clustr-size", "cluster-size"]);
}

#[test]
fn bad_values_are_refused_with_the_value() {
    check(&["--ext-tcp-port", "70000"], false, &["70000"]);
    check(&["--ext-tcp-port", "many"], false, &["many"]);
    check(&["--int-ip", "300.0.0.1"], false, &["300.0.0.1"]);
    check(&["--config", "/nowhere/at-all.conf"], false, &["/nowhere/at-all.conf"]);
    check(&["--cluster-size", "3", "--gossip-seed", "10.0.0.2"], false, &["10.0.0.2", "port"]);
}

#[test]
fn contradictions_are_refused() {
    let ports = ["--ext-ip", "127.0.0.1", "--int-ip", "127.0.0.1", "--int-tcp-port", "4113", "--ext-tcp-port", "4113"];
    let cluster = ["--cluster-size", "3", "--gossip-seed", "127.0.0.2:2112"];
    check(&[&ports[..], &cluster[..]].concat(), false, &["4113"]);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    check(&["--db", "/proc/no-such-place"], false, &["/proc/no-such-place"]);
}
